//! HyperLogLog commands, on strings.
//!
//! Next: `logic::object::hll`.

use bytes::Bytes;
use logic::object::hll::{self, HllError};
use logic::store::{Expire, Form, NewValue};

use super::{Cx, Fault, Outcome};
use crate::events::{STRING, UNNAMED};

type Result = std::result::Result<Outcome, Fault>;

impl From<HllError> for Fault {
    fn from(error: HllError) -> Self {
        Self::text(error.message())
    }
}

/// `hll-sparse-max-bytes`.
fn sparse_max_bytes(cx: &Cx<'_>) -> usize {
    let bytes = crate::settings::memory(cx.shard.settings.get("hll-sparse-max-bytes"));
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(hll::SPARSE_MAX_BYTES)
}

/// Stores a value at the key of argument 1, which keeps its expiry.
fn store(cx: &mut Cx<'_>, value: Vec<u8>) -> std::result::Result<(), Fault> {
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let value = NewValue::Shared(Bytes::from(value));
    if cx.shard.store.set(db, hash, key, value, Expire::Keep, Form::Raw, now)? {
        cx.created(1);
    }
    Ok(())
}

pub(super) fn pfadd(cx: &mut Cx<'_>) -> Result {
    let (words, argc, most) = (cx.words(), cx.argc(), sparse_max_bytes(cx));
    let elements = (2..argc).map(|index| words.get(index));
    let found = match cx.string(1)? {
        Some(value) => {
            hll::check(value.as_slice())?;
            true
        }
        None => false,
    };
    let changed = if found {
        let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
        let added =
            cx.shard.store.modify(db, hash, key, now, |value| hll::add(value, elements, most))?;
        added.transpose()?.unwrap_or(false)
    } else {
        let mut value = hll::create();
        hll::add(&mut value, elements, most)?;
        hll::invalidate(&mut value);
        store(cx, value)?;
        true
    };
    if changed {
        cx.event(STRING, "pfadd", 1);
    }
    cx.int(changed.into())
}

pub(super) fn pfcount(cx: &mut Cx<'_>) -> Result {
    if cx.argc() > 2 {
        let (values, wrong_type) = cx.strings(1..cx.argc());
        let values: Vec<&[u8]> = values.into_iter().flatten().collect();
        let count = hll::count_union(&values)?;
        return if wrong_type { Err(Fault::WRONG_TYPE) } else { cx.count(count) };
    }
    let (values, wrong_type) = cx.strings(1..2);
    let cached = match values.first() {
        _ if wrong_type => return Err(Fault::WRONG_TYPE),
        Some(Some(value)) => hll::cached(value)?,
        _ => Some(0),
    };
    if let Some(count) = cached {
        return cx.count(count);
    }
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let counted = cx.shard.store.modify(db, hash, key, now, |value| hll::count(value))?;
    let count = counted.transpose()?.unwrap_or(0);
    // The count is kept in the value.
    cx.event(UNNAMED, "", 1);
    cx.count(count)
}

pub(super) fn pfmerge(cx: &mut Cx<'_>) -> Result {
    let most = sparse_max_bytes(cx);
    let (values, wrong_type) = cx.strings(1..cx.argc());
    let mut values = values.into_iter();
    let mut merged = values.next().flatten().map_or_else(hll::create, <[u8]>::to_vec);
    let sources: Vec<&[u8]> = values.flatten().collect();
    hll::merge(&mut merged, &sources, most)?;
    if wrong_type {
        return Err(Fault::WRONG_TYPE);
    }
    store(cx, merged)?;
    cx.event(STRING, "pfadd", 1);
    cx.ok()
}
