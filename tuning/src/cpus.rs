//! Sets of processors as the kernel writes them: lists such as `0-3,8`, and masks such as `ff,00000000`.
//!
//! Invariants: what either form is read from is written back as the same set; numbers are below [`MAX`]. Next: `host`.

use std::fmt;

/// Processors are numbered below this, as in the largest kernel configuration.
pub const MAX: usize = 8192;

/// A set of processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet {
    /// In order, each once.
    numbers: Vec<usize>,
}

impl CpuSet {
    /// Reads a list such as `0-3,8`, or nothing of an empty one.
    #[must_use]
    pub fn from_list(text: &str) -> Option<Self> {
        let mut numbers = Vec::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            if first > last || last >= MAX {
                return None;
            }
            numbers.extend(first..=last);
        }
        Some(numbers.into_iter().collect())
    }

    /// Reads a mask of hexadecimal digits in groups of 32 bits, the highest first.
    #[must_use]
    pub fn from_mask(text: &str) -> Option<Self> {
        let mut numbers = Vec::new();
        for (group, digits) in text.trim().rsplit(',').enumerate() {
            if digits.is_empty() || digits.len() > 8 || group * 32 >= MAX {
                return None;
            }
            let bits = u32::from_str_radix(digits, 16).ok()?;
            numbers.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| group * 32 + bit));
        }
        Some(numbers.into_iter().collect())
    }

    /// The mask that [`Self::from_mask`] reads.
    #[must_use]
    pub fn mask(&self) -> String {
        let mut groups = vec![0_u32; self.numbers.last().map_or(1, |last| last / 32 + 1)];
        for number in &self.numbers {
            if let Some(group) = groups.get_mut(number / 32) {
                *group |= 1 << (number % 32);
            }
        }
        let mut text = String::new();
        for group in groups.iter().rev() {
            text.push_str(&if text.is_empty() {
                format!("{group:x}")
            } else {
                format!(",{group:08x}")
            });
        }
        text
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.numbers.len()
    }

    /// None at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// They, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.numbers.iter().copied()
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, number: usize) -> bool {
        self.numbers.binary_search(&number).is_ok()
    }

    /// Those of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.iter().filter(|number| other.contains(*number)).collect()
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.iter().filter(|number| !other.contains(*number)).collect()
    }

    /// The `index`-th, counted round and round.
    #[must_use]
    pub fn round(&self, index: usize) -> Option<usize> {
        self.numbers.get(index.checked_rem(self.len())?).copied()
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut numbers: Vec<usize> = numbers.into_iter().filter(|number| *number < MAX).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self { numbers }
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        while let Some(first) = self.numbers.get(at).copied() {
            let run = self.numbers.iter().skip(at).zip(first..);
            let length = run.take_while(|(number, expected)| *number == expected).count();
            let comma = if at == 0 { "" } else { "," };
            match length {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", first + length - 1)?,
            }
            at += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_are_the_same_sets() {
        for (list, mask) in [
            ("0", "1"),
            ("0-3", "f"),
            ("0-1,4,6-7", "d3"),
            ("31-32", "1,80000000"),
            ("0-63", "ffffffff,ffffffff"),
            ("64", "1,00000000,00000000"),
            ("", "0"),
        ] {
            let set = CpuSet::from_list(list).expect("a list");
            assert_eq!(set.to_string(), list);
            assert_eq!(set.mask(), mask);
            assert_eq!(CpuSet::from_mask(mask).expect("a mask"), set);
        }
        assert_eq!(CpuSet::from_mask("00000000,00000003"), CpuSet::from_list("0-1\n"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for list in ["3-1", "a", "1-", "0-8192", "-"] {
            assert_eq!(CpuSet::from_list(list), None, "{list}");
        }
        for mask in ["", "g", "123456789", "1,,1", "0x3"] {
            assert_eq!(CpuSet::from_mask(mask), None, "{mask}");
        }
        assert_eq!(CpuSet::from_list("8191").expect("the last").len(), 1);
    }

    #[test]
    fn round_and_round() {
        let set = CpuSet::from_list("2,5").expect("a list");
        assert_eq!(
            [0, 1, 2, 3].map(|index| set.round(index)),
            [Some(2), Some(5), Some(2), Some(5)]
        );
        assert_eq!(CpuSet::default().round(3), None);
        let other = CpuSet::from_list("5-6").expect("a list");
        assert_eq!(
            (set.and(&other).to_string(), set.without(&other).to_string()),
            ("5".into(), "2".into())
        );
    }
}
