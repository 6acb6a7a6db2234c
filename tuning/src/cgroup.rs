//! What control groups leave of this host: processors, memory. Versions 1, 2 and both at once.
//!
//! A limit counts wherever it is set between the group of this process and the top that it can see. Invariant: a limit that
//! cannot be read is none. Sources: the kernel's `cgroup-v2.rst`, `cgroup-v1/cpusets.rst`, `sched-bwc.rst`. Next: `host`.

use crate::cpus::CpuSet;
use crate::tree::Tree;

/// A limit of version 1 from here on says that there is none: the kernel prints the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;

/// What is left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Which hierarchies there are: `v1`, `v2` or `hybrid`; empty without any.
    pub version: &'static str,
    /// Time of so many processors.
    pub quota: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processors by number.
    pub cpus: Option<CpuSet>,
}

/// A hierarchy: where it is mounted, of which group, and the group of this process in it.
struct Hierarchy {
    at: String,
    top: String,
    group: String,
    is_v2: bool,
}

impl Limits {
    /// Reads them.
    #[must_use]
    pub fn read(tree: &Tree) -> Self {
        let mut limits = Self::default();
        let (mut v1, mut v2) = (false, false);
        for hierarchy in hierarchies(tree) {
            let controllers = hierarchy.is_v2 && {
                let list = tree.text(&format!("{}/cgroup.controllers", hierarchy.at));
                list.is_some_and(|list| !list.is_empty())
            };
            v1 |= !hierarchy.is_v2;
            v2 |= controllers;
            for group in hierarchy.groups() {
                limits.take(tree, &group, hierarchy.is_v2);
            }
        }
        limits.version = match (v1, v2) {
            (true, true) => "hybrid",
            (true, false) => "v1",
            (false, true) => "v2",
            (false, false) => "",
        };
        limits
    }

    fn take(&mut self, tree: &Tree, group: &str, is_v2: bool) {
        let text = |name: &str| tree.text(&format!("{group}/{name}"));
        let (quota, memory, cpus) = if is_v2 {
            (
                text("cpu.max").and_then(|text| quota(&text)),
                text("memory.max").and_then(|text| text.parse().ok()),
                text("cpuset.cpus.effective"),
            )
        } else {
            let both = text("cpu.cfs_quota_us").zip(text("cpu.cfs_period_us"));
            (
                both.and_then(|(quota_us, period)| quota(&format!("{quota_us} {period}"))),
                text("memory.limit_in_bytes").and_then(|text| text.parse().ok()),
                text("cpuset.effective_cpus").or_else(|| text("cpuset.cpus")),
            )
        };
        let memory = memory.filter(|bytes| *bytes < NO_LIMIT);
        let cpus = cpus.and_then(|text| CpuSet::from_list(&text)).filter(|set| !set.is_empty());
        self.quota = [self.quota, quota].into_iter().flatten().reduce(f64::min);
        self.memory = [self.memory, memory].into_iter().flatten().min();
        self.cpus = match (self.cpus.take(), cpus) {
            (Some(one), Some(other)) => Some(one.and(&other)),
            (one, other) => one.or(other),
        };
    }
}

/// `max 100000` or `150000 100000`: a time in each period. Version 1 says -1 for none.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

impl Hierarchy {
    /// The directories of the group and of those above it, as far as the mount shows them.
    fn groups(&self) -> Vec<String> {
        // Without a namespace of its own, a container's mount begins at its group, and `/proc` names the group from the top.
        let below = self.group.strip_prefix(self.top.trim_end_matches('/')).unwrap_or("/");
        let mut below = below.trim_end_matches('/');
        let mut groups = vec![format!("{}{below}", self.at)];
        while let Some((above, _)) = below.rsplit_once('/') {
            below = above;
            groups.push(format!("{}{below}", self.at));
        }
        groups
    }
}

fn hierarchies(tree: &Tree) -> Vec<Hierarchy> {
    let own = tree.text("/proc/self/cgroup").unwrap_or_default();
    // Lines are `number:controllers:group`, with no controllers for version 2.
    let own: Vec<Vec<&str>> = own.lines().map(|line| line.splitn(3, ':').collect()).collect();
    let mounts = tree.text("/proc/self/mountinfo").unwrap_or_default();
    let hierarchy = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let (top, at) = (front.get(3)?, front.get(4)?);
        let is_v2 = match *back.first()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let options = back.last()?;
        let is_own = |fields: &&Vec<&str>| {
            fields.get(1).is_some_and(|controllers| {
                let first = controllers.split(',').next().unwrap_or_default();
                let named = options.split(',').any(|option| option == first);
                if is_v2 { controllers.is_empty() } else { !controllers.is_empty() && named }
            })
        };
        let group = own.iter().find(is_own).and_then(|fields| fields.get(2))?;
        Some(Hierarchy {
            at: (*at).to_owned(),
            top: (*top).to_owned(),
            group: (*group).to_owned(),
            is_v2,
        })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Dir;

    fn limits(files: &[(&str, &str)]) -> Limits {
        let dir = Dir::new("cgroup");
        for (path, text) in files {
            dir.file(path, text);
        }
        Limits::read(&Tree::at(dir.path()))
    }

    #[test]
    fn version_2_with_a_limit_above() {
        let found = limits(&[
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/proc/self/mountinfo", "1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory\n"),
            ("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "1048576\n"),
            ("/sys/fs/cgroup/a/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/cpuset.cpus.effective", "2-3\n"),
        ]);
        let cpus = CpuSet::from_list("2-3");
        assert_eq!(found, Limits { version: "v2", quota: Some(1.5), memory: Some(1 << 20), cpus });
    }

    #[test]
    fn version_1_mounted_from_the_group_on() {
        let found = limits(&[
            ("/proc/self/cgroup", "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n"),
            (
                "/proc/self/mountinfo",
                "1 0 0:1 /docker/x /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
                 2 0 0:2 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            ),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(found, Limits { version: "v1", quota: Some(2.0), memory: None, cpus: None });
    }

    #[test]
    fn both_at_once() {
        let found = limits(&[
            ("/proc/self/cgroup", "2:memory:/\n1:name=systemd:/\n0::/svc\n"),
            (
                "/proc/self/mountinfo",
                "1 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 2 0 0:2 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n"),
            ("/sys/fs/cgroup/unified/cgroup.controllers", "cpu\n"),
            ("/sys/fs/cgroup/unified/svc/cpu.max", "50000 100000\n"),
        ]);
        assert_eq!(
            found,
            Limits { version: "hybrid", quota: Some(0.5), memory: Some(4096), cpus: None }
        );
        assert_eq!(limits(&[]), Limits::default());
    }
}
