//! Lua scripts and functions: EVAL and its kin, SCRIPT, FUNCTION, FCALL.
//!
//! A script runs on one shard, in one step, in that shard's Lua state ([`engine`]); its commands are dispatched like a
//! client's ([`call`]). Sources are known to all shards ([`library`]). With several shards, keys that a script declares
//! are lent to the shard it runs on, and keys it does not declare are found out as it runs ([`keys`], and
//! `multi/widen.rs` for the coordinator's side).
//!
//! Invariants: no unsafe code; what a script does to the sandbox is not seen by the next; a script that fails, is killed
//! or runs out of memory leaves the shard as usable as before. Next: `eval.rs` for a script's way from the command.

mod api;
mod call;
mod engine;
mod eval;
mod function;
mod host;
pub(crate) mod keys;
mod lib;
pub(crate) mod library;
pub(crate) mod payload;
mod reply;
mod running;
pub(crate) mod sha1;
mod shebang;
mod text;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use view::Instant;

pub(crate) use engine::Loan;
pub(crate) use eval::{
    eval, eval_ro, evalsha, evalsha_ro, script_debug, script_exists, script_flush, script_help,
    script_kill, script_load,
};
pub(crate) use function::{
    fcall, fcall_ro, function_delete, function_dump, function_flush, function_help, function_kill,
    function_list, function_load, function_restore, function_stats,
};
pub use library::Library;

use crate::{
    command::{Cx, Fault, Outcome},
    shard::{Shard, ShardConfig},
};
use engine::Engine;
use host::Host;

/// Most bytes that a library or a reply makes of values, outside of Lua's own memory: one value may be in there many times.
const MADE_MAX_BYTES: usize = if cfg!(any(test, fuzzing)) { 4 << 20 } else { 512 << 20 };

/// Tells the time, microseconds from anywhere on.
pub type Clock = Box<dyn Fn() -> u64>;

/// Scripts of one shard.
#[derive(Default)]
pub(crate) struct Scripts {
    library: Library,
    /// Made by the first script; out while one runs.
    engine: Option<Box<Engine>>,
    clock: Option<Clock>,
    /// The keys of the next run, when a coordinator holds them.
    pub(crate) loan: Loan,
}

impl Scripts {
    pub(crate) fn new(library: Library) -> Self {
        Self { library, ..Self::default() }
    }

    /// What tells scripts the time while they run.
    pub(crate) fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// What all shards know.
    pub(crate) const fn library(&self) -> &Library {
        &self.library
    }

    /// Bytes of the Lua state.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.engine.as_ref().map_or(0, |engine| engine.lua.used_memory())
    }
}

/// Containers run through their subcommands only.
pub(crate) fn container(_cx: &mut Cx<'_>) -> Result<Outcome, Fault> {
    Err(Fault::SYNTAX)
}

/// The error of a shard whose script runs too long, of a function with `function`.
pub(crate) fn busy_text(function: bool) -> String {
    let kind = if function { "FUNCTION" } else { "SCRIPT" };
    format!(
        "BUSY Redis is busy running a script. You can only call {kind} KILL or SHUTDOWN NOSAVE."
    )
}

/// The error of a script that cannot be undone to be given more keys.
fn torn(key: &[u8]) -> Vec<u8> {
    let key = key.get(..64).unwrap_or(key);
    let before = b"ERR script used key '".as_slice();
    let after = b"' of another shard, which it did not declare, after it had changed a large value or emptied a database: its writes stay. Declare all keys in KEYS, or run it again";
    [before, key, after].concat()
}

/// Takes a shard's Lua state, which the first call makes.
fn take(shard: &mut Shard) -> Result<Box<Engine>, String> {
    if let Some(engine) = shard.scripts.engine.take() {
        return Ok(engine);
    }
    let now = shard.started;
    let slot = shard.scripts.library.board().slot(shard.index);
    let host = Host {
        shard: RefCell::new(stand_in(now)),
        run: RefCell::default(),
        thrown: RefCell::default(),
        failure: RefCell::default(),
        abort: Cell::default(),
        random: Cell::new(api::RANDOM_START),
        slot,
        began_us: Cell::new(0),
        patience_us: Cell::new(0),
        loading: Cell::new(false),
        registered: RefCell::default(),
        clock: RefCell::new(shard.scripts.clock.take()),
        ticks: Cell::new(0),
        steps: Cell::new(0),
    };
    Engine::new(Rc::new(host)).map(Box::new).map_err(|error| error.to_string())
}

/// Gives the state back, unless it is not to be used any more.
fn keep(shard: &mut Shard, engine: Box<Engine>) {
    if engine.broken {
        shard.scripts.clock = engine.host.clock.take();
    } else {
        shard.scripts.engine = Some(engine);
    }
}

/// What is in the shard's place while it has moved to the state.
fn stand_in(now: Instant) -> Shard {
    Shard::new(ShardConfig { databases: 1, ..ShardConfig::default() }, now)
}
