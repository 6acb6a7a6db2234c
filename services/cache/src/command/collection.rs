//! How commands reach collections: read where they lie, changed in place, made when missing.
//!
//! Invariant: a key that holds another type is answered with WRONGTYPE and left alone; a key goes with the last
//! element of its collection; a collection that was made and stays empty is not stored.
//! Next: `logic::object` for the collections.

use std::ops::Range;

use logic::object::{self, Hash, Limits, List, Object, Rng, Set, Stream, Zset};
use logic::store::{Expire, Value};
use view::Output;
use wire::resp::{Args, Version};

use super::{Cx, Fault};
use crate::events::{Classes, GENERIC};

/// A type of collection.
pub(crate) trait Collection: Into<Object> {
    /// An empty one.
    fn fresh(limits: &Limits) -> Self;
    /// The one in an object, if it is of this type.
    fn of(object: &Object) -> Option<&Self>;
    /// The same, to change it.
    fn of_mut(object: &mut Object) -> Option<&mut Self>;
}

macro_rules! collections {
    ($($type:ty, $of:ident, $of_mut:ident, $fresh:expr;)+) => {
        $(impl Collection for $type {
            fn fresh(limits: &Limits) -> Self {
                let fresh: fn(&Limits) -> Self = $fresh;
                fresh(limits)
            }
            fn of(object: &Object) -> Option<&Self> {
                object.$of()
            }
            fn of_mut(object: &mut Object) -> Option<&mut Self> {
                object.$of_mut()
            }
        })+
    };
}

collections! {
    Hash, as_hash, as_hash_mut, |_| Self::new();
    Set, as_set, as_set_mut, |_| Self::new();
    Zset, as_zset, as_zset_mut, |_| Self::new();
    List, as_list, as_list_mut, |limits| Self::new(limits.list_max_listpack_size);
    Box<Stream>, as_stream, as_stream_mut, |_| Self::new(Stream::new());
}

/// A collection that is read, and where the reply goes.
pub(crate) struct Reading<'c, T> {
    pub(crate) value: &'c T,
    /// What it is read with.
    pub(crate) with: object::Cx<'c>,
    pub(crate) out: &'c mut Output,
    pub(crate) version: Version,
}

/// Several collections that are read, `None` where there is no key, and where the reply goes.
pub(crate) struct ReadingMany<'c, T> {
    pub(crate) values: Vec<Option<&'c T>>,
    pub(crate) with: object::Cx<'c>,
    pub(crate) out: &'c mut Output,
    pub(crate) version: Version,
}

/// The arguments of a command, apart from all else: for use while a collection is borrowed.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    args: &'a Args,
    frame: &'a [u8],
}

impl<'a> Words<'a> {
    /// Argument `index`; empty when there is none.
    pub(crate) fn get(&self, index: usize) -> &'a [u8] {
        self.args.get(index, self.frame)
    }
}

impl<'a> Cx<'a> {
    /// The command's arguments.
    pub(crate) const fn words(&self) -> Words<'a> {
        Words { args: self.args, frame: self.frame }
    }

    /// The collection at the key of argument `index` as a reading command sees it: counted as a hit or a miss.
    pub(crate) fn collection<T: Collection>(
        &mut self,
        index: usize,
    ) -> Result<Option<Reading<'_, T>>, Fault> {
        let (hash, key, now) = (self.hash_of(index), self.arg(index), self.now_ms());
        let (db, version, touch) = (self.conn.db, self.conn.version, !self.conn.no_touch);
        let Some((entry, with)) = self.shard.store.read(db, hash, key, touch, now) else {
            return Ok(None);
        };
        let Value::Object(object) = entry.value else { return Err(Fault::WRONG_TYPE) };
        let value = T::of(object).ok_or(Fault::WRONG_TYPE)?;
        Ok(Some(Reading { value, with, out: self.out, version }))
    }

    /// The collection at the key of argument `index`, of whatever type, without counting: for commands that hold several
    /// at once, after each was looked up as a read.
    pub(crate) fn view(&self, index: usize) -> Option<&Object> {
        let (hash, key, now) = (self.hash_of(index), self.arg(index), self.now_ms());
        match self.shard.store.view(self.conn.db, hash, key, now)?.value {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A generator of random choices, to be used while a collection is read.
    pub(crate) fn rng(&mut self) -> Rng {
        self.shard.store.rng().fork()
    }

    /// The collections at the keys of several arguments, each as [`collection`](Self::collection) sees it.
    pub(crate) fn collections<T: Collection>(
        &mut self,
        indexes: Range<usize>,
    ) -> Result<ReadingMany<'_, T>, Fault> {
        for index in indexes.clone() {
            self.collection::<T>(index)?;
        }
        let (now, db, version) = (self.now_ms(), self.conn.db, self.conn.version);
        let store = &self.shard.store;
        let value = |index| {
            let entry = store.view(db, self.hash_of(index), self.arg(index), now)?;
            if let Value::Object(object) = entry.value { T::of(object) } else { None }
        };
        let values = indexes.map(value).collect();
        Ok(ReadingMany { values, with: store.cx(now), out: self.out, version })
    }

    /// The strings at the keys of several arguments, `None` where there is no key; up to the first key that holds
    /// something else, and whether there is one.
    pub(crate) fn strings(&mut self, indexes: Range<usize>) -> (Vec<Option<&[u8]>>, bool) {
        let is_string = |cx: &mut Self, index| {
            !matches!(cx.lookup(index).map(|entry| entry.value), Some(Value::Object(_)))
        };
        let end = indexes.clone().find(|&index| !is_string(self, index));
        let (now, db) = (self.now_ms(), self.conn.db);
        let store = &self.shard.store;
        let value = |index| {
            let entry = store.view(db, self.hash_of(index), self.arg(index), now)?;
            Some(entry.value.as_slice())
        };
        ((indexes.start..end.unwrap_or(indexes.end)).map(value).collect(), end.is_some())
    }

    /// Whether the key of argument `index` holds a collection of this type (else there is no key); nothing is counted.
    pub(crate) fn holds<T: Collection>(&mut self, index: usize) -> Result<bool, Fault> {
        let (hash, key, now) = (self.hash_of(index), self.arg(index), self.now_ms());
        match self.shard.store.peek(self.conn.db, hash, key, now).map(|entry| entry.value) {
            None => Ok(false),
            Some(Value::Object(object)) if T::of(object).is_some() => Ok(true),
            Some(_) => Err(Fault::WRONG_TYPE),
        }
    }

    /// Changes the collection at the key of argument `index`; `None` when there is no key.
    pub(crate) fn change<T: Collection, R>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut T, object::Cx<'_>, &mut Rng) -> R,
    ) -> Result<Option<R>, Fault> {
        if !self.holds::<T>(index)? {
            return Ok(None);
        }
        let (hash, key, now) = (self.hash_of(index), self.arg(index), self.now_ms());
        let changed = self.shard.store.edit(self.conn.db, hash, key, now, |object, with, rng| {
            T::of_mut(object).map(|value| change(value, with, rng))
        });
        Ok(changed.flatten())
    }

    /// The same, with the output beside the collection: for replies that show what lies in it.
    pub(crate) fn change_replying<T: Collection, R>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut T, object::Cx<'_>, &mut Output) -> R,
    ) -> Result<Option<R>, Fault> {
        if !self.holds::<T>(index)? {
            return Ok(None);
        }
        let (hash, key, now) = (self.hash_of(index), self.arg(index), self.now_ms());
        let out = &mut *self.out;
        let changed = self.shard.store.edit(self.conn.db, hash, key, now, |object, with, _| {
            T::of_mut(object).map(|value| change(value, with, out))
        });
        Ok(changed.flatten())
    }

    /// As [`change`](Self::change), with an empty collection where there is no key.
    pub(crate) fn change_or_make<T: Collection, R>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut T, object::Cx<'_>, &mut Rng) -> R,
    ) -> Result<R, Fault> {
        let (hash, key, now, db) =
            (self.hash_of(index), self.arg(index), self.now_ms(), self.conn.db);
        if self.holds::<T>(index)? {
            let changed = self.shard.store.edit(db, hash, key, now, |object, with, rng| {
                T::of_mut(object).map(|value| change(value, with, rng))
            });
            // It was there a moment ago.
            return changed.flatten().ok_or(Fault::NO_KEY);
        }
        let (object, result) = self.shard.store.make(now, |with, rng| {
            let mut value = T::fresh(with.limits);
            let result = change(&mut value, with, rng);
            (value.into(), result)
        });
        if !object.is_gone() {
            self.shard.store.put_object(db, hash, key, object, Expire::Clear, now)?;
            self.created(index);
        }
        Ok(result)
    }

    /// Puts a collection in place of whatever the key of argument `index` holds, or removes the key when the
    /// collection is empty: the end of the commands that STORE, and what of this class that is called.
    pub(crate) fn put<T: Collection>(
        &mut self,
        index: usize,
        value: T,
        (class, name): (Classes, &str),
    ) -> Result<(), Fault> {
        let (hash, key, now, db) =
            (self.hash_of(index), self.arg(index), self.now_ms(), self.conn.db);
        let object: Object = value.into();
        if object.is_gone() {
            if self.shard.store.remove(db, hash, key, now) {
                self.event(GENERIC, "del", index);
            }
            return Ok(());
        }
        if self.shard.store.put_object(db, hash, key, object, Expire::Clear, now)? {
            self.created(index);
        }
        self.event(class, name, index);
        Ok(())
    }
}
