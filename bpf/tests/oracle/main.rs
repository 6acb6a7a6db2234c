//! Every scenario, on two hosts of this machine: does it do what it says, and leave nothing?
//!
//! Each test runs the scenario's workload four times: without a fault; with one that only counts, which must match and do
//! nothing; with one that acts, whose effect must be within the file's bounds while other traffic is untouched; and after its end, by its time
//! for one scenario in four and by SIGKILL for the others. Needs root. Next: `lab`, `workloads`, `scenarios/`.

mod chaos;
mod lab;
mod workloads;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bpf::fault::{self, Place};
use bpf::scenario::{self, Scenario};
use chaos::Fault;
use lab::Lab;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use workloads::{Figures, Peer};

/// Longer than any workload.
const TTL: &str = "60s";
/// A fault that dies with its process is gone after this.
const GONE_WITHIN: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each looks at the whole host for what is left.
    arguments.test_threads = Some(1);
    let scenarios = scenario::all().expect("all are read");
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: the oracle tests need root");
    }
    let trials = scenarios.into_iter().enumerate().map(|(number, one)| {
        let name = format!("{}::{}", one.family, one.name);
        Trial::test(name, move || {
            // A panic is a failure with its message, as in any test.
            test(&one, number % 4 != 0);
            Ok::<(), Failed>(())
        })
        .with_ignored_flag(!is_root)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
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
    let workload = workloads::find(&scenario.oracle.workload);
    let run = |peer: Peer| workload.run(&lab, peer, &scenario.oracle.with);
    let clean = |when: &str, peer: Peer| {
        let figures = run(peer);
        workload.assert_clean(&figures, when);
    };
    clean("before", Peer::MATCHED);
    let furniture = lab.furniture();

    let shadow =
        Fault::inject(&arguments(scenario, &lab, Peer::MATCHED, &["--shadow", "--ttl", TTL]));
    clean("in shadow mode", Peer::MATCHED);
    let counts = shadow.stop();
    assert!(counts.matched > 0, "it matches: {counts:?}");
    assert_eq!(counts.affected, 0, "it does nothing: {counts:?}");

    let ttl = if by_kill { TTL } else { workload.ttl() };
    let armed = Fault::inject(&arguments(scenario, &lab, Peer::MATCHED, &["--ttl", ttl]));
    let figures = run(Peer::MATCHED);
    assert_within(scenario, &figures);
    let counts = armed.counts();
    assert!(counts.affected > 0, "it acts: {counts:?}");
    clean("of others", Peer::other(&scenario.oracle.with));
    let id = armed.id.clone();
    if by_kill {
        armed.kill();
    } else {
        armed.wait();
    }
    chaos::assert_gone(&id, GONE_WITHIN);
    assert_eq!(
        chaos::status(),
        Value::Array(Vec::new()),
        "what was left is undone by the next command"
    );
    clean("after", Peer::MATCHED);
    assert_eq!(lab.furniture(), furniture, "nothing is left");
}

fn assert_within(scenario: &Scenario, figures: &Figures) {
    for (name, (least, most)) in &scenario.oracle.armed {
        let figure = figures.get(name.as_str());
        let figure =
            figure.unwrap_or_else(|| panic!("the workload measures no {name}: {figures:?}"));
        assert!(
            (*least..=*most).contains(figure),
            "{name} of {figure}, expected {least} to {most}: {figures:?}"
        );
    }
}
