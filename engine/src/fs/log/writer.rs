//! Batches and commits.
//!
//! Appends fill the *filling* batch; a commit, a full buffer or a full segment seals it; the
//! writer's task writes sealed batches one after the other and wakes who waited. A batch that
//! begins within a block starts with a copy of that block's earlier bytes, which are durable
//! already and are written again unchanged.
//!
//! Invariants: positions of sealed batches, then the filling one, follow each other without gaps;
//! `durable <= sealed <= end`; a segment's header is made durable before its first records are
//! written, and after everything in the segment before; no borrow of the state is held across an
//! await or a wake-up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::format::{BLOCK_BYTES, Key, RECORDS_START, SegmentHeader, record_bytes};
use super::segment::{self, SegmentFile};
use super::{AppendError, LogConfig, Position};
use crate::buf::DirectBuf;
use crate::error::{Error, Kind};
use crate::exec::sync::Notify;
use crate::fs::Dir;
use crate::shard::ShardCx;

/// How long a failed attempt to make a segment is not repeated.
const SPARE_RETRY_NS: u64 = 1_000_000_000;

/// Counts since a log was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogStats {
    /// Records appended.
    pub appends: u64,
    /// Bytes of records appended, headers and padding included.
    pub appended_bytes: u64,
    /// Durable writes of records.
    pub writes: u64,
    /// Bytes of those.
    pub written_bytes: u64,
    /// Segments begun.
    pub rolls: u64,
    /// Appends refused because no buffer or no segment was ready.
    pub busy: u64,
}

/// A segment in use: a file and what this use of it is.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) file: SegmentFile,
    key: Key,
}

impl Segment {
    pub(super) fn new(header: SegmentHeader, file: SegmentFile) -> Rc<Self> {
        Rc::new(Self { header, key: header.key(), file })
    }
}

/// The segment after the current one.
#[derive(Debug)]
enum Spare {
    Missing,
    Preparing,
    Ready(SegmentFile),
    /// Why there is none, and when that was found.
    Failed(Error, u64),
}

#[derive(Debug)]
struct Batch {
    buf: DirectBuf,
    segment: Rc<Segment>,
    /// Where the buffer's first byte goes.
    start: u32,
    /// Bytes of the buffer in use.
    used: usize,
    /// Where its own records begin.
    first: u32,
    /// Begins the segment: the buffer starts with the header.
    opens: bool,
    /// Position after its last record.
    end: u64,
}

#[derive(Debug)]
struct Waiter {
    target: u64,
    id: u64,
    waker: Waker,
}

#[derive(Debug)]
struct State {
    /// Oldest first; the last one takes the appends.
    live: VecDeque<Rc<Segment>>,
    /// Trimmed files, to be used again.
    idle: Vec<SegmentFile>,
    spare: Spare,
    next_slot: u64,
    /// Where the next record goes in the current segment.
    offset: u32,
    /// The current segment's header has not been put into a batch yet.
    opens: bool,
    /// Copy of the block that `offset` lies in.
    tail: Box<[u8]>,
    filling: Option<Batch>,
    sealed: VecDeque<Batch>,
    free: Vec<DirectBuf>,
    /// Positions; see the invariants.
    end: u64,
    sealed_end: u64,
    durable: u64,
    /// A commit asks for a write up to here.
    wanted: u64,
    waiters: VecDeque<Waiter>,
    next_waiter: u64,
    failed: Option<Error>,
    closed: bool,
    /// The writer's task is over.
    ended: bool,
    writer: Option<Waker>,
    stats: LogStats,
}

/// Where a log goes on, found by recovery.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) cx: ShardCx,
    pub(super) config: LogConfig,
    pub(super) dir: Dir,
    /// The segments that hold records, then the one to begin.
    pub(super) live: VecDeque<Rc<Segment>>,
    pub(super) idle: Vec<SegmentFile>,
    pub(super) next_slot: u64,
}

struct Inner {
    cx: ShardCx,
    config: LogConfig,
    dir: Dir,
    room: Notify,
    state: RefCell<State>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let batches = state.sealed.drain(..).chain(state.filling.take()).map(|batch| batch.buf);
        for buf in state.free.drain(..).chain(batches) {
            drop(self.cx.driver().unregister(buf));
        }
    }
}

/// What all clones of a log share; the log closes with it.
pub(super) struct Handle(Rc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Handle {
    /// Starts the writer.
    pub(super) fn start(start: Start) -> Self {
        let Start { cx, config, dir, live, idle, next_slot } = start;
        let end = live.back().map_or(0, |segment| segment.header.base);
        let buffer = |_| cx.driver().register(DirectBuf::zeroed(config.batch_bytes));
        let state = State {
            live,
            idle,
            spare: Spare::Missing,
            next_slot,
            offset: RECORDS_START,
            opens: true,
            tail: vec![0; BLOCK_BYTES].into(),
            filling: None,
            sealed: VecDeque::with_capacity(config.batches),
            free: (0..config.batches).map(buffer).collect(),
            end,
            sealed_end: end,
            durable: end,
            wanted: end,
            waiters: VecDeque::new(),
            next_waiter: 0,
            failed: None,
            closed: false,
            ended: false,
            writer: None,
            stats: LogStats::default(),
        };
        let state = RefCell::new(state);
        let room = Notify::default();
        let inner = Rc::new(Inner { cx, config, dir, room, state });
        inner.prepare_spare();
        inner.cx.spawn("log writer", write_batches(Rc::clone(&inner)));
        Self(inner)
    }

    pub(super) fn append(&self, parts: &[&[u8]]) -> Result<Position, AppendError> {
        let appended = self.0.append(parts);
        if matches!(appended, Err(AppendError::Busy)) {
            self.0.state.borrow_mut().stats.busy += 1;
        }
        appended
    }

    pub(super) fn room(&self) -> impl Future<Output = ()> + '_ {
        self.0.room.notified()
    }

    pub(super) fn commit(&self) -> Commit {
        let (target, writer) = {
            let mut state = self.0.state.borrow_mut();
            state.wanted = state.end;
            // A batch in flight looks for more by itself when it is done.
            let writer = if state.wanted > state.sealed_end { state.writer.take() } else { None };
            (state.end, writer)
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        Commit { inner: Rc::clone(&self.0), target, waiter: None }
    }

    pub(super) fn end(&self) -> Position {
        Position(self.0.state.borrow().end)
    }

    pub(super) fn durable(&self) -> Position {
        Position(self.0.state.borrow().durable)
    }

    pub(super) fn start_position(&self) -> Position {
        let state = self.0.state.borrow();
        Position(state.live.front().map_or(state.end, |segment| segment.header.base))
    }

    pub(super) fn stats(&self) -> LogStats {
        self.0.state.borrow().stats
    }

    pub(super) fn trim(&self, position: Position) {
        let mut freed = false;
        let mut state = self.0.state.borrow_mut();
        while let Some(next) = state.live.get(1).map(|segment| segment.header.base) {
            if next > position.0.min(state.durable) {
                break;
            }
            let Some(segment) = state.live.pop_front() else { break };
            // All writes to it are over, so nobody else holds it.
            let Some(segment) = Rc::into_inner(segment) else { continue };
            if segment.header.segment_bytes == self.0.config.segment_bytes {
                state.idle.push(segment.file);
                freed = true;
            } else {
                // Left over at worst: the next recovery removes it.
                let _ = self.0.cx.driver().unlink(&segment.file.path);
            }
        }
        drop(state);
        if freed {
            self.0.prepare_spare();
            self.0.room.notify_all();
        }
    }

    pub(super) fn close(&self) {
        let writer = {
            let mut state = self.0.state.borrow_mut();
            state.closed = true;
            state.writer.take()
        };
        writer.into_iter().for_each(Waker::wake);
        self.0.room.notify_all();
    }
}

impl State {
    /// Ends the filling batch; the writer takes it when its turn comes.
    fn seal(&mut self) {
        let Some(mut batch) = self.filling.take() else { return };
        let block = batch.used / BLOCK_BYTES * BLOCK_BYTES;
        let end = batch.used.next_multiple_of(BLOCK_BYTES);
        // The buffer still holds what an earlier batch left in it.
        batch.buf[batch.used..end].fill(0);
        if block < end {
            self.tail.copy_from_slice(&batch.buf[block..end]);
        }
        self.sealed_end = batch.end;
        self.sealed.push_back(batch);
    }

    /// Begins a batch at the end of the current segment; false when no buffer is free.
    fn begin(&mut self) -> bool {
        let Some(segment) = self.live.back().cloned() else { return false };
        let oldest = self.live.front().map_or(0, |segment| segment.header.sequence);
        let Some(mut buf) = self.free.pop() else { return false };
        let opens = std::mem::replace(&mut self.opens, false);
        let (start, used) = if opens {
            SegmentHeader { oldest, ..segment.header }.encode(&mut buf);
            (0, BLOCK_BYTES)
        } else {
            let used = self.offset as usize % BLOCK_BYTES;
            buf[..used].copy_from_slice(&self.tail[..used]);
            (self.offset - used as u32, used)
        };
        let (first, end) = (self.offset, self.end);
        self.filling = Some(Batch { buf, segment, start, used, first, opens, end });
        true
    }
}

impl Inner {
    fn append(self: &Rc<Self>, parts: &[&[u8]]) -> Result<Position, AppendError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let max_bytes = self.config.record_max_bytes();
        if len > max_bytes {
            return Err(AppendError::TooLong { max_bytes });
        }
        let size = record_bytes(len);
        let mut state = self.state.borrow_mut();
        if let Some(error) = &state.failed {
            return Err(AppendError::Failed(error.clone()));
        }
        if state.closed {
            let closed = Error::new("append", Kind::Cancelled, "the log is closed");
            return Err(AppendError::Failed(closed));
        }
        if u64::from(state.offset) + size as u64 > self.config.segment_bytes {
            drop(state);
            self.roll()?;
            state = self.state.borrow_mut();
        }
        let full = |batch: &Batch| batch.used + size > batch.buf.len();
        if state.filling.as_ref().is_some_and(full) {
            state.seal();
            self.wake_writer(&mut state);
        }
        if state.filling.is_none() && !state.begin() {
            return Err(AppendError::Busy);
        }
        Ok(state.put(parts, size))
    }

    fn wake_writer(&self, state: &mut State) {
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// Goes on in the spare segment.
    fn roll(self: &Rc<Self>) -> Result<(), AppendError> {
        let mut state = self.state.borrow_mut();
        state.seal();
        self.wake_writer(&mut state);
        let file = match std::mem::replace(&mut state.spare, Spare::Missing) {
            Spare::Ready(file) => file,
            Spare::Preparing => {
                state.spare = Spare::Preparing;
                return Err(AppendError::Busy);
            }
            Spare::Failed(error, at_ns) => {
                let again = self.cx.now().mono_ns.saturating_sub(at_ns) >= SPARE_RETRY_NS;
                if !again {
                    state.spare = Spare::Failed(error.clone(), at_ns);
                }
                drop(state);
                self.prepare_spare();
                return Err(AppendError::Full(error));
            }
            Spare::Missing => {
                drop(state);
                return match self.prepare_spare() {
                    Some(full) => Err(AppendError::Full(full)),
                    None => Err(AppendError::Busy),
                };
            }
        };
        let (sequence, base) =
            (state.live.back().map_or(0, |last| last.header.sequence), state.end);
        let header = new_header(&self.cx, &self.config, sequence + 1, base);
        state.live.push_back(Segment::new(header, file));
        state.offset = RECORDS_START;
        state.opens = true;
        state.stats.rolls += 1;
        drop(state);
        self.prepare_spare();
        Ok(())
    }

    /// Sees to it that there will be a spare segment; why there cannot be one, if so.
    fn prepare_spare(self: &Rc<Self>) -> Option<Error> {
        let mut state = self.state.borrow_mut();
        match state.spare {
            Spare::Missing => {}
            Spare::Failed(..) if !state.idle.is_empty() => {}
            _ => return None,
        }
        if let Some(file) = state.idle.pop() {
            state.spare = Spare::Ready(file);
            return None;
        }
        if state.live.len() >= self.config.segments_max {
            let context = format!("all {} segments of the log are needed", state.live.len());
            return Some(Error::new("append", Kind::Full, context));
        }
        state.spare = Spare::Preparing;
        let slot = state.next_slot;
        state.next_slot += 1;
        drop(state);
        let inner = Rc::clone(self);
        self.cx.spawn("log segment", async move {
            let bytes = inner.config.segment_bytes;
            let made = segment::create(&inner.cx, &inner.dir, slot, bytes).await;
            let mut state = inner.state.borrow_mut();
            state.spare = match made {
                Ok(file) => Spare::Ready(file),
                Err(error) => Spare::Failed(error, inner.cx.now().mono_ns),
            };
            drop(state);
            inner.room.notify_all();
        });
        None
    }

    /// The next batch to write; `None` when the log is closed or has failed.
    fn poll_batch(&self, task: &mut Context<'_>) -> Poll<Option<Batch>> {
        let mut state = self.state.borrow_mut();
        if state.failed.is_some() {
            return Poll::Ready(None);
        }
        if state.sealed.is_empty() && state.wanted > state.sealed_end {
            state.seal();
        }
        if let Some(batch) = state.sealed.pop_front() {
            return Poll::Ready(Some(batch));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.writer = Some(task.waker().clone());
        Poll::Pending
    }

    fn finish(&self, end: u64, written: Result<(DirectBuf, usize), Error>) {
        let mut woken = Vec::new();
        let mut state = self.state.borrow_mut();
        match written {
            Ok((buf, len)) => {
                state.free.push(buf);
                state.durable = end;
                state.stats.writes += 1;
                state.stats.written_bytes += len as u64;
                while state.waiters.front().is_some_and(|waiter| waiter.target <= end) {
                    woken.extend(state.waiters.pop_front().map(|waiter| waiter.waker));
                }
            }
            Err(error) => {
                state.failed = Some(error);
                woken.extend(state.waiters.drain(..).map(|waiter| waiter.waker));
            }
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        self.room.notify_all();
    }

    async fn write(&self, batch: Batch) -> Result<(DirectBuf, usize), Error> {
        let Batch { mut buf, segment, start, used, opens, .. } = batch;
        let file = &segment.file;
        if opens {
            // First of all the file says whose it is now: records without a header would look
            // like damage to what it held before.
            buf = segment::write_all(&self.cx, file, buf, BLOCK_BYTES, 0, true).await?;
        }
        let len = used.next_multiple_of(BLOCK_BYTES);
        buf = segment::write_all(&self.cx, file, buf, len, u64::from(start), true).await?;
        Ok((buf, len))
    }
}

async fn write_batches(inner: Rc<Inner>) {
    while let Some(batch) = poll_fn(|task| inner.poll_batch(task)).await {
        let end = batch.end;
        let written = inner.write(batch).await;
        inner.finish(end, written);
    }
    // Commits asked for after the last write find out.
    let waiters = {
        let mut state = inner.state.borrow_mut();
        state.ended = true;
        std::mem::take(&mut state.waiters)
    };
    waiters.into_iter().for_each(|waiter| waiter.waker.wake());
}

/// The header of a segment about to be begun; `oldest` is filled in when it is written.
pub(super) fn new_header(
    cx: &ShardCx,
    config: &LogConfig,
    sequence: u64,
    base: u64,
) -> SegmentHeader {
    SegmentHeader {
        sequence,
        oldest: sequence,
        base,
        salt: cx.rng().next_u64(),
        segment_bytes: config.segment_bytes,
        record_max_bytes: u32::try_from(config.record_max_bytes()).unwrap_or(u32::MAX),
    }
}

impl State {
    fn put(&mut self, parts: &[&[u8]], size: usize) -> Position {
        let position = Position(self.end);
        let Some(batch) = &mut self.filling else { return position };
        let out = &mut batch.buf[batch.used..];
        batch.segment.key.put(out, self.offset, batch.first, parts);
        batch.used += size;
        self.offset += size as u32;
        self.end += size as u64;
        batch.end = self.end;
        self.stats.appends += 1;
        self.stats.appended_bytes += size as u64;
        position
    }
}

/// Waits until what was appended before it is durable.
pub struct Commit {
    inner: Rc<Inner>,
    target: u64,
    waiter: Option<u64>,
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commit(to {})", self.target)
    }
}

impl Future for Commit {
    type Output = Result<Position, Error>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = Rc::clone(&self.inner);
        let mut state = inner.state.borrow_mut();
        if state.durable >= self.target {
            self.waiter = None;
            return Poll::Ready(Ok(Position(self.target)));
        }
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(error.clone()));
        }
        if state.ended {
            return Poll::Ready(Err(Error::new("commit", Kind::Cancelled, "the log is closed")));
        }
        let waker = task.waker().clone();
        let known = self.waiter.and_then(|id| state.waiters.iter().position(|one| one.id == id));
        if let Some(at) = known {
            state.waiters[at].waker = waker;
            return Poll::Pending;
        }
        let id = state.next_waiter;
        state.next_waiter += 1;
        let target = self.target;
        let at = state.waiters.partition_point(|waiter| waiter.target <= target);
        state.waiters.insert(at, Waiter { target, id, waker });
        self.waiter = Some(id);
        Poll::Pending
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if let Some(id) = self.waiter {
            self.inner.state.borrow_mut().waiters.retain(|waiter| waiter.id != id);
        }
    }
}
