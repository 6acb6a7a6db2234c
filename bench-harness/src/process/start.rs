//! Servers: started, watched, ended.
//!
//! A server belongs to the thread that started it: where setpriv(1) is there it dies with that
//! thread, however that ends. Its memory may be limited (`RLIMIT_AS`, which every user may set; a
//! control group would need rights and differs from host to host). Invariants: see the module
//! above. Next: `guard` for interrupts, `peers` for what a server needs to be ready.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, prlimit};

use super::guard::{self, Kept};
use super::{CommandLine, Usage, find, pin_self, pin_self_to, usage};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};

/// How long a server may take to stop after SIGTERM.
const STOP_NS: u64 = 3 * SECOND_NS;
/// What is read of the end of a log.
const LOG_TAIL_BYTES: u64 = 8192;
/// Lines of it that are shown.
const LOG_LINES: usize = 5;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program and its arguments.
    pub command: CommandLine,
    /// Variables of its environment, beside those of this process.
    pub env: Vec<(String, String)>,
    /// The CPUs it may use; `None` leaves it where the caller is.
    pub cpus: Option<Vec<usize>>,
    /// Where the calling thread belongs.
    pub own_cpu: usize,
    /// A directory that goes with it.
    pub data: Option<PathBuf>,
    /// The most it may map.
    pub memory_bytes: Option<u64>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    pid: u32,
    /// `None` when it was not started here; then it is not stopped here either.
    child: Option<Child>,
    log: PathBuf,
    data: Option<PathBuf>,
}

impl Server {
    /// Starts `command` on `cpus`; afterwards this thread is back on `own_cpu`.
    ///
    /// # Errors
    /// The program is missing or cannot be pinned.
    pub fn start(command: &CommandLine, cpus: &[usize], own_cpu: usize) -> Result<Self> {
        Self::launch(Launch {
            command: command.clone(),
            env: Vec::new(),
            cpus: Some(cpus.to_vec()),
            own_cpu,
            data: None,
            memory_bytes: None,
        })
    }

    /// Starts what `launch` says; afterwards this thread is back on its own CPU.
    ///
    /// # Errors
    /// The program is missing, cannot be pinned or limited. Its directory is gone then.
    pub fn launch(launch: Launch) -> Result<Self> {
        let log = log_path();
        let mut paths = vec![log.clone()];
        paths.extend(launch.data.clone());
        // Held until the server is listed, so that an interrupt finds it.
        let mut list = guard::list();
        let child = match spawn(&launch, &log) {
            Ok(child) => child,
            Err(error) => {
                drop(list);
                paths.iter().for_each(|path| guard::remove(path));
                return Err(error);
            }
        };
        list.add(Kept { pid: child.id(), paths });
        drop(list);
        let server = Self { pid: child.id(), child: Some(child), log, data: launch.data };
        if let Some(bytes) = launch.memory_bytes {
            limit_memory(server.pid, bytes)
                .with_context(|| format!("limit the memory of {}", launch.command))?;
        }
        Ok(server)
    }

    /// A server somebody else started, to be measured only.
    ///
    /// # Errors
    /// There is no such process.
    pub fn watch(pid: u32) -> Result<Self> {
        clock::process_cpu_ns(pid).with_context(|| format!("no process {pid}"))?;
        Ok(Self { pid, child: None, log: PathBuf::new(), data: None })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its directory.
    #[must_use]
    pub fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// Its exit status and last words, when it has ended.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        Some(format!("{status}: {}", self.last_words()))
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut log) = fs::File::open(&self.log) {
            let len = log.metadata().map_or(0, |meta| meta.len());
            let from = SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES));
            // What cannot be read is not shown.
            let _ = log.seek(from).and_then(|_| log.read_to_end(&mut text));
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ")
    }

    /// A reading of its counters.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Resident memory, exact.
    ///
    /// # Errors
    /// The process is gone.
    pub fn rss_bytes(&self) -> Result<u64> {
        usage::rss_bytes(self.pid)
    }

    /// Ends it: SIGTERM, and SIGKILL when that takes too long. Says whether it went by itself.
    pub fn stop(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        let by_itself = end(child, self.pid);
        self.child = None;
        guard::list().remove(self.pid);
        guard::remove(&self.log);
        if let Some(data) = self.data.take() {
            guard::remove(&data);
        }
        by_itself
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn end(child: &mut Child, pid: u32) -> bool {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return true;
    }
    if let Ok(pid) = i32::try_from(pid) {
        // ESRCH means that it has just ended, which the wait below notices.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let deadline = clock::mono_ns() + STOP_NS;
    while clock::mono_ns() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return true;
        }
        clock::sleep_ns(2 * MILLISECOND_NS);
    }
    // Both fail only when it has ended meanwhile.
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn spawn(launch: &Launch, log: &Path) -> Result<Child> {
    let CommandLine { program, args } = &launch.command;
    let Some(path) = find(program) else { bail!("{program} is not installed") };
    let mut command = match dies_with_parent() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(path);
            command
        }
        None => Command::new(path),
    };
    let log = fs::File::create(log).context("server log")?;
    command
        .args(args)
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .current_dir(launch.data.clone().unwrap_or_else(std::env::temp_dir))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("server log")?)
        .stderr(log);
    if let Some(cpus) = &launch.cpus {
        pin_self_to(cpus)?;
    }
    let child = command.spawn().with_context(|| format!("start {}", launch.command));
    if launch.cpus.is_some() {
        pin_self(launch.own_cpu)?;
    }
    child
}

/// setpriv(1), when it can make a program die with the thread that started it.
fn dies_with_parent() -> Option<&'static Path> {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let probe = || {
        let path = find("setpriv")?;
        let tried = Command::new(&path)
            .args(["--pdeathsig", "KILL", "--", "/bin/true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success()).then_some(path)
    };
    SETPRIV.get_or_init(probe).as_deref()
}

fn limit_memory(pid: u32, bytes: u64) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(Some(pid.context("a process id")?), Resource::As, limit)
        .with_context(|| format!("prlimit(RLIMIT_AS, {bytes})"))?;
    Ok(())
}

/// A name of its own for each server's log.
fn log_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("bench-server-{}-{count}.log", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::usage::number_field;

    fn sh(script: &str) -> CommandLine {
        CommandLine { program: "sh".to_owned(), args: vec!["-c".to_owned(), script.to_owned()] }
    }

    fn launch(script: &str) -> Launch {
        Launch {
            command: sh(script),
            env: Vec::new(),
            cpus: Some(vec![0]),
            own_cpu: 0,
            data: None,
            memory_bytes: None,
        }
    }

    fn wait_for(server: &mut Server) -> String {
        let deadline_ns = clock::mono_ns() + 10 * SECOND_NS;
        loop {
            if let Some(end) = server.ended() {
                return end;
            }
            assert!(clock::mono_ns() < deadline_ns, "it does not end");
            clock::sleep_ns(MILLISECOND_NS);
        }
    }

    #[test]
    fn a_server_is_pinned_measured_and_stopped() {
        let mut server = Server::start(&sh("while :; do :; done"), &[0], 0).expect("sh starts");
        let before = server.usage();
        clock::sleep_ns(100 * MILLISECOND_NS);
        let used = server.usage().since(&before);
        assert!(used.cpu_ns > 0);
        assert!(server.rss_bytes().expect("it runs") > 4096);
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("runs");
        assert_eq!(number_field(&status, "Cpus_allowed_list:"), 0);
        assert!(server.ended().is_none());
        assert!(server.stop());
        assert!(clock::process_cpu_ns(server.pid()).is_none());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed_and_a_missing_one_is_an_error() {
        let script = "trap '' TERM; while :; do sleep 0.01; done";
        let mut server = Server::start(&sh(script), &[0], 0).expect("sh starts");
        clock::sleep_ns(200 * MILLISECOND_NS);
        assert!(!server.stop());
        let missing = CommandLine { program: "no-such-program".to_owned(), args: Vec::new() };
        let error = Server::start(&missing, &[0], 0).expect_err("it is missing");
        assert!(error.to_string().contains("not installed"), "{error:#}");
    }

    #[test]
    fn its_environment_its_directory_and_its_last_words() {
        let dir = std::env::temp_dir().join(format!("bench-start-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let mut launch = launch("echo $GREETING; pwd; echo done > file; exit 3");
        launch.env.push(("GREETING".to_owned(), "hello".to_owned()));
        launch.data = Some(dir.clone());
        let mut server = Server::launch(launch).expect("sh starts");
        let end = wait_for(&mut server);
        assert!(end.contains("exit status: 3") && end.contains("hello | "), "{end}");
        assert!(end.contains(&*dir.to_string_lossy()), "{end}");
        assert!(dir.join("file").exists());
        drop(server);
        assert!(!dir.exists());
    }

    #[test]
    fn memory_beyond_the_limit_cannot_be_had() {
        let mut launch = launch("sleep 0.3; grep 'Max address space' /proc/self/limits");
        launch.memory_bytes = Some(512 << 20);
        let mut server = Server::launch(launch).expect("sh starts");
        let end = wait_for(&mut server);
        assert!(end.contains("536870912"), "{end}");
    }

    #[test]
    fn a_server_dies_with_the_thread_that_started_it() {
        if dies_with_parent().is_none() {
            println!("skipped: no setpriv --pdeathsig");
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a thread that ends is the test")]
        let thread = std::thread::spawn(|| {
            let server = Server::start(&sh("sleep 60"), &[0], 0).expect("sh starts");
            // Until it is what was to be started.
            while fs::read_to_string(format!("/proc/{}/comm", server.pid()))
                .is_ok_and(|name| name.trim() != "sleep" && name.trim() != "sh")
            {
                clock::sleep_ns(MILLISECOND_NS);
            }
            server
        });
        let mut server = thread.join().expect("it started");
        let end = wait_for(&mut server);
        assert!(end.contains("signal: 9"), "{end}");
    }
}
