//! The host of sessions: accepts connections and runs each one's [`Session`] inline, from the
//! completion that brought its bytes to the send that takes its replies.
//!
//! A task exists only while a connection awaits work that needs one ([`Service::perform`]), or is
//! told why it is refused; an idle connection holds no buffer. Invariants: at most one send and one
//! receive of a connection are in flight; bytes are handed to a session in order, and not while it
//! awaits; a connection whose peer does not read stops being read; everything per turn is bounded.
//! Next: `receive` for bytes in, `send` for bytes out and the end of a connection, `conn` for the
//! states.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use view::{Output, Session};

pub use super::conn::ConnId;
use super::conn::{Closing, Conn, Conns};
use super::stream::Stream;
use super::tls::Tls;
use crate::config::Engine;
use crate::driver::{Completion, Fd, ListenOptions, Op, OpId, Payload, PeerName, TcpInfo};
use crate::error::Error;
use crate::exec::sync::{Notify, within};
use crate::shard::{Handler, HandlerId, ShardCx};

/// Through which door a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The service's address, which all shards share.
    Shared,
    /// This shard's own port.
    Shard,
    /// A Unix socket.
    Unix,
}

/// What is known of a new connection.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The connection, for [`Server::push`] and [`Server::close`].
    pub conn: ConnId,
    /// Unique in this process: shard number in the low byte.
    pub id: u64,
    /// Descriptor number.
    pub fd: i32,
    /// Our end.
    pub local: PeerName,
    /// The peer.
    pub peer: PeerName,
    /// The door.
    pub via: Via,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// What a service gives the server.
pub trait Service: Sized + 'static {
    /// Protocol state of a connection.
    type Session: Session<Shard = Self::Shard, Work = Self::Work, Done = Self::Done> + 'static;
    /// This core's state of the service.
    type Shard: 'static;
    /// Work a session can ask for.
    type Work: 'static;
    /// What it gets back.
    type Done: 'static;

    /// Starts a connection's session; `Err` is sent and the connection closed.
    ///
    /// # Errors
    /// The bytes that tell the peer why it is refused.
    fn open(&self, info: ConnInfo, shard: &mut Self::Shard) -> Result<Self::Session, Vec<u8>>;

    /// Starts a session's work when that takes no task: [`Server::done`] follows, in a later call.
    /// Gives the work back otherwise, for [`Service::perform`].
    fn start(&self, _conn: ConnId, work: Self::Work) -> Option<Self::Work> {
        Some(work)
    }

    /// Performs a session's work.
    fn perform(
        &self,
        server: &Rc<Server<Self>>,
        conn: ConnId,
        work: Self::Work,
    ) -> impl Future<Output = Self::Done> + 'static;

    /// Once per turn, after its completions and before its tasks: take what other shards sent, send
    /// what was collected for them. Returns whether work was left.
    fn on_turn(&self, server: &Rc<Server<Self>>) -> bool;

    /// As [`Handler::end_turn`].
    fn end_turn(&self) {}

    /// As [`Handler::park`].
    fn park(&self) -> bool {
        true
    }

    /// As [`Handler::unpark`].
    fn unpark(&self) {}

    /// As [`Handler::has_messages`].
    fn has_messages(&self) -> bool {
        false
    }
}

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Connections at a time; one more is refused by the service's words.
    pub clients_max: usize,
    /// Replies kept for a peer that does not read before its input is left alone.
    pub output_max_bytes: usize,
    /// Input kept for a connection that cannot take it before it is no longer received.
    pub input_max_bytes: usize,
    /// Close connections that were silent for so long; zero for never.
    pub idle_timeout_s: u32,
    /// How long a connection we closed may keep talking.
    pub linger_ns: u64,
    /// How long a connection to be closed may take to read its last replies.
    pub flush_ns: u64,
    /// Send values of this size and above by zero-copy; `None` for never. Worth it only on routes
    /// that do not copy anyway, which loopback does.
    pub zero_copy_min_bytes: Option<usize>,
    /// How long a peer may take for its TLS handshake.
    pub handshake_ns: u64,
    /// Listening sockets.
    pub listen: ListenOptions,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            output_max_bytes: 1 << 20,
            input_max_bytes: 256 << 10,
            idle_timeout_s: 0,
            linger_ns: 300_000_000,
            flush_ns: 5_000_000_000,
            zero_copy_min_bytes: None,
            handshake_ns: 10_000_000_000,
            listen: ListenOptions::default(),
        }
    }
}

impl ServerConfig {
    /// As the engine's options say; connections are shared out among the shards.
    #[must_use]
    pub fn new(engine: &Engine) -> Self {
        let seconds = |ns: u64| u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX);
        Self {
            clients_max: engine.clients_max.div_ceil(engine.shards),
            output_max_bytes: engine.output_max_bytes,
            input_max_bytes: engine.input_max_bytes,
            idle_timeout_s: seconds(engine.idle_timeout_ns),
            zero_copy_min_bytes: engine.zero_copy_min_bytes,
            listen: ListenOptions {
                backlog: i32::try_from(engine.backlog).unwrap_or(i32::MAX),
                shared: false,
                tcp: TcpInfo {
                    no_delay: true,
                    keepalive_s: seconds(engine.keepalive_ns),
                    congestion: engine.congestion.clone(),
                },
            },
            ..Self::default()
        }
    }
}

/// Counters of a server since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused at the limit.
    pub refused: u64,
    /// Connections now.
    pub live: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Of these, bytes that went from files to sockets without passing through user memory.
    pub sent_file_bytes: u64,
    /// Bytes of files that were read into memory to be encrypted, then sent.
    pub sent_copied_bytes: u64,
    /// TLS handshakes that were completed.
    pub handshakes: u64,
    /// TLS connections that ended with an error, or before their handshake was complete.
    pub tls_errors: u64,
    /// Received bytes that were copied because their frame had not arrived whole, or could not be
    /// taken yet.
    pub copied_bytes: u64,
    /// Receives that found the pool empty.
    pub starved: u64,
    /// Times a connection's input was left alone because it did not read its output.
    pub paused: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
}

/// Replies of one turn: copying them into sockets is what makes a turn long.
const TURN_OUTPUT_MAX_BYTES: usize = 2 << 20;

/// Peers at a time that are told why they are not served until they have heard it.
const REFUSING_MAX: usize = 256;

struct Listening {
    fd: Fd,
    via: Via,
    accept: Option<OpId>,
    path: Option<PathBuf>,
    tls: Option<Arc<dyn Tls>>,
}

/// A service on one shard.
pub struct Server<S: Service> {
    pub(super) cx: ShardCx,
    pub(super) service: S,
    pub(super) config: ServerConfig,
    pub(super) shard: Rc<RefCell<S::Shard>>,
    pub(super) conns: RefCell<Conns<S::Session>>,
    pub(super) handler: Cell<HandlerId>,
    listening: RefCell<Vec<Listening>>,
    pub(super) starved: RefCell<Vec<ConnId>>,
    pub(super) again: RefCell<Vec<ConnId>>,
    /// Reply bytes handed to the driver in this turn.
    pub(super) turn_bytes: Cell<usize>,
    /// Steps of TLS handshakes taken in this turn.
    pub(super) turn_handshakes: Cell<u32>,
    /// Connections with handshakes that wait for their turn.
    pub(super) handshakes: RefCell<VecDeque<ConnId>>,
    pub(super) spare: RefCell<Vec<Vec<u8>>>,
    pub(super) stats: RefCell<ServerStats>,
    next_id: Cell<u64>,
    refusing: Cell<usize>,
    /// A connection waits for the end of its send, of which a sleep would not tell.
    pub(super) awaits_send: Cell<bool>,
    /// A transfer waits for the end of another send.
    pub(super) awaits_sent: Cell<bool>,
    pub(super) sent: Notify,
    pub(super) stopping: Cell<bool>,
    me: Weak<Self>,
}

/// What a completion or timer belongs to: the top four bits of a token's local part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Accept,
    Receive,
    Send,
    Shutdown,
    Cancel,
    /// Timers.
    Linger,
    Idle,
    Retry,
    Handshake,
}

const ROLE_SHIFT: u32 = 52;

impl Role {
    const ALL: [Self; 9] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Shutdown,
        Self::Cancel,
        Self::Linger,
        Self::Idle,
        Self::Retry,
        Self::Handshake,
    ];

    const fn local(self, id: u64) -> u64 {
        (self as u64) << ROLE_SHIFT | id
    }

    fn of(local: u64) -> (Option<Self>, u64) {
        let role = Self::ALL.get((local >> ROLE_SHIFT) as usize).copied();
        (role, local & ((1 << ROLE_SHIFT) - 1))
    }
}

impl<S: Service> Server<S> {
    /// A server on this shard, listening nowhere yet.
    pub fn new(
        cx: &ShardCx,
        service: S,
        shard: Rc<RefCell<S::Shard>>,
        config: ServerConfig,
    ) -> Rc<Self> {
        let server = Rc::new_cyclic(|me| Self {
            cx: cx.clone(),
            service,
            config,
            shard,
            conns: RefCell::default(),
            handler: Cell::new(HandlerId::unset()),
            listening: RefCell::default(),
            starved: RefCell::default(),
            again: RefCell::default(),
            turn_bytes: Cell::new(0),
            turn_handshakes: Cell::new(0),
            handshakes: RefCell::default(),
            spare: RefCell::default(),
            stats: RefCell::default(),
            next_id: Cell::new(1),
            refusing: Cell::new(0),
            awaits_send: Cell::new(false),
            awaits_sent: Cell::new(false),
            sent: Notify::default(),
            stopping: Cell::new(false),
            me: me.clone(),
        });
        let handler: Rc<dyn Handler> = Rc::<Self>::clone(&server);
        server.handler.set(cx.add_handler(handler));
        if server.config.idle_timeout_s > 0 {
            server.set_timer(Role::Idle, 0, 1_000_000_000);
        }
        server
    }

    pub(super) fn me(&self) -> Rc<Self> {
        self.me.upgrade().expect("a server outlives its own calls")
    }

    /// The shard it runs on.
    #[must_use]
    pub const fn cx(&self) -> &ShardCx {
        &self.cx
    }

    /// The service.
    #[must_use]
    pub const fn service(&self) -> &S {
        &self.service
    }

    /// This core's state of the service.
    #[must_use]
    pub const fn shard(&self) -> &Rc<RefCell<S::Shard>> {
        &self.shard
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let mut stats = *self.stats.borrow();
        stats.live = self.conns.borrow().len() as u64;
        stats
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut ServerStats)) {
        change(&mut self.stats.borrow_mut());
    }

    pub(super) fn submit(&self, role: Role, id: u64, op: Op) -> OpId {
        self.cx.submit(self.handler.get().token(role.local(id)), op)
    }

    pub(super) fn set_timer(&self, role: Role, id: u64, after_ns: u64) {
        let deadline_ns = self.cx.now().mono_ns.saturating_add(after_ns);
        self.cx.set_timer(self.handler.get(), deadline_ns, role.local(id));
    }

    /// Accepts connections on a TCP address.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    pub fn listen(&self, addr: SocketAddr, via: Via) -> Result<(), Error> {
        self.listen_as(addr, via, None)
    }

    /// Accepts encrypted connections on a TCP address; their sessions see plaintext.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    pub fn listen_tls(&self, addr: SocketAddr, via: Via, tls: &Arc<dyn Tls>) -> Result<(), Error> {
        self.listen_as(addr, via, Some(Arc::clone(tls)))
    }

    fn listen_as(
        &self,
        addr: SocketAddr,
        via: Via,
        tls: Option<Arc<dyn Tls>>,
    ) -> Result<(), Error> {
        let mut options = self.config.listen.clone();
        options.shared = via == Via::Shared && self.cx.count() > 1;
        let fd = self.cx.driver().listen(addr, &options)?;
        self.start_listening(Listening { fd, via, accept: None, path: None, tls });
        Ok(())
    }

    /// Accepts connections on a Unix socket.
    ///
    /// # Errors
    /// The path is in use or not writable.
    pub fn listen_unix(&self, path: PathBuf) -> Result<(), Error> {
        let fd = self.cx.driver().listen_unix(&path, &self.config.listen)?;
        let path = Some(path);
        self.start_listening(Listening { fd, via: Via::Unix, accept: None, path, tls: None });
        Ok(())
    }

    fn start_listening(&self, listening: Listening) {
        let index = self.listening.borrow().len();
        self.listening.borrow_mut().push(listening);
        self.accept(index);
    }

    fn accept(&self, index: usize) {
        // Closed listeners leave the list empty.
        let mut listening = self.listening.borrow_mut();
        let Some(listening) = listening.get_mut(index) else { return };
        let op = Op::AcceptMulti { listener: listening.fd };
        listening.accept = Some(self.submit(Role::Accept, index as u64, op));
    }

    fn on_accept(&self, index: usize, completion: &Completion) {
        if let Some(listening) = self.listening.borrow_mut().get_mut(index)
            && !completion.more
        {
            listening.accept = None;
        }
        match completion.accepted() {
            Some(fd) if self.stopping.get() => self.cx.driver().close_now(fd),
            Some(fd) => self.open(index, fd),
            None => self.count(|stats| stats.accept_errors += 1),
        }
        if !completion.more && !self.stopping.get() {
            if completion.result.is_ok() {
                self.accept(index);
            } else {
                // Out of descriptors or memory: try again when some may be free.
                self.set_timer(Role::Retry, index as u64, 50_000_000);
            }
        }
    }

    fn open(&self, index: usize, fd: Fd) {
        self.count(|stats| stats.accepted += 1);
        let (via, tls) = {
            let listening = &self.listening.borrow()[index];
            (listening.via, listening.tls.clone())
        };
        let (local, peer) = self.cx.driver().names(fd);
        let conn = self.conns.borrow_mut().reserve_id();
        let id = self.next_id.get() << 8 | self.cx.index() as u64;
        self.next_id.set(self.next_id.get() + 1);
        let info = ConnInfo { conn, id, fd: fd.0, local, peer, via, tls: tls.is_some() };
        let session = self.service.open(info, &mut self.shard.borrow_mut());
        match session {
            Ok(session) => {
                let active_s = self.now_s();
                self.conns.borrow_mut().put(conn, Conn::new(fd, session, active_s));
                if let Some(tls) = tls {
                    self.secure(conn, &*tls);
                }
                self.receive(conn);
            }
            Err(mut refusal) => {
                self.conns.borrow_mut().release_id(conn);
                self.count(|stats| stats.refused += 1);
                if tls.is_some() {
                    // There are no keys to say it with.
                    refusal.clear();
                }
                self.refuse(Stream::new(&self.cx, fd), Output::with_text(&refusal));
            }
        }
    }

    /// Tells a peer why it is not served, as long as there are not too many to tell.
    fn refuse(&self, stream: Stream, why: Output) {
        if self.refusing.get() == REFUSING_MAX {
            // Usually heard all the same: the stream is shut down and closed behind it.
            let send = Op::Send { fd: stream.fd(), out: why, skip: 0, zero_copy: false };
            return self.cx.submit_ignored(send);
        }
        self.refusing.set(self.refusing.get() + 1);
        let server = self.me();
        self.cx.spawn("refusal", async move {
            let tell = async {
                // Somebody who is gone need not know.
                if stream.send(why).await.is_ok() {
                    stream.finish(server.config.linger_ns).await;
                }
            };
            within(tell, server.cx.sleep(server.config.flush_ns)).await;
            server.refusing.set(server.refusing.get() - 1);
        });
    }

    pub(super) fn now_s(&self) -> u32 {
        u32::try_from(self.cx.now().mono_ns / 1_000_000_000).unwrap_or(u32::MAX)
    }

    /// Whether this turn has produced so many replies that the others must wait for the next one.
    pub(super) const fn turn_is_full(&self) -> bool {
        self.turn_bytes.get() >= TURN_OUTPUT_MAX_BYTES
    }

    /// Connections now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.conns.borrow().len()
    }

    fn close_listeners(&self) {
        for listening in self.listening.borrow_mut().drain(..) {
            if let Some(target) = listening.accept {
                self.cx.submit_ignored(Op::Cancel { target });
            }
            self.cx.driver().shut_down_now(listening.fd);
            self.cx.submit_ignored(Op::Close { fd: listening.fd });
            if let Some(path) = listening.path {
                // A stale socket file only costs the next start a connect.
                let _ = self.cx.driver().unlink(&path);
            }
        }
    }

    fn sweep_idle(&self, from: usize) {
        const PAGE: usize = 1024;
        let (ids, next) = self.conns.borrow().page(from, PAGE);
        let oldest_s = self.now_s().saturating_sub(self.config.idle_timeout_s);
        for id in ids {
            let silent = self.conns.borrow_mut().get_mut(id).is_some_and(|conn| {
                conn.active_s < oldest_s && !conn.awaiting && conn.closing == Closing::Open
            });
            if silent {
                self.close(id);
            }
        }
        let (from, after_ns) = next.map_or((0, 1_000_000_000), |next| (next, 1_000_000));
        self.set_timer(Role::Idle, from as u64, after_ns);
    }
}

impl<S: Service> Handler for Server<S> {
    fn on_completion(&self, local: u64, completion: Completion) {
        let (role, id) = Role::of(local);
        match role {
            Some(Role::Accept) => self.on_accept(id as usize, &completion),
            Some(Role::Receive) => self.on_received(ConnId::from_bits(id), completion),
            Some(Role::Send) => self.on_sent(ConnId::from_bits(id), completion),
            _ => self.on_op_ended(ConnId::from_bits(id)),
        }
    }

    fn foresee(&self, local: u64, completion: &Completion) {
        let (Some(Role::Receive), id) = Role::of(local) else { return };
        let Payload::Lease(lease) = &completion.payload else { return };
        if let Some(conn) = self.conns.borrow_mut().get_mut(ConnId::from_bits(id))
            && conn.backlog.is_empty()
            && conn.tls.is_none()
        {
            conn.session.foresee(lease, &mut self.shard.borrow_mut());
        }
    }

    fn foreseen(&self) {
        S::Session::foreseen(&mut self.shard.borrow_mut());
    }

    fn on_timer(&self, local: u64) {
        let (role, id) = Role::of(local);
        match role {
            Some(Role::Idle) => self.sweep_idle(id as usize),
            Some(Role::Retry) => self.accept(id as usize),
            Some(Role::Linger) => self.close(ConnId::from_bits(id)),
            Some(Role::Handshake) => self.end_handshake(ConnId::from_bits(id)),
            _ => {}
        }
    }

    fn on_turn(&self) -> bool {
        self.turn_bytes.set(0);
        self.turn_handshakes.set(0);
        let more = self.service.on_turn(&self.me()) | self.take_handshakes();
        self.feed_starved();
        let mut again = std::mem::take(&mut *self.again.borrow_mut());
        let mut done = 0;
        for &id in &again {
            if self.turn_is_full() {
                break;
            }
            self.resume(id);
            done += 1;
        }
        again.drain(..done);
        let mut list = self.again.borrow_mut();
        // Those left over come before those that were queued meanwhile.
        again.append(&mut list);
        *list = again;
        more || !list.is_empty()
    }

    fn end_turn(&self) {
        self.service.end_turn();
    }

    fn park(&self) -> bool {
        !self.awaits_send.take() && self.service.park()
    }

    fn unpark(&self) {
        self.service.unpark();
    }

    fn has_messages(&self) -> bool {
        self.service.has_messages()
    }

    fn stop(&self) {
        self.stopping.set(true);
        self.close_listeners();
        let (ids, _) = self.conns.borrow().page(0, usize::MAX / 2);
        for id in ids {
            self.finish(id);
        }
    }

    fn is_stopped(&self) -> bool {
        self.conns.borrow().len() == 0 && self.refusing.get() == 0
    }
}
