//! A peer outside the engine: the end of a connection that a workload drives.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use crate::driver::PeerName;

use super::flight::Target;
use super::kernel::Kernel;
use super::net::{Found, Remote, Role, SockId};

/// What a receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvState {
    /// So many bytes were appended.
    Data(usize),
    /// Nothing has arrived yet.
    Empty,
    /// The peer sent its end; nothing more will come.
    Eof,
    /// The connection broke.
    Reset,
    /// Nobody listens, or the listener did not answer.
    Refused,
}

/// One end of a simulated connection, outside the engine. Nothing here waits; what is sent
/// arrives as the world advances. Dropping it closes it.
pub struct ClientEnd {
    kernel: Rc<RefCell<Kernel>>,
    id: SockId,
    /// Sticky, since the model reports an error once.
    failed: Option<RecvState>,
}

impl ClientEnd {
    pub(super) fn connect_tcp(kernel: &Rc<RefCell<Kernel>>, addr: SocketAddr) -> Self {
        Self::connect(kernel, Remote::Tcp(addr), addr.is_ipv4())
    }

    pub(super) fn connect_unix(kernel: &Rc<RefCell<Kernel>>, path: &Path) -> Self {
        Self::connect(kernel, Remote::Unix(path.to_owned()), true)
    }

    fn connect(kernel: &Rc<RefCell<Kernel>>, remote: Remote, v4: bool) -> Self {
        let mut inner = kernel.borrow_mut();
        let id = inner.socket(v4);
        inner.hold(Target::Sock(id));
        inner.connect(id, remote);
        drop(inner);
        Self { kernel: Rc::clone(kernel), id, failed: None }
    }

    /// Whether the connection is established (and was not lost since).
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let kernel = self.kernel.borrow();
        kernel.socks.get(&self.id).is_some_and(|sock| sock.is_stream() && !sock.broken)
    }

    /// Sends what fits of `bytes`: zero while connecting, when the buffers are full, and when the
    /// connection is gone, which [`ClientEnd::recv`] reports.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let mut kernel = self.kernel.borrow_mut();
        let able = kernel.socks.get(&self.id).is_some_and(|sock| sock.cannot_send().is_none());
        if able { kernel.send_now(self.id, bytes).unwrap_or(0) } else { 0 }
    }

    /// Appends everything that has arrived to `into`.
    pub fn recv(&mut self, into: &mut Vec<u8>) -> RecvState {
        self.recv_at_most(into, usize::MAX)
    }

    /// Appends at most `most` bytes to `into`: a slow reader.
    pub fn recv_at_most(&mut self, into: &mut Vec<u8>, most: usize) -> RecvState {
        if let Some(state) = self.failed {
            return state;
        }
        let mut kernel = self.kernel.borrow_mut();
        let Some(sock) = kernel.socks.get(&self.id) else { return RecvState::Reset };
        if !sock.is_stream() {
            let refused = matches!(sock.role, Role::Fresh);
            self.failed = refused.then_some(RecvState::Refused);
            return self.failed.unwrap_or(RecvState::Empty);
        }
        let state = match sock.found() {
            Found::Bytes(_) => {
                let bytes = kernel.take_inbox(self.id, most);
                into.extend_from_slice(&bytes);
                RecvState::Data(bytes.len())
            }
            Found::Nothing => RecvState::Empty,
            Found::End if !sock.broken || sock.ended => RecvState::Eof,
            Found::End | Found::Error(_) => RecvState::Reset,
        };
        self.failed = (state == RecvState::Reset).then_some(state);
        state
    }

    /// Whether a receive would find something: bytes, the end, or an error.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let kernel = self.kernel.borrow();
        kernel.socks.get(&self.id).is_some_and(|sock| match sock.role {
            Role::Connecting(_) => false,
            _ => sock.found() != Found::Nothing,
        })
    }

    /// Bytes a send would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        let kernel = self.kernel.borrow();
        let able = kernel.socks.get(&self.id).is_some_and(|sock| sock.cannot_send().is_none());
        if able { kernel.room(self.id) } else { 0 }
    }

    /// Sends the end of this direction.
    pub fn shutdown_write(&mut self) {
        // A connection that is gone has no direction left to end.
        let _ = self.kernel.borrow_mut().shut_down(self.id, true);
    }

    /// Breaks the connection at once, as a crashed peer's kernel does.
    pub fn reset(&mut self) {
        self.kernel.borrow_mut().reset_peer(self.id);
        self.failed = Some(RecvState::Reset);
    }

    /// Closes the connection: an orderly end, or a reset when received bytes were not read.
    pub fn close(self) {}

    /// Address or path of this end.
    #[must_use]
    pub fn local_name(&self) -> PeerName {
        let kernel = self.kernel.borrow();
        kernel.socks.get(&self.id).map_or(PeerName::Unknown, |sock| sock.local.clone())
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        if let Ok(mut kernel) = self.kernel.try_borrow_mut() {
            kernel.release(Target::Sock(self.id));
        }
    }
}

impl fmt::Debug for ClientEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientEnd({:?})", self.id)
    }
}
