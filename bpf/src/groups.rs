//! Control groups of our own, versions 1 and 2, that processes are put into for a while.
//!
//! In version 1 a group is below that of the process, so that outer limits stay; in version 2 beside it, as a group with
//! processes has no limited children. Invariants: the journal knows a group, and where its processes came from, before it
//! is made; names begin with `chaos-`. Next: `undo`, `faults::resource`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::abi::Counts;
use crate::error::{During as _, Error, Result};
use crate::fault::Active;
use crate::faults::tally::Tally;
use crate::registry::{Journal, Process};
use crate::undo::Undo;

/// A freezing or emptying group is looked at so often.
const POLLS_MAX: u32 = 200;
const POLL: Duration = Duration::from_millis(2);

/// Where a controller is mounted.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    root: PathBuf,
    controller: String,
    /// Version 2.
    pub is_v2: bool,
}

impl Hierarchy {
    /// That of a controller, of version `"1"`, `"2"` or `"any"`, the first of them preferred.
    ///
    /// # Errors
    /// There is none.
    pub fn find(controller: &str, version: &str) -> Result<Self> {
        let mounts =
            fs::read_to_string("/proc/mounts").during(|| "read /proc/mounts".to_owned())?;
        let mut found: Vec<Self> =
            mounts.lines().filter_map(|line| Self::of_mount(line, controller)).collect();
        found.retain(|one| version == "any" || one.is_v2 == (version == "2"));
        found.sort_by_key(|one| one.is_v2);
        found.into_iter().next().ok_or_else(|| {
            Error::unsupported(format!(
                "find the control groups of {controller}, version {version}: not mounted, or without this controller"
            ))
        })
    }

    fn of_mount(line: &str, controller: &str) -> Option<Self> {
        let mut fields = line.split(' ').skip(1);
        let root = PathBuf::from(fields.next()?);
        let (kind, options) = (fields.next()?, fields.next()?);
        let is_v2 = kind == "cgroup2";
        let has = match kind {
            "cgroup" => options.split(',').any(|option| option == controller),
            // Freezing needs no controller there.
            "cgroup2" => controller == "freezer" || lists(&root, "cgroup.controllers", controller),
            _ => false,
        };
        has.then(|| Self { root, controller: controller.to_owned(), is_v2 })
    }

    /// The group of a process.
    fn home(&self, pid: u32) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_it = if self.is_v2 {
                controllers.is_empty()
            } else {
                controllers.split(',').any(|one| one == self.controller)
            };
            is_it.then_some(path)
        })?;
        Some(self.root.join(path.trim_start_matches('/')))
    }

    /// Where a group for the processes of another is made.
    fn place(&self, home: &Path) -> Result<PathBuf> {
        if !self.is_v2 || home == self.root {
            return Ok(home.to_owned());
        }
        let parent = home.parent().unwrap_or(&self.root);
        if self.controller != "freezer"
            && !lists(parent, "cgroup.subtree_control", &self.controller)
        {
            return Err(Error::unsupported(format!(
                "limit by {0} below {1}: it is not enabled there (echo +{0} > {1}/cgroup.subtree_control)",
                self.controller,
                parent.display()
            )));
        }
        Ok(parent.to_owned())
    }
}

fn lists(dir: &Path, file: &str, word: &str) -> bool {
    fs::read_to_string(dir.join(file))
        .is_ok_and(|text| text.split_whitespace().any(|one| one == word))
}

fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, value).during(|| format!("write {value} to {}", path.display()))
}

/// A group of ours, being set up.
pub struct Group<'a> {
    dir: &'a Path,
}

impl Group<'_> {
    /// Sets a limit.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        write(self.dir, file, value)
    }

    /// A number in one of its files.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get(&self, file: &str) -> Result<u64> {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path).during(|| format!("read {}", path.display()))?;
        text.trim().parse().during(|| format!("read {}", path.display()))
    }
}

/// Groups of ours with processes in them. Dropping them puts these back.
pub struct Groups {
    all: Vec<(PathBuf, PathBuf)>,
    is_v2: bool,
    processes: u64,
}

impl Groups {
    /// Puts processes into groups of ours, one for each that they come from, and limits them by `limit`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn join(
        hierarchy: &Hierarchy,
        processes: &[Process],
        journal: &mut Journal,
        limit: impl Fn(Group<'_>) -> Result<()>,
    ) -> Result<Self> {
        let mut by_home: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
        for process in processes {
            if let Some(home) = hierarchy.home(process.pid) {
                by_home.entry(home).or_default().push(process.pid);
            }
        }
        let mut groups = Self { all: Vec::new(), is_v2: hierarchy.is_v2, processes: 0 };
        for (number, (home, pids)) in by_home.into_iter().enumerate() {
            let name = format!("chaos-{}-{number}", journal.entry().id);
            let dir = hierarchy.place(&home)?.join(name);
            journal.will(Undo::Cgroup { dir: dir.clone(), home: home.clone() })?;
            fs::create_dir(&dir).during(|| format!("make {}", dir.display()))?;
            groups.all.push((dir.clone(), home));
            for pid in pids {
                // It may have ended meanwhile.
                let is_in = write(&dir, "cgroup.procs", &pid.to_string());
                groups.processes += u64::from(is_in.is_ok());
            }
            limit(Group { dir: &dir })?;
        }
        Ok(groups)
    }

    /// How many were put.
    #[must_use]
    pub const fn processes(&self) -> u64 {
        self.processes
    }

    /// Freezes all, and waits until they are.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn freeze(&self) -> Result<()> {
        for (dir, _) in &self.all {
            if self.is_v2 {
                write(dir, "cgroup.freeze", "1")?;
            } else {
                write(dir, "freezer.state", "FROZEN")?;
            }
            for _ in 0..POLLS_MAX {
                if lists(dir, "freezer.state", "FROZEN") || is_frozen_v2(dir) {
                    break;
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        while let Some((dir, home)) = self.all.pop() {
            dissolve(&dir, &home)?;
        }
        Ok(())
    }
}

fn is_frozen_v2(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.events"))
        .is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
}

impl Drop for Groups {
    fn drop(&mut self) {
        // The journal tries again, and tells.
        let _ = self.leave();
    }
}

/// Puts the processes of a group of ours back where they came from, thawed, and removes it.
///
/// # Errors
/// It is there, and cannot be removed.
pub fn dissolve(dir: &Path, home: &Path) -> Result<()> {
    let is_ours = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("chaos-"));
    if !is_ours || !dir.join("cgroup.procs").exists() {
        return Ok(());
    }
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if dir.join(file).exists() {
            write(dir, file, value)?;
        }
    }
    // Their group may be gone; the one above is not.
    let home = home.ancestors().find(|dir| dir.join("cgroup.procs").exists()).unwrap_or(home);
    let mut last = Ok(());
    for _ in 0..POLLS_MAX {
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            // It may end at any time.
            let _ = write(home, "cgroup.procs", pid);
        }
        last = fs::remove_dir(dir);
        if last.is_ok() || !dir.exists() {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    last.during(|| format!("remove {}", dir.display()))
}

/// A fault that lies in groups of ours.
struct Grouped {
    groups: Groups,
    tally: Arc<Tally>,
}

/// A fault that lies in groups of ours, as a value.
pub(crate) fn active(groups: Groups, tally: Arc<Tally>) -> Box<dyn Active> {
    Box::new(Grouped { groups, tally })
}

impl Active for Grouped {
    fn pin(&mut self, _: &Path) -> Result<()> {
        // The journal has all of it: the watchdog ends it when its time is over.
        Ok(())
    }
    fn counts(&self) -> Result<Counts> {
        Ok(self.tally.get())
    }
    fn disarm(&mut self) -> Result<()> {
        self.groups.leave()
    }
    fn counters(&self) -> Vec<u32> {
        self.tally.ids()
    }
}
