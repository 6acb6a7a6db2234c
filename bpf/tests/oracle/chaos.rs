//! The `chaos` command as an operator runs it, and proof that it leaves nothing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");

/// A fault in the foreground.
pub(crate) struct Fault {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// Its name.
    pub(crate) id: String,
}

/// What it has met and done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) matched: u64,
    pub(crate) affected: u64,
}

fn counts(event: &Value) -> Counts {
    let field = |name: &str| {
        event["counts"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {event}"))
    };
    Counts { matched: field("matched"), affected: field("affected") }
}

impl Fault {
    /// Injects one, and waits until it is in force.
    pub(crate) fn inject(arguments: &[String]) -> Self {
        let mut child = Command::new(CHAOS)
            .arg("inject")
            .args(arguments)
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chaos is built");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let Some(line) = lines.next() else {
            let output = child.wait_with_output().expect("it ended");
            panic!("chaos inject {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let event: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        assert_eq!(event["event"], "started");
        let id = event["id"].as_str().expect("a name").to_owned();
        Self { child, lines, id }
    }

    /// What it has met so far, as `chaos status` says.
    pub(crate) fn counts(&self) -> Counts {
        let all = status();
        let entry =
            all.as_array().expect("a list").iter().find(|entry| entry["id"] == self.id.as_str());
        counts(entry.unwrap_or_else(|| panic!("{} is not in {all}", self.id)))
    }

    /// Waits for its end; what it says that it did.
    pub(crate) fn wait(mut self) -> Counts {
        let last = self
            .lines
            .by_ref()
            .map(|line| line.expect("text"))
            .last()
            .expect("it says how it ended");
        assert!(self.child.wait().expect("it ended").success());
        let event: Value = serde_json::from_str(&last).expect("JSON");
        assert_eq!(event["event"], "ended");
        counts(&event)
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(self) -> Counts {
        let output = Command::new(CHAOS).args(["stop", &self.id]).output().expect("chaos is built");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.wait()
    }

    /// Kills it, with nothing said.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ended");
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The faults in force.
pub(crate) fn status() -> Value {
    let output = Command::new(CHAOS).args(["status", "--json"]).output().expect("chaos is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Waits until nothing of a fault is left: no program of ours in the kernel, no file, no pin.
pub(crate) fn assert_gone(id: &str, within: Duration) {
    let begin = Instant::now();
    loop {
        let left = left(id);
        if left.is_empty() {
            return;
        }
        assert!(begin.elapsed() < within, "{within:?} after its end there is still {left:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is there of a fault.
fn left(id: &str) -> Vec<String> {
    let pins = bpf::registry::pins_of(id);
    let mut left: Vec<String> =
        [pins].iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
    let ours = ["packet", "call", "socket", "pace"];
    let programs = libbpf_rs::query::ProgInfoIter::default();
    left.extend(programs.filter_map(|program| {
        let name = program.name.to_string_lossy().into_owned();
        ours.contains(&name.as_str()).then_some(name)
    }));
    left
}
