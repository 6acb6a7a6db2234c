//! Resources that are used up: processors, memory, space and names of a file system, and the page cache, which is emptied.
//!
//! Processors and memory are taken by this process, and go with it. Invariants: a reserve of memory is left; the journal
//! knows a file before it is made; the root file system is filled to 95 percent at most unless the operator insists.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, fstatvfs};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::abi::Counts;
use crate::error::{During as _, Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::process::once;
use crate::faults::tally::{Tally, Ticker};
use crate::registry::Journal;
use crate::spec::Spec;
use crate::undo::{FILES, Undo};

const THREADS_MAX: u64 = 1024;
/// A burner works for its share of this.
const PERIOD: Duration = Duration::from_millis(10);
/// Memory that is taken in one step.
const CHUNK: usize = 16 << 20;
const PAGE: usize = 4096;
const INODES_MAX: u64 = 1_000_000;
/// Files that are looked at below a directory.
const EVICTED_MAX: usize = 100_000;
/// Of the file system that the host runs on.
const ROOT_PERCENT_MAX: f64 = 95.0;

const fn param(
    name: &'static str,
    ty: Type,
    default: Option<&'static str>,
    about: &'static str,
) -> Param {
    Param { name, ty, default, about }
}

const fn kind(
    name: &'static str,
    about: &'static str,
    place: Place,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place, shares: false, params, start }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        "stress.cpu",
        "threads of this command keep processors busy",
        Place::Host,
        &[
            param("threads", Type::Integer, Some("0"), "how many; 0 for one a processor"),
            param("load", Type::Number, Some("100"), "percent of each period of 10 ms"),
            param(
                "cpu",
                Type::Word(&[]),
                Some("any"),
                "all on the processor of this number, or any",
            ),
        ],
        cpu,
    ),
    kind(
        "stress.memory",
        "this command takes memory, and touches it",
        Place::Host,
        &[
            param(
                "bytes",
                Type::Integer,
                Some("0"),
                "how much; 0 for a share of what is available",
            ),
            param("percent", Type::Number, Some("80"), "of the available, without --bytes"),
            param("reserve", Type::Integer, Some("536870912"), "bytes that are left available"),
        ],
        memory,
    ),
    kind(
        "disk.fill",
        "a file takes the space of a file system",
        Place::Path,
        &[
            param("bytes", Type::Integer, Some("0"), "how much; 0 for a share"),
            param("percent", Type::Number, Some("95"), "used of the file system, without --bytes"),
        ],
        fill,
    ),
    kind(
        "disk.inodes",
        "many empty files",
        Place::Path,
        &[param("files", Type::Integer, Some("10000"), "how many, or fewer if there is no room")],
        inodes,
    ),
    kind(
        "cache.evict",
        "files below a directory are written back and leave the page cache, once",
        Place::Path,
        &[],
        evict,
    ),
    kind(
        "cache.drop",
        "the host's clean page cache is emptied, once",
        Place::Host,
        &[],
        |spec, _| {
            let tally = Tally::new();
            tally.add(Counts { seen: 1, matched: 1, chosen: 1, affected: 0 });
            if !spec.shadow {
                crate::sysctl::write("vm.drop_caches", "1")?;
                tally.affected(1);
            }
            Ok(once(tally))
        },
    ),
];

fn percent(spec: &Spec, name: &str) -> Result<f64> {
    let percent = spec.number(name)?;
    if percent > 0.0 && percent <= 100.0 {
        return Ok(percent);
    }
    Err(Error::usage(format!(
        "{}: {name} of {percent}: more than 0 and at most 100 is wanted",
        spec.fault
    )))
}

/// What a fault of this module holds until its end.
struct Held {
    tally: Arc<Tally>,
    burners: Vec<Ticker>,
    memory: Vec<Vec<u8>>,
    path: Option<PathBuf>,
}

impl Held {
    fn new() -> Self {
        Self { tally: Tally::new(), burners: Vec::new(), memory: Vec::new(), path: None }
    }

    fn release(&mut self) -> Result<()> {
        self.burners.clear();
        self.memory = Vec::new();
        self.path.take().map_or(Ok(()), |path| Undo::Remove { path }.run())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The journal tries again, and tells.
        let _ = self.release();
    }
}

impl Active for Held {
    fn pin(&mut self, _: &Path) -> Result<()> {
        if self.path.is_none() {
            return Err(Error::unsupported(
                "detach this fault: it lives in its process, and ends with it",
            ));
        }
        // The journal has all of it: the watchdog ends it when its time is over.
        Ok(())
    }
    fn counts(&self) -> Result<Counts> {
        Ok(self.tally.get())
    }
    fn disarm(&mut self) -> Result<()> {
        self.release()
    }
    fn counters(&self) -> Vec<u32> {
        self.tally.ids()
    }
}

fn cpu(spec: &Spec, _: &mut Journal) -> Result<Box<dyn Active>> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = match spec.integer("threads")? {
        0 => u64::try_from(processors).unwrap_or(1),
        threads => threads.min(THREADS_MAX),
    };
    let load = percent(spec, "load")?;
    let on = match spec.word("cpu")?.as_str() {
        "any" => None,
        text => Some(text.parse().ok().filter(|cpu| *cpu < CpuSet::MAX_CPU).ok_or_else(|| {
            Error::usage(format!("{}: cpu of {text:?}: any, or a number is wanted", spec.fault))
        })?),
    };
    let mut held = Held::new();
    held.tally.add(Counts { seen: threads, matched: threads, chosen: threads, affected: 0 });
    if spec.shadow {
        return Ok(Box::new(held));
    }
    for _ in 0..threads {
        let (work, mut is_new) = (PERIOD.mul_f64(load / 100.0), true);
        held.burners.push(Ticker::start(move || {
            if let Some(cpu) = on.filter(|_| is_new) {
                let mut set = CpuSet::new();
                set.set(cpu);
                // A processor that is not there is one that cannot be kept busy.
                let _ = sched_setaffinity(None, &set);
            }
            is_new = false;
            let begin = Instant::now();
            while begin.elapsed() < work {
                std::hint::spin_loop();
            }
            PERIOD - work
        }));
        held.tally.affected(1);
    }
    Ok(Box::new(held))
}

/// Bytes of memory that can be had without harm.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").during(|| "read /proc/meminfo".to_owned())?;
    let kb = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    kb.map(|kb| kb * 1024).ok_or_else(|| Error::failed("read /proc/meminfo: no MemAvailable"))
}

fn memory(spec: &Spec, _: &mut Journal) -> Result<Box<dyn Active>> {
    let available = available()?;
    let wanted = match spec.integer("bytes")? {
        0 => (available as f64 * percent(spec, "percent")? / 100.0) as u64,
        bytes => bytes,
    };
    let most = available.saturating_sub(spec.integer("reserve")?);
    let wanted = wanted.min(most);
    let chunks = usize::try_from(wanted).unwrap_or(usize::MAX).div_ceil(CHUNK);
    let count = u64::try_from(chunks).unwrap_or(u64::MAX);
    let mut held = Held::new();
    held.tally.add(Counts { seen: count, matched: count, chosen: count, affected: 0 });
    if spec.shadow {
        return Ok(Box::new(held));
    }
    let mut left = usize::try_from(wanted).unwrap_or(usize::MAX);
    while left > 0 {
        let mut chunk = vec![0_u8; left.min(CHUNK)];
        // A page is there when it is written to; not all alike, so that they are not merged.
        for (number, page) in chunk.chunks_mut(PAGE).enumerate() {
            page[0] = (number % 251) as u8 + 1;
        }
        left -= chunk.len();
        held.memory.push(chunk);
        held.tally.affected(1);
    }
    Ok(Box::new(held))
}

/// The directory of a fault, and a path of our own in it.
fn place(spec: &Spec, journal: &Journal) -> Result<(PathBuf, PathBuf)> {
    let dir = fs::canonicalize(spec.target.path.as_deref().unwrap_or_default())
        .during(|| format!("find {}", spec.target.path.as_deref().unwrap_or_default()))?;
    if !dir.is_dir() {
        return Err(Error::usage(format!("--path {}: a directory is wanted", dir.display())));
    }
    let path = dir.join(format!("{FILES}{}", journal.entry().id));
    Ok((dir, path))
}

/// How many bytes a file is to have.
fn wanted(spec: &Spec, dir: &Path) -> Result<u64> {
    let doing = || format!("look at the file system of {}", dir.display());
    let file = File::open(dir).during(doing)?;
    let space = fstatvfs(&file).during(doing)?;
    let used = space.f_blocks.saturating_sub(space.f_bfree);
    let bytes = match spec.integer("bytes")? {
        0 => {
            let goal = space.f_blocks as f64 * percent(spec, "percent")? / 100.0;
            (goal as u64).saturating_sub(used) * space.f_frsize
        }
        bytes => bytes,
    };
    let bytes = bytes.min(space.f_bfree * space.f_frsize);
    let is_root =
        fs::metadata("/").is_ok_and(|root| file.metadata().is_ok_and(|it| it.dev() == root.dev()));
    let after = (used * space.f_frsize + bytes) as f64
        / (space.f_blocks * space.f_frsize).max(1) as f64
        * 100.0;
    if is_root && after > ROOT_PERCENT_MAX && !spec.force {
        return Err(Error::usage(format!(
            "{}: the root file system would be {after:.0} % full; at most {ROOT_PERCENT_MAX} % are allowed without --force",
            spec.fault
        )));
    }
    Ok(bytes)
}

fn fill(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let (dir, path) = place(spec, journal)?;
    let bytes = wanted(spec, &dir)?;
    let mut held = Held::new();
    held.tally.add(Counts { seen: 1, matched: 1, chosen: 1, affected: 0 });
    if spec.shadow {
        return Ok(Box::new(held));
    }
    journal.will(Undo::Remove { path: path.clone() })?;
    let file = File::create_new(&path).during(|| format!("make {}", path.display()))?;
    held.path = Some(path.clone());
    let (mut at, mut step) = (0, bytes);
    // What does not fit in one piece is tried in smaller ones.
    while at < bytes && step >= PAGE as u64 {
        let len = step.min(bytes - at);
        match fallocate(&file, FallocateFlags::empty(), at, len) {
            Ok(()) => at += len,
            Err(rustix::io::Errno::NOSPC) => step /= 2,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Error::failed(format!(
                    "take {len} bytes for {}: {error}",
                    path.display()
                )));
            }
        }
    }
    held.tally.affected(1);
    Ok(Box::new(held))
}

fn inodes(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let (_, path) = place(spec, journal)?;
    let files = spec.integer("files")?.min(INODES_MAX);
    let mut held = Held::new();
    held.tally.add(Counts { seen: files, matched: files, chosen: files, affected: 0 });
    if spec.shadow {
        return Ok(Box::new(held));
    }
    journal.will(Undo::Remove { path: path.clone() })?;
    fs::create_dir(&path).during(|| format!("make {}", path.display()))?;
    held.path = Some(path.clone());
    let mut made = 0;
    for number in 0..files {
        match File::create_new(path.join(number.to_string())) {
            Ok(_) => made += 1,
            // That is what is wanted.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => {
                return Err(Error::failed(format!("make a file in {}: {error}", path.display())));
            }
        }
    }
    held.tally.affected(made);
    Ok(Box::new(held))
}

fn evict(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let (dir, _) = place(spec, journal)?;
    let tally = Tally::new();
    let mut left = vec![dir];
    let mut seen = 0;
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                left.push(entry.path());
            }
            if !kind.is_file() || seen >= EVICTED_MAX {
                continue;
            }
            seen += 1;
            tally.add(Counts { seen: 1, matched: 1, chosen: 1, affected: 0 });
            let Ok(file) = File::open(entry.path()) else { continue };
            if spec.shadow {
                continue;
            }
            // Only what is on disk can leave.
            let is_out =
                file.sync_data().is_ok() && fadvise(&file, 0, None, Advice::DontNeed).is_ok();
            tally.affected(u64::from(is_out));
        }
    }
    Ok(once(tally))
}
