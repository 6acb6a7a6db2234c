//! Settings of network devices that the kernel offers by netlink only: rings, channels, coalescing, features.
//!
//! They have paths like files, `/netlink/ethtool/DEVICE/GROUP/NAME`, so that the rest of the crate knows only files, and a
//! recorded host has them as such; those of NAPI instances are in `napi`. Sources: the kernel's `networking/ethtool-netlink.rst` and its `specs/ethtool.yaml`.
//! Invariant: the numbers of commands are those of `linux/ethtool_netlink.h`: release 0.3.5 of the bindings counts them
//! wrongly (its request for rings is sent as one for pause frames), so each is set here. Next: `napi`, `knobs::nic`.

use netlink_bindings::ethtool::{IterableBitset, Request};
use netlink_bindings::rt_link::{self, Ifinfomsg};
use netlink_socket2::{NetlinkSocket, ReplyError};

use crate::napi;
use crate::tree::NETLINK;

/// Numbers of `linux/ethtool_netlink.h`.
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const RINGS_GET: u8 = 15;
const RINGS_SET: u8 = 16;
const CHANNELS_GET: u8 = 17;
const COALESCE_GET: u8 = 19;
const COALESCE_SET: u8 = 20;
/// In a header: no answer but that it was done. What came of it is read back by the caller.
const OMIT_REPLY: u32 = 2;

type Get = fn(&str) -> Result<Option<u32>, ReplyError>;
type Set = fn(&str, u32) -> Result<(), ReplyError>;

/// A setting: which of those below, and of which device.
struct Setting<'a> {
    device: &'a str,
    row: &'static Row,
}

/// One setting of each device.
struct Row {
    name: &'static str,
    get: Get,
    set: Option<Set>,
}

const ROWS: &[Row] = &[
    Row { name: "rings/rx", get: |device| Ok(rings(device)?.0), set: Some(set_ring) },
    Row { name: "rings/rx-max", get: |device| Ok(rings(device)?.1), set: None },
    // Changing it stops the link: it is read only.
    Row { name: "channels/combined", get: |device| Ok(channels(device)?.0), set: None },
    Row { name: "channels/combined-max", get: |device| Ok(channels(device)?.1), set: None },
    Row { name: "coalesce/adaptive-rx", get: adaptive_rx, set: Some(set_adaptive_rx) },
    Row { name: "features/rx-ntuple-filter", get: ntuple, set: Some(set_ntuple) },
    Row { name: "features/rx-gro", get: gro, set: Some(set_gro) },
];

fn setting(path: &str) -> Option<Setting<'_>> {
    let rest = path.strip_prefix(NETLINK)?.strip_prefix("ethtool/")?;
    let (device, name) = rest.split_once('/')?;
    let row = ROWS.iter().find(|row| row.name == name)?;
    Some(Setting { device, row })
}

/// The device of a path such as `/netlink/link/eth0/kind`.
fn of_kind(path: &str) -> Option<&str> {
    path.strip_prefix(NETLINK)?.strip_prefix("link/")?.strip_suffix("/kind")
}

/// What a device without a bus is: `veth`, `bridge`, `dummy` …; nothing for others.
fn kind(device: &str) -> Option<String> {
    let header =
        Ifinfomsg { ifi_index: napi::index(device)?.try_into().ok()?, ..Ifinfomsg::default() };
    let request = rt_link::Request::new().op_getlink_do(&header);
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request).ok()?;
    let (_, reply) = replies.recv_one().ok()?;
    let kind = reply.get_linkinfo().ok()?.get_kind().ok()?;
    Some(kind.to_string_lossy().into_owned())
}

/// Whether a path is one of a NAPI instance.
fn is_napi(path: &str) -> bool {
    path.strip_prefix(NETLINK).is_some_and(|rest| rest.starts_with("netdev/"))
}

/// The names in a directory that is none of the kernel's.
pub(crate) fn list(dir: &str) -> Vec<String> {
    napi::list(dir).iter().map(u32::to_string).collect()
}

/// Reads one; nothing where device or kernel do not have it.
pub(crate) fn read(path: &str) -> Option<String> {
    if is_napi(path) {
        return napi::read(path);
    }
    if let Some(device) = of_kind(path) {
        return kind(device);
    }
    let Setting { device, row } = setting(path)?;
    let value = (row.get)(device).ok().flatten()?;
    Some(value.to_string())
}

/// Writes one.
pub(crate) fn write(path: &str, value: &str) -> Result<(), String> {
    if is_napi(path) {
        return napi::write(path, value);
    }
    let no_such = || format!("{path}: no such setting");
    let Setting { device, row } = setting(path).ok_or_else(no_such)?;
    let set = row.set.ok_or_else(|| format!("{path}: only read"))?;
    let number =
        value.trim().parse().map_err(|_| format!("write {value:?} to {path}: no number"))?;
    set(device, number)
        .map_err(|error| format!("write {value:?} to {path}: {}", error.as_io_error()))
}

/// Descriptors of a receive queue: now, and at most.
fn rings(device: &str) -> Result<(Option<u32>, Option<u32>), ReplyError> {
    let mut request = Request::new().op_rings_get_do();
    request.header_mut().cmd = RINGS_GET;
    request.encode().nested_header().push_dev_name_bytes(device.as_bytes());
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let reply = replies.recv_one()?;
    Ok((reply.get_rx().ok(), reply.get_rx_max().ok()))
}

fn set_ring(device: &str, descriptors: u32) -> Result<(), ReplyError> {
    let mut request = Request::new().op_rings_set_do();
    request.header_mut().cmd = RINGS_SET;
    request
        .encode()
        .nested_header()
        .push_dev_name_bytes(device.as_bytes())
        .end_nested()
        .push_rx(descriptors);
    NetlinkSocket::new().request(&request)?.recv_ack()
}

/// Pairs of queues: now, and at most.
fn channels(device: &str) -> Result<(Option<u32>, Option<u32>), ReplyError> {
    let mut request = Request::new().op_channels_get_do();
    request.header_mut().cmd = CHANNELS_GET;
    request.encode().nested_header().push_dev_name_bytes(device.as_bytes());
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let reply = replies.recv_one()?;
    Ok((reply.get_combined_count().ok(), reply.get_combined_max().ok()))
}

fn adaptive_rx(device: &str) -> Result<Option<u32>, ReplyError> {
    let mut request = Request::new().op_coalesce_get_do();
    request.header_mut().cmd = COALESCE_GET;
    request.encode().nested_header().push_dev_name_bytes(device.as_bytes());
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let reply = replies.recv_one()?;
    Ok(reply.get_use_adaptive_rx().ok().map(u32::from))
}

fn set_adaptive_rx(device: &str, on: u32) -> Result<(), ReplyError> {
    let mut request = Request::new().op_coalesce_set_do();
    request.header_mut().cmd = COALESCE_SET;
    let device = request.encode().nested_header().push_dev_name_bytes(device.as_bytes());
    device.end_nested().push_use_adaptive_rx(u8::from(on != 0));
    NetlinkSocket::new().request(&request)?.recv_ack()
}

fn ntuple(device: &str) -> Result<Option<u32>, ReplyError> {
    feature(device, "rx-ntuple-filter")
}

fn set_ntuple(device: &str, on: u32) -> Result<(), ReplyError> {
    set_feature(device, "rx-ntuple-filter", on != 0)
}

fn gro(device: &str) -> Result<Option<u32>, ReplyError> {
    feature(device, "rx-gro")
}

fn set_gro(device: &str, on: u32) -> Result<(), ReplyError> {
    set_feature(device, "rx-gro", on != 0)
}

/// Whether a feature is on; nothing when the device cannot change it.
fn feature(device: &str, name: &str) -> Result<Option<u32>, ReplyError> {
    let mut request = Request::new().op_features_get_do();
    request.header_mut().cmd = FEATURES_GET;
    request.encode().nested_header().push_dev_name_bytes(device.as_bytes());
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let reply = replies.recv_one()?;
    let is_in = |bits: Result<IterableBitset<'_>, _>| bits.is_ok_and(|bits| has(&bits, name));
    let can_change = is_in(reply.get_hw()) && !is_in(reply.get_nochange());
    Ok(can_change.then(|| u32::from(is_in(reply.get_active()))))
}

/// Whether a set of bits has the one of this name. A set without a mask lists those that are on, one with a mask all that it
/// speaks of, and marks those that are on.
fn has(bits: &IterableBitset<'_>, name: &str) -> bool {
    let lists_only_on = bits.get_nomask().is_ok();
    let Ok(list) = bits.get_bits() else { return false };
    list.get_bit().any(|bit| {
        let is_it = bit.get_name().is_ok_and(|own| own.to_bytes() == name.as_bytes());
        is_it && (lists_only_on || bit.get_value().is_ok())
    })
}

fn set_feature(device: &str, name: &str, on: bool) -> Result<(), ReplyError> {
    let mut request = Request::new().op_features_set_do();
    request.header_mut().cmd = FEATURES_SET;
    let header = request.encode().nested_header();
    let header = header.push_dev_name_bytes(device.as_bytes()).push_flags(OMIT_REPLY);
    let bits = header.end_nested().nested_wanted().nested_bits();
    let bit = bits.nested_bit().push_name_bytes(name.as_bytes());
    drop(if on { bit.push_value(()) } else { bit });
    NetlinkSocket::new().request(&request)?.recv_ack()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_the_table() {
        assert!(setting("/netlink/ethtool/eth0/rings/rx").is_some());
        assert!(setting("/netlink/ethtool/eth0/rings/tx").is_none());
        assert!(setting("/sys/class/net/eth0/mtu").is_none());
        let error =
            write("/netlink/ethtool/none/channels/combined", "2").expect_err("it is not written");
        assert!(error.contains("only read"), "{error}");
        let error =
            write("/netlink/ethtool/no-such-device/rings/rx", "256").expect_err("there is none");
        assert!(
            error.contains("No such device") || error.contains("Operation not permitted"),
            "{error}"
        );
        assert_eq!(read("/netlink/ethtool/no-such-device/rings/rx"), None);
        assert_eq!(read("/netlink/link/no-such-device/kind"), None);
        // Loopback is of no kind.
        assert_eq!(read("/netlink/link/lo/kind"), None);
    }

    #[test]
    fn what_devices_of_this_host_say_makes_sense() {
        let devices = crate::tree::Tree::live().list("/sys/class/net");
        let mut seen = 0;
        for device in &devices {
            let number = |name: &str| -> Option<u32> {
                read(&format!("/netlink/ethtool/{device}/{name}"))?.parse().ok()
            };
            for (now, most) in
                [("rings/rx", "rings/rx-max"), ("channels/combined", "channels/combined-max")]
            {
                let Some((now, most)) = number(now).zip(number(most)) else { continue };
                assert!((1..=most).contains(&now), "{device}: {now} of {most}");
                seen += 1;
            }
            if let Some(adaptive) = number("coalesce/adaptive-rx") {
                assert!(adaptive <= 1, "{device}: {adaptive}");
                seen += 1;
            }
        }
        if seen == 0 {
            println!("skipped: no device of {devices:?} has rings, channels or coalescing");
        }
    }
}
