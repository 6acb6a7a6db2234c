//! Numbers as memcached reads them: with C's `strtoul` and its relatives, whose peculiarities clients can see.
//!
//! Blanks other than the space may come first; a word may go on behind the number after one; what does not fit 32 bits
//! is cut off; a minus sign is refused only where the result would look negative.

/// A number at the front of some text.
#[derive(Clone, Copy)]
struct Leading {
    negative: bool,
    magnitude: u64,
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

impl Leading {
    /// Reads it; `None` when there is none, when it is beyond 64 bits, or when something but a blank follows it.
    fn of(text: &[u8]) -> Option<Self> {
        let from = text.iter().position(|&byte| !is_blank(byte))?;
        let rest = text.get(from..)?;
        let (negative, rest) = match rest {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, after) = rest.split_at_checked(digits)?;
        if digits.is_empty() || !after.first().is_none_or(|&byte| byte == 0 || is_blank(byte)) {
            return None;
        }
        let mut magnitude: u64 = 0;
        for &digit in digits {
            magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        }
        Some(Self { negative, magnitude })
    }

    /// As `strtoull` gives it.
    const fn wrapped(self) -> u64 {
        if self.negative { self.magnitude.wrapping_neg() } else { self.magnitude }
    }
}

/// An unsigned number of 64 bits (`safe_strtoull`).
#[must_use]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    let value = Leading::of(text)?.wrapped();
    (value >> 63 == 0 || !has_minus(text)).then_some(value)
}

/// One of 32 bits (`safe_strtoul`).
pub(super) fn parse_u32(text: &[u8]) -> Option<u32> {
    u32::try_from(parse_u64(text)? & u64::from(u32::MAX)).ok()
}

/// A signed number of 32 bits (`safe_strtol`).
pub(super) fn parse_i32(text: &[u8]) -> Option<i32> {
    let number = Leading::of(text)?;
    let limit = i64::MAX as u64 + u64::from(number.negative);
    if number.magnitude > limit {
        return None;
    }
    let low = u32::try_from(number.wrapped() & u64::from(u32::MAX)).ok()?;
    Some(low.cast_signed())
}

fn has_minus(text: &[u8]) -> bool {
    text.iter().take_while(|&&byte| byte != 0).any(|&byte| byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, value) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("+7", Some(7)),
            ("\t7", Some(7)),
            ("7\tx", Some(7)),
            ("7x", None),
            ("x", None),
            ("", None),
            ("-", None),
            ("-1", None),
            ("-0", Some(0)),
            ("-18446744073709551615", Some(1)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
        ] {
            assert_eq!(parse_u64(text.as_bytes()), value, "{text:?}");
        }
        assert_eq!(parse_u32(b"4294967297"), Some(1));
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_i32(b"-1"), Some(-1));
        assert_eq!(parse_i32(b"4294967295"), Some(-1));
        assert_eq!(parse_i32(b"2147483648"), Some(i32::MIN));
        assert_eq!(parse_i32(b"9223372036854775808"), None);
        assert_eq!(parse_i32(b"-9223372036854775808"), Some(0));
    }
}
