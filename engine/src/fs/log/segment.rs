//! Segment files: making them, filling them with zeros once, and the writes and reads whose length
//! the kernel may cut short.
//!
//! Why zeros: overwriting blocks that are written already changes no metadata, so a durable write
//! is one trip to the disk; a file that grows, or has only been preallocated, costs twice as much.
//! Invariants: a file's name says nothing but its slot, what it holds is told by its header; a file
//! that could not be filled is removed.

use std::path::{Path, PathBuf};

use super::format::BLOCK_BYTES;
use crate::buf::DirectBuf;
use crate::driver::{Errno, Fd, Op, OpenOptions, Payload};
use crate::error::{Error, Kind};
use crate::fs::Dir;
use crate::shard::ShardCx;

const FILL_BYTES: usize = 1 << 20;
/// Transfers without progress before giving up.
const RETRIES_MAX: u32 = 64;
const SUFFIX: &str = ".log";

/// An open segment file; closed on drop.
#[derive(Debug)]
pub(super) struct SegmentFile {
    cx: ShardCx,
    pub(super) fd: Fd,
    pub(super) slot: u64,
    pub(super) path: PathBuf,
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        self.cx.submit_ignored(Op::Close { fd: self.fd });
    }
}

/// The slot of a segment file's name.
pub(super) fn slot_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?;
    (number.len() == 8).then(|| number.parse().ok())?
}

/// Opens slot `slot`, without the page cache where the file system can do that.
pub(super) fn open(
    cx: &ShardCx,
    dir: &Path,
    slot: u64,
    create: bool,
) -> Result<SegmentFile, Error> {
    let path = dir.join(format!("{slot:08}{SUFFIX}"));
    let options = OpenOptions { write: true, create, direct: true, ..OpenOptions::default() };
    let opened = cx.driver().open(&path, &options);
    let fd = match opened {
        Err(error) if error.errno() == Some(Errno(libc::EINVAL)) => {
            // A file system without direct I/O: durable writes through the cache.
            cx.driver().open(&path, &OpenOptions { direct: false, ..options })?
        }
        opened => opened?,
    };
    Ok(SegmentFile { cx: cx.clone(), fd, slot, path })
}

/// Makes slot `slot`, fills it and makes it durable, its name included.
pub(super) async fn create(
    cx: &ShardCx,
    dir: &Dir,
    slot: u64,
    segment_bytes: u64,
) -> Result<SegmentFile, Error> {
    let file = open(cx, dir.path(), slot, true)?;
    let filled = async {
        fill(cx, &file, segment_bytes).await?;
        sync(cx, &file).await?;
        dir.sync().await
    };
    if let Err(error) = filled.await {
        // Give the room back; if that fails too, the next start finds a file without a header.
        let _ = cx.driver().unlink(&file.path);
        return Err(error);
    }
    Ok(file)
}

/// Writes zeros from the end of the file on.
async fn fill(cx: &ShardCx, file: &SegmentFile, segment_bytes: u64) -> Result<(), Error> {
    let len = cx.driver().file_len(file.fd)?;
    let mut at = len - len % BLOCK_BYTES as u64;
    let step = usize::try_from(segment_bytes).unwrap_or(usize::MAX).min(FILL_BYTES);
    let mut zeros = DirectBuf::zeroed(step);
    while at < segment_bytes {
        let len = usize::try_from(segment_bytes - at).unwrap_or(usize::MAX).min(zeros.len());
        zeros = write_all(cx, file, zeros, len, at, false).await?;
        at += len as u64;
    }
    Ok(())
}

async fn sync(cx: &ShardCx, file: &SegmentFile) -> Result<(), Error> {
    let completion = cx.perform(Op::Fsync { fd: file.fd, data_only: false }).await;
    let synced = completion.result.map(|_| ());
    synced.map_err(|errno| Error::os("fsync", errno, file.path.display().to_string()))
}

/// Writes the first `len` bytes of `buf` at `offset`; both are whole blocks. What a short write
/// left is moved to the front of the buffer, so its contents are gone then.
pub(super) async fn write_all(
    cx: &ShardCx,
    file: &SegmentFile,
    buf: DirectBuf,
    len: usize,
    offset: u64,
    durable: bool,
) -> Result<DirectBuf, Error> {
    let (mut buf, mut len, mut offset) = (buf, len, offset);
    let mut stuck = 0;
    loop {
        // A write that stays short without an error has no room.
        let mut cause = Errno(libc::ENOSPC);
        let op = Op::Write { fd: file.fd, buf, len, offset, durable };
        let completion = cx.perform(op).await;
        let Payload::Direct(back) = completion.payload else {
            return Err(Error::new("write", Kind::Other, file.path.display().to_string()));
        };
        buf = back;
        // Blocks written in part are written again.
        let done = match completion.result {
            Ok(done) if done as usize >= len => return Ok(buf),
            Ok(done) => done as usize / BLOCK_BYTES * BLOCK_BYTES,
            Err(errno @ Errno(libc::EINTR | libc::EAGAIN)) => {
                cause = errno;
                0
            }
            Err(errno) => {
                return Err(Error::os("write", errno, file.path.display().to_string()));
            }
        };
        stuck = if done > 0 { 0 } else { stuck + 1 };
        if stuck > RETRIES_MAX {
            let context = format!("{}: no progress at {offset}", file.path.display());
            return Err(Error::os("write", cause, context));
        }
        buf.copy_within(done..len, 0);
        len -= done;
        offset += done as u64;
    }
}

/// Reads at `offset`, a whole number of blocks, into `buf`: at least `need` bytes, which the file
/// has and the buffer holds; how many.
pub(super) async fn read_at_least(
    cx: &ShardCx,
    file: &SegmentFile,
    buf: DirectBuf,
    need: usize,
    offset: u64,
) -> Result<(DirectBuf, usize), Error> {
    let mut buf = buf;
    for _ in 0..RETRIES_MAX {
        let len = buf.len();
        let op = Op::Read { fd: file.fd, buf, len, offset, uncached: false };
        let completion = cx.perform(op).await;
        let Payload::Direct(back) = completion.payload else { break };
        buf = back;
        match completion.result {
            Ok(read) if read as usize >= need => return Ok((buf, read as usize)),
            // Cut short: operations fill a buffer from its start, so all of it once more.
            Ok(_) | Err(Errno(libc::EINTR | libc::EAGAIN)) => {}
            Err(errno) => {
                return Err(Error::os("read", errno, file.path.display().to_string()));
            }
        }
    }
    let context = format!("{}: no {need} bytes at {offset}", file.path.display());
    Err(Error::os("read", Errno(libc::EIO), context))
}
