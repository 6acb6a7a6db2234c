//! One file of a partition's log, its indexes, and the names and sidecars it has on the disk.
//!
//! A segment's file is record batches one behind the other, byte for byte as in Kafka's. Invariants: what a
//! sidecar says is only used when it fits the file; a file that is read stays open for as long as somebody
//! sends from it. Next: `open` for how a segment is found again.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::driver::{Errno, OpenOptions};
use engine::error::Error;
use engine::fs::File;
use engine::shard::ShardCx;
use logic::log::{OffsetIndex, TimeIndex, offset_index, time_index};
use wire::kafka::batch::Batch;

use super::ranges::Ranges;
use super::verify::Damage;

/// Suffix of the data.
pub(crate) const LOG: &str = "log";
/// Suffix of the offset index.
pub(crate) const INDEX: &str = "index";
/// Suffix of the time index.
pub(crate) const TIME_INDEX: &str = "timeindex";
/// Suffix of what is known of producers at an offset.
pub(crate) const SNAPSHOT: &str = "snapshot";

/// Positions in a segment fit an index entry.
pub(crate) const SEGMENT_MAX_BYTES: u64 = i32::MAX as u64;

/// The file of an offset.
pub(crate) fn file_name(offset: i64, suffix: &str) -> String {
    format!("{offset:020}.{suffix}")
}

/// The offset that a file's name begins with, if it has this suffix.
pub(crate) fn offset_of(name: &str, suffix: &str) -> Option<i64> {
    let digits = name.strip_suffix(suffix)?.strip_suffix('.')?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// A segment of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Offset of its first record, or of the first that will be.
    pub(crate) base: i64,
    /// Its bytes.
    pub(crate) len: u64,
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    /// The largest timestamp in it; -1 for none.
    pub(crate) max_timestamp_ms: i64,
    /// The newest timestamp of its first batch; below 0 for none, or not read yet.
    pub(crate) first_timestamp_ms: i64,
    /// When it was made or found, by the broker's clock.
    pub(crate) created_ms: i64,
    /// By how much its span is shorter than the topic says.
    pub(crate) jitter_ms: i64,
    /// What is not served of it.
    pub(crate) damage: Vec<Damage>,
    /// What of it is as it was written, but for the damage.
    pub(super) verified: Ranges,
    /// Its sidecars say all of it.
    pub(crate) has_sidecars: bool,
    path: PathBuf,
    /// Open, and whether for writing too.
    file: Option<(Rc<File>, bool)>,
}

impl Segment {
    /// Instead of [`Segment::first_timestamp_ms`] when that was not read yet.
    pub(crate) const UNREAD: i64 = i64::MIN;

    /// An empty segment, whose file is made.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn create(cx: &ShardCx, dir: &Path, base: i64) -> Result<Self, Error> {
        let path = dir.join(file_name(base, LOG));
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(cx, &path, &options)?;
        // Left over from a roll that was not finished.
        file.truncate(0)?;
        file.no_read_ahead();
        let created_ms = super::unix_ms(cx.now());
        Ok(Self { file: Some((Rc::new(file), true)), created_ms, ..Self::known(path, base, 0) })
    }

    /// A segment whose file is there.
    pub(crate) fn known(path: PathBuf, base: i64, len: u64) -> Self {
        Self {
            base,
            len,
            offsets: OffsetIndex::default(),
            times: TimeIndex::default(),
            max_timestamp_ms: -1,
            first_timestamp_ms: Self::UNREAD,
            created_ms: -1,
            jitter_ms: 0,
            damage: Vec::new(),
            verified: Ranges::all(),
            has_sidecars: false,
            path,
            file: None,
        }
    }

    /// Its file, open for reading and, where it is the last one, for writing.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn file(&mut self, cx: &ShardCx, write: bool) -> Result<Rc<File>, Error> {
        if let Some((file, writable)) = &self.file
            && (*writable || !write)
        {
            return Ok(Rc::clone(file));
        }
        let options = OpenOptions { write, ..OpenOptions::default() };
        let file = Rc::new(File::open(cx, &self.path, &options)?);
        // A look at one header would bring in megabytes behind it, all at once.
        file.no_read_ahead();
        self.file = Some((Rc::clone(&file), write));
        Ok(file)
    }

    /// Closes the file once nobody uses it; it is opened again when it is wanted.
    pub(crate) fn let_go(&mut self) {
        self.file = None;
    }

    /// The time index with an entry for what came after its last one.
    pub(crate) fn times_to_write(&self) -> Vec<u8> {
        let mut times = self.times.clone();
        if self.max_timestamp_ms >= 0 {
            let offset = times.last_offset().map_or(0, |last| last.saturating_add(1));
            times.append(time_index::Entry { timestamp_ms: self.max_timestamp_ms, offset });
        }
        times.encode(u32::MAX)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its file was renamed.
    pub(crate) fn set_path(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Appends a batch whose first bytes are `place`, the others its own. A write that fails or stays
    /// short leaves the segment as it was.
    ///
    /// # Errors
    /// As pwritev(2); `true` when the file could not be cut back, so that its end is unknown.
    pub(crate) fn append(
        &mut self,
        cx: &ShardCx,
        batch: &Batch<'_>,
        place: &[u8],
    ) -> Result<(), (Errno, bool)> {
        let file = self.file(cx, true).map_err(|error| (errno_of(&error), false))?;
        let rest = batch.bytes().get(place.len()..).unwrap_or_default();
        let total = place.len() + rest.len();
        let written = write_parts(cx, &file, place, rest, self.len);
        let errno = match written {
            Ok(written) if written == total => {
                self.len += total as u64;
                return Ok(());
            }
            Ok(_) => Errno(libc_enospc()),
            Err(errno) => errno,
        };
        let stuck = file.truncate(self.len).is_err();
        Err((errno, stuck))
    }

    /// Notes a batch at `position` in the indexes.
    pub(crate) fn note(
        &mut self,
        batch: &Batch<'_>,
        first: i64,
        max_timestamp_ms: i64,
        position: u64,
        interval_bytes: u32,
    ) {
        let offset = u32::try_from(first - self.base).unwrap_or(u32::MAX);
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        let len = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        if position == 0 {
            self.first_timestamp_ms = max_timestamp_ms;
        }
        let entry = offset_index::Entry { offset, position };
        if self.offsets.append(entry, len, interval_bytes) && self.max_timestamp_ms >= 0 {
            self.times.append(time_index::Entry { timestamp_ms: self.max_timestamp_ms, offset });
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(max_timestamp_ms);
    }
}

const fn libc_enospc() -> i32 {
    28
}

fn errno_of(error: &Error) -> Errno {
    error.errno().unwrap_or(Errno(5))
}

/// Writes both parts; a short write goes on until it makes no progress.
fn write_parts(
    cx: &ShardCx,
    file: &File,
    place: &[u8],
    rest: &[u8],
    offset: u64,
) -> Result<usize, Errno> {
    let total = place.len() + rest.len();
    let mut done = 0;
    while done < total {
        let head = place.get(done..).unwrap_or_default();
        let tail = rest.get(done.saturating_sub(place.len())..).unwrap_or_default();
        let parts = [IoSlice::new(head), IoSlice::new(tail)];
        match cx.driver().write_now(file.fd(), &parts, offset + done as u64) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(Errno(4)) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_twenty_digits() {
        assert_eq!(file_name(42, LOG), "00000000000000000042.log");
        assert_eq!(offset_of("00000000000000000042.log", LOG), Some(42));
        assert_eq!(offset_of("00000000000000000042.index", LOG), None);
        assert_eq!(offset_of("42.log", LOG), None);
        assert_eq!(offset_of("0000000000000000004x.log", LOG), None);
        assert_eq!(offset_of("99999999999999999999.log", LOG), None, "above 2^63");
    }
}
