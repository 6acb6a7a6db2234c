//! File I/O as a load of its own: `bench files`, on the engine's ring.
//!
//! Reads, writes, syncs, appends, and files sent to sockets, on a file or a device: closed loop with a
//! depth, or open loop at a rate with latency from the intended time. Invariants: every block read,
//! received, or left behind by writes is checked (number, version, checksum), and a wrong one is an
//! error, never a fast one; an existing file or device is overwritten only when that is asked for.
//! Next: `block` for what a block holds, `pace` for when operations start, `run` for the loop,
//! `work` and `socket` for what they do, `report` for what becomes of it.

pub mod block;
pub mod pace;
pub mod report;
mod run;
mod socket;
#[cfg(test)]
mod tests;
mod work;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use engine::driver::{Driver, Fd, OpenOptions, Ring, Setup, Siblings};
use serde::Serialize;

use block::{HEADER_BYTES, Pattern};
use pace::{Order, Pace};
use report::Measured;
pub use run::Second;
use run::{Runner, Tally, Timing, Work};
use socket::Sockets;
use work::{Blocks, Kind, Layout};

/// Blocks of a file, at most: how often each was written is kept in memory.
pub const BLOCKS_MAX: u64 = 1 << 26;
/// Operations in flight, or records of a commit, at most.
pub const DEPTH_MAX: usize = 1024;
/// Bytes of a block, at most.
pub const BLOCK_MAX_BYTES: usize = 4 << 20;
/// Bytes of all buffers, at most.
const BUFFERS_MAX_BYTES: usize = 1 << 30;
/// Written at once when a file is made.
const CHUNK_BYTES: usize = 1 << 20;
/// Offsets and lengths of O_DIRECT.
const DIRECT_BYTES: usize = 4096;
/// What is made in a directory.
const FILE_NAME: &str = "bench-files";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Read a block.
    Read,
    /// Write a block, without a sync.
    Write,
    /// Read or write a block, by chance.
    Mix,
    /// Write a block and fsync the file.
    Fsync,
    /// Append up to `depth` blocks as one write and make them durable: a group commit.
    Append,
    /// Send a block to a socket by non-blocking sendfile(2).
    Sendfile,
    /// Send a block to a socket by splices on the ring.
    Splice,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Mix,
        Self::Fsync,
        Self::Append,
        Self::Sendfile,
        Self::Splice,
    ];

    const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Mix | Self::Fsync | Self::Append)
    }

    const fn to_socket(self) -> bool {
        matches!(self, Self::Sendfile | Self::Splice)
    }
}

/// How to measure.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// A directory, in which a file is made for the run; or a file or block device.
    pub path: PathBuf,
    /// The file or device exists, and what it holds may go.
    pub overwrite: bool,
    /// Bytes of the file that are used.
    pub size_bytes: u64,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Operations in flight; records of a commit; connections.
    pub depth: usize,
    /// In which order blocks are used.
    pub order: Order,
    /// O_DIRECT.
    pub direct: bool,
    /// Reads look into the page cache first (preadv2 with RWF_NOWAIT), as the engine's own do.
    pub cached_first: bool,
    /// Share of [`What::Mix`] that is read.
    pub read_share: f64,
    /// Open loop: so many records a second. Closed loop without.
    pub rate: Option<f64>,
    /// Evenly spaced instead of by chance.
    pub constant: bool,
    /// Before anything is recorded.
    pub warmup_ns: u64,
    /// Recorded.
    pub duration_ns: u64,
    /// Core of the ring.
    pub cpu: usize,
    /// Core of those who receive.
    pub client_cpu: usize,
    /// Seed of blocks, places and times.
    pub seed: u64,
}

impl Options {
    const fn blocks(&self) -> u64 {
        self.size_bytes / self.block_bytes as u64
    }

    fn check(&self) -> Result<()> {
        let block = self.block_bytes;
        ensure!(
            (HEADER_BYTES.next_power_of_two().max(64)..=BLOCK_MAX_BYTES).contains(&block)
                && block.is_multiple_of(8),
            "a block has from 64 bytes to {BLOCK_MAX_BYTES}, in multiples of 8, not {block}"
        );
        ensure!(
            !self.direct || block.is_multiple_of(DIRECT_BYTES),
            "with O_DIRECT a block is a multiple of {DIRECT_BYTES} bytes, not {block}"
        );
        ensure!(
            (1..=DEPTH_MAX).contains(&self.depth) && self.depth * block <= BUFFERS_MAX_BYTES,
            "the depth is from 1 to {DEPTH_MAX}, with {BUFFERS_MAX_BYTES} bytes of buffers at most"
        );
        ensure!(
            (self.depth as u64..=BLOCKS_MAX).contains(&self.blocks()),
            "{} bytes are {} blocks of {block} bytes: there must be {} at least, for each in flight, \
             and {BLOCKS_MAX} at most",
            self.size_bytes,
            self.blocks(),
            self.depth
        );
        ensure!((0.0..=1.0).contains(&self.read_share), "a share is from 0 to 1");
        if let Some(rate) = self.rate {
            ensure!((0.01..=1e8).contains(&rate), "a rate is from 0.01 to 100,000,000, not {rate}");
        }
        Ok(())
    }

    fn layout(&self) -> Layout {
        Layout {
            block_bytes: self.block_bytes,
            blocks: self.blocks(),
            depth: self.depth,
            order: self.order,
            direct: self.direct,
            cached_first: self.cached_first,
            seed: self.seed,
        }
    }

    fn pace(&self) -> Pace {
        let open = |rate| Pace::open(rate, !self.constant, self.seed ^ 2);
        self.rate.map_or_else(Pace::closed, open)
    }
}

/// Measures `what` on the calling thread, which stays on `options.cpu`.
///
/// # Errors
/// The options make no sense, the file cannot be used, or an operation fails. Blocks that are wrong are
/// in [`Measured::wrong`].
pub fn run(what: What, options: &Options, progress: &mut dyn FnMut(Second)) -> Result<Measured> {
    options.check()?;
    crate::process::pin_self(options.cpu)?;
    let target = Target::prepare(options)?;
    on_file(what, options, target.path(), progress)
}

/// As [`run`], on a file of first versions of all blocks.
fn on_file(
    what: What,
    options: &Options,
    path: &Path,
    progress: &mut dyn FnMut(Second),
) -> Result<Measured> {
    let ring = Ring::start(&Setup::default(), 0, Siblings::new(1)).context("the ring")?;
    let mut driver = Driver::Uring(Box::new(ring));
    let direct = options.direct;
    let open = OpenOptions { write: what.writes(), direct, ..OpenOptions::default() };
    let file = driver.open(path, &open).with_context(|| format!("open {}", path.display()))?;
    let measured = if what.to_socket() {
        to_sockets(&mut driver, file, what, options, progress)?
    } else {
        let (mut measured, versions) = in_blocks(&mut driver, file, what, options, progress)?;
        if what.writes() {
            verify(path, options, &versions, &mut measured)?;
        }
        measured
    };
    driver.close_now(file);
    Ok(measured)
}

fn in_blocks(
    driver: &mut Driver,
    file: Fd,
    what: What,
    options: &Options,
    progress: &mut dyn FnMut(Second),
) -> Result<(Measured, Vec<u32>)> {
    let kind = match what {
        What::Write => Kind::Mix(0.0),
        What::Mix => Kind::Mix(options.read_share),
        What::Fsync => Kind::Fsync,
        What::Append => Kind::Append,
        What::Read | What::Sendfile | What::Splice => Kind::Mix(1.0),
    };
    let mut blocks = Blocks::new(driver, file, kind, options.layout());
    let tally = measure(driver, &mut blocks, options, progress)?;
    let measured = Measured::new(what, options, &tally, 0);
    Ok((measured, blocks.close(driver)))
}

fn to_sockets(
    driver: &mut Driver,
    file: Fd,
    what: What,
    options: &Options,
    progress: &mut dyn FnMut(Second),
) -> Result<Measured> {
    let splice = what == What::Splice;
    let cpu = options.client_cpu;
    let mut sockets = Sockets::connect(driver, file, options.layout(), splice, cpu)?;
    let tally = measure(driver, &mut sockets, options, progress);
    // Also after a failure: the receivers wait for the end of their streams.
    let received = sockets.close(driver);
    let (tally, received) = (tally?, received?);
    let mut measured = Measured::new(what, options, &tally, received.cpu_ns);
    measured.checked_blocks = received.blocks;
    measured.add_wrong(received.wrong, received.first_wrong);
    Ok(measured)
}

fn measure(
    driver: &mut Driver,
    work: &mut dyn Work,
    options: &Options,
    progress: &mut dyn FnMut(Second),
) -> Result<Tally> {
    let timing = Timing { warmup_ns: options.warmup_ns, duration_ns: options.duration_ns };
    Runner::new(driver, work, options.pace())?.run(timing, progress)
}

/// Reads all blocks again, from the disk as far as the kernel lets go of its pages.
fn verify(path: &Path, options: &Options, versions: &[u32], measured: &mut Measured) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    file.sync_all().with_context(|| format!("sync {}", path.display()))?;
    // A device may not know how; then what is cached is checked.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    let pattern = Pattern::new(options.seed);
    let len = options.block_bytes;
    let per_chunk = (CHUNK_BYTES / len).max(1);
    let mut chunk = vec![0; per_chunk * len];
    for (index, versions) in versions.chunks(per_chunk).enumerate() {
        let first = (index * per_chunk) as u64;
        let bytes = &mut chunk[..versions.len() * len];
        file.read_exact_at(bytes, first * len as u64)
            .with_context(|| format!("read {} again, block {first}", path.display()))?;
        for ((number, &version), block) in (first..).zip(versions).zip(bytes.chunks_exact(len)) {
            measured.checked_blocks += 1;
            if let Err(wrong) = pattern.check(block, number, version) {
                measured.add_wrong(1, Some(format!("read again: {wrong}")));
            }
        }
    }
    Ok(())
}

/// The file of a run; removed when it was made for it.
struct Target {
    path: PathBuf,
    made: bool,
}

impl Target {
    fn prepare(options: &Options) -> Result<Self> {
        let given = &options.path;
        let found = fs::metadata(given);
        let target = match &found {
            Ok(meta) if meta.is_dir() => {
                let name = format!("{FILE_NAME}-{}", std::process::id());
                Self { path: given.join(name), made: true }
            }
            Ok(_) if !options.overwrite => bail!(
                "{} exists, and what it holds would be lost: say --overwrite when it may go, or name \
                 a directory",
                given.display()
            ),
            Ok(_) => Self { path: given.clone(), made: false },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Self { path: given.clone(), made: true }
            }
            Err(error) => bail!("{}: {error}", given.display()),
        };
        let device = found.is_ok_and(|meta| meta.file_type().is_block_device());
        target
            .fill(options, device)
            .with_context(|| format!("fill {} with blocks", target.path.display()))?;
        Ok(target)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the first version of every block, and makes them durable.
    fn fill(&self, options: &Options, device: bool) -> Result<()> {
        let mut file =
            File::options().write(true).create(!device).truncate(false).open(&self.path)?;
        if device {
            let have = file.seek(SeekFrom::End(0))?;
            ensure!(have >= options.size_bytes, "the device has only {have} bytes");
        } else {
            file.set_len(0)?;
        }
        let pattern = Pattern::new(options.seed);
        let len = options.block_bytes;
        let per_chunk = (CHUNK_BYTES / len).max(1) as u64;
        let mut chunk = Vec::new();
        let mut first = 0;
        while first < options.blocks() {
            let count = per_chunk.min(options.blocks() - first);
            chunk.resize(count as usize * len, 0);
            for (number, block) in (first..).zip(chunk.chunks_exact_mut(len)) {
                pattern.fill(block, number, 1);
            }
            file.write_all_at(&chunk, first * len as u64)?;
            first += count;
        }
        Ok(file.sync_all()?)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.made {
            // Only space is lost if it stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}
