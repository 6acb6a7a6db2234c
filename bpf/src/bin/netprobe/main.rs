//! The `netprobe` command: measures this host's packets and io_uring operations, and shows the figures.
//!
//! What is measured comes from the library's `metrics`; here is the command line and the four ways to show it.
//! Invariant: all programs go with this process, however it ends; what the kernel would keep, a watchdog removes. Next: `cli`,
//! `serve`, `top`.

#![forbid(unsafe_code)]

mod cli;
mod cost;
mod pcap;
mod serve;
mod top;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bpf::error::{During as _, Kind, Result};
use bpf::metrics::Probe;
use signal_hook::consts::{SIGINT, SIGTERM};

use cli::{Measure, Show};

/// How long a signal may go unseen.
const NAP: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netprobe: {error}");
            ExitCode::from(match error.kind {
                Kind::Failed => 1,
                Kind::Usage => 2,
                Kind::Unsupported => 3,
            })
        }
    }
}

fn run() -> Result<()> {
    let matches = cli::command().get_matches();
    if let Some(("watchdog", matches)) = matches.subcommand() {
        return bpf::registry::watch(Path::new(cli::text(matches, "journal")));
    }
    let stop = Stop::on_signals()?;
    if let Some(("pcap", matches)) = matches.subcommand() {
        return pcap::run(matches, &stop);
    }
    let measure = Measure::read(&matches)?;
    let mut probe = Probe::start(&measure.groups, measure.sample_every)?;
    if !probe.missing().is_empty() {
        eprintln!(
            "netprobe: this kernel lacks tracepoints, what they count stays 0: {}",
            probe.missing().join(", ")
        );
    }
    match measure.show {
        Show::Json => {
            stop.wait(measure.duration);
            let snapshot = probe.snapshot()?;
            let text = serde_json::to_string(&snapshot).during(|| "write JSON".to_owned())?;
            bpf::say!("{text}");
            Ok(())
        }
        Show::Top => top::run(&mut probe, measure.duration, &stop),
        Show::Cost => cost::run(&probe, measure.duration, &stop),
        Show::Listen(address) => serve::run(&mut probe, address, measure.duration, &stop),
    }
}

/// A time or a signal to end.
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    fn on_signals() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .during(|| format!("handle signal {signal}"))?;
        }
        Ok(Self(stop))
    }

    /// A signal has come.
    pub(crate) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for the end of a time, if there is one, or for a signal.
    pub(crate) fn wait(&self, duration: Option<Duration>) {
        let begin = Instant::now();
        while !self.has_come() {
            let left = duration.map_or(NAP, |duration| duration.saturating_sub(begin.elapsed()));
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}
