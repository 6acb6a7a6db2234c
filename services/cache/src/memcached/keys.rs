//! Keys of requests: those of a `get` answered a group at a time, and those of a pipeline loaded ahead.
//!
//! The table's buckets and the records of a group are loaded before the first of them is read, so that the cache
//! misses overlap. Next: `run.rs` for one key.

use logic::store::KeyHash;
use view::Input;
use wire::memcached::{Words, glance};

use super::{
    remote::{INTERNAL, PART},
    run,
    session::Turn,
};
use crate::shard::Shard;

/// Keys looked up together.
const GROUP: usize = 16;
/// Most keys of a `get` answered per call.
pub(super) const MAX_KEYS: usize = 1024;

/// How the keys of a `get` are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) cas: bool,
    pub(super) touch: Option<i32>,
}

/// Answers keys of a `get` up to the bounds of a batch; those that are left, if any.
pub(super) fn answer_keys<'k>(
    turn: &mut Turn<'_>,
    reading: Reading,
    mut keys: Words<'k>,
) -> Option<Words<'k>> {
    let mut rest = keys;
    if let Some(key) = rest.next()
        && rest.is_done()
    {
        answer_key(turn, reading, turn.shard.store.hash(key), key);
        return None;
    }
    for _ in 0..MAX_KEYS / GROUP {
        let mut group: [(&[u8], KeyHash); GROUP] = [(&[][..], KeyHash::default()); GROUP];
        let mut count = 0;
        for (place, key) in group.iter_mut().zip(&mut keys) {
            *place = (key, turn.shard.store.hash(key));
            count += 1;
        }
        let group = group.get(..count).unwrap_or_default();
        load_ahead(turn.shard, group);
        for &(key, hash) in group {
            answer_key(turn, reading, hash, key);
        }
        if keys.is_done() {
            return None;
        }
        if turn.is_full() {
            break;
        }
    }
    Some(keys)
}

fn answer_key(turn: &mut Turn<'_>, reading: Reading, hash: KeyHash, key: &[u8]) {
    let Reading { cas, touch } = reading;
    let target = turn.owner(key);
    if target == turn.shard.index {
        return turn.here(|cx| run::get(cx, hash, key, cas, touch));
    }
    let mut frame = Vec::with_capacity(key.len() + 24);
    frame.extend_from_slice(&[INTERNAL, PART]);
    frame.extend_from_slice(if touch.is_some() { b"gat" } else { b"get" });
    if cas {
        frame.push(b's');
    }
    frame.push(b' ');
    if let Some(exptime) = touch {
        frame.extend_from_slice(itoa::Buffer::new().format(exptime).as_bytes());
        frame.push(b' ');
    }
    frame.extend_from_slice(key);
    frame.extend_from_slice(b"\r\n");
    turn.hand_on(target, &frame, &Input::borrowed(b""));
}

/// Loads what the keys of the next requests will need, when there are several; for how many that was done.
pub(super) fn look_ahead(shard: &Shard, bytes: &[u8]) -> usize {
    let mut group: [(&[u8], KeyHash); GROUP] = [(&[][..], KeyHash::default()); GROUP];
    let (mut count, mut rest) = (0, bytes);
    for place in &mut group {
        let Some((key, len)) = glance(rest).filter(|(_, len)| *len < bytes.len()) else { break };
        *place = (key, shard.store.hash(key));
        count += 1;
        rest = rest.get(len..).unwrap_or_default();
    }
    load_ahead(shard, group.get(..count).unwrap_or_default());
    count.max(1)
}

/// Loads what the keys will need; those of other shards cost a line that is not used.
fn load_ahead(shard: &Shard, group: &[(&[u8], KeyHash)]) {
    if group.len() < 2 {
        return;
    }
    let db = shard.store.items_db();
    let sink = group.iter().fold(0, |sink, &(_, hash)| sink ^ shard.store.touch_bucket(db, hash));
    let touch = |sink, &(_, hash): &(&[u8], KeyHash)| sink ^ shard.store.touch_record(db, hash);
    std::hint::black_box(group.iter().fold(sink, touch));
}
