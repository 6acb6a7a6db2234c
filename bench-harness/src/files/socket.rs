//! Blocks of a file sent to sockets: by non-blocking sendfile(2) with a poll on the ring when a socket
//! is full, or by two splices on the ring through a pipe.
//!
//! Each connection sends one block at a time, and has a receiver of its own on the load's core, which
//! checks every block. Invariants: a block counts when its socket has taken all of it; the receiver
//! knows the order of blocks from the seed, so one that is misplaced is found. Next: `run` for the loop.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use engine::driver::{Completion, Driver, Errno, Fd, Op};
use nix::libc;

use super::block::{Pattern, Wrong};
use super::pace::Places;
use super::run::{Step, Work};
use super::work::Layout;
use crate::{clock, process};

/// Connections, and thereby receivers: threads of one core.
pub(super) const CONNECTIONS_MAX: usize = 64;

#[derive(Debug)]
struct Conn {
    socket: Fd,
    /// Reading and writing end, for splices.
    pipe: Option<(Fd, Fd)>,
    places: Places,
    offset: u64,
    sent: usize,
    piped: usize,
}

/// What a receiver found.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Blocks that were what they had to be.
    pub(super) blocks: u64,
    /// Those that were not.
    pub(super) wrong: u64,
    /// The first of these.
    pub(super) first_wrong: Option<String>,
    /// CPU of the receiver.
    pub(super) cpu_ns: u64,
}

/// Connections that are sent blocks of one file.
pub(super) struct Sockets {
    file: Fd,
    layout: Layout,
    conns: Vec<Conn>,
    receivers: Vec<JoinHandle<Result<Received>>>,
}

impl Sockets {
    /// Connects `layout.depth` sockets to receivers on CPU `cpu`.
    pub(super) fn connect(
        driver: &mut Driver,
        file: Fd,
        layout: Layout,
        splice: bool,
        cpu: usize,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on the loopback")?;
        let addr = listener.local_addr().context("the listener's address")?;
        let depth = layout.depth.clamp(1, CONNECTIONS_MAX);
        let (mut conns, mut receivers) = (Vec::new(), Vec::new());
        for index in 0..depth as u64 {
            let theirs = TcpStream::connect(addr).context("connect to the loopback")?;
            let (ours, _) = listener.accept().context("accept on the loopback")?;
            ours.set_nodelay(true).context("TCP_NODELAY")?;
            // A splice waits on a kernel worker, sendfile never.
            ours.set_nonblocking(!splice).context("O_NONBLOCK")?;
            let places = Places::new(layout.blocks, layout.order, layout.seed ^ index << 32);
            let expected = places.clone();
            let receiver = thread::Builder::new()
                .name(format!("receiver {index}"))
                .spawn(move || receive(theirs, layout, expected, cpu))
                .context("start a receiver")?;
            receivers.push(receiver);
            let pipe = if splice { Some(pipe(driver, layout.block_bytes)?) } else { None };
            let socket = driver.adopt(OwnedFd::from(ours)).context("hand a socket to the ring")?;
            conns.push(Conn { socket, pipe, places, offset: 0, sent: 0, piped: 0 });
        }
        Ok(Self { file, layout, conns, receivers })
    }

    /// Ends the connections, and waits for the receivers: what all of them found.
    pub(super) fn close(self, driver: &mut Driver) -> Result<Received> {
        for conn in &self.conns {
            driver.close_now(conn.socket);
            if let Some((read, write)) = conn.pipe {
                driver.close_now(read);
                driver.close_now(write);
            }
        }
        let mut sum = Received::default();
        for receiver in self.receivers {
            let found = receiver.join().map_err(|_| anyhow!("a receiver panicked"))??;
            sum.blocks += found.blocks;
            sum.wrong += found.wrong;
            sum.first_wrong = sum.first_wrong.or(found.first_wrong);
            sum.cpu_ns += found.cpu_ns;
        }
        Ok(sum)
    }

    fn sendfile(&mut self, driver: &mut Driver, slot: usize) -> Result<Step> {
        let conn = &mut self.conns[slot];
        while conn.sent < self.layout.block_bytes {
            let (at, left) = (conn.offset + conn.sent as u64, self.layout.block_bytes - conn.sent);
            match driver.sendfile(conn.socket, self.file, at, left) {
                Ok(0) => bail!("sendfile: the file ends at {at}"),
                Ok(moved) => conn.sent += moved,
                Err(Errno(libc::EINTR)) => {}
                Err(Errno(libc::EAGAIN)) => {
                    driver.submit(slot as u64, Op::PollOut { fd: conn.socket });
                    return Ok(Step::Pending);
                }
                Err(errno) => bail!("sendfile at {at}: {errno}"),
            }
        }
        conn.places.give_back(conn.offset / self.layout.block_bytes as u64);
        Ok(Step::Done(Ok(())))
    }

    fn splice(&mut self, driver: &mut Driver, slot: usize) -> Result<Step> {
        let conn = &self.conns[slot];
        let (read, write) = conn.pipe.context("a connection without a pipe")?;
        let op = if conn.piped > 0 {
            let len = u32::try_from(conn.piped).unwrap_or(u32::MAX);
            Op::Splice { from: read, from_offset: None, to: conn.socket, len }
        } else {
            let left = self.layout.block_bytes - conn.sent;
            let len = u32::try_from(left).unwrap_or(u32::MAX);
            let from_offset = Some(conn.offset + conn.sent as u64);
            Op::Splice { from: self.file, from_offset, to: write, len }
        };
        driver.submit(slot as u64, op);
        Ok(Step::Pending)
    }
}

/// A pipe that holds a block, as far as it may.
fn pipe(driver: &mut Driver, block_bytes: usize) -> Result<(Fd, Fd)> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe")?;
    // One that stays smaller takes more splices for a block.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, block_bytes);
    let read = driver.adopt(read).context("hand a pipe to the ring")?;
    let write = driver.adopt(write).context("hand a pipe to the ring")?;
    Ok((read, write))
}

/// Checks the blocks of one connection until it ends.
fn receive(
    mut stream: TcpStream,
    layout: Layout,
    mut expected: Places,
    cpu: usize,
) -> Result<Received> {
    process::pin_self(cpu)?;
    let pattern = Pattern::new(layout.seed);
    let mut block = vec![0; layout.block_bytes];
    let mut found = Received::default();
    let before_ns = clock::thread_cpu_ns();
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match stream.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("receive"),
            }
        }
        if filled == 0 {
            found.cpu_ns = clock::thread_cpu_ns() - before_ns;
            return Ok(found);
        }
        let number = expected.take().context("no block is expected")?;
        expected.give_back(number);
        let checked: Result<(), Wrong> = pattern.check(&block[..filled], number, 1);
        match checked {
            Ok(()) => found.blocks += 1,
            Err(wrong) => {
                found.wrong += 1;
                found.first_wrong.get_or_insert_with(|| format!("received {wrong}"));
            }
        }
    }
}

impl Work for Sockets {
    fn slots(&self) -> usize {
        self.conns.len()
    }

    fn start(&mut self, driver: &mut Driver, slot: usize, _records: usize) -> Result<Step> {
        let conn = &mut self.conns[slot];
        let block = conn.places.take().context("every block is in use")?;
        conn.offset = block * self.layout.block_bytes as u64;
        (conn.sent, conn.piped) = (0, 0);
        if conn.pipe.is_some() { self.splice(driver, slot) } else { self.sendfile(driver, slot) }
    }

    fn completed(
        &mut self,
        driver: &mut Driver,
        slot: usize,
        completion: Completion,
    ) -> Result<Step> {
        let conn = &mut self.conns[slot];
        let value = completion.result;
        if conn.pipe.is_none() {
            value.map_err(|errno| anyhow!("poll of a socket: {errno}"))?;
            return self.sendfile(driver, slot);
        }
        let moved = value.map_err(|errno| anyhow!("splice at {}: {errno}", conn.offset))? as usize;
        if moved == 0 {
            bail!("splice: the file ends at {}", conn.offset + conn.sent as u64);
        }
        if conn.piped == 0 {
            conn.piped = moved;
        } else {
            conn.piped -= moved.min(conn.piped);
            conn.sent += moved;
            if conn.sent >= self.layout.block_bytes {
                conn.places.give_back(conn.offset / self.layout.block_bytes as u64);
                return Ok(Step::Done(Ok(())));
            }
        }
        self.splice(driver, slot)
    }
}
