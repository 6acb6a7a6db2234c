//! The first line of scripts and libraries: `#!lua flags=no-writes,allow-oom` and `#!lua name=mylib`.

use super::call::flags;

/// A script's flags, and how many bytes its first line takes; that line's end stays, so that lines keep their numbers.
pub(super) fn script(body: &[u8]) -> Result<(u8, usize), Vec<u8>> {
    if !body.starts_with(b"#!") {
        return Ok((flags::COMPAT, 0));
    }
    let Some(len) = line_len(body) else { return Err(b"ERR Invalid script shebang".to_vec()) };
    let line = body.get(..len).unwrap_or_default();
    let mut parts = words(line);
    let engine = parts.next().unwrap_or_default();
    let quoting = |text: &str, quote: &[u8]| Err([text.as_bytes(), quote].concat());
    if engine != b"#!lua" {
        return quoting("ERR Unexpected engine in script shebang: ", engine);
    }
    let mut all = 0;
    for part in parts {
        let Some(list) = part.strip_prefix(b"flags=") else {
            return quoting("ERR Unknown lua shebang option: ", part);
        };
        if list.is_empty() {
            continue;
        }
        for name in list.split(|&byte| byte == b',') {
            let flag = flags::NAMES.iter().find(|(known, _)| known.as_bytes() == name);
            let Some((_, flag)) = flag else {
                return quoting("ERR Unexpected flag in script shebang: ", name);
            };
            all |= flag;
        }
    }
    Ok((all, len))
}

/// A library's name, and how many bytes its first line takes.
pub(super) fn library(code: &[u8]) -> Result<(String, usize), String> {
    if !code.starts_with(b"#!") {
        return Err("Missing library metadata".into());
    }
    let Some(len) = line_len(code) else { return Err("Invalid library metadata".into()) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut parts = words(code.get(..len).unwrap_or_default());
    let engine = text(parts.next().and_then(|part| part.get(2..)).unwrap_or_default());
    let mut name: Option<String> = None;
    for part in parts {
        let is_name = part.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"name="));
        if !is_name {
            return Err(format!("Invalid metadata value given: {}", text(part)));
        }
        if name.is_some() {
            let text = "Invalid metadata value, name argument was given multiple times";
            return Err(text.into());
        }
        name = Some(text(part.get(5..).unwrap_or_default()));
    }
    let Some(name) = name else { return Err("Library name was not given".into()) };
    if !is_name(&name) {
        return Err(BAD_NAME.into());
    }
    if !engine.eq_ignore_ascii_case("lua") {
        return Err(format!("Engine '{engine}' not found"));
    }
    Ok((name, len))
}

/// The error for a name that is none.
pub(super) const BAD_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// Whether libraries and functions may be called so.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn line_len(text: &[u8]) -> Option<usize> {
    text.iter().take_while(|&&byte| byte != 0).position(|&byte| byte == b'\n')
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read() {
        assert_eq!(script(b"return 1"), Ok((flags::COMPAT, 0)));
        assert_eq!(script(b"#!lua\nreturn 1"), Ok((0, 5)));
        let both = flags::NO_WRITES | flags::ALLOW_OOM;
        assert_eq!(script(b"#!lua flags=no-writes,allow-oom\n"), Ok((both, 31)));
        for bad in
            [&b"#!lua"[..], b"#!\n", b"#!py\n", b"#!lua x=1\n", b"#!lua flags=no\n", b"#!\0\n"]
        {
            assert!(script(bad).is_err());
        }
        assert_eq!(library(b"#!LUA name=a_1\ncode"), Ok(("a_1".into(), 14)));
        for bad in [&b"x"[..], b"#!lua", b"#!lua\n", b"#!lua name=a name=b\n", b"#!js name=a\n"] {
            assert!(library(bad).is_err());
        }
    }
}
