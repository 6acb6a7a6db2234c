//! Which leader wrote which part of a partition: epochs and the offsets they begin with.
//!
//! A consumer or follower asks where the epoch of its last record ends, and what it has behind that was never
//! committed (KIP-101, KIP-279, OffsetForLeaderEpoch). Rules are those of Kafka's LeaderEpochFileCache, the
//! file is its `leader-epoch-checkpoint`. Invariants: epochs and start offsets grow strictly; at most
//! [`ENTRIES_MAX`], 16 KiB. Look-ups are binary searches, an append is amortised O(1). Next: the broker assigns
//! from its metadata and, when it reads a log again, from the batches.

/// Most epochs that are kept of a partition.
pub const ENTRIES_MAX: usize = 1024;

/// An epoch of the partition's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The epoch's number.
    pub epoch: i32,
    /// The first offset written in it.
    pub start_offset: i64,
}

/// Where an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The epoch asked for, or the largest known below it.
    pub epoch: i32,
    /// The first offset that is not its own.
    pub end_offset: i64,
}

/// The epochs of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<Entry>,
}

impl Epochs {
    /// Notes that `epoch` begins at `start_offset`. What contradicts that goes: entries of this or a
    /// later epoch, or at this offset or behind. Whether anything changed; negative numbers change nothing.
    ///
    /// Beyond [`ENTRIES_MAX`] the second oldest entry goes. Who asks for its epoch is told of the oldest,
    /// which makes a follower cut more than it had to, never less.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        let entry = Entry { epoch, start_offset };
        let known = |last: &Entry| last.epoch == epoch && last.start_offset <= start_offset;
        if epoch < 0 || start_offset < 0 || self.latest().as_ref().is_some_and(known) {
            return false;
        }
        let stays = |last: &Entry| last.epoch < epoch && last.start_offset < start_offset;
        while self.entries.pop_if(|last| !stays(last)).is_some() {}
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.remove(1);
        }
        self.entries.push(entry);
        true
    }

    /// The last epoch.
    #[must_use]
    pub fn latest(&self) -> Option<Entry> {
        self.entries.last().copied()
    }

    /// The epoch in which `offset` was written; `None` when it lies before all.
    #[must_use]
    pub fn at_offset(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map(|entry| entry.epoch)
    }

    /// Where an epoch ends, for a log that ends at `log_end_offset`; `None`, which is -1 and -1 in an
    /// answer, when the epoch is later than all or nothing is known.
    ///
    /// An epoch in which nothing was written ends where the one before it does; one before all entries ends
    /// at the first of them.
    #[must_use]
    pub fn end_of(&self, epoch: i32, log_end_offset: i64) -> Option<End> {
        if epoch < 0 {
            return None;
        }
        if self.latest()?.epoch == epoch {
            return Some(End { epoch, end_offset: log_end_offset });
        }
        let after = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries.get(after)?.start_offset;
        let floor = after.checked_sub(1).and_then(|at| self.entries.get(at));
        Some(End { epoch: floor.map_or(epoch, |entry| entry.epoch), end_offset })
    }

    /// Drops epochs that begin at `end_offset` or behind, as the log was cut there. Whether there were any.
    pub fn truncate_end(&mut self, end_offset: i64) -> bool {
        let before = self.entries.len();
        let keep = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        self.entries.truncate(if end_offset < 0 { before } else { keep });
        self.entries.len() < before
    }

    /// Drops epochs that end before `start_offset`, as the log begins there now; the first that is left
    /// begins there too. Whether anything changed.
    pub fn truncate_start(&mut self, start_offset: i64) -> bool {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(first) = after.checked_sub(1) else { return false };
        self.entries.drain(..first);
        let Some(entry) = self.entries.first_mut() else { return false };
        let moved = entry.start_offset < start_offset;
        entry.start_offset = start_offset;
        moved || first > 0
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The file: a line each for the version, 0, the number of entries, and each entry's epoch and offset.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for Entry { epoch, start_offset } in &self.entries {
            text.push_str(&format!("{epoch} {start_offset}\n"));
        }
        text
    }

    /// Reads such a file; `None` when it is damaged or says what cannot be.
    #[must_use]
    pub fn decode(file: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(file).ok()?.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = Self::default();
        for line in lines {
            let (epoch, start_offset) = line.split_once(' ')?;
            let (epoch, start_offset) = (epoch.parse().ok()?, start_offset.parse().ok()?);
            let follows = |last: &Entry| last.epoch < epoch && last.start_offset < start_offset;
            if epochs.entries.len() >= ENTRIES_MAX
                || epoch < 0
                || start_offset < 0
                || !epochs.entries.last().is_none_or(follows)
            {
                return None;
            }
            epochs.entries.push(Entry { epoch, start_offset });
        }
        (epochs.entries.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for &(epoch, start_offset) in entries {
            epochs.assign(epoch, start_offset);
        }
        epochs
    }

    fn pairs(epochs: &Epochs) -> Vec<(i32, i64)> {
        epochs.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn what_contradicts_a_new_epoch_goes() {
        let known = epochs(&[(1, 0), (3, 10), (5, 20)]);
        for (epoch, offset, changes, left) in [
            (5, 20, false, vec![(1, 0), (3, 10), (5, 20)]),
            (5, 25, false, vec![(1, 0), (3, 10), (5, 20)]),
            (5, 15, true, vec![(1, 0), (3, 10), (5, 15)]),
            (6, 20, true, vec![(1, 0), (3, 10), (6, 20)]),
            (6, 30, true, vec![(1, 0), (3, 10), (5, 20), (6, 30)]),
            (4, 30, true, vec![(1, 0), (3, 10), (4, 30)]),
            (2, 5, true, vec![(1, 0), (2, 5)]),
            (0, 0, true, vec![(0, 0)]),
            (-1, 40, false, vec![(1, 0), (3, 10), (5, 20)]),
            (9, -1, false, vec![(1, 0), (3, 10), (5, 20)]),
        ] {
            let mut epochs = known.clone();
            assert_eq!(epochs.assign(epoch, offset), changes, "{epoch} at {offset}");
            assert_eq!(pairs(&epochs), left, "{epoch} at {offset}");
        }
    }

    #[test]
    fn ends_are_those_of_kafka() {
        let known = epochs(&[(2, 5), (4, 10), (7, 20)]);
        let end = |epoch, end_offset| Some(End { epoch, end_offset });
        for (epoch, expected) in [
            (-1, None),
            (0, end(0, 5)),
            (1, end(1, 5)),
            (2, end(2, 10)),
            (3, end(2, 10)),
            (4, end(4, 20)),
            (6, end(4, 20)),
            (7, end(7, 33)),
            (8, None),
        ] {
            assert_eq!(known.end_of(epoch, 33), expected, "{epoch}");
        }
        assert_eq!(Epochs::default().end_of(0, 33), None);
    }

    #[test]
    fn both_ends_are_cut() {
        let known = epochs(&[(2, 5), (4, 10), (7, 20)]);
        for (end, left) in [(21, 3), (20, 2), (11, 2), (10, 1), (5, 0), (0, 0), (-1, 3)] {
            let mut epochs = known.clone();
            assert_eq!(epochs.truncate_end(end), left < 3, "{end}");
            assert_eq!(epochs.entries().len(), left, "{end}");
        }
        for (start, changes, left) in [
            (4, false, vec![(2, 5), (4, 10), (7, 20)]),
            (5, false, vec![(2, 5), (4, 10), (7, 20)]),
            (6, true, vec![(2, 6), (4, 10), (7, 20)]),
            (10, true, vec![(4, 10), (7, 20)]),
            (19, true, vec![(4, 19), (7, 20)]),
            (99, true, vec![(7, 99)]),
        ] {
            let mut epochs = known.clone();
            assert_eq!(epochs.truncate_start(start), changes, "{start}");
            assert_eq!(pairs(&epochs), left, "{start}");
        }
        assert!(!Epochs::default().truncate_start(9));
        assert!(!Epochs::default().truncate_end(0));
    }

    #[test]
    fn golden_file_is_that_of_kafka() {
        let known = epochs(&[(0, 0), (3, 1234)]);
        assert_eq!(known.encode(), "0\n2\n0 0\n3 1234\n");
        assert_eq!(Epochs::decode(b"0\n2\n0 0\n3 1234\n"), Some(known));
        for damaged in [
            "",
            "0\n",
            "1\n0\n",
            "0\n1\n",
            "0\n1\n0 0\n1 1\n",
            "0\n2\n0 0\n3\n",
            "0\n2\n3 0\n3 5\n",
            "0\n2\n3 5\n4 5\n",
            "0\n1\n-1 5\n",
            "0\n1\n1 -5\n",
            "0\n1\nx 5\n",
        ] {
            assert_eq!(Epochs::decode(damaged.as_bytes()), None, "{damaged:?}");
        }
        assert_eq!(Epochs::decode(&[b'0', b'\n', 0xFF]), None);
    }

    #[test]
    fn beyond_the_bound_the_second_oldest_goes() {
        let all = (0..=i32::try_from(ENTRIES_MAX).unwrap_or(0)).map(|n| (n, i64::from(n)));
        let all: Vec<_> = all.collect();
        let full = epochs(all.get(..ENTRIES_MAX).unwrap_or_default());
        assert_eq!(pairs(&full), all.get(..ENTRIES_MAX).unwrap_or_default());
        let beyond = epochs(&all);
        assert_eq!(beyond.entries().len(), ENTRIES_MAX);
        assert_eq!(beyond.end_of(1, 5000), Some(End { epoch: 0, end_offset: 2 }));
        assert_eq!(Epochs::decode(beyond.encode().as_bytes()), Some(beyond));
    }

    proptest! {
        #[test]
        fn look_ups_agree_with_a_model_offset_by_offset(
            appends in prop::collection::vec((0_i32..3, 1_usize..5), 0..30),
            cut in (0_i64..100, 0_i64..100),
        ) {
            // Each offset's epoch, by itself.
            let (mut model, mut epoch, mut epochs) = (Vec::new(), 0, Epochs::default());
            for (step, records) in appends {
                epoch += step;
                epochs.assign(epoch, i64::try_from(model.len()).unwrap_or(0));
                model.extend(std::iter::repeat_n(epoch, records));
            }
            let end = cut.1.min(i64::try_from(model.len()).unwrap_or(0));
            let start = cut.0.min(end);
            epochs.truncate_end(end);
            epochs.truncate_start(start);
            for offset in start..end {
                let at = usize::try_from(offset).unwrap_or(0);
                prop_assert_eq!(epochs.at_offset(offset), model.get(at).copied());
            }
            let kept = model.get(usize::try_from(start)?..usize::try_from(end)?);
            for wanted in kept.unwrap_or_default() {
                let last = kept.unwrap_or_default().iter().rposition(|epoch| epoch == wanted);
                let end_offset = last.map_or(0, |at| start + i64::try_from(at).unwrap_or(0) + 1);
                prop_assert_eq!(epochs.end_of(*wanted, end), Some(End { epoch: *wanted, end_offset }));
            }
            prop_assert_eq!(Epochs::decode(epochs.encode().as_bytes()), Some(epochs));
        }
    }
}
