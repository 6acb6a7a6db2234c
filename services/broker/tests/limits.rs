//! What bounds a client: how much it uses in a second, how long a request is, how many wait, how many connect. Each at its
//! bound and one beyond.

#![expect(clippy::disallowed_methods, reason = "clients measure how long answers take")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::client::{Client, batch, name};
use common::{Broker, quotas_file};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse, MetadataRequest, ProduceResponse};
use kafka_protocol::protocol::Decodable;

const TOPIC: &str = "limits";

fn connect(broker: &Broker, client_id: &'static str) -> Client {
    let mut client = Client::connect(broker.address()).expect("it listens");
    client.client_id = client_id;
    client
}

fn broker(options: &[&str]) -> Broker {
    let broker = Broker::start(1, options);
    assert_eq!(connect(&broker, "maker").create(TOPIC, 1).expect("an answer").error_code, 0);
    broker
}

/// Sends records of so many bytes; how long the broker says to wait.
fn produce(client: &mut Client, bytes: usize) -> i32 {
    client.produce(TOPIC, 0, batch(&["x".repeat(bytes)], None), -1).expect("sent");
    let (_, mut body) = client.receive(true).expect("an answer");
    let response = ProduceResponse::decode(&mut body, 9).expect("valid");
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    response.throttle_time_ms
}

fn fetch(client: &mut Client) -> FetchResponse {
    let partition = FetchPartition::default().with_partition(0).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(name(TOPIC)).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    client.call(&request, 12).expect("an answer")
}

fn record_bytes(response: &FetchResponse) -> usize {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.filter_map(|one| one.records.as_ref()).map(|records| records.len()).sum()
}

#[test]
fn a_producer_above_its_quota_is_told_at_once_and_then_not_read() {
    let quotas = quotas_file();
    let broker = broker(&["--broker-quotas", &quotas]);
    let mut slow = connect(&broker, "slow");
    // Ten seconds' worth of 2000 bytes a second is the bound.
    assert_eq!(produce(&mut slow, 19_000), 0);
    let begun = Instant::now();
    let wait_ms = produce(&mut slow, 2000);
    assert!((1..2000).contains(&wait_ms), "{wait_ms}");
    assert!(begun.elapsed() < Duration::from_millis(u64::from(wait_ms.unsigned_abs())));
    let metadata = MetadataRequest::default().with_topics(None);
    slow.call(&metadata, 9).expect("an answer, late");
    assert!(begun.elapsed() >= Duration::from_millis(u64::from(wait_ms.unsigned_abs())));
    // Others are not held up.
    assert_eq!(produce(&mut connect(&broker, "fast"), 500_000), 0);
}

#[test]
fn a_consumer_above_its_quota_gets_nothing_until_it_has_waited() {
    let quotas = quotas_file();
    let broker = broker(&["--broker-quotas", &quotas]);
    assert_eq!(produce(&mut connect(&broker, "fast"), 15_000), 0);
    let mut slow = connect(&broker, "slow");
    let first = fetch(&mut slow);
    assert_eq!(first.throttle_time_ms, 0);
    assert!(record_bytes(&first) > 15_000);
    let begun = Instant::now();
    let second = fetch(&mut slow);
    assert!(second.throttle_time_ms > 0);
    assert_eq!((second.error_code, record_bytes(&second)), (0, 0));
    let wait = Duration::from_millis(u64::from(second.throttle_time_ms.unsigned_abs()));
    assert!(begun.elapsed() < wait);
    fetch(&mut slow);
    assert!(begun.elapsed() >= wait);
    assert!(record_bytes(&fetch(&mut connect(&broker, "fast"))) > 15_000);
}

#[test]
fn requests_are_counted_too() {
    let quotas = quotas_file();
    let broker = broker(&["--broker-quotas", &quotas]);
    let mut client = connect(&broker, "pace");
    let metadata = MetadataRequest::default().with_topics(None);
    let mut ask = || client.call(&metadata, 9).expect("an answer").throttle_time_ms;
    // Ten a second, ten seconds' worth at once.
    for n in 0..100 {
        assert_eq!(ask(), 0, "{n}");
    }
    let begun = Instant::now();
    let wait_ms = ask();
    assert!((1..=1000).contains(&wait_ms), "{wait_ms}");
    ask();
    assert!(begun.elapsed() >= Duration::from_millis(u64::from(wait_ms.unsigned_abs())));
}

#[test]
fn a_muted_connection_that_goes_away_leaves_nothing() {
    let broker = broker(&["--broker-quota-produce", "1b"]);
    let mut client = connect(&broker, "any");
    assert!(produce(&mut client, 3000) > 1_000_000);
    drop(client);
    // Stopping does not wait for it either.
    let mut client = connect(&broker, "other");
    assert!(produce(&mut client, 3000) > 1_000_000);
    let begun = Instant::now();
    let mut process = broker.process;
    process.terminate();
    let status = process.wait(Duration::from_secs(8));
    assert!(status.is_some_and(|status| status.success()), "{}", process.log());
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_request_is_as_long_as_the_option_says() {
    let broker = broker(&["--broker-request-max", "4096"]);
    for (len, taken) in [(4096_u32, true), (4097, false)] {
        let mut stream = TcpStream::connect(broker.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
        stream.write_all(&len.to_be_bytes()).expect("sent");
        let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert_eq!(stream.read(&mut [0; 1]).is_err_and(waits), taken, "{len}");
    }
}

#[test]
fn more_requests_than_may_be_in_flight_are_answered_in_order() {
    for bound in ["1", "3", "4", "5"] {
        let broker = broker(&["--broker-in-flight-max", bound]);
        let mut client = connect(&broker, "any");
        let sent: Vec<i32> = (0..4)
            .map(|n| client.produce(TOPIC, 0, batch(&[format!("{n}")], None), -1).expect("sent"))
            .collect();
        for (offset, number) in (0..).zip(sent) {
            assert_eq!(client.produced().expect("an answer"), (number, 0, offset), "{bound}");
        }
    }
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    // What Broker::start opens to see whether it listens is gone again.
    let broker = broker(&["--max-clients", "3"]);
    let metadata = MetadataRequest::default().with_topics(None);
    let mut open = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while open.len() < 3 {
        assert!(Instant::now() < deadline, "{} of 3", open.len());
        let mut client = connect(&broker, "any");
        if client.call(&metadata, 9).is_ok() {
            open.push(client);
        }
    }
    assert!(connect(&broker, "any").call(&metadata, 9).is_err(), "one beyond");
    for client in &mut open {
        assert!(client.call(&metadata, 9).is_ok());
    }
}
