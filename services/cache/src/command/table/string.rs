//! Rows of the command table: string commands.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    lcs, number,
    row::{
        A_FAST, A_READ, A_SLOW, A_STRING, A_WRITE, DENYOOM, FAST, KeySpec, READONLY, Row, WRITE,
        arg, row,
    },
    string,
};

pub(super) static ROWS: &[Row] = &[
    row("get", 2, string::get)
        .flags(READONLY | FAST, A_READ | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RO", "access"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "1.0.0", "Get the value of a key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("set", -3, string::set)
        .flags(WRITE | DENYOOM, A_WRITE | A_STRING | A_SLOW)
        .untimed()
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: Some("RW and ACCESS due to the optional `GET` argument"),
                flags: &["RW", "access", "update", "variable_flags"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "1.0.0", "Set the string value of a key")
        .complexity("O(1)")
        .history(&[
            ("2.6.12", "Added the `EX`, `PX`, `NX` and `XX` options."),
            ("6.0.0", "Added the `KEEPTTL` option."),
            ("6.2.0", "Added the `GET`, `EXAT` and `PXAT` option."),
            (
                "7.0.0",
                "Allowed the `NX` and `GET` options to be used \
together.",
            ),
        ])
        .args(&[
            arg("key", "key").spec(0),
            arg("value", "string"),
            arg("condition", "oneof")
                .since("2.6.12")
                .flags(&["optional"])
                .args(&[arg("nx", "pure-token").token("NX"), arg("xx", "pure-token").token("XX")]),
            arg("get", "pure-token").token("GET").since("6.2.0").flags(&["optional"]),
            arg("expiration", "oneof").flags(&["optional"]).args(&[
                arg("seconds", "integer").token("EX").since("2.6.12"),
                arg("milliseconds", "integer").token("PX").since("2.6.12"),
                arg("unix-time-seconds", "unix-time").token("EXAT").since("6.2.0"),
                arg("unix-time-milliseconds", "unix-time").token("PXAT").since("6.2.0"),
                arg("keepttl", "pure-token").token("KEEPTTL").since("6.0.0"),
            ]),
        ]),
    row("setnx", 3, string::setnx)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["OW", "insert"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "1.0.0", "Set the value of a key, only if the key does not exist")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0), arg("value", "string")]),
    row("setex", 4, string::setex)
        .flags(WRITE | DENYOOM, A_WRITE | A_STRING | A_SLOW)
        .untimed()
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["OW", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "2.0.0", "Set the value and expiration of a key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0), arg("seconds", "integer"), arg("value", "string")]),
    row("psetex", 4, string::psetex)
        .flags(WRITE | DENYOOM, A_WRITE | A_STRING | A_SLOW)
        .untimed()
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["OW", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "2.6.0", "Set the value and expiration in milliseconds of a key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0), arg("milliseconds", "integer"), arg("value", "string")]),
    row("getset", 3, string::getset)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "access", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "1.0.0", "Set the string value of a key and return its old value")
        .complexity("O(1)")
        .deprecated("6.2.0", "`SET` with the `!GET` argument")
        .args(&[arg("key", "key").spec(0), arg("value", "string")]),
    row("getdel", 2, string::getdel)
        .flags(WRITE | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "access", "delete"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "6.2.0", "Get the value of a key and delete the key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("getex", -2, string::getex)
        .flags(WRITE | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: Some("RW and UPDATE because it changes the TTL"),
                flags: &["RW", "access", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc(
            "string",
            "6.2.0",
            "Get the value of a key and optionally set its \
expiration",
        )
        .complexity("O(1)")
        .args(&[
            arg("key", "key").spec(0),
            arg("expiration", "oneof").flags(&["optional"]).args(&[
                arg("seconds", "integer").token("EX"),
                arg("milliseconds", "integer").token("PX"),
                arg("unix-time-seconds", "unix-time").token("EXAT"),
                arg("unix-time-milliseconds", "unix-time").token("PXAT"),
                arg("persist", "pure-token").token("PERSIST"),
            ]),
        ]),
    row("mget", -2, string::mget)
        .flags(READONLY | FAST, A_READ | A_STRING | A_FAST)
        .keys(
            1,
            -1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RO", "access"],
                first: 1,
                last: -1,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .tips(&["request_policy:multi_shard"])
        .doc("string", "1.0.0", "Get the values of all the given keys")
        .complexity("O(N) where N is the number of keys to retrieve.")
        .args(&[arg("key", "key").spec(0).flags(&["multiple"])]),
    row("mset", -3, string::mset)
        .flags(WRITE | DENYOOM, A_WRITE | A_STRING | A_SLOW)
        .untimed()
        .keys(
            1,
            -1,
            2,
            &[KeySpec {
                notes: None,
                flags: &["OW", "update"],
                first: 1,
                last: -1,
                step: 2,
                ..KeySpec::ONE
            }],
        )
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .doc("string", "1.0.1", "Set multiple keys to multiple values")
        .complexity("O(N) where N is the number of keys to set.")
        .args(&[arg("key_value", "block")
            .flags(&["multiple"])
            .args(&[arg("key", "key").spec(0), arg("value", "string")])]),
    row("msetnx", -3, string::msetnx)
        .flags(WRITE | DENYOOM, A_WRITE | A_STRING | A_SLOW)
        .keys(
            1,
            -1,
            2,
            &[KeySpec {
                notes: None,
                flags: &["OW", "insert"],
                first: 1,
                last: -1,
                step: 2,
                ..KeySpec::ONE
            }],
        )
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .doc(
            "string",
            "1.0.1",
            "Set multiple keys to multiple values, only if none of \
the keys exist",
        )
        .complexity("O(N) where N is the number of keys to set.")
        .args(&[arg("key_value", "block")
            .flags(&["multiple"])
            .args(&[arg("key", "key").spec(0), arg("value", "string")])]),
    row("incr", 2, number::incr)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "access", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "1.0.0", "Increment the integer value of a key by one")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("decr", 2, number::decr)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "access", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "1.0.0", "Decrement the integer value of a key by one")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("incrby", 3, number::incrby)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "access", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc(
            "string",
            "1.0.0",
            "Increment the integer value of a key by the given \
amount",
        )
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0), arg("increment", "integer")]),
    row("decrby", 3, number::decrby)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "access", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc(
            "string",
            "1.0.0",
            "Decrement the integer value of a key by the given \
number",
        )
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0), arg("decrement", "integer")]),
    row("incrbyfloat", 3, number::incrbyfloat)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "access", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "2.6.0", "Increment the float value of a key by the given amount")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0), arg("increment", "double")]),
    row("append", 3, string::append)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "insert"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "2.0.0", "Append a value to a key")
        .complexity(
            "O(1). The amortized time complexity is O(1) assuming \
the appended value is small and the already present \
value is of any size, since the dynamic string library \
used by Redis will double the free space available on \
every reallocation.",
        )
        .args(&[arg("key", "key").spec(0), arg("value", "string")]),
    row("strlen", 2, string::strlen)
        .flags(READONLY | FAST, A_READ | A_STRING | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 1, last: 0, step: 1, ..KeySpec::ONE }],
        )
        .doc("string", "2.2.0", "Get the length of the value stored in a key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("setrange", 4, string::setrange)
        .flags(WRITE | DENYOOM, A_WRITE | A_STRING | A_SLOW)
        .untimed()
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RW", "update"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc(
            "string",
            "2.2.0",
            "Overwrite part of a string at key starting at the \
specified offset",
        )
        .complexity(
            "O(1), not counting the time taken to copy the new \
string in place. Usually, this string is very small so \
the amortized complexity is O(1). Otherwise, complexity \
is O(M) with M being the length of the value argument.",
        )
        .args(&[arg("key", "key").spec(0), arg("offset", "integer"), arg("value", "string")]),
    row("getrange", 4, string::getrange)
        .flags(READONLY, A_READ | A_STRING | A_SLOW)
        .untimed()
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RO", "access"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "2.4.0", "Get a substring of the string stored at a key")
        .complexity(
            "O(N) where N is the length of the returned string. The \
complexity is ultimately determined by the returned \
length, but because creating a substring from an \
existing string is very cheap, it can be considered O(1) \
for small strings.",
        )
        .args(&[arg("key", "key").spec(0), arg("start", "integer"), arg("end", "integer")]),
    row("substr", 4, string::getrange)
        .flags(READONLY, A_READ | A_STRING | A_SLOW)
        .untimed()
        .keys(
            1,
            1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RO", "access"],
                first: 1,
                last: 0,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "1.0.0", "Get a substring of the string stored at a key")
        .complexity(
            "O(N) where N is the length of the returned string. The \
complexity is ultimately determined by the returned \
length, but because creating a substring from an \
existing string is very cheap, it can be considered O(1) \
for small strings.",
        )
        .deprecated("2.0.0", "`GETRANGE`")
        .args(&[arg("key", "key").spec(0), arg("start", "integer"), arg("end", "integer")]),
    row("lcs", -3, lcs::lcs)
        .flags(READONLY, A_READ | A_STRING | A_SLOW)
        .keys(
            1,
            2,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RO", "access"],
                first: 1,
                last: 1,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .doc("string", "7.0.0", "Find longest common substring")
        .complexity(
            "O(N*M) where N and M are the lengths of s1 and s2, \
respectively",
        )
        .args(&[
            arg("key1", "key").spec(0),
            arg("key2", "key").spec(0),
            arg("len", "pure-token").token("LEN").flags(&["optional"]),
            arg("idx", "pure-token").token("IDX").flags(&["optional"]),
            arg("len", "integer").token("MINMATCHLEN").flags(&["optional"]),
            arg("withmatchlen", "pure-token").token("WITHMATCHLEN").flags(&["optional"]),
        ]),
];
