//! Which operations a fault acts on: by kind, name and share, until its time or its hits are over. And by chance.
//!
//! Invariant: as in the programs of packets, what it would act on is counted before it is asked whether it may.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Effect, Op, Order, glob};
use crate::abi::Counts;
use crate::error::{Error, Result};
use crate::faults::tally::Tally;
use crate::select::Share;
use crate::time::monotonic_ns;

/// Numbers by chance: good enough to choose with (`SplitMix64`; Steele, Lea, Flood, OOPSLA 2014).
pub(super) struct Chance(AtomicU64);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(super) fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Below a number; 0 for 0.
    pub(super) fn below(&self, most: u64) -> u64 {
        self.next().checked_rem(most).unwrap_or(0)
    }
}

/// The rule of one fault.
pub(super) struct Rule {
    pub(super) order: Order,
    pub(super) chance: Chance,
    pub(super) tally: Arc<Tally>,
    is_over: AtomicBool,
    /// Of those that match.
    number: Mutex<u64>,
    hits: AtomicU64,
}

/// Whether a share is one of operations.
///
/// # Errors
/// It is one of packets.
pub(crate) fn check(share: Share) -> Result<()> {
    share.to_abi(0)?;
    match share {
        Share::Flows(_) | Share::Gilbert { .. } => Err(Error::usage(
            "share: flows and gilbert are of packets; percent, every, first or burst is wanted",
        )),
        _ => Ok(()),
    }
}

impl Rule {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            chance: Chance::new(monotonic_ns() ^ u64::from(std::process::id()) << 40),
            tally: Tally::new(),
            is_over: AtomicBool::new(false),
            number: Mutex::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// Nothing is done any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire) || monotonic_ns() >= self.order.deadline_ns
    }

    /// What is done to an operation; `path` tells where it is, if that matters.
    pub(super) fn judge(&self, op: Op, path: impl FnOnce() -> String) -> Option<&Effect> {
        if self.is_over() {
            return None;
        }
        let order = &self.order;
        let is_meant = order.ops.has(op)
            && order.name.as_ref().is_none_or(|pattern| glob::matches(pattern, &path()));
        let is_chosen = is_meant && self.chooses();
        self.tally.add(Counts {
            seen: 1,
            matched: u64::from(is_meant),
            chosen: u64::from(is_chosen),
            affected: 0,
        });
        if !is_chosen || order.shadow {
            return None;
        }
        let is_left =
            order.max_hits == 0 || self.hits.fetch_add(1, Ordering::Relaxed) < order.max_hits;
        is_left.then_some(&order.effect)
    }

    /// It did.
    pub(super) fn acted(&self) {
        self.tally.affected(1);
    }

    fn chooses(&self) -> bool {
        let number = {
            let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
            *number += 1;
            *number
        };
        match self.order.share {
            Share::All => true,
            Share::Percent(percent) | Share::Flows(percent) => {
                (self.chance.below(1_000_000) as f64) < percent * 10_000.0
            }
            Share::Every(n) => number.checked_rem(u64::from(n)) == Some(0),
            Share::First(n) => number <= u64::from(n),
            Share::Burst { on_ms, period_ms } => {
                let since_ms = monotonic_ns().saturating_sub(self.order.since_ns) / 1_000_000;
                since_ms.checked_rem(u64::from(period_ms)).is_some_and(|at| at < u64::from(on_ms))
            }
            Share::Gilbert { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Ops;

    fn rule(share: Share, max_hits: u64) -> Rule {
        Rule::new(Order {
            id: "t".to_owned(),
            dir: "/".into(),
            effect: Effect::Error { errno: 5 },
            ops: Ops::of(&[Op::Write]),
            name: Some("*.log".to_owned()),
            share,
            since_ns: monotonic_ns(),
            deadline_ns: u64::MAX,
            max_hits,
            shadow: false,
        })
    }

    fn hits(rule: &Rule, count: u64) -> Vec<u64> {
        (1..=count).filter(|_| rule.judge(Op::Write, || "a.log".to_owned()).is_some()).collect()
    }

    #[test]
    fn shares_choose_what_they_say() {
        assert_eq!(hits(&rule(Share::Every(3), 0), 7), [3, 6]);
        assert_eq!(hits(&rule(Share::First(2), 0), 7), [1, 2]);
        assert_eq!(hits(&rule(Share::All, 3), 7), [1, 2, 3]);
        let some = hits(&rule(Share::Percent(30.0), 0), 10_000).len();
        assert!((2700..3300).contains(&some), "{some}");
        assert!(check(Share::Flows(1.0)).is_err() && check(Share::Every(0)).is_err());
    }

    #[test]
    fn others_and_what_comes_after_the_end_are_left_alone() {
        let one = rule(Share::All, 0);
        assert!(one.judge(Op::Read, || "a.log".to_owned()).is_none());
        assert!(one.judge(Op::Write, || "a.old".to_owned()).is_none());
        assert!(one.judge(Op::Write, || "a.log".to_owned()).is_some());
        one.end();
        assert!(one.judge(Op::Write, || "a.log".to_owned()).is_none());
        let counts = one.tally.get();
        assert_eq!((counts.seen, counts.matched, counts.chosen), (3, 1, 1));
    }
}
