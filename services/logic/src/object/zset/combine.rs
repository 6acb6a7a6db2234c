//! Unions, intersections and differences of sorted sets, and of plain sets among them.
//!
//! Arithmetic is Redis': inputs are taken from the smallest on (which shows in rounded sums), a
//! product that is no number counts as 0, and so does such a sum.
//! Next: [`Source`] is what an input must offer.

use super::{AddRules, Cx, Digits, Zset};
use crate::object::Set;

/// An input: a collection whose members have scores, 1 in a plain set.
pub trait Source {
    /// Members.
    fn source_len(&self) -> usize;
    /// A member's score.
    fn source_score(&self, member: &[u8], cx: Cx<'_>) -> Option<f64>;
    /// Calls `each` for all members, until it returns false.
    fn each(&self, each: &mut dyn FnMut(&[u8], f64) -> bool);
}

impl Source for Zset {
    fn source_len(&self) -> usize {
        self.len()
    }

    fn source_score(&self, member: &[u8], cx: Cx<'_>) -> Option<f64> {
        self.score(member, cx)
    }

    fn each(&self, each: &mut dyn FnMut(&[u8], f64) -> bool) {
        let mut digits = Digits::new();
        for item in self.iter(0..usize::MAX) {
            if !each(item.member.text(&mut digits), item.score) {
                return;
            }
        }
    }
}

impl Source for Set {
    fn source_len(&self) -> usize {
        self.len()
    }

    fn source_score(&self, member: &[u8], cx: Cx<'_>) -> Option<f64> {
        self.contains(member, cx).then_some(1.0)
    }

    fn each(&self, each: &mut dyn FnMut(&[u8], f64) -> bool) {
        let mut digits = Digits::new();
        for member in self.iter() {
            if !each(member.text(&mut digits), 1.0) {
                return;
            }
        }
    }
}

/// An input and its weight.
#[derive(Clone, Copy)]
pub struct Weighted<'a> {
    /// The input.
    pub source: &'a dyn Source,
    /// What its scores are multiplied by.
    pub weight: f64,
}

impl Weighted<'_> {
    fn score(&self, score: f64) -> f64 {
        number_or_zero(self.weight * score)
    }
}

/// How scores of one member become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aggregate {
    /// Their sum.
    #[default]
    Sum,
    /// The lowest.
    Min,
    /// The highest.
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Sum => number_or_zero(a + b),
            Self::Min if b < a => b,
            Self::Max if b > a => b,
            Self::Min | Self::Max => a,
        }
    }
}

const fn number_or_zero(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value }
}

fn smallest_first<'a>(inputs: &[Weighted<'a>]) -> Vec<Weighted<'a>> {
    let mut sorted = inputs.to_vec();
    sorted.sort_by_key(|input| input.source.source_len());
    sorted
}

/// A member of the result; NaN does not come here.
fn put(out: &mut Zset, member: &[u8], score: f64, cx: Cx<'_>) {
    let _ = out.add(member, score, AddRules::default(), cx);
}

/// The members of any input.
#[must_use]
pub fn union(inputs: &[Weighted<'_>], aggregate: Aggregate, cx: Cx<'_>) -> Zset {
    let mut out = Zset::new();
    for input in smallest_first(inputs) {
        input.source.each(&mut |member, score| {
            let score = input.score(score);
            let score = match out.score(member, cx) {
                Some(there) => aggregate.of(there, score),
                None => score,
            };
            put(&mut out, member, score, cx);
            true
        });
    }
    out
}

/// The members of all inputs.
#[must_use]
pub fn inter(inputs: &[Weighted<'_>], aggregate: Aggregate, cx: Cx<'_>) -> Zset {
    let mut out = Zset::new();
    let sorted = smallest_first(inputs);
    let Some((first, others)) = sorted.split_first() else { return out };
    first.source.each(&mut |member, score| {
        let mut sum = first.score(score);
        for other in others {
            let Some(score) = other.source.source_score(member, cx) else { return true };
            sum = aggregate.of(sum, score * other.weight);
        }
        put(&mut out, member, sum, cx);
        true
    });
    out
}

/// How many members all inputs have, counted up to `most`; 0 is no limit.
#[must_use]
pub fn inter_len(inputs: &[&dyn Source], most: usize, cx: Cx<'_>) -> usize {
    let mut sorted = inputs.to_vec();
    sorted.sort_by_key(|input| input.source_len());
    let Some((first, others)) = sorted.split_first() else { return 0 };
    let mut count = 0;
    first.each(&mut |member, _| {
        if others.iter().all(|other| other.source_score(member, cx).is_some()) {
            count += 1;
        }
        count != most || most == 0
    });
    count
}

/// The members of the first input that no other has, with their scores.
#[must_use]
pub fn diff(inputs: &[&dyn Source], cx: Cx<'_>) -> Zset {
    let mut out = Zset::new();
    let Some((first, others)) = inputs.split_first() else { return out };
    first.each(&mut |member, score| {
        if others.iter().all(|other| other.source_score(member, cx).is_none()) {
            put(&mut out, member, score, cx);
        }
        true
    });
    out
}
