//! The timer wheel: every timeout of a shard, in user space.
//!
//! Why: connections, leases and retries set and cancel timers far more often than one fires, so
//! both cost a few list operations, and the kernel sees one timeout per shard: the next deadline.
//!
//! Nine levels of 64 slots. A slot of level 0 is one tick of 1.024 µs, a slot of level `l` is
//! 64^l ticks; together they cover all of `u64` nanoseconds. A timer sits at the level of the
//! highest base-64 digit in which its tick differs from the wheel's, and moves down as that digit
//! comes up: at most eight moves in its life, and none if it is cancelled first.
//!
//! Invariants:
//! - a timer never fires before its deadline, and at most one tick after it is due and asked for;
//! - at level `l` all digits above `l` equal the wheel's and digit `l` is larger, except in the
//!   one slot that is being moved down (`moving`);
//! - timers fire in the order of their ticks;
//! - one call of [`Wheel::advance`] does a bounded amount of work.
//!
//! Next: the executor keeps a task or connection in `key`.

use std::fmt;

/// Ticks are 2^10 ns.
const TICK_SHIFT: u32 = 10;
/// Slots per level are 2^6.
const SLOT_SHIFT: u32 = 6;
const SLOTS: usize = 1 << SLOT_SHIFT;
/// 9 × 6 bits hold the 54 bits of the largest tick.
const LEVELS: usize = 9;
/// Not in any list.
const NONE: u32 = u32::MAX;
/// `Timer::place` of timers that are due.
const DUE: u16 = (LEVELS * SLOTS) as u16;
/// `Timer::place` of free slab entries.
const FREE: u16 = u16::MAX;
/// [`Wheel::next_deadline`] looks at this many timers of a coarse slot before it settles for the
/// slot's start.
const SCAN_MAX: usize = 16;
/// Moves between levels an advance may make beyond one per timer it may fire.
const MOVES_MIN: usize = 64;

/// The largest number of timers.
pub const TIMERS_MAX: usize = (NONE - 1) as usize;

/// Names one timer of one [`Wheel`]; worthless after it fired or was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

impl fmt::Debug for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimerId({}/{})", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Timer {
    key: u64,
    tick: u64,
    next: u32,
    previous: u32,
    generation: u32,
    /// Level × 64 + slot, [`DUE`] or [`FREE`].
    place: u16,
}

/// A first-in-first-out list through `Timer::next` and `Timer::previous`.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List { head: NONE, tail: NONE };

/// All timers of one shard.
pub struct Wheel {
    timers: Vec<Timer>,
    /// Head of the free entries, linked through `Timer::next`.
    free: u32,
    len: usize,
    /// Everything up to and including this tick has been looked at.
    elapsed: u64,
    /// Per level, a bit for every slot that holds timers.
    occupied: [u64; LEVELS],
    /// By place; the last one holds the timers that are due.
    lists: Box<[List]>,
    /// The level of the slot that is being moved down, if a budget ended in the middle of it.
    moving: Option<usize>,
}

impl fmt::Debug for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Wheel {
    /// An empty wheel at time `now_ns`.
    #[must_use]
    pub fn new(now_ns: u64) -> Self {
        Self {
            timers: Vec::new(),
            free: NONE,
            len: 0,
            elapsed: now_ns >> TICK_SHIFT,
            occupied: [0; LEVELS],
            lists: vec![EMPTY; LEVELS * SLOTS + 1].into(),
            moving: None,
        }
    }

    /// Timers that are set.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer: from `deadline_ns` on, rounded up to a tick, [`Wheel::advance`] hands out
    /// `key`. A deadline in the past is due at once. Allocates only when more timers are set than
    /// ever before.
    ///
    /// # Panics
    /// With more than [`TIMERS_MAX`] timers.
    pub fn insert(&mut self, deadline_ns: u64, key: u64) -> TimerId {
        let tick = tick_after(deadline_ns);
        let index = self.allocate(key, tick);
        self.place(index);
        self.len += 1;
        TimerId { index, generation: self.timers[index as usize].generation }
    }

    /// Takes a timer back. `false` when it fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        let Some(timer) = self.timers.get(id.index as usize) else {
            return false;
        };
        if timer.generation != id.generation || timer.place == FREE {
            return false;
        }
        self.unlink(id.index);
        self.release(id.index);
        true
    }

    /// When to call [`Wheel::advance`] next: the earliest deadline, rounded up to a tick. When many
    /// timers share a coarse slot it may be earlier than that, never later.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        if self.moving.is_some() || self.lists[usize::from(DUE)].head != NONE {
            return Some(self.elapsed << TICK_SHIFT);
        }
        let (level, slot, start) = self.next_slot()?;
        if level == 0 {
            return Some(start << TICK_SHIFT);
        }
        let mut index = self.lists[level * SLOTS + slot].head;
        let mut earliest = u64::MAX;
        for _ in 0..SCAN_MAX {
            let timer = &self.timers[index as usize];
            earliest = earliest.min(timer.tick);
            index = timer.next;
            if index == NONE {
                return Some(earliest << TICK_SHIFT);
            }
        }
        Some(start << TICK_SHIFT)
    }

    /// Moves the wheel to `now_ns` and hands the keys of due timers to `fire`, at most `max` of
    /// them. Returns how many; when more are due, [`Wheel::next_deadline`] is not after `now_ns`.
    pub fn advance(&mut self, now_ns: u64, max: usize, mut fire: impl FnMut(u64)) -> usize {
        let now = now_ns >> TICK_SHIFT;
        let mut fired = 0;
        let mut moves = max.saturating_add(MOVES_MIN);
        while fired < max {
            if let Some(level) = self.moving {
                if moves == 0 {
                    break;
                }
                moves -= 1;
                self.move_down(level);
            } else if let Some(key) = self.take_due() {
                fired += 1;
                fire(key);
            } else {
                match self.next_slot() {
                    Some((level, slot, start)) if start <= now => {
                        self.elapsed = start;
                        self.open(level, slot);
                    }
                    _ => {
                        self.elapsed = self.elapsed.max(now);
                        break;
                    }
                }
            }
        }
        fired
    }

    /// The occupied slot that comes up first, with its first tick. The lowest level is the nearest.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = SLOT_SHIFT * level as u32;
        // Digits above the level are the wheel's, the level's is the slot, those below are zero.
        let above = self.elapsed >> shift >> SLOT_SHIFT << SLOT_SHIFT;
        Some((level, slot, (above | slot as u64) << shift))
    }

    /// The wheel has reached `slot`: its timers become due, or start to move down.
    fn open(&mut self, level: usize, slot: usize) {
        if level > 0 {
            self.moving = Some(level);
            return;
        }
        self.occupied[0] &= !(1 << slot);
        // The whole list changes place at once; its timers keep the old one, see `is_due`.
        let list = std::mem::replace(&mut self.lists[slot], EMPTY);
        debug_assert_eq!(self.lists[usize::from(DUE)].head, NONE, "due timers fire first");
        self.lists[usize::from(DUE)] = list;
    }

    /// Moves one timer out of the slot that is being moved down.
    fn move_down(&mut self, level: usize) {
        let shift = SLOT_SHIFT * level as u32;
        let slot = (self.elapsed >> shift) as usize & (SLOTS - 1);
        let index = self.lists[level * SLOTS + slot].head;
        if index != NONE {
            self.unlink(index);
            self.place(index);
        }
        if self.lists[level * SLOTS + slot].head == NONE {
            self.moving = None;
        }
    }

    fn take_due(&mut self) -> Option<u64> {
        let index = self.lists[usize::from(DUE)].head;
        if index == NONE {
            return None;
        }
        self.unlink(index);
        let key = self.timers[index as usize].key;
        self.release(index);
        Some(key)
    }

    /// Puts an unlinked timer where its tick belongs, seen from `elapsed`.
    fn place(&mut self, index: u32) {
        let tick = self.timers[index as usize].tick;
        if tick <= self.elapsed {
            self.link(index, DUE);
            return;
        }
        let level = (u64::BITS - 1 - (tick ^ self.elapsed).leading_zeros()) / SLOT_SHIFT;
        let slot = (tick >> (SLOT_SHIFT * level)) & (SLOTS as u64 - 1);
        self.occupied[level as usize] |= 1 << slot;
        self.link(index, level as u16 * SLOTS as u16 + slot as u16);
    }

    fn link(&mut self, index: u32, place: u16) {
        let list = &mut self.lists[usize::from(place)];
        let previous = std::mem::replace(&mut list.tail, index);
        if previous == NONE {
            list.head = index;
        } else {
            self.timers[previous as usize].next = index;
        }
        let timer = &mut self.timers[index as usize];
        (timer.previous, timer.next, timer.place) = (previous, NONE, place);
    }

    fn unlink(&mut self, index: u32) {
        let Timer { previous, next, place, .. } = self.timers[index as usize];
        let place = if self.is_due(index, place) { DUE } else { place };
        if previous == NONE {
            self.lists[usize::from(place)].head = next;
        } else {
            self.timers[previous as usize].next = next;
        }
        if next == NONE {
            self.lists[usize::from(place)].tail = previous;
        } else {
            self.timers[next as usize].previous = previous;
        }
        if place != DUE && self.lists[usize::from(place)].head == NONE {
            let (level, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
            self.occupied[level] &= !(1 << slot);
            if self.moving == Some(level) && self.moving_place() == usize::from(place) {
                self.moving = None;
            }
        }
    }

    /// The slot that is being moved down; only meaningful while `moving` is set.
    fn moving_place(&self) -> usize {
        let level = self.moving.unwrap_or(0);
        let slot = (self.elapsed >> (SLOT_SHIFT * level as u32)) as usize & (SLOTS - 1);
        level * SLOTS + slot
    }

    /// Whether the timer is in the due list: put there, or with its whole slot of level 0, which
    /// leaves its level when the wheel reaches its one tick.
    fn is_due(&self, index: u32, place: u16) -> bool {
        place == DUE
            || (usize::from(place) < SLOTS && self.timers[index as usize].tick <= self.elapsed)
    }

    fn allocate(&mut self, key: u64, tick: u64) -> u32 {
        if self.free == NONE {
            assert!(self.timers.len() < TIMERS_MAX, "more than {TIMERS_MAX} timers");
            let timer = Timer { key, tick, next: NONE, previous: NONE, generation: 0, place: FREE };
            self.timers.push(timer);
            return (self.timers.len() - 1) as u32;
        }
        let index = self.free;
        let timer = &mut self.timers[index as usize];
        self.free = timer.next;
        (timer.key, timer.tick) = (key, tick);
        index
    }

    fn release(&mut self, index: u32) {
        let timer = &mut self.timers[index as usize];
        timer.generation = timer.generation.wrapping_add(1);
        (timer.place, timer.next) = (FREE, self.free);
        self.free = index;
        self.len -= 1;
    }
}

/// The first tick that does not begin before `ns`; within the last tick of time, that one.
const fn tick_after(ns: u64) -> u64 {
    match ns.checked_add((1 << TICK_SHIFT) - 1) {
        Some(end) => end >> TICK_SHIFT,
        None => u64::MAX >> TICK_SHIFT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Advances without a bound and returns the keys in order.
    fn fire(wheel: &mut Wheel, now_ns: u64) -> Vec<u64> {
        let mut keys = Vec::new();
        wheel.advance(now_ns, usize::MAX, |key| keys.push(key));
        keys
    }

    #[test]
    fn fires_in_order_and_never_early() {
        let mut wheel = Wheel::new(5_000);
        for (key, deadline) in [(1, 1_000_000_000), (2, 10_000), (3, 86_400_000_000_000), (4, 0)] {
            wheel.insert(deadline, key);
        }
        assert_eq!(wheel.next_deadline(), Some(5_000 >> 10 << 10));
        assert_eq!(fire(&mut wheel, 5_000), [4]);
        assert_eq!(wheel.next_deadline(), Some(10_240));
        assert_eq!(fire(&mut wheel, 10_239), []);
        assert_eq!(fire(&mut wheel, 10_240), [2]);
        assert_eq!(fire(&mut wheel, 999_999_999), []);
        assert_eq!(fire(&mut wheel, u64::MAX), [1, 3]);
        assert_eq!((wheel.len(), wheel.next_deadline()), (0, None));
    }

    #[test]
    fn an_id_is_good_for_one_timer() {
        let mut wheel = Wheel::new(0);
        let first = wheel.insert(5_000, 1);
        assert!(wheel.cancel(first));
        assert!(!wheel.cancel(first));
        let second = wheel.insert(5_000, 2);
        assert_ne!(first, second);
        assert!(!wheel.cancel(first), "the slot is reused, the id is not");
        assert_eq!(fire(&mut wheel, 6_000), [2]);
        assert!(!wheel.cancel(second));
        assert!(!Wheel::new(0).cancel(second), "an id of another wheel");
    }

    #[test]
    fn a_lone_timer_needs_one_wake_up() {
        for deadline in [1, 70_000, 1_000_000, 300_000_000_000, 10 * 86_400_000_000_000_u64] {
            let mut wheel = Wheel::new(123_456);
            wheel.insert(123_456 + deadline, 1);
            let next = wheel.next_deadline().unwrap();
            assert!((deadline..deadline + 1024).contains(&(next - 123_456)), "{deadline}: {next}");
            assert_eq!(fire(&mut wheel, next), [1]);
        }
    }

    #[test]
    fn deadlines_at_the_end_of_time_are_kept() {
        let mut wheel = Wheel::new(u64::MAX - 10_000_000);
        wheel.insert(u64::MAX, 1);
        wheel.insert(u64::MAX - 5_000_000, 2);
        assert_eq!(fire(&mut wheel, u64::MAX - 1_024), [2]);
        assert_eq!(fire(&mut wheel, u64::MAX), [1]);
        let mut wheel = Wheel::new(0);
        let far = wheel.insert(u64::MAX, 3);
        assert_eq!(wheel.next_deadline(), Some(u64::MAX >> 10 << 10));
        assert!(wheel.cancel(far));
    }

    #[test]
    fn a_crowded_slot_is_moved_and_fired_in_bounded_steps() {
        let mut wheel = Wheel::new(0);
        let second = 1_000_000_000;
        let ids: Vec<TimerId> = (0..10_000).map(|k| wheel.insert(second + k * 50, k)).collect();
        // Every third is cancelled while its slot is on the move.
        let mut keys = Vec::new();
        assert_eq!(wheel.advance(2 * second, 10, |key| keys.push(key)), 0, "only moves");
        for id in ids.iter().skip(1).step_by(3) {
            assert!(wheel.cancel(*id));
        }
        let mut calls = 0;
        while wheel.next_deadline().is_some_and(|next| next <= 2 * second) {
            let before = keys.len();
            let count = wheel.advance(2 * second, 10, |key| keys.push(key));
            assert!(count <= 10 && count == keys.len() - before);
            calls += 1;
        }
        let expected: Vec<u64> = (0..10_000).filter(|k| k % 3 != 1).collect();
        assert_eq!(keys, expected, "after {calls} calls");
        assert!(wheel.is_empty());
    }

    #[test]
    fn slots_are_reused() {
        let mut wheel = Wheel::new(0);
        for round in 0..1_000_u64 {
            let ids: Vec<TimerId> =
                (0..8).map(|k| wheel.insert(round * 3_000 + k * 400, k)).collect();
            assert!(wheel.cancel(ids[(round % 8) as usize]) || round == 0);
            fire(&mut wheel, round * 3_000 + 5_000);
        }
        assert!(wheel.timers.len() <= 16, "{} entries", wheel.timers.len());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        Advance(u64, usize),
        /// Sleep until the next deadline.
        Sleep(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Distances of every magnitude, up to days.
        let distance = (0_u32..50, any::<u64>()).prop_map(|(bits, raw)| raw & ((1 << bits) - 1));
        let max = prop_oneof![1_usize..4, Just(1_000)];
        let step = prop_oneof![
            8 => distance.clone().prop_map(Step::Insert),
            3 => any::<usize>().prop_map(Step::Cancel),
            3 => (distance, max.clone()).prop_map(|(by, max)| Step::Advance(by, max)),
            3 => max.prop_map(Step::Sleep),
        ];
        prop::collection::vec(step, 0..300)
    }

    /// The wheel beside an ordered map from (tick, key).
    struct Model {
        wheel: Wheel,
        set: BTreeMap<(u64, u64), TimerId>,
        now_ns: u64,
        keys: u64,
    }

    impl Model {
        fn insert(&mut self, distance: u64) {
            let deadline = self.now_ns + distance;
            let id = self.wheel.insert(deadline, self.keys);
            self.set.insert((tick_after(deadline), self.keys), id);
            self.keys += 1;
        }

        fn advance(&mut self, max: usize) {
            let now_tick = self.now_ns >> TICK_SHIFT;
            let mut fired = Vec::new();
            let count = self.wheel.advance(self.now_ns, max, |key| fired.push(key));
            assert_eq!(count, fired.len());
            assert!(count <= max);
            for key in fired {
                let at = *self.set.keys().find(|(_tick, k)| *k == key).expect("set, once");
                assert!(at.0 <= now_tick, "{key} fired early");
                self.set.remove(&at);
            }
            let due = self.set.range(..(now_tick + 1, 0)).count();
            // Stopping short is allowed at the bound, or while a slot moves down.
            if count < max && due > 0 {
                assert!(self.wheel.moving.is_some(), "{due} due timers forgotten");
            }
            if due > 0 {
                assert!(self.wheel.next_deadline().unwrap() <= self.now_ns);
            }
        }

        fn check(&self) {
            assert_eq!(self.wheel.len(), self.set.len());
            let earliest = self.set.keys().next().map(|(tick, _key)| *tick << TICK_SHIFT);
            match (self.wheel.next_deadline(), earliest) {
                (None, None) => {}
                (Some(next), Some(earliest)) => {
                    assert!(next <= earliest.max(self.now_ns), "{next} is after {earliest}");
                }
                (next, earliest) => panic!("{next:?} against {earliest:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_map(start in 0_u64..1 << 40, steps in steps()) {
            let wheel = Wheel::new(start);
            let mut model = Model { wheel, set: BTreeMap::new(), now_ns: start, keys: 0 };
            for step in steps {
                match step {
                    Step::Insert(distance) => model.insert(distance),
                    Step::Cancel(choice) if !model.set.is_empty() => {
                        let at = *model.set.keys().nth(choice % model.set.len()).unwrap();
                        let id = model.set.remove(&at).unwrap();
                        assert!(model.wheel.cancel(id));
                        assert!(!model.wheel.cancel(id));
                    }
                    Step::Cancel(_) => {}
                    Step::Advance(by, max) => {
                        model.now_ns += by;
                        model.advance(max);
                    }
                    Step::Sleep(max) => {
                        if let Some(next) = model.wheel.next_deadline() {
                            model.now_ns = model.now_ns.max(next);
                            model.advance(max);
                        }
                    }
                }
                model.check();
            }
        }

        #[test]
        fn fires_in_the_order_of_ticks(distances in prop::collection::vec(0_u64..1 << 34, 1..200)) {
            let mut wheel = Wheel::new(0);
            for (key, distance) in distances.iter().enumerate() {
                wheel.insert(*distance, key as u64);
            }
            let mut expected: Vec<u64> = (0..distances.len() as u64).collect();
            expected.sort_by_key(|key| tick_after(distances[*key as usize]));
            assert_eq!(fire(&mut wheel, 1 << 35), expected, "first set, first fired in a tick");
        }
    }
}
