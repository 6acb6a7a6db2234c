//! Clients of the log broker in the simulated world: one that makes the topic, producers, consumers.
//!
//! They behave as stock clients do: connect, find the shard that leads their partition by asking, send again what was not
//! answered. Next: `link` for their connections, `member` for consumer groups.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use engine::driver::sim::World;
use engine::rng::Rng;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ProduceRequest,
    ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use wire::kafka::batch::Batch;
use wire::kafka::records::{BatchMeta, Record, records, write_batch};

use super::TOPIC;
use super::link::{ANSWER_NS, Heard, Link, open};
use super::rot::Rot;

const CREATE: i16 = 7;
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const ALTER: i16 = 1;

/// Names a topic among resources with options.
const TOPIC_RESOURCE: i8 = 2;

/// Errors that a client answers by asking another shard.
const NOT_LEADER: i16 = 6;
const UNKNOWN_TOPIC: i16 = 3;
const OUT_OF_RANGE: i16 = 1;
const CORRUPT: i16 = 2;
const OUT_OF_ORDER: i16 = 45;
const STORAGE: i16 = 56;

pub(super) fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

/// What is to be made.
pub(super) enum Wish {
    /// A topic.
    Topic { name: &'static str, partitions: i32, config: Vec<(&'static str, String)> },
    /// An option of a topic.
    Option { topic: &'static str, name: &'static str, value: &'static str },
}

impl Wish {
    fn send(&self, link: &mut Link) {
        let text = StrBytes::from_static_str;
        match self {
            Self::Topic { name, partitions, config } => {
                let config = config.iter().map(|(name, value)| {
                    CreatableTopicConfig::default()
                        .with_name(text(name))
                        .with_value(Some(StrBytes::from_string(value.clone())))
                });
                let made = CreatableTopic::default()
                    .with_name(TopicName(text(name)))
                    .with_num_partitions(*partitions)
                    .with_replication_factor(1)
                    .with_configs(config.collect());
                link.request(&CreateTopicsRequest::default().with_topics(vec![made]), CREATE);
            }
            Self::Option { topic, name, value } => {
                let set =
                    AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
                let resource = AlterConfigsResource::default()
                    .with_resource_type(TOPIC_RESOURCE)
                    .with_resource_name(text(topic))
                    .with_configs(vec![set]);
                let request =
                    IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
                link.request(&request, ALTER);
            }
        }
    }

    fn answer(&self, mut body: Bytes) -> Result<i16, String> {
        let failed = |error: &dyn std::fmt::Display| format!("an answer to the maker: {error}");
        Ok(match self {
            Self::Topic { .. } => {
                let answer = CreateTopicsResponse::decode(&mut body, CREATE);
                answer.map_err(|error| failed(&error))?.topics[0].error_code
            }
            Self::Option { .. } => {
                let answer = IncrementalAlterConfigsResponse::decode(&mut body, ALTER);
                answer.map_err(|error| failed(&error))?.responses[0].error_code
            }
        })
    }
}

/// Makes topics, in a world without faults.
pub(super) struct Maker {
    link: Link,
    wishes: VecDeque<Wish>,
    asked: bool,
}

impl Maker {
    pub(super) fn new(wishes: Vec<Wish>) -> Self {
        Self { link: Link::new(1), wishes: wishes.into(), asked: false }
    }

    pub(super) fn is_done(&self) -> bool {
        self.wishes.is_empty()
    }

    pub(super) const fn wake_ns(&self) -> u64 {
        self.link.wake_ns
    }

    pub(super) fn act(&mut self, world: &World) -> Result<(), String> {
        let now_ns = world.now().mono_ns;
        if self.link.end.is_none() {
            self.link.connect(world);
            self.asked = false;
        }
        if let Some(wish) = self.wishes.front().filter(|_| !self.asked) {
            wish.send(&mut self.link);
            self.asked = true;
        }
        match self.link.pump(world) {
            Heard::Lost => self.link.lose(now_ns),
            Heard::Frames(frames) => {
                for frame in frames {
                    let (_, body) = open(frame);
                    let Some(wish) = self.wishes.front() else { return Ok(()) };
                    self.asked = false;
                    match wish.answer(body)? {
                        // 36: an ordered fault took the answer to the first attempt.
                        0 | 36 => drop(self.wishes.pop_front()),
                        _ => self.link.lose(now_ns),
                    }
                }
            }
        }
        Ok(())
    }
}

struct Sent {
    sequence: i32,
    values: Vec<String>,
    number: i32,
}

/// A producer with idempotence of one partition.
pub(super) struct Producer {
    partition: i32,
    link: Link,
    left: u32,
    in_flight: usize,
    next_sequence: i32,
    open: VecDeque<Sent>,
    stored: BTreeMap<i64, String>,
    acknowledged: u64,
    again: u64,
    storage_errors: u64,
    answers: u64,
    /// The last refusal, for a failure report.
    refusal: String,
}

impl Producer {
    pub(super) fn new(partition: i32, shards: usize, batches: u32, in_flight: usize) -> Self {
        Self {
            partition,
            link: Link::new(shards),
            left: batches,
            in_flight,
            next_sequence: 0,
            open: VecDeque::new(),
            stored: BTreeMap::new(),
            acknowledged: 0,
            again: 0,
            storage_errors: 0,
            answers: 0,
            refusal: String::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.open.is_empty()
    }

    pub(super) fn wake_ns(&self) -> u64 {
        if self.is_done() { u64::MAX } else { self.link.wake_ns }
    }

    pub(super) fn end(&self) -> i64 {
        self.next_sequence.into()
    }

    pub(super) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) const fn sent_again(&self) -> u64 {
        self.again
    }

    pub(super) const fn storage_errors(&self) -> u64 {
        self.storage_errors
    }

    pub(super) const fn answers(&self) -> u64 {
        self.answers
    }

    pub(super) fn describe(&self) -> String {
        let open: Vec<i32> = self.open.iter().map(|sent| sent.sequence).collect();
        let (left, shard, refusal) = (self.left, self.link.shard, &self.refusal);
        let partition = self.partition;
        format!("producer {partition}: {left} left, open {open:?}, at shard {shard}, {refusal}")
    }

    fn send(link: &mut Link, partition: i32, sequence: i32, values: &[String], now_ms: i64) -> i32 {
        let meta = BatchMeta {
            base_timestamp: now_ms,
            max_timestamp: now_ms,
            last_offset_delta: values.len() as i32 - 1,
            producer_id: 100 + i64::from(partition),
            producer_epoch: 0,
            base_sequence: sequence,
            ..BatchMeta::default()
        };
        let mut bytes = Vec::new();
        let list = (0..).zip(values);
        write_batch(
            &mut bytes,
            &meta,
            list.map(|(delta, value)| Record::new(delta, 0, None, Some(value.as_bytes()))),
        );
        let data =
            PartitionProduceData::default().with_index(partition).with_records(Some(bytes.into()));
        let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![data]);
        link.request(&request, PRODUCE)
    }

    pub(super) fn act(&mut self, world: &World, rng: &mut Rng) -> Result<(), String> {
        let now_ns = world.now().mono_ns;
        let now_ms = world.now().unix_ms() as i64;
        if self.link.end.is_none() {
            self.link.connect(world);
            self.again += self.open.len() as u64;
            for sent in &mut self.open {
                sent.number =
                    Self::send(&mut self.link, self.partition, sent.sequence, &sent.values, now_ms);
            }
        }
        if self.left > 0 && self.open.len() < self.in_flight {
            self.left -= 1;
            let sequence = self.next_sequence;
            let records = rng.between(1, 4) as i32;
            let pad = "x".repeat(rng.below(300) as usize);
            let values: Vec<String> = (0..records)
                .map(|n| format!("{}:{}:{pad}", self.partition, sequence + n))
                .collect();
            self.next_sequence += records;
            let number = Self::send(&mut self.link, self.partition, sequence, &values, now_ms);
            self.open.push_back(Sent { sequence, values, number });
        }
        match self.link.pump(world) {
            Heard::Lost => self.link.lose(now_ns),
            Heard::Frames(frames) => {
                for frame in frames {
                    if !self.answer(frame, now_ns)? {
                        return Ok(());
                    }
                }
                if !self.open.is_empty() && now_ns > self.link.heard_ns + ANSWER_NS {
                    self.link.lose(now_ns);
                }
            }
        }
        Ok(())
    }

    /// Takes an answer; false when the rest of the connection is of no use.
    fn answer(&mut self, frame: Vec<u8>, now_ns: u64) -> Result<bool, String> {
        let (number, mut body) = open(frame);
        self.answers += 1;
        let response =
            ProduceResponse::decode(&mut body, PRODUCE).map_err(|error| error.to_string())?;
        let answer = &response.responses[0].partition_responses[0];
        let Some(sent) = self.open.front() else { return Err("an answer to nothing".into()) };
        if sent.number != number {
            return Err(format!("answer {number} where {} is due", sent.number));
        }
        if answer.error_code != 0 {
            self.refusal = format!("error {} {:?}", answer.error_code, answer.error_message);
        }
        match answer.error_code {
            0 => {}
            NOT_LEADER | UNKNOWN_TOPIC => {
                self.link.next_shard(now_ns);
                return Ok(false);
            }
            STORAGE | OUT_OF_ORDER => {
                // Those behind a batch that was not stored are out of order.
                self.storage_errors += 1;
                self.link.lose(now_ns);
                return Ok(false);
            }
            code => return Err(format!("error {code}: {:?}", answer.error_message)),
        }
        let sent = self.open.pop_front().ok_or("just looked at")?;
        self.acknowledged += 1;
        for (offset, value) in (answer.base_offset..).zip(sent.values) {
            if let Some(before) = self.stored.insert(offset, value) {
                return Err(format!("offset {offset} was given twice, first to {before}"));
            }
        }
        Ok(true)
    }

    /// What was acknowledged is what the consumer has read, and each record is there once; but for what the disk has
    /// changed.
    pub(super) fn audit(&self, consumer: &Consumer, rot: &Rot) -> Result<(), String> {
        for (offset, value) in &self.stored {
            match consumer.seen.get(offset) {
                Some(found) if found == value => {}
                None if rot.is_hit(self.partition, *offset) => {}
                found => {
                    return Err(format!(
                        "{value} was acknowledged at {offset}, where {found:?} is"
                    ));
                }
            }
        }
        for offset in 0..consumer.seen.last_key_value().map_or(0, |(last, _)| last + 1) {
            let expected = format!("{}:{offset}:", self.partition);
            match consumer.seen.get(&offset) {
                Some(value) if value.starts_with(&expected) => {}
                None if rot.is_hit(self.partition, offset) => {}
                value => return Err(format!("{value:?} at {offset}, expected {expected}")),
            }
        }
        Ok(())
    }
}

/// A consumer of one partition from its beginning.
pub(super) struct Consumer {
    partition: i32,
    link: Link,
    next: i64,
    asked: bool,
    seen: BTreeMap<i64, String>,
    read: u64,
    refused: u64,
}

impl Consumer {
    pub(super) fn new(partition: i32, shards: usize) -> Self {
        let (link, seen) = (Link::new(shards), BTreeMap::new());
        Self { partition, link, next: 0, asked: false, seen, read: 0, refused: 0 }
    }

    pub(super) const fn next(&self) -> i64 {
        self.next
    }

    /// Reads everything once more.
    pub(super) fn begin_again(&mut self) {
        self.next = 0;
        // What is on its way is an answer to somebody else.
        self.link.end = None;
    }

    /// Records read, and offsets refused.
    pub(super) const fn counts(&self) -> (u64, u64) {
        (self.read, self.refused)
    }

    pub(super) const fn wake_ns(&self) -> u64 {
        self.link.wake_ns
    }

    pub(super) fn describe(&self) -> String {
        format!("consumer {}: next {}, at shard {}", self.partition, self.next, self.link.shard)
    }

    pub(super) fn act(&mut self, world: &World, rot: &Rot) -> Result<(), String> {
        let now_ns = world.now().mono_ns;
        if self.link.end.is_none() {
            self.link.connect(world);
            self.asked = false;
        }
        if !self.asked {
            self.asked = true;
            let wanted = FetchPartition::default()
                .with_partition(self.partition)
                .with_fetch_offset(self.next)
                .with_partition_max_bytes(3_000);
            let wanted = FetchTopic::default().with_topic(topic()).with_partitions(vec![wanted]);
            let request = FetchRequest::default()
                .with_max_wait_ms(100)
                .with_min_bytes(1)
                .with_max_bytes(10_000)
                .with_topics(vec![wanted]);
            self.link.request(&request, FETCH);
        }
        match self.link.pump(world) {
            Heard::Lost => self.link.lose(now_ns),
            Heard::Frames(frames) => {
                for frame in frames {
                    self.asked = false;
                    self.answer(frame, now_ns, rot)?;
                }
                if self.asked && now_ns > self.link.heard_ns + ANSWER_NS {
                    self.link.lose(now_ns);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, frame: Vec<u8>, now_ns: u64, rot: &Rot) -> Result<(), String> {
        let (_, mut body) = open(frame);
        let response =
            FetchResponse::decode(&mut body, FETCH).map_err(|error| error.to_string())?;
        if !body.is_empty() {
            return Err(format!("{} bytes behind an answer", body.len()));
        }
        let partition = &response.responses[0].partitions[0];
        match partition.error_code {
            0 => {}
            NOT_LEADER | UNKNOWN_TOPIC => {
                self.link.next_shard(now_ns);
                return Ok(());
            }
            STORAGE => {
                self.link.lose(now_ns);
                return Ok(());
            }
            CORRUPT if rot.is_hit(self.partition, self.next) => {
                self.refused += 1;
                self.next += 1;
                return Ok(());
            }
            OUT_OF_RANGE => {
                return Err(format!("offset {} was read up to, and is gone", self.next));
            }
            code => {
                let (partition, next) = (self.partition, self.next);
                return Err(format!("error {code} in a fetch of {partition} at {next}, {rot:?}"));
            }
        }
        self.take(&partition.records.clone().unwrap_or_default(), partition.high_watermark)
    }

    /// Takes in what was fetched.
    fn take(&mut self, bytes: &[u8], high_watermark: i64) -> Result<(), String> {
        let mut rest = bytes;
        while let Ok((batch, after)) = Batch::split(rest) {
            rest = after;
            batch.check_crc().map_err(|problem| format!("a fetched batch: {problem:?}"))?;
            if batch.last_offset() >= high_watermark {
                return Err(format!("{} is above the high watermark", batch.last_offset()));
            }
            for record in records(batch.body()) {
                let record = record.map_err(|malformed| malformed.to_string())?;
                let offset = batch.base_offset() + i64::from(record.offset_delta);
                let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                self.read += 1;
                if let Some(before) = self.seen.insert(offset, value.clone())
                    && before != value
                {
                    return Err(format!("{before} was read at {offset}, and now {value}"));
                }
            }
            if batch.last_offset() >= self.next {
                if batch.base_offset() > self.next {
                    return Err(format!("a gap from {} to {}", self.next, batch.base_offset()));
                }
                self.next = batch.last_offset() + 1;
            }
        }
        Ok(())
    }
}
