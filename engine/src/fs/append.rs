//! A file that only grows, written through the page cache so that it can be sent by sendfile.
//!
//! Appends gather in a buffer; a task writes it while the next one fills. Readers may use
//! everything below [`AppendFile::readable`]. Invariants: bytes are written in order, one write in
//! flight; after a failure nothing is appended any more; memory is two buffers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::File;
use crate::buf::DirectBuf;
use crate::driver::{Fd, OpenOptions};
use crate::error::Error;
use crate::exec::sync::Notify;
use crate::shard::ShardCx;

const BUFFER_BYTES: usize = 256 * 1024;

struct State {
    buf: Option<DirectBuf>,
    used: usize,
    free: Option<DirectBuf>,
    /// End of what was appended, and of what is in the file.
    end: u64,
    readable: u64,
    flush: bool,
    /// An append is under way: others wait, so that theirs do not end up in the middle of it.
    appending: bool,
    failed: Option<Error>,
    closed: bool,
    writer: Option<Waker>,
}

struct Inner {
    file: File,
    state: RefCell<State>,
    changed: Notify,
}

/// An append-only file; closed on drop, without what was not flushed.
pub struct AppendFile(Rc<Inner>);

impl std::fmt::Debug for AppendFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppendFile({}, readable to {})", self.0.file.path().display(), self.readable())
    }
}

impl AppendFile {
    /// Opens or makes the file and goes on at its end.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(cx: &ShardCx, path: &Path) -> Result<Self, Error> {
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(cx, path, &options)?;
        let end = file.len()?;
        let state = State {
            buf: Some(DirectBuf::zeroed(BUFFER_BYTES)),
            used: 0,
            free: Some(DirectBuf::zeroed(BUFFER_BYTES)),
            end,
            readable: end,
            flush: false,
            appending: false,
            failed: None,
            closed: false,
            writer: None,
        };
        let inner = Inner { file, state: RefCell::new(state), changed: Notify::default() };
        let inner = Rc::new(inner);
        cx.spawn("append file", write_buffers(Rc::clone(&inner)));
        Ok(Self(inner))
    }

    /// The descriptor, for [`crate::net::stream::Stream::send_file`].
    #[must_use]
    pub fn fd(&self) -> Fd {
        self.0.file.fd()
    }

    /// Appends `data`; where it begins. Waits while both buffers are full; dropped then, it leaves
    /// a part of `data` in the file.
    ///
    /// # Errors
    /// An earlier write failed.
    pub async fn append(&self, data: &[u8]) -> Result<u64, Error> {
        loop {
            let changed = self.0.changed.notified();
            if !std::mem::replace(&mut self.0.state.borrow_mut().appending, true) {
                break;
            }
            changed.await;
        }
        let _turn = Appending(&self.0);
        let mut rest = data;
        let mut start = None;
        loop {
            let changed = self.0.changed.notified();
            let taken = self.0.fill(rest)?;
            start = start.or_else(|| Some(self.end() - taken as u64));
            rest = &rest[taken..];
            if rest.is_empty() {
                return Ok(start.unwrap_or(0));
            }
            changed.await;
        }
    }

    /// End of what was appended.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.state.borrow().end
    }

    /// Everything before can be read from the file.
    #[must_use]
    pub fn readable(&self) -> u64 {
        self.0.state.borrow().readable
    }

    /// Resolves when everything appended so far can be read from the file; its end.
    ///
    /// # Errors
    /// A write failed.
    pub async fn flush(&self) -> Result<u64, Error> {
        let target = self.end();
        loop {
            let changed = self.0.changed.notified();
            let waiting = {
                let mut state = self.0.state.borrow_mut();
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                if state.readable >= target {
                    return Ok(target);
                }
                state.flush = true;
                state.writer.take()
            };
            waiting.into_iter().for_each(Waker::wake);
            changed.await;
        }
    }

    /// Flushes, and makes it durable.
    ///
    /// # Errors
    /// A write or the sync failed.
    pub async fn sync(&self) -> Result<u64, Error> {
        let end = self.flush().await?;
        if let Err(error) = self.0.file.sync().await {
            // What the file holds is unknown from now on.
            self.0.state.borrow_mut().failed = Some(error.clone());
            return Err(error);
        }
        Ok(end)
    }
}

impl Drop for AppendFile {
    fn drop(&mut self) {
        let writer = {
            let mut state = self.0.state.borrow_mut();
            state.closed = true;
            state.writer.take()
        };
        writer.into_iter().for_each(Waker::wake);
    }
}

/// The right to append.
struct Appending<'a>(&'a Inner);

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().appending = false;
        self.0.changed.notify_all();
    }
}

impl Inner {
    /// Takes as much of `data` as fits.
    fn fill(&self, data: &[u8]) -> Result<usize, Error> {
        let mut state = self.state.borrow_mut();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let used = state.used;
        let Some(buf) = &mut state.buf else { return Ok(0) };
        let taken = data.len().min(buf.len() - used);
        buf[used..used + taken].copy_from_slice(&data[..taken]);
        let full = used + taken == buf.len();
        state.used += taken;
        state.end += taken as u64;
        let writer = if full { state.writer.take() } else { None };
        drop(state);
        writer.into_iter().for_each(Waker::wake);
        Ok(taken)
    }

    /// The buffer to write next, how much of it, and where.
    fn poll_buffer(&self, task: &mut Context<'_>) -> Poll<Option<(DirectBuf, usize, u64)>> {
        let mut state = self.state.borrow_mut();
        if state.failed.is_some() || state.closed {
            return Poll::Ready(None);
        }
        let due = state.flush && state.used > 0 || state.used == BUFFER_BYTES;
        if !due {
            state.flush = false;
            state.writer = Some(task.waker().clone());
            return Poll::Pending;
        }
        let Some(buf) = state.buf.take() else { return Poll::Pending };
        let used = std::mem::replace(&mut state.used, 0);
        state.buf = state.free.take();
        Poll::Ready(Some((buf, used, state.readable)))
    }
}

async fn write_buffers(inner: Rc<Inner>) {
    while let Some((buf, used, offset)) = poll_fn(|task| inner.poll_buffer(task)).await {
        // Room in the other buffer.
        inner.changed.notify_all();
        let written = inner.file.write_at(buf, used, offset).await;
        let mut state = inner.state.borrow_mut();
        match written {
            Ok(buf) => {
                state.readable = offset + used as u64;
                if state.buf.is_none() {
                    state.buf = Some(buf);
                } else {
                    state.free = Some(buf);
                }
            }
            Err(error) => state.failed = Some(error),
        }
        drop(state);
        inner.changed.notify_all();
    }
}
