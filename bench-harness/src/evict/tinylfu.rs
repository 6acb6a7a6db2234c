//! A model of W-TinyLFU as Caffeine has it (Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission
//! Policy", ACM TOS 13, 2017).
//!
//! New keys enter a window of 1 %, an LRU; one that falls out of it is admitted to the main part if it was used more often
//! than the key it would replace, by a count-min sketch of four bits that is halved every ten times the room. The
//! main part is a segmented LRU: probation, and 80 % protected for what was used again. Caffeine moves the
//! window's size by its hit ratio; here it stays, as in the paper.

use view::HashMap;

use super::Cache;
use super::lru::{Links, List};
use crate::rng::Rng;

/// Frequencies: four rows of counters up to 15.
struct Sketch {
    rows: [Vec<u8>; 4],
    mask: usize,
    added: usize,
    most: usize,
}

impl Sketch {
    fn new(room: usize) -> Self {
        // As many counters as Caffeine has: sixteen for each place of a table of the power of two, in four rows.
        let counters = room.next_power_of_two().max(8) * 4;
        let row = || vec![0; counters];
        Self {
            rows: [row(), row(), row(), row()],
            mask: counters - 1,
            added: 0,
            most: room.max(1) * 10,
        }
    }

    fn places(&self, key: u32) -> [usize; 4] {
        let mut rng = Rng::new(u64::from(key) ^ 0x7f4a_7c15_9e37_79b9);
        std::array::from_fn(|_| rng.next_u64() as usize & self.mask)
    }

    fn frequency(&self, key: u32) -> u8 {
        let counters = self.rows.iter().zip(self.places(key));
        counters.map(|(row, at)| row[at]).min().unwrap_or(0)
    }

    fn increment(&mut self, key: u32) {
        let places = self.places(key);
        let mut any = false;
        for (row, at) in self.rows.iter_mut().zip(places) {
            if row[at] < 15 {
                row[at] += 1;
                any = true;
            }
        }
        self.added += usize::from(any);
        if self.added >= self.most {
            self.rows.iter_mut().flatten().for_each(|counter| *counter /= 2);
            self.added /= 2;
        }
    }
}

/// Where a key is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Window,
    Probation,
    Protected,
}

/// The cache.
pub struct TinyLfu {
    window_room: usize,
    main_room: usize,
    protected_room: usize,
    places: HashMap<u32, u32>,
    slots: Vec<(u32, Part)>,
    free: Vec<u32>,
    links: Links,
    window: List,
    probation: List,
    protected: List,
    sketch: Sketch,
    rng: Rng,
}

impl TinyLfu {
    /// An empty one.
    #[must_use]
    pub fn new(room: usize, seed: u64) -> Self {
        let main_room = room * 99 / 100;
        Self {
            window_room: room - main_room,
            main_room,
            protected_room: main_room * 8 / 10,
            places: HashMap::default(),
            slots: Vec::with_capacity(room + 1),
            free: Vec::new(),
            links: Links::default(),
            window: List::default(),
            probation: List::default(),
            protected: List::default(),
            sketch: Sketch::new(room),
            rng: Rng::new(seed),
        }
    }

    const fn list(&mut self, part: Part) -> &mut List {
        match part {
            Part::Window => &mut self.window,
            Part::Probation => &mut self.probation,
            Part::Protected => &mut self.protected,
        }
    }

    fn place(&mut self, at: u32, part: Part) {
        let mut list = *self.list(part);
        self.links.push(&mut list, at);
        *self.list(part) = list;
        self.slots[at as usize].1 = part;
    }

    fn take(&mut self, at: u32) {
        let part = self.slots[at as usize].1;
        let mut list = *self.list(part);
        self.links.remove(&mut list, at);
        *self.list(part) = list;
    }

    fn used(&mut self, at: u32) {
        let part = self.slots[at as usize].1;
        self.take(at);
        self.place(at, if part == Part::Window { Part::Window } else { Part::Protected });
        if self.protected.len() > self.protected_room
            && let Some(oldest) = self.protected.back()
        {
            self.take(oldest);
            self.place(oldest, Part::Probation);
        }
    }

    fn discard(&mut self, at: u32) {
        self.take(at);
        self.places.remove(&self.slots[at as usize].0);
        self.free.push(at);
    }

    /// Moves what falls out of the window on, or out.
    fn overflow(&mut self) {
        if self.window.len() <= self.window_room {
            return;
        }
        let Some(candidate) = self.window.back() else { return };
        if self.probation.len() + self.protected.len() < self.main_room {
            self.take(candidate);
            return self.place(candidate, Part::Probation);
        }
        let Some(victim) = self.probation.back().or(self.protected.back()) else {
            return self.discard(candidate);
        };
        let [new, old] = [candidate, victim].map(|at| {
            let key = self.slots[at as usize].0;
            self.sketch.frequency(key)
        });
        // Caffeine lets a warm one in by chance, so that keys cannot be made to keep all others out.
        if new > old || (new >= 6 && self.rng.below(128) == 0) {
            self.discard(victim);
            self.take(candidate);
            self.place(candidate, Part::Probation);
        } else {
            self.discard(candidate);
        }
    }
}

impl Cache for TinyLfu {
    fn access(&mut self, key: u32, _now_ms: u64) -> bool {
        self.sketch.increment(key);
        if let Some(&at) = self.places.get(&key) {
            self.used(at);
            return true;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push((key, Part::Window));
            (self.slots.len() - 1) as u32
        });
        self.slots[at as usize] = (key, Part::Window);
        self.places.insert(key, at);
        self.place(at, Part::Window);
        self.overflow();
        false
    }

    fn len(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_once_does_not_drive_out_what_is_used_often() {
        let mut cache = TinyLfu::new(100, 1);
        for _ in 0..5 {
            (0..90).for_each(|key| {
                cache.access(key, 0);
            });
        }
        (1_000..2_000).for_each(|key| {
            cache.access(key, 0);
        });
        let there = (0..90).filter(|&key| cache.access(key, 0)).count();
        assert!(there >= 85, "{there}");
    }

    #[test]
    fn counts_are_halved_in_time() {
        let mut sketch = Sketch::new(16);
        for _ in 0..12 {
            sketch.increment(7);
        }
        assert_eq!(sketch.frequency(7), 12);
        (100..250).for_each(|key| sketch.increment(key));
        assert!((6..=9).contains(&sketch.frequency(7)), "{}", sketch.frequency(7));
    }
}
