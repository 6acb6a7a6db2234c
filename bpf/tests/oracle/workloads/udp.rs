//! Numbered datagrams from the client to the server, one way. Tells: lost, twice, changed, out of order, late, cut.
//!
//! `with`: count, flows, bytes of payload, pace (datagrams a millisecond), settle_ms; and qdisc, which the client's device is given first.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketType};

use bpf::time::monotonic_ns;

use super::{Figures, Peer, With, Workload, assert_figures, number, percent, quantile};
use crate::lab::Lab;

pub(crate) struct Udp;

/// Bytes in front of the padding: flow, number, time.
const HEAD: usize = 16;
const PAD: u8 = 0xA5;

/// A datagram as it came.
struct Came {
    flow: u32,
    number: u32,
    delay_ms: f64,
    is_changed: bool,
}

struct Plan {
    count: u32,
    flows: u32,
    bytes: usize,
    pace: u32,
    settle: Duration,
    peer: Peer,
}

impl Plan {
    fn new(peer: Peer, with: &With) -> Self {
        let small = |name, default| u32::try_from(number(with, name, default)).expect("small");
        Self {
            count: small("count", 4000),
            flows: small("flows", 1),
            bytes: small("bytes", 64) as usize,
            pace: small("pace", 20),
            settle: Duration::from_millis(number(with, "settle_ms", 60)),
            peer,
        }
    }

    fn each(&self) -> u32 {
        self.count / self.flows
    }
}

fn send(plan: &Plan) {
    let sockets: Vec<UdpSocket> = (0..plan.flows)
        .map(|_| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
            rustix::net::sockopt::set_ip_tos(&socket, 2).expect("ECT(0)");
            socket.connect((plan.peer.address, plan.peer.port)).expect("a route");
            socket
        })
        .collect();
    let mut payload = vec![PAD; plan.bytes.max(HEAD)];
    let mut sent = 0;
    for number in 0..plan.each() {
        for (flow, socket) in (0..).zip(&sockets) {
            let flow: u32 = flow;
            payload[..4].copy_from_slice(&flow.to_le_bytes());
            payload[4..8].copy_from_slice(&number.to_le_bytes());
            payload[8..HEAD].copy_from_slice(&monotonic_ns().to_le_bytes());
            // A fault may refuse it.
            let _ = socket.send(&payload);
            sent += 1;
            if sent % plan.pace == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn receive(plan: &Plan, socket: &UdpSocket, sender_is_done: &AtomicBool) -> Vec<Came> {
    let mut came = Vec::new();
    let mut buf = [0; 2048];
    loop {
        let wait = if sender_is_done.load(Ordering::Acquire) {
            plan.settle
        } else {
            Duration::from_millis(500)
        };
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        match socket.recv(&mut buf) {
            Ok(len) => {
                let now = monotonic_ns();
                let bytes = &buf[..len];
                let word =
                    |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
                if len < HEAD {
                    came.push(Came { flow: u32::MAX, number: 0, delay_ms: 0.0, is_changed: true });
                    continue;
                }
                let sent = u64::from_le_bytes(bytes[8..HEAD].try_into().expect("8 bytes"));
                let (flow, number) = (word(0), word(4));
                let is_whole =
                    len == plan.bytes.max(HEAD) && bytes[HEAD..].iter().all(|byte| *byte == PAD);
                let is_known = flow < plan.flows && number < plan.each() && sent <= now;
                let delay_ms = now.saturating_sub(sent) as f64 / 1e6;
                came.push(Came {
                    flow,
                    number,
                    delay_ms,
                    is_changed: !is_whole || !is_known || delay_ms > 60_000.0,
                });
            }
            Err(_) if sender_is_done.load(Ordering::Acquire) => return came,
            Err(_) => {}
        }
    }
}

/// IP headers of the datagrams that came, whole or not.
fn headers(socket: &OwnedFd, port: u16, into: &mut Figures) {
    let (mut marked, mut few_hops, mut all) = (0, 0, 0);
    let mut buf = [0_u8; 2048];
    while let Ok((len, _)) = rustix::net::recv(socket, &mut buf[..], RecvFlags::DONTWAIT) {
        let bytes = &buf[..len];
        if bytes.get(22..24) != Some(&port.to_be_bytes()) {
            continue;
        }
        all += 1;
        marked += usize::from(bytes[1] & 3 == 3);
        few_hops += usize::from(bytes[8] < 10);
    }
    into.insert("ce_percent", percent(marked, all));
    into.insert("few_hops_percent", percent(few_hops, all));
}

impl Workload for Udp {
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures {
        let plan = Plan::new(peer, with);
        let (socket, raw) = lab.on_server(|| {
            let socket =
                UdpSocket::bind((plan.peer.address, plan.peer.port)).expect("the port is free");
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20)
                .expect("root");
            let raw = rustix::net::socket(
                AddressFamily::INET,
                SocketType::RAW,
                Some(rustix::net::ipproto::UDP),
            )
            .expect("root");
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&raw, 64 << 20).expect("root");
            (socket, raw)
        });
        let done = AtomicBool::new(false);
        let came = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&plan, &socket, &done));
            lab.on_client(|| send(&plan));
            done.store(true, Ordering::Release);
            receiver.join().expect("no panic")
        });
        let mut figures = figures(&plan, &came);
        headers(&raw, plan.peer.port, &mut figures);
        figures
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        let none = [
            "lost_percent",
            "twice_percent",
            "changed_percent",
            "reordered_percent",
            "ce_percent",
            "few_hops_percent",
        ];
        assert_figures(figures, when, &none.map(|name| (name, 0.0)));
    }
}

fn figures(plan: &Plan, came: &[Came]) -> Figures {
    let (flows, each) = (plan.flows as usize, plan.each() as usize);
    let mut seen = vec![vec![0_u32; each]; flows];
    let mut newest = vec![0; flows];
    let (mut changed, mut reordered) = (0, 0);
    let mut delays = Vec::new();
    for one in came {
        if one.is_changed {
            changed += 1;
        }
        let Some(count) =
            seen.get_mut(one.flow as usize).and_then(|flow| flow.get_mut(one.number as usize))
        else {
            continue;
        };
        *count += 1;
        let newest = &mut newest[one.flow as usize];
        if *count == 1 && one.number < *newest {
            reordered += 1;
        }
        *newest = one.number.max(*newest);
        if !one.is_changed {
            delays.push(one.delay_ms);
        }
    }
    delays.sort_by(f64::total_cmp);
    let all = seen.iter().flatten();
    let lost = all.clone().filter(|count| **count == 0).count();
    let lost_of = |flow: &Vec<u32>| flow.iter().filter(|count| **count == 0).count();
    let whole_flows = seen.iter().filter(|flow| lost_of(flow) == each).count();
    let mixed = seen.iter().filter(|flow| (1..each).contains(&lost_of(flow))).count();
    let runs = seen.iter().flat_map(|flow| flow.chunk_by(|one, next| (*one == 0) == (*next == 0)));
    let lost_runs: Vec<usize> = runs.filter(|run| run[0] == 0).map(<[u32]>::len).collect();
    let twice = all.clone().filter(|count| **count > 1).count();
    Figures::from([
        ("lost_percent", percent(lost, flows * each)),
        ("lost", lost as f64),
        ("lost_at_begin", seen[0].iter().take_while(|count| **count == 0).count() as f64),
        (
            "lost_run_mean",
            if lost_runs.is_empty() { 0.0 } else { lost as f64 / lost_runs.len() as f64 },
        ),
        ("lost_run_longest", lost_runs.iter().max().copied().unwrap_or(0) as f64),
        ("lost_flows_percent", percent(whole_flows, flows)),
        ("mixed_flows_percent", percent(mixed, flows)),
        ("twice_percent", percent(twice, flows * each)),
        ("changed_percent", percent(changed, came.len())),
        ("reordered_percent", percent(reordered, flows * each)),
        ("delay_p50_ms", quantile(&delays, 500)),
        ("delay_p99_ms", quantile(&delays, 990)),
        ("delay_p1_ms", quantile(&delays, 10)),
        ("delay_max_ms", delays.last().copied().unwrap_or(f64::NAN)),
    ])
}
