//! CONFIG GET, SET, RESETSTAT, REWRITE.

use view::Output;
use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome};
use crate::{
    multi::Plan,
    settings::{Refusal, Settings, parameter},
    work::Response,
};

type Result = std::result::Result<Outcome, Fault>;

/// Containers run through their subcommands only.
pub(super) fn container(_cx: &mut Cx<'_>) -> Result {
    Err(Fault::SYNTAX)
}

fn is_glob(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| b"[*?".contains(byte))
}

pub(super) fn get(cx: &mut Cx<'_>) -> Result {
    let mut found: Vec<(Vec<u8>, &str)> = Vec::new();
    for at in 2..cx.argc() {
        let pattern = cx.arg(at);
        for (name, value) in cx.shard.settings.iter() {
            let glob = is_glob(pattern);
            let matches = if glob {
                logic::glob::matches(pattern, name.as_bytes(), true)
            } else {
                pattern.eq_ignore_ascii_case(name.as_bytes())
            };
            let known = |(seen, _): &(Vec<u8>, &str)| seen.eq_ignore_ascii_case(name.as_bytes());
            if matches && !found.iter().any(known) {
                // An exact name comes back as it was spelled.
                let shown = if glob { name.as_bytes() } else { pattern };
                found.push((shown.to_vec(), value));
            }
        }
    }
    let version = cx.conn.version;
    let out = cx.out.inline_mut();
    reply::map(out, version, found.len());
    for (name, value) in found {
        reply::bulk(out, &name);
        reply::bulk(out, value.as_bytes());
    }
    Ok(Outcome::Done)
}

fn failed(name: &[u8], why: &str) -> Fault {
    let before = "ERR CONFIG SET failed (possibly related to argument '";
    Fault::quoting(before, name, &format!("') - {why}"))
}

pub(super) fn set(cx: &mut Cx<'_>) -> Result {
    if !cx.argc().is_multiple_of(2) {
        return Err(Fault::SYNTAX);
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut first_failure = None;
    for at in (2..cx.argc()).step_by(2) {
        let name = cx.arg(at);
        match cx.shard.settings.check(name, cx.arg(at + 1)) {
            Err(Refusal::Unknown) => {
                let before = "ERR Unknown option or number of arguments for CONFIG SET - '";
                return Err(Fault::quoting(before, name, "'"));
            }
            Err(Refusal::Because(why)) => {
                first_failure = first_failure.or(Some(failed(name, &why)));
            }
            Ok((known, _)) if pairs.iter().any(|(seen, _)| seen == known) => {
                first_failure = first_failure.or(Some(failed(name, "duplicate parameter")));
            }
            Ok((known, text)) => pairs.push((known.into(), text)),
        }
    }
    match first_failure {
        Some(fault) => Err(fault),
        None => {
            let outcome = cx.gather(Plan::Configure(pairs))?;
            cx.conn.refresh(cx.shard);
            Ok(outcome)
        }
    }
}

/// CONFIG REWRITE: lines of the file that have another value now are changed where they are, parameters that it does not
/// name are added at its end, comments stay. Writing the file stops the shard for the time that takes.
pub(super) fn rewrite(cx: &mut Cx<'_>) -> Result {
    let path = cx.shard.config.config_file.clone();
    if path.is_empty() {
        return Err(Fault::text("ERR The server is running without a config file"));
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let rules = super::acl::rules(cx.shard);
    let with_users = cx.shard.settings.get("aclfile").is_empty();
    let users: Vec<String> = cx
        .shard
        .acl
        .users()
        .filter(|_| with_users)
        .map(|user| {
            let rules = user.describe(&rules);
            let name = String::from_utf8_lossy(&user.name).into_owned();
            format!("user {name} {}", String::from_utf8_lossy(&rules))
        })
        .collect();
    let after = rewritten(&before, &cx.shard.settings, &users);
    let temporary = format!("{path}.tmp-{}", cx.shard.config.process_id);
    let written =
        std::fs::write(&temporary, after).and_then(|()| std::fs::rename(&temporary, &path));
    match written {
        Ok(()) => cx.ok(),
        Err(error) => Err(Fault::owned(format!("ERR Rewriting config file: {error}"))),
    }
}

/// Whether a parameter is another one's earlier name.
fn is_old(name: &str) -> bool {
    name.contains("ziplist") || name.contains("slave") || name == "lua-time-limit"
}

/// The text of a configuration file with the present values.
fn rewritten(before: &str, settings: &Settings, users: &[String]) -> String {
    let line = |name: &str, value: &str| match (name, value) {
        ("save", value) if !value.is_empty() => format!("save {value}"),
        ("bind" | "client-output-buffer-limit" | "replicaof" | "oom-score-adj-values", value) => {
            format!("{name} {value}")
        }
        (name, value) if value.is_empty() || value.contains([' ', '"', '\\']) => {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{name} \"{escaped}\"")
        }
        (name, value) => format!("{name} {value}"),
    };
    let (mut text, mut told) = (String::new(), Vec::new());
    for old in before.lines() {
        let name = old.split_ascii_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        let known = settings.iter().find(|(known, _)| *known == name);
        match known {
            _ if name == "user" => continue,
            // Only its first line: values of several are in one.
            Some((name, _)) if told.contains(&name) => continue,
            Some((name, value)) => {
                told.push(name);
                text.push_str(&line(name, value));
            }
            None => text.push_str(old),
        }
        text.push('\n');
    }
    for (name, value) in settings.iter() {
        let default = parameter(name).map_or("", |(.., default)| default);
        // Users tell the password, and of two spellings the present one is written.
        if value != default && !told.contains(&name) && !is_old(name) {
            text.push_str(&line(name, value));
            text.push('\n');
        }
    }
    for user in users {
        text.push_str(user);
        text.push('\n');
    }
    text
}

pub(super) fn resetstat(cx: &mut Cx<'_>) -> Result {
    cx.gather(Plan::ResetStats)
}

pub(super) fn help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
            "REWRITE",
            "    Rewrite the configuration file.",
        ],
    )
}

/// The texts of all shards as one verbatim string.
pub(crate) fn reply_text(out: &mut Output, version: Version, responses: Vec<Response>) {
    let mut text = String::new();
    for response in responses {
        if let Response::Text(part) = response {
            text.push_str(&part);
        }
    }
    reply::verbatim(out.inline_mut(), version, *b"txt", text.as_bytes());
}
