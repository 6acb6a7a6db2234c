//! Operations on one key: the hot path.
//!
//! A key that is due counts as absent everywhere and is removed when it is met, but for a replica's keys (`replica.rs`).
//! Operations on a database that does not exist find nothing and store nothing.
//! Next: `table.rs` finds, `record.rs` reads and writes.

use bytes::Bytes;

use super::{
    BIG_MIN_BYTES, DueKeys, Entry, Expire, Form, Full, KeyHash, NewValue, Note, Policy, Records,
    SHARED_MIN_BYTES, Store, access,
    arena::Ref,
    record::{Body, Draft, Head, MAX_EXPIRY_MS},
    table::Place,
};
use crate::slot::key_slot;

/// Share of one place in the table, for `MEMORY USAGE`.
const PLACE_BYTES: u64 = 8;
/// The edit buffer kept between edits; a larger one is given back.
const SCRATCH_MAX_BYTES: usize = 64 * 1024;

/// A key that was found and is not due.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) at: Ref,
    pub(super) head: Head,
}

impl Store {
    /// The seeded hash of `key`.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.hasher.hash(key))
    }

    /// First stage of a batch prefetch: loads the key's bucket. Fold the result into a black box.
    #[inline]
    #[must_use]
    pub fn touch_bucket(&self, db: u16, hash: KeyHash) -> u32 {
        self.tables.get(usize::from(db)).map_or(0, |table| table.touch(hash.0))
    }

    /// Second stage: loads the first lines of the record that is probably the key's.
    #[inline]
    #[must_use]
    pub fn touch_record(&self, db: u16, hash: KeyHash) -> u32 {
        let at = self.tables.get(usize::from(db)).and_then(|table| table.candidate(hash.0));
        at.map_or(0, |at| self.heap.touch(at))
    }

    /// Looks a key up as a command's read: counts a hit or miss and refreshes the access info.
    #[inline]
    pub fn get(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Option<Entry<'_>> {
        let Some(Found { at, head, .. }) = self.live(db, hash, key, now_ms) else {
            self.missed(db, key);
            return None;
        };
        self.stats.hits += 1;
        let access = access::used(self.config.policy, head.access, now_ms, &mut self.rng);
        self.heap.set_access(at, head.access, access);
        Some(self.heap.entry(at, &head))
    }

    /// As [`get`](Self::get) without refreshing the access info (`CLIENT NO-TOUCH`).
    pub fn get_no_touch(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        now_ms: u64,
    ) -> Option<Entry<'_>> {
        let Some(Found { at, head, .. }) = self.live(db, hash, key, now_ms) else {
            self.missed(db, key);
            return None;
        };
        self.stats.hits += 1;
        Some(self.heap.entry(at, &head))
    }

    /// Looks a key up without counting and without refreshing the access info.
    #[inline]
    pub fn peek(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Option<Entry<'_>> {
        let Found { at, head, .. } = self.live(db, hash, key, now_ms)?;
        Some(self.heap.entry(at, &head))
    }

    /// Stores a value. `Ok(true)`: the key is new. `form` is for `OBJECT ENCODING`.
    /// Whether there is room under `maxmemory` is the caller's question, asked before.
    ///
    /// # Errors
    /// [`Full`]: nothing changed. Also for a database that does not exist.
    #[expect(
        clippy::too_many_arguments,
        reason = "the hot path; a struct would be built to be taken apart"
    )]
    pub fn set(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        value: NewValue<'_>,
        expire: Expire,
        form: Form,
        now_ms: u64,
    ) -> Result<bool, Full> {
        let value = match value {
            NewValue::Shared(bytes) if bytes.len() >= SHARED_MIN_BYTES => {
                let cost = bytes.len();
                if cost as u64 >= BIG_MIN_BYTES {
                    self.note_big(db, hash, key, cost as u64);
                }
                Body::Owned(bytes, cost)
            }
            NewValue::Shared(ref bytes) => Body::Copy(bytes),
            NewValue::Copy(bytes) => Body::Copy(bytes),
        };
        self.write(db, hash, key, value, expire, form, now_ms)
    }

    /// Writes a key whole.
    // Always: out of line, the body goes through memory once more.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "as `set`")]
    pub(super) fn write(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        value: Body<'_>,
        expire: Expire,
        form: Form,
        now_ms: u64,
    ) -> Result<bool, Full> {
        self.before_change(db, hash.0, now_ms);
        let policy = self.config.policy;
        let Some(Found { place, at, head }) = self.live(db, hash, key, now_ms) else {
            let expire_ms = expiry_after(expire, 0);
            let access = access::fresh(policy, now_ms);
            let draft = Draft { key, value, access, expire_ms, form };
            return self.add(db, hash, draft, now_ms).map(|()| true);
        };
        let expire_ms = expiry_after(expire, head.expire_ms);
        let access = access::used(policy, head.access, now_ms, &mut self.rng);
        let draft = Draft { key, value, access, expire_ms, form };
        let to = self.heap.replace(at, &head, hash.0, draft)?;
        self.rewritten(db, hash, &Found { place, at, head }, to, expire_ms, now_ms);
        Ok(false)
    }

    /// Removes a key; whether it was there (and not due).
    pub fn remove(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> bool {
        let found = self.live(db, hash, key, now_ms);
        if let Some(Found { place, at, head }) = found {
            self.discard(db, hash.0, place, at, &head, now_ms);
        }
        found.is_some()
    }

    /// Changes a key's expiry; whether the key is there and has it now (no room is the one other
    /// reason). A time in the past removes the key at its next access, not now.
    pub fn set_expire(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        expire: Expire,
        now_ms: u64,
    ) -> bool {
        let Some(found) = self.live(db, hash, key, now_ms) else {
            return false;
        };
        self.before_change(db, hash.0, now_ms);
        let expire_ms = expiry_after(expire, found.head.expire_ms);
        let Ok(to) = self.heap.set_expiry(found.at, &found.head, expire_ms, &mut self.scratch)
        else {
            return false;
        };
        self.rewritten(db, hash, &found, to, expire_ms, now_ms);
        true
    }

    /// Edits the string of an existing key as a `Vec` and marks it raw; `None` when the key is not
    /// there, or holds a collection. Expiry stays. A large value nobody else holds is edited without copying it.
    ///
    /// # Errors
    /// [`Full`]: nothing changed.
    pub fn modify<R>(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        now_ms: u64,
        edit: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> Result<Option<R>, Full> {
        let found = self.live(db, hash, key, now_ms);
        let Some(found) = found.filter(|found| !found.head.is_object()) else {
            return Ok(None);
        };
        self.before_change(db, hash.0, now_ms);
        let Found { at, head, .. } = found;
        let access = access::used(self.config.policy, head.access, now_ms, &mut self.rng);
        if let Some(value) = self.heap.take_large_value(at, &head) {
            let mut value = Vec::from(value);
            let result = edit(&mut value);
            let cost = value.capacity();
            if cost as u64 >= BIG_MIN_BYTES {
                self.note_big(db, hash, key, cost as u64);
            }
            self.heap.put_large_value(at, &head, Bytes::from(value), cost);
            self.heap.set_access(at, head.access, access);
            return Ok(Some(result));
        }
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        value.extend_from_slice(self.heap.entry(at, &head).value.as_slice());
        let result = edit(&mut value);
        let expire_ms = head.expire_ms;
        let draft = |value| Draft { key, value, access, expire_ms, form: Form::Raw };
        let stored = if value.len() < SHARED_MIN_BYTES {
            self.heap.replace(at, &head, hash.0, draft(Body::Copy(&value)))
        } else {
            let cost = value.capacity();
            let owned = Bytes::from(std::mem::take(&mut value));
            self.heap.replace(at, &head, hash.0, draft(Body::Owned(owned, cost)))
        };
        if value.capacity() <= SCRATCH_MAX_BYTES {
            self.scratch = value;
        }
        let to = stored?;
        self.rewritten(db, hash, &found, to, expire_ms, now_ms);
        Ok(Some(result))
    }

    /// `OBJECT IDLETIME`: seconds since the last access. Meaningless under an LFU policy and under
    /// S3-FIFO (0 there).
    pub fn idle_s(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Option<u64> {
        let head = self.live(db, hash, key, now_ms)?.head;
        Some(match self.config.policy {
            Policy::S3Fifo => 0,
            _ => u64::from(access::idle_s(head.access, now_ms)),
        })
    }

    /// `OBJECT FREQ`: the decayed logarithmic access counter; under S3-FIFO its frequency, 0 to 3.
    /// Meaningless under other policies.
    pub fn freq(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Option<u8> {
        let access = self.live(db, hash, key, now_ms)?.head.access;
        let freq = match self.config.policy {
            Policy::S3Fifo => access::s3::freq(access),
            _ => access::frequency(access, now_ms),
        };
        u8::try_from(freq).ok()
    }

    /// `MEMORY USAGE`: bytes held for the key, with its share of the table.
    pub fn memory_usage(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Option<u64> {
        let Found { at, head, .. } = self.live(db, hash, key, now_ms)?;
        Some(self.heap.cost(at, &head) + PLACE_BYTES)
    }

    /// Finds a key; one that is due is removed and not found.
    #[inline]
    pub(super) fn live(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        now_ms: u64,
    ) -> Option<Found> {
        let table = self.tables.get(usize::from(db))?;
        let (place, at) = table.find(hash.0, key, &self.heap)?;
        let head = self.heap.head(at)?;
        let found = Found { place, at, head };
        if head.is_due(now_ms) && !self.is_due_shown(db, hash.0, &found, now_ms) {
            return None;
        }
        Some(found)
    }

    /// Removes a key that is due.
    pub(super) fn expire_found(
        &mut self,
        db: u16,
        hash: u64,
        place: Place,
        at: Ref,
        head: &Head,
        now_ms: u64,
    ) {
        if self.notes.expired {
            self.notes.list.push(Note::Expired(db, self.heap.key(at, head).into()));
        }
        self.discard(db, hash, place, at, head, now_ms);
        self.stats.expired += 1;
    }

    fn add(&mut self, db: u16, hash: KeyHash, draft: Draft<'_>, now_ms: u64) -> Result<(), Full> {
        if self.due_keys == DueKeys::Hidden {
            self.remove_hidden(db, hash, draft.key, now_ms);
        }
        let Some(table) = self.tables.get_mut(usize::from(db)) else {
            return Err(Full);
        };
        let (key, expire_ms) = (draft.key, draft.expire_ms);
        let at = self.heap.insert(hash.0, draft)?;
        let records = Records { heap: &self.heap, hasher: &self.hasher, now_ms };
        table.insert(hash.0, at, expire_ms, records);
        if db == 0
            && let Some(slots) = &mut self.slots
            && let Some(count) = slots.get_mut(usize::from(key_slot(key)))
        {
            *count += 1;
        }
        if self.config.policy == Policy::S3Fifo {
            self.evictor.added(&mut self.heap, db, at);
            self.trim_queues();
        }
        Ok(())
    }

    pub(super) fn trim_queues(&mut self) {
        let keys = self.tables.iter().map(|table| table.len).sum();
        self.evictor.trim(&self.heap, keys);
    }

    /// Follows a record that was written anew, perhaps elsewhere.
    pub(super) fn rewritten(
        &mut self,
        db: u16,
        hash: KeyHash,
        found: &Found,
        to: Ref,
        expire_ms: u64,
        now_ms: u64,
    ) {
        let Some(table) = self.tables.get_mut(usize::from(db)) else {
            return;
        };
        if expire_ms != found.head.expire_ms {
            table.change_expiry(hash.0, found.place, found.head.expire_ms, expire_ms, now_ms);
        }
        if to != found.at {
            table.set_ref(found.place, to);
            if self.config.policy == Policy::S3Fifo {
                self.evictor.moved(&mut self.heap, db, to);
                self.trim_queues();
            }
        }
    }

    /// Removes a record and its place.
    pub(super) fn discard(
        &mut self,
        db: u16,
        hash: u64,
        place: Place,
        at: Ref,
        head: &Head,
        now_ms: u64,
    ) {
        self.before_change(db, hash, now_ms);
        let Some(table) = self.tables.get_mut(usize::from(db)) else {
            return;
        };
        let records = Records { heap: &self.heap, hasher: &self.hasher, now_ms };
        table.remove(hash, place, head.expire_ms, records);
        if db == 0
            && let Some(slots) = &mut self.slots
            && let Some(count) = slots.get_mut(usize::from(key_slot(self.heap.key(at, head))))
        {
            *count -= 1;
        }
        self.heap.free(at, head);
    }
}

/// The time a key is left with; 0 is none. A time of 0 is kept as 1: both are long past.
fn expiry_after(expire: Expire, old_ms: u64) -> u64 {
    match expire {
        Expire::Keep => old_ms,
        Expire::Clear => 0,
        Expire::At(at_ms) => at_ms.clamp(1, MAX_EXPIRY_MS),
    }
}
