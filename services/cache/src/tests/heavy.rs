//! Keys that are used much or hold much, and deletion in the background.

use super::support::{Host, encode};

/// Ticks all shards, 100 ms apart, until none has more to do; how often.
fn tick_all(host: &mut Host, budget: usize) -> usize {
    for ticks in 1..10_000 {
        host.advance_ms(100);
        let now = host.now;
        let more: usize =
            host.shards.iter_mut().map(|shard| usize::from(shard.tick(now, budget).more)).sum();
        if more == 0 {
            return ticks;
        }
    }
    panic!("ticks do not end");
}

fn fill(host: &mut Host, conn: usize, prefix: &str, count: usize) {
    let mut bytes = Vec::new();
    for n in 0..count {
        bytes.extend(encode(&[b"SET", format!("{prefix}{n}").as_bytes(), b"v"]));
    }
    let replies = host.send(conn, &bytes);
    assert_eq!(replies, b"+OK\r\n".repeat(count));
}

#[test]
fn hot_keys_are_found_on_whichever_shard_they_are() {
    for shards in [1, 3] {
        let mut host = Host::new(shards);
        let conn = host.connect(0, false);
        fill(&mut host, conn, "cold:", 5_000);
        let mut bytes = Vec::new();
        for n in 0..60_000 {
            let other = format!("cold:{}", host.random(5_000));
            let key = match n % 10 {
                0..3 => "hot:1",
                3 => "hot:2",
                _ => &other,
            };
            bytes.extend(encode(&[b"GET", key.as_bytes()]));
            if n % 1_000 == 0 {
                host.send(conn, &bytes);
                bytes.clear();
                host.advance_ms(100);
            }
        }
        let reply = host.command(conn, &["HOTKEYS", "COUNT", "2"]);
        let lines: Vec<&str> = reply.split("\r\n").collect();
        assert_eq!(lines[..6], ["*2", "*8", "$3", "key", "$5", "hot:1"], "{reply}");
        // 60,000 in six seconds, three tenths of them.
        let rate: f64 = lines[11][1..].parse().expect("a number");
        assert!((2_000.0..4_000.0).contains(&rate), "{reply}");
        assert!(reply.contains("hot:2"), "{reply}");
        let info = host.command(conn, &["INFO", "stats"]);
        assert!(!info.contains("hottest_key_commands_per_sec:0"), "{info}");
        assert_eq!(host.command(conn, &["HOTKEYS", "RESET"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["HOTKEYS"]), "*0\r\n");
    }
}

#[test]
fn what_hotkeys_and_bigkeys_do_not_take() {
    let mut host = Host::new(2);
    let conn = host.connect(0, false);
    for (words, reply) in [
        (&["HOTKEYS", "COUNT"][..], "-ERR syntax error\r\n"),
        (&["HOTKEYS", "COUNT", "0"], "-ERR COUNT must be between 1 and 64\r\n"),
        (&["HOTKEYS", "GET", "COUNT", "x"], "-ERR value is not an integer or out of range\r\n"),
        (&["HOTKEYS", "GET", "COUNT", "64"], "*0\r\n"),
        (
            &["HOTKEYS", "START", "METRICS", "1", "CPU"],
            "-ERR hot keys are sampled all the time, use HOTKEYS GET\r\n",
        ),
        (&["BIGKEYS", "COUNT", "65"], "-ERR COUNT must be between 1 and 64\r\n"),
        (&["BIGKEYS", "5"], "-ERR syntax error\r\n"),
        (&["BIGKEYS"], "*0\r\n"),
    ] {
        assert_eq!(host.command(conn, words), reply, "{words:?}");
    }
    assert!(host.command(conn, &["HOTKEYS", "HELP"]).starts_with("*7\r\n+HOTKEYS <subcommand>"));
}

#[test]
fn big_keys_are_noted_by_what_they_hold_and_forgotten_with_it() {
    for shards in [1, 2] {
        let mut host = Host::new(shards);
        let conn = host.connect(0, false);
        host.command(conn, &["SET", "string", &"x".repeat(100_000)]);
        host.command(conn, &["SET", "small", &"x".repeat(10_000)]);
        let mut bytes = Vec::new();
        for n in 0..20_000 {
            bytes.extend(encode(&[b"RPUSH", b"list", format!("element {n:020}").as_bytes()]));
        }
        host.send(conn, &bytes);
        let reply = host.command(conn, &["BIGKEYS"]);
        assert!(reply.starts_with("*2\r\n*10\r\n$3\r\nkey\r\n$4\r\nlist\r\n"), "{reply}");
        assert!(reply.contains("$4\r\ntype\r\n$4\r\nlist\r\n"), "{reply}");
        assert!(reply.contains("$6\r\nlength\r\n:20000\r\n"), "{reply}");
        assert!(reply.contains("$6\r\nlength\r\n:100000\r\n"), "{reply}");
        assert!(host.command(conn, &["BIGKEYS", "COUNT", "1"]).starts_with("*1\r\n"));
        host.command(conn, &["DEL", "list"]);
        host.command(conn, &["SET", "string", "short"]);
        assert_eq!(host.command(conn, &["BIGKEYS"]), "*0\r\n");
        // A key that takes another's value.
        host.command(conn, &["SET", "old", &"x".repeat(70_000)]);
        host.command(conn, &["RENAME", "old", "new"]);
        let reply = host.command(conn, &["BIGKEYS"]);
        assert!(reply.starts_with("*1\r\n") && reply.contains("$3\r\nnew\r\n"), "{reply}");
    }
}

#[test]
fn keys_of_a_prefix_or_pattern_go_in_bounded_steps() {
    for shards in [1, 3] {
        let mut host = Host::new(shards);
        let conn = host.connect(0, false);
        fill(&mut host, conn, "user:", 6_000);
        fill(&mut host, conn, "item:", 6_000);
        let started = host.command(conn, &["DELPREFIX", "user:"]);
        assert!(started.starts_with(':'), "{started}");
        // Nothing has gone yet, and a step looks at a part of its budget.
        assert_eq!(host.command(conn, &["DBSIZE"]), ":12000\r\n");
        let now = host.now;
        assert!(host.shards[0].tick(now, 400).more);
        let info = host.command(conn, &["INFO", "stats"]);
        assert!(info.contains("delete_jobs_active:1\r\n"), "{info}");
        assert!(info.contains(&format!("delete_job_0:id={},", started[1..].trim_end())), "{info}");
        let scanned = host.shards[0].report(now).erase_scanned;
        assert!((1..=100 + 60).contains(&scanned), "{scanned}");
        assert!(tick_all(&mut host, 400) > 10);
        assert_eq!(host.command(conn, &["DBSIZE"]), ":6000\r\n");
        assert_eq!(host.command(conn, &["EXISTS", "user:1"]), ":0\r\n");
        host.command(conn, &["SCANDEL", "item:*[02468]"]);
        tick_all(&mut host, 400);
        assert_eq!(host.command(conn, &["DBSIZE"]), ":3000\r\n");
        assert_eq!(host.command(conn, &["EXISTS", "item:13", "item:14"]), ":1\r\n");
        let info = host.command(conn, &["INFO", "stats"]);
        for line in ["delete_jobs_active:0", "delete_jobs_done:2", "delete_jobs_deleted_keys:9000"]
        {
            assert!(info.contains(&format!("{line}\r\n")), "{info}");
        }
    }
}

#[test]
fn a_deletion_stays_in_its_database_and_on_its_node() {
    let mut host = Host::new(2);
    let (conn, node) = (host.connect(0, false), host.connect(0, true));
    fill(&mut host, conn, "k:", 1_000);
    host.command(conn, &["SELECT", "1"]);
    host.command(conn, &["SET", "k:1", "v"]);
    host.command(node, &["DELPREFIX", "k:"]);
    tick_all(&mut host, 4_000);
    assert_eq!(host.command(conn, &["DBSIZE"]), ":1\r\n");
    host.command(conn, &["SELECT", "0"]);
    let (there, here) = (host.shards[1].store().len(0), host.shards[0].store().len(0));
    assert!(there > 300 && here == 0, "{there} {here}");
}

#[test]
fn deletions_are_not_taken_without_end() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    for _ in 0..64 {
        assert!(host.command(conn, &["SCANDEL", "*"]).starts_with(':'));
    }
    let refused = host.command(conn, &["SCANDEL", "*"]);
    assert_eq!(refused, "-ERR too many deletions are under way, try again later\r\n");
    assert!(host.command(conn, &["DELPREFIX", ""]).starts_with("-ERR the prefix is empty"));
    tick_all(&mut host, 400);
    assert!(host.command(conn, &["SCANDEL", "*"]).starts_with(':'));
}
