//! The part of a pipeline batch that runs on other shards.
//!
//! Commands are collected per shard and sent as one request each; replies are put back in the order
//! of the commands, with those that ran here in between. Invariant: a command that has to wait for
//! something else never runs while a hop is being collected; [`crate::session`] ends the batch
//! before it. Next: [`crate::remote`] runs the commands on their shard.

use view::{Input, Mark, Output};
use wire::resp::Version;

use crate::{
    batch::{Batch, Spares},
    command::Conn,
    work::{Request, Response},
};

/// Commands of one batch that run on other shards, and the replies of those between them that ran
/// here.
#[derive(Debug, Default)]
pub(crate) struct Hop {
    batches: Vec<(u16, Box<Batch>)>,
    /// Per command: which batch answers it, or [`HERE`].
    order: Vec<u16>,
    pub(crate) local: Output,
    local_ends: Vec<Mark>,
    /// The connection ends with this batch.
    pub(crate) close: bool,
}

const HERE: u16 = u16::MAX;

impl Hop {
    /// Ends the reply of a command that ran here.
    pub(crate) fn mark_local(&mut self) {
        self.order.push(HERE);
        self.local_ends.push(self.local.mark());
    }

    /// Hands a command on to a shard.
    pub(crate) fn push(
        &mut self,
        target: u16,
        conn: &Conn,
        frame: &[u8],
        input: &Input<'_>,
        spares: &mut Spares,
    ) {
        let at = match self.batches.iter().position(|(shard, _)| *shard == target) {
            Some(at) => at,
            None => {
                let mut batch = spares.take(conn.db, conn.version, conn.no_touch);
                batch.client = conn.id;
                batch.applies = conn.applies;
                self.batches.push((target, batch));
                self.batches.len() - 1
            }
        };
        let Some((_, batch)) = self.batches.get_mut(at) else { return };
        batch.push(frame, input);
        self.order.push(u16::try_from(at).unwrap_or(HERE));
    }

    /// Hands a request of memcached's protocol on to a shard.
    pub(crate) fn push_frame(
        &mut self,
        target: u16,
        frame: &[u8],
        input: &Input<'_>,
        spares: &mut Spares,
    ) {
        let at = match self.batches.iter().position(|(shard, _)| *shard == target) {
            Some(at) => at,
            None => {
                self.batches.push((target, spares.take(0, Version::Resp2, false)));
                self.batches.len() - 1
            }
        };
        let Some((_, batch)) = self.batches.get_mut(at) else { return };
        batch.push(frame, input);
        self.order.push(u16::try_from(at).unwrap_or(HERE));
    }

    /// One batch per shard, in the order the shards were first needed.
    pub(crate) fn take_batches(&mut self) -> impl Iterator<Item = (u16, Box<Batch>)> {
        self.batches.drain(..)
    }

    /// Says whose the commands for a shard are.
    pub(crate) fn name_client(&mut self, target: u16, peer: &str, name: &[u8]) {
        let batch = self.batches.iter_mut().find(|(shard, _)| *shard == target);
        if let Some((_, batch)) = batch {
            batch.visitor.get_or_insert_with(|| (peer.to_owned(), name.to_vec()));
        }
    }

    /// One request per shard, in the order the shards were first needed.
    pub(crate) fn take_requests(&mut self) -> Vec<(u16, Request)> {
        self.batches.drain(..).map(|(shard, batch)| (shard, Request::Batch(batch))).collect()
    }

    /// Forgets every reply: the connection is closed without a word.
    pub(crate) fn silence(&mut self) {
        self.order.clear();
    }

    /// Puts the replies in the commands' order, and is empty again.
    pub(crate) fn assemble(
        &mut self,
        mut responses: Vec<Response>,
        out: &mut Output,
        spares: &mut Spares,
    ) {
        let (mut here, mut here_count) = (Mark::default(), 0);
        for &source in &self.order {
            if source == HERE {
                let Some(&end) = self.local_ends.get(here_count) else { continue };
                out.append_range(&self.local, here, end);
                here = end;
                here_count += 1;
                continue;
            }
            match responses.get_mut(usize::from(source)) {
                Some(Response::Batch(batch)) => batch.take_reply(out),
                other => {
                    let why = Response::why_not(other.as_deref());
                    wire::resp::reply::error(out.inline_mut(), why);
                }
            }
        }
        for response in responses {
            if let Response::Batch(batch) = response {
                spares.give_back(batch);
            }
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.batches.clear();
        self.order.clear();
        self.local.clear();
        self.local_ends.clear();
        self.close = false;
    }
}
