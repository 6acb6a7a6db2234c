//! Bytes in: which receive is in flight, and how bytes reach the session.

use bytes::{Bytes, BytesMut};
use view::{Flow, Input, Output, Session};

use super::conn::{Closing, Conn, ConnId, Receiving};
use super::server::{Role, Server, Service};
use crate::driver::{Completion, Errno, Op, Payload};

/// A connection that sent a big frame is received from in two steps for this many more frames: a
/// little into the pool, which tells the length, and the rest straight into place.
const BIG_FRAMES: u8 = 32;
/// The first of the two steps.
const SMALL_LEN: u32 = 512;
/// Frames announced above this length are received straight into place.
pub(super) const BIG_FRAME_MIN_BYTES: usize = 32 << 10;
/// Longest single receive into a connection's own buffer: bounds what a peer that announces a
/// huge frame can make us reserve before it has sent anything.
const INTO_MAX_BYTES: usize = 1 << 20;

impl<S: Service> Server<S> {
    /// Puts the receive in flight that fits the connection's state, if none is.
    pub(super) fn receive(&self, id: ConnId) {
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(id) else { return };
        let lingering = conn.closing == Closing::Lingering;
        if conn.receiving != Receiving::Off || conn.eof || conn.closing > Closing::Lingering {
            return;
        }
        if !lingering && self.must_wait(conn) {
            return;
        }
        let fd = conn.fd;
        let missing = conn.want.saturating_sub(conn.backlog.len());
        conn.ops_in_flight += 1;
        let direct = !lingering && conn.tls.is_none();
        if missing > 0 && conn.want >= BIG_FRAME_MIN_BYTES && direct {
            let len = missing.min(INTO_MAX_BYTES);
            let mut buf = std::mem::take(&mut conn.backlog);
            grow(&mut buf, len, conn.want);
            conn.big_frames = BIG_FRAMES;
            conn.receiving = Receiving::Into(self.submit(
                Role::Receive,
                id.to_bits(),
                Op::RecvInto { fd, buf, len },
            ));
        } else if conn.big_frames > 0 {
            let op = Op::RecvSelect { fd, len: SMALL_LEN };
            conn.receiving = Receiving::Small(self.submit(Role::Receive, id.to_bits(), op));
        } else {
            let op = Op::RecvMulti { fd };
            conn.receiving = Receiving::Multi(self.submit(Role::Receive, id.to_bits(), op));
        }
    }

    /// Whether the connection cannot take input now and holds enough of it. One that goes on in the next turn takes only
    /// a part of its backlog then: a peer that sends faster than that must not make it grow.
    fn must_wait(&self, conn: &Conn<S::Session>) -> bool {
        let blocked = conn.awaiting || conn.queued || self.is_paused(conn);
        conn.closing == Closing::Flushing
            || blocked && conn.backlog.len() >= self.config.input_max_bytes
            || conn.tls.as_ref().is_some_and(|tls| tls.is_full())
    }

    pub(super) const fn is_paused(&self, conn: &Conn<S::Session>) -> bool {
        conn.pending.len() > self.config.output_max_bytes
    }

    /// Stops a multishot receive; it ends with a completion.
    pub(super) fn cancel_multi(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        if let Receiving::Multi(target) = conn.receiving {
            conn.receiving = Receiving::Cancelling;
            conn.ops_in_flight += 1;
            self.submit(Role::Cancel, id.to_bits(), Op::Cancel { target });
        }
    }

    pub(super) fn on_received(&self, id: ConnId, completion: Completion) {
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(id) else { return };
        let cancelled = conn.receiving == Receiving::Cancelling;
        if !completion.more {
            conn.receiving = Receiving::Off;
            conn.ops_in_flight -= 1;
        }
        let payload = completion.payload;
        match completion.result {
            Ok(0) => conn.eof = true,
            Ok(len) => {
                conn.active_s = self.now_s();
                self.count(|stats| stats.received_bytes += u64::from(len));
            }
            Err(Errno(libc::ENOBUFS)) => {
                if conn.receiving == Receiving::Off {
                    conn.receiving = Receiving::Starved;
                    self.starved.borrow_mut().push(id);
                }
                self.count(|stats| stats.starved += 1);
            }
            Err(Errno(libc::ECANCELED)) if cancelled => {}
            Err(_) => {
                drop(conns);
                drop(payload);
                return self.close(id);
            }
        }
        let takes = conn.closing == Closing::Open && !conn.awaiting && !self.is_paused(conn);
        if takes && self.turn_is_full() {
            self.queue(id, conn);
        }
        let runnable = takes && !conn.queued;
        match payload {
            _ if conn.closing >= Closing::Lingering => {}
            sealed if conn.tls.is_some() => self.on_sealed(id, conn, sealed, runnable),
            Payload::Lease(lease) if runnable && conn.backlog.is_empty() => {
                self.feed_borrowed(id, conn, &lease);
            }
            Payload::Lease(lease) => {
                conn.backlog.extend_from_slice(&lease);
                self.count(|stats| stats.copied_bytes += lease.len() as u64);
                if runnable {
                    self.feed_backlog(id, conn);
                }
            }
            Payload::Bytes(buf) => {
                conn.backlog = buf;
                if runnable && (conn.backlog.len() >= conn.want || conn.eof) {
                    self.feed_backlog(id, conn);
                }
            }
            _ => {}
        }
        self.after_feed(id, conn);
        drop(conns);
        self.settle(id);
    }

    /// After bytes were taken or a wait ended: arranges the next receive.
    fn after_feed(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        if conn.big_frames > 0 && conn.want >= BIG_FRAME_MIN_BYTES || self.must_wait(conn) {
            self.cancel_multi(id, conn);
        }
    }

    /// Hands the session bytes lent from the pool; what it leaves is kept in the backlog.
    fn feed_borrowed(&self, id: ConnId, conn: &mut Conn<S::Session>, bytes: &[u8]) {
        let mut input = Input::borrowed(bytes);
        let flow = self.call(conn, &mut input);
        let rest = input.remaining();
        conn.want = input.wanted();
        if !rest.is_empty() {
            self.copy_rest(conn, rest);
        }
        self.follow(id, conn, flow);
    }

    /// Hands the session the backlog.
    pub(super) fn feed_backlog(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        if conn.backlog.is_empty() {
            return;
        }
        let backlog = std::mem::take(&mut conn.backlog);
        if conn.want >= BIG_FRAME_MIN_BYTES {
            // One big frame in an allocation of its own: values in it are shared, not copied.
            let bytes = backlog.freeze();
            let mut input = Input::owned(&bytes);
            let flow = self.call(conn, &mut input);
            conn.want = input.wanted();
            let consumed = input.consumed();
            self.keep_rest(conn, bytes, consumed);
            return self.follow(id, conn, flow);
        }
        let mut input = Input::borrowed(&backlog);
        let flow = self.call(conn, &mut input);
        conn.want = input.wanted();
        let consumed = input.consumed();
        conn.backlog = backlog;
        if consumed == conn.backlog.len() {
            // An idle connection keeps no buffer.
            conn.backlog = BytesMut::new();
        } else {
            bytes::Buf::advance(&mut conn.backlog, consumed);
            let more = conn.want.saturating_sub(conn.backlog.len());
            if conn.want >= BIG_FRAME_MIN_BYTES {
                grow(&mut conn.backlog, more.min(INTO_MAX_BYTES), conn.want);
            }
        }
        self.follow(id, conn, flow);
    }

    /// Keeps what the session left of a frame's own allocation: the allocation itself when nothing
    /// was taken, so that a frame which arrives in many parts is not copied for each of them.
    fn keep_rest(&self, conn: &mut Conn<S::Session>, bytes: Bytes, consumed: usize) {
        if consumed == bytes.len() {
            return;
        }
        match bytes.try_into_mut() {
            Ok(buf) if consumed == 0 => conn.backlog = buf,
            Ok(buf) => self.copy_rest(conn, &buf[consumed..]),
            Err(shared) => self.copy_rest(conn, &shared[consumed..]),
        }
    }

    fn copy_rest(&self, conn: &mut Conn<S::Session>, rest: &[u8]) {
        reserve_for(&mut conn.backlog, rest.len(), conn.want);
        conn.backlog.extend_from_slice(rest);
        self.count(|stats| stats.copied_bytes += rest.len() as u64);
    }

    /// Calls the session with a fresh or reused output buffer and sends what it wrote.
    fn call(&self, conn: &mut Conn<S::Session>, input: &mut Input<'_>) -> Flow<S::Work> {
        let mut out = self.output(conn);
        let now = self.cx.now();
        let flow = conn.session.on_bytes(input, &mut out, &mut self.shard.borrow_mut(), now);
        conn.big_frames = match input.wanted() {
            want if want >= BIG_FRAME_MIN_BYTES && conn.tls.is_none() => BIG_FRAMES,
            _ => conn.big_frames.saturating_sub(u8::from(input.consumed() > 0)),
        };
        conn.pending = out;
        flow
    }

    /// Where replies go: behind those that wait, or into a spare buffer.
    pub(super) fn output(&self, conn: &mut Conn<S::Session>) -> Output {
        let pending = std::mem::take(&mut conn.pending);
        if !pending.is_empty() {
            return pending;
        }
        self.spare.borrow_mut().pop().map_or(pending, Output::with_buffer)
    }

    /// Does what the session asked for.
    pub(super) fn follow(&self, id: ConnId, conn: &mut Conn<S::Session>, flow: Flow<S::Work>) {
        match flow {
            Flow::NeedInput => {}
            Flow::Flush => self.queue(id, conn),
            Flow::Await(work) => {
                conn.awaiting = true;
                if let Some(work) = self.service.start(id, work) {
                    let server = self.me();
                    let done = self.service.perform(&server, id, work);
                    self.cx.spawn("session work", async move {
                        let done = done.await;
                        server.done(id, done);
                    });
                }
            }
            Flow::Close => self.begin_flushing(id, conn),
        }
        self.send(id, conn);
        if self.is_paused(conn) {
            self.count(|stats| stats.paused += 1);
        }
    }

    pub(super) fn queue(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        if !conn.queued {
            conn.queued = true;
            self.again.borrow_mut().push(id);
        }
    }

    /// The work that a connection awaits is done. Not to be called from within the session, the
    /// service's [`Service::start`], or what [`Service::perform`] does at once.
    pub fn done(&self, id: ConnId, done: S::Done) {
        {
            let mut conns = self.conns.borrow_mut();
            let Some(conn) = conns.get_mut(id) else { return };
            conn.awaiting = false;
            // What it awaits next, it is told of again.
            conn.knows_gone = false;
            // It goes on below, or in a turn that has room.
            let listed = std::mem::replace(&mut conn.queued, true);
            // Also when the peer is gone: work in several steps has to be brought to its end.
            let mut out = self.output(conn);
            let now = self.cx.now();
            let flow = conn.session.on_done(done, &mut out, &mut self.shard.borrow_mut(), now);
            conn.pending = out;
            self.follow(id, conn, flow);
            if conn.closing >= Closing::Lingering {
                conn.pending = Output::default();
            }
            if self.turn_is_full() {
                if !listed {
                    self.again.borrow_mut().push(id);
                }
                return;
            }
        }
        self.resume(id);
    }

    /// Continues a connection that waited for its turn, its work, or its peer to read.
    pub(super) fn resume(&self, id: ConnId) {
        {
            let mut conns = self.conns.borrow_mut();
            let Some(conn) = conns.get_mut(id) else { return };
            conn.queued = false;
            if conn.tls.is_some() {
                // The rest of a reply that would have made a turn too long.
                self.send(id, conn);
            }
            let open = conn.closing == Closing::Open && !self.stopping.get();
            if open && !conn.awaiting && !self.is_paused(conn) {
                self.feed_backlog(id, conn);
            }
            self.after_feed(id, conn);
        }
        self.settle(id);
    }

    /// Re-arms connections that found the pool empty, as many as it has buffers for: re-arming
    /// all at once costs seven times as much.
    pub(super) fn feed_starved(&self) {
        if self.starved.borrow().is_empty() {
            return;
        }
        let room = self.cx.driver().pool().available() as usize;
        for _ in 0..room {
            let Some(id) = self.starved.borrow_mut().pop() else { return };
            if let Some(conn) = self.conns.borrow_mut().get_mut(id) {
                conn.receiving = Receiving::Off;
            }
            self.settle(id);
        }
    }
}

/// Room for `len` more bytes of a frame of `want`, exactly.
fn grow(buf: &mut BytesMut, len: usize, want: usize) {
    let spare = buf.capacity() - buf.len();
    if spare < len {
        // The first growth takes a moderate frame whole; a huge one grows by doubling.
        let target = want.min((buf.len() * 2).max(INTO_MAX_BYTES)).max(buf.len() + len);
        let mut grown = BytesMut::with_capacity(target);
        grown.extend_from_slice(buf);
        *buf = grown;
    }
}

pub(super) fn reserve_for(backlog: &mut BytesMut, len: usize, want: usize) {
    if backlog.capacity() - backlog.len() < len {
        let target = if want >= BIG_FRAME_MIN_BYTES { want.min(INTO_MAX_BYTES) } else { 0 };
        grow(backlog, target.max(len), want);
    }
}
