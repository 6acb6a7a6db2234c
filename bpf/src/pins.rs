//! What outlives its process: programs and maps pinned in a BPF file system of the fault's own.
//!
//! A file system for each, made when it is needed, asks for nothing of the host: whether one is mounted at `/sys/fs/bpf` is up to who
//! set it up, and files of ours there would be between files of others. Invariants: the directory is known to the journal before it is
//! made; its files are removed one by one before it is unmounted, since a process that has its own mounts may have a copy of this
//! one. Next: `undo`.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsmount,
    fsopen, mount, unmount,
};

use crate::error::{During as _, Result};
use crate::registry::DIR;

/// Where the programs of a fault are pinned if they are to outlive their process.
#[must_use]
pub fn programs_of(id: &str) -> PathBuf {
    Path::new(DIR).join(format!("{id}.programs"))
}

/// Where the settings are pinned that a fault gives back at its end.
#[must_use]
pub fn settings_of(id: &str) -> PathBuf {
    Path::new(DIR).join(format!("{id}.settings"))
}

/// Makes a directory to pin things in.
///
/// # Errors
/// It cannot be mounted: this takes CAP_SYS_ADMIN.
pub(crate) fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).during(|| format!("make {}", dir.display()))?;
    let hidden = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", dir, "bpf", hidden, c"mode=0700")
        .during(|| format!("mount a BPF file system at {} (needs CAP_SYS_ADMIN)", dir.display()))
}

/// Whether such a directory could be made: makes a file system, and mounts it nowhere.
///
/// # Errors
/// It could not.
pub(crate) fn probe() -> Result<()> {
    let made = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    made.map(drop).during(|| "make a BPF file system (needs CAP_SYS_ADMIN)".to_owned())
}

/// Removes what is pinned in a directory, and it. Another process may do so at the same time.
///
/// # Errors
/// It is there, and cannot be removed.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    // The kernel puts files of its own in the first one that is mounted; only their names have dots.
    let pinned = entries.flatten().filter(|entry| !entry.file_name().as_bytes().contains(&b'.'));
    for entry in pinned {
        gone(fs::remove_file(entry.path()))
            .during(|| format!("unpin {}", entry.path().display()))?;
    }
    match unmount(dir, UnmountFlags::DETACH) {
        // It never came to be mounted, or another was faster.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        refused @ Err(_) => refused.during(|| format!("unmount {}", dir.display()))?,
    }
    gone(fs::remove_dir(dir)).during(|| format!("remove {}", dir.display()))
}

/// What is not there is removed.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
