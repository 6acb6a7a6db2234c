//! Replies as Lua values, and Lua values as replies.
//!
//! A command's reply in RESP2 or RESP3 becomes what Redis makes of it: null is `false` in RESP2 and nil in RESP3, a
//! status `{ok=…}`, an error `{err=…}`, a map `{map={…}}`, and so on. What a script returns goes the other way.
//! Invariant: both directions are bounded in depth, and no reply makes them panic.

use mlua::{Error, Lua, LuaString, Table, Value};
use wire::resp::{Version, parse_i64, reply};

use super::{
    MADE_MAX_BYTES,
    host::{Host, number, truncated},
    text::read_double,
};
use crate::command::dispatch::c_string;

/// Deepest nesting of a command's reply.
const READ_DEPTH: usize = 64;
/// Deepest nesting of what a script returns.
const WRITE_DEPTH: usize = 512;
/// Room made at once for an array's elements.
const ROOM_MAX: usize = 1 << 16;

/// The names of fields, made once.
pub(super) struct Names {
    pub(super) err: LuaString,
    pub(super) ok: LuaString,
    double: LuaString,
    map: LuaString,
    set: LuaString,
    big_number: LuaString,
    verbatim: LuaString,
    string: LuaString,
    format: LuaString,
}

impl Names {
    pub(super) fn new(lua: &Lua) -> mlua::Result<Self> {
        let name = |text: &str| lua.create_string(text);
        Ok(Self {
            err: name("err")?,
            ok: name("ok")?,
            double: name("double")?,
            map: name("map")?,
            set: name("set")?,
            big_number: name("big_number")?,
            verbatim: name("verbatim_string")?,
            string: name("string")?,
            format: name("format")?,
        })
    }
}

/// An error reply's text as scripts see it: a text without a blank has no code, and gets one.
pub(super) fn error_text(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii_end();
    if text.contains(&b' ') { text.to_vec() } else { [b"ERR ".as_slice(), text].concat() }
}

/// The value of a whole reply.
pub(super) fn read(lua: &Lua, names: &Names, bytes: &[u8]) -> mlua::Result<Value> {
    Reader { lua, names, bytes, at: 0 }.value(0)
}

struct Reader<'a> {
    lua: &'a Lua,
    names: &'a Names,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|&byte| byte == b'\r').unwrap_or(rest.len());
        self.at += len + 2;
        rest.get(..len).unwrap_or_default()
    }

    fn body(&mut self, len: usize) -> &'a [u8] {
        let body = self.bytes.get(self.at..self.at.saturating_add(len)).unwrap_or_default();
        self.at = self.at.saturating_add(len).saturating_add(2);
        body
    }

    fn text(&self, bytes: &[u8]) -> mlua::Result<Value> {
        self.lua.create_string(bytes).map(Value::String)
    }

    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        let [kind, text @ ..] = self.line() else { return Ok(Value::Nil) };
        if depth > READ_DEPTH {
            return Ok(Value::Nil);
        }
        let len = || parse_i64(text).and_then(|len| usize::try_from(len).ok());
        match kind {
            b':' => Ok(parse_i64(text).map_or(Value::Nil, Value::Integer)),
            b'$' => match len() {
                Some(len) => {
                    let body = self.body(len);
                    self.text(body)
                }
                None => Ok(Value::Boolean(false)),
            },
            b'*' => match len() {
                Some(len) => self.array(len, depth),
                None => Ok(Value::Boolean(false)),
            },
            b'+' => self.wrapped(&self.names.ok, self.text(text)?),
            b'-' => {
                let table = self.lua.create_table()?;
                table.raw_set(&self.names.err, self.text(&error_text(text))?)?;
                table.raw_set("ignore_error_stats_update", true)?;
                Ok(Value::Table(table))
            }
            b'_' => Ok(Value::Nil),
            b'#' => Ok(Value::Boolean(text == b"t")),
            b',' => {
                let double = read_double(text).map_or(0.0, |(value, _)| value);
                self.wrapped(&self.names.double, Value::Number(double))
            }
            b'(' => self.wrapped(&self.names.big_number, self.text(text)?),
            b'%' => self.map(len().unwrap_or(0), depth),
            b'~' => self.set(len().unwrap_or(0), depth),
            b'>' => self.array(len().unwrap_or(0), depth),
            b'=' => {
                let body = self.body(len().unwrap_or(0));
                self.verbatim(body)
            }
            _ => Ok(Value::Nil),
        }
    }

    fn wrapped(&self, name: &LuaString, value: Value) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    }

    fn array(&mut self, len: usize, depth: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table_with_capacity(len.min(ROOM_MAX), 0)?;
        for index in 1..=len {
            let value = self.value(depth + 1)?;
            if !value.is_nil() {
                table.raw_set(index, value)?;
            }
            if self.at > self.bytes.len() {
                break;
            }
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: usize, depth: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            if !key.is_nil() {
                table.raw_set(key, value)?;
            }
        }
        self.wrapped(&self.names.map, Value::Table(table))
    }

    fn set(&mut self, len: usize, depth: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let member = self.value(depth + 1)?;
            if !member.is_nil() {
                table.raw_set(member, true)?;
            }
        }
        self.wrapped(&self.names.set, Value::Table(table))
    }

    fn verbatim(&self, body: &[u8]) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        table.raw_set(&self.names.format, self.text(body.get(..3).unwrap_or_default())?)?;
        table.raw_set(&self.names.string, self.text(body.get(4..).unwrap_or_default())?)?;
        self.wrapped(&self.names.verbatim, Value::Table(table))
    }
}

/// Writes what a script returns.
pub(super) struct Writer<'a> {
    pub(super) host: &'a Host,
    pub(super) lua: &'a Lua,
    pub(super) names: &'a Names,
    /// The client's.
    pub(super) version: Version,
    /// What the script has set.
    pub(super) script_version: Version,
    pub(super) out: &'a mut Vec<u8>,
    /// Where its reply begins there.
    pub(super) start: usize,
    /// Codes of errors that are not counted yet.
    pub(super) codes: Vec<String>,
}

impl Writer<'_> {
    pub(super) fn value(&mut self, value: &Value, depth: usize) -> mlua::Result<()> {
        // Tables and strings may be in there many times.
        if self.out.len() - self.start > MADE_MAX_BYTES {
            return Err(Error::RuntimeError("the reply of a script is too long".into()));
        }
        if !self.host.may_reply() {
            return Err(Error::RuntimeError("the reply of a script takes too long".into()));
        }
        match value {
            Value::String(text) => reply::bulk(self.out, &text.as_bytes()),
            Value::Boolean(true) if self.script_version == Version::Resp2 => {
                reply::integer(self.out, 1);
            }
            Value::Boolean(false) if self.script_version == Version::Resp2 => {
                reply::null(self.out, self.version);
            }
            Value::Boolean(value) => reply::boolean(self.out, self.version, *value),
            Value::Integer(number) => reply::integer(self.out, *number),
            Value::Number(number) => reply::integer(self.out, truncated(*number)),
            Value::Table(_) if depth >= WRITE_DEPTH => {
                reply::error(self.out, b"ERR reached lua stack limit");
            }
            Value::Table(table) => return self.table(table, depth),
            _ => reply::null(self.out, self.version),
        }
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        if let Value::String(text) = table.raw_get(&self.names.err)? {
            let text = c_string(&text.as_bytes(), usize::MAX).to_vec();
            let counted = table.raw_get("ignore_error_stats_update")?;
            if !matches!(counted, Value::Boolean(true)) {
                let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
                self.codes.push(String::from_utf8_lossy(code).into_owned());
            }
            reply::error(self.out, &text);
            return Ok(());
        }
        if let Value::String(text) = table.raw_get(&self.names.ok)? {
            self.out.push(b'+');
            self.blanked(c_string(&text.as_bytes(), usize::MAX));
            return Ok(());
        }
        if let value @ (Value::Integer(_) | Value::Number(_)) = table.raw_get(&self.names.double)? {
            let value = number(self.lua, &value).unwrap_or(0.0);
            reply::double(self.out, self.version, value);
            return Ok(());
        }
        if let Value::String(digits) = table.raw_get(&self.names.big_number)? {
            let digits: Vec<u8> = digits.as_bytes().iter().map(|&byte| blank(byte)).collect();
            reply::big_number(self.out, self.version, &digits);
            return Ok(());
        }
        if let Value::Table(inner) = table.raw_get(&self.names.verbatim)?
            && let Value::String(format) = inner.raw_get(&self.names.format)?
            && let Value::String(text) = inner.raw_get(&self.names.string)?
        {
            let mut three = [b' '; 3];
            for (to, &from) in three.iter_mut().zip(format.as_bytes().iter()) {
                *to = from;
            }
            reply::verbatim(self.out, self.version, three, &text.as_bytes());
            return Ok(());
        }
        if let Value::Table(inner) = table.raw_get(&self.names.map)? {
            return self.pairs(&inner, depth, true);
        }
        if let Value::Table(inner) = table.raw_get(&self.names.set)? {
            return self.pairs(&inner, depth, false);
        }
        self.array(table, depth)
    }

    /// A line without line ends of its own, and its end.
    fn blanked(&mut self, text: &[u8]) {
        self.out.extend(text.iter().map(|&byte| blank(byte)));
        self.out.extend_from_slice(b"\r\n");
    }

    /// A map, or a set of the keys.
    fn pairs(&mut self, table: &Table, depth: usize, map: bool) -> mlua::Result<()> {
        let start = self.out.len();
        let mut len = 0;
        table.for_each(|key: Value, value: Value| {
            len += 1;
            self.value(&key, depth + 1)?;
            if map { self.value(&value, depth + 1) } else { Ok(()) }
        })?;
        let mut head = Vec::new();
        if map {
            reply::map(&mut head, self.version, len);
        } else {
            reply::set(&mut head, self.version, len);
        }
        self.out.splice(start..start, head);
        Ok(())
    }

    /// The elements up to the first nil.
    fn array(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        let start = self.out.len();
        let mut len = 0;
        loop {
            let value: Value = table.raw_get(len + 1)?;
            if value.is_nil() {
                break;
            }
            len += 1;
            self.value(&value, depth + 1)?;
        }
        let mut head = Vec::new();
        reply::array(&mut head, len);
        self.out.splice(start..start, head);
        Ok(())
    }
}

const fn blank(byte: u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }
}
