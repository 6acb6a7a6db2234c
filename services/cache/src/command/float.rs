//! Doubles in arguments, read as C's `strtod` reads them.
//!
//! [`parse`] is for scores and weights, [`bound`] for the ends of ranges, [`number`] for SORT; they differ in what they
//! take beside a number, as they do in Redis. Invariant: none gives NaN.

use logic::object::zset::ScoreBound;

/// A double and whether its text is beyond what a double can say.
struct Read {
    value: f64,
    overflow: bool,
    underflow: bool,
}

/// A score: nothing around the number, and one that a double can hold.
pub(super) fn parse(text: &[u8]) -> Option<f64> {
    let read = read(text)?;
    let vanished = read.underflow && read.value == 0.0;
    (!read.overflow && !vanished).then_some(read.value)
}

/// The end of a range of scores: `1.5`, `(1.5`, `-inf`; no text at all is 0.
pub(super) fn bound(text: &[u8]) -> Option<ScoreBound> {
    match text {
        [b'(', rest @ ..] => lenient(rest).map(|read| ScoreBound::Exclusive(read.value)),
        rest => lenient(rest).map(|read| ScoreBound::Inclusive(read.value)),
    }
}

/// What SORT compares by.
pub(super) fn number(text: &[u8]) -> Option<f64> {
    let read = lenient(text)?;
    (!read.overflow && !read.underflow).then_some(read.value)
}

/// As `strtod` with nothing but its end checked: blanks in front, and text that ends at a NUL.
fn lenient(text: &[u8]) -> Option<Read> {
    let text = super::dispatch::c_string(text, usize::MAX);
    if text.is_empty() {
        return Some(Read { value: 0.0, overflow: false, underflow: false });
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_blank(byte))?;
    read(text.get(start..)?)
}

fn read(text: &[u8]) -> Option<Read> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1.0, rest),
        [b'+', rest @ ..] => (1.0, rest),
        rest => (1.0, rest),
    };
    if matches!(digits.first(), Some(b'-' | b'+')) {
        return None;
    }
    if let [b'0', b'x' | b'X', rest @ ..] = digits {
        let value = hexadecimal(rest)?;
        return Some(Read { value: value * sign, overflow: value.is_infinite(), underflow: false });
    }
    let value: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    if value.is_nan() {
        return None;
    }
    let named = matches!(digits.first(), Some(b'i' | b'I'));
    let mantissa = digits.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
    let is_zero = !mantissa.iter().any(|byte| matches!(byte, b'1'..=b'9'));
    Some(Read {
        value: value * sign,
        overflow: value.is_infinite() && !named,
        underflow: value < f64::MIN_POSITIVE && !is_zero,
    })
}

/// What follows `0x`: hexadecimal digits with a point and a binary exponent.
fn hexadecimal(text: &[u8]) -> Option<f64> {
    let mut parts = text.splitn(2, |byte| matches!(byte, b'p' | b'P'));
    let (digits, power) = (parts.next()?, parts.next());
    let mut exponent: i32 = match power {
        Some(power) => {
            let power: i64 = std::str::from_utf8(power).ok()?.parse().ok()?;
            i32::try_from(power.clamp(-100_000, 100_000)).ok()?
        }
        None => 0,
    };
    let (mut mantissa, mut seen, mut behind_point) = (0_u64, false, false);
    for &byte in digits {
        if byte == b'.' && !behind_point {
            behind_point = true;
            continue;
        }
        let digit = u64::from(char::from(byte).to_digit(16)?);
        seen = true;
        if mantissa >> 59 == 0 {
            mantissa = mantissa << 4 | digit;
            exponent -= if behind_point { 4 } else { 0 };
        } else {
            // Too many for the mantissa: what is lost still decides a tie.
            mantissa |= u64::from(digit != 0);
            exponent += if behind_point { 0 } else { 4 };
        }
    }
    // Two steps, since the power alone may be beyond a double where the product is not.
    let half = exponent / 2;
    seen.then(|| mantissa as f64 * 2_f64.powi(half) * 2_f64.powi(exponent - half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_what_strtod_takes_whole() {
        for (text, value) in [
            ("1", 1.0),
            ("+1.5", 1.5),
            ("-0", -0.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("0x1.8p1", 3.0),
            ("-0xA", -10.0),
            ("1e-310", 1e-310),
        ] {
            assert_eq!(parse(text.as_bytes()).map(f64::to_bits), Some(value.to_bits()), "{text}");
        }
        for text in ["", " 1", "1 ", "nan", "1e400", "1e-400", "--1", "+-1", "0x", "1e", ".", "abc"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn bounds_and_sorted_numbers_take_more() {
        assert_eq!(bound(b"(1.5"), Some(ScoreBound::Exclusive(1.5)));
        assert_eq!(bound(b""), Some(ScoreBound::Inclusive(0.0)));
        assert_eq!(bound(b"("), Some(ScoreBound::Exclusive(0.0)));
        assert_eq!(bound(b" 1"), Some(ScoreBound::Inclusive(1.0)));
        assert_eq!(bound(b"1e400"), Some(ScoreBound::Inclusive(f64::INFINITY)));
        assert_eq!(bound(b"nan"), None);
        assert_eq!(number(b" 2"), Some(2.0));
        assert_eq!(number(b"1e-310"), None);
        assert_eq!(number(b"2 "), None);
    }
}
