//! What the commands of collections have in common: an element as a reply, the options of SSCAN and its kin, and how
//! many elements are picked by chance.
//!
//! Next: `hash/many.rs` and `set.rs` use it.

use logic::object::packed::{Digits, Entry};
use wire::resp::{parse_i64, reply};

use super::{
    Cx, Fault,
    collection::Words,
    keyspace::{self, SCAN_COUNT, SCAN_COUNT_MAX},
};

/// The most elements a command with a negative count may ask for: Redis would go on until memory is full.
pub(super) const MAX_PICKS: u64 = 1 << 20;
/// The most bytes of elements such a command gives: one long element picked often would be all of memory.
const MAX_PICKED_BYTES: usize = if cfg!(any(test, fuzzing)) { 16 << 20 } else { 512 << 20 };

/// An element.
#[inline]
pub(super) fn reply_entry(out: &mut Vec<u8>, entry: Entry<'_>) {
    match entry {
        Entry::Int(value) => reply::bulk_integer(out, value),
        Entry::Str(text) => reply::bulk(out, text),
    }
}

/// The cursor at argument 2.
pub(super) fn scan_cursor(cx: &Cx<'_>) -> Result<u64, Fault> {
    keyspace::cursor(cx.arg(2)).ok_or(Fault::text("ERR invalid cursor"))
}

/// The options of a scan of one collection.
pub(super) struct Scan<'a> {
    pub(super) count: usize,
    pattern: Option<&'a [u8]>,
}

impl<'a> Scan<'a> {
    /// Those from argument 3 on. Redis looks at them after it has found the collection.
    pub(super) fn options(words: Words<'a>, argc: usize) -> Result<Self, Fault> {
        let (mut count, mut pattern) = (SCAN_COUNT, None);
        for at in (3..argc).step_by(2) {
            let is = |word: &str| words.get(at).eq_ignore_ascii_case(word.as_bytes());
            if at + 1 >= argc {
                return Err(Fault::SYNTAX);
            } else if is("COUNT") {
                count = parse_i64(words.get(at + 1)).ok_or(Fault::NOT_INTEGER)?;
                if count < 1 {
                    return Err(Fault::SYNTAX);
                }
            } else if is("MATCH") {
                pattern = Some(words.get(at + 1)).filter(|pattern| *pattern != b"*");
            } else {
                return Err(Fault::SYNTAX);
            }
        }
        let count = usize::try_from(count).unwrap_or(SCAN_COUNT_MAX).min(SCAN_COUNT_MAX);
        Ok(Self { count, pattern })
    }

    /// Whether an element is asked for.
    pub(super) fn wants(&self, entry: Entry<'_>) -> bool {
        let matches =
            |pattern| logic::glob::matches(pattern, entry.text(&mut Digits::new()), false);
        self.pattern.is_none_or(matches)
    }
}

/// The reply of a scan: the next cursor, and an array whose `count` elements are written already.
pub(super) fn reply_scan(out: &mut Vec<u8>, cursor: u64, count: usize, elements: &[u8]) {
    reply::array(out, 2);
    reply::bulk(out, cursor.to_string().as_bytes());
    reply::array(out, count);
    out.extend_from_slice(elements);
}

/// The count at argument 2 of HRANDFIELD and SRANDMEMBER: how many, and whether none may come twice.
pub(super) fn random_count(cx: &Cx<'_>) -> Result<i64, Fault> {
    match cx.integer(2)? {
        i64::MIN => Err(Fault::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        count => Ok(count),
    }
}

/// A count as what is to be picked: how many, and whether none may come twice.
pub(super) fn picks(count: i64) -> Result<(usize, bool), Fault> {
    let (many, distinct) = (count.unsigned_abs(), count >= 0);
    if !distinct && many > MAX_PICKS {
        return Err(Fault::text("ERR value is out of range"));
    }
    Ok((usize::try_from(many).unwrap_or(usize::MAX), distinct))
}

/// Whether there is room for another element behind so many bytes of picked ones.
pub(super) const fn has_room(picked_bytes: usize) -> bool {
    picked_bytes <= MAX_PICKED_BYTES
}

/// Refuses picked elements of too many bytes, which [`has_room`] has cut short.
pub(super) fn check_room(picked_bytes: usize) -> Result<(), Fault> {
    if has_room(picked_bytes) {
        return Ok(());
    }
    Err(Fault::text("ERR value is out of range: the elements are too long to be given so often"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_end_at_the_bound() {
        let most = i64::try_from(MAX_PICKS).expect("small");
        assert_eq!(picks(0), Ok((0, true)));
        assert_eq!(picks(i64::MAX).map(|(_, distinct)| distinct), Ok(true));
        assert_eq!(picks(-most), Ok((1 << 20, false)));
        assert_eq!(picks(-most - 1), Err(Fault::text("ERR value is out of range")));
        assert!(picks(i64::MIN).is_err());
    }
}
