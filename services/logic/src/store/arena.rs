//! Slabs: where records live. A record is named by a `u32`, its offset in units of 8 bytes.
//!
//! Chunks of 1 MiB are cut into pages of 32 KiB; a page serves one size class and keeps a free
//! list through its empty slots. An empty page serves any class; a chunk of empty pages goes back
//! to the allocator, one spare chunk excepted. Size classes step by 8 bytes up to 128 and then by
//! about 12 %, each as large as its number of slots per page allows, so a page has almost no tail.
//!
//! Invariants: a page with room is on its class's list and nowhere else; the first byte of a free
//! slot is 0 and that of a live one is not (records set [`LIVE`](super::record::LIVE)).
//! Next: `record.rs` gives the bytes their meaning; `arena/drain.rs` for chunks that are sparsely used.

pub(super) mod drain;

use super::types::Full;

/// Names a slot: its offset in units of 8 bytes.
pub(super) type Ref = u32;

const UNIT_BYTES: usize = 8;
const CHUNK_BYTES: usize = 1 << 20;
const PAGE_UNITS: u16 = 4096;
const PAGES_PER_CHUNK: u32 = 32;
const CHUNK_SHIFT: u32 = 17;
const PAGE_SHIFT: u32 = 12;
/// 32 GiB of records: all a [`Ref`] can name.
const MAX_CHUNKS: usize = 1 << (32 - CHUNK_SHIFT);
const NONE: u32 = u32::MAX;
const NO_SLOT: u16 = u16::MAX;
/// Class of a page that serves none.
const UNUSED: u8 = u8::MAX;

const MAX_UNITS: usize = 585;
/// The largest record a slot holds.
pub(super) const MAX_SLOT_BYTES: usize = MAX_UNITS * UNIT_BYTES;

const CLASSES: usize = count_classes();

const fn next_class(units: u16) -> u16 {
    if units < 16 {
        return units + 1;
    }
    let slots = PAGE_UNITS.div_ceil(units + units / 8);
    let next = PAGE_UNITS / slots;
    if next > units { next } else { PAGE_UNITS / (slots - 1) }
}

const fn count_classes() -> usize {
    let mut units = 1;
    let mut count = 1;
    while (units as usize) < MAX_UNITS {
        units = next_class(units);
        count += 1;
    }
    count
}

/// Units per slot, by class.
#[expect(clippy::indexing_slicing, reason = "checked while compiling")]
const UNITS: [u16; CLASSES] = {
    let mut out = [1; CLASSES];
    let mut class = 1;
    while class < CLASSES {
        out[class] = next_class(out[class - 1]);
        class += 1;
    }
    out
};

/// Smallest class that holds this many units.
#[expect(clippy::indexing_slicing, reason = "checked while compiling")]
const CLASS_OF: [u8; MAX_UNITS + 1] = {
    let mut out = [0; MAX_UNITS + 1];
    let mut units = 0;
    let mut class: u8 = 0;
    while units <= MAX_UNITS {
        while (UNITS[class as usize] as usize) < units {
            class += 1;
        }
        out[units] = class;
        units += 1;
    }
    out
};

#[derive(Clone, Copy)]
struct Page {
    /// Neighbours on the list this page is on: its class's, or that of the empty pages.
    prev: u32,
    next: u32,
    used: u16,
    /// First free slot, in units from the page's start.
    free: u16,
    /// Units handed out so far; slots beyond were never used.
    bump: u16,
    class: u8,
}

/// The slabs of one store.
pub(super) struct Arena {
    chunks: Vec<Option<Box<[u8; CHUNK_BYTES]>>>,
    pages: Vec<Page>,
    /// Pages in use, per chunk.
    chunk_used: Vec<u8>,
    /// Positions in `chunks` given back.
    holes: Vec<u32>,
    /// First page with room, per class.
    partial: [u32; CLASSES],
    empty: u32,
    empty_pages: u32,
    live_bytes: u64,
    max_chunks: usize,
    /// The chunk that is being emptied.
    draining: u32,
    pass: drain::Pass,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            pages: Vec::new(),
            chunk_used: Vec::new(),
            holes: Vec::new(),
            partial: [NONE; CLASSES],
            empty: NONE,
            empty_pages: 0,
            live_bytes: 0,
            max_chunks: MAX_CHUNKS,
            draining: NONE,
            pass: drain::Pass::default(),
        }
    }

    /// Bytes of the slots in use.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of the pages in use and of the bookkeeping.
    pub(super) fn held_bytes(&self) -> u64 {
        let pages: u64 = self.chunk_used.iter().map(|&n| u64::from(n)).sum();
        pages * u64::from(PAGE_UNITS) * 8 + self.bookkeeping_bytes()
    }

    /// Bytes of the tables about chunks and pages.
    pub(super) fn bookkeeping_bytes(&self) -> u64 {
        let pages = self.pages.capacity() * size_of::<Page>();
        let chunks = self.chunks.capacity() * size_of::<usize>();
        (pages + chunks + self.chunk_used.capacity() + self.holes.capacity() * 4) as u64
    }

    /// The class for a record of `len` bytes; `None` beyond [`MAX_SLOT_BYTES`].
    #[inline]
    pub(super) fn class_of(len: usize) -> Option<u8> {
        CLASS_OF.get(len.div_ceil(UNIT_BYTES)).copied()
    }

    #[inline]
    pub(super) fn class_bytes(class: u8) -> usize {
        usize::from(UNITS.get(usize::from(class)).copied().unwrap_or(0)) * UNIT_BYTES
    }

    /// The class of a live slot.
    #[inline]
    pub(super) fn slot_class(&self, at: Ref) -> u8 {
        self.pages.get((at >> PAGE_SHIFT) as usize).map_or(UNUSED, |page| page.class)
    }

    /// The bytes from a slot's start on (beyond its end, too); empty for a name never given out.
    #[inline]
    pub(super) fn bytes(&self, at: Ref) -> &[u8] {
        match self.chunks.get((at >> CHUNK_SHIFT) as usize) {
            Some(Some(chunk)) => chunk.get(chunk_offset(at)..).unwrap_or_default(),
            _ => &[],
        }
    }

    /// As [`bytes`](Self::bytes), to write.
    #[inline]
    pub(super) fn bytes_mut(&mut self, at: Ref) -> &mut [u8] {
        match self.chunks.get_mut((at >> CHUNK_SHIFT) as usize) {
            Some(Some(chunk)) => chunk.get_mut(chunk_offset(at)..).unwrap_or_default(),
            _ => &mut [],
        }
    }

    /// A slot of `class`.
    pub(super) fn alloc(&mut self, class: u8) -> Result<Ref, Full> {
        let units = UNITS.get(usize::from(class)).copied().ok_or(Full)?;
        let mut index = self.partial.get(usize::from(class)).copied().unwrap_or(NONE);
        if index == NONE {
            index = self.open_page(class)?;
        }
        let page = self.pages.get(index as usize).copied().ok_or(Full)?;
        let mut after = page;
        let slot = if page.free == NO_SLOT {
            after.bump += units;
            page.bump
        } else {
            let at = (index << PAGE_SHIFT) | u32::from(page.free);
            after.free = match self.bytes(at) {
                [_, _, low, high, ..] => u16::from_le_bytes([*low, *high]),
                _ => NO_SLOT,
            };
            page.free
        };
        after.used += 1;
        self.put_page(index, after);
        if !has_room(&after, units) {
            self.unlink(index);
        }
        self.live_bytes += u64::from(units) * 8;
        Ok((index << PAGE_SHIFT) | u32::from(slot))
    }

    /// Gives a slot back.
    pub(super) fn free(&mut self, at: Ref) {
        let index = at >> PAGE_SHIFT;
        let Some(page) = self.pages.get(index as usize).copied() else {
            return;
        };
        let Some(units) = UNITS.get(usize::from(page.class)).copied() else {
            return;
        };
        if let Some(slot) = self.bytes_mut(at).first_chunk_mut::<4>() {
            let [low, high] = page.free.to_le_bytes();
            *slot = [0, 0, low, high];
        }
        self.live_bytes -= u64::from(units) * 8;
        let mut after = page;
        after.free = u16::try_from(at & u32::from(PAGE_UNITS - 1)).unwrap_or(NO_SLOT);
        after.used -= 1;
        self.put_page(index, after);
        if !has_room(&page, units) && index / PAGES_PER_CHUNK != self.draining {
            self.link(index, page.class);
        }
        if after.used == 0 {
            self.close_page(index);
        }
    }

    fn put_page(&mut self, index: u32, page: Page) {
        if let Some(slot) = self.pages.get_mut(index as usize) {
            *slot = page;
        }
    }

    fn head_mut(&mut self, class: u8) -> &mut u32 {
        match self.partial.get_mut(usize::from(class)) {
            Some(head) => head,
            None => &mut self.empty,
        }
    }

    fn link(&mut self, index: u32, class: u8) {
        let head = std::mem::replace(self.head_mut(class), index);
        if let Some(page) = self.pages.get_mut(index as usize) {
            (page.prev, page.next) = (NONE, head);
        }
        if let Some(next) = self.pages.get_mut(head as usize) {
            next.prev = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(page) = self.pages.get(index as usize).copied() else {
            return;
        };
        match self.pages.get_mut(page.prev as usize) {
            Some(prev) => prev.next = page.next,
            None => *self.head_mut(page.class) = page.next,
        }
        if let Some(next) = self.pages.get_mut(page.next as usize) {
            next.prev = page.prev;
        }
    }

    fn open_page(&mut self, class: u8) -> Result<u32, Full> {
        if self.empty == NONE {
            self.add_chunk()?;
        }
        let index = self.empty;
        self.unlink(index);
        self.empty_pages -= 1;
        self.put_page(
            index,
            Page { prev: NONE, next: NONE, used: 0, free: NO_SLOT, bump: 0, class },
        );
        if let Some(used) = self.chunk_used.get_mut((index / PAGES_PER_CHUNK) as usize) {
            *used += 1;
        }
        self.link(index, class);
        Ok(index)
    }

    fn close_page(&mut self, index: u32) {
        let chunk = index / PAGES_PER_CHUNK;
        let drains = chunk == self.draining;
        if !drains {
            self.unlink(index);
        }
        if let Some(page) = self.pages.get_mut(index as usize) {
            page.class = UNUSED;
        }
        if !drains {
            self.link(index, UNUSED);
            self.empty_pages += 1;
        }
        let Some(used) = self.chunk_used.get_mut(chunk as usize) else {
            return;
        };
        *used -= 1;
        if *used == 0 && drains {
            self.emptied();
            self.give_back(chunk);
        } else if *used == 0 && self.empty_pages >= 2 * PAGES_PER_CHUNK {
            // One spare chunk stays, or a workload at a chunk's edge would map and unmap it for ever.
            self.drop_chunk(chunk);
        }
    }

    fn add_chunk(&mut self) -> Result<(), Full> {
        // From the heap directly: a megabyte does not pass through the stack.
        let fresh: Box<[u8; CHUNK_BYTES]> =
            vec![0; CHUNK_BYTES].into_boxed_slice().try_into().map_err(|_| Full)?;
        let chunk = if let Some(hole) = self.holes.pop() {
            if let Some(slot) = self.chunks.get_mut(hole as usize) {
                *slot = Some(fresh);
            }
            hole
        } else {
            let chunk = u32::try_from(self.chunks.len()).map_err(|_| Full)?;
            if self.chunks.len() >= self.max_chunks {
                return Err(Full);
            }
            self.chunks.push(Some(fresh));
            self.chunk_used.push(0);
            let page =
                Page { prev: NONE, next: NONE, used: 0, free: NO_SLOT, bump: 0, class: UNUSED };
            self.pages.extend(std::iter::repeat_n(page, PAGES_PER_CHUNK as usize));
            chunk
        };
        for page in (0..PAGES_PER_CHUNK).rev() {
            self.link(chunk * PAGES_PER_CHUNK + page, UNUSED);
        }
        self.empty_pages += PAGES_PER_CHUNK;
        Ok(())
    }

    fn drop_chunk(&mut self, chunk: u32) {
        for page in 0..PAGES_PER_CHUNK {
            self.unlink(chunk * PAGES_PER_CHUNK + page);
        }
        self.empty_pages -= PAGES_PER_CHUNK;
        self.give_back(chunk);
    }

    fn give_back(&mut self, chunk: u32) {
        if let Some(slot) = self.chunks.get_mut(chunk as usize) {
            *slot = None;
            self.holes.push(chunk);
        }
    }
}

#[inline]
fn chunk_offset(at: Ref) -> usize {
    (at as usize & ((1 << CHUNK_SHIFT) - 1)) * UNIT_BYTES
}

fn has_room(page: &Page, units: u16) -> bool {
    page.free != NO_SLOT || page.bump + units <= PAGE_UNITS
}

#[cfg(test)]
impl Arena {
    /// Makes the limit reachable in a test.
    pub(super) fn limit_chunks(&mut self, chunks: usize) {
        self.max_chunks = chunks;
    }

    pub(super) fn chunks_held(&self) -> usize {
        self.chunks.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cover_every_size_with_little_slack() {
        for len in 1..=MAX_SLOT_BYTES {
            let class = Arena::class_of(len).expect("within the limit");
            let slot = Arena::class_bytes(class);
            assert!(slot >= len, "{len} in {slot}");
            let slack = if len <= 128 { 7 } else { len * 15 / 100 + 7 };
            assert!(slot - len <= slack, "{len} in {slot}");
            let page = usize::from(PAGE_UNITS) * 8;
            assert!(page % slot < page / 20, "tail of class {slot}");
        }
        assert_eq!(Arena::class_of(MAX_SLOT_BYTES + 1), None);
    }

    #[test]
    fn slots_never_overlap_and_everything_comes_back() {
        let mut arena = Arena::new();
        let mut live: Vec<(Ref, usize, u8)> = Vec::new();
        let mut state = 7u64;
        for round in 0..60_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = usize::try_from(state >> 40).expect("24 bits");
            if pick % 3 < 2 || live.is_empty() {
                let len = 1 + pick % 600;
                let at = arena.alloc(Arena::class_of(len).expect("fits")).expect("room");
                let tag = u8::try_from(round % 255).expect("small") + 1;
                arena.bytes_mut(at).iter_mut().take(len).for_each(|byte| *byte = tag);
                live.push((at, len, tag));
            } else {
                let (at, len, tag) = live.swap_remove(pick % live.len());
                assert!(arena.bytes(at).iter().take(len).all(|&byte| byte == tag));
                arena.free(at);
            }
        }
        let sum: usize = live
            .iter()
            .map(|&(_, len, _)| Arena::class_bytes(Arena::class_of(len).expect("fits")))
            .sum();
        assert_eq!(arena.live_bytes(), sum as u64);
        assert!(arena.held_bytes() >= arena.live_bytes());
        for (at, len, tag) in live.drain(..) {
            assert!(arena.bytes(at).iter().take(len).all(|&byte| byte == tag));
            arena.free(at);
        }
        assert_eq!(arena.live_bytes(), 0);
        assert_eq!(arena.held_bytes(), arena.bookkeeping_bytes());
        assert!(arena.chunks_held() <= 1, "empty chunks go back");
    }

    #[test]
    fn a_full_arena_says_so() {
        let mut arena = Arena::new();
        arena.limit_chunks(1);
        let class = Arena::class_of(MAX_SLOT_BYTES).expect("fits");
        let mut last = 0;
        for _ in 0..32 * 7 {
            last = arena.alloc(class).expect("room");
        }
        assert_eq!(arena.alloc(class), Err(Full));
        arena.free(last);
        assert_eq!(arena.alloc(class), Ok(last));
    }
}
