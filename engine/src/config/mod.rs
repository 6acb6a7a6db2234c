//! Configuration: one table row per option, from which everything else follows.
//!
//! Why: an option that exists in the parser but not in the manual, or with another default there,
//! costs somebody an evening. So a [`Row`] states name, file key, type, range, default and meaning
//! once; the parser for flags and for the TOML file, `--help`, the manual page and the error
//! messages are derived from it.
//!
//! A flag wins over the file, the file over the default. All values are checked once, at start;
//! afterwards [`Values`] are typed and cannot be wrong.
//!
//! Invariants: no environment variables; the file is at most [`FILE_MAX_BYTES`]; an error names the
//! option, where it was given, the value, what is allowed, and for a misspelt name the nearest one.
//!
//! Next: `rows` holds the engine's own options and their typed form, [`Engine`]; each service adds
//! its rows to the [`Table`].

mod file;
mod help;
mod kind;
mod rows;
mod table;
mod values;

pub use file::FILE_MAX_BYTES;
pub use kind::{CPU_MAX, CpuList, Kind, UNIX_PATH_MAX_BYTES, Value, parse_duration, parse_size};
pub use kind::{show_duration, show_size};
pub use rows::{ENGINE, Engine, allowed_cpus};
pub use table::{Parsed, Table};
pub use values::{Change, Origin, Values};

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The flag, without its dashes: `max-clients`.
    pub name: &'static str,
    /// The key in the file, dotted: `engine.max_clients`; empty for options that only make sense
    /// as a flag.
    pub key: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// The default as one would write it; none if it is unset unless given.
    pub default: Option<&'static str>,
    /// Whether `off` is allowed, and unsets it.
    pub optional: bool,
    /// Whether a running process takes a new value over.
    pub reload: bool,
    /// What it does, in a phrase: lower case, no full stop.
    pub doc: &'static str,
}

impl Row {
    /// The heading it stands under: the first part of its key.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("general", |(section, _rest)| section)
    }
}
