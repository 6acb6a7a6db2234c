//! What servers are asked: whether they are ready, whether they speak a protocol, what version
//! they are and how they were built.
//!
//! Invariants: every question is bounded in time and in bytes; an answer that is not the right one
//! is an error that shows it. Next: `start` asks until a server is ready, `check` asks everything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;

use super::http_get;
use crate::load::protocol::Protocol;
use crate::process;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest answer that is looked at.
const ANSWER_MAX_BYTES: usize = 4096;
/// The longest line that is shown of a version or of options.
const LINE_MAX_CHARS: usize = 200;

/// How a server says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum Ready {
    /// It accepts a connection.
    Tcp,
    /// PING is answered.
    Resp,
    /// `version` is answered.
    Memcache,
    /// It greets with INFO.
    Nats,
    /// A GET has this status.
    Http {
        path: String,
        #[serde(default = "ok")]
        status: u16,
    },
    /// An answer to `send` that begins so.
    Answer {
        #[serde(default)]
        send: String,
        expect: String,
    },
}

const fn ok() -> u16 {
    200
}

impl Ready {
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Http { path, status } => {
                ensure!(path.starts_with('/'), "a path begins with /, not {path:?}");
                ensure!((100..600).contains(status), "a status is from 100 to 599, not {status}");
            }
            Self::Answer { expect, .. } => {
                ensure!(
                    (1..=ANSWER_MAX_BYTES).contains(&expect.len()),
                    "expect is from 1 to {ANSWER_MAX_BYTES} bytes"
                );
            }
            Self::Tcp | Self::Resp | Self::Memcache | Self::Nats => {}
        }
        Ok(())
    }

    /// Asks the server at `addr` once.
    ///
    /// # Errors
    /// It is not ready.
    pub(super) fn ask(&self, addr: SocketAddr) -> Result<()> {
        match self {
            Self::Tcp => connect(addr).map(|_| ()),
            Self::Resp => answers(Protocol::Resp, addr),
            Self::Memcache => answers(Protocol::Memcache, addr),
            Self::Nats => answers(Protocol::Nats, addr),
            Self::Http { path, status } => http_status(addr, path, *status),
            Self::Answer { send, expect } => exchange(addr, send.as_bytes(), expect.as_bytes()),
        }
    }
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Sends `request` and takes an answer that begins with `reply`.
fn exchange(addr: SocketAddr, request: &[u8], reply: &[u8]) -> Result<()> {
    let mut stream = connect(addr)?;
    stream.write_all(request)?;
    let mut got = vec![0; reply.len()];
    stream.read_exact(&mut got)?;
    if got != reply {
        bail!("{addr} answered {:?}", String::from_utf8_lossy(&got));
    }
    Ok(())
}

/// One request that every server of the protocol answers.
fn answers(protocol: Protocol, addr: SocketAddr) -> Result<()> {
    let (request, reply) = protocol.probe();
    exchange(addr, request, reply)
}

fn http_status(addr: SocketAddr, path: &str, expected: u16) -> Result<()> {
    let mut stream = connect(addr)?;
    // In one piece: a server may answer and leave before the next.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let head = String::from_utf8_lossy(&head);
    if head.starts_with("HTTP/1.") && head.ends_with(&format!(" {expected}")) {
        return Ok(());
    }
    bail!("GET {path}: {head}, not {expected}");
}

/// The load's name for `protocol`.
pub(super) fn of_load(protocol: &str) -> Option<Protocol> {
    Protocol::from_str(protocol, false).ok()
}

/// Whether the server at `addr` speaks `protocol`: what it answered.
///
/// # Errors
/// It does not, or nobody here does.
pub(super) fn speaks(protocol: &str, addr: SocketAddr) -> Result<&'static str> {
    match protocol {
        "http1" => {
            ensure!(!http_get(addr, "/")?.is_empty(), "GET /: 200 with an empty body");
            Ok("GET / is 200 with a body")
        }
        "kafka" => {
            kafka(addr)?;
            Ok("ApiVersions")
        }
        "beanstalk" => {
            exchange(addr, b"stats\r\n", b"OK ")?;
            Ok("stats is OK")
        }
        "stream" => {
            connect(addr)?;
            Ok("connected")
        }
        other => {
            let protocol = of_load(other).with_context(|| format!("nobody here speaks {other}"))?;
            answers(protocol, addr)?;
            Ok(match protocol {
                Protocol::Resp | Protocol::Resp3 => "PONG",
                Protocol::Memcache | Protocol::MemcacheMeta => "VERSION",
                Protocol::Http1 | Protocol::Http2 => "SETTINGS",
                Protocol::Nats => "INFO",
                Protocol::Echo => "echoed",
            })
        }
    }
}

/// ApiVersions of version 0 has no parameters; the answer carries the request's number and no error.
fn kafka(addr: SocketAddr) -> Result<()> {
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let mut stream = connect(addr)?;
    stream.write_all(&request)?;
    let mut got = [0; 10];
    stream.read_exact(&mut got)?;
    ensure!(got[4..] == [0, 0, 0, 7, 0, 0], "{addr} answered {got:?} to ApiVersions");
    Ok(())
}

/// Which of its outputs a program answers on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum From {
    Stdout,
    Stderr,
    /// Standard output, or standard error when nothing is there.
    #[default]
    Either,
}

/// What a program is asked on its command line, and which part of what it prints is the answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Ask {
    args: Vec<String>,
    #[serde(default)]
    from: From,
    /// The first line that holds this text, instead of the first that is not empty.
    #[serde(default)]
    line: Option<String>,
    /// The first word that begins so, instead of a line.
    #[serde(default)]
    word: Option<String>,
}

impl Default for Ask {
    fn default() -> Self {
        Self { args: vec!["--version".to_owned()], from: From::Either, line: None, word: None }
    }
}

impl Ask {
    /// Asks `program`.
    ///
    /// # Errors
    /// It is not there, or does not say it.
    pub(super) fn ask(&self, program: &str) -> Result<String> {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let said = process::said(program, &args)?;
        let text = match self.from {
            From::Stderr => &said.error,
            From::Either if said.out.trim().is_empty() => &said.error,
            From::Stdout | From::Either => &said.out,
        };
        self.pick(text).with_context(|| {
            let end: String = said.error.chars().take(LINE_MAX_CHARS).collect();
            format!("{program} {} does not say it: {}, {end}", args.join(" "), said.status)
        })
    }

    fn pick(&self, text: &str) -> Option<String> {
        let shown = |text: &str| {
            let text = text.trim();
            let short: String = text.chars().take(LINE_MAX_CHARS).collect();
            if short.len() < text.len() { format!("{short}...") } else { short }
        };
        if let Some(begin) = &self.word {
            return text
                .split_whitespace()
                .find(|word| word.starts_with(begin.as_str()))
                .map(shown);
        }
        let wanted = |line: &&str| match &self.line {
            Some(part) => line.contains(part.as_str()),
            None => !line.trim().is_empty(),
        };
        text.lines().find(wanted).map(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_version_is_picked_by_line_and_word() {
        let text = "\nServer v=7 malloc=jemalloc-5\nconfigure arguments: --with\n";
        let mut ask = Ask::default();
        assert_eq!(ask.pick(text).expect("a line"), "Server v=7 malloc=jemalloc-5");
        ask.line = Some("configure".to_owned());
        assert_eq!(ask.pick(text).expect("a line"), "configure arguments: --with");
        ask.word = Some("malloc=".to_owned());
        assert_eq!(ask.pick(text).expect("a word"), "malloc=jemalloc-5");
        ask.word = Some("tls=".to_owned());
        assert_eq!(ask.pick(text), None);
        assert_eq!(Ask::default().pick(&"x".repeat(300)).expect("short").len(), 203);
    }

    #[test]
    fn outputs_are_told_apart() {
        let script = |from, text: &str| Ask {
            args: vec!["-c".to_owned(), text.to_owned()],
            from,
            line: None,
            word: None,
        };
        let both = "echo out; echo error >&2";
        for (from, expected) in
            [(From::Stdout, "out"), (From::Stderr, "error"), (From::Either, "out")]
        {
            assert_eq!(script(from, both).ask("sh").expect("it says so"), expected);
        }
        assert_eq!(script(From::Either, "echo error >&2").ask("sh").expect("it says so"), "error");
        let error = script(From::Stdout, "exit 2").ask("sh").expect_err("it says nothing");
        assert!(error.to_string().contains("exit status: 2"), "{error:#}");
    }

    /// Answers one connection with `reply`.
    fn server(reply: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        #[expect(clippy::disallowed_methods, reason = "a server of the test's own")]
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            let mut request = [0; 1024];
            let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
            let _ = stream.read(&mut request);
            let _ = stream.write_all(reply.as_bytes());
        });
        addr
    }

    #[test]
    fn readiness_is_what_the_registry_says() {
        let http = |status| Ready::Http { path: "/x".to_owned(), status };
        http(204).ask(server("HTTP/1.1 204 No Content\r\n\r\n")).expect("ready");
        let error = http(200).ask(server("HTTP/1.1 503 Starting\r\n\r\n")).expect_err("not yet");
        assert!(error.to_string().contains("503"), "{error:#}");
        Ready::Nats.ask(server("INFO {}\r\n")).expect("ready");
        Ready::Resp.ask(server("+PONG\r\n")).expect("ready");
        assert!(Ready::Resp.ask(server("-LOADING\r\n")).is_err());
        Ready::Memcache.ask(server("VERSION 1.6\r\n")).expect("ready");
        let answer = Ready::Answer { send: "hi".to_owned(), expect: "ho".to_owned() };
        answer.ask(server("ho ho")).expect("ready");
        assert!(answer.ask(server("no")).is_err());
    }

    #[test]
    fn protocols_of_the_load_have_the_registry_s_names() {
        for protocol in Protocol::value_variants() {
            let name = protocol.to_possible_value().expect("a name").get_name().to_owned();
            assert!(super::super::registry::PROTOCOLS.contains(&name.as_str()), "{name}");
            assert_eq!(of_load(&name), Some(*protocol));
        }
        assert_eq!(of_load("kafka"), None);
    }
}
