//! Crash points and stalls of system calls and io_uring operations, by the programs in `progs/crash.bpf.c`.
//!
//! A crash at entry sends SIGKILL as the n-th call begins, and waits (5 ms at most) until the process's other threads are
//! gone. The kernel then runs the call with the signal pending. Measured on kernel 6.18 by the oracle scenarios:
//! - not done, so that n - 1 are: write, pwrite64, writev on ext4 and tmpfs (their loop looks for the signal), recvfrom and
//!   accept4 as the process sees it;
//! - done, though the process never learns of it: rename, renameat2, openat with O_CREAT, mkdir, ftruncate, a send that need
//!   not wait; an fsync may be, and what it covers was written before.
//!
//! With `at = "exit"` the n-th is done, whatever it is. An io_uring request is met when the kernel takes it up
//! (`io_uring_submit_req`), before it is issued: WRITE and WRITEV to files of ext4 and tmpfs and OPENAT with O_CREAT go to
//! workers, which are gone by then, and are not done; SEND is issued at once and is. Others of one submission, behind the n-th, are
//! taken up all the same: they are done if they are issued at once. Invariants: links go with the process unless they
//! are pinned. Next: `process`, `progs/crash.bpf.c`.

use std::path::Path;

use libbpf_rs::{Link, MapHandle, Object};

use crate::abi::{self, Counts};
use crate::error::{During as _, Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::process;
use crate::programs;
use crate::select::Share;
use crate::spec::Spec;

/// Names and numbers of what programs tell apart.
type Numbers = &'static [(&'static str, i64)];

macro_rules! calls {
    ($($(#[$cfg:meta])* $name:literal $number:ident,)*) => {
        const CALLS: Numbers = &[$($(#[$cfg])* ($name, libc::$number),)*];
        const CALL_WORDS: &[&str] = &[$($(#[$cfg])* $name,)*];
    };
}

// Some are left out of newer architectures, whose C library uses the others.
calls! {
    "write" SYS_write,
    "pwrite64" SYS_pwrite64,
    "writev" SYS_writev,
    "pwritev2" SYS_pwritev2,
    "read" SYS_read,
    "pread64" SYS_pread64,
    "fsync" SYS_fsync,
    "fdatasync" SYS_fdatasync,
    "sync_file_range" SYS_sync_file_range,
    "ftruncate" SYS_ftruncate,
    "fallocate" SYS_fallocate,
    #[cfg(target_arch = "x86_64")]
    "open" SYS_open,
    "openat" SYS_openat,
    "close" SYS_close,
    #[cfg(target_arch = "x86_64")]
    "rename" SYS_rename,
    "renameat" SYS_renameat,
    "renameat2" SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    "unlink" SYS_unlink,
    "unlinkat" SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    "mkdir" SYS_mkdir,
    "mkdirat" SYS_mkdirat,
    "linkat" SYS_linkat,
    "mmap" SYS_mmap,
    "sendto" SYS_sendto,
    "sendmsg" SYS_sendmsg,
    "sendmmsg" SYS_sendmmsg,
    "recvfrom" SYS_recvfrom,
    "recvmsg" SYS_recvmsg,
    #[cfg(target_arch = "x86_64")]
    "accept" SYS_accept,
    "accept4" SYS_accept4,
    "connect" SYS_connect,
    "bind" SYS_bind,
    "listen" SYS_listen,
    "socket" SYS_socket,
    "clone" SYS_clone,
    "clone3" SYS_clone3,
    "execve" SYS_execve,
    "futex" SYS_futex,
    "epoll_pwait" SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    "epoll_wait" SYS_epoll_wait,
    "io_uring_enter" SYS_io_uring_enter,
}

macro_rules! operations {
    ($($name:literal $number:literal,)*) => {
        const OPERATIONS: Numbers = &[$(($name, $number),)*];
        const OPERATION_WORDS: &[&str] = &[$($name,)*];
    };
}

// enum io_uring_op of linux/io_uring.h.
operations! {
    "nop" 0,
    "readv" 1,
    "writev" 2,
    "fsync" 3,
    "read_fixed" 4,
    "write_fixed" 5,
    "poll_add" 6,
    "sync_file_range" 8,
    "sendmsg" 9,
    "recvmsg" 10,
    "timeout" 11,
    "accept" 13,
    "connect" 16,
    "fallocate" 17,
    "openat" 18,
    "close" 19,
    "statx" 21,
    "read" 22,
    "write" 23,
    "send" 26,
    "recv" 27,
    "splice" 30,
    "shutdown" 34,
    "renameat" 35,
    "unlinkat" 36,
    "mkdirat" 37,
    "socket" 45,
    "send_zc" 47,
    "sendmsg_zc" 48,
    "ftruncate" 55,
}

/// A stall keeps a processor busy in the kernel.
const STALL_MS_MAX: f64 = 5.0;

const NTH: Param = Param {
    name: "nth",
    ty: Type::Integer,
    default: None,
    about: "which one, counted from the injection on; the first is 1",
};
const MS: Param = Param {
    name: "ms",
    ty: Type::Number,
    default: Some("1"),
    about: "how long, in milliseconds; 5 at most, as it keeps a processor busy",
};
pub(super) const CHILDREN: Param = Param {
    name: "children",
    ty: Type::Word(&["no", "yes"]),
    default: Some("no"),
    about: "whether children of the process, and theirs, count too",
};
const CALL: Param =
    Param { name: "call", ty: Type::Word(CALL_WORDS), default: None, about: "the system call" };
const OPERATION: Param = Param {
    name: "op",
    ty: Type::Word(OPERATION_WORDS),
    default: None,
    about: "the io_uring operation",
};
const AT: Param = Param {
    name: "at",
    ty: Type::Word(&["entry", "exit"]),
    default: Some("entry"),
    about: "entry: it begins with the signal pending, and is not done if it looks for it; exit: it is done",
};

const fn kind(
    name: &'static str,
    about: &'static str,
    shares: bool,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Process, shares, params, start }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        "crash.syscall",
        "the process is killed (SIGKILL) at its n-th system call of a kind",
        false,
        &[CALL, NTH, AT, CHILDREN],
        |spec, _| {
            let told = abi::CallFault {
                at_exit: u32::from(spec.word("at")? == "exit"),
                ..crash(spec, CALLS, "call")?
            };
            Calls::start(&["crash_enter", "crash_exit"], told)
        },
    ),
    kind(
        "crash.uring",
        "the process is killed (SIGKILL) at its n-th io_uring operation of a kind",
        false,
        &[OPERATION, NTH, CHILDREN],
        |spec, _| submissions(crash(spec, OPERATIONS, "op")?),
    ),
    kind(
        "syscall.stall",
        "system calls of a kind begin late; the caller is busy meanwhile",
        true,
        &[CALL, MS, CHILDREN],
        |spec, _| Calls::start(&["crash_enter"], stall(spec, CALLS, "call")?),
    ),
    kind(
        "uring.stall",
        "io_uring operations of a kind are submitted late; the submitter is busy meanwhile",
        true,
        &[OPERATION, MS, CHILDREN],
        |spec, _| submissions(stall(spec, OPERATIONS, "op")?),
    ),
];

fn told(spec: &Spec, numbers: Numbers, name: &str) -> Result<abi::CallFault> {
    let word = spec.word(name)?;
    let number = numbers.iter().find(|(known, _)| *known == word).map(|(_, number)| *number);
    let number = number.and_then(|number| u32::try_from(number).ok());
    let number = number
        .ok_or_else(|| Error::usage(format!("{}: {name} of {word:?}: unknown", spec.fault)))?;
    Ok(abi::CallFault { number, ..callers(spec)? })
}

/// Whose calls are meant, and how many of them.
pub(super) fn callers(spec: &Spec) -> Result<abi::CallFault> {
    process::check(spec)?;
    if matches!(spec.share, Share::Flows(_) | Share::Gilbert { .. }) {
        return Err(Error::usage(
            "a share of flows, or in groups, is for packets; --percent, --every, --first or --burst is wanted",
        ));
    }
    Ok(abi::CallFault {
        arm: spec.arm(),
        share: spec.share.to_abi(std::process::id())?,
        tgid: spec.target.pid.unwrap_or(0),
        spared: std::process::id(),
        with_children: u32::from(spec.word("children")? == "yes"),
        has_comm: u32::from(spec.target.comm.is_some()),
        comm: process::comm_bytes(spec)?,
        ..abi::CallFault::default()
    })
}

fn crash(spec: &Spec, numbers: Numbers, name: &str) -> Result<abi::CallFault> {
    let nth = spec.integer("nth")?;
    if nth == 0 {
        return Err(Error::usage(format!("{}: nth of 0: the first is 1", spec.fault)));
    }
    let signal = u32::try_from(libc::SIGKILL).unwrap_or(0);
    Ok(abi::CallFault { nth, signal, ..told(spec, numbers, name)? })
}

fn stall(spec: &Spec, numbers: Numbers, name: &str) -> Result<abi::CallFault> {
    let ms = spec.number("ms")?;
    if !(0.001..=STALL_MS_MAX).contains(&ms) {
        return Err(Error::usage(format!(
            "{}: ms of {ms}: more than 0 and at most {STALL_MS_MAX} is wanted, as it keeps a processor busy",
            spec.fault
        )));
    }
    Ok(abi::CallFault { stall_us: (ms * 1e3) as u32, ..told(spec, numbers, name)? })
}

/// Of io_uring: the tracepoint has another name on kernels before 6.4.
fn submissions(told: abi::CallFault) -> Result<Box<dyn Active>> {
    Calls::start(&["crash_uring"], told).or_else(|_| Calls::start(&["crash_sqe"], told))
}

/// Programs that meet calls. What is dropped first detaches them.
struct Calls {
    links: Vec<Link>,
    fault: MapHandle,
    counts: MapHandle,
    told: abi::CallFault,
    _object: Object,
}

impl Calls {
    fn start(names: &[&str], told: abi::CallFault) -> Result<Box<dyn Active>> {
        let mut object = programs::open("crash")?;
        for mut program in object.progs_mut() {
            let is_used = names.iter().any(|name| program.name() == *name);
            program.set_autoload(is_used);
        }
        let object = programs::load_opened("crash", object)?;
        let fault = programs::map(&object, "fault")?;
        let counts = programs::map(&object, "counts")?;
        // Told before they are attached: the first call counts.
        programs::write(&fault, 0, &told)?;
        let mut links = Vec::new();
        // The exit is met before the entry, so that none is missed.
        for name in names.iter().rev() {
            let program = programs::program(&object, name)?;
            links.push(program.attach_trace().during(|| format!("attach {name}"))?);
        }
        Ok(Box::new(Self { links, fault, counts, told, _object: object }))
    }
}

impl Active for Calls {
    fn counts(&self) -> Result<Counts> {
        let by_cpu: Vec<Counts> = programs::read_per_cpu(&self.counts, 0)?;
        Ok(by_cpu.into_iter().fold(Counts::default(), Counts::and))
    }

    fn disarm(&mut self) -> Result<()> {
        self.told.arm = abi::Arm::default();
        programs::write(&self.fault, 0, &self.told)
    }

    fn pin(&mut self, dir: &Path) -> Result<()> {
        for (number, link) in self.links.iter_mut().enumerate() {
            let path = dir.join(format!("link{number}"));
            link.pin(&path).during(|| format!("pin a link at {}", path.display()))?;
        }
        Ok(())
    }

    fn counters(&self) -> Vec<u32> {
        programs::map_id(&self.counts).into_iter().collect()
    }

    /// There is one n-th call; stalls go on.
    fn is_done(&self) -> bool {
        self.told.signal != 0 && self.counts().is_ok_and(|counts| counts.affected > 0)
    }
}
