//! A command that may block, with keys on several shards.
//!
//! Alarms are put on its keys, then it is tried, as any command over several shards is (`multi/bring.rs`). When it found
//! nothing, the session holds on its own shard until an alarm rings, which takes it off; then all begins anew. Because
//! the alarms come first, no write is missed between a try and the wait.
//!
//! Invariants: alarms are taken off when the command has run, or its time is up; clients that wait for one key on
//! several shards are not served in any order among each other.

use view::{Instant, Output};

use crate::{
    command::Conn,
    multi::{Multi, bring::Bring},
    observe::{Cancel, write_end},
    shard::Shard,
    transaction::Queued,
    work::{Request, Response},
};

/// One such command.
#[derive(Debug)]
pub(crate) struct Spread {
    ticket: u64,
    queued: Queued,
    /// Shards that have an alarm.
    shards: Vec<u16>,
    /// When it gives up, once it waited.
    deadline_ns: Option<Option<u64>>,
    gone: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    /// Alarms are being set.
    Alarms,
    Trying(Box<Multi>),
    Holding,
}

impl Spread {
    /// A command that was checked.
    pub(crate) fn new(queued: Queued, shard: &mut Shard) -> Self {
        let ticket = shard.ticket();
        shard.expect_alarms(ticket, true);
        Self {
            ticket,
            queued,
            shards: Vec::new(),
            deadline_ns: None,
            gone: false,
            stage: Stage::Begin,
        }
    }

    /// The name of its wait.
    pub(crate) const fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Takes responses and gives the next requests; nothing at the end, with the reply written.
    pub(crate) fn step(
        &mut self,
        responses: Vec<Response>,
        out: &mut Output,
        shard: &mut Shard,
        conn: &Conn,
        now: Instant,
    ) -> Option<Vec<(u16, Request)>> {
        match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::Begin => Some(self.set_alarms(shard)),
            Stage::Alarms => {
                let mut bring = Bring::command(self.queued.clone(), shard);
                if self.deadline_ns.is_some() {
                    bring = bring.again();
                }
                let multi = Box::new(Multi::bring(bring, shard));
                self.proceed(multi, Vec::new(), out, shard, conn, now)
            }
            Stage::Trying(multi) => self.proceed(multi, responses, out, shard, conn, now),
            Stage::Holding => match responses.first() {
                Some(Response::Ended(why)) => {
                    write_end(out.inline_mut(), conn.version, *why);
                    self.end(shard);
                    None
                }
                _ => Some(self.set_alarms(shard)),
            },
        }
    }

    fn set_alarms(&mut self, shard: &Shard) -> Vec<(u16, Request)> {
        self.stage = Stage::Alarms;
        let bring = Bring::command(self.queued.clone(), shard);
        self.shards = bring.keys().iter().map(|(owner, _)| *owner).collect();
        let (ticket, to) = (self.ticket, shard.index);
        let alarm = |(owner, keys): &(u16, Vec<_>)| {
            let ticket = alarm_of(ticket);
            (*owner, Request::SetAlarm { ticket, to, keys: keys.clone() })
        };
        bring.keys().iter().map(alarm).collect()
    }

    fn proceed(
        &mut self,
        mut multi: Box<Multi>,
        responses: Vec<Response>,
        out: &mut Output,
        shard: &mut Shard,
        conn: &Conn,
        now: Instant,
    ) -> Option<Vec<(u16, Request)>> {
        if let Some(requests) = multi.step(responses, out, shard, conn, now) {
            self.stage = Stage::Trying(multi);
            return Some(requests);
        }
        let Some(block) = multi.take_block().filter(|_| !self.gone) else {
            self.end(shard);
            return None;
        };
        if let Some(frame) = block.frame {
            self.queued.frame = frame.into();
        }
        let deadline_ns = *self.deadline_ns.get_or_insert(block.deadline_ns);
        self.stage = Stage::Holding;
        Some(vec![(shard.index, Request::Hold { ticket: self.ticket, deadline_ns })])
    }

    /// Takes the alarms off.
    fn end(&self, shard: &mut Shard) {
        shard.expect_alarms(self.ticket, false);
        for &owner in &self.shards {
            shard.cancel_on(owner, alarm_of(self.ticket), Cancel::TimeOut);
        }
    }

    /// Nobody waits for the reply any more.
    pub(crate) fn give_up(&mut self, shard: &mut Shard) {
        self.gone = true;
        if matches!(self.stage, Stage::Holding) {
            shard.cancel(self.ticket, Cancel::TimeOut);
        }
    }
}

/// The name of the alarms of a wait: on the session's own shard there may be both.
const fn alarm_of(ticket: u64) -> u64 {
    ticket | ALARM
}

/// Tickets have the number of their shard in the high bits, which is far below this one.
pub(crate) const ALARM: u64 = 1 << 63;
