//! What the rule tests share: the files of the repository, and Rust source without comments and strings.
//!
//! The rules are about code, so a word in a comment, in a string or in a longer name must not count;
//! [`code_only`] blanks those out and leaves every line where it was. Invariant: its output has the
//! same lines as its input. Where next: the three test files beside this folder.
#![allow(dead_code, reason = "each test binary uses its part of this module")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "data", "node_modules"];

/// The repository's top folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("services/node is two folders down").to_owned()
}

/// A file of the repository: its path from the top, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every text file whose name ends like one of `endings`, in a fixed order.
pub(crate) fn sources(endings: &[&str]) -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        endings.iter().any(|ending| name.ends_with(ending))
    };
    paths
        .into_iter()
        .filter(wanted)
        .filter_map(|path| {
            // A file that is not text, or that another test removes just now, has no rules to keep.
            let text = fs::read_to_string(&path).ok()?;
            let path = path.strip_prefix(&root).expect("found below it");
            Some(Source { path: path.to_string_lossy().into_owned(), text })
        })
        .collect()
}

/// The Rust files.
pub(crate) fn rust() -> Vec<Source> {
    let found = sources(&[".rs"]);
    assert!(found.len() > 50, "only {} Rust files found below {:?}", found.len(), root());
    found
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), paths);
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
}

/// Rust source with comments, strings and character literals blanked out.
pub(crate) fn code_only(source: &str) -> String {
    let mut blank =
        Blank { bytes: source.as_bytes(), at: 0, out: Vec::with_capacity(source.len()) };
    while blank.at < blank.bytes.len() {
        blank.step();
    }
    String::from_utf8(blank.out).expect("whole characters are kept or blanked")
}

/// Where `word` stands alone, as line numbers from 1.
pub(crate) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let alone = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let bytes = line.as_bytes();
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            !part(before) && !part(bytes.get(at + word.len()))
        })
    };
    code.lines().enumerate().filter(|(_, line)| alone(line)).map(|(at, _)| at + 1).collect()
}

/// The scanner of [`code_only`].
struct Blank<'a> {
    bytes: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Blank<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn keep(&mut self, len: usize) {
        self.out.extend_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
    }

    /// Replaces bytes by spaces, but not the ends of lines.
    fn hide(&mut self, len: usize) {
        let len = len.min(self.rest().len());
        for byte in &self.bytes[self.at..self.at + len] {
            self.out.push(if *byte == b'\n' { b'\n' } else { b' ' });
        }
        self.at += len;
    }

    fn step(&mut self) {
        let rest = self.rest();
        if rest.starts_with(b"//") {
            let len = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            return self.hide(len);
        }
        if rest.starts_with(b"/*") {
            let len = nested_comment(rest);
            return self.hide(len);
        }
        let in_word = self.out.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if !in_word && let Some(len) = raw_string(rest) {
            return self.hide(len);
        }
        match rest[0] {
            b'"' => {
                let len = quoted(rest);
                self.hide(len);
            }
            b'\'' => match character(rest) {
                Some(len) => self.hide(len),
                None => self.keep(1),
            },
            _ => {
                let mut len = 1;
                // Never half of a character.
                while rest.get(len).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    len += 1;
                }
                self.keep(len);
            }
        }
    }
}

fn nested_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `r"…"`, `br#"…"#` and the like.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let start = rest.iter().position(|byte| *byte == b'r').filter(|at| *at <= 1)?;
    if start == 1 && !matches!(rest[0], b'b' | b'c') {
        return None;
    }
    let hashes = rest[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let body = start + 1 + hashes;
    if rest.get(body) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let found = rest[body + 1..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(rest.len(), |at| body + 1 + at + end.len()))
}

/// The length of an ordinary string.
fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal, `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|byte| *byte == b'\'')?;
        return Some(end + 4);
    }
    let text = rest.get(1..rest.len().min(6))?;
    let end = text.iter().position(|byte| *byte == b'\'')?;
    let one = std::str::from_utf8(&text[..end]).is_ok_and(|text| text.chars().count() == 1);
    one.then_some(end + 2)
}
