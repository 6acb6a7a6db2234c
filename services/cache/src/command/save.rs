//! SAVE, BGSAVE, LASTSAVE.
//!
//! Next: `crate::save` writes the file, on the first shard.

use super::{Cx, Fault, Outcome, Waiting};
use crate::work::Job;

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn save(_: &mut Cx<'_>) -> Result {
    Ok(Outcome::Wait(Box::new(Waiting::Job(Job::Save))))
}

/// SCHEDULE is for when a log is being rewritten, which never happens here.
pub(super) fn bgsave(cx: &mut Cx<'_>) -> Result {
    match cx.argc() {
        1 => {}
        2 if cx.is(1, "SCHEDULE") => {}
        _ => return Err(Fault::SYNTAX),
    }
    Ok(Outcome::Wait(Box::new(Waiting::Job(Job::Background))))
}

pub(super) fn lastsave(cx: &mut Cx<'_>) -> Result {
    let last_s = cx.shard.saves.last_s();
    cx.count(last_s)
}
