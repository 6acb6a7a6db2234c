//! Where a command runs, with several shards or while keys are locked: here, on another shard, on several, or later.
//!
//! Invariant: a command is handed on, refused or left unconsumed as a whole. Next: `multi::target` for the decision,
//! `hop.rs` for what is handed on, `spread.rs` for what blocks on several shards.

use view::{Flow, Input};
use wire::resp::{Args, reply};

use super::{Session, Step, Turn};
use crate::{
    command::{ReplyMode, Waiting, dispatch, row},
    group::Item,
    multi,
    script::busy_text,
    shard::Shard,
    spread::Spread,
    transaction,
    watch::guard,
};

impl Session {
    /// With several shards or locks about: where a command runs.
    #[cold]
    #[inline(never)]
    pub(super) fn place(
        &mut self,
        turn: &mut Turn<'_, '_>,
        item: &Item,
        args: &Args,
        frame: &[u8],
        input: &Input<'_>,
    ) -> Place {
        let target = match multi::target(turn.shard, &self.conn, item, args, frame) {
            multi::Target::Here => return Place::Here,
            multi::Target::Locked => return Place::Stop(Step::Locked),
            multi::Target::Barrier if turn.hop.is_some() => return Place::Stop(Step::Barrier),
            multi::Target::Barrier => return Place::Here,
            multi::Target::Spread if turn.hop.is_some() => return Place::Stop(Step::Barrier),
            multi::Target::Spread if is_blocking(item, turn.shard) => {
                return self.spread_blocking(turn, item, args, frame);
            }
            multi::Target::Spread => return self.spread(turn, item, args, frame, input),
            multi::Target::There { shard, moved: Some(slot) } => {
                let out = match &mut turn.hop {
                    None => &mut *turn.out,
                    Some(hop) => &mut hop.local,
                };
                dispatch::moved(out, turn.shard, &self.conn, slot, shard);
                if let Some(hop) = &mut turn.hop {
                    hop.mark_local();
                }
                return Place::Done;
            }
            multi::Target::There { shard, moved: None } => shard,
        };
        if is_blocking(item, turn.shard) {
            if turn.hop.is_some() {
                return Place::Stop(Step::Barrier);
            }
            return match self.check(turn, item, args, frame) {
                None => Place::Done,
                Some(_) => Place::Stop(Step::End(self.block_on(target, frame, input, turn.shard))),
            };
        }
        self.send_away(target, turn, item, args, frame, input)
    }

    /// Hands a command on to the shard of its keys.
    fn send_away(
        &mut self,
        target: u16,
        turn: &mut Turn<'_, '_>,
        item: &Item,
        args: &Args,
        frame: &[u8],
        input: &Input<'_>,
    ) -> Place {
        if let Some(function) = turn.shard.scripts.library().board().busy(target) {
            let out = match &mut turn.hop {
                None => &mut *turn.out,
                Some(hop) => &mut hop.local,
            };
            turn.shard.stats.error("BUSY");
            reply::error(out.inline_mut(), busy_text(function).as_bytes());
            if let Some(hop) = &mut turn.hop {
                hop.mark_local();
            }
            return Place::Done;
        }
        if let Some(id) = item.id
            && !self.conn.plain
            && !guard::may_leave(args, frame, id, turn.shard, &self.conn, turn.now)
        {
            return Place::Stop(Step::Later);
        }
        self.remember(turn.shard, item, args, frame);
        let hop = turn.hop.get_or_insert_with(|| turn.shard.spare_hops.pop().unwrap_or_default());
        hop.push(target, &self.conn, frame, input, &mut turn.shard.spares);
        if !self.conn.plain
            && let Some(record) = turn.shard.clients.get(self.conn.slot)
        {
            hop.name_client(target, &record.peer, record.name.as_deref().unwrap_or_default());
        }
        turn.shard.stats.hopped_commands += 1;
        if self.conn.reply == ReplyMode::Skip {
            // Its reply alone is left out.
            return Place::Stop(Step::End(Flow::Flush));
        }
        Place::Done
    }

    /// Checks and counts a command that runs elsewhere: its id, or nothing when it was refused, with a reply.
    fn check(
        &mut self,
        turn: &mut Turn<'_, '_>,
        item: &Item,
        args: &Args,
        frame: &[u8],
    ) -> Option<u16> {
        let id = item.id?;
        if let Some(fault) = guard::check(args, frame, id, turn.shard, &self.conn, turn.now) {
            dispatch::refuse(fault, turn.out, turn.shard, id);
            return None;
        }
        turn.shard.stats.call(id);
        self.conn.last_command = id;
        Some(id)
    }

    /// A command that may block, with keys on several shards.
    #[cold]
    fn spread_blocking(
        &mut self,
        turn: &mut Turn<'_, '_>,
        item: &Item,
        args: &Args,
        frame: &[u8],
    ) -> Place {
        let Some(id) = self.check(turn, item, args, frame) else { return Place::Done };
        let frame = bytes::Bytes::copy_from_slice(frame);
        let queued = transaction::Queued { id, db: self.conn.db, frame };
        let spread = Box::new(Spread::new(queued, turn.shard));
        self.set_blocked(turn.shard, Some((turn.shard.index, spread.ticket())));
        let flow = self.advance_spread(spread, Vec::new(), turn.out, turn.shard, turn.now);
        Place::Stop(Step::End(flow))
    }

    /// A command with keys on several shards.
    fn spread(
        &mut self,
        turn: &mut Turn<'_, '_>,
        item: &Item,
        args: &Args,
        frame: &[u8],
        input: &Input<'_>,
    ) -> Place {
        if let Some(id) = item.id
            && !self.conn.plain
            && guard::is_held_back(turn.shard, &self.conn, id, turn.now)
        {
            return Place::Stop(Step::Later);
        }
        self.remember(turn.shard, item, args, frame);
        let call = dispatch::Call { args, frame, input, id: item.id, hash: item.hash };
        let start = turn.out.mark();
        match dispatch::spread(call, turn.out, turn.shard, &mut self.conn, turn.now) {
            None => {
                if self.conn.reply != ReplyMode::On {
                    turn.out.truncate(start);
                }
                if self.conn.reply == ReplyMode::Skip {
                    self.conn.set_reply(ReplyMode::On);
                }
                Place::Done
            }
            Some(mut multi) => {
                multi.timed = turn.shard.begin_timing(item.id, args, frame, turn.now);
                Place::Stop(Step::End(self.wait(Waiting::Multi(multi), turn)))
            }
        }
    }

    /// Before a command of a client that tracks leaves for other shards.
    fn remember(&self, shard: &mut Shard, item: &Item, args: &Args, frame: &[u8]) {
        if self.conn.tracks
            && let Some(id) = item.id
        {
            let row = shard.commands.row(id);
            shard.remember(self.conn.id, row, args, frame);
            shard.end_caching(self.conn.id, row);
        }
    }
}

fn is_blocking(item: &Item, shard: &Shard) -> bool {
    item.id.is_some_and(|id| shard.commands.row(id).flags & row::BLOCKING != 0)
}

/// Where [`Session::place`] leaves a command.
pub(super) enum Place {
    Here,
    Done,
    Stop(Step),
}
