//! The search against a known queue in virtual time, and what must never pass.

use super::*;
use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::load::trial::{Limit, Timing, Trial};
use crate::load::{Arrivals, Workload};
use crate::pathology::{Mode, simulate};
use crate::peers::Protocol;

/// M/D/1 with a service time of 1 ms.
fn queue(connections: usize, seconds: u64) -> impl FnMut(f64, u64) -> Result<Trial> {
    move |rate, seed| {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.keys = 1_000;
        workload.connections = connections;
        workload.seed = seed;
        workload.arrivals = Arrivals::Open { rate, poisson: true };
        let timing = Timing { warmup_ns: SECOND_NS, duration_ns: seconds * SECOND_NS };
        simulate::run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, timing)
    }
}

fn search(
    mut run_at: impl FnMut(f64, u64) -> Result<Trial>,
    goal: &str,
    from: f64,
) -> Result<Found> {
    let search = Search { goal: goal.parse().expect("a goal"), from, precision: 0.01 };
    let mut progress = |_: &str| {};
    find_max(&mut Runner::new(&mut run_at, 3, 1, &mut progress), &search)
}

/// P(W ≤ t) of M/D/1, t in service times (Erlang): (1 − ρ) Σₖ (−ρ(t − k))ᵏ / k! · e^(ρ(t − k)).
fn share_waiting_at_most(load: f64, t: f64) -> f64 {
    let mut sum = 0.0;
    for k in 0..=(t.floor() as i32) {
        let x = load * (t - f64::from(k));
        let factorial: f64 = (1..=k).map(f64::from).product();
        sum += (-x).powi(k) / factorial * x.exp();
    }
    (1.0 - load) * sum
}

/// The load at which that share is `quantile`.
fn load_of(quantile: f64, t: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if share_waiting_at_most(middle, t) > quantile { low = middle } else { high = middle }
    }
    low
}

#[test]
fn the_rate_of_theory_is_found() {
    let goals = [
        ("p99<5ms", 0.99, 5.0, 50.0),
        ("p99 < 3ms", 0.99, 3.0, 3_000.0),
        ("p90<2500us", 0.9, 2.5, 300.0),
        ("p99.9<8ms", 0.999, 8.0, 600.0),
    ];
    for (goal, quantile, below_ms, from) in goals {
        let expected = load_of(quantile, below_ms - 1.0) * 1_000.0;
        let found = search(queue(50, 150), goal, from).expect("a search");
        let rate = found.rate.expect("a rate");
        assert!((rate / expected - 1.0).abs() < 0.05, "{goal}: {rate} for {expected}");
        let refused = found.refused.as_ref().expect("a higher one failed");
        assert!(refused.rate > rate && refused.rate / rate < 1.011 && !refused.by_client);
        assert!(found.text().contains("holds up to"), "{}", found.text());
    }
}

#[test]
fn a_bound_below_the_service_time_holds_nowhere() {
    let found = search(queue(50, 10), "p50<900us", 100.0).expect("a search");
    assert_eq!(found.rate, None);
    assert!(found.points.len() < 10, "{}", found.points.len());
    assert!(found.text().contains("at no rate"), "{}", found.text());
}

#[test]
fn a_search_downwards_ends_before_trials_are_empty() {
    // Trials of a second: 10, and 5 are asked for by chance, and then perhaps nothing.
    for from in [30.0, 10.0, 5.0] {
        let found = search(queue(50, 1), "p50<900us", from).expect("no trial without a reply");
        assert_eq!(found.rate, None);
        let least = found.points.iter().map(|point| point.replies).min();
        assert!(found.points.len() <= 3 && least > Some(0), "{found:?}");
    }
}

#[test]
fn missed_arrivals_are_no_pass_however_wide_the_bound() {
    // One connection has room for 1,024 requests, which take a second.
    let found = search(queue(1, 50), "max<50s", 100.0).expect("a search");
    let rate = found.rate.expect("a rate");
    assert!((900.0..1_060.0).contains(&rate), "{rate}");
    assert!(found.points.iter().any(|point| point.missed > 0));
    assert!(found.points.iter().filter(|point| point.missed > 0).all(|point| point.offered > rate));
}

#[test]
fn trials_bound_by_the_client_are_no_pass_and_are_said_to_be_the_clients() {
    let full = |above: f64| {
        let mut clean = queue(50, 20);
        move |rate: f64, seed| {
            let mut trial = clean(rate, seed)?;
            if rate > above {
                trial.limit = Limit::Client;
                trial.limit_why = Some("client-bound: its core was 99 % busy".to_owned());
                trial.client_busy = 0.99;
            }
            Ok(trial)
        }
    };
    let found = search(full(300.0), "p99<100ms", 50.0).expect("a search");
    let rate = found.rate.expect("a rate");
    assert!((290.0..=300.0).contains(&rate), "{rate}");
    assert!(found.refused.as_ref().is_some_and(|refused| refused.by_client));
    assert!(found.text().contains("the server may do better"), "{}", found.text());
    let found = search(full(0.0), "p99<100ms", 50.0).expect("a search");
    assert_eq!(found.rate, None);
}

#[test]
fn a_lag_at_low_rates_does_not_end_the_search() {
    let mut clean = queue(50, 100);
    let lagging = |rate: f64, seed| {
        let mut trial = clean(rate, seed)?;
        if rate < 200.0 {
            trial.limit = Limit::Client;
            trial.limit_why = Some("client-bound: the schedule's lag".to_owned());
        }
        Ok(trial)
    };
    let found = search(lagging, "p99<5ms", 50.0).expect("a search");
    let expected = load_of(0.99, 4.0) * 1_000.0;
    assert!((found.rate.expect("a rate") / expected - 1.0).abs() < 0.05, "{found:?}");
}

#[test]
fn a_quantile_of_too_few_replies_is_no_pass() {
    // Trials of a second: below 100 a second, no p99.
    let found = search(queue(50, 1), "p99<100ms", 20.0).expect("a search");
    assert!(found.rate.expect("a rate") > 500.0, "{found:?}");
    let found = search(queue(50, 1), "p99<1ms", 150.0).expect("a search");
    assert_eq!(found.rate, None);
    assert!(found.text().contains("too few for p99"), "{}", found.text());
}

#[test]
fn goals_are_read_and_others_refused() {
    let goal: Goal = "p99.9<1.5ms".parse().expect("a goal");
    assert_eq!(goal, Goal { figure: Figure::P999, below_ns: 1_500_000 });
    assert_eq!(goal.to_string(), "p99.9 < 1.50 ms");
    assert_eq!(" max < 2s ".parse::<Goal>().expect("a goal").figure, Figure::Max);
    for text in ["p99", "p98<1ms", "p99<1", "p99<0ms", "p99>1ms", "<1ms", "p99<", "p99<=1ms"] {
        assert!(text.parse::<Goal>().is_err(), "{text:?}");
    }
    assert!(search(queue(1, 1), "p99<1ms", 0.0).is_err());
    assert!(search(queue(1, 1), "p99<1ms", f64::NAN).is_err());
}
