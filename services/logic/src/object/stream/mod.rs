//! A stream: entries in the order of their ids, and groups of consumers that read them.
//!
//! Behaves as the streams of Redis 7.0.15 do, down to counters and what is remembered of deleted
//! entries. Time is handed in as unix milliseconds; entries are given out where they lie. What a
//! command says about keys, about options that do not go together and about blocking is the
//! caller's; so is the order XADD, then trim.
//!
//! Invariants: [`Stream::mem_bytes`] equals the sum of all allocations held; no call does work in
//! proportion to the stream beyond what the command asks: trimming and the deletion of a consumer
//! go in steps, and what [`Stream::destroy_group`] and [`Stream::clear`] cut off is held until
//! [`Stream::reclaim`] has freed it.
//! Next: `entries.rs` and `node.rs` for entries, `group.rs` and `deliver.rs` for groups, `view.rs`
//! for what is shown of them, `tree.rs` for the ordered map below all of it.

mod deliver;
mod entries;
mod group;
mod id;
mod listpack;
mod node;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;
mod view;

pub use deliver::{AutoClaim, Claim, Claimed, DeliveredAt};
pub use entries::{AddError, Range, RangeRev, SetIdError, Trim, TrimStep, TrimTo};
pub use group::ConsumerStep;
pub use id::{AddId, IdError, IdText, StreamId};
pub use node::{Entry, Fields, Pair};
pub use snapshot::{NodeBuilder, NodeView};
pub use view::{ConsumerView, GroupView, Pending};

use entries::Entries;
use group::{Group, Nack};
use tree::Tree;

/// Bytes of a node whose size is not limited by configuration.
const NODE_MAX_BYTES: usize = 1 << 20;
/// Entries of a node whose number is not limited by configuration.
const NODE_MAX_ENTRIES: u32 = 1 << 16;

/// How large nodes may become.
///
/// An approximate trim removes whole nodes. Entries are counted as Redis counts them; bytes are
/// those that the entries would take in Redis' format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `stream-node-max-bytes`; 0 for no limit but our own.
    pub node_max_bytes: usize,
    /// `stream-node-max-entries`; 0 for no limit but our own.
    pub node_max_entries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { node_max_bytes: 4096, node_max_entries: 100 }
    }
}

impl Limits {
    const fn fits(&self, bytes: usize, entries: u32) -> bool {
        let most_bytes = match self.node_max_bytes {
            0 => NODE_MAX_BYTES,
            most => most,
        };
        let most_entries = match self.node_max_entries {
            0 => NODE_MAX_ENTRIES,
            most => most,
        };
        bytes < most_bytes && entries < most_entries
    }

    /// The limit of an approximate trim for which none was given.
    #[must_use]
    pub const fn trim_limit(&self) -> u64 {
        match self.node_max_entries as u64 * 100 {
            0 => 10_000,
            limit if limit > 1_000_000 => 1_000_000,
            limit => limit,
        }
    }
}

/// There is no group of that name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoGroup;

/// Parts that nobody can reach any more.
enum Garbage {
    Entries(Entries),
    Groups(Tree<Box<[u8]>, Box<Group>>),
    Group(Box<Group>),
}

/// The stream.
pub struct Stream {
    entries: Entries,
    groups: Tree<Box<[u8]>, Box<Group>>,
    /// What groups hold, their boxes included.
    group_bytes: usize,
    garbage: Vec<Garbage>,
    /// What garbage holds, beside the list of it.
    garbage_bytes: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

/// Entries.
impl Stream {
    /// An empty stream, which holds no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Entries::new(),
            groups: Tree::new(),
            group_bytes: 0,
            garbage: Vec::new(),
            garbage_bytes: 0,
        }
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.entries.length
    }

    /// Whether it has no entry; it may still have groups.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.length == 0
    }

    /// The highest id given so far.
    #[must_use]
    pub const fn last_id(&self) -> StreamId {
        self.entries.last_id
    }

    /// The lowest id there is; 0-0 without entries.
    #[must_use]
    pub const fn first_id(&self) -> StreamId {
        self.entries.first_id
    }

    /// The highest id that was deleted by id.
    #[must_use]
    pub const fn max_deleted_id(&self) -> StreamId {
        self.entries.max_deleted
    }

    /// Entries added in all.
    #[must_use]
    pub const fn entries_added(&self) -> u64 {
        self.entries.added
    }

    /// Number of nodes: `radix-tree-keys` of XINFO STREAM.
    #[must_use]
    pub const fn node_count(&self) -> usize {
        self.entries.node_count()
    }

    /// The id [`add`](Self::add) would give: lets a caller fail before it makes a key.
    ///
    /// # Errors
    /// As [`add`](Self::add), but for [`AddError::TooLarge`].
    pub fn next_id(&self, id: AddId, now_ms: u64) -> Result<StreamId, AddError> {
        self.entries.next_id(id, now_ms)
    }

    /// Adds an entry of at least one pair; its id.
    ///
    /// # Errors
    /// When the id is not above all others, or the entry is larger than 1 GiB.
    pub fn add<'p, P>(
        &mut self,
        id: AddId,
        now_ms: u64,
        pairs: P,
        limits: &Limits,
    ) -> Result<StreamId, AddError>
    where
        P: IntoIterator<Item = Pair<'p>>,
        P::IntoIter: Clone,
    {
        self.entries.add(id, now_ms, pairs.into_iter(), limits)
    }

    /// One entry.
    #[must_use]
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.entries.get(id)
    }

    /// Entries from `start` to `end`, both included, in ascending order.
    #[must_use]
    pub fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        self.entries.range(start, end)
    }

    /// Entries from `end` down to `start`, both included.
    #[must_use]
    pub fn range_rev(&self, start: StreamId, end: StreamId) -> RangeRev<'_> {
        self.entries.range_rev(start, end)
    }

    /// Entries above an id, as XREAD gives them; nothing when there is none.
    #[must_use]
    pub fn after(&self, id: StreamId) -> Option<Range<'_>> {
        let from = id.next()?;
        (self.entries.last_live()? >= from).then(|| self.range(from, StreamId::MAX))
    }

    /// Deletes an entry; whether it was there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        self.entries.delete(id)
    }

    /// One step of a trim, which looks at no more than `nodes` nodes.
    pub fn trim(&mut self, trim: &mut Trim, nodes: usize) -> TrimStep {
        self.entries.trim(trim, nodes)
    }

    /// XSETID: what counts as the last id, the number of entries ever added, and the highest
    /// deleted id (0-0 for the one before).
    ///
    /// # Errors
    /// When it contradicts the entries.
    pub fn set_id(
        &mut self,
        id: StreamId,
        entries_added: Option<u64>,
        max_deleted: Option<StreamId>,
    ) -> Result<(), SetIdError> {
        self.entries.set_id(id, entries_added, max_deleted)
    }
}

/// Groups.
impl Stream {
    /// Makes a group that has read everything up to an id; whether there was none of that name.
    pub fn create_group(&mut self, name: &[u8], at: StreamId, entries_read: Option<i64>) -> bool {
        if self.groups.get(name).is_some() {
            return false;
        }
        let group = Box::new(Group::new(at, entries_read));
        self.group_bytes += group.mem_bytes();
        self.groups.insert(name.into(), group);
        true
    }

    /// Sets what a group has read.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn set_group_id(
        &mut self,
        name: &[u8],
        at: StreamId,
        entries_read: Option<i64>,
    ) -> Result<(), NoGroup> {
        let group = self.groups.get_mut(name).ok_or(NoGroup)?;
        (group.last_id, group.entries_read) = (at, entries_read);
        Ok(())
    }

    /// Removes a group, whose memory is given back by [`reclaim`](Self::reclaim); whether there
    /// was one of that name.
    pub fn destroy_group(&mut self, name: &[u8]) -> bool {
        let Some(group) = self.groups.remove(name) else { return false };
        self.group_bytes -= group.mem_bytes();
        self.discard(group.mem_bytes(), Garbage::Group(group));
        true
    }

    /// Number of groups.
    #[must_use]
    pub const fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// One group.
    #[must_use]
    pub fn group(&self, name: &[u8]) -> Option<GroupView<'_>> {
        let (key, group) = self.groups.up_from(name).next()?;
        (**key == *name).then(|| GroupView::new(key, group, &self.entries))
    }

    /// All groups by name.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        let groups = self.groups.up_from(&[][..]);
        groups.map(|(name, group)| GroupView::new(name, group, &self.entries))
    }

    /// Works on a group, and keeps count of what it holds.
    fn with<'s, T>(
        &'s mut self,
        name: &[u8],
        work: impl FnOnce(&mut Group, &'s Entries) -> T,
    ) -> Result<T, NoGroup> {
        let group = self.groups.get_mut(name).ok_or(NoGroup)?;
        self.group_bytes -= group.mem_bytes();
        let done = work(group, &self.entries);
        self.group_bytes += group.mem_bytes();
        Ok(done)
    }

    /// Makes a consumer; whether there was none of that name.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn create_consumer(
        &mut self,
        group: &[u8],
        name: &[u8],
        now_ms: u64,
    ) -> Result<bool, NoGroup> {
        self.with(group, |group, _| group.create_consumer(name, now_ms).is_some())
    }

    /// One step of deleting a consumer with all that is pending with it, about `budget` entries;
    /// done with nothing when there is none of that name.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn delete_consumer(
        &mut self,
        group: &[u8],
        name: &[u8],
        budget: usize,
    ) -> Result<ConsumerStep, NoGroup> {
        let step = self.with(group, |group, _| group.delete_consumer(name, budget.max(1)))?;
        Ok(step.unwrap_or(ConsumerStep { removed: 0, done: true }))
    }

    /// XREADGROUP with `>`: hands entries no consumer of the group has had to `each`, up to `count`
    /// (0 for all); how many. With none, the consumer is neither made nor seen.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn read_new<'s>(
        &'s mut self,
        group: &[u8],
        consumer: &[u8],
        count: u64,
        noack: bool,
        now_ms: u64,
        each: impl FnMut(Entry<'s>),
    ) -> Result<u64, NoGroup> {
        self.with(group, |group, entries| {
            group.read_new(entries, consumer, count, noack, now_ms, each)
        })
    }

    /// XREADGROUP with an id: hands what is pending with the consumer above that id to `each`, up
    /// to `count` (0 for all); how many. An entry that was deleted comes as its id only.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn read_history<'s>(
        &'s mut self,
        group: &[u8],
        consumer: &[u8],
        after: StreamId,
        count: u64,
        now_ms: u64,
        each: impl FnMut(StreamId, Option<Entry<'s>>),
    ) -> Result<u64, NoGroup> {
        self.with(group, |group, entries| {
            group.read_history(entries, consumer, after, count, now_ms, each)
        })
    }

    /// XACK of one id; whether it was pending.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn acknowledge(&mut self, group: &[u8], id: StreamId) -> Result<bool, NoGroup> {
        self.with(group, |group, _| group.acknowledge(id))
    }

    /// XCLAIM: hands what came of each id to `each`; ids that are left alone are not.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn claim<'s>(
        &'s mut self,
        group: &[u8],
        consumer: &[u8],
        ids: &[StreamId],
        options: &Claim,
        now_ms: u64,
        each: impl FnMut(Claimed<'s>),
    ) -> Result<(), NoGroup> {
        self.with(group, |group, entries| {
            group.claim(entries, consumer, ids, options, now_ms, each);
        })
    }

    /// XAUTOCLAIM: hands what came of each pending id to `each`; the id to go on from, 0-0 at the
    /// end.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn auto_claim<'s>(
        &'s mut self,
        group: &[u8],
        consumer: &[u8],
        options: &AutoClaim,
        now_ms: u64,
        each: impl FnMut(Claimed<'s>),
    ) -> Result<StreamId, NoGroup> {
        self.with(group, |group, entries| {
            group.auto_claim(entries, consumer, options, now_ms, each)
        })
    }

    /// Notes a delivery as it was noted elsewhere, whether or not there is such an entry: for
    /// loading a snapshot. The consumer is made when missing.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn restore_pending(
        &mut self,
        group: &[u8],
        pending: &Pending<'_>,
        seen_ms: u64,
    ) -> Result<(), NoGroup> {
        self.with(group, |group, _| {
            let consumer = group.meet_consumer(pending.consumer, seen_ms);
            let Pending { id, delivered_ms, deliveries, .. } = *pending;
            group.deliver(id, Nack { delivered_ms, deliveries, consumer });
        })
    }
}

/// Memory.
impl Stream {
    /// Bytes of heap held.
    #[must_use]
    pub const fn mem_bytes(&self) -> usize {
        self.entries.mem_bytes()
            + self.groups.bytes()
            + self.group_bytes
            + self.garbage_bytes
            + self.garbage.capacity() * size_of::<Garbage>()
    }

    /// Makes the stream a new one; what it held is given back by [`reclaim`](Self::reclaim).
    pub fn clear(&mut self) {
        let entries = std::mem::replace(&mut self.entries, Entries::new());
        let groups = std::mem::replace(&mut self.groups, Tree::new());
        let group_bytes = std::mem::take(&mut self.group_bytes);
        self.discard(entries.mem_bytes(), Garbage::Entries(entries));
        self.discard(groups.bytes() + group_bytes, Garbage::Groups(groups));
    }

    fn discard(&mut self, bytes: usize, garbage: Garbage) {
        if bytes > 0 {
            self.garbage_bytes += bytes;
            self.garbage.push(garbage);
        }
    }

    /// What was cut off, as a stream of its own that is only to be freed; `None` when there is nothing.
    pub fn take_garbage(&mut self) -> Option<Self> {
        if self.garbage.is_empty() {
            return None;
        }
        let garbage = std::mem::take(&mut self.garbage);
        let garbage_bytes = std::mem::take(&mut self.garbage_bytes);
        Some(Self { garbage, garbage_bytes, ..Self::new() })
    }

    /// Frees about `budget` nodes, pending entries or groups that were cut off; whether all is
    /// freed.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        let mut freed = 0;
        while freed < budget {
            let Some(garbage) = self.garbage.last_mut() else { break };
            let (items, bytes) = garbage.free_some();
            self.garbage_bytes -= bytes;
            freed += items.max(1);
            if items == 0 {
                self.garbage.pop();
            }
        }
        if self.garbage.is_empty() {
            self.garbage = Vec::new();
        }
        self.garbage.is_empty()
    }
}

impl Garbage {
    /// Items freed and bytes given back; without items, all that was left goes with it.
    fn free_some(&mut self) -> (usize, usize) {
        match self {
            Self::Entries(entries) => {
                let before = entries.mem_bytes();
                let items = entries.free_some();
                (items, before - if items == 0 { 0 } else { entries.mem_bytes() })
            }
            Self::Group(group) => free_some_of(group),
            Self::Groups(groups) => {
                let before = groups.bytes();
                let Some((name, group)) = groups.last_mut() else { return (0, before) };
                let (items, bytes) = free_some_of(group);
                if items > 0 {
                    return (items, bytes);
                }
                let name = name.clone();
                groups.remove(&name);
                (1, bytes + before - groups.bytes())
            }
        }
    }
}

/// As [`Garbage::free_some`], of one group.
fn free_some_of(group: &mut Group) -> (usize, usize) {
    let before = group.mem_bytes();
    let items = group.free_some();
    (items, before - if items == 0 { 0 } else { group.mem_bytes() })
}
