//! Everything a machine holds, as text that is equal on two machines that hold the same.
//!
//! Invariant: what is read does not depend on encodings, on the order of sets and hashes, or on the time of reading.
//! Next: `chaos` for when it is compared.

use std::collections::BTreeMap;

use wire::resp::Reply;

use super::course::Run;
use super::side::{Words, words};

/// Databases that are written to.
const DATABASES: usize = 3;

/// What a key holds, and until when.
pub(super) type Held = (String, Option<u64>);
/// Keys by database and name; the functions.
pub(super) type Contents = (BTreeMap<(usize, Vec<u8>), Held>, String);

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(" "))
        }
        Reply::Bulk(bytes) | Reply::Simple(bytes) => {
            let head = bytes[..bytes.len().min(40)].escape_ascii();
            let sum = bytes
                .iter()
                .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            if bytes.len() > 40 {
                format!("{head}({}, {sum:x})", bytes.len())
            } else {
                head.to_string()
            }
        }
        other => format!("{other:?}"),
    }
}

fn items(reply: &Reply) -> &[Reply] {
    match reply {
        Reply::Array(items) => items,
        _ => &[],
    }
}

fn sorted(reply: &Reply, step: usize) -> String {
    let part = |part: &[Reply]| part.iter().map(text).collect::<Vec<_>>().join("=");
    let mut parts: Vec<String> = items(reply).chunks(step).map(part).collect();
    parts.sort();
    parts.join(" ")
}

fn with_key(command: &str, key: &[u8], rest: &str) -> Words {
    let mut all: Words = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    all.push(key.to_vec());
    all.extend(rest.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()));
    all
}

/// How a value of a type is read.
fn reading(kind: &[u8], key: &[u8]) -> Vec<Words> {
    match kind {
        b"string" => vec![with_key("GET", key, "")],
        b"list" => vec![with_key("LRANGE", key, "0 -1")],
        b"set" => vec![with_key("SMEMBERS", key, "")],
        b"hash" => vec![with_key("HGETALL", key, "")],
        b"zset" => vec![with_key("ZRANGE", key, "0 -1 WITHSCORES")],
        b"stream" => vec![
            with_key("XRANGE", key, "- +"),
            with_key("XINFO GROUPS", key, ""),
            with_key("XPENDING", key, "g - + 1000"),
            with_key("XINFO CONSUMERS", key, "g"),
            with_key("XINFO STREAM", key, ""),
        ],
        _ => Vec::new(),
    }
}

fn shown(kind: &[u8], replies: &[Reply]) -> String {
    let value = match (kind, replies) {
        (b"set", [value]) => sorted(value, 1),
        (b"hash", [value]) => sorted(value, 2),
        (b"stream", [entries, groups, pending, consumers, info]) => {
            let mut told = vec![text(entries), text(groups)];
            for entry in items(pending) {
                // Not the third: how long ago it was.
                let part = |at: usize| items(entry).get(at).map(text).unwrap_or_default();
                told.push(format!("{} {} {}", part(0), part(1), part(3)));
            }
            let names = items(consumers).iter().filter_map(|one| items(one).get(1).map(text));
            let mut names: Vec<String> = names.collect();
            names.sort();
            told.push(names.join(","));
            for pair in items(info).chunks(2) {
                let [name, value] = pair else { continue };
                let wanted = ["last-generated-id", "max-deleted-entry-id", "entries-added"];
                if wanted.contains(&text(name).as_str()) {
                    told.push(text(value));
                }
            }
            told.join(" | ")
        }
        (_, replies) => replies.iter().map(text).collect::<Vec<_>>().join(" "),
    };
    format!("{} {value}", String::from_utf8_lossy(kind))
}

impl Run {
    /// Everything a machine holds.
    pub(super) fn contents(&mut self, side: usize) -> Result<Contents, String> {
        let mut all = BTreeMap::new();
        for db in 0..DATABASES {
            let select = words(&format!("SELECT {db}"));
            let replies = self.ask(side, &[select.clone(), words("KEYS *")])?;
            let keys = replies.get(1).map(items).unwrap_or_default();
            let keys: Vec<Vec<u8>> = keys.iter().filter_map(name_of).collect();
            let mut asked = vec![select.clone()];
            for key in &keys {
                asked.extend([with_key("TYPE", key, ""), with_key("PEXPIRETIME", key, "")]);
            }
            let facts = self.ask(side, &asked)?;
            let mut asked = vec![select];
            for (key, fact) in keys.iter().zip(facts[1..].chunks(2)) {
                asked.extend(reading(&kind_of(fact), key));
            }
            let values = self.ask(side, &asked)?;
            let mut at = 1;
            for (key, fact) in keys.iter().zip(facts[1..].chunks(2)) {
                let kind = kind_of(fact);
                let len = reading(&kind, key).len();
                let value = shown(&kind, &values[at..at + len]);
                at += len;
                let expire_at_ms = match fact {
                    [_, Reply::Integer(at_ms)] => u64::try_from(*at_ms).ok(),
                    _ => None,
                };
                if len > 0 {
                    all.insert((db, key.clone()), (value, expire_at_ms));
                }
            }
        }
        let functions = self.ask(side, &[words("FUNCTION LIST WITHCODE")])?;
        let mut libraries: Vec<String> = functions.iter().flat_map(items).map(whole).collect();
        libraries.sort();
        Ok((all, libraries.join(" ")))
    }

    /// Both machines hold the same.
    pub(super) fn compare(&mut self) -> Result<(), String> {
        let (ours, theirs) = (self.contents(self.master)?, self.contents(1 - self.master)?);
        let now_ms = self.world.now().unix_ms();
        let shown = |held: Option<&Held>| match held {
            None => "nothing".to_owned(),
            Some((value, at_ms)) => format!("{value} until {at_ms:?}"),
        };
        let mut wrong = Vec::new();
        let all: std::collections::BTreeSet<_> = ours.0.keys().chain(theirs.0.keys()).collect();
        for key in all {
            let (one, other) = (ours.0.get(key), theirs.0.get(key));
            // What was due meanwhile may have gone between two looks.
            let is_due = |held: Option<&Held>| {
                held.is_none_or(|(_, at_ms)| at_ms.is_some_and(|at_ms| at_ms <= now_ms))
            };
            if one != other && !(is_due(one) && is_due(other)) {
                let (db, name) = (key.0, key.1.escape_ascii());
                wrong.push(format!("{db}:{name}: master {}, replica {}", shown(one), shown(other)));
            }
        }
        if ours.1 != theirs.1 {
            wrong.push(format!("functions: master {}, replica {}", ours.1, theirs.1));
        }
        if wrong.is_empty() {
            self.mark("replicated: compared");
            return Ok(());
        }
        let count = wrong.len();
        wrong.truncate(12);
        Err(format!("{count} differ when all is at rest ({now_ms}):\n  {}", wrong.join("\n  ")))
    }
}

fn name_of(reply: &Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Bulk(name) => Some(name.clone()),
        _ => None,
    }
}

/// TYPE's answer among a key's facts.
fn kind_of(fact: &[Reply]) -> Vec<u8> {
    match fact.first() {
        Some(Reply::Simple(kind)) => kind.clone(),
        _ => Vec::new(),
    }
}

/// Without a shortened text.
fn whole(reply: &Reply) -> String {
    match reply {
        Reply::Array(items) => items.iter().map(whole).collect::<Vec<_>>().join(" "),
        Reply::Bulk(bytes) => bytes.escape_ascii().to_string(),
        other => format!("{other:?}"),
    }
}
