//! Listeners and connections for code that is best written as a task: the admin port, outgoing
//! connections. An idle stream holds no buffer.

use std::fmt;
use std::net::SocketAddr;

use view::Output;

use crate::buf::Lease;
use crate::driver::{Errno, Fd, ListenOptions, Op, Payload};
use crate::error::Error;
use crate::exec::sync::within;
use crate::shard::ShardCx;

/// A connected socket; closed on drop.
pub struct Stream {
    cx: ShardCx,
    fd: Fd,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?})", self.fd)
    }
}

impl Stream {
    pub(crate) fn new(cx: &ShardCx, fd: Fd) -> Self {
        Self { cx: cx.clone(), fd }
    }

    /// Connects to `addr`.
    ///
    /// # Errors
    /// The peer refuses or is unreachable.
    pub async fn connect(cx: &ShardCx, addr: SocketAddr) -> Result<Self, Error> {
        let fd = cx.driver().socket(addr)?;
        let stream = Self::new(cx, fd);
        let completion = cx.perform(Op::Connect { fd, addr }).await;
        match completion.result {
            Ok(_) => Ok(stream),
            Err(errno) => Err(Error::os("connect", errno, addr.to_string())),
        }
    }

    /// The descriptor, for operations of one's own.
    #[must_use]
    pub const fn fd(&self) -> Fd {
        self.fd
    }

    /// The next bytes; `None` at the end of the stream. Waits while the pool is empty.
    ///
    /// # Errors
    /// The connection was reset.
    pub async fn receive(&self) -> Result<Option<Lease>, Errno> {
        loop {
            let completion = self.cx.perform(Op::RecvSelect { fd: self.fd, len: 0 }).await;
            match (completion.result, completion.payload) {
                (Ok(_), Payload::Lease(lease)) => return Ok(Some(lease)),
                (Ok(_), _) => return Ok(None),
                (Err(Errno(libc::ENOBUFS)), _) => self.cx.sleep(1_000_000).await,
                (Err(errno), _) => return Err(errno),
            }
        }
    }

    /// Sends all of `out`.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn send(&self, out: Output) -> Result<(), Errno> {
        let (mut out, mut skip) = (out, 0);
        while skip < out.len() {
            let op = Op::Send { fd: self.fd, out, skip, zero_copy: false };
            let completion = self.cx.perform(op).await;
            skip += completion.result? as usize;
            let Payload::Output(rest) = completion.payload else { break };
            out = rest;
        }
        Ok(())
    }

    /// Sends `len` bytes of a file from `offset`, without their passing through user memory; the
    /// number sent, smaller at the file's end. `chunk` bytes per call, at most 256 KiB per turn, so
    /// that other connections keep theirs; ranges that are not cached are read ahead by a kernel worker.
    ///
    /// # Errors
    /// The peer is gone, or the file cannot be read.
    pub async fn send_file(
        &self,
        file: Fd,
        offset: u64,
        len: u64,
        chunk: usize,
    ) -> Result<u64, Errno> {
        crate::fs::send_range(&self.cx, self.fd, file, offset, len, chunk).await
    }

    /// Ends the sending half.
    pub async fn shutdown_write(&self) {
        self.cx.perform(Op::Shutdown { fd: self.fd, write_only: true }).await;
    }

    /// Ends the sending half, then waits for the peer's end for `linger_ns` at most: closing with
    /// unread input would reset the connection, and what the peer has not received be lost.
    pub async fn finish(&self, linger_ns: u64) {
        self.shutdown_write().await;
        let end = async { while let Ok(Some(_)) = self.receive().await {} };
        within(end, self.cx.sleep(linger_ns)).await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cx.driver().shut_down_now(self.fd);
        self.cx.submit_ignored(Op::Close { fd: self.fd });
    }
}

/// Serves each connection on `addr` with a task of its own, at most `connections_max` at a time.
///
/// # Errors
/// The address is taken, or not this host's.
pub fn serve<F, Fut>(
    cx: &ShardCx,
    addr: SocketAddr,
    options: &ListenOptions,
    connections_max: usize,
    serve: F,
) -> Result<(), Error>
where
    F: Fn(Stream) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = cx.driver().listen(addr, options)?;
    let accepted = std::rc::Rc::new(Acceptor {
        cx: cx.clone(),
        live: std::cell::Cell::new(0),
        connections_max,
        listener,
        op: std::cell::Cell::new(None),
        handler: std::cell::Cell::new(crate::shard::HandlerId::unset()),
        serve,
    });
    let handler: std::rc::Rc<dyn crate::shard::Handler> =
        std::rc::Rc::new(AcceptorHandle(std::rc::Rc::clone(&accepted)));
    accepted.handler.set(cx.add_handler(handler));
    accepted.arm();
    Ok(())
}

struct Acceptor<F> {
    cx: ShardCx,
    live: std::cell::Cell<usize>,
    connections_max: usize,
    listener: Fd,
    op: std::cell::Cell<Option<crate::driver::OpId>>,
    handler: std::cell::Cell<crate::shard::HandlerId>,
    serve: F,
}

struct AcceptorHandle<F>(std::rc::Rc<Acceptor<F>>);

impl<F> Acceptor<F> {
    fn arm(&self) {
        let token = self.handler.get().token(0);
        let op = self.cx.submit(token, Op::AcceptMulti { listener: self.listener });
        self.op.set(Some(op));
    }
}

impl<F, Fut> crate::shard::Handler for AcceptorHandle<F>
where
    F: Fn(Stream) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    fn on_completion(&self, _local: u64, completion: crate::driver::Completion) {
        let acceptor = &self.0;
        if let Some(fd) = completion.accepted() {
            let stream = Stream::new(&acceptor.cx, fd);
            if acceptor.live.get() < acceptor.connections_max {
                acceptor.live.set(acceptor.live.get() + 1);
                let serving = (acceptor.serve)(stream);
                let acceptor = std::rc::Rc::clone(acceptor);
                acceptor.cx.clone().spawn("connection", async move {
                    serving.await;
                    acceptor.live.set(acceptor.live.get() - 1);
                });
            }
        }
        if !completion.more {
            acceptor.op.set(None);
            if !acceptor.cx.is_stopping() {
                let deadline_ns = acceptor.cx.now().mono_ns + 50_000_000;
                acceptor.cx.set_timer(acceptor.handler.get(), deadline_ns, 0);
            }
        }
    }

    fn on_timer(&self, _local: u64) {
        if !self.0.cx.is_stopping() && self.0.op.get().is_none() {
            self.0.arm();
        }
    }

    fn on_turn(&self) -> bool {
        false
    }

    fn stop(&self) {
        if let Some(target) = self.0.op.take() {
            self.0.cx.submit_ignored(Op::Cancel { target });
        }
        self.0.cx.driver().shut_down_now(self.0.listener);
        self.0.cx.submit_ignored(Op::Close { fd: self.0.listener });
    }

    fn is_stopped(&self) -> bool {
        true
    }
}
