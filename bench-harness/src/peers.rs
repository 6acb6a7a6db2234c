//! The servers that can be compared: how each is started, when it is ready, what it speaks.
//!
//! One table row a server. Invariants: servers listen on loopback only and keep nothing on disk;
//! one that is missing is a row that says so, never a failed run. Next: `process` starts them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
pub use crate::load::protocol::Protocol;
use crate::process::{self, CommandLine, Server};

/// How long a server may take until it answers.
const READY_NS: u64 = 10 * SECOND_NS;
/// What each may hold beside its standard connections: row 6 opens 10,000.
const MAX_CLIENTS: &str = "12000";

/// Where a server's program is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// On PATH, or at this path.
    Path(&'static str),
    /// Beside this program.
    Sibling(&'static str),
    /// Below `clients/` next to the directory of this program, where install scripts put what they fetch.
    Fetched(&'static str),
    /// This program.
    Own,
}

impl Program {
    /// Its path, or its name on PATH.
    ///
    /// # Errors
    /// The path of this program cannot be told.
    pub(crate) fn path(self) -> Result<String> {
        let own = std::env::current_exe().context("the path of this program")?;
        let path = match self {
            Self::Path(name) => return Ok(name.to_owned()),
            Self::Own => own,
            Self::Sibling(name) => own.with_file_name(name),
            Self::Fetched(name) => own.with_file_name("../clients").join(name),
        };
        Ok(path.to_string_lossy().into_owned())
    }
}

/// A server that can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What it speaks.
    pub protocol: Protocol,
    program: Program,
    /// Arguments; `{port}`, `{admin}` (another port), `{shards}`, `{cpus}`, `{data}` (a fresh
    /// directory) and `{buffer}` are replaced.
    args: &'static [&'static str],
    version: Version,
}

/// How a server's version is found.
#[derive(Clone, Copy, Debug)]
enum Version {
    /// The first line its program prints for `--version`.
    Flag,
    /// This program, and the package of the runtime in it.
    Runtime(&'static str),
}

/// The packages this program was built from.
const LOCK: &str = include_str!("../../Cargo.lock");

fn locked_version(package: &str) -> Option<&'static str> {
    let entry = LOCK
        .split("[[package]]")
        .find(|entry| entry.lines().any(|line| line.trim() == format!("name = \"{package}\"")))?;
    entry
        .lines()
        .find_map(|line| line.strip_prefix("version = "))
        .map(|text| text.trim_matches('"'))
}

/// A package this program was built from, with its version.
pub(crate) fn built_with(package: &str) -> String {
    format!("{package} {}", locked_version(package).unwrap_or("unknown"))
}

const REDIS_ARGS: &[&str] = &[
    "--port",
    "{port}",
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--appendonly",
    "no",
    "--protected-mode",
    "no",
    "--maxclients",
    MAX_CLIENTS,
    "--tcp-backlog",
    "4096",
];
const OURS_ARGS: &[&str] = &[
    "--cache",
    "127.0.0.1:{port}",
    "--admin",
    "127.0.0.1:{admin}",
    "--shards",
    "{shards}",
    "--cpus",
    "{cpus}",
    "--max-clients",
    MAX_CLIENTS,
];

macro_rules! hosted {
    ($runtime:literal) => {
        &[
            "host",
            $runtime,
            "--addr",
            "127.0.0.1:{port}",
            "--session",
            "cache",
            "--read-buffer",
            "{buffer}",
        ]
    };
    ($runtime:literal, echo) => {
        &[
            "host",
            $runtime,
            "--addr",
            "127.0.0.1:{port}",
            "--session",
            "echo",
            "--read-buffer",
            "{buffer}",
        ]
    };
}

/// All of them.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "shardd",
        about: "ours: every service in one process, the cache alone here",
        protocol: Protocol::Resp,
        program: Program::Sibling("shardd"),
        args: OURS_ARGS,
        version: Version::Flag,
    },
    Peer {
        name: "cache",
        about: "ours: the cache as a process of its own",
        protocol: Protocol::Resp,
        program: Program::Sibling("cache"),
        args: OURS_ARGS,
        version: Version::Flag,
    },
    Peer {
        name: "redis",
        about: "redis-server, no persistence",
        protocol: Protocol::Resp,
        program: Program::Path("redis-server"),
        args: REDIS_ARGS,
        version: Version::Flag,
    },
    Peer {
        name: "valkey",
        about: "valkey-server, no persistence",
        protocol: Protocol::Resp,
        program: Program::Path("valkey-server"),
        args: REDIS_ARGS,
        version: Version::Flag,
    },
    Peer {
        name: "memcached",
        about: "memcached, one worker thread, text protocol",
        protocol: Protocol::Memcache,
        program: Program::Path("memcached"),
        args: &[
            "-l",
            "127.0.0.1",
            "-p",
            "{port}",
            "-U",
            "0",
            "-t",
            "1",
            "-m",
            "4096",
            "-c",
            MAX_CLIENTS,
            "-u",
            "root",
        ],
        version: Version::Flag,
    },
    Peer {
        name: "monoio",
        about: "our cache session on monoio as shipped",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("monoio"),
        version: Version::Runtime("monoio"),
    },
    Peer {
        name: "monoio-defer",
        about: "our cache session on monoio with DEFER_TASKRUN",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("monoio-defer"),
        version: Version::Runtime("monoio"),
    },
    Peer {
        name: "glommio",
        about: "our cache session on glommio",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("glommio"),
        version: Version::Runtime("glommio"),
    },
    Peer {
        name: "tokio",
        about: "our cache session on tokio's current-thread runtime",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("tokio"),
        version: Version::Runtime("tokio"),
    },
    Peer {
        name: "engine",
        about: "our cache session on our engine, in this program as on the other runtimes",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("engine"),
        version: Version::Runtime("engine"),
    },
    Peer {
        name: "echo-monoio",
        about: "a minimal session on monoio, for trying the harness",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("monoio", echo),
        version: Version::Runtime("monoio"),
    },
    Peer {
        name: "echo-monoio-defer",
        about: "a minimal session on monoio with DEFER_TASKRUN",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("monoio-defer", echo),
        version: Version::Runtime("monoio"),
    },
    Peer {
        name: "echo-glommio",
        about: "a minimal session on glommio",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("glommio", echo),
        version: Version::Runtime("glommio"),
    },
    Peer {
        name: "echo-tokio",
        about: "a minimal session on tokio",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("tokio", echo),
        version: Version::Runtime("tokio"),
    },
    Peer {
        name: "echo-engine",
        about: "a minimal session on our engine",
        protocol: Protocol::Resp,
        program: Program::Own,
        args: hosted!("engine", echo),
        version: Version::Runtime("engine"),
    },
];

/// The row named `name`.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name).with_context(|| {
        let names: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        format!("no server is called {name}; there are {}", names.join(", "))
    })
}

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its port.
    pub port: u16,
    /// A second port next to it, for an admin listener.
    pub admin: u16,
    /// Shards, where the server has them.
    pub shards: usize,
    /// CPUs it may use.
    pub cpus: Vec<usize>,
    /// Read buffer of each connection on a foreign runtime, in bytes.
    pub read_buffer: usize,
    /// Where the load generator runs.
    pub client_cpu: usize,
    /// Real-time priority for the server.
    pub fifo: bool,
}

impl Place {
    /// The address of the server's (shared) port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The address of the admin listener.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.admin))
    }
}

impl Peer {
    /// What its program says of its version.
    ///
    /// # Errors
    /// It is not there; the text says what is missing.
    pub fn version(&self) -> Result<String> {
        match self.version {
            Version::Flag => process::first_line(&self.program.path()?, &["--version"]),
            Version::Runtime(package) => Ok(built_with(package)),
        }
    }

    /// The command that starts it.
    ///
    /// # Errors
    /// The path of this program cannot be told.
    pub fn command(&self, place: &Place) -> Result<CommandLine> {
        let cpus: Vec<String> = place.cpus.iter().map(ToString::to_string).collect();
        let fill = |arg: &&str| {
            arg.replace("{port}", &place.port.to_string())
                .replace("{admin}", &place.admin.to_string())
                .replace("{shards}", &place.shards.to_string())
                .replace("{cpus}", &cpus.join(","))
                .replace("{buffer}", &place.read_buffer.to_string())
        };
        Ok(CommandLine {
            program: self.program.path()?,
            args: self.args.iter().map(fill).collect(),
        })
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It is missing, ends at once, or does not answer in time.
    pub fn start(&self, place: &Place) -> Result<Server> {
        let command = self.command(place)?;
        let mut server = Server::start(&command, &place.cpus, place.client_cpu)?;
        let deadline = clock::mono_ns() + READY_NS;
        loop {
            if let Some(end) = server.ended() {
                bail!("{command} ended: {end}");
            }
            match answers(self.protocol, place.addr()) {
                Ok(()) => break,
                Err(error) if clock::mono_ns() > deadline => {
                    return Err(error.context(format!("{command} does not answer")));
                }
                Err(_) => clock::sleep_ns(5 * MILLISECOND_NS),
            }
        }
        if place.fifo {
            process::make_fifo(server.pid())?;
        }
        Ok(server)
    }
}

/// One request that every server of the protocol answers.
fn answers(protocol: Protocol, addr: SocketAddr) -> Result<()> {
    let (request, reply) = protocol.probe();
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(request)?;
    let mut got = vec![0; reply.len()];
    stream.read_exact(&mut got)?;
    if got != reply {
        bail!("{addr} answered {:?}", String::from_utf8_lossy(&got));
    }
    Ok(())
}

/// One GET on an HTTP admin port: the body.
///
/// # Errors
/// Nobody answers there, or not with 200.
pub fn http_get(addr: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(16 << 20).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the header")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        bail!("GET {path}: {status}");
    }
    Ok(body.to_owned())
}

/// The sum of all samples of one metric in Prometheus text.
#[must_use]
pub fn metric_sum(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if rest.starts_with(['{', ' '])
            && let Some(value) = rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok())
        {
            *sum.get_or_insert(0.0) += value;
        }
    }
    sum
}

/// Hands out ports of a range in turn, so a new server never meets the last one's lingering
/// connections.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    count: u16,
    next: u16,
}

impl Ports {
    /// Ports `first` to `last`.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Self {
        Self { first, count: last.saturating_sub(first) + 1, next: 0 }
    }

    /// The first of `count` ports in a row.
    pub const fn take(&mut self, count: u16) -> u16 {
        if self.next + count > self.count {
            self.next = 0;
        }
        let port = self.first + self.next;
        self.next += count;
        port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            port: 22_900,
            admin: 22_901,
            shards: 2,
            cpus: vec![0, 1],
            read_buffer: 4096,
            client_cpu: 1,
            fifo: false,
        }
    }

    #[test]
    fn every_template_is_filled() {
        for peer in PEERS {
            let command = peer.command(&place()).expect("a path").to_string();
            assert!(command.contains("22900"), "{command}");
            assert!(!command.contains('{'), "{command}");
            assert!(find(peer.name).is_ok());
        }
        assert!(find("nobody").expect_err("unknown").to_string().contains("redis"));
    }

    #[test]
    fn runtimes_have_the_version_they_were_built_from() {
        let version = find("monoio-defer").expect("a row").version().expect("locked");
        assert!(version.starts_with("monoio 0."), "{version}");
        assert_eq!(locked_version("no-such-package"), None);
    }

    #[test]
    fn metrics_are_summed_over_labels() {
        let text =
            "# HELP a_total x\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\na_total_b 9\n";
        assert_eq!(metric_sum(text, "a_total"), Some(7.0));
        assert_eq!(metric_sum(text, "missing"), None);
    }

    #[test]
    fn ports_go_round_within_their_range() {
        let mut ports = Ports::new(100, 109);
        let taken: Vec<u16> = (0..4).map(|_| ports.take(4)).collect();
        assert_eq!(taken, [100, 104, 100, 104]);
    }
}
