//! A client's bytes in pieces of any size, to one shard or to two, while another client looks on.
//!
//! The first byte: its lowest bit is for two shards, the next one for input that sessions may keep, the others for the size
//! of pieces (0: all at once).

use super::{REPLIES_MAX_BYTES, host, lifts_limits, split};
use crate::support::encode;

/// Most bytes that wait for the rest of a command, beyond what was sent.
const STEPS_MAX: usize = 1_000_000;

pub(super) fn run(input: &[u8]) {
    let (how, bytes) = split(input);
    if lifts_limits(bytes) {
        return;
    }
    let mut host = host(u16::from(how & 1) + 1);
    host.owned = how & 2 != 0;
    host.seed(u64::from(how));
    let conn = host.connect(0, false);
    let other = host.connect(0, false);
    let size = match usize::from(how >> 2) {
        0 => bytes.len().max(1),
        size => size,
    };
    let (mut replies, mut steps) = (0, 0);
    let mut settle = |host: &mut crate::support::Host, replies: &mut usize| {
        while host.step() {
            steps += 1;
            assert!(steps < STEPS_MAX, "it does not come to rest");
        }
        *replies += host.take(conn).len() + host.take(other).len();
        assert!(*replies <= REPLIES_MAX_BYTES, "{replies} bytes of replies to {}", bytes.len());
    };
    for piece in bytes.chunks(size) {
        host.feed(conn, piece);
        settle(&mut host, &mut replies);
    }
    host.feed(other, &encode(&[b"SET", b"k", b"v"]));
    settle(&mut host, &mut replies);
    // Whoever waits, waits no longer.
    host.wait_ms(100_000);
    settle(&mut host, &mut replies);
    host.hang_up(conn);
    settle(&mut host, &mut replies);
}
