//! Offsets of partitions: by time, by epoch, and moving the first one.

use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::exec::sync::yield_now;
use engine::fs::Caching;
use engine::net::Server;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use wire::kafka::TopicRef;
use wire::kafka::batch::{Batch, Codec};
use wire::kafka::compress::Decompress;
use wire::kafka::records::records;

use crate::code::Code;
use crate::fetch;
use crate::partition::{LEADER_EPOCH, Located, Missing};
use crate::serve::Broker;
use crate::shard::Slot;

/// Times that are none.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The most that a batch is decompressed to, to find a record in it: beyond, the batch's first is told.
const PLAIN_MAX_BYTES: usize = 16 << 20;
/// Decompressed before others get their turn.
const PIECE_BYTES: usize = 64 << 10;

/// Attempts to have headers read that are gone again from the page cache.
const COLD_MAX: usize = 16;

/// Whether a client that knows this epoch is up to date.
const fn check_epoch(known: i32) -> Result<(), Code> {
    if known > LEADER_EPOCH {
        return Err(Code::UnknownLeaderEpoch);
    }
    Ok(())
}

/// An offset and its time; both -1 for none.
type Found = (i64, i64);

/// The first offset at or after a time, or one of the ends.
pub(super) async fn list(
    server: &Rc<Server<Broker>>,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let slot =
                server.shard().borrow().slot(TopicRef::Name(&topic.name), wanted.partition_index);
            let found = match check_epoch(wanted.current_leader_epoch).and(slot) {
                Ok(slot) => find(server, slot, wanted.timestamp).await,
                Err(code) => Err(code),
            };
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index);
            partitions.push(match found {
                Ok((offset, timestamp)) => answer
                    .with_offset(offset)
                    .with_timestamp(timestamp)
                    .with_leader_epoch(if offset < 0 || version < 4 { -1 } else { LEADER_EPOCH }),
                Err(code) => answer.with_error_code(code.number()),
            });
        }
        topics.push(
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn find(server: &Rc<Server<Broker>>, slot: Slot, timestamp: i64) -> Result<Found, Code> {
    let wanted = {
        let mut shard = server.shard().borrow_mut();
        let partition = shard.partition(slot).ok_or(Code::UnknownTopicOrPartition)?;
        match timestamp {
            LATEST => return Ok((partition.high_watermark(), -1)),
            EARLIEST | EARLIEST_LOCAL => return Ok((partition.start(), -1)),
            LATEST_TIERED => return Ok((-1, -1)),
            MAX_TIMESTAMP => partition.max_timestamp(),
            time if time >= 0 => time,
            _ => return Err(Code::InvalidRequest),
        }
    };
    if wanted < 0 {
        return Ok((-1, -1));
    }
    let cx = server.cx().clone();
    let mut cold_max = COLD_MAX;
    while cold_max > 0 {
        let located = {
            let mut shard = server.shard().borrow_mut();
            let partition = shard.partition(slot).ok_or(Code::UnknownTopicOrPartition)?;
            partition.locate_time(&cx, wanted)
        };
        match located {
            Ok(None) => return Ok((-1, -1)),
            Ok(Some(range)) => return look_into(&range, wanted).await,
            Err(Missing::Refused(code)) => return Err(code),
            Err(Missing::Cold(cold)) => {
                cold_max -= 1;
                fetch::warm(cold).await;
            }
            // Each goes on where the one before ended.
            Err(Missing::Unverified(place)) => {
                fetch::verify(server.shard(), slot, place).await?;
            }
        }
    }
    Err(Code::StorageError)
}

/// The first record of a batch at or after a time.
async fn look_into(range: &Located, wanted: i64) -> Result<Found, Code> {
    let len = usize::try_from(range.len).map_err(|_| Code::StorageError)?;
    let read = range.file.read_at(DirectBuf::zeroed(len), len, range.position, Caching::Keep).await;
    let (buf, read) = read.map_err(|_| Code::StorageError)?;
    let bytes = buf.get(..read).unwrap_or_default();
    let (batch, _) = Batch::split(bytes).map_err(|_| Code::CorruptMessage)?;
    let whole = (batch.base_offset(), batch.max_timestamp());
    if batch.is_log_append_time() {
        return Ok(whole);
    }
    let plain = match batch.codec() {
        Ok(Codec::None) => None,
        Ok(codec) => match plain(codec, batch.body()).await {
            Some(plain) => Some(plain),
            None => return Ok(whole),
        },
        Err(_) => return Ok(whole),
    };
    for record in records(plain.as_deref().unwrap_or(batch.body())).flatten() {
        let timestamp = batch.base_timestamp().saturating_add(record.timestamp_delta);
        if timestamp >= wanted {
            return Ok((batch.base_offset() + i64::from(record.offset_delta), timestamp));
        }
    }
    Ok(whole)
}

/// The records of a compressed batch; `None` when they are too many, or cannot be read.
async fn plain(codec: Codec, body: &[u8]) -> Option<Vec<u8>> {
    let mut job = Decompress::new(codec, body, PLAIN_MAX_BYTES).ok()?;
    while !job.step(PIECE_BYTES).ok()? {
        yield_now().await;
    }
    Some(job.into_plain())
}

/// Where an epoch ends.
pub(super) fn for_epoch(
    server: &Server<Broker>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut shard = server.shard().borrow_mut();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let slot = shard.slot(TopicRef::Name(&topic.topic), wanted.partition);
            let answer = EpochEndOffset::default().with_partition(wanted.partition);
            match check_epoch(wanted.current_leader_epoch).and(slot) {
                Err(code) => answer.with_error_code(code.number()),
                Ok(slot) if wanted.leader_epoch == LEADER_EPOCH => answer
                    .with_leader_epoch(LEADER_EPOCH)
                    .with_end_offset(shard.partition(slot).map_or(-1, |one| one.high_watermark())),
                Ok(_) => answer,
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// Moves the first offset of partitions.
pub(super) async fn delete(
    server: &Rc<Server<Broker>>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let slot =
                server.shard().borrow().slot(TopicRef::Name(&topic.name), wanted.partition_index);
            let deleted = match slot {
                Ok(slot) => delete_before(server, slot, wanted.offset).await,
                Err(code) => Err(code),
            };
            let result = DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index);
            partitions.push(match deleted {
                Ok(low_watermark) => result.with_low_watermark(low_watermark),
                Err(code) => result.with_low_watermark(-1).with_error_code(code.number()),
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete_before(server: &Rc<Server<Broker>>, slot: Slot, offset: i64) -> Result<i64, Code> {
    let job = {
        let mut shard = server.shard().borrow_mut();
        let partition = shard.partition(slot).ok_or(Code::UnknownTopicOrPartition)?;
        if partition.config.compact && !partition.config.delete {
            return Err(Code::PolicyViolation);
        }
        partition.delete_before(offset)?
    };
    job.run(server.cx()).await.map_err(|_| Code::StorageError)?;
    let mut shard = server.shard().borrow_mut();
    shard.partition(slot).map(|one| one.start()).ok_or(Code::UnknownTopicOrPartition)
}
