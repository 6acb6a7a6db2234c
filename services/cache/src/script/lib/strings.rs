//! `string.find`, `match`, `gmatch` and `gsub` on the matcher of `pattern.rs`, and `rep`, in place of Lua's own.
//!
//! `gmatch`, and `gsub` with a function or a table, are loops of the prelude around [`seek`], so that what a script's
//! function raises is Lua's own affair. Invariants: texts are not copied to be looked at; what `gsub` makes is bounded.
//! Next: `pattern.rs`, `prelude.lua`.

use std::{ops::Deref, rc::Rc};

use mlua::{BorrowedBytes, Lua, MultiValue, Table, Value};

use super::pattern::{Capture, Matcher, Stop};
use crate::script::{
    api::function_multi,
    host::{Abort, Host, Params, as_text, kind, position},
};

/// What makes a text more than itself as a pattern.
const SPECIALS: &[u8] = b"^$*+?.([%-";
/// Bytes that are compared in one step.
const STEP_BYTES: usize = 1024;

/// Puts the functions into `string`, and those for the prelude into `api`.
pub(super) fn install(lua: &Lua, host: &Rc<Host>, api: &Table) -> mlua::Result<()> {
    let string: Table = lua.globals().raw_get("string")?;
    string.raw_set("find", function_multi(lua, host, |params| look(params, true))?)?;
    string.raw_set("match", function_multi(lua, host, |params| look(params, false))?)?;
    string.raw_set("rep", function_multi(lua, host, repeat)?)?;
    api.raw_set("seek", function_multi(lua, host, seek)?)?;
    api.raw_set("substitute", function_multi(lua, host, substitute)?)?;
    api.raw_set("iterate", function_multi(lua, host, iterate)?)
}

/// A string of Lua's, or a number as one.
enum Text {
    Lua(BorrowedBytes),
    Own(Vec<u8>),
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lua(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

fn text_of(value: &Value) -> Option<Text> {
    match value {
        Value::String(text) => Some(Text::Lua(text.as_bytes())),
        other => as_text(other).map(Text::Own),
    }
}

fn text(params: &Params<'_>, index: usize) -> mlua::Result<Text> {
    match text_of(params.get(index)) {
        Some(text) => Ok(text),
        None => params.text(index).map(Text::Own),
    }
}

/// As [`text`], for a function of the prelude that stands for `name`.
fn text_for(params: &Params<'_>, index: usize, name: &str) -> mlua::Result<Text> {
    let value = params.get(index);
    text_of(value).ok_or_else(|| {
        let got = if index > params.len() { "no value" } else { kind(value) };
        let what = format!("string expected, got {got}");
        above(params, &format!("bad argument #{index} to '{name}' ({what})"))
    })
}

/// An error where a function of the prelude was called.
fn above(params: &Params<'_>, text: &str) -> mlua::Error {
    params.host.plain(format!("{}{text}", position(params.lua, 2)))
}

/// The error of a match; `direct`: of a function that the script itself has called.
fn stopped(params: &Params<'_>, stop: Stop, direct: bool) -> mlua::Error {
    match stop {
        Stop::Ended => params.host.end(Abort::No),
        Stop::Wrong(text) if direct => params.host.error(params.lua, text),
        Stop::Wrong(text) => above(params, text),
    }
}

/// A capture as a value.
fn value(params: &Params<'_>, text: &[u8], capture: Capture) -> mlua::Result<Result<Value, Stop>> {
    Ok(match capture {
        Capture::Open(_) => Err(Stop::Wrong("unfinished capture")),
        Capture::Place(at) => Ok(Value::Integer(i64::try_from(at + 1).unwrap_or(i64::MAX))),
        Capture::Part(from, to) => {
            let part = text.get(from..to).unwrap_or_default();
            Ok(Value::String(params.lua.create_string(part)?))
        }
    })
}

/// Adds the captures of a match, or the whole of it when it has none and `whole` is given.
fn add_captures(
    params: &Params<'_>,
    matcher: &Matcher<'_>,
    text: &[u8],
    whole: Option<(usize, usize)>,
    direct: bool,
    values: &mut Vec<Value>,
) -> mlua::Result<()> {
    let whole = whole.filter(|_| matcher.captures().is_empty());
    let whole = whole.map(|(from, to)| Capture::Part(from, to));
    for capture in whole.iter().chain(matcher.captures()) {
        let value = value(params, text, *capture)?;
        values.push(value.map_err(|stop| stopped(params, stop, direct))?);
    }
    Ok(())
}

fn number(at: usize) -> Value {
    Value::Integer(i64::try_from(at).unwrap_or(i64::MAX))
}

/// `string.find` and `string.match`.
fn look(params: &Params<'_>, find: bool) -> mlua::Result<MultiValue> {
    let (subject, pattern) = (text(params, 1)?, text(params, 2)?);
    let init = params.integer_or(3, 1)?;
    let len = i64::try_from(subject.len()).unwrap_or(i64::MAX);
    let init = if init < 0 { init.saturating_add(len + 1) } else { init };
    let from = usize::try_from(init.saturating_sub(1).clamp(0, len)).unwrap_or(0);
    let go_on = || params.host.made(0).is_ok();
    let is_set = |value: &Value| !matches!(value, Value::Nil | Value::Boolean(false));
    if find && (is_set(params.get(4)) || is_plain(&pattern)) {
        let found = plain(&subject, &pattern, from, &go_on);
        let found = found.map_err(|stop| stopped(params, stop, true))?;
        return Ok(match found {
            Some(at) => MultiValue::from_iter([number(at + 1), number(at + pattern.len())]),
            None => MultiValue::from_iter([Value::Nil]),
        });
    }
    let mut matcher = Matcher::new(&subject, &pattern, &go_on);
    let found = matcher.search(from).map_err(|stop| stopped(params, stop, true))?;
    let Some((start, end)) = found else { return Ok(MultiValue::from_iter([Value::Nil])) };
    let mut values = Vec::new();
    if find {
        values.extend([number(start + 1), number(end)]);
    }
    let whole = (!find).then_some((start, end));
    add_captures(params, &matcher, &subject, whole, true, &mut values)?;
    Ok(values.into())
}

fn is_plain(pattern: &[u8]) -> bool {
    // C looks up to a NUL.
    let seen = pattern.iter().take_while(|&&byte| byte != 0);
    !seen.into_iter().any(|byte| SPECIALS.contains(byte))
}

/// Where a text is in another, from `from` on.
fn plain(
    text: &[u8],
    part: &[u8],
    from: usize,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<usize>, Stop> {
    let Some(&first) = part.first() else { return Ok(Some(from)) };
    let mut at = from;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(ahead) = rest.iter().position(|&byte| byte == first) else { return Ok(None) };
        at += ahead;
        let rest = text.get(at..).unwrap_or_default();
        if rest.len() < part.len() {
            return Ok(None);
        }
        for _ in 0..=part.len() / STEP_BYTES {
            if !go_on() {
                return Err(Stop::Ended);
            }
        }
        if rest.starts_with(part) {
            return Ok(Some(at));
        }
        at += 1;
    }
}

/// `string.rep`: Lua's own counts to the end for an empty text too, and nothing ends it.
fn repeat(params: &Params<'_>) -> mlua::Result<MultiValue> {
    let part = text(params, 1)?;
    // C takes an `int`.
    let count = usize::try_from(params.integer(2)? as i32).unwrap_or(0);
    params.host.made(part.len().saturating_mul(count))?;
    let whole = params.lua.create_string(part.repeat(count))?;
    Ok(MultiValue::from_iter([Value::String(whole)]))
}

/// `seek(text, pattern, at, of_gsub)`: where the first match from `at` on begins and ends, from 0, and its captures or the
/// whole of it. Only for `gsub` an anchor is one.
fn seek(params: &Params<'_>) -> mlua::Result<MultiValue> {
    let (subject, pattern) = (text(params, 1)?, text(params, 2)?);
    let from = usize::try_from(params.integer(3)?).unwrap_or(usize::MAX);
    let of_gsub = matches!(params.get(4), Value::Boolean(true));
    let go_on = || params.host.made(0).is_ok();
    let mut matcher = Matcher::new(&subject, &pattern, &go_on);
    let found = if of_gsub { matcher.search(from) } else { matcher.search_plainly(from) };
    let found = found.map_err(|stop| stopped(params, stop, false))?;
    let Some((start, end)) = found else { return Ok(MultiValue::new()) };
    let mut values = vec![number(start), number(end)];
    add_captures(params, &matcher, &subject, Some((start, end)), false, &mut values)?;
    Ok(values.into())
}

/// The arguments of `gmatch`, as strings.
fn iterate(params: &Params<'_>) -> mlua::Result<MultiValue> {
    let (text, pattern) = (text_for(params, 1, "gmatch")?, text_for(params, 2, "gmatch")?);
    let string = |text: &[u8]| params.lua.create_string(text).map(Value::String);
    Ok(MultiValue::from_iter([string(&text)?, string(&pattern)?]))
}

/// `gsub` with a string: the text and how many were replaced. With a function or a table: nil, the first two arguments as
/// strings, and how many are to be replaced at most.
fn substitute(params: &Params<'_>) -> mlua::Result<MultiValue> {
    let (subject, pattern) = (text_for(params, 1, "gsub")?, text_for(params, 2, "gsub")?);
    let most = match params.get(4) {
        Value::Nil => i64::try_from(subject.len() + 1).unwrap_or(i64::MAX),
        value => crate::script::host::number(params.lua, value)
            .map(crate::script::host::truncated)
            .ok_or_else(|| {
                let got = kind(value);
                above(params, &format!("bad argument #4 to 'gsub' (number expected, got {got})"))
            })?,
    };
    let replacement = match params.get(3) {
        Value::Function(_) | Value::Table(_) => {
            let string = |text: &[u8]| params.lua.create_string(text).map(Value::String);
            let texts = [string(&subject)?, string(&pattern)?];
            let values = [Value::Nil].into_iter().chain(texts).chain([Value::Integer(most)]);
            return Ok(values.collect());
        }
        value => text_of(value).ok_or_else(|| {
            above(params, "bad argument #3 to 'gsub' (string/function/table expected)")
        })?,
    };
    let go_on = || params.host.made(0).is_ok();
    let mut matcher = Matcher::new(&subject, &pattern, &go_on);
    let (mut out, mut count, mut at) = (Vec::new(), 0_i64, 0);
    while count < most {
        let found = matcher.search(at).map_err(|stop| stopped(params, stop, false))?;
        let Some((start, end)) = found else { break };
        count += 1;
        out.extend_from_slice(subject.get(at..start).unwrap_or_default());
        replace(params, &matcher, &subject, (start, end), &replacement, &mut out)?;
        params.host.made(out.len())?;
        at = end;
        if start == end {
            let Some(byte) = subject.get(at) else { break };
            out.push(*byte);
            at += 1;
        }
        if matcher.is_anchored() {
            break;
        }
    }
    out.extend_from_slice(subject.get(at..).unwrap_or_default());
    let text = Value::String(params.lua.create_string(&out)?);
    Ok(MultiValue::from_iter([text, Value::Integer(count)]))
}

/// Appends what stands for a match.
fn replace(
    params: &Params<'_>,
    matcher: &Matcher<'_>,
    subject: &[u8],
    (start, end): (usize, usize),
    replacement: &[u8],
    out: &mut Vec<u8>,
) -> mlua::Result<()> {
    let whole = Capture::Part(start, end);
    let mut rest = replacement.iter();
    while let Some(&byte) = rest.next() {
        // C sees a NUL behind the end.
        let (is_escape, next) = match byte {
            b'%' => (true, rest.next().copied().unwrap_or(0)),
            byte => (false, byte),
        };
        if !is_escape || !next.is_ascii_digit() {
            out.push(next);
            continue;
        }
        let capture = match usize::from(next - b'0').checked_sub(1) {
            None => whole,
            Some(0) if matcher.captures().is_empty() => whole,
            Some(index) => *matcher
                .captures()
                .get(index)
                .ok_or_else(|| above(params, "invalid capture index"))?,
        };
        params.host.made(out.len())?;
        match capture {
            Capture::Open(_) => return Err(above(params, "unfinished capture")),
            Capture::Place(at) => out.extend_from_slice((at + 1).to_string().as_bytes()),
            Capture::Part(from, to) => {
                out.extend_from_slice(subject.get(from..to).unwrap_or_default());
            }
        }
    }
    Ok(())
}
