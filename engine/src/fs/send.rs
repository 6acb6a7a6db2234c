//! File to socket, without the bytes passing through user memory and without the shard waiting for
//! the disk.
//!
//! The range is looked at in windows: cachestat(2) says whether a window is in the page cache; what
//! is not is read ahead by a kernel worker, one window before it is needed, or in small steps between syncs. Cached bytes go out
//! by non-blocking sendfile(2); a turn ends with the call that makes it 256 KiB. Invariants: sendfile touches only what was
//! cached or read ahead a moment ago; other tasks run between two turns. Next: `disk` for why syncs come first,
//! `driver::Driver::sendfile`.

use crate::driver::{Errno, Fd, Op};
use crate::exec::sync::yield_now;
use crate::shard::{Pending, ShardCx};

/// Looked at and read ahead at once.
const WINDOW_BYTES: u64 = 512 * 1024;
/// The same while there are syncs, which wait for no more than this.
const SHORT_WINDOW_BYTES: u64 = 128 * 1024;
const PAGE_BYTES: u64 = 4096;
/// Less per call is dominated by the call.
const CHUNK_MIN_BYTES: usize = 64 * 1024;
/// More per call, or a further call in a turn that has sent this much, keeps other connections waiting.
const CHUNK_MAX_BYTES: usize = 256 * 1024;

/// Sends `len` bytes of `file` from `offset` to the socket `to`, `chunk` at a time; how many, fewer
/// at the file's end.
pub(crate) async fn send_range(
    cx: &ShardCx,
    to: Fd,
    file: Fd,
    offset: u64,
    len: u64,
    chunk: usize,
) -> Result<u64, Errno> {
    let file_len =
        cx.driver().file_len(file).map_err(|error| error.errno().unwrap_or(Errno(libc::EBADF)))?;
    let end = offset.saturating_add(len).min(file_len);
    let chunk = chunk.clamp(CHUNK_MIN_BYTES, CHUNK_MAX_BYTES);
    // Chunks are no multiples of a packet: each would end with a small one.
    let _cork = (end.saturating_sub(offset) > chunk as u64).then(|| Cork::new(cx, to));
    Ok(send_chunks(cx, to, file, offset, end, chunk).await?.bytes)
}

/// What came of sending a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentRange {
    /// So much was sent.
    pub(crate) bytes: u64,
    /// Some of it had to be read from the disk.
    pub(crate) was_cold: bool,
}

/// Holds back partial packets as long as it lives.
struct Cork<'a>(&'a ShardCx, Fd);

impl<'a> Cork<'a> {
    fn new(cx: &'a ShardCx, fd: Fd) -> Self {
        cx.driver().cork(fd, true);
        Self(cx, fd)
    }
}

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        self.0.driver().cork(self.1, false);
    }
}

/// Sends what lies before `end` of `file`, from `offset`, as [`send_range`] does; the caller knows that
/// it is there, and holds back partial packets.
pub(crate) async fn send_chunks(
    cx: &ShardCx,
    to: Fd,
    file: Fd,
    offset: u64,
    end: u64,
    chunk: usize,
) -> Result<SentRange, Errno> {
    let mut windows = Windows { cx, file, end, warm_to: offset, ahead: None, was_cold: false };
    let (mut at, mut turn_end) = (offset, offset.saturating_add(CHUNK_MAX_BYTES as u64));
    while at < end {
        if at >= windows.warm_to {
            windows.warm(at).await?;
        }
        // Not cut at the turn's end: what a full socket left of a chunk would be a call of its own.
        let part = usize::try_from(windows.warm_to - at).unwrap_or(usize::MAX);
        let part = part.min(chunk);
        let moved = cx.driver().sendfile(to, file, at, part);
        match moved {
            // The file was cut meanwhile.
            Ok(0) => break,
            Ok(moved) => {
                at += moved as u64;
                if at < end && at >= turn_end {
                    yield_now().await;
                    turn_end = at + CHUNK_MAX_BYTES as u64;
                }
            }
            Err(Errno(libc::EAGAIN)) => {
                cx.perform(Op::PollOut { fd: to }).await.result?;
                turn_end = at + CHUNK_MAX_BYTES as u64;
            }
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(SentRange { bytes: at - offset, was_cold: windows.was_cold })
}

/// Brings what lies between two positions of a file into the page cache, as [`send_chunks`] does; whether some of it
/// had to be read from the disk.
pub(crate) async fn warm_range(
    cx: &ShardCx,
    file: Fd,
    offset: u64,
    end: u64,
) -> Result<bool, Errno> {
    let mut windows = Windows { cx, file, end, warm_to: offset, ahead: None, was_cold: false };
    while windows.warm_to < end {
        windows.warm(windows.warm_to).await?;
    }
    Ok(windows.was_cold)
}

struct Windows<'a> {
    cx: &'a ShardCx,
    file: Fd,
    end: u64,
    /// Up to here the file may be sent.
    warm_to: u64,
    /// The read-ahead of the window after that, and its end.
    ahead: Option<(u64, Pending)>,
    was_cold: bool,
}

impl Windows<'_> {
    /// Makes at least the byte at `at` warm, and starts reading what comes after.
    async fn warm(&mut self, at: u64) -> Result<(), Errno> {
        let window_end = match self.ahead.take() {
            Some((end, pending)) => {
                pending.await.result?;
                end
            }
            None => {
                let end = self.window_end(at);
                if !self.is_cached(at, end) {
                    self.cx.disk().let_syncs_pass(self.cx).await;
                    self.read_ahead(at, end).await.result?;
                }
                end
            }
        };
        // Also when the read came back short: then the file was cut, or sendfile waits a moment.
        self.warm_to = window_end.max(at + 1);
        let next_end = self.window_end(window_end);
        if window_end < self.end && !self.is_busy() && !self.is_cached(window_end, next_end) {
            self.ahead = Some((next_end, self.read_ahead(window_end, next_end)));
        }
        Ok(())
    }

    /// Windows lie at multiples of their size, so that the next one's read-ahead fits.
    fn window_end(&self, at: u64) -> u64 {
        let window_bytes = if self.is_busy() { SHORT_WINDOW_BYTES } else { WINDOW_BYTES };
        (at / window_bytes + 1).saturating_mul(window_bytes).min(self.end)
    }

    fn is_busy(&self) -> bool {
        self.cx.disk().is_busy(self.cx.now().mono_ns)
    }

    /// Whether all pages of the range are in the cache, by the kernel's word.
    fn is_cached(&self, at: u64, end: u64) -> bool {
        let start = at - at % PAGE_BYTES;
        let len = end.next_multiple_of(PAGE_BYTES) - start;
        // In a file of this length the last page may be counted only as far as it goes.
        let there = self.cx.driver().cached_bytes(self.file, start, len);
        there.is_some_and(|there| there >= end - start)
    }

    fn read_ahead(&mut self, at: u64, end: u64) -> Pending {
        self.was_cold = true;
        // A page that the kernel is still reading counts as cached, and sendfile would wait for it:
        // so there must be no reads but ours.
        self.cx.driver().no_read_ahead(self.file);
        let len = usize::try_from(end - at).unwrap_or(usize::MAX);
        self.cx.perform(Op::ReadAhead { fd: self.file, offset: at, len })
    }
}
