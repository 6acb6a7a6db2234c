//! The table of operations in flight: what each owns, and which generation a user_data belongs to.

use view::Output;

use bytes::BytesMut;

use crate::buf::DirectBuf;
use crate::chunked::Chunked;
use crate::driver::{OpId, Token};

/// What an operation in flight keeps alive.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "some of it is only kept alive for the kernel")]
pub(super) enum Held {
    #[default]
    Nothing,
    /// The completion names a buffer of the pool.
    Pool,
    Output(Output, Option<Box<Vectors>>),
    Bytes(BytesMut),
    Direct(DirectBuf),
    Address(Box<Address>),
}

/// The message header and vector of a gathered send. Boxed, so its address survives moves of the
/// slot table.
pub(super) struct Vectors {
    pub(super) header: libc::msghdr,
    pub(super) vector: Vec<libc::iovec>,
}

impl std::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vectors({})", self.vector.len())
    }
}

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
pub(super) struct Address {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) len: libc::socklen_t,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({} bytes)", self.len)
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) token: Token,
    generation: u32,
    live: bool,
    /// A zero-copy send's result, kept until its notification.
    pub(super) sent: Option<i32>,
    pub(super) held: Held,
}

/// Slots by index, freed ones reused last-in-first-out while their lines are warm.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Chunked<Slot>,
    free: Vec<u32>,
}

const INDEX_BITS: u32 = 32;
/// The top byte of user_data is left to messages between rings.
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Slots {
    pub(super) fn insert(&mut self, token: Token, held: Held) -> OpId {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.token = token;
            slot.held = held;
            slot.live = true;
            return id(index, slot.generation);
        }
        let index = self.slots.push(Slot { token, generation: 0, live: true, sent: None, held });
        id(u32::try_from(index).expect("fewer than 2^32 operations in flight"), 0)
    }

    /// The slot of `op`, unless the operation has ended.
    pub(super) fn get(&mut self, op: OpId) -> Option<&mut Slot> {
        let generation = (op.0 >> INDEX_BITS) as u32;
        let slot = self.slots.get_mut((op.0 & u64::from(u32::MAX)) as usize)?;
        (slot.live && slot.generation == generation).then_some(slot)
    }

    /// Ends `op` and hands out what it held.
    pub(super) fn remove(&mut self, op: OpId) -> Held {
        let index = (op.0 & u64::from(u32::MAX)) as u32;
        let Some(slot) = self.get(op) else { return Held::Nothing };
        slot.live = false;
        slot.sent = None;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        let held = std::mem::take(&mut slot.held);
        self.free.push(index);
        held
    }

    /// Operations in flight.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

const fn id(index: u32, generation: u32) -> OpId {
    OpId((generation as u64) << INDEX_BITS | index as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_does_not_reach_the_slots_successor() {
        let mut slots = Slots::default();
        let first = slots.insert(1, Held::Nothing);
        slots.remove(first);
        let second = slots.insert(2, Held::Nothing);
        assert_ne!(first, second);
        assert!(slots.get(first).is_none());
        assert_eq!(slots.get(second).map(|slot| slot.token), Some(2));
        assert_eq!(slots.len(), 1);
    }
}
