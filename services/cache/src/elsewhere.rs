//! What the command that runs knows of other shards' keys without having them, and what more it would have to know.
//!
//! SORT finds out as it runs which keys its patterns BY and GET stand for, and a script may ask for all keys. What of it
//! lies on other shards is noted here as wanted, the command ends without having done anything, its coordinator asks the
//! owners and runs it again with their answers in here (`multi/looks.rs`).
//!
//! Invariants: what is known was read under locks that the run still holds; a command that wants something has written
//! nothing; what is wanted is bounded by [`WANTED_MAX`]. Next: `multi/looks.rs`, `command/sort.rs`, `script/call.rs`.

use bytes::Bytes;
use logic::store::{KeyHash, Value};
use view::{HashMap, HashSet, Instant};

use crate::{
    command::Fault,
    ops::to_bytes,
    pubsub::Kind,
    shard::Shard,
    work::{Op, Response, Scan},
};

/// Most values of other shards one command may want.
pub(crate) const WANTED_MAX: usize = 1 << 24;

/// Most messages that one run of a script may publish with several shards.
const MESSAGES_MAX: usize = 1 << 16;
/// And most bytes of them.
const MESSAGES_MAX_BYTES: usize = 256 << 20;

/// What a key holds, or, with a field, what the hash at the key has there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// Its database.
    pub db: u16,
    /// The key.
    pub key: Box<[u8]>,
    /// The field.
    pub field: Option<Box<[u8]>>,
}

/// A question about all keys of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Survey {
    /// DBSIZE.
    Len(u16),
    /// KEYS.
    Keys(u16, Box<[u8]>),
    /// RANDOMKEY.
    Random(u16),
    /// A step of SCAN.
    Scan(Scan),
}

impl Survey {
    const fn db(&self) -> u16 {
        match self {
            Self::Len(db) | Self::Keys(db, _) | Self::Random(db) => *db,
            Self::Scan(scan) => scan.db,
        }
    }

    pub(crate) fn op(&self) -> Op {
        match self {
            Self::Len(db) => Op::Len(*db),
            Self::Keys(db, pattern) => Op::Keys(*db, pattern.clone()),
            Self::Random(db) => Op::Random(*db),
            Self::Scan(scan) => Op::Scan(scan.clone()),
        }
    }
}

/// What a run was found to need of other shards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// This key of this database, to have it.
    Key((u16, Box<[u8]>)),
    /// To know what is there.
    Look(Look),
    /// To know this of a shard.
    Survey(u16, Survey),
    /// To run with all keys of all shards locked.
    All,
}

impl Want {
    /// The key it is about; nothing when it is about all.
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Key((_, key)) => key,
            Self::Look(look) => &look.key,
            Self::Survey(..) | Self::All => b"",
        }
    }
}

/// What is known elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// Whose locks the run holds; 0 for none.
    pub(crate) ticket: u64,
    pub(crate) values: HashMap<Look, Option<Bytes>>,
    pub(crate) surveys: HashMap<(u16, Survey), Response>,
    /// All keys of all shards are locked for the run.
    pub(crate) holds_all: bool,
    /// Databases that the run has emptied, on all shards; nothing for all of them.
    pub(crate) flushed: Vec<Option<u16>>,
    /// Keys of other shards that it uses since then, without having been lent them: there was nothing to lend.
    pub(crate) adopted: HashSet<(u16, Box<[u8]>)>,
    /// In the order they came up, each once.
    wanted: Vec<Want>,
    noted: HashSet<Look>,
    /// There was more.
    is_full: bool,
    /// What a script has published, until it has ended.
    messages: Vec<(Kind, Box<[u8]>, Bytes)>,
    messages_bytes: usize,
}

impl Elsewhere {
    /// Whether something was wanted that is not known.
    pub(crate) const fn wants(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether more was wanted than may be.
    pub(crate) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// What was wanted, which is forgotten here.
    pub(crate) fn take_wanted(&mut self) -> Vec<Want> {
        self.noted = HashSet::default();
        self.is_full = false;
        std::mem::take(&mut self.wanted)
    }

    /// A value, when it is known; else it is wanted.
    fn value(&mut self, look: Look) -> Option<Bytes> {
        if let Some(known) = self.values.get(&look) {
            return known.clone();
        }
        if self.noted.contains(&look) {
            return None;
        }
        if self.wanted.len() >= WANTED_MAX {
            self.is_full = true;
            return None;
        }
        self.noted.insert(look.clone());
        self.wanted.push(Want::Look(look));
        None
    }

    /// Whether the run has emptied a database: nothing of it is on other shards any more.
    pub(crate) fn is_flushed(&self, db: u16) -> bool {
        self.flushed.iter().any(|flushed| flushed.is_none_or(|flushed| flushed == db))
    }

    /// Keeps a message until the script has ended.
    pub(crate) fn keep_message(
        &mut self,
        kind: Kind,
        channel: &[u8],
        payload: Bytes,
    ) -> Result<(), Fault> {
        self.messages_bytes += channel.len() + payload.len();
        if self.messages.len() >= MESSAGES_MAX || self.messages_bytes > MESSAGES_MAX_BYTES {
            return Err(Fault::text(
                "ERR the script has published too much: publish less in one run",
            ));
        }
        self.messages.push((kind, channel.into(), payload));
        Ok(())
    }

    pub(crate) fn take_messages(&mut self) -> Vec<(Kind, Box<[u8]>, Bytes)> {
        self.messages_bytes = 0;
        std::mem::take(&mut self.messages)
    }

    /// It is wanted that all keys are locked.
    pub(crate) fn want_all(&mut self) {
        self.wanted.push(Want::All);
    }

    /// A shard's answer, when it is known; else it is wanted.
    pub(crate) fn survey(&mut self, shard: u16, survey: Survey) -> Option<Response> {
        if self.is_flushed(survey.db()) {
            return Some(match survey {
                Survey::Len(_) => Response::Count(0),
                Survey::Random(_) => Response::Random { len: 0, key: None },
                Survey::Keys(..) | Survey::Scan(_) => {
                    Response::Keys { cursor: 0, keys: Vec::new() }
                }
            });
        }
        let asked = (shard, survey);
        match self.surveys.get(&asked) {
            Some(Response::Count(count)) => Some(Response::Count(*count)),
            Some(Response::Keys { cursor, keys }) => {
                Some(Response::Keys { cursor: *cursor, keys: keys.clone() })
            }
            Some(Response::Random { len, key }) => {
                Some(Response::Random { len: *len, key: key.clone() })
            }
            _ => {
                self.wanted.push(Want::Survey(asked.0, asked.1));
                None
            }
        }
    }
}

impl Shard {
    /// What a key holds, or a field of the hash there; of a key that is elsewhere, as far as that is known.
    pub(crate) fn look(
        &mut self,
        db: u16,
        key: &[u8],
        field: Option<&[u8]>,
        touch: bool,
        now_ms: u64,
    ) -> Option<Bytes> {
        let hash = self.store.hash(key);
        if self.count > 1 {
            let is_here = self.topology.owner_of(key) == self.index;
            let readable = if is_here {
                self.locks.is_empty() || !self.locks.blocks(self.elsewhere.ticket, db, hash.get())
            } else {
                // A key of another shard is in this store only when it was lent to the run.
                self.store.peek_object(db, hash, key, now_ms).is_some()
            };
            if !readable && !is_here && self.elsewhere.is_flushed(db) {
                return None;
            }
            if !readable {
                let field = field.map(Into::into);
                return self.elsewhere.value(Look { db, key: key.into(), field });
            }
        }
        self.read_value(db, hash, key, field, touch, now_ms)
    }

    /// Empties a database, or all, for a script that holds all keys: here at once, on other shards when it has ended.
    pub(crate) fn flush_everywhere(&mut self, db: Option<u16>, now: Instant) {
        self.run_unlogged(Op::Flush(db), now);
        self.log_flush(db);
        self.elsewhere.flushed.push(db);
    }

    fn read_value(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        field: Option<&[u8]>,
        touch: bool,
        now_ms: u64,
    ) -> Option<Bytes> {
        let (entry, with) = self.store.read(db, hash, key, touch, now_ms)?;
        match (entry.value, field) {
            (Value::Object(object), Some(field)) => {
                let value = object.as_hash()?.get(field, with);
                value.map(|value| Bytes::from(value.to_vec()))
            }
            (Value::Object(_), None) | (_, Some(_)) => None,
            (value, None) => to_bytes(value),
        }
    }

    /// Answers another shard's looks.
    pub(crate) fn look_all(&mut self, looks: Vec<Look>, touch: bool, now_ms: u64) -> Response {
        let answer = |look: Look| {
            let hash = self.store.hash(&look.key);
            let field = look.field.as_deref();
            let value = self.read_value(look.db, hash, &look.key, field, touch, now_ms);
            (look, value)
        };
        Response::Looked(looks.into_iter().map(answer).collect())
    }
}
