//! Sockets of the model: listeners with a backlog, connections as two directions of bytes.
//!
//! Each socket owns what travels towards it (`inbound`, in order, each piece with its time of
//! arrival) and what has arrived (`inbox`). A sender may have a bounded number of bytes in both.
//! Semantics follow Linux TCP: data received before a reset is still readable, what had not
//! arrived may be lost, the reset is reported once, closing with unread data resets, and a closed
//! descriptor's connection lives on while an operation uses it.
//!
//! Next: `transfer` for receiving and sending.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::driver::{Fd, ListenOptions, PeerName};

use super::flight::{Event, Kind, OpKey, Target};
use super::kernel::Kernel;
use super::streams::{chance, up_to};
use super::transfer::Take;

/// A lost connection request is repeated after this, doubling.
const RETRY_NS: u64 = 1_000_000_000;
/// So often (tcp_syn_retries).
const RETRIES_MAX: u32 = 6;
/// Readiness as poll(2) names it.
const POLLIN: i32 = libc::POLLIN as i32;
const POLLOUT: i32 = libc::POLLOUT as i32;
const POLLERR: i32 = libc::POLLERR as i32;
const POLLHUP: i32 = libc::POLLHUP as i32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SockId(pub(super) u64);

#[derive(Debug)]
pub(super) enum Role {
    Fresh,
    Listening(Listener),
    Connecting(Remote),
    Stream,
}

/// Where a socket connects to.
#[derive(Clone, Debug)]
pub(super) enum Remote {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
pub(super) struct Listener {
    backlog: usize,
    shared: bool,
    queue: VecDeque<SockId>,
}

/// What travels to a socket.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// What a receive would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(usize),
    End,
    Error(i32),
    Nothing,
}

#[derive(Debug)]
pub(super) struct Sock {
    pub(super) role: Role,
    pub(super) local: PeerName,
    pub(super) peer_name: PeerName,
    /// Descriptors, operations, clients and backlogs that hold it.
    pub(super) refs: u32,
    /// The other end, while it exists.
    pub(super) peer: Option<SockId>,
    inbound: VecDeque<(u64, Piece)>,
    inbound_len_bytes: usize,
    pub(super) last_arrival_ns: u64,
    pub(super) inbox: VecDeque<u8>,
    /// The peer sent its end.
    pub(super) ended: bool,
    pub(super) error: Option<i32>,
    /// The connection broke.
    pub(super) broken: bool,
    pub(super) shut_read: bool,
    pub(super) shut_write: bool,
    readers: Vec<OpKey>,
    writers: Vec<OpKey>,
}

impl Sock {
    fn new(role: Role, local: PeerName) -> Self {
        Self {
            role,
            local,
            peer_name: PeerName::Unknown,
            refs: 0,
            peer: None,
            inbound: VecDeque::new(),
            inbound_len_bytes: 0,
            last_arrival_ns: 0,
            inbox: VecDeque::new(),
            ended: false,
            error: None,
            broken: false,
            shut_read: false,
            shut_write: false,
            readers: Vec::new(),
            writers: Vec::new(),
        }
    }

    pub(super) const fn is_stream(&self) -> bool {
        matches!(self.role, Role::Stream)
    }

    /// What a receive finds, in the order the kernel looks (tcp_recvmsg).
    pub(super) fn found(&self) -> Found {
        if !self.is_stream() {
            return Found::Error(libc::ENOTCONN);
        }
        match self.error {
            _ if !self.inbox.is_empty() => Found::Bytes(self.inbox.len()),
            _ if self.ended => Found::End,
            Some(errno) => Found::Error(errno),
            None if self.broken || self.shut_read => Found::End,
            None => Found::Nothing,
        }
    }

    /// Why nothing can be sent, if so.
    pub(super) const fn cannot_send(&self) -> Option<i32> {
        match self.error {
            Some(errno) => Some(errno),
            None if self.broken || self.shut_write || !self.is_stream() => Some(libc::EPIPE),
            None => None,
        }
    }
}

impl Kernel {
    // Listening.

    pub(super) fn listen(
        &mut self,
        shard: usize,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> Result<Fd, i32> {
        let mut addr = addr;
        if addr.port() == 0 {
            addr.set_port(self.free_port());
        }
        for (taken, group) in &self.listeners {
            let overlaps = taken.port() == addr.port()
                && (taken.ip() == addr.ip()
                    || taken.ip().is_unspecified()
                    || addr.ip().is_unspecified());
            let all_share = options.shared && group.iter().all(|id| self.is_shared(*id));
            if overlaps && !group.is_empty() && !all_share {
                return Err(libc::EADDRINUSE);
            }
        }
        let id = self.add_listener(PeerName::Tcp(addr), options);
        let fd = self.new_fd(shard, Target::Sock(id))?;
        self.listeners.entry(addr).or_default().push(id);
        Ok(fd)
    }

    pub(super) fn listen_unix(
        &mut self,
        shard: usize,
        path: &Path,
        options: &ListenOptions,
    ) -> Result<Fd, i32> {
        if self.unix.get(path).is_some_and(Option::is_some) {
            return Err(libc::EADDRINUSE);
        }
        let id = self.add_listener(PeerName::Unix(path.to_owned()), options);
        let fd = self.new_fd(shard, Target::Sock(id))?;
        self.unix.insert(path.to_owned(), Some(id));
        Ok(fd)
    }

    fn add_listener(&mut self, local: PeerName, options: &ListenOptions) -> SockId {
        let listener = Listener {
            backlog: usize::try_from(options.backlog).unwrap_or(0),
            shared: options.shared,
            queue: VecDeque::new(),
        };
        self.add_sock(Role::Listening(listener), local)
    }

    fn is_shared(&self, id: SockId) -> bool {
        self.socks.get(&id).is_some_and(|sock| match &sock.role {
            Role::Listening(listener) => listener.shared,
            _ => false,
        })
    }

    fn add_sock(&mut self, role: Role, local: PeerName) -> SockId {
        let id = SockId(self.serial());
        self.socks.insert(id, Sock::new(role, local));
        id
    }

    fn free_port(&mut self) -> u16 {
        loop {
            self.next_port = self.next_port.checked_add(1).unwrap_or(32_768);
            let port = self.next_port;
            if !self.listeners.keys().any(|addr| addr.port() == port) {
                return port;
            }
        }
    }

    fn listener_for(&mut self, remote: &Remote) -> Option<SockId> {
        let addr = match remote {
            Remote::Unix(path) => return self.unix.get(path).copied().flatten(),
            Remote::Tcp(addr) => *addr,
        };
        let any_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let any = if addr.is_ipv4() { any_v4 } else { any_v6 };
        for ip in [addr.ip(), any, any_v6] {
            let group = self.listeners.get(&SocketAddr::new(ip, addr.port()));
            if let Some(group) = group.filter(|group| !group.is_empty()) {
                return Some(group[self.rng.net.index(group.len())]);
            }
        }
        None
    }

    // Connecting.

    /// A socket to connect with.
    pub(super) fn socket(&mut self, v4: bool) -> SockId {
        let ip = match v4 {
            true => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            false => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        self.add_sock(Role::Fresh, PeerName::Tcp(SocketAddr::new(ip, 0)))
    }

    /// Sends a connection request.
    pub(super) fn connect(&mut self, id: SockId, remote: Remote) {
        let port = self.free_port();
        let Some(sock) = self.socks.get_mut(&id) else { return };
        match &remote {
            Remote::Tcp(addr) => {
                sock.local = PeerName::Tcp(SocketAddr::new(addr.ip(), port));
                sock.peer_name = PeerName::Tcp(*addr);
            }
            Remote::Unix(path) => {
                sock.local = PeerName::Unix(PathBuf::new());
                sock.peer_name = PeerName::Unix(path.clone());
            }
        }
        sock.role = Role::Connecting(remote);
        let at = self.now_ns + self.faults.limits.link_latency_ns;
        self.schedule(at, Event::Arrive { from: id, tries: 0 });
    }

    /// A connection request arrives.
    pub(super) fn arrive(&mut self, from: SockId, tries: u32) {
        let Some(Sock { role: Role::Connecting(remote), .. }) = self.socks.get(&from) else {
            return;
        };
        let remote = remote.clone();
        let answer_at = self.now_ns + self.faults.limits.link_latency_ns;
        let refused = chance(&mut self.rng.net, self.faults.refuse);
        let Some(listener) = self.listener_for(&remote).filter(|_| !refused) else {
            let errno = match remote {
                Remote::Unix(path) if !self.unix.contains_key(&path) => libc::ENOENT,
                _ => libc::ECONNREFUSED,
            };
            self.schedule(answer_at, Event::Answer { to: from, errno });
            return;
        };
        if self.is_full(listener) || self.is_parted(from, listener) {
            // The request is dropped; the client repeats it.
            let event = if tries < RETRIES_MAX {
                Event::Arrive { from, tries: tries + 1 }
            } else {
                Event::Answer { to: from, errno: libc::ETIMEDOUT }
            };
            self.schedule(self.now_ns + (RETRY_NS << tries), event);
            return;
        }
        let (local, peer_name) = match self.socks.get(&from) {
            Some(sock) => (sock.peer_name.clone(), sock.local.clone()),
            None => return,
        };
        let id = self.add_sock(Role::Stream, local);
        if let Some(sock) = self.socks.get_mut(&id) {
            sock.peer_name = peer_name;
            sock.peer = Some(from);
            sock.refs = 1;
        }
        if let Some(sock) = self.socks.get_mut(&from) {
            sock.peer = Some(id);
            // Nothing overtakes the answer.
            sock.last_arrival_ns = answer_at;
        }
        if let Some(Sock { role: Role::Listening(queue), .. }) = self.socks.get_mut(&listener) {
            queue.queue.push_back(id);
        }
        self.wake_readers(listener);
        self.schedule(answer_at, Event::Answer { to: from, errno: 0 });
    }

    fn is_full(&self, listener: SockId) -> bool {
        match self.socks.get(&listener) {
            Some(Sock { role: Role::Listening(listener), .. }) => {
                listener.queue.len() > listener.backlog
            }
            _ => true,
        }
    }

    /// The answer to a connection request arrives.
    pub(super) fn answer(&mut self, to: SockId, errno: i32) {
        let Some(sock) = self.socks.get_mut(&to) else { return };
        if !matches!(sock.role, Role::Connecting(_)) {
            return;
        }
        if errno == 0 {
            sock.role = Role::Stream;
        } else {
            sock.role = Role::Fresh;
            sock.error = Some(errno);
        }
        self.wake_readers(to);
        self.wake_writers(to);
    }

    fn attempt_connect(&mut self, key: OpKey, id: SockId, addr: SocketAddr, first: bool) {
        let Some(sock) = self.socks.get_mut(&id) else { return };
        match (&sock.role, sock.error) {
            (Role::Fresh, None) if first => {
                sock.writers.push(key);
                self.connect(id, Remote::Tcp(addr));
            }
            (Role::Connecting(_), _) if !first => sock.writers.push(key),
            (Role::Connecting(_), _) => self.complete(key, -libc::EALREADY, false, None),
            (Role::Stream, None) if first => self.complete(key, -libc::EISCONN, false, None),
            (Role::Stream, None) => {
                if self.fails_now() {
                    self.break_connection(id);
                    self.complete(key, -libc::ETIMEDOUT, false, None);
                } else {
                    self.complete(key, 0, false, None);
                }
            }
            (_, error) => {
                sock.error = None;
                self.complete(key, -error.unwrap_or(libc::EINVAL), false, None);
            }
        }
    }

    // What every operation on a socket does.

    pub(super) fn attempt_sock(&mut self, key: OpKey, kind: Kind, id: SockId, first: bool) {
        match kind {
            Kind::AcceptMulti => self.attempt_accept(key, id),
            Kind::Connect { addr } => self.attempt_connect(key, id, addr, first),
            Kind::RecvMulti => self.attempt_recv(key, id, Take { most: 0, multi: true }, first),
            Kind::RecvSelect { len } => {
                self.attempt_recv(key, id, Take { most: len, multi: false }, first);
            }
            Kind::RecvInto => self.attempt_recv_into(key, id),
            Kind::Send { .. } => self.attempt_send(key, id),
            Kind::SendNow => self.attempt_send_now(key, id),
            Kind::PollIn => self.attempt_poll(key, id, POLLIN),
            Kind::PollOut => self.attempt_poll(key, id, POLLOUT),
            Kind::Shutdown { write_only } => {
                let result = self.shut_down(id, write_only).map_or_else(|errno| -errno, |()| 0);
                self.complete(key, result, false, None);
            }
            Kind::Read { .. } | Kind::Write { .. } => {
                self.complete(key, -libc::ESPIPE, false, None);
            }
            _ => self.complete(key, -libc::EINVAL, false, None),
        }
    }

    fn attempt_accept(&mut self, key: OpKey, id: SockId) {
        loop {
            let Some(sock) = self.socks.get_mut(&id) else { return };
            let Role::Listening(listener) = &mut sock.role else {
                self.complete(key, -libc::EINVAL, false, None);
                return;
            };
            let Some(&next) = listener.queue.front() else {
                sock.readers.push(key);
                return;
            };
            let failed = self.fails_now() || chance(&mut self.rng.net, self.faults.accept_error);
            let accepted = match failed {
                true => Err(libc::EMFILE),
                false => self.new_fd(key.shard, Target::Sock(next)),
            };
            let Ok(fd) = accepted else {
                self.complete(key, -libc::EMFILE, false, None);
                return;
            };
            if let Some(Sock { role: Role::Listening(listener), .. }) = self.socks.get_mut(&id) {
                listener.queue.pop_front();
            }
            // The descriptor holds the connection now, not the backlog.
            self.release(Target::Sock(next));
            let more = self.goes_on(key);
            self.complete(key, fd.0, more, None);
            if !more {
                return;
            }
        }
    }

    /// Whether a multishot operation survives its next completion.
    pub(super) fn goes_on(&mut self, key: OpKey) -> bool {
        let ends =
            self.overflowing(key.shard) || chance(&mut self.rng.ring, self.faults.multishot_end);
        self.stats.multishot_ends += u64::from(ends);
        !ends
    }

    fn attempt_poll(&mut self, key: OpKey, id: SockId, wanted: i32) {
        let ready = self.readiness(id) & (wanted | POLLERR | POLLHUP);
        if ready != 0 {
            self.complete(key, ready, false, None);
            return;
        }
        let Some(sock) = self.socks.get_mut(&id) else { return };
        if wanted == POLLIN { sock.readers.push(key) } else { sock.writers.push(key) }
    }

    /// Readiness in poll(2)'s terms (tcp_poll).
    fn readiness(&self, id: SockId) -> i32 {
        let Some(sock) = self.socks.get(&id) else { return POLLERR | POLLHUP };
        let mut ready = 0;
        match &sock.role {
            Role::Listening(listener) if !listener.queue.is_empty() => return POLLIN,
            Role::Listening(_) | Role::Connecting(_) => return 0,
            Role::Fresh => ready |= POLLOUT | POLLHUP,
            Role::Stream => {}
        }
        let no_reading = sock.ended || sock.shut_read || sock.broken;
        if !sock.inbox.is_empty() || no_reading {
            ready |= POLLIN;
        }
        if sock.shut_write || sock.broken || self.room(id) >= self.wake_room() {
            ready |= POLLOUT;
        }
        if (no_reading && sock.shut_write) || sock.broken {
            ready |= POLLHUP;
        }
        if sock.error.is_some() {
            ready |= POLLERR;
        }
        ready
    }

    /// A writer is told when a third of the buffer is free (sk_stream_is_writeable).
    pub(super) const fn wake_room(&self) -> usize {
        self.faults.limits.socket_buffer_bytes.div_ceil(3)
    }

    /// Bytes that may be sent now.
    pub(super) fn room(&self, id: SockId) -> usize {
        let most = self.faults.limits.socket_buffer_bytes;
        let peer = self.socks.get(&id).and_then(|sock| self.socks.get(&sock.peer?));
        peer.map_or(most, |peer| most.saturating_sub(peer.inbound_len_bytes + peer.inbox.len()))
    }

    pub(super) fn park_reader(&mut self, id: SockId, key: OpKey) {
        if let Some(sock) = self.socks.get_mut(&id) {
            sock.readers.push(key);
        }
    }

    pub(super) fn park_writer(&mut self, id: SockId, key: OpKey) {
        if let Some(sock) = self.socks.get_mut(&id) {
            sock.writers.push(key);
        }
    }

    pub(super) fn unpark(&mut self, key: OpKey) {
        let target = self.op(key).and_then(|op| op.target);
        if let Some(Target::Sock(id)) = target
            && let Some(sock) = self.socks.get_mut(&id)
        {
            sock.readers.retain(|parked| *parked != key);
            sock.writers.retain(|parked| *parked != key);
        }
    }

    pub(super) fn wake_readers(&mut self, id: SockId) {
        if let Some(sock) = self.socks.get_mut(&id) {
            let parked = std::mem::take(&mut sock.readers);
            self.wake(parked);
        }
    }

    pub(super) fn wake_writers(&mut self, id: SockId) {
        if let Some(sock) = self.socks.get_mut(&id) {
            let parked = std::mem::take(&mut sock.writers);
            self.wake(parked);
        }
    }

    // Pieces on their way.

    /// Sends a piece to `to`; it arrives after all before it.
    pub(super) fn push_piece(&mut self, to: SockId, piece: Piece) {
        let mut at = self.now_ns + self.faults.limits.link_latency_ns;
        if chance(&mut self.rng.net, self.faults.jitter) {
            at += up_to(&mut self.rng.net, self.faults.jitter_max_ns);
        }
        let Some(sock) = self.socks.get_mut(&to) else { return };
        at = at.max(sock.last_arrival_ns);
        sock.last_arrival_ns = at;
        if let Piece::Bytes(bytes) = &piece {
            sock.inbound_len_bytes += bytes.len();
        }
        sock.inbound.push_back((at, piece));
        self.schedule(at, Event::Deliver(to));
    }

    /// When the last piece sent to the other end arrives.
    pub(super) fn all_arrived_ns(&self, from: SockId) -> u64 {
        let peer = self.socks.get(&from).and_then(|sock| self.socks.get(&sock.peer?));
        peer.map_or(self.now_ns, |peer| peer.last_arrival_ns.max(self.now_ns))
    }

    pub(super) fn deliver_piece(&mut self, id: SockId) {
        let now = self.now_ns;
        let Some(sock) = self.socks.get_mut(&id) else { return };
        // A piece that was delivered early left its event behind.
        if sock.inbound.front().is_some_and(|(at, _)| *at <= now) {
            self.take_piece(id);
        }
    }

    /// Delivers the next piece ahead of its time.
    pub(super) fn deliver_early(&mut self, id: SockId) {
        self.take_piece(id);
    }

    fn take_piece(&mut self, id: SockId) {
        let Some(sock) = self.socks.get_mut(&id) else { return };
        let Some((_, piece)) = sock.inbound.pop_front() else { return };
        match piece {
            Piece::Bytes(bytes) => {
                sock.inbound_len_bytes -= bytes.len();
                sock.inbox.extend(&bytes);
            }
            Piece::End => {
                sock.ended = true;
                self.wake_writers(id);
            }
            Piece::Reset => {
                // Linux says EPIPE when the end had arrived before (tcp_reset).
                let errno = if sock.ended { libc::EPIPE } else { libc::ECONNRESET };
                sock.error = Some(errno);
                self.break_here(id);
                self.wake_writers(id);
            }
        }
        self.wake_readers(id);
    }

    /// The socket has no connection any more; what arrived stays readable.
    fn break_here(&mut self, id: SockId) {
        let Some(sock) = self.socks.get_mut(&id) else { return };
        sock.broken = true;
        sock.inbound.clear();
        sock.inbound_len_bytes = 0;
        if let Some(peer) = sock.peer.take()
            && let Some(peer) = self.socks.get_mut(&peer)
        {
            peer.peer = None;
        }
    }

    /// Resets a connection from this end: the other end hears of it, and of what was on its way
    /// there gets only a part.
    pub(super) fn reset_peer(&mut self, id: SockId) {
        if let Some(peer) = self.socks.get(&id).and_then(|sock| sock.peer) {
            self.drop_unsent(peer);
            self.push_piece(peer, Piece::Reset);
        }
        self.break_here(id);
    }

    /// A reset overtakes what waits to be sent: a tail of it is lost (tcp_write_queue_purge).
    fn drop_unsent(&mut self, to: SockId) {
        let Some(sock) = self.socks.get_mut(&to) else { return };
        let mut kept = up_to(&mut self.rng.net, sock.inbound_len_bytes as u64) as usize;
        let whole = kept == sock.inbound_len_bytes;
        sock.inbound_len_bytes = kept;
        sock.inbound.retain_mut(|(_, piece)| match piece {
            Piece::Bytes(bytes) => {
                bytes.truncate(kept);
                kept -= bytes.len();
                !bytes.is_empty()
            }
            Piece::End => whole,
            Piece::Reset => true,
        });
    }

    /// Breaks a connection for both ends. The error of this one counts as reported.
    pub(super) fn break_connection(&mut self, id: SockId) {
        self.reset_peer(id);
        self.wake_readers(id);
        self.wake_writers(id);
    }

    pub(super) fn shut_down_now(&mut self, fd: Fd) {
        if let Ok(Target::Sock(id)) = self.target(fd) {
            // As shutdown(2), whose errors say that it is over already.
            let _ = self.shut_down(id, false);
        }
    }

    pub(super) fn shut_down(&mut self, id: SockId, write_only: bool) -> Result<(), i32> {
        let sock = self.socks.get_mut(&id).ok_or(libc::EBADF)?;
        if let Role::Listening(_) = sock.role {
            if !write_only {
                self.stop_listening(id);
            }
            return Ok(());
        }
        if !sock.is_stream() || sock.broken {
            return Err(libc::ENOTCONN);
        }
        sock.shut_read |= !write_only;
        let send_end = !std::mem::replace(&mut sock.shut_write, true);
        let peer = sock.peer;
        if let (true, Some(peer)) = (send_end, peer) {
            self.push_piece(peer, Piece::End);
        }
        self.wake_readers(id);
        self.wake_writers(id);
        Ok(())
    }

    fn stop_listening(&mut self, id: SockId) {
        for group in self.listeners.values_mut() {
            group.retain(|member| *member != id);
        }
        self.listeners.retain(|_, group| !group.is_empty());
        for bound in self.unix.values_mut() {
            // The socket file stays behind.
            *bound = bound.filter(|member| *member != id);
        }
        let Some(sock) = self.socks.get_mut(&id) else { return };
        let Role::Listening(listener) = std::mem::replace(&mut sock.role, Role::Fresh) else {
            return;
        };
        self.wake_readers(id);
        for waiting in listener.queue {
            self.reset_peer(waiting);
            self.release(Target::Sock(waiting));
        }
    }

    /// The last hold on a socket is gone.
    pub(super) fn close_sock(&mut self, id: SockId) {
        self.stop_listening(id);
        let Some(sock) = self.socks.get(&id) else { return };
        let unread = !sock.inbox.is_empty() || sock.inbound_len_bytes > 0;
        match sock.peer {
            Some(_) if unread => self.reset_peer(id),
            Some(peer) => {
                if !sock.shut_write {
                    self.push_piece(peer, Piece::End);
                }
                if let Some(peer) = self.socks.get_mut(&peer) {
                    peer.peer = None;
                }
            }
            None => {}
        }
        self.socks.remove(&id);
    }
}
