//! `Produce` as a client has it.
//!
//! Requests of versions 3 to 13 are written, responses of all versions are read: one to an older
//! request says that it is refused. Source: ProduceRequest.json and ProduceResponse.json of Kafka 4.3.
//! Next: `kafka::produce` for the broker's half.

use super::{Form, Topic, Topics, read_topic, write_topics};
use crate::kafka::leader::{Endpoint, read_endpoints, read_leader};
use crate::kafka::list::List;
use crate::kafka::produce::{
    self, FLEXIBLE, LEADERS, Outcome, RECORD_ERRORS, RecordError, TOPIC_IDS,
};
use crate::kafka::{Malformed, Reader, Writer};

/// A request to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Set by transactional producers.
    pub transactional_id: Option<&'a str>,
    /// 0 for no answer, 1 or -1 for one.
    pub acks: i16,
    /// How long the broker waits for other replicas.
    pub timeout_ms: i32,
    /// Records by topic and partition.
    pub topics: &'a [Topic<'a, produce::Partition<'a>>],
}

impl Request<'_> {
    /// Appends the request after its header.
    pub fn write(&self, out: &mut Vec<u8>, version: i16) {
        let flexible = version >= FLEXIBLE;
        out.nullable_string(self.transactional_id, flexible);
        out.i16(self.acks);
        out.i32(self.timeout_ms);
        write_topics(out, flexible, self.topics, |out, partition| {
            out.i32(partition.index);
            match partition.records {
                Some(records) => out.bytes(records, flexible),
                None => out.null(flexible),
            }
            out.no_tagged_fields(flexible);
        });
        out.no_tagged_fields(flexible);
    }
}

/// A response, checked to its end.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// How long the client is to hold back, in milliseconds.
    pub throttle_ms: i32,
    /// What became of the records.
    pub topics: Topics<'a, Partition<'a>>,
    /// Where the leaders are that partitions name.
    pub endpoints: List<'a, Endpoint<'a>>,
}

/// What became of one partition's records.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    /// What versions of long ago say already.
    pub outcome: Outcome<'a>,
    /// Records that were the reason of a refusal.
    pub record_errors: List<'a, RecordError<'a>>,
    /// Number and epoch of the leader, when the wrong broker was asked.
    pub current_leader: Option<(i32, i32)>,
}

impl<'a> Response<'a> {
    /// Reads a response after its header. Bytes behind it are left alone.
    ///
    /// # Errors
    /// It does not follow the protocol.
    pub fn read(mut reader: Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let flexible = version >= FLEXIBLE;
        let topics = List::read(&mut reader, version, flexible, |reader, version| {
            let form = Form { flexible: version >= FLEXIBLE, by_id: version >= TOPIC_IDS };
            read_topic(reader, version, form, read_partition)
        })?;
        let throttle_ms = if version >= 1 { reader.i32()? } else { 0 };
        let endpoints = read_endpoints(&mut reader, version, flexible, version >= LEADERS)?;
        Ok(Self { throttle_ms, topics, endpoints })
    }
}

fn read_partition<'a>(reader: &mut Reader<'a>, version: i16) -> Result<Partition<'a>, Malformed> {
    let flexible = version >= FLEXIBLE;
    let mut outcome = Outcome {
        index: reader.i32()?,
        error: reader.i16()?,
        base_offset: reader.i64()?,
        log_append_time_ms: if version >= 2 { reader.i64()? } else { -1 },
        log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
        message: None,
    };
    let mut record_errors = List::empty(read_record_error);
    if version >= RECORD_ERRORS {
        record_errors = List::read(reader, version, flexible, read_record_error)?;
        outcome.message = reader.nullable_string(flexible)?;
    }
    let mut current_leader = None;
    if flexible {
        reader.tagged_fields(|tag, field| {
            if tag == 0 && version >= LEADERS {
                current_leader = Some(read_leader(field)?);
            }
            Ok(())
        })?;
    }
    Ok(Partition { outcome, record_errors, current_leader })
}

fn read_record_error<'a>(
    reader: &mut Reader<'a>,
    version: i16,
) -> Result<RecordError<'a>, Malformed> {
    let flexible = version >= FLEXIBLE;
    let error = RecordError { index: reader.i32()?, message: reader.nullable_string(flexible)? };
    reader.skip_tagged_fields(flexible)?;
    Ok(error)
}
