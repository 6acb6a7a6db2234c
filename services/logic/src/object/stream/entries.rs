//! The entries of a stream: nodes in the order of their first ids, and what the stream remembers.
//!
//! Invariants: no node but the first is without a live entry, and the first only when a trim by id
//! took all that is live below an id already deleted: Redis keeps such a node, goes on to fill it
//! when it is also the last, and so do we, since what an approximate trim removes depends on it.
//! `length` is the sum of the nodes' live entries; `first_id` is the lowest live id, or 0-0; no
//! entry is above `last_id`; `node_bytes` is the heap of all nodes.

use super::{
    Limits,
    id::{AddId, StreamId},
    node::{Entry, Item, Node, Pair},
    tree::{Down, Iter, Tree},
};

/// Bytes an entry may have.
const ENTRY_MAX_BYTES: usize = 1 << 30;

/// Why an entry was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// 0-0 is no entry's id.
    Zero,
    /// The last possible id is taken.
    Exhausted,
    /// The id is not above the last one.
    NotAbove,
    /// More bytes than a node can hold.
    TooLarge,
}

impl AddError {
    /// Redis' words, without the error's code.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Zero => "The ID specified in XADD must be greater than 0-0",
            Self::Exhausted => {
                "The stream has exhausted the last possible ID, unable to add more items"
            }
            Self::NotAbove => {
                "The ID specified in XADD is equal or smaller than the target stream top item"
            }
            Self::TooLarge => "Elements are too large to be stored",
        }
    }
}

/// Why a stream's last id was not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetIdError {
    /// Below the highest deleted id handed in.
    BelowDeleted,
    /// Below the highest entry.
    BelowTop,
    /// Fewer entries added than there are.
    BelowLength,
}

impl SetIdError {
    /// Redis' words, without the error's code.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::BelowDeleted => {
                "The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
            }
            Self::BelowTop => {
                "The ID specified in XSETID is smaller than the target stream top item"
            }
            Self::BelowLength => {
                "The entries_added specified in XSETID is smaller than the target stream length"
            }
        }
    }
}

/// What a trim leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrimTo {
    /// So many entries.
    MaxLen(u64),
    /// Entries from this id on.
    MinId(StreamId),
}

/// A trim, which may take several steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trim {
    /// What it leaves.
    pub to: TrimTo,
    /// `~`: whole nodes only.
    pub approx: bool,
    /// Entries to remove at most; 0 for any number. A step takes off what it removed.
    pub limit: u64,
}

/// What a step of a trim did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrimStep {
    /// Entries removed.
    pub removed: u64,
    /// Whether there is nothing left to do.
    pub done: bool,
}

/// The entries.
pub(super) struct Entries {
    pub(super) nodes: Tree<StreamId, Node>,
    pub(super) node_bytes: usize,
    pub(super) length: u64,
    pub(super) first_id: StreamId,
    pub(super) last_id: StreamId,
    pub(super) max_deleted: StreamId,
    pub(super) added: u64,
}

impl Entries {
    pub(super) const fn new() -> Self {
        Self {
            nodes: Tree::new(),
            node_bytes: 0,
            length: 0,
            first_id: StreamId::MIN,
            last_id: StreamId::MIN,
            max_deleted: StreamId::MIN,
            added: 0,
        }
    }

    pub(super) const fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of heap held.
    pub(super) const fn mem_bytes(&self) -> usize {
        self.nodes.bytes() + self.node_bytes
    }

    /// The id a new entry gets.
    pub(super) fn next_id(&self, id: AddId, now_ms: u64) -> Result<StreamId, AddError> {
        if id == AddId::Given(StreamId::MIN) {
            return Err(AddError::Zero);
        }
        let above = self.last_id.next().ok_or(AddError::Exhausted)?;
        let id = match id {
            AddId::Auto if now_ms > self.last_id.ms => StreamId::new(now_ms, 0),
            AddId::Auto => above,
            AddId::AutoSeq(ms) if ms == self.last_id.ms && above.ms == ms => above,
            AddId::AutoSeq(ms) => StreamId::new(ms, 0),
            AddId::Given(id) => id,
        };
        // Of a millisecond whose numbers are used up, 7.0.15 says what an earlier error left behind;
        // later versions say this.
        if id >= above { Ok(id) } else { Err(AddError::NotAbove) }
    }

    pub(super) fn add<'p>(
        &mut self,
        id: AddId,
        now_ms: u64,
        pairs: impl Iterator<Item = Pair<'p>> + Clone,
        limits: &Limits,
    ) -> Result<StreamId, AddError> {
        let id = self.next_id(id, now_ms)?;
        let bytes: usize = pairs.clone().map(|pair| pair.0.len() + pair.1.len()).sum();
        if bytes > ENTRY_MAX_BYTES {
            return Err(AddError::TooLarge);
        }
        let tail = self.nodes.last_mut();
        let before = match tail {
            Some((&base, node)) => {
                let before = node.heap_bytes();
                if limits.fits(node.packed_len().saturating_add(bytes), node.live + node.dead) {
                    node.push(base, id, pairs);
                    self.node_bytes += node.heap_bytes() - before;
                    self.added(id);
                    return Ok(id);
                }
                node.seal();
                before - node.heap_bytes()
            }
            None => 0,
        };
        self.node_bytes -= before;
        let mut node = Node::new(pairs.clone());
        node.push(id, id, pairs);
        self.node_bytes += node.heap_bytes();
        self.nodes.insert(id, node);
        self.added(id);
        Ok(id)
    }

    fn added(&mut self, id: StreamId) {
        self.length += 1;
        self.added = self.added.wrapping_add(1);
        self.last_id = id;
        if self.length == 1 {
            self.first_id = id;
        }
    }

    /// The node that may hold an id.
    fn base_of(&self, id: StreamId) -> Option<StreamId> {
        self.nodes.up_from_floor(&id).next().map(|(&base, _)| base).filter(|base| *base <= id)
    }

    pub(super) fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        let (&base, node) = self.nodes.up_from_floor(&id).next()?;
        node.find(base, id)
    }

    /// Deletes an entry; whether it was there.
    pub(super) fn delete(&mut self, id: StreamId) -> bool {
        let Some(base) = self.base_of(id) else { return false };
        let Some(node) = self.nodes.get_mut(&base) else { return false };
        let before = node.heap_bytes();
        if !node.delete(base, id) {
            return false;
        }
        self.node_bytes -= before - node.heap_bytes();
        if node.live == 0 {
            self.drop_node(base);
        }
        self.length -= 1;
        self.max_deleted = self.max_deleted.max(id);
        if id == self.first_id {
            self.find_first();
        }
        true
    }

    fn drop_node(&mut self, base: StreamId) {
        if let Some(node) = self.nodes.remove(&base) {
            self.node_bytes -= node.heap_bytes();
        }
    }

    fn find_first(&mut self) {
        let first = self.range(StreamId::MIN, StreamId::MAX).next();
        self.first_id = first.map_or(StreamId::MIN, |entry| entry.id());
    }

    /// The highest entry's id.
    pub(super) fn last_live(&self) -> Option<StreamId> {
        self.range_rev(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id())
    }

    /// Looks at no more than `nodes` nodes.
    pub(super) fn trim(&mut self, trim: &mut Trim, nodes: usize) -> TrimStep {
        let (mut removed, mut done) = (0, false);
        for _ in 0..nodes {
            let gone = self.trim_node(trim);
            removed += gone.removed;
            if trim.limit > 0 {
                // A limit of 0 would be none at all.
                trim.limit -= gone.removed;
                done = trim.limit == 0;
            }
            done |= gone.done;
            if done {
                break;
            }
        }
        if removed > 0 || self.length == 0 {
            self.find_first();
        }
        TrimStep { removed, done }
    }

    fn trim_node(&mut self, trim: &Trim) -> TrimStep {
        let nothing = TrimStep { removed: 0, done: true };
        let Some((&base, node)) = self.nodes.first() else { return nothing };
        let live = u64::from(node.live);
        let whole = match trim.to {
            TrimTo::MaxLen(most) if self.length <= most => return nothing,
            TrimTo::MaxLen(most) => self.length - live >= most,
            TrimTo::MinId(id) => node.last_id(base) < id,
        };
        if trim.limit > 0 && live > trim.limit {
            return nothing;
        }
        if whole {
            self.drop_node(base);
            self.length -= live;
            return TrimStep { removed: live, done: false };
        }
        if trim.approx {
            return nothing;
        }
        let (most, below) = match trim.to {
            TrimTo::MaxLen(most) => (self.length - most, StreamId::MAX),
            TrimTo::MinId(id) => (u64::MAX, id),
        };
        let Some(node) = self.nodes.get_mut(&base) else { return nothing };
        let before = node.heap_bytes();
        let removed = node.delete_front(base, most, below);
        self.node_bytes -= before - node.heap_bytes();
        self.length -= removed;
        TrimStep { removed, done: true }
    }

    pub(super) fn set_id(
        &mut self,
        id: StreamId,
        added: Option<u64>,
        max_deleted: Option<StreamId>,
    ) -> Result<(), SetIdError> {
        let max_deleted = max_deleted.filter(|id| !id.is_zero());
        if max_deleted.is_some_and(|deleted| id < deleted) {
            return Err(SetIdError::BelowDeleted);
        }
        if self.last_live().is_some_and(|top| id < top) {
            return Err(SetIdError::BelowTop);
        }
        if added.is_some_and(|added| added < self.length) {
            return Err(SetIdError::BelowLength);
        }
        // An id below what a node without live entries has held would not belong into that node.
        if self.length == 0
            && let Some((&base, node)) = self.nodes.last()
            && id < node.last_id(base)
        {
            self.drop_node(base);
        }
        self.last_id = id;
        self.added = added.unwrap_or(self.added);
        self.max_deleted = max_deleted.unwrap_or(self.max_deleted);
        Ok(())
    }

    pub(super) fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        Range { nodes: self.nodes.up_from_floor(&start), at: None, start, end }
    }

    pub(super) fn range_rev(&self, start: StreamId, end: StreamId) -> RangeRev<'_> {
        RangeRev { nodes: self.nodes.down_from(&end), at: None, start, end }
    }

    /// Whether something was deleted by id at or above `from`, as far as the stream remembers.
    pub(super) fn has_deleted_from(&self, from: StreamId) -> bool {
        self.length > 0
            && !self.max_deleted.is_zero()
            && self.first_id <= self.max_deleted
            && from <= self.max_deleted
    }

    /// How many entries were ever added up to an id, where that is known without counting.
    pub(super) fn added_up_to(&self, id: StreamId) -> Option<i64> {
        let added = self.added.cast_signed();
        let length = self.length.cast_signed();
        if self.added == 0 {
            return Some(0);
        }
        if id == self.last_id || (self.length == 0 && id < self.last_id) {
            return Some(added);
        }
        if id > self.last_id || (!self.max_deleted.is_zero() && self.max_deleted >= self.first_id) {
            return None;
        }
        match id.cmp(&self.first_id) {
            std::cmp::Ordering::Less => Some(added.wrapping_sub(length)),
            std::cmp::Ordering::Equal => Some(added.wrapping_sub(length).wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// Frees some nodes; how many. For a stream nobody reads any more.
    pub(super) fn free_some(&mut self) -> usize {
        let Some(leaf) = self.nodes.take_leaf() else { return 0 };
        self.node_bytes -= leaf.iter().map(|(_, node)| node.heap_bytes()).sum::<usize>();
        leaf.len()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.nodes.check();
        let (mut bytes, mut length, mut last) = (0, 0, None);
        for (&base, node) in self.nodes.up_from(&StreamId::MIN) {
            assert!(node.live > 0 || last.is_none(), "an empty node");
            assert!(last.is_none_or(|last| last < base), "nodes do not overlap");
            last = Some(last.unwrap_or(StreamId::MIN));
            bytes += node.heap_bytes();
            length += u64::from(node.live);
            assert_eq!(node.items(base).filter(|item| !item.dead).count(), node.live as usize);
            for item in node.items(base).filter(|item| !item.dead) {
                assert!(last < Some(item.entry.id()), "ids ascend");
                last = Some(item.entry.id());
            }
        }
        assert_eq!((self.node_bytes, self.length), (bytes, length));
        assert!(last.is_none_or(|last| last <= self.last_id));
        let first = self.range(StreamId::MIN, StreamId::MAX).next();
        assert_eq!(self.first_id, first.map_or(StreamId::MIN, |entry| entry.id()));
    }
}

/// Entries in ascending order.
#[derive(Clone)]
pub struct Range<'a> {
    nodes: Iter<'a, StreamId, Node>,
    at: Option<(StreamId, &'a Node, usize)>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for Range<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let (base, node, from) = match self.at {
                Some(at) => at,
                None => {
                    let (&base, node) = self.nodes.next()?;
                    (base, node, 0)
                }
            };
            let Some(Item { entry, dead, to, .. }) = node.item(base, from) else {
                self.at = None;
                continue;
            };
            if dead || entry.id() < self.start {
                self.at = Some((base, node, to));
                continue;
            }
            // One that ends the range is looked at again by the next call, if there is one.
            let within = entry.id() <= self.end;
            self.at = Some((base, node, if within { to } else { from }));
            return within.then_some(entry);
        }
    }
}

/// Entries in descending order.
pub struct RangeRev<'a> {
    nodes: Down<'a, StreamId, Node>,
    at: Option<(StreamId, &'a Node, usize)>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for RangeRev<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let (base, node, to) = match self.at {
                Some(at) => at,
                None => {
                    let (&base, node) = self.nodes.next()?;
                    (base, node, node.len())
                }
            };
            let Some(Item { entry, dead, from, .. }) = node.item_before(base, to) else {
                self.at = None;
                continue;
            };
            if dead || entry.id() > self.end {
                self.at = Some((base, node, from));
                continue;
            }
            let within = entry.id() >= self.start;
            self.at = Some((base, node, if within { from } else { to }));
            return within.then_some(entry);
        }
    }
}
