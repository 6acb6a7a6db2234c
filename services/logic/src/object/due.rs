//! The earliest expiry among the leaves of a table: a tournament tree of one time per leaf.
//!
//! The root is the earliest time of all, a change climbs one path, and leaves with something due are found by descent,
//! so an expiry costs nothing in proportion to the table. A time may be earlier than the leaf's earliest expiry, since
//! removals do not raise it; it is never later.
//! Next: `table.rs` holds one from the first item that expires on.

/// The time of a leaf with nothing that expires.
pub(super) const NEVER: u64 = u64::MAX;

/// The tree; without leaves it holds no memory.
#[derive(Debug, Default)]
pub(super) struct DueTree {
    /// Node `n` is the earlier of nodes `2n` and `2n + 1`; the second half are the leaves, in order.
    times: Vec<u64>,
}

impl DueTree {
    pub(super) const EMPTY: Self = Self { times: Vec::new() };

    pub(super) fn heap_bytes(&self) -> usize {
        self.times.capacity() * size_of::<u64>()
    }

    /// The earliest time of all.
    #[inline]
    pub(super) fn earliest(&self) -> u64 {
        self.node(1)
    }

    pub(super) fn get(&self, leaf: usize) -> u64 {
        self.node(self.half() + leaf)
    }

    fn half(&self) -> usize {
        self.times.len() / 2
    }

    fn node(&self, at: usize) -> u64 {
        self.times.get(at).copied().unwrap_or(NEVER)
    }

    /// Sets a leaf's time.
    pub(super) fn set(&mut self, leaf: usize, time: u64) {
        if leaf >= self.half() {
            if time == NEVER {
                return;
            }
            self.grow(leaf + 1);
        }
        let mut at = self.half() + leaf;
        let mut time = time;
        while at >= 1 {
            match self.times.get_mut(at) {
                Some(slot) if *slot != time => *slot = time,
                _ => break,
            }
            time = time.min(self.node(at ^ 1));
            at /= 2;
        }
    }

    /// Sets a leaf's time if it is earlier than the one noted.
    pub(super) fn note(&mut self, leaf: usize, time: u64) {
        if time < self.get(leaf) {
            self.set(leaf, time);
        }
    }

    /// Room for so many leaves; the times are copied, eight bytes a leaf.
    fn grow(&mut self, leaves: usize) {
        let (old, half) = (self.half(), leaves.next_power_of_two());
        let mut times = vec![NEVER; half * 2];
        let kept = self.times.get(old..).unwrap_or_default();
        if let Some(room) = times.get_mut(half..half + kept.len()) {
            room.copy_from_slice(kept);
        }
        self.times = times;
        for at in (1..half).rev() {
            let earlier = self.node(2 * at).min(self.node(2 * at + 1));
            if let Some(slot) = self.times.get_mut(at) {
                *slot = earlier;
            }
        }
    }

    /// Some leaf whose time lies before `now_ms`.
    pub(super) fn first_before(&self, now_ms: u64) -> Option<usize> {
        if self.earliest() >= now_ms {
            return None;
        }
        let mut at = 1;
        while at < self.half() {
            at *= 2;
            if self.node(at) >= now_ms {
                at += 1;
            }
        }
        Some(at - self.half())
    }

    /// Every leaf whose time lies before `now_ms`.
    pub(super) fn each_before(&self, now_ms: u64, mut each: impl FnMut(usize)) {
        let mut open = vec![1];
        while let Some(at) = open.pop() {
            if self.node(at) >= now_ms {
                continue;
            }
            if at < self.half() {
                open.extend([2 * at + 1, 2 * at]);
            } else {
                each(at - self.half());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::hash::Rng;

    #[test]
    fn the_root_is_the_earliest() {
        let (mut tree, mut model) = (DueTree::default(), vec![NEVER; 100]);
        let mut rng = Rng::new(3);
        assert_eq!(
            (tree.earliest(), tree.first_before(NEVER), tree.heap_bytes()),
            (NEVER, None, 0)
        );
        for round in 0..5000 {
            let leaf = rng.below(if round < 100 { 3 } else { 100 }) as usize;
            let time = if rng.below(3) == 0 { NEVER } else { u64::from(rng.below(1000)) };
            let slot = model.get_mut(leaf).expect("within");
            if rng.below(2) == 0 {
                tree.set(leaf, time);
                *slot = time;
            } else {
                tree.note(leaf, time);
                *slot = time.min(*slot);
            }
            let earliest = model.iter().copied().min().expect("some");
            assert_eq!(tree.earliest(), earliest);
            let now = u64::from(rng.below(1000));
            let due: Vec<_> =
                (0..100).filter(|&leaf| model.get(leaf).is_some_and(|&t| t < now)).collect();
            assert_eq!(tree.first_before(now), due.first().copied());
            let mut seen = Vec::new();
            tree.each_before(now, |leaf| seen.push(leaf));
            assert_eq!(seen, due);
        }
    }
}
