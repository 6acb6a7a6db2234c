//! Random commands on streams.
//!
//! Where next: `../differential.rs` sends them.

use super::Build;

const STREAM_NAMES: &[&str] = &[
    "XADD",
    "XADD",
    "XADD",
    "XADD",
    "XLEN",
    "XRANGE",
    "XREVRANGE",
    "XREAD",
    "XDEL",
    "XTRIM",
    "XSETID",
    "XACK",
    "XGROUP",
    "XGROUP",
    "XREADGROUP",
    "XREADGROUP",
    "XPENDING",
    "XCLAIM",
    "XAUTOCLAIM",
    "XINFO",
];
const GROUPS: &[&str] = &["g", "g", "g", "h"];
const CONSUMERS: &[&str] = &["alice", "bob", "carol"];
const IDS: &[&str] = &[
    "1-1",
    "1-2",
    "2-0",
    "2",
    "3-3",
    "5",
    "0",
    "4-1",
    "9-9",
    "0-0",
    "18446744073709551615-1",
    "abc",
    "",
];
const NEW_IDS: &[&str] =
    &["1-1", "1-2", "2-*", "3-*", "3-*", "5-*", "5-*", "7", "9-9", "9-*", "0-0", "abc"];
const BOUNDS: &[&str] = &["-", "+", "-", "+", "1-1", "2", "(1-1", "(2", "3-3", "(0-0", "abc", "("];
const COUNTS: &[&str] = &["1", "2", "3", "10", "0", "-1", "abc"];

impl Build<'_> {
    /// A stream's command on one key; none whose reply shows the clock.
    pub(super) fn stream_command(&mut self, which: usize) {
        let name = STREAM_NAMES[which % STREAM_NAMES.len()];
        self.word(name);
        match name {
            "XREAD" | "XREADGROUP" => self.stream_read(name == "XREADGROUP"),
            "XGROUP" => self.stream_group(),
            "XINFO" => {
                self.word("GROUPS");
                self.key();
            }
            _ => {
                self.key();
                self.stream_arguments(name);
            }
        }
    }

    fn stream_read(&mut self, in_group: bool) {
        if in_group {
            self.word("GROUP");
            self.one(GROUPS);
            self.one(CONSUMERS);
        }
        if self.rng.one_in(2) {
            self.word("COUNT");
            self.one(COUNTS);
        }
        if self.rng.one_in(6) {
            self.word("NOACK");
        }
        self.word("STREAMS");
        self.key();
        let ids = if self.rng.one_in(2) { IDS } else { &[">", "$"] };
        self.one(ids);
    }

    fn stream_group(&mut self) {
        let names =
            ["CREATE", "CREATE", "CREATE", "SETID", "DESTROY", "CREATECONSUMER", "DELCONSUMER"];
        let name = names[self.rng.below(names.len())];
        self.word(name);
        self.key();
        self.one(GROUPS);
        match name {
            "CREATE" | "SETID" => self.one(&["$", "0", "0", "1-1", "2", "abc", "-"]),
            "DESTROY" => {}
            _ => self.one(CONSUMERS),
        }
        self.one_of_three(&["MKSTREAM", "ENTRIESREAD", "FOO"]);
    }

    /// What comes after the key.
    fn stream_arguments(&mut self, name: &str) {
        match name {
            "XADD" => {
                self.trim_options();
                self.one(NEW_IDS);
                self.some(3, |b| b.one(&["field", "f", "g", "1", "-5", ""]));
                self.one(&["value", "12", ""]);
            }
            "XTRIM" => self.trim_options(),
            "XRANGE" | "XREVRANGE" => {
                self.one(BOUNDS);
                self.one(BOUNDS);
                if self.rng.one_in(2) {
                    self.word("COUNT");
                    self.one(COUNTS);
                }
            }
            "XDEL" => self.some(3, |b| b.one(IDS)),
            "XSETID" => self.one(IDS),
            "XACK" => {
                self.one(GROUPS);
                self.some(3, |b| b.one(IDS));
            }
            "XPENDING" => self.one(GROUPS),
            "XCLAIM" => {
                self.one(GROUPS);
                self.one(CONSUMERS);
                self.word("0");
                self.some(3, |b| b.one(IDS));
                self.one_of_three(&["FORCE", "JUSTID", "RETRYCOUNT", "IDLE"]);
            }
            "XAUTOCLAIM" => {
                self.one(GROUPS);
                self.one(CONSUMERS);
                self.word("0");
                self.one(BOUNDS);
                self.one_of_three(&["JUSTID", "COUNT"]);
            }
            _ => {}
        }
    }

    /// One of these words in one of three cases.
    fn one_of_three(&mut self, words: &[&str]) {
        if self.rng.one_in(3) {
            self.one(words);
            if self.rng.one_in(2) {
                self.one(&["1", "0", "5", "-1", "abc"]);
            }
        }
    }

    fn trim_options(&mut self) {
        if self.rng.one_in(3) {
            self.one(&["MAXLEN", "MINID", "LIMIT", "NOMKSTREAM"]);
            if self.rng.one_in(2) {
                self.one(&["~", "=", "LIMIT"]);
            }
            self.one(&["0", "1", "2", "5", "3-3", "-1", "abc"]);
        }
    }
}
