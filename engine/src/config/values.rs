//! The checked values of all options.

use super::{CpuList, Row, Value};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table's default.
    Default,
    /// The configuration file.
    File,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Flag => "flag",
        })
    }
}

/// One value per option of a [`super::Table`].
#[derive(Clone, Debug)]
pub struct Values {
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) row: &'static Row,
    pub(super) value: Option<Value>,
    pub(super) origin: Origin,
}

/// An option whose value differs between two readings of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The option.
    pub name: &'static str,
    /// Whether a running process takes it over; otherwise it needs a restart.
    pub reload: bool,
    /// Before, as one would write it.
    pub before: String,
    /// After.
    pub after: String,
}

/// A pair of getters: one for options that always have a value, one for the others.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident, $name_if_set:ident: $variant:ident($held:ident) -> $kind:ty = $get:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Panics
        /// If there is no such option, it has another type, or it may be unset and is.
        #[must_use]
        pub fn $name(&self, name: &str) -> $kind {
            let value = self.$name_if_set(name);
            value.unwrap_or_else(|| panic!("option --{name} is unset: ask for it as optional"))
        }

        $(#[$doc])*
        /// None if it is unset.
        ///
        /// # Panics
        /// If there is no such option, or it has another type.
        #[must_use]
        pub fn $name_if_set(&self, name: &str) -> Option<$kind> {
            match &self.entry(name).value {
                Some(Value::$variant($held)) => Some($get),
                None => None,
                Some(other) => panic!("option --{name} is no {}: {other:?}", stringify!($variant)),
            }
        }
    )*};
}

impl Values {
    getters! {
        /// The number given for an option.
        integer, integer_if_set: Integer(value) -> u64 = *value;
        /// The bytes given for an option.
        size_bytes, size_bytes_if_set: Size(value) -> u64 = *value;
        /// The nanoseconds given for an option.
        duration_ns, duration_ns_if_set: Duration(value) -> u64 = *value;
        /// The address given for an option.
        address, address_if_set: Address(value) -> SocketAddr = *value;
        /// The path given for an option.
        path, path_if_set: Path(value) -> &Path = value;
        /// The cores given for an option.
        cpus, cpus_if_set: Cpus(value) -> &CpuList = value;
        /// The text given for an option.
        text, text_if_set: Text(value) -> &str = value;
        /// The word chosen for an option.
        choice, choice_if_set: Choice(value) -> &'static str = value;
        /// The truth given for an option.
        flag, flag_if_set: Bool(value) -> bool = *value;
    }

    /// Where the value of an option came from.
    ///
    /// # Panics
    /// If there is no such option.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.entry(name).origin
    }

    /// All options in the table's order, with their values as one would write them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Row, String, Origin)> + '_ {
        self.entries.iter().map(|entry| (entry.row, entry.text(), entry.origin))
    }

    /// What is different in `after`, another reading of the same table.
    #[must_use]
    pub fn changes(&self, after: &Self) -> Vec<Change> {
        let pairs = self.entries.iter().zip(&after.entries);
        pairs
            .filter(|(old, new)| old.value != new.value)
            .map(|(old, new)| Change {
                name: old.row.name,
                reload: old.row.reload,
                before: old.text(),
                after: new.text(),
            })
            .collect()
    }

    /// Takes over those values of `after` that a running process may change, and leaves the others.
    pub fn reload(&mut self, after: &Self) {
        for (old, new) in self.entries.iter_mut().zip(&after.entries) {
            if old.row.reload {
                old.value.clone_from(&new.value);
                old.origin = new.origin;
            }
        }
    }

    fn entry(&self, name: &str) -> &Entry {
        let entry = self.entries.iter().find(|entry| entry.row.name == name);
        entry.unwrap_or_else(|| panic!("no option --{name} in the table"))
    }
}

impl Entry {
    fn text(&self) -> String {
        self.value.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string)
    }
}
