//! Mounts of ours: made where nobody sees them, laid over a directory, and detached, which leaves what is open to who has it.
//!
//! Invariants: a mount of ours is known by its type and by its source, the fault's name; it is detached by a descriptor of its root, so that
//! what lies below it is never unmounted in its place, however many try.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::{During as _, Error, Result};
use crate::registry;

const SUBTYPE: &str = "chaos";
const TYPE: &str = "fuse.chaos";
const DEVICE: &str = "/dev/fuse";

/// A mount of ours, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    number: u64,
    /// Where.
    pub dir: PathBuf,
    /// Of which fault.
    pub id: String,
}

/// Undoes the escapes of a path in `/proc/self/mountinfo`: `\040` is a space.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read(line: &str) -> Option<Mounted> {
    let (before, behind) = line.split_once(" - ")?;
    let mut behind = behind.split(' ');
    if behind.next()? != TYPE {
        return None;
    }
    let id = unescaped(behind.next()?);
    let mut before = before.split(' ');
    let number = before.next()?.parse().ok()?;
    let dir = before.nth(3)?;
    Some(Mounted { number, dir: unescaped(dir).into(), id })
}

/// The mounts of ours that this process sees.
#[must_use]
pub fn all() -> Vec<Mounted> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(read).collect()
}

/// Number of the mount that a descriptor is on. The file system is not asked: its server may be dead.
fn number_of(fd: &OwnedFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Whether a directory is on a mount of ours.
pub(crate) fn is_ours(dir: &OwnedFd) -> bool {
    number_of(dir).is_some_and(|number| all().iter().any(|one| one.number == number))
}

/// Refuses directories that this host, and we ourselves, cannot do without.
pub(crate) fn refuse_wide(dir: &Path) -> Result<()> {
    let needed = ["/proc", "/sys", "/dev", registry::DIR];
    let is_wide = needed.iter().any(|needed| Path::new(needed).starts_with(dir))
        || needed.iter().any(|needed| *needed != "/dev" && dir.starts_with(needed));
    if is_wide {
        return Err(Error::usage(format!(
            "--path {}: {} must stay reachable; name the directory of the files that are to be hit",
            dir.display(),
            needed.join(", ")
        )));
    }
    Ok(())
}

/// A file system that is mounted nowhere yet, and the descriptor by which it is served.
///
/// # Errors
/// There is no FUSE, or no right to mount.
pub(super) fn make(id: &str) -> Result<(File, OwnedFd)> {
    let device = File::options().read(true).write(true).open(DEVICE);
    let device = device.during(|| format!("open {DEVICE} (modprobe fuse)"))?;
    let made = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &str| fsconfig_set_string(context.as_fd(), key, value);
        set("source", id)?;
        set("subtype", SUBTYPE)?;
        set("fd", &device.as_raw_fd().to_string())?;
        set("rootmode", "40000")?;
        set("user_id", "0")?;
        set("group_id", "0")?;
        fsconfig_set_flag(context.as_fd(), "allow_other")?;
        fsconfig_set_flag(context.as_fd(), "default_permissions")?;
        fsconfig_create(context.as_fd())?;
        let hidden = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, hidden)
    };
    let mount = made().during(|| "make a FUSE file system (needs CAP_SYS_ADMIN)".to_owned())?;
    Ok((device, mount))
}

/// Whether such a file system could be made: makes one, and mounts it nowhere.
///
/// # Errors
/// It could not.
pub fn probe() -> Result<()> {
    make("probe").map(drop)
}

/// Lays it over a directory.
pub(super) fn lay(mount: &OwnedFd, dir: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", rustix::fs::CWD, dir, flags)
        .during(|| format!("mount at {}", dir.display()))
}

/// Detaches the mount that a descriptor is the root of; no error if it is detached already.
pub(super) fn detach_root(root: &OwnedFd) -> Result<()> {
    match unmount(format!("/proc/self/fd/{}", root.as_raw_fd()), UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        refused @ Err(_) => refused.during(|| "detach the mount".to_owned()),
    }
}

/// Detaches the mount of a fault from a directory, if it is there.
///
/// # Errors
/// It is there, and cannot be detached: another lies over it.
pub fn detach(dir: &Path, id: &str) -> Result<()> {
    let Some(ours) = all().into_iter().find(|one| one.id == id && one.dir == dir) else {
        return Ok(());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(dir, flags, Mode::empty()) else { return Ok(()) };
    if number_of(&root) == Some(ours.number) {
        return detach_root(&root);
    }
    // It may have gone meanwhile.
    if all().contains(&ours) {
        return Err(Error::failed(format!(
            "detach the mount of {id} at {}: another lies over it; umount that first",
            dir.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_ours_are_told_from_others() {
        let ours = "36 35 0:40 / /tmp/a\\040b rw,nosuid - fuse.chaos disk.delay-1 rw,user_id=0";
        let one = read(ours).expect("it is ours");
        assert_eq!((one.number, &*one.id), (36, "disk.delay-1"));
        assert_eq!(one.dir, Path::new("/tmp/a b"));
        assert_eq!(read("36 35 0:40 / /tmp/a rw shared:1 - fuse.sshfs x rw"), None);
        assert_eq!(read("36 35 0:40 / /tmp/a rw shared:1 - ext4 /dev/vda rw"), None);
    }

    #[test]
    fn what_is_needed_is_not_covered() {
        for dir in ["/", "/proc", "/proc/sys", "/sys", "/run", "/run/chaos", "/dev"] {
            assert!(refuse_wide(Path::new(dir)).is_err(), "{dir}");
        }
        for dir in ["/tmp", "/var/lib/etcd", "/dev/shm", "/runner"] {
            assert!(refuse_wide(Path::new(dir)).is_ok(), "{dir}");
        }
    }

    #[test]
    fn detaching_what_is_not_there_is_no_error() {
        detach(Path::new("/"), "no-such-fault").expect("nothing is done");
    }
}
