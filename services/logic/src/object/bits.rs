//! Bits of a string: counting, searching, combining, and integer fields at any offset.
//!
//! Bit 0 is the highest bit of the first byte, as in Redis; what lies beyond a string's end reads as
//! zero. Ranges and their corner cases are those of redis-server 7.0.15's BITCOUNT and BITPOS.
//! Growing a string is the caller's part: a write returns what it needs before it is made.
//! Next: [`Field`] is BITFIELD's integer.

/// What the bounds of a range count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Byte,
    /// Bits.
    Bit,
}

/// Bits of a range with both bounds inside, negative ones from the end; `None` when it is empty.
fn bit_range(len: usize, start: i64, end: i64, unit: Unit) -> Option<(u64, u64)> {
    // A string's length in bits fits: allocations are below 2^63 bytes, and ours below 2^40.
    let bits = i64::try_from(len).ok()?.checked_mul(8)?;
    let total = if unit == Unit::Bit { bits } else { bits / 8 };
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let from_end = |at: i64| if at < 0 { total.saturating_add(at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    if start > end {
        return None;
    }
    let (start, end) = (start.unsigned_abs(), end.unsigned_abs());
    Some(match unit {
        Unit::Bit => (start, end),
        Unit::Byte => (start * 8, end * 8 + 7),
    })
}

/// The bytes that hold bits `first` to `last`, with the bits of the edges that are not asked for:
/// those before the first in the first byte, and those after the last in the last one.
fn covering(bytes: &[u8], first: u64, last: u64) -> (&[u8], u8, u8) {
    let from = usize::try_from(first / 8).unwrap_or(usize::MAX);
    let to = usize::try_from(last / 8).unwrap_or(usize::MAX).min(bytes.len().saturating_sub(1));
    let before = !(u8::MAX >> (first % 8));
    let after = (0x7F_u8 >> (last % 8)) & 0x7F;
    (bytes.get(from..=to).unwrap_or_default(), before, after)
}

fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let whole: u64 =
        words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    whole + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// Bits that are set, of all or of a range with both bounds inside.
#[must_use]
pub fn count(bytes: &[u8], range: Option<(i64, i64, Unit)>) -> u64 {
    let Some((start, end, unit)) = range else { return ones(bytes) };
    let Some((first, last)) = bit_range(bytes.len(), start, end, unit) else { return 0 };
    let (covered, before, after) = covering(bytes, first, last);
    let edges = covered.first().map_or(0, |byte| (byte & before).count_ones())
        + covered.last().map_or(0, |byte| (byte & after).count_ones());
    ones(covered) - u64::from(edges)
}

/// The first bit of this value, `None` for Redis' -1.
///
/// Without an `end`, a string of ones is followed by zeros: then the position may be the string's
/// length. A key that does not exist is not an empty string: BITPOS gives 0 for the zero bit there.
#[must_use]
pub fn position(bytes: &[u8], bit: bool, start: i64, end: Option<(i64, Unit)>) -> Option<u64> {
    let (stop, unit) = end.unwrap_or((-1, Unit::Byte));
    // Unlike BITCOUNT's, negative bounds in the wrong order are clamped first.
    let total = i64::try_from(bytes.len()).ok()? * if unit == Unit::Bit { 8 } else { 1 };
    let at_least = |at: i64| if at < 0 { total.saturating_add(at).max(0) } else { at };
    let (first, last) = bit_range(bytes.len(), at_least(start), at_least(stop), unit)?;
    let (covered, before, after) = covering(bytes, first, last);
    let skip = if bit { 0 } else { u8::MAX };
    let base = first / 8 * 8;
    let ends = covered.len().saturating_sub(1);
    let found = covered.iter().enumerate().position(|(at, &byte)| {
        hides_nothing(byte, bit, at == 0, at == ends, before, after) != skip
    });
    if let Some(at) = found {
        let byte = covered.get(at).copied()?;
        let seen = hides_nothing(byte, bit, at == 0, at == ends, before, after);
        let within = if bit { seen.leading_zeros() } else { seen.leading_ones() };
        return Some(base + at as u64 * 8 + u64::from(within));
    }
    (end.is_none() && !bit).then_some(base + covered.len() as u64 * 8)
}

/// A byte in which bits outside the range look as if they were not what is searched.
#[inline]
fn hides_nothing(byte: u8, bit: bool, is_first: bool, is_last: bool, before: u8, after: u8) -> u8 {
    let mask = if is_first { before } else { 0 } | if is_last { after } else { 0 };
    if bit { byte & !mask } else { byte | mask }
}

/// How strings are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitOp {
    /// Bits that are set in all.
    And,
    /// Bits that are set in any.
    Or,
    /// Bits that are set in an odd number.
    Xor,
    /// Bits that are not set in the first; others are not looked at.
    Not,
}

/// Strings combined bit by bit, shorter ones filled with zeros to the length of the longest.
#[must_use]
pub fn combine(op: BitOp, inputs: &[&[u8]]) -> Vec<u8> {
    let Some((&first, others)) = inputs.split_first() else { return Vec::new() };
    if op == BitOp::Not {
        return first.iter().map(|byte| !byte).collect();
    }
    let longest = inputs.iter().map(|input| input.len()).max().unwrap_or(0);
    let mut out = Vec::with_capacity(longest);
    out.extend_from_slice(first);
    out.resize(longest, 0);
    for &other in others {
        let (common, beyond) = out.split_at_mut_checked(other.len()).unwrap_or_default();
        let pairs = common.iter_mut().zip(other);
        match op {
            BitOp::And => {
                pairs.for_each(|(byte, other)| *byte &= other);
                beyond.fill(0);
            }
            BitOp::Or => pairs.for_each(|(byte, other)| *byte |= other),
            BitOp::Xor | BitOp::Not => pairs.for_each(|(byte, other)| *byte ^= other),
        }
    }
    out
}

/// The bit at an offset.
#[must_use]
pub fn get_bit(bytes: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset / 8).ok().and_then(|at| bytes.get(at)).copied().unwrap_or(0);
    byte & (0x80 >> (offset % 8)) != 0
}

/// Bytes a string must have for a write that ends with the bit before this one.
#[must_use]
pub const fn bytes_for(end_bit: u64) -> u64 {
    end_bit.div_ceil(8)
}

/// Sets the bit at an offset and returns what it was; nothing happens beyond the end.
pub fn set_bit(bytes: &mut [u8], offset: u64, bit: bool) -> bool {
    let Some(byte) = usize::try_from(offset / 8).ok().and_then(|at| bytes.get_mut(at)) else {
        return false;
    };
    let mask = 0x80 >> (offset % 8);
    let before = *byte & mask != 0;
    *byte = if bit { *byte | mask } else { *byte & !mask };
    before
}

/// What happens to a value that does not fit its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Its low bits are kept.
    #[default]
    Wrap,
    /// It becomes the nearest value that fits.
    Saturate,
    /// Nothing is written.
    Fail,
}

/// An integer type of BITFIELD: `i1` to `i64`, `u1` to `u63`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    signed: bool,
    bits: u32,
}

impl Field {
    /// A type of so many bits; `None` outside of what Redis has.
    #[must_use]
    pub const fn new(signed: bool, bits: u32) -> Option<Self> {
        let most = if signed { 64 } else { 63 };
        if bits == 0 || bits > most { None } else { Some(Self { signed, bits }) }
    }

    /// Reads `i8`, `u63` and so on.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (signed, digits) = match text {
            [b'i', digits @ ..] => (true, digits),
            [b'u', digits @ ..] => (false, digits),
            _ => return None,
        };
        Self::new(signed, u32::try_from(parse_number(digits)?).ok()?)
    }

    /// Reads an offset, in bits or, after `#`, in fields of this type; `None` when it is no number, or
    /// does not lie in the first `max_bytes` bytes.
    #[must_use]
    pub fn parse_offset(self, text: &[u8], max_bytes: u64) -> Option<u64> {
        let (scale, digits) = match text {
            [b'#', digits @ ..] => (u64::from(self.bits), digits),
            digits => (1, digits),
        };
        let offset = parse_number(digits)?.checked_mul(scale)?;
        (offset / 8 < max_bytes).then_some(offset)
    }

    /// Bits of the type.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.bits as u64
    }

    /// Smallest and largest value.
    const fn limits(self) -> (i128, i128) {
        if self.signed {
            let half = 1_i128 << (self.bits - 1);
            (-half, half - 1)
        } else {
            (0, (1_i128 << self.bits) - 1)
        }
    }

    /// The low bits of a value, read as this type.
    fn wrap(self, value: i128) -> i64 {
        let shift = 128 - self.bits;
        let up = value << shift;
        let back =
            if self.signed { up >> shift } else { (up.cast_unsigned() >> shift).cast_signed() };
        i64::try_from(back).unwrap_or(0)
    }

    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (least, most) = self.limits();
        let kept = match overflow {
            _ if (least..=most).contains(&value) => value,
            Overflow::Wrap => return Some(self.wrap(value)),
            Overflow::Saturate => value.clamp(least, most),
            Overflow::Fail => return None,
        };
        i64::try_from(kept).ok()
    }

    /// The value at a bit offset.
    #[must_use]
    pub fn get(self, bytes: &[u8], offset: u64) -> i64 {
        let from = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let mut window = [0_u8; 16];
        let held = bytes.get(from..).unwrap_or_default();
        for (place, &byte) in window.iter_mut().zip(held.iter().take(9)) {
            *place = byte;
        }
        let aligned = u128::from_be_bytes(window) << (offset % 8);
        self.wrap((aligned >> (128 - self.bits)).cast_signed())
    }

    fn put(self, bytes: &mut [u8], offset: u64, value: i64) {
        let from = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let shift = 128 - self.bits - u32::try_from(offset % 8).unwrap_or(0);
        let low = (1_u128 << self.bits) - 1;
        let value = ((i128::from(value).cast_unsigned() & low) << shift).to_be_bytes();
        let mask = (low << shift).to_be_bytes();
        let held = bytes.get_mut(from..).unwrap_or_default();
        for ((byte, mask), value) in held.iter_mut().zip(mask).zip(value).take(9) {
            *byte = (*byte & !mask) | value;
        }
    }

    /// Writes a value; returns the one before, or `None` when it does not fit and that fails.
    /// The string must reach to [`bytes_for`] the field's end.
    pub fn set(self, bytes: &mut [u8], offset: u64, value: i64, on: Overflow) -> Option<i64> {
        // A negative value for an unsigned field is one that is too large.
        let wide = if self.signed { i128::from(value) } else { i128::from(value.cast_unsigned()) };
        let fitting = self.fit(wide, on)?;
        let before = self.get(bytes, offset);
        self.put(bytes, offset, fitting);
        Some(before)
    }

    /// Adds to a value; returns the new one, or `None` when it does not fit and that fails.
    pub fn increment(self, bytes: &mut [u8], offset: u64, by: i64, on: Overflow) -> Option<i64> {
        let sum = i128::from(self.get(bytes, offset)) + i128::from(by);
        let fitting = self.fit(sum, on)?;
        self.put(bytes, offset, fitting);
        Some(fitting)
    }
}

/// A decimal number without sign or leading zeros.
fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests;
