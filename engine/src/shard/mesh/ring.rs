//! One bounded single-producer single-consumer ring: the wire between an ordered pair of shards.
//!
//! Why: a message costs one slot write and one slot read; the shared indexes are touched once per
//! batch, because each side keeps its own position and a cached copy of the other's.
//!
//! Invariants, with `head` and `tail` counting messages for ever and wrapping:
//! - `head <= consumer position <= tail <= producer position <= head + capacity`;
//! - slots in `head..producer position` are initialised, all others are not;
//! - only the producer writes slots and `tail`, only the consumer reads slots and writes `head`.
//!
//! Next: `super` puts one ring between every ordered pair of shards.

#![expect(unsafe_code, reason = "slots are handed from one thread to the other by index alone")]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The largest ring, in messages.
pub const CAPACITY_MAX: usize = 1 << 20;

/// Two cache lines: the adjacent-line prefetcher pulls pairs, so 64 bytes would still be shared.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

struct Shared<T> {
    /// Published by the producer.
    tail: Padded<AtomicUsize>,
    /// Released by the consumer.
    head: Padded<AtomicUsize>,
    /// The producer was refused and wants to hear of room.
    starved: Padded<AtomicBool>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the one `Producer` and the one `Consumer` never touch the same slot at the same time:
// ownership of a slot passes with the release store and acquire load of `tail` and `head`. Values
// cross threads, hence `T: Send`; nothing hands out `&T` to both, so `T: Sync` is not needed.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> *mut MaybeUninit<T> {
        self.slots[position & (self.slots.len() - 1)].get()
    }

    fn write(&self, position: usize, value: T) {
        let slot = self.slot(position);
        // SAFETY: the caller is the only producer and `position` is its own, below
        // `head + capacity`: the consumer has left this slot and does not look at it before the
        // next publication of `tail`. The pointer comes from a live `UnsafeCell`.
        unsafe { slot.write(MaybeUninit::new(value)) };
    }

    fn take(&self, position: usize) -> T {
        let slot = self.slot(position);
        // SAFETY: the caller is the only consumer (or the last owner, in `drop`) and `position`
        // is below the `tail` it acquired: the producer does not touch the slot until `head` has
        // passed it. The pointer comes from a live `UnsafeCell`.
        let value = unsafe { slot.read() };
        // SAFETY: positions in `head..tail` are initialised, and the caller moves its own position
        // past this one, so the value is taken once.
        unsafe { value.assume_init() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends published their positions when they were dropped.
        let tail = *self.tail.0.get_mut();
        let mut head = *self.head.0.get_mut();
        while head != tail {
            drop(self.take(head));
            head = head.wrapping_add(1);
        }
    }
}

/// A ring for at least `capacity` messages, rounded up to a power of two.
///
/// # Panics
/// If `capacity` is zero or above [`CAPACITY_MAX`].
#[must_use]
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    ring_at(capacity, 0)
}

/// A ring whose positions start at `start`: lets a test cross the wrap of `usize`.
fn ring_at<T: Send>(capacity: usize, start: usize) -> (Producer<T>, Consumer<T>) {
    assert!(
        (1..=CAPACITY_MAX).contains(&capacity),
        "ring of {capacity} messages: 1 to {CAPACITY_MAX}"
    );
    let len = capacity.next_power_of_two();
    let shared = Arc::new(Shared {
        tail: Padded(AtomicUsize::new(start)),
        head: Padded(AtomicUsize::new(start)),
        starved: Padded(AtomicBool::new(false)),
        slots: (0..len).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer =
        Producer { shared: Arc::clone(&shared), position: start, published: start, head: start };
    let consumer = Consumer { shared, position: start, released: start, tail: start };
    (producer, consumer)
}

/// The sending end of a [`ring`].
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Where the next message goes.
    position: usize,
    /// The last `tail` stored.
    published: usize,
    /// The last `head` seen.
    head: usize,
}

impl<T> Producer<T> {
    /// Appends `value`; the consumer sees it after [`Producer::publish`].
    ///
    /// # Errors
    /// Gives `value` back when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.position.wrapping_sub(self.head) == self.capacity() && self.credits() == 0 {
            return Err(value);
        }
        self.shared.write(self.position, value);
        self.position = self.position.wrapping_add(1);
        Ok(())
    }

    /// Makes everything pushed so far visible. Whether there was anything new.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let news = self.position != self.published;
        if news {
            self.shared.tail.0.store(self.position, Ordering::Release);
            self.published = self.position;
        }
        news
    }

    /// How many messages fit now. Looks at the consumer's position.
    #[inline]
    pub fn credits(&mut self) -> usize {
        self.head = self.shared.head.0.load(Ordering::Acquire);
        self.capacity() - self.position.wrapping_sub(self.head)
    }

    /// How many messages fit in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Whether the other end is gone: nothing sent from now on is received.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Asks the consumer to tell when it releases slots.
    pub(super) fn starve(&self) {
        self.shared.starved.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // What was pushed is received, or dropped with the ring.
        self.publish();
    }
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The receiving end of a [`ring`].
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The next message to take.
    position: usize,
    /// The last `head` stored.
    released: usize,
    /// The last `tail` seen.
    tail: usize,
}

impl<T> Consumer<T> {
    /// Takes the oldest message. Its slot is free for the producer after [`Consumer::release`].
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.position == self.tail && self.is_empty() {
            return None;
        }
        let value = self.shared.take(self.position);
        self.position = self.position.wrapping_add(1);
        Some(value)
    }

    /// Takes up to `max` messages and releases their slots at once. How many there were.
    #[inline]
    pub fn pop_batch(&mut self, max: usize, mut f: impl FnMut(T)) -> usize {
        let mut count = 0;
        while count < max {
            let Some(value) = self.pop() else { break };
            f(value);
            count += 1;
        }
        self.release();
        count
    }

    /// Gives the slots of all messages taken so far back. Whether there were any.
    #[inline]
    pub fn release(&mut self) -> bool {
        let news = self.position != self.released;
        if news {
            self.shared.head.0.store(self.position, Ordering::Release);
            self.released = self.position;
        }
        news
    }

    /// Whether nothing can be taken. Looks at the producer's position.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// How many messages can be taken. Looks at the producer's position.
    #[inline]
    pub fn len(&mut self) -> usize {
        self.tail = self.shared.tail.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.position)
    }

    /// Messages taken whose slots were not given back.
    pub(super) const fn unreleased(&self) -> usize {
        self.position.wrapping_sub(self.released)
    }

    /// Whether the producer asked to hear of room since the last call.
    pub(super) fn take_starved(&self) -> bool {
        self.shared.starved.0.load(Ordering::Relaxed)
            && self.shared.starved.0.swap(false, Ordering::AcqRel)
    }

    /// How many messages fit in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Whether the other end is gone and everything was taken.
    #[must_use]
    pub fn is_closed(&mut self) -> bool {
        // In this order: the producer publishes before it lets go.
        Arc::strong_count(&self.shared) == 1 && {
            std::sync::atomic::fence(Ordering::Acquire);
            self.is_empty()
        }
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("position", &self.position).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Publish,
        Pop,
        Batch(usize),
        Release,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Push),
            2 => Just(Step::Publish),
            4 => Just(Step::Pop),
            1 => (0_usize..6).prop_map(Step::Batch),
            1 => Just(Step::Release),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// Runs `steps` on a ring and on two queues: pushed but not visible, and visible.
    fn check(capacity: usize, start: usize, steps: &[Step]) {
        let (mut producer, mut consumer) = ring_at::<Box<u64>>(capacity, start);
        let room = capacity.next_power_of_two();
        let (mut hidden, mut visible) = (VecDeque::new(), VecDeque::new());
        let (mut unreleased, mut next) = (0, 0_u64);
        for step in steps {
            match step {
                Step::Push => {
                    let fits = hidden.len() + visible.len() + unreleased < room;
                    assert_eq!(producer.push(Box::new(next)).is_ok(), fits);
                    if fits {
                        hidden.push_back(next);
                    }
                    next += 1;
                }
                Step::Publish => {
                    assert_eq!(producer.publish(), !hidden.is_empty());
                    visible.append(&mut hidden);
                }
                Step::Pop => {
                    let expected = visible.pop_front();
                    unreleased += usize::from(expected.is_some());
                    assert_eq!(consumer.pop().map(|boxed| *boxed), expected);
                }
                Step::Batch(max) => {
                    let expected: Vec<u64> = visible.drain(..visible.len().min(*max)).collect();
                    let mut got = Vec::new();
                    consumer.pop_batch(*max, |boxed| got.push(*boxed));
                    assert_eq!(got, expected);
                    unreleased = 0;
                }
                Step::Release => {
                    assert_eq!(consumer.release(), unreleased > 0);
                    unreleased = 0;
                }
            }
            assert_eq!(consumer.len(), visible.len());
            assert_eq!(producer.credits(), room - hidden.len() - visible.len() - unreleased);
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue(capacity in 1_usize..9, steps in steps()) {
            check(capacity, 0, &steps);
        }

        #[test]
        fn positions_may_wrap(capacity in 1_usize..9, before in 0_usize..40, steps in steps()) {
            check(capacity, 0_usize.wrapping_sub(before), &steps);
        }
    }

    #[test]
    fn full_at_capacity_and_not_before() {
        let (mut producer, mut consumer) = ring(4);
        for value in 0..4 {
            assert_eq!(producer.push(value), Ok(()));
        }
        assert_eq!(producer.push(4), Err(4));
        assert_eq!(consumer.pop(), None, "not published");
        producer.publish();
        assert_eq!(consumer.pop(), Some(0));
        assert_eq!(producer.push(4), Err(4), "not released");
        consumer.release();
        assert_eq!(producer.push(4), Ok(()));
    }

    #[test]
    fn messages_in_flight_are_dropped_once() {
        for producer_first in [false, true] {
            let alive = Arc::new(());
            let (mut producer, mut consumer) = ring(8);
            for _ in 0..5 {
                producer.push(Arc::clone(&alive)).unwrap();
            }
            producer.publish();
            producer.push(Arc::clone(&alive)).unwrap();
            drop(consumer.pop());
            assert_eq!(Arc::strong_count(&alive), 6, "five in the ring and ours");
            if producer_first {
                drop(producer);
                assert!(!consumer.is_closed(), "five messages are left");
                assert_eq!(consumer.len(), 5);
                drop(consumer);
            } else {
                drop(consumer);
                assert!(producer.is_closed());
                drop(producer);
            }
            assert_eq!(Arc::strong_count(&alive), 1);
        }
    }

    #[test]
    fn a_panicking_receiver_takes_its_message_with_it() {
        let alive = Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        for _ in 0..3 {
            producer.push(Arc::clone(&alive)).unwrap();
        }
        producer.publish();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            consumer.pop_batch(3, |_message| panic!("the handler failed"));
        }));
        assert!(result.is_err());
        assert_eq!(Arc::strong_count(&alive), 3, "two are left");
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn a_million_messages_cross_threads_in_order() {
        const COUNT: u64 = 1_000_000;
        let (mut producer, mut consumer) = ring(256);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = 0;
                while next < COUNT {
                    for _ in 0..50 {
                        if next < COUNT && producer.push(next).is_ok() {
                            next += 1;
                        }
                    }
                    producer.publish();
                    if producer.credits() == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < COUNT {
                let count = consumer.pop_batch(64, |value| {
                    assert_eq!(value, expected);
                    expected += 1;
                });
                if count == 0 {
                    std::thread::yield_now();
                }
            }
        });
    }
}
