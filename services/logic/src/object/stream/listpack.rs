//! How many bytes an entry would take in a listpack, by which Redis measures the nodes of a stream.
//!
//! Our own format is smaller; counted like this, `stream-node-max-bytes` ends a node at the same entry as in Redis, so
//! that approximate trims remove the same entries. Source: redis 7.0.15, `listpack.c` and `streamAppendItem`.

/// Header and end mark.
pub(super) const EMPTY_LEN: usize = 7;

/// With the length behind it, by which listpacks are read backwards.
const fn with_back(len: usize) -> usize {
    let back = match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    };
    len + back
}

/// An integer.
pub(super) const fn integer_len(value: i64) -> usize {
    with_back(match value {
        0..=127 => 1,
        -4_096..=4_095 => 2,
        -32_768..=32_767 => 3,
        -8_388_608..=8_388_607 => 4,
        -2_147_483_648..=2_147_483_647 => 5,
        _ => 9,
    })
}

/// A count.
pub(super) fn count_len(count: u64) -> usize {
    integer_len(i64::try_from(count).unwrap_or(i64::MAX))
}

/// The integer that a text is, if it is exactly how that is written.
fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [] | [b'0', _, ..] => return None,
        [b'0'] if digits.len() < text.len() => return None,
        _ if text.len() > 20 || !digits.iter().all(u8::is_ascii_digit) => return None,
        _ => {}
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A text, which is kept as an integer where it is one.
pub(super) fn text_len(text: &[u8]) -> usize {
    if let Some(value) = integer(text) {
        return integer_len(value);
    }
    with_back(match text.len() {
        len @ 0..=63 => 1 + len,
        len @ 64..=4_095 => 2 + len,
        len => 5 + len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_as_long_as_in_listpack_c() {
        let integers = [(0, 2), (127, 2), (128, 3), (-1, 3), (4_095, 3), (4_096, 4), (32_768, 5)];
        for (value, len) in integers.into_iter().chain([(8_388_608, 6), (i64::MIN, 10)]) {
            assert_eq!(integer_len(value), len, "{value}");
            assert_eq!(text_len(value.to_string().as_bytes()), len, "{value}");
        }
        for text in ["", "-", "-0", "00", "01", "+1", " 1", "1x", "9223372036854775808"] {
            assert_eq!(text_len(text.as_bytes()), text.len() + 2, "{text}");
        }
        let texts = [(63, 65), (64, 67), (125, 128), (126, 130), (4_095, 4_099), (4_096, 4_103)];
        for (len, expected) in texts {
            assert_eq!(text_len(&vec![b'x'; len]), expected, "{len}");
        }
    }
}
