//! What a command over several shards has to know of keys that it does not have: values that SORT's BY and GET stand for,
//! and, for scripts, all keys.
//!
//! The command runs; what it wanted to know is asked for here, and it runs again (`elsewhere.rs`). All of it is read under
//! locks that are held to the end of the last run, so that it is of one moment: locks on the keys themselves while these are
//! few and the command is satisfied after a few runs, else on all keys of all shards. With those, nothing changes any
//! more between runs, and each run gets further.
//!
//! Invariants: a question is put to its owner under the lock that covers it; [`BATCH`] bounds a step of a shard. Next:
//! `bring.rs` and `widen.rs`, which run commands.

use view::HashMap;

use crate::{
    elsewhere::{Elsewhere, Look, Survey, Want},
    shard::Shard,
    work::{LockKeys, Op, Response},
};

/// Most values a shard reads in one step.
const BATCH: usize = 1024;
/// With more values than these, locks are taken on all keys.
const LOCKED_MAX: usize = 1024;
/// Rounds with locks on single keys.
const ROUNDS_MAX: usize = 3;

/// What a command has to know, and what of it is known.
#[derive(Debug, Default)]
pub(super) struct Looks {
    known: Elsewhere,
    /// Still to be asked, by owner.
    looks: Vec<(u16, Vec<Look>)>,
    surveys: Vec<(u16, Survey)>,
    /// Surveys under way.
    asked: Vec<(u16, Survey)>,
    rounds: usize,
    /// All there are.
    shards: u16,
    /// Locks are taken on everything, or are to be.
    all: bool,
    wants_all: bool,
    /// Reads do not count as such.
    no_touch: bool,
}

impl Looks {
    /// Whether all keys of all shards are locked.
    pub(super) const fn all(&self) -> bool {
        self.all
    }

    /// How often the command has run.
    pub(super) const fn runs(&self) -> usize {
        self.rounds
    }

    /// Whether the command has not run before.
    pub(super) const fn is_first(&self) -> bool {
        self.rounds == 0
    }

    /// The locks of a command that has these keys: `keys`, ascending by shard.
    pub(super) fn locks(&self, mut keys: Vec<(u16, LockKeys)>) -> Vec<(u16, LockKeys)> {
        let mut add = |shard: u16| {
            if !keys.iter().any(|(known, _)| *known == shard) {
                keys.push((shard, LockKeys::Some(Vec::new())));
            }
        };
        if self.all {
            (0..self.shards).for_each(add);
        } else {
            self.looks.iter().for_each(|(shard, _)| add(*shard));
        }
        keys.sort_by_key(|(shard, _)| *shard);
        keys
    }

    /// What to hold on a shard beside the keys.
    pub(super) fn hold(&self, shard: u16) -> LockKeys {
        if self.all {
            return LockKeys::All;
        }
        let looks = self.looks.iter().filter(|(owner, _)| *owner == shard);
        let keys = looks.flat_map(|(_, looks)| looks.iter());
        LockKeys::Some(keys.map(|look| (look.db, look.key.clone())).collect())
    }

    /// The next questions; nothing when all is known.
    pub(super) fn next(&mut self) -> Option<Vec<(u16, Op)>> {
        let mut ops = Vec::new();
        for (owner, looks) in &mut self.looks {
            let rest = looks.len().saturating_sub(BATCH);
            let batch = looks.split_off(rest);
            if !batch.is_empty() {
                ops.push((*owner, Op::Look(!self.no_touch, batch)));
            }
        }
        if ops.is_empty() {
            self.looks.clear();
            self.asked = std::mem::take(&mut self.surveys);
            ops.extend(self.asked.iter().map(|(owner, survey)| (*owner, survey.op())));
        }
        (!ops.is_empty()).then_some(ops)
    }

    /// Takes answers.
    pub(super) fn take(&mut self, responses: Vec<Response>) {
        if !self.asked.is_empty() {
            let asked = std::mem::take(&mut self.asked);
            self.known.surveys.extend(asked.into_iter().zip(responses));
            return;
        }
        for response in responses {
            if let Response::Looked(looks) = response {
                self.known.values.extend(looks);
            }
        }
    }

    /// Before a run: what is known is for it to see.
    pub(super) fn lay_out(&mut self, ticket: u64, no_touch: bool, shard: &mut Shard) {
        self.no_touch = no_touch;
        (self.known.ticket, self.known.holds_all) = (ticket, self.all);
        shard.elsewhere = std::mem::take(&mut self.known);
    }

    /// After it.
    pub(super) fn clear_away(&mut self, shard: &mut Shard) {
        self.known = std::mem::take(&mut shard.elsewhere);
        self.known.take_wanted();
        self.rounds += 1;
    }

    /// The databases that the run has emptied.
    pub(super) fn take_flushed(&mut self) -> Vec<Option<u16>> {
        std::mem::take(&mut self.known.flushed)
    }

    /// The keys that it has used since then.
    pub(super) fn take_adopted(&mut self) -> Vec<(u16, Box<[u8]>)> {
        let mut keys: Vec<_> = std::mem::take(&mut self.known.adopted).into_iter().collect();
        keys.sort_unstable();
        keys
    }

    /// What a run wanted to know. Keys that it wanted to have are not for here, and come back.
    pub(super) fn want(&mut self, wanted: Vec<Want>, shard: &Shard) -> Vec<(u16, Box<[u8]>)> {
        let mut keys = Vec::new();
        for want in wanted {
            match want {
                Want::Key(key) => keys.push(key),
                Want::Look(look) => self.add(look, shard),
                Want::Survey(owner, survey) => self.surveys.push((owner, survey)),
                Want::All => self.wants_all = true,
            }
        }
        keys
    }

    fn add(&mut self, look: Look, shard: &Shard) {
        let owner = shard.topology.owner_of(&look.key);
        match self.looks.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, looks)) => looks.push(look),
            None => self.looks.push((owner, vec![look])),
        }
    }

    /// Before locks are given up: what is known may change, and is asked for again.
    pub(super) fn begin_anew(&mut self, shard: &Shard) {
        self.shards = shard.count;
        let known: HashMap<Look, _> = std::mem::take(&mut self.known.values);
        known.into_keys().for_each(|look| self.add(look, shard));
        let surveys = std::mem::take(&mut self.known.surveys);
        self.surveys.extend(surveys.into_keys());
        let count: usize = self.looks.iter().map(|(_, looks)| looks.len()).sum();
        self.all |= self.wants_all
            || !self.surveys.is_empty()
            || count > LOCKED_MAX
            || self.rounds > ROUNDS_MAX && count > 0;
    }

    /// The keys that a survey of this run has found on other shards, and that it may want to have next.
    pub(super) fn surveyed(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.known.surveys.iter().flat_map(|((_, survey), response)| {
            let (db, keys) = match (survey, response) {
                (Survey::Keys(db, _), Response::Keys { keys, .. }) => (*db, &keys[..]),
                (Survey::Scan(scan), Response::Keys { keys, .. }) => (scan.db, &keys[..]),
                _ => (0, &[][..]),
            };
            keys.iter().map(move |key| (db, &**key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(key: usize) -> Look {
        Look { db: 0, key: key.to_string().into_bytes().into(), field: None }
    }

    #[test]
    fn questions_come_in_batches() {
        let looks = (0..=BATCH).map(look).collect();
        let mut asking = Looks { looks: vec![(1, looks)], ..Looks::default() };
        let mut sizes = Vec::new();
        while let Some(ops) = asking.next() {
            assert_eq!(ops.len(), 1);
            for (owner, op) in ops {
                let Op::Look(true, looks) = op else { panic!("another question") };
                sizes.push((owner, looks.len()));
                let looked = looks.into_iter().map(|look| (look, None)).collect();
                asking.take(vec![Response::Looked(looked)]);
            }
        }
        assert_eq!(sizes, [(1, BATCH), (1, 1)]);
        assert_eq!(asking.known.values.len(), BATCH + 1);
    }
}
