//! The generator with protocols that have a life of their own: greetings, control frames, replies in
//! another order than requests.

use view::Output;

use super::streams::frame;
use super::*;
use crate::load::generator::{Batch, Generator};
use crate::load::{Arrivals, Target};

fn generator(protocol: Protocol, arrivals: Arrivals) -> Generator {
    let mut workload = Workload::new(protocol, 1);
    workload.arrivals = arrivals;
    workload.connections = 1;
    Generator::new(&workload, &[Target::all_keys(([127, 0, 0, 1], 1).into())])
}

/// What leaves next.
fn next(generator: &mut Generator) -> Option<(Batch, Vec<u8>)> {
    let batch = generator.next_batch()?;
    let mut out = Output::default();
    generator.fill(batch, &mut out);
    generator.on_sent(batch.conn);
    Some((batch, out.inline().to_vec()))
}

#[test]
fn a_greeting_leaves_before_the_first_request() {
    for protocol in [Protocol::Resp3, Protocol::Http2] {
        let open = Arrivals::Open { rate: 1.0, poisson: false };
        let mut generator = generator(protocol, open);
        generator.start(1_000);
        let (_, bytes) = next(&mut generator).expect("a greeting");
        assert!(bytes.starts_with(resp::HELLO) || bytes.starts_with(b"PRI * "));
        assert_eq!(next(&mut generator), None, "nothing has arrived yet");
        let reply =
            if protocol == Protocol::Resp3 { HELLO_REPLY.to_vec() } else { frame(4, 0, 0, &[]) };
        generator.on_bytes(0, &reply, 2_000);
        let owed = next(&mut generator).map(|(_, bytes)| bytes);
        let expected = (protocol == Protocol::Http2).then(|| frame(4, 1, 0, &[]));
        assert_eq!(owed, expected);
        assert_eq!(generator.broken(), None);
        assert_eq!(generator.take_tally().replies, 0, "a greeting is no request");
    }
}

#[test]
fn times_follow_the_streams_whatever_the_order_of_replies() {
    let mut generator = generator(Protocol::Http2, Arrivals::Open { rate: 1e6, poisson: false });
    generator.start(0);
    generator.arrive(3_000);
    let (_, bytes) = next(&mut generator).expect("four requests");
    let heads = bytes.windows(5).filter(|part| part[3..] == [1, 5]).count();
    assert_eq!(heads, 4);
    let ok = |stream| frame(1, 5, stream, &[0x88]);
    // Intended at 0, 1, 2 and 3 µs; the second, the fourth, the first, the third.
    let mut seen = Vec::new();
    for (stream, now_ns) in [(3, 5_000), (7, 6_000), (1, 7_000), (5, 8_000)] {
        generator.on_bytes(0, &ok(stream), now_ns);
        let tally = generator.take_tally();
        assert_eq!((tally.replies, tally.wrong), (1, 0), "{tally:?}");
        seen.push(tally.latency.max() / 100);
    }
    assert_eq!(seen, [40, 30, 70, 60]);
    assert!(generator.is_quiet());
    generator.arrive(4_000);
    next(&mut generator).expect("the fifth");
    generator.on_bytes(0, &ok(9), 9_000);
    assert!((4_990..=5_010).contains(&generator.take_tally().latency.max()));
}

#[test]
fn a_pipeline_beyond_what_the_server_allows_leaves_as_streams_end() {
    let mut generator = generator(Protocol::Http2, Arrivals::Closed { pipeline: 3 });
    generator.start(0);
    generator.on_bytes(0, &frame(4, 0, 0, &[0, 3, 0, 0, 0, 2]), 1);
    let requests = |bytes: &[u8]| bytes.windows(5).filter(|part| part[3..] == [1, 5]).count();
    let (_, bytes) = next(&mut generator).expect("two of three");
    assert_eq!(requests(&bytes), 2);
    assert_eq!(next(&mut generator), None, "no stream is free");
    generator.on_bytes(0, &frame(1, 5, 3, &[0x88]), 2);
    let (_, bytes) = next(&mut generator).expect("the third");
    assert_eq!(requests(&bytes), 1);
    let rest = [frame(1, 5, 1, &[0x88]), frame(1, 5, 5, &[0x88])].concat();
    generator.on_bytes(0, &rest, 3);
    let (_, bytes) = next(&mut generator).expect("the next pipeline");
    assert_eq!(requests(&bytes), 2);
    let tally = generator.take_tally();
    assert_eq!((tally.replies, tally.wrong, generator.broken()), (3, 0, None));
    generator.on_bytes(0, &frame(7, 0, 0, &[0; 8]), 4);
    assert!(generator.broken().is_some_and(|why| why.contains("GOAWAY")));
    assert_eq!(generator.take_tally().wrong, 3, "requests without a reply");
}
