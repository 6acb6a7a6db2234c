//! The command table: one row per command, one file per group, and the index over it.
//!
//! Invariant: a command's id is its position in [`Index`]; ids are dense, subcommands included, so
//! counters are plain arrays. Lookup compares two words and a length.

mod admin;
mod bitmap;
mod blocking;
mod cluster;
mod connection;
mod dump;
mod geo;
mod hash;
mod hash_field;
mod heavy;
mod hyperloglog;
mod keyspace;
mod limit;
mod list;
mod pubsub;
mod save;
mod scripting;
mod server;
mod set;
mod sort;
mod stream;
mod string;
mod transactions;
mod zset;

use super::row::Row;

/// Rows of all groups.
static GROUPS: &[&[Row]] = &[
    connection::ROWS,
    keyspace::ROWS,
    string::ROWS,
    server::ROWS,
    cluster::ROWS,
    hash::ROWS,
    hash_field::ROWS,
    list::ROWS,
    set::ROWS,
    zset::ROWS,
    stream::ROWS,
    bitmap::ROWS,
    hyperloglog::ROWS,
    geo::ROWS,
    sort::ROWS,
    blocking::ROWS,
    transactions::ROWS,
    scripting::ROWS,
    dump::ROWS,
    save::ROWS,
    limit::ROWS,
    heavy::ROWS,
    admin::ROWS,
    pubsub::ROWS,
];

/// All rows, found by name.
pub struct Index {
    rows: Vec<&'static Row>,
    /// Where the subcommands of row `id` start.
    first_sub: Vec<u16>,
    /// Top-level commands come first.
    top_level: usize,
    slots: Vec<Slot>,
}

/// A place of the index.
#[derive(Clone, Copy)]
struct Slot {
    key: Key,
    id: u16,
    /// The name's key does not say all about it.
    odd: bool,
}

const EMPTY: u16 = u16::MAX;
const SLOTS: usize = 512;

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Index {
    /// Indexes the table.
    #[must_use]
    pub fn new() -> Self {
        let top: Vec<&'static Row> = GROUPS.iter().flat_map(|group| group.iter()).collect();
        let mut rows = top.clone();
        let mut first_sub = vec![0; top.len()];
        let free = Slot { key: Key::default(), id: EMPTY, odd: false };
        let mut slots = vec![free; SLOTS];
        for (id, row) in top.iter().enumerate() {
            first_sub[id] = u16::try_from(rows.len()).unwrap_or(EMPTY);
            rows.extend(row.subs);
            let key = fold(row.name.as_bytes());
            let mut at = key.slot();
            while slots[at].id != EMPTY {
                at = (at + 1) % SLOTS;
            }
            let odd = row.name.len() > LONGEST || row.name.contains(['_', '.']);
            slots[at] = Slot { key, id: u16::try_from(id).unwrap_or(EMPTY), odd };
        }
        Self { rows, first_sub, top_level: top.len(), slots }
    }

    /// The row with this id. Ids come from this index; an unknown one gives the first row.
    #[inline]
    #[must_use]
    pub fn row(&self, id: u16) -> &'static Row {
        self.rows.get(usize::from(id)).copied().unwrap_or(&GROUPS[0][0])
    }

    /// How many ids there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the table is empty; it is not.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Top-level commands with their ids.
    pub fn top_level(&self) -> impl Iterator<Item = (u16, &'static Row)> + use<'_> {
        (0_u16..).zip(self.rows.iter().copied()).take(self.top_level)
    }

    /// All rows with their ids, subcommands after the commands.
    pub fn all(&self) -> impl Iterator<Item = (u16, &'static Row)> + use<'_> {
        (0_u16..).zip(self.rows.iter().copied())
    }

    /// The command of this name, in any case.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<u16> {
        let wanted = fold(name);
        let mut at = wanted.slot();
        loop {
            // The table is never full, so the search ends.
            let &Slot { key, id, odd } = self.slots.get(at % SLOTS)?;
            if key == wanted && (!odd || self.row(id).name.as_bytes().eq_ignore_ascii_case(name)) {
                return Some(id);
            }
            if id == EMPTY {
                return None;
            }
            at += 1;
        }
    }

    /// The subcommand of container `id` with this name, in any case.
    #[must_use]
    pub fn find_sub(&self, id: u16, name: &[u8]) -> Option<u16> {
        let subs = self.row(id).subs;
        let at =
            subs.iter().position(|sub| sub.short_name().as_bytes().eq_ignore_ascii_case(name))?;
        Some(self.first_sub.get(usize::from(id))? + u16::try_from(at).ok()?)
    }

    /// Ids of the subcommands of container `id`.
    #[must_use]
    pub fn subs(&self, id: u16) -> std::ops::Range<u16> {
        let first = self.first_sub.get(usize::from(id)).copied().unwrap_or(0);
        let count = u16::try_from(self.row(id).subs.len()).unwrap_or(0);
        first..first.saturating_add(count)
    }

    /// The row of a full name, `command` or `container|sub`.
    #[must_use]
    pub fn find_full(&self, name: &[u8]) -> Option<u16> {
        match name.iter().position(|&byte| byte == b'|') {
            None => self.find(name),
            Some(at) => {
                let container = self.find(name.get(..at)?)?;
                self.find_sub(container, name.get(at + 1..)?)
            }
        }
    }
}

/// A name of letters in lower case: its first eight bytes, its last eight, and its length. Equal
/// keys are equal names up to [`LONGEST`], where the command's name is letters only, since a byte that
/// folds to a letter is that letter; the few other names are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Key {
    head: u64,
    tail: u64,
    len: usize,
}

/// Names up to this length are told apart by their [`Key`].
const LONGEST: usize = 16;
const LOWER_CASE: u64 = 0x2020_2020_2020_2020;

impl Key {
    #[inline]
    const fn slot(self) -> usize {
        let mixed = (self.head ^ self.len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 55) as usize % SLOTS
    }
}

#[inline]
fn fold(name: &[u8]) -> Key {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) | LOWER_CASE;
    let short = |bytes: [u8; 8]| word(&bytes);
    let len = name.len();
    let (head, tail) = match *name {
        [a, b, c] => (short([a, b, c, 0, 0, 0, 0, 0]), 0),
        [a, b, c, d] => (short([a, b, c, d, 0, 0, 0, 0]), 0),
        _ => match (name.first_chunk(), name.last_chunk()) {
            (Some(head), Some(tail)) => (word(head), word(tail)),
            _ => (
                name.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)) | LOWER_CASE,
                0,
            ),
        },
    };
    Key { head, tail, len }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_in_any_case() {
        let index = Index::new();
        assert!(index.top_level().count() > 50);
        for (id, row) in index.all() {
            assert_eq!(index.find_full(row.name.as_bytes()), Some(id), "{}", row.name);
            assert_eq!(index.find_full(row.name.to_uppercase().as_bytes()), Some(id));
        }
        for (_, row) in index.top_level() {
            let known = |byte: u8| byte.is_ascii_lowercase() || b"_.".contains(&byte);
            assert!(row.name.bytes().all(known), "{}", row.name);
        }
        for name in [
            &b""[..],
            b"ge",
            b"get\0",
            b"g\x05t",
            b"incrbyfloatincrbyfloat",
            b"gett",
            b"@et",
            b"bitfield\x7Fro",
            b"nosuchcommand",
            b"sort\x7fro",
            b"cl\x0ethrottle",
            b"georadiuxxymember",
            b"client|nope",
            b"x|y",
        ] {
            assert_eq!(index.find_full(name), None);
        }
    }
}
