//! HTTP/1.1: kept connections, pipelines, bodies by length and in chunks (RFC 9112).
//!
//! A server answers the same request with the same head, but for the second in its date. So a
//! decoder remembers the head of the last right reply of each kind with the length of the body
//! after it, and a reply is found by one comparison; any other head is read line by line.
//! Invariants: a head is at most [`HEAD_MAX_BYTES`] long, the line of a chunk [`LINE_MAX_BYTES`];
//! bodies are compared as they pass; a reply whose end is that of its connection is refused.

use super::http::{Http, Reply};
use super::text::shown;
use super::{Asked, Fed, Lost};
use crate::load::arena::Values;

/// The longest head, or trailer.
pub const HEAD_MAX_BYTES: usize = 16 << 10;
/// The longest line with the length of a chunk.
pub const LINE_MAX_BYTES: usize = 256;
/// Largest body or chunk.
const BODY_MAX: u64 = 1 << 40;
const END: &[u8] = b"\r\n\r\n";

/// Appends one request.
pub fn encode(asked: Asked, values: &Values, http: &Http, to: &mut Vec<u8>) {
    let (method, path, host) = (http.method_of(asked), http.path_of(asked.key), &http.host);
    to.extend_from_slice(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
    if asked.set {
        to.extend_from_slice(format!("Content-Length: {}\r\n", values.len_bytes()).as_bytes());
    }
    to.extend_from_slice(b"\r\n");
    if asked.set {
        values.write(asked.key, to);
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Head,
    /// So much of the body is to come.
    Body(u64),
    /// In the line with a chunk's length.
    ChunkLine,
    /// So much of the chunk is to come, its CR LF included.
    Chunk(u64),
    /// After the last chunk, up to an empty line.
    Trailer,
}

/// A head whose reply was right, and the length of its body.
#[derive(Clone, Debug, Default)]
struct Known {
    head: Vec<u8>,
    body: u64,
}

/// Finds and checks one reply after another.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    at: At,
    /// The head or line begun.
    held: Vec<u8>,
    reply: Reply,
    /// By kind: GET, POST.
    known: [Known; 2],
}

impl Decoder {
    /// Whether it stands between two replies.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.at, At::Head) && self.held.is_empty()
    }

    /// The length of the reply at the front of `bytes` when it is all there and as one before.
    #[inline]
    #[must_use]
    pub fn whole(&self, asked: Asked, http: &Http, bytes: &[u8]) -> Option<usize> {
        let known = &self.known[usize::from(asked.set)];
        if !self.is_idle() || known.head.is_empty() {
            return None;
        }
        let body_len = usize::try_from(known.body).ok()?;
        let body = bytes.strip_prefix(&known.head[..])?.get(..body_len)?;
        if http.body_of(asked).is_some_and(|expected| body != expected) {
            return None;
        }
        Some(known.head.len() + body_len)
    }

    /// Takes bytes of the reply to `asked`.
    ///
    /// # Errors
    /// They are no HTTP/1.1, or the reply has no end but that of the connection.
    pub fn feed(&mut self, asked: Asked, http: &Http, bytes: &[u8]) -> Fed {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let (took, complete) = match self.at {
                At::Head => self.head(asked, http, rest)?,
                At::Body(left) => {
                    let took = left.min(rest.len() as u64);
                    self.reply.take(http, asked, &rest[..took as usize]);
                    self.at = At::Body(left - took);
                    (took as usize, left == took)
                }
                At::ChunkLine => (self.chunk_line(rest)?, false),
                At::Chunk(left) => (self.chunk(asked, http, rest, left)?, false),
                At::Trailer => self.trailer(rest)?,
            };
            used += took;
            if complete {
                self.at = At::Head;
                return Ok((used, Some(self.reply.verdict(http, asked))));
            }
        }
        Ok((used, None))
    }

    /// Takes bytes into `held` up to and with `end`; how many, and whether it is there.
    fn gather(&mut self, rest: &[u8], end: &[u8], max: usize) -> Result<(usize, bool), Lost> {
        let old = self.held.len();
        let room = rest.len().min(max + 1 - old.min(max));
        self.held.extend_from_slice(&rest[..room]);
        // The end may have begun in an earlier piece.
        let from = old.saturating_sub(end.len() - 1);
        if let Some(at) = self.held[from..].windows(end.len()).position(|part| part == end) {
            let len = from + at + end.len();
            self.held.truncate(len);
            return Ok((len - old, true));
        }
        if self.held.len() > max {
            return Err(Lost(format!("a head or line of more than {max} bytes")));
        }
        Ok((room, false))
    }

    fn head(&mut self, asked: Asked, http: &Http, rest: &[u8]) -> Result<(usize, bool), Lost> {
        let known = &self.known[usize::from(asked.set)];
        if self.held.is_empty() && !known.head.is_empty() && rest.starts_with(&known.head) {
            // A body of no bytes is found by `whole`, unless it is not what is expected.
            self.reply = Reply::begun(status_of(&known.head)?);
            self.at = At::Body(known.body);
            return Ok((known.head.len(), known.body == 0));
        }
        let (took, complete) = self.gather(rest, END, HEAD_MAX_BYTES)?;
        if !complete {
            return Ok((took, false));
        }
        let head = std::mem::take(&mut self.held);
        let status = status_of(&head)?;
        if (100..200).contains(&status) && status != 101 {
            // An interim reply: the final one follows.
            return Ok((took, false));
        }
        self.reply = Reply::begun(status);
        if header(&head, b"connection").any(|value| value.eq_ignore_ascii_case(b"close")) {
            return Err(Lost(format!(
                "status {status}, and the server closes: does it limit requests per connection?"
            )));
        }
        let framing =
            if http.has_body(asked, status) { framing_of(&head)? } else { Framing::Length(0) };
        match framing {
            Framing::Chunked => self.at = At::ChunkLine,
            Framing::Length(len) => {
                self.at = At::Body(len);
                if self.reply.is_right_with(http, asked, len) {
                    let known = &mut self.known[usize::from(asked.set)];
                    known.head.clone_from(&head);
                    known.body = len;
                }
            }
        }
        self.held = head;
        self.held.clear();
        Ok((took, framing == Framing::Length(0)))
    }

    fn chunk_line(&mut self, rest: &[u8]) -> Result<usize, Lost> {
        let (took, complete) = self.gather(rest, b"\r\n", LINE_MAX_BYTES)?;
        if !complete {
            return Ok(took);
        }
        let line = &self.held[..self.held.len() - 2];
        let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let text = std::str::from_utf8(digits).unwrap_or_default();
        let len = u64::from_str_radix(text, 16)
            .ok()
            .filter(|&len| len <= BODY_MAX && !text.starts_with('+'))
            .ok_or_else(|| Lost(format!("the length of a chunk: {:?}", shown(line))))?;
        self.held.clear();
        self.at = if len == 0 { At::Trailer } else { At::Chunk(len + 2) };
        Ok(took)
    }

    fn chunk(&mut self, asked: Asked, http: &Http, rest: &[u8], left: u64) -> Result<usize, Lost> {
        let took = left.min(rest.len() as u64);
        let data = left.saturating_sub(2).min(took);
        self.reply.take(http, asked, &rest[..data as usize]);
        let end_at = 2_u64.saturating_sub(left - data) as usize;
        if !b"\r\n"[end_at..].starts_with(&rest[data as usize..took as usize]) {
            return Err(Lost("a chunk is not followed by CR LF".to_owned()));
        }
        self.at = if left == took { At::ChunkLine } else { At::Chunk(left - took) };
        Ok(took as usize)
    }

    fn trailer(&mut self, rest: &[u8]) -> Result<(usize, bool), Lost> {
        let (took, complete) = self.gather(rest, b"\r\n", HEAD_MAX_BYTES)?;
        let last = self.held.len() == 2;
        if complete {
            self.held.clear();
        }
        Ok((took, complete && last))
    }
}

/// The status in the first line of a head.
fn status_of(head: &[u8]) -> Result<u16, Lost> {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let lost = || Lost(format!("not a status line: {:?}", shown(&line[..line.len().min(64)])));
    match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', a, b, c, rest @ ..]
            if [a, b, c].iter().all(|digit| digit.is_ascii_digit())
                && matches!(rest, [] | [b' ', ..])
                && *a != b'0' =>
        {
            Ok([a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0')))
        }
        _ => Err(lost()),
    }
}

/// The values of a header field.
fn header<'a>(head: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).filter_map(move |line| {
        let (found, value) = line.split_at_checked(line.iter().position(|&byte| byte == b':')?)?;
        found.eq_ignore_ascii_case(name).then(|| value[1..].trim_ascii())
    })
}

/// How the body after a head ends (RFC 9112, section 6.3).
fn framing_of(head: &[u8]) -> Result<Framing, Lost> {
    let last_coding = header(head, b"transfer-encoding").last();
    if last_coding.is_some_and(|value| value.to_ascii_lowercase().ends_with(b"chunked")) {
        return Ok(Framing::Chunked);
    }
    let mut length = None;
    for value in header(head, b"content-length") {
        let len = std::str::from_utf8(value)
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|&len| len <= BODY_MAX)
            .ok_or_else(|| Lost(format!("content-length: {:?}", shown(value))))?;
        if length.is_some_and(|other| other != len) {
            return Err(Lost("two values of content-length".to_owned()));
        }
        length = Some(len);
    }
    length
        .map(Framing::Length)
        .ok_or_else(|| Lost("a reply without length, which ends with its connection".to_owned()))
}
