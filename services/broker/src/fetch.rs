//! Records out: the answer's heads from memory, the records between them from files to the socket.
//!
//! A request is planned in one synchronous step: for each partition a range of a file. While there is less
//! than the client wants it waits, known to each of its partitions, and is planned again when one of them has more
//! or the time is over. Ranges whose headers are not in the page cache are read by a kernel worker first.
//! In a fetch session a client says once what it wants, and is told only of partitions that have something new.
//! Next: `partition::read`, `logic::log::fetch_session`.

use std::cell::RefCell;
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::fs::Caching;
use engine::net::{Cold, ConnId, Part, Server};
use logic::log::fetch_session::{Key, Mode, Place, Refused, Served, Wanted};
use view::{Instant, Output};
use wire::kafka::api::{Api, FETCH};
use wire::kafka::frame::{self, RequestHeader};
use wire::kafka::{TopicRef, fetch};

use crate::code::Code;
use crate::partition::{self, LEADER_EPOCH, Located, Missing, Unverified};
use crate::produce::OwnedRef;
use crate::quota::FetchLimit;
use crate::read_in::ReadIn;
use crate::serve::Broker;
use crate::shard::{Shard, Slot};
use crate::watch::Watch;
use crate::work::Done;

/// Longest time that a request waits, whatever it asks for.
const WAIT_MAX_MS: u64 = 5 * 60 * 1000;
/// Most records of an answer, whatever it asks for.
const ANSWER_MAX_BYTES: u64 = 256 << 20;
/// Attempts to have headers read that are gone again from the page cache.
const COLD_MAX: usize = 16;
/// Read when headers are not there.
const COLD_BYTES: usize = 16 << 10;

/// A fetch request.
#[derive(Debug)]
pub struct FetchJob {
    version: i16,
    correlation_id: i32,
    max_wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
    place: Place,
    mode: Mode,
    topics: Vec<(OwnedRef, Vec<fetch::Partition>)>,
    forgotten: Vec<Key<OwnedRef>>,
    /// How long the client is left alone.
    pub(crate) throttle_ms: u32,
    /// How much it may fetch.
    pub(crate) limit: Option<FetchLimit>,
    read_in: Rc<RefCell<ReadIn>>,
}

/// What is answered about a partition.
struct Planned {
    answer: fetch::Answer,
    range: Option<Located>,
}

struct Plan {
    topics: Vec<Vec<Planned>>,
    bytes: u64,
    /// Something is to be told at once.
    urgent: bool,
}

/// What has to be done before an answer can be planned.
enum Wait {
    Cold(partition::Cold),
    /// A place in a partition.
    Unverified(Slot, Unverified),
}

impl FetchJob {
    /// A request on a connection that had `read_in` read from the disk.
    pub(crate) fn new(
        header: &RequestHeader<'_>,
        request: &fetch::Request<'_>,
        read_in: Rc<RefCell<ReadIn>>,
    ) -> Self {
        let topics = request
            .topics()
            .map(|(topic, partitions)| (OwnedRef::new(topic), partitions.collect()))
            .collect();
        let forgotten = request.forgotten().flat_map(|(topic, partitions)| {
            partitions.map(move |index| (OwnedRef::new(topic), index))
        });
        Self {
            version: header.version,
            correlation_id: header.correlation_id,
            max_wait_ms: request.max_wait_ms,
            min_bytes: request.min_bytes,
            max_bytes: request.max_bytes,
            place: Place { session_id: request.session_id, epoch: request.session_epoch },
            mode: Mode::Sessionless,
            topics,
            forgotten: forgotten.collect(),
            throttle_ms: 0,
            limit: None,
            read_in,
        }
    }

    /// Finds the request's session, and what is wanted by it.
    fn begin(&mut self, shard: &mut Shard, now_ms: u64) -> Result<(), Code> {
        let wanted: Vec<(Key<OwnedRef>, Wanted)> = self
            .topics
            .iter()
            .flat_map(|(topic, partitions)| {
                partitions.iter().map(|one| ((topic.clone(), one.index), wanted(one)))
            })
            .collect();
        let named = wanted.iter().map(|(key, wanted)| (key, *wanted));
        let sessions = &mut shard.fetch_sessions;
        self.mode = sessions
            .begin(self.place, self.has_topic_ids(), named, &self.forgotten, now_ms)
            .map_err(code_of)?;
        if self.mode == Mode::Incremental {
            self.topics.clear();
            for ((topic, index), wanted) in sessions.partitions(self.place.session_id) {
                let partition = fetch::Partition {
                    index: *index,
                    current_leader_epoch: wanted.current_leader_epoch,
                    fetch_offset: wanted.fetch_offset,
                    max_bytes: wanted.max_bytes,
                    last_fetched_epoch: wanted.last_fetched_epoch,
                    log_start_offset: wanted.log_start_offset,
                    high_watermark: fetch::NO_HIGH_WATERMARK,
                };
                match self.topics.last_mut() {
                    Some((last, partitions)) if last == topic => partitions.push(partition),
                    _ => self.topics.push((topic.clone(), vec![partition])),
                }
            }
        }
        Ok(())
    }

    /// Until when the client waits when it is not to have so many bytes now.
    fn above_limit(&mut self, shard: &mut Shard, bytes: u64, now: Instant) -> Option<u64> {
        let (limit, used) = (self.limit.as_ref()?, shard.used.as_mut()?);
        let wait_ms = used.record_fetch(limit, bytes, now.mono_ns / 1_000_000);
        if wait_ms == 0 {
            return None;
        }
        shard.stats.throttled += 1;
        self.throttle_ms = self.throttle_ms.max(wait_ms);
        Some(now.mono_ns.saturating_add(u64::from(self.throttle_ms) * 1_000_000))
    }

    const fn has_topic_ids(&self) -> bool {
        self.version >= fetch::TOPIC_IDS
    }

    /// Takes note of what is answered: opens a session where that is wanted, and leaves out what a session's
    /// client knows already. The session's id.
    fn note(&mut self, shard: &mut Shard, plan: &mut Plan, now_ms: u64) -> Result<i32, Code> {
        let sessions = &mut shard.fetch_sessions;
        match self.mode {
            Mode::Sessionless => Ok(0),
            Mode::Full => {
                let topics = self.topics.iter().zip(&plan.topics);
                let partitions = topics.flat_map(|((topic, partitions), planned)| {
                    partitions.iter().zip(planned).map(|(one, planned)| {
                        ((topic.clone(), one.index), wanted(one), served(planned))
                    })
                });
                let ids = self.version >= fetch::TOPIC_IDS;
                Ok(sessions.create(false, ids, partitions.collect(), now_ms))
            }
            Mode::Incremental => {
                let id = self.place.session_id;
                sessions.check(self.place).map_err(code_of)?;
                for ((topic, partitions), planned) in self.topics.iter_mut().zip(&mut plan.topics) {
                    let mut told = partitions.iter().zip(planned.iter()).map(|(one, planned)| {
                        sessions.answer(id, &(topic.clone(), one.index), &served(planned))
                    });
                    let told: Vec<bool> = told.by_ref().collect();
                    let mut keep = told.iter();
                    partitions.retain(|_| keep.next() == Some(&true));
                    let mut keep = told.iter();
                    planned.retain(|_| keep.next() == Some(&true));
                }
                self.topics.retain(|(_, partitions)| !partitions.is_empty());
                plan.topics.retain(|planned| !planned.is_empty());
                Ok(id)
            }
        }
    }

    fn plan(&self, shard: &mut Shard) -> Result<Plan, Wait> {
        let most = self.limit.as_ref().map_or(ANSWER_MAX_BYTES, |limit| limit.burst());
        let limit = u64::try_from(self.max_bytes).unwrap_or(0).min(ANSWER_MAX_BYTES).min(most);
        let mut plan =
            Plan { topics: Vec::with_capacity(self.topics.len()), bytes: 0, urgent: false };
        for (topic, partitions) in &self.topics {
            let mut planned = Vec::with_capacity(partitions.len());
            for wanted in partitions {
                planned.push(plan_partition(shard, topic.borrow(), wanted, limit, &mut plan)?);
            }
            plan.topics.push(planned);
        }
        Ok(plan)
    }

    fn watch(&self, shard: &mut Shard, watch: &Rc<Watch>) {
        for (topic, partitions) in &self.topics {
            for wanted in partitions {
                if let Ok(slot) = shard.slot(topic.borrow(), wanted.index)
                    && let Some(partition) = shard.partition(slot)
                {
                    partition.watch(watch);
                }
            }
        }
    }

    /// The answer in parts.
    fn parts(&self, plan: Plan, session_id: i32) -> Vec<Part> {
        let Some(api) = Api::find(FETCH) else { return Vec::new() };
        let version = self.version;
        let mut bytes = Vec::new();
        let start = frame::begin_response(&mut bytes, api, version, self.correlation_id);
        let throttle_ms = self.throttle_ms.cast_signed();
        fetch::write_head(&mut bytes, version, throttle_ms, 0, session_id, self.topics.len());
        let mut ranges = Vec::new();
        for ((topic, _), planned) in self.topics.iter().zip(plan.topics) {
            fetch::write_topic(&mut bytes, version, topic.borrow(), planned.len());
            for one in planned {
                if let Some(range) = &one.range {
                    self.read_in.borrow_mut().sends(&range.file, range.position, range.len);
                }
                let len = one.range.as_ref().map_or(0, |range| range.len);
                let len = usize::try_from(len).unwrap_or(0);
                fetch::write_partition(&mut bytes, version, &one.answer, len);
                ranges.extend(one.range.map(|range| (bytes.len(), range)));
                fetch::write_partition_end(&mut bytes, version, &one.answer);
            }
            fetch::write_end(&mut bytes, version);
        }
        fetch::write_end(&mut bytes, version);
        frame::end(&mut bytes, start, usize::try_from(plan.bytes).unwrap_or(usize::MAX));
        let mut parts = Vec::with_capacity(ranges.len() * 2 + 1);
        let mut from = 0;
        for (at, range) in ranges {
            parts.push(Part::Bytes(Output::with_text(&bytes[from..at])));
            let (offset, len) = (range.position, range.len);
            parts.push(Part::File { file: range.file, offset, len });
            from = at;
        }
        parts.push(Part::Bytes(Output::with_text(&bytes[from..])));
        parts
    }

    /// An answer without records to a client that used too much; its session goes on.
    fn throttled(&self) -> Vec<u8> {
        let session_id = if self.mode == Mode::Incremental { self.place.session_id } else { 0 };
        self.empty(0, session_id)
    }

    fn refused(&self, code: Code) -> Vec<u8> {
        self.empty(code.number(), 0)
    }

    fn empty(&self, error: i16, session_id: i32) -> Vec<u8> {
        let throttle_ms = self.throttle_ms.cast_signed();
        let mut bytes = Vec::new();
        if let Some(api) = Api::find(FETCH) {
            let start = frame::begin_response(&mut bytes, api, self.version, self.correlation_id);
            fetch::write_head(&mut bytes, self.version, throttle_ms, error, session_id, 0);
            fetch::write_end(&mut bytes, self.version);
            frame::end(&mut bytes, start, 0);
        }
        bytes
    }
}

const fn wanted(one: &fetch::Partition) -> Wanted {
    Wanted {
        fetch_offset: one.fetch_offset,
        max_bytes: one.max_bytes,
        current_leader_epoch: one.current_leader_epoch,
        last_fetched_epoch: one.last_fetched_epoch,
        log_start_offset: one.log_start_offset,
    }
}

const fn served(planned: &Planned) -> Served {
    Served {
        high_watermark: planned.answer.high_watermark,
        log_start_offset: planned.answer.log_start_offset,
        has_records: planned.range.is_some(),
        has_error: planned.answer.error != 0,
        has_notice: false,
    }
}

const fn code_of(refused: Refused) -> Code {
    match refused {
        Refused::NoSession => Code::FetchSessionIdNotFound,
        Refused::Epoch => Code::InvalidFetchSessionEpoch,
        Refused::TopicIds => Code::FetchSessionTopicId,
    }
}

fn plan_partition(
    shard: &mut Shard,
    topic: TopicRef<'_>,
    wanted: &fetch::Partition,
    limit: u64,
    plan: &mut Plan,
) -> Result<Planned, Wait> {
    let mut answer = fetch::Answer {
        index: wanted.index,
        error: 0,
        high_watermark: -1,
        log_start_offset: -1,
        current_leader: None,
    };
    let located = match shard.slot(topic, wanted.index) {
        Err(code) => {
            if code == Code::NotLeaderOrFollower {
                answer.current_leader = current_leader(shard, topic, wanted.index);
            }
            Err(Missing::Refused(code))
        }
        Ok(_) if wanted.current_leader_epoch > LEADER_EPOCH => {
            Err(Missing::Refused(Code::UnknownLeaderEpoch))
        }
        Ok(slot) => {
            let cx = shard.cx.clone();
            match shard.partition(slot) {
                Some(partition) => {
                    answer.high_watermark = partition.high_watermark();
                    answer.log_start_offset = partition.start();
                    let most = u64::try_from(wanted.max_bytes).unwrap_or(0);
                    let left = limit.saturating_sub(plan.bytes);
                    if left == 0 && plan.bytes > 0 {
                        Ok(None)
                    } else {
                        partition.locate(&cx, wanted.fetch_offset, most.min(left), plan.bytes == 0)
                    }
                }
                None => Err(Missing::Refused(Code::UnknownTopicOrPartition)),
            }
        }
    };
    let range = match located {
        Ok(range) => range,
        Err(Missing::Cold(cold)) => return Err(Wait::Cold(cold)),
        Err(Missing::Unverified(place)) => {
            let slot = shard.slot(topic, wanted.index).unwrap_or(Slot::MAX);
            return Err(Wait::Unverified(slot, place));
        }
        Err(Missing::Refused(code)) => {
            answer.error = code.number();
            plan.urgent = true;
            None
        }
    };
    // Nobody tells a client that waits for more when more is checked.
    plan.urgent |= range.as_ref().is_some_and(|range| range.is_cut);
    plan.bytes += range.as_ref().map_or(0, |range| range.len);
    Ok(Planned { answer, range })
}

/// Number and epoch of the broker that leads a partition.
fn current_leader(shard: &Shard, topic: TopicRef<'_>, index: i32) -> Option<(i32, i32)> {
    let (name, _) = shard.topic(topic).ok()?;
    let known = shard.catalog.topics.get(&**name)?;
    Some((shard.config.broker_id(shard.leader(known, index)), LEADER_EPOCH))
}

/// Reads the place of some headers, so that they are in the page cache.
pub(crate) async fn warm(cold: partition::Cold) {
    let buf = DirectBuf::zeroed(COLD_BYTES);
    // Read errors show when the headers are looked at.
    let _ = cold.file.read_at(buf, COLD_BYTES, cold.position, Caching::Keep).await;
}

/// Checks a place before it is served, with what follows it; what had to be read from the disk for that.
pub(crate) async fn verify(
    shard: &RefCell<Shard>,
    slot: Slot,
    place: Unverified,
) -> Result<Option<Cold>, Code> {
    let cx = shard.borrow().cx.clone();
    let wanted = || {
        let mut shard = shard.borrow_mut();
        let partition = shard.partition(slot).ok_or(Code::UnknownTopicOrPartition)?;
        partition.verification(&cx, place).map_err(|_| Code::StorageError)
    };
    let Some(verification) = wanted()? else { return Ok(None) };
    let turns = verification.turns();
    let _turn = turns.turn().await;
    let Some(verification) = wanted()? else { return Ok(None) };
    let verified = verification.run().await.map_err(|error| {
        cx.log().error("broker", cx.now(), "segment not checked", &[("why", &error)]);
        Code::StorageError
    })?;
    if let Some(partition) = shard.borrow_mut().partition(slot) {
        partition.verified(&cx, place.base, &verified);
    }
    let (from, len) = verified.extent();
    Ok(verified.was_cold.then(|| Cold::new(verified.file, from, len)))
}

async fn planned(server: &Server<Broker>, job: &FetchJob) -> Result<Plan, Code> {
    // Each partition may have its headers read, and a few stretches checked.
    let partitions: usize = job.topics.iter().map(|(_, partitions)| partitions.len()).sum();
    for _ in 0..COLD_MAX + 4 * partitions {
        let plan = job.plan(&mut server.shard().borrow_mut());
        match plan {
            Ok(plan) => return Ok(plan),
            Err(Wait::Cold(cold)) => warm(cold).await,
            Err(Wait::Unverified(slot, place)) => {
                if let Some(cold) = verify(server.shard(), slot, place).await? {
                    job.read_in.borrow_mut().add(cold);
                }
            }
        }
    }
    Err(Code::StorageError)
}

/// Answers a fetch request.
pub(crate) async fn perform(server: Rc<Server<Broker>>, conn: ConnId, job: FetchJob) -> Done {
    let mut job = job;
    job.read_in.borrow_mut().drop_behind();
    let now_ms = server.cx().now().unix_ms();
    if let Err(code) = job.begin(&mut server.shard().borrow_mut(), now_ms) {
        return Done::Reply(job.refused(code));
    }
    let cx = server.cx().clone();
    let wait_ms = u64::try_from(job.max_wait_ms).unwrap_or(0).min(WAIT_MAX_MS);
    let deadline_ns = cx.now().mono_ns.saturating_add(wait_ms * 1_000_000);
    let min_bytes = u64::try_from(job.min_bytes).unwrap_or(0);
    let watch = Rc::new(Watch::default());
    let mut plan = loop {
        let plan = match planned(&server, &job).await {
            Ok(plan) => plan,
            Err(code) => return Done::Reply(job.refused(code)),
        };
        let late = cx.now().mono_ns >= deadline_ns;
        if plan.bytes >= min_bytes || plan.urgent || late || cx.is_stopping() {
            break plan;
        }
        job.watch(&mut server.shard().borrow_mut(), &watch);
        watch.wait(cx.sleep_until(deadline_ns)).await;
    };
    let muted = job.above_limit(&mut server.shard().borrow_mut(), plan.bytes, cx.now());
    if let Some(until_ns) = muted {
        let reply = vec![Part::Bytes(Output::with_text(&job.throttled()))];
        let _ = server.transfer(conn, reply).await;
        return Done::Muted(until_ns);
    }
    let session_id = {
        let mut shard = server.shard().borrow_mut();
        shard.stats.fetches += 1;
        shard.stats.fetched_bytes += plan.bytes;
        match job.note(&mut shard, &mut plan, cx.now().unix_ms()) {
            Ok(session_id) => session_id,
            Err(code) => return Done::Reply(job.refused(code)),
        }
    };
    // A peer that is gone is found out by its connection.
    let sent = server.transfer(conn, job.parts(plan, session_id)).await;
    job.read_in.borrow_mut().sent(sent.unwrap_or_default());
    Done::Ready
}
