//! Reading a log from the start, finding its end, and going on from there.
//!
//! The end of a segment is where the next one begins; the end of the last is found: it is the first
//! place without a valid record, unless a record of a later batch follows, which would not have
//! been written before that place was durable (see `format`). The first is a torn write and is
//! cut; the second is damage and is reported. Appends go on in a fresh segment whose base marks
//! the cut, so that torn records behind it can never come back.
//!
//! While a window is looked at, the next is read: where it has to begin is told by the lengths of the
//! records in this one.
//!
//! Invariants: nothing is written before [`Recovery::finish`]; before the first append, everything
//! read is durable; memory is two windows.

use std::collections::VecDeque;
use std::path::Path;

use super::format::{
    BLOCK_BYTES, Key, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RECORDS_START, RecordHeader,
    SegmentHeader, record_bytes,
};
use super::segment::{self, SegmentFile};
use super::writer::{Handle, Segment, Start, new_header};
use super::{Log, LogConfig, Position};
use crate::buf::DirectBuf;
use crate::driver::{Op, Payload};
use crate::error::{Error, Kind};
use crate::exec::sync::yield_now;
use crate::fs::Dir;
use crate::shard::{Pending, ShardCx};

const WINDOW_BYTES: usize = 1 << 20;
/// Longest record a header may announce.
const RECORD_LIMIT_BYTES: u32 = 64 << 20;

/// What recovery reads.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record, as it was appended.
    Record {
        /// Where it begins.
        position: Position,
        /// Its data.
        data: &'a [u8],
    },
    /// Records that were durable once cannot be read. What follows is valid again.
    Damage {
        /// Where the unreadable part begins.
        from: Position,
        /// Where it ends.
        to: Position,
    },
}

#[derive(Debug)]
struct Found {
    header: SegmentHeader,
    key: Key,
    file: SegmentFile,
    /// Where its records end, when the segment after it is there to say so.
    limit: Option<u32>,
}

/// Part of a segment in memory.
#[derive(Debug)]
struct Window {
    buf: Option<DirectBuf>,
    slot: u64,
    start: u32,
    len: u32,
    /// Length of a window's buffer.
    bytes: usize,
    /// The next window, on its way.
    ahead: Option<Ahead>,
    /// Whether the next window was looked for.
    has_looked: bool,
    spare: Option<DirectBuf>,
}

/// A window that is being read.
#[derive(Debug)]
struct Ahead {
    slot: u64,
    start: u32,
    read: Pending,
}

/// A log being read. [`Recovery::next`] until `None`, then [`Recovery::finish`].
#[derive(Debug)]
pub struct Recovery {
    cx: ShardCx,
    config: LogConfig,
    dir: Dir,
    from: u64,
    segments: Vec<Found>,
    idle: Vec<SegmentFile>,
    next_slot: u64,
    /// The segment being read, and where in it.
    at: usize,
    offset: u32,
    window: Window,
    /// Where the write that carried the last record of this segment began.
    batch: Option<u32>,
    /// The end of the log, once found.
    end: Option<u64>,
}

enum Step {
    Record { position: u64, data: u32, len: u32 },
    Damage { from: u64, to: u64 },
    End,
}

impl Recovery {
    /// Opens the log in directory `dir`, making it when missing, to read the records at and after
    /// `from`: zero, or a position that was passed to [`Log::trim`] or could have been. Segments
    /// that end before it may be used again.
    ///
    /// # Errors
    /// Wrong sizes, or the file system refuses.
    pub async fn open(
        cx: &ShardCx,
        dir: &Path,
        config: LogConfig,
        from: Position,
    ) -> Result<Self, Error> {
        config.check()?;
        let dir = Dir::open(cx, dir).await?;
        let window = Window::new();
        let mut recovery = Self {
            cx: cx.clone(),
            config,
            dir,
            from: from.0,
            segments: Vec::new(),
            idle: Vec::new(),
            next_slot: 0,
            at: 0,
            offset: RECORDS_START,
            window,
            batch: None,
            end: None,
        };
        for name in recovery.dir.list()? {
            if let Some(slot) = segment::slot_of(&name) {
                recovery.next_slot = recovery.next_slot.max(slot + 1);
                recovery.look_at(slot, &name).await?;
            }
        }
        recovery.order()?;
        Ok(recovery)
    }

    async fn look_at(&mut self, slot: u64, name: &str) -> Result<(), Error> {
        let file = segment::open(&self.cx, self.dir.path(), slot, false)?;
        let len = self.cx.driver().file_len(file.fd)?;
        let mut header = None;
        if len >= BLOCK_BYTES as u64 {
            let block = DirectBuf::zeroed(BLOCK_BYTES);
            let read = segment::read_at_least(&self.cx, &file, block, BLOCK_BYTES, 0).await;
            header = SegmentHeader::decode(&read?.0);
        }
        match header {
            Some(header)
                if header.record_max_bytes <= RECORD_LIMIT_BYTES
                    && header.segment_bytes < 1 << 32
                    && header.segment_bytes <= len =>
            {
                let key = header.key();
                self.segments.push(Found { header, key, file, limit: None });
            }
            Some(_) => {
                let context = format!("{}: a segment cut to {len} bytes", file.path.display());
                return Err(Error::new("log recovery", Kind::Broken, context));
            }
            None if len == self.config.segment_bytes => self.idle.push(file),
            // Its making was interrupted.
            None => self.dir.remove(name)?,
        }
        Ok(())
    }

    /// Sorts out which segments are the log, and where each ends.
    fn order(&mut self) -> Result<(), Error> {
        self.segments.sort_by_key(|found| found.header.sequence);
        let oldest = self.segments.last().map_or(0, |newest| newest.header.oldest);
        let live = self.segments.partition_point(|found| found.header.sequence < oldest);
        let live = self.segments.split_off(live);
        let mut unneeded = std::mem::replace(&mut self.segments, live);
        let starts = self.segments.partition_point(|found| found.header.base <= self.from);
        unneeded.extend(self.segments.drain(..starts.saturating_sub(1)));
        for trimmed in unneeded {
            if trimmed.header.segment_bytes == self.config.segment_bytes {
                self.idle.push(trimmed.file);
            } else {
                self.cx.driver().unlink(&trimmed.file.path)?;
            }
        }
        for at in 1..self.segments.len() {
            let next = self.segments[at].header;
            let found = &mut self.segments[at - 1];
            if next.sequence == found.header.sequence {
                let context = format!("{}: its number appears twice", found.file.path.display());
                return Err(Error::new("log recovery", Kind::Broken, context));
            }
            let length = next.base.checked_sub(found.header.base);
            found.limit = length
                .map(|length| length.saturating_add(u64::from(RECORDS_START)))
                .filter(|&limit| limit <= found.header.segment_bytes)
                .filter(|_| next.sequence == found.header.sequence + 1)
                .and_then(|limit| u32::try_from(limit).ok());
        }
        let longest = self.segments.iter().map(|found| found.header.record_max_bytes as usize);
        let window_bytes = longest.max().unwrap_or(0) + 2 * BLOCK_BYTES;
        self.window.bytes = window_bytes.max(WINDOW_BYTES);
        Ok(())
    }

    /// Where reading begins: nothing older is there.
    #[must_use]
    pub fn start(&self) -> Position {
        Position(self.segments.first().map_or(0, |found| found.header.base))
    }

    /// The next entry, or `None` at the end of the log.
    ///
    /// # Errors
    /// A file could not be read.
    pub async fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        Ok(match self.step().await? {
            Step::Record { position, data, len } => {
                let data = self.window.slice(data, len).unwrap_or_default();
                Some(Entry::Record { position: Position(position), data })
            }
            Step::Damage { from, to } => {
                Some(Entry::Damage { from: Position(from), to: Position(to) })
            }
            Step::End => None,
        })
    }

    async fn step(&mut self) -> Result<Step, Error> {
        if self.at == 0 && self.offset == RECORDS_START {
            // Segments before the first one that is there.
            if let Some(missing) = self.missing_front() {
                self.from = missing.1;
                return Ok(Step::Damage { from: missing.0, to: missing.1 });
            }
        }
        while self.end.is_none() {
            let Some(found) = self.segments.get(self.at) else {
                self.end = Some(self.from);
                return Ok(self.lost_end(0));
            };
            if found.limit == Some(self.offset) {
                self.next_segment();
                continue;
            }
            let (offset, here) = (self.offset, found.header.position(self.offset));
            if let Some(header) = self.record_at(offset).await? {
                self.offset += record_bytes(header.len as usize) as u32;
                self.batch = Some(header.batch);
                if self.read_ahead() {
                    // It is on its way from the next turn on.
                    yield_now().await;
                }
                if here >= self.from {
                    let data = offset + RECORD_HEADER_BYTES as u32;
                    return Ok(Step::Record { position: here, data, len: header.len });
                }
                continue;
            }
            let to = self.skip_bad(offset, here).await?;
            if self.end.is_some() {
                return Ok(self.lost_end(here));
            }
            if to > here.max(self.from) {
                return Ok(Step::Damage { from: here.max(self.from), to });
            }
        }
        Ok(Step::End)
    }

    /// A log that ends at `here`, before where it was promised to reach, has lost its end.
    const fn lost_end(&self, here: u64) -> Step {
        if here < self.from { Step::Damage { from: here, to: self.from } } else { Step::End }
    }

    fn missing_front(&self) -> Option<(u64, u64)> {
        let (first, newest) = (self.segments.first()?, self.segments.last()?);
        let missing = first.header.sequence > newest.header.oldest;
        (missing && first.header.base > self.from).then_some((self.from, first.header.base))
    }

    /// Goes on behind a place without a valid record, if there is something; returns the position
    /// reached.
    async fn skip_bad(&mut self, offset: u32, here: u64) -> Result<u64, Error> {
        let base = self.segments[self.at].header;
        if let Some(resumed) = self.next_valid(offset).await? {
            self.offset = resumed;
            return Ok(base.position(resumed));
        }
        match self.segments.get(self.at + 1).map(|next| next.header.base) {
            Some(base) => {
                self.next_segment();
                Ok(base)
            }
            None => {
                self.end = Some(here.max(self.from));
                Ok(here)
            }
        }
    }

    const fn next_segment(&mut self) {
        self.at += 1;
        self.offset = RECORDS_START;
        self.batch = None;
    }

    #[cfg(test)]
    pub(super) const fn is_reading_ahead(&self) -> bool {
        self.window.ahead.is_some()
    }

    /// Begins to read the next window, unless that was done; whether it did.
    fn read_ahead(&mut self) -> bool {
        if std::mem::replace(&mut self.window.has_looked, true) {
            return false;
        }
        let (found, limit) = (&self.segments[self.at], self.limit());
        let mut offset = self.offset;
        while found.limit != Some(offset)
            && let Some(bytes) = self.window.slice(offset, RECORD_HEADER_BYTES as u32)
        {
            // What makes no sense is looked at when it is come to.
            let Some(header) = found.key.header(bytes, offset, limit) else { return false };
            if self.window.slice(offset, RECORD_HEADER_BYTES as u32 + header.len).is_none() {
                break;
            }
            offset += record_bytes(header.len as usize) as u32;
        }
        if found.limit != Some(offset) {
            self.window.begin_ahead(&self.cx, &found.file, offset);
        } else if let Some(next) = self.segments.get(self.at + 1) {
            self.window.begin_ahead(&self.cx, &next.file, RECORDS_START);
        } else {
            return false;
        }
        true
    }

    fn limit(&self) -> u32 {
        let found = &self.segments[self.at];
        found.limit.unwrap_or(u32::try_from(found.header.segment_bytes).unwrap_or(u32::MAX))
    }

    /// The valid record at `offset`, whose data are in the window then.
    async fn record_at(&mut self, offset: u32) -> Result<Option<RecordHeader>, Error> {
        let limit = self.limit();
        if u64::from(offset) + RECORD_HEADER_BYTES as u64 > u64::from(limit) {
            return Ok(None);
        }
        let found = &self.segments[self.at];
        let header = self.window.bytes(&self.cx, &found.file, offset, RECORD_HEADER_BYTES as u32);
        let Some(header) = found.key.header(header.await?, offset, limit) else {
            return Ok(None);
        };
        // From the header on, so that the window cannot move past what it is asked for next.
        let whole = RECORD_HEADER_BYTES as u32 + header.len;
        let bytes = self.window.bytes(&self.cx, &found.file, offset, whole).await?;
        let valid = found.key.check(header, offset, &bytes[RECORD_HEADER_BYTES..]);
        Ok(valid.then_some(header))
    }

    /// The first valid record behind the bad place at `bad`, if there is proof that the place was
    /// durable once.
    async fn next_valid(&mut self, bad: u32) -> Result<Option<u32>, Error> {
        let last = self.at + 1 == self.segments.len();
        let mut first = None;
        let mut offset = bad + RECORD_ALIGN_BYTES as u32;
        let limit = self.limit();
        while offset + RECORD_HEADER_BYTES as u32 <= limit {
            let Some(header) = self.record_at(offset).await? else {
                offset = self.next_candidate(offset + RECORD_ALIGN_BYTES as u32, limit);
                continue;
            };
            let start = *first.get_or_insert(offset);
            if !last || header.batch > bad {
                return Ok(Some(start));
            }
            offset += record_bytes(header.len as usize) as u32;
        }
        Ok(None)
    }

    /// The next offset in the window that may hold a record, or the first outside of it.
    fn next_candidate(&self, from: u32, limit: u32) -> u32 {
        let key = &self.segments[self.at].key;
        let mut offset = from;
        while let Some(bytes) = self.window.slice(offset, RECORD_HEADER_BYTES as u32) {
            if key.header(bytes, offset, limit).is_some() {
                break;
            }
            offset += RECORD_ALIGN_BYTES as u32;
        }
        offset
    }

    /// Writes the last batch once more. What was read of it may be in a cache only, if the process
    /// died during the write; everything before was durable when it was begun.
    async fn settle(&mut self) -> Result<(), Error> {
        let (Some(found), Some(batch)) = (self.segments.last(), self.batch) else { return Ok(()) };
        let start = batch as usize / BLOCK_BYTES * BLOCK_BYTES;
        let need = self.offset as usize - start;
        let buf = DirectBuf::zeroed(need);
        let (buf, _) =
            segment::read_at_least(&self.cx, &found.file, buf, need, start as u64).await?;
        let len = buf.len();
        segment::write_all(&self.cx, &found.file, buf, len, start as u64, true).await?;
        Ok(())
    }

    /// Opens the log for appends at its end; entries not read yet are skipped.
    ///
    /// # Errors
    /// A file could not be read, or the next segment not be made.
    pub async fn finish(mut self) -> Result<Log, Error> {
        while self.next().await?.is_some() {}
        self.settle().await?;
        let end = self.end.unwrap_or(self.from);
        let Self { cx, config, dir, mut segments, mut idle, mut next_slot, .. } = self;
        let newest = segments.last().map_or(0, |found| found.header.sequence);
        let unused = segments.pop_if(|last| {
            last.header.base == end && last.header.segment_bytes == config.segment_bytes
        });
        let (sequence, file) = match (unused, idle.pop()) {
            (Some(unused), spare) => {
                idle.extend(spare);
                (newest, unused.file)
            }
            (None, Some(spare)) => (newest + 1, spare),
            (None, None) => {
                next_slot += 1;
                let bytes = config.segment_bytes;
                (newest + 1, segment::create(&cx, &dir, next_slot - 1, bytes).await?)
            }
        };
        let mut live: VecDeque<_> =
            segments.into_iter().map(|found| Segment::new(found.header, found.file)).collect();
        live.push_back(Segment::new(new_header(&cx, &config, sequence, end), file));
        let start = Start { cx, config, dir, live, idle, next_slot };
        Ok(Log { handle: Handle::start(start).into() })
    }
}

impl Window {
    const fn new() -> Self {
        Self {
            buf: None,
            slot: 0,
            start: 0,
            len: 0,
            bytes: WINDOW_BYTES,
            ahead: None,
            has_looked: false,
            spare: None,
        }
    }

    fn slice(&self, offset: u32, len: u32) -> Option<&[u8]> {
        let from = offset.checked_sub(self.start)?;
        let end = from.checked_add(len).filter(|&end| end <= self.len)?;
        self.buf.as_ref()?.get(from as usize..end as usize)
    }

    /// `len` bytes of the file at `offset`, which it has.
    async fn bytes(
        &mut self,
        cx: &ShardCx,
        file: &SegmentFile,
        offset: u32,
        len: u32,
    ) -> Result<&[u8], Error> {
        if self.slot != file.slot || self.slice(offset, len).is_none() {
            let start = start_of(offset);
            let need = (offset - start + len) as usize;
            self.len = 0;
            let (buf, read) = match self.take_ahead(file.slot, start, need).await {
                Some(read) => read,
                None => {
                    let buf = self.take_buf();
                    segment::read_at_least(cx, file, buf, need, u64::from(start)).await?
                }
            };
            self.spare = self.buf.replace(buf).or(self.spare.take());
            (self.slot, self.start, self.has_looked) = (file.slot, start, false);
            self.len = u32::try_from(read).unwrap_or(u32::MAX);
        }
        Ok(self.slice(offset, len).unwrap_or_default())
    }

    /// Begins to read the window that has what is at `offset`.
    fn begin_ahead(&mut self, cx: &ShardCx, file: &SegmentFile, offset: u32) {
        let (buf, start) = (self.take_buf(), start_of(offset));
        let (len, offset) = (buf.len(), u64::from(start));
        let read = cx.perform(Op::Read { fd: file.fd, buf, len, offset, uncached: false });
        self.ahead = Some(Ahead { slot: file.slot, start, read });
    }

    /// What was read ahead, if it is what is wanted; a read that failed or came short is done again.
    async fn take_ahead(
        &mut self,
        slot: u64,
        start: u32,
        need: usize,
    ) -> Option<(DirectBuf, usize)> {
        let ahead = self.ahead.take().filter(|ahead| (ahead.slot, ahead.start) == (slot, start))?;
        let completion = ahead.read.await;
        let Payload::Direct(buf) = completion.payload else { return None };
        match completion.result {
            Ok(read) if read as usize >= need => Some((buf, read as usize)),
            _ => {
                self.spare = Some(buf);
                None
            }
        }
    }

    fn take_buf(&mut self) -> DirectBuf {
        self.spare.take().unwrap_or_else(|| DirectBuf::zeroed(self.bytes))
    }
}

/// Where a window that has `offset` begins.
const fn start_of(offset: u32) -> u32 {
    offset - offset % BLOCK_BYTES as u32
}
