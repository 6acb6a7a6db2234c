//! The user's side of operations in flight: the buffers they own, under an id with a generation.

use bytes::BytesMut;
use view::Output;

use crate::buf::DirectBuf;
use crate::driver::{OpId, Token};

/// What an operation in flight keeps alive.
#[derive(Debug, Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    Output(Output),
    Bytes(BytesMut),
    Direct(DirectBuf),
}

#[derive(Debug)]
struct Slot {
    token: Token,
    generation: u32,
    live: bool,
    held: Held,
}

/// Slots by index; freed ones are reused last-in-first-out, as on the ring.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

const INDEX_BITS: u32 = 32;
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Slots {
    pub(super) fn insert(&mut self, token: Token, held: Held) -> OpId {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            (slot.token, slot.held, slot.live) = (token, held, true);
            return id(index, slot.generation);
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations in flight");
        self.slots.push(Slot { token, generation: 0, live: true, held });
        id(index, 0)
    }

    fn get(&mut self, op: OpId) -> Option<&mut Slot> {
        let generation = (op.0 >> INDEX_BITS) as u32;
        let slot = self.slots.get_mut((op.0 & u64::from(u32::MAX)) as usize)?;
        (slot.live && slot.generation == generation).then_some(slot)
    }

    pub(super) fn token(&mut self, op: OpId) -> Option<Token> {
        self.get(op).map(|slot| slot.token)
    }

    /// Ends `op` and hands out what it held.
    pub(super) fn remove(&mut self, op: OpId) -> Held {
        let Some(slot) = self.get(op) else { return Held::Nothing };
        slot.live = false;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        let held = std::mem::take(&mut slot.held);
        self.free.push((op.0 & u64::from(u32::MAX)) as u32);
        held
    }

    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

const fn id(index: u32, generation: u32) -> OpId {
    OpId((generation as u64) << INDEX_BITS | index as u64)
}
