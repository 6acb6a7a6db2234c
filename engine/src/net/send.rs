//! Bytes out, and how a connection ends.

use view::{Output, Session};

use super::conn::{Closing, Conn, ConnId, Receiving};
use super::server::{Role, Server, Service};
use crate::driver::{Completion, Op, Payload};

/// Reply buffers larger than this are not kept for reuse.
const SPARE_MAX_BYTES: usize = 64 << 10;
/// Reply buffers kept for reuse.
const SPARES_MAX: usize = 1024;

impl<S: Service> Server<S> {
    /// Sends what is pending, if no send is in flight.
    pub(super) fn send(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        if conn.sending || conn.closing >= Closing::Lingering {
            self.await_end(conn);
            return;
        }
        if conn.tls.is_some() {
            return self.send_sealed(id, conn);
        }
        let out = std::mem::take(&mut conn.pending);
        if out.is_empty() {
            self.keep(out);
            return;
        }
        // Only the next request tells that this one's reply has gone, as long as nobody waits for it.
        let now = out.is_inline() && conn.closing == Closing::Open;
        self.start_send(id, conn, out, 0, now);
    }

    /// Sends `out` without its first `skip` bytes: `now` if it need not go out whole, else waiting
    /// for room.
    pub(super) fn start_send(
        &self,
        id: ConnId,
        conn: &mut Conn<S::Session>,
        out: Output,
        skip: usize,
        now: bool,
    ) {
        let zero_copy = self.config.zero_copy_min_bytes.is_some_and(|min| out.len() - skip >= min);
        conn.sending = true;
        conn.ops_in_flight += 1;
        self.turn_bytes.set(self.turn_bytes.get() + out.len() - skip);
        let op = match now && !zero_copy {
            true => Op::SendNow { fd: conn.fd, out },
            false => Op::Send { fd: conn.fd, out, skip, zero_copy },
        };
        self.submit(Role::Send, id.to_bits(), op);
        conn.sent_skip = skip;
    }

    /// Sees to it that the shard does not sleep before it hears of the connection's send, when
    /// something waits for that.
    pub(super) fn await_end(&self, conn: &Conn<S::Session>) {
        let waits = conn.closing != Closing::Open || conn.eof || !conn.has_sent_all();
        if conn.sending && waits {
            self.awaits_send.set(true);
        }
    }

    pub(super) fn keep(&self, out: Output) {
        let buffer = out.into_buffer();
        let mut spare = self.spare.borrow_mut();
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_MAX_BYTES && spare.len() < SPARES_MAX
        {
            spare.push(buffer);
        }
    }

    pub(super) fn on_sent(&self, id: ConnId, completion: Completion) {
        {
            let mut conns = self.conns.borrow_mut();
            let Some(conn) = conns.get_mut(id) else { return };
            conn.sending = false;
            conn.ops_in_flight -= 1;
            if self.awaits_sent.take() {
                self.sent.notify_all();
            }
            let Payload::Output(out) = completion.payload else { return };
            match completion.result {
                Ok(sent) => {
                    self.count(|stats| stats.sent_bytes += u64::from(sent));
                    let skip = conn.sent_skip + sent as usize;
                    if skip < out.len() && conn.closing < Closing::Lingering {
                        // Also when nothing went out: what does not fit waits for room.
                        self.start_send(id, conn, out, skip, false);
                        return;
                    }
                    self.keep(out);
                    let was_paused = self.is_paused(conn);
                    if conn.tls.is_some() && self.turn_is_full() {
                        self.queue(id, conn);
                    } else {
                        self.send(id, conn);
                    }
                    if was_paused && !self.is_paused(conn) {
                        self.queue(id, conn);
                    }
                }
                Err(_) => {
                    drop(conns);
                    return self.close(id);
                }
            }
        }
        self.settle(id);
    }

    pub(super) fn on_op_ended(&self, id: ConnId) {
        if let Some(conn) = self.conns.borrow_mut().get_mut(id) {
            conn.ops_in_flight -= 1;
        }
        self.settle(id);
    }

    pub(super) fn begin_flushing(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        if conn.closing == Closing::Open {
            conn.closing = Closing::Flushing;
            self.set_timer(Role::Linger, id.to_bits(), self.config.flush_ns);
        }
    }

    /// Takes no more input, answers what was taken, then closes.
    pub fn finish(&self, id: ConnId) {
        if let Some(conn) = self.conns.borrow_mut().get_mut(id) {
            self.begin_flushing(id, conn);
        }
        self.settle(id);
    }

    /// [`Server::finish`]es every connection whose session `which` picks; a rare command's walk
    /// over all connections.
    pub fn finish_where(&self, which: impl Fn(&S::Session) -> bool) {
        let (ids, _) = self.conns.borrow().page(0, usize::MAX / 2);
        for id in ids {
            let picked =
                self.conns.borrow_mut().get_mut(id).is_some_and(|conn| which(&conn.session));
            if picked {
                self.finish(id);
            }
        }
    }

    /// Brings the connection to where its state leads: the next receive, or the next step of its
    /// end.
    pub(super) fn settle(&self, id: ConnId) {
        self.receive(id);
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(id) else { return };
        self.await_end(conn);
        if conn.awaiting && !conn.knows_gone && (conn.eof || conn.closing != Closing::Open) {
            conn.knows_gone = true;
            conn.session.on_gone(&mut self.shard.borrow_mut());
        }
        let quiet =
            !conn.sending && !conn.awaiting && conn.has_sent_all() && !conn.session.owes_answers();
        if conn.closing == Closing::Open && conn.eof && quiet && !conn.queued {
            // The peer is done, and so are we with what it sent.
            conn.closing = Closing::Flushing;
        }
        if conn.closing == Closing::Flushing && quiet && !self.says_goodbye(id, conn) {
            if conn.eof {
                conn.closing = Closing::Closed;
            } else {
                // Closing with unread input would reset the connection and could take replies
                // with it that the peer has not read: shut our side, let the peer close.
                conn.closing = Closing::Lingering;
                conn.ops_in_flight += 1;
                let op = Op::Shutdown { fd: conn.fd, write_only: true };
                self.submit(Role::Shutdown, id.to_bits(), op);
                self.set_timer(Role::Linger, id.to_bits(), self.config.linger_ns);
                drop(conns);
                return self.receive(id);
            }
        }
        if conn.closing == Closing::Lingering && conn.eof {
            conn.closing = Closing::Closed;
        }
        if conn.closing == Closing::Closed && conn.ops_in_flight == 0 && !conn.awaiting {
            let conn = conns.remove(id);
            drop(conns);
            self.end(conn);
        }
    }

    fn end(&self, conn: Option<Conn<S::Session>>) {
        let Some(mut conn) = conn else { return };
        conn.session.on_close(&mut self.shard.borrow_mut());
        self.cx.submit_ignored(Op::Close { fd: conn.fd });
    }

    /// Ends a connection at once, without sending what is pending.
    pub fn close(&self, id: ConnId) {
        {
            let mut conns = self.conns.borrow_mut();
            let Some(conn) = conns.get_mut(id) else { return };
            if conn.closing < Closing::Closed {
                conn.closing = Closing::Closed;
                conn.pending = Output::default();
                if conn.receiving == Receiving::Starved {
                    conn.receiving = Receiving::Off;
                }
                if conn.ops_in_flight > 0 {
                    // Ends the receive and the send in flight.
                    conn.ops_in_flight += 1;
                    let op = Op::Shutdown { fd: conn.fd, write_only: false };
                    self.submit(Role::Shutdown, id.to_bits(), op);
                }
            }
        }
        self.settle(id);
    }

    /// Appends to a connection's output from outside its session, and sends it. False when the
    /// connection is gone or closing.
    pub fn push(&self, id: ConnId, write: impl FnOnce(&mut S::Session, &mut Output)) -> bool {
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(id) else { return false };
        if conn.closing > Closing::Flushing {
            return false;
        }
        let mut out = self.output(conn);
        write(&mut conn.session, &mut out);
        conn.pending = out;
        self.send(id, conn);
        let ends = conn.closing == Closing::Flushing || conn.eof;
        drop(conns);
        if ends {
            self.settle(id);
        }
        true
    }
}
