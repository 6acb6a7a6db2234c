//! A slab of values named by `u32`, in chunks, so that growth never moves more than one chunk.
//!
//! Invariants: a chunk with a free or unused slot is on `room` exactly once and knows its place
//! there; a chunk without values gives its memory back, one spare excepted;
//! [`mem_bytes`](Slab::mem_bytes) is the capacity of everything held.
//! Next: `tree.rs` keeps its items and its nodes here.

/// Slots of a chunk; the most that one growth moves.
const CHUNK: usize = 512;
const CHUNK_SHIFT: u32 = CHUNK.trailing_zeros();
/// Slots of a chunk's first allocation.
const FIRST: usize = 4;
const SLOT_MASK: u32 = (1 << CHUNK_SHIFT) - 1;
const NONE: u32 = u32::MAX;

enum Slot<T> {
    /// The next free slot of the chunk.
    Free(u32),
    Used(T),
}

struct Chunk<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    used: u32,
    /// Place in `room`.
    room_at: u32,
}

/// Values named by `u32`.
pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks that can take a value, the preferred one last.
    room: Vec<u32>,
    /// Chunks given back.
    holes: Vec<u32>,
    len: u32,
    slots: usize,
    /// Chunks that hold memory and no value; at most one.
    spare: u32,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            room: Vec::new(),
            holes: Vec::new(),
            len: 0,
            slots: 0,
            spare: NONE,
        }
    }

    /// Values held.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes of all allocations, what the values hold themselves not included.
    pub(super) const fn mem_bytes(&self) -> usize {
        self.slots * size_of::<Slot<T>>()
            + self.chunks.capacity() * size_of::<Chunk<T>>()
            + (self.room.capacity() + self.holes.capacity()) * size_of::<u32>()
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        let chunk = self.chunks.get((at >> CHUNK_SHIFT) as usize)?;
        match chunk.slots.get((at & SLOT_MASK) as usize)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut((at >> CHUNK_SHIFT) as usize)?;
        match chunk.slots.get_mut((at & SLOT_MASK) as usize)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Takes a value in and names it; `None` beyond 2^32 - 1 values.
    pub(super) fn insert(&mut self, value: T) -> Option<u32> {
        let index = match self.room.last() {
            Some(&index) => index,
            None => self.open_chunk()?,
        };
        let chunk = self.chunks.get_mut(index as usize)?;
        let slot = if chunk.free == NONE {
            let slot = chunk.slots.len();
            if slot == chunk.slots.capacity() {
                let before = slot;
                chunk.slots.reserve_exact((slot * 2).clamp(FIRST, CHUNK) - slot);
                self.slots += chunk.slots.capacity() - before;
            }
            chunk.slots.push(Slot::Used(value));
            u32::try_from(slot).ok()?
        } else {
            let slot = chunk.free;
            let place = chunk.slots.get_mut(slot as usize)?;
            if let Slot::Free(next) = *place {
                chunk.free = next;
            }
            *place = Slot::Used(value);
            slot
        };
        chunk.used += 1;
        let full = chunk.used as usize == CHUNK;
        if self.spare == index {
            self.spare = NONE;
        }
        self.len += 1;
        if full {
            self.unlist(index);
        }
        Some((index << CHUNK_SHIFT) | slot)
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let index = at >> CHUNK_SHIFT;
        let slot = at & SLOT_MASK;
        let chunk = self.chunks.get_mut(index as usize)?;
        let place = chunk.slots.get_mut(slot as usize)?;
        if matches!(place, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(place, Slot::Free(chunk.free)) else {
            return None;
        };
        chunk.free = slot;
        chunk.used -= 1;
        let empty = chunk.used == 0;
        self.len -= 1;
        if chunk.room_at == NONE {
            self.list(index);
        }
        if empty {
            self.close_chunk(index);
        }
        Some(value)
    }

    /// Drops all values of the last chunk with `value` called on each; at most 512 of them.
    /// Returns whether nothing is left, which then holds no memory either.
    pub(super) fn drop_chunk(&mut self, mut value: impl FnMut(T)) -> bool {
        if let Some(chunk) = self.chunks.pop() {
            self.len -= chunk.used;
            self.slots -= chunk.slots.capacity();
            for slot in chunk.slots {
                if let Slot::Used(held) = slot {
                    value(held);
                }
            }
        }
        // The lists may name chunks that are gone: nothing may be inserted until all are.
        if self.chunks.is_empty() {
            *self = Self::new();
        }
        self.chunks.is_empty()
    }

    fn open_chunk(&mut self) -> Option<u32> {
        let index = match self.holes.pop() {
            Some(hole) => hole,
            None => {
                let index = u32::try_from(self.chunks.len()).ok()?;
                if index >= NONE >> CHUNK_SHIFT {
                    return None;
                }
                self.chunks.push(Chunk { slots: Vec::new(), free: NONE, used: 0, room_at: NONE });
                index
            }
        };
        self.list(index);
        Some(index)
    }

    /// Keeps an empty chunk as the spare one, or gives its memory back.
    fn close_chunk(&mut self, index: u32) {
        if self.spare == NONE && self.len > 0 {
            self.spare = index;
            return;
        }
        self.give_back(index);
        if self.len == 0 && self.spare != NONE {
            let spare = std::mem::replace(&mut self.spare, NONE);
            self.give_back(spare);
        }
    }

    fn give_back(&mut self, index: u32) {
        self.unlist(index);
        if let Some(chunk) = self.chunks.get_mut(index as usize) {
            self.slots -= chunk.slots.capacity();
            chunk.slots = Vec::new();
            chunk.free = NONE;
            self.holes.push(index);
        }
    }

    fn list(&mut self, index: u32) {
        if let Some(chunk) = self.chunks.get_mut(index as usize) {
            chunk.room_at = u32::try_from(self.room.len()).unwrap_or(NONE);
            self.room.push(index);
        }
    }

    fn unlist(&mut self, index: u32) {
        let Some(chunk) = self.chunks.get_mut(index as usize) else { return };
        let at = std::mem::replace(&mut chunk.room_at, NONE);
        if at == NONE {
            return;
        }
        self.room.swap_remove(at as usize);
        if let Some(&moved) = self.room.get(at as usize)
            && let Some(chunk) = self.chunks.get_mut(moved as usize)
        {
            chunk.room_at = at;
        }
    }
}

#[cfg(test)]
impl<T> Slab<T> {
    /// A recount of [`mem_bytes`](Self::mem_bytes).
    pub(super) fn recount(&self) -> usize {
        let slots: usize = self.chunks.iter().map(|chunk| chunk.slots.capacity()).sum();
        slots * size_of::<Slot<T>>()
            + self.chunks.capacity() * size_of::<Chunk<T>>()
            + self.room.capacity() * 4
            + self.holes.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::hash::Rng;

    #[test]
    fn names_stay_and_memory_comes_back() {
        let mut slab = Slab::new();
        let mut rng = Rng::new(3);
        let mut live: Vec<(u32, u64)> = Vec::new();
        // Two hills: up to some thousand values, down to none.
        for round in 0..40_000_u64 {
            let grow = round % 20_000 < 10_000;
            if live.is_empty() || rng.next().is_multiple_of(4) != grow {
                live.push((slab.insert(round).expect("room"), round));
            } else {
                let pick = usize::try_from(rng.next() >> 33).expect("31 bits") % live.len();
                let (at, value) = live.swap_remove(pick);
                assert_eq!(slab.remove(at), Some(value));
                assert_eq!(slab.remove(at), None, "a name is good once");
            }
            assert_eq!(slab.len(), live.len());
            if round % 512 == 0 {
                assert_eq!(slab.mem_bytes(), slab.recount());
                assert!(live.iter().all(|&(at, value)| slab.get(at) == Some(&value)));
            }
        }
        for (at, _) in live.drain(..) {
            slab.remove(at);
        }
        assert_eq!(slab.slots, 0, "an empty slab holds no slots");
        assert_eq!(slab.mem_bytes(), slab.recount());
    }

    #[test]
    fn one_step_drops_one_chunk() {
        let mut slab = Slab::new();
        for value in 0..1_500_u32 {
            slab.insert(value);
        }
        let mut dropped = 0;
        assert!(!slab.drop_chunk(|_| dropped += 1));
        assert_eq!((dropped, slab.len()), (1_500 - 1_024, 1_024));
        assert_eq!(slab.mem_bytes(), slab.recount());
        assert!(!slab.drop_chunk(|_| dropped += 1));
        assert!(slab.drop_chunk(|_| dropped += 1));
        assert_eq!((dropped, slab.mem_bytes()), (1_500, 0));
    }
}
