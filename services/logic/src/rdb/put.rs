//! Writing lengths, strings and values, byte for byte as redis-server 7.0.15 does where the value's form is the same.
//!
//! A hash with fields that expire has no form there; it is written as Redis 7.4 writes it (type 24).
//!
//! Invariant: what was written is read back by `load.rs`, and by Redis.
//! Next: `stream.rs` for streams, `file.rs` for what stands around values.

use super::{kind, listpack, lzf::Compressor, stream};
use crate::{
    object::{
        Cx, Hash, List, Object, Set, Zset,
        hash::FieldTtl,
        list::NodeView,
        packed::{Digits, Entry, Packed, parse_int},
        zset::score_text,
    },
    store::Value,
};

/// Shorter strings are not compressed.
const COMPRESS_FROM: usize = 21;
/// Longest text that may be kept as an integer.
const INTEGER_TEXT_MAX: usize = 11;

/// A buffer that is written to.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was written.
    pub out: Vec<u8>,
    /// Whether long strings are compressed (`rdbcompression`).
    pub compress: bool,
    lzf: Compressor,
}

impl Writer {
    /// An empty one.
    #[must_use]
    pub fn new(compress: bool) -> Self {
        Self { compress, ..Self::default() }
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn millis(&mut self, at_ms: u64) {
        self.bytes(&at_ms.to_le_bytes());
    }

    /// A number.
    pub(super) fn number(&mut self, value: u64) {
        let [.., second, low] = value.to_be_bytes();
        match value {
            0..0x40 => self.byte(low),
            0x40..0x4000 => self.bytes(&[0x40 | second, low]),
            _ => match u32::try_from(value) {
                Ok(value) => {
                    self.byte(0x80);
                    self.bytes(&value.to_be_bytes());
                }
                Err(_) => {
                    self.byte(0x81);
                    self.bytes(&value.to_be_bytes());
                }
            },
        }
    }

    pub(super) fn len(&mut self, len: usize) {
        self.number(len as u64);
    }

    /// A string.
    pub(super) fn string(&mut self, text: &[u8]) {
        if text.len() <= INTEGER_TEXT_MAX
            && let Some(value) = parse_int(text)
            && self.integer(value)
        {
            return;
        }
        if self.compress
            && text.len() >= COMPRESS_FROM
            && let Some(bytes) = self.lzf.compress(text, text.len() - 4)
        {
            self.byte(0xC3);
            self.len(bytes.len());
            self.len(text.len());
            return self.bytes(&bytes);
        }
        self.len(text.len());
        self.bytes(text);
    }

    /// An integer of up to 32 bits in a string's place; whether it is one.
    fn integer(&mut self, value: i64) -> bool {
        if let Ok(value) = i8::try_from(value) {
            self.byte(0xC0);
            self.bytes(&value.to_le_bytes());
        } else if let Ok(value) = i16::try_from(value) {
            self.byte(0xC1);
            self.bytes(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.byte(0xC2);
            self.bytes(&value.to_le_bytes());
        } else {
            return false;
        }
        true
    }

    fn entry(&mut self, entry: Entry<'_>) {
        self.string(entry.text(&mut Digits::new()));
    }

    fn listpack(&mut self, packed: &Packed) {
        self.string(&listpack::wrap(packed));
    }

    /// A value without its type.
    pub(super) fn value(&mut self, value: Value<'_>, cx: Cx<'_>) {
        match value {
            Value::Inline(_) | Value::Shared(_) => self.string(value.as_slice()),
            Value::Object(Object::List(list)) => self.list(list),
            Value::Object(Object::Set(set)) => self.set(set),
            Value::Object(Object::Hash(hash)) => self.hash(hash, cx),
            Value::Object(Object::Zset(zset)) => self.zset(zset),
            Value::Object(Object::Stream(value)) => stream::save(self, value),
        }
    }

    fn list(&mut self, list: &List) {
        self.len(list.nodes().count());
        for node in list.nodes() {
            // Redis gives a node of its own kind only to what no listpack holds.
            self.number(2);
            match node {
                NodeView::Packed(packed) => self.listpack(packed),
                NodeView::Plain(value) => {
                    let mut packed = Packed::new();
                    packed.push_back(Entry::Str(value));
                    self.listpack(&packed);
                }
            }
        }
    }

    fn set(&mut self, set: &Set) {
        if let Some(ints) = set.intset() {
            return self.string(ints.raw());
        }
        self.len(set.len());
        for member in set {
            self.entry(member);
        }
    }

    fn hash(&mut self, hash: &Hash, cx: Cx<'_>) {
        if let Some(packed) = hash.packed() {
            return self.listpack(packed);
        }
        if hash.next_due_ms().is_some() {
            return self.timed_hash(hash, cx);
        }
        self.len(hash.len());
        for (field, value) in hash.iter(cx.now_ms) {
            self.entry(field);
            self.entry(value);
        }
    }

    fn timed_hash(&mut self, hash: &Hash, cx: Cx<'_>) {
        let mut digits = Digits::new();
        let mut earliest = u64::MAX;
        let mut count = 0u64;
        for (field, _) in hash.iter(cx.now_ms) {
            count += 1;
            if let FieldTtl::At(at_ms) = hash.ttl(field.text(&mut digits), cx) {
                earliest = earliest.min(at_ms);
            }
        }
        let earliest = if earliest == u64::MAX { 0 } else { earliest };
        self.millis(earliest);
        self.number(count);
        for (field, value) in hash.iter(cx.now_ms) {
            let ttl = match hash.ttl(field.text(&mut digits), cx) {
                FieldTtl::At(at_ms) => at_ms.saturating_sub(earliest) + 1,
                FieldTtl::NoField | FieldTtl::NoExpiry => 0,
            };
            self.number(ttl);
            self.entry(field);
            self.entry(value);
        }
    }

    fn zset(&mut self, zset: &Zset) {
        if zset.is_packed() {
            let mut packed = Packed::new();
            for item in zset.iter(0..zset.len()) {
                let text = score_text(item.score);
                packed.extend(&[item.member, Entry::from(text.as_slice())]);
            }
            return self.listpack(&packed);
        }
        self.len(zset.len());
        for item in zset.iter(0..zset.len()).rev() {
            self.entry(item.member);
            self.bytes(&item.score.to_le_bytes());
        }
    }
}

/// The type that a value is written with.
pub(super) fn kind_of(value: &Value<'_>) -> u8 {
    match value {
        Value::Inline(_) | Value::Shared(_) => kind::STRING,
        Value::Object(Object::List(_)) => kind::LIST_QUICKLIST_2,
        Value::Object(Object::Set(set)) if set.intset().is_some() => kind::SET_INTSET,
        Value::Object(Object::Set(_)) => kind::SET,
        Value::Object(Object::Hash(hash)) if hash.packed().is_some() => kind::HASH_LISTPACK,
        Value::Object(Object::Hash(hash)) if hash.next_due_ms().is_some() => kind::HASH_TIMED,
        Value::Object(Object::Hash(_)) => kind::HASH,
        Value::Object(Object::Zset(zset)) if zset.is_packed() => kind::ZSET_LISTPACK,
        Value::Object(Object::Zset(_)) => kind::ZSET_2,
        Value::Object(Object::Stream(_)) => kind::STREAM_2,
    }
}
