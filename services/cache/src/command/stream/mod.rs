//! Stream commands: what they have in common.
//!
//! Arguments are checked in the order of Redis 7.0.15, which differs from command to command: some look at the key
//! first. Invariant: replies whose length is known late are written first and get their header after.
//! Next: `entries.rs` adds and trims, `read.rs` is XREAD and XREADGROUP, `group.rs` and `pending.rs` are consumer
//! groups, `info.rs` is XINFO; `logic::object::stream` is the stream itself.

mod entries;
mod group;
mod info;
mod pending;
mod read;

pub(super) use entries::{xadd, xdel, xlen, xrange, xrevrange, xsetid, xtrim};
pub(super) use group::{
    xack, xgroup_create, xgroup_createconsumer, xgroup_delconsumer, xgroup_destroy, xgroup_help,
    xgroup_setid,
};
pub(super) use info::{xinfo_consumers, xinfo_groups, xinfo_help, xinfo_stream};
pub(super) use pending::{xautoclaim, xclaim, xpending};
pub(super) use read::{xread, xreadgroup};

pub(super) use super::object::{container as xgroup, container as xinfo};

use logic::object::{
    self, Stream,
    stream::{Entry, IdError, StreamId},
};
use logic::store::Value;
use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome, dispatch::c_string};
use crate::events::{ASIDE, STREAM};

type Result<T = Outcome> = std::result::Result<T, Fault>;

/// Nodes, or pending entries, that one step of a trim or of a deletion looks at.
const STEP: usize = 1024;

/// `ERR` and the text.
fn error(message: &str) -> Fault {
    Fault::owned(format!("ERR {message}"))
}

fn id_fault(refused: IdError) -> Fault {
    error(refused.message())
}

/// Argument `index` as an id.
fn id_arg(cx: &Cx<'_>, index: usize) -> Result<StreamId> {
    StreamId::parse(cx.arg(index)).map_err(id_fault)
}

/// Arguments as the first and the last id of a range.
fn bounds(cx: &Cx<'_>, start: usize, end: usize) -> Result<(StreamId, StreamId)> {
    let start = StreamId::parse_start(cx.arg(start)).map_err(id_fault)?;
    let end = StreamId::parse_end(cx.arg(end)).map_err(id_fault)?;
    Ok((start, end))
}

/// A subcommand was given what it does not take.
fn bad_subcommand(cx: &Cx<'_>, container: &str) -> Fault {
    let name = cx.arg(1);
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    Fault::quoting(before, name.get(..128).unwrap_or(name), &format!("'. Try {container} HELP."))
}

/// `NOGROUP` of a group that is not there, with or without the key.
fn no_group(cx: &Cx<'_>, key: usize, group: usize, after: &str) -> Fault {
    let quoted = |index| c_string(cx.arg(index), usize::MAX);
    Fault::owned(
        [
            b"NOGROUP No such key '",
            quoted(key),
            b"' or consumer group '",
            quoted(group),
            b"'",
            after.as_bytes(),
        ]
        .concat(),
    )
}

/// `NOGROUP` of a group that is not there, in the words of XGROUP and XINFO.
fn no_group_of_key(cx: &Cx<'_>, key: usize, group: usize) -> Fault {
    let quoted = |index| c_string(cx.arg(index), usize::MAX);
    let parts = [
        b"NOGROUP No such consumer group '",
        quoted(group),
        b"' for key name '",
        quoted(key),
        b"'",
    ];
    Fault::owned(parts.concat())
}

/// Looks at the stream at the key of argument `index` without counting; `None` when there is no key.
fn peek<R>(cx: &mut Cx<'_>, index: usize, look: impl FnOnce(&Stream) -> R) -> Result<Option<R>> {
    let (hash, key, now) = (cx.hash_of(index), cx.arg(index), cx.now_ms());
    match cx.shard.store.peek(cx.conn.db, hash, key, now).map(|entry| entry.value) {
        None => Ok(None),
        Some(Value::Object(object::Object::Stream(stream))) => Ok(Some(look(stream))),
        Some(_) => Err(Fault::WRONG_TYPE),
    }
}

/// Whether there is a stream with such a group.
fn has_group(cx: &mut Cx<'_>, key: usize, group: usize) -> Result<bool> {
    let name = cx.arg(group);
    Ok(peek(cx, key, |stream| stream.group(name).is_some())?.unwrap_or(false))
}

/// Whether a group has such a consumer; nobody asks while nobody wants to know what happens to keys.
fn has_consumer(cx: &mut Cx<'_>, key: usize, group: &[u8], name: &[u8]) -> bool {
    let has =
        |stream: &Stream| stream.group(group).is_some_and(|group| group.consumer(name).is_some());
    cx.shard.watching && peek(cx, key, has).ok().flatten().unwrap_or(false)
}

/// Does something with a consumer of the stream at argument `key`, and tells when that has made it.
fn making_consumer<R>(
    cx: &mut Cx<'_>,
    key: usize,
    (group, name): (&[u8], &[u8]),
    then: impl FnOnce(&mut Cx<'_>) -> Result<R>,
) -> Result<R> {
    let had = has_consumer(cx, key, group, name);
    let done = then(cx)?;
    if !had && has_consumer(cx, key, group, name) {
        cx.event(STREAM | ASIDE, "xgroup-createconsumer", key);
    }
    Ok(done)
}

fn reply_id(out: &mut Vec<u8>, id: StreamId) {
    reply::bulk(out, id.text().as_ref());
}

fn reply_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    reply::array(out, 2);
    reply_id(out, entry.id());
    reply::array(out, entry.len() * 2);
    for (name, value) in entry.fields() {
        reply::bulk(out, name);
        reply::bulk(out, value);
    }
}

/// A number that may be unknown.
fn reply_number(out: &mut Vec<u8>, version: Version, value: Option<i64>) {
    match value {
        Some(value) => reply::integer(out, value),
        None => reply::null(out, version),
    }
}

fn reply_count(out: &mut Vec<u8>, count: u64) {
    reply::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
}

/// An array of the items that `write` writes and counts.
fn reply_counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> usize) {
    let start = out.len();
    let count = write(out);
    put_header(out, start, |header| reply::array(header, count));
}

/// Puts a header before what was written from `start` on.
fn put_header(out: &mut Vec<u8>, start: usize, header: impl FnOnce(&mut Vec<u8>)) {
    let end = out.len();
    header(out);
    let len = out.len() - end;
    if let Some(part) = out.get_mut(start..) {
        part.rotate_right(len);
    }
}

fn reply_entries<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = Entry<'a>>) {
    reply_counted(out, |out| entries.map(|entry| reply_entry(out, &entry)).count());
}

/// A count where 0 stands for all.
fn most(count: u64) -> usize {
    if count == 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) }
}
