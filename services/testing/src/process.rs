//! Processes of a test, and ports for them.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// First port of the range the tests use, and how many there are.
const PORTS: (u16, u16) = (21_000, 960);

/// How long a server may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Characters of its log that a process of a failed test shows.
const LOG_SHOWN: usize = 4_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port with `count` free ports from it on.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_ports(count: u16) -> u16 {
    let (first, range) = PORTS;
    for _ in 0..range {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // The pid spreads test binaries that run side by side over the range.
        let at = (std::process::id().wrapping_mul(97).wrapping_add(step * 11)) % u32::from(range);
        let port = first + u16::try_from(at).expect("below the range");
        let listeners: Vec<_> =
            (port..port + count).map(|port| TcpListener::bind(local(port))).collect();
        if listeners.iter().all(Result::is_ok) {
            return port;
        }
    }
    panic!("no {count} free ports in {first}..{}", first + range);
}

/// Whether nobody listens any more on `count` ports from `port` on, after waiting for it. The kernel takes down the ring
/// of a process that was killed after its end, and with it what had operations in flight: its listeners take connections
/// until then, and reset them.
#[must_use]
pub fn are_closed(port: u16, count: u16) -> bool {
    let deadline = Instant::now() + START_TIMEOUT;
    let is_open = |port: u16| TcpStream::connect(local(port)).is_ok();
    while (port..port + count).any(is_open) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// The loopback address of a port.
#[must_use]
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A process of a test, in a directory of its own.
#[derive(Debug)]
pub struct Process {
    child: Child,
    directory: PathBuf,
}

impl Process {
    /// Starts `command` in a new directory below `scratch`, and waits until it is `ready`.
    ///
    /// # Errors
    /// It ended, or was not ready in time.
    pub fn start(
        mut command: Command,
        scratch: &Path,
        mut ready: impl FnMut() -> bool,
    ) -> Result<Self, String> {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = scratch.join(format!("server-{}-{step}", std::process::id()));
        fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let log = File::create(directory.join("stderr"))
            .map_err(|error| format!("stderr file: {error}"))?;
        command.current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut process = Self { child, directory };
        let deadline = Instant::now() + START_TIMEOUT;
        while !ready() {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(format!("{command:?} ended with {status}: {}", process.log()));
            }
            if Instant::now() > deadline {
                let log = process.log();
                return Err(format!("{command:?} was not ready in {START_TIMEOUT:?}: {log}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When it is not alive.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the server is alive");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS in /proc/pid/status");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number of kB");
        kib * 1024
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn terminate(&self) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.pid())).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -TERM failed");
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        // One that has ended is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit status, when it ends within `wait`.
    pub fn wait(&mut self, wait: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + wait;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let tail = log.char_indices().rev().nth(LOG_SHOWN).map_or(0, |(at, _)| at);
            eprintln!("the last of what process {} wrote:\n{}", self.child.id(), &log[tail..]);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
