//! What a run is like, drawn from its seed, and how its machines are started.

use cache::serve::Cache;
use engine::buf::PoolConfig;
use engine::driver::Setup as DriverSetup;
use engine::driver::sim::{Faults, MACHINE_SHARDS, World};
use engine::error::Error;
use engine::rng::Seed;

use crate::durable::peer::Shape;
use crate::durable::setup::{Doors, Node, PORT};
use crate::machine::Machine;

/// Where the second machine's ports begin.
const OTHER_PORT: u16 = 7379;

/// What a run is like.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// Clients that write keys of their own.
    pub(super) shape: Shape,
    /// Clients that write anything to keys of all.
    pub(super) wilds: usize,
    pub(super) readers: usize,
    /// There are only those, and they empty all databases now and then.
    pub(super) flushes: bool,
    /// Of each machine: whether it has a log, which is synced before an answer.
    pub(super) logs: [bool; 2],
    /// Logs go off and on.
    pub(super) toggles: bool,
    pub(super) per_shard: [bool; 2],
    pub(super) backlog_bytes: u64,
    /// How far a replica may be behind.
    pub(super) behind_bytes: u64,
    pub(super) timeout_s: u64,
    /// Things that happen.
    pub(super) events: u64,
    pub(super) mesh_capacity: usize,
    pub(super) faults: Faults,
    pub(super) driver: DriverSetup,
}

impl Setup {
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = Seed(seed).stream("sim.replicated", 0);
        let mut faults = match rng.below(4) {
            0 => Faults::none(),
            1 | 2 => Faults::rough(),
            _ => Faults::hostile(),
        };
        let logs = [rng.chance(1, 2), rng.chance(1, 2)];
        // Only the machine that is the replica at first has a disk that can fail.
        if logs == [false, true] && rng.chance(1, 2) {
            faults.write_error = 0.003;
            faults.no_space = 0.02;
            faults.fsync_error = 0.003;
        }
        faults.survives = *rng.pick(&[0.0, 0.5, 1.0]).unwrap_or(&0.0);
        let flushes = rng.chance(1, 5);
        let incremental = rng.chance(1, 2);
        let pool = PoolConfig { buffers: 8, buffer_len_bytes: 16 << 10, incremental };
        Self {
            shape: Shape {
                clients: if flushes { 0 } else { rng.between(1, 3) as usize },
                keys: rng.between(3, 10) as usize,
                groups: rng.between(1, 2) as usize,
                group_len: rng.between(2, 4) as usize,
                pipeline_max: *rng.pick(&[1, 4, 12]).unwrap_or(&4),
                waits: true,
            },
            wilds: rng.between(u64::from(flushes), 2) as usize,
            readers: rng.between(1, 3) as usize,
            flushes,
            logs,
            toggles: rng.chance(1, 4),
            per_shard: [rng.chance(1, 2), rng.chance(1, 2)],
            backlog_bytes: *rng.pick(&[1 << 14, 1 << 17, 1 << 20]).unwrap_or(&(1 << 20)),
            behind_bytes: *rng.pick(&[1 << 16, 1 << 20, 256 << 20]).unwrap_or(&(1 << 20)),
            timeout_s: *rng.pick(&[2, 5, 60]).unwrap_or(&5),
            events: rng.between(2, 6),
            mesh_capacity: *rng.pick(&[1, 2, 64]).unwrap_or(&64),
            faults,
            driver: DriverSetup { pool, sq_entries: 256, ..DriverSetup::default() },
        }
    }

    /// Whether disks fail.
    pub(super) fn disk_fails(&self) -> bool {
        self.faults.write_error > 0.0
    }

    /// Where a machine is to be found.
    pub(super) const fn doors(&self, side: usize) -> Doors {
        let port = if side == 0 { PORT } else { OTHER_PORT };
        Doors { port, per_shard: self.per_shard[side] }
    }

    /// Starts a machine of so many shards, which follows a port if that is given.
    ///
    /// # Errors
    /// It cannot start; what it said.
    pub(super) fn start(
        &self,
        world: &World,
        (side, shards): (usize, usize),
        follows: Option<u16>,
    ) -> Result<Machine<Cache>, Error> {
        let settings = [
            ("repl-backlog-size", self.backlog_bytes.to_string()),
            ("repl-timeout", self.timeout_s.to_string()),
            ("client-output-buffer-limit", format!("replica {} 0 0", self.behind_bytes)),
        ];
        let mut args = vec!["--appendonly", if self.logs[side] { "yes" } else { "no" }];
        args.extend(["--appendfsync", "always"]);
        let master = follows.map(|port| format!("127.0.0.1 {port}"));
        if let Some(master) = &master {
            args.extend(["--replicaof", master]);
        }
        let node = Node {
            first: side * MACHINE_SHARDS,
            shards,
            doors: self.doors(side),
            mesh_capacity: self.mesh_capacity,
            segment_bytes: 256 << 10,
            driver: &self.driver,
        };
        node.start(world, &args, &settings)
    }
}
