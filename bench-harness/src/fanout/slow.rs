//! Subscribers that read slowly, or not at all: what they do to a server's memory, and whether it drops them.
//!
//! They are plain sockets beside the measured ones and take no part in the figures. Invariants: a slow subscriber reads what it
//! is allowed and no more until the end, when it reads what is left to see whether the server let go of it;
//! that end is bounded in time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::message::Messages;
use super::wire::{Decoder, PubSub, Said};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};

/// The answer to a subscription may take so long.
const GREETING: Duration = Duration::from_secs(10);
/// Silence after which nothing more is expected at the end.
const SILENCE_NS: u64 = 200 * MILLISECOND_NS;
/// All of the end.
const END_NS: u64 = 3 * SECOND_NS;

/// The slow subscribers of one run, dealt to the channels in turn.
#[derive(Debug)]
pub struct Slow {
    streams: Vec<TcpStream>,
    /// What each may read in a second.
    bytes_per_s: u64,
    began_ns: u64,
    /// What each has read.
    read: Vec<u64>,
    gone: Vec<bool>,
    buffer: Vec<u8>,
}

impl Slow {
    /// Connects and subscribes `count` of them.
    ///
    /// # Errors
    /// The server refuses one.
    pub fn connect(
        count: usize,
        bytes_per_s: u64,
        protocol: PubSub,
        channels: usize,
        messages: &Messages,
        addr: SocketAddr,
    ) -> Result<Self> {
        let mut streams = Vec::with_capacity(count);
        for index in 0..count {
            let stream = subscribe(protocol, index % channels, messages, addr)
                .with_context(|| format!("slow subscriber {index}"))?;
            streams.push(stream);
        }
        Ok(Self {
            streams,
            bytes_per_s,
            began_ns: clock::mono_ns(),
            read: vec![0; count],
            gone: vec![false; count],
            buffer: vec![0; 64 << 10],
        })
    }

    /// Reads what may be read until now.
    pub fn step(&mut self) {
        if self.bytes_per_s == 0 {
            return;
        }
        let elapsed_ns = clock::mono_ns().saturating_sub(self.began_ns);
        let allowed = u128::from(self.bytes_per_s) * u128::from(elapsed_ns) / u128::from(SECOND_NS);
        let allowed = u64::try_from(allowed).unwrap_or(u64::MAX);
        for index in 0..self.streams.len() {
            while self.read[index] < allowed && !self.gone[index] {
                let most = usize::try_from(allowed - self.read[index]).unwrap_or(usize::MAX);
                if !self.take(index, most) {
                    break;
                }
            }
        }
    }

    /// Reads once, `most` bytes at most: whether there was something.
    fn take(&mut self, index: usize, most: usize) -> bool {
        let most = most.min(self.buffer.len());
        match self.streams[index].read(&mut self.buffer[..most]) {
            Ok(0) => self.gone[index] = true,
            Ok(len) => {
                self.read[index] += len as u64;
                return true;
            }
            Err(error) if is_empty(&error) => {}
            Err(_) => self.gone[index] = true,
        }
        false
    }

    /// Bytes read by all of them.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read.iter().sum()
    }

    /// Reads what is left: how many of them the server has let go.
    #[must_use]
    pub fn end(mut self) -> usize {
        let deadline_ns = clock::mono_ns() + END_NS;
        let mut heard_ns = clock::mono_ns();
        while clock::mono_ns() < deadline_ns.min(heard_ns + SILENCE_NS) {
            let mut any = false;
            for index in 0..self.streams.len() {
                any |= !self.gone[index] && self.take(index, usize::MAX);
            }
            if any {
                heard_ns = clock::mono_ns();
            } else {
                clock::sleep_ns(MILLISECOND_NS);
            }
        }
        self.gone.iter().filter(|gone| **gone).count()
    }
}

fn is_empty(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn subscribe(
    protocol: PubSub,
    channel: usize,
    messages: &Messages,
    addr: SocketAddr,
) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).with_context(|| format!("connect to {addr}"))?;
    stream.set_read_timeout(Some(GREETING))?;
    stream.write_all(&protocol.greet_subscriber(channel))?;
    let mut decoder = Decoder::subscriber(protocol, channel, messages);
    let mut byte = [0];
    let mut ready = false;
    // Byte by byte, so that no message is read.
    while !ready {
        match stream.read(&mut byte) {
            Ok(0) => bail!("closed by the server"),
            Ok(_) => {}
            // The end of an earlier trial's ring can interrupt the call.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("no answer to the subscription"),
        }
        let fed = decoder.feed(&byte, |said| ready |= said == Said::Ready);
        fed.map_err(anyhow::Error::msg)?;
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}
