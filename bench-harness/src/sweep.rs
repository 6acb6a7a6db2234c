//! A closed loop at several depths: every number of connections with every length of pipeline, a row each.
//!
//! Why: a server is fast at some depth. One request at a time on few connections shows what a wake-up costs, deep pipelines
//! what a request costs, many connections what a connection costs; a figure at one depth says nothing of the others.
//! Invariants: what runs a trial is a closure, as in `curve`; at most [`ROWS_MAX`] rows; a depth that fails is a row
//! that says why, and the others run; figures are medians of a row's trials. Next: `cli/sweep.rs` for who is asked.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::curve::{REPEATS_MAX, middle_latency};
use crate::load::Workload;
use crate::load::trial::{Latency, Limit, Trial};
use crate::stats::median;
use crate::units::duration;

/// Rows, at most.
pub const ROWS_MAX: usize = 256;

/// One depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Connections in all.
    pub connections: usize,
    /// Requests in flight on each.
    pub pipeline: u32,
}

/// Runs one trial at a depth; the number is new for each trial, to seed it.
pub type RunAt<'a> = dyn FnMut(Depth, u64) -> Result<Trial> + 'a;

/// What came of a depth.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    #[serde(flatten)]
    pub depth: Depth,
    /// The figures.
    pub found: Option<Figures>,
    /// Why there are none.
    pub failed: Option<String>,
}

/// Medians of a row's trials.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Trials.
    pub repeats: usize,
    /// Replies in a trial.
    pub replies: u64,
    /// Replies in a second.
    pub rate: f64,
    /// From when a pipeline was due to the reply.
    pub latency: Latency,
    /// CPU time of the server for one reply.
    pub server_cpu_ns_per_op: f64,
    /// System calls of the server for one reply, where they can be counted.
    pub syscalls_per_op: Option<f64>,
    /// CPU time of the client for one reply.
    pub client_cpu_ns_per_op: f64,
    /// Share of the server's core.
    pub server_busy: f64,
    /// Share of the client's core.
    pub client_busy: f64,
    /// Who set the pace: the client when it did in any trial, else who did in most.
    pub limit: Limit,
    /// The first reason for that, where it is not plain.
    pub limit_why: Option<String>,
}

/// All rows.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// Who was asked.
    pub server: String,
    /// What; its connections and arrivals are those of the rows.
    pub workload: Workload,
    /// By connections, then by pipeline, in the order asked for.
    pub rows: Vec<Row>,
}

/// The depths of `connections` by `pipelines`.
///
/// # Errors
/// There is none, there are too many, or one is nothing.
pub fn depths(connections: &[usize], pipelines: &[u32]) -> Result<Vec<Depth>> {
    let count = connections.len() * pipelines.len();
    ensure!((1..=ROWS_MAX).contains(&count), "a sweep has 1 to {ROWS_MAX} depths, not {count}");
    ensure!(!connections.contains(&0), "a sweep over 0 connections asks nothing");
    ensure!(!pipelines.contains(&0), "a pipeline of 0 requests asks nothing");
    let with =
        |&connections| pipelines.iter().map(move |&pipeline| Depth { connections, pipeline });
    Ok(connections.iter().flat_map(with).collect())
}

/// Runs `repeats` trials at each depth; `progress` hears of every row.
pub fn run(
    run_at: &mut RunAt<'_>,
    depths: &[Depth],
    repeats: usize,
    seed: u64,
    progress: &mut dyn FnMut(&str),
) -> Vec<Row> {
    let repeats = repeats.clamp(1, REPEATS_MAX) as u64;
    let mut rows = Vec::with_capacity(depths.len());
    for &depth in depths {
        // The same for every depth, so that all ask for the same keys.
        let trials: Result<Vec<Trial>> =
            (0..repeats).map(|at| run_at(depth, seed.wrapping_add(at))).collect();
        let row = match trials {
            Ok(trials) => Row { depth, found: Some(figures(&trials)), failed: None },
            Err(error) => Row { depth, found: None, failed: Some(format!("{error:#}")) },
        };
        progress(&line(&row));
        rows.push(row);
    }
    rows
}

fn figures(trials: &[Trial]) -> Figures {
    let middle =
        |figure: &dyn Fn(&Trial) -> f64| median(&trials.iter().map(figure).collect::<Vec<f64>>());
    let calls: Vec<f64> = trials.iter().filter_map(|trial| trial.syscalls_per_op).collect();
    let says = |limit: Limit| trials.iter().filter(|trial| trial.limit == limit).count();
    let limit = match (says(Limit::Client), says(Limit::Server)) {
        (1.., _) => Limit::Client,
        (0, server) if 2 * server > trials.len() => Limit::Server,
        _ => Limit::Neither,
    };
    let why = trials.iter().filter(|trial| trial.limit == limit);
    Figures {
        repeats: trials.len(),
        replies: middle(&|trial| trial.replies as f64) as u64,
        rate: middle(&|trial| trial.rate),
        latency: middle_latency(trials),
        server_cpu_ns_per_op: middle(&|trial| trial.server_cpu_ns_per_op),
        syscalls_per_op: (!calls.is_empty()).then(|| median(&calls)),
        client_cpu_ns_per_op: middle(&|trial| trial.client_cpu_ns_per_op),
        server_busy: middle(&|trial| trial.server_busy),
        client_busy: middle(&|trial| trial.client_busy),
        limit,
        limit_why: why.clone().find_map(|trial| trial.limit_why.clone()),
    }
}

/// The columns of [`line`].
fn head() -> String {
    format!(
        "{:>11} {:>8} {:>11} {:>10} {:>10} {:>12} {:>9} {:>7} {:>7}  limit",
        "connections",
        "pipeline",
        "replies/s",
        "p50",
        "p99",
        "CPU ns/reply",
        "calls",
        "server",
        "client"
    )
}

fn line(row: &Row) -> String {
    let depth = format!("{:>11} {:>8}", row.depth.connections, row.depth.pipeline);
    let Some(found) = &row.found else {
        return format!("{depth}  {}", row.failed.as_deref().unwrap_or("not run"));
    };
    let limit = match found.limit {
        Limit::Server => "server",
        Limit::Client => "client",
        Limit::Neither => "neither",
    };
    format!(
        "{depth} {:>11.0} {:>10} {:>10} {:>12.0} {:>9} {:>5.0} % {:>5.0} %  {limit}",
        found.rate,
        duration(found.latency.p50_ns as f64),
        duration(found.latency.p99_ns as f64),
        found.server_cpu_ns_per_op,
        found.syscalls_per_op.map_or_else(|| "-".to_owned(), |calls| format!("{calls:.3}")),
        found.server_busy * 100.0,
        found.client_busy * 100.0
    )
}

impl Sweep {
    /// The rows as a table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}, a closed loop at every depth\n{}\n", self.server, head());
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(row));
        }
        if self.is_bound_by_client() {
            text.push_str(
                "Where the client was the limit, rates and latencies are its own; the server's CPU and calls still are the server's.\n",
            );
        }
        text
    }

    fn is_bound_by_client(&self) -> bool {
        let found = self.rows.iter().filter_map(|row| row.found.as_ref());
        found.map(|found| found.limit).any(|limit| limit == Limit::Client)
    }

    /// Whether any depth has figures.
    #[must_use]
    pub fn has_figures(&self) -> bool {
        self.rows.iter().any(|row| row.found.is_some())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::clock::{MILLISECOND_NS, SECOND_NS};
    use crate::load::Arrivals;
    use crate::load::trial::Timing;
    use crate::pathology::{Mode, simulate};
    use crate::peers::Protocol;

    /// One server for all, 1 ms each, in virtual time.
    fn queue(depth: Depth, seed: u64) -> Result<Trial> {
        let mut workload = Workload::new(Protocol::Resp, depth.pipeline);
        (workload.keys, workload.seed) = (1_000, seed);
        workload.connections = depth.connections;
        workload.arrivals = Arrivals::Closed { pipeline: depth.pipeline };
        let timing = Timing { warmup_ns: SECOND_NS, duration_ns: 10 * SECOND_NS };
        simulate::run(&workload, Mode::Md1 { service_ns: MILLISECOND_NS }, timing)
    }

    #[test]
    fn latency_grows_with_depth_as_little_has_it_and_the_rate_does_not() {
        let depths = depths(&[1, 10], &[1, 4]).expect("four");
        let mut lines = Vec::new();
        let rows = run(&mut queue, &depths, 3, 1, &mut |line| lines.push(line.to_owned()));
        assert_eq!(lines.len(), 4);
        for row in &rows {
            let found = row.found.as_ref().expect("it ran");
            let (connections, pipeline) = (row.depth.connections, row.depth.pipeline);
            assert!((found.rate / 1_000.0 - 1.0).abs() < 0.01, "{row:?}");
            // All that are in flight wait for each other; of a pipeline, a reply waits for half of its own.
            let others = (connections - 1) as f64 * f64::from(pipeline);
            let expected_ns = (others + f64::from(pipeline + 1) / 2.0) * 1e6;
            let mean_ns = found.latency.mean_ns as f64;
            assert!((mean_ns / expected_ns - 1.0).abs() < 0.03, "{mean_ns} for {expected_ns}");
            assert_eq!((found.repeats, found.syscalls_per_op), (3, None));
        }
        let workload = Workload::new(Protocol::Resp, 1);
        let sweep = Sweep { server: "a queue".to_owned(), workload, rows };
        let text = sweep.text();
        assert_eq!(text.lines().count(), 6, "{text}");
        let json = serde_json::to_value(&sweep).expect("JSON");
        assert_eq!(json["rows"][3]["connections"], 10);
        assert_eq!(json["rows"][3]["pipeline"], 4);
        assert!(json["rows"][3]["found"]["rate"].is_f64());
    }

    #[test]
    fn a_depth_that_fails_is_a_row_and_the_others_run() {
        let mut failing = |depth: Depth, seed| {
            if depth.connections == 2 {
                bail!("only 1 of 2 connections were accepted in time");
            }
            let mut trial = queue(depth, seed)?;
            // One of three, by chance.
            if depth.connections == 3 && seed == 8 {
                (trial.limit, trial.limit_why) =
                    (Limit::Client, Some("its core was busy".to_owned()));
            }
            trial.syscalls_per_op = Some(seed as f64);
            Ok(trial)
        };
        let depths = depths(&[1, 2, 3], &[1]).expect("three");
        let rows = run(&mut failing, &depths, 3, 7, &mut |_| ());
        assert!(
            rows[1].found.is_none()
                && rows[1].failed.as_deref().is_some_and(|why| why.contains("accepted"))
        );
        let limits: Vec<Option<Limit>> =
            rows.iter().map(|row| row.found.as_ref().map(|found| found.limit)).collect();
        assert_eq!(limits, [Some(Limit::Neither), None, Some(Limit::Client)]);
        let third = rows[2].found.as_ref().expect("it ran");
        assert_eq!(
            (third.limit_why.as_deref(), third.syscalls_per_op),
            (Some("its core was busy"), Some(8.0))
        );
        let workload = Workload::new(Protocol::Resp, 1);
        let sweep = Sweep { server: "a queue".to_owned(), workload, rows };
        assert!(sweep.has_figures() && sweep.text().contains("rates and latencies are its own"));
        assert!(sweep.text().contains("only 1 of 2"), "{}", sweep.text());
    }

    #[test]
    fn depths_are_all_pairs_within_their_bound() {
        let pairs: Vec<(usize, u32)> = depths(&[1, 50], &[1, 16])
            .expect("four")
            .iter()
            .map(|depth| (depth.connections, depth.pipeline))
            .collect();
        assert_eq!(pairs, [(1, 1), (1, 16), (50, 1), (50, 16)]);
        assert_eq!(depths(&[1; ROWS_MAX], &[1]).expect("the most").len(), ROWS_MAX);
        assert!(depths(&[1; ROWS_MAX + 1], &[1]).is_err());
        assert!(depths(&[], &[1]).is_err());
        assert!(depths(&[1, 0], &[1]).is_err());
        assert!(depths(&[1], &[0]).is_err());
    }
}
