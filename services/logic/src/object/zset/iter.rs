//! Going through a range of ranks, from either end.

use std::ops::Range;

use super::{Entry, Packed, Scored, Tree, score::score_of_entry};
use crate::object::{packed, tree};

enum Source<'a> {
    Packed(packed::Iter<'a>),
    Tree(&'a Tree, tree::Items<'a>),
}

/// Members with their scores; see [`Zset::iter`](super::Zset::iter).
pub struct Iter<'a> {
    source: Source<'a>,
    left: usize,
}

impl<'a> Iter<'a> {
    pub(super) fn packed(packed: &'a Packed, ranks: Range<usize>) -> Self {
        let mut iter = packed.iter();
        let behind = packed.len() - ranks.end * 2;
        if let Some(skip) = (ranks.start * 2).checked_sub(1) {
            iter.nth(skip);
        }
        if let Some(skip) = behind.checked_sub(1) {
            iter.nth_back(skip);
        }
        Self { source: Source::Packed(iter), left: ranks.len() }
    }

    pub(super) fn tree(tree: &'a Tree, ranks: Range<usize>) -> Self {
        let left = ranks.len();
        Self { source: Source::Tree(tree, tree.range(ranks)), left }
    }
}

fn of_tree(tree: &Tree, at: u32) -> Option<Scored<'_>> {
    let item = tree.item(at)?;
    Some(Scored { member: Entry::Str(&item.member), score: item.score })
}

impl<'a> Iterator for Iter<'a> {
    type Item = Scored<'a>;

    fn next(&mut self) -> Option<Scored<'a>> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.source {
            Source::Packed(iter) => {
                let member = iter.next()?;
                Some(Scored { member, score: score_of_entry(iter.next()?) })
            }
            Source::Tree(tree, items) => of_tree(tree, items.next()?),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.source {
            Source::Packed(iter) => {
                let score = score_of_entry(iter.next_back()?);
                Some(Scored { member: iter.next_back()?, score })
            }
            Source::Tree(tree, items) => of_tree(tree, items.next_back()?),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}
