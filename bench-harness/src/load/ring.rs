//! The load on the engine's own ring: all sends of a turn leave with one system call, replies
//! arrive in the shared receive pool, so a request costs the generator less than the server.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use engine::driver::{Driver, Fd, Op, Payload, Ring, Setup, Siblings, TcpInfo};
use view::Output;

use super::driven::Driven;
use crate::clock::{self, SECOND_NS};

/// How long connecting may take in all.
const CONNECT_NS: u64 = 20 * SECOND_NS;
/// Connects in flight at once: below every peer's backlog.
const CONNECTS_MAX: usize = 256;
/// Output buffers kept for reuse.
const SPARE_MAX: usize = 1024;
/// Without sleeping, an open loop sends what is due and takes what has come this often: one system
/// call and one wake-up of the server for what else would be several of each.
pub const TICK_NS: u64 = 20 * clock::MICROSECOND_NS;
/// A longer gap between two looks at the clock means that something else had the core.
const GAP_NS: u64 = 50 * clock::MICROSECOND_NS;
/// Longest sleep of a turn.
const TURN_MAX_NS: u64 = SECOND_NS / 10;

/// Turns in which the last operations may end when a run is over.
const CLOSE_TURNS_MAX: usize = 50;
/// Length of such a turn, at most.
const CLOSE_TURN_NS: u64 = 10 * clock::MILLISECOND_NS;

const RECV: u64 = 0;
const SEND: u64 = 1;

const fn token(conn: usize, kind: u64) -> u64 {
    (conn as u64) << 1 | kind
}

/// Connections of one load on a ring.
pub struct OnRing {
    driver: Driver,
    fds: Vec<Fd>,
    /// Bytes of a short send that have left.
    sent: Vec<usize>,
    spare: Vec<Vec<u8>>,
    /// Never sleep: the core is the generator's own, and an open loop then keeps its times.
    spin: bool,
    idle_ns: u64,
    lost_ns: u64,
}

impl std::fmt::Debug for OnRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnRing").field("connections", &self.fds.len()).finish_non_exhaustive()
    }
}

impl OnRing {
    /// Connects all connections of `driven`.
    ///
    /// # Errors
    /// The kernel has no ring for us, or a server does not accept.
    pub fn connect(driven: &impl Driven, spin: bool) -> Result<Self> {
        let ring =
            Ring::start(&Setup::default(), 0, Siblings::new(1)).context("the client's ring")?;
        let mut driver = Driver::Uring(Box::new(ring));
        let addresses: Vec<SocketAddr> = driven.addresses();
        let congestion = crate::machine::congestion().map(str::to_owned);
        let tcp = TcpInfo { no_delay: true, keepalive_s: 0, congestion };
        let mut fds = Vec::with_capacity(addresses.len());
        let deadline_ns = clock::mono_ns() + CONNECT_NS;
        let mut done = 0;
        while done < addresses.len() {
            while fds.len() < addresses.len() && fds.len() - done < CONNECTS_MAX {
                let addr = addresses[fds.len()];
                let fd = driver.socket(addr).context("a client socket")?;
                driver.set_tcp(fd, &tcp);
                driver.submit(token(fds.len(), RECV), Op::Connect { fd, addr });
                fds.push(fd);
            }
            driver.turn(true, Some(TURN_MAX_NS));
            while let Some(completion) = driver.next_completion() {
                if let Err(errno) = completion.result {
                    bail!("connect: {errno}");
                }
                done += 1;
            }
            if clock::mono_ns() > deadline_ns {
                bail!("only {done} of {} connections were accepted in time", addresses.len());
            }
        }
        for (conn, &fd) in fds.iter().enumerate() {
            driver.submit(token(conn, RECV), Op::RecvMulti { fd });
        }
        let sent = vec![0; fds.len()];
        Ok(Self { driver, fds, sent, spare: Vec::new(), spin, idle_ns: 0, lost_ns: 0 })
    }

    /// CPU time spent waiting for the next tick.
    pub const fn idle_ns(&self) -> u64 {
        self.idle_ns
    }

    /// Time in which something else had the core, as far as waiting for a tick has shown.
    pub const fn lost_ns(&self) -> u64 {
        self.lost_ns
    }

    fn spin_until(&mut self, until_ns: u64) {
        let start_ns = clock::mono_ns();
        let (mut last_ns, mut lost_ns) = (start_ns, 0);
        while last_ns < until_ns {
            std::hint::spin_loop();
            let now_ns = clock::mono_ns();
            if now_ns - last_ns > GAP_NS {
                lost_ns += now_ns - last_ns;
            }
            last_ns = now_ns;
        }
        self.lost_ns += lost_ns;
        self.idle_ns += last_ns - start_ns - lost_ns;
    }

    /// Runs the load until `deadline_ns` or until it breaks.
    pub fn run_until(&mut self, driven: &mut impl Driven, deadline_ns: u64) {
        loop {
            let now_ns = clock::mono_ns();
            if now_ns >= deadline_ns || driven.broken().is_some() {
                return;
            }
            let next_ns = driven.arrive(now_ns);
            let tick_ns = (self.spin && next_ns.is_some()).then_some(now_ns + TICK_NS);
            self.send_due(driven);
            let until_ns = next_ns.map_or(deadline_ns, |at| at.min(deadline_ns));
            let timeout_ns = until_ns.saturating_sub(now_ns).min(TURN_MAX_NS);
            self.driver.turn(!self.spin && timeout_ns > 0, Some(timeout_ns));
            let now_ns = clock::mono_ns();
            while let Some(completion) = self.driver.next_completion() {
                let conn = usize::try_from(completion.token >> 1).unwrap_or(usize::MAX);
                if completion.token & 1 == SEND {
                    self.on_send(driven, conn, completion.result, completion.payload);
                    continue;
                }
                match (completion.result, completion.payload) {
                    (Ok(0), _) => driven.break_off(conn, "closed by the server".to_owned()),
                    (Ok(_), Payload::Lease(bytes)) => driven.on_bytes(conn, &bytes, now_ns),
                    (Err(errno), _) if errno.0 != nix::Error::ENOBUFS as i32 => {
                        driven.break_off(conn, format!("recv: {errno}"));
                    }
                    _ => {}
                }
                if !completion.more {
                    self.driver.submit(token(conn, RECV), Op::RecvMulti { fd: self.fds[conn] });
                }
            }
            if let Some(tick_ns) = tick_ns {
                self.spin_until(tick_ns.min(deadline_ns));
            }
        }
    }

    fn send_due(&mut self, driven: &mut impl Driven) {
        loop {
            let mut out = Output::with_buffer(self.spare.pop().unwrap_or_default());
            let Some(conn) = driven.next(&mut out) else {
                self.spare.push(out.into_buffer());
                return;
            };
            let fd = self.fds[conn];
            // A request that goes out whole posts no completion, and so ends no sleep.
            let op = if out.is_inline() && out.len() < view::INLINE_MAX_BYTES {
                Op::SendNow { fd, out }
            } else {
                Op::Send { fd, out, skip: 0, zero_copy: false }
            };
            self.driver.submit(token(conn, SEND), op);
        }
    }

    fn on_send(
        &mut self,
        driven: &mut impl Driven,
        conn: usize,
        result: Result<u32, engine::driver::Errno>,
        payload: Payload,
    ) {
        let Payload::Output(out) = payload else { return };
        match result {
            Ok(len) if self.sent[conn] + (len as usize) < out.len() => {
                self.sent[conn] += len as usize;
                let (fd, skip) = (self.fds[conn], self.sent[conn]);
                self.driver.submit(token(conn, SEND), Op::Send { fd, out, skip, zero_copy: false });
            }
            Ok(_) => {
                self.sent[conn] = 0;
                if self.spare.len() < SPARE_MAX {
                    self.spare.push(out.into_buffer());
                }
                driven.on_sent(conn);
            }
            Err(errno) => driven.break_off(conn, format!("send: {errno}")),
        }
    }
}

impl Drop for OnRing {
    fn drop(&mut self) {
        for &fd in &self.fds {
            // Ends the armed receive; the ring collects it when it is dropped.
            self.driver.submit(u64::MAX, Op::Shutdown { fd, write_only: false });
        }
        for _ in 0..CLOSE_TURNS_MAX {
            if self.driver.in_flight() == 0 {
                break;
            }
            self.driver.turn(true, Some(CLOSE_TURN_NS));
            while self.driver.next_completion().is_some() {}
        }
        for &fd in &self.fds {
            self.driver.close_now(fd);
        }
    }
}
