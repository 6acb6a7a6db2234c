//! Where good batches begin again behind a bad one, and which offset is the first there.
//!
//! A batch's checksum vouches for how many offsets it takes, and for nothing of its first offset, its length and its
//! epoch. Where batches begin again is a place with a right checksum: where the bad batch's length leads to, or would with one of its
//! bits changed, or else the first one found. Which offset is the first there is told by several
//! headers: the bad one by its number of offsets, the good ones behind by their own, and what comes behind those. They
//! agree unless bits changed in them too. Of the offsets that one of them speaks for, the one that takes the fewest
//! changed bits to explain them all is the likeliest, as bits change independently.
//! Invariants: a good batch whose own offset is not the one found out is as bad as any other; what is looked at is
//! bounded. After compaction, where offsets are left out, nothing tells but the batches themselves. Next: `verify`, `open`.

use std::iter::once;

use engine::error::Error;
use wire::kafka::batch::{Batch, HEADER_BYTES, PREFIX_BYTES};

use super::open::{Check, Stated};
use super::verify::{Damage, is_epoch};

#[cfg(test)]
mod tests;

/// Places looked at behind a bad batch for one that fits.
const CANDIDATES_MAX: usize = 1000;
/// Good batches asked what their offset is.
const RUN_MAX: usize = 8;

/// What is looked for behind a bad batch.
#[derive(Clone, Copy)]
struct Search {
    /// The bad batch's position.
    from: u64,
    /// What its header says.
    bad: Option<Stated>,
    /// Its first offset.
    expected: i64,
    /// No offset of the segment is as large; [`i64::MAX`] if nobody knows.
    limit: i64,
    /// Offsets may be left out.
    has_gaps: bool,
}

/// A batch behind a bad one.
#[derive(Clone, Copy)]
struct Found {
    at: u64,
    /// Its first offset.
    next: i64,
    certainty: Certainty,
}

/// How much speaks for what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// One header of several.
    Alone,
    /// More than one, or the segment's end.
    Supported,
    /// All of them.
    Undisputed,
}

/// What a field says of the offset that a run of good batches begins with.
#[derive(Clone, Copy)]
struct Evidence {
    stated: i64,
    /// By how much it is above that offset.
    ahead: i64,
    /// A part of `ahead` that is but the field of a bad batch.
    doubtful: Option<i64>,
}

impl Evidence {
    const fn new(stated: i64, ahead: i64) -> Self {
        Self { stated, ahead, doubtful: None }
    }

    /// The offset it speaks for.
    const fn start(self) -> i64 {
        self.stated.wrapping_sub(self.ahead)
    }

    /// Bits that changed in it if the run begins with `start`.
    fn changed(self, start: i64) -> u32 {
        let should = self.ahead.wrapping_add(start);
        let changed = (self.stated ^ should).count_ones();
        let in_doubtful = self.doubtful.map(|doubtful| {
            let should = self.stated.wrapping_sub(should).wrapping_add(doubtful);
            (doubtful ^ should).count_ones()
        });
        in_doubtful.map_or(changed, |bits| bits.min(changed))
    }
}

/// A batch with a right checksum.
struct Good {
    at: u64,
    /// Its first offset, by itself.
    stated: i64,
    /// Offsets of the run before it.
    ahead: i64,
}

/// Batches with right checksums, one behind the other.
#[derive(Default)]
struct Run {
    batches: Vec<Good>,
    /// All their offsets.
    offsets: i64,
    /// The first batch's own comes first: it decides where others are no better.
    evidence: Vec<Evidence>,
    /// The segment ends with the run, and tells.
    exact: Option<i64>,
}

impl Run {
    /// The likeliest first offset.
    fn start(&self, search: Search) -> Option<i64> {
        let last = search.limit.saturating_sub(self.offsets);
        let is_possible = |start: &i64| *start > search.expected && *start <= last;
        if let Some(exact) = self.exact.filter(is_possible) {
            return Some(exact);
        }
        let changed = |start: i64| self.evidence.iter().map(|one| one.changed(start)).sum::<u32>();
        let starts = self.evidence.iter().map(|one| one.start()).filter(is_possible);
        starts.min_by_key(|start| changed(*start))
    }

    /// The first batch whose own offset is what the run's is found out to be.
    fn first_true(&self, search: Search) -> Option<Found> {
        let start = self.start(search)?;
        let mut batches = self.batches.iter();
        let good = batches.find(|one| one.stated.checked_sub(one.ahead) == Some(start))?;
        let speakers = self.evidence.iter().filter(|one| one.start() == start).count();
        let certainty = if speakers == self.evidence.len() {
            Certainty::Undisputed
        } else if speakers > 1 || self.exact == Some(start) {
            Certainty::Supported
        } else {
            Certainty::Alone
        };
        Some(Found { at: good.at, next: good.stated, certainty })
    }
}

impl Check {
    /// Goes on behind a bad batch, whose first offset is `expected`; no offset of this segment is `limit` or more.
    pub(super) async fn skip_damage(&mut self, expected: i64, limit: i64) -> Result<Damage, Error> {
        let from = self.position;
        let bad = self.header().await?;
        // Whatever offset a batch has, it is looked at.
        let has_gaps = std::mem::replace(&mut self.has_gaps, true);
        let found = self.realign(Search { from, bad, expected, limit, has_gaps }).await;
        self.has_gaps = has_gaps;
        let (to, next) = found?.map_or((self.end, limit), |found| (found.at, found.next));
        self.position = to;
        Ok(Damage { from, to, first: expected, next })
    }

    async fn realign(&mut self, search: Search) -> Result<Option<Found>, Error> {
        let led_to = search.bad.map(|bad| search.from + bad.len());
        if led_to == Some(self.end) {
            return Ok(None);
        }
        if let Some(bad) = search.bad {
            let others = (0..u32::BITS).map(|bit| bad.with_changed_length(bit));
            for at in once(bad).chain(others).map(|bad| search.from + bad.len()) {
                // With two bits changed, some of these lead to other batches further on.
                if at < self.end
                    && let Some(found) = self.run(at, search).await?.first_true(search)
                    && found.certainty == Certainty::Undisputed
                {
                    return Ok(Some(found));
                }
            }
        }
        let (mut at, mut unsure) = (search.from + 1, None);
        for _ in 0..CANDIDATES_MAX {
            let Some(candidate) = self.next_candidate(at, search).await? else { break };
            // What looks like a batch may be the value of a record.
            let is_led_to = led_to == Some(candidate);
            match self.run(candidate, search).await?.first_true(search) {
                Some(found) if is_led_to || found.certainty >= Certainty::Supported => {
                    return Ok(Some(found));
                }
                found => unsure = unsure.or(found),
            }
            at = candidate + 1;
        }
        Ok(unsure)
    }

    /// The run of good batches that begins at a position, and what there is to tell its offset by.
    async fn run(&mut self, at: u64, search: Search) -> Result<Run, Error> {
        let mut run = Run::default();
        self.position = at;
        let most = if search.has_gaps { 1 } else { RUN_MAX };
        while run.batches.len() < most {
            let at = self.position;
            let Some(batch) = self.next(i64::MIN).await? else { break };
            let (stated, ahead) = (batch.base_offset(), run.offsets);
            run.offsets = ahead.saturating_add(i64::from(batch.last_offset_delta()) + 1);
            run.evidence.push(Evidence::new(stated, ahead));
            run.batches.push(Good { at, stated, ahead });
        }
        if run.batches.is_empty() || search.has_gaps {
            return Ok(run);
        }
        if let Some(bad) = search.bad.filter(|bad| bad.reaches(at - search.from)) {
            // The run begins right behind it.
            run.evidence.push(Evidence::new(bad.last_delta, -1 - search.expected));
        }
        if self.position >= self.end {
            run.exact = (search.limit < i64::MAX).then(|| search.limit - run.offsets);
        } else if run.batches.len() < most {
            self.ask_behind(&mut run, search.limit).await?;
        }
        Ok(run)
    }

    /// What the bad batch says that ends a run.
    async fn ask_behind(&mut self, run: &mut Run, limit: i64) -> Result<(), Error> {
        let Some(bad) = self.header().await? else { return Ok(()) };
        run.evidence.push(Evidence::new(bad.first, run.offsets));
        self.position += bad.len();
        // Its number of offsets tells too where it is known which comes behind it.
        let behind = if self.position == self.end {
            Some(limit).filter(|limit| *limit < i64::MAX)
        } else if self.position < self.end {
            self.next(i64::MIN).await?.map(|batch| batch.base_offset())
        } else {
            None
        };
        if let Some(behind) = behind {
            let ahead = run.offsets.saturating_add(bad.last_delta + 1);
            run.evidence.push(Evidence { stated: behind, ahead, doubtful: Some(bad.last_delta) });
        }
        Ok(())
    }

    /// The next position from `at` on whose header may be that of a batch that follows.
    async fn next_candidate(&mut self, at: u64, search: Search) -> Result<Option<u64>, Error> {
        let Search { expected, limit, .. } = search;
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

impl Stated {
    /// Its bytes.
    fn len(self) -> u64 {
        u64::from(self.length) + PREFIX_BYTES as u64
    }

    fn with_changed_length(self, bit: u32) -> Self {
        Self { length: self.length ^ (1 << bit), ..self }
    }

    /// Whether the batch may have that many bytes, of whose length one bit may have changed.
    fn reaches(self, bytes: u64) -> bool {
        let length = bytes.saturating_sub(PREFIX_BYTES as u64);
        (length ^ u64::from(self.length)).count_ones() <= 1
    }
}
