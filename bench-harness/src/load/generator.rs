//! The load as a state machine: it says which connection sends what, takes what came back, and
//! keeps the books. It does no I/O; a transport drives it and tells it the time.
//!
//! Invariants: replies are matched with requests by their order, over HTTP/2 by their stream; latency runs from the
//! time a request was meant to leave (in closed loop, from when its pipeline was due), service from when
//! it was handed to the transport; a connection has at most [`IN_FLIGHT_MAX`] requests without a reply, and what
//! arrives beyond that is counted as missed, not queued. Next: `ring` and `plain` drive it.

use std::collections::VecDeque;

use view::Output;

use super::arena::Arena;
use super::arrivals::Times;
use super::protocol::{Codec, Decoder, Verdict};
pub use super::tally::{Tally, histogram};
use super::{Arrivals, Target, Workload};
use crate::rng::Rng;

/// Requests of one connection without a reply, in open loop.
pub const IN_FLIGHT_MAX: u32 = 1024;
/// What a server may be owed beside requests.
const CONTROL_MAX_BYTES: usize = 64 << 10;
const UNASKED: &str = "bytes nobody asked for";

#[derive(Debug)]
struct Conn {
    target: usize,
    /// Arena index of the next request to queue.
    queue_at: u32,
    /// Arena index of the next request to send.
    send_at: u32,
    /// Queued and not handed to the transport.
    unsent: u32,
    /// Arena index of the request whose reply is next.
    reply_at: u32,
    /// Queued or sent, without a reply.
    waiting: u32,
    /// Closed loop: when the pipeline was queued.
    started_ns: u64,
    /// Closed loop: when it was handed to the transport.
    handed_ns: u64,
    /// Open loop: intended time of each waiting request.
    intended: VecDeque<u64>,
    /// Open loop: when each of them that has left was handed to the transport.
    handed: VecDeque<u64>,
    decoder: Decoder,
    /// What is sent beside requests: a greeting, what a protocol owes its peer.
    control: Vec<u8>,
    sending: bool,
    listed: bool,
    dead: bool,
}

/// The load on a set of connections, numbered from zero.
#[derive(Debug)]
pub struct Generator {
    codec: Codec,
    arrivals: Arrivals,
    targets: Vec<Target>,
    arenas: Vec<Arena>,
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
        let arenas: Vec<Arena> = targets
            .iter()
            .map(|target| Arena::new(workload, &codec, target, unit as usize))
            .collect();
        let is_closed = matches!(workload.arrivals, Arrivals::Closed { .. });
        let in_flight = if is_closed { unit } else { IN_FLIGHT_MAX };
        let mut rng = Rng::new(workload.seed);
        let conns = (0..workload.connections)
            .map(|index| {
                let target = index % targets.len();
                let units = u64::from(arenas[target].len() / unit);
                let at = u32::try_from(rng.below(units)).unwrap_or(0) * unit;
                Conn {
                    target,
                    queue_at: at,
                    send_at: at,
                    unsent: 0,
                    reply_at: at,
                    waiting: 0,
                    started_ns: 0,
                    handed_ns: 0,
                    intended: VecDeque::new(),
                    handed: VecDeque::new(),
                    decoder: codec.decoder(index, in_flight),
                    control: codec.greeting(index),
                    sending: false,
                    listed: false,
                    dead: false,
                }
            })
            .collect();
        Self {
            codec,
            arrivals: workload.arrivals.clone(),
            targets: targets.to_vec(),
            arenas,
            conns,
            ready: VecDeque::new(),
            rng,
            times: Times::new(&workload.arrivals),
            now_ns: 0,
            turn: 0,
            running: false,
            tally: Tally::new(),
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

    /// The books since the last call, which begins new ones.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::replace(&mut self.tally, Tally::new())
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
        conn.queue_at = (conn.queue_at + count) % self.arenas[conn.target].len();
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
            let arena = &self.arenas[conn.target];
            let len = arena.len();
            let mut count = conn.unsent.min(len - conn.send_at);
            if let Decoder::Http2(streams) = &conn.decoder {
                let body_of = |at| self.codec.body_len(arena.asked(conn.send_at + at));
                count = streams.room(count, body_of);
                if count == 0 && conn.control.is_empty() {
                    // Until a stream ends or the server's window opens: see `on_frames`.
                    continue;
                }
            }
            let batch = Batch { conn: index, target: conn.target, from: conn.send_at, count };
            conn.send_at = (conn.send_at + count) % len;
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

    /// Hands the bytes of a batch over; once, since a protocol may number its requests as they leave.
    #[inline]
    pub fn fill(&mut self, batch: Batch, out: &mut Output) {
        let conn = &mut self.conns[batch.conn];
        let requests = self.arenas[batch.target].run(batch.from, batch.count);
        let is_plain = matches!(&conn.decoder, Decoder::Ordered(decoder) if decoder.is_plain())
            && conn.control.is_empty();
        if is_plain && requests.len() >= view::INLINE_MAX_BYTES {
            out.push(self.arenas[batch.target].shared_run(batch.from, batch.count));
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

    /// The requests of a batch, as they were encoded.
    #[must_use]
    pub fn bytes(&self, batch: Batch) -> &[u8] {
        self.arenas[batch.target].run(batch.from, batch.count)
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

    /// Bytes came back on `conn`.
    pub fn on_bytes(&mut self, index: usize, bytes: &[u8], now_ns: u64) {
        self.now_ns = now_ns;
        self.tally.received_bytes += bytes.len() as u64;
        let conn = &mut self.conns[index];
        let Decoder::Ordered(decoder) = &mut conn.decoder else {
            return self.on_frames(index, bytes, now_ns);
        };
        let arena = &self.arenas[conn.target];
        let mut rest = bytes;
        let mut answered = 0;
        while !rest.is_empty() {
            let is_owed = conn.waiting > 0;
            if !is_owed && !decoder.hears_unasked() {
                return self.break_off(index, UNASKED.to_owned());
            }
            let asked = arena.asked(conn.reply_at);
            if is_owed && let Some(len) = decoder.whole(&self.codec, asked, rest) {
                rest = &rest[len..];
            } else {
                match decoder.feed(&self.codec, asked, rest) {
                    Ok((_, Some(_))) if !is_owed => {
                        return self.break_off(index, UNASKED.to_owned());
                    }
                    Ok((used, Some(verdict))) => {
                        rest = &rest[used..];
                        note(&mut self.tally, verdict);
                    }
                    Ok((_, None)) => break,
                    Err(lost) => return self.break_off(index, lost.0),
                }
            }
            conn.reply_at = if conn.reply_at + 1 == arena.len() { 0 } else { conn.reply_at + 1 };
            conn.waiting -= 1;
            answered += 1;
            if let Some(intended_ns) = conn.intended.pop_front() {
                let latency_ns = now_ns.saturating_sub(intended_ns).max(1);
                self.tally.latency.saturating_record(latency_ns);
            }
            if let Some(handed_ns) = conn.handed.pop_front() {
                self.tally.service.saturating_record(now_ns.saturating_sub(handed_ns).max(1));
            }
        }
        if decoder.pay(&mut conn.control) {
            if conn.control.len() > CONTROL_MAX_BYTES {
                return self.break_off(index, "asks and does not read the answers".to_owned());
            }
            self.list_unsent(index);
        }
        self.on_answered(index, answered, now_ns);
    }

    /// As [`Generator::on_bytes`], where replies come in any order.
    fn on_frames(&mut self, index: usize, bytes: &[u8], now_ns: u64) {
        let conn = &mut self.conns[index];
        let Decoder::Http2(streams) = &mut conn.decoder else { return };
        let mut rest = bytes;
        let mut answered = 0;
        while !rest.is_empty() {
            let (sequence, verdict) = match streams.feed(&self.codec.http, rest, &mut conn.control)
            {
                Ok((_, None)) => break,
                Ok((used, Some(answer))) => {
                    rest = &rest[used..];
                    answer
                }
                Err(lost) => return self.break_off(index, lost.0),
            };
            note(&mut self.tally, verdict);
            conn.waiting -= 1;
            answered += 1;
            let offset = sequence.wrapping_sub(streams.oldest) as usize;
            if let Some((intended_ns, passed)) = take_at(&mut conn.intended, offset) {
                streams.oldest += passed;
                let latency_ns = now_ns.saturating_sub(intended_ns).max(1);
                self.tally.latency.saturating_record(latency_ns);
            }
            if let Some((handed_ns, _)) = take_at(&mut conn.handed, offset) {
                self.tally.service.saturating_record(now_ns.saturating_sub(handed_ns).max(1));
            }
        }
        self.on_answered(index, answered, now_ns);
        self.list_unsent(index);
    }

    #[inline]
    fn on_answered(&mut self, index: usize, answered: u64, now_ns: u64) {
        let conn = &self.conns[index];
        self.tally.replies += answered;
        if let Arrivals::Closed { pipeline } = self.arrivals {
            let latency_ns = now_ns.saturating_sub(conn.started_ns).max(1);
            self.tally.latency.saturating_record_n(latency_ns, answered);
            let service_ns = now_ns.saturating_sub(conn.handed_ns).max(1);
            self.tally.service.saturating_record_n(service_ns, answered);
            if conn.waiting == 0 && self.running {
                self.queue(index, pipeline, now_ns);
            }
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

/// Marks the time of a request that was answered before an earlier one.
const ANSWERED: u64 = u64::MAX;

/// Takes the time at `offset`; with it, how many now leave the front.
fn take_at(times: &mut VecDeque<u64>, offset: usize) -> Option<(u64, u32)> {
    let time = std::mem::replace(times.get_mut(offset)?, ANSWERED);
    let mut passed = 0;
    while times.front() == Some(&ANSWERED) {
        times.pop_front();
        passed += 1;
    }
    Some((time, passed))
}

fn note(tally: &mut Tally, verdict: Verdict) {
    match verdict {
        Verdict::Right => {}
        Verdict::Miss => tally.misses += 1,
        Verdict::Wrong(text) => {
            tally.wrong += 1;
            tally.first_wrong.get_or_insert(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND_NS;
    use crate::load::protocol::Protocol;

    fn target() -> Target {
        Target::all_keys(([127, 0, 0, 1], 1).into())
    }

    /// Right replies to the requests of a batch.
    fn replies(generator: &Generator, batch: Batch) -> Vec<u8> {
        let mut reply = Vec::new();
        for index in batch.from..batch.from + batch.count {
            let asked = generator.arenas[batch.target].asked(index);
            let mut request = Vec::new();
            generator.codec.encode(asked, &mut request);
            assert!(generator.bytes(batch).windows(request.len()).any(|part| part == request));
            if asked.set {
                reply.extend_from_slice(b"+OK\r\n");
            } else {
                let len = generator.codec.values.len_bytes();
                reply.extend_from_slice(format!("${len}\r\n").as_bytes());
                generator.codec.values.write(asked.key, &mut reply);
                reply.extend_from_slice(b"\r\n");
            }
        }
        reply
    }

    #[test]
    fn a_closed_loop_keeps_one_pipeline_in_flight() {
        let mut workload = Workload::new(Protocol::Resp, 4);
        workload.connections = 3;
        workload.set_share = 0.3;
        let mut generator = Generator::new(&workload, &[target()]);
        generator.start(1_000);
        let batches: Vec<Batch> = std::iter::from_fn(|| generator.next_batch()).collect();
        assert_eq!(batches.len(), 3);
        for batch in batches {
            assert_eq!(batch.count, 4);
            let reply = replies(&generator, batch);
            generator.on_sent(batch.conn);
            let (head, tail) = reply.split_at(reply.len() - 3);
            generator.on_bytes(batch.conn, head, 3_000);
            assert_eq!(generator.next_batch(), None, "the last reply is not complete");
            generator.on_bytes(batch.conn, tail, 5_000);
            let next = generator.next_batch().expect("all replies are there");
            assert_eq!((next.conn, next.count), (batch.conn, 4));
        }
        let tally = generator.take_tally();
        assert_eq!((tally.replies, tally.wrong, tally.misses), (12, 0, 0), "{tally:?}");
        assert_eq!(tally.latency.len(), 12);
        assert!((3_990..=4_010).contains(&tally.latency.max()));
        assert_eq!(generator.take_tally().replies, 0);
        generator.stop();
        assert!(!generator.is_quiet());
    }

    #[test]
    fn an_open_loop_counts_from_the_intended_time() {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.connections = 2;
        workload.arrivals = Arrivals::Open { rate: 1e6, poisson: false };
        let mut generator = Generator::new(&workload, &[target()]);
        generator.start(0);
        // The transport was away for ten microseconds: eleven arrivals are due.
        assert_eq!(generator.arrive(10_000), Some(11_000));
        let batches: Vec<Batch> = std::iter::from_fn(|| generator.next_batch()).collect();
        assert_eq!(batches.iter().map(|batch| batch.count).sum::<u32>(), 11);
        for batch in batches {
            let reply = replies(&generator, batch);
            generator.on_sent(batch.conn);
            generator.on_bytes(batch.conn, &reply, 20_000);
        }
        assert!(generator.is_quiet());
        let tally = generator.take_tally();
        assert_eq!((tally.offered, tally.replies, tally.missed), (11, 11, 0));
        assert!((19_980..=20_020).contains(&tally.latency.max()), "{}", tally.latency.max());
        assert!((9_990..=10_010).contains(&tally.lag.max()));
        assert!((9_990..=10_010).contains(&tally.latency.min()));
        // All were handed over at once, when the transport was back.
        assert_eq!(tally.started, 11);
        assert!((9_990..=10_010).contains(&tally.service.min()));
        assert!((9_990..=10_010).contains(&tally.service.max()));
    }

    #[test]
    fn requests_without_a_reply_are_counted_with_what_they_have_waited() {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.connections = 1;
        workload.arrivals = Arrivals::Open { rate: 1e6, poisson: false };
        let mut generator = Generator::new(&workload, &[target()]);
        generator.start(0);
        generator.arrive(500);
        let batch = generator.next_batch().expect("due");
        let reply = replies(&generator, batch);
        generator.on_sent(0);
        generator.on_bytes(0, &reply, 600);
        // Nothing is answered any more.
        generator.arrive(9_000);
        let tally = generator.close_books(9_000);
        assert_eq!((tally.replies, tally.unanswered, tally.oldest_unanswered_ns), (1, 9, 8_000));
        assert_eq!(tally.latency.len(), 9, "one waits for less than the p99 of the answered");
        assert!(tally.latency.max() >= 7_990);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_asked_for() {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.connections = 1000;
        workload.arrivals = Arrivals::Open { rate: 50_000.0, poisson: true };
        let mut generator = Generator::new(&workload, &[target()]);
        generator.start(0);
        generator.arrive(SECOND_NS);
        let offered = generator.take_tally().offered;
        assert!((49_000..51_000).contains(&offered), "{offered}");
    }

    #[test]
    fn a_server_that_does_not_answer_makes_arrivals_missed() {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.connections = 1;
        workload.arrivals = Arrivals::Open { rate: 1e6, poisson: false };
        let mut generator = Generator::new(&workload, &[target()]);
        generator.start(0);
        generator.arrive(10_000_000);
        let tally = generator.take_tally();
        assert_eq!(tally.offered, 10_001);
        assert_eq!(tally.missed, 10_001 - u64::from(IN_FLIGHT_MAX));
    }

    #[test]
    fn wrong_replies_are_counted_and_nonsense_ends_the_connection() {
        let mut workload = Workload::new(Protocol::Resp, 2);
        workload.connections = 1;
        let mut generator = Generator::new(&workload, &[target()]);
        generator.start(0);
        let batch = generator.next_batch().expect("due");
        generator.on_sent(batch.conn);
        generator.on_bytes(0, b"-ERR a\r\n$-1\r\n", 5);
        let tally = generator.take_tally();
        assert_eq!((tally.replies, tally.wrong, tally.misses), (2, 1, 1));
        assert_eq!(tally.first_wrong.as_deref(), Some("-ERR a"));
        generator.on_bytes(0, b"nonsense\r\n", 6);
        assert!(generator.broken().is_some());
        assert!(generator.is_quiet(), "a dead connection waits for nothing");
    }
}
