//! What reads ahead owe to syncs: whoever waits for a sync waits for the disk alone, a reader of what is long on
//! disk can wait a little longer.
//!
//! A disk that is kept full by reads makes each sync wait for those before it: where a sync alone took 0.17 ms, it took 0.6 beside one
//! reader of 512 KiB at a time and 2.3 beside two (decision 0009). So while there are syncs, reads ahead are short, and begin
//! only when no sync is in flight. Invariant: a read ahead waits for at most [`WAIT_MAX_NS`], however many syncs
//! there are. Next: `fs::send`, whose reads are so patient.

use std::cell::Cell;

use crate::exec::sync::{Notify, within, yield_now};
use crate::shard::ShardCx;

/// The disk counts as busy with syncs for so long after one.
const BUSY_NS: u64 = 10_000_000;
/// Longest wait of a read.
const WAIT_MAX_NS: u64 = 2_000_000;

/// Syncs of a shard's files.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    in_flight: Cell<u32>,
    /// When the last one ended.
    ended_ns: Cell<Option<u64>>,
    idle: Notify,
}

/// A sync in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Syncing<'a>(&'a ShardCx);

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        let disk = self.0.disk();
        disk.in_flight.set(disk.in_flight.get() - 1);
        if disk.in_flight.get() == 0 {
            disk.ended_ns.set(Some(self.0.now().mono_ns));
            disk.idle.notify_all();
        }
    }
}

impl Disk {
    /// A sync begins.
    pub(crate) fn sync(cx: &ShardCx) -> Syncing<'_> {
        let disk = cx.disk();
        disk.in_flight.set(disk.in_flight.get() + 1);
        Syncing(cx)
    }

    /// Whether there are syncs now, or were a moment ago.
    pub(crate) fn is_busy(&self, now_ns: u64) -> bool {
        let recent = |ended_ns: u64| now_ns.saturating_sub(ended_ns) < BUSY_NS;
        self.in_flight.get() > 0 || self.ended_ns.get().is_some_and(recent)
    }

    /// Waits until no sync is in flight, or long enough.
    pub(crate) async fn let_syncs_pass(&self, cx: &ShardCx) {
        let deadline_ns = cx.now().mono_ns.saturating_add(WAIT_MAX_NS);
        while self.in_flight.get() > 0 {
            if within(self.idle.notified(), cx.sleep_until(deadline_ns)).await.is_none() {
                return;
            }
            // Whoever waited for that sync may begin the next one at once.
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::sim::{Faults, World};
    use crate::fs::testing::in_world;

    #[test]
    fn a_read_waits_for_syncs_but_not_for_ever() {
        let world = World::new(1, Faults::none());
        let done = in_world(&world, 10_000, |cx| async move {
            let disk = cx.disk();
            assert!(!disk.is_busy(cx.now().mono_ns));
            let before_ns = cx.now().mono_ns;
            disk.let_syncs_pass(&cx).await;
            assert_eq!(cx.now().mono_ns, before_ns, "no sync, no wait");

            let syncing = Disk::sync(&cx);
            assert!(disk.is_busy(cx.now().mono_ns));
            disk.let_syncs_pass(&cx).await;
            let waited_ns = cx.now().mono_ns - before_ns;
            assert!(waited_ns >= WAIT_MAX_NS, "{waited_ns}");

            drop(syncing);
            assert!(disk.is_busy(cx.now().mono_ns), "a moment ago");
            cx.sleep(BUSY_NS).await;
            assert!(!disk.is_busy(cx.now().mono_ns));
        });
        assert!(done);
    }
}
