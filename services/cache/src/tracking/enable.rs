//! CLIENT TRACKING: what a client asks for, whether it may, and telling the other shards.
//!
//! With a redirection all shards are asked for the client; then those that do not know yet are told that somebody
//! tracks here; then the client has its reply. Next: `command/client_tracking.rs` for the words.

use super::{Target, Tracker, Tracking};
use crate::{
    command::{Conn, Fault, dispatch::c_string},
    shard::Shard,
    work::{Op, Response},
};

/// What the client asks for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) redirect: Option<u64>,
    pub(crate) bcast: bool,
    pub(crate) optin: bool,
    pub(crate) optout: bool,
    pub(crate) noloop: bool,
    pub(crate) prefixes: Vec<Box<[u8]>>,
}

/// CLIENT TRACKING ON on its way.
#[derive(Debug)]
pub(crate) struct Track(Wanted);

/// What follows a step of it.
pub(crate) enum Follows {
    /// Ask all shards.
    AskAll(Op),
    /// Ask all shards but this one.
    AskOthers(Op),
    /// Done.
    Done(Result<(), Fault>),
}

impl Track {
    pub(crate) const fn new(wanted: Wanted) -> Self {
        Self(wanted)
    }

    /// The next step, with the responses to the last one.
    pub(crate) fn step(
        &mut self,
        round: u8,
        responses: &[Response],
        shard: &mut Shard,
        conn: &Conn,
    ) -> Follows {
        let found = match (self.0.redirect, round) {
            (Some(id), 0) => return Follows::AskAll(Op::FindClient(id)),
            (None, 0) => None,
            (Some(id), 1) => match find(id, responses) {
                Some(target) => Some(target),
                None => {
                    return Follows::Done(Err(Fault::text(
                        "ERR The client ID you want redirect to does not exist",
                    )));
                }
            },
            _ => return Follows::Done(Ok(())),
        };
        if let Err(fault) = check(&shard.tracking, conn.id, &self.0) {
            return Follows::Done(Err(fault));
        }
        shard.enable_tracking(conn, std::mem::take(&mut self.0), found);
        if shard.count > 1 {
            return Follows::AskOthers(Op::Tracks { shard: shard.index, on: true });
        }
        Follows::Done(Ok(()))
    }
}

/// Where the client is: each shard has answered with its place there, plus one.
fn find(id: u64, responses: &[Response]) -> Option<Target> {
    (0..).zip(responses).find_map(|(shard, response)| match response {
        Response::Count(place) if *place > 0 => {
            Some(Target { shard, slot: u32::try_from(place - 1).ok()?, id })
        }
        _ => None,
    })
}

/// What stands against it, in Redis' order.
fn check(tracking: &Tracking, id: u64, wanted: &Wanted) -> Result<(), Fault> {
    let now = tracking.get(id);
    if !wanted.bcast && !wanted.prefixes.is_empty() {
        return Err(Fault::text("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    if now.is_some_and(|now| now.bcast != wanted.bcast) {
        return Err(Fault::text(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling \
             it with a different mode.",
        ));
    }
    if wanted.bcast && (wanted.optin || wanted.optout) {
        return Err(Fault::text("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if wanted.optin && wanted.optout {
        return Err(Fault::text("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if now.is_some_and(|now| (wanted.optin && now.optout) || (wanted.optout && now.optin)) {
        return Err(Fault::text(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling \
             it with a different mode.",
        ));
    }
    for (at, prefix) in wanted.prefixes.iter().enumerate() {
        for known in now.iter().flat_map(|now| &now.prefixes) {
            if overlap(prefix, known) {
                return Err(collision(prefix, "an existing prefix", known));
            }
        }
        for other in wanted.prefixes.iter().skip(at + 1) {
            if overlap(prefix, other) {
                return Err(collision(prefix, "another provided prefix", other));
            }
        }
    }
    Ok(())
}

fn overlap(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn collision(prefix: &[u8], with: &str, other: &[u8]) -> Fault {
    let text = |bytes| String::from_utf8_lossy(c_string(bytes, usize::MAX)).into_owned();
    Fault::owned(format!(
        "ERR Prefix '{}' overlaps with {with} '{}'. Prefixes for a single client must not overlap.",
        text(prefix),
        text(other)
    ))
}

impl Shard {
    fn enable_tracking(&mut self, conn: &Conn, wanted: Wanted, redirect: Option<Target>) {
        let Wanted { bcast, optin, optout, noloop, prefixes, .. } = wanted;
        let tracking = &mut self.tracking;
        let tracker = tracking.clients.entry(conn.id).or_default();
        let (caching, known) = (tracker.caching, std::mem::take(&mut tracker.prefixes));
        let slot = conn.slot;
        **tracker = Tracker {
            slot,
            redirect,
            broken: false,
            bcast,
            optin,
            optout,
            noloop,
            caching,
            prefixes: known,
        };
        if bcast {
            // Without a prefix, all keys.
            let all = prefixes.is_empty().then(Box::default);
            for name in prefixes.into_iter().chain(all) {
                tracking.prefixes.entry(name.clone()).or_default().clients.insert(conn.id);
                tracker.prefixes.insert(name);
            }
        }
        if let Some(record) = self.clients.get_mut(conn.slot) {
            let redirect = redirect.map_or(0, |target| i64::try_from(target.id).unwrap_or(0));
            record.tracking.on = true;
            record.tracking.broken = false;
            record.tracking.bcast = bcast;
            record.tracking.redirect = redirect;
        }
        self.watch();
    }

    /// Ends a client's tracking.
    pub(crate) fn disable_tracking(&mut self, id: u64, slot: u32) {
        if !self.tracking.remove(id) {
            return;
        }
        if let Some(record) = self.clients.get_mut(slot) {
            record.tracking = Default::default();
        }
        if self.tracking.clients.is_empty() {
            let here = self.index;
            for target in (0..self.count).filter(|target| *target != here) {
                let op = Op::Tracks { shard: here, on: false };
                self.post(target, crate::work::Request::Op { ticket: 0, op, unlock: false });
            }
        }
        self.watch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_overlap_when_one_begins_with_the_other() {
        assert!(overlap(b"a", b"ab") && overlap(b"ab", b"a") && overlap(b"", b"x"));
        assert!(!overlap(b"ab", b"ac"));
    }
}
