//! Keys that hold collections.
//!
//! A collection is changed in place, through [`Store::edit`], which accounts for its size and removes the
//! key with its last element. It moves whole, without being copied: RENAME takes it out here and
//! puts it in there, perhaps on another shard.
//! Next: [`crate::object`] for the collections themselves.

use super::{
    BIG_MIN_BYTES, DueKeys, Entry, Expire, Form, Full, KeyHash, Store, access, large::After,
    lookup::Found, record::Body,
};
use crate::object::{Cx, Limits, Object, Rng};

impl Store {
    /// What collections of this store need with each call.
    #[must_use]
    pub const fn cx(&self, now_ms: u64) -> Cx<'_> {
        Cx { hasher: &self.hasher, limits: &self.limits, now_ms }
    }

    /// Where small forms of collections end, from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The generator of random choices.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Makes something with what collections need.
    pub fn make<R>(&mut self, now_ms: u64, make: impl FnOnce(Cx<'_>, &mut Rng) -> R) -> R {
        let Self { hasher, limits, rng, .. } = self;
        make(Cx { hasher, limits, now_ms }, rng)
    }

    /// As [`get`](Self::get) or, with `touch` false, [`get_no_touch`](Self::get_no_touch), with what a collection
    /// is read with.
    pub fn read(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        touch: bool,
        now_ms: u64,
    ) -> Option<(Entry<'_>, Cx<'_>)> {
        let Some(Found { at, head, .. }) = self.live(db, hash, key, now_ms) else {
            self.missed(db, key);
            return None;
        };
        self.stats.hits += 1;
        if touch {
            let access = access::used(self.config.policy, head.access, now_ms, &mut self.rng);
            self.heap.set_access(at, head.access, access);
        }
        Some((self.heap.entry(at, &head), self.cx(now_ms)))
    }

    /// Looks a key up without counting and without refreshing the access info.
    pub fn peek_object(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        now_ms: u64,
    ) -> Option<(Entry<'_>, Cx<'_>)> {
        let Found { at, head, .. } = self.live(db, hash, key, now_ms)?;
        Some((self.heap.entry(at, &head), self.cx(now_ms)))
    }

    /// Looks a key up and changes nothing, not even a key that is due, which is not found: for commands that hold the
    /// collections of several keys at once.
    #[must_use]
    pub fn view(&self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Option<Entry<'_>> {
        let table = self.tables.get(usize::from(db))?;
        let (_, at) = table.find(hash.0, key, &self.heap)?;
        let shown = self.due_keys == DueKeys::Shown;
        let head = self.heap.head(at).filter(|head| shown || !head.is_due(now_ms))?;
        Some(self.heap.entry(at, &head))
    }

    /// Stores a collection in place of whatever the key holds. `Ok(true)`: the key is new.
    ///
    /// # Errors
    /// [`Full`]: nothing changed, and the collection is gone. Also for a database that does not exist.
    pub fn put_object(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        object: Object,
        expire: Expire,
        now_ms: u64,
    ) -> Result<bool, Full> {
        let bytes = object.mem_bytes() as u64;
        if bytes >= BIG_MIN_BYTES {
            self.note_big(db, hash, key, bytes);
        }
        self.write(db, hash, key, Body::Object(object), expire, Form::Plain, now_ms)
    }

    /// Changes the collection at a key; `None` when there is no key, or a string. The key goes when the
    /// collection is left empty (a stream stays).
    pub fn edit<R>(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        now_ms: u64,
        edit: impl FnOnce(&mut Object, Cx<'_>, &mut Rng) -> R,
    ) -> Option<R> {
        let found = self.live(db, hash, key, now_ms).filter(|found| found.head.is_object())?;
        self.before_change(db, hash.0, now_ms);
        let Found { place, at, head } = found;
        let Self { heap, hasher, limits, rng, .. } = self;
        let cx = Cx { hasher, limits, now_ms };
        let (result, after) = heap.edit_object(at, &head, |object| edit(object, cx, rng))?;
        if let After::Grown(bytes) = after {
            self.note_big(db, hash, key, bytes);
        }
        if let After::Gone = after {
            self.discard(db, hash.0, place, at, &head, now_ms);
        } else {
            let access = access::used(self.config.policy, head.access, now_ms, &mut self.rng);
            self.heap.set_access(at, head.access, access);
        }
        Some(result)
    }

    /// Takes a collection that no key holds any more; a large one is freed in steps, by
    /// [`purge_step`](Self::purge_step).
    pub fn discard_object(&mut self, object: Object) {
        self.heap.garbage.push(object);
    }

    /// Removes a key that holds a collection, and gives that with its expiry.
    pub fn take_object(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        now_ms: u64,
    ) -> Option<(Object, Option<u64>)> {
        let found = self.live(db, hash, key, now_ms).filter(|found| found.head.is_object())?;
        self.before_change(db, hash.0, now_ms);
        let object = self.heap.take_object(found.at, &found.head)?;
        self.discard(db, hash.0, found.place, found.at, &found.head, now_ms);
        Some((object, (found.head.expire_ms != 0).then_some(found.head.expire_ms)))
    }
}
