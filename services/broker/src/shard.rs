//! What one core owns of the broker: its partitions, and the requests that wait for them.
//!
//! Invariants: a partition's number names it for the life of the process and is not used again; every pending
//! produce request is completed once, in the order of its connection. Next: `produce` and `fetch` for the hot
//! path.

use std::rc::Rc;
use std::sync::Arc;

use engine::net::ConnId;
use engine::shard::ShardCx;
use logic::log::FetchSessions;
use view::HashMap;
use wire::kafka::TopicRef;

use crate::catalog::{Catalog, Topic, TopicId};
use crate::code::Code;
use crate::coordinator::Coordinator;
use crate::guard::Logins;
use crate::partition::Partition;
use crate::produce::{OwnedRef, Pending};
use crate::quota::{QuotaRules, Used};
use crate::topic_config::TopicConfig;
use crate::users::Users;

/// What a shard is told at start.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Number of this machine among brokers.
    pub node: i32,
    /// What clients are told of this machine.
    pub plain: Endpoint,
    /// What those that came by TLS are told instead.
    pub tls: Option<Endpoint>,
    /// Longest request.
    pub request_max_bytes: usize,
    /// Partitions of a topic that does not say how many.
    pub partitions: i32,
    /// Whether asking for a topic makes it.
    pub auto_create: bool,
    /// Partitions of all topics, at most.
    pub partitions_max: usize,
    /// How long an empty group waits for more members.
    pub rebalance_delay_ms: i64,
    /// Memory for keys while a partition is compacted.
    pub compaction_memory_bytes: usize,
    /// Produce requests of a connection that wait for the disk.
    pub in_flight_max: usize,
    /// Who may log in; everybody may do everything without.
    pub users: Option<Arc<Users>>,
    /// How long a log-in lasts; zero for ever.
    pub reauth_ms: u64,
    /// How much clients may use.
    pub quotas: Option<Arc<QuotaRules>>,
    /// Shortest session timeout that a member may ask for.
    pub session_min_ms: i32,
}

/// Where the shards of this machine are, as clients know it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The host.
    pub host: String,
    /// Port of each shard, by number.
    pub ports: Vec<u16>,
}

/// Fetch sessions at a time (Kafka's max.incremental.fetch.session.cache.slots).
const FETCH_SESSIONS_MAX: usize = 1000;
/// Partitions in all of them.
const FETCH_SESSION_PARTITIONS_MAX: usize = 100_000;

/// Brokers of one machine have numbers from this times its own on.
pub(crate) const SHARDS_MAX: i32 = 64;

impl ShardConfig {
    /// What a client is told, by how it came.
    #[must_use]
    pub fn endpoint(&self, tls: bool) -> &Endpoint {
        self.tls.as_ref().filter(|_| tls).unwrap_or(&self.plain)
    }

    /// The number that clients know a shard by.
    #[must_use]
    pub fn broker_id(&self, shard: usize) -> i32 {
        self.node * SHARDS_MAX + i32::try_from(shard).unwrap_or(0)
    }
}

/// Names a partition of this shard.
pub(crate) type Slot = u32;

/// A topic as this shard sees it.
#[derive(Debug)]
pub(crate) struct TopicEntry {
    pub(crate) id: TopicId,
    pub(crate) config: Rc<TopicConfig>,
    pub(crate) internal: bool,
    /// By number of the partition: here, or elsewhere.
    pub(crate) slots: Vec<Option<Slot>>,
}

/// Counters of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) requests: u64,
    pub(crate) produced_batches: u64,
    pub(crate) produced_records: u64,
    pub(crate) produced_bytes: u64,
    pub(crate) refused_batches: u64,
    pub(crate) fetches: u64,
    pub(crate) fetched_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_ns: u64,
    pub(crate) malformed: u64,
    pub(crate) compactions: u64,
    pub(crate) compaction_failures: u64,
    pub(crate) compaction_ns: u64,
    pub(crate) compaction_read_bytes: u64,
    pub(crate) compaction_written_bytes: u64,
    pub(crate) compaction_dropped_records: u64,
    pub(crate) logins: u64,
    pub(crate) failed_logins: u64,
    pub(crate) throttled: u64,
}

/// One core's slice of the broker.
pub struct Shard {
    pub(crate) cx: ShardCx,
    pub(crate) config: Rc<ShardConfig>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) topics: HashMap<Rc<str>, TopicEntry>,
    pub(crate) names: HashMap<TopicId, Rc<str>>,
    partitions: Vec<Option<Box<Partition>>>,
    /// Partitions with appends that no sync covers yet.
    pub(crate) dirty: Vec<Slot>,
    pub(crate) pending: Vec<Option<Pending>>,
    pub(crate) pending_free: Vec<u32>,
    /// Connections with answers to be sent.
    pub(crate) answered: Vec<ConnId>,
    pub(crate) loaded: bool,
    /// Connections now.
    pub(crate) connections: usize,
    /// Producer ids to give out, and the end of the block.
    pub(crate) producer_ids: (i64, i64),
    pub(crate) fetch_sessions: FetchSessions<OwnedRef>,
    pub(crate) coordinator: Coordinator,
    pub(crate) logins: Option<Logins>,
    pub(crate) used: Option<Used>,
    pub(crate) stats: Stats,
}

impl Shard {
    /// A shard that knows of no topic yet.
    #[must_use]
    pub fn new(cx: &ShardCx, config: ShardConfig) -> Self {
        let groups = logic::group::Config {
            initial_delay_ms: config.rebalance_delay_ms,
            session_min_ms: config.session_min_ms,
            ..logic::group::Config::default()
        };
        let logins = config.users.clone().map(|users| Logins::new(users, config.reauth_ms));
        let used = config.quotas.clone().map(Used::new);
        Self {
            cx: cx.clone(),
            config: Rc::new(config),
            catalog: Arc::default(),
            topics: HashMap::default(),
            names: HashMap::default(),
            partitions: Vec::new(),
            dirty: Vec::new(),
            pending: Vec::new(),
            pending_free: Vec::new(),
            answered: Vec::new(),
            loaded: false,
            connections: 0,
            producer_ids: (0, 0),
            fetch_sessions: FetchSessions::new(
                FETCH_SESSIONS_MAX,
                FETCH_SESSION_PARTITIONS_MAX,
                cx.rng().next_u64(),
            ),
            coordinator: Coordinator::new(groups),
            logins,
            used,
            stats: Stats::default(),
        }
    }

    /// The topic that a request names.
    pub(crate) fn topic(&self, topic: TopicRef<'_>) -> Result<(&Rc<str>, &TopicEntry), Code> {
        let found = match topic {
            TopicRef::Name(name) => self.topics.get_key_value(name),
            TopicRef::Id(id) => {
                self.names.get(&id).and_then(|name| self.topics.get_key_value(name))
            }
        };
        found.ok_or(match topic {
            TopicRef::Name(_) => Code::UnknownTopicOrPartition,
            TopicRef::Id(_) => Code::UnknownTopicId,
        })
    }

    /// The partition of this shard that a request names.
    pub(crate) fn slot(&self, topic: TopicRef<'_>, index: i32) -> Result<Slot, Code> {
        let (_, entry) = self.topic(topic)?;
        let at = usize::try_from(index).map_err(|_| Code::UnknownTopicOrPartition)?;
        match entry.slots.get(at) {
            Some(Some(slot)) => Ok(*slot),
            Some(None) => Err(Code::NotLeaderOrFollower),
            None => Err(Code::UnknownTopicOrPartition),
        }
    }

    /// A partition of this shard.
    pub(crate) fn partition(&mut self, slot: Slot) -> Option<&mut Partition> {
        self.partitions.get_mut(slot as usize)?.as_deref_mut()
    }

    /// All partitions of this shard.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter_map(|partition| partition.as_deref())
    }

    /// Numbers of all partitions of this shard.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        (0..).zip(&self.partitions).filter_map(|(slot, one)| one.as_ref().map(|_| slot)).collect()
    }

    pub(crate) fn add_partition(&mut self, partition: Partition) -> Slot {
        let slot = u32::try_from(self.partitions.len()).expect("fewer than 2^32 partitions ever");
        self.partitions.push(Some(Box::new(partition)));
        slot
    }

    pub(crate) fn remove_partition(&mut self, slot: Slot) -> Option<Box<Partition>> {
        self.partitions.get_mut(slot as usize)?.take()
    }

    /// Sees to it that the partition is synced, if its topic wants that now, or at the end of a `period`.
    pub(crate) fn mark_dirty(&mut self, slot: Slot, period: bool) {
        if let Some(partition) = self.partition(slot)
            && partition.needs_sync(period)
            && !std::mem::replace(&mut partition.listed, true)
        {
            self.dirty.push(slot);
        }
    }

    /// The shard that leads a partition.
    pub(crate) fn leader(&self, topic: &Topic, partition: i32) -> usize {
        topic.leader(partition, self.config.plain.ports.len())
    }
}
