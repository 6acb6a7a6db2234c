//! Records in: each batch is checked and written where it was received; the answer waits for the sync.
//!
//! Requests of a connection are answered in order, also when their partitions become durable in another one:
//! each is *pending* until all its partitions are, and leaves when those before it have left. While they wait the
//! connection goes on receiving, so that one sync covers many requests. Next: `partition` for the log.

use engine::net::ConnId;
use view::Instant;
use wire::kafka::api::{Api, PRODUCE};
use wire::kafka::frame::{self, RequestHeader};
use wire::kafka::{TopicRef, Uuid, produce};

use crate::code::Code;
use crate::partition::{Appended, CommitId, Refusal};
use crate::shard::{Shard, Slot};

/// A produce request that was taken.
#[derive(Debug)]
pub(crate) struct Pending {
    conn: ConnId,
    version: i16,
    correlation_id: i32,
    topics: Vec<PendingTopic>,
    /// Partitions that are not durable yet.
    missing: usize,
    /// Nobody waits for an answer.
    silent: bool,
    /// The connection is gone; freed by the last partition.
    abandoned: bool,
}

#[derive(Debug)]
struct PendingTopic {
    topic: OwnedRef,
    partitions: Vec<PendingPartition>,
}

/// How a request named a topic, to be said back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OwnedRef {
    Name(Box<str>),
    Id(Uuid),
}

impl OwnedRef {
    pub(crate) fn new(topic: TopicRef<'_>) -> Self {
        match topic {
            TopicRef::Name(name) => Self::Name(name.into()),
            TopicRef::Id(id) => Self::Id(id),
        }
    }

    pub(crate) fn borrow(&self) -> TopicRef<'_> {
        match self {
            Self::Name(name) => TopicRef::Name(name),
            Self::Id(id) => TopicRef::Id(*id),
        }
    }
}

#[derive(Debug)]
struct PendingPartition {
    index: i32,
    slot: Option<Slot>,
    stored: Result<Appended, Refusal>,
    log_start: i64,
}

impl Shard {
    /// Takes a produce request: stores what can be, and gives the number under which it is pending.
    pub(crate) fn produce(
        &mut self,
        conn: ConnId,
        header: &RequestHeader<'_>,
        request: &produce::Request<'_>,
        now: Instant,
    ) -> CommitId {
        let number = self.pending_free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            u32::try_from(self.pending.len() - 1).expect("fewer than 2^32 requests pending")
        });
        let (mut missing, silent) = (0, request.acks == 0);
        let mut topics = Vec::with_capacity(request.topics().len());
        for (topic, partitions) in request.topics() {
            let mut taken = Vec::with_capacity(partitions.len());
            for one in partitions {
                let part = self.produce_partition(topic, &one, request, now);
                missing += usize::from(self.waits(&part, number, silent));
                taken.push(part);
            }
            topics.push(PendingTopic { topic: OwnedRef::new(topic), partitions: taken });
        }
        self.pending[number as usize] = Some(Pending {
            conn,
            version: header.version,
            correlation_id: header.correlation_id,
            topics,
            missing,
            silent,
            abandoned: false,
        });
        number
    }

    /// Whether the answer about a partition waits for a sync; sees to it that there is one.
    fn waits(&mut self, part: &PendingPartition, number: CommitId, silent: bool) -> bool {
        let (Some(slot), Ok(appended)) = (part.slot, &part.stored) else { return false };
        self.mark_dirty(slot, false);
        if silent {
            return false;
        }
        let end = appended.end;
        self.partition(slot).is_some_and(|partition| !partition.commit(end, number))
    }

    fn produce_partition(
        &mut self,
        topic: TopicRef<'_>,
        one: &produce::Partition<'_>,
        request: &produce::Request<'_>,
        now: Instant,
    ) -> PendingPartition {
        let found = self.writable(topic, one.index, request);
        let cx = self.cx.clone();
        let stored = match (&found, one.records) {
            (Err(refusal), _) => Err(refusal.clone()),
            (_, None) => Err(Refusal::new(Code::InvalidRecord, "no records")),
            (Ok(slot), Some(records)) => match self.partition(*slot) {
                Some(partition) => partition.produce(&cx, records, now),
                None => Err(Refusal::new(Code::UnknownTopicOrPartition, "the topic was deleted")),
            },
        };
        let bytes = one.records.map_or(0, <[u8]>::len) as u64;
        match &stored {
            Ok(_) => {
                self.stats.produced_batches += 1;
                self.stats.produced_bytes += bytes;
                self.stats.produced_records += one
                    .records
                    .and_then(|records| wire::kafka::batch::Batch::header(records).ok())
                    .map_or(0, |batch| u64::from(batch.record_count().unsigned_abs()));
            }
            Err(_) => self.stats.refused_batches += 1,
        }
        let slot = found.ok();
        let log_start =
            slot.and_then(|slot| self.partition(slot)).map_or(-1, |partition| partition.start());
        PendingPartition { index: one.index, slot, stored, log_start }
    }

    fn writable(
        &self,
        topic: TopicRef<'_>,
        index: i32,
        request: &produce::Request<'_>,
    ) -> Result<Slot, Refusal> {
        let refuse = |code: Code| Refusal::new(code, code.text());
        if request.transactional_id.is_some() {
            return Err(refuse(Code::TransactionalIdAuthorizationFailed));
        }
        if !(-1..=1).contains(&request.acks) {
            return Err(refuse(Code::InvalidRequiredAcks));
        }
        let (_, entry) = self.topic(topic).map_err(refuse)?;
        if entry.internal {
            return Err(refuse(Code::InvalidTopic));
        }
        self.slot(topic, index).map_err(refuse)
    }

    /// A partition became durable up to where these requests wait, or failed.
    pub(crate) fn committed(&mut self, commits: &[CommitId]) {
        for &number in commits {
            let Some(pending) = self.pending.get_mut(number as usize).and_then(Option::as_mut)
            else {
                continue;
            };
            pending.missing = pending.missing.saturating_sub(1);
            if pending.missing > 0 {
                continue;
            }
            if pending.abandoned {
                self.pending[number as usize] = None;
                self.pending_free.push(number);
            } else if self.answered.last() != Some(&pending.conn) {
                self.answered.push(pending.conn);
            }
        }
    }

    /// Whether a pending request can be answered.
    pub(crate) fn is_complete(&self, number: CommitId) -> bool {
        let pending = self.pending.get(number as usize).and_then(Option::as_ref);
        pending.is_none_or(|pending| pending.missing == 0)
    }

    /// Ends a pending request whose connection is gone.
    pub(crate) fn forget(&mut self, number: CommitId) {
        let Some(slot) = self.pending.get_mut(number as usize) else { return };
        match slot {
            // Partitions still name it: the last of them frees it.
            Some(pending) if pending.missing > 0 => pending.abandoned = true,
            Some(_) => {
                *slot = None;
                self.pending_free.push(number);
            }
            None => {}
        }
    }

    /// Answers a request that is complete; false when it asked for no answer and something went
    /// wrong, which is told by closing the connection.
    pub(crate) fn answer_produce(&mut self, number: CommitId, out: &mut Vec<u8>) -> bool {
        let Some(pending) = self.pending.get_mut(number as usize).and_then(Option::take) else {
            return true;
        };
        self.pending_free.push(number);
        if pending.silent {
            let stored = |part: &PendingPartition| part.stored.is_ok();
            return pending.topics.iter().all(|topic| topic.partitions.iter().all(stored));
        }
        let Some(api) = Api::find(PRODUCE) else { return true };
        let version = pending.version;
        let start = frame::begin_response(out, api, version, pending.correlation_id);
        produce::write_head(out, version, pending.topics.len());
        for topic in &pending.topics {
            produce::write_topic(out, version, topic.topic.borrow(), topic.partitions.len());
            for part in &topic.partitions {
                self.write_outcome(out, version, part);
            }
            produce::write_topic_end(out, version);
        }
        produce::write_end(out, version, 0);
        frame::end(out, start, 0);
        true
    }

    fn write_outcome(&mut self, out: &mut Vec<u8>, version: i16, part: &PendingPartition) {
        let failed = part.slot.and_then(|slot| match self.partition(slot) {
            Some(partition) => partition.failed().map(str::to_owned),
            None => Some(Code::UnknownTopicOrPartition.text().to_owned()),
        });
        let (error, appended, message) = match (&part.stored, &failed) {
            (Ok(_), Some(why)) => (Code::StorageError.number(), None, Some(why.as_str())),
            (Ok(appended), None) => (0, Some(*appended), None),
            (Err(refusal), _) => (refusal.code.number(), None, Some(refusal.why.as_str())),
        };
        let outcome = produce::Outcome {
            index: part.index,
            error,
            base_offset: appended.map_or(-1, |appended| appended.base_offset),
            log_append_time_ms: appended.map_or(-1, |appended| appended.log_append_time_ms),
            log_start_offset: part.log_start,
            message,
        };
        let records = part.stored.as_ref().err().map_or(&[][..], |refusal| &refusal.records[..]);
        let no_key = Some("a compacted topic accepts no record without a key");
        let wrong: Vec<produce::RecordError<'_>> =
            records.iter().map(|&index| produce::RecordError { index, message: no_key }).collect();
        produce::write_refused_partition(out, version, &outcome, &wrong, None);
    }
}
