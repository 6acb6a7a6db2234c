//! What there is to tune: processors that this process may use, memory, network devices, disks, containers and machines around it.
//!
//! Everything is read from a [`Tree`], so a recorded host is described as a running one. Invariants: [`Host::allowed`] is never
//! empty; [`Host::cores`] is what is left by affinity, cpusets and quotas, not what the machine has. Next: `device`, `knob`.

use serde::Serialize;

use crate::cgroup::Limits;
use crate::cpus::CpuSet;
use crate::device::{Disk, Nic};
use crate::irqbalance::Irqbalance;
use crate::tree::Tree;

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's kind, as `uname -m` says it.
    pub arch: String,
    /// Another one after each start.
    pub boot_id: String,
    /// Who runs this virtual machine, if it is one.
    pub vm: Option<String>,
    /// What runs this container, if it is one.
    pub container: Option<String>,
    /// What control groups leave.
    pub limits: Limits,
    /// Processors that are on.
    pub online: CpuSet,
    /// Those that this process may use.
    pub allowed: CpuSet,
    /// How many threads can really run at once here.
    pub cores: usize,
    /// Bytes this process may use.
    pub memory: u64,
    /// Processors of each NUMA node.
    pub nodes: Vec<CpuSet>,
    /// `/sys` shows the network devices of another namespace, and those of this one cannot be seen.
    pub is_sys_foreign: bool,
    /// Network devices of this namespace.
    pub nics: Vec<Nic>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// The daemon that moves interrupts, if it runs.
    pub irqbalance: Option<Irqbalance>,
}

/// A host in the head of reports.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    kernel: &'a str,
    arch: &'a str,
    vm: Option<&'a str>,
    container: Option<&'a str>,
    cgroup: &'a str,
    cpus_online: usize,
    cpus_allowed: String,
    cores: usize,
    memory_bytes: u64,
    numa_nodes: usize,
    nics: Vec<String>,
    disks: Vec<String>,
}

impl Host {
    /// Looks at everything.
    #[must_use]
    pub fn read(tree: &Tree) -> Self {
        let mut host = Self::brief(tree);
        host.is_sys_foreign = tree.is_sys_net_foreign();
        if !host.is_sys_foreign {
            host.nics = Nic::all(tree, &host.nodes, &host.allowed);
        }
        host.disks = Disk::all(tree, host.vm.is_some());
        host.irqbalance = Irqbalance::find(tree);
        host
    }

    /// Looks at no devices and no other processes.
    #[must_use]
    pub fn brief(tree: &Tree) -> Self {
        let text = |path: &str| tree.text(path).unwrap_or_default();
        let limits = Limits::read(tree);
        let list = |path: &str| CpuSet::from_list(&text(path)).filter(|set| !set.is_empty());
        let affinity = field(&text("/proc/self/status"), "Cpus_allowed_list")
            .and_then(|list| CpuSet::from_list(&list));
        let one = || CpuSet::from_iter([0]);
        let online =
            list("/sys/devices/system/cpu/online").or(affinity.clone()).unwrap_or_else(one);
        let sets = [affinity.as_ref(), limits.cpus.as_ref()];
        let allowed = sets.into_iter().flatten().fold(online.clone(), |all, set| {
            let both = all.and(set);
            if both.is_empty() { all } else { both }
        });
        let quota = limits.quota.map_or(usize::MAX, whole);
        let meminfo = field(&text("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let total_kb = meminfo.trim_end_matches(" kB").parse().unwrap_or(0_u64);
        let total = total_kb.saturating_mul(1024);
        let nodes = tree.list("/sys/devices/system/node").into_iter().filter(|name| {
            name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok())
        });
        Self {
            kernel: text("/proc/sys/kernel/osrelease"),
            arch: tree.text("/proc/sys/kernel/arch").unwrap_or_else(|| arch(tree).to_owned()),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            vm: vm(tree),
            container: container(tree),
            cores: allowed.len().min(quota).max(1),
            memory: limits.memory.map_or(total, |limit| limit.min(total)),
            nodes: nodes
                .filter_map(|node| list(&format!("/sys/devices/system/node/{node}/cpulist")))
                .collect(),
            limits,
            online,
            allowed,
            is_sys_foreign: false,
            nics: Vec::new(),
            disks: Vec::new(),
            irqbalance: None,
        }
    }

    /// For the head of reports.
    #[must_use]
    pub fn summary(&self) -> Summary<'_> {
        Summary {
            kernel: &self.kernel,
            arch: &self.arch,
            vm: self.vm.as_deref(),
            container: self.container.as_deref(),
            cgroup: self.limits.version,
            cpus_online: self.online.len(),
            cpus_allowed: self.allowed.to_string(),
            cores: self.cores,
            memory_bytes: self.memory,
            numa_nodes: self.nodes.len(),
            nics: self.nics.iter().map(Nic::summary).collect(),
            disks: self.disks.iter().map(Disk::summary).collect(),
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!(
            "Linux {} {}, {} of {} CPUs, {} MiB",
            self.kernel,
            self.arch,
            self.cores,
            self.online.len(),
            self.memory >> 20
        );
        if self.nodes.len() > 1 {
            line.push_str(&format!(", {} NUMA nodes", self.nodes.len()));
        }
        if let Some(vm) = &self.vm {
            line.push_str(&format!(", virtual machine ({vm})"));
        }
        if let Some(container) = &self.container {
            line.push_str(&format!(", container ({container}, cgroup {})", self.limits.version));
        }
        line
    }
}

/// So many whole processors a quota takes up, one at least.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small positive number"
)]
fn whole(quota: f64) -> usize {
    quota.ceil().max(1.0) as usize
}

/// A line `name: value` of a file, as in `/proc/self/status`.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// For kernels before 6.1, which do not say it in a file.
fn arch(tree: &Tree) -> &'static str {
    let cpuinfo = tree.text("/proc/cpuinfo").unwrap_or_default();
    if cpuinfo.contains("CPU implementer") {
        "aarch64"
    } else if cpuinfo.contains("vendor_id") {
        "x86_64"
    } else {
        std::env::consts::ARCH
    }
}

fn vm(tree: &Tree) -> Option<String> {
    let dmi = |name: &str| tree.text(&format!("/sys/class/dmi/id/{name}"));
    let vendor = dmi("sys_vendor").unwrap_or_default();
    let product = dmi("product_name").unwrap_or_default();
    // Whole machines of a cloud have its name too.
    if product.contains(".metal") {
        return None;
    }
    const VENDORS: &[&str] = &[
        "QEMU",
        "KVM",
        "Amazon EC2",
        "Google",
        "VMware",
        "Xen",
        "innotek",
        "Parallels",
        "OpenStack",
        "DigitalOcean",
        "Hetzner",
        "Alibaba",
    ];
    let known = VENDORS.iter().any(|known| vendor.contains(known))
        || (vendor.contains("Microsoft") && product.contains("Virtual"));
    if known {
        return Some(vendor);
    }
    if let Some(kind) = tree.text("/sys/hypervisor/type") {
        return Some(kind);
    }
    let cpuinfo = tree.text("/proc/cpuinfo").unwrap_or_default();
    let flags = field(&cpuinfo, "flags").unwrap_or_default();
    flags.split(' ').any(|flag| flag == "hypervisor").then(|| "unknown hypervisor".to_owned())
}

fn container(tree: &Tree) -> Option<String> {
    if tree.exists("/run/secrets/kubernetes.io") || tree.exists("/var/run/secrets/kubernetes.io") {
        return Some("kubernetes".to_owned());
    }
    // A machine that was made of an image has these files too, and sees the kernel's own threads.
    let sees_kernel = tree.text("/proc/2/comm").is_some_and(|name| name == "kthreadd");
    let files = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    if let Some((_, name)) = files.iter().find(|(file, _)| !sees_kernel && tree.exists(file)) {
        return Some((*name).to_owned());
    }
    if let Some(name) = tree.text("/run/systemd/container").filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let environ = tree.text("/proc/1/environ").unwrap_or_default();
    let mut pairs = environ.split('\0').filter_map(|pair| pair.split_once('='));
    if let Some((_, name)) = pairs.find(|(key, value)| *key == "container" && !value.is_empty()) {
        return Some(name.to_owned());
    }
    let groups = tree.text("/proc/self/cgroup").unwrap_or_default();
    let known = ["kubepods", "docker", "containerd", "lxc", "libpod", "garden"];
    known.iter().find(|name| groups.contains(*name)).map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Dir;

    fn host(files: &[(&str, &str)]) -> Host {
        let dir = Dir::new("host");
        for (path, text) in files {
            dir.file(path, text);
        }
        Host::brief(&Tree::at(dir.path()))
    }

    #[test]
    fn the_cores_are_those_that_are_allowed() {
        let files = [
            ("/sys/devices/system/cpu/online", "0-15\n"),
            ("/proc/self/status", "Name:\ttune\nCpus_allowed_list:\t4-11\n"),
            ("/proc/self/cgroup", "0::/\n"),
            ("/proc/self/mountinfo", "1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("/sys/fs/cgroup/cpuset.cpus.effective", "8-15\n"),
            ("/sys/fs/cgroup/cpu.max", "250000 100000\n"),
            ("/proc/meminfo", "MemTotal:       1024 kB\n"),
            ("/sys/fs/cgroup/memory.max", "4096\n"),
        ];
        let found = host(&files);
        assert_eq!(found.allowed.to_string(), "8-11");
        assert_eq!((found.cores, found.memory), (3, 4096));
        assert_eq!(host(&files[..2]).cores, 8);
        assert_eq!(host(&[]).cores, 1);
    }

    #[test]
    fn machines_and_containers_are_told_apart() {
        let metal = [
            ("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n"),
            ("/sys/class/dmi/id/product_name", "c5.metal\n"),
        ];
        assert_eq!(host(&metal).vm, None);
        assert_eq!(host(&metal[..1]).vm.as_deref(), Some("Amazon EC2"));
        let flags = [("/proc/cpuinfo", "vendor_id\t: x\nflags\t\t: fpu hypervisor\n")];
        assert_eq!(host(&flags).vm.as_deref(), Some("unknown hypervisor"));
        for (path, text, name) in [
            ("/.dockerenv", "", "docker"),
            ("/proc/1/environ", "A=b\0container=lxc\0", "lxc"),
            ("/proc/self/cgroup", "0::/kubepods/pod1\n", "kubepods"),
            ("/run/secrets/kubernetes.io/token", "", "kubernetes"),
        ] {
            assert_eq!(host(&[(path, text)]).container.as_deref(), Some(name), "{path}");
        }
        assert_eq!(host(&[("/proc/self/cgroup", "0::/user.slice\n")]).container, None);
        let of_image = [("/.dockerenv", ""), ("/proc/2/comm", "kthreadd\n")];
        assert_eq!(host(&of_image).container, None);
    }
}
