//! `cmsgpack`: MessagePack as lua-cmsgpack 0.4.0 in Redis reads and writes it.
//!
//! Invariants: what a length announces is only believed element by element; tables nest up to [`ENCODE_DEPTH`] when
//! they are packed (deeper ones become nil) and up to [`DECODE_DEPTH`] when they are unpacked.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use crate::script::{
    api::{function, function_multi},
    host::{Host, Params},
};

/// Tables deeper than this are packed as nil.
const ENCODE_DEPTH: usize = 16;
/// Deepest nesting that is unpacked.
const DECODE_DEPTH: usize = 1000;
/// Most values one call unpacks.
const RESULTS_MAX: usize = 7000;

pub(super) fn table(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", function(lua, host, pack)?)?;
    table.raw_set("unpack", function_multi(lua, host, |params| unpack(params, 0, 0))?)?;
    table.raw_set(
        "unpack_one",
        function_multi(lua, host, |params| {
            let offset = params.integer_or(2, 0)?;
            unpack(params, 1, offset)
        })?,
    )?;
    table.raw_set(
        "unpack_limit",
        function_multi(lua, host, |params| {
            let limit = params.integer(2)?;
            let offset = params.integer_or(3, 0)?;
            unpack(params, limit, offset)
        })?,
    )?;
    for (name, text) in [
        ("_NAME", "cmsgpack"),
        ("_VERSION", "lua-cmsgpack 0.4.0"),
        ("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo"),
        ("_DESCRIPTION", "MessagePack C implementation for Lua"),
    ] {
        table.raw_set(name, text)?;
    }
    Ok(table)
}

fn pack(params: &Params<'_>) -> mlua::Result<Value> {
    if params.len() == 0 {
        return Err(params.bad(0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in &params.values {
        encode(params.host, &mut out, value, 0)?;
    }
    Ok(Value::String(params.lua.create_string(&out)?))
}

fn encode(host: &Host, out: &mut Vec<u8>, value: &Value, level: usize) -> mlua::Result<()> {
    // Tables may be in each other many times.
    host.made(out.len())?;
    match value {
        Value::String(text) => encode_bytes(out, &text.as_bytes()),
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => encode_integer(out, *number),
        Value::Number(number) => encode_number(out, *number),
        Value::Table(table) if level < ENCODE_DEPTH => encode_table(host, out, table, level)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn encode_number(out: &mut Vec<u8>, number: f64) {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.is_finite() && (-LIMIT..LIMIT).contains(&number) && number.trunc() == number {
        return encode_integer(out, number as i64);
    }
    let single = number as f32;
    if f64::from(single) == number {
        out.push(0xca);
        out.extend_from_slice(&single.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn encode_integer(out: &mut Vec<u8>, number: i64) {
    // The low bytes of a number, most significant first.
    let mut put = |mark: u8, len: usize| {
        out.push(mark);
        let bytes = number.to_be_bytes();
        out.extend_from_slice(bytes.get(8 - len..).unwrap_or_default());
    };
    match number {
        -32..=0x7f => out.push(number as u8),
        0x80..=0xff => put(0xcc, 1),
        0x100..=0xffff => put(0xcd, 2),
        0x1_0000..=0xffff_ffff => put(0xce, 4),
        0x1_0000_0000.. => put(0xcf, 8),
        -0x80..=-33 => put(0xd0, 1),
        -0x8000..=-0x81 => put(0xd1, 2),
        -0x8000_0000..=-0x8001 => put(0xd2, 4),
        _ => put(0xd3, 8),
    }
}

fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = bytes.len();
    match len {
        0..32 => out.push(0xa0 | len as u8),
        32..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
        _ => encode_len(out, len, 0xda, 0xdb),
    }
    out.extend_from_slice(bytes);
}

/// A length in two or four bytes.
fn encode_len(out: &mut Vec<u8>, len: usize, short: u8, long: u8) {
    match u16::try_from(len) {
        Ok(len) => {
            out.push(short);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(long);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn encode_table(host: &Host, out: &mut Vec<u8>, table: &Table, level: usize) -> mlua::Result<()> {
    let (mut count, mut max, mut is_array) = (0_usize, 0_i64, true);
    table.for_each(|key: Value, _: Value| {
        count += 1;
        match key {
            Value::Integer(index) if (1..=i64::from(i32::MAX)).contains(&index) => {
                max = max.max(index);
            }
            _ => is_array = false,
        }
        Ok(())
    })?;
    if is_array && usize::try_from(max) == Ok(count) {
        match count {
            0..16 => out.push(0x90 | count as u8),
            _ => encode_len(out, count, 0xdc, 0xdd),
        }
        for index in 1..=max {
            let value: Value = table.raw_get(index)?;
            encode(host, out, &value, level + 1)?;
        }
        return Ok(());
    }
    match count {
        0..16 => out.push(0x80 | count as u8),
        _ => encode_len(out, count, 0xde, 0xdf),
    }
    table.for_each(|key: Value, value: Value| {
        encode(host, out, &key, level + 1)?;
        encode(host, out, &value, level + 1)
    })
}

fn unpack(params: &Params<'_>, limit: i64, offset: i64) -> mlua::Result<MultiValue> {
    let text = params.text(1)?;
    let error = |text: &str| params.host.error(params.lua, text);
    let len = text.len();
    if offset < 0 || limit < 0 {
        let text = format!(
            "Invalid request to unpack with offset of {} and limit of {}.",
            offset as i32, len as i32
        );
        return Err(error(&text));
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let Some(bytes) = text.get(start..) else {
        let text =
            format!("Start offset {} greater than input length {}.", offset as i32, len as i32);
        return Err(error(&text));
    };
    let all = limit == 0 && offset == 0;
    let most = if all { RESULTS_MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let mut reader = Reader { params, bytes };
    let mut values = Vec::new();
    while !reader.bytes.is_empty() && values.len() < most.min(RESULTS_MAX) {
        values.push(reader.value(0)?);
    }
    if !reader.bytes.is_empty() && most >= RESULTS_MAX {
        let text = "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)";
        return Err(error(text));
    }
    if !all {
        let left = reader.bytes.len();
        let next = if left == 0 { -1 } else { i64::try_from(len - left).unwrap_or(-1) };
        values.insert(0, Value::Integer(next));
    }
    Ok(values.into())
}

struct Reader<'a> {
    params: &'a Params<'a>,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn error(&self, text: &str) -> mlua::Error {
        self.params.host.error(self.params.lua, text)
    }

    fn take(&mut self, len: usize) -> mlua::Result<&'a [u8]> {
        let Some((part, rest)) = self.bytes.split_at_checked(len) else {
            return Err(self.error("Missing bytes in input."));
        };
        self.bytes = rest;
        Ok(part)
    }

    /// An unsigned number of up to eight bytes.
    fn number(&mut self, len: usize) -> mlua::Result<u64> {
        Ok(self.take(len)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn len(&mut self, len: usize) -> mlua::Result<usize> {
        Ok(usize::try_from(self.number(len)?).unwrap_or(usize::MAX))
    }

    fn text(&mut self, len: usize) -> mlua::Result<Value> {
        let bytes = self.take(len)?;
        self.params.lua.create_string(bytes).map(Value::String)
    }

    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        if depth > DECODE_DEPTH {
            return Err(self.error("stack overflow (in function mp_decode_to_lua_array)"));
        }
        let mark = self.number(1)? as u8;
        let value = match mark {
            0x00..0x80 => Value::Integer(i64::from(mark)),
            0xe0.. => Value::Integer(i64::from(mark as i8)),
            0x80..0x90 => return self.map(usize::from(mark & 15), depth),
            0x90..0xa0 => return self.array(usize::from(mark & 15), depth),
            0xa0..0xc0 => return self.text(usize::from(mark & 31)),
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::Number(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xcb => Value::Number(f64::from_bits(self.number(8)?)),
            0xcc => Value::Integer(self.number(1)? as i64),
            0xcd => Value::Integer(self.number(2)? as i64),
            0xce => Value::Integer(self.number(4)? as i64),
            0xcf => Value::Integer(self.number(8)? as i64),
            0xd0 => Value::Integer(i64::from(self.number(1)? as i8)),
            0xd1 => Value::Integer(i64::from(self.number(2)? as i16)),
            0xd2 => Value::Integer(i64::from(self.number(4)? as i32)),
            0xd3 => Value::Integer(self.number(8)? as i64),
            0xd9 => {
                let len = self.len(1)?;
                return self.text(len);
            }
            0xda => {
                let len = self.len(2)?;
                return self.text(len);
            }
            0xdb => {
                let len = self.len(4)?;
                return self.text(len);
            }
            0xdc => {
                let len = self.len(2)?;
                return self.array(len, depth);
            }
            0xdd => {
                let len = self.len(4)?;
                return self.array(len, depth);
            }
            0xde => {
                let len = self.len(2)?;
                return self.map(len, depth);
            }
            0xdf => {
                let len = self.len(4)?;
                return self.map(len, depth);
            }
            _ => return Err(self.error("Bad data format in input.")),
        };
        Ok(value)
    }

    fn array(&mut self, len: usize, depth: usize) -> mlua::Result<Value> {
        let table = self.params.lua.create_table()?;
        for index in 1..=len {
            let value = self.value(depth + 1)?;
            table.raw_set(index, value)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: usize, depth: usize) -> mlua::Result<Value> {
        let table = self.params.lua.create_table()?;
        for _ in 0..len {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            match key {
                Value::Nil => return Err(self.params.host.plain("table index is nil")),
                Value::Number(number) if number.is_nan() => {
                    return Err(self.params.host.plain("table index is NaN"));
                }
                key => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}
