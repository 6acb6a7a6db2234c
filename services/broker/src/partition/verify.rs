//! Damage in what was synced: found, told of, and left out of what is served.
//!
//! A batch that is bad although it was synced is no unfinished write: the disk has changed it. It is never cut away, and
//! neither is what lies around it; its range is offline, and fetches of its offsets are told so. What a start takes by its sidecars
//! is checked before it is first served, a stretch at a time just ahead of who reads it, unless the topic says
//! `verify.on.read=false`: the check brings a stretch into the page cache, from where it is sent. What bits
//! flip later is seen by consumers, who check each batch. Invariants: nothing is served that was not checked; a stretch
//! begins where a batch is known to begin; damaged ranges are in order and do not overlap; at most [`DAMAGE_MAX`] per
//! segment, the last of which takes in all that follows. Next: `realign`, `ranges`, `open`, `read`.

use std::rc::Rc;

use engine::error::Error;
use engine::exec::sync::Turns;
use engine::fs::File;
use engine::shard::ShardCx;

use super::open::Check;
use super::ranges::Range;
use super::{LEADER_EPOCH, Partition, Segment};

#[cfg(test)]
mod tests;

/// Damaged ranges of a segment that are told from each other.
pub(super) const DAMAGE_MAX: usize = 64;
/// Checked at once: a moment's work, and enough for a few answers.
pub(super) const STRETCH_BYTES: u64 = 4 << 20;

/// A range that is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Position of its first byte.
    pub(crate) from: u64,
    /// And of the first one after it.
    pub(crate) to: u64,
    /// The first offset that is gone.
    pub(crate) first: i64,
    /// The first one that is not.
    pub(crate) next: i64,
}

/// A place that has to be checked before it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unverified {
    /// First offset of the segment.
    pub(crate) base: i64,
    /// Position in it.
    pub(crate) position: u64,
}

/// A position where a batch begins, and the first offset it may have.
type Begin = (u64, i64);

/// A stretch of a segment to be checked before it is served.
#[derive(Debug)]
pub(crate) struct Verification {
    turns: Rc<Turns>,
    file: Rc<File>,
    /// By the index, or by what was checked before it.
    begin: Begin,
    /// The last place before it that needs no index.
    known: Begin,
    /// Checked at least up to here; the next batch's end, and what was checked before, may be further.
    until: u64,
    /// The segment's end.
    end: u64,
    /// No offset of the segment is as large.
    next: i64,
    has_gaps: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Verified {
    range: Range,
    damage: Vec<Damage>,
    pub(crate) file: Rc<File>,
    /// Some of it had to be read from the disk.
    pub(crate) was_cold: bool,
}

impl Verified {
    /// Where it begins, and how long it is.
    pub(crate) const fn extent(&self) -> (u64, u64) {
        (self.range.from, self.range.to - self.range.from)
    }
}

impl Verification {
    /// Waits for its turn: who comes second finds the work done, and asks for it anew.
    pub(crate) fn turns(&self) -> Rc<Turns> {
        Rc::clone(&self.turns)
    }

    /// Reads the stretch; what is damaged.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn run(self) -> Result<Verified, Error> {
        let mut begin = self.begin;
        let mut check =
            Check::stretch(Rc::clone(&self.file), begin.0, self.until, self.end, self.has_gaps);
        let (mut expected, mut damage) = (begin.1, Vec::new());
        // Nobody vouches for the index: only what comes before tells whether a batch is damaged there.
        let mut by_index = begin != self.known;
        while check.position < self.until {
            match check.next(expected).await? {
                Some(batch) => expected = batch.last_offset() + 1,
                None if by_index => {
                    begin = self.known;
                    (check.position, expected) = begin;
                }
                None => {
                    let one = check.skip_damage(expected, self.next).await?;
                    expected = one.next;
                    add(&mut damage, one);
                }
            }
            by_index = false;
        }
        let range = Range { from: begin.0, to: check.position, next: expected };
        Ok(Verified { range, damage, was_cold: check.was_cold, file: self.file })
    }
}

/// Adds a damaged range; whether it was not known.
fn add(damage: &mut Vec<Damage>, one: Damage) -> bool {
    let first = damage.partition_point(|old| old.to < one.from);
    let after = damage.partition_point(|old| old.from <= one.to);
    let mut one = one;
    for old in damage.get(first..after).unwrap_or_default() {
        if old.from <= one.from && one.to <= old.to {
            return false;
        }
        (one.from, one.first) = (one.from.min(old.from), one.first.min(old.first));
        (one.to, one.next) = (one.to.max(old.to), one.next.max(old.next));
    }
    damage.splice(first..after, [one]);
    if damage.len() > DAMAGE_MAX
        && let Some(last) = damage.pop()
        && let Some(all) = damage.last_mut()
    {
        (all.to, all.next) = (last.to, last.next);
    }
    true
}

/// Whether a batch may have this epoch.
pub(super) const fn is_epoch(epoch: i32) -> bool {
    epoch >= 0 && epoch <= LEADER_EPOCH
}

impl Segment {
    /// The damage that begins at or after a position, if any.
    pub(super) fn next_damage(&self, position: u64) -> Option<&Damage> {
        self.damage.iter().find(|damage| damage.to > position)
    }

    /// Whether an offset is in a range that is not served.
    pub(super) fn is_damaged(&self, offset: i64) -> bool {
        self.damage.iter().any(|damage| (damage.first..damage.next).contains(&offset))
    }
}

impl Partition {
    /// The checked range that a position is in, if that may be served.
    pub(super) fn verified_range(&self, segment: &Segment, position: u64) -> Option<Range> {
        if self.config.verify_on_read {
            segment.verified.containing(position)
        } else {
            Some(Range { from: 0, to: u64::MAX, next: i64::MAX })
        }
    }

    /// How to check a place and what follows it; `None` when that is done.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn verification(
        &mut self,
        cx: &ShardCx,
        place: Unverified,
    ) -> Result<Option<Verification>, Error> {
        let Unverified { base, position } = place;
        let Some(at) = self.segments.iter().position(|one| one.base == base) else {
            return Ok(None);
        };
        let next = self.segments.get(at + 1).map_or(self.end, |next| next.base);
        let has_gaps = next <= self.compaction.noted.gaps_to;
        let turns = Rc::clone(&self.verifying);
        let Some(segment) = self.segments.get_mut(at) else { return Ok(None) };
        if segment.verified.containing(position).is_some() || position >= segment.len {
            return Ok(None);
        }
        let known = segment.verified.before(position).map_or((0, base), |one| (one.to, one.next));
        let entry = segment.offsets.find_position(u32::try_from(position).unwrap_or(u32::MAX));
        let indexed = (u64::from(entry.position), base + i64::from(entry.offset));
        let begin = if indexed.0 > known.0 { indexed } else { known };
        let end = segment.len;
        let until = (begin.0 + STRETCH_BYTES).max(position + 1).min(end);
        // Nothing is checked twice.
        let until = segment.verified.begin_after(position).map_or(until, |begin| until.min(begin));
        let file = segment.file(cx, false)?;
        Ok(Some(Verification { turns, file, begin, known, until, end, next, has_gaps }))
    }

    /// A stretch was checked.
    pub(crate) fn verified(&mut self, cx: &ShardCx, base: i64, found: &Verified) {
        // One that took its place meanwhile was written by us, and needs no check.
        let is_checked = |one: &&mut Segment| {
            one.base == base && one.verified.containing(found.range.from).is_none()
        };
        let Some(segment) = self.segments.iter_mut().find(is_checked) else { return };
        let is_new = |one: &&Damage| add(&mut segment.damage, **one);
        let told: Vec<Damage> = found.damage.iter().filter(is_new).copied().collect();
        if segment.damage.len() == DAMAGE_MAX
            && let Some(Damage { from, to, next, .. }) = segment.damage.last().copied()
        {
            // What was given up with it needs no check either.
            segment.verified.add(Range { from, to, next });
        }
        segment.verified.add(found.range);
        for one in &told {
            self.tell_damage(cx, base, one);
        }
    }

    /// Notes damage in a segment that is read at a start.
    pub(super) fn note_damage(&mut self, cx: &ShardCx, segment: &mut Segment, one: Damage) {
        if add(&mut segment.damage, one) {
            self.tell_damage(cx, segment.base, &one);
        }
    }

    fn tell_damage(&mut self, cx: &ShardCx, base: i64, one: &Damage) {
        self.damaged += 1;
        cx.log().error(
            "broker",
            cx.now(),
            "damaged range offline",
            &[
                ("topic", &self.topic),
                ("partition", &self.index),
                ("segment", &base),
                ("position", &one.from),
                ("bytes", &(one.to - one.from)),
                ("offsets", &format!("{}..{}", one.first, one.next)),
            ],
        );
    }

    /// The first offset behind the damage that an offset lies in.
    pub(crate) fn after_damage(&self, offset: i64) -> Option<i64> {
        let damage = self.segments.iter().flat_map(|segment| &segment.damage);
        let mut found = damage.filter(|one| (one.first..one.next).contains(&offset));
        found.next().map(|one| one.next)
    }

    /// Damaged ranges that were found.
    pub(crate) const fn damaged(&self) -> u64 {
        self.damaged
    }
}
