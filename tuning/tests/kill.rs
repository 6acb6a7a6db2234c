//! `tune apply` killed by SIGKILL between its journal and a write, and between a write and reading it back.
//!
//! One setting of the recorded host is a named pipe: to open it for writing waits for a reader, and for reading it back a
//! writer, so that the process can get no further than where it is to be killed. Nothing here depends on how long anything takes.

#![forbid(unsafe_code)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use common::Host;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// The setting that is a pipe, what it has, and what is written to it.
const SETTING: &str = "/proc/sys/net/core/rps_sock_flow_entries";
const BEFORE: &str = "0\n";
const AFTER: &str = "32768\n";

/// The setting that is written just before, and what it has then.
const PREVIOUS: &str = "/proc/sys/net/core/netdev_max_backlog";
const PREVIOUS_AFTER: &str = "5000\n";

/// Ends the tests when one of them waits at a pipe for a process that does not come.
fn end_in_time() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        drop(thread::spawn(|| {
            thread::sleep(Duration::from_secs(120));
            eprintln!("a process did not open its pipe within two minutes");
            std::process::exit(1);
        }));
    });
}

struct Stopped {
    host: Host,
    was: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    child: Child,
}

/// Starts `apply` and lets it go on until it wants to open the setting for writing.
fn before_the_write() -> Stopped {
    end_in_time();
    let host = Host::unpack("desktop");
    let was = host.snapshot();
    let pipe = host.file(SETTING);
    fs::remove_file(&pipe).expect("it is there");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("room");
    let mut command = host.command(&["apply", "--profile", "latency"]);
    let child = command.stdout(Stdio::null()).spawn().expect("it starts");
    // Waits for its one reading of the value.
    fs::write(&pipe, BEFORE).expect("it reads");
    until("what comes before is written", || {
        fs::read_to_string(host.file(PREVIOUS)).expect("readable") == PREVIOUS_AFTER
    });
    let journal = fs::read_to_string(host.journal()).expect("it is there before any write");
    assert!(journal.contains(SETTING), "{journal}");
    Stopped { host, was, child }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "waited for: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

impl Stopped {
    /// Kills it, and has the setting be a file with this in it.
    fn kill(&mut self, setting: &str) {
        self.child.kill().expect("it is there");
        self.child.wait().expect("it ends");
        let pipe = self.host.file(SETTING);
        fs::remove_file(&pipe).expect("it is there");
        fs::write(&pipe, setting).expect("room");
        assert!(self.host.snapshot() != self.was, "nothing was written: the test shows nothing");
    }

    fn revert(&self) {
        let (code, text) = self.host.run(&["revert"]);
        assert_eq!(code, 0, "{text}");
        assert!(self.host.snapshot() == self.was, "{text}");
        assert!(!self.host.journal().exists());
    }
}

#[test]
fn killed_between_the_journal_and_a_write() {
    let mut stopped = before_the_write();
    stopped.kill(BEFORE);
    stopped.revert();
}

#[test]
fn killed_between_a_write_and_reading_it_back() {
    let mut stopped = before_the_write();
    let written = fs::read_to_string(stopped.host.file(SETTING)).expect("it writes");
    assert_eq!(format!("{}\n", written.trim()), AFTER);
    stopped.kill(AFTER);
    stopped.revert();
}

#[test]
fn killed_and_applied_again_before_it_is_taken_back() {
    for setting in [BEFORE, AFTER] {
        let mut stopped = before_the_write();
        stopped.kill(setting);
        let (code, text) = stopped.host.run(&["apply", "--profile", "throughput"]);
        assert_eq!(code, 3, "{text}");
        stopped.revert();
    }
}
