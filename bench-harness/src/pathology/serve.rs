//! A misbehaving server on sockets, in a thread of its own.
//!
//! Why poll(2) and a spin: a service time must be exact to a few microseconds, and the kernel wakes a
//! sleeper late by its timer slack, so the slack is set to the least and the last [`SPIN_NS`] are spun.
//! It asks every connection in turn and allocates for each reply: meant to be right, not fast.
//! Invariants: at most [`CONNS_MAX`] connections, and beyond [`OUT_MAX_BYTES`] of unsent replies a
//! connection is not read; dropping a [`Running`] ends its thread and its connections within
//! [`SLEEP_MAX_NS`]. Next: `bed` for what it does.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Mode;
use super::bed::{Action, Bed};
use crate::clock::{self, MICROSECOND_NS, MILLISECOND_NS, SECOND_NS};

/// Connections, at most; more are closed at once.
pub const CONNS_MAX: usize = 10_000;
/// Replies of a connection that the client does not take, at most.
const OUT_MAX_BYTES: usize = 1 << 20;
/// Longest sleep: how soon it notices that it is to end.
const SLEEP_MAX_NS: u64 = 20 * MILLISECOND_NS;
/// Spun before something is due.
const SPIN_NS: u64 = 50 * MICROSECOND_NS;
/// Connections accepted in one turn.
const ACCEPTS_MAX: usize = 256;
/// The least timer slack.
const SLACK_NS: u64 = 1;

/// A server that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a server with values of `value_len_bytes` at `addr`; port 0 picks one.
    ///
    /// # Errors
    /// The mode makes no sense, or the address is taken.
    pub fn start(mode: Mode, addr: SocketAddr, value_len_bytes: usize) -> Result<Self> {
        mode.check()?;
        let listener =
            TcpListener::bind(addr).with_context(|| format!("listen at {addr} as {mode:?}"))?;
        let addr = listener.local_addr().context("the address of the listener")?;
        listener.set_nonblocking(true).context("a listener that does not block")?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let serve = move || {
            // Without it, sleeps end up to 50 µs late: worse figures, not wrong ones.
            let _ = nix::sys::prctl::set_timerslack(SLACK_NS);
            let bed = Bed::new(mode, value_len_bytes, 1, clock::mono_ns());
            let mut server = Sockets {
                listener,
                bed,
                conns: BTreeMap::new(),
                next: 0,
                mutant: Mutant::new(mode),
            };
            server.run(&ended);
        };
        #[expect(clippy::disallowed_methods, reason = "a server beside the load, on no shard")]
        let thread = std::thread::spawn(serve);
        Ok(Self { addr, end, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until the process is ended.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // It has no end of its own; a panic has printed what it had to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread shows as a trial that failed.
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    out: Vec<u8>,
}

struct Sockets {
    listener: TcpListener,
    bed: Bed,
    conns: BTreeMap<u64, Socket>,
    next: u64,
    mutant: Mutant,
}

impl Sockets {
    fn run(&mut self, end: &AtomicBool) {
        let mut buffer = vec![0; 1 << 16];
        while !end.load(Ordering::Relaxed) {
            self.wait();
            self.accept();
            self.read(&mut buffer);
            while let Some(action) = self.bed.pop_due(clock::mono_ns()) {
                self.act(action);
            }
        }
    }

    /// Until there is something to read, or something due.
    fn wait(&self) {
        let due_ns = self.bed.next_due_ns();
        let now_ns = clock::mono_ns();
        let until_ns = due_ns.map_or(SLEEP_MAX_NS, |due_ns| due_ns.saturating_sub(now_ns));
        let sleep_ns = until_ns.min(SLEEP_MAX_NS).saturating_sub(SPIN_NS);
        let mut fds = Vec::with_capacity(self.conns.len() + 1);
        fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        for socket in self.conns.values() {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, self.may_read(socket));
            wanted.set(PollFlags::OUT, !socket.out.is_empty());
            fds.push(PollFd::from_borrowed_fd(socket.stream.as_fd(), wanted));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(sleep_ns / SECOND_NS).unwrap_or(0),
            tv_nsec: i64::try_from(sleep_ns % SECOND_NS).unwrap_or(0),
        };
        // EINTR, or a connection gone meanwhile: the next turn finds out.
        let ready = poll(&mut fds, Some(&timeout)).unwrap_or(0);
        if let Some(due_ns) = due_ns
            && ready == 0
            && until_ns <= SLEEP_MAX_NS
        {
            while clock::mono_ns() < due_ns {
                std::hint::spin_loop();
            }
        }
    }

    fn may_read(&self, socket: &Socket) -> bool {
        socket.out.len() < OUT_MAX_BYTES && !self.bed.is_full()
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            // None waits, or it is gone again.
            let Ok((stream, _)) = self.listener.accept() else { return };
            if self.conns.len() >= CONNS_MAX {
                continue;
            }
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
                continue;
            }
            self.next += 1;
            self.conns.insert(self.next, Socket { stream, out: Vec::new() });
            self.bed.open(self.next, clock::mono_ns());
        }
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let mut gone = Vec::new();
        let full = self.bed.is_full();
        for (&conn, socket) in &mut self.conns {
            if flush(socket).is_err() {
                gone.push(conn);
                continue;
            }
            if full || socket.out.len() >= OUT_MAX_BYTES {
                continue;
            }
            match socket.stream.read(buffer) {
                Ok(len @ 1..) => {
                    // What is no request ends the connection, as a real server does.
                    if self.bed.on_bytes(conn, &buffer[..len], clock::mono_ns()).is_err() {
                        gone.push(conn);
                    }
                }
                Err(error) if is_passing(&error) => {}
                Ok(0) | Err(_) => gone.push(conn),
            }
        }
        for conn in gone {
            self.bed.close(conn);
            self.conns.remove(&conn);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Write { conn, bytes, begins } => {
                if begins {
                    self.mutant.work(self.bed.mode());
                }
                if let Some(socket) = self.conns.get_mut(&conn) {
                    socket.out.extend_from_slice(&bytes);
                    // An error shows again when it is read.
                    let _ = flush(socket);
                }
            }
            Action::Reset { conn } => {
                self.bed.close(conn);
                if let Some(socket) = self.conns.remove(&conn) {
                    // Zero linger makes the close a reset; without it, it is an end, also noticed.
                    let _ = rustix::net::sockopt::set_socket_linger(
                        &socket.stream,
                        Some(Duration::ZERO),
                    );
                }
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn flush(socket: &mut Socket) -> io::Result<()> {
    if socket.out.is_empty() {
        return Ok(());
    }
    match socket.stream.write(&socket.out) {
        Ok(len) => {
            socket.out.drain(..len);
            Ok(())
        }
        Err(error) if is_passing(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a mutant copies, from and to.
struct Mutant {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Mutant {
    fn new(mode: Mode) -> Self {
        let len = if let Mode::Copy { kib } = mode { kib << 10 } else { 0 };
        Self { from: vec![1; len], to: vec![0; len] }
    }

    /// What it does for a reply.
    fn work(&mut self, mode: Mode) {
        match mode {
            Mode::Sleep { sleep_ns } => clock::sleep_ns(sleep_ns),
            Mode::Copy { .. } => {
                self.to.copy_from_slice(black_box(&self.from));
                black_box(&mut self.to);
            }
            Mode::Syscalls { count } => {
                for _ in 0..count {
                    black_box(nix::unistd::getppid());
                }
            }
            _ => {}
        }
    }
}
