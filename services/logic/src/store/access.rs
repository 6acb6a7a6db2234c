//! The 24 bits of access info per record, read by the policy in force: the LRU clock in ticks,
//! the LFU minutes and counter (both as in Redis' `evict.c`), or S3-FIFO's frequency and queue.
//!
//! After a change of policy the old bits are read by the new rules until the key is next used, as
//! in Redis. Next: `evict.rs` compares keys by these.

use super::{hash::Rng, types::Policy};

/// Of the LRU clock; the bit above it says that the key was used after it was stored.
const CLOCK_MASK: u32 = 0x7F_FFFF;
const USED: u32 = 0x80_0000;
/// Of the LRU clock, whose ticks are a second in Redis: keys that were used in one tick are alike, and where there are many
/// requests to few keys that is most of them (docs/decisions/0017).
const TICK_MS: u32 = 250;
/// A key that was not used since it was stored is spared as one that was idle for so many times as long.
const UNUSED_FACTOR: u32 = 4;
/// Ticks added before: new keys are not alike either.
const UNUSED_TICKS: u32 = 1000 / TICK_MS;
const LFU_INIT: u32 = 5;
const LFU_LOG_FACTOR: u32 = 10;
/// S3-FIFO: two bits of frequency; the queue entry's number starts at bit 8.
const S3_FREQ_MAX: u32 = 3;

fn ticks(now_ms: u64) -> u32 {
    ((now_ms / u64::from(TICK_MS)) & 0x7F_FFFF) as u32
}

fn minutes(now_ms: u64) -> u32 {
    ((now_ms / 60_000) & 0xFFFF) as u32
}

/// For a new key. S3-FIFO's queues add their part later.
pub(super) fn fresh(policy: Policy, now_ms: u64) -> u32 {
    match policy {
        Policy::S3Fifo => 0,
        policy if policy.is_lfu() => (minutes(now_ms) << 8) | LFU_INIT,
        _ => ticks(now_ms),
    }
}

/// After a use.
#[inline]
pub(super) fn used(policy: Policy, access: u32, now_ms: u64, rng: &mut Rng) -> u32 {
    match policy {
        Policy::S3Fifo => access + u32::from(access & 3 < S3_FREQ_MAX),
        Policy::AllKeysLfu | Policy::VolatileLfu => {
            let counter = frequency(access, now_ms);
            let base = counter.saturating_sub(LFU_INIT);
            let step = counter < 255 && rng.below(base * LFU_LOG_FACTOR + 1) == 0;
            (minutes(now_ms) << 8) | (counter + u32::from(step))
        }
        _ => ticks(now_ms) | USED,
    }
}

/// For a key of which it is known how long it was not used, or how often it was, as far as the policy asks.
pub(super) fn known(
    policy: Policy,
    idle_s: Option<u64>,
    freq: Option<u8>,
    now_ms: u64,
) -> Option<u32> {
    match policy {
        Policy::S3Fifo => None,
        policy if policy.is_lfu() => Some((minutes(now_ms) << 8) | u32::from(freq?)),
        _ => {
            // Older than the clock goes back: as if used half its range ago.
            let idle = u32::try_from(idle_s?).unwrap_or(u32::MAX);
            let idle = idle.saturating_mul(1000 / TICK_MS).min(CLOCK_MASK / 2);
            Some(ticks(now_ms).wrapping_sub(idle) & CLOCK_MASK | USED)
        }
    }
}

/// LFU counter after decay by one per minute, 0 to 255.
pub(super) fn frequency(access: u32, now_ms: u64) -> u32 {
    let elapsed = minutes(now_ms).wrapping_sub(access >> 8) & 0xFFFF;
    (access & 0xFF).saturating_sub(elapsed)
}

/// Ticks since the last use, modulo the clock's 24 days.
pub(super) fn idle_ticks(access: u32, now_ms: u64) -> u32 {
    ticks(now_ms).wrapping_sub(access) & CLOCK_MASK
}

/// How well a key can be spared under LRU: by how long it was not used, four times that where it never was.
pub(super) fn lru_score(access: u32, now_ms: u64) -> u32 {
    let factor = if access & USED == 0 { UNUSED_FACTOR } else { 1 };
    (idle_ticks(access, now_ms) + UNUSED_TICKS) * factor
}

/// Seconds since the last use.
pub(super) fn idle_s(access: u32, now_ms: u64) -> u32 {
    idle_ticks(access, now_ms) / (1000 / TICK_MS)
}

/// Minutes since the last use under an LFU policy, modulo 45 days.
pub(super) fn idle_minutes(access: u32, now_ms: u64) -> u32 {
    minutes(now_ms).wrapping_sub(access >> 8) & 0xFFFF
}

/// S3-FIFO's parts of the access info.
pub(super) mod s3 {
    /// Highest count of past rounds.
    pub(in super::super) const COUNT_MAX: u32 = 7;
    const MAIN: u32 = 4;

    /// What a queue knows of a key: bits 0 to 7.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(in super::super) struct Standing {
        /// Uses since it was last met, at most 3.
        pub(in super::super) freq: u32,
        pub(in super::super) is_main: bool,
        /// In how much of the past it was used, at most [`COUNT_MAX`].
        pub(in super::super) count: u32,
        /// When that was counted, modulo 4.
        pub(in super::super) epoch: u32,
    }

    impl Standing {
        pub(in super::super) const fn of(access: u32) -> Self {
            Self {
                freq: freq(access),
                is_main: access & MAIN != 0,
                count: (access >> 3) & COUNT_MAX,
                epoch: (access >> 6) & 3,
            }
        }

        /// Bits for a record entering a queue under an entry number.
        pub(in super::super) const fn queued(self, number: u16) -> u32 {
            let main = if self.is_main { MAIN } else { 0 };
            let count = if self.count > COUNT_MAX { COUNT_MAX } else { self.count };
            ((number as u32) << 8) | ((self.epoch & 3) << 6) | (count << 3) | main | self.freq
        }
    }

    pub(in super::super) const fn freq(access: u32) -> u32 {
        access & 3
    }

    pub(in super::super) const fn number(access: u32) -> u16 {
        ((access >> 8) & 0xFFFF) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lru_clock_wraps() {
        let now = (1u64 << 23) * u64::from(TICK_MS) * 106 + 5_000;
        assert_eq!(idle_s(fresh(Policy::AllKeysLru, now - 9_000), now), 9);
    }

    #[test]
    fn lfu_grows_slowly_and_decays() {
        let mut rng = Rng::new(1);
        let now = 60_000 * 70_000;
        let mut access = fresh(Policy::AllKeysLfu, now);
        for _ in 0..1_000_000 {
            access = used(Policy::AllKeysLfu, access, now, &mut rng);
        }
        assert_eq!(frequency(access, now), 255, "a million uses saturate the counter");
        let mut access = fresh(Policy::AllKeysLfu, now);
        for _ in 0..100 {
            access = used(Policy::AllKeysLfu, access, now, &mut rng);
        }
        let counter = frequency(access, now);
        assert!((8..=20).contains(&counter), "about 10 after 100 uses, got {counter}");
        assert_eq!(frequency(access, now + 60_000 * 3), counter - 3);
        assert_eq!(frequency(access, now + 60_000 * 300), 0);
    }

    #[test]
    fn what_was_never_used_can_be_spared_first() {
        let (mut rng, now) = (Rng::new(1), 1_700_000_000_000);
        let stored = fresh(Policy::AllKeysLru, now);
        let after = used(Policy::AllKeysLru, stored, now, &mut rng);
        assert_eq!((idle_s(stored, now + 9_000), idle_s(after, now + 9_000)), (9, 9));
        let score = |access, s: u64| lru_score(access, now + s * 1_000);
        assert!(score(stored, 9) > score(after, 30) && score(stored, 9) < score(after, 45));
        let given = known(Policy::VolatileLru, Some(30), None, now).expect("an idle time");
        assert_eq!((idle_s(given, now), score(given, 0)), (30, score(after, 30)));
    }

    #[test]
    fn s3_frequency_stops_at_three_and_leaves_the_rest() {
        let mut rng = Rng::new(1);
        let standing = s3::Standing { freq: 0, is_main: true, count: 5, epoch: 2 };
        let mut access = standing.queued(0xABCD);
        assert_eq!(s3::Standing::of(access), standing);
        for _ in 0..9 {
            access = used(Policy::S3Fifo, access, 0, &mut rng);
        }
        assert_eq!(s3::Standing::of(access), s3::Standing { freq: 3, ..standing });
        assert_eq!(s3::number(access), 0xABCD);
    }
}
