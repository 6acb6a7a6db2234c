//! Streams against recordings of Redis, against a plain model, and at their limits.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod bounds;
mod command;
mod golden;
mod model;

use super::*;

impl Stream {
    /// Recounts everything.
    pub(super) fn check(&self) {
        self.entries.check();
        self.groups.check();
        let mut bytes = 0;
        for (_, group) in self.groups.up_from(&[][..]) {
            group.check();
            bytes += group.mem_bytes();
        }
        assert_eq!(self.group_bytes, bytes, "what groups hold");
        let garbage = self.garbage.iter().map(|garbage| match garbage {
            Garbage::Groups(groups) => {
                let each = groups.up_from(&[][..]).map(|(_, group)| group.mem_bytes());
                groups.bytes() + each.sum::<usize>()
            }
            Garbage::Entries(entries) => entries.mem_bytes(),
            Garbage::Group(group) => group.mem_bytes(),
        });
        assert_eq!(self.garbage_bytes, garbage.sum::<usize>(), "what garbage holds");
    }
}
