//! Several shards: order of replies, atomicity of commands across shards, MOVED, and the rest of
//! what one connection sees of many.

use super::support::{Host, encode};

fn words(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    encode(&words)
}

/// Commands with keys on one shard, on several, and on all.
fn script() -> Vec<String> {
    let mut script = Vec::new();
    for index in 0..30 {
        script.push(format!("SET key{index} {index}"));
        script.push(format!("INCRBY key{index} 5"));
        script.push(format!("MGET key{index} key{} none", (index * 7) % 30));
    }
    for line in [
        "MSET a 1 b 2 c 3 d 4 e 5",
        "MGET a b c d e f",
        "PING",
        "nosuch command",
        "GET",
        "MSETNX f 1 a 9",
        "MSETNX f 1 g 2 h 3",
        "MGET f g h",
        "EXISTS a b c none a",
        "TOUCH a b none",
        "DEL a b none",
        "UNLINK c d none",
        "DBSIZE",
        "RENAME e moved",
        "GET moved",
        "EXISTS e",
        "RENAME none other",
        "RENAMENX moved f",
        "RENAMENX moved fresh",
        "COPY fresh copy",
        "COPY fresh copy",
        "COPY fresh copy REPLACE",
        "COPY none copy2",
        "COPY fresh elsewhere DB 3",
        "SELECT 3",
        "GET elsewhere",
        "DBSIZE",
        "SELECT 0",
        "SET s1 ohmytext EX 1000",
        "SET s2 mynewtext",
        "LCS s1 s2",
        "LCS s1 s2 LEN",
        "LCS s1 s2 IDX WITHMATCHLEN MINMATCHLEN 2",
        "LCS s1 s2 LEN IDX",
        "RENAME s1 s3",
        "TTL s3",
        "COPY s3 s4",
        "TTL s4",
        "MSET odd",
        "MSET a 1 odd",
        "CONFIG SET maxmemory-samples 7",
        "CONFIG GET maxmemory-samples",
        "CLUSTER KEYSLOT {tag}x",
        "FLUSHDB",
        "DBSIZE",
        "RANDOMKEY",
        "SELECT 3",
        "GET elsewhere",
        "FLUSHALL",
        "GET elsewhere",
        "QUIT",
    ] {
        script.push(line.to_owned());
    }
    script
}

/// The same script on one shard and on several, pipelined and not: equal replies.
#[test]
fn replies_do_not_depend_on_the_number_of_shards() {
    let script = script();
    let run = |shards: u16, pipelined: bool, seed: u64| {
        let mut host = Host::new(shards);
        host.seed(seed);
        let conn = host.connect(0, false);
        if pipelined {
            let all: Vec<u8> = script.iter().flat_map(|line| words(line)).collect();
            return host.send(conn, &all);
        }
        script.iter().flat_map(|line| host.send(conn, &words(line))).collect()
    };
    let expected = String::from_utf8_lossy(&run(1, false, 1)).into_owned();
    for shards in [1, 2, 3, 5] {
        for (pipelined, seed) in [(false, 1), (true, 2), (true, 3)] {
            let replies = run(shards, pipelined, seed);
            assert_eq!(
                String::from_utf8_lossy(&replies),
                expected,
                "{shards} shards, pipelined {pipelined}"
            );
        }
    }
}

/// Writers set many keys at once; readers must see all of them equal, whatever the interleaving.
#[test]
fn commands_across_shards_are_atomic() {
    let keys: Vec<String> = (0..6).map(|index| format!("k{index}")).collect();
    let mset = |value: usize| {
        let pairs: Vec<String> = keys.iter().map(|key| format!("{key} {value}")).collect();
        words(&format!("MSET {}", pairs.join(" ")))
    };
    let mget = words(&format!("MGET {}", keys.join(" ")));
    let (mut overlapped, mut waits) = (0, 0);
    for seed in 0..150 {
        let mut host = Host::new(4);
        host.seed(seed);
        let conns: Vec<usize> = (0..6).map(|index| host.connect(index % 4, false)).collect();
        host.send(conns[0], &mset(999));
        for round in 0..8 {
            for (index, &conn) in conns.iter().enumerate() {
                match (index + round) % 3 {
                    0 => host.feed(conn, &mset(index * 10 + round)),
                    1 => host.feed(conn, &mget),
                    _ => host.feed(conn, &words(&format!("GET {}", keys[round % 6]))),
                }
            }
        }
        host.settle();
        let mut values = std::collections::BTreeSet::new();
        for &conn in &conns {
            let replies = String::from_utf8(host.take(conn)).expect("text");
            for array in replies.split("*6\r\n").skip(1) {
                let lines: Vec<&str> = array.lines().skip(1).step_by(2).take(6).collect();
                assert_eq!(lines.len(), 6, "seed {seed}");
                assert!(lines.iter().all(|value| *value == lines[0]), "seed {seed}: {lines:?}");
                values.insert(lines[0].to_owned());
            }
        }
        overlapped += usize::from(values.len() > 1);
        waits += host.shards.iter().map(|shard| shard.stats().lock_waits).sum::<u64>();
        assert!(
            host.shards.iter().all(|shard| shard.locks.is_empty()),
            "seed {seed}: a lock stays"
        );
        assert!(host.shards.iter().all(|shard| shard.parked.is_empty()), "seed {seed}");
    }
    // The runs did interleave, so the test can fail.
    assert!(overlapped > 100 && waits > 0, "{overlapped} {waits}");
}

#[test]
fn what_was_lent_comes_back_when_the_connection_goes_away() {
    let mut met_on_the_way = 0;
    for seed in 0..120 {
        let mut host = Host::new(3);
        host.seed(seed);
        let (one, two) = (host.connect(0, false), host.connect(1, false));
        for key in ["a", "b", "c", "d"] {
            host.command(one, &["SADD", key, key, "all"]);
        }
        host.feed(one, &words("SUNIONSTORE e a b c d"));
        host.feed(two, &words("SINTERSTORE f d c b a"));
        for _ in 0..seed % 30 {
            host.step();
        }
        met_on_the_way += usize::from(host.shards.iter().any(|shard| shard.lent > 0));
        host.hang_up(one);
        host.settle();
        for shard in &host.shards {
            assert!(shard.lent == 0 && shard.locks.is_empty() && shard.parked.is_empty(), "{seed}");
        }
        let three = host.connect(2, false);
        for key in ["a", "b", "c", "d"] {
            assert_eq!(host.command(three, &["SCARD", key]), ":2\r\n", "seed {seed}: {key}");
        }
        assert_eq!(host.command(three, &["SCARD", "f"]), ":1\r\n", "seed {seed}");
        // It began or it did not; what has begun is brought to its end.
        let (stored, keys) =
            (host.command(three, &["SCARD", "e"]), host.command(three, &["DBSIZE"]));
        assert!(
            [(":0\r\n", ":5\r\n"), (":5\r\n", ":6\r\n")].contains(&(&stored, &keys)),
            "seed {seed}: {stored} {keys}"
        );
    }
    // Some connections did go while keys were away, so the test can fail.
    assert!(met_on_the_way > 10, "{met_on_the_way}");
}

#[test]
fn a_connection_that_goes_away_leaves_no_lock() {
    for seed in 0..60 {
        let mut host = Host::new(3);
        host.seed(seed);
        let (one, two) = (host.connect(0, false), host.connect(1, false));
        host.feed(one, &words("MSET a 1 b 2 c 3 d 4"));
        host.feed(two, &words("RENAME a e"));
        for _ in 0..seed % 12 {
            host.step();
        }
        host.hang_up(one);
        host.settle();
        assert!(host.shards.iter().all(|shard| shard.locks.is_empty()), "seed {seed}");
        let three = host.connect(2, false);
        assert_eq!(host.command(three, &["MSET", "a", "7", "b", "7", "c", "7"]), "+OK\r\n");
    }
}

#[test]
fn only_connections_that_asked_for_the_topology_are_sent_away() {
    let mut host = Host::new(2);
    // Slot 12182 is on the second shard, slot 3168 on the first.
    let (plain, node) = (host.connect(0, false), host.connect(0, true));
    for conn in [plain, node] {
        assert_eq!(host.command(conn, &["SET", "foo", "1"]), "+OK\r\n");
        let slots = host.command(conn, &["CLUSTER", "SLOTS"]);
        assert!(slots.starts_with("*2\r\n*3\r\n:0\r\n:8191\r\n*4\r\n$9\r\n127.0.0.1\r\n:6380\r\n"));
    }
    assert_eq!(host.command(plain, &["GET", "foo"]), "$1\r\n1\r\n");
    assert_eq!(host.command(node, &["GET", "foo"]), "-MOVED 12182 127.0.0.1:6381\r\n");
    assert_eq!(host.shards[0].stats().moved, 1);
    // All of its keys elsewhere: away. Keys on both: served.
    assert_eq!(host.command(node, &["MGET", "foo", "{foo}2"]), "-MOVED 12182 127.0.0.1:6381\r\n");
    assert!(host.command(node, &["MGET", "foo", "{bar}"]).starts_with("*2\r\n$1\r\n1\r\n"));
    assert!(host.command(node, &["INFO", "cluster"]).contains("cluster_enabled:1"));
    assert!(host.command(plain, &["INFO", "cluster"]).contains("cluster_enabled:0"));
}

#[test]
fn a_scan_over_shards_gives_every_key_once() {
    let mut host = Host::new(3);
    let conn = host.connect(1, false);
    let mut expected = Vec::new();
    for index in 0..500 {
        let key = format!("key:{index}");
        host.command(conn, &["SET", &key, "v"]);
        expected.push(key);
    }
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let reply = host.command(conn, &["SCAN", &cursor, "COUNT", "25"]);
        let mut lines = reply.lines().skip(2);
        cursor = lines.next().expect("a cursor").to_owned();
        seen.extend(lines.filter(|line| line.starts_with("key:")).map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    seen.sort_unstable();
    seen.dedup();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert!(host.command(conn, &["DBSIZE"]).starts_with(":500"));
    assert!(host.command(conn, &["RANDOMKEY"]).contains("key:"));
}

#[test]
fn large_values_cross_shards_whole() {
    for owned in [false, true] {
        let mut host = Host::new(2);
        host.owned = owned;
        let conn = host.connect(0, false);
        let value = "v".repeat(100_000);
        for key in ["foo", "k", "bar"] {
            assert_eq!(host.command(conn, &["SET", key, &value]), "+OK\r\n");
            assert_eq!(host.command(conn, &["GET", key]), format!("$100000\r\n{value}\r\n"));
        }
        let both = host.command(conn, &["MGET", "foo", "bar", "k"]);
        assert_eq!(both.matches(&value).count(), 3);
    }
}

#[test]
fn clients_are_listed_and_killed_on_all_shards() {
    let mut host = Host::new(2);
    let (one, two, three) = (host.connect(0, false), host.connect(1, false), host.connect(1, true));
    host.command(two, &["CLIENT", "SETNAME", "second"]);
    let list = host.command(one, &["CLIENT", "LIST"]);
    assert_eq!(list.matches("addr=127.0.0.1:").count(), 6, "addr and laddr of three: {list}");
    assert!(list.contains("name=second") && list.contains("cmd=client|list"));
    assert_eq!(host.command(one, &["CLIENT", "KILL", "ID", "2"]), ":1\r\n");
    assert!(host.is_closed(two) && !host.is_closed(three));
    assert_eq!(host.command(one, &["CLIENT", "KILL", "127.0.0.1:50003"]), "+OK\r\n");
    assert!(host.is_closed(three));
    assert_eq!(host.command(one, &["CLIENT", "KILL", "127.0.0.1:50001"]), "+OK\r\n");
    assert!(host.is_closed(one));
}

/// A command that waits for something ends the batch before it: what was handed on to another
/// shard is answered first, and nothing is lost.
#[test]
fn waiting_commands_end_the_batch_before_them() {
    for key in ["a", "b", "c", "d", "e", "f"] {
        let mut host = Host::new(2);
        let conn = host.connect(0, false);
        let slot = logic::slot::key_slot(key.as_bytes());
        let script = [
            format!("SET {key} 1"),
            "DEBUG SLEEP 0.02".into(),
            format!("GET {key}"),
            format!("CLUSTER COUNTKEYSINSLOT {slot}"),
            format!("APPEND {key} 2"),
            format!("CLUSTER GETKEYSINSLOT {slot} 5"),
            format!("INCR {key}"),
            "DBSIZE".into(),
            format!("GET {key}"),
        ];
        let bytes: Vec<u8> = script.iter().flat_map(|line| words(line)).collect();
        let mut replies = host.send(conn, &bytes);
        host.advance_ms(20);
        host.settle();
        replies.extend(host.take(conn));
        let expected = format!(
            "+OK\r\n+OK\r\n$1\r\n1\r\n:1\r\n:2\r\n*1\r\n$1\r\n{key}\r\n:13\r\n:1\r\n$2\r\n13\r\n"
        );
        assert_eq!(String::from_utf8_lossy(&replies), expected);
    }
}

/// On its own port a shard answers for its own keys, as a node of a Redis cluster; on the shared
/// port the host answers for all.
#[test]
fn a_shards_own_port_shows_its_own_keys() {
    let mut host = Host::new(3);
    let shared = host.connect(1, false);
    for index in 0..300 {
        host.command(shared, &["SET", &format!("key{index}"), "1"]);
    }
    host.command(shared, &["SET", "foo", "1"]);
    let nodes: Vec<usize> = (0..3).map(|shard| host.connect(shard, true)).collect();
    let number = |reply: &str| reply.trim_matches([':', '\r', '\n']).parse::<usize>();
    let (mut keys, mut scanned, mut in_slot) = (0, 0, 0);
    let sizes: Vec<usize> =
        nodes.iter().map(|&node| number(&host.command(node, &["DBSIZE"])).unwrap()).collect();
    for &node in &nodes {
        let reply = host.command(node, &["KEYS", "*"]);
        keys += reply.matches('$').count();
        let mut cursor = "0".to_owned();
        loop {
            let reply = host.command(node, &["SCAN", &cursor, "COUNT", "7"]);
            scanned += reply.matches('$').count() - 1;
            cursor = reply.split("\r\n").nth(2).unwrap().to_owned();
            if cursor == "0" {
                break;
            }
        }
        let count = host.command(node, &["CLUSTER", "COUNTKEYSINSLOT", "12182"]);
        in_slot += number(&count).unwrap();
        assert!(host.command(node, &["RANDOMKEY"]).starts_with('$'));
    }
    assert!(sizes.iter().all(|&size| (1..301).contains(&size)), "{sizes:?}");
    assert_eq!((sizes.iter().sum::<usize>(), keys, scanned, in_slot), (301, 301, 301, 1));
    assert_eq!(host.command(shared, &["DBSIZE"]), ":301\r\n");
    assert_eq!(host.command(nodes[1], &["FLUSHALL"]), "+OK\r\n");
    assert_eq!(host.command(nodes[1], &["DBSIZE"]), ":0\r\n");
    assert_eq!(host.command(nodes[1], &["RANDOMKEY"]), "$-1\r\n");
    assert_eq!(host.command(shared, &["DBSIZE"]), format!(":{}\r\n", 301 - sizes[1]));
    assert_eq!(host.command(nodes[0], &["FLUSHDB"]), "+OK\r\n");
    assert_eq!(host.command(shared, &["DBSIZE"]), format!(":{}\r\n", sizes[2]));
    assert_eq!(host.command(shared, &["FLUSHALL"]), "+OK\r\n");
    assert_eq!(host.command(nodes[2], &["DBSIZE"]), ":0\r\n");
}

/// Somebody speaks HTTP: the connection is closed and nothing of the batch is answered.
#[test]
fn http_is_met_with_silence() {
    for shards in [1, 2] {
        let mut host = Host::new(shards);
        let conn = host.connect(0, false);
        let reply = host.send(conn, b"SET a 1\r\nSET b 1\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(reply, b"", "{shards} shards");
        assert!(host.is_closed(conn));
    }
}
