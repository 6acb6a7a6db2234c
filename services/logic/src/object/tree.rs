//! A B+tree with counts, ordered by (score, member): the sorted half of a large sorted set.
//!
//! Items live once, in a slab; leaves hold their names. An inner entry knows its subtree's count and
//! its first item, so a rank is found by adding counts, and a place by comparing first items. All
//! searches are one function, [`Tree::rank_at`] of a [`Cut`]; everything else works on ranks.
//!
//! Invariants: an entry's count and first item are those of its subtree; no node is empty; all
//! leaves are at one depth; all nodes but those at the tree's two edges are at least a quarter
//! full; no score is NaN, and -0 equals 0. No call moves more than one node a level, except for
//! what a removal of a range frees.
//! Next: `zset.rs` puts a member table beside it.

use std::{cmp::Ordering, ops::Range};

use super::slab::Slab;

const LEAF_MAX: usize = 64;
const INNER_MAX: usize = 32;
const LEAF_MIN: usize = LEAF_MAX / 4;
const INNER_MIN: usize = INNER_MAX / 4;

/// Names an item.
pub(super) type ItemRef = u32;

/// One member and its score.
pub(super) struct Item {
    pub(super) score: f64,
    pub(super) member: Box<[u8]>,
}

/// A point between two items: each item is either before it or after it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut<'a> {
    /// Before everything.
    Start,
    /// After everything.
    End,
    /// Before the items of this score.
    BeforeScore(f64),
    /// After the items of this score.
    AfterScore(f64),
    /// Before this member, where all scores are equal.
    BeforeMember(&'a [u8]),
    /// After this member, where all scores are equal.
    AfterMember(&'a [u8]),
    /// Before the place of this score and member.
    Item(f64, &'a [u8]),
}

/// Two scores, neither NaN.
#[inline]
pub(super) fn compare_scores(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

impl Cut<'_> {
    /// Whether an item lies before the cut; true for a prefix of the order.
    #[inline]
    pub(super) fn is_after<'m>(&self, score: f64, member: impl FnOnce() -> &'m [u8]) -> bool {
        match *self {
            Self::Start => false,
            Self::End => true,
            Self::BeforeScore(at) => score < at,
            Self::AfterScore(at) => score <= at,
            Self::BeforeMember(at) => member() < at,
            Self::AfterMember(at) => member() <= at,
            Self::Item(at, before) => match compare_scores(score, at) {
                Ordering::Less => true,
                Ordering::Equal => member() < before,
                Ordering::Greater => false,
            },
        }
    }
}

/// A subtree as its parent knows it.
#[derive(Clone, Copy)]
struct Child {
    first_score: f64,
    first: ItemRef,
    node: u32,
    count: u32,
}

/// Both vectors are made with their largest capacity and never grow.
enum Node {
    Leaf(Vec<ItemRef>),
    Inner(Vec<Child>),
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Inner(children) => children.len(),
        }
    }

    fn is_small(&self) -> bool {
        match self {
            Self::Leaf(_) => self.len() < LEAF_MIN,
            Self::Inner(_) => self.len() < INNER_MIN,
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Self::Leaf(items) => items.capacity() * size_of::<ItemRef>(),
            Self::Inner(children) => children.capacity() * size_of::<Child>(),
        }
    }
}

/// Where an insertion goes down: along an edge of the tree, nodes are split so that runs of
/// ascending or descending insertions leave full nodes behind.
#[derive(Clone, Copy)]
struct Edge {
    left: bool,
    right: bool,
}

/// How many of a full node's `max + 1` entries stay in the left half.
fn split_at(at: usize, max: usize, edge: Edge) -> usize {
    if edge.right && at == max {
        max
    } else if edge.left && at <= 1 {
        // An inner node's new entry comes behind its first child.
        1
    } else {
        max.div_ceil(2)
    }
}

/// Inserts into a full vector by splitting it; the right half is returned.
fn insert_split<T>(full: &mut Vec<T>, at: usize, value: T, max: usize, edge: Edge) -> Vec<T> {
    let keep = split_at(at, max, edge);
    let mut right = Vec::with_capacity(max);
    if at < keep {
        right.extend(full.drain(keep - 1..));
        full.insert(at, value);
    } else {
        right.extend(full.drain(keep..));
        right.insert(at - keep, value);
    }
    right
}

/// Items in the order of (score, member), with ranks.
pub(super) struct Tree {
    items: Slab<Item>,
    nodes: Slab<Node>,
    root: Option<u32>,
    /// Levels above the leaves.
    height: u32,
    len: u32,
    node_bytes: usize,
    member_bytes: usize,
}

impl Tree {
    pub(super) const fn new() -> Self {
        Self {
            items: Slab::new(),
            nodes: Slab::new(),
            root: None,
            height: 0,
            len: 0,
            node_bytes: 0,
            member_bytes: 0,
        }
    }

    /// Items in the order.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes of all allocations held.
    pub(super) const fn mem_bytes(&self) -> usize {
        self.items.mem_bytes() + self.nodes.mem_bytes() + self.node_bytes + self.member_bytes
    }

    #[inline]
    pub(super) fn item(&self, at: ItemRef) -> Option<&Item> {
        self.items.get(at)
    }

    /// Adds an item that is not there yet; `None` when no name is left.
    pub(super) fn insert(&mut self, score: f64, member: &[u8]) -> Option<ItemRef> {
        let at = self.items.insert(Item { score, member: member.into() })?;
        self.member_bytes += member.len();
        self.link(at);
        Some(at)
    }

    /// Gives an item another score.
    pub(super) fn rescore(&mut self, at: ItemRef, score: f64) {
        let Some(rank) = self.rank_of(at) else { return };
        self.unlink(rank..rank + 1, &mut Vec::new());
        if let Some(item) = self.items.get_mut(at) {
            item.score = score;
        }
        self.link(at);
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, at: ItemRef) -> Option<Item> {
        let rank = self.rank_of(at)?;
        self.unlink(rank..rank + 1, &mut Vec::new());
        self.forget(at)
    }

    /// Takes the items of these ranks out of the order and appends their names to `out`, in order;
    /// [`forget`](Self::forget) then frees each.
    pub(super) fn unlink(&mut self, ranks: Range<usize>, out: &mut Vec<ItemRef>) {
        let ranks = ranks.start..ranks.end.min(self.len());
        let Some(root) = self.root.filter(|_| !ranks.is_empty()) else { return };
        self.len -= u32::try_from(ranks.len()).unwrap_or(0);
        if self.len == 0 {
            self.free_subtree(root, out);
            (self.root, self.height) = (None, 0);
            return;
        }
        if self.cut_out(root, &ranks, out) {
            self.lower_root();
            self.heal(ranks.start.saturating_sub(1));
            self.heal(ranks.start);
        }
        self.lower_root();
    }

    /// Frees an item that is no longer in the order.
    pub(super) fn forget(&mut self, at: ItemRef) -> Option<Item> {
        let item = self.items.remove(at)?;
        self.member_bytes -= item.member.len();
        Some(item)
    }

    /// How many items lie before the cut.
    pub(super) fn rank_at(&self, cut: Cut<'_>) -> usize {
        let mut next = self.root;
        let mut rank = 0;
        while let Some(node) = next.and_then(|node| self.nodes.get(node)) {
            match node {
                Node::Leaf(items) => {
                    return rank + items.partition_point(|&item| self.lies_before(item, &cut));
                }
                Node::Inner(children) => {
                    let at = self.child_for(children, &cut);
                    rank +=
                        children.iter().take(at).map(|child| child.count as usize).sum::<usize>();
                    next = children.get(at).map(|child| child.node);
                }
            }
        }
        rank
    }

    /// The rank of an item.
    pub(super) fn rank_of(&self, at: ItemRef) -> Option<usize> {
        let item = self.item(at)?;
        Some(self.rank_at(Cut::Item(item.score, &item.member)))
    }

    /// The item of a rank.
    pub(super) fn at_rank(&self, rank: usize) -> Option<ItemRef> {
        let (items, at) = self.leaf_at(rank)?;
        items.get(at).copied()
    }

    /// The items of these ranks, upwards or, from `next_back`, downwards.
    pub(super) fn range(&self, ranks: Range<usize>) -> Items<'_> {
        let end = ranks.end.min(self.len());
        Items {
            tree: self,
            ranks: ranks.start.min(end)..end,
            front: Default::default(),
            back: Default::default(),
        }
    }

    /// Frees about this many items of a tree that is no longer used; whether any are left.
    pub(super) fn reclaim(&mut self, budget: usize) -> bool {
        (self.root, self.height, self.len) = (None, 0, 0);
        let mut left = budget.max(1);
        while self.items.len() > 0 {
            let before = self.items.len();
            let bytes = &mut self.member_bytes;
            self.items.drop_chunk(|item| *bytes -= item.member.len());
            left = left.saturating_sub(before - self.items.len());
            if left == 0 {
                return true;
            }
        }
        while self.nodes.len() > 0 {
            let before = self.nodes.len();
            let bytes = &mut self.node_bytes;
            self.nodes.drop_chunk(|node| *bytes -= node.held_bytes());
            left = left.saturating_sub(before - self.nodes.len());
            if left == 0 && self.nodes.len() > 0 {
                return true;
            }
        }
        *self = Self::new();
        false
    }

    fn lies_before(&self, at: ItemRef, cut: &Cut<'_>) -> bool {
        self.item(at).is_some_and(|item| cut.is_after(item.score, || &item.member))
    }

    /// The child in which the cut falls: the last that begins before it, or the first.
    fn child_for(&self, children: &[Child], cut: &Cut<'_>) -> usize {
        let member = |child: &Child| self.item(child.first).map_or(&[][..], |item| &item.member);
        children
            .partition_point(|child| cut.is_after(child.first_score, || member(child)))
            .saturating_sub(1)
    }

    fn leaf_at(&self, rank: usize) -> Option<(&[ItemRef], usize)> {
        let mut rank = rank;
        let mut node = self.root?;
        loop {
            match self.nodes.get(node)? {
                Node::Leaf(items) => return (rank < items.len()).then_some((items, rank)),
                Node::Inner(children) => {
                    let at = child_at(children, &mut rank);
                    node = children.get(at)?.node;
                }
            }
        }
    }

    fn add_node(&mut self, node: Node) -> u32 {
        self.node_bytes += node.held_bytes();
        // Items have names left, so nodes, which are fewer, have too.
        self.nodes.insert(node).unwrap_or(u32::MAX)
    }

    fn drop_node(&mut self, at: u32) -> Option<Node> {
        let node = self.nodes.remove(at)?;
        self.node_bytes -= node.held_bytes();
        Some(node)
    }

    /// A node as its parent knows it.
    fn child(&self, node: u32) -> Option<Child> {
        match self.nodes.get(node)? {
            Node::Leaf(items) => {
                let first = *items.first()?;
                let first_score = self.item(first)?.score;
                let count = u32::try_from(items.len()).ok()?;
                Some(Child { first_score, first, node, count })
            }
            Node::Inner(children) => {
                let count = children.iter().map(|child| child.count).sum();
                Some(Child { node, count, ..*children.first()? })
            }
        }
    }

    /// Puts an item of the slab into the order.
    fn link(&mut self, at: ItemRef) {
        self.len += 1;
        let Some(root) = self.root else {
            let mut items = Vec::with_capacity(LEAF_MAX);
            items.push(at);
            self.root = Some(self.add_node(Node::Leaf(items)));
            return;
        };
        let Some(right) = self.link_below(root, at, Edge { left: true, right: true }) else {
            return;
        };
        let Some(left) = self.child(root) else { return };
        let mut children = Vec::with_capacity(INNER_MAX);
        children.extend([left, right]);
        self.root = Some(self.add_node(Node::Inner(children)));
        self.height += 1;
    }

    /// Inserts below a node; returns the right half when the node was split.
    fn link_below(&mut self, node: u32, new: ItemRef, edge: Edge) -> Option<Child> {
        let item = self.items.get(new)?;
        let cut = Cut::Item(item.score, &item.member);
        let (at, below) = match self.nodes.get(node)? {
            Node::Leaf(items) => {
                (items.partition_point(|&other| self.lies_before(other, &cut)), None)
            }
            Node::Inner(children) => {
                let at = self.child_for(children, &cut);
                let below = children.get(at)?.node;
                let right = edge.right && at + 1 == children.len();
                (at, Some((below, Edge { left: edge.left && at == 0, right })))
            }
        };
        let Some((below, edge_below)) = below else {
            let Some(Node::Leaf(items)) = self.nodes.get_mut(node) else { return None };
            if items.len() < LEAF_MAX {
                items.insert(at, new);
                return None;
            }
            let right = Node::Leaf(insert_split(items, at, new, LEAF_MAX, edge));
            let right = self.add_node(right);
            return self.child(right);
        };
        let split = self.link_below(below, new, edge_below);
        let changed = if split.is_some() { self.child(below) } else { None };
        let score = self.item(new)?.score;
        let first = self.first_of(below);
        let Some(Node::Inner(children)) = self.nodes.get_mut(node) else { return None };
        let entry = children.get_mut(at)?;
        match changed {
            Some(changed) => *entry = changed,
            None => {
                entry.count += 1;
                if first == Some(new) {
                    (entry.first, entry.first_score) = (new, score);
                }
            }
        }
        let split = split?;
        if children.len() < INNER_MAX {
            children.insert(at + 1, split);
            return None;
        }
        let right = Node::Inner(insert_split(children, at + 1, split, INNER_MAX, edge));
        let right = self.add_node(right);
        self.child(right)
    }

    fn first_of(&self, node: u32) -> Option<ItemRef> {
        match self.nodes.get(node)? {
            Node::Leaf(items) => items.first().copied(),
            Node::Inner(children) => children.first().map(|child| child.first),
        }
    }

    /// Removes ranks below a node, not all of them; true when a node below became small.
    fn cut_out(&mut self, node: u32, ranks: &Range<usize>, out: &mut Vec<ItemRef>) -> bool {
        let children = match self.nodes.get_mut(node) {
            Some(Node::Leaf(items)) => {
                out.extend(items.drain(ranks.clone()));
                return false;
            }
            Some(Node::Inner(children)) => children,
            None => return false,
        };
        let mut children = std::mem::take(children);
        let mut small = false;
        let mut start = 0;
        children.retain_mut(|child| {
            let end = start + child.count as usize;
            let from = ranks.start.max(start);
            let to = ranks.end.min(end);
            let below = from.saturating_sub(start)..to.saturating_sub(start);
            start = end;
            if from >= to {
                return true;
            }
            if below.len() == child.count as usize {
                self.free_subtree(child.node, out);
                return false;
            }
            small |= self.cut_out(child.node, &below, out);
            small |= self.nodes.get(child.node).is_some_and(Node::is_small);
            if let Some(changed) = self.child(child.node) {
                *child = changed;
            }
            true
        });
        // One entry left is too few even where the node is the root.
        small |= children.len() == 1;
        if let Some(Node::Inner(place)) = self.nodes.get_mut(node) {
            *place = children;
        }
        small
    }

    fn free_subtree(&mut self, node: u32, out: &mut Vec<ItemRef>) {
        match self.drop_node(node) {
            Some(Node::Leaf(items)) => out.extend(items),
            Some(Node::Inner(children)) => {
                for child in children {
                    self.free_subtree(child.node, out);
                }
            }
            None => {}
        }
    }

    /// A root with one child hands over to it.
    fn lower_root(&mut self) {
        while let Some(root) = self.root
            && let Some(Node::Inner(children)) = self.nodes.get(root)
            && let [only] = children.as_slice()
        {
            let below = only.node;
            self.drop_node(root);
            self.root = Some(below);
            self.height -= 1;
        }
    }

    /// Merges or refills the small nodes on the way to a rank.
    fn heal(&mut self, rank: usize) {
        let mut rank = rank;
        let mut next = self.root;
        while let Some(node) = next {
            let Some(Node::Inner(children)) = self.nodes.get(node) else { return };
            let mut there = rank;
            let at = child_at(children, &mut there);
            let Some(child) = children.get(at) else { return };
            if self.nodes.get(child.node).is_some_and(Node::is_small) && children.len() > 1 {
                self.join(node, at.saturating_sub(1));
            }
            let Some(Node::Inner(children)) = self.nodes.get(node) else { return };
            let at = child_at(children, &mut rank);
            next = children.get(at).map(|child| child.node);
        }
    }

    /// Merges the children at `at` and `at + 1` of a node, or evens them out.
    fn join(&mut self, node: u32, at: usize) {
        let Some(Node::Inner(children)) = self.nodes.get(node) else { return };
        let Some([left, right]) = children.get(at..at + 2) else { return };
        let (left, right) = (left.node, right.node);
        let Some(mut taken) = self.drop_node(right) else { return };
        let gone = match (self.nodes.get_mut(left), &mut taken) {
            (Some(Node::Leaf(a)), Node::Leaf(b)) => even_out(a, b, LEAF_MAX),
            (Some(Node::Inner(a)), Node::Inner(b)) => even_out(a, b, INNER_MAX),
            _ => false,
        };
        let merged = self.child(left);
        let right = if gone {
            None
        } else {
            let right = self.add_node(taken);
            self.child(right)
        };
        let Some(Node::Inner(children)) = self.nodes.get_mut(node) else { return };
        match right {
            Some(right) => {
                if let Some(entry) = children.get_mut(at + 1) {
                    *entry = right;
                }
            }
            None => {
                children.remove(at + 1);
            }
        }
        if let (Some(entry), Some(merged)) = (children.get_mut(at), merged) {
            *entry = merged;
        }
    }
}

/// Moves all of `b` behind `a` when that fits, else entries so that both are as long; true when
/// `b` is empty.
fn even_out<T>(a: &mut Vec<T>, b: &mut Vec<T>, max: usize) -> bool {
    let sum = a.len() + b.len();
    if sum <= max {
        a.append(b);
        return true;
    }
    let half = sum / 2;
    if a.len() < half {
        let more = half - a.len();
        a.extend(b.drain(..more));
    } else {
        b.splice(..0, a.drain(half..));
    }
    false
}

/// The child that holds a rank, which becomes a rank within it; the last for a rank beyond all.
fn child_at(children: &[Child], rank: &mut usize) -> usize {
    let last = children.len().saturating_sub(1);
    for (at, child) in children.iter().enumerate().take(last) {
        let count = child.count as usize;
        if *rank < count {
            return at;
        }
        *rank -= count;
    }
    last
}

/// The items of a range of ranks.
pub(super) struct Items<'a> {
    tree: &'a Tree,
    ranks: Range<usize>,
    /// What is left of the leaves that were looked up last, at either end.
    front: &'a [ItemRef],
    back: &'a [ItemRef],
}

impl Iterator for Items<'_> {
    type Item = ItemRef;

    fn next(&mut self) -> Option<ItemRef> {
        if self.ranks.is_empty() {
            return None;
        }
        if self.front.is_empty() {
            let (items, at) = self.tree.leaf_at(self.ranks.start)?;
            self.front = items.get(at..)?;
        }
        let (&first, rest) = self.front.split_first()?;
        self.front = rest;
        self.ranks.start += 1;
        Some(first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.ranks.len(), Some(self.ranks.len()))
    }
}

impl DoubleEndedIterator for Items<'_> {
    fn next_back(&mut self) -> Option<ItemRef> {
        if self.ranks.is_empty() {
            return None;
        }
        if self.back.is_empty() {
            let (items, at) = self.tree.leaf_at(self.ranks.end - 1)?;
            self.back = items.get(..=at)?;
        }
        let (&last, rest) = self.back.split_last()?;
        self.back = rest;
        self.ranks.end -= 1;
        Some(last)
    }
}

#[cfg(test)]
mod tests;
