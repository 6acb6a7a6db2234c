//! What a run is like, drawn from its seed: how many shards and clients, how small the buffers,
//! what goes wrong and how often. Swarm style: each seed has some faults and lacks others, so that
//! no fault hides another for ever.

use std::net::{Ipv4Addr, SocketAddr};

use cache::route::Topology;
use engine::buf::PoolConfig;
use engine::driver::sim::Faults;
use engine::driver::{ListenOptions, Setup as DriverSetup};
use engine::net::ServerConfig;
use engine::rng::Seed;

use crate::draw::{Shape, key_name};

/// The shared port; shard k alone has the port after it plus k.
const PORT: u16 = 6379;

/// Where the shards are.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// All of them.
    pub shared: SocketAddr,
    /// Each one.
    pub shards: Vec<SocketAddr>,
    /// The shards take few clients at a time.
    pub limited: bool,
    /// Who owns what.
    pub topology: Topology,
}

impl Addresses {
    fn new(shards: usize, limited: bool) -> Self {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ports: Vec<u16> = (0..shards as u16).map(|shard| PORT + 1 + shard).collect();
        Self {
            shared: address(PORT),
            shards: ports.iter().map(|port| address(*port)).collect(),
            limited,
            topology: Topology::new("127.0.0.1", ports, PORT.into()),
        }
    }

    /// The shard a connection by this door shows as a cluster's node, if it does: commands on a
    /// whole database then mean its part.
    #[must_use]
    pub fn node(&self, door: Option<usize>) -> Option<usize> {
        door.filter(|_| self.shards.len() > 1)
    }

    /// Whether a private key counts for such a node.
    #[must_use]
    pub fn is_shown(&self, node: Option<usize>, key: usize) -> bool {
        node.is_none_or(|node| usize::from(self.topology.owner_of(&key_name(key))) == node)
    }

    /// Where a connection of shard `here` that knows the topology is sent to for these private
    /// keys; `None` when it is served here.
    #[must_use]
    pub fn moved(&self, here: Option<usize>, keys: &[usize]) -> Option<usize> {
        let owner = |key: &usize| usize::from(self.topology.owner_of(&key_name(*key)));
        let first = owner(keys.first()?);
        let elsewhere = here != Some(first) && keys.iter().all(|key| owner(key) == first);
        elsewhere.then_some(first)
    }
}

/// A run's setup.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Number of shards.
    pub shards: usize,
    /// Number of clients.
    pub clients: usize,
    /// Batches per client.
    pub batches: u32,
    /// Most commands in a batch.
    pub pipeline_max: u64,
    /// What commands are like.
    pub shape: Shape,
    /// What goes wrong.
    pub faults: Faults,
    /// The drivers.
    pub driver: DriverSetup,
    /// The servers.
    pub server: ServerConfig,
    /// Messages between two shards.
    pub mesh_capacity: usize,
    /// Shards are stopped while clients are at work, after so many replies.
    pub stop_after: Option<u64>,
    /// Where they are.
    pub addresses: Addresses,
}

impl Setup {
    /// The setup of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Seed(seed).stream("sim.setup", 0);
        let shards = rng.between(1, 3) as usize;
        let limited = rng.chance(1, 10);
        let clients = rng.between(2, 5) as usize;
        let (buffers, len) = match rng.below(4) {
            0 => (2, 4 << 10),
            1 => (8, 2 << 10),
            _ => (8, 16 << 10),
        };
        let pool = PoolConfig { buffers, buffer_len_bytes: len, incremental: rng.chance(1, 2) };
        let mut server = ServerConfig::default();
        if limited {
            server.clients_max = rng.between(1, 3) as usize;
        }
        if rng.chance(1, 3) {
            server.output_max_bytes = rng.between(1 << 10, 64 << 10) as usize;
        }
        if rng.chance(1, 3) {
            server.input_max_bytes = rng.between(1 << 10, 64 << 10) as usize;
        }
        if rng.chance(1, 3) {
            server.zero_copy_min_bytes = Some(rng.between(1, 8 << 10) as usize);
        }
        server.listen = ListenOptions::default();
        if rng.chance(1, 6) {
            server.listen.backlog = rng.between(1, 3) as i32;
        }
        let sq_entries = if rng.chance(1, 4) { rng.between(1, 8) as u32 } else { 256 };
        let driver = DriverSetup { sq_entries, pool, ..DriverSetup::default() };
        Self {
            shards,
            clients,
            batches: rng.between(3, 20) as u32,
            pipeline_max: *rng.pick(&[4, 20, 60, 160]).unwrap_or(&20),
            shape: Shape {
                keys: rng.between(3, 14) as usize,
                large: rng.between(0, 4),
                shared: rng.between(0, 60),
                flushes: rng.chance(1, 10),
                kills: rng.chance(1, 4),
            },
            faults: faults(seed),
            driver,
            server,
            mesh_capacity: *rng.pick(&[1, 2, 4, 64]).unwrap_or(&64),
            stop_after: rng.chance(1, 4).then(|| rng.between(1, 150)),
            addresses: Addresses::new(shards, limited),
        }
    }

    /// A short run in which nothing goes wrong by itself, for the single-fault sweep.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        let drawn = Self::draw(seed);
        let mut server = ServerConfig::default();
        server.zero_copy_min_bytes = drawn.server.zero_copy_min_bytes;
        Self {
            clients: 2,
            batches: 3,
            pipeline_max: 8,
            shape: Shape { keys: 5, flushes: false, kills: false, ..drawn.shape },
            faults: Faults::none(),
            server,
            stop_after: None,
            addresses: Addresses::new(drawn.shards, false),
            ..drawn
        }
    }

    /// Whether connections may break without a client's doing.
    #[must_use]
    pub fn breaks(&self) -> bool {
        self.faults.reset > 0.0
    }
}

/// Some of the faults there are.
fn faults(seed: u64) -> Faults {
    let mut rng = Seed(seed).stream("sim.faults", 0);
    let mut faults = match rng.below(8) {
        0 => Faults::none(),
        1..4 => Faults::rough(),
        _ => Faults::hostile(),
    };
    for chance in [
        &mut faults.delay,
        &mut faults.multishot_end,
        &mut faults.no_buffers,
        &mut faults.late_notification,
        &mut faults.overflow,
        &mut faults.cancel_loses,
        &mut faults.spurious_wake,
        &mut faults.late_bell,
        &mut faults.segment,
        &mut faults.jitter,
        &mut faults.short_recv,
        &mut faults.short_send,
        &mut faults.reset,
        &mut faults.accept_error,
        &mut faults.refuse,
    ] {
        match rng.below(4) {
            0 => *chance = 0.0,
            1 => *chance = (*chance * 3.0).min(0.9),
            _ => {}
        }
    }
    if rng.chance(1, 3) {
        faults.batch_ns = 0;
    }
    if rng.chance(1, 3) {
        faults.limits.socket_buffer_bytes = rng.between(2 << 10, 32 << 10) as usize;
    }
    if rng.chance(1, 8) {
        // Shards, their listeners, and little more.
        faults.limits.descriptors = 9;
    }
    faults
}
