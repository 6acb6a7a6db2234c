//! Interrupts of network devices, and the daemon that moves them. Next: `irqbalance`.

use super::Profile;
use crate::format::{Format, Want};
use crate::gains::Gain;
use crate::host::Host;
use crate::irqbalance::Irqbalance;
use crate::knob::Desire::By;
use crate::knob::Profile::{Bench, Latency, Throughput};
use crate::knob::{Context, How, Knob, Of, Place, Scope, Wish};
use crate::tree::Tree;

const MANY: &[Profile] = &[Latency, Throughput, Bench];

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "irq.affinity",
        place: Place::NicIrq,
        format: Format::List,
        scope: Scope::Device,
        wants: &[(MANY, By("one processor of the device's node for each, in turn", one_each))],
        what: "the processor that an interrupt of a network queue goes to",
        why: "queues stay on processors of their own, near the device, and a connection's packets on one of them",
        source: "kernel core-api/irq/irq-affinity.rst; perftune (seastar), mode mq",
        risk: "a processor with several queues may be busier than others",
        in_vain: Some(moved_back),
        gain: Gain::Not("virtual devices have no interrupts: measure on the device"),
        ..Knob::BASE
    },
    Knob {
        name: "irq.irqbalance",
        place: Place::Derived("/proc/PID/cmdline of irqbalance", irqbalance),
        how: How::Tell(
            "a service of the host: stop it, or have it leave these interrupts alone (--banirq) and start it again",
        ),
        wants: &[(
            MANY,
            By("not running, or told to leave all interrupts of network devices alone", left_alone),
        )],
        what: "whether irqbalance runs, and which interrupts it leaves alone",
        why: "it moves interrupts that were given a processor; a ban counts only on the command line of the process that runs",
        source: "irqbalance(1); seastar issues 502 and 571: bans that had no effect and said nothing",
        risk: "without it and without irq.affinity all interrupts may stay on one processor",
        gain: Gain::Not("virtual devices have no interrupts: measure on the device"),
        ..Knob::BASE
    },
];

fn one_each(context: &Context<'_>) -> Wish {
    let Of::Irq(nic, at, irq) = context.of else {
        return Wish::NotHere("no such interrupt".to_owned());
    };
    // Those of one queue belong together.
    let at = irq.queue().unwrap_or(at);
    Wish::Want(Want::Cpus(nic.local.round(at).into_iter().collect()))
}

fn moved_back(context: &Context<'_>) -> Option<String> {
    let Of::Irq(_, _, irq) = context.of else { return None };
    let daemon = context.host.irqbalance.as_ref().filter(|daemon| daemon.moves(irq.number))?;
    let file = daemon.not_in_force.iter().find(|(number, _)| *number == irq.number);
    let why = file.map_or_else(String::new, |(_, file)| {
        format!("; {file} bans it, but the process that runs does not know that: restart it")
    });
    Some(format!("irqbalance (process {}) would move it back{why}", daemon.pid))
}

fn left_alone(context: &Context<'_>) -> Wish {
    let absent = "not running".to_owned();
    let irqs = || context.host.nics.iter().flat_map(|nic| &nic.irqs);
    let moves = |daemon: &Irqbalance| irqs().any(|irq| daemon.moves(irq.number));
    let is_fine = context.host.irqbalance.as_ref().is_some_and(|daemon| !moves(daemon));
    match irqbalance(context.tree, context.host) {
        Some(now) if is_fine => Wish::Want(Want::OneOf(vec![absent, now])),
        _ => Wish::Want(Want::Is(absent)),
    }
}

fn irqbalance(_: &Tree, host: &Host) -> Option<String> {
    // The processes of its host cannot be seen from within a container.
    if host.irqbalance.is_none() && host.container.is_some() {
        return None;
    }
    let Some(daemon) = &host.irqbalance else { return Some("not running".to_owned()) };
    let list = |irqs: &mut dyn Iterator<Item = u32>| {
        irqs.map(|irq| irq.to_string()).collect::<Vec<_>>().join(",")
    };
    let mut text = format!("process {}", daemon.pid);
    if !daemon.banned.is_empty() {
        text.push_str(&format!(", leaves {} alone", list(&mut daemon.banned.iter().copied())));
    }
    if let Some((_, file)) = daemon.not_in_force.first() {
        let irqs = list(&mut daemon.not_in_force.iter().map(|(irq, _)| *irq));
        text.push_str(&format!(", does not know the ban of {irqs} in {file}"));
    }
    Some(text)
}
