//! Deletion of all keys of a prefix or pattern, in the background and in bounded steps.
//!
//! A job goes through one database of one shard in the scan's order: every key that is there from the command to the end of
//! the job is met once. Invariants: at most [`JOBS_MAX`] jobs wait, one is worked on; a step looks at about as many
//! keys as it is told; nothing goes on while keys are lent to other shards, and a locked key is tried again in the next step.
//! Next: `command/erase.rs` starts jobs, `Shard::tick` goes on with them.

use std::collections::VecDeque;

use logic::glob;
use view::Instant;

use crate::events::UNNAMED;
use crate::shard::Shard;

/// Jobs of a shard at a time.
pub(crate) const JOBS_MAX: usize = 64;

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that begin with this.
    Prefix(Box<[u8]>),
    /// Those that match this glob pattern.
    Pattern(Box<[u8]>),
}

impl Which {
    fn includes(&self, key: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Pattern(pattern) => **pattern == *b"*" || glob::matches(pattern, key, false),
        }
    }
}

/// What a shard is asked to delete.
#[derive(Clone, Debug)]
pub struct Erase {
    /// The job's number.
    pub id: u64,
    /// The database.
    pub db: u16,
    /// The keys.
    pub which: Which,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The job's number.
    pub id: u64,
    /// Keys looked at.
    pub scanned: u64,
    /// Keys deleted.
    pub deleted: u64,
}

#[derive(Debug)]
struct Job {
    erase: Erase,
    cursor: u64,
    /// All was looked at; what was locked is left.
    looked: bool,
    locked: Vec<Box<[u8]>>,
    progress: Progress,
}

/// The jobs of a shard, and what all of them came to so far.
#[derive(Debug, Default)]
pub(crate) struct Erasing {
    jobs: VecDeque<Job>,
    pub(crate) done: u64,
    pub(crate) scanned: u64,
    pub(crate) deleted: u64,
}

impl Erasing {
    /// Takes a job; false when there are too many.
    pub(crate) fn start(&mut self, erase: Erase) -> bool {
        if self.jobs.len() >= JOBS_MAX {
            return false;
        }
        let progress = Progress { id: erase.id, ..Progress::default() };
        let job = Job { erase, cursor: 0, looked: false, locked: Vec::new(), progress };
        self.jobs.push_back(job);
        true
    }

    /// Jobs that are not done.
    pub(crate) fn active(&self) -> Vec<Progress> {
        self.jobs.iter().map(|job| job.progress).collect()
    }
}

impl Shard {
    /// Goes on with the first job, looking at about `budget` keys; whether there is more to do.
    pub(crate) fn erase_step(&mut self, budget: usize, now: Instant) -> bool {
        let Some(mut job) = self.erasing.jobs.pop_front() else { return false };
        if self.lent > 0 {
            self.erasing.jobs.push_front(job);
            return true;
        }
        let (now_ms, budget) = (now.unix_ms(), budget.max(1));
        let before = job.progress;
        let mut found = std::mem::take(&mut job.locked);
        // While many are locked, no more are looked for.
        if !job.looked && found.len() < budget {
            let Erase { db, which, .. } = &job.erase;
            let scanned = &mut job.progress.scanned;
            job.cursor = self.store.scan(*db, job.cursor, budget, now_ms, |key, _| {
                *scanned += 1;
                if which.includes(key) {
                    found.push(key.into());
                }
            });
            job.looked = job.cursor == 0;
        }
        let db = job.erase.db;
        for key in found {
            let hash = self.store.hash(&key);
            if !self.locks.is_empty() && self.locks.blocks(0, db, hash.get()) {
                job.locked.push(key);
            } else if self.store.remove(db, hash, &key, now_ms) {
                job.progress.deleted += 1;
                if self.watching {
                    self.happened(db, &key, UNNAMED, "", 0);
                }
                if self.journal.is_some() {
                    self.log_removed(&[(db, key)], now);
                }
            }
        }
        self.erasing.scanned += job.progress.scanned - before.scanned;
        self.erasing.deleted += job.progress.deleted - before.deleted;
        if job.looked && job.locked.is_empty() {
            self.erasing.done += 1;
        } else {
            self.erasing.jobs.push_front(job);
        }
        !self.erasing.jobs.is_empty()
    }
}
