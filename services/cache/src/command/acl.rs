//! ACL: users and what they may do.
//!
//! Source: the Redis 7.0 manual; errors are those of redis-server 7.0.15. A change is checked on this shard and sent to all.

use engine::rng::Seed;
use wire::resp::reply;

use super::{Cx, Fault, Outcome, row::ACL_NAMES};
use crate::{
    acl::{self, Denied, LogEntry, Rules, USERS_MAX, User, has_spaces},
    admin::{self, Answer, Ask, Replying},
    directive::split_words,
    work::Response,
};

type Result = std::result::Result<Outcome, Fault>;

/// Containers run through their subcommands only.
pub(super) fn container(_cx: &mut Cx<'_>) -> Result {
    Err(Fault::SYNTAX)
}

fn wrong_count(name: &str) -> Fault {
    super::admin::wrong_count("ACL", name)
}

/// What rules are applied with.
pub(crate) fn rules(shard: &crate::shard::Shard) -> Rules<'_> {
    let all_channels = shard.settings.get("acl-pubsub-default") == "allchannels";
    Rules { commands: &shard.commands, all_channels }
}

pub(super) fn setuser(cx: &mut Cx<'_>) -> Result {
    let name = cx.arg(2);
    if has_spaces(name) {
        return Err(Fault::text("ERR Usernames can't contain spaces or null characters"));
    }
    let merged = acl::merge_selectors((3..cx.argc()).map(|at| cx.arg(at)));
    let merged = merged.map_err(|at| {
        let before = "ERR Unmatched parenthesis in acl selector starting at '";
        Fault::quoting(before, cx.arg(at + 3), "'.")
    })?;
    let rules = rules(cx.shard);
    let known = cx.shard.acl.get(name);
    if known.is_none() && cx.shard.acl.len() >= USERS_MAX {
        return Err(Fault::text("ERR too many users"));
    }
    let mut user = match known {
        Some(user) => User::clone(user),
        None => User::new(name, rules.all_channels),
    };
    for rule in &merged {
        if let Err(wrong) = rules.apply(&mut user, rule) {
            let before = "ERR Error in ACL SETUSER modifier '";
            return Err(Fault::quoting(before, rule, &format!("': {}", wrong.text())));
        }
    }
    change(cx, Ask::PutUser(Box::new(user)), admin::ok)
}

/// Changes users on all shards, and what that means for this connection.
fn change(cx: &mut Cx<'_>, ask: Ask, finish: admin::Finish) -> Result {
    let outcome = cx.ask(ask, finish)?;
    cx.conn.refresh(cx.shard);
    // A connection whose user is gone gets its reply first.
    let own = matches!(outcome, Outcome::Done) && cx.shard.clients.take_own_kill(cx.conn.id);
    Ok(if own { Outcome::Close } else { outcome })
}

pub(super) fn deluser(cx: &mut Cx<'_>) -> Result {
    let names: Vec<Box<[u8]>> = (2..cx.argc()).map(|at| cx.arg(at).into()).collect();
    let default = names.iter().position(|name| **name == *acl::DEFAULT);
    if let Some(0) = default {
        return Err(Fault::text("ERR The 'default' user cannot be removed"));
    }
    if let Some(at) = default {
        // Redis has removed those before it.
        let before = names.get(..at).unwrap_or_default().to_vec();
        let refuse: admin::Finish = |reply, _, _| {
            let text = b"ERR The 'default' user cannot be removed";
            reply.shard.stats.error("ERR");
            reply::error(reply.out.inline_mut(), text);
        };
        return change(cx, Ask::RemoveUsers(before), refuse);
    }
    change(cx, Ask::RemoveUsers(names), admin::first)
}

pub(super) fn getuser(cx: &mut Cx<'_>) -> Result {
    let Some(user) = cx.shard.acl.get(cx.arg(2)).cloned() else { return cx.null() };
    let version = cx.conn.version;
    let rules = rules(cx.shard);
    let mut text = Vec::new();
    let out = &mut text;
    reply::map(out, version, 6);
    reply::bulk(out, b"flags");
    let flags = user.flags();
    reply::set(out, version, flags.len());
    flags.iter().for_each(|flag| reply::bulk(out, flag.as_bytes()));
    reply::bulk(out, b"passwords");
    reply::array(out, user.passwords.len());
    user.passwords.iter().for_each(|password| reply::bulk(out, password));
    selector(out, &user.root, &rules);
    reply::bulk(out, b"selectors");
    reply::array(out, user.others.len());
    for other in &user.others {
        reply::map(out, version, 3);
        selector(out, other, &rules);
    }
    cx.inline().extend_from_slice(&text);
    Ok(Outcome::Done)
}

fn selector(out: &mut Vec<u8>, selector: &acl::Selector, rules: &Rules<'_>) {
    for (name, value) in [
        ("commands", selector.describe_commands(rules).into_bytes()),
        ("keys", selector.describe_keys()),
        ("channels", selector.describe_channels()),
    ] {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, &value);
    }
}

/// One line per user.
fn lines(shard: &crate::shard::Shard) -> Vec<Vec<u8>> {
    let rules = rules(shard);
    let line = |user: &User| [&b"user "[..], &user.name, b" ", &user.describe(&rules)].concat();
    shard.acl.users().map(line).collect()
}

pub(super) fn list(cx: &mut Cx<'_>) -> Result {
    let lines = lines(cx.shard);
    reply::array(cx.inline(), lines.len());
    lines.iter().for_each(|line| reply::bulk(cx.inline(), line));
    Ok(Outcome::Done)
}

pub(super) fn users(cx: &mut Cx<'_>) -> Result {
    let out = cx.out.inline_mut();
    reply::array(out, cx.shard.acl.len());
    cx.shard.acl.users().for_each(|user| reply::bulk(out, &user.name));
    Ok(Outcome::Done)
}

pub(super) fn whoami(cx: &mut Cx<'_>) -> Result {
    let name = cx.conn.user.as_ref().map_or(acl::DEFAULT.to_vec(), |user| user.name.to_vec());
    cx.bulk(&name)
}

pub(super) fn cat(cx: &mut Cx<'_>) -> Result {
    match cx.argc() {
        2 => {
            reply::array(cx.inline(), ACL_NAMES.len());
            ACL_NAMES.iter().for_each(|name| reply::bulk(cx.inline(), name.as_bytes()));
        }
        3 => {
            let name = cx.arg(2);
            let Some(bit) = acl::category(name) else {
                let name = name.get(..128).unwrap_or(name);
                return Err(Fault::quoting("ERR Unknown category '", name, "'"));
            };
            let rows = cx.shard.commands.all().map(|(_, row)| row);
            let names: Vec<&str> =
                rows.filter(|row| row.acl & bit != 0).map(|row| row.name).collect();
            reply::array(cx.inline(), names.len());
            names.iter().for_each(|name| reply::bulk(cx.inline(), name.as_bytes()));
        }
        _ => return Err(wrong_count("CAT")),
    }
    Ok(Outcome::Done)
}

pub(super) fn genpass(cx: &mut Cx<'_>) -> Result {
    const BITS_MAX: i64 = 4096;
    let bits = match cx.argc() {
        2 => 256,
        3 => cx.integer(2)?,
        _ => return Err(wrong_count("GENPASS")),
    };
    if !(1..=BITS_MAX).contains(&bits) {
        return Err(Fault::text(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to 4096",
        ));
    }
    let digits = usize::try_from((bits + 3) / 4).unwrap_or(64);
    let mut text = String::new();
    while text.len() < digits {
        // From the kernel: a password is nothing that a seed may predict.
        let Ok(Seed(word)) = Seed::from_os() else {
            return Err(Fault::text("ERR the system gives no random numbers"));
        };
        text.push_str(&format!("{word:016x}"));
    }
    text.truncate(digits);
    cx.bulk(text.as_bytes())
}

pub(super) fn log(cx: &mut Cx<'_>) -> Result {
    const USUAL: usize = 10;
    match cx.argc() {
        2 => cx.ask(Ask::AclLog(USUAL), reply_log),
        3 if cx.is(2, "RESET") => cx.ask(Ask::ResetAclLog, admin::ok),
        3 => {
            let most = usize::try_from(cx.integer(2)?.max(0)).unwrap_or(usize::MAX);
            cx.ask(Ask::AclLog(most), reply_log)
        }
        _ => Err(wrong_count("LOG")),
    }
}

fn reply_log(reply: &mut Replying<'_>, ask: &Ask, responses: Vec<Response>) {
    let mut entries: Vec<LogEntry> = Vec::new();
    for response in responses {
        if let Response::Admin(answer) = response
            && let Answer::AclLog(part) = *answer
        {
            entries.extend(part.0);
        }
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at_ms));
    let mut entries = LogEntry::merged(entries);
    if let Ask::AclLog(most) = ask {
        entries.truncate(*most);
    }
    let (version, now_ms) = (reply.version, reply.now.unix_ms());
    let out = reply.out.inline_mut();
    reply::array(out, entries.len());
    for entry in entries {
        reply::map(out, version, 7);
        reply::bulk(out, b"count");
        reply::integer(out, i64::try_from(entry.count).unwrap_or(i64::MAX));
        for (name, value) in [
            ("reason", entry.reason.name().as_bytes()),
            ("context", entry.context.as_bytes()),
            ("object", &entry.object),
            ("username", &entry.user),
        ] {
            reply::bulk(out, name.as_bytes());
            reply::bulk(out, value);
        }
        reply::bulk(out, b"age-seconds");
        let age_ms = now_ms.saturating_sub(entry.at_ms);
        reply::double(out, version, age_ms as f64 / 1000.0);
        reply::bulk(out, b"client-info");
        reply::bulk(out, entry.client.as_bytes());
    }
}

pub(super) fn dryrun(cx: &mut Cx<'_>) -> Result {
    let Some(user) = cx.shard.acl.get(cx.arg(2)).cloned() else {
        return Err(Fault::quoting("ERR User '", cx.arg(2), "' not found"));
    };
    let commands = &cx.shard.commands;
    let mut id = commands.find(cx.arg(3));
    if let Some(container) = id
        && !commands.row(container).subs.is_empty()
        && cx.argc() > 4
    {
        id = commands.find_sub(container, cx.arg(4));
    }
    let Some(id) = id else {
        return Err(Fault::quoting("ERR Command '", cx.arg(3), "' not found"));
    };
    let row = commands.row(id);
    let argc = cx.argc() - 3;
    if !row.accepts(argc) {
        return Err(Fault::arity(row.name));
    }
    let text = match acl::may_run(&user, id, row, argc, |at| cx.arg(at + 3)) {
        Ok(()) => return cx.ok(),
        Err(Denied::Command) => {
            format!("This user has no permissions to run the '{}' command", row.name).into_bytes()
        }
        Err(Denied::Key(at)) => {
            let before = b"This user has no permissions to access the '".as_slice();
            [before, cx.arg(at + 3), b"' key"].concat()
        }
        Err(Denied::Channel(at)) => {
            let before = b"This user has no permissions to access the '".as_slice();
            [before, cx.arg(at + 3), b"' channel"].concat()
        }
    };
    cx.bulk(&text)
}

/// The file of users; an error when there is none.
fn file(cx: &Cx<'_>) -> std::result::Result<std::path::PathBuf, Fault> {
    match cx.shard.settings.get("aclfile") {
        "" => Err(Fault::text(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify \
             users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have \
             a Redis configuration file set) in order to store users in the Redis configuration.",
        )),
        path => Ok(std::path::Path::new(cx.shard.settings.get("dir")).join(path)),
    }
}

/// The users of a file's text.
pub(crate) fn parse_users(
    rules: &Rules<'_>,
    name: &str,
    text: &str,
) -> std::result::Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut problems = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let words = split_words(line).unwrap_or_default();
        let Some(("user", [user, given @ ..])) =
            words.split_first().map(|(first, rest)| (first.as_str(), rest))
        else {
            let why = "should start with user keyword followed by the username";
            problems.push_str(&format!("{name}:{number}: {why}. "));
            continue;
        };
        match make_user(rules, user.as_bytes(), given) {
            _ if users.iter().any(|known| *known.name == *user.as_bytes()) => {
                problems.push_str(&format!("{name}:{number}: Duplicate user '{user}' found. "));
            }
            Ok(user) => users.push(user),
            Err(why) => problems.push_str(&format!("{name}:{number}: {why}. ")),
        }
    }
    if problems.is_empty() { Ok(users) } else { Err(problems) }
}

/// A user made from nothing by rules.
pub(crate) fn make_user(
    rules: &Rules<'_>,
    name: &[u8],
    given: &[String],
) -> std::result::Result<User, String> {
    if has_spaces(name) {
        return Err("Usernames can't contain spaces or null characters".into());
    }
    let merged = acl::merge_selectors(given.iter().map(String::as_bytes))
        .map_err(|_| "Unmatched parenthesis in selector definition".to_owned())?;
    // The default user too: what its rules do not say it may not do.
    let mut user = User::new(name, rules.all_channels);
    for rule in merged {
        rules.apply(&mut user, &rule).map_err(|wrong| {
            format!(
                "Error in applying operation '{}': {}",
                String::from_utf8_lossy(&rule),
                wrong.text()
            )
        })?;
    }
    Ok(user)
}

/// Reading and writing the file stops the shard for the time that takes: it is small, and this an administrator's command.
pub(super) fn load(cx: &mut Cx<'_>) -> Result {
    let path = file(cx)?;
    let name = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Fault::owned(format!("ERR Error loading ACLs, opening file '{name}': {error}"))
    })?;
    let rules = rules(cx.shard);
    let mut users = parse_users(&rules, &name, &text).map_err(|problems| {
        let none = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
        Fault::owned(format!("ERR {problems}{none}"))
    })?;
    if !users.iter().any(|user| *user.name == *acl::DEFAULT) {
        users.push(acl::Acl::first_default(&rules));
    }
    change(cx, Ask::ReplaceUsers(users), admin::ok)
}

pub(super) fn save(cx: &mut Cx<'_>) -> Result {
    let path = file(cx)?;
    let mut text = lines(cx.shard).join(&b'\n');
    text.push(b'\n');
    let temporary = path.with_extension(format!("tmp-{}", cx.shard.config.process_id));
    let written =
        std::fs::write(&temporary, &text).and_then(|()| std::fs::rename(&temporary, &path));
    match written {
        Ok(()) => cx.ok(),
        Err(_) => Err(Fault::text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more \
             information",
        )),
    }
}

pub(super) fn help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "ACL",
        &[
            "CAT [<category>]",
            "    List all commands that belong to <category>, or all command categories",
            "    when no category is specified.",
            "DELUSER <username> [<username> ...]",
            "    Delete a list of users.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Returns whether the user can execute the given command without executing the command.",
            "GETUSER <username>",
            "    Get the user's details.",
            "GENPASS [<bits>]",
            "    Generate a secure 256-bit user password. The optional `bits` argument can",
            "    be used to specify a different size.",
            "LIST",
            "    Show users details in config file format.",
            "LOAD",
            "    Reload users from the ACL file.",
            "LOG [<count> | RESET]",
            "    Show the ACL log entries.",
            "SAVE",
            "    Save the current config to the ACL file.",
            "SETUSER <username> <attribute> [<attribute> ...]",
            "    Create or modify a user with the specified attributes.",
            "USERS",
            "    List all the registered usernames.",
            "WHOAMI",
            "    Return the current connection username.",
        ],
    )
}
