//! Which chunks are emptied, so that memory follows what is live.
//!
//! A page serves one size class while one of its slots is in use: where sizes change, pages of sizes that went stay, each
//! for a few records. So chunks whose records fill them less than the average are emptied one at a time: their pages leave
//! the lists, their records move to free slots elsewhere, and the chunk goes back to the allocator. A pass over all chunks
//! that gives little back is the last one until there is more to gain.
//!
//! Invariant: no page of the chunk that is being emptied is on a list, so nothing new comes into it.
//! Next: `compact.rs` moves the records.

use super::{
    Arena, CHUNK_BYTES, NONE, PAGE_SHIFT, PAGES_PER_CHUNK, Page, Ref, UNITS, UNUSED, has_room,
};
use crate::store::types::Full;

/// Unused bytes that are never worth a move: a page of each class may be half empty.
const SLACK_BYTES: u64 = 2 << 20;
/// The part of the live bytes that may be unused beyond that: a twentieth.
const SLACK_PART: u64 = 20;
/// A pass is worth another when it gives back a part of the chunks as large as this.
const WORTH_PART: u32 = 64;

/// What to do next.
pub(in crate::store) enum Drain {
    /// Move this record; [`Arena::copy_out`] makes room for it.
    Move(Ref),
    /// Some pages were looked at.
    Looked,
    /// There is nothing to gain.
    Rest,
}

/// Where a pass over the chunks stands.
#[derive(Default)]
pub(super) struct Pass {
    /// The next chunk to look at.
    next: u32,
    /// Chunks it gave back, and those that its moves took: others write meanwhile.
    given: u32,
    taken: u32,
    /// Place in the chunk that is being emptied: page, and units into it.
    page: u32,
    slot: u16,
    /// Unused bytes that the last pass could not gain.
    settled_bytes: u64,
}

impl Arena {
    fn chunks_count(&self) -> u32 {
        u32::try_from(self.chunks.len() - self.holes.len()).unwrap_or(u32::MAX)
    }

    fn unused_bytes(&self) -> u64 {
        let held = u64::from(self.chunks_count()) * CHUNK_BYTES as u64;
        held.saturating_sub(self.live_bytes)
    }

    /// Whether there is memory to gain.
    pub(in crate::store) fn is_sparse(&self) -> bool {
        let settled = self.pass.settled_bytes;
        let unused = self.unused_bytes();
        unused > SLACK_BYTES + self.live_bytes / SLACK_PART && unused > settled + settled / 8
    }

    /// The next record to move.
    pub(in crate::store) fn next_to_move(&mut self) -> Drain {
        if self.draining == NONE {
            return self.choose();
        }
        if self.pass.page == PAGES_PER_CHUNK {
            // Something in it could not be moved.
            self.stop_draining();
            return Drain::Looked;
        }
        let index = self.draining * PAGES_PER_CHUNK + self.pass.page;
        let page = self.pages.get(index as usize).copied();
        if let Some(page) = page
            && let Some(units) = UNITS.get(usize::from(page.class)).copied()
        {
            while self.pass.slot < page.bump {
                let at = (index << PAGE_SHIFT) | u32::from(self.pass.slot);
                self.pass.slot += units;
                if self.bytes(at).first().is_some_and(|&first| first != 0) {
                    return Drain::Move(at);
                }
            }
        }
        self.pass.page += 1;
        self.pass.slot = 0;
        Drain::Looked
    }

    /// Looks at the next chunk, and begins to empty it when it holds no more than the average.
    fn choose(&mut self) -> Drain {
        if !self.is_sparse() {
            return Drain::Rest;
        }
        let held = self.chunks_count();
        let chunk = self.pass.next;
        if chunk as usize >= self.chunks.len() {
            let gained = self.pass.given.saturating_sub(self.pass.taken);
            let settles = gained == 0 || gained.saturating_mul(WORTH_PART) < held;
            let settled_bytes = if settles { self.unused_bytes() } else { 0 };
            self.pass = Pass { settled_bytes, ..Pass::default() };
            return if settles { Drain::Rest } else { Drain::Looked };
        }
        self.pass.next += 1;
        let live = self.chunk_live_bytes(chunk);
        if live > 0 && live * u64::from(held) <= self.live_bytes {
            self.start_draining(chunk);
        }
        Drain::Looked
    }

    fn pages_of(chunk: u32) -> std::ops::Range<u32> {
        chunk * PAGES_PER_CHUNK..(chunk + 1) * PAGES_PER_CHUNK
    }

    fn chunk_live_bytes(&self, chunk: u32) -> u64 {
        let pages = Self::pages_of(chunk).filter_map(|page| self.pages.get(page as usize));
        pages.map(|page| u64::from(page.used) * Self::class_bytes(page.class) as u64).sum()
    }

    fn is_listed(page: &Page) -> bool {
        UNITS.get(usize::from(page.class)).is_none_or(|&units| has_room(page, units))
    }

    fn start_draining(&mut self, chunk: u32) {
        for index in Self::pages_of(chunk) {
            let Some(page) = self.pages.get(index as usize).copied() else { return };
            if Self::is_listed(&page) {
                self.unlink(index);
            }
            self.empty_pages -= u32::from(page.class == UNUSED);
        }
        self.draining = chunk;
        (self.pass.page, self.pass.slot) = (0, 0);
    }

    /// The chunk that is being emptied is empty.
    pub(super) fn emptied(&mut self) {
        self.draining = NONE;
        self.pass.given += 1;
    }

    fn stop_draining(&mut self) {
        let chunk = std::mem::replace(&mut self.draining, NONE);
        for index in Self::pages_of(chunk) {
            let Some(page) = self.pages.get(index as usize).copied() else { return };
            if Self::is_listed(&page) {
                self.link(index, page.class);
            }
            self.empty_pages += u32::from(page.class == UNUSED);
        }
    }

    /// Copies a record into a slot elsewhere; the caller frees the old one.
    ///
    /// # Errors
    /// There is no room.
    pub(in crate::store) fn copy_out(&mut self, at: Ref) -> Result<Ref, Full> {
        let class = self.slot_class(at);
        let len = Self::class_bytes(class);
        let held = self.chunks_count();
        let to = self.alloc(class)?;
        self.pass.taken += self.chunks_count() - held;
        let chunks = [(at >> super::CHUNK_SHIFT) as usize, (to >> super::CHUNK_SHIFT) as usize];
        let (from, into) = (super::chunk_offset(at), super::chunk_offset(to));
        if let Ok([Some(old), Some(new)]) = self.chunks.get_disjoint_mut(chunks)
            && let Some(old) = old.get(from..from + len)
            && let Some(new) = new.get_mut(into..into + len)
        {
            new.copy_from_slice(old);
        }
        Ok(to)
    }
}

#[cfg(test)]
impl Arena {
    /// Begins to empty a chunk, if there is such a one and none is being emptied.
    pub(in crate::store) fn drain_next(&mut self, chunk: u32) {
        if self.draining == NONE && self.chunk_live_bytes(chunk) > 0 {
            self.start_draining(chunk);
        }
    }
}
