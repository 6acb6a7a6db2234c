//! Passing over a value: where it ends, without making anything of it.
//!
//! Invariant: no memory is reserved, and what `load.rs` reads of a whole value ends where this says.
//! Next: `file.rs` asks whether a value has arrived.

use super::{
    cursor::{Cursor, Read},
    kind, stream,
};

/// What a module's data is made of.
const MODULE_END: u64 = 0;
const MODULE_SIGNED: u64 = 1;
const MODULE_UNSIGNED: u64 = 2;
const MODULE_FLOAT: u64 = 3;
const MODULE_DOUBLE: u64 = 4;
const MODULE_STRING: u64 = 5;

/// Why there are no values of a type.
pub(super) const fn unknown(kind: u8) -> &'static str {
    match kind {
        kind::MODULE | kind::MODULE_2 => "a module's value, which only that module can read",
        _ => "a value of an unknown type",
    }
}

/// Passes over a value of a type.
pub(super) fn skip(from: &mut Cursor<'_>, kind: u8) -> Read<()> {
    match kind {
        kind::STRING
        | kind::HASH_ZIPMAP..=kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::ZSET_LISTPACK
        | kind::SET_LISTPACK
        | kind::HASH_TIMED_LISTPACK_RC => from.skip_string(),
        kind::HASH_TIMED_LISTPACK => {
            from.millis()?;
            from.skip_string()
        }
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 => stream::skip(from, kind),
        kind::LIST..=kind::ZSET_2 | kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => {
            for _ in 0..from.number()? {
                skip_element(from, kind)?;
            }
            Ok(())
        }
        kind::HASH_TIMED_RC | kind::HASH_TIMED => {
            if kind == kind::HASH_TIMED {
                from.millis()?;
            }
            for _ in 0..from.number()? {
                from.number()?;
                from.skip_string()?;
                from.skip_string()?;
            }
            Ok(())
        }
        _ => Err(from.bad(unknown(kind))),
    }
}

fn skip_element(from: &mut Cursor<'_>, kind: u8) -> Read<()> {
    match kind {
        kind::ZSET => {
            from.skip_string()?;
            from.skip_text_double()
        }
        kind::ZSET_2 => {
            from.skip_string()?;
            from.double().map(|_| ())
        }
        kind::HASH => {
            from.skip_string()?;
            from.skip_string()
        }
        kind::LIST_QUICKLIST_2 => {
            from.number()?;
            from.skip_string()
        }
        _ => from.skip_string(),
    }
}

/// Passes over what a module keeps beside the keys.
pub(super) fn skip_module(from: &mut Cursor<'_>) -> Read<()> {
    // The module's number; then when it was saved, before or after the keys, as a field.
    from.number()?;
    loop {
        let fault = from.bad("not a module's data");
        match from.number()? {
            MODULE_END => return Ok(()),
            MODULE_SIGNED | MODULE_UNSIGNED => {
                from.number()?;
            }
            MODULE_FLOAT => {
                from.take(4)?;
            }
            MODULE_DOUBLE => {
                from.take(8)?;
            }
            MODULE_STRING => from.skip_string()?,
            _ => return Err(fault),
        }
    }
}
