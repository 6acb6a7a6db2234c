//! A replica of redis-server 7.0.15, in real processes: it holds what its master holds.
//!
//! Invariants asserted: after a whole data set, after a stream under load, after links that were cut in the middle, and after
//! restarts of either side, every key of both has the same value and expiry; clients of a replica do not write; what was a
//! replica becomes a master. `REPLICATION_ROUNDS=n` does the runs under load more often.
//! Next: `replication/load.rs` for the commands and what is compared, `src/repl` for the link.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes, waits for them and reads the environment"
)]

mod common;
#[path = "replication/load.rs"]
mod load;
#[path = "replication/pair.rs"]
mod pair;

use std::fs;
use std::thread;
use std::time::Duration;

use common::Rng;
use common::resp::{Client, Reply};
use common::server::{Server, Turn, free_ports};
use load::{call, text};
use pair::{
    Files, both_contents, fill, follow, info, must_be_equal, rounds, under_load, wait_for_link,
    within,
};

const QUICK: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// A redis-server, unless there is none.
fn redis(name: &str, options: &[&str]) -> Option<Server> {
    match Server::redis(&[&QUICK[..], options].concat()) {
        Ok(server) => Some(server),
        Err(reason) => {
            testing::live::skip(name, &reason);
            None
        }
    }
}

fn a_data_set_comes(name: &str, shards: u16, options: &[&str]) {
    let _turn = Turn::shared();
    let Some(master) = redis(name, options) else { return };
    fill(&mut master.client(), 1, 3_000);
    let files = Files::new(name);
    let replica = files.start(shards, &[]);
    let mut client = replica.client();
    // What was here before goes.
    call(&mut client, &["SET", "own", "1"]);
    call(
        &mut client,
        &[
            "FUNCTION",
            "LOAD",
            "#!lua name=own\nredis.register_function('own', function() return 1 end)",
        ],
    );
    follow(&mut client, &master);
    must_be_equal(name, &master, &replica);
    let left: Vec<_> = fs::read_dir(&files.0).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "the dump is left: {left:?}");
}

#[test]
fn a_data_set_comes_to_one_shard() {
    a_data_set_comes("one", 1, &[]);
}

#[test]
fn a_data_set_comes_to_two_shards() {
    a_data_set_comes("two", 2, &[]);
}

#[test]
fn a_data_set_comes_with_its_length() {
    a_data_set_comes("disk", 2, &["--repl-diskless-sync", "no"]);
}

fn a_stream_is_followed(shards: u16) {
    let _turn = Turn::shared();
    let name = format!("stream-{shards}");
    for round in 0..rounds() {
        let Some(master) = redis(&name, &[]) else { return };
        let files = Files::new(&name);
        let replica = files.start(shards, &[]);
        let written = under_load(&master, 10 + round, || {
            thread::sleep(Duration::from_millis(300));
            // The data set is taken while it changes.
            follow(&mut replica.client(), &master);
            wait_for_link(&replica);
            thread::sleep(Duration::from_secs(3));
        });
        must_be_equal(&format!("{name}, round {round}"), &master, &replica);
        println!("{name}, round {round}: {written} commands");
        assert!(written > 100, "little was written");
    }
}

#[test]
fn a_stream_is_followed_by_one_shard() {
    a_stream_is_followed(1);
}

#[test]
fn a_stream_is_followed_by_two_shards() {
    a_stream_is_followed(2);
}

fn links_are_cut(shards: u16) {
    let _turn = Turn::shared();
    let name = format!("cut-{shards}");
    for round in 0..rounds() {
        let Some(master) = redis(&name, &["--repl-backlog-size", "16mb"]) else { return };
        let files = Files::new(&name);
        let replica = files.start(shards, &[]);
        follow(&mut replica.client(), &master);
        wait_for_link(&replica);
        let mut cuts = 0;
        under_load(&master, 50 + round, || {
            let (mut killer, mut rng) = (master.client(), Rng::new(round));
            for _ in 0..12 {
                thread::sleep(Duration::from_millis(20 + rng.below(300) as u64));
                wait_for_link(&replica);
                within("nobody follows", &replica, || {
                    info(&mut killer, "slave0").contains("state=online")
                });
                if call(&mut killer, &["CLIENT", "KILL", "TYPE", "replica"]) != Reply::Int(0) {
                    cuts += 1;
                }
            }
        });
        must_be_equal(&format!("{name}, round {round}"), &master, &replica);
        let stats = call(&mut master.client(), &["INFO", "stats"]);
        let stats = String::from_utf8_lossy(stats.bytes()).into_owned();
        println!("{name}, round {round}: {cuts} cuts");
        assert!(cuts >= 10, "{cuts} links were cut");
        assert!(stats.contains("sync_full:1\r\n"), "links did not go on: {stats}");
    }
}

#[test]
fn links_are_cut_with_one_shard() {
    links_are_cut(1);
}

#[test]
fn links_are_cut_with_two_shards() {
    links_are_cut(2);
}

fn error(client: &mut Client, words: &[&str]) -> String {
    match call(client, words) {
        Reply::Error(text) => String::from_utf8_lossy(&text).into_owned(),
        reply => panic!("{words:?}: {reply:?}"),
    }
}

const READ_ONLY: &str = "READONLY You can't write against a read only replica.";

/// What Redis' own replica says, ours says.
fn clients_do_not_write(shards: u16) {
    let _turn = Turn::shared();
    let name = format!("read-only-{shards}");
    let Some(master) = redis(&name, &[]) else { return };
    let files = Files::new(&name);
    let replica = files.start(shards, &[]);
    let mut client = replica.client();
    call(&mut master.client(), &["MSET", "a", "1", "b", "2", "c", "3"]);
    let mut waiting = replica.client();
    waiting.send_raw(b"BLPOP nothing 0\r\n").expect("sent");
    within("it does not wait", &replica, || {
        let clients = call(&mut client, &["INFO", "clients"]);
        String::from_utf8_lossy(clients.bytes()).contains("blocked_clients:1")
    });
    follow(&mut client, &master);
    let ended = waiting.reply().expect("an answer");
    assert!(text(&ended).starts_with("UNBLOCKED force unblock"), "{ended:?}");
    wait_for_link(&replica);
    must_be_equal(&name, &master, &replica);
    for words in
        [&["SET", "a", "2"][..], &["MSET", "a", "1", "b", "2"], &["FLUSHALL"], &["BLPOP", "l", "0"]]
    {
        assert_eq!(error(&mut client, words), READ_ONLY, "{words:?}");
    }
    call(&mut client, &["MULTI"]);
    assert_eq!(error(&mut client, &["INCR", "a"]), READ_ONLY);
    assert!(error(&mut client, &["EXEC"]).starts_with("EXECABORT"));
    let script = "return redis.call('SET', KEYS[1], 1)";
    let refused = error(&mut client, &["EVAL", script, "1", "a"]);
    assert!(refused.contains("READONLY You can't write"), "{refused}");
    let refused = error(&mut client, &["EVAL", &format!("#!lua\n{script}"), "1", "a"]);
    assert!(refused.contains("write flag on readonly replica"), "{refused}");
    assert!(error(&mut client, &["WAIT", "0", "1"]).contains("replica instances"));
    assert_eq!(text(&call(&mut client, &["MGET", "a", "b", "c"])), "[1 2 3]");
    let role = call(&mut client, &["ROLE"]);
    let port = i64::from(master.address().port());
    assert_eq!(text(&role.items()[0]), "slave");
    assert_eq!((&role.items()[2], text(&role.items()[3])), (&Reply::Int(port), "connected".into()));
    assert!(text(&call(&mut client, &["HELLO", "2"])).contains("role replica"));
    assert_eq!(info(&mut client, "role"), "slave");
    assert_eq!(info(&mut client, "master_replid"), info(&mut master.client(), "master_replid"));
    let again = call(&mut client, &["REPLICAOF", "127.0.0.1", &port.to_string()]);
    assert_eq!(text(&again), "OK Already connected to specified master");
    becomes_a_master(&master, &mut client);
}

/// It writes again, and the former master's commands do not come any more.
fn becomes_a_master(master: &Server, client: &mut Client) {
    let before = info(client, "master_replid");
    assert_eq!(text(&call(client, &["REPLICAOF", "NO", "ONE"])), "OK");
    assert_eq!(text(&call(client, &["SET", "a", "mine"])), "OK");
    call(&mut master.client(), &["SET", "a", "theirs"]);
    thread::sleep(Duration::from_millis(1_300));
    assert_eq!(text(&call(client, &["MGET", "a", "b"])), "[mine 2]");
    assert_eq!((info(client, "role"), info(client, "master_replid2")), ("master".into(), before));
    assert_ne!(info(client, "master_replid"), info(client, "master_replid2"));
    assert!(text(&call(client, &["ROLE"])).starts_with("[master "));
}

#[test]
fn clients_do_not_write_to_one_shard() {
    clients_do_not_write(1);
}

#[test]
fn clients_do_not_write_to_two_shards() {
    clients_do_not_write(2);
}

#[test]
fn keys_go_when_the_master_says_so() {
    let _turn = Turn::shared();
    let Some(master) = redis("expiry", &["--enable-debug-command", "yes"]) else { return };
    for shards in [1, 2] {
        let files = Files::new("expiry");
        let replica = files.start(shards, &[]);
        let (mut writer, mut reader) = (master.client(), replica.client());
        follow(&mut reader, &master);
        wait_for_link(&replica);
        call(&mut writer, &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
        for at in 0..10 {
            call(&mut writer, &["SET", &format!("k{at}"), "1", "PX", "50"]);
            call(&mut writer, &["HSET", &format!("h{at}"), "f", "1"]);
            call(&mut writer, &["PEXPIRE", &format!("h{at}"), "50"]);
        }
        within("nothing comes", &replica, || {
            info(&mut writer, "master_repl_offset") == info(&mut reader, "slave_repl_offset")
        });
        thread::sleep(Duration::from_millis(100));
        // Nobody has met them on the master: they are there, and nobody sees them.
        assert_eq!(call(&mut reader, &["DBSIZE"]), Reply::Int(20));
        assert_eq!(
            text(&call(&mut reader, &["MGET", "k0", "k1", "k2", "k3"])),
            "[nil nil nil nil]"
        );
        assert_eq!(text(&call(&mut reader, &["EXISTS", "k0", "k1", "h2", "h3"])), "0");
        assert_eq!(text(&call(&mut reader, &["KEYS", "*"])), "[]");
        assert_eq!(text(&call(&mut reader, &["SUNION", "k0", "k1", "k2"])), "[]");
        assert_eq!(call(&mut reader, &["DBSIZE"]), Reply::Int(20), "a reader removes nothing");
        for at in 0..10 {
            call(&mut writer, &["GET", &format!("k{at}")]);
            call(&mut writer, &["HLEN", &format!("h{at}")]);
        }
        within("they stay", &replica, || call(&mut reader, &["DBSIZE"]) == Reply::Int(0));
        call(&mut writer, &["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    }
}

#[test]
fn a_password_and_a_master_that_is_gone() {
    let _turn = Turn::shared();
    let Some(master) = redis("password", &["--requirepass", "secret"]) else { return };
    let mut writer = master.client();
    call(&mut writer, &["AUTH", "secret"]);
    call(&mut writer, &["SET", "k", "v"]);
    let port = master.address().port().to_string();
    let options = ["--replicaof", "127.0.0.1", &port, "--masterauth", "wrong"];
    let files = Files::new("password");
    let replica = files.start(2, &options);
    let mut reader = replica.client();
    call(&mut reader, &["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    assert!(error(&mut reader, &["GET", "k"]).starts_with("MASTERDOWN Link with MASTER is down"));
    assert_eq!(info(&mut reader, "master_link_status"), "down");
    assert_eq!(text(&call(&mut reader, &["CONFIG", "SET", "masterauth", "secret"])), "OK");
    wait_for_link(&replica);
    within("nothing comes", &replica, || text(&call(&mut reader, &["GET", "k"])) == "v");
    let shown = call(&mut reader, &["CONFIG", "GET", "replicaof"]);
    assert_eq!(text(&shown), format!("[replicaof 127.0.0.1 {port}]"));
    drop(master);
    within("the link is up", &replica, || info(&mut reader, "master_link_status") == "down");
    assert!(error(&mut reader, &["GET", "k"]).starts_with("MASTERDOWN"));
    call(&mut reader, &["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
    assert_eq!(text(&call(&mut reader, &["GET", "k"])), "v");
}

#[test]
fn a_master_is_killed_and_comes_again() {
    let _turn = Turn::shared();
    let Some(_) = redis("killed", &[]) else { return };
    let port = free_ports(1);
    let start = || Server::redis_at(port, &QUICK).expect("redis-server");
    let master = start();
    fill(&mut master.client(), 3, 500);
    let files = Files::new("killed");
    let replica = files.start(2, &["--replicaof", "127.0.0.1", &port.to_string()]);
    must_be_equal("before", &master, &replica);
    drop(master);
    let master = start();
    fill(&mut master.client(), 4, 500);
    must_be_equal("after", &master, &replica);
}

fn a_replica_is_killed(shards: u16) {
    let _turn = Turn::shared();
    let name = format!("log-{shards}");
    let Some(master) = redis(&name, &[]) else { return };
    let files = Files::new(&name);
    let port = master.address().port().to_string();
    let follows = ["--replicaof", "127.0.0.1", &port];
    let logs = ["--appendonly", "yes", "--appendfsync", "always"];
    let options = [&follows[..], &logs].concat();
    fill(&mut master.client(), 5, 500);
    for round in 0..2 {
        let replica = files.start(shards, &options);
        wait_for_link(&replica);
        under_load(&master, 70 + round, || thread::sleep(Duration::from_secs(1)));
        must_be_equal(&format!("{name}, round {round}"), &master, &replica);
    }
    // By itself, it has what it had as a replica.
    let alone = files.start(shards, &logs);
    let (theirs, log) = both_contents(&mut master.client(), &mut alone.client());
    for (key, value) in &theirs {
        assert_eq!(log.get(key), Some(value), "{key} after a restart; {}", alone.log());
    }
    let extra: Vec<_> = log.keys().filter(|key| !theirs.contains_key(*key)).collect();
    assert!(extra.is_empty(), "{extra:?} after a restart");
}

#[test]
fn a_replica_with_a_log_is_killed_with_one_shard() {
    a_replica_is_killed(1);
}

#[test]
fn a_replica_with_a_log_is_killed_with_two_shards() {
    a_replica_is_killed(2);
}
