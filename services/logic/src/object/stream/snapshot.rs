//! Nodes as they lie, for snapshots: going through them, and putting them back.
//!
//! Entries that are marked as deleted go along, since they count for where a node ends.
//!
//! Invariant: what [`Stream::append_node`] takes keeps every invariant of `entries.rs`, whatever was built.
//! Next: `crate::rdb` writes and reads these.

use super::{
    Stream,
    id::StreamId,
    node::{Entry, Node, Pair},
};

/// A node.
#[derive(Clone, Copy)]
pub struct NodeView<'a> {
    base: StreamId,
    node: &'a Node,
}

impl<'a> NodeView<'a> {
    /// Its first id, deleted or not.
    #[must_use]
    pub const fn base(&self) -> StreamId {
        self.base
    }

    /// Entries that are not deleted.
    #[must_use]
    pub const fn live(&self) -> u32 {
        self.node.live
    }

    /// Names of the fields that most of its entries have.
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.node.names()
    }

    /// Its entries in order: each with whether it is deleted, and whether its fields are [`names`](Self::names).
    pub fn items(&self) -> impl Iterator<Item = (Entry<'a>, bool, bool)> + use<'a> {
        let (node, base) = (self.node, self.base);
        node.items(base).map(|item| (item.entry, item.dead, item.entry.names.is_some()))
    }
}

/// A node in the making.
pub struct NodeBuilder {
    base: StreamId,
    node: Node,
    /// Of the entries that are not deleted.
    first: Option<StreamId>,
    last: Option<StreamId>,
    ascends: bool,
}

impl NodeBuilder {
    /// An empty node.
    pub fn new<'p>(base: StreamId, names: impl Iterator<Item = &'p [u8]> + Clone) -> Self {
        let node = Node::new(names.map(|name| (name, &[][..])));
        Self { base, node, first: None, last: None, ascends: true }
    }

    /// Adds an entry.
    pub fn push<'p>(
        &mut self,
        id: StreamId,
        pairs: impl Iterator<Item = Pair<'p>> + Clone,
        deleted: bool,
    ) {
        self.node.push(self.base, id, pairs);
        if deleted {
            return self.node.mark_last(self.base);
        }
        self.ascends &= id >= self.base && self.last.is_none_or(|last| last < id) && !id.is_zero();
        self.first = self.first.or(Some(id));
        self.last = Some(id);
    }
}

impl Stream {
    /// The nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        let nodes = self.entries.nodes.up_from(&StreamId::MIN);
        nodes.map(|(&base, node)| NodeView { base, node })
    }

    /// Puts a node behind all others; false, and nothing done, when it does not belong there. One in which nothing is
    /// live is left out.
    pub fn append_node(&mut self, mut built: NodeBuilder) -> bool {
        let entries = &mut self.entries;
        let before = entries.nodes.last().map(|(&base, node)| node.last_id(base).max(base));
        let above = before.is_none_or(|before| before < built.base);
        if !above || !built.ascends {
            return false;
        }
        let Some(last) = built.last else { return true };
        built.node.seal();
        entries.length += u64::from(built.node.live);
        entries.node_bytes += built.node.heap_bytes();
        entries.nodes.insert(built.base, built.node);
        if entries.first_id.is_zero() {
            entries.first_id = built.first.unwrap_or(last);
        }
        entries.last_id = last;
        entries.added = entries.length;
        true
    }

    /// What the stream remembers, after its nodes; false, and nothing done, when an entry contradicts it.
    pub fn remember(&mut self, last_id: StreamId, max_deleted: StreamId, added: u64) -> bool {
        let entries = &mut self.entries;
        if last_id < entries.last_id || added < entries.length {
            return false;
        }
        (entries.last_id, entries.max_deleted, entries.added) = (last_id, max_deleted, added);
        true
    }

    /// How many entries were ever added up to an id, where that is known: what a group has read that does not know.
    #[must_use]
    pub fn read_up_to(&self, id: StreamId) -> Option<i64> {
        self.entries.added_up_to(id)
    }
}
