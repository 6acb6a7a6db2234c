//! Streams: nodes as listpacks, what the stream remembers, groups with consumers and what is pending.
//!
//! ```text
//! stream   = nodes (id listpack)* length last-id [first-id max-deleted-id added] groups group*
//! group    = name last-id [read] pending (id delivered-ms deliveries)* consumers consumer*
//! consumer = name seen-ms [active-ms] pending id*
//! listpack = live deleted names name* 0 item*
//! item     = flags ms-delta seq-delta [pairs] (name? value)* elements
//! ```
//! What is in brackets came with Redis 7.0 (type 19) and 7.2 (type 21, the active time).
//!
//! Invariant: everything is checked that Redis checks when it sanitizes, and that an id is pending with one consumer.
//! Next: `object/stream/snapshot.rs` for nodes.

use std::borrow::Cow;

use super::{
    cursor::{Cursor, Read},
    kind,
    listpack::{self, Broken},
    put::Writer,
};
use crate::object::{
    Stream,
    packed::{Digits, Entry, Packed},
    stream::{NodeBuilder, NodeView, Pending, StreamId},
};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
const ALL: (StreamId, StreamId) = (StreamId::MIN, StreamId::MAX);

/// Writes a stream.
pub(super) fn save(to: &mut Writer, stream: &Stream) {
    to.len(stream.node_count());
    for node in stream.nodes() {
        to.string(&raw_id(node.base()));
        to.string(&listpack::wrap(&pack(&node)));
    }
    to.number(stream.len());
    save_id(to, stream.last_id());
    save_id(to, stream.first_id());
    save_id(to, stream.max_deleted_id());
    to.number(stream.entries_added());
    to.len(stream.group_count());
    for group in stream.groups() {
        to.string(group.name());
        save_id(to, group.last_id());
        to.number(group.entries_read().unwrap_or(-1).cast_unsigned());
        to.len(group.pending_len());
        for pending in group.pending(ALL.0, ALL.1) {
            to.bytes(&raw_id(pending.id));
            to.millis(pending.delivered_ms);
            to.number(pending.deliveries);
        }
        to.len(group.consumer_count());
        for consumer in group.consumers() {
            to.string(consumer.name());
            to.millis(consumer.seen_ms());
            to.len(consumer.pending_len());
            for pending in consumer.pending(ALL.0, ALL.1) {
                to.bytes(&raw_id(pending.id));
            }
        }
    }
}

fn save_id(to: &mut Writer, id: StreamId) {
    to.number(id.ms);
    to.number(id.seq);
}

fn raw_id(id: StreamId) -> [u8; 16] {
    ((u128::from(id.ms) << 64) | u128::from(id.seq)).to_be_bytes()
}

fn id_of_raw(raw: [u8; 16]) -> StreamId {
    let both = u128::from_be_bytes(raw);
    let half = |shift: u32| u64::try_from((both >> shift) & u128::from(u64::MAX)).unwrap_or(0);
    StreamId::new(half(64), half(0))
}

/// A node as Redis lays it out.
fn pack(node: &NodeView<'_>) -> Packed {
    let mut packed = Packed::new();
    let int = |value: usize| Entry::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let dead = node.items().filter(|(_, dead, _)| *dead).count();
    packed.extend(&[Entry::Int(i64::from(node.live())), int(dead), int(node.names().count())]);
    for name in node.names() {
        packed.push_back(name);
    }
    packed.push_back(Entry::Int(0));
    let base = node.base();
    let mut item = Vec::new();
    for (entry, dead, same) in node.items() {
        let flags = if dead { DELETED } else { 0 } | if same { SAME_FIELDS } else { 0 };
        let id = entry.id();
        item.clear();
        item.extend([
            Entry::Int(flags),
            Entry::Int(id.ms.wrapping_sub(base.ms).cast_signed()),
            Entry::Int(id.seq.wrapping_sub(base.seq).cast_signed()),
        ]);
        if !same {
            item.push(int(entry.len()));
        }
        for (name, value) in entry.fields() {
            if !same {
                item.push(Entry::from(name));
            }
            item.push(Entry::from(value));
        }
        item.push(int(item.len()));
        packed.extend(&item);
    }
    packed
}

/// Reads a stream of one of the three types.
pub(super) fn load(from: &mut Cursor<'_>, kind: u8) -> Read<Stream> {
    let mut stream = Stream::new();
    for _ in 0..from.number()? {
        let wrong = from.bad("a node of a stream that is not one");
        let id = from.string()?;
        let raw = <[u8; 16]>::try_from(&*id).map_err(|_| wrong)?;
        let bytes = from.string()?;
        let node = unpack(id_of_raw(raw), &bytes).map_err(|Broken| wrong)?;
        if !stream.append_node(node) {
            return Err(wrong);
        }
    }
    let wrong = from.bad("a stream that contradicts its entries");
    let len = from.number()?;
    let last_id = load_id(from)?;
    let (mut max_deleted, mut added) = (StreamId::MIN, len);
    if kind >= kind::STREAM_2 {
        // The first id follows from the entries.
        load_id(from)?;
        max_deleted = load_id(from)?;
        added = from.number()?;
    }
    if len != stream.len() || !stream.remember(last_id, max_deleted, added) {
        return Err(wrong);
    }
    for _ in 0..from.number()? {
        load_group(from, kind, &mut stream)?;
    }
    Ok(stream)
}

fn load_id(from: &mut Cursor<'_>) -> Read<StreamId> {
    Ok(StreamId::new(from.number()?, from.number()?))
}

fn load_group(from: &mut Cursor<'_>, kind: u8, stream: &mut Stream) -> Read<()> {
    let twice = from.bad("a group that is there twice");
    let name = from.string()?;
    let last_id = load_id(from)?;
    let read = if kind >= kind::STREAM_2 {
        Some(from.number()?.cast_signed()).filter(|&read| read >= 0)
    } else {
        stream.read_up_to(last_id)
    };
    if !stream.create_group(&name, last_id, read) {
        return Err(twice);
    }
    let mut pending = Vec::new();
    for _ in 0..from.number()? {
        let wrong = from.bad("pending ids that do not ascend");
        let id = id_of_raw(from.array()?);
        if pending.last().is_some_and(|(last, ..): &(StreamId, u64, u64, bool)| *last >= id) {
            return Err(wrong);
        }
        pending.push((id, from.millis()?, from.number()?, false));
    }
    for _ in 0..from.number()? {
        load_consumer(from, kind, stream, &name, &mut pending)?;
    }
    match pending.iter().all(|(.., taken)| *taken) {
        true => Ok(()),
        false => Err(from.bad("an entry that is pending with nobody")),
    }
}

/// A group's pending ids, when and how often each was delivered, and whether a consumer has it.
type PendingIds = Vec<(StreamId, u64, u64, bool)>;

fn load_consumer(
    from: &mut Cursor<'_>,
    kind: u8,
    stream: &mut Stream,
    group: &[u8],
    pending: &mut PendingIds,
) -> Read<()> {
    let twice = from.bad("a consumer that is there twice");
    let name = from.string()?;
    let seen_ms = from.millis()?;
    if kind >= kind::STREAM_3 {
        from.millis()?;
    }
    if stream.create_consumer(group, &name, seen_ms) != Ok(true) {
        return Err(twice);
    }
    for _ in 0..from.number()? {
        let wrong = from.bad("an entry that is pending with a consumer only, or with two");
        let id = id_of_raw(from.array()?);
        let at = pending.binary_search_by_key(&id, |(id, ..)| *id).ok();
        let Some((_, delivered_ms, deliveries, taken)) = at.and_then(|at| pending.get_mut(at))
        else {
            return Err(wrong);
        };
        if std::mem::replace(taken, true) {
            return Err(wrong);
        }
        let (delivered_ms, deliveries) = (*delivered_ms, *deliveries);
        let noted = Pending { id, consumer: &name, delivered_ms, deliveries };
        let _ = stream.restore_pending(group, &noted, seen_ms);
    }
    Ok(())
}

/// Passes over a stream.
pub(super) fn skip(from: &mut Cursor<'_>, kind: u8) -> Read<()> {
    for _ in 0..from.number()? {
        from.skip_string()?;
        from.skip_string()?;
    }
    for _ in 0..if kind >= kind::STREAM_2 { 8 } else { 3 } {
        from.number()?;
    }
    for _ in 0..from.number()? {
        from.skip_string()?;
        for _ in 0..if kind >= kind::STREAM_2 { 3 } else { 2 } {
            from.number()?;
        }
        for _ in 0..from.number()? {
            from.take(24)?;
            from.number()?;
        }
        for _ in 0..from.number()? {
            from.skip_string()?;
            from.take(if kind >= kind::STREAM_3 { 16 } else { 8 })?;
            for _ in 0..from.number()? {
                from.take(16)?;
            }
        }
    }
    Ok(())
}

fn text(entry: Entry<'_>) -> Cow<'_, [u8]> {
    match entry {
        Entry::Str(text) => Cow::Borrowed(text),
        Entry::Int(_) => Cow::Owned(entry.text(&mut Digits::new()).to_vec()),
    }
}

/// A node of a listpack.
fn unpack(base: StreamId, bytes: &[u8]) -> Result<NodeBuilder, Broken> {
    let mut entries = listpack::listpack(bytes)?;
    let mut next = || entries.next().unwrap_or(Err(Broken));
    let number = |entry: Entry<'_>| entry.as_int().ok_or(Broken);
    let count = |entry: Entry<'_>| u64::try_from(number(entry)?).map_err(|_| Broken);
    let (live, dead) = (count(next()?)?, count(next()?)?);
    let mut names = Vec::new();
    for _ in 0..count(next()?)? {
        names.push(text(next()?));
    }
    if number(next()?)? != 0 {
        return Err(Broken);
    }
    let mut node = NodeBuilder::new(base, names.iter().map(|name| &**name));
    let mut found = (0u64, 0u64);
    let mut own = Vec::new();
    for _ in 0..live.checked_add(dead).ok_or(Broken)? {
        let flags = number(next()?)?;
        let (ms, seq) = (number(next()?)?, number(next()?)?);
        let id = StreamId::new(
            base.ms.wrapping_add(ms.cast_unsigned()),
            base.seq.wrapping_add(seq.cast_unsigned()),
        );
        let same = flags & SAME_FIELDS != 0;
        own.clear();
        let mut elements = 3u64;
        if same {
            for name in &names {
                own.push((Cow::Borrowed(&**name), text(next()?)));
                elements += 1;
            }
        } else {
            elements += 1;
            for _ in 0..count(next()?)? {
                own.push((text(next()?), text(next()?)));
                elements += 2;
            }
        }
        if count(next()?)? != elements {
            return Err(Broken);
        }
        let deleted = flags & DELETED != 0;
        node.push(id, own.iter().map(|(name, value)| (&**name, &**value)), deleted);
        if deleted { found.1 += 1 } else { found.0 += 1 }
    }
    let more = entries.next().is_some();
    if more || found != (live, dead) { Err(Broken) } else { Ok(node) }
}
