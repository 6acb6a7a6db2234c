//! DUMP and RESTORE: a key's value as bytes.
//!
//! Next: `logic::rdb` for the bytes.

use logic::{
    rdb::{self, Attributes, Writer},
    store::{Expire, Form, NewValue, SHARED_MIN_BYTES},
};
use wire::resp::reply;

use super::{Cx, Fault, Outcome};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn dump(cx: &mut Cx<'_>) -> Result {
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    let (db, touch) = (cx.conn.db, !cx.conn.no_touch);
    let mut writer = Writer::new(cx.shard.settings.rdb_compression);
    let Some((entry, with)) = cx.shard.store.read(db, hash, key, touch, now) else {
        return cx.null();
    };
    rdb::dump(&mut writer, entry.value, with);
    if writer.out.len() < SHARED_MIN_BYTES {
        return cx.bulk(&writer.out);
    }
    Cx::reply_shared(cx.out, writer.out.into());
    Ok(Outcome::Done)
}

/// What RESTORE's options say.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    used: Attributes,
}

fn options(cx: &Cx<'_>) -> std::result::Result<Options, Fault> {
    let mut options = Options::default();
    let mut at = 4;
    while at < cx.argc() {
        let has_more = at + 1 < cx.argc();
        if cx.is(at, "REPLACE") {
            options.replace = true;
        } else if cx.is(at, "ABSTTL") {
            options.absolute = true;
        } else if cx.is(at, "IDLETIME") && has_more && options.used.freq.is_none() {
            at += 1;
            let idle = u64::try_from(cx.integer(at)?);
            let refused = Fault::text("ERR Invalid IDLETIME value, must be >= 0");
            options.used.idle_s = Some(idle.map_err(|_| refused)?);
        } else if cx.is(at, "FREQ") && has_more && options.used.idle_s.is_none() {
            at += 1;
            let freq = u8::try_from(cx.integer(at)?);
            let refused = Fault::text("ERR Invalid FREQ value, must be >= 0 and <= 255");
            options.used.freq = Some(freq.map_err(|_| refused)?);
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    Ok(options)
}

pub(super) fn restore(cx: &mut Cx<'_>) -> Result {
    let options = options(cx)?;
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    if !options.replace && cx.shard.store.peek(db, hash, key, now).is_some() {
        return Err(Fault::text("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(cx.integer(2)?);
    let ttl = ttl.map_err(|_| Fault::text("ERR Invalid TTL value, must be >= 0"))?;
    let value = rdb::restore(cx.arg(3), cx.shard.store.cx(now)).map_err(|error| match error {
        rdb::RestoreError::Footer => Fault::text("ERR DUMP payload version or checksum are wrong"),
        rdb::RestoreError::Format(_) => Fault::text("ERR Bad data format"),
    })?;
    let expire = match ttl {
        0 => Expire::Clear,
        ttl if options.absolute => Expire::At(ttl),
        ttl => Expire::At(now.saturating_add(ttl)),
    };
    let is_past = matches!(expire, Expire::At(at_ms) if cx.is_past(at_ms));
    let store = &mut cx.shard.store;
    if options.replace {
        store.remove(db, hash, key, now);
    }
    if !is_past {
        match value {
            rdb::Value::String(bytes) => {
                let value = NewValue::Shared(bytes);
                store.set(db, hash, key, value, expire, Form::Plain, now)?;
            }
            // All fields of a hash were due.
            rdb::Value::Object(object) if object.is_gone() => {}
            rdb::Value::Object(object) => {
                store.put_object(db, hash, key, object, expire, now)?;
            }
        }
        store.set_used(db, hash, key, options.used, now);
    }
    reply::ok(cx.inline());
    Ok(Outcome::Done)
}
