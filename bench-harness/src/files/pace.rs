//! When operations are meant to start, and where in the file they go.
//!
//! Invariants: an open loop's times do not depend on how fast operations end, so one that found no
//! room is late by its own intended time; two operations in flight never touch the same block. Both
//! follow from the seed alone.

use crate::clock::SECOND_NS;
use crate::rng::Rng;

/// When operations start.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Mean gap in nanoseconds; `None` in closed loop.
    gap_ns: Option<f64>,
    poisson: bool,
    rng: Rng,
    /// Of the next operation; kept exact, as a long run of small gaps would drift.
    next_ns: f64,
}

impl Pace {
    /// Closed loop: an operation starts as soon as there is room for it.
    #[must_use]
    pub const fn closed() -> Self {
        Self { gap_ns: None, poisson: false, rng: Rng::new(0), next_ns: 0.0 }
    }

    /// Open loop: `rate` operations a second, evenly spaced or as they would arrive by chance.
    #[must_use]
    pub fn open(rate: f64, poisson: bool, seed: u64) -> Self {
        let gap_ns = Some(SECOND_NS as f64 / rate);
        Self { gap_ns, poisson, rng: Rng::new(seed), next_ns: 0.0 }
    }

    /// The first operation is meant to start at `now_ns`.
    pub const fn start(&mut self, now_ns: u64) {
        self.next_ns = now_ns as f64;
    }

    /// The intended time of an operation that is due at `now_ns`, which is thereby taken.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let Some(gap_ns) = self.gap_ns else { return Some(now_ns) };
        let intended_ns = self.next_ns as u64;
        if intended_ns > now_ns {
            return None;
        }
        let factor = if self.poisson { self.rng.exponential() } else { 1.0 };
        self.next_ns += gap_ns * factor;
        Some(intended_ns)
    }

    /// When the next operation is due; `None` in closed loop.
    #[must_use]
    pub const fn next_ns(&self) -> Option<u64> {
        if self.gap_ns.is_some() { Some(self.next_ns as u64) } else { None }
    }

    /// About how many operations are due at `now_ns` and were not taken.
    #[must_use]
    pub fn behind(&self, now_ns: u64) -> u64 {
        let behind = |gap_ns: f64| ((now_ns as f64 - self.next_ns) / gap_ns).max(0.0);
        self.gap_ns.map_or(0.0, behind) as u64
    }
}

/// In which order blocks are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Any block, each as likely as the other.
    Random,
    /// One after the other, and again from the first.
    Sequential,
}

/// Which block is next.
#[derive(Clone, Debug)]
pub struct Places {
    blocks: u64,
    order: Order,
    rng: Rng,
    next: u64,
    /// A bit for each block in use.
    busy: Vec<u64>,
}

impl Places {
    /// Among `blocks` blocks, of which there is one at least.
    #[must_use]
    pub fn new(blocks: u64, order: Order, seed: u64) -> Self {
        let blocks = blocks.max(1);
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(usize::MAX);
        Self { blocks, order, rng: Rng::new(seed), next: 0, busy: vec![0; words] }
    }

    /// The next block that is not in use, which it is from now on; `None` when all are.
    pub fn take(&mut self) -> Option<u64> {
        let mut block = match self.order {
            Order::Random => self.rng.below(self.blocks),
            Order::Sequential => self.next,
        };
        // The one behind a block in use: few are, so this looks at few.
        for _ in 0..self.blocks {
            let (word, bit) = ((block / 64) as usize, 1 << (block % 64));
            let following = if block + 1 == self.blocks { 0 } else { block + 1 };
            if self.busy[word] & bit == 0 {
                self.busy[word] |= bit;
                self.next = following;
                return Some(block);
            }
            block = following;
        }
        None
    }

    /// The first of `count` blocks in a row, for the one user of all blocks: these are not in use by it.
    pub const fn take_run(&mut self, count: u64) -> u64 {
        let first = if self.next + count > self.blocks { 0 } else { self.next };
        self.next = first + count;
        first
    }

    /// A block is no longer in use.
    pub fn give_back(&mut self, block: u64) {
        if let Some(word) = self.busy.get_mut((block / 64) as usize) {
            *word &= !(1 << (block % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_its_times_whoever_is_late() {
        let mut pace = Pace::open(1000.0, false, 1);
        pace.start(5_000_000);
        assert_eq!(pace.take(4_999_999), None);
        assert_eq!(pace.take(5_000_000), Some(5_000_000));
        assert_eq!((pace.take(5_000_001), pace.next_ns()), (None, Some(6_000_000)));
        // Nobody could start anything for ten milliseconds.
        assert_eq!(pace.behind(15_500_000), 9);
        let late: Vec<u64> = std::iter::from_fn(|| pace.take(15_500_000)).collect();
        assert_eq!(late, (6..=15).map(|ms| ms * 1_000_000).collect::<Vec<u64>>());
        assert_eq!(Pace::closed().take(17), Some(17));
    }

    #[test]
    fn chance_arrivals_keep_the_rate() {
        let mut pace = Pace::open(10_000.0, true, 3);
        pace.start(0);
        let taken = std::iter::from_fn(|| pace.take(SECOND_NS)).count();
        assert!((9_700..10_300).contains(&taken), "{taken}");
    }

    #[test]
    fn no_block_is_used_twice_at_a_time() {
        for order in [Order::Random, Order::Sequential] {
            let mut places = Places::new(70, order, 5);
            let mut taken: Vec<u64> = std::iter::from_fn(|| places.take()).collect();
            taken.sort_unstable();
            assert_eq!(taken, (0..70).collect::<Vec<u64>>());
            places.give_back(33);
            assert_eq!((places.take(), places.take()), (Some(33), None));
        }
        let mut places = Places::new(10, Order::Sequential, 1);
        assert_eq!([places.take_run(4), places.take_run(4), places.take_run(4)], [0, 4, 0]);
    }
}
