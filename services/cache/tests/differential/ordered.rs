//! Random commands on sorted sets, lists and places, and SORT.
//!
//! Keys of these types share a tag, so that commands with several keys find them on one shard; now and then one is any
//! key. Lexical ranges are of a set whose scores are equal: of others Redis says nothing.

use super::{Build, FLOATS, INTEGERS};

const ZSETS: &[&str] = &["{t}z1", "{t}z2", "{t}z3", "{t}lex", "{t}none"];
const LISTS: &[&str] = &["{t}l1", "{t}l2", "{t}none"];
const ANY: &[&str] = &["{t}z1", "{t}z2", "{t}l1", "{t}l2", "{t}g", "{t}lex"];
const SCORES: &[&str] = &[
    "0", "1", "2", "2.5", "-3", "1e3", "inf", "-inf", "-0", "0.1", "1e17", "abc", "nan", "", "0x10",
];
const MEMBERS: &[&str] =
    &["a", "b", "c", "d", "aa", "1", "2", "10", "", "long member of some bytes"];
const BOUNDS: &[&str] = &["0", "1", "(1", "2", "(2", "-inf", "+inf", "(inf", "abc", "", "5"];
const LEX: &[&str] = &["-", "+", "[a", "(a", "[b", "(c", "[", "(", "[aa", "a", ""];
const RANKS: &[&str] = &["0", "1", "-1", "2", "-2", "5", "-100", "100", "abc"];
const COUNTS: &[&str] = &["0", "1", "2", "3", "10", "-1", "abc"];
const ENDS: &[&str] = &["LEFT", "RIGHT", "left", "right", "FOO"];

const ZSET_COMMANDS: &[&str] = &[
    "ZADD",
    "ZADD",
    "ZADD",
    "ZADD",
    "ZINCRBY",
    "ZCARD",
    "ZSCORE",
    "ZMSCORE",
    "ZRANK",
    "ZREVRANK",
    "ZCOUNT",
    "ZREM",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
    "ZRANGE",
    "ZRANGE",
    "ZREVRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGEBYSCORE",
    "ZRANGESTORE",
    "ZUNION",
    "ZINTER",
    "ZDIFF",
    "ZUNIONSTORE",
    "ZINTERSTORE",
    "ZDIFFSTORE",
    "ZINTERCARD",
    "ZPOPMIN",
    "ZPOPMAX",
    "ZMPOP",
    "ZSCAN",
    "LEXADD",
    "ZLEXCOUNT",
    "ZRANGEBYLEX",
    "ZREVRANGEBYLEX",
    "ZREMRANGEBYLEX",
];

const LIST_COMMANDS: &[&str] = &[
    "LPUSH",
    "RPUSH",
    "RPUSH",
    "LPUSHX",
    "RPUSHX",
    "LPOP",
    "RPOP",
    "LLEN",
    "LRANGE",
    "LINDEX",
    "LSET",
    "LINSERT",
    "LREM",
    "LTRIM",
    "LPOS",
    "LMOVE",
    "RPOPLPUSH",
    "LMPOP",
];

/// Adds the words of one command.
pub(super) fn command(b: &mut Build<'_>, which: usize) {
    match which % 10 {
        0..=4 => zset(b, which / 10),
        5..=7 => list(b, which / 10),
        8 => geo(b, which / 10),
        _ => sort(b),
    }
}

fn key(b: &mut Build<'_>, keys: &[&str]) {
    if b.rng.one_in(20) {
        b.key();
    } else {
        b.one(keys);
    }
}

/// The word, most of the time.
fn maybe(b: &mut Build<'_>, word: &str, one_in: usize) -> bool {
    let said = b.rng.one_in(one_in);
    if said {
        b.word(word);
    }
    said
}

fn limit(b: &mut Build<'_>) {
    if maybe(b, "LIMIT", 4) {
        b.one(COUNTS);
        b.one(COUNTS);
    }
}

fn numbered_keys(b: &mut Build<'_>, keys: &[&str]) {
    let count = 1 + b.rng.below(3);
    let said = if b.rng.one_in(20) { count + 1 } else { count };
    b.args.push(said.to_string().into_bytes());
    for _ in 0..count {
        b.one(keys);
    }
}

fn zset(b: &mut Build<'_>, which: usize) {
    let name = ZSET_COMMANDS[which % ZSET_COMMANDS.len()];
    match name {
        "LEXADD" => {
            b.word("ZADD");
            b.one(&["{t}lex"]);
            return b.some(4, |b| {
                b.one(&["0"]);
                b.one(MEMBERS);
            });
        }
        "ZUNION" | "ZINTER" | "ZDIFF" | "ZUNIONSTORE" | "ZINTERSTORE" | "ZDIFFSTORE"
        | "ZINTERCARD" | "ZMPOP" => return combine(b, name),
        _ => b.word(name),
    }
    match name {
        "ZLEXCOUNT" | "ZRANGEBYLEX" | "ZREVRANGEBYLEX" | "ZREMRANGEBYLEX" => {
            b.one(&["{t}lex"]);
            b.one(LEX);
            b.one(LEX);
            if name.contains("RANGEBY") && !name.starts_with("ZREM") {
                limit(b);
            }
            return;
        }
        "ZRANGESTORE" => {
            // Not the one whose scores are equal.
            b.one(&["{t}z1", "{t}z2"]);
            b.one(ZSETS);
        }
        // The same.
        "ZADD" | "ZINCRBY" => key(b, &ZSETS[..3]),
        _ => key(b, ZSETS),
    }
    match name {
        "ZADD" => {
            for _ in 0..b.rng.below(3) {
                b.one(&["NX", "XX", "GT", "LT", "CH", "INCR", "ch", "xx"]);
            }
            b.some(5, |b| {
                b.one(SCORES);
                b.one(MEMBERS);
            });
        }
        "ZINCRBY" => {
            b.one(FLOATS);
            b.one(MEMBERS);
        }
        "ZSCORE" | "ZRANK" | "ZREVRANK" => b.one(MEMBERS),
        "ZMSCORE" | "ZREM" => b.some(3, |b| b.one(MEMBERS)),
        "ZCOUNT" | "ZREMRANGEBYSCORE" => {
            b.one(BOUNDS);
            b.one(BOUNDS);
        }
        "ZREMRANGEBYRANK" => {
            b.one(RANKS);
            b.one(RANKS);
        }
        "ZPOPMIN" | "ZPOPMAX" if b.rng.one_in(2) => b.one(COUNTS),
        "ZSCAN" => b.scan_options(),
        name if name.contains("RANGE") => range(b, name),
        _ => {}
    }
}

fn range(b: &mut Build<'_>, name: &str) {
    let by_score = name.ends_with("SCORE") || b.rng.one_in(3);
    for _ in 0..2 {
        b.one(if by_score { BOUNDS } else { RANKS });
    }
    if by_score && matches!(name, "ZRANGE" | "ZRANGESTORE") {
        b.word("BYSCORE");
    }
    maybe(b, "REV", 5);
    maybe(b, "WITHSCORES", 3);
    limit(b);
}

fn combine(b: &mut Build<'_>, name: &str) {
    b.word(name);
    if name.ends_with("STORE") {
        b.one(&["{t}z1", "{t}z3"]);
    }
    numbered_keys(b, ZSETS);
    match name {
        "ZMPOP" => {
            b.one(&["MIN", "MAX", "max", "FOO"]);
            if maybe(b, "COUNT", 2) {
                b.one(COUNTS);
            }
        }
        "ZINTERCARD" => {
            if maybe(b, "LIMIT", 2) {
                b.one(COUNTS);
            }
        }
        _ => {
            if maybe(b, "WEIGHTS", 3) {
                b.some(3, |b| b.one(SCORES));
            }
            if maybe(b, "AGGREGATE", 3) {
                b.one(&["SUM", "MIN", "MAX", "FOO"]);
            }
            maybe(b, "WITHSCORES", 3);
        }
    }
}

fn list(b: &mut Build<'_>, which: usize) {
    let name = LIST_COMMANDS[which % LIST_COMMANDS.len()];
    b.word(name);
    match name {
        "LMPOP" => {
            numbered_keys(b, LISTS);
            b.one(ENDS);
            if maybe(b, "COUNT", 2) {
                b.one(COUNTS);
            }
            return;
        }
        "LMOVE" | "RPOPLPUSH" => {
            b.one(LISTS);
            b.one(LISTS);
        }
        _ => key(b, LISTS),
    }
    match name {
        "LPUSH" | "RPUSH" | "LPUSHX" | "RPUSHX" => b.some(3, |b| {
            if b.rng.one_in(2) {
                b.one(MEMBERS);
            } else {
                b.value();
            }
        }),
        "LPOP" | "RPOP" if b.rng.one_in(2) => b.one(COUNTS),
        "LRANGE" | "LTRIM" => {
            b.one(RANKS);
            b.one(RANKS);
        }
        "LINDEX" => b.one(INTEGERS),
        "LSET" => {
            b.one(RANKS);
            b.value();
        }
        "LINSERT" => {
            b.one(&["BEFORE", "AFTER", "after", "FOO"]);
            b.one(MEMBERS);
            b.value();
        }
        "LREM" => {
            b.one(RANKS);
            b.one(MEMBERS);
        }
        "LPOS" => {
            b.one(MEMBERS);
            for word in ["RANK", "COUNT", "MAXLEN"] {
                if maybe(b, word, 3) {
                    b.one(COUNTS);
                }
            }
        }
        "LMOVE" => {
            b.one(ENDS);
            b.one(ENDS);
        }
        _ => {}
    }
}

const PLACES: &[&str] = &["p", "q", "r", "s", "none"];

fn geo(b: &mut Build<'_>, which: usize) {
    let degrees =
        ["0", "1", "13.361389", "15.087269", "-45.5", "80", "179.9", "-180", "abc", "200"];
    let units = ["m", "km", "KM", "ft", "mi", "yd"];
    let lengths = ["0", "1", "200", "1000", "50000", "-1", "abc"];
    let names = ["GEOADD", "GEOADD", "GEOPOS", "GEOHASH", "GEODIST", "GEOSEARCH", "GEOSEARCH"];
    let name = names[which % names.len()];
    b.word(name);
    key(b, &["{t}g", "{t}g", "{t}g", "{t}none"]);
    match name {
        "GEOADD" => {
            for _ in 0..b.rng.below(2) {
                b.one(&["NX", "XX", "CH"]);
            }
            b.some(3, |b| {
                b.one(&degrees);
                b.one(&degrees[..8]);
                b.one(PLACES);
            });
        }
        "GEODIST" => {
            b.one(PLACES);
            b.one(PLACES);
            if b.rng.one_in(2) {
                b.one(&units);
            }
        }
        "GEOSEARCH" => {
            if b.rng.one_in(2) {
                b.word("FROMMEMBER");
                b.one(PLACES);
            } else {
                b.word("FROMLONLAT");
                b.one(&degrees);
                b.one(&degrees);
            }
            if b.rng.one_in(2) {
                b.word("BYRADIUS");
            } else {
                b.word("BYBOX");
                b.one(&lengths);
            }
            b.one(&lengths);
            b.one(&units);
            for word in ["ASC", "WITHDIST", "WITHCOORD", "WITHHASH"] {
                maybe(b, word, 3);
            }
            if maybe(b, "COUNT", 4) {
                b.one(COUNTS);
            }
        }
        _ => b.some(3, |b| b.one(PLACES)),
    }
}

/// Keys of one slot, and, without a tag, of any shard.
const BY: &[&str] = &["nosort", "{t}w*", "{t}*", "w*", "h:*->f", "h:*->g"];

/// What patterns of SORT may stand for: strings and hashes named after elements of lists.
fn weight(b: &mut Build<'_>) {
    let name = |b: &mut Build<'_>, prefix: &str| {
        let element = b.rng.pick(MEMBERS);
        b.args.push(format!("{prefix}{element}").into_bytes());
    };
    if b.rng.one_in(2) {
        b.word("SET");
        name(b, "w");
        return b.one(&["3", "1", "2", "-7", "1.5", "x"]);
    }
    b.word("HSET");
    name(b, "h:");
    b.one(&["f", "g"]);
    b.one(&["3", "1", "2", "-7", "1.5", "x"]);
}

fn sort(b: &mut Build<'_>) {
    if b.rng.one_in(3) {
        return weight(b);
    }
    b.one(&["SORT", "SORT", "SORT_RO"]);
    // Where weights are equal, Redis sorts a set or sorted set in the order of its table, which a seed decides.
    let weighed = b.rng.one_in(3);
    key(b, if weighed { LISTS } else { ANY });
    for _ in 0..b.rng.below(4) {
        match b.rng.below(8) {
            0 | 1 => b.word("ALPHA"),
            2 => b.word("DESC"),
            3 => b.word("ASC"),
            4 => limit(b),
            5 => {
                b.word("BY");
                b.one(if weighed { BY } else { &["nosort"] });
            }
            6 => {
                b.word("GET");
                b.one(&["#", "{t}w*", "w*", "h:*->f", "*->f", "nothing"]);
            }
            _ => {
                b.word("STORE");
                b.one(&["{t}l1", "{t}l2"]);
            }
        }
    }
}
