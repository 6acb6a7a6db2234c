//! Header blocks of HTTP/2 (RFC 7541), as much of them as a load generator needs: requests are
//! written without a table, and of a reply the status is read.
//!
//! Why no more: our SETTINGS allow a dynamic table of no bytes, so no block depends on another, and
//! every index is one of the static table. Of Huffman's code the digits are needed, and one name.
//! Invariants: a block is walked to its end, so one that is not well formed is never right; nothing
//! is allocated. Next: `http2`.

use super::Lost;

/// Last index of the static table.
const STATIC_LAST: usize = 61;
/// `:status` with the values of entries 8 to 14.
const STATUS_FIRST: usize = 8;
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
/// `:status` in Huffman's code.
const STATUS_CODED: &[u8] = &[0xb8, 0x84, 0x8d, 0x36, 0xa3];
/// Largest number in a block.
const NUMBER_MAX: usize = 1 << 24;

/// Appends a number after the `prefix` bits that `first` leaves (section 5.1).
fn put_number(first: u8, prefix: u32, number: usize, to: &mut Vec<u8>) {
    let most = (1_usize << prefix) - 1;
    if number < most {
        to.push(first | u8::try_from(number).unwrap_or(0));
        return;
    }
    to.push(first | u8::try_from(most).unwrap_or(0));
    let mut rest = number - most;
    while rest >= 128 {
        to.push(u8::try_from(rest % 128).unwrap_or(0) | 128);
        rest /= 128;
    }
    to.push(u8::try_from(rest).unwrap_or(0));
}

/// Appends entry `index` of the static table.
pub(super) fn put_indexed(index: usize, to: &mut Vec<u8>) {
    put_number(0x80, 7, index, to);
}

/// Appends a field with the name of entry `index`, to be remembered by nobody.
pub(super) fn put_literal(index: usize, value: &[u8], to: &mut Vec<u8>) {
    put_number(0, 4, index, to);
    put_number(0, 7, value.len(), to);
    to.extend_from_slice(value);
}

struct Block<'a> {
    rest: &'a [u8],
}

impl<'a> Block<'a> {
    fn number(&mut self, prefix: u32) -> Option<usize> {
        let (&first, mut rest) = self.rest.split_first()?;
        let most = (1_usize << prefix) - 1;
        let mut number = usize::from(first) & most;
        if number == most {
            for shift in (0..28).step_by(7) {
                let (&byte, after) = rest.split_first()?;
                rest = after;
                number += usize::from(byte & 127) << shift;
                if byte < 128 {
                    self.rest = rest;
                    return (number <= NUMBER_MAX).then_some(number);
                }
            }
            return None;
        }
        self.rest = rest;
        Some(number)
    }

    /// A string, and whether it is in Huffman's code.
    fn string(&mut self) -> Option<(bool, &'a [u8])> {
        let coded = self.rest.first()? & 0x80 != 0;
        let len = self.number(7)?;
        let (text, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some((coded, text))
    }

    /// One field or change of the table's size: the status, when it is that.
    fn field(&mut self) -> Option<Option<u16>> {
        let first = *self.rest.first()?;
        if first & 0x80 != 0 {
            let index = self.number(7)?;
            let status = index.checked_sub(STATUS_FIRST).and_then(|at| STATUSES.get(at));
            return (1..=STATIC_LAST).contains(&index).then_some(status.copied());
        }
        if first & 0xe0 == 0x20 {
            // The table we allow has no bytes.
            return (self.number(5)? == 0).then_some(None);
        }
        let index = self.number(if first & 0x40 != 0 { 6 } else { 4 })?;
        let is_status = match index {
            0 => match self.string()? {
                (false, name) => name == b":status",
                (true, name) => name == STATUS_CODED,
            },
            1..=STATIC_LAST => (STATUS_FIRST..STATUS_FIRST + STATUSES.len()).contains(&index),
            _ => return None,
        };
        let (coded, value) = self.string()?;
        if !is_status {
            return Some(None);
        }
        Some(Some(if coded { decoded(value)? } else { digits(value.try_into().ok()?)? }))
    }
}

fn digits(text: [u8; 3]) -> Option<u16> {
    text.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0'))
    })
}

/// Three digits in Huffman's code (appendix B): 0 to 2 in five bits, 3 to 9 in six.
fn decoded(coded: &[u8]) -> Option<u16> {
    if coded.len() > 3 {
        return None;
    }
    let mut bits = 0_u32;
    for &byte in coded {
        bits = bits << 8 | u32::from(byte);
    }
    let mut left = 8 * u32::try_from(coded.len()).ok()?;
    let mut status = 0;
    for _ in 0..3 {
        let five = bits >> left.checked_sub(5)? & 31;
        let digit = if five < 3 {
            left -= 5;
            five
        } else {
            left = left.checked_sub(6)?;
            let digit = (bits >> left & 63).checked_sub(0b01_1001)? + 3;
            if digit > 9 {
                return None;
            }
            digit
        };
        status = status * 10 + u16::try_from(digit).ok()?;
    }
    // Filled up with ones, less than a byte.
    let fill = (1 << left) - 1;
    (left < 8 && bits & fill == fill).then_some(status)
}

/// The status in a header block; none where there is none, as in a trailer.
pub(super) fn status(block: &[u8]) -> Result<Option<u16>, Lost> {
    let mut block = Block { rest: block };
    let mut status = None;
    while !block.rest.is_empty() {
        let field =
            block.field().ok_or_else(|| Lost("a header block that cannot be read".to_owned()))?;
        status = status.or(field);
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        // Appendix C.1: 10 and 1337 after five bits, 42 after eight.
        let mut bytes = Vec::new();
        put_number(0, 5, 10, &mut bytes);
        put_number(0, 5, 1337, &mut bytes);
        put_number(0, 7, 42, &mut bytes);
        assert_eq!(bytes, [0x0a, 0x1f, 0x9a, 0x0a, 0x2a]);
        let mut block = Block { rest: &bytes };
        assert_eq!(
            [block.number(5), block.number(5), block.number(7)],
            [Some(10), Some(1337), Some(42)]
        );
        assert_eq!(Block { rest: &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f] }.number(5), None);
        assert_eq!(Block { rest: &[0x1f, 0x80] }.number(5), None);
    }

    #[test]
    fn the_status_is_found_however_it_is_written() {
        let found: [(&[u8], u16); 7] = [
            (&[0x88], 200),
            (&[0x20, 0x8e], 500),
            // Appendix C.6.1 and C.6.2: 302 and 307 in Huffman's code, remembered.
            (&[0x48, 0x82, 0x64, 0x02], 302),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], 307),
            (b"\x08\x03201", 201),
            (b"\x00\x07:status\x03503", 503),
            (&[0x10, 0x85, 0xb8, 0x84, 0x8d, 0x36, 0xa3, 0x82, 0x10, 0x01], 200),
        ];
        for (block, expected) in found {
            assert_eq!(status(block), Ok(Some(expected)), "{block:x?}");
        }
        assert_eq!(status(b"\x0f\x0d\x0210"), Ok(None), "a content-length alone");
        assert_eq!(status(&[]), Ok(None));
    }

    #[test]
    fn blocks_that_are_not_well_formed_are_refused() {
        let refused: [&[u8]; 8] = [
            &[0x80],
            &[0xbe],
            &[0x88, 0x40],
            &[0x3f, 0x01],
            b"\x08\x0320",
            b"\x08\x0412345",
            &[0x48, 0x82, 0x10, 0x00],
            &[0x48, 0x84, 0xff, 0xff, 0xff, 0xff],
        ];
        for block in refused {
            assert!(status(block).is_err(), "{block:x?}");
        }
    }
}
