//! Random numbers of the model: a stream per concern, so that one more draw in one concern does
//! not shift the others.

use crate::rng::{Rng, Seed};

/// The streams, by what they decide.
#[derive(Debug)]
pub(super) struct Streams {
    /// Order of events of one time.
    pub(super) order: Rng,
    /// Delays of operations, wakes and notifications.
    pub(super) delay: Rng,
    /// The ring's own misbehaviour.
    pub(super) ring: Rng,
    /// Segments, latencies, resets.
    pub(super) net: Rng,
    /// How much a receive or send moves.
    pub(super) short: Rng,
    /// Errors and partial transfers of the disk.
    pub(super) disk: Rng,
    /// What a crash leaves.
    pub(super) crash: Rng,
}

impl Streams {
    pub(super) fn new(seed: u64) -> Self {
        let stream = |concern| Seed(seed).stream(concern, 0);
        Self {
            order: stream("sim.order"),
            delay: stream("sim.delay"),
            ring: stream("sim.ring"),
            net: stream("sim.net"),
            short: stream("sim.short"),
            disk: stream("sim.disk"),
            crash: stream("sim.crash"),
        }
    }
}

/// True with probability `p`; draws nothing when that is zero.
pub(super) fn chance(rng: &mut Rng, p: f64) -> bool {
    p > 0.0 && rng.unit() < p
}

/// A number from one to `most`; zero when `most` is.
pub(super) const fn part(rng: &mut Rng, most: usize) -> usize {
    if most == 0 { 0 } else { 1 + rng.index(most) }
}

/// A time up to `most`.
pub(super) const fn up_to(rng: &mut Rng, most: u64) -> u64 {
    rng.between(0, most)
}

/// Adds `value` to the running hash `hash`.
pub(super) const fn fold(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_come_about_as_often_as_asked() {
        let mut rng = Rng::new(7);
        let hits = (0..10_000).filter(|_| chance(&mut rng, 0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        let draws = rng.draws();
        assert!(!chance(&mut rng, 0.0));
        assert_eq!(rng.draws(), draws, "what cannot happen draws nothing");
        assert!((0..1000).all(|_| chance(&mut rng, 1.0) && (1..=3).contains(&part(&mut rng, 3))));
    }

    #[test]
    fn the_running_hash_depends_on_order() {
        assert_ne!(fold(fold(0, 1), 2), fold(fold(0, 2), 1));
        assert_ne!(fold(fold(0, 0), 1), fold(0, 1));
    }
}
