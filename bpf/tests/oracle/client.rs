//! A process of its own on the client's host, in the lab's control group or beside it: this executable once more, as
//! `oracle client HOST GROUP ROLE TOLD`.
//!
//! A control group has processes and not threads. Invariants: a client is on its host and in its group before its role begins; it
//! is killed when it is dropped.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use serde_json::Value;

use crate::lab::{self, Lab};
use crate::workloads;

/// What a client does: it is told something, and has something to tell.
pub(crate) type Role = fn(&Value) -> Value;

const WORD: &str = "client";
const READY: &str = "ready";
const NO_GROUP: &str = "-";

/// Plays a client, if this process was started to be one.
pub(crate) fn main() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, host, group, role, told] = &words[..] else { return None };
    if word != WORD {
        return None;
    }
    if group != NO_GROUP {
        std::fs::write(format!("{group}/cgroup.procs"), "0").expect("the group is there");
    }
    lab::enter(host);
    let told = serde_json::from_str(told).expect("JSON");
    println!("{}", workloads::role(role)(&told));
    Some(ExitCode::SUCCESS)
}

/// In a role: says that all is set up, and waits until the lab says go.
pub(crate) fn ready() {
    println!("{READY}");
    std::io::stdin().lock().read_line(&mut String::new()).expect("a line");
}

/// A client that runs.
pub(crate) struct Client {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// Starts one, in the control group or not.
    pub(crate) fn start(lab: &Lab, is_member: bool, role: &str, told: &Value) -> Self {
        let group = if is_member { lab.cgroup.display().to_string() } else { NO_GROUP.to_owned() };
        let mut child = Command::new(std::env::current_exe().expect("this file"))
            .args([WORD, &lab.client, &group, role, &told.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this file is run");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, stdin, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the client has not panicked").expect("text")
    }

    /// Waits until it is ready.
    pub(crate) fn wait_ready(&mut self) {
        assert_eq!(self.line(), READY);
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        self.stdin.write_all(b"go\n").expect("it waits");
    }

    /// Waits for what it tells, and its end.
    pub(crate) fn finish(mut self) -> Value {
        let told = serde_json::from_str(&self.line()).expect("JSON");
        assert!(self.child.wait().expect("it ended").success());
        told
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
