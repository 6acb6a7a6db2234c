//! The generator's books against queueing theory, in virtual time: exact, and the same on any machine.
//!
//! Each open-loop figure is within 2 % of the analytic distribution where there is one; the closed-loop
//! control must miss the stall, or the other tests would prove nothing.

use bench_harness::clock::{MICROSECOND_NS, MILLISECOND_NS, SECOND_NS};
use bench_harness::load::arrivals::{Schedule, Step};
use bench_harness::load::tally::Tally;
use bench_harness::load::trial::{Limit, Timing, Trial};
use bench_harness::load::{Arrivals, Workload};
use bench_harness::pathology::{Mode, simulate};
use bench_harness::peers::Protocol;

const STALL_NS: u64 = 100 * MILLISECOND_NS;
const PERIOD_NS: u64 = 500 * MILLISECOND_NS;
const STALL: Mode = Mode::Stall { every_ns: PERIOD_NS, stall_ns: STALL_NS };

fn load(connections: usize, arrivals: Arrivals) -> Workload {
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = connections;
    workload.keys = 10_000;
    workload.arrivals = arrivals;
    workload
}

fn run(workload: &Workload, mode: Mode, seconds: u64) -> (Trial, Tally) {
    let timing = Timing { warmup_ns: SECOND_NS, duration_ns: seconds * SECOND_NS };
    simulate::run_with_tally(workload, mode, timing).expect("a trial")
}

fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let off = (found / expected - 1.0).abs();
    assert!(off <= tolerance, "{what}: {found} for {expected}, {:.2} % off", off * 100.0);
}

/// An arrival `u` into the stall waits for the rest of it: P(latency > x) = (stall − x) / period.
#[test]
fn a_stall_is_reported_for_all_it_delays() {
    for (poisson, rate, seconds) in [(false, 9_973.0, 20), (true, 20_000.0, 50)] {
        let workload = load(20, Arrivals::Open { rate, poisson });
        let (trial, tally) = run(&workload, STALL, seconds);
        close(trial.rate, rate, 0.02, "rate");
        for quantile in [0.85, 0.90, 0.95, 0.99, 0.999] {
            let expected = STALL_NS as f64 - (1.0 - quantile) * PERIOD_NS as f64;
            let found = tally.latency.value_at_quantile(quantile) as f64;
            close(found, expected, 0.02, &format!("poisson {poisson}, quantile {quantile}"));
        }
        let mean = (STALL_NS as f64).powi(2) / (2.0 * PERIOD_NS as f64);
        close(trial.latency.mean_ns as f64, mean, 0.02, "mean");
        close(trial.latency.max_ns as f64, STALL_NS as f64, 0.02, "max");
        // At once, and so before and after the stall: a fifth of the time.
        let delayed = 1.0 - tally.latency.percentile_below(MICROSECOND_NS) / 100.0;
        close(delayed, 0.2, 0.02, "share delayed");
        assert_eq!((trial.missed, trial.limit), (0, Limit::Neither));
        assert_eq!(trial.offered, trial.started);
    }
}

#[test]
fn a_closed_loop_misses_the_stall() {
    let closed = load(1, Arrivals::Closed { pipeline: 1 });
    // A request takes 100 µs; in 400 ms there are 4,000, and one of them meets the stall.
    let (trial, _) = run(&closed, Mode::Md1 { service_ns: 100 * MICROSECOND_NS }, 5);
    close(trial.service.p99_ns as f64, 100.0 * MICROSECOND_NS as f64, 0.02, "control");
    let (trial, _) = run(&closed, STALL, 5);
    assert!(trial.latency.p999_ns < MILLISECOND_NS, "{:?}", trial.latency);
    close(trial.latency.max_ns as f64, STALL_NS as f64, 0.02, "the one that met it");
}

/// Pollaczek–Khinchine for equal service times: the mean wait is ρ / (2 μ (1 − ρ)).
#[test]
fn one_queue_has_the_mean_wait_of_theory() {
    let service_ns = MILLISECOND_NS as f64;
    for load_share in [0.2_f64, 0.5, 0.7, 0.8] {
        let rate = load_share * SECOND_NS as f64 / service_ns;
        let workload = load(50, Arrivals::Open { rate, poisson: true });
        let (trial, tally) = run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, 2_000);
        let wait = load_share * service_ns / (2.0 * (1.0 - load_share));
        close(trial.latency.mean_ns as f64, service_ns + wait, 0.02, &format!("{load_share}"));
        close(trial.latency.mean_ns as f64 - service_ns, wait, 0.05, &format!("{load_share}"));
        // Nobody waits with probability 1 − ρ.
        let prompt = tally.latency.percentile_below(MILLISECOND_NS + MICROSECOND_NS) / 100.0;
        close(prompt, 1.0 - load_share, 0.02, &format!("{load_share}, prompt"));
        for quantile in [0.9, 0.99, 0.999] {
            let found = tally.latency.value_at_quantile(quantile) as f64;
            let expected = service_ns + wait_quantile(load_share, quantile) * service_ns;
            close(found, expected, 0.04, &format!("{load_share}, quantile {quantile}"));
        }
    }
}

/// The quantile of the wait of M/D/1 in service times, from Erlang's distribution
/// P(W ≤ t) = (1 − ρ) Σₖ (−ρ(t − k))ᵏ / k! · e^(ρ(t − k)), k from 0 to ⌊t⌋.
fn wait_quantile(load_share: f64, quantile: f64) -> f64 {
    let below = |t: f64| {
        let mut sum = 0.0;
        for k in 0..=(t.floor() as i32) {
            let x = load_share * (t - f64::from(k));
            let factorial: f64 = (1..=k).map(f64::from).product();
            sum += (-x).powi(k) / factorial * x.exp();
        }
        (1.0 - load_share) * sum
    };
    let (mut low, mut high) = (0.0, 25.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) < quantile { low = middle } else { high = middle }
    }
    high
}

#[test]
fn two_service_times_have_their_shares_and_their_mean_wait() {
    let (fast_ns, slow_ns, share) = (MILLISECOND_NS, 20 * MILLISECOND_NS, 0.1);
    let mode = Mode::Bimodal { fast_ns, slow_ns, share };
    let between = 10 * MILLISECOND_NS;
    let (_, tally) = run(&load(50, Arrivals::Closed { pipeline: 1 }), mode, 50);
    let slow = 1.0 - tally.latency.percentile_below(between) / 100.0;
    close(slow, share, 0.02, "closed loop");
    // Each connection is a queue of its own with a fiftieth of the arrivals.
    let rate = 5_000.0;
    let (trial, tally) = run(&load(50, Arrivals::Open { rate, poisson: true }), mode, 200);
    let per_ns = rate / 50.0 / SECOND_NS as f64;
    let mean = (1.0 - share) * fast_ns as f64 + share * slow_ns as f64;
    let square = (1.0 - share) * (fast_ns as f64).powi(2) + share * (slow_ns as f64).powi(2);
    let wait = per_ns * square / (2.0 * (1.0 - per_ns * mean));
    close(trial.latency.mean_ns as f64, mean + wait, 0.02, "mean");
    // In open loop a request waits behind a slow one: more than the slow share is slow.
    assert!(1.0 - tally.latency.percentile_below(between) / 100.0 > share);
}

#[test]
fn waiting_on_the_clients_side_is_latency_and_not_service() {
    // One connection and a server that is away: requests leave at once, and both times are equal.
    let workload = load(4, Arrivals::Open { rate: 500.0, poisson: true });
    let (trial, _) = run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, 100);
    assert_eq!(trial.latency.p99_ns, trial.service.p99_ns);
    assert!(trial.service.mean_ns > 1_400_000, "{:?}", trial.service);
    assert!(trial.lag.max_ns <= 2, "{:?}", trial.lag);
}

#[test]
fn beyond_saturation_arrivals_are_missed_and_counted() {
    let workload = load(1, Arrivals::Open { rate: 2_000.0, poisson: true });
    let (trial, _) = run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, 10);
    close(trial.rate, 1_000.0, 0.02, "rate");
    assert!(trial.missed > 8_000, "{trial:?}");
    assert_eq!(trial.started, trial.offered - trial.missed);
    assert_eq!((trial.limit, trial.unanswered), (Limit::Server, 1_024));
    assert!(trial.oldest_unanswered_ns > 900 * MILLISECOND_NS);
}

#[test]
fn a_load_in_steps_and_a_replayed_one_arrive_as_they_say() {
    let steps = [(2, 200.0), (2, 800.0)]
        .map(|(seconds, rate)| Step { length_ns: seconds * SECOND_NS, rate })
        .to_vec();
    let workload = load(10, Arrivals::Steps { steps, poisson: false });
    let timing = Timing { warmup_ns: 0, duration_ns: 5 * SECOND_NS };
    let trial = simulate::run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, timing);
    let trial = trial.expect("a trial");
    assert!(trial.offered.abs_diff(2_000) <= 1, "{trial:?}");
    // Bursts of ten, again and again: the last of each waits for nine others.
    let schedule = Schedule::new(&[50 * MILLISECOND_NS; 10]).expect("a schedule");
    let workload = load(10, Arrivals::Replay { schedule, looped: true });
    let (trial, _) = run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, 10);
    close(trial.latency.max_ns as f64, 10.0 * MILLISECOND_NS as f64, 0.02, "max");
    close(trial.latency.mean_ns as f64, 5.5 * MILLISECOND_NS as f64, 0.02, "mean");
}

#[test]
fn wrong_servers_end_the_trial_with_what_they_did() {
    let timing = Timing { warmup_ns: 100 * MILLISECOND_NS, duration_ns: 200 * MILLISECOND_NS };
    let ends = |mode, pipeline| {
        let workload = load(3, Arrivals::Closed { pipeline });
        let error = simulate::run(&workload, mode, timing).expect_err("a wrong server");
        format!("{error:#}")
    };
    assert!(ends(Mode::Reset { after: 0 }, 1).contains("reset by the server"));
    assert!(ends(Mode::Reset { after: 100 }, 1).contains("reset by the server"));
    assert!(ends(Mode::Wrong { every: 1_000 }, 1).contains("value of another key"));
    assert!(ends(Mode::Reorder, 2).contains("value of another key"));
    // Requests of one arrive alone, so there is nothing to reorder.
    assert!(
        simulate::run(&load(3, Arrivals::Closed { pipeline: 1 }), Mode::Reorder, timing).is_ok()
    );
    let never = Mode::Late { late_ns: 60 * SECOND_NS };
    assert!(
        ends(never, 1).contains("3 requests wait, the oldest for 0.300 s"),
        "{}",
        ends(never, 1)
    );
    // 71 gaps after the first byte.
    let drain = Mode::Drain { gap_ns: MILLISECOND_NS };
    let trial = simulate::run(&load(3, Arrivals::Closed { pipeline: 1 }), drain, timing);
    let latency = trial.expect("slow, and right").latency;
    assert_eq!(latency.p50_ns / MILLISECOND_NS, 70, "{latency:?}");
}
