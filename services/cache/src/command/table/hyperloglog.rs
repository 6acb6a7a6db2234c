//! Rows of the command table: hyperloglog commands.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    hyperloglog,
    row::{
        A_FAST, A_HYPERLOGLOG, A_READ, A_SLOW, A_WRITE, DENYOOM, FAST, KeySpec, READONLY, Row,
        WRITE, arg, row,
    },
};

pub(super) static ROWS: &[Row] = &[
    row("pfadd", -2, hyperloglog::pfadd).flags(WRITE | DENYOOM | FAST, A_WRITE | A_HYPERLOGLOG | A_FAST).keys(1, 1, 1, &[KeySpec { flags: &["RW", "insert"], ..KeySpec::ONE }]).doc("hyperloglog", "2.8.9", "Adds the specified elements to the specified HyperLogLog.").complexity("O(1) to add every element.").args(&[arg("key", "key").spec(0), arg("element", "string").flags(&["optional", "multiple"])]),
    row("pfcount", -2, hyperloglog::pfcount).flags(READONLY, A_READ | A_HYPERLOGLOG | A_SLOW).keys(1, -1, 1, &[KeySpec { notes: Some("RW because it may change the internal representation of the key, and propagate to replicas"), flags: &["RW", "access"], last: -1, ..KeySpec::ONE }]).doc("hyperloglog", "2.8.9", "Return the approximated cardinality of the set(s) observed by the HyperLogLog at key(s).").complexity("O(1) with a very small average constant time when called with a single key. O(N) with N being the number of keys, and much bigger constant times, when called with multiple keys.").args(&[arg("key", "key").spec(0).flags(&["multiple"])]),
    row("pfmerge", -2, hyperloglog::pfmerge).flags(WRITE | DENYOOM, A_WRITE | A_HYPERLOGLOG | A_SLOW).keys(1, -1, 1, &[KeySpec { flags: &["RW", "access", "insert"], ..KeySpec::ONE }, KeySpec { flags: &["RO", "access"], first: 2, last: -1, ..KeySpec::ONE }]).doc("hyperloglog", "2.8.9", "Merge N different HyperLogLogs into a single one.").complexity("O(N) to merge N HyperLogLogs, but with high constant times.").args(&[arg("destkey", "key").spec(0), arg("sourcekey", "key").spec(1).flags(&["multiple"])]),
];
