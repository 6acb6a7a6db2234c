//! Listpacks and what came before them: ziplists and zipmaps. Each is checked to the last byte before anything is made
//! of it.
//!
//! Invariants: an iterator gives whole entries only, `Err` once when something is wrong, and then nothing; it reserves
//! no memory.
//! Next: `load.rs` puts the entries into collections; `object/entry.rs` has the entries' form.

use crate::object::{
    entry::{back_len, decode, total_behind},
    packed::{Entry, Packed},
};

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

type Item<'a> = Result<Entry<'a>, Broken>;

/// A count that stands for "count them".
const MANY: u16 = u16::MAX;
const END: u8 = 0xFF;

/// The entries of a listpack.
pub(super) fn listpack(bytes: &[u8]) -> Result<impl Iterator<Item = Item<'_>>, Broken> {
    let mut rest = bytes;
    let total = u32::from_le_bytes(chunk(&mut rest)?);
    let count = u16::from_le_bytes(chunk(&mut rest)?);
    let (end, entries) = rest.split_last().ok_or(Broken)?;
    if total as usize != bytes.len() || *end != END {
        return Err(Broken);
    }
    Ok(Counted { rest: entries, seen: 0, memory: 0, want: count, next: listpack_entry })
}

fn listpack_entry<'a>(rest: &mut &'a [u8], _: &mut usize) -> Item<'a> {
    let (entry, len) = decode(rest).ok_or(Broken)?;
    let total = len + back_len(len);
    let (whole, after) = rest.split_at_checked(total).ok_or(Broken)?;
    if total_behind(whole) != Some(total) {
        return Err(Broken);
    }
    *rest = after;
    Ok(entry)
}

/// The entries of a ziplist.
pub(super) fn ziplist(bytes: &[u8]) -> Result<impl Iterator<Item = Item<'_>>, Broken> {
    let mut rest = bytes;
    let total = u32::from_le_bytes(chunk(&mut rest)?) as usize;
    let tail = u32::from_le_bytes(chunk(&mut rest)?) as usize;
    let count = u16::from_le_bytes(chunk(&mut rest)?);
    let (end, entries) = rest.split_last().ok_or(Broken)?;
    // The last entry, or the end when there is none.
    let inside = tail.checked_sub(ZIPLIST_HEADER).is_some_and(|tail| tail <= entries.len());
    if total != bytes.len() || *end != END || !inside {
        return Err(Broken);
    }
    Ok(Counted {
        rest: entries,
        seen: 0,
        memory: 0,
        want: count,
        next: ziplist_entry(tail - ZIPLIST_HEADER, entries.len()),
    })
}

const ZIPLIST_HEADER: usize = 10;

/// Reads entries, each of which says how long the one before is; the last begins at `tail`.
fn ziplist_entry<'a>(
    tail: usize,
    total: usize,
) -> impl FnMut(&mut &'a [u8], &mut usize) -> Item<'a> {
    move |rest, before| {
        let from = total - rest.len();
        let all = *rest;
        let prev = match byte(rest)? {
            254 => u32::from_le_bytes(chunk(rest)?) as usize,
            END => return Err(Broken),
            len => usize::from(len),
        };
        if prev != *before {
            return Err(Broken);
        }
        let entry = ziplist_value(rest)?;
        *before = all.len() - rest.len();
        if rest.is_empty() && from != tail {
            return Err(Broken);
        }
        Ok(entry)
    }
}

fn ziplist_value<'a>(rest: &mut &'a [u8]) -> Item<'a> {
    let head = byte(rest)?;
    let len = match head >> 6 {
        0 => usize::from(head),
        1 => usize::from(u16::from_be_bytes([head & 0x3F, byte(rest)?])),
        2 => u32::from_be_bytes(chunk(rest)?) as usize,
        _ => {
            return Ok(Entry::Int(match head {
                0xC0 => i64::from(i16::from_le_bytes(chunk(rest)?)),
                0xD0 => i64::from(i32::from_le_bytes(chunk(rest)?)),
                0xE0 => i64::from_le_bytes(chunk(rest)?),
                0xF0 => {
                    let [low, mid, high] = chunk(rest)?;
                    i64::from(i32::from_le_bytes([0, low, mid, high]) >> 8)
                }
                0xFE => i64::from(i8::from_le_bytes(chunk(rest)?)),
                0xF1..=0xFD => i64::from(head & 0xF) - 1,
                _ => return Err(Broken),
            }));
        }
    };
    text(rest, len)
}

/// Keys and values in turn of a zipmap.
pub(super) fn zipmap(bytes: &[u8]) -> Result<impl Iterator<Item = Item<'_>>, Broken> {
    let mut rest = bytes;
    let count = u16::from(byte(&mut rest)?);
    let (end, entries) = rest.split_last().ok_or(Broken)?;
    if *end != END {
        return Err(Broken);
    }
    let want = if count >= 254 { MANY } else { count * 2 };
    Ok(Counted { rest: entries, seen: 0, memory: 0, want, next: zipmap_entry })
}

/// `turn` is odd before a value, which has a byte that says how many unused ones follow it.
fn zipmap_entry<'a>(rest: &mut &'a [u8], turn: &mut usize) -> Item<'a> {
    let len = match byte(rest)? {
        254 => u32::from_le_bytes(chunk(rest)?) as usize,
        END => return Err(Broken),
        len => usize::from(len),
    };
    let unused = if *turn % 2 == 1 { usize::from(byte(rest)?) } else { 0 };
    *turn += 1;
    let entry = text(rest, len)?;
    text(rest, unused)?;
    Ok(entry)
}

fn byte(rest: &mut &[u8]) -> Result<u8, Broken> {
    Ok(u8::from_le_bytes(chunk(rest)?))
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Broken> {
    let (chunk, after) = rest.split_first_chunk::<N>().ok_or(Broken)?;
    *rest = after;
    Ok(*chunk)
}

fn text<'a>(rest: &mut &'a [u8], len: usize) -> Item<'a> {
    let (text, after) = rest.split_at_checked(len).ok_or(Broken)?;
    *rest = after;
    Ok(Entry::Str(text))
}

/// Entries, whose count is compared at the end.
struct Counted<'a, F> {
    rest: &'a [u8],
    seen: usize,
    /// What `next` has to remember.
    memory: usize,
    want: u16,
    next: F,
}

impl<'a, F: FnMut(&mut &'a [u8], &mut usize) -> Item<'a>> Iterator for Counted<'a, F> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.rest.is_empty() {
            let wrong = self.want != MANY && usize::from(self.want) != self.seen;
            self.want = MANY;
            return wrong.then_some(Err(Broken));
        }
        let item = (self.next)(&mut self.rest, &mut self.memory);
        self.seen += 1;
        if item.is_err() {
            (self.rest, self.want) = (&[], MANY);
        }
        Some(item)
    }
}

/// A listpack of these entries.
pub(super) fn wrap(packed: &Packed) -> Vec<u8> {
    let raw = packed.raw();
    let total = raw.len() + LISTPACK_HEADER + 1;
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&u32::try_from(total).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&u16::try_from(packed.len()).unwrap_or(MANY).to_le_bytes());
    out.extend_from_slice(raw);
    out.push(END);
    out
}

const LISTPACK_HEADER: usize = 6;
