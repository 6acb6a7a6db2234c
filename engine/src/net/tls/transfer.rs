//! Replies that lie in files, on an encrypted connection: read, sealed, sent.
//!
//! What is sealed must pass through memory, as long as the kernel does not seal itself (kTLS). Invariants: one chunk of
//! [`SEAL_MAX_BYTES`] in memory at a time, and other tasks run after each; a read that would wait for the disk
//! does so in the ring. Next: `net::transfer`, which this is a part of.

use view::Output;

use super::secure::SEAL_MAX_BYTES;
use crate::buf::DirectBuf;
use crate::driver::{Errno, Fd};
use crate::fs::{Caching, File};
use crate::net::conn::{Closing, ConnId};
use crate::net::server::{Server, Service};
use crate::net::transfer::Part;

impl<S: Service> Server<S> {
    /// Sends `parts` for a caller that holds the connection's sending half.
    pub(in crate::net) async fn transfer_sealed(
        &self,
        id: ConnId,
        fd: Fd,
        parts: Vec<Part>,
    ) -> Result<(), Errno> {
        let mut records = Output::default();
        for part in parts {
            match part {
                Part::Bytes(out) => {
                    for piece in out.pieces(0).flat_map(|piece| piece.chunks(SEAL_MAX_BYTES)) {
                        records = self.seal_part(id, fd, piece, records).await?;
                    }
                }
                Part::File { file, offset, len } => {
                    records = self.seal_range(id, fd, (&file, offset, len), records).await?;
                }
            }
        }
        if records.is_empty() { Ok(()) } else { self.transfer_bytes(fd, records).await }
    }

    async fn seal_range(
        &self,
        id: ConnId,
        fd: Fd,
        (file, offset, len): (&File, u64, u64),
        records: Output,
    ) -> Result<Output, Errno> {
        let (mut records, mut at, end) = (records, offset, offset.saturating_add(len));
        let chunk = |at: u64| usize::try_from(end - at).unwrap_or(usize::MAX).min(SEAL_MAX_BYTES);
        let mut buf = DirectBuf::zeroed(chunk(at));
        while at < end {
            let wanted = chunk(at);
            let read = file.read_at(buf, wanted, at, Caching::Keep).await;
            let (back, read) = read.map_err(|error| error.errno().unwrap_or(Errno(libc::EIO)))?;
            if read < wanted {
                // The file was cut meanwhile.
                return Err(Errno(libc::EIO));
            }
            records = self.seal_part(id, fd, &back[..read], records).await?;
            self.count(|stats| stats.sent_copied_bytes += read as u64);
            (buf, at) = (back, at + read as u64);
        }
        Ok(records)
    }

    /// Seals `plain`, which fits one chunk, behind `records`; what makes a whole chunk is sent.
    async fn seal_part(
        &self,
        id: ConnId,
        fd: Fd,
        plain: &[u8],
        records: Output,
    ) -> Result<Output, Errno> {
        let mut records = records;
        {
            let mut conns = self.conns.borrow_mut();
            let conn = conns.get_mut(id).ok_or(Errno(libc::ECONNRESET))?;
            let tls = conn.tls.as_mut().filter(|_| conn.closing <= Closing::Flushing);
            let tls = tls.ok_or(Errno(libc::EPIPE))?;
            tls.seal(plain, records.inline_mut()).map_err(|_| Errno(libc::EPROTO))?;
        }
        if records.len() >= SEAL_MAX_BYTES {
            self.transfer_bytes(fd, records).await?;
            records = Output::default();
        }
        Ok(records)
    }
}
