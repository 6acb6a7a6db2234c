//! Token bucket and leaky bucket: a level that sinks at a constant rate, and what each request adds to it.
//!
//! Read as a token bucket the level is the tokens that are missing; as a leaky bucket it is the queue. It is counted in parts
//! of a request, as many as the period has nanoseconds: then a nanosecond lets it sink by the rule's count,
//! a whole number, and nothing is ever rounded. Next: `window.rs`.

use super::{PERIOD_MAX_NS, Rule, State, Verdict, narrow, state, was_set_back};

/// More than any rule lets a level rise to.
const LEVEL_MAX: u128 = 1 << 96;

/// A bucket; `QUEUE` for a leaky one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket<const QUEUE: bool> {
    at_ns: u64,
    /// The period in force then: the level's unit. 0 when nobody has asked yet.
    period_ns: u64,
    level: u128,
}

impl<const QUEUE: bool> Bucket<QUEUE> {
    /// Brings it to a time and to the rule's unit.
    fn advance(&mut self, rule: &Rule, now_ns: u64) {
        let period_ns = u128::from(rule.period_ns);
        if self.period_ns == 0 {
            self.at_ns = now_ns;
        } else if self.period_ns != rule.period_ns {
            let old_ns = u128::from(self.period_ns);
            let (whole, part) = (self.level / old_ns, self.level % old_ns);
            let whole = whole.saturating_mul(period_ns);
            let part = (part * period_ns).div_ceil(old_ns);
            self.level = whole.saturating_add(part).min(LEVEL_MAX);
        }
        self.period_ns = rule.period_ns;
        self.follow(rule, now_ns);
        let now_ns = now_ns.max(self.at_ns);
        let passed_ns = u128::from(now_ns - self.at_ns);
        self.level = self.level.saturating_sub(passed_ns * u128::from(rule.count));
        self.at_ns = now_ns;
    }

    /// Asks for `quantity`; 0 only looks.
    pub fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        let mut next = *self;
        next.advance(rule, now_ns);
        let (period_ns, count) = (u128::from(rule.period_ns), u128::from(rule.count));
        let limit = rule.burst + u64::from(QUEUE);
        let room = u128::from(limit) * period_ns;
        let before = next.level;
        let after = before + u128::from(quantity) * period_ns;
        // A clock that went back a little stands still until it is where it was.
        let behind_ns = next.at_ns - now_ns.min(next.at_ns);
        let until = |level: u128| match level {
            0 => 0,
            level => narrow(level.div_ceil(count)).saturating_add(behind_ns),
        };
        let allowed = quantity == 0 || after <= room;
        let retry_after_ns = if allowed {
            QUEUE.then(|| until(before))
        } else {
            (quantity <= limit).then(|| until(after - room))
        };
        if allowed {
            next.level = after;
        }
        let verdict = Verdict {
            allowed,
            limit,
            remaining: narrow(room.saturating_sub(next.level) / period_ns),
            retry_after_ns,
            reset_after_ns: until(next.level),
        };
        if allowed && quantity > 0 {
            *self = next;
        }
        verdict
    }
}

impl<const QUEUE: bool> State for Bucket<QUEUE> {
    fn follow(&mut self, rule: &Rule, now_ns: u64) -> bool {
        let set_back = was_set_back(now_ns, self.at_ns, rule.period_ns);
        if set_back {
            self.at_ns = now_ns;
        }
        set_back
    }

    fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        self.check(rule, quantity, now_ns)
    }

    fn encode(&self, out: &mut state::Writer<'_>) {
        out.number(self.at_ns);
        out.number(self.period_ns);
        out.wide(self.level);
    }

    fn decode(from: &mut state::Reader<'_>) -> Option<Self> {
        let (at_ns, period_ns) = (from.up_to(u64::MAX)?, from.up_to(PERIOD_MAX_NS)?);
        let level = from.wide().filter(|&level| level <= LEVEL_MAX)?;
        (period_ns > 0).then_some(Self { at_ns, period_ns, level })
    }
}
