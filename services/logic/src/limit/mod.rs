//! Rate limits: how many requests a caller may make in a time, by six algorithms.
//!
//! [`gcra`] is what redis-cell's and Dragonfly's CL.THROTTLE computes; the others are behind [`check`]: [`bucket`] (token
//! bucket, and the leaky bucket of nginx), [`window`] (fixed windows as of Envoy's ratelimit, and Cloudflare's sliding
//! counter) and [`log`] (every request of the last period). Pure: the time is an argument, the state a few bytes that the
//! caller keeps.
//!
//! Invariants: integers only, so that nothing drifts; a refused request uses nothing; nobody gets more than the rule
//! allows when the clock goes back, and is not locked out for longer than a period by that; no state makes a
//! function panic, whoever wrote it. Next: `cache::command::limit` for the commands.

pub mod bucket;
pub mod gcra;
pub mod log;
mod state;
#[cfg(test)]
mod tests;
pub mod window;

pub use state::BadState;

use bucket::Bucket;
use log::Log;
use window::{Counter, Window};

/// The largest count, burst and quantity.
pub const COUNT_MAX: u64 = 1 << 40;
/// The longest period: 366 days.
pub const PERIOD_MAX_NS: u64 = 366 * 86_400 * 1_000_000_000;
/// The largest count of a sliding log, which keeps each request.
pub const LOG_COUNT_MAX: u64 = 4096;

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A bucket of tokens that fills at a constant rate; each request takes some.
    TokenBucket,
    /// A queue that is left at a constant rate.
    LeakyBucket,
    /// So many in each period of the clock.
    FixedWindow,
    /// So many in any period, each request remembered.
    SlidingLog,
    /// So many in any period, estimated from the counts of two.
    SlidingCounter,
}

impl Algorithm {
    /// All, as they are named.
    pub const ALL: [(&str, Self); 5] = [
        ("token-bucket", Self::TokenBucket),
        ("leaky-bucket", Self::LeakyBucket),
        ("fixed-window", Self::FixedWindow),
        ("sliding-log", Self::SlidingLog),
        ("sliding-counter", Self::SlidingCounter),
    ];

    /// The one of this name, in any case.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        let same = |known: &&(&str, Self)| name.eq_ignore_ascii_case(known.0.as_bytes());
        Self::ALL.iter().find(same).map(|(_, algorithm)| *algorithm)
    }

    /// Whether a burst can be told.
    #[must_use]
    pub const fn has_burst(self) -> bool {
        matches!(self, Self::TokenBucket | Self::LeakyBucket)
    }
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    count: u64,
    period_ns: u64,
    burst: u64,
}

impl Rule {
    /// `count` requests in `period_ns`. `burst`: tokens a bucket holds, or requests that may wait in a leaky bucket; other
    /// algorithms do not look at it. `None` when one is out of range: from 1 to [`COUNT_MAX`], but 0 for a leaky
    /// bucket's burst; up to [`LOG_COUNT_MAX`] for a sliding log; from 1 to [`PERIOD_MAX_NS`].
    #[must_use]
    pub fn new(
        algorithm: Algorithm,
        count: u64,
        period_ns: u64,
        burst: Option<u64>,
    ) -> Option<Self> {
        let (least, default) = match algorithm {
            Algorithm::LeakyBucket => (0, 0),
            _ => (1, count),
        };
        let most = if algorithm == Algorithm::SlidingLog { LOG_COUNT_MAX } else { COUNT_MAX };
        let burst = burst.unwrap_or(default);
        let fits = (1..=most).contains(&count)
            && (1..=PERIOD_MAX_NS).contains(&period_ns)
            && (least..=COUNT_MAX).contains(&burst);
        fits.then_some(Self { count, period_ns, burst })
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It may go on.
    pub allowed: bool,
    /// The most that may be asked for at once.
    pub limit: u64,
    /// What may still be asked for now.
    pub remaining: u64,
    /// Refused: when the same request would be allowed, if ever. Allowed by a leaky bucket: when its turn is.
    pub retry_after_ns: Option<u64>,
    /// When all is as if nobody had asked.
    pub reset_after_ns: u64,
}

/// One algorithm's state.
trait State: Default {
    /// Follows a clock that was set back by more than a period; whether it was. What was used stays used.
    fn follow(&mut self, rule: &Rule, now_ns: u64) -> bool;
    /// Asks for `quantity` at a time; 0 only looks.
    fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict;
    fn encode(&self, out: &mut state::Writer<'_>);
    fn decode(from: &mut state::Reader<'_>) -> Option<Self>;
}

/// Asks for `quantity` (0 only looks) at a time in nanoseconds. `kept` is the state as it was kept, `None` for none. The
/// state that is to be kept from now on is appended to `next`, and until when; `next` is left alone when nothing
/// has changed.
///
/// # Errors
/// `kept` is not a state of this algorithm.
pub fn check(
    algorithm: Algorithm,
    rule: &Rule,
    kept: Option<&[u8]>,
    quantity: u64,
    now_ns: u64,
    next: &mut Vec<u8>,
) -> Result<Verdict, BadState> {
    let ask = match algorithm {
        Algorithm::TokenBucket => ask::<Bucket<false>>,
        Algorithm::LeakyBucket => ask::<Bucket<true>>,
        Algorithm::FixedWindow => ask::<Window>,
        Algorithm::SlidingLog => ask::<Log>,
        Algorithm::SlidingCounter => ask::<Counter>,
    };
    ask(algorithm, rule, kept, quantity, now_ns, next)
}

fn ask<S: State>(
    algorithm: Algorithm,
    rule: &Rule,
    kept: Option<&[u8]>,
    quantity: u64,
    now_ns: u64,
    next: &mut Vec<u8>,
) -> Result<Verdict, BadState> {
    let mut state = match kept {
        None => S::default(),
        Some(bytes) => state::decode(algorithm, bytes)?,
    };
    // To be kept in any case, or the clock would seem to have been set back each time.
    let followed = state.follow(rule, now_ns);
    let verdict = state.check(rule, quantity, now_ns);
    if followed || (verdict.allowed && quantity > 0) {
        state::encode(algorithm, &state, next);
    }
    Ok(verdict)
}

/// Whether a clock that shows `now_ns` was set back: by more than a period before `last_ns`. One that went back by less
/// stands still until it is where it was.
const fn was_set_back(now_ns: u64, last_ns: u64, period_ns: u64) -> bool {
    last_ns.saturating_sub(now_ns) > period_ns
}

/// What fits.
fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
