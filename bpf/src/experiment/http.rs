//! A small HTTP/1.1 client (RFC 9112): one request a connection, without TLS.
//!
//! Invariants: a request ends by its deadline or when it is halted, and an answer is bounded in head and body; what is put into
//! a request cannot end its line. Names are resolved by the system, which has its own timeouts. Next: `provider`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::Halt;
use crate::error::{During as _, Error, Result};

/// Longest head of an answer.
const HEAD_MAX: usize = 64 << 10;
/// Longest body.
pub const BODY_MAX: usize = 4 << 20;
/// Most hops of a redirected request.
const REDIRECTS_MAX: u32 = 10;
/// How long a wait is that looks whether to go on in between.
const SLICE: Duration = Duration::from_millis(50);

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    /// With what is asked, from the `/` on.
    path: String,
}

impl std::str::FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::usage(format!("http: url {text:?}: {what}"));
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("https:") {
            return Err(Error::unsupported(format!(
                "http: url {text:?}: there is no TLS here; a `process` such as curl may ask it"
            )));
        }
        if !lower.starts_with("http://") {
            return Err(wrong("it is to begin with http://"));
        }
        let rest = text.get(7..).unwrap_or_default();
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(wrong("a name and a password are not taken from it; a header is"));
        }
        let after_bracket = authority.rfind(']').unwrap_or(0);
        let (host, port) =
            match authority.rfind(':').filter(|at| *at > after_bracket || after_bracket == 0) {
                Some(at) => {
                    let port = authority.get(at + 1..).unwrap_or_default();
                    (
                        authority.get(..at).unwrap_or_default(),
                        port.parse().map_err(|_| wrong("the port is no number"))?,
                    )
                }
                None => (authority, 80),
            };
        let is_host = |c: char| c.is_ascii_graphic() && !"/\\\"<>".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(wrong("a host is wanted"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            host: host.to_owned(),
            port,
            path: format!("{slash}{}", escape(path, is_of_path)),
        })
    }
}

/// What needs no escape in a path that was written by hand.
fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)
}

fn escape(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut done = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            done.push(char::from(byte))
        } else {
            done.push_str(&format!("%{byte:02X}"))
        }
    }
    done
}

/// Pairs as forms and queries have them.
#[must_use]
pub fn form(pairs: &[(String, String)]) -> String {
    let escape =
        |text: &str| escape(text, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}

impl Url {
    /// With more to ask.
    #[must_use]
    pub fn with_query(mut self, query: &str) -> Self {
        if !query.is_empty() {
            self.path.push(if self.path.contains('?') { '&' } else { '?' });
            self.path.push_str(query);
        }
        self
    }

    /// With a path below the one that it has, unless it ends so already.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        if !self.path.ends_with(path) {
            self.path.truncate(self.path.trim_end_matches('/').len());
            self.path.push_str(path);
        }
        self
    }

    /// Where an answer sends on.
    fn redirected(&self, location: &str) -> Result<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(Self { path: escape(location, is_of_path), ..self.clone() });
        }
        if location.contains("://") {
            location.parse()
        } else {
            Err(Error::failed(format!("http: redirected to {location:?}, which is not followed")))
        }
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        Ok((host, self.port)
            .to_socket_addrs()
            .during(|| format!("http: resolve {host:?}"))?
            .collect())
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Where it goes.
    pub url: Url,
    /// Headers beside those of this client, which these replace.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Vec<u8>,
    /// For a connection.
    pub connect_timeout: Duration,
    /// For the rest.
    pub timeout: Duration,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, in their order.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl Request {
    /// Checks that it can be sent.
    ///
    /// # Errors
    /// Its method or a header cannot.
    pub fn check(&self) -> Result<()> {
        if !is_token(&self.method) {
            return Err(Error::usage(format!("http: method {:?}: a word is wanted", self.method)));
        }
        let is_wrong = |(name, value): &&(String, String)| {
            !is_token(name) || value.contains(['\r', '\n', '\0'])
        };
        match self.headers.iter().find(is_wrong) {
            Some((name, _)) => Err(Error::usage(format!("http: header {name:?} is none"))),
            None => Ok(()),
        }
    }

    fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.url.path);
        let is_given =
            |name: &str| self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let port = if self.url.port == 80 { String::new() } else { format!(":{}", self.url.port) };
        let length = self.body.len().to_string();
        let ours = [
            ("Host", format!("{}{port}", self.url.host)),
            ("User-Agent", concat!("chaos/", env!("CARGO_PKG_VERSION")).to_owned()),
            ("Accept", "*/*".to_owned()),
            ("Content-Length", length),
        ];
        let has_body =
            !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        for (name, value) in ours.iter().filter(|(name, _)| has_body || *name != "Content-Length") {
            if !is_given(name) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for (name, value) in
            self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection"))
        {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "Connection: close\r\n\r\n"
    }

    /// Sends it, and follows where it is sent on.
    ///
    /// # Errors
    /// No answer comes in time, or none of HTTP; it is halted.
    pub fn send(&self, halt: Halt<'_>) -> Result<Response> {
        let mut request = self.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = request.send_once(halt)?;
            let Some(location) = response
                .header("location")
                .filter(|_| matches!(response.status, 301 | 302 | 303 | 307 | 308))
            else {
                return Ok(response);
            };
            request.url = request.url.redirected(location)?;
            if !matches!(response.status, 307 | 308) && request.method != "HEAD" {
                request.method = "GET".to_owned();
                request.body = Vec::new();
            }
        }
        Err(Error::failed(format!("http: redirected more than {REDIRECTS_MAX} times")))
    }

    fn send_once(&self, halt: Halt<'_>) -> Result<Response> {
        let mut last = Error::failed(format!("http: {} has no address", self.url.host));
        let begin = Instant::now();
        for address in self.url.addresses()? {
            let left = self.connect_timeout.saturating_sub(begin.elapsed());
            match open(address, left, halt) {
                Ok(stream) => return self.talk(stream, halt),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn talk(&self, mut stream: TcpStream, halt: Halt<'_>) -> Result<Response> {
        let doing = || format!("http: {} http://{}:{}", self.method, self.url.host, self.url.port);
        stream.set_read_timeout(Some(SLICE)).during(doing)?;
        stream.set_write_timeout(Some(self.timeout)).during(doing)?;
        let deadline = Instant::now() + self.timeout;
        stream.write_all(self.head().as_bytes()).during(doing)?;
        stream.write_all(&self.body).during(doing)?;
        let mut reader = Reader { stream, deadline, halt, buffer: Vec::new(), is_over: false };
        reader.response(self.method == "HEAD").map_err(|error| error.during(&doing()))
    }
}

/// Connects, looking whether to go on meanwhile.
fn open(address: SocketAddr, timeout: Duration, halt: Halt<'_>) -> Result<TcpStream> {
    let doing = || format!("http: connect to {address}");
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None).during(doing)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(Error::failed(format!("{}: {error}", doing()))),
    }
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || halt.is_set() {
            let why = if left.is_zero() { "no answer in time" } else { "ended" };
            return Err(Error::failed(format!("{}: {why}", doing())));
        }
        let wait = Timespec { tv_sec: 0, tv_nsec: left.min(SLICE).subsec_nanos().into() };
        let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
        match poll(&mut fds, Some(&wait)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(Error::failed(format!("{}: {error}", doing()))),
        }
    }
    sockopt::socket_error(&socket).during(doing)?.during(doing)?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).during(doing)?;
    Ok(stream)
}

/// What has come of an answer.
struct Reader<'a> {
    stream: TcpStream,
    deadline: Instant,
    halt: Halt<'a>,
    buffer: Vec<u8>,
    /// The peer says no more.
    is_over: bool,
}

impl Reader<'_> {
    /// Receives more; false when there is none.
    fn more(&mut self) -> Result<bool> {
        let mut chunk = [0; 16 << 10];
        loop {
            if self.is_over {
                return Ok(false);
            }
            if self.halt.is_set() {
                return Err(Error::failed("ended"));
            }
            if Instant::now() >= self.deadline {
                return Err(Error::failed("no answer in time"));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => self.is_over = true,
                Ok(len) => {
                    self.buffer.extend_from_slice(chunk.get(..len).unwrap_or_default());
                    return Ok(true);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock
                            | std::io::ErrorKind::TimedOut
                            | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(Error::failed(error.to_string())),
            }
        }
    }

    /// Takes a line, without its end.
    fn line(&mut self) -> Result<String> {
        let mut searched = 0;
        loop {
            let end = self
                .buffer
                .iter()
                .skip(searched)
                .position(|byte| *byte == b'\n')
                .map(|at| at + searched);
            if let Some(end) = end {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned());
            }
            searched = self.buffer.len();
            if searched > HEAD_MAX {
                return Err(Error::failed(format!(
                    "a line of the answer is longer than {HEAD_MAX} bytes"
                )));
            }
            if !self.more()? {
                return Err(Error::failed("the answer ends within its head"));
            }
        }
    }

    /// Takes so many bytes.
    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < len {
            if !self.more()? {
                return Err(Error::failed("the answer ends within its body"));
            }
        }
        Ok(self.buffer.drain(..len).collect())
    }

    fn head(&mut self) -> Result<Response> {
        let line = self.line()?;
        let mut words = line.split(' ');
        let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
        let status = words
            .next()
            .and_then(|word| word.parse().ok())
            .filter(|status| is_http && (100..1000).contains(status));
        let status = status.ok_or_else(|| {
            Error::failed(format!(
                "an answer that begins with {:?} is none of HTTP/1",
                line.chars().take(40).collect::<String>()
            ))
        })?;
        let mut headers = Vec::new();
        let mut len = 0;
        loop {
            let line = self.line()?;
            len += line.len() + 2;
            if len > HEAD_MAX {
                return Err(Error::failed(format!(
                    "the answer's head is longer than {HEAD_MAX} bytes"
                )));
            }
            match line.split_once(':') {
                Some((name, value)) => {
                    headers.push((name.trim().to_owned(), value.trim().to_owned()))
                }
                None if line.is_empty() => {
                    return Ok(Response { status, headers, body: Vec::new() });
                }
                None => {}
            }
        }
    }

    fn response(&mut self, is_head: bool) -> Result<Response> {
        let mut response = self.head()?;
        while (100..200).contains(&response.status) {
            response = self.head()?;
        }
        if is_head || matches!(response.status, 204 | 304) {
            return Ok(response);
        }
        let too_long =
            || Error::failed(format!("the answer's body is longer than {BODY_MAX} bytes"));
        let is_chunked = response
            .header("transfer-encoding")
            .is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
        if is_chunked {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16)
                    .map_err(|_| Error::failed(format!("chunk of size {size:?}")))?;
                if size == 0 {
                    return Ok(response);
                }
                if size > BODY_MAX - response.body.len().min(BODY_MAX) {
                    return Err(too_long());
                }
                response.body.extend(self.take(size)?);
                self.line()?;
            }
        }
        if let Some(length) = response.header("content-length") {
            let length: usize = length
                .parse()
                .map_err(|_| Error::failed(format!("content-length of {length:?}")))?;
            if length > BODY_MAX {
                return Err(too_long());
            }
            response.body = self.take(length)?;
            return Ok(response);
        }
        while self.more()? {
            if self.buffer.len() > BODY_MAX {
                return Err(too_long());
            }
        }
        response.body = std::mem::take(&mut self.buffer);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::AtomicBool;

    use super::*;

    static NO: AtomicBool = AtomicBool::new(false);

    fn ask(answer: &'static [u8], tail: Duration) -> Result<Response> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/a b?c", listener.local_addr().expect("bound"))
            .parse()
            .expect("a url");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1024];
            let len = stream.read(&mut request).expect("a request");
            stream.write_all(answer).expect("it is sent");
            std::thread::sleep(tail);
            String::from_utf8_lossy(&request[..len]).into_owned()
        });
        let timeout = Duration::from_millis(300);
        let request = Request {
            method: "GET".to_owned(),
            url,
            headers: Vec::new(),
            body: Vec::new(),
            connect_timeout: timeout,
            timeout,
        };
        let response = request.send(Halt { interrupted: &NO, broken: &NO });
        let request = server.join().expect("it served");
        assert!(request.starts_with("GET /a%20b?c HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        response
    }

    #[test]
    fn bodies_of_each_kind_are_read() {
        let now = Duration::ZERO;
        let late = Duration::from_millis(500);
        let body = |answer, tail| {
            String::from_utf8(ask(answer, tail).expect("an answer").body).expect("text")
        };
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", late), "ok");
        assert_eq!(body(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n1\r\n!\r\n0\r\n\r\n", late), "ok!");
        assert_eq!(body(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\nto the end", now), "to the end");
        assert_eq!(body(b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", late), "");
    }

    #[test]
    fn answers_that_are_none_late_or_too_long_are_errors() {
        let wrong: [&[u8]; 5] = [
            b"",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        ];
        for answer in wrong {
            ask(answer, Duration::ZERO).expect_err("it is none");
        }
        let begin = Instant::now();
        ask(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Duration::from_millis(900))
            .expect_err("it is late");
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn urls_are_taken_apart() {
        let url: Url = "http://[::1]:80?x=1#y".parse().expect("a url");
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("[::1]", 80, "/?x=1"));
        assert_eq!(
            "https://a/".parse::<Url>().expect_err("no TLS").kind,
            crate::error::Kind::Unsupported
        );
        for wrong in ["ftp://a", "http://", "http://a:b", "http://u:p@a/", "http://a b/", "http:/a"]
        {
            wrong.parse::<Url>().expect_err(wrong);
        }
    }
}
