//! Every scenario, on two hosts of this machine: does it do what it says, and leave nothing?
//!
//! Each test runs the scenario's workload four times: without a fault; with one that only counts, which must match and do
//! nothing; with one that acts, whose effect must be within the file's bounds while other traffic is untouched; and after its end, by its time
//! for one scenario and by SIGKILL for the next. Needs root. Next: `lab`, `workloads`, `scenarios/`.

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
use workloads::{Figures, Port};

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
            test(&one, number % 2 == 0);
            Ok::<(), Failed>(())
        })
        .with_ignored_flag(!is_root)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// The command line of a scenario in a lab.
fn arguments(scenario: &Scenario, lab: &Lab, port: Port, more: &[&str]) -> Vec<String> {
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
            text.replace("PORT", &port.0.to_string()).replace("SERVER", &lab::SERVER.to_string()),
        );
    }
    line.extend(more.iter().map(|word| (*word).to_owned()));
    line
}

fn test(scenario: &Scenario, by_kill: bool) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let lab = Lab::new(NUMBER.fetch_add(1, Ordering::Relaxed));
    let workload = workloads::find(&scenario.oracle.workload);
    let run = |port: Port| workload.run(&lab, port, &scenario.oracle.with);
    let clean = |when: &str, port: Port| {
        let figures = run(port);
        workload.assert_clean(&figures, when);
    };
    clean("before", Port::MATCHED);
    let furniture = lab.furniture();

    let shadow =
        Fault::inject(&arguments(scenario, &lab, Port::MATCHED, &["--shadow", "--ttl", TTL]));
    clean("in shadow mode", Port::MATCHED);
    let counts = shadow.stop();
    assert!(counts.matched > 0, "it matches: {counts:?}");
    assert_eq!(counts.affected, 0, "it does nothing: {counts:?}");

    let ttl = if by_kill { TTL } else { workload.ttl() };
    let armed = Fault::inject(&arguments(scenario, &lab, Port::MATCHED, &["--ttl", ttl]));
    let figures = run(Port::MATCHED);
    assert_within(scenario, &figures);
    let counts = armed.counts();
    assert!(counts.affected > 0, "it acts: {counts:?}");
    if workload.has_others() {
        clean("of others", Port::OTHER);
    }
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
    clean("after", Port::MATCHED);
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
