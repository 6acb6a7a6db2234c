//! Windows of the clock: so many in each, or an estimate from two of them.
//!
//! [`Window`] counts from multiples of the period since the epoch, as Envoy's ratelimit does. [`Counter`] is Cloudflare's
//! ("How we built rate limiting capable of scaling to millions of domains", 2017): the last window's count,
//! weighed by the part of it that still lies in the period, and this one's; compared without a division. A window
//! that the clock has gone back before stays for a period at most, and its count beyond.
//! Next: `log.rs` for what it estimates.

use super::{COUNT_MAX, PERIOD_MAX_NS, Rule, State, Verdict, narrow, state, was_set_back};

/// A fixed window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// 0 when nobody has asked yet.
    period_ns: u64,
    start_ns: u64,
    used: u64,
}

/// The start of the window a time is in.
const fn start_of(now_ns: u64, period_ns: u64) -> u64 {
    now_ns - now_ns % period_ns
}

impl Window {
    fn advance(&mut self, rule: &Rule, now_ns: u64) {
        self.follow(rule, now_ns);
        let reckoned = now_ns.max(self.start_ns);
        if self.period_ns == 0 || reckoned.saturating_sub(self.start_ns) >= self.period_ns {
            self.used = 0;
        }
        self.period_ns = rule.period_ns;
        self.start_ns = start_of(reckoned, rule.period_ns);
    }

    /// Asks for `quantity`; 0 only looks.
    pub fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        let mut next = *self;
        next.advance(rule, now_ns);
        let end_ns = next.start_ns.saturating_add(rule.period_ns);
        let left_ns = end_ns.saturating_sub(now_ns);
        let used = next.used.saturating_add(quantity);
        let allowed = quantity == 0 || used <= rule.count;
        if allowed {
            next.used = used;
        }
        let verdict = Verdict {
            allowed,
            limit: rule.count,
            remaining: rule.count.saturating_sub(next.used),
            retry_after_ns: (!allowed && quantity <= rule.count).then_some(left_ns),
            reset_after_ns: if next.used == 0 { 0 } else { left_ns },
        };
        if allowed && quantity > 0 {
            *self = next;
        }
        verdict
    }
}

impl State for Window {
    fn follow(&mut self, rule: &Rule, now_ns: u64) -> bool {
        let set_back = was_set_back(now_ns, self.start_ns, rule.period_ns);
        if set_back {
            self.start_ns = start_of(now_ns, self.period_ns.max(1));
        }
        set_back
    }

    fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        self.check(rule, quantity, now_ns)
    }

    fn encode(&self, out: &mut state::Writer<'_>) {
        out.number(self.period_ns);
        out.number(self.start_ns);
        out.number(self.used);
    }

    fn decode(from: &mut state::Reader<'_>) -> Option<Self> {
        let (period_ns, start_ns) = (from.up_to(PERIOD_MAX_NS)?, from.up_to(u64::MAX)?);
        let used = from.up_to(COUNT_MAX)?;
        (period_ns > 0).then_some(Self { period_ns, start_ns, used })
    }
}

/// A sliding window, estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// 0 when nobody has asked yet.
    period_ns: u64,
    start_ns: u64,
    last: u64,
    used: u64,
}

impl Counter {
    fn advance(&mut self, rule: &Rule, now_ns: u64) {
        self.follow(rule, now_ns);
        let reckoned = now_ns.max(self.start_ns);
        let passed = reckoned.saturating_sub(self.start_ns).checked_div(self.period_ns);
        (self.last, self.used) = match passed {
            Some(0) => (self.last, self.used),
            Some(1) => (self.used, 0),
            _ => (0, 0),
        };
        if self.period_ns != rule.period_ns && self.period_ns != 0 {
            // What the old windows come to counts as this one's.
            let start_ns = start_of(reckoned, self.period_ns);
            let left_ns = self.period_ns.saturating_sub(reckoned - start_ns);
            let part = u128::from(self.last) * u128::from(left_ns);
            let part = narrow(part.div_ceil(u128::from(self.period_ns)));
            (self.last, self.used) = (0, self.used.saturating_add(part).min(COUNT_MAX));
        }
        self.period_ns = rule.period_ns;
        self.start_ns = start_of(reckoned, rule.period_ns);
    }

    /// Asks for `quantity`; 0 only looks.
    pub fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        let mut next = *self;
        next.advance(rule, now_ns);
        let reckoned = now_ns.max(next.start_ns);
        let behind_ns = reckoned - now_ns;
        let left_ns = rule.period_ns - (reckoned - next.start_ns).min(rule.period_ns);
        let period = u128::from(rule.period_ns);
        let room = u128::from(rule.count) * period;
        let old = u128::from(next.last) * u128::from(left_ns);
        let wanted = old + (u128::from(next.used) + u128::from(quantity)) * period;
        let allowed = quantity == 0 || wanted <= room;
        let retry_after_ns = (!allowed && quantity <= rule.count)
            .then(|| next.wait(rule, quantity, left_ns).saturating_add(behind_ns));
        if allowed {
            next.used = next.used.saturating_add(quantity).min(COUNT_MAX);
        }
        let used = old + u128::from(next.used) * period;
        let reset_after_ns = match (next.last, next.used) {
            (0, 0) => 0,
            (_, 0) => left_ns.saturating_add(behind_ns),
            _ => left_ns.saturating_add(rule.period_ns).saturating_add(behind_ns),
        };
        let remaining = narrow(room.saturating_sub(used) / period);
        let verdict =
            Verdict { allowed, limit: rule.count, remaining, retry_after_ns, reset_after_ns };
        if allowed && quantity > 0 {
            *self = next;
        }
        verdict
    }

    /// How long until `quantity` fits, which is not more than the rule's count.
    fn wait(&self, rule: &Rule, quantity: u64, left_ns: u64) -> u64 {
        let period = u128::from(rule.period_ns);
        // With `old` requests that leave evenly in `left_ns`, beside `others`: nanoseconds until few enough are left.
        let until = |old: u64, others: u64, left_ns: u64| {
            let room = u128::from(rule.count.checked_sub(others)?) * period;
            let over = (u128::from(old) * u128::from(left_ns)).saturating_sub(room);
            if over == 0 { Some(0) } else { Some(narrow(over.div_ceil(u128::from(old)))) }
        };
        let here = until(self.last, self.used.saturating_add(quantity), left_ns);
        here.filter(|&wait| wait < left_ns).unwrap_or_else(|| {
            let there = until(self.used, quantity, rule.period_ns).unwrap_or(rule.period_ns);
            left_ns.saturating_add(there)
        })
    }
}

impl State for Counter {
    fn follow(&mut self, rule: &Rule, now_ns: u64) -> bool {
        let set_back = was_set_back(now_ns, self.start_ns, rule.period_ns);
        if set_back {
            self.start_ns = start_of(now_ns, self.period_ns.max(1));
        }
        set_back
    }

    fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        self.check(rule, quantity, now_ns)
    }

    fn encode(&self, out: &mut state::Writer<'_>) {
        out.number(self.period_ns);
        out.number(self.start_ns);
        out.number(self.last);
        out.number(self.used);
    }

    fn decode(from: &mut state::Reader<'_>) -> Option<Self> {
        let (period_ns, start_ns) = (from.up_to(PERIOD_MAX_NS)?, from.up_to(u64::MAX)?);
        let (last, used) = (from.up_to(COUNT_MAX)?, from.up_to(COUNT_MAX)?);
        (period_ns > 0).then_some(Self { period_ns, start_ns, last, used })
    }
}
