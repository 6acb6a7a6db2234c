//! The `chaos` command as an operator runs it, and proof that it leaves nothing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");

/// A fault in the foreground.
pub(crate) struct Fault {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// Its name.
    pub(crate) id: String,
    /// What of it must be gone after its end.
    pub(crate) traces: Traces,
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
        let traces = Traces::new(&id, child.id());
        Self { child, lines, id, traces }
    }

    /// What it has met so far, as `chaos status` says.
    pub(crate) fn counts(&self) -> Counts {
        let all = status();
        let entry =
            all.as_array().expect("a list").iter().find(|entry| entry["id"] == self.id.as_str());
        counts(entry.unwrap_or_else(|| panic!("{} is not in {all}", self.id)))
    }

    /// Number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has met so far; nothing if it is over.
    pub(crate) fn counts_so_far(&self) -> Option<Counts> {
        let all = status();
        all.as_array()
            .expect("a list")
            .iter()
            .find(|entry| entry["id"] == self.id.as_str())
            .map(counts)
    }

    /// Ends it as an operator does, unless it is over already.
    pub(crate) fn stop_or_wait(self) -> Counts {
        if self.counts_so_far().is_some() { self.stop() } else { self.wait() }
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

/// A program in the kernel.
pub(crate) type Program = (u32, String);

/// The programs of ours in the kernel, which cuts their names to 15 bytes.
pub(crate) fn programs() -> Vec<Program> {
    static OURS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let names = bpf::programs::names().expect("objects are readable");
        names.into_iter().map(|name| name.chars().take(15).collect()).collect()
    });
    libbpf_rs::query::ProgInfoIter::default()
        .map(|program| (program.id, program.name.to_string_lossy().into_owned()))
        .filter(|(_, name)| OURS.contains(name))
        .collect()
}

/// Numbers of the programs that a process has descriptors of, or of their links: other tests may run on this host.
fn programs_of(pid: u32) -> Vec<u32> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let texts = files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let ids = |text: String| -> Vec<u32> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("prog_id:"));
        lines.filter_map(|id| id.trim().parse().ok()).collect()
    };
    texts.flat_map(ids).collect()
}

/// What a fault would be known by if it were still there.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    id: String,
    programs: Vec<Program>,
}

impl Traces {
    /// Of a fault that this process keeps.
    pub(crate) fn new(id: &str, keeper: u32) -> Self {
        let ids = programs_of(keeper);
        let programs = programs().into_iter().filter(|(one, _)| ids.contains(one)).collect();
        Self { id: id.to_owned(), programs }
    }

    /// How many programs it has.
    pub(crate) fn programs(&self) -> usize {
        self.programs.len()
    }

    /// Waits until nothing is left: no program of its in the kernel, no pin, no mount.
    pub(crate) fn assert_gone(&self, within: Duration) {
        let begin = Instant::now();
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(begin.elapsed() < within, "{within:?} after its end there is still {left:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// And that no command lists it any more.
    pub(crate) fn assert_forgotten(&self) {
        let all = status();
        let is_there =
            all.as_array().expect("a list").iter().any(|one| one["id"] == self.id.as_str());
        assert!(!is_there, "what was left is undone by the next command: {all}");
    }

    fn left(&self) -> Vec<String> {
        let pins = [bpf::pins::programs_of(&self.id), bpf::pins::settings_of(&self.id)];
        let now = programs();
        let programs = self.programs.iter().filter(|one| now.contains(one));
        let pins = pins.iter().filter(|pins| pins.exists()).map(|pins| pins.display().to_string());
        let mounts = bpf::disk::mounts().into_iter().filter(|one| one.id == self.id);
        let mounts = mounts.map(|one| format!("a mount at {}", one.dir.display()));
        programs.map(|(_, name)| name.clone()).chain(pins).chain(mounts).collect()
    }
}
