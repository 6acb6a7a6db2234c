//! Faults of single packets, by the program in `progs/tc.bpf.c`.
//!
//! One object per direction of the device, each told what to do by its map `fault`. Invariants: nothing acts before all are
//! attached; links go with the process unless they are pinned.

use std::path::Path;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object};
use zerocopy::IntoBytes as _;

use crate::abi::{self, Counts};
use crate::device::Device;
use crate::error::{During as _, Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::link::{self, Attached};
use crate::programs;
use crate::registry::Journal;
use crate::select::{Network, Target, Way};
use crate::spec::Spec;

/// What happens to a packet; see `enum action` in `progs/shared.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    Drop = 0,
    Duplicate = 1,
    Corrupt = 2,
    Redirect = 3,
    Ttl = 4,
    EcnCe = 5,
    Truncate = 6,
    Reset = 7,
    Dns = 8,
    Copy = 9,
    Class = 10,
    Later = 11,
}

const fn kind(
    name: &'static str,
    about: &'static str,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Device, shares: true, params, start }
}

/// Answers of name servers (RFC 1035 4.1.1), by their code.
const DNS_CODES: &[(&str, u32)] =
    &[("FORMERR", 1), ("SERVFAIL", 2), ("NXDOMAIN", 3), ("NOTIMP", 4), ("REFUSED", 5)];
const DNS_WORDS: &[&str] = &["FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
/// Who is told that a connection is gone; by bit.
const RESET_WORDS: &[&str] = &["sender", "receiver", "both"];
const CHECKSUM_WORDS: &[&str] = &["stale", "mended"];

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind("net.loss", "packets are lost", &[], |spec, journal| {
        start(spec, journal, Action::Drop, 0)
    }),
    kind("net.duplicate", "packets arrive twice", &[], |spec, journal| {
        start(spec, journal, Action::Duplicate, 0)
    }),
    kind(
        "net.corrupt",
        "a bit of the payload changes",
        &[Param {
            name: "checksum",
            ty: Type::Word(CHECKSUM_WORDS),
            default: Some("stale"),
            about: "whether it is made to fit; where the device computes it, as veth and lo do, nobody checks a stale one",
        }],
        |spec, journal| {
            let mends = spec.word("checksum")? == "mended";
            start(spec, journal, Action::Corrupt, u32::from(mends))
        },
    ),
    kind(
        "net.ttl",
        "packets have few hops left",
        &[Param {
            name: "hops",
            ty: Type::Integer,
            default: Some("1"),
            about: "TTL or hop limit, 0 to 255",
        }],
        |spec, journal| start(spec, journal, Action::Ttl, within(spec, "hops", 255)?),
    ),
    kind("net.ecn", "packets are marked as having met congestion", &[], |spec, journal| {
        start(spec, journal, Action::EcnCe, 0)
    }),
    kind(
        "net.truncate",
        "packets are cut, and their headers say nothing of it",
        &[Param {
            name: "bytes",
            ty: Type::Integer,
            default: None,
            about: "bytes that are left from the IP header on",
        }],
        |spec, journal| start(spec, journal, Action::Truncate, within(spec, "bytes", 65_535)?),
    ),
    kind(
        "tcp.reset",
        "segments become resets",
        &[Param {
            name: "whom",
            ty: Type::Word(RESET_WORDS),
            default: Some("sender"),
            about: "who is told that the connection is gone",
        }],
        |spec, journal| {
            let whom = spec.word("whom")?;
            let bits = RESET_WORDS.iter().position(|word| *word == whom).unwrap_or(0) + 1;
            start(spec, journal, Action::Reset, u32::try_from(bits).unwrap_or(1))
        },
    ),
    kind(
        "dns.answer",
        "questions to name servers are answered with an error",
        &[Param {
            name: "code",
            ty: Type::Word(DNS_WORDS),
            default: Some("NXDOMAIN"),
            about: "the answer",
        }],
        |spec, journal| {
            let code = spec.word("code")?;
            let number =
                DNS_CODES.iter().find(|(name, _)| *name == code).map_or(3, |(_, number)| *number);
            start(spec, journal, Action::Dns, number)
        },
    ),
];

fn within(spec: &Spec, name: &str, most: u64) -> Result<u32> {
    let value = spec.integer(name)?;
    let fits = u32::try_from(value).ok().filter(|_| value <= most);
    fits.ok_or_else(|| {
        Error::usage(format!("{}: {name} of {value}: at most {most} is wanted", spec.fault))
    })
}

/// The program on one direction of a device. What is dropped first detaches it.
struct One {
    attached: Attached,
    fault: MapHandle,
    counts: MapHandle,
    told: abi::Fault,
    _object: Object,
}

/// The program on each direction that a fault acts on.
pub(crate) struct Packets(Vec<One>);

fn start(
    spec: &Spec,
    journal: &mut Journal,
    action: Action,
    value: u32,
) -> Result<Box<dyn Active>> {
    Ok(Box::new(Packets::start(spec, journal, action, &mut |_, _| Ok(value))?))
}

impl Packets {
    /// Attaches a program to each direction. `value` says the argument of the action there.
    pub(crate) fn start(
        spec: &Spec,
        journal: &mut Journal,
        action: Action,
        value: &mut dyn FnMut(&Device, Way) -> Result<u32>,
    ) -> Result<Self> {
        let name = spec.target.dev.as_deref().unwrap_or_default();
        let device = Device::open(name)?;
        let mut all = Vec::new();
        for way in spec.target.dir.ways() {
            let value = value(&device, *way)?;
            all.push(One::attach(spec, journal, (&device, *way), action as u32, value)?);
        }
        let mut packets = Self(all);
        packets.tell(spec.arm())?;
        Ok(packets)
    }

    fn tell(&mut self, arm: abi::Arm) -> Result<()> {
        for one in &mut self.0 {
            one.told.arm = arm;
            programs::write(&one.fault, 0, &one.told)?;
        }
        Ok(())
    }
}

impl One {
    fn attach(
        spec: &Spec,
        journal: &mut Journal,
        (device, way): (&Device, Way),
        action: u32,
        value: u32,
    ) -> Result<Self> {
        let mut object = programs::open("tc")?;
        link::prepare(&mut object, "packet", way);
        let object = programs::load_opened("tc", object)?;
        let told = abi::Fault {
            arm: abi::Arm::default(),
            selector: spec.target.to_abi(spec.spared()),
            share: spec.share.to_abi(std::process::id())?,
            action,
            value,
            l2_len: device.l2_len,
            is_ingress: u32::from(way == Way::In),
        };
        fill_networks(&object, &spec.target)?;
        let fault = programs::map(&object, "fault")?;
        let counts = programs::map(&object, "counts")?;
        let attached = link::attach(&programs::program(&object, "packet")?, device, way, journal)?;
        Ok(Self { attached, fault, counts, told, _object: object })
    }
}

/// Puts a target's networks into the maps of `progs/networks.h`.
pub(crate) fn fill_networks(object: &Object, target: &Target) -> Result<()> {
    fill(object, "src_networks", &target.src)?;
    fill(object, "dst_networks", &target.dst)?;
    fill(object, "peer_networks", &target.peer)
}

fn fill(object: &Object, name: &str, networks: &[Network]) -> Result<()> {
    let map = programs::map(object, name)?;
    for network in networks {
        let key = abi::Network::from(*network);
        map.update(key.as_bytes(), &[1], MapFlags::ANY)
            .during(|| format!("add {network} to {name}"))?;
    }
    Ok(())
}

impl Active for Packets {
    fn counts(&self) -> Result<Counts> {
        let mut all = Counts::default();
        for one in &self.0 {
            let by_cpu: Vec<Counts> = programs::read_per_cpu(&one.counts, 0)?;
            all = by_cpu.into_iter().fold(all, Counts::and);
        }
        Ok(all)
    }

    fn disarm(&mut self) -> Result<()> {
        self.tell(abi::Arm::default())
    }

    fn pin(&mut self, dir: &Path) -> Result<()> {
        for (number, one) in self.0.iter_mut().enumerate() {
            one.attached.pin(&dir.join(format!("link{number}")))?;
        }
        Ok(())
    }

    fn counters(&self) -> Vec<u32> {
        self.0.iter().filter_map(|one| programs::map_id(&one.counts).ok()).collect()
    }
}
