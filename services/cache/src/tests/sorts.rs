//! SORT whose BY and GET stand for keys of other shards, by itself, in transactions and in scripts.

use super::support::{Host, encode};

fn words(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    encode(&words)
}

fn assert_tidy(host: &Host) {
    for shard in &host.shards {
        assert!(shard.locks.is_empty(), "locks are left");
        assert_eq!(shard.lent, 0, "keys are left with a borrower");
        assert!(shard.parked.is_empty(), "requests are left");
        assert!(!shard.elsewhere.wants(), "something is wanted");
    }
}

/// A list of numbers, weights in the other order, names, and hashes of both.
fn fill(count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for element in 0..count {
        let weight = (element * 7) % count;
        lines.push(format!("RPUSH list {element}"));
        lines.push(format!("SADD set {element}"));
        lines.push(format!("ZADD zset 1 {element}"));
        lines.push(format!("SET weight_{element} {weight}"));
        if element % 3 > 0 {
            lines.push(format!("SET name_{element} n{element}"));
        }
        lines.push(format!("HSET hash_{element} weight -{weight} name h{element}"));
    }
    lines
}

const SORTS: &[&str] = &[
    "SORT list BY weight_*",
    "SORT list BY weight_* DESC GET # GET name_* GET hash_*->name GET none",
    "SORT list BY hash_*->weight GET hash_*->name LIMIT 2 3",
    "SORT list BY nosort GET name_* LIMIT 1 4",
    "SORT_RO list BY weight_* GET name_*",
    "SORT set BY hash_*->name ALPHA GET hash_*->weight",
    "SORT zset BY weight_* GET weight_* STORE stored",
    "LRANGE stored 0 -1",
    "SORT list BY hash_* GET hash_*",
    "SORT list BY weight_*->x GET name_*->y",
    "SORT list BY name_*",
    "SORT list BY name_* ALPHA DESC LIMIT 0 5",
    "SORT none BY weight_* GET name_* STORE stored",
    "EXISTS stored",
    "SORT list GET name_* STORE list",
    "LRANGE list 0 -1",
    "SET weight_1 x",
    "SORT set BY weight_*",
    "SORT name_1 BY weight_*",
    "SORT list BY",
    "MULTI",
    "RPUSH numbers 3 1 2",
    "SET weight_3 0",
    "SORT numbers BY weight_* GET name_* GET weight_*",
    "DEL name_2",
    "SET name_1 changed",
    "SORT numbers BY weight_* GET name_* STORE stored",
    "LRANGE stored 0 -1",
    "INCR counter",
    "SORT numbers ALPHA GET name_*",
    "EXEC",
    "SORT numbers BY weight_*",
    "GET counter",
];

/// What one shard answers, several do.
#[test]
fn replies_do_not_depend_on_the_number_of_shards() {
    let run = |shards: u16, at: usize, seed: u64| {
        let mut host = Host::new(shards);
        host.seed(seed);
        let conn = host.connect(at, false);
        for line in fill(12) {
            host.send(conn, &words(&line));
        }
        let replies = SORTS.iter().map(|line| {
            let reply = String::from_utf8_lossy(&host.send(conn, &words(line))).into_owned();
            format!("{line}: {reply}")
        });
        let replies: Vec<String> = replies.collect();
        assert_tidy(&host);
        replies
    };
    let expected = run(1, 0, 1);
    assert!(expected[0].contains("$1\r\n7\r\n"), "{}", expected[0]);
    for shards in 2..=4 {
        for at in 0..usize::from(shards) {
            assert_eq!(run(shards, at, at as u64), expected, "{shards} shards, connected to {at}");
        }
    }
}

/// With more elements than single keys are locked for.
#[test]
fn long_lists_are_sorted_whole() {
    let mut host = Host::new(3);
    let conn = host.connect(0, false);
    let count = 5_000;
    for element in 0..count {
        host.feed(conn, &words(&format!("RPUSH list {element}")));
        host.feed(conn, &words(&format!("SET weight_{element} -{element}")));
        host.feed(conn, &words(&format!("SET name_{element} n{element}")));
    }
    host.settle();
    host.take(conn);
    let reply = host.command(conn, &["SORT", "list", "BY", "weight_*", "GET", "name_*"]);
    let names: Vec<&str> = reply.lines().filter(|line| line.starts_with('n')).collect();
    let expected: Vec<String> = (0..count).rev().map(|element| format!("n{element}")).collect();
    assert_eq!(names, expected);
    assert_tidy(&host);
}

/// Writers change the list, and all names at once; a sort must see a moment, whatever the interleaving.
#[test]
fn a_sort_sees_one_moment() {
    let (mut seen, mut lengths) = (std::collections::BTreeSet::new(), 0_u32);
    for seed in 0..120 {
        let mut host = Host::new(3);
        host.seed(seed);
        let conns: Vec<usize> = (0..6).map(|index| host.connect(index % 3, false)).collect();
        let mset = |value: u64| {
            let pairs: Vec<String> = (0..8).map(|key| format!("name_{key} {value}")).collect();
            words(&format!("MSET {}", pairs.join(" ")))
        };
        host.send(conns[0], &words("RPUSH list 0 1 2"));
        host.send(conns[0], &mset(999));
        for round in 0..6 {
            for (index, &conn) in conns.iter().enumerate() {
                match (index + round) % 4 {
                    0 => host.feed(conn, &mset((index * 10 + round) as u64)),
                    1 => host.feed(conn, &words("SORT list BY name_* GET name_*")),
                    2 => host.feed(conn, &words("LPUSH list 3 4")),
                    _ => host.feed(conn, &words("LTRIM list 0 2")),
                }
            }
        }
        host.settle();
        for &conn in &conns {
            let replies = String::from_utf8(host.take(conn)).expect("text");
            for array in replies.split('*').skip(1) {
                let mut lines = array.lines();
                let len: usize = lines.next().expect("a length").parse().expect("a number");
                let names: Vec<&str> = lines.skip(1).step_by(2).take(len).collect();
                assert!(names.iter().all(|name| *name == names[0]), "seed {seed}: {names:?}");
                seen.insert(names[0].to_owned());
                lengths |= 1 << len;
            }
        }
        assert_tidy(&host);
    }
    // The runs did interleave, so the test can fail.
    assert!(seen.len() > 5 && lengths.count_ones() > 1, "{seen:?} {lengths:b}");
}

/// What ran before the sort is done once, and a watched key that it changed is as it was watched.
#[test]
fn a_transaction_that_runs_again_is_done_once() {
    for at in 0..3 {
        let mut host = Host::new(3);
        let conn = host.connect(at, false);
        for line in fill(9) {
            host.send(conn, &words(&line));
        }
        let lines: Vec<String> = (0..6).map(|key| format!("INCR n{key}")).collect();
        host.send(conn, &words("WATCH n0 n1 n2 n3 n4 n5 list"));
        host.send(conn, &words("MULTI"));
        for line in &lines {
            host.send(conn, &words(line));
        }
        host.send(conn, &words("LPUSH list 0"));
        host.send(conn, &words("SORT list BY weight_* LIMIT 0 1 GET name_* GET hash_*->name"));
        let reply = host.command(conn, &["EXEC"]);
        let expected = format!("*8\r\n{}:10\r\n*2\r\n$-1\r\n$2\r\nh0\r\n", ":1\r\n".repeat(6));
        assert_eq!(reply, expected);
        assert_tidy(&host);
        // And one that is too late.
        let other = host.connect(0, false);
        host.send(conn, &words("WATCH n0 list"));
        host.send(conn, &words("MULTI"));
        host.send(conn, &words("INCR n1"));
        host.send(conn, &words("SORT list BY weight_* GET name_*"));
        host.send(other, &words("LPUSH list 1"));
        assert_eq!(host.command(conn, &["EXEC"]), "*-1\r\n");
        assert_eq!(host.command(conn, &["GET", "n1"]), "$1\r\n1\r\n");
        assert_tidy(&host);
    }
}

#[test]
fn scripts_sort_by_keys_of_other_shards() {
    let script = "redis.call('incr', 'runs') \
                  local t = redis.call('sort', 'list', 'by', 'weight_*', 'get', 'hash_*->name') \
                  redis.call('set', 'weight_3', -1) \
                  local u = redis.call('sort', 'list', 'by', 'weight_*', 'limit', 0, 2) \
                  return {table.concat(t, ','), table.concat(u, ','), redis.call('get', 'runs')}";
    let run = |shards: u16, at: usize| {
        let mut host = Host::new(shards);
        let conn = host.connect(at, false);
        for line in fill(9) {
            host.send(conn, &words(&line));
        }
        let reply = host.command(conn, &["EVAL", script, "0"]);
        assert_tidy(&host);
        reply
    };
    let expected = run(1, 0);
    assert!(expected.ends_with("$3\r\n3,0\r\n$1\r\n1\r\n"), "{expected}");
    for at in 0..3 {
        assert_eq!(run(3, at), expected);
    }
}

#[test]
fn a_nodes_port_refuses_patterns_whoever_owns_the_key() {
    let mut host = Host::new(2);
    let conn = host.connect(0, true);
    for key in ["a", "b", "c", "d"] {
        let reply = host.command(conn, &["SORT", key, "BY", "w*"]);
        assert_eq!(reply, "-ERR BY option of SORT denied in Cluster mode.\r\n");
    }
}

/// Who may not read all keys cannot read them by a pattern, as in redis-server 7.0.15.
#[test]
fn patterns_are_for_users_who_may_read_all_keys() {
    let denied = |option: &str| {
        format!("-ERR {option} option of SORT denied due to insufficient ACL permissions.\r\n")
    };
    for shards in 1..=3 {
        let mut host = Host::new(shards);
        let conn = host.connect(0, false);
        for rule in ["u on nopass +@all ~app:*", "v on nopass +@all ~app:* %R~*"] {
            host.send(conn, &words(&format!("ACL SETUSER {rule}")));
        }
        host.send(conn, &words("RPUSH app:list 2 1"));
        host.send(conn, &words("SET x1 secret"));
        let mut ask = |user: &str, command: &str| {
            host.send(conn, &words(&format!("AUTH {user} x")));
            String::from_utf8_lossy(&host.send(conn, &words(command))).into_owned()
        };
        for (command, option) in [
            ("SORT app:list BY x*", "BY"),
            ("SORT_RO app:list BY nosort GET x*", "GET"),
            ("SORT app:list GET #", "GET"),
        ] {
            assert_eq!(ask("u", command), denied(option), "{command}, {shards} shards");
        }
        assert_eq!(ask("u", "SORT app:list BY nosort"), "*2\r\n$1\r\n2\r\n$1\r\n1\r\n");
        assert_eq!(ask("v", "SORT app:list GET x*"), "*2\r\n$6\r\nsecret\r\n$-1\r\n");
        assert_eq!(ask("u", "MULTI"), "+OK\r\n");
        let queued = host.send(conn, &words("SORT app:list GET x*"));
        assert_eq!(queued, b"+QUEUED\r\n");
        let reply = host.command(conn, &["EXEC"]);
        assert_eq!(reply, format!("*1\r\n{}", denied("GET")));
    }
}

#[test]
fn connections_that_go_away_leave_nothing_behind() {
    for steps in 0..60 {
        let mut host = Host::new(3);
        host.seed(steps);
        let conn = host.connect(1, false);
        for line in fill(6) {
            host.send(conn, &words(&line));
        }
        host.feed(conn, &words("SORT list BY weight_* LIMIT 0 4 GET name_* STORE stored"));
        for _ in 0..steps {
            host.step();
        }
        host.hang_up(conn);
        host.settle();
        let conn = host.connect(0, false);
        let len = host.command(conn, &["LLEN", "stored"]);
        assert!(matches!(len.as_str(), ":0\r\n" | ":4\r\n"), "{len} after {steps} steps");
        assert_tidy(&host);
    }
}
