//! Every scenario, on two hosts of this machine: does it do what it says, and leave nothing?
//!
//! Each test runs the scenario's workload four times: without a fault; with one that only counts, which must match and do
//! nothing; with one that acts, whose effect must be within the file's bounds while other traffic is untouched; and after its end, by its time
//! for one scenario in four and by SIGKILL for the others. Needs root. With FIGURES in the environment, what was measured is
//! printed; with SCENARIOS, only those named there are run; with SLOWNESS, what may take a while may take so many times as long.
//! Those that need what this kernel has not are ignored. Next: `lab`, `local`, `workloads`, `scenarios/`, `tests/guest`.

mod chaos;
mod client;
mod clock;
mod disk;
mod lab;
mod local;
mod workloads;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bpf::doctor;
use bpf::fault::{self, Place};
use bpf::scenario::{self, Scenario};
use chaos::Fault;
use lab::Lab;
use libtest_mimic::{Arguments, Failed, Trial};
use workloads::{Figures, Peer, Workload};

/// Longer than any workload.
const TTL: &str = "60s";
/// Runs with a fault in force, at most.
const TRIES: u32 = 3;
/// A fault that dies with its process is gone after this.
const GONE_WITHIN: Duration = Duration::from_millis(100);

/// What is tried once, beside the scenarios.
const ALONE: &[(&str, fn())] = &[
    ("disk::open-files-outlive-their-fault", disk::open_files_outlive_their_fault),
    ("disk::no-mount-is-left-whoever-is-killed", disk::no_mount_is_left_whoever_is_killed),
    ("disk::nothing-is-left-whenever-it-is-killed", disk::nothing_is_left_whenever_it_is_killed),
    (
        "disk::a-detached-fault-is-stopped-without-its-keeper",
        disk::a_detached_fault_is_stopped_without_its_keeper,
    ),
    ("disk::a-detached-fault-ends-at-its-time", disk::a_detached_fault_ends_at_its_time),
    ("disk::a-slow-file-holds-up-no-other", disk::a_slow_file_holds_up_no_other),
    ("disk::unsynced-bytes-are-lost-at-the-end", disk::unsynced_bytes_are_lost_at_the_end),
    ("disk::mappings-are-mended-at-the-end", disk::mappings_are_mended_at_the_end),
    ("disk::what-is-unsafe-is-refused", disk::what_is_unsafe_is_refused),
    (
        "disk::a-layer-that-does-nothing-changes-nothing",
        disk::a_layer_that_does_nothing_changes_nothing,
    ),
    ("clock::fifty-times-under-load", clock::fifty_times_under_load),
    ("clock::keepers-killed-at-any-moment", clock::keepers_are_killed_at_any_moment),
    ("clock::time-chaos-runs", clock::time_chaos_runs),
    ("clock::keys-of-redis-expire", clock::keys_of_redis_expire),
];

fn main() -> ExitCode {
    if let Some(code) = client::main() {
        return code;
    }
    if workloads::worker::is_one() {
        return workloads::worker::work();
    }
    let mut arguments = Arguments::from_args();
    // Each looks at the whole host for what is left.
    arguments.test_threads = Some(1);
    let mut scenarios = scenario::all().expect("all are read");
    let wanted = std::env::var("SCENARIOS").ok();
    if let Some(wanted) = &wanted {
        let wanted: Vec<&str> = wanted.split_whitespace().collect();
        scenarios.retain(|one| wanted.contains(&one.name));
        assert_eq!(scenarios.len(), wanted.len(), "SCENARIOS names one that there is not");
    }
    let why_not = doctor::why_not();
    if let Some(why) = &why_not {
        println!("skipped: {why}");
    }
    let missing = missing(&scenarios, why_not.is_some());
    let trials = scenarios.into_iter().enumerate().map(|(number, one)| {
        let name = format!("{}::{}", one.family, one.name);
        let lacks = one.needs.iter().any(|need| missing.contains(need));
        Trial::test(name, move || {
            // A panic is a failure with its message, as in any test.
            let by_kill = number % 4 != 0;
            if one.oracle.workload == "worker" {
                local::test(&one, by_kill);
            } else {
                test(&one, by_kill);
            }
            Ok::<(), Failed>(())
        })
        .with_ignored_flag(why_not.is_some() || lacks)
    });
    let more = Trial::test("rate::settings-end-with-their-fault", || {
        workloads::bulk::settings_end_with_their_fault(&Lab::new(u32::MAX));
        Ok::<(), Failed>(())
    });
    let alone = ALONE.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    });
    let more = std::iter::once(more).chain(alone).filter(|_| wanted.is_none());
    let trials = trials.chain(more.map(|one| one.with_ignored_flag(why_not.is_some())));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Which of what scenarios need is not here, each said with the reason.
fn missing(scenarios: &[Scenario], is_skipped: bool) -> Vec<String> {
    let needs: BTreeSet<&String> = scenarios.iter().flat_map(|one| &one.needs).collect();
    if is_skipped {
        return Vec::new();
    }
    let missing = needs.into_iter().filter(|need| {
        let found = doctor::find(need);
        let found = found.unwrap_or_else(|| panic!("the doctor has no probe {need}"));
        if !found.works {
            // Not where a runner of tests reads their names.
            eprintln!("skipped: scenarios that need {need}: {}", found.why);
        }
        !found.works
    });
    missing.cloned().collect()
}

/// How many times as long as on a host of its own something may take here.
pub(crate) fn slowness() -> u32 {
    std::env::var("SLOWNESS").map_or(1, |text| text.parse().expect("SLOWNESS is a number"))
}

/// The command line of a scenario in a lab.
fn arguments(scenario: &Scenario, lab: &Lab, peer: Peer, more: &[&str]) -> Vec<String> {
    let mut line = vec![scenario.name.to_owned()];
    let mut option = |name: &str, value: String| line.extend([format!("--{name}"), value]);
    option("netns", lab.client.clone());
    let place = fault::find(&scenario.fault).expect("a fault").place;
    if place == Place::Device {
        option("dev", lab::DEVICE.to_owned());
    }
    if place == Place::Cgroup {
        option("cgroup", lab.cgroup.display().to_string());
    }
    for (name, value) in &scenario.oracle.target {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        option(
            name,
            text.replace("PORT", &peer.port.to_string())
                .replace("SERVER", &peer.address.to_string()),
        );
    }
    line.extend(more.iter().map(|word| (*word).to_owned()));
    line
}

fn test(scenario: &Scenario, by_kill: bool) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let lab = Lab::new(NUMBER.fetch_add(1, Ordering::Relaxed));
    if let Some(qdisc) = scenario.oracle.with.get("qdisc").and_then(|value| value.as_str()) {
        lab.queue(qdisc);
    }
    let workload = workloads::find(&scenario.oracle.workload);
    let run = |peer: Peer| workload.run(&lab, peer, &scenario.oracle.with);
    let clean = |when: &str, peer: Peer| {
        let figures = run(peer);
        workload.assert_clean(&figures, when);
    };
    if fault::find(&scenario.fault).expect("a fault").place == Place::Netns {
        return test_once(scenario, &lab, workload);
    }
    clean("before", Peer::MATCHED);
    let furniture = lab.furniture();

    let shadow =
        Fault::inject(&arguments(scenario, &lab, Peer::MATCHED, &["--shadow", "--ttl", TTL]));
    clean("in shadow mode", Peer::MATCHED);
    let counts = shadow.stop();
    assert!(counts.matched > 0, "it matches: {counts:?}");
    assert_eq!(counts.affected, 0, "it does nothing: {counts:?}");

    let own = humantime::parse_duration(workload.ttl()).expect("a duration") * slowness();
    let ttl = if by_kill { TTL.to_owned() } else { format!("{}ms", own.as_millis()) };
    let armed = Fault::inject(&arguments(scenario, &lab, Peer::MATCHED, &["--ttl", &ttl]));
    let mut figures = run(Peer::MATCHED);
    // Times are those of the whole machine: whoever else is busy on it may spoil one run, and not all.
    for _ in 1..TRIES {
        if beyond(scenario, &figures).is_none() {
            break;
        }
        figures = run(Peer::MATCHED);
    }
    if std::env::var_os("FIGURES").is_some() {
        println!("{}: {figures:?}", scenario.name);
    }
    assert_within(scenario, &figures);
    let counts = armed.counts();
    assert!(counts.affected > 0, "it acts: {counts:?}");
    clean("of others", Peer::other(&scenario.oracle.with));
    let traces = armed.traces.clone();
    assert!(traces.programs() > 0, "its programs are known");
    if by_kill {
        armed.kill();
    } else {
        armed.wait();
    }
    traces.assert_gone(GONE_WITHIN * slowness());
    traces.assert_forgotten();
    clean("after", Peer::MATCHED);
    assert_eq!(lab.furniture(), furniture, "nothing is left");
}

/// As [`test`], of a fault that is over as soon as it is injected: into connections that are there.
fn test_once(scenario: &Scenario, lab: &Lab, workload: &dyn Workload) {
    let furniture = lab.furniture();
    let around = |peer: Peer, more: &[&str]| {
        let (mut counts, mut traces) = (chaos::Counts::default(), None);
        let figures = workload.around(lab, peer, &scenario.oracle.with, &mut || {
            let fault = Fault::inject(&arguments(scenario, lab, Peer::MATCHED, more));
            traces = Some(fault.traces.clone());
            counts = fault.wait();
        });
        let traces = traces.expect("it was injected");
        traces.assert_gone(GONE_WITHIN * slowness());
        traces.assert_forgotten();
        (figures, counts)
    };
    let clean = |when: &str| {
        let figures = workload.run(lab, Peer::MATCHED, &scenario.oracle.with);
        workload.assert_clean(&figures, when);
    };
    clean("before");
    let (figures, counts) = around(Peer::MATCHED, &["--shadow"]);
    workload.assert_clean(&figures, "in shadow mode");
    assert!(counts.matched > 0, "it matches: {counts:?}");
    assert_eq!(counts.affected, 0, "it does nothing: {counts:?}");

    let (figures, counts) = around(Peer::MATCHED, &[]);
    assert_within(scenario, &figures);
    assert!(counts.affected > 0, "it acts: {counts:?}");
    let (figures, counts) = around(Peer::other(&scenario.oracle.with), &[]);
    workload.assert_clean(&figures, "of others");
    assert_eq!(counts.affected, 0, "it leaves others alone: {counts:?}");
    clean("after");
    assert_eq!(lab.furniture(), furniture, "nothing is left");
}

/// What is not as the scenario says.
fn beyond(scenario: &Scenario, figures: &Figures) -> Option<String> {
    scenario.oracle.armed.iter().find_map(|(name, (least, most))| {
        let figure = figures.get(name.as_str());
        let figure =
            figure.unwrap_or_else(|| panic!("the workload measures no {name}: {figures:?}"));
        (!(*least..=*most).contains(figure))
            .then(|| format!("{name} of {figure}, expected {least} to {most}"))
    })
}

pub(crate) fn assert_within(scenario: &Scenario, figures: &Figures) {
    if let Some(what) = beyond(scenario, figures) {
        panic!("{what}: {figures:?}");
    }
}
