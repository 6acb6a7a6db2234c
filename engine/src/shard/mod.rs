//! One shard: its driver, its tasks, its timers and the services that live on it, and the turn
//! that moves them all forward.
//!
//! A turn: collect completions and hand each to whoever submitted the operation (a service's
//! connection inline, or a waiting task), fire due timers, let the services do their work of the
//! turn, poll ready tasks, let the services send what those left; then one enter submits everything
//! the turn queued and waits if nothing is left to do. Invariants: no borrow of the driver is held
//! while a handler runs; every loop of a turn is bounded. Next: `run` for the loop and the sleep,
//! `mesh` for messages between shards, `net::server` for the handler that serves connections.

pub mod calls;
pub mod launch;
pub mod mesh;
mod ops;
mod report;
mod run;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use view::Instant;

use crate::driver::{Completion, Driver, Op, OpId, Token};
use crate::event::Log;
use crate::exec::Executor;
use crate::exec::timer::{TimerId, Wheel};
use crate::fs::Disk;
use crate::metrics::Registry;
use crate::rng::Rng;

pub use ops::{Pending, Sleep};
pub use report::Source;
pub use run::{Idle, ShardStats};

/// A service's part of the turn. Its operations carry tokens made by [`HandlerId::token`].
pub trait Handler {
    /// An operation submitted under `local` completed.
    fn on_completion(&self, local: u64, completion: Completion);

    /// A completion that will be handed over soon, after others of its group: a chance to load the
    /// memory it needs. Must not change anything.
    fn foresee(&self, _local: u64, _completion: &Completion) {}

    /// A group was foreseen; its first completion is handed over next.
    fn foreseen(&self) {}

    /// A timer set under `local` is due.
    fn on_timer(&self, local: u64);

    /// Once per turn, after completions. Returns whether work was left for the next turn, which
    /// then does not sleep.
    fn on_turn(&self) -> bool;

    /// The turn's tasks have run: a chance to send what they left for other shards.
    fn end_turn(&self) {}

    /// The shard wants to sleep: announces it to the senders of messages and looks once more.
    /// Returns whether nothing has arrived meanwhile.
    fn park(&self) -> bool {
        true
    }

    /// The shard woke up.
    fn unpark(&self) {}

    /// Whether messages wait; asked while spinning.
    fn has_messages(&self) -> bool {
        false
    }

    /// Orderly end: stop accepting, finish, flush.
    fn stop(&self);

    /// Whether nothing is left to finish.
    fn is_stopped(&self) -> bool;
}

/// How a shard behaves.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// Look for work this long before sleeping, while recent gaps are shorter than that; zero
    /// sleeps at once.
    pub spin_ns: u64,
    /// The slice its thread asks for, see [`crate::driver::slice`]; zero keeps the system's.
    pub slice_ns: u64,
    /// Tasks polled per turn.
    pub polls_max: usize,
    /// Timers fired per turn.
    pub timers_max: usize,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self { spin_ns: 0, slice_ns: 20_000_000, polls_max: 1024, timers_max: 1024 }
    }
}

/// A handle to the shard this code runs on. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct ShardCx(Rc<Inner>);

struct Inner {
    index: usize,
    count: usize,
    config: ShardConfig,
    driver: RefCell<Driver>,
    executor: Executor,
    timers: RefCell<Wheel>,
    ops: RefCell<ops::OpTable>,
    sleepers: RefCell<ops::Sleepers>,
    /// Replaced as a whole when one is added, so that a turn can hold it without a borrow.
    handlers: RefCell<Rc<[Rc<dyn Handler>]>>,
    /// Completions that are being handed over.
    group: RefCell<Vec<Completion>>,
    now: Cell<Instant>,
    /// When the last turn, or the spinning after it, ended.
    ended_ns: Cell<u64>,
    rng: RefCell<Rng>,
    log: Log,
    stopping: Cell<bool>,
    stats: Cell<ShardStats>,
    gap_ns: Cell<u64>,
    metrics: Registry,
    handles: report::Handles,
    sources: RefCell<Vec<Source>>,
    disk: Disk,
}

impl fmt::Debug for ShardCx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardCx({} of {})", self.0.index, self.0.count)
    }
}

/// The top byte of a token names the handler; these two are the shard's own.
const KIND_FUTURE: u64 = 0;
const KIND_IGNORE: u64 = 0xff;
const KIND_SHIFT: u32 = 56;
/// What is left of a token or a timer key for its owner.
pub const LOCAL_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl ShardCx {
    /// Shard `index` of `count` on `driver`.
    #[must_use]
    pub fn new(
        index: usize,
        count: usize,
        driver: Driver,
        config: ShardConfig,
        seed: u64,
        log: Log,
    ) -> Self {
        let now = driver.now();
        let metrics = Registry::new(u32::try_from(index).unwrap_or(u32::MAX));
        let handles = report::Handles::new(&metrics);
        let executor = Executor::new(u8::try_from(index).expect("at most 256 shards"));
        Self(Rc::new(Inner {
            index,
            count,
            config,
            driver: RefCell::new(driver),
            executor,
            timers: RefCell::new(Wheel::new(now.mono_ns)),
            ops: RefCell::default(),
            sleepers: RefCell::default(),
            handlers: RefCell::new(Rc::from([])),
            group: RefCell::default(),
            now: Cell::new(now),
            ended_ns: Cell::new(now.mono_ns),
            rng: RefCell::new(Rng::new(seed)),
            log,
            stopping: Cell::new(false),
            stats: Cell::default(),
            gap_ns: Cell::new(u64::MAX),
            metrics,
            handles,
            sources: RefCell::default(),
            disk: Disk::default(),
        }))
    }

    /// This shard's number, from zero.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// Shards in this process.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// Both clocks, as read at the start of the turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// The shard's source of randomness.
    #[must_use]
    pub fn rng(&self) -> std::cell::RefMut<'_, Rng> {
        self.0.rng.borrow_mut()
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// The driver; do not hold the borrow across anything that may call back.
    #[must_use]
    pub fn driver(&self) -> std::cell::RefMut<'_, Driver> {
        self.0.driver.borrow_mut()
    }

    /// What this shard's files have in flight.
    pub(crate) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// Starts a task of this shard.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(name, future);
    }

    /// Adds a service's handler; its number goes into its tokens.
    ///
    /// # Panics
    /// After 254 handlers.
    pub fn add_handler(&self, handler: Rc<dyn Handler>) -> HandlerId {
        let mut handlers = self.0.handlers.borrow_mut();
        *handlers = handlers.iter().cloned().chain([handler]).collect();
        assert!(handlers.len() < KIND_IGNORE as usize, "at most 254 handlers");
        HandlerId(handlers.len() as u64)
    }

    /// Submits an operation on behalf of a handler.
    pub fn submit(&self, token: Token, op: Op) -> OpId {
        self.0.driver.borrow_mut().submit(token, op)
    }

    /// Submits an operation whose result nobody needs.
    pub fn submit_ignored(&self, op: Op) {
        self.0.driver.borrow_mut().submit(KIND_IGNORE << KIND_SHIFT, op);
    }

    /// Submits an operation and waits for its (last) completion. Dropping the future cancels it;
    /// its buffers live on until the kernel is done with them.
    pub fn perform(&self, op: Op) -> Pending {
        Pending::new(self, op)
    }

    /// Waits until `deadline_ns` on the monotonic clock.
    pub fn sleep_until(&self, deadline_ns: u64) -> Sleep {
        Sleep::new(self, deadline_ns)
    }

    /// Waits `duration_ns`.
    pub fn sleep(&self, duration_ns: u64) -> Sleep {
        self.sleep_until(self.now().mono_ns.saturating_add(duration_ns))
    }

    /// What long work in the background calls between its steps: others go first, and when they had much to do, the
    /// work stands back for as long again, so that it takes part of what they leave and not all of it. How long
    /// the turn was, with the step before this call, ns.
    pub async fn give_way(&self) -> u64 {
        let before = self.now().mono_ns;
        crate::exec::sync::yield_now().await;
        let took_ns = self.now().mono_ns.saturating_sub(before);
        if took_ns > CALM_TURN_NS {
            self.sleep(took_ns.min(STAND_BACK_MAX_NS)).await;
        }
        took_ns
    }

    /// Sets a timer of a handler.
    pub fn set_timer(&self, handler: HandlerId, deadline_ns: u64, local: u64) -> TimerId {
        self.0.timers.borrow_mut().insert(deadline_ns, handler.token(local))
    }

    /// Takes a timer back; false when it has fired.
    pub fn cancel_timer(&self, timer: TimerId) -> bool {
        self.0.timers.borrow_mut().cancel(timer)
    }

    /// Whether the shard is coming to its orderly end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.get()
    }

    /// Begins the orderly end: every handler stops accepting, finishes and flushes.
    pub fn stop(&self) {
        if !self.0.stopping.replace(true) {
            let handlers = Rc::clone(&self.0.handlers.borrow());
            handlers.iter().for_each(|handler| handler.stop());
        }
    }

    /// Tasks alive.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.0.executor.live()
    }
}

/// A turn shorter than this left the shard idle, or nearly.
const CALM_TURN_NS: u64 = 100_000;
/// Longest that background work stands back at a time.
const STAND_BACK_MAX_NS: u64 = 2_000_000;

/// Names a handler of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerId(u64);

impl HandlerId {
    /// No handler; its operations complete unseen.
    #[must_use]
    pub(crate) const fn unset() -> Self {
        Self(KIND_IGNORE)
    }

    /// A token that comes back to this handler with `local`, of which 56 bits count.
    #[must_use]
    pub const fn token(self, local: u64) -> Token {
        self.0 << KIND_SHIFT | (local & LOCAL_MASK)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::exec::sync::yield_now;
    use crate::fs::testing::on_ring;

    #[expect(
        clippy::disallowed_methods,
        reason = "to stop the shard is what the other task is for"
    )]
    #[test]
    fn work_in_the_background_stands_back_for_as_long_as_others_took() {
        const BUSY: Duration = Duration::from_millis(1);
        on_ring(|cx| async move {
            cx.spawn("busy", async {
                for _ in 0..4 {
                    std::thread::sleep(BUSY);
                    yield_now().await;
                }
            });
            yield_now().await;
            let before_ns = cx.now().mono_ns;
            let took_ns = cx.give_way().await;
            let passed_ns = cx.now().mono_ns - before_ns;
            assert!(took_ns >= 1_000_000, "{took_ns}");
            assert!(passed_ns >= took_ns + took_ns.min(super::STAND_BACK_MAX_NS), "{passed_ns}");
        });
    }
}
