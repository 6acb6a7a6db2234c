//! What other shards ask of this one for this protocol.
//!
//! A batch holds whole requests as the client sent them, and two kinds of frames that no client can send: a key of a
//! `get` that spans shards, answered without its `END`, and a key whose item is to go because its successor was too
//! large. Next: `session.rs` fills batches.

use view::{Input, Instant};
use wire::memcached::{Parsed, Request, parse, rest_of_line};

use super::{
    keys::look_ahead,
    run::{self, Cx, Data},
};
use crate::{batch::Batch, shard::Shard, work::Response};

/// A request of this protocol to a shard.
#[derive(Debug)]
pub enum Ask {
    /// Commands of a pipeline whose keys all live there.
    Batch(Box<Batch>),
    /// `flush_all` after so many seconds, or at a time.
    Flush(i32),
    /// The shard's part of `stats`.
    Report,
    /// `stats reset`.
    Reset,
}

/// First byte of the frames that only shards send.
pub(super) const INTERNAL: u8 = 1;
/// The second: a line with a `get` of one key.
pub(super) const PART: u8 = b'g';
/// The second: a key, whose item goes.
pub(super) const DROP: u8 = b'd';

/// The frame that drops a key's item.
pub(super) fn drop_frame(key: &[u8]) -> Vec<u8> {
    let len = u8::try_from(key.len()).unwrap_or(u8::MAX);
    [&[INTERNAL, DROP, len], key].concat()
}

/// Answers a request.
pub(crate) fn serve(shard: &mut Shard, ask: Ask, now: Instant) -> Response {
    shard.flush_due_items(now);
    match ask {
        Ask::Batch(mut batch) => {
            run_batch(shard, &mut batch, now);
            Response::Batch(batch)
        }
        Ask::Flush(delay) => {
            shard.flush_items(delay, now);
            Response::Done
        }
        Ask::Report => Response::Memcached(Box::new(shard.memcached_report())),
        Ask::Reset => {
            shard.memcached.counters = super::Counters::default();
            Response::Done
        }
    }
}

fn run_batch(shard: &mut Shard, batch: &mut Batch, now: Instant) {
    let Batch { bytes, large, commands, out, ends, .. } = batch;
    let (mut at, mut large) = (0, large.iter().peekable());
    let mut ahead = 0;
    for _ in 0..*commands {
        if ahead == 0 {
            ahead = look_ahead(shard, bytes.get(at..).unwrap_or_default());
        }
        ahead -= 1;
        let mut cx = Cx { shard: &mut *shard, out: &mut *out, now };
        if let Some((_, frame)) = large.next_if(|(before, _)| *before == at) {
            run_frame(&mut cx, &Input::owned(frame));
        } else {
            at += run_frame(&mut cx, &Input::borrowed(bytes.get(at..).unwrap_or_default()));
        }
        ends.push(out.mark());
    }
}

/// Runs the request at the front of the input, and tells its length.
fn run_frame(cx: &mut Cx<'_>, input: &Input<'_>) -> usize {
    let bytes = input.remaining();
    match bytes {
        [INTERNAL, DROP, len, rest @ ..] => {
            let len = usize::from(*len);
            let key = rest.get(..len).unwrap_or_default();
            let hash = cx.shard.store.hash(key);
            cx.remove(hash, key);
            cx.shard.log_item(hash, key, cx.now, true);
            return 3 + len;
        }
        [INTERNAL, PART, rest @ ..] => {
            let (text, next) = rest_of_line(rest);
            if let Request::Get(get) = wire::memcached::parse_line(text) {
                for key in get.keys {
                    let hash = cx.shard.store.hash(key);
                    run::get(cx, hash, key, get.cas, get.touch);
                }
            }
            return 2 + next.unwrap_or(rest.len());
        }
        _ => {}
    }
    let Parsed::Request { request, line_len, .. } = parse(bytes) else {
        // Sessions send whole requests only.
        debug_assert!(false, "a broken batch between shards");
        return bytes.len();
    };
    let data = request
        .data_len()
        .map(|len| Data { bytes: bytes.get(line_len..line_len + len).unwrap_or_default(), input });
    run::request(cx, &request, data);
    line_len + data.map_or(0, |data| data.bytes.len() + 2)
}
