//! Consumer groups on this shard: requests that wait for others, and records that make them durable.
//!
//! A group lives on the shard that leads its partition of the internal topic. Whatever a client is told of a
//! generation or a commit was stored before. Invariants: the groups are borrowed only within a synchronous step;
//! a parked request has one receiver. Next: `logic::group` for the rules, `offsets_topic` for the records,
//! `api::groups` for the requests.

use std::collections::BTreeMap;
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::exec::sync::{Receiver, Sender, once};
use engine::fs::Caching;
use engine::net::Server;
use logic::group::{
    Assigned, Config, Effect, Groups, Join, Joined, Refused, Replaced, Sync, SyncStep, Token,
};
use view::HashMap;
use wire::kafka::TopicRef;
use wire::kafka::batch::{Batch, Codec};
use wire::kafka::records::{BatchMeta, Record, records, write_batch};

use crate::catalog::OFFSETS_TOPIC;
use crate::code::Code;
use crate::control::{self, Change};
use crate::fetch::{self, warm};
use crate::offsets_topic::{self, Entry, Stored, partition_of};
use crate::partition::{Missing, unix_ms};
use crate::serve::Broker;
use crate::shard::{Shard, Slot};
use crate::watch::Watch;

/// Partitions of the internal topic.
pub(crate) const OFFSETS_PARTITIONS: i32 = 16;
/// Read at once when groups are loaded.
const LOAD_BYTES: u64 = 1 << 20;
/// Things that are done in one go when they are due.
const TICK_BUDGET: usize = 256;
/// How long a record may take to become durable.
const STORE_NS: u64 = 30_000_000_000;

/// An answer to a join; a refusal comes with the member id to say back.
pub(crate) type JoinAnswer = Result<Joined, (Refused, String)>;
/// An answer to a sync.
pub(crate) type SyncAnswer = Result<Assigned, Refused>;

/// Groups and who waits for them.
pub(crate) struct Coordinator {
    pub(crate) groups: Groups,
    joins: HashMap<Token, Sender<JoinAnswer>>,
    syncs: HashMap<Token, Sender<SyncAnswer>>,
    next_token: Token,
    /// Wakes the task that does what is due.
    pub(crate) ticker: Rc<Watch>,
}

impl Coordinator {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            groups: Groups::new(config),
            joins: HashMap::default(),
            syncs: HashMap::default(),
            next_token: 0,
            ticker: Rc::default(),
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }
}

/// Whether this shard coordinates a group, and the partition its records go to.
pub(crate) fn slot_of(shard: &Shard, group: &str) -> Result<Slot, Code> {
    let topic = shard.catalog.topics.get(OFFSETS_TOPIC).ok_or(Code::NotCoordinator)?;
    let index = partition_of(group, topic.partitions);
    match shard.slot(TopicRef::Name(OFFSETS_TOPIC), index) {
        Ok(slot) => Ok(slot),
        Err(Code::NotLeaderOrFollower) => Err(Code::NotCoordinator),
        Err(_) => Err(Code::CoordinatorNotAvailable),
    }
}

/// The shard that coordinates a group; makes the internal topic when it is missing.
pub(crate) async fn shard_of(server: &Rc<Server<Broker>>, group: &str) -> Result<usize, Code> {
    let known = |shard: &Shard| {
        let topic = shard.catalog.topics.get(OFFSETS_TOPIC)?;
        Some(shard.leader(topic, partition_of(group, topic.partitions)))
    };
    if let Some(leader) = known(&server.shard().borrow()) {
        return Ok(leader);
    }
    let change = Change::Create {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: -1,
        config: BTreeMap::new(),
        check_only: false,
    };
    match control::request(server, change).await {
        Ok(_) | Err((Code::TopicAlreadyExists, _)) => {}
        // The one error that clients ask again after; the log says why.
        Err(_) => return Err(Code::CoordinatorNotAvailable),
    }
    known(&server.shard().borrow()).ok_or(Code::CoordinatorNotAvailable)
}

/// Joins a group: waits until the generation is complete.
pub(crate) async fn join(server: &Rc<Server<Broker>>, join: Join) -> JoinAnswer {
    let member_id = join.member_id.clone();
    let receiver: Receiver<JoinAnswer> = {
        let now_ms = unix_ms(server.cx().now());
        let mut effects = Vec::new();
        let receiver = {
            let mut shard = server.shard().borrow_mut();
            let coordinator = &mut shard.coordinator;
            let token = coordinator.token();
            let (sender, receiver) = once();
            coordinator.joins.insert(token, sender);
            coordinator.groups.join(join, token, now_ms, &mut effects);
            receiver
        };
        deliver(server, effects);
        receiver
    };
    receiver.recv().await.unwrap_or(Err((Refused::CoordinatorNotAvailable, member_id)))
}

/// Gives or gets an assignment: waits until the leader's is stored.
pub(crate) async fn sync(server: &Rc<Server<Broker>>, group: &str, sync: Sync) -> SyncAnswer {
    let now_ms = unix_ms(server.cx().now());
    let mut effects = Vec::new();
    let (receiver, step) = {
        let mut shard = server.shard().borrow_mut();
        let coordinator = &mut shard.coordinator;
        let token = coordinator.token();
        let (sender, receiver) = once::<SyncAnswer>();
        coordinator.syncs.insert(token, sender);
        let step = coordinator.groups.sync(group, sync, token, now_ms, &mut effects);
        (receiver, step)
    };
    deliver(server, effects);
    if let SyncStep::Store { assignments, generation } = step {
        let record = {
            let shard = server.shard().borrow();
            let known = shard.coordinator.groups.get(group);
            known.map(|known| offsets_topic::group(group, known, &assignments, now_ms))
        };
        let stored = match record {
            Some(record) => store(server, group, vec![record]).await.is_ok(),
            None => false,
        };
        let now_ms = unix_ms(server.cx().now());
        let mut effects = Vec::new();
        {
            let mut shard = server.shard().borrow_mut();
            let groups = &mut shard.coordinator.groups;
            groups.stored(group, generation, &assignments, stored, now_ms, &mut effects);
        }
        deliver(server, effects);
    }
    receiver.recv().await.unwrap_or(Err(Refused::CoordinatorNotAvailable))
}

/// Changes groups in one step, and tells whoever waits what came of it.
pub(crate) fn change<T>(
    server: &Rc<Server<Broker>>,
    change: impl FnOnce(&mut Groups, i64, &mut Vec<Effect>) -> T,
) -> T {
    let now_ms = unix_ms(server.cx().now());
    let mut effects = Vec::new();
    let result = change(&mut server.shard().borrow_mut().coordinator.groups, now_ms, &mut effects);
    deliver(server, effects);
    result
}

/// Answers parked requests, and has stored what changed by itself. What describes a group is appended here and not by a
/// task: the group may have gone on until that runs, and the log would tell of a generation that nobody has assigned yet.
fn deliver(server: &Rc<Server<Broker>>, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Joined(token, answer) => {
                let sender = server.shard().borrow_mut().coordinator.joins.remove(&token);
                sender.into_iter().for_each(|sender| sender.send(answer.clone()));
            }
            Effect::Synced(token, answer) => {
                let sender = server.shard().borrow_mut().coordinator.syncs.remove(&token);
                sender.into_iter().for_each(|sender| sender.send(answer.clone()));
            }
            Effect::Changed(group) => {
                // If it cannot be stored, members of the generation before time out after a start.
                let _ = append_group(server, &group);
            }
            Effect::Replaced(group, replaced) => {
                let appended = append_group(server, &group);
                let task = tell_replaced(Rc::clone(server), group, replaced, appended);
                server.cx().spawn("group record", task);
            }
            effect => {
                let task = store_effect(Rc::clone(server), effect);
                server.cx().spawn("group record", task);
            }
        }
    }
    let ticker = Rc::clone(&server.shard().borrow().coordinator.ticker);
    ticker.wake();
}

/// Appends a group as it is, with the assignments that its members have.
fn append_group(server: &Rc<Server<Broker>>, group: &str) -> Result<Placed, Code> {
    let record = {
        let shard = server.shard().borrow();
        let known = shard.coordinator.groups.get(group).ok_or(Code::CoordinatorNotAvailable)?;
        let members = known.members.iter();
        let assignments = members.map(|(id, one)| (id.clone(), one.assignment.clone())).collect();
        offsets_topic::group(group, known, &assignments, unix_ms(server.cx().now()))
    };
    append(server, group, &[record])
}

/// Tells a static member its new id once that is durable.
async fn tell_replaced(
    server: Rc<Server<Broker>>,
    group: String,
    replaced: Replaced,
    appended: Result<Placed, Code>,
) {
    let stored = match appended {
        Ok(appended) => durable(&server, appended).await.is_ok(),
        Err(_) => false,
    };
    change(&server, |groups, now_ms, effects| {
        groups.replaced(&group, replaced, stored, now_ms, effects);
    });
}

/// Stores that something is gone, unless it is there again.
async fn store_effect(server: Rc<Server<Broker>>, effect: Effect) {
    let now_ms = unix_ms(server.cx().now());
    match effect {
        Effect::OffsetExpired(group, partition) => {
            // A commit may have come since; from here to the append nothing can.
            if !server.shard().borrow().coordinator.groups.expires(&group, &partition, now_ms) {
                return;
            }
            let record = offsets_topic::offset(&group, &partition, None);
            if store(&server, &group, vec![record]).await.is_ok() {
                server.shard().borrow_mut().coordinator.groups.deleted(&group, &partition);
            }
        }
        Effect::GroupExpired(group) => {
            if !server.shard().borrow().coordinator.groups.is_unused(&group) {
                return;
            }
            if store(&server, &group, vec![offsets_topic::group_gone(&group)]).await.is_ok() {
                server.shard().borrow_mut().coordinator.groups.remove(&group);
            }
        }
        Effect::Joined(..) | Effect::Synced(..) | Effect::Changed(..) | Effect::Replaced(..) => {}
    }
}

/// Records that were appended, for [`durable`].
struct Placed {
    slot: Slot,
    end: i64,
    deadline_ns: u64,
}

/// Appends records about a group and waits until they are durable.
pub(crate) async fn store(
    server: &Rc<Server<Broker>>,
    group: &str,
    list: Vec<Stored>,
) -> Result<(), Code> {
    let appended = append(server, group, &list)?;
    durable(server, appended).await
}

/// Appends records about a group.
fn append(server: &Rc<Server<Broker>>, group: &str, list: &[Stored]) -> Result<Placed, Code> {
    let cx = server.cx();
    let now = cx.now();
    let now_ms = unix_ms(now);
    let last_offset_delta = i32::try_from(list.len()).map_err(|_| Code::InvalidRequest)? - 1;
    let meta = BatchMeta {
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        last_offset_delta,
        ..BatchMeta::default()
    };
    let mut bytes = Vec::new();
    let made = (0..)
        .zip(list)
        .map(|(delta, (key, value))| Record::new(delta, 0, Some(key), value.as_deref()));
    write_batch(&mut bytes, &meta, made);
    let (batch, _) = Batch::split(&bytes).map_err(|_| Code::UnknownServerError)?;
    let mut shard = server.shard().borrow_mut();
    let slot = slot_of(&shard, group)?;
    let partition = shard.partition(slot).ok_or(Code::CoordinatorNotAvailable)?;
    // A full disk may have room later: clients look for the coordinator again, and do not give up as they would when
    // told of storage.
    let appended = partition.append(cx, &batch, now).map_err(|_| Code::CoordinatorNotAvailable)?;
    shard.mark_dirty(slot, false);
    Ok(Placed { slot, end: appended.end, deadline_ns: now.mono_ns.saturating_add(STORE_NS) })
}

/// Waits until what was appended is durable.
async fn durable(server: &Rc<Server<Broker>>, appended: Placed) -> Result<(), Code> {
    let Placed { slot, end, deadline_ns } = appended;
    let cx = server.cx();
    let watch = Rc::new(Watch::default());
    loop {
        {
            let mut shard = server.shard().borrow_mut();
            let partition = shard.partition(slot).ok_or(Code::CoordinatorNotAvailable)?;
            if partition.failed().is_some() {
                return Err(Code::CoordinatorNotAvailable);
            }
            if partition.high_watermark() >= end {
                return Ok(());
            }
            partition.watch(&watch);
        }
        if !watch.wait(cx.sleep_until(deadline_ns)).await {
            return Err(Code::CoordinatorNotAvailable);
        }
    }
}

/// Does what is due, as long as the shard lives.
pub(crate) async fn tick(server: Rc<Server<Broker>>) {
    let cx = server.cx().clone();
    // What is too old half-way through the log may not be at its end.
    Broker::loaded(Rc::clone(&server)).await;
    let ticker = Rc::clone(&server.shard().borrow().coordinator.ticker);
    loop {
        let now_ms = unix_ms(cx.now());
        let mut effects = Vec::new();
        let (done, next_ms) = {
            let mut shard = server.shard().borrow_mut();
            let groups = &mut shard.coordinator.groups;
            (groups.tick(now_ms, TICK_BUDGET, &mut effects), groups.next_deadline_ms())
        };
        if !effects.is_empty() {
            deliver(&server, effects);
        }
        let wait_ms = match next_ms {
            _ if !done => 0,
            Some(next_ms) => u64::try_from(next_ms - now_ms).unwrap_or(0).clamp(1, 60_000),
            None => 60_000,
        };
        ticker.wait(cx.sleep(wait_ms * 1_000_000)).await;
    }
}

/// Reads what a partition of the internal topic says.
pub(crate) async fn load(server: &Rc<Server<Broker>>, slot: Slot) {
    let cx = server.cx().clone();
    let mut offset = {
        let mut shard = server.shard().borrow_mut();
        shard.partition(slot).map_or(0, |partition| partition.start())
    };
    loop {
        let located = {
            let mut shard = server.shard().borrow_mut();
            let Some(partition) = shard.partition(slot) else { return };
            partition.locate(&cx, offset, LOAD_BYTES, true)
        };
        let range = match located {
            Ok(Some(range)) => range,
            Ok(None) => return,
            Err(Missing::Cold(cold)) => {
                warm(cold).await;
                continue;
            }
            Err(Missing::Unverified(place)) => {
                if let Err(code) = fetch::verify(server.shard(), slot, place).await {
                    return not_loaded(server, slot, offset, &code);
                }
                continue;
            }
            Err(Missing::Refused(code)) => {
                let after = {
                    let mut shard = server.shard().borrow_mut();
                    shard.partition(slot).and_then(|partition| partition.after_damage(offset))
                };
                // What is damaged was told of; the groups behind it are not.
                match after {
                    Some(after) => offset = after,
                    None => return not_loaded(server, slot, offset, &code),
                }
                continue;
            }
        };
        let len = usize::try_from(range.len).unwrap_or(usize::MAX);
        let read =
            range.file.read_at(DirectBuf::zeroed(len), len, range.position, Caching::Keep).await;
        let (buf, read) = match read {
            Ok(read) => read,
            Err(error) => return not_loaded(server, slot, offset, &error),
        };
        let next = load_batches(server, buf.get(..read).unwrap_or_default(), offset);
        if next <= offset {
            return;
        }
        offset = next;
    }
}

/// Groups that are known in part are not served: a commit that is there must not be told to be none.
fn not_loaded(server: &Rc<Server<Broker>>, slot: Slot, offset: i64, why: &dyn std::fmt::Display) {
    let why = format!("groups not loaded from offset {offset} on: {why}");
    if let Some(partition) = server.shard().borrow_mut().partition(slot) {
        partition.fail(server.cx(), why);
    }
}

/// Takes in whole batches; the offset after them.
fn load_batches(server: &Rc<Server<Broker>>, mut bytes: &[u8], offset: i64) -> i64 {
    let now_ms = unix_ms(server.cx().now());
    let mut next = offset;
    let mut shard = server.shard().borrow_mut();
    let groups = &mut shard.coordinator.groups;
    while let Ok((batch, rest)) = Batch::split(bytes) {
        bytes = rest;
        next = batch.last_offset() + 1;
        if batch.codec() != Ok(Codec::None) {
            continue;
        }
        for record in records(batch.body()).flatten() {
            let Some(key) = record.key else { continue };
            match offsets_topic::read(key, record.value) {
                Ok(Some(Entry::Offset(group, partition, Some(committed)))) => {
                    groups.committed(&group, partition, committed, now_ms);
                }
                Ok(Some(Entry::Offset(group, partition, None))) => {
                    groups.deleted(&group, &partition)
                }
                Ok(Some(Entry::Group(group, Some(snapshot)))) => {
                    groups.load(&group, snapshot, now_ms);
                }
                Ok(Some(Entry::Group(group, None))) => groups.unload(&group),
                // Of a later version; it stays in the log.
                Ok(None) | Err(_) => {}
            }
        }
    }
    next
}
