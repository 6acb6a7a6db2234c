//! The fingerprint of fixture trees, what decides comparability, and what it says of this machine.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const TREES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tuning/tests/trees");

/// A recorded machine, gone with the test.
struct Recorded(PathBuf);

impl Recorded {
    fn of(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("bench-print-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).expect("room");
        tuning::record::unpack(&PathBuf::from(TREES).join(name), &dir).expect("a recorded machine");
        let recorded = Self(dir);
        recorded.put("/proc/cpuinfo", CPUINFO);
        recorded
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a directory")).expect("room");
        fs::write(path, text).expect("room");
    }

    fn read(&self) -> Fingerprint {
        Fingerprint::read(&Tree::at(&self.0), Run::default())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A Processor\nmicrocode\t: 0xf4\n\
    flags\t\t: fpu sse avx2\n\nprocessor\t: 1\nmodel name\t: A Processor\n";

fn decide(base: &Fingerprint, new: &Fingerprint) -> Vec<String> {
    let all = differences(base, new).into_iter().filter(|difference| difference.decides);
    all.map(|difference| difference.to_string()).collect()
}

#[test]
fn a_recorded_machine_has_every_part() {
    let recorded = Recorded::of("desktop.tree");
    recorded.put("/proc/pressure/cpu", "some avg10=2.50 avg60=0 avg300=0 total=700\n");
    recorded.put("/proc/stat", "cpu  1 1 1 1 1 1 1 3\ncpu0 1 1 1 1 1 1 1 3 0 0\n");
    recorded.put("/proc/sys/net/core/default_qdisc", "fq\n");
    recorded.put("/sys/kernel/mm/transparent_hugepage/defrag", "always [madvise] never\n");
    let print = recorded.read();
    let identity = &print.identity;
    assert_eq!((identity.cpu_model.as_str(), identity.microcode.as_str()), ("A Processor", "0xf4"));
    assert!(identity.cpu_flags.ends_with(" of 3"), "{}", identity.cpu_flags);
    assert!(identity.topology.starts_with("8 CPUs (0-7), "), "{}", identity.topology);
    assert_eq!(identity.memory_gib, 31);
    assert_eq!(
        (identity.kernel.as_str(), identity.virtual_machine.as_str()),
        ("6.8.0-45-generic", "none")
    );
    assert_eq!(identity.kernel_cmdline.len(), 16);
    assert_eq!(identity.mitigations["meltdown"], "Mitigation: PTI");
    assert_eq!((identity.clocksource.as_str(), identity.boost.as_str()), ("tsc", "on"));
    assert!(identity.governor.starts_with("powersave"), "{}", identity.governor);
    assert!(identity.huge_pages.ends_with("defrag madvise"), "{}", identity.huge_pages);
    assert_eq!((identity.qdisc.as_str(), identity.tuning.as_str()), ("fq", "not tuned"));
    assert_eq!(identity.network, "loopback in the host's namespace, no device");
    assert_eq!(print.network_devices, ["enp3s0 (r8169, 1 rx, 1 tx)"]);
    assert_eq!((print.start.cpu_pressure_us, print.start.stolen_ms), (Some(700), 30));
    let line = print.line();
    for part in [&print.id, "A Processor", "Linux 6.8.0-45-generic", "loopback", "not tuned"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn what_changes_by_itself_is_not_of_the_identity() {
    let recorded = Recorded::of("desktop.tree");
    let before = recorded.read();
    recorded.put("/proc/pressure/cpu", "some avg10=99.00 avg60=0 avg300=0 total=900\n");
    recorded.put("/proc/stat", "cpu0 1 1 1 1 1 1 1 999 0 0\n");
    recorded.put("/proc/loadavg", "9.00 9.00 9.00 9/9 9\n");
    // The same features in another order, as another kernel lists them.
    recorded.put("/proc/cpuinfo", &CPUINFO.replace("fpu sse avx2", "avx2 fpu sse"));
    let after = recorded.read();
    assert_ne!(before.start, after.start);
    assert_eq!((&before.id, decide(&before, &after).len()), (&after.id, 0));
}

#[test]
fn each_part_of_the_identity_is_named_when_it_differs() {
    for (path, text, field) in [
        (
            "/proc/cpuinfo",
            "model name\t: Another\nmicrocode\t: 0xf4\nflags\t: fpu sse avx2\n",
            "cpu_model",
        ),
        ("/proc/cpuinfo", &CPUINFO.replace("0xf4", "0xf5"), "microcode"),
        ("/proc/cpuinfo", &CPUINFO.replace("avx2", ""), "cpu_flags"),
        ("/proc/sys/kernel/osrelease", "6.8.0-46-generic\n", "kernel"),
        ("/proc/cmdline", "ro mitigations=off\n", "kernel_cmdline"),
        (
            "/sys/devices/system/cpu/vulnerabilities/meltdown",
            "Vulnerable\n",
            "mitigations.meltdown",
        ),
        (
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet\n",
            "clocksource",
        ),
        ("/sys/devices/system/cpu/cpufreq/policy3/scaling_governor", "performance\n", "governor"),
        ("/sys/devices/system/cpu/intel_pstate/no_turbo", "1\n", "boost"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n", "huge_pages"),
        ("/sys/devices/system/cpu/online", "0-3\n", "topology"),
        ("/proc/meminfo", "MemTotal: 16000000 kB\n", "memory_gib"),
        ("/proc/sys/net/ipv4/tcp_congestion_control", "vegas\n", "congestion"),
        ("/proc/sys/net/core/default_qdisc", "other\n", "qdisc"),
    ] {
        let recorded = Recorded::of("desktop.tree");
        recorded.put("/sys/devices/system/cpu/cpufreq/policy3/scaling_driver", "intel_pstate\n");
        let before = recorded.read();
        recorded.put(path, text);
        let after = recorded.read();
        let found = decide(&before, &after);
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(found[0].starts_with(&format!("{field}: ")), "{path}: {found:?}");
        assert_ne!(before.id, after.id, "{path}");
    }
}

#[test]
fn what_was_measured_differs_and_decides_nothing() {
    let recorded = Recorded::of("desktop.tree");
    let base = recorded.read();
    let mut new = base.clone();
    new.software.git = "another".to_owned();
    new.software.peers.insert("redis".to_owned(), "8".to_owned());
    new.network_devices.clear();
    let found = differences(&base, &new);
    let fields: Vec<&str> = found.iter().map(|difference| difference.field.as_str()).collect();
    assert_eq!(fields, ["git", "peers.redis", "network_devices"]);
    assert!(found.iter().all(|difference| !difference.decides), "{found:?}");
}

#[test]
fn settings_of_tune_are_of_the_identity_while_they_last() {
    let recorded = Recorded::of("desktop.tree");
    let journal = |boot: &str| {
        format!(
            "{{\"version\": 1, \"entries\": [{{\"knob\": \"net.core.somaxconn\", \"path\": \"/proc/sys/net/core/somaxconn\", \
             \"format\": \"words\", \"before\": \"4096\", \"after\": \"777\", \"boot_id\": \"{boot}\", \"kernel\": \"6\"}}]}}"
        )
    };
    recorded.put("/proc/sys/kernel/random/boot_id", "this\n");
    recorded.put("/proc/sys/net/core/somaxconn", "777\n");
    let plain = recorded.read();
    recorded.put("/var/lib/tune/journal.json", &journal("this"));
    let tuned = recorded.read();
    assert!(
        tuned.identity.tuning.starts_with("tuned: no profile, 1 settings, "),
        "{}",
        tuned.identity.tuning
    );
    assert_eq!(decide(&plain, &tuned).len(), 1);
    // Somebody else has set it since, or the machine was started anew.
    recorded.put("/proc/sys/net/core/somaxconn", "778\n");
    assert_eq!(recorded.read().identity.tuning, "not tuned");
    recorded.put("/proc/sys/net/core/somaxconn", "777\n");
    recorded.put("/var/lib/tune/journal.json", &journal("another"));
    assert_eq!(recorded.read().identity.tuning, "not tuned");
    recorded.put("/var/lib/tune/journal.json", "{");
    assert!(recorded.read().identity.tuning.starts_with("unknown"));
}

#[test]
fn files_are_on_the_mount_that_lies_on_top() {
    let recorded = Recorded::of("desktop.tree");
    recorded.put(
        "/proc/self/mountinfo",
        "1 0 0:1 / / rw,relatime - ext4 /dev/x rw,discard\n2 1 0:2 / /tmp rw - tmpfs tmpfs rw,size=9k\n\
         3 1 0:3 / /tmp rw,noatime - xfs /dev/y rw,noquota\n",
    );
    let mut print = recorded.read();
    let id = print.id.clone();
    let tree = Tree::at(&recorded.0);
    print.on_data(&tree, Path::new("/tmp/no/such/folder"));
    let data = print.identity.data.clone().expect("it has one");
    assert_eq!(data, "xfs (rw,noatime; rw,noquota)");
    assert_ne!(print.id, id);
    print.on_data(&tree, Path::new("/"));
    assert_eq!(print.identity.data.as_deref(), Some("ext4 (rw,relatime; rw,discard)"));
}

#[test]
fn a_container_and_an_arm_are_told_apart_from_others() {
    let container = Recorded::of("container.tree").read();
    assert!(container.identity.cgroup.starts_with("limits "), "{}", container.identity.cgroup);
    let arm = Recorded::of("arm64.tree");
    arm.put(
        "/proc/cpuinfo",
        "CPU implementer\t: 0x41\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\nCPU revision\t: 1\n",
    );
    let arm = arm.read();
    assert_eq!(arm.identity.cpu_model, "0x41 part 0xd0c");
    assert!(decide(&container, &arm).len() > 3);
}

#[test]
fn this_machine_has_the_same_identity_twice() {
    let tree = Tree::live();
    let (mut first, second) =
        (Fingerprint::read(&tree, Run::default()), Fingerprint::read(&tree, Run::default()));
    assert_eq!(first.identity, second.identity);
    assert!(!first.software.rustc.is_empty() && !first.software.git.is_empty());
    assert!(first.during().is_none());
    first.close(&tree);
    assert!(first.during().is_some_and(|said| said.contains("the hypervisor took")));
    let json = serde_json::to_string(&first).expect("JSON");
    assert_eq!(serde_json::from_str::<Fingerprint>(&json).expect("a fingerprint"), first);
}
