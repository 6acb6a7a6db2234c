//! Publish and subscribe with one, two and three shards: who gets what, in which order, over which protocol.

use super::support::{Host, encode};

fn push(version: u8, words: &[&str]) -> String {
    let mut text = format!("{}{}\r\n", if version == 3 { '>' } else { '*' }, words.len());
    for word in words {
        match word.strip_prefix('#') {
            Some(number) => text.push_str(&format!(":{number}\r\n")),
            None => text.push_str(&format!("${}\r\n{word}\r\n", word.len())),
        }
    }
    text
}

fn take(host: &mut Host, conn: usize) -> String {
    String::from_utf8_lossy(&host.take(conn)).into_owned()
}

/// A connection on each shard, and one more for publishing.
fn crowd(shards: u16) -> (Host, Vec<usize>, usize) {
    let mut host = Host::new(shards);
    let all = (0..usize::from(shards)).map(|shard| host.connect(shard, false)).collect();
    let publisher = host.connect(0, false);
    (host, all, publisher)
}

#[test]
fn a_message_reaches_every_subscriber_on_every_shard_once() {
    for shards in 1..=3 {
        let (mut host, all, publisher) = crowd(shards);
        assert_eq!(host.command(publisher, &["PUBLISH", "news", "early"]), ":0\r\n");
        for (at, &conn) in all.iter().enumerate() {
            let version = 2 + (at % 2) as u8;
            if version == 3 {
                host.command(conn, &["HELLO", "3"]);
            }
            let reply = host.command(conn, &["SUBSCRIBE", "news", "other"]);
            let expected = push(version, &["subscribe", "news", "#1"])
                + &push(version, &["subscribe", "other", "#2"]);
            assert_eq!(reply, expected);
            let reply = host.command(conn, &["PSUBSCRIBE", "n*s"]);
            assert_eq!(reply, push(version, &["psubscribe", "n*s", "#3"]));
        }
        let reply = host.command(publisher, &["PUBLISH", "news", "hello"]);
        assert_eq!(reply, format!(":{}\r\n", 2 * all.len()));
        for (at, &conn) in all.iter().enumerate() {
            let version = 2 + (at % 2) as u8;
            let expected = push(version, &["message", "news", "hello"])
                + &push(version, &["pmessage", "n*s", "news", "hello"]);
            assert_eq!(take(&mut host, conn), expected, "{shards} shards, shard {at}");
        }
        let sub = format!("*4\r\n$4\r\nnews\r\n:{}\r\n$4\r\nnone\r\n:0\r\n", all.len());
        assert_eq!(host.command(publisher, &["PUBSUB", "NUMSUB", "news", "none"]), sub);
        assert_eq!(host.command(publisher, &["PUBSUB", "NUMPAT"]), ":1\r\n");
        let channels = "*2\r\n$4\r\nnews\r\n$5\r\nother\r\n";
        assert_eq!(host.command(publisher, &["PUBSUB", "CHANNELS"]), channels);
        assert_eq!(host.command(publisher, &["PUBSUB", "CHANNELS", "o*"]), "*1\r\n$5\r\nother\r\n");
        for conn in all {
            host.hang_up(conn);
        }
        assert_eq!(host.command(publisher, &["PUBLISH", "news", "late"]), ":0\r\n");
        assert_eq!(host.command(publisher, &["PUBSUB", "CHANNELS"]), "*0\r\n");
    }
}

#[test]
fn shard_channels_are_apart_from_channels() {
    for shards in 1..=3 {
        let (mut host, all, publisher) = crowd(shards);
        let conn = all[all.len() - 1];
        assert_eq!(host.command(conn, &["SSUBSCRIBE", "a"]), push(2, &["ssubscribe", "a", "#1"]));
        assert_eq!(host.command(conn, &["SUBSCRIBE", "a"]), push(2, &["subscribe", "a", "#1"]));
        assert_eq!(host.command(publisher, &["SPUBLISH", "a", "s"]), ":1\r\n");
        assert_eq!(host.command(publisher, &["PUBLISH", "a", "p"]), ":1\r\n");
        let expected = push(2, &["smessage", "a", "s"]) + &push(2, &["message", "a", "p"]);
        assert_eq!(take(&mut host, conn), expected);
        let reply = host.command(publisher, &["PUBSUB", "SHARDCHANNELS"]);
        assert_eq!(reply, "*1\r\n$1\r\na\r\n");
        let reply = host.command(publisher, &["PUBSUB", "SHARDNUMSUB", "a"]);
        assert_eq!(reply, "*2\r\n$1\r\na\r\n:1\r\n");
        assert_eq!(host.command(conn, &["SUNSUBSCRIBE"]), push(2, &["sunsubscribe", "a", "#0"]));
        assert_eq!(host.command(publisher, &["SPUBLISH", "a", "s"]), ":0\r\n");
    }
}

#[test]
fn a_resp2_subscriber_may_only_subscribe_and_little_else() {
    let (mut host, all, publisher) = crowd(2);
    let conn = all[0];
    host.command(conn, &["SUBSCRIBE", "a"]);
    for words in [&["GET", "k"][..], &["GET", "far-away-key-7"], &["MGET", "a", "b", "c"]] {
        let refused = host.command(conn, words);
        let name = words[0].to_lowercase();
        assert!(
            refused.starts_with(&format!("-ERR Can't execute '{name}': only (P|S)")),
            "{refused}"
        );
    }
    assert_eq!(host.command(conn, &["PING"]), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    assert_eq!(host.command(conn, &["PING", "hi"]), "*2\r\n$4\r\npong\r\n$2\r\nhi\r\n");
    assert_eq!(host.command(conn, &["RESET"]), "+RESET\r\n");
    assert_eq!(host.command(conn, &["PING"]), "+PONG\r\n");
    assert_eq!(host.command(publisher, &["PUBLISH", "a", "x"]), ":0\r\n");
    assert_eq!(host.command(conn, &["UNSUBSCRIBE"]), "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
}

#[test]
fn messages_of_one_publisher_come_in_order_and_never_inside_a_reply() {
    for (shards, seed) in [(1, 1), (2, 2), (3, 3), (2, 4), (3, 5), (3, 6)] {
        let (mut host, all, publisher) = crowd(shards);
        host.seed(seed);
        let reader = all[all.len() - 1];
        host.command(reader, &["HELLO", "3"]);
        host.command(reader, &["SUBSCRIBE", "c"]);
        let (mut published, mut read) = (Vec::new(), Vec::new());
        for number in 0..50 {
            let text = number.to_string();
            published.extend(encode(&[b"PUBLISH", b"c", text.as_bytes()]));
            let key = format!("key{number}");
            read.extend(encode(&[b"SET", key.as_bytes(), text.as_bytes()]));
            read.extend(encode(&[b"MGET", key.as_bytes(), b"other"]));
        }
        host.feed(publisher, &published);
        host.feed(reader, &read);
        host.settle();
        assert_eq!(take(&mut host, publisher), ":1\r\n".repeat(50));
        // What is left without the messages must be the replies, whole and in order.
        let mut rest = take(&mut host, reader);
        let mut from = 0;
        for number in 0..50 {
            let message = push(3, &["message", "c", &number.to_string()]);
            let at = rest[from..].find(&message).expect("every message, in order") + from;
            rest.replace_range(at..at + message.len(), "");
            from = at;
        }
        let reply = |number: usize| {
            let text = number.to_string();
            format!("+OK\r\n*2\r\n${}\r\n{text}\r\n_\r\n", text.len())
        };
        assert_eq!(rest, (0..50).map(reply).collect::<String>(), "{shards} shards, seed {seed}");
    }
}

#[test]
fn what_was_published_before_a_command_is_read_before_its_reply() {
    let mut host = Host::new(1);
    let (publisher, reader) = (host.connect(0, false), host.connect(0, false));
    host.command(reader, &["SUBSCRIBE", "c"]);
    let reply = host.command(publisher, &["PUBLISH", "c", "1"]);
    assert_eq!(reply, ":1\r\n");
    let reply = host.command(reader, &["UNSUBSCRIBE"]);
    let expected = push(2, &["message", "c", "1"]) + &push(2, &["unsubscribe", "c", "#0"]);
    assert_eq!(reply, expected);
}

#[test]
fn a_large_message_is_one_allocation_for_all() {
    for shards in 1..=3 {
        let (mut host, all, publisher) = crowd(shards);
        for &conn in &all {
            host.command(conn, &["SUBSCRIBE", "c"]);
        }
        let large = "x".repeat(view::INLINE_MAX_BYTES);
        let reply = host.command(publisher, &["PUBLISH", "c", &large]);
        assert_eq!(reply, format!(":{}\r\n", all.len()));
        for &conn in &all {
            assert_eq!(take(&mut host, conn), push(2, &["message", "c", &large]));
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_at_its_limit() {
    let (mut host, all, publisher) = crowd(2);
    let limit = "pubsub 100 0 0";
    host.command(publisher, &["CONFIG", "SET", "client-output-buffer-limit", limit]);
    host.command(all[1], &["SUBSCRIBE", "c"]);
    // 32 bytes of frame around the text.
    let text = "x".repeat(99 - 32 - 3);
    assert_eq!(host.command(publisher, &["PUBLISH", "c", &text]), ":1\r\n");
    let message = take(&mut host, all[1]);
    assert!(!host.is_closed(all[1]) && message.len() < 100, "{}", message.len());
    let text = "x".repeat(100);
    assert_eq!(host.command(publisher, &["PUBLISH", "c", &text]), ":1\r\n");
    assert!(host.is_closed(all[1]));
    assert_eq!(host.command(publisher, &["PUBLISH", "c", "x"]), ":0\r\n");
}

#[test]
fn clients_are_listed_with_their_subscriptions() {
    let (mut host, all, publisher) = crowd(2);
    host.command(all[1], &["SUBSCRIBE", "a", "b"]);
    host.command(all[1], &["PSUBSCRIBE", "c*"]);
    let list = host.command(publisher, &["CLIENT", "LIST", "TYPE", "pubsub"]);
    assert!(list.contains("flags=P db=0 sub=2 psub=1 ssub=0"), "{list}");
    assert_eq!(list.matches("id=").count(), 1);
    let list = host.command(publisher, &["CLIENT", "LIST", "TYPE", "normal"]);
    assert_eq!(list.matches("id=").count(), 2);
    let killed = host.command(publisher, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(killed, ":1\r\n");
    assert!(host.is_closed(all[1]));
}
