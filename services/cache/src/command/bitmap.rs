//! Bitmap commands, on strings.
//!
//! Invariant: a write makes the string long enough first, even if nothing of it is then written, as Redis does.
//! Next: `logic::object::bits` counts, searches and combines.

use bytes::Bytes;
use logic::object::bits::{self, BitOp, Field, Overflow, Unit};
use logic::store::{Expire, Form, NewValue, Value};
use wire::resp::{parse_i64, reply};

use super::{Cx, Fault, Outcome, collection::Words, dispatch::c_string};
use crate::events::{GENERIC, STRING};

type Result = std::result::Result<Outcome, Fault>;
type Checked<T> = std::result::Result<T, Fault>;

const BAD_OFFSET: Fault = Fault::text("ERR bit offset is not an integer or out of range");

/// The bit offset at argument 2.
fn offset(cx: &Cx<'_>) -> Checked<u64> {
    let offset = parse_i64(cx.arg(2)).and_then(|offset| u64::try_from(offset).ok());
    offset.filter(|offset| offset / 8 < cx.shard.max_value_bytes() as u64).ok_or(BAD_OFFSET)
}

/// Calls `write` with the string at the key of argument 1, made or grown to `len` bytes.
fn write<R>(cx: &mut Cx<'_>, len: u64, write: impl FnOnce(&mut Vec<u8>) -> R) -> Checked<R> {
    let found = cx.string(1)?.is_some();
    let len = usize::try_from(len).map_err(|_| Fault::TOO_LONG)?;
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let grown = |value: &mut Vec<u8>| {
        if value.len() < len {
            value.resize(len, 0);
        }
        write(value)
    };
    if found {
        // It was there a moment ago.
        return cx.shard.store.modify(db, hash, key, now, grown)?.ok_or(Fault::NO_KEY);
    }
    let mut value = Vec::new();
    let result = grown(&mut value);
    let value = NewValue::Shared(Bytes::from(value));
    cx.shard.store.set(db, hash, key, value, Expire::Clear, Form::Raw, now)?;
    cx.created(1);
    Ok(result)
}

pub(super) fn setbit(cx: &mut Cx<'_>) -> Result {
    let offset = offset(cx)?;
    let bit = match parse_i64(cx.arg(3)) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(Fault::text("ERR bit is not an integer or out of range")),
    };
    let len = bits::bytes_for(offset + 1);
    let grows = cx.string(1)?.is_none_or(|value| (value.len() as u64) < len);
    let before = write(cx, len, |value| bits::set_bit(value, offset, bit))?;
    if grows || before != bit {
        cx.event(STRING, "setbit", 1);
    }
    cx.int(before.into())
}

/// The number that `answer` makes of the string at the key of argument 1; `missing` without one.
fn number(cx: &mut Cx<'_>, missing: i64, answer: impl FnOnce(&[u8]) -> Checked<i64>) -> Result {
    let number = match cx.lookup(1).map(|entry| entry.value) {
        None => missing,
        Some(Value::Object(_)) => return Err(Fault::WRONG_TYPE),
        Some(value) => answer(value.as_slice())?,
    };
    cx.int(number)
}

pub(super) fn getbit(cx: &mut Cx<'_>) -> Result {
    let offset = offset(cx)?;
    number(cx, 0, |value| Ok(bits::get_bit(value, offset).into()))
}

fn integer(words: Words<'_>, index: usize) -> Checked<i64> {
    parse_i64(words.get(index)).ok_or(Fault::NOT_INTEGER)
}

fn unit(word: &[u8]) -> Checked<Unit> {
    if word.eq_ignore_ascii_case(b"BIT") {
        Ok(Unit::Bit)
    } else if word.eq_ignore_ascii_case(b"BYTE") {
        Ok(Unit::Byte)
    } else {
        Err(Fault::SYNTAX)
    }
}

pub(super) fn bitcount(cx: &mut Cx<'_>) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    number(cx, 0, |value| {
        let range = match argc {
            2 => None,
            4 | 5 => {
                let (start, end) = (integer(words, 2)?, integer(words, 3)?);
                if start < 0 && end < 0 && start > end {
                    return Ok(0);
                }
                Some((start, end, if argc == 5 { unit(words.get(4))? } else { Unit::Byte }))
            }
            _ => return Err(Fault::SYNTAX),
        };
        Ok(i64::try_from(bits::count(value, range)).unwrap_or(i64::MAX))
    })
}

pub(super) fn bitpos(cx: &mut Cx<'_>) -> Result {
    let bit = match cx.integer(2)? {
        0 => false,
        1 => true,
        _ => return Err(Fault::text("ERR The bit argument must be 1 or 0.")),
    };
    let (words, argc) = (cx.words(), cx.argc());
    number(cx, if bit { -1 } else { 0 }, |value| {
        if argc > 6 {
            return Err(Fault::SYNTAX);
        }
        let start = if argc > 3 { integer(words, 3)? } else { 0 };
        let unit = if argc == 6 { unit(words.get(5))? } else { Unit::Byte };
        let end = if argc > 4 { Some((integer(words, 4)?, unit)) } else { None };
        let found = bits::position(value, bit, start, end);
        Ok(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
    })
}

pub(super) fn bitop(cx: &mut Cx<'_>) -> Result {
    let op = match cx.arg(1).to_ascii_uppercase().as_slice() {
        b"AND" => BitOp::And,
        b"OR" => BitOp::Or,
        b"XOR" => BitOp::Xor,
        b"NOT" => BitOp::Not,
        _ => return Err(Fault::SYNTAX),
    };
    if op == BitOp::Not && cx.argc() != 4 {
        return Err(Fault::text("ERR BITOP NOT must be called with a single source key."));
    }
    let (values, wrong_type) = cx.strings(3..cx.argc());
    if wrong_type {
        return Err(Fault::WRONG_TYPE);
    }
    let values: Vec<&[u8]> = values.into_iter().map(Option::unwrap_or_default).collect();
    let result = bits::combine(op, &values);
    let len = result.len() as u64;
    let (hash, key, now, db) = (cx.hash_of(2), cx.arg(2), cx.now_ms(), cx.conn.db);
    if result.is_empty() {
        if cx.shard.store.remove(db, hash, key, now) {
            cx.event(GENERIC, "del", 2);
        }
    } else {
        let value = NewValue::Shared(Bytes::from(result));
        if cx.shard.store.set(db, hash, key, value, Expire::Clear, Form::Raw, now)? {
            cx.created(2);
        }
        cx.event(STRING, "set", 2);
    }
    cx.count(len)
}

/// What BITFIELD does to a field.
#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64, Overflow),
    Increment(i64, Overflow),
}

#[derive(Clone, Copy)]
struct Step {
    field: Field,
    offset: u64,
    action: Action,
}

impl Step {
    /// The reply's number, `None` when it does not fit and that fails.
    fn run(self, value: &mut [u8]) -> Option<i64> {
        let Self { field, offset, action } = self;
        match action {
            Action::Get => Some(field.get(value, offset)),
            Action::Set(number, on) => field.set(value, offset, number, on),
            Action::Increment(by, on) => field.increment(value, offset, by, on),
        }
    }
}

/// The steps of BITFIELD.
fn steps(cx: &Cx<'_>) -> Checked<Vec<Step>> {
    let (mut steps, mut on, mut at) = (Vec::new(), Overflow::Wrap, 2);
    let max_bytes = cx.shard.max_value_bytes() as u64;
    while at < cx.argc() {
        let left = cx.argc() - at - 1;
        let write: Option<fn(i64, Overflow) -> Action> = if cx.is(at, "GET") && left >= 2 {
            None
        } else if cx.is(at, "SET") && left >= 3 {
            Some(Action::Set)
        } else if cx.is(at, "INCRBY") && left >= 3 {
            Some(Action::Increment)
        } else if cx.is(at, "OVERFLOW") && left >= 1 {
            on = overflow(cx.arg(at + 1))?;
            at += 2;
            continue;
        } else {
            return Err(Fault::SYNTAX);
        };
        let field = Field::parse(c_string(cx.arg(at + 1), usize::MAX)).ok_or(Fault::text(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported \
             but i64 is.",
        ))?;
        let offset = field.parse_offset(cx.arg(at + 2), max_bytes).ok_or(BAD_OFFSET)?;
        let action = match write {
            None => Action::Get,
            Some(write) => write(cx.integer(at + 3)?, on),
        };
        at += if write.is_some() { 4 } else { 3 };
        steps.push(Step { field, offset, action });
    }
    Ok(steps)
}

fn overflow(word: &[u8]) -> Checked<Overflow> {
    Ok(match word.to_ascii_uppercase().as_slice() {
        b"WRAP" => Overflow::Wrap,
        b"SAT" => Overflow::Saturate,
        b"FAIL" => Overflow::Fail,
        _ => return Err(Fault::text("ERR Invalid OVERFLOW type specified")),
    })
}

/// BITFIELD; `read_only`: BITFIELD_RO.
fn run_steps(cx: &mut Cx<'_>, read_only: bool) -> Result {
    let steps = steps(cx)?;
    let writes = steps.iter().filter(|step| !matches!(step.action, Action::Get));
    let end = writes.map(|step| step.offset + step.field.bits()).max();
    let numbers: Vec<Option<i64>> = match end {
        Some(_) if read_only => {
            return Err(Fault::text("ERR BITFIELD_RO only supports the GET subcommand"));
        }
        Some(end) => {
            let len = bits::bytes_for(end);
            let grows = cx.string(1)?.is_none_or(|value| (value.len() as u64) < len);
            let mut changed = false;
            let numbers = write(cx, len, |value| {
                let each = steps.iter().map(|step| {
                    let before = step.field.get(value, step.offset);
                    let number = step.run(value);
                    changed |= step.field.get(value, step.offset) != before;
                    number
                });
                each.collect()
            })?;
            if grows || changed {
                cx.event(STRING, "setbit", 1);
            }
            numbers
        }
        None => {
            let value = match cx.lookup(1).map(|entry| entry.value) {
                Some(Value::Object(_)) => return Err(Fault::WRONG_TYPE),
                value => value,
            };
            let value = value.as_ref().map(Value::as_slice).unwrap_or_default();
            steps.iter().map(|step| Some(step.field.get(value, step.offset))).collect()
        }
    };
    let version = cx.conn.version;
    let out = cx.inline();
    reply::array(out, numbers.len());
    for number in numbers {
        match number {
            Some(number) => reply::integer(out, number),
            None => reply::null(out, version),
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn bitfield(cx: &mut Cx<'_>) -> Result {
    run_steps(cx, false)
}

pub(super) fn bitfield_ro(cx: &mut Cx<'_>) -> Result {
    run_steps(cx, true)
}
