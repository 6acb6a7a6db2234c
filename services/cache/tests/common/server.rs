//! Starting and stopping servers: ours, and a redis-server to compare with.
//!
//! Next: `testing` for the process behind a [`Server`].

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use testing::Process;
pub(crate) use testing::{free_ports, local};

use super::resp::{Client, Reply};

/// A server process of a test.
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
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
        if !options.contains(&"--dir") {
            command.arg("--dir").arg(fresh_directory(port));
        }
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
        Self::redis_at(free_ports(1), options)
    }

    /// The same at a given port, where the version is known to be the right one.
    pub(crate) fn redis_at(port: u16, options: &[&str]) -> Result<Self, String> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        command.arg(port.to_string()).args(options).stdout(Stdio::null());
        Self::start(command, port)
    }

    /// Our `cache` binary with these arguments alone, once it answers at `port`.
    pub(crate) fn cache_as(arguments: &[&str], port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cache"));
        command.args(arguments).stdout(Stdio::null());
        Self::start(command, port).unwrap_or_else(|error| panic!("cache binary: {error}"))
    }

    fn start(command: Command, port: u16) -> Result<Self, String> {
        let address = local(port);
        let process = Process::start(command, &scratch(), || answers(address))?;
        Ok(Self { process, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
            .unwrap_or_else(|error| panic!("connect {}: {error}; {}", self.address, self.log()))
    }

    /// True when the server answers PING now.
    pub(crate) fn answers(&self) -> bool {
        answers(self.address)
    }

    /// What the server wrote to stderr.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Resident memory in bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.process.rss_bytes()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// The exit status, when the server ends within `wait`.
    pub(crate) fn wait(&mut self, wait: Duration) -> Option<ExitStatus> {
        self.process.wait(wait)
    }
}

/// True when a server answers PING there now.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut client) = Client::connect(address) else {
        return false;
    };
    match client.call(&["PING"]) {
        Ok(Reply::Simple(text)) => text == b"PONG",
        // It is there, and wants a password.
        Ok(Reply::Error(text)) => text.starts_with(b"NOAUTH"),
        _ => false,
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

/// An empty directory for the dump of a server that nobody has told where to put it.
fn fresh_directory(port: u16) -> PathBuf {
    let path = scratch().join(format!("dump-{port}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
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
