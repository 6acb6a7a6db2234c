//! What a worker does with files that a fault may be at: blocks that it knows are written, synced and read, by system calls and
//! io_uring, and what comes back is compared. Tells beside errors: calls that did only a part, and bytes that are others.
#![expect(unsafe_code, reason = "fork has no safe call here")]

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::uring::Uring;

type Run = Box<dyn FnMut(u64) -> Result<(), i32>>;

/// Since the phase began.
pub(super) static SHORT: AtomicU64 = AtomicU64::new(0);
pub(super) static WRONG: AtomicU64 = AtomicU64::new(0);

const BLOCK: usize = 4096;
/// Of the lines of a process that is killed, so many are written, and so many of them synced.
const LINES: u64 = 8;
const SYNCED: u64 = 5;
const LINE: &[u8] = b"a line.\n";

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn block(number: u64) -> Vec<u8> {
    (0..BLOCK as u64).map(|at| (number.wrapping_mul(31) ^ at ^ at >> 8) as u8).collect()
}

fn at(number: u64) -> u64 {
    number * BLOCK as u64
}

fn data(dir: &Path, name: &str) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    options.open(dir.join(name)).expect("a new file")
}

/// Counts a call that did a part, or something else.
fn look(number: u64, asked: usize, bytes: &[u8]) {
    if bytes.len() < asked {
        SHORT.fetch_add(1, Ordering::Relaxed);
    }
    if block(number).get(..bytes.len()) != Some(bytes) {
        WRONG.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts what became of a block that was written.
fn wrote(file: &File, number: u64, len: usize) {
    if len < BLOCK {
        SHORT.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let mut bytes = vec![0; BLOCK];
    let len = file.read_at(&mut bytes, at(number)).expect("reads are left alone");
    bytes.truncate(len);
    if bytes != block(number) {
        WRONG.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn runner(name: &str, dir: &Path, count: u64) -> Run {
    match name {
        "file-write" | "file-fsync" | "file-fdatasync" | "file-uring-write"
        | "file-uring-fsync" => writer(name, dir),
        "file-read" | "file-uring-read" => reader(name, dir, count),
        "file-open" => {
            let path = dir.join("data");
            data(dir, "data");
            Box::new(move |_| File::open(&path).map(drop).map_err(|error| errno(&error)))
        }
        "file-names" => named(dir),
        "file-killed" => {
            let dir = dir.to_owned();
            Box::new(move |number| killed(&dir.join(format!("lines-{number}"))))
        }
        "file-stat" => {
            let path = dir.join("data");
            data(dir, "data").write_all(&block(0)).expect("room");
            Box::new(move |_| {
                let file = fs::metadata(&path).map_err(|error| errno(&error))?;
                let is_right = file.len() == BLOCK as u64 && file.mode() & 0o777 != 0o400;
                WRONG.fetch_add(u64::from(!is_right), Ordering::Relaxed);
                Ok(())
            })
        }
        _ => panic!("no operation {name}"),
    }
}

fn writer(name: &str, dir: &Path) -> Run {
    let file = data(dir, "data");
    let mut ring = name.starts_with("file-uring").then(|| Uring::new().expect("io_uring"));
    let name = name.to_owned();
    Box::new(move |number| {
        let (bytes, fd) = (block(number), file.as_raw_fd());
        let written = match &mut ring {
            Some(ring) => ring.written(fd, &bytes, at(number))?,
            None => file.write_at(&bytes, at(number)).map_err(|error| errno(&error))?,
        };
        wrote(&file, number, written);
        match (name.as_str(), &mut ring) {
            ("file-uring-fsync", Some(ring)) => ring.fsync(fd),
            ("file-fsync", _) => file.sync_all().map_err(|error| errno(&error)),
            ("file-fdatasync", _) => file.sync_data().map_err(|error| errno(&error)),
            _ => Ok(()),
        }
    })
}

fn reader(name: &str, dir: &Path, count: u64) -> Run {
    let file = data(dir, "data");
    for number in 0..count {
        file.write_all_at(&block(number), at(number)).expect("writes are left alone");
    }
    let mut ring = (name == "file-uring-read").then(|| Uring::new().expect("io_uring"));
    Box::new(move |number| {
        let mut bytes = vec![0; BLOCK];
        let read = match &mut ring {
            Some(ring) => ring.read(file.as_raw_fd(), &mut bytes, at(number))?,
            None => file.read_at(&mut bytes, at(number)).map_err(|error| errno(&error))?,
        };
        bytes.truncate(read);
        look(number, BLOCK, &bytes);
        Ok(())
    })
}

/// Writes in turn to a file that a name means, and to its neighbour.
fn named(dir: &Path) -> Run {
    let (log, other) = (data(dir, "data.log"), data(dir, "data.log.old"));
    Box::new(move |number| {
        let is_log = number % 2 == 0;
        let file = if is_log { &log } else { &other };
        let written = file.write_all_at(&block(number), at(number)).map_err(|error| errno(&error));
        if written.is_err() && !is_log {
            WRONG.fetch_add(1, Ordering::Relaxed);
        }
        written
    })
}

/// A child writes lines, syncs some, and is killed; what is left is all, or what was synced.
fn killed(path: &PathBuf) -> Result<(), i32> {
    // SAFETY: the worker has one thread, so its child may do what it does.
    match unsafe { libc::fork() } {
        -1 => return Err(errno(&std::io::Error::last_os_error())),
        0 => {
            let mut file = File::create(path).expect("a new file");
            for number in 0..LINES {
                file.write_all(LINE).expect("room");
                if number + 1 == SYNCED {
                    file.sync_all().expect("a sync");
                }
            }
            assert_eq!(file.stream_position().ok(), Some(LINES * LINE.len() as u64));
            let own = std::process::id().cast_signed();
            // SAFETY: ends the child, which holds nothing that its parent waits for.
            unsafe { libc::kill(own, libc::SIGKILL) };
        }
        pid => {
            // SAFETY: waits for a child of its own; no status is asked for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        }
    }
    let left = fs::read(path).map_err(|error| errno(&error))?;
    if left == LINE.repeat(usize::try_from(LINES).expect("small")) {
        return Ok(());
    }
    WRONG.fetch_add(1, Ordering::Relaxed);
    let is_synced = left == LINE.repeat(usize::try_from(SYNCED).expect("small"));
    if is_synced { Ok(()) } else { Err(libc::EIO) }
}
