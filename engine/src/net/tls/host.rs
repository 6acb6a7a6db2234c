//! Encrypted connections in the server: what is done in place of the plain receive and send.
//!
//! Plaintext goes to the connection's backlog and from there to the session, as that of a plain connection whose frame did
//! not arrive whole. A peer that says that it will send no more is answered first, as one that shuts its side. A connection that
//! ends without saying so may have been cut by anybody: what was whole is answered, since each record is
//! proved on its own, and a frame that was not is dropped. Invariants: at most [`HANDSHAKES_PER_TURN`] steps of
//! handshakes in a turn; a handshake ends in time or with its connection. Next: `secure`.

use view::Output;

use super::{Refusal, Secure, Stage, Tls};
use crate::driver::Payload;
use crate::net::conn::{Closing, Conn, ConnId};
use crate::net::receive::{BIG_FRAME_MIN_BYTES, reserve_for};
use crate::net::server::{Role, Server, Service};

/// Steps of handshakes in a turn: a signature by RSA is about a millisecond.
const HANDSHAKES_PER_TURN: u32 = 4;

impl<S: Service> Server<S> {
    /// Puts TLS before a new connection's session.
    pub(in crate::net) fn secure(&self, id: ConnId, tls: &dyn Tls) {
        match tls.accept() {
            Some(channel) => {
                if let Some(conn) = self.conns.borrow_mut().get_mut(id) {
                    conn.tls = Some(Box::new(Secure::new(channel)));
                }
                self.set_timer(Role::Handshake, id.to_bits(), self.config.handshake_ns);
            }
            None => self.close(id),
        }
    }

    /// The time for a handshake is over.
    pub(in crate::net) fn end_handshake(&self, id: ConnId) {
        let late = self.conns.borrow_mut().get_mut(id).is_some_and(|conn| {
            conn.tls.as_ref().is_some_and(|tls| tls.stage() == Stage::Handshake)
        });
        if late {
            self.count(|stats| stats.tls_errors += 1);
            self.close(id);
        }
    }

    /// Takes what was received.
    pub(in crate::net) fn on_sealed(
        &self,
        id: ConnId,
        conn: &mut Conn<S::Session>,
        payload: Payload,
        runnable: bool,
    ) {
        let Some(tls) = &mut conn.tls else { return };
        if tls.has_failed() || tls.stage() == Stage::PeerClosed {
            return;
        }
        let bytes: &[u8] = if let Payload::Lease(lease) = &payload { lease } else { &[] };
        if tls.stage() == Stage::Handshake && !self.begins_step(id, tls) {
            return tls.keep(bytes);
        }
        self.open_records(id, conn, bytes);
        drop(payload);
        if runnable && (conn.backlog.len() >= conn.want || conn.eof) {
            self.feed_backlog(id, conn);
        }
        self.send(id, conn);
    }

    /// Whether a step of a handshake may be taken now; else it waits for its turn.
    fn begins_step(&self, id: ConnId, tls: &mut Secure) -> bool {
        let mut waiting = self.handshakes.borrow_mut();
        let now = waiting.is_empty() && self.turn_handshakes.get() < HANDSHAKES_PER_TURN;
        if now {
            self.turn_handshakes.set(self.turn_handshakes.get() + 1);
        } else if !std::mem::replace(&mut tls.waits, true) {
            waiting.push_back(id);
        }
        now
    }

    /// Takes steps of handshakes that waited. Returns whether some still do.
    pub(in crate::net) fn take_handshakes(&self) -> bool {
        while self.turn_handshakes.get() < HANDSHAKES_PER_TURN {
            let Some(id) = self.handshakes.borrow_mut().pop_front() else { return false };
            {
                let mut conns = self.conns.borrow_mut();
                let Some(conn) = conns.get_mut(id) else { continue };
                let Some(tls) = &mut conn.tls else { continue };
                tls.waits = false;
                self.turn_handshakes.set(self.turn_handshakes.get() + 1);
                self.open_records(id, conn, &[]);
            }
            // What came with the last step is for the session.
            self.resume(id);
        }
        !self.handshakes.borrow().is_empty()
    }

    fn open_records(&self, id: ConnId, conn: &mut Conn<S::Session>, bytes: &[u8]) {
        let Some(tls) = &mut conn.tls else { return };
        let was = tls.stage();
        if conn.want >= BIG_FRAME_MIN_BYTES {
            reserve_for(&mut conn.backlog, bytes.len(), conn.want);
        }
        let before = conn.backlog.len();
        let opened = tls.open(bytes, &mut conn.backlog);
        let stage = tls.stage();
        let copied = conn.backlog.len() - before;
        if conn.backlog.is_empty() {
            conn.backlog = bytes::BytesMut::new();
        }
        self.count(|stats| {
            stats.copied_bytes += copied as u64;
            stats.handshakes += u64::from(was == Stage::Handshake && stage != Stage::Handshake);
        });
        if let Err(refusal) = opened {
            return self.fail(id, conn, &refusal);
        }
        if stage == Stage::PeerClosed && !conn.eof {
            conn.eof = true;
            self.cancel_multi(id, conn);
        } else if conn.eof && stage == Stage::Handshake {
            // Somebody who looks whether we listen; no line in the log for that.
            self.give_up(id, conn);
        }
    }

    /// Ends a connection whose records are wrong: the peer is told, and answers that wait are dropped.
    fn fail(&self, id: ConnId, conn: &mut Conn<S::Session>, refusal: &Refusal) {
        let (_, peer) = self.cx.driver().names(conn.fd);
        let pairs: [(&str, &dyn std::fmt::Display); 2] = [("peer", &peer), ("why", &refusal.0)];
        self.cx.log().info("tls", self.cx.now(), "connection ended", &pairs);
        self.give_up(id, conn);
    }

    fn give_up(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        self.count(|stats| stats.tls_errors += 1);
        if let Some(tls) = &mut conn.tls {
            tls.fail();
        }
        conn.pending = Output::default();
        conn.backlog = bytes::BytesMut::new();
        self.begin_flushing(id, conn);
    }

    /// As `send`, of which it is a part: no send is in flight.
    pub(in crate::net) fn send_sealed(&self, id: ConnId, conn: &mut Conn<S::Session>) {
        let Some(tls) = &mut conn.tls else { return };
        let buffer = self.spare.borrow_mut().pop();
        let mut records = buffer.map_or_else(Output::default, Output::with_buffer);
        match tls.next(&mut conn.pending, records.inline_mut()) {
            Ok(Some(reply)) => self.keep(reply),
            Ok(None) => {}
            Err(refusal) => self.fail(id, conn, &refusal),
        }
        if records.is_empty() {
            return self.keep(records);
        }
        // Only the next request tells that this one's reply has gone, as long as nobody waits for it.
        let now = conn.closing == Closing::Open && conn.has_sent_all();
        self.start_send(id, conn, records, 0, now);
        self.await_end(conn);
    }

    /// Whether the end of our side is still to be said: then that is being sent.
    pub(in crate::net) fn says_goodbye(&self, id: ConnId, conn: &mut Conn<S::Session>) -> bool {
        let mut records = Output::default();
        let says = conn.tls.as_mut().is_some_and(|tls| tls.goodbye(records.inline_mut()));
        if says {
            self.start_send(id, conn, records, 0, false);
            self.await_end(conn);
        }
        says
    }
}
