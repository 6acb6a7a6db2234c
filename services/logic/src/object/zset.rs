//! Sorted sets: members with scores, in the order of (score, member bytes).
//!
//! Small ones are a packed sequence of members and scores in turn, in order, Redis' listpack; from
//! a limit on, a counted [`Tree`] gives ranks and ranges, and a table beside it finds the item of a
//! member. Every range, by index, score or member, is first made a range of ranks; going
//! through it, counting it and removing it are then the same for all.
//!
//! Invariants: tree and table hold the same items; no score is NaN; a set that became large stays
//! so, as in Redis; [`mem_bytes`](Zset::mem_bytes) is the capacity of everything held.
//! Next: `tree.rs` for the order, `zset/combine.rs` for unions and intersections.

pub mod combine;
mod iter;
mod score;

use std::ops::Range;

pub use iter::Iter;
pub use score::{LexBound, ScoreBound, parse_score, score_text};

use self::score::{ScoreText, score_of_entry};
use super::{
    Cx, Hasher, Rng,
    packed::{Digits, Entry, Packed, Pos},
    span,
    table::{Keyed, SplitTable, Spot},
    tree::{Cut, ItemRef, Tree, compare_scores},
};

/// A member with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored<'a> {
    /// The member.
    pub member: Entry<'a>,
    /// Its score.
    pub score: f64,
}

/// A result would not be a number: an infinity and its opposite were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotANumber;

/// ZADD's conditions.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddRules {
    /// Only new members.
    pub nx: bool,
    /// Only members that are there.
    pub xx: bool,
    /// A member that is there only gets a greater score.
    pub gt: bool,
    /// A member that is there only gets a lower score.
    pub lt: bool,
    /// The score is added to the one there is.
    pub incr: bool,
}

/// What became of an addition; the score is the one the member has now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Added {
    /// The member is new.
    New(f64),
    /// It has another score.
    Changed(f64),
    /// It had that score.
    Same(f64),
    /// The rules forbid it.
    Refused,
}

/// One entry of the member table: where the item is, and enough of its hash to split leaves by.
struct Named {
    hash: u32,
    at: ItemRef,
}

impl Named {
    fn new(hash: u64, at: ItemRef) -> Self {
        Self { hash: (hash >> 32) as u32, at }
    }
}

impl Keyed for Named {
    fn hash(&self, _: &Hasher) -> u64 {
        // What leaves and cursors look at; a directory is at most 32 bits deep.
        u64::from(self.hash) << 32
    }

    /// Never asked: members lie in the tree, and [`Sorted::find`] compares there.
    fn has_key(&self, _: &[u8]) -> bool {
        false
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

/// The form of large sets.
struct Sorted {
    tree: Tree,
    table: SplitTable<Named>,
}

impl Sorted {
    fn find(&self, member: &[u8], hash: u64) -> Option<(Spot, ItemRef)> {
        let leaf = self.table.leaf_of(hash)?;
        let has =
            |named: &Named| self.tree.item(named.at).is_some_and(|item| *item.member == *member);
        let at = self.table.leaves.get(leaf as usize)?.find(hash, has)?;
        let spot = Spot { leaf, at: u32::try_from(at).ok()? };
        Some((spot, self.table.at(spot)?.at))
    }

    fn insert(&mut self, member: &[u8], score: f64, hasher: &Hasher) {
        if let Some(at) = self.tree.insert(score, member) {
            let hash = hasher.hash(member);
            self.table.insert(hash, Named::new(hash, at), hasher);
        }
    }

    fn remove(&mut self, member: &[u8], hasher: &Hasher) -> Option<f64> {
        let (spot, at) = self.find(member, hasher.hash(member))?;
        self.table.remove_at(spot);
        self.tree.remove(at).map(|item| item.score)
    }
}

enum Form {
    Packed(Packed),
    Sorted(Box<Sorted>),
}

/// A sorted set.
pub struct Zset {
    form: Form,
}

impl Default for Zset {
    fn default() -> Self {
        Self::new()
    }
}

impl Zset {
    /// An empty set, packed, without an allocation.
    #[must_use]
    pub const fn new() -> Self {
        Self { form: Form::Packed(Packed::new()) }
    }

    /// Members.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Packed(packed) => packed.len() / 2,
            Form::Sorted(sorted) => sorted.tree.len(),
        }
    }

    /// Whether it is in the form of small ones.
    #[must_use]
    pub const fn is_packed(&self) -> bool {
        matches!(self.form, Form::Packed(_))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all allocations held.
    #[must_use]
    pub fn mem_bytes(&self) -> usize {
        match &self.form {
            Form::Packed(packed) => packed.heap_bytes(),
            Form::Sorted(sorted) => {
                size_of::<Sorted>() + sorted.tree.mem_bytes() + sorted.table.heap_bytes()
            }
        }
    }

    /// The name OBJECT ENCODING gives.
    #[must_use]
    pub const fn encoding(&self) -> &'static str {
        match self.form {
            Form::Packed(_) => "listpack",
            Form::Sorted(_) => "skiplist",
        }
    }

    /// Adds a member or changes its score.
    ///
    /// # Errors
    ///
    /// [`NotANumber`], for the sum or for the score itself.
    pub fn add(
        &mut self,
        member: &[u8],
        score: f64,
        rules: AddRules,
        cx: Cx<'_>,
    ) -> Result<Added, NotANumber> {
        if score.is_nan() {
            return Err(NotANumber);
        }
        let Some(current) = self.score(member, cx) else {
            if rules.xx {
                return Ok(Added::Refused);
            }
            self.insert(member, score, cx);
            return Ok(Added::New(score));
        };
        if rules.nx {
            return Ok(Added::Refused);
        }
        let score = if rules.incr { current + score } else { score };
        if score.is_nan() {
            return Err(NotANumber);
        }
        if (rules.lt && score >= current) || (rules.gt && score <= current) {
            return Ok(Added::Refused);
        }
        if score == current {
            return Ok(Added::Same(score));
        }
        self.rescore(member, score, cx);
        Ok(Added::Changed(score))
    }

    /// Removes a member; its score.
    pub fn remove(&mut self, member: &[u8], cx: Cx<'_>) -> Option<f64> {
        match &mut self.form {
            Form::Packed(packed) => {
                let (at, score) = find_packed(packed, member)?;
                packed.remove(at, 2);
                Some(score)
            }
            Form::Sorted(sorted) => sorted.remove(member, cx.hasher),
        }
    }

    /// A member's score.
    #[must_use]
    pub fn score(&self, member: &[u8], cx: Cx<'_>) -> Option<f64> {
        match &self.form {
            Form::Packed(packed) => find_packed(packed, member).map(|(_, score)| score),
            Form::Sorted(sorted) => {
                let (_, at) = sorted.find(member, cx.hasher.hash(member))?;
                sorted.tree.item(at).map(|item| item.score)
            }
        }
    }

    /// A member's rank, from the lowest or the highest, and its score.
    #[must_use]
    pub fn rank(&self, member: &[u8], reverse: bool, cx: Cx<'_>) -> Option<(usize, f64)> {
        let (rank, score) = match &self.form {
            Form::Packed(_) => {
                let needle = Entry::from(member);
                self.iter(0..usize::MAX)
                    .enumerate()
                    .find(|(_, item)| item.member.same(&needle))
                    .map(|(rank, item)| (rank, item.score))?
            }
            Form::Sorted(sorted) => {
                let (_, at) = sorted.find(member, cx.hasher.hash(member))?;
                (sorted.tree.rank_of(at)?, sorted.tree.item(at)?.score)
            }
        };
        Some((if reverse { self.len() - 1 - rank } else { rank }, score))
    }

    /// Ranks of a range of indexes, both bounds inside, negative ones from the end; counted from
    /// the highest member when `reverse`, and then to be gone through backwards.
    #[must_use]
    pub fn by_index(&self, start: i64, stop: i64, reverse: bool) -> Range<usize> {
        let len = self.len();
        let span = span::clip(start, stop, len);
        if reverse { len - span.end..len - span.start } else { span }
    }

    /// Ranks of a range of scores.
    #[must_use]
    pub fn by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        self.between(min.as_min(), max.as_max())
    }

    /// Ranks of a range of members, where all scores are equal.
    #[must_use]
    pub fn by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        self.between(min.as_min(), max.as_max())
    }

    /// The member of a rank.
    #[must_use]
    pub fn at(&self, rank: usize) -> Option<Scored<'_>> {
        match &self.form {
            Form::Packed(_) => self.iter(rank..rank.checked_add(1)?).next(),
            Form::Sorted(sorted) => {
                let item = sorted.tree.item(sorted.tree.at_rank(rank)?)?;
                Some(Scored { member: Entry::Str(&item.member), score: item.score })
            }
        }
    }

    /// The members of these ranks, from either end.
    #[must_use]
    pub fn iter(&self, ranks: Range<usize>) -> Iter<'_> {
        let end = ranks.end.min(self.len());
        let ranks = ranks.start.min(end)..end;
        match &self.form {
            Form::Packed(packed) => Iter::packed(packed, ranks),
            Form::Sorted(sorted) => Iter::tree(&sorted.tree, ranks),
        }
    }

    /// Removes the members of these ranks; how many there were.
    pub fn remove_ranks(&mut self, ranks: Range<usize>, cx: Cx<'_>) -> usize {
        let end = ranks.end.min(self.len());
        let start = ranks.start.min(end);
        match &mut self.form {
            Form::Packed(packed) => {
                packed.remove_range(start * 2, (end - start) * 2);
            }
            Form::Sorted(sorted) => {
                let mut gone = Vec::with_capacity(end - start);
                sorted.tree.unlink(start..end, &mut gone);
                for at in gone {
                    if let Some(item) = sorted.tree.item(at)
                        && let Some((spot, _)) =
                            sorted.find(&item.member, cx.hasher.hash(&item.member))
                    {
                        sorted.table.remove_at(spot);
                    }
                    sorted.tree.forget(at);
                }
            }
        }
        end - start
    }

    /// Takes up to `count` of the lowest members, or of the highest ones, which come first then.
    pub fn pop(&mut self, highest: bool, count: usize, cx: Cx<'_>) -> Vec<(Vec<u8>, f64)> {
        let len = self.len();
        let count = count.min(len);
        let ranks = if highest { len - count..len } else { 0..count };
        let owned = |item: Scored<'_>| (item.member.to_vec(), item.score);
        let items = self.iter(ranks.clone());
        let out =
            if highest { items.rev().map(owned).collect() } else { items.map(owned).collect() };
        self.remove_ranks(ranks, cx);
        out
    }

    /// Members by chance: up to `count` different ones, or `-count` with repetitions. All of them come in the order in
    /// which Redis gives them, the highest first.
    pub fn sample(&self, count: i64, rng: &mut Rng, mut each: impl FnMut(Scored<'_>)) {
        let len = self.len();
        let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        if len == 0 {
            return;
        }
        if count > 0 && most >= len {
            return self.iter(0..len).rev().for_each(each);
        }
        let below = |rng: &mut Rng, bound: usize| {
            rng.below(u32::try_from(bound).unwrap_or(u32::MAX)) as usize
        };
        if count < 0 {
            // A packed set is gone through once, not once for each.
            let all: Vec<Scored<'_>> = match &self.form {
                Form::Packed(_) => self.iter(0..len).collect(),
                Form::Sorted(_) => Vec::new(),
            };
            for _ in 0..most {
                let rank = below(rng, len);
                if let Some(item) = all.get(rank).copied().or_else(|| self.at(rank)) {
                    each(item);
                }
            }
            return;
        }
        // Floyd's: each set of ranks is equally likely; the order is shuffled afterwards.
        let mut ranks = Vec::with_capacity(most);
        let mut seen = view::HashSet::default();
        for last in len - most..len {
            let rank = below(rng, last + 1);
            let rank = if seen.insert(rank) { rank } else { last };
            seen.insert(rank);
            ranks.push(rank);
        }
        for at in (1..ranks.len()).rev() {
            ranks.swap(at, below(rng, at + 1));
        }
        ranks.into_iter().filter_map(|rank| self.at(rank)).for_each(each);
    }

    /// One step over the members: calls `each` for about `count` of them (for all of a packed set)
    /// and returns the next cursor, 0 at the end. A member that is there all the time is given.
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        cx: Cx<'_>,
        mut each: impl FnMut(Scored<'_>),
    ) -> u64 {
        match &self.form {
            Form::Packed(_) => {
                self.iter(0..usize::MAX).for_each(each);
                0
            }
            Form::Sorted(sorted) => sorted.table.scan(cursor, count, cx.hasher, |named| {
                if let Some(item) = sorted.tree.item(named.at) {
                    each(Scored { member: Entry::Str(&item.member), score: item.score });
                }
            }),
        }
    }

    /// Takes a set apart that is no longer used, freeing about `budget` members; whether any are
    /// left.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        if let Form::Sorted(sorted) = &mut self.form
            && (sorted.table.reclaim(budget) || sorted.tree.reclaim(budget))
        {
            return true;
        }
        *self = Self::new();
        false
    }

    fn between(&self, from: Cut<'_>, to: Cut<'_>) -> Range<usize> {
        let start = self.rank_at(from);
        start..self.rank_at(to).max(start)
    }

    fn rank_at(&self, cut: Cut<'_>) -> usize {
        match &self.form {
            Form::Packed(_) => {
                let mut digits = Digits::new();
                let is_before =
                    |item: &Scored<'_>| cut.is_after(item.score, || item.member.text(&mut digits));
                self.iter(0..usize::MAX).take_while(is_before).count()
            }
            Form::Sorted(sorted) => sorted.tree.rank_at(cut),
        }
    }

    /// Adds a member that is not there.
    fn insert(&mut self, member: &[u8], score: f64, cx: Cx<'_>) {
        match &mut self.form {
            Form::Packed(packed)
                if packed.len() / 2 < cx.limits.zset_max_listpack_entries
                    && member.len() <= cx.limits.zset_max_listpack_value =>
            {
                insert_packed(packed, member, score);
            }
            Form::Packed(_) => {
                self.sort(cx);
                self.insert(member, score, cx);
            }
            Form::Sorted(sorted) => sorted.insert(member, score, cx.hasher),
        }
    }

    /// Gives a member that is there another score.
    fn rescore(&mut self, member: &[u8], score: f64, cx: Cx<'_>) {
        match &mut self.form {
            Form::Packed(packed) => {
                if let Some((at, _)) = find_packed(packed, member) {
                    packed.remove(at, 2);
                }
                insert_packed(packed, member, score);
            }
            Form::Sorted(sorted) => {
                if let Some((_, at)) = sorted.find(member, cx.hasher.hash(member)) {
                    sorted.tree.rescore(at, score);
                }
            }
        }
    }

    /// Makes a packed set a sorted one.
    fn sort(&mut self, cx: Cx<'_>) {
        let Form::Packed(packed) = &self.form else { return };
        let mut sorted = Sorted { tree: Tree::new(), table: SplitTable::new() };
        let mut digits = Digits::new();
        for (member, score) in packed.pairs() {
            sorted.insert(member.text(&mut digits), score_of_entry(score), cx.hasher);
        }
        self.form = Form::Sorted(Box::new(sorted));
    }
}

/// Position and score of a member.
fn find_packed(packed: &Packed, member: &[u8]) -> Option<(Pos, f64)> {
    let at = packed.find(packed.first(), member, 2)?;
    let score = packed.get(packed.next(at)?)?;
    Some((at, score_of_entry(score)))
}

fn insert_packed(packed: &mut Packed, member: &[u8], score: f64) {
    let cut = Cut::Item(score, member);
    let mut digits = Digits::new();
    let mut pos = packed.first();
    while let Some(at) = pos {
        let Some(after) = packed.next(at) else { break };
        let held = packed.get(after).map_or(0.0, score_of_entry);
        let is_before = match compare_scores(held, score) {
            std::cmp::Ordering::Equal => {
                packed.get(at).is_some_and(|entry| cut.is_after(held, || entry.text(&mut digits)))
            }
            order => order.is_lt(),
        };
        if !is_before {
            break;
        }
        pos = packed.next(after);
    }
    let mut text = ScoreText::new();
    packed.insert_all(pos, &[Entry::from(member), text.entry(score)]);
}

/// Ranks of `LIMIT offset count`: those left when `offset` are skipped, from the end when
/// `reverse`, and at most `count`, all for a negative one. A negative offset leaves none.
#[must_use]
pub fn limit(ranks: Range<usize>, offset: i64, count: i64, reverse: bool) -> Range<usize> {
    let Ok(offset) = usize::try_from(offset) else { return ranks.start..ranks.start };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let offset = offset.min(ranks.len());
    let count = count.min(ranks.len() - offset);
    if reverse {
        ranks.end - offset - count..ranks.end - offset
    } else {
        ranks.start + offset..ranks.start + offset + count
    }
}

#[cfg(test)]
mod tests;
