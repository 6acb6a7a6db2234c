//! The items of memcached's protocol, in a database of their own that no number of Redis' names.
//!
//! An item is a string with flags, a CAS unique and a few marks. Most have none of them and take not a byte more than
//! a string; the others carry a tail (`record/tail.rs`). A CAS unique exists only for an item that somebody asked one
//! of: nobody can compare with what nobody was told, and every change of the item forgets it again.
//!
//! ```text
//! flags 0, 1, 2 or 4 | CAS unique 0, 2, 3 … 8 | one byte: how long both are, stale, won, binary
//! ```
//! Next: `cache::memcached` for the protocol's rules.

use bytes::Bytes;

use super::{
    Expire, Form, Full, KeyHash, NewValue, Policy, SHARED_MIN_BYTES, Store, Value, access,
    arena::Ref,
    lookup::Found,
    record::{Body, Draft, FETCHED, Head, TAILED},
};

/// Longest tail.
const TAIL_MAX_BYTES: usize = 13;
const CAS_SHIFT: u32 = 2;
const CAS_MASK: u8 = 7;
const STALE: u8 = 0x20;
const WON: u8 = 0x40;
const BINARY: u8 = 0x80;

/// What an item keeps beside its value and its expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The client's flags.
    pub flags: u32,
    /// The CAS unique; 0 while nobody was told one.
    pub cas: u64,
    /// Marked as out of date.
    pub stale: bool,
    /// A client has been told that it is the one to refresh the item.
    pub won: bool,
    /// The key was given in base64.
    pub binary: bool,
    /// The item was read since it was stored.
    pub fetched: bool,
}

impl Marks {
    /// Writes the tail to `to`, and gives it: nothing when there is nothing to tell.
    fn encode<'a>(&self, to: &'a mut [u8; TAIL_MAX_BYTES]) -> &'a [u8] {
        let flags_len = match self.flags {
            0 => 0,
            1..=0xFF => 1,
            0x100..=0xFFFF => 2,
            _ => 4,
        };
        let cas_len = match self.cas {
            0 => 0,
            cas => (8 - cas.leading_zeros() as usize / 8).max(2),
        };
        // One is never stored, so three bits suffice.
        let cas_code = u8::try_from(cas_len.saturating_sub(1)).unwrap_or(0);
        let flags_code = u8::try_from(flags_len.min(3)).unwrap_or(0);
        let mut header = flags_code | cas_code << CAS_SHIFT;
        for (set, bit) in [(self.stale, STALE), (self.won, WON), (self.binary, BINARY)] {
            header |= if set { bit } else { 0 };
        }
        if header == 0 {
            return &[];
        }
        let flags = self.flags.to_le_bytes();
        let cas = self.cas.to_le_bytes();
        let bytes = flags.iter().take(flags_len).chain(cas.iter().take(cas_len)).chain([&header]);
        to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        to.get(..flags_len + cas_len + 1).unwrap_or_default()
    }

    /// What the tail at the end of `bytes` says, and how long it is.
    fn decode(bytes: &[u8]) -> (Self, usize) {
        let Some((&header, rest)) = bytes.split_last() else { return (Self::default(), 0) };
        let flags_len = match header & 3 {
            3 => 4,
            len => usize::from(len),
        };
        let cas_len = match header >> CAS_SHIFT & CAS_MASK {
            0 => 0,
            code => usize::from(code) + 1,
        };
        let from = rest.len().saturating_sub(flags_len + cas_len);
        let (flags, cas) =
            rest.get(from..).unwrap_or_default().split_at_checked(flags_len).unwrap_or_default();
        let number =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let marks = Self {
            flags: u32::try_from(number(flags)).unwrap_or(0),
            cas: number(cas),
            stale: header & STALE != 0,
            won: header & WON != 0,
            binary: header & BINARY != 0,
            fetched: false,
        };
        (marks, 1 + flags_len + cas_len)
    }
}

/// One item, as it was before it was looked up.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    value: Value<'a>,
    /// How much of the value is the client's.
    len: usize,
    /// Everything beside.
    pub marks: Marks,
    /// When it expires, unix milliseconds.
    pub expire_at_ms: Option<u64>,
    /// Seconds since it was last used, as far as the eviction policy keeps that.
    pub idle_s: u64,
}

impl<'a> Item<'a> {
    /// The client's bytes.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.value.as_slice().get(..self.len).unwrap_or_default()
    }

    /// The same by reference, when they are kept so.
    #[must_use]
    pub fn shared(&self) -> Option<Bytes> {
        match self.value {
            Value::Shared(bytes) if bytes.len() == self.len => Some(bytes.clone()),
            Value::Shared(bytes) => Some(bytes.slice(..self.len.min(bytes.len()))),
            _ => None,
        }
    }
}

impl Store {
    /// The database of the items.
    #[inline]
    #[must_use]
    pub fn items_db(&self) -> u16 {
        self.config.databases
    }

    /// Looks an item up. With `touch` the item counts as used and fetched from then on; what is given is as it was before.
    pub fn item(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        touch: bool,
        now_ms: u64,
    ) -> Option<Item<'_>> {
        let Found { at, head, .. } = self.live(self.items_db(), hash, key, now_ms)?;
        let policy = self.config.policy;
        let idle_s = match policy {
            Policy::S3Fifo => 0,
            policy if policy.is_lfu() => 60 * u64::from(access::idle_minutes(head.access, now_ms)),
            _ => u64::from(access::idle_s(head.access, now_ms)),
        };
        if touch {
            let access = access::used(policy, head.access, now_ms, &mut self.rng);
            self.heap.set_access(at, head.access, access);
            if !head.was_fetched() {
                self.heap.set_item_bits(at, head.flags | FETCHED);
            }
        }
        let (marks, len) = self.marks(at, &head);
        let value = self.heap.entry(at, &head).value;
        Some(Item {
            value,
            len,
            marks,
            expire_at_ms: (head.expire_ms != 0).then_some(head.expire_ms),
            idle_s,
        })
    }

    /// The marks of a record, and how much of its value is the client's.
    fn marks(&self, at: Ref, head: &Head) -> (Marks, usize) {
        let value = self.heap.entry(at, head).value.as_slice();
        let (mut marks, len) = if head.is_tailed() {
            let (marks, tail) = Marks::decode(value);
            (marks, value.len().saturating_sub(tail))
        } else {
            let (marks, _) = Marks::decode(self.heap.tail(at, head));
            (marks, value.len())
        };
        marks.fetched = head.was_fetched();
        (marks, len)
    }

    /// Stores an item. Its expiry, if any, must not have come.
    ///
    /// # Errors
    /// [`Full`]: an older item of this key may be gone.
    pub fn set_item(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: NewValue<'_>,
        expire: Expire,
        marks: Marks,
        now_ms: u64,
    ) -> Result<(), Full> {
        let db = self.items_db();
        let mut buffer = [0; TAIL_MAX_BYTES];
        let tail = marks.encode(&mut buffer);
        let apart = value.as_slice().len() >= SHARED_MIN_BYTES;
        if tail.is_empty() || apart {
            self.set(db, hash, key, value, expire, Form::Plain, now_ms)?;
        } else {
            let mut whole = std::mem::take(&mut self.scratch);
            whole.clear();
            whole.extend_from_slice(value.as_slice());
            whole.extend_from_slice(tail);
            let stored = self.write(db, hash, key, Body::Copy(&whole), expire, Form::Plain, now_ms);
            self.scratch = whole;
            stored?;
        }
        if tail.is_empty() && !marks.fetched {
            return Ok(());
        }
        let Some(found) = self.live(db, hash, key, now_ms) else { return Ok(()) };
        let mut at = found.at;
        if !tail.is_empty() && apart {
            let Ok(to) = self.heap.set_tail(at, &found.head, tail, &mut self.scratch) else {
                // Without its flags it is another item.
                self.remove(db, hash, key, now_ms);
                return Err(Full);
            };
            self.rewritten(db, hash, &found, to, found.head.expire_ms, now_ms);
            at = to;
        }
        self.heap.set_item_bits(at, bits(!tail.is_empty() && !apart, marks.fetched));
        Ok(())
    }

    /// Changes what an item keeps beside its value; whether it is there.
    ///
    /// # Errors
    /// [`Full`]: nothing changed.
    pub fn mark_item(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        marks: Marks,
        now_ms: u64,
    ) -> Result<bool, Full> {
        let db = self.items_db();
        let Some(found) = self.live(db, hash, key, now_ms) else { return Ok(false) };
        let Found { at, head, .. } = found;
        let mut buffer = [0; TAIL_MAX_BYTES];
        let tail = marks.encode(&mut buffer);
        let expire_ms = head.expire_ms;
        let apart = head.is_large() && !head.is_tailed();
        let to = if apart {
            self.heap.set_tail(at, &head, tail, &mut self.scratch)?
        } else {
            let mut whole = std::mem::take(&mut self.scratch);
            let (_, len) = self.marks(at, &head);
            let value = self.heap.entry(at, &head).value.as_slice();
            whole.clear();
            whole.extend_from_slice(value.get(..len).unwrap_or_default());
            whole.extend_from_slice(tail);
            let body = Body::Copy(&whole);
            let draft =
                Draft { key, value: body, access: head.access, expire_ms, form: Form::Plain };
            let to = self.heap.replace(at, &head, hash.0, draft);
            self.scratch = whole;
            to?
        };
        self.rewritten(db, hash, &found, to, expire_ms, now_ms);
        self.heap.set_item_bits(to, bits(!tail.is_empty() && !apart, marks.fetched));
        Ok(true)
    }
}

const fn bits(tailed: bool, fetched: bool) -> u8 {
    (if tailed { TAILED } else { 0 }) | (if fetched { FETCHED } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_as_short_as_they_can_be_and_come_back() {
        let mut lens = Vec::new();
        for flags in [0, 1, 0xFF, 0x100, 0xFFFF, 0x1_0000, u32::MAX] {
            for cas in [0, 1, 0xFFFF, 0x1_0000, u64::MAX >> 8, u64::MAX] {
                for bits in 0..8 {
                    let marks = Marks {
                        flags,
                        cas,
                        stale: bits & 1 != 0,
                        won: bits & 2 != 0,
                        binary: bits & 4 != 0,
                        fetched: false,
                    };
                    let mut buffer = [0; TAIL_MAX_BYTES];
                    let tail = marks.encode(&mut buffer);
                    lens.push(tail.len());
                    let whole = [b"value", tail].concat();
                    if tail.is_empty() {
                        assert_eq!(marks, Marks::default());
                    } else {
                        assert_eq!(Marks::decode(&whole), (marks, tail.len()));
                    }
                }
            }
        }
        assert_eq!(lens.iter().min(), Some(&0));
        assert_eq!(lens.iter().max(), Some(&TAIL_MAX_BYTES));
        assert_eq!(Marks::decode(&[0xFF]).1, 13, "a tail that is cut short is no panic");
    }
}
