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
use bpf::programs;
use rustix::time::{ClockId, clock_gettime};

use super::ring::{ASYNC, LINK, Op, READ, Ring};
use super::{can_run, lab};

/// Of a run of any program.
const RUN_NS: u64 = 250;
/// Of all that one segment meets.
const SEGMENT_NS: u64 = 250;
/// Of an operation of a ring, from its begin to its end.
const OPERATION_NS: u64 = 300;
/// Of the call of a program, which is in no account of it, with the kernel's guards against speculation.
const CALL_NS: u64 = 60;
/// Of a fault's program that is not in force.
const UNARMED_NS: u128 = 100;
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
    let lab = lab();
    lab::run(&format!("tc -n {} qdisc add dev lo root pfifo", lab.client));
    let mut pair = lab.on_client(Pair::connect);
    let queued = costs(&Group::ALL, || pair.exchange(100_000));
    let sum = show("the same over a device with a queue", &queued, 200_000);
    println!("  an ordinary segment meets those of 100,000 runs and more: {sum} ns");
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

/// By runs of the kernel's own, which need no account: no fault in force, one that is over, and one that is for others.
#[test]
#[ignore = "measures, and means something only alone"]
fn a_packet_that_no_fault_is_for_costs_little() {
    use bpf::abi::{Arm, Fault, MODE_ARMED, Selector};
    if !can_run() {
        return;
    }
    let object = programs::load("tc").expect("it can run");
    let map = programs::map(&object, "fault").expect("it has one");
    let program = programs::program(&object, "packet").expect("it has one");
    // Ethernet, IPv4 and UDP from port 1 to port 2, in a minimal frame.
    let mut frame = [0_u8; 60];
    frame[12] = 8;
    frame[14..16].copy_from_slice(&[0x45, 0]);
    frame[17] = 46;
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[35] = 1;
    frame[37] = 2;
    frame[39] = 26;
    let any = [0, u16::MAX];
    let selector =
        Selector { sport: any, dport: [9, 9], port: any, len: any, ..Selector::default() };
    let arm = |deadline_ns| Arm { deadline_ns, mode: MODE_ARMED, ..Arm::default() };
    let fault = |arm| Fault { arm, selector, action: 1, l2_len: 14, ..Fault::default() };
    for (what, fault, most) in [
        ("none in force", Fault::default(), UNARMED_NS),
        ("its time is over", fault(arm(1)), UNARMED_NS),
        ("in force for another port", fault(arm(u64::MAX)), u128::from(RUN_NS)),
    ] {
        programs::write(&map, 0, &fault).expect("it is written");
        let input = || libbpf_rs::ProgramInput {
            data_in: Some(&frame),
            repeat: 1_000_000,
            ..libbpf_rs::ProgramInput::default()
        };
        let of = |_| program.test_run(input()).expect("it runs").duration;
        let ns = (0..5).map(of).min().expect("some").as_nanos();
        println!("net.loss on a packet, {what}: {ns} ns");
        assert!(ns <= most, "{what}: {ns} ns");
    }
    let counts: Vec<bpf::abi::Counts> =
        programs::read_per_cpu(&programs::map(&object, "counts").expect("it has one"), 0)
            .expect("it is read");
    let sum = |of: fn(&bpf::abi::Counts) -> u64| counts.iter().map(of).sum::<u64>();
    assert_eq!(
        (sum(|one| one.seen), sum(|one| one.matched)),
        (5_000_000, 0),
        "in force it saw all"
    );
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

/// What the probes add, calls of them included: pairs of runs with and without them, one after the other, of which the
/// median of the differences is taken.
#[test]
#[ignore = "measures, and means something only alone"]
fn clocks_agree_with_the_account() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::connect();
    let usual =
        added("a segment over lo, what is measured by default", &Group::DEFAULT, &mut || {
            per(60_000, || pair.exchange(30_000))
        });
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
    // Six programs meet a segment with all metrics, and one by default; five meet a datagram.
    for (what, ns, most) in [
        ("a segment", usual, SEGMENT_NS),
        ("a segment, all metrics", segments, SEGMENT_NS + 6 * CALL_NS),
        ("a datagram", queued, SEGMENT_NS + 5 * CALL_NS),
        ("a drop", dropped, RUN_NS),
        ("an operation", operation, OPERATION_NS),
    ] {
        let most = most as f64;
        assert!(ns <= most, "{what}: {ns:.0} ns");
    }
}

/// Nanoseconds of each of so many: by the wall clock, and of this thread's processor, which others cannot take.
fn per(times: u32, work: impl FnOnce()) -> [f64; 2] {
    let spent = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let (begin, before) = (Instant::now(), spent());
    work();
    let (wall, own) = (begin.elapsed().as_nanos() as f64, spent() - before);
    [wall, own].map(|ns| ns / f64::from(times))
}

/// What is added by the thread's own clock; the wall clock's is shown beside it.
fn added(what: &str, groups: &[Group], work: &mut impl FnMut() -> [f64; 2]) -> f64 {
    const PAIRS: usize = 15;
    let mut pairs = Vec::new();
    work();
    for number in 0..PAIRS {
        // The other way round each time: what grows or shrinks meanwhile is in both.
        let mut pair = [[0.0; 2]; 2];
        for half in [number % 2, (number + 1) % 2] {
            let probe = (half == 1).then(|| Probe::start(groups, 1).expect("it can run"));
            pair[half] = work();
            drop(probe);
        }
        pairs.push(pair);
    }
    let median = |of: &dyn Fn(&[[f64; 2]; 2]) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[PAIRS / 2]
    };
    let of = |clock: usize| {
        (median(&|pair| pair[0][clock]), median(&|pair| pair[1][clock] - pair[0][clock]))
    };
    let ((wall, more_wall), (own, more)) = (of(0), of(1));
    println!(
        "{what}: {wall:.0} ns, with the probes {more_wall:.0} more; of the thread {own:.0} ns, {more:.0} more"
    );
    more
}
