//! Command lines of the meta commands: a key, then flags of one letter, each with what belongs to it.
//!
//! All flags are read before anything is done, as memcached does; those that are only told again in the reply (`O`,
//! `k`) or ask for something in it are found by going through the words once more ([`Meta::flags`]).

use std::borrow::Cow;

use super::{
    KEY_MAX_BYTES,
    line::Words,
    number::{parse_i32, parse_u32, parse_u64},
    request::{BAD_LINE, Request, Verb, data_len, say},
};

/// Longest opaque, its letter included.
pub const OPAQUE_MAX_BYTES: usize = 32;
/// Most words of a meta command.
const WORDS_MAX: usize = 19;
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const LONG_OPAQUE: &str = "CLIENT_ERROR opaque token too long";
const BAD_FLAG: &str = "CLIENT_ERROR invalid or duplicate flag";
const MANY_FLAGS: &str = "CLIENT_ERROR options flags too long";

/// Key and flags of a meta command.
#[derive(Clone, Debug)]
pub struct Meta<'a> {
    /// The key, as it is stored.
    pub key: Cow<'a, [u8]>,
    /// `b`: the key came in base64.
    pub binary: bool,
    /// The words behind the key: each flag with what belongs to it.
    pub flags: Words<'a>,
    /// `q`: no reply to what is usual.
    pub quiet: bool,
    /// `v`: with the value.
    pub value: bool,
    /// `u`: does not count as a use.
    pub no_update: bool,
    /// `I`: stale.
    pub stale: bool,
    /// `N`: what is not there is made, with this expiry.
    pub vivify: Option<i32>,
    /// `T`: the new expiry.
    pub ttl: Option<i32>,
    /// `R`: who reads an item with less time than this may refresh it.
    pub recache: Option<i32>,
    /// `F`: the client's flags.
    pub client_flags: u32,
    /// `C`: what the client knows.
    pub cas: Option<u64>,
    /// `M`: which of several commands; 0 for the usual one.
    mode: u8,
    /// `D`: by how much.
    pub delta: u64,
    /// `J`: where counting begins.
    pub initial: u64,
}

impl<'a> Meta<'a> {
    const fn new(key: &'a [u8], flags: Words<'a>) -> Self {
        Self {
            key: Cow::Borrowed(key),
            binary: false,
            flags,
            quiet: false,
            value: false,
            no_update: false,
            stale: false,
            vivify: None,
            ttl: None,
            recache: None,
            client_flags: 0,
            cas: None,
            mode: 0,
            delta: 1,
            initial: 0,
        }
    }

    /// Reads the flags; the text to refuse them with otherwise.
    fn read(&mut self) -> Result<(), &'static str> {
        let mut seen: u128 = 0;
        let mut wrong = None;
        for word in self.flags {
            let Some((&letter, rest)) = word.split_first() else { continue };
            if letter >= 127 || seen >> letter & 1 != 0 {
                return Err("CLIENT_ERROR duplicate flag");
            }
            seen |= 1 << letter;
            if let Err(text) = self.flag(letter, rest) {
                // One whose number alone is wrong keeps the text of an earlier one.
                wrong = text.or(wrong).or(Some(BAD_LINE));
            }
            if !is_flag(letter) {
                return Err("CLIENT_ERROR invalid flag");
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Reads one flag.
    fn flag(&mut self, letter: u8, rest: &[u8]) -> Result<(), Option<&'static str>> {
        let time = || parse_i32(rest).map(Some).ok_or(Some(BAD_TOKEN));
        match letter {
            b'b' => {
                self.binary = true;
                let decoded = decode(&self.key);
                let whole = decoded.ok_or(Some("CLIENT_ERROR error decoding key"));
                self.key = Cow::Owned(whole?);
            }
            b'N' => self.vivify = time()?,
            b'T' => self.ttl = time()?,
            b'R' => self.recache = time()?,
            b'v' => self.value = true,
            b'u' => self.no_update = true,
            b'q' => self.quiet = true,
            b'I' => self.stale = true,
            b'F' => self.client_flags = parse_u32(rest).ok_or(None)?,
            b'C' => self.cas = Some(parse_u64(rest).ok_or(Some(BAD_TOKEN))?),
            b'M' => match rest {
                [mode] => self.mode = *mode,
                _ => return Err(Some("CLIENT_ERROR incorrect length for M token")),
            },
            b'J' => {
                let wrong = "CLIENT_ERROR invalid numeric initial value";
                self.initial = parse_u64(rest).ok_or(Some(wrong))?;
            }
            b'D' => {
                let wrong = "CLIENT_ERROR invalid numeric delta value";
                self.delta = parse_u64(rest).ok_or(Some(wrong))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn has_long_opaque(&self) -> bool {
        let mut flags = self.flags;
        flags.any(|word| word.first() == Some(&b'O') && word.len() > OPAQUE_MAX_BYTES)
    }
}

const fn is_flag(letter: u8) -> bool {
    matches!(
        letter,
        b'b' | b'N'
            | b'T'
            | b'R'
            | b'l'
            | b'O'
            | b'P'
            | b'L'
            | b'k'
            | b's'
            | b't'
            | b'c'
            | b'f'
            | b'v'
            | b'h'
            | b'u'
            | b'q'
            | b'F'
            | b'C'
            | b'M'
            | b'J'
            | b'D'
            | b'I'
    )
}

fn refuse(text: &'static str, swallow: usize) -> Request<'static> {
    Request::Answer { text, swallow }
}

/// The key of a command, when there is one of a length that is allowed, and the words behind it.
fn keyed<'a>(words: &mut Words<'a>, many: &'static str) -> Result<&'a [u8], Request<'static>> {
    let count = (*words).count() + 1;
    let Some(key) = words.next() else { return Err(say("ERROR")) };
    if key.len() > KEY_MAX_BYTES {
        return Err(say(BAD_LINE));
    }
    if count > WORDS_MAX {
        return Err(say(many));
    }
    Ok(key)
}

pub(super) fn get(mut words: Words<'_>) -> Request<'_> {
    let key = match keyed(&mut words, "CLIENT_ERROR options flags are too long") {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let mut meta = Meta::new(key, words);
    match meta.read() {
        Err(text) => say(text),
        Ok(()) if meta.has_long_opaque() => say(LONG_OPAQUE),
        Ok(()) => Request::MetaGet(meta),
    }
}

pub(super) fn store(mut words: Words<'_>) -> Request<'_> {
    let few = words.count() == 1;
    let key = match keyed(&mut words, MANY_FLAGS) {
        Ok(_) if few => return say(BAD_LINE),
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let len = words.next().and_then(parse_i32).and_then(data_len);
    let Some(len) = len else { return say(BAD_LINE) };
    let swallow = len + 2;
    let mut meta = Meta::new(key, words);
    if let Err(text) = meta.read() {
        return refuse(text, swallow);
    }
    let verb = match meta.mode {
        0 | b'S' => Verb::Set,
        b'E' => Verb::Add,
        b'A' => Verb::Append,
        b'P' => Verb::Prepend,
        b'R' => Verb::Replace,
        _ => return refuse("CLIENT_ERROR invalid mode for ms M token", swallow),
    };
    if meta.has_long_opaque() {
        return refuse(LONG_OPAQUE, swallow);
    }
    let verb = match verb {
        Verb::Set | Verb::Replace if meta.cas.is_some() => Verb::Cas,
        verb => verb,
    };
    Request::MetaStore { meta, verb, len }
}

pub(super) fn delete(mut words: Words<'_>) -> Request<'_> {
    let key = match keyed(&mut words, MANY_FLAGS) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let mut meta = Meta::new(key, words);
    match meta.read() {
        Err(_) => say(BAD_FLAG),
        Ok(()) if meta.has_long_opaque() => say(LONG_OPAQUE),
        Ok(()) => Request::MetaDelete(meta),
    }
}

pub(super) fn delta(mut words: Words<'_>) -> Request<'_> {
    let key = match keyed(&mut words, MANY_FLAGS) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let mut meta = Meta::new(key, words);
    if meta.read().is_err() {
        return say(BAD_FLAG);
    }
    let down = match meta.mode {
        0 | b'I' | b'+' => false,
        b'D' | b'-' => true,
        _ => return say("CLIENT_ERROR invalid mode for ma M token"),
    };
    if meta.has_long_opaque() {
        return say(LONG_OPAQUE);
    }
    Request::MetaDelta { meta, down }
}

pub(super) fn debug(mut words: Words<'_>) -> Request<'_> {
    let Some(key) = words.next().filter(|key| key.len() <= KEY_MAX_BYTES) else {
        return say(BAD_LINE);
    };
    let mut meta = Meta::new(key, words);
    let mut rest = words;
    if rest.next() == Some(b"b") {
        let Some(decoded) = decode(key) else { return say(BAD_LINE) };
        (meta.key, meta.binary) = (Cow::Owned(decoded), true);
    }
    Request::MetaDebug(meta)
}

/// Base64 as memcached reads it: what is no letter of it is passed over.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut block, mut count, mut pad, mut total) = (0_u32, 0, 0, 0);
    for &byte in text {
        let Some(value) = sextet(byte) else { continue };
        total += 1;
        if pad > 0 && count == 0 {
            // Behind the end; only counted.
            continue;
        }
        pad += usize::from(byte == b'=');
        block = block << 6 | u32::from(value);
        count += 1;
        if count < 4 {
            continue;
        }
        if pad > 2 {
            return None;
        }
        let [_, bytes @ ..] = block.to_be_bytes();
        out.extend(bytes.iter().take(3 - pad));
        (block, count) = (0, 0);
    }
    (total > 0 && total % 4 == 0).then_some(out)
}

const fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_leniently() {
        assert_eq!(decode(b"Zm9v"), Some(b"foo".to_vec()));
        assert_eq!(decode(b"Zm8="), Some(b"fo".to_vec()));
        assert_eq!(decode(b"Zg=="), Some(b"f".to_vec()));
        assert_eq!(decode(b"Zm.9-v"), Some(b"foo".to_vec()));
        for wrong in [&b""[..], b"Zm9", b"Zm9vZ", b"Z===", b"...."] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
