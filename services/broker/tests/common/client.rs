//! A client of the Kafka protocol for tests: blocking, one request at a time or several in flight, with the messages of
//! another implementation and batches of ours.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, FetchResponse, InitProducerIdRequest,
    InitProducerIdResponse, ProduceRequest, ProduceResponse, RequestHeader, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use wire::kafka::batch::Batch;
use wire::kafka::records::{BatchMeta, Record, records, write_batch};

const TIMEOUT: Duration = Duration::from_secs(20);
const FETCH: i16 = 12;
const PRODUCE: i16 = 9;

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    next: i32,
    /// What it calls itself.
    pub(crate) client_id: &'static str,
}

/// A producer's mark on a batch.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A batch of records with these values.
pub(crate) fn batch(values: &[String], mark: Option<Mark>) -> Vec<u8> {
    let meta = BatchMeta {
        base_timestamp: 1_000,
        max_timestamp: 1_000,
        last_offset_delta: i32::try_from(values.len()).expect("few") - 1,
        producer_id: mark.map_or(-1, |mark| mark.producer_id),
        producer_epoch: mark.map_or(-1, |mark| mark.epoch),
        base_sequence: mark.map_or(-1, |mark| mark.sequence),
        ..BatchMeta::default()
    };
    let mut bytes = Vec::new();
    let list = (0..).zip(values);
    write_batch(
        &mut bytes,
        &meta,
        list.map(|(delta, value)| Record::new(delta, 0, Some(b"key"), Some(value.as_bytes()))),
    );
    bytes
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, next: 0, client_id: "test" })
    }

    /// Sends raw bytes.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request; its number.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<i32> {
        self.next += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str(self.client_id)));
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&[0; 4]);
        header.encode(&mut bytes, R::header_version(version)).expect("a valid header");
        request.encode(&mut bytes, version).expect("a valid request");
        let len = i32::try_from(bytes.len() - 4).expect("short");
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&bytes)?;
        Ok(self.next)
    }

    /// The next frame: its number and what follows the header.
    pub(crate) fn receive(&mut self, flexible: bool) -> io::Result<(i32, Bytes)> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = usize::try_from(i32::from_be_bytes(len)).expect("a length");
        let mut frame = vec![0; len];
        self.stream.read_exact(&mut frame)?;
        let number = i32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
        Ok((number, Bytes::from(frame.split_off(if flexible { 5 } else { 4 }))))
    }

    /// Asks and waits for the answer.
    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response>
    where
        R::Response: Decodable + HeaderVersion,
    {
        let sent = self.send(request, version)?;
        let flexible = R::Response::header_version(version) > 0;
        let (number, mut body) = self.receive(flexible)?;
        assert_eq!(number, sent, "answers come in order");
        Ok(R::Response::decode(&mut body, version).expect("a valid answer"))
    }

    /// Makes a topic.
    pub(crate) fn create(
        &mut self,
        topic: &str,
        partitions: i32,
    ) -> io::Result<CreatableTopicResult> {
        self.create_with(topic, partitions, &[])
    }

    /// Makes a topic with options.
    pub(crate) fn create_with(
        &mut self,
        topic: &str,
        partitions: i32,
        options: &[(&str, &str)],
    ) -> io::Result<CreatableTopicResult> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let options = options.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(options.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
        Ok(self.call(&request, 7)?.topics.remove(0))
    }

    /// A producer's id.
    pub(crate) fn producer_id(&mut self) -> io::Result<i64> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None::<TransactionalId>)
            .with_transaction_timeout_ms(1000);
        let response: InitProducerIdResponse = self.call(&request, 4)?;
        Ok(response.producer_id.0)
    }

    /// Sends records without waiting.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: Vec<u8>,
        acks: i16,
    ) -> io::Result<i32> {
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(records.into()));
        let topic =
            TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms(5000)
            .with_topic_data(vec![topic]);
        self.send(&request, PRODUCE)
    }

    /// The next answer to a produce request: its number, error and base offset.
    pub(crate) fn produced(&mut self) -> io::Result<(i32, i16, i64)> {
        let (number, mut body) = self.receive(true)?;
        let response = ProduceResponse::decode(&mut body, PRODUCE).expect("a valid answer");
        let partition = &response.responses[0].partition_responses[0];
        Ok((number, partition.error_code, partition.base_offset))
    }

    /// One fetch: error, high watermark, and the records as they came.
    pub(crate) fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        (max_bytes, wait_ms): (i32, i32),
    ) -> io::Result<(i16, i64, Bytes)> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(max_bytes);
        let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(max_bytes)
            .with_topics(vec![topic]);
        let response: FetchResponse = self.call(&request, FETCH)?;
        let partition = &response.responses[0].partitions[0];
        let records = partition.records.clone().unwrap_or_default();
        Ok((partition.error_code, partition.high_watermark, records))
    }

    /// Everything in a partition: offsets with values.
    pub(crate) fn read_all(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> io::Result<Vec<(i64, String)>> {
        let mut found = Vec::new();
        let mut next = 0;
        loop {
            let (error, high, bytes) = self.fetch(topic, partition, next, (1 << 20, 0))?;
            assert_eq!(error, 0, "fetch of {topic}-{partition} at {next}");
            let mut rest = &bytes[..];
            while let Ok((batch, after)) = Batch::split(rest) {
                rest = after;
                batch.check_crc().expect("as it was written");
                for record in records(batch.body()) {
                    let record = record.expect("a valid record");
                    let offset = batch.base_offset() + i64::from(record.offset_delta);
                    if offset >= next {
                        let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                        found.push((offset, value.into_owned()));
                    }
                }
                next = next.max(batch.last_offset() + 1);
            }
            if next >= high {
                return Ok(found);
            }
        }
    }
}
