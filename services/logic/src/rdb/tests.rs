//! Payloads and files of redis-server 7.0.15 read and written back, values of every older type, and anything else borne.
//!
//! `testdata/record.py` has recorded them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod hostile;
mod model;
mod older;

use super::{cursor::Cursor, load::load_whole, *};
use crate::{
    object::{Cx, Hasher, Limits, Object},
    store,
};

const PAYLOADS: &str = include_str!("testdata/payloads.txt");
const FILE: &[u8] = include_bytes!("testdata/dump.rdb");
const NOW_MS: u64 = 1_700_000_000_000;

/// What values are read with.
struct With {
    hasher: Hasher,
    limits: Limits,
}

impl With {
    fn new() -> Self {
        Self { hasher: Hasher::new(3), limits: Limits::default() }
    }

    fn cx(&self) -> Cx<'_> {
        Cx { hasher: &self.hasher, limits: &self.limits, now_ms: NOW_MS }
    }
}

/// A recorded payload.
struct Recorded {
    name: &'static str,
    /// Ours must be equal to the byte.
    equal: bool,
    payload: Vec<u8>,
}

fn recorded() -> Vec<Recorded> {
    let case = |line: &'static str| {
        let mut words = line.split(' ');
        let (name, equal) = (words.next().unwrap(), words.next().unwrap() == "=");
        let digits = words.next().unwrap().as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        Recorded { name, equal, payload: digits.map(byte).collect() }
    };
    PAYLOADS.lines().map(case).collect()
}

fn view(value: &Value) -> store::Value<'_> {
    match value {
        Value::String(bytes) => store::Value::Shared(bytes),
        Value::Object(object) => store::Value::Object(object),
    }
}

fn payload_of(value: &Value, cx: Cx<'_>) -> Vec<u8> {
    let mut writer = Writer::new(true);
    dump(&mut writer, view(value), cx);
    writer.out
}

/// What a value holds, in an order of its own where it has none.
fn contents(value: &Value) -> Vec<String> {
    let mut out: Vec<String> = match value {
        Value::String(bytes) => vec![format!("{bytes:?}")],
        Value::Object(Object::List(list)) => {
            list.iter().map(|one| format!("{:?}", one.to_vec())).collect()
        }
        Value::Object(Object::Set(set)) => {
            set.iter().map(|one| format!("{:?}", one.to_vec())).collect()
        }
        Value::Object(Object::Hash(hash)) => {
            let with = With::new();
            let pair = |(field, value): (
                crate::object::packed::Entry<'_>,
                crate::object::packed::Entry<'_>,
            )| {
                let ttl = hash.ttl(&field.to_vec(), with.cx());
                format!("{:?} {:?} {ttl:?}", field.to_vec(), value.to_vec())
            };
            hash.iter(NOW_MS).map(pair).collect()
        }
        Value::Object(Object::Zset(zset)) => zset
            .iter(0..zset.len())
            .map(|one| format!("{:?} {}", one.member.to_vec(), one.score))
            .collect(),
        Value::Object(Object::Stream(stream)) => stream_contents(stream),
    };
    if matches!(value, Value::Object(Object::Set(_) | Object::Hash(_))) {
        out.sort();
    }
    out
}

fn stream_contents(stream: &crate::object::Stream) -> Vec<String> {
    let all = (crate::object::stream::StreamId::MIN, crate::object::stream::StreamId::MAX);
    let mut out = vec![format!(
        "{} {} {} {}",
        stream.last_id(),
        stream.first_id(),
        stream.max_deleted_id(),
        stream.entries_added()
    )];
    for entry in stream.range(all.0, all.1) {
        out.push(format!("{} {:?}", entry.id(), entry.fields().collect::<Vec<_>>()));
    }
    for group in stream.groups() {
        out.push(format!("{:?} {} {:?}", group.name(), group.last_id(), group.entries_read()));
        for consumer in group.consumers() {
            out.push(format!("{:?} {}", consumer.name(), consumer.seen_ms()));
            out.extend(consumer.pending(all.0, all.1).map(|pending| format!("{pending:?}")));
        }
    }
    out
}

#[test]
fn payloads_of_redis_come_back_to_the_byte() {
    let with = With::new();
    let cases = recorded();
    assert!(cases.len() > 50);
    for Recorded { name, equal, payload } in cases {
        let value =
            restore(&payload, with.cx()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let ours = payload_of(&value, with.cx());
        if equal {
            assert_eq!(ours, payload, "{name}");
        }
        let again = restore(&ours, with.cx()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(contents(&again), contents(&value), "{name}");
    }
}

#[test]
fn what_has_changed_on_the_way_is_refused() {
    let with = With::new();
    for Recorded { payload, .. } in recorded().into_iter().filter(|case| case.payload.len() < 100) {
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 0x10;
            assert_eq!(restore(&changed, with.cx()).err(), Some(RestoreError::Footer));
            assert_eq!(restore(&payload[..at], with.cx()).err(), Some(RestoreError::Footer));
        }
    }
}

/// A key of a file: its database, its name, what stands beside it, and what it holds.
type Key = (u64, Vec<u8>, Attributes, Vec<String>);

/// Reads a file in pieces of a size; its keys, with what they hold.
fn read_file(bytes: &[u8], piece: usize) -> Result<Vec<Key>, Bad> {
    let with = With::new();
    let (mut reader, mut pieces) = (Reader::new(), bytes.chunks(piece));
    let mut keys = Vec::new();
    loop {
        let mut is_empty = false;
        match reader.next()? {
            Some(Item::Key(record)) => {
                let value = record.load(with.cx())?;
                keys.push((record.db, record.key.to_vec(), record.attributes, contents(&value)));
            }
            Some(Item::End) => return Ok(keys),
            Some(_) => {}
            None => is_empty = true,
        }
        if is_empty {
            match pieces.next() {
                Some(piece) => reader.feed(piece),
                None => reader.end(),
            }
        }
    }
}

#[test]
fn a_file_of_redis_is_read_in_pieces_of_any_size() {
    let whole = read_file(FILE, FILE.len()).unwrap();
    assert_eq!(whole.len(), recorded().len() + 1);
    let (db, key, attributes, _) = whole.last().unwrap();
    assert_eq!((*db, &**key), (3, &b"other"[..]));
    assert_eq!(attributes.expire_at_ms, Some(4_102_444_800_123));
    for piece in [1, 7, 4096] {
        assert_eq!(read_file(FILE, piece).unwrap(), whole, "pieces of {piece}");
    }
}

#[test]
fn a_torn_file_is_told_with_its_position() {
    let ends = [0, 1, 8, 9, 10, 100, 1000, FILE.len() / 2, FILE.len() - 9, FILE.len() - 1];
    for end in ends {
        let error = read_file(&FILE[..end], 100).unwrap_err();
        assert_eq!(error, Bad { at: end as u64, what: "the file ends too early" });
    }
    let mut changed = FILE.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(read_file(&changed, 100).unwrap_err().what, "the checksum is wrong");
    let len = changed.len();
    changed[len - 8..].fill(0);
    assert!(read_file(&changed, 100).is_ok(), "none was computed");
    assert_eq!(read_file(b"REDIS0013", 9).unwrap_err().at, 0);
    assert_eq!(read_file(b"ROSES0010", 9).unwrap_err().at, 0);
}

#[test]
fn a_file_written_here_is_read_here() {
    let with = With::new();
    let mut writer = Writer::new(true);
    writer.header();
    writer.aux("redis-ver", b"7.0.15");
    writer.function(b"#!lua name=x\n");
    writer.database(5, 2, 1);
    let attributes =
        Attributes { expire_at_ms: Some(NOW_MS + 5), idle_s: Some(70_000), freq: None };
    writer.key(b"a", store::Value::Inline(b"text"), attributes, with.cx());
    let often = Attributes { freq: Some(200), ..Attributes::default() };
    writer.key(b"12", store::Value::Inline(b"12"), often, with.cx());
    writer.eof();
    let crc = crc64::of(&writer.out);
    writer.checksum(crc);
    let keys = read_file(&writer.out, 3).unwrap();
    assert_eq!(keys[0], (5, b"a".to_vec(), attributes, contents(&Value::String("text".into()))));
    assert_eq!((&keys[1].1[..], keys[1].2), (&b"12"[..], often));
}
