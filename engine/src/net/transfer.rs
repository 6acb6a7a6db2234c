//! Replies whose bytes lie in files: sent in order between other replies of the connection, without
//! passing through user memory.
//!
//! A transfer belongs to the work a session awaits ([`Service::perform`]): until it ends the session
//! gets no input, so nothing can come between its parts but what [`Server::push`] leaves, which waits.
//! Invariants: a transfer holds the sending half from its first part to its last; the connection's
//! descriptor is not closed meanwhile. Next: `fs::send` for how a range goes out.

use std::rc::Rc;

use view::Output;

use super::conn::{Closing, ConnId};
use super::server::{Server, Service};
use crate::driver::{Errno, Fd, Op, Payload};
use crate::fs::{self, File};

/// One part of a reply.
#[derive(Debug)]
pub enum Part {
    /// Bytes in memory.
    Bytes(Output),
    /// A range of a file, which must be there: a file that ends before it ends the connection.
    File {
        /// The file; open until the part is sent.
        file: Rc<File>,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

/// A range of a file that had to be read from the disk to be sent. It stays in the page cache until
/// somebody drops it, which is worth while only once the peer has it all.
#[derive(Debug)]
pub struct Cold {
    file: Rc<File>,
    offset: u64,
    len: u64,
}

impl Cold {
    /// A range that was read from the disk before it is sent.
    #[must_use]
    pub const fn new(file: Rc<File>, offset: u64, len: u64) -> Self {
        Self { file, offset, len }
    }

    /// Takes what lies before the end of a range that is sent, if that range is in it.
    pub fn take_sent(&mut self, file: &Rc<File>, offset: u64, len: u64) -> Option<Self> {
        let end = self.offset + self.len;
        let sent_to = offset.saturating_add(len).min(end);
        if !Rc::ptr_eq(&self.file, file) || sent_to <= self.offset || offset >= end {
            return None;
        }
        let sent = Self::new(Rc::clone(file), self.offset, sent_to - self.offset);
        (self.offset, self.len) = (sent_to, end - sent_to);
        Some(sent)
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops it from the page cache: one pass over old data is no reason for newer data to leave.
    pub fn drop_cached(&self) {
        self.file.drop_cached(self.offset, self.len);
    }
}

/// Cold ranges of a reply that are told; what others bring in stays.
const COLD_MAX: usize = 64;

/// Bytes per call when a range is sent.
const CHUNK_BYTES: usize = 256 << 10;

/// The right to send on a connection.
struct Hold<'a, S: Service> {
    server: &'a Server<S>,
    id: ConnId,
    fd: Fd,
    sealed: bool,
}

impl<S: Service> Drop for Hold<'_, S> {
    fn drop(&mut self) {
        let server = self.server;
        server.driver_cork(self.fd, false);
        if let Some(conn) = server.conns.borrow_mut().get_mut(self.id) {
            conn.sending = false;
            conn.ops_in_flight -= 1;
            server.send(self.id, conn);
        }
        server.settle(self.id);
    }
}

impl<S: Service> Server<S> {
    /// Sends `parts` in order, behind what is being sent; which of them were on the disk only, which is not known
    /// of those that were sealed. To be called from [`Service::perform`] only, while the connection awaits.
    ///
    /// # Errors
    /// The peer is gone, or a file could not be read or was shorter than its part: then the
    /// connection is closed, since what follows would be taken for the missing bytes.
    pub async fn transfer(&self, id: ConnId, parts: Vec<Part>) -> Result<Vec<Cold>, Errno> {
        let hold = self.hold(id).await?;
        self.driver_cork(hold.fd, true);
        if hold.sealed {
            let sent = self.transfer_sealed(id, hold.fd, parts).await;
            drop(hold);
            return sent.map(|()| Vec::new()).inspect_err(|_| self.close(id));
        }
        let mut cold = Vec::new();
        for part in parts {
            let sent = match part {
                Part::Bytes(out) => self.transfer_bytes(hold.fd, out).await,
                Part::File { file, offset, len } => {
                    let sent = self.transfer_range(hold.fd, &file, offset, len).await;
                    sent.map(|was_cold| {
                        if was_cold && cold.len() < COLD_MAX {
                            cold.push(Cold { file, offset, len });
                        }
                    })
                }
            };
            if let Err(errno) = sent {
                drop(hold);
                self.close(id);
                return Err(errno);
            }
        }
        Ok(cold)
    }

    fn driver_cork(&self, fd: Fd, on: bool) {
        self.cx.driver().cork(fd, on);
    }

    /// Waits until nothing of the connection is being sent.
    async fn hold(&self, id: ConnId) -> Result<Hold<'_, S>, Errno> {
        loop {
            let freed = self.sent.notified();
            {
                let mut conns = self.conns.borrow_mut();
                let conn = conns.get_mut(id).ok_or(Errno(libc::ECONNRESET))?;
                if conn.closing > Closing::Flushing {
                    return Err(Errno(libc::EPIPE));
                }
                if !conn.sending {
                    self.send(id, conn);
                }
                if !conn.sending {
                    conn.sending = true;
                    conn.ops_in_flight += 1;
                    let sealed = conn.tls.is_some();
                    return Ok(Hold { server: self, id, fd: conn.fd, sealed });
                }
            }
            // A reply that goes out whole wakes nobody.
            self.awaits_send.set(true);
            self.awaits_sent.set(true);
            freed.await;
        }
    }

    pub(super) async fn transfer_bytes(&self, fd: Fd, out: Output) -> Result<(), Errno> {
        let (mut out, mut skip) = (out, 0);
        while skip < out.len() {
            let completion = self.cx.perform(Op::Send { fd, out, skip, zero_copy: false }).await;
            let sent = completion.result?;
            skip += sent as usize;
            self.count(|stats| stats.sent_bytes += u64::from(sent));
            let Payload::Output(rest) = completion.payload else { break };
            out = rest;
        }
        Ok(())
    }

    async fn transfer_range(
        &self,
        fd: Fd,
        file: &File,
        offset: u64,
        len: u64,
    ) -> Result<bool, Errno> {
        let end = offset.saturating_add(len);
        let sent = fs::send_chunks(&self.cx, fd, file.fd(), offset, end, CHUNK_BYTES).await?;
        self.count(|stats| {
            stats.sent_bytes += sent.bytes;
            stats.sent_file_bytes += sent.bytes;
        });
        if sent.bytes < len { Err(Errno(libc::EIO)) } else { Ok(sent.was_cold) }
    }
}
