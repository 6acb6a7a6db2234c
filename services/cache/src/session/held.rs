//! Replies that wait until the append-only log is durable as far as they tell.
//!
//! Invariants: replies leave in their order; none of those that waited leaves when the log failed, since what they tell may
//! be lost. Next: `crate::aof` for how far that is.

use view::{Flow, Mark, Output};

use super::{Pending, Session};
use crate::{shard::Shard, work::Work};

/// Replies that wait for the log.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) out: Output,
    pub(super) flow: Flow<Work>,
    pub(super) pending: Option<Pending>,
}

impl Session {
    /// Keeps a call's replies until the log is durable up to here, if that is asked for.
    #[cold]
    pub(super) fn hold(
        &mut self,
        flow: Flow<Work>,
        start: Mark,
        out: &mut Output,
        shard: &Shard,
    ) -> Flow<Work> {
        let (mut start, mut end) = (start, out.mark());
        self.needs = self.needs.max(shard.log_needs().unwrap_or(0));
        let several = matches!(
            self.pending,
            Some(Pending::Multi(_) | Pending::Exec(..) | Pending::Spread(_))
        );
        if several && shard.is_log_strict() {
            // What the command did to keys of other shards is logged there with what follows.
            if end != start {
                self.kept.get_or_insert_default().append_range(out, start, end);
                out.truncate(start);
            }
            return flow;
        }
        let is_kept = self.kept.is_some();
        if let Some(mut kept) = self.kept.take() {
            kept.append_range(out, start, end);
            out.truncate(start);
            start = out.mark();
            out.append(&kept);
            end = out.mark();
        }
        if is_kept {
            self.needs = shard.awaits_log().unwrap_or(0);
        }
        if end == start || !shard.is_behind(self.needs) {
            return flow;
        }
        let to = std::mem::take(&mut self.needs);
        let mut kept = Output::default();
        kept.append_range(out, start, end);
        out.truncate(start);
        let pending = self.pending.take();
        self.pending = Some(Pending::Held(Box::new(Held { out: kept, flow, pending })));
        Flow::Await(Work::Durable { to })
    }

    /// Gives the replies that waited for the log: none of them when it failed.
    pub(super) fn release(&mut self, held: Held, is_durable: bool, out: &mut Output) -> Flow<Work> {
        if !is_durable {
            return Flow::Close;
        }
        out.append(&held.out);
        self.pending = held.pending;
        held.flow
    }
}
