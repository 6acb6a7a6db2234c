//! The driver without a kernel: a seeded model of network, disk and clock.
//!
//! A [`World`] is shared by all shards of a simulated run, on one thread; each shard has a
//! [`SimDriver`] on it. Nothing here waits: the runner advances the world between turns. Equal
//! seeds give equal runs, told by [`World::trace_hash`].
//!
//! Invariants: buffers of an operation stay in the driver's slot until its last completion, as on
//! the ring, and the model touches them through raw pointers only, so AddressSanitizer sees what
//! it would see of a kernel. Everything random is drawn from the world's seed.
//!
//! Next: `kernel` for events and operations, `net`, `transfer` and `files` for what they do,
//! `disk` for what a crash leaves, `faults` for what may go wrong.

mod client;
mod disk;
mod faults;
mod files;
mod flight;
mod kernel;
mod links;
mod memory;
mod net;
mod prepare;
mod slots;
mod streams;
#[cfg(test)]
mod tests;
mod transfer;
mod world;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use view::Instant;

use super::{
    Completion, DriverStats, Errno, Fd, ListenOptions, Op, OpId, OpenOptions, Payload, PeerName,
    Setup, TcpInfo, Token, Usage,
};
use crate::buf::{DirectBuf, Lease, Pool};
use crate::error::Error;

pub use client::{ClientEnd, RecvState};
pub use faults::{Faults, Limits, Plant, WorldStats};
pub use kernel::MACHINE_SHARDS;
pub use world::{Leak, World};

use flight::{Cqe, Kind, OpKey, Request, Target};
use kernel::Kernel;
use prepare::{Prepared, prepare, received};
use slots::{Held, Slots};

/// [`Plant::EarlyFree`] frees smaller buffers only, whose memory stays mapped: the process lives
/// on to see what the model says.
const EARLY_MAX_BYTES: usize = 32 << 10;

/// What is handed over with the next turn.
#[derive(Debug)]
enum Entry {
    Op(Request),
    Bell(usize),
}

/// A shard's driver in a simulated [`World`].
pub struct SimDriver {
    world: World,
    shard: usize,
    sq_entries: usize,
    slots: Slots,
    pending: Vec<Entry>,
    collected: VecDeque<Cqe>,
    pool: Rc<Pool>,
    stats: DriverStats,
    rung: bool,
}

impl SimDriver {
    /// Connects shard `shard` to the world; its number is free or its last driver was dropped. Several machines of a world
    /// have a disk each, and shards from multiples of [`MACHINE_SHARDS`] on.
    ///
    /// # Panics
    /// When the shard has a driver.
    #[must_use]
    pub fn new(world: &World, shard: usize, setup: &Setup) -> Self {
        let pool = Pool::for_model(setup.pool);
        pool.offer_all();
        world.kernel.borrow_mut().attach(shard, Rc::clone(&pool));
        Self {
            world: world.clone(),
            shard,
            sq_entries: setup.sq_entries.max(1) as usize,
            slots: Slots::default(),
            pending: Vec::new(),
            collected: VecDeque::new(),
            pool,
            stats: DriverStats::default(),
            rung: false,
        }
    }

    /// The machine it is of, which has a disk of its own.
    const fn machine(&self) -> usize {
        kernel::machine_of(self.shard)
    }

    /// The world this driver belongs to.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    const fn kernel(&self) -> &Rc<RefCell<Kernel>> {
        &self.world.kernel
    }

    const fn key(&self, id: OpId) -> OpKey {
        OpKey { shard: self.shard, id }
    }

    /// See [`super::Driver::submit`].
    pub fn submit(&mut self, token: Token, op: Op) -> OpId {
        self.make_room();
        self.stats.submitted += 1;
        let Prepared { kind, fd, held, memory } = prepare(op);
        let planted = self.world.kernel.borrow().plant == Some(Plant::EarlyFree);
        let early = planted && matches!(kind, Kind::Send { .. }) && memory.len() < EARLY_MAX_BYTES;
        let (held, freed) = if early { (Held::Nothing, Some(held)) } else { (held, None) };
        let id = self.slots.insert(token, held);
        self.kernel().borrow_mut().register(self.key(id), &memory);
        drop(freed);
        self.pending.push(Entry::Op(Request { id, token, kind, fd, memory }));
        id
    }

    fn make_room(&mut self) {
        if self.pending.len() >= self.sq_entries {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.stats.enters += 1;
        let mut kernel = self.world.kernel.borrow_mut();
        for entry in self.pending.drain(..) {
            match entry {
                Entry::Op(request) => kernel.start(self.shard, request),
                Entry::Bell(shard) => kernel.ring_bell(shard),
            }
        }
    }

    /// See [`super::Driver::turn`]; does not wait. When nothing is ready and `wait` is set, the
    /// shard becomes ready ([`World::is_ready`]) at the latest after `timeout_ns`.
    pub fn turn(&mut self, wait: bool, timeout_ns: Option<u64>) {
        if !self.collected.is_empty() {
            return;
        }
        self.hand_over();
        let mut kernel = self.world.kernel.borrow_mut();
        if wait && timeout_ns != Some(0) && !kernel.is_ready(self.shard) {
            self.stats.waits += 1;
            kernel.wait(self.shard, timeout_ns);
            return;
        }
        self.collected = kernel.collect(self.shard);
        self.stats.completions += self.collected.len() as u64;
        self.stats.overflows = kernel.shards[self.shard].overflows;
    }

    /// See [`super::Driver::next_completion`].
    pub fn next_completion(&mut self) -> Option<Completion> {
        loop {
            match self.collected.pop_front()? {
                Cqe::Bell => self.rung = true,
                Cqe::Done { id, result, more, lease } => {
                    return Some(self.completion(id, result, more, lease));
                }
            }
        }
    }

    fn completion(
        &mut self,
        op: OpId,
        result: i32,
        more: bool,
        lease: Option<Lease>,
    ) -> Completion {
        let token = self.slots.token(op).expect("the model completes operations in flight");
        let mut payload = lease.map_or(Payload::Empty, Payload::Lease);
        if !more {
            match self.free(op) {
                Held::Nothing => {}
                Held::Output(out) => payload = Payload::Output(out),
                Held::Direct(buf) => payload = Payload::Direct(buf),
                Held::Bytes(buf) => payload = Payload::Bytes(received(buf, result)),
            }
        }
        let result = match u32::try_from(result) {
            Ok(value) => Ok(value),
            Err(_) => Err(Errno(-result)),
        };
        Completion { token, op, result, more, payload }
    }

    /// Frees a slot, which the model must not be using.
    fn free(&mut self, op: OpId) -> Held {
        let key = self.key(op);
        let kernel = self.kernel().borrow();
        let in_use = kernel.op_ref(key).is_some();
        assert!(!in_use, "the slot of {} was freed while in use", kernel.describe(key));
        drop(kernel);
        self.slots.remove(op)
    }

    /// See [`super::Driver::has_pending_events`].
    pub fn has_pending_events(&mut self) -> bool {
        !self.collected.is_empty() || !self.kernel().borrow().shards[self.shard].queue.is_empty()
    }

    /// The receive pool.
    pub const fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// See [`super::Driver::ring_bell`]; rings with the next turn, as on the ring.
    pub fn ring_bell(&mut self, shard: usize) {
        self.make_room();
        self.stats.bells += 1;
        // Shards are numbered within their machine.
        let first = self.machine() * MACHINE_SHARDS;
        self.pending.push(Entry::Bell(first + shard));
    }

    /// See [`super::Driver::take_rung`].
    pub const fn take_rung(&mut self) -> bool {
        std::mem::replace(&mut self.rung, false)
    }

    /// The world's clocks.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// See [`super::Driver::mono_ns`].
    #[must_use]
    pub fn mono_ns(&self) -> u64 {
        self.world.now().mono_ns
    }

    /// Counters since the start.
    pub const fn stats(&self) -> &DriverStats {
        &self.stats
    }

    /// Operations in flight.
    pub const fn in_flight(&self) -> usize {
        self.slots.len()
    }

    fn call<T>(
        &mut self,
        call: Call,
        context: impl FnOnce() -> String,
        perform: impl FnOnce(&mut Kernel) -> Result<T, i32>,
    ) -> Result<T, Error> {
        self.stats.calls += 1;
        let (name, errno) = call.name();
        let mut kernel = self.world.kernel.borrow_mut();
        let result = kernel.call(call as u64, errno, perform);
        result.map_err(|errno| Error::io(name, io::Error::from_raw_os_error(errno), context()))
    }

    /// See [`super::Driver::listen`].
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn listen(&mut self, addr: SocketAddr, options: &ListenOptions) -> Result<Fd, Error> {
        let shard = self.shard;
        let listen = |kernel: &mut Kernel| kernel.listen(shard, addr, options);
        self.call(Call::Listen, || addr.to_string(), listen)
    }

    /// See [`super::Driver::listen_unix`].
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn listen_unix(&mut self, path: &Path, options: &ListenOptions) -> Result<Fd, Error> {
        let shard = self.shard;
        let listen = |kernel: &mut Kernel| kernel.listen_unix(shard, path, options);
        self.call(Call::Listen, || path.display().to_string(), listen)
    }

    /// See [`super::Driver::socket`].
    ///
    /// # Errors
    /// EMFILE.
    pub fn socket(&mut self, peer: SocketAddr) -> Result<Fd, Error> {
        let shard = self.shard;
        let socket = |kernel: &mut Kernel| {
            let id = kernel.socket(peer.is_ipv4());
            let opened = kernel.new_fd(shard, Target::Sock(id));
            if opened.is_err() {
                kernel.socks.remove(&id);
            }
            opened
        };
        self.call(Call::Socket, || peer.to_string(), socket)
    }

    /// See [`super::Driver::set_tcp`]; options change nothing here.
    pub const fn set_tcp(&mut self, _fd: Fd, _info: &TcpInfo) {
        self.stats.calls += 1;
    }

    /// See [`super::Driver::cork`]; there are no packets here.
    pub const fn cork(&mut self, _fd: Fd, _on: bool) {
        self.stats.calls += 1;
    }

    /// See [`super::Driver::names`].
    #[must_use]
    pub fn names(&mut self, fd: Fd) -> (PeerName, PeerName) {
        self.stats.calls += 2;
        self.kernel().borrow().names(fd)
    }

    /// See [`super::Driver::usage`]: time costs nothing here.
    pub const fn usage(&mut self) -> Usage {
        self.stats.calls += 1;
        Usage { user_us: 0, system_us: 0, resident_bytes: 0 }
    }

    /// See [`super::Driver::sendfile`].
    ///
    /// # Errors
    /// EAGAIN when the socket is full; EPIPE and ECONNRESET.
    pub fn sendfile(&mut self, to: Fd, file: Fd, offset: u64, len: usize) -> Result<usize, Errno> {
        self.stats.calls += 1;
        self.kernel().borrow_mut().sendfile(to, file, offset, len)
    }

    /// See [`super::Driver::cached_bytes`].
    #[must_use]
    pub fn cached_bytes(&mut self, file: Fd, offset: u64, len: u64) -> Option<u64> {
        self.stats.calls += 1;
        self.kernel().borrow_mut().cached_bytes(file, offset, len)
    }

    /// See [`super::Driver::no_read_ahead`]; there is none.
    pub const fn no_read_ahead(&mut self, _file: Fd) {
        self.stats.calls += 1;
    }

    /// See [`super::Driver::drop_cached`]; whether something is cached is drawn when it is asked.
    pub const fn drop_cached(&mut self, _file: Fd, _offset: u64, _len: u64) {
        self.stats.calls += 1;
    }

    /// See [`super::Driver::read_now`].
    ///
    /// # Errors
    /// EAGAIN when not cached.
    pub fn read_now(&mut self, file: Fd, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.stats.calls += 1;
        self.kernel().borrow_mut().read_now(file, buf, offset)
    }

    /// See [`super::Driver::read_waiting`].
    ///
    /// # Errors
    /// EBADF, EIO.
    pub fn read_waiting(&mut self, file: Fd, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.stats.calls += 1;
        self.kernel().borrow_mut().read_waiting(file, buf, offset)
    }

    /// See [`super::Driver::end_process`]: the world knows that it ended, see [`World::ended`].
    pub fn end_process(&mut self, code: i32) {
        self.stats.calls += 1;
        self.kernel().borrow_mut().end_process(self.shard, code);
    }

    /// See [`super::Driver::write_now`].
    ///
    /// # Errors
    /// EBADF, EIO, ENOSPC.
    pub fn write_now(
        &mut self,
        file: Fd,
        parts: &[io::IoSlice<'_>],
        offset: u64,
    ) -> Result<usize, Errno> {
        self.stats.calls += 1;
        self.kernel().borrow_mut().write_now(file, parts, offset)
    }

    /// See [`super::Driver::open`].
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOTDIR, EMFILE.
    pub fn open(&mut self, path: &Path, options: &OpenOptions) -> Result<Fd, Error> {
        let shard = self.shard;
        let open = |kernel: &mut Kernel| kernel.open(shard, path, options);
        self.call(Call::Open, || path.display().to_string(), open)
    }

    /// See [`super::Driver::file_len`].
    ///
    /// # Errors
    /// EBADF.
    pub fn file_len(&mut self, file: Fd) -> Result<u64, Error> {
        self.call(Call::Stat, || format!("{file:?}"), |kernel| kernel.file_len(file))
    }

    /// See [`super::Driver::truncate`].
    ///
    /// # Errors
    /// EBADF, EINVAL.
    pub fn truncate(&mut self, file: Fd, len: u64) -> Result<(), Error> {
        let context = || format!("{file:?} to {len} bytes");
        self.call(Call::Truncate, context, |kernel| kernel.truncate(file, len))
    }

    /// See [`super::Driver::rename`].
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOTDIR, ENOTEMPTY.
    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let context = || format!("{} to {}", from.display(), to.display());
        let disk = self.machine();
        self.call(Call::Rename, context, |kernel| kernel.disks[disk].rename(from, to))
    }

    /// See [`super::Driver::unlink`].
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn unlink(&mut self, path: &Path) -> Result<(), Error> {
        let shard = self.shard;
        let unlink = |kernel: &mut Kernel| kernel.unlink(shard, path);
        self.call(Call::Unlink, || path.display().to_string(), unlink)
    }

    /// See [`super::Driver::make_dir`].
    ///
    /// # Errors
    /// EEXIST, ENOTDIR.
    pub fn make_dir(&mut self, path: &Path) -> Result<(), Error> {
        let context = || path.display().to_string();
        let disk = self.machine();
        self.call(Call::MakeDir, context, |kernel| kernel.disks[disk].make_dir(path))
    }

    /// See [`super::Driver::remove_dir`].
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY.
    pub fn remove_dir(&mut self, path: &Path) -> Result<(), Error> {
        let context = || path.display().to_string();
        let disk = self.machine();
        self.call(Call::RemoveDir, context, |kernel| kernel.disks[disk].remove_dir(path))
    }

    /// See [`super::Driver::list_dir`].
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<String>, Error> {
        let context = || path.display().to_string();
        let disk = self.machine();
        self.call(Call::ListDir, context, |kernel| kernel.disks[disk].list(path))
    }

    /// See [`super::Driver::register`]; there is nothing to register with.
    pub const fn register(&mut self, buf: DirectBuf) -> DirectBuf {
        buf
    }

    /// See [`super::Driver::unregister`].
    pub const fn unregister(&mut self, buf: DirectBuf) -> DirectBuf {
        buf
    }

    /// See [`super::Driver::adopt`].
    ///
    /// # Errors
    /// Always: a real descriptor means nothing here.
    pub fn adopt(&mut self, fd: OwnedFd) -> Result<Fd, Error> {
        Err(Error::new("adopt", crate::error::Kind::Unsupported, format!("{fd:?}")))
    }

    /// See [`super::Driver::shut_down_now`].
    pub fn shut_down_now(&mut self, fd: Fd) {
        self.stats.calls += 1;
        self.kernel().borrow_mut().shut_down_now(fd);
    }

    /// See [`super::Driver::close_now`].
    pub fn close_now(&mut self, fd: Fd) {
        self.stats.calls += 1;
        // Like close(2), which has nothing useful to say either.
        let _ = self.kernel().borrow_mut().close(fd);
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        let Ok(mut kernel) = self.world.kernel.try_borrow_mut() else {
            // The model itself panicked: what it names must outlive it.
            std::mem::forget(std::mem::take(&mut self.slots));
            return;
        };
        for entry in self.pending.drain(..) {
            if let Entry::Op(request) = entry {
                let key = OpKey { shard: self.shard, id: request.id };
                kernel.forget(key, &request.memory);
            }
        }
        kernel.detach(self.shard);
    }
}

impl fmt::Debug for SimDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDriver(shard {}, {} in flight)", self.shard, self.in_flight())
    }
}

/// Plain calls that can be made to fail.
#[derive(Clone, Copy, Debug)]
enum Call {
    Listen = 1,
    Socket,
    Open,
    Stat,
    Truncate,
    Rename,
    Unlink,
    MakeDir,
    ListDir,
    RemoveDir,
}

impl Call {
    /// Its name, and how it fails when ordered to.
    const fn name(self) -> (&'static str, i32) {
        match self {
            Self::Listen => ("bind", libc::EADDRINUSE),
            Self::Socket => ("socket", libc::EMFILE),
            Self::Open => ("open", libc::EMFILE),
            Self::Stat => ("fstat", libc::EIO),
            Self::Truncate => ("ftruncate", libc::EIO),
            Self::Rename => ("rename", libc::EIO),
            Self::Unlink => ("unlink", libc::EIO),
            Self::MakeDir => ("mkdir", libc::ENOSPC),
            Self::ListDir => ("opendir", libc::EIO),
            Self::RemoveDir => ("rmdir", libc::EIO),
        }
    }
}
