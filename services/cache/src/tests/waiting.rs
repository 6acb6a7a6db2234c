//! Commands that block, and transactions, on one shard and on several, under many orders of messages.

use super::support::{Host, encode};

/// A host with so many shards and as many connections, each on a shard of its own as far as these go.
fn host(shards: u16, connections: usize, seed: u64) -> Host {
    let mut host = Host::new(shards);
    host.seed(seed);
    for at in 0..connections {
        host.connect(at % usize::from(shards), false);
    }
    host
}

fn words(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    encode(&words)
}

impl Host {
    fn say(&mut self, conn: usize, line: &str) -> String {
        String::from_utf8_lossy(&self.send(conn, &words(line))).into_owned()
    }

    fn heard(&mut self, conn: usize) -> String {
        String::from_utf8_lossy(&self.take(conn)).into_owned()
    }
}

/// Runs a test with one, two and three shards, in several orders of messages.
fn everywhere(test: impl Fn(&mut Host)) {
    for shards in 1..=3 {
        for seed in 1..=20 {
            test(&mut host(shards, 6, seed));
        }
    }
}

#[test]
fn a_pop_waits_for_a_push() {
    everywhere(|host| {
        for key in ["a", "b", "c", "d"] {
            assert_eq!(host.say(0, &format!("BLPOP {key} 0")), "");
            assert_eq!(host.say(1, &format!("BRPOP {key} 0")), "");
            assert_eq!(host.say(2, &format!("RPUSH {key} x y z")), ":3\r\n");
            assert_eq!(host.heard(0), format!("*2\r\n$1\r\n{key}\r\n$1\r\nx\r\n"));
            assert_eq!(host.heard(1), format!("*2\r\n$1\r\n{key}\r\n$1\r\nz\r\n"));
            assert_eq!(host.say(2, &format!("LLEN {key}")), ":1\r\n");
        }
        assert_eq!(host.say(2, "INFO clients").matches("blocked_clients:0").count(), 1);
    });
}

#[test]
fn who_waits_longest_is_served_first() {
    everywhere(|host| {
        for conn in 0..4 {
            assert_eq!(host.say(conn, "BLPOP list 0"), "");
        }
        for (conn, value) in (0..4).zip(["one", "two", "six", "ten"]) {
            host.say(4, &format!("LPUSH list {value}"));
            let expected = format!("*2\r\n$4\r\nlist\r\n$3\r\n{value}\r\n");
            assert_eq!(host.heard(conn), expected);
        }
        assert_eq!(host.say(4, "EXISTS list"), ":0\r\n");
    });
}

#[test]
fn time_is_up() {
    everywhere(|host| {
        assert_eq!(host.say(0, "BLPOP list 1.5"), "");
        assert_eq!(host.say(1, "BLMOVE list other LEFT LEFT 1"), "");
        assert_eq!(host.say(2, "BLPOP list a b c d 2"), "");
        host.wait_ms(999);
        assert_eq!((host.heard(0), host.heard(1)), (String::new(), String::new()));
        host.wait_ms(1);
        assert_eq!((host.heard(0), host.heard(1)), (String::new(), "*-1\r\n".into()));
        host.wait_ms(500);
        assert_eq!(host.heard(0), "*-1\r\n");
        host.wait_ms(500);
        assert_eq!(host.heard(2), "*-1\r\n");
        assert_eq!(host.say(3, "RPUSH list x"), ":1\r\n");
        assert_eq!(host.say(3, "LLEN list"), ":1\r\n");
        assert_eq!(host.say(0, "PING"), "+PONG\r\n");
    });
}

#[test]
fn nothing_is_popped_for_who_is_gone() {
    everywhere(|host| {
        assert_eq!(host.say(0, "BLPOP list 0"), "");
        assert_eq!(host.say(1, "BLPOP list a b c 0"), "");
        assert_eq!(host.say(2, "BLPOP list 0"), "");
        host.hang_up(0);
        host.hang_up(1);
        host.settle();
        assert_eq!(host.say(3, "RPUSH list x y"), ":2\r\n");
        assert_eq!(host.heard(2), "*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
        assert_eq!(host.say(3, "LRANGE list 0 -1"), "*1\r\n$1\r\ny\r\n");
        assert!(host.is_closed(0) && host.is_closed(1));
    });
}

#[test]
fn keys_on_several_shards() {
    everywhere(|host| {
        for (at, key) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
            assert_eq!(host.say(0, "BLPOP a b c d e f 0"), "", "{at}");
            assert_eq!(host.say(1, "BZPOPMIN z a b c 0"), "");
            assert_eq!(host.say(2, &format!("LPUSH {key} x")), ":1\r\n");
            assert_eq!(host.heard(0), format!("*2\r\n$1\r\n{key}\r\n$1\r\nx\r\n"));
            assert_eq!(host.heard(1), "", "a list is not for it");
            assert_eq!(host.say(2, "ZADD z 5 m"), ":1\r\n");
            assert_eq!(host.heard(1), "*3\r\n$1\r\nz\r\n$1\r\nm\r\n$1\r\n5\r\n");
        }
    });
}

#[test]
fn a_chain_of_moves() {
    everywhere(|host| {
        for (conn, (from, to)) in (0..4).zip([("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")]) {
            assert_eq!(host.say(conn, &format!("BLMOVE {from} {to} LEFT RIGHT 0")), "");
        }
        assert_eq!(host.say(4, "RPUSH a x"), ":1\r\n");
        for conn in 0..4 {
            assert_eq!(host.heard(conn), "$1\r\nx\r\n", "{conn}");
        }
        assert_eq!(host.say(4, "LRANGE e 0 -1"), "*1\r\n$1\r\nx\r\n");
        assert_eq!(host.say(4, "EXISTS a b c d"), ":0\r\n");
    });
}

#[test]
fn a_value_of_another_type_is_not_waited_for() {
    everywhere(|host| {
        assert_eq!(host.say(0, "BLPOP k 0"), "");
        assert_eq!(host.say(1, "BLMOVE k s LEFT LEFT 0"), "");
        assert_eq!(host.say(2, "SET s v"), "+OK\r\n");
        assert_eq!(host.say(2, "SADD k member"), ":1\r\n");
        assert_eq!((host.heard(0), host.heard(1)), (String::new(), String::new()));
        host.say(2, "DEL k");
        host.say(2, "RPUSH k x y");
        assert_eq!(host.heard(0), "*2\r\n$1\r\nk\r\n$1\r\nx\r\n");
        assert!(host.heard(1).starts_with("-WRONGTYPE"));
        assert_eq!(host.say(2, "LRANGE k 0 -1"), "*1\r\n$1\r\ny\r\n");
    });
}

#[test]
fn what_a_transaction_leaves_is_what_wakes() {
    everywhere(|host| {
        assert_eq!(host.say(0, "BLPOP list 0"), "");
        for line in ["MULTI", "RPUSH list x", "DEL list", "RPUSH list y z", "LPOP list"] {
            host.say(1, line);
        }
        assert_eq!(host.say(1, "EXEC"), "*4\r\n:1\r\n:1\r\n:2\r\n$1\r\ny\r\n");
        assert_eq!(host.heard(0), "*2\r\n$4\r\nlist\r\n$1\r\nz\r\n");
    });
}

#[test]
fn streams_are_read_from_what_was_last() {
    everywhere(|host| {
        host.say(3, "XADD x 1-0 f v");
        assert_eq!(host.say(0, "XREAD BLOCK 0 STREAMS x $"), "");
        assert_eq!(host.say(1, "XREAD BLOCK 0 STREAMS x y z $ $ $"), "");
        host.say(3, "XGROUP CREATE x g $");
        assert_eq!(host.say(2, "XREADGROUP GROUP g me BLOCK 0 STREAMS x >"), "");
        host.say(3, "XADD x 2-0 f w");
        let entry = "*2\r\n$1\r\nx\r\n*1\r\n*2\r\n$3\r\n2-0\r\n*2\r\n$1\r\nf\r\n$1\r\nw\r\n";
        for conn in 0..3 {
            assert_eq!(host.heard(conn), format!("*1\r\n{entry}"), "{conn}");
        }
        assert_eq!(host.say(2, "XREADGROUP GROUP g me BLOCK 0 STREAMS x >"), "");
        host.say(3, "XGROUP DESTROY x g");
        assert!(host.heard(2).starts_with("-NOGROUP"));
    });
}

#[test]
fn a_wait_is_ended_by_somebody_else() {
    everywhere(|host| {
        let id = |reply: String| reply.trim_start_matches(':').trim_end().to_owned();
        let (zero, one) = (host.say(0, "CLIENT ID"), host.say(1, "CLIENT ID"));
        let (zero, one) = (id(zero), id(one));
        assert_eq!(host.say(0, "BLPOP list 0"), "");
        assert_eq!(host.say(1, "BLPOP list a b c 0"), "");
        assert_eq!(host.say(2, &format!("CLIENT UNBLOCK {zero}")), ":1\r\n");
        assert_eq!(host.say(2, &format!("CLIENT UNBLOCK {one} ERROR")), ":1\r\n");
        assert_eq!(host.heard(0), "*-1\r\n");
        assert_eq!(host.heard(1), "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
        assert_eq!(host.say(2, &format!("CLIENT UNBLOCK {zero}")), ":0\r\n");
    });
}

#[test]
fn commands_behind_one_that_waits_wait_too() {
    everywhere(|host| {
        let lines = ["SET k 1", "BLPOP list 0", "INCR k", "BLPOP other list 0", "GET k"];
        let all: Vec<u8> = lines.iter().flat_map(|line| words(line)).collect();
        assert_eq!(host.send(0, &all), b"+OK\r\n");
        assert_eq!(host.say(1, "GET k"), "$1\r\n1\r\n");
        host.say(1, "RPUSH list a b");
        let expected =
            "*2\r\n$4\r\nlist\r\n$1\r\na\r\n:2\r\n*2\r\n$4\r\nlist\r\n$1\r\nb\r\n$1\r\n2\r\n";
        assert_eq!(host.heard(0), expected);
    });
}

#[test]
fn transactions_on_several_shards_are_one_step() {
    everywhere(|host| {
        // Two accounts on whatever shards; money moves, and is never seen missing.
        host.say(0, "MSET a 100 b 0");
        for conn in 0..4 {
            for _ in 0..5 {
                for line in ["MULTI", "DECRBY a 1", "INCRBY b 1", "EXEC"] {
                    host.feed(conn, &words(line));
                }
            }
        }
        for conn in 4..6 {
            for _ in 0..10 {
                host.feed(conn, &words("MGET a b"));
            }
        }
        host.settle();
        for conn in 4..6 {
            let seen = host.heard(conn);
            let numbers: Vec<i64> =
                seen.split("\r\n").filter_map(|line| line.parse().ok()).collect();
            assert_eq!(numbers.len(), 20, "{seen}");
            assert!(numbers.chunks(2).all(|pair| pair.iter().sum::<i64>() == 100), "{seen}");
        }
        assert_eq!(host.say(0, "MGET a b").matches("$2\r\n80\r\n$2\r\n20\r\n").count(), 1);
    });
}

#[test]
fn watched_keys_make_increments_exact() {
    everywhere(|host| {
        host.say(0, "MSET n 0 other 0");
        let mut done = 0;
        let mut tried = 0;
        while done < 12 {
            // All of them read, then all of them write: one, at least, succeeds.
            for conn in 0..4 {
                host.say(conn, "WATCH n other");
                let seen = host.say(conn, "GET n");
                let seen: u64 = seen.split("\r\n").nth(1).and_then(|n| n.parse().ok()).expect("n");
                let lines = ["MULTI".into(), format!("SET n {}", seen + 1), "EXEC".into()];
                host.feed(conn, &lines.iter().flat_map(|line| words(line)).collect::<Vec<u8>>());
            }
            host.settle();
            tried += 4;
            done += (0..4).filter(|&conn| host.heard(conn).ends_with("*1\r\n+OK\r\n")).count();
            assert!(tried <= 200, "somebody gets through each time");
        }
        let n = host.say(0, "GET n");
        assert_eq!(n, format!("${}\r\n{done}\r\n", done.to_string().len()));
    });
}

#[test]
fn a_closed_connection_watches_nothing() {
    everywhere(|host| {
        host.say(0, "WATCH a b c d e f");
        host.hang_up(0);
        host.settle();
        for shard in &host.shards {
            assert!(!shard.observed);
        }
        host.say(1, "SET a 1");
        for line in ["WATCH a b", "MULTI", "GET a"] {
            host.say(1, line);
        }
        host.say(2, "SET b 1");
        assert_eq!(host.say(1, "EXEC"), "*-1\r\n");
        assert!(host.shards.iter().all(|shard| !shard.observed));
    });
}
