//! Rows of the command table: connection commands.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    admin, client, client_tracking, connection,
    row::{
        A_ADMIN, A_CONNECTION, A_DANGEROUS, A_FAST, A_SLOW, ADMIN, ALLOW_BUSY, FAST, LOADING,
        NO_AUTH, NOSCRIPT, Row, STALE, Scope, arg, row,
    },
};

const CLIENT: &[Row] = &[
    row("client|getname", 2, client::getname)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "2.6.9", "Get the current connection name")
        .complexity("O(1)"),
    row("client|list", -2, client::list)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS | A_CONNECTION)
        .scope(Scope::AllShards)
        .tips(&["nondeterministic_output"])
        .doc("connection", "2.4.0", "Get the list of client connections")
        .complexity("O(N) where N is the number of client connections")
        .history(&[
            ("2.8.12", "Added unique client `id` field."),
            ("5.0.0", "Added optional `TYPE` filter."),
            ("6.0.0", "Added `user` field."),
            (
                "6.2.0",
                "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields \
and the optional `ID` filter.",
            ),
            ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."),
            ("7.0.3", "Added `ssub` field."),
        ])
        .args(&[
            arg("normal_master_replica_pubsub", "oneof")
                .token("TYPE")
                .since("5.0.0")
                .flags(&["optional"])
                .args(&[
                    arg("normal", "pure-token").token("NORMAL"),
                    arg("master", "pure-token").token("MASTER"),
                    arg("replica", "pure-token").token("REPLICA"),
                    arg("pubsub", "pure-token").token("PUBSUB"),
                ]),
            arg("id", "block").token("ID").since("6.2.0").flags(&["optional"]).args(&[arg(
                "client-id",
                "integer",
            )
            .flags(&["multiple"])]),
        ]),
    row("client|unblock", -3, client::unblock)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS | A_CONNECTION)
        .scope(Scope::AllShards)
        .doc(
            "connection",
            "5.0.0",
            "Unblock a client blocked in a blocking command from a different connection",
        )
        .complexity("O(log N) where N is the number of client connections")
        .args(&[
            arg("client-id", "integer"),
            arg("timeout_error", "oneof").flags(&["optional"]).args(&[
                arg("timeout", "pure-token").token("TIMEOUT"),
                arg("error", "pure-token").token("ERROR"),
            ]),
        ]),
    row("client|kill", -3, client::kill)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS | A_CONNECTION)
        .scope(Scope::AllShards)
        .doc("connection", "2.4.0", "Kill the connection of a client")
        .complexity("O(N) where N is the number of client connections")
        .history(&[
            ("2.8.12", "Added new filter format."),
            ("2.8.12", "`ID` option."),
            ("3.2.0", "Added `master` type in for `TYPE` option."),
            (
                "5.0.0",
                "Replaced `slave` `TYPE` with `replica`. `slave` still \
supported for backward compatibility.",
            ),
            ("6.2.0", "`LADDR` option."),
        ])
        .args(&[arg("filter", "oneof").args(&[
            arg("ip:port", "string").deprecated("2.8.12"),
            arg("new-format", "oneof").flags(&["multiple"]).args(&[
                arg("client-id", "integer").token("ID").since("2.8.12").flags(&["optional"]),
                arg("normal_master_slave_pubsub", "oneof")
                    .token("TYPE")
                    .since("2.8.12")
                    .flags(&["optional"])
                    .args(&[
                        arg("normal", "pure-token").token("NORMAL"),
                        arg("master", "pure-token").token("MASTER").since("3.2.0"),
                        arg("slave", "pure-token").token("SLAVE"),
                        arg("replica", "pure-token").token("REPLICA").since("5.0.0"),
                        arg("pubsub", "pure-token").token("PUBSUB"),
                    ]),
                arg("username", "string").token("USER").flags(&["optional"]),
                arg("ip:port", "string").token("ADDR").flags(&["optional"]),
                arg("ip:port", "string").token("LADDR").since("6.2.0").flags(&["optional"]),
                arg("yes/no", "string").token("SKIPME").flags(&["optional"]),
            ]),
        ])]),
    row("client|caching", 3, client_tracking::caching)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc(
            "connection",
            "6.0.0",
            "Instruct the server about tracking or not keys in the next request",
        )
        .complexity("O(1)")
        .args(&[arg("mode", "oneof")
            .args(&[arg("yes", "pure-token").token("YES"), arg("no", "pure-token").token("NO")])]),
    row("client|getredir", 2, client_tracking::getredir)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "6.0.0", "Get tracking notifications redirection client ID if any")
        .complexity("O(1)"),
    row("client|tracking", -3, client_tracking::tracking)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::AllShards)
        .doc(
            "connection",
            "6.0.0",
            "Enable or disable server assisted client side caching support",
        )
        .complexity("O(1). Some options may introduce additional complexity.")
        .args(&[
            arg("status", "oneof")
                .args(&[arg("on", "pure-token").token("ON"), arg("off", "pure-token").token("OFF")]),
            arg("client-id", "integer").token("REDIRECT").flags(&["optional"]),
            arg("prefix", "string")
                .token("PREFIX")
                .flags(&["optional", "multiple", "multiple_token"]),
            arg("bcast", "pure-token").token("BCAST").flags(&["optional"]),
            arg("optin", "pure-token").token("OPTIN").flags(&["optional"]),
            arg("optout", "pure-token").token("OPTOUT").flags(&["optional"]),
            arg("noloop", "pure-token").token("NOLOOP").flags(&["optional"]),
        ]),
    row("client|trackinginfo", 2, client_tracking::trackinginfo)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc(
            "connection",
            "6.2.0",
            "Return information about server assisted client side caching for the current connection",
        )
        .complexity("O(1)"),
    row("client|info", 2, client::info)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .tips(&["nondeterministic_output"])
        .doc(
            "connection",
            "6.2.0",
            "Returns information about the current client \
connection.",
        )
        .complexity("O(1)"),
    row("client|id", 2, client::id)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "5.0.0", "Returns the client ID for the current connection")
        .complexity("O(1)"),
    row("client|setname", 3, client::setname)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "2.6.9", "Set the current connection name")
        .complexity("O(1)")
        .args(&[arg("connection-name", "string")]),
    row("client|help", 2, client::help)
        .flags(LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "5.0.0", "Show helpful text about the different subcommands")
        .complexity("O(1)"),
    row("client|no-evict", 3, client::no_evict)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "7.0.0", "Set client eviction mode for the current connection")
        .complexity("O(1)")
        .args(&[arg("enabled", "oneof")
            .args(&[arg("on", "pure-token").token("ON"), arg("off", "pure-token").token("OFF")])]),
    row("client|setinfo", 4, client::setinfo)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "7.2.0", "Set client or connection specific info")
        .complexity("O(1)")
        .args(&[arg("attr", "oneof").args(&[
            arg("libname", "string").token("LIB-NAME"),
            arg("libver", "string").token("LIB-VER"),
        ])]),
    row("client|no-touch", 3, client::no_touch)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .scope(Scope::Connection)
        .doc(
            "connection",
            "7.2.0",
            "Controls whether commands sent by the client will alter \
the LRU/LFU of the keys they access.",
        )
        .complexity("O(1)")
        .args(&[arg("enabled", "oneof")
            .args(&[arg("on", "pure-token").token("ON"), arg("off", "pure-token").token("OFF")])]),
    row("client|unpause", 2, admin::client_unpause)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS | A_CONNECTION)
        .doc("connection", "6.2.0", "Resume processing of clients that were paused")
        .complexity("O(N) Where N is the number of paused clients")
        .scope(Scope::AllShards),
    row("client|reply", 3, admin::client_reply)
        .flags(NOSCRIPT | LOADING | STALE, A_SLOW | A_CONNECTION)
        .doc("connection", "3.2.0", "Instruct the server whether to reply to commands")
        .complexity("O(1)")
        .args(&[arg("on_off_skip", "oneof").args(&[
            arg("on", "pure-token").token("ON"),
            arg("off", "pure-token").token("OFF"),
            arg("skip", "pure-token").token("SKIP"),
        ])])
        .scope(Scope::Connection),
    row("client|pause", -3, admin::client_pause)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE, A_ADMIN | A_SLOW | A_DANGEROUS | A_CONNECTION)
        .doc("connection", "2.9.50", "Stop processing commands from clients for some time")
        .complexity("O(1)")
        .history(&[("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option.")])
        .args(&[
            arg("timeout", "integer"),
            arg("mode", "oneof").since("6.2.0").flags(&["optional"]).args(&[
                arg("write", "pure-token").token("WRITE"),
                arg("all", "pure-token").token("ALL"),
            ]),
        ])
        .scope(Scope::AllShards),
];

pub(super) static ROWS: &[Row] = &[
    row("ping", -1, connection::ping)
        .flags(FAST, A_FAST | A_CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("connection", "1.0.0", "Ping the server")
        .complexity("O(1)")
        .args(&[arg("message", "string").flags(&["optional"])]),
    row("echo", 2, connection::echo)
        .flags(LOADING | STALE | FAST, A_FAST | A_CONNECTION)
        .doc("connection", "1.0.0", "Echo the given string")
        .complexity("O(1)")
        .args(&[arg("message", "string")]),
    row("hello", -1, connection::hello)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, A_FAST | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "6.0.0", "Handshake with Redis")
        .complexity("O(1)")
        .history(&[(
            "6.2.0",
            "`protover` made optional; when called without arguments \
the command reports the current connection's context.",
        )])
        .args(&[arg("arguments", "block").flags(&["optional"]).args(&[
            arg("protover", "integer"),
            arg("username_password", "block")
                .token("AUTH")
                .flags(&["optional"])
                .args(&[arg("username", "string"), arg("password", "string")]),
            arg("clientname", "string").token("SETNAME").flags(&["optional"]),
        ])]),
    row("auth", -2, connection::auth)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, A_FAST | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "1.0.0", "Authenticate to the server")
        .complexity(
            "O(N) where N is the number of passwords defined for the \
user",
        )
        .history(&[("6.0.0", "Added ACL style (username and password).")])
        .args(&[
            arg("username", "string").since("6.0.0").flags(&["optional"]),
            arg("password", "string"),
        ]),
    row("select", 2, connection::select)
        .flags(LOADING | STALE | FAST, A_FAST | A_CONNECTION)
        .scope(Scope::Connection)
        .doc(
            "connection",
            "1.0.0",
            "Change the selected database for the current \
connection",
        )
        .complexity("O(1)")
        .args(&[arg("index", "integer")]),
    row("quit", -1, connection::quit)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, A_FAST | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "1.0.0", "Close the connection")
        .complexity("O(1)"),
    row("reset", 1, connection::reset)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, A_FAST | A_CONNECTION)
        .scope(Scope::Connection)
        .doc("connection", "6.2.0", "Reset the connection")
        .complexity("O(1)"),
    row("client", -2, client::container)
        .flags(0, A_SLOW)
        .scope(Scope::Connection)
        .doc("connection", "2.4.0", "A container for client connection commands")
        .complexity("Depends on subcommand.")
        .subs(CLIENT),
];
