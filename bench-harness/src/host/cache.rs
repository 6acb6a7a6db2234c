//! The cache's session on a foreign runtime: one shard, with nobody to exchange work with.
//!
//! What a single shard of a foreign runtime does not do: CLIENT KILL of another connection has no
//! effect, and a command that sleeps closes its connection. Neither occurs in a comparison.

use std::net::SocketAddr;

use cache::clients::ConnInfo;
use cache::{Done, Session, Shard, ShardConfig, Work};
use view::Instant;

use super::Service;

/// Entries the active expiry looks at per tick, as on the engine.
const TICK_BUDGET: usize = 2_000;
/// Seed of the table; comparisons want equal ones.
const SEED: u64 = 1;

/// Makes them.
#[derive(Debug, Default)]
pub struct Cache {
    connections: std::cell::Cell<u64>,
}

impl Service for Cache {
    type Session = Session;

    fn shard(&self, now: Instant) -> Shard {
        Shard::new(ShardConfig { seed: SEED, ..ShardConfig::default() }, now)
    }

    fn open(&self, shard: &mut Shard, peer: SocketAddr, now: Instant) -> Session {
        self.connections.set(self.connections.get() + 1);
        let info = ConnInfo {
            conn: 0,
            id: self.connections.get(),
            peer: &peer.to_string(),
            local: "",
            fd: -1,
            shard_port: false,
        };
        Session::new(info, shard, now)
    }

    fn perform(&self, work: Work, shard: &mut Shard, now: Instant) -> Option<Done> {
        match work {
            Work::Exchange(requests) => {
                let mut responses = Vec::with_capacity(requests.len());
                let mut answered = Vec::new();
                for (_, request) in requests {
                    shard.serve(0, request, now, &mut answered);
                    // Alone on its shard, a request is answered at once: nobody else holds locks.
                    responses.push(answered.pop()?.1);
                }
                Some(Done::Exchange(responses))
            }
            Work::Locked => Some(Done::Unlocked),
            Work::Durable { .. } => Some(Done::Durable { is_so: true }),
            Work::Sleep { .. } | Work::Job(_) => None,
        }
    }

    fn tick(&self, shard: &mut Shard, now: Instant) {
        // What is still due waits for the next tick.
        let _ = shard.tick(now, TICK_BUDGET);
    }
}
