//! What comes back: whose reply it is, whether it is right, and how long it took.
//!
//! Invariants: replies are matched with requests by their order, over HTTP/2 by their stream; nothing is
//! allocated for a right one. Next: `protocol`, which judges them.

use super::{Generator, Requests};
use crate::load::Arrivals;
use crate::load::conn::take_at;
use crate::load::protocol::{Decoder, Verdict};
use crate::load::tally::Tally;

/// What a server may be owed beside requests.
const CONTROL_MAX_BYTES: usize = 64 << 10;
const UNASKED: &str = "bytes nobody asked for";

impl Generator {
    /// Bytes came back on `conn`.
    pub fn on_bytes(&mut self, index: usize, bytes: &[u8], now_ns: u64) {
        self.now_ns = now_ns;
        self.tally.received_bytes += bytes.len() as u64;
        let conn = &mut self.conns[index];
        let Decoder::Ordered(decoder) = &mut conn.decoder else {
            return self.on_frames(index, bytes, now_ns);
        };
        let (arena, mut draws) = match &mut self.requests {
            Requests::Ready(arenas) => (Some(&arenas[conn.target]), None),
            Requests::Drawn { draws, .. } => (None, Some(draws)),
        };
        let mut rest = bytes;
        let mut answered = 0;
        while !rest.is_empty() {
            let is_owed = conn.waiting > 0;
            if !is_owed && !decoder.hears_unasked() {
                return self.break_off(index, UNASKED.to_owned());
            }
            let asked = match arena {
                Some(arena) => arena.asked(conn.reply_at),
                None => conn.drawing.asked(),
            };
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
            conn.waiting -= 1;
            answered += 1;
            if let Some(arena) = arena {
                let next = conn.reply_at + 1;
                conn.reply_at = if next == arena.len() { 0 } else { next };
            } else if let (Some(draws), Some(kinds)) = (&mut draws, &mut self.tally.kinds) {
                let due_ns = conn.intended.front().copied().unwrap_or(conn.started_ns);
                conn.drawing.answered(draws, due_ns, now_ns, kinds);
            }
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
