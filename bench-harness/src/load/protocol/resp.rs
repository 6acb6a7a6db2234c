//! Redis: GET and SET in RESP2 and RESP3.
//!
//! RESP3 differs by its greeting, `HELLO 3`, whose reply (a map) is awaited and not counted, and by
//! its null. Source: the Redis serialization protocol specification. Invariant: a reply that is an
//! aggregate is one reply, however deep it is; its depth costs no memory.

use std::io::Write as _;

use super::text::{Ended, Text, number, shown, trimmed, value_after_length};
use super::{Asked, Fed, Lost, Verdict};
use crate::load::arena::{Values, key_name};

/// Switches a connection to RESP3.
pub const HELLO: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";

/// Appends one request.
pub fn encode(asked: Asked, values: &Values, to: &mut Vec<u8>) {
    let name = key_name(asked.key);
    if asked.set {
        to.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
        to.extend_from_slice(&name);
        // Into memory, which takes all; and without an allocation, since it may be done for each request.
        let _ = write!(to, "\r\n${}\r\n", values.len_bytes());
        values.write(asked.key, to);
    } else {
        to.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n");
        to.extend_from_slice(&name);
    }
    to.extend_from_slice(b"\r\n");
}

/// The length of the reply at the front of `bytes` when it is all there and right.
#[inline]
#[must_use]
pub fn whole(asked: Asked, values: &Values, bytes: &[u8]) -> Option<usize> {
    if asked.set {
        return bytes.starts_with(b"+OK\r\n").then_some(5);
    }
    let after = value_after_length(asked, values, bytes.strip_prefix(b"$")?)?;
    after.starts_with(b"\r\n").then(|| bytes.len() - after.len() + 2)
}

/// Finds and checks one reply after another.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    text: Text,
    /// Elements still to come in this reply, when it is an aggregate.
    pending: u64,
    /// The reply to the greeting is next.
    greeting: bool,
}

impl Decoder {
    /// For a connection that has sent [`HELLO`].
    #[must_use]
    pub fn greeted() -> Self {
        Self { greeting: true, ..Self::default() }
    }

    /// Whether it stands between two replies.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        !self.greeting && self.pending == 0 && self.text.is_idle()
    }

    /// Whether the reply to the greeting is still to come.
    #[must_use]
    pub const fn is_greeting(&self) -> bool {
        self.greeting
    }

    /// Takes bytes of the reply to `asked`.
    ///
    /// # Errors
    /// They are no RESP, or the greeting is refused.
    pub fn feed(&mut self, asked: Asked, values: &Values, bytes: &[u8]) -> Fed {
        let mut used = 0;
        while used < bytes.len() {
            let (took, ended) = self.text.take(asked, values, &bytes[used..])?;
            used += took;
            let complete = match ended {
                Ended::Nothing => false,
                Ended::Body => self.element_done(),
                Ended::Line => {
                    let line = self.text.line();
                    let complete = self.line(asked, values, trimmed(&line)?)?;
                    self.text.clear(line);
                    complete
                }
            };
            if !complete {
                continue;
            }
            self.pending = 0;
            let verdict = self.text.verdict.take();
            if !self.greeting {
                return Ok((used, verdict));
            }
            self.greeting = false;
            match verdict {
                // A map is what no GET or SET is answered with.
                Some(Verdict::Wrong(text)) if text.starts_with('%') => {}
                other => return Err(Lost(format!("HELLO 3 is answered with {other:?}"))),
            }
        }
        Ok((used, None))
    }

    /// Whether the reply is over with this element.
    const fn element_done(&mut self) -> bool {
        self.pending = self.pending.saturating_sub(1);
        self.pending == 0
    }

    fn line(&mut self, asked: Asked, values: &Values, text: &[u8]) -> Result<bool, Lost> {
        let wrong = || Verdict::Wrong(shown(text));
        let Some((&kind, rest)) = text.split_first() else {
            return Err(Lost("an empty reply line".to_owned()));
        };
        match kind {
            b'+' if asked.set && rest == b"OK" => self.text.judge(Verdict::Right),
            b'$' if rest == b"-1" => {
                self.text.judge(if asked.set { wrong() } else { Verdict::Miss });
            }
            b'_' if !asked.set => self.text.judge(Verdict::Miss),
            b'$' | b'=' | b'!' => {
                let len = number(rest).ok_or_else(|| Lost(shown(text)))?;
                let right = kind == b'$' && !asked.set && len == values.len_bytes() as u64;
                self.text.judge(if right { Verdict::Right } else { wrong() });
                self.text.expect_body(len);
                return Ok(false);
            }
            b'*' | b'~' | b'>' | b'%' | b'|' if rest != b"-1" => {
                let count = number(rest).ok_or_else(|| Lost(shown(text)))?;
                let elements = if matches!(kind, b'%' | b'|') { 2 * count } else { count };
                self.text.judge(wrong());
                self.pending = self.pending.saturating_sub(1).saturating_add(elements);
                return Ok(self.pending == 0);
            }
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' | b'*' => self.text.judge(wrong()),
            _ => return Err(Lost(shown(text))),
        }
        Ok(self.element_done())
    }
}
