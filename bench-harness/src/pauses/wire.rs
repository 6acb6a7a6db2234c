//! What is said to a server beside the load: commands in RESP, fields of INFO, and keys that expire together.
//!
//! A socket of its own with a bound on what is read and on how long it waits, so that a server that hangs is an error and
//! not a run without an end. Invariants: a reply that is an error is one here; a key that was not taken is not counted.
//! Next: `event`, which says what is asked when.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to answer: one that loads a data set on a core that others want takes its time.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest line and the longest text of a reply.
const REPLY_MAX_BYTES: u64 = 1 << 20;
/// Keys that are put before their replies are read.
const PUT_BATCH: u32 = 1_000;
/// What a SET is answered with.
const OK: &[u8] = b"+OK\r\n";
/// Keys expire at so many different milliseconds: one second's.
pub(super) const SPAN_MS: u64 = 1_000;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    addr: SocketAddr,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(super) fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, CONNECT)
            .with_context(|| format!("connect to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Self { addr, reader: BufReader::with_capacity(1 << 16, stream) })
    }

    /// What it answers to a command whose reply is a line, a number or one text.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<String> {
        let shown = || format!("{} at {}", words.join(" "), self.addr);
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.reader.get_mut().write_all(request.as_bytes()).with_context(shown)?;
        reply(&mut self.reader).with_context(shown)
    }

    /// A section of INFO.
    pub(super) fn info(&mut self, section: &str) -> Result<Info> {
        Ok(Info(self.ask(&["INFO", section])?))
    }

    /// How many keys it has.
    pub(super) fn keys(&mut self) -> Result<u64> {
        let said = self.ask(&["DBSIZE"])?;
        said.parse().with_context(|| format!("DBSIZE at {}: {said:?} is no number", self.addr))
    }

    /// Puts `count` keys of 16 B, each with a value of `len` B, that expire within [`SPAN_MS`] from `at_ms` of the Unix epoch.
    pub(super) fn put_expiring(&mut self, count: u32, len: usize, at_ms: u64) -> Result<()> {
        let value = "v".repeat(len);
        let mut requests = Vec::new();
        let mut replies = vec![0; PUT_BATCH as usize * OK.len()];
        for first in (0..count).step_by(PUT_BATCH as usize) {
            let last = count.min(first.saturating_add(PUT_BATCH));
            requests.clear();
            for key in first..last {
                let at_ms = at_ms + u64::from(key) % SPAN_MS;
                // Into memory, which takes all.
                let _ = write!(
                    requests,
                    "*5\r\n$3\r\nSET\r\n$16\r\nexp:{key:012}\r\n${len}\r\n{value}\r\n$4\r\nPXAT\r\n${}\r\n{at_ms}\r\n",
                    at_ms.to_string().len()
                );
            }
            let want = (last - first) as usize * OK.len();
            let Some(got) = replies.get_mut(..want) else { bail!("a batch beyond its bound") };
            let shown = || format!("put keys that expire at {}", self.addr);
            self.reader.get_mut().write_all(&requests).with_context(shown)?;
            self.reader.read_exact(got).with_context(shown)?;
            if let Some(other) = got.chunks(OK.len()).position(|reply| reply != OK) {
                let rest = got.get(other * OK.len()..).unwrap_or_default();
                let line = String::from_utf8_lossy(rest);
                let line = line.lines().next().unwrap_or_default();
                bail!("SET with PXAT at {}: answered {line:?}, not OK", self.addr);
            }
        }
        Ok(())
    }
}

/// One reply that is no array.
fn reply(reader: &mut impl BufRead) -> Result<String> {
    let line = line(reader)?;
    let (kind, rest) = line.split_at_checked(1).context("an empty reply")?;
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => bail!("{rest}"),
        "$" => {
            let len: u64 = rest.parse().with_context(|| format!("a text of {rest:?} bytes"))?;
            ensure!(len <= REPLY_MAX_BYTES, "a reply of {len} B: at most {REPLY_MAX_BYTES}");
            let mut text = Vec::new();
            reader.take(len + 2).read_to_end(&mut text)?;
            ensure!(text.ends_with(b"\r\n") && text.len() as u64 == len + 2, "a reply was cut off");
            text.truncate(text.len() - 2);
            String::from_utf8(text).context("a reply that is no text")
        }
        _ => bail!("not a line, a number or a text: {line:?}"),
    }
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.take(REPLY_MAX_BYTES).read_line(&mut line)?;
    let whole = line.strip_suffix("\r\n");
    whole.map(str::to_owned).with_context(|| format!("closed, or no line of RESP: {line:?}"))
}

/// What INFO says.
#[derive(Clone, Debug)]
pub(super) struct Info(String);

impl Info {
    /// A field, where it is there.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// A field that must be there and a number.
    pub(super) fn number(&self, name: &str) -> Result<u64> {
        let text = self.get(name).with_context(|| format!("INFO has no field {name}"))?;
        text.parse().with_context(|| format!("INFO: {name} is {text:?} and no number"))
    }

    /// A field that is a flag.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }
}

#[cfg(test)]
impl Info {
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String> {
        reply(&mut text.as_bytes())
    }

    #[test]
    fn replies_of_each_kind_are_read_and_errors_are_errors() {
        assert_eq!(read("+OK\r\n").expect("a line"), "OK");
        assert_eq!(read(":12\r\n").expect("a number"), "12");
        assert_eq!(read("$5\r\na\r\nbc\r\n").expect("a text"), "a\r\nbc");
        let said = read("-ERR no\r\n").expect_err("an error").to_string();
        assert_eq!(said, "ERR no");
        for cut in ["", "\r\n", "+OK", "$5\r\nabc", "$-1\r\n", "*1\r\n+OK\r\n", "$x\r\n"] {
            assert!(read(cut).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn a_reply_has_a_bound() {
        let at = format!("${REPLY_MAX_BYTES}\r\n{}\r\n", "x".repeat(REPLY_MAX_BYTES as usize));
        assert_eq!(read(&at).expect("at the bound").len() as u64, REPLY_MAX_BYTES);
        let beyond = format!("${}\r\n", REPLY_MAX_BYTES + 1);
        assert!(read(&beyond).expect_err("beyond").to_string().contains("at most"));
        assert!(read(&"+".repeat(REPLY_MAX_BYTES as usize + 2)).is_err(), "a line without an end");
    }

    #[test]
    fn fields_of_info_are_found_by_their_whole_name() {
        let info = Info::of("# Stats\r\nexpired_keys_more:1\r\nexpired_keys:12\r\nloading:1\r\n");
        assert_eq!(info.number("expired_keys").expect("there"), 12);
        assert!(info.is_set("loading") && !info.is_set("expired_keys"));
        assert!(
            info.number("evicted_keys").expect_err("none").to_string().contains("evicted_keys")
        );
    }
}
