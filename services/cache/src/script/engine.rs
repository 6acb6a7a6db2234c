//! A shard's Lua state: made once, with everything scripts may use, and what compiles and runs there.
//!
//! Invariants: nothing of a run is left in the state but what scripts' own functions hold; compiled scripts are kept in
//! a table of the state, since each reference from outside takes one of 8,000 places; the state's memory is bounded,
//! and a state that has run out of it is made anew. Next: `prelude.lua` for the sandbox, `host.rs` for errors.

use std::{rc::Rc, sync::Arc};

use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, VmState};
use view::{HashMap, Instant};
use wire::resp::Version;

use super::{
    api, call, function,
    host::{Abort, Host, own_text},
    keys::Wanted,
    lib,
    library::Sha,
    reply::{Names, Writer},
};
use crate::{
    command::{Conn, Cx, Mode, dispatch},
    elsewhere::Want,
    shard::Shard,
};

/// Most memory of a state.
const MEMORY_MAX_BYTES: usize = if cfg!(any(test, fuzzing)) { 64 << 20 } else { 1 << 30 };
/// Instructions between two looks at the clock.
const HOOK_INSTRUCTIONS: u32 = 100_000;
/// How long as many instructions take, about, where there is no clock.
const HOOK_US: u64 = 500;
/// A script that runs this many times longer than it may be busy ends, unless it has written.
const LIMIT_FACTOR: u64 = 12;
/// Most compiled scripts of a state.
const COMPILED_MAX: usize = 4096;
/// Runs of a script in which all values it writes are kept for undoing.
const THOROUGH_RUNS: u32 = 16;

/// A script that was compiled here.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) sha: Sha,
    pub(super) flags: u8,
    runs: Runs,
}

/// A Lua state with its surroundings.
pub(crate) struct Engine {
    pub(super) lua: Lua,
    pub(super) host: Rc<Host>,
    pub(super) names: Rc<Names>,
    /// What scripts see as globals, and its contents.
    globals: Table,
    contents: Table,
    /// What functions of libraries see as globals.
    pub(super) function_globals: Table,
    xpcall: Function,
    invoke: Function,
    pub(super) loading: Function,
    handler: Function,
    compiled: Table,
    scripts: Vec<Script>,
    by_sha: HashMap<Sha, usize>,
    by_body: HashMap<Arc<[u8]>, usize>,
    /// Which of the library's flushes `scripts` is of.
    pub(super) flushes: u64,
    /// Callbacks of functions by name, and which of the library's changes they are of.
    pub(super) callbacks: Table,
    pub(super) changes: Option<u64>,
    /// Functions by their names in lower case.
    pub(super) functions: HashMap<String, Callable>,
    /// It has run out of memory.
    pub(super) broken: bool,
}

/// What to run.
pub(super) enum What {
    /// A compiled script.
    Script(usize),
    /// A function of a library, under its key.
    Function(Function, String),
}

/// A function of a library that can be called here.
#[derive(Clone, Debug)]
pub(super) struct Callable {
    pub(super) name: String,
    pub(super) flags: u8,
    pub(super) runs: Runs,
}

/// What was seen of a script's or a function's runs on this shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Runs {
    count: u32,
    /// It has used keys it did not declare.
    wanders: bool,
}

impl Runs {
    /// Counts one more; whether all it writes has to be kept for undoing.
    fn begin(&mut self) -> bool {
        self.count = self.count.saturating_add(1);
        self.wanders || self.count <= THOROUGH_RUNS
    }
}

/// Where a run's keys are.
#[derive(Debug, Default)]
pub(crate) struct Loan {
    /// Whose locks it runs under.
    pub(crate) ticket: u64,
    /// What it holds.
    pub(crate) keys: Vec<super::keys::Key>,
}

impl Engine {
    /// A state for a shard.
    pub(super) fn new(host: Rc<Host>) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        lua.set_memory_limit(MEMORY_MAX_BYTES)?;
        let names = Rc::new(Names::new(&lua)?);
        let api = api::tables(&lua, &host, &names)?;
        lib::install(&lua, &host, &api)?;
        function::install(&lua, &host, &api)?;
        let prelude = lua
            .load(include_str!("prelude.lua"))
            .set_name("@prelude")
            .set_mode(ChunkMode::Text)
            .set_environment(lua.create_table()?)
            .into_function()?;
        type Parts = (Table, Table, Table, Function, Function, Function);
        let (globals, contents, function_globals, xpcall, invoke, loading): Parts =
            prelude.call((lua.globals(), api))?;
        lua.set_globals(globals.clone())?;
        let handler = {
            let host = Rc::clone(&host);
            lua.create_function(move |lua, error: Value| {
                host.fail(lua, &error);
                Ok(())
            })?
        };
        let hook = HookTriggers::new().every_nth_instruction(HOOK_INSTRUCTIONS);
        let watch = Rc::clone(&host);
        lua.set_global_hook(hook, move |_, _| watch.tick().map(|()| VmState::Continue))?;
        let (compiled, callbacks) = (lua.create_table()?, lua.create_table()?);
        Ok(Self {
            lua,
            host,
            names,
            globals,
            contents,
            function_globals,
            xpcall,
            invoke,
            loading,
            handler,
            compiled,
            scripts: Vec::new(),
            by_sha: HashMap::default(),
            by_body: HashMap::default(),
            flushes: 0,
            callbacks,
            changes: None,
            functions: HashMap::default(),
            broken: false,
        })
    }

    /// Forgets all compiled scripts.
    pub(super) fn forget_scripts(&mut self) -> mlua::Result<()> {
        self.scripts.clear();
        self.by_sha.clear();
        self.by_body.clear();
        self.compiled = self.lua.create_table()?;
        Ok(())
    }

    pub(super) fn by_body(&self, body: &[u8]) -> Option<usize> {
        self.by_body.get(body).copied()
    }

    pub(super) fn by_sha(&self, sha: &Sha) -> Option<usize> {
        self.by_sha.get(sha).copied()
    }

    pub(super) fn script(&self, place: usize) -> Option<&Script> {
        self.scripts.get(place)
    }

    /// Compiles a script; the error is the reply's.
    pub(super) fn compile(&mut self, sha: Sha, body: &Arc<[u8]>) -> Result<usize, Vec<u8>> {
        let (flags, skip) = super::shebang::script(body)?;
        if self.scripts.len() >= COMPILED_MAX {
            _ = self.forget_scripts();
        }
        let source = body.get(skip..).unwrap_or_default();
        let function = self.load(source, "@user_script", &self.globals).map_err(|text| {
            [b"ERR Error compiling script (new function): ".as_slice(), text.as_slice()].concat()
        })?;
        let place = self.scripts.len();
        if let Err(error) = self.compiled.raw_set(place + 1, function) {
            return Err(format!("ERR {error}").into_bytes());
        }
        self.scripts.push(Script { sha, flags, runs: Runs::default() });
        self.by_sha.insert(sha, place);
        self.by_body.insert(Arc::clone(body), place);
        Ok(place)
    }

    /// Compiles a chunk; the error is Lua's text.
    pub(super) fn load(&self, source: &[u8], name: &str, env: &Table) -> Result<Function, Vec<u8>> {
        if source.first() == Some(&27) {
            // Binary chunks are text that is none.
            let name = name.trim_start_matches('@');
            return Err(format!("{name}:1: unexpected symbol near 'char(27)'").into_bytes());
        }
        let chunk = self.lua.load(source).set_name(name).set_mode(ChunkMode::Text);
        chunk.set_environment(env.clone()).into_function().map_err(|error| match error {
            mlua::Error::SyntaxError { message, .. } => message.into_bytes(),
            other => other.to_string().into_bytes(),
        })
    }

    /// Runs something with the keys and arguments of `cx`, and writes its reply. `keys`: how many arguments from the
    /// third on are keys. What is given back is wanted for running it again.
    pub(super) fn run(
        &mut self,
        cx: &mut Cx<'_>,
        what: What,
        name: &str,
        keys: usize,
        read_only: bool,
        loan: Loan,
    ) -> Option<Vec<Want>> {
        let thorough = self.runs(&what).is_none_or(Runs::begin);
        let flags = match &what {
            What::Script(place) => self.scripts.get(*place).map(|script| script.flags),
            What::Function(_, key) => self.functions.get(key).map(|function| function.flags),
        };
        let flags = flags.unwrap_or(call::flags::COMPAT);
        self.begin(cx, &what, flags, read_only, loan, thorough);
        // The shard moves in, and back again.
        let host = Rc::clone(&self.host);
        let Ok(mut inside) = host.shard.try_borrow_mut() else { return None };
        std::mem::swap(&mut *cx.shard, &mut *inside);
        drop(inside);
        let ended = self.invoke(cx, &what, keys);
        if let Ok(mut inside) = host.shard.try_borrow_mut() {
            std::mem::swap(&mut *cx.shard, &mut *inside);
        }
        let wanted = self.finish(cx.shard, cx.now);
        match wanted {
            Some(Wanted::Undone(wanted)) => {
                self.wander(&what);
                cx.shard.elsewhere.take_messages();
                return Some(wanted);
            }
            Some(Wanted::Torn(want)) => {
                self.wander(&what);
                let text = super::torn(want.key());
                cx.shard.stats.error("ERR");
                wire::resp::reply::error(cx.out.inline_mut(), &text);
            }
            None => self.reply(cx, ended, name),
        }
        cx.shard.publish_kept();
        // Lua 5.1 does not collect when memory is short, so it is done before.
        if self.lua.used_memory() > MEMORY_MAX_BYTES / 4 {
            _ = self.lua.gc_collect();
        }
        None
    }

    /// A library's code is about to run.
    pub(super) fn begin_loading(&self) {
        let host = &self.host;
        host.loading.set(true);
        host.abort.set(Abort::No);
        host.ticks.set(0);
        host.began_us.set(host.now_us().unwrap_or(0));
        if let Ok(mut registered) = host.registered.try_borrow_mut() {
            registered.clear();
        }
    }

    /// Calls a function without arguments; the error's text.
    pub(super) fn call_protected(&self, function: Function) -> Result<(), Vec<u8>> {
        let called: mlua::Result<(bool, Value)> = self.xpcall.call((function, &self.handler));
        match called {
            Ok((true, _)) => Ok(()),
            Ok(_) if self.host.is_ending() => Err(b"ERR FUNCTION LOAD timeout".to_vec()),
            Ok(_) => {
                let failure = self.host.failure.try_borrow_mut().ok().and_then(|mut f| f.take());
                Err(failure.unwrap_or_default().text)
            }
            Err(error) => Err(error.to_string().into_bytes()),
        }
    }

    fn wander(&mut self, what: &What) {
        if let Some(runs) = self.runs(what) {
            runs.wanders = true;
        }
    }

    fn runs(&mut self, what: &What) -> Option<&mut Runs> {
        match what {
            What::Script(place) => self.scripts.get_mut(*place).map(|script| &mut script.runs),
            What::Function(_, key) => {
                self.functions.get_mut(key).map(|function| &mut function.runs)
            }
        }
    }

    fn begin(
        &self,
        cx: &mut Cx<'_>,
        what: &What,
        flags: u8,
        read_only: bool,
        loan: Loan,
        thorough: bool,
    ) {
        let host = &self.host;
        let full = !cx.shard.make_room(cx.now);
        let Ok(mut run) = host.run.try_borrow_mut() else { return };
        run.active = true;
        run.conn = Conn::remote(cx.conn.db, Version::Resp2, cx.conn.no_touch);
        run.conn.mode = Mode::Nested;
        run.conn.scripted = true;
        run.conn.act_for(cx.conn);
        run.now = cx.now;
        let compat = flags & call::flags::COMPAT != 0;
        run.read_only = read_only || (!compat && flags & call::flags::NO_WRITES != 0);
        run.is_replica = cx.shard.role.refuses_writes() && !cx.conn.applies.is_on();
        run.is_stale = cx.shard.role.is_stale() && !cx.conn.applies.is_on();
        run.allow_oom = !compat && flags & call::flags::ALLOW_OOM != 0;
        run.full = full;
        run.wrote = false;
        run.guard.begin(cx.shard, loan.ticket, &loan.keys, thorough);
        host.abort.set(Abort::No);
        host.ticks.set(0);
        host.patience_us.set(cx.shard.settings.busy_us);
        host.began_us.set(host.now_us().unwrap_or(0));
        host.slot.begin(matches!(what, What::Function(..)));
    }

    /// Calls it; its value, or nothing when it failed.
    fn invoke(&self, cx: &Cx<'_>, what: &What, keys: usize) -> mlua::Result<Option<Value>> {
        let array = |from: usize, to: usize| {
            let table = self.lua.create_table_with_capacity(to.saturating_sub(from), 0)?;
            for at in from..to {
                table.raw_set(at - from + 1, self.lua.create_string(cx.arg(at))?)?;
            }
            Ok::<_, mlua::Error>(table)
        };
        let split = 3 + keys;
        let (keys, args) = (array(3, split)?, array(split, cx.argc())?);
        let (ok, value): (bool, Value) = match what {
            What::Script(place) => {
                self.contents.raw_set("KEYS", keys)?;
                self.contents.raw_set("ARGV", args)?;
                let function: Function = self.compiled.raw_get(place + 1)?;
                self.xpcall.call((function, &self.handler))?
            }
            What::Function(function, _) => {
                self.invoke.call((function, &self.handler, keys, args))?
            }
        };
        Ok(ok.then_some(value))
    }

    fn finish(&mut self, shard: &mut Shard, now: Instant) -> Option<Wanted> {
        self.host.slot.end();
        let mut run = self.host.run.try_borrow_mut().ok()?;
        run.active = false;
        run.tidy();
        run.guard.end(shard, now)
    }

    fn reply(&mut self, cx: &mut Cx<'_>, ended: mlua::Result<Option<Value>>, name: &str) {
        let failure = self.host.failure.try_borrow_mut().ok().and_then(|mut place| place.take());
        let value = match ended {
            Ok(Some(value)) if !self.host.is_ending() => value,
            Ok(_) => return self.fail(cx, failure.unwrap_or_default(), name),
            Err(error) => {
                // Without memory there is no telling what is left of the state.
                self.broken = true;
                let mut failure = failure.unwrap_or_default();
                if failure.text.is_empty() {
                    failure.text = format!("ERR {error}").into_bytes();
                }
                return self.fail(cx, failure, name);
            }
        };
        let script_version = match self.host.run.try_borrow() {
            Ok(run) => run.conn.version,
            Err(_) => Version::Resp2,
        };
        let start = cx.out.mark();
        let out = cx.out.inline_mut();
        let mut writer = Writer {
            host: &self.host,
            lua: &self.lua,
            names: &self.names,
            version: cx.conn.version,
            script_version,
            start: out.len(),
            out,
            codes: Vec::new(),
        };
        let written = writer.value(&value, 0);
        let codes = std::mem::take(&mut writer.codes);
        for code in codes {
            cx.shard.stats.error(&code);
        }
        if let Err(error) = written {
            cx.out.truncate(start);
            let text = format!("ERR {}", own_text(&error));
            wire::resp::reply::error(cx.out.inline_mut(), text.as_bytes());
        }
    }

    fn fail(&self, cx: &mut Cx<'_>, mut failure: super::host::Failure, name: &str) {
        match self.host.abort.get() {
            Abort::Killed => {
                failure.text = b"ERR Script killed by user with SCRIPT KILL...".to_vec();
            }
            Abort::Limit => {
                let ms = self.host.patience_us.get().saturating_mul(LIMIT_FACTOR) / 1_000;
                let text = format!("ERR Script ended after {ms} ms: see busy-reply-threshold");
                failure.text = text.into_bytes();
            }
            _ if failure.text.is_empty() => failure.text = b"ERR unknown error".to_vec(),
            _ => {}
        }
        if failure.text.ends_with(b"not enough memory") {
            // What memory is left is anybody's guess.
            _ = self.lua.gc_collect();
        }
        let mut text = dispatch::c_string(&failure.text, usize::MAX).to_vec();
        if let Some((chunk, line)) = failure.place {
            text.extend_from_slice(format!(" script: {name}, on {chunk}:{line}.").as_bytes());
        }
        if !failure.counted {
            let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
            cx.shard.stats.error(&String::from_utf8_lossy(code));
        }
        wire::resp::reply::error(cx.out.inline_mut(), &text);
    }
}

/// How long a library may take to load.
const LOAD_MAX_US: u64 = 500_000;

impl Host {
    /// The time, where there is a clock.
    fn now_us(&self) -> Option<u64> {
        let clock = self.clock.try_borrow().ok()?;
        clock.as_ref().map(|now| now())
    }

    /// How long the run has taken.
    fn passed_us(&self) -> u64 {
        let ticks = self.ticks.get() + 1;
        self.ticks.set(ticks);
        match self.now_us() {
            Some(now) => now.saturating_sub(self.began_us.get()),
            None => ticks * HOOK_US,
        }
    }

    /// Counts a value of the reply, which is written when the script has ended; whether there is time for more.
    pub(super) fn may_reply(&self) -> bool {
        let limit_us = self.patience_us.get().saturating_mul(LIMIT_FACTOR);
        !self.is_time_to_look() || limit_us == 0 || self.passed_us() < limit_us
    }

    /// Looks at the clock, and whether the script shall end.
    pub(super) fn tick(&self) -> mlua::Result<()> {
        if self.is_ending() {
            return Err(self.end(Abort::No));
        }
        let passed = self.passed_us();
        if self.loading.get() {
            return if passed > LOAD_MAX_US { Err(self.end(Abort::Limit)) } else { Ok(()) };
        }
        let patience = self.patience_us.get();
        if patience == 0 || passed < patience {
            return Ok(());
        }
        self.slot.busy();
        let wrote = self.run.try_borrow().is_ok_and(|run| run.wrote);
        if self.slot.is_killed() {
            return Err(self.end(Abort::Killed));
        }
        if !wrote && passed >= patience.saturating_mul(LIMIT_FACTOR) {
            return Err(self.end(Abort::Limit));
        }
        Ok(())
    }
}
