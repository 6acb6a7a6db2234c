//! A glance at a request that is about to be parsed: which key is it likely to be about?
//!
//! Right for most commands and cheap for all: the answer is only good for loading memory ahead.

/// The second argument of the request at the front of `bytes`, if it is one of the usual shape: up
/// to nine arguments, the first two of up to 99 bytes. Not checked any further.
#[inline]
#[must_use]
pub fn likely_key(bytes: &[u8]) -> Option<&[u8]> {
    let [b'*', b'2'..=b'9', b'\r', b'\n', rest @ ..] = bytes else { return None };
    let (_, rest) = bulk(rest)?;
    let (key, _) = bulk(rest)?;
    Some(key)
}

#[inline]
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match bytes {
        [b'$', len @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => (usize::from(len - b'0'), rest),
        [b'$', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => {
            (usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((value, rest.get(2..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_second_argument_of_usual_requests() {
        assert_eq!(likely_key(b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n"), Some(&b"hello"[..]));
        assert_eq!(
            likely_key(b"*3\r\n$3\r\nSET\r\n$10\r\n0123456789\r\n$1\r\nv"),
            Some(&b"0123456789"[..])
        );
        assert_eq!(likely_key(b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n"), Some(&b""[..]));
        for other in ["", "PING\r\n", "*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$5\r\nhel"] {
            assert_eq!(likely_key(other.as_bytes()), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = likely_key(&bytes);
        }

        #[test]
        fn agrees_with_the_parser(key in proptest::collection::vec(any::<u8>(), 0..100), more in 0_usize..7) {
            let mut frame = format!("*{}\r\n$3\r\nSET\r\n${}\r\n", more + 2, key.len()).into_bytes();
            frame.extend_from_slice(&key);
            frame.extend_from_slice(b"\r\n");
            for _ in 0..more {
                frame.extend_from_slice(b"$1\r\nx\r\n");
            }
            prop_assert_eq!(likely_key(&frame), Some(&key[..]));
        }
    }
}
