//! What is seen of commands while they run: SLOWLOG, LATENCY, MONITOR, and what CLIENT PAUSE holds back.
//!
//! What it costs. A batch has one reading of the clock, and a command none. A command that is not flagged `fast` may take
//! long, and is timed by [`timed`], through its row, when `slowlog-log-slower-than` or `latency-monitor-threshold` is on:
//! two readings around work in the number of elements. The few of them that are short in practice (SET, DEL, …) are left
//! out by [`Row::untimed`](crate::command::row::Row::untimed). Only a `slowlog-log-slower-than` below
//! [`ALL_BELOW_US`], and `latency-tracking`, want every command timed: then no connection is plain, and each command
//! takes the way through [`guard`]. MONITOR and CLIENT PAUSE do the same; a connection learns of it when
//! [`Shard::generation`] has moved, at its next batch.
//!
//! Invariants: logs and histories are bounded; without a clock from the host nothing is timed.
//! Next: `guard` for the way of a command that is looked at.

pub(crate) mod guard;
pub(crate) mod latency;
pub(crate) mod monitor;
pub(crate) mod slow;

use std::fmt;

use crate::{
    command::{Cx, Fault, Outcome, row},
    settings::Settings,
    shard::Shard,
};
use latency::{Events, Histogram};
use monitor::Monitors;
use slow::{Entry, SlowLog};

/// Below this threshold of the slow log, every command is timed.
const ALL_BELOW_US: i64 = 1_000;

/// A monotonic clock in nanoseconds, read when asked.
pub type Clock = Box<dyn Fn() -> u64>;

/// What holds commands back for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) until_ms: u64,
    /// Only those that may write.
    pub(crate) writes: bool,
}

/// What a shard sees of its commands.
#[derive(Default)]
pub(crate) struct Watch {
    clock: Option<Clock>,
    /// `slowlog-log-slower-than`; negative for never.
    slower_us: i64,
    slow_max: usize,
    /// `latency-monitor-threshold`; 0 for never.
    latency_ms: u64,
    /// `latency-tracking`.
    tracks: bool,
    pub(crate) slow: SlowLog,
    pub(crate) events: Events,
    /// By command id.
    pub(crate) histograms: Vec<Option<Box<Histogram>>>,
    pub(crate) monitors: Monitors,
    pub(crate) pause: Option<Pause>,
    /// Address and name of the client whose batch from another shard runs now, where that was told.
    pub(crate) visitor: Option<Visitor>,
}

/// A client's address and name.
pub(crate) type Visitor = (String, Vec<u8>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("slow", &self.slow).finish_non_exhaustive()
    }
}

impl Watch {
    /// Takes over what the settings say.
    pub(crate) fn configure(&mut self, settings: &Settings) {
        let number = |name: &str| settings.get(name).parse::<i64>().unwrap_or(0);
        self.slower_us = number("slowlog-log-slower-than");
        self.slow_max = usize::try_from(number("slowlog-max-len")).unwrap_or(0);
        self.latency_ms = u64::try_from(number("latency-monitor-threshold")).unwrap_or(0);
        self.tracks = settings.get("latency-tracking") == "yes";
        self.slow.trim(self.slow_max);
    }

    /// Whether every command is timed.
    fn times_all(&self) -> bool {
        self.clock.is_some() && (self.tracks || (0..ALL_BELOW_US).contains(&self.slower_us))
    }

    /// Whether commands have to be looked at one by one.
    pub(crate) fn looks(&self) -> bool {
        self.times_all() || self.monitors.any() || self.pause.is_some()
    }

    /// The clock, when commands that may be slow are timed.
    fn start(&self) -> Option<u64> {
        let wanted = self.slower_us >= 0 || self.latency_ms > 0 || self.tracks;
        if wanted { self.clock.as_ref().map(|clock| clock()) } else { None }
    }
}

impl Shard {
    /// Gives the shard a clock, by which slow commands are found. Only the host has one.
    pub fn set_clock(&mut self, clock: Clock) {
        self.watch.clock = Some(clock);
        self.look_again();
    }

    /// Makes every connection look again at what applies to its commands.
    pub(crate) fn look_again(&mut self) {
        self.looks = self.watch.looks() || self.role.follows;
        self.generation = self.generation.wrapping_add(1);
    }
}

/// Runs a command that may be slow, through its row.
pub(crate) fn timed(cx: &mut Cx<'_>) -> Result<Outcome, Fault> {
    let run = cx.row.inner;
    let Some(start) = cx.shard.watch.start() else { return run(cx) };
    let result = run(cx);
    finish(cx, start, &result);
    result
}

/// Notes the time of a command that is over; one that waits for other shards is not.
fn finish(cx: &mut Cx<'_>, start: u64, result: &Result<Outcome, Fault>) {
    if !matches!(result, Ok(Outcome::Wait(_))) {
        let end = cx.shard.watch.start().unwrap_or(start);
        note(cx, end.saturating_sub(start));
    }
}

/// Keeps what is to be kept of a command that took so long.
pub(crate) fn note(cx: &mut Cx<'_>, ns: u64) {
    let us = ns / 1_000;
    let watch = &mut cx.shard.watch;
    if watch.tracks {
        let at = usize::from(cx.id);
        if watch.histograms.len() <= at {
            watch.histograms.resize_with(at + 1, || None);
        }
        if let Some(place) = watch.histograms.get_mut(at) {
            place.get_or_insert_default().add(ns);
        }
    }
    if watch.latency_ms > 0 && us / 1_000 >= watch.latency_ms {
        let fast = cx.row.flags & row::FAST != 0;
        let event = if fast { "fast-command" } else { "command" };
        watch.events.add(event, cx.now.unix_s(), us / 1_000);
    }
    let slow = watch.slower_us >= 0 && i64::try_from(us).unwrap_or(i64::MAX) >= watch.slower_us;
    if slow && watch.slow_max > 0 && cx.row.flags & row::SKIP_SLOWLOG == 0 {
        let (peer, name) = match cx.shard.clients.get(cx.conn.slot) {
            Some(record) => (record.peer.to_string(), record.name.clone().unwrap_or_default()),
            // It came from another shard, which may have said whose it is.
            None => {
                let (peer, name) = cx.shard.watch.visitor.clone().unwrap_or_default();
                (peer, name.into_boxed_slice())
            }
        };
        let args = monitor::redacted(cx.row, cx.args, cx.frame);
        let entry = Entry::new(cx.now.unix_us, us, &args, peer, name.into_vec());
        let watch = &mut cx.shard.watch;
        watch.slow.add(entry, watch.slow_max);
    }
}
