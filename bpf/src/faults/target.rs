//! Which processes a fault means, and which it must not touch.
//!
//! Invariants: as in `process`. A process is known by its start as well as its number, and signalled by a descriptor, so
//! that a later one with its number is not hit.

use std::fs;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::abi::{COMM_LEN, Counts};
use crate::error::{Error, Result};
use crate::fault::Active;
use crate::faults::tally::{Tally, Ticker};
use crate::registry::Process;
use crate::spec::Spec;
use crate::time::monotonic_ns;

/// Descends so deep at most.
const ANCESTORS_MAX: usize = 64;
/// Of linux/sched.h: a thread of the kernel's own.
const PF_KTHREAD: u32 = 0x0020_0000;
/// The first namespace of processes, in which programs count (include/linux/proc_ns.h).
const INIT_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Fields of `/proc/PID/stat` behind the name; the first is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// Whether somebody stopped it.
pub(crate) fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| matches!(fields[0].as_str(), "T" | "t"))
}

fn is_kernel(fields: &[String]) -> bool {
    let flags: Option<u32> = fields.get(6).and_then(|flags| flags.parse().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// This process and those that it descends from.
fn own() -> Vec<u32> {
    let mut all = vec![std::process::id()];
    while let Some(parent) = all
        .last()
        .and_then(|pid| stat(*pid))
        .and_then(|fields| fields.get(1).and_then(|parent| parent.parse::<u32>().ok()))
    {
        if parent == 0 || all.len() >= ANCESTORS_MAX {
            break;
        }
        all.push(parent);
    }
    all.push(1);
    all
}

/// The name of the target as programs compare it; zeros without one.
pub(crate) fn comm_bytes(spec: &Spec) -> Result<[u8; COMM_LEN]> {
    let name = spec.target.comm.as_deref().unwrap_or_default();
    if name.len() >= COMM_LEN {
        return Err(Error::usage(format!(
            "--comm of {name:?}: at most {} bytes are wanted, as in /proc/PID/comm",
            COMM_LEN - 1
        )));
    }
    let mut bytes = [0; COMM_LEN];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    Ok(bytes)
}

/// Checks that the target may be touched, and is there if it is one process.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    comm_bytes(spec)?;
    if fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() != INIT_PID_NAMESPACE) {
        return Err(Error::unsupported(
            "process numbers: this one is in a namespace of its own, in which they are others; run it outside",
        ));
    }
    let Some(pid) = spec.target.pid else { return Ok(()) };
    let refuse = |why: &str| Err(Error::usage(format!("--pid {pid}: {why}")));
    let Some(fields) = stat(pid) else { return refuse("there is no such process") };
    if own().contains(&pid) {
        return refuse("it is process 1, this one, or one that it descends from");
    }
    if is_kernel(&fields) {
        return refuse("it is a thread of the kernel");
    }
    Ok(())
}

fn is_named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|comm| comm.strip_suffix('\n') == Some(name))
}

/// The processes that a target names, those excepted that must not be touched.
pub(crate) fn matching(spec: &Spec) -> Result<Vec<Process>> {
    if let Some(pid) = spec.target.pid {
        let is_meant = spec.target.comm.as_deref().is_none_or(|name| is_named(pid, name));
        return Ok(Process::find(pid).filter(|_| is_meant).into_iter().collect());
    }
    let name = spec.target.comm.as_deref().unwrap_or_default();
    let entries =
        fs::read_dir("/proc").map_err(|error| Error::failed(format!("read /proc: {error}")))?;
    let own = own();
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| !own.contains(pid) && is_named(*pid, name))
        .filter(|pid| stat(*pid).is_some_and(|fields| !is_kernel(&fields)))
        .filter_map(Process::find)
        .collect())
}

/// How many match, and which of them are chosen, by chance and at least one.
pub(crate) fn targets(spec: &Spec, percent: f64) -> Result<(u64, Vec<Process>)> {
    if !(percent > 0.0 && percent <= 100.0) {
        return Err(Error::usage(format!(
            "{}: percent of {percent}: more than 0 and at most 100 is wanted",
            spec.fault
        )));
    }
    check(spec)?;
    let mut all = matching(spec)?;
    let seed = monotonic_ns();
    all.sort_by_key(|process| {
        (u64::from(process.pid) ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
    });
    let matched = all.len();
    let count = (matched as f64 * percent / 100.0).ceil() as usize;
    all.truncate(count);
    Ok((u64::try_from(matched).unwrap_or(u64::MAX), all))
}

impl Process {
    /// Sends it a signal; whether it was there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn signal(self, signal: Signal) -> Result<bool> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(fd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return Ok(false);
        };
        // The descriptor is of the process that has the number now: it is asked after it is held.
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => {
                Err(Error::failed(format!("send {signal:?} to process {}: {error}", self.pid)))
            }
        }
    }
}

/// A fault that is all in its thread.
struct Ticking {
    tally: Arc<Tally>,
    ticker: Option<Ticker>,
}

/// A fault that is all in its thread, as a value.
pub(crate) fn of(tally: Arc<Tally>, ticker: Option<Ticker>) -> Box<dyn Active> {
    Box::new(Ticking { tally, ticker })
}

impl Active for Ticking {
    fn counts(&self) -> Result<Counts> {
        Ok(self.tally.get())
    }
    fn disarm(&mut self) -> Result<()> {
        self.ticker = None;
        Ok(())
    }
    fn counters(&self) -> Vec<u32> {
        self.tally.ids()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::select::Target;

    fn at(pid: Option<u32>, comm: Option<&str>) -> Spec {
        let target = Target { pid, comm: comm.map(str::to_owned), ..Target::default() };
        Spec { target, ..Spec::new("process.kill") }
    }

    #[test]
    fn what_must_not_be_touched_is_refused() {
        let parent = own().get(1).copied().expect("a parent");
        for pid in [1, 2, std::process::id(), parent, u32::MAX] {
            assert!(check(&at(Some(pid), None)).is_err(), "{pid}");
        }
        assert!(check(&at(None, Some("sixteen-bytes-and"))).is_err());
        let own_name = fs::read_to_string("/proc/self/comm").expect("a name");
        let found = matching(&at(None, Some(own_name.trim_end()))).expect("/proc");
        assert!(found.iter().all(|process| process.pid != std::process::id()));
    }

    #[test]
    fn names_match_whole_and_a_share_is_rounded_up() {
        let name = format!("chaos{}", std::process::id());
        let start = |name: &str| {
            let script = format!("printf {name} > /proc/$$/comm; echo; read line");
            let mut child = Command::new("sh")
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell");
            let mut ready = [0];
            std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut ready)
                .expect("it is named");
            child
        };
        let mut all: Vec<Child> = (0..3).map(|_| start(&name)).collect();
        all.push(start(&format!("{name}x")));
        let (matched, chosen) = targets(&at(None, Some(&name)), 50.0).expect("/proc");
        for child in &mut all {
            child.kill().expect("it runs");
            child.wait().expect("it ended");
        }
        assert_eq!((matched, chosen.len()), (3, 2));
        assert!(!chosen[0].signal(Signal::KILL).expect("it is gone"));
    }
}
