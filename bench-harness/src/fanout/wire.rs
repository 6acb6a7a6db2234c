//! The two protocols of fan-out: RESP with SUBSCRIBE and PUBLISH, NATS with SUB and PUB.
//!
//! All messages of a run have one length and a subscriber has one channel, so what stands before a message is known
//! byte by byte, and anything else is a line. Sources: the Redis documentation on Pub/Sub; the NATS client protocol.
//! Invariants: a decoder holds one message or one line, and no more than `LINE_MAX_BYTES` of a line; what it does
//! not know ends the connection.

use serde::{Deserialize, Serialize};

use super::message::{Head, Messages};
use crate::load::protocol::nats;

/// The longest line, its end included.
const LINE_MAX_BYTES: usize = 4096;
/// What is shown of what was not expected.
const SHOWN_BYTES: usize = 100;

/// What publishers and subscribers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PubSub {
    /// Redis: SUBSCRIBE and PUBLISH in RESP2.
    Resp,
    /// NATS: SUB and PUB.
    Nats,
}

impl PubSub {
    /// As users and the registry of servers write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resp => "resp",
            Self::Nats => "nats",
        }
    }

    /// The name of channel `index`. It holds the process, so that two loads do not meet on one server.
    #[must_use]
    pub fn channel(index: usize) -> String {
        format!("bench.{}.{index}", std::process::id())
    }

    /// What a publisher sends first; the answer says that it may begin.
    #[must_use]
    pub fn greet_publisher(self) -> Vec<u8> {
        match self {
            Self::Resp => b"PING\r\n".to_vec(),
            Self::Nats => [&nats::connect()[..], b"PING\r\n"].concat(),
        }
    }

    /// What a subscriber of channel `index` sends first; the answer says that it is one.
    #[must_use]
    pub fn greet_subscriber(self, index: usize) -> Vec<u8> {
        let name = Self::channel(index);
        match self {
            Self::Resp => {
                format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{name}\r\n", name.len()).into_bytes()
            }
            Self::Nats => {
                [&nats::connect()[..], format!("SUB {name} 1\r\nPING\r\n").as_bytes()].concat()
            }
        }
    }

    /// What stands before a message that is published on channel `index`.
    #[must_use]
    pub fn publish_head(self, index: usize, messages: &Messages) -> Vec<u8> {
        let (name, len) = (Self::channel(index), messages.len_bytes());
        match self {
            Self::Resp => format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{name}\r\n${len}\r\n", name.len()),
            Self::Nats => format!("PUB {name} {len}\r\n"),
        }
        .into_bytes()
    }

    /// What stands before a message that arrives from channel `index`.
    #[must_use]
    pub fn delivery_head(self, index: usize, messages: &Messages) -> Vec<u8> {
        let (name, len) = (Self::channel(index), messages.len_bytes());
        match self {
            Self::Resp => format!("*3\r\n$7\r\nmessage\r\n${}\r\n{name}\r\n${len}\r\n", name.len()),
            Self::Nats => format!("MSG {name} 1 {len}\r\n"),
        }
        .into_bytes()
    }
}

/// Appends a message to publish, after its `head` of [`PubSub::publish_head`].
#[inline]
pub fn publish(head: &[u8], message: Head, messages: &Messages, to: &mut Vec<u8>) {
    to.extend_from_slice(head);
    messages.write(message, to);
    to.extend_from_slice(b"\r\n");
}

/// What the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// The greeting is answered.
    Ready,
    /// A message.
    Message(&'a [u8]),
    /// A message was taken.
    Taken,
    /// An answer is wanted: [`PONG`].
    Ping,
}

/// What a NATS server's PING is answered with.
pub const PONG: &[u8] = b"PONG\r\n";

/// Finds what a server says on one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    protocol: PubSub,
    /// Before each message; empty for a publisher.
    head: Vec<u8>,
    /// What a subscription is answered with where that is more than a line.
    confirmation: Vec<u8>,
    /// Length of a message.
    len_bytes: usize,
    ready: bool,
    held: Vec<u8>,
}

impl Decoder {
    /// That of a publisher.
    #[must_use]
    pub fn publisher(protocol: PubSub, messages: &Messages) -> Self {
        let (head, confirmation) = (Vec::new(), Vec::new());
        let len_bytes = messages.len_bytes();
        Self { protocol, head, confirmation, len_bytes, ready: false, held: Vec::new() }
    }

    /// That of a subscriber of channel `index`.
    #[must_use]
    pub fn subscriber(protocol: PubSub, index: usize, messages: &Messages) -> Self {
        let name = PubSub::channel(index);
        let confirmation = match protocol {
            PubSub::Resp => {
                format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len()).into_bytes()
            }
            PubSub::Nats => Vec::new(),
        };
        let head = protocol.delivery_head(index, messages);
        Self { head, confirmation, ..Self::publisher(protocol, messages) }
    }

    /// Takes bytes, and calls `take` with each thing they say.
    ///
    /// # Errors
    /// They say something that was not expected.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Said<'_>)) -> Result<(), String> {
        if self.held.is_empty() {
            let used = self.all(bytes, &mut take)?;
            self.held.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let used = self.all(&held, &mut take)?;
        held.drain(..used);
        self.held = held;
        Ok(())
    }

    fn all(&mut self, bytes: &[u8], take: &mut impl FnMut(Said<'_>)) -> Result<usize, String> {
        let mut used = 0;
        while let Some((said, len)) = self.one(&bytes[used..])? {
            used += len;
            if let Some(said) = said {
                self.ready |= said == Said::Ready;
                take(said);
            }
        }
        Ok(used)
    }

    /// The first thing said, where it is whole, with its length.
    fn one<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Option<Said<'a>>, usize)>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if begins_alike(bytes, &self.head) {
            let (from, len) = (self.head.len(), self.len_bytes);
            let Some(rest) = bytes.get(from..from + len + 2) else { return Ok(None) };
            let (message, end) = rest.split_at(len);
            if end != b"\r\n" {
                return Err("a message is not followed by CR LF".to_owned());
            }
            return Ok(Some((Some(Said::Message(message)), from + len + 2)));
        }
        if !self.ready && begins_alike(bytes, &self.confirmation) {
            let len = self.confirmation.len();
            return Ok((bytes.len() >= len).then_some((Some(Said::Ready), len)));
        }
        let end = bytes.iter().take(LINE_MAX_BYTES).position(|&byte| byte == b'\n');
        let Some(end) = end else {
            if bytes.len() >= LINE_MAX_BYTES {
                return Err(format!("a line without end: {}", shown(bytes)));
            }
            return Ok(None);
        };
        let said = bytes[..end].strip_suffix(b"\r").and_then(|line| self.line(line));
        match said {
            Some(said) => Ok(Some((said?, end + 1))),
            None => Err(format!("the server says {}", shown(bytes))),
        }
    }

    /// What a line says; `None` for one that is not expected.
    fn line<'a>(&self, line: &[u8]) -> Option<Result<Option<Said<'a>>, String>> {
        let is_publisher = self.head.is_empty();
        let said = match (self.protocol, line) {
            (PubSub::Resp, b"+PONG") if is_publisher && !self.ready => Some(Said::Ready),
            (PubSub::Resp, [b':', digits @ ..])
                if is_publisher && self.ready && is_number(digits) =>
            {
                Some(Said::Taken)
            }
            (PubSub::Nats, b"PING") => Some(Said::Ping),
            (PubSub::Nats, b"PONG") if !self.ready => Some(Said::Ready),
            (PubSub::Nats, b"+OK") => None,
            (PubSub::Nats, [b'I', b'N', b'F', b'O', b' ', json @ ..]) => {
                if !self.ready
                    && let Err(why) = nats::check_info(json, self.len_bytes)
                {
                    return Some(Err(why));
                }
                None
            }
            _ => return None,
        };
        Some(Ok(said))
    }
}

/// Whether `bytes` may be the begin of something that starts with `head`.
#[inline]
fn begins_alike(bytes: &[u8], head: &[u8]) -> bool {
    let len = bytes.len().min(head.len());
    len > 0 && bytes[..len] == head[..len]
}

fn is_number(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [PubSub; 2] = [PubSub::Resp, PubSub::Nats];
    const INFO: &[u8] = b"INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n";

    fn head(number: u64) -> Head {
        // Its bytes look like the ends of lines.
        Head { publisher: 0x0a0d_0a0d, channel: 0x0a0d, number, intended_ns: 0x0a0d_0a0d }
    }

    /// What `stream` says when it comes in `pieces` of that size.
    fn said(mut decoder: Decoder, stream: &[u8], size: usize) -> Result<Vec<String>, String> {
        let messages = Messages::new(decoder.len_bytes);
        let mut all = Vec::new();
        for piece in stream.chunks(size) {
            decoder.feed(piece, |said| {
                all.push(match said {
                    Said::Message(bytes) => format!("{:?}", messages.read(bytes)),
                    other => format!("{other:?}"),
                });
            })?;
        }
        assert!(decoder.held.is_empty());
        Ok(all)
    }

    fn confirmation(protocol: PubSub) -> Vec<u8> {
        let name = PubSub::channel(5);
        match protocol {
            PubSub::Resp => {
                format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len()).into_bytes()
            }
            PubSub::Nats => [INFO, b"PONG\r\n"].concat(),
        }
    }

    #[test]
    fn a_subscriber_hears_its_messages_however_they_are_cut() {
        for (protocol, len) in BOTH.into_iter().flat_map(|both| [(both, 24), (both, 300)]) {
            let messages = Messages::new(len);
            let mut stream = confirmation(protocol);
            for number in 0..3 {
                publish(
                    &protocol.delivery_head(5, &messages),
                    head(number),
                    &messages,
                    &mut stream,
                );
                if protocol == PubSub::Nats {
                    stream.extend_from_slice(b"PING\r\n+OK\r\nINFO {}\r\n");
                }
            }
            let mut expected = vec!["Ready".to_owned()];
            for number in 0..3 {
                expected.push(format!("{:?}", Some(head(number))));
                expected.extend((protocol == PubSub::Nats).then(|| "Ping".to_owned()));
            }
            for size in 1..=stream.len() {
                let decoder = Decoder::subscriber(protocol, 5, &messages);
                assert_eq!(said(decoder, &stream, size).as_ref(), Ok(&expected), "{size}");
            }
        }
    }

    #[test]
    fn a_publisher_hears_that_it_may_begin_and_what_was_taken() {
        let messages = Messages::new(64);
        for (protocol, stream, expected) in [
            (PubSub::Resp, b"+PONG\r\n:0\r\n:17\r\n".to_vec(), vec!["Ready", "Taken", "Taken"]),
            (PubSub::Nats, [INFO, b"PONG\r\nPING\r\n"].concat(), vec!["Ready", "Ping"]),
        ] {
            for size in 1..=stream.len() {
                let decoder = Decoder::publisher(protocol, &messages);
                let heard = said(decoder, &stream, size).expect("of the protocol");
                assert_eq!(heard, expected, "{size}");
            }
        }
    }

    #[test]
    fn requests_are_those_of_the_protocols() {
        let messages = Messages::new(24);
        let name = PubSub::channel(2);
        let mut request = Vec::new();
        publish(&PubSub::Nats.publish_head(2, &messages), head(1), &messages, &mut request);
        assert!(request.starts_with(format!("PUB {name} 24\r\n").as_bytes()));
        assert!(request.ends_with(b"\r\n") && request.len() == name.len() + 9 + 24 + 2);
        let head = String::from_utf8(PubSub::Resp.publish_head(2, &messages)).expect("text");
        let len = name.len();
        assert_eq!(head, format!("*3\r\n$7\r\nPUBLISH\r\n${len}\r\n{name}\r\n$24\r\n"));
        let greeting = String::from_utf8(PubSub::Nats.greet_subscriber(2)).expect("text");
        assert!(
            greeting.starts_with("CONNECT {")
                && greeting.ends_with(&format!("SUB {name} 1\r\nPING\r\n"))
        );
        let greeting = String::from_utf8(PubSub::Resp.greet_subscriber(2)).expect("text");
        assert_eq!(greeting, format!("*2\r\n$9\r\nSUBSCRIBE\r\n${len}\r\n{name}\r\n"));
    }

    #[test]
    fn what_is_not_expected_ends_the_connection() {
        let messages = Messages::new(24);
        let subscriber = |protocol| Decoder::subscriber(protocol, 5, &messages);
        let publisher = |protocol| Decoder::publisher(protocol, &messages);
        let other_channel = Decoder::subscriber(PubSub::Resp, 6, &messages).confirmation;
        let mut longer = confirmation(PubSub::Resp);
        longer.extend(PubSub::Resp.delivery_head(5, &Messages::new(25)));
        let mut unended = confirmation(PubSub::Nats);
        publish(&PubSub::Nats.delivery_head(5, &messages), head(1), &messages, &mut unended);
        let at = unended.len() - 1;
        unended[at] = b'x';
        for (decoder, bytes) in [
            (subscriber(PubSub::Resp), other_channel),
            (subscriber(PubSub::Resp), b"-NOAUTH Authentication required.\r\n".to_vec()),
            (subscriber(PubSub::Resp), b":1\r\n".to_vec()),
            (subscriber(PubSub::Resp), longer),
            (subscriber(PubSub::Nats), unended),
            (subscriber(PubSub::Nats), b"-ERR 'Slow Consumer'\r\n".to_vec()),
            (subscriber(PubSub::Nats), b"INFO {\"max_payload\":23}\r\n".to_vec()),
            (subscriber(PubSub::Nats), b"INFO {\"tls_required\":true}\r\n".to_vec()),
            (subscriber(PubSub::Nats), b"PING\n".to_vec()),
            (publisher(PubSub::Resp), b":1\r\n".to_vec()),
            (publisher(PubSub::Resp), b"+PONG\r\n:-1\r\n".to_vec()),
            (publisher(PubSub::Resp), b"+PONG\r\n:\r\n".to_vec()),
            (publisher(PubSub::Resp), b"+PONG\r\n-OOM\r\n".to_vec()),
            (publisher(PubSub::Nats), [INFO, b"PONG\r\nMSG a 1 1\r\n"].concat()),
            (publisher(PubSub::Nats), vec![b'+'; LINE_MAX_BYTES]),
        ] {
            let heard = said(decoder, &bytes, bytes.len());
            assert!(heard.is_err(), "{}: {heard:?}", bytes.escape_ascii());
        }
        let mut decoder = publisher(PubSub::Nats);
        let longest = vec![b'+'; LINE_MAX_BYTES - 1];
        assert_eq!(decoder.feed(&longest, |_| {}), Ok(()), "it may still end");
        assert!(decoder.feed(b"+", |_| {}).is_err());
    }
}
