//! Commands: what a function that runs one gets ([`Cx`]) and gives ([`Outcome`], [`Fault`]).
//!
//! Invariant: a command checks everything before it writes its reply or changes the store, so a
//! [`Fault`] never follows half a reply. Next: [`table`] lists them; one file per group runs them.

pub(crate) mod acl;
mod admin;
mod bitmap;
mod blocking;
pub(crate) mod client;
mod client_tracking;
pub(crate) mod cluster;
mod collection;
pub(crate) mod config;
mod connection;
pub(crate) mod dispatch;
mod dump;
mod elements;
pub(crate) mod erase;
mod expire;
mod float;
mod geo;
mod hash;
pub(crate) mod heavy;
mod hyperloglog;
pub(crate) mod info;
mod introspect;
pub(crate) mod keyspace;
mod lcs;
mod ldouble;
mod limit;
mod list;
mod number;
mod object;
pub(crate) mod pubsub;
mod replication;
pub mod row;
mod save;
mod server;
mod set;
pub(crate) mod sort;
mod stream;
mod string;
pub mod table;
pub(crate) mod transactions;
mod watch;
mod zset;

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use logic::store::{DueKeys, KeyHash, NewValue, Value};
use view::{Input, Instant, Output};
use wire::resp::{Args, Version, parse_i64, reply};

pub(crate) use connection::REDIS_VERSION;

use crate::{
    acl::User,
    admin::{Ask, Finish, How, Replying},
    multi::{Multi, Plan},
    observe::Block,
    repl::Applies,
    shard::Shard,
    transaction::Transaction,
    work::Response,
};
use row::Row;

/// Runs one command.
pub type Exec = fn(&mut Cx<'_>) -> Result<Outcome, Fault>;

/// What follows a command.
#[derive(Debug)]
pub enum Outcome {
    /// Its reply is written.
    Done,
    /// Its reply is written; close the connection.
    Close,
    /// Close the connection without this batch's replies.
    Hangup,
    /// Its reply is written; the commands behind it are to be looked at anew.
    Regroup,
    /// The reply comes after this.
    Wait(Box<Waiting>),
    /// Not run: CLIENT PAUSE holds it back. Try again a little later.
    Later,
}

/// What CLIENT REPLY has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    /// Every command is answered.
    #[default]
    On,
    /// None is.
    Off,
    /// The next one is not.
    Skip,
}

/// What a reply waits for.
#[derive(Debug)]
pub enum Waiting {
    /// Time.
    Sleep {
        /// Microseconds.
        us: u64,
    },
    /// Other shards.
    Multi(Multi),
    /// A key.
    Block(Block),
    /// The commands of a transaction, with several shards.
    Exec,
    /// The first shard's host.
    Job(crate::work::Job),
    /// Replicas that have what was written.
    Replicas(crate::flow::wait::Wait),
    /// What a command wants of other shards, for its coordinator to ask for: nothing of it has happened.
    Widen(Vec<crate::elsewhere::Want>),
}

/// Under what circumstances a command runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By itself: it may block, and who waits for its keys is served after it.
    #[default]
    Direct,
    /// As a part of a transaction or a script: it does not block.
    Nested,
    /// With keys of other shards: it may block; who waits is served when these are back.
    Lent,
    /// Again, after it blocked: it may go on doing so, and a key of another type is as one that is not there.
    Waking,
}

/// An error reply, with its code, without the dash.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault(pub(crate) Cow<'static, [u8]>);

impl Fault {
    pub(crate) const SYNTAX: Self = Self::text("ERR syntax error");
    pub(crate) const NOT_INTEGER: Self = Self::text("ERR value is not an integer or out of range");
    pub(crate) const NOT_FLOAT: Self = Self::text("ERR value is not a valid float");
    pub(crate) const WRONG_TYPE: Self =
        Self::text("WRONGTYPE Operation against a key holding the wrong kind of value");
    pub(crate) const NO_KEY: Self = Self::text("ERR no such key");
    pub(crate) const OOM: Self =
        Self::text("OOM command not allowed when used memory > 'maxmemory'.");
    pub(crate) const FULL: Self = Self::text("OOM the shard's record space is full");
    pub(crate) const TOO_LONG: Self =
        Self::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

    pub(crate) const fn text(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    pub(crate) fn owned(text: impl Into<Vec<u8>>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// An error that quotes the client: `before`, the quote, `after`. A NUL ends the quote, as it
    /// does for the C strings Redis formats.
    pub(crate) fn quoting(before: &str, quote: &[u8], after: &str) -> Self {
        let quote = dispatch::c_string(quote, usize::MAX);
        Self::owned([before.as_bytes(), quote, after.as_bytes()].concat())
    }

    /// `ERR wrong number of arguments for '…' command`.
    pub(crate) fn arity(name: &str) -> Self {
        Self::owned(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// The code, for `INFO errorstats`.
    pub(crate) fn code(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == b' ').unwrap_or(self.0.len());
        std::str::from_utf8(self.0.get(..end).unwrap_or_default()).unwrap_or("ERR")
    }
}

impl From<logic::store::Full> for Fault {
    fn from(_: logic::store::Full) -> Self {
        Self::FULL
    }
}

/// Per-connection state commands use; small, since idle connections keep it.
#[derive(Debug)]
pub struct Conn {
    pub(crate) id: u64,
    /// Its place in the shard's list of connections.
    pub(crate) slot: u32,
    pub(crate) db: u16,
    pub(crate) version: Version,
    /// It may run commands.
    pub(crate) authenticated: bool,
    /// Its reads leave the access info alone.
    pub(crate) no_touch: bool,
    /// It came in on a shard's own port.
    pub(crate) shard_port: bool,
    /// It has asked for the topology, so it understands MOVED.
    pub(crate) knows_topology: bool,
    /// The last command's id.
    pub(crate) last_command: u16,
    /// How its commands run.
    pub(crate) mode: Mode,
    /// Its transaction, from WATCH or MULTI on.
    pub(crate) transaction: Option<Box<Transaction>>,
    /// Who it is; `None` for the default user.
    pub(crate) user: Option<Rc<User>>,
    /// The shard's generation when it last looked.
    pub(crate) seen: u32,
    /// Its user may not do everything.
    pub(crate) restricted: bool,
    /// Something looks at commands one by one.
    pub(crate) watched: bool,
    pub(crate) reply: ReplyMode,
    /// It has subscriptions.
    pub(crate) subscribes: bool,
    /// It tracks what it reads, or is about to.
    pub(crate) tracks: bool,
    /// Its commands are those of a script.
    pub(crate) scripted: bool,
    /// Its commands are those of the master that is followed.
    pub(crate) applies: Applies,
    /// Nothing asks for a look before each of its commands. The hot path tests this alone; see
    /// [`Conn::settle`].
    pub(crate) plain: bool,
}

impl Conn {
    /// A connection of another shard, for one batch.
    pub(crate) const fn remote(db: u16, version: Version, no_touch: bool) -> Self {
        Self {
            id: 0,
            slot: u32::MAX,
            db,
            version,
            authenticated: true,
            no_touch,
            shard_port: false,
            knows_topology: false,
            last_command: u16::MAX,
            mode: Mode::Direct,
            transaction: None,
            user: None,
            seen: 0,
            restricted: false,
            watched: false,
            reply: ReplyMode::On,
            subscribes: false,
            tracks: false,
            scripted: false,
            applies: Applies::NO,
            plain: true,
        }
    }

    /// Whether commands are queued for EXEC.
    #[inline]
    pub(crate) fn queues(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.is_open)
    }

    /// Call after a change of what makes a connection special.
    pub(crate) const fn settle(&mut self) {
        self.plain = self.applies.is_on()
            || self.authenticated
                && !self.restricted
                && !self.watched
                && !self.subscribes
                && !self.tracks
                && matches!(self.reply, ReplyMode::On);
    }

    /// Whether it belongs to another shard, where what has to be looked at was.
    pub(crate) const fn is_remote(&self) -> bool {
        self.slot == u32::MAX && !self.applies.is_on()
    }

    pub(crate) const fn set_reply(&mut self, mode: ReplyMode) {
        self.reply = mode;
        self.settle();
    }

    /// Whether a command that was sent in this mode stays unanswered.
    pub(crate) fn mutes(&self, mode: ReplyMode) -> bool {
        mode != ReplyMode::On && self.reply != ReplyMode::On
    }

    /// Whether it may only subscribe, unsubscribe, and little else: over RESP2 it could not tell messages from
    /// replies.
    pub(crate) const fn is_confined(&self) -> bool {
        self.subscribes && matches!(self.version, Version::Resp2)
    }
}

/// What a running command sees.
pub struct Cx<'a> {
    pub(crate) args: &'a Args,
    pub(crate) frame: &'a [u8],
    pub(crate) input: &'a Input<'a>,
    pub(crate) row: &'static Row,
    /// The row's id.
    pub(crate) id: u16,
    /// Hash of the key at `row.first_key`, computed for the prefetch.
    pub(crate) hash: Option<KeyHash>,
    pub(crate) out: &'a mut Output,
    pub(crate) shard: &'a mut Shard,
    pub(crate) conn: &'a mut Conn,
    pub(crate) now: Instant,
}

impl<'a> Cx<'a> {
    /// How many arguments, the name included.
    #[inline]
    pub(crate) const fn argc(&self) -> usize {
        self.args.len()
    }

    /// Argument `index`; empty when there is none.
    #[inline]
    pub(crate) fn arg(&self, index: usize) -> &'a [u8] {
        self.args.get(index, self.frame)
    }

    /// Whether argument `index` is this word, in any case.
    #[inline]
    pub(crate) fn is(&self, index: usize, word: &str) -> bool {
        self.arg(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Argument `index` as an integer.
    pub(crate) fn integer(&self, index: usize) -> Result<i64, Fault> {
        parse_i64(self.arg(index)).ok_or(Fault::NOT_INTEGER)
    }

    /// Argument `index` as a 32-bit integer, with Redis' two ways to refuse.
    pub(crate) fn int32(&self, index: usize) -> Result<i32, Fault> {
        i32::try_from(self.integer(index)?).map_err(|_| {
            Fault::text("ERR value is out of range, value must between -2147483648 and 2147483647")
        })
    }

    /// Argument `index` as an integer from `min` on; `message` for anything else.
    pub(crate) fn integer_from(
        &self,
        index: usize,
        min: i64,
        message: &'static str,
    ) -> Result<i64, Fault> {
        parse_i64(self.arg(index)).filter(|&value| value >= min).ok_or(Fault::text(message))
    }

    /// Argument `index` as a double.
    pub(crate) fn double(&self, index: usize) -> Result<f64, Fault> {
        float::parse(self.arg(index)).ok_or(Fault::NOT_FLOAT)
    }

    /// Argument `index` as the number of a database.
    pub(crate) fn database(&self, index: usize) -> Result<u16, Fault> {
        let db = u16::try_from(self.int32(index)?).ok();
        db.filter(|&db| db < self.shard.store.config().databases)
            .ok_or(Fault::text("ERR DB index is out of range"))
    }

    /// Whether this connection sees a cluster: several shards, reached by a shard's own port.
    pub(crate) const fn is_cluster_node(&self) -> bool {
        self.shard.count > 1 && self.conn.shard_port
    }

    /// Argument `index` as a value to store: shared with the input when that owns its bytes.
    #[inline]
    pub(crate) fn value(&self, index: usize) -> NewValue<'a> {
        let part = self.arg(index);
        if part.len() >= logic::store::SHARED_MIN_BYTES {
            return match self.args.in_frame(index, self.frame) {
                Some(place) if self.input.is_owned() => NewValue::Shared(self.input.slice(place)),
                _ => NewValue::Shared(Bytes::copy_from_slice(part)),
            };
        }
        NewValue::Copy(part)
    }

    /// Argument `index` as shared bytes: a large one with the input when that owns it.
    pub(crate) fn shared(&self, index: usize) -> Bytes {
        let part = self.arg(index);
        if part.len() >= view::INLINE_MAX_BYTES
            && self.input.is_owned()
            && let Some(part) = self.args.in_frame(index, self.frame)
        {
            return self.input.slice(part);
        }
        Bytes::copy_from_slice(part)
    }

    /// The hash of the key at argument `index`.
    #[inline]
    pub(crate) fn hash_of(&self, index: usize) -> KeyHash {
        match self.hash {
            Some(hash) if index == usize::from(self.row.first_key) => hash,
            _ => self.shard.store.hash(self.arg(index)),
        }
    }

    /// The wall clock, milliseconds.
    #[inline]
    pub(crate) const fn now_ms(&self) -> u64 {
        self.now.unix_ms()
    }

    /// Whether a key that is given this time of expiry is gone at once. Not where a master says so, or may still change it.
    pub(crate) fn is_past(&self, at_ms: u64) -> bool {
        at_ms <= self.now_ms() && self.shard.store.due_keys() != DueKeys::Shown
    }

    /// The key at argument `index` as a reading command sees it.
    #[inline]
    pub(crate) fn lookup(&mut self, index: usize) -> Option<logic::store::Entry<'_>> {
        let (hash, key, now) = (self.hash_of(index), self.arg(index), self.now_ms());
        if self.conn.no_touch {
            self.shard.store.get_no_touch(self.conn.db, hash, key, now)
        } else {
            self.shard.store.get(self.conn.db, hash, key, now)
        }
    }

    /// The string at the key of argument `index`, without counting a hit or a miss.
    #[inline]
    pub(crate) fn string(&mut self, index: usize) -> Result<Option<Value<'_>>, Fault> {
        let (hash, key, now) = (self.hash_of(index), self.arg(index), self.now_ms());
        match self.shard.store.peek(self.conn.db, hash, key, now).map(|entry| entry.value) {
            Some(Value::Object(_)) => Err(Fault::WRONG_TYPE),
            value => Ok(value),
        }
    }

    /// Replies with a string, by reference when it is large and shared. `false`, and nothing, for a
    /// collection.
    #[inline]
    pub(crate) fn reply_value(out: &mut Output, value: Value<'_>) -> bool {
        match value {
            Value::Inline(bytes) => reply::bulk(out.inline_mut(), bytes),
            Value::Shared(bytes) => Self::reply_shared(out, bytes.clone()),
            Value::Object(_) => return false,
        }
        true
    }

    /// Replies with a string by reference.
    pub(crate) fn reply_shared(out: &mut Output, bytes: Bytes) {
        reply::bulk_header(out.inline_mut(), bytes.len());
        out.push(bytes);
        reply::end(out.inline_mut());
    }

    #[inline]
    pub(crate) const fn inline(&mut self) -> &mut Vec<u8> {
        self.out.inline_mut()
    }

    /// `+OK`.
    #[inline]
    pub(crate) fn ok(&mut self) -> Result<Outcome, Fault> {
        reply::ok(self.inline());
        Ok(Outcome::Done)
    }

    /// An integer.
    #[inline]
    pub(crate) fn int(&mut self, value: i64) -> Result<Outcome, Fault> {
        reply::integer(self.inline(), value);
        Ok(Outcome::Done)
    }

    /// A count.
    pub(crate) fn count(&mut self, value: u64) -> Result<Outcome, Fault> {
        self.int(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A missing value.
    #[inline]
    pub(crate) fn null(&mut self) -> Result<Outcome, Fault> {
        let version = self.conn.version;
        reply::null(self.inline(), version);
        Ok(Outcome::Done)
    }

    /// A missing array.
    pub(crate) fn null_array(&mut self) -> Result<Outcome, Fault> {
        let version = self.conn.version;
        reply::null_array(self.inline(), version);
        Ok(Outcome::Done)
    }

    /// An array without elements.
    pub(crate) fn empty_array(&mut self) -> Result<Outcome, Fault> {
        reply::array(self.inline(), 0);
        Ok(Outcome::Done)
    }

    /// A double.
    pub(crate) fn float(&mut self, value: f64) -> Result<Outcome, Fault> {
        let version = self.conn.version;
        reply::double(self.inline(), version, value);
        Ok(Outcome::Done)
    }

    /// A string.
    pub(crate) fn bulk(&mut self, bytes: &[u8]) -> Result<Outcome, Fault> {
        reply::bulk(self.inline(), bytes);
        Ok(Outcome::Done)
    }

    /// A simple string.
    pub(crate) fn simple(&mut self, text: &str) -> Result<Outcome, Fault> {
        reply::simple(self.inline(), text);
        Ok(Outcome::Done)
    }

    /// Runs a command that concerns several shards: at once when there is only this one.
    pub(crate) fn gather(&mut self, plan: Plan) -> Result<Outcome, Fault> {
        let multi = Multi::new(plan, self.shard);
        self.drive(multi)
    }

    /// Runs a command that concerns what the client sees as this server's keys: all shards', or,
    /// on a shard's own port, only that shard's, as a node of a Redis cluster answers.
    pub(crate) fn gather_node(&mut self, plan: Plan) -> Result<Outcome, Fault> {
        let multi = if self.is_cluster_node() {
            Multi::alone(plan, self.shard)
        } else {
            Multi::new(plan, self.shard)
        };
        self.drive(multi)
    }

    /// Asks all shards, and replies by their answers.
    pub(crate) fn ask(&mut self, ask: Ask, finish: Finish) -> Result<Outcome, Fault> {
        self.gather(Plan::Admin { ask, about: String::new(), how: How::Plain(finish) })
    }

    /// The same for a reply that depends on one more word.
    pub(crate) fn ask_about(
        &mut self,
        ask: Ask,
        about: String,
        finish: fn(&mut Replying<'_>, &str, Vec<Response>),
    ) -> Result<Outcome, Fault> {
        self.gather(Plan::Admin { ask, about, how: How::About(finish) })
    }

    fn drive(&mut self, mut multi: Multi) -> Result<Outcome, Fault> {
        if self.shard.count > 1 {
            return Ok(Outcome::Wait(Box::new(Waiting::Multi(multi))));
        }
        multi.run_alone(self.out, self.shard, self.conn, self.now);
        Ok(Outcome::Done)
    }

    /// The lines of a HELP subcommand, framed as Redis does.
    pub(crate) fn help(&mut self, container: &str, lines: &[&str]) -> Result<Outcome, Fault> {
        let head = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        let out = self.inline();
        reply::array(out, lines.len() + 3);
        reply::simple(out, &head);
        for line in lines {
            reply::simple(out, line);
        }
        reply::simple(out, "HELP");
        reply::simple(out, "    Prints this help.");
        Ok(Outcome::Done)
    }
}
