//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), with contests.
//!
//! New keys enter the small queue (a fiftieth of the entries). One that leaves it is compared with the key at the main
//! queue's head by a *count*: in how much of the past each was used. For keys that are there the count is in the record,
//! raised when the hand meets the key used; for those that went, a ghost has it by a fingerprint. Who was never used
//! before, or not more often, is evicted, and the head stays where it is, so that the next one meets the same; else the
//! head is evicted. The main queue gives a used key another round. Counts are halved in time. The paper moves to the main
//! queue whatever was used twice or is in the ghost: that lets too much in where a tenth of the keys fit, and where
//! requests scan or loop (docs/decisions/0017 has the figures).
//!
//! Queues are rings of record references, 8 bytes per key, paid for only under this policy. A
//! removed or moved record leaves its entry behind: an entry counts only while its number is the
//! one in the record's access info, and dead entries are trimmed as new ones come. When the policy
//! is switched on (or entries were lost) a fill goes through the tables in the scan's order, a few
//! buckets per eviction.
//! Next: `evict.rs` calls this; `access.rs` has the bits.

use std::collections::VecDeque;

use super::{
    Store,
    access::s3::{self, COUNT_MAX, Standing},
    arena::Ref,
    evict::Attempt,
    record::Heap,
    table::{BUCKETS, prefix_of},
};

const CHUNK: usize = 512;
/// Queue entries looked at per eviction.
const STEPS: usize = 64;
/// Buckets filled in per step.
const FILL_BUCKETS: usize = 4;
/// The small queue's part of all entries, inverse.
const SMALL_PART: usize = 50;
/// Evictions per key after which counts are halved.
const EPOCH: usize = 20;
const GHOST_MIN: usize = 1024;
const GHOST_WAYS: usize = 4;
const GHOST_CLOCK_BITS: u32 = 29;
const GHOST_CLOCK: u32 = (1 << GHOST_CLOCK_BITS) - 1;
/// Entries kept beyond two per key before dead ones are searched.
const SLACK: u64 = 1024;

/// One key in a queue.
#[derive(Clone, Copy)]
struct Queued {
    at: Ref,
    number: u16,
    db: u16,
}

/// A ring that grows and shrinks by chunks, so that no push copies it.
struct Ring {
    chunks: VecDeque<Vec<Queued>>,
    /// Entries taken from the first chunk.
    taken: usize,
    len: usize,
}

impl Ring {
    fn new() -> Self {
        Self { chunks: VecDeque::new(), taken: 0, len: 0 }
    }

    fn bytes(&self) -> u64 {
        let chunks = self.chunks.len() * CHUNK * size_of::<Queued>();
        (chunks + self.chunks.capacity() * size_of::<Vec<Queued>>()) as u64
    }

    fn push(&mut self, entry: Queued) {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push(entry);
            self.len += 1;
        }
    }

    fn first(&self) -> Option<Queued> {
        self.chunks.front()?.get(self.taken).copied()
    }

    fn pop(&mut self) -> Option<Queued> {
        let entry = self.first()?;
        let chunk = self.chunks.front()?;
        self.taken += 1;
        self.len -= 1;
        if self.taken == chunk.len() {
            self.chunks.pop_front();
            self.taken = 0;
        }
        Some(entry)
    }
}

/// Fingerprints of evicted keys with their counts, four ways, each with its time of entry.
struct Ghost {
    /// Upper half: fingerprint; then three bits of count, never 0; the rest: the ghost's clock at entry. 0 is empty.
    ways: Vec<u64>,
    clock: u32,
}

impl Ghost {
    fn set(&mut self, print: u32) -> &mut [u64] {
        let sets = self.ways.len() / GHOST_WAYS;
        let from = (print as usize % sets.max(1)) * GHOST_WAYS;
        self.ways.get_mut(from..from + GHOST_WAYS).unwrap_or_default()
    }

    fn remember(&mut self, print: u32, count: u32, room: usize) {
        if room > self.ways.len() || self.ways.is_empty() {
            // Forgetting on growth costs a few misses; a copy would cost a stall.
            self.ways = vec![0; room.next_power_of_two().max(GHOST_MIN)];
        }
        self.clock = self.clock.wrapping_add(1) & GHOST_CLOCK;
        let clock = self.clock;
        let age = |way: &u64| {
            let then = (*way & 0xFFFF_FFFF) as u32;
            if *way == 0 { u32::MAX } else { clock.wrapping_sub(then) & GHOST_CLOCK }
        };
        if let Some(oldest) = self.set(print).iter_mut().max_by_key(|way| age(way)) {
            let count = count.clamp(1, COUNT_MAX);
            *oldest = (u64::from(print) << 32)
                | (u64::from(count) << GHOST_CLOCK_BITS)
                | u64::from(clock);
        }
    }

    /// The count of a key that went within the last `most` evictions, which is forgotten; 0 when it is not known.
    fn recall(&mut self, print: u32, most: usize) -> u32 {
        let clock = self.clock;
        let mut ways = self.set(print).iter_mut();
        let found = ways.find(|way| **way != 0 && **way >> 32 == u64::from(print));
        let Some(way) = found else { return 0 };
        let known = (std::mem::take(way) & 0xFFFF_FFFF) as u32;
        let age = clock.wrapping_sub(known) & GHOST_CLOCK;
        if age as usize <= most { known >> GHOST_CLOCK_BITS } else { 0 }
    }
}

/// Where a fill goes on: a database and a point of the scan's order.
struct Fill {
    db: u16,
    bucket: usize,
    prefix: u32,
}

/// The queues.
pub(super) struct S3Fifo {
    small: Ring,
    main: Ring,
    ghost: Ghost,
    /// When counts were last halved, and evictions since.
    epoch: u32,
    evicted: usize,
    number: u16,
    fill: Option<Fill>,
}

impl S3Fifo {
    pub(super) fn new() -> Self {
        Self {
            small: Ring::new(),
            main: Ring::new(),
            ghost: Ghost { ways: Vec::new(), clock: 0 },
            epoch: 0,
            evicted: 0,
            number: 0,
            fill: Some(Fill { db: 0, bucket: 0, prefix: 0 }),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes() + self.main.bytes() + (self.ghost.ways.capacity() * 8) as u64
    }

    const fn len(&self) -> usize {
        self.small.len + self.main.len
    }

    fn enqueue(&mut self, heap: &mut Heap, db: u16, at: Ref, standing: Standing) {
        let Some(head) = heap.head(at) else { return };
        self.number = self.number.wrapping_add(1);
        heap.set_access(at, head.access, standing.queued(self.number));
        let queue = if standing.is_main { &mut self.main } else { &mut self.small };
        queue.push(Queued { at, number: self.number, db });
    }

    pub(super) fn added(&mut self, heap: &mut Heap, db: u16, at: Ref) {
        self.enqueue(heap, db, at, Standing::default());
    }

    /// The record keeps its queue and what is known of it, at the queue's end.
    pub(super) fn moved(&mut self, heap: &mut Heap, db: u16, to: Ref) {
        let Some(head) = heap.head(to) else { return };
        self.enqueue(heap, db, to, Standing::of(head.access));
    }

    fn current(entry: Queued, is_main: bool, heap: &Heap) -> Option<Standing> {
        let access = heap.head(entry.at)?.access;
        let standing = Standing::of(access);
        (s3::number(access) == entry.number && standing.is_main == is_main).then_some(standing)
    }

    /// The count as it is now.
    const fn count(&self, standing: Standing) -> u32 {
        standing.count >> (self.epoch.wrapping_sub(standing.epoch) & 3)
    }

    /// Enters a key into the main queue.
    fn promote(&mut self, heap: &mut Heap, entry: Queued, count: u32) {
        let standing = Standing { freq: 0, is_main: true, count, epoch: self.epoch };
        self.enqueue(heap, entry.db, entry.at, standing);
    }

    /// Moves the hand of the main queue on to a key that was not used since it was last there, which stays; nothing where
    /// so many others come first.
    fn head(&mut self, heap: &mut Heap, steps: usize) -> Option<(Queued, u32)> {
        for _ in 0..steps {
            let entry = self.main.first()?;
            let standing = Self::current(entry, true, heap);
            match standing {
                Some(standing) if standing.freq == 0 => return Some((entry, self.count(standing))),
                _ => self.main.pop(),
            };
            if let Some(standing) = standing {
                let (freq, count) = (standing.freq - 1, self.count(standing) + 1);
                let again = Standing { freq, count, epoch: self.epoch, ..standing };
                self.enqueue(heap, entry.db, entry.at, again);
            }
        }
        None
    }

    /// What the hand stands at is in no table any more, though its record is kept for now.
    fn skip(&mut self, entry: Queued) {
        if self.main.first().is_some_and(|first| first.at == entry.at) {
            self.main.pop();
        }
    }

    /// A key went.
    fn went(&mut self, print: u32, count: u32) {
        self.ghost.remember(print, count, self.len());
        self.evicted += 1;
        if self.evicted >= EPOCH * self.len() {
            (self.epoch, self.evicted) = (self.epoch.wrapping_add(1), 0);
        }
    }

    /// Drops dead entries from the queues' heads once they outnumber the keys; live ones met on
    /// the way go to the end, which only happens in a store that overwrites much and evicts little.
    pub(super) fn trim(&mut self, heap: &Heap, keys: u64) {
        if (self.small.len + self.main.len) as u64 <= 2 * keys + SLACK {
            return;
        }
        for (main, queue) in [(false, &mut self.small), (true, &mut self.main)] {
            for _ in 0..4 {
                let Some(entry) = queue.pop() else { break };
                if Self::current(entry, main, heap).is_some() {
                    queue.push(entry);
                }
            }
        }
    }
}

impl Store {
    pub(super) fn evict_by_queues(
        &mut self,
        now_ms: u64,
        on_evicted: &mut impl FnMut(u16, &[u8]),
    ) -> Attempt {
        if self.tables.iter().all(|table| table.len == 0) {
            return Attempt::Nothing;
        }
        for _ in 0..STEPS {
            self.fill_queues();
            let Some(s3) = &mut self.evictor.s3 else {
                return Attempt::Nothing;
            };
            if s3.len() == 0 {
                // Keys without entries: after a change of policy, or their entries were lost.
                s3.fill.get_or_insert(Fill { db: 0, bucket: 0, prefix: 0 });
                continue;
            }
            let goes = if s3.small.len * SMALL_PART < s3.len() {
                s3.head(&mut self.heap, STEPS)
            } else {
                self.contest(now_ms)
            };
            let Some((entry, count)) = goes else { continue };
            if self.evict_queued(entry, count, now_ms, on_evicted) {
                return Attempt::Evicted;
            }
            if let Some(s3) = &mut self.evictor.s3 {
                s3.skip(entry);
            }
        }
        Attempt::Later
    }

    /// Takes the next key from the small queue: who goes, it or the main queue's head, and its count. Nothing when it is
    /// gone already or the main queue has room for it.
    fn contest(&mut self, now_ms: u64) -> Option<(Queued, u32)> {
        let s3 = self.evictor.s3.as_mut()?;
        let has_room = s3.small.len * SMALL_PART > s3.len() + SMALL_PART;
        let entry = s3.small.pop()?;
        let standing = S3Fifo::current(entry, false, &self.heap)?;
        let print = prefix_of(self.records(now_ms).facts(entry.at).0);
        let s3 = self.evictor.s3.as_mut()?;
        let count = s3.ghost.recall(print, s3.len() * 2) + standing.freq + 1;
        if count < 2 {
            // Nobody has asked for it again.
            return Some((entry, count));
        }
        let goes = if has_room { None } else { s3.head(&mut self.heap, STEPS) };
        if !has_room && goes.is_none_or(|(_, of_head)| count <= of_head) {
            return Some((entry, count));
        }
        s3.promote(&mut self.heap, entry, count);
        goes
    }

    fn evict_queued(
        &mut self,
        entry: Queued,
        count: u32,
        now_ms: u64,
        on_evicted: &mut impl FnMut(u16, &[u8]),
    ) -> bool {
        let Queued { at, db, .. } = entry;
        let Some(head) = self.heap.head(at) else {
            return false;
        };
        let hash = self.records(now_ms).facts(at).0;
        let Some(table) = self.tables.get(usize::from(db)) else {
            return false;
        };
        let Some(place) = table.find_ref(hash, at) else {
            return false;
        };
        on_evicted(db, self.heap.key(at, &head));
        self.discard(db, hash, place, at, &head, now_ms);
        self.stats.evicted += 1;
        if let Some(s3) = &mut self.evictor.s3 {
            s3.went(prefix_of(hash), count);
        }
        true
    }

    /// Enters a few of the keys that were there before the policy was.
    fn fill_queues(&mut self) {
        let Some(s3) = &mut self.evictor.s3 else {
            return;
        };
        let Some(fill) = &s3.fill else { return };
        let (db, mut bucket, mut prefix) = (fill.db, fill.bucket, fill.prefix);
        let table = self.tables.get(usize::from(db));
        let Some(table) = table else {
            s3.fill = None;
            return;
        };
        for _ in 0..FILL_BUCKETS {
            let Some(segment) = table.segment_of(u64::from(prefix) << 32) else {
                bucket = BUCKETS;
                break;
            };
            let refs: Vec<Ref> = table.refs_of(segment, bucket).collect();
            for at in refs {
                let entry = Queued { at, number: 0, db };
                s3.promote(&mut self.heap, entry, 1);
            }
            match table.after(segment) {
                Some(next) => prefix = next,
                None => (bucket, prefix) = (bucket + 1, 0),
            }
            if bucket == BUCKETS {
                break;
            }
        }
        s3.fill = Some(if bucket == BUCKETS {
            Fill { db: db + 1, bucket: 0, prefix: 0 }
        } else {
            Fill { db, bucket, prefix }
        });
    }
}
