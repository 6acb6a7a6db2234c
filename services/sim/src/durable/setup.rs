//! What a run is like, drawn from its seed, and how a node of it is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use cache::config::{CACHE, CacheConfig};
use cache::route::Topology;
use cache::serve::{Cache, Plan};
use engine::buf::PoolConfig;
use engine::config::{CpuList, ENGINE, Engine, Table};
use engine::driver::Setup as DriverSetup;
use engine::driver::sim::{Faults, World};
use engine::error::Error;
use engine::fs::log::LogConfig;
use engine::rng::Seed;

use super::peer::Shape;
use crate::machine::Machine;

/// The port all shards share.
pub(crate) const PORT: u16 = 6379;
/// Where nodes keep their files: the simulated disk has nothing else.
const DIR: &str = "/";

/// Where a node is to be found: by the port that its shards share, and the ones after it, one for each shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doors {
    pub(crate) port: u16,
    /// Whether shards have ports of their own.
    pub(crate) per_shard: bool,
}

impl Doors {
    /// The only node there is.
    pub(crate) const ALONE: Self = Self { port: PORT, per_shard: true };

    /// The address of a shard, or the one they share.
    pub(crate) fn address(self, shard: Option<usize>) -> SocketAddr {
        let shard = shard.filter(|_| self.per_shard);
        let port = shard.map_or(self.port, |shard| self.port + 1 + shard as u16);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }
}

/// Which shard owns which key.
pub(crate) fn topology(shards: usize) -> Topology {
    let port = |shard| Doors::ALONE.address(Some(shard)).port();
    Topology::new("127.0.0.1", (0..shards).map(port).collect(), PORT.into())
}

/// The directory of the log.
pub(super) fn log_dir() -> PathBuf {
    PathBuf::from(DIR).join("appendonlydir")
}

/// How keys survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// By the log, with `appendfsync`.
    Always,
    EverySecond,
    No,
    /// By dumps alone.
    Dumps,
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) keep: Keep,
    pub(super) clients: usize,
    /// Keys of each client.
    pub(super) keys: usize,
    /// Groups of keys of each client that change together, and keys in each.
    pub(super) groups: usize,
    pub(super) group_len: usize,
    pub(super) pipeline_max: u64,
    pub(super) crashes: u64,
    /// BGREWRITEAOF, CONFIG SET appendonly, BGSAVE and SAVE beside the load.
    pub(super) rewrites: bool,
    pub(super) toggles: bool,
    pub(super) saves: bool,
    /// A bit flips on the disk in the end.
    pub(super) rots: bool,
    pub(super) per_shard: bool,
    pub(super) segment_bytes: u64,
    pub(super) mesh_capacity: usize,
    pub(super) faults: Faults,
    pub(super) driver: DriverSetup,
}

impl Setup {
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = Seed(seed).stream("sim.durable", 0);
        let mut faults = match rng.below(4) {
            0 => Faults::none(),
            1 => Faults::rough(),
            _ => Faults::hostile(),
        };
        let broken = rng.chance(1, 2);
        let mut disk = |most: f64| if broken && rng.chance(1, 2) { most } else { 0.0 };
        faults.write_error = disk(0.004);
        faults.no_space = disk(0.03);
        faults.fsync_error = disk(0.01);
        faults.read_error = disk(0.004);
        faults.short_write = disk(0.1);
        faults.survives = *rng.pick(&[0.0, 0.3, 0.6, 1.0]).unwrap_or(&0.0);
        faults.accept_error = 0.0;
        faults.refuse = 0.0;
        let keep = match rng.below(20) {
            0..10 => Keep::Always,
            10..14 => Keep::EverySecond,
            14 => Keep::No,
            _ => Keep::Dumps,
        };
        let log = keep != Keep::Dumps;
        let incremental = rng.chance(1, 2);
        let pool = PoolConfig { buffers: 8, buffer_len_bytes: 16 << 10, incremental };
        Self {
            keep,
            clients: rng.between(1, 3) as usize,
            keys: rng.between(3, 10) as usize,
            groups: rng.between(1, 2) as usize,
            group_len: rng.between(2, 4) as usize,
            pipeline_max: *rng.pick(&[1, 4, 12]).unwrap_or(&4),
            crashes: rng.between(1, 3),
            rewrites: log && rng.chance(1, 2),
            toggles: log && rng.chance(1, 4),
            saves: !log || rng.chance(1, 6),
            rots: keep == Keep::Always && rng.chance(1, 3),
            per_shard: rng.chance(1, 2),
            segment_bytes: *rng.pick(&[256 << 10, 512 << 10]).unwrap_or(&(256 << 10)),
            mesh_capacity: *rng.pick(&[1, 2, 64]).unwrap_or(&64),
            faults,
            driver: DriverSetup { pool, sq_entries: 256, ..DriverSetup::default() },
        }
    }

    /// Whether the disk may fail to take what is written.
    pub(super) fn disk_fails(&self) -> bool {
        self.faults.write_error + self.faults.no_space + self.faults.fsync_error > 0.0
    }

    /// Starts a node of so many shards.
    ///
    /// # Errors
    /// It cannot start; what it said.
    pub(super) fn start(&self, world: &World, shards: usize) -> Result<Machine<Cache>, Error> {
        let fsync = match self.keep {
            Keep::Always => "always",
            Keep::EverySecond => "everysec",
            Keep::No | Keep::Dumps => "no",
        };
        let log = if self.keep == Keep::Dumps { "no" } else { "yes" };
        let mut args = vec!["--appendonly", log, "--appendfsync", fsync];
        if self.per_shard {
            args.push("--save-per-shard");
        }
        let node = Node {
            first: 0,
            shards,
            doors: Doors::ALONE,
            mesh_capacity: self.mesh_capacity,
            segment_bytes: self.segment_bytes,
            driver: &self.driver,
        };
        node.start(world, &args, &[])
    }

    /// What clients do.
    pub(super) const fn shape(&self) -> Shape {
        Shape {
            clients: self.clients,
            keys: self.keys,
            groups: self.groups,
            group_len: self.group_len,
            pipeline_max: self.pipeline_max,
            waits: false,
        }
    }
}

/// How a node is started.
pub(crate) struct Node<'a> {
    /// The number of its first shard in the world.
    pub(crate) first: usize,
    pub(crate) shards: usize,
    pub(crate) doors: Doors,
    pub(crate) mesh_capacity: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) driver: &'a DriverSetup,
}

impl Node<'_> {
    /// Starts it with these options, and with these parameters of CONFIG SET.
    ///
    /// # Errors
    /// It cannot start; what it said.
    pub(crate) fn start(
        &self,
        world: &World,
        args: &[&str],
        settings: &[(&str, String)],
    ) -> Result<Machine<Cache>, Error> {
        let table = Table::new("sim", "a simulated node", &[], &[CACHE, ENGINE]);
        let shards = self.shards.to_string();
        let mut all = vec!["--shards", &shards, "--no-pin", "--dir", DIR, "--save", ""];
        all.extend(args);
        let no_file = |path: &std::path::Path| {
            let context = path.display().to_string();
            Err(Error::new("read", engine::error::Kind::NotFound, context))
        };
        let values = table.parse(all.into_iter().map(Into::into), no_file)?.values;
        let mut engine = Engine::new(&values, &CpuList::from(vec![0]))?;
        // Fewer than anybody may ask for.
        engine.mesh_capacity = self.mesh_capacity;
        let mut config = CacheConfig::new(&values, self.doors.address(None), self.shards)?;
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        config.settings.extend(settings);
        config.has_shard_ports = self.doors.per_shard;
        config.log = LogConfig {
            segment_bytes: self.segment_bytes,
            segments_max: 1 << 10,
            batch_bytes: 128 << 10,
            batches: 2,
        };
        let life = world.now().mono_ns ^ (self.first as u64) << 56;
        let seed = Seed(world.seed()).stream("sim.plan", life).next_u64();
        let plan = Rc::new(Plan::new(config, &engine, seed));
        let shards = (self.first, self.shards);
        Machine::try_start(world, shards, self.driver, |cx| plan.install(cx))
    }
}
