//! Scores: as entries of a packed set, as text, and as bounds of ranges.
//!
//! Next: `zset.rs`.

use std::io::Write as _;

use crate::object::{packed::Entry, tree::Cut};

/// Integers up to this are exact, and are kept as such.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

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
