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

use view::Instant;
use wire::resp::Args;

use crate::{
    command::{Conn, Cx, Fault, Outcome, row},
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

/// Notes the time of a command that is over; one that waits for other shards is not (see [`Timed`]).
fn finish(cx: &mut Cx<'_>, start: u64, result: &Result<Outcome, Fault>) {
    if !matches!(result, Ok(Outcome::Wait(_))) {
        let end = cx.shard.watch.start().unwrap_or(start);
        note(cx, end.saturating_sub(start));
    }
}

/// Keeps what is to be kept of a command that took so long.
pub(crate) fn note(cx: &mut Cx<'_>, ns: u64) {
    let us = ns / 1_000;
    let is_slow = cx.shard.watch.keep(cx.row, cx.id, ns, cx.now);
    if is_slow {
        let args = monitor::redacted(cx.row, cx.args, cx.frame);
        let entry = Entry::new(cx.now.unix_us, us, &args, String::new(), Vec::new());
        cx.shard.note_slow(entry, cx.conn.slot);
    }
}

/// A command over several shards whose time is being taken.
#[derive(Debug)]
pub(crate) struct Timed {
    id: u16,
    start: u64,
    entry: Entry,
}

impl Shard {
    /// Begins to time a command that waits for other shards, where every command is timed.
    pub(crate) fn begin_timing(
        &self,
        id: Option<u16>,
        args: &Args,
        frame: &[u8],
        now: Instant,
    ) -> Option<Box<Timed>> {
        let id = id.filter(|_| self.watch.times_all())?;
        let start = self.watch.start()?;
        let args = monitor::redacted(self.commands.row(id), args, frame);
        let entry = Entry::new(now.unix_us, 0, &args, String::new(), Vec::new());
        Some(Box::new(Timed { id, start, entry }))
    }

    /// It is over.
    pub(crate) fn end_timing(&mut self, timed: Timed, conn: &Conn, now: Instant) {
        let Timed { id, start, entry } = timed;
        let ns = self.watch.start().unwrap_or(start).saturating_sub(start);
        if self.watch.keep(self.commands.row(id), id, ns, now) {
            self.note_slow(Entry { us: ns / 1_000, ..entry }, conn.slot);
        }
    }

    fn note_slow(&mut self, entry: Entry, slot: u32) {
        let (peer, name) = match self.clients.get(slot) {
            Some(record) => (record.peer.to_string(), record.name.clone().unwrap_or_default()),
            // It came from another shard, which may have said whose it is.
            None => {
                let (peer, name) = self.watch.visitor.clone().unwrap_or_default();
                (peer, name.into_boxed_slice())
            }
        };
        let max = self.watch.slow_max;
        self.watch.slow.add(Entry { peer, name: name.into_vec(), ..entry }, max);
    }
}

impl Watch {
    /// Takes a command's time into histograms and events; whether it belongs into the slow log.
    fn keep(&mut self, row: &row::Row, id: u16, ns: u64, now: Instant) -> bool {
        let us = ns / 1_000;
        if self.tracks {
            let at = usize::from(id);
            if self.histograms.len() <= at {
                self.histograms.resize_with(at + 1, || None);
            }
            if let Some(place) = self.histograms.get_mut(at) {
                place.get_or_insert_default().add(ns);
            }
        }
        if self.latency_ms > 0 && us / 1_000 >= self.latency_ms {
            let fast = row.flags & row::FAST != 0;
            let event = if fast { "fast-command" } else { "command" };
            self.events.add(event, now.unix_s(), us / 1_000);
        }
        let slow = self.slower_us >= 0 && i64::try_from(us).unwrap_or(i64::MAX) >= self.slower_us;
        slow && self.slow_max > 0 && row.flags & row::SKIP_SLOWLOG == 0
    }
}
