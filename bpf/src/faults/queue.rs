//! Delays and losses by the kernel's own queueing disciplines: fq, where a device has it, and netem, where the kernel does.
//!
//! Both cost no copy to user space, as the delay line of `net.delay` does. fq heeds the time that a program gives a packet; no other
//! discipline does, so that one which is not fq is refused: the delay would be none. netem is a band of a prio discipline, in which
//! only packets are that the program puts there. Invariants: when the program goes, in whatever way, nothing is delayed any more;
//! netem's discipline stays then, and is in the journal; fq's is not touched. Next: `netlink`.

use std::time::Duration;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::delay;
use crate::faults::packet::{Action, Packets};
use crate::netlink::{self, Netem};
use crate::registry::Journal;
use crate::select::Direction;
use crate::spec::Spec;
use crate::time::ns;
use crate::undo::Undo;

/// Beyond its horizon, of 10 s, fq drops packets or lets them go.
const EDT_MAX: Duration = Duration::from_secs(9);
/// The longest delay of netem.
const NETEM_MAX: Duration = Duration::from_secs(60);

const fn percent(name: &'static str, about: &'static str) -> Param {
    Param { name, ty: Type::Number, default: Some("0"), about }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "net.edt",
        about: "packets leave late, by fq, which the device must have: no other discipline heeds it",
        place: Place::Device,
        shares: true,
        params: &[Param {
            name: "delay",
            ty: Type::Duration,
            default: None,
            about: "how late, below 10 s; fq keeps 100 packets of a flow by default and drops more (flow_limit)",
        }],
        start: start_edt,
    },
    Kind {
        name: "net.netem",
        about: "packets leave late, in another order, twice, changed or not at all, by the kernel's netem",
        place: Place::Device,
        shares: true,
        params: &[
            Param {
                name: "delay",
                ty: Type::Duration,
                default: Some("0s"),
                about: "how late, at most 60 s",
            },
            Param {
                name: "jitter",
                ty: Type::Duration,
                default: Some("0s"),
                about: "so much sooner or later, evenly; at most the delay",
            },
            percent("loss", "percent of packets that are lost"),
            percent("duplicate", "percent of packets that leave twice"),
            percent("corrupt", "percent of packets of which a bit changes"),
            percent("reorder", "percent of packets that are not delayed, and so overtake others"),
            Param {
                name: "rate",
                ty: Type::Word(&[]),
                default: Some("0"),
                about: "such as 5MB/s; any if it is 0",
            },
            Param {
                name: "limit",
                ty: Type::Integer,
                default: Some("10000"),
                about: "packets that wait at most; more are lost",
            },
        ],
        start: start_netem,
    },
];

fn out(spec: &Spec) -> Result<Device> {
    if spec.target.dir != Direction::Out {
        return Err(Error::usage(
            "only what leaves a device is queued; net.delay and net.loss meet what comes in",
        ));
    }
    Device::open(spec.target.dev.as_deref().unwrap_or_default())
}

fn within(spec: &Spec, name: &str, most: Duration) -> Result<Duration> {
    let value = spec.duration(name)?;
    if value <= most {
        return Ok(value);
    }
    Err(Error::usage(format!("{}: {name} of {value:?}: at most {most:?} is wanted", spec.fault)))
}

fn start_edt(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let device = out(spec)?;
    let delay = within(spec, "delay", EDT_MAX)?;
    netlink::check_fq(&device)?;
    let us = u32::try_from(delay.as_micros()).unwrap_or(u32::MAX);
    Ok(Box::new(Packets::start(spec, journal, Action::Later, &mut |_, _| Ok(us))?))
}

fn ppm(spec: &Spec, name: &str) -> Result<u32> {
    let percent = spec.number(name)?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(Error::usage(format!(
            "{}: {name} of {percent} %: 0 to 100 is wanted",
            spec.fault
        )));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a million"
    )]
    Ok((percent * 1e4).round() as u32)
}

fn netem(spec: &Spec) -> Result<Netem> {
    let delay = within(spec, "delay", NETEM_MAX)?;
    let netem = Netem {
        latency_ns: ns(delay),
        jitter_ns: ns(within(spec, "jitter", delay)?),
        loss_ppm: ppm(spec, "loss")?,
        duplicate_ppm: ppm(spec, "duplicate")?,
        corrupt_ppm: ppm(spec, "corrupt")?,
        reorder_ppm: ppm(spec, "reorder")?,
        bytes_per_s: if spec.word("rate")? == "0" { 0 } else { delay::rate(spec, "rate")? },
        limit: u32::try_from(spec.integer("limit")?).unwrap_or(u32::MAX),
    };
    let nothing = Netem { limit: netem.limit, ..Netem::default() };
    if netem == nothing {
        return Err(Error::usage(format!(
            "{}: it would do nothing: --delay, --loss, --duplicate, --corrupt or --rate is wanted",
            spec.fault
        )));
    }
    if netem.reorder_ppm > 0 && netem.latency_ns == 0 {
        return Err(Error::usage(format!(
            "{}: only packets that are not delayed overtake others: --delay is wanted with --reorder",
            spec.fault
        )));
    }
    Ok(netem)
}

fn start_netem(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let device = out(spec)?;
    let netem = netem(spec)?;
    netlink::can_slow(&device)?;
    journal.will(Undo::Queue { netns: journal.netns(), dev: device.name.clone() })?;
    if !spec.shadow {
        netlink::pass_netem(&device, &netem)?;
    }
    // The journal removes the discipline.
    Ok(Box::new(Packets::start(spec, journal, Action::Class, &mut |_, _| Ok(netlink::BAND))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_do_nothing_is_refused() {
        let spec = Spec::new("net.netem");
        assert!(netem(&spec).is_err());
        assert!(netem(&spec.clone().with("loss", 101)).is_err());
        assert!(netem(&spec.clone().with("reorder", 10)).is_err());
        assert!(netem(&spec.clone().with("delay", "1ms").with("jitter", "2ms")).is_err());
        let told = netem(&spec.with("delay", "1ms").with("loss", 2.5)).expect("it does something");
        assert_eq!((told.latency_ns, told.loss_ppm), (1_000_000, 25_000));
    }
}
