//! The handle of a simulated world, for whoever runs it: time, faults, clients, the trace.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use view::Instant;

use crate::driver::{Fd, PeerName};

use super::client::ClientEnd;
use super::faults::{Faults, Plant, WorldStats};
use super::kernel::Kernel;

/// Where the wall clock of a world starts: 14 November 2023, 22:13:20 UTC.
const UNIX_START_US: u64 = 1_700_000_000_000_000;

/// A network, a disk and a clock shared by all simulated shards of a run, on one thread. Clones
/// are handles of the same world.
///
/// The runner's loop: run every shard that [`World::is_ready`] (or that has work of its own);
/// when none is, [`World::advance`]; when that says there is nothing to come, the run is over or
/// stuck.
#[derive(Clone)]
pub struct World {
    pub(super) kernel: Rc<RefCell<Kernel>>,
}

/// Something left behind at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leak {
    /// A descriptor nobody closed.
    Descriptor {
        /// Which.
        fd: Fd,
        /// The shard that opened it.
        shard: usize,
    },
    /// An operation in flight whose descriptor was closed: it may never end.
    Orphan {
        /// The operation, its descriptor and its token.
        operation: String,
        /// Its shard.
        shard: usize,
    },
    /// An operation in flight.
    InFlight {
        /// The operation, its descriptor and its token.
        operation: String,
        /// Its shard.
        shard: usize,
    },
}

impl World {
    /// A world whose every choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { kernel: Rc::new(RefCell::new(Kernel::new(seed, faults))) }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.kernel.borrow().seed
    }

    /// Moves the clock to the next event and delivers what is due; false when nothing is to come.
    pub fn advance(&self) -> bool {
        self.kernel.borrow_mut().advance()
    }

    /// Delivers everything due up to `mono_ns`, and moves the clock there.
    pub fn advance_to(&self, mono_ns: u64) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.advance_until(mono_ns);
        kernel.now_ns = kernel.now_ns.max(mono_ns);
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Instant {
        let mono_ns = self.kernel.borrow().now_ns;
        Instant { mono_ns, unix_us: UNIX_START_US + mono_ns / 1_000 }
    }

    /// When the next event is due, on the monotonic clock.
    #[must_use]
    pub fn next_event_time(&self) -> Option<u64> {
        self.kernel.borrow().next_event_ns()
    }

    /// Whether a turn of the shard would not wait: completions, a bell, or its time is up.
    #[must_use]
    pub fn is_ready(&self, shard: usize) -> bool {
        self.kernel.borrow().is_ready(shard)
    }

    /// Connects from outside the engine. The connection is established as the world advances.
    #[must_use]
    pub fn connect_client(&self, addr: SocketAddr) -> ClientEnd {
        ClientEnd::connect_tcp(&self.kernel, addr)
    }

    /// The same to a Unix socket.
    #[must_use]
    pub fn connect_unix_client(&self, path: &Path) -> ClientEnd {
        ClientEnd::connect_unix(&self.kernel, path)
    }

    /// Replaces what may go wrong from now on; sizes apply to what happens later.
    pub fn set_faults(&self, faults: Faults) {
        self.kernel.borrow_mut().faults = faults;
    }

    /// Nothing goes wrong from now on; sizes and speeds stay.
    pub fn heal(&self) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.faults = Faults { limits: kernel.faults.limits.clone(), ..Faults::none() };
    }

    /// The machine stops and starts again: files hold what was made durable, perhaps more (see
    /// [`Faults::survives`]), and are all closed. Drop the drivers first, then close what the
    /// shards had open with [`World::close_shard`].
    pub fn crash_disk(&self) {
        self.crash_disk_of(0);
    }

    /// The same of one of several machines: that whose shards begin with `MACHINE_SHARDS` times its number.
    pub fn crash_disk_of(&self, machine: usize) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.ended.remove(&machine);
        kernel.crash_disk(machine);
    }

    /// The exit code of a process that has ended itself since the last crash: its shards must not go on.
    #[must_use]
    pub fn ended(&self) -> Option<i32> {
        self.ended_on(0)
    }

    /// The same of one of several machines.
    #[must_use]
    pub fn ended_on(&self, machine: usize) -> Option<i32> {
        self.kernel.borrow().ended.get(&machine).copied()
    }

    /// Breaks all connections between machines, with a part of what travels; how many.
    pub fn cut_links(&self) -> usize {
        self.kernel.borrow_mut().cut_links()
    }

    /// Nothing gets from a machine to another one for so long: what is sent arrives then, and requests for connections
    /// are repeated until they do.
    pub fn part_machines(&self, for_ns: u64) {
        self.kernel.borrow_mut().part_machines(for_ns);
    }

    /// Names in a directory; none when it is not there.
    #[must_use]
    pub fn list_dir(&self, path: &Path) -> Vec<String> {
        self.kernel.borrow().disks[0].list(path).unwrap_or_default()
    }

    /// What the disk holds of a file, were the machine to stop now; `None` when it is not there.
    #[must_use]
    pub fn durable_file(&self, path: &Path) -> Option<Vec<u8>> {
        self.kernel.borrow().disks[0].durable(path).ok().map(<[u8]>::to_vec)
    }

    /// Changes a bit of what the disk holds of a file, as a bad disk does: nobody is told. Whether there is such a
    /// byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) -> bool {
        let mut kernel = self.kernel.borrow_mut();
        kernel.trace(u64::from_le_bytes(*b"flip    ") ^ offset);
        kernel.disks[0].flip(path, offset, bit).is_ok()
    }

    /// Closes every descriptor a shard opened, as the kernel does for a process that died.
    pub fn close_shard(&self, shard: usize) {
        let mut kernel = self.kernel.borrow_mut();
        let mine = kernel.fds.iter().filter(|(_, descriptor)| descriptor.shard == shard);
        for fd in mine.map(|(fd, _)| Fd(*fd)).collect::<Vec<_>>() {
            // Listed above, so it is open.
            let _ = kernel.close(fd);
        }
    }

    /// Hash over time, operation and result of every completion and call so far: equal on every
    /// run of one seed.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.kernel.borrow().trace_hash()
    }

    /// The last completions, for a failure report.
    #[must_use]
    pub fn recent(&self) -> Vec<String> {
        self.kernel.borrow().recent()
    }

    /// Makes the `n`-th completion that could fail (from one, since the start) fail with an errno
    /// that fits its operation: accept, connect, receive, send, read, write, fsync.
    pub fn fail_completion(&self, n: u64) {
        self.kernel.borrow_mut().fail_completion = Some(n);
    }

    /// Completions that could fail, so far: the bound of a single-fault sweep.
    #[must_use]
    pub fn completions_counted(&self) -> u64 {
        self.kernel.borrow().completions_counted
    }

    /// The same for plain calls: listen, socket, open, length, truncate, rename, unlink, make and
    /// list a directory.
    pub fn fail_call(&self, n: u64) {
        self.kernel.borrow_mut().fail_call = Some(n);
    }

    /// Plain calls that could fail, so far.
    #[must_use]
    pub fn calls_counted(&self) -> u64 {
        self.kernel.borrow().calls_counted
    }

    /// Whether the engine still has a connection with the peer of this name, accepted or not:
    /// when it has none, nothing that peer sent will be looked at any more.
    #[must_use]
    pub fn has_peer(&self, peer: &PeerName) -> bool {
        self.kernel.borrow().socks.values().any(|sock| sock.is_stream() && sock.peer_name == *peer)
    }

    /// Plants a bug, for the tests that prove it is found.
    #[doc(hidden)]
    pub fn plant(&self, plant: Plant) {
        self.kernel.borrow_mut().plant = Some(plant);
    }

    /// How often what happened.
    #[must_use]
    pub fn stats(&self) -> WorldStats {
        self.kernel.borrow().stats
    }

    /// Operations in flight and descriptors open: what a run that ended well does not leave.
    #[must_use]
    pub fn leaks(&self) -> Vec<Leak> {
        let kernel = self.kernel.borrow();
        let mut leaks = Vec::new();
        for shard in 0..kernel.shards.len() {
            for key in kernel.in_flight(shard) {
                let operation = kernel.describe(key);
                let Some(op) = kernel.op_ref(key) else { continue };
                let open = op.fd.and_then(|fd| kernel.target(fd).ok());
                leaks.push(match op.target {
                    Some(target) if open != Some(target) => Leak::Orphan { operation, shard },
                    _ => Leak::InFlight { operation, shard },
                });
            }
        }
        let descriptors = kernel.fds.iter();
        leaks.extend(
            descriptors
                .map(|(fd, descriptor)| Leak::Descriptor { fd: Fd(*fd), shard: descriptor.shard }),
        );
        leaks
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = self.kernel.borrow();
        write!(f, "World(seed {}, {} ns)", kernel.seed, kernel.now_ns)
    }
}
