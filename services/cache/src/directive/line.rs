//! Reading directives: from redis-server's flags, from a redis.conf, from standard input.
//!
//! The rules are those of redis-server 7.0.15: the first argument may name a file, `-` first or last is standard input,
//! `--name` begins a directive that takes every argument up to the next one that begins with two dashes, `--save` may stand
//! without a value, and an argument right behind a name is its value whatever it begins with. Options of our own are
//! passed on as they are. Invariant: nothing here knows what a directive means. Next: the table in `mod.rs`.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;

use engine::error::{Error, Kind};

/// The longest file of directives.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// How deep files may include others.
const INCLUDE_DEPTH_MAX: usize = 16;

/// One directive and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// In lower case.
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
    /// For messages: `--port`, `redis.conf line 3`.
    pub(crate) place: String,
}

/// A command line, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Options of our own, with their values.
    pub(crate) own: Vec<OsString>,
    /// The file that the first argument names.
    pub(crate) file: Option<String>,
    /// Directives come from standard input too.
    pub(crate) stdin: bool,
    /// Those of the command line.
    pub(crate) directives: Vec<Directive>,
    pub(crate) version: bool,
    pub(crate) help: bool,
}

/// Who knows a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// An option of ours that takes a value.
    Own,
    /// An option of ours that may stand alone.
    OwnFlag,
    /// A directive, which may share its name with an option of ours.
    Directive,
    Nobody,
}

pub(super) fn wrong(problem: impl Into<String>, remedy: &str) -> Error {
    Error::new("option", Kind::Invalid, problem.into()).remedied(remedy)
}

fn text(arg: OsString) -> Result<String, Error> {
    arg.into_string()
        .map_err(|arg| wrong(format!("`{}`: not UTF-8", arg.to_string_lossy()), "give UTF-8"))
}

impl Line {
    /// Takes the arguments apart, without the program's name.
    pub(crate) fn read(args: Vec<OsString>, known: impl Fn(&str) -> Known) -> Result<Self, Error> {
        let mut line = Self::default();
        let (count, mut index) = (args.len(), 0);
        let mut args = args.into_iter().peekable();
        // Whether the last directive takes further values, and whether it has none yet.
        let (mut open, mut waits) = (false, false);
        while let Some(arg) = args.next() {
            let arg = text(arg)?;
            let (first, last) = (index == 0, index + 1 == count);
            index += 1;
            match arg.as_str() {
                "-" if first || last => line.stdin = true,
                "-v" | "-V" | "--version" if !waits => line.version = true,
                "-h" | "--help" if !waits => line.help = true,
                _ if first && !arg.starts_with('-') => line.file = Some(arg),
                _ if !waits && arg.starts_with("--") => {
                    let body = arg.get(2..).unwrap_or_default();
                    // Name and values may come as one argument, too.
                    let end = body.find([' ', '=']).unwrap_or(body.len());
                    let (name, rest) = body.split_at(end);
                    match (known(name), rest.strip_prefix('=')) {
                        (Known::Nobody, _) => {
                            // The table of our options refuses it, with advice.
                            line.own.push(arg.into());
                            return Ok(line);
                        }
                        (Known::Own | Known::OwnFlag, Some(_)) | (Known::OwnFlag, None) => {
                            line.own.push(arg.into());
                        }
                        (Known::Own, None) => {
                            line.own.push(arg.into());
                            index += 1;
                            line.own.extend(args.next());
                        }
                        (Known::Directive, Some(value)) => {
                            line.push(name, vec![value.to_owned()]);
                        }
                        (Known::Directive, None) => {
                            let next_is_flag = args
                                .peek()
                                .is_none_or(|next| next.to_string_lossy().starts_with("--"));
                            waits = line.begin(body, next_is_flag)?;
                            open = true;
                            continue;
                        }
                    }
                    open = false;
                }
                _ => match line.directives.last_mut() {
                    Some(directive) if open => {
                        directive.values.push(arg);
                        waits = false;
                    }
                    _ => {
                        return Err(wrong(
                            format!("`{arg}`: no option before it"),
                            "give `--name value`, or a redis.conf as the first argument",
                        ));
                    }
                },
            }
        }
        Ok(line)
    }

    /// Begins a directive; whether a value must follow.
    fn begin(&mut self, body: &str, next_is_flag: bool) -> Result<bool, Error> {
        let words = split_words(body)
            .ok_or_else(|| wrong(format!("--{body}: unbalanced quotes"), "close the quotes"))?;
        let mut words = words.into_iter();
        let name = words.next().unwrap_or_default();
        let mut values: Vec<String> = words.collect();
        if values.is_empty() && name.eq_ignore_ascii_case("save") && next_is_flag {
            values.push(String::new());
        }
        let waits = values.is_empty();
        self.push(&name, values);
        Ok(waits)
    }

    fn push(&mut self, name: &str, values: Vec<String>) {
        let place = format!("--{name}");
        self.directives.push(Directive { name: name.to_ascii_lowercase(), values, place });
    }
}

/// Reads a whole file of directives, and those it includes, in their places.
pub(super) fn read_file(path: &str, depth: usize, all: &mut Vec<Directive>) -> Result<(), Error> {
    let failed = |source| Error::io("read", source, path.to_owned());
    let file = std::fs::File::open(Path::new(path)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    read_text(path, bytes, depth, all)
}

/// Reads standard input to its end.
pub(super) fn read_stdin(all: &mut Vec<Directive>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    let input = std::io::stdin().lock().take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes);
    input.map_err(|source| Error::io("read", source, "standard input"))?;
    read_text("standard input", bytes, 0, all)
}

pub(super) fn read_text(
    name: &str,
    bytes: Vec<u8>,
    depth: usize,
    all: &mut Vec<Directive>,
) -> Result<(), Error> {
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(wrong(format!("{name}: over 1 MiB"), "give a file of directives"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| wrong(format!("{name}: not UTF-8 text"), "give a file of directives"))?;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches([' ', '\t', '\r', '\n']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{name} line {number}");
        let words = split_words(line)
            .ok_or_else(|| wrong(format!("{place}: unbalanced quotes"), "close the quotes"))?;
        let mut words = words.into_iter();
        let Some(directive) = words.next() else { continue };
        let directive = directive.to_ascii_lowercase();
        let values: Vec<String> = words.collect();
        if directive != "include" {
            all.push(Directive { name: directive, values, place });
            continue;
        }
        let [path] = values.as_slice() else {
            return Err(wrong(format!("{place}: include takes one file"), "name one"));
        };
        if depth >= INCLUDE_DEPTH_MAX {
            return Err(wrong(format!("{place}: files include each other"), "include each once"));
        }
        read_file(path, depth + 1, all)?;
    }
    Ok(())
}

/// Words as `redis.conf` has them: blanks between, `"…"` with escapes, `'…'` with none but `\'`. `None` when a quote is not
/// closed, or closed in the middle of a word.
pub(crate) fn split_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.as_bytes();
    loop {
        while let [first, tail @ ..] = rest
            && first.is_ascii_whitespace()
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let (word, tail) = split_word(rest)?;
        words.push(String::from_utf8_lossy(&word).into_owned());
        rest = tail;
    }
}

fn split_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b' ' | b'\n' | b'\r' | b'\t' | 0 => break,
            b'"' => {
                rest = double_quoted(rest, &mut word)?;
                return ends(rest).then_some((word, rest));
            }
            b'\'' => {
                rest = single_quoted(rest, &mut word)?;
                return ends(rest).then_some((word, rest));
            }
            _ => word.push(*first),
        }
    }
    Some((word, rest))
}

fn ends(rest: &[u8]) -> bool {
    rest.first().is_none_or(u8::is_ascii_whitespace)
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    loop {
        match rest {
            [b'\\', b'x', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                word.push(hex(*high)? << 4 | hex(*low)?);
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'"', tail @ ..] => return Some(tail),
            [first, tail @ ..] => {
                word.push(*first);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return Some(tail),
            [first, tail @ ..] => {
                word.push(*first);
                rest = tail;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Known {
        match name.to_ascii_lowercase().as_str() {
            "shards" => Known::Own,
            "pin" | "no-pin" => Known::OwnFlag,
            "port" | "save" | "bind" | "requirepass" => Known::Directive,
            _ => Known::Nobody,
        }
    }

    fn read(args: &[&str]) -> Line {
        let args = args.iter().map(OsString::from).collect();
        Line::read(args, known).unwrap_or_else(|error| panic!("{error}"))
    }

    fn shown(line: &Line) -> Vec<String> {
        let one = |directive: &Directive| format!("{} {:?}", directive.name, directive.values);
        line.directives.iter().map(one).collect()
    }

    #[test]
    fn a_directive_takes_what_follows() {
        let line = read(&["a.conf", "--port", "7000", "--bind", "::1", "127.0.0.1", "--no-pin"]);
        assert_eq!(line.file.as_deref(), Some("a.conf"));
        assert_eq!(shown(&line), [r#"port ["7000"]"#, r#"bind ["::1", "127.0.0.1"]"#]);
        assert_eq!(line.own, ["--no-pin"]);
        let line = read(&["--PORT 7000", "--requirepass", "--x", "--shards", "2", "-"]);
        assert_eq!(shown(&line), [r#"port ["7000"]"#, r#"requirepass ["--x"]"#]);
        assert_eq!(line.own, ["--shards", "2"]);
        assert!(line.stdin);
    }

    #[test]
    fn save_may_stand_alone() {
        assert_eq!(shown(&read(&["--save"])), [r#"save [""]"#]);
        let line = read(&["--save", "--port", "1"]);
        assert_eq!(shown(&line), [r#"save [""]"#, r#"port ["1"]"#]);
        assert_eq!(shown(&read(&["--save", "60", "1"])), [r#"save ["60", "1"]"#]);
        assert_eq!(shown(&read(&["--save", ""])), [r#"save [""]"#]);
    }

    #[test]
    fn a_word_without_an_option_is_refused() {
        let args = ["--no-pin", "x"].iter().map(OsString::from).collect();
        assert!(Line::read(args, known).is_err());
    }

    #[test]
    fn words_are_quoted_as_in_redis() {
        let words = |line: &str| split_words(line).map(|words| words.join("|"));
        assert_eq!(words(r#"a "b c" 'd\'e' "\x41\n\q""#).as_deref(), Some("a|b c|d'e|A\nq"));
        assert_eq!(words(r#"save """#).as_deref(), Some("save|"));
        for bad in [r#"a "b"#, "a 'b", r#""a"b"#] {
            assert_eq!(words(bad), None, "{bad}");
        }
    }

    #[test]
    fn files_are_read_line_by_line() {
        let mut all = Vec::new();
        let text = b"# none\n\n  Port 1 \nbind a b\r\n".to_vec();
        read_text("x.conf", text, 0, &mut all).unwrap_or_else(|error| panic!("{error}"));
        let places: Vec<&str> = all.iter().map(|directive| directive.place.as_str()).collect();
        assert_eq!(places, ["x.conf line 3", "x.conf line 4"]);
        assert_eq!(all[1].values, ["a", "b"]);
    }
}
