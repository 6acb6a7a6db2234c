//! Tests of the model as a whole: a small echo server under every fault, and what the conformance
//! suite cannot see because a real kernel does not let itself be observed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bytes::BytesMut;
use view::Output;

use super::*;
use crate::driver::ListenOptions;

const ADDR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);
const ACCEPT: Token = 0;
const CLOSE: Token = 1;
const FIRST_CONNECTION: Token = 10;

fn driver(world: &World) -> SimDriver {
    SimDriver::new(world, 0, &Setup::default())
}

/// One shard that sends back what it receives, one operation per connection at a time.
struct Echo {
    driver: SimDriver,
    listener: Fd,
    connections: BTreeMap<Token, Fd>,
    next: Token,
    zero_copy: bool,
    stopping: bool,
}

impl Echo {
    fn start(world: &World, zero_copy: bool) -> Self {
        let mut driver = driver(world);
        let listener = driver.listen(ADDR, &ListenOptions::default()).expect("a free address");
        driver.submit(ACCEPT, Op::AcceptMulti { listener });
        let connections = BTreeMap::new();
        let next = FIRST_CONNECTION;
        Self { driver, listener, connections, next, zero_copy, stopping: false }
    }

    /// Turns until one would wait.
    fn turn(&mut self) {
        let mut waits = false;
        while !waits {
            waits = true;
            self.driver.turn(true, Some(10_000_000));
            while let Some(completion) = self.driver.next_completion() {
                waits = false;
                match completion.token {
                    ACCEPT => self.accepted(&completion),
                    CLOSE => assert_eq!(completion.result, Ok(0)),
                    _ => self.went_on(completion),
                }
            }
        }
    }

    fn accepted(&mut self, completion: &Completion) {
        if let Some(fd) = completion.accepted() {
            self.connections.insert(self.next, fd);
            self.driver.submit(self.next, Op::RecvSelect { fd, len: 0 });
            self.next += 1;
        }
        if !completion.more && !self.stopping {
            self.driver.submit(ACCEPT, Op::AcceptMulti { listener: self.listener });
        }
    }

    fn went_on(&mut self, completion: Completion) {
        let token = completion.token;
        let fd = self.connections[&token];
        match (completion.result, completion.payload) {
            (Ok(_), Payload::Lease(lease)) => {
                let mut out = Output::default();
                out.write(&lease);
                self.send(token, fd, out, 0);
            }
            (Ok(sent), Payload::Output(out)) if (sent as usize) < out.len() => {
                let mut rest = Output::default();
                for run in out.pieces(sent as usize) {
                    rest.write(run);
                }
                self.send(token, fd, rest, 0);
            }
            (Ok(_), Payload::Output(_)) | (Err(Errno(libc::ENOBUFS)), _) => {
                self.driver.submit(token, Op::RecvSelect { fd, len: 0 });
            }
            _ => {
                self.connections.remove(&token);
                self.driver.submit(CLOSE, Op::Close { fd });
            }
        }
    }

    fn send(&mut self, token: Token, fd: Fd, out: Output, skip: usize) {
        let zero_copy = self.zero_copy;
        self.driver.submit(token, Op::Send { fd, out, skip, zero_copy });
    }

    fn stop(&mut self) {
        self.stopping = true;
        let (fd, write_only) = (self.listener, false);
        self.driver.submit(CLOSE, Op::Shutdown { fd, write_only });
    }
}

/// A client that sends `sent` and expects it back.
struct Caller {
    end: Option<ClientEnd>,
    sent: Vec<u8>,
    offset: usize,
    received: Vec<u8>,
}

impl Caller {
    fn new(world: &World, number: usize) -> Self {
        let sent = (0..3000 * (number + 1)).map(|at| (at * 7 + number) as u8).collect();
        let end = Some(world.connect_client(ADDR));
        Self { end, sent, offset: 0, received: Vec::new() }
    }

    fn turn(&mut self) {
        let Some(end) = &mut self.end else { return };
        self.offset += end.send(&self.sent[self.offset..]);
        match end.recv(&mut self.received) {
            RecvState::Data(_) | RecvState::Empty => {}
            RecvState::Eof | RecvState::Reset | RecvState::Refused => self.end = None,
        }
        assert!(self.sent.starts_with(&self.received), "an echo changes nothing");
        if self.received.len() == self.sent.len() {
            self.end = None;
        }
    }
}

struct Outcome {
    trace: u64,
    stats: WorldStats,
    counted: u64,
    complete: usize,
    leaks: Vec<Leak>,
}

/// Runs eight callers against an echo server until all are served or broken.
fn echo(seed: u64, faults: Faults, fail: Option<u64>) -> Outcome {
    let world = World::new(seed, faults);
    if let Some(n) = fail {
        world.fail_completion(n);
    }
    let mut server = Echo::start(&world, seed % 2 == 1);
    let mut callers: Vec<Caller> = (0..8).map(|number| Caller::new(&world, number)).collect();
    server.turn();
    for step in 0..200_000 {
        assert!(step < 199_999, "seed {seed}: stuck; {:#?}", world.recent());
        if world.is_ready(0) {
            server.turn();
        } else if callers.iter().all(|caller| caller.end.is_none()) && server.connections.is_empty()
        {
            break;
        } else {
            assert!(world.advance(), "seed {seed}: nothing is to come");
        }
        callers.iter_mut().for_each(Caller::turn);
    }
    world.heal();
    server.stop();
    while server.driver.in_flight() > 0 {
        server.turn();
        world.advance();
    }
    server.driver.close_now(server.listener);
    let complete = callers.iter().filter(|caller| caller.received == caller.sent).count();
    let outcome = Outcome {
        trace: world.trace_hash(),
        stats: world.stats(),
        counted: world.completions_counted(),
        complete,
        leaks: world.leaks(),
    };
    assert!(!world.kernel.borrow().has_memory_in_flight());
    outcome
}

#[test]
fn a_perfect_world_serves_everybody() {
    for seed in 0..10 {
        let outcome = echo(seed, Faults::none(), None);
        assert_eq!((outcome.complete, outcome.leaks), (8, vec![]), "seed {seed}");
        let harmless = WorldStats {
            completions: outcome.stats.completions,
            events: outcome.stats.events,
            ..WorldStats::default()
        };
        assert_eq!(outcome.stats, harmless);
    }
}

#[test]
fn a_rough_world_serves_everybody_too() {
    for seed in 0..50 {
        let outcome = echo(seed, Faults::rough(), None);
        assert_eq!((outcome.complete, outcome.leaks), (8, vec![]), "seed {seed}");
    }
}

#[test]
fn a_hostile_world_leaves_nothing_behind() {
    let (mut sum, mut complete) = (WorldStats::default(), 0);
    for seed in 0..100 {
        let outcome = echo(seed, Faults::hostile(), None);
        assert_eq!(outcome.leaks, [], "seed {seed}");
        complete += outcome.complete;
        let stats = outcome.stats;
        sum.delays += stats.delays;
        sum.multishot_ends += stats.multishot_ends;
        sum.no_buffers += stats.no_buffers;
        sum.overflows += stats.overflows;
        sum.spurious_wakes += stats.spurious_wakes;
        sum.short_transfers += stats.short_transfers;
        sum.resets += stats.resets;
    }
    let hit = [
        sum.delays,
        sum.multishot_ends,
        sum.no_buffers,
        sum.overflows,
        sum.spurious_wakes,
        sum.short_transfers,
        sum.resets,
    ];
    assert!(hit.iter().all(|&times| times > 0), "every fault occurs: {sum:?}");
    assert!((400..800).contains(&complete), "{complete} of 800 served");
}

#[test]
fn equal_seeds_give_equal_traces() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let trace = echo(seed, Faults::hostile(), None).trace;
        assert_eq!(trace, echo(seed, Faults::hostile(), None).trace, "seed {seed}");
        traces.insert(trace);
    }
    assert_eq!(traces.len(), 40, "different seeds give different traces");
}

#[test]
fn each_single_failure_is_survived() {
    let counted = echo(3, Faults::none(), None).counted;
    assert!(counted > 20);
    for n in 1..=counted + 1 {
        let outcome = echo(3, Faults::none(), Some(n));
        assert_eq!(outcome.stats.ordered_failures, u64::from(n <= counted), "failure {n}");
        assert_eq!(outcome.leaks, [], "failure {n}");
        assert!(outcome.complete >= 7, "failure {n} concerns one connection");
    }
}

fn finish(world: &World, driver: &mut SimDriver, token: Token) -> Completion {
    for _ in 0..1000 {
        driver.turn(false, None);
        while let Some(completion) = driver.next_completion() {
            if completion.token == token {
                return completion;
            }
        }
        world.advance();
    }
    panic!("nothing completed for {token}");
}

/// A server's end, and the client's.
fn connection(world: &World, driver: &mut SimDriver) -> (Fd, ClientEnd) {
    let listener = driver.listen(ADDR, &ListenOptions::default()).expect("a free address");
    let id = driver.submit(100, Op::AcceptMulti { listener });
    let client = world.connect_client(ADDR);
    let fd = finish(world, driver, 100).accepted().expect("a connection");
    driver.submit(101, Op::Cancel { target: id });
    finish(world, driver, 101).result.expect("it was armed");
    while world.advance() {}
    driver.turn(false, None);
    while driver.next_completion().is_some() {}
    driver.close_now(listener);
    (fd, client)
}

#[test]
fn an_operation_on_a_closed_descriptor_is_a_leak() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let (fd, client) = connection(&world, &mut driver);
    driver.submit(5, Op::RecvMulti { fd });
    driver.turn(false, None);
    assert!(matches!(world.leaks()[..], [Leak::InFlight { .. }, Leak::Descriptor { .. }]));
    driver.close_now(fd);
    let leaks = world.leaks();
    let [Leak::Orphan { operation, shard: 0 }] = &leaks[..] else { panic!("{leaks:?}") };
    assert!(operation.starts_with("RecvMulti on fd 107374182"), "{operation}");
    assert!(operation.contains("token 0x5"), "{operation}");
    drop(client);
    assert_eq!(finish(&world, &mut driver, 5).result, Ok(0), "the peer can still end it");
    assert_eq!(world.leaks(), []);
}

#[test]
#[should_panic(expected = "was freed while in use")]
fn freeing_a_slot_in_use_is_seen() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let (fd, _client) = connection(&world, &mut driver);
    let id = driver.submit(5, Op::RecvInto { fd, buf: BytesMut::with_capacity(10), len: 10 });
    driver.turn(false, None);
    driver.free(id);
}

#[test]
fn received_memory_is_poisoned_until_its_completion() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let (fd, mut client) = connection(&world, &mut driver);
    let mut buf = BytesMut::with_capacity(64);
    let spare = buf.spare_capacity_mut().as_mut_ptr().cast::<u8>();
    driver.submit(5, Op::RecvInto { fd, buf, len: 64 });
    driver.turn(false, None);
    assert_eq!(client.send(b"data"), 4);
    // SAFETY: the slot owns the memory, and poisoned it.
    assert_eq!(unsafe { spare.read() }, 0xd5, "nothing arrives before its time");
    let completion = finish(&world, &mut driver, 5);
    assert_eq!(completion.result, Ok(4));
    let Payload::Bytes(buf) = completion.payload else { panic!("the buffer") };
    assert_eq!(&buf[..], b"data");
}

#[test]
fn a_zero_copy_send_ends_with_its_notification() {
    let mut faults = Faults::none();
    (faults.late_notification, faults.delay_max_ns) = (1.0, 1_000_000_000);
    let world = World::new(1, faults);
    let mut driver = driver(&world);
    let (fd, mut client) = connection(&world, &mut driver);
    let mut out = Output::default();
    out.write(b"hello");
    let id = driver.submit(5, Op::Send { fd, out, skip: 0, zero_copy: true });
    driver.turn(false, None);
    world.advance_to(world.now().mono_ns + 10_000);
    let mut received = Vec::new();
    assert_eq!(client.recv(&mut received), RecvState::Data(5));
    assert!(!world.is_ready(0), "the buffer is still in use");
    driver.submit(6, Op::Cancel { target: id });
    assert_eq!(finish(&world, &mut driver, 6).result, Err(Errno(libc::ENOENT)));
    let completion = finish(&world, &mut driver, 5);
    assert_eq!((completion.result, completion.more), (Ok(5), false));
    assert!(matches!(completion.payload, Payload::Output(_)));
}

#[test]
fn a_lost_cancel_lets_its_target_finish() {
    let mut faults = Faults::none();
    faults.cancel_loses = 1.0;
    let world = World::new(1, faults);
    let mut driver = driver(&world);
    let (fd, mut client) = connection(&world, &mut driver);
    let target = driver.submit(5, Op::RecvSelect { fd, len: 0 });
    driver.turn(false, None);
    client.send(b"just in time");
    driver.submit(6, Op::Cancel { target });
    let recv = finish(&world, &mut driver, 5);
    assert_eq!(recv.result, Ok(12));
    assert_eq!(world.stats().lost_cancels, 1);
    // With nothing on its way the cancel wins.
    let target = driver.submit(7, Op::RecvSelect { fd, len: 0 });
    driver.submit(8, Op::Cancel { target });
    assert_eq!(finish(&world, &mut driver, 7).result, Err(Errno(libc::ECANCELED)));
}

#[test]
fn overflowing_completions_come_late_and_in_order() {
    let mut faults = Faults::none();
    faults.overflow = 1.0;
    let world = World::new(1, faults);
    let mut driver = driver(&world);
    let listener = driver.listen(ADDR, &ListenOptions::default()).expect("a free address");
    let fds: Vec<Fd> = (0..10).map(|_| driver.socket(ADDR).expect("a socket")).collect();
    for (token, &fd) in (0..).zip(&fds) {
        driver.submit(token, Op::PollOut { fd });
    }
    driver.turn(false, None);
    assert!(!driver.has_pending_events(), "put aside");
    assert!(world.advance());
    driver.turn(false, None);
    let order: Vec<Token> = std::iter::from_fn(|| driver.next_completion())
        .map(|completion| completion.token)
        .collect();
    assert_eq!(order, (0..10).collect::<Vec<Token>>());
    assert_eq!(driver.stats().overflows, 10);
    driver.close_now(listener);
}

#[test]
fn a_full_backlog_makes_clients_wait() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let options = ListenOptions { backlog: 1, ..ListenOptions::default() };
    let listener = driver.listen(ADDR, &options).expect("a free address");
    let clients: Vec<ClientEnd> = (0..3).map(|_| world.connect_client(ADDR)).collect();
    world.advance_to(world.now().mono_ns + 1_000_000);
    let connected = || clients.iter().filter(|client| client.is_connected()).count();
    assert_eq!(connected(), 2, "one more than the backlog, as in Linux");
    driver.submit(5, Op::AcceptMulti { listener });
    driver.turn(false, None);
    world.advance_to(world.now().mono_ns + 2_000_000_000);
    assert_eq!(connected(), 3, "the request was repeated");
}

#[test]
fn clients_end_break_and_are_refused() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let (fd, mut client) = connection(&world, &mut driver);
    let mut received = Vec::new();
    assert_eq!(client.recv(&mut received), RecvState::Empty);
    client.shutdown_write();
    driver.submit(5, Op::RecvMulti { fd });
    assert_eq!(finish(&world, &mut driver, 5).result, Ok(0));
    driver.close_now(fd);
    while world.advance() {}
    assert_eq!(client.recv(&mut received), RecvState::Eof);
    let (fd, mut client) = connection(&world, &mut driver);
    driver.submit(6, Op::RecvMulti { fd });
    driver.turn(false, None);
    client.reset();
    let end = finish(&world, &mut driver, 6);
    assert_eq!((end.result, end.more), (Err(Errno(libc::ECONNRESET)), false));
    let mut refused = world.connect_client("127.0.0.1:9".parse().expect("an address"));
    assert_eq!(refused.recv(&mut received), RecvState::Empty);
    while world.advance() {}
    assert_eq!(refused.recv(&mut received), RecvState::Refused);
    driver.close_now(fd);
}

#[test]
fn unix_sockets_connect_by_path() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let path = Path::new("/run/socket");
    let listener = driver.listen_unix(path, &ListenOptions::default()).expect("a free path");
    driver.submit(5, Op::AcceptMulti { listener });
    let mut client = world.connect_unix_client(path);
    let fd = finish(&world, &mut driver, 5).accepted().expect("a connection");
    let names = (PeerName::Unix(path.to_owned()), PeerName::Unix("".into()));
    assert_eq!(driver.names(fd), names);
    while world.advance() {}
    client.send(b"hi");
    driver.submit(6, Op::RecvSelect { fd, len: 0 });
    assert_eq!(finish(&world, &mut driver, 6).result, Ok(2));
    let mut nobody = world.connect_unix_client(Path::new("/run/other"));
    while world.advance() {}
    assert_eq!(nobody.recv(&mut Vec::new()), RecvState::Refused);
}

#[test]
fn a_crash_keeps_what_was_acknowledged() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let path = Path::new("/log");
    let fd = driver.open(path, &options).expect("a new file");
    let root = OpenOptions { directory: true, ..OpenOptions::default() };
    let directory = driver.open(Path::new("/"), &root).expect("the root");
    driver.submit(5, Op::Fsync { fd: directory, data_only: false });
    finish(&world, &mut driver, 5).result.expect("an honest disk");
    for (token, durable) in [(6, true), (7, false)] {
        let mut buf = DirectBuf::zeroed(4096);
        buf.fill(token as u8);
        let offset = (token - 6) * 4096;
        driver.submit(token, Op::Write { fd, buf, len: 4096, offset, durable });
        assert_eq!(finish(&world, &mut driver, token).result, Ok(4096));
    }
    drop(driver);
    world.crash_disk();
    assert_eq!(world.leaks(), [], "all files were closed");
    let mut driver = SimDriver::new(&world, 0, &Setup::default());
    let fd = driver.open(path, &options).expect("its name is durable");
    let mut buf = [0; 8192];
    assert_eq!(driver.read_now(fd, &mut buf, 0), Ok(4096));
    assert!(buf[..4096].iter().all(|&byte| byte == 6));
}

#[test]
fn a_disk_fills_up() {
    let mut faults = Faults::none();
    faults.limits.disk_capacity_bytes = 10_000;
    let world = World::new(1, faults);
    let mut driver = driver(&world);
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let fd = driver.open(Path::new("/f"), &options).expect("a new file");
    let mut results = Vec::new();
    for token in 5..9 {
        let (buf, offset) = (DirectBuf::zeroed(4096), (token - 5) * 4096);
        driver.submit(token, Op::Write { fd, buf, len: 4096, offset, durable: true });
        results.push(finish(&world, &mut driver, token).result);
    }
    let full = Err(Errno(libc::ENOSPC));
    assert_eq!(results, [Ok(4096), Ok(4096), Ok(1808), full]);
}

#[test]
fn an_ordered_call_fails_alone() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    world.fail_call(2);
    driver.make_dir(Path::new("/d")).expect("the first call");
    let error = driver.make_dir(Path::new("/e")).expect_err("the second call");
    assert!(error.to_string().contains("ENOSPC"), "{error}");
    driver.make_dir(Path::new("/e")).expect("the third call");
    assert_eq!(world.calls_counted(), 3);
}

#[test]
fn a_dead_shards_descriptors_are_closed_for_it() {
    let world = World::new(1, Faults::none());
    let mut driver = driver(&world);
    let (fd, mut client) = connection(&world, &mut driver);
    driver.submit(5, Op::RecvMulti { fd });
    driver.turn(false, None);
    drop(driver);
    world.close_shard(0);
    while world.advance() {}
    assert_eq!(client.recv(&mut Vec::new()), RecvState::Eof);
    assert_eq!(world.leaks(), []);
    // Its number can be used again.
    let mut driver = SimDriver::new(&world, 0, &Setup::default());
    driver.listen(ADDR, &ListenOptions::default()).expect("the address is free again");
}
