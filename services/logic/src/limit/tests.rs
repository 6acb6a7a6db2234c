//! Each algorithm against a reference that keeps the whole history, and against its own promises.
//!
//! The references share no formula with the code: sums over lists of what was allowed, in integers of 128 bits.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;

use super::{gcra::*, *};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;

/// A limiter as a caller has it: bytes between two calls.
#[derive(Clone)]
struct Kept {
    algorithm: Algorithm,
    rule: Rule,
    bytes: Option<Vec<u8>>,
}

impl Kept {
    fn new(algorithm: Algorithm, count: u64, period_ns: u64, burst: Option<u64>) -> Self {
        let rule = Rule::new(algorithm, count, period_ns, burst).expect("a rule in range");
        Self { algorithm, rule, bytes: None }
    }

    fn ask(&mut self, quantity: u64, now_ns: u64) -> Verdict {
        let mut next = Vec::new();
        let kept = self.bytes.as_deref();
        let verdict = check(self.algorithm, &self.rule, kept, quantity, now_ns, &mut next);
        let verdict = verdict.expect("its own bytes");
        if next.is_empty() {
            assert!(!verdict.allowed || quantity == 0);
        } else {
            self.bytes = Some(next);
        }
        verdict
    }
}

/// What was allowed, and when.
#[derive(Default)]
struct History(Vec<(u64, u64)>);

impl History {
    fn within(&self, from_ns: u64, to_ns: u64) -> u64 {
        let inside = |(at, _): &&(u64, u64)| (from_ns..to_ns).contains(at);
        self.0.iter().filter(inside).map(|(_, quantity)| quantity).sum()
    }

    /// A bucket's level in parts of a request: the most by which any stretch of time up to now brought more than leaked.
    fn level(&self, rule: &Rule, now_ns: u64) -> i128 {
        let (mut most, mut brought) = (0, 0);
        for &(at, quantity) in self.0.iter().rev() {
            brought += i128::from(quantity) * i128::from(rule.period_ns);
            let leaked = i128::from(now_ns - at) * i128::from(rule.count);
            most = most.max(brought - leaked);
        }
        most
    }

    /// What remains by the reference, and the most there may be.
    fn remaining(&self, algorithm: Algorithm, rule: &Rule, now_ns: u64) -> u64 {
        let period_ns = rule.period_ns;
        let start_ns = now_ns / period_ns * period_ns;
        let used = match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                let limit = rule.burst + u64::from(algorithm == Algorithm::LeakyBucket);
                let room = i128::from(limit) * i128::from(period_ns);
                let left = (room - self.level(rule, now_ns)).max(0) / i128::from(period_ns);
                return u64::try_from(left).expect("in range");
            }
            Algorithm::FixedWindow => self.within(start_ns, now_ns + 1),
            Algorithm::SlidingLog => self.within(now_ns - period_ns + 1, now_ns + 1),
            Algorithm::SlidingCounter => {
                let old = u128::from(self.within(start_ns - period_ns, start_ns));
                let weight = u128::from(start_ns + period_ns - now_ns);
                let old = narrow((old * weight).div_ceil(u128::from(period_ns)));
                old + self.within(start_ns, now_ns + 1)
            }
        };
        rule.count.saturating_sub(used)
    }
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    (0..Algorithm::ALL.len()).prop_map(|at| Algorithm::ALL[at].1)
}

fn periods() -> impl Strategy<Value = u64> {
    prop_oneof![Just(7), 1..1_000_u64, Just(SECOND), 1..100 * SECOND]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_answer_is_the_references(
        algorithm in algorithms(),
        count in 1..20_u64,
        period_ns in periods(),
        burst in proptest::option::of(1..30_u64),
        steps in proptest::collection::vec((0..2_000_u64, 0..6_u64), 1..120),
    ) {
        let mut kept = Kept::new(algorithm, count, period_ns, burst);
        let mut history = History::default();
        let mut now_ns = START;
        for (step, quantity) in steps {
            now_ns += u64::try_from(u128::from(step) * u128::from(period_ns) / 1_000).unwrap();
            let before = history.remaining(algorithm, &kept.rule, now_ns);
            let earlier = kept.clone();
            let verdict = kept.ask(quantity, now_ns);
            prop_assert_eq!(verdict.allowed, quantity <= before, "{} of {}", quantity, before);
            let taken = if verdict.allowed { quantity } else { 0 };
            prop_assert_eq!(verdict.remaining, before - taken);
            if taken > 0 {
                history.0.push((now_ns, taken));
            }
            // The times are right to the nanosecond.
            match verdict.retry_after_ns {
                Some(wait) if !verdict.allowed => {
                    prop_assert!(earlier.clone().ask(quantity, now_ns + wait).allowed);
                    prop_assert!(!earlier.clone().ask(quantity, now_ns + wait - 1).allowed);
                }
                Some(_) => prop_assert_eq!(algorithm, Algorithm::LeakyBucket),
                None => prop_assert!(verdict.allowed || quantity > verdict.limit),
            }
            let then = now_ns + verdict.reset_after_ns;
            prop_assert_eq!(kept.clone().ask(0, then).remaining, verdict.limit);
            prop_assert_eq!(kept.clone().ask(0, then).reset_after_ns, 0);
        }
    }

    #[test]
    fn bytes_of_anybody_are_refused_or_harmless(
        algorithm in algorithms(),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..40),
        marked in any::<bool>(),
        count in 1..LOG_COUNT_MAX,
        period_ns in 1..=PERIOD_MAX_NS,
        quantity in any::<u64>(),
        now_ns in any::<u64>(),
    ) {
        if marked && let Some(first) = bytes.first_mut() {
            *first = 0xB1 + Algorithm::ALL.iter().position(|a| a.1 == algorithm).unwrap() as u8;
        }
        let rule = Rule::new(algorithm, count, period_ns, None).unwrap();
        let mut next = Vec::new();
        let verdict = check(algorithm, &rule, Some(&bytes), quantity, now_ns, &mut next);
        if let Ok(verdict) = verdict {
            prop_assert!(verdict.remaining <= verdict.limit);
            if !next.is_empty() {
                prop_assert!(check(algorithm, &rule, Some(&next), 0, now_ns, &mut Vec::new()).is_ok());
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away(
        algorithm in algorithms(),
        count in 1..20_u64,
        back in 0..5_000_u64,
        steps in proptest::collection::vec(0..300_u64, 1..100),
    ) {
        let period_ns = SECOND;
        let mut kept = Kept::new(algorithm, count, period_ns, None);
        let mut now_ns = START;
        let mut verdict = kept.ask(1, now_ns);
        while verdict.allowed {
            verdict = kept.ask(1, now_ns);
        }
        // No time has passed since, or less than none.
        let back_ns = back * 1_000_000;
        now_ns -= back_ns;
        prop_assert!(!kept.clone().ask(1, now_ns).allowed);
        // It is usable again a period later than else at the latest, which may be two.
        let wait = kept.clone().ask(1, now_ns).retry_after_ns.unwrap();
        prop_assert!(wait <= 3 * period_ns, "{}", wait);
        // Time that goes to and fro gives no more than time that goes on.
        let mut allowed = 0;
        for (turn, step) in steps.iter().enumerate() {
            let there = START + step * 1_000_000 * u64::from(turn % 2 == 0);
            allowed += u64::from(kept.ask(1, there).allowed);
        }
        prop_assert!(allowed <= 2 * count, "{} of {}", allowed, count);
    }

    #[test]
    fn gcra_never_gives_more_than_its_rate_and_burst(
        burst in 0..20_i64,
        count in 1..50_i64,
        period_s in 1..20_i64,
        steps in proptest::collection::vec((0..2_000_000_000_i64, 0..5_i64), 1..200),
    ) {
        let limit = Gcra::new(burst, count, period_s).unwrap();
        let interval = i128::from(period_s) * 1_000_000_000 / i128::from(count);
        let (mut arrival, mut now) = (None, 1_700_000_000_000_000_000_i64);
        let mut allowed: Vec<(i64, i64)> = Vec::new();
        for (step, quantity) in steps {
            now += step;
            let throttle = limit.check(arrival, quantity, now).unwrap();
            arrival = throttle.arrival_ns.or(arrival);
            // In any stretch of time up to now: what fits in it, and the burst.
            let (mut brought, mut most) = (i128::from(quantity), i128::from(quantity) * interval);
            for &(at, quantity) in allowed.iter().rev() {
                brought += i128::from(quantity);
                most = most.max(brought * interval - i128::from(now - at));
            }
            let fits = most <= interval * i128::from(burst + 1);
            prop_assert_eq!(throttle.limited, !fits);
            if fits && quantity > 0 {
                allowed.push((now, quantity));
            }
            if let Some(wait) = throttle.retry_after_ns {
                prop_assert!(!limit.check(arrival, quantity, now + wait).unwrap().limited);
                prop_assert!(limit.check(arrival, quantity, now + wait - 1).unwrap().limited);
            }
            prop_assert!((0..=burst + 1).contains(&throttle.remaining));
        }
    }
}

/// redis-cell's own cases: now, quantity, remaining, reset, retry, limited; times in milliseconds.
#[test]
fn gcra_answers_the_cases_of_redis_cell() {
    let limit = Gcra::new(4, 1, 1).unwrap();
    let start = 1_700_000_000_000_i64;
    let mut arrival = None;
    for (number, (now, quantity, remaining, reset, retry, limited)) in [
        (0, 6, 5, 0, None, true),
        (0, 1, 4, 1000, None, false),
        (0, 1, 3, 2000, None, false),
        (0, 1, 2, 3000, None, false),
        (0, 1, 1, 4000, None, false),
        (0, 1, 0, 5000, None, false),
        (0, 1, 0, 5000, Some(1000), true),
        (3000, 1, 2, 3000, None, false),
        (3100, 1, 1, 3900, None, false),
        (4000, 1, 1, 4000, None, false),
        (8000, 1, 4, 1000, None, false),
        (9500, 1, 4, 1000, None, false),
        (9500, 0, 4, 1000, None, false),
        (9500, 2, 2, 3000, None, false),
        (9500, 5, 2, 3000, Some(3000), true),
    ]
    .into_iter()
    .enumerate()
    {
        let throttle = limit.check(arrival, quantity, (start + now) * 1_000_000).unwrap();
        arrival = throttle.arrival_ns.or(arrival);
        let found = (
            throttle.remaining,
            throttle.reset_after_ns / 1_000_000,
            throttle.retry_after_ns.map(|ns| ns / 1_000_000),
            throttle.limited,
        );
        assert_eq!(found, (remaining, reset, retry, limited), "case {number}");
    }
}

#[test]
fn gcra_refuses_what_does_not_fit() {
    assert_eq!(Gcra::new(-1, 1, 1), Err(Refused::Range));
    assert_eq!(Gcra::new(1, 0, 1), Err(Refused::ZeroRate));
    assert_eq!(Gcra::new(1, 1, 0), Err(Refused::ZeroRate));
    assert_eq!(Gcra::new(1, i64::MAX, 1), Err(Refused::ZeroRate));
    assert_eq!(Gcra::new(1, 1, i64::MAX), Err(Refused::Range));
    assert_eq!(Gcra::new(i64::MAX, 1, 1), Err(Refused::Range));
    let limit = Gcra::new(1, 1, 1).unwrap();
    assert_eq!(limit.check(None, i64::MAX, 0), Err(Refused::Range));
    assert_eq!(limit.check(Some(i64::MAX), 1, 0), Err(Refused::Range));
    assert_eq!(limit.check(None, -1, 0), Err(Refused::Range));
    assert_eq!((shown_s(1), shown_s(1_000_000), shown_s(1_000_000_000)), (0, 1, 1));
}

/// What a bucket allows of a load above its rate, over a million steps of a time that no period divides.
fn allowed_of_a_million<const QUEUE: bool>(rule: &Rule, step_ns: u64) -> u128 {
    let mut bucket = Bucket::<QUEUE>::default();
    let ask = |step: u64| bucket.check(rule, 1, START + step * step_ns).allowed;
    (0..=1_000_000).map(ask).map(u128::from).sum()
}

#[test]
fn a_million_steps_do_not_drift() {
    for (count, period_ns, step_ns) in [(3, SECOND, 1_234_567), (1_000, 7_777_777, 3_333)] {
        let rule = Rule::new(Algorithm::TokenBucket, count, period_ns, Some(10)).unwrap();
        let passed_ns = u128::from(1_000_000 * step_ns);
        let leaked = passed_ns * u128::from(count) / u128::from(period_ns);
        assert_eq!(allowed_of_a_million::<false>(&rule, step_ns), 10 + leaked);
        assert_eq!(allowed_of_a_million::<true>(&rule, step_ns), 11 + leaked);
    }
    let limit = Gcra::new(9, 3, 1).unwrap();
    let (mut arrival, mut allowed) = (None, 0);
    for step in 0..=1_000_000_i64 {
        let throttle = limit.check(arrival, 1, 1_700_000_000_000_000_000 + step * 1_234_567);
        let throttle = throttle.unwrap();
        arrival = throttle.arrival_ns.or(arrival);
        allowed += i64::from(!throttle.limited);
    }
    assert_eq!(allowed, 10 + 1_000_000 * 1_234_567 / 333_333_333);
}

#[test]
fn a_leaky_bucket_tells_when_each_turn_is_as_nginx_does() {
    // limit_req: rate=10r/s, burst=3.
    let mut kept = Kept::new(Algorithm::LeakyBucket, 10, SECOND, Some(3));
    let turns: Vec<_> = (0..5).map(|_| kept.ask(1, START)).collect();
    let delays: Vec<_> = turns.iter().map(|turn| (turn.allowed, turn.retry_after_ns)).collect();
    let ms = |ms: u64| Some(ms * 1_000_000);
    let expected =
        [(true, ms(0)), (true, ms(100)), (true, ms(200)), (true, ms(300)), (false, ms(100))];
    assert_eq!(delays, expected);
    let without = Kept::new(Algorithm::LeakyBucket, 10, SECOND, None).ask(1, START);
    assert_eq!((without.allowed, without.limit, without.remaining), (true, 1, 0));
}

#[test]
fn another_rule_takes_over_what_was_used() {
    let mut bucket = Kept::new(Algorithm::TokenBucket, 10, SECOND, None);
    assert_eq!(bucket.ask(6, START).remaining, 4);
    bucket.rule = Rule::new(Algorithm::TokenBucket, 100, 60 * SECOND, Some(10)).unwrap();
    assert_eq!(bucket.ask(0, START).remaining, 4);
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingCounter, Algorithm::SlidingLog] {
        let mut kept = Kept::new(algorithm, 10, SECOND, None);
        assert_eq!(kept.ask(6, START).remaining, 4);
        kept.rule = Rule::new(algorithm, 10, 60 * SECOND, None).unwrap();
        assert_eq!(kept.ask(0, START).remaining, 4, "{algorithm:?}");
        kept.rule = Rule::new(algorithm, 3, 60 * SECOND, None).unwrap();
        let less = kept.ask(1, START);
        assert_eq!((less.allowed, less.remaining, less.limit), (false, 0, 3), "{algorithm:?}");
    }
}

#[test]
fn states_are_small_and_told_apart() {
    for (name, algorithm) in Algorithm::ALL {
        let mut kept = Kept::new(algorithm, 1_000, 60 * SECOND, None);
        for step in 0..10 {
            kept.ask(1, START + step * SECOND);
        }
        let len = kept.bytes.as_ref().map_or(0, Vec::len);
        let most = if algorithm == Algorithm::SlidingLog { 80 } else { 32 };
        assert!(len <= most, "{name}: {len} bytes");
        for (other, wrong) in Algorithm::ALL {
            let rule = Rule::new(wrong, 1_000, 60 * SECOND, None).unwrap();
            let found = check(wrong, &rule, kept.bytes.as_deref(), 1, START, &mut Vec::new());
            assert_eq!(found.is_ok(), wrong == algorithm, "{name} as {other}");
        }
        assert_eq!(Algorithm::named(name.to_uppercase().as_bytes()), Some(algorithm));
    }
    assert_eq!(Algorithm::named(b"bucket"), None);
}

#[test]
fn rules_have_bounds() {
    let rule = |algorithm, count, period, burst| Rule::new(algorithm, count, period, burst);
    for (_, algorithm) in Algorithm::ALL {
        assert!(rule(algorithm, 0, 1, None).is_none());
        assert!(rule(algorithm, 1, 0, None).is_none());
        assert!(rule(algorithm, 1, PERIOD_MAX_NS + 1, None).is_none());
        assert!(rule(algorithm, 1, PERIOD_MAX_NS, None).is_some());
        let most = if algorithm == Algorithm::SlidingLog { LOG_COUNT_MAX } else { COUNT_MAX };
        assert!(rule(algorithm, most, 1, None).is_some());
        assert!(rule(algorithm, most + 1, 1, None).is_none());
        let mut kept = Kept::new(algorithm, most, PERIOD_MAX_NS, None);
        assert!(kept.ask(1, u64::MAX - PERIOD_MAX_NS).allowed);
        assert!(!kept.ask(u64::MAX, START).allowed);
    }
    assert!(rule(Algorithm::TokenBucket, 1, 1, Some(COUNT_MAX + 1)).is_none());
    assert!(rule(Algorithm::TokenBucket, 1, 1, Some(0)).is_none());
    assert!(rule(Algorithm::LeakyBucket, 1, 1, Some(0)).is_some());
}
