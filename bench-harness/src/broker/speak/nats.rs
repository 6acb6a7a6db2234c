//! The NATS client protocol with JetStream: each message is published with a subject for its acknowledgement, and read
//! through a push consumer with flow control.
//!
//! Sources: the client protocol of the NATS documentation; ADR-1 (JetStream JSON API), ADR-15 (subscribing, flow
//! control). Next: [`super::stream`].

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Consumer, Producer, Speaking, Workload, connect, stream_name};

const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\
    \"no_responders\":true,\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1}\r\nPING\r\n";
const PONG: &[u8] = b"PONG\r\n";
/// Where acknowledgements, or messages, of a connection arrive.
const INBOX: &str = "_INBOX.bench";
/// Longest line, and longest message.
const LINE_MAX: usize = 4096;
const MESSAGE_MAX: usize = 64 << 20;

/// What the server says.
#[derive(Debug, PartialEq)]
enum Said<'a> {
    /// A message: its reply subject, headers, payload.
    Message { reply: &'a str, headers: &'a [u8], payload: &'a [u8] },
    /// Wants a `PONG`.
    Ping,
    /// Everything sent before the `PING` was taken.
    Pong,
    /// Something that needs no answer.
    Nothing,
}

/// Length of the line at the front, its end included.
fn line_len(bytes: &[u8]) -> Result<Option<usize>> {
    match bytes.iter().take(LINE_MAX).position(|&byte| byte == b'\n') {
        Some(at) => Ok(Some(at + 1)),
        None if bytes.len() >= LINE_MAX => bail!("a line of more than {LINE_MAX} bytes"),
        None => Ok(None),
    }
}

/// The first thing said in `bytes`, with its length; `None` when it is not whole.
fn said(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>> {
    let Some(end) = line_len(bytes)? else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[..end]).context("a line that is no text")?.trim_end();
    let mut words = line.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    let with_headers = match kind {
        "MSG" => false,
        "HMSG" => true,
        "PING" => return Ok(Some((Said::Ping, end))),
        "PONG" => return Ok(Some((Said::Pong, end))),
        "+OK" | "INFO" => return Ok(Some((Said::Nothing, end))),
        _ => bail!("the server says {line:?}"),
    };
    let words: Vec<&str> = words.collect();
    let fixed = if with_headers { 4 } else { 3 };
    let (reply, sizes) = match words.len().checked_sub(fixed) {
        Some(0) => ("", &words[2..]),
        Some(1) => (words[2], &words[3..]),
        _ => bail!("the server says {line:?}"),
    };
    let size = |text: &&str| text.parse::<usize>().with_context(|| format!("a size in {line:?}"));
    let total = size(sizes.last().unwrap_or(&""))?;
    let headers_len = if with_headers { size(&sizes[0])? } else { 0 };
    ensure!(total <= MESSAGE_MAX && headers_len <= total, "a message of {line:?}");
    let Some(body) = bytes[end..].get(..total + 2) else { return Ok(None) };
    let (headers, payload) = body[..total].split_at(headers_len);
    Ok(Some((Said::Message { reply, headers, payload }, end + total + 2)))
}

/// What arrives, said by said: whole ones are taken where they arrived, the rest is kept.
#[derive(Default)]
struct Saids {
    rest: Vec<u8>,
}

impl Saids {
    fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Said<'_>) -> Result<()>) -> Result<()> {
        let mut all = |bytes: &[u8]| -> Result<usize> {
            let mut used = 0;
            while let Some((said, len)) = said(&bytes[used..])? {
                take(said)?;
                used += len;
            }
            Ok(used)
        };
        if self.rest.is_empty() {
            let used = all(bytes)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let used = all(&self.rest)?;
            self.rest.drain(..used);
        }
        Ok(())
    }
}

/// A connection that was greeted, and what arrived on it so far.
fn greet(addr: SocketAddr) -> Result<(TcpStream, Saids)> {
    let mut stream = connect(addr)?;
    let mut saids = Saids::default();
    stream.write_all(CONNECT)?;
    wait_for_pong(&mut stream, &mut saids)?;
    Ok((stream, saids))
}

/// Waits until the server has taken all that was sent before a `PING`.
fn wait_for_pong(stream: &mut TcpStream, saids: &mut Saids) -> Result<()> {
    let mut bytes = [0; 4096];
    let mut ponged = false;
    while !ponged {
        let len = stream.read(&mut bytes)?;
        ensure!(len > 0, "closed by the server");
        saids.feed(&bytes[..len], |said| {
            ponged |= said == Said::Pong;
            Ok(())
        })?;
    }
    Ok(())
}

/// Asks the JetStream API.
fn ask(addr: SocketAddr, subject: &str, request: &Value) -> Result<()> {
    let (mut stream, mut saids) = greet(addr)?;
    let body = request.to_string();
    write!(stream, "SUB {INBOX} 1\r\nPUB {subject} {INBOX} {}\r\n{body}\r\n", body.len())?;
    let mut bytes = [0; 4096];
    let mut answer = None;
    while answer.is_none() {
        let len = stream.read(&mut bytes)?;
        ensure!(len > 0, "closed by the server");
        saids.feed(&bytes[..len], |said| {
            if let Said::Message { payload, .. } = said {
                answer = Some(serde_json::from_slice::<Value>(payload).context("an answer")?);
            }
            Ok(())
        })?;
    }
    let answer = answer.unwrap_or_default();
    match answer.get("error") {
        Some(error) => bail!("{subject}: {error}"),
        None => Ok(()),
    }
}

pub(super) fn create(addr: SocketAddr, topic: &str, workload: &Workload) -> Result<()> {
    for partition in 0..workload.partitions {
        let name = stream_name(topic, partition);
        let config = json!({
            "name": name, "subjects": [name], "storage": "file", "retention": "limits",
            "discard": "old", "num_replicas": 1, "duplicate_window": 0,
        });
        ask(addr, &format!("$JS.API.STREAM.CREATE.{name}"), &config)?;
    }
    Ok(())
}

pub(super) fn producer(
    addr: SocketAddr,
    topic: &str,
    partition: u32,
    workload: &Workload,
) -> Result<Speaking<dyn Producer>> {
    let (mut stream, saids) = greet(addr)?;
    write!(stream, "SUB {INBOX}.{topic}.{partition} 1\r\n")?;
    let message = workload.message();
    let name = stream_name(topic, partition);
    let head = format!("PUB {name} {INBOX}.{topic}.{partition} {}\r\n", message.len());
    let one = [head.as_bytes(), &message, b"\r\n"].concat();
    let request = one.repeat(workload.batch_messages);
    Ok((stream, Box::new(Storing { request, saids, acknowledged: 0 })))
}

/// A producer of one stream.
struct Storing {
    request: Vec<u8>,
    saids: Saids,
    acknowledged: u64,
}

/// The sequence number in `{"stream":"…","seq":7}`, without parsing all of it for each message.
fn sequence(payload: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"seq\":";
    let at = payload.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let digits = payload[at..].iter().skip_while(|byte| **byte == b' ');
    let mut number = None;
    for digit in digits.take_while(|byte| byte.is_ascii_digit()) {
        number = Some(number.unwrap_or(0_u64) * 10 + u64::from(digit - b'0'));
    }
    number
}

impl Producer for Storing {
    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request);
    }

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let acknowledged = &mut self.acknowledged;
        self.saids.feed(bytes, |said| {
            match said {
                Said::Message { payload, headers, .. } => {
                    let said =
                        || String::from_utf8_lossy(&[headers, payload].concat()).into_owned();
                    let stored =
                        sequence(payload).with_context(|| format!("refused: {}", said()))?;
                    // The only producer of its stream, which counts from 1.
                    ensure!(stored == *acknowledged + 1, "acknowledged {stored}: {}", said());
                    *acknowledged = stored;
                }
                Said::Ping => out.extend_from_slice(PONG),
                Said::Pong | Said::Nothing => {}
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
    let (mut stream, mut saids) = greet(addr)?;
    let name = stream_name(topic, partition);
    let inbox = format!("{INBOX}.read.{name}");
    write!(stream, "SUB {inbox} 1\r\n")?;
    // So that the subscription is there when the consumer begins.
    stream.write_all(b"PING\r\n")?;
    wait_for_pong(&mut stream, &mut saids)?;
    let config = json!({
        "stream_name": name,
        "config": {
            "deliver_subject": inbox, "deliver_policy": "all", "ack_policy": "none",
            "replay_policy": "instant", "max_deliver": 1, "mem_storage": true,
            "flow_control": true, "idle_heartbeat": 5_000_000_000_u64,
        },
    });
    ask(addr, &format!("$JS.API.CONSUMER.CREATE.{name}"), &config)?;
    Ok((stream, Box::new(Reading { saids, delivered: 0 })))
}

/// A push consumer of one stream.
struct Reading {
    saids: Saids,
    delivered: u64,
}

/// The stream's sequence number in `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.…`; with more words in front
/// where the server has a domain.
fn delivered_sequence(reply: &str) -> Option<u64> {
    let words: Vec<&str> = reply.split('.').collect();
    let at = match words.len() {
        9 => 5,
        11.. => 7,
        _ => return None,
    };
    words.get(at)?.parse().ok()
}

/// Where a status message of the server wants an answer, so that it goes on.
fn flow_control<'a>(reply: &'a str, headers: &'a [u8]) -> Option<&'a str> {
    if !reply.is_empty() {
        return Some(reply);
    }
    let text = std::str::from_utf8(headers).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Nats-Consumer-Stalled:")).map(str::trim)
}

impl Consumer for Reading {
    fn begin(&mut self, _out: &mut Vec<u8>) {}

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let delivered = &mut self.delivered;
        self.saids.feed(bytes, |said| {
            match said {
                Said::Message { reply, headers, .. } if headers.starts_with(b"NATS/1.0 100") => {
                    if let Some(subject) = flow_control(reply, headers) {
                        write!(out, "PUB {subject} 0\r\n\r\n")?;
                    }
                }
                Said::Message { reply, .. } => {
                    let sequence = delivered_sequence(reply)
                        .with_context(|| format!("a message with reply {reply:?}"))?;
                    let due = *delivered + 1;
                    ensure!(sequence == due, "message {sequence} where {due} was due");
                    *delivered = sequence;
                }
                Said::Ping => out.extend_from_slice(PONG),
                Said::Pong | Said::Nothing => {}
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

    const ACK: &[u8] = b"MSG _INBOX.bench.0 1 29\r\n{\"stream\":\"bench-0\", \"seq\":1}\r\n";

    #[test]
    fn acknowledgements_are_counted_however_they_are_cut() {
        let second = b"PING\r\nMSG _INBOX.bench.0 1 28\r\n{\"stream\":\"bench-0\",\"seq\":2}\r\n";
        let bytes = [ACK, second].concat();
        for step in 1..bytes.len() {
            let mut storing =
                Storing { request: Vec::new(), saids: Saids::default(), acknowledged: 0 };
            let mut out = Vec::new();
            for piece in bytes.chunks(step) {
                storing.on_bytes(piece, &mut out).expect("well formed");
            }
            assert_eq!((storing.acknowledged(), &out[..]), (2, PONG));
        }
    }

    #[test]
    fn refusals_and_gaps_end_the_trial() {
        let storing = || Storing { request: Vec::new(), saids: Saids::default(), acknowledged: 0 };
        let mut out = Vec::new();
        for bytes in [
            &b"MSG i 1 26\r\n{\"error\":{\"code\":503,\"x\":1}}\r\n"[..],
            b"MSG i 1 11\r\n{\"seq\":  2}\r\n",
            b"HMSG i 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
            b"-ERR 'Authorization Violation'\r\n",
            b"MSG i 1 x\r\n",
        ] {
            assert!(storing().on_bytes(bytes, &mut out).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn messages_are_followed_and_flow_control_is_answered() {
        let mut reading = Reading { saids: Saids::default(), delivered: 0 };
        let mut out = Vec::new();
        let message = b"MSG bench-0 1 $JS.ACK.bench-0.c.1.1.1.17.0 3\r\nabc\r\n";
        let stalled = b"HMSG i 1 $JS.FC.x 36 36\r\nNATS/1.0 100 FlowControl Request\r\n\r\n\r\n";
        reading.on_bytes(&[&message[..], stalled].concat(), &mut out).expect("well formed");
        assert_eq!((reading.delivered(), &out[..]), (1, &b"PUB $JS.FC.x 0\r\n\r\n"[..]));
        assert!(reading.on_bytes(message, &mut out).is_err(), "the same again");
    }
}
