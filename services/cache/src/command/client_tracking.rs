//! CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO.
//!
//! Next: `crate::tracking` for what they switch on.

use wire::resp::{Version, reply};

use super::{Conn, Cx, Fault, Outcome};
use crate::{
    multi::Plan,
    shard::Shard,
    tracking::{Track, Wanted},
};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn tracking(cx: &mut Cx<'_>) -> Result {
    let mut wanted = Wanted::default();
    let mut at = 3;
    while at < cx.argc() {
        let more = at + 1 < cx.argc();
        if more && cx.is(at, "REDIRECT") {
            at += 1;
            if wanted.redirect.is_some_and(|id| id != 0) {
                return Err(Fault::text("ERR A client can only redirect to a single other client"));
            }
            // No client has a negative id.
            wanted.redirect = Some(u64::try_from(cx.integer(at)?).unwrap_or(u64::MAX));
        } else if cx.is(at, "BCAST") {
            wanted.bcast = true;
        } else if cx.is(at, "OPTIN") {
            wanted.optin = true;
        } else if cx.is(at, "OPTOUT") {
            wanted.optout = true;
        } else if cx.is(at, "NOLOOP") {
            wanted.noloop = true;
        } else if more && cx.is(at, "PREFIX") {
            at += 1;
            wanted.prefixes.push(cx.arg(at).into());
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    if cx.is(2, "ON") {
        // Before it is on: nothing is remembered until then.
        cx.conn.tracks = true;
        cx.conn.settle();
        return cx.gather(Plan::Track(Box::new(Track::new(wanted))));
    }
    if !cx.is(2, "OFF") {
        return Err(Fault::SYNTAX);
    }
    stop(cx.shard, cx.conn);
    cx.ok()
}

/// Ends the connection's tracking.
pub(super) fn stop(shard: &mut Shard, conn: &mut Conn) {
    shard.disable_tracking(conn.id, conn.slot);
    conn.tracks = false;
    conn.settle();
}

pub(super) fn caching(cx: &mut Cx<'_>) -> Result {
    let (yes, no) = (cx.is(2, "YES"), cx.is(2, "NO"));
    let Some(tracker) = cx.shard.tracking.get_mut(cx.conn.id) else {
        return Err(Fault::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled",
        ));
    };
    if yes && !tracker.optin {
        return Err(Fault::text(
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ));
    }
    if no && !tracker.optout {
        return Err(Fault::text(
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ));
    }
    if !yes && !no {
        return Err(Fault::SYNTAX);
    }
    tracker.caching = true;
    cx.ok()
}

/// The client that gets this one's invalidations: 0 for itself, -1 when it does not track.
fn redirect(cx: &Cx<'_>) -> i64 {
    let tracker = cx.shard.tracking.get(cx.conn.id);
    tracker.map_or(-1, |tracker| {
        tracker.redirect.map_or(0, |target| i64::try_from(target.id).unwrap_or(i64::MAX))
    })
}

pub(super) fn getredir(cx: &mut Cx<'_>) -> Result {
    let id = redirect(cx);
    cx.int(id)
}

pub(super) fn trackinginfo(cx: &mut Cx<'_>) -> Result {
    let (version, redirect) = (cx.conn.version, redirect(cx));
    let out = cx.out.inline_mut();
    let (mut flags, mut prefixes) = (vec!["off"], Vec::new());
    if let Some(tracker) = cx.shard.tracking.get(cx.conn.id) {
        let caching = tracker.caching;
        let all = [
            (true, "on"),
            (tracker.bcast, "bcast"),
            (tracker.optin, "optin"),
            (tracker.optin && caching, "caching-yes"),
            (tracker.optout, "optout"),
            (tracker.optout && caching, "caching-no"),
            (tracker.noloop, "noloop"),
            (tracker.broken, "broken_redirect"),
        ];
        flags = all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        prefixes = tracker.prefixes.iter().collect();
    }
    reply::map(out, version, 3);
    reply::bulk(out, b"flags");
    match version {
        Version::Resp3 => reply::set(out, version, flags.len()),
        Version::Resp2 => reply::array(out, flags.len()),
    }
    flags.iter().for_each(|flag| reply::bulk(out, flag.as_bytes()));
    reply::bulk(out, b"redirect");
    reply::integer(out, redirect);
    reply::bulk(out, b"prefixes");
    reply::array(out, prefixes.len());
    prefixes.iter().for_each(|prefix| reply::bulk(out, prefix));
    Ok(Outcome::Done)
}
