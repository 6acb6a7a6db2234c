//! The brokers that can be compared: how each is started, with what configuration, and what is left to end.
//!
//! One table row a broker, as in [`crate::peers`]. Invariants: brokers listen on loopback only; what they keep is in a directory
//! of the trial's that goes with it; one that is missing is a row that says so. Next: `process` starts them.

use std::borrow::Cow;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::speak::Protocol;
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::peers::Program;
use crate::process::{self, CommandLine, Server};

/// How long a broker may take until it listens.
const READY_NS: u64 = 30 * SECOND_NS;

/// A broker that can be compared. In texts `{port}`, `{second}` and `{third}` (two more ports), `{cpu}` and `{data}` (a directory
/// of the trial's) are replaced.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) protocol: Protocol,
    /// Topics are made so that acknowledged means on disk, as far as the workload wants that; else it is the system's
    /// to write.
    pub(super) sync: bool,
    program: Program,
    args: &'static [&'static str],
    version_args: &'static [&'static str],
    /// Variables of its environment.
    env: &'static [(&'static str, &'static str)],
    /// Files of `{data}` that are there when it starts.
    files: &'static [(&'static str, &'static str)],
    /// What to run when it has ended.
    after: &'static [&'static str],
}

const OURS_ARGS: &[&str] = &[
    "--broker",
    "127.0.0.1:{port}",
    "--admin",
    "off",
    "--data",
    "{data}",
    "--shards",
    "1",
    "--cpus",
    "{cpu}",
];
const NATS_ARGS: &[&str] = &["-c", "{data}/nats.conf"];
const NATS_CONFIG: &str = "listen: \"127.0.0.1:{port}\"\n\
    jetstream { store_dir: \"{data}/jetstream\", max_file_store: 256G, max_memory_store: 256M }\n";
/// As above, with a sync before each acknowledgement.
const NATS_SYNC_CONFIG: &str = "listen: \"127.0.0.1:{port}\"\n\
    jetstream { store_dir: \"{data}/jetstream\", max_file_store: 256G, max_memory_store: 256M, \
    sync_interval: always }\n";
const NATS_PROGRAM: Program = Program::Fetched(Cow::Borrowed("nats-server/bin/nats-server"));

/// All of them, ours first.
pub(super) const PEERS: &[Peer] = &[
    Peer {
        name: "broker",
        about: "ours, one shard, synced before the acknowledgement",
        protocol: Protocol::Kafka,
        sync: true,
        program: Program::Sibling(Cow::Borrowed("broker")),
        args: OURS_ARGS,
        version_args: &["--version"],
        env: &[],
        files: &[],
        after: &[],
    },
    Peer {
        name: "broker-os",
        about: "ours, one shard, topics with flush.mode=os: for those that do not sync",
        protocol: Protocol::Kafka,
        sync: false,
        program: Program::Sibling(Cow::Borrowed("broker")),
        args: OURS_ARGS,
        version_args: &["--version"],
        env: &[],
        files: &[],
        after: &[],
    },
    Peer {
        name: "nats-sync",
        about: "NATS JetStream of today, sync_interval: always",
        protocol: Protocol::Nats,
        sync: true,
        program: NATS_PROGRAM,
        args: NATS_ARGS,
        version_args: &["--version"],
        env: &[],
        files: &[("nats.conf", NATS_SYNC_CONFIG)],
        after: &[],
    },
    Peer {
        name: "nats",
        about: "NATS JetStream of today, synced every two minutes",
        protocol: Protocol::Nats,
        sync: false,
        program: NATS_PROGRAM,
        args: NATS_ARGS,
        version_args: &["--version"],
        env: &[],
        files: &[("nats.conf", NATS_CONFIG)],
        after: &[],
    },
    Peer {
        name: "nats-debian",
        about: "NATS JetStream of Debian 12, which cannot sync each message",
        protocol: Protocol::Nats,
        sync: false,
        program: Program::Path(Cow::Borrowed("nats-server")),
        args: NATS_ARGS,
        version_args: &["--version"],
        env: &[],
        files: &[("nats.conf", NATS_CONFIG)],
        after: &[],
    },
    Peer {
        name: "rabbitmq",
        about: "RabbitMQ streams of Debian 12, which leave syncing to the system",
        protocol: Protocol::Stream,
        sync: false,
        program: Program::Path(Cow::Borrowed("/usr/lib/rabbitmq/bin/rabbitmq-server")),
        args: &[],
        version_args: &[],
        env: &[
            ("RABBITMQ_NODENAME", "bench{port}@localhost"),
            // The server in this process instead of one beside it.
            ("RABBITMQ_ALLOW_INPUT", "1"),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-noinput"),
            ("RABBITMQ_CONFIG_FILE", "{data}/rabbitmq.conf"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "{data}/enabled_plugins"),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null"),
            ("RABBITMQ_MNESIA_BASE", "{data}/mnesia"),
            ("RABBITMQ_LOG_BASE", "{data}/log"),
            ("RABBITMQ_PID_FILE", "{data}/pid"),
            ("RABBITMQ_DIST_PORT", "{third}"),
            ("ERL_EPMD_PORT", "{second}"),
            ("ERL_EPMD_ADDRESS", "127.0.0.1"),
            ("HOME", "{data}"),
        ],
        files: &[
            ("enabled_plugins", "[rabbitmq_stream].\n"),
            (
                "rabbitmq.conf",
                "listeners.tcp = none\nstream.listeners.tcp.1 = 127.0.0.1:{port}\n\
                 log.console = true\nlog.console.level = error\nlog.file = false\n\
                 disk_free_limit.absolute = 1MB\n",
            ),
        ],
        after: &["epmd", "-port", "{second}", "-kill"],
    },
];

/// The row named `name`.
pub(super) fn find(name: &str) -> Result<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name).with_context(|| {
        let names: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        format!("no broker is called {name}; there are {}", names.join(", "))
    })
}

/// Where a broker runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its port; two more follow.
    pub(super) port: u16,
    /// Its core.
    pub(super) cpu: usize,
    /// The load's core.
    pub(super) client_cpu: usize,
    /// The directory of the trial, on the disk to be measured.
    pub(super) data: PathBuf,
}

impl Place {
    fn fill(&self, text: &str) -> String {
        text.replace("{port}", &self.port.to_string())
            .replace("{second}", &(self.port + 1).to_string())
            .replace("{third}", &(self.port + 2).to_string())
            .replace("{cpu}", &self.cpu.to_string())
            .replace("{data}", &self.data.to_string_lossy())
    }
}

/// A broker that runs; ended, and its directory removed, when dropped.
pub(super) struct Running {
    server: Server,
    addr: SocketAddr,
    data: PathBuf,
    after: Vec<String>,
}

impl Running {
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) const fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.stop();
        if let Some((program, args)) = self.after.split_first() {
            // What it ends may have ended by itself.
            let _ = Command::new(program).args(args).stdout(Stdio::null()).status();
        }
        // Only space is lost if it stays.
        let _ = fs::remove_dir_all(&self.data);
    }
}

impl Peer {
    /// What its program says of its version; the path where it has no word for it.
    pub(super) fn version(&self) -> Result<String> {
        let program = self.program.path()?;
        if self.version_args.is_empty() {
            if !Path::new(&program).exists() {
                bail!("{program} is not installed");
            }
            return Ok(program);
        }
        process::first_line(&program, self.version_args)
    }

    fn command(&self, place: &Place) -> Result<CommandLine> {
        let program = self.program.path()?;
        let args = self.args.iter().map(|arg| place.fill(arg));
        if self.env.is_empty() {
            return Ok(CommandLine { program, args: args.collect() });
        }
        let variables =
            self.env.iter().map(|(name, value)| format!("{name}={}", place.fill(value)));
        let args = variables.chain(std::iter::once(program)).chain(args).collect();
        Ok(CommandLine { program: "env".to_owned(), args })
    }

    /// Starts it in an empty directory and waits until it listens.
    pub(super) fn start(&self, place: &Place) -> Result<Running> {
        self.version()?;
        if place.data.exists() {
            fs::remove_dir_all(&place.data)
                .with_context(|| format!("empty {}", place.data.display()))?;
        }
        fs::create_dir_all(&place.data)
            .with_context(|| format!("create {}", place.data.display()))?;
        for (name, text) in self.files {
            let path = place.data.join(name);
            fs::write(&path, place.fill(text))
                .with_context(|| format!("write {}", path.display()))?;
        }
        let command = self.command(place)?;
        let server = Server::start(&command, &[place.cpu], place.client_cpu)?;
        let mut running = Running {
            server,
            addr: SocketAddr::from(([127, 0, 0, 1], place.port)),
            data: place.data.clone(),
            after: self.after.iter().map(|word| place.fill(word)).collect(),
        };
        let deadline = clock::mono_ns() + READY_NS;
        while TcpStream::connect(running.addr).is_err() {
            if let Some(end) = running.server.ended() {
                bail!("{command} ended: {end}");
            }
            if clock::mono_ns() > deadline {
                bail!("{command} does not listen");
            }
            clock::sleep_ns(10 * MILLISECOND_NS);
        }
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled() {
        let place =
            Place { port: 23_900, cpu: 0, client_cpu: 1, data: PathBuf::from("/nowhere/data") };
        for peer in PEERS {
            let command = peer.command(&place).expect("a path").to_string();
            let files = peer.files.iter().map(|(_, text)| place.fill(text)).collect::<String>();
            for text in [&command, &files] {
                for name in ["{port}", "{second}", "{third}", "{cpu}", "{data}"] {
                    assert!(!text.contains(name), "{text}");
                }
            }
            assert!(format!("{command}{files}").contains("23900"), "{command}{files}");
            assert!(find(peer.name).is_ok());
        }
        assert!(find("nobody").expect_err("unknown").to_string().contains("rabbitmq"));
    }
}
