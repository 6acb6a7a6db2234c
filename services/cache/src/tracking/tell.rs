//! Telling clients that keys have changed.
//!
//! A client over RESP3 gets a push message; one that redirects lets another client have it, over RESP2 as a message
//! of the channel `__redis__:invalidate` if that has subscriptions. Next: `pubsub/mail.rs` for how it gets there.

use bytes::Bytes;
use wire::resp::{Version, reply};

use super::Target;
use crate::{
    pubsub::Parcel,
    shard::Shard,
    work::{Op, Request},
};

/// What RESP2 clients are told by.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// The keys, as the protocol has them; nothing for all keys.
fn names<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut text = Vec::new();
    reply::array(&mut text, keys.len());
    keys.for_each(|key| reply::bulk(&mut text, key));
    text
}

/// A message of these keys; `None` when the client cannot get any.
fn message(version: Version, subscribes: bool, redirected: bool, keys: &[u8]) -> Option<Parcel> {
    let mut text = Vec::with_capacity(keys.len() + 64);
    match version {
        Version::Resp3 => {
            reply::push(&mut text, version, 2);
            reply::bulk(&mut text, b"invalidate");
        }
        Version::Resp2 if redirected && subscribes => {
            reply::array(&mut text, 3);
            reply::bulk(&mut text, b"message");
            reply::bulk(&mut text, CHANNEL);
        }
        Version::Resp2 => return None,
    }
    text.extend_from_slice(keys);
    Some(Parcel::whole(text))
}

impl Shard {
    /// A key has changed, by a command of this client: clients of all shards are told.
    pub(crate) fn touched(&mut self, key: &[u8], by: u64) {
        if !self.tracking.is_wanted() {
            return;
        }
        self.invalidate(key, by);
        let others: Vec<u16> = self.tracking.others.iter().copied().collect();
        for target in others {
            let op = Op::Touched { key: key.into(), by };
            self.post(target, Request::Op { ticket: 0, op, unlock: false });
        }
    }

    /// Tells the clients of this shard that a key has changed, and forgets that they have read it.
    pub(crate) fn invalidate(&mut self, key: &[u8], by: u64) {
        let tracking = &mut self.tracking;
        for (start, prefix) in &mut tracking.prefixes {
            if key.starts_with(start) {
                prefix.changed.insert(key.into(), by);
                tracking.changed = true;
            }
        }
        self.tell_readers(key, by);
    }

    /// Tells those that have read a key, and forgets that they have.
    pub(super) fn tell_readers(&mut self, key: &[u8], by: u64) {
        let Some(ids) = self.tracking.take_readers(key) else { return };
        let text = names([key].into_iter());
        for id in ids {
            let told =
                self.tracking.get(id).is_some_and(|one| !(one.bcast || one.noloop && id == by));
            if told {
                self.tell_client(id, &text);
            }
        }
    }

    /// Tells the clients of this shard that all keys have changed.
    pub(crate) fn invalidate_all(&mut self) {
        self.tracking.clear_keys();
        let clients: Vec<(u64, u32)> =
            self.tracking.clients.iter().map(|(id, tracker)| (*id, tracker.slot)).collect();
        for (id, slot) in clients {
            let version = self.clients.get(slot).map_or(Version::Resp2, |record| record.version);
            let mut text = Vec::new();
            reply::null(&mut text, version);
            self.tell_client(id, &text);
        }
    }

    /// Tells clients that track prefixes what has changed since the last time.
    pub(crate) fn tell_prefixes(&mut self) {
        if !std::mem::take(&mut self.tracking.changed) {
            return;
        }
        let mut messages: Vec<(u64, Vec<u8>)> = Vec::new();
        for prefix in self.tracking.prefixes.values_mut() {
            let changed = std::mem::take(&mut prefix.changed);
            if changed.is_empty() {
                continue;
            }
            let all = names(changed.keys().map(|key| &**key));
            for &id in &prefix.clients {
                let noloop = self.tracking.clients.get(&id).is_some_and(|one| one.noloop);
                let own = |by: &u64| noloop && *by == id;
                if changed.values().any(own) {
                    let others: Vec<&[u8]> =
                        changed.iter().filter(|(_, by)| !own(by)).map(|(key, _)| &**key).collect();
                    if !others.is_empty() {
                        messages.push((id, names(others.into_iter())));
                    }
                } else {
                    messages.push((id, all.clone()));
                }
            }
        }
        for (id, text) in messages {
            self.tell_client(id, &text);
        }
    }

    /// Sends a client, or the one it redirects to, the names of keys.
    fn tell_client(&mut self, id: u64, keys: &[u8]) {
        let Some((slot, redirect)) = self.tracking.get(id).map(|one| (one.slot, one.redirect))
        else {
            return;
        };
        match redirect {
            None => {
                self.tell_slot(slot, id, false, keys);
            }
            Some(target) if target.shard == self.index => {
                if !self.tell_slot(target.slot, target.id, true, keys) {
                    self.broken(id, target.id);
                }
            }
            Some(Target { shard, slot, id: to }) => {
                let keys = Bytes::copy_from_slice(keys);
                let op = Op::Tell { slot, id: to, keys, from: (self.index, id) };
                self.post(shard, Request::Op { ticket: 0, op, unlock: false });
            }
        }
    }

    /// Puts a message into the mailbox of the client at `slot`, if it is still this one.
    fn tell_slot(&mut self, slot: u32, id: u64, redirected: bool, keys: &[u8]) -> bool {
        let Some(record) = self.clients.get(slot).filter(|record| record.id == id) else {
            return false;
        };
        let version = record.version;
        if let Some(parcel) = message(version, record.subscribes(), redirected, keys) {
            self.mail.open(slot, version);
            self.mail.put_parcel(slot, parcel);
        }
        true
    }

    /// What a client of another shard redirects to one of this shard.
    pub(crate) fn tell_redirected(&mut self, slot: u32, id: u64, keys: &[u8], from: (u16, u64)) {
        if !self.tell_slot(slot, id, true, keys) {
            let op = Op::Broken { id: from.1, to: id };
            self.post(from.0, Request::Op { ticket: 0, op, unlock: false });
        }
    }

    /// The client to which this one redirects has gone.
    pub(crate) fn broken(&mut self, id: u64, to: u64) {
        let Some(tracker) = self.tracking.get_mut(id) else { return };
        tracker.broken = true;
        let slot = tracker.slot;
        let Some(record) = self.clients.get_mut(slot).filter(|record| record.id == id) else {
            return;
        };
        record.tracking.broken = true;
        if record.version == Version::Resp3 {
            let mut text = Vec::new();
            reply::push(&mut text, Version::Resp3, 2);
            reply::bulk(&mut text, b"tracking-redir-broken");
            reply::integer(&mut text, i64::try_from(to).unwrap_or(i64::MAX));
            self.mail.open(slot, Version::Resp3);
            self.mail.put_parcel(slot, Parcel::whole(text));
        }
    }
}
