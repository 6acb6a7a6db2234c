//! Random command sequences against redis-server 7.0.15 and against ours: equal replies.
//!
//! What: seeded sequences over a small key space, with random options and garbage arguments, sent to
//! both servers command by command. A sequence that differs is shrunk by leaving out commands while it
//! still differs, and printed with its seed. Invariants: what depends on the clock or on a random choice
//! is compared by its shape only ([`equal`]); no generated expiry is due while a sequence runs.
//! `DIFFERENTIAL_SEED=n` starts at another seed, `DIFFERENTIAL_SEQUENCES=n` runs more or fewer.
//! Where next: `golden.rs` for what is compared word by word.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes: it measures and reads the environment"
)]

mod common;
#[path = "differential/elements.rs"]
mod elements;
#[path = "differential/ordered.rs"]
mod ordered;
#[path = "differential/streams.rs"]
mod streams;

use std::collections::BTreeSet;
use std::time::Instant;

use common::Rng;
use common::pattern::render;
use common::resp::{Client, Reply};
use common::server::{Server, Turn, must};

const SEQUENCES: u64 = 2_500;
const COMMANDS: usize = 30;

/// Kinds of differences printed before the test gives up.
const MAX_REPORTED: usize = 20;

const KEYS: &[&str] = &["a", "b", "c", "d", "{t}1", "{t}2", "key:1", ""];
const VALUES: &[&str] = &[
    "",
    "v",
    "hello world",
    "0",
    "1",
    "-1",
    "10",
    "9999",
    "10000",
    "123456789012",
    "1.5",
    "-0.25",
    "1e3",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    " 1",
    "01",
    "+1",
    "nan",
    "inf",
    "abc\r\ndef",
    "ohmytext",
    "mynewtext",
    "a value of some forty-four bytes, exactly so.",
    "a value of some more than forty-four bytes, it is raw",
];
const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "5",
    "100",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "abc",
    "",
    "1.5",
    " 1",
    "00",
];
const FLOATS: &[&str] = &[
    "0", "1", "0.1", "-0.1", "1.5", "3.0e3", "1e-5", "100", "-7.25", "abc", "", "inf", "nan", " 1",
    "0x10", "1e400",
];
const SECONDS: &[&str] = &[
    "100",
    "1000",
    "100000",
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775",
    "abc",
    "",
    "1.5",
];
const MILLIS: &[&str] = &[
    "100000",
    "1000000",
    "100000000",
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "abc",
    "1.5",
];
const AT_SECONDS: &[&str] = &[
    "33177117420",
    "33177117421",
    "44000000000",
    "1",
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775",
    "abc",
];
const AT_MILLIS: &[&str] = &[
    "33177117420123",
    "33177117420499",
    "33177117420500",
    "44000000000001",
    "1",
    "0",
    "-1",
    "9223372036854775807",
    "abc",
];
const CONDITIONS: &[&str] = &["NX", "XX", "GT", "LT", "nx", "xx", "gt", "lt", "FOO", ""];
const GLOBS: &[&str] =
    &["*", "a*", "?", "[a-c]", "[^a]", "{t}*", "key:?", "", "\\a", "*t*", "[", "x"];

type Command = Vec<Vec<u8>>;

/// Builds one command from a generator.
struct Build<'a> {
    rng: &'a mut Rng,
    args: Command,
}

impl Build<'_> {
    fn word(&mut self, word: &str) {
        // Letter case never matters to either server.
        let word = if self.rng.one_in(12) { word.to_ascii_lowercase() } else { word.to_owned() };
        self.args.push(word.into_bytes());
    }

    fn one(&mut self, options: &[&str]) {
        let text = self.rng.pick(options);
        self.args.push(text.as_bytes().to_vec());
    }

    fn key(&mut self) {
        self.one(KEYS);
    }

    fn value(&mut self) {
        if self.rng.one_in(40) {
            let len =
                self.rng.pick(&["100", "4095", "4096", "5000", "40000"]).parse().expect("a number");
            self.args.push(vec![b'x'; len]);
        } else {
            self.one(VALUES);
        }
    }

    fn some(&mut self, most: usize, mut one: impl FnMut(&mut Self)) {
        for _ in 0..=self.rng.below(most) {
            one(self);
        }
    }

    /// An expiry as SET and GETEX take it.
    fn expiry(&mut self) {
        let forms = [("EX", SECONDS), ("PX", MILLIS), ("EXAT", AT_SECONDS), ("PXAT", AT_MILLIS)];
        let (word, values) = forms[self.rng.below(forms.len())];
        self.word(word);
        if !self.rng.one_in(15) {
            self.one(values);
        }
    }

    fn set_options(&mut self) {
        for _ in 0..self.rng.below(4) {
            match self.rng.below(8) {
                0 => self.word("NX"),
                1 => self.word("XX"),
                2 | 3 => self.word("GET"),
                4 => self.word("KEEPTTL"),
                5 | 6 => self.expiry(),
                _ => self.one(&["PERSIST", "FOO", "", "IFEQ"]),
            }
        }
    }

    fn string_command(&mut self, which: usize) {
        let names = [
            "GET",
            "SET",
            "SETNX",
            "SETEX",
            "PSETEX",
            "GETSET",
            "GETDEL",
            "GETEX",
            "MGET",
            "MSET",
            "MSETNX",
            "INCR",
            "DECR",
            "INCRBY",
            "DECRBY",
            "INCRBYFLOAT",
            "APPEND",
            "STRLEN",
            "SETRANGE",
            "GETRANGE",
            "LCS",
            "SUBSTR",
        ];
        let name = names[which % names.len()];
        self.word(name);
        match name {
            "MGET" => return self.some(4, Self::key),
            "MSET" | "MSETNX" => {
                return self.some(3, |b| {
                    b.key();
                    b.value();
                });
            }
            _ => self.key(),
        }
        match name {
            "SET" => {
                self.value();
                self.set_options();
            }
            "SETNX" | "GETSET" | "APPEND" => self.value(),
            "SETEX" => {
                self.one(SECONDS);
                self.value();
            }
            "PSETEX" => {
                self.one(MILLIS);
                self.value();
            }
            "GETEX" => match self.rng.below(4) {
                0 => {}
                1 => self.word("PERSIST"),
                2 => self.expiry(),
                _ => self.set_options(),
            },
            "INCRBY" | "DECRBY" => self.one(INTEGERS),
            "INCRBYFLOAT" => self.one(FLOATS),
            "SETRANGE" => {
                self.one(&["0", "1", "3", "10", "5000", "-1", "536870912", "abc"]);
                self.value();
            }
            "GETRANGE" | "SUBSTR" => {
                self.one(INTEGERS);
                self.one(INTEGERS);
            }
            "LCS" => self.lcs_options(),
            _ => {}
        }
    }

    fn lcs_options(&mut self) {
        self.key();
        for _ in 0..self.rng.below(4) {
            match self.rng.below(5) {
                0 => self.word("LEN"),
                1 => self.word("IDX"),
                2 => self.word("WITHMATCHLEN"),
                3 => {
                    self.word("MINMATCHLEN");
                    self.one(&["0", "1", "2", "3", "-1", "abc"]);
                }
                _ => self.one(&["FOO", "MINMATCHLEN"]),
            }
        }
    }

    fn copy_options(&mut self) {
        for _ in 0..self.rng.below(3) {
            match self.rng.below(4) {
                0 | 1 => self.word("REPLACE"),
                2 => {
                    self.word("DB");
                    self.one(&["0", "1", "2", "15", "16", "-1", "abc", ""]);
                }
                _ => self.one(&["DB", "FOO"]),
            }
        }
    }

    fn key_command(&mut self, which: usize) {
        let names = [
            "DEL",
            "UNLINK",
            "EXISTS",
            "TOUCH",
            "TYPE",
            "RENAME",
            "RENAMENX",
            "COPY",
            "RANDOMKEY",
            "KEYS",
            "SCAN",
            "DBSIZE",
            "SELECT",
            "FLUSHDB",
            "FLUSHALL",
            "OBJECT",
            "MEMORY",
            "PERSIST",
            "ECHO",
            "PING",
        ];
        let name = names[which % names.len()];
        self.word(name);
        match name {
            "DEL" | "UNLINK" | "EXISTS" | "TOUCH" => self.some(3, Self::key),
            "TYPE" | "PERSIST" => self.key(),
            "RENAME" | "RENAMENX" => {
                self.key();
                self.key();
            }
            "COPY" => {
                self.key();
                self.key();
                self.copy_options();
            }
            "KEYS" => self.one(GLOBS),
            "SCAN" => self.scan_options(),
            "SELECT" => self.one(&["0", "0", "0", "1", "2", "15", "16", "-1", "abc"]),
            "FLUSHDB" | "FLUSHALL" if self.rng.one_in(2) => {
                self.one(&["ASYNC", "SYNC", "async", "FOO", ""]);
            }
            "OBJECT" => {
                self.one(&["ENCODING", "encoding", "REFCOUNT", "IDLETIME", "FREQ", "FOO"]);
                self.key();
            }
            "MEMORY" => {
                self.word("USAGE");
                self.key();
                if self.rng.one_in(3) {
                    self.one(&["SAMPLES", "FOO"]);
                    self.one(&["0", "5", "-1", "abc"]);
                }
            }
            "ECHO" | "PING" => self.value(),
            _ => {}
        }
    }

    fn scan_options(&mut self) {
        self.one(&["0", "0", "0", "0", "0", "abc", "1.5"]);
        for _ in 0..self.rng.below(3) {
            match self.rng.below(4) {
                0 => {
                    self.word("MATCH");
                    self.one(GLOBS);
                }
                1 => {
                    self.word("COUNT");
                    self.one(&["1", "10", "1000", "0", "-1", "abc"]);
                }
                2 => {
                    self.word("TYPE");
                    self.one(&["string", "STRING", "list", "foo"]);
                }
                _ => self.one(&["FOO", "MATCH", "COUNT"]),
            }
        }
    }

    fn expire_command(&mut self, which: usize) {
        let names = [
            "EXPIRE",
            "PEXPIRE",
            "EXPIREAT",
            "PEXPIREAT",
            "TTL",
            "PTTL",
            "EXPIRETIME",
            "PEXPIRETIME",
        ];
        let name = names[which % names.len()];
        self.word(name);
        self.key();
        match name {
            "EXPIRE" => self.one(SECONDS),
            "PEXPIRE" => self.one(MILLIS),
            "EXPIREAT" => self.one(AT_SECONDS),
            "PEXPIREAT" => self.one(AT_MILLIS),
            _ => return,
        }
        for _ in 0..self.rng.below(3) {
            self.one(CONDITIONS);
        }
    }

    /// Wrong arity or garbage, now and then.
    fn spoil(&mut self) {
        match self.rng.below(4) {
            0 => {
                self.args.truncate(1);
            }
            1 => {
                self.args.pop();
            }
            2 => self.value(),
            _ => {
                let at = self.rng.below(self.args.len());
                self.args[at] = b"\x00\xff garbage".to_vec();
            }
        }
        if self.args.is_empty() {
            self.word("PING");
        }
    }
}

fn generate(seed: u64) -> Vec<Command> {
    let mut rng = Rng::new(seed);
    (0..COMMANDS)
        .map(|_| {
            let which = rng.below(1_000);
            let group = rng.below(56);
            let mut build = Build { rng: &mut rng, args: Vec::new() };
            match group {
                0..=9 => build.string_command(which),
                10..=14 => build.expire_command(which),
                15..=19 => build.key_command(which),
                20..=26 => build.hash_command(which),
                27..=33 => build.set_command(which),
                34..=39 => build.bit_command(which),
                40..=45 => build.stream_command(which),
                _ => ordered::command(&mut build, which),
            }
            if build.rng.one_in(25) && elements::may_spoil(&build.args) {
                build.spoil();
            }
            build.args
        })
        .collect()
}

fn upper(arg: Option<&Vec<u8>>) -> Vec<u8> {
    arg.map(|arg| arg.to_ascii_uppercase()).unwrap_or_default()
}

/// Equal as far as the clock and random choices allow.
fn equal(command: &Command, redis: &Reply, ours: &Reply) -> bool {
    let close = |tolerance: i64| match (redis, ours) {
        (Reply::Int(a), Reply::Int(b)) if *a > 0 && *b > 0 => {
            a.abs_diff(*b) <= tolerance.unsigned_abs()
        }
        _ => redis == ours,
    };
    let name = upper(command.first());
    if let Some(equal) = elements::equal(&name, redis, ours) {
        return equal;
    }
    match name.as_slice() {
        b"TTL" | b"EXPIRETIME" => close(2),
        b"PTTL" | b"PEXPIRETIME" => close(2_000),
        b"RANDOMKEY" => std::mem::discriminant(redis) == std::mem::discriminant(ours),
        // A key that is due and was not yet met has a size in Redis.
        b"MEMORY" => {
            matches!((redis, ours), (Reply::Int(_), Reply::Int(_) | Reply::Nil | Reply::Null))
                || redis == ours
        }
        b"OBJECT" => match upper(command.get(1)).as_slice() {
            b"IDLETIME" | b"REFCOUNT" => {
                matches!((redis, ours), (Reply::Int(_), Reply::Int(_))) || redis == ours
            }
            _ => redis == ours,
        },
        b"KEYS" => sorted(redis) == sorted(ours),
        _ => redis == ours,
    }
}

fn sorted(reply: &Reply) -> Reply {
    match reply {
        Reply::Seq('*', items) => {
            let mut items = items.clone();
            items.sort_by(|a, b| a.bytes().cmp(b.bytes()));
            Reply::Seq('*', items)
        }
        other => other.clone(),
    }
}

/// The reply; a scan is followed to its end, and its elements are sorted and without repeats.
fn reply_of(client: &mut Client, command: &Command) -> Reply {
    let reply = must(client.call(command), "a reply");
    let at = match upper(command.first()).as_slice() {
        b"SCAN" => 1,
        b"HSCAN" | b"SSCAN" => 2,
        _ => return reply,
    };
    if reply.is_error() {
        return reply;
    }
    let (mut keys, mut args, mut page) = (BTreeSet::new(), command.clone(), reply);
    for _ in 0..1_000 {
        let [cursor, found] = page.items() else {
            return page;
        };
        keys.extend(found.items().iter().map(|key| key.bytes().to_vec()));
        args[at] = cursor.bytes().to_vec();
        if args[at] == b"0" {
            return Reply::Seq('*', keys.into_iter().map(Reply::Bulk).collect());
        }
        page = must(client.call(&args), "a page of SCAN");
    }
    Reply::Error(b"the cursor never became 0".to_vec())
}

/// `GT` and `LT` compare with an expiry set at another millisecond on each server: equal on one, later
/// on the other. Such a difference counts only when it happens each time.
fn races_the_clock(command: &Command) -> bool {
    let conditional = command
        .iter()
        .skip(3)
        .any(|arg| matches!(arg.to_ascii_uppercase().as_slice(), b"GT" | b"LT"));
    conditional && upper(command.first()).windows(6).any(|name| name == b"EXPIRE")
}

/// The first command whose replies differ, with both replies.
fn first_difference(
    redis: &mut Client,
    ours: &mut Client,
    commands: &[Command],
) -> Option<(usize, Reply, Reply)> {
    for _ in 0..3 {
        let found = first_difference_once(redis, ours, commands)?;
        if !races_the_clock(&commands[found.0]) {
            return Some(found);
        }
    }
    first_difference_once(redis, ours, commands)
}

fn first_difference_once(
    redis: &mut Client,
    ours: &mut Client,
    commands: &[Command],
) -> Option<(usize, Reply, Reply)> {
    for client in [&mut *redis, &mut *ours] {
        must(client.words("SELECT 0"), "SELECT");
        must(client.words("FLUSHALL"), "FLUSHALL");
    }
    for (index, command) in commands.iter().enumerate() {
        let (theirs, mine) = (reply_of(redis, command), reply_of(ours, command));
        if !equal(command, &theirs, &mine) {
            return Some((index, theirs, mine));
        }
    }
    None
}

/// Leaves out commands while the sequence still differs.
fn shrink(redis: &mut Client, ours: &mut Client, mut commands: Vec<Command>) -> Vec<Command> {
    let mut at = commands.len();
    while at > 0 {
        at -= 1;
        let mut fewer = commands.clone();
        fewer.remove(at);
        if let Some((last, ..)) = first_difference(redis, ours, &fewer) {
            fewer.truncate(last + 1);
            at = at.min(fewer.len());
            commands = fewer;
        }
    }
    commands
}

fn show(command: &Command) -> String {
    let words = command.iter().map(|arg| match arg.len() {
        0..=100 => format!("\"{}\"", arg.escape_ascii()),
        len => format!("<{len} bytes>"),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn compare(shards: u16, protocol: &str, first_seed: u64, sequences: u64) {
    let _turn = Turn::shared();
    let started = Instant::now();
    let redis = match Server::redis(&[]) {
        Ok(redis) => redis,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let cache = Server::cache(shards);
    let (mut theirs, mut mine) = (redis.client(), cache.client());
    for client in [&mut theirs, &mut mine] {
        must(client.call(&["HELLO", protocol]), "HELLO");
    }
    let (mut differ, mut ran, mut known) = (0, 0, BTreeSet::new());
    for seed in first_seed..first_seed + sequences {
        ran += 1;
        let commands = generate(seed);
        let Some((last, ..)) = first_difference(&mut theirs, &mut mine, &commands) else {
            continue;
        };
        differ += 1;
        let shrunk = shrink(&mut theirs, &mut mine, commands[..=last].to_vec());
        let Some((_, expected, got)) = first_difference(&mut theirs, &mut mine, &shrunk) else {
            println!(
                "seed {seed}: differed once, and no longer after shrinking: {}",
                show(&commands[last])
            );
            continue;
        };
        // One cause shows in many sequences: print it once.
        let name = upper(shrunk.last().and_then(|command| command.first()));
        if !known.insert((name, expected.is_error(), got.is_error())) {
            continue;
        }
        println!("seed {seed}, RESP{protocol}, {shards} shard(s):");
        for command in &shrunk {
            println!("    {}", show(command));
        }
        println!("  redis {}\n  ours  {}\n", render(&expected), render(&got));
        if known.len() == MAX_REPORTED {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f32();
    println!(
        "{shards} shard(s), RESP{protocol}: {ran} sequences of {COMMANDS}, {differ} differ, {seconds:.1} s"
    );
    assert_eq!(differ, 0, "sequences differ from redis 7.0.15 (listed above)");
}

#[test]
fn random_sequences_with_one_shard_over_resp2() {
    compare(
        1,
        "2",
        environment("DIFFERENTIAL_SEED", 1),
        environment("DIFFERENTIAL_SEQUENCES", SEQUENCES),
    );
}

#[test]
fn random_sequences_with_two_shards_over_resp3() {
    compare(
        2,
        "3",
        environment("DIFFERENTIAL_SEED", 1_000_001),
        environment("DIFFERENTIAL_SEQUENCES", SEQUENCES),
    );
}
