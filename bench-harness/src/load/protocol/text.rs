//! What RESP and memcached share: lines that end in CR LF, and values of a known length after them.
//!
//! Invariants: no line is longer than [`LINE_MAX_BYTES`]; values are compared as they pass and
//! never kept. Next: `resp` and `memcache`, which judge the lines.

use super::{Asked, Lost, Verdict};
use crate::load::arena::Values;

/// The longest line of a reply, its end included.
pub(super) const LINE_MAX_BYTES: usize = 4096;
/// Largest value or number of elements a reply may announce: Redis' own limit for bulks.
const ANNOUNCED_MAX: u64 = 512 << 20;

/// Where it stands.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// In a line.
    #[default]
    Line,
    /// In a value of `len` bytes, `done` of which have passed, then CR LF.
    Body { len: usize, done: usize },
}

/// What ended with the bytes taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing yet.
    Nothing,
    /// A line.
    Line,
    /// A value with its CR LF.
    Body,
}

/// Cuts a stream of pieces into lines and values.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    line: Vec<u8>,
    at: At,
    /// Of the reply begun, so far.
    pub(super) verdict: Option<Verdict>,
}

impl Text {
    /// Whether no reply is begun.
    pub(super) const fn is_idle(&self) -> bool {
        self.verdict.is_none() && self.line.is_empty() && matches!(self.at, At::Line)
    }

    /// Takes bytes up to the end of the line or value it stands in.
    pub(super) fn take(
        &mut self,
        asked: Asked,
        values: &Values,
        rest: &[u8],
    ) -> Result<(usize, Ended), Lost> {
        if let At::Body { len, done } = self.at {
            return self.body(asked, values, rest, len, done);
        }
        let end = rest.iter().position(|&byte| byte == b'\n');
        let took = end.map_or(rest.len(), |end| end + 1);
        if self.line.len() + took > LINE_MAX_BYTES {
            return Err(Lost("a reply line without end".to_owned()));
        }
        self.line.extend_from_slice(&rest[..took]);
        Ok((took, if end.is_some() { Ended::Line } else { Ended::Nothing }))
    }

    /// The line that has ended, its CR LF included; give it back with [`Text::clear`].
    pub(super) fn line(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line)
    }

    /// Keeps the memory of `line` for the next.
    pub(super) fn clear(&mut self, mut line: Vec<u8>) {
        line.clear();
        self.line = line;
    }

    /// A value of `len` bytes comes next.
    pub(super) fn expect_body(&mut self, len: u64) {
        self.at = At::Body { len: usize::try_from(len).unwrap_or(usize::MAX), done: 0 };
    }

    /// The first judgement of a reply counts.
    pub(super) fn judge(&mut self, verdict: Verdict) {
        self.verdict.get_or_insert(verdict);
    }

    fn body(
        &mut self,
        asked: Asked,
        values: &Values,
        rest: &[u8],
        len: usize,
        done: usize,
    ) -> Result<(usize, Ended), Lost> {
        let took = rest.len().min(len + 2 - done);
        let in_body = took.min(len.saturating_sub(done));
        if self.verdict == Some(Verdict::Right)
            && in_body > 0
            && !values.matches(asked.key, done, &rest[..in_body])
        {
            self.verdict = Some(Verdict::Wrong(format!(
                "value of another key: {}",
                shown(&rest[..in_body.min(32)])
            )));
        }
        let end = done.max(len) - len;
        if !b"\r\n"[end..].starts_with(&rest[in_body..took]) {
            return Err(Lost("a value is not followed by CR LF".to_owned()));
        }
        let done = done + took;
        if done < len + 2 {
            self.at = At::Body { len, done };
            return Ok((took, Ended::Nothing));
        }
        self.at = At::Line;
        Ok((took, Ended::Body))
    }
}

/// A line without its end.
pub(super) fn trimmed(line: &[u8]) -> Result<&[u8], Lost> {
    line.strip_suffix(b"\r\n").ok_or_else(|| Lost("a reply line does not end in CR LF".to_owned()))
}

/// Bytes as text, for messages.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Decimal digits, up to the largest length a reply may announce.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= ANNOUNCED_MAX).then_some(number)
}

/// What is left of `bytes` after the length they begin with, its CR LF, and `len` bytes that are the
/// value of `asked`; `None` unless the length is `len` and the value is right.
#[inline]
pub(super) fn value_after_length<'a>(
    asked: Asked,
    values: &Values,
    bytes: &'a [u8],
) -> Option<&'a [u8]> {
    let len = values.len_bytes();
    let mut rest = bytes;
    let mut announced = 0;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'0'..=b'9' if announced <= len => {
                announced = announced * 10 + usize::from(byte - b'0');
            }
            b'\r' => break,
            _ => return None,
        }
    }
    let rest = rest.strip_prefix(b"\n")?;
    let (body, after) = rest.split_at_checked(len)?;
    (announced == len && values.matches(asked.key, 0, body)).then_some(after)
}
