//! The door of this protocol: a second server on the cache's shards, whose questions to other shards go with the cache's.
//!
//! Invariant: the cache's server polls what other shards send, answers for this one included. Next: `crate::serve`.

use std::future::Future;
use std::rc::Rc;

use engine::net::{ConnId, ConnInfo, Server, ServerConfig, Service};
use engine::shard::ShardCx;

use super::{Session, metrics};
use crate::serve::{Cache, Owner};
use crate::shard::Shard;
use crate::work::{Done, Work};

/// The protocol on one shard.
pub struct Memcached {
    cache: Rc<Server<Cache>>,
    clients_max: usize,
}

/// Starts it beside a cache, listening nowhere yet.
pub fn start(
    cx: &ShardCx,
    cache: &Rc<Server<Cache>>,
    config: ServerConfig,
) -> Rc<Server<Memcached>> {
    let door = Memcached { cache: Rc::clone(cache), clients_max: config.clients_max };
    let server = Server::new(cx, door, Rc::clone(cache.shard()), config);
    cache.service().set_memcached(&server);
    metrics::install(&server);
    server
}

impl Service for Memcached {
    type Session = Session;
    type Shard = Shard;
    type Work = Work;
    type Done = Done;

    fn open(&self, _info: ConnInfo, shard: &mut Shard) -> Result<Session, Vec<u8>> {
        if shard.is_loading() {
            return Err(b"SERVER_ERROR the keys are being loaded\r\n".to_vec());
        }
        if shard.memcached.connections >= self.clients_max as u64 {
            return Err(b"ERROR Too many open connections\r\n".to_vec());
        }
        Ok(Session::new(shard))
    }

    fn start(&self, conn: ConnId, work: Work) -> Option<Work> {
        self.cache.service().begin(Owner::Memcached(conn), work)
    }

    fn perform(
        &self,
        _server: &Rc<Server<Self>>,
        _conn: ConnId,
        work: Work,
    ) -> impl Future<Output = Done> + 'static {
        let cache = Rc::clone(&self.cache);
        async move {
            match work {
                Work::Exchange(requests) => Done::Exchange(Cache::exchange(cache, requests).await),
                Work::Durable { to } => {
                    Done::Durable { is_so: crate::aof::host::durable(cache, to).await }
                }
                // Sessions of this protocol wait for nothing else.
                _ => Done::Unlocked,
            }
        }
    }

    fn on_turn(&self, _server: &Rc<Server<Self>>) -> bool {
        false
    }
}
