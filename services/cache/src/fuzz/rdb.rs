//! A dump file of any bytes, loaded as at a start; then every key is used.
//!
//! The first byte: `r`, the bytes are the file; otherwise they are what comes between its header and its end, which are put
//! around them with the checksum. The low bits of it say in how large pieces the file arrives.

use logic::rdb::crc64;

use super::{host, split, uses};
use crate::load;

/// Sizes of pieces.
const PIECES: [usize; 4] = [1 << 20, 1, 7, 300];

pub(super) fn run(input: &[u8]) {
    let (how, body) = split(input);
    let file = if how == b'r' { body.to_vec() } else { whole(body) };
    let mut host = host(1);
    let now = host.now;
    let mut pieces = file.chunks(PIECES[usize::from(how >> 1) % PIECES.len()]);
    let shard = &mut host.shards[0];
    let loaded = load::read(shard, now, |reader| {
        let held = reader.held_bytes();
        assert!(held <= 4 * file.len() + 1024, "{held} bytes held for {}", file.len());
        match pieces.next() {
            Some(piece) => reader.feed(piece),
            None => reader.end(),
        }
        Ok(())
    });
    if let Ok(loaded) = loaded {
        let keys: u64 = (0..3).map(|db| shard.store.len(db)).sum();
        assert_eq!(loaded.keys, keys, "the keys that it says are there");
    }
    // What was loaded before something was wrong is in order too.
    uses::all(&mut host);
}

/// A file of these parts.
fn whole(parts: &[u8]) -> Vec<u8> {
    let mut file = [b"REDIS0012", parts, b"\xFF"].concat();
    let sum = crc64::of(&file);
    file.extend_from_slice(&sum.to_le_bytes());
    file
}
