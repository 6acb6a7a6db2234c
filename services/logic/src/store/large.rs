//! Parts that do not fit a slab: values handed out by reference, collections, and very long keys.
//!
//! Kept in blocks of 256, so that growth never moves what is there. The cost of a value is what the
//! allocator sets aside for it, as far as that is known: a value handed in by reference counts for its
//! length, since what it is a slice of cannot be seen. A collection counts what it says it holds.
//! Next: `record.rs` holds the index of such a part.

use bytes::Bytes;

use super::{big::BIG_MIN_BYTES, types::Full};
use crate::object::Object;

const BLOCK: usize = 256;

/// The large part of a record.
pub(super) struct Large {
    /// Boxed, since it is rare.
    pub(super) key: Option<Box<LongKey>>,
    pub(super) part: Part,
}

/// A key too long for a slab, with its hash: a split must not hash megabytes.
pub(super) struct LongKey {
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
}

/// The value of such a record.
pub(super) enum Part {
    /// A string, with the bytes its allocation was asked for.
    Bytes(Bytes, usize),
    /// A collection.
    Object(Object),
}

impl Part {
    fn cost(&self) -> usize {
        match self {
            Self::Bytes(_, asked) => allocated(*asked),
            Self::Object(object) => object.mem_bytes(),
        }
    }
}

/// The largest size of the allocator's that is a quarter of a power of two above the next.
const QUARTERS_MAX_BYTES: usize = 64 << 10;
/// What larger ones are a multiple of.
const PAGE_BYTES: usize = 4 << 10;

/// What the allocator sets aside: mimalloc, as jemalloc, has four sizes per doubling.
const fn allocated(asked: usize) -> usize {
    match asked {
        0 => 0,
        1..=64 => asked.next_multiple_of(8),
        65..=QUARTERS_MAX_BYTES => asked.next_multiple_of(1 << ((asked - 1).ilog2() - 2)),
        _ => asked.next_multiple_of(PAGE_BYTES),
    }
}

impl Large {
    /// Bytes held, this struct included.
    pub(super) fn cost(&self) -> u64 {
        let key = self.key.as_ref().map_or(0, |long| long.key.len() + size_of::<LongKey>());
        (size_of::<Option<Self>>() + key + self.part.cost()) as u64
    }
}

/// All large parts of one store.
pub(super) struct Larges {
    blocks: Vec<Vec<Option<Large>>>,
    free: Vec<u32>,
    /// Of the parts themselves; free places in blocks are counted beside it.
    payload_bytes: u64,
    live: usize,
}

impl Larges {
    pub(super) fn new() -> Self {
        Self { blocks: Vec::new(), free: Vec::new(), payload_bytes: 0, live: 0 }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let blocks = self.blocks.len() * BLOCK * size_of::<Option<Large>>();
        let index = self.blocks.capacity() * size_of::<Vec<Option<Large>>>();
        self.payload_bytes + (blocks + index + self.free.capacity() * 4) as u64
    }

    #[cfg(test)]
    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    pub(super) fn get(&self, index: u32) -> Option<&Large> {
        let index = index as usize;
        self.blocks.get(index / BLOCK)?.get(index % BLOCK)?.as_ref()
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Option<Large>> {
        let index = index as usize;
        self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)
    }

    pub(super) fn insert(&mut self, large: Large) -> Result<u32, Full> {
        let payload = large.cost() - size_of::<Option<Large>>() as u64;
        self.live += 1;
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.slot_mut(index) {
                *slot = Some(large);
            }
            self.payload_bytes += payload;
            return Ok(index);
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let before = (self.blocks.len() - 1) * BLOCK;
        let block = self.blocks.last_mut().ok_or(Full)?;
        let index = u32::try_from(before + block.len()).map_err(|_| Full)?;
        block.push(Some(large));
        self.payload_bytes += payload;
        Ok(index)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Large> {
        let large = self.slot_mut(index)?.take()?;
        self.payload_bytes -= large.cost() - size_of::<Option<Large>>() as u64;
        self.free.push(index);
        self.live -= 1;
        if self.live == 0 && self.blocks.len() > 1 {
            *self = Self::new();
        }
        Some(large)
    }

    /// The value itself, leaving an empty one that costs nothing.
    pub(super) fn take_value(&mut self, index: u32) -> Option<Bytes> {
        let large = self.slot_mut(index)?.as_mut()?;
        let Part::Bytes(value, asked) = &mut large.part else { return None };
        let (value, asked) = (std::mem::take(value), std::mem::take(asked));
        self.payload_bytes -= allocated(asked) as u64;
        Some(value)
    }

    /// Puts a value back after [`take_value`](Self::take_value).
    pub(super) fn put_value(&mut self, index: u32, value: Bytes, asked: usize) {
        if let Some(Some(large)) = self.slot_mut(index) {
            large.part = Part::Bytes(value, asked);
            self.payload_bytes += allocated(asked) as u64;
        }
    }

    /// The collection itself, leaving an empty string.
    pub(super) fn take_object(&mut self, index: u32) -> Option<Object> {
        let large = self.slot_mut(index)?.as_mut()?;
        if !matches!(large.part, Part::Object(_)) {
            return None;
        }
        let part = std::mem::replace(&mut large.part, Part::Bytes(Bytes::new(), 0));
        let Part::Object(object) = part else { return None };
        self.payload_bytes -= object.mem_bytes() as u64;
        Some(object)
    }

    /// Changes a collection, and accounts for what that did to its size.
    pub(super) fn edit<R>(
        &mut self,
        index: u32,
        edit: impl FnOnce(&mut Object) -> R,
    ) -> Option<(R, After)> {
        let Part::Object(object) = &mut self.slot_mut(index)?.as_mut()?.part else { return None };
        let before = object.mem_bytes() as u64;
        let result = edit(object);
        let after = object.mem_bytes() as u64;
        let came_to = if object.is_gone() {
            After::Gone
        } else if after >= BIG_MIN_BYTES && after.ilog2() > before.max(1).ilog2() {
            After::Grown(after)
        } else {
            After::Kept
        };
        self.payload_bytes = self.payload_bytes - before + after;
        Some((result, came_to))
    }
}

/// What a collection has become by a change.
pub(super) enum After {
    /// Nothing to speak of.
    Kept,
    /// A big one, of so many bytes.
    Grown(u64),
    /// One that its key goes with.
    Gone,
}
