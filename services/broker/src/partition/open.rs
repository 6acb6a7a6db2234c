//! How a partition is found again: from its files, with as little reading as they allow.
//!
//! Sealed segments are taken by their sidecars when those fit, and read otherwise. Of the active segment
//! everything behind the last index entry that was written is read and checked. The newest snapshot of producers is
//! written after a sync, and its name says up to which offset everything was durable then: a bad batch before is damage,
//! and `verify` says what becomes of it. The first bad batch behind is a write that nobody was told about: the log ends
//! there, since a sync covers the segments before, and the segments that follow go.
//! Invariants: nothing that was acknowledged is cut; files of others in the directory are left alone.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::driver::OpenOptions;
use engine::error::Error;
use engine::exec::sync::yield_now;
use engine::fs::{Caching, Dir, File};
use engine::shard::ShardCx;
use logic::log::producers::Stored;
use logic::log::{OffsetIndex, Producers, TimeIndex};
use wire::kafka::batch::{Batch, FORMAT_AT, HEADER_BYTES, PREFIX_BYTES, batch_len};

use super::ranges::Ranges;
use super::segment::{INDEX, LOG, SNAPSHOT, Segment, TIME_INDEX, file_name, offset_of};
use super::verify::is_epoch;
use super::{PRODUCERS_MAX, Partition, Place, unix_ms};
use crate::topic_config::TopicConfig;

/// Read at once while a segment is checked.
const CHUNK_BYTES: usize = 1 << 20;
/// Far above any batch; a length beyond is damage.
const BATCH_MAX_BYTES: usize = 256 << 20;
/// Longest sidecar that is read.
const SIDECAR_MAX_BYTES: u64 = 256 << 20;

/// The whole of a small file; `None` when there is none.
pub(crate) async fn read_file(cx: &ShardCx, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(cx, path, &OpenOptions::default()) {
        Ok(file) => file,
        Err(error) if error.errno().is_some_and(|errno| errno.0 == 2) => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?.min(SIDECAR_MAX_BYTES);
    if len == 0 {
        return Ok(Some(Vec::new()));
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let (buf, read) = file.read_at(DirectBuf::zeroed(len), len, 0, Caching::Keep).await?;
    Ok(buf.get(..read).map(<[u8]>::to_vec))
}

/// Removes a partition's directory and what is in it; what is gone already is fine.
pub(crate) async fn remove_dir(cx: &ShardCx, path: &Path) -> Result<(), Error> {
    let Ok(names) = cx.driver().list_dir(path) else { return Ok(()) };
    for name in names {
        cx.driver().unlink(&path.join(name))?;
        // A file system takes its time to free a file, and there may be many.
        yield_now().await;
    }
    cx.driver().remove_dir(path)?;
    if let Some(parent) = path.parent() {
        Dir::existing(cx, parent)?.sync().await?;
    }
    Ok(())
}

/// Batches of a segment from a position on, checked.
pub(crate) struct Check {
    file: Rc<File>,
    pub(super) position: u64,
    pub(super) end: u64,
    /// Offsets may be left out, as compaction does.
    pub(super) has_gaps: bool,
    chunk: Vec<u8>,
    chunk_at: u64,
    /// What is read is for the page cache too, and no more than up to here unless a batch ends behind.
    ahead_to: Option<u64>,
    /// Some of that was read from the disk.
    pub(super) was_cold: bool,
}

/// What a header says of its batch, true or not.
#[derive(Clone, Copy)]
pub(super) struct Stated {
    /// Its first offset.
    pub(super) first: i64,
    /// Its bytes behind this field.
    pub(super) length: u32,
    /// Its last offset less the first.
    pub(super) last_delta: i64,
}

impl Check {
    pub(crate) const fn new(file: Rc<File>, from: u64, end: u64) -> Self {
        Self {
            file,
            position: from,
            end,
            has_gaps: true,
            chunk: Vec::new(),
            chunk_at: from,
            ahead_to: None,
            was_cold: false,
        }
    }

    /// The same of a stretch up to `to`, of which the page cache keeps what is read.
    pub(super) fn stretch(file: Rc<File>, from: u64, to: u64, end: u64, has_gaps: bool) -> Self {
        Self { has_gaps, ahead_to: Some(to), ..Self::new(file, from, end) }
    }

    /// What is at the position as if it were a header; `None` where the segment ends before one would.
    pub(super) async fn header(&mut self) -> Result<Option<Stated>, Error> {
        let bytes = self.window().await?;
        let Some(mut header) = bytes.first_chunk::<HEADER_BYTES>().copied() else {
            return Ok(None);
        };
        // That may have changed like any other bits.
        header[FORMAT_AT] = 2;
        Ok(Batch::header(&header).ok().map(|batch| Stated {
            first: batch.base_offset(),
            length: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            last_delta: i64::from(batch.last_offset_delta().cast_unsigned()),
        }))
    }

    /// Bytes from the position on: as many as are read, and a header's at least unless the segment ends.
    pub(super) async fn window(&mut self) -> Result<&[u8], Error> {
        let there = self.position.checked_sub(self.chunk_at);
        let there = there.and_then(|at| self.chunk.get(usize::try_from(at).ok()?..));
        if there.is_none_or(|bytes| bytes.len() < HEADER_BYTES) {
            // Who looks for what follows damage may have far to look, also behind a stretch.
            self.read(CHUNK_BYTES).await?;
        }
        let at = usize::try_from(self.position - self.chunk_at).unwrap_or(usize::MAX);
        Ok(self.chunk.get(at..).unwrap_or_default())
    }

    /// Where the batches end that were found whole, if that is not where they should.
    pub(crate) fn damage(&self) -> Option<u64> {
        (self.position < self.end).then_some(self.position)
    }

    /// Makes the batch at the position lie in the chunk; whether it is whole.
    async fn load(&mut self) -> Result<bool, Error> {
        let there = |check: &Self| {
            // The position may have been set back.
            let at = check.position.checked_sub(check.chunk_at).unwrap_or(u64::MAX);
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            check.chunk.get(at..).map_or(0, <[u8]>::len)
        };
        if there(self) < PREFIX_BYTES {
            self.read(PREFIX_BYTES).await?;
        }
        let at = usize::try_from(self.position - self.chunk_at).unwrap_or(usize::MAX);
        let Some(len) = self.chunk.get(at..).and_then(batch_len) else { return Ok(false) };
        if len > BATCH_MAX_BYTES || self.position + len as u64 > self.end {
            return Ok(false);
        }
        if there(self) < len {
            self.read(len).await?;
        }
        Ok(there(self) >= len)
    }

    /// Reads from the position on: at least `len` bytes, unless the segment ends before.
    async fn read(&mut self, len: usize) -> Result<(), Error> {
        let most = self.ahead_to.unwrap_or(u64::MAX).saturating_sub(self.position);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let len = len.max(most).min(left);
        self.chunk_at = self.position;
        self.chunk.clear();
        if len > 0 {
            let buf = DirectBuf::zeroed(len);
            let caching = if self.ahead_to.is_some() { Caching::Keep } else { Caching::Drop };
            if caching == Caching::Keep {
                self.was_cold |= self.file.read_ahead(self.position, len as u64).await?;
                // What is cached already is read without a wait.
                yield_now().await;
            }
            let (buf, read) = self.file.read_at(buf, len, self.position, caching).await?;
            self.chunk.extend_from_slice(buf.get(..read).unwrap_or_default());
        }
        Ok(())
    }

    /// The batch at the position, when it is whole and undamaged and its offsets go on from `expected`.
    pub(crate) async fn next(&mut self, expected: i64) -> Result<Option<Batch<'_>>, Error> {
        if self.position >= self.end || !self.load().await? {
            return Ok(None);
        }
        let at = usize::try_from(self.position - self.chunk_at).unwrap_or(usize::MAX);
        let bytes = self.chunk.get(at..).unwrap_or_default();
        let Ok((batch, _)) = Batch::split(bytes) else { return Ok(None) };
        let offset = batch.base_offset();
        // Neither offset nor epoch is covered by the checksum.
        let follows = offset == expected || (self.has_gaps && offset > expected);
        if !follows || !is_epoch(batch.leader_epoch()) || batch.check_crc().is_err() {
            return Ok(None);
        }
        self.position += batch.len() as u64;
        Ok(Some(batch))
    }
}

impl Partition {
    /// Makes or finds the partition in `dir`.
    ///
    /// # Errors
    /// Its files cannot be read or made.
    pub(crate) async fn open(
        cx: &ShardCx,
        dir: PathBuf,
        topic: Rc<str>,
        index: i32,
        config: Rc<TopicConfig>,
    ) -> Result<Self, Error> {
        let handle = Dir::open(cx, &dir).await?;
        crate::compact::swap::recover(cx, &handle).await?;
        let names = handle.list()?;
        let bases: Vec<i64> = names.iter().filter_map(|name| offset_of(name, LOG)).collect();
        let mut partition = Self {
            topic,
            index,
            config,
            dir,
            segments: VecDeque::new(),
            start: bases.first().copied().unwrap_or(0),
            end: 0,
            high: Place::default(),
            durable: 0,
            producers: Producers::new(PRODUCERS_MAX),
            failed: None,
            unsynced: Vec::new(),
            dir_changed: false,
            syncing: false,
            company: 0,
            listed: false,
            commits: VecDeque::new(),
            watches: Vec::new(),
            since_checkpoint: 0,
            snapshotting: false,
            snapshots: Vec::new(),
            tidying: Rc::default(),
            hints: super::read::Hints::default(),
            synced_to: i64::MIN,
            damaged: 0,
            verifying: Rc::default(),
            compaction: super::compact::Compaction::default(),
        };
        partition.load_start(cx).await?;
        partition.load_noted(cx).await?;
        let replayed_from = partition.load_producers(cx, &names).await?;
        for (at, base) in bases.iter().enumerate() {
            let next = bases.get(at + 1).copied();
            let goes_on = partition.load_segment(cx, *base, next, replayed_from).await?;
            if !goes_on {
                partition
                    .remove_segments(cx, &handle, bases.get(at + 1..).unwrap_or_default())
                    .await?;
                break;
            }
        }
        if replayed_from > partition.end {
            partition.replay_producers(cx).await?;
        }
        if partition.segments.is_empty() {
            // Each file that is made may wait for the file system's journal: one in a poll.
            yield_now().await;
            partition.segments.push_back(Segment::create(cx, &partition.dir, partition.start)?);
            partition.end = partition.start;
            handle.sync().await?;
        }
        partition.load_first_timestamp(cx).await;
        partition.start = partition.start.min(partition.end);
        partition.high = partition.end_place();
        partition.durable = partition.end;
        Ok(partition)
    }

    /// The newest snapshot of producers that is whole; from which offset on batches are replayed.
    async fn load_producers(&mut self, cx: &ShardCx, names: &[String]) -> Result<i64, Error> {
        let mut offsets: Vec<i64> =
            names.iter().filter_map(|name| offset_of(name, SNAPSHOT)).collect();
        offsets.sort_unstable();
        self.synced_to = offsets.last().copied().unwrap_or(i64::MIN);
        self.snapshots = offsets.iter().map(|offset| file_name(*offset, SNAPSHOT)).collect();
        for offset in offsets.into_iter().rev() {
            let path = self.dir.join(file_name(offset, SNAPSHOT));
            if let Some(bytes) = read_file(cx, &path).await?
                && let Some(producers) = Producers::decode(&bytes, PRODUCERS_MAX)
            {
                self.producers = producers;
                return Ok(offset);
            }
        }
        Ok(i64::MIN)
    }

    /// Finds out about producers from the batches alone: the snapshot speaks of records that are not there.
    async fn replay_producers(&mut self, cx: &ShardCx) -> Result<(), Error> {
        let pairs: [(&str, &dyn std::fmt::Display); 1] = [("directory", &self.dir.display())];
        cx.log().warn("broker", cx.now(), "snapshot of producers does not fit the log", &pairs);
        self.producers = Producers::new(PRODUCERS_MAX);
        let mut segments = std::mem::take(&mut self.segments);
        let nexts: Vec<i64> = segments.iter().skip(1).map(|segment| segment.base).collect();
        let mut nexts = nexts.into_iter();
        for segment in &mut segments {
            let base = segment.base;
            segment.damage.clear();
            self.check_segment(cx, segment, (0, base), nexts.next(), i64::MIN).await?;
        }
        self.segments = segments;
        Ok(())
    }

    async fn load_segment(
        &mut self,
        cx: &ShardCx,
        base: i64,
        next: Option<i64>,
        replayed_from: i64,
    ) -> Result<bool, Error> {
        let path = self.dir.join(file_name(base, LOG));
        let mut segment = Segment::known(path.clone(), base, 0);
        let file = segment.file(cx, next.is_none())?;
        segment.len = file.len()?;
        segment.created_ms = unix_ms(cx.now());
        let indexed = self.load_indexes(cx, &mut segment).await?;
        let compacted = next.is_some_and(|next| next <= self.compaction.noted.gaps_to);
        // Producers have to be replayed from their snapshot on, and the index may speak of more than the snapshot: it is
        // written first.
        let replays = next.is_none_or(|next| next > replayed_from);
        if next.is_some() && indexed && !replays {
            segment.verified = Ranges::default();
            segment.has_sidecars = true;
            segment.let_go();
            self.end = next.unwrap_or(base);
            self.segments.push_back(segment);
            return Ok(true);
        }
        let known = replayed_from.saturating_sub(base).max(0);
        let entry = segment.offsets.find(u32::try_from(known).unwrap_or(u32::MAX));
        let from = (u64::from(entry.position), base + i64::from(entry.offset));
        let checked = self.check_segment(cx, &mut segment, from, next, replayed_from).await?;
        let (good, end) = match checked {
            // The index led to a place where no batch begins: it is of another life of this file.
            (good, _) if good == from.0 && from.0 > 0 => {
                segment.offsets = OffsetIndex::default();
                segment.times = TimeIndex::default();
                self.check_segment(cx, &mut segment, (0, base), next, replayed_from).await?
            }
            checked => {
                // What was not read is checked before it is served.
                segment.verified = Ranges::from(from.0);
                checked
            }
        };
        self.end = end;
        // Compaction leaves gaps, but only in segments that were synced.
        let was_synced = compacted || next.is_some_and(|next| next <= self.synced_to);
        let is_last = next.is_none_or(|next| !was_synced && end < next);
        if good < segment.len {
            self.cut(cx, &mut segment, good)?;
        }
        if is_last && good > from.0 {
            // Of a process that was killed: what is found here is served from now on, so it has to stay.
            segment.file(cx, true)?.sync().await?;
        }
        if let Some(next) = next.filter(|_| !is_last) {
            segment.let_go();
            segment.has_sidecars = was_synced && indexed;
            self.end = next;
        }
        self.segments.push_back(segment);
        Ok(!is_last)
    }

    /// Removes segments that follow an unfinished write.
    async fn remove_segments(&self, cx: &ShardCx, dir: &Dir, bases: &[i64]) -> Result<(), Error> {
        for base in bases {
            let name = file_name(*base, LOG);
            let pairs: [(&str, &dyn std::fmt::Display); 2] =
                [("directory", &self.dir.display()), ("file", &name)];
            cx.log().warn("broker", cx.now(), "segment behind an unfinished write removed", &pairs);
            dir.remove(&name)?;
            for suffix in [INDEX, TIME_INDEX] {
                // Sidecars need not be there.
                let _ = dir.remove(&file_name(*base, suffix));
            }
        }
        if bases.is_empty() { Ok(()) } else { dir.sync().await }
    }

    /// Takes the indexes from their files; whether they are there and fit.
    async fn load_indexes(&self, cx: &ShardCx, segment: &mut Segment) -> Result<bool, Error> {
        let offsets = read_file(cx, &segment.path().with_extension(INDEX)).await?;
        let times = read_file(cx, &segment.path().with_extension(TIME_INDEX)).await?;
        if let (Some(offsets), Some(times)) = (offsets, times)
            && let Some(index) = OffsetIndex::decode(&offsets, segment.len)
            && let Some(times) = TimeIndex::decode(&times)
        {
            segment.offsets = index;
            segment.max_timestamp_ms = times.last_timestamp().unwrap_or(-1);
            segment.times = times;
            return Ok(true);
        }
        Ok(false)
    }

    /// Checks batches from a position on and notes them; where the good ones end, and at which offset.
    async fn check_segment(
        &mut self,
        cx: &ShardCx,
        segment: &mut Segment,
        (from, first): (u64, i64),
        next: Option<i64>,
        replayed_from: i64,
    ) -> Result<(u64, i64), Error> {
        let file = segment.file(cx, false)?;
        let end = segment.len;
        let mut check = Check::new(file, from, end);
        check.has_gaps = next.is_some_and(|next| next <= self.compaction.noted.gaps_to);
        let mut expected = first;
        let now_ms = unix_ms(cx.now());
        loop {
            let position = check.position;
            let Some(batch) = check.next(expected).await? else {
                let was_synced = expected < self.synced_to && position < end;
                if !was_synced || (position == from && from > 0) {
                    return Ok((position, expected));
                }
                // Of the last segment at least everything up to there was synced.
                let limit = next.unwrap_or_else(|| self.synced_to.max(expected + 1));
                let found = if next.is_some() { limit } else { i64::MAX };
                let mut damage = check.skip_damage(expected, found).await?;
                damage.next = if damage.next == i64::MAX { limit } else { damage.next };
                expected = damage.next;
                self.note_damage(cx, segment, damage);
                continue;
            };
            // Nobody looks for the time of records that compaction took away.
            let max_timestamp_ms = if batch.is_empty() { -1 } else { batch.max_timestamp() };
            let known =
                segment.offsets.last().is_some_and(|last| u64::from(last.position) >= position);
            if !known || position == 0 {
                let interval = self.config.index_interval_bytes;
                segment.note(&batch, batch.base_offset(), max_timestamp_ms, position, interval);
            } else {
                segment.max_timestamp_ms = segment.max_timestamp_ms.max(max_timestamp_ms);
            }
            expected = batch.last_offset() + 1;
            if batch.base_offset() >= replayed_from
                && batch.producer_id() >= 0
                && batch.base_sequence() >= 0
            {
                let stored = Stored {
                    base_sequence: batch.base_sequence(),
                    last_sequence: batch.last_sequence(),
                    base_offset: batch.base_offset(),
                    last_offset: batch.last_offset(),
                    timestamp_ms: batch.max_timestamp(),
                };
                self.producers.append(batch.producer_id(), batch.producer_epoch(), stored, now_ms);
            }
        }
    }

    fn cut(&self, cx: &ShardCx, segment: &mut Segment, good: u64) -> Result<(), Error> {
        let lost = segment.len - good;
        cx.log().warn(
            "broker",
            cx.now(),
            "unfinished write cut",
            &[("file", &segment.path().display()), ("position", &good), ("bytes", &lost)],
        );
        segment.file(cx, true)?.truncate(good)?;
        segment.len = good;
        segment.offsets.truncate(u32::try_from(good).unwrap_or(u32::MAX));
        Ok(())
    }
}
