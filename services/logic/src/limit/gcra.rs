//! The generic cell rate algorithm as redis-cell has it: one time tells all.
//!
//! A request of `quantity` moves the theoretical arrival time on by as many emission intervals; it is refused when that
//! would be further ahead of now than the burst allows. Source: brandur/redis-cell; ITU-T I.371. Where
//! redis-cell divides in floating point or overflows, this has integers and [`Refused`]. A clock that goes
//! back refuses, as there, until it is where it was: nobody gets more for it.
//! Next: `mod.rs` for the algorithms with other states.

const SECOND_NS: i64 = 1_000_000_000;

/// Why a request was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A number is negative, or too large for times in nanoseconds.
    Range,
    /// Nothing per period, or a period of nothing.
    ZeroRate,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    interval_ns: i64,
    tolerance_ns: i64,
    limit: i64,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// It is refused.
    pub limited: bool,
    /// The most that may be asked for at once.
    pub limit: i64,
    /// What may still be asked for now.
    pub remaining: i64,
    /// When the same would be allowed; `None` when it is, or never.
    pub retry_after_ns: Option<i64>,
    /// When all is as if nobody had asked.
    pub reset_after_ns: i64,
    /// The time to keep, when it has changed.
    pub arrival_ns: Option<i64>,
}

impl Gcra {
    /// `count` requests in `period_s` seconds, and `max_burst` beyond the first at once.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn new(max_burst: i64, count: i64, period_s: i64) -> Result<Self, Refused> {
        if max_burst < 0 || count < 0 || period_s < 0 {
            return Err(Refused::Range);
        }
        let period_ns = period_s.checked_mul(SECOND_NS).ok_or(Refused::Range)?;
        let interval_ns = period_ns.checked_div(count).filter(|&interval| interval > 0);
        let interval_ns = interval_ns.ok_or(Refused::ZeroRate)?;
        let limit = max_burst.checked_add(1).ok_or(Refused::Range)?;
        let tolerance_ns = interval_ns.checked_mul(limit).ok_or(Refused::Range)?;
        Ok(Self { interval_ns, tolerance_ns, limit })
    }

    /// Asks for `quantity` at a time; 0 only looks. `arrival_ns` is the time that was kept.
    ///
    /// # Errors
    /// Times beyond those of 64 bits.
    pub fn check(
        &self,
        arrival_ns: Option<i64>,
        quantity: i64,
        now_ns: i64,
    ) -> Result<Throttle, Refused> {
        if quantity < 0 {
            return Err(Refused::Range);
        }
        let before = arrival_ns.unwrap_or(now_ns).max(now_ns);
        let increment = self.interval_ns.checked_mul(quantity).ok_or(Refused::Range)?;
        let after = before.checked_add(increment).ok_or(Refused::Range)?;
        let ahead = after.checked_sub(now_ns).ok_or(Refused::Range)?;
        let limited = ahead > self.tolerance_ns;
        let possible = limited && increment <= self.tolerance_ns;
        let kept = if limited { before - now_ns } else { ahead };
        Ok(Throttle {
            limited,
            limit: self.limit,
            remaining: self.tolerance_ns.saturating_sub(kept).max(0) / self.interval_ns,
            retry_after_ns: possible.then(|| ahead - self.tolerance_ns),
            reset_after_ns: kept,
            arrival_ns: (!limited && quantity > 0).then_some(after),
        })
    }
}

/// Seconds as redis-cell shows them: one more when milliseconds are left over.
#[must_use]
pub const fn shown_s(ns: i64) -> i64 {
    ns / SECOND_NS + if ns % SECOND_NS >= 1_000_000 { 1 } else { 0 }
}
