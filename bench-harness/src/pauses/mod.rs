//! Latency while a server does something else as well: a snapshot, growth of its table, expiry of many keys, a full sync.
//!
//! Each trial starts a fresh server from the registry, stores keys, finds its own peak in a closed loop, and then offers
//! [`RATE_SHARE`] of that in an open loop while one event of [`EVENTS`] happens. Latency counts from when a request was due, so a
//! pause shows in every request that it delayed. Invariants: an event that did not happen within the recorded time is an
//! error and not a figure ([`event`]); every trial of an event begins with the same keys. Where there are two cores, a replica
//! runs on the load's at nice 19, and what it takes from the load is a figure of its own.
//! Next: `event` for what happens, `wire` for how it is asked for, `load::trial` for the load.

mod event;
mod wire;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::exit::Exit;
use crate::figures::{Cell, Contender, Figures, Report, alternate};
use crate::load::limit::Limit;
use crate::load::protocol::Protocol;
use crate::load::trial::{self, Timing, Transport, Trial};
use crate::load::{Arrivals, Target, Workload};
use crate::peers::{self, Peer, Place, Ports};
use crate::process::{self, Server};
use crate::stats;
pub use event::{EVENTS, Event, Row};
use event::{LEAD_NS, Recorded, Seen, Whom};
use wire::Client;

/// What is offered, as a share of the peak.
pub const RATE_SHARE: f64 = 0.7;
/// What is claimed: this much of p99, in milliseconds, at most.
pub const BAR_P99_MS: f64 = 1.0;
/// The row's number in the table of claims.
const ROW: &str = "13";
/// The figure that is claimed.
const P99: &str = "p99_ms";
/// Whether the load set the pace.
const CLIENT_BOUND: &str = "client_bound";
/// Share of requests that are SET, but for growth, where all are.
const SET_SHARE: f64 = 0.2;
const VALUE_LEN_BYTES: usize = 64;
const WARMUP_NS: u64 = 300 * MILLISECOND_NS;
/// How long a peak is looked for.
const PEAK_NS: u64 = 2 * SECOND_NS;
/// What comes on top of twice the time that keys that expire should take to be put.
const PUT_SLACK_NS: u64 = SECOND_NS;
/// Ports of one server, its admin listener included.
const PORTS_EACH: u16 = 8;
const READ_BUFFER_BYTES: usize = 4096;
/// An expiry needs its lead, its second and some time to be seen.
const SECONDS_MIN: f64 = 2.0;
const SECONDS_MAX: f64 = 600.0;
/// What fits the names of keys that expire, and no memory of a small host.
const KEYS_MAX: u32 = 100_000_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server under test, by its name in the registry.
    pub ours: String,
    /// Which events; all when none is given.
    pub events: Vec<Event>,
    /// Keys that are stored before.
    pub keys: u32,
    /// Keys that expire.
    pub expiring: u32,
    /// Connections of the load.
    pub connections: usize,
    /// Rounds of each event.
    pub rounds: usize,
    /// Recorded seconds of a trial.
    pub seconds: f64,
    /// Core of the server.
    pub server_cpu: usize,
    /// Core of the load, and of the replica.
    pub client_cpu: usize,
    /// What moves the load's bytes.
    pub transport: Transport,
    /// First port.
    pub port: u16,
    /// Seed of the load.
    pub seed: u64,
}

impl Options {
    fn check(&self) -> Result<()> {
        let seconds = self.seconds;
        ensure!(
            (SECONDS_MIN..=SECONDS_MAX).contains(&seconds),
            "--seconds: a trial takes from {SECONDS_MIN} to {SECONDS_MAX} seconds, not {seconds}"
        );
        for (name, keys) in [("keys", self.keys), ("expiring", self.expiring)] {
            ensure!((1..=KEYS_MAX).contains(&keys), "--{name}: from 1 to {KEYS_MAX}, not {keys}");
        }
        crate::connections::raise_files(self.connections)
    }

    fn events(&self) -> Vec<Event> {
        let wanted = |row: &&Row| self.events.is_empty() || self.events.contains(&row.event);
        EVENTS.iter().filter(wanted).map(|row| row.event).collect()
    }

    fn workload(&self) -> Workload {
        Workload {
            set_share: SET_SHARE,
            keys: self.keys,
            value_len_bytes: VALUE_LEN_BYTES,
            connections: self.connections.max(1),
            seed: self.seed,
            ..Workload::new(Protocol::Resp, 1)
        }
    }

    fn timing(&self) -> Timing {
        let duration_ns = (self.seconds * SECOND_NS as f64) as u64;
        Timing { warmup_ns: WARMUP_NS, duration_ns }
    }

    fn place(&self, port: u16, cpu: usize) -> Place {
        Place {
            port,
            admin: port.saturating_add(PORTS_EACH - 1),
            shards: 1,
            cpus: vec![cpu],
            read_buffer: READ_BUFFER_BYTES,
            client_cpu: self.client_cpu,
            fifo: false,
        }
    }
}

/// Measures all events; `keep` is told what there is so far after each.
///
/// # Errors
/// The options make no sense, or the server is unknown or does not speak RESP. A trial that failed, and an event that did not
/// happen, are lines of the report.
pub fn run(
    options: &Options,
    own_network: bool,
    keep: &mut dyn FnMut(&Report) -> Result<()>,
) -> Result<Report> {
    options.check()?;
    let peer = peers::find(&options.ours)?;
    let spoken = Protocol::Resp.name();
    ensure!(peer.speaks(spoken), "{} does not speak {spoken}", peer.name);
    let mut report = Report::new("pauses", own_network);
    match peer.version() {
        Ok(version) => report.versions.push(format!("{}: {version}", peer.name)),
        Err(error) => {
            report.skipped.push(format!("{}: not present: {error:#}", peer.name));
            return Ok(report);
        }
    }
    let ports = RefCell::new(Ports::new(options.port, options.port.saturating_add(999)));
    for event in options.events() {
        let name = cell_name(options, event);
        eprintln!("{name}");
        let trial = || {
            let figures = one(options, peer, event, &ports);
            if let Ok(figures) = &figures {
                eprintln!("  {}", progress(figures));
            }
            figures
        };
        let contenders: [Contender<'_>; 1] = [(peer.name.as_str(), Box::new(trial))];
        let mut cell = alternate(&name, options.rounds.max(1), &contenders, &mut report.skipped);
        cell.limit(P99, false, BAR_P99_MS);
        report.cells.push(cell);
        keep(&report)?;
    }
    Ok(report)
}

fn cell_name(options: &Options, event: Event) -> String {
    let Row { name, about, .. } = event.row();
    format!("{ROW} {name}: {about}; {:.0} % of the peak, {} keys", RATE_SHARE * 100.0, options.keys)
}

fn progress(figures: &Figures) -> String {
    let of = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    format!(
        "{:.0}/s of {:.0}: p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms; the event took {:.2} s",
        of("rate_per_s"),
        of("peak_per_s"),
        of("p50_ms"),
        of(P99),
        of("max_ms"),
        of("event_s"),
    )
}

/// One trial with a fresh server.
fn one(options: &Options, peer: &Peer, event: Event, ports: &RefCell<Ports>) -> Result<Figures> {
    let take = || ports.borrow_mut().take(PORTS_EACH);
    let place = options.place(take(), options.server_cpu);
    let server = peer.start(&place)?;
    let targets = [Target::all_keys(peer.addr(&place, Protocol::Resp.name()))];
    let mut workload = options.workload();
    let fill_ns = clock::mono_ns();
    trial::prefill(&workload, &targets)?;
    let fill_ns = clock::mono_ns() - fill_ns;
    let timing = options.timing();
    let short = Timing { duration_ns: PEAK_NS.min(timing.duration_ns), ..timing };
    let run = |workload: &Workload, timing| {
        trial::run(workload, &targets, &server, options.server_cpu, options.transport, timing)
    };
    let peak = run(&workload, short).context("the peak")?.rate;
    workload.arrivals = Arrivals::Open { rate: peak * RATE_SHARE, poisson: true };
    if event == Event::Growth {
        (workload.set_share, workload.inserts) = (1.0, true);
    }
    let mut replica = None;
    if event == Event::FullSync {
        let place = options.place(take(), options.client_cpu);
        let follower = peer.start(&place).context("the second server")?;
        process::make_nice(follower.pid())?;
        replica = Some((follower, peer.addr(&place, Protocol::Resp.name())));
    }
    let [Target { addr, .. }] = &targets;
    let mut whom = Whom {
        addr: *addr,
        replica: replica.as_ref().map(|(_, addr)| *addr),
        expiring: options.expiring,
        expire_at_ms: 0,
        begin_ns: 0,
    };
    prepare(options, event, &mut whom, fill_ns)?;
    let begun_ns = clock::mono_ns();
    whom.begin_ns = begun_ns + WARMUP_NS + LEAD_NS;
    let before = Core::read(options.client_cpu, replica.as_ref().map(|(server, _)| server));
    let (trial, seen) =
        beside(|| run(&workload, timing), |ended| event::happen(event, &whom, ended));
    let after = Core::read(options.client_cpu, replica.as_ref().map(|(server, _)| server));
    let (trial, seen) = (trial?, seen.with_context(|| event.row().name)?);
    let recorded = Recorded {
        from_us: trial.begun_unix_us,
        to_us: trial.begun_unix_us + trial.elapsed_ns / 1_000,
    };
    let event_s = event::judge(event, &seen, &recorded, trial.replies)?;
    let mut figures = figures(&trial, peak, event_s, &seen);
    after.since(&before, &mut figures);
    Ok(figures)
}

/// What must be in place before the load begins; returns when the time for that has come.
fn prepare(options: &Options, event: Event, whom: &mut Whom, fill_ns: u64) -> Result<()> {
    let mut server = Client::connect(whom.addr)?;
    match event {
        // Redis waits 5 s for more replicas; a server without that setting does not.
        Event::FullSync => {
            let _ = server.ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        }
        Event::Expiry => {
            let each_ns = fill_ns as f64 / f64::from(options.keys);
            let put_ns = 2 * (each_ns * f64::from(options.expiring)) as u64 + PUT_SLACK_NS;
            let (now_ns, lead_ns) = (clock::mono_ns(), WARMUP_NS + LEAD_NS);
            let load_ns = now_ns + put_ns;
            whom.expire_at_ms = clock::unix_us() / 1_000 + (put_ns + lead_ns) / MILLISECOND_NS;
            server.put_expiring(options.expiring, VALUE_LEN_BYTES, whom.expire_at_ms)?;
            let late_ns = clock::mono_ns().saturating_sub(load_ns);
            if late_ns > 0 {
                bail!(
                    "expiry: {} keys took {:.1} s to be put, {:.1} s more than twice what the first {} let expect",
                    options.expiring,
                    (put_ns + late_ns) as f64 / 1e9,
                    late_ns as f64 / 1e9,
                    options.keys
                );
            }
            clock::sleep_ns(load_ns.saturating_sub(clock::mono_ns()));
        }
        Event::Quiet | Event::Snapshot | Event::Growth => {}
    }
    Ok(())
}

/// Runs `load` on this thread, where its server belongs, and `watch` beside it until the load has ended.
fn beside<A, B: Send>(
    load: impl FnOnce() -> Result<A>,
    watch: impl FnOnce(&AtomicBool) -> Result<B> + Send,
) -> (Result<A>, Result<B>) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&ended));
        let loaded = load();
        ended.store(true, Ordering::Release);
        let seen = watcher.join().unwrap_or_else(|_| Err(anyhow!("the watcher panicked")));
        (loaded, seen)
    })
}

/// Who used the load's core.
#[derive(Clone, Copy, Debug)]
struct Core {
    at_ns: u64,
    busy_ns: u64,
    own_ns: u64,
    replica_ns: Option<u64>,
}

impl Core {
    fn read(cpu: usize, replica: Option<&Server>) -> Self {
        Self {
            at_ns: clock::mono_ns(),
            busy_ns: trial::core_busy_ns(cpu),
            own_ns: clock::process_cpu_ns(std::process::id()).unwrap_or(0),
            replica_ns: replica.and_then(|server| clock::process_cpu_ns(server.pid())),
        }
    }

    /// As shares of the time since `earlier`, the warm-up included.
    fn since(&self, earlier: &Self, figures: &mut Figures) {
        let elapsed_ns = self.at_ns.saturating_sub(earlier.at_ns).max(1) as f64;
        let own_ns = self.own_ns.saturating_sub(earlier.own_ns);
        let busy_ns = self.busy_ns.saturating_sub(earlier.busy_ns);
        let foreign_ns = busy_ns.saturating_sub(own_ns);
        figures.insert("foreign_client_core", foreign_ns as f64 / elapsed_ns);
        if let (Some(now_ns), Some(then_ns)) = (self.replica_ns, earlier.replica_ns) {
            figures.insert("replica_busy", now_ns.saturating_sub(then_ns) as f64 / elapsed_ns);
        }
    }
}

fn figures(trial: &Trial, peak: f64, event_s: f64, seen: &Seen) -> Figures {
    let ms = |ns: u64| ns as f64 / 1e6;
    let Trial { latency, lag, .. } = trial;
    Figures::from([
        ("peak_per_s", peak),
        ("rate_per_s", trial.rate),
        ("p50_ms", ms(latency.p50_ns)),
        (P99, ms(latency.p99_ns)),
        ("p999_ms", ms(latency.p999_ns)),
        ("max_ms", ms(latency.max_ns)),
        ("lag_p99_ms", ms(lag.p99_ns)),
        ("missed", trial.missed as f64),
        ("server_busy", trial.server_busy),
        ("client_busy", trial.client_busy),
        ("foreign_server_core", trial.foreign),
        (CLIENT_BOUND, f64::from(u8::from(trial.limit == Limit::Client))),
        ("event_s", event_s),
        ("event_ended", f64::from(u8::from(seen.ended_us.is_some()))),
        ("event_amount", seen.amount as f64),
    ])
}

/// The lowest and the median p99 of a cell, and whether the median is within the bar; `None` without a trial.
fn verdict(cell: &Cell) -> Option<(f64, f64, bool)> {
    let values = cell.sides.first()?.values(P99);
    let best = values.iter().copied().reduce(f64::min)?;
    let median = stats::median(&values);
    Some((best, median, median < BAR_P99_MS))
}

/// Whether the load set the pace in most trials of a cell.
fn is_client_bound(cell: &Cell) -> bool {
    cell.sides.first().is_some_and(|side| side.median(CLIENT_BOUND) > 0.5)
}

/// How the command ends: a trial that failed counts always, a bar with `gate`.
#[must_use]
pub fn exit(report: &Report, gate: bool) -> Exit {
    let missed: Vec<&Cell> =
        report.cells.iter().filter(|cell| verdict(cell).is_some_and(|(.., met)| !met)).collect();
    match () {
        () if !report.skipped.is_empty() => Exit::Failed,
        () if gate && missed.iter().any(|cell| !is_client_bound(cell)) => Exit::Regression,
        () if gate && !missed.is_empty() => Exit::ClientBound,
        () => Exit::Ok,
    }
}

/// What was found, for people: a line for each event, below the table of all figures.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = report.table();
    text.push('\n');
    // Writing to a string does not fail, here and below.
    for cell in &report.cells {
        let name = cell.name.split_once(':').map_or(cell.name.as_str(), |(name, _)| name);
        let _ = match verdict(cell) {
            Some((best, median, met)) => {
                let word = if met { "met" } else { "MISSED" };
                let doubt = if is_client_bound(cell) {
                    "; the load was the limit: latencies are the client's"
                } else {
                    ""
                };
                writeln!(
                    text,
                    "{name:<14} p99 {median:.3} ms, best round {best:.3}, bar < {BAR_P99_MS}: {word}{doubt}"
                )
            }
            None => writeln!(text, "{name:<14} not measured"),
        };
    }
    text
}

/// What the command does, for `bench explain`.
#[must_use]
pub fn explain() -> String {
    let mut text = format!(
        "pauses: latency while a server does something else as well\n\n\
         Each trial starts a fresh server on its core, stores the keys (16 B and {VALUE_LEN_BYTES} B), finds the peak of a closed loop \
         (pipeline 1, {:.0} % SET), and offers {:.0} % of that in an open loop, Poisson, while one event happens, which begins \
         {:.1} s after recording has. Latency counts from when a request was meant to leave. The bar: p99 below {BAR_P99_MS} ms, as the median of the \
         rounds, on a machine that does nothing else. A trial whose event did not happen within the recorded time is an error.\n\n",
        SET_SHARE * 100.0,
        RATE_SHARE * 100.0,
        LEAD_NS as f64 / 1e9,
    );
    for Row { name, about, evidence, .. } in EVENTS {
        let _ = writeln!(text, "  {name:<10} {about}\n  {:<10} counts when {evidence}", "");
    }
    text.push_str(
        "\nThe replica of full-sync shares the load's core, since a machine of two cores has no third: foreign_client_core says how much of it \
         others used, replica_busy how much the replica did.\n",
    );
    text
}

#[cfg(test)]
mod tests;
