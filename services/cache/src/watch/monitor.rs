//! MONITOR: every command, as text, to those who asked to see them.
//!
//! A monitor sees the commands of all shards: each shard knows on which shards there are monitors, and posts its lines
//! there. Invariants: passwords are not shown; what waits for a monitor is bounded, and lines beyond that are lost.

use std::borrow::Cow;

use bytes::Bytes;
use wire::resp::Args;

use crate::{
    admin::Ask,
    command::{
        Conn,
        row::{ADMIN, Row, SKIP_MONITOR, Scope},
    },
    shard::Shard,
    work::{Op, Request},
};

/// Most bytes of lines that wait to be handed over.
const LINES_MAX_BYTES: usize = 8 << 20;
/// Most requests to other shards that wait for room.
const POSTS_MAX: usize = 4_096;

/// Who watches.
#[derive(Debug, Default)]
pub(crate) struct Monitors {
    /// Places of this shard's connections that do.
    here: Vec<u32>,
    /// How many there are on each shard.
    counts: Vec<u32>,
    /// Lines for those here.
    lines: Vec<u8>,
}

impl Monitors {
    pub(crate) fn any(&self) -> bool {
        self.counts.iter().any(|count| *count > 0)
    }

    /// Notes how many there are on a shard.
    pub(crate) fn set_count(&mut self, shard: u16, count: u32) {
        let at = usize::from(shard);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        if let Some(place) = self.counts.get_mut(at) {
            *place = count;
        }
    }

    /// Adds a connection; how many there are here then.
    pub(crate) fn add(&mut self, slot: u32) -> u32 {
        if !self.here.contains(&slot) {
            self.here.push(slot);
        }
        u32::try_from(self.here.len()).unwrap_or(u32::MAX)
    }

    /// Removes a connection; how many are left, if it was one.
    fn remove(&mut self, slot: u32) -> Option<u32> {
        let at = self.here.iter().position(|known| *known == slot)?;
        self.here.swap_remove(at);
        if self.here.is_empty() {
            self.lines.clear();
        }
        Some(u32::try_from(self.here.len()).unwrap_or(u32::MAX))
    }

    /// Lines for the monitors here.
    pub(crate) fn show(&mut self, lines: &[u8]) {
        if !self.here.is_empty() && self.lines.len() + lines.len() <= LINES_MAX_BYTES {
            self.lines.extend_from_slice(lines);
        }
    }
}

/// Arguments as they may be shown: without passwords.
pub(crate) fn redacted<'a>(row: &Row, args: &'a Args, frame: &'a [u8]) -> Vec<&'a [u8]> {
    const HIDDEN: &[u8] = b"(redacted)";
    let arg = |at| args.get(at, frame);
    let is_secret = |at: usize| match row.name {
        "auth" => at > 0,
        "acl|setuser" | "acl|deluser" | "acl|getuser" => at > 1,
        "hello" => {
            (at > 2 && arg(at - 1).eq_ignore_ascii_case(b"auth"))
                || (at > 3 && arg(at - 2).eq_ignore_ascii_case(b"auth"))
        }
        "config|set" => {
            let secret: [&[u8]; 3] = [b"requirepass", b"masterauth", b"masteruser"];
            at > 2
                && at % 2 == 1
                && secret.iter().any(|name| arg(at - 1).eq_ignore_ascii_case(name))
        }
        _ => false,
    };
    (0..args.len()).map(|at| if is_secret(at) { HIDDEN } else { arg(at) }).collect()
}

/// A string in quotes, with everything that is not printable escaped.
pub(crate) fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        let escaped: Cow<'static, [u8]> = match byte {
            b'\\' => Cow::Borrowed(b"\\\\"),
            b'"' => Cow::Borrowed(b"\\\""),
            b'\n' => Cow::Borrowed(b"\\n"),
            b'\r' => Cow::Borrowed(b"\\r"),
            b'\t' => Cow::Borrowed(b"\\t"),
            7 => Cow::Borrowed(b"\\a"),
            8 => Cow::Borrowed(b"\\b"),
            b' '..=b'~' => Cow::Owned(vec![byte]),
            _ => Cow::Owned(format!("\\x{byte:02x}").into_bytes()),
        };
        out.extend_from_slice(&escaped);
    }
    out.push(b'"');
}

impl Shard {
    /// Shows a command to all monitors.
    pub(crate) fn show_command(
        &mut self,
        conn: &Conn,
        row: &Row,
        args: &Args,
        frame: &[u8],
        unix_us: u64,
    ) {
        // EVAL and its like are skipped in Redis' table, but show themselves before what they call.
        let is_script = row.scope == Scope::Script;
        let is_hidden = row.flags & ADMIN != 0 || row.flags & SKIP_MONITOR != 0 && !is_script;
        if !self.watch.monitors.any() || is_hidden {
            return;
        }
        let peer = match self.clients.get(conn.slot) {
            _ if conn.scripted => "lua",
            record => record.map_or("", |record| &*record.peer),
        };
        let mut line =
            format!("+{}.{:06} [{} {peer}]", unix_us / 1_000_000, unix_us % 1_000_000, conn.db)
                .into_bytes();
        for arg in redacted(row, args, frame) {
            line.push(b' ');
            quote(arg, &mut line);
        }
        line.extend_from_slice(b"\r\n");
        self.watch.monitors.show(&line);
        for target in 0..self.count {
            let count = self.watch.monitors.counts.get(usize::from(target)).copied();
            if target != self.index && count.is_some_and(|count| count > 0) {
                self.post_ask(target, Ask::Show(line.clone()));
            }
        }
    }

    /// Asks another shard for something without waiting for the answer. With no room for it, it is lost.
    pub(crate) fn post_ask(&mut self, target: u16, ask: Ask) {
        if self.posts.len() < POSTS_MAX || !matches!(ask, Ask::Show(_)) {
            let op = Op::Admin(ask);
            self.posts.push_back((target, Request::Op { ticket: 0, op, unlock: false }));
        }
    }

    /// A connection stops watching, as it ends or by RESET.
    pub(crate) fn stop_watching(&mut self, slot: u32) {
        let Some(count) = self.watch.monitors.remove(slot) else { return };
        if let Some(record) = self.clients.get_mut(slot) {
            record.monitors = false;
        }
        for target in 0..self.count {
            if target == self.index {
                self.watch.monitors.set_count(target, count);
                self.look_again();
            } else {
                self.post_ask(target, Ask::Monitors { shard: self.index, count });
            }
        }
    }

    /// Whether monitors have something to read.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        !self.watch.monitors.lines.is_empty()
    }

    /// What monitors are to read, and the host's names for them. Look once per turn, and before the shard sleeps.
    pub fn take_lines(&mut self) -> (Bytes, Vec<u64>) {
        let lines = Bytes::from(std::mem::take(&mut self.watch.monitors.lines));
        let name = |slot: &u32| self.clients.get(*slot).map(|record| record.conn);
        (lines, self.watch.monitors.here.iter().filter_map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_by_redis() {
        let mut out = Vec::new();
        quote(b"a\"\\\n\r\t\x07\x08\x00\xff ~", &mut out);
        assert_eq!(out, b"\"a\\\"\\\\\\n\\r\\t\\a\\b\\x00\\xff ~\"");
    }

    #[test]
    fn lines_beyond_the_bound_are_lost() {
        let mut monitors = Monitors::default();
        monitors.show(b"nobody");
        assert!(monitors.lines.is_empty());
        monitors.add(1);
        let line = vec![b'x'; LINES_MAX_BYTES];
        monitors.show(&line);
        monitors.show(b"x");
        assert_eq!(monitors.lines.len(), LINES_MAX_BYTES);
        assert_eq!(monitors.remove(2), None);
        assert_eq!(monitors.remove(1), Some(0));
    }
}
