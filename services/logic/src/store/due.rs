//! Coarse expiry times of 24 bits, the expiry index inside the buckets.
//!
//! The unit is 64 ms and the count wraps after 12.4 days, so a time is kept at most 6 days ahead:
//! a later one is noted as "in 6 days", looked at then and noted again. That costs one look at a
//! bucket per 6 days and saves a word per bucket. Should the active pass not run at all for 6
//! days, a note may be read as lying ahead and memory is given back up to 12 days late; what a
//! reader sees does not depend on it, since access checks the record's own time.
//! Next: `expiry.rs` runs the active pass.

const UNIT_SHIFT: u32 = 6;
const MASK: u64 = 0xFF_FFFF;
const HALF: u64 = 0x80_0000;
/// Furthest note ahead, in units: half the range less some slack.
const AHEAD: u64 = HALF - 0x1_0000;

/// A time in units of 64 ms, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due(u32);

impl Due {
    pub(super) const NONE: Self = Self(0);

    /// When a key that expires at `expire_ms` (0: never) should be looked at, rounded up: at that
    /// time it is due.
    pub(super) fn at(expire_ms: u64, now_ms: u64) -> Self {
        if expire_ms == 0 {
            return Self::NONE;
        }
        let now = now_ms >> UNIT_SHIFT;
        let unit = ((expire_ms >> UNIT_SHIFT) + 1).clamp(now.saturating_sub(AHEAD), now + AHEAD);
        Self(((unit & MASK) as u32).max(1))
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Units from now on; negative when overdue.
    fn ahead(self, now_ms: u64) -> i64 {
        let distance = u64::from(self.0).wrapping_sub(now_ms >> UNIT_SHIFT) & MASK;
        if distance < HALF {
            distance.cast_signed()
        } else {
            distance.cast_signed() - (MASK.cast_signed() + 1)
        }
    }

    /// Whether the time has come.
    #[inline]
    pub(super) fn has_come(self, now_ms: u64) -> bool {
        !self.is_none() && self.ahead(now_ms) <= 0
    }

    /// The earlier of two.
    pub(super) fn earlier(self, other: Self, now_ms: u64) -> Self {
        if other.is_none() || (!self.is_none() && self.ahead(now_ms) <= other.ahead(now_ms)) {
            self
        } else {
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_around_the_wrap() {
        for base in [1_800_000_000_000, (1u64 << 30) - 500, (1u64 << 36) - 1, 1000] {
            let soon = Due::at(base + 100, base);
            let late = Due::at(base + 1_000_000, base);
            let never_soon = Due::at(base + (1 << 40), base);
            assert_eq!(soon.earlier(late, base), soon);
            assert_eq!(late.earlier(soon, base), soon);
            assert_eq!(never_soon.earlier(late, base), late);
            assert_eq!(Due::NONE.earlier(late, base), late);
            assert_eq!(late.earlier(Due::NONE, base), late);
            assert!(!soon.has_come(base) && soon.has_come(base + 100 + 128));
            assert!(!never_soon.has_come(base + 5 * 86_400_000));
            assert!(never_soon.has_come(base + 6 * 86_400_000 + 20_000_000));
            assert!(!Due::NONE.has_come(base));
            assert!(Due::at(base.saturating_sub(10_000).max(1), base).has_come(base + 64));
        }
    }
}
