//! Small hashes: fields and values in turn in one packed sequence, perhaps with expiries.
//!
//! Next: `hash.rs` decides when a hash is no longer small.

use super::{
    super::packed::{Entry, Iter, Packed, Pos},
    expiry_after, is_live,
};
use crate::store::Expire;

/// Entries per field without expiries.
pub(super) const PAIR: usize = 2;
/// Entries per field with them.
pub(super) const TRIPLE: usize = 3;

/// Where a field's parts are.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    field: Pos,
    pub(super) value: Pos,
    expire: Option<Pos>,
}

impl Slot {
    pub(super) fn expire(&self, packed: &Packed) -> Option<u64> {
        expire_of(packed.get(self.expire?)?)
    }
}

fn expire_of(entry: Entry<'_>) -> Option<u64> {
    u64::try_from(entry.as_int()?).ok().filter(|&at| at != 0)
}

fn expire_entry(expire: Option<u64>) -> Entry<'static> {
    Entry::Int(expire.and_then(|at| i64::try_from(at).ok()).unwrap_or(0))
}

pub(super) fn find(packed: &Packed, step: usize, field: &[u8]) -> Option<Slot> {
    let field = packed.find(packed.first(), field, step)?;
    let value = packed.next(field)?;
    let expire = if step == TRIPLE { packed.next(value) } else { None };
    Some(Slot { field, value, expire })
}

/// Sets a field; whether it is new.
pub(super) fn set(packed: &mut Packed, field: &[u8], value: &[u8]) -> bool {
    match find(packed, PAIR, field) {
        Some(slot) => {
            packed.replace(slot.value, value);
            false
        }
        None => {
            packed.extend(&[Entry::from(field), Entry::from(value)]);
            true
        }
    }
}

/// Sets a field; whether it is new, and the expiry it has then.
pub(super) fn set_timed(
    packed: &mut Packed,
    field: &[u8],
    value: &[u8],
    expire: Expire,
    now_ms: u64,
) -> (bool, Option<u64>) {
    let Some(slot) = find(packed, TRIPLE, field) else {
        let after = expiry_after(expire, None);
        packed.extend(&[Entry::from(field), Entry::from(value), expire_entry(after)]);
        return (true, after);
    };
    let old = slot.expire(packed);
    let live = is_live(old, now_ms);
    let after = expiry_after(expire, old.filter(|_| live));
    set_expire(packed, slot, after);
    packed.replace(slot.value, value);
    (!live, after)
}

/// Changes a field's expiry.
pub(super) fn set_expire(packed: &mut Packed, slot: Slot, expire: Option<u64>) {
    if let Some(pos) = slot.expire {
        packed.replace(pos, expire_entry(expire));
    }
}

pub(super) fn remove(packed: &mut Packed, step: usize, field: &[u8]) -> bool {
    find(packed, step, field).is_some_and(|slot| packed.remove(slot.field, step) > 0)
}

/// The same fields, each followed by "no expiry".
pub(super) fn with_expiries(packed: &Packed) -> Packed {
    let entries: Vec<_> =
        packed.pairs().flat_map(|(field, value)| [field, value, expire_entry(None)]).collect();
    let mut timed = Packed::new();
    timed.extend(&entries);
    timed
}

/// Removes the fields that are due, giving each to `on_expired`; how many, and the earliest expiry that is left.
pub(super) fn reap(
    packed: &mut Packed,
    now_ms: u64,
    mut on_expired: impl FnMut(&[u8]),
) -> (usize, u64) {
    let (mut kept, mut gone, mut earliest) = (Vec::new(), 0, u64::MAX);
    for (field, value, expire) in Triples::new(packed, TRIPLE) {
        if is_live(expire, now_ms) {
            kept.extend([field, value, expire_entry(expire)]);
            earliest = earliest.min(expire.unwrap_or(u64::MAX));
        } else {
            on_expired(&field.to_vec());
            gone += 1;
        }
    }
    if gone > 0 {
        let mut rest = Packed::new();
        rest.extend(&kept);
        *packed = rest;
    }
    (gone, earliest)
}

/// Field, value and expiry of each field.
#[derive(Clone)]
pub(super) struct Triples<'a> {
    iter: Iter<'a>,
    step: usize,
}

impl<'a> Triples<'a> {
    pub(super) fn new(packed: &'a Packed, step: usize) -> Self {
        Self { iter: packed.iter(), step }
    }
}

impl<'a> Iterator for Triples<'a> {
    type Item = (Entry<'a>, Entry<'a>, Option<u64>);

    fn next(&mut self) -> Option<Self::Item> {
        let (field, value) = (self.iter.next()?, self.iter.next()?);
        let expire = if self.step == TRIPLE { expire_of(self.iter.next()?) } else { None };
        Some((field, value, expire))
    }
}
