//! What each broker speaks, as the load needs it: bytes in, bytes out, messages counted.
//!
//! A [`Producer`] and a [`Consumer`] are one connection each, without its socket: [`super::load`] moves the bytes.
//! Invariants: requests are encoded before the run and only numbered during it; every answer is checked, and a
//! wrong one ends the trial; nothing is counted before its acknowledgement, or its last byte, is here.
//! Next: [`kafka`] for ours, [`nats`] and [`stream`] for the peers.

pub(super) mod kafka;
pub(super) mod nats;
pub(super) mod stream;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::workload::Workload;

/// How long a server may take to answer while things are set up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);

/// What a broker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Kafka's.
    Kafka,
    /// NATS with JetStream.
    Nats,
    /// RabbitMQ's for streams.
    Stream,
}

/// The half of a connection that stores messages.
pub(super) trait Producer {
    /// Appends the next request, of [`Workload::batch_messages`] messages.
    fn request(&mut self, out: &mut Vec<u8>);

    /// Takes what has arrived, and appends what the protocol wants said in return.
    ///
    /// # Errors
    /// The broker refused a message, or does not follow the protocol.
    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Messages acknowledged so far, which are so in the order they were sent.
    fn acknowledged(&self) -> u64;
}

/// The half of a connection that reads messages.
pub(super) trait Consumer {
    /// Appends what makes the first messages come.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Takes what has arrived, and appends what makes more come.
    ///
    /// # Errors
    /// A message is missing, or the broker does not follow the protocol.
    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Messages that have arrived so far, in order and without a gap.
    fn delivered(&self) -> u64;
}

/// A connection that is ready, and what speaks on it.
pub(super) type Speaking<T> = (TcpStream, Box<T>);

/// Makes a topic with the partitions of `workload`, or as many streams where a server has no partitions.
pub(super) fn create(
    protocol: Protocol,
    addr: SocketAddr,
    topic: &str,
    workload: &Workload,
) -> Result<()> {
    let made = match protocol {
        Protocol::Kafka => kafka::create(addr, topic, workload),
        Protocol::Nats => nats::create(addr, topic, workload),
        Protocol::Stream => stream::create(addr, topic, workload),
    };
    made.with_context(|| format!("make {topic} at {addr}"))
}

/// Connects to where `partition` of `topic` is stored.
pub(super) fn producer(
    protocol: Protocol,
    addr: SocketAddr,
    topic: &str,
    partition: u32,
    workload: &Workload,
) -> Result<Speaking<dyn Producer>> {
    let speaking: Result<Speaking<dyn Producer>> = match protocol {
        Protocol::Kafka => kafka::producer(addr, topic, partition, workload),
        Protocol::Nats => nats::producer(addr, topic, partition, workload),
        Protocol::Stream => stream::producer(addr, topic, partition, workload),
    };
    speaking.with_context(|| format!("store in {topic}-{partition} at {addr}"))
}

/// Connects to where `partition` of `topic` is read, from its beginning.
pub(super) fn consumer(
    protocol: Protocol,
    addr: SocketAddr,
    topic: &str,
    partition: u32,
) -> Result<Speaking<dyn Consumer>> {
    let speaking: Result<Speaking<dyn Consumer>> = match protocol {
        Protocol::Kafka => kafka::consumer(addr, topic, partition),
        Protocol::Nats => nats::consumer(addr, topic, partition),
        Protocol::Stream => stream::consumer(addr, topic, partition),
    };
    speaking.with_context(|| format!("read {topic}-{partition} at {addr}"))
}

/// A blocking connection for what comes before the load.
fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(addr).with_context(|| format!("connect to {addr}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SETUP_TIMEOUT))?;
    if let Some(name) = crate::machine::congestion() {
        let name = std::ffi::OsString::from(name);
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::TcpCongestion, &name)
            .context("TCP_CONGESTION")?;
    }
    Ok(stream)
}

/// The name of a partition where it is a stream of its own.
fn stream_name(topic: &str, partition: u32) -> String {
    format!("{topic}-{partition}")
}

/// Frames out of a stream of bytes: whole ones are taken where they arrived, only the rest is kept.
#[derive(Debug, Default)]
struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// Hands each whole frame of what is kept and `bytes` to `take`. `len` tells how long the frame at the front
    /// is, when that can be told already.
    fn feed(
        &mut self,
        mut bytes: &[u8],
        len: impl Fn(&[u8]) -> Result<Option<usize>>,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if !self.rest.is_empty() {
            // Only as much as the frame that has begun still needs, so that what follows is not moved.
            loop {
                let wanted = len(&self.rest)?;
                let missing = match wanted {
                    Some(wanted) => wanted.saturating_sub(self.rest.len()),
                    None => 1,
                };
                let (more, behind) = bytes.split_at(missing.min(bytes.len()));
                self.rest.extend_from_slice(more);
                bytes = behind;
                match wanted {
                    Some(wanted) if self.rest.len() == wanted => break,
                    _ if bytes.is_empty() => return Ok(()),
                    _ => {}
                }
            }
            take(&self.rest)?;
            self.rest.clear();
        }
        while let Some(wanted) = len(bytes)? {
            let Some((frame, behind)) = bytes.split_at_checked(wanted) else { break };
            take(frame)?;
            bytes = behind;
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

/// Length of a frame that begins with the length of what follows, in four bytes.
fn prefixed_len(bytes: &[u8]) -> Result<Option<usize>> {
    const LONGEST: usize = 256 << 20;
    let Some(len) = bytes.first_chunk::<4>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*len))?;
    if len > LONGEST {
        bail!("a frame of {len} bytes");
    }
    Ok(Some(4 + len))
}

/// Reads one such frame from a blocking connection.
fn read_frame(mut stream: &TcpStream) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).context("the length of a frame")?;
    let len = prefixed_len(&frame)?.unwrap_or(4);
    frame.resize(len, 0);
    stream.read_exact(&mut frame[4..]).context("a frame as long as announced")?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = [&b"abc"[..], b"", b"defghij", b"k"]
            .iter()
            .flat_map(|body| [&(body.len() as u32).to_be_bytes()[..], body].concat())
            .collect();
        for step in 1..=bytes.len() {
            let mut frames = Frames::default();
            let mut taken = Vec::new();
            for piece in bytes.chunks(step) {
                let took = frames.feed(piece, prefixed_len, |frame| {
                    taken.push(frame[4..].to_vec());
                    Ok(())
                });
                took.expect("well formed");
            }
            assert_eq!(taken, [&b"abc"[..], b"", b"defghij", b"k"], "in pieces of {step}");
            assert!(frames.rest.is_empty());
        }
        assert!(prefixed_len(&[0xff; 4]).is_err());
    }
}
