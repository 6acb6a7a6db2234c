//! What the probes cost: each program by the kernel's account, hot, and all of them by the wall clock.
//!
//! Other work on the machine moves both: run them alone, as
//! `cargo test --release -p bpf --test netprobe cost -- --ignored --nocapture --test-threads 1`.
//! Next: `src/metrics/cost.rs`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use bpf::metrics::cost::{Account, Cost};
use bpf::metrics::{Group, Probe};

use super::can_run;
use super::ring::{ASYNC, LINK, Op, READ, Ring};

/// Of a run of any program.
const RUN_NS: u64 = 250;
/// Of all that one segment meets.
const SEGMENT_NS: u64 = 250;
/// Of an operation of a ring, from its begin to its end.
const OPERATION_NS: u64 = 300;
/// A program that ran less often finds cold caches.
const HOT: u64 = 1000;

/// A connection over `lo`, both ends of which are this thread's: what one sends is there for the other.
struct Pair {
    one: TcpStream,
    other: TcpStream,
}

impl Pair {
    fn connect() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let to = listener.local_addr().expect("it is bound");
        let one = TcpStream::connect(to).expect("it listens");
        let (other, _) = listener.accept().expect("it came");
        one.set_nodelay(true).expect("a socket");
        other.set_nodelay(true).expect("a socket");
        Self { one, other }
    }

    fn exchange(&mut self, times: u32) {
        let mut bytes = [0; 32];
        for _ in 0..times {
            self.one.write_all(&[1; 32]).expect("it is sent");
            self.other.read_exact(&mut bytes).expect("it is there");
            self.other.write_all(&bytes).expect("it is sent");
            self.one.read_exact(&mut bytes).expect("it is there");
        }
    }
}

/// Datagrams to a port of `lo`; what becomes of them is no matter.
fn datagrams(socket: &UdpSocket, to: std::net::SocketAddr, times: u32) {
    (0..times).for_each(|_| drop(socket.send_to(&[1; 32], to)));
}

struct Costs {
    /// Of the account itself.
    own: u64,
    all: Vec<Cost>,
}

impl Costs {
    fn net(&self, cost: &Cost) -> u64 {
        cost.ns_per_run().saturating_sub(self.own)
    }
}

/// What each program costs a run while some work is done.
fn costs(groups: &[Group], work: impl FnOnce()) -> Costs {
    let probe = Probe::start(groups, 1).expect("it can run");
    let account = Account::open().expect("the kernel keeps it");
    work();
    let all = probe.costs();
    Costs { own: account.own_ns().expect("it runs"), all }
}

/// Shows what each costs, without the account's own part. The sum of those that met at least half as many events as there were.
fn show(what: &str, costs: &Costs, events: u64) -> u64 {
    println!("{what} (the account's own {} ns left out)", costs.own);
    let mut sum = 0;
    for cost in costs.all.iter().filter(|cost| cost.runs > 0) {
        let ns = costs.net(cost);
        println!("  {:<28} {:>9} runs {ns:>5} ns", cost.program, cost.runs);
        sum += if cost.runs >= events / 2 { ns } else { 0 };
        assert!(cost.runs < HOT || ns <= RUN_NS, "{}: {ns} ns", cost.program);
    }
    sum
}

#[test]
#[ignore = "measures, and means something only alone"]
fn a_segment_and_a_drop_cost_little() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::connect();
    pair.exchange(1000);
    let tcp = costs(&Group::ALL, || pair.exchange(100_000));
    let sum = show("TCP, 200,000 segments over lo, all metrics", &tcp, 200_000);
    println!("  an ordinary segment meets those of 100,000 runs and more: {sum} ns");
    assert!(sum <= SEGMENT_NS, "{sum} ns a segment");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let closed = "127.0.0.1:9".parse().expect("an address");
    let drops = costs(&[Group::Drops], || datagrams(&socket, closed, 400_000));
    show("400,000 datagrams to a closed port", &drops, 400_000);
    let unread = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let full = unread.local_addr().expect("it is bound");
    datagrams(&socket, full, 10_000);
    let full = costs(&[Group::Drops], || datagrams(&socket, full, 400_000));
    show("400,000 datagrams to a full socket", &full, 400_000);
}

#[test]
#[ignore = "measures, and means something only alone"]
fn a_connection_costs_little() {
    if !can_run() {
        return;
    }
    let opened = costs(&[Group::Tcp], || (0..20_000).for_each(|_| drop(Pair::connect())));
    show("20,000 connections", &opened, 20_000);
    let refused = costs(&[Group::Tcp], || {
        (0..20_000).for_each(|_| drop(TcpStream::connect("127.0.0.1:9")));
    });
    show("20,000 refused connections", &refused, 20_000);
}

#[test]
#[ignore = "measures, and means something only alone"]
fn an_operation_of_a_ring_costs_little() {
    if !can_run() {
        return;
    }
    let Some(mut ring) = Ring::open(64) else { return println!("skipped: no io_uring here") };
    let nops = costs(&[Group::Uring], || {
        for _ in 0..8_000 {
            ring.submit_nops(50);
            ring.reap();
        }
    });
    let sum = show("400,000 NOPs", &nops, 400_000);
    assert!(sum <= OPERATION_NS, "{sum} ns an operation");
    let broken = [Op { opcode: READ, flags: LINK }, Op::default()].repeat(25);
    let links = costs(&[Group::Uring], || {
        for _ in 0..2_000 {
            ring.submit(&broken);
            ring.reap();
        }
    });
    show("50,000 broken links", &links, 100_000);
    let punted = costs(&[Group::Uring], || {
        let nops = [Op { opcode: 0, flags: ASYNC }; 50];
        let (mut begun, mut done) = (0, 0);
        while done < 100_000 {
            // All of them find room: what overflows is not there before the kernel is asked.
            if begun - done <= 50 {
                ring.submit(&nops);
                begun += 50;
            }
            done += ring.reap();
            std::thread::yield_now();
        }
    });
    show("100,000 NOPs by workers", &punted, 100_000);
    let mut small = Ring::open(4).expect("another one");
    let overflown = costs(&[Group::Uring], || (0..5_000).for_each(|_| small.submit_nops(4)));
    show("20,000 completions without room", &overflown, 20_000);
}

/// What the probes add by the wall clock: pairs of runs with and without them, one after the other, of which the medians
/// of the differences are taken.
#[test]
#[ignore = "measures, and means something only alone"]
fn the_wall_clock_agrees() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::connect();
    let segments = added("a segment over lo, all metrics", &Group::ALL, &mut || {
        per(60_000, || pair.exchange(30_000))
    });
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let to = receiver.local_addr().expect("it is bound");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let mut bytes = [0; 64];
    let queued = added("a datagram over lo, all metrics", &Group::ALL, &mut || {
        per(60_000, || {
            for _ in 0..60_000 {
                sender.send_to(&[1; 32], to).expect("it is sent");
                receiver.recv(&mut bytes).expect("it is there");
            }
        })
    });
    let closed = "127.0.0.1:9".parse().expect("an address");
    let dropped = added("a datagram to a closed port, drops", &[Group::Drops], &mut || {
        per(60_000, || datagrams(&sender, closed, 60_000))
    });
    let Some(mut ring) = Ring::open(64) else { return println!("skipped: no io_uring here") };
    let operation = added("a NOP, io_uring", &[Group::Uring], &mut || {
        per(200_000, || {
            for _ in 0..4_000 {
                ring.submit_nops(50);
                ring.reap();
            }
        })
    });
    // Six programs meet a segment: calls of them are in this, and in no account.
    for (what, ns, most) in [
        ("a segment", segments, 2.0 * SEGMENT_NS as f64),
        ("a datagram", queued, 2.0 * SEGMENT_NS as f64),
        ("a drop", dropped, RUN_NS as f64),
        ("an operation", operation, OPERATION_NS as f64),
    ] {
        assert!(ns <= most, "{what}: {ns:.0} ns");
    }
}

/// Nanoseconds of each of so many.
fn per(times: u32, work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_nanos() as f64 / f64::from(times)
}

fn added(what: &str, groups: &[Group], work: &mut impl FnMut() -> f64) -> f64 {
    const PAIRS: usize = 15;
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut pairs = Vec::new();
    work();
    for number in 0..PAIRS {
        // The other way round each time: what grows or shrinks meanwhile is in both.
        let mut pair = [0.0; 2];
        for half in [number % 2, (number + 1) % 2] {
            let probe = (half == 1).then(|| Probe::start(groups, 1).expect("it can run"));
            pair[half] = work();
            drop(probe);
        }
        pairs.push((pair[0], pair[1]));
    }
    let without = median(pairs.iter().map(|(without, _)| *without).collect());
    let added = median(pairs.iter().map(|(without, with)| with - without).collect());
    println!("{what}: {without:.0} ns without, {added:.0} ns more with");
    added
}
