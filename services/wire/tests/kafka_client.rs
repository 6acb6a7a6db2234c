//! The client's half of Produce and Fetch, and what only some responses say, in every version against another
//! implementation of the protocol, and against the broker's half.
//!
//! Next: `kafka` for the broker's half and batches, `kafka_frames` for golden bytes and damage.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, TopicName,
    fetch_response,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;
use wire::kafka::client::{self, Topic};
use wire::kafka::{Endpoint, Reader, TopicRef, fetch, produce};

const ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
const ENDPOINTS: [Endpoint<'_>; 2] = [
    Endpoint { broker_id: 65, host: "one.example", port: 9093, rack: Some("r") },
    Endpoint { broker_id: 66, host: "::1", port: 9094, rack: None },
];
const ABORTED: [fetch::Aborted; 2] = [
    fetch::Aborted { producer_id: 1 << 33, first_offset: 7 },
    fetch::Aborted { producer_id: 5, first_offset: 1 << 40 },
];
const RECORD_ERRORS: [produce::RecordError<'_>; 2] = [
    produce::RecordError { index: 3, message: Some("no key") },
    produce::RecordError { index: 4, message: None },
];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).expect("a valid message");
    bytes.to_vec()
}

/// What the other implementation makes of `bytes`, all of which it must use.
fn decoded<T: Decodable>(bytes: &[u8], version: i16) -> T {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let message = T::decode(&mut bytes, version).expect("a valid message");
    assert!(bytes.is_empty(), "version {version}");
    message
}

/// A topic as a version names it.
fn topic_ref(version: i16, name: &str) -> TopicRef<'_> {
    match version {
        13.. => TopicRef::Id(ID.to_be_bytes()),
        _ => TopicRef::Name(name),
    }
}

fn produce_outcome(version: i16) -> produce::Outcome<'static> {
    produce::Outcome {
        index: 4,
        error: 6,
        base_offset: 1 << 34,
        log_append_time_ms: if version >= 2 { 77 } else { -1 },
        log_start_offset: if version >= 5 { 3 } else { -1 },
        message: (version >= 8).then_some("why"),
    }
}

/// A response with all that a version can say, by the broker's half.
fn produce_response(version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let outcome = produce_outcome(version);
    produce::write_head(&mut bytes, version, 1);
    produce::write_topic(&mut bytes, version, topic_ref(version, "topic"), 2);
    produce::write_refused_partition(&mut bytes, version, &outcome, &RECORD_ERRORS, Some((65, 9)));
    produce::write_partition(&mut bytes, version, &produce::Outcome { index: 5, ..outcome });
    produce::write_topic_end(&mut bytes, version);
    produce::write_end_with(&mut bytes, version, 250, &ENDPOINTS);
    bytes
}

fn fetch_answer(version: i16, leader: Option<(i32, i32)>) -> fetch::Answer {
    fetch::Answer {
        index: 2,
        error: 3,
        high_watermark: 1 << 35,
        log_start_offset: if version >= 5 { 6 } else { -1 },
        current_leader: leader.filter(|_| version >= 12),
    }
}

fn fetch_details(version: i16) -> fetch::Details {
    fetch::Details {
        last_stable_offset: Some(1 << 34),
        preferred_replica: (version >= 11).then_some(66),
        diverging_epoch: (version >= 12).then_some((4, 1 << 33)),
    }
}

/// The same of `Fetch`, with two partitions: one with details, one without.
fn fetch_response(version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    fetch::write_head(&mut bytes, version, 30, 71, 99, 1);
    fetch::write_topic(&mut bytes, version, topic_ref(version, "topic"), 2);
    let (answer, details) = (fetch_answer(version, Some((65, 9))), fetch_details(version));
    fetch::write_detailed_partition(&mut bytes, version, &answer, &details, &ABORTED, 5);
    bytes.extend_from_slice(b"bytes");
    fetch::write_detailed_partition_end(&mut bytes, version, &answer, &details);
    let plain = fetch_answer(version, None);
    fetch::write_partition(&mut bytes, version, &plain, 0);
    fetch::write_partition_end(&mut bytes, version, &plain);
    fetch::write_end(&mut bytes, version);
    fetch::write_end_with(&mut bytes, version, &ENDPOINTS);
    bytes
}

#[test]
fn produce_responses_come_back_in_every_version() {
    for version in 0..=13 {
        let bytes = produce_response(version);
        let response =
            client::produce::Response::read(Reader::new(&bytes), version).expect("valid");
        assert_eq!(response.throttle_ms, if version >= 1 { 250 } else { 0 });
        let endpoints: Vec<_> = response.endpoints.collect();
        assert_eq!(endpoints, if version >= 10 { &ENDPOINTS[..] } else { &[] }, "{version}");
        let (topic, partitions) = response.topics.last().expect("a topic");
        assert_eq!(topic, topic_ref(version, "topic"));
        let partitions: Vec<_> = partitions.collect();
        assert_eq!(partitions[0].outcome, produce_outcome(version));
        let errors: Vec<_> = partitions[0].record_errors.collect();
        assert_eq!(errors, if version >= 8 { &RECORD_ERRORS[..] } else { &[] }, "{version}");
        assert_eq!(partitions[0].current_leader, (version >= 10).then_some((65, 9)));
        assert_eq!((partitions[1].outcome.index, partitions[1].current_leader), (5, None));
        assert_eq!(partitions[1].record_errors.len(), 0);
        for cut in 0..bytes.len() {
            let cut = client::produce::Response::read(Reader::new(&bytes[..cut]), version);
            assert!(cut.is_err(), "version {version}");
        }
    }
}

#[test]
fn produce_responses_say_to_the_other_implementation_what_they_mean() {
    // Versions before 3 are not known to it.
    for version in 3..=13 {
        let response: ProduceResponse = decoded(&produce_response(version), version);
        let partition = &response.responses[0].partition_responses[0];
        if version >= 8 {
            let errors = partition.record_errors.iter();
            let errors: Vec<_> = errors
                .map(|error| (error.batch_index, error.batch_index_error_message.as_deref()))
                .collect();
            assert_eq!(errors, [(3, Some("no key")), (4, None)]);
        }
        if version >= 10 {
            let leader = &partition.current_leader;
            assert_eq!((leader.leader_id, leader.leader_epoch), (BrokerId(65), 9));
            let nodes = response.node_endpoints.iter();
            let nodes: Vec<_> = nodes
                .map(|node| (node.node_id.0, &*node.host, node.port, node.rack.as_deref()))
                .collect();
            assert_eq!(nodes, [(65, "one.example", 9093, Some("r")), (66, "::1", 9094, None)]);
        }
    }
}

#[test]
fn fetch_responses_come_back_in_every_version() {
    for version in 4..=18 {
        let bytes = fetch_response(version);
        let response = client::fetch::Response::read(Reader::new(&bytes), version).expect("valid");
        assert_eq!(response.throttle_ms, 30);
        let session = (response.error, response.session_id);
        assert_eq!(session, if version >= 7 { (71, 99) } else { (0, 0) });
        let endpoints: Vec<_> = response.endpoints.collect();
        assert_eq!(endpoints, if version >= 16 { &ENDPOINTS[..] } else { &[] }, "{version}");
        let (topic, partitions) = response.topics.last().expect("a topic");
        assert_eq!(topic, topic_ref(version, "topic"));
        let partitions: Vec<_> = partitions.collect();
        assert_eq!(partitions[0].answer, fetch_answer(version, Some((65, 9))));
        assert_eq!(partitions[0].details, fetch_details(version));
        assert_eq!(partitions[0].aborted.collect::<Vec<_>>(), ABORTED);
        assert_eq!(partitions[0].records, b"bytes");
        assert_eq!(partitions[1].answer, fetch_answer(version, None));
        let plain = fetch::Details { last_stable_offset: Some(1 << 35), ..Default::default() };
        assert_eq!(partitions[1].details, plain);
        assert_eq!((partitions[1].aborted.len(), partitions[1].records), (0, &b""[..]));
        for cut in 0..bytes.len() {
            let cut = client::fetch::Response::read(Reader::new(&bytes[..cut]), version);
            assert!(cut.is_err(), "version {version}");
        }
    }
}

#[test]
fn fetch_responses_say_to_the_other_implementation_what_they_mean() {
    for version in 4..=18 {
        let response: FetchResponse = decoded(&fetch_response(version), version);
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.last_stable_offset, 1 << 34);
        let aborted = partition.aborted_transactions.iter().flatten();
        let aborted: Vec<_> = aborted.map(|one| (one.producer_id.0, one.first_offset)).collect();
        assert_eq!(aborted, [(1 << 33, 7), (5, 1 << 40)]);
        assert_eq!(partition.records.as_deref(), Some(&b"bytes"[..]));
        if version >= 11 {
            assert_eq!(partition.preferred_read_replica, BrokerId(66));
        }
        if version >= 12 {
            let (diverging, leader) = (&partition.diverging_epoch, &partition.current_leader);
            assert_eq!((diverging.epoch, diverging.end_offset), (4, 1 << 33));
            assert_eq!((leader.leader_id, leader.leader_epoch), (BrokerId(65), 9));
        }
        if version >= 16 {
            let nodes = response.node_endpoints.iter();
            let nodes: Vec<_> =
                nodes.map(|node| (node.node_id.0, &*node.host, node.port)).collect();
            assert_eq!(nodes, [(65, "one.example", 9093), (66, "::1", 9094)]);
        }
    }
}

/// A tagged field nobody knows, with a number beyond those that have a meaning.
fn unknown() -> (i32, Bytes) {
    (200, Bytes::from_static(b"from the future"))
}

#[test]
fn produce_responses_of_the_other_implementation_are_read() {
    for version in 3..=13 {
        let mut partition = PartitionProduceResponse::default()
            .with_index(8)
            .with_error_code(6)
            .with_base_offset(1 << 41)
            .with_log_append_time_ms(5);
        let mut response = ProduceResponse::default().with_throttle_time_ms(9);
        if version >= 8 {
            let error = BatchIndexAndErrorMessage::default().with_batch_index(2);
            partition =
                partition.with_record_errors(vec![error]).with_error_message(Some(text("m")));
        }
        if version >= 10 {
            let leader =
                LeaderIdAndEpoch::default().with_leader_id(BrokerId(3)).with_leader_epoch(4);
            let node = NodeEndpoint::default().with_node_id(BrokerId(3)).with_host(text("h"));
            partition = partition.with_current_leader(leader);
            response = response.with_node_endpoints(vec![node]);
        }
        if version >= 9 {
            let (tag, bytes) = unknown();
            partition = partition.with_unknown_tagged_field(tag, bytes.clone());
            response = response.with_unknown_tagged_field(tag, bytes);
        }
        let topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
        let topic = match version {
            13.. => topic.with_topic_id(Uuid::from_u128(ID)),
            _ => topic.with_name(TopicName(text("t"))),
        };
        let bytes = encoded(&response.with_responses(vec![topic]), version);
        let response =
            client::produce::Response::read(Reader::new(&bytes), version).expect("valid");
        assert_eq!((response.throttle_ms, response.topics.len()), (9, 1));
        let (topic, mut partitions) = response.topics.last().expect("a topic");
        assert_eq!(topic, topic_ref(version, "t"));
        let found = partitions.next().expect("a partition");
        assert_eq!((found.outcome.index, found.outcome.error), (8, 6));
        assert_eq!((found.outcome.base_offset, found.outcome.log_append_time_ms), (1 << 41, 5));
        assert_eq!(found.outcome.message, (version >= 8).then_some("m"));
        assert_eq!(found.record_errors.len(), usize::from(version >= 8));
        assert_eq!(found.current_leader, (version >= 10).then_some((3, 4)));
        assert_eq!(response.endpoints.len(), usize::from(version >= 10));
    }
}

#[test]
fn fetch_responses_of_the_other_implementation_are_read() {
    use fetch_response::{FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData};
    for version in 4..=18 {
        let mut partition = PartitionData::default()
            .with_partition_index(8)
            .with_high_watermark(50)
            .with_last_stable_offset(40)
            .with_aborted_transactions(None)
            .with_records(Some(Bytes::from_static(b"records")));
        let mut response = FetchResponse::default().with_throttle_time_ms(9);
        if version >= 12 {
            let leader =
                LeaderIdAndEpoch::default().with_leader_id(BrokerId(3)).with_leader_epoch(4);
            let (tag, bytes) = unknown();
            partition = partition.with_current_leader(leader).with_unknown_tagged_field(tag, bytes);
        }
        if version >= 16 {
            let node = NodeEndpoint::default().with_node_id(BrokerId(3)).with_host(text("h"));
            response = response.with_node_endpoints(vec![node]);
        }
        let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
        let topic = match version {
            13.. => topic.with_topic_id(Uuid::from_u128(ID)),
            _ => topic.with_topic(TopicName(text("t"))),
        };
        let bytes = encoded(&response.with_responses(vec![topic]), version);
        let response = client::fetch::Response::read(Reader::new(&bytes), version).expect("valid");
        let (topic, mut partitions) = response.topics.last().expect("a topic");
        assert_eq!(topic, topic_ref(version, "t"));
        let found = partitions.next().expect("a partition");
        assert_eq!((found.answer.index, found.answer.high_watermark), (8, 50));
        assert_eq!(found.details.last_stable_offset, Some(40));
        assert_eq!((found.records, found.aborted.len()), (&b"records"[..], 0));
        assert_eq!(found.answer.current_leader, (version >= 12).then_some((3, 4)));
        assert_eq!(response.endpoints.len(), usize::from(version >= 16));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn produce_requests_are_read_by_both(
        id in prop::option::of("[a-z]{0,9}"),
        acks in -1_i16..=1,
        timeout_ms in 0_i32..100_000,
        lists in prop::collection::vec(
            prop::collection::vec((0_i32..99, prop::option::of(prop::collection::vec(any::<u8>(), 0..90))), 0..4),
            0..4,
        ),
    ) {
        let partitions: Vec<Vec<_>> = lists.iter().map(|list| {
            list.iter().map(|(index, records)| produce::Partition { index: *index, records: records.as_deref() }).collect()
        }).collect();
        for version in produce::OLDEST..=13 {
            let topics: Vec<_> = partitions.iter()
                .map(|list| Topic { topic: topic_ref(version, "t"), partitions: &list[..] }).collect();
            let request = client::produce::Request {
                transactional_id: id.as_deref(), acks, timeout_ms, topics: &topics,
            };
            let mut bytes = Vec::new();
            request.write(&mut bytes, version);
            let ours = produce::Request::read(Reader::new(&bytes), version).expect("valid");
            prop_assert_eq!((ours.transactional_id, ours.acks, ours.timeout_ms), (id.as_deref(), acks, timeout_ms));
            let found: Vec<Vec<_>> = ours.topics().map(|(_, list)| list.collect()).collect();
            prop_assert_eq!(&found, &partitions);
            let theirs: ProduceRequest = decoded(&bytes, version);
            prop_assert_eq!(theirs.acks, acks);
            let found: Vec<Vec<_>> = theirs.topic_data.iter().map(|topic| {
                topic.partition_data.iter()
                    .map(|one| produce::Partition { index: one.index, records: one.records.as_deref() }).collect()
            }).collect();
            prop_assert_eq!(&found, &partitions);
        }
    }

    #[test]
    fn fetch_requests_are_read_by_both(
        numbers in prop::array::uniform3(any::<i32>()),
        read_committed in any::<bool>(),
        replica in prop::option::of((0_i32..i32::MAX, any::<i64>())),
        list in prop::collection::vec((any::<[i32; 4]>(), any::<[i64; 3]>()), 0..4),
    ) {
        for version in 4..=18 {
            let replica = replica.map(|(broker_id, epoch)| fetch::Replica {
                broker_id, epoch: if version >= 15 { epoch } else { -1 },
            });
            // All is given; what a version cannot say must be left out.
            let given: Vec<_> = list.iter().map(|(small, large)| fetch::Partition {
                index: small[0],
                current_leader_epoch: small[1],
                fetch_offset: large[0],
                last_fetched_epoch: small[2],
                log_start_offset: large[1],
                max_bytes: small[3],
                high_watermark: large[2],
            }).collect();
            let partitions: Vec<_> = given.iter().map(|one| fetch::Partition {
                current_leader_epoch: if version >= 9 { one.current_leader_epoch } else { -1 },
                last_fetched_epoch: if version >= 12 { one.last_fetched_epoch } else { -1 },
                log_start_offset: if version >= 5 { one.log_start_offset } else { -1 },
                high_watermark: if version >= 18 { one.high_watermark } else { i64::MAX },
                ..*one
            }).collect();
            let topic = Topic { topic: topic_ref(version, "t"), partitions: &given[..] };
            let request = client::fetch::Request {
                max_wait_ms: numbers[0], min_bytes: numbers[1], max_bytes: numbers[2],
                read_committed, replica, rack: "rack", topics: &[topic, topic],
            };
            let mut bytes = Vec::new();
            request.write(&mut bytes, version);
            let ours = fetch::Request::read(Reader::new(&bytes), version).expect("valid");
            prop_assert_eq!([ours.max_wait_ms, ours.min_bytes, ours.max_bytes], numbers);
            prop_assert_eq!((ours.read_committed, ours.replica), (read_committed, replica));
            prop_assert_eq!((ours.session_id, ours.session_epoch), (0, -1));
            prop_assert_eq!(ours.forgotten().count(), 0);
            for (found, list) in ours.topics() {
                prop_assert_eq!(found, topic.topic);
                prop_assert_eq!(list.collect::<Vec<_>>(), partitions.clone());
            }
            let theirs: FetchRequest = decoded(&bytes, version);
            prop_assert_eq!([theirs.max_wait_ms, theirs.min_bytes, theirs.max_bytes], numbers);
            prop_assert_eq!(theirs.topics.len(), 2);
            for (found, one) in theirs.topics[1].partitions.iter().zip(&partitions) {
                prop_assert_eq!((found.partition, found.fetch_offset), (one.index, one.fetch_offset));
                prop_assert_eq!((found.partition_max_bytes, found.high_watermark), (one.max_bytes, one.high_watermark));
                prop_assert_eq!(found.last_fetched_epoch, one.last_fetched_epoch);
            }
            if let Some(replica) = replica {
                let id = if version >= 15 { theirs.replica_state.replica_id } else { theirs.replica_id };
                prop_assert_eq!((id, theirs.replica_state.replica_epoch), (BrokerId(replica.broker_id), replica.epoch));
            }
        }
    }
}
