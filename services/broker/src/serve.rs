//! The broker on the engine: syncs, what shards ask of each other, and what is done beside requests.
//!
//! Every partition that was written in a turn gets one sync, at once or a moment later when that lets more requests
//! share it, and its completion answers all requests that waited for it. Invariants: the shard is borrowed only within a synchronous step; a partition has one sync in
//! flight; an answer goes out once. Next: `session` for what runs inline, `control` for topics.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;

use engine::config::Engine;
use engine::error::Error;
use engine::exec::sync::Notify;
use engine::net::{ConnId, ConnInfo, Server, ServerConfig, Service, Via};
use engine::shard::ShardCx;
use engine::shard::calls::{self, Asker, Calls, CallsPort};

use crate::config::{BrokerConfig, TlsConfig, shard_address};
use crate::control::{self, CONTROLLER, Controller};
use crate::coordinator;
use crate::partition::{FileJob, Synced, unix_ms};
use crate::session::Flushed;
use crate::shard::{Endpoint, ShardConfig, Slot};
use crate::work::{Answer, Ask, Done, Work};
use crate::{Session, Shard, api, compact, fetch, guard, metrics};

/// Syncs begun in a turn; the others wait for the next.
const SYNCS_MAX: usize = 64;
/// How long a sync waits for company where those before had some: answers to one sync bring requests one after the
/// other, and the first would otherwise have a sync alone while the others wait for the next.
const GATHER_NS: u64 = 50_000;
/// How often partitions are looked after.
const TICK_NS: u64 = 1_000_000_000;
/// Partitions looked after before others get their turn.
const TICK_PARTITIONS: usize = 100;
/// How often it is looked whether a connection that is not read is still there.
const MUTE_LOOK_NS: u64 = 1_000_000_000;
/// How long a producer may be silent before it is forgotten.
const PRODUCER_EXPIRY_MS: i64 = 24 * 60 * 60 * 1000;

/// Everything that has to be decided before the shards start.
pub struct Plan {
    broker: BrokerConfig,
    engine: Engine,
    ports: Mutex<Vec<Option<CallsPort<Ask, Answer>>>>,
}

impl Plan {
    /// A broker of `engine.shards` shards.
    #[must_use]
    pub fn new(broker: BrokerConfig, engine: &Engine) -> Self {
        let ports = calls::ports(engine.shards, engine.mesh_capacity);
        let ports = Mutex::new(ports.into_iter().map(Some).collect());
        Self { broker, engine: engine.clone(), ports }
    }

    /// Puts the broker on a shard and starts listening.
    ///
    /// # Errors
    /// An address is taken, or not this host's.
    ///
    /// # Panics
    /// When called twice for a shard.
    pub fn install(&self, cx: &ShardCx) -> Result<Rc<Server<Broker>>, Error> {
        let port = {
            let mut ports = self.ports.lock().expect("no shard panics while it takes its port");
            ports[cx.index()].take().expect("a broker is installed once per shard")
        };
        if cx.index() == CONTROLLER && self.broker.users.as_ref().is_some_and(|users| users.exposed)
        {
            let remedy = "chmod 600 the file of --broker-users";
            let what = "others than the owner can read the users' file";
            cx.log().warn("broker", cx.now(), what, &[("remedy", &remedy)]);
        }
        let server = start(
            cx,
            self.shard_config(),
            port,
            ServerConfig::new(&self.engine),
            self.broker.dir.clone(),
        );
        server.listen(self.broker.shard_address(cx.index()), Via::Shard)?;
        server.listen(self.broker.address, Via::Shared)?;
        if let Some(TlsConfig { address, tls }) = &self.broker.tls {
            server.listen_tls(shard_address(*address, cx.index()), Via::Shard, tls)?;
            server.listen_tls(*address, Via::Shared, tls)?;
        }
        Ok(server)
    }

    /// What clients that came to `address` are told.
    fn endpoint(&self, address: SocketAddr) -> Endpoint {
        let host = match (&self.broker.announce, address.ip()) {
            (Some(host), _) => host.clone(),
            (None, ip) if ip.is_unspecified() => "127.0.0.1".into(),
            (None, ip) => ip.to_string(),
        };
        let shards = 0..self.engine.shards;
        let ports = shards.map(|shard| shard_address(address, shard).port()).collect();
        Endpoint { host, ports }
    }

    fn shard_config(&self) -> ShardConfig {
        let broker = &self.broker;
        ShardConfig {
            node: broker.node,
            plain: self.endpoint(broker.address),
            tls: broker.tls.as_ref().map(|tls| self.endpoint(tls.address)),
            request_max_bytes: broker.request_max_bytes,
            partitions: broker.partitions,
            auto_create: broker.auto_create,
            partitions_max: broker.partitions_max,
            rebalance_delay_ms: broker.rebalance_delay_ms,
            compaction_memory_bytes: broker.compaction_memory_bytes,
            in_flight_max: broker.in_flight_max,
            users: broker.users.clone(),
            reauth_ms: broker.reauth_ms,
            quotas: broker.quotas.clone(),
            session_min_ms: broker.session_min_ms,
        }
    }
}

/// Starts a broker on a shard, listening nowhere yet.
pub fn start(
    cx: &ShardCx,
    config: ShardConfig,
    port: CallsPort<Ask, Answer>,
    server_config: ServerConfig,
    dir: PathBuf,
) -> Rc<Server<Broker>> {
    let broker = Broker {
        calls: Calls::new(cx, port),
        dir: dir.clone(),
        loaded: Notify::default(),
        controller: RefCell::default(),
        clients_max: server_config.clients_max,
    };
    let shard = Rc::new(RefCell::new(Shard::new(cx, config)));
    let server = Server::new(cx, broker, shard, server_config);
    metrics::install(&server);
    if cx.index() == CONTROLLER {
        let server = Rc::clone(&server);
        cx.spawn("broker start", async move {
            if let Err(error) = control::start(&server, dir).await {
                let cx = server.cx();
                cx.log().error("broker", cx.now(), "cannot start", &[("why", &error)]);
            }
        });
    }
    cx.spawn("broker groups", coordinator::tick(Rc::clone(&server)));
    cx.spawn("broker housekeeping", housekeeping(Rc::clone(&server)));
    cx.spawn("broker compaction", compact::run(Rc::clone(&server)));
    server
}

/// Looks after each partition about once a second.
async fn housekeeping(server: Rc<Server<Broker>>) {
    let cx = server.cx().clone();
    loop {
        cx.sleep(TICK_NS).await;
        if let Some(used) = &mut server.shard().borrow_mut().used {
            used.expire(cx.now().mono_ns / 1_000_000);
        }
        let slots = server.shard().borrow().slots();
        for (done, slot) in slots.into_iter().enumerate() {
            if done % TICK_PARTITIONS == TICK_PARTITIONS - 1 {
                engine::exec::sync::yield_now().await;
            }
            look_after(&server, slot).await;
        }
    }
}

async fn look_after(server: &Rc<Server<Broker>>, slot: Slot) {
    let cx = server.cx().clone();
    let now_ms = unix_ms(cx.now());
    let job = {
        let mut shard = server.shard().borrow_mut();
        let Some(partition) = shard.partition(slot) else { return };
        partition.expire_producers(now_ms.saturating_sub(PRODUCER_EXPIRY_MS));
        let expired = partition.expire(now_ms);
        shard.mark_dirty(slot, true);
        expired
    };
    tidy(&cx, job).await;
}

/// The job with the snapshot of producers that it is to write.
pub(crate) async fn with_snapshot(
    shard: &Rc<RefCell<Shard>>,
    slot: Slot,
    mut job: FileJob,
) -> FileJob {
    let mut step =
        || shard.borrow_mut().partition(slot).is_some_and(|one| one.step_snapshot(&mut job));
    while step() {
        engine::exec::sync::yield_now().await;
    }
    job
}

/// Writes and removes files beside the log; if that fails, a start has more to read.
async fn tidy(cx: &ShardCx, job: Option<FileJob>) {
    if let Some(job) = job
        && let Err(error) = job.run(cx).await
    {
        cx.log().warn("broker", cx.now(), "files not tidied", &[("why", &error)]);
    }
}

/// The broker of one shard.
pub struct Broker {
    calls: Rc<Calls<Ask, Answer>>,
    dir: PathBuf,
    loaded: Notify,
    controller: RefCell<Option<Rc<Controller>>>,
    clients_max: usize,
}

impl Broker {
    pub(crate) const fn calls(&self) -> &Rc<Calls<Ask, Answer>> {
        &self.calls
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn controller(&self) -> Option<Rc<Controller>> {
        self.controller.borrow().clone()
    }

    pub(crate) fn set_controller(&self, controller: Controller) {
        *self.controller.borrow_mut() = Some(Rc::new(controller));
    }

    /// The shard's partitions are open.
    pub(crate) fn set_loaded(&self, server: &Server<Self>) {
        server.shard().borrow_mut().loaded = true;
        self.loaded.notify_all();
    }

    pub(crate) async fn loaded(server: Rc<Server<Self>>) {
        loop {
            let loaded = server.service().loaded.notified();
            if server.shard().borrow().loaded {
                return;
            }
            loaded.await;
        }
    }

    fn serve(&self, server: &Rc<Server<Self>>, asker: Asker, ask: Ask) {
        let server = Rc::clone(server);
        let cx = server.cx().clone();
        cx.spawn("broker question", async move {
            let answer = match ask {
                Ask::Catalog(catalog) => {
                    control::apply(&server, catalog).await;
                    Answer::Known
                }
                Ask::Change(change) => Answer::Changed(control::change(&server, &change).await),
            };
            server.service().calls.answer(asker, answer);
        });
    }

    /// Waits until a connection is to be read again, is gone, or the broker stops.
    async fn mute(server: &Rc<Server<Self>>, conn: ConnId, until_ns: u64) {
        let cx = server.cx();
        while cx.now().mono_ns < until_ns && !cx.is_stopping() {
            cx.sleep_until(until_ns.min(cx.now().mono_ns + MUTE_LOOK_NS)).await;
            if !server.push(conn, |_, _| {}) {
                return;
            }
        }
    }

    /// Begins a sync of each partition that was written, as far as there is room.
    fn begin_syncs(server: &Rc<Server<Self>>) {
        let mut dirty = std::mem::take(&mut server.shard().borrow_mut().dirty);
        for slot in dirty.drain(..dirty.len().min(SYNCS_MAX)) {
            let shared = {
                let mut shard = server.shard().borrow_mut();
                shard.partition(slot).is_some_and(|partition| partition.has_company())
            };
            let server = Rc::clone(server);
            server.cx().clone().spawn("broker sync", async move {
                if shared {
                    server.cx().sleep(GATHER_NS).await;
                }
                Self::sync(&server, slot).await;
            });
        }
        let mut shard = server.shard().borrow_mut();
        // Those left over come before those that were written meanwhile.
        dirty.append(&mut shard.dirty);
        shard.dirty = dirty;
    }

    /// Syncs a partition, and answers whom that concerns.
    async fn sync(server: &Rc<Server<Self>>, slot: Slot) {
        let cx = server.cx().clone();
        let job = {
            let mut shard = server.shard().borrow_mut();
            let Some(partition) = shard.partition(slot) else { return };
            partition.listed = false;
            let Some(job) = partition.begin_sync(&cx) else { return };
            shard.stats.syncs += 1;
            job
        };
        let begun_ns = cx.now().mono_ns;
        let Synced { target, result, sidecars } = job.run(&cx).await;
        Self::end_sync(server, slot, |partition| partition.end_sync(&cx, target, result));
        server.shard().borrow_mut().stats.sync_ns += cx.now().mono_ns - begun_ns;
        if let Some(job) = sidecars {
            let job = with_snapshot(server.shard(), slot, job).await;
            tidy(&cx, Some(job)).await;
        }
    }

    fn end_sync(
        server: &Rc<Server<Self>>,
        slot: Slot,
        end: impl FnOnce(&mut crate::partition::Partition) -> Vec<crate::partition::CommitId>,
    ) {
        {
            let mut shard = server.shard().borrow_mut();
            let Some(partition) = shard.partition(slot) else { return };
            let commits = end(partition);
            shard.committed(&commits);
            // What was appended meanwhile.
            shard.mark_dirty(slot, false);
        }
        Self::answer(server);
    }

    /// Sends answers that became complete.
    fn answer(server: &Rc<Server<Self>>) {
        let answered = std::mem::take(&mut server.shard().borrow_mut().answered);
        for conn in answered {
            let mut flushed = Flushed::Open;
            let shard = Rc::clone(server.shard());
            server.push(conn, |session, out| {
                flushed = session.flush(&mut shard.borrow_mut(), out);
            });
            match flushed {
                Flushed::Open => {}
                Flushed::Drained => server.done(conn, Done::Ready),
                Flushed::Close => server.close(conn),
            }
        }
    }
}

impl Service for Broker {
    type Session = Session;
    type Shard = Shard;
    type Work = Work;
    type Done = Done;

    fn open(&self, info: ConnInfo, shard: &mut Shard) -> Result<Session, Vec<u8>> {
        // The protocol has no words for a refusal: the connection is closed.
        if shard.connections >= self.clients_max {
            return Err(Vec::new());
        }
        Ok(Session::new(&info, shard))
    }

    fn start(&self, _conn: ConnId, work: Work) -> Option<Work> {
        match work {
            // Told by the answer to the last of them.
            Work::Drain => None,
            work => Some(work),
        }
    }

    fn perform(
        &self,
        server: &Rc<Server<Self>>,
        conn: ConnId,
        work: Work,
    ) -> impl Future<Output = Done> + 'static {
        let server = Rc::clone(server);
        async move {
            match work {
                Work::Load | Work::Drain => {
                    Self::loaded(server).await;
                    Done::Ready
                }
                Work::Fetch(job) => fetch::perform(server, conn, *job).await,
                Work::Call(call) => Done::Reply(api::answer(&server, *call).await),
                Work::Prove(proof) => {
                    let turns = guard::turns(&server.shard().borrow());
                    Done::Proven(guard::prove(turns, proof).await)
                }
                Work::Deny(at_ns) => {
                    server.cx().sleep_until(at_ns).await;
                    Done::Denied
                }
                Work::Mute(until_ns) => {
                    Self::mute(&server, conn, until_ns).await;
                    Done::Ready
                }
            }
        }
    }

    fn on_turn(&self, server: &Rc<Server<Self>>) -> bool {
        let more = self.calls.turn(|asker, ask| self.serve(server, asker, ask), |_, _| {});
        Self::begin_syncs(server);
        more || !server.shard().borrow().dirty.is_empty()
    }

    fn end_turn(&self) {
        self.calls.flush();
    }

    fn park(&self) -> bool {
        self.calls.park()
    }

    fn unpark(&self) {
        self.calls.unpark();
    }

    fn has_messages(&self) -> bool {
        self.calls.has_messages()
    }
}
