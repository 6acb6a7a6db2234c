//! Which server a load is put on: one that runs already, or one of the registry, started for it.
//!
//! Invariants: one that was started here is pinned to its own core, and is stopped with the command, also by an interrupt
//! (`process`); both cores are there before the first byte is sent. Next: `load`, for what is asked.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use bench_harness::compare::{self, PORTS_EACH};
use bench_harness::peers::{self, Place, Protocol};
use bench_harness::process::{self, Server};
use clap::Args;

/// Read buffer of a connection on the other runtimes, as in `bench run`.
const READ_BUFFER_BYTES: usize = 4096;

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server's address, where it runs already.
    #[arg(long, required_unless_present = "peer", requires = "pid")]
    addr: Option<SocketAddr>,
    /// Its process, whose CPU clock is read.
    #[arg(long, requires = "addr")]
    pid: Option<u32>,
    /// A server of `bench peers` instead, which is started on its core, and stopped at the end.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["addr", "pid"])]
    peer: Option<String>,
    /// What it speaks [default: resp; with --peer, the first of what it speaks].
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// With --peer: its port; the seven after it may be used too.
    #[arg(long, default_value_t = 27_000)]
    port: u16,
    /// With --peer: stay in the network namespace of the host.
    #[arg(long, requires = "peer")]
    host_network: bool,
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) cpu: usize,
    /// As it is called in what is printed.
    pub(crate) name: String,
}

impl ServerArgs {
    /// As it is called in what is printed.
    pub(crate) fn name(&self) -> String {
        match (&self.peer, self.addr) {
            (Some(name), _) => name.clone(),
            (None, addr) => addr.map(|addr| addr.to_string()).unwrap_or_default(),
        }
    }

    /// Moves to the load's core; finds the server, or starts it.
    pub(crate) fn open(&self) -> Result<Running> {
        match (&self.peer, self.addr, self.pid) {
            (Some(name), ..) => self.start(name),
            (None, Some(addr), Some(pid)) => {
                process::pin_self(self.client_cpu)?;
                Ok(Running {
                    server: Server::watch(pid)?,
                    addr,
                    protocol: self.protocol.unwrap_or(Protocol::Resp),
                    cpu: self.server_cpu,
                    name: self.name(),
                })
            }
            // The arguments' own rules leave nothing else.
            _ => bail!("a server: --addr with --pid, or --peer"),
        }
    }

    fn start(&self, name: &str) -> Result<Running> {
        let peer = peers::find(name)?;
        let protocol = match self.protocol {
            Some(protocol) => protocol,
            None => peer.protocol()?,
        };
        let spoken = protocol.name();
        ensure!(
            peer.speaks(spoken),
            "{name} does not speak {spoken}, but {}",
            peer.protocols.join(", ")
        );
        ensure!(
            self.port <= u16::MAX - PORTS_EACH,
            "--port: at most {}, not {}",
            u16::MAX - PORTS_EACH,
            self.port
        );
        if !self.host_network {
            crate::enter_network();
        }
        compare::check_cpus(self.server_cpu, self.client_cpu)?;
        let place = Place {
            port: self.port,
            admin: self.port + PORTS_EACH - 1,
            shards: 1,
            cpus: vec![self.server_cpu],
            read_buffer: READ_BUFFER_BYTES,
            client_cpu: self.client_cpu,
            fifo: false,
        };
        let server = peer.start(&place)?;
        let addr = peer.addr(&place, spoken);
        eprintln!("{name}: process {} at {addr}", server.pid());
        Ok(Running { server, addr, protocol, cpu: self.server_cpu, name: name.to_owned() })
    }
}
