//! Collections whose keys have gone, until they are taken apart.
//!
//! Freeing a collection takes time in proportion to its elements, so that one of millions would stop the
//! shard. It waits here, still counted, and goes a bounded number of elements at a time.
//! Next: `admin.rs` calls [`Garbage::reclaim`].

use crate::object::Object;

/// Collections up to this many elements are freed at once.
const SMALL_LEN: usize = 64;
/// So are streams up to this many bytes: what they hold is not in their entries alone.
const SMALL_STREAM_BYTES: usize = 16 << 10;

/// What waits to be freed.
#[derive(Default)]
pub(super) struct Garbage {
    objects: Vec<Object>,
    bytes: u64,
}

impl Garbage {
    /// Bytes held, this list included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + (self.objects.capacity() * size_of::<Object>()) as u64
    }

    /// What is counted, and what is there.
    #[cfg(test)]
    pub(super) fn recount(&self) -> (u64, u64) {
        (self.bytes, self.objects.iter().map(|object| object.mem_bytes() as u64).sum())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Takes a collection; a small one is freed at once.
    pub(super) fn push(&mut self, object: Object) {
        let small = match &object {
            Object::Stream(stream) => stream.mem_bytes() <= SMALL_STREAM_BYTES,
            object => object.len() <= SMALL_LEN,
        };
        if !small {
            self.bytes += object.mem_bytes() as u64;
            self.objects.push(object);
        }
    }

    /// Frees about `budget` elements.
    pub(super) fn reclaim(&mut self, budget: usize) {
        let Some(object) = self.objects.last_mut() else {
            return;
        };
        let before = object.mem_bytes() as u64;
        let more = object.reclaim(budget);
        self.bytes = self.bytes - before + object.mem_bytes() as u64;
        if !more {
            let rest = self.objects.pop().map_or(0, |object| object.mem_bytes() as u64);
            self.bytes -= rest;
            if self.objects.is_empty() {
                self.objects = Vec::new();
            }
        }
    }
}
