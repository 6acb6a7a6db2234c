//! What the bytes of a record mean, and the heap of records: slabs plus large parts.
//!
//! ```text
//! flags 1 | access 3 | expiry 6 (flagged) | key length varint | value length varint | key | value
//!     | high 2 bytes of the expiry (flagged)
//! ```
//! Expiry times beyond 48 bits (the year 10,889) are rare enough to keep their rest at the end.
//! A value of [`SHARED_MIN_BYTES`] or more, and any that makes the record exceed a slot, lives in
//! the large slab, and so does a collection: the record holds its index (4 bytes) where the value would be. A
//! key too long for a slot goes there as well, and both lengths are left out.
//! Key and value of 16 and 64 bytes take 86 bytes, in a slot of 88.
//!
//! Invariant: a record and its large part live and die together.
//! Next: `table.rs` finds records by key; `record/tail.rs` for what items keep beside their value.

mod tail;

use bytes::Bytes;

use super::{
    arena::{Arena, MAX_SLOT_BYTES, Ref},
    garbage::Garbage,
    large::{After, Large, Larges, LongKey, Part},
    types::{Entry, Form, Full, SHARED_MIN_BYTES, Value},
};
use crate::object::Object;
pub(super) use tail::{FETCHED, TAILED};

/// Set in every record, so that a free slot (first byte 0) is told from it.
pub(super) const LIVE: u8 = 0x80;
const HAS_EXPIRY: u8 = 1;
const RAW: u8 = 2;
const LARGE_VALUE: u8 = 4;
const LARGE_KEY: u8 = 8;
/// The expiry needs more than 48 bits: the rest is at the record's end.
const LONG_EXPIRY: u8 = 0x10;
const TEXT: u8 = 0x20;
/// The large part is a collection.
const OBJECT: u8 = 0x40;
const FORM: u8 = RAW | TEXT;

const EXPIRY_BYTES: usize = 6;
const FIXED_BYTES: usize = 4;
const INDEX_BYTES: usize = 4;
const LONG_BYTES: usize = 2;
/// The latest time a key may expire, as in Redis.
pub(super) const MAX_EXPIRY_MS: u64 = i64::MAX as u64;

const fn is_long(expire_ms: u64) -> bool {
    expire_ms >> 48 != 0
}

const fn form_flag(form: Form) -> u8 {
    match form {
        Form::Plain => 0,
        Form::Text => TEXT,
        Form::Raw => RAW,
    }
}

/// A record's attributes, and where its parts are.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) flags: u8,
    /// 24 bits whose meaning the eviction policy gives.
    pub(super) access: u32,
    /// Unix milliseconds; 0 is none.
    pub(super) expire_ms: u64,
    key_at: u32,
    key_len: u32,
    value_len: u32,
}

impl Head {
    /// Whether the key is due at `now_ms` (Redis: strictly after its time).
    #[inline]
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.expire_ms != 0 && self.expire_ms < now_ms
    }

    fn form(&self) -> Form {
        match self.flags & FORM {
            0 => Form::Plain,
            TEXT => Form::Text,
            _ => Form::Raw,
        }
    }

    /// The value is a collection.
    pub(super) const fn is_object(&self) -> bool {
        self.flags & OBJECT != 0
    }

    /// The value is kept by reference.
    pub(super) fn is_large(&self) -> bool {
        self.flags & LARGE_VALUE != 0
    }

    /// Where the value ends, or its index with the tail behind it (`tail.rs`).
    fn end(&self) -> usize {
        let index = if self.is_large() { INDEX_BYTES } else { 0 };
        self.value_at() + index + self.value_len as usize
    }

    #[inline]
    fn key_range(&self) -> std::ops::Range<usize> {
        self.key_at as usize..self.value_at()
    }

    #[inline]
    fn value_at(&self) -> usize {
        self.key_at as usize + self.key_len as usize
    }
}

/// What a record is written from.
pub(super) struct Draft<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Body<'a>,
    pub(super) access: u32,
    pub(super) expire_ms: u64,
    pub(super) form: Form,
}

/// A value to be written.
pub(super) enum Body<'a> {
    Copy(&'a [u8]),
    /// With the bytes its allocation takes.
    Owned(Bytes, usize),
    Object(Object),
}

impl Body<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Body::Copy(bytes) => bytes,
            Body::Owned(bytes, _) => bytes,
            Body::Object(_) => &[],
        }
    }

    const fn is_object(&self) -> bool {
        matches!(self, Body::Object(_))
    }

    fn into_part(self) -> Part {
        match self {
            Body::Copy(bytes) => Part::Bytes(Bytes::copy_from_slice(bytes), bytes.len()),
            Body::Owned(bytes, cost) => Part::Bytes(bytes, cost),
            Body::Object(object) => Part::Object(object),
        }
    }
}

/// Where the parts of a record to be written go.
#[derive(Clone, Copy)]
struct Plan {
    flags: u8,
    len: usize,
}

/// What a record takes beside its lengths, key and value.
const fn fixed_bytes(expire_ms: u64) -> usize {
    FIXED_BYTES
        + if expire_ms != 0 { EXPIRY_BYTES } else { 0 }
        + if is_long(expire_ms) { LONG_BYTES } else { 0 }
}

fn plan(draft: &Draft<'_>) -> Plan {
    let (key_len, value_len) = (draft.key.len(), draft.value.as_slice().len());
    let fixed = fixed_bytes(draft.expire_ms);
    let object = if draft.value.is_object() { OBJECT } else { 0 };
    let lengths = varint_len(key_len) + varint_len(value_len);
    let inline = fixed + lengths + key_len + value_len;
    // An expiry can be added later without moving the value or the key out.
    let limit = MAX_SLOT_BYTES - (EXPIRY_BYTES + LONG_BYTES + FIXED_BYTES - fixed);
    if object == 0 && value_len < SHARED_MIN_BYTES && inline <= limit {
        return Plan { flags: 0, len: inline };
    }
    // The length is the large part's own: 0 stands in its place.
    let len = fixed + varint_len(key_len) + 1 + key_len + INDEX_BYTES;
    if len <= limit {
        return Plan { flags: LARGE_VALUE | object, len };
    }
    Plan { flags: LARGE_VALUE | LARGE_KEY | object, len: fixed + INDEX_BYTES }
}

const fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        // Longer ones are not written.
        _ => 4,
    }
}

/// Records of one store.
pub(super) struct Heap {
    pub(super) arena: Arena,
    pub(super) larges: Larges,
    /// Collections without a key.
    pub(super) garbage: Garbage,
}

impl Heap {
    pub(super) fn new() -> Self {
        Self { arena: Arena::new(), larges: Larges::new(), garbage: Garbage::default() }
    }

    /// Bytes of live slots, large parts and bookkeeping.
    pub(super) fn used_bytes(&self) -> u64 {
        self.arena.live_bytes()
            + self.arena.bookkeeping_bytes()
            + self.larges.used_bytes()
            + self.garbage.bytes()
    }

    /// Loads a record's first line: its attributes and, mostly, its key.
    #[inline]
    pub(super) fn touch_first(&self, at: Ref) -> u32 {
        u32::from(self.arena.bytes(at).first().copied().unwrap_or(0))
    }

    /// Loads the lines a lookup of the record will read.
    #[inline]
    pub(super) fn touch(&self, at: Ref) -> u32 {
        let bytes = self.arena.bytes(at);
        let first = bytes.first().copied().unwrap_or(0);
        let second = bytes.get(64).copied().unwrap_or(0);
        u32::from(first) + u32::from(second)
    }

    /// The record's attributes; `None` for a free slot.
    #[inline(always)]
    pub(super) fn head(&self, at: Ref) -> Option<Head> {
        parse(self.arena.bytes(at))
    }

    /// Whether the live record's key is `key`.
    #[inline(always)]
    pub(super) fn has_key(&self, at: Ref, key: &[u8]) -> bool {
        let bytes = self.arena.bytes(at);
        let flags = bytes.first().copied().unwrap_or(LARGE_KEY);
        let lengths_at = FIXED_BYTES + if flags & HAS_EXPIRY == 0 { 0 } else { EXPIRY_BYTES };
        if flags & LARGE_KEY == 0
            && let Some([key_len @ 0..0x80, 0..0x80, rest @ ..]) = bytes.get(lengths_at..)
        {
            return usize::from(*key_len) == key.len() && rest.get(..key.len()) == Some(key);
        }
        self.has_long_key(bytes, key)
    }

    #[inline(never)]
    fn has_long_key(&self, bytes: &[u8], key: &[u8]) -> bool {
        parse(bytes).is_some_and(|head| self.key_in(bytes, &head) == key)
    }

    pub(super) fn key(&self, at: Ref, head: &Head) -> &[u8] {
        self.key_in(self.arena.bytes(at), head)
    }

    #[inline]
    fn key_in<'a>(&'a self, bytes: &'a [u8], head: &Head) -> &'a [u8] {
        if head.flags & LARGE_KEY != 0 {
            let long = self.large_of(bytes, head).and_then(|large| large.key.as_deref());
            return long.map_or(&[], |long| &long.key);
        }
        bytes.get(head.key_range()).unwrap_or_default()
    }

    /// The hash kept beside a key too long to be hashed again.
    pub(super) fn kept_hash(&self, at: Ref, head: &Head) -> Option<u64> {
        if head.flags & LARGE_KEY == 0 {
            return None;
        }
        let large = self.large_of(self.arena.bytes(at), head)?;
        large.key.as_deref().map(|long| long.hash)
    }

    /// The record as the store's caller sees it.
    #[inline]
    pub(super) fn entry(&self, at: Ref, head: &Head) -> Entry<'_> {
        let bytes = self.arena.bytes(at);
        let value = if head.flags & LARGE_VALUE == 0 {
            let from = head.value_at();
            Value::Inline(bytes.get(from..from + head.value_len as usize).unwrap_or_default())
        } else {
            match self.large_of(bytes, head).map(|large| &large.part) {
                Some(Part::Bytes(value, _)) => Value::Shared(value),
                Some(Part::Object(object)) => Value::Object(object),
                None => Value::Inline(&[]),
            }
        };
        let expire_at_ms = (head.expire_ms != 0).then_some(head.expire_ms);
        Entry { value, expire_at_ms, form: head.form() }
    }

    fn large_of(&self, bytes: &[u8], head: &Head) -> Option<&Large> {
        self.larges.get(large_index(bytes, head)?)
    }

    /// Bytes held for one record.
    pub(super) fn cost(&self, at: Ref, head: &Head) -> u64 {
        let slot = Arena::class_bytes(self.arena.slot_class(at)) as u64;
        slot + self.large_of(self.arena.bytes(at), head).map_or(0, Large::cost)
    }

    /// Replaces the 24 bits of access info. Writes only on change: a hot line stays clean.
    #[inline]
    pub(super) fn set_access(&mut self, at: Ref, old: u32, new: u32) {
        if old == new {
            return;
        }
        if let [_, a, b, c, ..] = self.arena.bytes_mut(at) {
            [*a, *b, *c, _] = new.to_le_bytes();
        }
    }

    /// Writes a new record.
    pub(super) fn insert(&mut self, hash: u64, draft: Draft<'_>) -> Result<Ref, Full> {
        let plan = plan(&draft);
        let at = self.arena.alloc(Arena::class_of(plan.len).ok_or(Full)?)?;
        if let Err(full) = self.write(at, plan, hash, draft) {
            self.arena.free(at);
            return Err(full);
        }
        Ok(at)
    }

    /// Replaces the value of a record by one of the same length, the commonest overwrite: nothing
    /// else of it moves. False when that is not the case.
    #[inline]
    fn overwrite(&mut self, at: Ref, old: &Head, draft: &Draft<'_>) -> bool {
        let value = draft.value.as_slice();
        let had_expiry = old.flags & HAS_EXPIRY != 0;
        if old.is_large()
            || draft.value.is_object()
            || value.len() != old.value_len as usize
            || had_expiry != (draft.expire_ms != 0)
            || is_long(old.expire_ms | draft.expire_ms)
        {
            return false;
        }
        let slot = self.arena.bytes_mut(at);
        let from = old.value_at();
        let Some(to) = slot.get_mut(from..from + value.len()) else {
            return false;
        };
        to.copy_from_slice(value);
        let [a, b, c, _] = draft.access.to_le_bytes();
        if let Some(fixed) = slot.first_chunk_mut::<FIXED_BYTES>() {
            *fixed = [(old.flags & !FORM) | form_flag(draft.form), a, b, c];
        }
        if had_expiry
            && let Some((_, rest)) = slot.split_first_chunk_mut::<FIXED_BYTES>()
            && let Some(field) = rest.first_chunk_mut::<EXPIRY_BYTES>()
        {
            *field = expiry_bytes(draft.expire_ms);
        }
        true
    }

    /// Writes a record over an older one of the same key, in place when the slot suits it.
    pub(super) fn replace(
        &mut self,
        at: Ref,
        old: &Head,
        hash: u64,
        draft: Draft<'_>,
    ) -> Result<Ref, Full> {
        if self.overwrite(at, old, &draft) {
            return Ok(at);
        }
        let plan = plan(&draft);
        let class = Arena::class_of(plan.len).ok_or(Full)?;
        let have = self.arena.slot_class(at);
        if suits(plan.len, class, have) && old.flags & LARGE_VALUE == 0 {
            self.write(at, plan, hash, draft)?;
            return Ok(at);
        }
        let fresh = self.insert(hash, draft)?;
        self.free(at, old);
        Ok(fresh)
    }

    fn write(&mut self, at: Ref, plan: Plan, hash: u64, draft: Draft<'_>) -> Result<(), Full> {
        let Draft { key, value, access, expire_ms, form } = draft;
        let value_len = value.as_slice().len();
        let flags = LIVE | plan.flags | expiry_flags(expire_ms) | form_flag(form);
        let index;
        let (key, tail): (&[u8], &[u8]) = if plan.flags & LARGE_VALUE == 0 {
            (key, value.as_slice())
        } else {
            let keep_key = plan.flags & LARGE_KEY != 0;
            let long = keep_key.then(|| Box::new(LongKey { hash, key: key.into() }));
            let large = Large { key: long, part: value.into_part() };
            index = self.larges.insert(large)?.to_le_bytes();
            (if keep_key { &[] } else { key }, &index)
        };
        let [a, b, c, _] = access.to_le_bytes();
        let mut out = Writer { to: self.arena.bytes_mut(at) };
        out.put(&[flags, a, b, c]);
        if expire_ms != 0 {
            out.put(&expiry_bytes(expire_ms));
        }
        if plan.flags & LARGE_KEY == 0 {
            out.varint(key.len());
            out.varint(if plan.flags & LARGE_VALUE == 0 { value_len } else { 0 });
        }
        out.put(key);
        out.put(tail);
        out.long_expiry(expire_ms);
        Ok(())
    }

    /// Frees a record and its large part; a large collection only becomes garbage, see
    /// [`Garbage`].
    pub(super) fn free(&mut self, at: Ref, head: &Head) {
        if let Some(index) = large_index(self.arena.bytes(at), head)
            && let Some(Large { part: Part::Object(object), .. }) = self.larges.remove(index)
        {
            self.garbage.push(object);
        }
        self.arena.free(at);
    }

    /// Takes the collection out of a record, which is to be freed next.
    pub(super) fn take_object(&mut self, at: Ref, head: &Head) -> Option<Object> {
        let index = large_index(self.arena.bytes(at), head)?;
        self.larges.take_object(index)
    }

    /// Changes a collection in place.
    pub(super) fn edit_object<R>(
        &mut self,
        at: Ref,
        head: &Head,
        edit: impl FnOnce(&mut Object) -> R,
    ) -> Option<(R, After)> {
        let index = large_index(self.arena.bytes(at), head)?;
        self.larges.edit(index, edit)
    }

    /// Takes a large value out for editing; to be put back at once.
    pub(super) fn take_large_value(&mut self, at: Ref, head: &Head) -> Option<Bytes> {
        let index = large_index(self.arena.bytes(at), head)?;
        self.larges.take_value(index)
    }

    /// Puts an edited value back and marks the record raw. It stays large even when it shrank, so
    /// nothing here can fail.
    pub(super) fn put_large_value(&mut self, at: Ref, head: &Head, value: Bytes, cost: usize) {
        if let Some(index) = large_index(self.arena.bytes(at), head) {
            self.larges.put_value(index, value, cost);
        }
        if let Some(flags) = self.arena.bytes_mut(at).first_mut() {
            *flags = (*flags & !FORM) | RAW;
        }
    }

    /// Changes a record's expiry (0: none); it may move.
    pub(super) fn set_expiry(
        &mut self,
        at: Ref,
        head: &Head,
        expire_ms: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<Ref, Full> {
        let had = head.flags & HAS_EXPIRY != 0;
        if had == (expire_ms != 0) && !is_long(head.expire_ms | expire_ms) {
            let field = self.arena.bytes_mut(at).get_mut(FIXED_BYTES..);
            if let Some(field) = field.and_then(<[u8]>::first_chunk_mut::<EXPIRY_BYTES>)
                && had
            {
                *field = expiry_bytes(expire_ms);
            }
            return Ok(at);
        }
        let body_at = FIXED_BYTES + if had { EXPIRY_BYTES } else { 0 };
        let body = self.arena.bytes(at).get(body_at..head.end()).unwrap_or_default();
        scratch.clear();
        scratch.extend_from_slice(body);
        let len = fixed_bytes(expire_ms) + scratch.len();
        let class = Arena::class_of(len).ok_or(Full)?;
        let have = self.arena.slot_class(at);
        let to = if suits(len, class, have) { at } else { self.arena.alloc(class)? };
        let [a, b, c, _] = head.access.to_le_bytes();
        let mut out = Writer { to: self.arena.bytes_mut(to) };
        let kept = head.flags & !(HAS_EXPIRY | LONG_EXPIRY);
        out.put(&[kept | expiry_flags(expire_ms), a, b, c]);
        if expire_ms != 0 {
            out.put(&expiry_bytes(expire_ms));
        }
        out.put(scratch);
        out.long_expiry(expire_ms);
        if to != at {
            self.arena.free(at);
        }
        Ok(to)
    }
}

/// Whether a slot is kept for a record: a little too large is fine, since the slot is accounted in
/// full and a value whose length varies stays put.
fn suits(len: usize, class: u8, have: u8) -> bool {
    class == have || (class < have && len * 4 >= Arena::class_bytes(have) * 3)
}

// Always: out of line, the 32 bytes of the head go through memory twice per lookup.
#[inline(always)]
fn parse(bytes: &[u8]) -> Option<Head> {
    let mut head = parse_short(bytes)?;
    if head.flags & LONG_EXPIRY != 0 {
        head.expire_ms |= high_expiry(bytes, head.end());
    }
    Some(head)
}

/// The rest of an expiry beyond 48 bits.
#[cold]
fn high_expiry(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).and_then(<[u8]>::first_chunk::<LONG_BYTES>);
    rest.map_or(0, |rest| u64::from(u16::from_le_bytes(*rest)) << 48)
}

#[inline(always)]
fn parse_short(bytes: &[u8]) -> Option<Head> {
    let [flags, a, b, c, rest @ ..] = bytes else {
        return None;
    };
    let flags = *flags;
    if flags & LIVE == 0 {
        return None;
    }
    let access = u32::from_le_bytes([*a, *b, *c, 0]);
    let mut head = Head { flags, access, expire_ms: 0, key_at: 4, key_len: 0, value_len: 0 };
    let mut rest = rest;
    if flags & HAS_EXPIRY != 0 {
        let (field, after) = rest.split_first_chunk::<EXPIRY_BYTES>()?;
        let [a, b, c, d, e, f] = *field;
        head.expire_ms = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        head.key_at = 10;
        rest = after;
    }
    if flags & LARGE_KEY != 0 {
        return Some(head);
    }
    if let [key_len @ 0..0x80, value_len @ 0..0x80, ..] = rest {
        head.key_at += 2;
        (head.key_len, head.value_len) = (u32::from(*key_len), u32::from(*value_len));
        return Some(head);
    }
    let lengths = long_lengths(rest)?;
    head.key_at += lengths.bytes;
    (head.key_len, head.value_len) = (lengths.key, lengths.value);
    Some(head)
}

fn large_index(bytes: &[u8], head: &Head) -> Option<u32> {
    if head.flags & LARGE_VALUE == 0 {
        return None;
    }
    let field = bytes.get(head.value_at()..)?.first_chunk::<INDEX_BYTES>()?;
    Some(u32::from_le_bytes(*field))
}

struct Lengths {
    key: u32,
    value: u32,
    /// Taken by both.
    bytes: u32,
}

#[inline(never)]
fn long_lengths(bytes: &[u8]) -> Option<Lengths> {
    let mut used = 0;
    let (key, rest) = varint(bytes, &mut used)?;
    let (value, _) = varint(rest, &mut used)?;
    Some(Lengths { key, value, bytes: used })
}

/// A length and what follows it; `at` moves along. Lengths in records are below 2^28.
fn varint<'a>(bytes: &'a [u8], at: &mut u32) -> Option<(u32, &'a [u8])> {
    let mut value = 0;
    let mut rest = bytes;
    for shift in [0, 7, 14, 21] {
        let (byte, after) = rest.split_first()?;
        rest = after;
        *at += 1;
        value |= u32::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            return Some((value, rest));
        }
    }
    None
}

const fn expiry_flags(expire_ms: u64) -> u8 {
    match expire_ms {
        0 => 0,
        _ if is_long(expire_ms) => HAS_EXPIRY | LONG_EXPIRY,
        _ => HAS_EXPIRY,
    }
}

/// The low 48 bits.
fn expiry_bytes(expire_ms: u64) -> [u8; EXPIRY_BYTES] {
    let [a, b, c, d, e, f, _, _] = expire_ms.to_le_bytes();
    [a, b, c, d, e, f]
}

/// Appends to a slot; the plan made sure that everything fits.
struct Writer<'a> {
    to: &'a mut [u8],
}

impl Writer<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let to = std::mem::take(&mut self.to);
        if let Some((here, after)) = to.split_at_mut_checked(bytes.len()) {
            here.copy_from_slice(bytes);
            self.to = after;
        }
    }

    /// The rest of an expiry beyond 48 bits, behind the value.
    #[inline]
    fn long_expiry(&mut self, expire_ms: u64) {
        if is_long(expire_ms) {
            let [.., high, higher] = expire_ms.to_le_bytes();
            self.put(&[high, higher]);
        }
    }

    #[inline]
    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.put(&[low | 0x80]);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.put(&[low]);
    }
}
