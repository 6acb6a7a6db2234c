//! What an item keeps beside its value: flags, CAS unique and marks, as a tail of a few bytes.
//!
//! The tail of a value that lies in its record, or that is a little too long for one, is its end; that of any other
//! large value follows the index in the record, whose length takes the place of the value's. Only the database of
//! items has tails, so the two bits of a record that tell how a string came to be say something else there.
//! Next: `item.rs`, which writes and reads them.

use super::{
    Arena, EXPIRY_BYTES, FORM, Full, Head, Heap, INDEX_BYTES, LARGE_KEY, RAW, Ref, TEXT, Writer,
    expiry_bytes, fixed_bytes, suits, varint_len,
};

/// The value ends with a tail.
pub(in crate::store) const TAILED: u8 = TEXT;
/// The item was read since it was stored.
pub(in crate::store) const FETCHED: u8 = RAW;

const _: () = assert!(TAILED | FETCHED == FORM && EXPIRY_BYTES == 6);

impl Head {
    /// The value ends with its tail.
    pub(in crate::store) const fn is_tailed(&self) -> bool {
        self.flags & TAILED != 0
    }

    /// The item was read since it was stored.
    pub(in crate::store) const fn was_fetched(&self) -> bool {
        self.flags & FETCHED != 0
    }
}

impl Heap {
    /// The tail of a record in the database of items, when it is not the value's end.
    pub(in crate::store) fn tail(&self, at: Ref, head: &Head) -> &[u8] {
        if !head.is_large() {
            return &[];
        }
        let from = head.value_at() + INDEX_BYTES;
        self.arena.bytes(at).get(from..from + head.value_len as usize).unwrap_or_default()
    }

    /// Says of a record of the database of items that its value is tailed, and that it was fetched.
    pub(in crate::store) fn set_item_bits(&mut self, at: Ref, bits: u8) {
        if let Some(flags) = self.arena.bytes_mut(at).first_mut() {
            *flags = (*flags & !FORM) | (bits & FORM);
        }
    }

    /// Changes the tail behind the index of a large value; the record may move.
    pub(in crate::store) fn set_tail(
        &mut self,
        at: Ref,
        head: &Head,
        tail: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Ref, Full> {
        if !head.is_large() || head.flags & LARGE_KEY != 0 {
            return Ok(at);
        }
        let body = head.key_at as usize..head.value_at() + INDEX_BYTES;
        scratch.clear();
        scratch.extend_from_slice(self.arena.bytes(at).get(body).unwrap_or_default());
        let key_len = head.key_len as usize;
        let fixed = fixed_bytes(head.expire_ms) + varint_len(key_len) + varint_len(tail.len());
        let len = fixed + scratch.len() + tail.len();
        let class = Arena::class_of(len).ok_or(Full)?;
        let to = if suits(len, class, self.arena.slot_class(at)) {
            at
        } else {
            self.arena.alloc(class)?
        };
        let [a, b, c, _] = head.access.to_le_bytes();
        let mut out = Writer { to: self.arena.bytes_mut(to) };
        out.put(&[head.flags, a, b, c]);
        if head.expire_ms != 0 {
            out.put(&expiry_bytes(head.expire_ms));
        }
        out.varint(key_len);
        out.varint(tail.len());
        out.put(scratch);
        out.put(tail);
        out.long_expiry(head.expire_ms);
        if to != at {
            self.arena.free(at);
        }
        Ok(to)
    }
}
