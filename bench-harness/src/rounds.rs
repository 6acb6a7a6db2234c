//! Rounds of trials on a machine that is not ours alone.
//!
//! Every round runs each side once, each second round in reverse, so that a steady drift hits all
//! sides alike. A hypervisor that takes the core away does not: it comes in bursts, and costs most
//! whoever sleeps and wakes most. A round in which it took more than [`STOLEN_MAX`] of a core's time is run
//! again, whatever came of it, as long as there are tries left. Next: `compare` and `storage`, which
//! run rounds; `stats` for what is made of them.

use std::fs;

use crate::clock::{self, SECOND_NS};

/// Above this much of one core's time taken by the hypervisor, on all of them, a round is run again.
pub const STOLEN_MAX: f64 = 0.03;
/// So many rounds may be run again for each that is wanted.
const TRIES_EACH: usize = 3;

/// What came of rounds.
#[derive(Debug)]
pub struct Rounds<T> {
    /// The rounds that count; in each, what each side gave, by side.
    pub kept: Vec<Vec<T>>,
    /// Rounds that were run again because the core was taken away.
    pub repeated: usize,
    /// Rounds that count although the core was taken away, because no try was left.
    pub disturbed: usize,
}

/// Runs `wanted` rounds of `sides` sides.
pub fn run<T>(sides: usize, wanted: usize, mut trial: impl FnMut(usize) -> T) -> Rounds<T> {
    with_clock(sides, wanted, &mut trial, stolen_ns, clock::mono_ns)
}

fn with_clock<T>(
    sides: usize,
    wanted: usize,
    trial: &mut dyn FnMut(usize) -> T,
    stolen_ns: impl Fn() -> u64,
    now_ns: impl Fn() -> u64,
) -> Rounds<T> {
    let mut rounds = Rounds { kept: Vec::new(), repeated: 0, disturbed: 0 };
    while rounds.kept.len() < wanted {
        let (stolen, started) = (stolen_ns(), now_ns());
        let mut round: Vec<(usize, T)> =
            order(sides, rounds.kept.len()).into_iter().map(|side| (side, trial(side))).collect();
        let elapsed_ns = (now_ns() - started).max(1);
        let share = stolen_ns().saturating_sub(stolen) as f64 / elapsed_ns as f64;
        if share > STOLEN_MAX && rounds.repeated < wanted * TRIES_EACH {
            rounds.repeated += 1;
            continue;
        }
        rounds.disturbed += usize::from(share > STOLEN_MAX);
        round.sort_by_key(|(side, _)| *side);
        rounds.kept.push(round.into_iter().map(|(_, given)| given).collect());
    }
    rounds
}

/// Two sides give A B, B A, A B, B A, …
fn order(sides: usize, round: usize) -> Vec<usize> {
    let forward = 0..sides;
    if round.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

/// What the hypervisor took of all cores since the start (proc_stat(5), ticks of 10 ms).
fn stolen_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let cores = text.lines().filter(|line| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let stolen = |line: &str| line.split_whitespace().nth(8)?.parse::<u64>().ok();
    cores.filter_map(stolen).sum::<u64>() * (SECOND_NS / 100)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn rounds(wanted: usize, stolen_in: impl Fn(u64) -> bool) -> (Rounds<usize>, Vec<usize>) {
        let (now, stolen, round) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let mut ran = Vec::new();
        let mut trial = |side| {
            ran.push(side);
            now.set(now.get() + 1_000);
            if stolen_in(round.get() / 2) {
                stolen.set(stolen.get() + 100);
            }
            round.set(round.get() + 1);
            side
        };
        let rounds = with_clock(2, wanted, &mut trial, || stolen.get(), || now.get());
        (rounds, ran)
    }

    #[test]
    fn quiet_rounds_all_count_and_alternate() {
        let (rounds, ran) = rounds(3, |_| false);
        assert_eq!(ran, [0, 1, 1, 0, 0, 1]);
        assert_eq!(rounds.kept, [[0, 1], [0, 1], [0, 1]]);
        assert_eq!((rounds.repeated, rounds.disturbed), (0, 0));
    }

    #[test]
    fn a_disturbed_round_is_run_again_as_a_whole() {
        let (rounds, ran) = rounds(2, |round| round == 0);
        assert_eq!(ran, [0, 1, 0, 1, 1, 0], "those that count alternate");
        assert_eq!((rounds.kept.len(), rounds.repeated, rounds.disturbed), (2, 1, 0));
    }

    #[test]
    fn tries_end() {
        let (rounds, ran) = rounds(2, |_| true);
        assert_eq!(ran.len(), 2 * (2 * TRIES_EACH + 2));
        assert_eq!((rounds.kept.len(), rounds.repeated, rounds.disturbed), (2, 6, 2));
    }

    #[test]
    fn the_counter_is_there() {
        // Grows only where there is a hypervisor; never falls.
        let before = stolen_ns();
        assert!(stolen_ns() >= before);
    }
}
