//! The sliding log: every request of the last period, exact at the price of a few bytes for each.
//!
//! Invariants: entries ascend in time, those of one time are one; their sum is at most the count of the rule they came
//! under, so that there are at most [`LOG_COUNT_MAX`]. Next: `window.rs` for the estimate in constant space.

use super::{LOG_COUNT_MAX, Rule, State, Verdict, state, was_set_back};

/// A sliding log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Times and quantities.
    entries: Vec<(u64, u64)>,
}

impl Log {
    /// Forgets what is a period old.
    fn advance(&mut self, rule: &Rule, now_ns: u64) {
        self.follow(rule, now_ns);
        let old = |(at, _): &(u64, u64)| at.saturating_add(rule.period_ns) <= now_ns;
        self.entries.drain(..self.entries.iter().take_while(|entry| old(entry)).count());
    }

    /// Asks for `quantity`; 0 only looks.
    pub fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        self.advance(rule, now_ns);
        let used: u64 = self.entries.iter().map(|(_, quantity)| quantity).sum();
        let wanted = used.saturating_add(quantity);
        let allowed = quantity == 0 || wanted <= rule.count;
        let after = |at: u64| at.saturating_add(rule.period_ns).saturating_sub(now_ns);
        let mut retry_after_ns = None;
        if !allowed && quantity <= rule.count {
            let mut over = wanted - rule.count;
            let gone = self.entries.iter().find(|(_, quantity)| {
                over = over.saturating_sub(*quantity);
                over == 0
            });
            retry_after_ns = gone.map(|(at, _)| after(*at));
        }
        if allowed && quantity > 0 {
            match self.entries.last_mut() {
                Some((at, sum)) if *at >= now_ns => *sum += quantity,
                _ => self.entries.push((now_ns, quantity)),
            }
        }
        let used = if allowed { wanted } else { used };
        Verdict {
            allowed,
            limit: rule.count,
            remaining: rule.count.saturating_sub(used),
            retry_after_ns,
            reset_after_ns: self.entries.last().map_or(0, |(at, _)| after(*at)),
        }
    }
}

impl State for Log {
    fn follow(&mut self, rule: &Rule, now_ns: u64) -> bool {
        let newest = self.entries.last().map_or(0, |(at, _)| *at);
        let set_back = was_set_back(now_ns, newest, rule.period_ns);
        if set_back {
            // All of it counts from now on.
            for (at, _) in &mut self.entries {
                *at = now_ns.min(*at);
            }
        }
        set_back
    }

    fn check(&mut self, rule: &Rule, quantity: u64, now_ns: u64) -> Verdict {
        self.check(rule, quantity, now_ns)
    }

    fn encode(&self, out: &mut state::Writer<'_>) {
        let mut before = 0;
        for &(at, quantity) in &self.entries {
            out.number(at - before);
            out.number(quantity);
            before = at;
        }
    }

    fn decode(from: &mut state::Reader<'_>) -> Option<Self> {
        let (mut entries, mut at, mut sum) = (Vec::new(), 0_u64, 0);
        while !from.is_empty() {
            at = at.checked_add(from.up_to(u64::MAX)?)?;
            let quantity = from.up_to(LOG_COUNT_MAX).filter(|&quantity| quantity > 0)?;
            sum += quantity;
            if sum > LOG_COUNT_MAX {
                return None;
            }
            entries.push((at, quantity));
        }
        Some(Self { entries })
    }
}
