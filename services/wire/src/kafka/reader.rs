//! The types of the protocol, read from borrowed bytes.
//!
//! A *compact* string, array or byte sequence has its length plus one as an unsigned varint and is used
//! by flexible versions; others have a fixed-width length. Source: the protocol guide, "Protocol
//! Primitive Types". Next: `writer` for the other direction.

use std::fmt;

use super::Uuid;

/// Input that does not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What was expected.
    pub what: &'static str,
    /// Bytes into the message.
    pub at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Malformed {}

type Result<T> = std::result::Result<T, Malformed>;

/// Reads a message from its front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! integers {
    ($($name:ident: $type:ty,)*) => {
        $(#[doc = concat!("A big-endian `", stringify!($type), "`.")]
        ///
        /// # Errors
        /// The message ends before it.
        pub fn $name(&mut self) -> Result<$type> {
            self.array(stringify!($type)).map(<$type>::from_be_bytes)
        })*
    };
}

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// How many bytes were read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// An error at this place.
    #[must_use]
    pub const fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    integers! {
        i8: i8,
        i16: i16,
        i32: i32,
        i64: i64,
        u16: u16,
        u32: u32,
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let Some((array, _)) = self.rest().split_first_chunk::<N>() else {
            return Err(self.malformed(what));
        };
        self.at += N;
        Ok(*array)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8]> {
        let Some(part) = self.rest().get(..len) else { return Err(self.malformed(what)) };
        self.at += len;
        Ok(part)
    }

    /// A byte that is zero for false.
    ///
    /// # Errors
    /// The message ends before it.
    pub fn bool(&mut self) -> Result<bool> {
        self.i8().map(|byte| byte != 0)
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// The message ends before them.
    pub fn uuid(&mut self) -> Result<Uuid> {
        self.array("a uuid")
    }

    /// An unsigned number in at most five groups of seven bits, lowest first.
    ///
    /// # Errors
    /// It has no end, or is above 2^32 - 1.
    pub fn unsigned_varint(&mut self) -> Result<u32> {
        let number = self.groups(5, "an unsigned varint")?;
        u32::try_from(number).map_err(|_| self.malformed("an unsigned varint below 2^32"))
    }

    /// A number in zigzag form, 32 bits.
    ///
    /// # Errors
    /// It has no end, or is too large.
    pub fn varint(&mut self) -> Result<i32> {
        let number = self.groups(5, "a varint")?;
        let number = u32::try_from(number).map_err(|_| self.malformed("a varint below 2^32"))?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A number in zigzag form, 64 bits.
    ///
    /// # Errors
    /// It has no end, or is too large.
    pub fn varlong(&mut self) -> Result<i64> {
        let number = self.groups(10, "a varlong")?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn groups(&mut self, most: u32, what: &'static str) -> Result<u64> {
        let mut number = 0_u64;
        for group in 0..most {
            let byte = self.i8()?.cast_unsigned();
            let bits = u64::from(byte & 0x7f);
            if group == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * group);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.malformed(what))
    }

    /// Length of a byte sequence; `None` for null.
    fn length(&mut self, compact: bool, what: &'static str) -> Result<Option<usize>> {
        let length =
            if compact { i64::from(self.unsigned_varint()?) - 1 } else { i64::from(self.i32()?) };
        self.checked_length(length, what)
    }

    fn checked_length(&self, length: i64, what: &'static str) -> Result<Option<usize>> {
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| self.malformed(what)),
        }
    }

    /// A byte sequence, or null.
    ///
    /// # Errors
    /// It is longer than the message.
    pub fn nullable_bytes(&mut self, compact: bool) -> Result<Option<&'a [u8]>> {
        match self.length(compact, "the length of bytes")? {
            Some(len) => self.take(len, "as many bytes as announced").map(Some),
            None => Ok(None),
        }
    }

    /// A string, or null.
    ///
    /// # Errors
    /// It is longer than the message, or no UTF-8.
    pub fn nullable_string(&mut self, compact: bool) -> Result<Option<&'a str>> {
        const WHAT: &str = "the length of a string";
        let length = if compact {
            self.length(true, WHAT)?
        } else {
            let length = i64::from(self.i16()?);
            self.checked_length(length, WHAT)?
        };
        let Some(len) = length else { return Ok(None) };
        let bytes = self.take(len, "a string as long as announced")?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| self.malformed("a string in UTF-8"))
    }

    /// A string.
    ///
    /// # Errors
    /// It is null, longer than the message, or no UTF-8.
    pub fn string(&mut self, compact: bool) -> Result<&'a str> {
        let string = self.nullable_string(compact)?;
        string.ok_or_else(|| self.malformed("a string that is not null"))
    }

    /// Number of an array's elements, zero for null. Each takes at least a byte, so that there
    /// cannot be more than bytes are left.
    ///
    /// # Errors
    /// There are more elements announced than can follow.
    pub fn array_len(&mut self, compact: bool) -> Result<usize> {
        let length = self.length(compact, "the length of an array")?.unwrap_or(0);
        if length > self.rest().len() {
            return Err(self.malformed("no more elements than bytes"));
        }
        Ok(length)
    }

    /// The tagged fields at the end of a flexible structure: calls `field` with each tag and
    /// its bytes.
    ///
    /// # Errors
    /// A field is longer than the message, or `field` refuses it.
    pub fn tagged_fields(&mut self, mut field: impl FnMut(u32, Self) -> Result<()>) -> Result<()> {
        let fields = self.unsigned_varint()?;
        for _ in 0..fields {
            let tag = self.unsigned_varint()?;
            let len = usize::try_from(self.unsigned_varint()?).unwrap_or(usize::MAX);
            let bytes = self.take(len, "a tagged field as long as announced")?;
            field(tag, Reader::new(bytes))?;
        }
        Ok(())
    }

    /// The same when no tag matters; nothing where the version is not flexible.
    ///
    /// # Errors
    /// A field is longer than the message.
    pub fn skip_tagged_fields(&mut self, flexible: bool) -> Result<()> {
        if flexible { self.tagged_fields(|_, _| Ok(())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Writer;

    #[test]
    fn numbers_come_back_from_their_longest_and_shortest_forms() {
        for number in [0, 1, -1, 63, 64, -64, -65, 300, i32::MAX, i32::MIN] {
            let mut bytes = Vec::new();
            bytes.varint(number);
            bytes.varlong(i64::from(number));
            bytes.unsigned_varint(number.cast_unsigned());
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(number));
            assert_eq!(reader.varlong(), Ok(i64::from(number)));
            assert_eq!(reader.unsigned_varint(), Ok(number.cast_unsigned()));
            assert_eq!(reader.rest(), b"");
        }
        for number in [i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            bytes.varlong(number);
            assert_eq!(Reader::new(&bytes).varlong(), Ok(number));
        }
    }

    #[test]
    fn golden_varints() {
        for (bytes, number) in
            [(&[0x00][..], 0), (&[0x01], -1), (&[0x02], 1), (&[0xac, 0x02], 150), (&[0x7f], -64)]
        {
            assert_eq!(Reader::new(bytes).varint(), Ok(number));
        }
    }

    #[test]
    fn numbers_without_an_end_are_refused() {
        assert!(Reader::new(&[0xff; 20]).varint().is_err());
        assert!(Reader::new(&[0xff; 20]).varlong().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).unsigned_varint().is_err());
        assert!(Reader::new(&[0x80]).unsigned_varint().is_err());
    }

    #[test]
    fn announced_lengths_are_bounded_by_what_is_there() {
        let hostile = [0x7f, 0xff, 0xff, 0xff, 1, 2, 3];
        assert!(Reader::new(&hostile).array_len(false).is_err());
        assert!(Reader::new(&hostile).nullable_bytes(false).is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).array_len(true).is_err());
        assert!(Reader::new(&[0xff, 0xfe]).nullable_string(false).is_err(), "-2 is no length");
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_string(false), Ok(None));
        assert_eq!(Reader::new(&[0]).nullable_string(true), Ok(None));
        assert!(Reader::new(&[0]).string(true).is_err());
        assert!(Reader::new(&[3, 0xc3, 0x28]).string(true).is_err(), "no UTF-8");
    }

    #[test]
    fn tagged_fields_are_handed_over_by_tag() {
        let bytes = [2, 0, 1, 9, 5, 2, 7, 8, 0xaa];
        let mut reader = Reader::new(&bytes);
        let mut seen = Vec::new();
        let read = reader.tagged_fields(|tag, field| {
            seen.push((tag, field.rest().to_vec()));
            Ok(())
        });
        assert_eq!(read, Ok(()));
        assert_eq!(seen, [(0, vec![9]), (5, vec![7, 8])]);
        assert_eq!(reader.rest(), [0xaa]);
        assert!(Reader::new(&[1, 0, 9, 1]).skip_tagged_fields(true).is_err());
    }
}
