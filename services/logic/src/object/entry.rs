//! One entry of a packed sequence: what it means, and its bytes.
//!
//! The form is listpack's: a head byte (and up to eight more) that says what follows, the data, and the length of both
//! in one to five bytes of seven bits each, read from behind. An integer takes the shortest head that holds it.
//! Next: `packed.rs` keeps entries in one allocation.

/// Longest head: a byte and a 64-bit integer.
const HEAD_MAX: usize = 9;

/// A short byte string, as an integer where it is the canonical decimal text of one and somebody has noticed. Two are
/// equal when their texts are.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// The canonical decimal text of this integer.
    Int(i64),
    /// These bytes.
    Str(&'a [u8]),
}

impl<'b> PartialEq<Entry<'b>> for Entry<'_> {
    fn eq(&self, other: &Entry<'b>) -> bool {
        match (*self, *other) {
            (Self::Int(a), Entry::Int(b)) => a == b,
            (Self::Str(a), Entry::Str(b)) => a == b,
            (Self::Int(value), Entry::Str(text)) => parse_int(text) == Some(value),
            (Self::Str(text), Entry::Int(value)) => parse_int(text) == Some(value),
        }
    }
}

impl Eq for Entry<'_> {}

impl<'a> From<&'a [u8]> for Entry<'a> {
    #[inline]
    fn from(text: &'a [u8]) -> Self {
        parse_int(text).map_or(Self::Str(text), Self::Int)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Entry<'a> {
    fn from(text: &'a [u8; N]) -> Self {
        Self::from(text.as_slice())
    }
}

impl From<i64> for Entry<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> Entry<'a> {
    /// The bytes; an integer's are written to `digits`.
    #[inline]
    #[must_use]
    pub fn text<'b>(&self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Self::Int(value) => digits.write(value),
            Self::Str(text) => text,
        }
    }

    /// Appends the bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text(&mut Digits::new()));
    }

    /// A copy of the bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.text(&mut Digits::new()).to_vec()
    }

    /// How many bytes the text has.
    #[inline]
    #[must_use]
    pub fn text_len(&self) -> usize {
        match *self {
            Self::Int(value) => digit_count(value.unsigned_abs()) + usize::from(value < 0),
            Self::Str(text) => text.len(),
        }
    }

    /// Whether the text is exactly these bytes.
    #[inline]
    #[must_use]
    pub fn is(&self, text: &[u8]) -> bool {
        *self == Entry::Str(text)
    }

    /// The integer whose canonical text this is.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match *self {
            Self::Int(value) => Some(value),
            Self::Str(text) => parse_int(text),
        }
    }

    /// The form that a sequence keeps: an integer wherever the text is one.
    #[inline]
    pub(super) fn normal(self) -> Self {
        match self {
            Self::Int(_) => self,
            Self::Str(text) => Self::from(text),
        }
    }

    /// Equality of two in normal form.
    #[inline]
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Str(a), Self::Str(b)) => a == b,
            _ => false,
        }
    }

    /// Bytes the entry takes in a sequence.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        Encoded::new(*self).total()
    }
}

/// Room for the text of one integer.
#[derive(Debug, Clone, Copy)]
pub struct Digits([u8; 20]);

impl Digits {
    /// Room to write to.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; 20])
    }

    /// The canonical decimal text.
    pub fn write(&mut self, value: i64) -> &[u8] {
        let mut rest = value.unsigned_abs();
        let mut at = self.0.len();
        for slot in self.0.iter_mut().rev() {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
            at -= 1;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            if let Some(slot) = self.0.get_mut(at) {
                *slot = b'-';
            }
        }
        self.0.get(at..).unwrap_or_default()
    }
}

impl Default for Digits {
    fn default() -> Self {
        Self::new()
    }
}

fn digit_count(value: u64) -> usize {
    value.checked_ilog10().unwrap_or(0) as usize + 1
}

/// The integer whose canonical decimal text this is: no sign but `-`, no leading zero, no `-0`, within 64 bits.
#[must_use]
pub fn parse_int(text: &[u8]) -> Option<i64> {
    if text.len() > 20 {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// The entry these bytes begin with, and its length without the part that is read from behind.
#[inline]
pub(crate) fn decode(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let (&head, rest) = bytes.split_first()?;
    let text = |from: usize, len: usize| rest.get(from..from.checked_add(len)?).map(Entry::Str);
    Some(match head {
        0..=0x7F => (Entry::Int(i64::from(head)), 1),
        0x80..=0xBF => {
            let len = usize::from(head & 0x3F);
            (text(0, len)?, 1 + len)
        }
        0xC0..=0xDF => {
            let raw = u16::from_be_bytes([head & 0x1F, *rest.first()?]);
            (Entry::Int(i64::from((raw << 3).cast_signed() >> 3)), 2)
        }
        0xE0..=0xEF => {
            let len = usize::from(u16::from_be_bytes([head & 0xF, *rest.first()?]));
            (text(1, len)?, 2 + len)
        }
        0xF0 => {
            let len = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            (text(4, len)?, 5 + len)
        }
        0xF1 => (Entry::Int(i64::from(i16::from_le_bytes(*rest.first_chunk()?))), 3),
        0xF2 => {
            let [low, mid, high] = *rest.first_chunk()?;
            (Entry::Int(i64::from(i32::from_le_bytes([0, low, mid, high]) >> 8)), 4)
        }
        0xF3 => (Entry::Int(i64::from(i32::from_le_bytes(*rest.first_chunk()?))), 5),
        0xF4 => (Entry::Int(i64::from_le_bytes(*rest.first_chunk()?)), 9),
        _ => return None,
    })
}

/// Bytes that an entry's length takes behind it; the bounds are listpack's, which waste a byte at 16,383.
#[inline]
pub(crate) const fn back_len(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// Whole length of the entry that ends where these bytes do.
#[inline]
pub(crate) fn total_behind(bytes: &[u8]) -> Option<usize> {
    let mut len = 0usize;
    for (n, &byte) in bytes.iter().rev().take(5).enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(len + n + 1);
        }
    }
    None
}

/// An entry's parts on their way into a sequence.
pub(super) struct Encoded<'a> {
    head: [u8; HEAD_MAX],
    head_len: usize,
    data: &'a [u8],
}

impl<'a> Encoded<'a> {
    pub(super) fn new(entry: Entry<'a>) -> Self {
        let mut out = Self { head: [0; HEAD_MAX], head_len: 0, data: &[] };
        match entry.normal() {
            Entry::Int(value) => out.put_int(value),
            Entry::Str(text) => {
                out.data = text;
                out.put_len(text.len());
            }
        }
        out
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.head_len + bytes.len();
        if let Some(room) = self.head.get_mut(self.head_len..end) {
            room.copy_from_slice(bytes);
            self.head_len = end;
        }
    }

    fn put_int(&mut self, value: i64) {
        let bytes = value.to_le_bytes();
        let [low, second, ..] = bytes;
        let (mark, width) = match value {
            0..=0x7F => return self.put(&[low]),
            -0x1000..=0xFFF => return self.put(&[0xC0 | (second & 0x1F), low]),
            -0x8000..=0x7FFF => (0xF1, 2),
            -0x80_0000..=0x7F_FFFF => (0xF2, 3),
            -0x8000_0000..=0x7FFF_FFFF => (0xF3, 4),
            _ => (0xF4, 8),
        };
        self.put(&[mark]);
        self.put(bytes.get(..width).unwrap_or_default());
    }

    fn put_len(&mut self, len: usize) {
        let bytes = len.to_le_bytes();
        let [low, second, third, fourth, ..] = bytes;
        match len {
            0..=0x3F => self.put(&[0x80 | low]),
            0x40..=0xFFF => self.put(&[0xE0 | second, low]),
            _ => self.put(&[0xF0, low, second, third, fourth]),
        }
    }

    fn len(&self) -> usize {
        self.head_len + self.data.len()
    }

    fn total(&self) -> usize {
        self.len() + back_len(self.len())
    }

    /// Writes the entry to where `room` begins; what is left of it.
    pub(super) fn write<'r>(&self, room: &'r mut [u8]) -> &'r mut [u8] {
        let (head, rest) = room.split_at_mut_checked(self.head_len).unwrap_or_default();
        head.copy_from_slice(self.head.get(..head.len()).unwrap_or_default());
        let (data, rest) = rest.split_at_mut_checked(self.data.len()).unwrap_or_default();
        data.copy_from_slice(self.data.get(..data.len()).unwrap_or_default());
        let count = back_len(self.len());
        let (back, rest) = rest.split_at_mut_checked(count).unwrap_or_default();
        for (n, slot) in back.iter_mut().rev().enumerate() {
            let more = if n + 1 < count { 0x80 } else { 0 };
            let [low, ..] = (self.len() >> (7 * n)).to_le_bytes();
            *slot = (low & 0x7F) | more;
        }
        rest
    }
}
