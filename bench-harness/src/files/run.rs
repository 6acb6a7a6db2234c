//! The loop around operations on the engine's ring: it starts what is due, takes what has ended, and
//! records how long each took from the time it was meant to start.
//!
//! Why on the driver and not in tasks: what is measured is the disk and the ring. Invariants: what is
//! meant to start and finds no slot free waits with its intended time; nothing that failed or came
//! back wrong is counted as done; at the end everything in flight is waited for, since it owns
//! buffers. Next: `work` and `socket` for what an operation is, `pace` for when one is due.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail};
use engine::driver::{Completion, Driver};
use hdrhistogram::Histogram;

use super::block::Wrong;
use super::pace::Pace;
use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::usage::Usage;

/// Operations started before completions are looked at again.
const STARTS_MAX: usize = 256;
/// Longest sleep of a turn.
const TURN_MAX_NS: u64 = 100 * MILLISECOND_NS;
/// How long what is in flight at the end may take.
const DRAIN_NS: u64 = 60 * SECOND_NS;

/// What became of an operation.
#[derive(Debug)]
pub(super) enum Step {
    /// It waits for a completion.
    Pending,
    /// It has ended.
    Done(Result<(), Wrong>),
}

/// Operations of one kind, each in a slot of its own.
pub(super) trait Work {
    /// How many may be in flight.
    fn slots(&self) -> usize;

    /// How many records one operation may take together.
    fn batch_max(&self) -> usize {
        1
    }

    /// Starts an operation of `records` records in a free slot. Its completions carry the slot's number.
    fn start(&mut self, driver: &mut Driver, slot: usize, records: usize) -> Result<Step>;

    /// A completion for the operation in `slot`.
    fn completed(
        &mut self,
        driver: &mut Driver,
        slot: usize,
        completion: Completion,
    ) -> Result<Step>;
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Before anything is recorded.
    pub(super) warmup_ns: u64,
    /// Recorded.
    pub(super) duration_ns: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Tally {
    /// Records done in the recorded time.
    pub(super) records: u64,
    /// Operations they were done in.
    pub(super) operations: u64,
    /// From the intended time of each record to its end.
    pub(super) latency: Histogram<u64>,
    /// Records that came back wrong, at any time.
    pub(super) wrong: u64,
    /// The first of them.
    pub(super) first_wrong: Option<String>,
    /// Recorded time.
    pub(super) elapsed_ns: u64,
    /// CPU in that time: of the machine, of this process with kernel threads, of this process.
    pub(super) cpu_ns: (f64, f64, f64),
    /// Open loop: records that were due and not done when time was up.
    pub(super) behind: u64,
}

impl Tally {
    /// Nothing was done yet.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            records: 0,
            operations: 0,
            latency: Histogram::new_with_max(600 * SECOND_NS, 3).context("a histogram")?,
            wrong: 0,
            first_wrong: None,
            elapsed_ns: 0,
            cpu_ns: (0.0, 0.0, 0.0),
            behind: 0,
        })
    }
}

/// One second of a run, for who watches it.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// Since the start.
    pub at_s: u64,
    /// Records done in it.
    pub records: u64,
    /// 99th percentile of their latency so far.
    pub p99_ns: u64,
    /// Records that were due and not done.
    pub behind: u64,
}

pub(super) struct Runner<'a> {
    driver: &'a mut Driver,
    work: &'a mut dyn Work,
    pace: Pace,
    /// Intended times of what is in each slot.
    intended: Vec<Vec<u64>>,
    free: Vec<usize>,
    /// Taken from the pace, and waiting for a slot with others of its batch.
    due: VecDeque<u64>,
    /// Time is not up.
    recording: bool,
    tally: Tally,
}

impl<'a> Runner<'a> {
    pub(super) fn new(driver: &'a mut Driver, work: &'a mut dyn Work, pace: Pace) -> Result<Self> {
        let slots = work.slots();
        let tally = Tally::new()?;
        let intended = vec![Vec::new(); slots];
        let free = (0..slots).rev().collect();
        Ok(Self {
            driver,
            work,
            pace,
            intended,
            free,
            due: VecDeque::new(),
            recording: true,
            tally,
        })
    }

    /// Runs for the time given.
    pub(super) fn run(mut self, timing: Timing, progress: &mut dyn FnMut(Second)) -> Result<Tally> {
        let start_ns = self.driver.mono_ns();
        self.pace.start(start_ns);
        self.run_until(start_ns + timing.warmup_ns, &mut |_| {})?;
        self.tally.latency.reset();
        (self.tally.records, self.tally.operations) = (0, 0);
        let before = Usage::of(std::process::id());
        let from_ns = self.driver.mono_ns();
        self.run_until(from_ns + timing.duration_ns, progress)?;
        self.tally.elapsed_ns = (self.driver.mono_ns() - from_ns).max(1);
        let (machine, with_kernel, process, _) = Usage::of(std::process::id()).since(&before);
        self.tally.cpu_ns = (machine, with_kernel, process);
        self.tally.behind = self.behind();
        self.recording = false;
        self.drain()?;
        Ok(self.tally)
    }

    fn behind(&self) -> u64 {
        let now_ns = self.driver.mono_ns();
        let Some(_) = self.pace.next_ns() else { return 0 };
        let flying: usize = self.intended.iter().map(Vec::len).sum();
        self.pace.behind(now_ns) + (self.due.len() + flying) as u64
    }

    fn run_until(&mut self, end_ns: u64, progress: &mut dyn FnMut(Second)) -> Result<()> {
        let from_ns = self.driver.mono_ns();
        let (mut second, mut seen) = (1, 0);
        loop {
            let now_ns = self.driver.mono_ns();
            let second_ns = from_ns + second * SECOND_NS;
            if now_ns >= second_ns {
                progress(Second {
                    at_s: second,
                    records: self.tally.records - seen,
                    p99_ns: self.tally.latency.value_at_quantile(0.99),
                    behind: self.behind(),
                });
                seen = self.tally.records;
                second = (now_ns - from_ns) / SECOND_NS + 1;
            }
            if now_ns >= end_ns {
                return Ok(());
            }
            let more = self.start_due()?;
            let next_ns = self.pace.next_ns().filter(|_| !self.free.is_empty());
            let until_ns = next_ns.map_or(end_ns, |next_ns| next_ns.min(end_ns)).min(second_ns);
            let timeout_ns = until_ns.saturating_sub(self.driver.mono_ns()).min(TURN_MAX_NS);
            self.turn(!more && timeout_ns > 0, timeout_ns)?;
        }
    }

    /// Starts what is due as far as there is room; whether more could be started at once.
    fn start_due(&mut self) -> Result<bool> {
        for _ in 0..STARTS_MAX {
            let Some(&slot) = self.free.last() else { return Ok(false) };
            let now_ns = self.driver.mono_ns();
            while self.due.len() < self.work.batch_max() {
                let Some(intended_ns) = self.pace.take(now_ns) else { break };
                self.due.push_back(intended_ns);
            }
            if self.due.is_empty() {
                return Ok(false);
            }
            self.free.pop();
            self.intended[slot].extend(self.due.drain(..));
            let records = self.intended[slot].len();
            let step = self.work.start(self.driver, slot, records)?;
            self.ended(slot, step);
        }
        Ok(true)
    }

    fn turn(&mut self, wait: bool, timeout_ns: u64) -> Result<()> {
        self.driver.turn(wait, Some(timeout_ns));
        if let Driver::Sim(sim) = &mut *self.driver {
            // The model's time passes when it is told to.
            if wait && !sim.has_pending_events() {
                sim.world().clone().advance();
            }
            sim.turn(false, None);
        }
        while let Some(completion) = self.driver.next_completion() {
            let slot = usize::try_from(completion.token).unwrap_or(usize::MAX);
            if slot >= self.intended.len() {
                continue;
            }
            let step = self.work.completed(self.driver, slot, completion)?;
            self.ended(slot, step);
        }
        Ok(())
    }

    fn ended(&mut self, slot: usize, step: Step) {
        let Step::Done(found) = step else { return };
        self.free.push(slot);
        if let Err(wrong) = found {
            self.intended[slot].clear();
            self.tally.wrong += 1;
            self.tally.first_wrong.get_or_insert_with(|| wrong.to_string());
            return;
        }
        if !self.recording {
            self.intended[slot].clear();
            return;
        }
        let now_ns = self.driver.mono_ns();
        self.tally.operations += 1;
        for intended_ns in self.intended[slot].drain(..) {
            self.tally.records += 1;
            self.tally.latency.saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    fn drain(&mut self) -> Result<()> {
        let deadline_ns = self.driver.mono_ns() + DRAIN_NS;
        while self.free.len() < self.intended.len() {
            if self.driver.mono_ns() > deadline_ns {
                let flying = self.intended.len() - self.free.len();
                bail!("{flying} operations did not end within {} s", DRAIN_NS / SECOND_NS);
            }
            self.turn(true, TURN_MAX_NS)?;
        }
        Ok(())
    }
}
