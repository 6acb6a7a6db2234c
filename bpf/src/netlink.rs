//! Queueing disciplines of devices, by messages of rtnetlink: no more of them than faults need.
//!
//! Invariants: a device's own queueing discipline is replaced only while it is the kernel's default one, which comes back when ours
//! is deleted; ours is known by its handle. Lengths that the kernel sends are checked before they are used.
//! Source: include/uapi/linux/{netlink,rtnetlink,pkt_sched}.h. Next: `faults::rate`.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::device::Device;
use crate::error::{During as _, Error, Result};
use crate::time::SECOND_NS;

const NEW_LINK: u16 = 16;
const IS_UP: u32 = 1;
const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_CLASS: u16 = 40;
const GET_FILTER: u16 = 46;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const NETEM_REORDER: u16 = 3;
const NETEM_CORRUPT: u16 = 4;
const NETEM_RATE: u16 = 6;
const NETEM_RATE64: u16 = 8;
const NETEM_LATENCY: u16 = 10;
const NETEM_JITTER: u16 = 11;
const HTB_PARMS: u16 = 1;
const HTB_INIT: u16 = 2;

const ROOT: u32 = u32::MAX;
/// Where clsact is, its handle, and its two lists of filters: of what comes in, and of what leaves.
const CLSACT: u32 = 0xFFFF_FFF1;
const CLSACT_HANDLE: u32 = 0xFFFF_0000;
const CLSACT_LISTS: [u32; 2] = [0xFFFF_FFF2, 0xFFFF_FFF3];
/// Ours: the numbers of the discipline and its only class.
const HANDLE: u32 = 0xC4A0_0000;
/// The band of packets that pass netem, which a packet names by its priority.
pub(crate) const BAND: u32 = HANDLE | 2;
/// The class whose packets are slow, which a packet names by its priority.
pub const CLASS: u32 = HANDLE | 1;

/// Bytes in front of attributes: `struct nlmsghdr` and `struct tcmsg`.
const HEAD: usize = 16;
const TC_HEAD: usize = 20;
/// Nanoseconds of a tick of the packet scheduler.
const TICK_NS: u64 = 64;
/// The longest packet is more than a class saves up for in a while.
const BURST_BYTES: u64 = 16 << 10;

fn attribute(kind: u16, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

struct Rtnetlink(OwnedFd);

impl Rtnetlink {
    fn open() -> Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // The protocol of number 0 is that of routes and devices.
            None,
        );
        socket.map(Self).during(|| "open an rtnetlink socket".to_owned())
    }

    /// Sends a message on a qdisc or class of a device, and gives the messages that come back, until the last.
    fn ask(
        &self,
        (kind, flags): (u16, u16),
        index: i32,
        [handle, parent]: [u32; 2],
        attributes: &[u8],
    ) -> std::io::Result<Vec<Vec<u8>>> {
        // `struct tcmsg`.
        let mut body = words(&[0]);
        body.extend(index.to_ne_bytes());
        body.extend(words(&[handle, parent, 0]));
        body.extend(attributes);
        self.send(kind, flags, &body)
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
        let len = u32::try_from(HEAD + body.len()).unwrap_or(u32::MAX);
        let mut message = len.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        // Sequence, and who sends: the kernel fills in the latter.
        message.extend(words(&[1, 0]));
        message.extend(body);
        rustix::net::send(&self.0, &message, SendFlags::empty())?;
        let mut came = Vec::new();
        let mut buf = vec![0; 64 << 10];
        loop {
            let (len, _) = rustix::net::recv(&self.0, &mut buf[..], RecvFlags::empty())?;
            let mut rest = buf.get(..len).unwrap_or_default();
            while let Some((message, after)) = split(rest) {
                rest = after;
                match (u16::from_ne_bytes([message[4], message[5]]), word(message, HEAD)) {
                    (ERROR, Some(0)) | (DONE, _) => return Ok(came),
                    (ERROR, Some(error)) => {
                        let errno = i32::from_ne_bytes(error.to_ne_bytes()).unsigned_abs();
                        let errno = i32::try_from(errno).unwrap_or_default();
                        return Err(std::io::Error::from_raw_os_error(errno));
                    }
                    _ => came.push(message.to_vec()),
                }
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The first message, of a whole header at least, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(word(bytes, 0)?).ok().filter(|len| *len >= HEAD)?;
    let after = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((bytes.get(..len)?, after))
}

/// Of a message on a queueing discipline or filter: its number, and where it is.
fn handle(message: &[u8]) -> u32 {
    word(message, HEAD + 8).unwrap_or_default()
}

fn parent(message: &[u8]) -> u32 {
    word(message, HEAD + 12).unwrap_or_default()
}

/// Messages on the queueing disciplines of a device.
fn qdiscs(socket: &Rtnetlink, device: &Device) -> Result<Vec<Vec<u8>>> {
    let mut all = socket
        .ask((GET_QDISC, DUMP), device.index, [0, 0], &[])
        .during(|| format!("list the queueing disciplines of {}", device.name))?;
    let index = u32::try_from(device.index).unwrap_or_default();
    // The kernel tells of all devices.
    all.retain(|one| word(one, HEAD + 4) == Some(index));
    Ok(all)
}

/// Handle of a device's own queueing discipline; 0 for the kernel's default.
fn root(socket: &Rtnetlink, device: &Device) -> Result<u32> {
    let all = qdiscs(socket, device)?;
    Ok(all.iter().find(|one| parent(one) == ROOT).map_or(0, |one| handle(one)))
}

/// Whether a device has a clsact qdisc.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn has_clsact(device: &Device) -> Result<bool> {
    let all = qdiscs(&Rtnetlink::open()?, device)?;
    Ok(all.iter().any(|one| parent(one) == CLSACT))
}

/// Deletes the clsact qdisc of a device, if it is there and nobody has a filter in it.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove_clsact(device: &Device) -> Result<()> {
    let socket = Rtnetlink::open()?;
    for list in CLSACT_LISTS {
        let filters = socket
            .ask((GET_FILTER, DUMP), device.index, [0, list], &[])
            .during(|| format!("list the filters of {}", device.name))?;
        if !filters.is_empty() {
            return Ok(());
        }
    }
    if !qdiscs(&socket, device)?.iter().any(|one| parent(one) == CLSACT) {
        return Ok(());
    }
    match socket.ask((DEL_QDISC, ACK), device.index, [CLSACT_HANDLE, CLSACT], &[]) {
        // Another was faster.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
        other => other.map(drop).during(|| format!("remove the clsact qdisc of {}", device.name)),
    }
}

/// Kind of a queueing discipline.
fn kind_of(message: &[u8]) -> &[u8] {
    let mut rest = message.get(HEAD + TC_HEAD..).unwrap_or_default();
    while let Some([low, high, kind_low, kind_high]) = rest.first_chunk() {
        let len = usize::from(u16::from_ne_bytes([*low, *high]));
        let Some(body) = rest.get(4..len) else { break };
        if u16::from_ne_bytes([*kind_low, *kind_high]) == KIND {
            return body.strip_suffix(&[0]).unwrap_or(body);
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    &[]
}

/// Checks that packets which leave a device are queued by fq, which heeds when they may: by its own queueing discipline, or by all
/// of those of its queues.
///
/// # Errors
/// They are not.
pub(crate) fn check_fq(device: &Device) -> Result<()> {
    let all = qdiscs(&Rtnetlink::open()?, device)?;
    let root = all.iter().find(|one| parent(one) == ROOT);
    let kind = root.map_or(&[][..], |one| kind_of(one));
    let is_fq = match (kind, root) {
        (b"fq", _) => true,
        // The queues of a device that has several.
        (b"mq", Some(root)) => {
            let queues = all
                .iter()
                .filter(|one| parent(one) >> 16 == handle(root) >> 16 && parent(one) != ROOT);
            let kinds: Vec<&[u8]> = queues.map(|one| kind_of(one)).collect();
            !kinds.is_empty() && kinds.iter().all(|kind| *kind == b"fq")
        }
        _ => false,
    };
    if is_fq {
        return Ok(());
    }
    Err(Error::usage(format!(
        "delay what leaves {}: its queueing discipline is {:?} and not fq, and would not heed it; net.delay needs none, or: tc qdisc replace dev {} root fq",
        device.name,
        String::from_utf8_lossy(kind),
        device.name
    )))
}

/// Gives a device a queueing discipline, such as fq, with its defaults: for probes.
///
/// # Errors
/// The kernel has no such.
pub(crate) fn give(device: &Device, kind: &str) -> Result<()> {
    let attributes = attribute(KIND, &[kind.as_bytes(), &[0]].concat());
    let flags = ACK | CREATE | EXCLUSIVE;
    Rtnetlink::open()?
        .ask((NEW_QDISC, flags), device.index, [HANDLE, ROOT], &attributes)
        .map(drop)
        .during(|| format!("give {} an {kind} queue (modprobe sch_{kind})", device.name))
}

/// Sets a device up.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn up(device: &Device) -> Result<()> {
    // `struct ifinfomsg`: the flags, and which of them change.
    let mut body = words(&[0]);
    body.extend(device.index.to_ne_bytes());
    body.extend(words(&[IS_UP, IS_UP]));
    let sent = Rtnetlink::open()?.send(NEW_LINK, ACK, &body);
    sent.map(drop).during(|| format!("set up {}", device.name))
}

/// What netem does to packets; chances of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Netem {
    pub(crate) latency_ns: u64,
    pub(crate) jitter_ns: u64,
    pub(crate) loss_ppm: u32,
    pub(crate) duplicate_ppm: u32,
    pub(crate) corrupt_ppm: u32,
    /// Of packets that are sent at once, and so overtake those that wait.
    pub(crate) reorder_ppm: u32,
    pub(crate) bytes_per_s: u64,
    pub(crate) limit: u32,
}

/// Makes packets whose priority is [`BAND`] pass netem before they leave a device, and no others.
///
/// # Errors
/// The device has a queueing discipline that somebody gave it; the kernel has no prio or no netem.
pub(crate) fn pass_netem(device: &Device, netem: &Netem) -> Result<()> {
    let socket = Rtnetlink::open()?;
    check(&socket, device)?;
    let doing = || format!("give {} a netem queue (modprobe sch_netem and sch_prio)", device.name);
    // `struct tc_prio_qopt`: two bands, and what no packet's priority says is in the first.
    let bands = attribute(OPTIONS, &[&words(&[2])[..], &[0; 16]].concat());
    let prio = [attribute(KIND, b"prio\0"), bands].concat();
    let flags = ACK | CREATE | EXCLUSIVE;
    socket.ask((NEW_QDISC, flags), device.index, [HANDLE, ROOT], &prio).during(doing)?;
    let options = [attribute(KIND, b"netem\0"), attribute(OPTIONS, &netem.options())].concat();
    socket.ask((NEW_QDISC, flags), device.index, [0, BAND], &options).map(drop).during(doing)
}

impl Netem {
    fn options(&self) -> Vec<u8> {
        let share = |ppm: u32| {
            u32::try_from(u64::from(ppm) * u64::from(u32::MAX) / 1_000_000).unwrap_or(u32::MAX)
        };
        // `struct tc_netem_qopt`: latency and jitter are below; a gap of 1 is what reordering needs.
        let gap = u32::from(self.reorder_ppm > 0);
        let (loss, duplicate) = (share(self.loss_ppm), share(self.duplicate_ppm));
        let mut options = words(&[0, self.limit, loss, gap, duplicate, 0]);
        options.extend(attribute(NETEM_LATENCY, &self.latency_ns.to_ne_bytes()));
        options.extend(attribute(NETEM_JITTER, &self.jitter_ns.to_ne_bytes()));
        if self.reorder_ppm > 0 {
            options.extend(attribute(NETEM_REORDER, &words(&[share(self.reorder_ppm), 0])));
        }
        if self.corrupt_ppm > 0 {
            options.extend(attribute(NETEM_CORRUPT, &words(&[share(self.corrupt_ppm), 0])));
        }
        if self.bytes_per_s > 0 {
            // `struct tc_netem_rate`: what is beside the rate is of links with cells.
            let rate = u32::try_from(self.bytes_per_s).unwrap_or(u32::MAX);
            options.extend(attribute(NETEM_RATE, &words(&[rate, 0, 0, 0])));
            if u64::from(rate) != self.bytes_per_s {
                options.extend(attribute(NETEM_RATE64, &self.bytes_per_s.to_ne_bytes()));
            }
        }
        options
    }
}

/// Makes packets whose priority is [`CLASS`] leave a device at a rate, behind a queue of so many bytes, and no others.
///
/// # Errors
/// The device has a queueing discipline that somebody gave it; the kernel has no HTB.
pub fn slow(device: &Device, bytes_per_s: u32, queue_bytes: u32) -> Result<()> {
    let socket = Rtnetlink::open()?;
    check(&socket, device)?;
    let doing =
        || format!("give {} an HTB queue (the module sch_htb, modprobe sch_htb)", device.name);
    // `struct tc_htb_glob`: version 3, and what is of no class is not queued.
    let init = attribute(OPTIONS, &attribute(HTB_INIT, &words(&[3, 10, 0, 0, 0])));
    let htb = [attribute(KIND, b"htb\0"), init].concat();
    let flags = ACK | CREATE | EXCLUSIVE;
    socket.ask((NEW_QDISC, flags), device.index, [HANDLE, ROOT], &htb).during(doing)?;
    let ticks = BURST_BYTES * SECOND_NS / u64::from(bytes_per_s.max(1)) / TICK_NS;
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
    // `struct tc_htb_opt`: two of `struct tc_ratespec`, whose second byte says Ethernet, and then burst, quantum, level and priority.
    let rate = [&[0, 1, 0, 0, 0, 0, 0, 0][..], &bytes_per_s.to_ne_bytes()].concat();
    let rest = words(&[ticks, ticks, 16 << 10, 0, 0]);
    let parms = attribute(HTB_PARMS, &[rate.clone(), rate, rest].concat());
    let class = [attribute(KIND, b"htb\0"), attribute(OPTIONS, &parms)].concat();
    socket.ask((NEW_CLASS, flags), device.index, [CLASS, ROOT], &class).during(doing)?;
    // `struct tc_fifo_qopt`; by default a class keeps so many packets as the device would, and each may be of many segments.
    let fifo = [attribute(KIND, b"bfifo\0"), attribute(OPTIONS, &words(&[queue_bytes]))].concat();
    socket.ask((NEW_QDISC, flags), device.index, [0, CLASS], &fifo).during(doing)?;
    Ok(())
}

fn check(socket: &Rtnetlink, device: &Device) -> Result<()> {
    if root(socket, device)? == 0 {
        return Ok(());
    }
    Err(Error::usage(format!(
        "queue what leaves {}: it has a queueing discipline of its own, which would be lost (tc qdisc show dev {})",
        device.name, device.name
    )))
}

/// Whether a device can be slowed down: its queueing discipline is the kernel's default.
///
/// # Errors
/// It is not.
pub fn can_slow(device: &Device) -> Result<()> {
    check(&Rtnetlink::open()?, device)
}

/// Deletes our queueing discipline, if it is there.
///
/// # Errors
/// It is there, and the kernel refuses.
pub fn remove(device: &Device) -> Result<()> {
    let socket = Rtnetlink::open()?;
    if root(&socket, device)? != HANDLE {
        return Ok(());
    }
    socket
        .ask((DEL_QDISC, ACK), device.index, [HANDLE, ROOT], &[])
        .during(|| format!("remove our queueing discipline from {}", device.name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_messages_are_split() {
        assert_eq!(attribute(1, b"htb\0").len(), 8);
        assert_eq!(attribute(1, b"fq\0").len(), 8);
        let message = [words(&[17, 0, 0, 0]), vec![7, 0, 0, 0]].concat();
        let two = [message.clone(), message].concat();
        let (first, rest) = split(&two).expect("a message");
        assert_eq!((first.len(), rest.len()), (17, 20));
        assert!(split(&[1, 0, 0, 0]).is_none(), "shorter than its header");
        assert!(split(&two[..10]).is_none(), "cut");
    }

    #[test]
    fn the_kind_of_a_discipline_is_found_and_cut_ones_are_none() {
        let head = vec![0; HEAD + TC_HEAD];
        let other = attribute(OPTIONS, &[1, 2, 3]);
        let message = [head.clone(), other, attribute(KIND, b"fq\0")].concat();
        assert_eq!(kind_of(&message), b"fq");
        assert_eq!(kind_of(&head), b"");
        assert_eq!(kind_of(&message[..message.len() - 3]), b"");
        let empty = [head, vec![0, 0, 1, 0]].concat();
        assert_eq!(kind_of(&empty), b"", "of no length");
    }
}
