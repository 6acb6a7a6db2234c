//! What has to be undone that does not go with its process: written down before it is done.
//!
//! Invariants: undoing what was never done, or is undone already, is no error; what is ours is told from what is not by its name.
//! Next: `registry`, which holds the lists.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::{During as _, Result};
use crate::faults::pace;
use crate::limit::{Limit, Limited};
use crate::registry::Process;
use crate::select::Way;
use crate::{disk, groups, link, netlink, netns, pins, sysctl};

/// One thing to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "undo")]
pub enum Undo {
    /// A BPF file system of ours, and the programs that it holds.
    Unpin {
        /// The directory.
        dir: PathBuf,
    },
    /// A filter of ours on a device.
    Filter {
        /// Name of its network namespace; that of this process without.
        netns: Option<String>,
        /// The device.
        dev: String,
        /// Its direction.
        way: Way,
        /// Its number.
        handle: u32,
        /// The clsact qdisc that it is in is ours too.
        makes: bool,
    },
    /// A queueing discipline of ours on a device.
    Queue {
        /// Name of its network namespace; that of this process without.
        netns: Option<String>,
        /// The device.
        dev: String,
    },
    /// Settings of connections that a fault has made.
    Settings {
        /// Where the map is pinned that says what they were before.
        map: PathBuf,
        /// Name of the network namespace of the connections; that of this process without.
        netns: Option<String>,
    },
    /// A process that is stopped.
    Resume {
        /// It.
        process: Process,
    },
    /// A control group of ours.
    Cgroup {
        /// Its directory.
        dir: PathBuf,
        /// That of the group that its processes came from.
        home: PathBuf,
    },
    /// A limit of a process.
    Limit {
        /// It.
        process: Process,
        /// Of what.
        of: Limited,
        /// As it was.
        was: Limit,
    },
    /// A setting of the kernel.
    Sysctl {
        /// Name of its network namespace; that of this process without.
        netns: Option<String>,
        /// Its name.
        name: String,
        /// As it was.
        was: String,
    },
    /// A mount of ours over a directory.
    Unmount {
        /// The directory.
        dir: PathBuf,
        /// Of which fault.
        id: String,
    },
    /// A server of files: it has no effect any more, and ends with what is open.
    Serve {
        /// It.
        process: Process,
    },
    /// The clocks of a process.
    #[cfg(target_arch = "x86_64")]
    Clock {
        /// It.
        process: Process,
        /// What was changed.
        patch: crate::clock::Patch,
    },
    /// A file of ours, or a directory of such.
    Remove {
        /// It.
        path: PathBuf,
    },
}

/// How the names of files begin that are ours.
pub const FILES: &str = ".chaos-";

fn remove(path: &Path) -> Result<()> {
    let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILES));
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !is_ours {
        return Ok(());
    }
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.during(|| format!("remove {}", path.display())),
    }
}

impl Undo {
    /// Undoes it.
    ///
    /// # Errors
    /// It is there, and cannot be undone.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Unpin { dir } => pins::remove(dir),
            Self::Filter { netns, dev, way, handle, makes } => {
                netns::within(netns.as_deref(), || {
                    // With the device, or its namespace, the filter is gone too.
                    Device::open(dev).map_or(Ok(()), |device| {
                        link::remove_filter(&device, *way, *handle, *makes)
                    })
                })
            }
            .unwrap_or(Ok(())),
            Self::Queue { netns, dev } => netns::within(netns.as_deref(), || {
                Device::open(dev).map_or(Ok(()), |device| netlink::remove(&device))
            })
            .unwrap_or(Ok(())),
            Self::Settings { map, netns } => pace::unset(map, netns.as_deref()),
            Self::Resume { process } => process.signal(Signal::CONT).map(|_| ()),
            Self::Cgroup { dir, home } => groups::dissolve(dir, home),
            Self::Limit { process, of, was } => of.set(*process, *was).map(|_| ()),
            Self::Sysctl { netns, name, was } => {
                // With its namespace the setting is gone too.
                netns::within(netns.as_deref(), || sysctl::write(name, was)).unwrap_or(Ok(()))
            }
            Self::Unmount { dir, id } => disk::detach(dir, id),
            Self::Serve { process } => process.signal(Signal::TERM).map(|_| ()),
            #[cfg(target_arch = "x86_64")]
            Self::Clock { process, patch } => patch.undo(*process),
            Self::Remove { path } => remove(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_ours_are_removed() {
        let dir = std::env::temp_dir().join(format!("chaos-undo-{}", std::process::id()));
        let (ours, other) = (dir.join(format!("{FILES}a")), dir.join("a"));
        fs::create_dir_all(&ours).expect("room");
        fs::write(ours.join("b"), "").expect("room");
        fs::write(&other, "").expect("room");
        for path in [ours.clone(), other.clone(), dir.join(format!("{FILES}none"))] {
            Undo::Remove { path }.run().expect("it can be done");
        }
        assert!(!ours.exists());
        assert!(other.exists());
        Undo::Cgroup { dir: dir.clone(), home: dir.clone() }.run().expect("nothing is done");
        assert!(dir.exists(), "it is no control group");
        fs::remove_dir_all(&dir).expect("it is there");
    }
}
