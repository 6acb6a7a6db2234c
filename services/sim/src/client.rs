//! A client: connects, sends commands in pipelines of any length and cut anywhere, reads at its
//! own pace, checks every reply, ends in every way there is, and comes back.
//!
//! What it may conclude from an end: after an orderly one (end of stream), commands without a
//! reply have not run and never will, because a server that started a command answers it. After a
//! broken one, those that were sent whole may have run up to some point; the client waits until
//! the server has let go of the connection before it trusts its keys again.
//!
//! Next: `draw` for the commands, `model` and `shared` for the checks.

use engine::driver::PeerName;
use engine::driver::sim::World;
use engine::rng::Rng;
use wire::resp::Reply;

use crate::command::{Check, Command, Shared, Whole, label};
use crate::connection::{Connection, Ending, Found, Owed};
use crate::draw::{self, Shape, View, key_name};
use crate::model::{During, Model};
use crate::op::{Op, Span};
use crate::setup::Addresses;
use crate::shared::{Common, show};

/// The longest pause of a client that waits for something.
const PATIENCE_NS: u64 = 2_000_000;

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its number; its private keys are in the database after it.
    pub number: usize,
    rng: Rng,
    pub(crate) shape: Shape,
    pub(crate) addresses: Addresses,
    pipeline_max: u64,
    pub(crate) model: Model,
    connection: Option<Connection>,
    /// Commands of a broken connection that may still run.
    settling: Option<(PeerName, Vec<Owed>)>,
    batches: u32,
    stage: Stage,
    /// When it acts next.
    pub wake_ns: u64,
    pause_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Has batches to send.
    Work,
    /// Has sent all; waits until the world is healed.
    Wait,
    /// Reads all its keys once more.
    Verify,
    /// Is over.
    Done,
}

/// Where a run is, as far as clients need to know.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock.
    pub now_ns: u64,
    /// The wall clock.
    pub now_ms: u64,
    /// Nothing goes wrong any more.
    pub healed: bool,
}

impl Client {
    /// A client that will send so many batches.
    #[must_use]
    pub fn new(
        number: usize,
        rng: Rng,
        shape: Shape,
        addresses: Addresses,
        (batches, pipeline_max): (u32, u64),
    ) -> Self {
        let model = Model::new(shape.keys);
        Self {
            number,
            rng,
            shape,
            addresses,
            pipeline_max,
            model,
            connection: None,
            settling: None,
            batches,
            stage: Stage::Work,
            wake_ns: 0,
            pause_ns: 0,
        }
    }

    /// The database of its private keys.
    #[must_use]
    pub const fn db(&self) -> usize {
        self.number + 1
    }

    /// How many private keys it has.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.shape.keys
    }

    /// Whether it has sent all its batches and settled what came of them.
    #[must_use]
    pub fn is_through(&self) -> bool {
        let idle = self.connection.as_ref().is_none_or(|connection| connection.owed.is_empty());
        self.stage >= Stage::Wait && idle && self.settling.is_none()
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// What it is doing, for a report.
    #[must_use]
    pub fn describe(&self) -> String {
        let connection = self.connection.as_ref().map(|connection| {
            let owed = connection.owed.front().map(|owed| label(&owed.head));
            let count = connection.owed.len();
            format!("{count} replies owed, first {owed:?}, ending {:?}", connection.ending)
        });
        let settling = self.settling.as_ref().map(|(name, _)| name.to_string());
        format!("client {}: {:?}, {connection:?}, settling {settling:?}", self.number, self.stage)
    }

    /// Does what there is to do now, and says when to come back (`wake_ns`).
    ///
    /// # Errors
    /// A check failed.
    pub fn act(&mut self, world: &World, common: &mut Common, at: Moment) -> Result<(), String> {
        let progress = match self.connection.take() {
            Some(connection) => self.serve(connection, common, at)?,
            None => self.without_connection(world, common, at)?,
        };
        if progress {
            self.pause_ns = 10_000;
            self.wake_ns = at.now_ns + self.rng.between(0, 20_000);
        } else {
            self.pause_ns = (self.pause_ns * 2).min(PATIENCE_NS);
            self.wake_ns = at.now_ns + self.rng.between(self.pause_ns / 2, self.pause_ns);
        }
        if progress && self.rng.chance(1, 60) {
            let most = if self.rng.chance(1, 10) { 120_000_000 } else { 8_000_000 };
            self.wake_ns += self.rng.between(0, most);
        }
        Ok(())
    }

    fn without_connection(
        &mut self,
        world: &World,
        common: &mut Common,
        at: Moment,
    ) -> Result<bool, String> {
        if let Some((name, owed)) = self.settling.take() {
            if world.has_peer(&name) {
                self.settling = Some((name, owed));
                return Ok(false);
            }
            self.settle(owed, common, at);
            return Ok(true);
        }
        if common.stopping {
            self.stage = Stage::Done;
        }
        match self.stage {
            Stage::Work => self.connect(world, common),
            Stage::Wait if at.healed => {
                self.stage = Stage::Verify;
                self.connect(world, common);
            }
            Stage::Verify => self.connect(world, common),
            Stage::Wait | Stage::Done => return Ok(false),
        }
        Ok(true)
    }

    fn connect(&mut self, world: &World, common: &mut Common) {
        let shard = self.rng.chance(1, 2).then(|| self.rng.index(self.addresses.shards.len()));
        let address = shard.map_or(self.addresses.shared, |shard| self.addresses.shards[shard]);
        let mut connection = Connection::new(world.connect_client(address), shard);
        common.tell(|| format!("client {} connects to {address}", self.number));
        connection.batches = self.rng.between(1, 8) as u32;
        connection.slow = self.rng.chance(1, 6);
        connection.ending = match self.rng.below(6) {
            0 => Ending::Quit,
            1 => Ending::Nonsense,
            2 => Ending::Reset,
            3 => Ending::Drop,
            _ => Ending::HalfClose,
        };
        if self.stage == Stage::Verify {
            connection.ending = Ending::HalfClose;
            connection.batches = 1;
        }
        if self.rng.chance(1, 2) {
            connection.push(Command::new(&[b"HELLO", b"3"], Check::Hello(3)));
        }
        if self.rng.chance(1, 2) {
            connection.push(Command::new(&[b"CLIENT", b"ID"], Check::Id));
        }
        if shard.is_some() && self.stage == Stage::Work && self.rng.chance(1, 6) {
            connection.wants_redirection = true;
            connection.push(Command::new(&[b"CLUSTER", b"SLOTS"], Check::Slots));
        }
        self.connection = Some(connection);
    }

    /// One step on a connection; whether something happened.
    fn serve(
        &mut self,
        mut connection: Connection,
        common: &mut Common,
        at: Moment,
    ) -> Result<bool, String> {
        let mut progress = false;
        match connection.read(&mut self.rng, common) {
            Ok(len) => progress |= len > 0,
            Err(found) => return self.ended(connection, found, common, at).map(|()| true),
        }
        if progress {
            self.replies(&mut connection, common, at)?;
        }
        progress |= self.produce(&mut connection, common, at);
        progress |= connection.write(&mut self.rng, common, at.now_ms) > 0;
        if connection.broken_by_us {
            // Dropping our end closes it.
            let name = connection.name.clone();
            common.tell(|| format!("client {} gives up {name}", self.number));
            self.give_up(connection, common);
            return Ok(true);
        }
        self.connection = Some(connection);
        Ok(progress)
    }

    fn replies(
        &mut self,
        connection: &mut Connection,
        common: &mut Common,
        at: Moment,
    ) -> Result<(), String> {
        while let Some((reply, first)) = connection.next_reply()? {
            let full = matches!(&reply, Reply::Error(text)
                if text.starts_with(b"ERR max number of clients reached"));
            if full && self.addresses.limited {
                connection.refused = true;
                common.mark("refused at the limit");
                continue;
            }
            let Some(owed) = connection.owed.pop_front() else {
                return Err(format!("a reply to nothing: {}", show(&reply)));
            };
            let Some((sent, sent_ms)) = owed.sent else {
                return Err(format!("a reply before the command was sent: {}", show(&reply)));
            };
            let ms = Span { lo: sent_ms, hi: at.now_ms };
            let during = During { ms, sent, told: common.step };
            common.replies += 1;
            common.tell(|| {
                format!("client {}: {} -> {}", self.number, label(&owed.head), show(&reply))
            });
            self.check(connection, &owed, during, &reply, first, common).map_err(|why| {
                format!(
                    "client {} on {}: {:?} -> {}: {why} ({} to {} ms)",
                    self.number,
                    connection.name,
                    label(&owed.head),
                    show(&reply),
                    ms.lo,
                    ms.hi
                )
            })?;
        }
        Ok(())
    }

    // What is sent.

    /// Adds commands, or ends the connection, when it is time.
    fn produce(&mut self, connection: &mut Connection, common: &mut Common, at: Moment) -> bool {
        if connection.ended || connection.refused || !connection.is_written() {
            return false;
        }
        if connection.id.is_some_and(|id| common.doomed.contains(&id)) {
            // Somebody killed it, and was told so: the end must come.
            return false;
        }
        let idle = connection.owed.is_empty();
        let more = connection.batches > 0 && self.batches > 0 && self.stage == Stage::Work;
        if more {
            if idle || self.rng.chance(1, 8) {
                connection.batches -= 1;
                self.batches -= 1;
                self.batch(connection, common, at);
                return true;
            }
            return false;
        }
        if self.stage == Stage::Work && self.batches == 0 {
            self.stage = Stage::Wait;
        }
        if self.stage == Stage::Wait && !at.healed && self.rng.chance(1, 2) {
            return false;
        }
        if self.stage == Stage::Verify && connection.batches > 0 {
            connection.batches = 0;
            self.verify(connection);
            return true;
        }
        self.end(connection, common);
        true
    }

    fn batch(&mut self, connection: &mut Connection, common: &mut Common, at: Moment) {
        let len = match self.rng.below(10) {
            0..4 => 1,
            4..8 => self.rng.between(2, 8.min(self.pipeline_max)),
            _ => self.rng.between(1, self.pipeline_max),
        };
        let node = self.addresses.node(connection.shard);
        for _ in 0..len {
            common.step += 1;
            let roll = self.rng.below(100);
            if roll < 5 {
                let command = self.talk(common);
                connection.push(command);
                continue;
            }
            let shared = roll < 5 + self.shape.shared && !connection.wants_redirection;
            let db = if shared { 0 } else { self.db() };
            if connection.db != db {
                connection.db = db;
                let text = db.to_string();
                connection.push(Command::new(&[b"SELECT", text.as_bytes()], Check::Ok));
            }
            let command = if shared {
                // A node's FLUSHALL leaves other nodes' keys alone, and groups in pieces.
                let flushes = self.shape.flushes && node.is_none();
                draw::shared(&mut self.rng, flushes, common, self.number)
            } else {
                let (shape, model) = (&self.shape, &self.model);
                let view = View { shape, model, now_ms: at.now_ms, node };
                draw::private(&mut self.rng, view)
            };
            connection.push(command);
        }
    }

    fn talk(&mut self, common: &mut Common) -> Command {
        if self.shape.kills
            && self.rng.chance(1, 4)
            && let Some(&id) = self.rng.pick(&common.ids)
        {
            common.killed.insert(id);
            let text = id.to_string();
            return Command::new(&[b"CLIENT", b"KILL", b"ID", text.as_bytes()], Check::Kill(id));
        }
        if self.rng.chance(1, 8) {
            let version = self.rng.between(2, 3) as u8;
            let text = version.to_string();
            return Command::new(&[b"HELLO", text.as_bytes()], Check::Hello(version));
        }
        draw::small_talk(&mut self.rng)
    }

    /// Reads everything once more.
    fn verify(&self, connection: &mut Connection) {
        let node = self.addresses.node(connection.shard);
        let db = self.db().to_string();
        connection.push(Command::new(&[b"SELECT", db.as_bytes()], Check::Ok));
        connection.db = self.db();
        for key in 0..self.shape.keys {
            let name = key_name(key);
            let check = Check::Private { op: Op::Get, keys: vec![key] };
            connection.push(Command::new(&[b"GET", &name], check));
        }
        connection.push(Command::new(&[b"KEYS", b"*"], Check::Database(Whole::Keys, node)));
        connection.push(Command::new(&[b"DBSIZE"], Check::Database(Whole::Len, node)));
    }

    fn end(&mut self, connection: &mut Connection, common: &mut Common) {
        connection.ended = true;
        match connection.ending {
            Ending::Quit => {
                connection.push(Command::new(&[b"QUIT"], Check::Quit));
                common.mark("quit");
                if self.rng.chance(1, 2) {
                    // Behind QUIT nothing is answered.
                    connection.push(Command::new(&[b"PING"], Check::Pong));
                }
            }
            Ending::Nonsense => {
                let frame = match self.rng.below(3) {
                    0 => b"*2\r\n$3\r\nGET\r\n$-7\r\n".to_vec(),
                    1 => b"*1\r\n+OK\r\n".to_vec(),
                    _ => b"*99999999999999999999\r\n".to_vec(),
                };
                let check = Check::Fatal("ERR Protocol error");
                connection.push(Command { frame, check });
                common.mark("nonsense");
            }
            Ending::HalfClose => {
                common.mark("half-closed");
                connection.half_close();
            }
            Ending::Reset => {
                common.mark("reset by a client");
                connection.broken_by_us = true;
                connection.reset();
            }
            Ending::Drop => {
                common.mark("closed by a client");
                connection.broken_by_us = true;
            }
        }
    }

    // How connections end.

    fn ended(
        &mut self,
        mut connection: Connection,
        found: Found,
        common: &mut Common,
        at: Moment,
    ) -> Result<(), String> {
        common.tell(|| format!("client {} finds {found:?} on {}", self.number, connection.name));
        let killed = connection.id.is_some_and(|id| common.killed.contains(&id));
        let excused = killed || common.stopping || connection.over || connection.refused;
        let owed = connection.owed.len();
        let fail = |what: &str| {
            let first = connection.owed.front().map(|owed| label(&owed.head));
            let (number, name) = (self.number, &connection.name);
            Err(format!("client {number} on {name}: {what}, {owed} replies owed, first {first:?}"))
        };
        match found {
            Found::Refused => common.mark("refused"),
            Found::Eof => {
                if connection.is_within_reply() {
                    return fail("the end came within a reply");
                }
                let asked = connection.ended && connection.ending == Ending::HalfClose;
                if !(excused || asked && owed == 0) {
                    return fail("the server ended the connection without a reason");
                }
                common.mark(if owed > 0 { "ended with replies owed" } else { "ended" });
            }
            Found::Reset => {
                // Shards that stop still send what they have answered, but leave those alone
                // that wait to be accepted.
                let early = common.stopping && connection.is_fresh();
                let excused = killed || early || connection.over || connection.refused;
                if !excused && !common.breaks {
                    return fail("the connection broke without a reason");
                }
                common.mark("broke");
                self.give_up(connection, common);
                return Ok(());
            }
        }
        while let Some(owed) = connection.owed.pop_front() {
            void(&owed, common);
        }
        self.after_connection(found == Found::Eof);
        // Somebody who was refused waits a little.
        self.pause_ns = if found == Found::Eof { 10_000 } else { 1_000_000 };
        let _ = at;
        Ok(())
    }

    fn after_connection(&mut self, in_order: bool) {
        match self.stage {
            Stage::Work if self.batches == 0 => self.stage = Stage::Wait,
            Stage::Verify if in_order => self.stage = Stage::Done,
            _ => {}
        }
    }

    /// A connection is gone with commands that may have run.
    fn give_up(&mut self, mut connection: Connection, common: &mut Common) {
        let mut open = Vec::new();
        while let Some(owed) = connection.owed.pop_front() {
            // Asked for first, so whatever comes later is redirected.
            let moved = connection.wants_redirection
                && matches!(&owed.check, Check::Private { keys, .. }
                    if self.addresses.moved(connection.shard, keys).is_some());
            if connection.was_sent(&owed) && !connection.refused && !moved {
                open.push(owed);
            } else {
                void(&owed, common);
            }
        }
        if !open.is_empty() {
            common.mark("commands without a reply");
        }
        for owed in &open {
            common.tell(|| format!("client {} may have run {}", self.number, label(&owed.head)));
        }
        self.settling = Some((connection.name.clone(), open));
        self.after_connection(false);
    }

    /// The server has let go of a broken connection: its commands have run up to some point.
    fn settle(&mut self, open: Vec<Owed>, common: &mut Common, at: Moment) {
        common.step += 1;
        let mut all = self.model.clone();
        for owed in open {
            let Some((sent, sent_ms)) = owed.sent else { continue };
            let ms = Span { lo: sent_ms, hi: at.now_ms };
            let during = During { ms, sent, told: common.step };
            match &owed.check {
                Check::Private { op, keys } => {
                    flushes(&mut all, common, during);
                    // Without a reply everything is possible.
                    let _ = all.check(op, keys, during, None);
                }
                Check::Database(Whole::Flush, node) => {
                    all.clear(during, |key| self.addresses.is_shown(*node, key));
                }
                Check::Shared(shared) => maybe(shared, common),
                _ => {}
            }
            self.model.or(&all);
        }
    }
}

/// A command will not run any more, and has not.
fn void(owed: &Owed, common: &mut Common) {
    let Check::Shared(shared) = &owed.check else { return };
    match *shared {
        Shared::Incr(counter) => common.incr_void(counter),
        Shared::Write(group, write)
        | Shared::WriteNew(group, write)
        | Shared::Delete(group, _, write) => common.write_void(group, write),
        Shared::FlushAll(flush) => common.flushes[flush].void = true,
        Shared::Push(ref items) => common.items.void(items),
        _ => {}
    }
}

/// A command may have run, but will not any more.
fn maybe(shared: &Shared, common: &mut Common) {
    match *shared {
        Shared::Write(group, write)
        | Shared::WriteNew(group, write)
        | Shared::Delete(group, _, write) => common.write_maybe(group, write),
        Shared::FlushAll(flush) => common.flushes[flush].end = Some(common.step),
        Shared::Pop => common.items.lose(),
        _ => {}
    }
}

pub(crate) fn flushes(model: &mut Model, common: &Common, during: During) {
    for flush in common.flushes.iter().filter(|flush| !flush.void) {
        model.flushed(flush, during);
    }
}
