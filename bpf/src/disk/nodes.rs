//! Files that the kernel knows of, each held by a descriptor that outlives its names; and files that are open.
//!
//! Invariants: a file has one number as long as the kernel knows it, that of its inode where it can; a descriptor of a file is closed
//! when the kernel forgets it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

/// Of the kernel: the directory itself.
pub(super) const ROOT: u64 = 1;
/// Numbers from here on are of no inode.
const OWN: u64 = 1 << 62;

/// A file that the kernel knows.
struct Node {
    fd: Arc<OwnedFd>,
    key: (u64, u64),
    lookups: u64,
}

/// A file that is open.
pub(super) struct Open {
    pub(super) file: File,
    pub(super) node: u64,
    /// What is written is on the disk when the call returns.
    pub(super) is_synced: bool,
    /// Writes go to its end, wherever they are told to go.
    pub(super) appends: bool,
}

/// An entry of a directory: number, type and name.
pub(super) type Entry = (u64, fuser::FileType, std::ffi::OsString);

#[derive(Default)]
struct Tables {
    nodes: BTreeMap<u64, Node>,
    numbers: BTreeMap<(u64, u64), u64>,
    open: BTreeMap<u64, Arc<Open>>,
    dirs: BTreeMap<u64, (u64, Arc<Vec<Entry>>)>,
    next: u64,
}

/// All of them.
pub(super) struct Nodes {
    tables: Mutex<Tables>,
    root: Arc<OwnedFd>,
    device: u64,
}

impl Nodes {
    /// Of a directory.
    pub(super) fn new(root: OwnedFd) -> rustix::io::Result<Self> {
        let device = fstat(&root)?.st_dev;
        Ok(Self { tables: Mutex::default(), root: Arc::new(root), device })
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor of a file.
    pub(super) fn fd(&self, node: u64) -> rustix::io::Result<Arc<OwnedFd>> {
        if node == ROOT {
            return Ok(Arc::clone(&self.root));
        }
        self.tables().nodes.get(&node).map(|node| Arc::clone(&node.fd)).ok_or(Errno::STALE)
    }

    /// A name for the descriptor of a file, which opens it anew.
    pub(super) fn again(&self, node: u64) -> rustix::io::Result<(Arc<OwnedFd>, String)> {
        let fd = self.fd(node)?;
        let name = again(&fd);
        Ok((fd, name))
    }

    /// Where a file is below the directory, as far as it has a name.
    pub(super) fn path(&self, node: u64) -> PathBuf {
        let of = |fd: &OwnedFd| std::fs::read_link(again(fd)).unwrap_or_default();
        if node == ROOT {
            return PathBuf::new();
        }
        let Ok(fd) = self.fd(node) else { return PathBuf::new() };
        let path = of(&fd);
        path.strip_prefix(of(&self.root)).map_or_else(|_| path.clone(), std::path::Path::to_owned)
    }

    /// Finds a name in a directory, which the kernel knows from then on.
    pub(super) fn look_up(&self, parent: u64, name: &OsStr) -> rustix::io::Result<(u64, Stat)> {
        let parent = self.fd(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&*parent, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let key = (stat.st_dev, stat.st_ino);
        let mut tables = self.tables();
        if let Some(node) = tables.numbers.get(&key).copied()
            && let Some(known) = tables.nodes.get_mut(&node)
        {
            known.lookups += 1;
            return Ok((node, stat));
        }
        let is_free = stat.st_dev == self.device && (ROOT + 1..OWN).contains(&stat.st_ino);
        let node = if is_free {
            stat.st_ino
        } else {
            tables.next += 1;
            OWN + tables.next
        };
        tables.nodes.insert(node, Node { fd: Arc::new(fd), key, lookups: 1 });
        tables.numbers.insert(key, node);
        Ok((node, stat))
    }

    /// The kernel has forgotten it so many times.
    pub(super) fn forget(&self, node: u64, times: u64) {
        let mut tables = self.tables();
        let Some(known) = tables.nodes.get_mut(&node) else { return };
        known.lookups = known.lookups.saturating_sub(times);
        if known.lookups == 0 {
            let key = known.key;
            tables.nodes.remove(&node);
            tables.numbers.remove(&key);
        }
    }

    /// Files that are known.
    pub(super) fn known(&self) -> Vec<u64> {
        self.tables().nodes.keys().copied().collect()
    }

    /// Keeps an open file; its handle.
    pub(super) fn keep(&self, open: Open) -> u64 {
        let mut tables = self.tables();
        tables.next += 1;
        let handle = tables.next;
        tables.open.insert(handle, Arc::new(open));
        handle
    }

    /// Says of which file an open one is.
    pub(super) fn name(&self, handle: u64, node: u64) -> rustix::io::Result<()> {
        let mut tables = self.tables();
        let open = tables.open.get_mut(&handle).and_then(Arc::get_mut).ok_or(Errno::BADF)?;
        open.node = node;
        Ok(())
    }

    pub(super) fn open(&self, handle: u64) -> rustix::io::Result<Arc<Open>> {
        self.tables().open.get(&handle).cloned().ok_or(Errno::BADF)
    }

    pub(super) fn close(&self, handle: u64) {
        self.tables().open.remove(&handle);
    }

    /// Keeps an open directory; its handle.
    pub(super) fn keep_dir(&self, node: u64) -> u64 {
        let mut tables = self.tables();
        tables.next += 1;
        let handle = tables.next;
        tables.dirs.insert(handle, (node, Arc::default()));
        handle
    }

    /// The entries of an open directory, read anew from its begin on.
    pub(super) fn entries(
        &self,
        handle: u64,
        is_begin: bool,
    ) -> rustix::io::Result<Arc<Vec<Entry>>> {
        let (node, entries) = self.tables().dirs.get(&handle).cloned().ok_or(Errno::BADF)?;
        if !is_begin {
            return Ok(entries);
        }
        let fd = openat(
            &*self.fd(node)?,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut all = Vec::new();
        for entry in rustix::fs::Dir::new(fd)? {
            let entry = entry?;
            let name =
                <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(entry.file_name().to_bytes());
            all.push((entry.ino(), super::host::kind(entry.file_type()), name.to_owned()));
        }
        let all = Arc::new(all);
        if let Some(dir) = self.tables().dirs.get_mut(&handle) {
            dir.1 = Arc::clone(&all);
        }
        Ok(all)
    }

    /// Of an open directory.
    pub(super) fn dir(&self, handle: u64) -> rustix::io::Result<u64> {
        self.tables().dirs.get(&handle).map(|dir| dir.0).ok_or(Errno::BADF)
    }

    pub(super) fn close_dir(&self, handle: u64) {
        self.tables().dirs.remove(&handle);
    }
}

/// A name that opens what a descriptor is of.
pub(super) fn again(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
