//! Commands on their way to the shard that owns their keys, and back with the replies.
//!
//! The same allocation makes the round trip and is used again by the shard it belongs to: memory
//! that one thread allocates and another frees costs several times as much. Next: `hop.rs` fills
//! batches and takes the replies, `remote.rs` runs them.

use bytes::Bytes;
use view::{Input, Mark, Output};
use wire::resp::Version;

use crate::elsewhere::Want;
use crate::repl::Applies;

/// Batches kept for use by a shard.
const SPARES_MAX: usize = 64;
/// One that has grown larger is not kept.
const SPARE_MAX_BYTES: usize = 64 << 10;

/// Commands as the client sent them, then also their replies.
#[derive(Debug, Default)]
pub struct Batch {
    /// The connection's database.
    pub db: u16,
    /// The connection's protocol version.
    pub version: Version,
    /// The connection's reads leave the access info alone.
    pub no_touch: bool,
    /// The client's id.
    pub client: u64,
    /// Whole frames, one after the other.
    pub bytes: Vec<u8>,
    /// Large frames kept by reference, with the offset in `bytes` they come before.
    pub large: Vec<(usize, Bytes)>,
    /// How many commands there are.
    pub commands: usize,
    /// All replies.
    pub out: Output,
    /// The end of each reply.
    pub ends: Vec<Mark>,
    /// Whether they are those of the master that is followed.
    pub(crate) applies: Applies,
    /// What the batch's only command, a script, wants of other shards: it has not run.
    pub wanted: Vec<Want>,
    /// Address and name of the client, where commands are looked at one by one.
    pub(crate) visitor: Option<(String, Vec<u8>)>,
    /// How many replies were taken, and where the last of them ended.
    taken: (usize, Mark),
}

impl Batch {
    /// One whole frame for database `db`.
    #[must_use]
    pub fn of(db: u16, frame: Vec<u8>) -> Self {
        Self { db, bytes: frame, commands: 1, ..Self::default() }
    }

    /// Appends a frame: by reference when it is large and its input owns it.
    pub(crate) fn push(&mut self, frame: &[u8], input: &Input<'_>) {
        self.commands += 1;
        if frame.len() >= view::INLINE_MAX_BYTES && input.is_owned() {
            // The frame is what the input holds at this place; only then may it be shared.
            let rest = input.remaining();
            if let Some(part) = rest.get(..frame.len())
                && std::ptr::eq(part, frame)
            {
                self.large.push((self.bytes.len(), input.slice(part)));
                return;
            }
        }
        self.bytes.extend_from_slice(frame);
    }

    /// Moves the next reply to `out`; nothing when there is none.
    pub(crate) fn take_reply(&mut self, out: &mut Output) {
        let (count, from) = self.taken;
        let Some(&end) = self.ends.get(count) else { return };
        out.append_range(&self.out, from, end);
        self.taken = (count + 1, end);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.large.clear();
        self.commands = 0;
        self.visitor = None;
        self.applies = Applies::NO;
        self.out.clear();
        self.ends.clear();
        self.wanted.clear();
        self.taken = Default::default();
    }
}

/// Batches that are not in use.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the boxes travel")]
pub(crate) struct Spares(Vec<Box<Batch>>);

impl Spares {
    pub(crate) fn take(&mut self, db: u16, version: Version, no_touch: bool) -> Box<Batch> {
        let mut batch = self.0.pop().unwrap_or_default();
        (batch.db, batch.version, batch.no_touch) = (db, version, no_touch);
        batch
    }

    pub(crate) fn give_back(&mut self, mut batch: Box<Batch>) {
        let kept = batch.bytes.capacity() + batch.out.allocated_bytes();
        if self.0.len() < SPARES_MAX && kept <= SPARE_MAX_BYTES {
            batch.clear();
            self.0.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_batch_remembers_nothing() {
        let mut spares = Spares::default();
        let mut batch = spares.take(3, Version::Resp3, true);
        batch.push(b"*1\r\n$4\r\nPING\r\n", &Input::borrowed(b""));
        batch.out.write(b"+PONG\r\n");
        batch.ends.push(batch.out.mark());
        let mut out = Output::default();
        batch.take_reply(&mut out);
        batch.take_reply(&mut out);
        assert_eq!(out.to_vec(), b"+PONG\r\n");
        spares.give_back(batch);
        let mut again = spares.take(0, Version::Resp2, false);
        assert_eq!((again.commands, again.bytes.len(), again.ends.len()), (0, 0, 0));
        assert!(again.bytes.capacity() > 0, "the allocation was kept");
        again.out.write(b":1\r\n");
        again.ends.push(again.out.mark());
        let mut out = Output::default();
        again.take_reply(&mut out);
        assert_eq!(out.to_vec(), b":1\r\n");
    }

    #[test]
    fn a_batch_that_has_grown_is_not_kept() {
        let mut spares = Spares::default();
        let mut batch = spares.take(0, Version::Resp2, false);
        batch.bytes.reserve(SPARE_MAX_BYTES + 1);
        spares.give_back(batch);
        assert_eq!(spares.0.len(), 0);
    }
}
