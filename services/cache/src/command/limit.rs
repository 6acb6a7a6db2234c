//! Rate limits: CL.THROTTLE as redis-cell and Dragonfly have it, and RL.CHECK for other ways to count.
//!
//! A limit's state is the string at its key, which goes when it is as if nobody had asked. The time is the wall clock, as of
//! expiry. Invariants: a refused request uses nothing; a key that holds something else is left alone.
//! Next: `logic::limit` for the algorithms, docs/cache.md for the forms.

use logic::limit::{
    self, Algorithm, BadState, Rule,
    gcra::{self, Gcra, Refused},
};
use logic::store::{Expire, Form, NewValue};
use wire::resp::{parse_i64, reply};

use super::{Cx, Fault, Outcome};
use crate::events::UNNAMED;

type Result = std::result::Result<Outcome, Fault>;

const MS_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

const RANGE: Fault = Fault::text("ERR limit, period, burst or quantity is out of range");

/// Keeps a state until `after_ns` from now.
fn keep(cx: &mut Cx<'_>, state: &[u8], after_ns: u64) -> std::result::Result<(), Fault> {
    let (hash, key, now_ms) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    let until_ns = cx.now.unix_us.saturating_mul(1_000).saturating_add(after_ns);
    let expire = Expire::At(until_ns.div_ceil(MS_NS));
    let value = NewValue::Copy(state);
    cx.shard.store.set(cx.conn.db, hash, key, value, expire, Form::Plain, now_ms)?;
    cx.event(UNNAMED, "", 1);
    Ok(())
}

fn integers(cx: &mut Cx<'_>, values: [i64; 5]) -> Result {
    let out = cx.inline();
    reply::array(out, values.len());
    for value in values {
        reply::integer(out, value);
    }
    Ok(Outcome::Done)
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Range => Self::NOT_INTEGER,
            Refused::ZeroRate => Self::text("ERR zero rates are not supported"),
        }
    }
}

/// CL.THROTTLE key `max_burst` count period \[quantity\]: whether it is limited, the limit, what remains, and seconds until
/// a retry (-1: none is needed, or of use) and until all is as new.
pub(super) fn throttle(cx: &mut Cx<'_>) -> Result {
    if cx.argc() > 6 {
        return Err(Fault::arity(cx.row.name));
    }
    let (burst, count, period_s) = (cx.integer(2)?, cx.integer(3)?, cx.integer(4)?);
    let quantity = if cx.argc() > 5 { cx.integer(5)? } else { 1 };
    let limit = Gcra::new(burst, count, period_s)?;
    let now_ns = i64::try_from(cx.now.unix_us.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let arrival_ns = match cx.string(1)? {
        Some(value) => Some(parse_i64(value.as_slice()).ok_or(Fault::NOT_INTEGER)?),
        None => None,
    };
    let throttle = limit.check(arrival_ns, quantity, now_ns)?;
    if let Some(arrival_ns) = throttle.arrival_ns {
        let mut text = itoa::Buffer::new();
        let after_ns = u64::try_from(throttle.reset_after_ns).unwrap_or(0);
        keep(cx, text.format(arrival_ns).as_bytes(), after_ns)?;
    }
    let retry_after_s = throttle.retry_after_ns.map_or(-1, gcra::shown_s);
    let reset_after_s = gcra::shown_s(throttle.reset_after_ns);
    let limited = throttle.limited.into();
    integers(cx, [limited, throttle.limit, throttle.remaining, retry_after_s, reset_after_s])
}

/// A time: digits, and a unit of `ms`, `s` (also without one), `m`, `h` or `d`. Nanoseconds.
fn period_ns(text: &[u8]) -> Option<u64> {
    let digits = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits)?;
    let unit_ns = match unit.to_ascii_lowercase().as_slice() {
        b"ms" => MS_NS,
        b"" | b"s" => SECOND_NS,
        b"m" => 60 * SECOND_NS,
        b"h" => 3_600 * SECOND_NS,
        b"d" => 86_400 * SECOND_NS,
        _ => return None,
    };
    u64::try_from(parse_i64(digits)?).ok()?.checked_mul(unit_ns)
}

/// What RL.CHECK asks.
struct Question {
    algorithm: Algorithm,
    rule: Rule,
    quantity: u64,
}

impl Question {
    fn parse(cx: &Cx<'_>) -> std::result::Result<Self, Fault> {
        const UNKNOWN: Fault = Fault::text(
            "ERR unknown algorithm: token-bucket, leaky-bucket, fixed-window, sliding-log or \
             sliding-counter",
        );
        let number = |at| u64::try_from(cx.integer(at)?).map_err(|_| RANGE);
        let algorithm = Algorithm::named(cx.arg(2)).ok_or(UNKNOWN)?;
        let count = number(3)?;
        let period_ns = period_ns(cx.arg(4)).ok_or(Fault::text("ERR invalid period"))?;
        let (mut quantity, mut burst, mut at) = (1, None, 5);
        if cx.argc() > at && parse_i64(cx.arg(at)).is_some() {
            quantity = number(at)?;
            at += 1;
        }
        while at < cx.argc() {
            let takes_burst = algorithm.has_burst() && burst.is_none() && at + 1 < cx.argc();
            if !cx.is(at, "BURST") || !takes_burst {
                return Err(Fault::SYNTAX);
            }
            burst = Some(number(at + 1)?);
            at += 2;
        }
        let rule = Rule::new(algorithm, count, period_ns, burst).ok_or(RANGE)?;
        Ok(Self { algorithm, rule, quantity })
    }
}

/// RL.CHECK key algorithm limit period \[quantity\] \[BURST burst\]: whether it is allowed, the limit, what remains, and
/// milliseconds until a retry (-1: none is needed, or of use) and until all is as new.
pub(super) fn check(cx: &mut Cx<'_>) -> Result {
    let Question { algorithm, rule, quantity } = Question::parse(cx)?;
    let now_ns = cx.now.unix_us.saturating_mul(1_000);
    let mut next = Vec::new();
    let kept = cx.string(1)?;
    let kept = kept.as_ref().map(|value| value.as_slice());
    let verdict = limit::check(algorithm, &rule, kept, quantity, now_ns, &mut next);
    let verdict = verdict.map_err(|BadState| {
        Fault::text("WRONGTYPE Key does not hold a rate limit of this algorithm")
    })?;
    if !next.is_empty() {
        keep(cx, &next, verdict.reset_after_ns)?;
    }
    let ms = |ns: u64| i64::try_from(ns.div_ceil(MS_NS)).unwrap_or(i64::MAX);
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let values = [
        verdict.allowed.into(),
        number(verdict.limit),
        number(verdict.remaining),
        verdict.retry_after_ns.map_or(-1, ms),
        ms(verdict.reset_after_ns),
    ];
    integers(cx, values)
}
