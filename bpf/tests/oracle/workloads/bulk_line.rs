//! Bytes of a known pattern over one connection: how fast, and are they right? Beside them, if asked for, echoes that wait
//! in the same queue.
//!
//! `with`: bytes; `from` = client, server or both, one after the other; pings = 1 for echoes. Rates are of payload, without the
//! first quarter, when a connection finds its speed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Figures, Peer, With, Workload, assert_figures, number, quantile, text};
use crate::lab::Lab;

pub(crate) struct BulkLine;

/// What is written at once.
const CHUNK: usize = 64 << 10;
/// A prime: shifted or repeated pieces do not fit.
const PERIOD: usize = 251;
const PATIENCE: Duration = Duration::from_secs(20);
const PING_PAUSE: Duration = Duration::from_millis(10);
/// A fast connection, on a busy machine.
const CLEAN_MB_PER_S: f64 = 25.0;

fn byte(at: usize) -> u8 {
    u8::try_from(at % PERIOD).expect("small")
}

fn send(stream: &mut TcpStream, bytes: usize) {
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    for begin in (0..bytes).step_by(CHUNK) {
        let chunk: Vec<u8> = (begin..bytes.min(begin + CHUNK)).map(byte).collect();
        stream.write_all(&chunk).expect("the peer reads");
    }
    // Told by one byte that all came.
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("an acknowledgement");
}

/// Megabytes a second, and how many bytes were wrong or missing.
fn receive(stream: &mut TcpStream, bytes: usize) -> (f64, usize) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut came, mut wrong) = (0, 0);
    let mut buf = vec![0; CHUNK];
    let mut quarter = None;
    while came < bytes {
        let Ok(len @ 1..) = stream.read(&mut buf) else { break };
        wrong += buf[..len].iter().zip(came..).filter(|(one, at)| **one != byte(*at)).count();
        came += len;
        if came >= bytes / 4 && quarter.is_none() {
            quarter = Some((Instant::now(), came));
        }
    }
    let (begin, at) = quarter.unwrap_or((Instant::now(), 0));
    let mb_per_s = (came - at) as f64 / 1e6 / begin.elapsed().as_secs_f64().max(1e-6);
    let _ = stream.write_all(&[0]);
    (mb_per_s, wrong + bytes.abs_diff(came))
}

/// Sends back what comes.
fn echo(socket: &UdpSocket, done: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let mut buf = [0; 64];
    while !done.load(Ordering::Acquire) {
        if let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..len], from);
        }
    }
}

/// Times of echoes in milliseconds, in order of length.
fn ping(peer: Peer, done: &AtomicBool) -> Vec<f64> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    socket.connect((peer.address, peer.port)).expect("a route");
    socket.set_read_timeout(Some(PING_PAUSE)).expect("a timeout");
    let begin = Instant::now();
    let mut times = Vec::new();
    while !done.load(Ordering::Acquire) {
        let now = u64::try_from(begin.elapsed().as_nanos()).expect("short");
        let _ = socket.send(&now.to_le_bytes());
        let mut buf = [0; 8];
        while socket.recv(&mut buf).is_ok() {
            let sent = Duration::from_nanos(u64::from_le_bytes(buf));
            times.push((begin.elapsed().saturating_sub(sent)).as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Workload for BulkLine {
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures {
        let bytes = usize::try_from(number(with, "bytes", 2_000_000)).expect("small");
        let from = text(with, "from", "client");
        let (goes_up, goes_down) = (from != "server", from != "client");
        let (listener, echoer) = lab.on_server(|| {
            let listener = TcpListener::bind((peer.address, peer.port)).expect("the port is free");
            (listener, UdpSocket::bind((peer.address, peer.port)).expect("the port is free"))
        });
        let done = AtomicBool::new(false);
        let (mut figures, mut wrong) = (Figures::new(), 0);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let mut stream = listener.accept().expect("a client").0;
                let up = goes_up.then(|| receive(&mut stream, bytes));
                if goes_down {
                    send(&mut stream, bytes);
                }
                up
            });
            scope.spawn(|| echo(&echoer, &done));
            let pings = (number(with, "pings", 0) != 0)
                .then(|| scope.spawn(|| lab.on_client(|| ping(peer, &done))));
            // Also when something panics: the other threads would wait for ever.
            let end = Ends(&done);
            let down = lab.on_client(|| {
                let mut stream =
                    TcpStream::connect((peer.address, peer.port)).expect("the server listens");
                if goes_up {
                    send(&mut stream, bytes);
                }
                goes_down.then(|| receive(&mut stream, bytes))
            });
            drop(end);
            let up = server.join().expect("no panic");
            for (name, one) in [("up_mb_per_s", up), ("down_mb_per_s", down)] {
                let Some((mb_per_s, wrong_here)) = one else { continue };
                figures.insert(name, mb_per_s);
                wrong += wrong_here;
            }
            if let Some(times) = pings.map(|pings| pings.join().expect("no panic")) {
                figures.insert("ping_p50_ms", quantile(&times, 500));
                figures.insert("ping_p99_ms", quantile(&times, 990));
            }
        });
        figures.insert("wrong_bytes", wrong as f64);
        figures
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        assert_figures(figures, when, &[("wrong_bytes", 0.0)]);
        for name in ["up_mb_per_s", "down_mb_per_s"] {
            let is_fast = figures.get(name).is_none_or(|rate| *rate > CLEAN_MB_PER_S);
            assert!(is_fast, "{name} {when}: {figures:?}");
        }
    }

    fn ttl(&self) -> &'static str {
        "7s"
    }
}
