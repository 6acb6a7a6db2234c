//! Two servers, one of which follows the other: how they are started, watched, written to and compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Rng;
use crate::common::resp::{Client, Reply};
use crate::common::server::{Server, scratch};
use crate::load::{self, call, contents};

/// How long both sides may take to become equal.
const PATIENCE: Duration = Duration::from_secs(120);
const WRITERS: u64 = 3;
/// The longest that a key lives which the load has expire, and as long again.
const EXPIRY: Duration = Duration::from_secs(4);
type Contents = BTreeMap<String, String>;

pub(crate) fn rounds() -> u64 {
    std::env::var("REPLICATION_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A directory that is empty, and goes with the test.
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    pub(crate) fn new(name: &str) -> Self {
        let path = scratch().join(format!("replica-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn start(&self, shards: u16, options: &[&str]) -> Server {
        let dir = self.0.to_str().expect("plain text");
        Server::cache_with(shards, &[&["--dir", dir], options].concat())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn info(client: &mut Client, name: &str) -> String {
    let all = call(client, &["INFO", "replication"]);
    let all = String::from_utf8_lossy(all.bytes()).into_owned();
    let line = all.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().to_owned()
}

pub(crate) fn follow(replica: &mut Client, master: &Server) {
    let port = master.address().port().to_string();
    assert_eq!(call(replica, &["REPLICAOF", "127.0.0.1", &port]), Reply::Simple(b"OK".to_vec()));
}

pub(crate) fn within(what: &str, server: &Server, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}; {}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn wait_for_link(replica: &Server) {
    let mut client = replica.client();
    within("no link", replica, || info(&mut client, "master_link_status") == "up");
}

/// What two servers hold that are at rest, by [`contents`]: keys may become due between the two readings, so that both are
/// read until they are equal, for longer than a key that is to expire lives.
pub(crate) fn both_contents(one: &mut Client, two: &mut Client) -> (Contents, Contents) {
    let deadline = Instant::now() + EXPIRY;
    loop {
        let is_last = Instant::now() > deadline;
        let (theirs, ours) = (contents(one), contents(two));
        if theirs == ours || is_last {
            return (theirs, ours);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until all that the master sent was applied, and compares.
pub(crate) fn must_be_equal(what: &str, master: &Server, replica: &Server) {
    let (mut one, mut two) = (master.client(), replica.client());
    within(&format!("{what}: the replica is behind"), replica, || {
        info(&mut two, "master_link_status") == "up"
            && info(&mut one, "master_repl_offset") == info(&mut two, "slave_repl_offset")
    });
    let (theirs, ours) = both_contents(&mut one, &mut two);
    for (key, value) in &theirs {
        assert_eq!(ours.get(key), Some(value), "{what}: {key}; {}", replica.log());
    }
    for (key, value) in &ours {
        assert!(theirs.contains_key(key), "{what}: {key} is on the replica only: {value}");
    }
    let log = replica.log();
    assert!(!log.contains("failed here"), "{what}: a command of the master failed: {log}");
}

/// Writes to the master with several clients while `meanwhile` runs; how many commands.
pub(crate) fn under_load(master: &Server, seed: u64, meanwhile: impl FnOnce()) -> u64 {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for who in 0..WRITERS {
            let (stop, written, mut client) = (&stop, &written, master.client());
            scope.spawn(move || {
                let mut rng = Rng::new(seed * 1_000 + who);
                while !stop.load(Ordering::Relaxed) {
                    load::write(&mut client, &mut rng).expect("the master answers");
                    // Two cores serve everything here: the replica must not fall behind for minutes.
                    thread::sleep(Duration::from_micros(500));
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        meanwhile();
        stop.store(true, Ordering::Relaxed);
    });
    written.load(Ordering::Relaxed)
}

pub(crate) fn fill(client: &mut Client, seed: u64, commands: usize) {
    let mut rng = Rng::new(seed);
    for _ in 0..commands {
        load::write(client, &mut rng).expect("the master answers");
    }
    let long = "long text ".repeat(3_000);
    for at in 0..150 {
        let at = at.to_string();
        for words in [
            &["SET", &format!("key:{at}"), &at][..],
            &["SET", &format!("long:{at}"), &long],
            &["SET", &format!("ttl:{at}"), &at, "PXAT", "4102444800123"],
            &["ZADD", "ranks", &at, &format!("member-{at}")],
            &["HSET", "large", &format!("field-{at}"), &long],
            &["RPUSH", "numbers", &at, "text"],
        ] {
            assert!(!call(client, words).is_error(), "{words:?}");
        }
    }
}
