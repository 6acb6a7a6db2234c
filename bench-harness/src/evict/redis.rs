//! A model of redis 7.0's allkeys-lru, after its evict.c and dict.c.
//!
//! Each eviction samples five keys from a random bucket on (`dictGetSomeKeys`), puts them into a pool of the 16 idlest met
//! so far, and evicts the idlest of the pool that still exists. Idle time is by a clock of seconds; the pool neither
//! looks again how idle a key is, nor whether it holds it already. The table is one of chains, of the power of two
//! that holds all keys, new ones first; it is not modelled while it grows.

use super::Cache;
use crate::rng::Rng;

const SAMPLES: usize = 5;
const POOL: usize = 16;
const NONE: u32 = u32::MAX;

/// A key in a chain.
#[derive(Clone, Copy)]
struct Entry {
    key: u32,
    next: u32,
    clock_s: u32,
}

/// The cache.
pub struct SampledLru {
    room: usize,
    len: usize,
    buckets: Vec<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Ascending by idle time.
    pool: Vec<(u32, u32)>,
    rng: Rng,
}

impl SampledLru {
    /// An empty one.
    #[must_use]
    pub fn new(room: usize, seed: u64) -> Self {
        Self {
            room,
            len: 0,
            buckets: vec![NONE; room.next_power_of_two().max(4)],
            entries: Vec::with_capacity(room),
            free: Vec::new(),
            pool: Vec::with_capacity(POOL),
            rng: Rng::new(seed),
        }
    }

    fn bucket(&self, key: u32) -> usize {
        Rng::new(key.into()).next_u64() as usize & (self.buckets.len() - 1)
    }

    fn find(&self, key: u32) -> Option<u32> {
        let mut at = self.buckets[self.bucket(key)];
        while at != NONE {
            let entry = self.entries[at as usize];
            if entry.key == key {
                return Some(at);
            }
            at = entry.next;
        }
        None
    }

    fn insert(&mut self, key: u32, clock_s: u32) {
        let bucket = self.bucket(key);
        let entry = Entry { key, next: self.buckets[bucket], clock_s };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.buckets[bucket] = at;
        self.len += 1;
    }

    fn remove(&mut self, key: u32) -> bool {
        let bucket = self.bucket(key);
        let (mut before, mut at) = (NONE, self.buckets[bucket]);
        while at != NONE {
            let entry = self.entries[at as usize];
            if entry.key == key {
                match before {
                    NONE => self.buckets[bucket] = entry.next,
                    before => self.entries[before as usize].next = entry.next,
                }
                self.free.push(at);
                self.len -= 1;
                return true;
            }
            (before, at) = (at, entry.next);
        }
        false
    }

    /// `dictGetSomeKeys`.
    fn sample(&mut self) -> Vec<u32> {
        let count = SAMPLES.min(self.len);
        let mask = self.buckets.len() - 1;
        let mut found = Vec::with_capacity(count);
        let mut bucket = self.rng.next_u64() as usize & mask;
        let mut empty = 0;
        for _ in 0..count * 10 {
            let mut at = self.buckets[bucket];
            if at == NONE {
                empty += 1;
                if empty >= 5 && empty > count {
                    bucket = self.rng.next_u64() as usize & mask;
                    empty = 0;
                }
            } else {
                empty = 0;
            }
            while at != NONE {
                found.push(at);
                if found.len() == count {
                    return found;
                }
                at = self.entries[at as usize].next;
            }
            bucket = (bucket + 1) & mask;
        }
        found
    }

    /// `evictionPoolPopulate`.
    fn populate(&mut self, clock_s: u32) {
        for at in self.sample() {
            let entry = self.entries[at as usize];
            let idle = clock_s - entry.clock_s;
            let place = self.pool.iter().take_while(|(_, other)| *other < idle).count();
            if self.pool.len() < POOL {
                self.pool.insert(place, (entry.key, idle));
            } else if place > 0 {
                self.pool.remove(0);
                self.pool.insert(place - 1, (entry.key, idle));
            }
        }
    }

    fn evict(&mut self, clock_s: u32) {
        loop {
            self.populate(clock_s);
            while let Some((key, _)) = self.pool.pop() {
                if self.remove(key) {
                    return;
                }
            }
        }
    }
}

impl Cache for SampledLru {
    fn access(&mut self, key: u32, now_ms: u64) -> bool {
        let clock_s = (now_ms / 1_000) as u32;
        if let Some(at) = self.find(key) {
            self.entries[at as usize].clock_s = clock_s;
            return true;
        }
        while self.len >= self.room {
            self.evict(clock_s);
        }
        self.insert(key, clock_s);
        false
    }

    fn len(&self) -> usize {
        self.len
    }
}
