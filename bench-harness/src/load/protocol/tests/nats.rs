//! NATS: greetings, what a server says unasked, and subjects of connections.

use view::Output;

use super::super::nats::{CONNECTIONS_MAX, subject};
use super::*;
use crate::load::generator::Generator;
use crate::load::{Arrivals, Target};

const INFO: &[u8] =
    b"INFO {\"server_id\":\"x\",\"version\":\"2.9.10\",\"headers\":true,\"max_payload\":1048576}\r\n";

fn name(index: usize) -> String {
    String::from_utf8(subject(index).to_vec()).expect("text")
}

/// The line before a message of `len` bytes to connection `index`.
pub(super) fn message_head(index: usize, len: usize) -> String {
    format!("MSG {} 1 {len}\r\n", name(index))
}

fn greeted(codec: &Codec, index: usize) -> Ordered {
    match codec.decoder(index, 1) {
        Decoder::Ordered(decoder) => decoder,
        Decoder::Http2(_) => panic!("of another kind"),
    }
}

#[test]
fn subjects_differ_by_connection_and_have_one_length() {
    let names: std::collections::BTreeSet<String> = (0..5_000).map(name).collect();
    assert_eq!(names.len(), 5_000);
    assert_ne!(name(0), name(CONNECTIONS_MAX - 1));
    assert!(names.iter().all(|name| name.len() == 14 && name.starts_with("bench.")));
}

#[test]
fn the_greeting_subscribes_and_a_request_publishes_to_the_same_subject() {
    for len in [0, 1, 9, 10, 99, 100, 5_000] {
        let codec = codec(Protocol::Nats, len);
        let greeting = String::from_utf8(codec.greeting(7)).expect("text");
        let (connect, rest) = greeting.split_once("\r\n").expect("lines");
        assert!(connect.starts_with("CONNECT {\"verbose\":false,"), "{connect}");
        let json = connect.strip_prefix("CONNECT ").expect("JSON");
        serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        assert_eq!(rest, format!("SUB {} 1\r\n", name(7)));
        let mut requests = Vec::new();
        codec.encode(GET, &mut requests);
        codec.encode(SET, &mut requests);
        greeted(&codec, 7).address(&codec, &mut requests);
        let mut value = Vec::new();
        codec.values.write(GET.key, &mut value);
        let head = format!("PUB {} {len}\r\n", name(7));
        let one = [head.as_bytes(), &value, b"\r\n"].concat();
        assert_eq!(requests, one.repeat(2), "{len}");
    }
}

/// What a server says beside replies changes nothing of their verdicts, wherever it is cut.
#[test]
fn info_and_ping_may_come_at_any_time() {
    let codec = codec(Protocol::Nats, 16);
    let right = right(&codec, GET);
    let stream =
        [INFO, b"PING\r\n", &right, b"+OK\r\nPING\r\n", INFO, &right, b"PONG\r\n"].concat();
    for cut in 0..stream.len() {
        let mut decoder = greeted(&codec, 0);
        assert!(decoder.is_greeting() && !decoder.is_idle());
        let pieces = [&stream[..cut], &stream[cut..]].into_iter();
        let seen = verdicts(&codec, &mut decoder, &[GET], pieces, true);
        assert_eq!(seen, Ok(vec![Verdict::Right; 2]), "cut at {cut}");
        assert!(decoder.is_idle() && decoder.hears_unasked());
        let mut owed = Vec::new();
        assert!(decoder.pay(&mut owed));
        assert_eq!(owed, b"PONG\r\nPONG\r\n");
        assert!(!decoder.pay(&mut owed), "paid once");
    }
}

#[test]
fn a_greeting_that_cannot_be_met_says_why() {
    for (said, why) in [
        (&b"INFO {\"tls_required\":true}\r\n"[..], "tls_required"),
        (b"INFO {\"auth_required\":true}\r\n", "auth_required"),
        (b"INFO {\"max_payload\":15}\r\n", "max_payload"),
        (b"INFO {\r\n", "INFO {"),
        (b"PING\r\n", "greets with INFO"),
        (b"HTTP/1.1 400 Bad Request\r\n", "greets with INFO"),
        (b"-ERR 'Authorization Violation'\r\n", "Authorization"),
    ] {
        let codec = codec(Protocol::Nats, 16);
        let lost = greeted(&codec, 0).feed(&codec, GET, said).expect_err("refused");
        assert!(lost.0.contains(why), "{lost:?}");
    }
    let codec = codec(Protocol::Nats, 16);
    let info = b"INFO {\"max_payload\":16}\r\n";
    let fed = greeted(&codec, 0).feed(&codec, GET, info);
    assert_eq!(fed, Ok((info.len(), None)), "as long as it may be");
}

#[test]
fn pings_without_end_are_refused() {
    let codec = codec(Protocol::Nats, 16);
    let mut decoder = Ordered::new(Protocol::Nats);
    let pings = b"PING\r\n".repeat(1024);
    assert_eq!(decoder.feed(&codec, GET, &pings), Ok((pings.len(), None)));
    let error = decoder.feed(&codec, GET, b"PING\r\n").expect_err("one more");
    assert!(error.0.contains("1024 PINGs"), "{error:?}");
}

fn generator(arrivals: Arrivals, connections: usize, len: usize) -> Generator {
    let mut workload = Workload::new(Protocol::Nats, 1);
    workload.arrivals = arrivals;
    workload.connections = connections;
    workload.value_len_bytes = len;
    Generator::new(&workload, &[Target::all_keys(([127, 0, 0, 1], 1).into())])
}

/// What connection `conn` sends next.
fn next(generator: &mut Generator, conn: usize) -> Option<Vec<u8>> {
    let batch = generator.next_batch()?;
    assert_eq!(batch.conn, conn);
    let mut out = Output::default();
    generator.fill(batch, &mut out);
    generator.on_sent(conn);
    Some(out.to_vec())
}

/// What a server sends back to `sent`.
fn delivered(sent: &[u8], conn: usize) -> Vec<u8> {
    let from = sent.windows(4).position(|part| part == b"PUB ").expect("a request");
    let text = String::from_utf8(sent[from..].to_vec()).expect("text");
    let subject = name(conn);
    text.replace(&format!("PUB {subject} "), &format!("MSG {subject} 1 ")).into_bytes()
}

#[test]
fn each_connection_gets_its_own_messages() {
    for len in [1, 64, 20_000] {
        let mut generator = generator(Arrivals::Closed { pipeline: 2 }, 2, len);
        generator.start(0);
        for round in 1..4 {
            let sent: Vec<Vec<u8>> =
                (0..2).map(|conn| next(&mut generator, conn).expect("a pipeline")).collect();
            for (conn, sent) in sent.iter().enumerate() {
                assert_eq!(sent.starts_with(b"CONNECT "), round == 1);
                if round == 1 {
                    generator.on_bytes(conn, INFO, round * 10);
                }
                generator.on_bytes(conn, &delivered(sent, conn), round * 10);
            }
        }
        let tally = generator.take_tally();
        assert_eq!((tally.replies, tally.wrong, generator.broken()), (12, 0, None), "{tally:?}");
    }
}

#[test]
fn a_ping_is_answered_also_when_nothing_is_asked() {
    let mut generator = generator(Arrivals::Open { rate: 1.0, poisson: false }, 1, 16);
    generator.start(1_000);
    assert!(next(&mut generator, 0).expect("a greeting").starts_with(b"CONNECT "));
    generator.on_bytes(0, INFO, 2_000);
    assert_eq!(next(&mut generator, 0), None);
    generator.on_bytes(0, b"PI", 2_000);
    assert_eq!(next(&mut generator, 0), None);
    generator.on_bytes(0, b"NG\r\nPING\r\n", 3_000);
    assert_eq!(next(&mut generator, 0).as_deref(), Some(&b"PONG\r\nPONG\r\n"[..]));
    assert_eq!(generator.broken(), None);
    assert_eq!(generator.take_tally().replies, 0);
    generator.on_bytes(0, &right(&codec(Protocol::Nats, 16), GET), 4_000);
    assert!(generator.broken().is_some_and(|why| why.contains("nobody asked")));
}

#[test]
fn a_server_that_asks_and_does_not_read_is_left() {
    let mut generator = generator(Arrivals::Open { rate: 1.0, poisson: false }, 1, 16);
    generator.start(1_000);
    generator.on_bytes(0, INFO, 2_000);
    // The greeting is with the transport and does not leave.
    let batch = generator.next_batch().expect("a greeting");
    generator.fill(batch, &mut Output::default());
    let pings = b"PING\r\n".repeat(1000);
    for _ in 0..10 {
        generator.on_bytes(0, &pings, 3_000);
    }
    assert_eq!(generator.broken(), None, "60,000 bytes are owed");
    generator.on_bytes(0, &pings, 3_000);
    assert!(generator.broken().is_some_and(|why| why.contains("does not read")));
}
