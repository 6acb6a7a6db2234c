//! Control groups of version 2, by the directories that users name.
//!
//! Where both versions are mounted, the second is at `/sys/fs/cgroup/unified`, and `/sys/fs/cgroup` itself elsewhere: the mounts
//! say. Next: `faults::socket`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{During as _, Error, Result};

/// Where the hierarchy is mounted.
///
/// # Errors
/// It is not.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").during(|| "read /proc/mounts".to_owned())?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&"cgroup2"));
    let at = found.as_ref().and_then(|fields| fields.get(1));
    at.map(PathBuf::from).ok_or_else(|| {
        Error::unsupported(
            "find control groups of version 2: none are mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)",
        )
    })
}

/// A control group, open for programs to be attached to.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// The same, open.
    pub dir: File,
    /// It holds all processes.
    pub is_root: bool,
}

impl Cgroup {
    /// Opens the one of that directory, below the root or absolute.
    ///
    /// # Errors
    /// There is none.
    pub fn open(name: &str) -> Result<Self> {
        let root = root()?;
        let path = if Path::new(name).starts_with(&root) {
            PathBuf::from(name)
        } else {
            root.join(name.trim_start_matches('/'))
        };
        let doing = || format!("open control group {}", path.display());
        let canonical = path.canonicalize().map_err(|error| {
            Error::usage(format!(
                "{}: {error}; a directory below {} is wanted",
                doing(),
                root.display()
            ))
        })?;
        if !canonical.starts_with(&root) || !canonical.join("cgroup.procs").is_file() {
            return Err(Error::usage(format!(
                "{}: it is none; a directory below {} is wanted",
                doing(),
                root.display()
            )));
        }
        let dir = File::open(&canonical).during(doing)?;
        Ok(Self { is_root: canonical == root, path: canonical, dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_control_group_is_said() {
        if root().is_err() {
            return;
        }
        for name in ["no/such/group", "/tmp", "../..", "cgroup.procs"] {
            let error = Cgroup::open(name).expect_err(name).to_string();
            assert!(error.contains("is wanted"), "{error}");
        }
        assert!(Cgroup::open("/").expect("the root").is_root);
    }
}
