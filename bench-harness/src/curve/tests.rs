//! Curves of a known queue in virtual time.

use super::*;
use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::load::trial::Timing;
use crate::load::{Arrivals, Workload};
use crate::pathology::{Mode, simulate};
use crate::peers::Protocol;

/// Trials of M/D/1 with a service time of 1 ms, each so many virtual seconds long.
fn queue(seconds: u64) -> impl FnMut(f64, u64) -> Result<Trial> {
    move |rate, seed| {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.keys = 1_000;
        workload.seed = seed;
        workload.arrivals = Arrivals::Open { rate, poisson: true };
        let timing = Timing { warmup_ns: SECOND_NS, duration_ns: seconds * SECOND_NS };
        simulate::run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, timing)
    }
}

fn curve(
    mut run_at: impl FnMut(f64, u64) -> Result<Trial>,
    repeats: usize,
    rates: &Rates,
) -> Result<Curve> {
    let mut lines = 0;
    let mut progress = |_: &str| lines += 1;
    let curve = run(&mut Runner::new(&mut run_at, repeats, 1, &mut progress), rates);
    assert!(lines > 0 || curve.is_err());
    curve
}

/// ρ (1 − ρ) / (2 − ρ) is greatest at 2 − √2.
const KNEE_LOAD: f64 = 2.0 - std::f64::consts::SQRT_2;

#[test]
fn mean_wait_and_knee_of_a_known_queue_are_those_of_pollaczek_and_khinchine() {
    let rates = (2..=9).map(|step| f64::from(step) * 100.0).collect();
    let curve = curve(queue(300), 3, &Rates::Listed(rates)).expect("a curve");
    assert_eq!(curve.points.len(), 8);
    for point in curve.points.iter().filter(|point| point.offered <= 850.0) {
        let load = point.offered / 1_000.0;
        let wait_ns = load * 1e6 / (2.0 * (1.0 - load));
        let found_ns = point.latency.mean_ns as f64 - 1e6;
        assert!((found_ns / wait_ns - 1.0).abs() < 0.05, "{load}: {found_ns} for {wait_ns}");
        assert!(point.is_sound() && point.doubt.is_none(), "{point:?}");
    }
    let knee = curve.knee.expect("a knee");
    assert!((knee.rate / (KNEE_LOAD * 1_000.0) - 1.0).abs() < 0.05, "{knee:?}");
    let text = curve.text();
    assert_eq!(text.lines().count(), 9);
    assert!(text.contains("knee at"), "{text}");
}

#[test]
fn an_automatic_curve_finds_saturation_and_the_knee() {
    let rates = Rates::Automatic { from: 100.0, points: 12 };
    let curve = curve(queue(150), 3, &rates).expect("a curve");
    let most = curve.points.iter().map(|point| point.achieved).fold(0.0, f64::max);
    assert!((most / 1_000.0 - 1.0).abs() < 0.02, "{most}");
    // 100, 200, … 1600 on the way, and twelve more.
    assert_eq!(curve.points.len(), 17);
    let last = curve.points.last().expect("points");
    assert!(!last.is_sound() && last.doubt.is_some(), "{last:?}");
    let knee = curve.knee.expect("a knee");
    assert!((knee.rate / (KNEE_LOAD * 1_000.0) - 1.0).abs() < 0.05, "{knee:?}");
}

#[test]
fn arrivals_that_are_few_by_chance_are_no_saturation() {
    let rates = (0..30).map(|step| 40.0 + f64::from(step)).collect();
    let curve = curve(queue(1), 1, &Rates::Listed(rates)).expect("a curve");
    let by_chance = |point: &&Point| point.achieved < 0.9 * point.offered;
    assert!(curve.points.iter().filter(by_chance).count() > 0, "some of thirty");
    for point in &curve.points {
        assert!(point.is_sound() && point.doubt.is_none(), "{point:?}");
    }
}

#[test]
fn a_client_that_lags_at_low_rates_does_not_end_an_automatic_curve() {
    let mut clean = queue(150);
    let lagging = |rate: f64, seed| {
        let mut trial = clean(rate, seed)?;
        if rate < 300.0 {
            trial.rate *= 0.5;
            trial.limit = Limit::Client;
            trial.limit_why = Some("client-bound: the schedule's lag".to_owned());
        }
        Ok(trial)
    };
    let curve = curve(lagging, 1, &Rates::Automatic { from: 100.0, points: 6 }).expect("a curve");
    let most = curve.points.iter().map(|point| point.achieved).fold(0.0, f64::max);
    assert!((most / 1_000.0 - 1.0).abs() < 0.03, "{most}");
}

#[test]
fn a_curve_without_a_knee_says_why() {
    let before = curve(queue(100), 1, &Rates::Listed(vec![100.0, 200.0, 300.0])).expect("a curve");
    assert!(before.knee.is_none() && before.text().contains("beyond"), "{}", before.text());
    let beyond = curve(queue(20), 1, &Rates::Listed(vec![1_500.0, 2_000.0])).expect("a curve");
    assert!(beyond.text().contains("0 of 2 points"), "{}", beyond.text());
}

#[test]
fn points_bound_by_the_client_are_run_again_and_never_shape_the_knee() {
    let mut calls = 0;
    let mut clean = queue(20);
    let run_at = |rate: f64, seed| {
        calls += 1;
        let mut trial = clean(rate, seed)?;
        // The first trial by chance, and all at one rate.
        if calls == 1 || rate == 600.0 {
            trial.limit = Limit::Client;
            trial.limit_why = Some("client-bound: tried".to_owned());
        }
        Ok(trial)
    };
    let rates = Rates::Listed(vec![400.0, 600.0, 800.0]);
    let curve = curve(run_at, 3, &rates).expect("a curve");
    assert_eq!(calls, (3 + 1) + (3 + AGAIN_MAX) + 3);
    let bound: Vec<usize> = curve.points.iter().map(|point| point.client_bound).collect();
    assert_eq!(bound, [0, 3, 0]);
    assert!(curve.points[1].doubt.as_deref().is_some_and(|doubt| doubt.contains("client-bound")));
    assert!(curve.knee.is_none(), "two points are left");
}

#[test]
fn rates_without_sense_and_trials_that_fail_are_errors() {
    for rates in [vec![], vec![0.0], vec![-5.0], vec![f64::NAN], vec![1.0; POINTS_MAX + 1]] {
        assert!(curve(queue(1), 1, &Rates::Listed(rates)).is_err());
    }
    let failing = |_: f64, _| -> Result<Trial> { bail!("the server left") };
    let error = curve(failing, 1, &Rates::Listed(vec![100.0])).expect_err("it fails");
    assert_eq!(format!("{error:#}"), "a trial at 100 requests a second: the server left");
}

#[test]
fn the_top_of_a_parabola() {
    let points: Vec<(f64, f64)> =
        [1.0, 2.0, 4.0, 7.0].iter().map(|&x: &f64| (x, 5.0 - (x - 3.0).powi(2))).collect();
    assert!((parabola_top(&points).expect("a top") - 3.0).abs() < 1e-9);
    assert_eq!(parabola_top(&points[..2]), None);
    assert_eq!(parabola_top(&[(1.0, 0.0), (2.0, 1.0), (3.0, 4.0)]), None, "it opens upwards");
    assert_eq!(parabola_top(&[(1.0, 0.0), (1.0, 1.0), (1.0, 4.0)]), None);
}
