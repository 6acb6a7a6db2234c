//! Sessions behind a socket: our generator against a server process for each runtime.

use anyhow::{Result, bail};

use super::table::{AGAIN, Column, Report};
use super::{Contender, Options, Progress, What, measure};
use crate::clock::MILLISECOND_NS;
use crate::compare::PORTS_EACH;
use crate::figures::Figures;
use crate::load::trial::{self, Timing, Transport};
use crate::load::{Arrivals, Target, Workload};
use crate::peers::{self, Peer, Place, Ports, Protocol};

/// Requests in a pipeline, in closed loop.
const PIPELINES: [u32; 2] = [1, 16];
/// Before anything is recorded.
const WARMUP_NS: u64 = 200 * MILLISECOND_NS;
/// Ports that are gone through before one is used again.
const PORTS: u16 = 999;
/// Read buffer of a connection on the other runtimes.
const READ_BUFFER_BYTES: usize = 4096;

const COLUMNS: &[Column] = &[
    Column { figure: "cpu_ns_per_op", title: "CPU ns/op" },
    Column { figure: "rate", title: "replies/s" },
    Column { figure: "p99_us", title: "p99 us" },
];

/// Rows of `peers` by what is asked: our engine, the same again, and the others.
fn sides(what: What) -> Vec<(&'static str, &'static str)> {
    let names = [
        ("engine", "engine", "echo-engine"),
        (AGAIN, "engine", "echo-engine"),
        ("monoio", "monoio", "echo-monoio"),
        ("monoio-defer", "monoio-defer", "echo-monoio-defer"),
        ("glommio", "glommio", "echo-glommio"),
        ("tokio", "tokio", "echo-tokio"),
    ];
    let pick = |(side, cache, echo)| (side, if what == What::Echo { echo } else { cache });
    let mut sides: Vec<_> = names.into_iter().map(pick).collect();
    if what == What::Cache {
        // As it is shipped: with its own allocator and its own way between shards.
        sides.push(("cache (shipped)", "cache"));
    }
    sides
}

pub(super) fn run(what: What, options: &Options, report: &mut Report, progress: &mut Progress<'_>) {
    let title = if what == What::Echo { "echo" } else { "cache" };
    let connections = options.connections;
    let loops: Vec<(String, Arrivals)> = match options.rate {
        Some(rate) => {
            let name = format!("{title}: {connections} connections, {rate} requests/s offered");
            vec![(name, Arrivals::Open { rate, poisson: true })]
        }
        None => PIPELINES
            .iter()
            .map(|&pipeline| {
                let name = format!("{title}: {connections} connections, pipeline {pipeline}");
                (name, Arrivals::Closed { pipeline })
            })
            .collect(),
    };
    let ports =
        std::cell::RefCell::new(Ports::new(options.port, options.port.saturating_add(PORTS)));
    for (name, arrivals) in loops {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.arrivals = arrivals;
        workload.connections = connections;
        workload.seed = options.seed;
        let contender = |(side, peer): (&'static str, &'static str)| {
            let (workload, ports) = (workload.clone(), &ports);
            let peer = peers::find(peer);
            let version = peer.as_ref().ok().and_then(|peer| peer.version().ok());
            Contender {
                name: side,
                version: version.unwrap_or_default(),
                trial: Box::new(move || {
                    let peer = peer.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                    let port = ports.borrow_mut().take(PORTS_EACH);
                    one(peer, &workload, port, options)
                }),
            }
        };
        let contenders = sides(what).into_iter().map(contender).collect();
        let cell = measure(what, name, COLUMNS, contenders, options, progress);
        report.cells.push(cell);
    }
}

fn one(peer: &Peer, workload: &Workload, port: u16, options: &Options) -> Result<Figures> {
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
    let targets = [Target::all_keys(place.addr())];
    trial::prefill(workload, &targets)?;
    let timing = Timing { warmup_ns: WARMUP_NS, duration_ns: options.trial_ns };
    let cpu = options.server_cpu;
    let trial = trial::run(workload, &targets, &server, cpu, Transport::Ring, timing)?;
    if trial.misses > 0 {
        bail!("{} GETs of {} found nothing", trial.misses, trial.replies);
    }
    Ok(Figures::from([
        ("cpu_ns_per_op", trial.server_cpu_ns_per_op),
        ("rate", trial.rate),
        ("p50_us", trial.latency.p50_ns as f64 / 1e3),
        ("p99_us", trial.latency.p99_ns as f64 / 1e3),
        ("server_busy", trial.server_busy),
        ("client_busy", trial.client_busy),
        ("foreign", trial.foreign),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_is_a_server_that_can_be_started() {
        for what in [What::Echo, What::Cache] {
            let sides = sides(what);
            assert_eq!(sides[0].1, sides[1].1, "equals come first");
            assert!(sides.iter().all(|(_, peer)| peers::find(peer).is_ok()));
        }
    }
}
