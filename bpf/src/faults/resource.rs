//! Limits of processes, and settings of the kernel: less time, memory, descriptors, locked memory, buffers.
//!
//! Invariants: the journal knows what was before it is changed; only soft limits of a process are changed. Next: `limit`,
//! `groups`, `sysctl`.

use std::sync::Arc;

use crate::abi::Counts;
use crate::error::{Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::process::chosen;
use crate::faults::tally::Tally;
use crate::groups::{self, Group, Groups, Hierarchy};
use crate::limit::{Limit, Limited};
use crate::registry::{Journal, Process};
use crate::spec::Spec;
use crate::sysctl;
use crate::undo::Undo;

/// Of a processor's time; short, so that a throttled process still moves.
const PERIOD_US: u64 = 20_000;
const QUOTA_US_MIN: u64 = 1000;

const VERSION: Param = Param {
    name: "version",
    ty: Type::Word(&["any", "1", "2"]),
    default: Some("any"),
    about: "of control groups",
};
const fn integer(name: &'static str, default: Option<&'static str>, about: &'static str) -> Param {
    Param { name, ty: Type::Integer, default, about }
}

const fn kind(
    name: &'static str,
    about: &'static str,
    place: Place,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place, shares: false, params, start }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        "limit.cpu",
        "the process gets so much of one processor's time",
        Place::Process,
        &[
            Param {
                name: "quota",
                ty: Type::Number,
                default: Some("10"),
                about: "percent of one processor, 5 at least; 200 are two processors",
            },
            VERSION,
        ],
        cpu,
    ),
    kind(
        "limit.memory",
        "the process may take so much memory from now on, and is killed by the kernel when it wants more",
        Place::Process,
        &[integer("bytes", None, "so many more than it has"), VERSION],
        memory,
    ),
    kind(
        "limit.pids",
        "the process may start so many more threads and processes, then fails with EAGAIN",
        Place::Process,
        &[integer("more", Some("0"), "beside those that it has"), VERSION],
        pids,
    ),
    kind(
        "limit.files",
        "the process may open no descriptor of this number or a greater one: EMFILE",
        Place::Process,
        &[integer("most", Some("0"), "descriptors; those that it has stay open")],
        |spec, journal| limit(spec, journal, Limited::Files),
    ),
    kind(
        "limit.filesize",
        "the process may write no file beyond this: SIGXFSZ, or EFBIG if that is ignored",
        Place::Process,
        &[integer("most", None, "bytes")],
        |spec, journal| limit(spec, journal, Limited::FileSize),
    ),
    kind(
        "limit.memlock",
        "the process may lock no more memory: ENOMEM; without CAP_IPC_LOCK only",
        Place::Process,
        &[integer("most", Some("0"), "bytes")],
        |spec, journal| limit(spec, journal, Limited::LockedMemory),
    ),
    kind(
        "limit.addresses",
        "the process may map no more memory: ENOMEM",
        Place::Process,
        &[integer("most", Some("0"), "bytes")],
        |spec, journal| limit(spec, journal, Limited::AddressSpace),
    ),
    kind(
        "uring.off",
        "no io_uring can be made on this host: EPERM",
        Place::Host,
        &[],
        |spec, journal| {
            sysctls(spec, journal, &[("kernel.io_uring_disabled".to_owned(), "2".to_owned())])
        },
    ),
    kind(
        "tcp.buffers",
        "connections made from now on have small buffers",
        Place::Host,
        &[integer("bytes", Some("4096"), "of each direction, 4096 at least")],
        buffers,
    ),
    kind(
        "host.sysctl",
        "a setting of the kernel is another",
        Place::Host,
        &[
            Param {
                name: "name",
                ty: Type::Word(&[]),
                default: None,
                about: "such as net.ipv4.tcp_retries2",
            },
            Param { name: "value", ty: Type::Word(&[]), default: None, about: "what it becomes" },
        ],
        |spec, journal| sysctls(spec, journal, &[(spec.word("name")?, spec.word("value")?)]),
    ),
];

/// Puts the target's processes into a group with a limit.
fn group(
    spec: &Spec,
    journal: &mut Journal,
    controller: &str,
    limit: impl Fn(Group<'_>, bool) -> Result<()>,
) -> Result<Box<dyn Active>> {
    let hierarchy = Hierarchy::find(controller, &spec.word("version")?)?;
    let (tally, chosen) = chosen(spec)?;
    let groups = Groups::join(&hierarchy, &chosen, journal, |group| limit(group, hierarchy.is_v2))?;
    tally.affected(groups.processes());
    Ok(groups::active(groups, tally))
}

fn cpu(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let percent = spec.number("quota")?;
    if !(5.0..=100_000.0).contains(&percent) {
        return Err(Error::usage(format!(
            "{}: quota of {percent}: 5 percent at least are wanted",
            spec.fault
        )));
    }
    let quota = ((PERIOD_US as f64 * percent / 100.0) as u64).max(QUOTA_US_MIN);
    group(spec, journal, "cpu", |group, is_v2| {
        if is_v2 {
            return group.set("cpu.max", &format!("{quota} {PERIOD_US}"));
        }
        group.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        group.set("cpu.cfs_quota_us", &quota.to_string())
    })
}

fn memory(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let bytes = spec.integer("bytes")?;
    // What a process has stays with the group that it was charged to: the new one begins with nothing.
    group(spec, journal, "memory", |group, is_v2| {
        group.set(if is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, &bytes.to_string())
    })
}

fn pids(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let more = spec.integer("more")?;
    group(spec, journal, "pids", |group, _| {
        let most = group.get("pids.current")?.saturating_add(more);
        group.set("pids.max", &most.to_string())
    })
}

/// Limits of processes that are to become again what they were.
struct Limits {
    all: Vec<(Process, Limit)>,
    of: Limited,
    tally: Arc<Tally>,
}

fn limit(spec: &Spec, journal: &mut Journal, of: Limited) -> Result<Box<dyn Active>> {
    let most = spec.integer("most")?;
    let (tally, chosen) = chosen(spec)?;
    let mut limits = Limits { all: Vec::new(), of, tally };
    for process in chosen {
        let Ok(was) = of.of(process) else { continue };
        // No limit is the greatest.
        let soft = was.hard.map_or(most, |hard| hard.min(most));
        journal.will(Undo::Limit { process, of, was })?;
        limits.all.push((process, was));
        let is_there = of.set(process, Limit { soft: Some(soft), hard: was.hard })?;
        limits.tally.affected(u64::from(is_there));
    }
    Ok(Box::new(limits))
}

impl Limits {
    fn restore(&mut self) -> Result<()> {
        while let Some((process, was)) = self.all.pop() {
            self.of.set(process, was)?;
        }
        Ok(())
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        // The journal tries again, and tells.
        let _ = self.restore();
    }
}

impl Active for Limits {
    fn pin(&mut self, _: &std::path::Path) -> Result<()> {
        // The journal has all of it: the watchdog ends it when its time is over.
        Ok(())
    }
    fn counts(&self) -> Result<Counts> {
        Ok(self.tally.get())
    }
    fn disarm(&mut self) -> Result<()> {
        self.restore()
    }
    fn counters(&self) -> Vec<u32> {
        self.tally.ids()
    }
}

/// Settings that are to become again what they were.
struct Settings {
    was: Vec<(String, String)>,
    tally: Arc<Tally>,
}

fn buffers(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let bytes = spec.integer("bytes")?.max(4096);
    let value = format!("4096 {bytes} {bytes}");
    let names = ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"];
    sysctls(spec, journal, &names.map(|name| (name.to_owned(), value.clone())))
}

fn sysctls(
    spec: &Spec,
    journal: &mut Journal,
    settings: &[(String, String)],
) -> Result<Box<dyn Active>> {
    let mut all = Settings { was: Vec::new(), tally: Tally::new() };
    for (name, value) in settings {
        let was = sysctl::read(name)?;
        all.tally.add(Counts { seen: 1, matched: 1, chosen: 1, affected: 0 });
        if spec.shadow {
            continue;
        }
        let netns = journal.netns();
        journal.will(Undo::Sysctl { netns, name: name.clone(), was: was.clone() })?;
        all.was.push((name.clone(), was));
        sysctl::write(name, value)?;
        all.tally.affected(1);
    }
    Ok(Box::new(all))
}

impl Settings {
    fn restore(&mut self) -> Result<()> {
        while let Some((name, was)) = self.was.pop() {
            sysctl::write(&name, &was)?;
        }
        Ok(())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // The journal tries again, and tells.
        let _ = self.restore();
    }
}

impl Active for Settings {
    fn pin(&mut self, _: &std::path::Path) -> Result<()> {
        // The journal has all of it: the watchdog ends it when its time is over.
        Ok(())
    }
    fn counts(&self) -> Result<Counts> {
        Ok(self.tally.get())
    }
    fn disarm(&mut self) -> Result<()> {
        self.restore()
    }
    fn counters(&self) -> Vec<u32> {
        self.tally.ids()
    }
}
