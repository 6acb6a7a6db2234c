//! The libraries scripts have beside Lua's own: `cjson`, `cmsgpack`, `struct`, `bit`; and patterns in place of Lua's own.
//!
//! They do what the libraries in Redis do, value by value and error by error, in safe code: every length is checked
//! against what there is, and nesting is bounded. Next: one file each.

mod bits;
mod json;
mod msgpack;
mod pack;
mod pattern;
mod strings;

use std::rc::Rc;

use mlua::{Lua, Table};

use super::host::Host;

/// Puts the libraries' tables into `api`.
pub(super) fn install(lua: &Lua, host: &Rc<Host>, api: &Table) -> mlua::Result<()> {
    api.raw_set("bit", bits::table(lua, host)?)?;
    api.raw_set("struct", pack::table(lua, host)?)?;
    api.raw_set("cmsgpack", msgpack::table(lua, host)?)?;
    api.raw_set("cjson", json::table(lua, host)?)?;
    strings::install(lua, host, api)
}
