//! Sessions on our engine, by the same small interface as on the other runtimes: one shard, with
//! nobody to exchange work with.
//!
//! Why, when the services run on it themselves: a session then stands in the same program as on the
//! other runtimes, with the same allocator and the same state, and what differs is the runtime
//! alone. Invariants: the engine's defaults, as `shardd` has them. Next: `engine::net::server` for
//! what hosts the sessions.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use engine::driver::{ListenOptions, PeerName, Setup, TcpInfo};
use engine::error::Error;
use engine::event::{Level, Log};
use engine::net::{ConnId, ConnInfo, Server, ServerConfig, Service as EngineService, Via};
use engine::rng::Seed;
use engine::shard::launch::{Launch, launch};
use engine::shard::{ShardConfig, ShardCx};
use view::{Flow, Input, Instant, Output, Session};

use super::{Hosting, Service};

/// Between two calls of `Service::tick`.
const TICK_NS: u64 = 100_000_000;
/// Connections the kernel holds until they are accepted, as on the other runtimes.
const BACKLOG: i32 = 4096;
/// Connections at a time: above what any comparison opens.
const CLIENTS_MAX: usize = 20_000;

/// Serves until the process is ended, which is bound to its CPU already.
pub(super) fn run<S: Service>(service: S, hosting: Hosting) -> Result<()> {
    let plan = Launch {
        shards: 1,
        cpus: Vec::new(),
        setup: Setup::default(),
        shard: ShardConfig::default(),
        seed: Seed(1),
        log: Log::new(Level::Warn),
    };
    let service = Mutex::new(Some(service));
    let running = launch(&plan, move |cx| {
        let taken = service.lock().ok().and_then(|mut service| service.take());
        taken.map_or(Ok(()), |service| install(cx, service, hosting.addr))
    })
    .with_context(|| format!("serve on {}", hosting.addr))?;
    // Until a signal ends the process: nothing stops the shard before.
    running.join(Duration::MAX);
    Ok(())
}

fn install<S: Service>(cx: &ShardCx, service: S, addr: SocketAddr) -> Result<(), Error> {
    let shard = Rc::new(RefCell::new(service.shard(cx.now())));
    let tcp = TcpInfo { no_delay: true, ..TcpInfo::default() };
    let config = ServerConfig {
        clients_max: CLIENTS_MAX,
        listen: ListenOptions { backlog: BACKLOG, shared: false, tcp },
        ..ServerConfig::default()
    };
    let server = Server::new(cx, Host { service, cx: cx.clone() }, shard, config);
    server.listen(addr, Via::Shared)?;
    cx.spawn("tick", async move {
        loop {
            server.cx().sleep(TICK_NS).await;
            let now = server.cx().now();
            server.service().service.tick(&mut server.shard().borrow_mut(), now);
        }
    });
    Ok(())
}

/// A session whose work may turn out to be none that a single shard can do; then it ends.
struct Hosted<T>(T);

impl<T: Session> Session for Hosted<T> {
    type Shard = T::Shard;
    type Work = T::Work;
    type Done = Option<T::Done>;

    fn on_bytes(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Output,
        shard: &mut T::Shard,
        now: Instant,
    ) -> Flow<T::Work> {
        self.0.on_bytes(input, out, shard, now)
    }

    fn on_done(
        &mut self,
        done: Option<T::Done>,
        out: &mut Output,
        shard: &mut T::Shard,
        now: Instant,
    ) -> Flow<T::Work> {
        done.map_or(Flow::Close, |done| self.0.on_done(done, out, shard, now))
    }

    fn foresee(&self, bytes: &[u8], shard: &mut T::Shard) {
        self.0.foresee(bytes, shard);
    }

    fn foreseen(shard: &mut T::Shard) {
        T::foreseen(shard);
    }

    fn owes_answers(&self) -> bool {
        self.0.owes_answers()
    }

    fn on_close(&mut self, shard: &mut T::Shard) {
        self.0.on_close(shard);
    }
}

/// A service of a foreign runtime, as the engine wants them.
struct Host<S> {
    service: S,
    cx: ShardCx,
}

impl<S: Service> EngineService for Host<S> {
    type Session = Hosted<S::Session>;
    type Shard = <S::Session as Session>::Shard;
    type Work = <S::Session as Session>::Work;
    type Done = Option<<S::Session as Session>::Done>;

    fn open(&self, info: ConnInfo, shard: &mut Self::Shard) -> Result<Self::Session, Vec<u8>> {
        let PeerName::Tcp(peer) = info.peer else { return Err(Vec::new()) };
        Ok(Hosted(self.service.open(shard, peer, self.cx.now())))
    }

    fn perform(
        &self,
        server: &Rc<Server<Self>>,
        _conn: ConnId,
        work: Self::Work,
    ) -> impl Future<Output = Self::Done> + 'static {
        let server = Rc::clone(server);
        async move {
            let now = server.cx().now();
            server.service().service.perform(work, &mut server.shard().borrow_mut(), now)
        }
    }

    fn on_turn(&self, _server: &Rc<Server<Self>>) -> bool {
        false
    }
}
