//! What a shard's Lua state shares with the functions it calls: the shard itself while a script runs, the run, and the
//! error on its way.
//!
//! Functions that Lua calls live as long as the state, so they cannot borrow the shard. A run moves the shard into the
//! [`Host`] and back again: two moves of its fixed part, and no unsafe code. Errors leave a function as an empty error
//! of the binding while what scripts shall see waits in [`Host::thrown`]; the prelude's `pcall` and the handler at the
//! top take it from there.
//!
//! Invariants: nothing is borrowed while Lua code runs, and a second borrow (a finalizer that calls back) is an error of
//! the script, never a panic. Next: `call.rs` for `redis.call`, `engine.rs` for the state.

use std::cell::{Cell, RefCell};

use mlua::{Error, Lua, MultiValue, Value};

use super::{MADE_MAX_BYTES, running::Slot, text::format_g};
use crate::{script::call::Run, shard::Shard};

/// Values a library writes between two looks at the clock.
const STEPS_PER_LOOK: u32 = 2_000;

/// Why a script must end, whatever it catches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Abort {
    #[default]
    No,
    /// It wants keys that are not here.
    Keys,
    /// SCRIPT KILL or FUNCTION KILL.
    Killed,
    /// It ran longer than anything may.
    Limit,
}

/// An error that Lua code may catch.
#[derive(Debug)]
pub(super) enum Thrown {
    /// A string.
    Text(Vec<u8>),
    /// A table with the text in `err`, and whether the error was counted already.
    Table { err: Vec<u8>, counted: bool },
}

/// An error nobody caught.
#[derive(Debug, Default)]
pub(super) struct Failure {
    pub(super) text: Vec<u8>,
    /// The chunk and the line.
    pub(super) place: Option<(String, i64)>,
    pub(super) counted: bool,
}

/// Shared by a state and its functions.
pub(crate) struct Host {
    /// The shard while a script runs; else an empty one.
    pub(super) shard: RefCell<Shard>,
    pub(super) run: RefCell<Run>,
    pub(super) thrown: RefCell<Option<Thrown>>,
    pub(super) failure: RefCell<Option<Failure>>,
    pub(super) abort: Cell<Abort>,
    /// The state of `math.random`.
    pub(super) random: Cell<u64>,
    /// What others may know of the run.
    pub(super) slot: Slot,
    /// A library of functions is being loaded, and the functions it has registered so far.
    pub(super) loading: Cell<bool>,
    pub(super) registered: RefCell<Vec<super::library::Function>>,
    /// When the run began, and how long it may run before it counts as busy, microseconds.
    pub(super) began_us: Cell<u64>,
    pub(super) patience_us: Cell<u64>,
    /// Tells the time while a script runs, microseconds; without one, instructions are counted.
    pub(super) clock: RefCell<Option<Box<dyn Fn() -> u64>>>,
    /// Ticks of the hook in this run.
    pub(super) ticks: Cell<u64>,
    /// Values that libraries have written, over all runs.
    pub(super) steps: Cell<u32>,
}

impl Host {
    /// An error of the script that is a plain string.
    pub(super) fn plain(&self, text: impl Into<Vec<u8>>) -> Error {
        self.throw(Thrown::Text(text.into()))
    }

    /// An error that is a table, as `redis.call` raises them; the text with its code.
    pub(super) fn table(&self, err: impl Into<Vec<u8>>, counted: bool) -> Error {
        self.throw(Thrown::Table { err: err.into(), counted })
    }

    /// An error that begins with where the running function was called: `user_script:1: `.
    pub(super) fn error(&self, lua: &Lua, text: &str) -> Error {
        self.plain(format!("{}{text}", position(lua, 1)))
    }

    /// Something outside of Lua's memory is so long by now. Where each value of many comes by here, long work ends like
    /// any other.
    pub(super) fn made(&self, len_bytes: usize) -> mlua::Result<()> {
        if len_bytes > MADE_MAX_BYTES {
            return Err(self.plain("not enough memory"));
        }
        if self.is_time_to_look() { self.tick() } else { Ok(()) }
    }

    /// Counts a step of the server's own.
    pub(super) fn is_time_to_look(&self) -> bool {
        let steps = self.steps.get().wrapping_add(1);
        self.steps.set(steps);
        steps.is_multiple_of(STEPS_PER_LOOK)
    }

    /// What has to end the script.
    pub(super) fn end(&self, abort: Abort) -> Error {
        if self.abort.get() == Abort::No {
            self.abort.set(abort);
        }
        Error::RuntimeError(String::new())
    }

    /// Whether the script must end.
    pub(super) fn is_ending(&self) -> bool {
        self.abort.get() != Abort::No
    }

    fn throw(&self, thrown: Thrown) -> Error {
        if let Ok(mut place) = self.thrown.try_borrow_mut() {
            *place = Some(thrown);
        }
        Error::RuntimeError(String::new())
    }

    fn take_thrown(&self) -> Option<Thrown> {
        self.thrown.try_borrow_mut().ok()?.take()
    }

    /// What Lua code catches when it caught `error`; an error of its own when the script must end.
    pub(super) fn caught(&self, lua: &Lua, error: Value) -> mlua::Result<Value> {
        if self.is_ending() {
            return Err(Error::RuntimeError(String::new()));
        }
        let Value::Error(error) = error else { return Ok(error) };
        match self.take_thrown() {
            Some(Thrown::Text(text)) => Ok(Value::String(lua.create_string(text)?)),
            Some(Thrown::Table { err, counted }) => {
                let table = lua.create_table()?;
                table.raw_set("err", lua.create_string(err)?)?;
                if counted {
                    table.raw_set("ignore_error_stats_update", true)?;
                }
                Ok(Value::Table(table))
            }
            None => Ok(Value::String(lua.create_string(own_text(&error))?)),
        }
    }

    /// Keeps the error that ends a run.
    pub(super) fn fail(&self, lua: &Lua, error: &Value) {
        let mut failure = Failure { place: raised_at(lua), ..Failure::default() };
        match error {
            Value::Error(error) => match self.take_thrown() {
                Some(Thrown::Text(text)) => {
                    failure.text = [b"ERR ".as_slice(), text.as_slice()].concat()
                }
                Some(Thrown::Table { err, counted }) => {
                    (failure.text, failure.counted) = (err, counted);
                }
                None => failure.text = [b"ERR ".as_slice(), own_text(error).as_bytes()].concat(),
            },
            Value::Table(table) => {
                let err = table.raw_get("err").unwrap_or(Value::Nil);
                failure.text = as_text(&err).unwrap_or_else(|| b"ERR unknown error".to_vec());
                let counted = table.raw_get("ignore_error_stats_update");
                failure.counted = matches!(counted, Ok(Value::Boolean(true)));
            }
            other => {
                let text = as_text(other).unwrap_or_else(|| shown(other).into_bytes());
                failure.text = [b"ERR ".as_slice(), text.as_slice()].concat();
            }
        }
        if let Ok(mut place) = self.failure.try_borrow_mut() {
            *place = Some(failure);
        }
    }
}

/// What the binding says of an error of its own.
pub(super) fn own_text(error: &Error) -> String {
    match error {
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => own_text(cause),
        Error::MemoryError(_) => "not enough memory".into(),
        Error::RuntimeError(text) => text.clone(),
        Error::StackError => "stack overflow".into(),
        other => other.to_string(),
    }
}

/// A string or a number as text, as `lua_tolstring` gives it.
pub(super) fn as_text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(format_g(*number as f64, 14).into_bytes()),
        Value::Number(number) => Some(format_g(*number, 14).into_bytes()),
        _ => None,
    }
}

/// What `tostring` says of a value that is neither a string nor a number.
fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "nil".into(),
        Value::Boolean(value) => value.to_string(),
        other => other.to_string().unwrap_or_else(|_| kind(other).into()),
    }
}

/// The type of a value in Lua's words.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// `chunk:line: ` of the function at a level, when it is known.
pub(super) fn position(lua: &Lua, level: usize) -> String {
    let text = lua.inspect_stack(level, |debug| {
        let line = debug.current_line()?;
        let source = debug.source();
        Some(format!("{}:{line}: ", source.short_src.as_deref().unwrap_or("?")))
    });
    text.flatten().unwrap_or_default()
}

/// Where the error that a handler looks at was raised: in a function of the server's, where that was called.
fn raised_at(lua: &Lua) -> Option<(String, i64)> {
    let look = |level| {
        lua.inspect_stack(level, |debug| {
            let line = debug.current_line().and_then(|line| i64::try_from(line).ok());
            let source = debug.source();
            let chunk = source.source.as_deref().unwrap_or("?").to_owned();
            (source.what == "C", (chunk, line.unwrap_or(-1)))
        })
    };
    let mut level = match look(1)? {
        (true, _) => 2,
        (false, _) => 1,
    };
    loop {
        let (_, place) = look(level)?;
        // What the prelude puts before Lua's functions is none of the script's.
        if place.0 != "@prelude" {
            return Some(place);
        }
        level += 1;
    }
}

/// The arguments of a function that Lua calls, and the errors of Lua's own functions for wrong ones.
pub(super) struct Params<'a> {
    pub(super) host: &'a Host,
    pub(super) lua: &'a Lua,
    pub(super) values: MultiValue,
}

impl Params<'_> {
    /// Argument `index`, from 1; nil when there is none.
    pub(super) fn get(&self, index: usize) -> &Value {
        const NIL: &Value = &Value::Nil;
        index.checked_sub(1).and_then(|at| self.values.get(at)).unwrap_or(NIL)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// `bad argument #1 to 'name' (message)`.
    pub(super) fn bad(&self, index: usize, message: &str) -> Error {
        let name = self.lua.inspect_stack(0, |debug| {
            let names = debug.names();
            let is_method = names.name_what == Some("method");
            (names.name.map(|name| name.into_owned()), is_method)
        });
        let (name, is_method) = name.unwrap_or((None, false));
        let name = name.unwrap_or_else(|| "?".into());
        if is_method && index == 1 {
            return self.host.error(self.lua, &format!("calling '{name}' on bad self ({message})"));
        }
        let index = if is_method { index.saturating_sub(1) } else { index };
        self.host.error(self.lua, &format!("bad argument #{index} to '{name}' ({message})"))
    }

    fn expected(&self, index: usize, what: &str) -> Error {
        let got = if index > self.len() { "no value" } else { kind(self.get(index)) };
        self.bad(index, &format!("{what} expected, got {got}"))
    }

    /// A string; a number is one.
    pub(super) fn text(&self, index: usize) -> mlua::Result<Vec<u8>> {
        as_text(self.get(index)).ok_or_else(|| self.expected(index, "string"))
    }

    /// A number; a string that holds one is one.
    pub(super) fn number(&self, index: usize) -> mlua::Result<f64> {
        number(self.lua, self.get(index)).ok_or_else(|| self.expected(index, "number"))
    }

    /// A whole number, cut as C cuts a double.
    pub(super) fn integer(&self, index: usize) -> mlua::Result<i64> {
        self.number(index).map(truncated)
    }

    /// The same, with a default for nothing and nil.
    pub(super) fn integer_or(&self, index: usize, default: i64) -> mlua::Result<i64> {
        if self.get(index).is_nil() { Ok(default) } else { self.integer(index) }
    }
}

/// A value as `lua_tonumber` sees it.
pub(super) fn number(lua: &Lua, value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(_) => lua.coerce_number(value.clone()).ok().flatten(),
        _ => None,
    }
}

/// A double as a whole number as x86 cuts it: what does not fit is the least.
pub(super) fn truncated(value: f64) -> i64 {
    // 2^63 is the first that does not fit.
    if value.is_nan()
        || !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value)
    {
        return i64::MIN;
    }
    value as i64
}
