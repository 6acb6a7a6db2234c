//! Run-time configuration as CONFIG GET and CONFIG SET see it: one table row per parameter.
//!
//! Parameters that change what we do have a typed copy beside their text. Others are accepted,
//! checked and kept, because clients and frameworks read back what they set. Invariant: a CONFIG
//! SET that fails changes nothing.

use logic::{object::Limits, store::Policy};

use crate::{pubsub::Limit, shard::ShardConfig};

/// What a parameter accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `yes` or `no`.
    Bool,
    /// An integer in this range.
    Int(i64, i64),
    /// A size with an optional unit, in this range.
    Memory(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Anything.
    Text,
    /// Save points.
    Save,
    /// Event classes.
    Events,
    /// Buffer limits by client class.
    BufferLimits,
    /// Not to be changed while running.
    Fixed,
    /// Not to be changed by clients at all.
    Protected,
}

struct Param {
    name: &'static str,
    kind: Kind,
    default: &'static str,
}

const fn param(name: &'static str, kind: Kind, default: &'static str) -> Param {
    Param { name, kind, default }
}

const I32: i64 = i32::MAX as i64;
/// Names of the policies in the order Redis lists them, with ours at the end.
pub const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
    "s3fifo",
];

/// Levels of the log.
pub(crate) const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning"];

static PARAMS: &[Param] = &[
    param("acl-pubsub-default", Kind::Word(&["allchannels", "resetchannels"]), "resetchannels"),
    param("aclfile", Kind::Fixed, ""),
    param("acllog-max-len", Kind::Int(0, i64::MAX), "128"),
    param("active-defrag-cycle-max", Kind::Int(1, 99), "25"),
    param("active-defrag-cycle-min", Kind::Int(1, 99), "1"),
    param("active-defrag-ignore-bytes", Kind::Memory(1, i64::MAX as u64), "104857600"),
    param("active-defrag-max-scan-fields", Kind::Int(1, i64::MAX), "1000"),
    param("active-defrag-threshold-lower", Kind::Int(0, 1000), "10"),
    param("active-defrag-threshold-upper", Kind::Int(0, 1000), "100"),
    param("active-expire-effort", Kind::Int(1, 10), "1"),
    param("activedefrag", Kind::Bool, "no"),
    param("activerehashing", Kind::Bool, "yes"),
    param("always-show-logo", Kind::Fixed, "no"),
    param("aof-disable-auto-gc", Kind::Bool, "no"),
    param("aof-load-truncated", Kind::Bool, "yes"),
    param("aof-rewrite-incremental-fsync", Kind::Bool, "yes"),
    param("aof-timestamp-enabled", Kind::Bool, "no"),
    param("aof-use-rdb-preamble", Kind::Bool, "yes"),
    param("aof_rewrite_cpulist", Kind::Fixed, ""),
    param("appenddirname", Kind::Fixed, "appendonlydir"),
    param("appendfilename", Kind::Fixed, "appendonly.aof"),
    param("appendfsync", Kind::Word(&["everysec", "always", "no"]), "everysec"),
    param("appendonly", Kind::Bool, "no"),
    param("auto-aof-rewrite-min-size", Kind::Memory(0, i64::MAX as u64), "67108864"),
    param("auto-aof-rewrite-percentage", Kind::Int(0, I32), "100"),
    param("bgsave_cpulist", Kind::Fixed, ""),
    param("bind", Kind::Fixed, "* -::*"),
    param("bind-source-addr", Kind::Text, ""),
    param("bio_cpulist", Kind::Fixed, ""),
    param("busy-reply-threshold", Kind::Int(0, i64::MAX), "5000"),
    param(
        "client-output-buffer-limit",
        Kind::BufferLimits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    ),
    param("client-query-buffer-limit", Kind::Memory(1 << 20, i64::MAX as u64), "1073741824"),
    param("cluster-allow-pubsubshard-when-down", Kind::Bool, "yes"),
    param("cluster-allow-reads-when-down", Kind::Bool, "no"),
    param("cluster-allow-replica-migration", Kind::Bool, "yes"),
    param("cluster-announce-bus-port", Kind::Int(0, 65_535), "0"),
    param("cluster-announce-hostname", Kind::Text, ""),
    param("cluster-announce-ip", Kind::Text, ""),
    param("cluster-announce-port", Kind::Int(0, 65_535), "0"),
    param("cluster-announce-tls-port", Kind::Int(0, 65_535), "0"),
    param("cluster-config-file", Kind::Fixed, "nodes.conf"),
    param("cluster-enabled", Kind::Fixed, "no"),
    param("cluster-link-sendbuf-limit", Kind::Memory(0, i64::MAX as u64), "0"),
    param("cluster-migration-barrier", Kind::Int(0, I32), "1"),
    param("cluster-node-timeout", Kind::Int(0, i64::MAX), "15000"),
    param("cluster-port", Kind::Fixed, "0"),
    param(
        "cluster-preferred-endpoint-type",
        Kind::Word(&["ip", "hostname", "unknown-endpoint"]),
        "ip",
    ),
    param("cluster-replica-no-failover", Kind::Bool, "no"),
    param("cluster-replica-validity-factor", Kind::Int(0, I32), "10"),
    param("cluster-require-full-coverage", Kind::Bool, "yes"),
    param("cluster-slave-no-failover", Kind::Bool, "no"),
    param("cluster-slave-validity-factor", Kind::Int(0, I32), "10"),
    param("crash-log-enabled", Kind::Bool, "yes"),
    param("crash-memcheck-enabled", Kind::Bool, "yes"),
    param("daemonize", Kind::Fixed, "no"),
    param("databases", Kind::Fixed, "16"),
    param("dbfilename", Kind::Protected, "dump.rdb"),
    param("dir", Kind::Protected, "."),
    param("disable-thp", Kind::Fixed, "yes"),
    param("dynamic-hz", Kind::Bool, "yes"),
    param("enable-debug-command", Kind::Fixed, "local"),
    param("enable-module-command", Kind::Fixed, "no"),
    param("enable-protected-configs", Kind::Fixed, "no"),
    param("hash-max-listpack-entries", Kind::Int(0, i64::MAX), "512"),
    param("hash-max-listpack-value", Kind::Int(0, i64::MAX), "64"),
    param("hash-max-ziplist-entries", Kind::Int(0, i64::MAX), "512"),
    param("hash-max-ziplist-value", Kind::Int(0, i64::MAX), "64"),
    param("hll-sparse-max-bytes", Kind::Memory(0, i64::MAX as u64), "3000"),
    param("hz", Kind::Int(0, I32), "10"),
    param("ignore-warnings", Kind::Text, ""),
    param("io-threads", Kind::Fixed, "1"),
    param("io-threads-do-reads", Kind::Fixed, "no"),
    param("jemalloc-bg-thread", Kind::Bool, "yes"),
    param("latency-monitor-threshold", Kind::Int(0, i64::MAX), "0"),
    param("latency-tracking", Kind::Bool, "no"),
    param("latency-tracking-info-percentiles", Kind::Text, "50 99 99.9"),
    param("lazyfree-lazy-eviction", Kind::Bool, "no"),
    param("lazyfree-lazy-expire", Kind::Bool, "no"),
    param("lazyfree-lazy-server-del", Kind::Bool, "no"),
    param("lazyfree-lazy-user-del", Kind::Bool, "no"),
    param("lazyfree-lazy-user-flush", Kind::Bool, "no"),
    param("lfu-decay-time", Kind::Int(0, I32), "1"),
    param("lfu-log-factor", Kind::Int(0, I32), "10"),
    param("list-compress-depth", Kind::Int(0, I32), "0"),
    param("list-max-listpack-size", Kind::Int(-I32 - 1, I32), "-2"),
    param("list-max-ziplist-size", Kind::Int(-I32 - 1, I32), "-2"),
    param("logfile", Kind::Fixed, ""),
    param("loglevel", Kind::Word(LOG_LEVELS), "notice"),
    param("lua-time-limit", Kind::Int(0, i64::MAX), "5000"),
    param("masterauth", Kind::Text, ""),
    param("masteruser", Kind::Text, ""),
    param("maxclients", Kind::Int(1, u32::MAX as i64), "10000"),
    param("maxmemory", Kind::Memory(0, u64::MAX), "0"),
    param("maxmemory-clients", Kind::Memory(0, u64::MAX), "0"),
    param("maxmemory-eviction-tenacity", Kind::Int(0, 100), "10"),
    param("maxmemory-policy", Kind::Word(POLICIES), "noeviction"),
    param("maxmemory-samples", Kind::Int(1, I32), "5"),
    param("min-replicas-max-lag", Kind::Int(0, I32), "10"),
    param("min-replicas-to-write", Kind::Int(0, I32), "0"),
    param("min-slaves-max-lag", Kind::Int(0, I32), "10"),
    param("min-slaves-to-write", Kind::Int(0, I32), "0"),
    param("no-appendfsync-on-rewrite", Kind::Bool, "no"),
    param("notify-keyspace-events", Kind::Events, ""),
    param("oom-score-adj", Kind::Word(&["no", "yes", "relative", "absolute"]), "no"),
    param("oom-score-adj-values", Kind::Text, "0 200 800"),
    param("pidfile", Kind::Fixed, ""),
    param("port", Kind::Fixed, "6379"),
    param("proc-title-template", Kind::Text, "{title} {listen-addr} {server-mode}"),
    param(
        "propagation-error-behavior",
        Kind::Word(&["ignore", "panic", "panic-on-replicas"]),
        "ignore",
    ),
    param("protected-mode", Kind::Bool, "yes"),
    param("proto-max-bulk-len", Kind::Memory(1 << 20, i64::MAX as u64), "536870912"),
    param("rdb-del-sync-files", Kind::Bool, "no"),
    param("rdb-save-incremental-fsync", Kind::Bool, "yes"),
    param("rdbchecksum", Kind::Fixed, "yes"),
    param("rdbcompression", Kind::Bool, "yes"),
    param("repl-backlog-size", Kind::Memory(1, i64::MAX as u64), "1048576"),
    param("repl-backlog-ttl", Kind::Int(0, i64::MAX), "3600"),
    param("repl-disable-tcp-nodelay", Kind::Bool, "no"),
    param("repl-diskless-load", Kind::Word(&["disabled", "on-empty-db", "swapdb"]), "disabled"),
    param("repl-diskless-sync", Kind::Bool, "yes"),
    param("repl-diskless-sync-delay", Kind::Int(0, I32), "5"),
    param("repl-diskless-sync-max-replicas", Kind::Int(0, I32), "0"),
    param("repl-ping-replica-period", Kind::Int(1, I32), "10"),
    param("repl-ping-slave-period", Kind::Int(1, I32), "10"),
    param("repl-timeout", Kind::Int(1, I32), "60"),
    param("replica-announce-ip", Kind::Text, ""),
    param("replica-announce-port", Kind::Int(0, 65_535), "0"),
    param("replica-announced", Kind::Bool, "yes"),
    param("replica-ignore-disk-write-errors", Kind::Bool, "no"),
    param("replica-ignore-maxmemory", Kind::Bool, "yes"),
    param("replica-lazy-flush", Kind::Bool, "no"),
    param("replica-priority", Kind::Int(0, I32), "100"),
    param("replica-read-only", Kind::Bool, "yes"),
    param("replica-serve-stale-data", Kind::Bool, "yes"),
    param("replicaof", Kind::Fixed, ""),
    param("requirepass", Kind::Text, ""),
    param("sanitize-dump-payload", Kind::Word(&["no", "yes", "clients"]), "no"),
    param("save", Kind::Save, ""),
    param("server_cpulist", Kind::Fixed, ""),
    param("set-max-intset-entries", Kind::Int(0, i64::MAX), "512"),
    param("set-proc-title", Kind::Fixed, "yes"),
    param("shutdown-on-sigint", Kind::Text, "default"),
    param("shutdown-on-sigterm", Kind::Text, "default"),
    param("shutdown-timeout", Kind::Int(0, I32), "10"),
    param("slave-announce-ip", Kind::Text, ""),
    param("slave-announce-port", Kind::Int(0, 65_535), "0"),
    param("slave-ignore-maxmemory", Kind::Bool, "yes"),
    param("slave-lazy-flush", Kind::Bool, "no"),
    param("slave-priority", Kind::Int(0, I32), "100"),
    param("slave-read-only", Kind::Bool, "yes"),
    param("slave-serve-stale-data", Kind::Bool, "yes"),
    param("slaveof", Kind::Fixed, ""),
    param("slowlog-log-slower-than", Kind::Int(-1, i64::MAX), "10000"),
    param("slowlog-max-len", Kind::Int(0, i64::MAX), "128"),
    param("socket-mark-id", Kind::Fixed, "0"),
    param("stop-writes-on-bgsave-error", Kind::Bool, "yes"),
    param("stream-node-max-bytes", Kind::Memory(0, i64::MAX as u64), "4096"),
    param("stream-node-max-entries", Kind::Int(0, i64::MAX), "100"),
    param("supervised", Kind::Fixed, "no"),
    param("syslog-enabled", Kind::Fixed, "no"),
    param("syslog-facility", Kind::Fixed, "local0"),
    param("syslog-ident", Kind::Fixed, "redis"),
    param("tcp-backlog", Kind::Fixed, "511"),
    param("tcp-keepalive", Kind::Int(0, I32), "300"),
    param("timeout", Kind::Int(0, I32), "0"),
    param("tls-auth-clients", Kind::Fixed, "yes"),
    param("tls-ca-cert-dir", Kind::Fixed, ""),
    param("tls-ca-cert-file", Kind::Fixed, ""),
    param("tls-cert-file", Kind::Fixed, ""),
    param("tls-ciphers", Kind::Fixed, ""),
    param("tls-ciphersuites", Kind::Fixed, ""),
    param("tls-client-cert-file", Kind::Fixed, ""),
    param("tls-client-key-file", Kind::Fixed, ""),
    param("tls-client-key-file-pass", Kind::Fixed, ""),
    param("tls-cluster", Kind::Fixed, "no"),
    param("tls-dh-params-file", Kind::Fixed, ""),
    param("tls-key-file", Kind::Fixed, ""),
    param("tls-key-file-pass", Kind::Fixed, ""),
    param("tls-port", Kind::Fixed, "0"),
    param("tls-prefer-server-ciphers", Kind::Fixed, "no"),
    param("tls-protocols", Kind::Fixed, ""),
    param("tls-replication", Kind::Fixed, "no"),
    param("tls-session-cache-size", Kind::Fixed, "20480"),
    param("tls-session-cache-timeout", Kind::Fixed, "300"),
    param("tls-session-caching", Kind::Fixed, "yes"),
    param("tracking-table-max-keys", Kind::Int(0, i64::MAX), "1000000"),
    param("unixsocket", Kind::Fixed, ""),
    param("unixsocketperm", Kind::Fixed, "0"),
    param("zset-max-listpack-entries", Kind::Int(0, i64::MAX), "128"),
    param("zset-max-listpack-value", Kind::Int(0, i64::MAX), "64"),
    param("zset-max-ziplist-entries", Kind::Int(0, i64::MAX), "128"),
    param("zset-max-ziplist-value", Kind::Int(0, i64::MAX), "64"),
];

/// Spellings that share one value.
const ALIASES: [(&str, &str); 19] = [
    ("hash-max-listpack-entries", "hash-max-ziplist-entries"),
    ("hash-max-listpack-value", "hash-max-ziplist-value"),
    ("list-max-listpack-size", "list-max-ziplist-size"),
    ("zset-max-listpack-entries", "zset-max-ziplist-entries"),
    ("zset-max-listpack-value", "zset-max-ziplist-value"),
    ("busy-reply-threshold", "lua-time-limit"),
    ("cluster-replica-no-failover", "cluster-slave-no-failover"),
    ("cluster-replica-validity-factor", "cluster-slave-validity-factor"),
    ("min-replicas-max-lag", "min-slaves-max-lag"),
    ("min-replicas-to-write", "min-slaves-to-write"),
    ("repl-ping-replica-period", "repl-ping-slave-period"),
    ("replica-announce-ip", "slave-announce-ip"),
    ("replica-announce-port", "slave-announce-port"),
    ("replica-ignore-maxmemory", "slave-ignore-maxmemory"),
    ("replica-lazy-flush", "slave-lazy-flush"),
    ("replica-priority", "slave-priority"),
    ("replica-read-only", "slave-read-only"),
    ("replica-serve-stale-data", "slave-serve-stale-data"),
    ("replicaof", "slaveof"),
];

/// Why a parameter was not set.
pub(crate) enum Refusal {
    /// There is no such parameter.
    Unknown,
    /// There is, and this is what is wrong.
    Because(String),
}

/// The configuration of one shard; all shards hold equal ones.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    texts: Vec<String>,
    pub(crate) maxmemory_bytes: u64,
    pub(crate) policy: Policy,
    pub(crate) samples: u8,
    /// Where small forms of collections end.
    pub(crate) limits: Limits,
    pub(crate) requirepass: String,
    pub(crate) max_bulk_bytes: usize,
    /// Most bytes of one request that has not ended.
    pub(crate) max_query_bytes: usize,
    /// How long a script may run before it counts as busy; 0 for ever.
    pub(crate) busy_us: u64,
    /// Long strings in dumps are compressed.
    pub(crate) rdb_compression: bool,
    /// Files of dumps end with a checksum.
    pub(crate) rdb_checksum: bool,
    /// Most output that waits for a connection which gets messages.
    pub(crate) pubsub_limit: Limit,
}

impl Settings {
    pub(crate) fn new(config: &ShardConfig) -> Self {
        let mut settings = Self {
            texts: PARAMS.iter().map(|param| param.default.into()).collect(),
            maxmemory_bytes: 0,
            policy: config.policy,
            samples: config.samples,
            limits: Limits::default(),
            requirepass: String::new(),
            max_bulk_bytes: 512 << 20,
            max_query_bytes: 1 << 30,
            busy_us: 5_000_000,
            rdb_compression: true,
            rdb_checksum: true,
            pubsub_limit: Limit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_s: 60 },
        };
        for (name, text) in [
            ("databases", config.databases.to_string()),
            ("maxmemory", config.maxmemory_bytes.to_string()),
            ("maxmemory-policy", policy_name(config.policy).into()),
            ("maxmemory-samples", config.samples.to_string()),
            ("requirepass", config.requirepass.clone()),
            ("port", config.tcp_port.to_string()),
            ("maxclients", config.max_clients.to_string()),
            ("dir", config.dir.clone()),
            ("dbfilename", config.dbfilename.clone()),
            ("save", config.save.clone()),
            ("rdbcompression", yes_no(config.rdb_compression).into()),
            ("rdbchecksum", yes_no(config.rdb_checksum).into()),
        ] {
            settings.put(name, text);
        }
        for (name, text) in &config.settings {
            settings.put(name, text.clone());
        }
        settings
    }

    /// All parameters with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        PARAMS.iter().zip(&self.texts).map(|(param, text)| (param.name, text.as_str()))
    }

    /// One parameter's value.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.iter().find(|&(known, _)| known == name).map_or("", |(_, text)| text)
    }

    /// The name as the table has it, and the text to store, when `value` is fit for `name`.
    pub(crate) fn check(
        &self,
        name: &[u8],
        value: &[u8],
    ) -> Result<(&'static str, String), Refusal> {
        let param = PARAMS
            .iter()
            .find(|param| param.name.as_bytes().eq_ignore_ascii_case(name))
            .ok_or(Refusal::Unknown)?;
        let text = String::from_utf8_lossy(value).into_owned();
        let text = match param.kind {
            Kind::BufferLimits => buffer_limits(self.get(param.name), &text),
            kind => check(kind, text),
        };
        text.map(|text| (param.name, text)).map_err(Refusal::Because)
    }

    /// Stores a checked value.
    pub(crate) fn put(&mut self, name: &str, text: String) {
        for (one, two) in ALIASES {
            if name == one || name == two {
                let other = if name == one { two } else { one };
                self.put_text(other, text.clone());
            }
        }
        match name {
            "maxmemory" => self.maxmemory_bytes = text.parse().unwrap_or(0),
            "maxmemory-policy" => self.policy = policy(&text).unwrap_or(self.policy),
            "maxmemory-samples" => {
                self.samples = u8::try_from(text.parse().unwrap_or(5_u32)).unwrap_or(u8::MAX);
            }
            "requirepass" => self.requirepass.clone_from(&text),
            "client-query-buffer-limit" => self.max_query_bytes = text.parse().unwrap_or(1 << 30),
            "client-output-buffer-limit" => self.pubsub_limit = pubsub_limit(&text),
            "busy-reply-threshold" | "lua-time-limit" => {
                self.busy_us = text.parse().unwrap_or(5000_u64).saturating_mul(1000);
            }
            "rdbcompression" => self.rdb_compression = text == "yes",
            "rdbchecksum" => self.rdb_checksum = text == "yes",
            "proto-max-bulk-len" => self.max_bulk_bytes = text.parse().unwrap_or(512 << 20),
            _ => self.put_limit(name, &text),
        }
        self.put_text(name, text);
    }

    /// Keeps a limit of collections; a number in its parameter's range fits its field.
    fn put_limit(&mut self, name: &str, text: &str) {
        let limits = &mut self.limits;
        let size = text.parse::<usize>();
        let place = match name {
            "hash-max-listpack-entries" | "hash-max-ziplist-entries" => {
                &mut limits.hash_max_listpack_entries
            }
            "hash-max-listpack-value" | "hash-max-ziplist-value" => {
                &mut limits.hash_max_listpack_value
            }
            "set-max-intset-entries" => &mut limits.set_max_intset_entries,
            "zset-max-listpack-entries" | "zset-max-ziplist-entries" => {
                &mut limits.zset_max_listpack_entries
            }
            "zset-max-listpack-value" | "zset-max-ziplist-value" => {
                &mut limits.zset_max_listpack_value
            }
            "stream-node-max-bytes" => &mut limits.stream_node_max_bytes,
            "stream-node-max-entries" => &mut limits.stream_node_max_entries,
            "list-max-listpack-size" | "list-max-ziplist-size" => {
                limits.list_max_listpack_size =
                    text.parse().unwrap_or(limits.list_max_listpack_size);
                return;
            }
            "list-compress-depth" => {
                limits.list_compress_depth = text.parse().unwrap_or(limits.list_compress_depth);
                return;
            }
            _ => return,
        };
        if let Ok(size) = size {
            *place = size;
        }
    }

    fn put_text(&mut self, name: &str, text: String) {
        let place = PARAMS.iter().zip(&mut self.texts).find(|(param, _)| param.name == name);
        if let Some((_, place)) = place {
            *place = text;
        }
    }
}

const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Save points in their usual form, or why they are none.
pub(crate) fn save_points(text: &str) -> Result<String, String> {
    save(text)
}

/// Name, type and default of a parameter, in lower case.
pub(crate) fn parameter(name: &str) -> Option<(&'static str, Kind, &'static str)> {
    let param = PARAMS.iter().find(|param| param.name == name)?;
    Some((param.name, param.kind, param.default))
}

/// The text to keep of a value that was given at start, when also parameters that are fixed later may be set.
pub(crate) fn check_at_start(name: &str, kind: Kind, text: String) -> Result<String, String> {
    match kind {
        Kind::Fixed | Kind::Protected => Ok(text),
        Kind::BufferLimits => buffer_limits(parameter(name).map_or("", |(.., text)| text), &text),
        kind => check(kind, text),
    }
}

fn check(kind: Kind, text: String) -> Result<String, String> {
    match kind {
        Kind::Text | Kind::BufferLimits => Ok(text),
        Kind::Fixed => Err("can't set immutable config".into()),
        Kind::Protected => Err("can't set protected config".into()),
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            lower @ ("yes" | "no") => Ok(lower.into()),
            _ => Err("argument must be 'yes' or 'no'".into()),
        },
        Kind::Word(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(&text)) {
            Some(word) => Ok((*word).into()),
            None => Err(format!("argument(s) must be one of the following: {}", words.join(", "))),
        },
        Kind::Int(min, max) => {
            let value = wire::resp::parse_i64(text.as_bytes())
                .ok_or("argument couldn't be parsed into an integer")?;
            if !(min..=max).contains(&value) {
                return Err(format!("argument must be between {min} and {max} inclusive"));
            }
            Ok(text)
        }
        Kind::Memory(min, max) => {
            let value = memory(&text).ok_or("argument must be a memory value")?;
            if !(min..=max).contains(&value) {
                return Err(format!("argument must be between {min} and {max} inclusive"));
            }
            Ok(value.to_string())
        }
        Kind::Save => save(&text),
        Kind::Events => events(&text),
    }
}

/// A size with an optional unit, as in Redis: `k` is 1000, `kb` is 1024.
pub(crate) fn memory(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // No digits at all are zero, as for C's strtoull.
    let number = if number.is_empty() { 0 } else { number.parse::<u64>().ok()? };
    number.checked_mul(factor)
}

fn save(text: &str) -> Result<String, String> {
    let numbers: Vec<&str> = text.split_ascii_whitespace().collect();
    let valid = numbers.len().is_multiple_of(2)
        && numbers.iter().enumerate().all(|(index, number)| {
            let least = if index % 2 == 0 { 1 } else { 0 };
            number.parse::<i64>().is_ok_and(|value| value >= least)
        });
    if valid { Ok(numbers.join(" ")) } else { Err("Invalid save parameters".into()) }
}

/// Event classes in Redis' canonical order.
fn events(text: &str) -> Result<String, String> {
    const ALL: &str = "g$lshzxetd";
    if let Some(_bad) = text.chars().find(|letter| !"Ag$lshzxeKEtmdn".contains(*letter)) {
        return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into());
    }
    let has = |letter: char| text.contains(letter);
    let mut canonical = String::new();
    if has('A') || ALL.chars().all(has) {
        canonical.push('A');
    } else {
        canonical.extend(ALL.chars().filter(|&letter| has(letter)));
    }
    // Redis shows `n` only beside single classes; here it is kept in any case, since the text is what is in force.
    canonical.extend("nKEm".chars().filter(|&letter| has(letter)));
    Ok(canonical)
}

/// `class hard soft seconds` groups, replacing those classes in `current`.
fn buffer_limits(current: &str, text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut limits: Vec<String> = current.split(' ').map(Into::into).collect();
    for group in words.chunks_exact(4) {
        let class = match group[0].to_ascii_lowercase().as_str() {
            "normal" => "normal",
            "slave" | "replica" => "slave",
            "pubsub" => "pubsub",
            _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
        };
        let (Some(hard), Some(soft), Ok(seconds)) =
            (memory(group[1]), memory(group[2]), group[3].parse::<u32>())
        else {
            return Err("Error in hard, soft or soft_seconds setting in buffer limit \
                        configuration."
                .into());
        };
        if let Some(at) = limits.iter().position(|word| word == class) {
            let new = [hard.to_string(), soft.to_string(), seconds.to_string()];
            limits.splice(at + 1..(at + 4).min(limits.len()), new);
        }
    }
    Ok(limits.join(" "))
}

/// The limit of the class `pubsub`.
fn pubsub_limit(text: &str) -> Limit {
    let mut words = text.split(' ').skip_while(|word| *word != "pubsub").skip(1);
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Limit { hard_bytes: number(), soft_bytes: number(), soft_s: number() }
}

/// The policy of this name.
#[must_use]
pub fn policy(name: &str) -> Option<Policy> {
    Some(match name {
        "noeviction" => Policy::NoEviction,
        "allkeys-lru" => Policy::AllKeysLru,
        "volatile-lru" => Policy::VolatileLru,
        "allkeys-lfu" => Policy::AllKeysLfu,
        "volatile-lfu" => Policy::VolatileLfu,
        "allkeys-random" => Policy::AllKeysRandom,
        "volatile-random" => Policy::VolatileRandom,
        "volatile-ttl" => Policy::VolatileTtl,
        "s3fifo" => Policy::S3Fifo,
        _ => return None,
    })
}

/// The name of a policy.
#[must_use]
pub const fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::NoEviction => "noeviction",
        Policy::AllKeysLru => "allkeys-lru",
        Policy::VolatileLru => "volatile-lru",
        Policy::AllKeysLfu => "allkeys-lfu",
        Policy::VolatileLfu => "volatile-lfu",
        Policy::AllKeysRandom => "allkeys-random",
        Policy::VolatileRandom => "volatile-random",
        Policy::VolatileTtl => "volatile-ttl",
        Policy::S3Fifo => "s3fifo",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(memory("100mb"), Some(100 << 20));
        assert_eq!(memory("2G"), Some(2_000_000_000));
        assert_eq!(memory("1k"), Some(1000));
        assert_eq!(memory("7"), Some(7));
        assert_eq!((memory(""), memory("mb")), (Some(0), Some(0)));
        for bad in ["-1", "1x", "99999999999999999999", "18446744073709551615gb"] {
            assert_eq!(memory(bad), None, "{bad}");
        }
    }

    #[test]
    fn defaults_pass_their_own_check_and_names_are_sorted() {
        for pair in PARAMS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} {}", pair[0].name, pair[1].name);
        }
        for param in PARAMS {
            if !matches!(param.kind, Kind::Fixed | Kind::Protected) {
                let checked = check(param.kind, param.default.into());
                assert_eq!(checked.as_deref(), Ok(param.default), "{}", param.name);
            }
        }
    }

    #[test]
    fn limits_of_collections_are_set_by_either_spelling() {
        let mut settings = Settings::new(&ShardConfig::default());
        assert_eq!(settings.limits, Limits::default());
        for (name, text) in [
            ("hash-max-listpack-entries", "1"),
            ("hash-max-ziplist-value", "2"),
            ("set-max-intset-entries", "3"),
            ("zset-max-ziplist-entries", "4"),
            ("zset-max-listpack-value", "5"),
            ("list-max-ziplist-size", "-5"),
            ("list-compress-depth", "7"),
            ("stream-node-max-bytes", "8kb"),
            ("stream-node-max-entries", "9223372036854775807"),
        ] {
            let Ok((known, text)) = settings.check(name.as_bytes(), text.as_bytes()) else {
                panic!("{name} is refused")
            };
            settings.put(known, text);
        }
        let limits = Limits {
            hash_max_listpack_entries: 1,
            hash_max_listpack_value: 2,
            set_max_intset_entries: 3,
            zset_max_listpack_entries: 4,
            zset_max_listpack_value: 5,
            list_max_listpack_size: -5,
            list_compress_depth: 7,
            stream_node_max_bytes: 8192,
            stream_node_max_entries: 9_223_372_036_854_775_807,
        };
        assert_eq!(settings.limits, limits);
        assert_eq!(settings.get("hash-max-listpack-value"), "2");
        assert_eq!(settings.get("zset-max-listpack-entries"), "4");
    }

    #[test]
    fn the_limit_of_subscribers_is_kept_as_numbers() {
        let mut settings = Settings::new(&ShardConfig::default());
        let before = pubsub_limit(settings.get("client-output-buffer-limit"));
        assert_eq!(settings.pubsub_limit, before);
        let value = b"pubsub 1mb 2kb 3";
        let Ok((name, text)) = settings.check(b"client-output-buffer-limit", value) else {
            panic!("the limit is refused")
        };
        settings.put(name, text);
        let limit = Limit { hard_bytes: 1 << 20, soft_bytes: 2048, soft_s: 3 };
        assert_eq!(settings.pubsub_limit, limit);
    }

    #[test]
    fn every_policy_has_one_name() {
        for name in POLICIES {
            assert_eq!(policy(name).map(policy_name), Some(*name));
        }
    }

    #[test]
    fn event_classes_are_put_in_order() {
        assert_eq!(events("KEA").as_deref(), Ok("AKE"));
        assert_eq!(events("Egx").as_deref(), Ok("gxE"));
        assert!(events("q").is_err());
    }
}
