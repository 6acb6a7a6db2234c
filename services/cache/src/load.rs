//! Loading the dump at start: every shard reads the file and keeps its own keys.
//!
//! It happens before a shard listens, so nobody sees half of a data set, and what is wrong with the file keeps the
//! process from starting, with its position: nothing is left out silently.
//!
//! Invariants: memory beyond the keys is one piece of the file and one value; a key whose shard is another is passed over
//! without making anything of it. Next: `logic::rdb` reads, `save.rs` writes.

use std::path::{Path, PathBuf};

use engine::driver::OpenOptions;
use engine::error::{Error, Kind};
use engine::fs::File;
use engine::shard::ShardCx;
use logic::{
    rdb::{Item, Reader, Record, Value},
    store::{DueKeys, Expire, Form, NewValue},
};
use view::Instant;

use crate::{manifest, shard::Shard};

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What a shard has loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Keys this shard keeps.
    pub(crate) keys: u64,
    /// Keys of this shard that were due already.
    pub(crate) expired: u64,
    /// Libraries of functions, and things of modules, which are not loaded.
    pub(crate) skipped: u64,
}

/// Loads the dump, of one file or of the parts a manifest names; which, and what. Where both are there, `save-per-shard`
/// says which counts.
///
/// # Errors
/// As [`load`]; a part is missing.
pub(crate) fn load_dump(
    shard: &mut Shard,
    dir: &Path,
    name: &str,
    cx: &ShardCx,
) -> Result<Option<(PathBuf, Loaded)>, Error> {
    let (whole, list) = (dir.join(name), dir.join(manifest::name(name)));
    let is_first = !shard.config.save_per_shard || open(cx, &list)?.is_none();
    if is_first && let Some(loaded) = load(shard, &whole, cx)? {
        return Ok(Some((whole, loaded)));
    }
    Ok(load_parts(shard, dir, &list, name, cx)?.map(|loaded| (list, loaded)))
}

/// Loads the parts that a manifest names; `None` when there is none.
fn load_parts(
    shard: &mut Shard,
    dir: &Path,
    list: &Path,
    name: &str,
    cx: &ShardCx,
) -> Result<Option<Loaded>, Error> {
    let Some(file) = open(cx, list)? else { return Ok(None) };
    let mut text = vec![0; usize::try_from(file.len()?.min(manifest::MAX_BYTES)).unwrap_or(0)];
    let mut at = 0;
    while let Some(rest) = text.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match read_some(cx, &file, rest, at as u64)? {
            0 => break,
            len => at += len,
        }
    }
    let text = String::from_utf8_lossy(text.get(..at).unwrap_or_default());
    let wrong = |problem: String| {
        let problem = format!("{}: {problem}", list.display());
        let remedy = "put back what is missing, or move the list away to start empty";
        Error::new("load", Kind::Invalid, problem).remedied(remedy)
    };
    let mut all = Loaded::default();
    for part in manifest::read(name, &text).map_err(wrong)? {
        let Some(loaded) = load(shard, &dir.join(&part), cx)? else {
            return Err(wrong(format!("{part} is missing")));
        };
        all.keys += loaded.keys;
        all.expired += loaded.expired;
        all.skipped += loaded.skipped;
    }
    Ok(Some(all))
}

/// Loads a file; `None` when there is none.
///
/// # Errors
/// The file cannot be read, is not whole, or holds what does not fit.
pub(crate) fn load(shard: &mut Shard, path: &Path, cx: &ShardCx) -> Result<Option<Loaded>, Error> {
    let Some(file) = open(cx, path)? else { return Ok(None) };
    let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
    read(shard, cx.now(), |reader| {
        let len = read_some(cx, &file, &mut piece, at)?;
        at += len as u64;
        match piece.get(..len) {
            Some(bytes) if len > 0 => reader.feed(bytes),
            _ => reader.end(),
        }
        Ok(())
    })
    .map(Some)
    .map_err(|wrong| match wrong {
        Wrong::Read(error) => error,
        Wrong::File(problem) => {
            let problem = format!("{}: {problem}", path.display());
            let remedy = "look at it with redis-check-rdb, or move it away to start empty";
            Error::new("load", Kind::Invalid, problem).remedied(remedy)
        }
    })
}

/// Opens a file; `None` when there is none.
fn open(cx: &ShardCx, path: &Path) -> Result<Option<File>, Error> {
    match File::open(cx, path, &OpenOptions::default()) {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Reads some bytes, waiting for the disk: nobody is served yet. None at the file's end.
fn read_some(cx: &ShardCx, file: &File, into: &mut [u8], at: u64) -> Result<usize, Error> {
    loop {
        let read = cx.driver().read_waiting(file.fd(), into, at);
        match read {
            Err(errno) if errno.kind() == Kind::Again => {}
            read => {
                let path = || file.path().display().to_string();
                return read.map_err(|errno| Error::os("read", errno, path()));
            }
        }
    }
}

/// Why nothing is loaded.
#[derive(Debug)]
pub(crate) enum Wrong {
    Read(Error),
    File(String),
}

/// Loads what `more` feeds to the reader.
pub(crate) fn read(
    shard: &mut Shard,
    now: Instant,
    mut more: impl FnMut(&mut Reader) -> Result<(), Error>,
) -> Result<Loaded, Wrong> {
    let mut loaded = Loaded::default();
    let mut reader = Reader::new();
    loop {
        let mut is_empty = false;
        match reader.next().map_err(|bad| Wrong::File(bad.to_string()))? {
            Some(Item::End) => return Ok(loaded),
            Some(Item::Key(record)) => {
                shard.load_key(&record, now, &mut loaded).map_err(Wrong::File)?;
            }
            Some(Item::Function(_) | Item::Skipped) => loaded.skipped += 1,
            Some(Item::Aux(..) | Item::Sizes(..)) => {}
            None => is_empty = true,
        }
        if is_empty {
            more(&mut reader).map_err(Wrong::Read)?;
        }
    }
}

impl Shard {
    /// Keeps a key of a dump, if it is this shard's.
    pub(crate) fn load_key(
        &mut self,
        record: &Record<'_>,
        now: Instant,
        loaded: &mut Loaded,
    ) -> Result<(), String> {
        let wrong = |what: &str| format!("at byte {}: {what}", record.at);
        let databases = self.store.config().databases;
        let db = u16::try_from(record.db).ok().filter(|&db| db < databases);
        let db = db.ok_or_else(|| wrong(&format!("database {}, of {databases}", record.db)))?;
        if self.topology.owner_of(&record.key) != self.index {
            return Ok(());
        }
        let now_ms = now.unix_ms();
        // On a replica the master says when it goes.
        let keeps = self.store.due_keys() != DueKeys::Removed;
        if !keeps && record.attributes.expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            loaded.expired += 1;
            return Ok(());
        }
        let hash = self.store.hash(&record.key);
        if self.store.peek(db, hash, &record.key, now_ms).is_some() {
            return Err(wrong("a key that is there twice"));
        }
        let expire = record.attributes.expire_at_ms.map_or(Expire::Clear, Expire::At);
        let full = |_| wrong("the shard's record space is full");
        match record.load(self.store.cx(now_ms)).map_err(|bad| bad.to_string())? {
            Value::String(bytes) => {
                let value = NewValue::Shared(bytes);
                let stored =
                    self.store.set(db, hash, &record.key, value, expire, Form::Plain, now_ms);
                stored.map_err(full)?;
            }
            // All fields of a hash are due.
            Value::Object(object) if object.is_gone() => {
                loaded.expired += 1;
                return Ok(());
            }
            Value::Object(object) => {
                let stored = self.store.put_object(db, hash, &record.key, object, expire, now_ms);
                stored.map_err(full)?;
            }
        }
        self.store.set_used(db, hash, &record.key, record.attributes, now_ms);
        loaded.keys += 1;
        Ok(())
    }
}
