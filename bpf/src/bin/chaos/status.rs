//! `chaos status` and `chaos stop`: the faults of this host, whoever keeps them.

use bpf::abi::Counts;
use bpf::error::{Error, Result};
use bpf::programs;
use bpf::registry::{self, Entry};
use bpf::time::monotonic_ns;
use clap::ArgMatches;
use libbpf_rs::MapHandle;
use serde_json::{Value, json};

/// Counts as JSON.
pub(crate) fn of(counts: Counts) -> Value {
    json!({ "seen": counts.seen, "matched": counts.matched, "chosen": counts.chosen, "affected": counts.affected })
}

/// Counts in a line.
pub(crate) fn line(counts: Counts) -> String {
    format!(
        "seen {}, matched {}, chosen {}, affected {}",
        counts.seen, counts.matched, counts.chosen, counts.affected
    )
}

/// What a fault has met, asked of the kernel: its keeper may be gone.
fn counts(entry: &Entry) -> Result<Counts> {
    let mut all = Counts::default();
    for id in &entry.counters {
        let Ok(map) = MapHandle::from_map_id(*id) else { continue };
        let by_cpu: Vec<Counts> = programs::read_per_cpu(&map, 0)?;
        all = by_cpu.into_iter().fold(all, Counts::and);
    }
    Ok(all)
}

/// The faults in force on this host.
pub(crate) fn status(is_json: bool) -> Result<()> {
    let mut list = Vec::new();
    let entries = registry::all()?;
    for entry in &entries {
        let counts = counts(entry)?;
        let left_ms = entry.deadline_ns.saturating_sub(monotonic_ns()) / 1_000_000;
        if is_json {
            list.push(json!({
                "id": entry.id,
                "spec": entry.spec,
                "keeper": entry.keeper.is_alive().then_some(entry.keeper.pid),
                "detached": entry.detached,
                "since_unix_ms": entry.since_unix_ms,
                "left_ms": left_ms,
                "counts": of(counts),
            }));
        } else {
            bpf::say!("{:<28} {:>6.1} s left  {}", entry.id, left_ms as f64 / 1e3, line(counts));
        }
    }
    for one in bpf::disk::serving() {
        if entries.iter().any(|entry| entry.id == one.fault) {
            continue;
        }
        let (pid, dir) = (one.server.pid, one.dir.display().to_string());
        if is_json {
            list.push(json!({ "over": one.fault, "server": pid, "path": dir }));
        } else {
            bpf::say!(
                "{:<28} is over; process {pid} serves what is still open below {dir}",
                one.fault
            );
        }
    }
    if is_json {
        bpf::say!("{}", Value::from(list));
    }
    Ok(())
}

/// Ends faults.
pub(crate) fn stop(matches: &ArgMatches) -> Result<()> {
    let entries = registry::all()?;
    let ids: Vec<&String> = matches.get_many("id").into_iter().flatten().collect();
    if let Some(unknown) = ids.iter().find(|id| entries.iter().all(|entry| entry.id != ***id)) {
        return Err(Error::usage(format!(
            "stop {unknown}: there is no such fault; `chaos status` names them"
        )));
    }
    for entry in entries.iter().filter(|entry| matches.get_flag("all") || ids.contains(&&entry.id))
    {
        entry.stop()?;
        bpf::say!("{}", entry.id);
    }
    Ok(())
}
