//! What the load speaks: a room for each protocol, and what they have in common.
//!
//! A [`Codec`] says how a request is written and which reply is right; it is the same for a whole
//! run. A [`Decoder`] stands in the reply bytes of one connection. Two ways through those:
//! [`Ordered::whole`] compares a reply that lies in one piece with the only right one, and costs a
//! few nanoseconds; [`Ordered::feed`] takes any cut and any reply, and says what is wrong with it.
//! Why enums and not trait objects: a reply is checked for each request, so the choice is one
//! predictable branch and the check is inlined.
//! Invariants: requests are written before a run (HTTP/2 puts in the stream's number when they
//! leave, NATS the connection's subject); no reply is right that was not compared with what was asked; a decoder's memory is
//! bounded, whatever arrives; bytes whose boundaries it cannot find are [`Lost`], the end of the
//! connection, and not a reply. Next: `resp`, `memcache`, `http1`, `http2`, `nats`, `echo`.

mod args;
pub mod echo;
mod hpack;
pub mod http;
pub mod http1;
pub mod http2;
pub mod memcache;
pub mod nats;
pub mod resp;
mod text;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::Workload;
use super::arena::Values;
pub use args::HttpArgs;
pub use http::{Http, Method};

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Redis, RESP2.
    Resp,
    /// Redis, RESP3: `HELLO 3` when connected.
    Resp3,
    /// Memcached text.
    Memcache,
    /// Memcached meta: `mg` and `ms`.
    MemcacheMeta,
    /// HTTP/1.1 with kept connections and pipelines.
    Http1,
    /// HTTP/2 in clear text, known to be spoken; a pipeline is so many streams at once.
    Http2,
    /// NATS: messages published to a subject of the connection's own, which come back byte for byte.
    Nats,
    /// Messages that come back byte for byte.
    Echo,
}

impl Protocol {
    /// Whether keys are stored before a run.
    #[must_use]
    pub const fn has_keys(self) -> bool {
        matches!(self, Self::Resp | Self::Resp3 | Self::Memcache | Self::MemcacheMeta)
    }

    /// As users and the registry of servers write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resp => "resp",
            Self::Resp3 => "resp3",
            Self::Memcache => "memcache",
            Self::MemcacheMeta => "memcache-meta",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Nats => "nats",
            Self::Echo => "echo",
        }
    }

    /// A request that every server of the protocol answers, and how its answer begins.
    #[must_use]
    pub const fn probe(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Resp | Self::Resp3 => (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
            Self::Memcache | Self::MemcacheMeta => (b"version\r\n", b"VERSION "),
            Self::Http1 => (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1."),
            // The server's own SETTINGS, a frame of less than 256 bytes.
            Self::Http2 => (http2::EMPTY_START, b"\0\0"),
            // It speaks first.
            Self::Nats => (b"", b"INFO {"),
            Self::Echo => (b"ping", b"ping"),
        }
    }
}

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The key's number.
    pub key: u32,
    /// SET, or a POST; else GET.
    pub set: bool,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The right answer.
    Right,
    /// The key is not there.
    Miss,
    /// Another answer; the text shows it.
    Wrong(String),
}

/// The stream cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(pub String);

/// How far a decoder came: bytes used, and the verdict when a reply is complete.
pub type Fed = Result<(usize, Option<Verdict>), Lost>;

/// How requests of a run are written, and which replies are right.
#[derive(Clone, Debug)]
pub struct Codec {
    /// What is spoken.
    pub protocol: Protocol,
    /// The values stored and expected, bodies of POSTs, messages that are echoed.
    pub values: Values,
    /// What HTTP needs beside these.
    pub http: Http,
    /// Whether some requests are SET or POST.
    pub sets: bool,
}

impl Codec {
    /// That of `workload`.
    #[must_use]
    pub fn new(workload: &Workload) -> Self {
        Self {
            protocol: workload.protocol,
            values: Values::new(workload.value_len_bytes),
            http: workload.http.clone(),
            sets: workload.has_sets(),
        }
    }

    /// Appends one request.
    pub fn encode(&self, asked: Asked, to: &mut Vec<u8>) {
        match self.protocol {
            Protocol::Resp | Protocol::Resp3 => resp::encode(asked, &self.values, to),
            Protocol::Memcache => memcache::encode(asked, &self.values, to),
            Protocol::MemcacheMeta => memcache::encode_meta(asked, &self.values, to),
            Protocol::Http1 => http1::encode(asked, &self.values, &self.http, to),
            Protocol::Http2 => http2::encode(asked, &self.values, &self.http, to),
            Protocol::Nats => nats::encode(asked, &self.values, to),
            Protocol::Echo => self.values.write(asked.key, to),
        }
    }

    /// Whether all requests are equal.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        let is_http = matches!(self.protocol, Protocol::Http1 | Protocol::Http2);
        is_http && !self.sets && !self.http.has_key()
    }

    /// Length of the body that an HTTP request carries.
    #[must_use]
    pub const fn body_len(&self, asked: Asked) -> usize {
        if asked.set { self.values.len_bytes() } else { 0 }
    }

    /// What connection `index` sends before its first request.
    #[must_use]
    pub fn greeting(&self, index: usize) -> Vec<u8> {
        match self.protocol {
            Protocol::Resp3 => resp::HELLO.to_vec(),
            Protocol::Http2 => http2::greeting(),
            Protocol::Nats => nats::greeting(index),
            _ => Vec::new(),
        }
    }

    /// A decoder for the new connection `index`, which has sent its greeting and has at most
    /// `in_flight` requests without a reply.
    #[must_use]
    pub fn decoder(&self, index: usize, in_flight: u32) -> Decoder {
        match self.protocol {
            Protocol::Http2 => {
                let longest = self.body_len(Asked { key: 0, set: self.sets });
                Decoder::Http2(Box::new(http2::Connection::new(in_flight, longest)))
            }
            Protocol::Resp3 => Decoder::Ordered(Ordered::Resp(resp::Decoder::greeted())),
            Protocol::Nats => Decoder::Ordered(Ordered::Nats(nats::Decoder::new(index))),
            other => Decoder::Ordered(Ordered::new(other)),
        }
    }

    /// Whether a run can be made of `workload`.
    ///
    /// # Errors
    /// It cannot; the text says what to change.
    pub fn check(workload: &Workload) -> Result<(), String> {
        let len = workload.value_len_bytes;
        match workload.protocol {
            Protocol::Echo if len == 0 => {
                Err("echo of messages of 0 bytes: a message needs at least one".to_owned())
            }
            Protocol::Nats if workload.connections > nats::CONNECTIONS_MAX => Err(format!(
                "{} connections to a NATS server: at most {} have subjects of their own",
                workload.connections,
                nats::CONNECTIONS_MAX
            )),
            Protocol::Http2 if workload.set_share > 0.0 && len > http2::BODY_MAX_BYTES => {
                Err(format!(
                    "POST of {len} bytes over HTTP/2: a body is sent whole, so it must fit the first \
                     window of a stream, {} bytes",
                    http2::BODY_MAX_BYTES
                ))
            }
            Protocol::Http1 | Protocol::Http2 => workload.http.check(),
            _ => Ok(()),
        }
    }
}

/// Where one connection's replies stand.
#[derive(Debug)]
pub enum Decoder {
    /// Replies come in the order of requests.
    Ordered(Ordered),
    /// They come in any order, and the connection has a life of its own.
    Http2(Box<http2::Connection>),
}

/// A decoder of replies that come in the order of requests.
#[derive(Clone, Debug)]
pub enum Ordered {
    /// RESP2 and RESP3.
    Resp(resp::Decoder),
    /// Memcached, text and meta.
    Memcache(memcache::Decoder),
    /// HTTP/1.1.
    Http1(http1::Decoder),
    /// Messages of NATS.
    Nats(nats::Decoder),
    /// Echoed messages.
    Echo(echo::Decoder),
}

impl Ordered {
    /// A decoder for a connection that has sent no greeting. HTTP/2 has none of this kind, and
    /// gets that of HTTP/1.1, which refuses its frames.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Resp | Protocol::Resp3 => Self::Resp(resp::Decoder::default()),
            Protocol::Memcache | Protocol::MemcacheMeta => {
                Self::Memcache(memcache::Decoder::default())
            }
            Protocol::Http1 | Protocol::Http2 => Self::Http1(http1::Decoder::default()),
            Protocol::Nats => Self::Nats(nats::Decoder::default()),
            Protocol::Echo => Self::Echo(echo::Decoder::default()),
        }
    }

    /// The length of the reply at the front of `bytes` when the last one is over, and this one is
    /// all there and right.
    #[inline]
    #[must_use]
    pub fn whole(&self, codec: &Codec, asked: Asked, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Resp(decoder) if decoder.is_idle() => resp::whole(asked, &codec.values, bytes),
            Self::Memcache(decoder) if decoder.is_idle() => match codec.protocol {
                Protocol::MemcacheMeta => memcache::whole_meta(asked, &codec.values, bytes),
                _ => memcache::whole(asked, &codec.values, bytes),
            },
            Self::Http1(decoder) => decoder.whole(asked, &codec.http, bytes),
            Self::Nats(decoder) if decoder.is_idle() => decoder.whole(asked, &codec.values, bytes),
            Self::Echo(decoder) if decoder.is_idle() => echo::whole(asked, &codec.values, bytes),
            _ => None,
        }
    }

    /// Takes bytes of the reply to `asked`: how many, and the verdict when the reply is complete.
    /// Without a verdict all bytes are taken.
    ///
    /// # Errors
    /// The bytes are not of the protocol.
    pub fn feed(&mut self, codec: &Codec, asked: Asked, bytes: &[u8]) -> Fed {
        match self {
            Self::Resp(decoder) => decoder.feed(asked, &codec.values, bytes),
            Self::Memcache(decoder) => {
                let meta = codec.protocol == Protocol::MemcacheMeta;
                decoder.feed(meta, asked, &codec.values, bytes)
            }
            Self::Http1(decoder) => decoder.feed(asked, &codec.http, bytes),
            Self::Nats(decoder) => decoder.feed(asked, &codec.values, bytes),
            Self::Echo(decoder) => Ok(decoder.feed(asked, &codec.values, bytes)),
        }
    }

    /// Whether the server owes a reply to the greeting.
    #[must_use]
    pub const fn is_greeting(&self) -> bool {
        match self {
            Self::Resp(decoder) => decoder.is_greeting(),
            Self::Nats(decoder) => decoder.is_greeting(),
            _ => false,
        }
    }

    /// Whether the server may say something now though no request waits for a reply.
    #[must_use]
    pub const fn hears_unasked(&self) -> bool {
        self.is_greeting() || matches!(self, Self::Nats(_))
    }

    /// Whether requests leave as they were written.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        !matches!(self, Self::Nats(_))
    }

    /// Puts what belongs to this connection into requests that leave.
    pub fn address(&self, codec: &Codec, requests: &mut [u8]) {
        if let Self::Nats(decoder) = self {
            decoder.address(&codec.values, requests);
        }
    }

    /// Appends what the server is owed beside requests: whether that was anything.
    #[inline]
    pub fn pay(&mut self, to: &mut Vec<u8>) -> bool {
        match self {
            Self::Nats(decoder) => decoder.pay(to),
            _ => false,
        }
    }

    /// Whether it stands between two replies.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        match self {
            Self::Resp(decoder) => decoder.is_idle(),
            Self::Memcache(decoder) => decoder.is_idle(),
            Self::Http1(decoder) => decoder.is_idle(),
            Self::Nats(decoder) => decoder.is_idle(),
            Self::Echo(decoder) => decoder.is_idle(),
        }
    }
}
