//! Reading lengths, strings and numbers where they lie.
//!
//! Invariants: a cursor never reads beyond its bytes, and a length that was read is no reason to reserve memory; what
//! is missing ([`Stop::Short`]) and what is wrong ([`Stop::Bad`]) are told apart, the latter with its position.
//! Next: `load.rs` makes values of what is read here, `skip.rs` passes over them.

use std::borrow::Cow;

use super::lzf;
use crate::object::packed::{Digits, Entry};

/// Something is not as it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad {
    /// Where, counted from the first byte of the file or payload.
    pub at: u64,
    /// What.
    pub what: &'static str,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Bad {}

/// Why reading stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// At least so many more bytes are needed.
    Short(usize),
    /// It makes no sense to go on.
    Bad(Bad),
}

/// A length, or the encoding of a string that stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Plain(u64),
    Encoded(u8),
}

/// What is left to read, and where it lies.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: u64,
}

pub(super) type Read<T> = Result<T, Stop>;

impl<'a> Cursor<'a> {
    /// A cursor at the first of these bytes, whose position is `at`.
    pub(super) const fn new(bytes: &'a [u8], at: u64) -> Self {
        Self { rest: bytes, at }
    }

    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// A fault here.
    pub(super) const fn bad(&self, what: &'static str) -> Stop {
        Stop::Bad(Bad { at: self.at, what })
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(Stop::Short(len - self.rest.len()));
        };
        self.rest = rest;
        self.at += len as u64;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or(Stop::Short(N))
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Eight bytes: a time in milliseconds.
    pub(super) fn millis(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length as such, or a string's encoding.
    pub(super) fn length(&mut self) -> Read<Length> {
        let fault = self.bad("not a length");
        let head = self.byte()?;
        Ok(match head >> 6 {
            0 => Length::Plain(u64::from(head)),
            1 => Length::Plain(u64::from(u16::from_be_bytes([head & 0x3F, self.byte()?]))),
            3 => Length::Encoded(head & 0x3F),
            _ if head == 0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            _ if head == 0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
            _ => return Err(fault),
        })
    }

    /// A number.
    pub(super) fn number(&mut self) -> Read<u64> {
        let fault = self.bad("not a number");
        match self.length()? {
            Length::Plain(number) => Ok(number),
            Length::Encoded(_) => Err(fault),
        }
    }

    /// A length in bytes.
    fn size(&mut self) -> Read<usize> {
        let fault = self.bad("longer than memory");
        usize::try_from(self.number()?).ok().filter(|&len| len <= isize::MAX as usize).ok_or(fault)
    }

    /// A string, decompressed.
    pub(super) fn string(&mut self) -> Read<Cow<'a, [u8]>> {
        let fault = self.bad("not a string");
        let integer = |value: i64| Cow::Owned(Entry::Int(value).text(&mut Digits::new()).to_vec());
        Ok(match self.length()? {
            Length::Plain(len) => {
                Cow::Borrowed(self.take(usize::try_from(len).map_err(|_| fault)?)?)
            }
            Length::Encoded(0) => integer(i64::from(i8::from_le_bytes(self.array()?))),
            Length::Encoded(1) => integer(i64::from(i16::from_le_bytes(self.array()?))),
            Length::Encoded(2) => integer(i64::from(i32::from_le_bytes(self.array()?))),
            Length::Encoded(3) => {
                let (packed, len) = (self.size()?, self.size()?);
                let wrong = self.bad("a compressed string that is not one");
                let bytes = self.take(packed)?;
                Cow::Owned(lzf::decompress(bytes, len).ok_or(wrong)?)
            }
            Length::Encoded(_) => return Err(fault),
        })
    }

    /// Passes over a string.
    pub(super) fn skip_string(&mut self) -> Read<()> {
        let fault = self.bad("not a string");
        let len = match self.length()? {
            Length::Plain(len) => usize::try_from(len).map_err(|_| fault)?,
            Length::Encoded(0) => 1,
            Length::Encoded(1) => 2,
            Length::Encoded(2) => 4,
            Length::Encoded(3) => {
                let packed = self.size()?;
                self.number()?;
                packed
            }
            Length::Encoded(_) => return Err(fault),
        };
        self.take(len).map(|_| ())
    }

    /// A score in eight bytes.
    pub(super) fn double(&mut self) -> Read<f64> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A score as text, with its length in front.
    pub(super) fn text_double(&mut self) -> Read<f64> {
        let fault = self.bad("not a score");
        Ok(match self.byte()? {
            255 => f64::NEG_INFINITY,
            254 => f64::INFINITY,
            253 => f64::NAN,
            len => {
                let text = self.take(usize::from(len))?;
                crate::object::zset::parse_score(text).ok_or(fault)?
            }
        })
    }

    /// Passes over such a score.
    pub(super) fn skip_text_double(&mut self) -> Read<()> {
        match self.byte()? {
            253..=255 => Ok(()),
            len => self.take(usize::from(len)).map(|_| ()),
        }
    }
}
