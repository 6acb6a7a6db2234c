//! FUNCTION and FCALL: libraries of functions.
//!
//! A library's code runs once when it is loaded, and again in each shard's state that meets it; it may only register
//! functions. Invariant: what a shard has is of one state of the shared library, which it compares by its counter of
//! changes before each call. Next: `library.rs` for what is shared, `payload.rs` for DUMP and RESTORE.

use std::{rc::Rc, sync::Arc};

use mlua::{Lua, MultiValue, Table, Value};
use wire::resp::{Version, reply};

use super::{
    call::{coded, flags},
    engine::{Callable, Engine, Runs, What},
    eval,
    host::{Host, Params, as_text},
    library::{Function, Functions, link},
    payload, shebang,
};
use crate::command::{Cx, Fault, Outcome};

type Result<T = Outcome> = std::result::Result<T, Fault>;

/// Where callbacks of a library that is being loaded wait.
const STAGING: &str = "staging";

/// Puts `register_function` into the table that libraries see while they are loaded.
pub(super) fn install(lua: &Lua, host: &Rc<Host>, api: &Table) -> mlua::Result<()> {
    lua.set_named_registry_value(STAGING, lua.create_table()?)?;
    let load: Table = api.raw_get("load")?;
    let host = Rc::clone(host);
    let register = lua.create_function(move |lua, values: MultiValue| {
        register(&Params { host: &host, lua, values })
    })?;
    load.raw_set("register_function", register)
}

fn register(params: &Params<'_>) -> mlua::Result<()> {
    let error = |text: &str| params.host.table(coded(text.as_bytes()), false);
    if !params.host.loading.get() {
        return Err(error("redis.register_function can only be called on FUNCTION LOAD command"));
    }
    let (function, callback) = match params.len() {
        1 => named(params).map_err(error)?,
        2 => positional(params).map_err(error)?,
        _ => return Err(error("wrong number of arguments to redis.register_function")),
    };
    let Ok(mut registered) = params.host.registered.try_borrow_mut() else { return Ok(()) };
    if !shebang::is_name(&function.name) {
        return Err(error(shebang::BAD_NAME));
    }
    if registered.iter().any(|other| other.name == function.name) {
        return Err(error("Function already exists in the library"));
    }
    let staging: Table = params.lua.named_registry_value(STAGING)?;
    staging.raw_set(function.name.as_str(), callback)?;
    registered.push(function);
    Ok(())
}

type Registered = std::result::Result<(Function, Value), &'static str>;

fn name_of(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn positional(params: &Params<'_>) -> Registered {
    let Some(name) = as_text(params.get(1)) else {
        return Err("first argument to redis.register_function must be a string");
    };
    let callback @ Value::Function(_) = params.get(2) else {
        return Err("second argument to redis.register_function must be a function");
    };
    let function = Function { name: name_of(&name), description: None, flags: 0 };
    Ok((function, callback.clone()))
}

fn named(params: &Params<'_>) -> Registered {
    let Value::Table(table) = params.get(1) else {
        return Err(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        );
    };
    let (mut name, mut description, mut callback, mut all) = (None, None, None, 0);
    let mut wrong = None;
    let read = table.for_each(|key: Value, value: Value| {
        let key = as_text(&key).map(|key| key.to_ascii_lowercase());
        let result = match key.as_deref() {
            None => Err("named argument key given to redis.register_function is not a string"),
            Some(b"function_name") => {
                name = as_text(&value);
                name.as_ref().map(|_| ()).ok_or(
                    "function_name argument given to redis.register_function must be a string",
                )
            }
            Some(b"description") => {
                description = as_text(&value);
                description.as_ref().map(|_| ()).ok_or(
                    "description argument given to redis.register_function must be a string",
                )
            }
            Some(b"callback") if matches!(value, Value::Function(_)) => {
                callback = Some(value);
                Ok(())
            }
            Some(b"callback") => {
                Err("callback argument given to redis.register_function must be a function")
            }
            Some(b"flags") => match &value {
                Value::Table(list) => read_flags(list).map(|found| all = found),
                _ => Err(
                    "flags argument to redis.register_function must be a table representing function flags",
                ),
            },
            Some(_) => Err("unknown argument given to redis.register_function"),
        };
        wrong = wrong.or(result.err());
        Ok(())
    });
    if let Some(text) =
        wrong.or(read.err().map(|_| "unknown argument given to redis.register_function"))
    {
        return Err(text);
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    Ok((Function { name: name_of(&name), description, flags: all }, callback))
}

fn read_flags(list: &Table) -> std::result::Result<u8, &'static str> {
    const UNKNOWN: &str = "unknown flag given";
    let mut all = 0;
    for index in 1_i64.. {
        let value: Value = list.raw_get(index).map_err(|_| UNKNOWN)?;
        if value.is_nil() {
            break;
        }
        let name = as_text(&value).ok_or(UNKNOWN)?;
        let is_named = |(known, _): &&(&str, u8)| known.as_bytes().eq_ignore_ascii_case(&name);
        all |= flags::NAMES.iter().find(is_named).ok_or(UNKNOWN)?.1;
    }
    Ok(all)
}

impl Engine {
    /// Runs a library's code; the functions it registers, whose callbacks are in `staging` then.
    fn load_library(&self, code: &[u8], skip: usize) -> std::result::Result<Vec<Function>, String> {
        let broken = |error: mlua::Error| error.to_string();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let staging = self.lua.create_table().map_err(broken)?;
        self.lua.set_named_registry_value(STAGING, staging).map_err(broken)?;
        let source = code.get(skip..).unwrap_or_default();
        let chunk = self
            .load(source, "@user_function", &self.function_globals)
            .map_err(|error| format!("Error compiling function: {}", text(error)))?;
        self.loading.call::<()>(true).map_err(broken)?;
        self.begin_loading();
        let ran = self.call_protected(chunk);
        self.host.loading.set(false);
        self.loading.call::<()>(false).map_err(broken)?;
        let functions = match self.host.registered.try_borrow_mut() {
            Ok(mut registered) => std::mem::take(&mut *registered),
            Err(_) => Vec::new(),
        };
        match ran {
            Ok(()) if functions.is_empty() => Err("No functions registered".into()),
            Ok(()) => Ok(functions),
            Err(error) => Err(format!("Error registering functions: {}", text(error))),
        }
    }

    /// Brings this shard's functions to the state of the shared library.
    fn sync_functions(&mut self, cx: &Cx<'_>) -> Result<()> {
        if self.changes == Some(cx.shard.scripts.library().changes()) {
            return Ok(());
        }
        let broken = |error: mlua::Error| Fault::owned(format!("ERR {error}"));
        let (libraries, changes) = cx.shard.scripts.library().functions();
        self.callbacks = self.lua.create_table().map_err(broken)?;
        self.functions.clear();
        for library in &libraries {
            let Ok((_, skip)) = shebang::library(&library.code) else { continue };
            // It was loaded before; one that fails now has no functions here.
            let Ok(functions) = self.load_library(&library.code, skip) else { continue };
            let staging: Table = self.lua.named_registry_value(STAGING).map_err(broken)?;
            for function in functions {
                let callback: Value = staging.raw_get(function.name.as_str()).map_err(broken)?;
                let key = function.name.to_ascii_lowercase();
                self.callbacks.raw_set(key.as_str(), callback).map_err(broken)?;
                let Function { name, flags, .. } = function;
                self.functions.insert(key, Callable { name, flags, runs: Runs::default() });
            }
        }
        self.changes = Some(changes);
        Ok(())
    }
}

pub(crate) fn fcall(cx: &mut Cx<'_>) -> Result {
    run(cx, false)
}

pub(crate) fn fcall_ro(cx: &mut Cx<'_>) -> Result {
    run(cx, true)
}

fn run(cx: &mut Cx<'_>, read_only: bool) -> Result {
    with_engine(cx, |cx, engine| {
        const MISSING: Fault = Fault::text("ERR Function not found");
        engine.sync_functions(cx)?;
        // Names are the same in any case.
        let key = std::str::from_utf8(cx.arg(1)).map_err(|_| MISSING)?.to_ascii_lowercase();
        let Some(Callable { name, flags: all, .. }) = engine.functions.get(&key).cloned() else {
            return Err(MISSING);
        };
        let callback =
            engine.callbacks.raw_get::<mlua::Function>(key.as_str()).map_err(|_| MISSING)?;
        let keys = eval::key_count(cx, Fault::text("ERR Bad number of keys provided"))?;
        eval::may_run(cx, all, read_only)?;
        let loan = std::mem::take(&mut cx.shard.scripts.loan);
        let wanted = engine.run(cx, What::Function(callback, key), &name, keys, read_only, loan);
        Ok(eval::ended(cx, wanted))
    })
}

fn with_engine<T>(
    cx: &mut Cx<'_>,
    body: impl FnOnce(&mut Cx<'_>, &mut Engine) -> Result<T>,
) -> Result<T> {
    let mut engine = super::take(cx.shard).map_err(|text| Fault::owned(format!("ERR {text}")))?;
    let result = body(cx, &mut engine);
    super::keep(cx.shard, engine);
    result
}

fn err(text: String) -> Fault {
    Fault::owned(format!("ERR {text}"))
}

/// Loads a library to see that it can be, without its functions being there then.
fn checked(cx: &mut Cx<'_>, code: &[u8]) -> Result<Arc<Functions>> {
    let (name, skip) = shebang::library(code).map_err(err)?;
    let functions = with_engine(cx, |_, engine| engine.load_library(code, skip).map_err(err))?;
    Ok(Arc::new(Functions { name, code: code.into(), functions }))
}

pub(crate) fn function_load(cx: &mut Cx<'_>) -> Result {
    let (mut at, mut replace) = (2, false);
    while at + 1 < cx.argc() {
        if !cx.is(at, "REPLACE") {
            return Err(Fault::quoting("ERR Unknown option given: ", cx.arg(at), ""));
        }
        replace = true;
        at += 1;
    }
    if at >= cx.argc() {
        return Err(Fault::text("ERR Function code is missing"));
    }
    let code = cx.arg(at);
    let (name, _) = shebang::library(code).map_err(err)?;
    let (libraries, _) = cx.shard.scripts.library().functions();
    if !replace && libraries.iter().any(|library| library.name == name) {
        return Err(err(format!("Library '{name}' already exists")));
    }
    let new = checked(cx, code)?;
    let library = cx.shard.scripts.library();
    library.change_functions(|all| link(all, new, replace)).map_err(err)?;
    cx.bulk(name.as_bytes())
}

pub(crate) fn function_delete(cx: &mut Cx<'_>) -> Result {
    let name = cx.arg(2);
    let library = cx.shard.scripts.library();
    let deleted = library.change_functions(|all| {
        let before = all.len();
        all.retain(|library| library.name.as_bytes() != name);
        if all.len() == before { Err("Library not found".into()) } else { Ok(()) }
    });
    deleted.map_err(err)?;
    cx.ok()
}

pub(crate) fn function_flush(cx: &mut Cx<'_>) -> Result {
    match cx.argc() {
        2 => {}
        3 if cx.is(2, "SYNC") || cx.is(2, "ASYNC") => {}
        3 => return Err(Fault::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")),
        _ => return Err(wrong_arguments("FLUSH")),
    }
    let library = cx.shard.scripts.library();
    let cleared = library.change_functions(|all| {
        all.clear();
        Ok(())
    });
    cleared.map_err(err)?;
    cx.ok()
}

fn wrong_arguments(name: &str) -> Fault {
    let text = format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try FUNCTION HELP."
    );
    Fault::owned(text)
}

pub(crate) fn function_list(cx: &mut Cx<'_>) -> Result {
    let (mut with_code, mut pattern, mut at) = (false, None, 2);
    while at < cx.argc() {
        if !with_code && cx.is(at, "WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && cx.is(at, "LIBRARYNAME") {
            at += 1;
            if at >= cx.argc() {
                return Err(Fault::text("ERR library name argument was not given"));
            }
            pattern = Some(cx.arg(at));
        } else {
            return Err(Fault::quoting("ERR Unknown argument ", cx.arg(at), ""));
        }
        at += 1;
    }
    let (mut libraries, _) = cx.shard.scripts.library().functions();
    if let Some(pattern) = pattern {
        libraries.retain(|library| logic::glob::matches(pattern, library.name.as_bytes(), true));
    }
    let version = cx.conn.version;
    let out = cx.out.inline_mut();
    reply::array(out, libraries.len());
    for library in libraries {
        show(out, version, &library, with_code);
    }
    Ok(Outcome::Done)
}

fn show(out: &mut Vec<u8>, version: Version, library: &Functions, with_code: bool) {
    reply::map(out, version, if with_code { 4 } else { 3 });
    reply::bulk(out, b"library_name");
    reply::bulk(out, library.name.as_bytes());
    reply::bulk(out, b"engine");
    reply::bulk(out, b"LUA");
    reply::bulk(out, b"functions");
    reply::array(out, library.functions.len());
    for function in &library.functions {
        reply::map(out, version, 3);
        reply::bulk(out, b"name");
        reply::bulk(out, function.name.as_bytes());
        reply::bulk(out, b"description");
        match &function.description {
            Some(text) => reply::bulk(out, text),
            None => reply::null(out, version),
        }
        reply::bulk(out, b"flags");
        let set = flags::NAMES.iter().filter(|(_, flag)| function.flags & flag != 0);
        reply::set(out, version, set.clone().count());
        for (name, _) in set {
            reply::simple(out, name);
        }
    }
    if with_code {
        reply::bulk(out, b"library_code");
        reply::bulk(out, &library.code);
    }
}

/// What runs is not shown: who asks is on a shard whose script has ended.
pub(crate) fn function_stats(cx: &mut Cx<'_>) -> Result {
    let (libraries, _) = cx.shard.scripts.library().functions();
    let functions: usize = libraries.iter().map(|library| library.functions.len()).sum();
    let version = cx.conn.version;
    let out = cx.out.inline_mut();
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    reply::map(out, version, 2);
    reply::bulk(out, b"running_script");
    reply::null(out, version);
    reply::bulk(out, b"engines");
    reply::map(out, version, 1);
    reply::bulk(out, b"LUA");
    reply::map(out, version, 2);
    reply::bulk(out, b"libraries_count");
    reply::integer(out, count(libraries.len()));
    reply::bulk(out, b"functions_count");
    reply::integer(out, count(functions));
    Ok(Outcome::Done)
}

pub(crate) fn function_kill(cx: &mut Cx<'_>) -> Result {
    eval::kill(cx, true)
}

pub(crate) fn function_dump(cx: &mut Cx<'_>) -> Result {
    let (libraries, _) = cx.shard.scripts.library().functions();
    let payload = payload::write(libraries.iter().map(|library| &*library.code));
    cx.bulk(&payload)
}

pub(crate) fn function_restore(cx: &mut Cx<'_>) -> Result {
    enum Policy {
        Append,
        Replace,
        Flush,
    }
    let policy = match cx.argc() {
        3 => Policy::Append,
        4 if cx.is(3, "APPEND") => Policy::Append,
        4 if cx.is(3, "REPLACE") => Policy::Replace,
        4 if cx.is(3, "FLUSH") => Policy::Flush,
        4 => {
            let text =
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.";
            return Err(Fault::text(text));
        }
        _ => return Err(wrong_arguments("RESTORE")),
    };
    let codes = payload::read(cx.arg(2)).map_err(err)?;
    let mut new = Vec::new();
    for code in codes {
        let library = checked(cx, &code)?;
        link(&mut new, library, false).map_err(err)?;
    }
    let library = cx.shard.scripts.library();
    let restored = library.change_functions(|all| {
        if matches!(policy, Policy::Flush) {
            all.clear();
        }
        let replace = matches!(policy, Policy::Replace);
        if replace {
            all.retain(|old| !new.iter().any(|library| library.name == old.name));
        }
        for library in new {
            link(all, library, false).map_err(|text| text.replace('\'', ""))?;
        }
        Ok(())
    });
    restored.map_err(err)?;
    cx.ok()
}

pub(crate) fn function_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "FUNCTION",
        &[
            "LOAD [REPLACE] <FUNCTION CODE>",
            "    Create a new library with the given library name and code.",
            "DELETE <LIBRARY NAME>",
            "    Delete the given library.",
            "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
            "    Return general information on all the libraries:",
            "    * Library name",
            "    * The engine used to run the Library",
            "    * Library description",
            "    * Functions list",
            "    * Library code (if WITHCODE is given)",
            "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
            "STATS",
            "    Return information about the current function running:",
            "    * Function name",
            "    * Command used to run the function",
            "    * Duration in MS that the function is running",
            "    If no function is running, return nil",
            "    In addition, returns a list of available engines.",
            "KILL",
            "    Kill the current running function.",
            "FLUSH [ASYNC|SYNC]",
            "    Delete all the libraries.",
            "    When called without the optional mode argument, the behavior is determined by the",
            "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the libraries.",
            "    * SYNC: Synchronously flush the libraries.",
            "DUMP",
            "    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE command",
            "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
            "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
            "    control how to handle existing libraries (default APPEND):",
            "    * FLUSH: delete all existing libraries.",
            "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
            "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
            "      libraries with the new libraries (notice that even on this option there is a chance of failure",
            "      in case of functions name collision with another library).",
        ],
    )
}
