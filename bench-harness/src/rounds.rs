//! Rounds of trials on a machine that is not ours alone.
//!
//! Every round runs each side once, each second round in reverse, so that a steady drift hits all
//! sides alike. What comes in bursts does not, and costs most whoever sleeps and wakes most. So a round is run again, as a whole and
//! whatever came of it, as long as there are tries left, when
//! - the hypervisor took more than [`STOLEN_MAX`] of a core's time;
//! - somebody waited for a processor, or for memory, for [`PRESSURE_MAX`] of the time more than in the quietest round (PSI);
//! - a server's threads were runnable and did not run for [`WAIT_MAX`] of the time more than in its own quietest round;
//! - a trial had not reached its steady state ([`crate::steady`]).
//!
//! Why "more than in the quietest": a server with more threads than cores waits in every round, and that is its own. Pressure on disks is
//! not looked at: whoever syncs makes it. Invariants: tries are bounded; sides of a round are kept or dropped together, so pairs
//! stay pairs; what was dropped is counted by reason. Next: `compare`, `figures` and `runtimes`, which run rounds; `stats` for
//! what is made of them.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::clock::{self, MILLISECOND_NS};
use crate::fingerprint;

/// Above this much of one core's time taken by the hypervisor, on all of them, a round is run again.
pub const STOLEN_MAX: f64 = 0.03;
/// Above this share of its time, beyond the quietest round's, in which somebody waited for a processor or memory.
pub const PRESSURE_MAX: f64 = 0.10;
/// Above this share of its time, beyond its own quietest, in which a server waited for its core.
pub const WAIT_MAX: f64 = 0.05;
/// So many rounds may be run again for each that is wanted, because of the hypervisor.
const TRIES_EACH: usize = 3;
/// And so many for anything else: a machine that others use stays so.
const OTHER_TRIES_EACH: usize = 1;

/// What a trial says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    /// Share of its time in which the server's threads were runnable and did not run.
    pub wait: Option<f64>,
    /// It had not reached its steady state.
    pub unsteady: bool,
}

/// Rounds by why they were disturbed; one may be for several reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reasons {
    /// The hypervisor took the core.
    pub stolen: usize,
    /// Somebody waited for a processor or memory.
    pub pressure: usize,
    /// A server waited for its core.
    pub wait: usize,
    /// A trial was not steady.
    pub unsteady: usize,
}

/// What was done about noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Noise {
    /// Trials that were run and do not count.
    pub dropped_trials: usize,
    /// Why: by rounds.
    pub dropped: Reasons,
    /// Reasons of rounds that count all the same, because no try was left.
    pub counted: Reasons,
}

/// What came of rounds.
#[derive(Debug)]
pub struct Rounds<T> {
    /// The rounds that count; in each, what each side gave, by side.
    pub kept: Vec<Vec<T>>,
    /// Rounds that were run again.
    pub repeated: usize,
    /// Rounds that count although they were disturbed, because no try was left.
    pub disturbed: usize,
    /// Why.
    pub noise: Noise,
}

/// Runs `wanted` rounds of `sides` sides, whose trials say nothing of themselves.
pub fn run<T>(sides: usize, wanted: usize, trial: impl FnMut(usize) -> T) -> Rounds<T> {
    run_with(sides, wanted, trial, |_| Signs::default())
}

/// Runs `wanted` rounds of `sides` sides.
pub fn run_with<T>(
    sides: usize,
    wanted: usize,
    mut trial: impl FnMut(usize) -> T,
    signs: impl Fn(&T) -> Signs,
) -> Rounds<T> {
    with_meter(sides, wanted, &mut trial, &signs, &Reading::now)
}

/// What the machine counts, at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    at_ns: u64,
    stolen_ns: u64,
    cpu_pressure_us: u64,
    memory_pressure_us: u64,
}

impl Reading {
    fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let pressure =
            |what: &str| fingerprint::pressure_us(&read(&format!("/proc/pressure/{what}")));
        Self {
            at_ns: clock::mono_ns(),
            // Ticks of 10 ms (proc_stat(5)).
            stolen_ns: fingerprint::stolen_ticks(&read("/proc/stat")) * (10 * MILLISECOND_NS),
            // A kernel that does not count it shows no noise by it.
            cpu_pressure_us: pressure("cpu").unwrap_or(0),
            memory_pressure_us: pressure("memory").unwrap_or(0),
        }
    }
}

/// How loud a round was, as shares of its time.
#[derive(Clone, Debug, Default)]
struct Marks {
    stolen: f64,
    cpu: f64,
    memory: f64,
    /// By side.
    waits: Vec<Option<f64>>,
    unsteady: bool,
}

struct Round<T> {
    forward: bool,
    marks: Marks,
    given: Vec<T>,
}

/// The quietest there was of each.
#[derive(Default)]
struct Floor {
    cpu: Option<f64>,
    memory: Option<f64>,
    waits: Vec<Option<f64>>,
}

fn lower(floor: &mut Option<f64>, value: f64) {
    *floor = Some(floor.map_or(value, |floor| floor.min(value)));
}

impl Floor {
    fn take(&mut self, marks: &Marks) {
        lower(&mut self.cpu, marks.cpu);
        lower(&mut self.memory, marks.memory);
        self.waits.resize(marks.waits.len().max(self.waits.len()), None);
        for (floor, wait) in self.waits.iter_mut().zip(&marks.waits) {
            if let Some(wait) = wait {
                lower(floor, *wait);
            }
        }
    }

    fn reasons(&self, marks: &Marks) -> Reasons {
        let over =
            |value: f64, floor: Option<f64>, most: f64| value - floor.unwrap_or(value) > most;
        let mut waits = marks.waits.iter().zip(&self.waits);
        Reasons {
            stolen: usize::from(marks.stolen > STOLEN_MAX),
            pressure: usize::from(
                over(marks.cpu, self.cpu, PRESSURE_MAX)
                    || over(marks.memory, self.memory, PRESSURE_MAX),
            ),
            wait: usize::from(
                waits.any(|(wait, floor)| wait.is_some_and(|wait| over(wait, *floor, WAIT_MAX))),
            ),
            unsteady: usize::from(marks.unsteady),
        }
    }
}

impl Reasons {
    fn add(&mut self, other: Self) {
        self.stolen += other.stolen;
        self.pressure += other.pressure;
        self.wait += other.wait;
        self.unsteady += other.unsteady;
    }

    const fn is_other_than_stolen(&self) -> bool {
        self.pressure + self.wait + self.unsteady > 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.stolen == 0 && !self.is_other_than_stolen()
    }
}

impl std::fmt::Display for Reasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = [
            (self.stolen, "the hypervisor took the core"),
            (self.pressure, "others waited for a processor or memory"),
            (self.wait, "a server waited for its core"),
            (self.unsteady, "not steady"),
        ];
        let said: Vec<String> = each
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} x {why}"))
            .collect();
        f.write_str(&said.join(", "))
    }
}

fn with_meter<T>(
    sides: usize,
    wanted: usize,
    trial: &mut dyn FnMut(usize) -> T,
    signs: &dyn Fn(&T) -> Signs,
    meter: &dyn Fn() -> Reading,
) -> Rounds<T> {
    let mut kept: Vec<Round<T>> = Vec::new();
    let mut floor = Floor::default();
    let (mut noise, mut repeated, mut by_others) = (Noise::default(), 0, 0);
    while kept.len() < wanted {
        // As many in one order as in the other, whichever were dropped.
        let forward = kept.iter().filter(|round| round.forward).count() * 2 <= kept.len();
        let round = one_round(sides, forward, trial, signs, meter);
        floor.take(&round.marks);
        kept.push(round);
        // Only now is it known how quiet it can be: what was kept may be loud beside it.
        let mut index = 0;
        while index < kept.len() {
            let reasons = floor.reasons(&kept[index].marks);
            let stolen = reasons.stolen > 0 && repeated < wanted * TRIES_EACH;
            let other = reasons.is_other_than_stolen() && by_others < wanted * OTHER_TRIES_EACH;
            if !(stolen || other) {
                index += 1;
                continue;
            }
            repeated += 1;
            by_others += usize::from(!stolen);
            noise.dropped.add(reasons);
            noise.dropped_trials += sides;
            kept.remove(index);
        }
    }
    let mut disturbed = 0;
    for round in &kept {
        let reasons = floor.reasons(&round.marks);
        noise.counted.add(reasons);
        disturbed += usize::from(!reasons.is_none());
    }
    let kept = kept.into_iter().map(|round| round.given).collect();
    Rounds { kept, repeated, disturbed, noise }
}

/// Two sides give A B or B A.
fn one_round<T>(
    sides: usize,
    forward: bool,
    trial: &mut dyn FnMut(usize) -> T,
    signs: &dyn Fn(&T) -> Signs,
    meter: &dyn Fn() -> Reading,
) -> Round<T> {
    let order: Vec<usize> = if forward { (0..sides).collect() } else { (0..sides).rev().collect() };
    let before = meter();
    let mut given: Vec<(usize, T)> = order.into_iter().map(|side| (side, trial(side))).collect();
    let after = meter();
    given.sort_by_key(|(side, _)| *side);
    let elapsed_ns = after.at_ns.saturating_sub(before.at_ns).max(1) as f64;
    let share =
        |from: u64, to: u64, unit_ns: f64| to.saturating_sub(from) as f64 * unit_ns / elapsed_ns;
    let said: Vec<Signs> = given.iter().map(|(_, given)| signs(given)).collect();
    let marks = Marks {
        stolen: share(before.stolen_ns, after.stolen_ns, 1.0),
        cpu: share(before.cpu_pressure_us, after.cpu_pressure_us, 1e3),
        memory: share(before.memory_pressure_us, after.memory_pressure_us, 1e3),
        waits: said.iter().map(|signs| signs.wait).collect(),
        unsteady: said.iter().any(|signs| signs.unsteady),
    };
    Round { forward, marks, given: given.into_iter().map(|(_, given)| given).collect() }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::clock::SECOND_NS;

    /// What happens in a round, by its number: stolen, pressure, wait of side 0 as shares; whether it is steady.
    type Plan = fn(u64) -> (f64, f64, f64, bool);

    fn rounds(wanted: usize, plan: Plan) -> (Rounds<(usize, Signs)>, Vec<usize>) {
        let (clock, trials) = (RefCell::new(Reading::default()), Cell::new(0));
        let mut ran = Vec::new();
        let mut trial = |side| {
            ran.push(side);
            let (stolen, pressure, wait, steady) = plan(trials.get() / 2);
            let mut now = clock.borrow_mut();
            now.at_ns += SECOND_NS;
            now.stolen_ns += (stolen * 1e9) as u64;
            now.cpu_pressure_us += (pressure * 1e6) as u64;
            trials.set(trials.get() + 1);
            (side, Signs { wait: (side == 0).then_some(wait), unsteady: side == 1 && !steady })
        };
        let rounds = with_meter(2, wanted, &mut trial, &|(_, signs)| *signs, &|| *clock.borrow());
        (rounds, ran)
    }

    fn sides(rounds: &Rounds<(usize, Signs)>) -> Vec<Vec<usize>> {
        rounds.kept.iter().map(|round| round.iter().map(|(side, _)| *side).collect()).collect()
    }

    #[test]
    fn quiet_rounds_all_count_and_alternate() {
        let (rounds, ran) = rounds(3, |_| (0.0, 0.0, 0.0, true));
        assert_eq!(ran, [0, 1, 1, 0, 0, 1]);
        assert_eq!(sides(&rounds), [[0, 1], [0, 1], [0, 1]]);
        assert_eq!((rounds.repeated, rounds.disturbed, rounds.noise), (0, 0, Noise::default()));
    }

    #[test]
    fn a_disturbed_round_is_run_again_as_a_whole() {
        let (rounds, ran) = rounds(2, |round| (if round == 0 { 0.1 } else { 0.0 }, 0.0, 0.0, true));
        assert_eq!(ran, [0, 1, 0, 1, 1, 0], "those that count alternate");
        assert_eq!((rounds.kept.len(), rounds.repeated, rounds.disturbed), (2, 1, 0));
        assert_eq!(rounds.noise.dropped, Reasons { stolen: 1, ..Reasons::default() });
        assert_eq!(rounds.noise.dropped_trials, 2);
    }

    #[test]
    fn tries_end() {
        let (stolen, ran) = rounds(2, |_| (0.1, 0.0, 0.0, true));
        assert_eq!(ran.len(), 2 * (2 * TRIES_EACH + 2));
        assert_eq!((stolen.kept.len(), stolen.repeated, stolen.disturbed), (2, 6, 2));
        let (unsteady, ran) = rounds(3, |_| (0.0, 0.0, 0.0, false));
        assert_eq!(ran.len(), 2 * (3 * OTHER_TRIES_EACH + 3));
        assert_eq!((unsteady.kept.len(), unsteady.repeated, unsteady.disturbed), (3, 3, 3));
        assert_eq!(unsteady.noise.counted.unsteady, 3);
        assert_eq!(unsteady.noise.dropped.to_string(), "3 x not steady");
    }

    #[test]
    fn what_is_in_every_round_is_the_servers_own() {
        let (rounds, _) = rounds(5, |_| (0.0, 0.9, 0.8, true));
        assert_eq!((rounds.kept.len(), rounds.repeated, rounds.disturbed), (5, 0, 0));
    }

    #[test]
    fn a_round_louder_than_the_quietest_is_run_again_even_when_it_came_first() {
        let (by_wait, _) = rounds(4, |round| (0.0, 0.2, if round == 0 { 0.4 } else { 0.1 }, true));
        assert_eq!((by_wait.kept.len(), by_wait.repeated, by_wait.disturbed), (4, 1, 0));
        assert_eq!(by_wait.noise.dropped, Reasons { wait: 1, ..Reasons::default() });
        let (by_pressure, _) =
            rounds(4, |round| (0.0, if round == 2 { 0.5 } else { 0.2 }, 0.1, true));
        assert_eq!((by_pressure.repeated, by_pressure.noise.dropped.pressure), (1, 1));
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        let (at, _) = rounds(3, |round| match round {
            0 => (0.0, 0.0, 0.0, true),
            1 => (STOLEN_MAX, 0.0, 0.0, true),
            _ => (0.0, PRESSURE_MAX, WAIT_MAX, true),
        });
        assert_eq!(at.repeated, 0);
        let (beyond, _) = rounds(3, |round| match round {
            1 => (STOLEN_MAX + 0.001, 0.0, 0.0, true),
            2 => (0.0, PRESSURE_MAX + 0.001, 0.0, true),
            3 => (0.0, 0.0, WAIT_MAX + 0.001, true),
            _ => (0.0, 0.0, 0.0, true),
        });
        assert_eq!((beyond.repeated, beyond.disturbed, beyond.noise.dropped_trials), (3, 0, 6));
    }

    #[test]
    fn the_counters_are_there() {
        // They grow only where something is counted; none falls.
        let before = Reading::now();
        let after = Reading::now();
        assert!(
            after.stolen_ns >= before.stolen_ns && after.cpu_pressure_us >= before.cpu_pressure_us
        );
    }
}
