//! Appends of 1 KiB records, each group durable before the next, by the files each runtime has.
//!
//! All write the same framed records to a file filled with zeros before. Ours is the engine's log;
//! glommio its O_DIRECT file; monoio a buffered write and fdatasync, both on its ring; tokio both calls
//! in one hop to its pool of blocking threads, and once more by `tokio::fs`, which makes a hop of each.
//! Invariants: a commit counts when fdatasync (or a durable write) has completed. CPU is counted with
//! kernel threads, because that is where much of the work is done. Next: `storage::commits`, whose loops
//! of our log and of glommio these are.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::child::Trial;
use super::table::{AGAIN, Column, Report};
use super::{Contender, Options, Progress, What, measure, monoio_runtime};
use crate::clock;
use crate::figures::Figures;
use crate::storage::commits::{self, FRAME_BYTES, Meter, frames, place, zero_filled};

/// Records in a commit.
const GROUPS: [usize; 2] = [1, 16];

const COLUMNS: &[Column] = &[
    Column { figure: "with_kernel_us", title: "CPU+kernel us" },
    Column { figure: "machine_us", title: "machine us" },
    Column { figure: "commits_per_s", title: "commits/s" },
    Column { figure: "p50_us", title: "p50 us" },
    Column { figure: "p99_us", title: "p99 us" },
];

/// Sides, and the package each is made of.
const SIDES: &[(&str, &str)] = &[
    ("engine", "engine"),
    (AGAIN, "engine"),
    ("monoio", "monoio"),
    ("monoio-defer", "monoio"),
    ("glommio", "glommio"),
    ("tokio", "tokio"),
    ("tokio-fs", "tokio"),
];

pub(super) fn run(
    options: &Options,
    report: &mut Report,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let dir = options.dir.join("append");
    // Of an earlier run.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    for group in GROUPS {
        let name = format!("append: {group} x 1 KiB per commit");
        let contender = |&(side, package): &(&'static str, &str)| {
            let trial = Trial {
                what: What::Append,
                side: side.to_owned(),
                group,
                dir: dir.clone(),
                trial_ns: options.trial_ns,
                server_cpu: options.server_cpu,
                client_cpu: options.client_cpu,
                port: options.port,
            };
            let version = crate::peers::built_with(package);
            Contender { name: side, version, trial: Box::new(move || trial.spawn()) }
        };
        let contenders = SIDES.iter().map(contender).collect();
        report.cells.push(measure(What::Append, name, COLUMNS, contenders, options, progress));
    }
    // Only space is lost if it stays.
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}

/// One trial in this process.
pub(super) fn trial(trial: &Trial) -> Result<Figures> {
    let Trial { group, dir, trial_ns, server_cpu, .. } = trial;
    let (group, trial_ns, cpu) = ((*group).clamp(1, 1024), *trial_ns, *server_cpu);
    match trial.side.as_str() {
        "engine" | AGAIN => commits::ours(&dir.join("engine"), group, trial_ns, cpu),
        "monoio" => on_monoio(dir, group, trial_ns, false),
        "monoio-defer" => on_monoio(dir, group, trial_ns, true),
        "glommio" => commits::dma_file(dir, group, trial_ns, cpu),
        "tokio" => on_tokio(dir, group, trial_ns),
        "tokio-fs" => on_tokio_fs(dir, group, trial_ns),
        other => bail!("no side {other} of append"),
    }
}

fn on_monoio(dir: &Path, group: usize, trial_ns: u64, defer: bool) -> Result<Figures> {
    let file = zero_filled(dir, "monoio")?;
    monoio_runtime(defer)?.block_on(async move {
        let file = monoio::fs::File::from_std(file).context("a file of monoio")?;
        let mut buf = vec![0; group * FRAME_BYTES];
        let mut at = 0;
        let mut meter = Meter::start(trial_ns)?;
        loop {
            let start_ns = clock::mono_ns();
            at = place(at, group);
            frames(&mut buf, at, group);
            let (written, back) = file.write_all_at(buf, at as u64).await;
            written.context("write")?;
            file.sync_data().await.context("fdatasync")?;
            buf = back;
            at += group * FRAME_BYTES;
            if !meter.commit(start_ns) {
                return Ok(meter.stop());
            }
        }
    })
}

fn tokio_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().build().context("start tokio")
}

fn on_tokio(dir: &Path, group: usize, trial_ns: u64) -> Result<Figures> {
    let file = Arc::new(zero_filled(dir, "tokio")?);
    tokio_runtime()?.block_on(async move {
        let mut buf = vec![0; group * FRAME_BYTES];
        let mut at = 0;
        let mut meter = Meter::start(trial_ns)?;
        loop {
            let start_ns = clock::mono_ns();
            at = place(at, group);
            frames(&mut buf, at, group);
            let file = Arc::clone(&file);
            let hop = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<u8>> {
                file.write_all_at(&buf, at as u64)?;
                file.sync_data()?;
                Ok(buf)
            });
            buf = hop.await.context("the blocking thread is gone")?.context("write and sync")?;
            at += group * FRAME_BYTES;
            if !meter.commit(start_ns) {
                return Ok(meter.stop());
            }
        }
    })
}

fn on_tokio_fs(dir: &Path, group: usize, trial_ns: u64) -> Result<Figures> {
    let file = zero_filled(dir, "tokio-fs")?;
    tokio_runtime()?.block_on(async move {
        let mut file = tokio::fs::File::from_std(file);
        let mut buf = vec![0; group * FRAME_BYTES];
        let mut at = 0;
        let mut meter = Meter::start(trial_ns)?;
        loop {
            let start_ns = clock::mono_ns();
            if place(at, group) != at {
                at = 0;
                file.seek(std::io::SeekFrom::Start(0)).await.context("seek")?;
            }
            frames(&mut buf, at, group);
            file.write_all(&buf).await.context("write")?;
            file.sync_data().await.context("fdatasync")?;
            at += group * FRAME_BYTES;
            if !meter.commit(start_ns) {
                return Ok(meter.stop());
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_commits() {
        let dir = std::env::temp_dir().join(format!("bench-append-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a writable directory");
        for side in ["monoio", "tokio", "tokio-fs", "nobody"] {
            let one = Trial {
                what: What::Append,
                side: side.to_owned(),
                group: 3,
                dir: dir.clone(),
                trial_ns: 50 * clock::MILLISECOND_NS,
                server_cpu: 0,
                client_cpu: 1,
                port: 0,
            };
            match trial(&one) {
                Ok(figures) => assert!(figures["commits_per_s"] > 1.0, "{side}"),
                Err(error) => assert_eq!(
                    (side, error.to_string().as_str()),
                    ("nobody", "no side nobody of append")
                ),
            }
        }
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
}
