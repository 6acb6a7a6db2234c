//! Processors: frequency, idle states, clocks, watchdogs. Next: `boot`.

use super::{HOSTS, Profile};
use crate::format::Want;
use crate::gains::{Gain, Trial};
use crate::host::Host;
use crate::knob::Desire::{By, Is};
use crate::knob::Profile::{Bench, Latency, Throughput};
use crate::knob::{Context, How, Knob, Of, Place, Wish};
use crate::load::Load;
use crate::tree::Tree;

const FAST: &[Profile] = &[Latency, Throughput, Bench];
const QUIET: &[Profile] = &[Latency, Bench];

const PROCESSOR: Knob = Knob {
    gain: Gain::Not(
        "a virtual machine cannot set frequencies and idle states: tune measure KNOB -- on a whole machine",
    ),
    ..Knob::BASE
};

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "cpu.clocksource",
        place: Place::File("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        wants: &[(
            HOSTS,
            By("one that is read without a system call: tsc, kvm-clock, arch_sys_counter", clock),
        )],
        what: "what tells the time",
        why: "each reading of hpet, acpi_pm or xen is a system call or a trip to the device: 10 to 100 times the cost",
        source: "kernel timers/timekeeping.rst; Netflix 2017 (xen to tsc)",
        risk: "the kernel drops a tsc that it finds unstable, and warns",
        cost: "each reading of the clock is a system call or worse",
        gain: Gain::Not(
            "where the clock is fast already there is nothing to gain: tune measure KNOB -- where it is not",
        ),
        ..PROCESSOR
    },
    Knob {
        name: "cpu.governor",
        place: Place::Frequency("scaling_governor"),
        wants: &[(FAST, By("performance where it is offered", governor))],
        what: "who chooses the frequency of a processor",
        why: "others lower it while a service waits, and the first requests after that are slow",
        source: "kernel admin-guide/pm/cpufreq.rst; tuned latency- and throughput-performance",
        risk: "power, and less headroom for boost where cooling is short",
        cost: "the first requests after a pause run at a low frequency",
        ..PROCESSOR
    },
    Knob {
        name: "cpu.energy_preference",
        place: Place::Frequency("energy_performance_preference"),
        wants: &[(FAST, Is("performance"))],
        what: "what the processor itself prefers between power and speed",
        why: "with it the hardware raises the frequency at once",
        source: "kernel admin-guide/pm/intel_pstate.rst, amd-pstate.rst",
        risk: "power",
        ..PROCESSOR
    },
    Knob {
        name: "cpu.resume_latency",
        place: Place::Cpu("power/pm_qos_resume_latency_us"),
        wants: &[(QUIET, By("3 where the kernel chooses idle states", resume))],
        what: "microseconds that a processor may take to wake; deeper idle states are not used (0: no limit)",
        why: "deep states take 50 to 200 microseconds to leave",
        source: "kernel ABI/testing/sysfs-devices-power; tuned latency-performance force_latency 3",
        risk: "power, and less boost for the others while one is idle",
        ..PROCESSOR
    },
    Knob {
        name: "cpu.dma_latency",
        place: Place::Derived("/dev/cpu_dma_latency", dma_latency),
        how: How::Tell(
            "in force only while a process holds the file open: a service opens it itself; cpu.resume_latency needs no holder",
        ),
        what: "microseconds that any processor may take to wake, as long as somebody holds the file open",
        why: "the way of tuned and of realtime programs to keep processors out of deep states",
        source: "kernel power/pm_qos_interface.rst; tuned force_latency",
        risk: "power",
        ..PROCESSOR
    },
    Knob {
        name: "cpu.boost",
        place: Place::File("/sys/devices/system/cpu/cpufreq/boost"),
        wants: &[(&[Bench], Is("0"))],
        what: "whether processors run above their nominal frequency while they are cool enough",
        why: "the frequency depends on temperature and on what neighbours do: two runs differ",
        source: "kernel admin-guide/pm/cpufreq.rst",
        risk: "slower by what boost gives; not for production",
        ..PROCESSOR
    },
    Knob {
        name: "cpu.no_turbo",
        place: Place::File("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        wants: &[(&[Bench], Is("1"))],
        what: "the same switch of Intel's driver, the other way round",
        why: "the frequency depends on temperature and on what neighbours do: two runs differ",
        source: "kernel admin-guide/pm/intel_pstate.rst",
        risk: "slower by what turbo gives; not for production",
        ..PROCESSOR
    },
    Knob {
        name: "cpu.smt",
        place: Place::File("/sys/devices/system/cpu/smt/control"),
        how: How::Tell(
            "half of the processors would be gone: decide at boot (nosmt), or pin one shard to each core",
        ),
        what: "whether two threads share each core",
        why: "a neighbour on the same core takes a third of its speed at random moments",
        source: "kernel admin-guide/hw-vuln; perftune (seastar)",
        risk: "off: less throughput for most services",
        ..PROCESSOR
    },
    Knob {
        name: "kernel.nmi_watchdog",
        wants: &[(QUIET, Is("0"))],
        what: "whether a counter of each processor looks for a kernel that hangs",
        why: "it takes a hardware counter from profilers, and interrupts each processor",
        source: "kernel admin-guide/sysctl/kernel.rst; tuned cpu-partitioning 0",
        risk: "a hang of the kernel in a loop with interrupts off is not reported",
        gain: Gain::By(Trial::of(Load::RoundTrips)),
        ..PROCESSOR
    },
    Knob {
        name: "kernel.timer_migration",
        wants: &[(&[Latency], Is("0"))],
        what: "whether timers of an idle processor are moved to a busy one",
        why: "a pinned thread would run the timers of the others",
        source: "tuned cpu-partitioning 0",
        risk: "idle processors wake for their own timers: power",
        gain: Gain::By(Trial::of(Load::RoundTrips)),
        ..PROCESSOR
    },
    Knob {
        name: "kernel.sched_autogroup_enabled",
        wants: &[(&[Bench], Is("0"))],
        what: "whether processor time is shared between terminals first, and then between their processes",
        why: "which terminal a server was started from would change its share",
        source: "sched(7)",
        risk: "a desktop feels builds more",
        gain: Gain::By(Trial::of(Load::RoundTrips)),
        ..PROCESSOR
    },
    Knob {
        name: "kernel.sched_rt_runtime_us",
        how: How::Tell("a safety net against threads that never yield"),
        what: "microseconds of each second that realtime threads may use: 950000, or -1 for all",
        why: "a thread that spins under SCHED_FIFO is stopped for 50 ms of each second",
        source: "kernel scheduler/sched-rt-group.rst; tuned realtime -1",
        risk: "-1: a spinning realtime thread takes its processor for ever",
        gain: Gain::Not("a bound: it stops threads that never yield, and changes nothing else"),
        ..PROCESSOR
    },
];

fn clock(context: &Context<'_>) -> Wish {
    let path = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let offered = context.tree.text(path).unwrap_or_default();
    // All of these are read in user space; a kernel lists only those that it trusts.
    let fast = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
    let fast: Vec<String> = fast
        .into_iter()
        .filter(|name| offered.split_whitespace().any(|offered| offered == *name))
        .map(str::to_owned)
        .collect();
    if fast.is_empty() {
        return Wish::NotHere(format!("this kernel offers only: {}", offered.trim()));
    }
    Wish::Want(Want::OneOf(fast))
}

fn governor(context: &Context<'_>) -> Wish {
    let Of::Cpu(policy) = context.of else { return Wish::NotHere("no such processor".to_owned()) };
    let path =
        format!("/sys/devices/system/cpu/cpufreq/policy{policy}/scaling_available_governors");
    let offered = context.tree.text(&path).unwrap_or_default();
    if !offered.split_whitespace().any(|name| name == "performance") {
        return Wish::NotHere(format!("the driver offers only: {}", offered.trim()));
    }
    Wish::Want(Want::Is("performance".to_owned()))
}

fn resume(context: &Context<'_>) -> Wish {
    let driver = context.tree.text("/sys/devices/system/cpu/cpuidle/current_driver");
    match driver.as_deref().unwrap_or("none") {
        "none" => Wish::NotHere("the kernel chooses no idle states here".to_owned()),
        // In a guest the host decides how deep a halted processor sleeps.
        "haltpoll" => {
            Wish::NotHere("a guest that polls before it halts: it has no deep states".to_owned())
        }
        _ => Wish::Want(Want::OneOf(["3", "2", "1", "n/a"].map(str::to_owned).to_vec())),
    }
}

fn dma_latency(tree: &Tree, _: &Host) -> Option<String> {
    let bytes = tree.bytes("/dev/cpu_dma_latency")?;
    // The kernel gives four bytes of its own order, a recorded tree the number as text.
    let latency_us = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) if !bytes.iter().all(u8::is_ascii_graphic) => {
            i64::from(i32::from_ne_bytes(bytes))
        }
        _ => String::from_utf8(bytes).ok()?.trim().parse().ok()?,
    };
    Some(if latency_us >= 2_000_000_000 { "no limit".to_owned() } else { latency_us.to_string() })
}
