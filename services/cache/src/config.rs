//! The cache's options and their typed form.

use std::net::SocketAddr;
use std::path::PathBuf;

use engine::config::{Kind, Row, Values};
use engine::error::{Error, Kind as ErrorKind};
use logic::store::Policy;

use crate::settings;

const fn unset(name: &'static str, key: &'static str, kind: Kind) -> Row {
    Row { name, key, kind, default: None, optional: true, reload: false, doc: "" }
}

const fn row(name: &'static str, key: &'static str, kind: Kind, default: &'static str) -> Row {
    Row { name, key, kind, default: Some(default), optional: false, reload: false, doc: "" }
}

/// The cache's options.
pub const CACHE: &[Row] = &[
    Row {
        doc: "where the cache listens, shared by all shards; shard k alone listens on the port + \
              1 + k",
        ..unset("cache", "cache.address", Kind::Address)
    },
    Row {
        doc: "a Unix socket where the cache listens too (its first shard)",
        ..unset("cache-unix", "cache.unix", Kind::Path)
    },
    Row {
        doc: "the host that cluster clients are told; off: the cache's address",
        ..unset("cache-announce", "cache.announce", Kind::Text { max_bytes: 255 })
    },
    Row {
        doc: "most memory the keys may take over all shards; 0 for no limit",
        ..row("maxmemory", "cache.maxmemory", Kind::Size { min_bytes: 0, max_bytes: 1 << 50 }, "0")
    },
    Row {
        doc: "what goes when memory is full",
        ..row(
            "maxmemory-policy",
            "cache.maxmemory_policy",
            Kind::Choice(settings::POLICIES),
            "noeviction",
        )
    },
    Row {
        doc: "keys compared for each eviction",
        ..row(
            "maxmemory-samples",
            "cache.maxmemory_samples",
            Kind::Integer { min: 1, max: 64 },
            "5",
        )
    },
    Row {
        doc: "numbered databases",
        ..row("databases", "cache.databases", Kind::Integer { min: 1, max: 1024 }, "16")
    },
    Row {
        doc: "the directory of the dump; a dump that is there is loaded at start",
        ..row("dir", "cache.dir", Kind::Path, ".")
    },
    Row {
        doc: "the name of the dump, in the format of redis' dump.rdb",
        ..row("dbfilename", "cache.dbfilename", Kind::Text { max_bytes: 255 }, "dump.rdb")
    },
    Row {
        doc: "when the dump is saved without being asked: pairs of seconds and changes, as `3600 1 300 100`; off: never",
        ..unset("save", "cache.save", Kind::Text { max_bytes: 255 })
    },
    Row {
        doc: "compress long strings in dumps",
        ..row("rdbcompression", "cache.rdbcompression", Kind::Bool, "true")
    },
    Row {
        doc: "end the dump with a checksum",
        ..row("rdbchecksum", "cache.rdbchecksum", Kind::Bool, "true")
    },
    Row {
        doc: "where memcached's protocol listens, shared by all shards; its items are apart from \
              the keys, without a password",
        ..unset("memcached", "cache.memcached", Kind::Address)
    },
    Row {
        doc: "largest item of memcached's protocol, with its key and 59 bytes or 63",
        ..row(
            "memcached-item-max",
            "cache.memcached_item_max",
            Kind::Size { min_bytes: 1 << 10, max_bytes: 512 << 20 },
            "1mb",
        )
    },
    Row {
        doc: "password that clients must give; off: none",
        ..unset("requirepass", "cache.requirepass", Kind::Text { max_bytes: 512 })
    },
];

/// Where the cache listens when nothing else is said.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:6379";
/// The same for memcached's protocol.
pub const DEFAULT_MEMCACHED: &str = "127.0.0.1:11211";

/// The cache's options, checked.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// The shared address.
    pub address: SocketAddr,
    /// A Unix socket.
    pub unix: Option<PathBuf>,
    /// The announced host.
    pub announce: Option<String>,
    /// Limit over all shards; 0 for none.
    pub maxmemory_bytes: u64,
    /// What goes when memory is full.
    pub policy: Policy,
    /// Keys compared for each eviction.
    pub samples: u8,
    /// Numbered databases.
    pub databases: u16,
    /// Password; empty for none.
    pub requirepass: String,
    /// The directory of the dump.
    pub dir: PathBuf,
    /// Its name.
    pub dbfilename: String,
    /// When it is saved without being asked.
    pub save: String,
    /// Whether long strings in it are compressed.
    pub rdb_compression: bool,
    /// Whether it ends with a checksum.
    pub rdb_checksum: bool,
    /// Where memcached's protocol listens.
    pub memcached: Option<SocketAddr>,
    /// Its largest item.
    pub item_max_bytes: usize,
}

impl CacheConfig {
    /// The typed form of `values`, whose table must contain [`CACHE`].
    ///
    /// # Errors
    /// When the ports of `shards` shards do not fit behind the address, or the dump's name or save points are none.
    pub fn new(values: &Values, address: SocketAddr, shards: usize) -> Result<Self, Error> {
        if usize::from(address.port()) + shards > usize::from(u16::MAX) {
            let problem = format!("--cache: no room for the ports of {shards} shards above it");
            return Err(Error::new("option", ErrorKind::Invalid, problem)
                .remedied(format!("give a port below {}", usize::from(u16::MAX) - shards)));
        }
        let invalid = |problem: String, remedy: &str| {
            Err(Error::new("option", ErrorKind::Invalid, problem).remedied(remedy))
        };
        let dbfilename = values.text("dbfilename");
        if dbfilename.is_empty() || dbfilename.contains('/') {
            let problem = format!("--dbfilename {dbfilename:?}: a path, not just a filename");
            return invalid(problem, "give the directory with --dir");
        }
        let save = settings::save_points(values.text_if_set("save").unwrap_or_default());
        let Ok(save) = save else {
            let problem = "--save: not pairs of seconds and changes".to_owned();
            return invalid(problem, "give for example --save '3600 1 300 100'");
        };
        Ok(Self {
            address,
            unix: values.path_if_set("cache-unix").map(Into::into),
            announce: values.text_if_set("cache-announce").map(Into::into),
            maxmemory_bytes: values.size_bytes("maxmemory"),
            policy: settings::policy(values.choice("maxmemory-policy"))
                .unwrap_or(Policy::NoEviction),
            samples: u8::try_from(values.integer("maxmemory-samples")).unwrap_or(5),
            databases: u16::try_from(values.integer("databases")).unwrap_or(16),
            requirepass: values.text_if_set("requirepass").unwrap_or_default().into(),
            dir: values.path("dir").to_owned(),
            dbfilename: dbfilename.into(),
            save,
            rdb_compression: values.flag("rdbcompression"),
            rdb_checksum: values.flag("rdbchecksum"),
            memcached: values.address_if_set("memcached"),
            item_max_bytes: usize::try_from(values.size_bytes("memcached-item-max"))
                .unwrap_or(usize::MAX),
        })
    }

    /// A shard's own address.
    #[must_use]
    pub fn shard_address(&self, shard: usize) -> SocketAddr {
        let offset = u16::try_from(shard).unwrap_or(u16::MAX).saturating_add(1);
        SocketAddr::new(self.address.ip(), self.address.port().saturating_add(offset))
    }
}
