//! The client's side: replies from bytes, for load generators and tests.
//!
//! Invariants: bounded nesting, nothing allocated from an announced length.

/// One reply of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+text`.
    Simple(Vec<u8>),
    /// `-text`.
    Error(Vec<u8>),
    /// `:n`.
    Integer(i64),
    /// `$n` and bytes.
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`.
    Null,
    /// `*n`.
    Array(Vec<Self>),
    /// `%n`, in the order sent.
    Map(Vec<(Self, Self)>),
    /// `~n`.
    Set(Vec<Self>),
    /// `>n`.
    Push(Vec<Self>),
    /// `,d`.
    Double(f64),
    /// `#t` or `#f`.
    Boolean(bool),
    /// `=n` and `fmt:text`.
    Verbatim([u8; 3], Vec<u8>),
    /// `(digits`.
    BigNumber(Vec<u8>),
}

/// The bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where in the input.
    pub at: usize,
}

/// Deepest nesting understood.
const MAX_DEPTH: usize = 64;

/// One reply from the front of `bytes` and its length; `None` while it is incomplete.
///
/// # Errors
/// When the bytes are no reply, or nest deeper than 64.
pub fn decode_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, DecodeError> {
    let mut cursor = Cursor { bytes, at: 0 };
    Ok(cursor.reply(0)?.map(|reply| (reply, cursor.at)))
}

/// The length of the reply at the front of `bytes` without building it; `None` while incomplete.
///
/// # Errors
/// When the bytes are no reply.
pub fn skip_reply(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let mut cursor = Cursor { bytes, at: 0 };
    // Replies still to skip; nesting only adds to it.
    let mut open: u64 = 1;
    while open > 0 {
        open -= 1;
        let Some((kind, text)) = cursor.line()? else { return Ok(None) };
        match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => {}
            b'$' | b'=' => {
                let len = cursor.length(text)?;
                if let Some(len) = len
                    && cursor.take(len)?.is_none()
                {
                    return Ok(None);
                }
            }
            b'*' | b'~' | b'>' => {
                open = open.saturating_add(cursor.length(text)?.unwrap_or(0) as u64);
            }
            b'%' => {
                let pairs = cursor.length(text)?.unwrap_or(0) as u64;
                open = open.saturating_add(pairs.saturating_mul(2));
            }
            _ => return Err(DecodeError { at: cursor.at }),
        }
    }
    Ok(Some(cursor.at))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The type byte and the text of the line at the cursor.
    fn line(&mut self) -> Result<Option<(u8, &'a [u8])>, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|&byte| byte == b'\r') else { return Ok(None) };
        match rest.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                let [kind, text @ ..] = rest.get(..end).unwrap_or_default() else {
                    return Err(DecodeError { at: self.at });
                };
                self.at += end + 2;
                Ok(Some((*kind, text)))
            }
            Some(_) => Err(DecodeError { at: self.at + end }),
        }
    }

    /// A length; `None` for the null forms.
    fn length(&self, text: &[u8]) -> Result<Option<usize>, DecodeError> {
        match super::parse_i64(text) {
            Some(-1) => Ok(None),
            Some(len) => usize::try_from(len).map(Some).map_err(|_| DecodeError { at: self.at }),
            None => Err(DecodeError { at: self.at }),
        }
    }

    /// `len` bytes and the line end after them.
    fn take(&mut self, len: usize) -> Result<Option<&'a [u8]>, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (Some(body), Some(tail)) = (rest.get(..len), rest.get(len..)) else { return Ok(None) };
        match tail {
            [b'\r', b'\n', ..] => {
                self.at += len + 2;
                Ok(Some(body))
            }
            [] | [b'\r'] => Ok(None),
            _ => Err(DecodeError { at: self.at + len }),
        }
    }

    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, DecodeError> {
        let at = self.at;
        let invalid = DecodeError { at };
        if depth > MAX_DEPTH {
            return Err(invalid);
        }
        let Some((kind, text)) = self.line()? else { return Ok(None) };
        let reply = match kind {
            b'+' => Reply::Simple(text.to_vec()),
            b'-' => Reply::Error(text.to_vec()),
            b':' => Reply::Integer(super::parse_i64(text).ok_or(invalid)?),
            b',' => Reply::Double(double(text).ok_or(invalid)?),
            b'#' if text == b"t" => Reply::Boolean(true),
            b'#' if text == b"f" => Reply::Boolean(false),
            b'(' => Reply::BigNumber(text.to_vec()),
            b'_' => Reply::Null,
            b'$' | b'=' => return self.body(kind, text),
            b'*' | b'~' | b'>' | b'%' => return self.aggregate(kind, text, depth),
            _ => return Err(invalid),
        };
        Ok(Some(reply))
    }

    fn body(&mut self, kind: u8, text: &[u8]) -> Result<Option<Reply>, DecodeError> {
        let Some(len) = self.length(text)? else { return Ok(Some(Reply::Null)) };
        let Some(body) = self.take(len)? else { return Ok(None) };
        Ok(Some(match (kind, body) {
            (b'$', _) => Reply::Bulk(body.to_vec()),
            (_, [a, b, c, b':', text @ ..]) => Reply::Verbatim([*a, *b, *c], text.to_vec()),
            _ => return Err(DecodeError { at: self.at }),
        }))
    }

    fn aggregate(
        &mut self,
        kind: u8,
        text: &[u8],
        depth: usize,
    ) -> Result<Option<Reply>, DecodeError> {
        let Some(len) = self.length(text)? else { return Ok(Some(Reply::Null)) };
        if kind == b'%' {
            let mut pairs = Vec::new();
            for _ in 0..len {
                let Some(key) = self.reply(depth + 1)? else { return Ok(None) };
                let Some(value) = self.reply(depth + 1)? else { return Ok(None) };
                pairs.push((key, value));
            }
            return Ok(Some(Reply::Map(pairs)));
        }
        let mut items = Vec::new();
        for _ in 0..len {
            let Some(item) = self.reply(depth + 1)? else { return Ok(None) };
            items.push(item);
        }
        Ok(Some(match kind {
            b'~' => Reply::Set(items),
            b'>' => Reply::Push(items),
            _ => Reply::Array(items),
        }))
    }
}

fn double(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
