//! Scripts with keys on several shards, run where the connection is.
//!
//! A script's keys are lent as those of any command are (`bring.rs`), but a script may use keys that its arguments do
//! not name. When it does, nothing of the run is left: what was lent goes back, and it is run again with those keys too.
//! A script whose declared keys are all on one other shard is sent there first, alone; only when it wants keys that are
//! not there either does it come here. What a script wants to know of all keys is asked for with all keys locked
//! (`looks.rs`); of those it is told of, all are lent when it wants to have one.
//!
//! Invariants: as in `bring.rs`; locks are asked for shard by shard in ascending order in every round, and none is held
//! between rounds; rounds are bounded.
//! Next: `script/keys.rs` for the run's side.

use std::collections::BTreeSet;

use bytes::Bytes;
use view::Input;
use wire::resp::{Limits, ParseState, Parsed, parse_command};

use super::{Next, Reply, looks::Looks};
use crate::{
    aof::Part,
    batch::Batch,
    command::{Conn, Cx, Fault, Mode, Outcome, Waiting, dispatch},
    elsewhere::Want,
    observe::Changes,
    repl::Applies,
    script::{Loan, keys::Key},
    shard::Shard,
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
    keys: BTreeSet<(u16, Key)>,
    /// What it has to know beside that.
    looks: Looks,
    rounds: usize,
    lent: Vec<(u16, Vec<Key>, Vec<Option<Record>>)>,
    /// What lenders have to log.
    parts: Vec<(u16, Part)>,
}

impl Widen {
    /// The command of `cx`, with the keys it declares and what it was found to want.
    pub(crate) fn of(cx: &Cx<'_>, wanted: Vec<Want>) -> Self {
        let frame = Bytes::copy_from_slice(cx.frame);
        let mut widen = Self {
            id: cx.id,
            db: cx.conn.db,
            frame,
            first: None,
            asked: false,
            keys: BTreeSet::new(),
            looks: Looks::default(),
            rounds: 0,
            lent: Vec::new(),
            parts: Vec::new(),
        };
        let owner = |key: &[u8]| cx.shard.topology.owner_of(key);
        for at in cx.row.key_indices(cx.argc(), |at| cx.arg(at)) {
            let key = cx.arg(at);
            widen.keys.insert((owner(key), (cx.conn.db, key.into())));
        }
        let alone = widen.keys.first().map(|(shard, _)| *shard);
        let is_alone = widen.keys.iter().all(|(shard, _)| Some(*shard) == alone);
        widen.first =
            alone.filter(|&shard| is_alone && shard != cx.shard.index && wanted.is_empty());
        for key in widen.looks.want(wanted, cx.shard) {
            widen.keys.insert((owner(&key.1), key));
        }
        widen.looks.begin_anew(cx.shard);
        widen
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
        let locks = locks.into_iter().map(|(shard, keys)| (shard, LockKeys::Some(keys)));
        self.looks.locks(locks.collect())
    }

    /// What to hold on a shard beside its keys.
    pub(super) fn hold(&self, shard: u16) -> LockKeys {
        self.looks.hold(shard)
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
            return self.again(ticket, wanted, reply);
        }
        self.looks.take(responses);
        if let Some(ops) = self.looks.next() {
            return Next::Ops(ops);
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
        for key in self.looks.take_adopted() {
            let owner = reply.shard.topology.owner_of(&key.1);
            let lent = self.lent.iter_mut().find(|(shard, ..)| *shard == owner);
            if let Some((_, keys, records)) = lent {
                keys.push(key);
                records.push(None);
            }
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
        match wanted {
            None => Next::Return(self.back(ticket, &changes)),
            Some(wanted) => self.again(ticket, wanted, reply),
        }
    }

    /// Takes the answer of the shard that tried: its reply, or what it would have needed.
    fn answered(&self, responses: Vec<Response>, reply: &mut Reply<'_>) -> Option<Vec<Want>> {
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

    /// Another round with what was wanted, unless that was too much.
    fn again(&mut self, ticket: u64, wanted: Vec<Want>, reply: &mut Reply<'_>) -> Next {
        self.rounds += 1;
        let holds_all = self.looks.all();
        let mut keys = self.looks.want(wanted, reply.shard);
        let surveyed = self.surveyed(&keys, reply.shard);
        let nothing = Changes::default();
        if self.rounds > ROUNDS_MAX || self.keys.len() + keys.len() > KEYS_MAX {
            reply.fault(&Fault::text(
                "ERR script used too many keys of other shards that it did not declare: declare all keys in KEYS",
            ));
            return Next::Return(self.back(ticket, &nothing));
        }
        if holds_all
            && keys.is_empty()
            && let Some(ops) = self.looks.next()
        {
            // Nothing changes meanwhile.
            return Next::Ops(ops);
        }
        keys.extend(surveyed);
        for key in keys {
            self.keys.insert((reply.shard.topology.owner_of(&key.1), key));
        }
        self.looks.begin_anew(reply.shard);
        Next::Again(self.back(ticket, &nothing))
    }

    /// When a key is wanted of which a survey has told, the others that it told of: they will be wanted too.
    fn surveyed(&self, wanted: &[Key], shard: &Shard) -> Vec<Key> {
        let is_wanted = |(db, key): (u16, &[u8])| {
            wanted.iter().any(|(wanted_db, wanted)| *wanted_db == db && **wanted == *key)
        };
        if wanted.is_empty() || !self.looks.surveyed().any(is_wanted) {
            return Vec::new();
        }
        let room = KEYS_MAX.saturating_sub(self.keys.len() + wanted.len());
        let keys =
            self.looks.surveyed().filter(|(_, key)| shard.topology.owner_of(key) != shard.index);
        keys.map(|(db, key)| (db, key.into())).take(room).collect()
    }

    fn execute(&mut self, ticket: u64, reply: &mut Reply<'_>) -> Option<Vec<Want>> {
        self.looks.lay_out(ticket, reply.conn.no_touch, reply.shard);
        let wanted = self.execute_with(ticket, reply);
        self.looks.clear_away(reply.shard);
        wanted
    }

    fn execute_with(&self, ticket: u64, reply: &mut Reply<'_>) -> Option<Vec<Want>> {
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
            conn.act_for(reply.conn);
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
        let flushed = self.looks.take_flushed();
        let back = |(shard, keys, records): (u16, Vec<Key>, Vec<Option<Record>>)| {
            let at = parts.iter().position(|(owner, _)| *owner == shard);
            let log = at.map(|at| Box::new(parts.swap_remove(at).1));
            let keys = keys.into_iter().zip(records);
            let keys = keys.map(|((db, key), record)| (db, key, record)).collect();
            let (changes, flushed) = (changes.clone(), flushed.clone());
            (shard, Request::Return { ticket, keys, changes, flushed, log })
        };
        std::mem::take(&mut self.lent).into_iter().map(back).collect()
    }
}
