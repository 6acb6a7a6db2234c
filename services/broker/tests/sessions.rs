//! Fetch sessions over the wire: a partition is named once, and told of only when it has something new.

mod common;

use common::Broker;
use common::client::{Client, batch, name};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

const TOPIC: &str = "sessions";

fn fetch(
    client: &mut Client,
    session: (i32, i32),
    wanted: &[(i32, i64)],
    forget: &[i32],
) -> FetchResponse {
    let partitions = wanted.iter().map(|&(index, offset)| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20)
    });
    let topics = if wanted.is_empty() {
        Vec::new()
    } else {
        vec![FetchTopic::default().with_topic(name(TOPIC)).with_partitions(partitions.collect())]
    };
    let forgotten = if forget.is_empty() {
        Vec::new()
    } else {
        vec![ForgottenTopic::default().with_topic(name(TOPIC)).with_partitions(forget.to_vec())]
    };
    let request = FetchRequest::default()
        .with_max_wait_ms(20)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics)
        .with_forgotten_topics_data(forgotten);
    client.call(&request, 12).expect("an answer")
}

/// Partitions in an answer, each with whether it has records.
fn told(response: &FetchResponse) -> Vec<(i32, bool)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let has = |records: &Option<bytes::Bytes>| records.as_ref().is_some_and(|all| !all.is_empty());
    partitions.map(|one| (one.partition_index, has(&one.records))).collect()
}

#[test]
fn a_session_tells_what_is_new() {
    let broker = Broker::start(1, &[]);
    let mut client = Client::connect(broker.address()).expect("it listens");
    assert_eq!(client.create(TOPIC, 3).expect("an answer").error_code, 0);
    let produce = |partition| {
        let mut client = Client::connect(broker.address()).expect("it listens");
        client.produce(TOPIC, partition, batch(&["v".into()], None), -1).expect("sent");
        assert_eq!(client.produced().expect("an answer").1, 0);
    };
    produce(1);
    let opened = fetch(&mut client, (0, 0), &[(0, 0), (1, 0), (2, 0)], &[]);
    let id = opened.session_id;
    assert!(id > 0);
    assert_eq!(told(&opened), [(0, false), (1, true), (2, false)]);
    // It has read partition 1; nothing is new.
    let quiet = fetch(&mut client, (id, 1), &[(1, 1)], &[]);
    assert_eq!((quiet.session_id, quiet.error_code, told(&quiet)), (id, 0, Vec::new()));
    produce(2);
    let news = fetch(&mut client, (id, 2), &[], &[]);
    assert_eq!(told(&news), [(2, true)]);
    // Not having moved on, it is told again; forgotten partitions are not.
    assert_eq!(told(&fetch(&mut client, (id, 3), &[], &[])), [(2, true)]);
    assert_eq!(told(&fetch(&mut client, (id, 4), &[], &[2])), []);
    let late = fetch(&mut client, (id, 4), &[], &[]);
    assert_eq!(late.error_code, 71, "INVALID_FETCH_SESSION_EPOCH");
    let unknown = fetch(&mut client, (id.wrapping_add(1).max(1), 5), &[], &[]);
    assert_eq!(unknown.error_code, 70, "FETCH_SESSION_ID_NOT_FOUND");
    // The end of a session, and no session.
    let closed = fetch(&mut client, (id, -1), &[(1, 0)], &[]);
    assert_eq!((closed.session_id, told(&closed)), (0, vec![(1, true)]));
    assert_eq!(fetch(&mut client, (id, 5), &[], &[]).error_code, 70);
}
