//! Lines and the words of which they consist: blanks part words, and nothing else does.

/// A command line that is not a `get` ends within so many bytes.
pub const LINE_MAX_BYTES: usize = 2048;
/// Blanks that may come before a `get` whose line is longer.
const LEADING_BLANKS_MAX: usize = 100;

/// The words of a line.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    /// The words of `line`, which is without its end.
    #[must_use]
    pub const fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    /// What follows the words taken so far.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether no word is left.
    #[must_use]
    pub fn is_done(mut self) -> bool {
        self.skip_blanks();
        self.rest.is_empty()
    }

    fn skip_blanks(&mut self) {
        while let [b' ', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.skip_blanks();
        if self.rest.is_empty() {
            return None;
        }
        let end = find(self.rest, b' ').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(word)
    }
}

/// The line at the front of `bytes` without its end, and where the next one starts. A zero byte ends what is looked at.
pub(super) fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = find(bytes, b'\n')?;
    let text = bytes.get(..end)?;
    // A lone carriage return is a word.
    let text = if end > 1 { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
    let text = match find(text, 0) {
        Some(zero) => text.get(..zero)?,
        None => text,
    };
    Some((text, end + 1))
}

/// What is left of a line whose beginning was taken before: its text so far, and where the next line starts when the
/// end is there. Without an end the text stops with its last whole word.
#[must_use]
pub fn rest_of_line(bytes: &[u8]) -> (&[u8], Option<usize>) {
    match find(bytes, b'\n') {
        Some(end) => {
            let text = bytes.get(..end).unwrap_or_default();
            (text.strip_suffix(b"\r").unwrap_or(text), Some(end + 1))
        }
        None => {
            let whole = bytes.iter().rposition(|&byte| byte == b' ').map_or(0, |blank| blank + 1);
            (bytes.get(..whole).unwrap_or_default(), None)
        }
    }
}

/// Whether a line that is longer than [`LINE_MAX_BYTES`] and has no end yet may go on: a `get` or `gets` of many keys.
pub(super) fn may_be_long(bytes: &[u8]) -> bool {
    let mut words = Words::new(bytes);
    words.skip_blanks();
    let blanks = bytes.len() - words.rest.len();
    blanks <= LEADING_BLANKS_MAX
        && (words.rest.starts_with(b"get ") || words.rest.starts_with(b"gets "))
}

/// The second word of the request at the front of `bytes`: the key of most commands. For loading memory ahead only.
#[inline]
#[must_use]
pub fn likely_key(bytes: &[u8]) -> Option<&[u8]> {
    let verb = find(bytes.get(..16).unwrap_or(bytes), b' ')?;
    let rest = bytes.get(verb + 1..)?;
    let rest = rest.get(..super::KEY_MAX_BYTES + 1).unwrap_or(rest);
    let end = rest.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'))?;
    rest.get(..end)
}

/// Key and length of the request at the front of `bytes`, its data block included, when both are easily told. For
/// loading memory ahead only: nothing is checked.
#[must_use]
pub fn glance(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (text, line_len) = line(bytes)?;
    let mut words = Words::new(text);
    let verb = words.next()?;
    let key = words.next()?;
    // How many words stand between the key and the length of a data block.
    let before_len = match verb {
        b"get" | b"gets" | b"mg" => return Some((key, line_len)),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => 2,
        b"ms" => 0,
        _ => return Some((key, line_len)),
    };
    let len = words.nth(before_len)?;
    let len = len.iter().try_fold(0_usize, |len, &digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        len.checked_mul(10)?.checked_add(digit)
    })?;
    Some((key, line_len.checked_add(len)?.checked_add(2)?))
}

/// Where `byte` first is, eight bytes at a time.
#[inline]
fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let pattern = LOW * u64::from(byte);
    let mut at = 0;
    let mut rest = bytes;
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk) ^ pattern;
        // The lowest bit that is set belongs to the first zero byte; higher ones may lie.
        let zeros = word.wrapping_sub(LOW) & !word & (LOW << 7);
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
        rest = after;
    }
    rest.iter().position(|&other| other == byte).map(|tail| at + tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for len in 0..40 {
            for at in 0..len {
                let mut bytes = vec![0x01; len];
                assert_eq!(find(&bytes, 0), None);
                *bytes.get_mut(at).expect("a byte of it") = 0;
                assert_eq!(find(&bytes, 0), Some(at));
                bytes.fill(0xFF);
                *bytes.get_mut(at).expect("a byte of it") = b'\n';
                assert_eq!(find(&bytes, b'\n'), Some(at));
            }
        }
    }

    #[test]
    fn lines_end_as_in_memcached() {
        assert_eq!(line(b"get a\r\nx"), Some((&b"get a"[..], 7)));
        assert_eq!(line(b"get a\nx"), Some((&b"get a"[..], 6)));
        assert_eq!(line(b"\r\n"), Some((&b"\r"[..], 2)));
        assert_eq!(line(b"\n"), Some((&b""[..], 1)));
        assert_eq!(line(b"get a\0b\r\n"), Some((&b"get a"[..], 9)));
        assert_eq!(line(b"get a\r"), None);
        let words: Vec<_> = Words::new(b"  a  bc\td ").collect();
        assert_eq!(words, [&b"a"[..], b"bc\td"]);
    }

    #[test]
    fn the_rest_of_a_line_is_whole_words() {
        assert_eq!(rest_of_line(b"a b c"), (&b"a b "[..], None));
        assert_eq!(rest_of_line(b"abc"), (&b""[..], None));
        assert_eq!(rest_of_line(b"a b\r\nx"), (&b"a b"[..], Some(5)));
        assert_eq!(rest_of_line(b"\r\n"), (&b""[..], Some(2)));
    }

    #[test]
    fn only_get_and_gets_may_be_long() {
        assert!(may_be_long(b"get a") && may_be_long(b"   gets a"));
        assert!(!may_be_long(b"gat 0 a") && !may_be_long(b"mg a") && !may_be_long(b""));
        assert!(!may_be_long(&[&[b' '; 101][..], b"get a"].concat()));
    }

    #[test]
    fn a_glance_tells_key_and_length() {
        for (text, len) in [
            ("get abc def\r\n", 13),
            ("set abc 0 0 5\r\n", 22),
            ("cas abc 0 0 5 7 noreply\r\n", 32),
            ("ms abc 5 q\r\n", 19),
            ("md abc\r\n", 8),
        ] {
            assert_eq!(glance(text.as_bytes()), Some((&b"abc"[..], len)), "{text:?}");
        }
        for none in [
            "get abc",
            "mn\r\n",
            "set abc 0 0 -5\r\n",
            "set abc 0\r\n",
            "ms a 99999999999999999999\r\n",
        ] {
            assert_eq!(glance(none.as_bytes()), None, "{none:?}");
        }
    }

    #[test]
    fn the_second_word_is_likely_the_key() {
        assert_eq!(likely_key(b"get abc\r\n"), Some(&b"abc"[..]));
        assert_eq!(likely_key(b"set abc 0 0 1\r\nx\r\n"), Some(&b"abc"[..]));
        for none in [&b"get"[..], b"", b"version\r\n", b"get abc"] {
            assert_eq!(likely_key(none), None);
        }
    }
}
