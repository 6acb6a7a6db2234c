//! A flow on the replica's side: a connection to one shard of the master, and what comes over it.
//!
//! Entries are run as a master's commands are (`repl::apply`), at the time that the journal says, since keys that are due
//! then are gone there. With as many shards as the master has, a flow's keys are all on the shard that reads it; else its
//! commands find the shards of their keys. It goes on reading while it waits for the parts that other flows have, so that
//! no two flows wait for each other.
//!
//! Invariants: a place is where what was applied ends; what has come and was not applied is bounded.
//! Next: `group.rs` for what flows agree upon, `entries.rs` for the journal.

use std::rc::Rc;
use std::sync::Arc;

use engine::error::{Error, Kind};
use engine::net::Server;

use super::{
    entries::{All, Cutter, Part, Piece, What},
    group::{Group, Place, Turn},
};
use crate::{
    admin::Ask,
    aof::{self, TxName},
    repl::{Applier, Applies, Wire},
    serve::Cache,
    work::Op,
};

const SECOND_NS: u64 = 1_000_000_000;
/// Connections tried per shard of the master until one is accepted by the right one.
const TRIES_PER_SHARD: usize = 64;
/// How often a flow looks whether its group ends, and how often while it waits for other flows.
const LOOK_NS: u64 = SECOND_NS / 50;
const WAIT_NS: u64 = SECOND_NS / 4_000;
/// Longest frame of the journal; a master's are much shorter.
const JOURNAL_MAX_BYTES: u64 = 1 << 20;
/// More than this having come and waiting: no more is read.
const HELD_MAX_BYTES: usize = 16 << 20;
/// How long a flow that reads no more waits for others before it goes on by itself: those may wait for what it has not read.
const STUCK_NS: u64 = 2 * SECOND_NS;

/// Reads one flow until its group ends.
pub(crate) async fn run(server: Rc<Server<Cache>>, group: Arc<Group>, flow: usize) {
    let (cx, is_full) = (server.cx().clone(), group.setup.is_full);
    let place = group.places().get(flow).copied().unwrap_or_default();
    let is_alone = group.setup.targets.len() == 1;
    let mut reading = Reading {
        cutter: Cutter::new(group.setup.databases, is_alone, !is_full),
        server: Rc::clone(&server),
        group: Arc::clone(&group),
        flow,
        number: u16::try_from(flow).unwrap_or(u16::MAX),
        place,
        applier: Applier::new(),
        is_whole: !is_full,
        begun: None,
        stuck_ns: None,
        acked: None,
        ack_at_ns: 0,
    };
    if let Err(error) = reading.read().await {
        group.failed(&error.to_string());
    }
    group.end();
    group.stops();
    while !group.has_stopped() {
        cx.sleep(WAIT_NS).await;
    }
    if let Err(error) = reading.drain().await {
        group.miss(&error.to_string());
    }
    group.has_ended_one();
}

struct Reading {
    server: Rc<Server<Cache>>,
    group: Arc<Group>,
    flow: usize,
    number: u16,
    place: Place,
    cutter: Cutter,
    applier: Applier,
    /// The base has come.
    is_whole: bool,
    /// What concerns all keys, and was applied as far as that.
    begun: Option<TxName>,
    /// Since when nothing is read because too much waits.
    stuck_ns: Option<u64>,
    /// What the master was told last, and when it is told again.
    acked: Option<u64>,
    ack_at_ns: u64,
}

/// A frame.
enum Frame {
    Journal,
    Base,
    BaseEnd,
    /// Nothing more has changed until this time.
    Time(u64),
}

fn wrong(what: &str) -> Error {
    Error::new("replicate", Kind::Invalid, format!("a flow of the master: {what}"))
}

/// The frame at the front: its kind, and where its bytes and it end; nothing when it has not come whole.
fn frame(bytes: &[u8]) -> Result<Option<(Frame, usize, usize)>, Error> {
    let Some(end) = bytes.iter().take(32).position(|&byte| byte == b'\n') else {
        return if bytes.len() < 32 { Ok(None) } else { Err(wrong("no frame")) };
    };
    let head = bytes.get(..end).unwrap_or_default().trim_ascii_end();
    let (kind, len) = head.split_first().ok_or_else(|| wrong("an empty frame"))?;
    let number = match len {
        [] => 0,
        digits => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse::<u64>().ok())
            .ok_or_else(|| wrong("a frame without a length"))?,
    };
    let (frame, len) = match kind {
        b'J' if number > JOURNAL_MAX_BYTES => return Err(wrong("a frame that is too long")),
        b'J' => (Frame::Journal, number),
        b'B' => (Frame::Base, number),
        b'E' => (Frame::BaseEnd, 0),
        b'P' => (Frame::Time(number), 0),
        _ => return Err(wrong("an unknown frame")),
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let start = end + 1;
    let end = start.checked_add(len).ok_or_else(|| wrong("a frame that never ends"))?;
    Ok((bytes.len() >= end).then_some((frame, start, end)))
}

/// What came of a piece.
enum Came {
    Applied,
    /// Other flows have to come as far, or to get theirs.
    Waits,
}

impl Reading {
    async fn read(&mut self) -> Result<(), Error> {
        let Some(mut wire) = self.connect().await? else { return Ok(()) };
        let cx = self.server.cx().clone();
        self.group.connects();
        while !self.group.may_begin() {
            if self.group.ends() {
                return Ok(());
            }
            cx.sleep(WAIT_NS).await;
        }
        if self.is_whole {
            self.cutter.go_on(self.place.db, self.place.clock_ms);
            self.group.is_whole();
        }
        let mut heard_ns = cx.now().mono_ns;
        while !self.group.ends() {
            if self.take_frames(&mut wire)? {
                heard_ns = cx.now().mono_ns;
            }
            let waits = self.apply().await?;
            self.acknowledge(&wire).await?;
            let pause_ns = if waits { WAIT_NS } else { LOOK_NS };
            if self.cutter.held_bytes >= HELD_MAX_BYTES {
                self.stuck_ns.get_or_insert(cx.now().mono_ns);
                cx.sleep(pause_ns).await;
                continue;
            }
            self.stuck_ns = None;
            if wire.more(pause_ns).await? {
                heard_ns = cx.now().mono_ns;
                self.group.heard(cx.now().unix_s());
            } else if cx.now().mono_ns.saturating_sub(heard_ns) > self.group.setup.timeout_ns {
                return Err(wrong("no word within repl-timeout"));
            }
        }
        Ok(())
    }

    /// Connects to the master's shard, and begins or goes on; nothing when that cannot go on.
    async fn connect(&self) -> Result<Option<Wire>, Error> {
        let (cx, setup) = (self.server.cx().clone(), &self.group.setup);
        let target = *setup.targets.get(self.flow).ok_or_else(|| wrong("no such shard"))?;
        let [shard, port] = [self.flow.to_string(), setup.port.to_string()];
        let [history, at] = [target.history.to_string(), self.place.at.to_string()];
        let how: &[u8] = if setup.is_full { b"FULL" } else { b"CONTINUE" };
        for _ in 0..TRIES_PER_SHARD * setup.targets.len() {
            if self.group.ends() {
                return Ok(None);
            }
            let mut wire = Wire::connect(&cx, target.addr, setup.timeout_ns).await?;
            if !setup.login.is_empty() {
                let words: Vec<&[u8]> = setup.login.iter().map(Vec::as_slice).collect();
                let answer = wire.ask(&words).await?;
                if !answer.starts_with('+') {
                    return Err(wrong(&format!("the answer to AUTH was `{answer}`")));
                }
            }
            let words: [&[u8]; 6] = [
                b"REPLFLOW",
                shard.as_bytes(),
                history.as_bytes(),
                at.as_bytes(),
                port.as_bytes(),
                how,
            ];
            let answer = wire.ask(&words).await?;
            match answer.split(' ').next() {
                Some("+OK") => return Ok(Some(wire)),
                // Connections to a port that shards share come to any of them.
                Some("-WRONGSHARD") => {}
                Some("-NOCONTINUE") => {
                    self.group.miss("what was missed is not kept any more: everything comes again");
                    return Ok(None);
                }
                _ => return Err(wrong(&format!("the answer to REPLFLOW was `{answer}`"))),
            }
        }
        Err(wrong("the shard could not be reached: let the master have ports per shard"))
    }

    /// Takes all frames that have come; whether there was one.
    fn take_frames(&mut self, wire: &mut Wire) -> Result<bool, Error> {
        let mut at = 0;
        while let Some(rest) = wire.buffer.get(at..).filter(|rest| !rest.is_empty()) {
            let Some((kind, start, end)) = frame(rest)? else { break };
            let bytes = rest.get(start..end).unwrap_or_default();
            match kind {
                Frame::Journal => self.cutter.journal(bytes)?,
                Frame::Base => self.cutter.base(bytes),
                Frame::BaseEnd => self.cutter.base_end(),
                Frame::Time(ms) => self.cutter.time(ms),
            }
            at += end;
        }
        wire.buffer.drain(..at);
        self.group.shared.come(&mut self.cutter.parts, self.number);
        Ok(at > 0)
    }

    /// Tells the master how far this flow is, when that has changed or it was not told for a while.
    async fn acknowledge(&mut self, wire: &Wire) -> Result<(), Error> {
        let now_ns = self.server.cx().now().mono_ns;
        let at = self.is_whole.then_some(self.place.at);
        if at == self.acked && now_ns < self.ack_at_ns {
            return Ok(());
        }
        (self.acked, self.ack_at_ns) = (at, now_ns + SECOND_NS);
        let at = at.map_or_else(|| "-1".to_owned(), |at| at.to_string());
        wire.send(&[b"REPLCONF", b"ACK", at.as_bytes()]).await
    }

    /// Another master is followed, or none.
    fn is_over(&self) -> bool {
        let shard = self.server.shard().borrow();
        !shard.role.follows || shard.repl.generation() != self.group.setup.generation
    }

    /// Applies what has come, as far as that can be; whether other flows have to come first.
    async fn apply(&mut self) -> Result<bool, Error> {
        let mut waits = false;
        while let Some(piece) = self.cutter.pop() {
            if self.is_over() {
                self.group.miss("another master is followed");
                break;
            }
            let came = self.piece(&piece).await.inspect_err(|error| {
                self.group.miss(&error.to_string());
            })?;
            if matches!(came, Came::Waits) {
                self.cutter.put_back(piece);
                waits = true;
                break;
            }
            self.place.at += piece.len;
            (self.place.db, self.place.clock_ms) = (piece.db, piece.clock_ms);
            if self.group.misses() {
                break;
            }
        }
        self.group.set_place(self.flow, self.place);
        Ok(waits)
    }

    /// Applies what has come and can be applied without what has not: nothing more will.
    async fn drain(&mut self) -> Result<(), Error> {
        while self.group.may_begin() && !self.group.misses() && self.apply().await? {
            let all_come = match self.cutter.pieces.front() {
                Some(Piece { what: What::Part(part), .. }) => self.group.shared.is_whole(part),
                _ => true,
            };
            if !all_come {
                return Ok(());
            }
            self.server.cx().sleep(WAIT_NS).await;
        }
        Ok(())
    }

    async fn piece(&mut self, piece: &Piece) -> Result<Came, Error> {
        self.applier.set_clock(piece.ran_ms.unwrap_or(piece.clock_ms));
        self.applier.set_lenient(piece.is_lenient);
        match &piece.what {
            What::Run(bytes) => self.commands(bytes).await?,
            What::Part(part) => {
                if let Some(all) = &part.all {
                    return self.all(part, all).await;
                }
                if !self.group.shared.is_whole(part) && !self.is_stuck() {
                    return Ok(Came::Waits);
                }
                self.commands(&part.bytes).await?;
                self.group.shared.applied(part, self.number);
            }
            What::Own(bytes) => self.own(bytes, piece)?,
            What::Functions(number, payload) => {
                let Some(is_newer) = self.group.shared.begin_functions(*number) else {
                    return Ok(Came::Waits);
                };
                if is_newer {
                    let mut bytes = Vec::new();
                    let words: [&[u8]; 4] = [b"FUNCTION", b"RESTORE", payload, b"FLUSH"];
                    aof::command(&mut bytes, &words);
                    let made = self.commands(&bytes).await;
                    self.group.shared.end_functions(*number);
                    made?;
                }
            }
            What::End => {
                self.is_whole = true;
                self.group.is_whole();
            }
        }
        Ok(Came::Applied)
    }

    /// What concerns all keys of the master: one flow runs it when all have come to it.
    async fn all(&mut self, part: &Part, all: &All) -> Result<Came, Error> {
        if all.is_mixed {
            self.group.miss("a script emptied databases several times: everything comes again");
            return Ok(Came::Waits);
        }
        if !self.group.shared.is_whole(part) && !self.is_stuck() {
            return Ok(Came::Waits);
        }
        // All have come, so that all flows will come to this, and nothing of it is done twice.
        if self.begun != Some(part.name) {
            self.commands(&part.bytes).await?;
            self.begun = Some(part.name);
        }
        match self.group.shared.reach(part, self.number) {
            Turn::Wait if self.is_stuck() => {
                self.group.miss("flows wait for each other: everything comes again");
                return Ok(Came::Waits);
            }
            Turn::Wait => return Ok(Came::Waits),
            Turn::Run => {
                let run = self.commands(&all.bytes).await;
                self.group.shared.has_run(part);
                run?;
            }
            Turn::Done => {}
        }
        self.commands(&all.after).await?;
        self.group.shared.applied(part, self.number);
        Ok(Came::Applied)
    }

    /// Whether this flow has waited for others for long without reading.
    fn is_stuck(&self) -> bool {
        let now_ns = self.server.cx().now().mono_ns;
        self.stuck_ns.is_some_and(|since_ns| now_ns.saturating_sub(since_ns) > STUCK_NS)
    }

    async fn commands(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let server = Rc::clone(&self.server);
        let generation = self.group.setup.generation;
        let is_over = || server.shard().borrow().repl.generation() != generation;
        let applied = self.applier.apply(&server, bytes, is_over).await?;
        if applied.taken < bytes.len() {
            self.group.miss("another master is followed");
        }
        Ok(())
    }

    /// What concerns all keys of the master's shard alone: with another number of shards, nobody knows here which those are.
    fn own(&self, bytes: &[u8], piece: &Piece) -> Result<(), Error> {
        let mut shard = self.server.shard().borrow_mut();
        let is_same = usize::from(shard.count) == self.group.setup.targets.len();
        if !is_same || self.flow != usize::from(shard.index) {
            self.group.miss("keys of one shard of the master were removed: everything comes again");
            return Ok(());
        }
        let mut words = Vec::new();
        let mut args = wire::resp::Args::default();
        let lines = aof::replay::lines(bytes, &mut args, |args, line| {
            words = (0..args.len()).map(|at| args.get(at, line).to_vec()).collect();
        });
        lines.map_err(|_| wrong("no command"))?;
        let db = |at: usize| -> Option<u16> {
            std::str::from_utf8(words.get(at)?).ok().and_then(|digits| digits.parse().ok())
        };
        let op = match (words.first().map(Vec::as_slice), db(1), db(2)) {
            (Some(b"FLUSHALL"), ..) => Op::Flush(None),
            (Some(b"SWAPDB"), Some(one), Some(two)) => Op::Admin(Ask::Swap(one, two)),
            _ => Op::Flush(Some(piece.db)),
        };
        let now = self.server.cx().now();
        shard.run_op(Op::Applied(Box::new(op), Applies::at(piece.clock_ms)), now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(bytes: &[u8]) -> Option<Option<(usize, usize)>> {
        frame(bytes).ok().map(|found| found.map(|(_, start, end)| (start, end)))
    }

    #[test]
    fn frames_have_a_kind_and_a_length_and_anything_else_is_an_error() {
        assert_eq!(ends(b"J3\r\nabcB"), Some(Some((4, 7))));
        assert_eq!(ends(b"E\r\nJ1"), Some(Some((3, 3))));
        assert_eq!(ends(b"P1700000000000\r\n"), Some(Some((16, 16))));
        for part in [&b"J"[..], b"J3\r", b"J3\r\nab", b"P\r"] {
            assert_eq!(ends(part), Some(None), "{part:?}");
        }
        for bad in
            [&b"X1\r\n"[..], b"Jx\r\n", b"\r\n", b"J1048577\r\n", b"B18446744073709551615\r\n"]
        {
            assert_eq!(ends(bad), None, "{bad:?}");
        }
        assert_eq!(ends(&[b'J'; 40]), None);
    }
}
