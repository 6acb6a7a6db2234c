//! `netprobe --listen`: Prometheus text over HTTP/1.1 (RFC 9112), one request a connection.
//!
//! Invariants: one thread, one connection at a time; a request has at most [`REQUEST_MAX`] bytes; a connection is given up
//! after [`PATIENCE`], however slowly it reads or writes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bpf::error::{During as _, Result};
use bpf::metrics::{Probe, prometheus};

use crate::Stop;

/// Bytes of a request's head.
const REQUEST_MAX: usize = 4096;
/// For one connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks for a connection.
const NAP: Duration = Duration::from_millis(20);

/// Serves until the time is over or a signal comes.
pub(crate) fn run(
    probe: &mut Probe,
    address: SocketAddr,
    duration: Option<Duration>,
    stop: &Stop,
) -> Result<()> {
    let listener = TcpListener::bind(address).during(|| format!("listen at {address}"))?;
    listener.set_nonblocking(true).during(|| format!("listen at {address}"))?;
    let here = listener.local_addr().during(|| format!("listen at {address}"))?;
    eprintln!("netprobe: {} programs; http://{here}/metrics", probe.attached());
    let begin = Instant::now();
    while !stop.has_come() && duration.is_none_or(|duration| begin.elapsed() < duration) {
        match listener.accept() {
            // A peer that is gone, or slow, is no matter of ours.
            Ok((stream, _)) => drop(answer(probe, stream)),
            // Among others that there is none, or too many descriptors for the moment.
            Err(_) => std::thread::sleep(NAP),
        }
    }
    Ok(())
}

/// What is left of a connection's time.
struct Deadline(Instant);

impl Deadline {
    fn left(&self) -> std::io::Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

fn answer(probe: &mut Probe, mut stream: TcpStream) -> std::io::Result<()> {
    let deadline = Deadline(Instant::now() + PATIENCE);
    stream.set_nonblocking(false)?;
    let head = read_head(&mut stream, &deadline)?;
    let (status, body) = match head.as_deref().map(path) {
        None => ("431 Request Header Fields Too Large", String::new()),
        Some(Path::Metrics) => match probe.snapshot() {
            Ok(snapshot) => ("200 OK", prometheus::render(&snapshot)),
            Err(error) => ("500 Internal Server Error", format!("{error}\n")),
        },
        Some(Path::Unknown) => ("404 Not Found", "/metrics is here\n".to_owned()),
        Some(Path::OtherMethod) => ("405 Method Not Allowed", "GET is wanted\n".to_owned()),
        Some(Path::Malformed) => {
            ("400 Bad Request", "GET /metrics HTTP/1.1 is wanted\n".to_owned())
        }
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut rest = response.as_bytes();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(deadline.left()?))?;
        let written = stream.write(rest)?;
        rest = rest.get(written..).unwrap_or_default();
        if written == 0 {
            break;
        }
    }
    Ok(())
}

/// Up to the empty line; none if that does not come within the limit.
fn read_head(stream: &mut TcpStream, deadline: &Deadline) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.set_read_timeout(Some(deadline.left()?))?;
        let len = stream.read(&mut buffer)?;
        head.extend_from_slice(buffer.get(..len).unwrap_or_default());
        if len == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if head.len() > REQUEST_MAX {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Metrics,
    Unknown,
    OtherMethod,
    Malformed,
}

fn path(head: &[u8]) -> Path {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) {
        return Path::Malformed;
    }
    let target = target.unwrap_or_default().split(|byte| *byte == b'?').next();
    match (method, target) {
        (Some(b"GET"), Some(b"/metrics")) => Path::Metrics,
        (Some(b"GET"), _) => Path::Unknown,
        _ => Path::OtherMethod,
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, path};

    #[test]
    fn requests_are_told_apart() {
        for (head, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Path::Metrics),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", Path::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Path::Unknown),
            ("POST /metrics HTTP/1.1\r\n\r\n", Path::OtherMethod),
            ("GET /metrics\r\n\r\n", Path::Malformed),
            ("\u{16}\u{3}\r\n\r\n", Path::Malformed),
        ] {
            assert_eq!(path(head.as_bytes()), expected, "{head:?}");
        }
    }
}
