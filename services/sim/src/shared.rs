//! What all clients of a run share, and what replies about it must satisfy.
//!
//! *Counters*: replies of INCR are unique, above everything told before the command was sent, and
//! never above the number of INCRs sent. *Groups*: their keys lie on several shards and are written
//! together, so nobody may ever see two values at once; and nobody may read a value after another
//! write came wholly between it and the read. *The token*: one key that moves between places and
//! is never in two or in none. *Queues* (`queue`): no item is popped twice or lost. Together these prove that commands over several shards are atomic
//! and that an answered write is seen by whoever asks later.
//!
//! Steps number what happens in a run, across all clients; an interval is from the step in which a
//! command's first byte was sent to the one in which its reply was read.

use std::collections::{BTreeMap, BTreeSet};

use wire::resp::Reply;

use crate::model::During;
use crate::op::Seen;
use crate::queue::Items;

/// Places of the token.
pub const PLACES: usize = 4;
/// What the token holds.
pub const TOKEN: &[u8] = b"the token";

/// A write of a group; without a value a deletion.
#[derive(Clone, Debug)]
struct Write {
    value: Option<u64>,
    sent: u64,
    /// The step after which it cannot take effect any more; `None` while that is not known.
    end: Option<u64>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Done,
    /// Nobody will know.
    Maybe,
    Void,
}

#[derive(Clone, Debug, Default)]
struct Counter {
    issued: i64,
    certain: i64,
    void: i64,
    told: BTreeSet<i64>,
    /// (step, highest reply until then).
    highest: Vec<(u64, i64)>,
}

/// A FLUSHALL.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// The step it was sent in, at the earliest.
    pub sent: u64,
    /// The step after which it cannot take effect any more.
    pub end: Option<u64>,
    /// It was answered.
    pub done: bool,
    /// It has not run and never will.
    pub void: bool,
}

/// The state all clients share.
#[derive(Debug)]
pub struct Common {
    /// The step.
    pub step: u64,
    /// Keys per group.
    pub group_len: usize,
    /// Whether somebody may send FLUSHALL.
    pub flushes_allowed: bool,
    counters: Vec<Counter>,
    groups: Vec<Vec<Write>>,
    /// Items of the queues.
    pub items: Items,
    /// FLUSHALLs so far.
    pub flushes: Vec<Flush>,
    /// Ids of connections, by those who asked for theirs.
    pub ids: Vec<u64>,
    /// Ids somebody wants closed.
    pub killed: BTreeSet<u64>,
    /// Ids whose killer was told that it hit.
    pub doomed: BTreeSet<u64>,
    /// Connections may break without a reason the clients know.
    pub breaks: bool,
    /// The shards are coming to their end.
    pub stopping: bool,
    /// Replies checked.
    pub replies: u64,
    /// How often what was seen, so that a test can demand it.
    pub marks: BTreeMap<&'static str, u64>,
    /// What clients did, when somebody wants to know.
    pub story: Option<Vec<String>>,
    /// A running hash of everything clients received.
    pub hash: u64,
}

impl Common {
    /// So many counters and groups.
    #[must_use]
    pub fn new(counters: usize, groups: usize, group_len: usize, flushes_allowed: bool) -> Self {
        let nothing = Write { value: None, sent: 0, end: Some(0), fate: Fate::Done };
        Self {
            step: 1,
            group_len,
            flushes_allowed,
            counters: vec![Counter::default(); counters],
            groups: vec![vec![nothing]; groups],
            items: Items::default(),
            flushes: Vec::new(),
            ids: Vec::new(),
            killed: BTreeSet::new(),
            doomed: BTreeSet::new(),
            breaks: false,
            stopping: false,
            replies: 0,
            marks: BTreeMap::new(),
            story: None,
            hash: 0,
        }
    }

    /// Notes that something happened.
    pub fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// Adds to the story, if one is told.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }

    /// Adds received bytes to the hash.
    pub fn fold(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut part = [0; 8];
            part[..word.len()].copy_from_slice(word);
            self.hash = (self.hash ^ u64::from_le_bytes(part) ^ word.len() as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }

    /// Number of counters.
    #[must_use]
    pub const fn counters(&self) -> usize {
        self.counters.len()
    }

    /// Number of groups.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.groups.len()
    }

    // Counters.

    /// An INCR is about to be sent.
    pub fn incr_issued(&mut self, counter: usize) {
        self.counters[counter].issued += 1;
    }

    /// An INCR was answered.
    ///
    /// # Errors
    /// The number is impossible.
    pub fn incr_told(
        &mut self,
        counter: usize,
        during: During,
        reply: &Reply,
    ) -> Result<(), String> {
        let flushes = self.flushes_allowed;
        let counter = &mut self.counters[counter];
        counter.certain += 1;
        let Reply::Integer(told) = *reply else { return Err("expected a number".into()) };
        if flushes {
            return Ok(());
        }
        let floor = counter.floor(during.sent);
        if told <= floor || told > counter.issued - counter.void {
            return Err(format!(
                "expected more than {floor} and at most {}",
                counter.issued - counter.void
            ));
        }
        if !counter.told.insert(told) {
            return Err("the counter told this number before: an increment was lost".into());
        }
        let highest = counter.highest.last().map_or(0, |(_, highest)| *highest).max(told);
        counter.highest.push((during.told, highest));
        Ok(())
    }

    /// An INCR will not run any more.
    pub fn incr_void(&mut self, counter: usize) {
        self.counters[counter].void += 1;
    }

    /// A counter was read.
    ///
    /// # Errors
    /// The number is impossible.
    pub fn count_told(&self, counter: usize, during: During, reply: &Reply) -> Result<(), String> {
        let counter = &self.counters[counter];
        let told = match reply {
            Reply::Null => 0,
            Reply::Bulk(text) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or("expected a number")?,
            _ => return Err("expected a number".into()),
        };
        let (low, high) = (counter.floor(during.sent), counter.issued - counter.void);
        if !self.flushes_allowed && !(low..=high).contains(&told) {
            return Err(format!("expected {low} to {high}"));
        }
        Ok(())
    }

    /// The counter at the end of everything.
    ///
    /// # Errors
    /// Increments were lost, or run twice.
    pub fn count_final(&self, counter: usize, found: i64) -> Result<(), String> {
        let counter = &self.counters[counter];
        let (low, high) = (counter.certain, counter.issued - counter.void);
        if !self.flushes_allowed && !(low..=high).contains(&found) {
            return Err(format!("the counter is {found} at the end, expected {low} to {high}"));
        }
        Ok(())
    }

    // Groups.

    /// A write is about to be sent; its index.
    pub fn write_issued(&mut self, group: usize, value: Option<u64>) -> usize {
        let sent = self.step;
        self.groups[group].push(Write { value, sent, end: None, fate: Fate::Open });
        self.groups[group].len() - 1
    }

    /// A write has taken effect.
    pub fn write_told(&mut self, group: usize, write: usize, during: During) {
        let write = &mut self.groups[group][write];
        (write.end, write.fate) = (Some(during.told), Fate::Done);
    }

    /// A write has not taken effect and never will.
    pub fn write_void(&mut self, group: usize, write: usize) {
        self.groups[group][write].fate = Fate::Void;
    }

    /// A write may have taken effect, but no later than now.
    pub fn write_maybe(&mut self, group: usize, write: usize) {
        let end = self.step;
        let write = &mut self.groups[group][write];
        (write.end, write.fate) = (Some(end), Fate::Maybe);
    }

    /// A value for a new write.
    #[must_use]
    pub const fn new_value(&self, client: usize) -> u64 {
        self.step << 8 | client as u64
    }

    /// The group was seen with this value, or with some value, or without.
    ///
    /// # Errors
    /// Nobody wrote that, or it was overwritten before the command was sent.
    pub fn group_seen(
        &self,
        group: usize,
        during: During,
        fits: impl Fn(Option<u64>) -> bool,
    ) -> Result<(), String> {
        let writes = &self.groups[group];
        let mut found = false;
        let mut stale = false;
        for write in writes {
            let about = write.fate != Fate::Void && write.sent < during.told;
            if !about || !fits(write.value) {
                continue;
            }
            found = true;
            let over = |other: &Write| {
                other.fate == Fate::Done
                    && write.end.is_some_and(|end| other.sent > end)
                    && other.end.is_some_and(|end| end < during.sent)
            };
            if !writes.iter().any(over) {
                return Ok(());
            }
            stale = true;
        }
        if fits(None) && self.flushed_before(during) {
            return Ok(());
        }
        Err(match (found, stale) {
            (_, true) => "a value that was overwritten before the command was sent".into(),
            _ => "a value that nobody wrote".into(),
        })
    }

    fn flushed_before(&self, during: During) -> bool {
        self.flushes.iter().any(|flush| !flush.void && flush.sent < during.told)
    }

    /// Checks the reply of an MGET over keys of a group.
    ///
    /// # Errors
    /// Two keys differ, or the value is impossible.
    pub fn group_read(&self, group: usize, during: During, items: &[Reply]) -> Result<(), String> {
        let Some(first) = items.first() else { return Err("expected values".into()) };
        if items.iter().any(|item| item != first) {
            let shown: Vec<String> = items.iter().map(show).collect();
            return Err(format!("keys that are written together differ: {}", shown.join(", ")));
        }
        let value = match first {
            Reply::Null => None,
            Reply::Bulk(bytes) => Some(tag_of(bytes).ok_or("a value that nobody wrote")?),
            _ => return Err("expected values".into()),
        };
        self.group_seen(group, during, |other| other == value)
    }

    /// Checks a count over a whole group: all or nothing.
    ///
    /// # Errors
    /// Some, or impossible.
    pub fn group_count(
        &self,
        group: usize,
        keys: usize,
        during: During,
        reply: &Reply,
    ) -> Result<bool, String> {
        let there = match reply {
            Reply::Integer(0) => false,
            Reply::Integer(n) if *n == keys as i64 => true,
            _ => return Err(format!("expected 0 or {keys}: the group is written together")),
        };
        self.group_seen(group, during, |value| value.is_some() == there)?;
        Ok(there)
    }

    // The token.

    /// Checks how many places hold the token.
    ///
    /// # Errors
    /// None or several.
    pub fn token_count(&self, reply: &Reply) -> Result<(), String> {
        let seen = Seen(Some(reply));
        if seen.int(1) || (self.flushes_allowed && seen.int(0)) {
            return Ok(());
        }
        Err("the token is in one place, always".into())
    }

    /// Checks the values at all places.
    ///
    /// # Errors
    /// None or several hold the token, or something else.
    pub fn token_read(&self, items: &[Reply]) -> Result<(), String> {
        let holds = |item: &&Reply| matches!(item, Reply::Bulk(bytes) if bytes == TOKEN);
        let (there, gone) = (
            items.iter().filter(holds).count(),
            items.iter().filter(|item| **item == Reply::Null).count(),
        );
        if there + gone == PLACES && (there == 1 || (self.flushes_allowed && there == 0)) {
            return Ok(());
        }
        Err("the token is in one place, always".into())
    }
}

impl Counter {
    /// The highest number told before a step.
    fn floor(&self, step: u64) -> i64 {
        let known = self.highest.partition_point(|(told, _)| *told < step);
        known.checked_sub(1).map_or(0, |last| self.highest[last].1)
    }
}

/// A short picture of a reply.
#[must_use]
pub fn show(reply: &Reply) -> String {
    let text = |bytes: &[u8]| {
        let head = bytes[..bytes.len().min(40)].escape_ascii().to_string();
        if bytes.len() > 40 {
            format!("\"{head}…\" ({} bytes)", bytes.len())
        } else {
            format!("\"{head}\"")
        }
    };
    match reply {
        Reply::Bulk(bytes) => text(bytes),
        Reply::Simple(bytes) => format!("+{}", text(bytes)),
        Reply::Error(bytes) => format!("-{}", text(bytes)),
        Reply::Array(items) => {
            let items: Vec<String> = items.iter().take(8).map(show).collect();
            format!("[{}]", items.join(", "))
        }
        Reply::Map(pairs) => format!("a map of {}", pairs.len()),
        other => format!("{other:?}"),
    }
}

/// The bytes that stand for a group's value: all of them follow from the number, and some are
/// large.
#[must_use]
pub fn group_value(tag: u64) -> Vec<u8> {
    let mut bytes = format!("{tag}:").into_bytes();
    let len = match tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60 {
        0 => 40_000,
        1 | 2 => 5_000,
        _ => 30,
    };
    bytes.resize(len, b'a' + (tag % 23) as u8);
    bytes
}

fn tag_of(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.split(|byte| *byte == b':').next()?;
    let tag = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (group_value(tag) == bytes).then_some(tag)
}
