//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! New keys enter the small queue (a tenth of the entries); one used twice there moves to the main
//! queue, any other is evicted and remembered by a fingerprint in the ghost. A new key the ghost
//! remembers goes to the main queue at once. The main queue gives a used key another round.
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
    access::s3,
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
const GHOST_MIN: usize = 1024;
const GHOST_WAYS: usize = 4;
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

    fn pop(&mut self) -> Option<Queued> {
        let chunk = self.chunks.front()?;
        let entry = *chunk.get(self.taken)?;
        self.taken += 1;
        self.len -= 1;
        if self.taken == chunk.len() {
            self.chunks.pop_front();
            self.taken = 0;
        }
        Some(entry)
    }
}

/// Fingerprints of keys evicted from the small queue, four ways, each with its time of entry.
struct Ghost {
    /// Upper half: fingerprint; lower half: the ghost's clock at entry. 0 is empty.
    ways: Vec<u64>,
    clock: u32,
}

impl Ghost {
    fn set(&mut self, print: u32) -> &mut [u64] {
        let sets = self.ways.len() / GHOST_WAYS;
        let from = (print as usize % sets.max(1)) * GHOST_WAYS;
        self.ways.get_mut(from..from + GHOST_WAYS).unwrap_or_default()
    }

    fn remember(&mut self, print: u32, room: usize) {
        if room > self.ways.len() || self.ways.is_empty() {
            // Forgetting on growth costs a few misses; a copy would cost a stall.
            self.ways = vec![0; room.next_power_of_two().max(GHOST_MIN)];
        }
        self.clock = self.clock.wrapping_add(1).max(1);
        let clock = self.clock;
        let age = |way: &u64| {
            if *way == 0 { u32::MAX } else { clock.wrapping_sub((*way & 0xFFFF_FFFF) as u32) }
        };
        if let Some(oldest) = self.set(print).iter_mut().max_by_key(|way| age(way)) {
            *oldest = (u64::from(print) << 32) | u64::from(clock);
        }
    }

    /// Whether the key went within the last `room` evictions; it is forgotten.
    fn recall(&mut self, print: u32, room: usize) -> bool {
        let clock = self.clock;
        let found =
            self.set(print).iter_mut().find(|way| **way != 0 && **way >> 32 == u64::from(print));
        let Some(way) = found else { return false };
        let recent = clock.wrapping_sub((*way & 0xFFFF_FFFF) as u32) as usize <= room;
        *way = 0;
        recent
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
    number: u16,
    fill: Option<Fill>,
}

impl S3Fifo {
    pub(super) fn new() -> Self {
        Self {
            small: Ring::new(),
            main: Ring::new(),
            ghost: Ghost { ways: Vec::new(), clock: 0 },
            number: 0,
            fill: Some(Fill { db: 0, bucket: 0, prefix: 0 }),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes() + self.main.bytes() + (self.ghost.ways.capacity() * 8) as u64
    }

    fn enqueue(&mut self, heap: &mut Heap, db: u16, at: Ref, main: bool, freq: u32) {
        let Some(head) = heap.head(at) else { return };
        self.number = self.number.wrapping_add(1);
        heap.set_access(at, head.access, s3::queued(self.number, main, freq));
        let queue = if main { &mut self.main } else { &mut self.small };
        queue.push(Queued { at, number: self.number, db });
    }

    pub(super) fn added(&mut self, heap: &mut Heap, db: u16, hash: u64, at: Ref) {
        let main = self.ghost.recall(prefix_of(hash), self.main.len);
        self.enqueue(heap, db, at, main, 0);
    }

    /// The record keeps its queue and frequency, at the queue's end.
    pub(super) fn moved(&mut self, heap: &mut Heap, db: u16, to: Ref) {
        let Some(head) = heap.head(to) else { return };
        self.enqueue(heap, db, to, s3::is_main(head.access), s3::freq(head.access));
    }

    fn is_current(entry: Queued, main: bool, heap: &Heap) -> Option<u32> {
        let access = heap.head(entry.at)?.access;
        (s3::number(access) == entry.number && s3::is_main(access) == main).then_some(access)
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
                if Self::is_current(entry, main, heap).is_some() {
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
            let main = s3.small.len == 0 || s3.small.len * 10 < s3.small.len + s3.main.len;
            let popped = if main { s3.main.pop() } else { s3.small.pop() };
            let Some(entry) = popped else {
                // Keys without entries: after a change of policy, or their entries were lost.
                s3.fill.get_or_insert(Fill { db: 0, bucket: 0, prefix: 0 });
                continue;
            };
            let Some(access) = S3Fifo::is_current(entry, main, &self.heap) else {
                continue;
            };
            let freq = s3::freq(access);
            let Queued { at, db, .. } = entry;
            if main && freq > 0 {
                s3.enqueue(&mut self.heap, db, at, true, freq - 1);
                continue;
            }
            if !main && freq > 1 {
                s3.enqueue(&mut self.heap, db, at, true, 0);
                continue;
            }
            if self.evict_queued(entry, main, now_ms, on_evicted) {
                return Attempt::Evicted;
            }
        }
        Attempt::Later
    }

    fn evict_queued(
        &mut self,
        entry: Queued,
        main: bool,
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
        if !main && let Some(s3) = &mut self.evictor.s3 {
            let room = s3.main.len;
            s3.ghost.remember(prefix_of(hash), room);
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
                s3.enqueue(&mut self.heap, db, at, true, 0);
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
