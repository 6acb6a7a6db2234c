//! One arm under test: a driver, how to make it go on, and shorthands for connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use engine::driver::sim::{Faults, SimDriver, World};
use engine::driver::{
    Completion, Driver, Errno, Fd, ListenOptions, Op, OpId, Payload, PeerName, Ring, Setup,
    Siblings, Token,
};
use view::Output;

/// Seeds per body in the rough world.
pub(crate) const ROUGH_SEEDS: u64 = 25;
/// How long a turn on the ring waits, and how many turns a test waits for a completion.
const TURN_NS: u64 = 20_000_000;
const TURNS_MAX: u32 = 500;
/// The same in the simulation, in steps of the world.
const STEPS_MAX: u32 = 2_000_000;

/// A driver and what completed but was not asked for yet.
pub(crate) struct Arm {
    pub(crate) driver: Driver,
    stash: VecDeque<Completion>,
    next_token: Token,
    kind: Kind,
    setup: Setup,
    faults: Faults,
}

enum Kind {
    Ring(Arc<Siblings>),
    Sim(World),
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) client: Fd,
    pub(crate) server: Fd,
}

/// Runs `body` on a ring; a call that blocks for ever is a failure, not a hang.
#[expect(clippy::disallowed_methods, reason = "a watchdog needs a thread to watch")]
pub(crate) fn on_the_ring(body: fn(&mut Arm)) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (done, is_done) = mpsc::channel();
    let running = std::thread::spawn(move || {
        // Sent when dropped, also by a panic.
        let _done: mpsc::Sender<()> = done;
        body(&mut Arm::ring());
    });
    let outcome = is_done.recv_timeout(PATIENCE);
    assert_ne!(outcome, Err(mpsc::RecvTimeoutError::Timeout), "a call of the driver blocks");
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `body` in a rough world, and names the seed when it fails.
pub(crate) fn with_seed(seed: u64, body: fn(&mut Arm)) {
    let mut arm = Arm::simulated(seed, Faults::rough());
    let world = arm.world().cloned();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&mut arm)));
    if let Err(panic) = outcome {
        eprintln!("seed {seed} failed; last completions:");
        for line in world.map(|world| world.recent()).unwrap_or_default() {
            eprintln!("  {line}");
        }
        std::panic::resume_unwind(panic);
    }
}

/// The bytes a test sends: any position can be told from its neighbours.
pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// An output that holds `bytes` inline.
pub(crate) fn inline(bytes: &[u8]) -> Output {
    let mut out = Output::default();
    out.write(bytes);
    out
}

impl Arm {
    pub(crate) fn ring() -> Self {
        let setup = Setup::default();
        let siblings = Siblings::new(4);
        let driver = ring(&setup, 0, &siblings);
        Self::new(driver, Kind::Ring(siblings), setup, Faults::none())
    }

    pub(crate) fn perfect(seed: u64) -> Self {
        Self::simulated(seed, Faults::none())
    }

    fn simulated(seed: u64, faults: Faults) -> Self {
        let setup = Setup::default();
        let world = World::new(seed, faults.clone());
        let driver = Driver::Sim(Box::new(SimDriver::new(&world, 0, &setup)));
        Self::new(driver, Kind::Sim(world), setup, faults)
    }

    fn new(driver: Driver, kind: Kind, setup: Setup, faults: Faults) -> Self {
        let stash = VecDeque::new();
        Self { driver, stash, next_token: 1, kind, setup, faults }
    }

    /// The same arm with another setup, and nothing in it.
    pub(crate) fn with_setup(&self, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = self.setup.clone();
        change(&mut setup);
        match &self.kind {
            Kind::Ring(_) => {
                let siblings = Siblings::new(4);
                let driver = ring(&setup, 0, &siblings);
                Self::new(driver, Kind::Ring(siblings), setup, Faults::none())
            }
            Kind::Sim(world) => {
                let fresh = World::new(world.seed(), self.faults.clone());
                let driver = Driver::Sim(Box::new(SimDriver::new(&fresh, 0, &setup)));
                Self::new(driver, Kind::Sim(fresh), setup, self.faults.clone())
            }
        }
    }

    /// A second shard of the same process.
    pub(crate) fn second(&self) -> Self {
        let (driver, kind) = match &self.kind {
            Kind::Ring(siblings) => {
                (ring(&self.setup, 1, siblings), Kind::Ring(Arc::clone(siblings)))
            }
            Kind::Sim(world) => {
                let driver = SimDriver::new(world, 1, &self.setup);
                (Driver::Sim(Box::new(driver)), Kind::Sim(world.clone()))
            }
        };
        Self::new(driver, kind, self.setup.clone(), self.faults.clone())
    }

    pub(crate) fn world(&self) -> Option<&World> {
        match &self.kind {
            Kind::Ring(_) => None,
            Kind::Sim(world) => Some(world),
        }
    }

    /// Whether transfers may be short and late.
    pub(crate) fn is_rough(&self) -> bool {
        self.faults.delay > 0.0
    }

    /// More bytes than the buffers of a connection hold.
    pub(crate) fn large(&self) -> usize {
        if self.world().is_some() { 1 << 20 } else { 24 << 20 }
    }

    /// An empty directory of the test's own.
    pub(crate) fn directory(&mut self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("conformance-{}-{number}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        self.driver.make_dir(&path).expect("a directory");
        path
    }

    /// Removes a directory made for a test; the simulated ones vanish with their world.
    pub(crate) fn remove(&self, path: &std::path::Path) {
        if self.world().is_none() {
            std::fs::remove_dir_all(path).expect("our own directory");
        }
    }

    /// Lets the outside go on, and collects completions.
    pub(crate) fn pump(&mut self) {
        match &self.kind {
            Kind::Ring(_) => self.driver.turn(true, Some(TURN_NS)),
            Kind::Sim(world) => {
                let world = world.clone();
                self.driver.turn(false, None);
                if !self.driver.has_pending_events() {
                    world.advance();
                }
                self.driver.turn(false, None);
            }
        }
        while let Some(completion) = self.driver.next_completion() {
            self.stash.push_back(completion);
        }
    }

    /// Lets some time pass in which something unwanted could happen.
    pub(crate) fn settle(&mut self) {
        match &self.kind {
            Kind::Ring(_) => {
                for _ in 0..3 {
                    self.driver.turn(true, Some(TURN_NS));
                    while let Some(completion) = self.driver.next_completion() {
                        self.stash.push_back(completion);
                    }
                }
            }
            Kind::Sim(_) => (0..100).for_each(|_| self.pump()),
        }
    }

    pub(crate) fn submit(&mut self, op: Op) -> (Token, OpId) {
        self.next_token += 1;
        (self.next_token, self.driver.submit(self.next_token, op))
    }

    /// A completion of `token` that is there already.
    pub(crate) fn take(&mut self, token: Token) -> Option<Completion> {
        let at = self.stash.iter().position(|completion| completion.token == token)?;
        self.stash.remove(at)
    }

    /// The next completion of `token`.
    pub(crate) fn wait(&mut self, token: Token) -> Completion {
        let most = if self.world().is_some() { STEPS_MAX } else { TURNS_MAX };
        for _ in 0..most {
            if let Some(completion) = self.take(token) {
                return completion;
            }
            self.pump();
        }
        panic!("nothing completed for token {token}");
    }

    /// Submits `op` and waits for its only completion.
    pub(crate) fn run(&mut self, op: Op) -> Completion {
        let (token, _) = self.submit(op);
        let completion = self.wait(token);
        assert!(!completion.more, "{completion:?}");
        completion
    }

    pub(crate) fn listen(&mut self) -> (Fd, SocketAddr) {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = self.driver.listen(any, &ListenOptions::default()).expect("a free port");
        match self.driver.names(listener).0 {
            PeerName::Tcp(addr) => (listener, addr),
            other => panic!("a TCP listener named {other}"),
        }
    }

    pub(crate) fn connect(&mut self) -> Pair {
        let (listener, addr) = self.listen();
        let (accept, accept_id) = self.submit(Op::AcceptMulti { listener });
        let client = self.driver.socket(addr).expect("a socket");
        assert_eq!(self.run(Op::Connect { fd: client, addr }).result, Ok(0));
        let server = self.wait(accept).accepted().expect("a connection");
        assert_eq!(self.run(Op::Cancel { target: accept_id }).result, Ok(0));
        assert_eq!(self.wait(accept).result, Err(Errno(libc::ECANCELED)));
        self.driver.close_now(listener);
        Pair { client, server }
    }

    pub(crate) fn close(&mut self, pair: Pair) {
        self.driver.close_now(pair.client);
        self.driver.close_now(pair.server);
    }

    /// Sends all of `out`, however many sends that takes.
    pub(crate) fn send_all(&mut self, fd: Fd, out: Output) -> Output {
        let total = out.len();
        let (mut out, mut skip) = (out, 0);
        while skip < total {
            let completion = self.run(Op::Send { fd, out, skip, zero_copy: false });
            skip += completion.result.expect("an open connection") as usize;
            out = output(completion.payload);
        }
        out
    }

    /// Receives exactly `len` bytes with single receives.
    pub(crate) fn recv_exactly(&mut self, fd: Fd, len: usize) -> Vec<u8> {
        let mut buf = BytesMut::with_capacity(len);
        while buf.len() < len {
            let most = len - buf.len();
            let completion = self.run(Op::RecvInto { fd, buf, len: most });
            assert_ne!(completion.result, Ok(0), "the connection ended early");
            completion.result.expect("an open connection");
            buf = bytes(completion.payload);
        }
        buf.to_vec()
    }

    /// Takes what a multishot receive has delivered, and arms it again when what was taken late
    /// had used up the pool.
    pub(crate) fn receive_pattern(&mut self, fd: Fd, recv: &mut Token, received: &mut usize) {
        while let Some(completion) = self.take(*recv) {
            if completion.result == Err(Errno(libc::ENOBUFS)) {
                *recv = self.submit(Op::RecvMulti { fd }).0;
                continue;
            }
            let lease = lease(completion.payload);
            assert!(lease[..] == pattern(*received, lease.len()), "at {received}");
            *received += lease.len();
        }
    }

    /// Receives until the end of the stream.
    pub(crate) fn recv_to_end(&mut self, fd: Fd) -> Vec<u8> {
        let mut buf = BytesMut::new();
        loop {
            buf.reserve(4096);
            let completion = self.run(Op::RecvInto { fd, buf, len: 4096 });
            let end = completion.result.expect("an open connection") == 0;
            buf = bytes(completion.payload);
            if end {
                return buf.to_vec();
            }
        }
    }
}

fn ring(setup: &Setup, shard: usize, siblings: &Arc<Siblings>) -> Driver {
    let ring = Ring::start(setup, shard, Arc::clone(siblings)).expect("a kernel with io_uring");
    Driver::Uring(Box::new(ring))
}

pub(crate) fn output(payload: Payload) -> Output {
    match payload {
        Payload::Output(out) => out,
        other => panic!("a send returned {other:?}"),
    }
}

pub(crate) fn bytes(payload: Payload) -> BytesMut {
    match payload {
        Payload::Bytes(buf) => buf,
        other => panic!("a receive returned {other:?}"),
    }
}

pub(crate) fn direct(payload: Payload) -> engine::buf::DirectBuf {
    match payload {
        Payload::Direct(buf) => buf,
        other => panic!("a file operation returned {other:?}"),
    }
}

pub(crate) fn lease(payload: Payload) -> engine::buf::Lease {
    match payload {
        Payload::Lease(lease) => lease,
        other => panic!("a receive lent {other:?}"),
    }
}
