//! Where a server spends its CPU time during a load: its stacks, recorded by perf(1), as a flame graph.
//!
//! Why perf and not a profiler of our own: it walks stacks of any program and of the kernel, and is one package. What it
//! writes is collapsed ([`fold`]) and drawn (`report::flame`) here, so that nothing else is needed. A load that is
//! recorded is slower than one that is not, so its figures are not for comparing. Invariants: perf ends with the
//! recording, and what it wrote is removed; where it is missing or refused, the error says what to do.

pub mod fold;

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::process::{self, CommandLine, Counters, Launch, Server};
pub use fold::Folded;

/// How to get perf.
pub const MISSING: &str =
    "perf is not installed (Debian: apt install linux-perf; Ubuntu: linux-tools-generic)";
/// perf records within this, or not at all.
const BEGIN_NS: u64 = 10 * SECOND_NS;
/// Samples a second and thread, at most.
pub const FREQUENCY_MAX: u32 = 20_000;
/// What is shown of what `perf script` says when it fails.
const SHOWN_BYTES: usize = 400;

/// How stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CallGraph {
    /// By frame pointers: cheap; programs built without them show stacks that break off.
    Fp,
    /// By unwinding a copy of each stack: dear, for programs without frame pointers.
    Dwarf,
    /// By what the CPU remembers of the last branches, where it does.
    Lbr,
}

impl CallGraph {
    const fn name(self) -> &'static str {
        match self {
            Self::Fp => "fp",
            Self::Dwarf => "dwarf",
            Self::Lbr => "lbr",
        }
    }
}

/// What is recorded.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Samples a second and thread.
    pub frequency: u32,
    /// How stacks are walked.
    pub call_graph: CallGraph,
    /// What is sampled; cycles where the machine counts them, else the CPU clock.
    pub event: Option<String>,
}

/// A recording that goes on.
#[derive(Debug)]
pub struct Recorder {
    perf: Server,
    dir: PathBuf,
    /// What is sampled.
    pub event: String,
}

impl Recorder {
    /// Begins to record process `pid`.
    ///
    /// # Errors
    /// perf is missing, or refuses.
    pub fn start(pid: u32, recording: &Recording) -> Result<Self> {
        ensure!(process::find("perf").is_some(), MISSING);
        ensure!(
            (1..=FREQUENCY_MAX).contains(&recording.frequency),
            "from 1 to {FREQUENCY_MAX} samples a second, not {}",
            recording.frequency
        );
        let event = recording.event.clone().unwrap_or_else(|| usual_event(pid).to_owned());
        let dir = temporary();
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let data = data_file(&dir);
        let (to, frequency) = (data.to_string_lossy(), recording.frequency.to_string());
        let pid = pid.to_string();
        let args = [
            // No build ids: they take seconds to collect, and the files are those that run.
            "record",
            "-B",
            "-N",
            "-e",
            &event,
            "-F",
            &frequency,
            "--call-graph",
            recording.call_graph.name(),
            "-p",
            &pid,
            "-o",
            &to,
        ];
        let command =
            CommandLine { program: "perf".to_owned(), args: args.map(str::to_owned).to_vec() };
        let perf = Server::launch(Launch {
            command: command.clone(),
            env: Vec::new(),
            cpus: None,
            own_cpu: 0,
            data: Some(dir.clone()),
            memory_bytes: None,
        })?;
        let mut recorder = Self { perf, dir, event };
        recorder.wait(&command)?;
        Ok(recorder)
    }

    /// Waits until it records: its file then has a head.
    fn wait(&mut self, command: &CommandLine) -> Result<()> {
        let deadline_ns = clock::mono_ns() + BEGIN_NS;
        let data = data_file(&self.dir);
        while !std::fs::metadata(&data).is_ok_and(|meta| meta.len() > 0) {
            self.check(command)?;
            ensure!(clock::mono_ns() < deadline_ns, "{command} does not begin");
            clock::sleep_ns(5 * MILLISECOND_NS);
        }
        // The events are opened before that, and refused there.
        clock::sleep_ns(20 * MILLISECOND_NS);
        self.check(command)
    }

    fn check(&mut self, command: &CommandLine) -> Result<()> {
        match self.perf.ended() {
            Some(end) => bail!(
                "{command} ended: {end}; it needs CAP_PERFMON, or kernel.perf_event_paranoid of at most 1, and a \
                 container or kernel that allows perf_event_open"
            ),
            None => Ok(()),
        }
    }

    /// Ends the recording and collapses it.
    ///
    /// # Errors
    /// perf ended before, or cannot read what it wrote.
    pub fn finish(mut self) -> Result<Folded> {
        if let Some(end) = self.perf.ended() {
            bail!("perf record ended before the load did: {end}");
        }
        // Its directory goes when it is stopped, so what is in it moves first.
        let kept = temporary();
        std::fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
        let folded = self.collapse(&kept);
        // Only space is lost if it stays.
        let _ = std::fs::remove_dir_all(&kept);
        folded
    }

    fn collapse(&mut self, kept: &std::path::Path) -> Result<Folded> {
        let data = data_file(kept);
        // The same file under a second name, to which perf writes until it ends.
        std::fs::hard_link(data_file(&self.dir), &data).context("keep what perf recorded")?;
        ensure!(self.perf.stop(), "perf record did not end by itself, so its file is not whole");
        let path = process::find("perf").context(MISSING)?;
        let errors = kept.join("errors");
        let mut script = Command::new(path)
            .args(["script", "-F", fold::FIELDS, "-i"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors).context("what perf script says")?)
            .spawn()
            .context("perf script")?;
        let out = script.stdout.take().context("what perf script prints")?;
        let folded = Folded::read(BufReader::new(out));
        if folded.is_err() {
            // It may still want to print.
            let _ = script.kill();
        }
        let status = script.wait().context("perf script")?;
        let folded = folded?;
        let said = std::fs::read(&errors).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(SHOWN_BYTES)]).into_owned();
        ensure!(status.success(), "perf script: {status}: {}", said.trim());
        ensure!(
            folded.samples() > 0,
            "perf recorded no sample: the server did not run, or {} does not count here",
            self.event
        );
        Ok(folded)
    }
}

/// Cycles see where interrupts are off, the clock does not; a machine without a PMU has only the clock.
fn usual_event(pid: u32) -> &'static str {
    if Counters::of(pid).lacks().cycles.is_none() { "cycles" } else { "cpu-clock" }
}

fn data_file(dir: &std::path::Path) -> PathBuf {
    dir.join("perf.data")
}

/// A directory of its own for each recording.
fn temporary() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("bench-perf-{}-{count}", std::process::id()))
}
