//! The mesh as a whole: fairness, back-pressure, and the proof that no wake-up is lost.
//!
//! Three views of the last: every order of the real steps of `flush` and `park` on one thread; a
//! model with store buffers, where leaving out a fence or the second look is caught; and two
//! threads that sleep on a condition variable.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

fn pair<T: Send>(capacity: usize) -> (Port<T>, Port<T>) {
    let mut ports = mesh(2, capacity);
    let second = ports.pop().unwrap();
    (ports.pop().unwrap(), second)
}

#[test]
fn messages_arrive_with_their_sender_and_in_order() {
    let mut ports = mesh(4, 8);
    for (from, port) in ports.iter_mut().enumerate() {
        for to in (0..4).filter(|to| *to != from) {
            for n in 0..3 {
                port.try_send(to, (from, to, n)).unwrap();
            }
        }
        assert!(port.flush().is_empty(), "nobody sleeps");
    }
    for (shard, port) in ports.iter_mut().enumerate() {
        let mut seen: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
        let count = port.poll(usize::MAX, |sender, (from, to, n)| {
            assert_eq!((sender, shard), (from, to));
            seen.entry(from).or_default().push(n);
        });
        assert_eq!(count, 9);
        assert!(seen.values().all(|order| *order == [0, 1, 2]), "{seen:?}");
        assert_eq!(seen.len(), 3);
        assert_eq!((port.stats().sent, port.stats().received), (9, 9));
    }
}

#[test]
fn a_busy_shard_does_not_starve_the_others() {
    let mut ports = mesh(3, 64);
    for n in 0..64 {
        ports[0].try_send(2, n).unwrap();
    }
    for n in 0..2 {
        ports[1].try_send(2, n).unwrap();
    }
    assert!(ports[0].flush().is_empty() && ports[1].flush().is_empty());
    let mut from_quiet = 0;
    assert_eq!(ports[2].poll(9, |from, _n| from_quiet += usize::from(from == 1)), 9);
    assert_eq!(from_quiet, 2);
    assert_eq!((ports[2].depth(0), ports[2].depth(1)), (57, 0));
    // One after the other, a shard in turn.
    for n in 0..2 {
        ports[1].try_send(2, n).unwrap();
    }
    assert!(ports[1].flush().is_empty());
    let order: Vec<usize> = (0..4).map(|_| ports[2].receive().unwrap().0).collect();
    assert!(order == [0, 1, 0, 1] || order == [1, 0, 1, 0], "{order:?}");
}

#[test]
fn a_full_ring_gives_the_message_back_and_credits_return() {
    let (mut a, mut b) = pair(4);
    for n in 0..4 {
        assert_eq!(a.credits(1), 4 - n);
        a.try_send(1, n).unwrap();
    }
    assert_eq!(a.try_send(1, 9), Err(9));
    assert!(a.flush().is_empty());
    assert_eq!(a.stats().refused, 1);
    assert!(a.park(), "full, and nobody made room");
    assert_eq!(b.poll(1, |_from, n| assert_eq!(n, 0)), 1);
    assert_eq!(b.flush(), [0], "the sender sleeps and waits for room");
    a.unpark();
    assert_eq!(a.try_send(1, 4), Ok(()));
    assert!(a.flush().is_empty());
    let mut rest = Vec::new();
    while let Some((from, n)) = b.receive() {
        assert_eq!(from, 0);
        rest.push(n);
    }
    assert_eq!(rest, [1, 2, 3, 4]);
    assert!(!b.park(), "slots were taken and not flushed");
    assert!(b.flush().is_empty());
    assert!(b.park());
}

#[test]
fn room_before_parking_is_noticed_once() {
    let (mut a, mut b) = pair(1);
    a.try_send(1, 0).unwrap();
    assert!(a.flush().is_empty());
    assert_eq!(a.try_send(1, 1), Err(1));
    assert_eq!(b.poll(8, |_from, _n| ()), 1);
    assert!(b.flush().is_empty(), "the sender is awake");
    assert!(!a.park(), "there is room: try again");
    assert!(a.park(), "said once; the sender may have given up");
}

#[test]
fn one_sleep_costs_one_doorbell() {
    let mut ports = mesh(3, 8);
    assert!(ports[2].park());
    ports[0].try_send(2, 0).unwrap();
    ports[1].try_send(2, 1).unwrap();
    assert_eq!(ports[0].flush(), [2]);
    assert!(ports[1].flush().is_empty(), "the first sender rings");
    ports[0].try_send(2, 2).unwrap();
    assert!(ports[0].flush().is_empty(), "it is being woken");
    ports[2].unpark();
    assert!(!ports[2].park(), "three messages wait");
    assert_eq!(ports[2].poll(8, |_from, _n| ()), 3);
    assert_eq!(ports[0].stats().doorbells + ports[1].stats().doorbells, 1);
}

#[test]
fn a_doorbell_that_failed_is_asked_for_again() {
    let (mut a, mut b) = pair(8);
    assert!(b.park());
    a.try_send(1, 0).unwrap();
    assert_eq!(a.flush(), [1]);
    a.retry_doorbell(1);
    assert!(!a.park(), "a doorbell is owed");
    assert_eq!(a.flush(), [1]);
    assert!(a.flush().is_empty());
    assert!(a.park());
    b.unpark();
    assert_eq!(b.poll(8, |_from, _n| ()), 1);
}

#[test]
fn unflushed_messages_keep_a_shard_awake_and_survive_their_sender() {
    let (mut a, mut b) = pair(8);
    a.try_send(1, 7).unwrap();
    assert!(!a.park());
    drop(a);
    assert_eq!(b.receive(), Some((0, 7)));
}

#[test]
fn messages_in_flight_are_dropped_once() {
    let alive = Arc::new(());
    let mut ports = mesh(3, 8);
    for (from, port) in ports.iter_mut().enumerate() {
        for to in (0..3).filter(|to| *to != from) {
            port.try_send(to, Arc::clone(&alive)).unwrap();
        }
    }
    assert!(ports[0].flush().is_empty());
    assert!(ports[1].receive().is_some());
    assert_eq!(Arc::strong_count(&alive), 6);
    drop(ports);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_mesh_of_one_has_nobody_to_talk_to() {
    let mut port = mesh::<()>(1, 8).pop().unwrap();
    assert!(port.flush().is_empty());
    assert_eq!(port.poll(8, |_from, ()| ()), 0);
    assert!(port.park());
    let send = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| port.try_send(0, ())));
    assert!(send.is_err());
}

/// Every order of `sender` and `receiver` steps, as a bit string: 0 sender, 1 receiver.
fn orders(sender: usize, receiver: usize) -> impl Iterator<Item = Vec<bool>> {
    let len = sender + receiver;
    (0_u32..1 << len)
        .filter(move |bits| bits.count_ones() as usize == receiver)
        .map(move |bits| (0..len).map(|k| bits >> k & 1 == 1).collect())
}

/// Plays the real steps in one order; `second_look` plants the bug when false. Whether the
/// receiver sleeps for ever on a message.
fn sleeps_on_a_message(order: &[bool], second_look: bool) -> bool {
    let (mut a, mut b) = pair(4);
    let (mut rung, mut asleep, mut got) = (false, false, 0);
    let (mut sender_step, mut receiver_step) = (0, 0);
    for receiver in order {
        if *receiver {
            match receiver_step {
                0 => got += b.poll(8, |_from, ()| ()),
                1 => b.announce(),
                _ if second_look && !b.is_quiet() => b.unpark(),
                _ => asleep = true,
            }
            receiver_step += 1;
        } else {
            match sender_step % 3 {
                0 => a.try_send(1, ()).unwrap(),
                1 => a.publish(),
                _ => {
                    a.find_sleepers();
                    rung |= !a.doorbells.is_empty();
                    a.doorbells.clear();
                }
            }
            sender_step += 1;
        }
    }
    asleep && !rung && got < sender_step / 3
}

#[test]
fn every_order_of_flush_and_park_wakes_the_receiver() {
    // Two messages in two flushes against one attempt to sleep.
    assert!(orders(6, 3).all(|order| !sleeps_on_a_message(&order, true)));
    let lost = orders(6, 3).filter(|order| sleeps_on_a_message(order, false)).count();
    assert!(lost > 0, "the planted bug must be caught");
}

#[test]
fn every_order_of_draining_and_parking_wakes_a_refused_sender() {
    // `a` was refused; it parks while `b` takes a message and flushes.
    for order in orders(3, 2) {
        let (mut a, mut b) = pair(1);
        a.try_send(1, ()).unwrap();
        assert!(a.flush().is_empty());
        assert_eq!(a.try_send(1, ()), Err(()));
        let (mut asleep, mut rung) = (false, false);
        let (mut b_step, mut a_step) = (0, 0);
        for parks in order {
            if parks {
                match a_step {
                    0 => a.announce(),
                    _ => asleep = a.is_quiet(),
                }
                a_step += 1;
            } else {
                match b_step {
                    0 => assert_eq!(b.poll(1, |_from, ()| ()), 1),
                    1 => b.publish(),
                    _ => {
                        b.find_sleepers();
                        rung = !b.doorbells.is_empty();
                    }
                }
                b_step += 1;
            }
        }
        assert!(!asleep || rung);
    }
}

/// The protocol on a machine with store buffers. Each thread's stores wait in its own buffer until
/// the machine, at any time, lets the oldest out; a fence waits until the buffer is empty; a thread
/// sees its own buffered stores. (Total store order, as on x86; the fences are what matters.)
mod model {
    use super::BTreeSet;

    #[derive(Clone, Copy)]
    pub(super) struct Variant {
        pub(super) second_look: bool,
        pub(super) receiver_fence: bool,
        pub(super) sender_fence: bool,
    }

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Cell {
        Tail,
        Parked,
    }

    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
    struct Machine {
        tail: u8,
        parked: bool,
        /// By thread: 0 the sender, 1 the receiver.
        buffers: [Vec<(Cell, u8)>; 2],
        sender_step: u8,
        sent: u8,
        receiver_step: u8,
        received: u8,
        rung: bool,
    }

    /// The sender's steps for one message, then the next.
    const SENDER_STEPS: u8 = 3;
    const MESSAGES: u8 = 2;
    /// Receiver: look, store the flag, fence, look again, sleep.
    const ASLEEP: u8 = 4;

    impl Machine {
        fn load(&self, thread: usize, cell: Cell) -> u8 {
            let own = self.buffers[thread].iter().rev().find(|(stored, _)| *stored == cell);
            own.map_or(
                match cell {
                    Cell::Tail => self.tail,
                    Cell::Parked => u8::from(self.parked),
                },
                |(_, value)| *value,
            )
        }

        fn store(&mut self, thread: usize, cell: Cell, value: u8) {
            self.buffers[thread].push((cell, value));
        }

        fn drain_one(&mut self, thread: usize) {
            let (cell, value) = self.buffers[thread].remove(0);
            match cell {
                Cell::Tail => self.tail = value,
                Cell::Parked => self.parked = value == 1,
            }
        }

        /// The sender's next step; none while it must wait or has finished.
        fn sender(&self, variant: Variant) -> Option<Self> {
            let mut next = self.clone();
            match self.sender_step {
                _ if self.sent == MESSAGES => return None,
                0 => next.store(0, Cell::Tail, self.sent + 1),
                1 if variant.sender_fence && !self.buffers[0].is_empty() => return None,
                1 => {}
                // Load, then an atomic swap, which empties the buffer first.
                _ if self.load(0, Cell::Parked) == 1 => {
                    if !self.buffers[0].is_empty() {
                        return None;
                    }
                    next.rung |= self.parked;
                    next.parked = false;
                }
                _ => {}
            }
            next.sender_step = (self.sender_step + 1) % SENDER_STEPS;
            next.sent += u8::from(next.sender_step == 0);
            Some(next)
        }

        /// The receiver's next step; none while it must wait or sleeps.
        fn receiver(&self, variant: Variant) -> Option<Self> {
            let mut next = self.clone();
            next.receiver_step += 1;
            match self.receiver_step {
                0 => next.received = self.load(1, Cell::Tail),
                1 => next.store(1, Cell::Parked, 1),
                2 if variant.receiver_fence && !self.buffers[1].is_empty() => return None,
                2 => {}
                3 if variant.second_look && self.load(1, Cell::Tail) != self.received => {
                    next.store(1, Cell::Parked, 0);
                    next.receiver_step = 0;
                }
                3 => {}
                _ if self.rung => {
                    next.rung = false;
                    next.store(1, Cell::Parked, 0);
                    next.receiver_step = 0;
                }
                _ => return None,
            }
            Some(next)
        }
    }

    /// Explores all reachable states: how many, and in how many the receiver sleeps on a message
    /// with nothing left that could wake it.
    pub(super) fn explore(variant: Variant) -> (usize, usize) {
        let mut seen = BTreeSet::from([Machine::default()]);
        let mut work = vec![Machine::default()];
        let mut lost = 0;
        while let Some(machine) = work.pop() {
            let mut nexts = Vec::new();
            nexts.extend(machine.sender(variant));
            nexts.extend(machine.receiver(variant));
            for thread in [0, 1] {
                if !machine.buffers[thread].is_empty() {
                    let mut next = machine.clone();
                    next.drain_one(thread);
                    nexts.push(next);
                }
            }
            let stuck = nexts.is_empty();
            if stuck {
                assert_eq!((machine.sent, machine.receiver_step), (MESSAGES, ASLEEP));
                lost += usize::from(machine.received < MESSAGES);
            }
            work.extend(nexts.into_iter().filter(|next| seen.insert(next.clone())));
        }
        (seen.len(), lost)
    }
}

#[test]
fn the_protocol_loses_no_wake_up_and_each_part_is_needed() {
    let whole = model::Variant { second_look: true, receiver_fence: true, sender_fence: true };
    let (states, lost) = model::explore(whole);
    assert!(states > 100, "{states} states: the model does not move");
    assert_eq!(lost, 0);
    for (name, broken) in [
        ("no second look", model::Variant { second_look: false, ..whole }),
        ("no fence in the receiver", model::Variant { receiver_fence: false, ..whole }),
        ("no fence in the sender", model::Variant { sender_fence: false, ..whole }),
    ] {
        assert!(model::explore(broken).1 > 0, "{name} must be caught");
    }
}

/// Stands in for the doorbell of a real ring.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    condition: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.condition.notify_one();
    }

    fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let limit = Duration::from_secs(20);
        let (mut rung, timeout) =
            self.condition.wait_timeout_while(rung, limit, |rung| !*rung).unwrap();
        assert!(!timeout.timed_out(), "a wake-up was lost");
        *rung = false;
    }
}

/// Sends `count` numbers to shard 1 and expects each of them back, sleeping whenever there is
/// nothing to do.
fn run_client(mut port: Port<u64>, bells: &[Bell; 2], count: u64, burst: u64) -> Stats {
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        port.poll(64, |_from, value| {
            assert_eq!(value, answered);
            answered += 1;
        });
        // A burst, then sleep until all of it came back: many sleeps on both sides.
        let end = (answered.div_ceil(burst) * burst + burst).min(count);
        while sent < end && port.try_send(1, sent).is_ok() {
            sent += 1;
        }
        port.flush().iter().for_each(|to| bells[*to].ring());
        if answered < count && port.park() {
            bells[0].wait();
            port.unpark();
        }
    }
    port.stats()
}

/// Sends everything back, holding on to at most one message while the way back is full.
fn run_echo(mut port: Port<u64>, bells: &[Bell; 2], count: u64) -> Stats {
    let (mut answered, mut held) = (0, None);
    while answered < count {
        while let Some(value) = held.take().or_else(|| port.receive().map(|(_from, value)| value)) {
            if let Err(value) = port.try_send(0, value) {
                held = Some(value);
                break;
            }
            answered += 1;
        }
        port.flush().iter().for_each(|to| bells[*to].ring());
        // A message in hand means that room is what we wait for; incoming messages do not count.
        let waits = if held.is_some() { port.credits(0) == 0 } else { true };
        if answered < count && waits && port.park() {
            bells[1].wait();
            port.unpark();
        }
    }
    port.stats()
}

#[test]
fn two_threads_sleep_and_wake_over_a_million_messages() {
    const COUNT: u64 = 1_000_000;
    for (capacity, burst, count) in [(64, 200, COUNT), (2, 3, 30_000)] {
        let (a, b) = pair(capacity);
        let bells = [Bell::default(), Bell::default()];
        let (client, echo) = std::thread::scope(|scope| {
            let echo = scope.spawn(|| run_echo(b, &bells, count));
            (run_client(a, &bells, count, burst), echo.join().unwrap())
        });
        assert_eq!((client.sent, client.received), (count, count));
        assert_eq!((echo.sent, echo.received), (count, count));
        assert!(client.refused > 0, "the ring was never full");
        assert!(client.parks > 0 && echo.parks > 0, "nobody slept: {client:?} {echo:?}");
    }
}
