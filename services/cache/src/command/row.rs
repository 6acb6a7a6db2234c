//! The shape of a command table row, and the const builders that keep the table short.
//!
//! One row drives dispatch, arity errors, key extraction and the `COMMAND` family. Flags, ACL
//! categories and documentation follow Redis 7.0.15, so `COMMAND` answers alike.

use std::{iter::StepBy, ops::Range};

use wire::resp::parse_i64;

use super::Exec;
use crate::watch;

/// A set of command flags or ACL categories; bits are named by [`FLAG_NAMES`] and [`ACL_NAMES`].
pub type Bits = u32;

/// Flags, in the order `COMMAND` lists them.
pub const FLAG_NAMES: [&str; 21] = [
    "write",
    "readonly",
    "denyoom",
    "module",
    "admin",
    "pubsub",
    "noscript",
    "blocking",
    "loading",
    "stale",
    "skip_monitor",
    "skip_slowlog",
    "asking",
    "fast",
    "no_auth",
    "may_replicate",
    "no_mandatory_keys",
    "movablekeys",
    "allow_busy",
    "no_async_loading",
    "no_multi",
];
/// Changes the key space.
pub const WRITE: Bits = 1;
/// Only reads it.
pub const READONLY: Bits = 1 << 1;
/// Refused when memory is full.
pub const DENYOOM: Bits = 1 << 2;
/// Publish and subscribe.
pub const PUBSUB: Bits = 1 << 5;
/// For administrators.
pub const ADMIN: Bits = 1 << 4;
/// Not from scripts.
pub const NOSCRIPT: Bits = 1 << 6;
/// May wait for other clients.
pub const BLOCKING: Bits = 1 << 7;
/// While loading.
pub const LOADING: Bits = 1 << 8;
/// On a stale replica.
pub const STALE: Bits = 1 << 9;
/// Hidden from MONITOR.
pub const SKIP_MONITOR: Bits = 1 << 10;
/// Hidden from SLOWLOG.
pub const SKIP_SLOWLOG: Bits = 1 << 11;
/// Constant or logarithmic time.
pub const FAST: Bits = 1 << 13;
/// Before authentication.
pub const NO_AUTH: Bits = 1 << 14;
/// May change keys that only it knows of.
pub const MAY_REPLICATE: Bits = 1 << 15;
/// It may come without any key.
pub const NO_MANDATORY_KEYS: Bits = 1 << 16;
/// Where its keys are depends on its arguments.
pub const MOVABLE_KEYS: Bits = 1 << 17;
/// While a script blocks the server.
pub const ALLOW_BUSY: Bits = 1 << 18;
/// Not while a replica loads beside what it serves.
pub const NO_ASYNC_LOADING: Bits = 1 << 19;
/// Not in a transaction.
pub const NO_MULTI: Bits = 1 << 20;

/// ACL categories, in Redis' order.
pub const ACL_NAMES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];
/// `@keyspace`.
pub const A_KEYSPACE: Bits = 1;
/// `@read`.
pub const A_READ: Bits = 1 << 1;
/// `@write`.
pub const A_WRITE: Bits = 1 << 2;
/// `@string`.
pub const A_STRING: Bits = 1 << 7;
/// `@set`.
pub const A_SET: Bits = 1 << 3;
/// `@sortedset`.
pub const A_SORTEDSET: Bits = 1 << 4;
/// `@list`.
pub const A_LIST: Bits = 1 << 5;
/// `@hash`.
pub const A_HASH: Bits = 1 << 6;
/// `@bitmap`.
pub const A_BITMAP: Bits = 1 << 8;
/// `@hyperloglog`.
pub const A_HYPERLOGLOG: Bits = 1 << 9;
/// `@geo`.
pub const A_GEO: Bits = 1 << 10;
/// `@stream`.
pub const A_STREAM: Bits = 1 << 11;
/// `@pubsub`.
pub const A_PUBSUB: Bits = 1 << 12;
/// `@blocking`.
pub const A_BLOCKING: Bits = 1 << 16;
/// `@transaction`.
pub const A_TRANSACTION: Bits = 1 << 19;
/// `@scripting`.
pub const A_SCRIPTING: Bits = 1 << 20;
/// `@admin`.
pub const A_ADMIN: Bits = 1 << 13;
/// `@fast`.
pub const A_FAST: Bits = 1 << 14;
/// `@slow`.
pub const A_SLOW: Bits = 1 << 15;
/// `@dangerous`.
pub const A_DANGEROUS: Bits = 1 << 17;
/// `@connection`.
pub const A_CONNECTION: Bits = 1 << 18;

/// Where a command's keys are, and what it does to them.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// A remark for people.
    pub notes: Option<&'static str>,
    /// What the command does to these keys, in Redis' words.
    pub flags: &'static [&'static str],
    /// Index of the first key; after [`keyword`](Self::keyword), relative to that; of the number of keys with
    /// [`counted`](Self::counted).
    pub first: u8,
    /// Last key relative to the first; negative: relative to the last argument.
    pub last: i8,
    /// Distance from key to key.
    pub step: u8,
    /// The keys come after this word, which is looked for from this argument on.
    pub keyword: Option<(&'static str, u8)>,
    /// The keys come after their number.
    pub counted: bool,
    /// Redis does not say where its keys are; with [`keyword`](Self::keyword) they are found all the same, else there
    /// are none that could be told from the arguments.
    pub unknown: bool,
    /// With a negative `last`: only this part of the arguments that are left; 0 and 1 for all, 2 for one half.
    pub limit: u8,
}

impl KeySpec {
    /// One key, the first argument.
    pub const ONE: Self = Self {
        notes: None,
        flags: &[],
        first: 1,
        last: 0,
        step: 1,
        keyword: None,
        counted: false,
        unknown: false,
        limit: 0,
    };

    /// Indices of its keys.
    fn range<'f>(&self, argc: usize, arg: &impl Fn(usize) -> &'f [u8]) -> StepBy<Range<usize>> {
        let step = usize::from(self.step).max(1);
        let none = (0..0).step_by(1);
        let first = match self.keyword {
            None if self.unknown => return none,
            None => usize::from(self.first),
            Some((word, from)) => {
                let is_word = |at: &usize| arg(*at).eq_ignore_ascii_case(word.as_bytes());
                match (usize::from(from)..argc).find(is_word) {
                    Some(at) => at + 1,
                    None => return none,
                }
            }
        };
        if self.counted {
            let count = parse_i64(arg(first)).and_then(|count| usize::try_from(count).ok());
            let end = count.and_then(|count| first.checked_add(1)?.checked_add(count));
            return match end.filter(|&end| end <= argc) {
                Some(end) => (first + 1..end).step_by(step),
                None => none,
            };
        }
        let last = match self.last {
            last if last >= 0 => first + last.unsigned_abs() as usize,
            last => {
                let end = (argc + 1).saturating_sub(last.unsigned_abs() as usize);
                let left = end.saturating_sub(first) / usize::from(self.limit).max(1);
                (first + left).saturating_sub(1)
            }
        };
        (first..(last + 1).min(argc)).step_by(step)
    }
}

/// One argument in `COMMAND DOCS`.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Its name.
    pub name: &'static str,
    /// Its type, in Redis' words.
    pub kind: &'static str,
    /// The key spec it belongs to.
    pub key_spec: Option<u8>,
    /// The word before it.
    pub token: Option<&'static str>,
    /// The version that brought it.
    pub since: Option<&'static str>,
    /// The version that discouraged it.
    pub deprecated: Option<&'static str>,
    /// `optional`, `multiple`, `multiple_token`.
    pub flags: &'static [&'static str],
    /// Parts of a block or a choice.
    pub args: &'static [Self],
}

/// An argument of `COMMAND DOCS`.
#[must_use]
pub const fn arg(name: &'static str, kind: &'static str) -> Arg {
    Arg {
        name,
        kind,
        key_spec: None,
        token: None,
        since: None,
        deprecated: None,
        flags: &[],
        args: &[],
    }
}

impl Arg {
    /// Sets the key spec.
    #[must_use]
    pub const fn spec(mut self, index: u8) -> Self {
        self.key_spec = Some(index);
        self
    }
    /// Sets the word before the argument.
    #[must_use]
    pub const fn token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }
    /// Sets the version.
    #[must_use]
    pub const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }
    /// Sets the version that discouraged it.
    #[must_use]
    pub const fn deprecated(mut self, version: &'static str) -> Self {
        self.deprecated = Some(version);
        self
    }
    /// Sets the flags.
    #[must_use]
    pub const fn flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        self
    }
    /// Sets the parts.
    #[must_use]
    pub const fn args(mut self, args: &'static [Self]) -> Self {
        self.args = args;
        self
    }
}

/// How a command is spread over shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// By its keys; without keys, on the connection's own shard.
    Keys,
    /// It changes or shows the connection: never reordered with commands sent to other shards.
    Connection,
    /// It concerns all shards (DBSIZE, KEYS, INFO …).
    AllShards,
    /// It runs a script: by its keys, but it may use others than its arguments say.
    Script,
}

/// One command, or one subcommand of a container.
#[derive(Clone, Copy)]
pub struct Row {
    /// Lower case; a subcommand's name is `container|sub`.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least that many.
    pub arity: i16,
    /// What runs it.
    pub exec: Exec,
    /// See [`FLAG_NAMES`].
    pub flags: Bits,
    /// See [`ACL_NAMES`].
    pub acl: Bits,
    /// Index of the first key, 0 for none.
    pub first_key: u8,
    /// Index of the last key; negative: from the end.
    pub last_key: i8,
    /// Distance from key to key.
    pub key_step: u8,
    /// How it is spread.
    pub scope: Scope,
    /// Hints for clients.
    pub tips: &'static [&'static str],
    /// Key specifications.
    pub specs: &'static [KeySpec],
    /// Subcommands.
    pub subs: &'static [Self],
    /// Functional group.
    pub group: &'static str,
    /// The Redis version that brought it.
    pub since: &'static str,
    /// Time complexity.
    pub complexity: Option<&'static str>,
    /// One line.
    pub summary: &'static str,
    /// Version and what changed.
    pub history: &'static [(&'static str, &'static str)],
    /// Deprecated since, replaced by.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Documentation flags other than `deprecated`.
    pub doc_flags: &'static [&'static str],
    /// Arguments in `COMMAND DOCS`.
    pub args: &'static [Arg],
    /// What runs it without being timed.
    pub inner: Exec,
}

/// A row with nothing but its name, arity and function.
#[must_use]
pub const fn row(name: &'static str, arity: i16, exec: Exec) -> Row {
    Row {
        name,
        arity,
        exec,
        flags: 0,
        acl: 0,
        first_key: 0,
        last_key: 0,
        key_step: 0,
        scope: Scope::Keys,
        tips: &[],
        specs: &[],
        subs: &[],
        group: "",
        since: "",
        complexity: None,
        summary: "",
        history: &[],
        deprecated: None,
        doc_flags: &[],
        args: &[],
        inner: exec,
    }
}

impl Row {
    /// Sets flags and ACL categories.
    #[must_use]
    pub const fn flags(mut self, flags: Bits, acl: Bits) -> Self {
        self.flags = flags;
        self.acl = acl;
        // What is not flagged as fast may be slow.
        self.exec = if flags & FAST == 0 { watch::timed } else { self.inner };
        self
    }
    /// A command that is short in practice, although it is not flagged as fast: not worth two looks at the clock.
    #[must_use]
    pub const fn untimed(mut self) -> Self {
        self.exec = self.inner;
        self
    }
    /// Sets the key positions.
    #[must_use]
    pub const fn keys(mut self, first: u8, last: i8, step: u8, specs: &'static [KeySpec]) -> Self {
        self.first_key = first;
        self.last_key = last;
        self.key_step = step;
        self.specs = specs;
        self
    }
    /// Sets how the command is spread over shards.
    #[must_use]
    pub const fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
    /// Sets the hints.
    #[must_use]
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }
    /// Sets the subcommands.
    #[must_use]
    pub const fn subs(mut self, subs: &'static [Self]) -> Self {
        self.subs = subs;
        self
    }
    /// Sets group, version and summary.
    #[must_use]
    pub const fn doc(
        mut self,
        group: &'static str,
        since: &'static str,
        summary: &'static str,
    ) -> Self {
        self.group = group;
        self.since = since;
        self.summary = summary;
        self
    }
    /// Sets the complexity.
    #[must_use]
    pub const fn complexity(mut self, complexity: &'static str) -> Self {
        self.complexity = Some(complexity);
        self
    }
    /// Sets the history.
    #[must_use]
    pub const fn history(mut self, history: &'static [(&'static str, &'static str)]) -> Self {
        self.history = history;
        self
    }
    /// Marks the command deprecated.
    #[must_use]
    pub const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.deprecated = Some((since, replaced_by));
        self
    }
    /// Sets documentation flags.
    #[must_use]
    pub const fn doc_flags(mut self, flags: &'static [&'static str]) -> Self {
        self.doc_flags = flags;
        self
    }
    /// Sets the documented arguments.
    #[must_use]
    pub const fn args(mut self, args: &'static [Arg]) -> Self {
        self.args = args;
        self
    }
    /// Indices of the keys that the command may write.
    #[must_use]
    pub fn written_indices<'f>(&self, argc: usize, arg: impl Fn(usize) -> &'f [u8]) -> Vec<usize> {
        let written = self.specs.iter().filter(|spec| !spec.flags.contains(&"RO"));
        written.flat_map(|spec| spec.range(argc, &arg)).collect()
    }

    /// Whether `argc` arguments, the name included, are right.
    #[must_use]
    pub const fn accepts(&self, argc: usize) -> bool {
        if self.arity >= 0 {
            argc == self.arity as usize
        } else {
            argc >= self.arity.unsigned_abs() as usize
        }
    }
    /// The name without its container.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }
    /// Whether it has keys at all.
    #[must_use]
    pub const fn has_keys(&self) -> bool {
        self.first_key != 0 || self.flags & MOVABLE_KEYS != 0
    }

    /// Indices of the keys, each with what the command does to it in Redis' words.
    pub fn keys_with_flags<'f, A: Fn(usize) -> &'f [u8]>(
        &self,
        argc: usize,
        arg: &A,
    ) -> Vec<(usize, &'static [&'static str])> {
        const READ: &[&str] = &["RO", "access"];
        const CHANGE: &[&str] = &["RW", "access", "update"];
        const OVERWRITE: &[&str] = &["OW", "update"];
        let has = |from: usize, word: &str| {
            (from..argc).any(|at| arg(at).eq_ignore_ascii_case(word.as_bytes()))
        };
        match self.name {
            // Whether they read or write is told by their options.
            "set" => vec![(1, if has(3, "GET") { CHANGE } else { OVERWRITE })],
            "bitfield" => vec![(1, if has(2, "SET") || has(2, "INCRBY") { CHANGE } else { READ })],
            _ if self.specs.is_empty() => {
                self.key_indices(argc, arg).map(|at| (at, CHANGE)).collect()
            }
            _ => {
                let of = |spec: &KeySpec| {
                    let flags = spec.flags;
                    spec.range(argc, arg).map(move |at| (at, flags))
                };
                self.specs.iter().flat_map(of).collect()
            }
        }
    }

    /// Indices of the keys among a command's `argc` arguments. Of movable ones, those that can be made out.
    pub fn key_indices<'f, A: Fn(usize) -> &'f [u8]>(
        &self,
        argc: usize,
        arg: A,
    ) -> impl Iterator<Item = usize> + use<'f, A> {
        let (mut plain, mut movable) = ((0..0).step_by(1), Vec::new());
        if self.flags & MOVABLE_KEYS == 0 {
            let first = usize::from(self.first_key);
            let last = match self.last_key {
                last if last >= 0 => last.unsigned_abs() as usize,
                last => argc.saturating_sub(last.unsigned_abs() as usize),
            };
            let end = if first == 0 { 0 } else { (last + 1).min(argc) };
            plain = (first..end).step_by(usize::from(self.key_step).max(1));
        } else {
            movable.extend(self.specs.iter().flat_map(|spec| spec.range(argc, &arg)));
        }
        plain.chain(movable)
    }
}
