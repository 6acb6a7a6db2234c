//! Keeps a fault from its start to its end: by its time, a signal, its own account, or a probe that says stop.
//!
//! Invariants: the fault is in the registry before it is in force, and out of it after. Next: `registry`, `fault`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::abi::Counts;
use crate::error::{During as _, Result};
use crate::fault::{self, Active};
use crate::registry::Journal;
use crate::spec::Spec;
use crate::time::{monotonic_ns, ns};
use crate::undo::Undo;
use crate::{netns, pins};

/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(10);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);

/// Why a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its time was over.
    Ttl,
    /// It had no more to do.
    Done,
    /// Somebody stopped it.
    Stopped,
}

/// What is told of a fault while it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Until its time is over.
    pub left: Duration,
    /// So far.
    pub counts: Counts,
}

/// A fault in force, its file, and the signals that end it.
pub struct Kept {
    active: Box<dyn Active>,
    journal: Journal,
    stop: Arc<AtomicBool>,
}

impl Kept {
    /// Starts a fault, in the network namespace of that name if there is one, which this thread enters.
    ///
    /// # Errors
    /// As [`fault::start`]; it cannot be noted, or pinned.
    pub fn start(spec: &Spec, netns: Option<&str>, detached: bool, watches: bool) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in
            [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .during(|| "catch signals".to_owned())?;
        }
        if let Some(name) = netns {
            netns::enter(name)?;
        }
        let mut journal = Journal::open(spec, netns, detached, watches)?;
        let started = Self::begin(spec, detached, &mut journal);
        match started {
            Ok(active) => Ok(Self { active, journal, stop }),
            Err(error) => {
                journal.close()?;
                Err(error)
            }
        }
    }

    fn begin(spec: &Spec, detached: bool, journal: &mut Journal) -> Result<Box<dyn Active>> {
        let mut active = fault::start(spec, journal)?;
        if detached {
            let dir = pins::programs_of(&journal.entry().id);
            journal.will(Undo::Unpin { dir: dir.clone() })?;
            pins::make(&dir)?;
            active.pin(&dir)?;
        }
        journal.counted_by(active.counters())?;
        Ok(active)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.journal.entry().id
    }

    /// So far.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn counts(&self) -> Result<Counts> {
        self.active.counts()
    }

    /// Waits for the end, telling progress. `is_over` may end it sooner.
    ///
    /// # Errors
    /// The kernel does not say how far it is.
    pub fn wait(
        &self,
        mut tell: impl FnMut(Progress),
        mut is_over: impl FnMut() -> bool,
    ) -> Result<End> {
        let deadline_ns = self.journal.entry().deadline_ns;
        let mut next_ns = monotonic_ns() + ns(PROGRESS);
        loop {
            let now_ns = monotonic_ns();
            if now_ns >= deadline_ns {
                return Ok(End::Ttl);
            }
            if self.stop.load(Ordering::Relaxed) || is_over() {
                return Ok(End::Stopped);
            }
            if self.active.is_done() {
                return Ok(End::Done);
            }
            if now_ns >= next_ns {
                next_ns += ns(PROGRESS);
                tell(Progress {
                    left: Duration::from_nanos(deadline_ns - now_ns),
                    counts: self.active.counts()?,
                });
            }
            std::thread::sleep(POLL.min(Duration::from_nanos(deadline_ns - now_ns)));
        }
    }

    /// Undoes it; what it did.
    ///
    /// # Errors
    /// Something cannot be undone.
    pub fn end(mut self) -> Result<Counts> {
        self.active.disarm()?;
        let counts = self.active.counts()?;
        // The journal ends what the drop leaves.
        drop(self.active);
        self.journal.close()?;
        Ok(counts)
    }
}
