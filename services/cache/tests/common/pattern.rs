//! The text form of a reply and the matchers of the golden corpus (`golden/README.md`).
//!
//! What: [`render`] prints a [`Reply`], [`Pattern::parse`] reads an expected one, [`Pattern::matches`]
//! compares. Invariant: a reply without matchers is equal to its own rendering and to nothing else.
//! `record_golden.py` holds the same rules for the recording side.

use std::collections::BTreeMap;

use super::resp::Reply;

/// A bulk longer than this is written as its length and hash.
const LONG_BULK: usize = 400;

/// Values kept by `<save name>` in one case.
pub(crate) type Saved = BTreeMap<String, Vec<u8>>;

/// One expected reply.
#[derive(Debug)]
pub(crate) enum Pattern {
    Exact(Reply),
    /// Length and hash of a long bulk or verbatim string.
    Long(char, String),
    /// The elements, and whether more may follow.
    Seq(char, Vec<Self>, bool),
    Any,
    Int(i64, i64),
    Bulk,
    ErrorCode(String),
    Glob(Vec<Self>),
    Text(Vec<Self>),
    Unordered(Vec<Self>),
    /// Pairs in any order; true when others may be among them.
    Pairs(Vec<Self>, bool),
    OneOf(Vec<Self>),
    Save(String),
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parser = Parser { text: text.as_bytes(), at: 0 };
        let pattern = parser.value(true);
        parser.blanks();
        assert!(parser.at == text.len(), "text after the value in {text:?}");
        pattern
    }

    /// `proto` decides what `<text …>` stands for.
    pub(crate) fn matches(&self, reply: &Reply, proto: u8, saved: &mut Saved) -> bool {
        match self {
            Self::Exact(expected) => expected == reply,
            Self::Long(kind, mark) => {
                let kind_is =
                    matches!((kind, reply), ('$', Reply::Bulk(_)) | ('=', Reply::Verbatim(_)));
                kind_is && long_mark(reply.bytes()) == *mark
            }
            Self::Seq(kind, expected, more) => {
                let Reply::Seq(got_kind, got) = reply else {
                    return false;
                };
                let len_is =
                    if *more { got.len() >= expected.len() } else { got.len() == expected.len() };
                kind == got_kind
                    && len_is
                    && expected.iter().zip(got).all(|(e, g)| e.matches(g, proto, saved))
            }
            Self::Any => !matches!(reply, Reply::Closed | Reply::Nothing),
            Self::Int(low, high) => match reply {
                Reply::Int(value) => (low..=high).contains(&value),
                Reply::Bulk(text) => {
                    integer(text).is_some_and(|value| (*low..=*high).contains(&value))
                }
                _ => false,
            },
            Self::Bulk => matches!(reply, Reply::Bulk(_)),
            Self::ErrorCode(code) => {
                reply.is_error()
                    && reply.bytes().split(|&b| b == b' ').next() == Some(code.as_bytes())
            }
            Self::Glob(globs) => {
                matches!(reply, Reply::Bulk(_) | Reply::Simple(_) | Reply::Error(_))
                    && globs.iter().any(|glob| glob_matches(glob.glob(), reply.bytes()))
            }
            Self::Text(globs) => {
                let text = match reply {
                    Reply::Bulk(text) if proto == 2 => text.as_slice(),
                    Reply::Verbatim(text) if proto == 3 => {
                        text.strip_prefix(b"txt:").unwrap_or(b"")
                    }
                    _ => return false,
                };
                globs.iter().any(|glob| glob_matches(glob.glob(), text))
            }
            Self::OneOf(options) => {
                options.iter().any(|option| option.matches(reply, proto, saved))
            }
            Self::Save(name) => save(name, reply, saved),
            Self::Unordered(expected) => {
                matches!(reply, Reply::Seq('*' | '~', _))
                    && in_any_order(expected, reply.items(), proto, saved)
            }
            Self::Pairs(expected, more) => {
                matches!(reply, Reply::Seq('*' | '%', _))
                    && (*more || expected.len() == reply.items().len())
                    && pairs_match(expected, reply.items(), proto, saved)
            }
        }
    }

    fn glob(&self) -> &[u8] {
        match self {
            Self::Exact(reply) => reply.bytes(),
            _ => panic!("a glob is a quoted string"),
        }
    }
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Keeps a scalar under a name.
fn save(name: &str, reply: &Reply, saved: &mut Saved) -> bool {
    let value = match reply {
        Reply::Int(value) => value.to_string().into_bytes(),
        Reply::Bulk(text) | Reply::Simple(text) => text.clone(),
        _ => return false,
    };
    saved.insert(name.to_owned(), value);
    true
}

/// Each pattern is met by a different reply, and none is left (greedy: the corpus has no ambiguity).
fn in_any_order(expected: &[Pattern], got: &[Reply], proto: u8, saved: &mut Saved) -> bool {
    let mut left: Vec<&Reply> = got.iter().collect();
    for pattern in expected {
        let Some(at) = left.iter().position(|reply| pattern.matches(reply, proto, saved)) else {
            return false;
        };
        left.swap_remove(at);
    }
    left.is_empty()
}

fn pairs_match(expected: &[Pattern], got: &[Reply], proto: u8, saved: &mut Saved) -> bool {
    let mut left: Vec<&[Reply]> = got.chunks_exact(2).collect();
    for pair in expected.chunks_exact(2) {
        let found = left.iter().position(|candidate| {
            pair[0].matches(&candidate[0], proto, saved)
                && pair[1].matches(&candidate[1], proto, saved)
        });
        let Some(at) = found else { return false };
        left.swap_remove(at);
    }
    true
}

/// `*` stands for any bytes; nothing else is special.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut pieces = pattern.split(|&b| b == b'*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut pieces: Vec<&[u8]> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        if piece.is_empty() {
            continue;
        }
        let Some(at) = rest.windows(piece.len()).position(|window| window == piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn blanks(&mut self) {
        while self.peek() == b' ' {
            self.at += 1;
        }
    }

    fn starts_with(&self, what: &str) -> bool {
        self.text[self.at..].starts_with(what.as_bytes())
    }

    fn word(&mut self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|b| b" []{}>".contains(b)).unwrap_or(rest.len());
        self.at += end;
        String::from_utf8_lossy(&rest[..end]).into_owned()
    }

    fn quoted(&mut self) -> Vec<u8> {
        let (value, used) =
            unquote(&self.text[self.at..]).unwrap_or_else(|| panic!("bad quotes in {self}"));
        self.at += used;
        value
    }

    fn until(&mut self, close: &str) -> (Vec<Pattern>, bool) {
        let (mut items, mut more) = (Vec::new(), false);
        loop {
            self.blanks();
            assert!(self.at < self.text.len(), "{close} is missing in {self}");
            if self.starts_with(close) {
                self.at += close.len();
                return (items, more);
            }
            if self.starts_with("...") {
                self.at += 3;
                more = true;
            } else {
                items.push(self.value(false));
            }
        }
    }

    fn sequence(&mut self, kind: char, open: usize, close: &str) -> Pattern {
        self.at += open;
        let (items, more) = self.until(close);
        Pattern::Seq(kind, items, more)
    }

    fn line_text(&mut self, top: bool) -> Vec<u8> {
        self.at += 1;
        if self.peek() == b'"' {
            self.quoted()
        } else if top {
            self.text[std::mem::replace(&mut self.at, self.text.len())..].to_vec()
        } else {
            self.word().into_bytes()
        }
    }

    fn value(&mut self, top: bool) -> Pattern {
        self.blanks();
        let first = self.peek();
        match first {
            b'+' => Pattern::Exact(Reply::Simple(self.line_text(top))),
            b'-' => Pattern::Exact(Reply::Error(self.line_text(top))),
            b'"' => Pattern::Exact(Reply::Bulk(self.quoted())),
            b'[' => self.sequence('*', 1, "]"),
            b'{' => self.sequence('%', 1, "}"),
            b'~' | b'>' => self.sequence(char::from(first), 2, "]"),
            b'<' => {
                self.at += 1;
                self.matcher()
            }
            b':' => {
                self.at += 1;
                let word = self.word();
                Pattern::Exact(Reply::Int(
                    word.parse().unwrap_or_else(|_| panic!("bad integer in {self}")),
                ))
            }
            b'=' => {
                self.at += 1;
                if self.peek() == b'#' {
                    self.at += 1;
                    Pattern::Long('=', self.word())
                } else {
                    Pattern::Exact(Reply::Verbatim(self.quoted()))
                }
            }
            b'#' if !self.starts_with("#t") && !self.starts_with("#f") => {
                self.at += 1;
                Pattern::Long('$', self.word())
            }
            b',' | b'(' | b'#' => {
                self.at += 1;
                Pattern::Exact(Reply::Scalar(char::from(first), self.word().into_bytes()))
            }
            _ => Pattern::Exact(match self.word().as_str() {
                "nil" => Reply::Nil,
                "nilarray" => Reply::NilArray,
                "null" => Reply::Null,
                other => panic!("unknown value {other:?} in {self}"),
            }),
        }
    }

    fn argument(&mut self) -> String {
        self.blanks();
        let word = self.word();
        assert!(self.peek() == b'>', "> is missing in {self}");
        self.at += 1;
        word
    }

    fn matcher(&mut self) -> Pattern {
        let name = self.word();
        match name.as_str() {
            "int" => {
                let range = self.argument();
                let Some((low, high)) = range.split_once("..") else {
                    return Pattern::Int(i64::MIN, i64::MAX);
                };
                let bound =
                    |text: &str| text.parse().unwrap_or_else(|_| panic!("bad range in {self}"));
                Pattern::Int(bound(low), bound(high))
            }
            "err" => Pattern::ErrorCode(self.argument()),
            "save" => Pattern::Save(self.argument()),
            _ => {
                let (items, _) = self.until(">");
                match name.as_str() {
                    "any" => Pattern::Any,
                    "bulk" => Pattern::Bulk,
                    "closed" => Pattern::Exact(Reply::Closed),
                    "nothing" => Pattern::Exact(Reply::Nothing),
                    "glob" => Pattern::Glob(items),
                    "text" => Pattern::Text(items),
                    "unordered" => Pattern::Unordered(items),
                    "map" => Pattern::Pairs(items, false),
                    "has" => Pattern::Pairs(items, true),
                    "oneof" => Pattern::OneOf(items),
                    _ => panic!("unknown matcher {name:?} in {self}"),
                }
            }
        }
    }
}

impl std::fmt::Display for Parser<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {}", String::from_utf8_lossy(self.text), self.at)
    }
}

/// A quoted string at the start of `text`: its bytes and how much of `text` it takes.
pub(crate) fn unquote(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some((out, at + 1)),
            b'\\' => {
                let escaped = *text.get(at + 1)?;
                at += 2;
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'0' => 0,
                    b'x' => {
                        let digits = std::str::from_utf8(text.get(at..at + 2)?).ok()?;
                        at += 2;
                        u8::from_str_radix(digits, 16).ok()?
                    }
                    other => other,
                });
            }
            &plain => {
                out.push(plain);
                at += 1;
            }
        }
    }
}

fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for &b in bytes {
        match b {
            b'"' | b'\\' => out.extend(['\\', char::from(b)]),
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            32..=126 => out.push(char::from(b)),
            _ => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out + "\""
}

/// Length and FNV-1a hash of a long string.
fn long_mark(bytes: &[u8]) -> String {
    let step = |hash: u64, &b: &u8| (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{}:{hash:016x}", bytes.len())
}

/// The text form of a reply.
pub(crate) fn render(reply: &Reply) -> String {
    let string = |mark: &str, bytes: &[u8]| {
        if bytes.len() > LONG_BULK {
            format!("{mark}#{}", long_mark(bytes))
        } else {
            format!("{mark}{}", quote(bytes))
        }
    };
    let line = |mark: char, bytes: &[u8]| {
        let plain = bytes.iter().all(|b| (33..=126).contains(b));
        if plain {
            format!("{mark}{}", String::from_utf8_lossy(bytes))
        } else {
            format!("{mark}{}", quote(bytes))
        }
    };
    match reply {
        Reply::Simple(text) => line('+', text),
        Reply::Error(text) => line('-', text),
        Reply::Int(value) => format!(":{value}"),
        Reply::Bulk(text) => string("", text),
        Reply::Verbatim(text) => string("=", text),
        Reply::Nil => "nil".to_owned(),
        Reply::NilArray => "nilarray".to_owned(),
        Reply::Null => "null".to_owned(),
        Reply::Scalar(kind, text) => format!("{kind}{}", String::from_utf8_lossy(text)),
        Reply::Closed => "<closed>".to_owned(),
        Reply::Nothing => "<nothing>".to_owned(),
        Reply::Seq(kind, items) => {
            let inner = items.iter().map(render).collect::<Vec<_>>().join(" ");
            match kind {
                '*' => format!("[{inner}]"),
                '%' => format!("{{{inner}}}"),
                other => format!("{other}[{inner}]"),
            }
        }
    }
}
