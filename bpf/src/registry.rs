//! The faults of this host, each in a file of `/run/chaos` that says who keeps it, until when, and what has to be undone.
//!
//! Files are written whole, under another name first. Who finds one whose keeper is gone, and whose time is over or which was not to
//! outlive its keeper, undoes what it lists and removes it. Invariants: what does not go with its process is in the
//! file before it is done; a process is known by its start as well as its number. Next: `keeper`.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{During as _, Error, Result};
use crate::spec::Spec;
use crate::time::{monotonic_ns, unix_ms};
use crate::undo::Undo;

/// Where the files are.
pub const DIR: &str = "/run/chaos";

/// A process, told from a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks since the start of the machine.
    pub started: u64,
}

impl Process {
    /// The process of that number, if there is one.
    #[must_use]
    pub fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have spaces and brackets of its own; field 22 is the 20th behind it, and field 3 the state.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let is_gone = matches!(fields.first(), Some(&"Z" | &"X"));
        let started = fields.get(19)?.parse().ok()?;
        (!is_gone).then_some(Self { pid, started })
    }

    /// Whether it is still there.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }
}

/// A fault of this host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name on the command line.
    pub id: String,
    /// Who ends it.
    pub keeper: Process,
    /// Name of the network namespace that it is in, if it is another.
    #[serde(default)]
    pub netns: Option<String>,
    /// What was asked for.
    pub spec: Spec,
    /// When it was, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// When it ends, in nanoseconds of CLOCK_MONOTONIC.
    pub deadline_ns: u64,
    /// It is to last until then without its keeper.
    pub detached: bool,
    /// The kernel's numbers of its maps of counts.
    #[serde(default)]
    pub counters: Vec<u32>,
    /// What has to be undone, the last first.
    #[serde(default)]
    pub undo: Vec<Undo>,
}

/// A fault's file, as its keeper writes it.
#[derive(Debug)]
pub struct Journal {
    entry: Entry,
    path: PathBuf,
    watches: bool,
    watchdog: Option<Child>,
}

impl Journal {
    /// Notes a fault that is about to start. With `watches`, this process's own executable is `chaos`, and is
    /// started once more to undo things if the process is killed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(spec: &Spec, netns: Option<&str>, detached: bool, watches: bool) -> Result<Self> {
        let pid = std::process::id();
        let keeper = Process::find(pid)
            .ok_or_else(|| Error::failed("read /proc/self/stat: /proc is not mounted"))?;
        let now = monotonic_ns();
        // The clock makes it another one for a process that keeps several, and a look at the files one of several at once.
        let mut ids = (0..4096)
            .map(|more| format!("{}-{pid:x}{:03x}", spec.fault, (now / 1000 + more) % 4096));
        let id = ids.find(|id| !Path::new(DIR).join(format!("{id}.json")).exists());
        let id = id.ok_or_else(|| Error::failed("4096 faults in one process: no name is left"))?;
        let entry = Entry {
            id: id.clone(),
            keeper,
            netns: netns.map(str::to_owned),
            spec: spec.clone(),
            since_unix_ms: unix_ms(),
            deadline_ns: now + crate::time::ns(spec.ttl),
            detached,
            counters: Vec::new(),
            undo: Vec::new(),
        };
        let journal = Self {
            entry,
            path: Path::new(DIR).join(format!("{id}.json")),
            watches,
            watchdog: None,
        };
        journal.write()?;
        Ok(journal)
    }

    /// What is in it.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Name of the network namespace that the fault is in, if it is another than its keeper began in.
    #[must_use]
    pub fn netns(&self) -> Option<String> {
        self.entry.netns.clone()
    }

    /// Notes what is about to be done, by how it is undone.
    ///
    /// # Errors
    /// The file cannot be written: it must not be done.
    pub fn will(&mut self, undo: Undo) -> Result<()> {
        self.entry.undo.push(undo);
        self.write()?;
        if self.watches && self.watchdog.is_none() {
            self.watchdog = Some(self.watch()?);
        }
        Ok(())
    }

    /// Notes where the counts are.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn counted_by(&mut self, counters: Vec<u32>) -> Result<()> {
        self.entry.counters = counters;
        self.write()
    }

    fn write(&self) -> Result<()> {
        let doing = || format!("write {}", self.path.display());
        fs::create_dir_all(DIR).during(doing)?;
        let text = serde_json::to_vec_pretty(&self.entry).during(doing)?;
        let new = self.path.with_extension("new");
        fs::write(&new, text).during(doing)?;
        fs::rename(&new, &self.path).during(doing)
    }

    fn watch(&self) -> Result<Child> {
        let doing = || "start the watchdog".to_owned();
        let exe = std::env::current_exe().during(doing)?;
        Command::new(exe)
            .arg("watchdog")
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not hit by what the terminal sends to this process.
            .process_group(0)
            .spawn()
            .during(doing)
    }

    /// The fault is over and undone by its keeper; what is left is undone too.
    ///
    /// # Errors
    /// Something cannot be undone: the file stays.
    pub fn close(mut self) -> Result<()> {
        let ended = self.entry.undo_all(&self.path);
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
        ended
    }
}

impl Entry {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn undo_all(&self, path: &Path) -> Result<()> {
        for undo in self.undo.iter().rev() {
            undo.run()?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::failed(format!("remove {}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Whether nobody will end it any more, and it is to have ended.
    fn is_orphan(&self) -> bool {
        !self.keeper.is_alive() && (!self.detached || monotonic_ns() >= self.deadline_ns)
    }

    fn path(&self) -> PathBuf {
        Path::new(DIR).join(format!("{}.json", self.id))
    }

    /// Ends it now, whoever keeps it.
    ///
    /// # Errors
    /// Its keeper does not end, or something cannot be undone.
    pub fn stop(&self) -> Result<()> {
        if self.keeper.is_alive() {
            let pid = i32::try_from(self.keeper.pid).ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.ok_or_else(|| {
                Error::failed(format!("end process {}: no such number", self.keeper.pid))
            })?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .during(|| format!("end process {}", self.keeper.pid))?;
            for _ in 0..STOP_POLLS_MAX {
                if !self.path().exists() {
                    return Ok(());
                }
                std::thread::sleep(STOP_POLL);
            }
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        self.undo_all(&self.path())
    }
}

/// How long a keeper is waited for.
const STOP_POLLS_MAX: u32 = 250;
const STOP_POLL: std::time::Duration = std::time::Duration::from_millis(20);

/// The faults of this host, by name. What was left behind is undone first.
///
/// # Errors
/// The directory cannot be read, or something cannot be undone.
pub fn all() -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    // Servers that were killed before anybody noted what they left.
    let _ = crate::disk::serving();
    let Ok(files) = fs::read_dir(DIR) else { return Ok(all) };
    for file in files.flatten() {
        let path = file.path();
        if is_abandoned(&path) {
            let _ = fs::remove_file(&path);
            continue;
        }
        let Some(entry) = Entry::read(&path) else { continue };
        if entry.is_orphan() {
            entry.undo_all(&path)?;
        } else {
            all.push(entry);
        }
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(all)
}

/// Whether it is a file that was being written when its writer was killed, whose number is in its name.
fn is_abandoned(path: &Path) -> bool {
    let writer = path.file_stem().and_then(|id| id.to_str()).and_then(|id| {
        let (_, number) = id.rsplit_once('-')?;
        u32::from_str_radix(number.get(..number.len().checked_sub(3)?)?, 16).ok()
    });
    path.extension().is_some_and(|end| end == "new")
        && writer.is_some_and(|pid| Process::find(pid).is_none())
}

/// Whether a fault of this host has such a thing to undo.
pub(crate) fn knows(is_it: impl Fn(&Undo) -> bool) -> bool {
    let files = fs::read_dir(DIR).into_iter().flatten().flatten();
    let mut entries = files.filter_map(|file| Entry::read(&file.path()));
    entries.any(|entry| entry.undo.iter().any(&is_it))
}

/// Waits until the process that started it is gone, and undoes what it left: the body of `chaos watchdog`.
///
/// # Errors
/// Something cannot be undone.
pub fn watch(path: &Path) -> Result<()> {
    let mut sink = Vec::new();
    let _ = std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut sink);
    let Some(entry) = Entry::read(path) else { return Ok(()) };
    if entry.detached {
        let left = entry.deadline_ns.saturating_sub(monotonic_ns());
        std::thread::sleep(std::time::Duration::from_nanos(left));
    }
    // It may have been stopped meanwhile.
    match Entry::read(path) {
        Some(entry) => entry.undo_all(path),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_being_written_is_told_from_what_is() {
        let own = format!("net.loss-{:x}0ff", std::process::id());
        let file = |name: &str| Path::new(DIR).join(name);
        assert!(!is_abandoned(&file(&format!("{own}.new"))), "it is being written");
        // Beyond the numbers that processes have.
        assert!(is_abandoned(&file("net.loss-fffffff0ff.new")));
        for name in ["net.loss-fffffff0ff.json", "net.loss.new", "net.loss-ff.new", "-.new"] {
            assert!(!is_abandoned(&file(name)), "{name}");
        }
    }
}
