//! One connection of a load: what it still has to send, what it waits for, and since when.
//!
//! Next: `generator`, which moves requests through it.

use std::collections::VecDeque;

use super::draws::Drawing;
use super::protocol::Decoder;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) target: usize,
    /// Arena index of the next request to send.
    pub(super) send_at: u32,
    /// Queued and not handed to the transport.
    pub(super) unsent: u32,
    /// Arena index of the request whose reply is next.
    pub(super) reply_at: u32,
    /// Queued or sent, without a reply.
    pub(super) waiting: u32,
    /// Closed loop: when the pipeline was queued.
    pub(super) started_ns: u64,
    /// Closed loop: when it was handed to the transport.
    pub(super) handed_ns: u64,
    /// Open loop: intended time of each waiting request.
    pub(super) intended: VecDeque<u64>,
    /// Open loop: when each of them that has left was handed to the transport.
    pub(super) handed: VecDeque<u64>,
    /// What it asked, where requests are drawn.
    pub(super) drawing: Drawing,
    pub(super) decoder: Decoder,
    /// What is sent beside requests: a greeting, what a protocol owes its peer.
    pub(super) control: Vec<u8>,
    pub(super) sending: bool,
    pub(super) listed: bool,
    pub(super) dead: bool,
}

impl Conn {
    /// One that begins at request `at`.
    pub(super) const fn new(target: usize, at: u32, decoder: Decoder, greeting: Vec<u8>) -> Self {
        Self {
            target,
            send_at: at,
            unsent: 0,
            reply_at: at,
            waiting: 0,
            started_ns: 0,
            handed_ns: 0,
            intended: VecDeque::new(),
            handed: VecDeque::new(),
            drawing: Drawing::new(),
            decoder,
            control: greeting,
            sending: false,
            listed: false,
            dead: false,
        }
    }
}

/// Marks the time of a request that was answered before an earlier one.
const ANSWERED: u64 = u64::MAX;

/// Takes the time at `offset`; with it, how many now leave the front.
#[inline]
pub(super) fn take_at(times: &mut VecDeque<u64>, offset: usize) -> Option<(u64, u32)> {
    let time = std::mem::replace(times.get_mut(offset)?, ANSWERED);
    let mut passed = 0;
    while times.front() == Some(&ANSWERED) {
        times.pop_front();
        passed += 1;
    }
    Some((time, passed))
}
