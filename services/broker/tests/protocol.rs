//! What Kafka's clients rely on and its documentation hardly says: one test each. Others are where their subject is:
//! the list of versions in `api/versions.rs`, sessions in `sessions.rs`, slowing down in `limits.rs`, several brokers on one host in
//! `live_clients.rs`.

#![expect(clippy::disallowed_methods, reason = "a client gives up after a while")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Broker;
use common::client::{Client, Mark, batch, name};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeConfigsRequest, DescribeLogDirsRequest, FindCoordinatorRequest,
    GroupId, JoinGroupRequest, MetadataRequest, OffsetCommitResponse, OffsetFetchResponse,
    SyncGroupRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use wire::kafka::Writer;
use wire::kafka::batch::Batch;
use wire::kafka::frame::{self, RequestHeader};

const TOPIC: &str = "protocol";

fn started(partitions: i32) -> (Broker, Client) {
    let broker = Broker::start(1, &[]);
    let mut client = Client::connect(broker.address()).expect("it listens");
    assert_eq!(client.create(TOPIC, partitions).expect("an answer").error_code, 0);
    (broker, client)
}

/// Sends records; error and base offset.
fn produce(client: &mut Client, values: &[&str], mark: Option<Mark>) -> (i16, i64) {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    client.produce(TOPIC, 0, batch(&values, mark), -1).expect("sent");
    let (_, error, offset) = client.produced().expect("an answer");
    (error, offset)
}

/// Asks for the coordinator of a group, which begins with that.
fn coordinate(client: &mut Client, group: &str) {
    let key = StrBytes::from_string(group.to_owned());
    let request = FindCoordinatorRequest::default().with_key(key);
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.call(&request, 2).expect("an answer").error_code != 0 {
        assert!(Instant::now() < deadline, "no coordinator");
    }
}

/// A request that the other implementation cannot encode: what follows the answer's header.
fn raw(client: &mut Client, key: i16, version: i16, body: &[u8]) -> Bytes {
    let header = RequestHeader { key, version, correlation_id: 9, client_id: None };
    let mut bytes = Vec::new();
    let start = frame::begin_request(&mut bytes, &header);
    bytes.raw(body);
    frame::end(&mut bytes, start, 0);
    client.send_raw(&bytes).expect("sent");
    client.receive(true).expect("an answer").1
}

/// The advertised ranges, as Kafka 4.3 has them, by number.
const ADVERTISED: &[(i16, i16, i16)] = &[
    (0, 0, 13),
    (1, 4, 18),
    (2, 1, 11),
    (3, 0, 13),
    (8, 2, 10),
    (9, 1, 10),
    (10, 0, 6),
    (11, 0, 9),
    (12, 0, 4),
    (13, 0, 5),
    (14, 0, 5),
    (15, 0, 6),
    (16, 0, 5),
    (18, 0, 4),
    (19, 2, 7),
    (20, 1, 6),
    (21, 0, 2),
    (22, 0, 5),
    (23, 2, 4),
    (32, 1, 4),
    (33, 0, 2),
    (34, 1, 2),
    (35, 1, 5),
    (37, 0, 3),
    (42, 0, 2),
    (43, 0, 2),
    (44, 0, 1),
    (45, 0, 1),
    (46, 0, 0),
    (47, 0, 0),
    (55, 0, 2),
    (60, 0, 2),
    (61, 0, 0),
    (74, 0, 1),
    (75, 0, 0),
];

#[test]
fn the_ranges_of_versions_are_those_of_kafka() {
    let (_broker, mut client) = started(1);
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let response = client.call(&request, 3).expect("an answer");
    let found: Vec<_> = response
        .api_keys
        .iter()
        .map(|api| (api.api_key, api.min_version, api.max_version))
        .collect();
    assert_eq!(found, ADVERTISED);
}

#[test]
fn the_oldest_produce_requests_are_advertised_and_refused() {
    for version in 0..=2 {
        let (_broker, mut client) = started(1);
        let header = RequestHeader { key: 0, version, correlation_id: 9, client_id: None };
        let mut bytes = Vec::new();
        let start = frame::begin_request(&mut bytes, &header);
        bytes.raw(&[0; 10]);
        frame::end(&mut bytes, start, 0);
        client.send_raw(&bytes).expect("sent");
        assert!(client.receive(false).is_err(), "{version}: closed");
    }
}

#[test]
fn answers_come_in_order_and_none_to_who_wants_none() {
    let (_broker, mut client) = started(3);
    let mut sent = Vec::new();
    for n in 0..12 {
        let acks = if n % 4 == 3 { 0 } else { -1 };
        let number = client.produce(TOPIC, n % 3, batch(&[format!("{n}")], None), acks);
        let number = number.expect("sent");
        if acks != 0 {
            sent.push(number);
        }
    }
    for number in sent {
        let (answered, error, _) = client.produced().expect("an answer");
        assert_eq!((answered, error), (number, 0));
    }
    // Those without an answer were stored all the same.
    let stored: usize = (0..3).map(|n| client.read_all(TOPIC, n).expect("read").len()).sum();
    assert_eq!(stored, 12);
}

#[test]
fn the_first_batch_comes_whole_however_small_the_limit_and_further_ones_may_be_cut() {
    let (_broker, mut client) = started(1);
    let long = "x".repeat(5000);
    for value in ["a", &long, "b"] {
        assert_eq!(produce(&mut client, &[value], None).0, 0);
    }
    for (offset, most) in [(0, 1), (1, 1), (1, 100), (2, 1)] {
        let (error, _, bytes) = client.fetch(TOPIC, 0, offset, (most, 0)).expect("an answer");
        assert_eq!(error, 0);
        let (first, _) = Batch::split(&bytes).expect("whole");
        first.check_crc().expect("as it was written");
        assert_eq!(first.base_offset(), offset);
    }
    // Whatever is behind the first may end anywhere: clients look for whole batches.
    let (_, _, bytes) = client.fetch(TOPIC, 0, 0, (200, 0)).expect("an answer");
    assert!(Batch::split(&bytes).is_ok() && bytes.len() <= 200, "{}", bytes.len());
}

#[test]
fn of_a_producers_last_five_batches_each_is_known_again() {
    let (_broker, mut client) = started(1);
    let producer_id = client.producer_id().expect("an id");
    let mark = |sequence| Some(Mark { producer_id, epoch: 0, sequence });
    for sequence in 0..7 {
        assert_eq!(produce(&mut client, &["v"], mark(sequence)), (0, i64::from(sequence)));
    }
    for sequence in 2..7 {
        let again = produce(&mut client, &["v"], mark(sequence));
        assert_eq!(again, (0, i64::from(sequence)), "no error, and where it was stored first");
    }
    assert_eq!(produce(&mut client, &["v"], mark(1)).0, 45, "too long ago");
    assert_eq!(produce(&mut client, &["v"], mark(8)).0, 45, "one is missing");
    assert_eq!(produce(&mut client, &["v"], mark(7)), (0, 7));
}

#[test]
fn a_groups_type_is_its_members_business() {
    let (_broker, mut client) = started(1);
    coordinate(&mut client, "connect-cluster");
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("sessioned"))
        .with_metadata(Bytes::from_static(b"\0\x02whatever"));
    let mut join = JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("connect-cluster")))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(StrBytes::from_static_str("connect"))
        .with_protocols(vec![protocol]);
    let refused = client.call(&join, 7).expect("an answer");
    assert_eq!(refused.error_code, 79, "MEMBER_ID_REQUIRED");
    join.member_id = refused.member_id;
    let joined = client.call(&join, 7).expect("an answer");
    assert_eq!(joined.error_code, 0);
    assert_eq!(joined.protocol_type.as_deref(), Some("connect"));
    assert_eq!(joined.members[0].metadata, b"\0\x02whatever"[..]);
    let sync = SyncGroupRequest::default()
        .with_group_id(join.group_id.clone())
        .with_generation_id(joined.generation_id)
        .with_member_id(join.member_id.clone())
        .with_protocol_type(Some(StrBytes::from_static_str("consumer")))
        .with_protocol_name(Some(StrBytes::from_static_str("sessioned")));
    assert_eq!(client.call(&sync, 5).expect("an answer").error_code, 23, "another type");
}

#[test]
fn configuration_is_described_with_where_it_comes_from() {
    let (_broker, mut client) = started(1);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str(TOPIC))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let response = client.call(&request, 4).expect("an answer");
    let configs = &response.results[0].configs;
    for wanted in ["cleanup.policy", "retention.ms", "max.message.bytes", "segment.bytes"] {
        let config = configs.iter().find(|config| &*config.name == wanted);
        let config = config.unwrap_or_else(|| panic!("{wanted} is described"));
        assert!(!config.synonyms.is_empty(), "{wanted}");
        assert!(config.value.is_some(), "{wanted}");
    }
}

/// Version 10 of both, which names topics by id.
#[test]
fn offsets_are_committed_and_fetched_by_topic_id() {
    let (_broker, mut client) = started(1);
    let metadata =
        client.call(&MetadataRequest::default().with_topics(None), 12).expect("an answer");
    let topic = metadata.topics.iter().find(|topic| topic.name == Some(name(TOPIC)));
    let id = *topic.expect("it is there").topic_id.as_bytes();
    let unknown = [0xee; 16];
    coordinate(&mut client, "group");
    let commit = |id: &[u8; 16]| {
        let mut body = Vec::new();
        body.string("group", true);
        body.i32(-1);
        body.string("", true);
        body.nullable_string(None, true);
        body.array_len(1, true);
        body.uuid(id);
        body.array_len(1, true);
        body.i32(0);
        body.i64(77);
        body.i32(-1);
        body.nullable_string(Some("note"), true);
        [0, 0, 0].iter().for_each(|_| body.no_tagged_fields(true));
        body
    };
    let fetch = |ids: Option<&[[u8; 16]]>| {
        let mut body = Vec::new();
        body.array_len(1, true);
        body.string("group", true);
        body.nullable_string(None, true);
        body.i32(-1);
        match ids {
            None => body.null(true),
            Some(ids) => {
                body.array_len(ids.len(), true);
                for id in ids {
                    body.uuid(id);
                    body.array_len(1, true);
                    body.i32(0);
                    body.no_tagged_fields(true);
                }
            }
        }
        body.no_tagged_fields(true);
        body.bool(false);
        body.no_tagged_fields(true);
        body
    };
    for (id, error) in [(&id, 0), (&unknown, 100)] {
        let mut answer = raw(&mut client, 8, 10, &commit(id));
        let response = OffsetCommitResponse::decode(&mut answer, 10).expect("valid");
        assert_eq!(response.topics[0].topic_id.as_bytes(), id);
        assert_eq!(response.topics[0].partitions[0].error_code, error);
    }
    let mut ask = |ids: Option<&[[u8; 16]]>| {
        let mut answer = raw(&mut client, 9, 10, &fetch(ids));
        let mut response = OffsetFetchResponse::decode(&mut answer, 10).expect("valid");
        let topics = response.groups.remove(0).topics;
        let found = topics.into_iter().map(|topic| {
            let partition = &topic.partitions[0];
            (*topic.topic_id.as_bytes(), partition.committed_offset, partition.error_code)
        });
        found.collect::<Vec<_>>()
    };
    assert_eq!(ask(Some(&[id, unknown])), [(id, 77, 0), (unknown, -1, 100)]);
    assert_eq!(ask(None), [(id, 77, 0)], "everything");
    assert_eq!(ask(Some(&[])), [], "nothing");
}

#[test]
fn directories_say_that_they_take_partitions() {
    let (_broker, mut client) = started(1);
    let known =
        client.call(&DescribeLogDirsRequest::default().with_topics(None), 4).expect("an answer");
    assert_eq!(known.results[0].topics[0].name, name(TOPIC));
    // The same with one byte more, before the ends of the directory and of the answer.
    let mut older = raw(&mut client, 35, 4, &[0, 0]);
    let newer = raw(&mut client, 35, 5, &[0, 0]);
    let ends = older.split_off(older.len() - 2);
    assert_eq!(newer, [&older[..], &[0], &ends[..]].concat());
}
