//! Expiry: the EXPIRE family with its conditions, TTL and its kin, PERSIST.

use logic::store::Expire;

use super::{Cx, Fault, Outcome};
use crate::events::GENERIC;

type Result = std::result::Result<Outcome, Fault>;

/// `ERR invalid expire time in '…' command`.
fn invalid(cx: &Cx<'_>) -> Fault {
    Fault::owned(format!("ERR invalid expire time in '{}' command", cx.row.name))
}

/// The positive time at argument `index` of SET and its kin, as unix milliseconds.
pub(super) fn expire_at(
    cx: &Cx<'_>,
    index: usize,
    seconds: bool,
    date: bool,
) -> std::result::Result<u64, Fault> {
    let when = cx.integer(index)?;
    if when <= 0 {
        return Err(invalid(cx));
    }
    let when = absolute(cx, when, seconds, date)?;
    u64::try_from(when).map_err(|_| invalid(cx))
}

/// Unix milliseconds of a time that may lie in the past.
fn absolute(cx: &Cx<'_>, when: i64, seconds: bool, date: bool) -> std::result::Result<i64, Fault> {
    let when = if seconds { when.checked_mul(1000).ok_or_else(|| invalid(cx))? } else { when };
    let base = if date { 0 } else { i64::try_from(cx.now_ms()).unwrap_or(0) };
    when.checked_add(base).ok_or_else(|| invalid(cx))
}

/// The conditions of EXPIRE.
#[derive(Default)]
struct Only {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Only {
    fn parse(cx: &Cx<'_>) -> std::result::Result<Self, Fault> {
        let mut only = Self::default();
        for at in 3..cx.argc() {
            let flag = match cx.arg(at).to_ascii_lowercase().as_slice() {
                b"nx" => &mut only.nx,
                b"xx" => &mut only.xx,
                b"gt" => &mut only.gt,
                b"lt" => &mut only.lt,
                _ => return Err(Fault::quoting("ERR Unsupported option ", cx.arg(at), "")),
            };
            *flag = true;
        }
        if only.nx && (only.xx || only.gt || only.lt) {
            return Err(Fault::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if only.gt && only.lt {
            return Err(Fault::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(only)
    }

    /// Whether a key that expires at `current` may now expire at `when`. No expiry is the latest.
    fn allows(&self, current: Option<i64>, when: i64) -> bool {
        match current {
            Some(_) if self.nx => false,
            None if self.xx || self.gt => false,
            Some(current) if self.gt && when <= current => false,
            Some(current) if self.lt && when >= current => false,
            _ => true,
        }
    }
}

fn set_expiry(cx: &mut Cx<'_>, seconds: bool, date: bool) -> Result {
    let only = Only::parse(cx)?;
    let when = absolute(cx, cx.integer(2)?, seconds, date)?;
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let Some(entry) = cx.shard.store.peek(db, hash, key, now) else { return cx.int(0) };
    let current = entry.expire_at_ms.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
    if !only.allows(current, when) {
        return cx.int(0);
    }
    match u64::try_from(when) {
        Ok(at) if !cx.is_past(at) => {
            cx.shard.store.set_expire(db, hash, key, Expire::At(at), now);
            cx.event(GENERIC, "expire", 1);
        }
        _ => {
            cx.shard.store.remove(db, hash, key, now);
            cx.event(GENERIC, "del", 1);
        }
    }
    cx.int(1)
}

pub(super) fn expire(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, true, false)
}

pub(super) fn pexpire(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, false, false)
}

pub(super) fn expireat(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, true, true)
}

pub(super) fn pexpireat(cx: &mut Cx<'_>) -> Result {
    set_expiry(cx, false, true)
}

/// The remaining time or the date of the key at argument 1: −2 without a key, −1 without expiry.
fn show(cx: &mut Cx<'_>, seconds: bool, date: bool) -> Result {
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    let value = match cx.shard.store.get_no_touch(cx.conn.db, hash, key, now) {
        None => -2,
        Some(entry) => match entry.expire_at_ms {
            None => -1,
            Some(at) => {
                let ms = if date { at } else { at.saturating_sub(now) };
                let shown = if seconds { (ms + 500) / 1000 } else { ms };
                i64::try_from(shown).unwrap_or(i64::MAX)
            }
        },
    };
    cx.int(value)
}

pub(super) fn ttl(cx: &mut Cx<'_>) -> Result {
    show(cx, true, false)
}

pub(super) fn pttl(cx: &mut Cx<'_>) -> Result {
    show(cx, false, false)
}

pub(super) fn expiretime(cx: &mut Cx<'_>) -> Result {
    show(cx, true, true)
}

pub(super) fn pexpiretime(cx: &mut Cx<'_>) -> Result {
    show(cx, false, true)
}

pub(super) fn persist(cx: &mut Cx<'_>) -> Result {
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let entry = cx.shard.store.peek(db, hash, key, now);
    let expires = entry.is_some_and(|entry| entry.expire_at_ms.is_some());
    if expires {
        cx.shard.store.set_expire(db, hash, key, Expire::Clear, now);
        cx.event(GENERIC, "persist", 1);
    }
    cx.int(expires.into())
}
