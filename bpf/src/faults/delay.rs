//! Faults of time: packets that come late, out of order, slowly or once more, by the delay line of `delay_line`.
//!
//! Each direction has a line of its own. `affected` counts packets that went through the line. Invariants: nothing is sent into a line
//! before it runs; the program that sends is detached before the line ends. Next: `delay_line::timing`.

use std::path::Path;
use std::time::Duration;

use crate::abi::Counts;
use crate::delay_line::timing::{DELAY_MAX_NS, Delay, Distribution, Random, Throttle, Timing};
use crate::delay_line::{HELD_BYTES_MAX, Line};
use crate::error::{Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::packet::{Action, Packets};
use crate::registry::Journal;
use crate::select::Way;
use crate::spec::Spec;
use crate::sysctl;
use crate::time::{monotonic_ns, ns};
use crate::undo::Undo;

const fn kind(
    name: &'static str,
    about: &'static str,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Device, shares: true, params, start }
}

const fn param(
    name: &'static str,
    ty: Type,
    default: Option<&'static str>,
    about: &'static str,
) -> Param {
    Param { name, ty, default, about }
}

const DISTRIBUTIONS: &[(&str, Distribution)] = &[
    ("uniform", Distribution::Uniform),
    ("normal", Distribution::Normal),
    ("pareto", Distribution::Pareto),
];
const DISTRIBUTION_WORDS: &[&str] = &["uniform", "normal", "pareto"];
const ORDER_WORDS: &[&str] = &["free", "kept"];

const DELAY: &[Param] = &[
    param("delay", Type::Duration, None, "how long each packet is held, a minute at most"),
    param("jitter", Type::Duration, Some("0ms"), "by how much that differs"),
    param(
        "distribution",
        Type::Word(DISTRIBUTION_WORDS),
        Some("uniform"),
        "of jitter: evenly to both sides, around the delay with the jitter as deviation, or only later with a long tail and the jitter in the mean",
    ),
    param("spike", Type::Duration, Some("0ms"), "how much longer some packets are held"),
    param("spike-percent", Type::Number, Some("0"), "how many, in percent"),
    param("slot", Type::Duration, Some("0ms"), "packets leave together, once in this time"),
    param("ramp", Type::Duration, Some("0ms"), "how long the delay grows from nothing"),
    param("pass", Type::Number, Some("0"), "packets that are not held, in percent: they overtake"),
    param(
        "order",
        Type::Word(ORDER_WORDS),
        Some("free"),
        "whether a packet may overtake those before it",
    ),
];

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind("net.delay", "packets come late", DELAY, |spec, journal| {
        start(spec, journal, How::HELD, &mut |_| delay(spec))
    }),
    kind(
        "net.reorder",
        "packets are held for a moment, and come behind those that are not",
        &[param("gap", Type::Duration, Some("5ms"), "how long")],
        |spec, journal| start(spec, journal, How::HELD, &mut |_| fixed(spec, "gap")),
    ),
    kind(
        "net.replay",
        "packets come once more, when nobody waits for them",
        &[param("after", Type::Duration, Some("100ms"), "when, counted from the first")],
        |spec, journal| {
            let how = How { action: Action::Copy, ..How::HELD };
            start(spec, journal, how, &mut |_| fixed(spec, "after"))
        },
    ),
    kind(
        "net.throttle",
        "packets pass at a rate, behind a queue: a link that is slow",
        &[
            param(
                "rate",
                Type::Word(&[]),
                None,
                "such as 5MB/s, 128kB/s or 40Mbit/s, counted from the IP header on",
            ),
            param(
                "rate-in",
                Type::Word(&[]),
                Some("same"),
                "another for what comes in, with --dir both",
            ),
            param(
                "queue",
                Type::Word(&[]),
                Some("256kB"),
                "what waits at most, such as 1MB; more is lost",
            ),
        ],
        |spec, journal| {
            let how = How { is_apart: rate(spec, "rate")? <= APART_BYTES_PER_S, ..How::HELD };
            start(spec, journal, how, &mut |way| throttle(spec, way))
        },
    ),
];

/// Lines on the directions of a device, and the programs that send into them. What is dropped first detaches these.
struct Lines {
    packets: Packets,
    lines: Vec<Line>,
}

/// How packets come into a line.
#[derive(Clone, Copy)]
struct How {
    /// They, or copies of them.
    action: Action,
    /// Segments come one by one: at a low rate, a packet of many would hold up the link for long.
    is_apart: bool,
}

impl How {
    const HELD: Self = Self { action: Action::Redirect, is_apart: false };
}

/// Up to here segments come one by one.
const APART_BYTES_PER_S: u64 = 25_000_000;

type Made = Result<Box<dyn Timing>>;

fn start(
    spec: &Spec,
    journal: &mut Journal,
    how: How,
    timing: &mut dyn FnMut(Way) -> Made,
) -> Result<Box<dyn Active>> {
    let device = crate::device::Device::open(spec.target.dev.as_deref().unwrap_or_default())?;
    if device.name == LOOPBACK {
        accept_local(journal)?;
    }
    let mut lines = Vec::new();
    for way in spec.target.dir.ways() {
        lines.push(Line::start(&device, *way, timing(*way)?, how.is_apart, journal)?);
    }
    let mut indexes = lines.iter().map(Line::index);
    let packets = Packets::start(spec, journal, how.action, &mut |_, _| {
        indexes.next().ok_or_else(|| Error::failed("more directions than lines"))
    })?;
    drop(indexes);
    Ok(Box::new(Lines { packets, lines }))
}

const LOOPBACK: &str = "lo";

/// A packet on lo is not routed again when it comes in, since it still has the route by which it was sent. In a line it loses that, and as
/// one that comes from outside its addresses would be refused.
fn accept_local(journal: &mut Journal) -> Result<()> {
    for name in ["route_localnet", "accept_local"] {
        let name = format!("net.ipv4.conf.{LOOPBACK}.{name}");
        let was = sysctl::read(&name)?;
        if was != "1" {
            journal.will(Undo::Sysctl { netns: journal.netns(), name: name.clone(), was })?;
            sysctl::write(&name, "1")?;
        }
    }
    Ok(())
}

impl Active for Lines {
    fn counts(&self) -> Result<Counts> {
        self.packets.counts()
    }

    fn disarm(&mut self) -> Result<()> {
        let disarmed = self.packets.disarm();
        self.lines.iter().for_each(Line::open);
        disarmed
    }

    /// The line is in the keeper, which stays; if that is killed, packets pass by.
    fn pin(&mut self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn counters(&self) -> Vec<u32> {
        self.packets.counters()
    }
}

/// Seeded by the clock: two faults draw other numbers.
fn random() -> Random {
    Random::new(monotonic_ns())
}

fn within(spec: &Spec, name: &str) -> Result<u64> {
    let value = spec.duration(name)?;
    if ns(value) > DELAY_MAX_NS {
        return Err(Error::usage(format!(
            "{name} of {}: at most {} is wanted",
            humantime::format_duration(value),
            humantime::format_duration(Duration::from_nanos(DELAY_MAX_NS))
        )));
    }
    Ok(ns(value))
}

fn percent(spec: &Spec, name: &str) -> Result<f64> {
    let value = spec.number(name)?;
    if (0.0..=100.0).contains(&value) {
        return Ok(value);
    }
    Err(Error::usage(format!("{name} of {value} %: 0 to 100 is wanted")))
}

fn fixed(spec: &Spec, name: &str) -> Made {
    Ok(Box::new(Delay::fixed(monotonic_ns(), within(spec, name)?, random())))
}

fn delay(spec: &Spec) -> Made {
    let word = spec.word("distribution")?;
    let distribution =
        DISTRIBUTIONS.iter().find(|(name, _)| *name == word).map(|(_, found)| *found);
    Ok(Box::new(Delay {
        jitter_ns: within(spec, "jitter")?,
        distribution: distribution.unwrap_or(Distribution::Uniform),
        spike_percent: percent(spec, "spike-percent")?,
        spike_ns: within(spec, "spike")?,
        slot_ns: within(spec, "slot")?,
        ramp_ns: ns(spec.duration("ramp")?),
        pass_percent: percent(spec, "pass")?,
        keeps_order: spec.word("order")? == "kept",
        ..Delay::fixed(monotonic_ns(), within(spec, "delay")?, random())
    }))
}

fn throttle(spec: &Spec, way: Way) -> Made {
    let has_own = way == Way::In && spec.word("rate-in")? != "same";
    let queue_bytes = amount("queue", &spec.word("queue")?)?;
    if queue_bytes > HELD_BYTES_MAX {
        return Err(Error::usage(format!(
            "queue of {queue_bytes} bytes: at most {HELD_BYTES_MAX} are wanted",
        )));
    }
    Ok(Box::new(Throttle {
        bytes_per_s: rate(spec, if has_own { "rate-in" } else { "rate" })?,
        queue_bytes,
        free_ns: 0,
    }))
}

/// Bytes a second.
pub(crate) fn rate(spec: &Spec, name: &str) -> Result<u64> {
    let text = spec.word(name)?;
    let amount = amount(name, text.strip_suffix("/s").unwrap_or(&text))?;
    if amount == 0 {
        return Err(Error::usage(format!("{name} of {text:?}: more than 0 is wanted")));
    }
    Ok(amount)
}

/// Units by which bytes are multiplied, the longer names first; a bit is an eighth.
const UNITS: &[(&str, f64)] = &[
    ("Gbit", 1e9 / 8.0),
    ("Mbit", 1e6 / 8.0),
    ("kbit", 1e3 / 8.0),
    ("GB", 1e9),
    ("MB", 1e6),
    ("kB", 1e3),
    ("B", 1.0),
    ("", 1.0),
];

/// Bytes.
pub(crate) fn amount(name: &str, text: &str) -> Result<u64> {
    let found = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let value = found.and_then(|(number, bytes)| Some(number.trim().parse::<f64>().ok()? * bytes));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither negative nor large"
    )]
    value.filter(|value| (0.0..1e15).contains(value)).map(|value| value.round() as u64).ok_or_else(
        || {
            Error::usage(format!(
                "{name} of {text:?}: an amount such as 128kB, 5MB or 40Mbit is wanted",
            ))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        let spec = Spec::new("net.throttle");
        let read = |text| amount("rate", text).ok();
        assert_eq!(read("5MB"), Some(5_000_000));
        assert_eq!(read("1.5 kB"), Some(1500));
        assert_eq!(read("40Mbit"), Some(5_000_000));
        assert_eq!(read("77"), Some(77));
        for wrong in ["", "MB", "-1B", "NaN", "1e30", "5 apples"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(rate(&spec.clone().with("rate", "128kB/s"), "rate").ok(), Some(128_000));
        assert!(rate(&spec.with("rate", "0"), "rate").is_err());
    }
}
