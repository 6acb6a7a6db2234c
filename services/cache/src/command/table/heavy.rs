//! Rows of the command table: keys that are used much or hold much, and deletion of many.
//!
//! Our own, but for the name HOTKEYS, which is Redis 8.6's.

use crate::command::{
    erase, heavy,
    row::{A_ADMIN, A_DANGEROUS, A_KEYSPACE, A_SLOW, A_WRITE, ADMIN, Row, Scope, WRITE, arg, row},
};

pub(super) static ROWS: &[Row] = &[
    row("hotkeys", -1, heavy::hotkeys)
        .flags(ADMIN, A_ADMIN | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("server", "8.6.0", "Lists the keys most commands were about lately")
        .complexity("O(1)")
        .args(&[
            arg("get", "pure-token").token("GET").flags(&["optional"]),
            arg("count", "integer").token("COUNT").flags(&["optional"]),
        ]),
    row("bigkeys", -1, heavy::bigkeys)
        .flags(ADMIN, A_ADMIN | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("server", "7.0.0", "Lists the keys that hold most")
        .complexity("O(1)")
        .args(&[arg("count", "integer").token("COUNT").flags(&["optional"])]),
    row("scandel", 2, erase::scandel)
        .flags(WRITE, A_KEYSPACE | A_WRITE | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("generic", "7.0.0", "Deletes the keys that match a pattern, in the background")
        .complexity("O(1), and O(N) in the background where N is the number of keys")
        .args(&[arg("pattern", "pattern")]),
    row("delprefix", 2, erase::delprefix)
        .flags(WRITE, A_KEYSPACE | A_WRITE | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("generic", "7.0.0", "Deletes the keys that begin with a prefix, in the background")
        .complexity("O(1), and O(N) in the background where N is the number of keys")
        .args(&[arg("prefix", "string")]),
];
