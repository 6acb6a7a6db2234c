//! CONFIG GET, SET, RESETSTAT.

use view::Output;
use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome};
use crate::{multi::Plan, settings::Refusal, work::Response};

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
        None => cx.gather(Plan::Configure(pairs)),
    }
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
