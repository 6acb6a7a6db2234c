//! The cache's options and their typed form.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use engine::config::{Kind, Row, Values};
use engine::error::{Error, Kind as ErrorKind};
use engine::fs::log::LogConfig;
use engine::net::tls::{Tls, TlsFiles};
use logic::store::Policy;

use crate::acl::{Rules, User};
use crate::aof::Fsync;
use crate::command::{acl, table::Index};
use crate::directive::{Bind, Directives};
use crate::repl::Master;
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
        doc: "dumps are one file per shard, named by a manifest, instead of one for all",
        ..row("save-per-shard", "cache.save_per_shard", Kind::Bool, "false")
    },
    Row {
        doc: "log what changes, and load that at the next start instead of the dump",
        ..row("appendonly", "cache.appendonly", Kind::Choice(&["no", "yes"]), "no")
    },
    Row {
        doc: "when what was logged is made durable: before it is acknowledged, each second, or \
              when the buffers are full",
        ..row(
            "appendfsync",
            "cache.appendfsync",
            Kind::Choice(&["everysec", "always", "no"]),
            "everysec",
        )
    },
    Row {
        doc: "the directory for the append-only log, below --dir",
        ..row(
            "appenddirname",
            "cache.appenddirname",
            Kind::Text { max_bytes: 255 },
            "appendonlydir",
        )
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
        doc: "follow this server as its replica: `HOST PORT`; off: nobody",
        ..unset("replicaof", "cache.replicaof", Kind::Text { max_bytes: 512 })
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

/// Sizes of the append-only log.
const LOG: LogConfig = LogConfig {
    segment_bytes: 16 << 20,
    segments_max: 1 << 16,
    batch_bytes: 256 << 10,
    batches: 4,
};

/// The cache's options, checked.
#[derive(Clone)]
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
    /// Dumps are one file per shard.
    pub save_per_shard: bool,
    /// Log what changes.
    pub appendonly: bool,
    /// When that is made durable.
    pub appendfsync: Fsync,
    /// The directory of the log, below `dir`.
    pub appenddirname: String,
    /// Its sizes, which are no options: a simulation has smaller logs.
    pub log: LogConfig,
    /// Whom this server follows.
    pub replicaof: Option<Master>,
    /// Where memcached's protocol listens.
    pub memcached: Option<SocketAddr>,
    /// Its largest item.
    pub item_max_bytes: usize,
    /// Where the shared port listens; port 0 in `address` for nowhere.
    pub binds: Vec<Bind>,
    /// Whether each shard listens on a port of its own, too.
    pub has_shard_ports: bool,
    /// Mode of the Unix socket; the system's otherwise.
    pub unix_mode: Option<u32>,
    /// The shared port for TLS.
    pub tls: Option<(u16, Arc<dyn Tls>)>,
    /// Parameters as CONFIG GET shows them, where they differ from their defaults.
    pub settings: Vec<(String, String)>,
    /// Users that there are at start; without one of that name, the default user may do everything.
    pub users: Vec<User>,
    /// The redis.conf this was started with; empty for none.
    pub config_file: String,
    /// Connections from other hosts are refused while `protected-mode` is on and there is no password.
    pub protects: bool,
    /// Set to the wall clock in microseconds when the first shard starts.
    pub clock_us: Arc<AtomicU64>,
}

impl std::fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No password, and no keys.
        f.debug_struct("CacheConfig").field("address", &self.address).finish_non_exhaustive()
    }
}

impl CacheConfig {
    /// The typed form of `values`, whose table must contain [`CACHE`].
    ///
    /// # Errors
    /// When the ports of `shards` shards do not fit behind the address, or the dump's name or save points are none.
    pub fn new(values: &Values, address: SocketAddr, shards: usize) -> Result<Self, Error> {
        let mut config = Self::unplaced(values, address);
        config.ports_fit(shards)?;
        config.check_dump()?;
        config.check_log()?;
        config.check_master(values)?;
        Ok(config)
    }

    /// Checks what is said of the append-only log, and has CONFIG GET show it.
    fn check_log(&mut self) -> Result<(), Error> {
        let name = self.appenddirname.clone();
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            let problem = format!("--appenddirname {name:?}: a path, not just a name");
            return Err(Error::new("option", ErrorKind::Invalid, problem)
                .remedied("give the directory it is in with --dir"));
        }
        let on = if self.appendonly { "yes" } else { "no" };
        for (name, text) in
            [("appendonly", on), ("appendfsync", self.appendfsync.name()), ("appenddirname", &name)]
        {
            self.settings.push((name.into(), text.into()));
        }
        Ok(())
    }

    /// Takes whom to follow, and has CONFIG GET show it.
    fn check_master(&mut self, values: &Values) -> Result<(), Error> {
        let text = values.text_if_set("replicaof").unwrap_or_default();
        self.replicaof = Master::parse(text).map_err(|why| {
            let problem = format!("--replicaof {text:?}: {why}");
            Error::new("option", ErrorKind::Invalid, problem)
                .remedied("give a host and a port: --replicaof '10.0.0.1 6379'")
        })?;
        let text = self.replicaof.as_ref().map_or_else(String::new, Master::text);
        self.settings.push(("replicaof".into(), text));
        Ok(())
    }

    /// Checks what is said of the dump, and puts its save points into their usual form.
    fn check_dump(&mut self) -> Result<(), Error> {
        let invalid = |problem: String, remedy: &str| {
            Err(Error::new("option", ErrorKind::Invalid, problem).remedied(remedy))
        };
        let name = &self.dbfilename;
        if name.is_empty() || name.contains('/') {
            let problem = format!("--dbfilename {name:?}: a path, not just a filename");
            return invalid(problem, "give the directory with --dir");
        }
        let Ok(save) = settings::save_points(&self.save) else {
            let problem = "--save: not pairs of seconds and changes".to_owned();
            return invalid(problem, "give for example --save '3600 1 300 100'");
        };
        self.save = save;
        Ok(())
    }

    fn ports_fit(&self, shards: usize) -> Result<(), Error> {
        if self.has_shard_ports && usize::from(self.address.port()) + shards > usize::from(u16::MAX)
        {
            let problem = format!("--cache: no room for the ports of {shards} shards above it");
            return Err(Error::new("option", ErrorKind::Invalid, problem)
                .remedied(format!("give a port below {}", usize::from(u16::MAX) - shards)));
        }
        Ok(())
    }

    fn unplaced(values: &Values, address: SocketAddr) -> Self {
        Self {
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
            dbfilename: values.text("dbfilename").into(),
            save: values.text_if_set("save").unwrap_or_default().to_owned(),
            rdb_compression: values.flag("rdbcompression"),
            rdb_checksum: values.flag("rdbchecksum"),
            save_per_shard: values.flag("save-per-shard"),
            appendonly: values.choice("appendonly") == "yes",
            appendfsync: Fsync::named(values.choice("appendfsync")),
            appenddirname: values.text("appenddirname").into(),
            log: LOG,
            replicaof: None,
            memcached: values.address_if_set("memcached"),
            item_max_bytes: usize::try_from(values.size_bytes("memcached-item-max"))
                .unwrap_or(usize::MAX),
            binds: vec![Bind { ip: address.ip(), optional: false }],
            has_shard_ports: true,
            unix_mode: None,
            tls: None,
            settings: Vec::new(),
            users: Vec::new(),
            config_file: String::new(),
            protects: false,
            clock_us: Arc::default(),
        }
    }

    /// The same with directives of redis-server, which say where to listen when nothing of our own does.
    ///
    /// # Errors
    /// Their ports or files are not fit.
    pub fn with_directives(
        values: &Values,
        address: SocketAddr,
        shards: usize,
        directives: &Directives,
    ) -> Result<Self, Error> {
        let mut config = Self::unplaced(values, address);
        let given = |name: &str| Some(directives.get(name)).filter(|text| !text.is_empty());
        if directives.is_drop_in {
            config.binds = directives.bind()?;
            let ip = config.binds.first().map_or(address.ip(), |bind| bind.ip);
            config.address = SocketAddr::new(ip, directives.port());
            config.has_shard_ports = directives.get("cluster-enabled") == "yes";
            config.protects = true;
        }
        config.ports_fit(shards)?;
        let other = |name: &str, default: &str| given(name).filter(|text| *text != default);
        if let Some(dir) = other("dir", ".") {
            config.dir = dir.into();
        }
        if let Some(name) = other("dbfilename", "dump.rdb") {
            config.dbfilename = name.into();
        }
        if let Some(save) = given("save") {
            config.save = save.into();
        }
        config.rdb_compression &= directives.get("rdbcompression") != "no";
        config.check_dump()?;
        config.appendonly |= directives.get("appendonly") == "yes";
        if let Some(policy) = other("appendfsync", "everysec") {
            config.appendfsync = Fsync::named(policy);
        }
        if let Some(name) = other("appenddirname", "appendonlydir") {
            config.appenddirname = name.into();
        }
        if let Some(path) = given("unixsocket") {
            config.unix = Some(path.into());
        }
        config.unix_mode = directives.unix_permissions()?;
        if directives.tls_port() > 0 {
            let path = |name: &str| PathBuf::from(directives.get(name));
            let clients = directives.get("tls-auth-clients");
            let files = TlsFiles {
                cert: path("tls-cert-file"),
                key: path("tls-key-file"),
                client_ca: (clients != "no").then(|| path("tls-ca-cert-file")),
                client_optional: clients == "optional",
            };
            config.tls = Some((directives.tls_port(), files.load()?));
        }
        let pairs = directives.settings().map(|(name, text)| (name.to_owned(), text.to_owned()));
        config.settings = pairs.collect();
        config.check_log()?;
        config.check_master(values)?;
        let dir = std::path::absolute(&config.dir).unwrap_or_default();
        config.settings.push(("dir".into(), dir.display().to_string()));
        if directives.is_drop_in {
            let shown =
                |bind: &Bind| format!("{}{}", if bind.optional { "-" } else { "" }, bind.ip);
            let binds: Vec<String> = config.binds.iter().map(shown).collect();
            config.settings.push(("bind".into(), binds.join(" ")));
        }
        config.users = users(directives)?;
        if let Some(file) = &directives.file {
            config.config_file = file.display().to_string();
        }
        Ok(config)
    }

    /// Where the service can be reached, for people.
    #[must_use]
    pub fn place(&self) -> String {
        let mut places = Vec::new();
        if self.address.port() > 0 {
            places.push(self.address.to_string());
        }
        if let Some((port, _)) = &self.tls {
            places.push(SocketAddr::new(self.address.ip(), *port).to_string() + " (TLS)");
        }
        if let Some(path) = &self.unix {
            places.push(path.display().to_string());
        }
        places.join(", ")
    }

    /// The shared addresses at a port, and whether this host need not have them.
    pub fn addresses(&self, port: u16) -> impl Iterator<Item = (SocketAddr, bool)> + '_ {
        let at = move |bind: &Bind| (SocketAddr::new(bind.ip, port), bind.optional);
        self.binds.iter().filter(move |_| port > 0).map(at)
    }

    /// The host that cluster clients are told.
    #[must_use]
    pub fn announced(&self) -> String {
        match (&self.announce, self.address.ip()) {
            (Some(host), _) => host.clone(),
            (None, IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".into(),
            (None, IpAddr::V6(ip)) if ip.is_unspecified() => "127.0.0.1".into(),
            (None, ip) => ip.to_string(),
        }
    }

    /// A shard's own address.
    #[must_use]
    pub fn shard_address(&self, shard: usize) -> SocketAddr {
        let offset = u16::try_from(shard).unwrap_or(u16::MAX).saturating_add(1);
        SocketAddr::new(self.address.ip(), self.address.port().saturating_add(offset))
    }
}

/// The users of `user` lines, or of the file that `aclfile` names.
fn users(directives: &Directives) -> Result<Vec<User>, Error> {
    let commands = Index::new();
    let all_channels = directives.get("acl-pubsub-default") == "allchannels";
    let rules = Rules { commands: &commands, all_channels };
    let invalid = |problem: String| {
        Error::new("option", ErrorKind::Invalid, problem).remedied("correct the user's rules")
    };
    let mut users = Vec::new();
    for line in &directives.users {
        let Some((name, given)) = line.split_first() else { continue };
        let user = acl::make_user(&rules, name.as_bytes(), given)
            .map_err(|why| invalid(format!("user {name}: {why}")))?;
        if users.iter().any(|known: &User| known.name == user.name) {
            return Err(invalid(format!("user {name}: it is there twice")));
        }
        users.push(user);
    }
    let file = directives.get("aclfile");
    if file.is_empty() {
        return Ok(users);
    }
    if !users.is_empty() {
        let problem = "aclfile and user: users are either in the one or in the other";
        return Err(Error::new("option", ErrorKind::Invalid, problem)
            .remedied("move the `user` lines to the file"));
    }
    let path = std::path::Path::new(directives.get("dir")).join(file);
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(&path).map_err(|source| Error::io("read", source, name.clone()))?;
    acl::parse_users(&rules, &name, &text).map_err(invalid)
}
