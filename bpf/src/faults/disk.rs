//! Faults of files below a directory: slow, failing, short, torn, wrong, forgetful, or said to be others.
//!
//! A server of its own process lies over the directory (`disk`). Files that were open before are not hit, nor names that a process finds from
//! a working directory that it entered before: start the process after the fault. One with mounts of its own is hit if ours reach it. A process
//! that is killed while an operation waits ends when that has waited. Invariants: the journal knows the mount and the server before there is either; nothing is mounted over what
//! the host needs. Next: `disk`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use crate::abi::Counts;
use crate::disk::{self, Answer, Attributes, COUNT, END, Effect, Fill, OUTLIVE, Op, Ops, Order};
use crate::error::{During as _, Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::registry::{Journal, Process};
use crate::spec::Spec;
use crate::time::{monotonic_ns, ns};
use crate::undo::Undo;

/// Errors by their names; others by their numbers.
const ERRNOS: &[(&str, i32)] = &[
    ("EPERM", libc::EPERM),
    ("ENOENT", libc::ENOENT),
    ("EINTR", libc::EINTR),
    ("EIO", libc::EIO),
    ("ENXIO", libc::ENXIO),
    ("EAGAIN", libc::EAGAIN),
    ("ENOMEM", libc::ENOMEM),
    ("EACCES", libc::EACCES),
    ("EBUSY", libc::EBUSY),
    ("EEXIST", libc::EEXIST),
    ("ENODEV", libc::ENODEV),
    ("EINVAL", libc::EINVAL),
    ("ENFILE", libc::ENFILE),
    ("EMFILE", libc::EMFILE),
    ("EFBIG", libc::EFBIG),
    ("ENOSPC", libc::ENOSPC),
    ("EROFS", libc::EROFS),
    ("EMLINK", libc::EMLINK),
    ("ENAMETOOLONG", libc::ENAMETOOLONG),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("ESTALE", libc::ESTALE),
    ("EDQUOT", libc::EDQUOT),
];
/// Numbers of errors end here (include/linux/err.h); the kernel takes no greater one.
const ERRNO_MAX: i32 = 511;
/// No name of ours is of nothing.
const SAME: &str = "same";

const fn param(
    name: &'static str,
    ty: Type,
    default: Option<&'static str>,
    about: &'static str,
) -> Param {
    Param { name, ty, default, about }
}

const fn op(default: &'static str) -> Param {
    param(
        "op",
        Type::Word(&[]),
        Some(default),
        "operations, with commas between: read, write, fsync, open, create, rename, unlink, truncate, …; any",
    )
}

const NAME: Param = param(
    "name",
    Type::Word(&[]),
    Some("*"),
    "files of this name, with * and ?; with a slash, of this path below the directory, with **",
);
const PART: Param =
    param("part", Type::Number, Some("50"), "percent of the bytes that are read or written");

const fn same(name: &'static str, about: &'static str) -> Param {
    param(name, Type::Word(&[]), Some(SAME), about)
}

const fn kind(
    name: &'static str,
    about: &'static str,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Path, shares: true, params, start }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        "disk.delay",
        "operations on files below a directory, opened from now on, come later",
        &[
            op("any"),
            NAME,
            param("delay", Type::Duration, None, "by so much"),
            param("jitter", Type::Duration, Some("0s"), "and by up to so much more or less"),
        ],
        |spec, journal| {
            let (delay, jitter) = (spec.duration("delay")?, spec.duration("jitter")?);
            if jitter > delay {
                return Err(Error::usage("disk.delay: jitter: at most the delay is wanted"));
            }
            let effect = Effect::Delay { ns: ns(delay), jitter_ns: ns(jitter) };
            start(spec, journal, effect, ops(spec)?)
        },
    ),
    kind(
        "disk.error",
        "operations on files below a directory, opened from now on, fail and do nothing",
        &[
            op("any"),
            NAME,
            param(
                "errno",
                Type::Word(&[]),
                Some("EIO"),
                "EIO, ENOSPC, EDQUOT, EROFS, …, or a number",
            ),
        ],
        |spec, journal| {
            let effect = Effect::Error { errno: errno(&spec.word("errno")?)? };
            start(spec, journal, effect, ops(spec)?)
        },
    ),
    kind(
        "disk.short",
        "reads and writes of files opened from now on do a part of what is asked for, and say so",
        &[op("read,write"), NAME, PART],
        |spec, journal| {
            let effect = Effect::Short { percent: part(spec)? };
            start(spec, journal, effect, among(spec, &[Op::Read, Op::Write])?)
        },
    ),
    kind(
        "disk.torn",
        "of writes to files opened from now on only the first sectors reach the file, and all are said to",
        &[NAME, PART],
        |spec, journal| {
            let effect = Effect::Torn { percent: part(spec)? };
            start(spec, journal, effect, Ops::of(&[Op::Write]))
        },
    ),
    kind(
        "disk.corrupt",
        "bytes that are read from files opened from now on, or written to them, are others",
        &[
            op("read"),
            NAME,
            param(
                "fill",
                Type::Word(&["flip", "zero", "random"]),
                Some("flip"),
                "flip a bit, or what they become",
            ),
            param("count", Type::Integer, Some("1"), "places in each operation"),
            param("bytes", Type::Integer, Some("1"), "of each place"),
        ],
        corrupt,
    ),
    kind(
        "disk.lose",
        "what is written to files opened from now on and not synced is lost at the end, and when a signal kills who wrote it",
        &[NAME],
        |spec, journal| {
            start(spec, journal, Effect::Lose, Ops::of(&[Op::Write, Op::Truncate, Op::Fallocate]))
        },
    ),
    kind(
        "disk.attributes",
        "files below a directory are said to be others than they are",
        &[
            NAME,
            same("size", "bytes"),
            same("blocks", "of 512 bytes"),
            same("perm", "permissions, octal"),
            same("links", "number of names"),
            same("uid", "owner"),
            same("gid", "group"),
        ],
        |spec, journal| {
            let effect = Effect::Attributes(Attributes {
                size: other(spec, "size", 10)?,
                blocks: other(spec, "blocks", 10)?,
                perm: other(spec, "perm", 8)?,
                links: other(spec, "links", 10)?,
                uid: other(spec, "uid", 10)?,
                gid: other(spec, "gid", 10)?,
            });
            if effect == Effect::Attributes(Attributes::default()) {
                return Err(Error::usage("disk.attributes: what is to be another? name one"));
            }
            start(spec, journal, effect, Ops::of(&[Op::Getattr]))
        },
    ),
];

fn ops(spec: &Spec) -> Result<Ops> {
    Ops::parse(&spec.word("op")?).map_err(|error| error.during(&spec.fault))
}

fn among(spec: &Spec, few: &[Op]) -> Result<Ops> {
    let ops = ops(spec)?;
    if ops.are_among(Ops::of(few)) {
        return Ok(ops);
    }
    Err(Error::usage(format!(
        "{}: op of {:?}: read or write is wanted",
        spec.fault,
        spec.word("op")?
    )))
}

fn part(spec: &Spec) -> Result<f64> {
    let part = spec.number("part")?;
    if (0.0..100.0).contains(&part) {
        return Ok(part);
    }
    Err(Error::usage(format!("{}: part of {part}: 0 to less than 100 is wanted", spec.fault)))
}

fn errno(word: &str) -> Result<i32> {
    let known = ERRNOS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    let number = word.parse().ok().filter(|number| (1..=ERRNO_MAX).contains(number));
    known.or(number).ok_or_else(|| {
        let names: Vec<&str> = ERRNOS.iter().map(|(name, _)| *name).collect();
        Error::usage(format!(
            "disk.error: errno of {word:?}: one of {}, or a number is wanted",
            names.join(" ")
        ))
    })
}

/// A number that a file is said to have, in base 8 or 10.
fn other<T: TryFrom<u64>>(spec: &Spec, name: &str, base: u32) -> Result<Option<T>> {
    let word = spec.word(name)?;
    if word == SAME {
        return Ok(None);
    }
    let number = u64::from_str_radix(&word, base).ok().and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| {
        Error::usage(format!(
            "{}: {name} of {word:?}: a number in base {base} is wanted",
            spec.fault
        ))
    })
}

fn corrupt(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let fill = match spec.word("fill")?.as_str() {
        "zero" => Fill::Zero,
        "random" => Fill::Random,
        _ => Fill::Flip,
    };
    let few = |name: &str| -> Result<u32> {
        u32::try_from(spec.integer(name)?)
            .ok()
            .filter(|number| (1..=1 << 20).contains(number))
            .ok_or_else(|| {
                Error::usage(format!("{}: {name}: 1 to {} is wanted", spec.fault, 1 << 20))
            })
    };
    let effect = Effect::Corrupt { fill, count: few("count")?, len: few("bytes")? };
    start(spec, journal, effect, among(spec, &[Op::Read, Op::Write])?)
}

/// The pipes to a server, and what it said last.
struct Line {
    child: Option<Child>,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    last: Counts,
}

/// A directory that a server lies over.
struct Layer {
    line: Mutex<Line>,
    counters: Vec<u32>,
}

fn start(spec: &Spec, journal: &mut Journal, effect: Effect, ops: Ops) -> Result<Box<dyn Active>> {
    disk::check(spec.share).map_err(|error| error.during(&spec.fault))?;
    let asked = spec.target.path.as_deref().unwrap_or_default();
    let dir = fs::canonicalize(asked).during(|| format!("find {asked}"))?;
    if !dir.is_dir() {
        return Err(Error::usage(format!("--path {}: a directory is wanted", dir.display())));
    }
    disk::refuse_wide(&dir)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&dir, flags, Mode::empty());
    if disk::is_ours(&opened.during(|| format!("open {}", dir.display()))?) {
        return Err(Error::usage(format!(
            "--path {}: another fault has it; `chaos status` names it",
            dir.display()
        )));
    }
    let name = spec.word("name")?;
    let order = Order {
        id: journal.entry().id.clone(),
        dir: dir.clone(),
        effect,
        ops,
        name: (name != "*").then_some(name),
        share: spec.share,
        since_ns: monotonic_ns(),
        deadline_ns: journal.entry().deadline_ns,
        max_hits: spec.max_hits,
        shadow: spec.shadow,
    };
    journal.will(Undo::Unmount { dir, id: order.id.clone() })?;
    let mut line = Line::open()?;
    if let Some(process) = line.child.as_ref().and_then(|child| Process::find(child.id())) {
        journal.will(Undo::Serve { process })?;
    }
    let order = serde_json::to_string(&order).during(|| "tell a server".to_owned())?;
    match line.ask(&order)? {
        Answer::Ready(counters) => Ok(Box::new(Layer { line: Mutex::new(line), counters })),
        Answer::Refused(why) => Err(Error::failed(why)),
        Answer::Counts(_) => Err(Error::failed("start a server: it answers something else")),
    }
}

impl Line {
    fn open() -> Result<Self> {
        let doing = || "start a server of files".to_owned();
        let mut child = Command::new(std::env::current_exe().during(doing)?)
            .arg("disk-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Not hit by what the terminal sends to this process.
            .process_group(0)
            .spawn()
            .during(doing)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output =
            output.ok_or_else(|| Error::failed("start a server of files: it has no output"))?;
        let output = BufReader::new(output);
        Ok(Self { child: Some(child), input, output, last: Counts::default() })
    }

    fn ask(&mut self, word: &str) -> Result<Answer> {
        let gone = || Error::failed("ask the server of files: it is gone");
        let input = self.input.as_mut().ok_or_else(gone)?;
        writeln!(input, "{word}").map_err(|_| gone())?;
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|_| gone())?;
        let answer = serde_json::from_str(&line).map_err(|_| gone())?;
        if let Answer::Counts([seen, matched, chosen, affected]) = answer {
            self.last = Counts { seen, matched, chosen, affected };
        }
        Ok(answer)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // It ends the effect, if it has not; what is open may keep it for long.
        drop(self.input.take());
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || child.wait());
        }
    }
}

impl Layer {
    fn with<T>(&self, work: impl FnOnce(&mut Line) -> T) -> T {
        work(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Active for Layer {
    fn counts(&self) -> Result<Counts> {
        // A server that is gone has said what it did.
        Ok(self.with(|line| {
            let _ = line.ask(COUNT);
            line.last
        }))
    }

    fn disarm(&mut self) -> Result<()> {
        self.with(|line| {
            // The journal detaches what a server leaves that is gone.
            let _ = line.ask(END);
            line.input = None;
        });
        Ok(())
    }

    fn pin(&mut self, _: &std::path::Path) -> Result<()> {
        self.with(|line| line.ask(OUTLIVE)).map(drop)
    }

    fn counters(&self) -> Vec<u32> {
        self.counters.clone()
    }

    fn is_done(&self) -> bool {
        self.with(|line| {
            line.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_names_or_numbers() {
        assert_eq!(errno("ENOSPC").expect("known"), 28);
        assert_eq!(errno("122").expect("a number"), 122);
        for wrong in ["EFUN", "0", "-5", "5000"] {
            assert!(errno(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_of_files_are_read_in_their_base() {
        let spec =
            Spec::new("disk.attributes").with("perm", "640").with("size", 12).with("uid", "-1");
        assert_eq!(other::<u16>(&spec, "perm", 8).expect("octal"), Some(0o640));
        assert_eq!(other::<u64>(&spec, "size", 10).expect("a number"), Some(12));
        assert_eq!(other::<u32>(&spec, "gid", 10).expect("none"), None);
        assert!(other::<u32>(&spec, "uid", 10).is_err());
    }
}
