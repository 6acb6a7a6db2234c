//! `struct`: values to bytes and back by a format, as lua-struct 0.2 in Redis has it.
//!
//! Invariants: a size in a format is at most what a C `int` holds, and what it asks of the data is checked against the
//! data's length; alignment is a power of two.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use crate::script::{
    api::{function, function_multi},
    host::{Host, Params, truncated},
};

/// Most bytes of an integer.
const INT_MAX_BYTES: usize = 32;
/// Most results of `unpack`.
const RESULTS_MAX: usize = 7000;

pub(super) fn table(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", function(lua, host, pack)?)?;
    table.raw_set("unpack", function_multi(lua, host, unpack)?)?;
    table.raw_set("size", function(lua, host, size)?)?;
    Ok(table)
}

/// A format on its way.
struct Format<'a> {
    params: &'a Params<'a>,
    text: &'a [u8],
    at: usize,
    little: bool,
    align: usize,
}

/// One option with its size and the padding before it.
struct Item {
    option: u8,
    size: usize,
    padding: usize,
}

impl<'a> Format<'a> {
    fn new(params: &'a Params<'a>, text: &'a [u8]) -> Self {
        // A NUL ends it, as it does in C.
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        let text = text.get(..end).unwrap_or_default();
        Self { params, text, at: 0, little: true, align: 1 }
    }

    fn error(&self, text: &str) -> mlua::Error {
        self.params.host.error(self.params.lua, text)
    }

    /// The next option, with the place it would have at `position`.
    fn next(&mut self, position: usize) -> mlua::Result<Option<Item>> {
        let Some(&option) = self.text.get(self.at) else { return Ok(None) };
        self.at += 1;
        let size = match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INT_MAX_BYTES {
                    let text =
                        format!("integral size {size} is larger than limit of {INT_MAX_BYTES}");
                    return Err(self.error(&text));
                }
                size
            }
            _ => 0,
        };
        let padding = if size == 0 || option == b'c' {
            0
        } else {
            let unit = size.min(self.align);
            unit.wrapping_sub(position & unit.wrapping_sub(1)) & unit.wrapping_sub(1)
        };
        Ok(Some(Item { option, size, padding }))
    }

    fn number(&mut self, default: usize) -> mlua::Result<usize> {
        const MAX: usize = i32::MAX as usize;
        let mut number = None;
        while let Some(&digit) = self.text.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            let digit = usize::from(digit - b'0');
            let so_far = number.unwrap_or(0);
            if so_far > MAX / 10 || so_far * 10 > MAX - digit {
                return Err(self.error("integral size overflow"));
            }
            number = Some(so_far * 10 + digit);
            self.at += 1;
        }
        Ok(number.unwrap_or(default))
    }

    /// An option that is none of a value.
    fn control(&mut self, option: u8) -> mlua::Result<()> {
        match option {
            b' ' => {}
            b'>' => self.little = false,
            b'<' => self.little = true,
            b'!' => {
                let align = self.number(8)?;
                if !align.is_power_of_two() {
                    return Err(self.error(&format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            other => {
                let text = format!("invalid format option '{}'", char::from(other));
                return Err(self.params.bad(1, &text));
            }
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>, little_endian: &[u8]) {
        if self.little {
            out.extend_from_slice(little_endian);
        } else {
            out.extend(little_endian.iter().rev());
        }
    }

    /// Bytes of the data, least first.
    fn take<const N: usize>(&self, bytes: &[u8]) -> [u8; N] {
        let mut all = [0; N];
        if self.little {
            all.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
        } else {
            all.iter_mut().zip(bytes.iter().rev()).for_each(|(to, &from)| *to = from);
        }
        all
    }
}

fn pack(params: &Params<'_>) -> mlua::Result<Value> {
    let text = params.text(1)?;
    // What comes after the last argument is nil, not nothing.
    let mut values = params.values.clone();
    values.push_back(Value::Nil);
    let params = &Params { host: params.host, lua: params.lua, values };
    let mut format = Format::new(params, &text);
    let (mut out, mut argument) = (Vec::new(), 2);
    while let Some(Item { option, mut size, padding }) = format.next(out.len())? {
        params.host.made(out.len())?;
        out.resize(out.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let value = integer_bits(params.number(argument)?);
                argument += 1;
                let mut bytes = [0; INT_MAX_BYTES];
                let low = value.to_le_bytes();
                bytes.iter_mut().zip(low).for_each(|(to, from)| *to = from);
                format.put(&mut out, bytes.get(..size).unwrap_or_default());
            }
            b'x' => out.push(0),
            b'f' => {
                let value = params.number(argument)? as f32;
                argument += 1;
                format.put(&mut out, &value.to_le_bytes());
            }
            b'd' => {
                let value = params.number(argument)?;
                argument += 1;
                format.put(&mut out, &value.to_le_bytes());
            }
            b'c' | b's' => {
                let value = params.text(argument)?;
                argument += 1;
                if size == 0 {
                    size = value.len();
                }
                let Some(part) = value.get(..size) else {
                    return Err(params.bad(argument, "string too short"));
                };
                out.extend_from_slice(part);
                if option == b's' {
                    out.push(0);
                }
            }
            other => format.control(other)?,
        }
    }
    Ok(Value::String(params.lua.create_string(&out)?))
}

/// A double as C puts it into an `unsigned long`.
fn integer_bits(value: f64) -> u64 {
    if value < 0.0 || value.is_nan() {
        return truncated(value) as u64;
    }
    // From 2^63 on, x86 takes the rest modulo 2^64.
    if value < 18_446_744_073_709_551_616.0 { value as u64 } else { 0 }
}

fn unpack(params: &Params<'_>) -> mlua::Result<MultiValue> {
    let (text, data) = (params.text(1)?, params.text(2)?);
    let offset = params.integer_or(3, 1)?;
    // A negative offset is a huge one in C, which is beyond any data.
    let Some(mut at) = usize::try_from(offset as u64).ok().and_then(|at| at.checked_sub(1)) else {
        return Err(params.bad(3, "offset must be 1 or greater"));
    };
    let short = || params.bad(2, "data string too short");
    let mut format = Format::new(params, &text);
    let mut results: Vec<Value> = Vec::new();
    while let Some(Item { option, mut size, padding }) = format.next(at)? {
        at = at.checked_add(padding).ok_or_else(short)?;
        let piece =
            |size: usize| at.checked_add(size).and_then(|end| data.get(at..end)).ok_or_else(short);
        let bytes = piece(size)?;
        if results.len() >= RESULTS_MAX {
            return Err(format.error("stack overflow (too many results)"));
        }
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let signed = option.is_ascii_lowercase();
                results.push(Value::Number(integer(&format, bytes, signed)));
            }
            b'x' => {}
            b'f' => {
                let value = f32::from_le_bytes(format.take(bytes));
                results.push(Value::Number(f64::from(value)));
            }
            b'd' => results.push(Value::Number(f64::from_le_bytes(format.take(bytes)))),
            b'c' => {
                if size == 0 {
                    let before = results
                        .pop()
                        .and_then(|value| crate::script::host::number(params.lua, &value));
                    let Some(before) = before else {
                        return Err(format.error("format 'c0' needs a previous size"));
                    };
                    size = usize::try_from(truncated(before) as u64).unwrap_or(usize::MAX);
                }
                let part = piece(size)?;
                results.push(Value::String(params.lua.create_string(part)?));
            }
            b's' => {
                let rest = data.get(at..).unwrap_or_default();
                let Some(len) = rest.iter().position(|&byte| byte == 0) else {
                    return Err(format.error("unfinished string in data"));
                };
                let part = rest.get(..len).unwrap_or_default();
                results.push(Value::String(params.lua.create_string(part)?));
                size = len + 1;
            }
            other => format.control(other)?,
        }
        at += size;
    }
    results.push(Value::Integer(i64::try_from(at + 1).unwrap_or(i64::MAX)));
    Ok(results.into())
}

/// An integer of any size: its low 64 bits count.
fn integer(format: &Format<'_>, bytes: &[u8], signed: bool) -> f64 {
    let low: [u8; 8] = format.take(bytes);
    let bits = u64::from_le_bytes(low);
    if !signed {
        return bits as f64;
    }
    let used = u32::try_from(bytes.len().clamp(1, 8) * 8).unwrap_or(64);
    let spare = 64 - used;
    (((bits << spare) as i64) >> spare) as f64
}

fn size(params: &Params<'_>) -> mlua::Result<Value> {
    let text = params.text(1)?;
    let mut format = Format::new(params, &text);
    let mut total: usize = 0;
    while let Some(Item { option, size, padding }) = format.next(total)? {
        if option == b's' {
            return Err(params.bad(1, "option 's' has no fixed size"));
        }
        if option == b'c' && size == 0 {
            return Err(params.bad(1, "option 'c0' has no fixed size"));
        }
        if !option.is_ascii_alphanumeric() {
            format.control(option)?;
        }
        total = total.saturating_add(padding).saturating_add(size);
    }
    Ok(Value::Integer(i64::try_from(total).unwrap_or(i64::MAX)))
}
