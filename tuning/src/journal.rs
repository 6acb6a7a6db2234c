//! What was changed and how it was before, on disk before it is changed.
//!
//! One JSON file, written whole under another name, synced and renamed. Whoever is killed between two steps leaves a file
//! from which [`revert`](crate::revert::revert) finds the original state: a change that is noted and not done is seen as not done.
//! Invariants: nothing is written to the kernel that is not in the file with its value before; one process at a time holds
//! the journal; what others could have written is not believed, since root writes what it says. Next: `apply`, `revert`.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{During as _, Error, Result};
use crate::format::Format;
use crate::knob::How;
use crate::knobs;

/// Where it is unless said otherwise.
pub const DEFAULT: &str = "/var/lib/tune/journal.json";

/// Of the file; another one is not read.
const VERSION: u32 = 1;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The knob's name.
    pub knob: String,
    /// Its file.
    pub path: String,
    /// How the file is written.
    pub format: Format,
    /// What to write to have it as it was.
    pub before: String,
    /// What was written, or was about to be.
    pub after: String,
    /// What was written earlier, as long as it is not sure that `after` was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// The start of the machine that it belongs to.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel: String,
    /// The network namespace, for what each has of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Pages {
    version: u32,
    entries: Vec<Entry>,
}

/// The journal, held until it is dropped.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    dir: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// Reads it and holds it. Its directory is made when it is not there.
    ///
    /// # Errors
    /// Another process holds it, or it is not a journal.
    pub fn open(path: &Path) -> Result<Self> {
        let parent = parent(path);
        fs::create_dir_all(parent).map_err(|error| {
            let dir = parent.display();
            Error::new(format!("make the directory {dir}: {error}; run as root, or give --journal"))
        })?;
        let dir = File::open(parent).during(|| format!("open {}", parent.display()))?;
        flock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            Error::new(format!(
                "lock {}: {error}; another tune is at work there: wait for it",
                parent.display()
            ))
        })?;
        Ok(Self { entries: read(path)?, path: path.to_owned(), dir })
    }

    /// What is in it, the oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Notes changes that are about to be made. What is in it of the same place keeps its first value, if `earlier` is what
    /// we wrote and it is still so: `now` says what the place has.
    ///
    /// # Errors
    /// It cannot be written: nothing must be changed.
    pub fn will(&mut self, changes: Vec<Entry>) -> Result<()> {
        for change in changes {
            let old = self.entries.iter_mut().find(|old| old.is_at(&change));
            match old {
                Some(old) if old.is_ours(&change.before) => {
                    let written = std::mem::replace(&mut old.after, change.after);
                    old.earlier.push(written);
                }
                Some(old) => *old = change,
                None => self.entries.push(change),
            }
        }
        self.save()
    }

    /// Notes that these were really made, or that they were not and are as before.
    ///
    /// # Errors
    /// It cannot be written. What it has still leads back.
    pub fn made(
        &mut self,
        is_made: impl Fn(&Entry) -> bool,
        is_undone: impl Fn(&Entry) -> bool,
    ) -> Result<()> {
        self.entries.retain(|entry| !is_undone(entry));
        for entry in self.entries.iter_mut().filter(|entry| is_made(entry)) {
            entry.earlier.clear();
        }
        self.save()
    }

    /// Keeps only these.
    ///
    /// # Errors
    /// It cannot be written. What it has still leads back.
    pub fn keep(&mut self, entries: Vec<Entry>) -> Result<()> {
        self.entries = entries;
        self.save()
    }

    fn save(&self) -> Result<()> {
        let doing = || format!("write the journal {}", self.path.display());
        if self.entries.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error).during(doing),
                _ => self.dir.sync_all().during(doing),
            };
        }
        let pages = Pages { version: VERSION, entries: self.entries.clone() };
        let text = serde_json::to_string_pretty(&pages).during(doing)?;
        let new = self.path.with_extension("json.new");
        // Never through a link that somebody has put there: what is left of an earlier one is removed, and the file made anew.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).during(doing),
            _ => {}
        }
        let mut made = OpenOptions::new();
        let written =
            made.write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.write_all(b"\n")?;
                file.sync_all()
            });
        written.during(doing)?;
        fs::rename(&new, &self.path).during(doing)?;
        self.dir.sync_all().during(doing)
    }
}

impl Entry {
    /// Whether it is about the same place: a namespace of another name is another place, and so is another start.
    fn is_at(&self, other: &Self) -> bool {
        (&self.path, &self.netns, &self.boot_id) == (&other.path, &other.netns, &other.boot_id)
    }

    /// Whether it is a change that `apply` makes: of a setting of the table, in one of its places, in its format.
    #[must_use]
    pub fn is_of_table(&self) -> bool {
        knobs::find(&self.knob).is_some_and(|knob| {
            knob.how == How::Write && knob.format == self.format && knob.has_path(&self.path)
        })
    }

    /// Whether we wrote this value.
    #[must_use]
    pub fn is_ours(&self, text: &str) -> bool {
        let mut ours = self.earlier.iter().chain([&self.after]);
        ours.any(|written| self.format.same(written, text))
    }

    /// Whether it is as it was before.
    #[must_use]
    pub fn is_before(&self, text: &str) -> bool {
        self.format.same(&self.before, text)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The entries of a journal; none when it is not there.
///
/// # Errors
/// It is not a journal, or of another version.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let doing = || format!("read the journal {}", path.display());
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.during(doing)?,
    };
    believe(&file.metadata().during(doing)?).during(doing)?;
    let mut text = String::new();
    file.read_to_string(&mut text).during(doing)?;
    let pages: Pages = serde_json::from_str(&text).map_err(|error| {
        Error::new(format!(
            "{}: {error}; it says how things were: repair it, or move it away to forget that",
            doing()
        ))
    })?;
    if pages.version != VERSION {
        return Err(Error::new(format!(
            "{}: version {} where {VERSION} is known; use the tune that wrote it",
            doing(),
            pages.version
        )));
    }
    Ok(pages.entries)
}

/// Whether only this user or root can have written it.
fn believe(metadata: &Metadata) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(Error::new(format!(
            "it belongs to user {} and could have anything written: look at it, then make it yours (chown)",
            metadata.uid()
        )));
    }
    if metadata.is_file() && metadata.mode() & 0o022 != 0 {
        return Err(Error::new(format!(
            "others may write it (mode {:03o}) and could have anything written: look at it, then chmod 600",
            metadata.mode() & 0o777
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use crate::testing::Dir;

    fn entry(before: &str, after: &str) -> Entry {
        Entry {
            knob: "k".to_owned(),
            path: "/proc/sys/a".to_owned(),
            format: Format::Words,
            before: before.to_owned(),
            after: after.to_owned(),
            earlier: Vec::new(),
            boot_id: "b".to_owned(),
            kernel: "6.1".to_owned(),
            netns: None,
        }
    }

    #[test]
    fn a_second_change_keeps_the_first_value_until_it_is_made() {
        let dir = Dir::new("journal");
        let path = dir.path().join("a/journal.json");
        let mut journal = Journal::open(&path).expect("room");
        journal.will(vec![entry("1", "2")]).expect("room");
        journal.made(|_| true, |_| false).expect("room");
        journal.will(vec![entry("2", "3")]).expect("room");
        assert_eq!(read(&path).expect("a journal"), journal.entries());
        let [only] = journal.entries() else { panic!("one place") };
        assert_eq!((only.before.as_str(), only.after.as_str()), ("1", "3"));
        assert!(only.is_ours("2") && only.is_ours("3") && !only.is_ours("1"));
        journal.made(|_| true, |_| false).expect("room");
        assert!(!journal.entries()[0].is_ours("2"));
        // Somebody else has changed it meanwhile: their value is the one to go back to.
        journal.will(vec![entry("9", "3")]).expect("room");
        assert_eq!(journal.entries()[0].before, "9");
        journal.keep(Vec::new()).expect("room");
        assert!(!path.exists());
    }

    #[test]
    fn what_others_may_have_written_is_not_believed() {
        let dir = Dir::new("journal-mode");
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).expect("room");
        journal.will(vec![entry("1", "2")]).expect("room");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        for (mode, is_believed) in [(0o600, true), (0o644, true), (0o664, false), (0o602, false)] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("ours");
            assert_eq!(read(&path).is_ok(), is_believed, "{mode:o}");
        }
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("ours");
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("root may");
            let error = read(&path).expect_err("it is another's").to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
        }
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let dir = Dir::new("journal-link");
        let (path, other) = (dir.path().join("journal.json"), dir.path().join("other"));
        fs::write(&other, "precious").expect("room");
        std::os::unix::fs::symlink(&other, dir.path().join("journal.json.new")).expect("room");
        let mut journal = Journal::open(&path).expect("room");
        journal.will(vec![entry("1", "2")]).expect("room");
        assert_eq!(fs::read_to_string(&other).expect("it is there"), "precious");
        assert_eq!(read(&path).expect("a journal").len(), 1);
    }

    #[test]
    fn only_settings_of_the_table_are_changes() {
        let of = |knob: &str, path: &str, format: Format| Entry {
            knob: knob.to_owned(),
            path: path.to_owned(),
            format,
            ..entry("1", "2")
        };
        let swappiness = "/proc/sys/vm/swappiness";
        assert!(of("vm.swappiness", swappiness, Format::Words).is_of_table());
        assert!(!of("vm.swappiness", swappiness, Format::Mask).is_of_table());
        assert!(!of("vm.swappiness", "/etc/passwd", Format::Words).is_of_table());
        assert!(!of("no.such", swappiness, Format::Words).is_of_table());
        let security = ("kernel.randomize_va_space", "/proc/sys/kernel/randomize_va_space");
        assert!(!of(security.0, security.1, Format::Words).is_of_table());
    }

    #[test]
    fn one_at_a_time() {
        let dir = Dir::new("journal-lock");
        let path = dir.path().join("journal.json");
        let held = Journal::open(&path).expect("room");
        let error = Journal::open(&path).expect_err("it is held").to_string();
        assert!(error.contains("another tune is at work"), "{error}");
        drop(held);
        Journal::open(&path).expect("it is free");
    }

    #[test]
    fn what_is_no_journal_is_not_overwritten() {
        let dir = Dir::new("journal-bad");
        let path = dir.path().join("journal.json");
        for (text, why) in [("{", "EOF"), (r#"{"version": 2, "entries": []}"#, "version 2")] {
            fs::write(&path, text).expect("room");
            let error = Journal::open(&path).expect_err("it is none").to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
        }
    }
}
