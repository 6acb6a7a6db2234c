//! Keys of a script that it did not declare, with several shards.
//!
//! A script runs in one step on one shard. When a command wants a key that is on another shard and was not lent to the
//! run, or one of this shard's that another command holds, the script ends there, what it wrote is undone, and it runs
//! again with that key among those to lock (`multi/widen.rs`). For the undoing, what a key held is kept before the
//! first command that may change it.
//!
//! Copies of large values cost time in their size, so they are kept only in the first runs of a script on a shard, and
//! always once it was seen to use undeclared keys. A script that wants an undeclared key after it changed a large value
//! of which nothing was kept ends with an error, as a script that fails half-way does, and is remembered.
//!
//! Invariant: with one shard and no locks nothing here does anything. Next: `call.rs`.

use view::{HashMap, HashSet, Instant};
use wire::resp::{Args, parse_i64};

use crate::{
    command::row::{self, Row},
    elsewhere::Want,
    shard::Shard,
    work::Record,
};

/// A key with its database.
pub(crate) type Key = (u16, Box<[u8]>);

/// Keys by database.
type Keys = HashMap<u16, HashSet<Box<[u8]>>>;

/// A value up to this size is kept whatever the script.
const SMALL_BYTES: usize = 4096;
/// And a collection up to this many elements.
const SMALL_ELEMENTS: usize = 64;
/// Most keys whose former values are kept in a run.
const IMAGES_MAX: usize = 100_000;

/// What a run may touch, and what it has changed.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    on: bool,
    /// Whose locks the run holds; 0 for none.
    ticket: u64,
    /// Keys of this and other shards that the run holds.
    held: Keys,
    /// Keep what a key held whatever its size.
    thorough: bool,
    /// Only so many keys are kept.
    is_bounded: bool,
    images: Vec<(Key, Option<Record>)>,
    /// Their keys.
    kept: Keys,
    /// A large value was changed, and nothing of it was kept.
    torn: bool,
    /// What it wanted and could not have.
    wanted: Vec<Want>,
}

/// How a run that wanted other keys ended.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Nothing of it is left: run it again with these keys.
    Undone(Vec<Want>),
    /// What it wrote stays.
    Torn(Want),
}

impl Guard {
    /// For a run on this shard.
    pub(super) fn begin(&mut self, shard: &Shard, ticket: u64, held: &[Key], thorough: bool) {
        self.on = shard.count > 1 || !shard.locks.is_empty();
        if !self.on {
            return;
        }
        self.ticket = ticket;
        self.held.clear();
        for (db, key) in held {
            self.held.entry(*db).or_default().insert(key.clone());
        }
        (self.thorough, self.is_bounded) = (thorough, true);
        self.torn = false;
        self.images.clear();
        self.kept.clear();
        self.wanted.clear();
    }

    /// For commands that a transaction runs one after the other, and that may have to be undone: all they change is kept.
    pub(crate) fn for_transaction() -> Self {
        Self { thorough: true, is_bounded: false, ..Self::default() }
    }

    /// Keeps what the keys hold that a command may change.
    pub(crate) fn keep_written(
        &mut self,
        shard: &mut Shard,
        row: &Row,
        args: &Args,
        frame: &[u8],
        db: u16,
        now: Instant,
    ) {
        if row.flags & row::WRITE != 0 {
            for (db, key) in keys(row, args, frame, db) {
                self.keep(shard, db, key, now);
            }
        }
    }

    /// A command has found out as it ran that it wants these.
    pub(super) fn want(&mut self, wanted: Vec<Want>) {
        self.wanted.extend(wanted);
    }

    /// Whether commands have to be admitted.
    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    /// Whether a command may run: all its keys are here. Keeps what those hold that it may change.
    #[cold]
    pub(super) fn admit(
        &mut self,
        shard: &mut Shard,
        row: &Row,
        args: &Args,
        frame: &[u8],
        db: u16,
        now: Instant,
    ) -> bool {
        let keys = keys(row, args, frame, db);
        for (db, key) in &keys {
            if !self.may_use(shard, *db, key) {
                self.wanted.push(Want::Key((*db, (*key).into())));
            }
        }
        if !self.wanted.is_empty() {
            return false;
        }
        if row.flags & row::WRITE != 0 {
            for (db, key) in keys {
                self.keep(shard, db, key, now);
            }
        }
        true
    }

    fn may_use(&self, shard: &mut Shard, db: u16, key: &[u8]) -> bool {
        if self.held.get(&db).is_some_and(|held| held.contains(key)) {
            return true;
        }
        if shard.topology.owner_of(key) != shard.index {
            let is_free = shard.elsewhere.is_flushed(db);
            if is_free {
                shard.elsewhere.adopted.insert((db, key.into()));
            }
            return is_free;
        }
        shard.locks.is_empty() || !shard.locks.blocks(self.ticket, db, shard.store.hash(key).get())
    }

    fn keep(&mut self, shard: &mut Shard, db: u16, key: &[u8], now: Instant) {
        if self.kept.get(&db).is_some_and(|kept| kept.contains(key)) {
            return;
        }
        let hash = shard.store.hash(key);
        let small = self.thorough || is_small(shard, db, key, now);
        if !small || self.is_bounded && self.images.len() >= IMAGES_MAX {
            self.torn = true;
            return;
        }
        let record = shard.record(db, hash, key, false, now.unix_ms());
        self.kept.entry(db).or_default().insert(key.into());
        self.images.push(((db, key.into()), record));
    }

    /// Ends a run. When it wanted other keys, undoes what it wrote.
    pub(super) fn end(&mut self, shard: &mut Shard, now: Instant) -> Option<Wanted> {
        if !self.on {
            return None;
        }
        self.on = false;
        let mut wanted = std::mem::take(&mut self.wanted);
        self.held.clear();
        // What was emptied is not kept.
        let torn = self.torn || !shard.elsewhere.flushed.is_empty();
        if wanted.is_empty() || torn {
            self.images.clear();
            self.kept.clear();
            return wanted.pop().map(Wanted::Torn);
        }
        self.undo(shard, now);
        Some(Wanted::Undone(wanted))
    }

    /// Puts back what the keys held.
    pub(crate) fn undo(&mut self, shard: &mut Shard, now: Instant) {
        self.kept.clear();
        let images = std::mem::take(&mut self.images);
        for ((db, key), record) in images.into_iter().rev() {
            let hash = shard.store.hash(&key);
            match record {
                // What was there a moment ago has room.
                Some(record) => {
                    _ = record.store(&mut shard.store, db, hash, &key, now.unix_ms());
                }
                None => {
                    shard.store.remove(db, hash, &key, now.unix_ms());
                }
            }
        }
    }
}

/// The keys of a command, with their databases.
fn keys<'f>(row: &Row, args: &'f Args, frame: &'f [u8], db: u16) -> Vec<(u16, &'f [u8])> {
    let arg = |at| args.get(at, frame);
    let mut keys: Vec<_> = row.key_indices(args.len(), arg).map(|at| (db, arg(at))).collect();
    let other = match row.name {
        "move" => Some((1, 2)),
        "copy" => {
            let is_db = |at: &usize| arg(*at).eq_ignore_ascii_case(b"db");
            (3..args.len()).find(is_db).map(|at| (2, at + 1))
        }
        _ => None,
    };
    if let Some((key, at)) = other
        && let Some(other) = parse_i64(arg(at)).and_then(|db| u16::try_from(db).ok())
    {
        keys.push((other, arg(key)));
    }
    keys
}

fn is_small(shard: &mut Shard, db: u16, key: &[u8], now: Instant) -> bool {
    let hash = shard.store.hash(key);
    match shard.store.view(db, hash, key, now.unix_ms()).map(|entry| entry.value) {
        None => true,
        Some(logic::store::Value::Object(object)) => {
            object.len() <= SMALL_ELEMENTS && object.mem_bytes() <= SMALL_BYTES * 4
        }
        // Shared, not copied.
        Some(logic::store::Value::Shared(_)) => true,
        Some(value) => value.as_slice().len() <= SMALL_BYTES,
    }
}
