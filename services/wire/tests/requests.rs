//! The request parser: golden cases, every split, and a naive parser as oracle.

use proptest::prelude::*;
use wire::resp::{Args, Limits, ParseState, Parsed, ProtocolError, parse_command};

type Command = Vec<Vec<u8>>;

/// Feeds `pieces` one after the other, as a connection would; the commands, and the error that
/// ended them.
fn feed(pieces: &[&[u8]], limits: &Limits) -> (Vec<Command>, Option<ProtocolError>) {
    let (mut buffer, mut state) = (Vec::new(), ParseState::new());
    let (mut args, mut commands) = (Args::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parse_command(&buffer, &mut args, limits, &mut state) {
                Parsed::Command { frame_len } => {
                    let words = (0..args.len()).map(|index| args.get(index, &buffer).to_vec());
                    commands.push(words.collect());
                    assert!(frame_len > 0 && frame_len <= buffer.len());
                    buffer.drain(..frame_len);
                }
                Parsed::Incomplete { need } => {
                    assert!(need == 0 || need > buffer.len(), "{need} of {}", buffer.len());
                    break;
                }
                Parsed::Invalid(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

fn words(words: &[&str]) -> Command {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
fn commands_come_out_as_they_went_in() {
    for (bytes, expected) in [
        (&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..], vec![words(&["GET", "k"])]),
        (b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", vec![words(&["PING"]), words(&["PING"])]),
        (b"*0\r\n", vec![vec![]]),
        (b"*-1\r\n", vec![vec![]]),
        (b"*-99\r\nPING\r\n", vec![vec![], words(&["PING"])]),
        (b"\r\n", vec![vec![]]),
        (b"PING\n", vec![words(&["PING"])]),
        (b"set k \"a b\"\r\n", vec![words(&["set", "k", "a b"])]),
        (b"*1\r\n$0\r\n\r\n", vec![words(&[""])]),
        // Redis does not look at the bytes where line ends belong after a string.
        (b"*1\r\n$4\r\nPINGxy", vec![words(&["PING"])]),
        (b"*1\r\n$4\r", vec![]),
        (b"", vec![]),
    ] {
        assert_eq!(feed(&[bytes], &Limits::DEFAULT), (expected, None), "{}", bytes.escape_ascii());
    }
}

#[test]
fn errors_have_the_words_of_redis() {
    let long = |head: &str| format!("{head}{}", "1".repeat(70_000));
    for (bytes, text) in [
        ("*a\r\n".to_owned(), "invalid multibulk length"),
        ("*\r\n".to_owned(), "invalid multibulk length"),
        ("*01\r\n".to_owned(), "invalid multibulk length"),
        ("*+1\r\n".to_owned(), "invalid multibulk length"),
        ("*2147483648\r\n".to_owned(), "invalid multibulk length"),
        ("*1\r\nxabc\r\n".to_owned(), "expected '$', got 'x'"),
        ("*1\r\n\r\n\r\n".to_owned(), "expected '$', got ' '"),
        ("*1\r\n$-1\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$1x\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$536870913\r\n".to_owned(), "invalid bulk length"),
        ("\"abc\r\n".to_owned(), "unbalanced quotes in request"),
        (long(""), "too big inline request"),
        (long("*"), "too big mbulk count string"),
        (long("*1\r\n$"), "too big bulk count string"),
    ] {
        let (commands, error) = feed(&[bytes.as_bytes()], &Limits::DEFAULT);
        let mut reply = Vec::new();
        error.expect("an error").write(&mut reply);
        assert_eq!(commands, Vec::<Command>::new());
        assert_eq!(String::from_utf8_lossy(&reply), format!("-ERR Protocol error: {text}\r\n"));
    }
}

#[test]
fn limits_hold_at_and_one_beyond() {
    let limits =
        Limits { max_bulk_bytes: 10, max_elements: 3, max_line_bytes: 20, ..Limits::DEFAULT };
    let command = |count: usize, len: usize| encode(&vec![vec![b'x'; len]; count]);
    assert_eq!(feed(&[&command(3, 10)], &limits).1, None);
    assert_eq!(feed(&[&command(4, 1)], &limits).1, Some(ProtocolError::MultibulkLength));
    assert_eq!(feed(&[&command(1, 11)], &limits).1, Some(ProtocolError::BulkLength));
    assert_eq!(feed(&[&[b'x'; 20]], &limits).1, None);
    assert_eq!(feed(&[&[b'x'; 21]], &limits).1, Some(ProtocolError::BigInline));
    let stranger = Limits { unauthenticated: true, ..Limits::DEFAULT };
    assert_eq!(feed(&[&command(10, 16_384)], &stranger).1, None);
    assert_eq!(
        feed(&[&command(11, 1)], &stranger).1,
        Some(ProtocolError::UnauthenticatedMultibulkLength)
    );
    assert_eq!(
        feed(&[&command(1, 16_385)], &stranger).1,
        Some(ProtocolError::UnauthenticatedBulkLength)
    );
    let short = Limits { max_frame_bytes: 1000, ..Limits::DEFAULT };
    assert_eq!(feed(&[b"*1\r\n$999\r\n"], &short).1, Some(ProtocolError::BigFrame));
    assert_eq!(feed(&[b"*1\r\n$980\r\n"], &short).1, None);
    // Many small arguments count as one large one does.
    let mut small = format!("*{}\r\n", i32::MAX).into_bytes();
    small.extend(b"$0\r\n\r\n".repeat(160));
    assert_eq!(feed(&[&small], &short).1, None);
    small.extend(b"$0\r\n\r\n".repeat(10));
    assert_eq!(feed(&[&small], &short).1, Some(ProtocolError::BigFrame));
    let beyond = format!("*{}\r\n", 1_u64 << 31).into_bytes();
    assert_eq!(feed(&[&beyond], &short).1, Some(ProtocolError::MultibulkLength));
}

#[test]
fn every_split_gives_the_same_commands() {
    let many: Command = (0..40).map(|index| format!("argument {index}").into_bytes()).collect();
    let mut bytes = encode(&words(&["SET", "key", "value"]));
    bytes.extend_from_slice(&encode(&many));
    bytes.extend_from_slice(b"inline 'quoted words' \"and\\x41\"\r\n");
    bytes.extend_from_slice(&encode(&[vec![b'v'; 300], vec![], vec![b'\r', b'\n']]));
    bytes.extend_from_slice(b"*0\r\n\r\n");
    let whole = feed(&[&bytes], &Limits::DEFAULT);
    assert_eq!((whole.0.len(), &whole.1), (6, &None));
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(feed(&[head, tail], &Limits::DEFAULT), whole, "split at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(feed(&single, &Limits::DEFAULT), whole);
}

#[test]
fn an_announced_length_is_told_and_costs_nothing() {
    let mut args = Args::new();
    let mut parse =
        |bytes: &[u8]| parse_command(bytes, &mut args, &Limits::DEFAULT, &mut ParseState::new());
    let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\nabc";
    let need = bytes.len() - 3 + 100_000_000 + 2;
    assert_eq!(parse(bytes), Parsed::Incomplete { need });
    assert_eq!(parse(b"*2\r\n$4\r\nECHO\r\n$16000\r\nabc"), Parsed::Incomplete { need: 0 });
    // A million arguments announced, one there.
    assert_eq!(parse(b"*1000000\r\n$1\r\nx\r\n"), Parsed::Incomplete { need: 0 });
}

/// A long frame in small pieces takes time in proportion to its length: the count of calls that
/// start over is what would make it quadratic.
#[test]
fn a_long_frame_is_resumed() {
    let frame = encode(&vec![b"ab".to_vec(); 20_000]);
    let (mut state, mut args) = (ParseState::new(), Args::new());
    let mut resumed = 0;
    for end in (0..frame.len()).step_by(8) {
        let parsed = parse_command(&frame[..end], &mut args, &Limits::DEFAULT, &mut state);
        assert!(matches!(parsed, Parsed::Incomplete { .. }));
        resumed += usize::from(state.is_pending());
    }
    assert!(resumed > frame.len() / 8 - 20, "{resumed}");
    let parsed = parse_command(&frame, &mut args, &Limits::DEFAULT, &mut state);
    assert_eq!(parsed, Parsed::Command { frame_len: frame.len() });
    assert_eq!(args.len(), 20_000);
    assert!(!state.is_pending());
}

/// A parser that wants all of its input and does nothing cleverly.
fn oracle(mut bytes: &[u8]) -> Option<Vec<Command>> {
    fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = bytes.split_at(end);
        *bytes = &rest[2..];
        Some(line)
    }
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let count: usize =
            std::str::from_utf8(line(&mut bytes)?.strip_prefix(b"*")?).ok()?.parse().ok()?;
        let mut command = Vec::new();
        for _ in 0..count {
            let len: usize =
                std::str::from_utf8(line(&mut bytes)?.strip_prefix(b"$")?).ok()?.parse().ok()?;
            command.push(bytes.get(..len)?.to_vec());
            bytes = bytes.get(len..)?.strip_prefix(b"\r\n")?;
        }
        commands.push(command);
    }
    Some(commands)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_requests_agree_with_the_oracle(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..14), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        prop_assert_eq!(oracle(&bytes), Some(commands.clone()));
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for to in at {
            pieces.push(&bytes[from..to]);
            from = to;
        }
        pieces.push(&bytes[from..]);
        prop_assert_eq!(feed(&pieces, &Limits::DEFAULT), (commands, None));
    }

    #[test]
    fn bytes_that_look_like_requests_never_panic_however_split(
        bytes in prop::collection::vec(prop::sample::select(&b"*$0123-9\r\r\n\n \"'\\xgG\0\xff"[..]), 0..200),
    ) {
        let whole = feed(&[&bytes], &Limits::DEFAULT);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(feed(&single, &Limits::DEFAULT), whole);
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        feed(&[&bytes], &Limits::DEFAULT);
    }
}
