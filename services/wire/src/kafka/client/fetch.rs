//! `Fetch` as a client has it, or a broker that follows another.
//!
//! Versions 4 to 18. Sessions are not begun: each request says all it wants. Source:
//! FetchRequest.json and FetchResponse.json of Kafka 4.3. Next: `kafka::fetch` for the broker's half,
//! `batch::batches` for the records.

use super::{Form, Topic, Topics, read_topic, write_topics};
use crate::kafka::fetch::{
    self, Aborted, Answer, Details, ENDPOINTS, FLEXIBLE, NO_HIGH_WATERMARK, REPLICA_STATE, Replica,
    SESSIONS, TOPIC_IDS,
};
use crate::kafka::leader::{Endpoint, read_endpoints, read_leader};
use crate::kafka::list::List;
use crate::kafka::{Malformed, Reader, Writer};

/// A request to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// To be answered when this much is there.
    pub min_bytes: i32,
    /// To be answered with no more, but for a first batch that is larger.
    pub max_bytes: i32,
    /// Whether transactions that are open are left out.
    pub read_committed: bool,
    /// Who asks, when a broker does.
    pub replica: Option<Replica>,
    /// The client's rack, from version 11; empty for none.
    pub rack: &'a str,
    /// What is wanted, by topic and partition.
    pub topics: &'a [Topic<'a, fetch::Partition>],
}

impl Request<'_> {
    /// Appends the request after its header.
    pub fn write(&self, out: &mut Vec<u8>, version: i16) {
        let flexible = version >= FLEXIBLE;
        if version < REPLICA_STATE {
            out.i32(self.replica.map_or(-1, |replica| replica.broker_id));
        }
        out.i32(self.max_wait_ms);
        out.i32(self.min_bytes);
        out.i32(self.max_bytes);
        out.i8(i8::from(self.read_committed));
        if version >= SESSIONS {
            out.i32(0);
            out.i32(-1);
        }
        write_topics(out, flexible, self.topics, |out, partition| {
            write_partition(out, version, partition);
        });
        if version >= SESSIONS {
            out.array_len(0, flexible);
        }
        if version >= 11 {
            out.string(self.rack, flexible);
        }
        match self.replica {
            Some(replica) if version >= REPLICA_STATE => {
                // One field: tag 1, thirteen bytes.
                out.unsigned_varint(1);
                out.unsigned_varint(1);
                out.unsigned_varint(13);
                out.i32(replica.broker_id);
                out.i64(replica.epoch);
                out.no_tagged_fields(true);
            }
            _ => out.no_tagged_fields(flexible),
        }
    }
}

fn write_partition(out: &mut Vec<u8>, version: i16, partition: &fetch::Partition) {
    out.i32(partition.index);
    if version >= 9 {
        out.i32(partition.current_leader_epoch);
    }
    out.i64(partition.fetch_offset);
    if version >= 12 {
        out.i32(partition.last_fetched_epoch);
    }
    if version >= 5 {
        out.i64(partition.log_start_offset);
    }
    out.i32(partition.max_bytes);
    if version >= 18 && partition.high_watermark != NO_HIGH_WATERMARK {
        // One field: tag 1, eight bytes.
        out.unsigned_varint(1);
        out.unsigned_varint(1);
        out.unsigned_varint(8);
        out.i64(partition.high_watermark);
    } else {
        out.no_tagged_fields(version >= FLEXIBLE);
    }
}

/// A response, checked to its end.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// How long the client is to hold back, in milliseconds.
    pub throttle_ms: i32,
    /// Zero for none; what is wrong with the whole request.
    pub error: i16,
    /// The session that the broker began; zero for none.
    pub session_id: i32,
    /// What was found.
    pub topics: Topics<'a, Partition<'a>>,
    /// Where the leaders are that partitions name.
    pub endpoints: List<'a, Endpoint<'a>>,
}

/// What was found of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    /// What every answer says.
    pub answer: Answer,
    /// What only some say.
    pub details: Details,
    /// Transactions whose records are to be left out.
    pub aborted: List<'a, Aborted>,
    /// Record batches; the last may be cut.
    pub records: &'a [u8],
}

impl<'a> Response<'a> {
    /// Reads a response after its header. Bytes behind it are left alone.
    ///
    /// # Errors
    /// It does not follow the protocol.
    pub fn read(mut reader: Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let flexible = version >= FLEXIBLE;
        let throttle_ms = reader.i32()?;
        let (error, session_id) =
            if version >= SESSIONS { (reader.i16()?, reader.i32()?) } else { (0, 0) };
        let topics = List::read(&mut reader, version, flexible, |reader, version| {
            let form = Form { flexible: version >= FLEXIBLE, by_id: version >= TOPIC_IDS };
            read_topic(reader, version, form, read_partition)
        })?;
        let endpoints = read_endpoints(&mut reader, version, flexible, version >= ENDPOINTS)?;
        Ok(Self { throttle_ms, error, session_id, topics, endpoints })
    }
}

fn read_partition<'a>(reader: &mut Reader<'a>, version: i16) -> Result<Partition<'a>, Malformed> {
    let flexible = version >= FLEXIBLE;
    let mut answer = Answer {
        index: reader.i32()?,
        error: reader.i16()?,
        high_watermark: reader.i64()?,
        log_start_offset: -1,
        current_leader: None,
    };
    let mut details = Details { last_stable_offset: Some(reader.i64()?), ..Details::default() };
    if version >= 5 {
        answer.log_start_offset = reader.i64()?;
    }
    let aborted = List::read(reader, version, flexible, read_aborted)?;
    if version >= 11 {
        details.preferred_replica = Some(reader.i32()?).filter(|replica| *replica >= 0);
    }
    let records = reader.nullable_bytes(flexible)?.unwrap_or_default();
    if flexible {
        reader.tagged_fields(|tag, mut field| {
            match tag {
                0 => details.diverging_epoch = Some((field.i32()?, field.i64()?)),
                1 => answer.current_leader = Some(read_leader(field)?),
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(Partition { answer, details, aborted, records })
}

fn read_aborted(reader: &mut Reader<'_>, version: i16) -> Result<Aborted, Malformed> {
    let aborted = Aborted { producer_id: reader.i64()?, first_offset: reader.i64()? };
    reader.skip_tagged_fields(version >= FLEXIBLE)?;
    Ok(aborted)
}
