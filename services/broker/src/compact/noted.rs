//! What a partition remembers of its compaction over a start: a small file beside the log.
//!
//! ```text
//! 0                       version
//! cleaned_to gaps_to      everything before the first is compacted (-1: nothing), before the second offsets may be missing
//! base end                segments from base up to end are being replaced by base.log.swap (-1 -1: none are)
//! ```
//! Kafka keeps the first in `cleaner-offset-checkpoint` and finds out the others by reading; here a start trusts
//! sidecars and need not read. Invariant: `gaps_to` is durable before the first segment with gaps is, so that a gap before it is
//! known from a lost write. Next: `swap` for when it is written.

/// Its name.
pub(crate) const FILE: &str = "compaction";

/// What is in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Where the last round ended.
    pub(crate) cleaned_to: Option<i64>,
    /// Segments before are durable, and may lack offsets.
    pub(crate) gaps_to: i64,
    /// The segments that are being replaced: first offset, and the first behind them.
    pub(crate) swap: Option<(i64, i64)>,
}

impl Noted {
    /// The file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (base, end) = self.swap.unwrap_or((-1, -1));
        let cleaned_to = self.cleaned_to.unwrap_or(-1);
        format!("0\n{cleaned_to} {}\n{base} {end}\n", self.gaps_to).into_bytes()
    }

    /// Reads it; `None` when it is damaged.
    pub(crate) fn decode(file: &[u8]) -> Option<Self> {
        let pair = |line: &str| {
            let (first, second) = line.split_once(' ')?;
            Some((first.parse::<i64>().ok()?, second.parse::<i64>().ok()?))
        };
        let lines: Vec<&str> = str::from_utf8(file).ok()?.lines().collect();
        let ["0", marks, swap] = lines[..] else { return None };
        let (cleaned_to, gaps_to) = pair(marks)?;
        let swap = pair(swap)?;
        Some(Self {
            cleaned_to: (cleaned_to >= 0).then_some(cleaned_to),
            gaps_to: gaps_to.max(0),
            swap: (0 <= swap.0 && swap.0 < swap.1).then_some(swap),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back_and_damage_is_seen() {
        for noted in [
            Noted::default(),
            Noted { cleaned_to: Some(0), gaps_to: 7, swap: None },
            Noted { cleaned_to: Some(40), gaps_to: 90, swap: Some((0, 90)) },
        ] {
            let file = noted.encode();
            assert_eq!(Noted::decode(&file), Some(noted));
            let end = file.len() - 1;
            for cut in 0..end - 2 {
                assert_ne!(Noted::decode(&file[..cut]), Some(noted), "cut at {cut}");
            }
        }
        for file in ["", "1\n-1 0\n-1 -1\n", "0\n-1\n-1 -1\n", "0\nx 0\n-1 -1\n", "0\n-1 0\n"] {
            assert_eq!(Noted::decode(file.as_bytes()), None, "{file:?}");
        }
    }
}
