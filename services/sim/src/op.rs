//! What a string command does to keys nobody else touches: written down a second time, as plainly
//! as possible, after the Redis command reference.
//!
//! An operation is applied to one possible state of its keys. It says whether the reply fits, and
//! which states may follow. Invariant: nothing here shares code with the cache. Next: `model`,
//! which keeps the possible states.

use std::rc::Rc;

use wire::resp::Reply;

/// A stretch of unix milliseconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The earliest.
    pub lo: u64,
    /// The latest.
    pub hi: u64,
}

impl Span {
    /// One moment.
    #[must_use]
    pub const fn at(ms: u64) -> Self {
        Self { lo: ms, hi: ms }
    }

    const fn later(self, ms: u64) -> Self {
        Self { lo: self.lo + ms, hi: self.hi + ms }
    }
}

/// A value, and when it expires, as closely as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The string.
    pub bytes: Rc<[u8]>,
    /// Its end.
    pub expire: Option<Span>,
}

/// A key's state; `None` when there is no key.
pub type State = Option<Value>;

/// A condition of SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// None.
    Always,
    /// NX.
    Missing,
    /// XX.
    There,
}

/// What becomes of a key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// It has none afterwards.
    Clear,
    /// It stays.
    Keep,
    /// So many milliseconds after the command runs.
    After(u64),
    /// At this unix millisecond.
    At(u64),
}

/// What a storing command replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// OK, or null when the condition failed.
    Ok,
    /// 1 or 0.
    Int,
    /// The old value.
    Old,
}

/// A condition of EXPIRE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// None.
    Always,
    /// NX.
    Without,
    /// XX.
    With,
    /// GT.
    Later,
    /// LT.
    Sooner,
}

/// What TTL and its kin show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Seconds left, rounded.
    Ttl,
    /// Milliseconds left.
    Pttl,
    /// The date in milliseconds.
    Date,
}

/// A command on private keys.
#[derive(Clone, Debug)]
pub enum Op {
    /// GET.
    Get,
    /// SET, SETNX, SETEX, PSETEX, GETSET.
    Store { value: Rc<[u8]>, only: Only, time: Time, says: Says },
    /// GETDEL.
    GetDel,
    /// GETEX; without a time it is a GET.
    GetEx(Option<Time>),
    /// APPEND.
    Append(Rc<[u8]>),
    /// SETRANGE.
    SetRange(usize, Rc<[u8]>),
    /// GETRANGE.
    GetRange(i64, i64),
    /// STRLEN.
    StrLen,
    /// INCRBY and its kin.
    Add(i64),
    /// DEL and UNLINK.
    Del,
    /// EXISTS and TOUCH.
    Count,
    /// TYPE.
    Type,
    /// PEXPIRE, PEXPIREAT.
    Expire(Time, When),
    /// TTL, PTTL, PEXPIRETIME.
    Show(Shows),
    /// PERSIST.
    Persist,
    /// RENAME, RENAMENX.
    Rename { nx: bool },
    /// COPY.
    Copy { replace: bool },
    /// MGET.
    MGet,
    /// MSET, MSETNX.
    MSet { values: Vec<Rc<[u8]>>, nx: bool },
}

/// The reply, when there was one; everything fits a reply that was not seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a>(pub Option<&'a Reply>);

impl Seen<'_> {
    /// Whether the reply may be this number.
    #[must_use]
    pub fn int(self, number: i64) -> bool {
        self.0.is_none_or(|reply| *reply == Reply::Integer(number))
    }

    fn int_within(self, low: i64, high: i64) -> bool {
        self.0.is_none_or(|reply| matches!(reply, Reply::Integer(n) if (low..=high).contains(n)))
    }

    /// Whether it may be OK.
    #[must_use]
    pub fn ok(self) -> bool {
        self.simple(b"OK")
    }

    /// Whether it may be this word.
    #[must_use]
    pub fn simple(self, word: &[u8]) -> bool {
        self.0.is_none_or(|reply| matches!(reply, Reply::Simple(text) if text == word))
    }

    /// Whether it may be a missing value.
    #[must_use]
    pub fn null(self) -> bool {
        self.0.is_none_or(|reply| *reply == Reply::Null)
    }

    fn value(self, state: &State) -> bool {
        self.0.is_none_or(|reply| is_value(reply, state))
    }

    fn bulk(self, bytes: &[u8]) -> bool {
        self.0.is_none_or(|reply| matches!(reply, Reply::Bulk(text) if text == bytes))
    }

    /// Whether it may be an error that begins like this.
    #[must_use]
    pub fn error(self, prefix: &str) -> bool {
        self.0.is_none_or(
            |reply| matches!(reply, Reply::Error(text) if text.starts_with(prefix.as_bytes())),
        )
    }
}

fn is_value(reply: &Reply, state: &State) -> bool {
    match (reply, state) {
        (Reply::Null, None) => true,
        (Reply::Bulk(text), Some(value)) => text[..] == value.bytes[..],
        _ => false,
    }
}

impl Time {
    fn apply(self, before: &State, now: Span) -> Option<Span> {
        match self {
            Self::Clear => None,
            Self::Keep => before.as_ref().and_then(|value| value.expire),
            Self::After(ms) => Some(now.later(ms)),
            Self::At(ms) => Some(Span::at(ms)),
        }
    }
}

impl Op {
    /// Applies the operation to keys in the state `keys` at some time within `now`. `at` names the
    /// key of each argument; an argument may come twice. Appends the states that may follow to
    /// `next`: none when the reply does not fit.
    pub fn apply(
        &self,
        at: &[usize],
        keys: &[State],
        now: Span,
        seen: Seen<'_>,
        next: &mut Vec<Vec<State>>,
    ) {
        let mut after = keys.to_vec();
        let fits = match self {
            Self::Expire(time, when) => {
                return self.expire(*time, *when, at[0], &after, now, seen, next);
            }
            Self::Rename { nx } => rename(&mut after, at, *nx, seen),
            Self::Copy { replace } => copy(&mut after, at, *replace, seen),
            Self::MSet { values, nx } => mset(&mut after, at, values, *nx, seen),
            Self::MGet => seen.0.is_none_or(|reply| match reply {
                Reply::Array(items) => {
                    items.len() == at.len()
                        && items.iter().zip(at).all(|(item, &key)| is_value(item, &keys[key]))
                }
                _ => false,
            }),
            Self::Del => {
                let count = at.iter().filter(|key| after[**key].take().is_some()).count();
                seen.int(count as i64)
            }
            Self::Count => seen.int(at.iter().filter(|key| keys[**key].is_some()).count() as i64),
            _ => self.single(&mut after[at[0]], now, seen),
        };
        if fits {
            next.push(after);
        }
    }

    /// Commands on one key.
    fn single(&self, key: &mut State, now: Span, seen: Seen<'_>) -> bool {
        match self {
            Self::Get | Self::GetEx(None) => seen.value(key),
            Self::Store { value, only, time, says } => {
                store(key, value, *only, *time, *says, now, seen)
            }
            Self::GetDel => {
                let fits = seen.value(key);
                *key = None;
                fits
            }
            Self::GetEx(Some(time)) => {
                let fits = seen.value(key);
                let expire = time.apply(key, now);
                if let Some(value) = key {
                    value.expire = expire;
                }
                fits
            }
            Self::Type => seen.simple(if key.is_some() { b"string" } else { b"none" }),
            Self::Show(shows) => show(key, *shows, now, seen),
            Self::Persist => {
                let expires = key.as_mut().and_then(|value| value.expire.take()).is_some();
                seen.int(expires.into())
            }
            _ => self.edit(key, seen),
        }
    }

    /// Commands that look into a value.
    fn edit(&self, key: &mut State, seen: Seen<'_>) -> bool {
        let bytes: &[u8] = key.as_ref().map_or(&[], |value| &value.bytes);
        let len = bytes.len();
        match self {
            Self::StrLen => seen.int(len as i64),
            Self::GetRange(start, end) => seen.bulk(range(bytes, *start, *end)),
            Self::Append(tail) => {
                let whole = [bytes, tail].concat();
                put(key, whole);
                seen.int((len + tail.len()) as i64)
            }
            Self::SetRange(_, part) if part.is_empty() => seen.int(len as i64),
            Self::SetRange(offset, part) => {
                let mut whole = bytes.to_vec();
                whole.resize(len.max(offset + part.len()), 0);
                whole[*offset..offset + part.len()].copy_from_slice(part);
                let len = whole.len();
                put(key, whole);
                seen.int(len as i64)
            }
            Self::Add(by) => {
                let before = if key.is_some() { number(bytes) } else { Some(0) };
                let Some(before) = before else {
                    return seen.error("ERR value is not an integer or out of range");
                };
                let after = before + by;
                put(key, after.to_string().into_bytes());
                seen.int(after)
            }
            _ => false,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the operation's whole context, used once")]
    fn expire(
        &self,
        time: Time,
        when: When,
        at: usize,
        keys: &[State],
        now: Span,
        seen: Seen<'_>,
        next: &mut Vec<Vec<State>>,
    ) {
        let Some(value) = &keys[at] else {
            if seen.int(0) {
                next.push(keys.to_vec());
            }
            return;
        };
        let Some(new) = time.apply(&keys[at], now) else { return };
        // Whether the condition may hold, and whether it may fail.
        let (may, may_not) = match (when, value.expire) {
            (When::Always, _) | (When::Without | When::Sooner, None) => (true, false),
            (When::With, Some(_)) => (true, false),
            (When::Without, Some(_)) | (When::With | When::Later, None) => (false, true),
            (When::Later, Some(old)) => (new.hi > old.lo, new.lo <= old.hi),
            (When::Sooner, Some(old)) => (new.lo < old.hi, new.hi >= old.lo),
        };
        if may && seen.int(1) {
            // A time that is not to come removes the key.
            if new.hi > now.lo {
                let mut after = keys.to_vec();
                after[at] = Some(Value { bytes: Rc::clone(&value.bytes), expire: Some(new) });
                next.push(after);
            }
            if new.lo <= now.hi {
                let mut after = keys.to_vec();
                after[at] = None;
                next.push(after);
            }
        }
        if may_not && seen.int(0) {
            next.push(keys.to_vec());
        }
    }
}

fn put(key: &mut State, bytes: Vec<u8>) {
    let expire = key.as_ref().and_then(|value| value.expire);
    *key = Some(Value { bytes: bytes.into(), expire });
}

/// An integer in its only spelling.
fn number(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn range(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    let len = bytes.len() as i64;
    let from_end = |index: i64| if index < 0 { (index + len).max(0) } else { index };
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if start > end || len == 0 { &[] } else { &bytes[start as usize..=end as usize] }
}

fn store(
    key: &mut State,
    value: &Rc<[u8]>,
    only: Only,
    time: Time,
    says: Says,
    now: Span,
    seen: Seen<'_>,
) -> bool {
    let stores = match only {
        Only::Always => true,
        Only::Missing => key.is_none(),
        Only::There => key.is_some(),
    };
    let fits = match says {
        Says::Old => seen.value(key),
        Says::Int => seen.int(stores.into()),
        Says::Ok if stores => seen.ok(),
        Says::Ok => seen.null(),
    };
    if stores {
        let expire = time.apply(key, now);
        *key = Some(Value { bytes: Rc::clone(value), expire });
    }
    fits
}

/// Checks what TTL and its kin tell, and learns from it.
fn show(key: &mut State, shows: Shows, now: Span, seen: Seen<'_>) -> bool {
    let Some(value) = key else { return seen.int(-2) };
    let Some(expire) = &mut value.expire else { return seen.int(-1) };
    let left = (expire.lo.saturating_sub(now.hi), expire.hi.saturating_sub(now.lo));
    let (low, high) = match shows {
        Shows::Pttl => left,
        Shows::Ttl => ((left.0 + 500) / 1000, (left.1 + 500) / 1000),
        Shows::Date => (expire.lo, expire.hi),
    };
    if !seen.int_within(low as i64, high as i64) {
        return false;
    }
    if let Some(Reply::Integer(told)) = seen.0 {
        let told = told.unsigned_abs();
        match shows {
            Shows::Pttl => {
                expire.lo = expire.lo.max(told + now.lo);
                expire.hi = expire.hi.min(told + now.hi);
            }
            Shows::Date => *expire = Span::at(told),
            Shows::Ttl => {}
        }
    }
    true
}

fn rename(keys: &mut [State], at: &[usize], nx: bool, seen: Seen<'_>) -> bool {
    let (from, to) = (at[0], at[1]);
    if keys[from].is_none() {
        return seen.error("ERR no such key");
    }
    if nx && (from == to || keys[to].is_some()) {
        return seen.int(0);
    }
    if from != to {
        keys[to] = keys[from].take();
    }
    if nx { seen.int(1) } else { seen.ok() }
}

fn copy(keys: &mut [State], at: &[usize], replace: bool, seen: Seen<'_>) -> bool {
    let (from, to) = (at[0], at[1]);
    if from == to {
        return seen.error("ERR source and destination objects are the same");
    }
    if keys[from].is_none() || (keys[to].is_some() && !replace) {
        return seen.int(0);
    }
    keys[to] = keys[from].clone();
    seen.int(1)
}

fn mset(keys: &mut [State], at: &[usize], values: &[Rc<[u8]>], nx: bool, seen: Seen<'_>) -> bool {
    if nx && at.iter().any(|&key| keys[key].is_some()) {
        return seen.int(0);
    }
    for (&key, value) in at.iter().zip(values) {
        keys[key] = Some(Value { bytes: Rc::clone(value), expire: None });
    }
    if nx { seen.int(1) } else { seen.ok() }
}
