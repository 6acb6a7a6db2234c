//! What this host can do: each hook tried by really attaching to it, in a network namespace that is thrown away.
//!
//! Invariants: nothing of the host's own is touched; a probe leaves nothing. Next: `doctor::hooks`, `programs`, `link`.

mod hooks;

use std::fs;
use std::path::Path;

use libbpf_rs::Object;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::Serialize;

use crate::device::Device;
use crate::error::{During as _, Error, Result};
use crate::faults::{kill, refuse};
use crate::select::Way;
use crate::{disk, link, pins, programs};

/// What came of a probe.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was tried.
    pub probe: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// Why not, and what to do; or what was found.
    pub why: String,
}

struct Probe {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<String>,
}

const PROBES: &[Probe] = &[
    Probe {
        name: "programs",
        about: "this build has programs; all faults of packets and calls",
        run: built,
    },
    Probe {
        name: "btf",
        about: "the kernel describes its types; metrics and crash points",
        run: btf,
    },
    Probe { name: "load", about: "the kernel takes a classifier; faults of packets", run: load },
    Probe {
        name: "tcx in",
        about: "attaches where packets arrive, and goes with the process",
        run: || tcx(Way::In),
    },
    Probe {
        name: "tcx out",
        about: "attaches where packets leave, and goes with the process",
        run: || tcx(Way::Out),
    },
    Probe {
        name: "clsact",
        about: "the same on kernels before 6.6; a watchdog removes it",
        run: clsact,
    },
    Probe {
        name: "bpf fs",
        about: "programs can outlive their process; --detach, settings of connections",
        run: bpf_fs,
    },
    Probe { name: "cgroup v2", about: "faults of a control group's calls", run: cgroup2 },
    Probe { name: "fuse", about: "a directory can be served by us; faults of files", run: fuse },
    Probe { name: "tun", about: "packets can be held back; delay", run: tun },
    Probe {
        name: "connect4",
        about: "calls of a control group; connect.errno, connect.redirect",
        run: || hooks::group("cgroup", "call_connect4"),
    },
    Probe {
        name: "sendmsg4",
        about: "the same; send.errno",
        run: || hooks::group("cgroup", "call_sendmsg4"),
    },
    Probe {
        name: "sock_create",
        about: "the same; socket.errno",
        run: || hooks::group("cgroup", "call_socket"),
    },
    Probe {
        name: "cgroup skb",
        about: "packets of a control group; no fault yet",
        run: || hooks::group("doctor", "doctor_skb"),
    },
    Probe {
        name: "sockops",
        about: "settings of connections; pace, cwnd, window",
        run: || hooks::group("sockops", "pace"),
    },
    Probe {
        name: "iterators",
        about: "connections that are there; their settings at a fault's end",
        run: || hooks::iterator("sockops", "unset"),
    },
    Probe {
        name: "sock destroy",
        about: "the same, which can be ended; tcp.kill",
        run: || {
            kill::check()?;
            hooks::iterator("sockets", "socket")
        },
    },
    Probe {
        name: "tp_btf",
        about: "raw tracepoints; metrics, crash points and stalls",
        run: || hooks::trace("crash", "crash_enter"),
    },
    Probe {
        name: "fentry",
        about: "functions of the kernel; no fault yet",
        run: || hooks::trace("doctor", "doctor_fentry"),
    },
    Probe {
        name: "lsm",
        about: "security modules are asked; file.error, call.error",
        run: || refuse::probe().map(|()| String::new()),
    },
    Probe { name: "fq edt", about: "fq heeds when packets may leave; net.edt", run: hooks::edt },
    Probe { name: "netem", about: "the kernel's own chaos; net.netem", run: hooks::netem },
];

/// Names of the probes.
pub fn probes() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.name)
}

/// Runs all probes.
#[must_use]
pub fn all() -> Vec<Finding> {
    PROBES.iter().map(Probe::run).collect()
}

/// Runs the probe of that name, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<Finding> {
    PROBES.iter().find(|probe| probe.name == name).map(Probe::run)
}

impl Probe {
    fn run(&self) -> Finding {
        let found = (self.run)();
        let works = found.is_ok();
        let why = found.unwrap_or_else(|error| error.to_string());
        Finding { probe: self.name, about: self.about, works, why }
    }
}

/// Why no fault can be injected here at all; nothing if it can.
#[must_use]
pub fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    load().err().map(|error| error.to_string())
}

fn built() -> Result<String> {
    if programs::are_built() {
        return Ok(String::new());
    }
    Err(Error::unsupported(
        "this build has none; install clang (Debian: apt install clang) and build again",
    ))
}

fn btf() -> Result<String> {
    let path = "/sys/kernel/btf/vmlinux";
    fs::metadata(path)
        .during(|| format!("look for {path} (a kernel with CONFIG_DEBUG_INFO_BTF)"))
        .map(|_| String::new())
}

fn load() -> Result<String> {
    programs::load("tc").map(|_| String::new())
}

fn loaded(way: Way) -> Result<Object> {
    let mut object = programs::open("tc")?;
    link::prepare(&mut object, "packet", way);
    programs::load_opened("tc", object)
}

fn tcx(way: Way) -> Result<String> {
    apart(move || {
        let object = loaded(way)?;
        let device = Device::open("lo")?;
        link::attach_tcx(&programs::program(&object, "packet")?, &device)
            .map(|_| String::new())
            .during(|| format!("attach to lo ({way})"))
    })
}

fn clsact() -> Result<String> {
    apart(|| {
        let object = loaded(Way::Out)?;
        let device = Device::open("lo")?;
        link::attach_clsact(&programs::program(&object, "packet")?, &device, Way::Out, 1)
            .map(|_| String::new())
    })
}

/// Does something in a network namespace of its own, which ends with it.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare()?;
            work()
        });
        thread.join().map_err(|_| Error::failed("probe: the thread panicked"))?
    })
}

#[expect(unsafe_code, reason = "the call is marked unsafe for other flags")]
fn unshare() -> Result<()> {
    // SAFETY: only file descriptor tables can be confused by unsharing; this flag is of network namespaces.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .during(|| "make a network namespace (needs CAP_SYS_ADMIN)".to_owned())
}

fn mount_of(kind: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == kind).then(|| place.to_owned())
    })
}

fn bpf_fs() -> Result<String> {
    pins::probe().map(|()| String::new())
}

fn fuse() -> Result<String> {
    disk::probe().map(|()| String::new())
}

fn cgroup2() -> Result<String> {
    mount_of("cgroup2")
        .ok_or_else(|| Error::unsupported("none is mounted; mount -t cgroup2 none /sys/fs/cgroup"))
}

fn tun() -> Result<String> {
    let path = Path::new("/dev/net/tun");
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    file.map(|_| String::new()).during(|| "open /dev/net/tun (modprobe tun)".to_owned())
}
