//! Introspection of one key: OBJECT and MEMORY USAGE.

use logic::store::{Entry, Form, Policy, Value};
use wire::resp::parse_i64;

use super::{Cx, Fault, Outcome};

type Result = std::result::Result<Outcome, Fault>;

/// Containers run through their subcommands only.
pub(super) fn container(_cx: &mut Cx<'_>) -> Result {
    Err(Fault::SYNTAX)
}

/// The longest string Redis keeps inside its object header.
const EMBSTR_MAX_BYTES: usize = 44;
/// Integers below this share one object in Redis.
const SHARED_INTEGERS: i64 = 10_000;

fn peek<'c>(cx: &'c mut Cx<'_>, at: usize) -> Option<Entry<'c>> {
    let (hash, key, now) = (cx.hash_of(at), cx.arg(at), cx.now_ms());
    cx.shard.store.peek(cx.conn.db, hash, key, now)
}

/// The integer Redis would keep instead of the text.
fn as_integer(entry: &Entry<'_>) -> Option<i64> {
    let value = entry.value.as_slice();
    if entry.form != Form::Plain || value.len() > 20 { None } else { parse_i64(value) }
}

/// The encoding Redis would have for the value of the key at argument `at`.
pub(super) fn encoding_at(cx: &mut Cx<'_>, at: usize) -> Option<&'static str> {
    peek(cx, at).map(|entry| match as_integer(&entry) {
        _ if let Value::Object(object) = entry.value => object.encoding(),
        Some(_) => "int",
        None if entry.form != Form::Raw && entry.value.len() <= EMBSTR_MAX_BYTES => "embstr",
        None => "raw",
    })
}

pub(super) fn encoding(cx: &mut Cx<'_>) -> Result {
    match encoding_at(cx, 2) {
        Some(name) => cx.bulk(name.as_bytes()),
        None => cx.null(),
    }
}

pub(super) fn refcount(cx: &mut Cx<'_>) -> Result {
    let policy = cx.shard.settings.policy;
    let bounded = cx.shard.settings.maxmemory_bytes > 0;
    let keeps_age = bounded
        && matches!(
            policy,
            Policy::AllKeysLru | Policy::VolatileLru | Policy::AllKeysLfu | Policy::VolatileLfu
        );
    let count = peek(cx, 2).map(|entry| match as_integer(&entry) {
        Some(value) if (0..SHARED_INTEGERS).contains(&value) && !keeps_age => i32::MAX.into(),
        _ => 1,
    });
    match count {
        Some(count) => cx.int(count),
        None => cx.null(),
    }
}

pub(super) fn idletime(cx: &mut Cx<'_>) -> Result {
    let (hash, key, now) = (cx.hash_of(2), cx.arg(2), cx.now_ms());
    let Some(idle) = cx.shard.store.idle_s(cx.conn.db, hash, key, now) else { return cx.null() };
    if cx.shard.settings.policy.is_lfu() {
        return Err(Fault::text(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that \
             when switching between policies at runtime LRU and LFU data will take some time to \
             adjust.",
        ));
    }
    cx.count(idle)
}

pub(super) fn freq(cx: &mut Cx<'_>) -> Result {
    let (hash, key, now) = (cx.hash_of(2), cx.arg(2), cx.now_ms());
    let Some(freq) = cx.shard.store.freq(cx.conn.db, hash, key, now) else { return cx.null() };
    if !cx.shard.settings.policy.is_lfu() {
        return Err(Fault::text(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
             note that when switching between policies at runtime LRU and LFU data will take some \
             time to adjust.",
        ));
    }
    cx.int(freq.into())
}

pub(super) fn help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "OBJECT",
        &[
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ],
    )
}

pub(super) fn memory_usage(cx: &mut Cx<'_>) -> Result {
    for at in (3..cx.argc()).step_by(2) {
        // Nothing is sampled, since collections know what they hold; the number is checked all the same.
        if !cx.is(at, "SAMPLES") || at + 1 >= cx.argc() || cx.integer(at + 1)? < 0 {
            return Err(Fault::SYNTAX);
        }
    }
    let (hash, key, now) = (cx.hash_of(2), cx.arg(2), cx.now_ms());
    match cx.shard.store.memory_usage(cx.conn.db, hash, key, now) {
        Some(bytes) => cx.count(bytes),
        None => cx.null(),
    }
}
