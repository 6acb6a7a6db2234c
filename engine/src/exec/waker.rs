//! Wakers without a heap node, a reference count or an atomic: a task's place is encoded in the
//! waker's data word, and waking pushes it on the thread's ready list.
//!
//! Invariants: the ready list of a thread belongs to the shard entered last ([`enter`]); a waker
//! is used on its own shard only, which is asserted because a wake-up sent elsewhere is lost.

#![expect(unsafe_code, reason = "`Waker::from_raw` is the only way to make one")]

use std::cell::RefCell;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// Names a task: shard (8 bits), generation (24), index (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskId(pub(super) u64);

impl TaskId {
    pub(super) const fn new(shard: u8, generation: u32, index: u32) -> Self {
        Self((shard as u64) << 56 | ((generation & 0xff_ffff) as u64) << 32 | index as u64)
    }

    pub(super) const fn index(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    pub(super) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    const fn shard(self) -> u8 {
        (self.0 >> 56) as u8
    }
}

#[derive(Debug, Default)]
struct Ready {
    shard: u8,
    tasks: Vec<TaskId>,
}

thread_local! {
    static READY: RefCell<Ready> = const { RefCell::new(Ready { shard: 0, tasks: Vec::new() }) };
}

/// Makes `shard` the one whose tasks this thread wakes. On a real shard's thread it is called
/// once; the simulation calls it around each shard's turn, when the list is empty.
pub(super) fn enter(shard: u8) {
    READY.with_borrow_mut(|ready| ready.shard = shard);
}

/// Moves the ready tasks to the back of `into`, oldest first.
pub(super) fn take_ready(into: &mut Vec<TaskId>) {
    READY.with_borrow_mut(|ready| into.append(&mut ready.tasks));
}

/// Whether any task is ready.
pub(super) fn is_empty() -> bool {
    READY.with_borrow(|ready| ready.tasks.is_empty())
}

pub(super) fn waker(task: TaskId) -> Waker {
    // SAFETY: the functions of VTABLE use the data word as a number, hold no resource, and touch
    // only thread-local state, so they may be called from any thread any number of times.
    unsafe { Waker::from_raw(raw(task)) }
}

const fn raw(task: TaskId) -> RawWaker {
    // The word is 64 bits on every platform with io_uring that is supported here.
    RawWaker::new(ptr::without_provenance(task.0 as usize), &VTABLE)
}

const _: () = assert!(usize::BITS == 64);

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, drop_nothing);

fn clone(data: *const ()) -> RawWaker {
    raw(TaskId(data.addr() as u64))
}

fn wake(data: *const ()) {
    let task = TaskId(data.addr() as u64);
    READY.with_borrow_mut(|ready| {
        assert!(
            ready.shard == task.shard(),
            "a task of shard {} was woken on shard {}: wake-ups between shards go by message",
            task.shard(),
            ready.shard
        );
        ready.tasks.push(task);
    });
}

const fn drop_nothing(_: *const ()) {}
