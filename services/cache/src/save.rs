//! Saving: one file for all shards, written by the first one from the parts the shards hand it.
//!
//! The file is a temporary one until it is whole and on disk; then it takes the dump's name. With `save-per-shard` there
//! is one per shard, and a manifest that takes a name (`manifest.rs`). A part is a bounded step of
//! one shard, so nothing stops for longer than a step takes, and memory is a part and a buffer.
//!
//! What a file shows: one moment, at which every key of every shard is held, so that a command or transaction over several
//! shards is in it or not. SAVE holds them to the end, as Redis holds its clients; BGSAVE lets them go at once, and each
//! shard writes what is about to change before it does (`logic::store::snapshot`, docs/decisions/0019). When the disk does
//! not follow, writes of keys that are not yet written wait, as they wait for a lock.
//!
//! Invariants: one save runs at a time; a save that fails leaves the last file as it was, and no snapshot. Next: `serve.rs`
//! for who asks, `logic::rdb` for the bytes.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use engine::buf::DirectBuf;
use engine::driver::OpenOptions;
use engine::error::{Error, Kind};
use engine::exec::sync::{Sender, once};
use engine::fs::{Dir, File};
use engine::net::Server;
use engine::shard::ShardCx;
use logic::rdb::{Writer, crc64};
use view::{Instant, Output};
use wire::resp::reply;

use crate::{
    flow::failover,
    manifest, repl,
    serve::Cache,
    shard::Shard,
    work::{Job, LockKeys, Op, Request, Response},
};

/// Bytes of a part after which no further group is begun.
const PART_BYTES: usize = 64 << 10;
/// Keys of a part after which no further group is begun, while turns are short: some 40 µs.
const PART_KEYS: u64 = 64;
/// A turn as long as this, or longer, makes parts as many times larger.
const TURN_NS: u64 = 100_000;
/// But not larger than so many times.
const PART_TIMES_MAX: u64 = 8;
/// Bytes written at a time.
const WRITE_BYTES: usize = 64 << 10;
/// After a failure, an automatic save is tried again no sooner.
const RETRY_S: u64 = 5;
/// The version of Redis whose files these are.
const REDIS_VERSION: &str = "7.0.15";

/// What all shards know of saves.
#[derive(Debug, Default)]
pub struct Saves {
    /// A save in the background is under way.
    running: AtomicBool,
    /// Unix seconds of the last save that succeeded, or of the start.
    last_s: AtomicU64,
    /// Unix seconds of the last save in the background that was tried.
    tried_s: AtomicU64,
    /// The last save in the background failed.
    failed: AtomicBool,
    /// Commands that write since the last save.
    changes: AtomicU64,
}

impl Saves {
    /// The process starts, with what was loaded.
    pub(crate) fn begin(&self, now: Instant) {
        self.last_s.store(now.unix_s(), Relaxed);
    }

    /// Unix seconds of the last save.
    pub(crate) fn last_s(&self) -> u64 {
        self.last_s.load(Relaxed)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Relaxed)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    pub(crate) fn changed(&self, more: u64) {
        if more > 0 {
            self.changes.fetch_add(more, Relaxed);
        }
    }

    /// Whether one of the save points (pairs of seconds and changes) has come.
    fn is_due(&self, points: &str, now_s: u64) -> bool {
        let may = !self.is_running()
            && (!self.has_failed() || now_s > self.tried_s.load(Relaxed).saturating_add(RETRY_S));
        let mut numbers = points.split_ascii_whitespace().map_while(|word| word.parse().ok());
        let passed = now_s.saturating_sub(self.last_s());
        let mut points = std::iter::from_fn(|| Some((numbers.next()?, numbers.next()?)));
        may && points
            .any(|(seconds, changes): (u64, u64)| self.changes() >= changes && passed > seconds)
    }
}

impl Shard {
    /// Runs one step of a save.
    pub(crate) fn run_save(&mut self, op: &Op, now_ms: u64) -> Response {
        match op {
            Op::SaveBegin => self.store.begin_snapshot(self.settings.rdb_compression, now_ms),
            &Op::SavePart { keys } => {
                let (bytes, more) = self.store.snapshot_part(keys, PART_BYTES, now_ms);
                return Response::Part { bytes, more };
            }
            _ => self.store.end_snapshot(),
        }
        Response::Done
    }

    /// Holds writes back while a snapshot cannot follow them; to be called in each turn.
    pub fn pace_snapshot(&mut self) {
        if self.store.snapshot_is_full() && !self.locks.holds_back() {
            self.locks.hold_back();
            self.stats.snapshot_waits += 1;
        }
    }

    /// The reply to a client who asked for a job.
    pub(crate) fn reply_job(&mut self, response: &Response, out: &mut Output) {
        match response {
            Response::Text(text) => reply::simple(out.inline_mut(), text),
            Response::Error(text) => {
                let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
                self.stats.error(&String::from_utf8_lossy(code));
                reply::error(out.inline_mut(), text);
            }
            _ => reply::ok(out.inline_mut()),
        }
    }

    /// Tells all shards of this one's commands that write.
    pub(crate) fn note_changes(&mut self) {
        let writes = self.stats.writes(&self.commands);
        self.saves.changed(writes.saturating_sub(self.noted_writes));
        self.noted_writes = writes;
    }
}

/// What the answer to a client says.
fn error(text: &str) -> Response {
    Response::Error(text.as_bytes().to_vec())
}

const IN_PROGRESS: &str = "ERR Background save already in progress";

/// Does what a client asked for; on the first shard.
pub(crate) async fn perform(server: Rc<Server<Cache>>, job: Job) -> Response {
    let saves = server.shard().borrow().saves.clone();
    match job {
        Job::Failover(order) => failover::begin(&server, *order).await,
        Job::EndFailover => failover::end(&server),
        Job::Promote => repl::link::promote(&server).await,
        Job::Save if saves.is_running() => error(IN_PROGRESS),
        Job::Save => match write(&server, true, None).await {
            Ok(()) => Response::Done,
            Err(_) => error("ERR"),
        },
        Job::Shutdown { force } => {
            if let Err(why) = write(&server, true, None).await
                && !force
            {
                let pairs: [(&str, &dyn std::fmt::Display); 1] = [("why", &why)];
                server.cx().log().error("cache", server.cx().now(), "no shutdown", &pairs);
                return error("ERR Errors trying to SHUTDOWN. Check logs.");
            }
            server.shard().borrow_mut().stops = true;
            Response::Stopping
        }
        Job::Background => {
            let (begun, moment) = once();
            if !begin_background(&server, Some(begun)) {
                return error(IN_PROGRESS);
            }
            // What its client writes after the reply is not in the file. A save that fails before its moment says so
            // elsewhere.
            let _ = moment.recv().await;
            Response::Text("Background saving started".into())
        }
    }
}

/// Starts a save in the background, unless one runs; tells of its moment.
fn begin_background(server: &Rc<Server<Cache>>, begun: Option<Sender<()>>) -> bool {
    let saves = server.shard().borrow().saves.clone();
    if saves.running.swap(true, Relaxed) {
        return false;
    }
    saves.tried_s.store(server.cx().now().unix_s(), Relaxed);
    let task = Rc::clone(server);
    server.cx().spawn("cache save", async move {
        let done = write(&task, false, begun).await;
        saves.failed.store(done.is_err(), Relaxed);
        saves.running.store(false, Relaxed);
    });
    true
}

/// Saves when a save point has come; called on the first shard.
pub(crate) fn tick(server: &Rc<Server<Cache>>) {
    let due = {
        let shard = server.shard().borrow();
        shard.saves.is_due(shard.settings.get("save"), server.cx().now().unix_s())
    };
    if due {
        begin_background(server, None);
    }
}

/// Writes the file, when no other save does; with all keys held, or only for the moment it shows.
async fn write(
    server: &Rc<Server<Cache>>,
    held: bool,
    begun: Option<Sender<()>>,
) -> Result<(), Error> {
    let _turn = server.service().saves.turn().await;
    let (saves, ticket, dir, name) = {
        let mut shard = server.shard().borrow_mut();
        let setting = |name| shard.settings.get(name).to_owned();
        let (dir, name) = (PathBuf::from(setting("dir")), setting("dbfilename"));
        (shard.saves.clone(), shard.ticket(), dir, name)
    };
    lock(server, ticket, true).await;
    let changes = saves.changes();
    each_shard(server, ticket, || Op::SaveBegin).await;
    if !held {
        lock(server, ticket, false).await;
    }
    if let Some(begun) = begun {
        begun.send(());
    }
    let done = write_dump(server, ticket, &dir, &name).await;
    if done.is_err() {
        each_shard(server, ticket, || Op::SaveEnd).await;
    }
    if held {
        lock(server, ticket, false).await;
    }
    let now = server.cx().now();
    match &done {
        Ok(bytes) => {
            saves.last_s.store(now.unix_s(), Relaxed);
            saves.changes.fetch_sub(changes, Relaxed);
            let pairs: [(&str, &dyn std::fmt::Display); 2] = [("file", &name), ("bytes", bytes)];
            server.cx().log().info("cache", now, "saved", &pairs);
        }
        Err(why) => server.cx().log().error("cache", now, "not saved", &[("why", why)]),
    }
    done.map(|_| ())
}

/// Holds all keys of all shards, or lets them go.
async fn lock(server: &Rc<Server<Cache>>, ticket: u64, hold: bool) {
    let count = server.shard().borrow().count;
    for shard in 0..count {
        let request = if hold {
            Request::Lock { ticket, keys: LockKeys::All, needs_memory: false, guards: Vec::new() }
        } else {
            Request::Op { ticket, op: Op::Nothing, unlock: true }
        };
        Cache::ask(server, shard, request).await;
    }
}

/// The same step on all shards at once.
async fn each_shard(server: &Rc<Server<Cache>>, ticket: u64, op: impl Fn() -> Op) {
    let count = server.shard().borrow().count;
    let request = |shard| (shard, Request::Op { ticket, op: op(), unlock: false });
    Cache::exchange(Rc::clone(server), (0..count).map(request).collect()).await;
}

/// Writes the dump, of one file or of one per shard; how many bytes.
async fn write_dump(
    server: &Rc<Server<Cache>>,
    ticket: u64,
    path: &Path,
    name: &str,
) -> Result<u64, Error> {
    let cx = server.cx().clone();
    let dir = Dir::existing(&cx, path)?;
    let temp = format!("temp-{}.rdb", std::process::id());
    let (count, per_shard) = {
        let shard = server.shard().borrow();
        (shard.count, shard.config.save_per_shard)
    };
    let at_ms = cx.now().unix_ms();
    let files: Vec<String> = match per_shard {
        true => (0..count).map(|shard| manifest::part(name, at_ms, shard)).collect(),
        false => vec![temp.clone()],
    };
    let named = match write_files(server, ticket, path, &files).await {
        Ok(bytes) if per_shard => {
            let list = write_manifest(&cx, &path.join(&temp), &files).await;
            list.and_then(|()| dir.rename(&temp, &manifest::name(name))).map(|()| bytes)
        }
        Ok(bytes) => dir.rename(&temp, name).map(|()| bytes),
        Err(error) => Err(error),
    };
    if named.is_err() {
        // They may not be there.
        for file in files.iter().chain([&temp]) {
            let _ = dir.remove(file);
        }
    }
    let bytes = named?;
    dir.sync().await?;
    // What is left of the last dump, or of saves that a crash cut off. Nothing depends on its removal.
    let current = |file: &String| files.contains(file);
    let old = |file: &String| match per_shard {
        true => *file == name || manifest::is_part(name, file) && !current(file),
        false => *file == manifest::name(name) || manifest::is_part(name, file),
    };
    for file in dir.list()?.iter().filter(|file| old(file)) {
        let _ = dir.remove(file);
    }
    Ok(bytes)
}

async fn write_manifest(cx: &ShardCx, path: &Path, files: &[String]) -> Result<(), Error> {
    let mut out = Out::create(cx, path)?;
    out.write(manifest::write(files).as_bytes()).await?;
    out.finish().await.map(drop)
}

/// Writes the files, one for all shards or one each; how many bytes.
async fn write_files(
    server: &Rc<Server<Cache>>,
    ticket: u64,
    path: &Path,
    files: &[String],
) -> Result<u64, Error> {
    let cx = server.cx();
    let (used, count, checksum) = {
        let shard = server.shard().borrow();
        (shard.store.used_bytes(), shard.count, shard.settings.rdb_checksum)
    };
    let mut outs = Vec::with_capacity(files.len());
    for file in files {
        let mut out = Out::create(cx, &path.join(file))?;
        out.begin(cx.now().unix_s(), used).await?;
        outs.push(out);
    }
    // All shards are asked in turn, so that what waits in one does not wait for the others' ends.
    let mut left: Vec<u16> = (0..count).collect();
    let mut keys = PART_KEYS;
    while !left.is_empty() {
        let request =
            |shard| (shard, Request::Op { ticket, op: Op::SavePart { keys }, unlock: false });
        let asked = std::mem::take(&mut left);
        let requests = asked.iter().copied().map(request).collect();
        let parts = Cache::exchange(Rc::clone(server), requests).await;
        for (shard, part) in asked.into_iter().zip(parts) {
            let at = usize::from(shard).min(outs.len().saturating_sub(1));
            let (Response::Part { bytes, more }, Some(out)) = (part, outs.get_mut(at)) else {
                return Err(Error::new("save", Kind::Invalid, "a shard has stopped"));
            };
            out.write(&bytes).await?;
            if more {
                left.push(shard);
            }
        }
        // What clients must wait for anyway may be a little longer, or a dump would take very long under load.
        let took_ns = cx.give_way().await;
        keys = PART_KEYS * (took_ns / TURN_NS).clamp(1, PART_TIMES_MAX);
    }
    let mut bytes = 0;
    for mut out in outs {
        out.end(checksum).await?;
        bytes += out.finish().await?;
    }
    Ok(bytes)
}

/// A file, written in order.
pub(crate) struct Out {
    file: File,
    buf: Option<DirectBuf>,
    used: usize,
    /// Bytes in the file.
    written: u64,
    crc: u64,
}

impl Out {
    pub(crate) fn create(cx: &ShardCx, path: &Path) -> Result<Self, Error> {
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(cx, path, &options)?;
        file.truncate(0)?;
        Ok(Self { file, buf: Some(DirectBuf::zeroed(WRITE_BYTES)), used: 0, written: 0, crc: 0 })
    }

    /// What a dump begins with.
    async fn begin(&mut self, now_s: u64, used: u64) -> Result<(), Error> {
        let mut writer = Writer::new(false);
        writer.header();
        writer.aux("redis-ver", REDIS_VERSION.as_bytes());
        writer.aux("redis-bits", b"64");
        writer.aux("ctime", now_s.to_string().as_bytes());
        writer.aux("used-mem", used.to_string().as_bytes());
        writer.aux("aof-base", b"0");
        self.write(&writer.out).await
    }

    /// What a dump ends with.
    async fn end(&mut self, checksum: bool) -> Result<(), Error> {
        let mut writer = Writer::new(false);
        writer.eof();
        self.write(&writer.out).await?;
        writer.out.clear();
        writer.checksum(if checksum { self.crc } else { 0 });
        self.write(&writer.out).await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.crc = crc64::update(self.crc, bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(buf) = &mut self.buf else { break };
            let room = buf.get_mut(self.used..).unwrap_or_default();
            let len = room.len().min(rest.len());
            let (now, later) = rest.split_at(len);
            if let Some(room) = room.get_mut(..len) {
                room.copy_from_slice(now);
            }
            self.used += len;
            rest = later;
            if !rest.is_empty() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let buf = self.buf.take().unwrap_or_else(|| DirectBuf::zeroed(WRITE_BYTES));
        let written = self.file.write_at(buf, self.used, self.written).await?;
        self.buf = Some(written);
        self.written += self.used as u64;
        self.used = 0;
        Ok(())
    }

    /// Everything is in the file, which need not be durable.
    pub(crate) async fn close(mut self) -> Result<(), Error> {
        self.flush().await
    }

    /// Everything is in the file, and on disk; how many bytes.
    async fn finish(mut self) -> Result<u64, Error> {
        self.flush().await?;
        self.file.sync().await?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn save_points_come_after_their_time_with_their_changes() {
        let saves = Saves::default();
        saves.last_s.store(1000, Relaxed);
        saves.changed(10);
        assert!(!saves.is_due("", 5000), "no save point");
        assert!(!saves.is_due("60 10", 1060));
        assert!(saves.is_due("60 10", 1061));
        assert!(!saves.is_due("60 11", 9000));
        assert!(saves.is_due("60 11 300 1", 1301));
        saves.failed.store(true, Relaxed);
        saves.tried_s.store(1061, Relaxed);
        assert!(!saves.is_due("60 10", 1066), "a failed one is tried again later");
        assert!(saves.is_due("60 10", 1067));
        saves.running.store(true, Relaxed);
        assert!(!saves.is_due("60 10", 1067), "one at a time");
    }
}
