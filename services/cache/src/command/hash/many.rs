//! Hash commands on all fields, or on some by chance or by pattern.
//!
//! Next: `hash.rs`.

use logic::object::packed::Entry;
use wire::resp::{Version, reply};

use super::super::{
    Cx, Fault, Outcome,
    collection::Reading,
    elements::{
        Scan, check_room, has_room, picks, random_count, reply_entry, reply_scan, scan_cursor,
    },
};
use super::{Result, read};

/// What of each field is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Fields,
    Values,
    Both,
}

fn all(cx: &mut Cx<'_>, part: Part) -> Result {
    let header = move |out: &mut Vec<u8>, version, len| match part {
        Part::Both => reply::map(out, version, len),
        _ => reply::array(out, len),
    };
    read(
        cx,
        |cx| {
            let version = cx.conn.version;
            header(cx.inline(), version, 0);
            Ok(Outcome::Done)
        },
        |Reading { value, with, out, version }| {
            let out = out.inline_mut();
            header(out, version, value.live_len(with.now_ms));
            for (field, value) in value.iter(with.now_ms) {
                if part != Part::Values {
                    reply_entry(out, field);
                }
                if part != Part::Fields {
                    reply_entry(out, value);
                }
            }
            Ok(Outcome::Done)
        },
    )
}

pub(in super::super) fn hgetall(cx: &mut Cx<'_>) -> Result {
    all(cx, Part::Both)
}

pub(in super::super) fn hkeys(cx: &mut Cx<'_>) -> Result {
    all(cx, Part::Fields)
}

pub(in super::super) fn hvals(cx: &mut Cx<'_>) -> Result {
    all(cx, Part::Values)
}

pub(in super::super) fn hscan(cx: &mut Cx<'_>) -> Result {
    let cursor = scan_cursor(cx)?;
    let (words, argc) = (cx.words(), cx.argc());
    read(
        cx,
        |cx| {
            reply_scan(cx.inline(), 0, 0, &[]);
            Ok(Outcome::Done)
        },
        |Reading { value, with, out, .. }| {
            let scan = Scan::options(words, argc)?;
            let (mut count, mut elements) = (0, Vec::new());
            let next = value.scan(cursor, scan.count, with, |field, value| {
                if scan.wants(field) {
                    reply_entry(&mut elements, field);
                    reply_entry(&mut elements, value);
                    count += 2;
                }
            });
            reply_scan(out.inline_mut(), next, count, &elements);
            Ok(Outcome::Done)
        },
    )
}

pub(in super::super) fn hrandfield(cx: &mut Cx<'_>) -> Result {
    if cx.argc() > 2 {
        return random_fields(cx);
    }
    let mut rng = cx.shard.store.rng().fork();
    read(cx, Cx::null, |Reading { value, with, out, version }| {
        match value.random(&mut rng, with.now_ms) {
            Some((field, _)) => reply_entry(out.inline_mut(), field),
            None => reply::null(out.inline_mut(), version),
        }
        Ok(Outcome::Done)
    })
}

/// HRANDFIELD with a count.
fn random_fields(cx: &mut Cx<'_>) -> Result {
    let count = random_count(cx)?;
    let with_values = match cx.argc() {
        3 => false,
        4 if cx.is(3, "WITHVALUES") => true,
        _ => return Err(Fault::SYNTAX),
    };
    if with_values && count.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
        return Err(Fault::text("ERR value is out of range"));
    }
    let mut rng = cx.shard.store.rng().fork();
    read(
        cx,
        |cx| {
            reply::array(cx.inline(), 0);
            Ok(Outcome::Done)
        },
        |Reading { value, with, out, version }| {
            let (many, distinct) = picks(count)?;
            let (mut given, mut elements) = (0, Vec::new());
            let each = |field: Entry<'_>, value: Entry<'_>| {
                given += 1;
                if !distinct && !has_room(elements.len()) {
                    return;
                }
                // Pairs are arrays of their own over RESP3 only.
                if with_values && version == Version::Resp3 {
                    reply::array(&mut elements, 2);
                }
                reply_entry(&mut elements, field);
                if with_values {
                    reply_entry(&mut elements, value);
                }
            };
            if distinct {
                value.sample(many, &mut rng, with.now_ms, each);
            } else {
                value.random_many(many, &mut rng, with.now_ms, each);
                check_room(elements.len())?;
            }
            let flat = with_values && version == Version::Resp2;
            let out = out.inline_mut();
            reply::array(out, if flat { given * 2 } else { given });
            out.extend_from_slice(&elements);
            Ok(Outcome::Done)
        },
    )
}
