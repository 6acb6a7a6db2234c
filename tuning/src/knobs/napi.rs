//! NAPI instances of network devices, each with settings of its own since Linux 6.13; `nic` has those of the whole device for kernels
//! before that. Next: `irq`.

use super::Profile;
use crate::format::Want;
use crate::gains::{Gain, Trial};
use crate::knob::Profile::Throughput;
use crate::knob::{Context, Desire, Knob, Of, Place, Scope, Wish};
use crate::load::Load;

const MUCH: &[Profile] = &[Throughput];

const INSTANCE: Knob = Knob { scope: Scope::Device, ..Knob::BASE };

// The timeout stands first: interrupts that are put off with no timeout would not be, and the other way round is harmless.
pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "napi.gro_flush_timeout",
        place: Place::Napi("gro-flush-timeout"),
        wants: &[(MUCH, Desire::By(">= 20000 where there is an interrupt", flush))],
        what: "nanoseconds until packets that were held to be joined go on, and until the next poll while interrupts are put off",
        why: "what napi.defer_hard_irqs needs: without it interrupts are not put off",
        source: "kernel networking/napi.rst; kernel commit 6f8b12d661d0 (20000)",
        risk: "so much latency at low load; a driver that makes its instances anew (link down and up) may forget it",
        gain: Gain::By(Trial {
            b: Some("20000"),
            with: &[("nic.gro", "1")],
            ..Trial::of(Load::Stream)
        }),
        ..INSTANCE
    },
    Knob {
        name: "napi.defer_hard_irqs",
        place: Place::Napi("defer-hard-irqs"),
        wants: &[(MUCH, Desire::By(">= 2 where there is an interrupt", defer))],
        what: "so many empty polls before the device may interrupt again, napi.gro_flush_timeout apart",
        why: "fewer interrupts and larger batches under load: about 20 % more at 100 Gbit/s with 32 queues and more",
        source: "kernel networking/napi.rst; kernel commit 6f8b12d661d0",
        risk: "a packet that comes alone waits up to napi.gro_flush_timeout",
        gain: Gain::By(Trial {
            b: Some("2"),
            with: &[("nic.gro", "1"), ("napi.gro_flush_timeout", "20000")],
            ..Trial::of(Load::Stream)
        }),
        ..INSTANCE
    },
    Knob {
        name: "napi.irq_suspend_timeout",
        place: Place::Napi("irq-suspend-timeout"),
        wants: &[(MUCH, Desire::By(">= 20000000 where there is an interrupt", suspend))],
        what: "nanoseconds for which interrupts stay off while a process that prefers busy polling finds events",
        why: "under load such a process polls with no interrupt, and with none it sleeps again; nothing changes for processes that never ask (EPIOCSPARAMS)",
        source: "kernel networking/napi.rst, 'IRQ suspension'; kernel commit 5dc51ec86df6 (Linux 6.13)",
        risk: "while a process that asked for it is stuck, packets of others on the same queue wait so long",
        gain: Gain::Not("for processes that prefer busy polling, on a device with interrupts"),
        ..INSTANCE
    },
];

/// At least so much, where there is an interrupt to put off.
fn at_least(context: &Context<'_>, value: u64) -> Wish {
    match context.of {
        Of::Napi(nic, Some(_)) if nic.driver.is_none() => Wish::NotHere(
            "one end of a pair: it has no interrupt that could be put off".to_owned(),
        ),
        Of::Napi(_, Some(_)) => Wish::Want(Want::AtLeast(value)),
        _ => Wish::NotHere(
            "no NAPI instance with settings of its own: the device is down, or the kernel is older than Linux 6.13"
                .to_owned(),
        ),
    }
}

fn flush(context: &Context<'_>) -> Wish {
    at_least(context, 20_000)
}

fn defer(context: &Context<'_>) -> Wish {
    at_least(context, 2)
}

fn suspend(context: &Context<'_>) -> Wish {
    at_least(context, 20_000_000)
}
