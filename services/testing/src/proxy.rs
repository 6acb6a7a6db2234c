//! A proxy that resets connections in the middle, so that a client must send again what was taken already.
//!
//! When a client has sent a certain number of bytes on a connection, the next answer is not passed on: both sides get
//! a reset instead, and the client cannot know whether its request took effect. Invariants: at most as many
//! connections are cut as were asked for, then everything passes; its threads end with it and with their connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

const POLL: Duration = Duration::from_millis(5);

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    after_bytes: u64,
    /// Connections still to be cut.
    left: AtomicU64,
    cut: AtomicU64,
    stop: AtomicBool,
}

impl Proxy {
    /// Listens on the first address of each pair and passes on to the second; the first `cuts` connections that
    /// have sent `after_bytes` are cut.
    ///
    /// # Panics
    /// When an address is taken.
    #[must_use]
    pub fn start(pairs: &[(SocketAddr, SocketAddr)], after_bytes: u64, cuts: u64) -> Self {
        let state = Arc::new(State {
            after_bytes,
            left: AtomicU64::new(cuts),
            cut: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        for &(from, to) in pairs {
            let listener =
                TcpListener::bind(from).unwrap_or_else(|error| panic!("proxy: {from}: {error}"));
            listener.set_nonblocking(true).expect("a listener can be");
            let state = Arc::clone(&state);
            thread::spawn(move || accept(&listener, to, &state));
        }
        Self { state }
    }

    /// How many connections were cut.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.state.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, state: &Arc<State>) {
    while !state.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => {
                // A server that is gone is for the client to notice.
                let _ = serve(client, to, state);
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

fn serve(client: TcpStream, to: SocketAddr, state: &Arc<State>) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    let (client, server) = (Arc::new(client), Arc::new(TcpStream::connect(to)?));
    server.set_nodelay(true)?;
    let sent = Arc::new(AtomicU64::new(0));
    let (from, to, count) = (Arc::clone(&client), Arc::clone(&server), Arc::clone(&sent));
    thread::spawn(move || {
        let _ = pass(&from, &to, |len| {
            count.fetch_add(len, Ordering::Relaxed);
            true
        });
        let _ = to.shutdown(Shutdown::Write);
    });
    let state = Arc::clone(state);
    thread::spawn(move || {
        let passed = pass(&server, &client, |_| {
            sent.load(Ordering::Relaxed) < state.after_bytes || !take(&state.left)
        });
        if passed.is_ok_and(|all| !all) {
            state.cut.fetch_add(1, Ordering::Relaxed);
            // The last handle that goes sends a reset. Nothing is sent before that: only reading ends.
            for stream in [&client, &server] {
                let _ = set_socket_linger(stream, Some(Duration::ZERO));
            }
        } else {
            let _ = client.shutdown(Shutdown::Write);
        }
        let _ = client.shutdown(Shutdown::Read);
    });
    Ok(())
}

/// Takes one of what is left.
fn take(left: &AtomicU64) -> bool {
    let less = |left: u64| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

/// Copies until the end, which is `true`, or until `may_pass` forbids it.
fn pass(
    mut from: &TcpStream,
    mut to: &TcpStream,
    mut may_pass: impl FnMut(u64) -> bool,
) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(true);
        }
        if !may_pass(len as u64) {
            return Ok(false);
        }
        to.write_all(&buffer[..len])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{free_ports, local};

    /// Sends ten bytes at a time and reads as many; how often that went well.
    fn echoes(address: SocketAddr, rounds: usize) -> usize {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let mut answer = [0; 10];
        let mut round = || {
            stream.write_all(b"0123456789")?;
            stream.read_exact(&mut answer)
        };
        (0..rounds).take_while(|_| round().is_ok()).count()
    }

    #[test]
    fn the_answer_is_lost_and_the_request_is_not() {
        let port = free_ports(2);
        let listener = TcpListener::bind(local(port)).expect("free");
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = pass(&stream, &stream, |len| {
                    count.fetch_add(len, Ordering::Relaxed);
                    true
                });
            }
        });
        let proxy = Proxy::start(&[(local(port + 1), local(port))], 30, 2);
        assert_eq!(echoes(local(port + 1), 5), 2, "the third answer is lost");
        assert_eq!(taken.load(Ordering::Relaxed), 30, "its request was taken");
        assert_eq!(echoes(local(port + 1), 5), 2);
        assert_eq!(proxy.cuts(), 2);
        assert_eq!(echoes(local(port + 1), 5), 5, "no more are cut");
        assert_eq!(proxy.cuts(), 2);
    }
}
