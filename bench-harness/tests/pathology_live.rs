//! The load against misbehaving servers on sockets: what virtual time says, the sockets must give.
//!
//! Rates are low and times long, so that a scheduler's 50 µs are no per cent. A machine that others use
//! adds more, so a server that takes a fixed time is measured beside each, and what it takes longer may be
//! added to 2 %; nothing may be taken away. Each measurement has [`TRIES`] tries; one in which this
//! process waited for a core for more than [`WAIT_MAX`] of the time is no evidence, and where all were
//! such, that is printed instead of a verdict. That the figures themselves are right is proven in
//! `pathology_virtual`, where no machine can spoil them; this proves the transports.

use bench_harness::clock::{self, MICROSECOND_NS, MILLISECOND_NS, SECOND_NS};
use bench_harness::load::trial::{self, Latency, Limit, Timing, Transport, Trial};
use bench_harness::load::{Arrivals, Target, Workload};
use bench_harness::pathology::serve::Running;
use bench_harness::pathology::{Mode, simulate};
use bench_harness::peers::Protocol;
use bench_harness::process::Server;

/// Runs of a measurement, for noise.
const TRIES: usize = 3;
/// Share of the time the client or the server may have waited for a core.
const WAIT_MAX: f64 = 0.02;
/// How a complaint about such a try begins.
const DISTURBED: &str = "disturbed";
/// Longest a trial of two seconds may take, ends and all.
const BOUND_NS: u64 = 10 * SECOND_NS;
/// What a loopback and two wake-ups may add or take, beside two per cent.
const LOOPBACK_NS: f64 = 200e3;
/// How often a request may meet what the control meets once: in its queue, in its server, as its reply.
const DELAYS: f64 = 3.0;

const TIMING: Timing = Timing { warmup_ns: 500 * MILLISECOND_NS, duration_ns: 2 * SECOND_NS };

fn load(connections: usize, arrivals: Arrivals) -> Workload {
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = connections;
    workload.keys = 1_000;
    workload.arrivals = arrivals;
    workload
}

fn start(mode: Mode) -> Running {
    Running::start(mode, ([127, 0, 0, 1], 0).into(), 64).expect("it listens")
}

fn run(workload: &Workload, mode: Mode, transport: Transport) -> anyhow::Result<Trial> {
    let server = start(mode);
    let targets = [Target::all_keys(server.addr())];
    let process = Server::watch(std::process::id()).expect("this process");
    let began_ns = clock::mono_ns();
    let trial = trial::run(workload, &targets, &process, 0, transport, TIMING);
    let took_ns = clock::mono_ns() - began_ns;
    assert!(took_ns < BOUND_NS, "{mode:?} kept the load for {took_ns} ns");
    trial
}

/// Whether `check` is content with one of a few runs; the last complaint otherwise, unless none of them
/// was evidence.
fn in_some_try(check: impl Fn() -> Result<(), String>) {
    let mut complaint = None;
    for attempt in 1..=TRIES {
        let Err(why) = check() else { return };
        eprintln!("try {attempt} of {TRIES}: {why}");
        if !why.starts_with(DISTURBED) {
            complaint = Some(why);
        }
    }
    match complaint {
        Some(why) => panic!("in none of {TRIES} tries: {why}"),
        None => eprintln!("not judged: others had the cores in all {TRIES} tries"),
    }
}

/// What was found of `trial`, unless others had the core.
fn excuse(trial: &Trial, found: Result<(), String>) -> Result<(), String> {
    // The process that is watched is this one, with both the client and the server.
    let waited = trial.server_wait;
    found.map_err(|why| {
        let percent = waited * 100.0;
        if waited > WAIT_MAX { format!("{DISTURBED}, {percent:.1} % waited: {why}") } else { why }
    })
}

/// What this machine adds to requests at this moment: latencies of a server that takes a fixed time for
/// each and has no queue, less that time. It sleeps meanwhile, since late wake-ups are what is added.
fn control(transport: Transport) -> Result<Latency, String> {
    let fixed_ns = 5 * MILLISECOND_NS;
    let mode = Mode::Bimodal { fast_ns: fixed_ns, slow_ns: fixed_ns, share: 0.0 };
    let workload = load(50, Arrivals::Open { rate: 100.0, poisson: false });
    let found = run(&workload, mode, transport).map_err(|error| format!("{error:#}"))?.latency;
    let added = |ns: u64| ns.saturating_sub(fixed_ns);
    Ok(Latency {
        mean_ns: added(found.mean_ns),
        p50_ns: added(found.p50_ns),
        p90_ns: added(found.p90_ns),
        p99_ns: added(found.p99_ns),
        p999_ns: added(found.p999_ns),
        max_ns: added(found.max_ns),
    })
}

/// Whether `found` is `expected` to two per cent, and more by no more than this machine adds.
fn near(found: u64, expected: u64, added_ns: u64, what: &str) -> Result<(), String> {
    let off = found as f64 - expected as f64;
    let less = 0.02 * expected as f64 + LOOPBACK_NS;
    if (-less..=less + DELAYS * added_ns as f64).contains(&off) {
        return Ok(());
    }
    Err(format!("{what}: {found} ns for {expected} ns, where {added_ns} ns are added"))
}

#[test]
fn one_queue_is_on_sockets_what_it_is_in_theory() {
    // The same arrivals in both: what differs is the transport.
    let workload = load(20, Arrivals::Open { rate: 100.0, poisson: true });
    let mode = Mode::Md1 { service_ns: 5 * MILLISECOND_NS };
    let (expected, tally) = simulate::run_with_tally(&workload, mode, TIMING).expect("a trial");
    // Of two hundred requests, one more at either end moves a quantile by one or two of them.
    let between = |found: u64, low: f64, high: f64, added_ns| {
        let at = |quantile| tally.latency.value_at_quantile(quantile);
        let expected = found.clamp(at(low), at(high));
        near(found, expected, added_ns, &format!("quantile {low} to {high}"))
    };
    for transport in [Transport::Ring, Transport::Plain] {
        in_some_try(|| {
            let trial = run(&workload, mode, transport).map_err(|error| format!("{error:#}"))?;
            let control = control(transport)?;
            let found =
                near(trial.latency.mean_ns, expected.latency.mean_ns, control.mean_ns, "mean")
                    .and_then(|()| between(trial.latency.p50_ns, 0.45, 0.55, control.p90_ns))
                    .and_then(|()| between(trial.latency.p90_ns, 0.85, 0.95, control.p99_ns));
            excuse(&trial, found)
        });
    }
}

#[test]
fn an_open_loop_reports_the_stall_to_two_per_cent_and_a_closed_one_misses_it() {
    for poisson in [false, true] {
        let open = load(10, Arrivals::Open { rate: 1_999.0, poisson });
        in_some_try(|| {
            let trial = run(&open, Mode::STALL, Transport::Ring).map_err(|e| format!("{e:#}"))?;
            let added_ns = control(Transport::Ring)?.p99_ns;
            // P(latency > x) = (100 ms − x) / 500 ms; a Poisson process of two seconds is off by itself.
            let spread_ns = if poisson { MILLISECOND_NS } else { 0 };
            let added_ns = added_ns + spread_ns;
            let found = near(trial.latency.p90_ns, 50 * MILLISECOND_NS, added_ns, "p90")
                .and_then(|()| near(trial.latency.p99_ns, 95 * MILLISECOND_NS, added_ns, "p99"));
            excuse(&trial, found)?;
            if trial.latency.max_ns < 98 * MILLISECOND_NS {
                return Err(format!("the whole stall is missing: {trial:?}"));
            }
            Ok(())
        });
    }
    in_some_try(|| {
        let closed = load(1, Arrivals::Closed { pipeline: 1 });
        let trial = run(&closed, Mode::STALL, Transport::Ring).map_err(|e| format!("{e:#}"))?;
        if trial.latency.p99_ns > 10 * MILLISECOND_NS {
            return excuse(&trial, Err(format!("it saw the stall: {trial:?}")));
        }
        if trial.latency.max_ns < 98 * MILLISECOND_NS {
            return Err(format!("nothing met the stall: {trial:?}"));
        }
        Ok(())
    });
}

#[test]
fn two_service_times_have_their_shares() {
    let mode =
        Mode::Bimodal { fast_ns: 2 * MILLISECOND_NS, slow_ns: 40 * MILLISECOND_NS, share: 0.1 };
    in_some_try(|| {
        let closed = load(20, Arrivals::Closed { pipeline: 1 });
        let trial = run(&closed, mode, Transport::Ring).map_err(|error| format!("{error:#}"))?;
        let control = control(Transport::Ring)?;
        let mean_ns = control.mean_ns + 100_000;
        // 0.9 · 2 ms + 0.1 · 40 ms; 7,000 draws leave 3 % open.
        let found = near(trial.latency.p50_ns, 2 * MILLISECOND_NS, control.p50_ns, "fast")
            .and_then(|()| near(trial.latency.p99_ns, 40 * MILLISECOND_NS, control.p99_ns, "slow"))
            .and_then(|()| near(trial.latency.mean_ns, 5_800_000, mean_ns, "mean"));
        excuse(&trial, found)
    });
}

#[test]
fn wrong_servers_end_the_trial_and_say_what_they_did() {
    let said = |mode, pipeline, expected: &str| {
        for transport in [Transport::Ring, Transport::Plain] {
            let workload = load(5, Arrivals::Closed { pipeline });
            let error = run(&workload, mode, transport).expect_err("a wrong server");
            let text = format!("{error:#}").to_lowercase();
            assert!(text.contains(expected), "{mode:?} over {transport:?}: {text}");
        }
    };
    said(Mode::Reset { after: 0 }, 1, "reset");
    said(Mode::Reset { after: 20 }, 1, "reset");
    said(Mode::Wrong { every: 50 }, 1, "value of another key");
    said(Mode::Reorder, 4, "value of another key");
    said(Mode::Late { late_ns: 60 * SECOND_NS }, 1, "no reply at all");
    said(Mode::Drain { gap_ns: SECOND_NS }, 1, "no reply at all");
}

#[test]
fn replies_that_dribble_or_come_late_are_slow_and_never_fast() {
    let closed = load(5, Arrivals::Closed { pipeline: 1 });
    let drain = Mode::Drain { gap_ns: 2 * MILLISECOND_NS };
    let trial = run(&closed, drain, Transport::Ring).expect("slow, and right");
    // $64, CR LF, 64 bytes, CR LF: 70 gaps.
    assert!(trial.latency.p50_ns >= 140 * MILLISECOND_NS * 99 / 100, "{trial:?}");
    // The load's first replies come while it is recorded.
    let late = Mode::Late { late_ns: SECOND_NS };
    let trial = run(&closed, late, Transport::Ring).expect("late, and right");
    assert!(trial.latency.max_ns >= SECOND_NS * 99 / 100, "{trial:?}");
}

#[test]
fn beyond_saturation_the_server_is_the_limit() {
    // 3,500 requests a second too many fill the room of one connection, 1,024, in a third of one.
    let workload = load(1, Arrivals::Open { rate: 4_000.0, poisson: true });
    in_some_try(|| {
        let mode = Mode::Md1 { service_ns: 2 * MILLISECOND_NS };
        let trial = run(&workload, mode, Transport::Ring).map_err(|error| format!("{error:#}"))?;
        if trial.missed == 0 || trial.limit != Limit::Server || trial.rate > 510.0 {
            return Err(format!("{trial:?}"));
        }
        Ok(())
    });
}

#[test]
fn mutants_cost_what_they_say() {
    let closed = load(1, Arrivals::Closed { pipeline: 1 });
    let service = |mode| run(&closed, mode, Transport::Ring).expect("right");
    in_some_try(|| {
        let prompt_ns = service(Mode::Prompt).service.p50_ns;
        let slept = service(Mode::Sleep { sleep_ns: 2 * MILLISECOND_NS });
        let added_ns = control(Transport::Ring)?.p90_ns;
        excuse(&slept, near(slept.service.p50_ns, 2 * MILLISECOND_NS, added_ns, "sleep"))?;
        for mode in [Mode::Copy { kib: 32 << 10 }, Mode::Syscalls { count: 10_000 }] {
            let mutant_ns = service(mode).service.p50_ns;
            if mutant_ns < prompt_ns + 200 * MICROSECOND_NS {
                return Err(format!("{mode:?}: {mutant_ns} ns beside {prompt_ns} ns"));
            }
        }
        Ok(())
    });
}
