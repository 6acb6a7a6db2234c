//! Where settings are read and written: the running kernel's `/proc` and `/sys`, or a recorded tree of the same files.
//!
//! All other modules name files by their path on the host and see no difference. What the kernel offers by netlink only has
//! paths below [`NETLINK`]; in a recorded tree they are files. Invariants: nothing outside the root of a recorded tree is written;
//! a file that cannot be written is told from one that is not there; no process is started. Next: `netlink`, `host`.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags, ResolveFlags, access, openat2};
use rustix::io::Errno;

use crate::format::choices;
use crate::{netlink, netns};

/// Below it are settings that the kernel offers by netlink only, such as `/netlink/ethtool/eth0/rings/rx`.
pub const NETLINK: &str = "/netlink/";

/// More of one file is not read.
const FILE_MAX: u64 = 1 << 20;

/// Why a file is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is there, and nobody can write it here.
    ReadOnly(String),
    /// This process may not, the kernel does not take this value, or the file is not there.
    Failed(String),
}

impl Refused {
    /// The reason, for people.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::ReadOnly(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The kernel does not have it: it is not built in, or the device cannot do it.
    Missing,
    /// It is there, and this process may not read it.
    Denied,
}

#[derive(Clone, Debug)]
struct Mount {
    at: PathBuf,
    read_only: bool,
}

/// The files of a host.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// Read when they are first asked for.
    mounts: OnceCell<Vec<Mount>>,
    /// Asked for with every setting of a network device, and dear where there are many.
    is_sys_foreign: OnceCell<bool>,
    seen: Option<RefCell<Seen>>,
}

/// What was looked at, by path: for `record`.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Texts of files.
    pub(crate) files: BTreeMap<String, String>,
    /// Directories, and what is in them.
    pub(crate) dirs: BTreeSet<String>,
    /// Files that were found to be read-only by their mode.
    pub(crate) read_only: BTreeSet<String>,
}

impl Tree {
    /// Those of the running kernel.
    #[must_use]
    pub fn live() -> Self {
        Self {
            root: PathBuf::from("/"),
            mounts: OnceCell::new(),
            is_sys_foreign: OnceCell::new(),
            seen: None,
        }
    }

    /// Notes from now on what is looked at.
    pub(crate) fn watch(&mut self) {
        self.seen = Some(RefCell::default());
    }

    /// What was looked at.
    pub(crate) fn seen(&mut self) -> Seen {
        self.seen.take().map(RefCell::into_inner).unwrap_or_default()
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        if let Some(seen) = &self.seen {
            note(&mut seen.borrow_mut());
        }
    }

    /// Those recorded in a directory; the running kernel's when that is `/`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        // Another name of `/` is the running kernel too.
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        Self { root, mounts: OnceCell::new(), is_sys_foreign: OnceCell::new(), seen: None }
    }

    /// Whether it is the running kernel's.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the host really is, for what is not a setting, such as the journal.
    #[must_use]
    pub fn real(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        if self.is_live() {
            return Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?.into());
        }
        let root = File::open(&self.root)?;
        let path = path.trim_start_matches('/');
        let flags = flags | OFlags::CLOEXEC;
        Ok(openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?.into())
    }

    /// A file without the line break at its end.
    ///
    /// # Errors
    /// It is not there, or not for this process.
    pub fn read(&self, path: &str) -> Result<String, Unread> {
        let read = if self.is_live() && path.starts_with(NETLINK) {
            netlink::read(path).ok_or(Unread::Missing)
        } else {
            match self.contents(path) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Err(Unread::Denied)
                }
                Err(_) => Err(Unread::Missing),
            }
        };
        if let Ok(text) = &read {
            self.note(|seen| {
                seen.files.insert(path.to_owned(), text.clone());
            });
        }
        read
    }

    fn contents(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path, OFlags::RDONLY)?.take(FILE_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A file that is no text, if it is there.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.contents(path).ok()?;
        // Recorded as a number where it is no text.
        self.note(|seen| {
            let text = match <[u8; 4]>::try_from(bytes.as_slice()) {
                Ok(four) if !four.is_ascii() => i32::from_ne_bytes(four).to_string(),
                _ => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
            };
            seen.files.insert(path.to_owned(), text);
        });
        Some(bytes)
    }

    /// A file that need not be there.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.read(path).ok()
    }

    /// A number that need not be there.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// Whether there is such a file or directory.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        let exists = self.real(path).exists();
        if exists && !self.is_dir(path) {
            self.note(|seen| {
                seen.files.entry(path.to_owned()).or_default();
            });
        }
        exists
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self, path: &str) -> bool {
        let is_dir = self.real(path).is_dir();
        if is_dir {
            self.note(|seen| {
                seen.dirs.insert(path.to_owned());
            });
        }
        is_dir
    }

    /// The names in a directory, numbers in them in order of size; none when it is not there.
    #[must_use]
    pub fn list(&self, dir: &str) -> Vec<String> {
        if self.is_live() && dir.starts_with(NETLINK) {
            return netlink::list(dir);
        }
        let entries = fs::read_dir(self.real(dir)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_cached_key(|name| natural(name));
        // Of the processes and interrupts of a host only those that are looked at matter.
        if self.seen.is_some() && !dir.starts_with("/proc") {
            for name in &names {
                let _ = self.is_dir(&format!("{dir}/{name}"));
            }
        }
        names
    }

    /// The name of what a symbolic link points to.
    #[must_use]
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.real(path)).ok()?;
        Some(target.file_name().unwrap_or(target.as_os_str()).to_string_lossy().into_owned())
    }

    /// Whether `/sys` shows the network devices of another namespace than the settings by netlink and below `/proc/sys/net` are of.
    #[must_use]
    pub fn is_sys_net_foreign(&self) -> bool {
        // Another tree looks, so that nothing of it is recorded.
        let look = || netns::is_sys_foreign(&Self::live());
        self.is_live() && *self.is_sys_foreign.get_or_init(look)
    }

    /// Whether a file could be written, without writing it.
    ///
    /// # Errors
    /// Why it could not.
    pub fn writable(&self, path: &str) -> Result<(), Refused> {
        if self.is_live() && path.starts_with(NETLINK) {
            return if rustix::process::geteuid().is_root() {
                Ok(())
            } else {
                Err(Refused::Failed("this user may not write it: run as root".to_owned()))
            };
        }
        let real = self.real(path);
        let metadata = fs::metadata(&real).map_err(|error| refused(path, &error))?;
        if metadata.permissions().mode() & 0o222 == 0 {
            self.note(|seen| {
                seen.read_only.insert(path.to_owned());
            });
            return Err(Refused::ReadOnly(format!("{path} is read-only in this kernel")));
        }
        if let Some(at) = self.read_only_mount(path) {
            return Err(Refused::ReadOnly(format!("{} is mounted read-only", at.display())));
        }
        if self.is_live() {
            access(&real, Access::WRITE_OK).map_err(|error| match error {
                Errno::ACCESS | Errno::PERM => {
                    Refused::Failed("this user may not write it: run as root".to_owned())
                }
                error => refused(path, &error.into()),
            })?;
        }
        Ok(())
    }

    fn read_only_mount(&self, path: &str) -> Option<&Path> {
        let read = || mounts(&self.text("/proc/self/mountinfo").unwrap_or_default());
        let over = self
            .mounts
            .get_or_init(read)
            .iter()
            .filter(|mount| Path::new(path).starts_with(&mount.at));
        // Of several at one place the last lies on top.
        let mount = over.max_by_key(|mount| mount.at.as_os_str().len())?;
        mount.read_only.then_some(&mount.at)
    }

    /// Writes a setting. Whether the kernel took it is for the caller to read back.
    ///
    /// # Errors
    /// Why it is not written.
    pub fn write(&self, path: &str, value: &str) -> Result<(), Refused> {
        self.writable(path)?;
        if self.is_live() && path.starts_with(NETLINK) {
            return netlink::write(path, value).map_err(Refused::Failed);
        }
        if self.is_live() {
            let file = self.open(path, OFlags::WRONLY);
            let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
            return written.map_err(|error| refused(path, &error));
        }
        let text = self.as_kernel(path, value)?;
        let file = self.open(path, OFlags::WRONLY | OFlags::TRUNC);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| refused(path, &error))
    }

    /// What a recorded file has after a write: a choice keeps its list, as in the kernel.
    fn as_kernel(&self, path: &str, value: &str) -> Result<String, Refused> {
        let regular = fs::metadata(self.real(path)).is_ok_and(|metadata| metadata.is_file());
        let before = if regular { self.text(path).unwrap_or_default() } else { String::new() };
        let Some((all, _)) = choices(&before) else { return Ok(format!("{value}\n")) };
        if !all.contains(&value) {
            return Err(refused(path, &Errno::INVAL.into()));
        }
        let mark = |one: &&str| if *one == value { format!("[{one}]") } else { (*one).to_owned() };
        // Some kernels print a space at the end.
        let end = before.get(before.trim_end().len()..).unwrap_or_default();
        Ok(format!("{}{end}\n", all.iter().map(mark).collect::<Vec<_>>().join(" ")))
    }
}

fn refused(path: &str, error: &io::Error) -> Refused {
    let reason = format!("write {path}: {error}");
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ROFS) => Refused::ReadOnly(reason),
        _ => Refused::Failed(reason),
    }
}

/// The mounts of a `mountinfo`, in its order.
fn mounts(text: &str) -> Vec<Mount> {
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let mount = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let (at, own) = (fields.get(4)?, fields.get(5)?);
        let whole = fields.last()?;
        let read_only = is_read_only(own) || is_read_only(whole);
        Some(Mount { at: PathBuf::from(at), read_only })
    };
    text.lines().filter_map(mount).collect()
}

/// Sorts names so that `cpu10` comes after `cpu9`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        parts.push((text.to_owned(), number.parse().unwrap_or(0)));
        rest = tail;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Dir;

    #[test]
    fn a_recorded_choice_moves_its_brackets() {
        let dir = Dir::new("choice");
        let path = "/sys/block/sda/queue/scheduler";
        dir.file(path, "none [mq-deadline] kyber\n");
        let tree = Tree::at(dir.path());
        tree.write(path, "none").expect("it is one of them");
        assert_eq!(tree.read(path).expect("written"), "[none] mq-deadline kyber");
        let refused = tree.write(path, "bfq").expect_err("it is none of them");
        assert!(refused.reason().contains("Invalid argument"), "{refused:?}");
    }

    #[test]
    fn the_mount_on_top_says_whether_it_can_be_written() {
        let dir = Dir::new("mounts");
        dir.file(
            "/proc/self/mountinfo",
            "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /proc rw - proc proc rw\n\
             3 2 0:2 /sys /proc/sys ro,nosuid - proc proc rw\n4 1 0:3 / /sys rw - sysfs sysfs ro\n",
        );
        for path in ["/proc/sys/vm/swappiness", "/sys/a", "/proc/irq/1", "/etc/b"] {
            dir.file(path, "1\n");
        }
        let tree = Tree::at(dir.path());
        let reason = tree.writable("/proc/sys/vm/swappiness").expect_err("it is below a mount");
        assert_eq!(reason, Refused::ReadOnly("/proc/sys is mounted read-only".to_owned()));
        assert!(matches!(tree.write("/sys/a", "2"), Err(Refused::ReadOnly(_))));
        assert_eq!(tree.read("/sys/a").expect("unchanged"), "1");
        tree.write("/proc/irq/1", "2").expect("it is not read-only");
        tree.write("/etc/b", "2").expect("it is not read-only");
        assert!(matches!(tree.writable("/etc/none"), Err(Refused::Failed(_))));
    }

    #[test]
    fn a_link_out_of_a_recorded_tree_stays_inside() {
        let dir = Dir::new("escape");
        let outside = Dir::new("escape-outside");
        outside.file("/x", "1\n");
        dir.file("/sys/keep", "1\n");
        let link = dir.path().join("sys/out");
        std::os::unix::fs::symlink(outside.path().join("x"), link).expect("room");
        let tree = Tree::at(dir.path());
        assert!(tree.write("/sys/out", "2").is_err());
        assert_eq!(fs::read_to_string(outside.path().join("x")).expect("it is there"), "1\n");
    }

    #[test]
    fn another_name_of_the_top_is_the_running_kernel() {
        for root in ["/", "//", "/.", "/proc/.."] {
            assert!(Tree::at(Path::new(root)).is_live(), "{root}");
        }
        assert!(!Tree::at(Path::new("/proc")).is_live());
    }

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["rx-10", "rx-9", "rx-1", "a", "eth0-Tx-Rx-2"].map(str::to_owned);
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, ["a", "eth0-Tx-Rx-2", "rx-1", "rx-9", "rx-10"]);
    }
}
