//! The delay line: packets leave the kernel through a device of its own, are held in this process, and go on when they are due.
//!
//! It needs no queueing discipline and works in both directions. What `packet` sends into the line's device is read by a
//! thread, which keeps it in a heap by due time and writes it back; `line_back` sends it on to where it was going. The thread wakes
//! a little early and polls the rest, since a timer of a virtual machine is late by about that much.
//! Invariants: what is held is bounded ([`HELD_PACKETS_MAX`], [`HELD_BYTES_MAX`]); beyond, packets go on at once, since losing them is
//! another fault. All goes with the process: packets then pass by the line, and only what it held is lost. A packet that was
//! sent on carries a mark, by which other faults of ours that it meets on the same device leave it alone: two lines on one
//! direction do not add up. A process that is stopped, and not ended, holds what it has until the fault's deadline.
//! A sender's socket counts a packet as sent when it enters the line. Next: `timing`, `tap`, `faults::delay`.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use libbpf_rs::Object;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::abi;
use crate::device::Device;
use crate::error::{During as _, Result};
use crate::link::{self, Attached};
use crate::programs;
use crate::registry::Journal;
use crate::select::Way;
use crate::time::{SECOND_NS, monotonic_ns};

mod tap;
pub mod timing;

use tap::{FRAME_MAX, HEADER_LEN, Tap};
use timing::{Fate, Packet, Timing};

/// Packets that a line holds at most.
pub const HELD_PACKETS_MAX: usize = 65_536;
/// And their bytes.
pub const HELD_BYTES_MAX: u64 = 64 << 20;
/// Packets that are read before due ones are looked for again.
const BATCH: usize = 64;
/// How long before a packet is due the thread is awake.
const EARLY_NS: u64 = 60_000;
/// Before other threads of the machine: a line that waits for the processor is late.
const NICE: i32 = -20;

/// `BPF_F_INGRESS`.
const INTO_DEVICE: u32 = 1;

const RUNS: u8 = 0;
/// Nothing is held any more, and what still comes goes on at once.
const OPEN: u8 = 1;
const ENDS: u8 = 2;

/// What is told to the thread.
#[derive(Debug)]
struct Control {
    mode: AtomicU8,
    bell: OwnedFd,
}

impl Control {
    fn tell(&self, mode: u8) {
        self.mode.store(mode, Ordering::Release);
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// A line on one direction of a device. What is dropped first ends the thread.
pub struct Line {
    thread: Option<JoinHandle<()>>,
    control: Arc<Control>,
    index: u32,
    _programs: [Attached; 2],
    _object: Object,
}

impl Line {
    /// Makes one, which nothing is sent into yet. `is_apart`: segments come one by one, as a wire has them.
    ///
    /// # Errors
    /// The kernel has no TAP devices, or refuses the programs.
    pub fn start(
        device: &Device,
        way: Way,
        timing: Box<dyn Timing>,
        is_apart: bool,
        journal: &mut Journal,
    ) -> Result<Self> {
        let segments = if is_apart { tap::Segments::Apart } else { tap::Segments::Together };
        let tap = Tap::new(device, segments)?;
        let mut object = programs::open("line")?;
        link::prepare(&mut object, "line_into", Way::Out);
        link::prepare(&mut object, "line_back", Way::In);
        let object = programs::load_opened("line", object)?;
        let to = abi::Line {
            ifindex: number(device),
            flags: if way == Way::In { INTO_DEVICE } else { 0 },
        };
        programs::write(&programs::map(&object, "line")?, 0, &to)?;
        let mut attach = |name, way| {
            link::attach(&programs::program(&object, name)?, tap.device(), way, journal)
        };
        let attached = [attach("line_into", Way::Out)?, attach("line_back", Way::In)?];
        tap.up(device)?;
        let index = number(tap.device());
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .during(|| "make an eventfd".to_owned())?;
        let control = Arc::new(Control { mode: AtomicU8::new(RUNS), bell });
        let mut worker = Worker {
            tap,
            control: Arc::clone(&control),
            timing,
            l2_len: u64::from(device.l2_len),
            store: Store::new(HELD_PACKETS_MAX, HELD_BYTES_MAX),
        };
        let thread = std::thread::Builder::new()
            .name("delay-line".to_owned())
            .spawn(move || worker.run())
            .during(|| "start a thread".to_owned())?;
        Ok(Self { thread: Some(thread), control, index, _programs: attached, _object: object })
    }

    /// The device that packets are to be sent out of.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Lets go at once of what is held, and of what still comes.
    pub fn open(&self) {
        self.control.tell(OPEN);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.control.tell(ENDS);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn number(device: &Device) -> u32 {
    u32::try_from(device.index).unwrap_or_default()
}

/// A packet in the heap.
struct Held {
    due_ns: u64,
    /// Packets that are due together leave as they came.
    number: u64,
    wire_bytes: u64,
    frame: Box<[u8]>,
}

impl Held {
    const fn key(&self) -> (u64, u64) {
        (self.due_ns, self.number)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Order {
        self.key().cmp(&other.key())
    }
}

/// All that is held.
struct Store {
    heap: BinaryHeap<Reverse<Held>>,
    packets_max: usize,
    bytes_max: u64,
    /// Of memory.
    bytes: u64,
    /// On the wire.
    wire_bytes: u64,
    /// Packets that ever came.
    count: u64,
}

impl Store {
    const fn new(packets_max: usize, bytes_max: u64) -> Self {
        Self { heap: BinaryHeap::new(), packets_max, bytes_max, bytes: 0, wire_bytes: 0, count: 0 }
    }

    /// Whether there was room for it.
    fn hold(&mut self, due_ns: u64, wire_bytes: u64, frame: &[u8]) -> bool {
        let bytes = self.bytes.saturating_add(frame.len() as u64);
        if self.heap.len() >= self.packets_max || bytes > self.bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.wire_bytes = self.wire_bytes.saturating_add(wire_bytes);
        self.count += 1;
        self.heap.push(Reverse(Held {
            due_ns,
            number: self.count,
            wire_bytes,
            frame: frame.into(),
        }));
        true
    }

    fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(first)| first.due_ns)
    }

    /// The first that is due by then.
    fn take(&mut self, by_ns: u64) -> Option<Box<[u8]>> {
        if self.next_ns()? > by_ns {
            return None;
        }
        let Reverse(first) = self.heap.pop()?;
        self.bytes = self.bytes.saturating_sub(first.frame.len() as u64);
        self.wire_bytes = self.wire_bytes.saturating_sub(first.wire_bytes);
        Some(first.frame)
    }
}

/// What the thread has.
struct Worker {
    tap: Tap,
    control: Arc<Control>,
    timing: Box<dyn Timing>,
    l2_len: u64,
    store: Store,
}

impl Worker {
    fn run(&mut self) {
        // Both are for precision only, and a container may refuse them.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut buf = vec![0; FRAME_MAX];
        loop {
            let mode = self.control.mode.load(Ordering::Acquire);
            if mode != RUNS {
                // Before what comes later.
                self.release(u64::MAX);
            }
            let has_all = self.read_batch(&mut buf, mode == RUNS);
            let next_ns = self.release(monotonic_ns());
            if has_all {
                if mode == ENDS {
                    return;
                }
                self.wait(next_ns);
            }
        }
    }

    /// Whether there are no more.
    fn read_batch(&mut self, buf: &mut [u8], holds: bool) -> bool {
        for _ in 0..BATCH {
            let Some(len) = self.tap.read(buf) else { return true };
            let Some(frame) = buf.get(..len) else { return true };
            if holds {
                self.meet(frame);
            } else {
                self.tap.write(frame);
            }
        }
        false
    }

    fn meet(&mut self, frame: &[u8]) {
        let now_ns = monotonic_ns();
        let wire_bytes = wire_bytes(frame, self.l2_len);
        let held_bytes = self.store.wire_bytes;
        let due_ns = match self.timing.fate(Packet { now_ns, wire_bytes, held_bytes }) {
            Fate::At(due_ns) => due_ns,
            Fate::Lost => return,
        };
        if due_ns <= now_ns || !self.store.hold(due_ns, wire_bytes, frame) {
            self.tap.write(frame);
        }
    }

    /// Sends on what is due by then; when the next is.
    fn release(&mut self, by_ns: u64) -> Option<u64> {
        while let Some(frame) = self.store.take(by_ns) {
            self.tap.write(&frame);
        }
        self.store.next_ns()
    }

    /// Until a packet comes, the next is nearly due, or something is told.
    fn wait(&self, next_ns: Option<u64>) {
        let left_ns = next_ns.map(|next_ns| next_ns.saturating_sub(monotonic_ns() + EARLY_NS));
        if left_ns == Some(0) {
            std::hint::spin_loop();
            return;
        }
        let timeout = left_ns.map(|left_ns| Timespec {
            tv_sec: i64::try_from(left_ns / SECOND_NS).unwrap_or(1),
            tv_nsec: i64::try_from(left_ns % SECOND_NS).unwrap_or(0),
        });
        let bell = &self.control.bell;
        let mut fds = [
            PollFd::from_borrowed_fd(self.tap.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN),
        ];
        let _ = poll(&mut fds, timeout.as_ref());
        if fds[1].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }
}

/// From the network header on, of all segments that the frame becomes: `gso_type`, `hdr_len` and `gso_size` of `struct virtio_net_hdr`.
fn wire_bytes(frame: &[u8], l2_len: u64) -> u64 {
    let len = (frame.len().saturating_sub(HEADER_LEN) as u64).saturating_sub(l2_len);
    let word = |at: usize| match frame.get(at..at + 2) {
        Some(&[low, high]) => u64::from(u16::from_ne_bytes([low, high])),
        _ => 0,
    };
    let is_one = frame.get(1).is_none_or(|kind| *kind == 0);
    let (headers, size) = (word(2).saturating_sub(l2_len), word(4));
    if is_one || size == 0 || headers > len {
        return len;
    }
    let segments = (len - headers).div_ceil(size).max(1);
    len + (segments - 1) * headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_on_the_wire_count_the_headers_of_each_segment() {
        let mut frame = vec![0; HEADER_LEN + 14 + 40 + 3000];
        assert_eq!(wire_bytes(&frame, 14), 3040);
        frame[1] = 1;
        frame[2..4].copy_from_slice(&54_u16.to_ne_bytes());
        frame[4..6].copy_from_slice(&1000_u16.to_ne_bytes());
        assert_eq!(wire_bytes(&frame, 14), 3040 + 2 * 40);
        assert_eq!(wire_bytes(&[], 14), 0);
        assert_eq!(wire_bytes(&frame[..20], 14), 0);
    }

    #[test]
    fn what_is_held_comes_by_time_and_equals_as_they_came() {
        let mut store = Store::new(9, 100);
        for (due_ns, name) in [(5, b"a"), (3, b"b"), (5, b"c"), (3, b"d"), (8, b"e")] {
            assert!(store.hold(due_ns, 1, name));
        }
        let came: Vec<u8> = std::iter::from_fn(|| store.take(7)).map(|frame| frame[0]).collect();
        assert_eq!(came, *b"bdac");
        assert_eq!((store.next_ns(), store.bytes, store.wire_bytes), (Some(8), 1, 1));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut few = Store::new(2, 100);
        assert!(few.hold(1, 1, b"a") && few.hold(1, 1, b"b"));
        assert!(!few.hold(1, 1, b"c"), "one too many");
        assert!(few.take(1).is_some());
        assert!(few.hold(1, 1, b"c"), "there is room again");
        let mut small = Store::new(9, 10);
        assert!(small.hold(1, 1, &[0; 10]));
        assert!(!small.hold(1, 1, &[0; 1]), "a byte too many");
    }
}
