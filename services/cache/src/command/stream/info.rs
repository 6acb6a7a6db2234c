//! XINFO.

use logic::object::{
    Stream,
    stream::{ConsumerView, Entry, GroupView, StreamId},
};
use wire::resp::{Version, reply};

use super::{
    Cx, Fault, Outcome, Result, bad_subcommand, has_group, most, no_group_of_key, peek,
    reply_count, reply_counted, reply_entries, reply_entry, reply_id, reply_number,
};

/// Entries, groups and consumers that FULL shows when no COUNT was given.
const FULL_COUNT: u64 = 10;

fn name(out: &mut Vec<u8>, name: &str) {
    reply::bulk(out, name.as_bytes());
}

pub(in crate::command) fn xinfo_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "XINFO",
        &[
            "CONSUMERS <key> <groupname>",
            "    Show consumers of <groupname>.",
            "GROUPS <key>",
            "    Show the stream consumer groups.",
            "STREAM <key> [FULL [COUNT <count>]",
            "    Show information about the stream.",
        ],
    )
}

pub(in crate::command) fn xinfo_consumers(cx: &mut Cx<'_>) -> Result {
    if peek(cx, 2, |_| ())?.is_none() {
        return Err(Fault::NO_KEY);
    }
    if !has_group(cx, 2, 3)? {
        return Err(no_group_of_key(cx, 2, 3));
    }
    let (group, now) = (cx.arg(3), cx.now_ms());
    if let Some(reading) = cx.collection::<Box<Stream>>(2)?
        && let Some(group) = reading.value.group(group)
    {
        let (out, version) = (reading.out.inline_mut(), reading.version);
        reply::array(out, group.consumer_count());
        for consumer in group.consumers() {
            reply::map(out, version, 3);
            name(out, "name");
            reply::bulk(out, consumer.name());
            name(out, "pending");
            reply_count(out, consumer.pending_len() as u64);
            name(out, "idle");
            reply_count(out, consumer.idle_ms(now));
        }
    }
    Ok(Outcome::Done)
}

pub(in crate::command) fn xinfo_groups(cx: &mut Cx<'_>) -> Result {
    let Some(reading) = cx.collection::<Box<Stream>>(2)? else { return Err(Fault::NO_KEY) };
    let (out, version) = (reading.out.inline_mut(), reading.version);
    reply::array(out, reading.value.group_count());
    for group in reading.value.groups() {
        reply::map(out, version, 6);
        name(out, "name");
        reply::bulk(out, group.name());
        name(out, "consumers");
        reply_count(out, group.consumer_count() as u64);
        name(out, "pending");
        reply_count(out, group.pending_len() as u64);
        progress(out, version, group);
    }
    Ok(Outcome::Done)
}

/// How far a group has come.
fn progress(out: &mut Vec<u8>, version: Version, group: GroupView<'_>) {
    name(out, "last-delivered-id");
    reply_id(out, group.last_id());
    name(out, "entries-read");
    reply_number(out, version, group.entries_read());
    name(out, "lag");
    reply_number(out, version, group.lag());
}

pub(in crate::command) fn xinfo_stream(cx: &mut Cx<'_>) -> Result {
    if peek(cx, 2, |_| ())?.is_none() {
        return Err(Fault::NO_KEY);
    }
    let full = match cx.argc() {
        3 => None,
        4 if cx.is(3, "FULL") => Some(FULL_COUNT),
        6 if cx.is(3, "FULL") && cx.is(4, "COUNT") => {
            Some(u64::try_from(cx.integer(5)?).unwrap_or(FULL_COUNT))
        }
        _ => return Err(bad_subcommand(cx, "XINFO")),
    };
    let Some(reading) = cx.collection::<Box<Stream>>(2)? else { return Err(Fault::NO_KEY) };
    let (stream, out, version) = (reading.value, reading.out.inline_mut(), reading.version);
    reply::map(out, version, if full.is_some() { 9 } else { 10 });
    facts(out, stream);
    match full {
        Some(count) => show_full(out, version, stream, most(count)),
        None => {
            name(out, "groups");
            reply_count(out, stream.group_count() as u64);
            let (all, none) = (StreamId::MIN, StreamId::MAX);
            name(out, "first-entry");
            entry_or_null(out, version, stream.range(all, none).next());
            name(out, "last-entry");
            entry_or_null(out, version, stream.range_rev(all, none).next());
        }
    }
    Ok(Outcome::Done)
}

fn entry_or_null(out: &mut Vec<u8>, version: Version, entry: Option<Entry<'_>>) {
    match entry {
        Some(entry) => reply_entry(out, &entry),
        None => reply::null(out, version),
    }
}

/// What both forms of XINFO STREAM begin with.
fn facts(out: &mut Vec<u8>, stream: &Stream) {
    name(out, "length");
    reply_count(out, stream.len());
    name(out, "radix-tree-keys");
    reply_count(out, stream.node_count() as u64);
    // Our tree is no radix tree: as many as Redis has for up to one key.
    name(out, "radix-tree-nodes");
    reply_count(out, stream.node_count() as u64 + 1);
    name(out, "last-generated-id");
    reply_id(out, stream.last_id());
    name(out, "max-deleted-entry-id");
    reply_id(out, stream.max_deleted_id());
    name(out, "entries-added");
    reply_count(out, stream.entries_added());
    name(out, "recorded-first-entry-id");
    reply_id(out, stream.first_id());
}

/// Entries, and groups with all that is pending.
fn show_full(out: &mut Vec<u8>, version: Version, stream: &Stream, count: usize) {
    name(out, "entries");
    reply_entries(out, stream.range(StreamId::MIN, StreamId::MAX).take(count));
    name(out, "groups");
    reply::array(out, stream.group_count());
    for group in stream.groups() {
        reply::map(out, version, 7);
        name(out, "name");
        reply::bulk(out, group.name());
        progress(out, version, group);
        name(out, "pel-count");
        reply_count(out, group.pending_len() as u64);
        name(out, "pending");
        reply_counted(out, |out| {
            let rows = group.pending(StreamId::MIN, StreamId::MAX).take(count).map(|row| {
                reply::array(out, 4);
                reply_id(out, row.id);
                reply::bulk(out, row.consumer);
                reply_count(out, row.delivered_ms);
                reply_count(out, row.deliveries);
            });
            rows.count()
        });
        name(out, "consumers");
        reply::array(out, group.consumer_count());
        for consumer in group.consumers() {
            show_consumer(out, version, consumer, count);
        }
    }
}

fn show_consumer(out: &mut Vec<u8>, version: Version, consumer: ConsumerView<'_>, count: usize) {
    reply::map(out, version, 4);
    name(out, "name");
    reply::bulk(out, consumer.name());
    name(out, "seen-time");
    reply_count(out, consumer.seen_ms());
    name(out, "pel-count");
    reply_count(out, consumer.pending_len() as u64);
    name(out, "pending");
    reply_counted(out, |out| {
        let rows = consumer.pending(StreamId::MIN, StreamId::MAX).take(count).map(|row| {
            reply::array(out, 3);
            reply_id(out, row.id);
            reply_count(out, row.delivered_ms);
            reply_count(out, row.deliveries);
        });
        rows.count()
    });
}
