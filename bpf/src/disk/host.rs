//! What the layer asks of the files below it, and how it says what they are.
//!
//! The kernel has checked permissions before it asks us, and we are root: what is made is given to who asked.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmod,
    chownat, fstat, utimensat,
};

use super::Attributes;

/// Of an operation on the files below.
pub(super) type Done<T> = rustix::io::Result<T>;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A type, as the kernel is told.
pub(super) const fn kind(of: rustix::fs::FileType) -> FileType {
    match of {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at =
        if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    at.and_then(|at| at.checked_add(Duration::from_nanos(nanoseconds))).unwrap_or(UNIX_EPOCH)
}

/// What a file is, as the kernel is told; something else where a fault says so.
pub(super) fn attributes(node: u64, stat: &Stat, instead: Option<&Attributes>) -> FileAttr {
    let other = instead.copied().unwrap_or_default();
    let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    FileAttr {
        ino: INodeNo(node),
        size: other.size.unwrap_or_else(|| stat.st_size.unsigned_abs()),
        blocks: other.blocks.unwrap_or_else(|| stat.st_blocks.unsigned_abs()),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: other.perm.unwrap_or_else(|| u16::try_from(stat.st_mode & 0o7777).unwrap_or(0)),
        nlink: other.links.unwrap_or_else(|| low(stat.st_nlink)),
        uid: other.uid.unwrap_or(stat.st_uid),
        gid: other.gid.unwrap_or(stat.st_gid),
        rdev: low(stat.st_rdev),
        blksize: low(stat.st_blksize.unsigned_abs()),
        flags: 0,
    }
}

/// Gives what was just made in a directory to who asked; its group is the directory's if that says so.
pub(super) fn give(parent: &OwnedFd, name: &OsStr, asker: Asker) -> Done<()> {
    let is_shared = fstat(parent)?.st_mode & Mode::SGID.as_raw_mode() != 0;
    let gid = (!is_shared).then(|| Gid::from_raw(asker.gid));
    chownat(parent, name, Some(Uid::from_raw(asker.uid)), gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// What is to be changed of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(at)) => match at.duration_since(UNIX_EPOCH) {
            Ok(since) => Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(since.subsec_nanos()),
            },
            Err(before) => Timespec {
                tv_sec: -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
                tv_nsec: 0,
            },
        },
    }
}

/// Changes a file that a descriptor and a name of that are of.
pub(super) fn change(fd: &OwnedFd, name: &str, change: Change) -> Done<()> {
    if change.uid.is_some() || change.gid.is_some() {
        let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
        chownat(fd.as_fd(), "", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    if let Some(mode) = change.mode {
        chmod(name, Mode::from_raw_mode(mode))?;
    }
    if change.atime.is_some() || change.mtime.is_some() {
        let times = Timestamps {
            last_access: timespec(change.atime),
            last_modification: timespec(change.mtime),
        };
        utimensat(CWD, name, &times, AtFlags::empty())?;
    }
    Ok(())
}

/// What a standard library's error says.
pub(super) fn errno(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}
