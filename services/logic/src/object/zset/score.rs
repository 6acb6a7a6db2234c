//! Scores: as entries of a packed set, as text, and as bounds of ranges.
//!
//! Next: `zset.rs`.

use std::io::Write as _;

use crate::object::{packed::Entry, tree::Cut};

/// Integers up to this are exact, and are kept as such.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Integers up to this are written as such in dumps: half of what 64 bits hold.
const INTEGER_MAX: f64 = 4_611_686_018_427_387_904.0;

/// Room for the text of one score.
pub(super) struct ScoreText {
    bytes: [u8; 32],
    len: usize,
}

impl ScoreText {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; 32], len: 0 }
    }

    /// A score's entry: an integer, or the shortest text that reads as the same double. A negative
    /// zero becomes plain, as in Redis' small sets (in its large ones it stays).
    pub(super) fn entry(&mut self, score: f64) -> Entry<'_> {
        if score.fract() == 0.0 && score.abs() <= EXACT_MAX {
            #[expect(clippy::cast_possible_truncation, reason = "an integer in range")]
            return Entry::Int(score as i64);
        }
        let mut room = &mut self.bytes[..];
        // The longest is `-1.7976931348623157e-308`, 24 bytes.
        let written = write!(room, "{score:e}").is_ok();
        let left = room.len();
        self.len = if written { self.bytes.len() - left } else { 0 };
        Entry::Str(self.bytes.get(..self.len).unwrap_or_default())
    }
}

/// The score of such an entry, or of one that Redis wrote.
pub(super) fn score_of_entry(entry: Entry<'_>) -> f64 {
    match entry {
        Entry::Int(value) => value as f64,
        Entry::Str(text) => parse_score(text).unwrap_or(0.0),
    }
}

/// A score as Redis 7.0 keeps it in a small set: an integer's digits, or 17 significant ones as C's `%.17g` writes
/// them.
#[must_use]
pub fn score_text(score: f64) -> Vec<u8> {
    if score.fract() == 0.0 && score.abs() <= INTEGER_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "an integer in range")]
        return Entry::Int(score as i64).to_vec();
    }
    if score.is_infinite() {
        return if score > 0.0 { b"inf".to_vec() } else { b"-inf".to_vec() };
    }
    let text = format!("{score:.16e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    let point = |digits: &str, at: usize| match digits.split_at_checked(at) {
        Some((whole, part)) if !part.is_empty() => format!("{sign}{whole}.{part}"),
        _ => format!("{sign}{digits:0<at$}"),
    };
    let out = match exponent {
        -4..0 => {
            let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
            format!("{sign}0.{:0<zeros$}{digits}", "")
        }
        0..17 => point(digits, usize::try_from(exponent).unwrap_or(0) + 1),
        _ => {
            let mark = if exponent < 0 { '-' } else { '+' };
            format!("{}e{mark}{:02}", point(digits, 1), exponent.abs())
        }
    };
    out.into_bytes()
}

/// A score in text: decimal, with or without exponent, or an infinity; not NaN.
#[must_use]
pub fn parse_score(text: &[u8]) -> Option<f64> {
    let score: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!score.is_nan()).then_some(score)
}

/// One end of a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScoreBound {
    /// The score belongs to the range.
    Inclusive(f64),
    /// It does not.
    Exclusive(f64),
}

impl ScoreBound {
    /// Reads `1.5`, `(1.5`, `-inf`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text {
            [b'(', rest @ ..] => parse_score(rest).map(Self::Exclusive),
            rest => parse_score(rest).map(Self::Inclusive),
        }
    }

    pub(super) const fn as_min(self) -> Cut<'static> {
        match self {
            Self::Inclusive(score) => Cut::BeforeScore(score),
            Self::Exclusive(score) => Cut::AfterScore(score),
        }
    }

    pub(super) const fn as_max(self) -> Cut<'static> {
        match self {
            Self::Inclusive(score) => Cut::AfterScore(score),
            Self::Exclusive(score) => Cut::BeforeScore(score),
        }
    }
}

/// One end of a range of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before every member, `-`.
    Least,
    /// After every member, `+`.
    Most,
    /// The member belongs to the range.
    Inclusive(&'a [u8]),
    /// It does not.
    Exclusive(&'a [u8]),
}

impl<'a> LexBound<'a> {
    /// Reads `-`, `+`, `[a`, `(a`.
    #[must_use]
    pub const fn parse(text: &'a [u8]) -> Option<Self> {
        match text {
            [b'-'] => Some(Self::Least),
            [b'+'] => Some(Self::Most),
            [b'[', member @ ..] => Some(Self::Inclusive(member)),
            [b'(', member @ ..] => Some(Self::Exclusive(member)),
            _ => None,
        }
    }

    pub(super) const fn as_min(self) -> Cut<'a> {
        match self {
            Self::Least => Cut::Start,
            Self::Most => Cut::End,
            Self::Inclusive(member) => Cut::BeforeMember(member),
            Self::Exclusive(member) => Cut::AfterMember(member),
        }
    }

    pub(super) const fn as_max(self) -> Cut<'a> {
        match self {
            Self::Least => Cut::Start,
            Self::Most => Cut::End,
            Self::Inclusive(member) => Cut::AfterMember(member),
            Self::Exclusive(member) => Cut::BeforeMember(member),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_written_as_by_printf() {
        // From C's printf("%.17g").
        for (score, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (-123_456_789.0, "-123456789"),
            (0.1, "0.10000000000000001"),
            (3.3, "3.2999999999999998"),
            (0.5, "0.5"),
            (-2.5, "-2.5"),
            (100.25, "100.25"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (1e-7, "9.9999999999999995e-08"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e20, "1e+20"),
            (-1e300, "-1.0000000000000001e+300"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (1e17, "100000000000000000"),
            (9_007_199_254_740_993.5, "9007199254740994"),
            (1234.567, "1234.567"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let written = score_text(score);
            assert_eq!(String::from_utf8_lossy(&written), text);
            assert_eq!(parse_score(&written), Some(score));
        }
    }
}
