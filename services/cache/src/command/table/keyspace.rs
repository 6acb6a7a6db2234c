//! Rows of the command table: commands on keys of any type.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    expire, keyspace, object,
    row::{
        A_DANGEROUS, A_FAST, A_KEYSPACE, A_READ, A_SLOW, A_WRITE, DENYOOM, FAST, KeySpec, LOADING,
        READONLY, Row, STALE, Scope, WRITE, arg, row,
    },
};

const OBJECT: &[Row] = &[
    row("object|freq", 3, object::freq)
        .flags(READONLY, A_KEYSPACE | A_READ | A_SLOW)
        .keys(
            2,
            2,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 2, last: 0, step: 1, ..KeySpec::ONE }],
        )
        .tips(&["nondeterministic_output"])
        .doc(
            "generic",
            "4.0.0",
            "Get the logarithmic access frequency counter of a Redis \
object",
        )
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("object|idletime", 3, object::idletime)
        .flags(READONLY, A_KEYSPACE | A_READ | A_SLOW)
        .keys(
            2,
            2,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 2, last: 0, step: 1, ..KeySpec::ONE }],
        )
        .tips(&["nondeterministic_output"])
        .doc("generic", "2.2.3", "Get the time since a Redis object was last accessed")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("object|encoding", 3, object::encoding)
        .flags(READONLY, A_KEYSPACE | A_READ | A_SLOW)
        .keys(
            2,
            2,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 2, last: 0, step: 1, ..KeySpec::ONE }],
        )
        .tips(&["nondeterministic_output"])
        .doc("generic", "2.2.3", "Inspect the internal encoding of a Redis object")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("object|help", 2, object::help)
        .flags(LOADING | STALE, A_KEYSPACE | A_SLOW)
        .doc("generic", "6.2.0", "Show helpful text about the different subcommands")
        .complexity("O(1)"),
    row("object|refcount", 3, object::refcount)
        .flags(READONLY, A_KEYSPACE | A_READ | A_SLOW)
        .keys(
            2,
            2,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 2, last: 0, step: 1, ..KeySpec::ONE }],
        )
        .tips(&["nondeterministic_output"])
        .doc("generic", "2.2.3", "Get the number of references to the value of the key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
];

pub(super) static ROWS: &[Row] = &[
    row("del", -2, keyspace::del)
        .flags(WRITE, A_KEYSPACE | A_WRITE | A_SLOW)
        .untimed()
        .keys(
            1,
            -1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RM", "delete"],
                first: 1,
                last: -1,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("generic", "1.0.0", "Delete a key")
        .complexity(
            "O(N) where N is the number of keys that will be \
removed. When a key to remove holds a value other than a \
string, the individual complexity for this key is O(M) \
where M is the number of elements in the list, set, \
sorted set or hash. Removing a single key that holds a \
string value is O(1).",
        )
        .args(&[arg("key", "key").spec(0).flags(&["multiple"])]),
    row("unlink", -2, keyspace::unlink)
        .flags(WRITE | FAST, A_KEYSPACE | A_WRITE | A_FAST)
        .keys(
            1,
            -1,
            1,
            &[KeySpec {
                notes: None,
                flags: &["RM", "delete"],
                first: 1,
                last: -1,
                step: 1,
                ..KeySpec::ONE
            }],
        )
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc(
            "generic",
            "4.0.0",
            "Delete a key asynchronously in another thread. \
Otherwise it is just as DEL, but non blocking.",
        )
        .complexity(
            "O(1) for each key removed regardless of its size. Then \
the command does O(N) work in a different thread in \
order to reclaim memory, where N is the number of \
allocations the deleted objects where composed of.",
        )
        .args(&[arg("key", "key").spec(0).flags(&["multiple"])]),
    row("exists", -2, keyspace::exists)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
        .keys(
            1,
            -1,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 1, last: -1, step: 1, ..KeySpec::ONE }],
        )
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("generic", "1.0.0", "Determine if a key exists")
        .complexity("O(N) where N is the number of keys to check.")
        .history(&[("3.0.3", "Accepts multiple `key` arguments.")])
        .args(&[arg("key", "key").spec(0).flags(&["multiple"])]),
    row("type", 2, keyspace::type_of)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
        .keys(
            1,
            1,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 1, last: 0, step: 1, ..KeySpec::ONE }],
        )
        .doc("generic", "1.0.0", "Determine the type stored at key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("touch", -2, keyspace::touch)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
        .keys(
            1,
            -1,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 1, last: -1, step: 1, ..KeySpec::ONE }],
        )
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc(
            "generic",
            "3.2.1",
            "Alters the last access time of a key(s). Returns the \
number of existing keys specified.",
        )
        .complexity(
            "O(N) where N is the number of keys that will be \
touched.",
        )
        .args(&[arg("key", "key").spec(0).flags(&["multiple"])]),
    row("rename", 3, keyspace::rename)
        .flags(WRITE, A_KEYSPACE | A_WRITE | A_SLOW)
        .keys(
            1,
            2,
            1,
            &[
                KeySpec {
                    notes: None,
                    flags: &["RW", "access", "delete"],
                    first: 1,
                    last: 0,
                    step: 1,
                    ..KeySpec::ONE
                },
                KeySpec {
                    notes: None,
                    flags: &["OW", "update"],
                    first: 2,
                    last: 0,
                    step: 1,
                    ..KeySpec::ONE
                },
            ],
        )
        .doc("generic", "1.0.0", "Rename a key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0), arg("newkey", "key").spec(1)]),
    row("renamenx", 3, keyspace::renamenx)
        .flags(WRITE | FAST, A_KEYSPACE | A_WRITE | A_FAST)
        .keys(
            1,
            2,
            1,
            &[
                KeySpec {
                    notes: None,
                    flags: &["RW", "access", "delete"],
                    first: 1,
                    last: 0,
                    step: 1,
                    ..KeySpec::ONE
                },
                KeySpec {
                    notes: None,
                    flags: &["OW", "insert"],
                    first: 2,
                    last: 0,
                    step: 1,
                    ..KeySpec::ONE
                },
            ],
        )
        .doc("generic", "1.0.0", "Rename a key, only if the new key does not exist")
        .complexity("O(1)")
        .history(&[(
            "3.2.0",
            "The command no longer returns an error when source and \
destination names are the same.",
        )])
        .args(&[arg("key", "key").spec(0), arg("newkey", "key").spec(1)]),
    row("copy", -3, keyspace::copy)
        .flags(WRITE | DENYOOM, A_KEYSPACE | A_WRITE | A_SLOW)
        .keys(
            1,
            2,
            1,
            &[
                KeySpec {
                    notes: None,
                    flags: &["RO", "access"],
                    first: 1,
                    last: 0,
                    step: 1,
                    ..KeySpec::ONE
                },
                KeySpec {
                    notes: None,
                    flags: &["OW", "update"],
                    first: 2,
                    last: 0,
                    step: 1,
                    ..KeySpec::ONE
                },
            ],
        )
        .doc("generic", "6.2.0", "Copy a key")
        .complexity(
            "O(N) worst case for collections, where N is the number \
of nested items. O(1) for string values.",
        )
        .args(&[
            arg("source", "key").spec(0),
            arg("destination", "key").spec(1),
            arg("destination-db", "integer").token("DB").flags(&["optional"]),
            arg("replace", "pure-token").token("REPLACE").flags(&["optional"]),
        ]),
    row("randomkey", 1, keyspace::randomkey)
        .flags(READONLY, A_KEYSPACE | A_READ | A_SLOW)
        .scope(Scope::AllShards)
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .doc("generic", "1.0.0", "Return a random key from the keyspace")
        .complexity("O(1)"),
    row("keys", 2, keyspace::keys)
        .flags(READONLY, A_KEYSPACE | A_READ | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .doc("generic", "1.0.0", "Find all keys matching the given pattern")
        .complexity(
            "O(N) with N being the number of keys in the database, \
under the assumption that the key names in the database \
and the given pattern have limited length.",
        )
        .args(&[arg("pattern", "pattern")]),
    row("scan", -2, keyspace::scan)
        .flags(READONLY, A_KEYSPACE | A_READ | A_SLOW)
        .scope(Scope::AllShards)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .doc("generic", "2.8.0", "Incrementally iterate the keys space")
        .complexity(
            "O(1) for every call. O(N) for a complete iteration, \
including enough command calls for the cursor to return \
back to 0. N is the number of elements inside the \
collection.",
        )
        .history(&[("6.0.0", "Added the `TYPE` subcommand.")])
        .args(&[
            arg("cursor", "integer"),
            arg("pattern", "pattern").token("MATCH").flags(&["optional"]),
            arg("count", "integer").token("COUNT").flags(&["optional"]),
            arg("type", "string").token("TYPE").since("6.0.0").flags(&["optional"]),
        ]),
    row("expire", -3, expire::expire)
        .flags(WRITE | FAST, A_KEYSPACE | A_WRITE | A_FAST)
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
        .doc("generic", "1.0.0", "Set a key's time to live in seconds")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .args(&[
            arg("key", "key").spec(0),
            arg("seconds", "integer"),
            arg("condition", "oneof").since("7.0.0").flags(&["optional"]).args(&[
                arg("nx", "pure-token").token("NX"),
                arg("xx", "pure-token").token("XX"),
                arg("gt", "pure-token").token("GT"),
                arg("lt", "pure-token").token("LT"),
            ]),
        ]),
    row("pexpire", -3, expire::pexpire)
        .flags(WRITE | FAST, A_KEYSPACE | A_WRITE | A_FAST)
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
        .doc("generic", "2.6.0", "Set a key's time to live in milliseconds")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .args(&[
            arg("key", "key").spec(0),
            arg("milliseconds", "integer"),
            arg("condition", "oneof").since("7.0.0").flags(&["optional"]).args(&[
                arg("nx", "pure-token").token("NX"),
                arg("xx", "pure-token").token("XX"),
                arg("gt", "pure-token").token("GT"),
                arg("lt", "pure-token").token("LT"),
            ]),
        ]),
    row("expireat", -3, expire::expireat)
        .flags(WRITE | FAST, A_KEYSPACE | A_WRITE | A_FAST)
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
        .doc("generic", "1.2.0", "Set the expiration for a key as a UNIX timestamp")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .args(&[
            arg("key", "key").spec(0),
            arg("unix-time-seconds", "unix-time"),
            arg("condition", "oneof").since("7.0.0").flags(&["optional"]).args(&[
                arg("nx", "pure-token").token("NX"),
                arg("xx", "pure-token").token("XX"),
                arg("gt", "pure-token").token("GT"),
                arg("lt", "pure-token").token("LT"),
            ]),
        ]),
    row("pexpireat", -3, expire::pexpireat)
        .flags(WRITE | FAST, A_KEYSPACE | A_WRITE | A_FAST)
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
            "generic",
            "2.6.0",
            "Set the expiration for a key as a UNIX timestamp \
specified in milliseconds",
        )
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .args(&[
            arg("key", "key").spec(0),
            arg("unix-time-milliseconds", "unix-time"),
            arg("condition", "oneof").since("7.0.0").flags(&["optional"]).args(&[
                arg("nx", "pure-token").token("NX"),
                arg("xx", "pure-token").token("XX"),
                arg("gt", "pure-token").token("GT"),
                arg("lt", "pure-token").token("LT"),
            ]),
        ]),
    row("ttl", 2, expire::ttl)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
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
        .tips(&["nondeterministic_output"])
        .doc("generic", "1.0.0", "Get the time to live for a key in seconds")
        .complexity("O(1)")
        .history(&[("2.8.0", "Added the -2 reply.")])
        .args(&[arg("key", "key").spec(0)]),
    row("pttl", 2, expire::pttl)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
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
        .tips(&["nondeterministic_output"])
        .doc("generic", "2.6.0", "Get the time to live for a key in milliseconds")
        .complexity("O(1)")
        .history(&[("2.8.0", "Added the -2 reply.")])
        .args(&[arg("key", "key").spec(0)]),
    row("expiretime", 2, expire::expiretime)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
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
        .doc("generic", "7.0.0", "Get the expiration Unix timestamp for a key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("pexpiretime", 2, expire::pexpiretime)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
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
        .doc(
            "generic",
            "7.0.0",
            "Get the expiration Unix timestamp for a key in \
milliseconds",
        )
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("persist", 2, expire::persist)
        .flags(WRITE | FAST, A_KEYSPACE | A_WRITE | A_FAST)
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
        .doc("generic", "2.2.0", "Remove the expiration from a key")
        .complexity("O(1)")
        .args(&[arg("key", "key").spec(0)]),
    row("object", -2, object::container)
        .flags(0, A_SLOW)
        .doc("generic", "2.2.3", "A container for object introspection commands")
        .complexity("Depends on subcommand.")
        .subs(OBJECT),
];
