//! The servers that can be compared: how each is started, when it is ready, what it speaks.
//!
//! They are rows of a registry, `peers.toml` and what `--peers` adds. Invariants: servers listen on
//! loopback only, and what they keep is gone when they are; one that is missing is a row that says
//! so, never a failed run. Next: `registry` for what is known of one, `start` and `probe` for what
//! is done with it, `check` to try them all; `process` runs them.

pub mod check;
mod probe;
mod registry;
mod start;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use crate::load::protocol::Protocol;
pub(crate) use registry::Program;
pub use registry::{PROTOCOLS, Peer};

static PEERS: OnceLock<Vec<Peer>> = OnceLock::new();

/// Reads the registry, with the servers of `more`; before anything else is asked of it.
///
/// # Errors
/// `more` cannot be read, is not valid, or comes too late.
pub fn load(more: Option<&Path>) -> Result<()> {
    let peers = registry::read(more)?;
    if PEERS.set(peers).is_err() && more.is_some() {
        bail!("the registry of servers was read before");
    }
    Ok(())
}

/// All servers.
///
/// # Panics
/// The registry that comes with this program is not valid, which a test of its own rules out.
pub fn all() -> &'static [Peer] {
    PEERS.get_or_init(|| registry::read(None).expect("the registry of this program is valid"))
}

/// The server named `name`.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<&'static Peer> {
    all().iter().find(|peer| peer.name == name).with_context(|| {
        let names: Vec<&str> = all().iter().map(|peer| peer.name.as_str()).collect();
        format!("no server is called {name}; there are {}", names.join(", "))
    })
}

/// The packages this program was built from.
const LOCK: &str = include_str!("../../../Cargo.lock");

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

/// One GET on an HTTP admin port: the body.
///
/// # Errors
/// Nobody answers there, or not with 200.
pub fn http_get(addr: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // In one piece: a server may answer and leave before the next.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
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

    pub(super) fn place() -> Place {
        Place {
            port: 22_900,
            admin: 22_907,
            shards: 2,
            cpus: vec![0, 1],
            read_buffer: 4096,
            client_cpu: 1,
            fifo: false,
        }
    }

    #[test]
    fn servers_are_found_by_name() {
        for peer in all() {
            assert_eq!(find(&peer.name).expect("it is there").about, peer.about);
        }
        assert!(find("nobody").expect_err("unknown").to_string().contains("redis"));
        assert_eq!(find("memcached").expect("a row").protocol().expect("ours"), Protocol::Memcache);
        assert_eq!(find("nats").expect("a row").protocol().expect("ours"), Protocol::Nats);
        assert!(find("beanstalkd").expect("a row").protocol().is_err());
        let nginx = find("nginx").expect("a row");
        assert_eq!(nginx.addr(&place(), "http1").port(), 22_900);
        assert_eq!(nginx.addr(&place(), "http2").port(), 22_901);
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
