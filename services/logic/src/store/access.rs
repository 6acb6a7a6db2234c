//! The 24 bits of access info per record, read by the policy in force: the LRU clock in ticks,
//! the LFU minutes and counter (both as in Redis' `evict.c`), or S3-FIFO's frequency and queue.
//!
//! After a change of policy the old bits are read by the new rules until the key is next used, as
//! in Redis. Next: `evict.rs` compares keys by these.

use super::{hash::Rng, types::Policy};

const CLOCK_MASK: u32 = 0xFF_FFFF;
/// Of the LRU clock, whose ticks are a second in Redis: keys that were used in one tick are alike, and where there are many
/// requests to few keys that is most of them (docs/decisions/0017).
const TICK_MS: u32 = 125;
const LFU_INIT: u32 = 5;
const LFU_LOG_FACTOR: u32 = 10;
/// S3-FIFO: two bits of frequency; the queue entry's number starts at bit 8.
const S3_FREQ_MAX: u32 = 3;

fn ticks(now_ms: u64) -> u32 {
    ((now_ms / u64::from(TICK_MS)) & 0xFF_FFFF) as u32
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
        _ => ticks(now_ms),
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
            Some(ticks(now_ms).wrapping_sub(idle) & CLOCK_MASK)
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
    const MAIN: u32 = 4;

    pub(in super::super) const fn freq(access: u32) -> u32 {
        access & 3
    }

    /// Bits for a record entering a queue under an entry number.
    pub(in super::super) const fn queued(number: u16, main: bool, freq: u32) -> u32 {
        ((number as u32) << 8) | if main { MAIN } else { 0 } | freq
    }

    pub(in super::super) const fn is_main(access: u32) -> bool {
        access & MAIN != 0
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
        let now = (1u64 << 24) * 1000 * 106 + 5_000;
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
    fn s3_frequency_stops_at_three_and_leaves_the_rest() {
        let mut rng = Rng::new(1);
        let mut access = s3::queued(0xABCD, true, 0);
        for _ in 0..9 {
            access = used(Policy::S3Fifo, access, 0, &mut rng);
        }
        assert_eq!(s3::freq(access), 3);
        assert!(s3::is_main(access));
        assert_eq!(s3::number(access), 0xABCD);
    }
}
