//! RabbitMQ's stream protocol: Publish with many messages in a frame, confirmations, chunks on credit.
//!
//! Source: PROTOCOL.adoc of rabbitmq-stream (3.10). Next: [`super::kafka`].

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Consumer, Frames, Producer, Speaking, Workload, connect, prefixed_len, read_frame, stream_name,
};

// Keys of commands; an answer has the highest bit as well.
const DECLARE_PUBLISHER: u16 = 0x0001;
const PUBLISH: u16 = 0x0002;
const PUBLISH_CONFIRM: u16 = 0x0003;
const SUBSCRIBE: u16 = 0x0007;
const DELIVER: u16 = 0x0008;
const CREDIT: u16 = 0x0009;
const CREATE: u16 = 0x000d;
const PEER_PROPERTIES: u16 = 0x0011;
const SASL_HANDSHAKE: u16 = 0x0012;
const SASL_AUTHENTICATE: u16 = 0x0013;
const TUNE: u16 = 0x0014;
const OPEN: u16 = 0x0015;
const HEARTBEAT: u16 = 0x0017;
const ANSWER: u16 = 0x8000;

const VERSION: u16 = 1;
const OK: u16 = 1;
/// The user that a fresh server has.
const USER: &[u8] = b"\0guest\0guest";
/// Chunks a consumer may be sent before it asks for more.
const CREDITS: u16 = 10;
/// Bytes of a frame before what a command says: length, key, version.
const HEAD_BYTES: usize = 8;
/// Bytes of a chunk before its messages, behind the subscription's number.
const CHUNK_BYTES: usize = 48;
const FIRST_OFFSET: u16 = 1;

/// A frame that is being written.
struct Frame(Vec<u8>);

impl Frame {
    fn new(key: u16) -> Self {
        Self(vec![0; 4]).u16(key).u16(VERSION)
    }

    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn text(mut self, text: &str) -> Self {
        self = self.u16(u16::try_from(text.len()).expect("names are short"));
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.u32(u32::try_from(bytes.len()).expect("checked with the workload"));
        self.0.extend_from_slice(bytes);
        self
    }

    fn done(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len() - 4).expect("checked with the workload");
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        self.0
    }
}

/// Numbers out of a frame.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>().context("a frame that ends early")?;
        self.0 = rest;
        Ok(*front)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.take()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.take()?))
    }
}

/// Key of a whole frame, and what follows its version.
fn opened(frame: &[u8]) -> Result<(u16, Fields<'_>)> {
    let mut fields = Fields(frame.get(4..).unwrap_or_default());
    let key = fields.u16()?;
    fields.u16()?;
    Ok((key, fields))
}

/// Asks and waits until it was answered with success.
fn call(mut stream: &TcpStream, key: u16, request: Frame) -> Result<()> {
    use std::io::Write as _;
    stream.write_all(&request.done())?;
    loop {
        let frame = read_frame(stream)?;
        let (answered, mut fields) = opened(&frame)?;
        if answered == HEARTBEAT {
            continue;
        }
        ensure!(answered == key | ANSWER, "command {answered:#x} where {key:#x} was asked");
        let (_number, code) = (fields.u32()?, fields.u16()?);
        ensure!(code == OK, "command {key:#x} is refused with code {code}");
        return Ok(());
    }
}

/// A connection that is logged in.
fn open(addr: SocketAddr) -> Result<TcpStream> {
    use std::io::Write as _;
    let stream = connect(addr)?;
    call(&stream, PEER_PROPERTIES, Frame::new(PEER_PROPERTIES).u32(1).u32(0))?;
    call(&stream, SASL_HANDSHAKE, Frame::new(SASL_HANDSHAKE).u32(2))?;
    let login = Frame::new(SASL_AUTHENTICATE).u32(3).text("PLAIN").bytes(USER);
    call(&stream, SASL_AUTHENTICATE, login)?;
    // The server proposes, the client answers with what it takes.
    let proposal = read_frame(&stream)?;
    let (key, mut fields) = opened(&proposal)?;
    ensure!(key == TUNE, "command {key:#x} where the server was to propose limits");
    let (frame_max, _heartbeat_s) = (fields.u32()?, fields.u32()?);
    (&stream).write_all(&Frame::new(TUNE).u32(frame_max).u32(0).done())?;
    call(&stream, OPEN, Frame::new(OPEN).u32(4).text("/"))?;
    Ok(stream)
}

pub(super) fn create(addr: SocketAddr, topic: &str, workload: &Workload) -> Result<()> {
    let stream = open(addr)?;
    for partition in 0..workload.partitions {
        let name = stream_name(topic, partition);
        call(&stream, CREATE, Frame::new(CREATE).u32(5).text(&name).u32(0))?;
    }
    Ok(())
}

pub(super) fn producer(
    addr: SocketAddr,
    topic: &str,
    partition: u32,
    workload: &Workload,
) -> Result<Speaking<dyn Producer>> {
    let stream = open(addr)?;
    let name = stream_name(topic, partition);
    let declare = Frame::new(DECLARE_PUBLISHER).u32(6).u8(0).text("").text(&name);
    call(&stream, DECLARE_PUBLISHER, declare)?;
    let message = workload.message();
    let count = u32::try_from(workload.batch_messages)?;
    let mut frame = Frame::new(PUBLISH).u8(0).u32(count);
    let first_at = frame.0.len();
    for _ in 0..count {
        frame = frame.u64(0).bytes(&message);
    }
    let storing = Storing {
        request: frame.done(),
        first_at,
        stride: 8 + 4 + message.len(),
        sent: 0,
        acknowledged: 0,
        frames: Frames::default(),
    };
    Ok((stream, Box::new(storing)))
}

/// A publisher of one stream.
struct Storing {
    request: Vec<u8>,
    /// Where the first message's number is, and how far it is from one to the next.
    first_at: usize,
    stride: usize,
    sent: u64,
    acknowledged: u64,
    frames: Frames,
}

impl Producer for Storing {
    fn request(&mut self, out: &mut Vec<u8>) {
        for number in self.request[self.first_at..].chunks_mut(self.stride) {
            number[..8].copy_from_slice(&self.sent.to_be_bytes());
            self.sent += 1;
        }
        out.extend_from_slice(&self.request);
    }

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let (sent, acknowledged) = (self.sent, &mut self.acknowledged);
        self.frames.feed(bytes, prefixed_len, |frame| {
            let (key, mut fields) = opened(frame)?;
            match key {
                PUBLISH_CONFIRM => {
                    fields.u8()?;
                    for _ in 0..fields.u32()? {
                        let number = fields.u64()?;
                        let due = *acknowledged;
                        ensure!(number == due && number < sent, "{number} where {due} was due");
                        *acknowledged += 1;
                    }
                }
                HEARTBEAT => out.extend_from_slice(&Frame::new(HEARTBEAT).done()),
                _ => bail!("command {key:#x}: messages were refused, or the stream is gone"),
            }
            Ok(())
        })
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

pub(super) fn consumer(
    addr: SocketAddr,
    topic: &str,
    partition: u32,
) -> Result<Speaking<dyn Consumer>> {
    let stream = open(addr)?;
    let reading = Reading {
        name: stream_name(topic, partition),
        subscribed: false,
        delivered: 0,
        frames: Frames::default(),
    };
    Ok((stream, Box::new(reading)))
}

/// A subscriber of one stream.
struct Reading {
    name: String,
    subscribed: bool,
    delivered: u64,
    frames: Frames,
}

/// Messages of a chunk, which must begin at offset `due`.
fn chunk_messages(mut fields: Fields<'_>, due: u64) -> Result<u64> {
    fields.u8()?;
    let whole = fields.0.len();
    // Magic and version, kind.
    fields.u16()?;
    let (_entries, messages) = (fields.u16()?, fields.u32()?);
    let (_time, _epoch, first) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (_checksum, len, trailer) = (fields.u32()?, fields.u32()?, fields.u32()?);
    ensure!(first == due, "a chunk at {first} where {due} was due");
    let there = whole.saturating_sub(CHUNK_BYTES);
    // What is behind the messages is the server's own, and need not be sent.
    let lengths = [u64::from(len), u64::from(len) + u64::from(trailer)];
    ensure!(lengths.contains(&(there as u64)), "{there} bytes where {len} were announced");
    Ok(u64::from(messages))
}

impl Consumer for Reading {
    fn begin(&mut self, out: &mut Vec<u8>) {
        let subscribe = Frame::new(SUBSCRIBE).u32(7).u8(0).text(&self.name);
        out.extend_from_slice(&subscribe.u16(FIRST_OFFSET).u16(CREDITS).u32(0).done());
    }

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let Self { subscribed, delivered, frames, .. } = self;
        frames.feed(bytes, prefixed_len, |frame| {
            let (key, mut fields) = opened(frame)?;
            match key {
                DELIVER => {
                    *delivered += chunk_messages(fields, *delivered)?;
                    out.extend_from_slice(&Frame::new(CREDIT).u8(0).u16(1).done());
                }
                HEARTBEAT => out.extend_from_slice(&Frame::new(HEARTBEAT).done()),
                _ if key == SUBSCRIBE | ANSWER && !*subscribed => {
                    let (_number, code) = (fields.u32()?, fields.u16()?);
                    ensure!(code == OK, "subscribing is refused with code {code}");
                    *subscribed = true;
                }
                _ => bail!("command {key:#x} of {} bytes", frame.len() - HEAD_BYTES),
            }
            Ok(())
        })
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: u64, messages: u32) -> Vec<u8> {
        let body = vec![0; 10];
        let frame = Frame::new(DELIVER).u8(0).u16(0x5000).u16(1).u32(messages).u64(17).u64(1);
        let frame = frame.u64(first).u32(0).u32(10).u32(0).u32(0);
        let mut frame = frame.0;
        frame.extend_from_slice(&body);
        Frame(frame).done()
    }

    #[test]
    fn messages_are_numbered_and_confirmed_in_order() {
        let request = Frame::new(PUBLISH).u8(0).u32(2).u64(0).bytes(b"abc").u64(0).bytes(b"abc");
        let mut storing = Storing {
            request: request.done(),
            first_at: HEAD_BYTES + 1 + 4,
            stride: 15,
            sent: 0,
            acknowledged: 0,
            frames: Frames::default(),
        };
        let mut out = Vec::new();
        storing.request(&mut out);
        storing.request(&mut out);
        let second = out.split_off(out.len() / 2);
        assert_eq!(second[13..21], 2_u64.to_be_bytes());
        assert_eq!(second[28..36], 3_u64.to_be_bytes());
        let confirm = |numbers: &[u64]| {
            let count = u32::try_from(numbers.len()).expect("few");
            let frame = Frame::new(PUBLISH_CONFIRM).u8(0).u32(count);
            numbers.iter().fold(frame, |frame, &number| frame.u64(number)).done()
        };
        let bytes = [confirm(&[0, 1]), confirm(&[2])].concat();
        for piece in bytes.chunks(5) {
            storing.on_bytes(piece, &mut out).expect("in order");
        }
        assert_eq!(storing.acknowledged(), 3);
        assert!(storing.on_bytes(&confirm(&[4]), &mut out).is_err(), "never sent");
        let refused = Frame::new(0x0004).u8(0).u32(1).u64(3).u16(2).done();
        assert!(storing.on_bytes(&refused, &mut out).is_err());
    }

    #[test]
    fn chunks_are_followed_on_credit_and_a_gap_is_found() {
        let mut reading = Reading {
            name: "s".to_owned(),
            subscribed: false,
            delivered: 0,
            frames: Frames::default(),
        };
        let mut out = Vec::new();
        reading.begin(&mut out);
        assert_eq!(out[..4], u32::try_from(out.len() - 4).expect("short").to_be_bytes());
        out.clear();
        let answer = Frame::new(SUBSCRIBE | ANSWER).u32(6).u16(OK).done();
        let bytes = [answer, chunk(0, 3), chunk(3, 2)].concat();
        for piece in bytes.chunks(11) {
            reading.on_bytes(piece, &mut out).expect("in order");
        }
        assert_eq!((reading.delivered(), out.len()), (5, 2 * (HEAD_BYTES + 3)));
        assert!(reading.on_bytes(&chunk(9, 1), &mut out).is_err());
        let refused = Frame::new(SUBSCRIBE | ANSWER).u32(6).u16(2).done();
        assert!(reading.on_bytes(&refused, &mut out).is_err());
    }
}
