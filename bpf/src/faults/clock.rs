//! Faults of the clocks that a running process reads: set off, drifting, stopped or running backwards, jumping to and fro.
//!
//! Only the process is met, never the host's clock; processes that it forks meanwhile have what it has, until the deadline in the code
//! ends it for them. What is read through the vDSO is changed (`clock_gettime`, `gettimeofday` and `time` of every C library, of Go and of
//! Rust); direct system calls, the processor's own counter and times that the kernel waits for are not. At its beginning and end
//! the process is stopped for a moment (about a millisecond, and longer with many threads), after which a call such as `epoll_wait` may
//! return EINTR, as after any stop. Invariants: as in `process`; the code checks its deadline itself; what was changed is in the
//! journal before. Next: `clock`, `target`, `tally`.

use crate::error::{Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::registry::Journal;
use crate::spec::Spec;

const OFFSET: Param = Param {
    name: "offset",
    ty: Type::Shift,
    default: None,
    about: "what is added, such as 1h or -1h",
};
const CLOCKS: Param = Param {
    name: "clocks",
    ty: Type::Word(&[]),
    default: Some("CLOCK_REALTIME"),
    about: "which clocks, separated by commas; CLOCK_REALTIME is also that of gettimeofday and time",
};
const PERCENT: Param = Param {
    name: "percent",
    ty: Type::Number,
    default: Some("100"),
    about: "of the processes that match, in percent, at least one",
};

const fn kind(name: &'static str, about: &'static str, params: &'static [Param]) -> Kind {
    Kind { name, about, place: Place::Process, shares: false, params, start }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        "clock.offset",
        "clocks that a process reads through the vDSO, not by system calls, are ahead or behind",
        &[
            OFFSET,
            CLOCKS,
            Param {
                name: "after",
                ty: Type::Duration,
                default: Some("0s"),
                about: "a step, so long after the beginning",
            },
            PERCENT,
        ],
    ),
    kind(
        "clock.drift",
        "clocks that a process reads through the vDSO run at another speed",
        &[
            Param {
                name: "rate",
                ty: Type::Number,
                default: None,
                about: "seconds a second, -1000 to 1000: 2 is twice as fast, 0 stands still, -1 runs backwards",
            },
            CLOCKS,
            PERCENT,
        ],
    ),
    kind(
        "clock.strobe",
        "clocks that a process reads through the vDSO jump to and fro",
        &[
            OFFSET,
            CLOCKS,
            Param {
                name: "on",
                ty: Type::Duration,
                default: Some("50ms"),
                about: "off so long, then as they were",
            },
            Param { name: "off", ty: Type::Duration, default: Some("50ms"), about: "for so long" },
            PERCENT,
        ],
    ),
];

#[cfg(not(target_arch = "x86_64"))]
fn start(_: &Spec, _: &mut Journal) -> Result<Box<dyn Active>> {
    Err(Error::unsupported("change clocks: the code for it is of x86_64"))
}

#[cfg(target_arch = "x86_64")]
use here::start;

#[cfg(target_arch = "x86_64")]
mod here {
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::{Active, Error, Journal, Result, Spec};
    use crate::abi::Counts;
    use crate::clock::Patch;
    use crate::clock::code::{ARMED, RATE_ONE, SHADOW, Told};
    use crate::clock::patch::Plan;
    use crate::fault;
    use crate::faults::tally::{Tally, Ticker};
    use crate::faults::target::targets;
    use crate::registry::Process;
    use crate::time::{SECOND_NS, monotonic_ns, ns};
    use crate::undo::Undo;

    /// The fastest.
    const RATE_MAX: f64 = 1000.0;
    /// How often counts are read for who asks.
    const POLL: Duration = Duration::from_millis(20);

    /// A clock by its name: its number, those of clocks that are the same but for their steps, and which it is here, if it says
    /// the same in each process.
    type Named = (&'static str, &'static [usize], Option<ClockId>);
    const NAMES: &[Named] = &[
        ("CLOCK_REALTIME", &[0, 5], Some(ClockId::Realtime)),
        ("CLOCK_MONOTONIC", &[1, 6], Some(ClockId::Monotonic)),
        ("CLOCK_PROCESS_CPUTIME_ID", &[2], None),
        ("CLOCK_THREAD_CPUTIME_ID", &[3], None),
        ("CLOCK_MONOTONIC_RAW", &[4], Some(ClockId::MonotonicRaw)),
        ("CLOCK_REALTIME_COARSE", &[5], Some(ClockId::Realtime)),
        ("CLOCK_MONOTONIC_COARSE", &[6], Some(ClockId::Monotonic)),
        ("CLOCK_BOOTTIME", &[7], Some(ClockId::Boottime)),
        ("CLOCK_REALTIME_ALARM", &[8], Some(ClockId::Realtime)),
        ("CLOCK_BOOTTIME_ALARM", &[9], Some(ClockId::Boottime)),
        ("CLOCK_TAI", &[11], None),
    ];

    /// The clocks that the fault names.
    pub(super) fn clocks(spec: &Spec) -> Result<Vec<&'static Named>> {
        let text = spec.word("clocks")?;
        let find = |name: &str| {
            NAMES.iter().find(|(known, ..)| *known == name).ok_or_else(|| {
                let known: Vec<&str> = NAMES.iter().map(|(known, ..)| *known).collect();
                Error::usage(format!(
                    "{}: clocks of {text:?}: {name:?} is none of {}",
                    spec.fault,
                    known.join(", ")
                ))
            })
        };
        text.split(',').map(str::trim).map(find).collect()
    }

    fn has(spec: &Spec, name: &str) -> bool {
        fault::find(&spec.fault)
            .is_ok_and(|kind| kind.params.iter().any(|param| param.name == name))
    }

    /// How much is added of the time that passes, in units of the code.
    fn rate(spec: &Spec) -> Result<i64> {
        if !has(spec, "rate") {
            return Ok(0);
        }
        let rate = spec.number("rate")?;
        if rate.is_nan() || rate.abs() > RATE_MAX {
            return Err(Error::usage(format!(
                "{}: rate of {rate}: {} to {RATE_MAX} is wanted",
                spec.fault, -RATE_MAX
            )));
        }
        Ok(((rate - 1.0) * RATE_ONE).round() as i64)
    }

    fn now(clock: ClockId) -> i64 {
        let now = clock_gettime(clock);
        now.tv_sec * i64::try_from(SECOND_NS).unwrap_or(i64::MAX) + now.tv_nsec
    }

    /// What the code is told.
    pub(super) fn told(spec: &Spec) -> Result<Told> {
        let arm = spec.arm();
        let duration =
            |name: &str| if has(spec, name) { spec.duration(name).map(ns) } else { Ok(0) };
        let (on, off) = (duration("on")?, duration("off")?);
        if has(spec, "on") && (on == 0 || off == 0) {
            return Err(Error::usage(format!(
                "{}: on and off of more than 0 are wanted",
                spec.fault
            )));
        }
        let mut told = Told {
            deadline: arm.deadline_ns,
            since: arm.since_ns,
            mode: if spec.shadow { SHADOW } else { ARMED },
            max_hits: spec.max_hits,
            after: duration("after")?,
            offset: if has(spec, "offset") { spec.shift_ns("offset")? } else { 0 },
            rate: rate(spec)?,
            on,
            period: on.saturating_add(off),
            ..Told::default()
        };
        for (name, numbers, clock) in clocks(spec)? {
            let since = clock.map(now);
            if told.rate != 0 && since.is_none() {
                return Err(Error::usage(format!(
                    "{}: {name} cannot be given a speed; those of real, monotonic and boot time can",
                    spec.fault
                )));
            }
            let since = since.unwrap_or(0);
            let rate = told.rate as f64 / RATE_ONE + 1.0;
            let least = since as f64 + told.offset as f64 + ns(spec.ttl) as f64 * rate.min(0.0);
            if clock.is_some() && least < 0.0 && !spec.force {
                return Err(Error::usage(format!(
                    "{}: {name}, now at {} s, would be before its zero, which programs do not expect; insist with --force",
                    spec.fault,
                    since / 1_000_000_000
                )));
            }
            for number in *numbers {
                if let Some(clock) = told.clocks.get_mut(*number) {
                    (clock.is_chosen, clock.since) = (1, since);
                }
            }
        }
        Ok(told)
    }

    /// A process, what was changed in it, and what it had counted when it was last asked.
    struct Member {
        process: Process,
        patch: Patch,
        counts: Mutex<Counts>,
    }

    impl Member {
        fn counts(&self, is_shadow: bool) -> Counts {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            // One that is gone has left what it had.
            if let Some(told) = self.patch.told(self.process) {
                let most = if told.max_hits == 0 { u64::MAX } else { told.max_hits };
                *counts = Counts {
                    seen: told.seen,
                    matched: told.matched,
                    chosen: told.tickets,
                    affected: if is_shadow { 0 } else { told.tickets.min(most) },
                };
            }
            *counts
        }
    }

    /// Clocks that are changed.
    struct Clocks {
        members: Arc<Vec<Member>>,
        tally: Arc<Tally>,
        ticker: Option<Ticker>,
        is_shadow: bool,
    }

    fn count(members: &[Member], is_shadow: bool) -> Counts {
        members.iter().fold(Counts::default(), |all, member| all.and(member.counts(is_shadow)))
    }

    pub(super) fn start(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
        let told = told(spec)?;
        let (_, processes) = targets(spec, spec.number("percent")?)?;
        if processes.is_empty() {
            return Err(Error::usage("there is no such process"));
        }
        let mut members = Vec::new();
        for process in processes {
            let plan = Plan::new(process, &told, monotonic_ns())?;
            journal.will(Undo::Clock { process, patch: plan.patch() })?;
            plan.apply()?;
            members.push(Member { process, patch: plan.patch(), counts: Mutex::default() });
        }
        let (members, tally) = (Arc::new(members), Tally::new());
        let is_shadow = spec.shadow;
        let (read, counted) = (Arc::clone(&members), Arc::clone(&tally));
        let ticker = Ticker::start(move || {
            counted.set(count(&read, is_shadow));
            POLL
        });
        Ok(Box::new(Clocks { members, tally, ticker: Some(ticker), is_shadow }))
    }

    impl Active for Clocks {
        fn counts(&self) -> Result<Counts> {
            Ok(count(&self.members, self.is_shadow))
        }

        fn disarm(&mut self) -> Result<()> {
            for member in self.members.iter() {
                member.patch.disarm(member.process);
                // They go with the page.
                member.counts(self.is_shadow);
            }
            Ok(())
        }

        fn pin(&mut self, _: &std::path::Path) -> Result<()> {
            // The journal has all of it, and the code its deadline.
            Ok(())
        }

        fn counters(&self) -> Vec<u32> {
            self.tally.ids()
        }
    }

    impl Drop for Clocks {
        fn drop(&mut self) {
            self.ticker = None;
            for member in self.members.iter() {
                // The journal tries again, and says why it fails.
                let _ = member.patch.undo(member.process);
            }
        }
    }
}
