//! A client: writes keys that only it writes, reads them and those of others, and keeps what the server said.
//!
//! After the loss of a connection it waits until the server has let go of it, and reads all its keys before it goes on:
//! what ran of the commands without a reply is known then. Next: `lane` for what that means, `course` for crashes.

use std::collections::{BTreeMap, VecDeque};

use engine::driver::sim::World;
use engine::rng::Rng;
use wire::resp::Reply;

use super::lane::{Ack, Lane};
use super::setup::{Doors, topology};
use super::value::{Kind, Op, State, Value, draw, read_reply, read_words};
use super::wire::Wire;
use crate::op::Span;
use crate::shared::show;

/// How soon a client looks again, at most.
const POLL_NS: u64 = 2_000_000;
/// How long it waits before it tries again what did not work.
const RETRY_NS: u64 = 20_000_000;

/// Operations after which one that may wait for long writes no more: each look at a key goes through them.
const ENTRIES_MAX: usize = 700;

/// What all clients share.
pub(crate) struct Common<'a> {
    pub(crate) world: &'a World,
    /// Counts what clients do, over all of them.
    pub(crate) step: &'a mut u64,
    pub(crate) marks: &'a mut BTreeMap<&'static str, u64>,
    pub(crate) story: &'a mut Option<Vec<String>>,
    pub(crate) replies: &'a mut u64,
}

impl Common<'_> {
    pub(crate) fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.world.now();
        if let Some(story) = self.story {
            story.push(format!("{} {}", now.unix_ms(), what()));
        }
    }

    fn ack(&self) -> Ack {
        let now = self.world.now();
        Ack { step: *self.step, ns: now.mono_ns, ms: now.unix_ms() }
    }
}

/// A client saw what another one had written.
pub(crate) struct Sight {
    pub(crate) peer: usize,
    pub(crate) key: usize,
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// A reply that is owed.
#[derive(Debug)]
enum Owed {
    /// Of an operation in a lane.
    One {
        lane: usize,
        at: usize,
    },
    /// Before the reply that counts: OK, QUEUED.
    Head,
    /// Of a write of a group: the last reply of it.
    Group {
        group: usize,
        at: usize,
    },
    /// Of a read of a group, after so many writes of it.
    GroupRead {
        group: usize,
        after: usize,
    },
    /// A key of somebody else.
    Other {
        peer: usize,
        key: usize,
        sent_ms: u64,
    },
    /// Of WAIT, for this life of the replica, after so many operations of each lane.
    Wait(u64, Vec<usize>),
    /// A key's value and its expiry, to know where things stand.
    Look(usize),
    LookExpiry(usize),
    LookGroup(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not before the server runs and what it kept was looked at.
    Off,
    /// Connects, and sends what there is to do.
    Work,
    /// Waits until the server has let go of the last connection.
    Settle,
    /// Reads all its keys.
    Look,
}

/// What was read to know where things stand.
#[derive(Default)]
struct Looks {
    keys: BTreeMap<usize, State>,
    groups: BTreeMap<usize, Vec<Value>>,
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) clients: usize,
    /// Keys of each.
    pub(crate) keys: usize,
    /// Groups of keys that change together, and keys in each.
    pub(crate) groups: usize,
    pub(crate) group_len: usize,
    pub(crate) pipeline_max: u64,
    /// They wait for a replica now and then.
    pub(crate) waits: bool,
}

/// A client.
pub(crate) struct Peer {
    number: usize,
    shape: Shape,
    pub(crate) doors: Doors,
    shards: usize,
    /// A lane for each shard, then one for each group.
    pub(crate) lanes: Vec<Lane>,
    /// By key.
    lane_of: Vec<usize>,
    wire: Option<Wire>,
    last: Option<engine::driver::PeerName>,
    owed: VecDeque<Owed>,
    looks: Looks,
    /// When it began to read.
    look_ms: u64,
    stage: Stage,
    unique: u64,
    refused_head: bool,
    /// Lives of the replica that is waited for.
    waits: u64,
    /// No more operations.
    pub(crate) rests: bool,
    pub(crate) wake_ns: u64,
}

/// A key's name.
pub(crate) fn key_name(peer: usize, key: usize) -> Vec<u8> {
    format!("p{peer}k{key}").into_bytes()
}

/// The name of a key in a group.
pub(crate) fn group_name(peer: usize, group: usize, key: usize) -> Vec<u8> {
    format!("p{peer}g{group}:{key}").into_bytes()
}

impl Peer {
    pub(crate) fn new(number: usize, shape: Shape, doors: Doors) -> Self {
        Self {
            number,
            shape,
            doors,
            shards: 0,
            lanes: Vec::new(),
            lane_of: Vec::new(),
            wire: None,
            last: None,
            owed: VecDeque::new(),
            looks: Looks::default(),
            look_ms: 0,
            stage: Stage::Off,
            unique: 0,
            refused_head: false,
            waits: 0,
            rests: false,
            wake_ns: 0,
        }
    }

    pub(crate) const fn keys(&self) -> usize {
        self.shape.keys
    }

    pub(crate) const fn groups(&self) -> usize {
        self.shape.groups
    }

    pub(crate) const fn group_len(&self) -> usize {
        self.shape.group_len
    }

    /// The lane of a group.
    pub(crate) fn group_lane(&self, group: usize) -> usize {
        self.lanes.len() - self.shape.groups + group
    }

    /// Which keys each lane of a shard has.
    pub(crate) fn keys_of(&self, lane: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.shape.keys).filter(move |key| self.lane_of[*key] == lane)
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.stage == Stage::Work && self.owed.is_empty()
    }

    /// The machine has stopped.
    pub(crate) fn crashed(&mut self) {
        self.lose();
        self.stage = Stage::Off;
    }

    /// The machine runs with so many shards, and this is what it has.
    pub(crate) fn begin(
        &mut self,
        shards: usize,
        found: &BTreeMap<usize, State>,
        groups: &[State],
    ) {
        let topology = topology(shards);
        let owner = |key| usize::from(topology.owner_of(&key_name(self.number, key)));
        self.lane_of = (0..self.shape.keys).map(owner).collect();
        self.shards = shards;
        self.lanes = vec![Lane::default(); shards + self.shape.groups];
        for lane in 0..shards {
            let own = found.iter().filter(|(key, _)| self.lane_of[**key] == lane);
            let own = own.map(|(key, state)| (*key, state.clone())).collect();
            self.lanes[lane].begin(&own);
        }
        for (group, state) in groups.iter().enumerate() {
            self.lanes[shards + group].begin(&BTreeMap::from([(0, state.clone())]));
        }
        self.stage = Stage::Work;
        self.last = None;
    }

    /// The replica may have lost what it had applied.
    pub(crate) fn forget_waits(&mut self) {
        self.waits += 1;
        self.lanes.iter_mut().for_each(|lane| lane.waited = 0);
    }

    fn lose(&mut self) {
        self.last = self.wire.take().map(|wire| wire.name);
        self.owed.clear();
        self.looks = Looks::default();
        self.refused_head = false;
        if self.stage != Stage::Off {
            self.stage = Stage::Settle;
        }
    }

    /// Does what there is to do now; what it saw of others.
    ///
    /// # Errors
    /// A reply is impossible.
    pub(crate) fn act(
        &mut self,
        common: &mut Common<'_>,
        rng: &mut Rng,
    ) -> Result<Vec<Sight>, String> {
        let now_ns = common.world.now().mono_ns;
        self.wake_ns = now_ns + rng.between(5_000, POLL_NS);
        let mut sights = Vec::new();
        match self.stage {
            Stage::Off => self.wake_ns = u64::MAX,
            Stage::Settle => {
                if self.last.as_ref().is_none_or(|name| !common.world.has_peer(name)) {
                    // What it has asked other shards for is done by then.
                    self.wake_ns = now_ns + RETRY_NS;
                    self.stage = Stage::Look;
                }
            }
            Stage::Work | Stage::Look => self.talk(common, rng, &mut sights)?,
        }
        Ok(sights)
    }

    fn talk(
        &mut self,
        common: &mut Common<'_>,
        rng: &mut Rng,
        sights: &mut Vec<Sight>,
    ) -> Result<(), String> {
        let Some(wire) = &mut self.wire else {
            let shard = rng.chance(1, 2).then(|| rng.index(self.shards));
            self.wire = Some(Wire::connect(common.world, self.doors, shard));
            if self.stage == Stage::Look {
                self.look(common);
            }
            return Ok(());
        };
        let (replies, goes_on) = wire.pump()?;
        for reply in replies {
            *common.step += 1;
            *common.replies += 1;
            if !self.hear(common, &reply, sights)? {
                common.mark("durable: unsure");
                self.lose();
                self.wake_ns = common.world.now().mono_ns + RETRY_NS;
                return Ok(());
            }
        }
        if !goes_on {
            common.mark("durable: connections lost");
            self.lose();
            return Ok(());
        }
        if self.stage == Stage::Look && self.owed.is_empty() {
            return self.settle(common);
        }
        let is_full = self.shape.waits && self.written() >= ENTRIES_MAX;
        let may_write = self.stage == Stage::Work && !self.rests && !is_full;
        if may_write && self.owed.len() < 40 && rng.chance(1, 2) {
            for _ in 0..rng.between(1, self.shape.pipeline_max) {
                self.produce(common, rng);
            }
        }
        Ok(())
    }

    fn written(&self) -> usize {
        self.lanes.iter().map(|lane| lane.entries.len()).sum()
    }

    // What is sent.

    fn produce(&mut self, common: &mut Common<'_>, rng: &mut Rng) {
        *common.step += 1;
        self.unique += 1;
        let unique = (*common.step << 4) | self.number as u64;
        let now_ms = common.world.now().unix_ms();
        let way = rng.below(20);
        if self.shape.waits && way < 2 {
            let timeout_ms = rng.between(1, 3_000).to_string().into_bytes();
            let upto = self.lanes.iter().map(|lane| lane.entries.len()).collect();
            let words = [b"WAIT".to_vec(), b"1".to_vec(), timeout_ms];
            return self.push(common, &words, Owed::Wait(self.waits, upto));
        }
        match way {
            0..14 => {
                let key = rng.index(self.shape.keys);
                let op = draw(rng, key, unique, now_ms);
                let name = key_name(self.number, key);
                let words = match op {
                    Op::Read => read_words(Kind::of(key), &name),
                    _ => op.words(&name),
                };
                let lane = self.lane_of[key];
                let at = self.lanes[lane].send(key, op, *common.step, now_ms);
                self.push(common, &words, Owed::One { lane, at });
            }
            14..18 => self.write_group(common, rng, unique),
            18 => {
                let group = rng.index(self.shape.groups);
                let after = self.lanes[self.group_lane(group)].entries.len();
                let mut words = vec![b"MGET".to_vec()];
                words.extend(
                    (0..self.shape.group_len).map(|key| group_name(self.number, group, key)),
                );
                self.push(common, &words, Owed::GroupRead { group, after });
            }
            _ => {
                let (peer, key) = (rng.index(self.shape.clients), rng.index(self.shape.keys));
                if peer != self.number && Kind::of(key) == Kind::Text {
                    let words = read_words(Kind::Text, &key_name(peer, key));
                    self.push(common, &words, Owed::Other { peer, key, sent_ms: now_ms });
                }
            }
        }
    }

    fn write_group(&mut self, common: &mut Common<'_>, rng: &mut Rng, unique: u64) {
        let group = rng.index(self.shape.groups);
        let now_ms = common.world.now().unix_ms();
        let names: Vec<_> =
            (0..self.shape.group_len).map(|key| group_name(self.number, group, key)).collect();
        let mut text = format!("{unique}.").into_bytes();
        if rng.chance(1, 40) {
            text.resize(70_000, b'g');
        }
        let way = rng.below(8);
        let op = if way == 0 { Op::Del } else { Op::Set(text.clone(), None) };
        let lane = self.group_lane(group);
        let at = self.lanes[lane].send(0, op, *common.step, now_ms);
        let pairs = names.iter().flat_map(|name| [name.clone(), text.clone()]);
        match way {
            0 => {
                let words: Vec<_> = [b"DEL".to_vec()].into_iter().chain(names).collect();
                self.push(common, &words, Owed::Group { group, at });
            }
            1..4 => {
                let words: Vec<_> = [b"MSET".to_vec()].into_iter().chain(pairs).collect();
                self.push(common, &words, Owed::Group { group, at });
            }
            4 => {
                let script = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[1]) end";
                let count = names.len().to_string();
                let mut words = vec![b"EVAL".to_vec(), script.into(), count.into_bytes()];
                words.extend(names);
                words.push(text);
                self.push(common, &words, Owed::Group { group, at });
            }
            _ => {
                self.push(common, &[b"MULTI".to_vec()], Owed::Head);
                for name in names {
                    self.push(common, &[b"SET".to_vec(), name, text.clone()], Owed::Head);
                }
                self.push(common, &[b"EXEC".to_vec()], Owed::Group { group, at });
            }
        }
    }

    fn push(&mut self, common: &mut Common<'_>, words: &[Vec<u8>], owed: Owed) {
        if let Some(wire) = &mut self.wire {
            let number = self.number;
            common.tell(|| format!("client {number}: {owed:?}: {}", shown(words)));
            wire.push(words);
            self.owed.push_back(owed);
        }
    }

    /// Reads everything.
    fn look(&mut self, common: &mut Common<'_>) {
        self.look_ms = common.world.now().unix_ms();
        for key in 0..self.shape.keys {
            let name = key_name(self.number, key);
            self.push(common, &read_words(Kind::of(key), &name), Owed::Look(key));
            self.push(common, &[b"PEXPIRETIME".to_vec(), name], Owed::LookExpiry(key));
        }
        for group in 0..self.shape.groups {
            let mut words = vec![b"MGET".to_vec()];
            words.extend((0..self.shape.group_len).map(|key| group_name(self.number, group, key)));
            self.push(common, &words, Owed::LookGroup(group));
        }
    }

    // What is heard.

    /// Takes a reply; false when it leaves open what has happened.
    fn hear(
        &mut self,
        common: &mut Common<'_>,
        reply: &Reply,
        sights: &mut Vec<Sight>,
    ) -> Result<bool, String> {
        let Some(owed) = self.owed.pop_front() else {
            return Err(format!("client {}: a reply to nothing: {}", self.number, show(reply)));
        };
        let number = self.number;
        common.tell(|| format!("client {number}: {owed:?} -> {}", show(reply)));
        if let Owed::Wait(waits, upto) = owed {
            self.heard_wait(common, reply, waits, upto);
            return Ok(true);
        }
        let refused = match reply {
            Reply::Error(text) if is_refusal(text) => true,
            Reply::Error(text) if text.starts_with(b"MISCONF") => {
                common.mark("durable: writes that may be lost");
                return Ok(false);
            }
            Reply::Error(text) if text.starts_with(b"EXECABORT") && self.refused_head => true,
            Reply::Error(_) => {
                return Err(format!("client {number}: {owed:?} -> {}", show(reply)));
            }
            _ => false,
        };
        if refused {
            common.mark("durable: writes refused");
        }
        let fits = match owed {
            Owed::Head => {
                self.refused_head |= refused;
                return Ok(true);
            }
            Owed::One { lane, at } => self.heard_one(common, lane, at, (reply, refused)),
            Owed::Group { group, at } => {
                let refused = refused || inner_refusals(reply)?;
                self.refused_head = false;
                let lane = self.group_lane(group);
                self.lanes[lane].entries[at].refused = refused;
                self.lanes[lane].acked(at, common.ack());
                true
            }
            Owed::GroupRead { group, after } => {
                refused || self.heard_group(common, group, after, reply)
            }
            Owed::Other { peer, key, sent_ms } => {
                let span = Span { lo: sent_ms, hi: common.world.now().unix_ms() };
                let value = read_reply(Kind::of(key), reply);
                sights.extend(value.map(|value| Sight { peer, key, value, span }));
                true
            }
            // Not now, then: it is asked again.
            Owed::Wait(..) => return Ok(true),
            Owed::Look(_) | Owed::LookExpiry(_) | Owed::LookGroup(_) if refused => {
                return Ok(false);
            }
            Owed::Look(key) => read_reply(Kind::of(key), reply)
                .map(|value| self.looks.keys.insert(key, State { value, expire_at_ms: None }))
                .is_some(),
            Owed::LookExpiry(key) => self.heard_expiry(key, reply),
            Owed::LookGroup(group) => match reply {
                Reply::Array(items) => {
                    let values = items.iter().filter_map(|item| read_reply(Kind::Text, item));
                    self.looks.groups.insert(group, values.collect());
                    true
                }
                _ => false,
            },
        };
        if fits {
            Ok(true)
        } else {
            Err(format!("client {number}: not what there may be: {}", show(reply)))
        }
    }

    /// Whoever has waited has its writes on a replica, if it was told so of its last wait.
    fn heard_wait(&mut self, common: &mut Common<'_>, reply: &Reply, waits: u64, upto: Vec<usize>) {
        let is_told = matches!(reply, Reply::Integer(replicas) if *replicas > 0);
        if is_told && waits == self.waits {
            common.mark("replicated: waited for");
            let lanes = self.lanes.iter_mut().zip(upto);
            lanes.for_each(|(lane, upto)| lane.waited = lane.waited.max(upto));
        }
    }

    fn heard_one(
        &mut self,
        common: &Common<'_>,
        lane: usize,
        at: usize,
        (reply, refused): (&Reply, bool),
    ) -> bool {
        let lane = &mut self.lanes[lane];
        lane.entries[at].refused = refused;
        lane.acked(at, common.ack());
        if refused {
            return true;
        }
        let Lane { entries, .. } = lane;
        let entry = &mut entries[at];
        match (&mut entry.op, reply) {
            (Op::Take(item), Reply::Bulk(taken)) => *item = Some(taken.clone()),
            (Op::Read, _) => {
                let (key, lo) = (entry.key, entry.sent_ms);
                let span = Span { lo, hi: common.world.now().unix_ms() };
                let value = read_reply(Kind::of(key), reply);
                return value.is_some_and(|value| lane.shows(key, at, &value, span));
            }
            _ => {}
        }
        true
    }

    fn heard_group(&self, common: &Common<'_>, group: usize, after: usize, reply: &Reply) -> bool {
        let Reply::Array(items) = reply else { return false };
        let values: Vec<_> = items.iter().map(|item| read_reply(Kind::Text, item)).collect();
        let Some(Some(first)) = values.first() else { return false };
        let span = Span::at(common.world.now().unix_ms());
        values.iter().all(|value| value.as_ref() == Some(first))
            && self.lanes[self.group_lane(group)].shows(0, after, first, span)
    }

    fn heard_expiry(&mut self, key: usize, reply: &Reply) -> bool {
        let (Reply::Integer(at_ms), Some(state)) = (reply, self.looks.keys.get_mut(&key)) else {
            return false;
        };
        match *at_ms {
            // It expired between the two replies.
            -2 => *state = State::default(),
            -1 => {}
            at_ms => state.expire_at_ms = Some(at_ms.unsigned_abs()),
        }
        true
    }

    /// Everything was read: what ran is known.
    fn settle(&mut self, common: &mut Common<'_>) -> Result<(), String> {
        let looks = std::mem::take(&mut self.looks);
        let ack = common.ack();
        let span = Span { lo: self.look_ms, hi: ack.ms };
        for lane in 0..self.shards {
            let found: BTreeMap<_, _> = self
                .keys_of(lane)
                .filter_map(|key| Some((key, looks.keys.get(&key)?.clone())))
                .collect();
            let floor = self.lanes[lane].floor(u64::MAX, true);
            let cuts = self.lanes[lane].cuts(&found, floor, span).map_err(|why| {
                format!("client {} after a lost connection, shard {lane}: {why}", self.number)
            })?;
            self.lanes[lane].settle(cuts, ack);
        }
        for (group, values) in &looks.groups {
            let lane = self.group_lane(*group);
            let cuts = group_cuts(&self.lanes[lane], values, u64::MAX, ack.ms)
                .map_err(|why| format!("client {} group {group}: {why}", self.number))?;
            self.lanes[lane].settle(cuts, ack);
        }
        common.mark("durable: settled");
        self.stage = Stage::Work;
        Ok(())
    }
}

/// The cuts of a group's lane that give these values, which must be equal.
pub(crate) fn group_cuts(
    lane: &Lane,
    values: &[Value],
    sure_ns: u64,
    now_ms: u64,
) -> Result<super::lane::Cuts, String> {
    let Some(first) = values.first() else { return Err("no values".into()) };
    if values.iter().any(|value| value != first) {
        let states = values.iter().map(|value| State { value: value.clone(), expire_at_ms: None });
        let shown: Vec<_> = states.map(|state| super::value::show(&state)).collect();
        return Err(format!("keys that change together differ: {}", shown.join(", ")));
    }
    let found = BTreeMap::from([(0, State { value: first.clone(), expire_at_ms: None })]);
    lane.cuts(&found, lane.floor(sure_ns, true), Span::at(now_ms))
}

/// A command, for people.
fn shown(words: &[Vec<u8>]) -> String {
    let word = |word: &Vec<u8>| word[..word.len().min(24)].escape_ascii().to_string();
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Whether all commands of a transaction were refused, or none.
///
/// # Errors
/// Some were.
fn inner_refusals(reply: &Reply) -> Result<bool, String> {
    let Reply::Array(items) = reply else { return Ok(false) };
    let is_refused =
        |item: &&Reply| matches!(item, Reply::Error(text) if text.starts_with(b"MISCONF"));
    let refused = items.iter().filter(is_refused).count();
    let failed = items.iter().filter(|item| matches!(item, Reply::Error(_))).count();
    match refused {
        0 if failed == 0 => Ok(false),
        all if all == items.len() => Ok(true),
        _ => Err(format!("a transaction in parts: {}", show(reply))),
    }
}

/// Whether a command surely did not run.
fn is_refusal(text: &[u8]) -> bool {
    let unsure = text.windows(8).any(|word| word == b"may be l");
    (text.starts_with(b"MISCONF") && !unsure)
        || text.starts_with(b"LOADING")
        || text.starts_with(b"READONLY")
        || text.starts_with(b"EXECABORT") && text.windows(8).any(|word| word == b"READONLY")
}
