//! Futures over operations and timers.
//!
//! Invariants: an entry lives until both its future is gone and its operation has ended; an
//! abandoned operation is cancelled, and what it hands back is dropped when it ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{KIND_FUTURE, KIND_SHIFT, ShardCx};
use crate::driver::{Completion, Op, OpId};
use crate::exec::timer::TimerId;

#[derive(Debug)]
enum State {
    Free,
    Waiting(Option<Waker>),
    Done(Box<Completion>),
    Abandoned,
}

/// Operations that tasks wait for.
#[derive(Debug, Default)]
pub(super) struct OpTable {
    entries: Vec<(u32, State)>,
    free: Vec<u32>,
}

const GENERATION_MASK: u32 = 0xff_ffff;

const fn local(index: u32, generation: u32) -> u64 {
    (generation as u64) << 32 | index as u64
}

impl OpTable {
    fn insert(&mut self) -> u64 {
        if let Some(index) = self.free.pop() {
            let (generation, state) = &mut self.entries[index as usize];
            *state = State::Waiting(None);
            return local(index, *generation);
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 operations");
        self.entries.push((0, State::Waiting(None)));
        local(index, 0)
    }

    fn state(&mut self, key: u64) -> Option<&mut State> {
        let entry = self.entries.get_mut((key & 0xffff_ffff) as usize)?;
        (u64::from(entry.0) == key >> 32).then_some(&mut entry.1)
    }

    fn remove(&mut self, key: u64) {
        let index = (key & 0xffff_ffff) as u32;
        if let Some((generation, state)) = self.entries.get_mut(index as usize) {
            *generation = (*generation + 1) & GENERATION_MASK;
            *state = State::Free;
            self.free.push(index);
        }
    }

    /// Stores the last completion of an operation; the task to wake, if one waits.
    pub(super) fn complete(&mut self, key: u64, completion: Completion) -> Option<Waker> {
        if completion.more {
            return None;
        }
        match self.state(key)? {
            State::Abandoned => {
                self.remove(key);
                None
            }
            state => match std::mem::replace(state, State::Done(Box::new(completion))) {
                State::Waiting(waker) => waker,
                _ => None,
            },
        }
    }
}

/// An operation in flight; resolves to its completion.
#[must_use = "dropping it cancels the operation"]
pub struct Pending {
    cx: ShardCx,
    key: u64,
    op: OpId,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({:?})", self.op)
    }
}

impl Pending {
    pub(super) fn new(cx: &ShardCx, op: Op) -> Self {
        let key = cx.0.ops.borrow_mut().insert();
        let op = cx.0.driver.borrow_mut().submit(KIND_FUTURE << KIND_SHIFT | key, op);
        Self { cx: cx.clone(), key, op }
    }
}

impl Future for Pending {
    type Output = Completion;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Completion> {
        let mut ops = self.cx.0.ops.borrow_mut();
        let state = ops.state(self.key).expect("polled after completion");
        match std::mem::replace(state, State::Free) {
            State::Done(completion) => {
                ops.remove(self.key);
                Poll::Ready(*completion)
            }
            _ => {
                *state = State::Waiting(Some(task.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut ops = self.cx.0.ops.borrow_mut();
        let Some(state) = ops.state(self.key) else { return };
        let completed = match std::mem::replace(state, State::Abandoned) {
            State::Done(completion) => Some(completion),
            _ => None,
        };
        if completed.is_some() {
            ops.remove(self.key);
        }
        drop(ops);
        if completed.is_none() {
            self.cx.submit_ignored(Op::Cancel { target: self.op });
        }
    }
}

/// Tasks that wait for a timer.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    entries: Vec<(u32, bool, Option<Waker>)>,
    free: Vec<u32>,
}

impl Sleepers {
    fn insert(&mut self) -> u64 {
        if let Some(index) = self.free.pop() {
            let (generation, fired, waker) = &mut self.entries[index as usize];
            (*fired, *waker) = (false, None);
            return local(index, *generation);
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 sleepers");
        self.entries.push((0, false, None));
        local(index, 0)
    }

    fn entry(&mut self, key: u64) -> Option<&mut (u32, bool, Option<Waker>)> {
        let entry = self.entries.get_mut((key & 0xffff_ffff) as usize)?;
        (u64::from(entry.0) == key >> 32).then_some(entry)
    }

    fn remove(&mut self, key: u64) {
        if let Some((generation, _, waker)) = self.entry(key) {
            *generation = (*generation + 1) & GENERATION_MASK;
            *waker = None;
            self.free.push((key & 0xffff_ffff) as u32);
        }
    }

    pub(super) fn fire(&mut self, key: u64) -> Option<Waker> {
        let (_, fired, waker) = self.entry(key)?;
        *fired = true;
        waker.take()
    }
}

/// Resolves at its deadline.
#[must_use = "does nothing unless awaited"]
pub struct Sleep {
    cx: ShardCx,
    key: u64,
    timer: TimerId,
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}

impl Sleep {
    pub(super) fn new(cx: &ShardCx, deadline_ns: u64) -> Self {
        let key = cx.0.sleepers.borrow_mut().insert();
        let token = KIND_FUTURE << KIND_SHIFT | key;
        let timer = cx.0.timers.borrow_mut().insert(deadline_ns, token);
        Self { cx: cx.clone(), key, timer }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let mut sleepers = self.cx.0.sleepers.borrow_mut();
        match sleepers.entry(self.key) {
            Some((_, false, waker)) => {
                *waker = Some(task.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cx.cancel_timer(self.timer);
        self.cx.0.sleepers.borrow_mut().remove(self.key);
    }
}
