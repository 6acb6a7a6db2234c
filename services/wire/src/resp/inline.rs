//! Inline commands: a line of words with Redis' quoting (`sdssplitargs`).

use super::args::Args;

/// Splits `line` into `args`. False when quotes are unbalanced or a closing quote is followed by
/// anything but a blank.
pub(super) fn split(line: &[u8], args: &mut Args) -> bool {
    args.begin_inline();
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_blank(*first)
        {
            rest = tail;
        }
        // A NUL ends the line, as it does for the C string Redis splits.
        if matches!(rest, [] | [0, ..]) {
            return true;
        }
        let start = args.decoded_mut().len();
        match word(rest, args.decoded_mut()) {
            Some(tail) => rest = tail,
            None => return false,
        }
        args.push_decoded(start);
    }
}

/// `isspace` of the C locale.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// One word from the front of `rest`, and what follows it.
fn word<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] | [0, ..] => return Some(&[]),
            [b' ' | b'\n' | b'\r' | b'\t', tail @ ..] => return Some(tail),
            [b'"', tail @ ..] => return closed(double_quoted(tail, out)?),
            [b'\'', tail @ ..] => return closed(single_quoted(tail, out)?),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

/// What follows a closing quote must be a blank or the end.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] => Some(rest),
        [byte, ..] if is_blank(*byte) || *byte == 0 => Some(rest),
        _ => None,
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] | [0, ..] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex(*high) << 4 | hex(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] if *escaped != 0 => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] | [0, ..] => return None,
            [b'\\', b'\'', tail @ ..] => {
                out.push(b'\'');
                tail
            }
            [b'\'', tail @ ..] => return Some(tail),
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10) & 0x0f,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut args = Args::new();
        split(line, &mut args)
            .then(|| (0..args.len()).map(|index| args.get(index, line).to_vec()).collect())
    }

    #[test]
    fn quoting_follows_redis() {
        for (line, expected) in [
            (&b"set a b"[..], Some(vec![&b"set"[..], b"a", b"b"])),
            (b"  set\t a  ", Some(vec![b"set", b"a"])),
            (b"", Some(vec![])),
            (b"a \"\" ''", Some(vec![b"a", b"", b""])),
            (br#""\x41\n\r\t\b\a\q\"""#, Some(vec![b"A\n\r\t\x08\x07q\""])),
            (br#""\xzz""#, Some(vec![b"xzz"])),
            (br"'it\'s' '\n'", Some(vec![b"it's", br"\n"])),
            (b"ab\"cd\" e", Some(vec![b"abcd", b"e"])),
            (b"\"abc", None),
            (b"'abc", None),
            (b"\"a\"b", None),
            (b"'a'b", None),
            (b"\"a\\", None),
        ] {
            let expected = expected.map(|words: Vec<&[u8]>| {
                words.iter().map(|word| word.to_vec()).collect::<Vec<_>>()
            });
            assert_eq!(words(line), expected, "{}", line.escape_ascii());
        }
    }
}
