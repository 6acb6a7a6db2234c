//! Rows of the command table: SORT and SORT_RO.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    row::{
        A_DANGEROUS, A_LIST, A_READ, A_SET, A_SLOW, A_SORTEDSET, A_WRITE, DENYOOM, KeySpec,
        MOVABLE_KEYS, READONLY, Row, WRITE, arg, row,
    },
    sort,
};

pub(super) static ROWS: &[Row] = &[
    row("sort", -2, sort::sort).flags(WRITE | DENYOOM | MOVABLE_KEYS, A_WRITE | A_SET | A_SORTEDSET | A_LIST | A_SLOW | A_DANGEROUS).keys(1, 1, 1, &[KeySpec { flags: &["RO", "access"], ..KeySpec::ONE }, KeySpec { notes: Some("For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort"), flags: &["RO", "access"], unknown: true, ..KeySpec::ONE }, KeySpec { notes: Some("For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array"), flags: &["OW", "update"], keyword: Some(("STORE", 2)), unknown: true, ..KeySpec::ONE }]).doc("generic", "1.0.0", "Sort the elements in a list, set or sorted set").complexity("O(N+M*log(M)) where N is the number of elements in the list or set to sort, and M the number of returned elements. When the elements are not sorted, complexity is O(N).").args(&[arg("key", "key").spec(0), arg("pattern", "pattern").spec(1).token("BY").flags(&["optional"]), arg("offset_count", "block").token("LIMIT").flags(&["optional"]).args(&[arg("offset", "integer"), arg("count", "integer")]), arg("pattern", "pattern").spec(1).token("GET").flags(&["optional", "multiple", "multiple_token"]), arg("order", "oneof").flags(&["optional"]).args(&[arg("asc", "pure-token").token("ASC"), arg("desc", "pure-token").token("DESC")]), arg("sorting", "pure-token").token("ALPHA").flags(&["optional"]), arg("destination", "key").spec(2).token("STORE").flags(&["optional"])]),
    row("sort_ro", -2, sort::sort_ro).flags(READONLY | MOVABLE_KEYS, A_READ | A_SET | A_SORTEDSET | A_LIST | A_SLOW | A_DANGEROUS).keys(1, 1, 1, &[KeySpec { flags: &["RO", "access"], ..KeySpec::ONE }, KeySpec { notes: Some("For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort"), flags: &["RO", "access"], unknown: true, ..KeySpec::ONE }]).doc("generic", "7.0.0", "Sort the elements in a list, set or sorted set. Read-only variant of SORT.").complexity("O(N+M*log(M)) where N is the number of elements in the list or set to sort, and M the number of returned elements. When the elements are not sorted, complexity is O(N).").args(&[arg("key", "key").spec(0), arg("pattern", "pattern").spec(1).token("BY").flags(&["optional"]), arg("offset_count", "block").token("LIMIT").flags(&["optional"]).args(&[arg("offset", "integer"), arg("count", "integer")]), arg("pattern", "pattern").spec(1).token("GET").flags(&["optional", "multiple", "multiple_token"]), arg("order", "oneof").flags(&["optional"]).args(&[arg("asc", "pure-token").token("ASC"), arg("desc", "pure-token").token("DESC")]), arg("sorting", "pure-token").token("ALPHA").flags(&["optional"])]),
];
