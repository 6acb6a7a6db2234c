//! Administrators' commands that are no group of their own: MEMORY, DEBUG, SHUTDOWN, SWAPDB, MOVE, LOLWUT, and
//! CLIENT PAUSE, UNPAUSE and REPLY.
//!
//! Next: [`crate::admin`] for what they ask of all shards.

use wire::resp::{Version, parse_i64, reply};

use super::{Cx, Fault, Outcome, ReplyMode, Waiting, server};
use crate::{
    admin::{self, Ask, Replying},
    events::{GENERIC, NEW},
    stats::Report,
    work::{Job, Response},
};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn memory_stats(cx: &mut Cx<'_>) -> Result {
    cx.ask(Ask::Report, reply_memory_stats)
}

/// What Redis says of a subcommand with too many arguments.
pub(super) fn wrong_count(container: &str, name: &str) -> Fault {
    Fault::owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP."
    ))
}

/// All shards' counters.
fn total(responses: Vec<Response>) -> Report {
    let mut total: Option<Report> = None;
    for response in responses {
        if let Response::Report(part) = response {
            match &mut total {
                None => total = Some(*part),
                Some(total) => total.merge(&part),
            }
        }
    }
    total.unwrap_or_default()
}

fn reply_memory_stats(reply: &mut Replying<'_>, _: &Ask, responses: Vec<Response>) {
    let report = total(responses);
    let version = reply.version;
    let keys: u64 = report.databases.iter().map(|(keys, ..)| *keys).sum();
    let used: Vec<usize> = (0..report.databases.len())
        .filter(|db| report.databases.get(*db).is_some_and(|(keys, ..)| *keys > 0))
        .collect();
    let peak = report.peak_bytes.max(report.used_bytes);
    let share = if peak == 0 { 100.0 } else { report.used_bytes as f64 / peak as f64 * 100.0 };
    let out = reply.out.inline_mut();
    let head = [
        ("peak.allocated", peak),
        ("total.allocated", report.used_bytes),
        ("startup.allocated", 0),
        ("replication.backlog", 0),
        ("clients.slaves", 0),
        ("clients.normal", 0),
        ("cluster.links", 0),
        ("aof.buffer", 0),
        ("lua.caches", 0),
        ("functions.caches", 0),
    ];
    let sizes = [
        ("overhead.total", 0),
        ("keys.count", keys),
        ("keys.bytes-per-key", report.used_bytes.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", report.used_bytes),
    ];
    let allocator = [
        ("allocator.allocated", report.used_bytes),
        ("allocator.active", report.used_bytes),
        ("allocator.resident", report.used_bytes),
    ];
    let ratios = [
        ("allocator-fragmentation.ratio", 1.0),
        ("allocator-rss.ratio", 1.0),
        ("rss-overhead.ratio", 1.0),
        ("fragmentation", 1.0),
    ];
    let zeros = [
        ("allocator-fragmentation.bytes", 0),
        ("allocator-rss.bytes", 0),
        ("rss-overhead.bytes", 0),
        ("fragmentation.bytes", 0),
    ];
    let shares = [("dataset.percentage", 100.0), ("peak.percentage", share)];
    let fixed = head.len() + sizes.len() + shares.len() + allocator.len() + ratios.len();
    reply::map(out, version, fixed + zeros.len() + used.len());
    integers(out, &head);
    for db in used {
        reply::bulk(out, format!("db.{db}").as_bytes());
        reply::map(out, version, 3);
        let parts = ["main", "expires", "slot-to-keys"];
        let names = parts.map(|part| format!("overhead.hashtable.{part}"));
        names.iter().for_each(|name| integers(out, &[(name.as_str(), 0)]));
    }
    integers(out, &sizes);
    doubles(out, version, &shares);
    integers(out, &allocator);
    doubles(out, version, &ratios);
    integers(out, &zeros);
}

/// Fields with whole numbers.
fn integers(out: &mut Vec<u8>, fields: &[(&str, u64)]) {
    for (name, value) in fields {
        reply::bulk(out, name.as_bytes());
        reply::integer(out, i64::try_from(*value).unwrap_or(i64::MAX));
    }
}

/// Fields with doubles.
fn doubles(out: &mut Vec<u8>, version: Version, fields: &[(&str, f64)]) {
    for (name, value) in fields {
        reply::bulk(out, name.as_bytes());
        reply::double(out, version, *value);
    }
}

pub(super) fn memory_doctor(cx: &mut Cx<'_>) -> Result {
    const LITTLE_BYTES: u64 = 5 << 20;
    cx.ask(Ask::Report, |reply, _, responses| {
        let text = if total(responses).used_bytes < LITTLE_BYTES {
            "Hi Sam, this instance is empty or is using very little memory, my issues detector can't \
             be used in these conditions. Please, leave for your mission on Earth and fill it with \
             some data. The new Sam and I will be back to our programming as soon as I finished \
             rebooting.\n"
        } else {
            "Hi Sam, I can't find any memory issue in your instance. I can only account for what \
             occurs on this base.\n"
        };
        reply::verbatim(reply.out.inline_mut(), reply.version, *b"txt", text.as_bytes());
    })
}

/// Memory is given back as it is freed: there is nothing left to purge.
pub(super) fn memory_purge(cx: &mut Cx<'_>) -> Result {
    cx.ok()
}

pub(super) fn memory_malloc_stats(cx: &mut Cx<'_>) -> Result {
    cx.bulk(b"Stats not supported for the current allocator")
}

pub(super) fn memory_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "MEMORY",
        &[
            "DOCTOR",
            "    Return memory problems reports.",
            "MALLOC-STATS",
            "    Return internal statistics report from the memory allocator.",
            "PURGE",
            "    Attempt to purge dirty pages for reclamation by the allocator.",
            "STATS",
            "    Return information about the memory usage of the server.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return memory in bytes used by <key> and its value. Nested values are",
            "    sampled up to <count> times (default: 5, 0 means sample all).",
        ],
    )
}

/// DEBUG: what test suites use of it.
pub(super) fn debug(cx: &mut Cx<'_>) -> Result {
    match (cx.argc(), cx.arg(1).to_ascii_lowercase().as_slice()) {
        (2, b"help") => debug_help(cx),
        (3, b"error") => Err(Fault::owned(cx.arg(2))),
        (3, b"sleep") => {
            let outcome = server::sleep(cx);
            if let Ok(Outcome::Wait(waiting)) = &outcome
                && let Waiting::Sleep { us } = &**waiting
            {
                // The shard goes on meanwhile, but it is what people try the slow log with.
                crate::watch::note(cx, us.saturating_mul(1_000));
            }
            outcome
        }
        (3, b"object") => debug_object(cx),
        (3, b"set-active-expire") => {
            let on = parse_i64(cx.arg(2)).unwrap_or(0) != 0;
            cx.ask(Ask::ActiveExpire(on), admin::ok)
        }
        // Lists have one form for elements of all sizes.
        (3, b"quicklist-packed-threshold") => {
            match crate::settings::memory(std::str::from_utf8(cx.arg(2)).unwrap_or("-")) {
                Some(_) => cx.ok(),
                None => Err(Fault::text("ERR argument must be a memory value")),
            }
        }
        (2, b"change-repl-id") => cx.ok(),
        _ => server::debug_unknown(cx),
    }
}

fn debug_object(cx: &mut Cx<'_>) -> Result {
    let (hash, key, now) = (cx.shard.store.hash(cx.arg(2)), cx.arg(2), cx.now_ms());
    let idle = cx.shard.store.idle_s(cx.conn.db, hash, key, now).unwrap_or(0);
    let bytes = cx.shard.store.memory_usage(cx.conn.db, hash, key, now);
    let Some(encoding) = super::object::encoding_at(cx, 2) else { return Err(Fault::NO_KEY) };
    let text = format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{} lru:0 lru_seconds_idle:{idle}",
        bytes.unwrap_or(0)
    );
    cx.simple(&text)
}

fn debug_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "DEBUG",
        &[
            "CHANGE-REPL-ID",
            "    Change the replication IDs of the instance.",
            "OBJECT <key>",
            "    Show low level info about `key` and associated value.",
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Accepted without effect.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Setting it to 0 disables expiring keys (and hash-fields) in background ",
            "    when they are not accessed (otherwise the Redis behavior). Setting it",
            "    to 1 reenables back the default.",
            "SLEEP <seconds>",
            "    Stop the connection for <seconds>. Decimals allowed.",
        ],
    )
}

pub(super) fn shutdown(cx: &mut Cx<'_>) -> Result {
    let (mut save, mut nosave, mut abort, mut now, mut force) = Default::default();
    for at in 1..cx.argc() {
        match cx.arg(at).to_ascii_lowercase().as_slice() {
            b"save" => save = true,
            b"nosave" => nosave = true,
            b"now" => now = true,
            b"force" => force = true,
            b"abort" => abort = true,
            _ => return Err(Fault::SYNTAX),
        }
    }
    if (abort && (save || nosave || now || force)) || (save && nosave) {
        return Err(Fault::SYNTAX);
    }
    if abort {
        return Err(Fault::text("ERR No shutdown in progress."));
    }
    if save || (!nosave && !cx.shard.settings.get("save").is_empty()) {
        return Ok(Outcome::Wait(Box::new(Waiting::Job(Job::Shutdown { force }))));
    }
    cx.shard.stops = true;
    Ok(Outcome::Close)
}

/// MODULE LIST: there are none.
pub(super) fn module_list(cx: &mut Cx<'_>) -> Result {
    cx.empty_array()
}

/// MODULE LOAD, LOADEX and UNLOAD, as a server answers that was not told to allow them.
pub(super) fn module_refused(_: &mut Cx<'_>) -> Result {
    Err(Fault::text(
        "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it from \
         a local connection, otherwise you need to set this option in the configuration file, and then restart the \
         server.",
    ))
}

pub(super) fn module_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "MODULE",
        &[
            "LIST",
            "    Return a list of loaded modules.",
            "LOAD <path> [<arg> ...]",
            "    Load a module library from <path>, passing to it any optional arguments.",
            "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
            "    Load a module library from <path>, while passing it module configurations and optional arguments.",
            "UNLOAD <name>",
            "    Unload a module.",
        ],
    )
}

pub(super) fn swapdb(cx: &mut Cx<'_>) -> Result {
    let databases = cx.shard.store.config().databases;
    let db = |at: usize, which: &str| {
        let value = parse_i64(cx.arg(at)).and_then(|value| i32::try_from(value).ok());
        value.ok_or_else(|| Fault::owned(format!("ERR invalid {which} DB index")))
    };
    let (one, two) = (db(1, "first")?, db(2, "second")?);
    let in_range = |db: i32| u16::try_from(db).ok().filter(|db| *db < databases);
    let (Some(one), Some(two)) = (in_range(one), in_range(two)) else {
        return Err(Fault::text("ERR DB index is out of range"));
    };
    cx.ask(Ask::Swap(one, two), admin::ok)
}

/// MOVE: the key stays on its shard.
pub(super) fn move_key(cx: &mut Cx<'_>) -> Result {
    let (from, now) = (cx.conn.db, cx.now_ms());
    let to = cx.database(2).map_err(|fault| match parse_i64(cx.arg(2)) {
        None => Fault::text("ERR value is not an integer or out of range"),
        Some(_) => fault,
    })?;
    if from == to {
        return Err(Fault::text("ERR source and destination objects are the same"));
    }
    let (hash, key) = (cx.hash_of(1), cx.arg(1));
    let store = &mut cx.shard.store;
    if store.peek(from, hash, key, now).is_none() || store.peek(to, hash, key, now).is_some() {
        return cx.int(0);
    }
    if let Some(record) = cx.shard.record(from, hash, key, true, now) {
        record.store(&mut cx.shard.store, to, hash, key, now)?;
    }
    if cx.shard.watching {
        let by = cx.conn.id;
        cx.shard.happened(to, key, NEW, "new", by);
        cx.shard.happened(from, key, GENERIC, "move_from", by);
        cx.shard.happened(to, key, GENERIC, "move_to", by);
    }
    cx.int(1)
}

pub(super) fn lolwut(cx: &mut Cx<'_>) -> Result {
    const ART: &str = "   .-.   .-.   .-.   .-.\n  /   \\ /   \\ /   \\ /   \\\n |  o  |  o  |  o  |  o  |\n  \\   / \\   / \\   / \\   /\n   '-'   '-'   '-'   '-'\n";
    let text = format!("{ART}\nOne core, one shard. Redis ver. {}\n", super::REDIS_VERSION);
    let version = cx.conn.version;
    reply::verbatim(cx.inline(), version, *b"txt", text.as_bytes());
    Ok(Outcome::Done)
}

pub(super) fn client_pause(cx: &mut Cx<'_>) -> Result {
    let writes = match cx.argc() {
        3 => false,
        4 if cx.is(3, "WRITE") => true,
        4 if cx.is(3, "ALL") => false,
        4 => return Err(Fault::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(Fault::arity("client|pause")),
    };
    let timeout =
        parse_i64(cx.arg(2)).ok_or(Fault::text("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| Fault::text("ERR timeout is negative"))?;
    let until_ms = cx.now_ms().saturating_add(timeout);
    let outcome = cx.ask(Ask::Pause(Some((until_ms, writes))), admin::ok)?;
    cx.conn.refresh(cx.shard);
    Ok(outcome)
}

pub(super) fn client_unpause(cx: &mut Cx<'_>) -> Result {
    cx.ask(Ask::Pause(None), admin::ok)
}

/// OFF and SKIP have no reply themselves.
pub(super) fn client_reply(cx: &mut Cx<'_>) -> Result {
    if cx.is(2, "ON") {
        cx.conn.set_reply(ReplyMode::On);
        return cx.ok();
    }
    if cx.is(2, "OFF") {
        cx.conn.set_reply(ReplyMode::Off);
    } else if cx.is(2, "SKIP") {
        if cx.conn.reply == ReplyMode::On {
            cx.conn.set_reply(ReplyMode::Skip);
        }
    } else {
        return Err(Fault::SYNTAX);
    }
    Ok(Outcome::Done)
}
