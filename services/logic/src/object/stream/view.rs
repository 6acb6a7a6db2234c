//! What is shown of groups and consumers: XPENDING, XINFO, snapshots.
//!
//! Views borrow; everything they give is in the order in which Redis gives it, ids ascending and
//! names by their bytes.

use super::{
    entries::Entries,
    group::{Consumer, Group, Nack},
    id::StreamId,
};

/// A group.
#[derive(Clone, Copy)]
pub struct GroupView<'a> {
    name: &'a [u8],
    group: &'a Group,
    entries: &'a Entries,
}

/// A consumer.
#[derive(Clone, Copy)]
pub struct ConsumerView<'a> {
    group: &'a Group,
    consumer: &'a Consumer,
}

/// A delivery that was not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending<'a> {
    /// Of what.
    pub id: StreamId,
    /// To whom.
    pub consumer: &'a [u8],
    /// When last, as unix time in milliseconds.
    pub delivered_ms: u64,
    /// How often.
    pub deliveries: u64,
}

impl Pending<'_> {
    /// Milliseconds since the last delivery.
    #[must_use]
    pub const fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.delivered_ms)
    }
}

impl<'a> GroupView<'a> {
    pub(super) const fn new(name: &'a [u8], group: &'a Group, entries: &'a Entries) -> Self {
        Self { name, group, entries }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// The last id delivered.
    #[must_use]
    pub const fn last_id(&self) -> StreamId {
        self.group.last_id
    }

    /// Entries read in all, where that is known.
    #[must_use]
    pub const fn entries_read(&self) -> Option<i64> {
        self.group.entries_read
    }

    /// Entries yet to be delivered, where that is known.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        let entries = self.entries;
        if entries.added == 0 {
            return Some(0);
        }
        let known =
            self.group.entries_read.filter(|_| !entries.has_deleted_from(self.group.last_id));
        let read = known.or_else(|| entries.added_up_to(self.group.last_id))?;
        Some(entries.added.cast_signed().wrapping_sub(read))
    }

    /// Number of entries that are pending.
    #[must_use]
    pub const fn pending_len(&self) -> usize {
        self.group.pel.len()
    }

    /// Lowest and highest pending id.
    #[must_use]
    pub fn pending_bounds(&self) -> Option<(StreamId, StreamId)> {
        let (first, _) = self.group.pel.first()?;
        let (last, _) = self.group.pel.last()?;
        Some((*first, *last))
    }

    /// Pending entries from `start` to `end`, both included.
    pub fn pending(
        &self,
        start: StreamId,
        end: StreamId,
    ) -> impl Iterator<Item = Pending<'a>> + use<'a> {
        let group = self.group;
        let range = group.pel.up_from(&start).take_while(move |(id, _)| **id <= end);
        range.map(move |(&id, nack)| {
            let consumer = group.consumers.get(&nack.consumer);
            pending(id, nack, consumer.map_or(&[], |consumer| &consumer.name))
        })
    }

    /// Number of consumers.
    #[must_use]
    pub const fn consumer_count(&self) -> usize {
        self.group.names.len()
    }

    /// Consumers by name.
    pub fn consumers(&self) -> impl Iterator<Item = ConsumerView<'a>> + use<'a> {
        let group = self.group;
        let numbers = group.names.up_from(&[][..]);
        numbers.filter_map(move |(_, number)| {
            Some(ConsumerView { group, consumer: group.consumers.get(number)? })
        })
    }

    /// One consumer.
    #[must_use]
    pub fn consumer(&self, name: &[u8]) -> Option<ConsumerView<'a>> {
        let number = self.group.names.get(name)?;
        Some(ConsumerView { group: self.group, consumer: self.group.consumers.get(number)? })
    }
}

impl<'a> ConsumerView<'a> {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        &self.consumer.name
    }

    /// When it last read or claimed something, as unix time in milliseconds.
    #[must_use]
    pub const fn seen_ms(&self) -> u64 {
        self.consumer.seen_ms
    }

    /// Milliseconds since it was seen.
    #[must_use]
    pub const fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.consumer.seen_ms)
    }

    /// Number of entries that are pending with it.
    #[must_use]
    pub const fn pending_len(&self) -> usize {
        self.consumer.pel.len()
    }

    /// What is pending with it from `start` to `end`, both included.
    pub fn pending(
        &self,
        start: StreamId,
        end: StreamId,
    ) -> impl Iterator<Item = Pending<'a>> + use<'a> {
        let (group, consumer) = (self.group, self.consumer);
        let range = consumer.pel.up_from(&start).take_while(move |(id, ())| **id <= end);
        range.filter_map(move |(&id, ())| Some(pending(id, group.pel.get(&id)?, &consumer.name)))
    }
}

const fn pending<'a>(id: StreamId, nack: &Nack, consumer: &'a [u8]) -> Pending<'a> {
    let Nack { delivered_ms, deliveries, .. } = *nack;
    Pending { id, consumer, delivered_ms, deliveries }
}
