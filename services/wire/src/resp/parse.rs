//! The incremental parser of requests.
//!
//! Invariants: nothing is allocated from an announced length (argument ranges are pushed only for
//! bytes that are there); a frame that arrives in pieces is not scanned again from its start once
//! it has more than a handful of arguments; `Incomplete` is returned for every proper prefix of a
//! valid frame, whatever the split.

use super::{args::Args, inline, number::parse_i64};

/// Bounds on one request, with Redis' defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest bulk string (`proto-max-bulk-len`).
    pub max_bulk_bytes: usize,
    /// Most arguments in one command. What bounds memory is `max_frame_bytes`: an argument takes at
    /// least six bytes of the frame and eight to remember.
    pub max_elements: usize,
    /// Longest inline line, and longest header line of an array or a bulk string.
    pub max_line_bytes: usize,
    /// Longest frame in all (`client-query-buffer-limit`). Redis takes arguments out of its buffer
    /// one by one and bounds what is left; here a frame stays whole, and all of it counts.
    pub max_frame_bytes: usize,
    /// Whether the peer has yet to authenticate: then 10 arguments of 16 KiB are the most.
    pub unauthenticated: bool,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        max_bulk_bytes: 512 << 20,
        max_elements: i32::MAX as usize,
        max_line_bytes: 64 << 10,
        max_frame_bytes: 1 << 30,
        unauthenticated: false,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the front of the input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole command; its arguments are in the [`Args`]. No arguments: an empty line or array,
    /// to be skipped without a reply.
    Command {
        /// Bytes to consume.
        frame_len: usize,
    },
    /// More bytes are needed.
    Incomplete {
        /// Where the frame ends at the earliest, while a bulk string of [`NEED_MIN_BYTES`] or more
        /// is awaited; exact when that is the last argument. Zero otherwise: a frame of many small
        /// strings tells nothing worth acting on with each of them.
        need: usize,
    },
    /// Not a request. Reply with the text, then close.
    Invalid(ProtocolError),
}

/// Why the input is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The array length is not a number, or too large.
    MultibulkLength,
    /// More arguments than a peer may send before authenticating.
    UnauthenticatedMultibulkLength,
    /// A header line of an array without an end.
    BigCount,
    /// An argument does not start with `$`, but with this byte.
    ExpectedBulk(u8),
    /// The bulk length is not a number, negative or too large.
    BulkLength,
    /// A longer argument than a peer may send before authenticating.
    UnauthenticatedBulkLength,
    /// A header line of a bulk string without an end.
    BigBulkCount,
    /// An inline line without an end.
    BigInline,
    /// Unbalanced quotes in an inline line.
    Quotes,
    /// The frame is longer than [`Limits::max_frame_bytes`]; Redis closes without a word then.
    BigFrame,
}

impl ProtocolError {
    /// Appends the error reply, in the words of Redis.
    pub fn write(self, out: &mut Vec<u8>) {
        let text = match self {
            Self::MultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::BigCount => "too big mbulk count string",
            Self::ExpectedBulk(_) => "expected '$', got '",
            Self::BulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::BigBulkCount => "too big bulk count string",
            Self::BigInline => "too big inline request",
            Self::Quotes => "unbalanced quotes in request",
            Self::BigFrame => return,
        };
        out.extend_from_slice(b"-ERR Protocol error: ");
        out.extend_from_slice(text.as_bytes());
        if let Self::ExpectedBulk(byte) = self {
            // A line end inside an error would end it.
            out.push(if matches!(byte, b'\r' | b'\n') { b' ' } else { byte });
            out.push(b'\'');
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Where a frame that arrives in pieces was left. Eight bytes while nothing is pending.
#[derive(Debug, Default)]
pub struct ParseState {
    pending: Option<Box<Pending>>,
}

#[derive(Debug)]
struct Pending {
    args: Args,
    at: usize,
    remaining: usize,
}

impl ParseState {
    /// A state with nothing pending.
    #[must_use]
    pub const fn new() -> Self {
        Self { pending: None }
    }

    /// Whether a partly scanned frame is remembered.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }
}

/// A bulk string of this size and more is worth making room for before it arrives.
pub const NEED_MIN_BYTES: usize = 16 << 10;
/// Fewer arguments than this are parsed again when more bytes arrive: that costs less than the
/// allocation which remembers them.
const REMEMBER_ARGS: usize = 8;
/// An unfinished inline line longer than this is not searched again from its start.
const REMEMBER_LINE_BYTES: usize = 512;

/// Reads one command from the front of `bytes` into `args`.
///
/// `state` belongs to the connection: while this returns `Incomplete`, call again with the same
/// bytes and more behind them.
#[inline]
pub fn parse_command(
    bytes: &[u8],
    args: &mut Args,
    limits: &Limits,
    state: &mut ParseState,
) -> Parsed {
    args.clear();
    if state.pending.is_some() {
        return resume(bytes, args, limits, state);
    }
    // One digit of arguments is every command but the long ones.
    if let [b'*', count @ b'1'..=b'9', b'\r', b'\n', ..] = bytes
        && usize::from(count - b'0') <= limits.max_elements
    {
        return elements(bytes, 4, usize::from(count - b'0'), args, limits, state);
    }
    match bytes.first() {
        Some(b'*') => multibulk(bytes, args, limits, state),
        Some(_) => line(bytes, 0, args, limits, state),
        None => Parsed::Incomplete { need: 0 },
    }
}

#[cold]
fn resume(bytes: &[u8], args: &mut Args, limits: &Limits, state: &mut ParseState) -> Parsed {
    let Some(pending) = state.pending.take() else {
        return Parsed::Incomplete { need: 0 };
    };
    let Pending { args: seen, at, remaining } = *pending;
    if remaining == 0 {
        return line(bytes, at, args, limits, state);
    }
    *args = seen;
    elements(bytes, at, remaining, args, limits, state)
}

/// An array whose header is not one of the short ones.
fn multibulk(bytes: &[u8], args: &mut Args, limits: &Limits, state: &mut ParseState) -> Parsed {
    match header(bytes, 0, limits) {
        Header::Line { value: Some(value), next } => match usize::try_from(value) {
            Err(_) | Ok(0) if value <= 0 => Parsed::Command { frame_len: next },
            Ok(count) if count <= limits.max_elements => {
                if count > 10 && limits.unauthenticated {
                    return Parsed::Invalid(ProtocolError::UnauthenticatedMultibulkLength);
                }
                elements(bytes, next, count, args, limits, state)
            }
            _ => Parsed::Invalid(ProtocolError::MultibulkLength),
        },
        Header::Line { value: None, .. } => Parsed::Invalid(ProtocolError::MultibulkLength),
        Header::More => Parsed::Incomplete { need: 0 },
        Header::Endless => Parsed::Invalid(ProtocolError::BigCount),
    }
}

enum Header {
    /// A whole line: its number, if it is one, and where the next line starts.
    Line {
        value: Option<i64>,
        next: usize,
    },
    More,
    Endless,
}

/// The line at `at`: one type byte, a number, CR and one more byte (Redis does not look at it).
fn header(bytes: &[u8], at: usize, limits: &Limits) -> Header {
    let rest = bytes.get(at..).unwrap_or_default();
    let window = rest.get(..limits.max_line_bytes.saturating_add(1)).unwrap_or(rest);
    match window.iter().position(|&byte| byte == b'\r') {
        Some(end) if end + 1 < rest.len() => {
            let value = rest.get(1..end).and_then(parse_i64);
            Header::Line { value, next: at + end + 2 }
        }
        Some(_) => Header::More,
        None if rest.len() > limits.max_line_bytes => Header::Endless,
        None => Header::More,
    }
}

/// `remaining` bulk strings from `at` on.
#[inline]
fn elements(
    bytes: &[u8],
    mut at: usize,
    mut remaining: usize,
    args: &mut Args,
    limits: &Limits,
    state: &mut ParseState,
) -> Parsed {
    while remaining > 0 {
        let (len, start) = match bytes.get(at..) {
            Some([b'$', len @ b'0'..=b'9', b'\r', _, ..]) => (usize::from(len - b'0'), at + 4),
            Some([b'$', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _, ..]) => {
                (usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), at + 5)
            }
            _ => match bulk_header(bytes, at, limits) {
                Ok(Some(header)) => header,
                Ok(None) if bytes.len() > limits.max_frame_bytes => {
                    return Parsed::Invalid(ProtocolError::BigFrame);
                }
                Ok(None) => return suspend(at, remaining, 0, args, state),
                Err(error) => return Parsed::Invalid(error),
            },
        };
        if len > limits.max_bulk_bytes {
            return Parsed::Invalid(ProtocolError::BulkLength);
        }
        let end = start + len;
        if end + 2 > bytes.len() {
            if end > limits.max_frame_bytes.min(u32::MAX as usize) {
                return Parsed::Invalid(ProtocolError::BigFrame);
            }
            let need = if len >= NEED_MIN_BYTES { end + 2 } else { 0 };
            return suspend(at, remaining, need, args, state);
        }
        let (Ok(from), Ok(to)) = (u32::try_from(start), u32::try_from(end)) else {
            return Parsed::Invalid(ProtocolError::BigFrame);
        };
        args.push(from, to);
        at = end + 2;
        remaining -= 1;
    }
    Parsed::Command { frame_len: at }
}

/// A bulk header that is not one of the short ones: length and start of the string.
fn bulk_header(
    bytes: &[u8],
    at: usize,
    limits: &Limits,
) -> Result<Option<(usize, usize)>, ProtocolError> {
    let (value, next) = match header(bytes, at, limits) {
        Header::Line { value, next } => (value, next),
        Header::More => return Ok(None),
        Header::Endless => return Err(ProtocolError::BigBulkCount),
    };
    match bytes.get(at) {
        Some(b'$') => {}
        Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        None => return Ok(None),
    }
    match value.map(usize::try_from) {
        Some(Ok(len)) if len <= limits.max_bulk_bytes => {
            if len > 16_384 && limits.unauthenticated {
                return Err(ProtocolError::UnauthenticatedBulkLength);
            }
            Ok(Some((len, next)))
        }
        _ => Err(ProtocolError::BulkLength),
    }
}

#[cold]
fn suspend(
    at: usize,
    remaining: usize,
    need: usize,
    args: &mut Args,
    state: &mut ParseState,
) -> Parsed {
    if args.len() >= REMEMBER_ARGS {
        let args = std::mem::take(args);
        state.pending = Some(Box::new(Pending { args, at, remaining }));
    }
    Parsed::Incomplete { need }
}

/// An inline command; `searched` bytes are known to hold no line end.
fn line(
    bytes: &[u8],
    searched: usize,
    args: &mut Args,
    limits: &Limits,
    state: &mut ParseState,
) -> Parsed {
    let window = bytes.get(..limits.max_line_bytes.saturating_add(2)).unwrap_or(bytes);
    let fresh = window.get(searched..).unwrap_or_default();
    let Some(end) = fresh.iter().position(|&byte| byte == b'\n') else {
        if bytes.len() > limits.max_line_bytes {
            return Parsed::Invalid(ProtocolError::BigInline);
        }
        if bytes.len() >= REMEMBER_LINE_BYTES {
            let pending = Pending { args: Args::new(), at: bytes.len(), remaining: 0 };
            state.pending = Some(Box::new(pending));
        }
        return Parsed::Incomplete { need: 0 };
    };
    let end = searched + end;
    let text = bytes.get(..end).unwrap_or_default();
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if inline::split(text, args) {
        Parsed::Command { frame_len: end + 1 }
    } else {
        Parsed::Invalid(ProtocolError::Quotes)
    }
}
