//! A small RESP2/RESP3 client for tests: blocking, strict, independent of the server's own codec.
//!
//! What: [`Reply`] keeps every wire distinction (null bulk, null array, RESP3 null), [`Client`] writes
//! requests and reads replies with a deadline. Why not the server's decoder: a bug shared by both
//! sides would be invisible.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for a reply before it calls the server hung.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Deepest nesting a reply may have.
const MAX_DEPTH: usize = 32;

/// One reply, with every distinction of the wire kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Verbatim(Vec<u8>),
    /// `$-1`, the null of RESP2.
    Nil,
    /// `*-1`.
    NilArray,
    /// `_`, the null of RESP3.
    Null,
    /// `*`, `%` (keys and values in turn), `~` or `>`.
    Seq(char, Vec<Self>),
    /// `,`, `#` or `(` with its text.
    Scalar(char, Vec<u8>),
    /// The server closed the connection.
    Closed,
    /// Nothing arrived for a while.
    Nothing,
}

impl Reply {
    /// The elements of an array, map, set or push; empty for the rest.
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::Seq(_, items) => items,
            _ => &[],
        }
    }

    /// The bytes of a string of any kind; empty for the rest.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Simple(text) | Self::Error(text) | Self::Bulk(text) | Self::Verbatim(text) => {
                text
            }
            _ => &[],
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

/// The wire form of one request.
pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A blocking connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: usize,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self { stream, buffer: Vec::new(), used: 0 })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// One request and its reply; [`Reply::Closed`] when the server hung up.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        match self.send_raw(&encode(args)) {
            Ok(()) => self.reply(),
            Err(error) if is_hangup(&error) => Ok(Reply::Closed),
            Err(error) => Err(error),
        }
    }

    /// The same from words separated by blanks.
    pub(crate) fn words(&mut self, words: &str) -> io::Result<Reply> {
        self.call(&words.split(' ').collect::<Vec<_>>())
    }

    /// The next reply; [`Reply::Closed`] at the end of the stream, an error after a half reply.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        if self.used == self.buffer.len() && !self.fill()? {
            return Ok(Reply::Closed);
        }
        self.value(0)
    }

    /// [`Reply::Nothing`] when no byte arrives in time, the next reply otherwise.
    pub(crate) fn reply_within(&mut self, wait: Duration) -> io::Result<Reply> {
        if self.used == self.buffer.len() {
            self.stream.set_read_timeout(Some(wait))?;
            let filled = self.fill();
            self.stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            match filled {
                Ok(true) => {}
                Ok(false) => return Ok(Reply::Closed),
                Err(error) if is_timeout(&error) => return Ok(Reply::Nothing),
                Err(error) => return Err(error),
            }
        }
        self.value(0)
    }

    /// Bytes received and not read yet, without waiting.
    pub(crate) fn pending(&mut self) -> Option<Vec<u8>> {
        if self.used == self.buffer.len() {
            self.stream.set_nonblocking(true).ok()?;
            let _ = self.fill();
            self.stream.set_nonblocking(false).ok()?;
        }
        let unread = &self.buffer[self.used..];
        (!unread.is_empty()).then(|| unread.to_vec())
    }

    /// Sends FIN and keeps reading.
    pub(crate) fn finish_writing(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads more bytes; false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        let mut chunk = [0_u8; 65536];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_hangup(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn fill_inside(&mut self) -> io::Result<()> {
        if self.fill()? { Ok(()) } else { Err(broken("the connection closed inside a reply")) }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.used..];
            if let Some(at) = unread[searched..].windows(2).position(|pair| pair == b"\r\n") {
                let line = unread[..searched + at].to_vec();
                self.used += searched + at + 2;
                return Ok(line);
            }
            searched = unread.len().saturating_sub(1);
            self.fill_inside()?;
        }
    }

    fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.used < len + 2 {
            self.fill_inside()?;
        }
        let end = self.used + len;
        if &self.buffer[end..end + 2] != b"\r\n" {
            return Err(broken("a bulk without its line end"));
        }
        let body = self.buffer[self.used..end].to_vec();
        self.used = end + 2;
        Ok(body)
    }

    fn value(&mut self, depth: usize) -> io::Result<Reply> {
        if depth > MAX_DEPTH {
            return Err(broken("a reply nested too deeply"));
        }
        let line = self.line()?;
        let Some((&kind, rest)) = line.split_first() else {
            return Err(broken("an empty reply line"));
        };
        Ok(match kind {
            b'+' => Reply::Simple(rest.to_vec()),
            b'-' => Reply::Error(rest.to_vec()),
            b':' => Reply::Int(number(rest)?),
            b'_' => Reply::Null,
            b',' | b'#' | b'(' => Reply::Scalar(char::from(kind), rest.to_vec()),
            b'$' | b'=' => match usize::try_from(number(rest)?) {
                Err(_) => Reply::Nil,
                Ok(len) if kind == b'$' => Reply::Bulk(self.exactly(len)?),
                Ok(len) => Reply::Verbatim(self.exactly(len)?),
            },
            b'*' | b'~' | b'>' | b'%' => match usize::try_from(number(rest)?) {
                Err(_) => Reply::NilArray,
                Ok(count) => {
                    let count = if kind == b'%' { 2 * count } else { count };
                    let items =
                        (0..count).map(|_| self.value(depth + 1)).collect::<io::Result<_>>()?;
                    Reply::Seq(char::from(kind), items)
                }
            },
            _ => return Err(broken(&format!("not a reply: {}", line.escape_ascii()))),
        })
    }
}

fn number(text: &[u8]) -> io::Result<i64> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| broken(&format!("not a number: {}", text.escape_ascii())))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The server hung up: with a FIN already read, or with a reset.
pub(crate) fn is_hangup(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted)
}

/// A read or write ran into its deadline.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
