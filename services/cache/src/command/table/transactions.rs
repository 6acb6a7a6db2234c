//! Rows of the command table: transactions commands.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    row::{
        A_FAST, A_SLOW, A_TRANSACTION, ALLOW_BUSY, FAST, KeySpec, LOADING, NOSCRIPT, Row,
        SKIP_SLOWLOG, STALE, Scope, arg, row,
    },
    transactions,
};

pub(super) static ROWS: &[Row] = &[
    row("discard", 1, transactions::discard)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, A_FAST | A_TRANSACTION)
        .scope(Scope::Connection)
        .doc("transactions", "2.0.0", "Discard all commands issued after MULTI")
        .complexity("O(N), when N is the number of queued commands"),
    row("exec", 1, transactions::exec)
        .flags(NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG, A_SLOW | A_TRANSACTION)
        .scope(Scope::Connection)
        .doc("transactions", "1.2.0", "Execute all commands issued after MULTI")
        .complexity("Depends on commands in the transaction"),
    row("multi", 1, transactions::multi)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, A_FAST | A_TRANSACTION)
        .scope(Scope::Connection)
        .doc("transactions", "1.2.0", "Mark the start of a transaction block")
        .complexity("O(1)"),
    row("unwatch", 1, transactions::unwatch)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, A_FAST | A_TRANSACTION)
        .scope(Scope::Connection)
        .doc("transactions", "2.2.0", "Forget about all watched keys")
        .complexity("O(1)"),
    row("watch", -2, transactions::watch)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, A_FAST | A_TRANSACTION)
        .scope(Scope::Connection)
        .keys(1, -1, 1, &[KeySpec { flags: &["RO"], last: -1, ..KeySpec::ONE }])
        .doc(
            "transactions",
            "2.2.0",
            "Watch the given keys to determine execution of the MULTI/EXEC block",
        )
        .complexity("O(1) for every key.")
        .args(&[arg("key", "key").spec(0).flags(&["multiple"])]),
];
