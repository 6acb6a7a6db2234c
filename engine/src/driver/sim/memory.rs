//! The kernel's view of memory that operations name: raw pointers, kept until the last completion.
//!
//! Memory to be received into is poisoned when the operation is submitted and written only when it
//! completes; memory to be sent from is remembered by its checksum. So an owner that frees early
//! is seen by AddressSanitizer, and one that reads, writes or reuses early is seen without it.

use std::collections::BTreeMap;
use std::ptr::NonNull;

use super::flight::OpKey;
use super::streams::fold;

/// What received-into memory holds until its completion.
const POISON: u8 = 0xd5;
/// At most this much is poisoned per operation, from its start.
const POISON_MAX_BYTES: usize = 64 * 1024;

/// A run of memory the kernel may touch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Region {
    /// The memory at `start`, which the operation naming it owns until its last completion.
    pub(super) fn new(start: *mut u8, len: usize) -> Self {
        Self { start: NonNull::new(start).unwrap_or(NonNull::dangling()), len }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn from(&self) -> usize {
        self.start.as_ptr() as usize
    }

    fn poison(&self, poison: u8) {
        let len = self.len.min(POISON_MAX_BYTES);
        // SAFETY: `len` is within the region, which its operation's slot owns and keeps alive.
        unsafe { self.start.write_bytes(poison, len) };
    }

    /// Writes `bytes` at `at`; what does not fit is a bug of the model.
    pub(super) fn fill(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "the model writes past its region");
        // SAFETY: `at` is within the region (checked above).
        let to = unsafe { self.start.add(at) };
        // SAFETY: `to` has room for `bytes.len()` (checked above), owned by the operation; `bytes`
        // lies in the model's own memory, so the two do not overlap.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// The bytes, which must be initialised: a send's, or poisoned ones.
    fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised, owned and kept alive by the operation's
        // slot, and nobody writes to them while the operation is in flight.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len.min(self.len)) }
    }
}

/// Poisons a fresh buffer of the pool.
pub(super) fn poison_buffer(start: *mut u8, len: usize) {
    Region::new(start, len).poison(POISON);
}

/// The memory of one operation.
#[derive(Debug, Default)]
pub(super) enum Memory {
    #[default]
    None,
    /// Written at completion.
    Into(Region),
    /// Read until completion.
    From { runs: Vec<Region>, checksum: u64 },
}

impl Memory {
    pub(super) fn into(region: Region) -> Self {
        region.poison(POISON);
        Self::Into(region)
    }

    pub(super) fn from(runs: Vec<Region>) -> Self {
        let checksum = checksum(&runs);
        Self::From { runs, checksum }
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Into(region) => region.len,
            Self::From { runs, .. } => runs.iter().map(Region::len).sum(),
        }
    }

    /// Copies `len` bytes from `skip` on out of memory to be sent.
    pub(super) fn copy_out(&self, skip: usize, len: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(len);
        let Self::From { runs, .. } = self else { return copy };
        let mut skip = skip;
        for run in runs {
            let bytes = run.bytes(run.len);
            let from = skip.min(bytes.len());
            skip -= from;
            let rest = &bytes[from..];
            copy.extend_from_slice(&rest[..rest.len().min(len - copy.len())]);
        }
        copy
    }

    /// Panics when the memory was changed while in flight. Memory written by the model itself
    /// must be checked before.
    pub(super) fn verify(&self, operation: &dyn Fn() -> String) {
        match self {
            Self::None => {}
            Self::Into(region) => {
                let intact = region.bytes(POISON_MAX_BYTES).iter().all(|&byte| byte == POISON);
                assert!(intact, "memory of {} was written while in flight", operation());
            }
            Self::From { runs, checksum: expected } => {
                let intact = checksum(runs) == *expected;
                assert!(intact, "memory of {} was changed while in flight", operation());
            }
        }
    }
}

fn checksum(runs: &[Region]) -> u64 {
    let mut sum = 0;
    for run in runs {
        for word in run.bytes(run.len).chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            sum = (sum ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sum ^= sum >> 29;
        }
    }
    fold(0, sum)
}

/// All memory in flight in a world, to find operations that share what they must not.
#[derive(Debug, Default)]
pub(super) struct Regions {
    /// By start: (end, operation). Disjoint.
    written: BTreeMap<usize, (usize, OpKey)>,
    /// By (start, serial): (end, operation). May overlap: values are shared between sends.
    read: BTreeMap<(usize, u64), (usize, OpKey)>,
    serial: u64,
}

impl Regions {
    /// Registers an operation's memory. Panics when another operation in flight may write to it,
    /// or reads what this one will write.
    pub(super) fn add(&mut self, key: OpKey, memory: &Memory) {
        match memory {
            Memory::None => {}
            Memory::Into(region) => {
                let (from, to) = (region.from(), region.from() + region.len);
                if from == to {
                    return;
                }
                self.check_written(key, from, to);
                let mut reads = self.read.range(..(to, 0));
                if let Some((_, (_, other))) = reads.find(|(_, (end, _))| *end > from) {
                    panic!("{key:?} would write memory that {other:?} is sending");
                }
                self.written.insert(from, (to, key));
            }
            Memory::From { runs, .. } => {
                for run in runs.iter().filter(|run| run.len > 0) {
                    let (from, to) = (run.from(), run.from() + run.len);
                    self.check_written(key, from, to);
                    self.serial += 1;
                    self.read.insert((from, self.serial), (to, key));
                }
            }
        }
    }

    fn check_written(&self, key: OpKey, from: usize, to: usize) {
        if let Some((_, (end, other))) = self.written.range(..to).next_back() {
            assert!(*end <= from, "{key:?} names memory that {other:?} will write");
        }
    }

    pub(super) fn remove(&mut self, key: OpKey, memory: &Memory) {
        match memory {
            Memory::None => {}
            Memory::Into(region) => {
                if self.written.get(&region.from()).is_some_and(|(_, owner)| *owner == key) {
                    self.written.remove(&region.from());
                }
            }
            Memory::From { runs, .. } => {
                for run in runs {
                    let all = (run.from(), 0)..=(run.from(), u64::MAX);
                    let mine = self.read.range(all).find(|(_, (_, owner))| *owner == key);
                    if let Some(place) = mine.map(|(place, _)| *place) {
                        self.read.remove(&place);
                    }
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty() && self.read.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::OpId;

    fn key(id: u64) -> OpKey {
        OpKey { shard: 0, id: OpId(id) }
    }

    fn region(bytes: &mut [u8]) -> Region {
        Region::new(bytes.as_mut_ptr(), bytes.len())
    }

    #[test]
    fn gathered_memory_is_copied_from_any_offset() {
        let (mut one, mut two) = (*b"hello ", *b"world");
        let memory = Memory::from(vec![region(&mut one), region(&mut two)]);
        assert_eq!(memory.len(), 11);
        for skip in 0..=11 {
            for len in 0..=11 - skip {
                assert_eq!(memory.copy_out(skip, len), b"hello world"[skip..skip + len]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "memory of the test was changed")]
    fn a_change_of_sent_memory_is_seen() {
        let mut bytes = vec![1; 100];
        let memory = Memory::from(vec![region(&mut bytes)]);
        memory.verify(&|| "nothing yet".into());
        bytes[57] ^= 1;
        memory.verify(&|| "the test".into());
    }

    #[test]
    #[should_panic(expected = "memory of the test was written")]
    fn a_write_to_poisoned_memory_is_seen() {
        let mut bytes = vec![0; 100];
        let memory = Memory::into(region(&mut bytes));
        memory.verify(&|| "nothing yet".into());
        bytes[99] = 0;
        memory.verify(&|| "the test".into());
    }

    #[test]
    #[should_panic(expected = "would write memory that")]
    fn receiving_into_memory_being_sent_is_seen() {
        let mut bytes = [0; 100];
        let mut regions = Regions::default();
        regions.add(key(1), &Memory::from(vec![region(&mut bytes[10..50])]));
        regions.add(key(2), &Memory::into(region(&mut bytes[40..60])));
    }

    #[test]
    #[should_panic(expected = "will write")]
    fn receiving_twice_into_one_place_is_seen() {
        let mut bytes = [0; 100];
        let mut regions = Regions::default();
        regions.add(key(1), &Memory::into(region(&mut bytes[..50])));
        regions.add(key(2), &Memory::into(region(&mut bytes[49..])));
    }

    #[test]
    fn sends_may_share_memory_and_removal_forgets_it() {
        let mut bytes = vec![0; 100];
        let mut regions = Regions::default();
        let one = Memory::from(vec![region(&mut bytes)]);
        let two = Memory::from(vec![region(&mut bytes)]);
        regions.add(key(1), &one);
        regions.add(key(2), &two);
        regions.remove(key(1), &one);
        regions.remove(key(2), &two);
        assert!(regions.is_empty());
    }
}
