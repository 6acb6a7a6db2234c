//! Flows: what each shard of this server changes, for replicas that are caches themselves, one connection per shard.
//!
//! A flow is the shard's journal, the same entries that the append-only log writes, from a backlog in memory
//! (`backlog.rs`). A replica that begins gets a *base* besides: each key as a whole, a few at a time, between what changes
//! meanwhile and only as fast as it reads, so that nothing is kept for it and no process is forked (`serve.rs`). One
//! that lost its link goes on where it was, as long as the backlogs have that (`group.rs` and `follow.rs`, its side).
//!
//! On a flow there are frames, each with a head that ends with a line end: `J<len>` and so many bytes of the journal,
//! `B<len>` and so many bytes of the base, `E`, the end of the base, and `P<ms>`, which says that the master is there and
//! that nothing more has changed until this time.
//!
//! Invariants: the flows of a data set begin at one moment (a *cut*) at which no command over several shards was under way;
//! a key's base comes before any entry about it that is younger; a flow that falls behind more than the backlog may hold
//! is closed. Next: docs/replication.md for users, docs/decisions/0023-own-replicas.md for why.

mod backlog;
mod entries;
pub mod failover;
pub(crate) mod follow;
pub(crate) mod group;
pub(crate) mod serve;
pub(crate) mod wait;

use std::cell::Cell;

use engine::exec::sync::Notify;
use view::Instant;

pub(crate) use backlog::{Backlog, Limits};

use crate::{aof, shard::Shard};

/// Moments kept for flows that are about to begin.
const CUTS_MAX: usize = 8;
/// How long.
const CUT_MS: u64 = 30_000;
/// Replicas of a server.
const FLOWS_MAX: usize = 64;
/// What a replica may be behind if nothing is configured, all shards together; with redis-server, too.
const BEHIND_BYTES: usize = 256 << 20;
/// The least that a backlog keeps.
const KEPT_MIN_BYTES: usize = 16 << 10;

/// How far a base has come.
#[derive(Clone, Debug, Default)]
struct Base {
    place: aof::Base,
    /// Keys that were found and have yet to be sent, and their database.
    keys: Vec<Vec<u8>>,
    db: u16,
    /// There are no others.
    is_last: bool,
}

/// What one replica was sent over a flow, and has applied.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The id of its connection.
    pub(crate) client: u64,
    /// The host's name of that.
    pub(crate) conn: u64,
    /// The replica: its address without the port, and the port it listens on.
    pub(crate) replica: String,
    /// Up to where the journal was sent.
    sent: u64,
    /// How far the base has come; nothing at its end.
    base: Option<Box<Base>>,
    /// It has said how far it is.
    is_online: bool,
    /// Up to where it was applied.
    acked: u64,
    /// When it was last heard.
    heard_ms: u64,
}

impl Flow {
    /// A flow to a replica over a connection.
    pub(crate) const fn new(client: u64, conn: u64, replica: String) -> Self {
        let (sent, acked, heard_ms) = (0, 0, 0);
        Self { client, conn, replica, sent, base: None, is_online: false, acked, heard_ms }
    }
}

/// What a shard knows of a replica that follows it.
#[derive(Clone, Debug)]
pub struct Behind {
    pub(crate) replica: String,
    /// It has all keys, and says how far it is.
    pub(crate) is_online: bool,
    pub(crate) acked: u64,
    pub(crate) heard_ms: u64,
}

/// Where a shard's journal ends, and who follows it.
#[derive(Clone, Debug, Default)]
pub struct Followers {
    pub(crate) end: u64,
    /// Commands that were begun here have yet to be sent to the shards of their keys.
    pub(crate) is_crowded: bool,
    pub(crate) flows: Vec<Behind>,
}

/// The flows of a shard.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    list: Vec<Flow>,
    /// Those whose tasks have to be started.
    new: Vec<u64>,
    /// Moments from which flows may begin, and until when.
    cuts: Vec<(u64, u64)>,
    /// When somebody was last there.
    used_ms: u64,
    /// Commands wait for room on their way to other shards.
    pub(crate) is_crowded: bool,
}

/// The host's side: who waits for a journal to grow.
#[derive(Default)]
pub(crate) struct Host {
    changed: Notify,
    is_on: Cell<bool>,
    /// Where the journal ended when flows were last told.
    seen: Cell<u64>,
}

impl Host {
    /// Tells flows when the journal has grown; once per turn.
    pub(crate) fn wake(&self, shard: &Shard) {
        if self.is_on.get() {
            let end = shard.flow_end();
            if self.seen.replace(end) != end {
                self.changed.notify_all();
            }
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.is_on.get()
    }
}

impl Flows {
    /// Whether a connection is one.
    pub(crate) fn has(&self, client: u64) -> bool {
        !self.list.is_empty() && self.list.iter().any(|flow| flow.client == client)
    }

    fn get(&self, client: u64) -> Option<&Flow> {
        self.list.iter().find(|flow| flow.client == client)
    }

    fn get_mut(&mut self, client: u64) -> Option<&mut Flow> {
        self.list.iter_mut().find(|flow| flow.client == client)
    }

    /// The oldest place in the journal that somebody has yet to be sent.
    fn oldest(&self) -> Option<u64> {
        let cuts = self.cuts.iter().map(|(at, _)| *at);
        self.list.iter().map(|flow| flow.sent).chain(cuts).min()
    }
}

/// The hard limit that `client-output-buffer-limit` has for replicas; nothing for none.
fn replica_limit(setting: &str) -> Option<usize> {
    let is_replica = |word: &&str| *word == "slave" || *word == "replica";
    let mut words = setting.split_ascii_whitespace().skip_while(|word| !is_replica(word)).skip(1);
    words.next().and_then(|word| word.parse().ok()).filter(|&bytes| bytes > 0)
}

impl Shard {
    fn backlog_limits(&self) -> Limits {
        let shards = usize::from(self.count.max(1));
        let kept = self.settings.get("repl-backlog-size").parse::<usize>().unwrap_or(1 << 20);
        let behind = replica_limit(self.settings.get("client-output-buffer-limit"));
        let behind_bytes = behind.unwrap_or(BEHIND_BYTES) / shards;
        Limits { kept_bytes: (kept / shards).max(KEPT_MIN_BYTES), behind_bytes }
    }

    /// Takes over what CONFIG SET changed.
    pub(crate) fn apply_flow_settings(&mut self) {
        let limits = self.backlog_limits();
        if let Some(backlog) = self.backlog_mut() {
            backlog.set_limits(limits);
        }
    }

    fn backlog(&self) -> Option<&Backlog> {
        self.journal.as_ref()?.backlog.as_deref()
    }

    fn backlog_mut(&mut self) -> Option<&mut Backlog> {
        self.journal.as_mut()?.backlog.as_deref_mut()
    }

    /// Where the journal ends, as flows count.
    pub(crate) fn flow_end(&self) -> u64 {
        self.backlog().map_or(0, Backlog::end)
    }

    /// Names the history of places in the journal, 0 for none.
    pub(crate) fn flow_history(&self) -> u64 {
        self.backlog().map_or(0, |backlog| backlog.history)
    }

    /// Where the backlog begins and ends, if there is one.
    pub(crate) fn backlog_range(&self) -> Option<(u64, u64)> {
        self.backlog().map(|backlog| (backlog.start(), backlog.end()))
    }

    /// A moment from which flows may begin, at which no command over several shards is under way: where the journal is.
    pub(crate) fn cut(&mut self, now: Instant) -> u64 {
        let limits = self.backlog_limits();
        if self.journal.is_none() {
            self.begin_journal(now);
        }
        // What this server had applied of a master before goes on being counted.
        let start = self.repl.offset().div_ceil(u64::from(self.count.max(1)));
        let new = || Box::new(Backlog::new(now.unix_us, start, limits));
        let Some(journal) = &mut self.journal else { return 0 };
        let backlog = journal.backlog.get_or_insert_with(new);
        let at = backlog.end();
        // Whoever reads from here knows nothing.
        journal.forget_reader();
        if self.flows.cuts.len() >= CUTS_MAX {
            self.flows.cuts.remove(0);
        }
        self.flows.cuts.push((at, now.unix_ms() + CUT_MS));
        self.flows.used_ms = now.unix_ms();
        self.note_bases();
        self.log_functions(now);
        at
    }

    /// Begins a flow from a place in the journal on, with a base where that is a cut and `is_full`; whether it could.
    pub(crate) fn begin_flow(
        &mut self,
        mut flow: Flow,
        (history, at): (u64, u64),
        is_full: bool,
        now: Instant,
    ) -> bool {
        let has = self.backlog().is_some_and(|log| log.history == history && log.has(at));
        let cut = self.flows.cuts.iter().position(|(cut, _)| *cut == at);
        let is_room = self.flows.list.len() < FLOWS_MAX;
        if !has || !is_room || is_full && cut.is_none() {
            return false;
        }
        (flow.sent, flow.heard_ms) = (at, now.unix_ms());
        if let Some(cut) = cut.filter(|_| is_full) {
            self.flows.cuts.remove(cut);
            flow.base = Some(Box::default());
        } else {
            flow.acked = at;
        }
        // A replica that comes again may not have been missed yet.
        self.flows.list.retain(|other| other.replica != flow.replica);
        self.flows.new.push(flow.client);
        self.flows.list.push(flow);
        self.note_bases();
        self.wake_link();
        true
    }

    /// Tells the journal whether bases are on their way: entries then tell key by key what was written.
    fn note_bases(&mut self) {
        let is_under_way =
            !self.flows.cuts.is_empty() || self.flows.list.iter().any(|flow| flow.base.is_some());
        if let Some(journal) = &mut self.journal {
            journal.flow_bases = is_under_way;
        }
    }

    /// What bases have yet to reach may be where they were already.
    pub(crate) fn restart_flow_bases(&mut self) {
        let bases = self.flows.list.iter_mut().filter_map(|flow| flow.base.as_mut());
        bases.for_each(|base| **base = Base::default());
    }

    /// A flow has ended.
    pub(crate) fn end_flow(&mut self, client: u64) {
        if !self.flows.has(client) {
            return;
        }
        self.flows.list.retain(|flow| flow.client != client);
        self.note_bases();
        self.trim_backlog();
    }

    /// A replica tells how far it is, or only that it is there.
    pub(crate) fn flow_acked(&mut self, client: u64, to: Option<u64>, now: Instant) {
        if let Some(flow) = self.flows.get_mut(client) {
            flow.heard_ms = now.unix_ms();
            if let Some(to) = to {
                (flow.is_online, flow.acked) = (true, flow.acked.max(to));
            }
        }
    }

    /// Whether a replica has said nothing for `repl-timeout`.
    fn is_flow_silent(&self, client: u64, now: Instant) -> bool {
        let timeout_s = self.settings.get("repl-timeout").parse::<u64>().unwrap_or(60);
        self.flows.get(client).is_some_and(|flow| {
            now.unix_ms().saturating_sub(flow.heard_ms) > timeout_s.saturating_mul(1_000)
        })
    }

    /// The time, if a flow was sent all that was journaled until then.
    fn flow_time(&self, client: u64, now: Instant) -> Option<u64> {
        let flow = self.flows.get(client)?;
        (flow.sent == self.flow_end()).then_some(now.unix_ms())
    }

    /// Gives back what nobody has to be sent any more, beyond what is kept for those that come again.
    fn trim_backlog(&mut self) {
        let oldest = self.flows.oldest();
        if let Some(backlog) = self.backlog_mut() {
            backlog.trim(oldest);
        }
    }

    /// This server follows another one now: nobody follows it.
    pub(crate) fn end_flows(&mut self) {
        if self.backlog().is_none() {
            return;
        }
        self.flows = Flows::default();
        let Some(journal) = &mut self.journal else { return };
        (journal.backlog, journal.flow_bases) = (None, false);
        if !journal.on_disk {
            self.journal = None;
            self.unobserve();
        }
    }

    /// Gives up what nobody came for: moments, and the backlog after `repl-backlog-ttl`.
    pub(crate) fn tick_flows(&mut self, now: Instant) {
        if self.backlog().is_none() {
            return;
        }
        let now_ms = now.unix_ms();
        let cuts = self.flows.cuts.len();
        self.flows.cuts.retain(|(_, until_ms)| *until_ms > now_ms);
        if self.flows.cuts.len() < cuts {
            self.note_bases();
            self.trim_backlog();
        }
        if !self.flows.list.is_empty() {
            self.flows.used_ms = now_ms;
        }
        let ttl_s = self.settings.get("repl-backlog-ttl").parse::<u64>().unwrap_or(3600);
        let idle_ms = now_ms.saturating_sub(self.flows.used_ms);
        let is_idle = self.flows.list.is_empty() && self.flows.cuts.is_empty();
        if is_idle && ttl_s > 0 && idle_ms > ttl_s.saturating_mul(1_000) {
            self.end_flows();
        }
    }

    /// How many follow this shard, for how many seconds one of them has been silent at most, and how many bytes one is
    /// behind at most.
    pub(crate) fn flow_numbers(&self, now: Instant) -> [u64; 3] {
        let flows = &self.flows.list;
        let silent_s = |flow: &Flow| now.unix_ms().saturating_sub(flow.heard_ms) / 1_000;
        let end = self.flow_end();
        let behind = |flow: &Flow| end.saturating_sub(flow.acked);
        let (silent_s, behind) = (flows.iter().map(silent_s).max(), flows.iter().map(behind).max());
        [flows.len() as u64, silent_s.unwrap_or(0), behind.unwrap_or(0)]
    }

    /// Who follows this shard, and how far they are.
    pub(crate) fn followers(&self) -> Followers {
        let behind = |flow: &Flow| Behind {
            replica: flow.replica.clone(),
            is_online: flow.is_online,
            acked: flow.acked,
            heard_ms: flow.heard_ms,
        };
        let flows = self.flows.list.iter().map(behind).collect();
        Followers { end: self.flow_end(), is_crowded: self.flows.is_crowded, flows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_replica_may_be_behind_is_a_setting() {
        let setting = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(replica_limit(setting), Some(256 << 20));
        assert_eq!(replica_limit("replica 8 0 0"), Some(8));
        assert_eq!((replica_limit("slave 0 0 0"), replica_limit("normal 1 1 1")), (None, None));
    }
}
