//! Lists: a deque of packed nodes, Redis' quicklist.
//!
//! A node is a [`Packed`] sequence of at most some kilobytes or some entries, or one value too long
//! for that. Pushing and popping touch the end node; an index is found by adding counts from the
//! nearer end; an insertion splits at most one node, and a removal merges at most two.
//!
//! Invariants: no node is empty; a packed node exceeds its limit never, a plain one holds a value
//! that no packed node would; [`mem_bytes`](List::mem_bytes) is the capacity of everything held.
//! Next: `packed.rs` has the nodes' form.

use std::collections::VecDeque;

use super::{
    packed::{Entry, Packed},
    span,
};

/// Most bytes of a node, by the number that -1 to -5 stand for.
const NODE_BYTES: [usize; 5] = [4096, 8192, 16_384, 32_768, 65_536];
/// Most bytes of a node that is limited by its entries.
const SAFE_BYTES: usize = 8192;
/// Capacity of the deque below which it is not shrunk.
const SHRINK_FROM: usize = 16;

/// One of a list's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The head, `LEFT`.
    Front,
    /// The tail, `RIGHT`.
    Back,
}

/// Where an insertion goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In front of the pivot.
    Before,
    /// Behind the pivot.
    After,
}

/// What `list-max-listpack-size` says.
#[derive(Debug, Clone, Copy)]
struct Limit {
    bytes: usize,
    entries: usize,
}

impl Limit {
    fn new(fill: i32) -> Self {
        match usize::try_from(fill) {
            Ok(entries) => Self { bytes: SAFE_BYTES, entries: entries.max(1) },
            Err(_) => {
                let step = usize::try_from(fill.unsigned_abs() - 1).unwrap_or(usize::MAX);
                let bytes = NODE_BYTES.get(step).or(NODE_BYTES.last()).copied();
                Self { bytes: bytes.unwrap_or(SAFE_BYTES), entries: usize::MAX }
            }
        }
    }

    fn node(self, value: &[u8]) -> Node {
        let entry = Entry::from(value);
        if entry.packed_len() > self.bytes {
            return Node::Plain(value.into());
        }
        let mut packed = Packed::new();
        packed.push_back(entry);
        Node::Packed(packed)
    }

    /// Whether another entry may join a node.
    fn has_room(self, node: &Node, entry: Entry<'_>) -> bool {
        match node {
            Node::Packed(packed) => {
                packed.len() < self.entries
                    && packed.used_bytes() + entry.packed_len() <= self.bytes
            }
            Node::Plain(_) => false,
        }
    }

    /// Whether two nodes are to become one: when that is not half full, lest it splits again soon.
    fn may_merge(self, a: &Node, b: &Node) -> bool {
        match (a, b) {
            (Node::Packed(a), Node::Packed(b)) => {
                a.used_bytes() + b.used_bytes() <= self.bytes / 2
                    && a.len() + b.len() <= self.entries / 2
            }
            _ => false,
        }
    }
}

enum Node {
    Packed(Packed),
    Plain(Box<[u8]>),
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.len(),
            Self::Plain(_) => 1,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.heap_bytes(),
            Self::Plain(value) => value.len(),
        }
    }

    fn entry(&self, at: usize) -> Option<Entry<'_>> {
        match self {
            Self::Packed(packed) => packed.entry(at),
            Self::Plain(value) => (at == 0).then_some(Entry::Str(value)),
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        let (packed, plain) = match self {
            Self::Packed(packed) => (Some(packed.iter()), None),
            Self::Plain(value) => (None, Some(Entry::Str(value))),
        };
        packed.into_iter().flatten().chain(plain)
    }

    /// Removes entries that equal the needle, at most `most` of them, from the front or the back.
    fn remove_equal(&mut self, needle: Entry<'_>, most: usize, from: End) -> usize {
        let found: Vec<usize> = self
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.same(&needle))
            .map(|(at, _)| at)
            .collect();
        let doomed = match from {
            End::Front => found.get(..most.min(found.len())),
            End::Back => found.get(found.len().saturating_sub(most)..),
        }
        .unwrap_or_default();
        match (&mut *self, doomed) {
            (_, []) => {}
            (Self::Packed(packed), &[one]) => {
                packed.remove_range(one, 1);
            }
            (Self::Packed(packed), many) => {
                // All at once: one by one, each removal would move what follows.
                let mut many = many.iter().copied().peekable();
                let mut kept = Vec::with_capacity(packed.len());
                for (at, entry) in packed.iter().enumerate() {
                    if many.next_if_eq(&at).is_none() {
                        kept.push(entry);
                    }
                }
                let mut rest = Packed::new();
                rest.extend(&kept);
                *packed = rest;
            }
            (Self::Plain(_), _) => *self = Self::Packed(Packed::new()),
        }
        doomed.len()
    }
}

/// A node as it lies: see [`List::nodes`].
#[derive(Debug, Clone, Copy)]
pub enum NodeView<'a> {
    /// Several values, or one.
    Packed(&'a Packed),
    /// One that is too long for a packed node.
    Plain(&'a [u8]),
}

/// What a list holds, apart so that the name of one is small.
struct Nodes {
    nodes: VecDeque<Node>,
    len: usize,
    /// Allocations of the nodes.
    node_bytes: usize,
    limit: Limit,
}

/// A list of byte strings.
pub struct List(Box<Nodes>);

impl List {
    /// An empty list, its nodes limited as by `list-max-listpack-size`: -1 to -5 for 4 to 64 KiB,
    /// others for a number of entries.
    #[must_use]
    pub fn new(fill: i32) -> Self {
        let limit = Limit::new(fill);
        Self(Box::new(Nodes { nodes: VecDeque::new(), len: 0, node_bytes: 0, limit }))
    }

    /// The name OBJECT ENCODING gives.
    #[must_use]
    pub const fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// Values held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Bytes of all allocations held.
    #[must_use]
    pub fn mem_bytes(&self) -> usize {
        size_of::<Nodes>() + self.0.nodes.capacity() * size_of::<Node>() + self.0.node_bytes
    }

    /// Puts a value at an end.
    pub fn push(&mut self, end: End, value: &[u8]) {
        let entry = Entry::from(value);
        let at = match end {
            End::Front => 0,
            End::Back => self.0.nodes.len().saturating_sub(1),
        };
        if self.0.nodes.get(at).is_some_and(|node| self.0.limit.has_room(node, entry)) {
            self.edit(at, |node| match (node, end) {
                (Node::Packed(packed), End::Front) => packed.push_front(entry),
                (Node::Packed(packed), End::Back) => packed.push_back(entry),
                (Node::Plain(_), _) => {}
            });
            return;
        }
        let at = if end == End::Front { 0 } else { self.0.nodes.len() };
        self.put_node(at, self.0.limit.node(value));
    }

    /// Takes the value at an end.
    pub fn pop(&mut self, end: End) -> Option<Vec<u8>> {
        let at = match end {
            End::Front => 0,
            End::Back => self.0.nodes.len().checked_sub(1)?,
        };
        if let Some(Node::Plain(_)) = self.0.nodes.get(at) {
            return match self.take_node(at)? {
                Node::Plain(value) => Some(value.into_vec()),
                Node::Packed(_) => None,
            };
        }
        let value = self.edit(at, |node| match (node, end) {
            (Node::Packed(packed), End::Front) => packed.pop_front(),
            (Node::Packed(packed), End::Back) => packed.pop_back(),
            (Node::Plain(_), _) => None,
        })?;
        if self.0.nodes.get(at).is_some_and(|node| node.len() == 0) {
            self.take_node(at);
        }
        value
    }

    /// Takes the value at one end and puts it at another: LMOVE of a list onto itself.
    pub fn rotate(&mut self, from: End, to: End) -> Option<Vec<u8>> {
        let value = self.pop(from)?;
        self.push(to, &value);
        Some(value)
    }

    /// The value at an index; negative ones count from the end.
    #[must_use]
    pub fn get(&self, index: i64) -> Option<Entry<'_>> {
        let (at, within) = self.locate(span::index(index, self.0.len)?)?;
        self.0.nodes.get(at)?.entry(within)
    }

    /// Puts another value at an index; false when there is none.
    pub fn set(&mut self, index: i64, value: &[u8]) -> bool {
        let Some(index) = span::index(index, self.0.len) else { return false };
        let Some((at, within)) = self.locate(index) else { return false };
        let entry = Entry::from(value);
        let fits = match self.0.nodes.get(at) {
            Some(Node::Packed(packed)) => {
                let old = packed.entry(within).map_or(0, |old| old.packed_len());
                packed.used_bytes() - old + entry.packed_len() <= self.0.limit.bytes
            }
            _ => false,
        };
        if fits {
            self.edit(at, |node| {
                if let Node::Packed(packed) = node
                    && let Some(pos) = packed.at(within)
                {
                    packed.replace(pos, entry);
                }
            });
        } else {
            self.remove_range(index, 1);
            self.insert_at(index, value);
        }
        true
    }

    /// Puts a value beside the first that equals the pivot; false when none does.
    pub fn insert(&mut self, pivot: &[u8], side: Side, value: &[u8]) -> bool {
        let needle = Entry::from(pivot);
        let Some(index) = self.iter().position(|entry| entry.same(&needle)) else { return false };
        self.insert_at(index + usize::from(side == Side::After), value);
        true
    }

    /// Removes values that equal `value`: the first `count`, the last `-count`, or all for 0.
    pub fn remove(&mut self, value: &[u8], count: i64) -> usize {
        let needle = Entry::from(value);
        let from = if count < 0 { End::Back } else { End::Front };
        let most = match usize::try_from(count.unsigned_abs()) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(most) => most,
        };
        let nodes = self.0.nodes.len();
        let mut gone = 0;
        let mut changed = None;
        let mut several = false;
        for step in 0..nodes {
            if gone == most {
                break;
            }
            let at = if from == End::Front { step } else { nodes - 1 - step };
            let here = self.edit(at, |node| node.remove_equal(needle, most - gone, from));
            if here.is_some_and(|here| here > 0) {
                several |= changed.replace(at).is_some();
            }
            gone += here.unwrap_or(0);
        }
        match changed {
            Some(_) if several => self.compact(),
            Some(at) => self.tidy(at),
            None => {}
        }
        gone
    }

    /// Removes all but a range; both bounds inside, negative ones from the end.
    pub fn trim(&mut self, start: i64, stop: i64) {
        let keep = span::clip(start, stop, self.0.len);
        self.cut_end(End::Back, self.0.len - keep.end);
        self.cut_end(End::Front, keep.start);
    }

    /// The values of a range; both bounds inside, negative ones from the end.
    pub fn range(&self, start: i64, stop: i64) -> impl Iterator<Item = Entry<'_>> {
        let span = span::clip(start, stop, self.0.len);
        let (at, within) = self.locate(span.start).unwrap_or((0, 0));
        self.0.nodes.range(at..).flat_map(Node::iter).skip(within).take(span.len())
    }

    /// How many values such a range has.
    #[must_use]
    pub fn range_len(&self, start: i64, stop: i64) -> usize {
        span::clip(start, stop, self.0.len).len()
    }

    /// All values, from either end.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        self.0.nodes.iter().flat_map(Node::iter)
    }

    /// The nodes in order: what a dump copies.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeView<'_>> {
        self.0.nodes.iter().map(|node| match node {
            Node::Packed(packed) => NodeView::Packed(packed),
            Node::Plain(value) => NodeView::Plain(value),
        })
    }

    /// Indexes of values that equal `value` (LPOS): from the `rank`th on (from the end for a negative
    /// one, 0 counts as 1), at most `count`, after at most `maxlen` comparisons; 0 is no limit.
    #[must_use]
    pub fn positions(&self, value: &[u8], rank: i64, count: usize, maxlen: usize) -> Vec<usize> {
        let needle = Entry::from(value);
        let no_limit = |n: usize| if n == 0 { usize::MAX } else { n };
        let (count, maxlen) = (no_limit(count), no_limit(maxlen));
        let skip = usize::try_from(rank.unsigned_abs()).unwrap_or(usize::MAX).saturating_sub(1);
        let equal = |(_, entry): &(usize, Entry<'_>)| entry.same(&needle);
        if rank < 0 {
            let back = self.iter().rev().enumerate().take(maxlen).filter(equal);
            back.skip(skip).take(count).map(|(at, _)| self.0.len - 1 - at).collect()
        } else {
            let found = self.iter().enumerate().take(maxlen).filter(equal);
            found.skip(skip).take(count).map(|(at, _)| at).collect()
        }
    }

    /// Frees about this many values of a list that is no longer used; whether any are left.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        let mut left = budget.max(1);
        while left > 0 {
            let Some(node) = self.0.nodes.pop_back() else { break };
            self.0.len -= node.len();
            self.0.node_bytes -= node.heap_bytes();
            left = left.saturating_sub(node.len());
        }
        if self.0.nodes.is_empty() {
            self.0.nodes = VecDeque::new();
        }
        !self.0.nodes.is_empty()
    }

    /// Changes a node, keeping the sums.
    fn edit<R>(&mut self, at: usize, change: impl FnOnce(&mut Node) -> R) -> Option<R> {
        let node = self.0.nodes.get_mut(at)?;
        let (len, bytes) = (node.len(), node.heap_bytes());
        let result = change(node);
        self.0.len = self.0.len - len + node.len();
        self.0.node_bytes = self.0.node_bytes - bytes + node.heap_bytes();
        Some(result)
    }

    fn put_node(&mut self, at: usize, node: Node) {
        self.0.len += node.len();
        self.0.node_bytes += node.heap_bytes();
        if self.0.nodes.is_empty() {
            // Most lists have one node only.
            self.0.nodes.reserve_exact(1);
        }
        self.0.nodes.insert(at, node);
    }

    fn take_node(&mut self, at: usize) -> Option<Node> {
        let node = self.0.nodes.remove(at)?;
        self.0.len -= node.len();
        self.0.node_bytes -= node.heap_bytes();
        self.fit();
        Some(node)
    }

    /// Gives back room of the deque when most is unused.
    fn fit(&mut self) {
        if self.0.nodes.is_empty() {
            self.0.nodes = VecDeque::new();
        } else if self.0.nodes.capacity() > SHRINK_FROM
            && self.0.nodes.len() < self.0.nodes.capacity() / 4
        {
            self.0.nodes.shrink_to(self.0.nodes.len() * 2);
        }
    }

    /// The node of an index, and the place in it.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.0.len {
            return None;
        }
        if index < self.0.len / 2 {
            let mut start = 0;
            for (at, node) in self.0.nodes.iter().enumerate() {
                let end = start + node.len();
                if index < end {
                    return Some((at, index - start));
                }
                start = end;
            }
        } else {
            let mut end = self.0.len;
            for (at, node) in self.0.nodes.iter().enumerate().rev() {
                let start = end - node.len();
                if index >= start {
                    return Some((at, index - start));
                }
                end = start;
            }
        }
        None
    }

    fn insert_at(&mut self, index: usize, value: &[u8]) {
        let Some((at, within)) = self.locate(index) else {
            return self.push(End::Back, value);
        };
        if index == 0 {
            return self.push(End::Front, value);
        }
        let entry = Entry::from(value);
        let has_room = |list: &Self, at: usize| {
            list.0.nodes.get(at).is_some_and(|n| list.0.limit.has_room(n, entry))
        };
        if has_room(self, at) {
            self.put_entry(at, within, entry);
        } else if within == 0 {
            // At a node's beginning: the one before may take it.
            match at.checked_sub(1).filter(|&before| has_room(self, before)) {
                Some(before) => self.put_entry(before, usize::MAX, entry),
                None => self.put_node(at, self.0.limit.node(value)),
            }
        } else {
            self.split(at, within);
            if has_room(self, at) {
                self.put_entry(at, usize::MAX, entry);
            } else if has_room(self, at + 1) {
                self.put_entry(at + 1, 0, entry);
            } else {
                self.put_node(at + 1, self.0.limit.node(value));
            }
        }
    }

    /// Puts an entry into a node, at the end for a place beyond it.
    fn put_entry(&mut self, at: usize, within: usize, entry: Entry<'_>) {
        self.edit(at, |node| {
            if let Node::Packed(packed) = node {
                packed.insert(packed.at(within), entry);
            }
        });
    }

    /// Cuts a node in two.
    fn split(&mut self, at: usize, within: usize) {
        let tail = self.edit(at, |node| match node {
            Node::Packed(packed) => packed.split_off(within),
            Node::Plain(_) => Packed::new(),
        });
        if let Some(tail) = tail.filter(|tail| !tail.is_empty()) {
            self.put_node(at + 1, Node::Packed(tail));
        }
    }

    /// Removes values within one node, and merges what is left with a neighbour.
    fn remove_range(&mut self, index: usize, count: usize) {
        let Some((at, within)) = self.locate(index) else { return };
        self.edit(at, |node| match node {
            Node::Packed(packed) => {
                packed.remove_range(within, count);
            }
            Node::Plain(_) => *node = Node::Packed(Packed::new()),
        });
        self.tidy(at);
    }

    /// Drops a node that became empty, and merges what became small.
    fn tidy(&mut self, at: usize) {
        if self.0.nodes.get(at).is_some_and(|node| node.len() == 0) {
            self.take_node(at);
        } else {
            self.merge(at);
        }
        if let Some(before) = at.checked_sub(1) {
            self.merge(before);
        }
    }

    /// Joins a node with the one after it, when both are small.
    fn merge(&mut self, at: usize) {
        let (Some(node), Some(next)) = (self.0.nodes.get(at), self.0.nodes.get(at + 1)) else {
            return;
        };
        if !self.0.limit.may_merge(node, next) {
            return;
        }
        if let Some(Node::Packed(next)) = self.take_node(at + 1) {
            self.edit(at, |node| {
                if let Node::Packed(packed) = node {
                    packed.append(&next);
                }
            });
        }
    }

    /// Drops empty nodes and joins small ones, all of them in one pass.
    fn compact(&mut self) {
        let old = std::mem::take(&mut self.0.nodes);
        let mut nodes: VecDeque<Node> = VecDeque::with_capacity(old.len());
        self.0.node_bytes = 0;
        for mut node in old {
            match nodes.back_mut() {
                _ if node.len() == 0 => continue,
                Some(last) if self.0.limit.may_merge(last, &node) => {
                    if let (Node::Packed(last), Node::Packed(next)) = (last, &mut node) {
                        last.append(next);
                    }
                }
                _ => nodes.push_back(node),
            }
        }
        self.0.nodes = nodes;
        self.0.node_bytes = self.0.nodes.iter().map(Node::heap_bytes).sum();
        self.fit();
    }

    /// Removes so many values at an end.
    fn cut_end(&mut self, end: End, count: usize) {
        let mut left = count;
        while left > 0 {
            let at = if end == End::Front { 0 } else { self.0.nodes.len().saturating_sub(1) };
            let Some(len) = self.0.nodes.get(at).map(Node::len) else { return };
            if len <= left {
                self.take_node(at);
                left -= len;
                continue;
            }
            let from = if end == End::Front { 0 } else { len - left };
            self.edit(at, |node| {
                if let Node::Packed(packed) = node {
                    packed.remove_range(from, left);
                }
            });
            return;
        }
    }
}

#[cfg(test)]
mod tests;
