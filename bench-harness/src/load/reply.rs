//! Replies, found and checked in a stream of received pieces.
//!
//! Two ways: [`whole`] compares a reply that lies in one piece with the only right one, and costs
//! a few nanoseconds; [`Decoder`] takes any cut and any reply, and says what is wrong with it.
//! Invariants: the decoder's memory is bounded by [`LINE_MAX_BYTES`]; bytes whose boundaries it
//! cannot find are an error of the stream, not a reply.

use super::arena::{Asked, Values, key_name};
use crate::peers::Protocol;

/// The longest line of a reply, its end included.
pub const LINE_MAX_BYTES: usize = 4096;
/// Largest bulk or number of elements a reply may announce: Redis' own limit for bulks.
const ANNOUNCED_MAX: u64 = 512 << 20;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The right answer.
    Right,
    /// The key is not there.
    Miss,
    /// Another answer; the text shows it.
    Wrong(String),
}

/// The length of the reply at the front of `bytes` when it is all there, in order, and right.
#[inline]
#[must_use]
pub fn whole(protocol: Protocol, asked: Asked, values: &Values, bytes: &[u8]) -> Option<usize> {
    if asked.set {
        let expected: &[u8] = match protocol {
            Protocol::Resp => b"+OK\r\n",
            Protocol::Memcache => b"STORED\r\n",
        };
        return bytes.starts_with(expected).then_some(expected.len());
    }
    let len = values.len_bytes();
    let (mut rest, tail): (&[u8], &[u8]) = match protocol {
        Protocol::Resp => (bytes.strip_prefix(b"$")?, b"\r\n"),
        Protocol::Memcache => {
            let rest = bytes.strip_prefix(b"VALUE ")?;
            let rest = rest.strip_prefix(&key_name(asked.key))?;
            (rest.strip_prefix(b" 0 ")?, b"\r\nEND\r\n")
        }
    };
    let mut announced = 0;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'0'..=b'9' if announced <= len => {
                announced = announced * 10 + usize::from(byte - b'0')
            }
            b'\r' => break,
            _ => return None,
        }
    }
    let rest = rest.strip_prefix(b"\n")?;
    let body = rest.get(..len)?;
    let after = rest.get(len..)?;
    let right = announced == len && after.starts_with(tail) && values.matches(asked.key, 0, body);
    right.then(|| bytes.len() - after.len() + tail.len())
}

/// Where a decoder stands.
#[derive(Clone, Debug, Default)]
enum At {
    /// In a line.
    #[default]
    Line,
    /// In a bulk or value of `len` bytes, `done` of which have passed, then CR LF.
    Body { len: usize, done: usize },
}

/// Finds and checks one reply after another.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    at: At,
    /// RESP: elements still to come in this reply, when it is an aggregate.
    pending: u64,
    /// Begun, and so far this.
    verdict: Option<Verdict>,
}

/// The stream cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(pub String);

impl Decoder {
    /// Whether it stands between two replies.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.verdict.is_none() && self.line.is_empty() && matches!(self.at, At::Line)
    }

    /// Takes bytes of the reply to `asked`: how many, and the verdict when the reply is complete.
    ///
    /// # Errors
    /// The bytes are not of the protocol.
    pub fn feed(
        &mut self,
        protocol: Protocol,
        asked: Asked,
        values: &Values,
        bytes: &[u8],
    ) -> Result<(usize, Option<Verdict>), Lost> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let complete = match self.at {
                At::Body { len, done } => {
                    let (took, complete) = self.body(asked, values, rest, len, done)?;
                    used += took;
                    // A memcached value is followed by END.
                    complete && protocol == Protocol::Resp && self.element_done()
                }
                At::Line => {
                    let end = rest.iter().position(|&byte| byte == b'\n');
                    let took = end.map_or(rest.len(), |end| end + 1);
                    if self.line.len() + took > LINE_MAX_BYTES {
                        return Err(Lost("a reply line without end".to_owned()));
                    }
                    self.line.extend_from_slice(&rest[..took]);
                    used += took;
                    end.is_some() && self.line_done(protocol, asked, values)?
                }
            };
            if complete {
                self.pending = 0;
                return Ok((used, self.verdict.take()));
            }
        }
        Ok((used, None))
    }

    fn body(
        &mut self,
        asked: Asked,
        values: &Values,
        rest: &[u8],
        len: usize,
        done: usize,
    ) -> Result<(usize, bool), Lost> {
        let took = rest.len().min(len + 2 - done);
        let in_body = took.min(len.saturating_sub(done));
        if self.verdict == Some(Verdict::Right)
            && in_body > 0
            && !values.matches(asked.key, done, &rest[..in_body])
        {
            let shown = String::from_utf8_lossy(&rest[..in_body.min(32)]).into_owned();
            self.verdict = Some(Verdict::Wrong(format!("value of another key: {shown}")));
        }
        let end = done.max(len) - len;
        if !b"\r\n"[end..].starts_with(&rest[in_body..took]) {
            return Err(Lost("a value is not followed by CR LF".to_owned()));
        }
        let done = done + took;
        let complete = done == len + 2;
        self.at = if complete { At::Line } else { At::Body { len, done } };
        Ok((took, complete))
    }

    /// Whether the reply is over with this element.
    const fn element_done(&mut self) -> bool {
        self.pending = self.pending.saturating_sub(1);
        self.pending == 0
    }

    fn judge(&mut self, verdict: Verdict) {
        // The first element of an aggregate has already judged the reply.
        self.verdict.get_or_insert(verdict);
    }

    fn line_done(
        &mut self,
        protocol: Protocol,
        asked: Asked,
        values: &Values,
    ) -> Result<bool, Lost> {
        let line = std::mem::take(&mut self.line);
        let text = line
            .strip_suffix(b"\r\n")
            .ok_or_else(|| Lost("a reply line does not end in CR LF".to_owned()))?;
        let complete = match protocol {
            Protocol::Resp => self.resp_line(asked, values, text)?,
            Protocol::Memcache => self.memcache_line(asked, values, text)?,
        };
        self.line = line;
        self.line.clear();
        Ok(complete)
    }

    fn resp_line(&mut self, asked: Asked, values: &Values, text: &[u8]) -> Result<bool, Lost> {
        let shown = || String::from_utf8_lossy(text).into_owned();
        let Some((&kind, rest)) = text.split_first() else {
            return Err(Lost("an empty reply line".to_owned()));
        };
        match kind {
            b'+' if asked.set && rest == b"OK" => self.judge(Verdict::Right),
            b'$' if rest == b"-1" => {
                self.judge(if asked.set { Verdict::Wrong(shown()) } else { Verdict::Miss })
            }
            b'_' if !asked.set => self.judge(Verdict::Miss),
            b'$' | b'=' | b'!' => {
                let len = number(rest).ok_or_else(|| Lost(shown()))?;
                let right = kind == b'$' && !asked.set && len == values.len_bytes() as u64;
                self.judge(if right { Verdict::Right } else { Verdict::Wrong(shown()) });
                self.at = At::Body { len: usize::try_from(len).unwrap_or(usize::MAX), done: 0 };
                return Ok(false);
            }
            b'*' | b'~' | b'>' | b'%' | b'|' if rest != b"-1" => {
                let count = number(rest).ok_or_else(|| Lost(shown()))?;
                let elements = if matches!(kind, b'%' | b'|') { 2 * count } else { count };
                self.judge(Verdict::Wrong(shown()));
                self.pending = self.pending.saturating_sub(1) + elements;
                return Ok(self.pending == 0);
            }
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' | b'*' => {
                self.judge(Verdict::Wrong(shown()));
            }
            _ => return Err(Lost(shown())),
        }
        Ok(self.element_done())
    }

    fn memcache_line(&mut self, asked: Asked, values: &Values, text: &[u8]) -> Result<bool, Lost> {
        let shown = || String::from_utf8_lossy(text).into_owned();
        if let Some(rest) = text.strip_prefix(b"VALUE ") {
            let mut words = rest.split(|&byte| byte == b' ');
            let key = words.next().unwrap_or_default();
            let len = words.nth(1).and_then(number).ok_or_else(|| Lost(shown()))?;
            let right =
                !asked.set && key == key_name(asked.key) && len == values.len_bytes() as u64;
            self.judge(if right { Verdict::Right } else { Verdict::Wrong(shown()) });
            self.at = At::Body { len: usize::try_from(len).unwrap_or(usize::MAX), done: 0 };
            return Ok(false);
        }
        match text {
            b"END" => self.judge(if asked.set { Verdict::Wrong(shown()) } else { Verdict::Miss }),
            b"STORED" if asked.set => self.judge(Verdict::Right),
            _ => self.judge(Verdict::Wrong(shown())),
        }
        Ok(true)
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= ANNOUNCED_MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Asked = Asked { key: 77, set: false };
    const SET: Asked = Asked { key: 77, set: true };

    fn right_reply(protocol: Protocol, values: &Values) -> Vec<u8> {
        let mut reply = match protocol {
            Protocol::Resp => format!("${}\r\n", values.len_bytes()).into_bytes(),
            Protocol::Memcache => {
                format!("VALUE key:000000000077 0 {}\r\n", values.len_bytes()).into_bytes()
            }
        };
        values.write(77, &mut reply);
        reply.extend_from_slice(match protocol {
            Protocol::Resp => b"\r\n",
            Protocol::Memcache => b"\r\nEND\r\n",
        });
        reply
    }

    fn decode(protocol: Protocol, asked: Asked, values: &Values, reply: &[u8]) -> Verdict {
        let mut seen = None;
        for cut in 0..=reply.len() {
            let mut decoder = Decoder::default();
            let mut verdicts = Vec::new();
            for part in [&reply[..cut], &reply[cut..]] {
                let mut part = part;
                while !part.is_empty() {
                    let (used, verdict) =
                        decoder.feed(protocol, asked, values, part).expect("of the protocol");
                    part = &part[used..];
                    verdicts.extend(verdict);
                }
            }
            assert!(decoder.is_idle(), "cut at {cut}");
            assert_eq!(verdicts.len(), 1, "cut at {cut}");
            let verdict = verdicts.remove(0);
            if !matches!(verdict, Verdict::Wrong(_)) {
                assert!(seen.is_none() || seen == Some(verdict.clone()), "cut at {cut}");
            }
            seen = Some(verdict);
        }
        seen.expect("at least one cut")
    }

    #[test]
    fn right_replies_are_right_however_they_are_cut() {
        for protocol in [Protocol::Resp, Protocol::Memcache] {
            for len in [0, 1, 8, 64, 300] {
                let values = Values::new(len);
                let reply = right_reply(protocol, &values);
                assert_eq!(decode(protocol, GET, &values, &reply), Verdict::Right);
                let mut followed = reply.clone();
                followed.extend_from_slice(b"$9");
                assert_eq!(whole(protocol, GET, &values, &followed), Some(reply.len()));
                for short in 0..reply.len() {
                    assert_eq!(whole(protocol, GET, &values, &reply[..short]), None);
                }
            }
        }
        let values = Values::new(64);
        assert_eq!(decode(Protocol::Resp, SET, &values, b"+OK\r\n"), Verdict::Right);
        assert_eq!(whole(Protocol::Resp, SET, &values, b"+OK\r\n+OK\r\n"), Some(5));
        assert_eq!(decode(Protocol::Memcache, SET, &values, b"STORED\r\n"), Verdict::Right);
    }

    #[test]
    fn other_replies_are_told_apart() {
        let values = Values::new(16);
        let resp = |asked, reply: &[u8]| {
            assert_eq!(whole(Protocol::Resp, asked, &values, reply), None);
            decode(Protocol::Resp, asked, &values, reply)
        };
        assert_eq!(resp(GET, b"$-1\r\n"), Verdict::Miss);
        assert_eq!(resp(GET, b"_\r\n"), Verdict::Miss);
        let wrong: [(Asked, &[u8]); 7] = [
            (GET, b"-ERR no\r\n"),
            (GET, b"$3\r\nabc\r\n"),
            (GET, b"$16\r\n0000004eijklmnop\r\n"),
            (SET, b"$-1\r\n"),
            (SET, b"+QUEUED\r\n"),
            (GET, b"*2\r\n$1\r\na\r\n*1\r\n:5\r\n"),
            (GET, b"*0\r\n"),
        ];
        for (asked, reply) in wrong {
            let verdict = resp(asked, reply);
            assert!(matches!(verdict, Verdict::Wrong(_)), "{verdict:?}");
        }
        let verdict = decode(Protocol::Memcache, GET, &values, b"END\r\n");
        assert_eq!(verdict, Verdict::Miss);
        let verdict = decode(Protocol::Memcache, SET, &values, b"SERVER_ERROR oom\r\n");
        assert!(matches!(verdict, Verdict::Wrong(_)));
    }

    #[test]
    fn bytes_of_no_protocol_lose_the_stream() {
        let values = Values::new(16);
        let lost: [&[u8]; 5] =
            [b"hello\r\n", b"\r\n", b"$x\r\n", b"$99999999999\r\n", b"$1\r\nabc\r\n"];
        for bytes in lost {
            let mut decoder = Decoder::default();
            assert!(decoder.feed(Protocol::Resp, GET, &values, bytes).is_err(), "{bytes:?}");
        }
        let endless = vec![b'+'; LINE_MAX_BYTES + 1];
        let mut decoder = Decoder::default();
        assert!(decoder.feed(Protocol::Resp, GET, &values, &endless).is_err());
    }
}
