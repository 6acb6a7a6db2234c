//! What commands change: the one place where they say so, key by key, for all who want to know.
//!
//! A command tells what it did with [`Cx::event`], [`Cx::created`] and [`Cx::emptied`], each of which is one test of a
//! flag ([`Shard::watching`](crate::shard::Shard)) while nobody wants to know. A command that tells nothing has changed
//! nothing: no other place guesses that from its name or its reply. From here it is known to
//! - subscribers of keyspace notifications (names and classes are those of redis 7.0.15),
//! - clients that track what they read (`tracking`), transactions that watch keys and commands that block on them
//!   (`observe.rs`): where Redis calls `signalModifiedKey`,
//! - whoever reads [`Shard::changes`](crate::shard::Shard) before and after a command: where Redis counts `dirty`.
//!
//! Most changes are all three. One without a name is [`UNNAMED`]; one that Redis tells no watchers of is [`ASIDE`].
//! To learn of changes, add the reason to [`Shard::watch`](crate::shard::Shard::watch).
//! The store notes in passing what expired or was missed; that is told before the next event, and once per turn.
//! Invariant: a command that changes a key tells of it before its next command runs. Next: `pubsub` for who listens.

use logic::store::{KeyHash, Note};

use crate::{
    command::Cx,
    pubsub::{HEARS_CHANNELS, Kind, Payload},
    shard::Shard,
    work::{Op, Request},
};

/// A class of events, or a set of them.
pub(crate) type Classes = u16;

/// `K`: to `__keyspace@<db>__:<key>`.
const KEYSPACE: Classes = 1;
/// `E`: to `__keyevent@<db>__:<event>`.
const KEYEVENT: Classes = 1 << 1;
pub(crate) const GENERIC: Classes = 1 << 2;
pub(crate) const STRING: Classes = 1 << 3;
pub(crate) const LIST: Classes = 1 << 4;
pub(crate) const SET: Classes = 1 << 5;
pub(crate) const HASH: Classes = 1 << 6;
pub(crate) const ZSET: Classes = 1 << 7;
pub(crate) const EXPIRED: Classes = 1 << 8;
pub(crate) const EVICTED: Classes = 1 << 9;
pub(crate) const STREAM: Classes = 1 << 10;
const MISSED: Classes = 1 << 11;
const MODULE: Classes = 1 << 12;
pub(crate) const NEW: Classes = 1 << 13;
/// Something about the key has changed of which nobody is told who watches or tracks it: groups and consumers of a
/// stream, and the last ID. Alone, or with a class when subscribers are told.
pub(crate) const ASIDE: Classes = 1 << 14;
/// A change without a notification.
pub(crate) const UNNAMED: Classes = 0;
const ALL: Classes =
    GENERIC | STRING | LIST | SET | HASH | ZSET | EXPIRED | EVICTED | STREAM | MODULE;

/// The classes that `notify-keyspace-events` names; nothing where no channel is chosen.
pub(crate) fn classes(text: &str) -> Classes {
    let class = |letter| match letter {
        'A' => ALL,
        'K' => KEYSPACE,
        'E' => KEYEVENT,
        'g' => GENERIC,
        '$' => STRING,
        'l' => LIST,
        's' => SET,
        'h' => HASH,
        'z' => ZSET,
        'x' => EXPIRED,
        'e' => EVICTED,
        't' => STREAM,
        'm' => MISSED,
        'd' => MODULE,
        'n' => NEW,
        _ => 0,
    };
    let classes = text.chars().map(class).fold(0, |all, class| all | class);
    if classes & (KEYSPACE | KEYEVENT) == 0 { 0 } else { classes }
}

impl Shard {
    /// Brings what the write path tests up to date with the settings.
    pub(crate) fn apply_event_settings(&mut self) {
        self.events = classes(self.settings.get("notify-keyspace-events"));
        let most = self.settings.get("tracking-table-max-keys").parse::<usize>().unwrap_or(0);
        self.tracking.set_max_keys(most.div_ceil(usize::from(self.count)));
        self.watch();
    }

    /// Brings what the write path tests up to date with who wants to know.
    pub(crate) fn watch(&mut self) {
        let told = self.events != 0 || self.tracking.is_wanted();
        self.watching = told || self.observed;
        self.store.set_noting(told, self.events & MISSED != 0);
    }

    /// Whether the store has noted something that is to be told. Look once per turn.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        self.store.has_notes() || self.tracking.is_due()
    }

    /// Tells what the store has noted, and clients that track prefixes what has changed.
    pub fn tell_all(&mut self) {
        self.tell_notes();
        self.tell_prefixes();
    }

    /// Tells what the store has noted.
    fn tell_notes(&mut self) {
        for note in self.store.take_notes() {
            match note {
                Note::Expired(db, key) => self.tell(db, &key, EXPIRED, "expired", 0),
                Note::Missed(db, key) => self.tell(db, &key, MISSED, "keymiss", 0),
            }
        }
    }

    /// Something has happened to a key, by a command of this client.
    #[cold]
    #[inline(never)]
    pub(crate) fn happened(&mut self, db: u16, key: &[u8], class: Classes, name: &str, by: u64) {
        self.tell_notes();
        self.tell(db, key, class, name, by);
    }

    /// Each of these keys has expired or was evicted.
    pub(crate) fn all_gone(&mut self, keys: Vec<(u16, Box<[u8]>)>, class: Classes, name: &str) {
        for (db, key) in keys {
            self.happened(db, &key, class, name, 0);
        }
    }

    fn tell(&mut self, db: u16, key: &[u8], class: Classes, name: &str, by: u64) {
        if class & (MISSED | NEW) == 0 {
            self.changes += 1;
            // What was gone already when it was watched has not changed; EXEC looks whether the others are there.
            if class & EXPIRED == 0 {
                self.touch(db, key, class & ASIDE == 0);
            }
            if class & ASIDE == 0 {
                self.touched(key, by);
            }
        }
        if self.events & class == 0 {
            return;
        }
        if self.events & KEYSPACE != 0 {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.announce(&channel, name.as_bytes());
        }
        if self.events & KEYEVENT != 0 {
            let channel = format!("__keyevent@{db}__:{name}");
            self.announce(channel.as_bytes(), key);
        }
    }

    /// Publishes to those who listen on any shard, without waiting for the others.
    fn announce(&mut self, channel: &[u8], text: &[u8]) {
        self.publish(Kind::Channel, channel, Payload::Copy(text));
        if self.count > 1 {
            for target in self.topology.hearing(HEARS_CHANNELS, self.index) {
                let payload = bytes::Bytes::copy_from_slice(text);
                let op = Op::Publish { kind: Kind::Channel, channel: channel.into(), payload };
                self.post(target, Request::Op { ticket: 0, op, unlock: false });
            }
        }
    }
}

impl Cx<'_> {
    /// The command did something of this class, with this name, to the key of argument `index`.
    #[inline]
    pub(crate) fn event(&mut self, class: Classes, name: &str, index: usize) {
        if self.shard.watching {
            let (db, key, by) = (self.conn.db, self.arg(index), self.conn.id);
            self.shard.happened(db, key, class, name, by);
        }
    }

    /// It changed something about the key of argument `index` of which nobody is told.
    #[inline]
    pub(crate) fn aside(&mut self, index: usize) {
        self.event(ASIDE, "", index);
    }

    /// It made the key of argument `index`: to be told before what it did to it.
    #[inline]
    pub(crate) fn created(&mut self, index: usize) {
        self.event(NEW, "new", index);
    }

    /// It took something from the key of argument `index`, with which the key may have gone.
    #[inline]
    pub(crate) fn emptied(&mut self, index: usize) {
        if self.shard.watching {
            self.removed_if_missing(index);
        }
    }

    #[cold]
    #[inline(never)]
    fn removed_if_missing(&mut self, index: usize) {
        let (hash, key, now): (KeyHash, &[u8], u64) =
            (self.hash_of(index), self.arg(index), self.now_ms());
        if self.shard.store.view(self.conn.db, hash, key, now).is_none() {
            self.event(GENERIC, "del", index);
        }
    }

    /// As [`emptied`](Self::emptied), after an event of its own, when anything was taken.
    pub(crate) fn taken(&mut self, any: bool, class: Classes, name: &str, index: usize) {
        if any && self.shard.watching {
            self.event(class, name, index);
            self.emptied(index);
        }
    }
}

/// Keys that go in the background, when somebody wants to know which.
pub(crate) struct Going {
    wanted: bool,
    pub(crate) keys: Vec<(u16, Box<[u8]>)>,
}

impl Going {
    pub(crate) const fn new(wanted: bool) -> Self {
        Self { wanted, keys: Vec::new() }
    }

    pub(crate) fn add(&mut self, db: u16, key: &[u8]) {
        if self.wanted {
            self.keys.push((db, key.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_need_a_channel() {
        assert_eq!(classes(""), 0);
        assert_eq!(classes("A"), 0);
        assert_eq!(classes("AKE"), ALL | KEYSPACE | KEYEVENT);
        assert_eq!(classes("Emn"), KEYEVENT | MISSED | NEW);
        assert_eq!(classes("K$x"), KEYSPACE | STRING | EXPIRED);
    }
}
