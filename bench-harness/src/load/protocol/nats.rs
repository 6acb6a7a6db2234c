//! NATS: each connection publishes to a subject of its own, and its reply is the message that comes back.
//!
//! Requests are written once for all connections, so a subject has a fixed length and is put in when a request
//! leaves, as HTTP/2 does with its stream numbers. Source: the client protocol of the NATS documentation
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>). Invariants: CONNECT turns off `+OK`, so that a
//! request has one reply; INFO and PING, which a server sends when it likes, are no replies; PONGs owed are bounded.

use super::text::{Ended, Text, number, shown, trimmed, value_after_length};
use super::{Asked, Fed, Lost, Verdict};
use crate::load::arena::Values;

/// Length of every subject.
const SUBJECT_LEN_BYTES: usize = 14;
/// Where a request has its subject: after `PUB `.
const SUBJECT_AT: usize = 4;
/// Connections that have subjects of their own.
pub(super) const CONNECTIONS_MAX: usize = 1 << CONNECTION_BITS;
const CONNECTION_BITS: u32 = 20;
/// PINGs that may wait for their PONG: more is a server that does not read.
const PINGS_MAX: u32 = 1024;
/// What a PING is answered with.
const PONG: &[u8] = b"PONG\r\n";

/// The subject of connection `index`. It also depends on the process, so that two loads on one server meet only
/// by a bad chance, which then shows as wrong replies.
pub(super) fn subject(index: usize) -> [u8; SUBJECT_LEN_BYTES] {
    let mut subject = *b"bench.00000000";
    let process = std::process::id() << CONNECTION_BITS;
    let index = u32::try_from(index % CONNECTIONS_MAX).unwrap_or(0);
    let number = process | index;
    for (at, digit) in subject[6..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (28 - 4 * at) & 15) as usize];
    }
    subject
}

/// What every client sends first. It need not wait for the server's INFO, which is on its way.
pub(crate) fn connect() -> Vec<u8> {
    format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":false,\"echo\":true,\"lang\":\"rust\",\
         \"version\":\"{}\",\"protocol\":1}}\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}

/// Whether what a server says of itself in INFO lets us send messages of `len_bytes`.
///
/// # Errors
/// It says what it wants that we do not do.
pub(crate) fn check_info(json: &[u8], len_bytes: usize) -> Result<(), String> {
    let info: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| format!("INFO {}: {error}", shown(json)))?;
    for wanted in ["tls_required", "auth_required"] {
        if info[wanted] == true {
            return Err(format!(
                "the NATS server says {wanted}, which this load does not do: start it without"
            ));
        }
    }
    match info["max_payload"].as_u64() {
        Some(max) if len_bytes as u64 > max => Err(format!(
            "messages of {len_bytes} bytes: the NATS server takes at most {max} (its max_payload)"
        )),
        _ => Ok(()),
    }
}

/// What connection `index` sends first: it subscribes to its own subject.
pub fn greeting(index: usize) -> Vec<u8> {
    [&connect()[..], b"SUB ", &subject(index), b" 1\r\n"].concat()
}

/// Appends one request, with the subject of the first connection.
pub fn encode(asked: Asked, values: &Values, to: &mut Vec<u8>) {
    to.extend_from_slice(b"PUB ");
    to.extend_from_slice(&subject(0));
    to.extend_from_slice(format!(" {}\r\n", values.len_bytes()).as_bytes());
    values.write(asked.key, to);
    to.extend_from_slice(b"\r\n");
}

/// Length of every request.
const fn request_len(values: &Values) -> usize {
    let len = values.len_bytes();
    let digits = if len == 0 { 1 } else { len.ilog10() as usize + 1 };
    SUBJECT_AT + SUBJECT_LEN_BYTES + 1 + digits + 2 + len + 2
}

/// Finds and checks one message after another, on one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    text: Text,
    subject: [u8; SUBJECT_LEN_BYTES],
    /// The server's first INFO is still to come.
    greeting: bool,
    pings: u32,
}

impl Default for Decoder {
    /// For a connection that was greeted.
    fn default() -> Self {
        Self { text: Text::default(), subject: subject(0), greeting: false, pings: 0 }
    }
}

impl Decoder {
    /// For a new connection.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self { subject: subject(index), greeting: true, ..Self::default() }
    }

    /// Whether it stands between two messages.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        !self.greeting && self.text.is_idle()
    }

    /// Whether the server's greeting is still to come.
    #[must_use]
    pub const fn is_greeting(&self) -> bool {
        self.greeting
    }

    /// Puts the connection's subject into `requests`, whole ones of [`encode`].
    pub fn address(&self, values: &Values, requests: &mut [u8]) {
        for request in requests.chunks_exact_mut(request_len(values)) {
            request[SUBJECT_AT..SUBJECT_AT + SUBJECT_LEN_BYTES].copy_from_slice(&self.subject);
        }
    }

    /// Appends the PONGs that are owed: whether there were any.
    #[inline]
    pub fn pay(&mut self, to: &mut Vec<u8>) -> bool {
        let owed = std::mem::take(&mut self.pings);
        for _ in 0..owed {
            to.extend_from_slice(PONG);
        }
        owed > 0
    }

    /// The length of the message at the front of `bytes` when it is all there and right.
    #[inline]
    #[must_use]
    pub fn whole(&self, asked: Asked, values: &Values, bytes: &[u8]) -> Option<usize> {
        let rest = bytes.strip_prefix(b"MSG ")?.strip_prefix(&self.subject)?;
        let after = value_after_length(asked, values, rest.strip_prefix(b" 1 ")?)?;
        after.starts_with(b"\r\n").then(|| bytes.len() - after.len() + 2)
    }

    /// Takes bytes of the reply to `asked`, and what the server says beside it.
    ///
    /// # Errors
    /// They are no NATS, the server refuses something, or wants what this client does not do.
    pub fn feed(&mut self, asked: Asked, values: &Values, bytes: &[u8]) -> Fed {
        let mut used = 0;
        while used < bytes.len() {
            let (took, ended) = self.text.take(asked, values, &bytes[used..])?;
            used += took;
            match ended {
                Ended::Nothing => {}
                Ended::Body => return Ok((used, self.text.verdict.take())),
                Ended::Line => {
                    let line = self.text.line();
                    self.line(values, trimmed(&line)?)?;
                    self.text.clear(line);
                }
            }
        }
        Ok((used, None))
    }

    fn line(&mut self, values: &Values, line: &[u8]) -> Result<(), Lost> {
        let (word, rest) = match line.iter().position(|&byte| byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[..0]),
        };
        match word {
            b"INFO" => return self.info(values, rest),
            _ if self.greeting => {
                return Err(Lost(format!("a NATS server greets with INFO: {}", shown(line))));
            }
            b"MSG" => return self.message(values, rest, line),
            b"PING" if self.pings == PINGS_MAX => {
                return Err(Lost(format!("more than {PINGS_MAX} PINGs at once")));
            }
            b"PING" => self.pings += 1,
            b"PONG" | b"+OK" => {}
            // Of -ERR some leave the connection open, but the reply that is waited for never comes.
            _ => return Err(Lost(shown(line))),
        }
        Ok(())
    }

    /// The greeting says what the server wants; later ones tell of its cluster.
    fn info(&mut self, values: &Values, json: &[u8]) -> Result<(), Lost> {
        if !std::mem::take(&mut self.greeting) {
            return Ok(());
        }
        check_info(json, values.len_bytes()).map_err(Lost)
    }

    /// `<subject> <sid> [reply-to] <bytes>`.
    fn message(&mut self, values: &Values, rest: &[u8], line: &[u8]) -> Result<(), Lost> {
        let words: Vec<&[u8]> = rest.split(|&byte| byte == b' ').take(5).collect();
        let ([subject, sid, len] | [subject, sid, _, len]) = words[..] else {
            return Err(Lost(shown(line)));
        };
        let len = number(len).ok_or_else(|| Lost(shown(line)))?;
        let right = subject == self.subject && sid == b"1" && len == values.len_bytes() as u64;
        self.text.judge(if right { Verdict::Right } else { Verdict::Wrong(shown(line)) });
        self.text.expect_body(len);
        Ok(())
    }
}
