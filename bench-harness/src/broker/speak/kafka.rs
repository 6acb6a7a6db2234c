//! The Kafka protocol: Produce and Fetch by our own codec, what comes before by another implementation's.
//!
//! Sources: the protocol guide; KIP-107 and KIP-227 for what is left out of requests. Next: `wire::kafka::client`.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use wire::kafka::api::{self, Api};
use wire::kafka::batch;
use wire::kafka::client::{self, Topic};
use wire::kafka::fetch::NO_HIGH_WATERMARK;
use wire::kafka::records::{BatchMeta, Record, write_batch};
use wire::kafka::{Reader, TopicRef, fetch, frame, produce};

use super::{Consumer, Frames, Producer, Speaking, Workload, connect, prefixed_len, read_frame};
use crate::clock;

/// With flexible encoding, and topics by name.
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
const CREATE_VERSION: i16 = 7;
const METADATA_VERSION: i16 = 9;
/// Where a request has its number: behind its length, key and version.
const NUMBER_AT: usize = 8;
const CLIENT_ID: &str = "bench";
/// What stock consumers ask for: of a partition, and how long they wait for a byte of it.
const FETCH_MAX_BYTES: i32 = 1 << 20;
const FETCH_WAIT_MS: i32 = 500;
const TIMEOUT_MS: i32 = 30_000;

/// The error code for a topic whose partitions have no leader yet.
const LEADER_NOT_AVAILABLE: i16 = 5;
/// Times metadata is asked for until a leader is known.
const LEADER_TRIES: usize = 100;

fn find(key: i16) -> &'static Api {
    Api::find(key).expect("a request that every broker has")
}

/// Asks and waits for the answer.
fn call<R: Request>(mut stream: &TcpStream, request: &R, version: i16) -> Result<R::Response>
where
    R::Response: Decodable + HeaderVersion,
{
    use std::io::Write as _;
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    let mut bytes = BytesMut::from(&[0; 4][..]);
    header.encode(&mut bytes, R::header_version(version))?;
    request.encode(&mut bytes, version)?;
    let len = u32::try_from(bytes.len() - 4)?;
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&bytes)?;
    let mut frame = Bytes::from(read_frame(stream)?);
    let flexible = R::Response::header_version(version) > 0;
    let _ = frame.split_to(if flexible { 9 } else { 8 });
    R::Response::decode(&mut frame, version)
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

pub(super) fn create(addr: SocketAddr, topic: &str, workload: &Workload) -> Result<()> {
    let mut wanted = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(i32::try_from(workload.partitions)?)
        .with_replication_factor(1);
    if !workload.sync {
        let config = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("flush.mode"))
            .with_value(Some(StrBytes::from_static_str("os")));
        wanted = wanted.with_configs(vec![config]);
    }
    let request =
        CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(TIMEOUT_MS);
    let response = call(&connect(addr)?, &request, CREATE_VERSION)?;
    for made in &response.topics {
        let why = made.error_message.as_deref().unwrap_or_default();
        ensure!(made.error_code == 0, "error {} {why}", made.error_code);
    }
    Ok(())
}

/// Where the leader of a partition listens.
fn leader(addr: SocketAddr, topic: &str, partition: u32) -> Result<SocketAddr> {
    let stream = connect(addr)?;
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    for _ in 0..LEADER_TRIES {
        let response = call(&stream, &request, METADATA_VERSION)?;
        let topic = response.topics.first().context("no topic in the answer")?;
        let index = i32::try_from(partition)?;
        let found = topic.partitions.iter().find(|partition| partition.partition_index == index);
        match found {
            Some(found) if found.error_code == 0 => {
                let broker =
                    response.brokers.iter().find(|broker| broker.node_id == found.leader_id);
                let broker = broker.context("the leader is not among the brokers")?;
                let port = u16::try_from(broker.port)?;
                let mut addresses = (broker.host.as_str(), port).to_socket_addrs()?;
                return addresses
                    .next()
                    .with_context(|| format!("no address of {}", &*broker.host));
            }
            _ if matches!(topic.error_code, 0 | LEADER_NOT_AVAILABLE) => {
                clock::sleep_ns(10 * clock::MILLISECOND_NS);
            }
            _ => bail!("metadata: error {}", topic.error_code),
        }
    }
    bail!("partition {partition} has no leader")
}

pub(super) fn producer(
    addr: SocketAddr,
    topic: &str,
    partition: u32,
    workload: &Workload,
) -> Result<Speaking<dyn Producer>> {
    let stream = connect(leader(addr, topic, partition)?)?;
    let records = batch_of(workload);
    let header = frame::RequestHeader {
        key: api::PRODUCE,
        version: PRODUCE_VERSION,
        correlation_id: 0,
        client_id: Some(CLIENT_ID),
    };
    let partitions =
        [produce::Partition { index: i32::try_from(partition)?, records: Some(&records) }];
    let topics = [Topic { topic: TopicRef::Name(topic), partitions: &partitions }];
    let produce = client::produce::Request {
        transactional_id: None,
        acks: -1,
        timeout_ms: TIMEOUT_MS,
        topics: &topics,
    };
    let mut request = Vec::new();
    let start = frame::begin_request(&mut request, &header);
    produce.write(&mut request, PRODUCE_VERSION);
    frame::end(&mut request, start, 0);
    Ok((stream, Box::new(Storing::new(request, workload.batch_messages as u64))))
}

/// A batch of a workload's messages.
fn batch_of(workload: &Workload) -> Vec<u8> {
    let message = workload.message();
    let count = i32::try_from(workload.batch_messages).expect("checked with the workload");
    let now_ms = i64::try_from(clock::unix_us() / 1_000).unwrap_or(i64::MAX);
    let meta = BatchMeta {
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        last_offset_delta: count - 1,
        ..BatchMeta::default()
    };
    let mut records = Vec::new();
    let list = (0..count).map(|delta| Record::new(delta, 0, None, Some(&message)));
    write_batch(&mut records, &meta, list);
    records
}

/// A producer on a connection to a leader.
struct Storing {
    request: Vec<u8>,
    batch: u64,
    /// Numbers of the next request and of the next answer.
    sent: i32,
    answered: i32,
    acknowledged: u64,
    frames: Frames,
}

impl Storing {
    fn new(request: Vec<u8>, batch: u64) -> Self {
        Self { request, batch, sent: 0, answered: 0, acknowledged: 0, frames: Frames::default() }
    }
}

impl Producer for Storing {
    fn request(&mut self, out: &mut Vec<u8>) {
        self.request[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&self.sent.to_be_bytes());
        self.sent = self.sent.wrapping_add(1);
        out.extend_from_slice(&self.request);
    }

    fn on_bytes(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<()> {
        let (answered, acknowledged) = (&mut self.answered, &mut self.acknowledged);
        let batch = self.batch;
        self.frames.feed(bytes, prefixed_len, |frame| {
            let mut reader = Reader::new(&frame[4..]);
            let number =
                frame::read_response_header(&mut reader, find(api::PRODUCE), PRODUCE_VERSION)?;
            ensure!(number == *answered, "answer {number} where {answered} was due");
            let response = client::produce::Response::read(reader, PRODUCE_VERSION)?;
            let mut partitions = response.topics.flat_map(|(_, partitions)| partitions);
            let outcome = partitions.next().context("an answer without a partition")?.outcome;
            ensure!(outcome.error == 0, "refused with error {}", outcome.error);
            // The only producer of its partition.
            let offset = outcome.base_offset;
            ensure!(offset == i64::try_from(*acknowledged)?, "stored at {offset}");
            *answered = answered.wrapping_add(1);
            *acknowledged += batch;
            Ok(())
        })
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

pub(super) fn consumer(
    addr: SocketAddr,
    topic: &str,
    partition: u32,
) -> Result<Speaking<dyn Consumer>> {
    let stream = connect(leader(addr, topic, partition)?)?;
    let reading = Reading {
        topic: topic.to_owned(),
        partition: i32::try_from(partition)?,
        number: 0,
        next_offset: 0,
        frames: Frames::default(),
    };
    Ok((stream, Box::new(reading)))
}

/// A consumer on a connection to a leader: one request in flight, as stock consumers have.
struct Reading {
    topic: String,
    partition: i32,
    number: i32,
    next_offset: i64,
    frames: Frames,
}

fn fetch_request(out: &mut Vec<u8>, topic: &str, partition: i32, number: i32, offset: i64) {
    let header = frame::RequestHeader {
        key: api::FETCH,
        version: FETCH_VERSION,
        correlation_id: number,
        client_id: Some(CLIENT_ID),
    };
    let partitions = [fetch::Partition {
        index: partition,
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: FETCH_MAX_BYTES,
        high_watermark: NO_HIGH_WATERMARK,
    }];
    let request = client::fetch::Request {
        max_wait_ms: FETCH_WAIT_MS,
        min_bytes: 1,
        max_bytes: FETCH_MAX_BYTES,
        read_committed: false,
        replica: None,
        rack: "",
        topics: &[Topic { topic: TopicRef::Name(topic), partitions: &partitions }],
    };
    let start = frame::begin_request(out, &header);
    request.write(out, FETCH_VERSION);
    frame::end(out, start, 0);
}

/// Walks the batches of an answer; the offset that is read next.
fn walk(frame: &[u8], number: i32, mut next_offset: i64) -> Result<i64> {
    let mut reader = Reader::new(&frame[4..]);
    let answered = frame::read_response_header(&mut reader, find(api::FETCH), FETCH_VERSION)?;
    ensure!(answered == number, "answer {answered} where {number} was due");
    let response = client::fetch::Response::read(reader, FETCH_VERSION)?;
    ensure!(response.error == 0, "refused with error {}", response.error);
    for partition in response.topics.flat_map(|(_, partitions)| partitions) {
        let error = partition.answer.error;
        ensure!(error == 0, "the partition is refused with error {error}");
        for found in batch::batches(partition.records) {
            // The last one may be cut.
            let Ok(found) = found else { break };
            let offset = found.base_offset();
            ensure!(offset == next_offset, "a batch at {offset} where {next_offset} was due");
            found.check_crc().map_err(|problem| anyhow!("batch at {offset}: {problem:?}"))?;
            next_offset = found.last_offset() + 1;
        }
    }
    Ok(next_offset)
}

impl Consumer for Reading {
    fn begin(&mut self, out: &mut Vec<u8>) {
        fetch_request(out, &self.topic, self.partition, self.number, self.next_offset);
    }

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let Self { topic, partition, number, next_offset, frames } = self;
        frames.feed(bytes, prefixed_len, |frame| {
            *next_offset = walk(frame, *number, *next_offset)?;
            *number = number.wrapping_add(1);
            fetch_request(out, topic, *partition, *number, *next_offset);
            Ok(())
        })
    }

    fn delivered(&self) -> u64 {
        u64::try_from(self.next_offset).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload::find("small").expect("it comes along")
    }

    /// An answer to the produce request `number`, by the broker's half of the codec.
    fn answer(number: i32, error: i16, base_offset: i64) -> Vec<u8> {
        let mut out = Vec::new();
        let api = find(api::PRODUCE);
        let start = frame::begin_response(&mut out, api, PRODUCE_VERSION, number);
        produce::write_head(&mut out, PRODUCE_VERSION, 1);
        produce::write_topic(&mut out, PRODUCE_VERSION, TopicRef::Name("t"), 1);
        let outcome = produce::Outcome {
            index: 0,
            error,
            base_offset,
            log_append_time_ms: -1,
            log_start_offset: 0,
            message: None,
        };
        produce::write_partition(&mut out, PRODUCE_VERSION, &outcome);
        produce::write_topic_end(&mut out, PRODUCE_VERSION);
        produce::write_end(&mut out, PRODUCE_VERSION, 0);
        frame::end(&mut out, start, 0);
        out
    }

    #[test]
    fn answers_are_counted_in_order_and_refusals_end_the_trial() {
        let mut out = Vec::new();
        let mut storing = Storing::new(vec![0; 64], 150);
        storing.request(&mut out);
        storing.request(&mut out);
        assert_eq!(out.len(), 128);
        assert_eq!(out[64 + NUMBER_AT..64 + NUMBER_AT + 4], 1_i32.to_be_bytes());
        let bytes = [answer(0, 0, 0), answer(1, 0, 150)].concat();
        for piece in bytes.chunks(7) {
            storing.on_bytes(piece, &mut out).expect("as asked");
        }
        assert_eq!(storing.acknowledged(), 300);
        assert!(storing.on_bytes(&answer(3, 0, 300), &mut out).is_err(), "one left out");
        let mut storing = Storing::new(vec![0; 64], 150);
        assert!(storing.on_bytes(&answer(0, 56, -1), &mut out).is_err(), "refused");
        assert!(storing.on_bytes(&answer(0, 0, 150), &mut out).is_err(), "stored elsewhere");
    }

    #[test]
    fn batches_are_followed_and_a_gap_is_found() {
        let records = batch_of(&workload());
        let answer = |first: &[u8]| {
            let mut out = Vec::new();
            let start = frame::begin_response(&mut out, find(api::FETCH), FETCH_VERSION, 0);
            fetch::write_head(&mut out, FETCH_VERSION, 0, 0, 0, 1);
            fetch::write_topic(&mut out, FETCH_VERSION, TopicRef::Name("t"), 1);
            let answer = fetch::Answer {
                index: 0,
                error: 0,
                high_watermark: 150,
                log_start_offset: 0,
                current_leader: None,
            };
            fetch::write_partition(&mut out, FETCH_VERSION, &answer, first.len());
            out.extend_from_slice(first);
            fetch::write_partition_end(&mut out, FETCH_VERSION, &answer);
            for _topic_and_response in 0..2 {
                fetch::write_end(&mut out, FETCH_VERSION);
            }
            frame::end(&mut out, start, 0);
            out
        };
        assert_eq!(walk(&answer(&records), 0, 0).expect("whole"), 150);
        assert_eq!(walk(&answer(&records[..100]), 0, 0).expect("cut"), 0);
        assert!(walk(&answer(&records), 0, 150).is_err(), "read again");
        let mut damaged = records;
        *damaged.last_mut().expect("not empty") ^= 1;
        assert!(walk(&answer(&damaged), 0, 0).is_err(), "damaged");
    }
}
