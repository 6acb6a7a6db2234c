//! Loads of our own, by which `tune gains` shows what a knob of the network gains: small, so that what they measure is the kernel.
//!
//! A server and a client, each a thread on a processor of its own and in a network namespace of its own, or in that of the caller. Invariants: a run ends in
//! bounded time, also when the other side is gone; nothing of it is left but ports in TIME-WAIT. Next: `gains`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, sockopt};
use rustix::thread::{
    CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getaffinity, sched_setaffinity,
};
use serde::{Deserialize, Serialize};

use crate::error::{During as _, Error, Result};

/// A run takes so long.
const RUN: Duration = Duration::from_millis(400);
/// Before it, unrecorded.
const WARMUP: Duration = Duration::from_millis(50);
/// Nothing waits longer for the other side.
const PATIENCE: Duration = Duration::from_secs(20);
/// So often a server that waits looks whether its client has failed.
const GLANCE: Duration = Duration::from_millis(100);
/// Length of a request and of a reply.
const MESSAGE: usize = 64;
/// Length of a write of a stream.
const CHUNK: usize = 128 << 10;
/// Connections that come at once.
pub const BURST: usize = 1000;
/// The server of a burst is busy so long before it accepts the first.
const BUSY: Duration = Duration::from_millis(20);

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// One connection, one request at a time; both sides wait in read(2).
    RoundTrips,
    /// The same, and both sides wait in poll(2).
    Polled,
    /// One connection, and as much as goes through it.
    Stream,
    /// A thousand connections at once to a server that was busy for a moment.
    Burst,
}

impl Load {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::RoundTrips, Self::Polled, Self::Stream, Self::Burst];

    /// What is done, in words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::RoundTrips => "round trips of 64 bytes on one connection, waiting in read(2)",
            Self::Polled => "round trips of 64 bytes on one connection, waiting in poll(2)",
            Self::Stream => "bytes through one connection",
            Self::Burst => {
                "1000 connections at once to a server that is busy for 20 ms, until each is answered"
            }
        }
    }

    /// Of its figure.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::RoundTrips | Self::Polled => "round trips/s",
            Self::Stream => "MB/s",
            Self::Burst => "ms",
        }
    }

    /// Whether a larger figure is the better one.
    #[must_use]
    pub const fn is_more_better(self) -> bool {
        !matches!(self, Self::Burst)
    }

    /// Runs it once.
    ///
    /// # Errors
    /// A namespace cannot be entered, or the other side does not answer in time.
    pub fn run(self, ends: &Ends) -> Result<f64> {
        let doing = || format!("{} to {}", self.about(), ends.address);
        let (told, port) = sync_channel(1);
        let (of_server, of_client) = processors();
        let has_failed = AtomicBool::new(false);
        let failed = &has_failed;
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                pin(of_server)?;
                enter(ends.server.as_ref())?;
                self.serve(ends.address, &told, failed)
            });
            let client = scope.spawn(move || {
                let asked = pin(of_client)
                    .and_then(|()| enter(ends.client.as_ref()))
                    .and_then(|()| self.ask(ends.address, &port));
                // The server may wait for a connection that does not come.
                failed.store(asked.is_err(), Ordering::SeqCst);
                asked
            });
            let asked = client.join().map_err(|_| broken())?;
            let served = server.join().map_err(|_| broken())?;
            match (served, asked) {
                // Of two errors one is that the other side has ended.
                (Err(error), Err(other)) => Err(if is_broken(&error) { other } else { error }),
                (Err(error), _) | (_, Err(error)) => Err(error),
                (Ok(Some(figure)), _) | (Ok(None), Ok(Some(figure))) => Ok(figure),
                (Ok(None), Ok(None)) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        })
        .during(doing)
        .and_then(|figure| {
            if figure.is_finite() && figure > 0.0 {
                Ok(figure)
            } else {
                Err(Error::new(format!("{}: the figure is {figure}", doing())))
            }
        })
    }

    fn serve(
        self,
        address: IpAddr,
        told: &SyncSender<u16>,
        failed: &AtomicBool,
    ) -> io::Result<Option<f64>> {
        let listener = listen(address)?;
        let port = listener.local_addr()?.port();
        told.send(port).map_err(|_| broken())?;
        if self == Self::Burst {
            return accept_many(&listener, failed).map(|()| None);
        }
        let mut stream = accept(&listener, failed)?;
        prepare(&stream)?;
        if self == Self::Stream {
            return receive(&mut stream).map(Some);
        }
        let mut message = [0; MESSAGE];
        loop {
            self.wait(&stream)?;
            match stream.read_exact(&mut message) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            }
            stream.write_all(&message)?;
        }
    }

    fn ask(self, address: IpAddr, port: &Receiver<u16>) -> io::Result<Option<f64>> {
        let port = port.recv_timeout(PATIENCE).map_err(|_| broken())?;
        let address = SocketAddr::new(address, port);
        if self == Self::Burst {
            return connect_many(address).map(Some);
        }
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        prepare(&stream)?;
        if self == Self::Stream {
            return send(&mut stream).map(|()| None);
        }
        let mut message = [7; MESSAGE];
        let mut trip = |stream: &mut TcpStream| {
            stream.write_all(&message)?;
            self.wait(stream)?;
            stream.read_exact(&mut message)
        };
        let begin = Instant::now();
        while begin.elapsed() < WARMUP {
            trip(&mut stream)?;
        }
        let (begin, mut trips) = (Instant::now(), 0_u32);
        while begin.elapsed() < RUN {
            trip(&mut stream)?;
            trips += 1;
        }
        Ok(Some(f64::from(trips) / begin.elapsed().as_secs_f64()))
    }

    fn wait(self, stream: &TcpStream) -> io::Result<()> {
        if self == Self::Polled { readable(&stream, PATIENCE).map(drop) } else { Ok(()) }
    }
}

/// A processor for each side, the first and the last that may be used: where the scheduler puts them would be half of the figure.
fn processors() -> (Option<usize>, Option<usize>) {
    let Ok(set) = sched_getaffinity(None) else { return (None, None) };
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let first = cpus.next();
    (first, cpus.next_back().or(first))
}

fn pin(cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Where the two sides are.
#[derive(Debug)]
pub struct Ends {
    /// The network namespace of the server; that of the caller without.
    pub server: Option<File>,
    /// That of the client.
    pub client: Option<File>,
    /// The server's address.
    pub address: IpAddr,
}

fn enter(namespace: Option<&File>) -> io::Result<()> {
    let Some(namespace) = namespace else { return Ok(()) };
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn is_broken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other side of the load has ended")
}

/// A listener whose queue is as long as the kernel lets it be: `TcpListener::bind` asks for less.
fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let socket = socket(address, SocketFlags::CLOEXEC)?;
    rustix::net::bind(&socket, &SocketAddr::new(address, 0))?;
    rustix::net::listen(&socket, i32::from(u16::MAX))?;
    Ok(TcpListener::from(socket))
}

fn socket(address: IpAddr, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Waits until there is something to read.
fn readable(fd: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            ready => return Ok(ready? > 0),
        }
    }
}

/// Accepts the next connection, unless the client has failed.
fn accept(listener: &TcpListener, failed: &AtomicBool) -> io::Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match readable(listener, GLANCE) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            ready => {
                ready?;
                return Ok(listener.accept()?.0);
            }
        }
        if failed.load(Ordering::SeqCst) {
            return Err(broken());
        }
        if begin.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn send(stream: &mut TcpStream) -> io::Result<()> {
    let chunk = vec![7; CHUNK];
    let begin = Instant::now();
    while begin.elapsed() < WARMUP + RUN {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Megabytes a second, behind the first moment.
fn receive(stream: &mut TcpStream) -> io::Result<f64> {
    let mut chunk = vec![0; CHUNK];
    let begin = Instant::now();
    let (mut bytes, mut first) = (0_u64, None);
    loop {
        let read = stream.read(&mut chunk)?;
        let now = Instant::now();
        if read == 0 {
            break;
        }
        match first {
            None if begin.elapsed() >= WARMUP => first = Some(now),
            None => {}
            Some(_) => bytes += u64::try_from(read).unwrap_or(0),
        }
    }
    let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    let megabytes = bytes as f64 / 1e6;
    Ok(megabytes / seconds)
}

/// Answers the one byte of each connection with another, and keeps it until all are answered.
fn accept_many(listener: &TcpListener, failed: &AtomicBool) -> io::Result<()> {
    thread::sleep(BUSY);
    let mut kept = Vec::with_capacity(BURST);
    while kept.len() < BURST {
        let mut stream = accept(listener, failed)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut [0])?;
        stream.write_all(&[1])?;
        kept.push(stream);
    }
    // The client closes first: ports in TIME-WAIT are on its side.
    for stream in &mut kept {
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}

/// How far one of many connections has come.
struct Asking {
    stream: TcpStream,
    /// Its request is sent. A server whose queue was full forgets a connection that says nothing: SYN cookies.
    has_asked: bool,
}

/// Milliseconds until each of the connections has been answered.
fn connect_many(address: SocketAddr) -> io::Result<f64> {
    let begin = Instant::now();
    let mut waiting = Vec::with_capacity(BURST);
    for _ in 0..BURST {
        let socket = socket(address.ip(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // Closed at once at the end, with nothing in TIME-WAIT: the next run wants the ports.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        waiting.push(Asking { stream: TcpStream::from(socket), has_asked: false });
    }
    // Kept until all are answered.
    let mut answered = Vec::with_capacity(BURST);
    while !waiting.is_empty() {
        if begin.elapsed() > PATIENCE {
            let text = format!("{} of {BURST} connections have no answer", waiting.len());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let ready = ready(&waiting)?;
        let mut left = Vec::with_capacity(waiting.len());
        for (mut asking, is_ready) in waiting.into_iter().zip(ready) {
            if is_ready && asking.go_on()? {
                answered.push(asking.stream);
            } else {
                left.push(asking);
            }
        }
        waiting = left;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Which of them can go on.
fn ready(waiting: &[Asking]) -> io::Result<Vec<bool>> {
    let timeout = Timespec::try_from(GLANCE).map_err(|_| io::ErrorKind::InvalidInput)?;
    let wants = |asking: &Asking| if asking.has_asked { PollFlags::IN } else { PollFlags::OUT };
    let mut fds: Vec<PollFd<'_>> =
        waiting.iter().map(|asking| PollFd::new(&asking.stream, wants(asking))).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

impl Asking {
    /// Sends the request, or takes the answer: says whether that was it.
    fn go_on(&mut self) -> io::Result<bool> {
        if !self.has_asked {
            self.stream.write_all(&[1])?;
            self.has_asked = true;
            return Ok(false);
        }
        match self.stream.read(&mut [0]) {
            Ok(1) => Ok(true),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn here() -> Ends {
        Ends { server: None, client: None, address: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    #[test]
    fn each_load_has_a_figure() {
        for load in Load::ALL {
            let begin = Instant::now();
            let figure = load.run(&here()).expect("it runs on loopback");
            assert!(figure > 0.0, "{load:?}: {figure}");
            assert!(begin.elapsed() < PATIENCE, "{load:?}");
            // A burst waits for the server, which is busy first.
            assert!(*load != Load::Burst || figure >= 20.0, "{figure} ms");
        }
    }

    #[test]
    fn a_side_that_cannot_be_where_it_should_is_an_error_at_once() {
        let begin = Instant::now();
        let no_namespace = || Some(File::open("/dev/null").expect("it is there"));
        for (server, client) in [(no_namespace(), None), (None, no_namespace())] {
            let ends = Ends { server, client, ..here() };
            let error = Load::Burst.run(&ends).expect_err("that is no namespace").to_string();
            assert!(error.contains("1000 connections at once"), "{error}");
        }
        let elsewhere = Ends { address: "192.0.2.1".parse().expect("an address"), ..here() };
        let error = Load::RoundTrips.run(&elsewhere).expect_err("not of this host").to_string();
        assert!(error.contains("assign requested address"), "{error}");
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    }
}
