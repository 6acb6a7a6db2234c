//! A client that writes anything to keys of all: all types, several databases, transactions, scripts, functions, commands
//! that wait and that concern all keys. What it is answered does not matter; what becomes of it must be the same on
//! both machines.
//!
//! Next: `contents` for that.

use engine::rng::Rng;

use super::setup::Setup;
use crate::durable::peer::Common;
use crate::durable::setup::Doors;
use crate::durable::wire::Wire;

/// How soon it looks again, at most.
const POLL_NS: u64 = 3_000_000;
/// Replies it may wait for.
const OWED_MAX: usize = 24;
/// Keys of a type.
const KEYS: u64 = 8;

const SCRIPTS: [&str; 3] = [
    "redis.call('INCR', KEYS[1]); redis.call('RPUSH', KEYS[2], redis.call('GET', KEYS[1])); return 1",
    "redis.call('SPOP', KEYS[3]); redis.call('ZADD', KEYS[4], 1, ARGV[1]); return redis.call('SET', KEYS[1], 7, 'PX', 40)",
    "redis.call('MSET', KEYS[1], 5, 'extra1', ARGV[1]); return redis.call('LPOP', KEYS[2])",
];

/// The client.
pub(super) struct Wild {
    doors: Doors,
    wire: Option<Wire>,
    owed: usize,
    /// No more commands.
    pub(super) rests: bool,
    pub(super) is_off: bool,
    pub(super) wake_ns: u64,
}

type Words = Vec<Vec<u8>>;

fn words(text: &str) -> Words {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

impl Wild {
    pub(super) const fn new(doors: Doors) -> Self {
        Self { doors, wire: None, owed: 0, rests: false, is_off: true, wake_ns: 0 }
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.is_off || self.owed == 0
    }

    /// Nobody is to be written to.
    pub(super) fn leave(&mut self) {
        (self.wire, self.owed, self.is_off, self.wake_ns) = (None, 0, true, u64::MAX);
    }

    /// Writes to whoever is the master now.
    pub(super) fn begin(&mut self, doors: Doors) {
        self.leave();
        (self.doors, self.is_off, self.wake_ns) = (doors, false, 0);
    }

    pub(super) fn act(
        &mut self,
        common: &mut Common<'_>,
        rng: &mut Rng,
        setup: &Setup,
    ) -> Result<(), String> {
        let now_ns = common.world.now().mono_ns;
        self.wake_ns = now_ns + rng.between(10_000, POLL_NS);
        let Some(wire) = &mut self.wire else {
            self.wire = Some(Wire::connect(common.world, self.doors, None));
            self.owed = 0;
            if !setup.flushes {
                self.send(common, words(&format!("SELECT {}", rng.between(1, 2))));
            }
            return Ok(());
        };
        let (replies, goes_on) = wire.pump()?;
        *common.replies += replies.len() as u64;
        self.owed = self.owed.saturating_sub(replies.len());
        if !goes_on {
            (self.wire, self.owed) = (None, 0);
            return Ok(());
        }
        if self.owed < OWED_MAX && !self.rests && rng.chance(1, 2) {
            self.write(common, rng, setup);
        }
        Ok(())
    }

    fn send(&mut self, common: &mut Common<'_>, words: Words) {
        *common.step += 1;
        common.tell(|| format!("wild: {}", String::from_utf8_lossy(&words.join(&b' '))));
        if let Some(wire) = &mut self.wire {
            wire.push(&words);
            self.owed += 1;
        }
    }

    fn write(&mut self, common: &mut Common<'_>, rng: &mut Rng, setup: &Setup) {
        if rng.chance(1, 12) {
            self.send(common, words("MULTI"));
            for _ in 0..rng.between(1, 5) {
                let command = command(rng, setup);
                self.send(common, command);
            }
            return self.send(common, words("EXEC"));
        }
        let command = if rng.chance(1, 12) { script(rng) } else { command(rng, setup) };
        self.send(common, command);
    }
}

fn key(rng: &mut Rng, kind: char) -> String {
    format!("{kind}{}", rng.below(KEYS))
}

fn member(rng: &mut Rng) -> String {
    format!("m{}", rng.below(20))
}

fn number(rng: &mut Rng) -> i64 {
    rng.below(200) as i64 - 100
}

fn script(rng: &mut Rng) -> Words {
    let script = SCRIPTS[rng.index(SCRIPTS.len())];
    let mut all = vec![b"EVAL".to_vec(), script.into(), b"4".to_vec()];
    all.extend(['s', 'l', 't', 'z'].map(|kind| key(rng, kind).into_bytes()));
    all.push(member(rng).into_bytes());
    all
}

fn command(rng: &mut Rng, setup: &Setup) -> Words {
    let text = match rng.below(100) {
        0..20 => string(rng),
        20..33 => list(rng),
        33..45 => set(rng),
        45..57 => zset(rng),
        57..66 => hash(rng),
        66..80 => stream(rng),
        80..94 => several(rng),
        94..97 => {
            let least = u64::from(!setup.flushes);
            format!("SELECT {}", rng.between(least, 2))
        }
        97 if setup.flushes => format!("SWAPDB {} {}", rng.below(3), rng.below(3)),
        97 => "SWAPDB 1 2".into(),
        98 if setup.flushes && rng.chance(1, 3) => "FLUSHALL".into(),
        98 if rng.chance(1, 3) => "FLUSHDB".into(),
        98 => format!("MOVE {} {}", key(rng, 's'), rng.between(1, 2)),
        _ => {
            let code = format!(
                "#!lua name=lib{}\nredis.register_function('f{}', function() return {} end)",
                rng.below(3),
                rng.below(3),
                rng.below(1000)
            );
            let load = ["FUNCTION", "LOAD", "REPLACE", &code];
            return load.iter().map(|word| word.as_bytes().to_vec()).collect();
        }
    };
    words(&text)
}

fn string(rng: &mut Rng) -> String {
    let (k, n) = (key(rng, 's'), number(rng));
    match rng.below(16) {
        0 | 1 => format!("SET {k} {n}"),
        2 => format!("SET {k} {n} PX {}", rng.between(1, 60)),
        3 => format!("SET {k} {n} EX 1000"),
        4 => format!("INCRBY {k} {n}"),
        5 => format!("INCRBYFLOAT {k} 0.25"),
        6 => format!("APPEND {k} 1"),
        7 => format!("PEXPIRE {k} {}", rng.between(1, 60)),
        8 => format!("PERSIST {k}"),
        9 => format!("GETSET {k} {n}"),
        10 => format!("SETRANGE {k} {} 7", rng.below(9)),
        11 => format!("GETEX {k} PX {}", rng.between(1, 2_000)),
        12 => format!("GETDEL {k}"),
        13 => format!("SETBIT b{k} {} 1", rng.below(90)),
        14 => format!("PFADD p{k} {n}"),
        _ => format!("SETEX {k} 100 {n}"),
    }
}

fn list(rng: &mut Rng) -> String {
    let (k, l, m) = (key(rng, 'l'), key(rng, 'l'), member(rng));
    match rng.below(12) {
        0 | 1 => format!("RPUSH {k} {m} 1 x"),
        2 => format!("LPUSH {k} {m}"),
        3 => format!("LPOP {k}"),
        4 => format!("RPOP {k} 2"),
        5 => format!("LMOVE {k} {l} LEFT RIGHT"),
        6 => format!("RPOPLPUSH {k} {l}"),
        7 => format!("LMPOP 2 {k} {l} LEFT COUNT 2"),
        8 => format!("LREM {k} 1 x"),
        9 => format!("BLPOP {k} {l} 0.01"),
        10 => format!("BLMOVE {k} {l} LEFT RIGHT 0.02"),
        _ => format!("LTRIM {k} 0 20"),
    }
}

fn set(rng: &mut Rng) -> String {
    let (k, l, m) = (key(rng, 't'), key(rng, 't'), member(rng));
    match rng.below(8) {
        0..3 => format!("SADD {k} {m} {}", member(rng)),
        3 => format!("SPOP {k}"),
        4 => format!("SPOP {k} 3"),
        5 => format!("SMOVE {k} {l} {m}"),
        6 => format!("SREM {k} {m}"),
        _ => format!("SUNIONSTORE {k} {l} {}", key(rng, 't')),
    }
}

fn zset(rng: &mut Rng) -> String {
    let (k, l, m, n) = (key(rng, 'z'), key(rng, 'z'), member(rng), number(rng));
    match rng.below(11) {
        0..3 => format!("ZADD {k} {n} {m} 0.5 {}", member(rng)),
        3 | 4 => format!("ZPOPMIN {k}"),
        5 => format!("ZPOPMAX {k} 2"),
        6 => format!("ZINCRBY {k} 1.5 {m}"),
        7 => format!("ZUNIONSTORE {k} 2 {k} {l}"),
        8 => format!("BZPOPMIN {k} {l} 0.01"),
        9 => format!("ZREMRANGEBYRANK {k} 10 -1"),
        _ => format!("ZRANGESTORE {k} {l} 0 4"),
    }
}

fn hash(rng: &mut Rng) -> String {
    let (k, f, n) = (key(rng, 'h'), member(rng), number(rng));
    match rng.below(6) {
        0 | 1 => format!("HSET {k} {f} {n} x{f} y"),
        2 => format!("HDEL {k} {f}"),
        3 => format!("HINCRBY {k} n{f} {n}"),
        4 => format!("HINCRBYFLOAT {k} f{f} 0.1"),
        _ => format!("HSETNX {k} {f} {n}"),
    }
}

fn stream(rng: &mut Rng) -> String {
    let (k, n, who) = (key(rng, 'x'), number(rng), format!("c{}", rng.below(3)));
    match rng.below(11) {
        0..3 => format!("XADD {k} * f {n}"),
        3 => format!("XADD {k} MAXLEN ~ 20 * f {n} g 1"),
        4 => format!("XADD {k} MAXLEN 10 * f {n}"),
        5 => format!("XGROUP CREATE {k} g 0 MKSTREAM"),
        6 | 7 => format!("XREADGROUP GROUP g {who} COUNT 3 STREAMS {k} >"),
        8 => format!("XAUTOCLAIM {k} g {who} 0 0 COUNT 2"),
        9 => format!("XTRIM {k} MAXLEN 15"),
        _ => format!("XGROUP DELCONSUMER {k} g {who}"),
    }
}

fn several(rng: &mut Rng) -> String {
    let (k, l) = (key(rng, 's'), key(rng, 's'));
    let any = |rng: &mut Rng| {
        let kind = *rng.pick(&['s', 'l', 't', 'z', 'h', 'x']).unwrap_or(&'s');
        key(rng, kind)
    };
    match rng.below(11) {
        0 | 1 => format!("MSET {k} 1 {l} 2 {} 3", key(rng, 's')),
        2 => format!("MSETNX {k} 1 {l} 2"),
        3 => format!("DEL {} {} {}", any(rng), any(rng), any(rng)),
        4 => format!("RENAME {} {}", key(rng, 'l'), key(rng, 'l')),
        5 => format!("COPY {} {} REPLACE", key(rng, 'z'), key(rng, 'z')),
        6 => format!("BITOP XOR b{k} b{l} b{}", key(rng, 's')),
        7 => format!("SORT {} BY nosort STORE {}", key(rng, 't'), key(rng, 'l')),
        8 => format!("UNLINK {} {}", any(rng), any(rng)),
        9 => format!("SINTERSTORE {} {} {}", key(rng, 't'), key(rng, 't'), key(rng, 't')),
        _ => format!("GEOADD g{} 13.3 38.1 {}", rng.below(4), member(rng)),
    }
}
