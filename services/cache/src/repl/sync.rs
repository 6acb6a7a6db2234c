//! The whole data set of a master: into a file, and from there into all shards.
//!
//! A file, because every shard reads all of it and keeps its own keys, as at a start: memory beyond the keys is a piece of
//! the file and one value. Until it is there whole, what there was is served; then the databases are emptied by a FLUSHALL
//! as clients send it, and each key that is loaded is logged as it is, so that the append-only log follows.
//!
//! Invariants: a dump of a version that cannot be read empties nothing; a shard loads a few keys at a time.
//! Next: `load.rs` for a key, `logic::rdb` for the bytes.

use std::path::Path;
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::driver::OpenOptions;
use engine::error::{Error, Kind};
use engine::exec::sync::yield_now;
use engine::fs::{Caching, File};
use engine::net::Server;
use engine::shard::ShardCx;
use logic::rdb::{Item, Reader, VERSION_MAX};
use view::Instant;

use super::{Applies, Common, apply::Applier, wire::Wire};
use crate::{
    aof, load::Loaded, save::Out, script, serve::Cache, shard::Shard, work::Request, work::Response,
};

/// Bytes of the file read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Keys loaded before others get their turn.
const KEYS_PER_TURN: usize = 64;
/// More than this waiting to be logged: the load goes on later.
const LOG_BACKLOG_BYTES: u64 = 4 << 20;
const LOOK_NS: u64 = 5_000_000;
/// The mark at the end of a dump whose length the master does not know.
const MARK_BYTES: usize = 40;
/// What a dump begins with: `REDIS` and its version.
const HEAD_BYTES: usize = 9;

/// How a dump ends.
enum End {
    After(u64),
    At(Vec<u8>),
}

impl End {
    fn parse(line: &str) -> Result<Self, Error> {
        let wrong = || {
            let context = format!("no data set: the master sent `{line}`");
            Error::new("replicate", Kind::Invalid, context)
        };
        if line.starts_with('-') {
            return Err(wrong());
        }
        let rest = line.strip_prefix('$').ok_or_else(wrong)?;
        match rest.strip_prefix("EOF:") {
            Some(mark) if mark.len() == MARK_BYTES => Ok(Self::At(mark.as_bytes().to_vec())),
            Some(_) => Err(wrong()),
            None => rest.parse().map(Self::After).map_err(|_| wrong()),
        }
    }

    /// How many bytes at the front of `buffer` belong to the dump for sure, and whether that is its end.
    fn ready(&self, buffer: &[u8], written: u64) -> (usize, bool) {
        match self {
            Self::After(len) => {
                let left = usize::try_from(len.saturating_sub(written)).unwrap_or(usize::MAX);
                (buffer.len().min(left), buffer.len() >= left)
            }
            Self::At(mark) => {
                let sure = buffer.len().saturating_sub(MARK_BYTES);
                (sure, buffer.get(sure..) == Some(mark))
            }
        }
    }
}

/// Takes the dump into a file; false when it is not wanted any more.
///
/// # Errors
/// It does not come whole, cannot be written, or is of a version that cannot be read.
pub(super) async fn receive(
    wire: &mut Wire,
    cx: &ShardCx,
    path: &Path,
    common: &Common,
    is_over: impl Fn() -> bool,
) -> Result<bool, Error> {
    let end = End::parse(&wire.line().await?)?;
    if let End::After(len) = end {
        common.lock().sync_bytes = Some(len);
    }
    let mut out = Out::create(cx, path)?;
    let (mut written, mut is_known) = (0, false);
    loop {
        if is_over() {
            return Ok(false);
        }
        let (sure, is_end) = end.ready(&wire.buffer, written);
        if !is_known && (sure >= HEAD_BYTES || is_end) {
            can_be_read(&wire.buffer)?;
            is_known = true;
        }
        if is_known {
            out.write(wire.buffer.get(..sure).unwrap_or_default()).await?;
            wire.buffer.drain(..sure);
            written += sure as u64;
            common.lock().sync_read = written;
        }
        if is_end {
            break;
        }
        wire.must().await?;
    }
    if let End::At(mark) = end {
        wire.buffer.drain(..mark.len().min(wire.buffer.len()));
    }
    out.close().await?;
    let pairs: [(&str, &dyn std::fmt::Display); 1] = [("bytes", &written)];
    cx.log().info("cache", cx.now(), "the master's data set has come", &pairs);
    Ok(true)
}

/// Whether a dump that begins so can be read.
fn can_be_read(bytes: &[u8]) -> Result<(), Error> {
    let version = bytes.get(..HEAD_BYTES).and_then(|head| head.strip_prefix(b"REDIS"));
    let version = version.and_then(|digits| std::str::from_utf8(digits).ok());
    match version.and_then(|digits| digits.parse::<u16>().ok()) {
        Some(version) if version <= VERSION_MAX => Ok(()),
        Some(version) => {
            let context = format!("the master sends a dump of version {version}");
            Err(Error::new("replicate", Kind::Unsupported, context)
                .remedied(format!("versions up to {VERSION_MAX} are read, redis 7.4 and older")))
        }
        None => Err(Error::new("replicate", Kind::Invalid, "the master sends no dump")),
    }
}

/// Loads a dump into all shards, in place of what there is.
///
/// # Errors
/// It is not whole, or what it holds does not fit.
pub(super) async fn load(
    server: &Rc<Server<Cache>>,
    path: &Path,
    applier: &mut Applier,
) -> Result<(), Error> {
    run(server, applier, &[b"FLUSHALL"]).await?;
    let count = server.shard().borrow().count;
    let path = path.display().to_string();
    let request = |shard| (shard, Request::Load { path: path.clone() });
    let loaded = Cache::exchange(Rc::clone(server), (0..count).map(request).collect()).await;
    let mut codes = Vec::new();
    for response in loaded {
        match response {
            Response::Values(found) => codes.extend(found.into_iter().flatten()),
            Response::Error(why) => {
                // Not some of it.
                run(server, applier, &[b"FLUSHALL"]).await?;
                let context = String::from_utf8_lossy(&why).into_owned();
                return Err(Error::new("load", Kind::Invalid, context));
            }
            _ => {}
        }
    }
    let payload = script::payload::write(codes.iter().map(|code| &code[..]));
    run(server, applier, &[b"FUNCTION", b"RESTORE", &payload, b"FLUSH"]).await
}

/// Runs a command as the master's.
pub(super) async fn run(
    server: &Rc<Server<Cache>>,
    applier: &mut Applier,
    words: &[&[u8]],
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    aof::command(&mut bytes, words);
    applier.apply(server, &bytes, || false).await.map(drop)
}

/// Loads a shard's own keys; the libraries of functions as values, from the first shard only.
pub(crate) async fn load_own(server: &Rc<Server<Cache>>, path: &str) -> Response {
    match load_file(server, Path::new(path)).await {
        Ok(codes) => Response::Values(codes.into_iter().map(|code| Some(code.into())).collect()),
        Err(error) => Response::Error(error.to_string().into_bytes()),
    }
}

async fn load_file(server: &Rc<Server<Cache>>, path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let cx = server.cx().clone();
    let file = File::open(&cx, path, &OpenOptions::default())?;
    let mut buffer = DirectBuf::zeroed(PIECE_BYTES);
    let (mut reader, mut at) = (Reader::new(), 0);
    let mut loading = Loading::default();
    loop {
        let step = {
            let mut shard = server.shard().borrow_mut();
            let before = shard.show_due_keys(Applies::NOW);
            let step = loading.step(&mut shard, &mut reader, cx.now());
            shard.hide_due_keys(before);
            step
        };
        match step {
            Err(problem) => {
                let problem = format!("the master's data set: {problem}");
                return Err(Error::new("load", Kind::Invalid, problem));
            }
            Ok(Step::End) => break,
            Ok(Step::Turn) => {}
            Ok(Step::More) => {
                let (back, len) = file.read_at(buffer, PIECE_BYTES, at, Caching::Keep).await?;
                buffer = back;
                at += len as u64;
                match buffer.get(..len) {
                    Some(bytes) if len > 0 => reader.feed(bytes),
                    _ => reader.end(),
                }
            }
        }
        let backlog = server.shard().borrow().journal.as_ref().map_or(0, |log| log.backlog_bytes());
        if backlog > LOG_BACKLOG_BYTES {
            cx.sleep(LOOK_NS).await;
        } else {
            yield_now().await;
        }
    }
    Ok(loading.codes)
}

/// What was loaded so far.
#[derive(Default)]
struct Loading {
    loaded: Loaded,
    codes: Vec<Vec<u8>>,
}

enum Step {
    /// More bytes are needed.
    More,
    /// Others have their turn.
    Turn,
    End,
}

impl Loading {
    /// Loads some keys.
    fn step(
        &mut self,
        shard: &mut Shard,
        reader: &mut Reader,
        now: Instant,
    ) -> Result<Step, String> {
        let keys = self.loaded.keys + KEYS_PER_TURN as u64;
        while self.loaded.keys < keys {
            match reader.next().map_err(|bad| bad.to_string())? {
                None => return Ok(Step::More),
                Some(Item::End) => return Ok(Step::End),
                Some(Item::Key(record)) => {
                    let before = self.loaded.keys;
                    shard.load_key(&record, now, &mut self.loaded)?;
                    if self.loaded.keys > before {
                        let db = u16::try_from(record.db).unwrap_or(u16::MAX);
                        shard.log_loaded(db, &record.key, now);
                    }
                }
                Some(Item::Function(code)) if shard.index == 0 => {
                    self.codes.push(code.into_owned());
                }
                Some(_) => {}
            }
        }
        Ok(Step::Turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_ends_after_its_length_or_at_its_mark() {
        let end = End::parse("$10").expect("a length");
        assert_eq!(end.ready(b"1234567", 0), (7, false));
        assert_eq!(end.ready(b"890*1\r\n", 7), (3, true));
        let mark = "m".repeat(MARK_BYTES);
        let end = End::parse(&format!("$EOF:{mark}")).expect("a mark");
        let text = format!("dump{mark}");
        assert_eq!(end.ready(text.as_bytes(), 0), (4, true));
        assert_eq!(end.ready(&text.as_bytes()[..20], 0), (0, false));
        assert_eq!(end.ready(&text.as_bytes()[..43], 0), (3, false));
        for bad in ["", "-ERR no", "10", "$x", "$EOF:short"] {
            assert!(End::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dump_of_a_later_version_is_refused_before_anything_is_emptied() {
        assert!(can_be_read(b"REDIS0010...").is_ok());
        let error = can_be_read(b"REDIS0099...").expect_err("a later version");
        assert!(error.to_string().contains("version 99"), "{error}");
        assert!(can_be_read(b"REDIS").is_err() && can_be_read(b"nonsense!").is_err());
    }
}
