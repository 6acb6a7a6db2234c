//! A minimal session for trying the hosts and the generator: PING, GET and SET in RESP on a flat
//! map, with no limits but those on a frame. Not a product.

use std::net::SocketAddr;

use view::{Flow, HashMap, Input, Instant, Output, Session};

use super::Service;

/// Commands in a batch before others get a turn.
const BATCH_MAX: usize = 1024;
/// Arguments of a command, at most.
const ARGS_MAX: usize = 3;
/// Bytes of an argument, at most.
const ARG_MAX_BYTES: usize = 64 << 20;

/// The map.
#[derive(Debug, Default)]
pub struct EchoShard {
    values: HashMap<Box<[u8]>, Box<[u8]>>,
}

/// A connection.
#[derive(Debug, Default)]
pub struct EchoSession;

/// Makes them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    type Session = EchoSession;

    fn shard(&self, _now: Instant) -> EchoShard {
        EchoShard::default()
    }

    fn open(&self, _shard: &mut EchoShard, _peer: SocketAddr, _now: Instant) -> EchoSession {
        EchoSession
    }

    fn perform(&self, work: (), _shard: &mut EchoShard, _now: Instant) -> Option<()> {
        Some(work)
    }
}

enum Frame<'a> {
    Command { args: [&'a [u8]; ARGS_MAX], count: usize, len: usize },
    Incomplete,
    Invalid,
}

/// A number and CR LF after `mark`: the number and what follows.
fn header(bytes: &[u8], mark: u8) -> Result<(usize, &[u8]), Frame<'static>> {
    let Some((&first, rest)) = bytes.split_first() else { return Err(Frame::Incomplete) };
    if first != mark {
        return Err(Frame::Invalid);
    }
    let mut number = 0_usize;
    for (at, &byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < 9 => number = number * 10 + usize::from(byte - b'0'),
            b'\r' if at > 0 => {
                return match rest.get(at + 1) {
                    Some(b'\n') => Ok((number, rest.get(at + 2..).unwrap_or_default())),
                    Some(_) => Err(Frame::Invalid),
                    None => Err(Frame::Incomplete),
                };
            }
            _ => return Err(Frame::Invalid),
        }
    }
    Err(Frame::Incomplete)
}

fn parse(bytes: &[u8]) -> Frame<'_> {
    let (count, mut rest) = match header(bytes, b'*') {
        Ok(parsed) => parsed,
        Err(frame) => return frame,
    };
    if count == 0 || count > ARGS_MAX {
        return Frame::Invalid;
    }
    let mut args: [&[u8]; ARGS_MAX] = [&[]; ARGS_MAX];
    for arg in args.iter_mut().take(count) {
        let (len, body) = match header(rest, b'$') {
            Ok(parsed) => parsed,
            Err(frame) => return frame,
        };
        if len > ARG_MAX_BYTES {
            return Frame::Invalid;
        }
        if body.len() < len + 2 {
            return Frame::Incomplete;
        }
        *arg = &body[..len];
        rest = &body[len + 2..];
    }
    Frame::Command { args, count, len: bytes.len() - rest.len() }
}

impl Session for EchoSession {
    type Shard = EchoShard;
    type Work = ();
    type Done = ();

    fn on_bytes(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Output,
        shard: &mut EchoShard,
        _now: Instant,
    ) -> Flow<()> {
        for _ in 0..BATCH_MAX {
            let (args, count, len) = match parse(input.remaining()) {
                Frame::Command { args, count, len } => (args, count, len),
                Frame::Incomplete => return Flow::NeedInput,
                Frame::Invalid => {
                    out.write(b"-ERR Protocol error\r\n");
                    return Flow::Close;
                }
            };
            match &args[..count] {
                [name, key] if name.eq_ignore_ascii_case(b"GET") => match shard.values.get(*key) {
                    Some(value) => {
                        out.write(format!("${}\r\n", value.len()).as_bytes());
                        out.write(value);
                        out.write(b"\r\n");
                    }
                    None => out.write(b"$-1\r\n"),
                },
                [name, key, value] if name.eq_ignore_ascii_case(b"SET") => {
                    shard.values.insert((*key).into(), (*value).into());
                    out.write(b"+OK\r\n");
                }
                [name] if name.eq_ignore_ascii_case(b"PING") => out.write(b"+PONG\r\n"),
                _ => out.write(b"-ERR unknown command\r\n"),
            }
            input.consume(len);
        }
        Flow::Flush
    }

    fn on_done(
        &mut self,
        _done: (),
        _out: &mut Output,
        _shard: &mut EchoShard,
        _now: Instant,
    ) -> Flow<()> {
        Flow::NeedInput
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_do_not_depend_on_how_input_is_cut() {
        let stream: &[u8] = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nxy\r\n\
            *2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nget\r\n$1\r\nb\r\n*1\r\n$4\r\nNONE\r\n";
        let expected = b"+PONG\r\n+OK\r\n$2\r\nxy\r\n$-1\r\n-ERR unknown command\r\n";
        for cut in 0..=stream.len() {
            let (mut shard, mut session) = (EchoShard::default(), EchoSession);
            let mut out = Output::default();
            let mut held = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                held.extend_from_slice(part);
                let mut input = Input::borrowed(&held);
                let flow = session.on_bytes(&mut input, &mut out, &mut shard, Instant::default());
                assert_eq!(flow, Flow::NeedInput);
                let consumed = input.consumed();
                held.drain(..consumed);
            }
            assert_eq!(out.to_vec(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn bad_input_closes() {
        for bad in [&b"hello\r\n"[..], b"*9\r\n", b"*1\r\n$x\r\n", b"*1\r\n$999999999\r\n"] {
            let (mut shard, mut out) = (EchoShard::default(), Output::default());
            let mut input = Input::borrowed(bad);
            let flow = EchoSession.on_bytes(&mut input, &mut out, &mut shard, Instant::default());
            assert_eq!(flow, Flow::Close);
        }
    }
}
