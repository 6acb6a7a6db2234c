//! Scripts of any text, and any bytes given to the libraries that scripts have.
//!
//! The first byte: `e`, the rest is a script, which may only read, since one that has written is not ended; `l`, a library
//! of functions; `m`, MessagePack; `j`, JSON; `s`, a format of `struct` up to a line's end, and its data; `p`, a pattern up to a
//! line's end, and a text; `f`, a format of `string.format`; any other, all of these that take one argument.

use super::{REPLIES_MAX_BYTES, host, split};
use crate::support::{Host, encode};

/// Scripts that a text goes into, by the byte that asks for them.
const SCRIPTS: &[(u8, &str)] = &[
    (
        b'm',
        "local text = ARGV[1]
         local values = {cmsgpack.unpack(text)}
         local packed = cmsgpack.pack(unpack(values))
         cmsgpack.unpack(packed)
         pcall(cmsgpack.unpack_limit, text, 3, 1)
         pcall(cmsgpack.unpack_one, text, #text - 1)
         return packed",
    ),
    (
        b'j',
        "local value = cjson.decode(ARGV[1])
         local text = cjson.encode(value)
         cjson.decode(text)
         cjson.encode_sparse_array(true)
         return {text, cmsgpack.pack(value)}",
    ),
    (
        b's',
        "pcall(struct.size, ARGV[1])
         local values = {struct.unpack(ARGV[1], ARGV[2])}
         values[#values] = nil
         return struct.pack(ARGV[1], unpack(values))",
    ),
    (
        b'p',
        "pcall(string.find, ARGV[2], ARGV[1])
         pcall(string.match, ARGV[2], ARGV[1], -3)
         pcall(string.gsub, ARGV[2], ARGV[1], '%0%1')
         local count = 0
         for _ in string.gmatch(ARGV[2], ARGV[1]) do count = count + 1 end
         return count",
    ),
    (
        b'f',
        "pcall(string.format, ARGV[1], 1.5, 'text', -7, 2^70, '\\0')
         pcall(string.format, ARGV[1], ARGV[1], ARGV[1])
         local a, b = string.byte(ARGV[1], 1, 2)
         return {bit.tohex(a or 0, b or 0), tostring(bit.lshift(a or 1, b or 1)), bit.bswap(b or 1),
             tostring(tonumber(ARGV[1])), tostring(tonumber(ARGV[1], 2 + (a or 0) % 35))}",
    ),
];

pub(super) fn run(input: &[u8]) {
    let (how, text) = split(input);
    let mut host = host(1);
    let conn = host.connect(0, false);
    for version in if how == b'l' { &["3"][..] } else { &["2", "3"] } {
        host.command(conn, &["HELLO", version]);
        match how {
            b'e' => send(&mut host, conn, &[b"EVAL_RO", text, b"1", b"k", b"first", text]),
            b'l' => {
                let code = [b"#!lua name=l\n", text].concat();
                send(&mut host, conn, &[b"FUNCTION", b"LOAD", b"REPLACE", &code]);
                send(&mut host, conn, &[b"FCALL_RO", b"f", b"1", b"k", b"a"]);
            }
            _ => {
                for (_, script) in SCRIPTS.iter().filter(|(name, _)| *name == how || !is_known(how))
                {
                    let end = text.iter().position(|&byte| byte == b'\n');
                    let (first, second) = match end {
                        Some(end) if matches!(how, b's' | b'p') => (&text[..end], &text[end + 1..]),
                        _ => (text, text),
                    };
                    send(&mut host, conn, &[b"EVAL", script.as_bytes(), b"0", first, second]);
                }
            }
        }
    }
}

fn is_known(how: u8) -> bool {
    SCRIPTS.iter().any(|(name, _)| *name == how)
}

fn send(host: &mut Host, conn: usize, words: &[&[u8]]) {
    let reply = host.send(conn, &encode(words));
    assert!(!reply.is_empty(), "no reply");
    assert!(reply.len() <= REPLIES_MAX_BYTES, "{} bytes of reply", reply.len());
    let whole = wire::resp::skip_reply(&reply);
    assert_eq!(whole, Ok(Some(reply.len())), "one reply");
    assert_eq!(host.command(conn, &["PING"]), "+PONG\r\n", "the shard is there");
}
