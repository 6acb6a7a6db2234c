//! What is to be ended and removed when this process is interrupted.
//!
//! Why: a terminal's interrupt ends this process before any destructor runs, and a server that is
//! left over holds its port, its core and its directory. A thread of its own waits for signals,
//! ends what is listed here, and then lets the signal do what it always did. Against what cannot be
//! caught, children are asked to die with the thread that started them (`start`). Invariants: only
//! what was started here is listed; from a signal on nothing more can be started. Next: `start`.

use std::fs;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::clock::{self, MILLISECOND_NS, SECOND_NS};

/// How long servers may take to stop when this process is interrupted.
const STOP_NS: u64 = 2 * SECOND_NS;

/// A server and what goes with it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) pid: u32,
    /// Files and directories.
    pub(super) paths: Vec<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct List(Vec<Kept>);

impl List {
    pub(super) fn add(&mut self, kept: Kept) {
        self.0.push(kept);
    }

    pub(super) fn remove(&mut self, pid: u32) {
        self.0.retain(|kept| kept.pid != pid);
    }
}

/// The list, with the thread that heeds it.
static LIST: LazyLock<Mutex<List>> = LazyLock::new(|| {
    match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => wait_in_background(signals),
        // Then an interrupt does what it does to any process.
        Err(error) => eprintln!("servers outlive an interrupt: {error}"),
    }
    Mutex::new(List::default())
});

/// The list, for as long as nobody else may look at it.
pub(super) fn list() -> MutexGuard<'static, List> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_in_background(mut signals: Signals) {
    #[expect(clippy::disallowed_methods, reason = "it only ever waits for a signal")]
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Never given back, so that nothing is started any more.
            let list = list();
            end_all(&list.0);
            // It ends this process, as if nobody had listened.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}

fn end_all(list: &[Kept]) {
    let pids: Vec<Pid> =
        list.iter().filter_map(|kept| i32::try_from(kept.pid).ok()).map(Pid::from_raw).collect();
    for &pid in &pids {
        // ESRCH: it has just ended.
        let _ = kill(pid, Signal::SIGTERM);
    }
    let deadline_ns = clock::mono_ns() + STOP_NS;
    let runs = |pid: Pid| {
        waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok_and(|state| state == WaitStatus::StillAlive)
    };
    for pid in pids {
        while runs(pid) && clock::mono_ns() < deadline_ns {
            clock::sleep_ns(5 * MILLISECOND_NS);
        }
        if runs(pid) {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
    for path in list.iter().flat_map(|kept| &kept.paths) {
        remove(path);
    }
}

/// Removes a file or a directory with what is in it.
pub(super) fn remove(path: &std::path::Path) {
    // Only space is lost if it stays.
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}
