//! Handing entries to consumers: reading, reading again, claiming.
//!
//! Redis' rules are kept to the letter, the odd ones too: XCLAIM with FORCE counts a delivery
//! twice, a consumer that claims nothing is neither made nor seen, an entry that is gone leaves the
//! pending list when someone tries to claim it.
//! Next: `group.rs` for the lists, `entries.rs` for what counts as deleted.

use super::{
    entries::Entries,
    group::{Group, Nack},
    id::StreamId,
    node::Entry,
};

/// PEL entries XAUTOCLAIM looks at for each one it may return.
const ATTEMPTS: u64 = 10;

/// When a claimed entry counts as delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveredAt {
    /// Now.
    Now,
    /// So many milliseconds ago; now, when that is no time.
    Idle(i64),
    /// At a unix time in milliseconds; now, when that lies ahead.
    Unix(i64),
}

/// Options of XCLAIM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Leaves alone what was delivered more recently.
    pub min_idle_ms: u64,
    /// The new time of delivery.
    pub delivered: DeliveredAt,
    /// The new count of deliveries; one more than before when not given.
    pub retry_count: Option<u64>,
    /// Also what is pending with nobody.
    pub force: bool,
    /// The caller shows ids only: not counted as a delivery.
    pub just_id: bool,
    /// The group's last id is raised to this.
    pub last_id: StreamId,
}

impl Default for Claim {
    fn default() -> Self {
        Self {
            min_idle_ms: 0,
            delivered: DeliveredAt::Now,
            retry_count: None,
            force: false,
            just_id: false,
            last_id: StreamId::MIN,
        }
    }
}

/// Options of XAUTOCLAIM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AutoClaim {
    /// Leaves alone what was delivered more recently.
    pub min_idle_ms: u64,
    /// The lowest id looked at.
    pub start: StreamId,
    /// Entries returned at most, deleted ones included.
    pub count: u64,
    /// The caller shows ids only: not counted as a delivery.
    pub just_id: bool,
}

/// What came of an id that was to be claimed.
#[derive(Clone, Copy, Debug)]
pub enum Claimed<'a> {
    /// It is the consumer's now.
    Entry(Entry<'a>),
    /// There is no such entry any more; it is pending no longer.
    Deleted(StreamId),
}

impl DeliveredAt {
    fn resolve(self, now_ms: u64) -> u64 {
        let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let at = match self {
            Self::Now => return now_ms,
            Self::Idle(idle) => now.checked_sub(idle),
            Self::Unix(at) => Some(at),
        };
        at.and_then(|at| u64::try_from(at).ok()).filter(|at| *at <= now_ms).unwrap_or(now_ms)
    }
}

fn is_idle(nack: Nack, min_idle_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(nack.delivered_ms) >= min_idle_ms
}

impl Group {
    /// Delivers what no consumer of the group has seen yet; how many.
    pub(super) fn read_new<'e>(
        &mut self,
        entries: &'e Entries,
        consumer: &[u8],
        count: u64,
        noack: bool,
        now_ms: u64,
        mut each: impl FnMut(Entry<'e>),
    ) -> u64 {
        let from = self.last_id.next();
        let Some(from) = from.filter(|from| entries.last_live() >= Some(*from)) else { return 0 };
        let consumer = self.meet_consumer(consumer, now_ms);
        let mut read = 0;
        for entry in entries.range(from, StreamId::MAX) {
            let id = entry.id();
            self.entries_read = match self.entries_read {
                Some(read) if !entries.has_deleted_from(id) => Some(read.wrapping_add(1)),
                _ => entries.added_up_to(id),
            };
            self.last_id = id;
            if !noack {
                self.deliver(id, Nack { delivered_ms: now_ms, deliveries: 1, consumer });
            }
            each(entry);
            read += 1;
            if read == count {
                break;
            }
        }
        read
    }

    /// Delivers again what is pending with a consumer; entries that are gone by their id only.
    pub(super) fn read_history<'e>(
        &mut self,
        entries: &'e Entries,
        consumer: &[u8],
        after: StreamId,
        count: u64,
        now_ms: u64,
        mut each: impl FnMut(StreamId, Option<Entry<'e>>),
    ) -> u64 {
        let number = self.meet_consumer(consumer, now_ms);
        let Some(consumer) = self.consumers.get(&number) else { return 0 };
        let Some(from) = after.next() else { return 0 };
        let mut read = 0;
        for (&id, ()) in consumer.pel.up_from(&from) {
            let entry = entries.get(id);
            if entry.is_some()
                && let Some(nack) = self.pel.get_mut(&id)
            {
                nack.delivered_ms = now_ms;
                nack.deliveries = nack.deliveries.wrapping_add(1);
            }
            each(id, entry);
            read += 1;
            if read == count {
                break;
            }
        }
        read
    }

    /// Makes a consumer the owner of named entries.
    pub(super) fn claim<'e>(
        &mut self,
        entries: &'e Entries,
        consumer: &[u8],
        ids: &[StreamId],
        options: &Claim,
        now_ms: u64,
        mut each: impl FnMut(Claimed<'e>),
    ) {
        self.last_id = self.last_id.max(options.last_id);
        let delivered_ms = options.delivered.resolve(now_ms);
        let mut owner = None;
        for &id in ids {
            let Some(entry) = entries.get(id) else {
                if self.acknowledge(id) {
                    each(Claimed::Deleted(id));
                }
                continue;
            };
            let deliveries = match self.pel.get(&id) {
                Some(nack) if !is_idle(*nack, options.min_idle_ms, now_ms) => continue,
                Some(nack) => nack.deliveries,
                None if options.force => 1,
                None => continue,
            };
            let deliveries = match options.retry_count {
                Some(count) => count,
                None => deliveries.wrapping_add(u64::from(!options.just_id)),
            };
            let consumer = *owner.get_or_insert_with(|| self.meet_consumer(consumer, now_ms));
            self.deliver(id, Nack { delivered_ms, deliveries, consumer });
            each(Claimed::Entry(entry));
        }
    }

    /// Makes a consumer the owner of what others have left idle; where to go on, 0-0 at the end.
    pub(super) fn auto_claim<'e>(
        &mut self,
        entries: &'e Entries,
        consumer: &[u8],
        options: &AutoClaim,
        now_ms: u64,
        mut each: impl FnMut(Claimed<'e>),
    ) -> StreamId {
        let mut count = options.count;
        let mut attempts = count.saturating_mul(ATTEMPTS);
        let (mut next, mut owner) = (Some(options.start), None);
        while attempts > 0 && count > 0 {
            attempts -= 1;
            let Some((id, nack)) = next.and_then(|from| self.first_pending(from)) else {
                return StreamId::MIN;
            };
            next = id.next();
            let Some(entry) = entries.get(id) else {
                self.acknowledge(id);
                each(Claimed::Deleted(id));
                count -= 1;
                continue;
            };
            if !is_idle(nack, options.min_idle_ms, now_ms) {
                continue;
            }
            let consumer = *owner.get_or_insert_with(|| self.meet_consumer(consumer, now_ms));
            let deliveries = nack.deliveries.wrapping_add(u64::from(!options.just_id));
            self.deliver(id, Nack { delivered_ms: now_ms, deliveries, consumer });
            each(Claimed::Entry(entry));
            count -= 1;
        }
        next.and_then(|from| self.first_pending(from)).map_or(StreamId::MIN, |(id, _)| id)
    }

    fn first_pending(&self, from: StreamId) -> Option<(StreamId, Nack)> {
        self.pel.up_from(&from).next().map(|(&id, &nack)| (id, nack))
    }
}
