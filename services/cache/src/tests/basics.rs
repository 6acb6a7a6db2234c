//! One shard, one connection: bytes in, bytes out.

use super::support::{Host, encode};

fn script() -> Vec<u8> {
    let mut bytes = Vec::new();
    for words in [
        &["SET", "a", "1"][..],
        &["GET", "a"],
        &["INCRBY", "a", "41"],
        &["MGET", "a", "b", "a"],
        &["HELLO", "3"],
        &["GET", "missing"],
        &["CONFIG", "GET", "maxmemory"],
        &["nosuch", "x", "y"],
        &["SELECT", "3"],
        &["DBSIZE"],
        &["SET", "big", &"x".repeat(300)],
        &["MSET", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6"],
        &["MGET", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"],
        &["CLIENT", "GETNAME"],
        &["QUIT"],
    ] {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        bytes.extend_from_slice(&encode(&words));
    }
    bytes
}

#[test]
fn a_pipeline_split_anywhere_gives_the_same_replies() {
    let mut bytes = b"PING\r\n\r\nset k \"a b\"\r\nget k\r\n".to_vec();
    bytes.extend_from_slice(&script());
    let whole = Host::new(1);
    let run = |mut host: Host, pieces: &[&[u8]]| {
        let conn = host.connect(0, false);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&host.send(conn, piece));
        }
        assert!(host.is_closed(conn));
        out
    };
    let expected = run(whole, &[&bytes]);
    assert!(expected.ends_with(b"+OK\r\n"));
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(run(Host::new(1), &[head, tail]), expected, "split at {at}");
    }
    let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(run(Host::new(1), &bytewise), expected);
    let mut owned = Host::new(1);
    owned.owned = true;
    assert_eq!(run(owned, &[&bytes]), expected);
}

#[test]
fn basics() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    for (words, reply) in [
        (&["PING"][..], "+PONG\r\n"),
        (&["SET", "k", "v"], "+OK\r\n"),
        (&["GET", "k"], "$1\r\nv\r\n"),
        (&["GET", "none"], "$-1\r\n"),
        (&["get"], "-ERR wrong number of arguments for 'get' command\r\n"),
        (&["DBSIZE"], ":1\r\n"),
        (&["CONFIG", "SET", "maxmemory", "1gb"], "+OK\r\n"),
        (&["CONFIG", "GET", "maxmemory"], "*2\r\n$9\r\nmaxmemory\r\n$10\r\n1073741824\r\n"),
        (&["SCAN", "0"], "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"),
        (&["KEYS", "*"], "*1\r\n$1\r\nk\r\n"),
        (&["FLUSHALL"], "+OK\r\n"),
        (&["RANDOMKEY"], "$-1\r\n"),
    ] {
        assert_eq!(host.command(conn, words), reply, "{words:?}");
    }
    let info = host.command(conn, &["INFO"]);
    for field in ["redis_version:7.0.15", "loading:0", "maxmemory_policy:noeviction"] {
        assert!(info.contains(field), "{field}");
    }
}
