//! The shard's receive pool: a ring of buffers from which the driver takes one when bytes arrive,
//! so an idle connection holds none.
//!
//! Two modes. *Whole*: a completion uses up one buffer. *Incremental* (IOU_PBUF_RING_INC, Linux
//! 6.12): a large buffer is filled by many completions in turn, each a slice of it; it goes back
//! once the driver said it is done with it **and** every slice lent from it was dropped.
//!
//! Invariants: a buffer id is in exactly one state: offered to the driver, being filled, or lent
//! out; `lent[bid]` counts its live leases; memory of the pool lives as long as any lease.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Shape of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Number of buffers: a power of two, at most 32768.
    pub buffers: u16,
    /// Size of each buffer in bytes.
    pub buffer_len_bytes: u32,
    /// Fill a buffer by several receives.
    pub incremental: bool,
}

/// The pool. Cheap to share within its thread through [`Rc`].
pub struct Pool {
    config: PoolConfig,
    memory: NonNull<u8>,
    layout: Layout,
    /// Bytes already handed out of the buffer being filled (incremental mode).
    filled: Box<[Cell<u32>]>,
    lent: Box<[Cell<u32>]>,
    /// The driver will not write to the buffer any more; it goes back when `lent` reaches zero.
    finished: Box<[Cell<bool>]>,
    offered: Cell<u32>,
    backing: Backing,
}

enum Backing {
    Kernel(KernelRing),
    Model(RefCell<VecDeque<u16>>),
}

/// The ring of buffer entries shared with the kernel (io_uring_buf_ring).
pub(crate) struct KernelRing {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    mask: u16,
    tail: Cell<u16>,
}

impl KernelRing {
    fn new(buffers: u16) -> Self {
        let len = usize::from(buffers) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(len, 4096).expect("at most 512 KiB");
        // SAFETY: the layout is not empty: a pool has at least one buffer.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { entries: start.cast(), layout, mask: buffers - 1, tail: Cell::new(0) }
    }

    /// Address to register with the ring.
    pub(crate) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    fn offer(&self, bid: u16, address: u64, len: u32) {
        let tail = self.tail.get();
        // SAFETY: `tail & mask` is below the number of entries allocated in `new`.
        let entry = unsafe { self.entries.add(usize::from(tail & self.mask)) };
        // SAFETY: the kernel reads entries only between head and the published tail; this one is
        // past the tail, and this thread is the only writer.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(len);
        entry.set_bid(bid);
        self.tail.set(tail.wrapping_add(1));
        self.publish();
    }

    fn publish(&self) {
        // SAFETY: `entries` points to the start of a registered buffer ring; the tail lies in the
        // first entry's reserved field.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is a u16 in our own allocation, aligned to 2, shared only with the
        // kernel, which loads it with acquire.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail.get(), Ordering::Release);
    }
}

impl Drop for KernelRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the driver unregisters the ring first.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) }
    }
}

impl Pool {
    /// A pool whose buffers are offered to a kernel ring.
    pub(crate) fn for_kernel(config: PoolConfig) -> Rc<Self> {
        assert!(config.buffers.is_power_of_two(), "the number of buffers is a power of two");
        Self::new(config, Backing::Kernel(KernelRing::new(config.buffers)))
    }

    /// A pool for the simulated driver.
    pub(crate) fn for_model(config: PoolConfig) -> Rc<Self> {
        Self::new(config, Backing::Model(RefCell::default()))
    }

    fn new(config: PoolConfig, backing: Backing) -> Rc<Self> {
        let len = usize::from(config.buffers) * config.buffer_len_bytes as usize;
        let layout = Layout::from_size_align(len, 4096).expect("a pool fits the address space");
        // SAFETY: `len` is not zero: counts and sizes are validated by the configuration.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        let count = usize::from(config.buffers);
        let pool = Self {
            config,
            memory,
            layout,
            filled: vec![Cell::new(0); count].into(),
            lent: vec![Cell::new(0); count].into(),
            finished: vec![Cell::new(false); count].into(),
            offered: Cell::new(0),
            backing,
        };
        Rc::new(pool)
    }

    /// Offers every buffer; once, after the driver has registered the ring.
    pub(crate) fn offer_all(&self) {
        for bid in 0..self.config.buffers {
            self.offer(bid);
        }
    }

    pub(crate) const fn kernel_ring(&self) -> Option<&KernelRing> {
        match &self.backing {
            Backing::Kernel(ring) => Some(ring),
            Backing::Model(_) => None,
        }
    }

    /// The pool's shape.
    pub const fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Buffers the driver may take: whole ones, including the one being filled.
    pub fn available(&self) -> u32 {
        self.offered.get()
    }

    fn buffer(&self, bid: u16) -> NonNull<u8> {
        assert!(bid < self.config.buffers, "buffer id {bid} of a pool of {}", self.config.buffers);
        let offset = usize::from(bid) * self.config.buffer_len_bytes as usize;
        // SAFETY: `bid` is below the count, so the offset lies inside the allocation.
        unsafe { self.memory.add(offset) }
    }

    fn offer(&self, bid: u16) {
        self.filled[usize::from(bid)].set(0);
        self.finished[usize::from(bid)].set(false);
        self.offered.set(self.offered.get() + 1);
        let start = self.buffer(bid);
        match &self.backing {
            Backing::Kernel(ring) => {
                ring.offer(bid, start.as_ptr() as u64, self.config.buffer_len_bytes);
            }
            Backing::Model(free) => free.borrow_mut().push_back(bid),
        }
    }

    /// Turns a receive completion into a lease: `len` bytes were written to buffer `bid`, and the
    /// driver keeps the buffer when `more`.
    pub(crate) fn lend(self: &Rc<Self>, bid: u16, len: u32, more: bool) -> Lease {
        let index = usize::from(bid);
        let start = self.filled[index].get();
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.config.buffer_len_bytes),
            "the driver wrote {len} bytes at {start} of a buffer of {}",
            self.config.buffer_len_bytes
        );
        self.filled[index].set(start + len);
        if !more {
            self.finished[index].set(true);
            self.offered.set(self.offered.get() - 1);
        }
        self.lent[index].set(self.lent[index].get() + 1);
        // SAFETY: `start` is at most the buffer's length, checked above.
        let start = unsafe { self.buffer(bid).add(start as usize) };
        Lease { pool: Rc::clone(self), start, len, bid }
    }

    /// Takes a buffer back that the driver used without delivering bytes.
    pub(crate) fn give_back(self: &Rc<Self>, bid: u16, more: bool) {
        drop(self.lend(bid, 0, more));
    }

    fn release(&self, bid: u16) {
        let index = usize::from(bid);
        let lent = self.lent[index].get() - 1;
        self.lent[index].set(lent);
        if lent == 0 && self.finished[index].get() {
            self.offer(bid);
        }
    }

    /// Model only: where the next receive may write, as (buffer, pointer, room).
    pub(crate) fn model_front(&self) -> Option<(u16, *mut u8, u32)> {
        let Backing::Model(free) = &self.backing else { return None };
        let bid = *free.borrow().front()?;
        let filled = self.filled[usize::from(bid)].get();
        // SAFETY: `filled` is at most the buffer's length.
        let start = unsafe { self.buffer(bid).add(filled as usize) };
        Some((bid, start.as_ptr(), self.config.buffer_len_bytes - filled))
    }

    /// Model only: the front buffer is used up.
    pub(crate) fn model_take_front(&self) {
        if let Backing::Model(free) = &self.backing {
            free.borrow_mut().pop_front();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; leases hold the pool alive, and the driver
        // drops its ring before its pool.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?}, {} offered)", self.config, self.offered.get())
    }
}

/// Received bytes lent from the pool; dropping it returns them.
pub struct Lease {
    pool: Rc<Pool>,
    start: NonNull<u8>,
    len: u32,
    bid: u16,
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `lend` checked that these bytes lie in the buffer; the driver has finished
        // writing them, and the buffer is not offered again while this lease lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.release(self.bid);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes of buffer {})", self.len, self.bid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(incremental: bool) -> Rc<Pool> {
        let pool = Pool::for_model(PoolConfig { buffers: 2, buffer_len_bytes: 64, incremental });
        pool.offer_all();
        pool
    }

    #[test]
    fn a_whole_buffer_returns_when_its_lease_drops() {
        let pool = pool(false);
        let (bid, ..) = pool.model_front().expect("a buffer");
        pool.model_take_front();
        let lease = pool.lend(bid, 10, false);
        assert_eq!((lease.len(), pool.available()), (10, 1));
        drop(lease);
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn an_incremental_buffer_returns_after_its_last_slice_in_any_order() {
        let pool = pool(true);
        let first = pool.lend(0, 16, true);
        let second = pool.lend(0, 16, true);
        assert_eq!(second.as_ptr() as usize - first.as_ptr() as usize, 16);
        drop(first);
        let third = pool.lend(0, 32, false);
        assert_eq!(pool.available(), 1);
        drop(third);
        assert_eq!(pool.available(), 1);
        drop(second);
        assert_eq!(pool.available(), 2);
        assert_eq!(pool.filled[0].get(), 0);
    }

    #[test]
    fn a_lease_outlives_the_last_handle_of_its_pool() {
        let pool = pool(false);
        let lease = pool.lend(1, 64, false);
        drop(pool);
        assert!(lease.iter().all(|&byte| byte == 0));
    }
}
