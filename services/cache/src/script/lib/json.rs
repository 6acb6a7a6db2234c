//! `cjson`: JSON as lua-cjson 2.1.0 in Redis reads and writes it.
//!
//! Invariants: nesting is bounded by the configured depth and by [`DEPTH_MAX`], whatever a script configures; text is
//! read within its length. `null` is a null pointer, as there. Next: `text.rs` for numbers.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{LightUserData, Lua, MultiValue, Table, Value};

use crate::script::{
    host::{Host, Params, kind, position},
    text::{format_g, read_double},
};

/// Deepest nesting, which the stack has room for.
const DEPTH_MAX: usize = 1000;

/// What scripts configure.
#[derive(Clone, Copy)]
struct Config {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth: i64,
    decode_depth: i64,
    /// 0 refuses, 1 writes, 2 writes null.
    encode_invalid: u8,
    decode_invalid: bool,
    precision: i64,
    keep_buffer: bool,
}

impl Config {
    const DEFAULT: Self = Self {
        sparse_convert: false,
        sparse_ratio: 2,
        sparse_safe: 10,
        encode_depth: 1000,
        decode_depth: 1000,
        encode_invalid: 0,
        decode_invalid: true,
        precision: 14,
        keep_buffer: true,
    };
}

type Body = fn(&Params<'_>, &Cell<Config>) -> mlua::Result<MultiValue>;

pub(super) fn table(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let config = Rc::new(Cell::new(Config::DEFAULT));
    let functions: [(&str, Body); 9] = [
        ("encode", encode),
        ("decode", decode),
        ("encode_sparse_array", sparse_array),
        ("encode_max_depth", |params, config| {
            let mut all = config.get();
            option(params, &mut all.encode_depth, 1, i64::from(i32::MAX))?;
            config.set(all);
            one(Value::Integer(all.encode_depth))
        }),
        ("decode_max_depth", |params, config| {
            let mut all = config.get();
            option(params, &mut all.decode_depth, 1, i64::from(i32::MAX))?;
            config.set(all);
            one(Value::Integer(all.decode_depth))
        }),
        ("encode_number_precision", |params, config| {
            let mut all = config.get();
            option(params, &mut all.precision, 1, 14)?;
            config.set(all);
            one(Value::Integer(all.precision))
        }),
        ("encode_keep_buffer", |params, config| {
            let mut all = config.get();
            at_most(params, 1)?;
            switch(params, 1, &mut all.keep_buffer)?;
            config.set(all);
            one(Value::Boolean(all.keep_buffer))
        }),
        ("encode_invalid_numbers", encode_invalid),
        ("decode_invalid_numbers", |params, config| {
            let mut all = config.get();
            at_most(params, 1)?;
            switch(params, 1, &mut all.decode_invalid)?;
            config.set(all);
            one(Value::Boolean(all.decode_invalid))
        }),
    ];
    for (name, body) in functions {
        let (host, config) = (Rc::clone(host), Rc::clone(&config));
        let function = lua.create_function(move |lua, values: MultiValue| {
            body(&Params { host: &host, lua, values }, &config)
        })?;
        table.raw_set(name, function)?;
    }
    let again = Rc::clone(host);
    let new = lua.create_function(move |lua, _: MultiValue| self::table(lua, &again))?;
    table.raw_set("new", new)?;
    table.raw_set("null", null())?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

const fn null() -> Value {
    Value::LightUserData(LightUserData(std::ptr::null_mut()))
}

fn one(value: Value) -> mlua::Result<MultiValue> {
    Ok(MultiValue::from_iter([value]))
}

fn at_most(params: &Params<'_>, count: usize) -> mlua::Result<()> {
    if params.len() > count {
        return Err(params.bad(count + 1, "found too many arguments"));
    }
    Ok(())
}

/// An optional integer argument of a function of one.
fn option(params: &Params<'_>, place: &mut i64, min: i64, max: i64) -> mlua::Result<()> {
    at_most(params, 1)?;
    integer(params, 1, place, min, max)
}

fn integer(
    params: &Params<'_>,
    index: usize,
    place: &mut i64,
    min: i64,
    max: i64,
) -> mlua::Result<()> {
    if params.get(index).is_nil() {
        return Ok(());
    }
    let value = params.integer(index)?;
    if !(min..=max).contains(&value) {
        return Err(params.bad(1, &format!("expected integer between {min} and {max}")));
    }
    *place = value;
    Ok(())
}

/// A boolean, or `on` or `off`.
fn switch(params: &Params<'_>, index: usize, place: &mut bool) -> mlua::Result<()> {
    match params.get(index) {
        Value::Nil => {}
        Value::Boolean(value) => *place = *value,
        _ => *place = word(params, index, &["off", "on"])? == 1,
    }
    Ok(())
}

fn word(params: &Params<'_>, index: usize, words: &[&str]) -> mlua::Result<usize> {
    let text = params.text(index)?;
    let found = words.iter().position(|word| word.as_bytes() == text);
    found.ok_or_else(|| {
        params.bad(index, &format!("invalid option '{}'", String::from_utf8_lossy(&text)))
    })
}

fn sparse_array(params: &Params<'_>, config: &Cell<Config>) -> mlua::Result<MultiValue> {
    let mut all = config.get();
    at_most(params, 3)?;
    switch(params, 1, &mut all.sparse_convert)?;
    config.set(all);
    integer(params, 2, &mut all.sparse_ratio, 0, i64::from(i32::MAX))?;
    config.set(all);
    integer(params, 3, &mut all.sparse_safe, 0, i64::from(i32::MAX))?;
    config.set(all);
    Ok(MultiValue::from_iter([
        Value::Boolean(all.sparse_convert),
        Value::Integer(all.sparse_ratio),
        Value::Integer(all.sparse_safe),
    ]))
}

fn encode_invalid(params: &Params<'_>, config: &Cell<Config>) -> mlua::Result<MultiValue> {
    let mut all = config.get();
    at_most(params, 1)?;
    match params.get(1) {
        Value::Nil => {}
        Value::Boolean(value) => all.encode_invalid = u8::from(*value),
        _ => {
            let found = word(params, 1, &["off", "on", "null"])?;
            all.encode_invalid = u8::try_from(found).unwrap_or(0);
        }
    }
    config.set(all);
    one(match all.encode_invalid {
        2 => Value::String(params.lua.create_string("null")?),
        value => Value::Boolean(value == 1),
    })
}

fn encode(params: &Params<'_>, config: &Cell<Config>) -> mlua::Result<MultiValue> {
    if params.len() != 1 {
        return Err(params.bad(1, "expected 1 argument"));
    }
    // Taken now: tables are walked through calls of Lua's own.
    let place = position(params.lua, 1);
    let mut encoder = Encoder { params, config: config.get(), place, out: Vec::new() };
    encoder.value(params.get(1), 0)?;
    one(Value::String(params.lua.create_string(&encoder.out)?))
}

struct Encoder<'a> {
    params: &'a Params<'a>,
    config: Config,
    /// Where it was called.
    place: String,
    out: Vec<u8>,
}

impl Encoder<'_> {
    fn error(&self, text: &str) -> mlua::Error {
        self.params.host.plain(format!("{}{text}", self.place))
    }

    fn refuse(&self, value: &Value, why: &str) -> mlua::Error {
        self.error(&format!("Cannot serialise {}: {why}", kind(value)))
    }

    fn value(&mut self, value: &Value, depth: usize) -> mlua::Result<()> {
        // An array without a bound on how sparse it is, and tables that are in each other many times, are as long as they like.
        self.params.host.made(self.out.len())?;
        match value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::String(text) => self.text(&text.as_bytes())?,
            Value::Integer(number) => self.number(*number as f64, value)?,
            Value::Number(number) => self.number(*number, value)?,
            Value::LightUserData(pointer) if pointer.0.is_null() => {
                self.out.extend_from_slice(b"null");
            }
            Value::Table(table) => return self.table(table, depth + 1),
            other => return Err(self.refuse(other, "type not supported")),
        }
        Ok(())
    }

    fn number(&mut self, number: f64, value: &Value) -> mlua::Result<()> {
        if !number.is_finite() {
            match self.config.encode_invalid {
                0 => return Err(self.refuse(value, "must not be NaN or Inf")),
                1 if number.is_nan() => {
                    self.out.extend_from_slice(b"nan");
                    return Ok(());
                }
                1 => {}
                _ => {
                    self.out.extend_from_slice(b"null");
                    return Ok(());
                }
            }
        }
        let precision = usize::try_from(self.config.precision).unwrap_or(14);
        self.out.extend_from_slice(format_g(number, precision).as_bytes());
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> mlua::Result<()> {
        self.params.host.made(self.out.len() + text.len())?;
        self.out.push(b'"');
        for &byte in text {
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'/' => self.out.extend_from_slice(b"\\/"),
                8 => self.out.extend_from_slice(b"\\b"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                12 => self.out.extend_from_slice(b"\\f"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                0..32 | 127 => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                other => self.out.push(other),
            }
        }
        self.out.push(b'"');
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        let limit = usize::try_from(self.config.encode_depth).unwrap_or(DEPTH_MAX).min(DEPTH_MAX);
        if depth > limit {
            return Err(self.error(&format!("Cannot serialise, excessive nesting ({depth})")));
        }
        match self.array_len(table)? {
            Some(len) if len > 0 => self.array(table, len, depth),
            _ => self.object(table, depth),
        }
    }

    /// How long the array is that a table is; `None` for an object.
    fn array_len(&self, table: &Table) -> mlua::Result<Option<i64>> {
        let (mut max, mut items, mut is_array) = (0_i64, 0_i64, true);
        if table.raw_len() == 0 && table.is_empty() {
            return Ok(Some(0));
        }
        table.for_each(|key: Value, _: Value| {
            match key {
                Value::Integer(index) if index >= 1 => {
                    max = max.max(index);
                    items += 1;
                }
                _ => is_array = false,
            }
            Ok(())
        })?;
        if !is_array {
            return Ok(None);
        }
        let Config { sparse_convert, sparse_ratio, sparse_safe, .. } = self.config;
        if sparse_ratio > 0 && max > items.saturating_mul(sparse_ratio) && max > sparse_safe {
            if !sparse_convert {
                let table = Value::Table(table.clone());
                return Err(self.refuse(&table, "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok(Some(max))
    }

    fn array(&mut self, table: &Table, len: i64, depth: usize) -> mlua::Result<()> {
        self.out.push(b'[');
        for index in 1..=len {
            if index > 1 {
                self.out.push(b',');
            }
            let value: Value = table.raw_get(index)?;
            self.value(&value, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        self.out.push(b'{');
        let mut first = true;
        table.for_each(|key: Value, value: Value| {
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match &key {
                Value::String(text) => self.text(&text.as_bytes())?,
                Value::Integer(_) | Value::Number(_) => {
                    let number = match key {
                        Value::Integer(number) => number as f64,
                        Value::Number(number) => number,
                        _ => 0.0,
                    };
                    self.out.push(b'"');
                    self.number(number, &key)?;
                    self.out.push(b'"');
                }
                other => return Err(self.refuse(other, "table key must be a number or string")),
            }
            self.out.push(b':');
            self.value(&value, depth)
        })?;
        self.out.push(b'}');
        Ok(())
    }
}

fn decode(params: &Params<'_>, config: &Cell<Config>) -> mlua::Result<MultiValue> {
    if params.len() != 1 {
        return Err(params.bad(1, "expected 1 argument"));
    }
    let text = params.text(1)?;
    if text.len() >= 2 && text.iter().take(2).any(|&byte| byte == 0) {
        let why = "JSON parser does not support UTF-16 or UTF-32";
        return Err(params.host.error(params.lua, why));
    }
    let mut decoder = Decoder { params, config: config.get(), text: &text, at: 0, depth: 0 };
    let token = decoder.token();
    let value = decoder.value(token)?;
    match decoder.token() {
        (Token::End, _) => one(value),
        token => Err(decoder.unexpected("the end", &token)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    const fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Error(what) => what,
        }
    }
}

struct Decoder<'a> {
    params: &'a Params<'a>,
    config: Config,
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Decoder<'_> {
    fn unexpected(&self, expected: &str, (token, at): &(Token, usize)) -> mlua::Error {
        let text =
            format!("Expected {expected} but found {} at character {}", token.name(), at + 1);
        self.params.host.error(self.params.lua, &text)
    }

    /// The byte `ahead` of the place; 0 behind the end, as in C.
    fn byte(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// The next token, and where it or what is wrong with it is.
    fn token(&mut self) -> (Token, usize) {
        while matches!(self.byte(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let at = self.at;
        let single = match self.byte(0) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            0 => return (Token::End, at),
            _ => return self.long_token(at),
        };
        self.at += 1;
        (single, at)
    }

    fn long_token(&mut self, at: usize) -> (Token, usize) {
        const NUMBER: Token = Token::Error("invalid number");
        let rest = self.text.get(at..).unwrap_or_default();
        match self.byte(0) {
            b'"' => return self.string(at),
            b'-' | b'0'..=b'9' => {
                if !self.config.decode_invalid && is_invalid(rest) {
                    return (NUMBER, at);
                }
                return self.number(at);
            }
            _ => {}
        }
        for (word, token) in [
            ("true", Token::Boolean(true)),
            ("false", Token::Boolean(false)),
            ("null", Token::Null),
        ] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return (token, at);
            }
        }
        let may_be_number = matches!(self.byte(0), b'i' | b'I' | b'n' | b'N' | b'+');
        if may_be_number && self.config.decode_invalid && is_invalid(rest) {
            return self.number(at);
        }
        (Token::Error("invalid token"), at)
    }

    fn number(&mut self, at: usize) -> (Token, usize) {
        match read_double(self.text.get(at..).unwrap_or_default()) {
            Some((value, len)) => {
                self.at += len;
                (Token::Number(value), at)
            }
            None => (Token::Error("invalid number"), at),
        }
    }

    fn string(&mut self, at: usize) -> (Token, usize) {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.byte(0) {
                b'"' => {
                    self.at += 1;
                    return (Token::Text(text), at);
                }
                0 => return (Token::Error("unexpected end of string"), self.at),
                b'\\' => {
                    let plain = match self.byte(1) {
                        byte @ (b'"' | b'\\' | b'/') => byte,
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 12,
                        b'r' => b'\r',
                        b'u' => match self.unicode(&mut text) {
                            Some(len) => {
                                self.at += len;
                                continue;
                            }
                            None => {
                                return (Token::Error("invalid unicode escape code"), self.at);
                            }
                        },
                        _ => return (Token::Error("invalid escape code"), self.at),
                    };
                    text.push(plain);
                    self.at += 2;
                }
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn hex4(&self, ahead: usize) -> Option<u32> {
        (0..4).try_fold(0, |value, digit| {
            Some(value << 4 | char::from(self.byte(ahead + digit)).to_digit(16)?)
        })
    }

    /// Appends what `\uXXXX` means, of two of them for a surrogate pair; how many bytes that took.
    fn unicode(&self, text: &mut Vec<u8>) -> Option<usize> {
        let mut code = self.hex4(2)?;
        let mut len = 6;
        if code & 0xF800 == 0xD800 {
            if code & 0x400 != 0 || self.byte(6) != b'\\' || self.byte(7) != b'u' {
                return None;
            }
            let low = self.hex4(8)?;
            if low & 0xFC00 != 0xDC00 {
                return None;
            }
            code = ((code & 0x3FF) << 10 | low & 0x3FF) + 0x1_0000;
            len = 12;
        }
        let mut room = [0; 4];
        text.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut room).as_bytes());
        Some(len)
    }

    fn value(&mut self, (token, at): (Token, usize)) -> mlua::Result<Value> {
        match token {
            Token::Text(text) => self.params.lua.create_string(text).map(Value::String),
            Token::Number(number) => Ok(Value::Number(number)),
            Token::Boolean(value) => Ok(Value::Boolean(value)),
            Token::Null => Ok(null()),
            Token::ObjectBegin => self.object(),
            Token::ArrayBegin => self.array(),
            token => Err(self.unexpected("value", &(token, at))),
        }
    }

    fn descend(&mut self) -> mlua::Result<()> {
        self.depth += 1;
        let limit = usize::try_from(self.config.decode_depth).unwrap_or(DEPTH_MAX).min(DEPTH_MAX);
        if self.depth > limit {
            let text = format!(
                "Found too many nested data structures ({}) at character {}",
                self.depth, self.at
            );
            return Err(self.params.host.error(self.params.lua, &text));
        }
        Ok(())
    }

    fn object(&mut self) -> mlua::Result<Value> {
        self.descend()?;
        let table = self.params.lua.create_table()?;
        let mut token = self.token();
        if matches!(token.0, Token::ObjectEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        loop {
            let Token::Text(key) = token.0 else {
                return Err(self.unexpected("object key string", &token));
            };
            let colon = self.token();
            if !matches!(colon.0, Token::Colon) {
                return Err(self.unexpected("colon", &colon));
            }
            let token_of_value = self.token();
            let value = self.value(token_of_value)?;
            table.raw_set(self.params.lua.create_string(key)?, value)?;
            match self.token() {
                (Token::ObjectEnd, _) => {
                    self.depth -= 1;
                    return Ok(Value::Table(table));
                }
                (Token::Comma, _) => token = self.token(),
                other => return Err(self.unexpected("comma or object end", &other)),
            }
        }
    }

    fn array(&mut self) -> mlua::Result<Value> {
        self.descend()?;
        let table = self.params.lua.create_table()?;
        let mut token = self.token();
        if matches!(token.0, Token::ArrayEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        for index in 1_i64.. {
            let value = self.value(token)?;
            table.raw_set(index, value)?;
            match self.token() {
                (Token::ArrayEnd, _) => break,
                (Token::Comma, _) => token = self.token(),
                other => return Err(self.unexpected("comma or array end", &other)),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }
}

/// Whether this is a number for `strtod` and none of JSON.
fn is_invalid(text: &[u8]) -> bool {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    if byte(0) == b'+' {
        return true;
    }
    let rest = text.get(usize::from(byte(0) == b'-')..).unwrap_or_default();
    match rest {
        [b'0', b'x' | b'X' | b'0'..=b'9', ..] => true,
        [..=b'9', ..] | [] => false,
        rest => ["inf", "nan"].iter().any(|word| {
            rest.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
        }),
    }
}
