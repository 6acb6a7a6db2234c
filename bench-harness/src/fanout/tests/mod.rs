//! Publishers and subscribers in a time of our own, and against a small server that loses, repeats, swaps and spoils.

mod bed;

use view::Output;

use super::crowd::{Crowd, DUE_MAX, Faults};
use super::message::{Head, Messages};
use super::*;
use crate::clock::MILLISECOND_NS;
use crate::load::driven::Driven;
use bed::{Bed, Fault};

fn plan(protocol: PubSub, pace: Pace) -> Plan {
    Plan {
        protocol,
        publishers: 2,
        subscribers: 3,
        channels: 2,
        message_len_bytes: 64,
        pace,
        slow: SlowPlan::default(),
        seed: 1,
    }
}

const CLOSED: Pace = Pace::Closed { depth: 1 };
const OPEN: Pace = Pace::Open { rate: 1e6, poisson: false };

fn crowd(plan: &Plan) -> Crowd {
    let mut crowd = Crowd::new(plan, ([127, 0, 0, 1], 1).into());
    for _ in 0..crowd.addresses().len() {
        let mut out = Output::default();
        let conn = crowd.next(&mut out).expect("a greeting");
        crowd.on_sent(conn);
        assert!(!crowd.is_ready());
        let name = PubSub::channel(conn.saturating_sub(plan.publishers) / plan.subscribers);
        let answer = match (plan.protocol, conn < plan.publishers) {
            (PubSub::Nats, _) => "INFO {}\r\nPONG\r\n".to_owned(),
            (PubSub::Resp, true) => "+PONG\r\n".to_owned(),
            (PubSub::Resp, false) => {
                format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len())
            }
        };
        crowd.on_bytes(conn, answer.as_bytes(), 1);
    }
    assert!(crowd.is_ready() && crowd.next(&mut Output::default()).is_none());
    crowd
}

/// What leaves next: of which connection, and the channels and heads of its messages.
fn sent(crowd: &mut Crowd, plan: &Plan) -> Option<(usize, Vec<Head>)> {
    let mut out = Output::default();
    let conn = crowd.next(&mut out)?;
    crowd.on_sent(conn);
    let messages = Messages::new(plan.message_len_bytes);
    let bytes = out.to_vec();
    let mut rest = &bytes[..];
    let mut heads = Vec::new();
    while !rest.is_empty() {
        let before = (0..plan.channels)
            .map(|at| plan.protocol.publish_head(at, &messages))
            .find(|head| rest.starts_with(head))
            .expect("a channel of ours");
        let (message, after) = rest[before.len()..].split_at(messages.len_bytes());
        heads.push(messages.read(message).expect("as it was written"));
        rest = after.strip_prefix(b"\r\n").expect("its end");
    }
    Some((conn, heads))
}

/// Delivers a message to subscriber `at` of its channel.
fn deliver(crowd: &mut Crowd, plan: &Plan, head: Head, at: usize, now_ns: u64) {
    let messages = Messages::new(plan.message_len_bytes);
    let channel = head.channel as usize;
    let mut bytes = plan.protocol.delivery_head(channel, &messages);
    messages.write(head, &mut bytes);
    bytes.extend_from_slice(b"\r\n");
    crowd.on_bytes(plan.publishers + channel * plan.subscribers + at, &bytes, now_ns);
}

#[test]
fn a_closed_loop_sends_the_next_when_one_has_reached_everybody() {
    for protocol in [PubSub::Resp, PubSub::Nats] {
        let plan = Plan { pace: Pace::Closed { depth: 2 }, ..plan(protocol, CLOSED) };
        let mut crowd = crowd(&plan);
        crowd.start(1_000);
        crowd.record(0..u64::MAX);
        assert_eq!(crowd.arrive(2_000), None);
        let (conn, first) = sent(&mut crowd, &plan).expect("two messages");
        let channels: Vec<u32> = first.iter().map(|head| head.channel).collect();
        assert_eq!((conn, channels), (0, vec![0, 1]), "round the channels");
        let (conn, second) = sent(&mut crowd, &plan).expect("two of the other");
        let channels: Vec<u32> = second.iter().map(|head| head.channel).collect();
        assert_eq!((conn, channels), (1, vec![1, 0]), "from another one on");
        assert!(sent(&mut crowd, &plan).is_none());
        assert_eq!(crowd.faults().lost, 4 * 3, "on their way");
        for at in 0..2 {
            deliver(&mut crowd, &plan, first[0], at, 3_000);
        }
        assert!(sent(&mut crowd, &plan).is_none(), "one subscriber has not got it");
        deliver(&mut crowd, &plan, first[0], 2, 5_000);
        let (conn, next) = sent(&mut crowd, &plan).expect("the next");
        let expected = Head { publisher: 0, channel: 0, number: 1, intended_ns: 5_000 };
        assert_eq!((conn, &next[..]), (0, &[expected][..]));
        let books = crowd.take_books();
        assert_eq!((books.published, books.deliveries, books.offered), (5, 3, 0));
        assert_eq!((crowd.latency().len(), crowd.broken()), (3, None));
        assert!((3_995..=4_005).contains(&crowd.latency().max()));
    }
}

#[test]
fn an_open_loop_counts_from_the_intended_time_of_what_is_recorded() {
    let plan = plan(PubSub::Nats, OPEN);
    let mut crowd = crowd(&plan);
    crowd.start(0);
    crowd.record(1_000..3_000);
    // The transport was away: messages of 0, 1, 2 and 3 us are due.
    assert_eq!(crowd.arrive(3_000), Some(4_000));
    let mut heads = Vec::new();
    while let Some((_, some)) = sent(&mut crowd, &plan) {
        heads.extend(some);
    }
    let mut intended: Vec<u64> = heads.iter().map(|head| head.intended_ns).collect();
    intended.sort_unstable();
    assert_eq!(intended, [0, 1_000, 2_000, 3_000]);
    assert!(!crowd.is_quiet());
    for head in heads {
        (0..3).for_each(|at| deliver(&mut crowd, &plan, head, at, 9_000));
    }
    assert!(crowd.is_quiet());
    assert_eq!((crowd.latency().len(), crowd.take_books().deliveries), (6, 12));
    assert!((6_990..=7_010).contains(&crowd.latency().min()));
    assert!((7_990..=8_010).contains(&crowd.latency().max()));
    assert_eq!(crowd.faults(), Faults::default());
    crowd.stop();
    assert_eq!(crowd.arrive(1_000_000), None);
}

#[test]
fn what_is_due_beyond_the_bound_is_missed() {
    let plan = Plan { publishers: 1, ..plan(PubSub::Resp, OPEN) };
    let mut crowd = crowd(&plan);
    crowd.start(0);
    // Its batch has not left.
    let most = DUE_MAX as u64;
    crowd.arrive((most - 1) * 1_000);
    assert_eq!(crowd.take_books().missed, 0);
    crowd.arrive(most * 1_000);
    let books = crowd.take_books();
    assert_eq!((books.offered, books.missed), (1, 1));
}

#[test]
fn each_fault_is_counted_as_what_it_is() {
    let plan = Plan { pace: Pace::Closed { depth: 8 }, ..plan(PubSub::Resp, CLOSED) };
    let mut crowd = crowd(&plan);
    crowd.start(0);
    let (_, heads) = sent(&mut crowd, &plan).expect("eight messages");
    let on_first: Vec<Head> = heads.into_iter().filter(|head| head.channel == 0).collect();
    assert_eq!(on_first.len(), 4);
    let [a, b, c, d] = on_first[..] else { panic!("four") };
    // Nothing went to the other channel; two subscribers of this one get all.
    for (at, order) in [(0, vec![a, b, c, d]), (1, vec![a, b, c, d]), (2, vec![b, a, a, d])] {
        order.into_iter().for_each(|head| deliver(&mut crowd, &plan, head, at, 10));
    }
    let faults = crowd.faults();
    assert_eq!((faults.duplicated, faults.reordered, faults.wrong), (1, 1, 0));
    // The one that was passed over, and four of the other channel for three subscribers; the other publisher sent none.
    assert_eq!(faults.lost, 1 + 4 * 3);
    deliver(&mut crowd, &plan, Head { number: 9, ..a }, 0, 10);
    deliver(&mut crowd, &plan, Head { publisher: 2, ..a }, 0, 10);
    // It arrives on channel 0 and says that it went to channel 1.
    let messages = Messages::new(64);
    let mut bytes = plan.protocol.delivery_head(0, &messages);
    messages.write(Head { channel: 1, ..a }, &mut bytes);
    bytes.extend_from_slice(b"\r\n");
    let at = bytes.len() - 3;
    crowd.on_bytes(2, &bytes, 10);
    bytes[at] ^= 1;
    crowd.on_bytes(2, &bytes, 10);
    assert_eq!((crowd.faults().wrong, crowd.broken()), (4, None));
    assert!(crowd.first_wrong().is_some_and(|first| first.contains("number: 9")));
}

#[test]
fn what_a_nats_server_asks_is_answered() {
    let plan = plan(PubSub::Nats, OPEN);
    let mut crowd = crowd(&plan);
    for conn in [0, 4] {
        crowd.on_bytes(conn, b"PING\r\nPI", 5);
        let mut out = Output::default();
        assert_eq!(crowd.next(&mut out), Some(conn));
        assert_eq!(out.to_vec(), b"PONG\r\n");
        crowd.on_bytes(conn, b"NG\r\n", 5);
        assert_eq!(crowd.next(&mut Output::default()), None, "the first has not left");
        crowd.on_sent(conn);
        assert_eq!(crowd.next(&mut Output::default()), Some(conn));
        crowd.on_sent(conn);
    }
    crowd.on_bytes(4, b"-ERR 'Slow Consumer'\r\n", 6);
    let why = crowd.broken().expect("it is over");
    assert!(
        why.starts_with("subscriber 2 of channel 0: ") && why.contains("Slow Consumer"),
        "{why}"
    );
}

#[test]
fn plans_are_held_to_their_limits() {
    let base = plan(PubSub::Resp, CLOSED);
    base.check().expect("small");
    let most = Plan { publishers: 1, channels: 1, subscribers: CONNECTIONS_MAX - 1, ..base };
    most.check().expect("as many as there may be");
    let pairs = Plan { publishers: 1024, channels: 1, subscribers: 1024, ..base };
    pairs.check().expect("as many as there may be");
    let len = |message_len_bytes| Plan { message_len_bytes, ..base };
    len(HEAD_LEN_BYTES).check().expect("the shortest");
    len(MESSAGE_MAX_BYTES).check().expect("the longest");
    let pace = |pace| Plan { pace, ..base };
    pace(Pace::Closed { depth: DEPTH_MAX }).check().expect("the deepest");
    pace(Pace::Open { rate: RATE_MAX, poisson: true }).check().expect("the fastest");
    let slow = |count| Plan { slow: SlowPlan { count, bytes_per_s: 0 }, ..most };
    for (wrong, says) in [
        (Plan { subscribers: 0, ..base }, "at least one"),
        (slow(1), "connections: at most"),
        (Plan { subscribers: usize::MAX, ..base }, "connections: at most"),
        (Plan { publishers: 1025, ..pairs }, "pairs"),
        (len(HEAD_LEN_BYTES - 1), "a message has from 24"),
        (len(MESSAGE_MAX_BYTES + 1), "a message has from 24"),
        (pace(Pace::Closed { depth: 0 }), "a depth is from 1"),
        (pace(Pace::Closed { depth: DEPTH_MAX + 1 }), "a depth is from 1"),
        (pace(Pace::Open { rate: 0.0, poisson: true }), "a rate is above 0"),
        (pace(Pace::Open { rate: f64::NAN, poisson: true }), "a rate is above 0"),
    ] {
        let error = wrong.check().expect_err("beyond a limit").to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// A short run against a server of this process.
fn run(bed: &Bed, plan: &Plan, spin: bool) -> Result<Outcome> {
    let server = Server::watch(std::process::id()).expect("this process");
    let timing = Timing { warmup_ns: 30 * MILLISECOND_NS, duration_ns: 150 * MILLISECOND_NS };
    trial::run(plan, bed.addr, &server, spin, timing)
}

#[test]
fn a_good_server_delivers_all_of_it() {
    for protocol in [PubSub::Resp, PubSub::Nats] {
        let bed = Bed::start(protocol, Fault::None);
        for pace in [
            CLOSED,
            Pace::Closed { depth: 8 },
            Pace::Open { rate: 2_000.0, poisson: true },
            Pace::Open { rate: 2_000.0, poisson: false },
        ] {
            for (len, spin) in [(24, false), (64, true), (20_000, false)] {
                let plan = Plan { message_len_bytes: len, ..plan(protocol, pace) };
                let outcome = run(&bed, &plan, spin)
                    .unwrap_or_else(|error| panic!("{protocol:?} {pace:?} {len}: {error:#}"));
                assert_eq!(outcome.faults(), None, "{protocol:?} {pace:?} {len}");
                assert!(outcome.deliveries > 20, "{outcome:?}");
                assert!(
                    outcome.latency.p50_ns > 0 && outcome.latency.p999_ns >= outcome.latency.p50_ns
                );
                assert!(outcome.server_cpu_ns_per_delivery > 0.0);
                assert!(
                    matches!(pace, Pace::Closed { .. }) || outcome.offered > 100,
                    "{outcome:?}"
                );
            }
        }
    }
}

#[test]
fn a_bad_server_is_found_out() {
    for (fault, says) in [
        (Fault::Lose, "1 messages lost, 0 duplicated, 0 reordered, 0 wrong"),
        (Fault::Repeat, "0 messages lost, 1 duplicated, 0 reordered, 0 wrong"),
        (Fault::Swap, "0 messages lost, 0 duplicated, 1 reordered, 0 wrong"),
        (Fault::Spoil, "1 messages lost, 0 duplicated, 0 reordered, 1 wrong (channel 0"),
    ] {
        let bed = Bed::start(PubSub::Nats, fault);
        let open = Pace::Open { rate: 2_000.0, poisson: true };
        let plan = Plan { channels: 1, subscribers: 1, publishers: 1, ..plan(PubSub::Nats, open) };
        let outcome = run(&bed, &plan, false).expect("it runs to its end");
        let faults = outcome.faults().expect("it is noticed");
        assert!(faults.starts_with(says), "{fault:?}: {faults}");
    }
    let bed = Bed::start(PubSub::Resp, Fault::Leave);
    let error = run(&bed, &plan(PubSub::Resp, CLOSED), false).expect_err("it leaves");
    assert!(format!("{error:#}").contains("closed by the server"), "{error:#}");
}

#[test]
fn slow_subscribers_make_a_server_grow_and_see_whether_it_lets_them_go() {
    for (fault, bytes_per_s, dropped) in [(Fault::None, 0, 0), (Fault::DropSlow, 100_000, 2)] {
        let bed = Bed::start(PubSub::Resp, fault);
        let slow = SlowPlan { count: 2, bytes_per_s };
        let pace = Pace::Closed { depth: 4 };
        let plan = Plan { message_len_bytes: 100_000, slow, ..plan(PubSub::Resp, pace) };
        let outcome = run(&bed, &plan, false).expect("it runs to its end");
        assert_eq!(outcome.faults(), None);
        let found = outcome.slow.expect("two");
        assert_eq!((found.count, found.dropped), (2, dropped), "{outcome:?}");
        if bytes_per_s == 0 {
            assert_eq!(found.read_bytes, 0);
            // What they do not read, beyond the buffers of sockets, waits in the memory of this very process.
            assert!(outcome.rss_growth_bytes > 1_000_000, "{outcome:?}");
        } else {
            assert!((1..300_000).contains(&found.read_bytes), "{outcome:?}");
        }
    }
}
