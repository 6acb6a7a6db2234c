//! What was written and is not synced: as it was before, so that it can be undone.
//!
//! Writes go to the files below at once, so that who reads finds them, and so that nothing is lost when this process is killed. Before
//! each, what it overwrites is read. Invariants: a sync that succeeds forgets what was before it; at most [`BYTES_MAX`]
//! are remembered, and the file with the most is then as if it were synced, as a kernel writes back what it has no room for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::host::{Done, errno};

/// Remembered of all files.
const BYTES_MAX: usize = 256 << 20;

/// What a file was before its first write that is not synced.
#[derive(Default)]
pub(super) struct Log {
    len: u64,
    pieces: Vec<(u64, Vec<u8>)>,
    bytes: usize,
    writes: u64,
    writers: BTreeSet<u32>,
}

/// All of them, by the number of the file.
#[derive(Default)]
pub(super) struct Unsynced(Mutex<BTreeMap<u64, Log>>);

/// Reads what is there of a range.
fn read(file: &File, at: u64, len: usize) -> Done<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let more = file
            .read_at(bytes.get_mut(done..).unwrap_or_default(), at + done as u64)
            .map_err(|error| errno(&error))?;
        if more == 0 {
            break;
        }
        done += more;
    }
    bytes.truncate(done);
    Ok(bytes)
}

impl Unsynced {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<u64, Log>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a range that is about to be written, or cut off; `file` can be read.
    pub(super) fn will_write(
        &self,
        node: u64,
        file: &File,
        at: u64,
        len: u64,
        writer: u32,
    ) -> Done<()> {
        let now = file.metadata().map_err(|error| errno(&error))?.len();
        let mut logs = self.logs();
        let log = logs.entry(node).or_insert_with(|| Log { len: now, ..Log::default() });
        log.writes += 1;
        log.writers.insert(writer);
        let end = at.saturating_add(len).min(log.len).min(now);
        let is_known = log
            .pieces
            .iter()
            .any(|(from, bytes)| *from <= at && end <= from.saturating_add(bytes.len() as u64));
        if at < end && !is_known {
            let piece =
                read(file, at, usize::try_from(end - at).unwrap_or(usize::MAX).min(BYTES_MAX))?;
            log.bytes += piece.len();
            log.pieces.push((at, piece));
        }
        if logs.values().map(|log| log.bytes).sum::<usize>() > BYTES_MAX {
            let most = logs.iter().max_by_key(|(_, log)| log.bytes).map(|(node, _)| *node);
            most.and_then(|node| logs.remove(&node));
        }
        Ok(())
    }

    /// Takes what is remembered of a file: it is about to be synced.
    pub(super) fn take(&self, node: u64) -> Option<Log> {
        self.logs().remove(&node)
    }

    /// It was not.
    pub(super) fn put_back(&self, node: u64, mut log: Log) {
        let mut logs = self.logs();
        if let Some(newer) = logs.remove(&node) {
            log.pieces.extend(newer.pieces);
            log.bytes += newer.bytes;
            log.writes += newer.writes;
            log.writers.extend(newer.writers);
        }
        logs.insert(node, log);
    }

    /// The files that a process wrote to, or all.
    pub(super) fn files(&self, writer: Option<u32>) -> Vec<u64> {
        let logs = self.logs();
        let theirs = logs
            .iter()
            .filter(|(_, log)| writer.is_none_or(|writer| log.writers.contains(&writer)));
        theirs.map(|(node, _)| *node).collect()
    }

    /// Makes a file what it was, by a name of it; how many writes are lost.
    pub(super) fn lose(&self, node: u64, name: &Path) -> Done<u64> {
        let Some(log) = self.take(node) else { return Ok(0) };
        let undo = || {
            let file = File::options().write(true).open(name)?;
            for (at, bytes) in log.pieces.iter().rev() {
                file.write_all_at(bytes, *at)?;
            }
            file.set_len(log.len)
        };
        undo().map_err(|error| errno(&error))?;
        Ok(log.writes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_synced_is_undone() {
        let path = std::env::temp_dir().join(format!("chaos-unsynced-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").expect("room");
        let file = File::options().read(true).write(true).open(&path).expect("it is there");
        let log = Unsynced::default();
        let write = |at: u64, bytes: &[u8]| {
            log.will_write(7, &file, at, bytes.len() as u64, 1).expect("it is read");
            file.write_all_at(bytes, at).expect("room");
        };
        write(2, b"abc");
        // It is synced.
        assert!(log.take(7).is_some());
        write(4, b"XY");
        write(3, b"ZZZZ");
        write(8, b"longer than it was");
        log.will_write(7, &file, 1, u64::MAX, 1).expect("it is read");
        file.set_len(1).expect("shorter");
        assert_eq!(log.files(Some(1)), [7]);
        assert!(log.files(Some(2)).is_empty());
        assert_eq!(log.lose(7, &path), Ok(4));
        assert_eq!(std::fs::read(&path).expect("it is there"), b"01abc56789");
        assert_eq!(log.lose(7, &path), Ok(0));
        std::fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn a_sync_that_fails_forgets_nothing() {
        let path = std::env::temp_dir().join(format!("chaos-unsynced-f-{}", std::process::id()));
        std::fs::write(&path, b"aaaa").expect("room");
        let file = File::options().read(true).write(true).open(&path).expect("it is there");
        let log = Unsynced::default();
        log.will_write(7, &file, 0, 4, 1).expect("it is read");
        file.write_all_at(b"bbbb", 0).expect("room");
        let taken = log.take(7).expect("it was written");
        log.will_write(7, &file, 0, 4, 2).expect("it is read");
        file.write_all_at(b"cccc", 0).expect("room");
        log.put_back(7, taken);
        assert_eq!(log.lose(7, &path), Ok(2));
        assert_eq!(std::fs::read(&path).expect("it is there"), b"aaaa");
        std::fs::remove_file(&path).expect("it is there");
    }
}
