//! Caches that follow caches, in real processes: one flow per shard of the master.
//!
//! Invariants asserted: with any numbers of shards on both sides, after a data set, a stream under load, links that were cut,
//! restarts of either side and a log that goes on, every key of both sides has the same value and expiry; a link that was
//! cut goes on where it was, while the backlog has it; WAIT counts replicas that have all, and what was waited for outlives
//! the master; a replica that does not read costs its master no memory. `REPLICATION_ROUNDS=n` does the runs under load
//! more often. Next: `replication/load.rs` for the commands and what is compared, `src/flow` for the flows.
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
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Rng;
use common::resp::{Client, Reply};
use common::server::{Server, Turn, free_ports};
use load::{call, text};
use pair::{
    Files, both_contents, fill, follow, info, must_be_equal, rounds, under_load, wait_for_link,
    within,
};

fn a_cache_is_followed(masters: u16, replicas: u16) {
    let _turn = Turn::shared();
    let name = format!("flows-{masters}-{replicas}");
    for round in 0..rounds() {
        let (ours, theirs) = (Files::new(&name), Files::new(&format!("{name}-replica")));
        let master = ours.start(masters, &[]);
        let replica = theirs.start(replicas, &[]);
        fill(&mut master.client(), 90 + round, 1_000);
        // What was here before goes.
        call(&mut replica.client(), &["SET", "own", "1"]);
        let written = under_load(&master, 100 + round, || {
            thread::sleep(Duration::from_millis(200));
            follow(&mut replica.client(), &master);
            wait_for_link(&replica);
            thread::sleep(Duration::from_secs(2));
        });
        must_be_equal(&format!("{name}, round {round}"), &master, &replica);
        println!("{name}, round {round}: {written} commands");
        assert!(written > 100, "little was written");
        let told = info(&mut master.client(), "slave0");
        assert!(told.contains("state=online"), "{told}");
        assert_eq!(info(&mut master.client(), "connected_slaves"), "1");
        assert_eq!(full_syncs(&replica), 1, "{}", replica.log());
    }
}

/// How often everything was taken: it is said in the log.
fn full_syncs(replica: &Server) -> usize {
    let log = replica.log();
    let told = |line: &&str| line.contains("follows its master's shards") && line.contains("true");
    log.lines().filter(told).count()
}

#[test]
fn one_shard_follows_one() {
    a_cache_is_followed(1, 1);
}

#[test]
fn two_shards_follow_two() {
    a_cache_is_followed(2, 2);
}

#[test]
fn one_shard_follows_two() {
    a_cache_is_followed(2, 1);
}

#[test]
fn two_shards_follow_one() {
    a_cache_is_followed(1, 2);
}

/// Ends one connection of a replica; whether there was one.
fn cut(master: &Server, rng: &mut Rng) -> bool {
    let mut client = master.client();
    let list = call(&mut client, &["CLIENT", "LIST"]);
    let list = String::from_utf8_lossy(list.bytes()).into_owned();
    let links: Vec<&str> = list
        .lines()
        .filter(|line| line.contains("cmd=replflow") || line.contains("cmd=replconf"))
        .filter_map(|line| line.strip_prefix("id=")?.split(' ').next())
        .collect();
    if links.is_empty() {
        return false;
    }
    let id = links[rng.below(links.len())];
    call(&mut client, &["CLIENT", "KILL", "ID", id]) != Reply::Int(0)
}

fn links_are_cut(masters: u16, replicas: u16) {
    let _turn = Turn::shared();
    let name = format!("flow-cut-{masters}-{replicas}");
    for round in 0..rounds() {
        let (ours, theirs) = (Files::new(&name), Files::new(&format!("{name}-replica")));
        let master = ours.start(masters, &[]);
        let replica = theirs.start(replicas, &[]);
        call(&mut master.client(), &["CONFIG", "SET", "repl-backlog-size", "32mb"]);
        follow(&mut replica.client(), &master);
        wait_for_link(&replica);
        let mut cuts = 0;
        under_load(&master, 150 + round, || {
            let mut rng = Rng::new(round);
            for _ in 0..8 {
                thread::sleep(Duration::from_millis(20 + rng.below(300) as u64));
                wait_for_link(&replica);
                within("nobody follows", &replica, || cut(&master, &mut rng));
                cuts += 1;
            }
        });
        must_be_equal(&format!("{name}, round {round}"), &master, &replica);
        println!("{name}, round {round}: {cuts} cuts");
        assert_eq!(full_syncs(&replica), 1, "links did not go on: {}", replica.log());
    }
}

#[test]
fn links_are_cut_with_one_shard() {
    links_are_cut(1, 1);
}

#[test]
fn links_are_cut_with_two_shards() {
    links_are_cut(2, 2);
}

#[test]
fn links_are_cut_with_fewer_shards() {
    links_are_cut(2, 1);
}

#[test]
fn links_are_cut_with_more_shards() {
    links_are_cut(1, 2);
}

#[test]
fn a_write_is_waited_for() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("wait"), Files::new("wait-replica"));
    let master = ours.start(2, &[]);
    let mut client = master.client();
    let begun = Instant::now();
    assert_eq!(call(&mut client, &["WAIT", "1", "100"]), Reply::Int(0), "nobody follows");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(call(&mut client, &["WAIT", "0", "0"]), Reply::Int(0));
    let replica = theirs.start(2, &[]);
    let mut reader = replica.client();
    follow(&mut reader, &master);
    wait_for_link(&replica);
    for at in 0..50 {
        let (key, value) = (format!("k{at}"), at.to_string());
        call(&mut client, &["SET", &key, &value]);
        assert_eq!(call(&mut client, &["WAIT", "1", "5000"]), Reply::Int(1));
        assert_eq!(text(&call(&mut reader, &["GET", &key])), value, "it was waited for");
    }
    // In one pipeline, too.
    client.send_raw(b"SET k99 1\r\nSET k98 1\r\nWAIT 1 5000\r\n").expect("sent");
    let replies: Vec<Reply> = (0..3).map(|_| client.reply().expect("a reply")).collect();
    assert_eq!(replies[2], Reply::Int(1));
    assert_eq!(text(&call(&mut reader, &["MGET", "k98", "k99"])), "[1 1]");
    let begun = Instant::now();
    assert_eq!(call(&mut client, &["WAIT", "2", "100"]), Reply::Int(1), "there is one");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    let role = call(&mut client, &["ROLE"]);
    assert_eq!(role.items()[2].items().len(), 1, "{role:?}");
    let port = replica.address().port().to_string();
    assert_eq!(text(&role.items()[2].items()[0].items()[1]), port);
    let refused = call(&mut reader, &["REPLFLOWS"]);
    assert!(text(&refused).contains("this server is a replica itself"), "{refused:?}");
}

/// What was acknowledged by WAIT is there after the master was killed and the replica has taken over.
fn what_was_waited_for_outlives_the_master(masters: u16, replicas: u16) {
    let _turn = Turn::shared();
    let name = format!("outlive-{masters}-{replicas}");
    for round in 0..rounds() {
        let (ours, theirs) = (Files::new(&name), Files::new(&format!("{name}-replica")));
        let master = ours.start(masters, &[]);
        let replica = theirs.start(replicas, &[]);
        follow(&mut replica.client(), &master);
        wait_for_link(&replica);
        let (stop, mut clients) = (AtomicBool::new(false), Vec::new());
        clients.extend((0..4).map(|_| master.client()));
        let acknowledged: Vec<u64> = thread::scope(|scope| {
            let write = |(who, mut client): (usize, Client)| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut done = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let value = (done + 1).to_string();
                        // Two keys, perhaps of two shards, that change together.
                        let (one, two) = (format!("one:{who}"), format!("two:{who}"));
                        let set = ["MSET", &one, &value, &two, &value];
                        let Ok(reply) = client.call(&set) else { break };
                        assert!(!reply.is_error(), "{reply:?}");
                        match client.call(&["WAIT", "1", "10000"]) {
                            Ok(Reply::Int(1)) => done += 1,
                            _ => break,
                        }
                    }
                    done
                })
            };
            let writers: Vec<_> = clients.into_iter().enumerate().map(write).collect();
            thread::sleep(Duration::from_millis(700));
            drop(master);
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().expect("a count")).collect()
        });
        let mut client = replica.client();
        assert_eq!(text(&call(&mut client, &["REPLICAOF", "NO", "ONE"])), "OK");
        for (who, done) in acknowledged.iter().enumerate() {
            let [one, two] = [format!("one:{who}"), format!("two:{who}")];
            let values = call(&mut client, &["MGET", &one, &two]);
            let found = text(&values.items()[0]);
            assert_eq!(found, text(&values.items()[1]), "a command was applied in parts");
            let found: u64 = found.parse().unwrap_or(0);
            assert!(found == *done || found == done + 1, "{done} acknowledged, {found} found");
        }
        println!("{name}, round {round}: {acknowledged:?}");
        assert!(acknowledged.iter().all(|done| *done > 0), "{acknowledged:?}");
        assert_eq!(text(&call(&mut client, &["SET", "more", "1"])), "OK");
    }
}

#[test]
fn what_was_waited_for_outlives_a_master_of_one_shard() {
    what_was_waited_for_outlives_the_master(1, 1);
}

#[test]
fn what_was_waited_for_outlives_a_master_of_two_shards() {
    what_was_waited_for_outlives_the_master(2, 2);
    what_was_waited_for_outlives_the_master(2, 1);
}

#[test]
fn keys_that_expire_go_on_both_sides() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("flow-expiry"), Files::new("flow-expiry-replica"));
    let master = ours.start(2, &[]);
    let mut writer = master.client();
    call(&mut writer, &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    for shards in [1, 2] {
        let replica = theirs.start(shards, &[]);
        let mut reader = replica.client();
        follow(&mut reader, &master);
        wait_for_link(&replica);
        for at in 0..20 {
            call(&mut writer, &["SET", &format!("k{at}"), "5", "PX", "30"]);
        }
        assert_eq!(call(&mut writer, &["SET", "stays", "1"]), Reply::Simple(b"OK".to_vec()));
        thread::sleep(Duration::from_millis(100));
        for at in 0..10 {
            // The master finds that they are gone, and counts anew; of the others it says nothing.
            assert_eq!(call(&mut writer, &["INCR", &format!("k{at}")]), Reply::Int(1));
        }
        assert_eq!(call(&mut writer, &["EXISTS", "k10", "k11", "k12"]), Reply::Int(0));
        within("they stay", &replica, || call(&mut reader, &["DBSIZE"]) == Reply::Int(11));
        must_be_equal("after they are gone", &master, &replica);
        call(&mut writer, &["FLUSHALL"]);
    }
}

#[test]
fn a_log_goes_on_and_off_meanwhile() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("switch"), Files::new("switch-replica"));
    let master = ours.start(2, &[]);
    let replica = theirs.start(2, &["--appendonly", "yes"]);
    fill(&mut master.client(), 6, 500);
    follow(&mut replica.client(), &master);
    wait_for_link(&replica);
    under_load(&master, 300, || {
        for on in ["yes", "no", "yes"] {
            thread::sleep(Duration::from_millis(700));
            call(&mut master.client(), &["CONFIG", "SET", "appendonly", on]);
        }
        thread::sleep(Duration::from_millis(700));
        call(&mut master.client(), &["BGREWRITEAOF"]);
        thread::sleep(Duration::from_millis(700));
    });
    must_be_equal("after a log", &master, &replica);
    assert_eq!(full_syncs(&replica), 1, "{}", replica.log());
}

/// A replica's own log gives what it had, by itself.
fn a_replica_is_killed(masters: u16, replicas: u16) {
    let _turn = Turn::shared();
    let name = format!("flow-log-{masters}-{replicas}");
    let (ours, theirs) = (Files::new(&name), Files::new(&format!("{name}-replica")));
    let master = ours.start(masters, &[]);
    let port = master.address().port().to_string();
    let logs = ["--appendonly", "yes", "--appendfsync", "always"];
    let options = [&["--replicaof", "127.0.0.1", &port][..], &logs].concat();
    fill(&mut master.client(), 5, 500);
    for round in 0..2 {
        let replica = theirs.start(replicas, &options);
        wait_for_link(&replica);
        under_load(&master, 70 + round, || thread::sleep(Duration::from_secs(1)));
        must_be_equal(&format!("{name}, round {round}"), &master, &replica);
    }
    let alone = theirs.start(replicas, &logs);
    let (master, log) = both_contents(&mut master.client(), &mut alone.client());
    for (key, value) in &master {
        assert_eq!(log.get(key), Some(value), "{key} after a restart; {}", alone.log());
    }
    let extra: Vec<_> = log.keys().filter(|key| !master.contains_key(*key)).collect();
    assert!(extra.is_empty(), "{extra:?} after a restart");
}

#[test]
fn a_replica_with_a_log_is_killed() {
    a_replica_is_killed(2, 2);
    a_replica_is_killed(1, 1);
}

#[test]
fn a_master_is_killed_and_comes_again() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("flow-killed"), Files::new("flow-killed-replica"));
    let port = free_ports(4);
    let dir = ours.0.to_str().expect("plain text");
    let options = ["--dir", dir, "--appendonly", "yes", "--appendfsync", "always"];
    let master = Server::cache_at(port, 2, &options);
    fill(&mut master.client(), 3, 500);
    let replica = theirs.start(2, &["--replicaof", "127.0.0.1", &port.to_string()]);
    must_be_equal("before", &master, &replica);
    drop(master);
    let master = Server::cache_at(port, 2, &options);
    fill(&mut master.client(), 4, 500);
    must_be_equal("after", &master, &replica);
    assert_eq!(full_syncs(&replica), 2, "another process has another history");
}

#[test]
fn a_replica_becomes_a_master_and_is_followed() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("promote"), Files::new("promote-replica"));
    let (master, replica) = (ours.start(2, &[]), theirs.start(2, &[]));
    fill(&mut master.client(), 7, 300);
    let mut client = replica.client();
    follow(&mut client, &master);
    wait_for_link(&replica);
    must_be_equal("before", &master, &replica);
    assert!(text(&call(&mut client, &["SET", "mine", "1"])).starts_with("READONLY"));
    assert_eq!(text(&call(&mut client, &["REPLICAOF", "NO", "ONE"])), "OK");
    call(&mut client, &["SET", "mine", "1"]);
    call(&mut master.client(), &["SET", "theirs", "1"]);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(text(&call(&mut client, &["EXISTS", "theirs", "mine"])), "1");
    within("it is followed", &master, || info(&mut master.client(), "connected_slaves") == "0");
    // The other way round.
    follow(&mut master.client(), &replica);
    wait_for_link(&master);
    must_be_equal("the other way round", &replica, &master);
}

#[test]
fn a_replica_takes_over_under_load() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("failover"), Files::new("failover-replica"));
    let (master, replica) = (ours.start(2, &[]), theirs.start(2, &[]));
    let mut client = master.client();
    let error = |client: &mut Client, words: &[&str]| text(&call(client, words));
    assert!(error(&mut client, &["FAILOVER"]).contains("requires connected replicas"));
    assert!(error(&mut client, &["FAILOVER", "ABORT"]).contains("No failover in progress"));
    follow(&mut replica.client(), &master);
    wait_for_link(&replica);
    let other = ["FAILOVER", "TO", "127.0.0.1", "1"];
    assert!(error(&mut client, &other).contains("is not a replica"));
    let forced = ["FAILOVER", "FORCE"];
    assert!(error(&mut client, &forced).contains("requires both a timeout and target"));
    let (stop, mut writer) = (AtomicBool::new(false), master.client());
    let acknowledged = thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let mut done = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                match call(&mut writer, &["INCR", "counter"]) {
                    Reply::Int(_) => done += 1,
                    refused => {
                        assert!(text(&refused).starts_with("READONLY"), "{refused:?}");
                        break;
                    }
                }
            }
            done
        });
        thread::sleep(Duration::from_millis(300));
        let port = replica.address().port().to_string();
        let order = ["FAILOVER", "TO", "127.0.0.1", &port, "TIMEOUT", "20000"];
        assert_eq!(text(&call(&mut client, &order)), "OK");
        within("it does not take over", &replica, || {
            info(&mut replica.client(), "role") == "master"
        });
        within("it does not follow", &master, || info(&mut client, "role") == "slave");
        let done = writes.join().expect("a count");
        stop.store(true, Ordering::Relaxed);
        done
    });
    assert!(acknowledged > 0);
    let counted = text(&call(&mut replica.client(), &["GET", "counter"]));
    assert_eq!(counted, acknowledged.to_string(), "what was acknowledged is there, and no more");
    wait_for_link(&master);
    must_be_equal("after a failover", &replica, &master);
    assert_eq!(info(&mut client, "master_failover_state"), "no-failover");
}

fn signal(server: &Server, name: &str) {
    let done = Command::new("kill").args([name, &server.pid().to_string()]).status();
    assert!(done.expect("kill").success(), "{name}");
    // Its threads stop one after the other.
    let is_stopped = |task: &fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('T'))
    };
    within("it does not stop", server, || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("its threads");
        name != "-STOP" || tasks.flatten().all(|task| is_stopped(&task))
    });
}

#[test]
fn a_failover_is_given_up() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("abort"), Files::new("abort-replica"));
    let (master, replica) = (ours.start(1, &[]), theirs.start(1, &[]));
    let mut client = master.client();
    follow(&mut replica.client(), &master);
    wait_for_link(&replica);
    // It cannot say that it has all.
    signal(&replica, "-STOP");
    call(&mut client, &["SET", "k", "1"]);
    assert_eq!(text(&call(&mut client, &["FAILOVER", "TIMEOUT", "300"])), "OK");
    assert_eq!(info(&mut client, "master_failover_state"), "waiting-for-sync");
    // Held back until it was given up.
    assert_eq!(text(&call(&mut client, &["SET", "k", "2"])), "OK");
    within("it goes on", &master, || info(&mut client, "master_failover_state") == "no-failover");
    assert_eq!(text(&call(&mut client, &["FAILOVER"])), "OK");
    assert!(text(&call(&mut client, &["FAILOVER"])).contains("already in progress"));
    assert_eq!(text(&call(&mut client, &["FAILOVER", "ABORT"])), "OK");
    assert_eq!(text(&call(&mut client, &["SET", "k", "3"])), "OK");
    signal(&replica, "-CONT");
    must_be_equal("after that", &master, &replica);
    assert_eq!(info(&mut client, "role"), "master");
}

#[test]
fn a_replica_that_does_not_read_costs_no_memory() {
    let _turn = Turn::shared();
    let (ours, theirs) = (Files::new("slow"), Files::new("slow-replica"));
    let (master, replica) = (ours.start(2, &[]), theirs.start(2, &[]));
    let mut client = master.client();
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "replica 8mb 0 0"];
    assert_eq!(text(&call(&mut client, &limit)), "OK");
    follow(&mut replica.client(), &master);
    wait_for_link(&replica);
    let value = "v".repeat(10_000);
    let write = |client: &mut Client| {
        // The same keys again, so that nothing else grows.
        for at in 0..10_000 {
            call(client, &["SET", &format!("k{}", at % 100), &value]);
        }
    };
    write(&mut client);
    let before = master.rss_bytes();
    signal(&replica, "-STOP");
    write(&mut client);
    let after = master.rss_bytes();
    signal(&replica, "-CONT");
    let grown = after.saturating_sub(before);
    println!("{grown} bytes more");
    assert!(grown < 40 << 20, "100 MB were written, {grown} bytes are kept for who does not read");
    must_be_equal("it begins anew", &master, &replica);
    assert!(master.log().contains("further behind"), "{}", master.log());
}
