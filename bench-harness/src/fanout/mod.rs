//! Fan-out: publishers, and many subscribers on each of some channels, over RESP or NATS.
//!
//! What is measured is a delivery, not a request: how many a second, how long after a message was meant to leave, and
//! what one costs the server. Every message says who sent it and which of theirs it is, so that each subscriber knows
//! what is lost, twice, late or wrong; a run in which anything is says so. Subscribers that do not read show what that does to
//! the server's memory. Invariants: limits on all of it stand in [`Plan::check`]. Next: `message` for what is sent,
//! `wire` for how, `crowd` for who, `account` for what each got of it, `trial` for one run.

pub mod account;
pub mod crowd;
pub mod message;
pub mod slow;
pub mod trial;
pub mod wire;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::compare::PORTS_EACH;
use crate::figures::{Contender, Figures, Report, alternate};
use crate::load::arrivals::RATE_MAX;
use crate::load::trial::Timing;
use crate::peers::{self, Peer, Place, Ports};
use crate::process::Server;
use crate::stats;
use message::HEAD_LEN_BYTES;
use trial::Outcome;
pub use wire::PubSub;

/// Connections in all, slow ones included.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Publishers times subscribers in all: what each has seen of each is remembered.
pub const PAIRS_MAX: usize = 1 << 20;
/// The longest message.
pub const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// Messages of one publisher on their way, in closed loop.
pub const DEPTH_MAX: u32 = 1024;
/// Read buffer of a connection on the other runtimes.
const READ_BUFFER_BYTES: usize = 4096;

/// When messages leave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// By the clock, whatever became of those before.
    Open {
        /// Messages a second, of all publishers.
        rate: f64,
        /// Poisson arrivals at publishers drawn by lot; else evenly spaced, publishers in turn.
        poisson: bool,
    },
    /// A publisher has this many on their way, and sends another when all subscribers have one.
    Closed {
        /// How many.
        depth: u32,
    },
}

/// Subscribers that read slowly, beside the measured ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlowPlan {
    /// How many.
    pub count: usize,
    /// What each reads in a second; nothing when zero.
    pub bytes_per_s: u64,
}

/// Who sends what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What is spoken.
    pub protocol: PubSub,
    /// Publishers in all; each goes round the channels.
    pub publishers: usize,
    /// Subscribers of each channel.
    pub subscribers: usize,
    /// Channels.
    pub channels: usize,
    /// Length of every message.
    pub message_len_bytes: usize,
    /// When they leave.
    pub pace: Pace,
    /// Subscribers that read slowly.
    pub slow: SlowPlan,
    /// Arrivals follow from it.
    pub seed: u64,
}

impl Plan {
    /// Whether a run can be made of it.
    ///
    /// # Errors
    /// It cannot; the text says what to change.
    pub fn check(&self) -> Result<()> {
        let Self { publishers, subscribers, channels, message_len_bytes, .. } = *self;
        ensure!(
            publishers > 0 && subscribers > 0 && channels > 0,
            "fan-out takes at least one publisher, one channel and one subscriber of it"
        );
        let readers = channels.saturating_mul(subscribers);
        let connections = publishers.saturating_add(readers).saturating_add(self.slow.count);
        ensure!(
            connections <= CONNECTIONS_MAX,
            "{publishers} publishers, {subscribers} subscribers on each of {channels} channels and {} slow ones are \
             {connections} connections: at most {CONNECTIONS_MAX}",
            self.slow.count
        );
        let pairs = publishers.saturating_mul(readers);
        ensure!(
            pairs <= PAIRS_MAX,
            "{publishers} publishers and {readers} subscribers are {pairs} pairs: at most {PAIRS_MAX} are followed"
        );
        ensure!(
            (HEAD_LEN_BYTES..=MESSAGE_MAX_BYTES).contains(&message_len_bytes),
            "a message has from {HEAD_LEN_BYTES} bytes, its number and time, to {MESSAGE_MAX_BYTES}, not \
             {message_len_bytes}"
        );
        match self.pace {
            Pace::Open { rate, .. } => ensure!(
                rate > 0.0 && rate <= RATE_MAX,
                "a rate is above 0 and at most {RATE_MAX} messages a second, not {rate}"
            ),
            Pace::Closed { depth } => ensure!(
                (1..=DEPTH_MAX).contains(&depth),
                "a depth is from 1 to {DEPTH_MAX} messages of each publisher, not {depth}"
            ),
        }
        Ok(())
    }

    /// What it is, in a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let pace = match self.pace {
            Pace::Open { rate, poisson: true } => format!("{rate} messages/s, Poisson"),
            Pace::Open { rate, poisson: false } => format!("{rate} messages/s, evenly spaced"),
            Pace::Closed { depth } => {
                format!("closed loop, {depth} on their way for each publisher")
            }
        };
        let slow = match self.slow {
            SlowPlan { count: 0, .. } => String::new(),
            SlowPlan { count, bytes_per_s: 0 } => format!("; {count} more that do not read"),
            SlowPlan { count, bytes_per_s } => {
                format!("; {count} more that read {bytes_per_s} B/s")
            }
        };
        format!(
            "{} publishers, {} subscribers on each of {} channels, messages of {} B, {pace}{slow}",
            self.publishers, self.subscribers, self.channels, self.message_len_bytes
        )
    }
}

/// Whom to run it with.
#[derive(Clone, Debug)]
pub enum Whom {
    /// Servers of the registry, by name.
    Peers(Vec<String>),
    /// One that runs already.
    Running {
        /// Where.
        addr: SocketAddr,
        /// Its process.
        pid: u32,
    },
}

/// What is measured, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Servers.
    pub whom: Whom,
    /// What is sent; the protocol is the server's where it comes from the registry.
    pub plan: Plan,
    /// Runs of each server, in alternation.
    pub runs: usize,
    /// How long.
    pub timing: Timing,
    /// The load never sleeps.
    pub spin: bool,
    /// Core of the servers.
    pub server_cpu: usize,
    /// Core of the load.
    pub client_cpu: usize,
    /// First port.
    pub port: u16,
}

/// The report of all runs, and what is to be said beside its figures.
#[derive(Debug)]
pub struct Found {
    /// Figures of each side.
    pub report: Report,
    /// Runs in which messages were lost, duplicated, reordered or wrong.
    pub faults: Vec<String>,
    /// Runs whose pace the client set.
    pub notes: Vec<String>,
}

/// Figures, with what they are called in text.
const FIGURES: [(&str, &str); 19] = [
    ("deliveries_per_s", "deliveries/s"),
    ("published_per_s", "messages/s"),
    ("cpu_ns_per_delivery", "server CPU, ns/delivery"),
    ("syscalls_per_delivery", "server system calls/delivery"),
    ("p50_us", "latency p50, us"),
    ("p90_us", "latency p90, us"),
    ("p99_us", "latency p99, us"),
    ("p999_us", "latency p99.9, us"),
    ("max_us", "latency max, us"),
    ("lag_p99_us", "schedule lag p99, us"),
    ("missed", "messages that found no room"),
    ("lost", "messages lost"),
    ("duplicated", "messages duplicated"),
    ("reordered", "messages reordered"),
    ("wrong", "messages wrong"),
    ("server_busy", "server, share of a core"),
    ("client_busy", "client, share of its core"),
    ("rss_growth_mb", "server memory growth, MB"),
    ("slow_dropped", "slow subscribers the server let go"),
];

fn figures(outcome: &Outcome) -> Figures {
    let us = |ns: u64| ns as f64 / 1e3;
    let seconds = outcome.elapsed_ns as f64 / 1e9;
    let latency = &outcome.latency;
    let mut figures = Figures::from([
        ("deliveries_per_s", outcome.deliveries_per_s),
        ("published_per_s", outcome.published as f64 / seconds),
        ("cpu_ns_per_delivery", outcome.server_cpu_ns_per_delivery),
        ("p50_us", us(latency.p50_ns)),
        ("p90_us", us(latency.p90_ns)),
        ("p99_us", us(latency.p99_ns)),
        ("p999_us", us(latency.p999_ns)),
        ("max_us", us(latency.max_ns)),
        ("lost", outcome.lost as f64),
        ("duplicated", outcome.duplicated as f64),
        ("reordered", outcome.reordered as f64),
        ("wrong", outcome.wrong as f64),
        ("server_busy", outcome.server_busy),
        ("client_busy", outcome.client_busy),
        ("rss_growth_mb", outcome.rss_growth_bytes as f64 / 1e6),
    ]);
    if outcome.offered > 0 {
        figures.insert("missed", outcome.missed as f64);
        figures.insert("lag_p99_us", us(outcome.lag.p99_ns));
    }
    figures.extend(outcome.syscalls_per_delivery.map(|calls| ("syscalls_per_delivery", calls)));
    figures.extend(outcome.slow.map(|slow| ("slow_dropped", slow.dropped as f64)));
    figures
}

/// What a peer is asked in.
fn spoken(peer: &Peer) -> Result<PubSub> {
    [PubSub::Resp, PubSub::Nats]
        .into_iter()
        .find(|protocol| peer.speaks(protocol.name()))
        .with_context(|| {
            let spoken = peer.protocols.join(", ");
            format!("{} speaks {spoken}: fan-out is over resp or nats", peer.name)
        })
}

/// Runs everything.
///
/// # Errors
/// The plan makes no sense, or a server is unknown or cannot be asked. One that does not work is a line of the
/// report.
pub fn run(options: &Options, own_network: bool) -> Result<Found> {
    options.plan.check()?;
    let Plan { publishers, subscribers, channels, slow, .. } = options.plan;
    crate::connections::raise_files(publishers + channels * subscribers + slow.count)?;
    let mut report = Report::new("fanout", own_network);
    let (faults, notes) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let tell = |name: &str, outcome: &Outcome| {
        if let Some(what) = outcome.faults() {
            faults.borrow_mut().push(format!("{name}: {what}"));
        }
        if let Some(why) = &outcome.limit_why {
            notes.borrow_mut().push(format!("{name}: {why}"));
        }
        figures(outcome)
    };
    let ports = RefCell::new(Ports::new(options.port, options.port.saturating_add(999)));
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    match &options.whom {
        Whom::Running { addr, pid } => {
            let server = Server::watch(*pid)?;
            let tell = &tell;
            let trial = move || {
                let Options { plan, spin, timing, .. } = options;
                Ok(tell("server", &trial::run(plan, *addr, &server, *spin, *timing)?))
            };
            contenders.push(("server", Box::new(trial)));
        }
        Whom::Peers(names) => {
            for name in names {
                let peer = peers::find(name)?;
                let protocol = spoken(peer)?;
                match peer.version() {
                    Ok(version) => report.versions.push(format!("{name}: {version}")),
                    Err(error) => {
                        report.skipped.push(format!("{name}: not present: {error:#}"));
                        continue;
                    }
                }
                let (tell, ports) = (&tell, &ports);
                let trial = move || {
                    let port = ports.borrow_mut().take(PORTS_EACH);
                    Ok(tell(&peer.name, &one(peer, protocol, options, port)?))
                };
                contenders.push((peer.name.as_str(), Box::new(trial)));
            }
        }
    }
    let name = options.plan.describe();
    let cell = alternate(&name, options.runs.max(1), &contenders, &mut report.skipped);
    drop(contenders);
    report.cells.push(cell);
    Ok(Found { report, faults: faults.into_inner(), notes: notes.into_inner() })
}

/// One run with a fresh server.
fn one(peer: &Peer, protocol: PubSub, options: &Options, port: u16) -> Result<Outcome> {
    let place = Place {
        port,
        admin: port + PORTS_EACH - 1,
        shards: 1,
        cpus: vec![options.server_cpu],
        read_buffer: READ_BUFFER_BYTES,
        client_cpu: options.client_cpu,
        fifo: false,
    };
    let server = peer.start(&place)?;
    let addr = peer.addr(&place, protocol.name());
    let plan = Plan { protocol, ..options.plan };
    trial::run(&plan, addr, &server, options.spin, options.timing)
}

/// What was found, for people: medians of the runs, with the least and the greatest.
#[must_use]
pub fn text(found: &Found) -> String {
    let mut text = String::new();
    // Writing to a string does not fail, here and below.
    for cell in &found.report.cells {
        let _ = writeln!(text, "{}", cell.name);
        for side in cell.sides.iter().filter(|side| !side.trials.is_empty()) {
            let _ = writeln!(text, "\n{}, {} runs:", side.name, side.trials.len());
            for (figure, title) in FIGURES {
                let values = side.values(figure);
                if values.is_empty() {
                    continue;
                }
                let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let median = stats::median(&values);
                let _ = writeln!(text, "  {title:36} {median:14.2} [{low:.2}, {high:.2}]");
            }
        }
    }
    text.push('\n');
    for fault in &found.faults {
        let _ = writeln!(text, "WRONG: {fault}");
    }
    for note in &found.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for skipped in &found.report.skipped {
        let _ = writeln!(text, "skipped: {skipped}");
    }
    text
}
