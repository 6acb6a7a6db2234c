//! A run: shards and clients from a seed, chaos, then peace, the end of the shards, and what must
//! hold when all is over.

use std::fmt;

use cache::route::Topology;
use cache::serve::Cache;
use cache::work::{Batch, Response};
use engine::driver::sim::{Plant, World, WorldStats};
use engine::error::Error;
use engine::rng::{Rng, Seed};
use wire::resp::{Reply, decode_reply};

use crate::client::{Client, Moment};
use crate::command::frame;
use crate::draw::{counter_name, group_name, key_name, place_name};
use crate::machine::{Machine, start_cache};
use crate::queue::{QUEUES, queue_name};
use crate::setup::Setup;
use crate::shared::{Common, PLACES, TOKEN, show};

/// Steps without time passing before a run is a livelock.
const STEPS_PER_TIME_MAX: u32 = 100_000;
/// Longest run after which somebody must be stuck: resent connection requests take a minute.
const RUN_MAX_NS: u64 = 400_000_000_000;
/// A shard's own tasks: housekeeping, deadlines of commands that block, late requests.
const TASKS: usize = 3;
/// And the first shard's: the link to a master.
const FIRST_TASKS: usize = TASKS + 1;
const COUNTERS: usize = 2;
const GROUPS: usize = 2;

/// A bug planted on purpose: a run must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Buffers of sends are freed while in flight.
    EarlyFree,
    /// Doorbells are not heard.
    DropBells,
    /// A shard goes to sleep without looking once more.
    BlindPark,
    /// The broker acknowledges before the sync.
    EarlyAck,
    /// It does so for the commits of groups.
    StaleCommit,
    /// It serves sealed segments as they are on the disk.
    KeepBadSealed,
}

impl Bug {
    /// The bugs and their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("early-free", Self::EarlyFree),
        ("drop-bells", Self::DropBells),
        ("blind-park", Self::BlindPark),
        ("early-ack", Self::EarlyAck),
        ("stale-commit", Self::StaleCommit),
        ("keep-bad-sealed", Self::KeepBadSealed),
    ];
}

/// A service that can be simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// The cache.
    #[default]
    Cache,
    /// The log broker.
    Broker,
}

impl Service {
    /// The services and their names.
    pub const ALL: [(&'static str, Self); 2] = [("cache", Self::Cache), ("broker", Self::Broker)];
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, known)| known == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is simulated.
    pub service: Service,
    /// The short setup without faults of its own.
    pub calm: bool,
    /// Make this completion fail.
    pub fail_completion: Option<u64>,
    /// Make this plain call fail.
    pub fail_call: Option<u64>,
    /// Plant a bug.
    pub bug: Option<Bug>,
    /// Of the cache: the run in which keys survive crashes, whatever the seed would be.
    pub durable: bool,
    /// Of the cache: the run of two of which one follows the other.
    pub replicated: bool,
    /// Keep the clients' story.
    pub story: bool,
}

impl Options {
    /// Whether the seed alone says what happens.
    const fn is_plain(self) -> bool {
        !self.calm
            && self.fail_completion.is_none()
            && self.fail_call.is_none()
            && self.bug.is_none()
    }
}

/// As `sim` takes them.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.calm {
            f.write_str(" --calm")?;
        }
        if self.durable {
            f.write_str(" --durable")?;
        }
        if self.replicated {
            f.write_str(" --replicated")?;
        }
        if let Some(n) = self.fail_completion {
            write!(f, " --fail {n}")?;
        }
        if let Some(n) = self.fail_call {
            write!(f, " --fail-call {n}")?;
        }
        let name = |bug| Bug::ALL.iter().find(|(_, known)| *known == bug);
        match self.bug.and_then(name) {
            Some((name, _)) => write!(f, " --plant {name}"),
            None => Ok(()),
        }
    }
}

/// What a run that ended well tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened.
    pub hash: u64,
    /// Replies checked.
    pub replies: u64,
    /// Steps of shards and clients.
    pub steps: u64,
    /// Virtual time it took.
    pub virtual_ns: u64,
    /// What the world did.
    pub stats: WorldStats,
    /// What was seen how often.
    pub marks: Vec<(&'static str, u64)>,
    /// What clients did, if asked for.
    pub story: Vec<String>,
}

/// A run that found a bug.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// How it was run.
    pub options: Options,
    /// The failing check.
    pub what: String,
    /// The last completions.
    pub recent: Vec<String>,
    /// The last of what clients did, if asked for.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.story.iter().chain(&self.recent) {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{}", self.what)?;
        write!(f, "sim --service {} --seed {}{}", self.options.service, self.seed, self.options)
    }
}

struct Run {
    world: World,
    topology: Topology,
    machine: Machine<Cache>,
    clients: Vec<Client>,
    common: Common,
    rng: Rng,
    healed: bool,
    steps: u64,
    steps_at_time: u32,
    started_ns: u64,
    ready: Vec<usize>,
}

/// Runs a seed.
///
/// # Errors
/// A check failed.
///
/// # Panics
/// When the simulated kernel or the engine finds a bug by itself.
pub fn run(seed: u64, options: Options) -> Result<Report, Failure> {
    let is_plain = options.is_plain() && !options.replicated;
    match options.service {
        Service::Cache if options.durable || is_plain && crate::durable::is_drawn(seed) => {
            crate::durable::run(seed, options)
        }
        Service::Cache if options.replicated => crate::replicated::run(seed, options),
        Service::Cache => run_cache(seed, options),
        Service::Broker => crate::broker::run(seed, options),
    }
}

fn run_cache(seed: u64, options: Options) -> Result<Report, Failure> {
    let setup = if options.calm { Setup::calm(seed) } else { Setup::draw(seed) };
    let world = World::new(seed, setup.faults.clone());
    if let Some(n) = options.fail_completion {
        world.fail_completion(n);
    }
    if let Some(n) = options.fail_call {
        world.fail_call(n);
    }
    match options.bug {
        Some(Bug::EarlyFree) => world.plant(Plant::EarlyFree),
        Some(Bug::DropBells) => world.plant(Plant::DropBells),
        // The others are the broker's, or planted elsewhere.
        Some(_) | None => {}
    }
    let (mut machine, started) = start_cache(&world, &setup);
    machine.blind = options.bug == Some(Bug::BlindPark);
    let mut run = Run::new(world, machine, &setup, seed);
    run.common.breaks |= options.fail_completion.is_some();
    run.common.story = options.story.then(Vec::new);
    let result = match started {
        Ok(()) => run.course(&setup),
        Err(error) => run.course_without_listener(&error),
    };
    match result.and_then(|()| run.teardown()) {
        Ok(()) => Ok(run.report()),
        Err(what) => Err(run.failure(seed, options, what)),
    }
}

impl Run {
    fn new(world: World, machine: Machine<Cache>, setup: &Setup, seed: u64) -> Self {
        let seed = Seed(seed);
        let client = |number| {
            Client::new(
                number,
                seed.stream("sim.client", number as u64),
                setup.shape.clone(),
                setup.addresses.clone(),
                (setup.batches, setup.pipeline_max),
            )
        };
        let mut group_len = seed.stream("sim.group", 0);
        let mut common =
            Common::new(COUNTERS, GROUPS, group_len.between(2, 5) as usize, setup.shape.flushes);
        common.breaks = setup.breaks();
        Self {
            started_ns: world.now().mono_ns,
            world,
            topology: setup.addresses.topology.clone(),
            machine,
            clients: (0..setup.clients).map(client).collect(),
            common,
            rng: seed.stream("sim.schedule", 0),
            healed: false,
            steps: 0,
            steps_at_time: 0,
            ready: Vec::new(),
        }
    }

    fn moment(&self) -> Moment {
        let now = self.world.now();
        Moment { now_ns: now.mono_ns, now_ms: now.unix_ms(), healed: self.healed }
    }

    /// The whole run up to the end of the shards.
    fn course(&mut self, setup: &Setup) -> Result<(), String> {
        let placed = self.ask(0, &[b"SET", &place_name(0), TOKEN])?;
        if placed != Reply::Simple(b"OK".to_vec()) {
            return Err(format!("the token was not placed: {}", show(&placed)));
        }
        let stop_after = setup.stop_after.unwrap_or(u64::MAX);
        self.until("the clients' work", |run| {
            run.common.replies >= stop_after || run.clients.iter().all(Client::is_through)
        })?;
        self.healed = true;
        self.world.heal();
        if setup.stop_after.is_none() {
            self.until("the clients' end", |run| run.clients.iter().all(Client::is_done))?;
        }
        self.stop()?;
        self.until("the shards' end", |run| {
            run.machine.is_stopped() && run.clients.iter().all(Client::is_done)
        })?;
        self.quiet()?;
        self.audit()
    }

    fn stop(&mut self) -> Result<(), String> {
        self.common.stopping = true;
        self.common.tell(|| "the shards are told to stop".into());
        let mut order: Vec<usize> = (0..self.machine.nodes.len()).collect();
        self.rng.shuffle(&mut order);
        for index in order {
            self.machine.stop(index);
            for _ in 0..self.rng.below(20) {
                self.step()?;
            }
        }
        Ok(())
    }

    /// A listener could not be opened: the error says so, and nothing stays behind.
    fn course_without_listener(&mut self, error: &Error) -> Result<(), String> {
        if !error.to_string().contains("127.0.0.1") {
            return Err(format!("an error that does not name the address: {error}"));
        }
        self.clients.clear();
        self.stop()?;
        self.until("the shards' end", |run| run.machine.is_stopped())
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        while !done(self) {
            if !self.step()? {
                return Err(format!("stuck in {what}: nothing is to come\n{}", self.describe()));
            }
            if self.world.now().mono_ns - self.started_ns > RUN_MAX_NS {
                return Err(format!("stuck in {what}\n{}", self.describe()));
            }
        }
        Ok(())
    }

    /// One step of a shard, of a client, or of the world; false when nothing is to come.
    fn step(&mut self) -> Result<bool, String> {
        self.steps += 1;
        self.steps_at_time += 1;
        if self.steps_at_time > STEPS_PER_TIME_MAX {
            return Err(format!("livelock\n{}", self.describe()));
        }
        self.ready.clear();
        self.machine.ready(&mut self.ready)?;
        let shards = self.ready.len();
        let at = self.moment();
        let due = |client: &Client| !client.is_done() && client.wake_ns <= at.now_ns;
        let clients = (0..self.clients.len()).filter(|index| due(&self.clients[*index]));
        self.ready.extend(clients);
        let soon = self.world.next_event_time().is_some_and(|next| next < at.now_ns + 100_000);
        if self.ready.is_empty() || (soon && self.rng.chance(1, 8)) {
            return Ok(self.pass_time());
        }
        let pick = self.rng.index(self.ready.len());
        let index = self.ready[pick];
        if pick < shards {
            self.machine.step(index, &mut self.rng);
        } else {
            self.clients[index].act(&self.world, &mut self.common, at)?;
        }
        Ok(true)
    }

    fn pass_time(&mut self) -> bool {
        let before_ns = self.world.now().mono_ns;
        let waiting = self.clients.iter().filter(|client| !client.is_done());
        let wake_ns = waiting.map(|client| client.wake_ns).min();
        let passed = match (wake_ns, self.world.next_event_time()) {
            (None, None) => false,
            (Some(wake_ns), event) if event.is_none_or(|event| wake_ns < event) => {
                self.world.advance_to(wake_ns.max(before_ns));
                true
            }
            _ => self.world.advance(),
        };
        if self.world.now().mono_ns > before_ns {
            self.steps_at_time = 0;
        }
        passed
    }

    // What must hold at the end.

    /// Notes what the shards went through, so that a test can demand it.
    fn mark_shards(&mut self) {
        for node in &self.machine.nodes {
            let (net, shard) = (node.server.stats(), node.server.shard().borrow());
            let stats = shard.stats();
            for (what, count) in [
                ("receives starved", net.starved),
                ("inputs paused", net.paused),
                ("accepts failed", net.accept_errors),
                ("waits for locks", stats.lock_waits),
                ("messages between shards", stats.hop_requests),
                ("keys expired", shard.store().stats().expired),
            ] {
                *self.common.marks.entry(what).or_default() += count;
            }
        }
    }

    /// The shards have let go of everything.
    fn quiet(&mut self) -> Result<(), String> {
        self.mark_shards();
        for node in &self.machine.nodes {
            let (cx, shard) = (&node.cx, node.server.shard().borrow());
            let pool = cx.driver().pool().clone();
            let own_tasks = if cx.index() == 0 { FIRST_TASKS } else { TASKS };
            let facts = [
                ("connections", node.server.live(), 0),
                ("sessions", shard.client_count(), 0),
                ("tasks of connections", cx.task_count().saturating_sub(own_tasks), 0),
                ("receive buffers", pool.available() as usize, pool.config().buffers.into()),
            ];
            for (what, found, expected) in facts {
                if found != expected {
                    return Err(format!("{cx:?} ends with {found} {what}, expected {expected}"));
                }
            }
            drop(shard);
            let nothing =
                node.server.shard().borrow_mut().execute_batch(Batch::default(), cx.now());
            if nothing.is_none() {
                return Err(format!("{cx:?} ends with keys locked"));
            }
        }
        Ok(())
    }

    /// Runs a command on the shard that owns its key, from within.
    fn ask(&self, db: usize, words: &[&[u8]]) -> Result<Reply, String> {
        let key = words.get(1).copied().unwrap_or_default();
        let owner = self.topology.owner_of(key);
        let node = &self.machine.nodes[usize::from(owner)];
        let batch = Batch::of(db as u16, frame(words));
        let response = node.server.shard().borrow_mut().execute_batch(batch, self.world.now());
        let Some(Response::Batch(batch)) = response else {
            return Err(format!("shard {owner} does not answer at the end"));
        };
        let decoded = decode_reply(&batch.out.to_vec());
        decoded.ok().flatten().map(|(reply, _)| reply).ok_or_else(|| "no reply".into())
    }

    /// Every key's value is one it may have.
    fn audit(&mut self) -> Result<(), String> {
        let at = self.moment();
        for index in 0..self.clients.len() {
            let db = self.clients[index].db();
            for key in 0..self.clients[index].keys() {
                let reply = self.ask(db, &[b"GET", &key_name(key)])?;
                self.clients[index].audit(key, &reply, &mut self.common, at)?;
            }
        }
        for counter in 0..self.common.counters() {
            let found = match self.ask(0, &[b"GET", &counter_name(counter)])? {
                Reply::Bulk(text) => String::from_utf8_lossy(&text).parse().unwrap_or(-1),
                _ => 0,
            };
            self.common.count_final(counter, found)?;
        }
        for group in 0..self.common.groups() {
            let keys = 0..self.common.group_len;
            let read = keys.map(|key| self.ask(0, &[b"GET", &group_name(group, key)]));
            let values = read.collect::<Result<Vec<_>, _>>()?;
            if values.iter().any(|value| *value != values[0]) {
                return Err(format!("group {group} differs at the end"));
            }
        }
        let mut left = Vec::new();
        for queue in 0..QUEUES {
            let Reply::Array(items) = self.ask(0, &[b"LRANGE", &queue_name(queue), b"0", b"-1"])?
            else {
                return Err(format!("queue {queue} is no list at the end"));
            };
            left.extend(items.iter().filter_map(|item| match item {
                Reply::Bulk(text) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
                _ => None,
            }));
        }
        self.common.items.audit(&left, self.common.flushes_allowed)?;
        let places = (0..PLACES).map(|place| self.ask(0, &[b"GET", &place_name(place)]));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        self.common.token_read(&places)
    }

    /// Takes the shards down: nothing of them may stay in the world.
    fn teardown(&mut self) -> Result<(), String> {
        let deadline_ns = self.world.now().mono_ns + 50_000_000;
        while self.machine.in_flight() > 0 && self.world.now().mono_ns < deadline_ns {
            self.step()?;
        }
        self.machine.clear();
        let leaks = self.world.leaks();
        match leaks.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} leaks, first {first:?}", leaks.len())),
        }
    }

    // What is told.

    fn describe(&self) -> String {
        let mut text = String::new();
        for client in self.clients.iter().filter(|client| !client.is_done()) {
            text.push_str(&format!("  {}\n", client.describe()));
        }
        for node in &self.machine.nodes {
            text.push_str(&format!("  {node:?}\n"));
        }
        text
    }

    fn report(&mut self) -> Report {
        Report {
            hash: self.world.trace_hash() ^ self.common.hash.rotate_left(1) ^ self.steps,
            replies: self.common.replies,
            steps: self.steps,
            virtual_ns: self.world.now().mono_ns - self.started_ns,
            stats: self.world.stats(),
            marks: self.common.marks.iter().map(|(what, count)| (*what, *count)).collect(),
            story: self.common.story.take().unwrap_or_default(),
        }
    }

    fn failure(&mut self, seed: u64, options: Options, what: String) -> Failure {
        self.machine.clear();
        let story = self.common.story.take().unwrap_or_default();
        let from = story.len().saturating_sub(3_000);
        Failure { seed, options, what, recent: self.world.recent(), story: story[from..].to_vec() }
    }
}

/// Runs a seed twice: both runs must agree.
///
/// # Errors
/// A check failed, or the runs differ.
pub fn run_twice(seed: u64, options: Options) -> Result<Report, Failure> {
    let first = run(seed, options)?;
    let second = run(seed, options)?;
    if first != second {
        let what = format!("two runs differ:\n  {first:?}\n  {second:?}");
        return Err(Failure { seed, options, what, recent: Vec::new(), story: Vec::new() });
    }
    Ok(first)
}
