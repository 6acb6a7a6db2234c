//! LZF, the compression of long strings in dumps.
//!
//! A control byte below 32 is followed by that many bytes and one more; else its top three bits are a length less 2
//! (7: another byte follows, to be added) and the rest, with one more byte, is how far back to copy from, less 1. The
//! compressor makes the choices of the one in Redis, so that what both compress is equal to the byte.
//!
//! Invariants: decompressing never gives more bytes than asked for, and reserves only what it has in hand.
//! Next: `cursor.rs` and `put.rs` for strings.

const LITERAL_MAX: usize = 32;
const OFFSET_MAX: usize = 1 << 13;
const MATCH_MAX: usize = (1 << 8) + (1 << 3);
const TABLE_BITS: u32 = 16;
/// What one compressed byte becomes at most: three bytes copy as many as `MATCH_MAX`.
pub(super) const EXPANSION_MAX: usize = MATCH_MAX / 3 + 1;

/// Exactly `len` bytes out of compressed ones; `None` when they are not that.
#[must_use]
pub fn decompress(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > bytes.len().saturating_mul(EXPANSION_MAX) {
        return None;
    }
    let mut out = Vec::with_capacity(len.min(bytes.len().saturating_mul(2)));
    let mut rest = bytes;
    while let Some((&control, after)) = rest.split_first() {
        let control = usize::from(control);
        if control < LITERAL_MAX {
            let (text, after) = after.split_at_checked(control + 1)?;
            out.extend_from_slice(text);
            rest = after;
        } else {
            let (mut count, mut after) = (control >> 5, after);
            if count == 7 {
                let (&more, behind) = after.split_first()?;
                count += usize::from(more);
                after = behind;
            }
            let (&low, after) = after.split_first()?;
            let back = ((control & 0x1F) << 8 | usize::from(low)) + 1;
            let from = out.len().checked_sub(back)?;
            if out.len() + count + 2 > len {
                return None;
            }
            for at in from..from + count + 2 {
                let byte = *out.get(at)?;
                out.push(byte);
            }
            rest = after;
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

/// What was compressed so far; every step fails when there is no room.
struct Sink {
    out: Vec<u8>,
    /// Most bytes.
    most: usize,
    /// Bytes since the last control byte, which is still to be filled in.
    literals: usize,
}

impl Sink {
    fn begin(&mut self) {
        self.out.push(0);
        self.literals = 0;
    }

    /// Fills in the control byte of a run, and takes it back when the run is empty.
    fn stop(&mut self) {
        match u8::try_from(self.literals) {
            Ok(0) | Err(_) => {
                self.out.pop();
            }
            Ok(count) => {
                let at = self.out.len().saturating_sub(self.literals + 1);
                if let Some(control) = self.out.get_mut(at) {
                    *control = count - 1;
                }
            }
        }
    }

    fn literal(&mut self, byte: u8) {
        self.out.push(byte);
        self.literals += 1;
        if self.literals == LITERAL_MAX {
            self.stop();
            self.begin();
        }
    }

    /// A copy of `len` bytes from `off` + 1 bytes back; whether there was room.
    fn copy(&mut self, len: usize, off: usize) -> bool {
        self.stop();
        if self.out.len() + 4 >= self.most {
            return false;
        }
        let len = len - 2;
        let [low, high, ..] = off.to_le_bytes();
        match u8::try_from(len) {
            Ok(short @ 0..=6) => self.out.push(high + (short << 5)),
            _ => {
                self.out.push(high + (7 << 5));
                self.out.push(u8::try_from(len - 7).unwrap_or(u8::MAX));
            }
        }
        self.out.push(low);
        self.begin();
        true
    }
}

/// Compresses; the table of places is kept from one call to the next.
#[derive(Debug, Default)]
pub struct Compressor {
    /// By the hash of three bytes: `base` and where they were seen last.
    places: Vec<u32>,
    /// What is not above this is of an earlier call.
    base: u32,
}

impl Compressor {
    /// The compressed form, when it has at most `most` bytes.
    #[must_use]
    pub fn compress(&mut self, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
        let len = u32::try_from(bytes.len()).ok().filter(|&len| len >= 4 && most > 0)?;
        self.places.resize(1 << TABLE_BITS, 0);
        if self.base.checked_add(len).is_none() {
            self.places.fill(0);
            self.base = 0;
        }
        let out = self.run(bytes, most);
        self.base += len;
        out
    }

    fn run(&mut self, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
        let out = Vec::with_capacity(most.min(bytes.len()) + 4);
        let mut sink = Sink { out, most, literals: 0 };
        sink.begin();
        let (mut at, last) = (0, bytes.len() - 2);
        while at < last {
            let found = self.swap_place(bytes, at)?.filter(|&from| at - from <= OFFSET_MAX);
            if let Some((from, len)) = found.and_then(|from| Some((from, common(bytes, from, at)?)))
            {
                if !sink.copy(len, at - from - 1) {
                    return None;
                }
                at += len;
                if at >= last {
                    break;
                }
                self.swap_place(bytes, at - 2)?;
                self.swap_place(bytes, at - 1)?;
            } else {
                if sink.out.len() >= most {
                    return None;
                }
                sink.literal(*bytes.get(at)?);
                at += 1;
            }
        }
        if sink.out.len() + 3 > most {
            return None;
        }
        for &byte in bytes.get(at..)? {
            sink.literal(byte);
        }
        sink.stop();
        (sink.out.len() <= most).then_some(sink.out)
    }

    /// Notes where three bytes are, and gives where such bytes were before. The first place counts as none.
    fn swap_place(&mut self, bytes: &[u8], at: usize) -> Option<Option<usize>> {
        let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
        let sum = u32::from_be_bytes([0, a, b, c]);
        let slot = (sum >> (24 - TABLE_BITS)).wrapping_sub(sum.wrapping_mul(5));
        let place = self.places.get_mut((slot & ((1 << TABLE_BITS) - 1)) as usize)?;
        let before = std::mem::replace(place, self.base + u32::try_from(at).ok()?);
        Some(
            before
                .checked_sub(self.base)
                .filter(|&before| before > 0)
                .map(|before| before as usize),
        )
    }
}

/// How many bytes are equal from both places on, counted as the original does; `None` for fewer than three.
fn common(bytes: &[u8], from: usize, at: usize) -> Option<usize> {
    if bytes.get(from..from + 3) != bytes.get(at..at + 3) {
        return None;
    }
    let same = |len: usize| bytes.get(from + len) == bytes.get(at + len) && at + len < bytes.len();
    let most = (bytes.len() - at - 2).min(MATCH_MAX);
    let mut len = 2;
    if most > 16 {
        while len < 18 {
            len += 1;
            if !same(len) {
                return Some(len);
            }
        }
    }
    loop {
        len += 1;
        if len >= most || !same(len) {
            return Some(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compress(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
        Compressor::default().compress(bytes, most)
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        // From DUMP of redis-server 7.0.15 after SET k with 100 times `a`.
        let bytes = [1, b'a', b'a', 0xE0, 0x57, 0, 1, b'a', b'a'];
        assert_eq!(decompress(&bytes, 100), Some(vec![b'a'; 100]));
        assert_eq!(compress(&[b'a'; 100], 96).as_deref(), Some(&bytes[..]));
        for len in [0, 1, 99, 101, 1 << 40, usize::MAX] {
            assert_eq!(decompress(&bytes, len), None, "{len}");
        }
        for end in 0..bytes.len() {
            assert_eq!(decompress(bytes.get(..end).unwrap_or_default(), 100), None, "{end}");
        }
        assert_eq!(decompress(&[0x20, 0], 3), None, "a copy of what is not there");
        assert_eq!(compress(b"abcdefghijklmnopqrstuvwxyz", 22), None);
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            prop::collection::vec(0u8..3, 0..2000),
            (prop::collection::vec(any::<u8>(), 1..40), 1usize..400)
                .prop_map(|(part, n)| part.repeat(n)),
        ]
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(text in text(), most in 0usize..3000) {
            let mut used = Compressor { base: u32::MAX - 900, ..Compressor::default() };
            for _ in 0..3 {
                prop_assert_eq!(used.compress(&text, most), compress(&text, most));
            }
            if let Some(bytes) = compress(&text, most) {
                prop_assert!(bytes.len() <= most);
                prop_assert_eq!(decompress(&bytes, text.len()), Some(text));
            }
        }

        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0usize..5000) {
            if let Some(text) = decompress(&bytes, len) {
                prop_assert_eq!(text.len(), len);
            }
        }
    }
}
