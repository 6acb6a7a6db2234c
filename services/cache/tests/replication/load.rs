//! Random commands of many kinds, and everything a server holds as text.
//!
//! Invariant: what is read does not depend on encodings, on the order of sets and hashes, or on the time of reading.

use std::collections::BTreeMap;

use crate::common::Rng;
use crate::common::resp::{Client, Reply};

/// Databases that are written to.
pub(crate) const DATABASES: u16 = 3;
/// Keys of a type.
const KEYS: usize = 12;

pub(crate) fn call<A: AsRef<[u8]>>(client: &mut Client, words: &[A]) -> Reply {
    let shown = || words.iter().map(|word| String::from_utf8_lossy(word.as_ref()).into_owned());
    client.call(words).unwrap_or_else(|error| panic!("{:?}: {error}", shown().collect::<Vec<_>>()))
}

pub(crate) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Int(number) => number.to_string(),
        Reply::Seq(_, items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(" "))
        }
        Reply::Nil | Reply::NilArray | Reply::Null => "nil".into(),
        reply => reply.bytes().escape_ascii().to_string(),
    }
}

/// One random command.
pub(crate) fn command(rng: &mut Rng) -> Vec<String> {
    let key = |rng: &mut Rng, kind: char| format!("{kind}{}", rng.below(KEYS));
    let number = |rng: &mut Rng| (rng.below(200) as i64 - 100).to_string();
    let member = |rng: &mut Rng| format!("m{}", rng.below(30));
    let mut words: Vec<String> = Vec::new();
    let mut say = |text: &str| words.extend(text.split(' ').map(String::from));
    let kind = rng.below(100);
    match kind {
        0..20 => string(rng, &key, &number, &mut say),
        20..33 => list(rng, &key, &member, &mut say),
        33..45 => set(rng, &key, &member, &mut say),
        45..57 => zset(rng, &key, &member, &number, &mut say),
        57..66 => {
            let (k, f, n) = (key(rng, 'h'), member(rng), number(rng));
            match rng.below(6) {
                0 | 1 => say(&format!("HSET {k} {f} {n} x{f} y")),
                2 => say(&format!("HDEL {k} {f}")),
                3 => say(&format!("HINCRBY {k} n{f} {n}")),
                4 => say(&format!("HINCRBYFLOAT {k} f{f} 0.1")),
                _ => say(&format!("HSETNX {k} {f} {n}")),
            }
        }
        66..80 => stream(rng, &key, &number, &mut say),
        80..94 => several(rng, &key, &member, &mut say),
        94..97 => say(&format!("SELECT {}", rng.below(usize::from(DATABASES)))),
        97 => say(&format!("SWAPDB {} {}", rng.below(3), rng.below(3))),
        98 if rng.one_in(5) => say("FLUSHDB"),
        98 => say(&format!("MOVE {} {}", key(rng, 's'), rng.below(3))),
        _ => {
            let code = format!(
                "#!lua name=lib{}\nredis.register_function('f{}', function() return {} end)",
                rng.below(3),
                rng.below(3),
                rng.below(1000)
            );
            words.extend(["FUNCTION".into(), "LOAD".into(), "REPLACE".into(), code]);
        }
    }
    words
}

type Key<'a> = &'a dyn Fn(&mut Rng, char) -> String;
type Word<'a> = &'a dyn Fn(&mut Rng) -> String;

fn string(rng: &mut Rng, key: Key<'_>, number: Word<'_>, say: &mut dyn FnMut(&str)) {
    let (k, n) = (key(rng, 's'), number(rng));
    match rng.below(16) {
        0 | 1 => say(&format!("SET {k} {n}")),
        2 => say(&format!("SET {k} {n} PX {}", 1 + rng.below(60))),
        3 => say(&format!("SET {k} {n} EX 1000")),
        4 => say(&format!("INCRBY {k} {n}")),
        5 => say(&format!("INCRBYFLOAT {k} 0.25")),
        6 => say(&format!("APPEND {k} 1")),
        7 => say(&format!("PEXPIRE {k} {}", 1 + rng.below(60))),
        8 => say(&format!("PERSIST {k}")),
        9 => say(&format!("GETSET {k} {n}")),
        10 => say(&format!("SETRANGE {k} {} 7", rng.below(9))),
        11 => say(&format!("GETEX {k} PX {}", 1 + rng.below(2000))),
        12 => say(&format!("GETDEL {k}")),
        13 => say(&format!("SETBIT b{k} {} 1", rng.below(90))),
        14 => say(&format!("PFADD p{k} {n}")),
        _ => say(&format!("SETEX {k} 100 {n}")),
    }
}

fn list(rng: &mut Rng, key: Key<'_>, member: Word<'_>, say: &mut dyn FnMut(&str)) {
    let (k, l, m) = (key(rng, 'l'), key(rng, 'l'), member(rng));
    match rng.below(11) {
        0 | 1 => say(&format!("RPUSH {k} {m} 1 x")),
        2 => say(&format!("LPUSH {k} {m}")),
        3 => say(&format!("LPOP {k}")),
        4 => say(&format!("RPOP {k} 2")),
        5 => say(&format!("LMOVE {k} {l} LEFT RIGHT")),
        6 => say(&format!("RPOPLPUSH {k} {l}")),
        7 => say(&format!("LMPOP 2 {k} {l} LEFT COUNT 2")),
        8 => say(&format!("LREM {k} 1 x")),
        9 => say(&format!("BLPOP {k} {l} 0.01")),
        _ => say(&format!("LTRIM {k} 0 20")),
    }
}

fn set(rng: &mut Rng, key: Key<'_>, member: Word<'_>, say: &mut dyn FnMut(&str)) {
    let (k, l, m) = (key(rng, 't'), key(rng, 't'), member(rng));
    match rng.below(8) {
        0..3 => say(&format!("SADD {k} {m} {}", member(rng))),
        3 => say(&format!("SPOP {k}")),
        4 => say(&format!("SPOP {k} 3")),
        5 => say(&format!("SMOVE {k} {l} {m}")),
        6 => say(&format!("SREM {k} {m}")),
        _ => say(&format!("SUNIONSTORE {k} {l} {}", key(rng, 't'))),
    }
}

fn zset(
    rng: &mut Rng,
    key: Key<'_>,
    member: Word<'_>,
    number: Word<'_>,
    say: &mut dyn FnMut(&str),
) {
    let (k, l, m, n) = (key(rng, 'z'), key(rng, 'z'), member(rng), number(rng));
    match rng.below(11) {
        0..3 => say(&format!("ZADD {k} {n} {m} 0.5 {}", member(rng))),
        3 | 4 => say(&format!("ZPOPMIN {k}")),
        5 => say(&format!("ZPOPMAX {k} 2")),
        6 => say(&format!("ZINCRBY {k} 1.5 {m}")),
        7 => say(&format!("ZUNIONSTORE {k} 2 {k} {l}")),
        8 => say(&format!("BZPOPMIN {k} {l} 0.01")),
        9 => say(&format!("ZREMRANGEBYRANK {k} 10 -1")),
        _ => say(&format!("ZRANGESTORE {k} {l} 0 4")),
    }
}

fn stream(rng: &mut Rng, key: Key<'_>, number: Word<'_>, say: &mut dyn FnMut(&str)) {
    let (k, n) = (key(rng, 'x'), number(rng));
    let who = format!("c{}", rng.below(3));
    match rng.below(11) {
        0..3 => say(&format!("XADD {k} * f {n}")),
        3 => say(&format!("XADD {k} MAXLEN ~ 20 * f {n} g 1")),
        4 => say(&format!("XADD {k} MAXLEN 10 * f {n}")),
        5 => say(&format!("XGROUP CREATE {k} g 0 MKSTREAM")),
        6 | 7 => say(&format!("XREADGROUP GROUP g {who} COUNT 3 STREAMS {k} >")),
        8 => say(&format!("XAUTOCLAIM {k} g {who} 0 0 COUNT 2")),
        9 => say(&format!("XTRIM {k} MAXLEN 15")),
        _ => say(&format!("XGROUP DELCONSUMER {k} g {who}")),
    }
}

fn several(rng: &mut Rng, key: Key<'_>, member: Word<'_>, say: &mut dyn FnMut(&str)) {
    let (k, l) = (key(rng, 's'), key(rng, 's'));
    let any = |rng: &mut Rng| {
        let kind = ['s', 'l', 't', 'z', 'h', 'x'][rng.below(6)];
        key(rng, kind)
    };
    match rng.below(11) {
        0 | 1 => say(&format!("MSET {k} 1 {l} 2 {} 3", key(rng, 's'))),
        2 => say(&format!("MSETNX {k} 1 {l} 2")),
        3 => say(&format!("DEL {} {} {}", any(rng), any(rng), any(rng))),
        4 => say(&format!("RENAME {} {}", key(rng, 'l'), key(rng, 'l'))),
        5 => say(&format!("COPY {} {} REPLACE", key(rng, 'z'), key(rng, 'z'))),
        6 => say(&format!("BITOP XOR b{k} b{l} b{}", key(rng, 's'))),
        7 => say(&format!("SORT {} BY nosort STORE {}", key(rng, 't'), key(rng, 'l'))),
        8 => say(&format!("UNLINK {} {}", any(rng), any(rng))),
        9 => say(&format!("SINTERSTORE {} {} {}", key(rng, 't'), key(rng, 't'), key(rng, 't'))),
        _ => say(&format!("GEOADD g{} 13.3 38.1 {}", rng.below(4), member(rng))),
    }
}

const SCRIPTS: [&str; 3] = [
    "redis.call('INCR', KEYS[1]); redis.call('RPUSH', KEYS[2], redis.call('GET', KEYS[1])); return 1",
    "redis.call('SPOP', KEYS[3]); redis.call('ZADD', KEYS[4], 1, ARGV[1]); return redis.call('SET', KEYS[1], 7, 'PX', 40)",
    "redis.call('MSET', KEYS[1], 5, 'extra1', ARGV[1]); return redis.call('LPOP', KEYS[2])",
];

/// Sends a few random commands, perhaps as a transaction, or a script; replies do not matter, errors are some of them.
pub(crate) fn write(client: &mut Client, rng: &mut Rng) -> std::io::Result<()> {
    if rng.one_in(12) {
        client.call(&["MULTI"])?;
        for _ in 0..1 + rng.below(6) {
            let words = command(rng);
            client.call(&words)?;
        }
        return client.call(&["EXEC"]).map(drop);
    }
    if rng.one_in(12) {
        let keys = ['s', 'l', 't', 'z'].map(|kind| format!("{kind}{}", rng.below(KEYS)));
        let script = SCRIPTS[rng.below(SCRIPTS.len())];
        let mut words = vec!["EVAL".to_owned(), script.into(), "4".into()];
        words.extend(keys);
        words.push(format!("m{}", rng.below(30)));
        return client.call(&words).map(drop);
    }
    let words = command(rng);
    client.call(&words).map(drop)
}

/// Everything there is: each key with its type, value and expiry, and the functions.
pub(crate) fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for db in 0..DATABASES {
        call(client, &["SELECT", &db.to_string()]);
        for key in call(client, &["KEYS", "*"]).items() {
            if let Some(value) = value(client, key.bytes()) {
                all.insert(format!("{db}:{}", key.bytes().escape_ascii()), value);
            }
        }
    }
    call(client, &["SELECT", "0"]);
    let functions = call(client, &["FUNCTION", "LIST", "WITHCODE"]);
    let mut libraries: Vec<String> = functions.items().iter().map(text).collect();
    libraries.sort();
    all.insert("functions".into(), libraries.join(" "));
    all
}

/// A key's type, value and expiry; nothing when it has gone meanwhile.
fn value(client: &mut Client, key: &[u8]) -> Option<String> {
    let kind = text(&call(client, &[b"TYPE", key]));
    let mut read = |words: &[&[u8]]| call(client, words);
    let sorted = |reply: &Reply, step: usize| {
        let mut items: Vec<String> = reply
            .items()
            .chunks(step)
            .map(|part| part.iter().map(text).collect::<Vec<_>>().join("="))
            .collect();
        items.sort();
        items.join(" ")
    };
    let value = match kind.as_str() {
        "none" => return None,
        "string" => text(&read(&[b"GET", key])),
        "list" => text(&read(&[b"LRANGE", key, b"0", b"-1"])),
        "set" => sorted(&read(&[b"SMEMBERS", key]), 1),
        "hash" => sorted(&read(&[b"HGETALL", key]), 2),
        "zset" => text(&read(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])),
        _ => stream_value(client, key),
    };
    let expiry = text(&call(client, &[b"PEXPIRETIME", key]));
    (expiry != "-2").then(|| format!("{kind} {value} until {expiry}"))
}

/// Entries, groups, who they were delivered to and how often.
fn stream_value(client: &mut Client, key: &[u8]) -> String {
    let entries = text(&call(client, &[b"XRANGE", key, b"-", b"+"]));
    let groups = call(client, &[&b"XINFO"[..], b"GROUPS", key]);
    let mut told = vec![entries];
    for group in groups.items() {
        let name = group.items().get(1).map(|name| name.bytes().to_vec()).unwrap_or_default();
        // Not how many entries were read: redis 7.0 does not tell its replicas.
        told.extend(group.items().iter().take(8).map(text));
        let pending = call(client, &[b"XPENDING", key, &name[..], b"-", b"+", b"1000"]);
        for entry in pending.items() {
            // Not the third: how long ago it was.
            let part = |at: usize| entry.items().get(at).map(text).unwrap_or_default();
            told.push(format!("{} {} {}", part(0), part(1), part(3)));
        }
        let consumers = call(client, &[&b"XINFO"[..], b"CONSUMERS", key, &name]);
        let mut names: Vec<String> =
            consumers.items().iter().filter_map(|one| one.items().get(1).map(text)).collect();
        names.sort();
        told.push(names.join(","));
    }
    let info = call(client, &[&b"XINFO"[..], b"STREAM", key]);
    for pair in info.items().chunks(2) {
        let [name, value] = pair else { continue };
        let wanted = ["last-generated-id", "max-deleted-entry-id", "entries-added"];
        if wanted.contains(&text(name).as_str()) {
            told.push(text(value));
        }
    }
    told.join(" | ")
}
