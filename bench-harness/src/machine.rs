//! The machine a report was made on, and the network namespace trials run in.
//!
//! Why a namespace: the system's congestion control (often BBR, whose pacing timers show in
//! profiles) applies to what a *peer* accepts, and cannot be set on its sockets from outside. A
//! network namespace of our own has its own default, its own loopback and all ports free.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use tuning::tree::Tree;

use crate::fingerprint::{Fingerprint, Run};

/// Congestion controls in order of preference.
const CONGESTION: [&str; 2] = ["cubic", "reno"];
/// The queue of devices that choose none, in the host's namespace: others do not show it.
static HOST_QDISC: OnceLock<String> = OnceLock::new();

/// What a reader needs in order to judge a figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// CPU model, as the kernel names it.
    pub cpu: String,
    /// CPUs online.
    pub cpus: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Idle driver, whose wake-up time shows at low load.
    pub idle_driver: String,
    /// Transparent huge pages.
    pub huge_pages: String,
    /// Congestion control of the trials.
    pub congestion: String,
    /// Whether they ran in a network namespace of their own.
    pub own_network: bool,
    /// Whether both sides had SCHED_FIFO.
    pub fifo: bool,
    /// Load average at the start.
    pub load: String,
    /// Seconds since the Unix epoch at the start.
    pub unix_s: u64,
    /// What decides whether its figures may be compared with another's; reports of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

impl Machine {
    /// The machine now.
    #[must_use]
    pub fn describe(own_network: bool, fifo: bool) -> Self {
        let unknown = || "unknown".to_owned();
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let memory = read("/proc/meminfo").and_then(|text| field(&text, "MemTotal"));
        let kib = memory.and_then(|text| text.split(' ').next().and_then(|kib| kib.parse().ok()));
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(unknown),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_bytes: kib.unwrap_or(0_u64) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            idle_driver: read("/sys/devices/system/cpu/cpuidle/current_driver")
                .unwrap_or_else(unknown),
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(unknown),
            congestion: read("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_else(unknown),
            own_network,
            fifo,
            load: read("/proc/loadavg").unwrap_or_else(unknown),
            unix_s: crate::clock::unix_us() / 1_000_000,
            fingerprint: Some(Fingerprint::read(
                &Tree::live(),
                Run { own_network, fifo, qdisc: HOST_QDISC.get().map(String::as_str) },
            )),
        }
    }

    /// The same where files in `dir` are measured.
    #[must_use]
    pub fn on_data(mut self, dir: &Path) -> Self {
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.on_data(&Tree::live(), dir);
        }
        self
    }

    /// Notes how it is now that the run is over.
    pub fn close(&mut self) {
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.close(&Tree::live());
        }
    }

    /// Notes the version of one who takes part, and how it was built.
    pub fn took_part(&mut self, name: &str, version: &str) {
        if let Some(fingerprint) = &mut self.fingerprint
            && !version.is_empty()
        {
            fingerprint.software.peers.insert(name.to_owned(), version.to_owned());
        }
    }

    /// The fingerprint in a line, and what others did during the run, each with a line break; empty without one.
    #[must_use]
    pub fn fingerprint_lines(&self) -> String {
        let Some(fingerprint) = &self.fingerprint else { return String::new() };
        let mut lines = format!("{}\n", fingerprint.line());
        if let Some(during) = fingerprint.during() {
            lines.push_str(&format!("{during}\n"));
        }
        lines
    }
}

/// The congestion control for the client's sockets: the default where it does not pace, else one
/// that does not.
#[must_use]
pub fn congestion() -> Option<&'static str> {
    let names = |path: &str| read(path).unwrap_or_default();
    let default = names("/proc/sys/net/ipv4/tcp_congestion_control");
    let available = names("/proc/sys/net/ipv4/tcp_available_congestion_control");
    let is = |list: &str, name: &str| list.split(' ').any(|other| other == name);
    CONGESTION
        .into_iter()
        .find(|name| is(&default, name))
        .or_else(|| CONGESTION.into_iter().find(|name| is(&available, name)))
}

/// Moves this process, and what it starts, to a fresh network namespace with a working loopback
/// and a congestion control that does not pace. Call before any thread is started.
///
/// # Errors
/// No right to do so (root, or CAP_SYS_ADMIN), or ip(8) is missing.
pub fn enter_own_network() -> Result<()> {
    if !fs::metadata("/sys/class/net/lo").is_ok_and(|meta| meta.is_dir()) {
        bail!("no loopback device");
    }
    let ip = Command::new("ip").arg("-V").output().context("ip (package iproute2)")?;
    if !ip.status.success() {
        bail!("ip -V: {}", ip.status);
    }
    if let Some(qdisc) = read("/proc/sys/net/core/default_qdisc") {
        // Set before only when this is called twice, with the same answer.
        let _ = HOST_QDISC.set(qdisc);
    }
    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).output().context("ip")?;
    if !up.status.success() {
        bail!("ip link set lo up: {}", String::from_utf8_lossy(&up.stderr).trim());
    }
    // Only the first namespace may make a restricted control its default: then the next one.
    // When none may be set, the report's description of the machine shows what is in use.
    let _ = CONGESTION
        .iter()
        .any(|control| fs::write("/proc/sys/net/ipv4/tcp_congestion_control", control).is_ok());
    Ok(())
}
