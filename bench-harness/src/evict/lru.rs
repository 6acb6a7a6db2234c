//! Lists by which keys are ordered, and the exact LRU, as a measure for what samples it.

use view::HashMap;

use super::Cache;

const NONE: u32 = u32::MAX;

/// Slots of a list, linked both ways; the front is the newest.
#[derive(Clone, Copy, Debug)]
pub struct List {
    front: u32,
    back: u32,
    len: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { front: NONE, back: NONE, len: 0 }
    }
}

impl List {
    /// How many slots are on it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none are.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The oldest slot.
    #[must_use]
    pub fn back(&self) -> Option<u32> {
        (self.back != NONE).then_some(self.back)
    }
}

/// Links of all slots, each on at most one list.
#[derive(Clone, Debug, Default)]
pub struct Links(Vec<(u32, u32)>);

impl Links {
    /// Puts a slot to the front.
    pub fn push(&mut self, list: &mut List, at: u32) {
        if self.0.len() <= at as usize {
            self.0.resize(at as usize + 1, (NONE, NONE));
        }
        self.0[at as usize] = (NONE, list.front);
        match list.front {
            NONE => list.back = at,
            front => self.0[front as usize].0 = at,
        }
        list.front = at;
        list.len += 1;
    }

    /// Takes a slot off its list.
    pub fn remove(&mut self, list: &mut List, at: u32) {
        let (before, after) = self.0[at as usize];
        match before {
            NONE => list.front = after,
            before => self.0[before as usize].1 = after,
        }
        match after {
            NONE => list.back = before,
            after => self.0[after as usize].0 = before,
        }
        list.len -= 1;
    }
}

/// The exact LRU.
pub struct Lru {
    room: usize,
    places: HashMap<u32, u32>,
    keys: Vec<u32>,
    links: Links,
    list: List,
}

impl Lru {
    /// An empty one.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            room,
            places: HashMap::default(),
            keys: Vec::with_capacity(room),
            links: Links::default(),
            list: List::default(),
        }
    }
}

impl Cache for Lru {
    fn access(&mut self, key: u32, _now_ms: u64) -> bool {
        if let Some(&at) = self.places.get(&key) {
            self.links.remove(&mut self.list, at);
            self.links.push(&mut self.list, at);
            return true;
        }
        let at = match self.list.back() {
            Some(oldest) if self.keys.len() >= self.room => {
                self.links.remove(&mut self.list, oldest);
                self.places.remove(&self.keys[oldest as usize]);
                self.keys[oldest as usize] = key;
                oldest
            }
            _ => {
                self.keys.push(key);
                (self.keys.len() - 1) as u32
            }
        };
        self.places.insert(key, at);
        self.links.push(&mut self.list, at);
        false
    }

    fn len(&self) -> usize {
        self.list.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        let mut lru = Lru::new(2);
        assert!(!lru.access(1, 0) && !lru.access(2, 0) && lru.access(1, 0));
        assert!(!lru.access(3, 0));
        assert!(lru.access(1, 0) && lru.access(3, 0) && !lru.access(2, 0));
    }
}
