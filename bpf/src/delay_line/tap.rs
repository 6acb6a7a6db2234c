//! A network device whose far end is this process: packets that the kernel sends out of it are read here, and those written here
//! come in through it.
//!
//! Invariants: it goes with its descriptor, and so with the process; it has no addresses. Frames have the header of `virtio_net.h`
//! in front, so that a packet of many segments, and a checksum that the device is to compute, stay as they are.
//! Source: Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h. Next: `delay_line`.
#![expect(unsafe_code, reason = "rustix has no calls for the ioctls of devices")]

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketType};

use crate::device::Device;
use crate::error::{During as _, Error, Result};

/// `struct virtio_net_hdr`.
pub(crate) const HEADER_LEN: usize = 10;
/// A frame with its header: the longest IP packet, behind an Ethernet header with a VLAN.
pub(crate) const FRAME_MAX: usize = HEADER_LEN + 18 + 65_535;
/// Packets that the kernel keeps until they are read here.
const QUEUE_PACKETS: i32 = 16_384;
/// The most that the kernel allows a device of this kind.
const MTU_MAX: i32 = 65_521;
/// The pattern from which the kernel makes a name.
const NAME: &[u8] = b"chaos%d";

/// What the line takes from the kernel unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segments {
    /// Packets of many segments, as they are.
    Together,
    /// Each segment by itself, as a wire has them.
    Apart,
}

/// The device.
#[derive(Debug)]
pub(crate) struct Tap {
    fd: OwnedFd,
    device: Device,
}

/// `struct ifreq`, of which a name and one number are used.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 4],
    rest: [u8; 20],
}
const _: () = assert!(size_of::<Request>() == 40, "as the kernel's on 64-bit machines");

impl Request {
    fn new(name: &[u8], value: i32) -> Self {
        let mut request =
            Self { name: [0; libc::IFNAMSIZ], value: value.to_ne_bytes(), rest: [0; 20] };
        let room = request.name.iter_mut().take(libc::IFNAMSIZ - 1);
        room.zip(name).for_each(|(to, from)| *to = *from);
        request
    }

    /// Flags are a short at the place of the number.
    fn flags(name: &[u8], flags: i32) -> Self {
        let [low, high] = u16::try_from(flags).unwrap_or_default().to_ne_bytes();
        Self { value: [low, high, 0, 0], ..Self::new(name, 0) }
    }
}

fn ask(fd: BorrowedFd<'_>, call: libc::Ioctl, request: &mut Request) -> std::io::Result<()> {
    // SAFETY: `call` is one of those that read and write a `struct ifreq`, which `request` is, for as long as it lasts.
    let failed = unsafe { libc::ioctl(fd.as_raw_fd(), call, std::ptr::from_mut(request)) };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Says what need not be finished, as far as this kernel knows of it; segments of UDP since 6.2.
fn offload(fd: BorrowedFd<'_>, segments: Segments) -> std::io::Result<()> {
    let tcp = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let together = libc::TUN_F_CSUM | tcp;
    let tries = match segments {
        Segments::Together => [together | libc::TUN_F_USO4 | libc::TUN_F_USO6, together],
        Segments::Apart => [libc::TUN_F_CSUM; 2],
    };
    for flags in tries {
        // SAFETY: the call takes a number, and no pointer.
        let failed =
            unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
        if failed == 0 {
            return Ok(());
        }
    }
    Err(std::io::Error::last_os_error())
}

impl Tap {
    /// Makes one in this thread's network namespace, for packets of `like`, and leaves it down.
    ///
    /// # Errors
    /// The kernel has no such devices, or this process may make none.
    pub(crate) fn new(like: &Device, segments: Segments) -> Result<Self> {
        let path = "/dev/net/tun";
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
            Error::unsupported(format!(
                "open {path}: {error}; the module tun is wanted (modprobe tun), and CAP_NET_ADMIN"
            ))
        })?;
        let kind = if like.l2_len == 0 { libc::IFF_TUN } else { libc::IFF_TAP };
        let mut request = Request::flags(NAME, kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR);
        ask(fd.as_fd(), libc::TUNSETIFF, &mut request)
            .during(|| format!("make a device by {path}"))?;
        offload(fd.as_fd(), segments).during(|| "leave segments together".to_owned())?;
        let name = request.name.iter().take_while(|byte| **byte != 0);
        let name = String::from_utf8_lossy(&name.copied().collect::<Vec<u8>>()).into_owned();
        // A device with an address of its own would be announced.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let mut device = Device::open(&name)?;
        device.l2_len = like.l2_len;
        Ok(Self { fd, device })
    }

    /// As the kernel knows it.
    pub(crate) const fn device(&self) -> &Device {
        &self.device
    }

    /// Lets packets of `like` through.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn up(&self, like: &Device) -> Result<()> {
        let name = self.device.name.as_bytes();
        let doing = || format!("set up {}", self.device.name);
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).during(doing)?;
        let mut mtu = Request::new(like.name.as_bytes(), 0);
        ask(socket.as_fd(), libc::SIOCGIFMTU as libc::Ioctl, &mut mtu).during(doing)?;
        let mtu = i32::from_ne_bytes(mtu.value).min(MTU_MAX);
        for (call, mut request) in [
            (libc::SIOCSIFMTU, Request::new(name, mtu)),
            (libc::SIOCSIFTXQLEN, Request::new(name, QUEUE_PACKETS)),
            (libc::SIOCSIFFLAGS, Request::flags(name, libc::IFF_UP | libc::IFF_NOARP)),
        ] {
            // The names of calls have another type than those of tun.
            ask(socket.as_fd(), call as libc::Ioctl, &mut request).during(doing)?;
        }
        Ok(())
    }

    /// The next frame that was sent out of it; `None` if there is none now.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Option<usize> {
        rustix::io::read(&self.fd, buf).ok()
    }

    /// Lets a frame come in through it; whether the kernel took it.
    pub(crate) fn write(&self, frame: &[u8]) -> bool {
        rustix::io::write(&self.fd, frame).is_ok()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
