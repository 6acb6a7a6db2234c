//! `Produce`: the request read where it lies, the response written as it becomes known.
//!
//! Versions 3 to 13 are read; responses of all versions are written, since older requests are refused with
//! one. Source: ProduceRequest.json and ProduceResponse.json of Kafka 4.3. Next: `batch` for the records.

use super::leader::{Endpoint, write_endpoints, write_leader};
use super::{Malformed, Reader, TopicRef, Writer};

pub(super) const FLEXIBLE: i16 = 9;
pub(super) const TOPIC_IDS: i16 = 13;
/// The first version that says which records were at fault.
pub(super) const RECORD_ERRORS: i16 = 8;
/// The first version that names leaders (KIP-951).
pub(super) const LEADERS: i16 = 10;

/// The oldest version with record batches.
pub const OLDEST: i16 = 3;

/// A request, checked to its end.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Set by transactional producers.
    pub transactional_id: Option<&'a str>,
    /// 0 for no answer, 1 or -1 for one.
    pub acks: i16,
    /// How long to wait for other replicas.
    pub timeout_ms: i32,
    topics: Topics<'a>,
}

/// Topics of a request.
#[derive(Clone, Copy, Debug)]
pub struct Topics<'a> {
    reader: Reader<'a>,
    left: usize,
    version: i16,
}

/// Partitions of a topic, with the records for each.
#[derive(Clone, Copy, Debug)]
pub struct Partitions<'a> {
    reader: Reader<'a>,
    left: usize,
    version: i16,
}

/// One partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition<'a> {
    /// Its number.
    pub index: i32,
    /// Record batches; none is a mistake of the client.
    pub records: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Reads a request after its header. Bytes behind it are left alone.
    ///
    /// # Errors
    /// It does not follow the protocol.
    pub fn read(mut reader: Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let flexible = version >= FLEXIBLE;
        let transactional_id = reader.nullable_string(flexible)?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let left = reader.array_len(flexible)?;
        let topics = Topics { reader, left, version };
        for _ in 0..left {
            read_topic(&mut reader, version)?;
        }
        reader.skip_tagged_fields(flexible)?;
        Ok(Self { transactional_id, acks, timeout_ms, topics })
    }

    /// Its topics.
    #[must_use]
    pub const fn topics(&self) -> Topics<'a> {
        self.topics
    }
}

/// The topic at the front, which is read to its end.
fn read_topic<'a>(
    reader: &mut Reader<'a>,
    version: i16,
) -> Result<(TopicRef<'a>, Partitions<'a>), Malformed> {
    let flexible = version >= FLEXIBLE;
    let topic = if version >= TOPIC_IDS {
        TopicRef::Id(reader.uuid()?)
    } else {
        TopicRef::Name(reader.string(flexible)?)
    };
    let left = reader.array_len(flexible)?;
    let partitions = Partitions { reader: *reader, left, version };
    for _ in 0..left {
        read_partition(reader, flexible)?;
    }
    reader.skip_tagged_fields(flexible)?;
    Ok((topic, partitions))
}

fn read_partition<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<Partition<'a>, Malformed> {
    let index = reader.i32()?;
    let records = reader.nullable_bytes(flexible)?;
    reader.skip_tagged_fields(flexible)?;
    Ok(Partition { index, records })
}

impl<'a> Iterator for Topics<'a> {
    type Item = (TopicRef<'a>, Partitions<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // The request was checked to its end.
        read_topic(&mut self.reader, self.version).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Topics<'_> {}

impl<'a> Iterator for Partitions<'a> {
    type Item = Partition<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        read_partition(&mut self.reader, self.version >= FLEXIBLE).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Partitions<'_> {}

/// What became of one partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// Number of the partition.
    pub index: i32,
    /// Zero for stored.
    pub error: i16,
    /// Offset of the first record; -1 when not stored.
    pub base_offset: i64,
    /// The broker's time, when that is what the topic wants; -1 else.
    pub log_append_time_ms: i64,
    /// The partition's first offset.
    pub log_start_offset: i64,
    /// Why it was not stored.
    pub message: Option<&'a str>,
}

/// A record that was the reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError<'a> {
    /// Which record of the batch, counted from zero.
    pub index: i32,
    /// What is wrong with it.
    pub message: Option<&'a str>,
}

/// Appends a response's start, before its topics.
pub fn write_head(out: &mut Vec<u8>, version: i16, topics: usize) {
    out.array_len(topics, version >= FLEXIBLE);
}

/// Appends a topic's start, before its partitions.
pub fn write_topic(out: &mut Vec<u8>, version: i16, topic: TopicRef<'_>, partitions: usize) {
    let flexible = version >= FLEXIBLE;
    match topic {
        TopicRef::Name(name) => out.string(name, flexible),
        TopicRef::Id(id) => out.uuid(&id),
    }
    out.array_len(partitions, flexible);
}

/// Appends one partition.
pub fn write_partition(out: &mut Vec<u8>, version: i16, outcome: &Outcome<'_>) {
    write_refused_partition(out, version, outcome, &[], None);
}

/// Appends one partition with what helps the client to do better: the records at fault, and number and epoch of
/// the leader when the wrong broker was asked. Versions that cannot say it leave it out.
pub fn write_refused_partition(
    out: &mut Vec<u8>,
    version: i16,
    outcome: &Outcome<'_>,
    record_errors: &[RecordError<'_>],
    current_leader: Option<(i32, i32)>,
) {
    let flexible = version >= FLEXIBLE;
    out.i32(outcome.index);
    out.i16(outcome.error);
    out.i64(outcome.base_offset);
    if version >= 2 {
        out.i64(outcome.log_append_time_ms);
    }
    if version >= 5 {
        out.i64(outcome.log_start_offset);
    }
    if version >= RECORD_ERRORS {
        out.array_len(record_errors.len(), flexible);
        for error in record_errors {
            out.i32(error.index);
            out.nullable_string(error.message, flexible);
            out.no_tagged_fields(flexible);
        }
        out.nullable_string(outcome.message, flexible);
    }
    match current_leader {
        Some(leader) if version >= LEADERS => {
            out.unsigned_varint(1);
            write_leader(out, 0, leader);
        }
        _ => out.no_tagged_fields(flexible),
    }
}

/// Ends a topic.
pub fn write_topic_end(out: &mut Vec<u8>, version: i16) {
    out.no_tagged_fields(version >= FLEXIBLE);
}

/// Ends the response.
pub fn write_end(out: &mut Vec<u8>, version: i16, throttle_ms: i32) {
    write_end_with(out, version, throttle_ms, &[]);
}

/// Ends the response and says where the leaders are that its partitions name, in versions that can.
pub fn write_end_with(
    out: &mut Vec<u8>,
    version: i16,
    throttle_ms: i32,
    endpoints: &[Endpoint<'_>],
) {
    if version >= 1 {
        out.i32(throttle_ms);
    }
    if version >= LEADERS {
        write_endpoints(out, endpoints);
    } else {
        out.no_tagged_fields(version >= FLEXIBLE);
    }
}
