//! Somebody who rewrites the log, switches it off and on, and saves dumps beside the load, and what is promised
//! meanwhile.
//!
//! Next: `course` for where promises are called in.

use engine::rng::Rng;
use wire::resp::Reply;

use super::peer::Common;
use super::setup::{Doors, Keep, Setup};
use super::wire::Wire;

/// How much the log may lose with `everysec`: a second, and how long the disk takes at worst.
const EVERY_SECOND_NS: u64 = 2_000_000_000;
/// How often INFO is asked.
const POLL_NS: u64 = 30_000_000;
/// After so long without the log going on it is asked for again.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Which replies tell of what is there after a crash.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    keep: Keep,
    disk_fails: bool,
    /// The log is on, with a base that counts.
    live: bool,
    /// Replies until then.
    sure_ns: u64,
}

impl Promise {
    pub(super) fn new(setup: &Setup) -> Self {
        let live = setup.keep != Keep::Dumps;
        Self { keep: setup.keep, disk_fails: setup.disk_fails(), live, sure_ns: 0 }
    }

    /// Replies until when tell of what is there, were the machine to stop now.
    pub(super) fn sure_ns(&self, now_ns: u64) -> u64 {
        let by_log = match self.keep {
            _ if !self.live => 0,
            Keep::Always => now_ns,
            Keep::EverySecond if !self.disk_fails => now_ns.saturating_sub(EVERY_SECOND_NS),
            Keep::EverySecond | Keep::No | Keep::Dumps => 0,
        };
        by_log.max(self.sure_ns)
    }

    /// Whether nothing is seen that may be lost.
    pub(super) fn is_strict(&self) -> bool {
        self.live && self.keep == Keep::Always
    }

    /// The machine was stopped in order: the log is whole.
    pub(super) fn stopped(&mut self, now_ns: u64) {
        if self.live {
            self.sure_ns = now_ns;
        }
    }

    /// The machine runs anew, and what it has was looked at.
    pub(super) fn begin(&mut self) {
        self.live = self.keep != Keep::Dumps;
        self.sure_ns = 0;
    }

    /// A crash while nobody had looked yet: what held before holds.
    fn off(&mut self, now_ns: u64) {
        self.sure_ns = self.sure_ns(now_ns);
        self.live = false;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Idle,
    Rewrite,
    /// Until INFO says that it is off.
    Off,
    /// Between off and on.
    Pause,
    /// Since when; until INFO says that it is on.
    On(u64),
    Save(u64),
    /// Since when; until INFO says that it is done.
    Background(u64),
}

/// The one who does it.
pub(super) struct Admin {
    wire: Option<Wire>,
    task: Task,
    /// A reply is owed, and whether it is INFO's.
    owed: Option<bool>,
    pub(super) promise: Promise,
    pub(super) is_off: bool,
    pub(super) rests: bool,
    pub(super) wake_ns: u64,
}

impl Admin {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            wire: None,
            task: Task::Idle,
            owed: None,
            promise: Promise::new(setup),
            is_off: true,
            rests: false,
            wake_ns: u64::MAX,
        }
    }

    pub(super) fn crashed(&mut self) {
        (self.wire, self.owed, self.task) = (None, None, Task::Idle);
        (self.is_off, self.wake_ns) = (true, u64::MAX);
    }

    pub(super) fn begin(&mut self) {
        self.promise.begin();
        (self.is_off, self.wake_ns) = (false, 0);
    }

    /// Whether it has nothing under way.
    pub(super) fn is_idle(&self) -> bool {
        self.task == Task::Idle
    }

    pub(super) fn act(
        &mut self,
        common: &mut Common<'_>,
        rng: &mut Rng,
        setup: &Setup,
    ) -> Result<(), String> {
        let now_ns = common.world.now().mono_ns;
        self.wake_ns = now_ns + rng.between(POLL_NS / 4, POLL_NS);
        let Some(wire) = &mut self.wire else {
            self.owed = None;
            self.wire = Some(Wire::connect(common.world, Doors::ALONE, None));
            return Ok(());
        };
        let (replies, goes_on) = wire.pump()?;
        for reply in replies {
            let Some(is_info) = self.owed.take() else {
                return Err("a reply to nothing".into());
            };
            self.hear(common, &reply, is_info);
        }
        if !goes_on {
            self.wire = None;
            if matches!(self.task, Task::Save(_) | Task::Rewrite | Task::Background(_)) {
                // Whether it was done is not known.
                self.task = Task::Idle;
            }
            return Ok(());
        }
        if self.owed.is_none() {
            self.go_on(common, rng, setup);
        }
        Ok(())
    }

    fn go_on(&mut self, common: &mut Common<'_>, rng: &mut Rng, setup: &Setup) {
        let now_ns = common.world.now().mono_ns;
        match self.task {
            Task::Idle if self.rests => {}
            Task::Idle => self.choose(common, rng, setup),
            Task::Pause => {
                if rng.chance(1, 8) || self.rests {
                    self.task = Task::On(now_ns);
                    self.send(common, &["CONFIG", "SET", "appendonly", "yes"], false);
                }
            }
            Task::On(since_ns) if now_ns > since_ns + PATIENCE_NS => self.task = Task::Pause,
            Task::Off | Task::On(_) | Task::Background(_) => {
                self.send(common, &["INFO", "persistence"], true);
            }
            Task::Rewrite | Task::Save(_) => self.task = Task::Idle,
        }
    }

    fn choose(&mut self, common: &mut Common<'_>, rng: &mut Rng, setup: &Setup) {
        let now_ns = common.world.now().mono_ns;
        match rng.below(12) {
            0 | 1 if setup.rewrites => {
                self.task = Task::Rewrite;
                self.send(common, &["BGREWRITEAOF"], false);
            }
            2 if setup.toggles => {
                self.task = Task::Off;
                self.promise.off(now_ns);
                self.send(common, &["CONFIG", "SET", "appendonly", "no"], false);
            }
            3 | 4 if setup.saves => {
                self.task = Task::Background(now_ns);
                self.send(common, &["BGSAVE"], false);
            }
            5 if setup.saves => {
                self.task = Task::Save(now_ns);
                self.send(common, &["SAVE"], false);
            }
            _ => {}
        }
    }

    fn send(&mut self, common: &mut Common<'_>, words: &[&str], is_info: bool) {
        if let Some(wire) = &mut self.wire {
            let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            wire.push(&words);
            self.owed = Some(is_info);
            if !is_info {
                common.tell(|| String::from_utf8_lossy(&words.join(&b' ')).into_owned());
            }
        }
    }

    fn hear(&mut self, common: &mut Common<'_>, reply: &Reply, is_info: bool) {
        let is_error = matches!(reply, Reply::Error(_));
        let text = match reply {
            Reply::Bulk(text) if is_info => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        let says = |line: &str| text.lines().any(|one| one == line);
        let is_dumps = self.promise.keep == Keep::Dumps;
        match self.task {
            Task::Rewrite => {
                common.mark("durable: rewrites");
                self.task = Task::Idle;
            }
            Task::Save(since_ns) => {
                if !is_error {
                    common.mark("durable: saves");
                    if is_dumps {
                        self.promise.sure_ns = since_ns;
                    }
                }
                self.task = Task::Idle;
            }
            Task::Background(_) if is_error => self.task = Task::Idle,
            Task::Background(since_ns) if says("rdb_bgsave_in_progress:0") => {
                if says("rdb_last_bgsave_status:ok") {
                    common.mark("durable: saves in the background");
                    if is_dumps {
                        self.promise.sure_ns = since_ns;
                    }
                } else {
                    common.mark("durable: saves failed");
                }
                self.task = Task::Idle;
            }
            Task::Off if says("aof_enabled:0") => {
                common.mark("durable: logs off");
                self.task = Task::Pause;
            }
            Task::On(since_ns)
                if says("aof_enabled:1")
                    && says("aof_rewrite_in_progress:0")
                    && says("aof_last_bgrewrite_status:ok") =>
            {
                common.mark("durable: logs on");
                (self.promise.live, self.promise.sure_ns) = (true, since_ns);
                self.task = Task::Idle;
            }
            _ => {}
        }
    }
}
