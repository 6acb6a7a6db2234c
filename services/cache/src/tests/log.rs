//! The append-only log: random commands, logged and run again, give the same keys.
//!
//! Commands come from templates ([`TEMPLATES`]), in which capital letters in braces stand for keys, members and numbers. One
//! to three shards, transactions, commands that block, time that passes, and bases that are written meanwhile.
//! `LOG_SEQUENCES=n` runs more or fewer sequences, from seed `LOG_SEED` on.
#![expect(clippy::disallowed_methods, reason = "a test reads the environment")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::support::{Host, encode};
use crate::{
    aof::{Common, Fsync, Taken, TxName, replay, state},
    shard::Shard,
};

/// Members of all kinds of keys; every type has keys of its own, and there are some that all use.
const KEYS: &[&str] = &["a", "b", "c", "d", "e", "f", "{t}1", "{t}2"];
const MEMBERS: &[&str] = &[
    "m",
    "n",
    "o",
    "1",
    "2",
    "-7",
    "long member with some more than sixty-four bytes, so that nothing is packed",
];
const NUMBERS: &[&str] = &["0", "1", "2", "3", "-1", "10"];

const TEMPLATES: &[&str] = &[
    "SET sK M",
    "SET sK M EX 100",
    "SET sK M PX 40",
    "SET sK M NX",
    "SET sK M XX GET",
    "SET sK M KEEPTTL",
    "SET K M",
    "SET sK 5",
    "SETEX sK 20 M",
    "PSETEX sK 30 M",
    "SETNX sK M",
    "GETSET sK M",
    "GETDEL sK",
    "GETEX sK EX 10",
    "GETEX sK PERSIST",
    "GETEX sK",
    "GETEX sK PXAT 1",
    "APPEND sK M",
    "SETRANGE sK 3 M",
    "INCR nK",
    "DECRBY nK 3",
    "INCRBYFLOAT nK 0.25",
    "MSET sK M sK M",
    "MSETNX sK M sK M",
    "SETBIT sK 9 1",
    "BITFIELD sK SET u8 0 77",
    "BITOP OR sK sK sK",
    "EXPIRE K 30",
    "PEXPIRE sK 25",
    "PEXPIRE K 25",
    "EXPIREAT K 1",
    "EXPIRE K 50 GT",
    "PEXPIREAT K 1700000000900",
    "PERSIST K",
    "DEL K K",
    "UNLINK K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K REPLACE",
    "COPY K K DB 1",
    "GET sK",
    "TYPE K",
    "LPUSH lK M M",
    "RPUSH lK M M M",
    "LPUSHX lK M",
    "LPOP lK",
    "RPOP lK 2",
    "LINSERT lK BEFORE M M",
    "LSET lK 0 M",
    "LREM lK 1 M",
    "LTRIM lK 1 -1",
    "LMOVE lK lK LEFT RIGHT",
    "RPOPLPUSH lK lK",
    "LMPOP 2 lK lK LEFT COUNT 2",
    "BLPOP lK lK 0.01",
    "BRPOP lK 0.01",
    "BLMOVE lK lK RIGHT LEFT 0.01",
    "BRPOPLPUSH lK lK 0.01",
    "BLMPOP 0.01 2 lK lK RIGHT",
    "SORT lK ALPHA STORE lK",
    "SORT lK ALPHA",
    "SADD tK M M",
    "SREM tK M",
    "SPOP tK",
    "SPOP tK 2",
    "SMOVE tK tK M",
    "SINTERSTORE tK tK tK",
    "SUNIONSTORE tK tK tK",
    "SDIFFSTORE tK tK tK",
    "ZADD zK 1 M 2 M",
    "ZADD zK INCR 1.5 M",
    "ZADD zK XX CH 7 M",
    "ZINCRBY zK 0.1 M",
    "ZREM zK M",
    "ZPOPMIN zK",
    "ZPOPMAX zK 2",
    "ZMPOP 2 zK zK MIN COUNT 2",
    "BZPOPMIN zK zK 0.01",
    "BZMPOP 0.01 1 zK MAX",
    "ZRANGESTORE zK zK 0 1",
    "ZUNIONSTORE zK 2 zK zK",
    "ZINTERSTORE zK 2 zK zK WEIGHTS 2 3",
    "ZDIFFSTORE zK 2 zK zK",
    "ZREMRANGEBYRANK zK 0 0",
    "ZREMRANGEBYSCORE zK 2 3",
    "GEOADD zK 13.3 38.1 M",
    "GEORADIUS zK 13 38 200 km STORE zK",
    "GEOSEARCHSTORE zK zK FROMLONLAT 13 38 BYRADIUS 200 km",
    "HSET hK M M M M",
    "HSETNX hK M M",
    "HDEL hK M",
    "HINCRBY hK 1 4",
    "HINCRBYFLOAT hK 2 0.5",
    "HEXPIRE hK 9 FIELDS 1 M",
    "HPEXPIRE hK 30 FIELDS 2 M M",
    "HPERSIST hK FIELDS 1 M",
    "HGETDEL hK FIELDS 1 M",
    "HGETEX hK PX 40 FIELDS 1 M",
    "HSETEX hK EX 5 FIELDS 1 M M",
    "HSETEX hK FIELDS 1 M M",
    "PFADD pK M M",
    "PFMERGE pK pK pK",
    "XADD xK * f M",
    "XADD xK MAXLEN ~ 3 * f M",
    "XADD xK MAXLEN 2 * f M g M",
    "XADD xK NOMKSTREAM * f M",
    "XADD xK MINID 5 * f M",
    "XTRIM xK MAXLEN 2",
    "XTRIM xK MAXLEN ~ 1",
    "XGROUP CREATE xK g $ MKSTREAM",
    "XGROUP CREATE xK g 0",
    "XGROUP SETID xK g 0",
    "XGROUP CREATECONSUMER xK g c",
    "XGROUP DELCONSUMER xK g c",
    "XGROUP DESTROY xK g",
    "XREADGROUP GROUP g c COUNT 2 STREAMS xK >",
    "XREADGROUP GROUP g d NOACK COUNT 1 STREAMS xK xK > >",
    "XREADGROUP GROUP g c BLOCK 10 STREAMS xK >",
    "XREADGROUP GROUP g c STREAMS xK 0",
    "XAUTOCLAIM xK g d 0 0 COUNT 2",
    "XAUTOCLAIM xK g c 0 - JUSTID",
    "XSETID xK 9700000000000-1",
    "SELECT 1",
    "SELECT 0",
    "FLUSHDB",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "WAITMS 5",
    "WAITMS 30",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A command from a template.
fn fill(host: &mut Host, template: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in template.split(' ') {
        let word = match word {
            "M" => MEMBERS[host.random(MEMBERS.len())].to_owned(),
            "N" => NUMBERS[host.random(NUMBERS.len())].to_owned(),
            "K" => format!(
                "{}{}",
                ["s", "l", "t", "z", "h", "x"][host.random(6)],
                KEYS[host.random(KEYS.len())]
            ),
            word if word.len() == 2 && word.ends_with('K') => {
                format!("{}{}", &word[..1], KEYS[host.random(KEYS.len())])
            }
            word => word.to_owned(),
        };
        words.push(word);
    }
    words
}

/// One shard's log, as the disk would have it.
#[derive(Default)]
struct Log {
    records: Vec<Vec<u8>>,
    base_at: Option<usize>,
}

impl Log {
    fn take(&mut self, shard: &mut Shard) {
        let journal = shard.journal.as_mut().expect("a log");
        let taken = journal.take(Taken::default());
        let all = taken.ends.len();
        let before =
            taken.mark.map_or(0, |mark| taken.ends.partition_point(|(end, _)| *end <= mark));
        for (from, to) in [(0, before), (before, all)] {
            if from == before && taken.mark.is_some() {
                self.base_at = Some(self.records.len());
            }
            for (flags, piece) in replay::records(&taken, from..to, 100) {
                assert!(piece.len() < 100);
                self.records.push([&[flags], piece].concat());
            }
        }
        journal.set_durable(taken.target);
    }
}

type Digest = BTreeMap<(u16, Vec<u8>), Vec<String>>;

/// What all keys hold, in a form that does not depend on the order of sets.
fn digest(shards: &mut [Shard], now_ms: u64) -> Digest {
    let mut all = Digest::new();
    for shard in shards {
        for db in 0..shard.store.config().databases {
            let mut keys = Vec::new();
            let mut cursor = 0;
            loop {
                cursor =
                    shard.store.scan(db, cursor, 100, now_ms, |key, _| keys.push(key.to_vec()));
                if cursor == 0 {
                    break;
                }
            }
            for key in keys {
                let (mut bytes, hash) = (Vec::new(), shard.store.hash(&key));
                state::write(&mut bytes, &mut shard.store, db, hash, &key, now_ms);
                let words = words(&bytes);
                // All fields may be due, seen or not.
                if words.len() > 1 || !words.iter().any(|word| word.starts_with("DEL")) {
                    let old = all.insert((db, key), words);
                    assert!(old.is_none(), "one key on two shards");
                }
            }
        }
    }
    all
}

fn words(bytes: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    let mut args = wire::resp::Args::default();
    replay::lines(bytes, &mut args, |args, frame| {
        let word = |at: usize| String::from_utf8_lossy(args.get(at, frame)).into_owned();
        let (name, count) = (word(0), args.len());
        match name.as_str() {
            "SADD" => words.extend((2..count).map(|at| format!("SADD {}", word(at)))),
            "HSET" => words.extend(
                (2..count).step_by(2).map(|at| format!("HSET {} {}", word(at), word(at + 1))),
            ),
            _ => words.push((0..count).map(word).collect::<Vec<_>>().join(" ")),
        }
    })
    .expect("commands");
    if words.iter().any(|word| word.starts_with("SADD") || word.starts_with("HSET")) {
        words.sort();
    }
    words
}

/// Shards that ran the logs again.
fn run_again(host: &Host, logs: &[Log], keep: &[usize]) -> (Vec<Shard>, u64) {
    let records = |log: usize| &logs[log].records[logs[log].base_at.unwrap_or(0)..keep[log]];
    let mut parts: Vec<Vec<TxName>> = Vec::new();
    for log in 0..logs.len() {
        let (mut names, mut joiner, mut args) =
            (Vec::new(), replay::Joiner::default(), wire::resp::Args::default());
        for record in records(log) {
            if let Some((bytes, true)) = joiner.take(record) {
                replay::parts(bytes, &mut args, |name| names.push(name)).expect("commands");
            }
        }
        parts.push(names);
    }
    let is_whole = |name: TxName, shards: &[u16]| {
        shards.iter().all(|shard| parts[usize::from(*shard)].contains(&name))
    };
    let fresh = Host::new(u16::try_from(logs.len()).expect("few"));
    let mut skipped = 0;
    let mut shards = fresh.shards;
    for (log, shard) in shards.iter_mut().enumerate() {
        let (mut joiner, mut state) = (replay::Joiner::default(), replay::State::default());
        for record in records(log) {
            if let Some((bytes, _)) = joiner.take(record) {
                let mut replay = replay::Replay { shard, state: &mut state, is_whole: &is_whole };
                replay.run(bytes).expect("commands");
            }
        }
        skipped += state.skipped;
    }
    let _ = host;
    (shards, skipped)
}

fn start(shards: u16, seed: u64, fsync: Fsync) -> Host {
    let mut host = Host::new(shards);
    host.seed(seed);
    let (common, now) = (Arc::<Common>::default(), host.now);
    for shard in &mut host.shards {
        shard.begin_log(fsync, Arc::clone(&common), now);
    }
    host
}

fn begin_base(host: &mut Host) {
    let now_ms = host.now.unix_ms();
    for shard in &mut host.shards {
        shard.journal.as_mut().expect("a log").begin_base(now_ms);
    }
}

struct Played {
    host: Host,
    logs: Vec<Log>,
    commands: Vec<String>,
}

fn play(shards: u16, seed: u64, count: usize, base: bool) -> Played {
    let mut host =
        start(shards, seed, if seed.is_multiple_of(3) { Fsync::Always } else { Fsync::No });
    // Clocks of shards are read once per turn, so that they differ a little.
    host.behind_max_ms = if seed.is_multiple_of(2) { 30 } else { 0 };
    let connections: Vec<usize> =
        (0..3).map(|at| host.connect(at % usize::from(shards), false)).collect();
    let mut logs: Vec<Log> = (0..shards).map(|_| Log::default()).collect();
    let mut commands = Vec::new();
    let begin_at = host.random(count);
    for at in 0..count {
        let template = TEMPLATES[host.random(TEMPLATES.len())];
        let conn = connections[host.random(connections.len())];
        let words = fill(&mut host, template);
        commands.push(format!("{conn}: {}", words.join(" ")));
        if words[0] == "WAITMS" {
            let ms = words[1].parse().expect("a number");
            host.wait_ms(ms);
            for shard in 0..host.shards.len() {
                let now = host.now_on(shard);
                let _ = host.shards[shard].tick(now, 50);
            }
        } else {
            let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
            host.send(conn, &encode(&words));
        }
        if base && at == begin_at {
            begin_base(&mut host);
        }
        for shard in 0..host.shards.len() {
            let now = host.now_on(shard);
            if at % 3 == 0 {
                host.shards[shard].log_base(now);
            }
        }
        if at % 7 == 0 {
            logs.iter_mut().zip(&mut host.shards).for_each(|(log, shard)| log.take(shard));
        }
    }
    host.behind_max_ms = 0;
    host.wait_ms(20);
    let now = host.now;
    for shard in &mut host.shards {
        while shard.log_base(now) {}
    }
    logs.iter_mut().zip(&mut host.shards).for_each(|(log, shard)| log.take(shard));
    Played { host, logs, commands }
}

fn compare(shards: u16, seed: u64, count: usize, base: bool) -> Result<(), String> {
    let Played { mut host, logs, commands } = play(shards, seed, count, base);
    let keep: Vec<usize> = logs.iter().map(|log| log.records.len()).collect();
    let (mut again, skipped) = run_again(&host, &logs, &keep);
    let now_ms = host.now.unix_ms();
    let (was, is) = (digest(&mut host.shards, now_ms), digest(&mut again, now_ms));
    if was == is && skipped == 0 {
        return Ok(());
    }
    let mut text = format!("{shards} shards, seed {seed}, base {base}, {skipped} left out\n");
    text.push_str(&commands.join("\n"));
    for (key, words) in &was {
        if is.get(key) != Some(words) {
            text.push_str(&format!("\n{key:?}: was {words:?}\n  is {:?}", is.get(key)));
        }
    }
    for key in is.keys().filter(|key| !was.contains_key(*key)) {
        text.push_str(&format!("\n{key:?}: was nothing, is {:?}", is.get(key)));
    }
    Err(text)
}

/// The shortest sequence of this seed that differs.
fn shrink(shards: u16, seed: u64, base: bool) -> Option<String> {
    (1..=150).find_map(|count| compare(shards, seed, count, base).err())
}

#[test]
fn what_was_logged_gives_the_same_keys_again() {
    let (first, sequences) = (number("LOG_SEED", 1), number("LOG_SEQUENCES", 150));
    for seed in first..first + sequences {
        let shards = u16::try_from(seed % 3 + 1).expect("small");
        for base in [false, true] {
            if let Err(text) = compare(shards, seed, 150, base) {
                let text = if base { text } else { shrink(shards, seed, base).unwrap_or(text) };
                panic!("{text}");
            }
        }
    }
}

#[test]
fn a_command_over_several_shards_is_run_again_on_all_or_on_none() {
    let mut host = start(2, 5, Fsync::No);
    let conn = host.connect(0, false);
    // Keys of both shards.
    assert_eq!(host.command(conn, &["MSET", "a", "1", "b", "1", "c", "1", "d", "1"]), "+OK\r\n");
    assert_eq!(host.command(conn, &["SADD", "s", "1"]), ":1\r\n");
    assert_eq!(host.command(conn, &["MSET", "a", "2", "b", "2", "c", "2", "d", "2"]), "+OK\r\n");
    let mut logs = [Log::default(), Log::default()];
    logs.iter_mut().zip(&mut host.shards).for_each(|(log, shard)| log.take(shard));
    let whole: Vec<usize> = logs.iter().map(|log| log.records.len()).collect();
    for torn in 0..2 {
        let mut keep = whole.clone();
        // Everything that one shard wrote for the last command is lost.
        let (mut again, mut left) = run_again(&host, &logs, &keep);
        while left == 0 {
            keep[torn] -= 1;
            (again, left) = run_again(&host, &logs, &keep);
        }
        let values: Vec<Vec<String>> = digest(&mut again, host.now.unix_ms())
            .into_iter()
            .filter(|((_, key), _)| key != b"s")
            .map(|(_, words)| words)
            .collect();
        assert_eq!(values.len(), 4, "{values:?}");
        assert!(values.iter().all(|words| words[0].ends_with(" 1")), "{values:?}");
    }
}

#[test]
fn a_base_that_does_not_count_tells_nothing_of_a_command_in_parts() {
    let mut host = start(2, 5, Fsync::No);
    let conn = host.connect(0, false);
    assert_eq!(host.command(conn, &["MSET", "a", "1", "b", "1", "c", "1", "d", "1"]), "+OK\r\n");
    begin_base(&mut host);
    assert_eq!(host.command(conn, &["MSET", "a", "2", "b", "2", "c", "2", "d", "2"]), "+OK\r\n");
    let now = host.now;
    let mut logs = [Log::default(), Log::default()];
    for (log, shard) in logs.iter_mut().zip(&mut host.shards) {
        while shard.log_base(now) {}
        log.take(shard);
        // The manifest does not name it.
        log.base_at = None;
    }
    for torn in 0..2 {
        let mut keep: Vec<usize> = logs.iter().map(|log| log.records.len()).collect();
        let (mut again, mut left) = run_again(&host, &logs, &keep);
        while left == 0 {
            keep[torn] -= 1;
            (again, left) = run_again(&host, &logs, &keep);
        }
        let values = digest(&mut again, host.now.unix_ms());
        assert_eq!(values.len(), 4, "{values:?}");
        assert!(values.values().all(|words| words[0].ends_with(" 1")), "{values:?}");
    }
}

#[test]
fn a_base_has_the_keys_that_were_lent_when_it_came_by() {
    let mut were_lent = false;
    for steps in 0..30 {
        let mut host = start(2, steps, Fsync::No);
        let conn = host.connect(0, false);
        for key in ["a", "b", "c", "d"] {
            assert_eq!(host.command(conn, &["SADD", key, "member"]), ":1\r\n");
        }
        begin_base(&mut host);
        host.feed(conn, &encode(&[b"SUNION", b"a", b"b", b"c", b"d"]));
        for _ in 0..steps {
            host.step();
        }
        were_lent |= host.shards.iter().any(|shard| shard.lent > 0);
        let now = host.now;
        for shard in &mut host.shards {
            for _ in 0..50 {
                shard.log_base(now);
            }
        }
        host.settle();
        let mut logs = [Log::default(), Log::default()];
        for (log, shard) in logs.iter_mut().zip(&mut host.shards) {
            while shard.log_base(now) {}
            log.take(shard);
        }
        let keep: Vec<usize> = logs.iter().map(|log| log.records.len()).collect();
        let (mut again, _) = run_again(&host, &logs, &keep);
        let now_ms = now.unix_ms();
        let (keys, expected) = (digest(&mut again, now_ms), digest(&mut host.shards, now_ms));
        assert_eq!(keys, expected, "after {steps} steps");
    }
    assert!(were_lent, "no key was on loan when the base came by");
}

#[test]
fn a_key_that_expires_before_a_base_comes_to_it_is_gone() {
    let mut host = start(1, 5, Fsync::No);
    let conn = host.connect(0, false);
    let at_ms = (host.now.unix_ms() + 10).to_string();
    assert_eq!(host.command(conn, &["RPUSH", "list", "a"]), ":1\r\n");
    assert_eq!(host.command(conn, &["PEXPIREAT", "list", &at_ms]), ":1\r\n");
    begin_base(&mut host);
    assert_eq!(host.command(conn, &["RPUSH", "list", "b"]), ":2\r\n");
    host.wait_ms(20);
    let now = host.now;
    let mut log = Log::default();
    while host.shards[0].log_base(now) {}
    log.take(&mut host.shards[0]);
    let keep = [log.records.len()];
    let (mut again, _) = run_again(&host, &[log], &keep);
    assert_eq!(digest(&mut again, host.now.unix_ms()), Digest::new());
}

/// A transaction runs on the first shard with a key of the second that expires there before it is back.
fn expires_while_lent(words: &[&str]) {
    let mut host = start(2, 5, Fsync::No);
    let conn = host.connect(0, false);
    let (own, lent) = ("b", "a");
    let owner = |key: &str| host.shards[0].topology.owner_of(key.as_bytes());
    assert_eq!((owner(own), owner(lent)), (0, 1));
    host.command(conn, &["SET", lent, "7", "PX", "40"]);
    host.advance_ms(30);
    let mut bytes = encode(&[b"MULTI"]);
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    bytes.extend(encode(&words));
    bytes.extend(encode(&[b"EXEC"]));
    host.feed(conn, &bytes);
    let mut steps = 0;
    while host.step() {
        // Time stands still on the first shard.
        host.advance_ms(5);
        steps += 1;
        host.behind_ms[0] = steps * 5;
    }
    assert!(steps >= 4, "the key was lent, and came back after it had expired");
    host.behind_ms[0] = 0;
    host.advance_ms(100);
    let mut logs = [Log::default(), Log::default()];
    logs.iter_mut().zip(&mut host.shards).for_each(|(log, shard)| log.take(shard));
    let keep = logs.each_ref().map(|log| log.records.len());
    let (mut again, _) = run_again(&host, &logs, &keep);
    let now_ms = host.now.unix_ms();
    assert_eq!(digest(&mut again, now_ms), digest(&mut host.shards, now_ms), "{words:?}");
}

#[test]
fn what_ran_with_a_lent_key_is_run_again_at_the_time_of_the_shard_that_ran_it() {
    for words in [&["PERSIST", "a"][..], &["APPEND", "a", "1"], &["MSET", "a", "1", "b", "2"]] {
        expires_while_lent(words);
    }
}

#[test]
fn each_log_is_run_again_at_its_own_time() {
    let mut shard = Host::new(1).shards.remove(0);
    let mut state = replay::State::default();
    let set = encode(&[b"SET", b"k", b"v", b"PXAT", b"1500"]);
    let persist = encode(&[b"PERSIST", b"k"]);
    let later = [b"#TS:2000\r\n".to_vec(), encode(&[b"SET", b"other", b"v"])].concat();
    let own = [&b"#TS:1000\r\n"[..], &set, b"#TS:1200\r\n", &persist].concat();
    for log in [later, own] {
        state.begin_log();
        let mut replay =
            replay::Replay { shard: &mut shard, state: &mut state, is_whole: &|_, _| true };
        replay.run(&log).expect("commands");
    }
    assert_eq!(digest(&mut [shard], 3000).len(), 2);
}
