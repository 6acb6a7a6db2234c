//! Several shards: one message per shard and pipeline, replies in order, nothing shared with Redis' keys.

use bytes::Bytes;
use view::{Input, Output, Session as _};

use super::Host;
use crate::work::{Op, Request};

#[test]
fn a_pipeline_asks_each_shard_once() {
    let mut host = Host::new(3);
    let conn = host.connect(1);
    let sets: String = (0..100).map(|key| format!("set k{key} {key} 0 1\r\nx\r\n")).collect();
    assert_eq!(host.text(conn, &sets), "STORED\r\n".repeat(100));
    assert_eq!(host.asked, 2);
    let keys: String = (0..100).map(|key| format!(" k{key}")).collect();
    let expected: String = (0..100).map(|key| format!("VALUE k{key} {key} 1\r\nx\r\n")).collect();
    assert_eq!(host.text(conn, &format!("get{keys}\r\n")), format!("{expected}END\r\n"));
    assert_eq!(host.asked, 4);
    let gats = host.text(conn, &format!("gats 100{keys} nope\r\nmg k7 t\r\n"));
    assert_eq!(gats.matches("VALUE k").count(), 100);
    assert!(gats.ends_with("END\r\nHD t100\r\n"));
}

#[test]
fn stats_are_of_all_shards() {
    let mut host = Host::new(3);
    let conn = host.connect(0);
    let sets: String = (0..50).map(|key| format!("set k{key} 0 0 1\r\nx\r\n")).collect();
    host.text(conn, &sets);
    host.text(conn, "get k1 k2 k3 nope\r\n");
    let stats = host.text(conn, "stats\r\n");
    for line in ["curr_items 50", "cmd_set 50", "cmd_get 4", "get_hits 3", "get_misses 1"] {
        assert!(stats.contains(&format!("STAT {line}\r\n")), "{line}: {stats}");
    }
    assert!(stats.ends_with("END\r\n"));
    assert!(host.text(conn, "stats items\r\n").contains("STAT items:1:number 50\r\n"));
    assert_eq!(host.text(conn, "stats reset\r\nflush_all\r\n"), "RESET\r\nOK\r\n");
    let stats = host.text(conn, "stats\r\n");
    assert!(stats.contains("curr_items 0\r\n") && stats.contains("cmd_get 0\r\n"));
    assert!(stats.contains("cmd_flush 1\r\n"));
}

#[test]
fn large_values_travel_by_reference() {
    for shards in [1, 2] {
        let mut host = Host::new(shards);
        host.owned = true;
        let conn = host.connect(0);
        for (key, len) in [("a", 4095), ("b", 4090), ("c", 4096), ("d", 100_000), ("e", 1_000_000)]
        {
            for flags in [0, 7, 70_000] {
                let data = "v".repeat(len);
                let set = format!("set {key} {flags} 0 {len}\r\n{data}\r\n");
                assert_eq!(host.text(conn, &set), "STORED\r\n");
                let got = host.text(conn, &format!("get {key}\r\n"));
                assert!(got == format!("VALUE {key} {flags} {len}\r\n{data}\r\nEND\r\n"), "{len}");
                let got = host.text(conn, &format!("gets {key}\r\n"));
                assert!(got.starts_with(&format!("VALUE {key} {flags} {len} ")));
                assert!(host.text(conn, &format!("mg {key} f v\r\n")).contains(&data));
            }
        }
    }
    // What comes in owned goes out as the same bytes.
    let mut host = Host::new(1);
    let conn = host.connect(0);
    let whole = Bytes::from(format!("set k 5 0 50000\r\n{}\r\n", "x".repeat(50_000)));
    let mut input = Input::owned(&whole);
    let mut out = Output::default();
    let now = host.now;
    let session = &mut host.connections[conn].session;
    session.on_bytes(&mut input, &mut out, &mut host.shards[0], now);
    session.on_bytes(&mut Input::borrowed(b"get k\r\n"), &mut out, &mut host.shards[0], now);
    let data = out.pieces(0).find(|piece| piece.len() == 50_000).expect("a piece of its own");
    assert!(std::ptr::eq(data.as_ptr(), whole[17..].as_ptr()));
}

#[test]
fn items_and_keys_are_apart() {
    let mut host = Host::new(1);
    let conn = host.connect(0);
    host.text(conn, "set k 0 0 1\r\nx\r\n");
    let shard = &mut host.shards[0];
    let db = shard.store.items_db();
    assert_eq!((shard.store.len(0), shard.store.len(db)), (0, 1));
    let info = crate::ConnInfo { id: 1, peer: "p", local: "l", fd: 1, shard_port: false, conn: 0 };
    let mut redis = crate::Session::new(info, shard, host.now);
    let mut out = Output::default();
    let commands = b"GET k\r\nSET k 1\r\nSELECT 16\r\n";
    redis.on_bytes(&mut Input::borrowed(commands), &mut out, shard, host.now);
    let text = String::from_utf8_lossy(&out.to_vec()).into_owned();
    assert_eq!(text, "$-1\r\n+OK\r\n-ERR DB index is out of range\r\n");
    let flush = Request::Op { ticket: 0, op: Op::Flush(None), unlock: false };
    shard.serve(0, flush, host.now, &mut Vec::new());
    assert_eq!((shard.store.len(0), shard.store.len(db)), (0, 1));
    assert_eq!(host.text(conn, "get k\r\n"), "VALUE k 0 1\r\nx\r\nEND\r\n");
}
