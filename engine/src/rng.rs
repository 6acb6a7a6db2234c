//! Randomness: one seed for the process, one stream per concern.
//!
//! Why: a simulation is repeated from its seed alone. With one stream per concern, a new draw in
//! one place does not shift what all other places see; with draws counted, two runs that part ways
//! are compared stream by stream.
//!
//! Invariants: equal seeds, names and lanes give equal streams on every platform and version; not
//! for secrets. Source: xoshiro256++ 1.0 and `SplitMix64`, D. Blackman and S. Vigna,
//! <https://prng.di.unimi.it>.
//!
//! Next: the simulation draws faults and schedules from streams of its `Seed`.

use crate::error::Error;
use std::io::Read;

/// What all streams of a process are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed from the kernel's random pool: the real arm's default.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be read, as in a bare chroot.
    pub fn from_os() -> Result<Self, Error> {
        const PATH: &str = "/dev/urandom";
        let mut bytes = [0; 8];
        std::fs::File::open(PATH)
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(|source| Error::io("read", source, PATH))?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    /// The stream of `concern` (a constant name such as `"net.reset"`) and `lane` (a shard, a
    /// connection; zero if there is one).
    #[must_use]
    pub fn stream(self, concern: &str, lane: u64) -> Rng {
        let mut salt = self.0;
        for byte in concern.bytes() {
            salt = mix(salt ^ u64::from(byte));
        }
        Rng::new(mix(salt ^ mix(lane)))
    }
}

/// One step of `SplitMix64`.
const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of random numbers (xoshiro256++). Deliberately not `Clone`: a copy would repeat it.
#[derive(Debug)]
pub struct Rng {
    state: [u64; 4],
    draws: u64,
}

impl Rng {
    /// A stream of its own. Prefer [`Seed::stream`], which keeps concerns apart.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let second = seed.wrapping_add(STEP);
        let third = second.wrapping_add(STEP);
        let state = [mix(seed), mix(second), mix(third), mix(third.wrapping_add(STEP))];
        Self { state, draws: 0 }
    }

    /// 64 random bits.
    #[inline]
    pub const fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        self.draws += 1;
        result
    }

    /// How many numbers were drawn: equal on both runs of a seed, or the runs differ here.
    #[must_use]
    pub const fn draws(&self) -> u64 {
        self.draws
    }

    /// A number below `bound`, each equally likely up to 2^-64 × `bound`; always one draw.
    ///
    /// # Panics
    /// If `bound` is zero.
    #[inline]
    pub const fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `high` is below `low`.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next_u64(),
        }
    }

    /// An index into something of `len` elements.
    ///
    /// # Panics
    /// If `len` is zero.
    pub const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// `true` in `numerator` of `denominator` cases; always one draw, also for never and always.
    ///
    /// # Panics
    /// If `denominator` is zero.
    pub const fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// A number in `0.0..1.0`, of 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A duration around `mean`, exponentially distributed and at most 20 × `mean`: gaps between
    /// independent arrivals.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let drawn = -(1.0 - self.unit()).ln() * mean as f64;
        drawn.min(mean as f64 * 20.0) as u64
    }

    /// One element; none of nothing (and then no draw).
    pub const fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.index(from.len())]) }
    }

    /// Random bytes, eight a draw.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    /// Puts the elements in random order.
    pub fn shuffle<T>(&mut self, elements: &mut [T]) {
        for end in (1..elements.len()).rev() {
            elements.swap(end, self.index(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn follows_the_published_algorithm() {
        // The reference implementation, started from the state 1, 2, 3, 4.
        let mut rng = Rng { state: [1, 2, 3, 4], draws: 0 };
        let drawn: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(drawn, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
        assert_eq!(rng.draws(), 4);
        // SplitMix64 from zero.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn streams_differ_by_seed_concern_and_lane_and_repeat() {
        let first = |seed, concern, lane| Seed(seed).stream(concern, lane).next_u64();
        let mut seen = BTreeSet::new();
        for seed in 0..20 {
            for concern in ["net.reset", "net.reseu", "disk.torn", ""] {
                for lane in 0..20 {
                    assert!(seen.insert(first(seed, concern, lane)));
                    assert_eq!(first(seed, concern, lane), first(seed, concern, lane));
                }
            }
        }
    }

    #[test]
    fn draws_stay_in_bounds_and_reach_all_values() {
        let mut rng = Seed(7).stream("test", 0);
        let mut seen = [0_u32; 6];
        for _ in 0..6_000 {
            seen[rng.below(6) as usize] += 1;
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!((0.0..1.0).contains(&rng.unit()));
            assert!(rng.exponential(1_000) <= 20_000);
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        assert_eq!(rng.draws(), 24_000);
        assert_eq!(rng.between(9, 9), 9);
        rng.between(0, u64::MAX);
        let hits = (0..10_000).filter(|_| rng.chance(1, 10)).count();
        assert!((900..1100).contains(&hits), "{hits}");
        assert!(!rng.chance(0, 5) && rng.chance(5, 5));
    }

    #[test]
    fn shuffles_and_fills() {
        let mut rng = Rng::new(1);
        let mut order: Vec<u8> = (0..100).collect();
        rng.shuffle(&mut order);
        assert_ne!(order, (0..100).collect::<Vec<u8>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<u8>>());
        let before = rng.draws();
        let mut bytes = [0; 19];
        rng.fill(&mut bytes);
        assert_eq!(rng.draws() - before, 3);
        assert!(bytes.iter().filter(|byte| **byte == 0).count() < 3);
        assert_eq!(rng.pick::<u8>(&[]), None);
        assert!(rng.pick(&[1, 2]).is_some());
    }

    #[test]
    fn the_system_gives_different_seeds() {
        assert_ne!(Seed::from_os().unwrap(), Seed::from_os().unwrap());
    }
}
