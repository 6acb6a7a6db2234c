//! Random commands on hashes, sets, bitmaps and HyperLogLogs.
//!
//! Where next: `../differential.rs` sends them. What takes several keys takes keys of one slot.

use super::common::resp::Reply;
use super::{Build, FLOATS, GLOBS, INTEGERS, upper};

/// Keys of one slot.
const TAGGED: &[&str] = &["{t}1", "{t}2", "{t}3", "{t}4"];
const ELEMENTS: &[&str] = &[
    "a",
    "b",
    "c",
    "1",
    "2",
    "3",
    "-5",
    "01",
    "70000",
    "5000000000",
    "",
    "abc",
    "1.5",
    "a value of some more than sixty-four bytes, so that it is too long to be packed in",
];
const COUNTS: &[&str] = &["0", "1", "2", "5", "100", "-1", "-3", "abc", "1.5", ""];
const BIT_OFFSETS: &[&str] =
    &["0", "1", "7", "8", "15", "100", "1000", "-1", "abc", "4294967296", "#1", "#3", "#-1"];
const BIT_TYPES: &[&str] =
    &["u1", "u8", "i8", "u7", "i5", "u63", "i64", "u64", "i65", "u0", "x8", "i", "i1", "u32"];

impl Build<'_> {
    fn element(&mut self) {
        self.one(ELEMENTS);
    }

    fn tagged(&mut self) {
        self.one(TAGGED);
    }

    fn element_scan(&mut self) {
        self.one(&["0", "0", "0", "0", "abc", "1.5"]);
        for _ in 0..self.rng.below(3) {
            match self.rng.below(4) {
                0 | 1 => {
                    self.word("MATCH");
                    self.one(GLOBS);
                }
                2 => {
                    self.word("COUNT");
                    self.one(&["1", "10", "1000", "0", "-1", "abc"]);
                }
                _ => self.one(&["FOO", "MATCH", "COUNT", "TYPE"]),
            }
        }
    }

    pub(super) fn hash_command(&mut self, which: usize) {
        let names = [
            "HSET",
            "HSET",
            "HSET",
            "HMSET",
            "HSETNX",
            "HGET",
            "HMGET",
            "HGETALL",
            "HKEYS",
            "HVALS",
            "HLEN",
            "HSTRLEN",
            "HEXISTS",
            "HDEL",
            "HINCRBY",
            "HINCRBYFLOAT",
            "HSCAN",
            "HRANDFIELD",
        ];
        let name = names[which % names.len()];
        self.word(name);
        self.tagged();
        match name {
            "HSET" | "HMSET" => self.some(3, |b| {
                b.element();
                b.element();
            }),
            "HSETNX" => {
                self.element();
                self.element();
            }
            "HMGET" | "HDEL" => self.some(3, Self::element),
            "HGET" | "HSTRLEN" | "HEXISTS" => self.element(),
            "HINCRBY" => {
                self.element();
                self.one(INTEGERS);
            }
            "HINCRBYFLOAT" => {
                self.element();
                self.one(FLOATS);
            }
            "HSCAN" => self.element_scan(),
            "HRANDFIELD" => {
                self.one(COUNTS);
                if self.rng.one_in(2) {
                    self.one(&["WITHVALUES", "withvalues", "FOO"]);
                }
            }
            _ => {}
        }
    }

    pub(super) fn set_command(&mut self, which: usize) {
        let names = [
            "SADD",
            "SADD",
            "SADD",
            "SADD",
            "SREM",
            "SMEMBERS",
            "SCARD",
            "SISMEMBER",
            "SMISMEMBER",
            "SMOVE",
            "SPOP",
            "SRANDMEMBER",
            "SINTER",
            "SUNION",
            "SDIFF",
            "SINTERSTORE",
            "SUNIONSTORE",
            "SDIFFSTORE",
            "SINTERCARD",
            "SSCAN",
        ];
        let name = names[which % names.len()];
        self.word(name);
        match name {
            "SINTER" | "SUNION" | "SDIFF" => return self.some(3, Self::tagged),
            "SINTERCARD" => {
                self.one(&["1", "2", "2", "3", "0", "-1", "abc"]);
                self.some(3, Self::tagged);
                if self.rng.one_in(2) {
                    self.one(&["LIMIT", "limit", "FOO"]);
                    self.one(&["0", "1", "2", "-1", "abc"]);
                }
                return;
            }
            _ => self.tagged(),
        }
        match name {
            "SADD" | "SREM" | "SMISMEMBER" => self.some(4, Self::element),
            "SISMEMBER" => self.element(),
            "SMOVE" => {
                self.tagged();
                self.element();
            }
            // Fewer than all would leave different members on each server.
            "SPOP" => self.one(&["1000", "0", "-1", "abc"]),
            "SRANDMEMBER" => self.one(COUNTS),
            "SINTERSTORE" | "SUNIONSTORE" | "SDIFFSTORE" => self.some(3, Self::tagged),
            "SSCAN" => self.element_scan(),
            _ => {}
        }
    }

    pub(super) fn bit_command(&mut self, which: usize) {
        let names = [
            "SETBIT",
            "SETBIT",
            "GETBIT",
            "BITCOUNT",
            "BITPOS",
            "BITOP",
            "BITFIELD",
            "BITFIELD_RO",
            "PFADD",
            "PFCOUNT",
            "PFMERGE",
            "GET",
        ];
        let name = names[which % names.len()];
        self.word(name);
        if name == "BITOP" {
            self.one(&["AND", "OR", "XOR", "NOT", "not", "FOO"]);
        }
        self.tagged();
        match name {
            "SETBIT" => {
                self.one(BIT_OFFSETS);
                self.one(&["0", "1", "2", "-1", "abc"]);
            }
            "GETBIT" => self.one(BIT_OFFSETS),
            "BITCOUNT" => self.bit_range(),
            "BITPOS" => {
                self.one(&["0", "1", "0", "1", "2", "abc"]);
                self.bit_range();
            }
            "BITOP" | "PFCOUNT" | "PFMERGE" => self.some(2, Self::tagged),
            "BITFIELD" => self.some(4, Self::bit_step),
            "BITFIELD_RO" => self.some(2, |b| {
                b.one(&["GET", "get", "GET", "SET"]);
                b.one(BIT_TYPES);
                b.one(BIT_OFFSETS);
            }),
            "PFADD" => self.some(4, Self::element),
            _ => {}
        }
    }

    fn bit_range(&mut self) {
        for _ in 0..self.rng.below(3) {
            self.one(INTEGERS);
        }
        if self.rng.one_in(3) {
            self.one(&["BIT", "bit", "BYTE", "FOO"]);
        }
    }

    fn bit_step(&mut self) {
        match self.rng.below(5) {
            0 => {
                self.word("GET");
                self.one(BIT_TYPES);
                self.one(BIT_OFFSETS);
            }
            1 | 2 => {
                self.one(&["SET", "INCRBY"]);
                self.one(BIT_TYPES);
                self.one(BIT_OFFSETS);
                self.one(INTEGERS);
            }
            3 => {
                self.word("OVERFLOW");
                self.one(&["WRAP", "SAT", "FAIL", "FOO"]);
            }
            _ => self.one(&["FOO", "GET", "OVERFLOW", "SET"]),
        }
    }
}

/// Whether two replies are equal but for the order of elements and for chance; `None` for other commands.
pub(super) fn equal(name: &[u8], redis: &Reply, ours: &Reply) -> Option<bool> {
    Some(match name {
        b"SMEMBERS" | b"SINTER" | b"SUNION" | b"SDIFF" | b"SPOP" | b"HGETALL" | b"HKEYS"
        | b"HVALS" => flat(redis) == flat(ours),
        b"SRANDMEMBER" | b"HRANDFIELD" => match (redis, ours) {
            (Reply::Seq(..), Reply::Seq(..)) => redis.items().len() == ours.items().len(),
            (Reply::Bulk(_), Reply::Bulk(_)) => true,
            _ => redis == ours,
        },
        _ => return None,
    })
}

/// What a reply holds at any depth, in order of the text.
fn flat(reply: &Reply) -> Vec<String> {
    let mut parts = match reply {
        Reply::Seq(kind, items) => {
            let mut parts = vec![format!("{kind}{}", items.len())];
            parts.extend(items.iter().flat_map(flat));
            parts
        }
        other => vec![format!("{other:?}")],
    };
    parts.sort();
    parts
}

/// Whether a command may be spoiled without a difference that is due to chance.
pub(super) fn may_spoil(command: &[Vec<u8>]) -> bool {
    // SPOP without a count, or with a small one, leaves different members.
    upper(command.first()) != b"SPOP"
}
