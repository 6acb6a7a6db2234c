//! One trial of each kind: a load of ours, redis-benchmark, idle connections, stored keys.
//!
//! Invariants: a trial starts its own server and stops it; memory is read once it no longer
//! changes; what a server counts itself (system calls, hops) is read from its admin port and is
//! missing where there is none. Next: `cells` says which trials make up a row.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wire::resp::{Reply, decode_reply};

use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::compare::{Bench, Cell, Metric, Sample, Side};
use crate::load::arena::{Asked, KEY_LEN_BYTES};
use crate::load::protocol::{Codec, Ordered};
use crate::load::trial::{self, Timing};
use crate::load::{Target, Workload};
use crate::peers::{self, Place, Protocol};
use crate::process::Server;

/// System calls a server of ours made, as its admin port names them; they add up.
const SYSCALLS: &[&str] = &["engine_enters_total", "engine_other_syscalls_total"];
/// Commands handed to another shard.
const HOPS: &[&str] = &["cache_hopped_commands_total"];
/// Memory has settled when this many readings in a row agree.
const SETTLED_READINGS: usize = 3;
/// Between two readings.
const SETTLE_NS: u64 = 100 * MILLISECOND_NS;
/// Longest wait for it.
const SETTLE_MAX_NS: u64 = 5 * SECOND_NS;
/// An answer to an administrative request, at most.
const REPLY_MAX_BYTES: usize = 1 << 20;
/// Connections opened before any measured one, so that lazily built state is in place.
pub(crate) const WARM_CONNECTIONS: usize = 16;

/// A kind of trial.
#[derive(Clone, Debug)]
pub enum Measure {
    /// Our generator; the protocol is the server's.
    Load(Workload),
    /// redis-benchmark with 50 connections.
    RedisBenchmark {
        /// Requests in a pipeline.
        pipeline: u32,
        /// SET; else GET.
        set: bool,
        /// How many requests.
        requests: u64,
    },
    /// Idle connections.
    Idle {
        /// How many.
        connections: usize,
    },
    /// Stored keys of 16 B.
    Keys {
        /// How many.
        keys: u32,
        /// Length of their values.
        value_len_bytes: usize,
    },
}

impl Measure {
    /// About how long one trial takes, without starting and stopping the server.
    #[must_use]
    pub fn estimate_ns(&self, timing: Timing) -> u64 {
        match self {
            Self::Load(workload) => {
                let bytes = u64::from(workload.keys) * (64 + workload.value_len_bytes as u64);
                timing.warmup_ns + timing.duration_ns + bytes * 5
            }
            Self::RedisBenchmark { pipeline, requests, .. } => {
                requests * 12_000 / u64::from((*pipeline).clamp(1, 16))
            }
            Self::Idle { connections } => 2 * SECOND_NS + *connections as u64 * 150_000,
            Self::Keys { keys, .. } => SECOND_NS + u64::from(*keys) * 2_500,
        }
    }
}

/// Runs one trial of `cell` for `side` at `place`.
///
/// # Errors
/// The server is missing, does not start, or answers wrongly.
pub fn run(bench: &Bench, cell: &Cell, side: &Side, place: &Place) -> Result<Sample> {
    let server = side.peer.start(place)?;
    match &cell.measure {
        Measure::Load(workload) => load(bench, cell, side, place, &server, workload),
        Measure::RedisBenchmark { pipeline, set, requests } => {
            redis_benchmark(place, &server, *pipeline, *set, *requests)
        }
        Measure::Idle { connections } => {
            idle(side.peer.protocol()?, place.addr(), &server, *connections)
        }
        Measure::Keys { keys, value_len_bytes } => {
            keys_stored(side.peer.protocol()?, place.addr(), &server, *keys, *value_len_bytes)
        }
    }
}

fn load(
    bench: &Bench,
    cell: &Cell,
    side: &Side,
    place: &Place,
    server: &Server,
    workload: &Workload,
) -> Result<Sample> {
    let mut workload = workload.clone();
    workload.protocol = match side.protocol {
        Some(protocol) => protocol,
        None => side.peer.protocol()?,
    };
    workload.seed = bench.seed;
    let targets = targets(side, place, workload.protocol)?;
    trial::prefill(&workload, &targets)?;
    let before = Counters::read(place);
    let trial =
        trial::run(&workload, &targets, server, side.cpus[0], bench.transport, cell.timing)?;
    if trial.misses > 0 {
        bail!("{} GETs of {} found nothing", trial.misses, trial.replies);
    }
    let mut values = vec![
        (Metric::CpuNsPerOp, trial.server_cpu_ns_per_op),
        (Metric::Rate, trial.rate),
        (Metric::P50Ns, trial.latency.p50_ns as f64),
        (Metric::P99Ns, trial.latency.p99_ns as f64),
        (Metric::SwitchesPerOp, trial.switches_per_op),
        (Metric::WaitNsPerOp, trial.wait_ns_per_op),
    ];
    values.extend(trial.syscalls_per_op.map(|each| (Metric::SyscallsPerOp, each)));
    values.extend(trial.instructions_per_op.map(|each| (Metric::InstructionsPerOp, each)));
    let ops = trial.replies_with_warmup.max(1) as f64;
    if let (Some(before), Some(after)) = (before, Counters::read(place)) {
        for (metric, first, last) in [
            (Metric::SyscallsPerOp, before.syscalls, after.syscalls),
            (Metric::HopsPerOp, before.hops, after.hops),
        ] {
            let is_known = values.iter().any(|(known, _)| *known == metric);
            if let (false, Some(first), Some(last)) = (is_known, first, last) {
                values.push((metric, (last - first) / ops));
            }
        }
    }
    Ok(Sample { values, trial: Some(trial) })
}

/// What a server of ours counts itself.
struct Counters {
    syscalls: Option<f64>,
    hops: Option<f64>,
}

impl Counters {
    fn read(place: &Place) -> Option<Self> {
        let text = peers::http_get(place.admin_addr(), "/metrics").ok()?;
        let total = |names: &[&str]| names.iter().map(|name| peers::metric_sum(&text, name)).sum();
        Some(Self { syscalls: total(SYSCALLS), hops: total(HOPS) })
    }
}

/// Where connections go: one address, or one for each shard with its slots.
fn targets(side: &Side, place: &Place, protocol: Protocol) -> Result<Vec<Target>> {
    if !side.per_shard_ports {
        return Ok(vec![Target::all_keys(side.peer.addr(place, protocol.name()))]);
    }
    let reply = ask(place.addr(), &["CLUSTER", "SLOTS"])?;
    let targets = slots_of(&reply).with_context(|| format!("CLUSTER SLOTS said {reply:?}"))?;
    if targets.len() < side.shards {
        bail!("CLUSTER SLOTS names {} of {} shards", targets.len(), side.shards);
    }
    Ok(targets)
}

fn slots_of(reply: &Reply) -> Option<Vec<Target>> {
    let Reply::Array(ranges) = reply else { return None };
    let mut targets: Vec<Target> = Vec::new();
    for range in ranges {
        let Reply::Array(range) = range else { return None };
        let [Reply::Integer(first), Reply::Integer(last), Reply::Array(node), ..] = &range[..]
        else {
            return None;
        };
        let [_, Reply::Integer(port), ..] = &node[..] else { return None };
        let port = u16::try_from(*port).ok()?;
        let slots = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        match targets.iter_mut().find(|target| target.addr.port() == port) {
            Some(target) => target.slots.push(slots),
            None => targets.push(Target {
                addr: SocketAddr::from(([127, 0, 0, 1], port)),
                slots: vec![slots],
            }),
        }
    }
    (!targets.is_empty()).then_some(targets)
}

/// One RESP command on a connection of its own.
///
/// # Errors
/// No answer, or none that can be read.
pub fn ask(addr: SocketAddr, words: &[&str]) -> Result<Reply> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
    stream.write_all(request.as_bytes())?;
    let mut held = Vec::new();
    let mut part = [0; 4096];
    while held.len() < REPLY_MAX_BYTES {
        match decode_reply(&held) {
            Ok(Some((reply, _))) => return Ok(reply),
            Ok(None) => {}
            Err(error) => bail!("{words:?}: not a reply at byte {}", error.at),
        }
        match stream.read(&mut part)? {
            0 => bail!("{words:?}: closed by the server"),
            len => held.extend_from_slice(&part[..len]),
        }
    }
    bail!("{words:?}: the reply is too long")
}

fn redis_benchmark(
    place: &Place,
    server: &Server,
    pipeline: u32,
    set: bool,
    requests: u64,
) -> Result<Sample> {
    let workload = Workload::new(Protocol::Resp, 1);
    trial::prefill(&workload, &[Target::all_keys(place.addr())])?;
    let before = server.usage();
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &place.port.to_string(), "-c", "50", "-d", "64"])
        .args(["-n", &requests.to_string(), "-P", &pipeline.to_string()])
        .args(["-r", &workload.keys.to_string(), "-t", if set { "set" } else { "get" }, "--csv"])
        .output()
        .context("redis-benchmark (package redis-tools)")?;
    let used = server.usage().since(&before);
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = csv_rate(&text)
        .with_context(|| format!("redis-benchmark, {}: {}", output.status, text.trim()))?;
    Ok(Sample {
        values: vec![
            (Metric::CpuNsPerOp, used.cpu_ns as f64 / requests.max(1) as f64),
            (Metric::Rate, rate),
        ],
        trial: None,
    })
}

/// The rate in redis-benchmark's CSV: the second field of the last line.
fn csv_rate(text: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| line.starts_with('"'))?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}

/// Resident memory once it no longer changes.
///
/// # Errors
/// The server is gone.
pub(crate) fn settled_rss(server: &Server) -> Result<u64> {
    let deadline_ns = clock::mono_ns() + SETTLE_MAX_NS;
    let (mut last, mut agreeing) = (server.rss_bytes()?, 0);
    while agreeing < SETTLED_READINGS && clock::mono_ns() < deadline_ns {
        clock::sleep_ns(SETTLE_NS);
        let now = server.rss_bytes()?;
        agreeing = if now == last { agreeing + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// One request of a key that is there, and its right answer.
///
/// # Errors
/// The server is gone, or answers wrongly.
pub(crate) fn get_once(codec: &Codec, stream: &TcpStream) -> Result<()> {
    let asked = Asked { key: 0, set: false };
    let mut request = Vec::new();
    codec.encode(asked, &mut request);
    let mut writer = stream;
    writer.write_all(&request)?;
    let mut reader = BufReader::with_capacity(256, stream);
    trial::read_reply(&mut reader, &mut Ordered::new(codec.protocol), codec, asked)
}

/// A connection on which nothing is waited for longer than ten seconds.
///
/// # Errors
/// The server is gone.
pub(crate) fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(addr).with_context(|| format!("connect to {addr}"))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    Ok(stream)
}

fn idle(
    protocol: Protocol,
    addr: SocketAddr,
    server: &Server,
    connections: usize,
) -> Result<Sample> {
    let mut workload = Workload::new(protocol, 1);
    workload.keys = 1000;
    trial::prefill(&workload, &[Target::all_keys(addr)])?;
    let codec = Codec::new(&workload);
    for _ in 0..WARM_CONNECTIONS {
        get_once(&codec, &connect(addr)?)?;
    }
    let base = settled_rss(server)?;
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(connect(addr)?);
    }
    // Connections are accepted in order, so the last one's reply says that all are in.
    let last = connect(addr)?;
    get_once(&codec, &last)?;
    let fresh = settled_rss(server)?;
    for stream in &streams {
        get_once(&codec, stream)?;
    }
    let used = settled_rss(server)?;
    let each = |rss: u64| (rss as f64 - base as f64) / connections.max(1) as f64;
    Ok(Sample {
        values: vec![
            (Metric::RssPerConnection, each(fresh)),
            (Metric::RssPerConnectionUsed, each(used)),
        ],
        trial: None,
    })
}

fn keys_stored(
    protocol: Protocol,
    addr: SocketAddr,
    server: &Server,
    keys: u32,
    value_len_bytes: usize,
) -> Result<Sample> {
    let mut workload = Workload::new(protocol, 1);
    workload.value_len_bytes = value_len_bytes;
    workload.keys = 1;
    let targets = [Target::all_keys(addr)];
    trial::prefill(&workload, &targets)?;
    let base = settled_rss(server)?;
    workload.keys = keys;
    trial::prefill(&workload, &targets)?;
    let full = settled_rss(server)?;
    let each = (full as f64 - base as f64) / f64::from(keys.max(1));
    let data = (KEY_LEN_BYTES + value_len_bytes) as f64;
    Ok(Sample { values: vec![(Metric::RssOverPerKey, each - data)], trial: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_gathered_by_port() {
        let node = |port| {
            Reply::Array(vec![
                Reply::Bulk(b"127.0.0.1".to_vec()),
                Reply::Integer(port),
                Reply::Bulk(b"id".to_vec()),
            ])
        };
        let range = |first, last, port| {
            Reply::Array(vec![Reply::Integer(first), Reply::Integer(last), node(port)])
        };
        let reply = Reply::Array(vec![
            range(0, 99, 7001),
            range(100, 8191, 7002),
            range(8192, 16_383, 7001),
        ]);
        let targets = slots_of(&reply).expect("well formed");
        assert_eq!(targets.len(), 2);
        assert_eq!(targets[0].slots, [(0, 99), (8192, 16_383)]);
        assert_eq!(targets[1].addr.port(), 7002);
        assert!(slots_of(&Reply::Null).is_none());
        assert!(slots_of(&Reply::Array(vec![Reply::Null])).is_none());
    }

    #[test]
    fn the_rate_of_redis_benchmark_is_found() {
        let text = "\"test\",\"rps\",\"avg\"\n\"GET\",\"85470.09\",\"0.300\"\n";
        assert_eq!(csv_rate(text), Some(85_470.09));
        assert_eq!(csv_rate("no"), None);
    }
}
