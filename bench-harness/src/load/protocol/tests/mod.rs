//! Every protocol's decoder: right replies however they are cut, wrong ones told apart, and bytes
//! of no protocol.

mod driven;
mod nats;
mod streams;

use proptest::prelude::*;

use super::*;
use crate::load::arena::key_name;

const GET: Asked = Asked { key: 77, set: false };
const SET: Asked = Asked { key: 77, set: true };
const ORDERED: [Protocol; 7] = [
    Protocol::Resp,
    Protocol::Resp3,
    Protocol::Memcache,
    Protocol::MemcacheMeta,
    Protocol::Http1,
    Protocol::Nats,
    Protocol::Echo,
];
const HELLO_REPLY: &[u8] =
    b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*1\r\n*0\r\n";

fn codec(protocol: Protocol, len: usize) -> Codec {
    let mut workload = Workload::new(protocol, 1);
    workload.value_len_bytes = len;
    workload.set_share = 0.5;
    let mut body = Vec::new();
    Values::new(len).write(5, &mut body);
    workload.http.body = Some(body.into());
    Codec::new(&workload)
}

/// The right reply to `asked`.
fn right(codec: &Codec, asked: Asked) -> Vec<u8> {
    let mut value = Vec::new();
    codec.values.write(asked.key, &mut value);
    let len = value.len();
    let text = |head: String, tail: &str| [head.as_bytes(), &value, tail.as_bytes()].concat();
    let name = String::from_utf8(key_name(asked.key).to_vec()).expect("text");
    match (codec.protocol, asked.set) {
        (Protocol::Resp | Protocol::Resp3, true) => b"+OK\r\n".to_vec(),
        (Protocol::Resp | Protocol::Resp3, false) => text(format!("${len}\r\n"), "\r\n"),
        (Protocol::Memcache, true) => b"STORED\r\n".to_vec(),
        (Protocol::Memcache, false) => text(format!("VALUE {name} 0 {len}\r\n"), "\r\nEND\r\n"),
        (Protocol::MemcacheMeta, true) => b"HD\r\n".to_vec(),
        (Protocol::MemcacheMeta, false) => text(format!("VA {len}\r\n"), "\r\n"),
        (Protocol::Http1, true) => b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n".to_vec(),
        (Protocol::Http1, false) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), codec.http.body.as_deref().expect("known")].concat()
        }
        (Protocol::Nats, _) => text(nats::message_head(0, len), "\r\n"),
        (Protocol::Echo, _) => value,
        (Protocol::Http2, _) => unreachable!("not ordered"),
    }
}

/// The verdicts on `stream`, which comes in `pieces`; the fast way is taken where there is one.
fn verdicts<'a>(
    codec: &Codec,
    decoder: &mut Ordered,
    asked: &[Asked],
    pieces: impl Iterator<Item = &'a [u8]>,
    fast: bool,
) -> Result<Vec<Verdict>, Lost> {
    let mut verdicts = Vec::new();
    for piece in pieces {
        let mut rest = piece;
        while !rest.is_empty() {
            let asked = asked[verdicts.len() % asked.len()];
            if let Some(len) = fast.then(|| decoder.whole(codec, asked, rest)).flatten() {
                verdicts.push(Verdict::Right);
                rest = &rest[len..];
                continue;
            }
            let (used, verdict) = decoder.feed(codec, asked, rest)?;
            assert!(used > 0 && (verdict.is_some() || used == rest.len()));
            rest = &rest[used..];
            verdicts.extend(verdict);
        }
    }
    Ok(verdicts)
}

/// The verdict on one reply, which must be the same wherever it is cut; of wrong ones, that it is.
fn judged(codec: &Codec, asked: Asked, reply: &[u8]) -> Verdict {
    let mut seen = None;
    for cut in 0..=reply.len() {
        for fast in [false, true] {
            let mut decoder = Ordered::new(codec.protocol);
            let pieces = [&reply[..cut], &reply[cut..]].into_iter();
            let mut all =
                verdicts(codec, &mut decoder, &[asked], pieces, fast).expect("of the protocol");
            assert!(decoder.is_idle(), "cut at {cut}");
            assert_eq!(all.len(), 1, "cut at {cut}");
            let verdict = all.remove(0);
            if let Some(seen) = &seen {
                assert!(kind(seen) == kind(&verdict), "cut at {cut}: {verdict:?}");
            }
            seen = Some(verdict);
        }
    }
    seen.expect("at least one cut")
}

fn kind(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Right => 0,
        Verdict::Miss => 1,
        Verdict::Wrong(_) => 2,
    }
}

#[test]
fn right_replies_are_right_however_they_are_cut() {
    for protocol in ORDERED {
        for len in [0, 1, 8, 64, 300] {
            if (protocol, len) == (Protocol::Echo, 0) {
                continue;
            }
            let codec = codec(protocol, len);
            for asked in [GET, SET] {
                let reply = right(&codec, asked);
                assert_eq!(judged(&codec, asked, &reply), Verdict::Right, "{protocol:?} {len}");
                let decoder = warmed(&codec);
                let followed = [&reply[..], b"$9"].concat();
                assert_eq!(decoder.whole(&codec, asked, &followed), Some(reply.len()));
                for short in 0..reply.len() {
                    assert_eq!(decoder.whole(&codec, asked, &reply[..short]), None);
                }
            }
        }
    }
}

/// A decoder that has seen one right reply of each kind.
fn warmed(codec: &Codec) -> Ordered {
    let mut decoder = Ordered::new(codec.protocol);
    for asked in [GET, SET] {
        let reply = right(codec, asked);
        let seen = verdicts(codec, &mut decoder, &[asked], std::iter::once(&reply[..]), false);
        assert_eq!(seen, Ok(vec![Verdict::Right]));
    }
    decoder
}

#[test]
fn other_replies_are_told_apart() {
    use Protocol::{Echo, Http1, Memcache, MemcacheMeta, Nats, Resp, Resp3};
    let misses: [(Protocol, &[u8]); 5] = [
        (Resp, b"$-1\r\n"),
        (Resp, b"_\r\n"),
        (Resp3, b"_\r\n"),
        (Memcache, b"END\r\n"),
        (MemcacheMeta, b"EN\r\n"),
    ];
    for (protocol, reply) in misses {
        assert_eq!(judged(&codec(protocol, 16), GET, reply), Verdict::Miss, "{protocol:?}");
    }
    let other_key = format!("{}0000004eijklmnop\r\n", nats::message_head(0, 16));
    let other_byte = format!("{}0000004dijklmnoX\r\n", nats::message_head(0, 16));
    let other_length = format!("{}0000004dijklmnopq\r\n", nats::message_head(0, 17));
    let other_subject = format!("{}0000004dijklmnop\r\n", nats::message_head(1, 16));
    let other_subscription = other_subject.replace(" 1 ", " 2 ");
    let wrong: [(Protocol, Asked, &[u8]); 30] = [
        (Resp, GET, b"-ERR no\r\n"),
        (Resp, GET, b"$3\r\nabc\r\n"),
        (Resp, GET, b"$16\r\n0000004eijklmnop\r\n"),
        (Resp, SET, b"$-1\r\n"),
        (Resp, SET, b"+QUEUED\r\n"),
        (Resp, GET, b"*2\r\n$1\r\na\r\n*1\r\n:5\r\n"),
        (Resp, GET, b"*0\r\n"),
        (Memcache, SET, b"SERVER_ERROR oom\r\n"),
        (Memcache, GET, b"VALUE key:000000000078 0 16\r\n0000004dijklmnop\r\nEND\r\n"),
        (MemcacheMeta, SET, b"NS\r\n"),
        (MemcacheMeta, GET, b"HD\r\n"),
        (MemcacheMeta, GET, b"VA 3 f0\r\nabc\r\n"),
        (MemcacheMeta, GET, b"VA 16\r\n0000004eijklmnop\r\n"),
        (MemcacheMeta, SET, b"EN\r\n"),
        (Http1, GET, b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"),
        (Http1, GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
        (Http1, GET, b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n00000005ijklmnoX"),
        (Http1, GET, b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n00000005ijklmnopq"),
        (Http1, GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (Http1, GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
        (Http1, SET, b"HTTP/1.1 405 Not Allowed\r\ncontent-length:0\r\n\r\n"),
        (Http1, SET, b"HTTP/1.1 301 Moved\r\ncontent-length: 1\r\n\r\nx"),
        (Nats, GET, other_key.as_bytes()),
        (Nats, GET, other_byte.as_bytes()),
        (Nats, GET, other_length.as_bytes()),
        (Nats, GET, other_subject.as_bytes()),
        (Nats, SET, other_subscription.as_bytes()),
        (Nats, GET, b"MSG bench 1 reply.to 3\r\nabc\r\n"),
        (Echo, GET, b"0000004eijklmnop"),
        (Echo, GET, b"0000004dijklmnoX"),
    ];
    for (protocol, asked, reply) in wrong {
        let codec = codec(protocol, 16);
        let verdict = judged(&codec, asked, reply);
        assert_eq!(kind(&verdict), 2, "{protocol:?} {verdict:?}");
        assert_eq!(warmed(&codec).whole(&codec, asked, reply), None, "{protocol:?}");
    }
}

#[test]
fn bodies_in_chunks_and_interim_replies_are_followed() {
    let codec = codec(Protocol::Http1, 16);
    let right: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
          8;x=y\r\n00000005\r\n8\r\nijklmnop\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\nContent-Length: 3\r\n\r\n\
          0F\r\n00000005ijklmno\r\n1\r\np\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n\
          HTTP/1.1 200 OK\r\nCONTENT-LENGTH:  16 \r\n\r\n00000005ijklmnop",
    ];
    for reply in right {
        let verdict = judged(&codec, GET, reply);
        assert_eq!(verdict, Verdict::Right, "{}", String::from_utf8_lossy(reply));
    }
}

#[test]
fn the_head_of_another_answer_is_not_taken_for_a_known_one() {
    let mut workload = Workload::new(Protocol::Http1, 1);
    workload.http.body_len = Some(2);
    workload.http.method = Method::Head;
    let codec = Codec::new(&workload);
    // The reply to HEAD has no body, whatever it announces.
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(judged(&codec, GET, reply), Verdict::Right);
    workload.http.method = Method::Get;
    let codec = Codec::new(&workload);
    let mut decoder = Ordered::new(Protocol::Http1);
    let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: 1\r\n\r\nokHTTP/1.1 200 OK\r\n\
                   Content-Length: 2\r\nDate: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad";
    let seen = verdicts(&codec, &mut decoder, &[GET], std::iter::once(&stream[..]), true);
    let kinds: Vec<u8> = seen.expect("HTTP").iter().map(kind).collect();
    assert_eq!(kinds, [0, 0, 2]);
}

#[test]
fn bytes_of_no_protocol_lose_the_stream() {
    use Protocol::{Http1, Memcache, MemcacheMeta, Nats, Resp, Resp3};
    let lost: [(Protocol, &[u8]); 31] = [
        (Resp, b"hello\r\n"),
        (Resp, b"\r\n"),
        (Resp, b"$x\r\n"),
        (Resp, b"$+3\r\n"),
        (Resp, b"$99999999999\r\n"),
        (Resp, b"$1\r\nabc\r\n"),
        (Resp3, b"+OK\n"),
        (Memcache, b"VALUE key 0 x\r\n"),
        (MemcacheMeta, b"VA \r\n"),
        (Nats, b"-ERR 'Permissions Violation'\r\n"),
        (Nats, b"\r\n"),
        (Nats, b"MSG\r\n"),
        (Nats, b"MSG a 1\r\n"),
        (Nats, b"MSG a 1 b c 3\r\n"),
        (Nats, b"MSG a 1 x\r\n"),
        (Nats, b"MSG a 1 -1\r\n"),
        (Nats, b"MSG a 1 536870913\r\n"),
        (Nats, b"MSG a 1 1\r\nabc\r\n"),
        (Nats, b"HMSG a 1 12 13\r\n"),
        (Nats, b"PING\n"),
        (Http1, b"HTTP/2 200\r\n\r\n"),
        (Http1, b"HTTP/1.1 20\r\n\r\n"),
        (Http1, b"SSH-2.0-OpenSSH\r\n\r\n"),
        (Http1, b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"),
        (Http1, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nconnection: Close\r\n\r\n"),
        (Http1, b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        (Http1, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        (Http1, b"HTTP/1.1 101 Switching\r\n\r\n"),
        (Http1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        (Http1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\n"),
        (Http1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc"),
    ];
    for (protocol, bytes) in lost {
        let mut decoder = Ordered::new(protocol);
        let fed = decoder.feed(&codec(protocol, 16), GET, bytes);
        assert!(fed.is_err(), "{protocol:?} {}: {fed:?}", String::from_utf8_lossy(bytes));
    }
    for protocol in [Resp, Memcache, MemcacheMeta, Http1, Nats] {
        let mut decoder = Ordered::new(protocol);
        let endless = vec![b'+'; http1::HEAD_MAX_BYTES + 1];
        assert!(decoder.feed(&codec(protocol, 16), GET, &endless).is_err(), "{protocol:?}");
    }
}

#[test]
fn the_reply_to_the_greeting_is_awaited_and_not_counted() {
    let codec = codec(Protocol::Resp3, 16);
    assert_eq!(codec.greeting(0), resp::HELLO);
    let stream = [HELLO_REPLY, &right(&codec, GET), &right(&codec, GET)].concat();
    for cut in 0..stream.len() {
        let Decoder::Ordered(mut decoder) = codec.decoder(0, 1) else { panic!("of another kind") };
        assert!(decoder.is_greeting() && !decoder.is_idle());
        let pieces = [&stream[..cut], &stream[cut..]].into_iter();
        let seen = verdicts(&codec, &mut decoder, &[GET], pieces, true);
        assert_eq!(seen, Ok(vec![Verdict::Right; 2]), "cut at {cut}");
        assert!(!decoder.is_greeting());
    }
    let Decoder::Ordered(mut decoder) = codec.decoder(0, 1) else { panic!("of another kind") };
    assert!(decoder.feed(&codec, GET, b"-ERR unknown command 'HELLO'\r\n").is_err());
}

#[test]
fn requests_are_those_of_the_protocols() {
    let encoded = |protocol, asked| {
        let mut workload = Workload::new(protocol, 1);
        workload.value_len_bytes = 3;
        workload.http.path = "/v/{key}?x".into();
        workload.http.host = "example.org".into();
        let mut request = Vec::new();
        Codec::new(&workload).encode(asked, &mut request);
        String::from_utf8(request).expect("text")
    };
    let key = "key:000000000077";
    assert_eq!(
        encoded(Protocol::Resp3, SET),
        format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n$3\r\n000\r\n")
    );
    assert_eq!(encoded(Protocol::Memcache, GET), format!("get {key}\r\n"));
    assert_eq!(encoded(Protocol::Memcache, SET), format!("set {key} 0 0 3\r\n000\r\n"));
    assert_eq!(encoded(Protocol::MemcacheMeta, GET), format!("mg {key} v\r\n"));
    assert_eq!(encoded(Protocol::MemcacheMeta, SET), format!("ms {key} 3\r\n000\r\n"));
    assert_eq!(
        encoded(Protocol::Http1, GET),
        format!("GET /v/{key}?x HTTP/1.1\r\nHost: example.org\r\n\r\n")
    );
    assert_eq!(
        encoded(Protocol::Http1, SET),
        format!("POST /v/{key}?x HTTP/1.1\r\nHost: example.org\r\nContent-Length: 3\r\n\r\n000")
    );
    assert_eq!(encoded(Protocol::Echo, GET), "000");
}

#[test]
fn requests_that_are_all_equal_are_known() {
    let mut workload = Workload::new(Protocol::Http1, 1);
    assert!(Codec::new(&workload).is_uniform());
    workload.http.path = "/{key}".into();
    assert!(!Codec::new(&workload).is_uniform());
    workload.http.path = "/".into();
    workload.set_share = 0.1;
    assert!(!Codec::new(&workload).is_uniform());
    assert!(!Codec::new(&Workload::new(Protocol::Resp, 1)).is_uniform());
}

#[test]
fn names_are_those_of_the_command_line() {
    use clap::ValueEnum;
    for (protocol, name) in Protocol::value_variants().iter().zip([
        "resp",
        "resp3",
        "memcache",
        "memcache-meta",
        "http1",
        "http2",
        "nats",
        "echo",
    ]) {
        assert_eq!(protocol.to_possible_value().expect("not hidden").get_name(), name);
        assert_eq!(serde_json::to_value(protocol).expect("a name"), name);
    }
}

#[test]
fn workloads_that_cannot_be_run_are_refused() {
    let mut workload = Workload::new(Protocol::Http1, 1);
    assert_eq!(Codec::check(&workload), Ok(()));
    for path in ["", "x", "/a b", "/a\r\nX: y"] {
        workload.http.path = path.into();
        assert!(Codec::check(&workload).is_err(), "{path:?}");
    }
    let mut workload = Workload::new(Protocol::Echo, 1);
    workload.value_len_bytes = 0;
    assert!(Codec::check(&workload).is_err());
    let mut workload = Workload::new(Protocol::Nats, 1);
    workload.connections = super::nats::CONNECTIONS_MAX;
    assert_eq!(Codec::check(&workload), Ok(()));
    workload.connections += 1;
    assert!(Codec::check(&workload).is_err());
    let mut workload = Workload::new(Protocol::Http2, 1);
    workload.value_len_bytes = http2::BODY_MAX_BYTES + 1;
    assert_eq!(Codec::check(&workload), Ok(()), "no bodies are sent");
    workload.set_share = 0.1;
    assert!(Codec::check(&workload).is_err());
}

fn pieces_of<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect()
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_verdicts(
        which in 0..ORDERED.len(),
        sets in prop::collection::vec(any::<bool>(), 1..8),
        len in 1_usize..200,
        spoil in prop::option::of((any::<usize>(), any::<u8>())),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let codec = codec(ORDERED[which], len);
        let asked: Vec<Asked> =
            (0..).zip(&sets).map(|(key, &set)| Asked { key, set }).collect();
        let mut stream: Vec<u8> = asked.iter().flat_map(|&asked| right(&codec, asked)).collect();
        if let Some((at, byte)) = spoil {
            let at = at % stream.len();
            stream[at] = byte;
        }
        let run = |pieces: &[&[u8]], fast| {
            let mut decoder = Ordered::new(codec.protocol);
            let seen = verdicts(&codec, &mut decoder, &asked, pieces.iter().copied(), fast);
            seen.map(|all| all.iter().map(kind).collect::<Vec<u8>>()).map_err(|_| ())
        };
        let whole = run(&[&stream], false);
        if spoil.is_none() {
            prop_assert_eq!(&whole, &Ok(vec![0; asked.len()]));
        }
        prop_assert_eq!(&run(&pieces_of(&stream, &cuts), false), &whole);
        prop_assert_eq!(&run(&pieces_of(&stream, &cuts), true), &whole);
    }

    #[test]
    fn hostile_bytes_never_panic(
        which in 0..ORDERED.len(),
        words in prop::collection::vec(hostile_word(), 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let codec = codec(ORDERED[which], 16);
        let stream = words.concat();
        let mut decoder = Ordered::new(codec.protocol);
        let pieces = pieces_of(&stream, &cuts);
        let _ = verdicts(&codec, &mut decoder, &[GET, SET], pieces.into_iter(), true);
    }
}

/// Parts of replies, and of nothing.
fn hostile_word() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"\r\n",
        b"\r",
        b"\n",
        b"$",
        b"*",
        b"%",
        b"-1",
        b"0",
        b"16",
        b"536870912",
        b"18446744073709551616",
        b"VALUE ",
        b"VA ",
        b"END",
        b"EN",
        b"HD",
        b"STORED",
        b"key:000000000077",
        b" ",
        b"+OK",
        b":",
        b";",
        b"MSG ",
        b"bench.00000000",
        b" 1 ",
        b"PING\r\n",
        b"INFO {}\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 x\r\n\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"ffffffffffffffff",
        b"1\r\n",
        b"0\r\n\r\n",
    ];
    prop_oneof![
        3 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}
