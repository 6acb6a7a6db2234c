//! Faults of calls that processes of a control group make, by the programs in `progs/cgroup.bpf.c`.
//!
//! A socket belongs to the group in which its process made it, and groups below are met too. Invariants: nothing acts before all
//! programs are attached; links go with the process unless they are pinned. Next: `pace`, which sets connections likewise.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use libbpf_rs::{Link, MapHandle, Object};

use super::packet::fill_networks;
use crate::abi::{self, Counts};
use crate::cgroup::Cgroup;
use crate::error::{During as _, Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::programs;
use crate::select::{Share, Target};
use crate::spec::Spec;

/// What happens to a call, or to a connection; see `enum socket_action` in `progs/shared.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Action {
    Errno = 0,
    Redirect = 1,
    Pace = 2,
    Cwnd = 3,
    Window = 4,
    Congestion = 5,
    Rto = 6,
    Kill = 7,
    Mss = 8,
    SynRto = 9,
}

/// Error numbers that calls of sockets have a use for.
const ERRNOS: &[(&str, i32)] = &[
    ("ECONNREFUSED", libc::ECONNREFUSED),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("EHOSTUNREACH", libc::EHOSTUNREACH),
    ("ENETUNREACH", libc::ENETUNREACH),
    ("EADDRNOTAVAIL", libc::EADDRNOTAVAIL),
    ("EADDRINUSE", libc::EADDRINUSE),
    ("EACCES", libc::EACCES),
    ("EPERM", libc::EPERM),
    ("EMFILE", libc::EMFILE),
    ("ENFILE", libc::ENFILE),
    ("ENOBUFS", libc::ENOBUFS),
    ("ENOMEM", libc::ENOMEM),
    ("EAGAIN", libc::EAGAIN),
    ("EINTR", libc::EINTR),
    ("EINVAL", libc::EINVAL),
    ("EMSGSIZE", libc::EMSGSIZE),
    ("EAFNOSUPPORT", libc::EAFNOSUPPORT),
    ("ENETDOWN", libc::ENETDOWN),
    ("ECONNRESET", libc::ECONNRESET),
];
const ERRNO_WORDS: [&str; ERRNOS.len()] = {
    let mut words = [""; ERRNOS.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = ERRNOS[at].0;
        at += 1;
    }
    words
};

const fn errno(default: &'static str) -> Param {
    Param {
        name: "errno",
        ty: Type::Word(&ERRNO_WORDS),
        default: Some(default),
        about: "the error number that the call returns at once",
    }
}

const fn kind(
    name: &'static str,
    about: &'static str,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Cgroup, shares: true, params, start }
}

const CONNECT: &[&str] = &["call_connect4", "call_connect6"];
const BIND: &[&str] = &["call_bind4", "call_bind6"];
const SEND: &[&str] = &["call_sendmsg4", "call_sendmsg6"];
const SOCKET: &[&str] = &["call_socket"];

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind("connect.errno", "connect fails at once", &[errno("ECONNREFUSED")], |spec, _| {
        refuse(spec, CONNECT, Knows::OTHER)
    }),
    kind(
        "connect.redirect",
        "connect goes to another address, such as that of a proxy that injects faults of its own",
        &[Param {
            name: "to",
            ty: Type::Word(&[]),
            default: None,
            about: "address and port, such as 127.0.0.1:9000 or [::1]:9000; a version 4 socket cannot go to version 6",
        }],
        |spec, _| {
            let text = spec.word("to")?;
            let to: SocketAddr = text.parse().map_err(|_| {
                Error::usage(format!(
                    "to of {text:?}: an address and a port such as 127.0.0.1:9000 is wanted"
                ))
            })?;
            let ip = match to.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let told = abi::SocketFault {
                action: Action::Redirect as u32,
                to: ip.octets(),
                to_port: to.port().into(),
                ..told(spec, Knows::OTHER)?
            };
            Ok(Box::new(Attached::start(spec, "cgroup", CONNECT, told, |_| Ok(()))?))
        },
    ),
    kind("bind.errno", "bind fails", &[errno("EADDRINUSE")], |spec, _| {
        refuse(spec, BIND, Knows::OWN)
    }),
    kind("socket.errno", "socket fails, for versions 4 and 6", &[errno("EMFILE")], |spec, _| {
        refuse(spec, SOCKET, Knows::NONE)
    }),
    kind(
        "send.errno",
        "sendto and sendmsg fail that name their receiver, as those of UDP sockets that are not connected do",
        &[errno("EPERM")],
        |spec, _| refuse(spec, SEND, Knows::OTHER),
    ),
];

/// Which sides of a socket a hook knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knows {
    own: bool,
    other: bool,
}

impl Knows {
    const NONE: Self = Self { own: false, other: false };
    const OWN: Self = Self { own: true, other: false };
    const OTHER: Self = Self { own: false, other: true };
    pub(super) const BOTH: Self = Self { own: true, other: true };

    /// What cannot be told there would never match: it is refused.
    fn check(self, fault: &str, target: &Target) -> Result<()> {
        let asked = [
            ("src", !target.src.is_empty(), self.own),
            ("sport", target.sport.is_some(), self.own),
            ("dst", !target.dst.is_empty(), self.other),
            ("dport", target.dport.is_some(), self.other),
            ("peer", !target.peer.is_empty(), self.own || self.other),
            ("port", target.port.is_some(), self.own || self.other),
            ("flags", target.flags.is_some(), false),
            ("len", target.len.is_some(), false),
            ("prefix", target.prefix.is_some(), false),
            ("without-payload", target.without_payload, false),
        ];
        match asked.iter().find(|(_, is_asked, is_known)| *is_asked && !is_known) {
            Some((name, ..)) => Err(Error::usage(format!(
                "--{name} cannot be told where it acts; `chaos describe {fault}` says what it is"
            ))),
            None => Ok(()),
        }
    }
}

/// What a program is told, but for its action.
pub(super) fn told(spec: &Spec, knows: Knows) -> Result<abi::SocketFault> {
    knows.check(&spec.fault, &spec.target)?;
    if matches!(spec.share, Share::Flows(_) | Share::Gilbert { .. }) {
        return Err(Error::usage(
            "a share of flows, or in groups, is for packets; --percent, --every, --first or --burst is wanted",
        ));
    }
    Ok(abi::SocketFault {
        selector: spec.target.to_abi(spec.spared()),
        share: spec.share.to_abi(std::process::id())?,
        ..abi::SocketFault::default()
    })
}

fn refuse(spec: &Spec, programs: &'static [&'static str], knows: Knows) -> Result<Box<dyn Active>> {
    let word = spec.word("errno")?;
    let number = ERRNOS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    let number = number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| Error::failed(format!("errno {word} has no number")))?;
    let told =
        abi::SocketFault { action: Action::Errno as u32, value: number, ..told(spec, knows)? };
    Ok(Box::new(Attached::start(spec, "cgroup", programs, told, |_| Ok(()))?))
}

/// The maps of an object whose programs `progs/sock.h` is part of.
pub(super) struct Maps {
    fault: MapHandle,
    counts: MapHandle,
    told: abi::SocketFault,
}

impl Maps {
    /// Finds them, and fills in the networks. Nothing is armed yet.
    pub(super) fn of(object: &Object, spec: &Spec, told: abi::SocketFault) -> Result<Self> {
        fill_networks(object, &spec.target)?;
        let (fault, counts) = (programs::map(object, "fault")?, programs::map(object, "counts")?);
        Ok(Self { fault, counts, told })
    }

    /// Says when it acts.
    pub(super) fn arm(&mut self, arm: abi::Arm) -> Result<()> {
        self.told.arm = arm;
        programs::write(&self.fault, 0, &self.told)
    }

    /// What all processors have met.
    pub(super) fn counts(&self) -> Result<Counts> {
        let by_cpu: Vec<Counts> = programs::read_per_cpu(&self.counts, 0)?;
        Ok(by_cpu.into_iter().fold(Counts::default(), Counts::and))
    }

    /// The kernel's numbers of those that count.
    pub(super) fn counters(&self) -> Vec<u32> {
        programs::map_id(&self.counts).into_iter().collect()
    }
}

/// Programs on a control group. What is dropped first detaches them.
pub(super) struct Attached {
    links: Vec<Link>,
    maps: Maps,
    _object: Object,
}

impl Attached {
    /// Attaches programs of an object, and arms them when all is prepared.
    pub(super) fn start(
        spec: &Spec,
        name: &str,
        wanted: &[&str],
        told: abi::SocketFault,
        prepare: impl FnOnce(&Object) -> Result<()>,
    ) -> Result<Self> {
        let group = Cgroup::open(spec.target.cgroup.as_deref().unwrap_or_default())?;
        if group.is_root && !spec.target.is_narrow() && !spec.force {
            return Err(Error::usage(
                "all processes of this host are too many; name a control group below, a network or a port, or insist with --force",
            ));
        }
        let mut object = programs::open(name)?;
        for mut program in object.progs_mut() {
            let is_wanted = wanted.iter().any(|wanted| program.name() == *wanted);
            program.set_autoload(is_wanted);
        }
        let object = programs::load_opened(name, object)?;
        let mut maps = Maps::of(&object, spec, told)?;
        let mut links = Vec::new();
        for name in wanted {
            let link = programs::program(&object, name)?.attach_cgroup(group.dir.as_raw_fd());
            links.push(link.during(|| format!("attach {name} to {}", group.path.display()))?);
        }
        prepare(&object)?;
        maps.arm(spec.arm())?;
        Ok(Self { links, maps, _object: object })
    }
}

impl Active for Attached {
    fn counts(&self) -> Result<Counts> {
        self.maps.counts()
    }

    fn disarm(&mut self) -> Result<()> {
        self.maps.arm(abi::Arm::default())
    }

    fn pin(&mut self, dir: &Path) -> Result<()> {
        for (number, link) in self.links.iter_mut().enumerate() {
            let path = dir.join(format!("link{number}"));
            link.pin(&path).during(|| format!("pin a link at {}", path.display()))?;
        }
        Ok(())
    }

    fn counters(&self) -> Vec<u32> {
        self.maps.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_refused() {
        let mut spec = Spec::new("bind.errno");
        spec.target.dport = "80".parse().ok();
        assert!(told(&spec, Knows::OWN).is_err());
        assert!(told(&spec, Knows::OTHER).is_ok());
        spec.share = Share::Flows(10.0);
        assert!(told(&spec, Knows::OTHER).is_err());
    }
}
