//! Consumer groups: XGROUP and XACK.

use logic::object::{Object, Stream, stream::StreamId};

use crate::events::{ASIDE, STREAM};

use super::{
    Cx, Fault, Result, STEP, bad_subcommand, error, has_consumer, has_group, id_arg,
    no_group_of_key, peek,
};

/// Options of XGROUP CREATE and SETID, from argument 5 on.
#[derive(Default)]
struct Options {
    mkstream: bool,
    entries_read: Option<i64>,
}

fn options(cx: &Cx<'_>, create: bool) -> Result<Options> {
    let mut options = Options::default();
    let mut at = 5;
    while at < cx.argc() {
        if create && cx.is(at, "MKSTREAM") {
            options.mkstream = true;
            at += 1;
        } else if cx.is(at, "ENTRIESREAD") && at + 1 < cx.argc() {
            let read = cx.integer(at + 1)?;
            if read < -1 {
                return Err(error("value for ENTRIESREAD must be positive or -1"));
            }
            options.entries_read = Some(read).filter(|read| *read >= 0);
            at += 2;
        } else {
            return Err(bad_subcommand(cx, "XGROUP"));
        }
    }
    Ok(options)
}

/// Refuses a missing key and, if `group` says so, a missing group.
fn check(cx: &mut Cx<'_>, group: bool) -> Result<()> {
    if peek(cx, 2, |_| ())?.is_none() {
        return Err(error(
            "The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
             option to create an empty stream automatically.",
        ));
    }
    if group && !has_group(cx, 2, 3)? {
        return Err(no_group_of_key(cx, 2, 3));
    }
    Ok(())
}

/// Argument 4: an id, which SETID, and it alone, also takes as `-` or `+`; `None` for `$`.
fn position(cx: &Cx<'_>, create: bool) -> Result<Option<StreamId>> {
    match cx.arg(4) {
        b"$" => Ok(None),
        b"-" if !create => Ok(Some(StreamId::MIN)),
        b"+" if !create => Ok(Some(StreamId::MAX)),
        _ => id_arg(cx, 4).map(Some),
    }
}

pub(in crate::command) fn xgroup_create(cx: &mut Cx<'_>) -> Result {
    let options = options(cx, true)?;
    if options.mkstream {
        cx.holds::<Box<Stream>>(2)?;
    } else {
        check(cx, false)?;
    }
    if cx.argc() > 8 {
        return Err(bad_subcommand(cx, "XGROUP"));
    }
    let (at, name) = (position(cx, true)?, cx.arg(3));
    let is_new = !cx.holds::<Box<Stream>>(2)?;
    let made = cx.change_or_make(2, |stream: &mut Box<Stream>, _, _| {
        let at = at.unwrap_or(stream.last_id());
        stream.create_group(name, at, options.entries_read)
    })?;
    if !made {
        return Err(Fault::text("BUSYGROUP Consumer Group name already exists"));
    }
    cx.event(if is_new { STREAM } else { STREAM | ASIDE }, "xgroup-create", 2);
    cx.ok()
}

pub(in crate::command) fn xgroup_setid(cx: &mut Cx<'_>) -> Result {
    let options = options(cx, false)?;
    check(cx, true)?;
    if cx.argc() != 5 && cx.argc() != 7 {
        return Err(bad_subcommand(cx, "XGROUP"));
    }
    let (at, name) = (position(cx, false)?, cx.arg(3));
    cx.change(2, |stream: &mut Box<Stream>, _, _| {
        let at = at.unwrap_or(stream.last_id());
        stream.set_group_id(name, at, options.entries_read)
    })?;
    cx.event(STREAM | ASIDE, "xgroup-setid", 2);
    cx.ok()
}

pub(in crate::command) fn xgroup_destroy(cx: &mut Cx<'_>) -> Result {
    check(cx, false)?;
    let name = cx.arg(3);
    let destroyed = cx.change(2, |stream: &mut Box<Stream>, _, _| {
        (stream.destroy_group(name), stream.take_garbage())
    })?;
    let Some((destroyed, garbage)) = destroyed else { return cx.int(0) };
    if let Some(garbage) = garbage {
        // Large groups are taken apart in steps.
        cx.shard.store.discard_object(Object::from(Box::new(garbage)));
    }
    if destroyed {
        cx.event(STREAM | ASIDE, "xgroup-destroy", 2);
    }
    cx.int(destroyed.into())
}

pub(in crate::command) fn xgroup_createconsumer(cx: &mut Cx<'_>) -> Result {
    check(cx, true)?;
    let (group, name) = (cx.arg(3), cx.arg(4));
    let made = cx.change(2, |stream: &mut Box<Stream>, with, _| {
        stream.create_consumer(group, name, with.now_ms)
    })?;
    let made = made.is_some_and(|made| made == Ok(true));
    if made {
        cx.event(STREAM | ASIDE, "xgroup-createconsumer", 2);
    }
    cx.int(made.into())
}

pub(in crate::command) fn xgroup_delconsumer(cx: &mut Cx<'_>) -> Result {
    check(cx, true)?;
    let (group, name) = (cx.arg(3), cx.arg(4));
    let had = has_consumer(cx, 2, group, name);
    let removed = cx.change(2, |stream: &mut Box<Stream>, _, _| {
        let mut removed = 0;
        while let Ok(step) = stream.delete_consumer(group, name, STEP) {
            removed += step.removed;
            if step.done {
                break;
            }
        }
        removed
    })?;
    if had {
        cx.event(STREAM | ASIDE, "xgroup-delconsumer", 2);
    }
    cx.count(removed.unwrap_or(0))
}

pub(in crate::command) fn xgroup_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "XGROUP",
        &[
            "CREATE <key> <groupname> <id|$> [option]",
            "    Create a new consumer group. Options are:",
            "    * MKSTREAM",
            "      Create the empty stream if it does not exist.",
            "    * ENTRIESREAD entries_read",
            "      Set the group's entries_read counter (internal use).",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Create a new consumer in the specified group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove the specified consumer.",
            "DESTROY <key> <groupname>",
            "    Remove the specified group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
            "    Set the current group ID and entries_read counter.",
        ],
    )
}

pub(in crate::command) fn xack(cx: &mut Cx<'_>) -> Result {
    if !has_group(cx, 1, 2)? {
        return cx.int(0);
    }
    for at in 3..cx.argc() {
        id_arg(cx, at)?;
    }
    let (words, argc, group) = (cx.words(), cx.argc(), cx.arg(2));
    let gone = cx.change(1, |stream: &mut Box<Stream>, _, _| {
        let ids = (3..argc).filter_map(|at| StreamId::parse(words.get(at)).ok());
        ids.filter(|id| stream.acknowledge(group, *id) == Ok(true)).count() as u64
    })?;
    if gone.is_some_and(|gone| gone > 0) {
        cx.aside(1);
    }
    cx.count(gone.unwrap_or(0))
}
