//! A knob: one row of a table that drives `check`, `apply`, `explain`, `export` and the documentation.
//!
//! Invariants: names are unique; a row that lowers security, or that only a restart changes, is never written; every row says
//! why and after whom. The rows are in `knobs`. Next: `knobs`, `check`.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::device::{Disk, Irq, Nic};
use crate::format::{Format, Want};
use crate::gains::Gain;
use crate::host::Host;
use crate::tree::{NETLINK, Tree, Unread};

/// What a host is tuned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Short answers, whatever they cost in power and in processors that wait.
    Latency,
    /// Many answers.
    Throughput,
    /// Disks.
    Io,
    /// Figures that come out alike twice.
    Bench,
    /// What a container may change without touching its neighbours.
    Container,
}

impl Profile {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::Latency, Self::Throughput, Self::Io, Self::Bench, Self::Container];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Io => "io",
            Self::Bench => "bench",
            Self::Container => "container",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|profile| profile.name() == name)
    }

    /// What it is for.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Latency => {
                "short answers, whatever they cost in power and in processors that wait"
            }
            Self::Throughput => "many answers and much data a second",
            Self::Io => "disks: short queues, no merging, little dirty memory",
            Self::Bench => "figures that come out alike twice",
            Self::Container => "what a container may change without touching its neighbours",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody on this machine.
    Host,
    /// Everybody in the network namespace.
    Netns,
    /// Whoever uses the device.
    Device,
    /// The processes of a control group.
    Cgroup,
    /// One process, as whoever starts it decides.
    Process,
    /// The machine, from its next start on.
    Boot,
}

impl Scope {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Netns => "netns",
            Self::Device => "device",
            Self::Cgroup => "cgroup",
            Self::Process => "process",
            Self::Boot => "boot",
        }
    }
}

/// How a knob is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `apply` writes it, and `revert` takes that back.
    Write,
    /// On the kernel's command line; `export --format cmdline` has it.
    Boot,
    /// By whoever starts the process; `export --format systemd` has it.
    Start,
    /// Only reported, for this reason.
    Tell(&'static str),
    /// It would make the host less safe: explained, and never applied.
    Security,
}

/// Where a knob is. Each device, queue, interrupt or processor has one of its own.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The setting of the knob's name, below `/proc/sys`.
    Sysctl,
    /// This file.
    File(&'static str),
    /// This file below `/sys/block/DISK/queue`.
    Disk(&'static str),
    /// This file below `/sys/class/net/NIC`.
    Nic(&'static str),
    /// This file of each receive queue.
    RxQueue(&'static str),
    /// This file of each transmit queue.
    TxQueue(&'static str),
    /// The processors that each interrupt of a network device goes to.
    NicIrq,
    /// This setting of a network device by netlink.
    Ethtool(&'static str),
    /// This setting of each NAPI instance of a network device by netlink.
    Napi(&'static str),
    /// This file below `/sys/devices/system/cpu/cpufreq/policyN`.
    Frequency(&'static str),
    /// This file below `/sys/devices/system/cpu/cpuN`.
    Cpu(&'static str),
    /// This parameter of `/proc/cmdline`.
    Cmdline(&'static str),
    /// This row of `/proc/self/limits`: the hard limit.
    Limit(&'static str),
    /// Made of several files, of which this is the first.
    Derived(&'static str, fn(&Tree, &Host) -> Option<String>),
}

/// Which values a profile wants.
#[derive(Clone, Copy, Debug)]
pub enum Desire {
    /// This one.
    Is(&'static str),
    /// A number that is no smaller.
    AtLeast(u64),
    /// A number that is no larger.
    AtMost(u64),
    /// Any of these, the first rather than the others.
    OneOf(&'static [&'static str]),
    /// As many numbers, none of them smaller.
    EachAtLeast(&'static [u64]),
    /// What this function makes of the host, and how to say it in the documentation.
    By(&'static str, fn(&Context<'_>) -> Wish),
}

/// What is wanted on this host.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Such a value.
    Want(Want),
    /// Nothing, because it makes no sense on this host.
    NotHere(String),
}

/// What a [`Desire`] is made for.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The host's files.
    pub tree: &'a Tree,
    /// The host.
    pub host: &'a Host,
    /// Which of several.
    pub of: Of<'a>,
}

/// Which of several.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// There is only one.
    Host,
    /// A disk.
    Disk(&'a Disk),
    /// A network device.
    Nic(&'a Nic),
    /// A queue of a network device by its number.
    Queue(&'a Nic, usize),
    /// A NAPI instance of a network device by its number; none where the device has none that can be set.
    Napi(&'a Nic, Option<u32>),
    /// An interrupt of a network device, the so-and-so-manieth.
    Irq(&'a Nic, usize, &'a Irq),
    /// A processor, or a group of those that change their frequency together.
    Cpu(usize),
}

/// One place of a knob.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Its file.
    pub path: String,
    /// Which of several; empty when there is only one.
    pub instance: String,
    /// The same, for functions.
    pub of: Of<'a>,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub place: Place,
    /// How the kernel writes it.
    pub format: Format,
    /// Whom a change concerns.
    pub scope: Scope,
    /// How it is changed.
    pub how: How,
    /// Which profiles want which values.
    pub wants: &'static [(&'static [Profile], Desire)],
    /// What it does.
    pub what: &'static str,
    /// Why to change it.
    pub why: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// What may go wrong.
    pub risk: &'static str,
    /// What it costs an engine when it is not so: in the notes at its start; empty for knobs that are not there.
    pub cost: &'static str,
    /// How it is shown what it gains.
    pub gain: Gain,
    /// Why a change would not last on this host, if so.
    pub in_vain: Option<fn(&Context<'_>) -> Option<String>>,
}

impl Serialize for Knob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl Knob {
    /// What a row has that says nothing else.
    pub const BASE: Self = Self {
        name: "",
        place: Place::Sysctl,
        format: Format::Words,
        scope: Scope::Host,
        how: How::Write,
        wants: &[],
        what: "",
        why: "",
        source: "",
        risk: "",
        cost: "",
        gain: Gain::Not(""),
        in_vain: None,
    };

    /// What a profile wants.
    #[must_use]
    pub fn desire(&self, profile: Profile) -> Option<Desire> {
        let row = self.wants.iter().find(|(profiles, _)| profiles.contains(&profile));
        row.map(|(_, desire)| *desire)
    }

    /// Where it is, with capitals for what differs.
    #[must_use]
    pub fn path(&self) -> String {
        match self.place {
            Place::Sysctl => format!("/proc/sys/{}", self.name.replace('.', "/")),
            Place::File(path) | Place::Derived(path, _) => path.to_owned(),
            Place::Disk(file) => format!("/sys/block/DISK/queue/{file}"),
            Place::Nic(file) => format!("/sys/class/net/NIC/{file}"),
            Place::RxQueue(file) => format!("/sys/class/net/NIC/queues/rx-N/{file}"),
            Place::TxQueue(file) => format!("/sys/class/net/NIC/queues/tx-N/{file}"),
            Place::NicIrq => "/proc/irq/N/smp_affinity_list".to_owned(),
            Place::Ethtool(setting) => format!("{NETLINK}ethtool/NIC/{setting}"),
            Place::Napi(setting) => format!("{NETLINK}netdev/NIC/napi/ID/{setting}"),
            Place::Frequency(file) => format!("/sys/devices/system/cpu/cpufreq/policyN/{file}"),
            Place::Cpu(file) => format!("/sys/devices/system/cpu/cpuN/{file}"),
            Place::Cmdline(_) => "/proc/cmdline".to_owned(),
            Place::Limit(_) => "/proc/self/limits".to_owned(),
        }
    }

    /// Whether a file is one of its places, on whichever host: with other words for the capitals of [`Self::path`].
    #[must_use]
    pub fn has_path(&self, path: &str) -> bool {
        let own = self.path();
        own.split('/').count() == path.split('/').count()
            && own.split('/').zip(path.split('/')).all(|(own, other)| is_part(own, other))
    }

    /// Whether it is of network devices, which `/sys` may show of another namespace.
    #[must_use]
    pub const fn is_of_nics(&self) -> bool {
        matches!(
            self.place,
            Place::Nic(_)
                | Place::RxQueue(_)
                | Place::TxQueue(_)
                | Place::NicIrq
                | Place::Ethtool(_)
                | Place::Napi(_)
        )
    }

    /// The places of a host; none when it has no such device.
    #[must_use]
    pub fn targets<'a>(&self, tree: &Tree, host: &'a Host) -> Vec<Target<'a>> {
        let nics = host.nics.iter();
        let physical = host.nics.iter().filter(|nic| nic.driver.is_some());
        match self.place {
            Place::Disk(file) => host
                .disks
                .iter()
                .map(|disk| Target {
                    path: format!("/sys/block/{}/queue/{file}", disk.name),
                    instance: disk.name.clone(),
                    of: Of::Disk(disk),
                })
                .collect(),
            Place::Nic(file) => physical
                .map(|nic| Target {
                    path: format!("/sys/class/net/{}/{file}", nic.name),
                    instance: nic.name.clone(),
                    of: Of::Nic(nic),
                })
                .collect(),
            Place::Ethtool(setting) => nics
                // One end of a pair has features, and neither rings nor channels.
                .filter(|nic| nic.driver.is_some() || setting.starts_with("features/"))
                .map(|nic| Target {
                    path: format!("{NETLINK}ethtool/{}/{setting}", nic.name),
                    instance: nic.name.clone(),
                    of: Of::Nic(nic),
                })
                .collect(),
            Place::Napi(setting) => nics.flat_map(|nic| instances(nic, setting)).collect(),
            Place::RxQueue(file) => nics.flat_map(|nic| queues(nic, "rx", nic.rx, file)).collect(),
            Place::TxQueue(file) => {
                physical.flat_map(|nic| queues(nic, "tx", nic.tx, file)).collect()
            }
            Place::NicIrq => physical
                .flat_map(|nic| {
                    nic.irqs.iter().enumerate().map(move |(at, irq)| Target {
                        path: format!("/proc/irq/{}/smp_affinity_list", irq.number),
                        instance: format!("{} {}", nic.name, irq.name),
                        of: Of::Irq(nic, at, irq),
                    })
                })
                .collect(),
            Place::Frequency(file) => {
                let dir = "/sys/devices/system/cpu/cpufreq";
                let number =
                    |name: String| Some((name.strip_prefix("policy")?.parse().ok()?, name));
                let policies = tree.list(dir).into_iter().filter_map(number);
                policies
                    .map(|(number, name)| Target {
                        path: format!("{dir}/{name}/{file}"),
                        instance: name,
                        of: Of::Cpu(number),
                    })
                    .collect()
            }
            Place::Cpu(file) => host
                .allowed
                .iter()
                .map(|cpu| Target {
                    path: format!("/sys/devices/system/cpu/cpu{cpu}/{file}"),
                    instance: format!("cpu{cpu}"),
                    of: Of::Cpu(cpu),
                })
                .collect(),
            _ => vec![Target { path: self.path(), instance: String::new(), of: Of::Host }],
        }
    }

    /// What a place has now, as the kernel writes it.
    ///
    /// # Errors
    /// It is not there, or not for this process.
    pub fn read(&self, tree: &Tree, host: &Host, target: &Target<'_>) -> Result<String, Unread> {
        match self.place {
            Place::Derived(_, read) => read(tree, host).ok_or(Unread::Missing),
            Place::Cmdline(name) => Ok(parameter(&tree.read(&target.path)?, name)),
            Place::Limit(name) => limit(&tree.read(&target.path)?, name).ok_or(Unread::Missing),
            _ => tree.read(&target.path),
        }
    }
}

/// Whether a part of a path is the one with capitals: `policyN` has a number, `NIC` and `DISK` have a name.
fn is_part(own: &str, other: &str) -> bool {
    let is_name = !other.is_empty() && other != "." && other != "..";
    match own {
        "NIC" | "DISK" => is_name,
        "N" | "ID" => is_number(other),
        _ => match own.strip_suffix('N').filter(|_| own != "N") {
            Some(start) => other.strip_prefix(start).is_some_and(is_number),
            None => own == other,
        },
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn queues<'a>(
    nic: &'a Nic,
    kind: &'static str,
    count: usize,
    file: &'static str,
) -> impl Iterator<Item = Target<'a>> {
    (0..count).map(move |number| Target {
        path: format!("/sys/class/net/{}/queues/{kind}-{number}/{file}", nic.name),
        instance: format!("{} {kind}-{number}", nic.name),
        of: Of::Queue(nic, number),
    })
}

/// One for each NAPI instance; one that cannot be read where there is none.
fn instances<'a>(nic: &'a Nic, setting: &str) -> Vec<Target<'a>> {
    let dir = format!("{NETLINK}netdev/{}/napi", nic.name);
    let target = |id: u32| Target {
        path: format!("{dir}/{id}/{setting}"),
        instance: format!("{} napi-{id}", nic.name),
        of: Of::Napi(nic, Some(id)),
    };
    if nic.napis.is_empty() {
        let of = Of::Napi(nic, None);
        return vec![Target { path: format!("{dir}/none"), instance: nic.name.clone(), of }];
    }
    nic.napis.iter().copied().map(target).collect()
}

/// A parameter of the kernel's command line: the last one of that name counts.
fn parameter(cmdline: &str, name: &str) -> String {
    // The kernel takes `-` and `_` for the same.
    let plain = |text: &str| text.replace('-', "_");
    let own = cmdline.split(" -- ").next().unwrap_or_default();
    let find = |word: &str| match word.split_once('=') {
        Some((key, value)) => (plain(key) == plain(name)).then(|| value.to_owned()),
        None => (plain(word) == plain(name)).then(|| "set".to_owned()),
    };
    own.split_whitespace().filter_map(find).next_back().unwrap_or_else(|| "absent".to_owned())
}

/// The hard limit: the row is its name, the soft one, the hard one and a unit.
fn limit(limits: &str, name: &str) -> Option<String> {
    let row = limits.lines().find_map(|line| line.strip_prefix(name))?;
    row.split_whitespace().nth(1).map(str::to_owned)
}

impl Desire {
    /// What is wanted on this host.
    #[must_use]
    pub fn wish(self, context: &Context<'_>) -> Wish {
        Wish::Want(match self {
            Self::Is(value) => Want::Is(value.to_owned()),
            Self::AtLeast(value) => Want::AtLeast(value),
            Self::AtMost(value) => Want::AtMost(value),
            Self::OneOf(values) => {
                Want::OneOf(values.iter().map(|value| (*value).to_owned()).collect())
            }
            Self::EachAtLeast(values) => Want::EachAtLeast(values.to_vec()),
            Self::By(_, make) => return make(context),
        })
    }

    /// As the documentation says it.
    #[must_use]
    pub fn shown(self) -> String {
        match self {
            Self::Is(value) => value.to_owned(),
            Self::AtLeast(value) => Want::AtLeast(value).shown(),
            Self::AtMost(value) => Want::AtMost(value).shown(),
            Self::OneOf(values) => values.join(" or "),
            Self::EachAtLeast(values) => Want::EachAtLeast(values.to_vec()).shown(),
            Self::By(text, _) => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_kernel() {
        let cmdline = "quiet isolcpus=1 skew-tick=0 skew_tick=1 -- nohz_full=3";
        assert_eq!(parameter(cmdline, "skew_tick"), "1");
        assert_eq!(parameter(cmdline, "isolcpus"), "1");
        assert_eq!(parameter(cmdline, "quiet"), "set");
        assert_eq!(parameter(cmdline, "nohz_full"), "absent");
    }

    #[test]
    fn places_by_their_paths() {
        for (name, path, is_there) in [
            ("vm.swappiness", "/proc/sys/vm/swappiness", true),
            ("vm.swappiness", "/proc/sys/vm/dirty_ratio", false),
            ("vm.swappiness", "/proc/sys/vm/swappiness/x", false),
            ("block.scheduler", "/sys/block/sda/queue/scheduler", true),
            ("block.scheduler", "/sys/block/../queue/scheduler", false),
            ("block.scheduler", "/sys/block//queue/scheduler", false),
            ("nic.rps_cpus", "/sys/class/net/eth0/queues/rx-12/rps_cpus", true),
            ("nic.rps_cpus", "/sys/class/net/eth0/queues/rx-/rps_cpus", false),
            ("nic.rps_cpus", "/sys/class/net/eth0/queues/tx-1/rps_cpus", false),
            ("irq.affinity", "/proc/irq/12/smp_affinity_list", true),
            ("irq.affinity", "/proc/irq/../smp_affinity_list", false),
            ("napi.defer_hard_irqs", "/netlink/netdev/eth0/napi/8193/defer-hard-irqs", true),
            ("cpu.governor", "/sys/devices/system/cpu/cpufreq/policy3/scaling_governor", true),
            (
                "cpu.resume_latency",
                "/sys/devices/system/cpu/cpu0/power/pm_qos_resume_latency_us",
                true,
            ),
            ("vm.swappiness", "/proc/sys/vm", false),
            ("vm.swappiness", "", false),
        ] {
            let knob = crate::knobs::find(name).expect("a knob");
            assert_eq!(knob.has_path(path), is_there, "{name} {path}");
        }
    }

    #[test]
    fn hard_limits() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(limit(limits, "Max open files").as_deref(), Some("524288"));
        assert_eq!(limit(limits, "Max locked memory").as_deref(), Some("unlimited"));
        assert_eq!(limit(limits, "Max cpu time"), None);
    }
}
