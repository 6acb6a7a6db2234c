//! INFO: what clients, dashboards and frameworks read, in Redis' layout.

use std::fmt::Write as _;

use view::{Instant, Output};
use wire::resp::reply;

use super::{Conn, connection::REDIS_VERSION, replication};
use crate::{erase::Progress, settings::policy_name, shard::Shard, stats::Report, work::Response};

/// Sections in Redis' order, and whether plain INFO shows them.
const SECTIONS: [(&str, bool); 12] = [
    ("server", true),
    ("clients", true),
    ("memory", true),
    ("persistence", true),
    ("stats", true),
    ("replication", true),
    ("cpu", true),
    ("modules", true),
    ("commandstats", false),
    ("errorstats", true),
    ("cluster", true),
    ("keyspace", true),
];

/// Writes the sections asked for (in lower case; none: the usual ones) from the shards' reports.
pub(crate) fn reply(
    out: &mut Output,
    shard: &Shard,
    conn: &Conn,
    asked: &[Vec<u8>],
    responses: &[Response],
    now: Instant,
) {
    let mut report: Option<Report> = None;
    for response in responses {
        if let Response::Report(part) = response {
            match &mut report {
                Some(sum) => sum.merge(part),
                None => report = Some((**part).clone()),
            }
        }
    }
    let report = report.unwrap_or_default();
    let has = |word: &[u8]| asked.iter().any(|section| section == word);
    let all = has(b"all") || has(b"everything");
    let usual = asked.is_empty() || has(b"default");
    let mut text = String::new();
    for (section, is_usual) in SECTIONS {
        if !(all || (usual && is_usual) || has(section.as_bytes())) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let context = Context { shard, conn, report: &report, now };
        context.write(section, &mut text);
    }
    reply::verbatim(out.inline_mut(), conn.version, *b"txt", text.as_bytes());
}

struct Context<'a> {
    shard: &'a Shard,
    conn: &'a Conn,
    report: &'a Report,
    now: Instant,
}

fn flag(is_so: bool) -> String {
    u8::from(is_so).to_string()
}

fn status(failed: bool) -> String {
    if failed { "err" } else { "ok" }.into()
}

fn lines(text: &mut String, title: &str, fields: &[(&str, String)]) {
    let _ = write!(text, "# {title}\r\n");
    lines_more(text, fields);
}

fn lines_more(text: &mut String, fields: &[(&str, String)]) {
    for (name, value) in fields {
        let _ = write!(text, "{name}:{value}\r\n");
    }
}

/// Bytes as Redis shows them to people.
fn human(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", value / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", value / 1_048_576.0),
        _ => format!("{:.2}G", value / 1_073_741_824.0),
    }
}

impl Context<'_> {
    fn write(&self, section: &str, text: &mut String) {
        match section {
            "server" => self.server(text),
            "clients" => lines(
                text,
                "Clients",
                &[
                    ("connected_clients", self.report.clients.to_string()),
                    ("cluster_connections", "0".into()),
                    ("maxclients", self.shard.settings.get("maxclients").into()),
                    ("client_recent_max_input_buffer", "0".into()),
                    ("client_recent_max_output_buffer", "0".into()),
                    ("blocked_clients", self.report.blocked.to_string()),
                    ("tracking_clients", self.report.tracking[0].to_string()),
                    ("clients_in_timeout_table", "0".into()),
                ],
            ),
            "memory" => self.memory(text),
            "persistence" => self.persistence(text),
            "stats" => self.stats(text),
            "replication" => text.push_str(&replication::info(self.shard, self.report, self.now)),
            "cpu" => self.cpu(text),
            "modules" => lines(text, "Modules", &[]),
            "commandstats" => self.commands(text),
            "errorstats" => {
                lines(text, "Errorstats", &[]);
                for (code, count) in &self.report.stats.errors {
                    let _ = write!(text, "errorstat_{code}:count={count}\r\n");
                }
            }
            "cluster" => {
                let enabled = self.shard.count > 1 && self.conn.shard_port;
                let enabled = u8::from(enabled).to_string();
                lines(text, "Cluster", &[("cluster_enabled", enabled)]);
            }
            _ => self.keyspace(text),
        }
    }

    /// Dumps, and the append-only log.
    fn persistence(&self, text: &mut String) {
        let log = self.shard.log_facts(self.now);
        lines(
            text,
            "Persistence",
            &[
                ("loading", flag(log.loading)),
                ("async_loading", "0".into()),
                ("rdb_changes_since_last_save", self.shard.saves.changes().to_string()),
                ("rdb_bgsave_in_progress", flag(self.shard.saves.is_running())),
                ("rdb_last_save_time", self.shard.saves.last_s().to_string()),
                ("rdb_last_bgsave_status", status(self.shard.saves.has_failed())),
                ("aof_enabled", flag(log.enabled)),
                ("aof_rewrite_in_progress", flag(log.rewriting)),
                ("aof_rewrite_scheduled", "0".into()),
                ("aof_last_rewrite_time_sec", log.rewrite_s.to_string()),
                ("aof_current_rewrite_time_sec", log.rewriting_s.to_string()),
                ("aof_last_bgrewrite_status", status(log.rewrite_failed)),
                ("aof_rewrites", log.rewrites.to_string()),
                ("aof_last_write_status", status(log.failed)),
            ],
        );
        if log.enabled {
            lines_more(
                text,
                &[
                    ("aof_current_size", log.size_bytes.to_string()),
                    ("aof_base_size", log.base_bytes.to_string()),
                    ("aof_pending_rewrite", "0".into()),
                    ("aof_buffer_length", log.waiting_bytes.to_string()),
                    ("aof_pending_bio_fsync", "0".into()),
                    ("aof_delayed_fsync", "0".into()),
                ],
            );
        }
    }

    /// Of the process, as the host measured it in the last second; there are no child processes.
    fn cpu(&self, text: &mut String) {
        let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
        let cpu = self.report.process;
        lines(
            text,
            "CPU",
            &[
                ("used_cpu_sys", seconds(cpu.system_us)),
                ("used_cpu_user", seconds(cpu.user_us)),
                ("used_cpu_sys_children", seconds(0)),
                ("used_cpu_user_children", seconds(0)),
            ],
        );
    }

    fn server(&self, text: &mut String) {
        let shard = self.shard;
        let node = shard.count > 1 && self.conn.shard_port;
        let uptime_s = self.now.mono_ns.saturating_sub(shard.started.mono_ns) / 1_000_000_000;
        lines(
            text,
            "Server",
            &[
                ("redis_version", REDIS_VERSION.into()),
                ("redis_git_sha1", "00000000".into()),
                ("redis_git_dirty", "0".into()),
                ("redis_build_id", "0".into()),
                ("rapidcache_version", env!("CARGO_PKG_VERSION").into()),
                ("rapidcache_shards", shard.count.to_string()),
                ("redis_mode", if node { "cluster" } else { "standalone" }.into()),
                ("os", "Linux".into()),
                ("arch_bits", "64".into()),
                ("multiplexing_api", "io_uring".into()),
                ("process_id", shard.config.process_id.to_string()),
                ("run_id", shard.topology.id(0).into()),
                ("tcp_port", shard.config.tcp_port.to_string()),
                ("server_time_usec", self.now.unix_us.to_string()),
                ("uptime_in_seconds", uptime_s.to_string()),
                ("uptime_in_days", (uptime_s / 86_400).to_string()),
                ("hz", shard.settings.get("hz").into()),
                ("configured_hz", shard.settings.get("hz").into()),
                ("lru_clock", (self.now.unix_s() & 0x00ff_ffff).to_string()),
                ("executable", String::new()),
                ("config_file", shard.config.config_file.clone()),
                ("io_threads_active", "0".into()),
            ],
        );
    }

    fn memory(&self, text: &mut String) {
        let report = self.report;
        let limit = self.shard.settings.maxmemory_bytes;
        let peak = report.peak_bytes.max(report.used_bytes);
        let library = self.shard.scripts.library();
        let ((scripts, script_bytes), (libraries, _)) =
            (library.script_count(), library.functions());
        let share = if peak == 0 { 0.0 } else { report.used_bytes as f64 / peak as f64 * 100.0 };
        let resident = report.process.resident_bytes;
        let beyond = resident.saturating_sub(report.used_bytes);
        let over = match (resident, report.used_bytes) {
            (0, _) | (_, 0) => 1.0,
            (resident, used) => resident as f64 / used as f64,
        };
        lines(
            text,
            "Memory",
            &[
                ("used_memory", report.used_bytes.to_string()),
                ("used_memory_human", human(report.used_bytes)),
                ("used_memory_rss", resident.to_string()),
                ("used_memory_rss_human", human(resident)),
                ("used_memory_peak", peak.to_string()),
                ("used_memory_peak_human", human(peak)),
                ("used_memory_peak_perc", format!("{share:.2}%")),
                ("used_memory_dataset", report.used_bytes.to_string()),
                ("used_memory_lua", report.script_bytes.to_string()),
                ("used_memory_lua_human", human(report.script_bytes)),
                ("used_memory_scripts", script_bytes.to_string()),
                ("used_memory_scripts_human", human(script_bytes as u64)),
                ("number_of_cached_scripts", scripts.to_string()),
                ("number_of_libraries", libraries.len().to_string()),
                ("maxmemory", limit.to_string()),
                ("maxmemory_human", human(limit)),
                ("maxmemory_policy", policy_name(self.shard.settings.policy).into()),
                ("mem_fragmentation_ratio", format!("{over:.2}")),
                ("mem_fragmentation_bytes", beyond.to_string()),
                ("mem_allocator", "slab".into()),
                ("active_defrag_running", u8::from(report.compacting).to_string()),
                ("lazyfree_pending_objects", "0".into()),
                ("lazyfreed_objects", "0".into()),
            ],
        );
    }

    fn stats(&self, text: &mut String) {
        let (report, stats) = (self.report, &self.report.stats);
        let [channels, patterns, sharded, _] = report.pubsub;
        let [_, tracked, items, prefixes] = report.tracking;
        lines(
            text,
            "Stats",
            &[
                ("total_connections_received", stats.connections.to_string()),
                ("total_commands_processed", stats.total_calls().to_string()),
                ("instantaneous_ops_per_sec", report.ops_per_s.to_string()),
                ("rejected_connections", "0".into()),
                ("sync_full", "0".into()),
                ("sync_partial_ok", "0".into()),
                ("sync_partial_err", "0".into()),
                ("expired_keys", report.store.expired.to_string()),
                ("evicted_keys", report.store.evicted.to_string()),
                ("active_defrag_hits", report.store.compacted.to_string()),
                ("keyspace_hits", report.store.hits.to_string()),
                ("keyspace_misses", report.store.misses.to_string()),
                ("pubsub_channels", channels.to_string()),
                ("pubsub_patterns", patterns.to_string()),
                ("pubsubshard_channels", sharded.to_string()),
                ("latest_fork_usec", "0".into()),
                ("total_forks", "0".into()),
                ("tracking_total_keys", tracked.to_string()),
                ("tracking_total_items", items.to_string()),
                ("tracking_total_prefixes", prefixes.to_string()),
                ("total_error_replies", stats.total_errors().to_string()),
                ("cross_shard_commands", stats.hopped_commands.to_string()),
                ("cross_shard_requests", stats.hop_requests.to_string()),
                ("moved_replies", stats.moved.to_string()),
                ("lock_waits", stats.lock_waits.to_string()),
                ("hot_key_samples", report.hot_samples.to_string()),
                ("hottest_key_commands_per_sec", report.hottest_rate.to_string()),
                ("big_keys", report.big_keys.to_string()),
                ("biggest_key_bytes", report.biggest_bytes.to_string()),
                ("delete_jobs_active", report.erase_active.len().to_string()),
                ("delete_jobs_done", report.erase_done.to_string()),
                ("delete_jobs_scanned_keys", report.erase_scanned.to_string()),
                ("delete_jobs_deleted_keys", report.erase_deleted.to_string()),
            ],
        );
        for (at, job) in report.erase_active.iter().enumerate() {
            let Progress { id, scanned, deleted } = job;
            let _ = write!(text, "delete_job_{at}:id={id},scanned={scanned},deleted={deleted}\r\n");
        }
    }

    /// Calls are counted; time is not measured per command, the batch has one clock reading.
    fn commands(&self, text: &mut String) {
        lines(text, "Commandstats", &[]);
        let stats = &self.report.stats;
        let of = |counts: &[u64], id: u16| counts.get(usize::from(id)).copied().unwrap_or(0);
        for (id, row) in self.shard.commands.all() {
            let calls = of(&stats.calls, id);
            let (rejected, failed) = (of(&stats.rejected, id), of(&stats.failed, id));
            if calls + rejected + failed > 0 {
                let _ = write!(
                    text,
                    "cmdstat_{}:calls={calls},usec=0,usec_per_call=0.00,rejected_calls={rejected},\
                     failed_calls={failed}\r\n",
                    row.name,
                );
            }
        }
    }

    fn keyspace(&self, text: &mut String) {
        lines(text, "Keyspace", &[]);
        for (db, (keys, expires, ttl)) in self.report.databases.iter().enumerate() {
            if *keys > 0 {
                let _ = write!(text, "db{db}:keys={keys},expires={expires},avg_ttl={ttl}\r\n");
            }
        }
    }
}
