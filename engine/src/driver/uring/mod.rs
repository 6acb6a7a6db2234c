//! The driver on a kernel ring.
//!
//! Setup is SINGLE_ISSUER + DEFER_TASKRUN (Linux 6.1), with NO_SQARRAY, a registered ring
//! descriptor and incremental receive buffers where the kernel has them; `probe` says what was
//! found. The ring belongs to the thread that made it.
//!
//! Invariants: memory named by an entry is owned by a slot until the entry's last completion; the
//! slot's id is the entry's user_data; events are collected on every enter. Next: `slots` for the
//! table, `sys` for the enter call, `prep` for how each operation becomes an entry.

mod fixed;
mod prep;
mod quiet;
mod slots;
mod sys;

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::{Completion, Errno, Fd, Op, OpId, Payload, Setup, Siblings, Token};
use crate::buf::{DirectBuf, Pool};
use crate::error::Error;
use quiet::{Quiet, TAG_NOW};
use slots::{Held, Slots};
use sys::RingName;

/// Group id of the shard's receive pool.
const POOL_GROUP: u16 = 0;
/// user_data of entries nobody waits for.
const TAG_IGNORE: u64 = 0xff << 56;
/// user_data of a doorbell from another shard.
pub(super) const TAG_BELL: u64 = 0xfe << 56;

/// A ring, the operations in flight on it, and its receive pool.
pub struct Ring {
    ring: IoUring,
    name: RingName,
    slots: Slots,
    pool: Rc<Pool>,
    reaped: Vec<cqueue::Entry>,
    next: usize,
    siblings: Arc<Siblings>,
    shard: usize,
    stats: super::DriverStats,
    rung: bool,
    quiet: Quiet,
    fixed: fixed::Fixed,
}

impl Ring {
    /// Opens a ring for shard `shard` on this thread.
    ///
    /// # Errors
    /// The kernel refuses io_uring, or lacks what the engine cannot do without.
    pub fn start(setup: &Setup, shard: usize, siblings: Arc<Siblings>) -> Result<Self, Error> {
        let ring = build(setup)
            .map_err(|source| Error::io("io_uring_setup", source, format!("shard {shard}")))?;
        let fd = ring.as_raw_fd();
        let name = if setup.registered_ring { RingName::register(fd) } else { RingName::plain(fd) };
        let pool = register_pool(&ring, setup)?;
        siblings.set_bell(shard, fd);
        Ok(Self {
            ring,
            name,
            slots: Slots::default(),
            pool,
            reaped: Vec::with_capacity(1024),
            next: 0,
            siblings,
            shard,
            stats: super::DriverStats::default(),
            rung: false,
            quiet: Quiet::default(),
            fixed: fixed::Fixed::default(),
        })
    }

    /// The receive pool.
    pub const fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Whether enters use a registered ring descriptor.
    pub const fn has_registered_ring(&self) -> bool {
        self.name.is_registered()
    }

    pub(super) fn siblings(&self) -> &Siblings {
        &self.siblings
    }

    /// Counters since start.
    pub const fn stats(&self) -> &super::DriverStats {
        &self.stats
    }

    pub(super) const fn stats_mut(&mut self) -> &mut super::DriverStats {
        &mut self.stats
    }

    /// Operations in flight.
    pub const fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// See [`super::Driver::register`].
    pub fn register(&mut self, buf: DirectBuf) -> DirectBuf {
        self.fixed.register(&self.ring, buf)
    }

    /// See [`super::Driver::unregister`].
    pub fn unregister(&mut self, buf: DirectBuf) -> DirectBuf {
        self.fixed.unregister(&self.ring, buf)
    }

    /// Queues `op`; it reaches the kernel with the next enter.
    pub fn submit(&mut self, token: Token, op: Op) -> OpId {
        let now = match &op {
            Op::SendNow { out, .. } => Some(u32::try_from(out.inline().len()).unwrap_or(u32::MAX)),
            _ => None,
        };
        let (entry, held) = prep::entry(op);
        let id = self.slots.insert(token, held);
        match now {
            Some(len) => {
                self.push(&entry.user_data(id.0 | TAG_NOW));
                self.quiet.queue(id, len);
            }
            None => self.push(&entry.user_data(id.0)),
        }
        id
    }

    fn push(&mut self, entry: &squeue::Entry) {
        self.stats.submitted += 1;
        loop {
            // SAFETY: what the entry points to is owned by its slot until its last completion, or
            // (bells, cancels) it points to nothing.
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                return;
            }
            self.enter(0, None);
        }
    }

    /// Rings the bell of another shard.
    pub fn ring_bell(&mut self, shard: usize) {
        let Some(fd) = self.siblings.bell(shard) else { return };
        self.stats.bells += 1;
        let entry = opcode::MsgRingData::new(types::Fd(fd), 0, TAG_BELL, None).build();
        let flags = squeue::Flags::SKIP_SUCCESS;
        self.push(&entry.flags(flags).user_data(TAG_IGNORE));
    }

    /// Whether another shard rang since the last call.
    pub const fn take_rung(&mut self) -> bool {
        std::mem::replace(&mut self.rung, false)
    }

    /// Whether the kernel has work waiting to be collected; reads shared memory only.
    pub fn has_pending_events(&mut self) -> bool {
        self.ring.submission().taskrun() || !self.ring.completion().is_empty()
    }

    /// Whether a call would find nothing to hand over and nothing to collect.
    fn is_idle(&mut self) -> bool {
        if !self.quiet.is_settled() {
            return false;
        }
        let submission = self.ring.submission();
        let quiet = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        quiet && self.ring.completion().is_empty()
    }

    fn enter(&mut self, min_complete: u32, timeout_ns: Option<u64>) {
        let to_submit = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        self.stats.enters += 1;
        match self.name.enter(to_submit, min_complete, timeout_ns) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal, or the completion queue must be emptied first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => panic!("io_uring_enter on shard {}: {error}", self.shard),
            },
        }
    }

    /// Hands over what was queued; waits up to `timeout_ns` for a completion when nothing is
    /// ready and `wait` is set. `None` waits for ever.
    pub fn turn(&mut self, wait: bool, timeout_ns: Option<u64>) {
        if self.next < self.reaped.len() || self.quiet.has_sent() {
            return;
        }
        let wait = wait && self.ring.completion().is_empty() && timeout_ns != Some(0);
        if !wait && self.is_idle() {
            return;
        }
        self.enter(u32::from(wait), if wait { timeout_ns } else { None });
        if wait {
            self.stats.waits += 1;
        }
        self.reap();
    }

    fn reap(&mut self) {
        self.reaped.clear();
        self.next = 0;
        let mut completions = self.ring.completion();
        if completions.overflow() > 0 {
            self.stats.overflows = u64::from(completions.overflow());
        }
        self.reaped.extend(&mut completions);
        drop(completions);
        self.stats.completions += self.reaped.len() as u64;
        let submission = self.ring.submission();
        if submission.is_empty() && !submission.cq_overflow() {
            drop(submission);
            self.quiet.settle(&self.reaped);
        }
    }

    /// The next completion of those collected by the last turn.
    pub fn next_completion(&mut self) -> Option<Completion> {
        while let Some((op, len)) = self.quiet.next() {
            if let Some(slot) = self.slots.get(op) {
                let token = slot.token;
                return Some(self.finish(op, token, len.cast_signed(), None));
            }
        }
        loop {
            let entry = self.reaped.get(self.next)?;
            let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            self.next += 1;
            match user_data & TAG_IGNORE {
                TAG_IGNORE => {}
                TAG_BELL => self.rung = true,
                TAG_NOW => {
                    // A full socket is no error: nothing was sent.
                    let sent = if result == -libc::EAGAIN { 0 } else { result };
                    if let Some(completion) = self.complete(OpId(user_data & !TAG_NOW), sent, flags)
                    {
                        return Some(completion);
                    }
                }
                _ => {
                    if let Some(completion) = self.complete(OpId(user_data), result, flags) {
                        return Some(completion);
                    }
                }
            }
        }
    }

    fn complete(&mut self, op: OpId, result: i32, flags: u32) -> Option<Completion> {
        let more = cqueue::more(flags);
        let slot = self.slots.get(op)?;
        let token = slot.token;
        if cqueue::notif(flags) {
            let result = slot.sent.unwrap_or(0);
            return Some(self.finish(op, token, result, None));
        }
        if more && matches!(slot.held, Held::Output(..)) {
            // A zero-copy send: its buffer returns with the notification.
            slot.sent = Some(result);
            return None;
        }
        let lease = cqueue::buffer_select(flags).and_then(|bid| {
            let keeps = cqueue::buffer_more(flags);
            match u32::try_from(result) {
                Ok(len) if len > 0 => Some(self.pool.lend(bid, len, keeps)),
                _ => {
                    self.pool.give_back(bid, keeps);
                    None
                }
            }
        });
        if more {
            let payload = lease.map_or(Payload::Empty, Payload::Lease);
            return Some(Completion { token, op, result: value(result), more, payload });
        }
        Some(self.finish(op, token, result, lease))
    }

    fn finish(
        &mut self,
        op: OpId,
        token: Token,
        result: i32,
        lease: Option<crate::buf::Lease>,
    ) -> Completion {
        let payload = match self.slots.remove(op) {
            Held::Output(out, _) => Payload::Output(out),
            Held::Direct(buf) => Payload::Direct(buf),
            Held::Bytes(buf) => Payload::Bytes(prep::received(buf, result)),
            Held::Nothing | Held::Pool | Held::Address(_) => {
                lease.map_or(Payload::Empty, Payload::Lease)
            }
        };
        Completion { token, op, result: value(result), more: false, payload }
    }
}

const fn value(result: i32) -> Result<u32, Errno> {
    if result < 0 { Err(Errno(-result)) } else { Ok(result.cast_unsigned()) }
}

fn build(setup: &Setup) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_clamp();
    builder.setup_submit_all().setup_cqsize(setup.cq_entries).dontfork();
    if setup.no_sqarray {
        builder.setup_no_sqarray();
    }
    match builder.build(setup.sq_entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && setup.no_sqarray => {
            build(&Setup { no_sqarray: false, ..setup.clone() })
        }
        built => built,
    }
}

fn register_pool(ring: &IoUring, setup: &Setup) -> Result<Rc<Pool>, Error> {
    const INCREMENTAL: u16 = 2;
    let mut config = setup.pool;
    loop {
        let pool = Pool::for_kernel(config);
        let Some(kernel_ring) = pool.kernel_ring() else { return Ok(pool) };
        let flags = if config.incremental { INCREMENTAL } else { 0 };
        // SAFETY: the entries and the buffers they name live in `pool`, which the driver keeps
        // until after the ring is closed.
        let registered = unsafe {
            ring.submitter().register_buf_ring_with_flags(
                kernel_ring.address(),
                config.buffers,
                POOL_GROUP,
                flags,
            )
        };
        match registered {
            Ok(()) => {
                pool.offer_all();
                return Ok(pool);
            }
            // Before Linux 6.12 a buffer serves one receive: many small ones instead.
            Err(_) if config.incremental => config = setup.pool_fallback,
            Err(source) => {
                let context = format!("a pool of {} buffers", config.buffers);
                return Err(Error::io("io_uring_register(PBUF_RING)", source, context));
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Everything in flight is cancelled and collected before the memory it uses is freed.
        for _ in 0..64 {
            if self.slots.len() == 0 {
                return;
            }
            let any = types::CancelBuilder::any();
            let until = types::Timespec::new().nsec(10_000_000);
            // Refused by old kernels: then closing the ring cancels, and the memory is leaked.
            let _ = self.ring.submitter().register_sync_cancel(Some(until), any);
            self.turn(true, Some(10_000_000));
            while self.next_completion().is_some() {}
        }
        std::mem::forget(std::mem::take(&mut self.slots));
        std::mem::forget(Rc::clone(&self.pool));
    }
}

/// Closes a descriptor that has no operation in flight.
pub(super) fn close(fd: Fd) {
    // SAFETY: the descriptor belongs to the engine, which stops using it with this call.
    let _ = unsafe { libc::close(fd.0) };
}
