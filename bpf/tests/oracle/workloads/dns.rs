//! Questions to a name server, which answers each with an address. Tells: answered well, with which error, not at all.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Figures, Peer, With, Workload, assert_figures, number, percent};
use crate::lab::Lab;

pub(crate) struct Dns;

/// A question for the address of `a.test` (RFC 1035 4).
fn question(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"\x01a\x04test\x00");
    bytes.extend([0, 1, 0, 1]);
    bytes
}

/// The question with one answer: 192.0.2.1.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2] |= 0x80;
    bytes[7] = 1;
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    bytes
}

impl Workload for Dns {
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures {
        let count = usize::try_from(number(with, "count", 100)).expect("small");
        let server =
            lab.on_server(|| UdpSocket::bind((peer.address, peer.port)).expect("the port is free"));
        server.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout");
        let done = AtomicBool::new(false);
        let mut codes = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buf = [0; 512];
                while !done.load(Ordering::Acquire) {
                    if let Ok((len, from)) = server.recv_from(&mut buf) {
                        let _ = server.send_to(&answer(&buf[..len]), from);
                    }
                }
            });
            lab.on_client(|| {
                for id in 0..count {
                    codes.push(ask(u16::try_from(id).expect("few"), peer));
                }
            });
            done.store(true, Ordering::Release);
        });
        let share =
            |code: Option<u8>| percent(codes.iter().filter(|one| **one == code).count(), count);
        Figures::from([
            ("good_percent", share(Some(0))),
            ("formerr_percent", share(Some(1))),
            ("servfail_percent", share(Some(2))),
            ("nxdomain_percent", share(Some(3))),
            ("notimp_percent", share(Some(4))),
            ("refused_percent", share(Some(5))),
            ("silent_percent", share(None)),
        ])
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        assert_figures(figures, when, &[("good_percent", 100.0)]);
    }

    fn ttl(&self) -> &'static str {
        "8s"
    }
}

/// The code of the answer, if there is one.
fn ask(id: u16, peer: Peer) -> Option<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let patience = Duration::from_millis(20) * crate::slowness();
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    socket.connect((peer.address, peer.port)).expect("a route");
    socket.send(&question(id)).ok()?;
    let mut buf = [0; 512];
    let len = socket.recv(&mut buf).ok()?;
    let is_answer = len >= 12 && buf[..2] == id.to_be_bytes() && buf[2] & 0x80 != 0;
    is_answer.then(|| buf[3] & 15)
}
