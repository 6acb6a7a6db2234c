//! From offsets and times to ranges of files.
//!
//! The index leads near the batch wanted; from there headers are read one after the other, out of the page cache
//! only: where they are not in it, the caller has them read and asks again, so that the shard does not
//! wait. A consumer that reads on is found in the hints and reads no headers. Only headers are read here;
//! records never are.

use std::rc::Rc;

use engine::driver::Errno;
use engine::fs::File;
use engine::shard::ShardCx;
use wire::kafka::batch::{Batch, HEADER_BYTES};

use super::verify::{Damage, Unverified};
use super::{Partition, Segment};
use crate::code::Code;

/// Read at once when headers are looked for.
const BLOCK_BYTES: usize = 8192;
/// Headers looked at in one go; far more than lie between two index entries.
const SCAN_MAX: usize = 10_000;

/// A range of a file that holds whole batches, but for the last one perhaps.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) file: Rc<File>,
    pub(crate) position: u64,
    pub(crate) len: u64,
    /// There is more, which has to be checked before it is given.
    pub(crate) is_cut: bool,
}

/// A range that must be read into the page cache first.
#[derive(Debug)]
pub(crate) struct Cold {
    pub(crate) file: Rc<File>,
    pub(crate) position: u64,
}

/// Why there is no range.
#[derive(Debug)]
pub(crate) enum Missing {
    /// Read this, then ask again.
    Cold(Cold),
    /// Have this checked, then ask again.
    Unverified(Unverified),
    /// The peer is told.
    Refused(Code),
}

/// Recent ends of reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hints {
    places: [Option<super::Place>; 8],
    next: usize,
}

impl Hints {
    fn find(&self, offset: i64) -> Option<super::Place> {
        self.places.iter().flatten().find(|place| place.offset == offset).copied()
    }

    fn add(&mut self, place: super::Place) {
        if self.find(place.offset).is_none() {
            self.places[self.next % self.places.len()] = Some(place);
            self.next += 1;
        }
    }
}

/// Headers of a segment, one after the other.
struct Scan {
    file: Rc<File>,
    position: u64,
    end: u64,
    damage: Vec<Damage>,
    block: Vec<u8>,
    block_at: u64,
}

impl Scan {
    const fn new(file: Rc<File>, position: u64, end: u64, damage: Vec<Damage>) -> Self {
        Self { file, position, end, damage, block: Vec::new(), block_at: 0 }
    }

    /// The next header and its position.
    fn next(&mut self, cx: &ShardCx) -> Result<Option<(u64, [u8; HEADER_BYTES])>, Missing> {
        for damage in &self.damage {
            if (damage.from..damage.to).contains(&self.position) {
                self.position = damage.to;
            }
        }
        if self.position + HEADER_BYTES as u64 > self.end {
            return Ok(None);
        }
        let position = self.position;
        let header = match self.in_block() {
            Some(header) => header,
            None => {
                self.read_block(cx)?;
                self.in_block().ok_or(Missing::Refused(Code::StorageError))?
            }
        };
        let Ok(batch) = Batch::header(&header) else {
            return Err(Missing::Refused(Code::CorruptMessage));
        };
        self.position += batch.len() as u64;
        Ok(Some((position, header)))
    }

    fn in_block(&self) -> Option<[u8; HEADER_BYTES]> {
        let at = usize::try_from(self.position.checked_sub(self.block_at)?).ok()?;
        self.block.get(at..)?.first_chunk().copied()
    }

    fn read_block(&mut self, cx: &ShardCx) -> Result<(), Missing> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let len = left.min(BLOCK_BYTES);
        self.block.resize(len, 0);
        self.block_at = self.position;
        let mut done = 0;
        while done < HEADER_BYTES {
            let offset = self.position + done as u64;
            match cx.driver().read_now(self.file.fd(), &mut self.block[done..], offset) {
                Ok(0) => return Err(Missing::Refused(Code::StorageError)),
                Ok(read) => done += read,
                Err(Errno(4)) => {}
                Err(Errno(11 | 95)) => {
                    let file = Rc::clone(&self.file);
                    return Err(Missing::Cold(Cold { file, position: self.position }));
                }
                Err(_) => return Err(Missing::Refused(Code::StorageError)),
            }
        }
        self.block.truncate(done);
        Ok(())
    }
}

impl Partition {
    /// The segment that an offset lies in.
    fn segment_of(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    /// How much of a segment consumers may read.
    fn visible(&self, segment: &Segment) -> u64 {
        match segment.base.cmp(&self.high.base) {
            std::cmp::Ordering::Less => segment.len,
            std::cmp::Ordering::Equal => self.high.position.min(segment.len),
            std::cmp::Ordering::Greater => 0,
        }
    }

    /// Where the batch with `offset` is, with as many following as `max_bytes` allow; `None` when there
    /// is nothing yet. The first batch is given whole however large when `whole`.
    pub(crate) fn locate(
        &mut self,
        cx: &ShardCx,
        offset: i64,
        max_bytes: u64,
        whole: bool,
    ) -> Result<Option<Located>, Missing> {
        if self.failed.is_some() {
            return Err(Missing::Refused(Code::StorageError));
        }
        if offset < self.start || offset > self.end {
            return Err(Missing::Refused(Code::OffsetOutOfRange));
        }
        if offset >= self.high.offset {
            return Ok(None);
        }
        let mut at = self.segment_of(offset);
        // Compaction may leave nothing of a segment from an offset on.
        loop {
            let Some(segment) = self.segments.get(at) else { return Ok(None) };
            if segment.is_damaged(offset) {
                return Err(Missing::Refused(Code::CorruptMessage));
            }
            let visible = self.visible(segment);
            match self.position_of(cx, at, offset, visible)? {
                Some(position) => {
                    return self.range(cx, at, position, visible, max_bytes, whole);
                }
                None => at += 1,
            }
        }
    }

    fn position_of(
        &mut self,
        cx: &ShardCx,
        at: usize,
        offset: i64,
        visible: u64,
    ) -> Result<Option<u64>, Missing> {
        let hint = self.hints.find(offset);
        let Some(segment) = self.segments.get(at) else { return Ok(None) };
        if let Some(place) = hint
            && place.base == segment.base
            && place.position < visible
        {
            self.verified_to(segment, place.position)?;
            return Ok(Some(place.position));
        }
        let relative = u32::try_from(offset.saturating_sub(segment.base)).unwrap_or(0);
        let from = u64::from(segment.offsets.find(relative).position);
        if from >= visible {
            return Ok(None);
        }
        let found = |batch: &Batch<'_>| batch.last_offset() >= offset;
        Ok(self.scan(cx, at, (from, visible), SCAN_MAX, found)?.map(|(_, position, _)| position))
    }

    /// Up to where a segment is checked from a position on.
    fn verified_to(&self, segment: &Segment, position: u64) -> Result<u64, Missing> {
        let unverified = Unverified { base: segment.base, position };
        let range = self.verified_range(segment, position);
        range.map(|range| range.to).ok_or(Missing::Unverified(unverified))
    }

    /// The first batch between two positions of a segment that is the one wanted: the file, and its position and length.
    fn scan(
        &mut self,
        cx: &ShardCx,
        at: usize,
        (from, visible): (u64, u64),
        most: usize,
        found: impl Fn(&Batch<'_>) -> bool,
    ) -> Result<Option<(Rc<File>, u64, u64)>, Missing> {
        let Some(segment) = self.segments.get(at) else { return Ok(None) };
        let verified = self.verified_to(segment, from)?;
        let Some(segment) = self.segments.get_mut(at) else { return Ok(None) };
        let mut scan = segment_scan(cx, segment, from, visible.min(verified))?;
        for _ in 0..most {
            let Some((position, header)) = scan.next(cx)? else {
                if verified >= visible {
                    return Ok(None);
                }
                // What comes next is not checked.
                let (base, position) = (segment.base, verified);
                return Err(Missing::Unverified(Unverified { base, position }));
            };
            if let Ok(batch) = Batch::header(&header)
                && found(&batch)
            {
                return Ok(Some((scan.file, position, batch.len() as u64)));
            }
        }
        Err(Missing::Refused(Code::StorageError))
    }

    fn range(
        &mut self,
        cx: &ShardCx,
        at: usize,
        position: u64,
        visible: u64,
        max_bytes: u64,
        whole: bool,
    ) -> Result<Option<Located>, Missing> {
        let (high, hints_end) = (self.high, self.segments.get(at + 1).map(|next| next.base));
        let Some(segment) = self.segments.get(at) else { return Ok(None) };
        let verified = self.verified_range(segment, position);
        let verified_to = verified.map_or(position, |range| range.to);
        let Some(segment) = self.segments.get_mut(at) else { return Ok(None) };
        let damage = segment.next_damage(position).map_or(visible, |damage| damage.from);
        let available = visible.min(damage).min(verified_to).saturating_sub(position);
        let mut len = available.min(max_bytes);
        if len < available {
            let limit = u32::try_from(position + len).unwrap_or(u32::MAX);
            let aligned = u64::from(segment.offsets.find_position(limit).position);
            if aligned > position {
                len = aligned - position;
            } else if whole {
                let mut scan = segment_scan(cx, segment, position, visible)?;
                scan.next(cx)?;
                len = len.max(scan.position - position).min(available);
            }
        }
        if len == 0 {
            return Ok(None);
        }
        let end = position + len;
        let next_offset = match hints_end {
            _ if end == high.position && segment.base == high.base => Some(high.offset),
            Some(next) if end == segment.len => Some(next),
            _ if end == verified_to => verified.map(|range| range.next),
            _ => {
                let entry = segment.offsets.find_position(u32::try_from(end).unwrap_or(u32::MAX));
                (u64::from(entry.position) == end).then(|| segment.base + i64::from(entry.offset))
            }
        };
        let place =
            next_offset.map(|offset| super::Place { offset, base: segment.base, position: end });
        let file = segment.file(cx, false).map_err(|_| Missing::Refused(Code::StorageError))?;
        if let Some(place) = place {
            self.hints.add(place);
        }
        let is_cut = end == verified_to && end < visible;
        Ok(Some(Located { file, position, len, is_cut }))
    }

    /// The first batch with a timestamp at or after `timestamp_ms`: its position, to look into.
    pub(crate) fn locate_time(
        &mut self,
        cx: &ShardCx,
        timestamp_ms: i64,
    ) -> Result<Option<Located>, Missing> {
        for at in 0..self.segments.len() {
            let Some(segment) = self.segments.get(at) else { break };
            if segment.max_timestamp_ms < timestamp_ms {
                continue;
            }
            let visible = self.visible(segment);
            let from = segment.offsets.find(segment.times.find(timestamp_ms)).position;
            if u64::from(from) >= visible {
                continue;
            }
            let start = self.start;
            let found = |batch: &Batch<'_>| {
                batch.max_timestamp() >= timestamp_ms
                    && batch.last_offset() >= start
                    && !batch.is_empty()
            };
            let places = (u64::from(from), visible);
            if let Some((file, position, len)) = self.scan(cx, at, places, usize::MAX, found)? {
                return Ok(Some(Located { file, position, len, is_cut: false }));
            }
        }
        Ok(None)
    }

    /// The largest timestamp, and the segment's position to find its batch from.
    pub(crate) fn max_timestamp(&self) -> i64 {
        self.segments.iter().map(|segment| segment.max_timestamp_ms).max().unwrap_or(-1)
    }
}

fn segment_scan(cx: &ShardCx, segment: &mut Segment, from: u64, end: u64) -> Result<Scan, Missing> {
    let file = segment.file(cx, false).map_err(|_| Missing::Refused(Code::StorageError))?;
    Ok(Scan::new(file, from, end, segment.damage.clone()))
}
