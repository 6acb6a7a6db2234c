//! Stops all threads of another process for a moment, and reads and writes what it is made of: memory that it may not write itself,
//! and registers.
//!
//! Seized (PTRACE_SEIZE), not attached: no signal is sent, and what the process was waiting for goes on. Invariants: without
//! PTRACE_O_EXITKILL, so that the kernel lets go of the threads, running, when the tracer dies; a signal that comes meanwhile is
//! delivered; dropping lets go; threads that the process makes meanwhile are stopped too. All of it is of one thread. Next: `patch`.
#![expect(unsafe_code, reason = "rustix has no ptrace")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use libc::user_regs_struct as Registers;

use crate::error::{During as _, Error, Result};
use crate::registry::Process;
use crate::time::{monotonic_ns, ns};

/// Threads of a process, at most.
const THREADS_MAX: usize = 20_000;
/// A thread that does not stop for so long waits for something that it cannot leave.
const STOP_MAX: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_micros(20);
/// So often threads are let go on for a moment until none is in the way.
pub(crate) const TRIES: u32 = 40;
/// How long threads run before they are stopped again, the first time.
const NUDGE: Duration = Duration::from_micros(100);
/// What is read of `struct rseq` and `struct rseq_cs` (linux/rseq.h).
const RSEQ_CS_AT: u64 = 8;
const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;

/// How a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Seized, and told to stop.
    Runs,
    /// By us.
    Stopped,
    /// By somebody else too: it is not to run.
    Suspended,
}

/// A process all of whose threads are stopped, until this is dropped.
pub(crate) struct Stopped {
    process: Process,
    threads: BTreeMap<i32, State>,
    options: usize,
    memory: File,
    /// The kernel knows the thread that traces.
    of_this_thread: PhantomData<*const ()>,
}

/// The memory of a process, as it may use it itself and, for who may trace it, beyond.
pub(crate) fn memory(process: Process) -> Result<File> {
    let path = format!("/proc/{}/mem", process.pid);
    File::options().read(true).write(true).open(&path).during(|| format!("open {path}"))
}

fn request(
    request: libc::c_uint,
    thread: i32,
    address: u64,
    data: usize,
) -> std::io::Result<libc::c_long> {
    // SAFETY: the requests of this module that write to this process are given the address of a value that lives, and is as large.
    let result = unsafe { libc::ptrace(request, thread, address as usize, data) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

fn is_gone(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

impl Stopped {
    /// Stops one. With `is_filtered`, its seccomp filter does not see what it is made to do meanwhile.
    ///
    /// # Errors
    /// It has another tracer, does not stop, or the kernel refuses.
    pub(crate) fn stop(process: Process, is_filtered: bool) -> Result<Self> {
        let filter = if is_filtered { libc::PTRACE_O_SUSPEND_SECCOMP } else { 0 };
        let mut stopped = Self {
            process,
            threads: BTreeMap::new(),
            options: usize::try_from(filter).unwrap_or(0),
            memory: memory(process)?,
            of_this_thread: PhantomData,
        };
        stopped.gather()?;
        Ok(stopped)
    }

    fn doing(&self, what: &str, thread: i32) -> String {
        format!("{what} thread {thread} of process {}", self.process.pid)
    }

    /// Stops what runs, also what came to be meanwhile.
    fn gather(&mut self) -> Result<()> {
        loop {
            let path = format!("/proc/{}/task", self.process.pid);
            let tasks = fs::read_dir(&path).during(|| format!("read {path}"))?;
            let tasks: Vec<i32> = tasks
                .flatten()
                .filter_map(|task| task.file_name().to_str()?.parse().ok())
                .filter(|thread| !self.threads.contains_key(thread))
                .collect();
            if tasks.len() + self.threads.len() > THREADS_MAX {
                return Err(Error::unsupported(format!(
                    "process {} has more than {THREADS_MAX} threads",
                    self.process.pid
                )));
            }
            for thread in &tasks {
                self.seize(*thread)?;
            }
            self.await_stops()?;
            if tasks.iter().all(|thread| !self.threads.contains_key(thread)) {
                break;
            }
        }
        if self.threads.is_empty() || !self.process.is_alive() {
            return Err(Error::failed(format!("process {} is gone", self.process.pid)));
        }
        Ok(())
    }

    fn seize(&mut self, thread: i32) -> Result<()> {
        let until = monotonic_ns() + ns(STOP_MAX);
        loop {
            match request(libc::PTRACE_SEIZE, thread, 0, self.options) {
                Ok(_) => break,
                Err(error) if is_gone(&error) || self.is_over(thread) => return Ok(()),
                // A keeper that was killed lets go of its threads a moment after it has closed its files.
                Err(_) if monotonic_ns() < until => std::thread::sleep(POLL),
                Err(error) => {
                    return Err(Error::failed(format!(
                        "{} (needs CAP_SYS_PTRACE, and no other tracer): {error}",
                        self.doing("trace", thread)
                    )));
                }
            }
        }
        self.threads.insert(thread, State::Runs);
        self.interrupt(thread)
    }

    /// Ended, and not yet waited for.
    fn is_over(&self, thread: i32) -> bool {
        let path = format!("/proc/{}/task/{thread}/stat", self.process.pid);
        fs::read_to_string(path).map_or(true, |stat| {
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
        })
    }

    fn interrupt(&mut self, thread: i32) -> Result<()> {
        match request(libc::PTRACE_INTERRUPT, thread, 0, 0) {
            Err(error) if is_gone(&error) => {
                self.threads.remove(&thread);
                Ok(())
            }
            other => other.map(drop).during(|| self.doing("interrupt", thread)),
        }
    }

    /// Waits for those that were told to stop.
    fn await_stops(&mut self) -> Result<()> {
        let until = monotonic_ns() + ns(STOP_MAX);
        let running = |state: &State| *state == State::Runs;
        loop {
            let threads: Vec<i32> = self
                .threads
                .iter()
                .filter(|(_, state)| running(state))
                .map(|(id, _)| *id)
                .collect();
            let Some(first) = threads.first() else { return Ok(()) };
            let first = *first;
            for thread in threads {
                self.poll(thread)?;
            }
            if monotonic_ns() > until && self.threads.get(&first).is_some_and(running) {
                return Err(Error::failed(format!(
                    "{}: it waits in the kernel for what cannot be interrupted; try again",
                    self.doing("stop", first)
                )));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Looks whether a thread has stopped. One that stopped for a signal gets it, and is told to stop once more.
    fn poll(&mut self, thread: i32) -> Result<()> {
        let mut status = 0;
        // SAFETY: the address is that of a value that lives.
        let waited =
            unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if waited == 0 {
            return Ok(());
        }
        if waited != thread || !libc::WIFSTOPPED(status) {
            self.threads.remove(&thread);
            return Ok(());
        }
        let signal = libc::WSTOPSIG(status);
        if status >> 16 != libc::PTRACE_EVENT_STOP {
            self.go_on(thread, signal)?;
            return self.interrupt(thread);
        }
        let state = if signal == libc::SIGTRAP { State::Stopped } else { State::Suspended };
        self.threads.insert(thread, state);
        Ok(())
    }

    fn go_on(&mut self, thread: i32, signal: i32) -> Result<()> {
        let signal = usize::try_from(signal).unwrap_or(0);
        match request(libc::PTRACE_CONT, thread, 0, signal) {
            Err(error) if is_gone(&error) => {
                self.threads.remove(&thread);
            }
            other => {
                other.during(|| self.doing("resume", thread))?;
                self.threads.insert(thread, State::Runs);
            }
        }
        Ok(())
    }

    /// Lets those of these threads run that may, for a moment that is longer each time: a processor may be busy with others.
    ///
    /// # Errors
    /// They do not stop again.
    pub(crate) fn nudge(&mut self, threads: &[i32], number: u32) -> Result<()> {
        let threads: Vec<i32> =
            threads.iter().copied().filter(|thread| self.may_run(*thread)).collect();
        for thread in &threads {
            self.go_on(*thread, 0)?;
        }
        std::thread::sleep(NUDGE * (number + 1));
        for thread in &threads {
            self.interrupt(*thread)?;
        }
        self.await_stops()?;
        self.gather()
    }

    /// The process.
    pub(crate) const fn process(&self) -> Process {
        self.process
    }

    /// All of them.
    pub(crate) fn threads(&self) -> Vec<i32> {
        self.threads.keys().copied().collect()
    }

    /// Whether a thread may be let run: nobody else has stopped it.
    pub(crate) fn may_run(&self, thread: i32) -> bool {
        self.threads.get(&thread) == Some(&State::Stopped)
    }

    /// The registers of a thread.
    pub(crate) fn registers(&self, thread: i32) -> Result<Registers> {
        // SAFETY: numbers, of which each may be zero.
        let mut registers: Registers = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, thread, 0, (&raw mut registers).addr())
            .during(|| self.doing("read registers of", thread))?;
        Ok(registers)
    }

    /// Sets them.
    pub(crate) fn set_registers(&self, thread: i32, registers: &Registers) -> Result<()> {
        request(libc::PTRACE_SETREGS, thread, 0, std::ptr::from_ref(registers).addr())
            .map(drop)
            .during(|| self.doing("set registers of", thread))
    }

    /// Whether a thread is in a restartable sequence (rseq(2)), which it may not leave and come back to.
    pub(crate) fn is_in_sequence(&self, thread: i32, at: u64) -> bool {
        let mut area = [0_u64; 3];
        let size = u64::try_from(size_of_val(&area)).unwrap_or(0);
        let asked = request(GET_RSEQ_CONFIGURATION, thread, size, (&raw mut area).addr());
        let [pointer, ..] = area;
        // Without one there is none.
        if asked.is_err() || pointer == 0 {
            return false;
        }
        let Some(sequence) = self.word(pointer + RSEQ_CS_AT).filter(|at| *at != 0) else {
            return false;
        };
        match (self.word(sequence + 8), self.word(sequence + 16)) {
            (Some(start), Some(length)) => at.wrapping_sub(start) < length,
            _ => true,
        }
    }

    /// Eight bytes of its memory.
    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, at).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Its memory.
    pub(crate) const fn memory(&self) -> &File {
        &self.memory
    }

    /// Writes eight bytes, whole, also where the process may not. What it shares with others becomes its own.
    pub(crate) fn poke(&self, at: u64, word: u64) -> Result<()> {
        let thread = self.threads.keys().next().copied().unwrap_or(0);
        request(libc::PTRACE_POKEDATA, thread, at, usize::try_from(word).unwrap_or(0))
            .map(drop)
            .during(|| format!("write to {at:#x} of process {}", self.process.pid))
    }

    /// Lets one thread run until something is done, or it takes too long, and stops it; whether it was done.
    pub(crate) fn run_until(
        &mut self,
        thread: i32,
        is_done: impl Fn(&File) -> bool,
    ) -> Result<bool> {
        let until = monotonic_ns() + ns(STOP_MAX);
        self.go_on(thread, 0)?;
        let mut done = false;
        while !done && monotonic_ns() < until && self.process.is_alive() {
            std::thread::sleep(POLL);
            done = is_done(&self.memory);
        }
        self.interrupt(thread)?;
        self.await_stops()?;
        self.gather()?;
        Ok(done)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Only who has stopped can be let go; one that has not is let go when this thread ends.
        let _ = self.await_stops();
        for thread in self.threads.keys() {
            let _ = request(libc::PTRACE_DETACH, *thread, 0, 0);
        }
    }
}
