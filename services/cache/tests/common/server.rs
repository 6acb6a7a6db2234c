//! Starting and stopping servers: ours, and a redis-server to compare with.
//!
//! Invariants: a [`Server`] is killed by its own pid and its directory removed when it is dropped, also
//! when the test panics; ports come from a range below the ephemeral ports.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::resp::{Client, Reply};

/// First port of the range the tests use, and how many there are.
const PORTS: (u16, u16) = (21_000, 960);

/// How long a server may take until it answers PING.
const START_TIMEOUT: Duration = Duration::from_secs(10);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port with `count` free ports from it on.
pub(crate) fn free_ports(count: u16) -> u16 {
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

/// The loopback address of a port.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A server process of a test.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Server {
    /// Our `cache` binary with this many shards.
    pub(crate) fn cache(shards: u16) -> Self {
        Self::cache_with(shards, &[])
    }

    /// The same with further options.
    pub(crate) fn cache_with(shards: u16, options: &[&str]) -> Self {
        Self::cache_at(free_ports(shards + 2), shards, options)
    }

    /// The same at a given port; shard k listens on `port + 1 + k`, admin behind the last.
    pub(crate) fn cache_at(port: u16, shards: u16, options: &[&str]) -> Self {
        let mut command = cache_command(port, shards);
        command.args(options);
        Self::start(command, port).unwrap_or_else(|error| panic!("cache binary: {error}"))
    }

    /// A redis-server with this many options, or why there is none.
    pub(crate) fn redis(options: &[&str]) -> Result<Self, String> {
        let version = Command::new("redis-server").arg("--version").output();
        let version =
            version.map_err(|error| format!("redis-server is not installed ({error})"))?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        if !version.contains("v=7.0.15") {
            return Err(format!("redis-server 7.0.15 is needed, found {}", version.trim()));
        }
        let port = free_ports(1);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        command.arg(port.to_string()).args(options).stdout(Stdio::null());
        Self::start(command, port)
    }

    fn start(mut command: Command, port: u16) -> Result<Self, String> {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = scratch().join(format!("server-{}-{step}", std::process::id()));
        fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let log = File::create(directory.join("stderr"))
            .map_err(|error| format!("stderr file: {error}"))?;
        command.current_dir(&directory).stdin(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut server = Self { child, address: local(port), directory };
        let deadline = Instant::now() + START_TIMEOUT;
        while !server.answers() {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("{command:?} ended with {status}: {}", server.log()));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{command:?} did not answer in {START_TIMEOUT:?}: {}",
                    server.log()
                ));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
            .unwrap_or_else(|error| panic!("connect {}: {error}; {}", self.address, self.log()))
    }

    /// True when the server answers PING now.
    pub(crate) fn answers(&self) -> bool {
        let Ok(mut client) = Client::connect(self.address) else {
            return false;
        };
        matches!(client.call(&["PING"]), Ok(Reply::Simple(text)) if text == b"PONG")
    }

    /// What the server wrote to stderr.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
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
    pub(crate) fn terminate(&self) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.pid())).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -TERM failed");
    }

    /// The exit status, when the server ends within `wait`.
    pub(crate) fn wait(&mut self, wait: Duration) -> Option<ExitStatus> {
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

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The command line of our server, not started.
pub(crate) fn cache_command(port: u16, shards: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache"));
    command.arg("--cache").arg(local(port).to_string());
    command.arg("--admin").arg(local(port + 1 + shards).to_string());
    command.arg("--shards").arg(shards.to_string());
    command.stdout(Stdio::null());
    command
}

/// The directory for files of a test run, below the target directory.
pub(crate) fn scratch() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache-tests");
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// Holds back other test binaries of this crate: measurements of time want the machine for themselves.
pub(crate) struct Turn(File);

impl Turn {
    /// Waits until no other test runs, and keeps them waiting.
    pub(crate) fn alone() -> Self {
        let file = Self::file();
        file.lock().unwrap_or_else(|error| panic!("lock: {error}"));
        Self(file)
    }

    /// Waits only for tests that want to be alone.
    pub(crate) fn shared() -> Self {
        let file = Self::file();
        file.lock_shared().unwrap_or_else(|error| panic!("lock: {error}"));
        Self(file)
    }

    fn file() -> File {
        let path = scratch().join("turn");
        File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Asserts that an I/O result is there, with what was attempted.
pub(crate) fn must<T>(result: io::Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
