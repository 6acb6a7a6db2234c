//! The `redis` table of scripts, `math.random`, and what the prelude needs of the server.
//!
//! Invariant: each function checks its arguments as Redis' does, in its order and with its words.
//! Next: `call.rs` for commands, `prelude.lua` for what is made of these tables.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Value};
use wire::resp::Version;

use super::{
    call,
    host::{Host, Params, as_text, number, truncated},
    reply::Names,
    sha1,
};

/// What a function that scripts call gets.
type Body = fn(&Params<'_>) -> mlua::Result<Value>;

/// A function that scripts call.
pub(super) fn function(lua: &Lua, host: &Rc<Host>, body: Body) -> mlua::Result<Function> {
    let host = Rc::clone(host);
    lua.create_function(move |lua, values: MultiValue| body(&Params { host: &host, lua, values }))
}

/// The same with several results.
pub(super) fn function_multi(
    lua: &Lua,
    host: &Rc<Host>,
    body: fn(&Params<'_>) -> mlua::Result<MultiValue>,
) -> mlua::Result<Function> {
    let host = Rc::clone(host);
    lua.create_function(move |lua, values: MultiValue| body(&Params { host: &host, lua, values }))
}

/// The tables that the prelude takes: the `redis` tables of scripts, of functions, and of loading libraries.
pub(super) fn tables(lua: &Lua, host: &Rc<Host>, names: &Rc<Names>) -> mlua::Result<Table> {
    let api = lua.create_table()?;
    let internal: [(&str, Body); 4] = [
        ("missing", missing),
        ("readonly", |params| {
            Err(params.host.error(params.lua, "Attempt to modify a readonly table"))
        }),
        ("pending", |params| params.host.caught(params.lua, params.get(1).clone())),
        ("check", |params| params.host.caught(params.lua, Value::Nil)),
    ];
    for (name, body) in internal {
        api.raw_set(name, function(lua, host, body)?)?;
    }
    api.raw_set("functions", redis(lua, host, names)?)?;
    let eval = redis(lua, host, names)?;
    let of_scripts: [(&str, Body); 3] = [
        ("breakpoint", |_| Ok(Value::Boolean(false))),
        ("debug", |_| Ok(Value::Nil)),
        ("replicate_commands", |_| Ok(Value::Boolean(true))),
    ];
    for (name, body) in of_scripts {
        eval.raw_set(name, function(lua, host, body)?)?;
    }
    api.raw_set("eval", eval)?;
    let load = lua.create_table()?;
    about(lua, host, &load)?;
    api.raw_set("load", load)?;
    let math: Table = lua.globals().raw_get("math")?;
    math.raw_set("random", function(lua, host, random)?)?;
    math.raw_set("randomseed", function(lua, host, randomseed)?)?;
    Ok(api)
}

/// `redis`, but for what only scripts have.
fn redis(lua: &Lua, host: &Rc<Host>, names: &Rc<Names>) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    for (name, raise) in [("call", true), ("pcall", false)] {
        let (host, names) = (Rc::clone(host), Rc::clone(names));
        let call = move |lua: &Lua, values| call::call(&host, lua, &names, values, raise);
        redis.raw_set(name, lua.create_function(call)?)?;
    }
    let functions: [(&str, Body); 6] = [
        ("setresp", setresp),
        ("sha1hex", sha1hex),
        ("error_reply", error_reply),
        ("status_reply", status_reply),
        ("set_repl", set_repl),
        ("acl_check_cmd", acl_check_cmd),
    ];
    for (name, body) in functions {
        redis.raw_set(name, function(lua, host, body)?)?;
    }
    for (name, value) in
        [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", 3)]
    {
        redis.raw_set(name, value)?;
    }
    about(lua, host, &redis)?;
    Ok(redis)
}

/// What libraries may use while they are loaded, too.
fn about(lua: &Lua, host: &Rc<Host>, redis: &Table) -> mlua::Result<()> {
    redis.raw_set("log", function(lua, host, log)?)?;
    let levels = ["LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"];
    for (level, name) in levels.into_iter().enumerate() {
        redis.raw_set(name, level)?;
    }
    redis.raw_set("REDIS_VERSION_NUM", 0x0007_000f)?;
    redis.raw_set("REDIS_VERSION", "7.0.15")
}

/// A global that is not there.
fn missing(params: &Params<'_>) -> mlua::Result<Value> {
    if params.len() != 2 {
        let text = "Wrong number of arguments to luaProtectedTableError";
        return Err(params.host.error(params.lua, text));
    }
    let Some(name) = as_text(params.get(2)) else {
        let text = "Second argument to luaProtectedTableError must be a string or number";
        return Err(params.host.error(params.lua, text));
    };
    let name = String::from_utf8_lossy(&name);
    let text = format!("Script attempted to access nonexistent global variable '{name}'");
    Err(params.host.error(params.lua, &text))
}

/// An error table raised by a function of the `redis` table.
fn raised(params: &Params<'_>, text: &str) -> mlua::Error {
    params.host.table(call::coded(text.as_bytes()), false)
}

fn needs_run(params: &Params<'_>, name: &str) -> mlua::Result<()> {
    match params.host.run.try_borrow() {
        Ok(run) if run.active => Ok(()),
        _ => {
            let text = format!("{name} can only be called inside a script invocation");
            Err(raised(params, &text))
        }
    }
}

fn setresp(params: &Params<'_>) -> mlua::Result<Value> {
    needs_run(params, "redis.setresp")?;
    if params.len() != 1 {
        return Err(raised(params, "redis.setresp() requires one argument."));
    }
    let version = match truncated(number(params.lua, params.get(1)).unwrap_or(0.0)) {
        2 => Version::Resp2,
        3 => Version::Resp3,
        _ => return Err(raised(params, "RESP version must be 2 or 3.")),
    };
    if let Ok(mut run) = params.host.run.try_borrow_mut() {
        run.conn.version = version;
    }
    Ok(Value::Nil)
}

fn sha1hex(params: &Params<'_>) -> mlua::Result<Value> {
    if params.len() != 1 {
        return Err(raised(params, "wrong number of arguments"));
    }
    let text = as_text(params.get(1)).unwrap_or_default();
    Ok(Value::String(params.lua.create_string(sha1::hex(&text))?))
}

/// A table with one field.
fn single(params: &Params<'_>, name: &str, text: &[u8]) -> mlua::Result<Value> {
    let table = params.lua.create_table()?;
    table.raw_set(name, params.lua.create_string(text)?)?;
    Ok(Value::Table(table))
}

const WRONG_ARGS: &[u8] = b"ERR wrong number or type of arguments";

fn error_reply(params: &Params<'_>) -> mlua::Result<Value> {
    let (1, Value::String(text)) = (params.len(), params.get(1)) else {
        return single(params, "err", WRONG_ARGS);
    };
    let text = text.as_bytes();
    let text = text.strip_prefix(b"-").unwrap_or(&text);
    single(params, "err", &call::coded(&[b"-".as_slice(), text].concat()))
}

fn status_reply(params: &Params<'_>) -> mlua::Result<Value> {
    let (1, Value::String(text)) = (params.len(), params.get(1)) else {
        return single(params, "err", WRONG_ARGS);
    };
    single(params, "ok", &text.as_bytes())
}

fn set_repl(params: &Params<'_>) -> mlua::Result<Value> {
    needs_run(params, "redis.set_repl")?;
    if params.len() != 1 {
        return Err(raised(params, "redis.set_repl() requires two arguments."));
    }
    if truncated(number(params.lua, params.get(1)).unwrap_or(0.0)) & !3 != 0 {
        let text = "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.";
        return Err(raised(params, text));
    }
    Ok(Value::Nil)
}

fn acl_check_cmd(params: &Params<'_>) -> mlua::Result<Value> {
    needs_run(params, "redis.acl_check_cmd")?;
    let known = {
        let (Ok(mut run), Ok(shard)) =
            (params.host.run.try_borrow_mut(), params.host.shard.try_borrow())
        else {
            return Ok(Value::Boolean(false));
        };
        run.load(&params.values).map(|()| run.command(&shard).is_some())
    };
    match known {
        Err(text) => Err(raised(params, text)),
        Ok(false) => Err(raised(params, "Invalid command passed to redis.acl_check_cmd()")),
        Ok(true) => Ok(Value::Boolean(true)),
    }
}

/// Nothing is logged: the server keeps no log of its own.
fn log(params: &Params<'_>) -> mlua::Result<Value> {
    if params.len() < 2 {
        return Err(raised(params, "redis.log() requires two arguments or more."));
    }
    let Some(level) = number(params.lua, params.get(1)) else {
        return Err(raised(params, "First argument must be a number (log level)."));
    };
    if !(0..=3).contains(&truncated(level)) {
        return Err(raised(params, "Invalid debug level."));
    }
    Ok(Value::Nil)
}

/// Redis' own generator, the 48-bit one of POSIX.
fn random(params: &Params<'_>) -> mlua::Result<Value> {
    if !params.host.run.try_borrow().is_ok_and(|run| run.active) {
        let text = "math.random can only be called inside a script invocation";
        return Err(params.host.error(params.lua, text));
    }
    let state = params.host.random.get().wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & MASK;
    params.host.random.set(state);
    let max = i32::MAX as u64;
    let share = ((state >> 17) % max) as f64 / max as f64;
    let int = |index| params.integer(index).map(|value| value as i32);
    let value = match params.len() {
        0 => share,
        1 => {
            let upper = int(1)?;
            if upper < 1 {
                return Err(params.bad(1, "interval is empty"));
            }
            (share * f64::from(upper)).floor() + 1.0
        }
        2 => {
            let (lower, upper) = (int(1)?, int(2)?);
            if lower > upper {
                return Err(params.bad(2, "interval is empty"));
            }
            let span = f64::from(upper.wrapping_sub(lower).wrapping_add(1));
            (share * span).floor() + f64::from(lower)
        }
        _ => return Err(params.host.error(params.lua, "wrong number of arguments")),
    };
    Ok(Value::Number(value))
}

const MASK: u64 = (1 << 48) - 1;
/// Where the generator begins.
pub(super) const RANDOM_START: u64 = 0x1234_ABCD_330E;

fn randomseed(params: &Params<'_>) -> mlua::Result<Value> {
    if !params.host.run.try_borrow().is_ok_and(|run| run.active) {
        let text = "math.randomseed can only be called inside a script invocation";
        return Err(params.host.error(params.lua, text));
    }
    let seed = params.integer(1)? as i32;
    params.host.random.set(u64::from(seed as u32) << 16 | 0x330E);
    Ok(Value::Nil)
}
