//! A load and a misbehaving server in virtual time: what a trial must report, with no machine in between.
//!
//! Why: the generator does no I/O and reads no clock, so its books can be held against queueing theory
//! exactly, on any machine, in milliseconds; what `serve` gives on sockets differs from this by the
//! transport alone. Invariants: equal arguments give equal results; time only moves to the next event,
//! and at most [`EVENTS_MAX`] happen; mutants cost nothing here, since nothing computes.
//! Next: `curve` and `find_max`, whose tests measure this.

use anyhow::{Result, bail};
use view::Output;

use super::Mode;
use super::bed::{Action, Bed};
use crate::load::generator::{Batch, Generator};
use crate::load::tally::Tally;
use crate::load::trial::{self, Timing, Trial};
use crate::load::{Target, Workload};

/// Events of a run, at most.
const EVENTS_MAX: u64 = 20_000_000;
/// What a client in closed loop takes between a reply and its next request.
const TURN_NS: u64 = 1_000;
/// Virtual time at which a run begins.
const START_NS: u64 = 1_000_000_000;

struct Virtual {
    generator: Generator,
    bed: Bed,
    now_ns: u64,
    events: u64,
    /// What a client in closed loop sends next.
    next_turn: Option<Batch>,
    /// For the next batch's bytes.
    spare: Vec<u8>,
}

impl Virtual {
    fn run_until(&mut self, deadline_ns: u64) -> Result<()> {
        while self.generator.broken().is_none() {
            let arrival_ns = self.generator.arrive(self.now_ns);
            while let Some(batch) = self.next_turn.take().or_else(|| self.generator.next_batch()) {
                let mut out = Output::with_buffer(std::mem::take(&mut self.spare));
                self.generator.fill(batch, &mut out);
                for bytes in out.pieces(0) {
                    if let Err(why) = self.bed.on_bytes(batch.conn as u64, bytes, self.now_ns) {
                        bail!("the generator sent what is no request: {why}");
                    }
                }
                self.spare = out.into_buffer();
                self.generator.on_sent(batch.conn);
            }
            while let Some(action) = self.bed.pop_due(self.now_ns) {
                match action {
                    Action::Write { conn, bytes, .. } => {
                        let conn = usize::try_from(conn)?;
                        self.generator.on_bytes(conn, &bytes, self.now_ns);
                    }
                    Action::Reset { conn } => {
                        self.bed.close(conn);
                        self.generator
                            .break_off(usize::try_from(conn)?, "reset by the server".to_owned());
                    }
                }
            }
            // A closed loop has its next request as soon as it has its reply.
            self.next_turn = self.next_turn.or_else(|| self.generator.next_batch());
            let turn_ns = self.next_turn.map(|_| self.now_ns + TURN_NS);
            let due = [arrival_ns, self.bed.next_due_ns(), turn_ns];
            let next_ns = due.into_iter().flatten().min().unwrap_or(deadline_ns);
            if next_ns >= deadline_ns {
                self.now_ns = deadline_ns;
                return Ok(());
            }
            self.now_ns = next_ns.max(self.now_ns);
            self.events += 1;
            if self.events > EVENTS_MAX {
                bail!("more than {EVENTS_MAX} events in virtual time: ask for less");
            }
        }
        Ok(())
    }
}

/// Runs `workload` against `mode` in virtual time.
///
/// # Errors
/// As a trial on sockets: connections break, or replies are wrong.
pub fn run(workload: &Workload, mode: Mode, timing: Timing) -> Result<Trial> {
    let (trial, _) = run_with_tally(workload, mode, timing)?;
    Ok(trial)
}

/// The same, with the books behind the figures.
///
/// # Errors
/// As [`run`].
pub fn run_with_tally(workload: &Workload, mode: Mode, timing: Timing) -> Result<(Trial, Tally)> {
    mode.check()?;
    let target = Target::all_keys(([127, 0, 0, 1], 1).into());
    let generator = Generator::new(workload, &[target]);
    let bed = Bed::new(mode, workload.value_len_bytes, workload.seed ^ 0xbed, START_NS);
    let mut world =
        Virtual { generator, bed, now_ns: START_NS, events: 0, next_turn: None, spare: Vec::new() };
    for conn in 0..workload.connections {
        world.bed.open(conn as u64, START_NS);
    }
    world.generator.start(START_NS);
    world.run_until(START_NS + timing.warmup_ns)?;
    world.generator.take_tally();
    let end_ns = START_NS + timing.warmup_ns + timing.duration_ns;
    world.run_until(end_ns)?;
    let tally = world.generator.close_books(end_ns);
    let trial = trial::of_virtual_time(workload, &world.generator, &tally, timing.duration_ns)?;
    Ok((trial, tally))
}
