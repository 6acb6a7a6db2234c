//! Single values: what `DUMP` gives and `RESTORE` takes.
//!
//! Invariant: a payload is looked at only after its version and checksum.
//! Next: `load.rs` and `put.rs` for values.

use super::{
    Bad, VERSION, VERSION_MAX, VERSION_TIMED, Value, crc64,
    cursor::Cursor,
    kind,
    load::load_whole,
    put::{Writer, kind_of},
};
use crate::{object::Cx, store};

/// Bytes of the version and the checksum.
const FOOTER: usize = 10;

/// Why a payload is not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreError {
    /// Of a later version, or changed on the way.
    Footer,
    /// Not a value, although the checksum is right.
    Format(Bad),
}

/// A value's payload, appended to what the writer holds.
pub fn dump(to: &mut Writer, value: store::Value<'_>, cx: Cx<'_>) {
    let start = to.out.len();
    let kind = kind_of(&value);
    to.byte(kind);
    to.value(value, cx);
    let version = if kind == kind::HASH_TIMED { VERSION_TIMED } else { VERSION };
    to.bytes(&version.to_le_bytes());
    let crc = crc64::of(to.out.get(start..).unwrap_or_default());
    to.bytes(&crc.to_le_bytes());
}

/// The value of a payload. What follows the value is not looked at, as in Redis.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(payload: &[u8], cx: Cx<'_>) -> Result<Value, RestoreError> {
    let at = payload.len().checked_sub(FOOTER).ok_or(RestoreError::Footer)?;
    let (body, footer) = payload.split_at_checked(at).ok_or(RestoreError::Footer)?;
    let version = footer.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
    let crc = footer.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let whole = payload.get(..at + 2).unwrap_or_default();
    if version.is_none_or(|version| version > VERSION_MAX) || crc != Some(crc64::of(whole)) {
        return Err(RestoreError::Footer);
    }
    let Some((&kind, value)) = body.split_first() else {
        return Err(RestoreError::Format(Bad { at: 0, what: "no value" }));
    };
    let mut from = Cursor::new(value, 1);
    load_whole(&mut from, kind, cx).map_err(RestoreError::Format)
}
