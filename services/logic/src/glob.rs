//! Glob patterns as Redis matches them (`stringmatchlen` in util.c of 7.0): `*`, `?`, `[a-z]`,
//! `[^a]`, `\x`.
//!
//! Redis recurses at each `*`, which is exponential in the number of stars. Only the last star
//! ever needs to be retried, since whatever an earlier star could absorb the later one can too, so
//! one saved position is enough and the cost is at most pattern length × text length.

/// Whether `text` matches `pattern`; `nocase` folds ASCII letters.
///
/// As in Redis, the empty text matches the empty pattern only; the pattern `*`, which Redis'
/// commands treat apart, matches everything here.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty() || pattern == b"*";
    }
    let (mut p, mut t) = (0, 0);
    // Where to resume: the pattern after the last star, and the text it has not absorbed yet.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p >= pattern.len() {
                return true;
            }
            star = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p..), text.get(t)) {
            (None | Some([]), None) => return true,
            (None | Some([]), Some(_)) => None,
            (Some(_), None) => return false,
            (Some(rest), Some(&byte)) => one(rest, byte, nocase),
        };
        if let Some(used) = step {
            p += used;
            t += 1;
        } else {
            let Some((after, from)) = star else {
                return false;
            };
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        }
    }
}

/// Matches one byte against the first element of `pattern` (not a star); its length on success.
fn one(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (hit, used) = in_class(class, byte, nocase);
            hit.then_some(used + 1)
        }
        [b'\\', escaped, ..] => same(*escaped, byte, nocase).then_some(2),
        [literal, ..] => same(*literal, byte, nocase).then_some(1),
        [] => None,
    }
}

/// `class` starts after the `[`. Whether `byte` is in it, and the bytes up to and including `]`.
/// An unclosed class ends with the pattern, as in Redis.
fn in_class(class: &[u8], byte: u8, nocase: bool) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    loop {
        match class.get(at..).unwrap_or_default() {
            [] => break,
            [b'\\', escaped, ..] => {
                hit |= same_exact(*escaped, byte);
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [from, b'-', to, ..] => {
                hit |= in_range(*from, *to, byte, nocase);
                at += 3;
            }
            [literal, ..] => {
                hit |= same(*literal, byte, nocase);
                at += 1;
            }
        }
    }
    (hit != negated, at)
}

/// Ranges compare as the signed `char` Redis is built with on x86 and swap their ends before
/// case is folded.
fn in_range(from: u8, to: u8, byte: u8, nocase: bool) -> bool {
    let fold = |byte: u8| if nocase { byte.to_ascii_lowercase() } else { byte }.cast_signed();
    let (low, high) = if from.cast_signed() > to.cast_signed() { (to, from) } else { (from, to) };
    (fold(low)..=fold(high)).contains(&fold(byte))
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    if nocase { a.eq_ignore_ascii_case(&b) } else { a == b }
}

/// Redis does not fold the case of an escaped byte inside a class.
fn same_exact(a: u8, b: u8) -> bool {
    a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), false)
    }

    #[test]
    fn documented_forms() {
        assert!(m("h?llo", "hallo") && !m("h?llo", "hllo"));
        assert!(m("h*llo", "heeeello") && m("h*llo", "hllo"));
        assert!(m("h[ae]llo", "hello") && !m("h[ae]llo", "hillo"));
        assert!(m("h[^e]llo", "hallo") && !m("h[^e]llo", "hello"));
        assert!(m("h[a-b]llo", "hbllo") && !m("h[a-b]llo", "hcllo"));
        assert!(m("h[b-a]llo", "hbllo"));
        assert!(m("a\\*b", "a*b") && !m("a\\*b", "axb"));
    }

    #[test]
    fn edges() {
        assert!(m("", "") && !m("", "a") && m("*", "") && !m("**", "") && m("a**", "a"));
        assert!(!m("a", "") && !m("?", ""));
        assert!(m("a*b*c", "aXbYbZc") && !m("a*b*c", "aXbYbZ"));
        assert!(m("[abc", "c"), "an unclosed class ends with the pattern");
        assert!(m("[\\]]", "]") && m("[a\\-z]", "-") && !m("[a\\-z]", "b"));
        assert!(m("a\\", "a\\"), "a lone trailing backslash is itself");
        assert!(!m("[]", "a") && m("[^]", "a"));
        assert!(m("*[0-9]", "key7") && !m("*[0-9]", "key"));
    }

    #[test]
    fn case_folding() {
        assert!(matches(b"HeL[l-L]o", b"hello", true));
        assert!(matches(b"[A-C]x", b"bX", true));
        assert!(!matches(b"[A-C]x", b"bx", false));
    }

    #[test]
    fn many_stars_are_not_exponential() {
        let pattern = "a*".repeat(2000) + "b";
        let text = "a".repeat(4000);
        assert!(!m(&pattern, &text));
    }
}
