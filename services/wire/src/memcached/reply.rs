//! Writers of replies onto a `Vec<u8>`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A line of text, with its end.
#[inline]
pub fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    end(out);
}

/// The end of a line or a data block.
#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// A number.
#[inline]
pub fn number(out: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
    }
}

/// The line before the data block of a `get`; `cas` for `gets`.
#[inline]
pub fn value(out: &mut Vec<u8>, key: &[u8], flags: u32, len: usize, cas: Option<u64>) {
    out.reserve(key.len() + len.min(4096) + 48);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    number(out, u64::from(flags));
    out.push(b' ');
    number(out, len as u64);
    if let Some(cas) = cas {
        out.push(b' ');
        number(out, cas);
    }
    end(out);
}

/// A flag of a meta reply with a number.
pub fn flag(out: &mut Vec<u8>, flag: u8, value: u64) {
    out.extend_from_slice(&[b' ', flag]);
    number(out, value);
}

/// The flag `k` of a meta reply: a key in base64 is told to be so.
pub fn key_flag(out: &mut Vec<u8>, key: &[u8], binary: bool) {
    out.extend_from_slice(b" k");
    key_text(out, key, binary);
    if binary {
        out.extend_from_slice(b" b");
    }
}

/// A key as it is written on a line.
pub fn key_text(out: &mut Vec<u8>, key: &[u8], binary: bool) {
    if binary {
        out.extend_from_slice(STANDARD.encode(key).as_bytes());
    } else {
        out.extend_from_slice(key);
    }
}

/// One line of statistics.
pub fn stat(out: &mut Vec<u8>, name: &str, value: &dyn std::fmt::Display) {
    out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
}
