//! What a mover of bytes drives: a state machine of many connections that does no I/O and reads no clock.
//!
//! Why a trait: the ring moves requests and replies ([`super::generator`]) and messages to many subscribers
//! ([`crate::fanout`]) alike. Invariants: after [`Driven::next`] named a connection it names it again only after
//! [`Driven::on_sent`]; connections are numbered from zero in the order of [`Driven::addresses`].

use std::net::SocketAddr;

use view::Output;

use super::generator::Generator;

/// A state machine of connections.
pub trait Driven {
    /// Where each connection goes.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// What ended the run early, if anything did.
    fn broken(&self) -> Option<&str>;

    /// It is `now_ns`: when it wants to be told again, if by the clock alone.
    fn arrive(&mut self, now_ns: u64) -> Option<u64>;

    /// Writes what a connection sends next to `out`, which is empty: which connection.
    fn next(&mut self, out: &mut Output) -> Option<usize>;

    /// What `conn` was to send has left.
    fn on_sent(&mut self, conn: usize);

    /// Bytes came on `conn`.
    fn on_bytes(&mut self, conn: usize, bytes: &[u8], now_ns: u64);

    /// `conn` cannot be used any more.
    fn break_off(&mut self, conn: usize, why: String);
}

impl Driven for Generator {
    fn addresses(&self) -> Vec<SocketAddr> {
        Self::addresses(self).collect()
    }

    fn broken(&self) -> Option<&str> {
        Self::broken(self)
    }

    fn arrive(&mut self, now_ns: u64) -> Option<u64> {
        Self::arrive(self, now_ns)
    }

    #[inline]
    fn next(&mut self, out: &mut Output) -> Option<usize> {
        let batch = self.next_batch()?;
        self.fill(batch, out);
        Some(batch.conn)
    }

    fn on_sent(&mut self, conn: usize) {
        Self::on_sent(self, conn);
    }

    #[inline]
    fn on_bytes(&mut self, conn: usize, bytes: &[u8], now_ns: u64) {
        Self::on_bytes(self, conn, bytes, now_ns);
    }

    fn break_off(&mut self, conn: usize, why: String) {
        Self::break_off(self, conn, why);
    }
}
