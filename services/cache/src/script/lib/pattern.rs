//! Lua's patterns, as Lua 5.1 matches them, on a stack and in a time that are bounded.
//!
//! Lua's own matcher recurses once for each item of a pattern that repeats or captures, so that a long pattern ends the
//! process, and nothing ends one that tries every way to match. Here, nesting has a bound ([`DEPTH_MAX`]), and steps are
//! counted for who looks at the clock. Everything else is as there, its texts of errors too: a NUL ends a pattern, and
//! what is looked at behind the end of either text is a NUL.
//!
//! Invariants: no byte outside of the two texts is read; an error leaves nothing behind. Next: `strings.rs`.

/// Most captures.
const CAPTURES_MAX: usize = 32;
/// Deepest nesting; later versions of Lua have 200.
const DEPTH_MAX: u32 = 1000;

const ESCAPE: u8 = b'%';

/// Why matching ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The pattern is wrong; what is.
    Wrong(&'static str),
    /// Who looks at the clock says so.
    Ended,
}

/// What a capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    /// It has begun here.
    Open(usize),
    /// A place in the text.
    Place(usize),
    /// A part of it: from where to where.
    Part(usize, usize),
}

type Found = Result<Option<usize>, Stop>;

/// Matches one pattern against one text.
pub(super) struct Matcher<'a> {
    text: &'a [u8],
    pattern: &'a [u8],
    captures: [Capture; CAPTURES_MAX],
    level: usize,
    depth: u32,
    /// Counts a step; whether to go on.
    go_on: &'a dyn Fn() -> bool,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(text: &'a [u8], pattern: &'a [u8], go_on: &'a dyn Fn() -> bool) -> Self {
        let captures = [Capture::Open(0); CAPTURES_MAX];
        Self { text, pattern, captures, level: 0, depth: 0, go_on }
    }

    /// Whether the pattern matches only at the place where it is tried first.
    pub(super) fn is_anchored(&self) -> bool {
        self.pattern.first() == Some(&b'^')
    }

    /// Where a match that begins at `from` ends; its captures are kept. `skip`: bytes of the pattern that are no part of it.
    pub(super) fn at(&mut self, from: usize, skip: usize) -> Found {
        (self.level, self.depth) = (0, 0);
        self.matches(from, skip)
    }

    /// The first match at `from` or behind: from where to where.
    pub(super) fn search(&mut self, from: usize) -> Result<Option<(usize, usize)>, Stop> {
        let anchored = self.is_anchored();
        for start in from..=self.text.len() {
            if let Some(end) = self.at(start, usize::from(anchored))? {
                return Ok(Some((start, end)));
            }
            if anchored {
                break;
            }
        }
        Ok(None)
    }

    /// As [`search`](Self::search), where an anchor is a character like others.
    pub(super) fn search_plainly(&mut self, from: usize) -> Result<Option<(usize, usize)>, Stop> {
        for start in from..=self.text.len() {
            if let Some(end) = self.at(start, 0)? {
                return Ok(Some((start, end)));
            }
        }
        Ok(None)
    }

    /// The captures of the last match.
    pub(super) fn captures(&self) -> &[Capture] {
        self.captures.get(..self.level).unwrap_or_default()
    }

    fn step(&self) -> Result<(), Stop> {
        if (self.go_on)() { Ok(()) } else { Err(Stop::Ended) }
    }

    fn item(&self, at: usize) -> u8 {
        self.pattern.get(at).copied().unwrap_or(0)
    }

    /// Where the match of the pattern from `p` on, of the text from `s` on, ends.
    fn matches(&mut self, s: usize, p: usize) -> Found {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Stop::Wrong("pattern too complex"));
        }
        let found = self.items(s, p);
        self.depth -= 1;
        found
    }

    fn items(&mut self, mut s: usize, mut p: usize) -> Found {
        loop {
            self.step()?;
            match (self.item(p), self.item(p + 1)) {
                (0, _) => return Ok(Some(s)),
                (b'(', b')') => return self.open(s, p + 2, Capture::Place(s)),
                (b'(', _) => return self.open(s, p + 1, Capture::Open(s)),
                (b')', _) => return self.close(s, p + 1),
                (b'$', 0) => return Ok(Some(s).filter(|&s| s == self.text.len())),
                (ESCAPE, b'b') => {
                    let Some(end) = self.balance(s, p + 2)? else { return Ok(None) };
                    (s, p) = (end, p + 4);
                }
                (ESCAPE, b'f') => {
                    let Some(next) = self.frontier(s, p + 2)? else { return Ok(None) };
                    p = next;
                }
                (ESCAPE, digit) if digit.is_ascii_digit() => {
                    let Some(end) = self.repeat(s, digit)? else { return Ok(None) };
                    (s, p) = (end, p + 2);
                }
                _ => {
                    let end = self.class_end(p)?;
                    let fits = self.text.get(s).is_some_and(|&byte| self.single(byte, p, end));
                    match self.item(end) {
                        b'?' => {
                            if fits && let Some(found) = self.matches(s + 1, end + 1)? {
                                return Ok(Some(found));
                            }
                            p = end + 1;
                        }
                        b'*' => return self.most(s, p, end),
                        b'+' if fits => return self.most(s + 1, p, end),
                        b'-' => return self.least(s, p, end),
                        b'+' => return Ok(None),
                        _ if fits => (s, p) = (s + 1, end),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    /// As often as it goes, then less often.
    fn most(&mut self, s: usize, p: usize, end: usize) -> Found {
        let rest = self.text.get(s..).unwrap_or_default();
        let most = rest.iter().take_while(|&&byte| self.single(byte, p, end)).count();
        for count in (0..=most).rev() {
            if let Some(found) = self.matches(s + count, end + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// As seldom as it goes, then more often.
    fn least(&mut self, mut s: usize, p: usize, end: usize) -> Found {
        loop {
            if let Some(found) = self.matches(s, end + 1)? {
                return Ok(Some(found));
            }
            match self.text.get(s) {
                Some(&byte) if self.single(byte, p, end) => s += 1,
                _ => return Ok(None),
            }
        }
    }

    fn open(&mut self, s: usize, p: usize, capture: Capture) -> Found {
        let Some(place) = self.captures.get_mut(self.level) else {
            return Err(Stop::Wrong("too many captures"));
        };
        *place = capture;
        self.level += 1;
        let found = self.matches(s, p)?;
        if found.is_none() {
            self.level -= 1;
        }
        Ok(found)
    }

    fn close(&mut self, s: usize, p: usize) -> Found {
        let open = |capture: &Capture| matches!(capture, Capture::Open(_));
        let last = self.captures().iter().rposition(open);
        let last = last.ok_or(Stop::Wrong("invalid pattern capture"))?;
        let Some(place) = self.captures.get_mut(last) else { return Ok(None) };
        let before = *place;
        if let Capture::Open(from) = before {
            *place = Capture::Part(from, s);
        }
        let found = self.matches(s, p)?;
        if found.is_none()
            && let Some(place) = self.captures.get_mut(last)
        {
            *place = before;
        }
        Ok(found)
    }

    /// `%bxy`: the pair at `p`.
    fn balance(&self, s: usize, p: usize) -> Found {
        let (open, close) = (self.item(p), self.item(p + 1));
        if open == 0 || close == 0 {
            return Err(Stop::Wrong("unbalanced pattern"));
        }
        if self.text.get(s).copied().unwrap_or(0) != open {
            return Ok(None);
        }
        let mut depth = 1_usize;
        for (at, &byte) in self.text.iter().enumerate().skip(s + 1) {
            if at % 64 == 0 {
                self.step()?;
            }
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: the set at `p`; where the pattern goes on.
    fn frontier(&self, s: usize, p: usize) -> Found {
        if self.item(p) != b'[' {
            return Err(Stop::Wrong("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        let byte = |at: Option<usize>| at.and_then(|at| self.text.get(at)).copied().unwrap_or(0);
        let (before, here) = (byte(s.checked_sub(1)), byte(Some(s)));
        let is_one = !self.set(before, p, end - 1) && self.set(here, p, end - 1);
        Ok(Some(end).filter(|_| is_one))
    }

    /// `%1`: what was captured, again.
    fn repeat(&self, s: usize, digit: u8) -> Found {
        let index = usize::from(digit).checked_sub(usize::from(b'1'));
        let capture = index.and_then(|index| self.captures().get(index));
        let (from, to) = match capture {
            None | Some(Capture::Open(_)) => return Err(Stop::Wrong("invalid capture index")),
            Some(Capture::Place(_)) => return Ok(None),
            Some(Capture::Part(from, to)) => (*from, *to),
        };
        let before = self.text.get(from..to).unwrap_or_default();
        let rest = self.text.get(s..).unwrap_or_default();
        Ok(Some(s + before.len()).filter(|_| rest.starts_with(before)))
    }

    /// Where the item at `p` ends, without what says how often.
    fn class_end(&self, p: usize) -> Result<usize, Stop> {
        let mut at = p + 1;
        match self.item(p) {
            ESCAPE if self.item(at) == 0 => Err(Stop::Wrong("malformed pattern (ends with '%')")),
            ESCAPE => Ok(at + 1),
            b'[' => {
                if self.item(at) == b'^' {
                    at += 1;
                }
                loop {
                    let byte = self.item(at);
                    if byte == 0 {
                        return Err(Stop::Wrong("malformed pattern (missing ']')"));
                    }
                    at += 1;
                    if byte == ESCAPE && self.item(at) != 0 {
                        at += 1;
                    }
                    if self.item(at) == b']' {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(at),
        }
    }

    /// Whether a byte is what the item from `p` to `end` stands for.
    fn single(&self, byte: u8, p: usize, end: usize) -> bool {
        match self.item(p) {
            b'.' => true,
            ESCAPE => is_of_class(byte, self.item(p + 1)),
            b'[' => self.set(byte, p, end - 1),
            other => other == byte,
        }
    }

    /// Whether a byte is in the set from `p` to its bracket at `end`.
    fn set(&self, byte: u8, mut p: usize, end: usize) -> bool {
        let is_in = self.item(p + 1) != b'^';
        if !is_in {
            p += 1;
        }
        loop {
            p += 1;
            if p >= end {
                return !is_in;
            }
            let item = self.item(p);
            if item == ESCAPE {
                p += 1;
                if is_of_class(byte, self.item(p)) {
                    return is_in;
                }
            } else if self.item(p + 1) == b'-' && p + 2 < end {
                p += 2;
                if item <= byte && byte <= self.item(p) {
                    return is_in;
                }
            } else if item == byte {
                return is_in;
            }
        }
    }
}

/// Whether a byte is of a class, such as `a` for letters and `A` for all else; what is no class is itself.
fn is_of_class(byte: u8, class: u8) -> bool {
    let is = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 11,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is == class.is_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    type Answer = Result<Option<(usize, usize)>, Stop>;

    fn search(text: &str, pattern: &str) -> Answer {
        Matcher::new(text.as_bytes(), pattern.as_bytes(), &|| true).search(0)
    }

    /// Answers of lua5.1's own `string.find`, but for where they begin to count.
    #[test]
    fn patterns_match_as_in_lua() {
        for (text, pattern, found) in [
            ("hello world", "o w", Some((4, 7))),
            ("hello", "l+", Some((2, 4))),
            ("hello", "l-", Some((0, 0))),
            ("hello", "xl?", None),
            ("key = value", "^(%w+)%s*=%s*(%w+)$", Some((0, 11))),
            ("f(a(b)c)d", "%b()", Some((1, 8))),
            ("THE (quick) fox", "%f[%a]%a+", Some((0, 3))),
            ("THE (quick) fox", "%f[%l]%l+%f[%L]", Some((5, 10))),
            ("abcabc", "(abc)%1", Some((0, 6))),
            ("x]y", "[]]", Some((1, 2))),
            ("a-b", "[a%-]+", Some((0, 2))),
            ("azAZ", "[^a-z]+", Some((2, 4))),
            ("", "", Some((0, 0))),
            ("abc", "b$", None),
            ("a$c", "a$c", Some((0, 3))),
            ("\u{b}", "%s", Some((0, 1))),
            ("aaab", "a-b", Some((0, 4))),
            ("abc", "()b()", Some((1, 2))),
            ("a.b", "%.", Some((1, 2))),
            ("ab", "a\0c", Some((0, 1))),
        ] {
            assert_eq!(search(text, pattern), Ok(found), "{pattern} in {text}");
        }
    }

    #[test]
    fn wrong_patterns_are_told_as_in_lua() {
        for (pattern, what) in [
            ("%", "malformed pattern (ends with '%')"),
            ("[a", "malformed pattern (missing ']')"),
            ("[]", "malformed pattern (missing ']')"),
            ("[^]", "malformed pattern (missing ']')"),
            ("a)", "invalid pattern capture"),
            ("%1", "invalid capture index"),
            ("(%1)", "invalid capture index"),
            ("%b(", "unbalanced pattern"),
            ("%fa", "missing '[' after '%f' in pattern"),
        ] {
            assert_eq!(search("aaa", pattern), Err(Stop::Wrong(what)), "{pattern}");
        }
        assert_eq!(search("a", &"()".repeat(32)), Ok(Some((0, 0))));
        assert_eq!(search("a", &"()".repeat(33)), Err(Stop::Wrong("too many captures")));
    }

    #[test]
    fn nesting_ends_at_the_bound_and_steps_end_when_told() {
        let text = "a".repeat(2000);
        let most = DEPTH_MAX as usize - 1;
        assert_eq!(search(&text, &"a?".repeat(most)), Ok(Some((0, most))));
        let complex = Err(Stop::Wrong("pattern too complex"));
        assert_eq!(search(&text, &"a?".repeat(most + 1)), complex);
        assert_eq!(search(&text, &"a?".repeat(300_000)), complex);
        let left = Cell::new(100_000_u32);
        let go_on = || {
            left.set(left.get().saturating_sub(1));
            left.get() > 0
        };
        let pattern = [b"a*".repeat(30), b"b".to_vec()].concat();
        assert_eq!(Matcher::new(text.as_bytes(), &pattern, &go_on).search(0), Err(Stop::Ended));
    }
}
