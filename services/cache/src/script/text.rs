//! Numbers as C prints and reads them, which is how Lua and its libraries show them.
//!
//! Invariant: neither function fails or panics on any input.

/// `printf("%.{precision}g")`.
pub(super) fn format_g(value: f64, precision: usize) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value.is_nan() {
        return format!("{sign}nan");
    }
    if value.is_infinite() {
        return format!("{sign}inf");
    }
    if value == 0.0 {
        return format!("{sign}0");
    }
    let precision = precision.max(1);
    let scientific = format!("{:.*e}", precision - 1, value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let limit = i32::try_from(precision).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= limit {
        let mantissa = trimmed(mantissa);
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{mark}{:02}", exponent.abs());
    }
    let decimals = usize::try_from(limit - 1 - exponent).unwrap_or(0);
    let fixed = format!("{:.*}", decimals, value.abs());
    format!("{sign}{}", trimmed(&fixed))
}

/// Without the zeros after the point that say nothing.
fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// The number at the front of `text` as `strtod` reads it, without blanks, and how long it is; `None` when there is none.
pub(super) fn read_double(text: &[u8]) -> Option<(f64, usize)> {
    let (negative, start) = match text.first() {
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        _ => (false, 0),
    };
    let rest = text.get(start..)?;
    let (value, len) = magnitude(rest)?;
    Some((if negative { -value } else { value }, start + len))
}

fn magnitude(rest: &[u8]) -> Option<(f64, usize)> {
    let word = |word: &str| {
        rest.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    if word("infinity") {
        return Some((f64::INFINITY, 8));
    }
    if word("inf") {
        return Some((f64::INFINITY, 3));
    }
    if word("nan") {
        return Some((f64::NAN, 3));
    }
    if word("0x")
        && let Some((value, len)) = hexadecimal(rest.get(2..)?)
    {
        return Some((value, len + 2));
    }
    let digits = |from: usize| {
        rest.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut len = whole;
    let mut fraction = 0;
    if rest.get(len) == Some(&b'.') {
        fraction = digits(len + 1);
        if whole + fraction > 0 {
            len += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(rest.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(len + 1), Some(b'+' | b'-')));
        let power = digits(len + 1 + sign);
        if power > 0 {
            len += 1 + sign + power;
        }
    }
    let text = std::str::from_utf8(rest.get(..len)?).ok()?;
    Some((text.parse().ok()?, len))
}

/// Hexadecimal digits after `0x`, with a point and a binary exponent.
fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let mut value = 0.0;
    let mut scale = 1.0;
    let (mut at, mut seen, mut point) = (0, 0, false);
    while let Some(&byte) = text.get(at) {
        match (byte as char).to_digit(16) {
            Some(digit) => {
                value = value * 16.0 + f64::from(digit);
                seen += 1;
                if point {
                    scale /= 16.0;
                }
            }
            None if byte == b'.' && !point => point = true,
            None => break,
        }
        at += 1;
    }
    if seen == 0 {
        return None;
    }
    if matches!(text.get(at), Some(b'p' | b'P')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let from = at + 1 + sign;
        let rest = text.get(from..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if len > 0 {
            let digits = std::str::from_utf8(rest.get(..len)?).ok()?;
            let power = digits.parse().unwrap_or(5000_i32).min(5000);
            let power = if text.get(at + 1) == Some(&b'-') { -power } else { power };
            scale *= 2.0_f64.powi(power);
            at = from + len;
        }
    }
    Some((value * scale, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_by_printf() {
        for (value, precision, text) in [
            (0.1, 17, "0.10000000000000001"),
            (0.1, 14, "0.1"),
            (1e15, 14, "1e+15"),
            (123_456_789_012_345.0, 14, "1.2345678901234e+14"),
            (100_000.0, 14, "100000"),
            (1e-5, 14, "1e-05"),
            (0.0001, 14, "0.0001"),
            (-0.0, 17, "-0"),
            (3.2512, 3, "3.25"),
            (9.99, 1, "1e+01"),
            (f64::NEG_INFINITY, 14, "-inf"),
        ] {
            assert_eq!(format_g(value, precision), text);
        }
    }

    #[test]
    fn numbers_are_read_as_by_strtod() {
        for (text, value) in [
            ("12", Some((12.0, 2))),
            ("-1.5e3x", Some((-1500.0, 6))),
            ("1e", Some((1.0, 1))),
            (".5", Some((0.5, 2))),
            ("5.", Some((5.0, 2))),
            ("0x10", Some((16.0, 4))),
            ("0x1p4", Some((16.0, 5))),
            ("0x", Some((0.0, 1))),
            ("inf", Some((f64::INFINITY, 3))),
            ("-Infinity", Some((f64::NEG_INFINITY, 9))),
            (".", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(read_double(text.as_bytes()), value, "{text}");
        }
    }
}
