//! The cache on the engine: what carries a session's work to other shards, and what keeps a shard
//! tidy.
//!
//! Invariants: the shard is borrowed only within a synchronous step, never across an await; every
//! request that arrives is answered once, when its locks allow. Next: `session.rs` for what runs
//! inline, `remote.rs` for the owner's side, `engine::shard::calls` for the transport.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fs::Permissions;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use engine::config::Engine;
use engine::error::Error;
use engine::exec::sync::{Notify, Receiver, Sender, Turns, once, within};
use engine::net::{ConnId, ConnInfo, Server, ServerConfig, Service, Via};
use engine::shard::ShardCx;
use engine::shard::calls::{self, Asker, Calls, CallsPort};

use crate::aof;
use crate::config::CacheConfig;
use crate::memcached::{self, Memcached};
use crate::route::Topology;
use crate::save::{self, Saves};
use crate::work::{Done, Job, Op, Request, Response, Work};
use crate::{Session, Shard, ShardConfig, clients, flow, housekeeping, load, repl};

/// The token of requests whose answers nobody waits for.
const NOBODY: u64 = u64::MAX;
/// What may wait for a monitor that does not read; it misses further lines.
const MONITOR_OUTPUT_MAX_BYTES: usize = 32 << 20;

/// Everything that has to be decided before the shards start.
pub struct Plan {
    cache: CacheConfig,
    engine: Engine,
    seed: u64,
    library: crate::script::Library,
    saves: Arc<Saves>,
    repl: Arc<repl::Common>,
    topology: Topology,
    ports: Mutex<Vec<Option<CallsPort<Request, Response>>>>,
    /// Where the append-only log is, or would be.
    log: aof::host::LogSetup,
}

impl Plan {
    /// A cache of `engine.shards` shards.
    #[must_use]
    pub fn new(cache: CacheConfig, engine: &Engine, seed: u64) -> Self {
        let ports = calls::ports(engine.shards, engine.mesh_capacity);
        let ports = Mutex::new(ports.into_iter().map(Some).collect());
        let topology = topology(&cache, engine.shards);
        let dir = cache.dir.join(&cache.appenddirname);
        let repl = Arc::new(repl::Common::new(cache.replicaof.clone(), seed));
        let log = aof::host::LogSetup::new(dir, engine.shards, cache.log, cache.appendonly);
        Self {
            cache,
            engine: engine.clone(),
            seed,
            library: crate::script::Library::default(),
            saves: Arc::default(),
            repl,
            topology,
            ports,
            log,
        }
    }

    /// Puts the cache on a shard, loads its keys and starts listening.
    ///
    /// # Errors
    /// An address is taken, or not this host's; the dump is not one, or not whole.
    ///
    /// # Panics
    /// When called twice for a shard.
    pub fn install(&self, cx: &ShardCx) -> Result<Rc<Server<Cache>>, Error> {
        let port = {
            let mut ports = self.ports.lock().expect("no shard panics while it takes its port");
            ports[cx.index()].take().expect("a cache is installed once per shard")
        };
        let mut shard = Shard::new(self.shard_config(cx.index()), cx.now());
        if self.cache.appendonly {
            self.saves.begin(cx.now());
            shard.begin_log(self.cache.appendfsync, self.log.common(), cx.now());
        } else {
            self.load(&mut shard, cx)?;
        }
        let shard = Rc::new(RefCell::new(shard));
        let server = start(cx, shard, port, ServerConfig::new(&self.engine));
        cx.spawn("cache log", aof::host::run(Rc::clone(&server), self.log.clone()));
        self.listen(&server)?;
        if let Some(address) = self.cache.memcached {
            let door = memcached::start(cx, &server, ServerConfig::new(&self.engine));
            door.listen(address, Via::Shared)?;
        }
        Ok(server)
    }

    /// Loads the dump, if there is one.
    fn load(&self, shard: &mut Shard, cx: &ShardCx) -> Result<(), Error> {
        let (now, dir) = (cx.now(), &self.cache.dir);
        self.saves.begin(now);
        if let Some((path, loaded)) = load::load_dump(shard, dir, &self.cache.dbfilename, cx)? {
            let file = path.display().to_string();
            let pairs: [(&str, &dyn std::fmt::Display); 4] = [
                ("file", &file),
                ("keys", &loaded.keys),
                ("expired", &loaded.expired),
                ("skipped", &loaded.skipped),
            ];
            cx.log().info("cache", now, "loaded", &pairs);
            if loaded.skipped > 0 {
                let what = "functions and modules' data in the dump were not loaded";
                cx.log().warn("cache", now, what, &[("count", &loaded.skipped)]);
            }
        }
        Ok(())
    }

    fn listen(&self, server: &Server<Cache>) -> Result<(), Error> {
        let (cache, index) = (&self.cache, server.cx().index());
        if cache.has_shard_ports {
            server.listen(cache.shard_address(index), Via::Shard)?;
        }
        for (address, optional) in cache.addresses(cache.address.port()) {
            let listening = server.listen(address, Via::Shared);
            if !optional {
                listening?;
            }
        }
        if let Some((port, tls)) = &cache.tls {
            for (address, optional) in cache.addresses(*port) {
                let listening = server.listen_tls(address, Via::Shared, tls);
                if !optional {
                    listening?;
                }
            }
        }
        if index > 0 {
            return Ok(());
        }
        cache.clock_us.store(server.cx().now().unix_us, Ordering::Relaxed);
        let Some(path) = cache.unix.clone() else { return Ok(()) };
        server.listen_unix(path.clone())?;
        if let Some(mode) = cache.unix_mode {
            std::fs::set_permissions(&path, Permissions::from_mode(mode))
                .map_err(|source| Error::io("chmod", source, path.display().to_string()))?;
        }
        Ok(())
    }

    fn shard_config(&self, index: usize) -> ShardConfig {
        ShardConfig {
            index: u16::try_from(index).unwrap_or(u16::MAX),
            topology: self.topology.clone(),
            seed: self.seed,
            databases: self.cache.databases,
            maxmemory_bytes: self.cache.maxmemory_bytes,
            policy: self.cache.policy,
            samples: self.cache.samples,
            tcp_port: self.cache.address.port(),
            requirepass: self.cache.requirepass.clone(),
            process_id: std::process::id(),
            max_clients: u32::try_from(self.engine.clients_max).unwrap_or(u32::MAX),
            library: self.library.clone(),
            dir: self.cache.dir.display().to_string(),
            dbfilename: self.cache.dbfilename.clone(),
            save: self.cache.save.clone(),
            rdb_compression: self.cache.rdb_compression,
            rdb_checksum: self.cache.rdb_checksum,
            save_per_shard: self.cache.save_per_shard,
            saves: Arc::clone(&self.saves),
            repl: Arc::clone(&self.repl),
            memcached_port: self.cache.memcached.map_or(0, |address| address.port()),
            item_max_bytes: self.cache.item_max_bytes,
            settings: self.cache.settings.clone(),
            users: self.cache.users.clone(),
            config_file: self.cache.config_file.clone(),
            protects: self.cache.protects,
        }
    }
}

/// All shards, which share it.
fn topology(cache: &CacheConfig, shards: usize) -> Topology {
    let host = cache.announced();
    // Without ports of their own, all shards are where the shared port is.
    let shared = cache.address.port();
    let own = |shard| cache.shard_address(shard).port();
    let port = |shard| if cache.has_shard_ports { own(shard) } else { shared };
    let ports = (0..shards).map(port).collect();
    // Ids of nodes depend on the address alone, so that they survive a restart.
    Topology::new(&host, ports, u64::from(cache.address.port()))
}

/// Starts a cache on a shard, listening nowhere yet.
pub fn start(
    cx: &ShardCx,
    shard: Rc<RefCell<Shard>>,
    port: CallsPort<Request, Response>,
    config: ServerConfig,
) -> Rc<Server<Cache>> {
    let cache = Cache {
        calls: Calls::new(cx, port),
        clients_max: config.clients_max,
        unlocked: Notify::default(),
        locks_seen: Cell::new(0),
        asked: RefCell::default(),
        answers: RefCell::default(),
        exchanges: RefCell::default(),
        shard: Rc::clone(&shard),
        late: RefCell::default(),
        is_late: Notify::default(),
        deadlines: Notify::default(),
        deadlines_seen: Cell::new(0),
        saves: Turns::default(),
        memcached: OnceCell::new(),
        log: aof::host::Host::default(),
        repl: repl::Host::default(),
        flows: flow::Host::default(),
    };
    let clock = cx.clone();
    let micros = move || clock.driver().now().mono_ns / 1_000;
    shard.borrow_mut().set_script_clock(Box::new(micros));
    let clock = cx.clone();
    shard.borrow_mut().set_clock(Box::new(move || clock.driver().mono_ns()));
    let server = Server::new(cx, cache, shard, config);
    crate::metrics::install(&server);
    cx.spawn("cache housekeeping", housekeeping::run(Rc::clone(&server)));
    cx.spawn("cache deadlines", deadlines(Rc::clone(&server)));
    cx.spawn("cache post", post_late(Rc::clone(&server)));
    if cx.index() == 0 {
        cx.spawn("cache replica", repl::link::run(Rc::clone(&server)));
    }
    server
}

/// Sends what found no room when it came, in order.
async fn post_late(server: Rc<Server<Cache>>) {
    let cache = server.service();
    loop {
        let next = cache.late.borrow_mut().pop_front();
        match next {
            None => cache.is_late.notified().await,
            // Meanwhile nothing overtakes: who asks without waiting is told that somebody waits.
            Some((to, request)) => drop(cache.calls.start(usize::from(to), request).await),
        }
    }
}

/// Ends the waits of commands whose time is over.
async fn deadlines(server: Rc<Server<Cache>>) {
    let cx = server.cx().clone();
    let cache = server.service();
    loop {
        let next_ns = server.shard().borrow().next_deadline_ns();
        match next_ns {
            None => cache.deadlines.notified().await,
            Some(next_ns) => {
                let pause_ns = next_ns.saturating_sub(cx.now().mono_ns);
                within(cache.deadlines.notified(), cx.sleep(pause_ns)).await;
            }
        }
        server.shard().borrow_mut().time_out(cx.now());
        cache.carry(&server);
    }
}

/// Connections that get their messages in one turn.
const DELIVERIES_PER_TURN: usize = 1024;
/// No further connection gets its messages in a turn that has handed over so much.
const DELIVERED_BYTES_PER_TURN: usize = 2 << 20;

/// Who waits for an answer of this shard.
enum Waiter {
    Remote(Asker),
    Local(Sender<Response>),
    Nobody,
}

/// Requests this shard has not answered; the index is the request's token.
#[derive(Default)]
struct Asked {
    waiters: Vec<Option<Waiter>>,
    free: Vec<usize>,
}

impl Asked {
    fn insert(&mut self, waiter: Waiter) -> u64 {
        if let Some(index) = self.free.pop() {
            self.waiters[index] = Some(waiter);
            return index as u64;
        }
        self.waiters.push(Some(waiter));
        self.waiters.len() as u64 - 1
    }

    fn remove(&mut self, token: u64) -> Option<Waiter> {
        let index = usize::try_from(token).ok()?;
        let waiter = self.waiters.get_mut(index)?.take();
        self.free.push(index);
        waiter
    }
}

/// Whose connection waits for an exchange.
#[derive(Clone, Copy)]
pub(crate) enum Owner {
    /// This server's.
    Resp(ConnId),
    /// The one of memcached's protocol.
    Memcached(ConnId),
}

/// A pipeline's batches that other shards run.
struct Exchange {
    owner: Owner,
    responses: Vec<Option<Response>>,
    missing: usize,
}

/// Exchanges under way, by number.
#[derive(Default)]
struct Exchanges {
    slots: Vec<Option<Exchange>>,
    free: Vec<usize>,
}

/// A token names the exchange, and in its low bits which of the exchange's requests.
const REQUEST_BITS: u32 = 16;

impl Exchanges {
    fn insert(&mut self, exchange: Exchange) -> u64 {
        if let Some(index) = self.free.pop() {
            self.slots[index] = Some(exchange);
            return index as u64;
        }
        self.slots.push(Some(exchange));
        self.slots.len() as u64 - 1
    }

    /// Takes a response; the exchange, when that was the last.
    fn answered(&mut self, token: u64, response: Response) -> Option<Exchange> {
        let index = (token >> REQUEST_BITS) as usize;
        let request = (token & ((1 << REQUEST_BITS) - 1)) as usize;
        let slot = self.slots.get_mut(index)?;
        let exchange = slot.as_mut()?;
        *exchange.responses.get_mut(request)? = Some(response);
        exchange.missing -= 1;
        if exchange.missing > 0 {
            return None;
        }
        self.free.push(index);
        slot.take()
    }
}

/// The cache of one shard.
pub struct Cache {
    calls: Rc<Calls<Request, Response>>,
    clients_max: usize,
    unlocked: Notify,
    locks_seen: Cell<u64>,
    asked: RefCell<Asked>,
    answers: RefCell<Vec<(u64, Response)>>,
    exchanges: RefCell<Exchanges>,
    shard: Rc<RefCell<Shard>>,
    /// Requests nobody waits for, to shards that were behind.
    late: RefCell<VecDeque<(u16, Request)>>,
    is_late: Notify,
    /// An earlier deadline of a command that blocks has come.
    deadlines: Notify,
    deadlines_seen: Cell<u64>,
    /// Who writes the dump.
    pub(crate) saves: Turns,
    /// The server of memcached's protocol, when there is one.
    memcached: OnceCell<Weak<Server<Memcached>>>,
    /// The append-only log.
    log: aof::host::Host,
    repl: repl::Host,
    flows: flow::Host,
}

impl Cache {
    /// Tells where answers for connections of memcached's protocol go.
    pub(crate) fn set_memcached(&self, server: &Rc<Server<Memcached>>) {
        let set = self.memcached.set(Rc::downgrade(server));
        debug_assert!(set.is_ok(), "there is one door");
    }

    pub(crate) const fn log(&self) -> &aof::host::Host {
        &self.log
    }

    pub(crate) const fn repl(&self) -> &repl::Host {
        &self.repl
    }

    pub(crate) const fn flows(&self) -> &flow::Host {
        &self.flows
    }

    /// Does what a session waits for.
    pub(crate) fn work(
        server: Rc<Server<Self>>,
        work: Work,
    ) -> impl Future<Output = Done> + 'static {
        // Taken now: a lock released before the task first runs must not be missed.
        let generation = server.shard().borrow().locks_generation();
        async move {
            match work {
                Work::Exchange(requests) => Done::Exchange(Self::exchange(server, requests).await),
                Work::Locked => {
                    Self::unlocked(server, generation).await;
                    Done::Unlocked
                }
                Work::Job(job) => Done::Job(Self::ask(&server, 0, Request::Job(job)).await),
                Work::Durable { to } => {
                    Done::Durable { is_so: aof::host::durable(server, to).await }
                }
                Work::Sleep { us } => {
                    server.cx().sleep(us.saturating_mul(1_000)).await;
                    Done::Slept
                }
            }
        }
    }

    /// Takes the answer of another shard to one of a connection's batches.
    fn answered(&self, server: &Server<Self>, token: u64, response: Response) {
        let exchange = self.exchanges.borrow_mut().answered(token, response);
        if let Some(exchange) = exchange {
            let done = Done::Exchange(exchange.responses.into_iter().flatten().collect());
            match exchange.owner {
                Owner::Resp(conn) => server.done(conn, done),
                Owner::Memcached(conn) => {
                    if let Some(door) = self.memcached.get().and_then(Weak::upgrade) {
                        door.done(conn, done);
                    }
                }
            }
        }
    }

    /// Handles a request to this shard; answers whatever can be answered now.
    fn serve(&self, server: &Rc<Server<Self>>, waiter: Waiter, request: Request) {
        let request = match request {
            Request::Job(job) => return Self::begin_job(server, waiter, job),
            Request::Flow { group, flow } => {
                let task = Rc::clone(server);
                server.cx().spawn("cache flow in", flow::follow::run(task, group, flow));
                return self.answer(waiter, Response::Done);
            }
            Request::Load { path } => return Self::begin_load(server, waiter, path),
            request => request,
        };
        let token = self.asked.borrow_mut().insert(waiter);
        let mut answers = std::mem::take(&mut *self.answers.borrow_mut());
        let needs = {
            let mut shard = server.shard().borrow_mut();
            shard.log_look();
            shard.serve(token, request, server.cx().now(), &mut answers);
            shard.log_needs()
        };
        // What was published on the way comes before the answer.
        self.send_posts();
        for (token, response) in answers.drain(..) {
            let needs = if aof::host::is_exact(&response) { needs } else { Some(u64::MAX) };
            self.answer_logged(token, response, needs);
        }
        *self.answers.borrow_mut() = answers;
    }

    /// Answers a request that was asked of this shard, when the log is durable as far as the answer needs, if that is
    /// asked for.
    fn answer_logged(&self, token: u64, response: Response, needs: Option<u64>) {
        if self.log.is_on.get() && aof::host::may_wait(&response) {
            let waits = self.shard.borrow().awaits_log().zip(needs);
            if let Some((end, needs)) = waits {
                return self.log.keep(end.min(needs), token, response);
            }
        }
        self.answer_now(token, response);
    }

    /// Answers a request now.
    pub(crate) fn answer_now(&self, token: u64, response: Response) {
        let waiter = self.asked.borrow_mut().remove(token);
        if let Some(waiter) = waiter {
            self.answer(waiter, response);
        }
    }

    /// Carries what the shard has for others: answers that had to wait, and requests nobody waits for.
    fn carry(&self, server: &Rc<Server<Self>>) {
        while server.shard().borrow().has_outgoing() {
            let (served, outbox) = {
                let mut shard = server.shard().borrow_mut();
                (shard.take_served(), shard.take_outbox())
            };
            for (token, response) in served {
                self.answer_logged(token, response, Some(u64::MAX));
            }
            for (to, request) in outbox {
                if usize::from(to) == server.cx().index() {
                    self.serve(server, Waiter::Nobody, request);
                } else {
                    self.post(to, request);
                }
            }
        }
        let generation = server.shard().borrow().deadlines_generation();
        if self.deadlines_seen.replace(generation) != generation {
            self.deadlines.notify_all();
        }
    }

    /// Sends a request nobody waits for: now, or, when its shard is behind, when that has room.
    fn post(&self, to: u16, request: Request) {
        let mut late = self.late.borrow_mut();
        if late.is_empty() {
            match self.calls.try_ask(usize::from(to), request, NOBODY) {
                Ok(()) => return,
                Err(request) => late.push_back((to, request)),
            }
        } else {
            late.push_back((to, request));
        }
        self.is_late.notify_all();
    }

    fn answer(&self, waiter: Waiter, response: Response) {
        match waiter {
            Waiter::Remote(asker) => self.calls.answer(asker, response),
            Waiter::Local(sender) => sender.send(response),
            Waiter::Nobody => {}
        }
    }

    /// Does what a session asked the first shard for, and answers when that is done.
    fn begin_job(server: &Rc<Server<Self>>, waiter: Waiter, job: Job) {
        let task = Rc::clone(server);
        server.cx().spawn("cache job", async move {
            let response = save::perform(Rc::clone(&task), job).await;
            task.service().answer(waiter, response);
        });
    }

    /// Loads this shard's keys of a master's data set, and answers when that is done.
    fn begin_load(server: &Rc<Server<Self>>, waiter: Waiter, path: String) {
        let task = Rc::clone(server);
        server.cx().spawn("cache replica load", async move {
            let response = repl::load_own(&task, &path).await;
            task.service().answer(waiter, response);
        });
    }

    /// Asks one shard, which may be this one.
    pub(crate) async fn ask(server: &Rc<Server<Self>>, shard: u16, request: Request) -> Response {
        let mut responses = Self::exchange(Rc::clone(server), vec![(shard, request)]).await;
        let gone = || Response::Error(b"ERR a shard has stopped".to_vec());
        responses.pop().unwrap_or_else(gone)
    }

    pub(crate) async fn exchange(
        server: Rc<Server<Self>>,
        requests: Vec<(u16, Request)>,
    ) -> Vec<Response> {
        let mut pending: Vec<Receiver<Response>> = Vec::with_capacity(requests.len());
        let cache = server.service();
        for (target, request) in requests {
            let target = usize::from(target);
            if target == server.cx().index() {
                let (sender, receiver) = once();
                cache.serve(&server, Waiter::Local(sender), request);
                pending.push(receiver);
            } else {
                pending.push(cache.calls.start(target, request).await);
            }
        }
        let mut responses = Vec::with_capacity(pending.len());
        for receiver in pending {
            let gone = || Response::Error(b"ERR a shard has stopped".to_vec());
            responses.push(receiver.recv().await.unwrap_or_else(gone));
        }
        responses
    }

    /// Tells the log's writer, and flows, of what the turn has logged.
    fn wake_log(&self) {
        if self.flows.is_on() {
            self.flows.wake(&self.shard.borrow());
        }
        if self.log.is_on.get() {
            let (has_entries, awaits) = {
                let shard = self.shard.borrow();
                (shard.has_log_entries(), shard.awaits_log().is_some())
            };
            self.log.wake(has_entries, awaits);
        }
    }

    /// Sends the requests that nobody waits for, as far as there is room.
    fn send_posts(&self) {
        let mut shard = self.shard.borrow_mut();
        while let Some((to, request)) = shard.take_post() {
            if let Err(request) = self.calls.try_ask(usize::from(to), request, NOBODY) {
                shard.put_back(to, request);
                break;
            }
        }
    }

    /// Hands monitors what they are to read.
    fn show(&self, server: &Server<Self>) {
        if !self.shard.borrow().has_lines() {
            return;
        }
        let (lines, names) = self.shard.borrow_mut().take_lines();
        for name in names {
            // One that does not read, or is gone, misses them.
            server.push(ConnId::from_bits(name), |_, out| {
                if out.len() < MONITOR_OUTPUT_MAX_BYTES {
                    out.push(lines.clone());
                }
            });
        }
    }

    /// Empties mailboxes, as many as a turn may; whether more have mail.
    fn deliver(server: &Server<Self>) -> bool {
        let mut written = 0;
        for _ in 0..DELIVERIES_PER_TURN {
            let Some((slot, name)) = server.shard().borrow_mut().next_addressee() else {
                return false;
            };
            let (conn, mut over) = (ConnId::from_bits(name), false);
            let taken = server.push(conn, |_, out| {
                over = server.shard().borrow_mut().deliver(slot, out, server.cx().now());
                written += out.len();
            });
            if !taken {
                server.shard().borrow_mut().discard_mail(slot);
            } else if over {
                server.close(conn);
            }
            if written >= DELIVERED_BYTES_PER_TURN {
                break;
            }
        }
        server.shard().borrow().has_mail()
    }

    async fn unlocked(server: Rc<Server<Self>>, generation: u64) {
        while server.shard().borrow().locks_generation() == generation {
            server.service().unlocked.notified().await;
        }
    }

    /// Sends an exchange's requests to other shards when all of them have room.
    pub(crate) fn begin(&self, owner: Owner, work: Work) -> Option<Work> {
        let Work::Exchange(requests) = work else { return Some(work) };
        let direct = |(to, request): &(u16, Request)| {
            let quick = matches!(
                request,
                Request::Batch(_)
                    | Request::Memcached(_)
                    | Request::Op { op: Op::Publish { .. }, .. }
            );
            quick && self.calls.has_room(usize::from(*to))
        };
        if requests.is_empty() || !requests.iter().all(direct) {
            return Some(Work::Exchange(requests));
        }
        let missing = requests.len();
        let responses = (0..missing).map(|_| None).collect();
        let number = self.exchanges.borrow_mut().insert(Exchange { owner, responses, missing });
        for (index, (to, request)) in requests.into_iter().enumerate() {
            let token = number << REQUEST_BITS | index as u64;
            let sent = self.calls.try_ask(usize::from(to), request, token);
            assert!(sent.is_ok(), "there was room for one request to each shard");
        }
        None
    }

    fn close_killed(server: &Server<Self>) {
        if !server.shard().borrow().has_kills() {
            return;
        }
        let ids = server.shard().borrow_mut().take_kills();
        server.finish_where(|session| ids.contains(&session.id()));
    }
}

impl Service for Cache {
    type Session = Session;
    type Shard = Shard;
    type Work = Work;
    type Done = Done;

    fn open(&self, info: ConnInfo, shard: &mut Shard) -> Result<Session, Vec<u8>> {
        if shard.protects_from(&info.peer) {
            return Err(clients::PROTECTED.to_vec());
        }
        if shard.client_count() >= self.clients_max {
            return Err(b"-ERR max number of clients reached\r\n".to_vec());
        }
        let info = clients::ConnInfo {
            id: info.id,
            peer: &info.peer.to_string(),
            local: &info.local.to_string(),
            conn: info.conn.to_bits(),
            fd: info.fd,
            shard_port: info.via == Via::Shard,
        };
        Ok(Session::new(info, shard, self.calls.now()))
    }

    fn start(&self, conn: ConnId, work: Work) -> Option<Work> {
        self.begin(Owner::Resp(conn), work)
    }

    fn perform(
        &self,
        server: &Rc<Server<Self>>,
        _conn: ConnId,
        work: Work,
    ) -> impl Future<Output = Done> + 'static {
        Self::work(Rc::clone(server), work)
    }

    fn on_turn(&self, server: &Rc<Server<Self>>) -> bool {
        if self.flows.is_on() {
            server.shard().borrow_mut().flows.is_crowded = self.calls.is_crowded();
        }
        let more = self.calls.turn(
            |asker, request| self.serve(server, Waiter::Remote(asker), request),
            |token, response| self.answered(server, token, response),
        );
        let generation = server.shard().borrow().locks_generation();
        if self.locks_seen.replace(generation) != generation {
            self.unlocked.notify_all();
        }
        Self::close_killed(server);
        if server.shard().borrow().has_notes() {
            server.shard().borrow_mut().tell_all();
        }
        server.shard().borrow_mut().pace_snapshot();
        if self.repl.look(&mut server.shard().borrow_mut()) {
            flow::serve::turn(server);
        }
        self.carry(server);
        self.send_posts();
        self.show(server);
        self.wake_log();
        if self.shard.borrow().wants_to_stop() {
            engine::signal::ask_to_stop();
            self.shard.borrow_mut().stopping();
        }
        let has_mail = server.shard().borrow().has_mail();
        more | (has_mail && Self::deliver(server))
    }

    fn end_turn(&self) {
        self.send_posts();
        self.wake_log();
        self.calls.flush();
    }

    fn park(&self) -> bool {
        // What a task left is carried by the next turn.
        let waits = {
            let shard = self.shard.borrow();
            let read = shard.has_mail() || shard.has_notes() || shard.has_lines();
            read || shard.has_outgoing() || shard.wants_to_stop()
        };
        !waits && self.calls.park()
    }

    fn unpark(&self) {
        self.calls.unpark();
    }

    fn has_messages(&self) -> bool {
        self.calls.has_messages()
    }
}
