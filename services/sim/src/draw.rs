//! Commands drawn from a seed.

use std::rc::Rc;

use engine::rng::Rng;

use crate::command::{Check, Command, Shared, Whole, frame};
use crate::model::Model;
use crate::op::{Only, Op, Says, Shows, Time, When};
use crate::shared::{Common, PLACES, group_value};

/// What a run's commands are like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Private keys per client.
    pub keys: usize,
    /// Of a hundred values, so many are large.
    pub large: u64,
    /// Of a hundred commands, so many are on shared keys.
    pub shared: u64,
    /// Somebody may send FLUSHALL.
    pub flushes: bool,
    /// Connections kill each other.
    pub kills: bool,
}

/// Values stay below this.
const VALUE_MAX_BYTES: usize = 96 << 10;

/// A private key's name.
#[must_use]
pub fn key_name(key: usize) -> Vec<u8> {
    // Some share a slot, so that commands over several of them stay on one shard.
    if key % 4 == 3 {
        format!("{{k{}}}:{key}", key % 8).into_bytes()
    } else {
        format!("k{key}").into_bytes()
    }
}

/// A counter's name.
#[must_use]
pub fn counter_name(counter: usize) -> Vec<u8> {
    format!("counter:{counter}").into_bytes()
}

/// The name of a group's key.
#[must_use]
pub fn group_name(group: usize, key: usize) -> Vec<u8> {
    format!("group:{group}:{key}").into_bytes()
}

/// The name of a place of the token.
#[must_use]
pub fn place_name(place: usize) -> Vec<u8> {
    format!("token:{place}").into_bytes()
}

fn value(rng: &mut Rng, shape: &Shape) -> Rc<[u8]> {
    if rng.chance(1, 4) {
        return rng.between(0, 2000).to_string().into_bytes().into();
    }
    let len = match rng.below(100) {
        roll if roll < shape.large => rng.between(32 << 10, 72 << 10),
        roll if roll < 2 * shape.large => rng.between(4_000, 9_000),
        roll if roll < 90 => rng.between(0, 80),
        _ => rng.between(80, 1_500),
    };
    let mut bytes = vec![0; len as usize];
    let head = bytes.len().min(64);
    rng.fill(&mut bytes[..head]);
    let pattern = rng.next_u64().to_le_bytes();
    for (index, byte) in bytes.iter_mut().enumerate().skip(head) {
        *byte = pattern[index % 8] ^ (index >> 8) as u8;
    }
    bytes.into()
}

/// A time to live: mostly short, for the clock of a run moves by milliseconds.
fn ttl(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.between(1, 3),
        1 | 2 => rng.between(4, 60),
        _ => rng.between(60, 100_000),
    }
}

/// What a client knows when it draws a command.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What commands are like.
    pub shape: &'a Shape,
    /// What is known of its keys.
    pub model: &'a Model,
    /// The wall clock.
    pub now_ms: u64,
    /// The shard whose part of a database is meant by commands on the whole of it.
    pub node: Option<usize>,
}

struct Draw<'a> {
    rng: &'a mut Rng,
    shape: &'a Shape,
    model: &'a Model,
    now_ms: u64,
    node: Option<usize>,
}

/// A command on the client's private keys.
#[must_use]
pub fn private(rng: &mut Rng, view: View<'_>) -> Command {
    let View { shape, model, now_ms, node } = view;
    let mut draw = Draw { rng, shape, model, now_ms, node };
    match draw.rng.below(100) {
        0..44 => draw.string(),
        44..58 => draw.edit(),
        58..72 => draw.expiry(),
        72..92 => draw.many(),
        _ => draw.database(),
    }
}

fn command(words: &[&[u8]], op: Op, keys: &[usize]) -> Command {
    Command::new(words, Check::Private { op, keys: keys.to_vec() })
}

impl Draw<'_> {
    fn key(&mut self) -> (usize, Vec<u8>) {
        let key = self.rng.index(self.shape.keys);
        (key, key_name(key))
    }

    fn string(&mut self) -> Command {
        let (key, name) = self.key();
        let plain = |op, word: &[u8]| command(&[word, &name], op, &[key]);
        match self.rng.below(10) {
            0..4 => plain(Op::Get, b"GET"),
            4..7 => self.set(key, &name),
            7 => self.set_kin(key, &name),
            8 => match self.rng.below(3) {
                0 => plain(Op::GetDel, b"GETDEL"),
                1 => plain(Op::StrLen, b"strlen"),
                _ => plain(Op::Type, b"TYPE"),
            },
            _ => {
                let by = self.rng.between(0, 200) as i64 - 100;
                match self.rng.below(3) {
                    0 => plain(Op::Add(1), b"INCR"),
                    1 => plain(Op::Add(-1), b"DECR"),
                    _ => {
                        command(&[b"INCRBY", &name, by.to_string().as_bytes()], Op::Add(by), &[key])
                    }
                }
            }
        }
    }

    fn set(&mut self, key: usize, name: &[u8]) -> Command {
        let value = value(self.rng, self.shape);
        let mut words: Vec<Vec<u8>> = Vec::new();
        let (mut only, mut time, mut says) = (Only::Always, Time::Clear, Says::Ok);
        if self.rng.chance(1, 3) {
            match self.rng.below(4) {
                0 => (only, words) = (Only::Missing, vec![b"NX".to_vec()]),
                1 => (only, words) = (Only::There, vec![b"xx".to_vec()]),
                _ => {}
            }
            if self.rng.chance(1, 3) {
                says = Says::Old;
                words.push(b"GET".to_vec());
            }
            if self.rng.chance(1, 2) {
                time = self.time(&mut words);
            }
        }
        let mut all: Vec<&[u8]> = vec![b"SET", name, &value];
        all.extend(words.iter().map(Vec::as_slice));
        let frame = frame(&all);
        let op = Op::Store { value, only, time, says };
        Command { frame, check: Check::Private { op, keys: vec![key] } }
    }

    /// KEEPTTL, PX, EX or PXAT, with its words.
    fn time(&mut self, words: &mut Vec<Vec<u8>>) -> Time {
        let ms = ttl(self.rng);
        let mut say = |word: &[u8], number: u64| {
            words.push(word.to_vec());
            words.push(number.to_string().into_bytes());
        };
        match self.rng.below(4) {
            0 => {
                words.push(b"KEEPTTL".to_vec());
                Time::Keep
            }
            1 => {
                say(b"PXAT", self.now_ms + ms);
                Time::At(self.now_ms + ms)
            }
            2 => {
                say(b"EX", ms.div_ceil(1000));
                Time::After(ms.div_ceil(1000) * 1000)
            }
            _ => {
                say(b"PX", ms);
                Time::After(ms)
            }
        }
    }

    fn set_kin(&mut self, key: usize, name: &[u8]) -> Command {
        let value = value(self.rng, self.shape);
        let ms = ttl(self.rng);
        let mut op = Op::Store {
            value: Rc::clone(&value),
            only: Only::Always,
            time: Time::Clear,
            says: Says::Old,
        };
        match self.rng.below(4) {
            0 => {
                if let Op::Store { only, says, .. } = &mut op {
                    (*only, *says) = (Only::Missing, Says::Int);
                }
                command(&[b"SETNX", name, &value], op, &[key])
            }
            1 => command(&[b"GETSET", name, &value], op, &[key]),
            2 => {
                let expire = [&b"PERSIST"[..], b"PX"];
                if self.rng.chance(1, 2) {
                    let op = Op::GetEx(Some(Time::Clear));
                    return command(&[b"GETEX", name, expire[0]], op, &[key]);
                }
                let ms_text = ms.to_string();
                let words: [&[u8]; 4] = [b"GETEX", name, expire[1], ms_text.as_bytes()];
                command(&words, Op::GetEx(Some(Time::After(ms))), &[key])
            }
            _ => {
                if let Op::Store { time, says, .. } = &mut op {
                    (*time, *says) = (Time::After(ms), Says::Ok);
                }
                command(&[b"PSETEX", name, ms.to_string().as_bytes(), &value], op, &[key])
            }
        }
    }

    fn edit(&mut self) -> Command {
        let (key, name) = self.key();
        let long = self.model.longest(key);
        let number = |rng: &mut Rng| rng.between(0, long as u64 + 20) as i64;
        match self.rng.below(3) {
            0 if long < VALUE_MAX_BYTES => {
                let mut tail = vec![b'+'; self.rng.between(0, 200) as usize];
                self.rng.fill(&mut tail);
                command(&[b"APPEND", &name, &tail], Op::Append(tail.clone().into()), &[key])
            }
            1 if long < VALUE_MAX_BYTES => {
                let offset = self.rng.between(0, 300.max(long as u64)) as usize;
                let part = vec![b'#'; self.rng.between(0, 60) as usize];
                let op = Op::SetRange(offset, part.clone().into());
                command(&[b"SETRANGE", &name, offset.to_string().as_bytes(), &part], op, &[key])
            }
            _ => {
                let (mut start, mut end) = (number(self.rng), number(self.rng));
                if self.rng.chance(1, 3) {
                    (start, end) = (-start, -end);
                }
                let (from, to) = (start.to_string(), end.to_string());
                let words: [&[u8]; 4] = [b"GETRANGE", &name, from.as_bytes(), to.as_bytes()];
                command(&words, Op::GetRange(start, end), &[key])
            }
        }
    }

    fn expiry(&mut self) -> Command {
        let (key, name) = self.key();
        let plain = |op, word: &[u8]| command(&[word, &name], op, &[key]);
        match self.rng.below(7) {
            0 => plain(Op::Show(Shows::Ttl), b"TTL"),
            1 => plain(Op::Show(Shows::Pttl), b"PTTL"),
            2 => plain(Op::Show(Shows::Date), b"PEXPIRETIME"),
            3 => plain(Op::Persist, b"PERSIST"),
            roll => {
                let ms = ttl(self.rng);
                let (word, number, time): (&[u8], u64, Time) = match roll {
                    4 => (b"PEXPIREAT", self.now_ms + ms, Time::At(self.now_ms + ms)),
                    5 => (b"EXPIRE", ms.div_ceil(1000), Time::After(ms.div_ceil(1000) * 1000)),
                    _ => (b"PEXPIRE", ms, Time::After(ms)),
                };
                let (condition, when): (&[u8], When) = match self.rng.below(8) {
                    0 => (b"NX", When::Without),
                    1 => (b"XX", When::With),
                    2 => (b"gt", When::Later),
                    3 => (b"LT", When::Sooner),
                    _ => (b"", When::Always),
                };
                let text = number.to_string();
                let mut words: Vec<&[u8]> = vec![word, &name, text.as_bytes()];
                words.extend(Some(condition).filter(|word| !word.is_empty()));
                command(&words, Op::Expire(time, when), &[key])
            }
        }
    }

    fn many(&mut self) -> Command {
        let count = self.rng.between(1, 6) as usize;
        let keys: Vec<usize> = (0..count).map(|_| self.rng.index(self.shape.keys)).collect();
        let names: Vec<Vec<u8>> = keys.iter().map(|key| key_name(*key)).collect();
        let list = |word: &'static [u8], op: Op| {
            let mut words: Vec<&[u8]> = vec![word];
            words.extend(names.iter().map(Vec::as_slice));
            command(&words, op, &keys)
        };
        match self.rng.below(12) {
            0..3 => list(b"MGET", Op::MGet),
            3 => list(b"DEL", Op::Del),
            4 => list(b"UNLINK", Op::Del),
            5 => list(b"EXISTS", Op::Count),
            6 => list(b"TOUCH", Op::Count),
            7 | 8 => {
                let values: Vec<Rc<[u8]>> =
                    keys.iter().map(|_| value(self.rng, self.shape)).collect();
                let nx = self.rng.chance(1, 3);
                let mut words: Vec<&[u8]> = vec![if nx { b"MSETNX" } else { b"MSET" }];
                for (name, value) in names.iter().zip(&values) {
                    words.extend([&name[..], value]);
                }
                let frame = frame(&words);
                Command { frame, check: Check::Private { op: Op::MSet { values, nx }, keys } }
            }
            roll => self.transfer(roll),
        }
    }

    fn transfer(&mut self, roll: u64) -> Command {
        let ((from, from_name), (to, to_name)) = (self.key(), self.key());
        let words = |word: &'static [u8]| [word, &from_name, &to_name].map(<[u8]>::to_vec);
        let (words, op) = match roll {
            9 => (words(b"RENAME").to_vec(), Op::Rename { nx: false }),
            10 => (words(b"RENAMENX").to_vec(), Op::Rename { nx: true }),
            _ => {
                let replace = self.rng.chance(1, 2);
                let mut words = words(b"COPY").to_vec();
                words.extend(replace.then(|| b"REPLACE".to_vec()));
                (words, Op::Copy { replace })
            }
        };
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        command(&words, op, &[from, to])
    }

    fn database(&mut self) -> Command {
        let node = self.node;
        let whole = |words: &[&[u8]], what| Command::new(words, Check::Database(what, node));
        match self.rng.below(12) {
            0..4 => whole(&[b"DBSIZE"], Whole::Len),
            4..7 => whole(&[b"KEYS", b"*"], Whole::Keys),
            7 | 8 => whole(&[b"RANDOMKEY"], Whole::Random),
            9 | 10 => whole(&[b"SCAN", b"0", b"COUNT", b"1000"], Whole::Scan),
            _ => whole(&[b"FLUSHDB"], Whole::Flush),
        }
    }
}

/// A command on keys that all clients share, in database 0.
#[must_use]
pub fn shared(rng: &mut Rng, flushes: bool, common: &mut Common, client: usize) -> Command {
    let make = |words: &[&[u8]], what| Command::new(words, Check::Shared(what));
    match rng.below(100) {
        0..25 => {
            let counter = rng.index(common.counters());
            let name = counter_name(counter);
            if rng.chance(1, 4) {
                return make(&[b"GET", &name], Shared::Count(counter));
            }
            common.incr_issued(counter);
            make(&[b"INCR", &name], Shared::Incr(counter))
        }
        25..65 => group(rng, common, client),
        65..83 => crate::queue::draw(rng, common, client),
        83..98 => token(rng),
        _ if flushes => {
            let sent = common.step;
            common.flushes.push(crate::shared::Flush { sent, end: None, done: false, void: false });
            make(&[b"FLUSHALL"], Shared::FlushAll(common.flushes.len() - 1))
        }
        _ => token(rng),
    }
}

fn group(rng: &mut Rng, common: &mut Common, client: usize) -> Command {
    let group = rng.index(common.groups());
    let mut names: Vec<Vec<u8>> = (0..common.group_len).map(|key| group_name(group, key)).collect();
    rng.shuffle(&mut names);
    let list = |word: &'static [u8], names: &[Vec<u8>], what| {
        let mut words: Vec<&[u8]> = vec![word];
        words.extend(names.iter().map(Vec::as_slice));
        Command::new(&words, Check::Shared(what))
    };
    match rng.below(100) {
        0..40 => {
            let some = 1 + rng.index(names.len());
            list(b"MGET", &names[..some], Shared::Read(group))
        }
        40..50 => Command::new(&[b"GET", &names[0]], Check::Shared(Shared::ReadOne(group))),
        50..58 => list(b"EXISTS", &names, Shared::Exists(group, names.len())),
        58..66 => {
            let write = common.write_issued(group, None);
            list(b"DEL", &names, Shared::Delete(group, names.len(), write))
        }
        roll => {
            let tag = common.new_value(client);
            let value = group_value(tag);
            let write = common.write_issued(group, Some(tag));
            let new = roll < 74;
            let mut words: Vec<&[u8]> = vec![if new { b"MSETNX" } else { b"MSET" }];
            for name in &names {
                words.extend([&name[..], &value]);
            }
            let what =
                if new { Shared::WriteNew(group, write) } else { Shared::Write(group, write) };
            Command::new(&words, Check::Shared(what))
        }
    }
}

fn token(rng: &mut Rng) -> Command {
    let names: Vec<Vec<u8>> = (0..PLACES).map(place_name).collect();
    let all = |word: &'static [u8], what| {
        let mut words: Vec<&[u8]> = vec![word];
        words.extend(names.iter().map(Vec::as_slice));
        Command::new(&words, Check::Shared(what))
    };
    match rng.below(4) {
        0 => all(b"EXISTS", Shared::TokenCount),
        1 => all(b"MGET", Shared::TokenRead),
        _ => {
            let (from, to) = (&names[rng.index(PLACES)], &names[rng.index(PLACES)]);
            let nx = rng.chance(2, 3);
            let word: &[u8] = if nx { b"RENAMENX" } else { b"RENAME" };
            Command::new(&[word, from, to], Check::Shared(Shared::Move(nx)))
        }
    }
}

/// A command about the connection, or a wrong one.
#[must_use]
pub fn small_talk(rng: &mut Rng) -> Command {
    match rng.below(10) {
        0 => Command { frame: b"PING\r\n".to_vec(), check: Check::Pong },
        1 => {
            let mut text = vec![0; rng.between(0, 300) as usize];
            rng.fill(&mut text);
            Command::new(&[b"ECHO", &text], Check::Bulk(text.clone().into()))
        }
        2 => Command::new(&[b"CLIENT", b"ID"], Check::Id),
        3 => Command::new(&[b"CLIENT", b"SETNAME", b"sim"], Check::Ok),
        4 => Command::new(&[b"NOSUCH", b"thing"], Check::Error("ERR unknown command 'NOSUCH'")),
        5 => {
            Command::new(&[b"GET"], Check::Error("ERR wrong number of arguments for 'get' command"))
        }
        6 => Command::new(
            &[b"MSET", b"a", b"b", b"c"],
            Check::Error("ERR wrong number of arguments for 'mset' command"),
        ),
        7 => Command::new(&[b"CLIENT", b"LIST"], Check::Text),
        8 => Command::new(&[b"DEBUG", b"SLEEP", b"0.0002"], Check::Ok),
        _ => Command::new(&[b"CLIENT", b"NO-TOUCH", b"on"], Check::Ok),
    }
}
