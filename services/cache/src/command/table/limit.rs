//! Rows of the command table: rate limits.
//!
//! Source: redis-cell and Dragonfly for CL.THROTTLE; RL.CHECK is our own.

use crate::command::{
    limit,
    row::{A_FAST, A_STRING, A_WRITE, DENYOOM, FAST, KeySpec, Row, WRITE, arg, row},
};

const UPDATED: &[KeySpec] = &[KeySpec { flags: &["RW", "access", "update"], ..KeySpec::ONE }];

pub(super) static ROWS: &[Row] = &[
    row("cl.throttle", -5, limit::throttle)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(1, 1, 1, UPDATED)
        .tips(&["nondeterministic_output"])
        .doc(
            "generic",
            "4.0.0",
            "Limits the rate of something by GCRA, as the module redis-cell does",
        )
        .complexity("O(1)")
        .args(&[
            arg("key", "key").spec(0),
            arg("max_burst", "integer"),
            arg("count", "integer"),
            arg("period", "integer"),
            arg("quantity", "integer").flags(&["optional"]),
        ]),
    row("rl.check", -5, limit::check)
        .flags(WRITE | DENYOOM | FAST, A_WRITE | A_STRING | A_FAST)
        .keys(1, 1, 1, UPDATED)
        .tips(&["nondeterministic_output"])
        .doc("generic", "7.0.0", "Limits the rate of something by an algorithm of choice")
        .complexity("O(1); O(N) with sliding-log where N is the number of requests in a period")
        .args(&[
            arg("key", "key").spec(0),
            arg("algorithm", "oneof").args(&[
                arg("token-bucket", "pure-token").token("TOKEN-BUCKET"),
                arg("leaky-bucket", "pure-token").token("LEAKY-BUCKET"),
                arg("fixed-window", "pure-token").token("FIXED-WINDOW"),
                arg("sliding-log", "pure-token").token("SLIDING-LOG"),
                arg("sliding-counter", "pure-token").token("SLIDING-COUNTER"),
            ]),
            arg("limit", "integer"),
            arg("period", "string"),
            arg("quantity", "integer").flags(&["optional"]),
            arg("burst", "integer").token("BURST").flags(&["optional"]),
        ]),
];
