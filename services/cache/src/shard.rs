//! One core's slice of the cache: its keys, its connections, its configuration and counters.
//!
//! Invariants: one thread uses a shard, nothing here blocks or awaits, and no step does work in
//! the number of keys unless a client asked for exactly that (KEYS). What other shards ask comes in
//! through [`Shard::serve`]; the host carries requests and responses. Next: [`crate::session`].

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use engine::driver::{PeerName, Usage};
use logic::store::{EvictResult, ExpireStep, Policy, Store, StoreConfig};
use view::Instant;

use crate::{
    acl::{Acl, DEFAULT, Rules, User},
    ahead::Ahead,
    aof::Journal,
    batch::Spares,
    clients::Clients,
    command::table::Index,
    elsewhere::Elsewhere,
    erase::Erasing,
    events::{self, Classes, Going},
    flow,
    group::Group,
    hop::Hop,
    hot::Hot,
    lock::Locks,
    memcached,
    observe::Observers,
    pubsub::{Kind, Mail, PubSub},
    remote::Parked,
    repl,
    route::Topology,
    save::Saves,
    script::{Library, Scripts},
    settings::Settings,
    stats::{Report, Stats},
    tracking::Tracking,
    watch::Watch,
    work::{Request, Response},
};

/// How a shard is set up.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Its index, below the topology's number of shards.
    pub index: u16,
    /// All shards of this host.
    pub topology: Topology,
    /// Seed of hashes and random choices.
    pub seed: u64,
    /// Number of databases.
    pub databases: u16,
    /// Limit for the whole host; each shard gets its part. 0 is none.
    pub maxmemory_bytes: u64,
    /// What goes when memory is full.
    pub policy: Policy,
    /// Keys compared per eviction.
    pub samples: u8,
    /// The shared port, for INFO.
    pub tcp_port: u16,
    /// Password of the default user; empty for none.
    pub requirepass: String,
    /// Process id, for INFO.
    pub process_id: u32,
    /// Most connections of the host, for INFO and CONFIG.
    pub max_clients: u32,
    /// Scripts and functions, which all shards of a server share.
    pub library: Library,
    /// The directory of the dump.
    pub dir: String,
    /// Its name.
    pub dbfilename: String,
    /// When it is saved without being asked: pairs of seconds and changes.
    pub save: String,
    /// Whether long strings in it are compressed.
    pub rdb_compression: bool,
    /// Whether it ends with a checksum.
    pub rdb_checksum: bool,
    /// Whether dumps are one file per shard.
    pub save_per_shard: bool,
    /// What all shards know of saves.
    pub saves: Arc<Saves>,
    /// What all shards know of replication.
    pub repl: Arc<repl::Common>,
    /// The port of memcached's protocol, for its `stats settings`; 0 for none.
    pub memcached_port: u16,
    /// Longest item of memcached's protocol.
    pub item_max_bytes: usize,
    /// Parameters as CONFIG GET shows them, where they differ from their defaults.
    pub settings: Vec<(String, String)>,
    /// Users, or new ones in place of the default user that there is otherwise.
    pub users: Vec<User>,
    /// The redis.conf this process was started with, for CONFIG REWRITE; empty for none.
    pub config_file: String,
    /// Connections from other hosts are refused while `protected-mode` is on and there is no password.
    pub protects: bool,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            index: 0,
            topology: Topology::new("127.0.0.1", vec![6380], 0),
            seed: 0,
            databases: 16,
            maxmemory_bytes: 0,
            policy: Policy::NoEviction,
            samples: 5,
            tcp_port: 6379,
            requirepass: String::new(),
            process_id: 0,
            max_clients: 10_000,
            library: Library::default(),
            dir: ".".into(),
            dbfilename: "dump.rdb".into(),
            save: String::new(),
            rdb_compression: true,
            rdb_checksum: true,
            save_per_shard: false,
            saves: Arc::default(),
            repl: Arc::default(),
            memcached_port: 0,
            item_max_bytes: memcached::ITEM_MAX_BYTES,
            settings: Vec::new(),
            users: Vec::new(),
            config_file: String::new(),
            protects: false,
        }
    }
}

/// One core's slice of the cache.
pub struct Shard {
    pub(crate) store: Store,
    pub(crate) index: u16,
    /// Number of shards.
    pub(crate) count: u16,
    pub(crate) topology: Topology,
    pub(crate) commands: Index,
    pub(crate) settings: Settings,
    pub(crate) stats: Stats,
    pub(crate) clients: Clients,
    pub(crate) locks: Locks,
    pub(crate) parked: Vec<Parked>,
    /// Keys that other shards have borrowed.
    pub(crate) lent: usize,
    /// What the command that runs knows of other shards.
    pub(crate) elsewhere: Elsewhere,
    /// Keys about to be looked up.
    pub(crate) ahead: Ahead,
    /// Out while a session or another shard's batch runs.
    pub(crate) group: Option<Box<Group>>,
    pub(crate) spares: Spares,
    #[expect(clippy::vec_box, reason = "the boxes travel")]
    pub(crate) spare_hops: Vec<Box<Hop>>,
    pub(crate) next_ticket: u64,
    pub(crate) started: Instant,
    pub(crate) config: ShardConfig,
    pub(crate) blocked: u64,
    /// Somebody observes keys: writes have to be told of.
    pub(crate) observed: bool,
    pub(crate) observers: Observers,
    /// Changes of keys that were told (`events.rs`), while somebody wanted to know.
    pub(crate) changes: u64,
    /// Answers to requests that had to wait, for the host to carry.
    pub(crate) served: Vec<(u64, Response)>,
    /// Requests to other shards whose answers nobody waits for.
    pub(crate) outbox: Vec<(u16, Request)>,
    pub(crate) peak_bytes: u64,
    /// Lua scripts and functions.
    pub(crate) scripts: Scripts,
    pub(crate) saves: Arc<Saves>,
    pub(crate) repl: Arc<repl::Common>,
    /// The flows to replicas.
    pub(crate) flows: flow::Flows,
    /// Whom this server follows, if anybody.
    pub(crate) role: repl::Role,
    /// Commands that write, as far as they are told to `saves`.
    pub(crate) noted_writes: u64,
    /// What is to be logged; nothing without a log.
    pub(crate) journal: Option<Box<Journal>>,
    pub(crate) process: Usage,
    /// Records are being moved together.
    compacting: bool,
    /// Time and calls of the last sample for `instantaneous_ops_per_sec`.
    sample: (u64, u64),
    ops_per_s: u64,
    /// What memcached's protocol keeps.
    pub(crate) memcached: memcached::State,
    /// Which keys are used most.
    pub(crate) hot: Hot,
    /// Deletions in the background.
    pub(crate) erasing: Erasing,
    pub(crate) acl: Acl,
    pub(crate) watch: Watch,
    /// Moves when connections have to look again at what applies to their commands.
    pub(crate) generation: u32,
    /// Something looks at commands one by one.
    pub(crate) looks: bool,
    /// Due keys are looked for.
    pub(crate) expires: bool,
    /// A client has asked the process to stop.
    pub(crate) stops: bool,
    /// Who listens to what.
    pub(crate) pubsub: PubSub,
    pub(crate) mail: Mail,
    /// Requests to other shards that nobody waits for.
    pub(crate) posts: VecDeque<(u16, Request)>,
    /// Classes of events that are published.
    pub(crate) events: Classes,
    pub(crate) tracking: Tracking,
    /// Shards that could not be told what has changed.
    pub(crate) untold: BTreeSet<u16>,
    /// Somebody wants to know what happens to keys: all that the write path tests.
    pub(crate) watching: bool,
}

/// What [`Shard::tick`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Keys removed because they were due.
    pub expired: usize,
    /// More is due: tick again soon.
    pub more: bool,
}

/// Hops kept for the next batches.
const SPARE_HOPS_MAX: usize = 64;
/// One whose buffer has grown beyond this is not kept.
const HOP_MAX_BYTES: usize = 64 << 10;

/// A key that is looked at for deletion costs as much as so many that are looked at for expiry.
const ERASE_PART: usize = 4;

/// Most keys one write may evict before it is let through or refused.
const EVICT_PER_WRITE: usize = 64;
/// Records moved together per tick.
const COMPACT_BUDGET: usize = 64;

impl Shard {
    /// An empty shard.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a list of all there is")]
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        let count = config.topology.shards();
        let commands = Index::new();
        let store = Store::new(StoreConfig {
            seed: config.seed,
            databases: config.databases,
            maxmemory_bytes: config.maxmemory_bytes.div_ceil(u64::from(count)),
            policy: config.policy,
            samples: config.samples,
            slot_stats: count > 1,
        });
        let all_channels = config
            .settings
            .iter()
            .any(|(name, text)| name == "acl-pubsub-default" && text == "allchannels");
        let acl = Acl::new(&Rules { commands: &commands, all_channels });
        let mut shard = Self {
            store,
            index: config.index,
            count,
            topology: config.topology.clone(),
            settings: Settings::new(&config),
            memcached: memcached::State::new(config.item_max_bytes),
            stats: Stats::new(commands.len()),
            commands,
            clients: Clients::default(),
            locks: Locks::default(),
            parked: Vec::new(),
            lent: 0,
            elsewhere: Elsewhere::default(),
            ahead: Ahead::default(),
            group: Some(Box::default()),
            spares: Spares::default(),
            spare_hops: Vec::new(),
            next_ticket: 0,
            started: now,
            scripts: Scripts::new(config.library.clone()),
            saves: Arc::clone(&config.saves),
            repl: Arc::clone(&config.repl),
            role: repl::Role::default(),
            flows: flow::Flows::default(),
            noted_writes: 0,
            hot: Hot::new(config.seed, now),
            erasing: Erasing::default(),
            config,
            blocked: 0,
            observed: false,
            observers: Observers::default(),
            changes: 0,
            served: Vec::new(),
            outbox: Vec::new(),
            peak_bytes: 0,
            journal: None,
            process: Usage::default(),
            compacting: false,
            sample: (now.mono_ns, 0),
            ops_per_s: 0,
            pubsub: PubSub::default(),
            mail: Mail::default(),
            events: 0,
            tracking: Tracking::default(),
            untold: BTreeSet::new(),
            watching: false,
            acl,
            watch: Watch::default(),
            generation: 0,
            looks: false,
            posts: VecDeque::new(),
            expires: true,
            stops: false,
        };
        let password = shard.settings.requirepass.clone();
        shard.set_default_password(&password);
        for user in std::mem::take(&mut shard.config.users) {
            shard.acl.put(user);
        }
        shard.watch.configure(&shard.settings);
        shard.apply_memory_settings();
        shard.configure_role();
        if shard.repl.facts().master.is_some() {
            shard.take_role(true);
        }
        shard.look_again();
        shard
    }

    /// The default user's only password; none when it is empty.
    pub(crate) fn set_default_password(&mut self, password: &str) {
        let rules = Rules { commands: &self.commands, all_channels: false };
        let mut user = User::clone(self.acl.default_user());
        let rule = if password.is_empty() { "nopass".into() } else { format!(">{password}") };
        for rule in ["resetpass", rule.as_str()] {
            // These rules are right.
            let _ = rules.apply(&mut user, rule.as_bytes());
        }
        debug_assert!(*user.name == *DEFAULT, "it keeps its name");
        self.acl.put(user);
    }

    /// Whether a client has asked the process to stop.
    #[must_use]
    pub const fn wants_to_stop(&self) -> bool {
        self.stops
    }

    /// The process was asked to stop.
    pub const fn stopping(&mut self) {
        self.stops = false;
    }

    /// Whether somebody at this address is refused: they come from another host, and there is no password.
    #[must_use]
    pub fn protects_from(&self, peer: &PeerName) -> bool {
        let PeerName::Tcp(peer) = peer else { return false };
        self.config.protects
            && !self.acl.must_log_in()
            && !peer.ip().to_canonical().is_loopback()
            && self.settings.get("protected-mode") == "yes"
    }

    /// Keeps a hop for the next batch.
    pub(crate) fn keep_hop(&mut self, hop: Box<Hop>) {
        let kept = hop.local.allocated_bytes();
        if self.spare_hops.len() < SPARE_HOPS_MAX && kept <= HOP_MAX_BYTES {
            self.spare_hops.push(hop);
        }
    }

    /// Changes whenever [`Work::Locked`](crate::Work::Locked) may have ended for somebody.
    #[must_use]
    pub const fn locks_generation(&self) -> u64 {
        self.locks.generation()
    }

    /// Connections CLIENT KILL wants closed, by their ids. Look after each session call and each
    /// [`Shard::serve`].
    pub fn take_kills(&mut self) -> Vec<u64> {
        self.clients.take_kills()
    }

    /// Whether [`Shard::take_kills`] has something.
    #[must_use]
    pub fn has_kills(&self) -> bool {
        self.clients.has_kills()
    }

    /// Answers to requests that had to wait, each with its request's token. Look after each session call, each
    /// [`Shard::serve`] and each [`Shard::time_out`].
    pub fn take_served(&mut self) -> Vec<(u64, Response)> {
        std::mem::take(&mut self.served)
    }

    /// Requests to other shards, to be sent in this order; their answers are not wanted. Look when
    /// [`Shard::take_served`] is looked at, and when a connection has gone.
    pub fn take_outbox(&mut self) -> Vec<(u16, Request)> {
        std::mem::take(&mut self.outbox)
    }

    /// Whether [`Shard::take_served`] or [`Shard::take_outbox`] has something.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        !self.served.is_empty() || !self.outbox.is_empty()
    }

    /// Tells what the process has used so far: only the host can measure it.
    pub const fn set_usage(&mut self, usage: Usage) {
        self.process = usage;
    }

    /// Gives scripts a clock, which nothing else here has while a step runs.
    pub fn set_script_clock(&mut self, clock: crate::script::Clock) {
        self.scripts.set_clock(clock);
    }

    /// Connections now.
    #[must_use]
    pub fn client_count(&self) -> usize {
        usize::try_from(self.clients.len()).unwrap_or(usize::MAX)
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The keys.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Counters of this shard for INFO and metrics.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        let mut report = Report::of_store(&self.store, now.unix_ms());
        report.stats = self.stats.clone();
        report.peak_bytes = self.peak_bytes.max(report.used_bytes);
        report.clients = self.clients.len();
        report.blocked = self.blocked;
        report.ops_per_s = self.ops_per_s;
        report.script_bytes = self.scripts.memory_bytes() as u64;
        report.process = self.process;
        report.compacting = self.compacting;
        report.hot_samples = self.hot.samples();
        report.hottest_rate = self.hot.top(1, now).first().map_or(0, |key| key.rate as u64);
        (report.big_keys, report.biggest_bytes) = self.store.big_noted();
        report.erase_done = self.erasing.done;
        report.erase_scanned = self.erasing.scanned;
        report.erase_deleted = self.erasing.deleted;
        report.erase_active = self.erasing.active();
        report.followers = self.followers().flows;
        report.backlog = self.backlog_range().into_iter().collect();
        report.tracking = self.tracking.sizes();
        report.pubsub = [
            self.pubsub.len(Kind::Channel) as u64,
            self.pubsub.len(Kind::Pattern) as u64,
            self.pubsub.len(Kind::Shard) as u64,
            self.pubsub.subscribers() as u64,
        ];
        report
    }

    /// Housekeeping, due about every 100 ms: removes due keys and gives memory back, looking at no
    /// more than `budget` entries for each.
    pub fn tick(&mut self, now: Instant, budget: usize) -> Tick {
        if self.is_loading() {
            // Keys live in the time of the log.
            return Tick::default();
        }
        self.flush_due_items(now);
        let mut going = Going::new(self.watching);
        let step = if self.expires {
            self.store.expire_step(now.unix_ms(), budget, |db, key| going.add(db, key))
        } else {
            ExpireStep::default()
        };
        self.log_removed(&going.keys, now);
        self.all_gone(going.keys, events::EXPIRED, "expired");
        self.compacting = self.store.compact_step(now.unix_ms(), COMPACT_BUDGET);
        let purging = self.store.purge_step(budget) | self.tracking.purge_step(budget);
        self.mail.look_again();
        self.tick_flows(now);
        let more_due = self.tick_replica(budget, now);
        let erasing = self.erase_step(budget / ERASE_PART, now);
        if self.hot.tick(now) {
            // Forgets those that are not big any more.
            self.store.big_keys(now.unix_ms());
        }
        self.peak_bytes = self.peak_bytes.max(self.store.used_bytes());
        self.note_changes();
        let (then, calls) = self.sample;
        let passed = now.mono_ns.saturating_sub(then);
        if passed >= 1_000_000_000 {
            let total = self.stats.total_calls();
            let made = u128::from(total.saturating_sub(calls)) * 1_000_000_000;
            self.ops_per_s = u64::try_from(made / u128::from(passed)).unwrap_or(u64::MAX);
            self.sample = (now.mono_ns, total);
        }
        Tick {
            expired: step.expired,
            more: step.more || more_due || purging || erasing || self.compacting,
        }
    }

    /// Makes room for a write; false when memory is full and nothing may go.
    #[inline]
    pub(crate) fn make_room(&mut self, now: Instant) -> bool {
        !self.store.over_limit() || self.role.ignores_limit() || self.evict(now)
    }

    #[cold]
    fn evict(&mut self, now: Instant) -> bool {
        let mut going = Going::new(self.watching);
        let result =
            self.store.evict_step(now.unix_ms(), EVICT_PER_WRITE, |db, key| going.add(db, key));
        self.log_removed(&going.keys, now);
        self.all_gone(going.keys, events::EVICTED, "evicted");
        !matches!(result, EvictResult::Stuck { .. })
    }

    /// A number that names a multi-key command on all shards.
    pub(crate) const fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        (self.index as u64) << 48 | self.next_ticket
    }

    /// The most a value may hold.
    pub(crate) const fn max_value_bytes(&self) -> usize {
        self.settings.max_bulk_bytes
    }

    /// Whether clients must authenticate.
    #[inline]
    pub(crate) fn needs_password(&self) -> bool {
        self.acl.must_log_in()
    }

    pub(crate) fn apply_memory_settings(&mut self) {
        let part = self.settings.maxmemory_bytes.div_ceil(u64::from(self.count));
        self.store.set_maxmemory(part);
        self.store.set_policy(self.settings.policy);
        self.store.set_samples(self.settings.samples);
        self.store.set_limits(self.settings.limits.clone());
    }
}
