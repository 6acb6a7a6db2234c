//! Some commands at the front of a batch, parsed and looked up together.
//!
//! Their keys are hashed, and the table's bucket and record lines loaded for all of them, before the
//! first runs: the cache misses of a group overlap. Invariant: nothing here changes the store.
//! Next: `session.rs` for a connection's batch, `remote.rs` for one that another shard sent.

use logic::store::KeyHash;
use wire::resp::{Args, Limits, ParseState, Parsed, parse_command};

use crate::{command::dispatch, shard::Shard};

/// Most commands of a group.
pub(crate) const GROUP: usize = 16;

/// Storage for one group, reused for all batches of a shard.
#[derive(Debug, Default)]
pub(crate) struct Group {
    args: [Args; GROUP],
    items: [Item; GROUP],
}

/// One parsed command of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Item {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// Its id; `None` for an unknown command.
    pub(crate) id: Option<u16>,
    /// Hash of its first key, when that is here.
    pub(crate) hash: Option<KeyHash>,
    /// The shard of its first key, when it was asked for.
    pub(crate) owner: Option<u16>,
}

impl Item {
    /// The command's frame in the bytes its group was parsed from.
    #[inline]
    pub(crate) fn frame<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl Group {
    /// Where the first command is parsed to, before [`Group::collect`].
    #[inline]
    pub(crate) const fn first_mut(&mut self) -> &mut Args {
        &mut self.args[0]
    }

    /// Parses commands behind the first, which is `first_len` long, up to `most` in all. How many
    /// there are.
    #[inline]
    pub(crate) fn collect(
        &mut self,
        bytes: &[u8],
        first_len: usize,
        limits: &Limits,
        most: usize,
    ) -> usize {
        self.items[0] = Item { len: first_len, ..Item::default() };
        let mut at = first_len;
        let mut count = 1;
        if at == bytes.len() {
            return count;
        }
        let most = GROUP.min(most);
        for (item, args) in self.items.iter_mut().zip(&mut self.args).take(most).skip(1) {
            let rest = bytes.get(at..).unwrap_or_default();
            // A frame that does not parse here is looked at again as the first of its group.
            let parsed = parse_command(rest, args, limits, &mut ParseState::new());
            let Parsed::Command { frame_len } = parsed else { break };
            *item = Item { start: at, len: frame_len, ..Item::default() };
            at += frame_len;
            count += 1;
        }
        count
    }

    /// Looks the first `count` commands up and, when there are several, loads what their keys will
    /// need. `local`: all keys are known to be here.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        shard: &Shard,
        bytes: &[u8],
        count: usize,
        db: u16,
        local: bool,
    ) {
        for (item, args) in self.items.iter_mut().zip(&self.args).take(count) {
            let frame = item.frame(bytes);
            item.id = dispatch::find(&shard.commands, args, frame);
            let Some(id) = item.id else { continue };
            let key = usize::from(shard.commands.row(id).first_key);
            if key == 0 || key >= args.len() {
                continue;
            }
            let key = args.get(key, frame);
            if !local {
                let owner = shard.topology.owner_of(key);
                item.owner = Some(owner);
                if owner != shard.index {
                    continue;
                }
            }
            item.hash = Some(shard.store.hash(key));
        }
        if count == 1 {
            return;
        }
        let items = self.items.get(..count).unwrap_or_default();
        let mut sink = 0_u32;
        for hash in items.iter().filter_map(|item| item.hash) {
            sink ^= shard.store.touch_bucket(db, hash);
        }
        for hash in items.iter().filter_map(|item| item.hash) {
            sink ^= shard.store.touch_record(db, hash);
        }
        std::hint::black_box(sink);
    }

    /// The first `count` commands with their arguments.
    #[inline]
    pub(crate) fn commands(&self, count: usize) -> impl Iterator<Item = (&Item, &Args)> {
        self.items.iter().zip(&self.args).take(count)
    }
}
