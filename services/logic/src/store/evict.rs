//! Making room under `maxmemory`: the sampling policies, and the entry to S3-FIFO.
//!
//! As in Redis, each eviction compares a few sampled keys and the best candidates of earlier
//! samples, kept in a pool of 16. A candidate is a hash and a reference, checked before use:
//! it is dropped when the key went or was used meanwhile.
//! Next: `s3fifo.rs` for the queues, `access.rs` for what keys are compared by.

use super::{
    EvictResult, Policy, Store, access,
    arena::Ref,
    due::Due,
    record::{Head, Heap},
    s3fifo::S3Fifo,
    table::{BUCKETS, Table},
};

const POOL: usize = 16;
/// Entries given back per turn while cleared databases still hold memory.
const PURGE_ENTRIES: usize = 64;
/// Rounds of sampling before an eviction gives up for this call.
const ROUNDS: usize = 8;

/// A key that may be evicted.
#[derive(Clone, Copy)]
struct Candidate {
    /// Higher goes first.
    score: u64,
    hash: u64,
    at: Ref,
    db: u16,
}

/// State of the policy in force.
pub(super) struct Evictor {
    /// Ascending by score.
    pool: Vec<Candidate>,
    pub(super) s3: Option<S3Fifo>,
}

/// What one attempt came to.
pub(super) enum Attempt {
    Evicted,
    /// Nothing yet, but there is more to look at.
    Later,
    /// No key may go.
    Nothing,
}

impl Evictor {
    pub(super) fn new(policy: Policy) -> Self {
        Self { pool: Vec::new(), s3: (policy == Policy::S3Fifo).then(S3Fifo::new) }
    }

    pub(super) fn bytes(&self) -> u64 {
        let pool = self.pool.capacity() * size_of::<Candidate>();
        pool as u64 + self.s3.as_ref().map_or(0, S3Fifo::bytes)
    }

    /// A record was added to a database.
    #[inline]
    pub(super) fn added(&mut self, heap: &mut Heap, db: u16, at: Ref) {
        if let Some(s3) = &mut self.s3 {
            s3.added(heap, db, at);
        }
    }

    /// A record was written anew elsewhere.
    #[inline]
    pub(super) fn moved(&mut self, heap: &mut Heap, db: u16, to: Ref) {
        if let Some(s3) = &mut self.s3 {
            s3.moved(heap, db, to);
        }
    }

    /// Records were removed or moved: forgets queue entries that lead nowhere, a few at a time.
    pub(super) fn trim(&mut self, heap: &Heap, keys: u64) {
        if let Some(s3) = &mut self.s3 {
            s3.trim(heap, keys);
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        let same = |c: &Candidate| c.at == candidate.at && c.hash == candidate.hash;
        if let Some(known) = self.pool.iter().position(same) {
            if self.pool.get(known).is_some_and(|c| c.score >= candidate.score) {
                return;
            }
            // It has been idle for longer than when it was met.
            self.pool.remove(known);
        }
        let at = self.pool.partition_point(|c| c.score <= candidate.score);
        if self.pool.len() < POOL {
            self.pool.insert(at, candidate);
        } else if at > 0 {
            self.pool.remove(0);
            self.pool.insert(at - 1, candidate);
        }
    }
}

impl Store {
    /// Makes room: evicts by the policy until within the limit, at most `max` keys. `on_evicted`
    /// gets the database and the key. Called before a write that may need memory.
    pub fn evict_step(
        &mut self,
        now_ms: u64,
        max: usize,
        mut on_evicted: impl FnMut(u16, &[u8]),
    ) -> EvictResult {
        let mut evicted = 0;
        for _ in 0..max {
            if !self.over_limit() {
                return EvictResult::Fits { evicted };
            }
            if self.has_garbage() {
                self.purge_step(PURGE_ENTRIES);
                continue;
            }
            let attempt = match self.config.policy {
                Policy::NoEviction => Attempt::Nothing,
                Policy::S3Fifo => self.evict_by_queues(now_ms, &mut on_evicted),
                _ => self.evict_sampled(now_ms, &mut on_evicted),
            };
            match attempt {
                Attempt::Evicted => evicted += 1,
                Attempt::Later => {}
                Attempt::Nothing => return EvictResult::Stuck { evicted },
            }
        }
        if self.over_limit() {
            EvictResult::More { evicted }
        } else {
            EvictResult::Fits { evicted }
        }
    }

    fn evict_sampled(&mut self, now_ms: u64, on_evicted: &mut impl FnMut(u16, &[u8])) -> Attempt {
        for _ in 0..ROUNDS {
            if !self.sample(now_ms) {
                return Attempt::Nothing;
            }
            while let Some(best) = self.evictor.pool.pop() {
                if self.evict_candidate(&best, now_ms, on_evicted) {
                    return Attempt::Evicted;
                }
            }
        }
        Attempt::Later
    }

    fn evict_candidate(
        &mut self,
        best: &Candidate,
        now_ms: u64,
        on_evicted: &mut impl FnMut(u16, &[u8]),
    ) -> bool {
        let Some(table) = self.tables.get(usize::from(best.db)) else {
            return false;
        };
        let Some(place) = table.find_ref(best.hash, best.at) else {
            return false;
        };
        let Some(head) = self.heap.head(best.at) else {
            return false;
        };
        if score(self.config.policy, &head, now_ms).is_none_or(|score| score < best.score) {
            return false;
        }
        on_evicted(best.db, self.heap.key(best.at, &head));
        self.discard(best.db, best.hash, place, best.at, &head, now_ms);
        self.stats.evicted += 1;
        true
    }

    /// Fills the pool from every database; false when no key may go.
    fn sample(&mut self, now_ms: u64) -> bool {
        let policy = self.config.policy;
        let random = matches!(policy, Policy::AllKeysRandom | Policy::VolatileRandom);
        let samples = if random { 1 } else { usize::from(self.config.samples) };
        let mut any = false;
        for db in 0..=self.items_db() {
            let volatile = policy.is_volatile();
            let Some(table) = self.tables.get_mut(usize::from(db)) else {
                break;
            };
            if (if volatile { table.expires } else { table.len }) == 0 {
                continue;
            }
            let random = [self.rng.next(), self.rng.next()];
            let refs = table.sample(random, samples, volatile, &self.heap, now_ms);
            for at in refs {
                let Some(head) = self.heap.head(at) else {
                    continue;
                };
                let Some(score) = score(policy, &head, now_ms) else {
                    continue;
                };
                let hash = self.records(now_ms).facts(at).0;
                // Chance decides between databases, too.
                let score = if score == 0 && self.rng.below(2) == 0 { 1 } else { score };
                self.evictor.offer(Candidate { score: score.max(1) - 1, hash, at, db });
                any = true;
            }
        }
        any
    }
}

/// How well a key can be spared; `None` when it may not go.
fn score(policy: Policy, head: &Head, now_ms: u64) -> Option<u64> {
    if policy.is_volatile() && head.expire_ms == 0 {
        return None;
    }
    if head.is_due(now_ms) {
        return Some(u64::MAX);
    }
    Some(match policy {
        Policy::AllKeysLru | Policy::VolatileLru => {
            u64::from(access::lru_score(head.access, now_ms)) + 2
        }
        Policy::AllKeysLfu | Policy::VolatileLfu => {
            257 - u64::from(access::frequency(head.access, now_ms))
        }
        Policy::VolatileTtl => u64::MAX - head.expire_ms,
        _ => 0,
    })
}

impl Table {
    /// Some keys next to each other in the table, from a point by chance on: as good as any others,
    /// since the hash spread them. With `volatile` only ones with an expiry. Ends with the first
    /// segment that has any.
    fn sample(
        &mut self,
        random: [u64; 2],
        samples: usize,
        volatile: bool,
        heap: &Heap,
        now_ms: u64,
    ) -> Vec<Ref> {
        let [here, skip] = random;
        let mut out = Vec::with_capacity(samples);
        let Some((first, start)) = self.random_bucket(here) else {
            return out;
        };
        let count = self.segments.len();
        for step in 0..count {
            let index = (first as usize + step) % count;
            let worth = if volatile {
                self.dues.get(index).is_some_and(|due| !due.is_none())
            } else {
                self.metas.get(index).is_some_and(|meta| meta.len != 0)
            };
            let Ok(segment) = u32::try_from(index) else {
                continue;
            };
            if worth {
                self.sample_segment(segment, start, skip, samples, volatile, heap, &mut out);
                if !out.is_empty() {
                    return out;
                }
                // Noted, but the keys are gone.
                self.note_segment(segment, now_ms);
            }
        }
        out
    }

    #[expect(clippy::too_many_arguments, reason = "the inner half of one function")]
    fn sample_segment(
        &mut self,
        segment: u32,
        start: usize,
        skip: u64,
        samples: usize,
        volatile: bool,
        heap: &Heap,
        out: &mut Vec<Ref>,
    ) {
        for step in 0..BUCKETS {
            let bucket = (start + step) % BUCKETS;
            let Some(line) = self.bucket(segment, bucket) else {
                return;
            };
            if volatile && line.due().is_none() {
                continue;
            }
            let wanted = |at: &Ref| !volatile || heap.head(*at).is_some_and(|h| h.expire_ms != 0);
            let mut refs: Vec<Ref> = self.refs_of(segment, bucket).filter(wanted).collect();
            if refs.is_empty() {
                if volatile && let Some(line) = self.bucket_mut(segment, bucket) {
                    line.set_due(Due::NONE);
                }
                continue;
            }
            // Lower places hold older keys: begin anywhere.
            let turn = (skip & 0xFF) as usize % refs.len();
            refs.rotate_left(turn);
            out.extend(refs.into_iter().take(samples - out.len()));
            if out.len() >= samples {
                return;
            }
        }
    }
}
