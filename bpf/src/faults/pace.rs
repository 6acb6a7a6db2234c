//! Settings of TCP connections that slow them down, made as they are established, by the program in `progs/sockops.bpf.c`.
//!
//! TCP paces by itself, so no queueing discipline is needed. Invariant: a setting that this kernel does not have, or would not
//! keep to, is refused. Connections that were there before are met by none. Those that were set get back what they had when the
//! fault ends, however its process does: what that was is in a map that is pinned, and in the journal. Only those in the network
//! namespace of the command do: others keep the setting until they close. Next: `undo`.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_getres};

use super::socket::{Action, Attached, Knows, told};
use crate::abi;
use crate::error::{During as _, Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::rate::Rate;
use crate::registry::Journal;
use crate::spec::Spec;
use crate::undo::Undo;
use crate::{netns, pins, programs};

const fn kind(
    name: &'static str,
    about: &'static str,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Cgroup, shares: true, params, start }
}

/// Linux keeps a buffer of two small segments, whatever is asked for.
const WINDOW_LEAST: u64 = 4096;
/// A larger one needs a larger buffer than hosts allow by default (`net.core.rmem_max`).
const WINDOW_MOST: u64 = 256 << 10;
/// Linux takes no smaller and no larger one (`TCP_MIN_MSS`, `MAX_TCP_WINDOW`).
const MSS_LEAST: u64 = 88;
const MSS_MOST: u64 = 32_767;
/// Linux takes no longer one from a program (`TCP_RTO_MIN`), in milliseconds.
const RTO_MOST_MS: u128 = 200;
/// Nor one shorter than two ticks (`TCP_TIMEOUT_MIN`), of which a second may have no more than 100.
const RTO_LEAST_MS: u128 = 20;

/// Longer ones Linux cuts (`TCP_RTO_MAX`).
const SYN_RTO: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(120);
/// The map of what connections had before.
const SETTINGS: &str = "settings";

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        "tcp.pace",
        "connections made from now on send no faster than this, each for itself",
        &[Param {
            name: "rate",
            ty: Type::Word(&[]),
            default: None,
            about: "of a connection, such as 5MB/s or 1mbit",
        }],
        |spec, journal| {
            let rate: Rate = spec.word("rate")?.parse()?;
            set(spec, journal, Action::Pace, rate.bytes())
        },
    ),
    kind(
        "tcp.cwnd",
        "connections made from now on have few segments under way",
        &[Param {
            name: "segments",
            ty: Type::Integer,
            default: Some("2"),
            about: "congestion window at most, 1 to 65535",
        }],
        |spec, journal| set(spec, journal, Action::Cwnd, within(spec, "segments", 1, 65_535)?),
    ),
    kind(
        "tcp.window",
        "connections made from now on announce a small receive window",
        &[Param {
            name: "bytes",
            ty: Type::Integer,
            default: Some("4096"),
            about: "window at most, 4096 to 262144",
        }],
        |spec, journal| {
            set(spec, journal, Action::Window, within(spec, "bytes", WINDOW_LEAST, WINDOW_MOST)?)
        },
    ),
    kind(
        "tcp.mss",
        "connections that are opened from now on have small segments, both ways, until they close",
        &[Param {
            name: "bytes",
            ty: Type::Integer,
            default: Some("536"),
            about: "largest segment, with its options, 88 to 32767; 536 is what every host takes (RFC 9293 3.7.1)",
        }],
        |spec, journal| {
            let bytes = within(spec, "bytes", MSS_LEAST, MSS_MOST)?;
            set(spec, journal, Action::Mss, bytes)
        },
    ),
    kind(
        "tcp.congestion",
        "connections made from now on are controlled by another algorithm, whatever they asked for before",
        &[Param {
            name: "algorithm",
            ty: Type::Word(&[]),
            default: Some("reno"),
            about: "one of /proc/sys/net/ipv4/tcp_available_congestion_control",
        }],
        congestion,
    ),
    kind(
        "tcp.rto",
        "connections made from now on send again too soon, and may go on when it ends: Linux keeps what it learned of their times",
        &[Param {
            name: "least",
            ty: Type::Duration,
            default: Some("20ms"),
            about: "the least time before a segment is sent again, 20ms to 200ms, which is what it is otherwise",
        }],
        |spec, journal| {
            let least = spec.duration("least")?;
            if !(RTO_LEAST_MS..=RTO_MOST_MS).contains(&least.as_millis()) {
                return Err(Error::usage(format!(
                    "least of {}: {RTO_LEAST_MS}ms to {RTO_MOST_MS}ms is wanted; Linux takes no others",
                    humantime::format_duration(least)
                )));
            }
            set(spec, journal, Action::Rto, u64::try_from(least.as_micros()).unwrap_or(u64::MAX))
        },
    ),
    kind(
        "tcp.syn-rto",
        "connections that are opened from now on send a SYN or its answer again late, or early, if it was lost",
        &[Param {
            name: "after",
            ty: Type::Duration,
            default: Some("5s"),
            about: "time until the first is sent again, 20ms to 120s; 1s otherwise",
        }],
        |spec, journal| {
            let after = spec.duration("after")?;
            if !SYN_RTO.contains(&after) {
                return Err(Error::usage(format!(
                    "after of {}: {} to {} is wanted",
                    humantime::format_duration(after),
                    humantime::format_duration(*SYN_RTO.start()),
                    humantime::format_duration(*SYN_RTO.end())
                )));
            }
            let ticks = after.as_nanos() / u128::from(tick_ns().max(1));
            set(spec, journal, Action::SynRto, u64::try_from(ticks).unwrap_or(u64::MAX))
        },
    ),
];

/// How long a tick of the kernel is: what its coarse clocks are told apart by.
fn tick_ns() -> u64 {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    u64::try_from(tick.tv_nsec).unwrap_or(0)
}

fn within(spec: &Spec, name: &str, least: u64, most: u64) -> Result<u64> {
    let value = spec.integer(name)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::usage(format!("{name} of {value}: {least} to {most} is wanted")))
}

fn set(spec: &Spec, journal: &mut Journal, action: Action, value: u64) -> Result<Box<dyn Active>> {
    let value = u32::try_from(value)
        .ok()
        .filter(|value| *value < u32::MAX)
        .ok_or_else(|| Error::usage(format!("{value} is too much: less than 4 GiB is wanted")))?;
    let told = abi::SocketFault { action: action as u32, value, ..told(spec, Knows::BOTH)? };
    start(spec, journal, told)
}

fn start(spec: &Spec, journal: &mut Journal, told: abi::SocketFault) -> Result<Box<dyn Active>> {
    let dir = pins::settings_of(&journal.entry().id);
    let map = dir.join(SETTINGS);
    journal.will(Undo::Settings { map: map.clone(), netns: journal.netns() })?;
    let attached = Attached::start(spec, "sockops", &["pace"], told, |object| {
        pins::make(&dir)?;
        let mut settings = programs::map(object, SETTINGS)?;
        settings.pin(&map).during(|| format!("pin a map at {}", map.display()))
    })?;
    Ok(Box::new(attached))
}

/// Gives connections back what they had, as the map that is pinned at a path says, and removes that.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn unset(map: &Path, netns: Option<&str>) -> Result<()> {
    if map.exists() {
        // With its namespace, a connection is gone too.
        let done = netns::within(netns, || go_through(map)).unwrap_or(Ok(()));
        // Another process may have been faster.
        if map.exists() {
            done?;
        }
    }
    map.parent().map_or(Ok(()), pins::remove)
}

fn go_through(settings: &Path) -> Result<()> {
    let mut object = programs::open("sockops")?;
    for mut program in object.progs_mut() {
        let is_wanted = program.name() == "unset";
        program.set_autoload(is_wanted);
    }
    for mut map in object.maps_mut().filter(|map| map.name() == SETTINGS) {
        map.reuse_pinned_map(settings).during(|| format!("open {}", settings.display()))?;
    }
    programs::iterate(&programs::load_opened("sockops", object)?, "unset")
}

fn congestion(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let name = spec.word("algorithm")?;
    let available = fs::read_to_string(AVAILABLE).during(|| format!("read {AVAILABLE}"))?;
    if available.split_whitespace().all(|known| known != name) {
        return Err(Error::unsupported(format!(
            "algorithm {name:?}: this kernel has {}; its module may have to be loaded (modprobe tcp_{name})",
            available.trim()
        )));
    }
    let mut told =
        abi::SocketFault { action: Action::Congestion as u32, ..told(spec, Knows::BOTH)? };
    told.to.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    start(spec, journal, told)
}
