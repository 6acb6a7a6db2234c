//! The rows of the broker's table of claims, each a workload or two with its bars.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::load::{Load, Pace};
use super::peers::{self, PEERS, Peer, Place, Running};
use super::speak::Protocol;
use super::workload::Workload;
use super::{Options, speak, trial};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::figures::{Cell, Contender, Figures, Report, alternate};
use crate::peers::Ports;

/// Bars: of row 4 (rate of 100 B messages), 4b (p99), 5 (p99 with the reader over p99 without).
const RATE_BAR: f64 = 1e6;
const P99_BAR_MS: f64 = 5.0;
const READER_BAR: f64 = 1.2;
/// CPU per GB over that of a peer.
const CPU_BAR: f64 = 0.5;
/// How long storing the old topic of row 5 may take.
const OLD_NS: u64 = 300 * SECOND_NS;
const OLD_TOPIC: &str = "old";
/// How often its reader looks whether it may stop, and the nice value it runs with.
const READ_STEP_NS: u64 = 10 * MILLISECOND_NS;
const LEAST_URGENT: i32 = 19;

/// A run of rows.
pub(super) struct Bench<'a> {
    options: &'a Options,
    sides: Vec<&'static Peer>,
    ports: RefCell<Ports>,
    pub(super) report: Report,
    progress: &'a mut dyn FnMut(&str),
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        options: &'a Options,
        report: Report,
        progress: &'a mut dyn FnMut(&str),
    ) -> Result<Self> {
        let sides = if options.sides.is_empty() {
            PEERS.iter().collect()
        } else {
            options.sides.iter().map(|name| peers::find(name)).collect::<Result<_>>()?
        };
        let ports = RefCell::new(Ports::new(options.port, options.port.saturating_add(899)));
        Ok(Self { options, sides, ports, report, progress })
    }

    pub(super) fn row(&mut self, row: &str) -> Result<()> {
        match row {
            "4" => {
                for name in ["small", "large"] {
                    self.compare(&format!("4 {name}"), &Workload::find(name)?, |cell| {
                        if name == "small" {
                            cell.limit("msg_per_s", true, RATE_BAR);
                        }
                        for peer in others(cell) {
                            cell.claim("cpu_s_per_gb", peer, CPU_BAR);
                            cell.claim("both_cpu_s_per_gb", peer, CPU_BAR);
                        }
                    });
                }
            }
            // What is claimed is ours; others need not keep up with half of what we take.
            "4b" => {
                let all = self.sides.clone();
                self.sides.truncate(1);
                self.compare("4b half", &Workload::find("half")?, |cell| {
                    cell.limit("p99_ms", false, P99_BAR_MS);
                });
                self.sides = all;
            }
            "5" => self.catch_up(&Workload::find("catch-up")?),
            _ => {
                for name in ["end-to-end", "many-partitions"] {
                    self.workload(&format!("10 {name}"), &Workload::find(name)?);
                }
            }
        }
        Ok(())
    }

    /// A workload without bars.
    pub(super) fn workload(&mut self, name: &str, workload: &Workload) {
        self.compare(name, workload, |_| {});
    }

    fn place(&self, name: &str) -> Place {
        Place {
            port: self.ports.borrow_mut().take(3),
            cpu: self.options.server_cpu,
            client_cpu: self.options.client_cpu,
            data: absolute(&self.options.dir).join(name),
        }
    }

    fn compare(&mut self, name: &str, workload: &Workload, claim: impl Fn(&mut Cell)) {
        let workload = self.adjusted(workload);
        (self.progress)(&format!("{name}: {}", workload.about));
        let (options, this) = (self.options, &*self);
        let contenders: Vec<Contender<'_>> = self
            .sides
            .iter()
            .map(|peer| -> Contender<'_> {
                let workload = &workload;
                let trial = move || {
                    touch(options)?;
                    trial::run(peer, &this.place(peer.name), workload)
                };
                (peer.name, Box::new(trial))
            })
            .collect();
        let mut skipped = Vec::new();
        let title = format!("{name}: {}", workload.about);
        let mut cell = alternate(&title, options.rounds, &contenders, &mut skipped);
        drop(contenders);
        claim(&mut cell);
        self.report.cells.push(cell);
        self.report.skipped.append(&mut skipped);
    }

    fn adjusted(&self, workload: &Workload) -> Workload {
        let seconds = self.options.seconds.unwrap_or(workload.seconds);
        Workload { seconds, ..workload.clone() }
    }

    /// Row 5: one broker of ours with an old topic; producers alone, then beside its reader, in turn.
    fn catch_up(&mut self, workload: &Workload) {
        let workload = self.adjusted(workload);
        let name = format!("5 catch-up: {}", workload.about);
        (self.progress)(&name);
        let peer = &PEERS[0];
        let old = match self.old_topic(peer, &workload) {
            Ok(old) => old,
            Err(error) => {
                self.report.skipped.push(format!("{name}: {error:#}"));
                return;
            }
        };
        let number = std::cell::Cell::new(0);
        let trial = |read: bool| {
            number.set(number.get() + 1);
            beside(peer, &old, &workload, number.get(), read)
        };
        let contenders: [Contender<'_>; 2] = [
            ("beside a reader", Box::new(|| trial(true))),
            ("producers alone", Box::new(|| trial(false))),
        ];
        let mut skipped = Vec::new();
        let mut cell = alternate(&name, self.options.rounds, &contenders, &mut skipped);
        cell.claim("p99_ms", 1, READER_BAR);
        self.report.cells.push(cell);
        self.report.skipped.append(&mut skipped);
    }

    /// A broker with a topic of one partition that holds as much as row 5 wants, in messages of 1 KiB.
    fn old_topic(&self, peer: &Peer, workload: &Workload) -> Result<Old> {
        let running = peer.start(&self.place(peer.name))?;
        let filling = Workload {
            topics: 1,
            partitions: 1,
            batch_messages: 256,
            rate: None,
            sync: false,
            follow: false,
            ..workload.clone()
        };
        let messages = (self.options.old_mb as u64 * 1_000_000) / filling.message_bytes as u64;
        speak::create(peer.protocol, running.addr(), OLD_TOPIC, &filling)?;
        let mut load = Load::new(filling.batch_messages, filling.window, Pace::Closed);
        let producer = speak::producer(peer.protocol, running.addr(), OLD_TOPIC, 0, &filling)?;
        load.add_lane(producer, None)?;
        load.store_all(messages, clock::mono_ns() + OLD_NS).context("fill the old topic")?;
        Ok(Old { running, messages })
    }
}

/// Sides that are not ours.
fn others(cell: &Cell) -> Vec<usize> {
    let is_other =
        |name: &str| peers::find(name).is_ok_and(|peer| peer.protocol != Protocol::Kafka);
    (0..cell.sides.len()).filter(|&side| is_other(&cell.sides[side].name)).collect()
}

/// A broker with an old topic.
struct Old {
    running: Running,
    messages: u64,
}

/// One trial of row 5, on topics of its own.
fn beside(peer: &Peer, old: &Old, workload: &Workload, number: u32, read: bool) -> Result<Figures> {
    let running = &old.running;
    let mut figures = Figures::new();
    // Topics of the trials before stay, and are small.
    let mut load = trial::prepare(peer, running, workload, &format!("trial-{number}"))?;
    forget(running.data())?;
    let stop = AtomicBool::new(false);
    let (stored, read) = thread::scope(|scope| {
        let reader = read.then(|| scope.spawn(|| read_old(peer, running, &stop)));
        let stored = trial::store(running, &mut load, workload, &mut figures);
        stop.store(true, Ordering::Relaxed);
        let ended = |reader: thread::ScopedJoinHandle<'_, _>| {
            reader.join().map_err(|_| anyhow!("the reader panicked"))?
        };
        (stored, reader.map(ended).transpose())
    });
    stored?;
    if let Some((messages, elapsed_ns)) = read? {
        let bytes = messages as f64 * workload.message_bytes as f64;
        figures.insert("old_mb_per_s", bytes * 1e3 / elapsed_ns as f64);
        figures.insert("old_read_share", messages as f64 / old.messages as f64);
    }
    Ok(figures)
}

/// Reads the old topic until told to stop: messages, and how long it took. A thread of the lowest priority, on the
/// load's core, so that taking the times of producers does not wait for it.
fn read_old(peer: &Peer, running: &Running, stop: &AtomicBool) -> Result<(u64, u64)> {
    rustix::process::setpriority_process(None, LEAST_URGENT).context("setpriority")?;
    let mut load = Load::new(1, 1, Pace::Closed);
    load.add_reader(speak::consumer(peer.protocol, running.addr(), OLD_TOPIC, 0)?)?;
    let begun_ns = clock::mono_ns();
    while !stop.load(Ordering::Relaxed) {
        load.run_until(clock::mono_ns() + READ_STEP_NS)?;
    }
    Ok((load.delivered(), clock::mono_ns() - begun_ns))
}

/// Writes back and drops from the page cache all files below `dir`.
fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            // The broker removes old sidecars meanwhile.
            let Ok(file) = fs::File::open(&path) else { continue };
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Fills memory by way of a file, and gives it back.
fn touch(options: &Options) -> Result<()> {
    use std::io::Write as _;
    if options.touch_mb == 0 {
        return Ok(());
    }
    let path = options.dir.join("touch");
    let mut file = fs::File::create(&path).with_context(|| path.display().to_string())?;
    let block = vec![1; 1_000_000];
    for _ in 0..options.touch_mb {
        file.write_all(&block).context("fill memory")?;
    }
    fs::remove_file(&path).with_context(|| path.display().to_string())
}

fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}
