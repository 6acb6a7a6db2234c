//! Hashes: fields with values, each field with an expiry of its own if one is set.
//!
//! A small one is a packed sequence of fields and values in turn; from the first expiry on, every field is followed by
//! its expiry too (0 for none). Beyond [`Limits`](super::Limits) it becomes a table, for good, as in Redis, whose items
//! are one allocation each. A field is due from the millisecond after its expiry on: no operation sees it then, and
//! [`reap`](Hash::reap) removes it.
//!
//! Invariants: no field is there twice, due ones included; the noted due time is never later than the earliest expiry;
//! [`mem_bytes`](Hash::mem_bytes) is the sum of all allocations.
//! Next: `field.rs` for an item of the table, `ttl.rs` for expiries, `access.rs` for reading many fields.

mod access;
mod field;
mod small;
mod ttl;

pub use access::Fields;
use field::Field;
use small::{PAIR, TRIPLE};
pub use ttl::{ExpireIf, FieldExpire, FieldTtl, MAX_EXPIRE_MS};

use super::{
    Cx,
    packed::{Entry, Packed},
    table::SplitTable,
};
use crate::store::Expire;

/// Why a field could not be counted up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountError {
    /// The value is not an integer of 64 bits.
    NotInteger,
    /// The result would not be one.
    Overflow,
}

/// A hash.
#[derive(Default)]
pub struct Hash {
    repr: Repr,
}

enum Repr {
    /// Field, value, field, value …
    Packed(Packed),
    /// Field, value, expiry, field …
    Timed(Box<Timed>),
    Table(Box<SplitTable<Field>>),
}

impl Default for Repr {
    fn default() -> Self {
        Self::Packed(Packed::new())
    }
}

struct Timed {
    packed: Packed,
    /// Not later than the earliest expiry; `u64::MAX` when there is none.
    due_ms: u64,
}

impl Hash {
    /// An empty hash, without an allocation.
    #[must_use]
    pub const fn new() -> Self {
        Self { repr: Repr::Packed(Packed::new()) }
    }

    /// How many fields, those due but not yet removed included (as `HLEN` in Redis).
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Packed(packed) => packed.len() / PAIR,
            Repr::Timed(timed) => timed.packed.len() / TRIPLE,
            Repr::Table(table) => table.len(),
        }
    }

    /// Whether there is no field, due ones included: such a hash is to be deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `OBJECT ENCODING` says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.repr {
            Repr::Packed(_) => "listpack",
            Repr::Timed(_) => "listpackex",
            Repr::Table(_) => "hashtable",
        }
    }

    /// Bytes of all allocations.
    #[must_use]
    pub fn mem_bytes(&self) -> usize {
        match &self.repr {
            Repr::Packed(packed) => packed.heap_bytes(),
            Repr::Timed(timed) => size_of::<Timed>() + timed.packed.heap_bytes(),
            Repr::Table(table) => size_of::<SplitTable<Field>>() + table.heap_bytes(),
        }
    }

    /// Frees about `budget` fields of a hash that is not used any more; whether any are left.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        if let Repr::Table(table) = &mut self.repr
            && table.reclaim(budget)
        {
            return true;
        }
        *self = Self::new();
        false
    }

    /// Fields and values in turn, while the hash is small and no field ever expired: what a dump copies.
    #[must_use]
    pub fn packed(&self) -> Option<&Packed> {
        if let Repr::Packed(packed) = &self.repr { Some(packed) } else { None }
    }

    /// The packed form and entries per field, unless this is a table.
    fn small(&self) -> Option<(&Packed, usize)> {
        match &self.repr {
            Repr::Packed(packed) => Some((packed, PAIR)),
            Repr::Timed(timed) => Some((&timed.packed, TRIPLE)),
            Repr::Table(_) => None,
        }
    }

    /// A field's value.
    #[must_use]
    pub fn get(&self, field: &[u8], cx: Cx<'_>) -> Option<Entry<'_>> {
        self.find(field, cx).map(|found| found.0)
    }

    /// A field's value and expiry, if it is not due.
    fn find(&self, field: &[u8], cx: Cx<'_>) -> Option<(Entry<'_>, Option<u64>)> {
        let (value, expire) = if let Repr::Table(table) = &self.repr {
            let item = table.get(cx.hasher.hash(field), field)?;
            (Entry::Str(item.value()), item.expire())
        } else {
            let (packed, step) = self.small()?;
            let slot = small::find(packed, step, field)?;
            (packed.get(slot.value)?, slot.expire(packed))
        };
        is_live(expire, cx.now_ms).then_some((value, expire))
    }

    /// Whether a field is there.
    #[must_use]
    pub fn contains(&self, field: &[u8], cx: Cx<'_>) -> bool {
        self.find(field, cx).is_some()
    }

    /// Length of a field's value, 0 without one.
    #[must_use]
    pub fn value_len(&self, field: &[u8], cx: Cx<'_>) -> usize {
        self.get(field, cx).map_or(0, |value| value.text_len())
    }

    /// Sets a field; whether it is new. A new field has no expiry to keep, and a time given must lie ahead
    /// ([`expire_at`](Self::expire_at) is for those that may not).
    pub fn set(&mut self, field: &[u8], value: &[u8], expire: Expire, cx: Cx<'_>) -> bool {
        let most = cx.limits.hash_max_listpack_value;
        if field.len().max(value.len()) > most {
            self.make_table(cx);
        }
        if matches!(expire, Expire::At(_)) {
            self.make_timed();
        }
        let is_new = if let Repr::Table(table) = &mut self.repr {
            set_in_table(table, field, value, expire, cx)
        } else {
            self.set_small(field, value, expire, cx)
        };
        if self.small().is_some() && self.len() > cx.limits.hash_max_listpack_entries {
            self.make_table(cx);
        }
        is_new
    }

    fn set_small(&mut self, field: &[u8], value: &[u8], expire: Expire, cx: Cx<'_>) -> bool {
        match &mut self.repr {
            Repr::Packed(packed) => small::set(packed, field, value),
            Repr::Timed(timed) => {
                let (is_new, kept) =
                    small::set_timed(&mut timed.packed, field, value, expire, cx.now_ms);
                timed.due_ms = timed.due_ms.min(kept.unwrap_or(u64::MAX));
                is_new
            }
            Repr::Table(_) => false,
        }
    }

    /// Sets a field that is not there; whether that was so.
    pub fn set_new(&mut self, field: &[u8], value: &[u8], cx: Cx<'_>) -> bool {
        !self.contains(field, cx) && self.set(field, value, Expire::Clear, cx)
    }

    /// Removes a field; whether it was there. A due one is left to [`reap`](Self::reap).
    pub fn remove(&mut self, field: &[u8], cx: Cx<'_>) -> bool {
        if !self.contains(field, cx) {
            return false;
        }
        match &mut self.repr {
            Repr::Packed(packed) => small::remove(packed, PAIR, field),
            Repr::Timed(timed) => small::remove(&mut timed.packed, TRIPLE, field),
            Repr::Table(table) => table.remove(cx.hasher.hash(field), field).is_some(),
        }
    }

    /// Removes a field, handing its value out.
    pub fn take(&mut self, field: &[u8], cx: Cx<'_>) -> Option<Vec<u8>> {
        let value = self.get(field, cx)?.to_vec();
        self.remove(field, cx);
        Some(value)
    }

    /// Replaces a field's value by what `change` makes of it (`None` for a new field); its expiry stays.
    ///
    /// # Errors
    /// What `change` returns, with nothing changed.
    pub fn update<E>(
        &mut self,
        field: &[u8],
        cx: Cx<'_>,
        change: impl FnOnce(Option<Entry<'_>>) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let value = change(self.get(field, cx))?;
        self.set(field, &value, Expire::Keep, cx);
        Ok(())
    }

    /// Adds to a field's integer, 0 without one; the sum.
    ///
    /// # Errors
    /// When the value is no integer, or the sum none of 64 bits.
    pub fn count(&mut self, field: &[u8], by: i64, cx: Cx<'_>) -> Result<i64, CountError> {
        let old = self.get(field, cx).map_or(Some(0), |value| value.as_int());
        let sum = old.ok_or(CountError::NotInteger)?.checked_add(by).ok_or(CountError::Overflow)?;
        self.set(field, Entry::Int(sum).text(&mut super::packed::Digits::new()), Expire::Keep, cx);
        Ok(sum)
    }

    /// Makes room for expiries.
    fn make_timed(&mut self) {
        if let Repr::Packed(packed) = &self.repr {
            let timed = small::with_expiries(packed);
            self.repr = Repr::Timed(Box::new(Timed { packed: timed, due_ms: u64::MAX }));
        }
    }

    /// Becomes a table, unless it is one.
    fn make_table(&mut self, cx: Cx<'_>) {
        let Some((packed, step)) = self.small() else {
            return;
        };
        let mut table = SplitTable::new();
        for (field, value, expire) in small::Triples::new(packed, step) {
            let field = Field::new(&field.to_vec(), &value.to_vec(), expire);
            let hash = cx.hasher.hash(field.field());
            table.insert(hash, field, cx.hasher);
        }
        self.repr = Repr::Table(Box::new(table));
    }
}

fn is_live(expire: Option<u64>, now_ms: u64) -> bool {
    expire.is_none_or(|at| at >= now_ms)
}

/// The expiry a field has after being set; `old` is `None` for a new one.
fn expiry_after(expire: Expire, old: Option<u64>) -> Option<u64> {
    match expire {
        Expire::Keep => old,
        Expire::Clear => None,
        Expire::At(at) => Some(at.min(MAX_EXPIRE_MS)),
    }
}

fn set_in_table(
    table: &mut SplitTable<Field>,
    field: &[u8],
    value: &[u8],
    expire: Expire,
    cx: Cx<'_>,
) -> bool {
    let hash = cx.hasher.hash(field);
    let changed = table.update(hash, field, |item| {
        let live = is_live(item.expire(), cx.now_ms);
        let old = item.expire().filter(|_| live);
        item.set(value, expiry_after(expire, old));
        !live
    });
    changed.unwrap_or_else(|| {
        table.insert(hash, Field::new(field, value, expiry_after(expire, None)), cx.hasher);
        true
    })
}

#[cfg(test)]
mod tests;
