//! Dumps, ours and redis-server's: written by one and loaded by the other; restarts; files that are torn.
//!
//! Invariants asserted: every key with its value and expiry comes back, with any number of shards; redis-check-rdb has nothing
//! to say; a file that is not whole keeps the server from starting, and the reason names the position.
//! Where next: `logic::rdb` for the format.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes and measures real time"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::resp::{Client, Reply};
use common::server::{Server, cache_command, free_ports, scratch};

/// How long something in the background may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An empty directory of a test.
fn directory(name: &str) -> PathBuf {
    let path = scratch().join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

fn cache_in(dir: &Path, shards: u16, options: &[&str]) -> Server {
    let dir = dir.display().to_string();
    Server::cache_with(shards, &[&["--dir", &dir][..], options].concat())
}

fn redis_in(dir: &Path) -> Result<Server, String> {
    Server::redis(&["--dir", &dir.display().to_string()])
}

fn call(client: &mut Client, words: &[&str]) -> Reply {
    client.call(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Keys of every type, small and large, in two databases.
fn fill(client: &mut Client) {
    let mut run = |words: &[&str]| {
        let reply = call(client, words);
        assert!(!reply.is_error(), "{words:?}: {reply:?}");
    };
    let long = "long text ".repeat(3000);
    run(&["SET", "text", "hello"]);
    run(&["SET", "number", "-70000"]);
    run(&["SET", "long", &long]);
    run(&["SET", "expires", "later", "PXAT", "4102444800123"]);
    for n in 0..2000 {
        run(&["SET", &format!("key:{n}"), &n.to_string()]);
    }
    let numbers: Vec<String> = (0..700).map(|n| n.to_string()).collect();
    let mut all: Vec<&str> = vec!["RPUSH", "list"];
    all.extend(numbers.iter().map(String::as_str));
    run(&all);
    run(&["RPUSH", "wide", &long, "b", "", "-1"]);
    all[0] = "SADD";
    all[1] = "ints";
    run(&all);
    run(&["SADD", "small", "1", "-2", "300000"]);
    run(&["SADD", "words", "a", "b", "12", &long]);
    run(&["HSET", "hash", "f", "v", "n", "12", "", ""]);
    for n in 0..600 {
        run(&["HSET", "large", &format!("field-{n}"), &n.to_string()]);
        run(&["ZADD", "ranks", &(f64::from(n) / 8.0).to_string(), &format!("member-{n}")]);
        run(&[
            "XADD",
            "stream",
            &format!("{}-1", n + 1),
            "temperature",
            &n.to_string(),
            "unit",
            "C",
        ]);
    }
    run(&["ZADD", "scores", "1", "a", "2.5", "b", "-inf", "c", "0.1", "d"]);
    run(&["XDEL", "stream", "5-1", "300-1"]);
    run(&["XGROUP", "CREATE", "stream", "group", "0"]);
    run(&["XREADGROUP", "GROUP", "group", "alice", "COUNT", "7", "STREAMS", "stream", ">"]);
    run(&["XACK", "stream", "group", "2-1"]);
    run(&["PEXPIRE", "hash", "100000000"]);
    run(&["SELECT", "3"]);
    run(&["SET", "elsewhere", "x"]);
    run(&["SELECT", "0"]);
}

/// Everything there is, as text, in an order of its own.
fn contents(client: &mut Client) -> Vec<String> {
    let mut out = Vec::new();
    for db in ["0", "3"] {
        call(client, &["SELECT", db]);
        let mut keys: Vec<Vec<u8>> =
            call(client, &["KEYS", "*"]).items().iter().map(|key| key.bytes().to_vec()).collect();
        keys.sort();
        for key in keys {
            let key = String::from_utf8_lossy(&key).into_owned();
            let kind = String::from_utf8_lossy(call(client, &["TYPE", &key]).bytes()).into_owned();
            let read: &[&str] = match kind.as_str() {
                "string" => &["GET", &key],
                "list" => &["LRANGE", &key, "0", "-1"],
                "set" => &["SMEMBERS", &key],
                "hash" => &["HGETALL", &key],
                "zset" => &["ZRANGE", &key, "0", "-1", "WITHSCORES"],
                _ => &["XRANGE", &key, "-", "+"],
            };
            let mut value = items(&call(client, read));
            match kind.as_str() {
                "set" => value.sort(),
                "hash" => {
                    let mut pairs: Vec<_> = value.chunks(2).map(<[String]>::to_vec).collect();
                    pairs.sort();
                    value = pairs.concat();
                }
                "stream" => {
                    value.extend(items(&call(client, &["XPENDING", &key, "group"])));
                    let read = call(client, &["XINFO", "GROUPS", &key]);
                    value.extend(items(&read));
                }
                _ => {}
            }
            let expires = call(client, &["PEXPIRETIME", &key]);
            out.push(format!("{db} {key} {kind} {expires:?} {value:?}"));
        }
    }
    call(client, &["SELECT", "0"]);
    out
}

fn items(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Seq(_, items) => items.iter().flat_map(self::items).collect(),
        one => vec![format!("{one:?}")],
    }
}

fn same(found: &[String], expected: &[String]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_dump_of_redis_is_loaded_by_any_number_of_shards() {
    let dir = directory("dump-of-redis");
    let mut redis = match redis_in(&dir) {
        Ok(redis) => redis,
        Err(why) => return eprintln!("not run: {why}"),
    };
    let mut client = redis.client();
    fill(&mut client);
    let expected = contents(&mut client);
    assert_eq!(call(&mut client, &["SAVE"]), Reply::Simple(b"OK".to_vec()));
    redis.terminate();
    redis.wait(PATIENCE);
    for shards in [1, 3] {
        let cache = cache_in(&dir, shards, &[]);
        same(&contents(&mut cache.client()), &expected);
    }
}

#[test]
fn a_dump_of_ours_is_loaded_by_redis() {
    for shards in [1, 3] {
        let dir = directory(&format!("dump-of-{shards}"));
        let cache = cache_in(&dir, shards, &[]);
        let mut client = cache.client();
        fill(&mut client);
        let expected = contents(&mut client);
        assert_eq!(call(&mut client, &["SAVE"]), Reply::Simple(b"OK".to_vec()));
        drop(cache);
        let again = cache_in(&dir, 4 - shards, &[]);
        same(&contents(&mut again.client()), &expected);
        drop(again);
        let check = Command::new("redis-check-rdb").arg(dir.join("dump.rdb")).output();
        let (check, redis) = match (check, redis_in(&dir)) {
            (Ok(check), Ok(redis)) => (check, redis),
            (check, redis) => {
                return eprintln!("not run: {:?} {:?}", check.err(), redis.err());
            }
        };
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        same(&contents(&mut redis.client()), &expected);
    }
}

/// A line of INFO.
fn info(client: &mut Client, name: &str) -> String {
    let text = call(client, &["INFO", "persistence"]);
    let text = String::from_utf8_lossy(text.bytes()).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().to_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_save_in_the_background_survives_a_kill() {
    let dir = directory("background");
    let cache = cache_in(&dir, 2, &[]);
    let mut client = cache.client();
    fill(&mut client);
    let expected = contents(&mut client);
    assert!(info(&mut client, "rdb_changes_since_last_save").parse::<u64>().is_ok());
    let reply = call(&mut client, &["BGSAVE"]);
    assert_eq!(reply, Reply::Simple(b"Background saving started".to_vec()));
    until("the save ends", || info(&mut client, "rdb_bgsave_in_progress") == "0");
    assert_eq!(info(&mut client, "rdb_last_bgsave_status"), "ok");
    // A drop kills the process.
    drop(cache);
    let cache = cache_in(&dir, 2, &[]);
    same(&contents(&mut cache.client()), &expected);
    let left: Vec<_> = fs::read_dir(&dir).into_iter().flatten().flatten().collect();
    assert_eq!(left.len(), 1, "no temporary file is left: {left:?}");
}

#[test]
fn save_points_save_without_being_asked() {
    let dir = directory("points");
    let cache = cache_in(&dir, 2, &["--save", "1 3"]);
    let mut client = cache.client();
    for key in ["a", "b", "c", "d"] {
        call(&mut client, &["SET", key, "v"]);
    }
    until("the dump is there", || dir.join("dump.rdb").exists());
}

#[test]
fn a_save_that_fails_says_so_and_leaves_the_last_dump() {
    let dir = directory("fails");
    let cache = cache_in(&dir, 2, &[]);
    let mut client = cache.client();
    call(&mut client, &["SET", "k", "v"]);
    let gone = scratch().join("fails-elsewhere");
    let _ = fs::remove_dir_all(&gone);
    fs::rename(&dir, &gone).unwrap_or_else(|error| panic!("rename: {error}"));
    assert_eq!(call(&mut client, &["SAVE"]), Reply::Error(b"ERR".to_vec()));
    call(&mut client, &["BGSAVE"]);
    until("the save fails", || info(&mut client, "rdb_last_bgsave_status") == "err");
    fs::rename(&gone, &dir).unwrap_or_else(|error| panic!("rename: {error}"));
    assert_eq!(call(&mut client, &["SAVE"]), Reply::Simple(b"OK".to_vec()));
    assert_eq!(call(&mut client, &["GET", "k"]), Reply::Bulk(b"v".to_vec()), "no lock is left");
}

#[test]
fn a_torn_dump_keeps_the_server_from_starting() {
    let dir = directory("torn");
    let cache = cache_in(&dir, 1, &[]);
    let mut client = cache.client();
    fill(&mut client);
    call(&mut client, &["SAVE"]);
    drop(cache);
    let path = dir.join("dump.rdb");
    let whole = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let half = whole.len() / 2;
    fs::write(&path, &whole[..half]).unwrap_or_else(|error| panic!("write: {error}"));
    let mut command = cache_command(free_ports(3), 1);
    let output = command.arg("--dir").arg(&dir).stdout(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cache binary: {error}"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    assert!(told.contains(&format!("at byte {half}: the file ends too early")), "{told}");
    assert_eq!(fs::read(&path).unwrap_or_default().len(), half, "it is left as it is");
}

const ACCOUNTS: usize = 2_000;
const BALANCE: i64 = 100;

fn account(n: usize) -> String {
    format!("account:{n}")
}

/// Makes `rounds` transfers between accounts, each a transaction, and now and then sets two keys to the same.
fn transfer(mut client: Client, seed: usize, stop: &AtomicBool) {
    let mut n = seed;
    while !stop.load(Relaxed) {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (from, to) = (account((n >> 33) % ACCOUNTS), account((n >> 17) % ACCOUNTS));
        let sum = (n % 7).to_string();
        call(&mut client, &["MULTI"]);
        call(&mut client, &["DECRBY", &from, &sum]);
        call(&mut client, &["INCRBY", &to, &sum]);
        assert_eq!(call(&mut client, &["EXEC"]).items().len(), 2);
        let same = n.to_string();
        call(&mut client, &["MSET", "left", &same, "right", &same, "centre", &same]);
    }
}

/// What all accounts hold together.
fn total(client: &mut Client) -> i64 {
    let accounts: Vec<String> = (0..ACCOUNTS).map(account).collect();
    let mut words = vec!["MGET"];
    words.extend(accounts.iter().map(String::as_str));
    let balances = call(client, &words);
    let balance = |reply: &Reply| String::from_utf8_lossy(reply.bytes()).parse::<i64>().ok();
    balances.items().iter().filter_map(balance).sum()
}

fn shows_one_moment(client: &mut Client, keys: i64) {
    assert_eq!(call(client, &["DBSIZE"]), Reply::Int(keys));
    assert_eq!(total(client), BALANCE * ACCOUNTS as i64, "a transaction is in the file by half");
    let three = call(client, &["MGET", "left", "right", "centre"]);
    let three = three.items();
    assert!(three.len() == 3 && three.iter().all(|one| *one == three[0]), "{three:?}");
}

/// Transactions over several shards are in a dump or not, though it is written while they go on.
#[test]
fn a_save_in_the_background_shows_one_moment() {
    for shards in [1, 3] {
        let dir = directory(&format!("moment-{shards}"));
        let cache = cache_in(&dir, shards, &[]);
        let mut client = cache.client();
        for n in 0..ACCOUNTS {
            call(&mut client, &["SET", &account(n), &BALANCE.to_string()]);
        }
        call(&mut client, &["MSET", "left", "0", "right", "0", "centre", "0"]);
        // So much else that saving takes a while.
        let value = "value ".repeat(20);
        for n in 0..100 {
            let keys: Vec<String> = (0..500).map(|k| format!("other:{n}:{k}")).collect();
            let mut words = vec!["MSET"];
            keys.iter().for_each(|key| words.extend([key.as_str(), &value]));
            call(&mut client, &words);
        }
        let keys = 50_003 + ACCOUNTS as i64;
        let stop = AtomicBool::new(false);
        let dumps: Vec<PathBuf> = thread::scope(|scope| {
            for seed in 1..4 {
                let (client, stop) = (cache.client(), &stop);
                scope.spawn(move || transfer(client, seed, stop));
            }
            let save = |n: usize| {
                thread::sleep(Duration::from_millis(100));
                call(&mut client, &["BGSAVE"]);
                // What is written after the reply is not in the file.
                call(&mut client, &["SET", &format!("late:{n}"), "v"]);
                until("the save ends", || info(&mut client, "rdb_bgsave_in_progress") == "0");
                call(&mut client, &["DEL", &format!("late:{n}")]);
                let copy = directory(&format!("moment-{shards}-{n}"));
                let copied = fs::copy(dir.join("dump.rdb"), copy.join("dump.rdb"));
                copied.unwrap_or_else(|error| panic!("the dump: {error}"));
                copy
            };
            let dumps = (0..3).map(save).collect();
            stop.store(true, Relaxed);
            dumps
        });
        drop(cache);
        for dump in dumps {
            shows_one_moment(&mut cache_in(&dump, 4 - shards, &[]).client(), keys);
            match redis_in(&dump) {
                Ok(redis) => shows_one_moment(&mut redis.client(), keys),
                Err(why) => eprintln!("redis-server not run: {why}"),
            }
        }
    }
}

/// Names of files in a directory, sorted.
fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a start on this directory says when it fails.
fn refusal(dir: &Path, options: &[&str]) -> String {
    let mut command = cache_command(free_ports(3), 1);
    let output = command.arg("--dir").arg(dir).args(options).stdout(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cache binary: {error}"));
    assert!(!output.status.success(), "it starts");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_dump_of_one_file_per_shard_is_loaded_by_any_number_of_shards() {
    let dir = directory("per-shard");
    let per_shard: &[&str] = &["--save-per-shard"];
    let cache = cache_in(&dir, 3, per_shard);
    let mut client = cache.client();
    fill(&mut client);
    let expected = contents(&mut client);
    for _ in 0..2 {
        assert_eq!(call(&mut client, &["SAVE"]), Reply::Simple(b"OK".to_vec()));
        let names = files(&dir);
        assert!(names.len() == 4 && names[3] == "dump.rdb.parts", "{names:?}");
    }
    drop(cache);
    for (shards, options) in [(1, per_shard), (2, &[]), (3, per_shard)] {
        same(&contents(&mut cache_in(&dir, shards, options).client()), &expected);
    }
    // A dump of one file takes their place, and gives way to them again.
    let cache = cache_in(&dir, 2, &[]);
    call(&mut cache.client(), &["SAVE"]);
    assert_eq!(files(&dir), ["dump.rdb"]);
    drop(cache);
    let cache = cache_in(&dir, 2, per_shard);
    call(&mut cache.client(), &["SAVE"]);
    drop(cache);
    let names = files(&dir);
    assert!(names.len() == 3 && !names.contains(&"dump.rdb".to_owned()), "{names:?}");
    let part = dir.join(&names[1]);
    let whole = fs::read(&part).unwrap_or_else(|error| panic!("{}: {error}", part.display()));
    fs::write(&part, &whole[..whole.len() / 2]).unwrap_or_else(|error| panic!("write: {error}"));
    let told = refusal(&dir, per_shard);
    let place = format!("{}: at byte {}: the file ends too early", names[1], whole.len() / 2);
    assert!(told.contains(&place), "{told}");
    fs::remove_file(&part).unwrap_or_else(|error| panic!("remove: {error}"));
    let told = refusal(&dir, per_shard);
    assert!(told.contains(&format!("{} is missing", names[1])), "{told}");
}

#[test]
fn a_shutdown_saves_when_it_is_asked_to_or_save_points_are_set() {
    let cases: [(&[&str], &[&str], bool); 4] = [
        (&["SHUTDOWN"], &[], false),
        (&["SHUTDOWN", "SAVE"], &[], true),
        (&["SHUTDOWN"], &["--save", "3600 1"], true),
        (&["SHUTDOWN", "NOSAVE"], &["--save", "3600 1"], false),
    ];
    for (words, options, saves) in cases {
        let dir = directory("shutdown");
        let mut cache = cache_in(&dir, 2, options);
        let mut client = cache.client();
        call(&mut client, &["SET", "k", "v"]);
        let last = client.call(words);
        assert!(matches!(last, Ok(Reply::Closed)), "{words:?} {options:?}: it ends without a word");
        cache.wait(PATIENCE);
        assert_eq!(dir.join("dump.rdb").exists(), saves, "{words:?} {options:?}");
    }
    let dir = directory("shutdown-fails");
    let cache = cache_in(&dir, 2, &[]);
    let mut client = cache.client();
    let gone = scratch().join("shutdown-elsewhere");
    let _ = fs::remove_dir_all(&gone);
    fs::rename(&dir, &gone).unwrap_or_else(|error| panic!("rename: {error}"));
    let refused = Reply::Error(b"ERR Errors trying to SHUTDOWN. Check logs.".to_vec());
    assert_eq!(call(&mut client, &["SHUTDOWN", "SAVE"]), refused);
    assert_eq!(call(&mut client, &["PING"]), Reply::Simple(b"PONG".to_vec()));
}
