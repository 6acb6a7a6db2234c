//! The broker's options and their typed form.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use engine::config::{Kind, Row, Values};
use engine::error::{Error, Kind as ErrorKind};

use crate::shard::SHARDS_MAX;

const fn unset(name: &'static str, key: &'static str, kind: Kind) -> Row {
    Row { name, key, kind, default: None, optional: true, reload: false, doc: "" }
}

const fn row(name: &'static str, key: &'static str, kind: Kind, default: &'static str) -> Row {
    Row { name, key, kind, default: Some(default), optional: false, reload: false, doc: "" }
}

/// The broker's options.
pub const BROKER: &[Row] = &[
    Row {
        doc: "where the log broker listens, shared by all shards; shard k alone listens on the port + \
              1 + k",
        ..unset("broker", "broker.address", Kind::Address)
    },
    Row {
        doc: "the host that clients are told; off: the broker's address",
        ..unset("broker-announce", "broker.announce", Kind::Text { max_bytes: 255 })
    },
    Row {
        doc: "number of this machine: its shards are brokers 64 * number + shard",
        ..row("broker-node", "broker.node", Kind::Integer { min: 0, max: 1_000_000 }, "1")
    },
    Row {
        doc: "partitions of a topic that does not say how many",
        ..row("broker-partitions", "broker.partitions", Kind::Integer { min: 1, max: 10_000 }, "1")
    },
    Row {
        doc: "partitions of all topics, at most",
        ..row(
            "broker-partitions-max",
            "broker.partitions_max",
            Kind::Integer { min: 1, max: 1_000_000 },
            "16000",
        )
    },
    Row {
        doc: "make a topic when a client asks for one that is not there",
        ..row("broker-auto-create", "broker.auto_create", Kind::Bool, "true")
    },
    Row {
        doc: "how long an empty consumer group waits for more members before it begins",
        ..row(
            "broker-rebalance-delay",
            "broker.rebalance_delay",
            Kind::Duration { min_ns: 0, max_ns: 60_000_000_000 },
            "0s",
        )
    },
    Row {
        doc: "shortest session timeout that a member of a group may ask for",
        ..row(
            "broker-session-timeout-min",
            "broker.session_timeout_min",
            Kind::Duration { min_ns: 1_000_000, max_ns: 1_800_000_000_000 },
            "6s",
        )
    },
    Row {
        doc: "longest request",
        ..row(
            "broker-request-max",
            "broker.request_max",
            Kind::Size { min_bytes: 4096, max_bytes: 1 << 30 },
            "100mb",
        )
    },
];

/// Where the broker listens when nothing else is said.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";

/// The broker's options, checked.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The shared address.
    pub address: SocketAddr,
    /// The announced host.
    pub announce: Option<String>,
    /// Number of this machine.
    pub node: i32,
    /// Partitions of a topic that does not say how many.
    pub partitions: i32,
    /// Partitions of all topics.
    pub partitions_max: usize,
    /// Whether asking for a topic makes it.
    pub auto_create: bool,
    /// Longest request.
    pub request_max_bytes: usize,
    /// How long an empty group waits for more members.
    pub rebalance_delay_ms: i64,
    /// Shortest session timeout that a member may ask for.
    pub session_min_ms: i32,
    /// Where its files are.
    pub dir: PathBuf,
}

impl BrokerConfig {
    /// The typed form of `values`, whose table must contain [`BROKER`].
    ///
    /// # Errors
    /// The ports of `shards` shards do not fit behind the address, or there are too many shards.
    pub fn new(
        values: &Values,
        address: SocketAddr,
        shards: usize,
        data: &Path,
    ) -> Result<Self, Error> {
        if usize::from(address.port()) + shards > usize::from(u16::MAX) {
            let problem = format!("--broker: no room for the ports of {shards} shards above it");
            return Err(Error::new("option", ErrorKind::Invalid, problem)
                .remedied(format!("give a port below {}", usize::from(u16::MAX) - shards)));
        }
        if i32::try_from(shards).map_or(true, |shards| shards > SHARDS_MAX) {
            let problem = format!("--broker: {shards} shards, of {SHARDS_MAX} that can be brokers");
            return Err(Error::new("option", ErrorKind::Invalid, problem)
                .remedied(format!("give --shards {SHARDS_MAX} or fewer")));
        }
        Ok(Self {
            address,
            announce: values.text_if_set("broker-announce").map(Into::into),
            node: i32::try_from(values.integer("broker-node")).unwrap_or(1),
            partitions: i32::try_from(values.integer("broker-partitions")).unwrap_or(1),
            partitions_max: usize::try_from(values.integer("broker-partitions-max"))
                .unwrap_or(usize::MAX),
            auto_create: values.flag("broker-auto-create"),
            request_max_bytes: usize::try_from(values.size_bytes("broker-request-max"))
                .unwrap_or(usize::MAX),
            rebalance_delay_ms: i64::try_from(
                values.duration_ns("broker-rebalance-delay") / 1_000_000,
            )
            .unwrap_or(0),
            session_min_ms: i32::try_from(
                values.duration_ns("broker-session-timeout-min") / 1_000_000,
            )
            .unwrap_or(i32::MAX),
            dir: data.join("broker"),
        })
    }

    /// A shard's own address.
    #[must_use]
    pub fn shard_address(&self, shard: usize) -> SocketAddr {
        let offset = u16::try_from(shard).unwrap_or(u16::MAX).saturating_add(1);
        SocketAddr::new(self.address.ip(), self.address.port().saturating_add(offset))
    }
}
