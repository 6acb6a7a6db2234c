//! Starting brokers for tests.

#[allow(dead_code, reason = "each test binary uses its own part")]
pub(crate) mod client;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use testing::{Process, free_ports, local};

/// A broker of a test, and where its files are.
pub(crate) struct Broker {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) data: Data,
}

/// A directory that is removed with its owner.
pub(crate) struct Data(pub(crate) PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Broker {
    /// A broker with this many shards and further options, on empty files.
    pub(crate) fn start(shards: u16, options: &[&str]) -> Self {
        let port = free_ports(shards + 2);
        let data = Data(scratch().join(format!("data-{}-{port}", std::process::id())));
        let process = process(port, shards, &data.0, options);
        Self { process, port, data }
    }

    /// Starts it again on the same files and port, after it has ended.
    #[allow(dead_code, reason = "not every test binary restarts")]
    pub(crate) fn restart(self, shards: u16, options: &[&str]) -> Self {
        let Self { mut process, port, data } = self;
        process.kill();
        drop(process);
        assert!(
            testing::are_closed(port, shards + 2),
            "ports of a process that has ended stay open"
        );
        let process = self::process(port, shards, &data.0, options);
        Self { process, port, data }
    }

    #[allow(dead_code, reason = "not every test binary uses the shared port")]
    pub(crate) fn address(&self) -> SocketAddr {
        local(self.port)
    }
}

fn process(port: u16, shards: u16, data: &Path, options: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg("--broker").arg(local(port).to_string());
    command.arg("--admin").arg(local(port + 1 + shards).to_string());
    command.arg("--shards").arg(shards.to_string()).arg("--data").arg(data);
    command.args(options);
    // The shared port, and each shard's own.
    let ready = || (port..=port + shards).all(|port| TcpStream::connect(local(port)).is_ok());
    Process::start(command, &scratch(), ready).unwrap_or_else(|error| panic!("broker: {error}"))
}

/// The directory for files of a test run, below the target directory.
pub(crate) fn scratch() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broker-tests");
    std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// A file of users: alice's password is in clear, bob's, which is `pencil`, a verifier (RFC 7677's).
#[allow(dead_code, reason = "not every test binary has users")]
pub(crate) fn users_file() -> String {
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let text = format!("[users.alice]\npassword = 'wonder'\n[users.bob]\nscram = ['{verifier}']\n");
    let path = file("users.toml", &text);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("ours");
    path
}

/// A file of quotas: clients called slow may produce and fetch 2000 bytes a second, and pace ten requests.
#[allow(dead_code, reason = "not every test binary has quotas")]
pub(crate) fn quotas_file() -> String {
    let text = "[clients.slow]\nproduce = 2000\nfetch = 2000\n[clients.pace]\nrequests = 10\n";
    file("quotas.toml", text)
}

fn file(name: &str, text: &str) -> String {
    // Of this process, since test binaries run beside each other.
    let path = scratch().join(format!("{}-{name}", std::process::id()));
    // Written once: a test may read it while another begins.
    if !path.exists() {
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    path.display().to_string()
}
