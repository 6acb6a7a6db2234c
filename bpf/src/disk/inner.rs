//! What the layer is made of, and what becomes of each operation: judged, and opened, made or said.
//!
//! Next: `layer`, which the kernel asks; `data`, for bytes.

use std::ffi::OsStr;
use std::path::Path;

use fuser::FileAttr;
use rustix::fs::{CWD, Mode, OFlags, Stat, openat};
use rustix::io::Errno;

use super::host::{Asker, Done, attributes, give};
use super::later::Later;
use super::nodes::{Nodes, Open};
use super::rule::Rule;
use super::unsynced::Unsynced;
use super::{Effect, Fill, Op};
use crate::time::monotonic_ns;

/// What happens to one operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Go,
    Fail(Errno),
    Part(f64),
    Torn(f64),
    Wrong { fill: Fill, count: u32, len: u32 },
    Lose,
}

impl Fate {
    /// Whether it is done at all.
    pub(super) fn allows(self) -> Done<()> {
        if let Self::Fail(errno) = self { Err(errno) } else { Ok(()) }
    }
}

/// What the layer is made of.
pub(super) struct Inner {
    pub(super) rule: Rule,
    pub(super) nodes: Nodes,
    pub(super) later: Later,
    pub(super) unsynced: Unsynced,
}

impl Inner {
    /// What happens to an operation, and when it is done if not now.
    pub(super) fn fate(&self, op: Op, path: impl FnOnce() -> String) -> (Fate, Option<u64>) {
        let Some(effect) = self.rule.judge(op, path) else { return (Fate::Go, None) };
        match *effect {
            Effect::Delay { ns, jitter_ns } => {
                self.rule.acted();
                let ns = (ns + self.rule.chance.below(2 * jitter_ns + 1)).saturating_sub(jitter_ns);
                (Fate::Go, Some((monotonic_ns() + ns).min(self.rule.order.deadline_ns)))
            }
            Effect::Error { errno } => {
                self.rule.acted();
                (Fate::Fail(Errno::from_raw_os_error(errno)), None)
            }
            Effect::Short { percent } => (Fate::Part(percent), None),
            Effect::Torn { percent } => (Fate::Torn(percent), None),
            Effect::Corrupt { fill, count, len } => (Fate::Wrong { fill, count, len }, None),
            Effect::Lose => (Fate::Lose, None),
            Effect::Attributes(_) => (Fate::Go, None),
        }
    }

    pub(super) fn path_of(&self, node: u64, name: Option<&OsStr>) -> String {
        let path = self.nodes.path(node);
        let path = name.map_or_else(|| path.clone(), |name| path.join(name));
        path.to_string_lossy().into_owned()
    }

    /// What the kernel is told of a file.
    pub(super) fn said(&self, node: u64, stat: &Stat) -> FileAttr {
        let instead = match &self.rule.order.effect {
            Effect::Attributes(instead) => self
                .rule
                .judge(Op::Getattr, || self.path_of(node, None))
                .map(|_| self.rule.acted())
                .map(|()| instead),
            _ => None,
        };
        attributes(node, stat, instead)
    }

    pub(super) fn entry(&self, parent: u64, name: &OsStr) -> Done<FileAttr> {
        let (node, stat) = self.nodes.look_up(parent, name)?;
        Ok(self.said(node, &stat))
    }

    pub(super) fn open(&self, node: u64, flags: i32) -> Done<u64> {
        let (_fd, name) = self.nodes.again(node)?;
        self.keep(node, CWD, Path::new(&name), flags, Mode::empty())
    }

    /// Opens a file, for reading too; the memory of this process is not aligned as `O_DIRECT` wants it.
    fn keep(
        &self,
        node: u64,
        dir: impl std::os::fd::AsFd,
        name: &Path,
        flags: i32,
        mode: Mode,
    ) -> Done<u64> {
        let asked = OFlags::from_bits_retain(flags.cast_unsigned());
        let left = OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::TRUNC | OFlags::NOCTTY;
        let mut flags = asked.difference(left) | OFlags::CLOEXEC;
        if flags.contains(OFlags::WRONLY) {
            flags = flags.difference(OFlags::WRONLY) | OFlags::RDWR;
        }
        let file = openat(dir, name, flags, mode)?.into();
        let is_synced = asked.intersects(OFlags::DSYNC | OFlags::SYNC);
        Ok(self.nodes.keep(Open { file, node, is_synced, appends: asked.contains(OFlags::APPEND) }))
    }

    /// Makes a file and opens it; it may have come to be meanwhile.
    pub(super) fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
        asker: Asker,
    ) -> Done<(FileAttr, u64)> {
        let dir = self.nodes.fd(parent)?;
        let (path, mode) = (Path::new(name), Mode::from_raw_mode(mode));
        let only_new = flags | libc::O_CREAT | libc::O_EXCL;
        let made = self.keep(0, &*dir, path, only_new, mode);
        let handle = match made {
            Ok(handle) => {
                give(&dir, name, asker)?;
                handle
            }
            Err(Errno::EXIST) if flags & libc::O_EXCL == 0 => {
                self.keep(0, &*dir, path, flags, mode)?
            }
            Err(errno) => return Err(errno),
        };
        let entry = self.entry(parent, name)?;
        self.nodes.name(handle, entry.ino.0)?;
        Ok((entry, handle))
    }
}
