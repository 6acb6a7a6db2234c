//! The network stack: queues, buffers, TCP, connection tracking. Next: `nic`.

use super::{NETWORK, Profile};
use crate::format::Want;
use crate::gains::{Gain, Trial};
use crate::knob::Desire::{AtLeast, By, EachAtLeast, Is, OneOf};
use crate::knob::Profile::{Bench, Container, Latency, Throughput};
use crate::knob::{Context, How, Knob, Scope, Wish};
use crate::load::Load;

const BUSY: &[Profile] = &[Latency];
const MANY: &[Profile] = &[Latency, Throughput, Bench];

const NETNS: Knob = Knob { scope: Scope::Netns, ..Knob::BASE };
const HOST: Knob = Knob::BASE;

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "net.core.somaxconn",
        wants: &[(NETWORK, AtLeast(4096))],
        what: "the longest queue of connections that wait to be accepted, whatever listen(2) asks for",
        why: "a burst of connections that finds the queue full is dropped, and tries again only after a second",
        source: "kernel ip-sysctl.rst; perftune (seastar) 4096; tuned throughput-performance 2048",
        risk: "none: a bound, not an allocation",
        cost: "bursts of new connections are dropped and try again after a second",
        gain: Gain::By(Trial { a: Some("128"), b: Some("4096"), ..Trial::of(Load::Burst) }),
        ..NETNS
    },
    Knob {
        name: "net.ipv4.tcp_max_syn_backlog",
        wants: &[(NETWORK, AtLeast(4096))],
        what: "the longest queue of connections in the middle of their handshake, of one listener",
        why: "beyond it the kernel sends SYN cookies, which lose window scaling and timestamps, or drops",
        source: "kernel ip-sysctl.rst; perftune (seastar) 4096",
        risk: "a few hundred bytes for each connection in its handshake",
        cost: "bursts of new connections get SYN cookies or are dropped",
        gain: Gain::By(Trial { a: Some("128"), b: Some("4096"), ..Trial::of(Load::Burst) }),
        ..NETNS
    },
    Knob {
        name: "net.ipv4.tcp_fastopen",
        wants: &[(&[Latency], Is("3"))],
        what: "data in the first packet of a connection, as a client (1) and as a server (2)",
        why: "saves a round trip when the same client connects again, for sockets that ask for it",
        source: "kernel ip-sysctl.rst; tuned network-latency 3",
        risk: "middleboxes that drop such packets cost a retransmission",
        gain: Gain::Not(
            "for sockets that ask for it, and saves a round trip: loopback and veth have none worth saving",
        ),
        ..NETNS
    },
    Knob {
        name: "net.ipv4.tcp_slow_start_after_idle",
        wants: &[(NETWORK, Is("0"))],
        what: "whether a connection that was idle starts with a small window again",
        why: "requests with pauses in between would each begin slowly on a link that is known already",
        source: "kernel ip-sysctl.rst; Netflix 2017",
        risk: "a burst into a network that has become busier meanwhile",
        gain: Gain::Not("a window matters on paths with delay: loopback and veth have none"),
        ..NETNS
    },
    Knob {
        name: "net.ipv4.tcp_rmem",
        wants: &[(&[Throughput, Container], EachAtLeast(&[4096, 87_380, 16_777_216]))],
        what: "receive buffer of a TCP connection: least, initial, most",
        why: "the most limits what is in flight: 16 MiB is 1.3 Gbit/s at a round trip of 100 ms",
        source: "tuned network-throughput 4096 87380 16777216; Netflix 2017",
        risk: "memory, under net.ipv4.tcp_mem, where peers send faster than the service reads",
        gain: Gain::Not("a window matters on paths with delay: loopback and veth have none"),
        ..NETNS
    },
    Knob {
        name: "net.ipv4.tcp_wmem",
        wants: &[(&[Throughput, Container], EachAtLeast(&[4096, 16_384, 16_777_216]))],
        what: "send buffer of a TCP connection: least, initial, most",
        why: "the most limits what is in flight: 16 MiB is 1.3 Gbit/s at a round trip of 100 ms",
        source: "tuned network-throughput 4096 16384 16777216; Netflix 2017",
        risk: "memory, under net.ipv4.tcp_mem, where peers read slowly",
        gain: Gain::Not("a window matters on paths with delay: loopback and veth have none"),
        ..NETNS
    },
    Knob {
        name: "net.ipv4.ip_local_port_range",
        wants: &[(&[Throughput, Bench], By("lower end <= 16384, upper end >= 65535", ports))],
        what: "ports for connections that this host opens",
        why: "a proxy or a load generator has at most this many connections to one address and port",
        source: "kernel ip-sysctl.rst; Netflix 2017 (1024 65535, which may take the ports of services)",
        risk: "a service on a port of the range may find it taken: see ip_local_reserved_ports",
        gain: Gain::Not("a bound: below it nothing changes, beyond it requests fail"),
        ..NETNS
    },
    Knob {
        name: "net.ipv4.tcp_tw_reuse",
        wants: &[(&[Bench], OneOf(&["1", "2"]))],
        what: "whether a port in TIME-WAIT may be used for a new connection outwards (2: on loopback only)",
        why: "short connections of a load generator run out of ports within a minute without it",
        source: "kernel ip-sysctl.rst",
        risk: "none with TCP timestamps, which it needs",
        gain: Gain::Not("a bound: below it nothing changes, beyond it requests fail"),
        ..NETNS
    },
    Knob {
        name: "net.core.netdev_max_backlog",
        wants: &[(MANY, AtLeast(5000))],
        what: "packets that may wait for one processor, between interrupt and stack: RPS, loopback and veth use it",
        why: "beyond it they are dropped; see the second column of /proc/net/softnet_stat",
        source: "kernel admin-guide/sysctl/net.rst; Netflix 2017 5000",
        risk: "longer queues when a processor cannot keep up",
        gain: Gain::Not("a bound: what it saves are drops, which /proc/net/softnet_stat counts"),
        ..HOST
    },
    Knob {
        name: "net.core.rmem_max",
        wants: &[(&[Throughput], AtLeast(16_777_216))],
        what: "the largest receive buffer that SO_RCVBUF may ask for",
        why: "services that size their own buffers, above all UDP ones, get no more",
        source: "kernel admin-guide/sysctl/net.rst; Netflix 2017 16 MiB",
        risk: "memory of sockets whose owner asks for much",
        gain: Gain::Not("for sockets that ask for more: measure the service that does"),
        ..HOST
    },
    Knob {
        name: "net.core.wmem_max",
        wants: &[(&[Throughput], AtLeast(16_777_216))],
        what: "the largest send buffer that SO_SNDBUF may ask for",
        why: "services that size their own buffers get no more",
        source: "kernel admin-guide/sysctl/net.rst; Netflix 2017 16 MiB",
        risk: "memory of sockets whose owner asks for much",
        gain: Gain::Not("for sockets that ask for more: measure the service that does"),
        ..HOST
    },
    Knob {
        name: "net.core.rps_sock_flow_entries",
        wants: &[(MANY, By(">= 32768 with two processors or more", flows))],
        what: "the table of flows by which packets follow their reader to its processor (RFS)",
        why: "the stack runs where the service reads: no cache line travels",
        source: "kernel networking/scaling.rst 32768; perftune (seastar) 32768",
        risk: "128 KiB of memory; nothing happens without rps_flow_cnt of the queues",
        gain: Gain::Not("nothing without nic.rps_flow_cnt, and readers on several processors"),
        ..HOST
    },
    Knob {
        name: "net.core.busy_poll",
        wants: &[(BUSY, AtLeast(50))],
        what: "microseconds for which poll(2) and epoll ask the device before they sleep",
        why: "saves the interrupt and the wake-up where answers come soon",
        source: "kernel admin-guide/sysctl/net.rst; tuned network-latency 50",
        risk: "processors spin; no use for io_uring without its own NAPI registration",
        gain: Gain::By(Trial { with: &[("nic.gro", "1")], ..Trial::of(Load::Polled) }),
        ..HOST
    },
    Knob {
        name: "net.core.busy_read",
        wants: &[(BUSY, AtLeast(50))],
        what: "microseconds for which a read of a socket asks the device before it sleeps",
        why: "saves the interrupt and the wake-up where answers come soon",
        source: "kernel admin-guide/sysctl/net.rst; tuned network-latency 50",
        risk: "processors spin",
        gain: Gain::By(Trial { with: &[("nic.gro", "1")], ..Trial::of(Load::RoundTrips) }),
        ..HOST
    },
    Knob {
        name: "net.netfilter.nf_conntrack_max",
        wants: &[(
            &[Throughput, Bench],
            By(">= 262144, and a quarter of memory in 4 KiB up to 1048576", conntrack),
        )],
        what: "connections that the firewall keeps track of",
        why: "when the table is full, new connections are dropped; best is a NOTRACK rule for the service's ports",
        source: "kernel networking/nf_conntrack-sysctl.rst",
        risk: "about 320 bytes a connection; the hash table has its size from the start of the module",
        cost: "new connections are dropped when the firewall's table is full",
        gain: Gain::Not("a bound: below it nothing changes, beyond it requests fail"),
        ..HOST
    },
    Knob {
        name: "net.ipv4.tcp_congestion_control",
        how: How::Tell("which is best depends on the path; a service may choose by TCP_CONGESTION"),
        what: "how TCP finds out how much a path takes",
        why: "comparisons are to be made with the same one: BBR paces, and costs a timer for each connection",
        source: "kernel ip-sysctl.rst",
        risk: "unfair to others on the same path",
        gain: Gain::Not(
            "which one is better depends on the path: loopback and veth have no queue that fills",
        ),
        ..NETNS
    },
];

fn ports(context: &Context<'_>) -> Wish {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let now = context.tree.text(path).unwrap_or_default();
    let mut ends = now.split_whitespace().map(|end| end.parse::<u64>().ok());
    let (low, high) = (ends.next().flatten(), ends.next().flatten());
    // Bounds of different parity serve both halves of the range best.
    let low = low.map_or(16_384, |low| low.min(16_384));
    let high = high.map_or(65_535, |high| high.max(65_535));
    Wish::Want(Want::Is(format!("{low} {high}")))
}

fn flows(context: &Context<'_>) -> Wish {
    if context.host.online.len() < 2 {
        return Wish::NotHere("one processor: there is no other for a packet to go to".to_owned());
    }
    Wish::Want(Want::AtLeast(32_768))
}

fn conntrack(context: &Context<'_>) -> Wish {
    let affordable = context.host.memory / 4 / 4096;
    Wish::Want(Want::AtLeast(affordable.clamp(262_144, 1_048_576)))
}
