//! memcached's command lines: golden requests, every split of them, and input that nobody should send.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use wire::memcached::{Parsed, Request, parse};

/// What a line asks for, briefly.
fn shown(bytes: &[u8]) -> String {
    let (request, line_len) = match parse(bytes) {
        Parsed::Request { request, line_len, .. } => (request, line_len),
        Parsed::Incomplete => return "incomplete".into(),
        Parsed::LongGet { cas, head_len } => return format!("long get {cas} {head_len}"),
        Parsed::Invalid => return "invalid".into(),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = match request {
        Request::Get(get) => {
            let keys: Vec<_> = get.keys.map(text).collect();
            format!("get {keys:?} cas {} touch {:?}", get.cas, get.touch)
        }
        Request::Store(store) => format!(
            "{:?} {} flags {} exptime {} len {} cas {} noreply {}",
            store.verb,
            text(store.key),
            store.flags,
            store.exptime,
            store.len,
            store.cas,
            store.noreply
        ),
        Request::Delta { key, delta, down, noreply } => {
            format!("delta {} {delta} down {down} noreply {noreply}", text(key))
        }
        Request::Delete { key, noreply } => format!("delete {} noreply {noreply}", text(key)),
        Request::Touch { key, exptime, noreply } => {
            format!("touch {} {exptime} noreply {noreply}", text(key))
        }
        Request::MetaStore { meta, verb, len } => {
            format!("ms {} {verb:?} {len} ttl {:?} cas {:?}", text(&meta.key), meta.ttl, meta.cas)
        }
        Request::MetaGet(meta) => format!(
            "mg {} binary {} value {} quiet {} N {:?} R {:?}",
            text(&meta.key),
            meta.binary,
            meta.value,
            meta.quiet,
            meta.vivify,
            meta.recache
        ),
        Request::MetaDelete(meta) => format!("md {} stale {}", text(&meta.key), meta.stale),
        Request::MetaDelta { meta, down } => {
            format!("ma {} {} from {} down {down}", text(&meta.key), meta.delta, meta.initial)
        }
        Request::MetaDebug(meta) => format!("me {}", text(&meta.key)),
        Request::Flush { delay, noreply } => format!("flush {delay} noreply {noreply}"),
        Request::Stats(words) => format!("stats {:?}", words.map(text).collect::<Vec<_>>()),
        Request::Quit => "quit".into(),
        Request::Answer { text, swallow } => format!("answer {text:?} swallow {swallow}"),
    };
    format!("{shown} [{line_len}]")
}

const GOLDEN: &[(&str, &str)] = &[
    ("get a\r\n", r#"get ["a"] cas false touch None [7]"#),
    ("gets  a b \n", r#"get ["a", "b"] cas true touch None [11]"#),
    ("gat -1 a\r\n", r#"get ["a"] cas false touch Some(-1) [10]"#),
    ("bget a\r\n", r#"get ["a"] cas false touch None [8]"#),
    ("set a 1 2 3\r\n", "Set a flags 1 exptime 2 len 3 cas 0 noreply false [13]"),
    ("set a 1 2 3 noreply\r\n", "Set a flags 1 exptime 2 len 3 cas 0 noreply true [21]"),
    ("cas a 1 2 3 4\r\n", "Cas a flags 1 exptime 2 len 3 cas 4 noreply false [15]"),
    ("cas a 1 2 3\r\n", r#"answer "ERROR" swallow 0 [13]"#),
    ("set a 4294967296 4294967297 3\r\n", "Set a flags 0 exptime 1 len 3 cas 0 noreply false [31]"),
    ("set a -1 2 3\r\n", r#"answer "CLIENT_ERROR bad command line format" swallow 0 [14]"#),
    ("set a 1 2 noreply\r\n", r#"answer "" swallow 0 [19]"#),
    ("incr a 5 noreply\r\n", "delta a 5 down false noreply true [18]"),
    ("decr a +5\r\n", "delta a 5 down true noreply false [11]"),
    ("delete a 0 noreply\r\n", "delete a noreply true [20]"),
    ("delete noreply\r\n", "delete noreply noreply false [16]"),
    ("touch a 9\r\n", "touch a 9 noreply false [11]"),
    ("flush_all\r\n", "flush 0 noreply false [11]"),
    ("flush_all 5 noreply\r\n", "flush 5 noreply true [21]"),
    ("flush_all 5 noreply x\r\n", r#"answer "ERROR" swallow 0 [23]"#),
    ("stats items x\r\n", r#"stats ["items", "x"] [15]"#),
    ("mg a v k q\r\n", "mg a binary false value true quiet true N None R None [12]"),
    ("mg Zm9v b N5 R6\r\n", "mg foo binary true value false quiet false N Some(5) R Some(6) [17]"),
    ("mg a v v\r\n", r#"answer "CLIENT_ERROR duplicate flag" swallow 0 [10]"#),
    ("mg a N\r\n", r#"answer "CLIENT_ERROR bad token in command line format" swallow 0 [8]"#),
    ("mg a z N\r\n", r#"answer "CLIENT_ERROR invalid flag" swallow 0 [10]"#),
    ("ms a 5 T9 C7 MR\r\n", "ms a Cas 5 ttl Some(9) cas Some(7) [17]"),
    ("ms a 5 ME C7\r\n", "ms a Add 5 ttl None cas Some(7) [14]"),
    ("ms a 5 Fx\r\n", r#"answer "CLIENT_ERROR bad command line format" swallow 7 [11]"#),
    ("ms a 5 Mxx\r\n", r#"answer "CLIENT_ERROR incorrect length for M token" swallow 7 [12]"#),
    ("md a I\r\n", "md a stale true [8]"),
    ("ma a MD D3 J4\r\n", "ma a 3 from 4 down true [15]"),
    ("ma a M\r\n", r#"answer "CLIENT_ERROR invalid or duplicate flag" swallow 0 [8]"#),
    ("me Zm9v b\r\n", "me foo [11]"),
    ("mg\r\n", r#"answer "ERROR" swallow 0 [4]"#),
    (
        "mg a 1 2 3 4 5 6 7 8 9 a b c d e f g h i\r\n",
        r#"answer "CLIENT_ERROR options flags are too long" swallow 0 [42]"#,
    ),
    ("quit\r\n", "quit [6]"),
    ("POST / HTTP/1.0\r\n", "quit [17]"),
    ("get a\0 b\r\n", r#"get ["a"] cas false touch None [10]"#),
    ("\r\n", r#"answer "ERROR" swallow 0 [2]"#),
];

#[test]
fn requests_are_read_whole_or_not_at_all() {
    for (line, expected) in GOLDEN {
        assert_eq!(shown(line.as_bytes()), *expected, "{line:?}");
        let longer = format!("{line}get b\r\n");
        assert_eq!(shown(longer.as_bytes()), *expected, "{line:?} with another behind it");
        for at in 0..line.len() {
            assert_eq!(shown(&line.as_bytes()[..at]), "incomplete", "{line:?} up to {at}");
        }
    }
}

#[test]
fn the_length_of_a_line_is_bounded_but_for_gets() {
    let long = |start: &str, len: usize| format!("{start}{}", "k".repeat(len - start.len()));
    assert_eq!(shown(long("set ", 2048).as_bytes()), "incomplete");
    assert_eq!(shown(long("set ", 2049).as_bytes()), "invalid");
    assert_eq!(shown(long("get ", 2049).as_bytes()), "long get false 3");
    assert_eq!(shown(long("  gets ", 2049).as_bytes()), "long get true 6");
    assert_eq!(shown(&[0x80]), "invalid");
}

/// The corpus: one hostile input per file.
#[test]
fn the_corpus_of_hostile_input_is_read_without_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/memcached");
    let mut seen = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus").flatten() {
        let bytes = fs::read(entry.path()).expect("a file of the corpus");
        for from in 0..bytes.len() {
            walk(&bytes[from..]);
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen} files in {}", corpus.display());
}

/// Reads one request after the other, as a session would.
fn walk(mut bytes: &[u8]) {
    while let Parsed::Request { request, text_len, line_len } = parse(bytes) {
        assert!(text_len < line_len && line_len <= bytes.len());
        if let Some(key) = request.key() {
            assert!(key.len() <= 250);
        }
        let swallow = match request {
            Request::Answer { swallow, .. } => swallow,
            ref request => request.data_len().map_or(0, |len| len + 2),
        };
        bytes = bytes.get(line_len + swallow..).unwrap_or_default();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        walk(&bytes);
    }

    #[test]
    fn words_in_any_order_are_read_without_harm(
        words in proptest::collection::vec(
            prop_oneof![
                Just("get"), Just("gats"), Just("set"), Just("cas"), Just("mg"), Just("ms"),
                Just("ma"), Just("md"), Just("me"), Just("delete"), Just("noreply"), Just("0"),
                Just("-1"), Just("key"), Just("b"), Just("N1"), Just("MS"), Just("Zm9v"),
                Just("\r\n"), Just("\n"), Just("\0"), Just("99999999999999999999"),
            ],
            0..60,
        )
    ) {
        walk(words.join(" ").as_bytes());
    }
}
