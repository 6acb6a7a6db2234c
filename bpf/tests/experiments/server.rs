//! A small HTTP server for experiments: fixed answers, an echo, and a switch that makes it fail or fall silent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// It answers `/state` well.
pub(crate) const UP: u8 = 0;
/// It answers with 500.
pub(crate) const DOWN: u8 = 1;
/// It takes connections and says nothing.
pub(crate) const SILENT: u8 = 2;

/// A server; its threads end with the test's process.
pub(crate) struct Server {
    /// Where it is.
    pub(crate) base: String,
    state: Arc<AtomicU8>,
}

impl Server {
    /// Starts one on this host.
    pub(crate) fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    /// Serves what was bound elsewhere.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let state = Arc::new(AtomicU8::new(UP));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { base, state }
    }

    /// Turns the switch.
    pub(crate) fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }
}

fn serve(mut stream: TcpStream, state: &AtomicU8) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body);
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let orders =
        r#"{"orders":[{"id":1,"state":"open"},{"id":2,"state":"sent"},{"id":3,"state":"open"}]}"#;
    let sample = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000.0,"0.004"]}]}}"#;
    let text = "text/plain";
    let (status, kind, answer) = match path.split('?').next()? {
        "/ok" => (200, text, "ok".to_owned()),
        "/orders" => (200, "application/json", orders.to_owned()),
        "/latency" => (200, text, "7.25\n".to_owned()),
        "/echo" => (if method == "POST" { 201 } else { 200 }, text, format!("{head}\n{body}")),
        "/moved" => (302, text, String::new()),
        "/api/v1/query" => (200, "application/json", sample.to_owned()),
        "/turn/down" => {
            state.store(DOWN, Ordering::SeqCst);
            (200, text, String::new())
        }
        "/state" => match state.load(Ordering::SeqCst) {
            UP => (200, text, "up".to_owned()),
            DOWN => (500, text, "down".to_owned()),
            _ => {
                std::thread::sleep(Duration::from_secs(4));
                return None;
            }
        },
        _ => (404, text, String::new()),
    };
    let length = answer.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nLocation: /ok\r\nContent-Length: {length}\r\n\r\n{answer}"
    );
    let answer = if status == 302 { answer } else { answer.replace("Location: /ok\r\n", "") };
    stream.write_all(answer.as_bytes()).ok()
}
