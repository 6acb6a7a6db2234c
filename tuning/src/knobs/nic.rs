//! Network devices: which processors their queues use, how long packets are collected, rings. Next: `napi`.

use super::Profile;
use crate::cpus::CpuSet;
use crate::format::{Format, Want};
use crate::gains::{Gain, Trial};
use crate::knob::Desire::{By, Is};
use crate::knob::Profile::{Bench, Latency, Throughput};
use crate::knob::{Context, How, Knob, Of, Place, Scope, Wish};
use crate::load::Load;

const MANY: &[Profile] = &[Latency, Throughput, Bench];

const DEVICE: Knob = Knob {
    scope: Scope::Device,
    gain: Gain::Not(
        "a pair of virtual devices has one queue, and neither rings nor interrupts: measure on the device",
    ),
    ..Knob::BASE
};

// Rings and features come first: a driver that stops its link for them may forget what its queues were set to.
pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "nic.rx_ring",
        place: Place::Ethtool("rings/rx"),
        wants: &[(
            &[Throughput],
            By("half of the device's maximum, at least 1024 where it can", ring),
        )],
        what: "descriptors of a receive queue",
        why: "a burst that comes while the processor is elsewhere is dropped by the device when they are used up",
        source: "kernel networking/ethtool-netlink.rst; Netflix 2017",
        risk: "many drivers stop the link for a moment; rings larger than the cache cost throughput",
        ..DEVICE
    },
    Knob {
        name: "nic.adaptive_rx",
        place: Place::Ethtool("coalesce/adaptive-rx"),
        wants: &[(&[Bench], Is("0")), (&[Throughput], Is("1"))],
        what: "whether the device chooses itself how long it collects packets before it interrupts",
        why: "on, it batches under load; off, two runs see the same device",
        source: "kernel networking/ethtool-netlink.rst",
        risk: "off, the fixed time that stays may be bad for other loads",
        ..DEVICE
    },
    Knob {
        name: "nic.channels",
        place: Place::Ethtool("channels/combined"),
        how: How::Tell(
            "changing it stops the link, and loses what the queues were set to: ethtool -L NIC combined N, then tune apply",
        ),
        wants: &[(
            MANY,
            By("as many as processors that may be used, up to the device's maximum", channels),
        )],
        what: "pairs of queues, each with an interrupt",
        why: "one for each processor lets the hardware spread packets, with no work for it in software",
        source: "kernel networking/scaling.rst; perftune (seastar) mode mq",
        risk: "stops the link",
        ..DEVICE
    },
    Knob {
        name: "nic.gro",
        place: Place::Ethtool("features/rx-gro"),
        wants: &[(&[Throughput], By("1 on devices that are no end of a pair", joined))],
        what: "whether packets of one flow that come together are joined before the stack sees them (GRO)",
        why: "the stack does its work once for up to 64 KiB instead of once for each packet",
        source: "kernel networking/segmentation-offloads.rst, networking/napi.rst",
        risk: "routers that must not change where packets begin; a packet may wait for napi.gro_flush_timeout",
        gain: Gain::By(Trial { a: Some("0"), b: Some("1"), ..Trial::of(Load::Stream) }),
        ..DEVICE
    },
    Knob {
        name: "nic.ntuple",
        place: Place::Ethtool("features/rx-ntuple-filter"),
        wants: &[(&[Latency, Throughput], By("1 with two queues or more", steered))],
        what: "whether the device is told to which queue a flow's packets go: with RFS that is the one of its reader (accelerated RFS)",
        why: "the interrupt comes to the processor where the service reads, and no software passes packets on",
        source: "kernel networking/scaling.rst, 'Accelerated RFS'; perftune (seastar), --arfs",
        risk: "one rule of the device for each flow: many short connections keep it busy with rules; some drivers stop the link",
        ..DEVICE
    },
    Knob {
        name: "nic.rps_cpus",
        place: Place::RxQueue("rps_cpus"),
        format: Format::Mask,
        wants: &[(
            MANY,
            By(
                "processors of its node with one queue, or fewer than half as many queues as those, else none",
                rps,
            ),
        )],
        what: "processors that the stack's work for packets of this queue is spread over (RPS)",
        why: "with few queues few processors do all the work; with many, the hardware has spread it",
        source: "kernel networking/scaling.rst; perftune (seastar), modes sq and mq",
        risk: "an interrupt between processors for each batch: CPU for throughput",
        gain: Gain::By(Trial::of(Load::Stream)),
        ..DEVICE
    },
    Knob {
        name: "nic.rps_flow_cnt",
        place: Place::RxQueue("rps_flow_cnt"),
        wants: &[(MANY, By(">= 32768 divided by the device's queues", flow_count))],
        what: "flows of this queue that follow their reader to its processor (RFS)",
        why: "the stack runs where the service reads; with this 0 the table of the stack is not used",
        source: "kernel networking/scaling.rst; perftune (seastar)",
        risk: "reordering while a reader moves between processors",
        gain: Gain::Not(
            "nothing without net.core.rps_sock_flow_entries, and readers on several processors",
        ),
        ..DEVICE
    },
    Knob {
        name: "nic.xps_cpus",
        place: Place::TxQueue("xps_cpus"),
        format: Format::Mask,
        wants: &[(MANY, By("each processor of its node to one queue, in turn", xps))],
        what: "processors that send through this queue (XPS)",
        why: "a queue that one processor uses has no contention for its lock, and completes where it was sent",
        source: "kernel networking/scaling.rst; perftune (seastar)",
        risk: "none known; drivers often set it so themselves",
        ..DEVICE
    },
    Knob {
        name: "nic.napi_defer_hard_irqs",
        place: Place::Nic("napi_defer_hard_irqs"),
        wants: &[(&[Throughput], By(">= 2 where instances have no setting of their own", defer))],
        what: "so many empty polls before the device may interrupt again, gro_flush_timeout apart",
        why: "fewer interrupts and larger batches under load: about 20 % more at 100 Gbit/s with 32 queues and more",
        source: "kernel networking/napi.rst; kernel commit 6f8b12d661d0",
        risk: "a packet that comes alone waits up to gro_flush_timeout",
        gain: Gain::Not("the older form of napi.defer_hard_irqs"),
        ..DEVICE
    },
    Knob {
        name: "nic.gro_flush_timeout",
        place: Place::Nic("gro_flush_timeout"),
        wants: &[(
            &[Throughput],
            By(">= 20000 where instances have no setting of their own", flush),
        )],
        what: "nanoseconds until packets that were held to be joined go on, and until the next poll while interrupts are put off",
        why: "what napi_defer_hard_irqs needs: without it interrupts are not put off",
        source: "kernel networking/napi.rst; kernel commit 6f8b12d661d0 (20000)",
        risk: "so much latency at low load",
        gain: Gain::Not("the older form of napi.gro_flush_timeout"),
        ..DEVICE
    },
];

fn rps(context: &Context<'_>) -> Wish {
    let Of::Queue(nic, _) = context.of else { return nothing() };
    // Two threads of a core share its work anyway: half as many queues are enough.
    let is_spread = nic.rx > 1 && nic.rx * 2 >= nic.local.len().min(context.host.cores);
    let none = is_spread || context.host.cores < 2 || nic.local.len() < 2;
    Wish::Want(Want::Cpus(if none { CpuSet::default() } else { nic.local.clone() }))
}

fn flow_count(context: &Context<'_>) -> Wish {
    let Of::Queue(nic, _) = context.of else { return nothing() };
    if context.host.cores < 2 {
        return Wish::NotHere("one processor: there is no other for a packet to go to".to_owned());
    }
    // The kernel rounds up to a power of two, which this is then already.
    let queues = u64::try_from(nic.rx.max(1).next_power_of_two()).unwrap_or(1);
    Wish::Want(Want::AtLeast((32_768 / queues).max(1)))
}

fn xps(context: &Context<'_>) -> Wish {
    let Of::Queue(nic, number) = context.of else { return nothing() };
    if nic.tx < 2 {
        return Wish::NotHere("one transmit queue: there is nothing to choose".to_owned());
    }
    let spread = nic.local.iter().enumerate().filter(|(at, _)| at % nic.tx == number);
    let mut cpus: CpuSet = spread.map(|(_, cpu)| cpu).collect();
    if cpus.is_empty() {
        cpus = nic.local.round(number).into_iter().collect();
    }
    Wish::Want(Want::Cpus(cpus))
}

/// Of the device as a whole; where its instances can be set, it would overwrite what each of them has.
fn of_whole(context: &Context<'_>, instead: &str, value: u64) -> Wish {
    let Of::Nic(nic) = context.of else { return nothing() };
    if nic.napis.is_empty() {
        return Wish::Want(Want::AtLeast(value));
    }
    Wish::NotHere(format!("each NAPI instance has one of its own here: {instead}"))
}

fn defer(context: &Context<'_>) -> Wish {
    of_whole(context, "napi.defer_hard_irqs", 2)
}

fn flush(context: &Context<'_>) -> Wish {
    of_whole(context, "napi.gro_flush_timeout", 20_000)
}

fn joined(context: &Context<'_>) -> Wish {
    let Of::Nic(nic) = context.of else { return nothing() };
    if nic.driver.is_none() {
        return Wish::NotHere(
            "one end of a pair: what comes from this host was never cut: see tune measure"
                .to_owned(),
        );
    }
    Wish::Want(Want::Is("1".to_owned()))
}

fn steered(context: &Context<'_>) -> Wish {
    let Of::Nic(nic) = context.of else { return nothing() };
    if nic.rx < 2 {
        return Wish::NotHere("one receive queue: there is nothing to choose".to_owned());
    }
    Wish::Want(Want::Is("1".to_owned()))
}

fn ring(context: &Context<'_>) -> Wish {
    let Of::Nic(nic) = context.of else { return nothing() };
    match most(context, "rings/rx-max") {
        Some(most) => Wish::Want(Want::AtLeast((most / 2).max(1024).min(most))),
        None => Wish::NotHere(format!("{} does not say how large its rings may be", nic.name)),
    }
}

fn channels(context: &Context<'_>) -> Wish {
    let Of::Nic(nic) = context.of else { return nothing() };
    let cores = u64::try_from(context.host.cores).unwrap_or(u64::MAX);
    match most(context, "channels/combined-max") {
        Some(most) => Wish::Want(Want::AtLeast(most.min(cores))),
        None => Wish::NotHere(format!("{} does not say how many it can have", nic.name)),
    }
}

fn most(context: &Context<'_>, setting: &str) -> Option<u64> {
    let Of::Nic(nic) = context.of else { return None };
    let path = format!("{}ethtool/{}/{setting}", crate::tree::NETLINK, nic.name);
    context.tree.number(&path).filter(|most| *most > 0)
}

fn nothing() -> Wish {
    Wish::NotHere("no such device".to_owned())
}
