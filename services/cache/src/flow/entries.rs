//! The journal of a master's shard, cut into pieces that are applied one after the other.
//!
//! What comes is not trusted to end where an entry does. Entries become commands for a session, each piece with the time
//! at which it runs and the bytes of the journal that it stands for.
//! Invariants: a piece holds whole entries; pieces are in the order of the journal, those of the base between them where
//! they came. Next: `follow.rs` for how they are applied, `aof/mod.rs` for what an entry is.

use std::collections::VecDeque;

use engine::error::{Error, Kind};
use wire::resp::{Args, Limits, ParseState, Parsed, parse_command, parse_i64};

use crate::aof::{TxName, command, replay};

/// No more entries are added to a piece of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Something to be applied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) what: What,
    /// The time in the journal behind it; 0 where the master has not said.
    pub(super) clock_ms: u64,
    /// When it runs, if not then.
    pub(super) ran_ms: Option<u64>,
    /// The database that the journal is in behind it.
    pub(super) db: u16,
    /// Bytes of the journal that it stands for.
    pub(super) len: u64,
    /// Keys may be missing that have yet to come.
    pub(super) is_lenient: bool,
}

/// What it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Commands.
    Run(Vec<u8>),
    /// A part of a command over several shards of the master.
    Part(Part),
    /// A command that concerns all keys of the master's shard, and of no other.
    Own(Vec<u8>),
    /// All functions, and the number of this change.
    Functions(u64, Vec<u8>),
    /// The base has come whole.
    End,
}

/// A part of a command over several shards.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: TxName,
    /// Of the master.
    pub(super) shards: Vec<u16>,
    /// What it does to keys of this shard of the master, before what concerns all keys, if something does.
    pub(super) bytes: Vec<u8>,
    pub(super) all: Option<All>,
}

/// What a command over several shards does to all keys of the master; every part has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct All {
    pub(super) bytes: Vec<u8>,
    /// What it does to keys of this shard afterwards.
    pub(super) after: Vec<u8>,
    /// There are several such commands between others: they cannot be run once for all flows.
    pub(super) is_mixed: bool,
}

impl Piece {
    const fn held_bytes(&self) -> usize {
        match &self.what {
            What::Run(bytes) | What::Own(bytes) | What::Functions(_, bytes) => bytes.len(),
            What::Part(part) => part.bytes.len(),
            What::End => 0,
        }
    }
}

/// In which kind of entry the next line is.
#[derive(Debug)]
enum Inside {
    None,
    Multi,
    Kept,
    At,
    Part(Part),
}

/// Cuts a journal.
#[derive(Debug)]
pub(super) struct Cutter {
    args: Option<Box<Args>>,
    /// What has come of an entry that is not whole, and how much of that was looked at.
    rest: Vec<u8>,
    seen: usize,
    inside: Inside,
    /// When the entry ran, if not at the time of the journal.
    ran_ms: Option<u64>,
    /// Commands of the entry so far.
    commands: Vec<u8>,
    db: u16,
    clock_ms: u64,
    /// Of the master: what is in others is not for replicas.
    databases: u16,
    /// The master has one shard: what concerns all its keys concerns all there are.
    is_alone: bool,
    /// The base has come.
    is_whole: bool,
    pub(super) pieces: VecDeque<Piece>,
    /// Bytes in them.
    pub(super) held_bytes: usize,
    /// Commands over several shards of which a part has come; for whoever waits for them.
    pub(super) parts: Vec<TxName>,
}

fn nonsense(what: &str) -> Error {
    Error::new("replicate", Kind::Invalid, format!("a flow of the master: {what}"))
}

impl Cutter {
    /// For a journal of a master with so many databases and shards.
    pub(super) fn new(databases: u16, is_alone: bool, is_whole: bool) -> Self {
        Self {
            args: None,
            rest: Vec::new(),
            seen: 0,
            inside: Inside::None,
            ran_ms: None,
            commands: Vec::new(),
            db: 0,
            clock_ms: 0,
            databases,
            is_alone,
            is_whole,
            pieces: VecDeque::new(),
            held_bytes: 0,
            parts: Vec::new(),
        }
    }

    /// The reader of the journal knows database and time already.
    pub(super) fn go_on(&mut self, db: u16, clock_ms: u64) {
        (self.db, self.clock_ms) = (db, clock_ms);
        let mut bytes = Vec::new();
        select(&mut bytes, db);
        self.run(&bytes, 0);
    }

    /// Takes bytes of the journal.
    ///
    /// # Errors
    /// They make no sense.
    pub(super) fn journal(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.rest.extend_from_slice(bytes);
        let (mut rest, mut args) =
            (std::mem::take(&mut self.rest), self.args.take().unwrap_or_default());
        let (mut start, mut at) = (0, self.seen);
        let limits = Limits { max_bulk_bytes: usize::MAX >> 1, ..Limits::DEFAULT };
        let cut = loop {
            let line = rest.get(at..).unwrap_or_default();
            if line.is_empty() {
                break Ok(());
            }
            match parse_command(line, &mut args, &limits, &mut ParseState::new()) {
                Parsed::Command { frame_len } => {
                    at += frame_len;
                    let line = line.get(..frame_len).unwrap_or_default();
                    match self.line(&args, line, (at - start) as u64) {
                        Ok(true) => start = at,
                        Ok(false) => {}
                        Err(error) => break Err(error),
                    }
                }
                Parsed::Incomplete { .. } => break Ok(()),
                Parsed::Invalid(_) => break Err(nonsense("no command")),
            }
        };
        rest.drain(..start);
        (self.rest, self.args, self.seen) = (rest, Some(args), at - start);
        cut
    }

    /// Takes a piece of the base.
    pub(super) fn base(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        select(&mut bytes, self.db);
        self.run(&bytes, 0);
    }

    /// Nothing more has changed until this time.
    pub(super) fn time(&mut self, ms: u64) {
        self.clock_ms = self.clock_ms.max(ms);
        self.run(&[], 0);
    }

    /// The base ends here.
    pub(super) fn base_end(&mut self) {
        self.push(What::End, 0);
        self.is_whole = true;
    }

    fn push(&mut self, what: What, len: u64) {
        let (clock_ms, db, is_lenient) = (self.clock_ms, self.db, !self.is_whole);
        let ran_ms = self.ran_ms.take();
        let piece = Piece { what, clock_ms, ran_ms, db, len, is_lenient };
        self.held_bytes += piece.held_bytes();
        self.pieces.push_back(piece);
    }

    /// The next piece.
    pub(super) fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(piece.held_bytes());
        Some(piece)
    }

    /// Takes it back: it cannot be applied yet.
    pub(super) fn put_back(&mut self, piece: Piece) {
        self.held_bytes += piece.held_bytes();
        self.pieces.push_front(piece);
    }

    /// Adds commands, to the last piece if that is of the same kind.
    fn run(&mut self, bytes: &[u8], len: u64) {
        let is_lenient = !self.is_whole;
        if let Some(Piece {
            what: What::Run(before),
            clock_ms,
            ran_ms,
            db,
            len: sum,
            is_lenient: was,
        }) = self.pieces.back_mut()
            && (*clock_ms, *was) == (self.clock_ms, is_lenient)
            && *ran_ms == self.ran_ms
            && before.len() < PIECE_BYTES
        {
            before.extend_from_slice(bytes);
            (*db, *sum) = (self.db, *sum + len);
            self.held_bytes += bytes.len();
            self.ran_ms = None;
            return;
        }
        self.push(What::Run(bytes.to_vec()), len);
    }

    /// Takes a line; whether an entry ends with it, which has `len` bytes then.
    fn line(&mut self, args: &Args, line: &[u8], len: u64) -> Result<bool, Error> {
        if let Some(time) = replay::time_of(line) {
            let ms = time.ok_or_else(|| nonsense("no time"))?;
            self.clock_ms = self.clock_ms.max(ms);
            return Ok(self.end(len));
        }
        let arg = |at| args.get(at, line);
        let db = |at| parse_i64(arg(at)).and_then(|db| u16::try_from(db).ok());
        match (arg(0), args.len()) {
            (b"SELECT", 2) => {
                self.db = db(1).ok_or_else(|| nonsense("no database"))?;
                if self.db < self.databases {
                    self.commands.extend_from_slice(line);
                }
                return Ok(self.end(len));
            }
            (b"MULTI", 1) => {
                self.inside = Inside::Multi;
                self.commands.extend_from_slice(line);
                return Ok(false);
            }
            (b"KEPT", 1) => {
                self.inside = Inside::Kept;
                return Ok(false);
            }
            (b"AT", 2) => {
                self.ran_ms = replay::ms_of(args, 1, line);
                self.inside = Inside::At;
                return Ok(false);
            }
            (b"TX", 3 | 4) => {
                let (name, shards) =
                    replay::part_of(args, line).ok_or_else(|| nonsense("no part"))?;
                self.ran_ms = replay::ms_of(args, 3, line);
                self.parts.push(name);
                let part = Part { name, shards, bytes: Vec::new(), all: None };
                self.inside = Inside::Part(part);
                return Ok(false);
            }
            (b"EXEC", 1) => return Ok(self.exec(line, len)),
            // Of memcached's protocol, or of a log on the master's disk.
            (b"ITEM", 6) | (b"BASE", 1) => return Ok(self.end(len)),
            _ if self.db >= self.databases => return Ok(self.end(len)),
            (b"FUNCTIONS", 3) => {
                let number = parse_i64(arg(1)).and_then(|number| u64::try_from(number).ok());
                let what = What::Functions(number.unwrap_or(0), arg(2).to_vec());
                let ran_ms = self.ran_ms;
                self.push(what, 0);
                self.ran_ms = ran_ms;
                return Ok(self.end(len));
            }
            (b"FLUSHALL" | b"FLUSHDB", 1) | (b"SWAPDB", 3) if !self.is_alone => {
                let Inside::Part(part) = &mut self.inside else {
                    self.push(What::Own(line.to_vec()), 0);
                    return Ok(self.end(len));
                };
                let before = std::mem::take(&mut self.commands);
                let is_first = part.all.is_none();
                let all = part.all.get_or_insert_default();
                if is_first {
                    part.bytes = before;
                } else {
                    all.is_mixed = true;
                }
                select(&mut all.bytes, self.db);
                all.bytes.extend_from_slice(line);
                select(&mut self.commands, self.db);
            }
            _ if matches!(self.inside, Inside::Kept) && self.is_whole => {}
            _ => self.commands.extend_from_slice(line),
        }
        Ok(self.end(len))
    }

    /// Ends an entry, unless more of it is to come.
    fn end(&mut self, len: u64) -> bool {
        if !matches!(self.inside, Inside::None) {
            return false;
        }
        let commands = std::mem::take(&mut self.commands);
        self.run(&commands, len);
        self.commands = commands;
        self.commands.clear();
        true
    }

    fn exec(&mut self, line: &[u8], len: u64) -> bool {
        match std::mem::replace(&mut self.inside, Inside::None) {
            Inside::Part(mut part) => {
                if let Some(all) = &mut part.all {
                    all.after = std::mem::take(&mut self.commands);
                } else {
                    command(&mut part.bytes, &[b"MULTI"]);
                    part.bytes.append(&mut self.commands);
                    command(&mut part.bytes, &[b"EXEC"]);
                }
                self.push(What::Part(part), len);
                true
            }
            Inside::Multi => {
                self.commands.extend_from_slice(line);
                self.end(len)
            }
            Inside::At => {
                let mut commands = std::mem::take(&mut self.commands);
                command(&mut self.commands, &[b"MULTI"]);
                self.commands.append(&mut commands);
                self.commands.extend_from_slice(line);
                self.end(len)
            }
            Inside::Kept | Inside::None => self.end(len),
        }
    }
}

fn select(out: &mut Vec<u8>, db: u16) {
    command(out, &[b"SELECT", db.to_string().as_bytes()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Vec<u8> {
        let mut out = b"#TS:5\r\n".to_vec();
        for line in [
            "SELECT 0",
            "SET a 1",
            "MULTI",
            "INCR b",
            "INCR c",
            "EXEC",
            "TX 9-1 0,1",
            "SET d 1",
            "EXEC",
            "KEPT",
            "SET e 1",
            "EXEC",
            "TX 9-2 0,1",
            "SET d 2",
            "FLUSHALL",
            "SET d 3",
            "EXEC",
            "SELECT 16",
            "DEL item",
            "SELECT 1",
            "FLUSHDB",
            "SET f 1",
            "AT 4",
            "SET g 1",
            "EXEC",
            "TX 9-3 0,1 7",
            "SET d 4",
            "EXEC",
            "SET h 1",
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            command(&mut out, &words);
        }
        out
    }

    fn text(bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", " ");
        let words = text.split(' ').filter(|word| !word.starts_with(['*', '$']));
        words.collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    fn shown(piece: &Piece) -> String {
        match &piece.what {
            What::Run(bytes) => text(bytes),
            What::Part(Part { shards, bytes, all: None, .. }) => {
                format!("part {shards:?} {}", text(bytes))
            }
            What::Part(Part { shards, bytes, all: Some(all), .. }) => {
                let [bytes, all, after] = [bytes, &all.bytes, &all.after].map(|bytes| text(bytes));
                format!("part {shards:?} {bytes}, all {all}, then {after}")
            }
            What::Own(bytes) => format!("own {}", text(bytes)),
            What::Functions(number, _) => format!("functions {number}"),
            What::End => "end".into(),
        }
    }

    fn cut(step: usize, is_whole: bool) -> Cutter {
        let mut cutter = Cutter::new(16, false, is_whole);
        for part in journal().chunks(step) {
            cutter.journal(part).expect("a journal");
        }
        cutter
    }

    #[test]
    fn a_journal_is_cut_into_whole_entries_wherever_it_is_broken() {
        let lens = |cutter: &Cutter| cutter.pieces.iter().map(|piece| piece.len).sum::<u64>();
        for step in [1, 2, 7, 1 << 20] {
            let cutter = cut(step, true);
            let pieces = cutter.pieces.iter().map(shown);
            let pieces: Vec<String> = pieces.filter(|text| !text.is_empty()).collect();
            assert_eq!(
                pieces,
                [
                    "SELECT 0 SET a 1 MULTI INCR b INCR c EXEC",
                    "part [0, 1] MULTI SET d 1 EXEC",
                    "part [0, 1] SET d 2, all SELECT 0 FLUSHALL, then SELECT 0 SET d 3",
                    "SELECT 1",
                    "own FLUSHDB",
                    "SET f 1",
                    "MULTI SET g 1 EXEC",
                    "part [0, 1] MULTI SET d 4 EXEC",
                    "SET h 1",
                ]
            );
            assert_eq!(lens(&cutter), journal().len() as u64, "in steps of {step}");
            assert_eq!(cutter.parts.len(), 3);
            let ran: Vec<u64> = cutter.pieces.iter().filter_map(|piece| piece.ran_ms).collect();
            assert_eq!(ran, [4, 7]);
            assert!(cutter.pieces.iter().all(|piece| piece.clock_ms == 5));
        }
    }

    #[test]
    fn before_the_base_has_come_what_came_back_is_taken() {
        let cutter = cut(1 << 20, false);
        assert!(cutter.pieces.iter().any(|piece| shown(piece) == "SET e 1" && piece.is_lenient));
    }

    #[test]
    fn what_concerns_all_keys_of_the_only_shard_is_a_command_like_others() {
        let mut cutter = Cutter::new(16, true, true);
        let mut bytes = Vec::new();
        command(&mut bytes, &[b"FLUSHALL"]);
        cutter.journal(&bytes).expect("a journal");
        assert_eq!(cutter.pieces.iter().map(shown).collect::<Vec<_>>(), ["FLUSHALL"]);
        assert!(cutter.journal(b"*x\r\n").is_err());
    }
}
