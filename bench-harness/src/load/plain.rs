//! The load over standard non-blocking sockets, each asked in turn: simple and slow. It checks
//! the generator and the peers in tests; measurements use `ring`.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result};

use view::Output;

use super::generator::Generator;
use crate::clock;

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    busy: bool,
}

/// Connections of one generator.
#[derive(Debug)]
pub struct Plain {
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
}

impl Plain {
    /// Connects all connections of `generator`.
    ///
    /// # Errors
    /// A server does not accept.
    pub fn connect(generator: &Generator) -> Result<Self> {
        let mut sockets = Vec::new();
        for addr in generator.addresses() {
            let stream = TcpStream::connect(addr).with_context(|| format!("connect to {addr}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            if let Some(name) = crate::machine::congestion() {
                let name = std::ffi::OsString::from(name);
                nix::sys::socket::setsockopt(
                    &stream,
                    nix::sys::socket::sockopt::TcpCongestion,
                    &name,
                )
                .context("TCP_CONGESTION")?;
            }
            sockets.push(Socket { stream, out: Vec::new(), sent: 0, busy: false });
        }
        Ok(Self { sockets, buffer: vec![0; 1 << 16] })
    }

    /// Runs the load until `deadline_ns`, or until it is stopped and quiet.
    pub fn run_until(&mut self, generator: &mut Generator, deadline_ns: u64) {
        loop {
            let now_ns = clock::mono_ns();
            if now_ns >= deadline_ns || generator.broken().is_some() {
                return;
            }
            generator.arrive(now_ns);
            while let Some(batch) = generator.next_batch() {
                let socket = &mut self.sockets[batch.conn];
                let mut out = Output::default();
                generator.fill(batch, &mut out);
                socket.out = out.pieces(0).flatten().copied().collect();
                socket.sent = 0;
                socket.busy = true;
            }
            for index in 0..self.sockets.len() {
                if let Err(error) = self.step(generator, index) {
                    generator.break_off(index, error.to_string());
                }
            }
        }
    }

    fn step(&mut self, generator: &mut Generator, index: usize) -> io::Result<()> {
        let socket = &mut self.sockets[index];
        if socket.busy {
            match socket.stream.write(&socket.out[socket.sent..]) {
                Ok(len) => socket.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if socket.sent == socket.out.len() {
                socket.busy = false;
                generator.on_sent(index);
            }
        }
        match socket.stream.read(&mut self.buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                generator.on_bytes(index, &self.buffer[..len], clock::mono_ns());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}
