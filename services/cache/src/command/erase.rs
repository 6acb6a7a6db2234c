//! SCANDEL and DELPREFIX: deletion of many keys in the background.
//!
//! The reply is the number of a job; INFO tells how far it is. Next: `crate::erase` for the steps.

use super::{Cx, Fault, Outcome};
use crate::{
    erase::{Erase, Which},
    multi::Plan,
};

type Result = std::result::Result<Outcome, Fault>;

/// What a shard with too many jobs answers.
pub(crate) const TOO_MANY: &[u8] = b"ERR too many deletions are under way, try again later";

fn start(cx: &mut Cx<'_>, which: Which) -> Result {
    let erase = Erase { id: cx.shard.ticket(), db: cx.conn.db, which };
    cx.gather_node(Plan::Erase(erase))
}

/// SCANDEL pattern.
pub(super) fn scandel(cx: &mut Cx<'_>) -> Result {
    start(cx, Which::Pattern(cx.arg(1).into()))
}

/// DELPREFIX prefix.
pub(super) fn delprefix(cx: &mut Cx<'_>) -> Result {
    if cx.arg(1).is_empty() {
        return Err(Fault::text("ERR the prefix is empty, use FLUSHDB to delete all keys"));
    }
    start(cx, Which::Prefix(cx.arg(1).into()))
}
