//! A field of a large hash with its value: one allocation, two words in the table.
//!
//! The bytes are: the field's length and a bit for "expires", as a number of seven bits a byte; six bytes of expiry if
//! that bit is set; the field; the value.
//! Next: `hash.rs` keeps these in a table.

use super::super::{Hasher, table::Keyed};

/// Bytes of an expiry: 48 bits of milliseconds last for some 8,900 years.
const EXPIRE_BYTES: usize = 6;

/// The item.
pub(super) struct Field(Box<[u8]>);

/// Where its parts are.
struct Parts {
    expire: usize,
    field: usize,
    value: usize,
}

impl Field {
    pub(super) fn new(field: &[u8], value: &[u8], expire: Option<u64>) -> Self {
        let mut head = (field.len() as u64) << 1 | u64::from(expire.is_some());
        let timed = if expire.is_some() { EXPIRE_BYTES } else { 0 };
        let width = head.checked_ilog2().unwrap_or(0) as usize / 7 + 1;
        let mut bytes = Vec::with_capacity(width + timed + field.len() + value.len());
        while head > 0x7F {
            bytes.push((head & 0x7F) as u8 | 0x80);
            head >>= 7;
        }
        bytes.push((head & 0x7F) as u8);
        if let Some(at) = expire {
            bytes.extend_from_slice(at.to_le_bytes().get(..EXPIRE_BYTES).unwrap_or_default());
        }
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    #[inline]
    fn parts(&self) -> Parts {
        let (mut head, mut width) = (0u64, 0);
        for &byte in &self.0 {
            head |= u64::from(byte & 0x7F) << (7 * width);
            width += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let field = width + if head & 1 == 1 { EXPIRE_BYTES } else { 0 };
        let len = usize::try_from(head >> 1).unwrap_or(usize::MAX);
        Parts { expire: width, field, value: field.saturating_add(len) }
    }

    #[inline]
    pub(super) fn field(&self) -> &[u8] {
        let parts = self.parts();
        self.0.get(parts.field..parts.value).unwrap_or_default()
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        self.0.get(self.parts().value..).unwrap_or_default()
    }

    #[inline]
    pub(super) fn expire(&self) -> Option<u64> {
        let parts = self.parts();
        let bytes = self.0.get(parts.expire..parts.field)?.first_chunk::<EXPIRE_BYTES>()?;
        let [a, b, c, d, e, f] = *bytes;
        Some(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Another value and expiry; in place when nothing changes its length.
    pub(super) fn set(&mut self, value: &[u8], expire: Option<u64>) {
        let parts = self.parts();
        let timed = parts.field != parts.expire;
        let same = self.0.len() - parts.value == value.len() && timed == expire.is_some();
        if !same {
            *self = Self::new(self.field(), value, expire);
            return;
        }
        if let Some(room) = self.0.get_mut(parts.value..) {
            room.copy_from_slice(value);
        }
        if let (Some(room), Some(at)) = (self.0.get_mut(parts.expire..parts.field), expire) {
            room.copy_from_slice(at.to_le_bytes().get(..room.len()).unwrap_or_default());
        }
    }

    /// Another expiry.
    pub(super) fn set_expire(&mut self, expire: Option<u64>) {
        let parts = self.parts();
        if let (Some(at), true) = (expire, parts.field != parts.expire) {
            if let Some(room) = self.0.get_mut(parts.expire..parts.field) {
                room.copy_from_slice(at.to_le_bytes().get(..room.len()).unwrap_or_default());
            }
        } else if expire != self.expire() {
            *self = Self::new(self.field(), self.value(), expire);
        }
    }
}

impl Keyed for Field {
    #[inline]
    fn hash(&self, hasher: &Hasher) -> u64 {
        hasher.hash(self.field())
    }

    #[inline]
    fn has_key(&self, key: &[u8]) -> bool {
        self.field() == key
    }

    fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    fn expire_ms(&self) -> Option<u64> {
        self.expire()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_at_each_width_of_the_head() {
        for len in [0usize, 1, 62, 63, 64, 8191, 8192, 70_000, 1 << 20] {
            let (name, at) = (vec![b'f'; len], (1u64 << 48) - 1);
            let mut item = Field::new(&name, b"value", None);
            assert_eq!((item.field(), item.value(), item.expire()), (&*name, &b"value"[..], None));
            let plain = item.heap_bytes();
            item.set_expire(Some(at));
            assert_eq!(
                (item.field(), item.value(), item.expire()),
                (&*name, &b"value"[..], Some(at))
            );
            assert!((6..=7).contains(&(item.heap_bytes() - plain)));
            item.set_expire(Some(7));
            item.set(b"VALUE", Some(8));
            assert_eq!(
                (item.field(), item.value(), item.expire()),
                (&*name, &b"VALUE"[..], Some(8))
            );
            item.set(b"", Some(9));
            assert_eq!((item.field(), item.value(), item.expire()), (&*name, &b""[..], Some(9)));
            item.set_expire(None);
            assert_eq!((item.field(), item.value(), item.expire()), (&*name, &b""[..], None));
            assert_eq!(item.heap_bytes(), plain - 5);
        }
    }
}
