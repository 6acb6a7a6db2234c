//! Command lines of the text protocol; those of the meta commands are handed to `meta.rs`.
//!
//! Errors that a line shows by itself are answers already ([`Request::Answer`]), in the words of memcached 1.6.18 and
//! found in its order. Next: `cache::memcached` runs the rest.

use super::{
    KEY_MAX_BYTES, LINE_MAX_BYTES,
    line::{Words, line, may_be_long},
    meta::{self, Meta},
    number::{parse_i32, parse_u32, parse_u64},
};

/// What the front of the input holds.
#[derive(Clone, Debug)]
pub enum Parsed<'a> {
    /// A whole command line; a storage command's data block follows it.
    Request {
        /// What it asks for.
        request: Request<'a>,
        /// Bytes of the line without its end.
        text_len: usize,
        /// Bytes of the line with it.
        line_len: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// A `get` or `gets` so long that its keys are better read as they come.
    LongGet {
        /// Whether it is `gets`.
        cas: bool,
        /// Bytes before the keys.
        head_len: usize,
    },
    /// No command of the text protocol: close.
    Invalid,
}

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// `get`, `gets`, `gat`, `gats`.
    Get(Get<'a>),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    Store(Store<'a>),
    /// `incr`, `decr`.
    Delta {
        /// The key.
        key: &'a [u8],
        /// By how much.
        delta: u64,
        /// `decr`.
        down: bool,
        /// No reply is wanted.
        noreply: bool,
    },
    /// `delete`.
    Delete {
        /// The key.
        key: &'a [u8],
        /// No reply is wanted.
        noreply: bool,
    },
    /// `touch`.
    Touch {
        /// The key.
        key: &'a [u8],
        /// The new expiry.
        exptime: i32,
        /// No reply is wanted.
        noreply: bool,
    },
    /// `mg`.
    MetaGet(Meta<'a>),
    /// `ms`.
    MetaStore {
        /// Key and flags.
        meta: Meta<'a>,
        /// What its mode comes to.
        verb: Verb,
        /// Bytes of the data block without its end.
        len: usize,
    },
    /// `md`.
    MetaDelete(Meta<'a>),
    /// `ma`.
    MetaDelta {
        /// Key and flags.
        meta: Meta<'a>,
        /// Decrement.
        down: bool,
    },
    /// `me`.
    MetaDebug(Meta<'a>),
    /// `flush_all`.
    Flush {
        /// After so many seconds, or at a time.
        delay: i32,
        /// No reply is wanted.
        noreply: bool,
    },
    /// `stats`, with the words behind it.
    Stats(Words<'a>),
    /// `quit`, and requests of other protocols.
    Quit,
    /// The answer is known; nothing when the text is empty.
    Answer {
        /// The line to answer with.
        text: &'static str,
        /// Bytes of a data block to be passed over.
        swallow: usize,
    },
}

/// A command that reads items.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The keys.
    pub keys: Words<'a>,
    /// CAS uniques are wanted.
    pub cas: bool,
    /// The items' new expiry, for `gat`.
    pub touch: Option<i32>,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Whatever there is.
    Set,
    /// Only when there is nothing.
    Add,
    /// Only in place of something.
    Replace,
    /// Behind what is there.
    Append,
    /// Before what is there.
    Prepend,
    /// Only in place of what the client knows.
    Cas,
}

/// A command that stores a value.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// Which.
    pub verb: Verb,
    /// The key.
    pub key: &'a [u8],
    /// The client's flags.
    pub flags: u32,
    /// The expiry.
    pub exptime: i32,
    /// Bytes of the data block without its end.
    pub len: usize,
    /// What the client knows.
    pub cas: u64,
    /// No reply is wanted.
    pub noreply: bool,
}

pub(super) const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
const ERROR: Request<'static> = say("ERROR");

/// The answer with this line.
pub(super) const fn say(text: &'static str) -> Request<'static> {
    Request::Answer { text, swallow: 0 }
}

const fn unless(noreply: bool, text: &'static str) -> Request<'static> {
    say(if noreply { "" } else { text })
}

impl<'a> Request<'a> {
    /// The key, of a command that has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Store(store) => Some(store.key),
            Self::Delta { key, .. } | Self::Delete { key, .. } | Self::Touch { key, .. } => {
                Some(key)
            }
            Self::MetaGet(meta)
            | Self::MetaStore { meta, .. }
            | Self::MetaDelete(meta)
            | Self::MetaDelta { meta, .. }
            | Self::MetaDebug(meta) => Some(&meta.key),
            _ => None,
        }
    }

    /// Bytes of the data block that follows, without its end.
    #[must_use]
    pub const fn data_len(&self) -> Option<usize> {
        match self {
            Self::Store(Store { len, .. }) | Self::MetaStore { len, .. } => Some(*len),
            _ => None,
        }
    }
}

/// Reads the command line at the front of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.first() == Some(&0x80) {
        // The binary protocol, whose requests hold no line that could be refused.
        return Parsed::Invalid;
    }
    if let Some((text, line_len)) = line(bytes) {
        return Parsed::Request { request: parse_line(text), text_len: text.len(), line_len };
    }
    if bytes.len() <= LINE_MAX_BYTES {
        return Parsed::Incomplete;
    }
    if !may_be_long(bytes) {
        return Parsed::Invalid;
    }
    let mut words = Words::new(bytes);
    let cas = words.next() == Some(b"gets");
    Parsed::LongGet { cas, head_len: bytes.len() - words.rest().len() }
}

/// Reads a line without its end.
#[must_use]
pub fn parse_line(line: &[u8]) -> Request<'_> {
    let mut words = Words::new(line);
    let Some(verb) = words.next().filter(|verb| verb.len() >= 2) else { return ERROR };
    match verb {
        b"get" | b"gets" | b"bget" => get(words, verb == b"gets", false),
        b"gat" | b"gats" => get(words, verb == b"gats", true),
        b"set" => store(words, Verb::Set),
        b"mg" => meta::get(words),
        b"ms" => meta::store(words),
        b"md" => meta::delete(words),
        b"ma" => meta::delta(words),
        b"mn" => say("MN"),
        b"me" => meta::debug(words),
        b"add" => store(words, Verb::Add),
        b"replace" => store(words, Verb::Replace),
        b"append" => store(words, Verb::Append),
        b"prepend" => store(words, Verb::Prepend),
        b"cas" => store(words, Verb::Cas),
        b"incr" => delta(words, false),
        b"decr" => delta(words, true),
        b"delete" => delete(words),
        b"touch" => touch(words),
        b"flush_all" => flush(words),
        b"version" => say("VERSION 1.6.18"),
        b"verbosity" => verbosity(words),
        b"stats" => Request::Stats(words),
        b"quit" => Request::Quit,
        b"shutdown" => say("ERROR: shutdown not enabled"),
        b"watch" => unless(Args::of(words).noreply, "CLIENT_ERROR watch commands not allowed"),
        b"cache_memlimit" => memlimit(words),
        b"slabs" => slabs(words),
        b"lru_crawler" => crawler(words),
        _ if words.last().unwrap_or(verb).starts_with(b"HTTP/") => Request::Quit,
        _ => ERROR,
    }
}

/// Words that are kept; further ones are only counted.
const ARGS: usize = 6;
/// As many words as memcached counts.
const COUNT_MAX: usize = 23;

/// The words behind the verb of a command that has few.
struct Args<'a> {
    words: [&'a [u8]; ARGS],
    count: usize,
    /// The last word says that no reply is wanted.
    noreply: bool,
}

impl<'a> Args<'a> {
    fn of(rest: Words<'a>) -> Self {
        let mut args = Self { words: [&[]; ARGS], count: 0, noreply: false };
        let mut last: &[u8] = &[];
        for word in rest.take(COUNT_MAX) {
            if let Some(place) = args.words.get_mut(args.count) {
                *place = word;
            }
            args.count += 1;
            last = word;
        }
        args.noreply = last == b"noreply";
        args
    }
}

fn get(mut keys: Words<'_>, cas: bool, touch: bool) -> Request<'_> {
    let all = keys;
    let Some(first) = keys.next() else { return ERROR };
    if !touch {
        return Request::Get(Get { keys: all, cas, touch: None });
    }
    match parse_i32(first) {
        Some(exptime) => Request::Get(Get { keys, cas, touch: Some(exptime) }),
        None => say("CLIENT_ERROR invalid exptime argument"),
    }
}

fn store(words: Words<'_>, verb: Verb) -> Request<'_> {
    let args = Args::of(words);
    let fixed = if verb == Verb::Cas { 5 } else { 4 };
    if args.count != fixed && args.count != fixed + 1 {
        return ERROR;
    }
    let [key, flags, exptime, len, cas, _] = args.words;
    let bad = unless(args.noreply, BAD_LINE);
    if key.len() > KEY_MAX_BYTES {
        return bad;
    }
    let (Some(flags), Some(exptime), Some(len)) =
        (parse_u32(flags), parse_i32(exptime), parse_i32(len))
    else {
        return bad;
    };
    let cas = match verb {
        Verb::Cas => parse_u64(cas),
        _ => Some(0),
    };
    let (Some(cas), Some(len)) = (cas, data_len(len)) else { return bad };
    Request::Store(Store { verb, key, flags, exptime, len, cas, noreply: args.noreply })
}

/// The length of a data block, when it is one.
pub(super) fn data_len(len: i32) -> Option<usize> {
    usize::try_from(len).ok().filter(|&len| len <= i32::MAX as usize - 2)
}

fn delta(words: Words<'_>, down: bool) -> Request<'_> {
    let args = Args::of(words);
    if args.count != 2 && args.count != 3 {
        return ERROR;
    }
    let [key, delta, ..] = args.words;
    if key.len() > KEY_MAX_BYTES {
        return unless(args.noreply, BAD_LINE);
    }
    match parse_u64(delta) {
        Some(delta) => Request::Delta { key, delta, down, noreply: args.noreply },
        None => unless(args.noreply, "CLIENT_ERROR invalid numeric delta argument"),
    }
}

fn delete(words: Words<'_>) -> Request<'_> {
    let args = Args::of(words);
    let [key, hold, ..] = args.words;
    let hold = hold == b"0";
    let valid = match args.count {
        1 => true,
        2 => hold || args.noreply,
        3 => hold && args.noreply,
        _ => return ERROR,
    };
    if !valid {
        let text = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
        return unless(args.noreply, text);
    }
    // A key alone is never the wish for no reply.
    let noreply = args.noreply && args.count > 1;
    if key.len() > KEY_MAX_BYTES {
        return unless(noreply, BAD_LINE);
    }
    Request::Delete { key, noreply }
}

fn touch(words: Words<'_>) -> Request<'_> {
    let args = Args::of(words);
    if args.count != 2 && args.count != 3 {
        return ERROR;
    }
    let [key, exptime, ..] = args.words;
    if key.len() > KEY_MAX_BYTES {
        return unless(args.noreply, BAD_LINE);
    }
    match parse_i32(exptime) {
        Some(exptime) => Request::Touch { key, exptime, noreply: args.noreply },
        None => unless(args.noreply, "CLIENT_ERROR invalid exptime argument"),
    }
}

fn flush(words: Words<'_>) -> Request<'_> {
    let args = Args::of(words);
    if args.count > 2 {
        return ERROR;
    }
    let [delay, ..] = args.words;
    if args.count == usize::from(args.noreply) {
        return Request::Flush { delay: 0, noreply: args.noreply };
    }
    match parse_i32(delay) {
        Some(delay) => Request::Flush { delay, noreply: args.noreply },
        None => unless(args.noreply, "CLIENT_ERROR invalid exptime argument"),
    }
}

fn verbosity(words: Words<'_>) -> Request<'_> {
    let args = Args::of(words);
    if args.count != 1 && args.count != 2 {
        return ERROR;
    }
    let [level, ..] = args.words;
    unless(args.noreply, if parse_u32(level).is_some() { "OK" } else { BAD_LINE })
}

/// The limit of memory is the cache's, not the protocol's.
fn memlimit(words: Words<'_>) -> Request<'_> {
    let args = Args::of(words);
    if args.count != 1 && args.count != 2 {
        return ERROR;
    }
    let [limit, ..] = args.words;
    unless(
        args.noreply,
        match parse_u32(limit) {
            None => "ERROR",
            Some(0..8) => "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
            Some(0..=1_000_000_000) => "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust",
            Some(_) => "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes",
        },
    )
}

/// There are slabs here, but nothing to be set about them.
fn slabs(words: Words<'_>) -> Request<'_> {
    let args = Args::of(words);
    match args.words {
        [b"reassign", ..] if args.count == 3 => say("CLIENT_ERROR slab reassignment disabled"),
        _ => ERROR,
    }
}

/// Due items go by themselves, and nobody is shown all keys.
fn crawler(words: Words<'_>) -> Request<'_> {
    let args = Args::of(words);
    match args.words {
        [b"metadump", ..] if args.count == 2 => say("ERROR metadump not allowed"),
        [b"crawl", ..] if args.count == 2 => say("CLIENT_ERROR lru crawler disabled"),
        _ => ERROR,
    }
}
