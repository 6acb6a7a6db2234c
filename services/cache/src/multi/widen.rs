//! Scripts with keys on several shards, run where the connection is.
//!
//! A script's keys are lent as those of any command are (`bring.rs`), but a script may use keys that its arguments do
//! not name. When it does, nothing of the run is left: what was lent goes back, and it is run again with those keys too.
//! A script whose declared keys are all on one other shard is sent there first, alone; only when it wants keys that are
//! not there either does it come here.
//!
//! Invariants: as in `bring.rs`; locks are asked for shard by shard in ascending order in every round, and none is held
//! between rounds; rounds are bounded.
//! Next: `script/keys.rs` for the run's side.

use bytes::Bytes;
use view::Input;
use wire::resp::{Limits, ParseState, Parsed, parse_command};

use super::{Next, Reply};
use crate::{
    aof::Part,
    batch::Batch,
    command::{Conn, Cx, Fault, Mode, Outcome, Waiting, dispatch},
    observe::Changes,
    repl::Applies,
    script::{Loan, keys::Key},
    work::{LockKeys, Record, Request, Response},
};

/// Most rounds of a script that keeps wanting keys.
/// (A queue of bullmq wants a few dozen one after the other; each round runs what ran before it again.)
const ROUNDS_MAX: usize = 256;
/// Most keys it may have in the end.
const KEYS_MAX: usize = 100_000;

/// A script on its way, and what was lent to it.
#[derive(Debug)]
pub(crate) struct Widen {
    id: u16,
    db: u16,
    /// The whole command.
    frame: Bytes,
    /// The shard to try first: that of all declared keys.
    first: Option<u16>,
    asked: bool,
    /// What it needs, with the owners.
    keys: Vec<(u16, Key)>,
    rounds: usize,
    lent: Vec<(u16, Vec<Key>, Vec<Option<Record>>)>,
    /// What lenders have to log.
    parts: Vec<(u16, Part)>,
}

impl Widen {
    /// The command of `cx`, with the keys it declares and those it was found to want.
    pub(crate) fn of(cx: &Cx<'_>, wanted: Vec<Key>) -> Self {
        let frame = Bytes::copy_from_slice(cx.frame);
        let mut widen = Self {
            id: cx.id,
            db: cx.conn.db,
            frame,
            first: None,
            asked: false,
            keys: Vec::new(),
            rounds: 0,
            lent: Vec::new(),
            parts: Vec::new(),
        };
        let owner = |key: &[u8]| cx.shard.topology.owner_of(key);
        for at in cx.row.key_indices(cx.argc(), |at| cx.arg(at)) {
            let key = cx.arg(at);
            widen.add(owner(key), (cx.conn.db, key.into()));
        }
        let alone = widen.keys.first().map(|(shard, _)| *shard);
        let is_alone = widen.keys.iter().all(|(shard, _)| Some(*shard) == alone);
        widen.first =
            alone.filter(|&shard| is_alone && shard != cx.shard.index && wanted.is_empty());
        for key in wanted {
            widen.add(owner(&key.1), key);
        }
        widen
    }

    fn add(&mut self, shard: u16, key: Key) {
        if !self.keys.iter().any(|(_, known)| *known == key) {
            self.keys.push((shard, key));
            self.keys.sort_by_key(|(shard, _)| *shard);
        }
    }

    /// The keys to lock, ascending by shard; none while another shard is to try.
    pub(super) fn locks(&self) -> Vec<(u16, LockKeys)> {
        if self.first.is_some() {
            return Vec::new();
        }
        let mut locks: Vec<(u16, Vec<Key>)> = Vec::new();
        for (shard, key) in &self.keys {
            match locks.last_mut() {
                Some((last, keys)) if last == shard => keys.push(key.clone()),
                _ => locks.push((*shard, vec![key.clone()])),
            }
        }
        locks.into_iter().map(|(shard, keys)| (shard, LockKeys::Some(keys))).collect()
    }

    /// Takes what a shard has lent.
    pub(super) fn take(&mut self, shard: u16, records: Vec<Option<Record>>) {
        let keys = self.keys.iter().filter(|(owner, _)| *owner == shard);
        let keys = keys.map(|(_, key)| key.clone()).collect();
        self.lent.push((shard, keys, records));
    }

    /// Has the script run: elsewhere, or here with what was lent.
    pub(super) fn run(
        &mut self,
        ticket: u64,
        responses: Vec<Response>,
        reply: &mut Reply<'_>,
    ) -> Next {
        if let Some(shard) = self.first {
            if !self.asked {
                self.asked = true;
                let mut batch = Batch::of(self.db, self.frame.to_vec());
                (batch.version, batch.no_touch) = (reply.conn.version, reply.conn.no_touch);
                return Next::Ask(vec![(shard, Request::Batch(Box::new(batch)))]);
            }
            self.first = None;
            let Some(wanted) = self.answered(responses, reply) else { return Next::End };
            return self.again(wanted, reply, Vec::new());
        }
        let now_ms = reply.now.unix_ms();
        let mut kept = Ok(());
        for (_, keys, records) in &mut self.lent {
            for ((db, key), record) in keys.iter().zip(records) {
                let store = &mut reply.shard.store;
                let hash = store.hash(key);
                // Without room nothing runs, and what was not put in goes back as it is.
                if kept.is_ok()
                    && let Some(record) = record.take()
                {
                    kept = record.store(store, *db, hash, key, now_ms);
                }
            }
        }
        reply.shard.keep_changes();
        reply.shard.log_capture();
        let wanted = match kept {
            Ok(()) => self.execute(ticket, reply),
            Err(full) => {
                reply.fault(&full.into());
                None
            }
        };
        let mut changes = reply.shard.take_changes();
        if wanted.is_some() {
            // Nothing of the run is left.
            changes = Changes::default();
        }
        let before = reply.shard.show_due_keys(Applies::NOW);
        for (_, keys, records) in &mut self.lent {
            for ((db, key), record) in keys.iter().zip(records) {
                if record.is_none() {
                    let hash = reply.shard.store.hash(key);
                    *record = reply.shard.record(*db, hash, key, true, now_ms);
                }
            }
        }
        reply.shard.hide_due_keys(before);
        self.parts = reply.shard.log_split(ticket, reply.now);
        // Now that what was lent is not here any more.
        reply.shard.serve_ready(reply.now);
        let back = self.back(ticket, &changes);
        match wanted {
            None => Next::Return(back),
            Some(wanted) => self.again(wanted, reply, back),
        }
    }

    /// Takes the answer of the shard that tried: its reply, or the keys it would have needed.
    fn answered(&self, responses: Vec<Response>, reply: &mut Reply<'_>) -> Option<Vec<Key>> {
        match responses.into_iter().next() {
            Some(Response::Batch(mut batch)) if !batch.wanted.is_empty() => {
                Some(std::mem::take(&mut batch.wanted))
            }
            Some(Response::Batch(batch)) => {
                reply.out.append(&batch.out);
                None
            }
            Some(Response::Error(text)) => {
                reply.fault(&Fault::owned(text));
                None
            }
            _ => None,
        }
    }

    /// Another round with more keys, unless there were too many.
    fn again(
        &mut self,
        wanted: Vec<Key>,
        reply: &mut Reply<'_>,
        back: Vec<(u16, Request)>,
    ) -> Next {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX || self.keys.len() + wanted.len() > KEYS_MAX {
            reply.fault(&Fault::text(
                "ERR script used too many keys of other shards that it did not declare: declare all keys in KEYS",
            ));
            return Next::Return(back);
        }
        for key in wanted {
            self.add(reply.shard.topology.owner_of(&key.1), key);
        }
        Next::Again(back)
    }

    fn execute(&self, ticket: u64, reply: &mut Reply<'_>) -> Option<Vec<Key>> {
        let mut group = reply.shard.group.take().unwrap_or_default();
        let input = Input::owned(&self.frame);
        let limits = Limits { max_bulk_bytes: usize::MAX >> 1, ..Limits::DEFAULT };
        let args = group.first_mut();
        let mut wanted = None;
        // It was parsed once already.
        if let Parsed::Command { .. } =
            parse_command(&self.frame, args, &limits, &mut ParseState::new())
        {
            let mut conn = Conn::remote(self.db, reply.conn.version, reply.conn.no_touch);
            conn.mode = Mode::Lent;
            conn.applies = reply.conn.applies;
            let call = dispatch::Call {
                args,
                frame: &self.frame,
                input: &input,
                id: Some(self.id),
                hash: None,
            };
            let keys = self.keys.iter().map(|(_, key)| key.clone()).collect();
            reply.shard.scripts.loan = Loan { ticket, keys };
            let outcome =
                dispatch::execute(call, self.id, reply.out, reply.shard, &mut conn, reply.now);
            reply.shard.scripts.loan = Loan::default();
            if let Outcome::Wait(waiting) = outcome
                && let Waiting::Widen(keys) = *waiting
            {
                wanted = Some(keys);
            }
        }
        reply.shard.group = Some(group);
        wanted
    }

    /// What was lent, on its way back, with the release of each lender's locks.
    fn back(&mut self, ticket: u64, changes: &Changes) -> Vec<(u16, Request)> {
        let mut parts = std::mem::take(&mut self.parts);
        let back = |(shard, keys, records): (u16, Vec<Key>, Vec<Option<Record>>)| {
            let at = parts.iter().position(|(owner, _)| *owner == shard);
            let log = at.map(|at| Box::new(parts.swap_remove(at).1));
            let keys = keys.into_iter().zip(records);
            let keys = keys.map(|((db, key), record)| (db, key, record)).collect();
            (shard, Request::Return { ticket, keys, changes: changes.clone(), log })
        };
        std::mem::take(&mut self.lent).into_iter().map(back).collect()
    }
}
