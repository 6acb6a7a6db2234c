//! Expiry of single fields, as in Redis 7.4, and HGETDEL, HGETEX and HSETEX of Redis 8.0.
//!
//! Invariant: times end 2^46 ms after 1970, Redis' limit; a time that is not ahead removes the field at once.
//! Next: `logic::object::Hash` keeps the times.

use logic::object::{
    Hash,
    hash::{ExpireIf, FieldExpire, FieldTtl},
};
use logic::store::Expire;
use wire::resp::{parse_i64, reply};

use super::super::{Cx, Fault, Outcome, collection::Reading, elements::reply_entry};
use super::{Result, change, change_or_make, read};
use crate::events::HASH;

type Checked<T> = std::result::Result<T, Fault>;

/// The latest time of a field, unix milliseconds.
const MAX_FIELD_TIME_MS: i64 = (1 << 46) - 1;

/// How a number is a time.
#[derive(Clone, Copy)]
struct Clock {
    seconds: bool,
    date: bool,
}

impl Clock {
    const EX: Self = Self { seconds: true, date: false };
    const PX: Self = Self { seconds: false, date: false };
    const EXAT: Self = Self { seconds: true, date: true };
    const PXAT: Self = Self { seconds: false, date: true };

    fn of_word(word: &[u8]) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_slice() {
            b"EX" => Self::EX,
            b"PX" => Self::PX,
            b"EXAT" => Self::EXAT,
            b"PXAT" => Self::PXAT,
            _ => return None,
        })
    }

    /// The time at argument `index`, unix milliseconds.
    fn read(self, cx: &Cx<'_>, index: usize) -> Checked<u64> {
        let time = cx.integer(index)?;
        if time < 0 {
            return Err(Fault::text("ERR invalid expire time, must be >= 0"));
        }
        let scale = if self.seconds { 1000 } else { 1 };
        let base = if self.date { 0 } else { i64::try_from(cx.now_ms()).unwrap_or(i64::MAX) };
        let time = time.checked_mul(scale).and_then(|time| time.checked_add(base));
        time.filter(|&time| time <= MAX_FIELD_TIME_MS)
            .and_then(|time| u64::try_from(time).ok())
            .ok_or_else(|| {
                Fault::owned(format!("ERR invalid expire time in '{}' command", cx.row.name))
            })
    }
}

/// Checks `FIELDS n field …` from argument `at` on, to the end; the first field's index.
fn fields(cx: &Cx<'_>, at: usize, bad_number: &'static str) -> Checked<usize> {
    if !cx.is(at, "FIELDS") {
        return Err(Fault::text(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let number = parse_i64(cx.arg(at + 1)).filter(|&number| number >= 1);
    let number = number.ok_or(Fault::text(bad_number))?;
    if usize::try_from(number).ok() != cx.argc().checked_sub(at + 2) {
        return Err(Fault::text(
            "ERR The `numfields` parameter must match the number of arguments",
        ));
    }
    Ok(at + 2)
}

const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

/// An array of numbers, one a field.
fn reply_numbers(cx: &mut Cx<'_>, numbers: &[i64]) -> Result {
    let out = cx.inline();
    reply::array(out, numbers.len());
    numbers.iter().for_each(|&number| reply::integer(out, number));
    Ok(Outcome::Done)
}

/// Calls `each` for the fields from argument `first` on and replies with its numbers; -2 for each without a hash.
fn each_field(
    cx: &mut Cx<'_>,
    first: usize,
    mut each: impl FnMut(&mut Hash, &[u8], logic::object::Cx<'_>) -> i64,
) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    let numbers = change(cx, |hash, with| {
        (first..argc).map(|index| each(hash, words.get(index), with)).collect()
    })?;
    let numbers: Vec<i64> = numbers.unwrap_or_else(|| vec![-2; argc.saturating_sub(first)]);
    if numbers.contains(&1) {
        let name = if cx.row.name == "hpersist" { "hpersist" } else { "hexpire" };
        cx.event(HASH, name, 1);
    }
    cx.taken(numbers.contains(&2), HASH, "hdel", 1);
    reply_numbers(cx, &numbers)
}

fn set_expiry(cx: &mut Cx<'_>, clock: Clock) -> Result {
    cx.holds::<Hash>(1)?;
    let at_ms = clock.read(cx, 2)?;
    let condition = match cx.arg(3).to_ascii_uppercase().as_slice() {
        b"NX" => ExpireIf::None,
        b"XX" => ExpireIf::Some,
        b"GT" => ExpireIf::Later,
        b"LT" => ExpireIf::Earlier,
        _ => ExpireIf::Always,
    };
    let at = if condition == ExpireIf::Always { 3 } else { 4 };
    let first = fields(cx, at, "ERR Parameter `numFields` should be greater than 0")?;
    each_field(cx, first, |hash, field, with| match hash.expire_at(field, at_ms, condition, with) {
        FieldExpire::NoField => -2,
        FieldExpire::Refused => 0,
        FieldExpire::Set => 1,
        FieldExpire::Deleted => 2,
    })
}

pub(in super::super) fn hexpire(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, Clock::EX)
}

pub(in super::super) fn hpexpire(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, Clock::PX)
}

pub(in super::super) fn hexpireat(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, Clock::EXAT)
}

pub(in super::super) fn hpexpireat(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, Clock::PXAT)
}

fn show(cx: &mut Cx<'_>, clock: Clock) -> Result {
    cx.holds::<Hash>(1)?;
    let first = fields(cx, 2, NOT_POSITIVE)?;
    let (words, argc) = (cx.words(), cx.argc());
    let fields = argc.saturating_sub(first);
    read(
        cx,
        |cx| reply_numbers(cx, &vec![-2; fields]),
        |Reading { value, with, out, .. }| {
            let base = if clock.date { 0 } else { with.now_ms };
            let out = out.inline_mut();
            reply::array(out, fields);
            for index in first..argc {
                let number = match value.ttl(words.get(index), with) {
                    FieldTtl::NoField => -2,
                    FieldTtl::NoExpiry => -1,
                    FieldTtl::At(at) => {
                        let ms = at.saturating_sub(base);
                        let shown = if clock.seconds { ms.div_ceil(1000) } else { ms };
                        i64::try_from(shown).unwrap_or(i64::MAX)
                    }
                };
                reply::integer(out, number);
            }
            Ok(Outcome::Done)
        },
    )
}

pub(in super::super) fn httl(cx: &mut Cx<'_>) -> Result {
    show(cx, Clock::EX)
}

pub(in super::super) fn hpttl(cx: &mut Cx<'_>) -> Result {
    show(cx, Clock::PX)
}

pub(in super::super) fn hexpiretime(cx: &mut Cx<'_>) -> Result {
    show(cx, Clock::EXAT)
}

pub(in super::super) fn hpexpiretime(cx: &mut Cx<'_>) -> Result {
    show(cx, Clock::PXAT)
}

pub(in super::super) fn hpersist(cx: &mut Cx<'_>) -> Result {
    cx.holds::<Hash>(1)?;
    let first = fields(cx, 2, NOT_POSITIVE)?;
    each_field(cx, first, |hash, field, with| match hash.persist(field, with) {
        FieldTtl::NoField => -2,
        FieldTtl::NoExpiry => -1,
        FieldTtl::At(_) => 1,
    })
}

/// Replies with the values of the fields from argument `first` on, each read before `then` has changed it, which is
/// called `event`.
fn get_and(
    cx: &mut Cx<'_>,
    first: usize,
    event: &str,
    mut then: impl FnMut(&mut Hash, &[u8], logic::object::Cx<'_>) -> bool,
) -> Result {
    let (words, argc, version) = (cx.words(), cx.argc(), cx.conn.version);
    let (mut values, mut changed) = (Vec::new(), false);
    let found = change(cx, |hash, with| {
        for index in first..argc {
            let field = words.get(index);
            let found = hash.get(field, with);
            match found {
                Some(value) => reply_entry(&mut values, value),
                None => reply::null(&mut values, version),
            }
            if found.is_some() {
                changed |= then(hash, field, with);
            }
        }
    })?;
    cx.taken(changed, HASH, event, 1);
    if found.is_none() {
        (first..argc).for_each(|_| reply::null(&mut values, version));
    }
    let out = cx.inline();
    reply::array(out, argc.saturating_sub(first));
    out.extend_from_slice(&values);
    Ok(Outcome::Done)
}

pub(in super::super) fn hgetdel(cx: &mut Cx<'_>) -> Result {
    cx.holds::<Hash>(1)?;
    let first = fields(cx, 2, NOT_POSITIVE)?;
    get_and(cx, first, "hdel", |hash, field, with| hash.remove(field, with))
}

pub(in super::super) fn hgetex(cx: &mut Cx<'_>) -> Result {
    cx.holds::<Hash>(1)?;
    let (mut at, mut at_ms, persist) = (2, None, cx.is(2, "PERSIST"));
    if let Some(clock) = Clock::of_word(cx.arg(2)) {
        at_ms = Some(clock.read(cx, 3)?);
        at = 4;
    } else if persist {
        at = 3;
    }
    let first = fields(cx, at, NOT_POSITIVE)?;
    let event = if persist { "hpersist" } else { "hexpire" };
    get_and(cx, first, event, |hash, field, with| match at_ms {
        Some(at_ms) => {
            hash.expire_at(field, at_ms, ExpireIf::Always, with);
            true
        }
        None if persist => matches!(hash.persist(field, with), FieldTtl::At(_)),
        None => false,
    })
}

/// What HSETEX asks of the fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Always,
    IfNone,
    IfAll,
}

struct SetOptions {
    only: Only,
    expire: Expire,
    first: usize,
}

/// Options of HSETEX, up to FIELDS.
fn set_options(cx: &Cx<'_>) -> Checked<SetOptions> {
    let mut options = SetOptions { only: Only::Always, expire: Expire::Clear, first: 0 };
    let mut at = 2;
    while at < cx.argc() {
        let word = cx.arg(at);
        if word.eq_ignore_ascii_case(b"FIELDS") {
            options.first = pairs(cx, at)?;
            return Ok(options);
        }
        let clock = Clock::of_word(word);
        let only = match word.to_ascii_uppercase().as_slice() {
            b"FNX" => Some(Only::IfNone),
            b"FXX" => Some(Only::IfAll),
            _ => None,
        };
        if let Some(only) = only {
            if options.only != Only::Always {
                return Err(Fault::text("ERR Only one of FXX or FNX arguments can be specified"));
            }
            options.only = only;
        } else if clock.is_some() || word.eq_ignore_ascii_case(b"KEEPTTL") {
            if options.expire != Expire::Clear {
                return Err(Fault::text(
                    "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
                ));
            }
            options.expire = Expire::Keep;
            if let Some(clock) = clock {
                at += 1;
                if at >= cx.argc() {
                    return Err(Fault::text("ERR missing expire time"));
                }
                options.expire = Expire::At(clock.read(cx, at)?);
            }
        } else {
            return Err(Fault::quoting("ERR unknown argument: ", word, ""));
        }
        at += 1;
    }
    // Redis 8.0 stops with a failed assertion here.
    Err(Fault::arity(cx.row.name))
}

/// Checks `FIELDS n field value …` from argument `at` on, to the end; the first field's index.
fn pairs(cx: &Cx<'_>, at: usize) -> Checked<usize> {
    let arity = || Fault::arity(cx.row.name);
    if at + 3 >= cx.argc() {
        return Err(arity());
    }
    let number = parse_i64(cx.arg(at + 1)).filter(|&number| number >= 1);
    let number = number.and_then(|number| i32::try_from(number).ok());
    let number = number.ok_or(Fault::text("ERR invalid number of fields"))?;
    let left = cx.argc() - at - 2;
    if !left.is_multiple_of(2) || usize::try_from(number).ok() != Some(left / 2) {
        return Err(arity());
    }
    Ok(at + 2)
}

pub(in super::super) fn hsetex(cx: &mut Cx<'_>) -> Result {
    let SetOptions { only, expire, first } = set_options(cx)?;
    let (words, argc) = (cx.words(), cx.argc());
    let set = change_or_make(cx, |hash, with| {
        let mut fields = (first..argc).step_by(2).map(|index| words.get(index));
        let may = match only {
            Only::Always => true,
            Only::IfNone => !fields.any(|field| hash.contains(field, with)),
            Only::IfAll => fields.all(|field| hash.contains(field, with)),
        };
        if !may {
            return false;
        }
        for index in (first..argc).step_by(2) {
            let (field, value) = (words.get(index), words.get(index + 1));
            match expire {
                // A time that is not ahead removes the field again.
                Expire::At(at_ms) => {
                    hash.set(field, value, Expire::Keep, with);
                    hash.expire_at(field, at_ms, ExpireIf::Always, with);
                }
                expire => {
                    hash.set(field, value, expire, with);
                }
            }
        }
        true
    })?;
    if set {
        cx.event(HASH, "hset", 1);
        let expires = matches!(expire, Expire::At(_));
        cx.taken(expires, HASH, "hexpire", 1);
    }
    cx.int(set.into())
}
