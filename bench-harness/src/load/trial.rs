//! One trial: a load on one server for a fixed time, and what it cost.
//!
//! Invariants: the server's CPU clock and the replies are read at the same two moments, after the
//! warm-up and at the end; a trial with a wrong reply or a broken connection is an error, not a
//! result. Next: `compare` repeats trials.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::arena;
use super::generator::Generator;
pub use super::limit::Limit;
use super::limit::{self, Signs};
use super::protocol::{Asked, Codec, Ordered, Verdict};
use super::tally::{self, Tally};
use super::{Arrivals, Target, Workload, draws, plain, ring};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::process::{Counted, Counters, Server, Usage};
use crate::report::hdr;
use crate::steady::{self, Steadiness, Windows};

/// How long the server's calls are counted after the recorded time, a fifth of which it is.
const COUNT_NS_MIN: u64 = 20 * MILLISECOND_NS;
const COUNT_NS_MAX: u64 = 200 * MILLISECOND_NS;
/// Requests written before their replies are read when keys are loaded.
const PREFILL_BYTES: usize = 128 << 10;

/// What moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The engine's ring.
    Ring,
    /// The ring, without ever sleeping.
    Spin,
    /// Standard sockets, for checks only.
    Plain,
}

/// How long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Before anything is recorded.
    pub warmup_ns: u64,
    /// Recorded.
    pub duration_ns: u64,
}

/// Latency in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Mean.
    pub mean_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// The largest.
    pub max_ns: u64,
}

impl Latency {
    pub(crate) fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        Self {
            mean_ns: histogram.mean() as u64,
            p50_ns: histogram.value_at_quantile(0.50),
            p90_ns: histogram.value_at_quantile(0.90),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

/// The result of a trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// When recording began, in microseconds since the Unix epoch.
    pub begun_unix_us: u64,
    /// Recorded time.
    pub elapsed_ns: u64,
    /// Replies in that time.
    pub replies: u64,
    /// Replies including those of the warm-up, and of the time after in which calls were counted.
    pub replies_with_warmup: u64,
    /// Replies per second.
    pub rate: f64,
    /// CPU time of the server's process for one reply.
    pub server_cpu_ns_per_op: f64,
    /// CPU time of the client's thread for one reply, without what it spun away.
    pub client_cpu_ns_per_op: f64,
    /// Share of one core.
    pub server_busy: f64,
    /// Share of its core, without what it spun away in open loop.
    pub client_busy: f64,
    /// Share of time in which something else, such as the hypervisor, had the client's core, as
    /// far as a client that spins can see.
    pub client_lost: f64,
    /// Share of time the server's threads were runnable and did not run.
    pub server_wait: f64,
    /// Share of the server's core that others used or the hypervisor took (10 ms ticks: rough).
    pub foreign: f64,
    /// From the intended time to the reply.
    pub latency: Latency,
    /// From when a request was handed to the transport to the reply.
    pub service: Latency,
    /// Open loop: how late requests left.
    pub lag: Latency,
    /// Open loop: arrivals.
    pub offered: u64,
    /// Open loop: arrivals whose requests left.
    pub started: u64,
    /// Open loop: arrivals that found no room.
    pub missed: u64,
    /// Requests that waited for a reply at the end.
    pub unanswered: u64,
    /// How long the oldest of them had waited.
    pub oldest_unanswered_ns: u64,
    /// GETs that found nothing.
    pub misses: u64,
    /// Context switches of the server for one reply.
    pub switches_per_op: f64,
    /// Time its threads were runnable and did not run, for one reply.
    #[serde(default)]
    pub wait_ns_per_op: f64,
    /// System calls of the server for one reply, where they can be counted from outside.
    #[serde(default)]
    pub syscalls_per_op: Option<f64>,
    /// Its instructions for one reply, in the kernel too, where the machine counts them.
    #[serde(default)]
    pub instructions_per_op: Option<f64>,
    /// Its cycles for one reply, in the kernel too, where the machine counts them.
    #[serde(default)]
    pub cycles_per_op: Option<f64>,
    /// Who set the pace.
    pub limit: Limit,
    /// All of `latency`: an HdrHistogram of nanoseconds, V2, deflated, in base64.
    pub latency_hdr: String,
    /// Why that is said, where it is not plain.
    pub limit_why: Option<String>,
    /// The steps of a load that has some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepResult>,
    /// Replies and CPU time in windows of 100 ms, where the load is the same all the time and lasts for some.
    #[serde(default, skip_serializing_if = "Windows::is_empty")]
    pub windows: Windows,
    /// Whether it had reached its steady state.
    #[serde(default)]
    pub steadiness: Steadiness,
    /// Latency by what was asked, where requests are drawn as they leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Kinds>,
}

/// Latencies of the replies of each kind, of those there were.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Kinds {
    /// GETs.
    pub read: Option<Latency>,
    /// SETs.
    pub write: Option<Latency>,
    /// A GET and the SET that follows it, from when the one was due to the reply to the other.
    pub read_modify_write: Option<Latency>,
}

/// What came of one step, by the time replies came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepResult {
    /// Offered rate.
    pub offered_rate: f64,
    /// Recorded time.
    pub elapsed_ns: u64,
    /// Replies per second.
    pub rate: f64,
    /// Arrivals that found no room.
    pub missed: u64,
    /// From the intended time to the reply.
    pub latency: Latency,
    /// From when a request was handed to the transport to the reply.
    pub service: Latency,
}

enum Mover {
    Ring(Box<ring::OnRing>),
    Plain(plain::Plain),
}

impl Mover {
    fn run_until(&mut self, generator: &mut Generator, deadline_ns: u64) {
        match self {
            Self::Ring(mover) => mover.run_until(generator, deadline_ns),
            Self::Plain(mover) => mover.run_until(generator, deadline_ns),
        }
    }

    /// CPU time spent on waiting, and time in which something else had the core.
    const fn waited_ns(&self) -> (u64, u64) {
        match self {
            Self::Ring(mover) => (mover.idle_ns(), mover.lost_ns()),
            Self::Plain(_) => (0, 0),
        }
    }
}

/// Whether a trial can be made of `workload`; says so before anything is sent.
///
/// # Errors
/// It cannot; the text says what to change.
pub fn check_workload(workload: &Workload, targets: &[Target]) -> Result<()> {
    Codec::check(workload).map_err(anyhow::Error::msg)?;
    draws::check(workload, targets).map_err(anyhow::Error::msg)
}

/// Runs one trial against `server`, whose keys are in place.
///
/// # Errors
/// The server refuses, leaves, or answers wrongly.
pub fn run(
    workload: &Workload,
    targets: &[Target],
    server: &Server,
    server_cpu: usize,
    transport: Transport,
    timing: Timing,
) -> Result<Trial> {
    check_workload(workload, targets)?;
    let mut generator = Generator::new(workload, targets);
    let mut mover = match transport {
        Transport::Ring => Mover::Ring(Box::new(ring::OnRing::connect(&generator, false)?)),
        Transport::Spin => Mover::Ring(Box::new(ring::OnRing::connect(&generator, true)?)),
        Transport::Plain => Mover::Plain(plain::Plain::connect(&generator)?),
    };
    let start_ns = clock::mono_ns();
    generator.start(start_ns);
    mover.run_until(&mut generator, start_ns + timing.warmup_ns);
    let warmup = generator.take_tally();
    // The first reply may take longer than that: 1,000 pipelines of large values are a lot to send.
    check(&generator, &warmup)?;
    let before = Reading::take(server, server_cpu, &mover);
    let end_ns = before.at_ns + timing.duration_ns;
    let mut steps = Vec::new();
    let mut earlier: Option<Tally> = None;
    let mut from_ns = before.at_ns;
    for (index, step_end_ns) in workload.arrivals.step_ends_ns().into_iter().enumerate() {
        let to_ns = (start_ns + step_end_ns).min(end_ns);
        if to_ns <= from_ns {
            continue;
        }
        mover.run_until(&mut generator, to_ns);
        let tally = generator.take_tally();
        steps.push(step_result(workload, index, &tally, to_ns - from_ns));
        earlier = Some(match earlier {
            Some(sum) => sum.with(tally),
            None => tally,
        });
        from_ns = to_ns;
    }
    let windows = run_in_windows(workload, &mut mover, &mut generator, server, end_ns);
    let after = Reading::take(server, server_cpu, &mover);
    let last = generator.close_books(after.at_ns);
    let tally = match earlier {
        Some(sum) => sum.with(last),
        None => last,
    };
    check(&generator, &tally)?;
    let mut trial = result(workload, transport, &tally, &before, &after)?;
    let counted = count(&mut generator, &mut mover, server, timing)?;
    generator.stop();
    counted.enter(&mut trial);
    trial.replies_with_warmup += warmup.replies + counted.replies;
    trial.steps = steps;
    trial.steadiness = windows.judge();
    trial.windows = windows;
    Ok(trial)
}

/// Runs until `end_ns`; in windows, where there are enough of them and the load does not change by itself.
fn run_in_windows(
    workload: &Workload,
    mover: &mut Mover,
    generator: &mut Generator,
    server: &Server,
    end_ns: u64,
) -> Windows {
    let mut windows = Windows::default();
    let is_even = matches!(workload.arrivals, Arrivals::Closed { .. } | Arrivals::Open { .. });
    let look = |generator: &Generator| {
        let cpu_ns = clock::process_cpu_ns(server.pid()).unwrap_or(0);
        (clock::mono_ns(), generator.replies(), cpu_ns)
    };
    let mut last = look(generator);
    let count = end_ns.saturating_sub(last.0) / steady::WINDOW_NS;
    if is_even && count >= steady::WINDOWS_MIN as u64 {
        // The last one takes what is left over.
        let from_ns = last.0;
        let ends = (1..=count).map(|index| from_ns + index * steady::WINDOW_NS);
        for at_ns in ends.take(count as usize - 1).chain([end_ns]) {
            mover.run_until(generator, at_ns);
            let now = look(generator);
            let cpu_ns = now.2.saturating_sub(last.2);
            windows.push(now.0 - last.0, now.1.saturating_sub(last.1), cpu_ns);
            last = now;
        }
    }
    mover.run_until(generator, end_ns);
    windows
}

/// What the kernel counted, and over how many replies.
#[derive(Default)]
struct InCounters {
    counted: Counted,
    replies: u64,
}

impl InCounters {
    fn enter(&self, trial: &mut Trial) {
        // An open loop whose schedule is over has none left.
        let each = |count: Option<u64>| {
            (self.replies > 0)
                .then(|| count.map(|count| count as f64 / self.replies as f64))
                .flatten()
        };
        trial.syscalls_per_op = each(self.counted.syscalls);
        trial.instructions_per_op = each(self.counted.instructions);
        trial.cycles_per_op = each(self.counted.cycles);
    }
}

/// Goes on for a while with the kernel's counters on: apart from the recorded time, since counting makes
/// the calls dearer that it counts.
fn count(
    generator: &mut Generator,
    mover: &mut Mover,
    server: &Server,
    timing: Timing,
) -> Result<InCounters> {
    let mut counters = Counters::of(server.pid());
    if counters.lack_all() {
        return Ok(InCounters::default());
    }
    // Its replies are nobody's.
    generator.take_tally();
    let before = counters.read();
    let window_ns = (timing.duration_ns / 5).clamp(COUNT_NS_MIN, COUNT_NS_MAX);
    mover.run_until(generator, clock::mono_ns() + window_ns);
    let counted = counters.read().since(&before);
    drop(counters);
    let tally = generator.take_tally();
    check(generator, &tally)?;
    Ok(InCounters { counted, replies: tally.replies })
}

fn step_result(workload: &Workload, index: usize, tally: &Tally, elapsed_ns: u64) -> StepResult {
    let offered_rate = match &workload.arrivals {
        Arrivals::Steps { steps, .. } => steps[index].rate,
        _ => 0.0,
    };
    StepResult {
        offered_rate,
        elapsed_ns,
        rate: tally.replies as f64 * SECOND_NS as f64 / elapsed_ns.max(1) as f64,
        missed: tally.missed,
        latency: Latency::of(&tally.latency),
        service: Latency::of(&tally.service),
    }
}

/// The result in a time that is not the machine's, where nothing costs CPU.
///
/// # Errors
/// As [`run`].
pub(crate) fn of_virtual_time(
    workload: &Workload,
    generator: &Generator,
    tally: &Tally,
    elapsed_ns: u64,
) -> Result<Trial> {
    check(generator, tally)?;
    let before = Reading::default();
    let after = Reading { at_ns: elapsed_ns, ..Reading::default() };
    result(workload, Transport::Plain, tally, &before, &after)
}

fn result(
    workload: &Workload,
    transport: Transport,
    tally: &Tally,
    before: &Reading,
    after: &Reading,
) -> Result<Trial> {
    if tally.replies == 0 && tally.offered == 0 && workload.arrivals.is_open() {
        bail!(
            "no request was due in {:.3} s: at so low a rate it takes longer trials",
            (after.at_ns - before.at_ns) as f64 / SECOND_NS as f64
        );
    }
    if tally.replies == 0 {
        bail!(
            "no reply at all in {:.3} s: {} requests wait, the oldest for {:.3} s",
            (after.at_ns - before.at_ns) as f64 / SECOND_NS as f64,
            tally.unanswered,
            tally.oldest_unanswered_ns as f64 / SECOND_NS as f64
        );
    }
    Ok(summarise(workload, transport, tally, before, after))
}

fn check(generator: &Generator, tally: &Tally) -> Result<()> {
    if let Some(why) = generator.broken() {
        bail!("{why}");
    }
    if tally.wrong > 0 {
        let first = tally.first_wrong.as_deref().unwrap_or_default();
        bail!("{} wrong replies, the first: {first}", tally.wrong);
    }
    Ok(())
}

/// All clocks at one moment.
#[derive(Default)]
struct Reading {
    at_ns: u64,
    usage: Usage,
    client_ns: u64,
    lost_ns: u64,
    core_busy_ns: u64,
}

impl Reading {
    fn take(server: &Server, server_cpu: usize, mover: &Mover) -> Self {
        let core_busy_ns = core_busy_ns(server_cpu);
        let usage = server.usage();
        let (idle_ns, lost_ns) = mover.waited_ns();
        let client_ns = clock::thread_cpu_ns().saturating_sub(idle_ns);
        Self { at_ns: clock::mono_ns(), usage, client_ns, lost_ns, core_busy_ns }
    }
}

/// Time CPU `cpu` was not idle, stolen time included, from `/proc/stat` (ticks of 10 ms).
pub(crate) fn core_busy_ns(cpu: usize) -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{cpu} ");
    let Some(line) = text.lines().find_map(|line| line.strip_prefix(&name)) else { return 0 };
    let ticks: Vec<u64> =
        line.split_whitespace().filter_map(|word| word.parse().ok()).take(8).collect();
    // user nice system idle iowait irq softirq steal
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (ticks.iter().sum::<u64>() - idle) * (SECOND_NS / 100)
}

fn kinds(tally: &tally::Kinds) -> Kinds {
    let of = |histogram: &hdrhistogram::Histogram<u64>| {
        (!histogram.is_empty()).then(|| Latency::of(histogram))
    };
    Kinds { read: of(&tally.reads), write: of(&tally.writes), read_modify_write: of(&tally.pairs) }
}

fn summarise(
    workload: &Workload,
    transport: Transport,
    tally: &Tally,
    before: &Reading,
    after: &Reading,
) -> Trial {
    let elapsed_ns = (after.at_ns - before.at_ns).max(1);
    let share = |ns: u64| ns as f64 / elapsed_ns as f64;
    let usage = after.usage.since(&before.usage);
    let client_ns = after.client_ns.saturating_sub(before.client_ns);
    let ops = tally.replies.max(1) as f64;
    let latency = Latency::of(&tally.latency);
    let lag = Latency::of(&tally.lag);
    let (server_busy, client_busy) = (share(usage.cpu_ns), share(client_ns));
    let (limit, limit_why) = limit::judge(&Signs {
        open: workload.arrivals.is_open(),
        spins: transport == Transport::Spin,
        p99_ns: latency.p99_ns,
        lag_p99_ns: lag.p99_ns,
        missed: tally.missed,
        client_busy,
        server_busy,
    });
    let core_ns = after.core_busy_ns.saturating_sub(before.core_busy_ns);
    Trial {
        begun_unix_us: clock::unix_us().saturating_sub(elapsed_ns / 1_000),
        elapsed_ns,
        replies: tally.replies,
        replies_with_warmup: tally.replies,
        rate: tally.replies as f64 * SECOND_NS as f64 / elapsed_ns as f64,
        server_cpu_ns_per_op: usage.cpu_ns as f64 / ops,
        client_cpu_ns_per_op: client_ns as f64 / ops,
        server_busy,
        client_busy,
        client_lost: share(after.lost_ns - before.lost_ns),
        server_wait: share(usage.wait_ns),
        foreign: share(core_ns.saturating_sub(usage.cpu_ns)),
        latency,
        service: Latency::of(&tally.service),
        lag,
        offered: tally.offered,
        started: tally.started,
        missed: tally.missed,
        unanswered: tally.unanswered,
        oldest_unanswered_ns: tally.oldest_unanswered_ns,
        misses: tally.misses,
        switches_per_op: (usage.switches_voluntary + usage.switches_forced) as f64 / ops,
        wait_ns_per_op: usage.wait_ns as f64 / ops,
        syscalls_per_op: None,
        instructions_per_op: None,
        cycles_per_op: None,
        limit,
        latency_hdr: hdr::encode(&tally.latency),
        limit_why,
        steps: Vec::new(),
        kinds: tally.kinds.as_deref().map(kinds),
        windows: Windows::default(),
        steadiness: Steadiness::Unjudged,
    }
}

/// Stores all keys of a workload, each at the target that serves it; none where the protocol has none.
///
/// # Errors
/// A server does not take them.
pub fn prefill(workload: &Workload, targets: &[Target]) -> Result<()> {
    if !workload.protocol.has_keys() {
        return Ok(());
    }
    let codec = Codec::new(workload);
    for target in targets {
        let keys = (0..workload.keys).filter(|&key| arena::serves(target, key));
        prefill_one(&codec, target.addr, keys)
            .with_context(|| format!("store keys at {}", target.addr))?;
    }
    Ok(())
}

fn prefill_one(codec: &Codec, addr: SocketAddr, keys: impl Iterator<Item = u32>) -> Result<()> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
    let mut reader = BufReader::with_capacity(1 << 16, &stream);
    let mut decoder = Ordered::new(codec.protocol);
    let mut requests = Vec::with_capacity(PREFILL_BYTES * 2);
    let mut keys = keys.peekable();
    while keys.peek().is_some() {
        requests.clear();
        let mut asked = Vec::new();
        while requests.len() < PREFILL_BYTES
            && let Some(key) = keys.next()
        {
            asked.push(Asked { key, set: true });
            codec.encode(Asked { key, set: true }, &mut requests);
        }
        (&stream).write_all(&requests)?;
        for asked in asked {
            read_reply(&mut reader, &mut decoder, codec, asked)?;
        }
    }
    Ok(())
}

/// Reads one reply and takes only the right one.
///
/// # Errors
/// Another reply, or none.
pub fn read_reply(
    reader: &mut BufReader<&TcpStream>,
    decoder: &mut Ordered,
    codec: &Codec,
    asked: Asked,
) -> Result<()> {
    loop {
        if reader.buffer().is_empty() {
            // Fills the buffer without taking from it. The end of an earlier trial's ring can
            // interrupt the call.
            match reader.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
                Ok([]) => bail!("closed by the server"),
                Ok(_) => {}
            }
        }
        let held = reader.buffer();
        let (used, verdict) = match decoder.feed(codec, asked, held) {
            Ok(fed) => fed,
            Err(lost) => bail!("not a reply: {}", lost.0),
        };
        reader.consume(used);
        match verdict {
            None => {}
            Some(Verdict::Right) => return Ok(()),
            Some(other) => bail!("answered {other:?}"),
        }
    }
}
