//! Row 4c: durable appends of 1 KiB records, each group of them made durable before the next.
//!
//! All sides write to files filled with zeros before, and the same bytes: a log that can be read again
//! after a crash needs a length and a checksum with each record, so each side makes those. The helper thread is what a runtime without
//! asynchronous files does; DmaFile is glommio's O_DIRECT file. The last side is the floor: one thread that
//! blocks in the very write our log makes, with no runtime around it.

use std::fs::{self, File};
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use engine::buf::DirectBuf;
use engine::fs::log::{LogConfig, Position, Recovery};
use glommio::{LocalExecutorBuilder, Placement};
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pwritev2};

use super::{Options, shard};
use crate::clock;
use crate::figures::{Contender, Figures, Report, alternate};
use crate::usage::Usage;

const RECORD_BYTES: usize = 1024;
/// In front of each record: checksum and length, and the place they were made for.
const HEADER_BYTES: usize = 16;
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + RECORD_BYTES;
const FILE_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 4096;

pub(super) fn run(options: &Options, report: &mut Report) {
    let dir = options.dir.join("commits");
    // Of an earlier run.
    let _ = fs::remove_dir_all(&dir);
    if let Err(error) = fs::create_dir_all(&dir) {
        report.skipped.push(format!("commits: {}: {error}", dir.display()));
        return;
    }
    let (trial_ns, cpu) = (options.trial_ns, options.cpu);
    for group in [1, 16, 128] {
        let name = format!("4c durable append, {group} records of 1 KiB per commit");
        let contenders: [Contender<'_>; 4] = [
            ("ours", Box::new(|| ours(&dir.join("ours"), group, trial_ns, cpu))),
            ("helper thread + fdatasync", Box::new(|| helper(&dir, group, trial_ns, cpu))),
            ("glommio DmaFile", Box::new(|| dma_file(&dir, group, trial_ns, cpu))),
            ("floor: blocking write", Box::new(|| blocking(&dir, group, trial_ns, cpu))),
        ];
        let mut cell = alternate(&name, options.rounds, &contenders, &mut report.skipped);
        for figure in ["machine_us", "with_kernel_us"] {
            cell.claim(figure, 1, 0.85);
            cell.claim(figure, 2, 0.60);
        }
        cell.claim("p50_us", 1, 0.80);
        report.cells.push(cell);
    }
    // Only space is lost if it stays.
    let _ = fs::remove_dir_all(&dir);
}

/// Times commits of one trial, and what they cost.
pub(crate) struct Meter {
    before: Usage,
    end_ns: u64,
    commits: Histogram<u64>,
}

impl Meter {
    /// A trial of `trial_ns` begins.
    pub(crate) fn start(trial_ns: u64) -> Result<Self> {
        let commits = Histogram::new_with_max(60_000_000_000, 3)?;
        let before = Usage::of(std::process::id());
        Ok(Self { before, end_ns: clock::mono_ns() + trial_ns, commits })
    }

    /// Notes a commit begun at `start_ns`; whether there is time for another.
    pub(crate) fn commit(&mut self, start_ns: u64) -> bool {
        let now_ns = clock::mono_ns();
        self.commits.saturating_record(now_ns - start_ns);
        now_ns < self.end_ns
    }

    /// What the trial found, in microseconds for a commit.
    pub(crate) fn stop(self) -> Figures {
        let (machine, both, process, elapsed) = Usage::of(std::process::id()).since(&self.before);
        let count = self.commits.len().max(1) as f64;
        let quantile = |q| self.commits.value_at_quantile(q) as f64 / 1e3;
        Figures::from([
            ("machine_us", machine / count / 1e3),
            ("with_kernel_us", both / count / 1e3),
            ("process_us", process / count / 1e3),
            ("p50_us", quantile(0.5)),
            ("p99_us", quantile(0.99)),
            ("commits_per_s", count / elapsed * 1e9),
        ])
    }
}

/// Our log, on a shard on CPU `cpu`.
pub(crate) fn ours(dir: &Path, group: usize, trial_ns: u64, cpu: usize) -> Result<Figures> {
    let dir = dir.to_owned();
    shard::run(cpu, move |cx| async move {
        let config = LogConfig { segment_bytes: FILE_BYTES as u64, ..LogConfig::default() };
        let recovery = Recovery::open(&cx, &dir, config, Position(0)).await?;
        let log = recovery.finish().await?;
        let record = [7; RECORD_BYTES];
        // Until the segments that will be used are there, and filled.
        cx.sleep(1_000_000_000).await;
        let mut meter = Meter::start(trial_ns)?;
        loop {
            let start_ns = clock::mono_ns();
            for _ in 0..group {
                log.append_when_ready(&record).await.map_err(|error| anyhow!("{error}"))?;
            }
            let durable = log.commit().await?;
            if !meter.commit(start_ns) {
                break;
            }
            log.trim(durable);
        }
        let figures = meter.stop();
        log.close().await?;
        Ok(figures)
    })
}

/// A file of zeros, made once per run.
pub(crate) fn zero_filled(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(name);
    let made = path.exists();
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
    if !made {
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at as u64)?;
        }
        file.sync_all()?;
    }
    Ok(file)
}

/// Where the next group goes: at the end, or at the start again.
pub(crate) const fn place(at: usize, group: usize) -> usize {
    if at + group * FRAME_BYTES > FILE_BYTES { 0 } else { at }
}

/// Writes `record` as it stands in a log at `at`; `out` has room for it.
fn frame(out: &mut [u8], at: usize, record: &[u8; RECORD_BYTES]) {
    let place = (at as u64).to_le_bytes();
    let len = u32::try_from(RECORD_BYTES).unwrap_or(u32::MAX).to_le_bytes();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&place);
    sum.update(&len);
    sum.update(record);
    out[..4].copy_from_slice(&sum.finalize().to_le_bytes());
    out[4..8].copy_from_slice(&len);
    out[8..HEADER_BYTES].copy_from_slice(&place);
    out[HEADER_BYTES..FRAME_BYTES].copy_from_slice(record);
}

/// Writes a group of records to the start of `out`, the first for `at`.
pub(crate) fn frames(out: &mut [u8], at: usize, group: usize) {
    for (index, out) in out.chunks_exact_mut(FRAME_BYTES).take(group).enumerate() {
        frame(out, at + index * FRAME_BYTES, &[7; RECORD_BYTES]);
    }
}

fn helper(dir: &Path, group: usize, trial_ns: u64, cpu: usize) -> Result<Figures> {
    let file = zero_filled(dir, "helper")?;
    let (work, todo) = mpsc::channel::<(Vec<u8>, usize)>();
    let (done, finished) = mpsc::channel::<std::io::Result<Vec<u8>>>();
    let trial = move || -> Result<Figures> {
        bind(cpu)?;
        let mut buf = vec![0; group * FRAME_BYTES];
        let mut at = 0;
        let mut meter = Meter::start(trial_ns)?;
        loop {
            let start_ns = clock::mono_ns();
            at = place(at, group);
            frames(&mut buf, at, group);
            work.send((buf, at)).context("the helper is gone")?;
            at += group * FRAME_BYTES;
            buf = finished.recv().context("the helper is gone")??;
            if !meter.commit(start_ns) {
                return Ok(meter.stop());
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(move || {
            for (buf, at) in todo {
                let written = file.write_all_at(&buf, at as u64).and_then(|()| file.sync_data());
                if done.send(written.map(|()| buf)).is_err() {
                    return;
                }
            }
        });
        let trial = scope.spawn(trial);
        trial.join().map_err(|_| anyhow!("the trial panicked"))?
    })
}

/// The write our log makes for a group, without a log.
fn blocking(dir: &Path, group: usize, trial_ns: u64, cpu: usize) -> Result<Figures> {
    drop(zero_filled(dir, "blocking")?);
    let file = File::options()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(dir.join("blocking"))?;
    let trial = move || -> Result<Figures> {
        bind(cpu)?;
        let mut buf = DirectBuf::zeroed((group * FRAME_BYTES).next_multiple_of(BLOCK_BYTES));
        let mut at = 0;
        let mut meter = Meter::start(trial_ns)?;
        loop {
            let start_ns = clock::mono_ns();
            at = if at + buf.len() > FILE_BYTES { 0 } else { at };
            frames(&mut buf, at, group);
            let parts = [IoSlice::new(&buf)];
            let written = pwritev2(&file, &parts, at as u64, ReadWriteFlags::DSYNC)?;
            anyhow::ensure!(written == buf.len(), "a short write: {written} bytes");
            at += buf.len();
            if !meter.commit(start_ns) {
                return Ok(meter.stop());
            }
        }
    };
    thread::scope(|scope| scope.spawn(trial).join().map_err(|_| anyhow!("the trial panicked"))?)
}

fn bind(cpu: usize) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).context("sched_setaffinity")
}

/// glommio's O_DIRECT file, on CPU `cpu`.
pub(crate) fn dma_file(dir: &Path, group: usize, trial_ns: u64, cpu: usize) -> Result<Figures> {
    drop(zero_filled(dir, "glommio")?);
    let path = dir.join("glommio");
    let builder = LocalExecutorBuilder::new(Placement::Fixed(cpu));
    let handle = builder
        .spawn(move || async move {
            let mut options = glommio::io::OpenOptions::new();
            options.write(true).read(true);
            let file = options.dma_open(&path).await.map_err(|error| anyhow!("{error}"))?;
            let mut at = 0;
            // What the block that `at` lies in holds up to there.
            let mut tail = vec![0; BLOCK_BYTES];
            let mut meter = Meter::start(trial_ns)?;
            loop {
                let start_ns = clock::mono_ns();
                at = place(at, group);
                let used = at % BLOCK_BYTES;
                let block = at - used;
                let end = at + group * FRAME_BYTES;
                let mut buf = file.alloc_dma_buffer((end - block).next_multiple_of(BLOCK_BYTES));
                let bytes = buf.as_bytes_mut();
                bytes[..used].copy_from_slice(&tail[..used]);
                frames(&mut bytes[used..], at, group);
                let (last, rest) = (end - end % BLOCK_BYTES - block, end % BLOCK_BYTES);
                tail[..rest].copy_from_slice(&bytes[last..last + rest]);
                let written = file.write_at(buf, block as u64).await;
                written.map_err(|error| anyhow!("{error}"))?;
                file.fdatasync().await.map_err(|error| anyhow!("{error}"))?;
                at = end;
                if !meter.commit(start_ns) {
                    break;
                }
            }
            let figures = meter.stop();
            file.close().await.map_err(|error| anyhow!("{error}"))?;
            Ok(figures)
        })
        .map_err(|error| anyhow!("start glommio: {error}"))?;
    handle.join().map_err(|error| anyhow!("glommio: {error}"))?
}
