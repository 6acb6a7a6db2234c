//! EVAL, EVALSHA, their read-only forms, and SCRIPT.
//!
//! Invariant: a script that compiles is known to all shards from its first run on, as Redis knows it.
//! Next: `engine.rs`.

use std::sync::Arc;

use wire::resp::reply;

use super::{
    call::flags,
    engine::{Engine, What},
    library::Sha,
    running::Unkilled,
    sha1, shebang,
};
use crate::{
    command::{Cx, Fault, Outcome, Waiting},
    elsewhere::Want,
    multi::{Multi, Plan, Widen},
};

type Result<T = Outcome> = std::result::Result<T, Fault>;

const NO_SCRIPT: Fault = Fault::text("NOSCRIPT No matching script. Please use EVAL.");

pub(crate) fn eval(cx: &mut Cx<'_>) -> Result {
    run(cx, false, false)
}

pub(crate) fn eval_ro(cx: &mut Cx<'_>) -> Result {
    run(cx, false, true)
}

pub(crate) fn evalsha(cx: &mut Cx<'_>) -> Result {
    run(cx, true, false)
}

pub(crate) fn evalsha_ro(cx: &mut Cx<'_>) -> Result {
    run(cx, true, true)
}

/// How many of the arguments from the third on are keys.
pub(super) fn key_count(cx: &Cx<'_>, bad: Fault) -> Result<usize> {
    let count = wire::resp::parse_i64(cx.arg(2)).ok_or(bad)?;
    let Ok(count) = usize::try_from(count) else {
        return Err(Fault::text("ERR Number of keys can't be negative"));
    };
    if count > cx.argc().saturating_sub(3) {
        return Err(Fault::text("ERR Number of keys can't be greater than number of args"));
    }
    Ok(count)
}

fn run(cx: &mut Cx<'_>, by_sha: bool, read_only: bool) -> Result {
    if by_sha && cx.arg(1).len() != 40 {
        return Err(NO_SCRIPT);
    }
    let keys = key_count(cx, Fault::NOT_INTEGER)?;
    let mut engine = super::take(cx.shard).map_err(|text| Fault::owned(format!("ERR {text}")))?;
    let result = run_in(cx, &mut engine, keys, by_sha, read_only);
    super::keep(cx.shard, engine);
    result
}

fn run_in(
    cx: &mut Cx<'_>,
    engine: &mut Engine,
    keys: usize,
    by_sha: bool,
    read_only: bool,
) -> Result {
    let place = compiled(cx, engine, by_sha)?;
    let Some(script) = engine.script(place) else { return Err(NO_SCRIPT) };
    let (all, sha) = (script.flags, script.sha);
    may_run(cx, all, read_only)?;
    let name = std::str::from_utf8(&sha).unwrap_or_default();
    let loan = std::mem::take(&mut cx.shard.scripts.loan);
    let wanted = engine.run(cx, What::Script(place), name, keys, read_only, loan);
    Ok(ended(cx, wanted))
}

/// Whether something with these flags may run now.
pub(super) fn may_run(cx: &mut Cx<'_>, all: u8, read_only: bool) -> Result<()> {
    if all & flags::COMPAT != 0 {
        return Ok(());
    }
    let writes = all & flags::NO_WRITES == 0;
    if !cx.conn.applies.is_on() {
        if cx.shard.role.is_stale() && all & flags::ALLOW_STALE == 0 {
            return Err(crate::repl::STALE);
        }
        if writes && cx.shard.role.refuses_writes() {
            let text = "READONLY You can not run script with write flag on readonly replica.";
            return Err(Fault::text(text));
        }
    }
    if writes && all & flags::ALLOW_OOM == 0 && !cx.shard.make_room(cx.now) {
        return Err(Fault::OOM);
    }
    if all & flags::NO_CLUSTER != 0 && cx.is_cluster_node() {
        return Err(Fault::text("ERR Can not run script on cluster, 'no-cluster' flag is set."));
    }
    if writes && read_only {
        let text = "ERR Can not execute a script with write flag using *_ro command.";
        return Err(Fault::text(text));
    }
    Ok(())
}

/// What follows a run: another one, when it wanted something.
pub(super) fn ended(cx: &mut Cx<'_>, wanted: Option<Vec<Want>>) -> Outcome {
    let Some(wanted) = wanted else { return Outcome::Done };
    if cx.conn.is_remote() {
        return Outcome::Wait(Box::new(Waiting::Widen(wanted)));
    }
    let plan = Plan::Widen(Box::new(Widen::of(cx, wanted)));
    Outcome::Wait(Box::new(Waiting::Multi(Multi::new(plan, cx.shard))))
}

/// The place of the script that the command names, compiled when it was not yet.
fn compiled(cx: &Cx<'_>, engine: &mut Engine, by_sha: bool) -> Result<usize> {
    refresh(cx, engine)?;
    let argument = cx.arg(1);
    if !by_sha && let Some(place) = engine.by_body(argument) {
        return Ok(place);
    }
    let mut sha: Sha = [0; 40];
    if by_sha {
        sha.copy_from_slice(&argument.to_ascii_lowercase());
    } else {
        sha = sha1::hex(argument);
    }
    if let Some(place) = engine.by_sha(&sha) {
        return Ok(place);
    }
    let library = cx.shard.scripts.library();
    let known = library.script(&sha);
    if by_sha && known.is_none() {
        return Err(NO_SCRIPT);
    }
    let is_new = known.is_none();
    let body: Arc<[u8]> = known.unwrap_or_else(|| argument.into());
    let place = engine.compile(sha, &body).map_err(Fault::owned)?;
    if is_new {
        library.add_script(sha, &body, false);
    }
    Ok(place)
}

/// Forgets what was compiled before a SCRIPT FLUSH.
fn refresh(cx: &Cx<'_>, engine: &mut Engine) -> Result<()> {
    let flushes = cx.shard.scripts.library().flushes();
    if engine.flushes != flushes {
        engine.flushes = flushes;
        engine.forget_scripts().map_err(|error| Fault::owned(format!("ERR {error}")))?;
    }
    Ok(())
}

pub(crate) fn script_load(cx: &mut Cx<'_>) -> Result {
    let mut engine = super::take(cx.shard).map_err(|text| Fault::owned(format!("ERR {text}")))?;
    let loaded = load_in(cx, &mut engine);
    super::keep(cx.shard, engine);
    cx.bulk(&loaded?)
}

fn load_in(cx: &Cx<'_>, engine: &mut Engine) -> Result<Sha> {
    refresh(cx, engine)?;
    let body: Arc<[u8]> = cx.arg(2).into();
    let sha = sha1::hex(&body);
    if engine.by_sha(&sha).is_none() {
        shebang::script(&body).map_err(Fault::owned)?;
        engine.compile(sha, &body).map_err(Fault::owned)?;
    }
    if !cx.shard.scripts.library().add_script(sha, &body, true) {
        return Err(Fault::text("ERR the script cache is full: SCRIPT FLUSH empties it"));
    }
    Ok(sha)
}

pub(crate) fn script_exists(cx: &mut Cx<'_>) -> Result {
    let count = cx.argc() - 2;
    reply::array(cx.out.inline_mut(), count);
    for at in 2..cx.argc() {
        let sha = Sha::try_from(cx.arg(at).to_ascii_lowercase());
        let known = sha.is_ok_and(|sha| cx.shard.scripts.library().script(&sha).is_some());
        reply::integer(cx.out.inline_mut(), i64::from(known));
    }
    Ok(Outcome::Done)
}

pub(crate) fn script_flush(cx: &mut Cx<'_>) -> Result {
    match cx.argc() {
        2 => {}
        3 if cx.is(2, "SYNC") || cx.is(2, "ASYNC") => {}
        _ => return Err(Fault::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    cx.shard.scripts.library().flush_scripts();
    cx.ok()
}

/// SCRIPT KILL and FUNCTION KILL.
pub(super) fn kill(cx: &mut Cx<'_>, function: bool) -> Result {
    match cx.shard.scripts.library().board().kill(function) {
        Ok(()) => cx.ok(),
        Err(Unkilled::NotBusy) => Err(Fault::text("NOTBUSY No scripts in execution right now.")),
        Err(Unkilled::Wrote) => Err(Fault::text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        )),
        Err(Unkilled::Other) => Err(Fault::owned(super::busy_text(!function))),
    }
}

pub(crate) fn script_kill(cx: &mut Cx<'_>) -> Result {
    kill(cx, false)
}

/// There is no debugger: turning it off is all that can be done with it.
pub(crate) fn script_debug(cx: &mut Cx<'_>) -> Result {
    if cx.is(2, "NO") {
        return cx.ok();
    }
    if cx.is(2, "YES") || cx.is(2, "SYNC") {
        return Err(Fault::text("ERR SCRIPT DEBUG is not supported"));
    }
    Err(Fault::text("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

pub(crate) fn script_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "SCRIPT",
        &[
            "DEBUG (YES|SYNC|NO)",
            "    Set the debug mode for subsequent scripts executed.",
            "EXISTS <sha1> [<sha1> ...]",
            "    Return information about the existence of the scripts in the script cache.",
            "FLUSH [ASYNC|SYNC]",
            "    Flush the Lua scripts cache. Very dangerous on replicas.",
            "    When called without the optional mode argument, the behavior is determined by the",
            "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the scripts cache.",
            "    * SYNC: Synchronously flush the scripts cache.",
            "KILL",
            "    Kill the currently executing Lua script.",
            "LOAD <script>",
            "    Load a script into the scripts cache without executing it.",
        ],
    )
}
