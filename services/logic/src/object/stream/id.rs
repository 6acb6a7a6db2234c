//! Ids of stream entries, and the forms in which clients write them.
//!
//! Numbers are read as Redis 7.0 reads them: what is not a canonical signed number goes through C's
//! `strtoull`, so a leading `+` or zeros are accepted, and a text ends at its first zero byte.

use std::fmt;

/// Longest text of an id that is looked at.
const TEXT_MAX: usize = 127;
/// Longest text of an id that is written: two numbers of twenty digits.
const ID_MAX_LEN: usize = 41;

/// An entry's id: milliseconds, then a number within them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StreamId {
    /// Unix time in milliseconds, as a rule.
    pub ms: u64,
    /// Tells entries of one millisecond apart.
    pub seq: u64,
}

/// The id an entry is to be added with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddId {
    /// `*`: from the clock, and above the last one in any case.
    Auto,
    /// `ms-*`: the next one of that millisecond.
    AutoSeq(u64),
    /// Named in full.
    Given(StreamId),
}

/// A text that is no id, or no bound of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdError {
    /// Not an id.
    Invalid,
    /// Nothing lies above an exclusive start.
    Start,
    /// Nothing lies below an exclusive end.
    End,
}

impl IdError {
    /// Redis' words, without the error's code.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid stream ID specified as stream command argument",
            Self::Start => "invalid start ID for the interval",
            Self::End => "invalid end ID for the interval",
        }
    }
}

impl StreamId {
    /// The lowest id, which no entry has.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The highest id.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// An id of its parts.
    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// Whether this is 0-0, which stands for "none".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.ms == 0 && self.seq == 0
    }

    /// The one above; none above the highest.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The one below; none below 0-0.
    #[must_use]
    pub fn prev(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// The text `ms-seq`.
    #[must_use]
    pub fn text(self) -> IdText {
        let mut text = IdText { bytes: [0; ID_MAX_LEN], from: ID_MAX_LEN };
        text.put_number(self.seq);
        text.put(b'-');
        text.put_number(self.ms);
        text
    }

    /// Reads `ms` or `ms-seq`; a missing `seq` is 0.
    ///
    /// # Errors
    /// [`IdError::Invalid`].
    pub fn parse(text: &[u8]) -> Result<Self, IdError> {
        parse(text, 0).ok_or(IdError::Invalid)
    }

    /// Reads a range's first id: as [`parse`](Self::parse), or `-`, `+`, or `(` and an id that is
    /// itself left out.
    ///
    /// # Errors
    /// [`IdError::Invalid`]; [`IdError::Start`] when nothing lies above.
    pub fn parse_start(text: &[u8]) -> Result<Self, IdError> {
        match parse_bound(text, 0).ok_or(IdError::Invalid)? {
            (id, true) => id.next().ok_or(IdError::Start),
            (id, false) => Ok(id),
        }
    }

    /// Reads a range's last id: as [`parse_start`](Self::parse_start), but a missing `seq` is the
    /// highest.
    ///
    /// # Errors
    /// [`IdError::Invalid`]; [`IdError::End`] when nothing lies below.
    pub fn parse_end(text: &[u8]) -> Result<Self, IdError> {
        match parse_bound(text, u64::MAX).ok_or(IdError::Invalid)? {
            (id, true) => id.prev().ok_or(IdError::End),
            (id, false) => Ok(id),
        }
    }
}

/// An id as clients read it, without an allocation.
#[derive(Clone, Copy)]
pub struct IdText {
    bytes: [u8; ID_MAX_LEN],
    from: usize,
}

impl IdText {
    fn put(&mut self, byte: u8) {
        if let Some(from) = self.from.checked_sub(1)
            && let Some(place) = self.bytes.get_mut(from)
        {
            (*place, self.from) = (byte, from);
        }
    }

    fn put_number(&mut self, mut value: u64) {
        loop {
            self.put(b'0' + (value % 10) as u8);
            value /= 10;
            if value == 0 {
                return;
            }
        }
    }
}

impl AsRef<[u8]> for IdText {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl AddId {
    /// Reads `*`, `ms-*`, `ms` or `ms-seq`.
    ///
    /// # Errors
    /// [`IdError::Invalid`].
    pub fn parse(text: &[u8]) -> Result<Self, IdError> {
        if text == b"*" {
            return Ok(Self::Auto);
        }
        if text.len() <= TEXT_MAX
            && let Some(ms) = until_zero(text).strip_suffix(b"-*")
            && !ms.contains(&b'-')
        {
            return number(ms).map(Self::AutoSeq).ok_or(IdError::Invalid);
        }
        StreamId::parse(text).map(Self::Given)
    }
}

fn until_zero(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn parse(text: &[u8], missing_seq: u64) -> Option<StreamId> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let mut parts = until_zero(text).splitn(2, |&byte| byte == b'-');
    let ms = number(parts.next()?)?;
    let seq = parts.next().map_or(Some(missing_seq), number)?;
    Some(StreamId { ms, seq })
}

/// An id and whether it is itself left out.
fn parse_bound(text: &[u8], missing_seq: u64) -> Option<(StreamId, bool)> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => Some((parse(rest, missing_seq)?, true)),
        b"-" => Some((StreamId::MIN, false)),
        b"+" => Some((StreamId::MAX, false)),
        _ => Some((parse(text, missing_seq)?, false)),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let (minus, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    // A canonical negative number is refused; any other goes through `strtoull`, which negates.
    let canonical = !digits.starts_with(b"0") && value <= i64::MIN.unsigned_abs();
    match minus {
        true if canonical => None,
        true => Some(value.wrapping_neg()),
        false => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let max = u64::MAX;
        let long = format!("{}1", "0".repeat(126));
        let too_long = format!("{}1", "0".repeat(127));
        for (text, want) in [
            ("5", Some((5, 0))),
            ("5-7", Some((5, 7))),
            ("18446744073709551615-18446744073709551615", Some((max, max))),
            ("18446744073709551616-0", None),
            ("5-", None),
            ("-5", None),
            ("-", None),
            ("+", None),
            ("", None),
            ("a-1", None),
            ("1-a", None),
            ("1-2-3", None),
            ("1-*", None),
            ("+5-+7", Some((5, 7))),
            ("005-007", Some((5, 7))),
            ("5--1", None),
            ("5--0", Some((5, 0))),
            ("5--01", Some((5, max))),
            (" 5-1", None),
            ("5-1\0junk", Some((5, 1))),
            (&long, Some((1, 0))),
            (&too_long, None),
        ] {
            let got = StreamId::parse(text.as_bytes()).ok().map(|id| (id.ms, id.seq));
            assert_eq!(got, want, "{text:?}");
        }
    }

    #[test]
    fn an_id_to_add_may_leave_parts_to_the_stream() {
        assert_eq!(AddId::parse(b"*"), Ok(AddId::Auto));
        assert_eq!(AddId::parse(b"5-*"), Ok(AddId::AutoSeq(5)));
        assert_eq!(AddId::parse(b"5"), Ok(AddId::Given(StreamId::new(5, 0))));
        assert_eq!(AddId::parse(b"5-3"), Ok(AddId::Given(StreamId::new(5, 3))));
        for bad in ["", "-*", "5-1-*", "a-*", "**", "5-**", "+", "-"] {
            assert_eq!(AddId::parse(bad.as_bytes()), Err(IdError::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn bounds_may_leave_out_their_id() {
        let id = StreamId::new;
        let max = u64::MAX;
        assert_eq!(StreamId::parse_start(b"-"), Ok(StreamId::MIN));
        assert_eq!(StreamId::parse_start(b"+"), Ok(StreamId::MAX));
        assert_eq!(StreamId::parse_start(b"7"), Ok(id(7, 0)));
        assert_eq!(StreamId::parse_end(b"7"), Ok(id(7, max)));
        assert_eq!(StreamId::parse_start(b"(7"), Ok(id(7, 1)));
        assert_eq!(StreamId::parse_end(b"(7"), Ok(id(7, max - 1)));
        assert_eq!(StreamId::parse_end(b"(7-0"), Ok(id(6, max)));
        assert_eq!(StreamId::parse_start(format!("(7-{max}").as_bytes()), Ok(id(8, 0)));
        assert_eq!(StreamId::parse_start(format!("({max}-{max}").as_bytes()), Err(IdError::Start));
        assert_eq!(StreamId::parse_end(b"(0-0"), Err(IdError::End));
        for bad in ["(", "(-", "(+", "((1", "x"] {
            assert_eq!(StreamId::parse_start(bad.as_bytes()), Err(IdError::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn neighbours_carry_over() {
        let max = u64::MAX;
        assert_eq!(StreamId::new(1, max).next(), Some(StreamId::new(2, 0)));
        assert_eq!(StreamId::new(2, 0).prev(), Some(StreamId::new(1, max)));
        assert_eq!((StreamId::MAX.next(), StreamId::MIN.prev()), (None, None));
    }

    #[test]
    fn ids_are_written_as_they_are_read() {
        let mut value = 0;
        for _ in 0..66 {
            for id in [StreamId::new(value, 7), StreamId::new(10, value), StreamId::MAX] {
                let text = id.text();
                assert_eq!(text.as_ref(), format!("{}-{}", id.ms, id.seq).as_bytes());
                assert_eq!(StreamId::parse(text.as_ref()), Ok(id));
            }
            value = value.wrapping_mul(2).wrapping_add(1);
        }
        assert_eq!(StreamId::new(12, 3).to_string(), "12-3");
    }
}
