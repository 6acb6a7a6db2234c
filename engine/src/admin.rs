//! The admin port: metrics, health and the shards' inner state, over HTTP.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | Prometheus text, each series with its shard |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 while it serves, 503 once it stops |
//! | `/debug/shards` | JSON: one object of numbers per shard |
//!
//! Shard 0 listens; the others answer its questions in their own turns. Invariants: a request is
//! at most [`REQUEST_MAX_BYTES`] long and [`CONNECTIONS_MAX`] are served at a time; nothing here
//! touches another shard's memory.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Mutex;

use view::Output;

use crate::driver::{Completion, ListenOptions};
use crate::error::Error;
use crate::exec::sync::within;
use crate::metrics::{CONTENT_TYPE, Snapshot, render};
use crate::net::stream::{Stream, serve};
use crate::shard::calls::{self, Calls, CallsPort};
use crate::shard::{Handler, ShardCx};

/// Longest request head.
pub const REQUEST_MAX_BYTES: usize = 8 << 10;
/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 64;
/// A client must have sent its request by then.
const REQUEST_NS: u64 = 5_000_000_000;
/// How long it may keep talking when it was answered.
const LINGER_NS: u64 = 300_000_000;

/// What one shard tells.
#[derive(Debug)]
pub struct ShardReport {
    snapshot: Snapshot,
    numbers: Vec<(&'static str, u64)>,
}

/// The admin port before the shards start.
pub struct Admin {
    address: SocketAddr,
    ports: Mutex<Vec<Option<CallsPort<(), ShardReport>>>>,
}

impl Admin {
    /// An admin port for `shards` shards.
    #[must_use]
    pub fn new(address: SocketAddr, shards: usize) -> Self {
        let ports = calls::ports(shards, 16).into_iter().map(Some).collect();
        Self { address, ports: Mutex::new(ports) }
    }

    /// Puts the shard's part in place; shard 0 starts to listen.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    ///
    /// # Panics
    /// When called twice for a shard.
    pub fn install(&self, cx: &ShardCx) -> Result<(), Error> {
        let port = {
            let mut ports = self.ports.lock().expect("no shard panics while it takes its port");
            ports[cx.index()].take().expect("the admin port is installed once per shard")
        };
        let calls = Calls::new(cx, port);
        cx.add_handler(Rc::new(Part { cx: cx.clone(), calls: Rc::clone(&calls) }));
        if cx.index() > 0 {
            return Ok(());
        }
        let served = cx.clone();
        serve(cx, self.address, &ListenOptions::default(), CONNECTIONS_MAX, move |stream| {
            let (cx, calls) = (served.clone(), Rc::clone(&calls));
            async move { connection(&cx, &calls, &stream).await }
        })
    }
}

fn report(cx: &ShardCx) -> ShardReport {
    cx.sample();
    // Asking for the numbers brings the services' metrics up to date too.
    let numbers = cx.numbers();
    ShardReport { snapshot: cx.metrics().snapshot(), numbers }
}

/// A shard's part: answers shard 0.
struct Part {
    cx: ShardCx,
    calls: Rc<Calls<(), ShardReport>>,
}

impl Handler for Part {
    fn on_completion(&self, _local: u64, _completion: Completion) {}

    fn on_timer(&self, _local: u64) {}

    fn on_turn(&self) -> bool {
        let serve = |asker, ()| self.calls.answer(asker, report(&self.cx));
        self.calls.turn(serve, |_, _| {})
    }

    fn end_turn(&self) {
        self.calls.flush();
    }

    fn park(&self) -> bool {
        self.calls.park()
    }

    fn unpark(&self) {
        self.calls.unpark();
    }

    fn has_messages(&self) -> bool {
        self.calls.has_messages()
    }

    fn stop(&self) {}

    fn is_stopped(&self) -> bool {
        true
    }
}

async fn connection(cx: &ShardCx, calls: &Calls<(), ShardReport>, stream: &Stream) {
    let deadline_ns = cx.now().mono_ns + REQUEST_NS;
    let Some(path) = request(cx, stream, deadline_ns).await else { return };
    let reply = match path.as_deref() {
        Some("/metrics") => {
            let reports = reports(cx, calls).await;
            let snapshots: Vec<_> = reports.into_iter().map(|report| report.snapshot).collect();
            response(200, CONTENT_TYPE, &render(&snapshots))
        }
        Some("/debug/shards") => {
            response(200, "application/json", &json(&reports(cx, calls).await))
        }
        Some("/healthz") => response(200, TEXT, "ok\n"),
        Some("/readyz") if cx.is_stopping() => response(503, TEXT, "stopping\n"),
        Some("/readyz") => response(200, TEXT, "ready\n"),
        Some(_) => response(404, TEXT, "try /metrics, /healthz, /readyz or /debug/shards\n"),
        None => response(400, TEXT, "expected GET <path> HTTP/1.1\n"),
    };
    // A client that is gone needs no answer.
    let _ = stream.send(Output::with_text(reply.as_bytes())).await;
    stream.finish(LINGER_NS).await;
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The requested path: `None` when the client left or took too long, `Some(None)` when it sent
/// something else.
async fn request(cx: &ShardCx, stream: &Stream, deadline_ns: u64) -> Option<Option<String>> {
    let mut head = Vec::new();
    loop {
        let lease = within(stream.receive(), cx.sleep_until(deadline_ns)).await?.ok()??;
        head.extend_from_slice(&lease);
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Some(path_of(&head));
        }
        if head.len() > REQUEST_MAX_BYTES {
            return Some(None);
        }
    }
}

fn path_of(head: &[u8]) -> Option<String> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if method != "GET" || !version.starts_with("HTTP/1.") {
        return None;
    }
    Some(target.split('?').next()?.to_owned())
}

fn response(status: u16, content_type: &str, body: &str) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        _ => "Service Unavailable",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn reports(cx: &ShardCx, calls: &Calls<(), ShardReport>) -> Vec<ShardReport> {
    let mut pending = Vec::new();
    for shard in 1..cx.count() {
        pending.push(calls.start(shard, ()).await);
    }
    let mut reports = vec![report(cx)];
    for answer in pending {
        reports.extend(answer.recv().await);
    }
    reports
}

fn json(reports: &[ShardReport]) -> String {
    let mut text = String::from("[");
    for (index, report) in reports.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}\n  {{\"shard\": {index}");
        for (name, value) in &report.numbers {
            let _ = write!(text, ", \"{name}\": {value}");
        }
        text.push('}');
    }
    text.push_str("\n]\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_get_requests_have_a_path() {
        let path = |text: &str| path_of(text.as_bytes());
        assert_eq!(path("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), Some("/metrics".into()));
        assert_eq!(path("POST /metrics HTTP/1.1\r\n\r\n"), None);
        assert_eq!(path("GET /metrics\r\n\r\n"), None);
        assert_eq!(path("\u{16}\u{3}\u{1}\r\n\r\n"), None);
    }
}
