//! Plain files: reads that are served from the page cache at once when they can be, and go to the
//! ring when they would wait; writes, sync, and reads of many places at a time.
//!
//! Invariants: buffers are handed over and come back; at most [`READS_MAX`] reads of one
//! [`File::read_many`] are in flight.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;

use crate::buf::DirectBuf;
use crate::driver::{Completion, Errno, Fd, Op, OpenOptions, Payload};
use crate::error::Error;
use crate::fs::Disk;
use crate::shard::{Pending, ShardCx};

/// Reads in flight of one [`File::read_many`]: deeper gains little on the disks measured.
pub const READS_MAX: usize = 32;

/// How a read uses the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// As usual.
    #[default]
    Keep,
    /// What this read brings in is dropped again (RWF_DONTCACHE where the kernel and the file
    /// system know it): for one pass over data that will not be needed soon.
    Drop,
}

/// An open file; closed on drop.
#[derive(Debug)]
pub struct File {
    cx: ShardCx,
    fd: Fd,
    path: PathBuf,
    direct: bool,
}

impl File {
    /// Opens a file. A name that is new is durable only after a sync of its [`super::Dir`].
    ///
    /// # Errors
    /// As open(2).
    pub fn open(cx: &ShardCx, path: &Path, options: &OpenOptions) -> Result<Self, Error> {
        let fd = cx.driver().open(path, options)?;
        Ok(Self { cx: cx.clone(), fd, path: path.to_owned(), direct: options.direct })
    }

    /// The descriptor, for [`crate::net::stream::Stream::send_file`].
    #[must_use]
    pub const fn fd(&self) -> Fd {
        self.fd
    }

    /// Its path when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn len(&self) -> Result<u64, Error> {
        self.cx.driver().file_len(self.fd)
    }

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends it.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub fn truncate(&self, len: u64) -> Result<(), Error> {
        self.cx.driver().truncate(self.fd, len)
    }

    /// From now on the kernel reads only what is asked for, and nothing behind it: for a file whose reader asks early
    /// enough, or at random places.
    pub fn no_read_ahead(&self) {
        self.cx.driver().no_read_ahead(self.fd);
    }

    /// Drops a range from the page cache that will not be needed soon, as far as nobody uses it: what a socket has not
    /// sent yet stays.
    pub fn drop_cached(&self, offset: u64, len: u64) {
        self.cx.driver().drop_cached(self.fd, offset, len);
    }

    /// Brings a range into the page cache, for a reader that can wait: after syncs, and in small steps while there are
    /// some. Whether some of it had to be read from the disk. The range may end behind the file.
    ///
    /// # Errors
    /// As readahead(2).
    pub async fn read_ahead(&self, offset: u64, len: u64) -> Result<bool, Error> {
        let end = offset.saturating_add(len).min(self.len()?);
        let warmed = super::send::warm_range(&self.cx, self.fd, offset, end).await;
        warmed.map_err(|errno| self.failed("read ahead", errno))
    }

    fn failed(&self, op: &'static str, errno: Errno) -> Error {
        Error::os(op, errno, self.path.display().to_string())
    }

    /// Reads up to `len` bytes at `offset` into the start of `buf`; how many, fewer only at the
    /// file's end. Opened for direct I/O, `offset` and `len` are multiples of 4 KiB.
    ///
    /// # Errors
    /// As pread(2).
    pub async fn read_at(
        &self,
        buf: DirectBuf,
        len: usize,
        offset: u64,
        caching: Caching,
    ) -> Result<(DirectBuf, usize), Error> {
        let mut buf = buf;
        let len = len.min(buf.len());
        if caching == Caching::Keep && !self.direct {
            let read = self.cx.driver().read_now(self.fd, &mut buf[..len], offset);
            // The rest, or all of it, is not cached: the ring reads it anew.
            if let Ok(read) = read
                && (read == len || offset + read as u64 >= self.len()?)
            {
                return Ok((buf, read));
            }
        }
        let mut uncached = caching == Caching::Drop && !self.direct;
        loop {
            let op = Op::Read { fd: self.fd, buf, len, offset, uncached };
            let completion = self.cx.perform(op).await;
            let Payload::Direct(back) = completion.payload else {
                return Err(self.failed("read", Errno(libc::EIO)));
            };
            buf = back;
            match completion.result {
                Ok(read) => {
                    let read = read as usize;
                    if read == len || read == 0 || offset + read as u64 >= self.len()? {
                        return Ok((buf, read));
                    }
                }
                Err(Errno(libc::EOPNOTSUPP)) if uncached => uncached = false,
                Err(Errno(libc::EINTR | libc::EAGAIN)) => {}
                Err(errno) => return Err(self.failed("read", errno)),
            }
        }
    }

    /// Writes the first `len` bytes of `buf` at `offset`, all of them. What a short write left is
    /// moved to the front of the buffer, so do not count on its contents.
    ///
    /// # Errors
    /// As pwrite(2); part may have been written.
    pub async fn write_at(
        &self,
        buf: DirectBuf,
        len: usize,
        offset: u64,
    ) -> Result<DirectBuf, Error> {
        let (mut buf, mut len, mut offset) = (buf, len, offset);
        len = len.min(buf.len());
        while len > 0 {
            let op = Op::Write { fd: self.fd, buf, len, offset, durable: false };
            let completion = self.cx.perform(op).await;
            let Payload::Direct(back) = completion.payload else {
                return Err(self.failed("write", Errno(libc::EIO)));
            };
            buf = back;
            match completion.result {
                Ok(0) => return Err(self.failed("write", Errno(libc::ENOSPC))),
                Ok(written) => {
                    let written = (written as usize).min(len);
                    buf.copy_within(written..len, 0);
                    len -= written;
                    offset += written as u64;
                }
                Err(Errno(libc::EINTR | libc::EAGAIN)) => {}
                Err(errno) => return Err(self.failed("write", errno)),
            }
        }
        Ok(buf)
    }

    /// Makes its data durable, and what is needed to read them again.
    ///
    /// # Errors
    /// EIO: what was written since the last sync may be lost, and a later sync will not tell.
    pub async fn sync(&self) -> Result<(), Error> {
        let _syncing = Disk::sync(&self.cx);
        let completion = self.cx.perform(Op::Fsync { fd: self.fd, data_only: true }).await;
        completion.result.map(|_| ()).map_err(|errno| self.failed("fdatasync", errno))
    }

    /// Reads many places, each `(offset, length)`, at most [`READS_MAX`] at a time; `found` gets
    /// the index and the bytes of each as it arrives, in no particular order, shorter than asked
    /// only at the file's end. Opened for direct I/O, offsets and lengths are multiples of 4 KiB.
    ///
    /// # Errors
    /// The first that fails; the others are given up.
    pub async fn read_many(
        &self,
        places: &[(u64, usize)],
        mut found: impl FnMut(usize, &[u8]),
    ) -> Result<(), Error> {
        let longest = places.iter().map(|&(_, len)| len).max().unwrap_or(0);
        let file_len = self.len()?;
        let mut free: Vec<DirectBuf> = Vec::new();
        let mut reads: VecDeque<(usize, Pending)> = VecDeque::with_capacity(READS_MAX);
        let mut next = places.iter().enumerate();
        loop {
            while reads.len() < READS_MAX {
                let Some((index, &(offset, len))) = next.next() else { break };
                let buf = free.pop().unwrap_or_else(|| DirectBuf::zeroed(longest));
                reads.push_back((index, self.read(buf, offset, len)));
            }
            if reads.is_empty() {
                return Ok(());
            }
            let (index, completion) = first_done(&mut reads).await;
            let Payload::Direct(buf) = completion.payload else {
                return Err(self.failed("read", Errno(libc::EIO)));
            };
            let (offset, len) = places[index];
            match completion.result {
                Ok(read) => {
                    let read = (read as usize).min(len);
                    if read < len && offset.saturating_add(read as u64) < file_len && read > 0 {
                        reads.push_back((index, self.read(buf, offset, len)));
                        continue;
                    }
                    found(index, &buf[..read]);
                    free.push(buf);
                }
                Err(Errno(libc::EINTR | libc::EAGAIN)) => {
                    reads.push_back((index, self.read(buf, offset, len)));
                }
                Err(errno) => return Err(self.failed("read", errno)),
            }
        }
    }

    fn read(&self, buf: DirectBuf, offset: u64, len: usize) -> Pending {
        self.cx.perform(Op::Read { fd: self.fd, buf, len, offset, uncached: false })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.cx.submit_ignored(Op::Close { fd: self.fd });
    }
}

/// Takes the first of the reads that is done.
async fn first_done(reads: &mut VecDeque<(usize, Pending)>) -> (usize, Completion) {
    poll_fn(|task| {
        for at in 0..reads.len() {
            if let Poll::Ready(completion) = Pin::new(&mut reads[at].1).poll(task) {
                let index = reads[at].0;
                // It has ended, so dropping it cancels nothing.
                reads.swap_remove_back(at);
                return Poll::Ready((index, completion));
            }
        }
        Poll::Pending
    })
    .await
}
