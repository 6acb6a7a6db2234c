//! The shard's turn, and how it sleeps.

use std::hint;
use std::iter;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Handler, KIND_FUTURE, KIND_IGNORE, KIND_SHIFT, LOCAL_MASK, ShardCx};
use crate::driver::{Completion, DriverStats};
use crate::exec::{STALL_NS, Stall};

/// Counters of a shard since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Times the shard slept.
    pub sleeps: u64,
    /// Times spinning found work before the sleep.
    pub spins_won: u64,
    /// Polls and turns longer than the stall limit.
    pub stalls: u64,
    /// The longest of them.
    pub stall_max_ns: u64,
}

/// Completions of a group.
const GROUP: usize = 32;

/// How often a finished shard looks whether the others have finished too.
const STOP_POLL_NS: u64 = 1_000_000;

/// What a shard waits for after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// There is more to do now.
    Busy,
    /// Nothing until a completion, a bell, or this time on the monotonic clock.
    Until(Option<u64>),
    /// Stopped, with nothing left to finish.
    Stopped,
}

impl ShardCx {
    /// Makes this the shard whose wakers work on this thread. The simulation calls it before each
    /// shard's turn.
    pub fn enter(&self) {
        self.0.executor.enter();
    }

    /// Ends what [`ShardCx::enter`] began: keeps the tasks that were woken, so that another shard
    /// may be entered on this thread.
    pub fn leave(&self) {
        self.0.executor.leave();
    }

    /// Announces the sleep to every handler; whether the shard may sleep. Either way
    /// [`ShardCx::unpark`] follows, after the sleep if there is one.
    #[must_use = "sleeping after `false` loses a wake-up"]
    pub fn park(&self) -> bool {
        let handlers = Rc::clone(&self.0.handlers.borrow());
        let may_sleep = handlers.iter().all(|handler| handler.park());
        self.tally(|stats| stats.sleeps += u64::from(may_sleep));
        may_sleep
    }

    /// The counterpart of [`ShardCx::park`].
    pub fn unpark(&self) {
        let handlers = Rc::clone(&self.0.handlers.borrow());
        handlers.iter().for_each(|handler| handler.unpark());
        self.0.driver.borrow_mut().take_rung();
    }

    /// Counters of the loop.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        self.0.stats.get()
    }

    /// Counters of the driver.
    #[must_use]
    pub fn driver_stats(&self) -> DriverStats {
        self.0.driver.borrow().stats()
    }

    /// One turn without waiting.
    pub fn turn(&self) -> Idle {
        self.turn_picking(|_| 0)
    }

    /// One turn in which `pick` chooses among the ready tasks (see `Executor::run`).
    pub fn turn_picking(&self, pick: impl FnMut(usize) -> usize) -> Idle {
        let start = self.0.driver.borrow().now();
        self.0.now.set(start);
        self.tally(|stats| stats.turns += 1);
        self.dispatch_completions();
        self.fire_timers(start.mono_ns);
        let handlers = Rc::clone(&self.0.handlers.borrow());
        let mut more = false;
        for handler in handlers.iter() {
            more |= handler.on_turn();
        }
        if self.0.executor.has_ready() {
            self.0.executor.run(
                self.0.config.polls_max,
                pick,
                || self.0.driver.borrow().mono_ns(),
                |stall| self.report(stall),
            );
        }
        handlers.iter().for_each(|handler| handler.end_turn());
        let ended_ns = self.0.driver.borrow().mono_ns();
        self.0.ended_ns.set(ended_ns);
        let duration_ns = ended_ns.saturating_sub(start.mono_ns);
        if duration_ns > STALL_NS {
            self.report(Stall { task: "turn", duration_ns });
        }
        if more || self.0.executor.has_ready() {
            return Idle::Busy;
        }
        if self.is_stopping() && handlers.iter().all(|handler| handler.is_stopped()) {
            return Idle::Stopped;
        }
        Idle::Until(self.0.timers.borrow().next_deadline())
    }

    fn tally(&self, change: impl FnOnce(&mut ShardStats)) {
        let mut stats = self.0.stats.get();
        change(&mut stats);
        self.0.stats.set(stats);
    }

    fn report(&self, stall: Stall) {
        self.tally(|stats| {
            stats.stalls += 1;
            stats.stall_max_ns = stats.stall_max_ns.max(stall.duration_ns);
        });
        self.0.log.warn(
            "shard",
            self.now(),
            "stall",
            &[
                ("shard", &self.0.index),
                ("task", &stall.task),
                ("ms", &(stall.duration_ns / 1_000_000)),
            ],
        );
    }

    /// Hands completions over in groups, so that the cache misses of one group overlap: a group of
    /// requests over as many connections then waits for memory about once.
    fn dispatch_completions(&self) {
        let mut group = self.0.group.take();
        loop {
            group
                .extend(iter::from_fn(|| self.0.driver.borrow_mut().next_completion()).take(GROUP));
            if group.len() > 1 {
                self.foresee(&group);
            }
            let last = group.len() < GROUP;
            group.drain(..).for_each(|completion| self.dispatch(completion));
            if last {
                break;
            }
        }
        self.0.group.replace(group);
    }

    fn foresee(&self, group: &[Completion]) {
        let handlers = self.0.handlers.borrow();
        for completion in group {
            // Futures and ignored operations have no handler.
            let kind = (completion.token >> KIND_SHIFT) as usize;
            if let Some(handler) = kind.checked_sub(1).and_then(|kind| handlers.get(kind)) {
                handler.foresee(completion.token & LOCAL_MASK, completion);
            }
        }
        handlers.iter().for_each(|handler| handler.foreseen());
    }

    fn dispatch(&self, completion: Completion) {
        let local = completion.token & LOCAL_MASK;
        match completion.token >> KIND_SHIFT {
            KIND_FUTURE => {
                let waker = self.0.ops.borrow_mut().complete(local, completion);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            KIND_IGNORE => {}
            kind => {
                let handler = self.0.handlers.borrow().get(kind as usize - 1).cloned();
                if let Some(handler) = handler {
                    handler.on_completion(local, completion);
                }
            }
        }
    }

    fn fire_timers(&self, now_ns: u64) {
        let due = self.0.timers.borrow().next_deadline();
        if due.is_none_or(|due| due > now_ns) {
            return;
        }
        let mut fired = Vec::new();
        let max = self.0.config.timers_max;
        self.0.timers.borrow_mut().advance(now_ns, max, |key| fired.push(key));
        for key in fired {
            match key >> KIND_SHIFT {
                KIND_FUTURE => {
                    let waker = self.0.sleepers.borrow_mut().fire(key & LOCAL_MASK);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                kind => {
                    let handler = self.0.handlers.borrow().get(kind as usize - 1).cloned();
                    if let Some(handler) = handler {
                        handler.on_timer(key & LOCAL_MASK);
                    }
                }
            }
        }
    }

    /// Runs turns until [`ShardCx::stop`] and everything is finished, here and on the other
    /// shards, of which `unfinished` counts those that are not; then drops all tasks.
    pub fn run(&self, unfinished: &AtomicUsize) {
        self.enter();
        let mut finished = false;
        loop {
            match self.turn() {
                Idle::Busy => self.0.driver.borrow_mut().turn(false, None),
                Idle::Until(deadline) => self.wait(deadline),
                Idle::Stopped => {
                    if !std::mem::replace(&mut finished, true) {
                        unfinished.fetch_sub(1, Ordering::AcqRel);
                    }
                    if unfinished.load(Ordering::Acquire) == 0 {
                        break;
                    }
                    // Others may still need answers from here.
                    self.wait(Some(self.now().mono_ns + STOP_POLL_NS));
                }
            }
        }
        self.clear();
    }

    /// Drops every task and every handler, as at the end of [`ShardCx::run`]; whoever drives the
    /// turns calls it before the shard is dropped, because tasks hold handles of it.
    pub fn clear(&self) {
        self.0.executor.clear();
        *self.0.handlers.borrow_mut() = Rc::from([]);
    }

    fn wait(&self, deadline_ns: Option<u64>) {
        let handlers = Rc::clone(&self.0.handlers.borrow());
        let before_ns = self.now().mono_ns;
        let budget_ns = self.0.config.spin_ns;
        if budget_ns > 0 && self.0.gap_ns.get() < budget_ns {
            self.0.driver.borrow_mut().turn(false, None);
            if self.spin(&handlers, budget_ns) {
                self.tally(|stats| stats.spins_won += 1);
                self.0.driver.borrow_mut().turn(false, None);
                self.learn_gap(before_ns);
                return;
            }
            self.0.ended_ns.set(self.0.driver.borrow().mono_ns());
        }
        if self.park() {
            let ended_ns = self.0.ended_ns.get();
            let timeout_ns = deadline_ns.map(|deadline| deadline.saturating_sub(ended_ns));
            self.0.driver.borrow_mut().turn(true, timeout_ns);
        } else {
            self.0.driver.borrow_mut().turn(false, None);
        }
        self.unpark();
        if budget_ns > 0 {
            self.learn_gap(before_ns);
        }
    }

    /// Moving average of the time between running dry and having work again.
    fn learn_gap(&self, before_ns: u64) {
        let gap = self.0.driver.borrow().mono_ns().saturating_sub(before_ns);
        let average = self.0.gap_ns.get().min(1 << 40);
        self.0.gap_ns.set(average - average / 8 + gap / 8);
    }

    fn spin(&self, handlers: &[Rc<dyn Handler>], budget_ns: u64) -> bool {
        let start_ns = self.0.driver.borrow().mono_ns();
        loop {
            for _ in 0..32 {
                let mut driver = self.0.driver.borrow_mut();
                if driver.has_pending_events() {
                    return true;
                }
                drop(driver);
                if handlers.iter().any(|handler| handler.has_messages()) {
                    return true;
                }
                hint::spin_loop();
            }
            let spent_ns = self.0.driver.borrow().mono_ns() - start_ns;
            if spent_ns > budget_ns {
                return false;
            }
        }
    }
}
