//! A trial of a file loop in a process of its own, so that no side inherits what another left behind:
//! memory, warm pools of threads, pages of a ring.
//!
//! The child is this program again, with a hidden subcommand; it prints its figures as JSON. Invariants:
//! the child is bound to the server's core, its receiver to the load's; one that does not end in time
//! is killed and reaped, and its last words are the error.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{What, append, sendfile};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::figures::Figures;
use crate::process;

/// Beyond the length of the trial: making files, starting, stopping.
const GRACE_NS: u64 = 60 * SECOND_NS;
/// Figures of a trial are far below this.
const OUTPUT_MAX_BYTES: u64 = 64 << 10;

/// All a child needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Trial {
    /// What to do: append or sendfile.
    #[arg(value_enum)]
    pub what: What,
    /// On which side.
    #[arg(long)]
    pub side: String,
    /// Records in a commit.
    #[arg(long, default_value_t = 1)]
    pub group: usize,
    /// Where files are.
    #[arg(long)]
    pub dir: PathBuf,
    /// Length of the trial in nanoseconds.
    #[arg(long)]
    pub trial_ns: u64,
    /// Core of who is measured.
    #[arg(long)]
    pub server_cpu: usize,
    /// Core of who receives.
    #[arg(long)]
    pub client_cpu: usize,
    /// TCP port.
    #[arg(long)]
    pub port: u16,
}

impl Trial {
    fn args(&self) -> Vec<String> {
        let what = if self.what == What::Append { "append" } else { "sendfile" };
        let mut args: Vec<String> = ["runtimes", "trial", what].map(str::to_owned).to_vec();
        for (name, value) in [
            ("--side", self.side.clone()),
            ("--group", self.group.to_string()),
            ("--dir", self.dir.display().to_string()),
            ("--trial-ns", self.trial_ns.to_string()),
            ("--server-cpu", self.server_cpu.to_string()),
            ("--client-cpu", self.client_cpu.to_string()),
            ("--port", self.port.to_string()),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args
    }

    /// Runs the trial in this process: its figures as JSON.
    ///
    /// # Errors
    /// It fails, or there is no such side.
    pub fn run(&self) -> Result<String> {
        process::pin_self(self.server_cpu)?;
        let figures = match self.what {
            What::Append => append::trial(self)?,
            What::Sendfile => sendfile::trial(self)?,
            What::Echo | What::Cache => bail!("sessions are served by `bench host`"),
        };
        serde_json::to_string(&figures).context("encode the figures")
    }

    /// Runs the trial in a fresh process.
    ///
    /// # Errors
    /// It does not start, fails, or does not end in time.
    pub(super) fn spawn(&self) -> Result<Figures> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut child = Command::new(program)
            .args(self.args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start a trial")?;
        let deadline_ns = clock::mono_ns() + self.trial_ns + GRACE_NS;
        let status = loop {
            if let Some(status) = child.try_wait().context("wait for a trial")? {
                break status;
            }
            if clock::mono_ns() > deadline_ns {
                // Both fail only when it has ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                bail!("the trial did not end within {} s", (self.trial_ns + GRACE_NS) / SECOND_NS);
            }
            clock::sleep_ns(5 * MILLISECOND_NS);
        };
        let output = read(child.stdout.take())?;
        if !status.success() {
            let words = read(child.stderr.take())?;
            bail!("{status}: {}", words.lines().last().unwrap_or_default());
        }
        let found: BTreeMap<String, f64> =
            serde_json::from_str(&output).context("figures of a trial")?;
        let known = NAMES.iter().copied();
        Ok(known.filter_map(|name| Some((name, *found.get(name)?))).collect())
    }
}

fn read(pipe: Option<impl Read>) -> Result<String> {
    let mut text = String::new();
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_MAX_BYTES).read_to_string(&mut text).context("output of a trial")?;
    }
    Ok(text)
}

/// Figures a trial may report.
const NAMES: &[&str] = &[
    "commits_per_s",
    "cpu_ms_per_gb",
    "cpu_ns_per_op",
    "machine_us",
    "mb_per_s",
    "p50_us",
    "p99_us",
    "process_us",
    "rate",
    "with_kernel_us",
];
