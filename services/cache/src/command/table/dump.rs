//! Rows of the command table: DUMP and RESTORE.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    dump,
    row::{
        A_DANGEROUS, A_KEYSPACE, A_READ, A_SLOW, A_WRITE, DENYOOM, KeySpec, READONLY, Row, WRITE,
        arg, row,
    },
};

pub(super) static ROWS: &[Row] = &[
    row("dump", 2, dump::dump).flags(READONLY, A_KEYSPACE | A_READ | A_SLOW).keys(1, 1, 1, &[KeySpec { flags: &["RO", "access"], ..KeySpec::ONE }]).tips(&["nondeterministic_output"]).doc("generic", "2.6.0", "Return a serialized version of the value stored at the specified key.").complexity("O(1) to access the key and additional O(N*M) to serialize it, where N is the number of Redis objects composing the value and M their average size. For small string values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1).").args(&[arg("key", "key").spec(0)]),
    row("restore", -4, dump::restore).flags(WRITE | DENYOOM, A_KEYSPACE | A_WRITE | A_SLOW | A_DANGEROUS).keys(1, 1, 1, &[KeySpec { flags: &["OW", "update"], ..KeySpec::ONE }]).doc("generic", "2.6.0", "Create a key using the provided serialized value, previously obtained using DUMP.").complexity("O(1) to create the new key and additional O(N*M) to reconstruct the serialized value, where N is the number of Redis objects composing the value and M their average size. For small string values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1). However for sorted set values the complexity is O(N*M*log(N)) because inserting values into sorted sets is O(log(N)).").history(&[("3.0.0", "Added the `REPLACE` modifier."), ("5.0.0", "Added the `ABSTTL` modifier."), ("5.0.0", "Added the `IDLETIME` and `FREQ` options.")]).args(&[arg("key", "key").spec(0), arg("ttl", "integer"), arg("serialized-value", "string"), arg("replace", "pure-token").token("REPLACE").since("3.0.0").flags(&["optional"]), arg("absttl", "pure-token").token("ABSTTL").since("5.0.0").flags(&["optional"]), arg("seconds", "integer").token("IDLETIME").since("5.0.0").flags(&["optional"]), arg("frequency", "integer").token("FREQ").since("5.0.0").flags(&["optional"])]),
];
