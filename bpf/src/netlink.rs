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

const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_CLASS: u16 = 40;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const HTB_PARMS: u16 = 1;
const HTB_INIT: u16 = 2;

const ROOT: u32 = u32::MAX;
/// Ours: the numbers of the discipline and its only class.
const HANDLE: u32 = 0xC4A0_0000;
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
        let len = u32::try_from(HEAD + TC_HEAD + attributes.len()).unwrap_or(u32::MAX);
        let mut message = len.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        // Sequence, and who sends: the kernel fills in the latter.
        message.extend(words(&[1, 0, 0]));
        message.extend(index.to_ne_bytes());
        message.extend(words(&[handle, parent, 0]));
        message.extend(attributes);
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

/// Handle of a device's own queueing discipline; 0 for the kernel's default.
fn root(socket: &Rtnetlink, device: &Device) -> Result<u32> {
    let all = socket
        .ask((GET_QDISC, DUMP), device.index, [0, 0], &[])
        .during(|| format!("list the queueing disciplines of {}", device.name))?;
    let index = u32::try_from(device.index).unwrap_or_default();
    let field = |message: &[u8], at: usize| word(message, HEAD + at).unwrap_or_default();
    let found = all.iter().find(|one| field(one, 4) == index && field(one, 12) == ROOT);
    Ok(found.map_or(0, |one| field(one, 8)))
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
        "slow down {}: it has a queueing discipline of its own, which would be lost (tc qdisc show dev {})",
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
        .during(|| format!("remove our HTB queue from {}", device.name))?;
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
}
