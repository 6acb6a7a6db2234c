//! `redis.call` and `redis.pcall`: a command of a script, from Lua values to its reply as Lua values.
//!
//! The arguments are written one after the other into a buffer of the run, the command is dispatched like a client's
//! and answers into the run's output, which is read back. Invariant: everything Redis checks before a script's command
//! is checked in its order; a refused command has no effect. Next: `reply.rs` for the values, `keys.rs` for what several
//! shards add.

use mlua::{Lua, MultiValue, Value};
use view::{Input, Instant, Output};
use wire::resp::{Args, Version};

use super::{
    host::{Abort, Host},
    keys::Guard,
    reply::{self, Names},
    text::format_g,
};
use crate::{
    command::{Conn, Outcome, Waiting, dispatch, row},
    shard::Shard,
    watch::guard,
};

/// Most bytes of one command's arguments.
const ARGS_MAX_BYTES: usize = if cfg!(any(test, fuzzing)) { 64 << 20 } else { 1 << 30 };
/// Most bytes of its reply: more than a Lua state holds.
const REPLY_MAX_BYTES: usize = ARGS_MAX_BYTES;
/// Buffers that have grown beyond this are not kept for the next run.
const KEEP_BYTES: usize = 1 << 20;

/// Flags of a script or function.
pub(crate) mod flags {
    /// `no-writes`
    pub(crate) const NO_WRITES: u8 = 1;
    /// `allow-oom`
    pub(crate) const ALLOW_OOM: u8 = 2;
    /// `allow-stale`
    pub(crate) const ALLOW_STALE: u8 = 4;
    /// `no-cluster`
    pub(crate) const NO_CLUSTER: u8 = 8;
    /// `allow-cross-slot-keys`
    pub(crate) const ALLOW_CROSS_SLOT: u8 = 16;
    /// It says nothing of itself: a script without a first line `#!lua`.
    pub(crate) const COMPAT: u8 = 32;

    /// The names, in Redis' order.
    pub(crate) const NAMES: [(&str, u8); 5] = [
        ("no-writes", NO_WRITES),
        ("allow-oom", ALLOW_OOM),
        ("allow-stale", ALLOW_STALE),
        ("no-cluster", NO_CLUSTER),
        ("allow-cross-slot-keys", ALLOW_CROSS_SLOT),
    ];
}

/// The state of one run.
pub(crate) struct Run {
    /// A script runs.
    pub(super) active: bool,
    pub(super) conn: Conn,
    pub(super) now: Instant,
    pub(super) out: Output,
    args: Args,
    words: Vec<u8>,
    pub(super) read_only: bool,
    /// This server is a replica whose clients may not write, or have to wait for its master.
    pub(super) is_replica: bool,
    pub(super) is_stale: bool,
    pub(super) allow_oom: bool,
    /// Memory was full when it began.
    pub(super) full: bool,
    pub(super) wrote: bool,
    pub(super) guard: Guard,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            active: false,
            conn: Conn::remote(0, Version::Resp2, false),
            now: Instant { mono_ns: 0, unix_us: 0 },
            out: Output::default(),
            args: Args::new(),
            words: Vec::new(),
            read_only: false,
            is_replica: false,
            is_stale: false,
            allow_oom: false,
            full: false,
            wrote: false,
            guard: Guard::default(),
        }
    }
}

/// What came of a command.
enum Called {
    /// Its reply is in the output.
    Replied,
    /// It did not run; the error, as the library's functions are given it.
    Refused(&'static str),
    /// The script must end: it wants keys that are not here.
    Stopped,
}

impl Run {
    /// Gives large buffers back.
    pub(super) fn tidy(&mut self) {
        self.out.clear();
        if self.out.allocated_bytes() > KEEP_BYTES {
            self.out = Output::default();
        }
        if self.words.capacity() > KEEP_BYTES {
            self.words = Vec::new();
        }
    }

    /// Takes the arguments of a call.
    pub(super) fn load(&mut self, values: &MultiValue) -> Result<(), &'static str> {
        if values.is_empty() {
            return Err("Please specify at least one argument for this redis lib call");
        }
        const WRONG: &str = "Lua redis lib command arguments must be strings or integers";
        self.args.clear();
        self.words.clear();
        for value in values {
            let start = self.words.len();
            match value {
                Value::String(text) => self.words.extend_from_slice(&text.as_bytes()),
                Value::Integer(number) => write_integer(&mut self.words, *number),
                Value::Number(number) => {
                    self.words.extend_from_slice(format_g(*number, 17).as_bytes());
                }
                _ => return Err(WRONG),
            }
            let end = self.words.len();
            if end > ARGS_MAX_BYTES {
                return Err("the arguments of a command are too long");
            }
            // Both fit: the sum is bounded.
            let (start, end) = (u32::try_from(start), u32::try_from(end));
            self.args.push(start.unwrap_or(0), end.unwrap_or(0));
        }
        Ok(())
    }

    /// The id of the command that was loaded.
    pub(super) fn command(&self, shard: &Shard) -> Option<u16> {
        dispatch::find(&shard.commands, &self.args, &self.words)
    }

    fn execute(&mut self, host: &Host, shard: &mut Shard) -> Called {
        let Some(id) = self.command(shard) else {
            shard.stats.error("ERR");
            return Called::Refused("Unknown Redis command called from script");
        };
        let row = shard.commands.row(id);
        if let Some(text) = self.refusal(id, row, shard) {
            let code = text.strip_prefix('-').and_then(|text| text.split(' ').next());
            shard.stats.reject(id, code.unwrap_or("ERR"));
            return Called::Refused(text);
        }
        if self.guard.is_on()
            && !self.guard.admit(shard, row, &self.args, &self.words, self.conn.db, self.now)
        {
            return Called::Stopped;
        }
        if row.flags & row::WRITE != 0 && !self.wrote {
            self.wrote = true;
            host.slot.wrote();
        }
        shard.stats.call(id);
        let input = Input::borrowed(&[]);
        let call = dispatch::Call {
            args: &self.args,
            frame: &self.words,
            input: &input,
            id: Some(id),
            hash: None,
        };
        let outcome = dispatch::execute(call, id, &mut self.out, shard, &mut self.conn, self.now);
        shard.show_command(&self.conn, row, &self.args, &self.words, self.now.unix_us);
        match outcome {
            Outcome::Wait(waiting) => self.replied(*waiting, row, id, shard),
            _ => Called::Replied,
        }
    }

    /// What stands against a command, in Redis' order.
    fn refusal(&self, id: u16, row: &row::Row, shard: &mut Shard) -> Option<&'static str> {
        if !row.accepts(self.args.len()) {
            return Some("Wrong number of args calling Redis command from script");
        }
        if row.flags & row::NOSCRIPT != 0 {
            return Some("This Redis command is not allowed from script");
        }
        if self.is_stale && row.flags & row::STALE == 0 {
            return Some("Can not execute the command on a stale replica");
        }
        if self.conn.restricted
            && let Some(denied) =
                guard::denied_in_script(&self.args, &self.words, id, shard, &self.conn, self.now)
        {
            return Some(denied);
        }
        if self.read_only && row.flags & (row::WRITE | row::MAY_REPLICATE) != 0 {
            return Some("Write commands are not allowed from read-only scripts.");
        }
        if self.is_replica && row.flags & row::WRITE != 0 {
            return Some("-READONLY You can't write against a read only replica.");
        }
        let needs_memory = !self.allow_oom && !self.wrote && row.flags & row::DENYOOM != 0;
        (self.full && needs_memory)
            .then_some("-OOM command not allowed when used memory > 'maxmemory'.")
    }

    /// What comes of a command that would wait, which a script does not.
    #[cold]
    fn replied(&mut self, waiting: Waiting, row: &row::Row, id: u16, shard: &mut Shard) -> Called {
        self.out.clear();
        if row.flags & row::BLOCKING != 0 {
            // As when its time is over at once.
            wire::resp::reply::null_array(self.out.inline_mut(), self.conn.version);
            return Called::Replied;
        }
        match waiting {
            Waiting::Widen(wanted) => self.guard.want(wanted),
            Waiting::Multi(multi) => {
                match multi.in_script(&mut self.out, shard, &self.conn, self.now) {
                    Some(true) => return Called::Replied,
                    Some(false) => self.guard.want(shard.elsewhere.take_wanted()),
                    None => return Self::all_shards(id, shard),
                }
            }
            _ => return Self::all_shards(id, shard),
        }
        Called::Stopped
    }

    fn all_shards(id: u16, shard: &mut Shard) -> Called {
        shard.stats.fail(id, "ERR");
        Called::Refused(
            "This command concerns all shards in a way that no script can with several shards",
        )
    }
}

/// An integer as `%.17g` prints it as a double.
fn write_integer(out: &mut Vec<u8>, number: i64) {
    const EXACT: u64 = 99_999_999_999_999_999;
    if number.unsigned_abs() <= EXACT {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    } else {
        out.extend_from_slice(format_g(number as f64, 17).as_bytes());
    }
}

/// A command of a script. With `raise`, an error is raised; else it is the value.
pub(super) fn call(
    host: &Host,
    lua: &Lua,
    names: &Names,
    values: MultiValue,
    raise: bool,
) -> mlua::Result<Value> {
    if host.is_ending() {
        return Err(host.end(Abort::No));
    }
    const RECURSIVE: &str = "luaRedisGenericCommand() recursive call detected. Are you doing funny stuff with Lua debug hooks?";
    let Ok(mut run) = host.run.try_borrow_mut() else {
        return refuse(host, lua, RECURSIVE, false, false);
    };
    if !run.active {
        let text = "redis.call/pcall can only be called inside a script invocation";
        return refuse(host, lua, text, true, false);
    }
    if let Err(text) = run.load(&values) {
        drop(run);
        return refuse(host, lua, text, raise, false);
    }
    drop(values);
    let called = match host.shard.try_borrow_mut() {
        Ok(mut shard) => run.execute(host, &mut shard),
        Err(_) => Called::Refused(RECURSIVE),
    };
    match called {
        Called::Refused(text) => {
            drop(run);
            refuse(host, lua, text, raise, true)
        }
        Called::Stopped => Err(host.end(Abort::Keys)),
        Called::Replied if run.out.len() > REPLY_MAX_BYTES => {
            run.tidy();
            drop(run);
            refuse(host, lua, "the reply of a command is too long for a script", raise, false)
        }
        Called::Replied => {
            let whole;
            let bytes = if run.out.is_inline() {
                run.out.inline()
            } else {
                whole = run.out.to_vec();
                whole.as_slice()
            };
            let value = match bytes {
                [b'-', text @ ..] if raise => Err(host.table(reply::error_text(text), true)),
                bytes => reply::read(lua, names, bytes),
            };
            run.out.clear();
            value
        }
    }
}

/// An error of `redis.call` itself. `counted`: it is in the statistics already.
fn refuse(host: &Host, lua: &Lua, text: &str, raise: bool, counted: bool) -> mlua::Result<Value> {
    let text = coded(text.as_bytes());
    if raise {
        return Err(host.table(text, counted));
    }
    let table = lua.create_table()?;
    table.raw_set("err", lua.create_string(text)?)?;
    if counted {
        table.raw_set("ignore_error_stats_update", true)?;
    }
    Ok(Value::Table(table))
}

/// An error's text with its code: `-CODE text` has one, other texts are of code `ERR`. It ends at a NUL.
pub(super) fn coded(text: &[u8]) -> Vec<u8> {
    let text = dispatch::c_string(text, usize::MAX);
    match text {
        [b'-', rest @ ..] => reply::error_text(rest),
        text => [b"ERR ".as_slice(), text.trim_ascii_end()].concat(),
    }
}
