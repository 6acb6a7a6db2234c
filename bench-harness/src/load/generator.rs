//! The load as a state machine: it says which connection sends what, takes what came back, and
//! keeps the books. It does no I/O; a transport drives it and tells it the time.
//!
//! Invariants: replies are matched with requests by their order, over HTTP/2 by their stream; latency runs from the
//! time a request was meant to leave (in closed loop, from when its pipeline was due), service from when
//! it was handed to the transport; a connection has at most [`IN_FLIGHT_MAX`] requests without a reply, and what
//! arrives beyond that is counted as missed, not queued. Next: `conn` for one connection, `replies` for what comes
//! back; `ring` and `plain` drive it.

mod replies;

use std::collections::VecDeque;

use view::Output;

use super::arena::{self, Arena};
use super::arrivals::Times;
use super::conn::Conn;
use super::draws::{BATCH_MAX_BYTES, Draws};
use super::protocol::{Codec, Decoder};
pub use super::tally::{Tally, histogram};
use super::{Arrivals, Target, Workload};
use crate::rng::Rng;

/// Requests of one connection without a reply, in open loop.
pub const IN_FLIGHT_MAX: u32 = 1024;

/// Where requests come from.
#[derive(Debug)]
enum Requests {
    /// Encoded before the run, for each target.
    Ready(Vec<Arena>),
    /// Drawn as they leave, at most so many together.
    Drawn { draws: Box<Draws>, batch_max: u32 },
}

/// The load on a set of connections, numbered from zero.
#[derive(Debug)]
pub struct Generator {
    codec: Codec,
    arrivals: Arrivals,
    targets: Vec<Target>,
    requests: Requests,
    conns: Vec<Conn>,
    ready: VecDeque<usize>,
    rng: Rng,
    times: Times,
    /// The latest time the transport has told.
    now_ns: u64,
    turn: usize,
    running: bool,
    tally: Tally,
    broken: Option<String>,
}

/// Requests to hand to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The connection.
    pub conn: usize,
    target: usize,
    from: u32,
    count: u32,
}

impl Generator {
    /// The load of `workload`, its connections dealt to `targets` in turn.
    #[must_use]
    pub fn new(workload: &Workload, targets: &[Target]) -> Self {
        assert!(!targets.is_empty(), "a load needs somewhere to go");
        let unit = match workload.arrivals {
            Arrivals::Closed { pipeline } => pipeline.max(1),
            _ => 1,
        };
        let codec = Codec::new(workload);
        let requests = if workload.is_drawn() {
            let fit = BATCH_MAX_BYTES / arena::longest(workload, &codec, 0).max(1);
            let batch_max = u32::try_from(fit).unwrap_or(u32::MAX).max(1);
            Requests::Drawn { draws: Box::new(Draws::new(workload)), batch_max }
        } else {
            let ready = |target| Arena::new(workload, &codec, target, unit as usize);
            Requests::Ready(targets.iter().map(ready).collect())
        };
        let is_closed = matches!(workload.arrivals, Arrivals::Closed { .. });
        let in_flight = if is_closed { unit } else { IN_FLIGHT_MAX };
        let mut rng = Rng::new(workload.seed);
        let conns = (0..workload.connections)
            .map(|index| {
                let target = index % targets.len();
                let at = match &requests {
                    Requests::Ready(arenas) => {
                        let units = u64::from(arenas[target].len() / unit);
                        u32::try_from(rng.below(units)).unwrap_or(0) * unit
                    }
                    Requests::Drawn { .. } => 0,
                };
                Conn::new(target, at, codec.decoder(index, in_flight), codec.greeting(index))
            })
            .collect();
        Self {
            codec,
            arrivals: workload.arrivals.clone(),
            targets: targets.to_vec(),
            requests,
            conns,
            ready: VecDeque::new(),
            rng,
            times: Times::new(&workload.arrivals),
            now_ns: 0,
            turn: 0,
            running: false,
            tally: Tally::new(workload.is_drawn()),
            broken: None,
        }
    }

    /// Where each connection goes.
    pub fn addresses(&self) -> impl Iterator<Item = std::net::SocketAddr> {
        self.conns.iter().map(|conn| self.targets[conn.target].addr)
    }

    /// Begins: all pipelines are due at once, or the first arrival is.
    pub fn start(&mut self, now_ns: u64) {
        self.running = true;
        self.now_ns = now_ns;
        self.times.start(now_ns, &mut self.rng);
        if let Arrivals::Closed { pipeline } = self.arrivals {
            for conn in 0..self.conns.len() {
                self.queue(conn, pipeline, now_ns);
            }
        }
        for (index, conn) in self.conns.iter_mut().enumerate() {
            if !conn.control.is_empty() && !conn.listed {
                conn.listed = true;
                self.ready.push_back(index);
            }
        }
    }

    /// No new requests; those in flight may still be answered.
    pub const fn stop(&mut self) {
        self.running = false;
    }

    /// Whether every request has its reply.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.conns.iter().all(|conn| conn.dead || conn.waiting == 0)
    }

    /// What ended the run early, if anything did.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Replies since the books were last taken.
    #[must_use]
    pub const fn replies(&self) -> u64 {
        self.tally.replies
    }

    /// The books since the last call, which begins new ones.
    pub fn take_tally(&mut self) -> Tally {
        let kinds = self.tally.kinds.is_some();
        std::mem::replace(&mut self.tally, Tally::new(kinds))
    }

    /// The books at the end of a run. Requests still without a reply are counted; in open loop those
    /// that have waited longer than the p99 of the others enter the latencies with the time they have
    /// waited so far, so that a server that stops answering does not look as if it had not been asked.
    pub fn close_books(&mut self, now_ns: u64) -> Tally {
        let mut tally = self.take_tally();
        let p99_ns = tally.latency.value_at_quantile(0.99);
        let open = self.arrivals.is_open();
        for conn in self.conns.iter().filter(|conn| !conn.dead && conn.waiting > 0) {
            tally.unanswered += u64::from(conn.waiting);
            let oldest_ns =
                if open { conn.intended.front().copied() } else { Some(conn.started_ns) };
            let oldest_ns = now_ns.saturating_sub(oldest_ns.unwrap_or(now_ns));
            tally.oldest_unanswered_ns = tally.oldest_unanswered_ns.max(oldest_ns);
            for &intended_ns in &conn.intended {
                let waited_ns = now_ns.saturating_sub(intended_ns);
                if waited_ns > p99_ns {
                    tally.latency.saturating_record(waited_ns);
                }
            }
        }
        tally
    }

    fn queue(&mut self, index: usize, count: u32, now_ns: u64) {
        let conn = &mut self.conns[index];
        if conn.dead {
            return;
        }
        conn.unsent += count;
        conn.waiting += count;
        conn.started_ns = now_ns;
        if !conn.sending && !conn.listed {
            conn.listed = true;
            self.ready.push_back(index);
        }
    }

    /// Open loop: lets all arrivals up to `now_ns` in, and says when the next one is due.
    /// `None` in closed loop, after the last one, or when stopped.
    pub fn arrive(&mut self, now_ns: u64) -> Option<u64> {
        self.now_ns = now_ns;
        if !self.running {
            return None;
        }
        let random = self.times.are_random();
        while let Some(next_ns) = self.times.next_ns()
            && next_ns <= now_ns as f64
        {
            let intended_ns = next_ns as u64;
            self.times.advance(&mut self.rng);
            let index = if random {
                usize::try_from(self.rng.below(self.conns.len() as u64)).unwrap_or(0)
            } else {
                self.turn = (self.turn + 1) % self.conns.len();
                self.turn
            };
            self.tally.offered += 1;
            if self.conns[index].dead || self.conns[index].waiting >= IN_FLIGHT_MAX {
                self.tally.missed += 1;
                continue;
            }
            self.conns[index].intended.push_back(intended_ns);
            self.tally.lag.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
            self.queue(index, 1, now_ns);
        }
        Some(self.times.next_ns()?.ceil() as u64)
    }

    /// The next batch to send; the transport must answer with [`Generator::on_sent`].
    pub fn next_batch(&mut self) -> Option<Batch> {
        while let Some(index) = self.ready.pop_front() {
            let conn = &mut self.conns[index];
            conn.listed = false;
            if conn.dead || conn.sending || (conn.unsent == 0 && conn.control.is_empty()) {
                continue;
            }
            let (count, next) = match &self.requests {
                Requests::Ready(arenas) => {
                    let arena = &arenas[conn.target];
                    let mut count = conn.unsent.min(arena.len() - conn.send_at);
                    if let Decoder::Http2(streams) = &conn.decoder {
                        let body_of = |at| self.codec.body_len(arena.asked(conn.send_at + at));
                        count = streams.room(count, body_of);
                        if count == 0 && conn.control.is_empty() {
                            // Until a stream ends or the server's window opens: see `on_frames`.
                            continue;
                        }
                    }
                    (count, (conn.send_at + count) % arena.len())
                }
                Requests::Drawn { batch_max, .. } => (conn.unsent.min(*batch_max), 0),
            };
            let batch = Batch { conn: index, target: conn.target, from: conn.send_at, count };
            conn.send_at = next;
            conn.unsent -= count;
            conn.sending = true;
            conn.handed_ns = self.now_ns;
            if self.arrivals.is_open() {
                self.tally.started += u64::from(count);
                conn.handed.extend(std::iter::repeat_n(self.now_ns, count as usize));
            }
            return Some(batch);
        }
        None
    }

    /// Hands the bytes of a batch over; once, since requests may be drawn or numbered as they leave.
    #[inline]
    pub fn fill(&mut self, batch: Batch, out: &mut Output) {
        let conn = &mut self.conns[batch.conn];
        let arenas = match &mut self.requests {
            Requests::Ready(arenas) => arenas,
            Requests::Drawn { draws, .. } => {
                out.write(&conn.control);
                conn.control.clear();
                return conn.drawing.draw(draws, &self.codec, batch.count, out.inline_mut());
            }
        };
        let requests = arenas[batch.target].run(batch.from, batch.count);
        let is_plain = matches!(&conn.decoder, Decoder::Ordered(decoder) if decoder.is_plain())
            && conn.control.is_empty();
        if is_plain && requests.len() >= view::INLINE_MAX_BYTES {
            out.push(arenas[batch.target].shared_run(batch.from, batch.count));
            return;
        }
        if !conn.control.is_empty() {
            out.write(&conn.control);
            conn.control.clear();
        }
        let start = out.inline().len();
        out.write(requests);
        let written = &mut out.inline_mut()[start..];
        match &mut conn.decoder {
            Decoder::Http2(streams) => streams.number(written),
            Decoder::Ordered(decoder) => decoder.address(&self.codec, written),
        }
    }

    /// The last batch of `conn` has left.
    pub fn on_sent(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.sending = false;
        self.list_unsent(index);
    }

    /// Lets a connection send that has something to send.
    #[inline]
    fn list_unsent(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let has_some = conn.unsent > 0 || !conn.control.is_empty();
        if has_some && !conn.sending && !conn.listed {
            conn.listed = true;
            self.ready.push_back(index);
        }
    }

    /// The connection cannot be used any more.
    pub fn break_off(&mut self, index: usize, why: String) {
        let conn = &mut self.conns[index];
        if conn.dead {
            return;
        }
        conn.dead = true;
        self.tally.wrong += u64::from(conn.waiting);
        let text = format!("connection {index}: {why}");
        self.tally.first_wrong.get_or_insert_with(|| text.clone());
        self.broken.get_or_insert(text);
    }
}

#[cfg(test)]
mod tests;
