//! `bit`: operations on 32-bit integers, as Lua BitOp 1.0.2 has them.
//!
//! A number is taken modulo 2^32, with half rounded to even; results are signed.

use std::rc::Rc;

use mlua::{Lua, Table, Value};

use crate::script::{
    api::function,
    host::{Host, Params, number},
};

type Body = fn(&Params<'_>) -> mlua::Result<Value>;

pub(super) fn table(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let functions: [(&str, Body); 12] = [
        ("tobit", |params| Ok(signed(argument(params, 1)?))),
        ("bnot", |params| Ok(signed(!argument(params, 1)?))),
        ("band", |params| fold(params, |a, b| a & b)),
        ("bor", |params| fold(params, |a, b| a | b)),
        ("bxor", |params| fold(params, |a, b| a ^ b)),
        ("lshift", |params| shift(params, |b, n| b << n)),
        ("rshift", |params| shift(params, |b, n| b >> n)),
        ("arshift", |params| shift(params, |b, n| ((b as i32) >> n) as u32)),
        ("rol", |params| shift(params, u32::rotate_left)),
        ("ror", |params| shift(params, u32::rotate_right)),
        ("bswap", |params| Ok(signed(argument(params, 1)?.swap_bytes()))),
        ("tohex", to_hex),
    ];
    for (name, body) in functions {
        table.raw_set(name, function(lua, host, body)?)?;
    }
    Ok(table)
}

fn signed(bits: u32) -> Value {
    Value::Integer(i64::from(bits as i32))
}

/// Argument `index` as bits.
fn argument(params: &Params<'_>, index: usize) -> mlua::Result<u32> {
    let value = match number(params.lua, params.get(index)) {
        Some(value) => value,
        // The error of a wrong type.
        None => params.number(index)?,
    };
    // The low bits of the sum's mantissa are the number, for all numbers up to 2^51.
    Ok((value + 6_755_399_441_055_744.0).to_bits() as u32)
}

fn fold(params: &Params<'_>, op: fn(u32, u32) -> u32) -> mlua::Result<Value> {
    let mut bits = argument(params, 1)?;
    for index in (2..=params.len()).rev() {
        bits = op(bits, argument(params, index)?);
    }
    Ok(signed(bits))
}

fn shift(params: &Params<'_>, op: fn(u32, u32) -> u32) -> mlua::Result<Value> {
    let (bits, by) = (argument(params, 1)?, argument(params, 2)? & 31);
    Ok(signed(op(bits, by)))
}

fn to_hex(params: &Params<'_>) -> mlua::Result<Value> {
    let bits = argument(params, 1)?;
    let digits = if params.len() < 2 { 8 } else { argument(params, 2)? as i32 };
    let count = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{bits:08X}") } else { format!("{bits:08x}") };
    let text = text.get(8 - count..).unwrap_or_default();
    Ok(Value::String(params.lua.create_string(text)?))
}
