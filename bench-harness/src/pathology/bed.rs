//! The misbehaving server as a state machine: bytes in at a time, bytes out at later times.
//!
//! Invariants: it does no I/O and reads no clock, so equal input at equal times gives equal output; the
//! time at which the one server is free follows from arrivals and service times alone, so what wakes up
//! late delays a reply and not the queue; replies of a connection keep their order except in
//! [`Mode::Reorder`]; a request is at most [`REQUEST_MAX_BYTES`], and beyond [`PENDING_MAX`] replies to
//! come [`Bed::is_full`] tells the driver to stop reading. Next: `serve` and `simulate`, which drive it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use wire::resp::{Reply, decode_reply};

use super::Mode;
use crate::load::arena::{KEY_LEN_BYTES, Values};
use crate::rng::Rng;

/// A request, at most.
pub const REQUEST_MAX_BYTES: usize = 1 << 20;
/// Replies to come, at most, before the driver must stop reading.
pub const PENDING_MAX: usize = 1 << 18;

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Write {
        /// To whom.
        conn: u64,
        /// What.
        bytes: Vec<u8>,
        /// Whether a reply begins with them: the moment at which a mutant works.
        begins: bool,
    },
    /// Reset the connection (RST, not FIN).
    Reset {
        /// Which.
        conn: u64,
    },
}

#[derive(Debug)]
struct Conn {
    input: Vec<u8>,
    /// When its last reply is out; with a server for each connection, when that one is free.
    free_ns: u64,
    asked: u64,
}

/// A reply to come: when, the order of those at one time, and what is left of it.
type Due = Reverse<(u64, u64, Pending)>;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    conn: u64,
    /// `None` for a reset.
    bytes: Option<Vec<u8>>,
    at: usize,
}

impl Pending {
    /// Whether it takes the time of a server: a GET does.
    fn is_served(&self) -> bool {
        self.bytes.as_ref().is_some_and(|bytes| bytes.starts_with(b"$"))
    }
}

/// The server.
#[derive(Debug)]
pub struct Bed {
    mode: Mode,
    values: Values,
    rng: Rng,
    epoch_ns: u64,
    conns: BTreeMap<u64, Conn>,
    due: BinaryHeap<Due>,
    order: u64,
    /// When the one server of all connections is free.
    free_ns: u64,
    /// Service it was spared because who asked was gone: `due` and `free_ns` are later by that.
    spared_ns: u64,
    replies: u64,
}

impl Bed {
    /// A server whose periods begin at `epoch_ns`, with values of `value_len_bytes`.
    #[must_use]
    pub fn new(mode: Mode, value_len_bytes: usize, seed: u64, epoch_ns: u64) -> Self {
        Self {
            mode,
            values: Values::new(value_len_bytes),
            rng: Rng::new(seed),
            epoch_ns,
            conns: BTreeMap::new(),
            due: BinaryHeap::new(),
            order: 0,
            free_ns: 0,
            spared_ns: 0,
            replies: 0,
        }
    }

    /// How it misbehaves.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// A connection was accepted; its number is not used again.
    pub fn open(&mut self, conn: u64, now_ns: u64) {
        self.conns.insert(conn, Conn { input: Vec::new(), free_ns: 0, asked: 0 });
        if self.mode == (Mode::Reset { after: 0 }) {
            self.push(now_ns, conn, None);
        }
    }

    /// It is gone; its replies are dropped.
    pub fn close(&mut self, conn: u64) {
        self.conns.remove(&conn);
    }

    /// Whether so many replies are to come that no more should be read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.due.len() >= PENDING_MAX
    }

    /// Bytes arrived.
    ///
    /// # Errors
    /// They are no requests; the connection should be closed.
    pub fn on_bytes(&mut self, conn: u64, bytes: &[u8], now_ns: u64) -> Result<(), String> {
        let Some(state) = self.conns.get_mut(&conn) else { return Ok(()) };
        state.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut state.input);
        let mut used = 0;
        let mut replies = Vec::new();
        while used < input.len() {
            match decode_reply(&input[used..]) {
                Ok(Some((request, len))) => {
                    used += len;
                    replies.push(self.reply(&request)?);
                }
                Ok(None) if input.len() - used > REQUEST_MAX_BYTES => {
                    return Err(format!("a request of more than {REQUEST_MAX_BYTES} bytes"));
                }
                Ok(None) => break,
                Err(error) => return Err(format!("not a request at byte {}", error.at)),
            }
        }
        input.drain(..used);
        if let Some(state) = self.conns.get_mut(&conn) {
            state.input = input;
        }
        if self.mode == Mode::Reorder {
            replies.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
        }
        for reply in replies {
            self.schedule(conn, reply, now_ns + self.spared_ns);
        }
        Ok(())
    }

    fn reply(&mut self, request: &Reply) -> Result<Vec<u8>, String> {
        let Reply::Array(words) = request else { return Err("a request is an array".to_owned()) };
        let word = |at: usize| match words.get(at) {
            Some(Reply::Bulk(bytes)) => bytes.as_slice(),
            _ => &[],
        };
        let (verb, name) = (word(0), word(1));
        Ok(if verb.eq_ignore_ascii_case(b"SET") {
            b"+OK\r\n".to_vec()
        } else if verb.eq_ignore_ascii_case(b"PING") {
            b"+PONG\r\n".to_vec()
        } else if verb.eq_ignore_ascii_case(b"GET") {
            let digits = name.get(4..KEY_LEN_BYTES).unwrap_or_default();
            let key = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            self.value(key.unwrap_or(0))
        } else {
            b"-ERR this server knows GET, SET and PING\r\n".to_vec()
        })
    }

    fn value(&mut self, key: u32) -> Vec<u8> {
        self.replies += 1;
        let wrong =
            matches!(self.mode, Mode::Wrong { every } if self.replies.is_multiple_of(every));
        let mut reply = format!("${}\r\n", self.values.len_bytes()).into_bytes();
        self.values.write(if wrong { key ^ 1 } else { key }, &mut reply);
        reply.extend_from_slice(b"\r\n");
        reply
    }

    /// Says when a reply to a request of `now_ns` leaves. A SET is always answered at once, so that
    /// keys can be loaded; it waits its turn on its connection.
    fn schedule(&mut self, conn: u64, reply: Vec<u8>, now_ns: u64) {
        let draw = matches!(self.mode, Mode::Bimodal { .. }).then(|| self.rng.unit());
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let from_ns = now_ns.max(state.free_ns);
        if !reply.starts_with(b"$") {
            state.free_ns = from_ns;
            return self.push(from_ns, conn, Some(reply));
        }
        state.asked += 1;
        let due_ns = match self.mode {
            Mode::Md1 { service_ns } => {
                self.free_ns = now_ns.max(self.free_ns) + service_ns;
                self.free_ns
            }
            Mode::Stall { every_ns, stall_ns } => {
                let phase_ns = now_ns.saturating_sub(self.epoch_ns) % every_ns;
                let stalled = phase_ns >= every_ns - stall_ns;
                if stalled { now_ns + (every_ns - phase_ns) } else { now_ns }
            }
            Mode::Bimodal { fast_ns, slow_ns, share } => {
                from_ns + if draw.is_some_and(|draw| draw < share) { slow_ns } else { fast_ns }
            }
            Mode::Late { late_ns } if state.asked == 1 => now_ns + late_ns,
            Mode::Reset { after } if state.asked > after => {
                return self.push(from_ns, conn, None);
            }
            _ => now_ns,
        };
        let due_ns = due_ns.max(state.free_ns);
        // A reply that dribbles holds up the next one until it is out.
        state.free_ns = match self.mode {
            Mode::Drain { gap_ns } => due_ns + gap_ns * (reply.len() as u64 - 1),
            _ => due_ns,
        };
        self.push(due_ns, conn, Some(reply));
    }

    fn push(&mut self, at_ns: u64, conn: u64, bytes: Option<Vec<u8>>) {
        self.order += 1;
        self.due.push(Reverse((at_ns, self.order, Pending { conn, bytes, at: 0 })));
    }

    /// When the next thing is to be done.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_ns, _, _))| at_ns - self.spared_ns)
    }

    /// The one server of all connections takes the next request: of one whose asker is there. Else a load that was too
    /// much would be served long after it has ended, at the expense of the next.
    fn spare(&mut self) {
        let Mode::Md1 { service_ns } = self.mode else { return };
        while let Some(Reverse((_, _, next))) = self.due.peek()
            && !self.conns.contains_key(&next.conn)
        {
            if next.is_served() {
                self.spared_ns += service_ns;
            }
            self.due.pop();
        }
    }

    /// The next thing to do, when it is time for it.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<Action> {
        while self.next_due_ns().is_some_and(|at_ns| at_ns <= now_ns) {
            let Reverse((at_ns, order, mut pending)) = self.due.pop()?;
            let conn = pending.conn;
            if pending.is_served() {
                self.spare();
            }
            if !self.conns.contains_key(&conn) {
                continue;
            }
            let Some(bytes) = &pending.bytes else { return Some(Action::Reset { conn }) };
            let begins = pending.at == 0;
            let Mode::Drain { gap_ns } = self.mode else {
                return Some(Action::Write { conn, bytes: pending.bytes?, begins });
            };
            let byte = bytes[pending.at];
            pending.at += 1;
            if pending.at < bytes.len() {
                self.due.push(Reverse((at_ns + gap_ns, order, pending)));
            }
            return Some(Action::Write { conn, bytes: vec![byte], begins });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Workload;
    use crate::load::protocol::{Asked, Codec, Protocol};

    fn get(key: u32) -> Vec<u8> {
        let mut request = Vec::new();
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.value_len_bytes = 8;
        Codec::new(&workload).encode(Asked { key, set: false }, &mut request);
        request
    }

    fn bed(mode: Mode) -> Bed {
        let mut bed = Bed::new(mode, 8, 1, 0);
        bed.open(0, 0);
        bed.open(1, 0);
        bed
    }

    /// When each key's reply begins, and for which key it is.
    fn out(bed: &mut Bed) -> Vec<(u64, u64, String)> {
        let mut seen = Vec::new();
        while let Some(now_ns) = bed.next_due_ns() {
            if let Some(Action::Write { conn, bytes, .. }) = bed.pop_due(now_ns) {
                seen.push((now_ns, conn, String::from_utf8_lossy(&bytes).trim().to_owned()));
            }
        }
        seen
    }

    #[test]
    fn one_server_takes_requests_of_all_connections_in_order() {
        let mut bed = bed(Mode::Md1 { service_ns: 100 });
        bed.on_bytes(0, &get(7), 1_000).expect("a request");
        bed.on_bytes(1, &get(8), 1_010).expect("a request");
        bed.on_bytes(0, &get(9), 2_000).expect("a request");
        let times: Vec<(u64, u64)> = out(&mut bed).iter().map(|seen| (seen.0, seen.1)).collect();
        assert_eq!(times, [(1_100, 0), (1_200, 1), (2_100, 0)]);
    }

    #[test]
    fn requests_of_connections_that_are_gone_take_no_time_of_the_others() {
        let mut bed = bed(Mode::Md1 { service_ns: 100 });
        // The first is begun; then four of one that leaves, around one of the other.
        bed.on_bytes(1, &[get(1), get(2), get(3)].concat(), 1_000).expect("requests");
        bed.on_bytes(0, &get(4), 1_010).expect("a request");
        bed.on_bytes(1, &[get(5), get(6)].concat(), 1_020).expect("requests");
        bed.close(1);
        assert_eq!(bed.pop_due(1_099), None);
        // Looked at a little late, as on sockets.
        assert_eq!(bed.pop_due(1_130), None);
        assert_eq!(bed.next_due_ns(), Some(1_200));
        assert!(matches!(bed.pop_due(1_230), Some(Action::Write { conn: 0, .. })));
        assert_eq!(bed.next_due_ns(), None);
        bed.on_bytes(0, &get(7), 1_250).expect("a request");
        bed.on_bytes(0, &get(8), 1_260).expect("a request");
        let times: Vec<u64> = out(&mut bed).iter().map(|seen| seen.0).collect();
        assert_eq!(times, [1_350, 1_450]);
    }

    #[test]
    fn a_stall_ends_each_period() {
        let mut bed = bed(Mode::Stall { every_ns: 1_000, stall_ns: 200 });
        for at_ns in [0, 799, 800, 999, 1_000, 1_900] {
            bed.on_bytes(0, &get(1), at_ns).expect("a request");
        }
        let times: Vec<u64> = out(&mut bed).iter().map(|seen| seen.0).collect();
        assert_eq!(times, [0, 799, 1_000, 1_000, 1_000, 2_000]);
    }

    #[test]
    fn requests_are_found_wherever_they_are_cut() {
        let both = [get(5), get(6)].concat();
        for cut in 0..=both.len() {
            let mut bed = bed(Mode::Prompt);
            bed.on_bytes(0, &both[..cut], 0).expect("a part");
            bed.on_bytes(0, &both[cut..], 0).expect("the rest");
            let texts: Vec<String> = out(&mut bed).into_iter().map(|seen| seen.2).collect();
            assert_eq!(texts, ["$8\r\n00000005", "$8\r\n00000006"], "cut at {cut}");
        }
        assert!(bed(Mode::Prompt).on_bytes(0, b"hello\r\n", 0).is_err());
        assert!(bed(Mode::Prompt).on_bytes(0, b":5\r\n", 0).is_err());
        let endless = [b"*1\r\n$9999999\r\n".as_slice(), &vec![b'a'; REQUEST_MAX_BYTES]].concat();
        assert!(bed(Mode::Prompt).on_bytes(0, &endless, 0).is_err());
    }

    #[test]
    fn bytes_dribble_and_the_next_reply_waits_for_them() {
        let mut bed = bed(Mode::Drain { gap_ns: 10 });
        bed.on_bytes(0, &[get(5), get(6)].concat(), 100).expect("two requests");
        let seen = out(&mut bed);
        let len = 4 + 8 + 2;
        assert_eq!(seen.len(), 2 * len);
        let last = seen.last().expect("bytes").0;
        assert_eq!(last, 100 + 10 * 2 * (len as u64 - 1));
    }

    #[test]
    fn pairs_change_places_wrong_values_are_another_keys_and_first_bytes_are_late() {
        let mut reorder = bed(Mode::Reorder);
        reorder.on_bytes(0, &[get(5), get(6), get(7)].concat(), 0).expect("requests");
        let texts: Vec<String> = out(&mut reorder).into_iter().map(|seen| seen.2).collect();
        assert_eq!(texts, ["$8\r\n00000006", "$8\r\n00000005", "$8\r\n00000007"]);
        let mut wrong = bed(Mode::Wrong { every: 2 });
        wrong.on_bytes(0, &[get(4), get(4)].concat(), 0).expect("requests");
        let texts: Vec<String> = out(&mut wrong).into_iter().map(|seen| seen.2).collect();
        assert_eq!(texts, ["$8\r\n00000004", "$8\r\n00000005"]);
        let mut late = bed(Mode::Late { late_ns: 50 });
        late.on_bytes(0, &[get(4), get(4)].concat(), 0).expect("requests");
        late.on_bytes(0, &get(4), 90).expect("a request");
        let times: Vec<u64> = out(&mut late).iter().map(|seen| seen.0).collect();
        assert_eq!(times, [50, 50, 90]);
    }

    #[test]
    fn connections_are_reset_at_once_or_after_some_replies() {
        let mut at_once = bed(Mode::Reset { after: 0 });
        assert_eq!(at_once.pop_due(0), Some(Action::Reset { conn: 0 }));
        let mut later = bed(Mode::Reset { after: 1 });
        later.on_bytes(1, &[get(4), get(4)].concat(), 5).expect("requests");
        assert!(matches!(later.pop_due(5), Some(Action::Write { conn: 1, .. })));
        assert_eq!(later.pop_due(5), Some(Action::Reset { conn: 1 }));
        later.on_bytes(1, &get(4), 6).expect("a request");
        later.close(1);
        assert_eq!(later.pop_due(9), None, "what is gone gets nothing");
    }
}
