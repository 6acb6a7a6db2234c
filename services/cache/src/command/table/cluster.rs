//! Rows of the command table: cluster commands.
//!
//! Source: the Redis 7.0 command reference.

use crate::command::{
    cluster, connection,
    row::{
        A_ADMIN, A_CONNECTION, A_DANGEROUS, A_FAST, A_SLOW, ADMIN, FAST, LOADING, Row, STALE,
        Scope, arg, row,
    },
};

const CLUSTER: &[Row] = &[
    row("cluster|help", 2, cluster::help)
        .flags(LOADING | STALE, A_SLOW)
        .doc("cluster", "5.0.0", "Show helpful text about the different subcommands")
        .complexity("O(1)"),
    row("cluster|getkeysinslot", 4, cluster::getkeysinslot)
        .scope(Scope::AllShards)
        .flags(STALE, A_SLOW)
        .tips(&["nondeterministic_output"])
        .doc("cluster", "3.0.0", "Return local key names in the specified hash slot")
        .complexity("O(log(N)) where N is the number of requested keys")
        .args(&[arg("slot", "integer"), arg("count", "integer")]),
    row("cluster|shards", 2, cluster::shards)
        .flags(STALE, A_SLOW)
        .tips(&["nondeterministic_output"])
        .doc("cluster", "7.0.0", "Get array of cluster slots to node mappings")
        .complexity("O(N) where N is the total number of cluster nodes"),
    row("cluster|links", 2, cluster::links)
        .flags(STALE, A_SLOW)
        .tips(&["nondeterministic_output"])
        .doc(
            "cluster",
            "7.0.0",
            "Returns a list of all TCP links to and from peer nodes \
in cluster",
        )
        .complexity("O(N) where N is the total number of Cluster nodes"),
    row("cluster|myid", 2, cluster::myid)
        .flags(STALE, A_SLOW)
        .doc("cluster", "3.0.0", "Return the node id")
        .complexity("O(1)"),
    row("cluster|nodes", 2, cluster::nodes)
        .flags(STALE, A_SLOW)
        .tips(&["nondeterministic_output"])
        .doc("cluster", "3.0.0", "Get Cluster config for the node")
        .complexity("O(N) where N is the total number of Cluster nodes"),
    row("cluster|keyslot", 3, cluster::keyslot)
        .flags(STALE, A_SLOW)
        .doc("cluster", "3.0.0", "Returns the hash slot of the specified key")
        .complexity("O(N) where N is the number of bytes in the key")
        .args(&[arg("key", "string")]),
    row("cluster|slots", 2, cluster::slots)
        .flags(STALE, A_SLOW)
        .tips(&["nondeterministic_output"])
        .doc("cluster", "3.0.0", "Get array of Cluster slot to node mappings")
        .complexity("O(N) where N is the total number of Cluster nodes")
        .history(&[
            ("4.0.0", "Added node IDs."),
            ("7.0.0", "Added additional networking metadata field."),
        ])
        .deprecated("7.0.0", "`CLUSTER SHARDS`"),
    row("cluster|replicas", 3, cluster::replicas)
        .flags(ADMIN | STALE, A_ADMIN | A_SLOW | A_DANGEROUS)
        .tips(&["nondeterministic_output"])
        .doc("cluster", "5.0.0", "List replica nodes of the specified master node")
        .complexity("O(1)")
        .args(&[arg("node-id", "string")]),
    row("cluster|info", 2, cluster::info)
        .flags(STALE, A_SLOW)
        .tips(&["nondeterministic_output"])
        .doc("cluster", "3.0.0", "Provides info about Redis Cluster node state")
        .complexity("O(1)"),
    row("cluster|countkeysinslot", 3, cluster::countkeysinslot)
        .scope(Scope::AllShards)
        .flags(STALE, A_SLOW)
        .doc(
            "cluster",
            "3.0.0",
            "Return the number of local keys in the specified hash \
slot",
        )
        .complexity("O(1)")
        .args(&[arg("slot", "integer")]),
    row("cluster|slaves", 3, cluster::replicas)
        .flags(ADMIN | STALE, A_ADMIN | A_SLOW | A_DANGEROUS)
        .tips(&["nondeterministic_output"])
        .doc("cluster", "3.0.0", "List replica nodes of the specified master node")
        .complexity("O(1)")
        .deprecated("5.0.0", "`CLUSTER REPLICAS`")
        .args(&[arg("node-id", "string")]),
];

pub(super) static ROWS: &[Row] = &[
    row("cluster", -2, cluster::container)
        .flags(0, A_SLOW)
        .doc("cluster", "3.0.0", "A container for cluster commands")
        .complexity("Depends on subcommand.")
        .subs(CLUSTER),
    row("readonly", 1, connection::readonly)
        .flags(LOADING | STALE | FAST, A_FAST | A_CONNECTION)
        .doc(
            "cluster",
            "3.0.0",
            "Enables read queries for a connection to a cluster \
replica node",
        )
        .complexity("O(1)"),
    row("readwrite", 1, connection::readonly)
        .flags(LOADING | STALE | FAST, A_FAST | A_CONNECTION)
        .doc(
            "cluster",
            "3.0.0",
            "Disables read queries for a connection to a cluster \
replica node",
        )
        .complexity("O(1)"),
];
