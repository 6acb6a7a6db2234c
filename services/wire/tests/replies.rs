//! Reply writers in both versions, read back by the decoder.

use proptest::prelude::*;
use wire::resp::{Reply, Version, decode_reply, reply, skip_reply};

type Write = fn(&mut Vec<u8>, Version);

#[test]
fn each_form_is_written_as_redis_writes_it() {
    let cases: [(Write, &str, &str); 16] = [
        (|out, _| reply::simple(out, "OK"), "+OK\r\n", "+OK\r\n"),
        (|out, _| reply::error(out, b"ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
        (|out, _| reply::integer(out, -12), ":-12\r\n", ":-12\r\n"),
        (|out, _| reply::integer(out, 7), ":7\r\n", ":7\r\n"),
        (|out, _| reply::integer(out, 10), ":10\r\n", ":10\r\n"),
        (|out, _| reply::bulk(out, b"ab"), "$2\r\nab\r\n", "$2\r\nab\r\n"),
        (|out, _| reply::bulk_integer(out, 42), "$2\r\n42\r\n", "$2\r\n42\r\n"),
        (reply::null, "$-1\r\n", "_\r\n"),
        (reply::null_array, "*-1\r\n", "_\r\n"),
        (|out, version| reply::map(out, version, 60), "*120\r\n", "%60\r\n"),
        (|out, version| reply::set(out, version, 3), "*3\r\n", "~3\r\n"),
        (|out, version| reply::push(out, version, 3), "*3\r\n", ">3\r\n"),
        (|out, version| reply::double(out, version, 0.5), "$3\r\n0.5\r\n", ",0.5\r\n"),
        (|out, version| reply::boolean(out, version, true), ":1\r\n", "#t\r\n"),
        (
            |out, version| reply::verbatim(out, version, *b"txt", b"hi"),
            "$2\r\nhi\r\n",
            "=6\r\ntxt:hi\r\n",
        ),
        (|out, version| reply::big_number(out, version, b"123"), "$3\r\n123\r\n", "(123\r\n"),
    ];
    for (write, two, three) in cases {
        for (version, expected) in [(Version::Resp2, two), (Version::Resp3, three)] {
            let mut out = Vec::new();
            write(&mut out, version);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}

#[test]
fn lengths_of_every_size_are_written() {
    for len in [0, 9, 10, 99, 100, 12_345] {
        let mut out = Vec::new();
        reply::bulk(&mut out, &vec![b'x'; len]);
        assert!(out.starts_with(format!("${len}\r\n").as_bytes()));
        assert_eq!(decode_reply(&out), Ok(Some((Reply::Bulk(vec![b'x'; len]), out.len()))));
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    for bytes in
        ["?\r\n", ":x\r\n", "$-2\r\n", "$1\r\nabc", "*x\r\n", "#x\r\n", "+a\rb\r\n", "=2\r\nab\r\n"]
    {
        assert!(decode_reply(bytes.as_bytes()).is_err(), "{bytes:?}");
    }
    let deep = "*1\r\n".repeat(100);
    assert!(decode_reply(deep.as_bytes()).is_err());
    // Announced, not there: incomplete, and nothing is allocated for it.
    for bytes in ["*1000000000\r\n", "$1000000000\r\n", "%99999999\r\n+a\r\n", ""] {
        assert_eq!(decode_reply(bytes.as_bytes()), Ok(None), "{bytes:?}");
        assert_eq!(skip_reply(bytes.as_bytes()), Ok(None), "{bytes:?}");
    }
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let text = prop::collection::vec(b' '..b'~', 0..12);
    let leaf = prop_oneof![
        text.clone().prop_map(Reply::Simple),
        text.clone().prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Reply::Bulk),
        Just(Reply::Null),
        any::<bool>().prop_map(Reply::Boolean),
        (-1e9..1e9_f64).prop_map(Reply::Double),
        text.prop_map(|text| Reply::Verbatim(*b"txt", text)),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            items.clone().prop_map(Reply::Array),
            items.clone().prop_map(Reply::Set),
            items.prop_map(Reply::Push),
            prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
        ]
    })
}

fn write(out: &mut Vec<u8>, value: &Reply) {
    const V: Version = Version::Resp3;
    match value {
        Reply::Simple(text) => reply::simple(out, &String::from_utf8_lossy(text)),
        Reply::Error(text) => reply::error(out, text),
        Reply::Integer(value) => reply::integer(out, *value),
        Reply::Bulk(bytes) => reply::bulk(out, bytes),
        Reply::Null => reply::null(out, V),
        Reply::Boolean(value) => reply::boolean(out, V, *value),
        Reply::Double(value) => reply::double(out, V, *value),
        Reply::Verbatim(format, text) => reply::verbatim(out, V, *format, text),
        Reply::BigNumber(digits) => reply::big_number(out, V, digits),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            match value {
                Reply::Array(_) => reply::array(out, items.len()),
                Reply::Set(_) => reply::set(out, V, items.len()),
                _ => reply::push(out, V, items.len()),
            }
            items.iter().for_each(|item| write(out, item));
        }
        Reply::Map(pairs) => {
            reply::map(out, V, pairs.len());
            for (key, item) in pairs {
                write(out, key);
                write(out, item);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decoder_reads_what_the_writers_write(value in any_reply()) {
        let mut out = Vec::new();
        write(&mut out, &value);
        prop_assert_eq!(decode_reply(&out), Ok(Some((value, out.len()))));
        prop_assert_eq!(skip_reply(&out), Ok(Some(out.len())));
        for end in 0..out.len() {
            prop_assert_eq!(decode_reply(&out[..end]), Ok(None));
            prop_assert_eq!(skip_reply(&out[..end]), Ok(None));
        }
    }

    #[test]
    fn the_decoder_never_panics(bytes in prop::collection::vec(
        prop::sample::select(&b"*$+-:_,#(=~>%0123456789\r\r\n\ntfx"[..]), 0..120)) {
        let _ = decode_reply(&bytes);
        let _ = skip_reply(&bytes);
    }
}
