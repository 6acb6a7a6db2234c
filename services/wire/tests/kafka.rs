//! Our codec of the Kafka protocol against another implementation of it, and against damage.
//!
//! What the crate `kafka-protocol` encodes we read, what we write it decodes, in every version; and no cut and no
//! flipped bit makes a decoder panic or accept what it should not.

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use kafka_protocol::indexmap;
use kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest,
    ProduceResponse, RequestHeader as TheirHeader, RequestKind, ResponseKind, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;
use uuid::Uuid;
use wire::kafka::api::{APIS, Api};
use wire::kafka::batch::{Batch, Codec, HEADER_BYTES, Problem};
use wire::kafka::frame::{self, RequestHeader};
use wire::kafka::records::{BatchMeta, Record, records, write_batch};
use wire::kafka::{Reader, TopicRef, Writer, fetch, produce, shape};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).expect("a valid message");
    bytes.to_vec()
}

fn topic_id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}

fn is_topic(topic: TopicRef<'_>, name: &str, number: usize, by_id: bool) -> bool {
    match topic {
        TopicRef::Id(id) => by_id && id == *topic_id(number).as_bytes(),
        TopicRef::Name(found) => !by_id && found == name,
    }
}

/// A topic's name, and records by partition.
type ProducedTopic = (String, Vec<(i32, Vec<u8>)>);

fn produce_request(version: i16, topics: &[ProducedTopic]) -> Vec<u8> {
    let topic_data = topics.iter().enumerate().map(|(number, (name, partitions))| {
        let data = partitions.iter().map(|(index, records)| {
            PartitionProduceData::default()
                .with_index(*index)
                .with_records(Some(Bytes::copy_from_slice(records)))
        });
        let topic = TopicProduceData::default().with_partition_data(data.collect());
        match version {
            13.. => topic.with_topic_id(topic_id(number)),
            _ => topic.with_name(TopicName(text(name))),
        }
    });
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(topic_data.collect());
    encoded(&request, version)
}

fn fetch_request(version: i16) -> Vec<u8> {
    let topic = |number: usize| {
        let partition = FetchPartition::default()
            .with_partition(3)
            .with_fetch_offset(1 << 40)
            .with_partition_max_bytes(77);
        let partition =
            if version >= 9 { partition.with_current_leader_epoch(5) } else { partition };
        let partition = if version >= 5 { partition.with_log_start_offset(8) } else { partition };
        let partition =
            if version >= 12 { partition.with_last_fetched_epoch(6) } else { partition };
        let partition =
            if version >= 18 { partition.with_high_watermark(1 << 39) } else { partition };
        let topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
        match version {
            13.. => topic.with_topic_id(topic_id(number)),
            _ => topic.with_topic(TopicName(text("topic"))),
        }
    };
    let mut request = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_isolation_level(1)
        .with_topics(vec![topic(0), topic(1)]);
    if version >= 7 {
        let forgotten = ForgottenTopic::default().with_partitions(vec![9, 8]);
        let forgotten = match version {
            13.. => forgotten.with_topic_id(topic_id(4)),
            _ => forgotten.with_topic(TopicName(text("old"))),
        };
        request = request
            .with_session_id(12)
            .with_session_epoch(2)
            .with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 {
        request = request.with_rack_id(text("rack"));
    }
    if version >= 12 {
        request = request.with_cluster_id(Some(text("cluster")));
    }
    request = match version {
        15.. => request.with_replica_state(
            ReplicaState::default().with_replica_id(BrokerId(64)).with_replica_epoch(1 << 36),
        ),
        _ => request.with_replica_id(BrokerId(64)),
    };
    encoded(&request, version)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn produce_requests_are_read_as_they_were_written(
        topics in prop::collection::vec(
            ("[a-z]{1,9}", prop::collection::vec((0_i32..99, prop::collection::vec(any::<u8>(), 0..90)), 0..4)),
            0..4,
        ),
    ) {
        for version in produce::OLDEST..=13 {
            let bytes = produce_request(version, &topics);
            let request = produce::Request::read(Reader::new(&bytes), version).expect("valid");
            prop_assert_eq!((request.acks, request.timeout_ms), (-1, 30_000));
            prop_assert_eq!(request.transactional_id, None);
            prop_assert_eq!(request.topics().len(), topics.len());
            for (number, (found, (name, partitions))) in request.topics().zip(&topics).enumerate() {
                prop_assert!(is_topic(found.0, name, number, version >= 13));
                let found: Vec<_> = found.1.map(|one| (one.index, one.records.map(<[u8]>::to_vec))).collect();
                let wanted: Vec<_> =
                    partitions.iter().map(|(index, records)| (*index, Some(records.clone()))).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn flipped_bits_never_panic(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        for (version, read) in [(12, true), (4, false)] {
            let mut bytes = if read { fetch_request(version) } else {
                produce_request(7, &[("t".to_owned(), vec![(0, vec![1; 70])])])
            };
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(request) = fetch::Request::read(Reader::new(&bytes), version) {
                request.topics().for_each(|(_, partitions)| partitions.for_each(drop));
                request.forgotten().for_each(|(_, partitions)| partitions.for_each(drop));
            }
            if let Ok(request) = produce::Request::read(Reader::new(&bytes), 7) {
                request.topics().for_each(|(_, partitions)| partitions.for_each(drop));
            }
            let _ = shape::check(Api::find(8).expect("a row"), 8, &bytes);
        }
    }

    #[test]
    fn records_and_batches_come_back(
        list in prop::collection::vec(
            (prop::option::of("[a-z]{0,20}"), prop::option::of("[a-z]{0,200}"), -5_i64..5000), 1..30),
    ) {
        let base = 1_700_000_000_000_i64;
        let made: Vec<Record<'_>> = list.iter().zip(0..).map(|((key, value, at), delta)| {
            Record::new(delta, *at, key.as_deref().map(str::as_bytes), value.as_deref().map(str::as_bytes))
        }).collect();
        let last = i32::try_from(made.len() - 1).expect("few");
        let newest = list.iter().map(|(.., at)| base + at).max().expect("one");
        let meta = BatchMeta {
            base_offset: 42, base_timestamp: base, max_timestamp: newest, last_offset_delta: last,
            ..BatchMeta::default()
        };
        let mut bytes = Vec::new();
        write_batch(&mut bytes, &meta, made.iter().copied());
        let (batch, rest) = Batch::split(&bytes).expect("whole");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(batch.check(), Ok(()));
        prop_assert_eq!(batch.codec(), Ok(Codec::None));
        prop_assert_eq!((batch.base_offset(), batch.last_offset()), (42, 42 + i64::from(last)));
        let found: Vec<Record<'_>> = records(batch.body()).collect::<Result<_, _>>().expect("valid");
        prop_assert_eq!(&found, &made);
        // The other implementation finds the same.
        let theirs = RecordBatchDecoder::decode(&mut Bytes::from(bytes.clone())).expect("valid");
        prop_assert_eq!(theirs.records.len(), made.len());
        for (one, record) in theirs.records.iter().zip(&made) {
            prop_assert_eq!(one.key.as_deref(), record.key);
            prop_assert_eq!(one.value.as_deref(), record.value);
            prop_assert_eq!(one.timestamp, base + record.timestamp_delta);
            prop_assert_eq!(one.offset, 42 + i64::from(record.offset_delta));
        }
    }
}

fn their_batch(headers: bool) -> Vec<u8> {
    let made: Vec<TheirRecord> = (0..3)
        .map(|number| TheirRecord {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: 9,
            producer_epoch: 1,
            timestamp_type: TimestampType::Creation,
            offset: number,
            sequence: i32::try_from(number).expect("small") + 7,
            timestamp: 1000 + number,
            key: Some(Bytes::from_static(b"key")),
            value: None,
            headers: if headers {
                IndexMap::from([(text("h"), Some(Bytes::from_static(b"v"))), (text("n"), None)])
            } else {
                IndexMap::new()
            },
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, &made, &options).expect("valid records");
    bytes.to_vec()
}

#[test]
fn batches_of_the_other_implementation_are_read() {
    let bytes = their_batch(true);
    let (batch, _) = Batch::split(&bytes).expect("whole");
    assert_eq!(batch.check(), Ok(()));
    assert_eq!((batch.producer_id(), batch.producer_epoch()), (9, 1));
    assert_eq!((batch.base_sequence(), batch.last_sequence()), (7, 9));
    assert_eq!(batch.max_timestamp(), 1002);
    let found: Vec<Record<'_>> = records(batch.body()).collect::<Result<_, _>>().expect("valid");
    assert_eq!(found.len(), 3);
    let headers: Vec<_> = found[0].headers().collect();
    assert_eq!(headers, [(&b"h"[..], Some(&b"v"[..])), (b"n", None)]);
}

#[test]
fn a_batch_is_given_its_place_without_a_new_checksum() {
    let bytes = their_batch(false);
    let (batch, _) = Batch::split(&bytes).expect("whole");
    let placed = [&batch.placed(1 << 33, 6)[..], &bytes[16..]].concat();
    let (placed, _) = Batch::split(&placed).expect("whole");
    assert_eq!((placed.base_offset(), placed.leader_epoch()), (1 << 33, 6));
    assert_eq!(placed.check_crc(), Ok(()));
    let timed = [&batch.placed_with_time(5, 1, 99_999)[..], batch.body()].concat();
    let (timed, _) = Batch::split(&timed).expect("whole");
    assert_eq!((timed.base_offset(), timed.max_timestamp()), (5, 99_999));
    assert!(timed.is_log_append_time());
    assert_eq!(timed.check_crc(), Ok(()));
}

#[test]
fn every_cut_and_every_damage_of_a_batch_is_seen() {
    let bytes = their_batch(true);
    for cut in 0..bytes.len() {
        assert!(Batch::split(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    // What the broker writes anew, and the format's number, are not covered by the checksum.
    for at in (8..12).chain(16..bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let checked = Batch::split(&damaged).and_then(|(batch, _)| batch.check());
        assert!(checked.is_err(), "byte {at}");
    }
}

#[test]
fn batches_that_must_not_be_stored_say_why() {
    let check = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = their_batch(false);
        change(&mut bytes);
        let sum = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&sum.to_be_bytes());
        Batch::split(&bytes).and_then(|(batch, _)| batch.check())
    };
    assert_eq!(check(&|_| {}), Ok(()));
    assert_eq!(check(&|bytes| bytes[16] = 1), Err(Problem::OldFormat(1)));
    assert_eq!(check(&|bytes| bytes[16] = 3), Err(Problem::UnknownFormat(3)));
    assert_eq!(check(&|bytes| bytes[22] = 5), Err(Problem::UnknownCodec(5)));
    assert_eq!(check(&|bytes| bytes[22] = 0x20), Err(Problem::Attributes(0x20)));
    assert_eq!(check(&|bytes| bytes[22] = 0x40), Err(Problem::Attributes(0x40)));
    assert_eq!(check(&|bytes| bytes[22] = 0x08), Err(Problem::Timestamp));
    assert_eq!(check(&|bytes| bytes[35] = 0x80), Err(Problem::Timestamp));
    assert_eq!(check(&|bytes| bytes[21] = 1), Err(Problem::Attributes(0x100)));
    assert_eq!(check(&|bytes| bytes[60] = 0), Err(Problem::Count));
    assert_eq!(check(&|bytes| bytes[26] = 7), Err(Problem::Count));
    assert_eq!(check(&|bytes| bytes[53] = 0xff), Err(Problem::Producer));
}

#[test]
fn fetch_requests_are_read_in_every_version() {
    for version in 4..=18 {
        let bytes = fetch_request(version);
        let request = fetch::Request::read(Reader::new(&bytes), version).expect("valid");
        assert_eq!((request.max_wait_ms, request.min_bytes, request.max_bytes), (500, 1, 1 << 20));
        assert!(request.read_committed);
        if version >= 7 {
            assert_eq!((request.session_id, request.session_epoch), (12, 2));
            let forgotten: Vec<_> = request.forgotten().collect();
            assert!(is_topic(forgotten[0].0, "old", 4, version >= 13));
            assert_eq!(forgotten[0].1.collect::<Vec<_>>(), [9, 8]);
        } else {
            assert_eq!((request.session_id, request.session_epoch), (0, -1));
        }
        let epoch = if version >= 9 { 5 } else { -1 };
        let wanted = fetch::Partition {
            index: 3,
            current_leader_epoch: epoch,
            fetch_offset: 1 << 40,
            last_fetched_epoch: if version >= 12 { 6 } else { -1 },
            log_start_offset: if version >= 5 { 8 } else { -1 },
            max_bytes: 77,
            high_watermark: if version >= 18 { 1 << 39 } else { i64::MAX },
        };
        let epoch = if version >= 15 { 1 << 36 } else { -1 };
        assert_eq!(request.replica, Some(fetch::Replica { broker_id: 64, epoch }));
        assert_eq!(request.rack, if version >= 11 { "rack" } else { "" });
        assert_eq!(request.cluster_id, (version >= 12).then_some("cluster"));
        for (number, (topic, partitions)) in request.topics().enumerate() {
            assert!(is_topic(topic, "topic", number, version >= 13));
            assert_eq!(partitions.collect::<Vec<_>>(), [wanted, wanted]);
        }
        for cut in 0..bytes.len() {
            assert!(fetch::Request::read(Reader::new(&bytes[..cut]), version).is_err());
        }
        // librdkafka sends a byte too many with some requests, which Kafka takes.
        let longer = [&bytes[..], &[0]].concat();
        assert!(fetch::Request::read(Reader::new(&longer), version).is_ok());
    }
}

#[test]
fn every_cut_of_a_produce_request_is_refused() {
    for version in produce::OLDEST..=13 {
        let bytes =
            produce_request(version, &[("t".to_owned(), vec![(0, vec![5; 20]), (1, vec![])])]);
        for cut in 0..bytes.len() {
            assert!(produce::Request::read(Reader::new(&bytes[..cut]), version).is_err());
        }
    }
}

#[test]
fn produce_responses_are_read_by_the_other_implementation() {
    // Versions before 3 are not known to it.
    for version in 3..=13 {
        let mut bytes = Vec::new();
        produce::write_head(&mut bytes, version, 1);
        let topic = match version {
            13.. => TopicRef::Id(*topic_id(0).as_bytes()),
            _ => TopicRef::Name("topic"),
        };
        produce::write_topic(&mut bytes, version, topic, 2);
        for index in [4, 5] {
            let outcome = produce::Outcome {
                index,
                error: 2,
                base_offset: 1 << 34,
                log_append_time_ms: 77,
                log_start_offset: 3,
                message: Some("why"),
            };
            produce::write_partition(&mut bytes, version, &outcome);
        }
        produce::write_topic_end(&mut bytes, version);
        produce::write_end(&mut bytes, version, 250);
        let mut bytes = Bytes::from(bytes);
        let response = ProduceResponse::decode(&mut bytes, version).expect("valid");
        assert!(bytes.is_empty(), "version {version}");
        assert_eq!(response.throttle_time_ms, 250);
        let partition = &response.responses[0].partition_responses[1];
        assert_eq!((partition.index, partition.error_code), (5, 2));
        assert_eq!((partition.base_offset, partition.log_append_time_ms), (1 << 34, 77));
        if version >= 8 {
            assert_eq!(partition.error_message.as_deref(), Some("why"));
        }
    }
}

#[test]
fn fetch_responses_are_read_by_the_other_implementation() {
    for version in 4..=18 {
        let mut bytes = Vec::new();
        fetch::write_head(&mut bytes, version, 30, 0, 99, 1);
        let topic = match version {
            13.. => TopicRef::Id(*topic_id(0).as_bytes()),
            _ => TopicRef::Name("topic"),
        };
        fetch::write_topic(&mut bytes, version, topic, 2);
        for (index, current_leader) in [(1, None), (2, Some((65, 4)))] {
            let answer = fetch::Answer {
                index,
                error: 0,
                high_watermark: 1 << 35,
                log_start_offset: 6,
                current_leader,
            };
            fetch::write_partition(&mut bytes, version, &answer, 5);
            bytes.extend_from_slice(b"bytes");
            fetch::write_partition_end(&mut bytes, version, &answer);
        }
        fetch::write_end(&mut bytes, version);
        fetch::write_end(&mut bytes, version);
        let mut bytes = Bytes::from(bytes);
        let response = FetchResponse::decode(&mut bytes, version).expect("valid");
        assert!(bytes.is_empty(), "version {version}");
        assert_eq!(response.throttle_time_ms, 30);
        let partition = &response.responses[0].partitions[1];
        assert_eq!((partition.partition_index, partition.high_watermark), (2, 1 << 35));
        assert_eq!(partition.records.as_deref(), Some(&b"bytes"[..]));
        if version >= 12 {
            assert_eq!(
                (partition.current_leader.leader_id.0, partition.current_leader.leader_epoch),
                (65, 4)
            );
        }
    }
}

#[test]
fn request_headers_agree_with_the_other_implementation() {
    for api in APIS {
        for version in api.min..=api.max {
            let their_version =
                ApiKey::try_from(api.key).expect("known").request_header_version(version);
            let header = TheirHeader::default()
                .with_request_api_key(api.key)
                .with_request_api_version(version)
                .with_correlation_id(31)
                .with_client_id(Some(text("me")));
            let bytes = encoded(&header, their_version);
            let mut reader = Reader::new(&bytes);
            let found = RequestHeader::read(&mut reader).expect("valid");
            assert_eq!((found.correlation_id, found.client_id), (31, Some("me")));
            assert_eq!(reader.rest(), b"", "{} {version}", api.name);
            let response =
                ApiKey::try_from(api.key).expect("known").response_header_version(version);
            assert_eq!(
                api.has_flexible_response_header(version),
                response == 1,
                "{} {version}",
                api.name
            );
        }
    }
}

/// Every response that begins so, and no other: the number is put there after the response was encoded.
#[test]
fn responses_begin_with_the_throttle_time_where_the_other_implementation_has_it() {
    for api in APIS.iter().filter(|api| api.key != 0) {
        let key = ApiKey::try_from(api.key).expect("known");
        for version in api.min..=api.decoded_as(api.max) {
            // Of zeros, or of ones where a zero would be null, most responses can be made.
            let shown = [0, 1].map(|fill| {
                let mut bytes = vec![fill; 4000];
                bytes[..4].copy_from_slice(&77_i32.to_be_bytes());
                let response = ResponseKind::decode(key, &mut Bytes::from(bytes), version);
                response.map(|response| format!("{response:?}")).unwrap_or_default()
            });
            let shown = shown.concat();
            assert_eq!(
                shown.contains("throttle_time_ms: 77"),
                api.begins_with_throttle(version),
                "{} {version}: {shown}",
                api.name
            );
        }
    }
}

/// The shapes against the decoder behind them: what it encodes by default has the shape in all versions, and
/// every cut of it has not.
#[test]
fn shapes_fit_what_the_other_implementation_encodes() {
    for api in APIS.iter().filter(|api| !matches!(api.key, 0 | 1) && !api.is_login()) {
        let key = ApiKey::try_from(api.key).expect("known");
        let known = key.valid_versions();
        // The other implementation reads these up to 9; the test below has version 10.
        let newest = if matches!(api.key, 8 | 9) { 9 } else { api.decoded_as(api.max) };
        assert!(known.min <= api.min && newest <= known.max, "{}", api.name);
        for version in api.min..=newest {
            let samples = samples(key, version);
            assert!(!samples.is_empty(), "{} {version}", api.name);
            for bytes in samples {
                assert_eq!(shape::check(api, version, &bytes), Ok(()), "{} {version}", api.name);
                for cut in 0..bytes.len() {
                    assert!(
                        shape::check(api, version, &bytes[..cut]).is_err(),
                        "{} {version}",
                        api.name
                    );
                }
            }
        }
    }
}

#[test]
fn shapes_name_topics_by_id_where_the_other_implementation_does_not() {
    let (mut commit, mut fetch) = (Vec::new(), Vec::new());
    commit.string("group", true);
    commit.i32(-1);
    commit.string("", true);
    commit.nullable_string(None, true);
    commit.array_len(1, true);
    commit.uuid(&[7; 16]);
    commit.array_len(1, true);
    commit.raw(&[0; 16]);
    commit.nullable_string(Some("note"), true);
    commit.raw(&[0; 3]);
    fetch.array_len(1, true);
    fetch.string("group", true);
    fetch.nullable_string(None, true);
    fetch.i32(-1);
    fetch.array_len(1, true);
    fetch.uuid(&[7; 16]);
    fetch.array_len(1, true);
    fetch.i32(0);
    fetch.raw(&[0; 4]);
    for (key, body) in [(8, commit), (9, fetch)] {
        let api = Api::find(key).expect("a row");
        assert_eq!(shape::check(api, 10, &body), Ok(()), "{key}");
        for cut in 0..body.len() {
            assert!(shape::check(api, 10, &body[..cut]).is_err(), "{key} {cut}");
        }
    }
}

/// Bodies of a request: what the decoder makes of small numbers in all places, encoded again.
fn samples(key: ApiKey, version: i16) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut state = 1_u64;
    for round in 0..300 {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        // All zeros, all ones, then ones among zeros and the other way round.
        let bytes: Vec<u8> = (0..300)
            .map(|_| match round {
                0 => 0,
                1 => 1,
                round if round % 2 == 0 => u8::from(next() % 8 == 0),
                _ => u8::from(next() % 8 != 0) + u8::from(next() % 16 == 0),
            })
            .collect();
        let mut again = BytesMut::new();
        if let Ok(request) = RequestKind::decode(key, &mut Bytes::from(bytes), version)
            && request.encode(&mut again, version).is_ok()
            && !found.contains(&again.to_vec())
        {
            found.push(again.to_vec());
        }
    }
    found.truncate(20);
    found
}

#[test]
fn an_announced_length_alone_is_refused() {
    let api = Api::find(19).expect("a row");
    // Two billion topics.
    let bytes = [0x7f, 0xff, 0xff, 0xff, 0, 1, b'a'];
    assert!(shape::check(api, 2, &bytes).is_err());
    let request = CreateTopicsRequest::default().with_timeout_ms(5);
    assert_eq!(shape::check(api, 2, &encoded(&request, 2)), Ok(()));
}

#[test]
fn a_response_says_its_own_length() {
    let api = Api::find(0).expect("a row");
    let mut out = Vec::new();
    let start = frame::begin_response(&mut out, api, 9, 77);
    out.extend_from_slice(b"123");
    frame::end(&mut out, start, 0);
    assert_eq!(frame::frame_len(&out, 100), Ok(Some(out.len())));
    assert_eq!(HEADER_BYTES, 61);
}
