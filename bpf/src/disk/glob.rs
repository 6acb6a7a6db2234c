//! Patterns of names: `*` and `?` within a name, `**` over several.
//!
//! Without a slash a pattern is of the last name of a path, with one of the whole path; one in front says no more than that.

/// Whether a path below the directory, without a slash in front, is meant by a pattern.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    if pattern.contains('/') {
        return all(pattern.trim_start_matches('/').as_bytes(), path.as_bytes());
    }
    all(pattern.as_bytes(), path.rsplit('/').next().unwrap_or_default().as_bytes())
}

fn all(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            // None, or some whole names.
            all(rest, text)
                || text.iter().enumerate().any(|(at, byte)| {
                    *byte == b'/' && all(rest, text.get(at + 1..).unwrap_or_default())
                })
        }
        [b'*', b'*', rest @ ..] => {
            (0..=text.len()).any(|at| all(rest, text.get(at..).unwrap_or_default()))
        }
        [b'*', rest @ ..] => {
            let end = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=end).any(|at| all(rest, text.get(at..).unwrap_or_default()))
        }
        [b'?', rest @ ..] => {
            matches!(text.split_first(), Some((byte, after)) if *byte != b'/' && all(rest, after))
        }
        [byte, rest @ ..] => {
            matches!(text.split_first(), Some((first, after)) if first == byte && all(rest, after))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_are_of_one_name_or_of_several() {
        for (pattern, path) in [
            ("*.log", "a/b/1.log"),
            ("a/*/1.log", "a/b/1.log"),
            ("a/**/1.log", "a/1.log"),
            ("a/**/1.log", "a/b/c/1.log"),
            ("/a/**", "a/b/c"),
            ("?.log", "1.log"),
            ("wal/*", "wal/0001"),
            ("/*.log", "1.log"),
            ("wal/**", "wal/a/b"),
            ("**/**", "a/b"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.log", "a/1.log.old"),
            ("a/*", "a/b/c"),
            ("wal/*", "x/wal/1"),
            ("?.log", ".log"),
            ("a", "b"),
            ("/*.log", "a/1.log"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }
}
