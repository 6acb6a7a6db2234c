//! The command table: one row per command, one file per group, and the index over it.
//!
//! Invariant: a command's id is its position in [`Index`]; ids are dense, subcommands included, so
//! counters are plain arrays. Lookup hashes the first eight bytes and the length of the name.

mod cluster;
mod connection;
mod keyspace;
mod server;
mod string;

use super::row::Row;

/// Rows of all groups.
static GROUPS: [&[Row]; 5] =
    [connection::ROWS, keyspace::ROWS, string::ROWS, server::ROWS, cluster::ROWS];

/// All rows, found by name.
pub struct Index {
    rows: Vec<&'static Row>,
    /// Where the subcommands of row `id` start.
    first_sub: Vec<u16>,
    /// Top-level commands come first.
    top_level: usize,
    slots: Vec<u16>,
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
        let mut slots = vec![EMPTY; SLOTS];
        for (id, row) in top.iter().enumerate() {
            first_sub[id] = u16::try_from(rows.len()).unwrap_or(EMPTY);
            rows.extend(row.subs);
            let mut at = slot(row.name.as_bytes());
            while slots[at] != EMPTY {
                at = (at + 1) % SLOTS;
            }
            slots[at] = u16::try_from(id).unwrap_or(EMPTY);
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
        let mut at = slot(name);
        loop {
            let id = *self.slots.get(at)?;
            let row = self.rows.get(usize::from(id))?;
            if row.name.len() == name.len() && row.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(id);
            }
            at = (at + 1) % SLOTS;
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

/// Where the search for `name` starts.
#[inline]
fn slot(name: &[u8]) -> usize {
    let prefix = match name.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => name.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    // Letters in lower case; other bytes may collide, which the comparison settles.
    let folded = (prefix | 0x2020_2020_2020_2020) ^ name.len() as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize % SLOTS
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
        for name in [&b""[..], b"ge", b"gett", b"@et", b"nosuchcommand", b"client|nope", b"x|y"] {
            assert_eq!(index.find_full(name), None);
        }
    }
}
