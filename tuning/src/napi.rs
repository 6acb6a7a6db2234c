//! Settings that each NAPI instance of a network device has of its own, by the kernel's `netdev` family of netlink (Linux 6.13).
//!
//! A device has one such instance for each interrupt, usually one for each pair of queues. They have paths like files,
//! `/netlink/netdev/DEVICE/napi/ID/NAME`. Sources: the kernel's `networking/napi.rst` and `specs/netdev.yaml`. Invariants: an instance
//! is read and written only while it belongs to the device that the path names, since the numbers are given anew; what this
//! kernel does not have is missing and not 0. Next: `netlink`, `knobs::napi`.

use netlink_bindings::netdev::{IterableNapi, Request};
use netlink_socket2::{NetlinkSocket, ReplyError};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::tree::NETLINK;

/// A device has no more of them that are looked at: more than any has today.
const INSTANCES: usize = 4096;

type Get = fn(&IterableNapi<'_>) -> Option<u32>;
type Set = fn(u32, u32) -> Result<(), ReplyError>;

/// One setting of each instance.
struct Row {
    name: &'static str,
    get: Get,
    set: Set,
}

const ROWS: &[Row] = &[
    Row {
        name: "defer-hard-irqs",
        get: |napi| napi.get_defer_hard_irqs().ok(),
        set: |id, value| {
            let mut request = Request::new().op_napi_set_do();
            request.encode().push_id(id).push_defer_hard_irqs(value);
            NetlinkSocket::new().request(&request)?.recv_ack()
        },
    },
    Row {
        name: "gro-flush-timeout",
        get: |napi| napi.get_gro_flush_timeout().ok(),
        set: |id, value| {
            let mut request = Request::new().op_napi_set_do();
            request.encode().push_id(id).push_gro_flush_timeout(value);
            NetlinkSocket::new().request(&request)?.recv_ack()
        },
    },
    Row {
        name: "irq-suspend-timeout",
        get: |napi| napi.get_irq_suspend_timeout().ok(),
        set: |id, value| {
            let mut request = Request::new().op_napi_set_do();
            request.encode().push_id(id).push_irq_suspend_timeout(value);
            NetlinkSocket::new().request(&request)?.recv_ack()
        },
    },
];

/// Which setting, of which instance, of which device.
struct Setting<'a> {
    device: &'a str,
    id: u32,
    row: &'static Row,
}

fn setting(path: &str) -> Option<Setting<'_>> {
    let rest = path.strip_prefix(NETLINK)?.strip_prefix("netdev/")?;
    let (device, rest) = rest.split_once("/napi/")?;
    let (id, name) = rest.split_once('/')?;
    let row = ROWS.iter().find(|row| row.name == name)?;
    Some(Setting { device, id: id.parse().ok()?, row })
}

/// The device of a directory of instances.
fn device(dir: &str) -> Option<&str> {
    dir.strip_prefix(NETLINK)?.strip_prefix("netdev/")?.strip_suffix("/napi")
}

/// The number of a device in the network namespace of this thread.
pub(crate) fn index(device: &str) -> Option<u32> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(any, device).ok()
}

/// The instances of a directory such as `/netlink/netdev/eth0/napi`, by their numbers; none while the device is down.
pub(crate) fn list(dir: &str) -> Vec<u32> {
    device(dir).and_then(index).and_then(|index| dump(index).ok()).unwrap_or_default()
}

fn dump(index: u32) -> Result<Vec<u32>, ReplyError> {
    let mut request = Request::new().op_napi_get_dump();
    request.encode().push_ifindex(index);
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let mut ids = Vec::new();
    while let Some(reply) = replies.recv() {
        let reply = reply?;
        if reply.get_ifindex().ok() == Some(index) && ids.len() < INSTANCES {
            ids.extend(reply.get_id().ok());
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Reads one; nothing where the device has no such instance any more, or the kernel no such setting.
pub(crate) fn read(path: &str) -> Option<String> {
    let Setting { device, id, row } = setting(path)?;
    let index = index(device)?;
    let mut request = Request::new().op_napi_get_do();
    request.encode().push_id(id);
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request).ok()?;
    let reply = replies.recv_one().ok()?;
    if reply.get_ifindex().ok() != Some(index) {
        return None;
    }
    (row.get)(&reply).map(|value| value.to_string())
}

/// Writes one.
pub(crate) fn write(path: &str, value: &str) -> Result<(), String> {
    let no_such = || format!("{path}: no such setting");
    let Setting { id, row, .. } = setting(path).ok_or_else(no_such)?;
    let doing = || format!("write {value:?} to {path}");
    let number = value.trim().parse().map_err(|_| format!("{}: no number", doing()))?;
    // An instance of that number may be of another device by now.
    if read(path).is_none() {
        return Err(format!(
            "{}: the device has no such NAPI instance, or not this setting",
            doing()
        ));
    }
    (row.set)(id, number).map_err(|error| format!("{}: {}", doing(), error.as_io_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_the_table() {
        let known = setting("/netlink/netdev/eth0/napi/8193/defer-hard-irqs").expect("a setting");
        assert_eq!((known.device, known.id, known.row.name), ("eth0", 8193, "defer-hard-irqs"));
        for path in [
            "/netlink/netdev/eth0/napi/8193/threaded",
            "/netlink/netdev/eth0/napi/x/defer-hard-irqs",
            "/netlink/netdev/eth0/napi/4294967296/defer-hard-irqs",
            "/netlink/ethtool/eth0/rings/rx",
            "/sys/class/net/eth0/mtu",
        ] {
            assert!(setting(path).is_none(), "{path}");
            assert_eq!(read(path), None, "{path}");
        }
        assert_eq!(device("/netlink/netdev/eth0/napi"), Some("eth0"));
        assert_eq!(device("/netlink/netdev/eth0"), None);
    }

    #[test]
    fn what_is_not_there_is_neither_read_nor_written() {
        assert!(list("/netlink/netdev/no-such-device/napi").is_empty());
        let path = "/netlink/netdev/no-such-device/napi/1/defer-hard-irqs";
        assert_eq!(read(path), None);
        let error = write(path, "1").expect_err("there is none");
        assert!(error.contains("no such NAPI instance"), "{error}");
        let error = write(path, "much").expect_err("it is no number");
        assert!(error.contains("no number"), "{error}");
    }

    #[test]
    fn an_instance_is_read_as_one_of_its_own_device_only() {
        let devices = crate::tree::Tree::live().list("/sys/class/net");
        let with = devices.iter().find_map(|device| {
            let id = *list(&format!("/netlink/netdev/{device}/napi")).first()?;
            Some((device, id))
        });
        let Some((owner, id)) = with else {
            println!("skipped: no device of {devices:?} has NAPI instances");
            return;
        };
        let other = devices.iter().find(|device| *device != owner).expect("lo at least");
        let path = |device: &str| format!("/netlink/netdev/{device}/napi/{id}/defer-hard-irqs");
        if read(&path(owner)).is_none() {
            println!("skipped: this kernel keeps no settings of NAPI instances: Linux 6.13 does");
            return;
        }
        assert_eq!(read(&path(other)), None);
        let error = write(&path(other), "1").expect_err("it belongs to another one");
        assert!(error.contains("no such NAPI instance"), "{error}");
    }
}
