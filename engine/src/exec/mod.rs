//! The executor of one shard: tasks that are not `Send`, a ready list, timers, and the detector of
//! polls that take too long.
//!
//! Invariants: a task is polled by its own shard only, at most once per time it was woken; a turn
//! polls a bounded number of tasks. Next: `waker` for how waking works, `timer` for the wheel,
//! `sync` for waiting between tasks, `shard` for the loop that drives all this.

pub mod sync;
pub mod timer;
mod waker;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use waker::TaskId;

/// Polls longer than this are reported.
pub const STALL_NS: u64 = 5_000_000;
/// A turn polls no further task when its polls have taken this much together; the others are first in the next.
const POLLS_NS: u64 = 2_000_000;

type BoxFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    /// `None` while it is being polled.
    future: Option<BoxFuture>,
    name: &'static str,
    generation: u32,
    live: bool,
}

/// A poll that took too long.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// The task's name.
    pub task: &'static str,
    /// How long it held the shard.
    pub duration_ns: u64,
}

/// The tasks of one shard.
pub struct Executor {
    shard: u8,
    tasks: RefCell<Vec<Task>>,
    free: RefCell<Vec<u32>>,
    ready: RefCell<Vec<TaskId>>,
    live: Cell<usize>,
    polls: Cell<u64>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executor(shard {}, {} tasks)", self.shard, self.live.get())
    }
}

impl Executor {
    /// An executor without tasks.
    #[must_use]
    pub fn new(shard: u8) -> Self {
        Self {
            shard,
            tasks: RefCell::default(),
            free: RefCell::default(),
            ready: RefCell::default(),
            live: Cell::new(0),
            polls: Cell::new(0),
        }
    }

    /// Makes this the executor whose wakers work on this thread.
    pub fn enter(&self) {
        waker::enter(self.shard);
    }

    /// Keeps the tasks woken on this thread, before another executor is entered on it.
    pub fn leave(&self) {
        waker::take_ready(&mut self.ready.borrow_mut());
    }

    /// Starts a task; it is polled in this turn or the next.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        let future: BoxFuture = Box::pin(future);
        let mut tasks = self.tasks.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                let task = &mut tasks[index as usize];
                task.future = Some(future);
                task.name = name;
                task.live = true;
                index
            }
            None => {
                let index = u32::try_from(tasks.len()).expect("fewer than 2^32 tasks");
                tasks.push(Task { future: Some(future), name, generation: 0, live: true });
                index
            }
        };
        let id = TaskId::new(self.shard, tasks[index as usize].generation, index);
        self.live.set(self.live.get() + 1);
        self.ready.borrow_mut().push(id);
    }

    /// Tasks that have not finished.
    pub const fn live(&self) -> usize {
        self.live.get()
    }

    /// Polls since the start.
    pub const fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Whether a task waits to be polled.
    pub fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty() || !waker::is_empty()
    }

    /// Polls at most `max` of the tasks ready now, and none any more after [`POLLS_NS`], in the order `pick` gives (it is handed the
    /// number of candidates and names one; the real shard always takes the first). `clock_ns`
    /// is read around each poll for the stall report.
    pub fn run(
        &self,
        max: usize,
        mut pick: impl FnMut(usize) -> usize,
        clock_ns: impl Fn() -> u64,
        mut on_stall: impl FnMut(Stall),
    ) {
        let mut batch = std::mem::take(&mut *self.ready.borrow_mut());
        waker::take_ready(&mut batch);
        let begun = clock_ns();
        let mut before = begun;
        let mut polled = 0;
        let mut start = 0;
        while start < batch.len() && polled < max && before.saturating_sub(begun) < POLLS_NS {
            let chosen = start + pick(batch.len() - start).min(batch.len() - start - 1);
            batch.swap(start, chosen);
            let id = batch[start];
            start += 1;
            if let Some(name) = self.poll(id) {
                polled += 1;
                let after = clock_ns();
                if after.saturating_sub(before) > STALL_NS {
                    on_stall(Stall { task: name, duration_ns: after - before });
                }
                before = after;
            }
        }
        let mut ready = self.ready.borrow_mut();
        let rest = batch.split_off(start);
        ready.splice(0..0, rest);
        if ready.is_empty() {
            batch.clear();
            *ready = batch;
        }
    }

    /// Polls one task; its name, unless it has ended or is being polled already.
    fn poll(&self, id: TaskId) -> Option<&'static str> {
        let (mut future, name) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(id.index())?;
            if !task.live || task.generation != id.generation() {
                return None;
            }
            (task.future.take()?, task.name)
        };
        self.polls.set(self.polls.get() + 1);
        let waker = waker::waker(id);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.tasks.borrow_mut();
        let task = &mut tasks[id.index()];
        match polled {
            Poll::Pending => task.future = Some(future),
            Poll::Ready(()) => {
                task.live = false;
                task.generation = (task.generation + 1) & 0xff_ffff;
                self.free.borrow_mut().push(u32::try_from(id.index()).unwrap_or(u32::MAX));
                self.live.set(self.live.get() - 1);
                drop(tasks);
                // Destructors may spawn or wake.
                drop(future);
            }
        }
        Some(name)
    }

    /// Drops every task, for an orderly end: their destructors cancel what they have in flight.
    pub fn clear(&self) {
        loop {
            let mut tasks = self.tasks.borrow_mut();
            let Some(task) = tasks.iter_mut().find(|task| task.live) else { break };
            task.live = false;
            let future = task.future.take();
            self.live.set(self.live.get() - 1);
            drop(tasks);
            drop(future);
        }
        let mut stale = Vec::new();
        waker::take_ready(&mut stale);
        self.ready.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn run(executor: &Executor) {
        executor.run(usize::MAX, |_| 0, || 0, |_| {});
    }

    #[test]
    fn a_task_is_polled_when_woken_and_only_then() {
        let executor = Executor::new(3);
        executor.enter();
        let gate = Rc::new(sync::Notify::default());
        let polls = Rc::new(Cell::new(0));
        let (waiting, count) = (Rc::clone(&gate), Rc::clone(&polls));
        executor.spawn("waiter", async move {
            count.set(1);
            waiting.notified().await;
            count.set(2);
        });
        run(&executor);
        run(&executor);
        assert_eq!((polls.get(), executor.live()), (1, 1));
        gate.notify_all();
        run(&executor);
        assert_eq!((polls.get(), executor.live()), (2, 0));
    }

    #[test]
    fn turns_come_one_at_a_time_in_order_and_who_goes_away_holds_up_nobody() {
        let executor = Executor::new(3);
        executor.enter();
        let turns = Rc::new(sync::Turns::default());
        let said = Rc::new(RefCell::new(String::new()));
        let task = |name: char| {
            let (turns, said) = (Rc::clone(&turns), Rc::clone(&said));
            async move {
                let _turn = turns.turn().await;
                said.borrow_mut().push(name);
                sync::yield_now().await;
                said.borrow_mut().push(name);
            }
        };
        executor.spawn("first", task('a'));
        let goes_away = task('b');
        executor.spawn("goes away", async move {
            let mut waiting = Box::pin(goes_away);
            std::future::poll_fn(|cx| {
                assert!(waiting.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        });
        executor.spawn("second", task('c'));
        executor.spawn("third", task('d'));
        for _ in 0..10 {
            run(&executor);
        }
        assert_eq!((said.borrow().as_str(), executor.live()), ("aaccdd", 0));
    }

    #[test]
    fn the_poll_bound_leaves_the_rest_for_the_next_turn() {
        let executor = Executor::new(0);
        executor.enter();
        let done = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let done = Rc::clone(&done);
            executor.spawn("one", async move { done.set(done.get() + 1) });
        }
        executor.run(4, |_| 0, || 0, |_| {});
        assert_eq!(done.get(), 4);
        assert!(executor.has_ready());
        run(&executor);
        assert_eq!(done.get(), 10);
        assert!(!executor.has_ready());
    }

    #[test]
    fn many_small_polls_make_no_long_turn() {
        let executor = Executor::new(0);
        executor.enter();
        let (clock, done) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0)));
        for _ in 0..10 {
            let (tick, done) = (Rc::clone(&clock), Rc::clone(&done));
            executor.spawn("worker", async move {
                tick.set(tick.get() + POLLS_NS / 4);
                done.set(done.get() + 1);
            });
        }
        for turn in [4, 8, 10] {
            executor.run(100, |_| 0, || clock.get(), |_| {});
            assert_eq!(done.get(), turn);
        }
        assert!(!executor.has_ready());
    }

    #[test]
    fn a_slow_poll_is_reported_with_its_name() {
        let executor = Executor::new(0);
        executor.enter();
        let clock = Rc::new(Cell::new(0_u64));
        let tick = Rc::clone(&clock);
        executor.spawn("hog", async move { tick.set(tick.get() + STALL_NS + 1) });
        let mut stalls = Vec::new();
        executor.run(1, |_| 0, || clock.get(), |stall| stalls.push(stall.task));
        assert_eq!(stalls, ["hog"]);
    }

    #[test]
    #[should_panic(expected = "was woken on shard 1")]
    fn a_wake_up_on_a_foreign_shard_is_an_error() {
        let executor = Executor::new(0);
        executor.enter();
        let gate = Rc::new(sync::Notify::default());
        let waiting = Rc::clone(&gate);
        executor.spawn("waiter", async move { waiting.notified().await });
        run(&executor);
        Executor::new(1).enter();
        gate.notify_all();
    }
}
