//! Calls of processes that fail with an error number, as the kernel's security modules could make them: by the programs in
//! `progs/lsm.bpf.c`.
//!
//! What is refused there is refused whoever asks, a system call or io_uring. Two things may be missing: the kernel may refuse
//! programs of this type, or take and never ask them (`bpf` is not in its list `lsm=`). So a start attaches one that refuses a
//! file of its own, and looks. An fsync asks nobody, and cannot be refused here. Invariants: nothing acts before all is attached;
//! links go with the process unless they are pinned. Next: `progs/lsm.bpf.c`, `crash`, which tells processes apart likewise.

use std::fs;
use std::path::Path;

use libbpf_rs::{Link, MapHandle, Object};

use crate::abi::{self, Counts, NAME_LEN};
use crate::error::{During as _, Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::crash::{self, CHILDREN};
use crate::programs;
use crate::spec::Spec;
use crate::time::monotonic_ns;
use crate::undo::FILES;

/// A call, the program that is asked about it, and what of its mask is looked at (`MAY_WRITE`, `MAY_READ` of linux/fs.h).
type Op = (&'static str, &'static str, u32);

const FILE_OPS: &[Op] = &[
    ("open", "lsm_file_open", 0),
    ("read", "lsm_file_permission", 4),
    ("write", "lsm_file_permission", 2),
    ("create", "lsm_inode_create", 0),
    ("mkdir", "lsm_inode_mkdir", 0),
    ("unlink", "lsm_inode_unlink", 0),
    ("rename", "lsm_inode_rename", 0),
];
const CALL_OPS: &[Op] = &[
    ("fork", "lsm_task_alloc", 0),
    ("exec", "lsm_bprm_check_security", 0),
    ("mmap", "lsm_mmap_file", 0),
    ("socket", "lsm_socket_create", 0),
    ("bind", "lsm_socket_bind", 0),
    ("connect", "lsm_socket_connect", 0),
    ("listen", "lsm_socket_listen", 0),
    ("accept", "lsm_socket_accept", 0),
    ("send", "lsm_socket_sendmsg", 0),
    ("receive", "lsm_socket_recvmsg", 0),
];

const FILE_WORDS: [&str; FILE_OPS.len()] = words(FILE_OPS);
const CALL_WORDS: [&str; CALL_OPS.len()] = words(CALL_OPS);

const fn words<const N: usize>(ops: &[Op]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut at = 0;
    while at < N {
        words[at] = ops[at].0;
        at += 1;
    }
    words
}

macro_rules! errnos {
    ($($name:ident)*) => {
        const ERRNOS: &[(&str, i32)] = &[$((stringify!($name), libc::$name)),*];
        const ERRNO_WORDS: &[&str] = &[$(stringify!($name)),*];
    };
}

errnos! {
    EIO ENOSPC EDQUOT EROFS EACCES EPERM ENOENT EBUSY EFBIG EINTR EAGAIN ENOMEM EMFILE ENFILE ENOBUFS EPIPE ECONNRESET
    ECONNREFUSED ECONNABORTED EHOSTUNREACH ENETUNREACH ETIMEDOUT EADDRINUSE EADDRNOTAVAIL EINVAL
}

const fn errno(default: &'static str) -> Param {
    Param {
        name: "errno",
        ty: Type::Word(ERRNO_WORDS),
        default: Some(default),
        about: "the error number that the call returns at once",
    }
}

const fn kind(
    name: &'static str,
    about: &'static str,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Process, shares: true, params, start }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        "file.error",
        "calls of a process on files fail, those of io_uring too; needs BPF in the kernel's list of security modules",
        &[
            Param {
                name: "op",
                ty: Type::Word(&FILE_WORDS),
                default: None,
                about: "what fails; rename goes by the old name",
            },
            errno("EIO"),
            Param {
                name: "name",
                ty: Type::Word(&[]),
                default: Some(""),
                about: "of the file, without its directories; any if it is empty",
            },
            CHILDREN,
        ],
        |spec, _| start(spec, FILE_OPS, &spec.word("name")?),
    ),
    kind(
        "call.error",
        "calls of a process on sockets, memory and processes fail, those of io_uring too; needs the same",
        &[
            Param { name: "op", ty: Type::Word(&CALL_WORDS), default: None, about: "what fails" },
            errno("EACCES"),
            CHILDREN,
        ],
        |spec, _| start(spec, CALL_OPS, ""),
    ),
];

fn start(spec: &Spec, ops: &[Op], name: &str) -> Result<Box<dyn Active>> {
    let word = spec.word("op")?;
    let op = ops.iter().find(|(known, ..)| *known == word);
    let (_, program, mask) =
        op.ok_or_else(|| Error::failed(format!("{}: no program for {word}", spec.fault)))?;
    let errno = number(&spec.word("errno")?)?;
    let told = abi::Refusal { call: crash::callers(spec)?, mask: *mask, ..refusal(errno, name)? };
    probe()?;
    Ok(Box::new(Refusal::attach(program, told)?))
}

fn number(word: &str) -> Result<u32> {
    let found = ERRNOS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    found
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| Error::failed(format!("errno {word} has no number")))
}

fn refusal(errno: u32, name: &str) -> Result<abi::Refusal> {
    if name.len() >= NAME_LEN || name.contains('/') {
        return Err(Error::usage(format!(
            "name of {name:?}: that of a file without its directories, of at most {} bytes, is wanted",
            NAME_LEN - 1
        )));
    }
    let mut bytes = [0; NAME_LEN];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    let name_len = u32::try_from(name.len()).unwrap_or(0);
    Ok(abi::Refusal { errno, name_len, name: bytes, ..abi::Refusal::default() })
}

/// How long a probe may act, should it not be undone.
const PROBE_NS: u64 = 2_000_000_000;

/// Whether refusals work here: refuses this process a file of its own that it has just made, and tries to open it.
///
/// # Errors
/// They do not.
pub(crate) fn probe() -> Result<()> {
    let name = format!("{FILES}probe-{}", std::process::id());
    let path = std::env::temp_dir().join(&name);
    let doing = || format!("make {}", path.display());
    let now = monotonic_ns();
    let call = abi::CallFault {
        arm: abi::Arm {
            deadline_ns: now + PROBE_NS,
            since_ns: now,
            mode: abi::MODE_ARMED,
            ..abi::Arm::default()
        },
        tgid: std::process::id(),
        ..abi::CallFault::default()
    };
    let told = abi::Refusal { call, ..refusal(number("EDQUOT")?, &name)? };
    let refusal = Refusal::attach("lsm_file_open", told)?;
    fs::write(&path, "").err().map_or_else(
        || {
            let _ = fs::remove_file(&path);
            Err(Error::unsupported(
                "refuse a file: the kernel took the program and does not ask it; bpf is wanted in its list of security modules (lsm= on its command line, cat /sys/kernel/security/lsm)",
            ))
        },
        |error| match error.raw_os_error() {
            Some(libc::EDQUOT) => {
                // Made before it was refused.
                drop(refusal);
                let _ = fs::remove_file(&path);
                Ok(())
            }
            _ => Err(error).during(doing),
        },
    )
}

/// A program that is asked. What is dropped first detaches it.
struct Refusal {
    link: Link,
    fault: MapHandle,
    counts: MapHandle,
    told: abi::Refusal,
    _object: Object,
}

impl Refusal {
    fn attach(name: &str, told: abi::Refusal) -> Result<Self> {
        let mut object = programs::open("lsm")?;
        for mut program in object.progs_mut() {
            let is_wanted = program.name() == name;
            program.set_autoload(is_wanted);
        }
        let object = programs::load_opened("lsm", object)?;
        let (fault, counts) = (programs::map(&object, "fault")?, programs::map(&object, "counts")?);
        programs::write(&fault, 0, &told)?;
        let link = programs::program(&object, name)?.attach_lsm();
        let link = link.during(|| format!("attach {name}"))?;
        Ok(Self { link, fault, counts, told, _object: object })
    }
}

impl Active for Refusal {
    fn counts(&self) -> Result<Counts> {
        let by_cpu: Vec<Counts> = programs::read_per_cpu(&self.counts, 0)?;
        Ok(by_cpu.into_iter().fold(Counts::default(), Counts::and))
    }

    fn disarm(&mut self) -> Result<()> {
        self.told.call.arm = abi::Arm::default();
        programs::write(&self.fault, 0, &self.told)
    }

    fn pin(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("link0");
        self.link.pin(&path).during(|| format!("pin a link at {}", path.display()))
    }

    fn counters(&self) -> Vec<u32> {
        programs::map_id(&self.counts).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_whole_and_without_directories() {
        assert!(refusal(5, "a/b").is_err());
        assert!(refusal(5, &"x".repeat(NAME_LEN)).is_err());
        let told = refusal(5, "lines").expect("a name");
        assert_eq!((told.name_len, &told.name[..6]), (5, &b"lines\0"[..]));
    }

    #[test]
    fn every_word_has_a_number_and_a_program() {
        for word in ERRNO_WORDS {
            assert!(number(word).is_ok_and(|number| number < 4096), "{word}");
        }
        let Ok(object) = programs::open("lsm") else { return };
        let names: Vec<String> =
            object.progs().map(|one| one.name().to_string_lossy().into_owned()).collect();
        for (op, program, _) in FILE_OPS.iter().chain(CALL_OPS) {
            assert!(names.iter().any(|name| name == program), "{op}");
        }
    }
}
