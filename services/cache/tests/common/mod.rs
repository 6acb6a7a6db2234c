//! What the integration tests of the cache share: a RESP client, server processes, the golden format.
//!
//! Where next: `resp.rs` (client), `server.rs` (processes and ports), `pattern.rs` (expected replies), `live.rs` (other people's
//! programs).
#![allow(dead_code, reason = "each test binary uses its part of this module")]

pub(crate) mod live;
pub(crate) mod pattern;
pub(crate) mod resp;
pub(crate) mod server;

/// A small seeded generator (SplitMix64): test inputs must repeat from a printed seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a usize fits");
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, options: &[&'a T]) -> &'a T {
        options[self.below(options.len())]
    }
}
