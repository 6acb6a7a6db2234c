//! SCAN over several shards: one shard after the other, and questions of scripts about all keys.
//!
//! A call goes on with the next shard when one has come to its end and there is work left of what `COUNT` allows, so that a
//! call with a large `COUNT` shows all keys, as with one shard. The client's cursor is the shard's own, times the number of
//! shards, plus the shard. Invariant: a call takes at most one step on each shard, and `COUNT` bounds each of them.
//! Next: `elsewhere.rs` for what scripts know of other shards.

use view::{Instant, Output};
use wire::resp::reply;

use super::{Multi, Plan, Reply};
use crate::{
    command::{Conn, keyspace},
    elsewhere::Survey,
    shard::Shard,
    work::{Response, Scan},
};

/// A call of SCAN on its way.
#[derive(Clone, Debug)]
pub(crate) struct Scanning {
    /// Which shard it is at, of those it goes to.
    pub(super) target: u16,
    pub(super) scan: Scan,
    found: Vec<Box<[u8]>>,
}

impl Scanning {
    /// From a client's cursor on, over so many shards; what `scan` says of one is replaced.
    pub(crate) fn new(cursor: u64, shards: u16, scan: Scan) -> Self {
        let shards = u64::from(shards.max(1));
        let target = u16::try_from(cursor % shards).unwrap_or(0);
        Self { target, scan: Scan { cursor: cursor / shards, ..scan }, found: Vec::new() }
    }

    /// Takes a shard's answer; whether the next one is to be asked at once. If not, the answer is left.
    pub(super) fn goes_on(&mut self, responses: &mut [Response], shards: usize) -> bool {
        let [Response::Keys { cursor: 0, keys }] = responses else { return false };
        let is_last = usize::from(self.target) + 1 >= shards;
        let left = self.scan.count.saturating_sub(keys.len());
        if is_last || left == 0 {
            return false;
        }
        self.found.append(keys);
        self.target += 1;
        (self.scan.cursor, self.scan.count) = (0, left);
        true
    }

    pub(super) fn reply(&self, out: &mut Output, shards: usize, responses: Vec<Response>) {
        let Some(Response::Keys { cursor, keys }) = responses.into_iter().next() else { return };
        let shards = u64::try_from(shards).unwrap_or(u64::MAX);
        let target = u64::from(self.target);
        let next = match cursor {
            0 if target + 1 < shards => target + 1,
            0 => 0,
            cursor => cursor.saturating_mul(shards).saturating_add(target),
        };
        let inline = out.inline_mut();
        reply::array(inline, 2);
        reply::bulk(inline, next.to_string().as_bytes());
        let all = self.found.iter().cloned().chain(keys).collect();
        keyspace::reply_keys(out, all);
    }
}

impl Multi {
    /// Replies to a script with what is known of other shards; `Some(false)`: something of them is wanted first; `None`:
    /// this is nothing that scripts can do.
    pub(crate) fn in_script(
        mut self,
        out: &mut Output,
        shard: &mut Shard,
        conn: &Conn,
        now: Instant,
    ) -> Option<bool> {
        let shards = self.shards.clone();
        let survey = match &mut self.plan {
            Plan::Len(db) => Survey::Len(*db),
            Plan::Keys(db, pattern) => Survey::Keys(*db, pattern.clone()),
            Plan::Random(db) => Survey::Random(*db),
            Plan::Scan(scanning) => loop {
                let at = shards.start + scanning.target;
                let mut scan = scanning.scan.clone();
                if at != shard.index {
                    // A question to another shard costs a run of the script.
                    scan.count = keyspace::SCAN_COUNT_MAX;
                }
                let Some(response) = known(at, &Survey::Scan(scan), shard, now) else {
                    return Some(false);
                };
                let mut responses = vec![response];
                if !scanning.goes_on(&mut responses, shards.len()) {
                    scanning.reply(out, shards.len(), responses);
                    return Some(true);
                }
            },
            Plan::Flush(_) if !shard.elsewhere.holds_all => {
                shard.elsewhere.want_all();
                return Some(false);
            }
            Plan::Flush(db) => {
                shard.flush_everywhere(*db, now);
                reply::ok(out.inline_mut());
                return Some(true);
            }
            _ => return None,
        };
        let answers: Vec<_> = shards.clone().map(|at| known(at, &survey, shard, now)).collect();
        let Some(responses) = answers.into_iter().collect() else { return Some(false) };
        let mut reply = Reply { out, shard, conn, now };
        self.plan.reply(responses, &mut reply, &shards);
        Some(true)
    }
}

/// What is known of a shard: of this one, everything.
fn known(at: u16, survey: &Survey, shard: &mut Shard, now: Instant) -> Option<Response> {
    if at == shard.index {
        return Some(shard.run_op(survey.op(), now));
    }
    shard.elsewhere.survey(at, survey.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanning(count: usize) -> Scanning {
        let scan = Scan { db: 0, cursor: 0, count, pattern: None, kind: None };
        Scanning::new(0, 3, scan)
    }

    fn answer(cursor: u64, keys: usize) -> Vec<Response> {
        let keys = (0..keys).map(|key| key.to_string().into_bytes().into()).collect();
        vec![Response::Keys { cursor, keys }]
    }

    #[test]
    fn a_call_goes_on_while_there_is_work_left() {
        let mut call = scanning(10);
        assert!(call.goes_on(&mut answer(0, 4), 3));
        assert_eq!((call.target, call.scan.count), (1, 6));
        assert!(!call.goes_on(&mut answer(0, 6), 3), "all that COUNT allows");
        assert!(!call.goes_on(&mut answer(7, 2), 3), "the shard has more");
        assert!(call.goes_on(&mut answer(0, 0), 3));
        assert!(!call.goes_on(&mut answer(0, 0), 3), "there is no other shard");
        let mut out = Output::default();
        call.reply(&mut out, 3, answer(0, 1));
        assert!(out.to_vec().starts_with(b"*2\r\n$1\r\n0\r\n*5\r\n"));
    }
}
