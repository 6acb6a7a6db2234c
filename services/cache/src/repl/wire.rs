//! The connection to a master: what has come and was not looked at, lines, and what is sent.
//!
//! Invariant: bytes that have come are kept in their order until they are taken. Next: `link.rs`.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use engine::buf::Lease;
use engine::driver::Errno;
use engine::error::{Error, Kind};
use engine::exec::sync::within;
use engine::net::Stream;
use engine::shard::ShardCx;
use view::Output;
use wire::resp::reply;

/// A line that is longer is none of the protocol.
const LINE_MAX_BYTES: usize = 64 << 10;

type Receive = Pin<Box<dyn Future<Output = Result<Option<Lease>, Errno>>>>;

/// A connection.
pub(crate) struct Wire {
    cx: ShardCx,
    stream: Rc<Stream>,
    /// What is under way: given up only with the connection, since it may have taken bytes already.
    receiving: Option<Receive>,
    /// What has come and was not taken.
    pub(crate) buffer: Vec<u8>,
    peer: String,
    timeout_ns: u64,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Nobody is there.
    pub(crate) async fn connect(
        cx: &ShardCx,
        addr: SocketAddr,
        timeout_ns: u64,
    ) -> Result<Self, Error> {
        let connected = within(Stream::connect(cx, addr), cx.sleep(timeout_ns)).await;
        let stream = connected.unwrap_or_else(|| Err(silent(&addr.to_string())))?;
        Ok(Self {
            cx: cx.clone(),
            stream: Rc::new(stream),
            receiving: None,
            buffer: Vec::new(),
            peer: addr.to_string(),
            timeout_ns,
        })
    }

    /// Waits for more bytes, no longer than this; whether some came.
    ///
    /// # Errors
    /// The connection has ended.
    pub(crate) async fn more(&mut self, limit_ns: u64) -> Result<bool, Error> {
        let stream = Rc::clone(&self.stream);
        let receiving =
            self.receiving.get_or_insert_with(|| Box::pin(async move { stream.receive().await }));
        let Some(received) = within(receiving.as_mut(), self.cx.sleep(limit_ns)).await else {
            return Ok(false);
        };
        self.receiving = None;
        match received {
            Ok(Some(lease)) => {
                self.buffer.extend_from_slice(&lease);
                Ok(true)
            }
            Ok(None) => {
                let context = format!("{}: the master has closed the connection", self.peer);
                Err(Error::new("receive", Kind::Closed, context))
            }
            Err(errno) => Err(Error::os("receive", errno, self.peer.clone())),
        }
    }

    /// Waits for bytes as long as the timeout says.
    ///
    /// # Errors
    /// None came, or the connection has ended.
    pub(crate) async fn must(&mut self) -> Result<(), Error> {
        if self.more(self.timeout_ns).await? { Ok(()) } else { Err(silent(&self.peer)) }
    }

    /// The next line that is not empty: empty ones say only that the master is there.
    ///
    /// # Errors
    /// None came, or the connection has ended.
    pub(crate) async fn line(&mut self) -> Result<String, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let text = line.trim_ascii();
                if !text.is_empty() {
                    return Ok(String::from_utf8_lossy(text).into_owned());
                }
                continue;
            }
            if self.buffer.len() > LINE_MAX_BYTES {
                let context = format!("{}: a line without an end", self.peer);
                return Err(Error::new("receive", Kind::Invalid, context));
            }
            self.must().await?;
        }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The connection has ended, or the peer takes nothing.
    pub(crate) async fn send(&self, words: &[&[u8]]) -> Result<(), Error> {
        let mut out = Output::default();
        reply::array(out.inline_mut(), words.len());
        for word in words {
            reply::bulk(out.inline_mut(), word);
        }
        self.put(out).await
    }

    /// Says only that we are there.
    ///
    /// # Errors
    /// As [`Wire::send`].
    pub(crate) async fn blank(&self) -> Result<(), Error> {
        let mut out = Output::default();
        out.write(b"\n");
        self.put(out).await
    }

    async fn put(&self, out: Output) -> Result<(), Error> {
        match within(self.stream.send(out), self.cx.sleep(self.timeout_ns)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(errno)) => Err(Error::os("send", errno, self.peer.clone())),
            None => Err(silent(&self.peer)),
        }
    }

    /// Sends a command and waits for its one line.
    ///
    /// # Errors
    /// As [`Wire::send`] and [`Wire::line`].
    pub(crate) async fn ask(&mut self, words: &[&[u8]]) -> Result<String, Error> {
        self.send(words).await?;
        self.line().await
    }
}

/// Nothing was heard for too long.
pub(crate) fn silent(peer: &str) -> Error {
    Error::new("receive", Kind::TimedOut, format!("{peer}: no word within repl-timeout"))
}
