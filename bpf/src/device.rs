//! Network devices: their numbers and what their packets begin with.

use std::fs;

use crate::error::{Error, Result};

/// A device of the network namespace that the thread is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As in `ip link`.
    pub name: String,
    /// Its index.
    pub index: i32,
    /// Bytes in front of the network header.
    pub l2_len: u32,
}

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` of `if_arp.h`: the types with an Ethernet header.
const WITH_ETHERNET: [u32; 2] = [1, 772];

impl Device {
    /// The device of that name.
    ///
    /// # Errors
    /// There is none here.
    pub fn open(name: &str) -> Result<Self> {
        let field = |field: &str| {
            let text = fs::read_to_string(format!("/sys/class/net/{name}/{field}")).ok()?;
            text.trim().parse::<u32>().ok()
        };
        let found = (!name.contains('/')).then(|| netlink_index(name)).flatten();
        let Some(index) = found else {
            return Err(Error::usage(format!(
                "find device {name}: this network namespace has none; `ip link` lists them"
            )));
        };
        // Mounted for another namespace, /sys says nothing: nearly all devices have Ethernet headers.
        let kind = field("type").unwrap_or(WITH_ETHERNET[0]);
        let l2_len = if WITH_ETHERNET.contains(&kind) { 14 } else { 0 };
        Ok(Self { name: name.to_owned(), index, l2_len })
    }
}

fn netlink_index(name: &str) -> Option<i32> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .ok()?;
    let index = rustix::net::netdevice::name_to_index(socket, name).ok()?;
    i32::try_from(index).ok()
}
