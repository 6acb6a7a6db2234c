//! One run of fan-out: everybody subscribed, then messages for a fixed time, and what they cost.
//!
//! Invariants: nothing is published before every subscription is confirmed; the server's CPU clock and the deliveries are
//! read at the same two moments; latencies are those of messages that were due between them, also of what comes
//! after the end; a message counts as lost only when nothing has come for [`SILENCE_NS`].

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::crowd::{Books, Crowd, Faults};
use super::message::Messages;
use super::slow::Slow;
use super::{Pace, Plan};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::load::driven::Driven;
use crate::load::limit::{self, Limit, Signs};
use crate::load::ring::OnRing;
use crate::load::trial::{Latency, Timing};
use crate::process::{Counters, Server, Usage};
use crate::report::hdr;

/// Everybody is subscribed within this.
const GREETING_NS: u64 = 10 * SECOND_NS;
/// Between two looks whether they are.
const GREETING_STEP_NS: u64 = 5 * MILLISECOND_NS;
/// Between two looks at slow subscribers.
const SLOW_STEP_NS: u64 = 20 * MILLISECOND_NS;
/// Every so many of them the server's memory is read.
const SLOW_STEPS_EACH: u64 = 5;
/// What has not come by then is lost.
pub const SILENCE_NS: u64 = 500 * MILLISECOND_NS;
/// All of waiting for the last messages.
const DRAIN_NS: u64 = 10 * SECOND_NS;
/// How long the server's calls are counted after the recorded time, a fifth of which it is.
const COUNT_NS: std::ops::RangeInclusive<u64> = 20 * MILLISECOND_NS..=200 * MILLISECOND_NS;

/// What became of slow subscribers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SlowOutcome {
    /// How many there were.
    pub count: usize,
    /// How many the server let go.
    pub dropped: usize,
    /// What they read while messages were sent.
    pub read_bytes: u64,
}

/// What one run gave.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Recorded time.
    pub elapsed_ns: u64,
    /// Messages published in that time.
    pub published: u64,
    /// Messages that reached a subscriber in that time, for each of them.
    pub deliveries: u64,
    /// The same in a second.
    pub deliveries_per_s: f64,
    /// From when a message was meant to leave to each subscriber.
    pub latency: Latency,
    /// Open loop: how late messages left.
    pub lag: Latency,
    /// Open loop: messages that were due, and those of them that found no room.
    pub offered: u64,
    /// Those of them that found no room.
    pub missed: u64,
    /// Over the whole run: messages that never came, for each subscriber.
    pub lost: u64,
    /// Messages that came again.
    pub duplicated: u64,
    /// Messages that came after one that was sent later.
    pub reordered: u64,
    /// Messages that were not what was sent.
    pub wrong: u64,
    /// The first of these.
    pub first_wrong: Option<String>,
    /// CPU time of the server's process for one delivery.
    pub server_cpu_ns_per_delivery: f64,
    /// Its system calls for one, where they can be counted from outside.
    pub syscalls_per_delivery: Option<f64>,
    /// Share of one core the server took.
    pub server_busy: f64,
    /// Share of its core the client took, without what it spun away.
    pub client_busy: f64,
    /// Resident memory of the server, with everybody subscribed and nothing sent.
    pub rss_before_bytes: u64,
    /// How much more that became at most.
    pub rss_growth_bytes: u64,
    /// Slow subscribers.
    pub slow: Option<SlowOutcome>,
    /// Who set the pace.
    pub limit: Limit,
    /// Why that is said, where it is not plain.
    pub limit_why: Option<String>,
    /// All of `latency`: an HdrHistogram of nanoseconds, V2, deflated, in base64.
    pub latency_hdr: String,
}

impl Outcome {
    /// What went wrong with messages, in words; nothing when nothing did.
    #[must_use]
    pub fn faults(&self) -> Option<String> {
        let Self { lost, duplicated, reordered, wrong, .. } = self;
        if lost + duplicated + reordered + wrong == 0 {
            return None;
        }
        let first = self.first_wrong.as_deref().map(|first| format!(" ({first})"));
        Some(format!(
            "{lost} messages lost, {duplicated} duplicated, {reordered} reordered, {wrong} wrong{}",
            first.unwrap_or_default()
        ))
    }
}

/// Everything that moves.
struct Running<'a> {
    crowd: Crowd,
    mover: OnRing,
    slow: Slow,
    has_slow: bool,
    server: &'a Server,
    peak_bytes: u64,
}

impl Running<'_> {
    fn run_until(&mut self, end_ns: u64) -> Result<()> {
        let mut steps = 0_u64;
        loop {
            let now_ns = clock::mono_ns();
            if now_ns >= end_ns {
                break;
            }
            let step_ns = if self.has_slow { end_ns.min(now_ns + SLOW_STEP_NS) } else { end_ns };
            self.mover.run_until(&mut self.crowd, step_ns);
            if let Some(why) = self.crowd.broken() {
                bail!("{why}");
            }
            self.slow.step();
            steps += 1;
            if self.has_slow && steps.is_multiple_of(SLOW_STEPS_EACH) {
                self.look_at_memory()?;
            }
        }
        Ok(())
    }

    fn look_at_memory(&mut self) -> Result<()> {
        self.peak_bytes = self.peak_bytes.max(self.server.rss_bytes()?);
        Ok(())
    }

    fn reading(&self) -> Reading {
        let client_ns = clock::thread_cpu_ns().saturating_sub(self.mover.idle_ns());
        Reading { usage: self.server.usage(), client_ns, at_ns: clock::mono_ns() }
    }

    /// System calls of the server for one delivery: counted apart, since counting makes them dearer.
    fn syscalls(&mut self, duration_ns: u64) -> Result<Option<f64>> {
        let mut counters = Counters::of(self.server.pid());
        if counters.lack_all() {
            return Ok(None);
        }
        self.crowd.take_books();
        let before = counters.read();
        let window_ns = (duration_ns / 5).clamp(*COUNT_NS.start(), *COUNT_NS.end());
        self.run_until(clock::mono_ns() + window_ns)?;
        let calls = counters.read().since(&before).syscalls;
        let deliveries = self.crowd.take_books().deliveries;
        Ok(calls.filter(|_| deliveries > 0).map(|calls| calls as f64 / deliveries as f64))
    }

    /// Waits for what is on its way.
    fn drain(&mut self) -> Result<()> {
        self.crowd.stop();
        let deadline_ns = clock::mono_ns() + DRAIN_NS;
        let mut heard_ns = clock::mono_ns();
        self.crowd.take_books();
        while !self.crowd.is_quiet() && clock::mono_ns() < deadline_ns.min(heard_ns + SILENCE_NS) {
            self.run_until(clock::mono_ns() + SLOW_STEP_NS)?;
            let Books { deliveries, published, .. } = self.crowd.take_books();
            if deliveries + published > 0 {
                heard_ns = clock::mono_ns();
            }
        }
        // A duplicate comes after what it repeats.
        self.run_until(clock::mono_ns() + SLOW_STEP_NS)
    }
}

struct Reading {
    usage: Usage,
    client_ns: u64,
    at_ns: u64,
}

/// Runs `plan` against `server` at `addr`.
///
/// # Errors
/// The plan makes no sense, the server refuses, or lets one of the measured connections go.
pub fn run(
    plan: &Plan,
    addr: SocketAddr,
    server: &Server,
    spin: bool,
    timing: Timing,
) -> Result<Outcome> {
    plan.check()?;
    let mut crowd = Crowd::new(plan, addr);
    let mut mover = OnRing::connect(&crowd, spin)?;
    greet(&mut crowd, &mut mover)?;
    let messages = Messages::new(plan.message_len_bytes);
    let (count, pace) = (plan.slow.count, plan.slow.bytes_per_s);
    let slow = Slow::connect(count, pace, plan.protocol, plan.channels, &messages, addr)?;
    let rss_before_bytes = server.rss_bytes()?;
    let mut running =
        Running { crowd, mover, slow, has_slow: count > 0, server, peak_bytes: rss_before_bytes };

    let start_ns = clock::mono_ns();
    running.crowd.start(start_ns);
    running.run_until(start_ns + timing.warmup_ns)?;
    running.crowd.take_books();
    let before = running.reading();
    let end_ns = before.at_ns + timing.duration_ns;
    running.crowd.record(before.at_ns..end_ns);
    running.run_until(end_ns)?;
    let after = running.reading();
    let books = running.crowd.take_books();
    let syscalls_per_delivery = running.syscalls(timing.duration_ns)?;
    running.drain()?;
    running.look_at_memory()?;

    let Running { crowd, slow, peak_bytes, .. } = running;
    let read_bytes = slow.read_bytes();
    let slow = (count > 0).then(|| SlowOutcome { count, dropped: slow.end(), read_bytes });
    let outcome = summarise(plan, spin, &crowd, &books, &before, &after);
    Ok(Outcome {
        syscalls_per_delivery,
        rss_before_bytes,
        rss_growth_bytes: peak_bytes.saturating_sub(rss_before_bytes),
        slow,
        ..outcome
    })
}

/// Waits until everybody is subscribed.
fn greet(crowd: &mut Crowd, mover: &mut OnRing) -> Result<()> {
    let deadline_ns = clock::mono_ns() + GREETING_NS;
    while !crowd.is_ready() {
        let now_ns = clock::mono_ns();
        if now_ns >= deadline_ns {
            bail!("not everybody is subscribed after {} s", GREETING_NS / SECOND_NS);
        }
        mover.run_until(crowd, now_ns + GREETING_STEP_NS);
        if let Some(why) = crowd.broken() {
            let why = why.to_owned();
            return Err(anyhow::Error::msg(why)).context("subscribe");
        }
    }
    Ok(())
}

fn summarise(
    plan: &Plan,
    spin: bool,
    crowd: &Crowd,
    books: &Books,
    before: &Reading,
    after: &Reading,
) -> Outcome {
    let elapsed_ns = (after.at_ns - before.at_ns).max(1);
    let share = |ns: u64| ns as f64 / elapsed_ns as f64;
    let cpu_ns = after.usage.since(&before.usage).cpu_ns;
    let (latency, lag) = (Latency::of(crowd.latency()), Latency::of(&books.lag));
    let client_busy = share(after.client_ns.saturating_sub(before.client_ns));
    let (limit, limit_why) = limit::judge(&Signs {
        open: matches!(plan.pace, Pace::Open { .. }),
        spins: spin,
        p99_ns: latency.p99_ns,
        lag_p99_ns: lag.p99_ns,
        missed: books.missed,
        client_busy,
        server_busy: share(cpu_ns),
    });
    let Faults { lost, duplicated, reordered, wrong } = crowd.faults();
    Outcome {
        elapsed_ns,
        published: books.published,
        deliveries: books.deliveries,
        deliveries_per_s: books.deliveries as f64 * SECOND_NS as f64 / elapsed_ns as f64,
        latency,
        lag,
        offered: books.offered,
        missed: books.missed,
        lost,
        duplicated,
        reordered,
        wrong,
        first_wrong: crowd.first_wrong().map(str::to_owned),
        server_cpu_ns_per_delivery: cpu_ns as f64 / books.deliveries.max(1) as f64,
        syscalls_per_delivery: None,
        server_busy: share(cpu_ns),
        client_busy,
        rss_before_bytes: 0,
        rss_growth_bytes: 0,
        slow: None,
        limit,
        limit_why,
        latency_hdr: hdr::encode(crowd.latency()),
    }
}
