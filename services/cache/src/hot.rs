//! Hot keys of a shard: about one of [`EVERY`] commands is sampled into a [`TopK`] of fixed size.
//!
//! The hot path takes the size of each group of commands from a counter, and looks whether it has gone below zero: two
//! instructions a group. Which command is next is by chance, so that nothing in a pipeline's pattern
//! hides a key. Commands that run for another shard are sampled there, where their keys are.
//! Counts decay, so that what is told is of about the last minute. Next: [`logic::topk`], `command/heavy.rs`.

use logic::topk::{Top, TopK};
use view::Instant;

use crate::{group::Group, shard::Shard};

/// Commands per sample, about.
pub(crate) const EVERY: i32 = 128;
/// Keys of one command that are counted.
const KEYS_MAX: usize = 16;
/// How often counts decay.
const DECAY_NS: u64 = 10_000_000_000;

/// A hot key, with rates in commands per second.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// Its database.
    pub db: u16,
    /// Its name.
    pub key: Box<[u8]>,
    /// Commands per second on it, estimated.
    pub rate: f64,
    /// By how much that may be too high, the chance of sampling apart.
    pub error: f64,
}

/// The sampler of a shard.
#[derive(Debug)]
pub(crate) struct Hot {
    /// Commands until the next sample.
    due: i32,
    random: u64,
    top: TopK,
    /// Samples taken so far.
    samples: u64,
    /// Time the counts are of, decayed as they are, up to `since`.
    window_ns: u64,
    since: Instant,
}

impl Hot {
    pub(crate) fn new(seed: u64, now: Instant) -> Self {
        let random = (seed ^ 0x40F7_BE15).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { due: EVERY, random, top: TopK::default(), samples: 0, window_ns: 0, since: now }
    }

    /// Counts the commands of a group; whether one of them is due to be sampled.
    #[inline]
    pub(crate) fn passes(&mut self, commands: usize) -> bool {
        // A group is small.
        self.due -= commands as i32;
        self.due < 0
    }

    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % below.max(1)
    }

    /// Lets counts decay when it is time; whether it was.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        let passed_ns = now.mono_ns.saturating_sub(self.since.mono_ns);
        let is_time = passed_ns >= DECAY_NS;
        if is_time {
            self.window_ns = TopK::decayed(self.window_ns.saturating_add(passed_ns));
            self.top.decay();
            self.since = now;
        }
        is_time
    }

    pub(crate) const fn samples(&self) -> u64 {
        self.samples
    }

    pub(crate) fn clear(&mut self, now: Instant) {
        self.top.clear();
        self.window_ns = 0;
        self.since = now;
    }

    /// The hottest keys, first the hottest.
    pub(crate) fn top(&self, most: usize, now: Instant) -> Vec<HotKey> {
        let passed_ns = now.mono_ns.saturating_sub(self.since.mono_ns);
        // Within the first second the rate is of too little to be told.
        let window_s = (self.window_ns + passed_ns).max(1_000_000_000) as f64 / 1e9;
        let rate = |count: f64| count * f64::from(EVERY) / window_s;
        let hot = |Top { db, key, count, error }| HotKey {
            db,
            key,
            rate: rate(count),
            error: rate(error),
        };
        self.top.top(most).into_iter().map(hot).collect()
    }
}

impl Shard {
    /// Samples one key of a group that has passed.
    #[cold]
    #[inline(never)]
    pub(crate) fn sample_hot(&mut self, group: &mut Group, bytes: &[u8], count: usize, db: u16) {
        let before = usize::try_from(self.hot.due.saturating_add(count as i32)).unwrap_or(0);
        self.hot.due += EVERY / 2 + self.hot.random(EVERY as usize) as i32;
        let Some((item, args)) = group.commands(count).nth(before) else { return };
        let Some(id) = item.id else { return };
        let frame = item.frame(bytes);
        let row = self.commands.row(id);
        if !row.accepts(args.len()) {
            return;
        }
        self.hot.samples += 1;
        for at in row.key_indices(args.len(), |at| args.get(at, frame)).take(KEYS_MAX) {
            let key = args.get(at, frame);
            if self.count == 1 || self.topology.owner_of(key) == self.index {
                self.hot.top.observe(db, self.store.hash(key).get(), key, 1);
            }
        }
    }
}
