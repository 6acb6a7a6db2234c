//! Sends whose success posts no completion.
//!
//! A send that may not wait (MSG_DONTWAIT) and must be whole (MSG_WAITALL) is over when the enter
//! that submits it returns, and with IOSQE_CQE_SKIP_SUCCESS posts a completion only when something
//! is missing. So whatever was submitted and has none went out: the ring need not tell, and a
//! sleep is not ended by the replies that were sent on the way into it.
//!
//! Invariants: an operation is called a success only when it was submitted and every completion
//! posted so far was seen. Source: io_send() and req_set_fail() in Linux 6.1 and later.

use io_uring::cqueue;

use crate::driver::OpId;

/// Marks their completions, which all tell of a failure.
pub(super) const TAG_NOW: u64 = 0x01 << 56;

/// Those in flight, with their lengths, and those that are over.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    queued: Vec<(OpId, u32)>,
    sent: Vec<(OpId, u32)>,
    next: usize,
}

impl Quiet {
    pub(super) fn queue(&mut self, op: OpId, len: u32) {
        self.queued.push((op, len));
    }

    /// Whether nothing waits to be settled.
    pub(super) const fn is_settled(&self) -> bool {
        self.queued.is_empty()
    }

    /// Whether there are successes not handed out yet.
    pub(super) const fn has_sent(&self) -> bool {
        self.next < self.sent.len()
    }

    /// All that were queued have been submitted, and `reaped` holds all completions since.
    pub(super) fn settle(&mut self, reaped: &[cqueue::Entry]) {
        self.sent.clear();
        self.next = 0;
        std::mem::swap(&mut self.queued, &mut self.sent);
        for entry in reaped.iter().filter(|entry| is_failure(entry.user_data())) {
            let failed = OpId(entry.user_data() & !TAG_NOW);
            self.sent.retain(|(op, _)| *op != failed);
        }
    }

    /// The next success.
    pub(super) fn next(&mut self) -> Option<(OpId, u32)> {
        let sent = self.sent.get(self.next).copied();
        self.next += usize::from(sent.is_some());
        sent
    }
}

const fn is_failure(user_data: u64) -> bool {
    user_data >> 56 == TAG_NOW >> 56
}
