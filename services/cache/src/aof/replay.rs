//! Running a log again: from records to keys.
//!
//! A record is a byte of flags and a piece of the log; most hold some entries, a long entry takes several. Commands run
//! straight on the store, at the time the log says, and what they reply is thrown away: what failed then fails again.
//! Invariants: an entry that is not whole changes nothing; a part of a command over several shards is left out when
//! another part is missing. Next: `load.rs` for where records come from.

use std::ops::Range;

use logic::store::{Expire, Form, Marks, NewValue};
use view::{Input, Instant, Output};
use wire::resp::{Args, Limits, ParseState, Parsed, Version, parse_command, parse_i64};

use super::{Taken, TxName};
use crate::{
    command::{Conn, Mode, dispatch},
    group::{GROUP, Group, Item},
    shard::Shard,
};

/// The record begins with an entry, not with the rest of one.
const STARTS: u8 = 1;
/// Its last entry goes on in the next record.
const GOES_ON: u8 = 2;
/// It has a part of a command over several shards.
const HAS_PART: u8 = 4;

/// What was logged as records of at most `most` bytes: flags, and a piece of the log.
pub(crate) fn records(
    taken: &Taken,
    entries: Range<usize>,
    most: usize,
) -> impl Iterator<Item = (u8, &[u8])> {
    let most = most.saturating_sub(1).max(1);
    let before = entries.start.checked_sub(1).and_then(|last| taken.ends.get(last));
    let mut at = before.map_or(0, |(end, _)| *end);
    let (mut entry, mut inside) = (entries.start, false);
    let ends = taken.ends.get(..entries.end).unwrap_or_default();
    std::iter::from_fn(move || {
        let (first_end, _) = *ends.get(entry)?;
        let mut flags = if inside { 0 } else { STARTS };
        let (from, mut to) = (at, at);
        if first_end - at > most {
            to = at + most;
            flags |= GOES_ON;
            inside = true;
            if ends.get(entry).is_some_and(|(_, is_part)| *is_part) {
                flags |= HAS_PART;
            }
        } else {
            inside = false;
            while let Some(&(end, is_part)) = ends.get(entry)
                && end - from <= most
            {
                to = end;
                entry += 1;
                if is_part {
                    flags |= HAS_PART;
                }
            }
        }
        at = to;
        Some((flags, taken.bytes.get(from..to).unwrap_or_default()))
    })
}

/// Puts records together to whole entries.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    partial: Vec<u8>,
    has_part: bool,
    /// It is whole, and was given.
    is_given: bool,
    /// Entries that were not whole.
    pub(crate) torn: u64,
}

impl Joiner {
    /// Takes a record; whole entries, if it has or ends some, and whether there is a part among them.
    pub(crate) fn take<'a>(&'a mut self, record: &'a [u8]) -> Option<(&'a [u8], bool)> {
        let (&flags, bytes) = record.split_first()?;
        let (starts, goes_on) = (flags & STARTS != 0, flags & GOES_ON != 0);
        if std::mem::take(&mut self.is_given) {
            self.partial.clear();
        }
        if starts {
            self.torn += u64::from(!self.partial.is_empty());
            self.partial.clear();
            self.has_part = false;
            if !goes_on {
                return Some((bytes, flags & HAS_PART != 0));
            }
        } else if self.partial.is_empty() {
            // The rest of something whose beginning is not there.
            return None;
        }
        self.has_part |= flags & HAS_PART != 0;
        self.partial.extend_from_slice(bytes);
        if goes_on {
            return None;
        }
        self.is_given = true;
        Some((&self.partial, self.has_part))
    }

    /// The log ends here; whether an entry is not whole.
    pub(crate) fn is_torn(&self) -> bool {
        !self.is_given && !self.partial.is_empty()
    }
}

/// What a log holds is held to be sound: its lengths are those of records with checksums.
const LIMITS: Limits = Limits { max_bulk_bytes: usize::MAX >> 1, ..Limits::DEFAULT };

/// Gives each line of whole entries to `each`: commands, and times as [`time_of`] reads them.
///
/// # Errors
/// The bytes make no sense from there on.
pub(crate) fn lines(
    bytes: &[u8],
    args: &mut Args,
    mut each: impl FnMut(&Args, &[u8]),
) -> Result<(), usize> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let parsed = parse_command(rest, args, &LIMITS, &mut ParseState::new());
        let Parsed::Command { frame_len } = parsed else { return Err(at) };
        each(args, rest.get(..frame_len).unwrap_or_default());
        at += frame_len;
    }
    Ok(())
}

/// Whether a line tells the time: unix milliseconds, `None` where it makes no sense.
#[inline]
pub(crate) fn time_of(line: &[u8]) -> Option<Option<u64>> {
    let digits = line.strip_prefix(b"#TS:")?.trim_ascii_end();
    Some(parse_i64(digits).and_then(|time| u64::try_from(time).ok()))
}

/// A time among the words of a line.
pub(crate) fn ms_of(args: &Args, at: usize, line: &[u8]) -> Option<u64> {
    let word = Some(at).filter(|&at| at < args.len()).map(|at| args.get(at, line));
    word.and_then(parse_i64).and_then(|ms| u64::try_from(ms).ok())
}

/// The name and the shards of a part, if this is its head.
pub(crate) fn part_of(args: &Args, frame: &[u8]) -> Option<(TxName, Vec<u16>)> {
    if args.get(0, frame) != b"TX" {
        return None;
    }
    let name = std::str::from_utf8(args.get(1, frame)).ok()?;
    let (boot, ticket) = name.split_once('-')?;
    let name = TxName { boot_us: boot.parse().ok()?, ticket: ticket.parse().ok()? };
    let shards = std::str::from_utf8(args.get(2, frame)).ok()?;
    Some((name, shards.split(',').filter_map(|shard| shard.parse().ok()).collect()))
}

/// The parts of commands over several shards in whole entries.
pub(crate) fn parts(
    bytes: &[u8],
    args: &mut Args,
    mut each: impl FnMut(TxName),
) -> Result<(), usize> {
    lines(bytes, args, |args, frame| {
        if let Some((name, _)) = part_of(args, frame) {
            each(name);
        }
    })
}

/// Runs entries again.
pub(crate) struct Replay<'a> {
    pub(crate) shard: &'a mut Shard,
    pub(crate) state: &'a mut State,
    /// Whether all parts of a command are there.
    pub(crate) is_whole: &'a dyn Fn(TxName, &[u16]) -> bool,
}

/// Where a replay stands.
#[derive(Debug)]
pub(crate) struct State {
    conn: Conn,
    clock_ms: u64,
    /// When the entry ran that is being read, if not then.
    ran_ms: Option<u64>,
    /// In a part that is left out.
    skips: bool,
    group: Box<Group>,
    /// Commands of this log so far, and whether a base has begun that the manifest does not name.
    of_log: u64,
    in_base: bool,
    out: Output,
    pub(crate) commands: u64,
    /// Parts left out.
    pub(crate) skipped: u64,
    /// Commands that failed; those of a log that was cut may.
    pub(crate) failed: u64,
    /// All functions, by the newest of what was logged of them.
    pub(crate) functions: Option<(u64, Vec<u8>)>,
}

impl Default for State {
    fn default() -> Self {
        let mut conn = Conn::remote(0, Version::Resp2, true);
        conn.mode = Mode::Nested;
        Self {
            conn,
            clock_ms: 0,
            ran_ms: None,
            skips: false,
            group: Box::default(),
            of_log: 0,
            in_base: false,
            out: Output::default(),
            commands: 0,
            skipped: 0,
            failed: 0,
            functions: None,
        }
    }
}

impl State {
    /// Another log begins, in which time and database are told anew.
    pub(crate) const fn begin_log(&mut self) {
        (self.clock_ms, self.conn.db, self.skips) = (0, 0, false);
        (self.of_log, self.in_base) = (0, false);
        self.ran_ms = None;
    }

    /// The time at which commands run.
    fn now_ms(&self) -> u64 {
        self.ran_ms.unwrap_or(self.clock_ms)
    }
}

impl Replay<'_> {
    /// Runs whole entries, some commands at a time, for which what their keys need is loaded ahead.
    ///
    /// # Errors
    /// The bytes make no sense from there on.
    pub(crate) fn run(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut group = std::mem::take(&mut self.state.group);
        let mut at = 0;
        let done = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match self.run_group(rest, &mut group) {
                Ok(len) => at += len,
                Err(bad) => break Err(at + bad),
            }
        };
        self.state.group = group;
        done
    }

    /// Runs the commands at the front; how long they are.
    fn run_group(&mut self, bytes: &[u8], group: &mut Group) -> Result<usize, usize> {
        let parsed = parse_command(bytes, group.first_mut(), &LIMITS, &mut ParseState::new());
        let Parsed::Command { frame_len } = parsed else { return Err(0) };
        let count = group.collect(bytes, frame_len, &LIMITS, GROUP);
        group.resolve(self.shard, bytes, count, self.state.conn.db, true);
        let mut end = 0;
        for (item, args) in group.commands(count) {
            let line = item.frame(bytes);
            match time_of(line) {
                Some(time) => {
                    let ms = time.ok_or(item.start)?;
                    self.state.clock_ms = self.state.clock_ms.max(ms);
                }
                None => self.command(item, args, line),
            }
            end = item.start + item.len;
        }
        Ok(end)
    }

    fn command(&mut self, item: &Item, args: &Args, frame: &[u8]) {
        let name = args.get(0, frame);
        match (name, args.len()) {
            (b"SELECT", 2) => {
                let db = parse_i64(args.get(1, frame)).and_then(|db| u16::try_from(db).ok());
                self.state.conn.db = db.unwrap_or(u16::MAX);
            }
            (b"MULTI", 1) => {}
            (b"EXEC", 1) => (self.state.skips, self.state.ran_ms) = (false, None),
            (b"AT", 2) => self.state.ran_ms = ms_of(args, 1, frame),
            // A base that the manifest names is what a log begins with. What one that it does not name says was said
            // before, and may be of commands over several shards whose other parts are missing.
            (b"BASE", 1) => self.state.in_base = self.state.of_log > 0,
            (b"KEPT", 1) => self.state.skips = self.state.in_base,
            (b"TX", 3 | 4) => {
                self.state.ran_ms = ms_of(args, 3, frame);
                let whole = part_of(args, frame)
                    .is_some_and(|(name, shards)| (self.is_whole)(name, &shards));
                self.state.skips = !whole;
                self.state.skipped += u64::from(!whole);
            }
            _ if self.state.skips => {}
            (b"FLUSHALL", 1) => {
                let databases = self.shard.store.config().databases;
                (0..databases).for_each(|db| self.shard.store.clear(db));
            }
            (b"SWAPDB", 3) => {
                let db = |at| parse_i64(args.get(at, frame)).and_then(|db| u16::try_from(db).ok());
                if let (Some(one), Some(two)) = (db(1), db(2)) {
                    self.shard.store.swap(one, two);
                }
            }
            (b"FUNCTIONS", 3) => {
                let number =
                    parse_i64(args.get(1, frame)).and_then(|count| u64::try_from(count).ok());
                let number = number.unwrap_or(0);
                if self.state.functions.as_ref().is_none_or(|(last, _)| *last < number) {
                    self.state.functions = Some((number, args.get(2, frame).to_vec()));
                }
            }
            (b"ITEM", 6) => self.item(args, frame),
            (b"FLUSHDB", 1) => self.shard.store.clear(self.state.conn.db),
            (b"SET" | b"set", 3) => self.set(item, args, frame, Expire::Clear),
            (b"SET", 5) if args.get(3, frame) == b"PXAT" => {
                let at = parse_i64(args.get(4, frame)).and_then(|at| u64::try_from(at).ok());
                self.set(item, args, frame, Expire::At(at.unwrap_or(1)));
            }
            _ => self.any(item, args, frame),
        }
        self.state.commands += 1;
        self.state.of_log += u64::from(name != b"SELECT");
    }

    fn set(&mut self, item: &Item, args: &Args, frame: &[u8], expire: Expire) {
        let (key, value) = (args.get(1, frame), NewValue::Copy(args.get(2, frame)));
        let hash = item.hash.unwrap_or_else(|| self.shard.store.hash(key));
        let (db, now_ms) = (self.state.conn.db, self.state.now_ms());
        let set = self.shard.store.set(db, hash, key, value, expire, Form::Plain, now_ms);
        self.state.failed += u64::from(set.is_err());
    }

    /// An item of memcached's protocol.
    fn item(&mut self, args: &Args, frame: &[u8]) {
        let number = |at| parse_i64(args.get(at, frame)).and_then(|at| u64::try_from(at).ok());
        let (key, now_ms) = (args.get(1, frame), self.state.now_ms());
        let marks = Marks {
            flags: number(2).and_then(|flags| u32::try_from(flags).ok()).unwrap_or(0),
            binary: number(3) == Some(1),
            ..Marks::default()
        };
        let expire = number(4).filter(|at| *at > 0).map_or(Expire::Clear, Expire::At);
        let value = NewValue::Copy(args.get(5, frame));
        let hash = self.shard.store.hash(key);
        let set = self.shard.store.set_item(hash, key, value, expire, marks, now_ms);
        self.state.failed += u64::from(set.is_err());
    }

    /// Makes functions as a dump of them tells.
    pub(crate) fn functions(&mut self, payload: &[u8]) -> Result<(), String> {
        let mut bytes = Vec::new();
        super::command(&mut bytes, &[b"FUNCTION", b"RESTORE", payload, b"FLUSH"]);
        let failed = self.state.failed;
        self.run(&bytes).map_err(|at| format!("byte {at}"))?;
        if self.state.failed > failed { Err("they are refused".into()) } else { Ok(()) }
    }

    fn any(&mut self, item: &Item, args: &Args, frame: &[u8]) {
        let now = Instant { mono_ns: 0, unix_us: self.state.now_ms().saturating_mul(1000) };
        let State { conn, out, .. } = &mut *self.state;
        let Some(id) = item.id else {
            self.state.failed += 1;
            return;
        };
        let input = Input::borrowed(frame);
        let call = dispatch::Call { args, frame, input: &input, id: Some(id), hash: item.hash };
        let _ = dispatch::execute_unseen(call, id, out, self.shard, conn, now);
        self.state.failed += u64::from(out.inline().first() == Some(&b'-'));
        self.state.out.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lens: &[usize]) -> Taken {
        let mut taken = Taken::default();
        for (at, len) in lens.iter().enumerate() {
            let byte = u8::try_from(at).unwrap_or(u8::MAX);
            taken.bytes.extend(std::iter::repeat_n(byte, *len));
            taken.ends.push((taken.bytes.len(), at % 3 == 0));
        }
        taken
    }

    fn cut(taken: &Taken, most: usize) -> Vec<Vec<u8>> {
        let all = records(taken, 0..taken.ends.len(), most);
        all.map(|(flags, piece)| [&[flags], piece].concat()).collect()
    }

    #[test]
    fn records_give_the_entries_again_wherever_they_are_cut() {
        for lens in [&[1][..], &[5, 5, 5], &[30, 1, 29, 7, 100, 3, 3, 3], &[9, 10, 11, 12]] {
            let taken = taken(lens);
            for most in 2..50 {
                let (mut joiner, mut bytes) = (Joiner::default(), Vec::new());
                for record in cut(&taken, most) {
                    assert!(record.len() <= most);
                    if let Some((whole, _)) = joiner.take(&record) {
                        bytes.extend_from_slice(whole);
                    }
                }
                assert_eq!(bytes, taken.bytes, "{lens:?} in {most}");
                assert!(!joiner.is_torn() && joiner.torn == 0);
            }
        }
    }

    #[test]
    fn an_entry_that_is_not_whole_is_left_out() {
        let records = cut(&taken(&[3, 20]), 9);
        let mut joiner = Joiner::default();
        for record in records.iter().take(records.len() - 1) {
            if let Some((whole, has_part)) = joiner.take(record) {
                assert_eq!((whole, has_part), (&[0, 0, 0][..], true));
            }
        }
        assert!(joiner.is_torn());
        // Another life begins with an entry.
        let after = cut(&taken(&[2]), 9);
        let whole = joiner.take(after.first().map_or(&[], Vec::as_slice));
        assert_eq!(whole, Some((&[0, 0][..], true)));
        assert_eq!(joiner.torn, 1);
        // The end of something whose beginning is missing.
        let mut joiner = Joiner::default();
        assert_eq!(joiner.take(records.last().map_or(&[], Vec::as_slice)), None);
    }
}
