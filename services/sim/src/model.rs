//! What a client knows of its private keys: for each, the states it may be in.
//!
//! One client's commands run in order, so mostly there is one state. There are more where nobody
//! can tell: a command without a reply may have run, a key near its end may have expired, and
//! somebody's FLUSHALL may have come before or after. Each reply rules states out; a reply that
//! rules out all of them is a bug of the server. Keys are followed one by one, which forgets how
//! uncertainties of two keys hang together: never a false alarm.
//!
//! Next: `op` for what commands do, `client` for who asks.

use std::rc::Rc;

use wire::resp::Reply;

use crate::op::{Only, Op, Seen, Span, State, Time};
use crate::shared::Flush;

/// More combinations of states than this are not followed.
const COMBINATIONS_MAX: usize = 4096;
/// A key that may be in more states than this is given up until it is written again.
const STATES_MAX: usize = 256;

/// When a command ran: not before it was sent, not after its reply was read.
#[derive(Clone, Copy, Debug)]
pub struct During {
    /// On the wall clock.
    pub ms: Span,
    /// The workload's step in which its first byte was sent.
    pub sent: u64,
    /// The step in which its reply was read.
    pub told: u64,
}

#[derive(Clone, Debug)]
struct Cell {
    /// `None`: anything.
    states: Option<Vec<State>>,
    /// When the last command on it was sent and answered.
    sent: u64,
    told: u64,
    /// It may have expired without anybody looking it up since: the server may count it still.
    ghost: bool,
}

/// The private keys of one client.
#[derive(Clone, Debug)]
pub struct Model {
    cells: Vec<Cell>,
}

impl Model {
    /// So many keys, none of them there.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self {
            cells: vec![Cell { states: Some(vec![None]), sent: 0, told: 0, ghost: false }; keys],
        }
    }

    /// Checks a reply, or takes into account a command that has run without one.
    ///
    /// # Errors
    /// The reply is impossible.
    pub fn check(
        &mut self,
        op: &Op,
        keys: &[usize],
        during: During,
        reply: Option<&Reply>,
    ) -> Result<(), String> {
        let mut distinct: Vec<usize> = Vec::new();
        for key in keys {
            if !distinct.contains(key) {
                distinct.push(*key);
            }
        }
        let place = |key: &usize| distinct.iter().position(|other| other == key).unwrap_or(0);
        let at: Vec<usize> = keys.iter().map(place).collect();
        let choices: Option<Vec<Vec<State>>> =
            distinct.iter().map(|&key| self.cells[key].at(during.ms)).collect();
        let combinations =
            |choices: &Vec<Vec<State>>| choices.iter().map(Vec::len).product::<usize>();
        let next = match choices {
            Some(choices) if combinations(&choices) <= COMBINATIONS_MAX => {
                let next = outcomes(op, &at, &choices, during.ms, reply);
                if next.is_empty() {
                    return Err(explain(&distinct, &choices));
                }
                Some(next)
            }
            _ => written(op, &at, distinct.len(), during.ms).map(|after| vec![after]),
        };
        for (index, &key) in distinct.iter().enumerate() {
            let cell = &mut self.cells[key];
            // Of several keys, the server may look up only some.
            cell.ghost = distinct.len() > 1 && (cell.ghost || cell.may_expire());
            cell.states = next.as_ref().map(|next| project(next, index));
            if cell.states.as_ref().is_some_and(|states| states.len() > STATES_MAX) {
                cell.states = None;
            }
            (cell.sent, cell.told) = (during.sent, during.told);
        }
        Ok(())
    }

    /// Somebody's FLUSHALL may have come between the last command on a key and the one told of,
    /// or must have.
    pub fn flushed(&mut self, flush: &Flush, during: During) {
        let (from, to) = (flush.sent, flush.end);
        for cell in &mut self.cells {
            if flush.done && from > cell.told && to.is_some_and(|to| to < during.sent) {
                cell.states = Some(vec![None]);
            } else if from < during.told
                && to.is_none_or(|to| to > cell.sent)
                && let Some(states) = &mut cell.states
                && !states.contains(&None)
            {
                states.push(None);
            }
        }
    }

    /// Every key, or every one of these, is gone.
    pub fn clear(&mut self, during: During, which: impl Fn(usize) -> bool) {
        let (sent, told) = (during.sent, during.told);
        for (key, cell) in self.cells.iter_mut().enumerate() {
            if which(key) {
                *cell = Cell { states: Some(vec![None]), sent, told, ghost: false };
            }
        }
    }

    /// What is possible here or there.
    pub fn or(&mut self, other: &Self) {
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            cell.states = match (cell.states.take(), &other.states) {
                (Some(mut mine), Some(theirs)) => {
                    for state in theirs {
                        if !mine.contains(state) {
                            mine.push(state.clone());
                        }
                    }
                    (mine.len() <= STATES_MAX).then_some(mine)
                }
                _ => None,
            };
            cell.told = cell.told.max(other.told);
            cell.ghost |= other.ghost;
        }
    }

    /// How many of these keys the server may say it has: expired ones are counted until they are removed.
    #[must_use]
    pub fn len_within(&self, now: Span, which: impl Fn(usize) -> bool) -> (usize, usize) {
        let keys = || (0..self.cells.len()).filter(|&key| which(key));
        let maybe = |key: &usize| {
            let Cell { states, ghost, .. } = &self.cells[*key];
            *ghost || states.as_ref().is_none_or(|states| states.iter().any(Option::is_some))
        };
        (keys().filter(|&key| self.is_there(key, now).0).count(), keys().filter(maybe).count())
    }

    /// Whether a key is surely there, and whether it may be.
    #[must_use]
    pub fn is_there(&self, key: usize, now: Span) -> (bool, bool) {
        let Some(states) = self.cells[key].at(now) else { return (false, true) };
        (states.iter().all(Option::is_some), states.iter().any(Option::is_some))
    }

    /// The longest value a key may have.
    #[must_use]
    pub fn longest(&self, key: usize) -> usize {
        let states = self.cells[key].states.iter().flatten();
        states.flatten().map(|value| value.bytes.len()).max().unwrap_or(0)
    }
}

impl Cell {
    fn may_expire(&self) -> bool {
        let mut states = self.states.iter().flatten().flatten();
        self.states.is_none() || states.any(|value| value.expire.is_some())
    }

    /// The states the key may be in at some time within `now`; `None` when anything is possible.
    fn at(&self, now: Span) -> Option<Vec<State>> {
        let mut states: Vec<State> = Vec::new();
        let mut add = |state: State| {
            if !states.contains(&state) {
                states.push(state);
            }
        };
        for state in self.states.as_ref()? {
            let Some((value, expire)) = state.as_ref().and_then(|v| Some((v, v.expire?))) else {
                add(state.clone());
                continue;
            };
            // Redis lets a key live through the millisecond of its end.
            if now.lo <= expire.hi {
                let mut alive = value.clone();
                let lo = expire.lo.max(now.lo);
                alive.expire = Some(Span { lo, hi: expire.hi });
                add(Some(alive));
            }
            if now.hi > expire.lo {
                add(None);
            }
        }
        Some(states)
    }
}

/// All states that may follow, over every combination of states.
fn outcomes(
    op: &Op,
    at: &[usize],
    choices: &[Vec<State>],
    now: Span,
    reply: Option<&Reply>,
) -> Vec<Vec<State>> {
    let mut next = Vec::new();
    let mut digits = vec![0; choices.len()];
    loop {
        let keys: Vec<State> =
            digits.iter().zip(choices).map(|(&digit, states)| states[digit].clone()).collect();
        op.apply(at, &keys, now, Seen(reply), &mut next);
        let Some(place) = (0..digits.len()).find(|&place| {
            digits[place] = (digits[place] + 1) % choices[place].len();
            digits[place] != 0
        }) else {
            return next;
        };
        debug_assert!(place < digits.len());
    }
}

/// What is known after a command on keys of which nothing is known.
fn written(op: &Op, at: &[usize], keys: usize, now: Span) -> Option<Vec<State>> {
    let mut after = vec![None; keys];
    match op {
        Op::Del | Op::GetDel => Some(after),
        Op::Store { only: Only::Always, time, .. } if *time != Time::Keep => {
            let mut next = Vec::new();
            op.apply(at, &after, now, Seen(None), &mut next);
            next.pop()
        }
        Op::MSet { values, nx: false } => {
            for (&key, value) in at.iter().zip(values) {
                after[key] = Some(crate::op::Value { bytes: Rc::clone(value), expire: None });
            }
            Some(after)
        }
        _ => None,
    }
}

fn project(next: &[Vec<State>], index: usize) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for after in next {
        if !states.contains(&after[index]) {
            states.push(after[index].clone());
        }
    }
    states
}

fn explain(keys: &[usize], choices: &[Vec<State>]) -> String {
    let mut text = String::from("impossible; expected from");
    for (key, states) in keys.iter().zip(choices) {
        text.push_str(&format!(" k{key}:"));
        for state in states.iter().take(4) {
            match state {
                None => text.push_str(" (none)"),
                Some(value) => {
                    let head = &value.bytes[..value.bytes.len().min(24)];
                    let head = String::from_utf8_lossy(head);
                    text.push_str(&format!(
                        " ({} bytes {head:?}, expires {:?})",
                        value.bytes.len(),
                        value.expire
                    ));
                }
            }
        }
    }
    text
}
