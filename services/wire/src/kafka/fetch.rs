//! `Fetch`: the request read where it lies, the response written around records that are elsewhere.
//!
//! A response is written in pieces, because the records between them go from a file to the socket: head,
//! then for each topic its start, for each partition its start up to the length of its records and its
//! end, the topic's end, and the response's. Source: FetchRequest.json and FetchResponse.json of Kafka
//! 4.3. Next: `frame::end` for the length that counts what lies elsewhere.

use super::leader::{Endpoint, write_endpoints, write_leader};
use super::{Malformed, Reader, TopicRef, Writer};

pub(super) const FLEXIBLE: i16 = 12;
/// The oldest version that names topics by id.
pub const TOPIC_IDS: i16 = 13;
pub(super) const SESSIONS: i16 = 7;
/// The first version that says who asks in a tagged field, with an epoch (KIP-903).
pub(super) const REPLICA_STATE: i16 = 15;
/// The first version that says where leaders are (KIP-951).
pub(super) const ENDPOINTS: i16 = 16;
/// The high watermark of who does not say it (KIP-1166).
pub const NO_HIGH_WATERMARK: i64 = i64::MAX;

/// A request, checked to its end.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// Answer when this much is there.
    pub min_bytes: i32,
    /// Answer with no more, but for a first batch that is larger.
    pub max_bytes: i32,
    /// Whether transactions that are open are left out.
    pub read_committed: bool,
    /// The session that the request belongs to; zero for none, or for a new one.
    pub session_id: i32,
    /// Which request of the session; 0 for the first, -1 for no session.
    pub session_epoch: i32,
    /// Who asks, when a broker does.
    pub replica: Option<Replica>,
    /// The cluster that the client means; none is any.
    pub cluster_id: Option<&'a str>,
    /// The client's rack; empty for none.
    pub rack: &'a str,
    topics: Topics<'a>,
    forgotten: Forgotten<'a>,
}

/// A broker that copies partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its number.
    pub broker_id: i32,
    /// Its epoch; -1 before version 15.
    pub epoch: i64,
}

/// What is wanted of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// Epoch of the leader that the client knows; -1 for none.
    pub current_leader_epoch: i32,
    /// The first offset wanted.
    pub fetch_offset: i64,
    /// Epoch of the batch before it; -1 when not known.
    pub last_fetched_epoch: i32,
    /// The first offset that a replica has; -1 for clients.
    pub log_start_offset: i64,
    /// At most so much of this partition.
    pub max_bytes: i32,
    /// What a replica knows of the high watermark; `i64::MAX` when it does not say.
    pub high_watermark: i64,
}

macro_rules! walk {
    ($(#[$doc:meta])* $name:ident, $item:ty, $read:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<'a> {
            reader: Reader<'a>,
            left: usize,
            version: i16,
        }

        impl<'a> Iterator for $name<'a> {
            type Item = $item;

            fn next(&mut self) -> Option<Self::Item> {
                self.left = self.left.checked_sub(1)?;
                // The request was checked to its end.
                $read(&mut self.reader, self.version).ok()
            }
        }
    };
}

walk!(
    /// Topics of a request.
    Topics,
    (TopicRef<'a>, Partitions<'a>),
    read_topic
);
walk!(
    /// Partitions of a topic.
    Partitions,
    Partition,
    read_partition
);
walk!(
    /// Topics whose partitions the session is to forget.
    Forgotten,
    (TopicRef<'a>, ForgottenPartitions<'a>),
    read_forgotten
);
walk!(
    /// Partitions that the session is to forget.
    ForgottenPartitions,
    i32,
    read_index
);

impl<'a> Request<'a> {
    /// Reads a request after its header. Bytes behind it are left alone.
    ///
    /// # Errors
    /// It does not follow the protocol.
    pub fn read(mut reader: Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let flexible = version >= FLEXIBLE;
        let mut replica = None;
        if version < REPLICA_STATE {
            let broker_id = reader.i32()?;
            replica = (broker_id >= 0).then_some(Replica { broker_id, epoch: -1 });
        }
        let (max_wait_ms, min_bytes, max_bytes) = (reader.i32()?, reader.i32()?, reader.i32()?);
        let read_committed = reader.i8()? == 1;
        let (session_id, session_epoch) =
            if version >= SESSIONS { (reader.i32()?, reader.i32()?) } else { (0, -1) };
        let left = reader.array_len(flexible)?;
        let topics = Topics { reader, left, version };
        for _ in 0..left {
            read_topic(&mut reader, version)?;
        }
        let left = if version >= SESSIONS { reader.array_len(flexible)? } else { 0 };
        let forgotten = Forgotten { reader, left, version };
        for _ in 0..left {
            read_forgotten(&mut reader, version)?;
        }
        let rack = if version >= 11 { reader.string(flexible)? } else { "" };
        let mut cluster_id = None;
        if flexible {
            reader.tagged_fields(|tag, mut field| {
                match tag {
                    0 => cluster_id = field.nullable_string(true)?,
                    1 if version >= REPLICA_STATE => replica = read_replica(field)?,
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(Self {
            max_wait_ms,
            min_bytes,
            max_bytes,
            read_committed,
            session_id,
            session_epoch,
            replica,
            cluster_id,
            rack,
            topics,
            forgotten,
        })
    }

    /// Topics wanted; in a session, those that changed.
    #[must_use]
    pub const fn topics(&self) -> Topics<'a> {
        self.topics
    }

    /// Topics that the session is to forget.
    #[must_use]
    pub const fn forgotten(&self) -> Forgotten<'a> {
        self.forgotten
    }
}

fn read_replica(mut field: Reader<'_>) -> Result<Option<Replica>, Malformed> {
    let (broker_id, epoch) = (field.i32()?, field.i64()?);
    Ok((broker_id >= 0).then_some(Replica { broker_id, epoch }))
}

fn read_ref<'a>(reader: &mut Reader<'a>, version: i16) -> Result<TopicRef<'a>, Malformed> {
    if version >= TOPIC_IDS {
        reader.uuid().map(TopicRef::Id)
    } else {
        reader.string(version >= FLEXIBLE).map(TopicRef::Name)
    }
}

/// The topic at the front, which is read to its end.
fn read_topic<'a>(
    reader: &mut Reader<'a>,
    version: i16,
) -> Result<(TopicRef<'a>, Partitions<'a>), Malformed> {
    let topic = read_ref(reader, version)?;
    let left = reader.array_len(version >= FLEXIBLE)?;
    let partitions = Partitions { reader: *reader, left, version };
    for _ in 0..left {
        read_partition(reader, version)?;
    }
    reader.skip_tagged_fields(version >= FLEXIBLE)?;
    Ok((topic, partitions))
}

fn read_partition(reader: &mut Reader<'_>, version: i16) -> Result<Partition, Malformed> {
    let index = reader.i32()?;
    let current_leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
    let fetch_offset = reader.i64()?;
    let last_fetched_epoch = if version >= 12 { reader.i32()? } else { -1 };
    let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
    let max_bytes = reader.i32()?;
    let mut high_watermark = NO_HIGH_WATERMARK;
    if version >= FLEXIBLE {
        reader.tagged_fields(|tag, mut field| {
            if tag == 1 && version >= 18 {
                high_watermark = field.i64()?;
            }
            Ok(())
        })?;
    }
    Ok(Partition {
        index,
        current_leader_epoch,
        fetch_offset,
        last_fetched_epoch,
        log_start_offset,
        max_bytes,
        high_watermark,
    })
}

fn read_forgotten<'a>(
    reader: &mut Reader<'a>,
    version: i16,
) -> Result<(TopicRef<'a>, ForgottenPartitions<'a>), Malformed> {
    let topic = read_ref(reader, version)?;
    let left = reader.array_len(version >= FLEXIBLE)?;
    let partitions = ForgottenPartitions { reader: *reader, left, version };
    for _ in 0..left {
        read_index(reader, version)?;
    }
    reader.skip_tagged_fields(version >= FLEXIBLE)?;
    Ok((topic, partitions))
}

fn read_index(reader: &mut Reader<'_>, _version: i16) -> Result<i32, Malformed> {
    reader.i32()
}

/// What is answered about one partition, beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its number.
    pub index: i32,
    /// Zero for none.
    pub error: i16,
    /// Everything before may be read; -1 when not known.
    pub high_watermark: i64,
    /// Its first offset; -1 when not known.
    pub log_start_offset: i64,
    /// The leader and its epoch, for a client that asked the wrong one.
    pub current_leader: Option<(i32, i32)>,
}

/// What only some answers say of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Before it every transaction is decided; none is the high watermark.
    pub last_stable_offset: Option<i64>,
    /// The broker that the client had better ask.
    pub preferred_replica: Option<i32>,
    /// The latest epoch that both logs have, and where it ends in the leader's, for a replica whose log
    /// went another way (KIP-595).
    pub diverging_epoch: Option<(i32, i64)>,
}

/// A transaction whose records a reader of what is committed leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Its producer.
    pub producer_id: i64,
    /// Offset of its first record in this partition.
    pub first_offset: i64,
}

/// Appends a response's start, before its topics.
pub fn write_head(
    out: &mut Vec<u8>,
    version: i16,
    throttle_ms: i32,
    error: i16,
    session_id: i32,
    topics: usize,
) {
    out.i32(throttle_ms);
    if version >= SESSIONS {
        out.i16(error);
        out.i32(session_id);
    }
    out.array_len(topics, version >= FLEXIBLE);
}

/// Appends a topic's start, before its partitions.
pub fn write_topic(out: &mut Vec<u8>, version: i16, topic: TopicRef<'_>, partitions: usize) {
    match topic {
        TopicRef::Name(name) => out.string(name, version >= FLEXIBLE),
        TopicRef::Id(id) => out.uuid(&id),
    }
    out.array_len(partitions, version >= FLEXIBLE);
}

/// Appends a partition up to the length of its records, which follow; the last stable offset is the
/// high watermark, since there are no transactions.
pub fn write_partition(out: &mut Vec<u8>, version: i16, answer: &Answer, records_bytes: usize) {
    write_detailed_partition(out, version, answer, &Details::default(), &[], records_bytes);
}

/// The same with what only some answers say; versions that cannot say it leave it out.
pub fn write_detailed_partition(
    out: &mut Vec<u8>,
    version: i16,
    answer: &Answer,
    details: &Details,
    aborted: &[Aborted],
    records_bytes: usize,
) {
    let flexible = version >= FLEXIBLE;
    out.i32(answer.index);
    out.i16(answer.error);
    out.i64(answer.high_watermark);
    out.i64(details.last_stable_offset.unwrap_or(answer.high_watermark));
    if version >= 5 {
        out.i64(answer.log_start_offset);
    }
    if aborted.is_empty() {
        out.null(flexible);
    } else {
        out.array_len(aborted.len(), flexible);
        for transaction in aborted {
            out.i64(transaction.producer_id);
            out.i64(transaction.first_offset);
            out.no_tagged_fields(flexible);
        }
    }
    if version >= 11 {
        out.i32(details.preferred_replica.unwrap_or(-1));
    }
    out.array_len(records_bytes, flexible);
}

/// Ends a partition, after its records.
pub fn write_partition_end(out: &mut Vec<u8>, version: i16, answer: &Answer) {
    write_detailed_partition_end(out, version, answer, &Details::default());
}

/// The same with what only some answers say.
pub fn write_detailed_partition_end(
    out: &mut Vec<u8>,
    version: i16,
    answer: &Answer,
    details: &Details,
) {
    if version < FLEXIBLE {
        return;
    }
    let fields = [details.diverging_epoch.is_some(), answer.current_leader.is_some()];
    out.unsigned_varint(fields.into_iter().map(u32::from).sum());
    if let Some((epoch, end_offset)) = details.diverging_epoch {
        // Tag 0, thirteen bytes.
        out.unsigned_varint(0);
        out.unsigned_varint(13);
        out.i32(epoch);
        out.i64(end_offset);
        out.no_tagged_fields(true);
    }
    if let Some(leader) = answer.current_leader {
        write_leader(out, 1, leader);
    }
}

/// Ends a topic, or the response.
pub fn write_end(out: &mut Vec<u8>, version: i16) {
    out.no_tagged_fields(version >= FLEXIBLE);
}

/// Ends the response and says where the leaders are that its partitions name, in versions that can.
pub fn write_end_with(out: &mut Vec<u8>, version: i16, endpoints: &[Endpoint<'_>]) {
    if version >= ENDPOINTS {
        write_endpoints(out, endpoints);
    } else {
        write_end(out, version);
    }
}
