//! Memcached: `get` and `set` of the text protocol, `mg` and `ms` of the meta commands.
//!
//! Source: memcached's `doc/protocol.txt`. Meta replies carry no key here (`mg key v`), so a value
//! is known by its own first bytes, as in RESP.

use std::io::Write as _;

use super::text::{Ended, Text, number, shown, trimmed, value_after_length};
use super::{Asked, Fed, Lost, Verdict};
use crate::load::arena::{Values, key_name};

/// Appends one request of the text protocol.
pub fn encode(asked: Asked, values: &Values, to: &mut Vec<u8>) {
    to.extend_from_slice(if asked.set { b"set " } else { b"get " });
    to.extend_from_slice(&key_name(asked.key));
    if asked.set {
        // Into memory, which takes all; as in `resp`.
        let _ = write!(to, " 0 0 {}\r\n", values.len_bytes());
        values.write(asked.key, to);
    }
    to.extend_from_slice(b"\r\n");
}

/// Appends one meta command.
pub fn encode_meta(asked: Asked, values: &Values, to: &mut Vec<u8>) {
    to.extend_from_slice(if asked.set { b"ms " } else { b"mg " });
    to.extend_from_slice(&key_name(asked.key));
    if asked.set {
        let _ = write!(to, " {}\r\n", values.len_bytes());
        values.write(asked.key, to);
        to.extend_from_slice(b"\r\n");
    } else {
        to.extend_from_slice(b" v\r\n");
    }
}

/// The length of the text reply at the front of `bytes` when it is all there and right.
#[inline]
#[must_use]
pub fn whole(asked: Asked, values: &Values, bytes: &[u8]) -> Option<usize> {
    const TAIL: &[u8] = b"\r\nEND\r\n";
    if asked.set {
        return bytes.starts_with(b"STORED\r\n").then_some(8);
    }
    let rest = bytes.strip_prefix(b"VALUE ")?.strip_prefix(&key_name(asked.key))?;
    let after = value_after_length(asked, values, rest.strip_prefix(b" 0 ")?)?;
    after.starts_with(TAIL).then(|| bytes.len() - after.len() + TAIL.len())
}

/// As [`whole`], for meta commands.
#[inline]
#[must_use]
pub fn whole_meta(asked: Asked, values: &Values, bytes: &[u8]) -> Option<usize> {
    if asked.set {
        return bytes.starts_with(b"HD\r\n").then_some(4);
    }
    let after = value_after_length(asked, values, bytes.strip_prefix(b"VA ")?)?;
    after.starts_with(b"\r\n").then(|| bytes.len() - after.len() + 2)
}

/// Finds and checks one reply after another.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    text: Text,
}

impl Decoder {
    /// Whether it stands between two replies.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.text.is_idle()
    }

    /// Takes bytes of the reply to `asked`, a meta command or not.
    ///
    /// # Errors
    /// They are no memcached reply.
    pub fn feed(&mut self, meta: bool, asked: Asked, values: &Values, bytes: &[u8]) -> Fed {
        let mut used = 0;
        while used < bytes.len() {
            let (took, ended) = self.text.take(asked, values, &bytes[used..])?;
            used += took;
            let complete = match ended {
                Ended::Nothing => false,
                // The text protocol has END after a value.
                Ended::Body => meta,
                Ended::Line => {
                    let line = self.text.line();
                    let text = trimmed(&line)?;
                    let complete = if meta {
                        self.meta_line(asked, values, text)?
                    } else {
                        self.line(asked, values, text)?
                    };
                    self.text.clear(line);
                    complete
                }
            };
            if complete {
                return Ok((used, self.text.verdict.take()));
            }
        }
        Ok((used, None))
    }

    fn line(&mut self, asked: Asked, values: &Values, text: &[u8]) -> Result<bool, Lost> {
        let wrong = || Verdict::Wrong(shown(text));
        if let Some(rest) = text.strip_prefix(b"VALUE ") {
            let mut words = rest.split(|&byte| byte == b' ');
            let key = words.next().unwrap_or_default();
            let len = words.nth(1).and_then(number).ok_or_else(|| Lost(shown(text)))?;
            let right =
                !asked.set && key == key_name(asked.key) && len == values.len_bytes() as u64;
            self.text.judge(if right { Verdict::Right } else { wrong() });
            self.text.expect_body(len);
            return Ok(false);
        }
        self.text.judge(match text {
            b"END" if !asked.set => Verdict::Miss,
            b"STORED" if asked.set => Verdict::Right,
            _ => wrong(),
        });
        Ok(true)
    }

    fn meta_line(&mut self, asked: Asked, values: &Values, text: &[u8]) -> Result<bool, Lost> {
        let wrong = || Verdict::Wrong(shown(text));
        if let Some(rest) = text.strip_prefix(b"VA ") {
            let word = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
            let len = number(word).ok_or_else(|| Lost(shown(text)))?;
            let right = !asked.set && len == values.len_bytes() as u64;
            self.text.judge(if right { Verdict::Right } else { wrong() });
            self.text.expect_body(len);
            return Ok(false);
        }
        self.text.judge(match text {
            b"EN" if !asked.set => Verdict::Miss,
            [b'H', b'D', rest @ ..] if asked.set && matches!(rest, [] | [b' ', ..]) => {
                Verdict::Right
            }
            _ => wrong(),
        });
        Ok(true)
    }
}
