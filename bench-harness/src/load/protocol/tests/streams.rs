//! HTTP/2: streams in any order, control frames, windows, and bytes that are no frames.

use proptest::prelude::*;

use super::http2::{self, Answer, Connection};
use super::*;

const OK: &[u8] = &[0x88];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn http(body: &'static [u8]) -> Http {
    Http { body: Some(body.into()), ..Http::new() }
}

/// A connection with `gets` requests under way.
fn asked(gets: u32) -> Connection {
    let mut connection = Connection::new(8, 0);
    let codec = Codec::new(&Workload::new(Protocol::Http2, 1));
    let mut requests = Vec::new();
    for key in 0..gets {
        codec.encode(Asked { key, set: false }, &mut requests);
    }
    connection.number(&mut requests);
    connection
}

fn run(
    connection: &mut Connection,
    http: &Http,
    pieces: &[&[u8]],
) -> Result<(Vec<Answer>, Vec<u8>), Lost> {
    let (mut answers, mut control) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (used, answer) = connection.feed(http, rest, &mut control)?;
            assert!(used > 0 && (answer.is_some() || used == rest.len()));
            rest = &rest[used..];
            answers.extend(answer);
        }
    }
    Ok((answers, control))
}

fn kinds(answers: &[Answer]) -> Vec<(u32, u8)> {
    answers.iter().map(|(sequence, verdict)| (*sequence, kind(verdict))).collect()
}

/// What a server sends to three requests: the second is answered first, in more ways than one.
fn session() -> Vec<u8> {
    [
        frame(4, 0, 0, &[0, 3, 0, 0, 0, 128, 0, 5, 0, 0, 64, 0]),
        frame(4, 1, 0, &[]),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(1, 4, 1, OK),
        frame(1, 4, 3, &[0x08, 3, b'1', b'0', b'3']),
        // Padded and with a priority, and a block in two frames.
        frame(1, 8 | 32, 3, &[1, 0, 0, 0, 0, 9, 0x20, 0]),
        frame(9, 4, 3, &[0x48, 0x82, 0x10, 0x01]),
        frame(0, 0, 1, b"he"),
        frame(0, 8, 3, &[3, b'h', b'e', b'l', b'l', 0, 0, 0]),
        frame(6, 0, 0, b"pingpong"),
        frame(0, 1, 3, b"o"),
        frame(0xee, 7, 3, b"nobody knows"),
        frame(0, 0, 1, b"llo"),
        frame(1, 5, 1, &[0x0f, 0x0d, 1, b'5']),
        frame(1, 5, 5, &[0x8d]),
    ]
    .concat()
}

#[test]
fn streams_are_answered_in_any_order_however_bytes_are_cut() {
    let stream = session();
    let expected = [(1, 0), (0, 0), (2, 2)];
    let owed = [frame(4, 1, 0, &[]), frame(6, 1, 0, b"pingpong")].concat();
    for cut in 0..=stream.len() {
        let mut connection = asked(3);
        let pieces = [&stream[..cut], &stream[cut..]];
        let (answers, control) = run(&mut connection, &http(b"hello"), &pieces).expect("HTTP/2");
        assert_eq!(kinds(&answers), expected, "cut at {cut}: {answers:?}");
        assert_eq!(control, owed, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    let (answers, _) = run(&mut asked(3), &http(b"hello"), &bytes).expect("HTTP/2");
    assert_eq!(kinds(&answers), expected);
}

#[test]
fn wrong_replies_are_told_apart() {
    let wrong: [Vec<u8>; 6] = [
        frame(1, 5, 1, &[0x8d]),
        frame(1, 5, 1, OK),
        [frame(1, 4, 1, OK), frame(0, 1, 1, b"hellO")].concat(),
        [frame(1, 4, 1, OK), frame(0, 1, 1, b"hello!")].concat(),
        frame(3, 0, 1, &[0, 0, 0, 7]),
        [frame(1, 4, 1, OK), frame(0, 0, 1, b"hel"), frame(3, 0, 1, &[0, 0, 0, 2])].concat(),
    ];
    for stream in wrong {
        let (answers, _) = run(&mut asked(1), &http(b"hello"), &[&stream]).expect("HTTP/2");
        assert_eq!(kinds(&answers), [(0, 2)], "{stream:?}");
    }
    // A reset after the whole reply says that nothing more is read.
    let stream = [frame(1, 5, 1, OK), frame(3, 0, 1, &[0; 4])].concat();
    let (answers, _) = run(&mut asked(1), &http(b""), &[&stream]).expect("HTTP/2");
    assert_eq!(kinds(&answers), [(0, 0)]);
}

#[test]
fn what_cannot_be_followed_ends_the_connection() {
    let long = vec![0; 16_385];
    let lost: [Vec<u8>; 19] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
        frame(7, 0, 0, &[0, 0]),
        frame(5, 4, 1, OK),
        frame(1, 4, 0, OK),
        frame(1, 4, 2, OK),
        frame(1, 4, 3, OK),
        frame(1, 4, 1, &[0xbe]),
        frame(1, 4, 1, &[0x0f, 0x0d, 1, b'5']),
        frame(0, 0, 1, b"x"),
        frame(9, 4, 1, OK),
        [frame(1, 0, 1, OK), frame(6, 0, 0, b"pingpong")].concat(),
        [frame(1, 4, 1, OK), frame(1, 4, 1, OK)].concat(),
        [frame(1, 5, 1, OK), frame(0, 1, 1, b"x")].concat(),
        frame(1, 12, 1, &[9, 0x88]),
        frame(6, 0, 0, b"ping"),
        frame(8, 0, 0, &[0; 4]),
        frame(4, 0, 0, &[0, 3, 0]),
        frame(0, 0, 1, &long),
    ];
    for stream in lost {
        let seen = run(&mut asked(1), &http(b"hello"), &[&stream]);
        assert!(seen.is_err(), "{:?}: {seen:?}", &stream[..stream.len().min(40)]);
    }
    let mut blocks = frame(1, 0, 1, &long[1..]);
    for _ in 0..=http2::BLOCK_MAX_BYTES / 16_384 {
        blocks.extend(frame(9, 0, 1, &long[1..]));
    }
    assert!(run(&mut asked(1), &http(b""), &[&blocks]).is_err());
}

#[test]
fn the_window_is_given_back_while_a_body_comes() {
    let part = vec![7; 16_384];
    let mut stream = frame(1, 4, 1, OK);
    for _ in 0..1024 {
        stream.extend(frame(0, 0, 1, &part));
    }
    stream.extend(frame(0, 1, 1, b""));
    let mut connection = asked(1);
    let (answers, control) = run(&mut connection, &Http::new(), &[&stream]).expect("HTTP/2");
    assert_eq!(kinds(&answers), [(0, 0)]);
    let mut returned = 0;
    for update in control.chunks(13) {
        assert_eq!(&update[..9], &[0, 0, 4, 8, 0, 0, 0, 0, 0]);
        returned += u32::from_be_bytes(update[9..].try_into().expect("four bytes"));
    }
    assert!((8 << 20..=16 << 20).contains(&returned), "{returned}");
}

#[test]
fn requests_are_numbered_as_they_leave_and_bounded_by_the_server() {
    let mut workload = Workload::new(Protocol::Http2, 8);
    workload.value_len_bytes = 30_000;
    workload.set_share = 0.5;
    workload.http.path = "/a".into();
    workload.http.host = "h".into();
    let codec = Codec::new(&workload);
    let mut requests = Vec::new();
    codec.encode(Asked { key: 1, set: false }, &mut requests);
    codec.encode(Asked { key: 1, set: true }, &mut requests);
    let Decoder::Http2(mut connection) = codec.decoder(0, 8) else { panic!("of another kind") };
    connection.number(&mut requests);
    let get = frame(1, 5, 1, b"\x82\x86\x04\x02/a\x01\x01h");
    assert!(requests.starts_with(&get));
    let post = frame(1, 4, 3, b"\x83\x86\x04\x02/a\x01\x01h\x0f\x0d\x0530000");
    assert!(requests[get.len()..].starts_with(&post));
    let body = &requests[get.len() + post.len()..];
    assert_eq!(&body[..9], &[0, 0x40, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(&body[9 + 16_384..][..9], &[0, 0x35, 0x30, 0, 1, 0, 0, 0, 3]);
    // 35,535 bytes of the window are left: one more body, and requests without one.
    assert_eq!(connection.room(8, |_| 30_000), 1);
    assert_eq!(connection.room(8, |at| if at < 2 { 0 } else { 40_000 }), 2);
    assert_eq!(connection.room(8, |_| 0), 8);
    let settings = [frame(4, 0, 0, &[0, 3, 0, 0, 0, 3]), frame(8, 0, 0, &[0, 1, 0, 0])].concat();
    run(&mut connection, &Http::new(), &[&settings]).expect("HTTP/2");
    assert_eq!(connection.room(8, |_| 0), 1, "two of three are open");
    assert_eq!(connection.room(1, |_| 80_000), 1);
    // A server whose streams begin with less than a body.
    let narrow = frame(4, 0, 0, &[0, 4, 0, 0, 0x70, 0]);
    assert!(run(&mut connection, &Http::new(), &[&narrow]).is_err());
}

#[test]
fn a_slow_stream_does_not_stop_the_others_for_a_while() {
    let mut connection = Connection::new(2, 0);
    let codec = Codec::new(&Workload::new(Protocol::Http2, 1));
    let mut request = Vec::new();
    codec.encode(GET, &mut request);
    for number in 0..10 {
        let room = connection.room(1, |_| 0);
        if room == 0 {
            assert_eq!(number, 4, "its place is taken");
            return;
        }
        connection.number(&mut request.clone());
        if number > 0 {
            let stream = frame(1, 5, 2 * number + 1, OK);
            let (answers, _) = run(&mut connection, &Http::new(), &[&stream]).expect("HTTP/2");
            assert_eq!(kinds(&answers), [(number, 0)]);
        }
    }
    panic!("the place of the slow stream was used twice");
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_answers(
        spoil in prop::option::of((any::<usize>(), any::<u8>())),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut stream = session();
        if let Some((at, byte)) = spoil {
            let at = at % stream.len();
            stream[at] = byte;
        }
        let run = |pieces: &[&[u8]]| {
            let seen = run(&mut asked(3), &http(b"hello"), pieces);
            seen.map(|(answers, control)| (kinds(&answers), control)).map_err(|_| ())
        };
        prop_assert_eq!(run(&pieces_of(&stream, &cuts)), run(&[&stream]));
    }

    #[test]
    fn hostile_frames_never_panic(
        frames in prop::collection::vec(
            (0_u8..11, any::<u8>(), 0_u32..8, prop::collection::vec(any::<u8>(), 0..20)), 0..20),
        tail in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let mut stream = Vec::new();
        for (kind, flags, number, payload) in frames {
            stream.extend(frame(kind, flags, number, &payload));
        }
        stream.extend(tail);
        let _ = run(&mut asked(4), &http(b"hello"), &[&stream]);
    }
}
