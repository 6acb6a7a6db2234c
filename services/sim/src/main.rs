//! `sim`: runs seeds of the simulation, each twice; replays one; sweeps over single faults.
//!
//! The exit status is zero when every run ended well. A failure ends with the line that replays
//! it.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;

use sim::run::{Bug, Failure, Options, Report, Service, run, run_twice};
use sim::sweep::sweep;

const USAGE: &str = "\
sim [--service cache|broker] [--seed N] [--seeds COUNT] [options]

  --seed N        the first seed; alone, only this one (default 0)
  --seeds COUNT   how many seeds (default 1)
  --trace         tell what clients did and what completed last
  --calm          the short run without faults of its own
  --durable       of the cache: the run with a log or dumps, and crashes; one seed of sixteen is one
  --replicated    of the cache: the run of two, one of which follows the other
  --fail N        with completion N failed
  --fail-call N   with plain call N failed
  --sweep         fail every completion of the calm run, one at a time
  --plant BUG     plant a bug: early-free, drop-bells, blind-park; of the broker: early-ack, stale-commit,
                  keep-bad-sealed
  --jobs N        threads (default: one per CPU)
";

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
    static SERVICE: Cell<Service> = const { Cell::new(Service::Cache) };
}

#[derive(Clone, Copy)]
struct Task {
    options: Options,
    sweep: bool,
    seed: u64,
    seeds: u64,
    jobs: u64,
}

fn main() -> ExitCode {
    let task = match parse(std::env::args().skip(1)) {
        Ok(Some(task)) => task,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("sim: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        eprintln!("sim --service {} --seed {}", SERVICE.get(), SEED.get());
    }));
    let jobs = task.jobs.min(task.seeds).max(1);
    let share = task.seeds.div_ceil(jobs);
    let parts: Vec<Result<Totals, Failure>> = std::thread::scope(|scope| {
        let start = |job: u64| {
            let from = task.seed + job * share;
            let to = (from + share).min(task.seed + task.seeds);
            scope.spawn(move || work(task, from..to))
        };
        let threads: Vec<_> = (0..jobs).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked(task.options))))
            .collect()
    });
    let mut totals = Totals::default();
    for part in parts {
        match part {
            Ok(part) => totals.add(part),
            Err(failure) => {
                eprintln!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    totals.print();
    ExitCode::SUCCESS
}

/// A panicked thread has said why and which seed.
fn panicked(options: Options) -> Failure {
    let what = "panicked; see above".to_owned();
    Failure { seed: SEED.get(), options, what, recent: Vec::new(), story: Vec::new() }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Task>, String> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let options = Options::default();
    let mut task = Task { options, sweep: false, seed: 0, seeds: 1, jobs: cpus };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
        match arg.as_str() {
            "--service" => {
                let service = value()?;
                let known = Service::ALL.iter().find(|(name, _)| *name == service);
                task.options.service = known
                    .ok_or_else(|| format!("no service {service}; there are: cache, broker"))?
                    .1;
            }
            "--seed" => task.seed = number(value()?)?,
            "--seeds" => task.seeds = number(value()?)?,
            "--jobs" => task.jobs = number(value()?)?,
            "--fail" => task.options.fail_completion = Some(number(value()?)?),
            "--fail-call" => task.options.fail_call = Some(number(value()?)?),
            "--trace" => task.options.story = true,
            "--calm" => task.options.calm = true,
            "--durable" => task.options.durable = true,
            "--replicated" => task.options.replicated = true,
            "--sweep" => task.sweep = true,
            "--plant" => {
                let name = value()?;
                let bug = Bug::ALL.iter().find(|(known, _)| *known == name);
                task.options.bug = Some(bug.ok_or_else(|| format!("no bug {name}"))?.1);
            }
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("unknown argument {arg}")),
        }
    }
    Ok(Some(task))
}

fn work(task: Task, seeds: Range<u64>) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    for seed in seeds {
        SEED.set(seed);
        SERVICE.set(task.options.service);
        if task.sweep {
            let done = sweep(seed, 1)?;
            totals.faults += done.completions + done.calls;
            continue;
        }
        let report = run_twice(seed, task.options).map_err(|failure| {
            // Once more for its story; the run is repeatable.
            let told = run(seed, Options { story: true, ..task.options });
            told.err().filter(|again| again.what == failure.what).unwrap_or(failure)
        })?;
        for line in &report.story {
            println!("{line}");
        }
        totals.count(&report);
    }
    Ok(totals)
}

/// Sums over all runs.
#[derive(Default)]
struct Totals {
    seeds: u64,
    replies: u64,
    steps: u64,
    completions: u64,
    virtual_ns: u64,
    faults: u64,
    hash: u64,
    marks: BTreeMap<&'static str, u64>,
}

impl Totals {
    fn count(&mut self, report: &Report) {
        self.seeds += 1;
        self.replies += report.replies;
        self.steps += report.steps;
        self.completions += report.stats.completions;
        self.virtual_ns += report.virtual_ns;
        self.hash ^= report.hash;
        for (what, count) in &report.marks {
            *self.marks.entry(what).or_default() += count;
        }
    }

    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.replies += other.replies;
        self.steps += other.steps;
        self.completions += other.completions;
        self.virtual_ns += other.virtual_ns;
        self.faults += other.faults;
        self.hash ^= other.hash;
        for (what, count) in other.marks {
            *self.marks.entry(what).or_default() += count;
        }
    }

    fn print(&self) {
        if self.faults > 0 {
            println!("{} runs with one fault each", self.faults);
            return;
        }
        let (seeds, seconds) = (self.seeds, self.virtual_ns / 1_000_000_000);
        println!(
            "{seeds} seeds twice, equal: {} replies checked, {} completions, {} steps, \
             {seconds} s of virtual time, hash {:016x}",
            self.replies, self.completions, self.steps, self.hash
        );
        for (what, count) in &self.marks {
            println!("  {what}: {count}");
        }
    }
}
