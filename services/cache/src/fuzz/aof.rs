//! Records of any bytes as those of an append-only log, run again as at a start; then every key is used.
//!
//! Records have `~~` between them. Of each, the low three bits of the first byte are its flags, as in `aof/replay.rs`: `1`
//! for one that begins with an entry, `3` for one that goes on in the next record, and so on. The input's first byte says
//! which parts of commands over several shards are there.

use std::sync::Arc;

use super::{host, split, uses};
use crate::aof::{
    Common, Fsync, TxName,
    replay::{self, Joiner, Replay, State},
};

/// Between records.
const BETWEEN: &[u8] = b"~~";

pub(super) fn run(input: &[u8]) {
    let (how, bytes) = split(input);
    let mut host = host(1);
    let (common, now) = (Arc::<Common>::default(), host.now);
    let shard = &mut host.shards[0];
    shard.begin_log(Fsync::No, common, now);
    let is_whole = |name: TxName, _: &[u16]| how == b'a' || name.ticket.is_multiple_of(2);
    let (mut joiner, mut state) = (Joiner::default(), State::default());
    let (mut parts, mut args) = (0, Box::<wire::resp::Args>::default());
    for record in records(bytes) {
        if let Some((bytes, has_part)) = joiner.take(&record) {
            if has_part && replay::parts(bytes, &mut args, |_| parts += 1).is_err() {
                break;
            }
            let mut replay = Replay { shard, state: &mut state, is_whole: &is_whole };
            if replay.run(bytes).is_err() {
                break;
            }
        }
    }
    if let Some((_, payload)) = state.functions.take() {
        let mut replay = Replay { shard, state: &mut state, is_whole: &is_whole };
        let _ = replay.functions(&payload);
    }
    if let Some(journal) = &mut shard.journal {
        journal.forget_reader();
    }
    shard.end_log(now);
    uses::all(&mut host);
}

/// The records, with their flags.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = vec![Vec::new()];
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if bytes.get(at..at + BETWEEN.len()) == Some(BETWEEN) {
            records.push(Vec::new());
            at += BETWEEN.len();
        } else {
            records.last_mut().expect("one at least").push(*byte);
            at += 1;
        }
    }
    records
}
