//! Requests of one line, each on a connection of its own, and their answers. Tells: answered, reset, refused, timed out, how fast.
//!
//! `with`: count, request, answer_bytes, parallel, timeout_ms.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Figures, Peer, With, Workload, assert_figures, number, percent, quantile, text};
use crate::lab::Lab;

pub(crate) struct Tcp;

const END: &[u8] = b"\n";

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Reset,
    Refused,
    TimedOut,
    Other,
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Other,
        }
    }
}

/// Answers each line with so many bytes; whether a connection was reset under it.
fn serve(mut stream: TcpStream, answer: &[u8], timeout: Duration) -> bool {
    stream.set_read_timeout(Some(timeout * 2)).expect("a timeout");
    let mut line = Vec::new();
    let mut buf = [0; 4096];
    while !line.ends_with(END) {
        match stream.read(&mut buf) {
            Ok(0) => return false,
            Ok(len) => line.extend_from_slice(&buf[..len]),
            Err(error) => return End::from(error) == End::Reset,
        }
    }
    stream.write_all(answer).is_err_and(|error| End::from(error) == End::Reset)
}

fn ask(peer: Peer, request: &[u8], answer_len: usize, timeout: Duration) -> Result<(), End> {
    let mut stream = TcpStream::connect_timeout(&(peer.address, peer.port).into(), timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buf = vec![0; 64 << 10];
    let begin = Instant::now();
    while answer.len() < answer_len {
        if begin.elapsed() > timeout {
            return Err(End::TimedOut);
        }
        match stream.read(&mut buf)? {
            0 => return Err(End::Other),
            len => answer.extend_from_slice(&buf[..len]),
        }
    }
    Ok(())
}

impl Workload for Tcp {
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures {
        let count = usize::try_from(number(with, "count", 50)).expect("small");
        let timeout = Duration::from_millis(number(with, "timeout_ms", 100)) * crate::slowness();
        let answer = vec![b'a'; usize::try_from(number(with, "answer_bytes", 64)).expect("small")];
        let request = format!("{}\n", text(with, "request", "GET /good HTTP/1.1")).into_bytes();
        let listener = lab
            .on_server(|| TcpListener::bind((peer.address, peer.port)).expect("the port is free"));
        listener.set_nonblocking(true).expect("a listener");
        let done = AtomicBool::new(false);
        let (mut ends, mut times, mut server_resets) = (Vec::new(), Vec::new(), 0);
        std::thread::scope(|scope| {
            let (answer, done, listener) = (&answer, &done, &listener);
            let server = scope.spawn(move || {
                let mut sessions = Vec::new();
                loop {
                    // Also the last connection is taken, however soon its client is done with it.
                    let is_over = done.load(Ordering::Acquire);
                    while let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(false).expect("a stream");
                        sessions.push(scope.spawn(move || serve(stream, answer, timeout)));
                    }
                    if is_over {
                        break;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
                sessions
                    .into_iter()
                    .filter_map(|session| session.join().ok())
                    .filter(|reset| *reset)
                    .count()
            });
            lab.on_client(|| {
                for _ in 0..count {
                    let begin = Instant::now();
                    let end =
                        ask(peer, &request, answer.len(), timeout).err().unwrap_or(End::Answered);
                    if end == End::Answered {
                        times.push(begin.elapsed().as_secs_f64() * 1e3);
                    }
                    ends.push(end);
                }
            });
            done.store(true, Ordering::Release);
            server_resets = server.join().expect("no panic");
        });
        times.sort_by(f64::total_cmp);
        let share = |end: End| percent(ends.iter().filter(|one| **one == end).count(), count);
        Figures::from([
            ("answered_percent", share(End::Answered)),
            ("reset_percent", share(End::Reset)),
            ("refused_percent", share(End::Refused)),
            ("timed_out_percent", share(End::TimedOut)),
            ("other_percent", share(End::Other)),
            ("server_reset_percent", percent(server_resets, count)),
            ("time_p50_ms", quantile(&times, 500)),
            ("time_p99_ms", quantile(&times, 990)),
        ])
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        assert_figures(
            figures,
            when,
            &[("answered_percent", 100.0), ("server_reset_percent", 0.0)],
        );
    }

    fn ttl(&self) -> &'static str {
        "8s"
    }
}
