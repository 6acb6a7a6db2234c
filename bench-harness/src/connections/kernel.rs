//! What the kernel holds for connections: buffers of a server's sockets, by inet_diag (netlink), and
//! its own objects, by `/proc/slabinfo`.
//!
//! Why beside resident memory: that is the process's alone. A socket costs the kernel as much again,
//! and a server that leaves requests waiting in its ring has more of its objects. Invariants: buffers are
//! those of the server's end alone; objects are those of both ends, since nothing tells them apart, and of
//! the whole machine: others that open files at the time are in them. Source: linux/sock_diag.h for the
//! numbers of `SK_MEMINFO_*`. Next: `super` for the slopes.

use std::fs;

use anyhow::{Context, Result};
use netlink_bindings::inet_diag::{ReqV2, Request, TcpState};
use netlink_socket2::NetlinkSocket;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// INET_DIAG_SKMEMINFO is the seventh extension, and extensions are asked for by bits from the first on.
const SKMEMINFO: u8 = 1 << (7 - 1);
/// Received, reserved for more, waiting to be sent, options: what the socket is charged for.
const CHARGED: [usize; 4] = [0, 4, 5, 6];
/// What a connection has one of, or a server that keeps a request on it waiting in its ring.
const OBJECTS: [&str; 5] = ["TCP", "sock_inode_cache", "filp", "dentry", "io_kiocb"];

/// Buffers of the established connections of the server on `port`: (connections, bytes).
///
/// # Errors
/// The kernel does not say.
pub(super) fn buffers(port: u16) -> Result<(u64, u64)> {
    let (mut connections, mut bytes) = (0, 0);
    for family in [AF_INET, AF_INET6] {
        let mut header = ReqV2 {
            family,
            protocol: IPPROTO_TCP,
            ext: SKMEMINFO,
            states: 1 << TcpState::Established as u32,
            ..ReqV2::default()
        };
        header.sockid.set_sport(port);
        let request = Request::new().op_tcp_diag_dump(&header);
        let mut socket = NetlinkSocket::new();
        let mut replies = socket.request(&request).context("inet_diag")?;
        while let Some(reply) = replies.recv() {
            let (_, attributes) =
                reply.map_err(|error| anyhow::anyhow!("inet_diag: {}", error.as_io_error()))?;
            let Ok(memory) = attributes.get_skmeminfo() else { continue };
            connections += 1;
            bytes += charged(memory);
        }
    }
    Ok((connections, bytes))
}

/// Numbers of 32 bits, in the machine's order.
fn charged(memory: &[u8]) -> u64 {
    let (numbers, _) = memory.as_chunks::<4>();
    let number =
        |at: usize| numbers.get(at).map_or(0, |bytes| u64::from(u32::from_ne_bytes(*bytes)));
    CHARGED.into_iter().map(number).sum()
}

/// Bytes of the kernel's objects; `None` where only root may read them and this is another user.
pub(super) fn objects() -> Option<u64> {
    fs::read_to_string("/proc/slabinfo").ok().map(|text| in_slabs(&text))
}

fn in_slabs(text: &str) -> u64 {
    let bytes = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        if !OBJECTS.contains(&name) {
            return None;
        }
        let active: u64 = fields.next()?.parse().ok()?;
        let size: u64 = fields.nth(1)?.parse().ok()?;
        Some(active * size)
    };
    text.lines().filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn bytes_that_nobody_has_read_are_in_the_server_s_buffers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let mut client = TcpStream::connect(addr).expect("it listens");
        let (_server, _) = listener.accept().expect("it was connected");
        let (connections, before) = buffers(addr.port()).expect("the kernel says");
        assert_eq!(connections, 1);
        client.write_all(&[7; 10_000]).expect("there is room");
        let deadline_ns = crate::clock::mono_ns() + crate::clock::SECOND_NS;
        let mut after = before;
        while after < before + 10_000 && crate::clock::mono_ns() < deadline_ns {
            after = buffers(addr.port()).expect("the kernel says").1;
        }
        assert!((before + 10_000..before + 200_000).contains(&after), "{before} {after}");
        assert_eq!(buffers(1).expect("nobody is there"), (0, 0));
    }

    #[test]
    fn slabs_are_read_by_name() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
            TCP 10 13 2368 13 8 : tunables 0 0 0\nTCPv6 10 13 9999 1 1\nfilp 5 21 192 21 1\n";
        assert_eq!(in_slabs(text), 10 * 2368 + 5 * 192);
    }
}
