//! Where each part of a fingerprint is read.
//!
//! Invariant: what the kernel does not have is said to be unknown or missing in words, never left to look like another
//! machine's value. Sources: the kernel's `Documentation/ABI/testing/sysfs-devices-system-cpu`, `accounting/psi.rst`,
//! `filesystems/proc.rst`. Next: `differ`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tuning::check::{self, Options, Status};
use tuning::host::Host;
use tuning::journal;
use tuning::knob::Profile;
use tuning::knobs;
use tuning::tree::Tree;

use super::{Conditions, Identity, Run, UNKNOWN};
use crate::clock;

const CPU: &str = "/sys/devices/system/cpu";
/// What /proc/stat counts in.
const TICK_MS: u64 = 10;

/// FNV-1a of 64 bits: equal texts have equal numbers, on every machine and in every version.
pub(super) fn number(text: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn text(tree: &Tree, path: &str) -> String {
    let text = tree.text(path).map(|text| text.trim().to_owned());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// A line `name : value`; the first of several.
fn field(text: &str, names: &[&str]) -> Option<String> {
    let of = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    names.iter().find_map(|name| of(name))
}

/// The choice in brackets of `always [madvise] never`; all of it where there are none.
fn chosen(text: &str) -> &str {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text, |(chosen, _)| chosen)
}

pub(super) fn identity(tree: &Tree, run: Run<'_>) -> Identity {
    let host = Host::brief(tree);
    let cpuinfo = tree.text("/proc/cpuinfo").unwrap_or_default();
    let known = |names: &[&str]| field(&cpuinfo, names).unwrap_or_else(|| UNKNOWN.to_owned());
    // Arm names no model.
    let arm = || format!("{} part {}", known(&["CPU implementer"]), known(&["CPU part"]));
    let flags = field(&cpuinfo, &["flags", "Features"]).unwrap_or_default();
    let flags: BTreeSet<&str> = flags.split_whitespace().collect();
    let flags: Vec<&str> = flags.into_iter().collect();
    let thp = |name: &str| text(tree, &format!("/sys/kernel/mm/transparent_hugepage/{name}"));
    let qdisc = run.qdisc.map(str::to_owned);
    Identity {
        cpu_model: field(&cpuinfo, &["model name"]).unwrap_or_else(arm),
        cpu_flags: format!("{} of {}", number(&flags.join(" ")), flags.len()),
        microcode: known(&["microcode", "CPU revision"]),
        topology: topology(tree, &host),
        memory_gib: (memory(tree) + (1 << 29)) >> 30,
        virtual_machine: host.vm.clone().unwrap_or_else(|| "none".to_owned()),
        kernel: text(tree, "/proc/sys/kernel/osrelease"),
        kernel_cmdline: number(&text(tree, "/proc/cmdline")),
        mitigations: mitigations(tree),
        clocksource: text(tree, "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        governor: governor(tree),
        boost: boost(tree),
        idle_driver: text(tree, &format!("{CPU}/cpuidle/current_driver")),
        huge_pages: format!("{}, defrag {}", chosen(&thp("enabled")), chosen(&thp("defrag"))),
        network: network(run),
        qdisc: qdisc.unwrap_or_else(|| text(tree, "/proc/sys/net/core/default_qdisc")),
        congestion: text(tree, "/proc/sys/net/ipv4/tcp_congestion_control"),
        fifo: run.fifo,
        cgroup: cgroup(&host),
        data: None,
        tuning: tuned(tree, &host),
        bench_profile: env!("BENCH_PROFILE").to_owned(),
    }
}

/// Of the machine, not of the control group, which is said apart.
fn memory(tree: &Tree) -> u64 {
    let meminfo = tree.text("/proc/meminfo").unwrap_or_default();
    let total = field(&meminfo, &["MemTotal"]).unwrap_or_default();
    total.trim_end_matches(" kB").parse().unwrap_or(0_u64).saturating_mul(1024)
}

fn network(run: Run<'_>) -> String {
    let place = if run.own_network { "a namespace of its own" } else { "the host's namespace" };
    format!("loopback in {place}, no device")
}

fn topology(tree: &Tree, host: &Host) -> String {
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    for cpu in host.online.iter() {
        let id =
            |name: &str| tree.text(&format!("{CPU}/cpu{cpu}/topology/{name}")).unwrap_or_default();
        sockets.insert(id("physical_package_id"));
        cores.insert((id("physical_package_id"), id("die_id"), id("core_id")));
    }
    format!(
        "{} CPUs ({}), {} cores, {} sockets, {} NUMA nodes",
        host.online.len(),
        host.online,
        cores.len(),
        sockets.len(),
        host.nodes.len().max(1)
    )
}

fn mitigations(tree: &Tree) -> BTreeMap<String, String> {
    let dir = format!("{CPU}/vulnerabilities");
    let each = tree.list(&dir).into_iter().map(|name| {
        let said = text(tree, &format!("{dir}/{name}"));
        (name, said)
    });
    each.collect()
}

/// Governors of all processors, each once.
fn governor(tree: &Tree) -> String {
    let policies = tree.list(&format!("{CPU}/cpufreq")).into_iter();
    let policies = policies.filter(|name| name.starts_with("policy"));
    let each = |policy: String| {
        let said = |name: &str| tree.text(&format!("{CPU}/cpufreq/{policy}/{name}"));
        let driver = said("scaling_driver").unwrap_or_else(|| UNKNOWN.to_owned());
        Some(format!("{} ({driver})", said("scaling_governor")?))
    };
    let governors: BTreeSet<String> = policies.filter_map(each).collect();
    if governors.is_empty() {
        return "none: the frequency is not this kernel's to choose".to_owned();
    }
    governors.into_iter().collect::<Vec<_>>().join(", ")
}

fn boost(tree: &Tree) -> String {
    let off = tree.number(&format!("{CPU}/intel_pstate/no_turbo"));
    let on = tree.number(&format!("{CPU}/cpufreq/boost"));
    match (off, on) {
        (Some(0), _) | (None, Some(1..)) => "on".to_owned(),
        (Some(_), _) | (None, Some(0)) => "off".to_owned(),
        (None, None) => UNKNOWN.to_owned(),
    }
}

fn cgroup(host: &Host) -> String {
    let limits = &host.limits;
    let mut parts = Vec::new();
    parts.extend(limits.quota.map(|quota| format!("{quota} CPUs' time")));
    parts.extend(
        limits.cpus.as_ref().filter(|set| **set != host.online).map(|set| format!("CPUs {set}")),
    );
    parts.extend(limits.memory.map(|bytes| format!("{} MiB", bytes >> 20)));
    if parts.is_empty() { "no limits".to_owned() } else { format!("limits {}", parts.join(", ")) }
}

/// The settings `tune` has changed since the machine started, with the profiles of which they are.
fn tuned(tree: &Tree, host: &Host) -> String {
    let Ok(entries) = journal::read(&tree.real(journal::DEFAULT)) else {
        // Not its message, which names a path.
        return format!("{UNKNOWN}: the journal of tune cannot be read");
    };
    let still = |entry: &&journal::Entry| {
        let now = tree.text(&entry.path);
        entry.boot_id == host.boot_id && now.is_some_and(|now| entry.is_ours(&now))
    };
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut names = BTreeSet::new();
    for entry in entries.iter().filter(still) {
        settings.push((entry.path.clone(), entry.after.clone()));
        names.insert(entry.knob.as_str());
    }
    if settings.is_empty() {
        return "not tuned".to_owned();
    }
    settings.sort();
    let id = number(&format!("{settings:?}"));
    let of_profile = |profile: &&Profile| {
        let options = Options { profile: **profile, host_too: true };
        names.iter().all(|name| {
            knobs::find(name).filter(|knob| knob.desire(**profile).is_some()).is_some_and(|knob| {
                let findings = check::check_knob(tree, host, options, knob);
                findings.iter().all(|finding| finding.status != Status::Drift)
            })
        })
    };
    let profiles: Vec<&str> =
        Profile::ALL.iter().filter(of_profile).map(|profile| profile.name()).collect();
    let profiles =
        if profiles.is_empty() { "no profile".to_owned() } else { profiles.join(" or ") };
    format!("tuned: {profiles}, {} settings, {id}", settings.len())
}

pub(super) fn network_devices(tree: &Tree) -> Vec<String> {
    let host = Host::brief(tree);
    let nics = tuning::device::Nic::all(tree, &host.nodes, &host.allowed);
    let each = nics.iter().map(|nic| {
        let driver = nic.driver.as_deref().unwrap_or("one end of a pair");
        format!("{} ({driver}, {} rx, {} tx)", nic.name, nic.rx, nic.tx)
    });
    each.collect()
}

/// The kind of the file system `dir` is on, and how it is mounted.
pub(super) fn file_system(tree: &Tree, dir: &Path) -> String {
    let dir = nearest(dir);
    let mounts = tree.text("/proc/self/mountinfo").unwrap_or_default();
    // number parent device root AT OPTIONS optional* - KIND source OPTIONS; of several at one place the last lies on top.
    let mount = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let at = front.get(4)?.replace("\\040", " ");
        let of_mount = front.get(5)?;
        let (kind, of_system) = (back.first()?, back.get(2)?);
        dir.starts_with(&at).then(|| (at.len(), format!("{kind} ({of_mount}; {of_system})")))
    };
    let over = mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth);
    over.map_or_else(|| UNKNOWN.to_owned(), |(_, said)| said)
}

/// `dir`, or the folder above it that is there already.
fn nearest(dir: &Path) -> PathBuf {
    let mut dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    loop {
        if let Ok(real) = fs::canonicalize(&dir) {
            return real;
        }
        if !dir.pop() {
            return PathBuf::from("/");
        }
    }
}

pub(super) fn conditions(tree: &Tree) -> Conditions {
    let pressure = |what: &str| tree.text(&format!("/proc/pressure/{what}"));
    let total = |what: &str| pressure_us(&pressure(what)?);
    let percent = pressure("cpu").and_then(|text| some(&text, "avg10=")?.parse().ok());
    Conditions {
        unix_s: clock::unix_us() / 1_000_000,
        load: text(tree, "/proc/loadavg"),
        cpu_pressure_us: total("cpu"),
        memory_pressure_us: total("memory"),
        io_pressure_us: total("io"),
        cpu_pressure_percent: percent,
        stolen_ms: stolen_ticks(&tree.text("/proc/stat").unwrap_or_default()) * TICK_MS,
    }
}

/// A value of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn some<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix(name))
}

/// Time in which somebody waited, from a file of `/proc/pressure`.
pub(crate) fn pressure_us(text: &str) -> Option<u64> {
    some(text, "total=")?.parse().ok()
}

/// What the hypervisor took of all processors together.
pub(crate) fn stolen_ticks(stat: &str) -> u64 {
    let cores = stat.lines().filter(|line| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    cores.filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok()).sum()
}

/// The revision of the source tree this program lies in, asked of git: with `-dirty` where files differ from it, and a word
/// where this program is older than its last commit.
pub(super) fn revision() -> String {
    let Ok(program) = std::env::current_exe() else { return UNKNOWN.to_owned() };
    let Some(dir) = program.parent() else { return UNKNOWN.to_owned() };
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .arg("-C")
            .arg(dir)
            .args(args)
            .stdin(Stdio::null())
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(said) = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]) else {
        return format!("{UNKNOWN}: this program is in no source tree, or git is not there");
    };
    let committed_s = git(&["log", "-1", "--format=%ct"]).and_then(|text| text.parse::<u64>().ok());
    let built = fs::metadata(&program).and_then(|metadata| metadata.modified()).ok();
    let built_s = built.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    match (committed_s, built_s) {
        (Some(committed_s), Some(built)) if built.as_secs() < committed_s => {
            format!("{said}, by a program built before")
        }
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_fnv() {
        assert_eq!(number(""), "cbf29ce484222325");
        assert_eq!(number("a"), "af63dc4c8601ec8c");
    }

    #[test]
    fn pressure_and_stolen_time() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(pressure_us(text), Some(77));
        assert_eq!(pressure_us(""), None);
        let stat = "cpu  1 2 3 4 5 6 7 9 0 0\ncpu0 1 2 3 4 5 6 7 4 0 0\ncpu1 1 2 3 4 5 6 7 5 0 0\nctxt 5\n";
        assert_eq!(stolen_ticks(stat), 9);
    }
}
