//! What one subscriber has seen of one publisher: in order, late, twice, or never.
//!
//! A number above the next one leaves a gap; one of a gap that comes after all is late, so it was reordered and not
//! lost; any other that was passed is a duplicate. Invariant: gaps that are remembered are bounded
//! ([`GAPS_MAX`]); what falls out of memory stays lost, and would count as a duplicate if it came.

use std::ops::Range;

/// Gaps of one publisher that are remembered by one subscriber.
pub const GAPS_MAX: usize = 64;

/// How a message stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The next one, or one after a gap.
    New,
    /// Later than one that was sent after it.
    Late,
    /// Seen before.
    Twice,
}

/// The numbers one subscriber has seen of one publisher.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    next: u64,
    /// In ascending order, none empty.
    gaps: Vec<Range<u64>>,
    /// Numbers of gaps that are not remembered any more.
    forgotten: u64,
}

impl Sequence {
    /// Takes the next message.
    #[inline]
    pub fn see(&mut self, number: u64) -> Seen {
        if number == self.next {
            self.next += 1;
            return Seen::New;
        }
        self.out_of_order(number)
    }

    #[cold]
    fn out_of_order(&mut self, number: u64) -> Seen {
        if number > self.next {
            self.gaps.push(self.next..number);
            self.next = number + 1;
            self.forget();
            return Seen::New;
        }
        let Some(at) = self.gaps.iter().position(|gap| gap.contains(&number)) else {
            return Seen::Twice;
        };
        let gap = self.gaps.remove(at);
        let rest = [gap.start..number, number + 1..gap.end];
        for part in rest.into_iter().rev().filter(|part| !part.is_empty()) {
            self.gaps.insert(at, part);
        }
        self.forget();
        Seen::Late
    }

    /// Keeps the bound: the oldest gap is the least likely to be filled.
    fn forget(&mut self) {
        if self.gaps.len() > GAPS_MAX {
            let oldest = self.gaps.remove(0);
            self.forgotten += oldest.end - oldest.start;
        }
    }

    /// Messages that never came, of `sent` in all.
    #[must_use]
    pub fn lost(&self, sent: u64) -> u64 {
        let gaps: u64 = self.gaps.iter().map(|gap| gap.end - gap.start).sum();
        gaps + self.forgotten + sent.saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[u64]) -> (Sequence, Vec<Seen>) {
        let mut sequence = Sequence::default();
        let all = numbers.iter().map(|&number| sequence.see(number)).collect();
        (sequence, all)
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        use Seen::{Late, New, Twice};
        let (sequence, all) = seen(&[0, 1, 2]);
        assert_eq!((all, sequence.lost(3), sequence.lost(5)), (vec![New; 3], 0, 2));
        let (sequence, all) = seen(&[0, 1, 1, 0, 2]);
        assert_eq!((all, sequence.lost(3)), (vec![New, New, Twice, Twice, New], 0));
        let (sequence, all) = seen(&[0, 5, 3, 3, 1, 2, 6]);
        assert_eq!(all, [New, New, Late, Twice, Late, Late, New]);
        assert_eq!(sequence.lost(7), 1, "number 4");
        let (sequence, all) = seen(&[2, 4, 4]);
        assert_eq!((all, sequence.lost(5)), (vec![New, New, Twice], 3));
        assert_eq!(seen(&[]).0.lost(9), 9);
    }

    #[test]
    fn remembered_gaps_are_bounded() {
        let every_other = |gaps: u64| (0..gaps).map(|at| 2 * at + 1).collect::<Vec<u64>>();
        let full = GAPS_MAX as u64;
        let (mut sequence, _) = seen(&every_other(full));
        assert_eq!(sequence.see(0), Seen::Late, "the oldest of as many as there may be");
        let (mut sequence, _) = seen(&every_other(full + 1));
        assert_eq!(sequence.lost(2 * full + 2), full + 1);
        assert_eq!(sequence.see(0), Seen::Twice, "forgotten");
        assert_eq!(sequence.see(2), Seen::Late);
        assert_eq!(sequence.lost(2 * full + 2), full);
        assert_eq!(sequence.gaps.len(), GAPS_MAX - 1);
    }

    #[test]
    fn a_gap_that_is_split_counts_against_the_bound() {
        let full = GAPS_MAX as u64;
        let (mut sequence, _) = seen(&(1..=full).map(|at| 4 * at - 1).collect::<Vec<_>>());
        assert_eq!((sequence.gaps.len(), sequence.lost(4 * full)), (GAPS_MAX, 3 * full));
        assert_eq!(sequence.see(5), Seen::Late, "in the middle of 4, 5, 6");
        assert_eq!((sequence.gaps.len(), sequence.lost(4 * full)), (GAPS_MAX, 3 * full - 1));
        assert_eq!(sequence.see(1), Seen::Twice, "the oldest made room");
    }
}
