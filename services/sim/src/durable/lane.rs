//! Operations of one writer on keys of one shard, in their order, and which beginning of them was kept.
//!
//! Only one client writes the keys of a lane, over one connection at a time, so a shard runs its operations in their
//! order; whatever a crash leaves is what the first so many of them give: a *cut*. Which cuts fit is found from what the
//! keys hold; how far a cut must reach, the *floor*, is the promise. Next: `value` for the operations.

use std::collections::BTreeMap;

use super::value::{Op, State, Value, show};
use crate::op::Span;

/// An operation that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: usize,
    pub(crate) op: Op,
    pub(crate) sent_step: u64,
    pub(crate) sent_ms: u64,
    pub(crate) acked: Option<Ack>,
    /// The server said that it did not run.
    pub(crate) refused: bool,
    /// It surely ran before this, if it ran.
    done_ms: Option<u64>,
}

/// When a reply came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) step: u64,
    pub(crate) ns: u64,
    pub(crate) ms: u64,
}

/// Operations since the keys' values were known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    base: BTreeMap<usize, State>,
    pub(crate) entries: Vec<Entry>,
    /// Somebody has seen what the first so many lead to.
    pub(crate) seen: usize,
    /// A replica has applied the first so many.
    pub(crate) waited: usize,
}

/// The cuts that fit what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cuts {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl Lane {
    /// Notes an operation that is about to be sent; its place.
    pub(crate) fn send(&mut self, key: usize, op: Op, step: u64, now_ms: u64) -> usize {
        self.entries.push(Entry {
            key,
            op,
            sent_step: step,
            sent_ms: now_ms,
            acked: None,
            refused: false,
            done_ms: None,
        });
        self.entries.len() - 1
    }

    pub(crate) fn acked(&mut self, at: usize, ack: Ack) {
        self.entries[at].acked = Some(ack);
    }

    fn span(&self, entry: &Entry, now_ms: u64) -> Span {
        let hi = entry.acked.map(|ack| ack.ms).or(entry.done_ms).unwrap_or(now_ms);
        Span { lo: entry.sent_ms, hi: hi.max(entry.sent_ms) }
    }

    fn base_of(&self, key: usize) -> State {
        self.base.get(&key).cloned().unwrap_or_default()
    }

    /// What a key may hold after the first `cut` operations.
    pub(crate) fn states(&self, key: usize, cut: usize, now_ms: u64) -> Vec<State> {
        let mut states = vec![self.base_of(key)];
        for entry in self.entries[..cut].iter().filter(|entry| entry.key == key) {
            self.step(entry, &mut states, now_ms);
        }
        states
    }

    fn step(&self, entry: &Entry, states: &mut Vec<State>, now_ms: u64) {
        if entry.refused || entry.op == Op::Read {
            return;
        }
        for state in std::mem::take(states) {
            entry.op.apply(state, self.span(entry, now_ms), states);
        }
    }

    /// Whether a key may hold this after the operation at `cut`, read within some time.
    pub(crate) fn shows(&self, key: usize, cut: usize, value: &Value, span: Span) -> bool {
        let states = self.states(key, cut, span.hi);
        states.iter().any(|state| state.may_be(span, |state| state.value == *value))
    }

    /// The fewest operations after which a key may hold this.
    pub(crate) fn first_cut(&self, key: usize, value: &Value, span: Span) -> Option<usize> {
        self.first_cut_from(0, key, value, span)
    }

    /// The fewest operations, but no fewer than `floor`, after which a key may hold this.
    pub(crate) fn first_cut_from(
        &self,
        floor: usize,
        key: usize,
        value: &Value,
        span: Span,
    ) -> Option<usize> {
        let fits = |states: &[State]| {
            states.iter().any(|state| state.may_be(span, |state| state.value == *value))
        };
        let floor = floor.min(self.entries.len());
        let mut states = self.states(key, floor, span.hi);
        if fits(&states) {
            return Some(floor);
        }
        let later = self.entries.iter().enumerate().skip(floor);
        for (at, entry) in later.filter(|(_, entry)| entry.key == key) {
            self.step(entry, &mut states, span.hi);
            if fits(&states) {
                return Some(at + 1);
            }
        }
        None
    }

    /// How many operations must be there when replies that came until `sure_ns` are kept.
    pub(crate) fn floor(&self, sure_ns: u64, with_seen: bool) -> usize {
        let known =
            |entry: &Entry| !entry.refused && entry.acked.is_some_and(|ack| ack.ns <= sure_ns);
        let floor = self.entries.iter().rposition(known).map_or(0, |last| last + 1);
        if with_seen { floor.max(self.seen) } else { floor }
    }

    /// The cuts that give what was found.
    ///
    /// # Errors
    /// There is none at or after the floor.
    pub(crate) fn cuts(
        &self,
        found: &BTreeMap<usize, State>,
        floor: usize,
        span: Span,
    ) -> Result<Cuts, String> {
        let mut states: BTreeMap<usize, Vec<State>> =
            found.keys().map(|key| (*key, vec![self.base_of(*key)])).collect();
        let fits = |states: &[State], key: &usize| {
            found.get(key).is_some_and(|found| may_be(states, found, span))
        };
        let mut wrong: BTreeMap<usize, bool> =
            states.iter().map(|(key, states)| (*key, !fits(states, key))).collect();
        let mut all = Vec::new();
        for cut in 0..=self.entries.len() {
            if wrong.values().all(|wrong| !wrong) {
                all.push(cut);
            }
            let Some(entry) = self.entries.get(cut) else { break };
            let Some(states) = states.get_mut(&entry.key) else { continue };
            self.step(entry, states, span.hi);
            wrong.insert(entry.key, !fits(states, &entry.key));
        }
        let good = all.iter().copied().filter(|cut| *cut >= floor);
        match (good.clone().min(), good.max()) {
            (Some(least), Some(most)) => Ok(Cuts { least, most }),
            _ => Err(self.complaint(found, &all, floor, span)),
        }
    }

    fn complaint(
        &self,
        found: &BTreeMap<usize, State>,
        all: &[usize],
        floor: usize,
        span: Span,
    ) -> String {
        let mut text = format!(
            "of {} operations {floor} must be there; what is there is what {all:?} of them give, until {} ms:",
            self.entries.len(),
            span.hi
        );
        for (key, state) in found {
            let all = 0..=self.entries.len();
            let cuts = all.filter(|cut| may_be(&self.states(*key, *cut, span.hi), state, span));
            let cuts: Vec<usize> = cuts.collect();
            let range = (cuts.first(), cuts.last());
            text.push_str(&format!("\n  key {key} is {}: after {range:?}", show(state)));
        }
        for (key, state) in &self.base {
            text.push_str(&format!("\n  key {key} was {}", show(state)));
        }
        let from = self.entries.len().saturating_sub(40);
        for (at, entry) in self.entries.iter().enumerate().skip(from) {
            let op: String = format!("{:?}", Brief(&entry.op)).chars().take(60).collect();
            let acked = entry.acked.map(|ack| ack.ms);
            text.push_str(&format!(
                "\n  {at}: key {} {op} sent {} answered {acked:?}{}",
                entry.key,
                entry.sent_ms,
                if entry.refused { " refused" } else { "" }
            ));
        }
        text
    }

    /// A crash is over, and these are the values from now on.
    pub(crate) fn begin(&mut self, found: &BTreeMap<usize, State>) {
        self.base.clone_from(found);
        self.entries.clear();
        (self.seen, self.waited) = (0, 0);
    }

    /// All of a broken connection that ran is known now: what did not run never will.
    pub(crate) fn settle(&mut self, cuts: Cuts, ack: Ack) {
        self.entries.truncate(cuts.most);
        for (at, entry) in self.entries.iter_mut().enumerate() {
            entry.done_ms.get_or_insert(ack.ms);
            if at < cuts.least {
                entry.acked.get_or_insert(ack);
            }
        }
    }

    /// Whether operations are kept here although others are not that ended before they were sent there.
    pub(crate) fn overtakes(&self, cuts: Cuts, other: &Self, of_other: Cuts) -> bool {
        let sent = self.entries[..cuts.least].iter().filter(|entry| !entry.refused);
        let last_sent = sent.map(|entry| entry.sent_step).max().unwrap_or(0);
        let lost = other.entries[of_other.most..].iter().filter(|entry| !entry.refused);
        let first_lost = lost.filter_map(|entry| entry.acked).map(|ack| ack.step).min();
        first_lost.is_some_and(|step| step < last_sent)
    }
}

/// Whether a key that holds one of these is found so.
fn may_be(states: &[State], found: &State, span: Span) -> bool {
    states.iter().any(|state| state.may_be(span, |state| state == found))
}

/// An operation without its long texts.
struct Brief<'a>(&'a Op);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.0.words(b"key");
        for word in &words {
            let head = word[..word.len().min(14)].escape_ascii();
            write!(f, "{head} ")?;
        }
        Ok(())
    }
}
