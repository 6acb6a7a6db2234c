//! Rows of the command table: SAVE, BGSAVE, LASTSAVE.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    row::{
        A_ADMIN, A_DANGEROUS, A_FAST, A_SLOW, ADMIN, FAST, LOADING, NO_ASYNC_LOADING, NO_MULTI,
        NOSCRIPT, Row, STALE, Scope, arg, row,
    },
    save,
};

pub(super) static ROWS: &[Row] = &[
    row("save", 1, save::save)
        .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, A_ADMIN | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .doc("server", "1.0.0", "Synchronously save the dataset to disk")
        .complexity("O(N) where N is the total number of keys in all databases"),
    row("bgsave", -1, save::bgsave)
        .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING, A_ADMIN | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .doc("server", "1.0.0", "Asynchronously save the dataset to disk")
        .complexity("O(1)")
        .history(&[("3.2.2", "Added the `SCHEDULE` option.")])
        .args(&[arg("schedule", "pure-token")
            .token("SCHEDULE")
            .since("3.2.2")
            .flags(&["optional"])]),
    row("lastsave", 1, save::lastsave)
        .flags(LOADING | STALE | FAST, A_ADMIN | A_FAST | A_DANGEROUS)
        .tips(&["nondeterministic_output"])
        .doc("server", "1.0.0", "Get the UNIX time stamp of the last successful save to disk")
        .complexity("O(1)"),
];
