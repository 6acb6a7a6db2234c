//! Publish and subscribe over real sockets: many subscribers on several shards, subscribers that do not read,
//! invalidations for clients that cache.
//!
//! Invariants asserted: every subscriber gets every message whole, once and in order; one that does not read is
//! closed at its limit and costs the others nothing.
//! Where next: `golden/pubsub.txt` for what replies look like, `src/tests/pubsub.rs` for interleavings.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes and measures real time"
)]

mod common;

use std::time::{Duration, Instant};

use common::resp::{Client, Reply};
use common::server::{Server, Turn, must};

const LIMIT: Duration = Duration::from_secs(20);

fn bulk(text: &[u8]) -> Reply {
    Reply::Bulk(text.to_vec())
}

fn ok() -> Reply {
    Reply::Simple(b"OK".to_vec())
}

fn subscriber(server: &Server, version: u8, channel: &str) -> Client {
    let mut client = server.client();
    if version == 3 {
        must(client.words("HELLO 3"), "HELLO");
    }
    let reply = must(client.words(&format!("SUBSCRIBE {channel}")), "SUBSCRIBE");
    assert_eq!(reply.items().first(), Some(&bulk(b"subscribe")));
    client
}

fn message(client: &mut Client) -> Vec<u8> {
    let reply = must(client.reply(), "a message");
    assert_eq!(reply.items().first(), Some(&bulk(b"message")), "{reply:?}");
    reply.items().get(2).map(|text| text.bytes().to_vec()).unwrap_or_default()
}

#[test]
fn every_subscriber_gets_every_message_in_order() {
    let _turn = Turn::shared();
    for shards in [1, 3] {
        let server = Server::cache(shards);
        let mut crowd: Vec<Client> =
            (0..60).map(|at| subscriber(&server, 2 + (at % 2) as u8, "news")).collect();
        let mut publishers: Vec<Client> = (0..3).map(|_| server.client()).collect();
        let text = |round: usize, who: usize| {
            let len = [10, 100, 4095, 4096, 300_000][round % 5];
            format!("{who} {round} {}", "x".repeat(len)).into_bytes()
        };
        for round in 0..20 {
            for (who, publisher) in publishers.iter_mut().enumerate() {
                let words = [b"PUBLISH".as_slice(), b"news", &text(round, who)];
                assert_eq!(must(publisher.call(&words), "PUBLISH"), Reply::Int(60));
            }
        }
        for client in &mut crowd {
            for round in 0..20 {
                for who in 0..3 {
                    assert!(message(client) == text(round, who), "round {round} of {who}");
                }
            }
            assert!(client.pending().is_none(), "nothing comes twice");
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_the_others_are_served() {
    let _turn = Turn::shared();
    for shards in [1, 2] {
        let server = Server::cache(shards);
        let mut publisher = server.client();
        let set = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 4mb 0 0"];
        assert_eq!(must(publisher.call(&set), "CONFIG SET"), ok());
        let mut lazy = subscriber(&server, 2, "news");
        let mut eager = subscriber(&server, 3, "news");
        let text = vec![b'x'; 1 << 20];
        let deadline = Instant::now() + LIMIT;
        let mut sent = 0;
        loop {
            let reply = must(publisher.call(&[b"PUBLISH".as_slice(), b"news", &text]), "PUBLISH");
            sent += 1;
            assert_eq!(message(&mut eager).len(), text.len());
            if reply == Reply::Int(1) {
                break;
            }
            assert_eq!(reply, Reply::Int(2));
            assert!(Instant::now() < deadline, "the one that does not read is still there");
        }
        assert!(sent >= 4, "closed before its limit");
        // It finds what the kernel held, and then the end.
        loop {
            match lazy.reply() {
                Ok(Reply::Closed) | Err(_) => break,
                Ok(_) => {}
            }
        }
        assert_eq!(must(publisher.words("PING"), "PING"), Reply::Simple(b"PONG".to_vec()));
    }
}

#[test]
fn events_and_invalidations_cross_shards() {
    let _turn = Turn::shared();
    let server = Server::cache(3);
    let mut writer = server.client();
    assert_eq!(must(writer.words("CONFIG SET notify-keyspace-events E$"), "CONFIG SET"), ok());
    let mut listener = server.client();
    must(listener.words("PSUBSCRIBE __keyevent@0__:*"), "PSUBSCRIBE");
    let mut cacher = server.client();
    must(cacher.words("HELLO 3"), "HELLO");
    assert_eq!(must(cacher.words("CLIENT TRACKING ON"), "CLIENT TRACKING"), ok());
    for number in 0..200 {
        let key = format!("key{number}");
        must(cacher.words(&format!("GET {key}")), "GET");
        assert_eq!(must(writer.words(&format!("SET {key} 1")), "SET"), ok());
        let event = must(listener.reply(), "an event");
        assert_eq!(event.items().get(3), Some(&bulk(key.as_bytes())));
        let gone = must(cacher.reply(), "an invalidation");
        let keys = gone.items().get(1).map(Reply::items).unwrap_or_default().to_vec();
        assert_eq!(keys, [bulk(key.as_bytes())]);
    }
}
