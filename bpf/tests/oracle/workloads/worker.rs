//! A process of its own, this test's executable once more, that does one thing again and again: writes lines, renames files,
//! sends, forks, takes memory, by system calls or io_uring. Tells what came of it, also when it is killed or stopped.
//!
//! `with`: op, count or ms, timeout_ms, respawn, cpu, others, tmpfs (mount options) and netns; see `worker/clock` for more. The worker and its parent share
//! a page of numbers, so that telling takes no system call that a fault might count. Next: `worker/page`, `worker/ops`.

mod clock;
mod files;
mod ops;
pub(crate) mod page;
mod uring;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Figures, With, number, text};
use crate::lab::run;
use ops::Op;
use page::{Field, Page};

const PLAN: &str = "CHAOS_WORKER";
/// A phase of the worker that is still stopped may take so long to end once it is resumed.
const SETTLE: Duration = Duration::from_secs(5);
/// What tells the worker to end.
const END: u64 = u64::MAX;

/// Whether this process is a worker.
pub(crate) fn is_one() -> bool {
    std::env::var_os(PLAN).is_some()
}

/// The life of a worker: phase after phase, as its parent tells.
pub(crate) fn work() -> ExitCode {
    let plan = std::env::var(PLAN).expect("it was asked for");
    let plan: Value = serde_json::from_str(&plan).expect("the parent wrote it");
    let with: With = serde_json::from_value(plan["with"].clone()).expect("the parent wrote it");
    let dir = PathBuf::from(plan["dir"].as_str().expect("a path"));
    fs::write("/proc/self/comm", plan["comm"].as_str().expect("a name")).expect("its own name");
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .expect("a signal");
    if let Some(cpu) = with.get("cpu").and_then(Value::as_u64) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(usize::try_from(cpu).expect("small"));
        rustix::thread::sched_setaffinity(None, &set).expect("it is there");
    }
    let page = Page::open(&dir.join("page"));
    page.set(Field::Ready, 1);
    let mut done = 0;
    loop {
        match page.get(Field::Go) {
            END => return ExitCode::SUCCESS,
            go if go != done => {
                phase(&page, &with, &dir.join(go.to_string()));
                done = go;
                page.set(Field::Done, done);
            }
            _ => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

fn phase(page: &Page, with: &With, dir: &Path) {
    let count = number(with, "count", 100);
    let until = with.get("ms").and_then(Value::as_u64).map(|ms| monotonic_ns() + ms * 1_000_000);
    let mut op = Op::new(with, dir, count);
    let mut last = monotonic_ns();
    page.set(Field::Begin, last);
    page.set(Field::Last, last);
    let cpu_begin = cpu_ns();
    for number in 0.. {
        if until.map_or(number >= count, |until| last >= until) {
            break;
        }
        match op.run(number) {
            Ok(()) => page.set(Field::Ops, page.get(Field::Ops) + 1),
            Err(errno) => {
                page.set(Field::Failed, page.get(Field::Failed) + 1);
                page.set(Field::Errno, u64::from(errno.unsigned_abs()));
            }
        }
        let now = monotonic_ns();
        page.set(Field::Longest, page.get(Field::Longest).max(now - last));
        page.set(Field::Last, now);
        last = now;
    }
    page.set(Field::Cpu, cpu_ns() - cpu_begin);
    page.set(Field::End, last);
    page.set(Field::Effects, op.effects());
    page.set(Field::Short, files::SHORT.swap(0, Ordering::Relaxed));
    page.set(Field::Wrong, files::WRONG.swap(0, Ordering::Relaxed));
    op.tell(page);
}

/// Nanoseconds of CLOCK_MONOTONIC, as the kernel has it: what a worker reads otherwise is what some faults change.
fn monotonic_ns() -> u64 {
    clock::kernel_ns(libc::CLOCK_MONOTONIC).unsigned_abs()
}

/// Time of processors that this process has used.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).expect("not negative") * 1_000_000_000
        + u64::try_from(time.tv_nsec).expect("not negative")
}

/// A worker, as its parent knows it.
pub(crate) struct Worker {
    child: Child,
    ended: Option<ExitStatus>,
    page: Page,
    dir: PathBuf,
    comm: String,
    with: With,
    go: u64,
    netns: Option<String>,
    is_mounted: bool,
}

impl Worker {
    /// Starts one of that name.
    pub(crate) fn start(with: &With, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("chaos-worker-{unique}"));
        fs::create_dir(&dir).expect("a directory");
        let options = text(with, "tmpfs", "");
        let is_mounted = !options.is_empty();
        if is_mounted {
            run(&format!("mount -t tmpfs -o {options} none {}", dir.display()));
        }
        let netns = with.contains_key("netns").then(|| format!("chaos-{unique}"));
        if let Some(netns) = &netns {
            run(&format!("ip netns add {netns}"));
            run(&format!("ip -n {netns} link set lo up"));
        }
        let page = Page::create(&dir.join("page"));
        let comm = format!("{name}{}", std::process::id());
        let child = spawn(with, &dir, &comm, netns.as_deref());
        let worker = Self {
            child,
            ended: None,
            page,
            dir,
            comm,
            with: with.clone(),
            go: 0,
            netns,
            is_mounted,
        };
        worker.await_ready();
        worker
    }

    fn await_ready(&self) {
        let begin = Instant::now();
        while self.page.get(Field::Ready) == 0 && begin.elapsed() < SETTLE {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Network namespace that it is in, if it is another.
    pub(crate) fn netns(&self) -> Option<&str> {
        self.netns.as_deref()
    }

    /// Text of a scenario with the worker's number, name and directory.
    pub(crate) fn expand(&self, text: &str) -> String {
        text.replace("PID", &self.child.id().to_string())
            .replace("COMM", &self.comm)
            .replace("DIR", &self.dir.display().to_string())
    }

    fn is_over(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it is a child");
        }
        self.ended.is_some()
    }

    /// Starts it again if it ended; whether it had.
    pub(crate) fn revive(&mut self) -> bool {
        let is_over = self.is_over();
        if is_over {
            self.page.clear();
            // It knows nothing of the phases before.
            self.page.set(Field::Done, self.go);
            self.child = spawn(&self.with, &self.dir, &self.comm, self.netns.as_deref());
            self.ended = None;
            self.await_ready();
        }
        is_over
    }

    /// What a fault may have left of itself on it: groups, limits, a stop, files, settings, mounts.
    pub(crate) fn traces(&self) -> String {
        let pid = self.child.id();
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let is_stopped =
            read("stat").rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let files: Vec<String> = files
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with(bpf::undo::FILES))
            .collect();
        let settings = ["kernel.io_uring_disabled", "fs.inotify.max_user_instances"]
            .map(|name| bpf::sysctl::read(name).ok());
        let buffers =
            bpf::netns::within(self.netns(), || bpf::sysctl::read("net.ipv4.tcp_wmem").ok());
        let mounts = bpf::disk::mounts();
        format!(
            "stopped {is_stopped}\n{}{}{files:?}{settings:?}{buffers:?}{mounts:?}\nvDSO {:x?}",
            read("cgroup"),
            read("limits"),
            vdso(pid).map(|code| code
                .iter()
                .fold(0_u64, |sum, byte| { sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte) }))
        )
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it do its work once, and measures.
    pub(crate) fn phase(&mut self) -> Figures {
        let mut deaths = 0;
        let mut left = number(&self.with, "respawn", 0);
        let mut figures = loop {
            let figures = self.phase_once();
            deaths += u64::from(self.is_over());
            if left == 0 || !self.revive() {
                break figures;
            }
            left -= 1;
        };
        figures.insert("deaths", deaths as f64);
        figures
    }

    fn phase_once(&mut self) -> Figures {
        let begin = Instant::now();
        // It may have been stopped in its last phase.
        while self.page.get(Field::Done) != self.go && !self.is_over() && begin.elapsed() < SETTLE {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.page.clear_figures();
        self.go += 1;
        let dir = self.dir.join(self.go.to_string());
        // A fault that is in force may leave no room for it: it was made before.
        if !dir.exists() {
            fs::create_dir(&dir).expect("a directory");
        }
        let sink = ops::Sink::new(text(&self.with, "op", "write"), &dir);
        self.page.set(Field::Go, self.go);
        let begin = Instant::now();
        let timeout = Duration::from_millis(number(&self.with, "timeout_ms", 4000));
        while self.page.get(Field::Done) != self.go && !self.is_over() && begin.elapsed() < timeout
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        let figures = self.figures(&sink, &dir);
        // One that is stopped goes on in it later.
        if figures["hung"] == 0.0 {
            let _ = fs::remove_dir_all(&dir);
        }
        let _ = fs::create_dir(self.dir.join((self.go + 1).to_string()));
        figures
    }

    fn figures(&mut self, sink: &ops::Sink, dir: &Path) -> Figures {
        let is_over = self.is_over();
        let is_done = self.page.get(Field::Done) == self.go;
        let field = |field| self.page.get(field) as f64;
        let (begin, last) = (field(Field::Begin), field(Field::Last));
        let since =
            if is_done || is_over || last == 0.0 { 0.0 } else { monotonic_ns() as f64 - last };
        let wall = field(Field::End) - begin;
        let signed = |field| self.page.get(field).cast_signed() as f64 / 1e6;
        let effects = match sink.effects(dir) {
            Some(effects) => effects as f64,
            None => field(Field::Effects),
        };
        Figures::from([
            ("died", f64::from(u8::from(is_over))),
            ("signal", self.ended.and_then(|status| status.signal()).map_or(0.0, f64::from)),
            ("hung", f64::from(u8::from(!is_over && !is_done))),
            ("ops", field(Field::Ops)),
            ("effects", effects),
            ("failed", field(Field::Failed)),
            ("short", field(Field::Short)),
            ("wrong", field(Field::Wrong)),
            ("errno", field(Field::Errno)),
            ("longest_pause_ms", field(Field::Longest).max(since) / 1e6),
            ("wall_ms", wall / 1e6),
            ("shift_least_ms", signed(Field::ShiftLeast)),
            ("shift_most_ms", signed(Field::ShiftMost)),
            ("elsewhere_ms", signed(Field::Elsewhere)),
            ("back", field(Field::Back)),
            ("speed", signed(Field::Speed)),
            ("cpu_percent", if is_done { field(Field::Cpu) / wall * 100.0 } else { 0.0 }),
        ])
    }
}

/// The code of the kernel's that answers for a process's clocks.
pub(crate) fn vdso(pid: u32) -> Option<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (begin, end) = line.split_once(' ')?.0.split_once('-')?;
    let [begin, end] = [begin, end].map(|text| u64::from_str_radix(text, 16).expect("a number"));
    let mut code = vec![0; usize::try_from(end - begin).expect("small")];
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    memory.read_exact_at(&mut code, begin).ok()?;
    Some(code)
}

/// Lines of a process's memory map.
pub(crate) fn mappings(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    maps.unwrap_or_default().lines().count()
}

fn spawn(with: &With, dir: &Path, comm: &str, netns: Option<&str>) -> Child {
    let exe = std::env::current_exe().expect("its own path");
    let mut command = match netns {
        // It becomes the worker, under the same number.
        Some(netns) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", netns]).arg(exe);
            command
        }
        None => Command::new(exe),
    };
    let plan = serde_json::json!({ "with": with, "dir": dir, "comm": comm });
    command.env(PLAN, plan.to_string()).process_group(0).spawn().expect("this executable")
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.page.set(Field::Go, END);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
        if let Some(netns) = &self.netns {
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Panics unless all was done, and nothing failed.
pub(crate) fn assert_clean(with: &With, figures: &Figures, when: &str) {
    let zeros = ["died", "hung", "failed", "short", "wrong"];
    let mut expected: Vec<_> = zeros.map(|name| (name, 0.0)).to_vec();
    if !with.contains_key("ms") {
        let count = number(with, "count", 100) as f64;
        expected.extend([("ops", count), ("effects", count)]);
    }
    super::assert_figures(figures, when, &expected);
}
