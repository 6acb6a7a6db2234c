//! Snapshots of shards: what waits while one cannot follow, and goes on when it can.

use super::support::Host;
use crate::work::{LockKeys, Op, Request, Response};

const VALUE_BYTES: usize = 4000;

fn op(op: Op) -> Request {
    Request::Op { ticket: 0, op, unlock: false }
}

/// A value that takes as much room in a dump as in memory.
fn incompressible() -> String {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (seed >> 58) as u8)
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
}

/// A host with a snapshot under way on every shard, so much of which waits that writes are held back; two connections.
fn held_back(shards: u16) -> (Host, usize, usize) {
    let mut host = Host::new(shards);
    let conns = (host.connect(0, false), host.connect(0, false));
    let value = incompressible();
    for n in 0..3000 * usize::from(shards) {
        assert_eq!(host.command(conns.0, &["SET", &format!("key:{n}"), &value]), "+OK\r\n");
    }
    for shard in 0..usize::from(shards) {
        assert!(matches!(host.ask(shard, op(Op::SaveBegin)), Some(Response::Done)));
    }
    let mut written = 0;
    while host.shards.iter().any(|shard| !shard.store.snapshot_is_full()) {
        assert!(written < 3000 * usize::from(shards), "what waits of all keys is enough");
        assert_eq!(host.command(conns.0, &["SET", &format!("key:{written}"), "new"]), "+OK\r\n");
        written += 1;
    }
    host.shards.iter_mut().for_each(crate::Shard::pace_snapshot);
    (host, conns.0, conns.1)
}

#[test]
fn writes_that_a_snapshot_would_grow_by_wait_for_it() {
    for shards in [1, 2] {
        let (mut host, one, two) = held_back(shards);
        // A saved key is written, an unsaved one read.
        assert_eq!(host.command(one, &["SET", "key:0", "again"]), "+OK\r\n");
        let unsaved = |key: &String| {
            let mut shards = host.shards.iter();
            shards.any(|shard| {
                let key = key.as_bytes();
                let hash = shard.store.hash(key);
                shard.topology.owner_of(key) == shard.index && shard.store.would_save(0, hash)
            })
        };
        let last = (0..3000).map(|n| format!("key:{n}")).rfind(unsaved).expect("some are left");
        assert_eq!(host.command(one, &["STRLEN", &last]), format!(":{VALUE_BYTES}\r\n"));
        assert_eq!(host.command(one, &["APPEND", &last, "x"]), "", "it waits");
        assert_eq!(host.command(two, &["GET", "key:0"]), "$5\r\nagain\r\n", "others go on");
        // Over several shards it waits for all keys, after what is held back; one shard sets its table aside.
        let emptied = host.command(two, &["FLUSHALL"]);
        assert_eq!(emptied, if shards == 1 { "+OK\r\n" } else { "" });
        let mut most = 0;
        for shard in 0..usize::from(shards) {
            let next = || op(Op::SavePart { keys: 512 });
            while let Some(Response::Part { bytes, more: true }) = host.ask(shard, next()) {
                most = most.max(bytes.len());
                host.settle();
            }
        }
        host.settle();
        assert!(most < logic::store::WAITING_MAX_BYTES + (1 << 20), "{most} bytes waited");
        let appended = String::from_utf8_lossy(&host.take(one)).into_owned();
        assert_eq!(host.take(two), if shards == 1 { "" } else { "+OK\r\n" }.as_bytes());
        // Two that wait go on in any order.
        let left = match appended.as_str() {
            ":1\r\n" => ":1\r\n",
            ":4001\r\n" if shards == 2 => ":0\r\n",
            other => panic!("{shards}: {other}"),
        };
        assert_eq!(host.command(one, &["DBSIZE"]), left, "{shards}");
        for shard in &host.shards {
            assert!(shard.locks.is_empty(), "{shards}: {:?}", shard.locks);
            assert!(shard.parked.is_empty(), "{shards}: {:?}", shard.parked);
        }
    }
}

#[test]
fn a_snapshot_that_is_given_up_lets_writes_go_on() {
    let (mut host, one, _) = held_back(2);
    let keys: Vec<String> = (5990..6000).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        host.feed(one, format!("*2\r\n$3\r\nDEL\r\n${}\r\n{key}\r\n", key.len()).as_bytes());
    }
    host.settle();
    let mut replies = host.take(one);
    assert!(replies.len() < 4 * keys.len(), "some wait");
    for shard in 0..2 {
        assert!(matches!(host.ask(shard, op(Op::SaveEnd)), Some(Response::Done)));
    }
    host.settle();
    replies.extend(host.take(one));
    assert_eq!(replies, b":1\r\n".repeat(keys.len()));
    assert!(host.shards.iter().all(|shard| shard.locks.is_empty() && shard.parked.is_empty()));
}

/// What SAVE on one shard holds against its clients.
#[test]
fn all_keys_of_one_shard_are_emptied_while_a_save_holds_them() {
    for (words, left) in [(vec!["FLUSHALL"], ":0\r\n"), (vec!["SWAPDB", "0", "1"], ":0\r\n")] {
        let mut host = Host::new(1);
        let conn = host.connect(0, false);
        assert_eq!(host.command(conn, &["SET", "key", "value"]), "+OK\r\n");
        let (keys, guards) = (LockKeys::All, Vec::new());
        let hold = Request::Lock { ticket: 77, keys, needs_memory: false, guards };
        assert!(matches!(host.ask(0, hold), Some(Response::Locked { .. })));
        assert_eq!(host.command(conn, &words), "+OK\r\n");
        assert_eq!(host.command(conn, &["DBSIZE"]), left);
        let release = Request::Op { ticket: 77, op: Op::Nothing, unlock: true };
        assert!(matches!(host.ask(0, release), Some(Response::Done)));
        assert!(host.shards[0].locks.is_empty() && host.shards[0].parked.is_empty());
    }
}
