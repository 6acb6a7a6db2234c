//! The last bytes of a journal, for flows: what has yet to be sent, and what a replica that comes again may have missed.
//!
//! Invariants: it holds at most what its limits say, whatever the flows do; places count its bytes, so that it
//! outlives the journal, which is another one when the append-only log goes on or off. Next: `mod.rs` for who reads it.

use std::collections::VecDeque;

/// Memory that stays although nothing is in it.
const SPARE_BYTES: usize = 1 << 20;

/// How much a backlog keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// When nobody needs it now.
    pub(crate) kept_bytes: usize,
    /// For a flow that is behind: one that is further behind is closed.
    pub(crate) behind_bytes: usize,
}

/// The last bytes of a journal.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Names it: places of another one mean nothing.
    pub(crate) history: u64,
    bytes: VecDeque<u8>,
    /// Where they begin.
    start: u64,
    limits: Limits,
}

impl Backlog {
    /// An empty one, whose first byte has this place.
    pub(crate) const fn new(history: u64, start: u64, limits: Limits) -> Self {
        Self { history, bytes: VecDeque::new(), start, limits }
    }

    pub(crate) const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes an entry.
    pub(crate) fn push(&mut self, entry: &[u8]) {
        self.bytes.extend(entry);
        let most = self.limits.behind_bytes.max(self.limits.kept_bytes);
        self.cut(self.bytes.len().saturating_sub(most));
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Where it begins.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// Whether a flow may go on from here.
    pub(crate) fn has(&self, at: u64) -> bool {
        (self.start..=self.end()).contains(&at)
    }

    /// At most `most` bytes from `at` on; nothing when they are gone.
    pub(crate) fn read(&self, at: u64, most: usize) -> Option<&[u8]> {
        if !self.has(at) {
            return None;
        }
        let from = usize::try_from(at - self.start).ok()?;
        let (one, two) = self.bytes.as_slices();
        let part = match one.get(from..) {
            Some(part) if !part.is_empty() => part,
            _ => two.get(from.saturating_sub(one.len())..).unwrap_or_default(),
        };
        part.get(..part.len().min(most))
    }

    /// Gives back what nobody needs: `oldest` is what has yet to be sent.
    pub(crate) fn trim(&mut self, oldest: Option<u64>) {
        let spare = self.bytes.len().saturating_sub(self.limits.kept_bytes);
        let sent = oldest.map_or(usize::MAX, |at| {
            usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX)
        });
        self.cut(spare.min(sent));
    }

    fn cut(&mut self, len: usize) {
        if len == 0 {
            return;
        }
        self.bytes.drain(..len);
        self.start += len as u64;
        let wanted = self.bytes.len() * 2 + SPARE_BYTES;
        if self.bytes.capacity() > wanted * 2 {
            self.bytes.shrink_to(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(backlog: &Backlog, from: u64) -> Option<Vec<u8>> {
        let (mut out, mut at) = (Vec::new(), from);
        loop {
            let part = backlog.read(at, 3)?;
            if part.is_empty() {
                return Some(out);
            }
            out.extend_from_slice(part);
            at += part.len() as u64;
        }
    }

    #[test]
    fn it_keeps_the_last_bytes_and_what_somebody_needs() {
        let mut backlog = Backlog::new(1, 0, Limits { kept_bytes: 10, behind_bytes: 20 });
        for part in ["0123456789", "abcdef"] {
            backlog.push(part.as_bytes());
        }
        assert_eq!(all(&backlog, 0).as_deref(), Some(&b"0123456789abcdef"[..]));
        backlog.trim(Some(3));
        assert_eq!(all(&backlog, 3).as_deref(), Some(&b"3456789abcdef"[..]), "it is needed");
        assert!(all(&backlog, 2).is_none() && !backlog.has(2));
        backlog.trim(Some(16));
        assert_eq!(all(&backlog, 6).as_deref(), Some(&b"6789abcdef"[..]), "the last ten");
        backlog.trim(None);
        assert_eq!((backlog.has(6), backlog.has(5), backlog.has(17)), (true, false, false));
    }

    #[test]
    fn whoever_is_too_far_behind_finds_nothing_and_memory_does_not_grow() {
        let limits = Limits { kept_bytes: 1_000, behind_bytes: 5_000_000 };
        let mut backlog = Backlog::new(1, 0, limits);
        for _ in 0..5_000 {
            backlog.push(&[7; 1_000]);
        }
        assert!(backlog.has(0), "at the bound");
        backlog.push(&[7]);
        assert!(!backlog.has(0) && backlog.read(0, 1).is_none(), "one beyond");
        for _ in 0..20_000 {
            backlog.push(&[7; 1_000]);
        }
        assert_eq!(backlog.end() - backlog.start(), 5_000_000);
        backlog.trim(None);
        assert_eq!(backlog.end() - backlog.start(), 1_000);
        assert!(backlog.bytes.capacity() <= 4 << 20, "{}", backlog.bytes.capacity());
    }
}
