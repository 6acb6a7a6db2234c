//! What is done to a partition beside appends and reads: sidecars are written, old segments go, the log's
//! start moves.
//!
//! Each is decided in one synchronous step and then performed on the files, so that appends go on
//! meanwhile. Invariants: one job at a time writes, in the order of the decisions; sidecars are written only after the log is durable up to where they speak of; files
//! go only after nothing refers to them any more, but for sends that hold them open.

use std::path::PathBuf;
use std::rc::Rc;

use engine::error::Error;
use engine::exec::sync::Turns;
use engine::fs::Dir;
use engine::shard::ShardCx;
use logic::log::producers::snapshot::Step;
use logic::log::retention::{self, Limits};

use super::segment::{INDEX, LOG, SNAPSHOT, TIME_INDEX, file_name};
use super::{CHECKPOINT_BYTES, Partition};
use crate::catalog::replace_file;
use crate::code::Code;

/// The file that holds the log's start when that is no segment's.
const START: &str = "log-start";
/// Producers written before others get their turn.
const SNAPSHOT_BUDGET: usize = 1000;
/// Where each file is written before it gets its name.
const TEMPORARY: &str = "writing";

/// Files to write, then files to remove.
#[derive(Debug, Default)]
pub(crate) struct FileJob {
    /// One at a time and in order: they use one temporary file, and what is older must not replace what is newer.
    turns: Rc<Turns>,
    dir: PathBuf,
    /// The snapshot of producers that is still to be made.
    snapshot: Option<String>,
    write: Vec<(String, Vec<u8>)>,
    remove: Vec<String>,
}

impl FileJob {
    /// Performs it.
    ///
    /// # Errors
    /// A file could not be written; what is there can still be read.
    pub(crate) async fn run(self, cx: &ShardCx) -> Result<(), Error> {
        let _turn = self.turns.turn().await;
        let dir = Dir::existing(cx, &self.dir)?;
        for (name, bytes) in &self.write {
            replace_file(cx, &dir, name, TEMPORARY, bytes).await?;
        }
        for name in &self.remove {
            // Sidecars need not be there.
            let _ = dir.remove(name);
        }
        if self.remove.is_empty() { Ok(()) } else { dir.sync().await }
    }
}

impl Partition {
    fn job(&self) -> FileJob {
        FileJob { turns: Rc::clone(&self.tidying), dir: self.dir.clone(), ..FileJob::default() }
    }

    /// The log's start, where it was moved into a segment.
    pub(super) async fn load_start(&mut self, cx: &ShardCx) -> Result<(), Error> {
        let Some(bytes) = super::open::read_file(cx, &self.dir.join(START)).await? else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(start) = text.trim().parse::<i64>() {
            self.start = self.start.max(start);
        }
        Ok(())
    }

    /// Whether enough was appended since sidecars were written.
    pub(super) const fn wants_checkpoint(&self) -> bool {
        self.since_checkpoint >= CHECKPOINT_BYTES && !self.snapshotting
    }

    /// The sidecars of the segments that have none yet and of the active one, and what is known of producers.
    /// They are true once everything up to the end is durable, and must not be written before: a sync of their
    /// own could succeed after one that failed, and had forgotten what it should have written.
    pub(super) fn checkpoint(&mut self) -> FileJob {
        let mut job = self.job();
        self.since_checkpoint = 0;
        let active = self.segments.len().saturating_sub(1);
        for (at, segment) in self.segments.iter_mut().enumerate() {
            if std::mem::replace(&mut segment.has_sidecars, at < active) {
                continue;
            }
            job.write.push((file_name(segment.base, INDEX), segment.offsets.encode(u32::MAX)));
            job.write.push((file_name(segment.base, TIME_INDEX), segment.times_to_write()));
        }
        // Also when none is known: it tells a start what it need not read.
        job.snapshot = Some(file_name(self.end, SNAPSHOT));
        self.producers.begin_snapshot();
        self.snapshotting = true;
        job
    }

    /// Makes a part of the snapshot that `job` is to write, of what was known when the job was decided on. Whether
    /// there is more to make.
    pub(crate) fn step_snapshot(&mut self, job: &mut FileJob) -> bool {
        let Some(name) = &job.snapshot else { return false };
        match self.producers.step_snapshot(SNAPSHOT_BUDGET) {
            Step::More => return true,
            Step::File(bytes) => {
                // Behind the indexes: what it says must not lie behind what they say.
                job.write.push((name.clone(), bytes));
                job.remove.extend(self.snapshots.drain(..).filter(|old| old != name));
                self.snapshots.push(name.clone());
            }
            // The log was cut.
            Step::None => {}
        }
        job.snapshot = None;
        self.snapshotting = false;
        false
    }

    /// Drops segments that the topic's limits no longer keep; `None` when there are none.
    pub(crate) fn expire(&mut self, now_ms: i64) -> Option<FileJob> {
        if self.compaction.swapping {
            return None;
        }
        let known: Vec<retention::Segment> = self
            .segments
            .iter()
            .map(|segment| retention::Segment {
                base_offset: segment.base,
                len_bytes: segment.len,
                max_timestamp_ms: segment.max_timestamp_ms,
            })
            .collect();
        let limits = Limits {
            retention_ms: self.config.retention_ms.filter(|_| self.config.delete),
            retention_bytes: self.config.retention_bytes.filter(|_| self.config.delete),
            start_offset: self.start,
        };
        let gone = retention::expired(&known, &limits, now_ms);
        // Only what is durable goes: the start never lies beyond what may be read.
        let gone = gone.min(self.segments.partition_point(|segment| segment.base < self.high.base));
        if gone == 0 {
            return None;
        }
        let mut job = self.job();
        for segment in self.segments.drain(..gone) {
            for suffix in [LOG, INDEX, TIME_INDEX] {
                job.remove.push(file_name(segment.base, suffix));
            }
        }
        if let Some(first) = self.segments.front() {
            self.start = self.start.max(first.base);
        }
        Some(job)
    }

    /// Moves the log's start to `offset`, or to the high watermark for -1; everything before is gone.
    ///
    /// # Errors
    /// There is no such offset.
    pub(crate) fn delete_before(&mut self, offset: i64) -> Result<FileJob, Code> {
        let offset = if offset == -1 { self.high.offset } else { offset };
        if offset < 0 || offset > self.high.offset {
            return Err(Code::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        let mut job = self.expire(-1).unwrap_or_else(|| self.job());
        job.write.push((START.to_owned(), self.start.to_string().into_bytes()));
        Ok(job)
    }

    /// Forgets producers that were silent for longer than `before_ms`, a few at a time.
    pub(crate) fn expire_producers(&mut self, before_ms: i64) {
        const BUDGET: usize = 256;
        self.producers.expire(before_ms, BUDGET);
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}
