//! What the tests share: recorded hosts, and the `tune` command with nothing in its environment.
//!
//! `tuning::record` says how a host is written as text.

#![allow(dead_code, reason = "each test binary uses its part of this module")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// Where the recorded hosts are.
pub(crate) fn trees() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees")
}

/// A directory that is gone with this.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tune-test-{name}-{}-{count}", std::process::id());
        // Hundreds of small files: in memory where there is such a place.
        let shm = Path::new("/dev/shm");
        let top = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let path = top.join(name);
        fs::create_dir_all(&path).expect("room");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A recorded host, unpacked, with its journal beside it.
#[derive(Debug)]
pub(crate) struct Host {
    dir: Dir,
}

impl Host {
    /// Unpacks the one of this name.
    pub(crate) fn unpack(name: &str) -> Self {
        let host = Self { dir: Dir::new(name) };
        fs::create_dir(host.root()).expect("room");
        let file = trees().join(format!("{name}.tree"));
        tuning::record::unpack(&file, &host.root()).expect("a host");
        host
    }

    /// Unpacks a text.
    pub(crate) fn of_text(name: &str, text: &str) -> Self {
        let host = Self { dir: Dir::new(name) };
        let file = host.dir.path().join("host.tree");
        fs::write(&file, text).expect("room");
        fs::create_dir(host.root()).expect("room");
        tuning::record::unpack(&file, &host.root()).expect("a host");
        host
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.path().join("journal.json")
    }

    /// The command on this host: `args` come behind `command`, before the options for the place.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tune(args);
        command.arg("--root").arg(self.root());
        if ["apply", "revert", "measure"].contains(&args[0]) {
            command.arg("--journal").arg(self.journal());
        }
        command
    }

    /// Its exit code and what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String) {
        result(&self.command(args).output().expect("it starts"))
    }

    /// Every file with its text and its mode, and every directory.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut all = BTreeMap::new();
        walk(&self.root(), &mut |path, metadata| {
            let text =
                if metadata.is_file() { fs::read(path).expect("readable") } else { Vec::new() };
            all.insert(path.to_owned(), (metadata.permissions().mode(), text));
        });
        assert!(all.len() > 60, "only {} files", all.len());
        all
    }

    /// When each file was written last.
    pub(crate) fn times(&self) -> BTreeMap<PathBuf, SystemTime> {
        let mut all = BTreeMap::new();
        walk(self.dir.path(), &mut |path, metadata| {
            if metadata.is_file() {
                all.insert(path.to_owned(), metadata.modified().expect("a time"));
            }
        });
        all
    }
}

fn walk(dir: &Path, see: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let metadata = entry.metadata().expect("it is there");
        see(&entry.path(), &metadata);
        if metadata.is_dir() {
            walk(&entry.path(), see);
        }
    }
}

/// The command with nothing in its environment: no PATH, no HOME, no locale.
pub(crate) fn tune(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
    command.args(args).env_clear();
    command
}

/// The exit code, and what was printed: errors if there are any.
pub(crate) fn result(output: &Output) -> (i32, String) {
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let code = output.status.code().expect("it was not killed");
    (code, String::from_utf8(text.clone()).expect("text"))
}

/// Compares with a file of `tests/golden`, or writes it when `TUNE_GOLDEN` is `write`.
pub(crate) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("TUNE_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, text).expect("room");
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        wanted == text,
        "{name} is not as it was; TUNE_GOLDEN=write cargo test -p tuning writes it anew.\n--- was\n{wanted}\n--- is\n{text}"
    );
}
