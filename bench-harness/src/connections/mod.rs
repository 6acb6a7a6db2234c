//! Memory of a connection: how a server's memory grows with connections that are idle, and with those
//! that have been used.
//!
//! Why a slope and not a difference: a server allocates in steps, so its memory is read with no, some and
//! many connections, and the figure is the least-squares line through these. A run is two fresh servers:
//! on the first nothing is ever asked but by the last connection, which shows that all were accepted; on the
//! second each connection has one request behind it. Runs of the servers alternate; the interval is that of
//! the mean of runs (Student's t), so it says how well a run repeats, not that the growth is a line.
//! Invariants: memory is read when it no longer changes; both sides may open as many files as it takes, or the
//! run is refused with the limit. Next: `kernel` for what is not the process's memory.

mod kernel;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::compare::PORTS_EACH;
use crate::figures::{Contender, Figures, Report, alternate};
use crate::load::protocol::Codec;
use crate::load::trial;
use crate::load::{Target, Workload};
use crate::peers::{self, Peer, Place, Ports, Protocol};
use crate::process::Server;
use crate::scenario::measure::{WARM_CONNECTIONS, connect, get_once, settled_rss};

/// Files a process has beside its connections.
const OTHER_FILES: u64 = 64;
/// Keys that are there to be asked for.
const KEYS: u32 = 1000;
/// Read buffer of a connection on the other runtimes.
const READ_BUFFER_BYTES: usize = 4096;
/// The most connections of one run.
pub const CONNECTIONS_MAX: usize = 100_000;
/// The figures, with what they are called in text.
pub const FIGURES: [(&str, &str); 6] = [
    ("rss_b_per_idle", "resident, idle"),
    ("rss_b_per_used", "resident, used once"),
    ("buffers_b_per_idle", "socket buffers of the server, idle"),
    ("buffers_b_per_used", "socket buffers of the server, used once"),
    ("objects_b_per_idle", "kernel objects of both ends, idle"),
    ("objects_b_per_used", "kernel objects of both ends, used once"),
];

/// What is measured, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Servers, by name.
    pub peers: Vec<String>,
    /// Numbers of connections, ascending; the first is usually none.
    pub at: Vec<usize>,
    /// Runs of each server.
    pub runs: usize,
    /// Core of the servers.
    pub server_cpu: usize,
    /// Core of this process.
    pub client_cpu: usize,
    /// First port.
    pub port: u16,
}

/// Memory at one number of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// How many.
    pub connections: usize,
    /// Resident memory of the server.
    pub rss_bytes: u64,
    /// Buffers of the server's sockets.
    pub buffers_bytes: u64,
    /// Objects of the kernel, of both ends.
    pub objects_bytes: Option<u64>,
}

/// Measures all servers.
///
/// # Errors
/// The numbers make no sense, or more connections are asked for than there may be. A server that does not
/// work is a line of the report.
pub fn run(options: &Options, own_network: bool) -> Result<Report> {
    ensure!(
        options.at.len() >= 2 && options.at.is_sorted_by(|a, b| a < b),
        "at least two numbers of connections, in ascending order, not {:?}",
        options.at
    );
    let most = options.at.last().copied().unwrap_or(0);
    ensure!(most <= CONNECTIONS_MAX, "at most {CONNECTIONS_MAX} connections, not {most}");
    raise_files(most)?;
    let chosen = options.peers.iter().map(|name| peers::find(name)).collect::<Result<Vec<_>>>()?;
    let mut report = Report::new("connections", own_network);
    let last = options.port.saturating_add(999);
    let ports = std::cell::RefCell::new(Ports::new(options.port, last));
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for peer in chosen {
        match peer.version() {
            Ok(version) => report.versions.push(format!("{}: {version}", peer.name)),
            Err(error) => {
                report.skipped.push(format!("{}: not present: {error:#}", peer.name));
                continue;
            }
        }
        let ports = &ports;
        let trial = move || {
            let mut place = || place(options, ports.borrow_mut().take(PORTS_EACH));
            one(peer, &mut place, &options.at)
        };
        contenders.push((peer.name.as_str(), Box::new(trial)));
    }
    let name = format!("memory of a connection, at {:?} connections", options.at);
    let cell = alternate(&name, options.runs.max(1), &contenders, &mut report.skipped);
    report.cells.push(cell);
    Ok(report)
}

fn place(options: &Options, port: u16) -> Place {
    Place {
        port,
        admin: port + PORTS_EACH - 1,
        shards: 1,
        cpus: vec![options.server_cpu],
        read_buffer: READ_BUFFER_BYTES,
        client_cpu: options.client_cpu,
        fifo: false,
    }
}

/// One run: a server whose connections are idle, and one whose have been used.
fn one(peer: &Peer, place: &mut dyn FnMut() -> Place, at: &[usize]) -> Result<Figures> {
    let protocol = peer.protocol()?;
    let mut figures = Figures::new();
    for (used, names) in [(false, [0, 2, 4]), (true, [1, 3, 5])] {
        let place = place();
        let server = peer.start(&place)?;
        let addr = peer.addr(&place, protocol.name());
        let points = grow(&server, protocol, addr, at, used)?;
        let slopes: [Option<f64>; 3] = [
            slope(&points, |point| Some(point.rss_bytes)),
            slope(&points, |point| Some(point.buffers_bytes)),
            slope(&points, |point| point.objects_bytes),
        ];
        for (name, slope) in names.into_iter().zip(slopes) {
            figures.extend(slope.map(|slope| (FIGURES[name].0, slope)));
        }
        if let (false, Some(first)) = (used, points.first()) {
            figures.insert("rss_mb_at_first", first.rss_bytes as f64 / 1e6);
        }
    }
    Ok(figures)
}

/// Opens connections up to each number of `at` and reads memory there; `used`: each asks once.
///
/// # Errors
/// The server may not open as many files, refuses, or answers wrongly.
pub fn grow(
    server: &Server,
    protocol: Protocol,
    addr: SocketAddr,
    at: &[usize],
    used: bool,
) -> Result<Vec<Point>> {
    ensure!(
        protocol != Protocol::Http2 && protocol != Protocol::Resp3,
        "connections that greet are not idle: another protocol than {}",
        protocol.name()
    );
    let most = at.last().copied().unwrap_or(0) as u64;
    let files = server_files(server.pid())?;
    if files < most + OTHER_FILES {
        bail!("{most} connections: the server may open {files} files");
    }
    let mut workload = Workload::new(protocol, 1);
    workload.keys = KEYS;
    trial::prefill(&workload, &[Target::all_keys(addr)])?;
    let codec = Codec::new(&workload);
    for _ in 0..WARM_CONNECTIONS {
        get_once(&codec, &connect(addr)?)?;
    }
    let mut streams: Vec<TcpStream> = Vec::with_capacity(at.last().copied().unwrap_or(0));
    let mut points = Vec::new();
    for &connections in at {
        while streams.len() < connections {
            let stream = connect(addr)?;
            if used {
                get_once(&codec, &stream)?;
            }
            streams.push(stream);
        }
        // Connections are accepted in order, so its reply says that all before it are in.
        let last = connect(addr)?;
        get_once(&codec, &last)?;
        drop(last);
        let rss_bytes = settled_rss(server)?;
        let (established, buffers_bytes) = kernel::buffers(addr.port())?;
        if established < connections as u64 {
            bail!("of {connections} connections {established} are established");
        }
        let objects_bytes = kernel::objects();
        points.push(Point { connections, rss_bytes, buffers_bytes, objects_bytes });
    }
    Ok(points)
}

/// The least-squares line's growth for one connection.
#[must_use]
pub fn slope(points: &[Point], of: impl Fn(&Point) -> Option<u64>) -> Option<f64> {
    let pairs: Vec<(f64, f64)> = points
        .iter()
        .map(|point| Some((point.connections as f64, of(point)? as f64)))
        .collect::<Option<_>>()?;
    let count = pairs.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| pairs.iter().map(pick).sum::<f64>() / count;
    let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let covariance: f64 = pairs.iter().map(|pair| (pair.0 - x) * (pair.1 - y)).sum();
    let variance: f64 = pairs.iter().map(|pair| (pair.0 - x).powi(2)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

/// Mean with the half width of its 95 % interval, which takes two values at least.
#[must_use]
pub fn mean_and_reach(values: &[f64]) -> Option<(f64, Option<f64>)> {
    /// Student's t at 97.5 % for 1 to 10 degrees of freedom.
    const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 {
        return Some((mean, None));
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // Beyond the table, its last value is the wider one.
    let t = T[(values.len() - 2).min(T.len() - 1)];
    Some((mean, Some(t * (variance / count).sqrt())))
}

/// Slopes with their intervals, a line each.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for side in report.cells.iter().flat_map(|cell| &cell.sides) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}, bytes a connection:", side.name);
        for (figure, title) in FIGURES {
            let Some((mean, reach)) = mean_and_reach(&side.values(figure)) else {
                let _ = writeln!(text, "  {title:42} n/a");
                continue;
            };
            let _ = match reach {
                Some(reach) => writeln!(
                    text,
                    "  {title:42} {mean:8.0} [{:.0}, {:.0}]",
                    mean - reach,
                    mean + reach
                ),
                None => writeln!(text, "  {title:42} {mean:8.0} (one run: no interval)"),
            };
        }
    }
    for skipped in &report.skipped {
        let _ = writeln!(text, "skipped: {skipped}");
    }
    text
}

/// Lets this process, and what it starts, open `connections` and some more.
///
/// # Errors
/// The hard limit is below that.
pub fn raise_files(connections: usize) -> Result<()> {
    let needed = connections as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < needed) {
        let most = limit.maximum.unwrap_or(0);
        bail!(
            "{connections} connections need {needed} files, of which {most} may be open: raise the hard limit (ulimit -Hn)"
        );
    }
    if limit.current.is_some_and(|now| now < needed) {
        let raised = Rlimit { current: limit.maximum.or(Some(needed)), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    }
    Ok(())
}

/// How many files process `pid` may open.
fn server_files(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/limits");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).context("no limit of files")?;
    Ok(soft.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_found_and_steps_are_averaged() {
        let point = |connections, rss_bytes| Point { connections, rss_bytes, ..Point::default() };
        let line = [point(0, 500), point(1_000, 500 + 7_000), point(10_000, 500 + 70_000)];
        assert_eq!(slope(&line, |point| Some(point.rss_bytes)), Some(7.0));
        assert_eq!(slope(&line, |point| point.objects_bytes), None);
        assert_eq!(slope(&line[..1], |point| Some(point.rss_bytes)), None);
    }

    #[test]
    fn intervals_are_those_of_student() {
        assert_eq!(mean_and_reach(&[]), None);
        assert_eq!(mean_and_reach(&[4.0]), Some((4.0, None)));
        let (mean, reach) = mean_and_reach(&[1.0, 2.0, 3.0]).expect("three values");
        // t(2) = 4.303 times a standard error of 1 / sqrt(3).
        assert!((mean - 2.0).abs() < 1e-9 && (reach.expect("three") - 2.484).abs() < 1e-3);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let refused = |at: &[usize]| {
            let options = Options {
                peers: Vec::new(),
                at: at.to_vec(),
                runs: 1,
                server_cpu: 0,
                client_cpu: 0,
                port: 27_000,
            };
            format!("{:#}", run(&options, false).expect_err("refused"))
        };
        assert!(refused(&[5]).contains("at least two"));
        assert!(refused(&[5, 5]).contains("ascending"));
        assert!(refused(&[0, CONNECTIONS_MAX + 1]).contains("at most"));
    }
}
