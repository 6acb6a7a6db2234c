//! Uses every key as a client would who knows its type: what was loaded must bear every command.
//!
//! Invariants: a value that is dumped is restored, and dumps as long as before.

use wire::resp::{Reply, decode_reply};

use super::REPLIES_MAX_BYTES;
use crate::support::{Host, encode};

/// Keys that are used of one input.
const KEYS_MAX: usize = 32;

/// What is asked of a key whatever its type, before it is changed.
const ANY: &[&str] = &[
    "TYPE K",
    "OBJECT ENCODING K",
    "OBJECT IDLETIME K",
    "MEMORY USAGE K SAMPLES 0",
    "PTTL K",
    "EXPIRETIME K",
    "DEBUG OBJECT K",
    "SORT K ALPHA LIMIT 0 10",
    "COPY K copy REPLACE",
];

/// Commands of a type, those that only read first.
const BY_TYPE: &[(&str, &[&str])] = &[
    (
        "string",
        &[
            "GET K",
            "STRLEN K",
            "GETRANGE K -5 -1",
            "BITCOUNT K",
            "BITPOS K 0",
            "PFCOUNT K",
            "PFMERGE m K",
            "GETBIT K 7",
            "BITFIELD K GET u63 1 INCRBY i5 3 1",
            "APPEND K x",
            "SETRANGE K 3 yz",
            "INCRBYFLOAT K 1e300",
            "PFADD K a b c",
            "SETBIT K 9 1",
            "GETDEL K",
        ],
    ),
    (
        "list",
        &[
            "LRANGE K 0 -1",
            "LLEN K",
            "LINDEX K -1",
            "LPOS K x RANK -1 COUNT 0",
            "LINSERT K BEFORE x y",
            "LSET K -1 changed",
            "RPUSH K 7 eight",
            "LPUSH K -9",
            "LREM K -2 x",
            "LMOVE K K LEFT RIGHT",
            "LTRIM K 1 -2",
            "LRANGE K 0 -1",
            "LPOP K 2",
            "RPOP K 100000",
        ],
    ),
    (
        "set",
        &[
            "SMEMBERS K",
            "SCARD K",
            "SISMEMBER K 1",
            "SMISMEMBER K a 2",
            "SSCAN K 0 COUNT 1000",
            "SRANDMEMBER K -5",
            "SRANDMEMBER K 3",
            "SINTER K K",
            "SUNIONSTORE u K K",
            "SDIFF K u",
            "SADD K 70000 -1 99999999999 text",
            "SREM K 1",
            "SMOVE K u text",
            "SMEMBERS K",
            "SPOP K 3",
            "SPOP K 100000",
        ],
    ),
    (
        "zset",
        &[
            "ZRANGE K 0 -1 WITHSCORES",
            "ZCARD K",
            "ZRANGEBYSCORE K -inf +inf WITHSCORES",
            "ZRANGEBYLEX K - + LIMIT 0 9",
            "ZCOUNT K (0 5",
            "ZLEXCOUNT K - +",
            "ZSCAN K 0 COUNT 1000",
            "ZRANK K a",
            "ZRANDMEMBER K -4 WITHSCORES",
            "ZUNIONSTORE u 2 K K WEIGHTS 2 -1e308",
            "ZDIFF 2 K u",
            "GEOSEARCH K FROMLONLAT 13 38 BYRADIUS 9000 km WITHDIST",
            "ZADD K 1.5 a 3 b -inf c",
            "ZINCRBY K 1e308 a",
            "ZINCRBY K inf b",
            "ZREMRANGEBYRANK K 0 0",
            "ZREMRANGEBYSCORE K 2 3",
            "ZRANGE K 0 -1 REV",
            "ZPOPMAX K 2",
            "ZPOPMIN K 100000",
        ],
    ),
    (
        "hash",
        &[
            "HGETALL K",
            "HLEN K",
            "HKEYS K",
            "HVALS K",
            "HSCAN K 0 COUNT 1000",
            "HGET K f",
            "HMGET K f 1 g",
            "HSTRLEN K f",
            "HRANDFIELD K -4 WITHVALUES",
            "HPEXPIRETIME K FIELDS 2 f 1",
            "HSET K f 1 g text",
            "HINCRBY K f 2",
            "HPEXPIRE K 100000 FIELDS 1 f",
            "HPERSIST K FIELDS 1 1",
            "HGETALL K",
            "HDEL K g 1",
            "HGETDEL K FIELDS 1 f",
        ],
    ),
    (
        "stream",
        &[
            "XRANGE K - +",
            "XREVRANGE K + - COUNT 3",
            "XLEN K",
            "XINFO STREAM K FULL COUNT 0",
            "XINFO STREAM K",
            "XINFO GROUPS K",
            "XREAD COUNT 5 STREAMS K 0",
            "XADD K * f v",
            "XGROUP CREATE K new 0",
            "XREADGROUP GROUP new me COUNT 3 STREAMS K >",
            "XPENDING K new - + 10",
            "XTRIM K MAXLEN 5",
            "XDEL K 1-1 0-2",
            "XSETID K 18446744073709551615-5",
            "XRANGE K - +",
            "XADD K * g w",
            "XTRIM K MINID ~ 5",
            "XTRIM K MAXLEN 0",
            "XINFO STREAM K FULL",
        ],
    ),
];

/// Commands of a stream's group, which is `G`, and one of its consumers.
const OF_GROUP: &[&str] = &[
    "XINFO CONSUMERS K G",
    "XPENDING K G",
    "XPENDING K G - + 100",
    "XPENDING K G IDLE 1 - + 10 c",
    "XREADGROUP GROUP G c COUNT 2 STREAMS K >",
    "XREADGROUP GROUP G c STREAMS K 0",
    "XAUTOCLAIM K G c 0 0 COUNT 10",
    "XCLAIM K G d 0 1-1 0-1 FORCE",
    "XACK K G 1-1",
    "XGROUP SETID K G 0 ENTRIESREAD 1",
    "XGROUP DELCONSUMER K G c",
];

/// Uses all keys.
pub(super) fn all(host: &mut Host) {
    let conn = host.connect(0, false);
    for db in 0..3 {
        host.command(conn, &["SELECT", &db.to_string()]);
        for key in keys(host, conn).into_iter().take(KEYS_MAX) {
            one(host, conn, &key);
        }
    }
    host.wait_ms(200_000);
    host.command(conn, &["RANDOMKEY"]);
    host.command(conn, &["FLUSHALL"]);
    host.command(conn, &["MEMORY", "STATS"]);
}

/// The reply that these bytes begin with.
fn decoded(bytes: &[u8]) -> Option<Reply> {
    decode_reply(bytes).ok().flatten().map(|(reply, _)| reply)
}

/// The string that a reply is; none when it is something else.
pub(super) fn bulk(reply: &[u8]) -> Vec<u8> {
    match decoded(reply) {
        Some(Reply::Bulk(text)) => text,
        _ => Vec::new(),
    }
}

fn keys(host: &mut Host, conn: usize) -> Vec<Vec<u8>> {
    let bytes = host.send(conn, &encode(&[b"KEYS", b"*"]));
    let Some(Reply::Array(items)) = decoded(&bytes) else { return Vec::new() };
    let key = |item| if let Reply::Bulk(key) = item { Some(key) } else { None };
    items.into_iter().filter_map(key).collect()
}

fn one(host: &mut Host, conn: usize, key: &[u8]) {
    for line in ANY {
        line_of(host, conn, line, key, b"");
    }
    restored(host, conn, key);
    let kind = host.send(conn, &encode(&[b"TYPE", key]));
    let kind = String::from_utf8_lossy(&kind);
    let kind = kind.trim_start_matches('+').trim_end();
    if kind == "stream" {
        for group in groups(host, conn, key) {
            for line in OF_GROUP {
                line_of(host, conn, line, key, &group);
            }
        }
    }
    let lines = BY_TYPE.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, lines)| lines);
    for line in lines {
        line_of(host, conn, line, key, b"");
    }
    line_of(host, conn, "DEL K copy", key, b"");
}

/// A value that is dumped is restored, and is as long as it was.
fn restored(host: &mut Host, conn: usize, key: &[u8]) {
    let payload = host.send(conn, &encode(&[b"DUMP", key]));
    if payload.starts_with(b"$-1") || payload.starts_with(b"_") {
        return;
    }
    let payload = bulk(&payload);
    let reply = host.send(conn, &encode(&[b"RESTORE", b"again", b"0", &payload, b"REPLACE"]));
    assert_eq!(
        String::from_utf8_lossy(&reply),
        "+OK\r\n",
        "what was dumped is restored: {payload:?}"
    );
    let again = bulk(&host.send(conn, &encode(&[b"DUMP", b"again"])));
    assert_eq!(again.first(), payload.first(), "the type of {payload:?}, dumped again");
    host.send(conn, &encode(&[b"DEL", b"again"]));
}

/// The names of a stream's groups.
fn groups(host: &mut Host, conn: usize, key: &[u8]) -> Vec<Vec<u8>> {
    let bytes = host.send(conn, &encode(&[b"XINFO", b"GROUPS", key]));
    let Some(Reply::Array(groups)) = decoded(&bytes) else { return Vec::new() };
    let name = |group| match group {
        Reply::Array(words) => match words.into_iter().nth(1) {
            Some(Reply::Bulk(name)) => Some(name),
            _ => None,
        },
        _ => None,
    };
    groups.into_iter().filter_map(name).take(4).collect()
}

/// Sends a line, with the key for `K` and the group for `G`.
fn line_of(host: &mut Host, conn: usize, line: &str, key: &[u8], group: &[u8]) {
    let words: Vec<&[u8]> = line
        .split(' ')
        .map(|word| match word {
            "K" => key,
            "G" => group,
            word => word.as_bytes(),
        })
        .collect();
    let reply = host.send(conn, &encode(&words));
    assert!(!reply.is_empty(), "no reply to {line} of {key:?}");
    assert!(reply.len() <= REPLIES_MAX_BYTES, "{} bytes are the reply to {line}", reply.len());
    let whole = decode_reply(&reply);
    assert!(whole.is_ok_and(|it| it.is_some()), "the reply to {line} is not whole");
}
