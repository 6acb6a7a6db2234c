//! The broker's options and their typed form.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::config::{Kind, Row, Values};
use engine::error::{Error, Kind as ErrorKind};
use engine::net::tls::{Tls, TlsFiles};
use engine::rng::Seed;

use crate::quota::QuotaRules;
use crate::shard::SHARDS_MAX;
use crate::users::Users;

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
        doc: "where it listens for TLS, laid out as --broker; clients that come here are told the \
              ports for TLS; needs --broker-tls-cert and --broker-tls-key",
        ..unset("broker-tls", "broker.tls.address", Kind::Address)
    },
    Row {
        doc: "certificate for TLS and those that lead to its authority, PEM",
        ..unset("broker-tls-cert", "broker.tls.cert", Kind::Path)
    },
    Row {
        doc: "private key of that certificate, PEM",
        ..unset("broker-tls-key", "broker.tls.key", Kind::Path)
    },
    Row {
        doc: "refuse TLS clients without a certificate of an authority in this file, PEM; off: ask \
              for none",
        ..unset("broker-tls-client-ca", "broker.tls.client_ca", Kind::Path)
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
        doc: "memory of each shard for the keys of a partition that is being compacted, 32 bytes for each key",
        ..row(
            "broker-compaction-memory",
            "broker.compaction_memory",
            Kind::Size { min_bytes: 1 << 20, max_bytes: 64 << 30 },
            "64mb",
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
    Row {
        doc: "produce requests of a connection that wait for the disk before it is no longer read",
        ..row(
            "broker-in-flight-max",
            "broker.in_flight_max",
            Kind::Integer { min: 1, max: 65_536 },
            "256",
        )
    },
    Row {
        doc: "a TOML file of users: clients log in by SASL, PLAIN or SCRAM; off: everybody may do everything",
        ..unset("broker-users", "broker.users", Kind::Path)
    },
    Row {
        doc: "how long a log-in lasts before the client has to renew it; 0 for ever",
        ..row(
            "broker-reauth",
            "broker.reauth",
            Kind::Duration { min_ns: 0, max_ns: 30 * 86_400_000_000_000 },
            "0s",
        )
    },
    Row {
        doc: "bytes that each client may produce in a second, on each shard; more is slowed down",
        ..unset("broker-quota-produce", "broker.quota_produce", QUOTA)
    },
    Row {
        doc: "bytes that each client may fetch in a second, on each shard; more is slowed down",
        ..unset("broker-quota-fetch", "broker.quota_fetch", QUOTA)
    },
    Row {
        doc: "requests that each client may make in a second, on each shard; more is slowed down",
        ..unset(
            "broker-quota-requests",
            "broker.quota_requests",
            Kind::Integer { min: 1, max: 1 << 40 },
        )
    },
    Row {
        doc: "a TOML file of quotas of single users and client ids",
        ..unset("broker-quotas", "broker.quotas", Kind::Path)
    },
];

const QUOTA: Kind = Kind::Size { min_bytes: 1, max_bytes: 1 << 40 };

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
    /// Memory for keys while a partition is compacted.
    pub compaction_memory_bytes: usize,
    /// Produce requests of a connection that wait for the disk.
    pub in_flight_max: usize,
    /// Who may log in.
    pub users: Option<Arc<Users>>,
    /// How long a log-in lasts; zero for ever.
    pub reauth_ms: u64,
    /// How much clients may use.
    pub quotas: Option<Arc<QuotaRules>>,
    /// Shortest session timeout that a member may ask for.
    pub session_min_ms: i32,
    /// Where its files are.
    pub dir: PathBuf,
    /// The listeners for TLS.
    pub tls: Option<TlsConfig>,
}

/// Listeners for TLS beside the plain ones.
#[derive(Clone)]
pub struct TlsConfig {
    /// The shared address.
    pub address: SocketAddr,
    /// Certificates and key.
    pub tls: Arc<dyn Tls>,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsConfig({})", self.address)
    }
}

impl TlsConfig {
    /// The typed form of the options for TLS; `None` when there is no listener for it.
    fn new(values: &Values, plain: SocketAddr, shards: usize) -> Result<Option<Self>, Error> {
        let path = |name| values.path_if_set(name).map(Path::to_owned);
        let wrong = |problem: String, remedy: &str| {
            Err(Error::new("option", ErrorKind::Invalid, problem).remedied(remedy))
        };
        let Some(address) = values.address_if_set("broker-tls") else {
            for name in ["broker-tls-cert", "broker-tls-key", "broker-tls-client-ca"] {
                if path(name).is_some() {
                    let problem = format!("--{name}: there is no listener for TLS");
                    return wrong(problem, "give --broker-tls HOST:PORT too");
                }
            }
            return Ok(None);
        };
        let (Some(cert), Some(key)) = (path("broker-tls-cert"), path("broker-tls-key")) else {
            let problem = "--broker-tls: a certificate and its key are needed".to_owned();
            return wrong(problem, "give --broker-tls-cert FILE and --broker-tls-key FILE");
        };
        ports_fit("--broker-tls", address, shards)?;
        if usize::from(address.port().abs_diff(plain.port())) <= shards {
            let problem = format!("--broker-tls {address}: its ports overlap those of {plain}");
            return wrong(
                problem,
                "give a port further from that of --broker than there are shards",
            );
        }
        let client_ca = path("broker-tls-client-ca");
        let tls = TlsFiles { cert, key, client_ca, client_optional: false }.load()?;
        Ok(Some(Self { address, tls }))
    }
}

/// The ports of all shards follow that of the address.
fn ports_fit(option: &str, address: SocketAddr, shards: usize) -> Result<(), Error> {
    if usize::from(address.port()) + shards <= usize::from(u16::MAX) {
        return Ok(());
    }
    let problem = format!("{option}: no room for the ports of {shards} shards above it");
    Err(Error::new("option", ErrorKind::Invalid, problem)
        .remedied(format!("give a port below {}", usize::from(u16::MAX) - shards)))
}

/// A shard's own address, behind the shared one.
#[must_use]
pub fn shard_address(shared: SocketAddr, shard: usize) -> SocketAddr {
    let offset = u16::try_from(shard).unwrap_or(u16::MAX).saturating_add(1);
    SocketAddr::new(shared.ip(), shared.port().saturating_add(offset))
}

impl BrokerConfig {
    /// The typed form of `values`, whose table must contain [`BROKER`].
    ///
    /// # Errors
    /// The ports of `shards` shards do not fit behind the address, there are too many shards, or what TLS needs is
    /// not there.
    pub fn new(
        values: &Values,
        address: SocketAddr,
        shards: usize,
        data: &Path,
    ) -> Result<Self, Error> {
        ports_fit("--broker", address, shards)?;
        if i32::try_from(shards).map_or(true, |shards| shards > SHARDS_MAX) {
            let problem = format!("--broker: {shards} shards, of {SHARDS_MAX} that can be brokers");
            return Err(Error::new("option", ErrorKind::Invalid, problem)
                .remedied(format!("give --shards {SHARDS_MAX} or fewer")));
        }
        let users = values.path_if_set("broker-users");
        let seed = values.integer_if_set("seed").map(Seed);
        let users = users.map(|path| Users::load(path, seed).map(Arc::new)).transpose()?;
        let everybody = [
            values.size_bytes_if_set("broker-quota-produce"),
            values.size_bytes_if_set("broker-quota-fetch"),
            values.integer_if_set("broker-quota-requests"),
        ];
        let quotas = QuotaRules::load(everybody, values.path_if_set("broker-quotas"))?;
        Ok(Self {
            users,
            reauth_ms: values.duration_ns("broker-reauth") / 1_000_000,
            quotas: quotas.map(Arc::new),
            in_flight_max: usize::try_from(values.integer("broker-in-flight-max"))
                .unwrap_or(usize::MAX),
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
            compaction_memory_bytes: usize::try_from(values.size_bytes("broker-compaction-memory"))
                .unwrap_or(usize::MAX),
            session_min_ms: i32::try_from(
                values.duration_ns("broker-session-timeout-min") / 1_000_000,
            )
            .unwrap_or(i32::MAX),
            dir: data.join("broker"),
            tls: TlsConfig::new(values, address, shards)?,
        })
    }

    /// A shard's own address.
    #[must_use]
    pub fn shard_address(&self, shard: usize) -> SocketAddr {
        shard_address(self.address, shard)
    }
}
