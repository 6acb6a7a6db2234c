//! What a shard does with messages: publishing them, and what the host calls to have them delivered.
//!
//! Next: `serve.rs`, which delivers once per turn.

use view::{Instant, Output};

use super::{Kind, Limit, Payload};
use crate::{
    clients::Record,
    shard::Shard,
    work::{Op, Request},
};

/// Most requests that wait to be sent to other shards without anybody waiting for an answer; what comes
/// when there are so many is lost, as it is to somebody who does not listen. Clients that track are told that all has
/// changed.
const POSTS_MAX: usize = 1 << 16;

/// What may wait for a connection without subscriptions, whose replies may be long, when it is told something.
const OTHERS: Limit = Limit { hard_bytes: 1 << 30, soft_bytes: 0, soft_s: 0 };

impl Shard {
    /// Puts a message into the mailboxes of those who listen on this shard; how many there are.
    pub(crate) fn publish(&mut self, kind: Kind, channel: &[u8], payload: Payload<'_>) -> u64 {
        self.pubsub.publish(&mut self.mail, kind, channel, payload)
    }

    /// Sends what a script has published, to those who listen on any shard.
    pub(crate) fn publish_kept(&mut self) {
        for (kind, channel, payload) in self.elsewhere.take_messages() {
            self.publish(kind, &channel, Payload::Shared(&payload));
            for target in self.topology.hearing(kind.hearing(), self.index) {
                let (channel, payload) = (channel.clone(), payload.clone());
                let op = Op::Publish { kind, channel, payload };
                self.post(target, Request::Op { ticket: 0, op, unlock: false });
            }
        }
    }

    /// Tells all shards what anybody listens to here.
    pub(crate) fn tell_hearing(&self) {
        self.topology.set_hearing(self.index, self.pubsub.hearing());
    }

    /// Asks another shard for something without waiting for the answer.
    pub(crate) fn post(&mut self, target: u16, request: Request) {
        if self.posts.len() < POSTS_MAX {
            self.posts.push_back((target, request));
        } else {
            self.stats.posts_lost += 1;
            if matches!(request, Request::Op { op: Op::Touched { .. }, .. }) {
                self.untold.insert(target);
            }
        }
    }

    /// The next request that nobody waits for, and the shard it is for.
    pub fn take_post(&mut self) -> Option<(u16, Request)> {
        self.posts.pop_front().or_else(|| {
            let target = self.untold.pop_first()?;
            Some((target, Request::Op { ticket: 0, op: Op::TouchedAll, unlock: false }))
        })
    }

    /// Puts back one that found no room.
    pub fn put_back(&mut self, target: u16, request: Request) {
        self.posts.push_front((target, request));
    }

    /// Whether a connection has mail. Look once per turn, and before the shard sleeps.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.mail.is_due()
    }

    /// A connection that may have mail: its place, and the host's name for it.
    pub fn next_addressee(&mut self) -> Option<(u32, u64)> {
        loop {
            let slot = self.mail.next_due()?;
            if let Some(record) = self.clients.get(slot) {
                return Some((slot, record.conn));
            }
        }
    }

    /// Appends a connection's mail to its output. True: so much waits there that it is to be closed at once.
    pub fn deliver(&mut self, slot: u32, out: &mut Output, now: Instant) -> bool {
        self.mail.take(slot, out);
        let subscribes = self.clients.get(slot).is_some_and(Record::subscribes);
        let limit = if subscribes { self.settings.pubsub_limit } else { OTHERS };
        self.mail.is_over(slot, out.len(), limit, now.unix_ms())
    }

    /// Throws away the mail of a connection that takes none any more.
    pub fn discard_mail(&mut self, slot: u32) {
        self.mail.discard(slot);
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.mail.close(slot);
        if self.pubsub.remove_all(slot) {
            self.tell_hearing();
        }
    }
}
