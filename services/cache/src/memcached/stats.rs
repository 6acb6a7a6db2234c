//! Counters of one shard for this protocol, and what `stats` tells of all shards.
//!
//! The names are memcached's. Of its own machinery there is what has a meaning here; items count as of one slab class.

use view::Instant;
use wire::memcached::{Words, parse_u64, reply};

use super::seconds;
use crate::shard::Shard;

/// Declares the counters, each with the name `stats` tells it by.
macro_rules! counters {
    ($($field:ident $name:literal),* $(,)?) => {
        /// Counters since the start or the last `stats reset`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Counters {
            $(pub(crate) $field: u64,)*
        }

        impl Counters {
            fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            fn each(&self, mut tell: impl FnMut(&'static str, u64)) {
                $(tell($name, self.$field);)*
            }
        }
    };
}

counters!(
    get_cmds "cmd_get",
    set_cmds "cmd_set",
    flush_cmds "cmd_flush",
    touch_cmds "cmd_touch",
    meta_cmds "cmd_meta",
    get_hits "get_hits",
    get_misses "get_misses",
    delete_misses "delete_misses",
    delete_hits "delete_hits",
    incr_misses "incr_misses",
    incr_hits "incr_hits",
    decr_misses "decr_misses",
    decr_hits "decr_hits",
    cas_misses "cas_misses",
    cas_hits "cas_hits",
    cas_badval "cas_badval",
    touch_hits "touch_hits",
    touch_misses "touch_misses",
    store_too_large "store_too_large",
    store_no_memory "store_no_memory",
    total_items "total_items",
);

/// What `stats` needs of a shard; sums over shards are formed with [`Report::merge`].
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub(crate) counters: Counters,
    pub(crate) items: u64,
    pub(crate) connections: u64,
    pub(crate) accepted: u64,
    used_bytes: u64,
    evicted: u64,
    expired: u64,
    user_us: u64,
    system_us: u64,
}

impl Report {
    /// Adds another shard's report.
    pub fn merge(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.items += other.items;
        self.connections += other.connections;
        self.accepted += other.accepted;
        self.used_bytes += other.used_bytes;
        self.evicted += other.evicted;
        self.expired += other.expired;
        self.user_us += other.user_us;
        self.system_us += other.system_us;
    }
}

impl Shard {
    /// This shard's part of `stats`.
    pub(crate) fn memcached_report(&self) -> Report {
        let (state, store) = (&self.memcached, self.store.stats());
        Report {
            counters: state.counters,
            items: self.store.len(self.store.items_db()),
            connections: state.connections,
            accepted: state.accepted,
            used_bytes: self.store.used_bytes(),
            evicted: store.evicted,
            expired: store.expired,
            user_us: self.process.user_us,
            system_us: self.process.system_us,
        }
    }
}

/// What `stats` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    General,
    Items,
    Slabs,
    Reset,
    /// Known without asking other shards.
    Settings,
    Text(&'static str),
}

/// What the words behind `stats` ask for.
pub(super) fn wanted(mut words: Words<'_>) -> Wanted {
    match words.next() {
        None => Wanted::General,
        Some(b"items") => Wanted::Items,
        Some(b"slabs") => Wanted::Slabs,
        Some(b"settings") => Wanted::Settings,
        Some(b"sizes") => Wanted::Text("STAT sizes_status disabled\r\nEND"),
        Some(b"conns") => Wanted::Text("END"),
        Some(b"reset") => Wanted::Reset,
        Some(b"cachedump") => Wanted::Text(cachedump(words)),
        Some(b"detail") => Wanted::Text(match words.next() {
            Some(b"on" | b"off") => "OK",
            Some(b"dump") => "END",
            _ => "CLIENT_ERROR usage: stats detail on|off|dump",
        }),
        Some(_) => Wanted::Text("ERROR"),
    }
}

/// `stats cachedump CLASS LIMIT`: nobody is shown keys, so no class has any.
fn cachedump(words: Words<'_>) -> &'static str {
    let mut numbers = words.map(parse_u64);
    match (numbers.next(), numbers.next()) {
        (Some(Some(0..64)), Some(Some(_))) => "END",
        (Some(Some(_)), Some(Some(_))) => "CLIENT_ERROR Illegal slab id",
        (Some(_), Some(_)) => "CLIENT_ERROR bad command line format",
        _ => "CLIENT_ERROR bad command line",
    }
}

/// Writes the answer; `report` is of all shards.
pub(super) fn tell(
    out: &mut Vec<u8>,
    wanted: Wanted,
    shard: &Shard,
    report: &Report,
    now: Instant,
) {
    match wanted {
        Wanted::General => general(out, shard, report, now),
        Wanted::Items => items(out, report),
        Wanted::Slabs => slabs(out, shard, report),
        Wanted::Settings => settings(out, shard),
        Wanted::Reset => return reply::line(out, "RESET"),
        Wanted::Text(text) => return reply::line(out, text),
    }
    reply::line(out, "END");
}

fn general(out: &mut Vec<u8>, shard: &Shard, report: &Report, now: Instant) {
    let up_s = now.mono_ns.saturating_sub(shard.started.mono_ns) / 1_000_000_000;
    let time = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    reply::stat(out, "pid", &shard.config.process_id);
    reply::stat(out, "uptime", &up_s);
    reply::stat(out, "time", &seconds(now));
    reply::stat(out, "version", &"1.6.18");
    reply::stat(out, "pointer_size", &usize::BITS);
    reply::stat(out, "rusage_user", &time(report.user_us));
    reply::stat(out, "rusage_system", &time(report.system_us));
    reply::stat(out, "max_connections", &shard.config.max_clients);
    reply::stat(out, "curr_connections", &report.connections);
    reply::stat(out, "total_connections", &report.accepted);
    reply::stat(out, "connection_structures", &report.connections);
    report.counters.each(|name, value| reply::stat(out, name, &value));
    reply::stat(out, "limit_maxbytes", &shard.settings.maxmemory_bytes);
    reply::stat(out, "accepting_conns", &1);
    reply::stat(out, "threads", &shard.count);
    reply::stat(out, "bytes", &report.used_bytes);
    reply::stat(out, "curr_items", &report.items);
    reply::stat(out, "evictions", &report.evicted);
    reply::stat(out, "reclaimed", &report.expired);
}

fn items(out: &mut Vec<u8>, report: &Report) {
    if report.items == 0 {
        return;
    }
    reply::stat(out, "items:1:number", &report.items);
    reply::stat(out, "items:1:evicted", &report.evicted);
    reply::stat(out, "items:1:reclaimed", &report.expired);
    reply::stat(out, "items:1:outofmemory", &report.counters.store_no_memory);
}

fn slabs(out: &mut Vec<u8>, shard: &Shard, report: &Report) {
    let counters = &report.counters;
    let used = u64::from(report.items > 0);
    if used > 0 {
        for (name, value) in [
            ("1:chunk_size", shard.memcached.item_max_bytes as u64),
            ("1:used_chunks", report.items),
            ("1:get_hits", counters.get_hits),
            ("1:cmd_set", counters.set_cmds),
            ("1:delete_hits", counters.delete_hits),
            ("1:incr_hits", counters.incr_hits),
            ("1:decr_hits", counters.decr_hits),
            ("1:cas_hits", counters.cas_hits),
            ("1:cas_badval", counters.cas_badval),
            ("1:touch_hits", counters.touch_hits),
        ] {
            reply::stat(out, name, &value);
        }
    }
    reply::stat(out, "active_slabs", &used);
    reply::stat(out, "total_malloced", &report.used_bytes);
}

fn settings(out: &mut Vec<u8>, shard: &Shard) {
    let evicts = shard.settings.policy != logic::store::Policy::NoEviction;
    reply::stat(out, "maxbytes", &shard.settings.maxmemory_bytes);
    reply::stat(out, "maxconns", &shard.config.max_clients);
    reply::stat(out, "tcpport", &shard.config.memcached_port);
    reply::stat(out, "udpport", &0);
    reply::stat(out, "verbosity", &0);
    reply::stat(out, "evictions", &if evicts { "on" } else { "off" });
    reply::stat(out, "shutdown_command", &"no");
    reply::stat(out, "num_threads", &shard.count);
    reply::stat(out, "detail_enabled", &"no");
    reply::stat(out, "cas_enabled", &"yes");
    reply::stat(out, "binding_protocol", &"ascii");
    reply::stat(out, "auth_enabled_sasl", &"no");
    reply::stat(out, "auth_enabled_ascii", &"no");
    reply::stat(out, "item_size_max", &shard.memcached.item_max_bytes);
    reply::stat(out, "flush_enabled", &"yes");
    reply::stat(out, "dump_enabled", &"no");
}
