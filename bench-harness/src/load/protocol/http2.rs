//! HTTP/2 in clear text with prior knowledge (RFC 9113): many requests of one connection at once,
//! each a stream, whose replies come in any order.
//!
//! A request is written once with stream number zero, and gets its number when it leaves
//! ([`Connection::number`]); replies are matched by it. What a connection owes its peer besides
//! (acknowledged settings and pings, window updates) is appended to its control bytes, which the
//! generator sends with the next requests or by themselves.
//! Invariants: no more streams are open than the server allows, [`STREAMS_MAX`] or a pipeline;
//! bodies leave within the server's window; a reset stream is a wrong reply, a GOAWAY the end of
//! the connection; memory is bounded by a header block of [`BLOCK_MAX_BYTES`]. Next: `hpack`.

use super::http::{Http, Reply};
use super::text::shown;
use super::{Asked, Lost, Verdict, hpack};
use crate::load::arena::Values;

/// The first window of a stream and of a connection, so the longest body that can be sent whole.
pub const BODY_MAX_BYTES: usize = 65_535;
/// Streams open at once on one connection.
pub const STREAMS_MAX: u32 = 256;
/// Until the server's settings are there: the least it should allow (section 6.5.2).
const STREAMS_FIRST: u32 = 100;
/// The longest header block of a reply.
pub const BLOCK_MAX_BYTES: usize = 64 << 10;
/// The longest frame, which is what both sides begin with; we allow no longer ones.
const FRAME_MAX_BYTES: usize = 16_384;
/// What a server may send on a connection before we say that we took it.
const WINDOW: u64 = 16 << 20;
const WINDOW_MAX: i64 = 0x7fff_ffff;
/// A connection has so many streams in its life.
const SEQUENCE_MAX: u32 = 1 << 30;
const HEAD_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// The preface and empty settings, to find out whether a server speaks HTTP/2.
pub const EMPTY_START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn put_frame(kind: u8, flags: u8, stream: u32, payload: &[u8], to: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    to.extend_from_slice(&len[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
    to.extend_from_slice(payload);
}

/// The preface, our settings, and the connection's window.
#[must_use]
pub fn greeting() -> Vec<u8> {
    let mut to = EMPTY_START[..EMPTY_START.len() - HEAD_LEN].to_vec();
    // No dynamic table, no pushes, and streams whose window a body does not fill.
    let settings = [(1_u16, 0_u32), (2, 0), (4, 0x7fff_ffff)];
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    put_frame(SETTINGS, 0, 0, &payload, &mut to);
    let more = u32::try_from(WINDOW).unwrap_or(0) - 65_535;
    put_frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes(), &mut to);
    to
}

/// Appends one request, with stream number zero.
pub fn encode(asked: Asked, values: &Values, http: &Http, to: &mut Vec<u8>) {
    let mut block = Vec::new();
    match http.method_of(asked) {
        "GET" => hpack::put_indexed(2, &mut block),
        "POST" => hpack::put_indexed(3, &mut block),
        other => hpack::put_literal(2, other.as_bytes(), &mut block),
    }
    hpack::put_indexed(6, &mut block);
    match &*http.path_of(asked.key) {
        "/" => hpack::put_indexed(4, &mut block),
        path => hpack::put_literal(4, path.as_bytes(), &mut block),
    }
    hpack::put_literal(1, http.host.as_bytes(), &mut block);
    if !asked.set {
        return put_frame(HEADERS, END_HEADERS | END_STREAM, 0, &block, to);
    }
    let mut body = Vec::new();
    values.write(asked.key, &mut body);
    hpack::put_literal(28, body.len().to_string().as_bytes(), &mut block);
    put_frame(HEADERS, END_HEADERS, 0, &block, to);
    let mut parts = body.chunks(FRAME_MAX_BYTES).peekable();
    if body.is_empty() {
        put_frame(DATA, END_STREAM, 0, &[], to);
    }
    while let Some(part) = parts.next() {
        put_frame(DATA, if parts.peek().is_none() { END_STREAM } else { 0 }, 0, part, to);
    }
}

/// The head of a frame (section 4.1).
#[derive(Clone, Copy, Debug)]
struct Frame {
    len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn parse(head: &[u8; HEAD_LEN]) -> Self {
        let [a, b, c, kind, flags, s, t, u, v] = *head;
        Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff,
        }
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A stream, while it is open.
#[derive(Clone, Debug, Default)]
struct Slot {
    sequence: u32,
    open: bool,
    set: bool,
    reply: Reply,
}

/// What became of a request: its place among those of its connection, and what came back.
pub type Answer = (u32, Verdict);

/// One connection's streams.
#[derive(Debug)]
pub struct Connection {
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// The frame whose payload is coming, and how much of it is to come.
    frame: Option<Frame>,
    left: usize,
    /// Payload of a frame that came in pieces.
    held: Vec<u8>,
    /// A header block that goes on in the next frame, its stream, and whether that ends.
    block: Vec<u8>,
    block_of: Option<(u32, bool)>,
    /// The last block with a status, and that: a server sends the same one for a second.
    known: Vec<u8>,
    known_status: u16,
    /// Open streams, by their sequence modulo the length, which is a power of two.
    slots: Vec<Slot>,
    /// Sequence of the next request.
    next: u32,
    open: u32,
    /// Sequence of the oldest request that the generator keeps a time for.
    pub(crate) oldest: u32,
    streams_max: u32,
    /// What the server lets us send, on the connection.
    window: i64,
    /// Bytes taken that the server has not been told of.
    taken: u64,
    /// Longest body we send.
    body_len: usize,
}

impl Connection {
    /// One with at most `in_flight` requests without a reply, and bodies of `body_len` bytes.
    #[must_use]
    pub fn new(in_flight: u32, body_len: usize) -> Self {
        // Twice as many as may be open: one slow stream does not stop the others.
        let slots = (2 * in_flight.clamp(1, STREAMS_MAX)).next_power_of_two();
        Self {
            head: [0; HEAD_LEN],
            head_len: 0,
            frame: None,
            left: 0,
            held: Vec::new(),
            block: Vec::new(),
            block_of: None,
            known: Vec::new(),
            known_status: 0,
            slots: vec![Slot::default(); slots as usize],
            next: 0,
            open: 0,
            oldest: 0,
            streams_max: STREAMS_FIRST,
            window: BODY_MAX_BYTES as i64,
            taken: 0,
            body_len,
        }
    }

    /// How many of the next `count` requests may leave now; `body_of` tells the length of a body.
    pub fn room(&self, count: u32, body_of: impl Fn(u32) -> usize) -> u32 {
        let free = self.streams_max.min(STREAMS_MAX).saturating_sub(self.open).min(count);
        let mut window = self.window;
        for at in 0..free.min(SEQUENCE_MAX - self.next) {
            window -= body_of(at) as i64;
            if self.slots[self.slot_of(self.next + at)].open || (window < 0 && body_of(at) > 0) {
                return at;
            }
        }
        free.min(SEQUENCE_MAX - self.next)
    }

    /// Gives `requests`, encoded ones, their streams' numbers: they leave now.
    pub fn number(&mut self, requests: &mut [u8]) {
        let mut at = 0;
        let mut stream = 0;
        while let Some(head) = requests.get_mut(at..at + HEAD_LEN) {
            let (number, len) = (&head[..4], u32::from_be_bytes([0, head[0], head[1], head[2]]));
            if number[3] == HEADERS {
                stream = 2 * self.next + 1;
                let slot = self.slot_of(self.next);
                let set = head[4] & END_STREAM == 0;
                let (sequence, reply) = (self.next, Reply::default());
                self.slots[slot] = Slot { sequence, open: true, set, reply };
                self.next += 1;
                self.open += 1;
            } else {
                self.window -= i64::from(len);
            }
            head[5..].copy_from_slice(&stream.to_be_bytes());
            at += HEAD_LEN + len as usize;
        }
    }

    fn slot_of(&self, sequence: u32) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }

    /// Takes bytes: how many, and what they answer. Without an answer all bytes are taken. What is
    /// owed to the server is appended to `control`.
    ///
    /// # Errors
    /// They are no HTTP/2, or the server ends the connection.
    pub fn feed(
        &mut self,
        http: &Http,
        bytes: &[u8],
        control: &mut Vec<u8>,
    ) -> Result<(usize, Option<Answer>), Lost> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let Some(frame) = self.frame else {
                let took = rest.len().min(HEAD_LEN - self.head_len);
                self.head[self.head_len..self.head_len + took].copy_from_slice(&rest[..took]);
                self.head_len += took;
                used += took;
                if self.head_len < HEAD_LEN {
                    break;
                }
                self.head_len = 0;
                let frame = self.begin(control)?;
                if frame.len == 0
                    && let Some(answer) = self.end(http, frame, &[], control)?
                {
                    return Ok((used, Some(answer)));
                }
                continue;
            };
            let part = &rest[..self.left.min(rest.len())];
            used += part.len();
            self.left -= part.len();
            let is_over = self.left == 0;
            let answer = if frame.kind == DATA && !frame.has(PADDED) {
                self.data(http, frame, part)?;
                if is_over { self.end(http, frame, &[], control)? } else { None }
            } else if is_over && self.held.is_empty() {
                self.end(http, frame, part, control)?
            } else {
                self.held.extend_from_slice(part);
                if is_over {
                    let held = std::mem::take(&mut self.held);
                    let answer = self.end(http, frame, &held, control)?;
                    self.held = held;
                    self.held.clear();
                    answer
                } else {
                    None
                }
            };
            if answer.is_some() {
                return Ok((used, answer));
            }
        }
        Ok((used, None))
    }

    /// The head of a frame is there.
    fn begin(&mut self, control: &mut Vec<u8>) -> Result<Frame, Lost> {
        let frame = Frame::parse(&self.head);
        if frame.len > FRAME_MAX_BYTES {
            let start = shown(&self.head);
            return Err(Lost(format!("a frame of {} bytes ({start:?}): not HTTP/2", frame.len)));
        }
        let expected = self.block_of.map(|(stream, _)| (CONTINUATION, stream));
        let is_block_continued = frame.kind == CONTINUATION || expected.is_some();
        if is_block_continued && expected != Some((frame.kind, frame.stream)) {
            return Err(Lost(format!("frame type {} within a header block", frame.kind)));
        }
        if frame.kind == DATA {
            self.taken += frame.len as u64;
            if self.taken > WINDOW {
                return Err(Lost("more data than the window allows".to_owned()));
            }
            if self.taken > WINDOW / 2 {
                let taken = u32::try_from(self.taken).unwrap_or(0);
                put_frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes(), control);
                self.taken = 0;
            }
        }
        self.left = frame.len;
        self.frame = (frame.len > 0).then_some(frame);
        Ok(frame)
    }

    /// A frame is over. Its payload is all there, except that of unpadded data, which has passed.
    fn end(
        &mut self,
        http: &Http,
        frame: Frame,
        payload: &[u8],
        control: &mut Vec<u8>,
    ) -> Result<Option<Answer>, Lost> {
        self.frame = None;
        match frame.kind {
            DATA => {
                self.data(http, frame, unpadded(frame, payload)?)?;
                Ok(if frame.has(END_STREAM) { Some(self.close(http, frame.stream)?) } else { None })
            }
            HEADERS => {
                let mut block = unpadded(frame, payload)?;
                if frame.has(PRIORITY) {
                    block = block.get(5..).ok_or_else(|| short(frame))?;
                }
                let is_last = frame.has(END_STREAM);
                if frame.has(END_HEADERS) {
                    return self.headers(http, frame.stream, is_last, block);
                }
                self.block.extend_from_slice(block);
                self.block_of = Some((frame.stream, is_last));
                Ok(None)
            }
            CONTINUATION => self.continuation(http, frame, payload),
            RST_STREAM => {
                let code = number(payload).ok_or_else(|| short(frame))?;
                if self.find(frame.stream)?.is_none() {
                    // After the whole reply: the body of the request was not wanted.
                    return Ok(None);
                }
                let (sequence, _) = self.close(http, frame.stream)?;
                Ok(Some((sequence, Verdict::Wrong(format!("RST_STREAM with code {code}")))))
            }
            PUSH_PROMISE => Err(Lost("a push, which our settings forbid".to_owned())),
            GOAWAY => {
                let code = payload.get(4..).and_then(number).ok_or_else(|| short(frame))?;
                let hint = if code == 0 { ": does it limit requests per connection?" } else { "" };
                let debug = shown(payload.get(8..).unwrap_or_default());
                Err(Lost(format!("GOAWAY with code {code} {debug}{hint}")))
            }
            _ => self.control(frame, payload, control).map(|()| None),
        }
    }

    fn control(&mut self, frame: Frame, payload: &[u8], control: &mut Vec<u8>) -> Result<(), Lost> {
        match frame.kind {
            SETTINGS if !frame.has(ACK) => {
                for setting in payload.chunks(6) {
                    let &[a, b, ref value @ ..] = setting else { return Err(short(frame)) };
                    let value = number(value).ok_or_else(|| short(frame))?;
                    self.set(u16::from_be_bytes([a, b]), value)?;
                }
                put_frame(SETTINGS, ACK, 0, &[], control);
            }
            PING if payload.len() != 8 => return Err(short(frame)),
            PING if !frame.has(ACK) => put_frame(PING, ACK, 0, payload, control),
            // A body fits the first window of its stream.
            WINDOW_UPDATE if frame.stream == 0 => {
                let more = number(payload).ok_or_else(|| short(frame))? & 0x7fff_ffff;
                self.window += i64::from(more);
                if more == 0 || self.window > WINDOW_MAX {
                    return Err(Lost(format!("a window update of {more} bytes")));
                }
            }
            // Of other types, known or not, nothing follows for us.
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), Lost> {
        match name {
            3 if value == 0 => Err(Lost("the server allows no streams".to_owned())),
            3 => {
                self.streams_max = value;
                Ok(())
            }
            4 if (value as usize) < self.body_len => Err(Lost(format!(
                "the server takes {value} bytes of a body at once, and ours have {}",
                self.body_len
            ))),
            _ => Ok(()),
        }
    }

    fn continuation(
        &mut self,
        http: &Http,
        frame: Frame,
        payload: &[u8],
    ) -> Result<Option<Answer>, Lost> {
        let Some((stream, is_last)) = self.block_of else { return Err(short(frame)) };
        self.block.extend_from_slice(payload);
        if self.block.len() > BLOCK_MAX_BYTES {
            return Err(Lost(format!("a header block of more than {BLOCK_MAX_BYTES} bytes")));
        }
        if !frame.has(END_HEADERS) {
            return Ok(None);
        }
        self.block_of = None;
        let block = std::mem::take(&mut self.block);
        let answer = self.headers(http, stream, is_last, &block);
        self.block = block;
        self.block.clear();
        answer
    }

    /// A header block is complete.
    fn headers(
        &mut self,
        http: &Http,
        stream: u32,
        is_last: bool,
        block: &[u8],
    ) -> Result<Option<Answer>, Lost> {
        let status = if !block.is_empty() && block == self.known {
            Some(self.known_status)
        } else {
            let status = hpack::status(block)?;
            if let Some(status) = status {
                self.known.clear();
                self.known.extend_from_slice(block);
                self.known_status = status;
            }
            status
        };
        let slot = self.find(stream)?.ok_or_else(|| over(stream))?;
        let reply = &mut self.slots[slot].reply;
        match status {
            // After the body: a trailer.
            _ if reply.status != 0 && is_last => {}
            Some(100..=199) if reply.status == 0 && !is_last => {}
            Some(status) if reply.status == 0 => *reply = Reply::begun(status),
            _ => return Err(Lost(format!("a header block without place on stream {stream}"))),
        }
        Ok(if is_last { Some(self.close(http, stream)?) } else { None })
    }

    fn data(&mut self, http: &Http, frame: Frame, part: &[u8]) -> Result<(), Lost> {
        let slot = self.find(frame.stream)?.ok_or_else(|| over(frame.stream))?;
        let slot = &mut self.slots[slot];
        if slot.reply.status == 0 {
            return Err(Lost(format!("data before the status on stream {}", frame.stream)));
        }
        let asked = Asked { key: 0, set: slot.set };
        slot.reply.take(http, asked, part);
        Ok(())
    }

    /// The slot of an open stream; none of one that is over.
    fn find(&self, stream: u32) -> Result<Option<usize>, Lost> {
        let sequence = stream / 2;
        if stream.is_multiple_of(2) || sequence >= self.next {
            return Err(Lost(format!("stream {stream}, which nobody opened")));
        }
        let at = self.slot_of(sequence);
        let slot = &self.slots[at];
        Ok((slot.open && slot.sequence == sequence).then_some(at))
    }

    /// A stream is over.
    fn close(&mut self, http: &Http, stream: u32) -> Result<Answer, Lost> {
        let slot = self.find(stream)?.ok_or_else(|| over(stream))?;
        let slot = &mut self.slots[slot];
        slot.open = false;
        self.open -= 1;
        if self.next == SEQUENCE_MAX && self.open == 0 {
            return Err(Lost("all streams of the connection are used".to_owned()));
        }
        Ok((slot.sequence, slot.reply.verdict(http, Asked { key: 0, set: slot.set })))
    }
}

fn over(stream: u32) -> Lost {
    Lost(format!("a frame for stream {stream}, which is over"))
}

fn short(frame: Frame) -> Lost {
    Lost(format!("a frame of type {} with {} bytes", frame.kind, frame.len))
}

/// The number that a payload begins with.
fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*payload.first_chunk()?))
}

/// A payload without its padding.
fn unpadded(frame: Frame, payload: &[u8]) -> Result<&[u8], Lost> {
    if !frame.has(PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or_else(|| short(frame))?;
    let len = rest.len().checked_sub(usize::from(padding)).ok_or_else(|| short(frame))?;
    Ok(&rest[..len])
}
