//! Rows of the command table: server commands.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    admin, config, introspect, object,
    row::{
        A_ADMIN, A_CONNECTION, A_DANGEROUS, A_FAST, A_KEYSPACE, A_READ, A_SLOW, A_WRITE, ADMIN,
        FAST, KeySpec, LOADING, NOSCRIPT, READONLY, Row, STALE, Scope, WRITE, arg, row,
    },
    server,
};

const COMMAND: &[Row] = &[
    row("command|docs", -2, introspect::docs)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .doc("server", "7.0.0", "Get array of specific Redis command documentation")
        .complexity("O(N) where N is the number of commands to look up")
        .args(&[arg("command-name", "string").flags(&["optional", "multiple"])]),
    row("command|getkeys", -4, introspect::getkeys)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .doc("server", "2.8.13", "Extract keys given a full Redis command")
        .complexity("O(N) where N is the number of arguments to the command"),
    row("command|list", -2, introspect::list)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .doc("server", "7.0.0", "Get an array of Redis command names")
        .complexity("O(N) where N is the total number of Redis commands")
        .args(&[arg("filterby", "oneof").token("FILTERBY").flags(&["optional"]).args(&[
            arg("module-name", "string").token("MODULE"),
            arg("category", "string").token("ACLCAT"),
            arg("pattern", "pattern").token("PATTERN"),
        ])]),
    row("command|count", 2, introspect::count)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .doc("server", "2.8.13", "Get total number of Redis commands")
        .complexity("O(1)"),
    row("command|help", 2, introspect::help)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .doc("server", "5.0.0", "Show helpful text about the different subcommands")
        .complexity("O(1)"),
    row("command|getkeysandflags", -4, introspect::getkeysandflags)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .doc(
            "server",
            "7.0.0",
            "Extract keys and access flags given a full Redis \
command",
        )
        .complexity("O(N) where N is the number of arguments to the command"),
    row("command|info", -2, introspect::info)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .doc(
            "server",
            "2.8.13",
            "Get array of specific Redis command details, or all \
when no argument is given.",
        )
        .complexity("O(N) where N is the number of commands to look up")
        .history(&[(
            "7.0.0",
            "Allowed to be called with no argument to get info on \
all commands.",
        )])
        .args(&[arg("command-name", "string").flags(&["optional", "multiple"])]),
];

const CONFIG: &[Row] = &[
    row("config|resetstat", 2, config::resetstat)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .doc("server", "2.0.0", "Reset the stats returned by INFO")
        .complexity("O(1)"),
    row("config|get", -3, config::get)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS)
        .doc("server", "2.0.0", "Get the values of configuration parameters")
        .complexity(
            "O(N) when N is the number of configuration parameters \
provided",
        )
        .history(&[(
            "7.0.0",
            "Added the ability to pass multiple pattern parameters \
in one call",
        )])
        .args(&[arg("parameter", "block")
            .flags(&["multiple"])
            .args(&[arg("parameter", "string")])]),
    row("config|help", 2, config::help)
        .flags(LOADING | STALE, A_SLOW)
        .doc("server", "5.0.0", "Show helpful text about the different subcommands")
        .complexity("O(1)"),
    row("config|set", -4, config::set)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("server", "2.0.0", "Set configuration parameters to the given values")
        .complexity(
            "O(N) when N is the number of configuration parameters \
provided",
        )
        .history(&[(
            "7.0.0",
            "Added the ability to set multiple parameters in one \
call.",
        )])
        .args(&[arg("parameter_value", "block")
            .flags(&["multiple"])
            .args(&[arg("parameter", "string"), arg("value", "string")])]),
    row("config|rewrite", 2, config::rewrite)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS)
        .doc("server", "2.8.0", "Rewrite the configuration file with the in memory configuration")
        .complexity("O(1)"),
];

const MEMORY: &[Row] = &[
    row("memory|help", 2, admin::memory_help)
        .flags(LOADING | STALE, A_SLOW)
        .doc("server", "4.0.0", "Show helpful text about the different subcommands")
        .complexity("O(1)"),
    row("memory|usage", -3, object::memory_usage)
        .flags(READONLY, A_READ | A_SLOW)
        .keys(
            2,
            2,
            1,
            &[KeySpec { notes: None, flags: &["RO"], first: 2, last: 0, step: 1, ..KeySpec::ONE }],
        )
        .doc("server", "4.0.0", "Estimate the memory usage of a key")
        .complexity("O(N) where N is the number of samples.")
        .args(&[
            arg("key", "key").spec(0),
            arg("count", "integer").token("SAMPLES").flags(&["optional"]),
        ]),
    row("memory|doctor", 2, admin::memory_doctor)
        .flags(0, A_SLOW)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("server", "4.0.0", "Outputs memory problems report")
        .complexity("O(1)")
        .scope(Scope::AllShards),
    row("memory|purge", 2, admin::memory_purge)
        .flags(0, A_SLOW)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("server", "4.0.0", "Ask the allocator to release memory")
        .complexity("Depends on how much memory is allocated, could be slow"),
    row("memory|malloc-stats", 2, admin::memory_malloc_stats)
        .flags(0, A_SLOW)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("server", "4.0.0", "Show allocator internal stats")
        .complexity("Depends on how much memory is allocated, could be slow"),
    row("memory|stats", 2, admin::memory_stats)
        .flags(0, A_SLOW)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("server", "4.0.0", "Show memory usage details")
        .complexity("O(1)")
        .scope(Scope::AllShards),
];

pub(super) static ROWS: &[Row] = &[
    row("bgrewriteaof", 1, server::bgrewriteaof)
        .flags(ADMIN | NOSCRIPT, A_ADMIN | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .doc("server", "1.0.0", "Asynchronously rewrite the append-only file")
        .complexity("O(1)"),
    row("command", -1, introspect::command)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .doc("server", "2.8.13", "Get array of Redis command details")
        .complexity("O(N) where N is the total number of Redis commands")
        .subs(COMMAND),
    row("config", -2, config::container)
        .flags(0, A_SLOW)
        .doc("server", "2.0.0", "A container for server configuration commands")
        .complexity("Depends on subcommand.")
        .subs(CONFIG),
    row("info", -1, server::info)
        .flags(LOADING | STALE, A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("server", "1.0.0", "Get information and statistics about the server")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added support for taking multiple section arguments.")])
        .args(&[arg("section", "string").flags(&["optional", "multiple"])]),
    row("time", 1, server::time)
        .flags(LOADING | STALE | FAST, A_FAST)
        .tips(&["nondeterministic_output"])
        .doc("server", "2.6.0", "Return the current server time")
        .complexity("O(1)"),
    row("dbsize", 1, server::dbsize)
        .flags(READONLY | FAST, A_KEYSPACE | A_READ | A_FAST)
        .scope(Scope::AllShards)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .doc("server", "1.0.0", "Return the number of keys in the selected database")
        .complexity("O(1)"),
    row("flushdb", -1, server::flushdb)
        .flags(WRITE, A_KEYSPACE | A_WRITE | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("server", "1.0.0", "Remove all keys from the current database")
        .complexity(
            "O(N) where N is the number of keys in the selected \
database",
        )
        .history(&[
            ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
            ("6.2.0", "Added the `SYNC` flushing mode modifier."),
        ])
        .args(&[arg("async", "oneof").flags(&["optional"]).args(&[
            arg("async", "pure-token").token("ASYNC").since("4.0.0"),
            arg("sync", "pure-token").token("SYNC").since("6.2.0"),
        ])]),
    row("flushall", -1, server::flushall)
        .flags(WRITE, A_KEYSPACE | A_WRITE | A_SLOW | A_DANGEROUS)
        .scope(Scope::AllShards)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("server", "1.0.0", "Remove all keys from all databases")
        .complexity(
            "O(N) where N is the total number of keys in all \
databases",
        )
        .history(&[
            ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
            ("6.2.0", "Added the `SYNC` flushing mode modifier."),
        ])
        .args(&[arg("async", "oneof").flags(&["optional"]).args(&[
            arg("async", "pure-token").token("ASYNC").since("4.0.0"),
            arg("sync", "pure-token").token("SYNC").since("6.2.0"),
        ])]),
    row("memory", -2, object::container)
        .flags(0, A_SLOW)
        .doc("server", "4.0.0", "A container for memory diagnostics commands")
        .complexity("Depends on subcommand.")
        .subs(MEMORY),
    row("debug", -2, admin::debug)
        .scope(Scope::Connection)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS)
        .doc("server", "1.0.0", "A container for debugging commands")
        .complexity("Depends on subcommand.")
        .doc_flags(&["syscmd"]),
];
