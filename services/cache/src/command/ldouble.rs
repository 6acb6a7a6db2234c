//! INCRBYFLOAT's arithmetic: the 80-bit `long double` of x86-64, on which Redis' replies depend.
//!
//! Values are a sign, a 64-bit mantissa and a power of two; text is read with correct rounding, the
//! sum is rounded to nearest even as the processor does, and the result printed as `%.17Lf` with
//! trailing zeros removed. Exact for every input whose magnitude is not below 2^-16382 (those
//! denormals print as 0 either way). Never hot: clarity over speed.

use std::cmp::Ordering;

/// A finite or infinite `long double`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongDouble {
    negative: bool,
    /// Highest bit set unless the value is zero.
    mantissa: u64,
    /// The value is mantissa × 2^exponent.
    exponent: i32,
    infinite: bool,
}

/// Redis reads no longer text than this.
const MAX_TEXT: usize = 5 * 1024;
/// Two to this power and beyond is infinite.
const MAX_EXPONENT: i32 = 16_384;
/// Below two to this power everything rounds to zero.
const MIN_EXPONENT: i32 = -16_446;

impl LongDouble {
    pub(super) const ZERO: Self =
        Self { negative: false, mantissa: 0, exponent: 0, infinite: false };

    pub(super) const fn is_infinite(&self) -> bool {
        self.infinite
    }

    /// Reads text as Redis does with `strtold`: no blanks around it, no NaN, no overflow.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() >= MAX_TEXT {
            return None;
        }
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let lower = digits.to_ascii_lowercase();
        let magnitude = match lower.as_slice() {
            b"inf" | b"infinity" => Self { infinite: true, ..Self::ZERO },
            [b'0', b'x', rest @ ..] => hexadecimal(rest)?,
            rest => decimal(rest)?,
        };
        Some(Self { negative, ..magnitude })
    }

    /// The sum, rounded; `None` when it is not finite.
    pub(super) fn add(&self, other: &Self) -> Option<Self> {
        if self.infinite || other.infinite {
            return None;
        }
        if self.mantissa == 0 || other.mantissa == 0 {
            return Some(if self.mantissa == 0 { *other } else { *self });
        }
        let base = self.exponent.min(other.exponent);
        let (mut a, mut b) = (Big::from(self.mantissa), Big::from(other.mantissa));
        a.shift_left(self.exponent.abs_diff(base));
        b.shift_left(other.exponent.abs_diff(base));
        let (sum, negative) = if self.negative == other.negative {
            a.add(&b);
            (a, self.negative)
        } else {
            match a.compare(&b) {
                Ordering::Equal => return Some(Self::ZERO),
                Ordering::Greater => {
                    a.subtract(&b);
                    (a, self.negative)
                }
                Ordering::Less => {
                    b.subtract(&a);
                    (b, other.negative)
                }
            }
        };
        let mut value = Self::ratio(sum, Big::from(1))?;
        value.exponent += base;
        value.negative = negative;
        (!value.overflows()).then_some(value)
    }

    /// The value as `%.17Lf` without trailing zeros; `None` when it is infinite.
    pub(super) fn text(&self) -> Option<String> {
        if self.infinite {
            return None;
        }
        // The value times 10^17, rounded to nearest even.
        let mut scaled = Big::from(self.mantissa);
        scaled.multiply(1_000_000_000);
        scaled.multiply(100_000_000);
        match self.exponent {
            up if up >= 0 => scaled.shift_left(up.unsigned_abs()),
            down => scaled.shift_right_rounded(down.unsigned_abs()),
        }
        let mut digits = scaled.decimal();
        while digits.len() < 18 {
            digits.insert(0, '0');
        }
        digits.insert(digits.len() - 17, '.');
        let trimmed = digits.trim_end_matches('0').trim_end_matches('.');
        let sign = if self.negative && trimmed != "0" { "-" } else { "" };
        Some(format!("{sign}{trimmed}"))
    }

    const fn overflows(&self) -> bool {
        self.mantissa != 0 && self.exponent + 63 >= MAX_EXPONENT
    }

    /// The quotient of two positive numbers, rounded to 64 bits; `None` for a zero denominator.
    fn ratio(mut numerator: Big, mut denominator: Big) -> Option<Self> {
        if numerator.is_zero() {
            return Some(Self::ZERO);
        }
        let (top, bottom) = (numerator.bits(), denominator.bits());
        let mut exponent = i32::try_from(top).ok()? - i32::try_from(bottom).ok()?;
        if exponent >= 0 {
            denominator.shift_left(exponent.unsigned_abs());
        } else {
            numerator.shift_left(exponent.unsigned_abs());
        }
        if numerator.compare(&denominator) == Ordering::Less {
            numerator.shift_left(1);
            exponent -= 1;
        }
        let mut mantissa: u64 = 0;
        for _ in 0..64 {
            mantissa <<= 1;
            if numerator.compare(&denominator) != Ordering::Less {
                numerator.subtract(&denominator);
                mantissa |= 1;
            }
            numerator.shift_left(1);
        }
        // What is left, doubled, against one.
        let up = match numerator.compare(&denominator) {
            Ordering::Greater => true,
            Ordering::Equal => mantissa & 1 == 1,
            Ordering::Less => false,
        };
        if up {
            mantissa = mantissa.checked_add(1).unwrap_or_else(|| {
                exponent += 1;
                1 << 63
            });
        }
        Some(Self { negative: false, mantissa, exponent: exponent - 63, infinite: false })
    }

    /// A value that was read: refused when it is out of range.
    fn checked(self) -> Option<Self> {
        let vanishes = self.mantissa != 0 && self.exponent + 63 < MIN_EXPONENT;
        (!self.overflows() && !vanishes).then_some(self)
    }
}

/// The digits before and after the point, and the text of the exponent.
fn split(text: &[u8], marker: u8) -> (&[u8], &[u8], Option<&[u8]>) {
    let (number, exponent) = match text.iter().position(|&byte| byte == marker) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    };
    match number.iter().position(|&byte| byte == b'.') {
        Some(at) => (
            number.get(..at).unwrap_or_default(),
            number.get(at + 1..).unwrap_or_default(),
            exponent,
        ),
        None => (number, &[], exponent),
    }
}

/// A decimal exponent, clamped far beyond the range of the type.
fn exponent(text: Option<&[u8]>) -> Option<i64> {
    let Some(text) = text else { return Some(0) };
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1_000_000));
    Some(if negative { -value } else { value })
}

fn decimal(text: &[u8]) -> Option<LongDouble> {
    let (whole, part, power) = split(text, b'e');
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut digits = Big::from(0);
    let mut significant: i64 = 0;
    for &byte in whole.iter().chain(part) {
        if !byte.is_ascii_digit() {
            return None;
        }
        digits.multiply(10);
        digits.add(&Big::from(u64::from(byte - b'0')));
        significant += i64::from(significant > 0 || byte != b'0');
    }
    let power = exponent(power)? - i64::try_from(part.len()).ok()?;
    if digits.is_zero() {
        return Some(LongDouble::ZERO);
    }
    // Out of range whatever the digits are: before a huge power is formed.
    if !(-4_970..=4_935).contains(&(power + significant)) {
        return None;
    }
    let mut scale = Big::from(1);
    for _ in 0..power.unsigned_abs() {
        scale.multiply(10);
    }
    let value = if power >= 0 {
        digits.multiply_big(&scale);
        LongDouble::ratio(digits, Big::from(1))
    } else {
        LongDouble::ratio(digits, scale)
    };
    value?.checked()
}

fn hexadecimal(text: &[u8]) -> Option<LongDouble> {
    let (whole, part, power) = split(text, b'p');
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut digits = Big::from(0);
    for &byte in whole.iter().chain(part) {
        let digit = char::from(byte).to_digit(16)?;
        digits.multiply(16);
        digits.add(&Big::from(u64::from(digit)));
    }
    if digits.is_zero() {
        return exponent(power).map(|_| LongDouble::ZERO);
    }
    let power = exponent(power)? - 4 * i64::try_from(part.len()).ok()?;
    let mut value = LongDouble::ratio(digits, Big::from(1))?;
    value.exponent = value.exponent.checked_add(i32::try_from(power).ok()?)?;
    value.checked()
}

/// A natural number, least significant word first, without leading zero words.
#[derive(Clone, Debug)]
struct Big(Vec<u32>);

impl From<u64> for Big {
    fn from(value: u64) -> Self {
        let mut big = Self(vec![value as u32, (value >> 32) as u32]);
        big.trim();
        big
    }
}

impl Big {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    const fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> u32 {
        match self.0.last() {
            Some(top) => {
                let words = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
                words * 32 - top.leading_zeros()
            }
            None => 0,
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut carry = 0;
        let theirs = other.0.iter().copied().chain(std::iter::repeat(0));
        for (mine, theirs) in self.0.iter_mut().zip(theirs) {
            let sum = u64::from(*mine) + u64::from(theirs) + carry;
            *mine = sum as u32;
            carry = sum >> 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// Takes away a number that is not larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        let theirs = other.0.iter().copied().chain(std::iter::repeat(0));
        for (mine, theirs) in self.0.iter_mut().zip(theirs) {
            let (once, first) = mine.overflowing_sub(theirs);
            let (twice, second) = once.overflowing_sub(borrow.into());
            *mine = twice;
            borrow = first || second;
        }
        self.trim();
    }

    fn multiply(&mut self, factor: u32) {
        let mut carry = 0;
        for word in &mut self.0 {
            let product = u64::from(*word) * u64::from(factor) + carry;
            *word = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_big(&mut self, other: &Self) {
        let mut product = Self(Vec::new());
        for word in other.0.iter().rev() {
            product.shift_left(32);
            let mut row = self.clone();
            row.multiply(*word);
            row.trim();
            product.add(&row);
        }
        *self = product;
    }

    fn shift_left(&mut self, bits: u32) {
        if self.is_zero() {
            return;
        }
        let (words, bits) = ((bits / 32) as usize, bits % 32);
        if bits > 0 {
            self.multiply(1 << bits);
        }
        self.0.splice(0..0, std::iter::repeat_n(0, words));
    }

    /// Divides by a power of two, rounding to nearest even.
    fn shift_right_rounded(&mut self, bits: u32) {
        if bits == 0 {
            return;
        }
        let bit =
            |at: u32| self.0.get((at / 32) as usize).is_some_and(|word| word >> (at % 32) & 1 == 1);
        let half = bit(bits - 1);
        let below = (0..bits - 1).any(bit);
        let odd = bit(bits);
        let words = ((bits / 32) as usize).min(self.0.len());
        self.0.drain(..words);
        let down = bits % 32;
        let mut carry = 0;
        for word in self.0.iter_mut().rev() {
            let wide = u64::from(*word) | carry << 32;
            carry = u64::from(*word) & ((1 << down) - 1);
            *word = (wide >> down) as u32;
        }
        self.trim();
        if half && (below || odd) {
            self.add(&Self::from(1));
        }
    }

    fn decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0_u64;
            for word in self.0.iter_mut().rev() {
                let wide = rest << 32 | u64::from(*word);
                *word = (wide / 1_000_000_000) as u32;
                rest = wide % 1_000_000_000;
            }
            self.trim();
            groups.push(rest);
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        LongDouble::parse(a.as_bytes())?.add(&LongDouble::parse(b.as_bytes())?)?.text()
    }

    #[test]
    fn sums_print_as_redis_prints_them() {
        for (a, b, text) in [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0", "1.1", "1.1"),
            ("3", "-1.5", "1.5"),
            ("1.1", "-1.1", "0"),
            ("0.1", "0.2", "0.3"),
            ("1e17", "1", "100000000000000001"),
            ("1", "1e-20", "1"),
            ("0", "-0.00000000000000000001", "0"),
            ("0", "0x1p-3", "0.125"),
            ("0", "1e20", "100000000000000000000"),
            ("-1", "0.5", "-0.5"),
            ("0", ".5", "0.5"),
            ("0", "5.", "5"),
            // 64 bits of mantissa show in the last places.
            ("17179869184", "1.5", "17179869185.5"),
            ("123456789012345678", "0.3", "123456789012345678.296875"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(text), "{a} + {b}");
        }
    }

    #[test]
    fn what_is_not_a_float_is_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "a",
            "1a",
            "1e",
            "1e+",
            "nan",
            "-nan",
            ".",
            "-",
            "1.2.3",
            "1e5000",
            "1e-6000",
            "0x",
            "--1",
            "1e99999999999999",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert!(LongDouble::parse(b"inf").is_some());
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e4932", "1e4932"), None);
    }

    #[test]
    fn long_numbers_survive() {
        let text = "1".repeat(300);
        let value = LongDouble::parse(text.as_bytes()).and_then(|value| value.text());
        assert!(value.is_some_and(|value| value.len() == 300 && value.starts_with("1111111111")));
    }
}
