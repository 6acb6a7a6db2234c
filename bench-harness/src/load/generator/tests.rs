//! The books against replies whose times are known.

use super::*;
use crate::clock::SECOND_NS;
use crate::load::KeyDist;
use crate::load::protocol::{Asked, Protocol};
use crate::load::zipf::tests::{chi_squared, shares};

fn target() -> Target {
    Target::all_keys(([127, 0, 0, 1], 1).into())
}

/// What the requests of a batch ask, and the right replies.
fn exchange(generator: &mut Generator, batch: Batch) -> (Vec<Asked>, Vec<u8>) {
    let mut out = Output::default();
    generator.fill(batch, &mut out);
    let sent = out.to_vec();
    let (mut rest, mut all, mut reply) = (&sent[..], Vec::new(), Vec::new());
    while !rest.is_empty() {
        let at = rest.windows(4).position(|part| part == b"key:").expect("a key") + 4;
        let number = std::str::from_utf8(&rest[at..at + 12]).expect("digits");
        let asked = Asked { key: number.parse().expect("digits"), set: rest.starts_with(b"*3") };
        let mut request = Vec::new();
        generator.codec.encode(asked, &mut request);
        rest = rest.strip_prefix(&request[..]).expect("a request of the codec");
        if asked.set {
            reply.extend_from_slice(b"+OK\r\n");
        } else {
            let len = generator.codec.values.len_bytes();
            reply.extend_from_slice(format!("${len}\r\n").as_bytes());
            generator.codec.values.write(asked.key, &mut reply);
            reply.extend_from_slice(b"\r\n");
        }
        all.push(asked);
    }
    assert_eq!(all.len(), batch.count as usize);
    (all, reply)
}

/// Right replies to the requests of a batch.
fn replies(generator: &mut Generator, batch: Batch) -> Vec<u8> {
    exchange(generator, batch).1
}

#[test]
fn a_closed_loop_keeps_one_pipeline_in_flight() {
    let mut workload = Workload::new(Protocol::Resp, 4);
    workload.connections = 3;
    workload.set_share = 0.3;
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(1_000);
    let batches: Vec<Batch> = std::iter::from_fn(|| generator.next_batch()).collect();
    assert_eq!(batches.len(), 3);
    for batch in batches {
        assert_eq!(batch.count, 4);
        let reply = replies(&mut generator, batch);
        generator.on_sent(batch.conn);
        let (head, tail) = reply.split_at(reply.len() - 3);
        generator.on_bytes(batch.conn, head, 3_000);
        assert_eq!(generator.next_batch(), None, "the last reply is not complete");
        generator.on_bytes(batch.conn, tail, 5_000);
        let next = generator.next_batch().expect("all replies are there");
        assert_eq!((next.conn, next.count), (batch.conn, 4));
    }
    let tally = generator.take_tally();
    assert_eq!((tally.replies, tally.wrong, tally.misses), (12, 0, 0), "{tally:?}");
    assert_eq!(tally.latency.len(), 12);
    assert!((3_990..=4_010).contains(&tally.latency.max()));
    assert_eq!(generator.take_tally().replies, 0);
    generator.stop();
    assert!(!generator.is_quiet());
}

#[test]
fn an_open_loop_counts_from_the_intended_time() {
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = 2;
    workload.arrivals = Arrivals::Open { rate: 1e6, poisson: false };
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    // The transport was away for ten microseconds: eleven arrivals are due.
    assert_eq!(generator.arrive(10_000), Some(11_000));
    let batches: Vec<Batch> = std::iter::from_fn(|| generator.next_batch()).collect();
    assert_eq!(batches.iter().map(|batch| batch.count).sum::<u32>(), 11);
    for batch in batches {
        let reply = replies(&mut generator, batch);
        generator.on_sent(batch.conn);
        generator.on_bytes(batch.conn, &reply, 20_000);
    }
    assert!(generator.is_quiet());
    let tally = generator.take_tally();
    assert_eq!((tally.offered, tally.replies, tally.missed), (11, 11, 0));
    assert!((19_980..=20_020).contains(&tally.latency.max()), "{}", tally.latency.max());
    assert!((9_990..=10_010).contains(&tally.lag.max()));
    assert!((9_990..=10_010).contains(&tally.latency.min()));
    // All were handed over at once, when the transport was back.
    assert_eq!(tally.started, 11);
    assert!((9_990..=10_010).contains(&tally.service.min()));
    assert!((9_990..=10_010).contains(&tally.service.max()));
}

#[test]
fn requests_without_a_reply_are_counted_with_what_they_have_waited() {
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = 1;
    workload.arrivals = Arrivals::Open { rate: 1e6, poisson: false };
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    generator.arrive(500);
    let batch = generator.next_batch().expect("due");
    let reply = replies(&mut generator, batch);
    generator.on_sent(0);
    generator.on_bytes(0, &reply, 600);
    // Nothing is answered any more.
    generator.arrive(9_000);
    let tally = generator.close_books(9_000);
    assert_eq!((tally.replies, tally.unanswered, tally.oldest_unanswered_ns), (1, 9, 8_000));
    assert_eq!(tally.latency.len(), 9, "one waits for less than the p99 of the answered");
    assert!(tally.latency.max() >= 7_990);
}

#[test]
fn poisson_arrivals_have_the_rate_asked_for() {
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = 1000;
    workload.arrivals = Arrivals::Open { rate: 50_000.0, poisson: true };
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    generator.arrive(SECOND_NS);
    let offered = generator.take_tally().offered;
    assert!((49_000..51_000).contains(&offered), "{offered}");
}

#[test]
fn a_server_that_does_not_answer_makes_arrivals_missed() {
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = 1;
    workload.arrivals = Arrivals::Open { rate: 1e6, poisson: false };
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    generator.arrive(10_000_000);
    let tally = generator.take_tally();
    assert_eq!(tally.offered, 10_001);
    assert_eq!(tally.missed, 10_001 - u64::from(IN_FLIGHT_MAX));
}

#[test]
fn wrong_replies_are_counted_and_nonsense_ends_the_connection() {
    let mut workload = Workload::new(Protocol::Resp, 2);
    workload.connections = 1;
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    let batch = generator.next_batch().expect("due");
    generator.on_sent(batch.conn);
    generator.on_bytes(0, b"-ERR a\r\n$-1\r\n", 5);
    let tally = generator.take_tally();
    assert_eq!((tally.replies, tally.wrong, tally.misses), (2, 1, 1));
    assert_eq!(tally.first_wrong.as_deref(), Some("-ERR a"));
    generator.on_bytes(0, b"nonsense\r\n", 6);
    assert!(generator.broken().is_some());
    assert!(generator.is_quiet(), "a dead connection waits for nothing");
}

/// One connection that draws, in closed loop.
fn drawn(pipeline: u32, dist: &str) -> Workload {
    let mut workload = Workload::new(Protocol::Resp, pipeline);
    workload.connections = 1;
    workload.key_dist = dist.parse().expect("a form");
    workload
}

#[test]
fn what_leaves_follows_the_law_and_never_goes_round() {
    let mut workload = drawn(1_000, "zipfian-ordered:0.99");
    (workload.keys, workload.value_len_bytes) = (10_000, 8);
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    let mut counts = vec![0_u64; 10_000];
    let mut lines = Vec::new();
    while lines.len() < 300_000 {
        let batch = generator.next_batch().expect("the next pipeline");
        let (all, reply) = exchange(&mut generator, batch);
        all.iter().for_each(|asked| counts[asked.key as usize] += 1);
        lines.extend(all.iter().map(|asked| asked.key));
        generator.on_sent(0);
        generator.on_bytes(0, &reply, 5);
    }
    let law = shares(10_000, 0.99);
    assert!(chi_squared(&counts, &law) < 4.0);
    let draws = i32::try_from(lines.len()).expect("few");
    let expected: f64 = law.iter().map(|share| 1.0 - (1.0 - share).powi(draws)).sum();
    let distinct = counts.iter().filter(|&&count| count > 0).count() as f64;
    assert!((distinct / expected - 1.0).abs() < 0.01, "{distinct} keys for {expected}");
    // An arena of that many bytes would have begun again by now.
    assert_ne!(lines[..1_000], lines[arena::ARENA_MAX_REQUESTS..][..1_000]);
    assert_eq!(generator.take_tally().wrong, 0);
}

#[test]
fn drawn_requests_leave_in_batches_of_a_bound() {
    let mut workload = drawn(1_000, "zipfian");
    (workload.set_share, workload.value_len_bytes) = (1.0, 1_000);
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    let mut left = 1_000;
    while left > 0 {
        let batch = generator.next_batch().expect("the rest of the pipeline");
        assert_eq!(generator.next_batch(), None, "one batch at a time");
        let mut out = Output::default();
        generator.fill(batch, &mut out);
        assert!(out.len() <= BATCH_MAX_BYTES && batch.count == left.min(62), "{}", batch.count);
        left -= batch.count;
        generator.on_sent(0);
    }
    // A value beyond the bound leaves alone.
    workload.value_len_bytes = BATCH_MAX_BYTES;
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    assert_eq!(generator.next_batch().map(|batch| batch.count), Some(1));
}

#[test]
fn a_write_follows_its_read_and_both_and_the_pair_have_their_times() {
    let mut workload = drawn(1, "zipfian");
    workload.rmw_share = 1.0;
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    let mut read = None;
    // A read takes 1 µs, a write 3 µs.
    let mut now_ns = 0;
    for step in 0..20 {
        let batch = generator.next_batch().expect("the next request");
        let (all, reply) = exchange(&mut generator, batch);
        generator.on_sent(0);
        match read.take() {
            None => read = Some(all[0].key),
            Some(key) => assert_eq!(all, [Asked { key, set: true }], "step {step}"),
        }
        assert_eq!(all[0].set, step % 2 == 1);
        now_ns += if all[0].set { 3_000 } else { 1_000 };
        generator.on_bytes(0, &reply, now_ns);
    }
    let kinds = generator.take_tally().kinds.expect("they are told apart");
    for (histogram, ns) in [(kinds.reads, 1_000), (kinds.writes, 3_000), (kinds.pairs, 4_000)] {
        assert_eq!(histogram.len(), 10);
        assert!(histogram.min().abs_diff(ns) < 10 && histogram.max().abs_diff(ns) < 10);
    }
    assert!(generator.take_tally().kinds.is_some_and(|kinds| kinds.reads.is_empty()));
}

#[test]
fn a_pipeline_owes_its_writes_to_the_next() {
    let mut workload = drawn(4, "sequential");
    workload.rmw_share = 1.0;
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    let mut pipelines = Vec::new();
    for now_ns in 1..=3 {
        let batch = generator.next_batch().expect("the next pipeline");
        let (all, reply) = exchange(&mut generator, batch);
        generator.on_sent(0);
        generator.on_bytes(0, &reply, now_ns);
        pipelines.push(all.iter().map(|asked| (asked.key, asked.set)).collect::<Vec<_>>());
    }
    let keys = |from: u32, set| (from..from + 4).map(|key| (key, set)).collect::<Vec<_>>();
    assert_eq!(pipelines, [keys(0, false), keys(0, true), keys(4, false)]);
}

#[test]
fn inserts_of_all_connections_are_read_when_they_are_there() {
    let mut workload = drawn(2, "latest");
    (workload.connections, workload.keys, workload.set_share) = (20, 100, 0.2);
    workload.inserts = true;
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    let mut there = vec![true; 100];
    let mut waiting: Vec<(Batch, Vec<Asked>, Vec<u8>)> = Vec::new();
    let mut rng = Rng::new(3);
    let mut read_new = 0;
    for now_ns in 1..5_000 {
        while let Some(batch) = generator.next_batch() {
            let (all, reply) = exchange(&mut generator, batch);
            generator.on_sent(batch.conn);
            for asked in all.iter().filter(|asked| !asked.set) {
                assert_eq!(there.get(asked.key as usize), Some(&true), "key {}", asked.key);
                read_new += u32::from(asked.key >= 100);
            }
            waiting.push((batch, all, reply));
        }
        let at = usize::try_from(rng.below(waiting.len() as u64)).expect("few");
        let (batch, all, reply) = waiting.swap_remove(at);
        generator.on_bytes(batch.conn, &reply, now_ns);
        for asked in all.iter().filter(|asked| asked.set) {
            let key = asked.key as usize;
            there.resize(there.len().max(key + 1), false);
            assert!(!std::mem::replace(&mut there[key], true), "key {key} was there before");
        }
    }
    assert!(there.len() > 1_500 && read_new > 3_000, "{} {read_new}", there.len());
    assert_eq!(generator.take_tally().wrong, 0);
}

#[test]
fn an_open_loop_draws_as_well_and_uniform_keys_are_not_drawn() {
    let mut workload = drawn(1, "hotspot");
    workload.arrivals = Arrivals::Open { rate: 1e6, poisson: false };
    let mut generator = Generator::new(&workload, &[target()]);
    generator.start(0);
    generator.arrive(10_000);
    let batch = generator.next_batch().expect("eleven are due");
    let (all, reply) = exchange(&mut generator, batch);
    generator.on_sent(0);
    generator.on_bytes(0, &reply, 20_000);
    let tally = generator.take_tally();
    assert_eq!((all.len(), tally.latency.len()), (11, 11));
    assert_eq!(tally.kinds.expect("drawn").reads, tally.latency);
    workload.key_dist = KeyDist::Uniform;
    let mut generator = Generator::new(&workload, &[target()]);
    assert!(generator.take_tally().kinds.is_none());
}
