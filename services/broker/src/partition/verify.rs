//! Damage in what was synced: found, told of, and left out of what is served.
//!
//! A batch that is bad although it was synced is no unfinished write: the disk has changed it. It is never cut away, and
//! neither is what lies around it; its range is offline, and fetches of its offsets are told so. Where the next batch
//! begins is known by the bad one's length, and found by looking for one otherwise. Segments that a start takes by their
//! sidecars are read whole before they are first served, unless the topic says `verify.on.read=false`. What bits
//! flip later is seen by consumers, who check each batch. Invariants: ranges are in order and do not overlap; at most
//! [`DAMAGE_MAX`] per segment, the last of which takes in all that follows. Next: `open`, `read`.

use std::rc::Rc;

use engine::error::Error;
use engine::exec::sync::Turns;
use engine::fs::File;
use engine::shard::ShardCx;
use wire::kafka::batch::{Batch, HEADER_BYTES};

use super::open::Check;
use super::{LEADER_EPOCH, Partition, Segment};

/// Damaged ranges of a segment that are told from each other.
pub(super) const DAMAGE_MAX: usize = 64;

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

/// A segment to be checked before it is served.
#[derive(Debug)]
pub(crate) struct Verification {
    turns: Rc<Turns>,
    file: Rc<File>,
    base: i64,
    len: u64,
    next: i64,
    has_gaps: bool,
}

impl Verification {
    /// Waits for its turn: who comes second finds the work done, and asks for it anew.
    pub(crate) fn turns(&self) -> Rc<Turns> {
        Rc::clone(&self.turns)
    }

    /// Reads the segment; what is damaged.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn run(self) -> Result<Vec<Damage>, Error> {
        let mut check = Check::whole(self.file, self.len, self.has_gaps);
        let (mut expected, mut damage) = (self.base, Vec::new());
        while check.position < self.len {
            match check.next(expected).await? {
                Some(batch) => expected = batch.last_offset() + 1,
                None => {
                    let one = check.skip_damage(expected, self.next).await?;
                    expected = one.next;
                    add(&mut damage, one);
                }
            }
        }
        Ok(damage)
    }
}

fn add(damage: &mut Vec<Damage>, one: Damage) {
    match damage.last_mut() {
        Some(last) if last.to == one.from => (last.to, last.next) = (one.to, one.next),
        _ => damage.push(one),
    }
    if damage.len() > DAMAGE_MAX
        && let Some(one) = damage.pop()
        && let Some(last) = damage.last_mut()
    {
        (last.to, last.next) = (one.to, one.next);
    }
}

impl Check {
    /// Goes on behind a bad batch, whose first offset is `expected`; no offset of this segment is `limit` or more.
    pub(super) async fn skip_damage(&mut self, expected: i64, limit: i64) -> Result<Damage, Error> {
        let from = self.position;
        let stated = self.stated_len().await?.and_then(|len| from.checked_add(len));
        let mut found = None;
        if let Some(to) = stated.filter(|to| *to < self.end) {
            found = self.begins_at(to, expected, limit).await?.map(|next| (to, next));
        } else if stated == Some(self.end) {
            found = Some((self.end, limit));
        }
        let mut at = from + 1;
        while found.is_none() && at + HEADER_BYTES as u64 <= self.end {
            let Some(candidate) = self.next_candidate(at, expected, limit).await? else { break };
            found = self.begins_at(candidate, expected, limit).await?.map(|next| (candidate, next));
            at = candidate + 1;
        }
        let (to, next) = found.unwrap_or((self.end, limit));
        self.position = to;
        Ok(Damage { from, to, first: expected, next })
    }

    /// The first offset of the batch at a position, if one is there that may follow.
    async fn begins_at(
        &mut self,
        at: u64,
        expected: i64,
        limit: i64,
    ) -> Result<Option<i64>, Error> {
        self.position = at;
        let had_gaps = std::mem::replace(&mut self.has_gaps, true);
        let found = self.next(expected + 1).await?.map(|batch| batch.base_offset());
        self.has_gaps = had_gaps;
        self.position = at;
        Ok(found.filter(|offset| *offset < limit))
    }

    /// The next position from `at` on whose header may be that of a batch that follows.
    async fn next_candidate(
        &mut self,
        at: u64,
        expected: i64,
        limit: i64,
    ) -> Result<Option<u64>, Error> {
        self.position = at;
        loop {
            let window = self.window().await?;
            if window.len() < HEADER_BYTES {
                return Ok(None);
            }
            let found = window.windows(HEADER_BYTES).position(|bytes| {
                Batch::header(bytes).is_ok_and(|batch| {
                    (expected + 1..limit).contains(&batch.base_offset())
                        && is_epoch(batch.leader_epoch())
                })
            });
            if let Some(found) = found {
                return Ok(Some(self.position + found as u64));
            }
            self.position += (window.len() - HEADER_BYTES + 1) as u64;
        }
    }
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
    /// Whether a segment has to be checked before it is served.
    pub(super) fn must_verify(&self, at: usize) -> Option<i64> {
        let segment = self.segments.get(at)?;
        (self.config.verify_on_read && !segment.verified).then_some(segment.base)
    }

    /// How to check a segment; `None` when that is done.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn verification(
        &mut self,
        cx: &ShardCx,
        base: i64,
    ) -> Result<Option<Verification>, Error> {
        let Some(at) = self.segments.iter().position(|one| one.base == base && !one.verified)
        else {
            return Ok(None);
        };
        let next = self.segments.get(at + 1).map_or(self.end, |next| next.base);
        let has_gaps = next <= self.compaction.noted.gaps_to;
        let turns = Rc::clone(&self.verifying);
        let Some(segment) = self.segments.get_mut(at) else { return Ok(None) };
        let file = segment.file(cx, false)?;
        Ok(Some(Verification { turns, file, base, len: segment.len, next, has_gaps }))
    }

    /// A segment was checked.
    pub(crate) fn verified(&mut self, cx: &ShardCx, base: i64, damage: &[Damage]) {
        let unverified = |one: &&mut Segment| one.base == base && !one.verified;
        let Some(segment) = self.segments.iter_mut().find(unverified) else { return };
        segment.verified = true;
        segment.damage = damage.to_vec();
        for one in damage {
            self.tell_damage(cx, base, one);
        }
    }

    /// Notes damage in a segment that is read at a start.
    pub(super) fn note_damage(&mut self, cx: &ShardCx, segment: &mut Segment, one: Damage) {
        self.tell_damage(cx, segment.base, &one);
        add(&mut segment.damage, one);
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
