//! A rate by the kernel's own shaper, for what is too fast for the delay line: the program gives packets the priority of a slow class.
//!
//! Only what leaves a device can be queued. Invariants: what is not chosen is of no class, and not queued; when the program goes,
//! in whatever way, nothing is of the class any more; the queueing discipline stays then, and is in the journal. Next: `netlink`.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::delay;
use crate::faults::packet::{Action, Packets};
use crate::netlink;
use crate::registry::Journal;
use crate::select::Direction;
use crate::spec::Spec;
use crate::undo::Undo;

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[Kind {
    name: "net.rate",
    about: "packets leave at a rate, by the kernel's HTB: for rates that are too high for net.throttle",
    place: Place::Device,
    shares: true,
    params: &[
        Param {
            name: "rate",
            ty: Type::Word(&[]),
            default: None,
            about: "such as 100MB/s or 1Gbit/s, with Ethernet headers; below 4 GB/s",
        },
        Param {
            name: "queue",
            ty: Type::Word(&[]),
            default: Some("1MB"),
            about: "what waits at most, such as 256kB; more is lost",
        },
    ],
    start,
}];

fn start(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    if spec.target.dir != Direction::Out {
        return Err(Error::usage(
            "only what leaves a device can be queued; net.throttle slows what comes in",
        ));
    }
    let number = |name: &str, value: u64| {
        u32::try_from(value)
            .map_err(|_| Error::usage(format!("{name} of {value} bytes: below 4 GB is wanted")))
    };
    let bytes_per_s = number("rate", delay::rate(spec, "rate")?)?;
    let queue_bytes = number("queue", delay::amount("queue", &spec.word("queue")?)?)?;
    let device = Device::open(spec.target.dev.as_deref().unwrap_or_default())?;
    netlink::can_slow(&device)?;
    journal.will(Undo::Queue { netns: journal.netns(), dev: device.name.clone() })?;
    if !spec.shadow {
        netlink::slow(&device, bytes_per_s, queue_bytes)?;
    }
    // The journal removes the queue.
    Ok(Box::new(Packets::start(spec, journal, Action::Class, &mut |_, _| Ok(netlink::CLASS))?))
}
