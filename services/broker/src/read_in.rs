//! What a connection had read from the disk, and is dropped from the page cache behind it: one pass over old records is no
//! reason for new ones to leave.
//!
//! A stretch is read whole to be checked, and sent with several answers: each takes its part. Invariants: at most
//! [`AHEAD_MAX`] stretches are remembered; nothing is dropped before the client asked for more. Next: `fetch`,
//! `engine::net::Cold`.

use std::rc::Rc;

use engine::fs::File;
use engine::net::Cold;

/// Stretches that were read to be checked and are remembered until they are sent.
const AHEAD_MAX: usize = 64;

/// What one connection had read.
#[derive(Debug, Default)]
pub(crate) struct ReadIn {
    /// Checked, and not sent yet.
    ahead: Vec<Cold>,
    /// Sent with the answer before, which the client has by now.
    behind: Vec<Cold>,
}

impl ReadIn {
    /// The client has what was sent.
    pub(crate) fn drop_behind(&mut self) {
        self.behind.drain(..).for_each(|cold| cold.drop_cached());
    }

    /// A stretch was read. Of more than [`AHEAD_MAX`] the first is left to the kernel.
    pub(crate) fn add(&mut self, cold: Cold) {
        if self.ahead.len() == AHEAD_MAX {
            self.ahead.remove(0);
        }
        self.ahead.push(cold);
    }

    /// A range is sent with the next answer.
    pub(crate) fn sends(&mut self, file: &Rc<File>, offset: u64, len: u64) {
        let sent = self.ahead.iter_mut().filter_map(|cold| cold.take_sent(file, offset, len));
        self.behind.extend(sent);
        self.ahead.retain(|cold| !cold.is_empty());
    }

    /// An answer went out, for which this had to be read.
    pub(crate) fn sent(&mut self, cold: Vec<Cold>) {
        self.behind.extend(cold);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use engine::buf::DirectBuf;
    use engine::driver::OpenOptions;
    use engine::driver::sim::{Faults, World};

    use super::*;
    use crate::testing::in_world;

    #[test]
    fn a_stretch_is_dropped_as_far_as_it_was_sent() {
        let ended = in_world(&World::new(1, Faults::none()), 10_000, |cx| async move {
            let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
            let file = File::open(&cx, Path::new("/f"), &options).expect("room");
            let file = Rc::new(file);
            file.write_at(DirectBuf::zeroed(10_000), 10_000, 0).await.expect("room");
            let mut read_in = ReadIn::default();
            read_in.add(Cold::new(Rc::clone(&file), 0, 4000));
            let counts = |one: &ReadIn| (one.ahead.len(), one.behind.len());
            read_in.sends(&file, 4000, 1000);
            assert_eq!(counts(&read_in), (1, 0), "another range");
            read_in.sends(&file, 1000, 1000);
            assert_eq!(counts(&read_in), (1, 1));
            read_in.drop_behind();
            assert_eq!(counts(&read_in), (1, 0), "the rest is still to be sent");
            read_in.sends(&file, 2000, 3000);
            assert_eq!(counts(&read_in), (0, 1));
            for at in 0..AHEAD_MAX as u64 + 1 {
                read_in.add(Cold::new(Rc::clone(&file), at * 10, 10));
            }
            assert_eq!(counts(&read_in), (AHEAD_MAX, 1));
        });
        assert!(ended);
    }
}
