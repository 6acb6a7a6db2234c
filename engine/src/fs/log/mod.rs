//! A durable append log with group commit.
//!
//! Appends are copied to a page-aligned buffer; one O_DIRECT write with RWF_DSYNC makes everything
//! appended up to then durable, while the next appends gather in the next buffer. Segments are
//! filled with zeros once and used again, so that write is one trip to the disk. Start with
//! [`Recovery`], which reads what is there and then turns into a [`Log`].
//!
//! Invariants: one write in flight, so a batch is begun only after all before it are durable; what
//! [`Log::commit`] resolved for survives a crash; after a failed write nothing is appended or
//! acknowledged any more, because what the disk holds is unknown until recovery has read it; memory
//! is the buffers made at start. A record lies in one segment and in one batch.
//!
//! Next: `format` for the bytes, `writer` for batches and commits, `recovery` for reading, `segment`
//! for the files.

mod format;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use crate::error::{Error, Kind};

pub use recovery::{Entry, Recovery};
pub use writer::{Commit, LogStats};

use format::{BLOCK_BYTES, RECORDS_START, record_bytes};

/// Sizes of a log. Segment and record sizes hold for segments begun from now on; older ones keep
/// theirs.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Length of a segment file; a multiple of 4 KiB below 4 GiB. All of a log's are equal.
    pub segment_bytes: u64,
    /// Segments the log may take; full when all are needed.
    pub segments_max: usize,
    /// Length of a batch buffer, and so of the longest write.
    pub batch_bytes: usize,
    /// Batch buffers: one being written, one gathering, more for bursts. At least two.
    pub batches: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, segments_max: 1024, batch_bytes: 256 << 10, batches: 4 }
    }
}

impl LogConfig {
    /// Longest record.
    #[must_use]
    pub const fn record_max_bytes(&self) -> usize {
        // A batch may begin with the rest of a block, or with the segment's header.
        self.batch_bytes - BLOCK_BYTES - record_bytes(0)
    }

    fn check(&self) -> Result<(), Error> {
        let block = BLOCK_BYTES as u64;
        let wrong = if self.batch_bytes < 4 * BLOCK_BYTES || self.batch_bytes > 64 << 20 {
            "batch_bytes is not between 16 KiB and 64 MiB"
        } else if !self.batch_bytes.is_multiple_of(BLOCK_BYTES) {
            "batch_bytes is no multiple of 4 KiB"
        } else if self.batches < 2 {
            "batches is below two"
        } else if self.segments_max < 2 {
            "segments_max is below two"
        } else if !self.segment_bytes.is_multiple_of(block)
            || self.segment_bytes >= 1 << 32
            || self.segment_bytes < u64::from(RECORDS_START) + self.batch_bytes as u64
        {
            "segment_bytes is no multiple of 4 KiB that holds a batch and is below 4 GiB"
        } else {
            return Ok(());
        };
        Err(Error::new("log options", Kind::Invalid, wrong))
    }
}

/// A place in the log: bytes since its beginning. Grows with every record, across segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Why a record was not appended.
#[derive(Clone, Debug)]
pub enum AppendError {
    /// No buffer is free, or the next segment is not ready: wait for [`Log::room`].
    Busy,
    /// The record is longer than this.
    TooLong {
        /// [`LogConfig::record_max_bytes`].
        max_bytes: usize,
    },
    /// No room for another segment. What was appended before can still be committed; free space,
    /// or [`Log::trim`], and try again.
    Full(Error),
    /// A write failed before; open the log again to find out what it holds.
    Failed(Error),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("append: the log is behind"),
            Self::TooLong { max_bytes } => write!(f, "append: longer than {max_bytes} bytes"),
            Self::Full(error) | Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AppendError {}

/// The log, ready for appends. Clones are handles of the same log; with the last one it closes, and
/// what was not committed may be lost.
#[derive(Clone)]
pub struct Log {
    handle: Rc<writer::Handle>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (end, durable) = (self.end(), self.durable());
        write!(f, "Log(to {}, durable to {})", end.0, durable.0)
    }
}

impl Log {
    /// Adds a record at the end and says where it begins. It is durable once a later
    /// [`Log::commit`] has resolved, or the log went on to the next batch by itself.
    ///
    /// # Errors
    /// See [`AppendError`]; the record is not in the log then.
    pub fn append(&self, data: &[u8]) -> Result<Position, AppendError> {
        self.handle.append(&[data])
    }

    /// The same for a record in several pieces.
    ///
    /// # Errors
    /// See [`AppendError`]; the record is not in the log then.
    pub fn append_parts(&self, parts: &[&[u8]]) -> Result<Position, AppendError> {
        self.handle.append(parts)
    }

    /// Appends as soon as there is room.
    ///
    /// # Errors
    /// See [`AppendError`]; never `Busy`.
    pub async fn append_when_ready(&self, data: &[u8]) -> Result<Position, AppendError> {
        loop {
            let room = self.handle.room();
            match self.append(data) {
                Err(AppendError::Busy) => room.await,
                appended => return appended,
            }
        }
    }

    /// Resolves when it is worth trying again after [`AppendError::Busy`]. Call it before the
    /// attempt: it tells of changes after this call.
    pub fn room(&self) -> impl Future<Output = ()> + '_ {
        self.handle.room()
    }

    /// Asks for a durable write of everything appended so far; resolves to its end when that is
    /// done. The write begins with the shard's next turn, and takes along what this one still
    /// appends. Dropping the future changes nothing but who waits.
    #[must_use = "it resolves when the appended records are durable"]
    pub fn commit(&self) -> Commit {
        self.handle.commit()
    }

    /// Where the next record will begin, unless it starts a new segment's batch.
    #[must_use]
    pub fn end(&self) -> Position {
        self.handle.end()
    }

    /// Everything before is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.handle.durable()
    }

    /// The first record that recovery would read, if the log were opened now.
    #[must_use]
    pub fn start(&self) -> Position {
        self.handle.start_position()
    }

    /// Records before `position` are needed no more: segments with nothing else in them will be
    /// used again. They may still show up in a recovery that does not start at `position`.
    pub fn trim(&self, position: Position) {
        self.handle.trim(position);
    }

    /// Counts since the log was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.handle.stats()
    }

    /// Commits and closes; other clones refuse appends from now on.
    ///
    /// # Errors
    /// The last records could not be made durable.
    pub async fn close(self) -> Result<(), Error> {
        let committed = self.commit().await;
        self.handle.close();
        committed.map(|_| ())
    }
}
