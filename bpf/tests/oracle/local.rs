//! Scenarios of processes, paths and the host: a worker process is what they act on, another one is what they leave alone.
//!
//! As for those of packets: without a fault, in shadow mode, armed, and after its end by time or SIGKILL, when the same
//! worker, or a new one if it died, does all it did before. Next: `workloads::worker`, which measures.

use std::time::{Duration, Instant};

use bpf::scenario::Scenario;

use crate::chaos::Fault;
use crate::workloads::worker::{Worker, assert_clean};
use crate::workloads::{Figures, number};

/// Longer than any phase.
const TTL: &str = "60s";
/// The watchdog has undone it by then.
const GONE_WITHIN: Duration = Duration::from_millis(1000);

/// What a fault's own process uses: seconds of processors, and megabytes of memory.
fn used(pid: u32) -> (f64, f64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let field = |at: usize| fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    ((field(11) + field(12)) / ticks, field(21) * page / 1e6)
}

fn arguments(scenario: &Scenario, worker: &Worker, more: &[&str]) -> Vec<String> {
    let mut line = vec![scenario.name.to_owned()];
    if let Some(netns) = worker.netns() {
        line.extend(["--netns".to_owned(), netns.to_owned()]);
    }
    for (name, value) in &scenario.oracle.target {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.extend([format!("--{name}"), worker.expand(&text)]);
    }
    line.extend(more.iter().map(|word| (*word).to_owned()));
    line
}

/// A phase while a fault is in force, with what that used.
fn under(fault: &Fault, worker: &mut Worker) -> Figures {
    let (begin, before) = (Instant::now(), used(fault.pid()));
    let mut figures = worker.phase();
    let after = used(fault.pid());
    let seconds = begin.elapsed().as_secs_f64();
    figures.insert("fault_cpu_percent", (after.0 - before.0) / seconds * 100.0);
    figures.insert("fault_memory_mb", after.1);
    figures
}

/// The watchdog, if any, undoes what is left: no command is run meanwhile.
fn assert_as_it_was(worker: &mut Worker, traces: &str) {
    let begin = Instant::now();
    while !worker.revive() && worker.traces() != traces {
        if begin.elapsed() > GONE_WITHIN * crate::slowness() {
            assert_eq!(worker.traces(), traces, "it is as it was");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tests one; whether it ends by SIGKILL.
pub(crate) fn test(scenario: &Scenario, by_kill: bool) {
    let with = &scenario.oracle.with;
    let mut worker = Worker::start(with, "w");
    let mut other = (number(with, "others", 1) > 0).then(|| Worker::start(with, "w-other"));
    let clean = |worker: &mut Worker, when: &str| assert_clean(with, &worker.phase(), when);
    clean(&mut worker, "before");
    let traces = worker.traces();

    let shadow = Fault::inject(&arguments(scenario, &worker, &["--shadow", "--ttl", TTL]));
    clean(&mut worker, "in shadow mode");
    let counts = shadow.stop_or_wait();
    assert!(counts.matched > 0, "it matches: {counts:?}");
    assert_eq!(counts.affected, 0, "it does nothing: {counts:?}");
    assert_eq!(worker.traces(), traces, "it leaves all as it was");

    let ttl = if by_kill { TTL.to_owned() } else { format!("{}ms", 2500 * crate::slowness()) };
    let armed = Fault::inject(&arguments(scenario, &worker, &["--ttl", &ttl]));
    let figures = under(&armed, &mut worker);
    crate::assert_within(scenario, &figures);
    let counts = armed.counts_so_far();
    assert!(counts.is_none_or(|counts| counts.affected > 0), "it acts: {counts:?}");
    if let Some(other) = &mut other {
        clean(other, "of others");
    }
    let traces_of_fault = armed.traces.clone();
    if by_kill && counts.is_some() {
        armed.kill();
    } else {
        let counts = armed.wait();
        assert!(counts.affected > 0, "it acted: {counts:?}");
    }
    // Programs of calls are freed when no processor runs them any more, which takes the kernel a while.
    traces_of_fault.assert_gone(GONE_WITHIN * crate::slowness());
    assert_as_it_was(&mut worker, &traces);
    traces_of_fault.assert_forgotten();
    clean(&mut worker, "after");
}
