//! Operations that wait for their time, so that those of others need not wait for them.
//!
//! Invariants: at most [`WAITING_MAX`] wait, and what is more waits in the thread that received it; all are done at once when the
//! fault ends.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::time::monotonic_ns;

/// Each holds a request, of a megabyte at most.
const WAITING_MAX: usize = 1024;
/// What waited may take a while itself.
const THREADS: usize = 8;

/// Longer than any fault.
const IDLE_NS: u64 = 1 << 42;

type Job = Box<dyn FnOnce() + Send>;

struct Waiting {
    due_ns: u64,
    number: u64,
    job: Job,
}

impl Waiting {
    const fn key(&self) -> (u64, u64) {
        (self.due_ns, self.number)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[derive(Default)]
struct Queue {
    waiting: BinaryHeap<Reverse<Waiting>>,
    number: u64,
    is_over: bool,
}

/// What waits.
#[derive(Clone, Default)]
pub(super) struct Later(Arc<(Mutex<Queue>, Condvar)>);

impl Later {
    /// With threads that do it.
    pub(super) fn start() -> Self {
        let later = Self::default();
        for _ in 0..THREADS {
            let later = later.clone();
            std::thread::spawn(move || later.work());
        }
        later
    }

    /// Does something at a time, of CLOCK_MONOTONIC.
    pub(super) fn at(&self, due_ns: u64, job: impl FnOnce() + Send + 'static) {
        let (lock, more) = &*self.0;
        let mut queue = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_over || queue.waiting.len() >= WAITING_MAX {
            let wait = if queue.is_over { 0 } else { due_ns.saturating_sub(monotonic_ns()) };
            drop(queue);
            std::thread::sleep(Duration::from_nanos(wait));
            return job();
        }
        queue.number += 1;
        let number = queue.number;
        queue.waiting.push(Reverse(Waiting { due_ns, number, job: Box::new(job) }));
        drop(queue);
        more.notify_one();
    }

    /// Nothing waits any more.
    pub(super) fn end(&self) {
        let (lock, more) = &*self.0;
        lock.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        more.notify_all();
    }

    fn work(&self) {
        let (lock, more) = &*self.0;
        let mut queue = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now_ns = monotonic_ns();
            let left_ns = match queue.waiting.peek() {
                None if queue.is_over => return,
                None => u64::MAX,
                Some(_) if queue.is_over => 0,
                Some(Reverse(first)) => first.due_ns.saturating_sub(now_ns),
            };
            if left_ns > 0 {
                let wait = Duration::from_nanos(left_ns.min(IDLE_NS));
                queue = more
                    .wait_timeout(queue, wait)
                    .map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue);
                continue;
            }
            let Some(Reverse(first)) = queue.waiting.pop() else { continue };
            drop(queue);
            (first.job)();
            queue = lock.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_is_done_at_its_time_and_all_at_the_end() {
        let later = Later::start();
        let (done, told) = channel();
        let begin = Instant::now();
        for (name, ms) in [("late", 40), ("soon", 10), ("never", 3_600_000)] {
            let done = done.clone();
            later
                .at(monotonic_ns() + ms * 1_000_000, move || done.send(name).expect("it is heard"));
        }
        assert_eq!(told.recv(), Ok("soon"));
        assert!(begin.elapsed() >= Duration::from_millis(10));
        assert_eq!(told.recv(), Ok("late"));
        assert!(begin.elapsed() >= Duration::from_millis(40));
        later.end();
        assert_eq!(told.recv(), Ok("never"));
        let later_done = done.clone();
        later.at(u64::MAX, move || later_done.send("at once").expect("it is heard"));
        assert_eq!(told.recv(), Ok("at once"));
    }
}
