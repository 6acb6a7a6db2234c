//! Requests encoded once, before a run: a connection sends a run of them straight out of here, and begins again
//! at the end. Of keys that are all alike, with short values: what else there is, `draws` makes.
//!
//! Invariants: at most [`ARENA_MAX_BYTES`] of requests, whatever the value's length; the key and
//! the kind of every request are known by its index, so its reply can be checked.

use bytes::Bytes;

pub use super::protocol::Asked;
use super::protocol::Codec;
use super::{Target, Workload};
use crate::rng::Rng;

/// Encoded requests of one target, at most (one pipeline of the largest values excepted).
pub const ARENA_MAX_BYTES: usize = 8 << 20;
/// Requests of one target, at most.
pub const ARENA_MAX_REQUESTS: usize = 1 << 18;
/// No request is counted as shorter: a larger arena only costs the processor's caches.
const REQUEST_LEN_BYTES: usize = 64;
/// Requests of one target when all are equal: these stay in the processor's caches.
const UNIFORM_REQUESTS: usize = 64;
/// Length of every key.
pub const KEY_LEN_BYTES: usize = 16;

/// The name of key `index`, 16 bytes.
#[must_use]
pub fn key_name(index: u32) -> [u8; KEY_LEN_BYTES] {
    let mut name = *b"key:000000000000";
    let mut rest = index;
    let mut at = KEY_LEN_BYTES;
    while rest > 0 {
        at -= 1;
        name[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    name
}

/// CRC16 (XMODEM) of a key without hash tag, modulo 16384: its slot, as the Redis Cluster
/// specification defines it. Written out here so that the server's own is checked by it.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for &byte in key {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % 16_384
}

/// The values of a run: each begins with its key's number, so that a reply to another request is
/// noticed, and goes on with a pattern they share.
#[derive(Clone, Debug)]
pub struct Values {
    pattern: Vec<u8>,
}

/// Bytes of a value that depend on the key.
const TAG_LEN_BYTES: usize = 8;

fn tag(key: u32) -> [u8; TAG_LEN_BYTES] {
    let mut tag = [0; TAG_LEN_BYTES];
    for (at, digit) in tag.iter_mut().enumerate() {
        let nibble = (key >> (28 - 4 * at)) & 15;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    tag
}

impl Values {
    /// Values of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { pattern: (0..len).map(|at| b'a' + u8::try_from(at % 23).unwrap_or(0)).collect() }
    }

    /// Their length.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.pattern.len()
    }

    /// Appends the value of `key`.
    pub fn write(&self, key: u32, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&self.pattern);
        let tag_len = TAG_LEN_BYTES.min(self.pattern.len());
        to[start..start + tag_len].copy_from_slice(&tag(key)[..tag_len]);
    }

    /// Whether `part` is what stands at `at` in the value of `key`.
    #[must_use]
    pub fn matches(&self, key: u32, at: usize, part: &[u8]) -> bool {
        let Some(expected) = self.pattern.get(at..at + part.len()) else { return false };
        if at >= TAG_LEN_BYTES {
            return part == expected;
        }
        let tag_len = TAG_LEN_BYTES.min(self.pattern.len());
        let in_tag = part.len().min(tag_len - at.min(tag_len));
        part[..in_tag] == tag(key)[at..at + in_tag] && part[in_tag..] == expected[in_tag..]
    }
}

/// The requests of one target, in the order in which connections walk through them.
#[derive(Clone, Debug)]
pub struct Arena {
    bytes: Bytes,
    /// Where each request begins; one more entry for the end.
    starts: Vec<u32>,
    asked: Vec<Asked>,
}

impl Arena {
    /// Random requests as `workload` says, for the keys `target` serves, a multiple of `unit`
    /// in number.
    #[must_use]
    pub fn new(workload: &Workload, codec: &Codec, target: &Target, unit: usize) -> Self {
        let mut rng = Rng::new(workload.seed ^ u64::from(target.addr.port()).rotate_left(40));
        let keys: Vec<u32> = (0..workload.keys.max(1)).filter(|&key| serves(target, key)).collect();
        let keys = if keys.is_empty() { vec![0] } else { keys };
        let request_len = longest(workload, codec, keys[0]);
        let fit = ARENA_MAX_BYTES / request_len;
        let fit = if codec.is_uniform() { fit.min(UNIFORM_REQUESTS) } else { fit };
        let count = fit.min(ARENA_MAX_REQUESTS).max(2 * unit) / unit * unit;
        let mut bytes = Vec::with_capacity(count * request_len);
        let mut starts = Vec::with_capacity(count + 1);
        let mut asked = Vec::with_capacity(count);
        for _ in 0..count {
            let at = usize::try_from(rng.below(keys.len() as u64)).unwrap_or(0);
            let request = Asked { key: keys[at], set: rng.unit() < workload.set_share };
            starts.push(u32::try_from(bytes.len()).expect("an arena is below 4 GiB"));
            codec.encode(request, &mut bytes);
            asked.push(request);
        }
        starts.push(u32::try_from(bytes.len()).expect("an arena is below 4 GiB"));
        Self { bytes: bytes.into(), starts, asked }
    }

    /// Number of requests.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.asked.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// What request `index` asks.
    #[must_use]
    pub fn asked(&self, index: u32) -> Asked {
        self.asked[index as usize]
    }

    /// `count` requests from `index` on, which must not reach past the end.
    #[must_use]
    pub fn run(&self, index: u32, count: u32) -> &[u8] {
        let (from, to) = (self.starts[index as usize], self.starts[(index + count) as usize]);
        &self.bytes[from as usize..to as usize]
    }

    /// As [`Arena::run`], to be sent by reference.
    #[must_use]
    pub fn shared_run(&self, index: u32, count: u32) -> Bytes {
        self.bytes.slice_ref(self.run(index, count))
    }
}

/// Length of the longest request of a workload.
pub(super) fn longest(workload: &Workload, codec: &Codec, key: u32) -> usize {
    let len = |set| {
        let mut request = Vec::new();
        codec.encode(Asked { key, set }, &mut request);
        request.len()
    };
    len(false).max(if workload.has_sets() { len(true) } else { REQUEST_LEN_BYTES })
}

/// Whether `target` serves key `key`.
#[must_use]
pub fn serves(target: &Target, key: u32) -> bool {
    if target.slots.is_empty() {
        return true;
    }
    let slot = slot(&key_name(key));
    target.slots.iter().any(|&(first, last)| (first..=last).contains(&slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::protocol::Protocol;

    #[test]
    fn keys_have_one_length_and_their_number() {
        assert_eq!(&key_name(0), b"key:000000000000");
        assert_eq!(&key_name(1_234_567), b"key:000001234567");
        assert_eq!(&key_name(u32::MAX), b"key:004294967295");
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // The specification's own check value, and CLUSTER KEYSLOT somekey.
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"somekey"), 11_058);
    }

    #[test]
    fn a_value_matches_itself_from_everywhere_and_no_other() {
        for len in [1, 7, 8, 9, 64, 5000] {
            let values = Values::new(len);
            let mut value = Vec::new();
            values.write(0x0012_3456, &mut value);
            assert_eq!(value.len(), len);
            for cut in 0..len {
                assert!(values.matches(0x0012_3456, cut, &value[cut..]), "{len} from {cut}");
                assert!(values.matches(0x0012_3456, 0, &value[..cut]), "{len} to {cut}");
            }
            assert!(!values.matches(0x0012_3456, 1, &value), "too long");
            if len >= 8 {
                assert!(!values.matches(0x0012_3457, 0, &value));
            }
        }
    }

    #[test]
    fn requests_are_encoded_once_and_found_by_index() {
        let mut workload = Workload::new(Protocol::Resp, 16);
        workload.set_share = 0.5;
        let codec = Codec::new(&workload);
        let target = Target::all_keys(([127, 0, 0, 1], 1).into());
        let arena = Arena::new(&workload, &codec, &target, 16);
        assert_eq!(arena.len() % 16, 0);
        assert!(arena.run(0, arena.len()).len() <= ARENA_MAX_BYTES);
        let mut sets = 0;
        for index in 0..arena.len() {
            let mut expected = Vec::new();
            codec.encode(arena.asked(index), &mut expected);
            assert_eq!(arena.run(index, 1), expected);
            sets += u32::from(arena.asked(index).set);
        }
        assert!(sets > arena.len() / 3 && sets < arena.len() / 3 * 2);
        assert_eq!(arena.shared_run(1, 3), arena.run(1, 3));
    }

    #[test]
    fn a_target_gets_only_keys_of_its_slots() {
        let workload = Workload::new(Protocol::Resp, 1);
        let target =
            Target { addr: ([127, 0, 0, 1], 1).into(), slots: vec![(0, 99), (8000, 9000)] };
        let arena = Arena::new(&workload, &Codec::new(&workload), &target, 1);
        for index in 0..1000 {
            let slot = slot(&key_name(arena.asked(index).key));
            assert!(slot <= 99 || (8000..=9000).contains(&slot));
        }
    }
}
