//! What a key holds, what an operation makes of it, and what was seen of it.
//!
//! Values are unique, so that what is seen tells when it was written. Where the time decides (an expiry that may or may
//! not have come), there are several states. Next: `lane` for operations in their order.

use engine::rng::Rng;
use wire::resp::Reply;

use crate::op::Span;

/// What a key holds, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) value: Value,
    /// Unix milliseconds.
    pub(crate) expire_at_ms: Option<u64>,
}

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Value {
    /// There is no key.
    #[default]
    None,
    /// A string.
    Text(Vec<u8>),
    /// A list, or the sorted members of a set.
    Items(Vec<Vec<u8>>),
}

/// What kind of key it is, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    List,
    Set,
}

impl Kind {
    pub(crate) const fn of(key: usize) -> Self {
        match key % 5 {
            0 | 1 => Self::Text,
            2 => Self::Number,
            3 => Self::List,
            _ => Self::Set,
        }
    }
}

/// An operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// SET, with an expiry or without.
    Set(Vec<u8>, Option<u64>),
    Append(Vec<u8>),
    Add(i64),
    Del,
    ExpireAt(u64),
    Persist,
    Push(Vec<u8>),
    Shift,
    Member(Vec<u8>),
    /// SPOP, and what it gave.
    Take(Option<Vec<u8>>),
    /// A script that appends twice.
    Script(Vec<u8>),
    Read,
}

impl State {
    /// What may be left of it within some time. In the millisecond of its end it may be there.
    fn into_within(self, span: Span) -> (Option<Self>, bool) {
        match self.expire_at_ms {
            Some(at_ms) if at_ms < span.lo => (None, true),
            Some(at_ms) if at_ms <= span.hi => (Some(self), true),
            _ => (Some(self), false),
        }
    }

    /// Whether this may be found of it within some time.
    pub(crate) fn may_be(&self, span: Span, found: impl Fn(&Self) -> bool) -> bool {
        let (is_there, is_gone) = match self.expire_at_ms {
            Some(at_ms) if at_ms < span.lo => (false, true),
            Some(at_ms) => (true, at_ms <= span.hi),
            None => (true, false),
        };
        (is_there && found(self)) || (is_gone && found(&Self::default()))
    }
}

impl Op {
    /// What a key may hold after it, run within some time.
    pub(crate) fn apply(&self, before: State, span: Span, into: &mut Vec<State>) {
        let (there, is_gone) = before.into_within(span);
        for state in there.into_iter().chain(is_gone.then(State::default)) {
            match (self, &state.value) {
                (Self::Take(None), Value::Items(items)) => {
                    for item in items {
                        push(into, Self::Take(Some(item.clone())).after(state.clone()));
                    }
                }
                _ => push(into, self.after(state)),
            }
        }
    }

    fn after(&self, mut state: State) -> State {
        match self {
            Self::Set(text, at_ms) => {
                return State { value: Value::Text(text.clone()), expire_at_ms: *at_ms };
            }
            Self::Del => return State::default(),
            Self::Append(more) => append(&mut state.value, more),
            Self::Script(more) => {
                append(&mut state.value, more);
                append(&mut state.value, more);
            }
            Self::Add(by) => {
                let number = match &state.value {
                    Value::Text(text) => String::from_utf8_lossy(text).parse().unwrap_or(0),
                    _ => 0,
                };
                state.value = Value::Text((number + by).to_string().into_bytes());
            }
            Self::ExpireAt(at_ms) if state.value != Value::None => {
                state.expire_at_ms = Some(*at_ms);
            }
            Self::Persist => state.expire_at_ms = None,
            Self::Push(item) => items(&mut state.value).push(item.clone()),
            Self::Member(item) => {
                let items = items(&mut state.value);
                items.push(item.clone());
                items.sort();
            }
            Self::Shift => {
                if let Value::Items(items) = &mut state.value {
                    items.remove(0);
                }
            }
            Self::Take(Some(item)) => {
                if let Value::Items(items) = &mut state.value {
                    items.retain(|other| other != item);
                }
            }
            Self::Take(None) | Self::ExpireAt(_) | Self::Read => {}
        }
        if matches!(&state.value, Value::Items(items) if items.is_empty()) {
            return State::default();
        }
        state
    }

    /// The words of its command.
    pub(crate) fn words(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let number = |number: u64| number.to_string().into_bytes();
        let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
        match self {
            Self::Set(text, None) => words(&[b"SET", key, text]),
            Self::Set(text, Some(at_ms)) => words(&[b"SET", key, text, b"PXAT", &number(*at_ms)]),
            Self::Append(text) => words(&[b"APPEND", key, text]),
            Self::Add(by) => words(&[b"INCRBY", key, by.to_string().as_bytes()]),
            Self::Del => words(&[b"DEL", key]),
            Self::ExpireAt(at_ms) => words(&[b"PEXPIREAT", key, &number(*at_ms)]),
            Self::Persist => words(&[b"PERSIST", key]),
            Self::Push(item) => words(&[b"RPUSH", key, item]),
            Self::Shift => words(&[b"LPOP", key]),
            Self::Member(item) => words(&[b"SADD", key, item]),
            Self::Take(_) => words(&[b"SPOP", key]),
            Self::Script(text) => words(&[b"EVAL", SCRIPT, b"1", key, text]),
            Self::Read => words(&[b"(read)", key]),
        }
    }
}

const SCRIPT: &[u8] =
    b"redis.call('APPEND', KEYS[1], ARGV[1]); return redis.call('APPEND', KEYS[1], ARGV[1])";

fn append(value: &mut Value, more: &[u8]) {
    match value {
        Value::Text(text) => text.extend_from_slice(more),
        _ => *value = Value::Text(more.to_vec()),
    }
}

fn items(value: &mut Value) -> &mut Vec<Vec<u8>> {
    if !matches!(value, Value::Items(_)) {
        *value = Value::Items(Vec::new());
    }
    match value {
        Value::Items(items) => items,
        _ => unreachable!("made above"),
    }
}

fn push(into: &mut Vec<State>, state: State) {
    if !into.contains(&state) {
        into.push(state);
    }
}

/// The words that read a key.
pub(crate) fn read_words(kind: Kind, key: &[u8]) -> Vec<Vec<u8>> {
    let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect();
    match kind {
        Kind::Text | Kind::Number => words(&[b"GET", key]),
        Kind::List => words(&[b"LRANGE", key, b"0", b"-1"]),
        Kind::Set => words(&[b"SMEMBERS", key]),
    }
}

/// What such a reply says.
pub(crate) fn read_reply(kind: Kind, reply: &Reply) -> Option<Value> {
    Some(match reply {
        Reply::Null => Value::None,
        Reply::Bulk(text) => Value::Text(text.clone()),
        Reply::Array(replies) if replies.is_empty() => Value::None,
        Reply::Array(replies) => {
            let item = |reply: &Reply| match reply {
                Reply::Bulk(item) => Some(item.clone()),
                _ => None,
            };
            let mut items: Vec<_> = replies.iter().map(item).collect::<Option<_>>()?;
            if kind == Kind::Set {
                items.sort();
            }
            Value::Items(items)
        }
        _ => return None,
    })
}

/// Draws an operation on a key.
pub(crate) fn draw(rng: &mut Rng, key: usize, unique: u64, now_ms: u64) -> Op {
    let text = |rng: &mut Rng| {
        let mut text = format!("{unique}.").into_bytes();
        if rng.chance(1, 40) {
            let len = *rng.pick(&[3_000, 20_000, 140_000]).unwrap_or(&3_000);
            text.resize(len, b'a' + (unique % 26) as u8);
        }
        text
    };
    let at_ms = |rng: &mut Rng| now_ms + rng.between(0, 4_000);
    match (Kind::of(key), rng.below(20)) {
        (_, 0) => Op::Del,
        (_, 1) => Op::ExpireAt(at_ms(rng)),
        (_, 2) => Op::Persist,
        (_, 3..6) => Op::Read,
        (Kind::Text, 6..9) => Op::Append(text(rng)),
        (Kind::Text, 9) => Op::Script(text(rng)),
        (Kind::Text, 10..13) => Op::Set(text(rng), Some(at_ms(rng))),
        (Kind::Text, _) => Op::Set(text(rng), None),
        (Kind::Number, _) => Op::Add(rng.between(1, 9) as i64),
        (Kind::List, 6..10) => Op::Shift,
        (Kind::List, _) => Op::Push(text(rng)),
        (Kind::Set, 6..10) => Op::Take(None),
        (Kind::Set, _) => Op::Member(format!("{unique}.").into_bytes()),
    }
}

/// A short picture of a state.
pub(crate) fn show(state: &State) -> String {
    let text = |bytes: &[u8]| {
        let head = bytes[..bytes.len().min(24)].escape_ascii();
        format!("{head}({})", bytes.len())
    };
    let value = match &state.value {
        Value::None => "nothing".to_owned(),
        Value::Text(bytes) => text(bytes),
        Value::Items(items) => {
            let items: Vec<String> = items.iter().map(|item| text(item)).collect();
            format!("[{}]", items.join(" "))
        }
    };
    match state.expire_at_ms {
        None => value,
        Some(at_ms) => format!("{value} until {at_ms}"),
    }
}
