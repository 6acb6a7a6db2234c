//! Going through a table in steps, and picking items by chance.
//!
//! A scan's order is that of the hashes, and a cursor is the upper 48 bits of the next one, so neither splits nor
//! merges nor other items' comings and goings can make it pass over an item; and none is given twice.
//! Next: `table.rs`.

use super::{
    Hasher, Rng,
    table::{Keyed, SplitTable, Spot},
};

/// Hash bits a cursor leaves out.
const CURSOR_SHIFT: u32 = 16;
/// Most leaves a single call looks at, however few items they hold.
const LEAVES_PER_CALL: usize = 64;
/// Tries before a pick by chance takes the next best: a table is at least a sixteenth full unless its keys collide.
const PICK_TRIES: usize = 256;

impl<T: Keyed> SplitTable<T> {
    /// One step over the items: calls `each` for about `count` of them and returns the next cursor, 0 at the end.
    /// Every item that is there from the first call to the last is given exactly once.
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        hasher: &Hasher,
        mut each: impl FnMut(&T),
    ) -> u64 {
        let count = count.max(1);
        let mut from = cursor;
        let mut given = 0;
        for _ in 0..LEAVES_PER_CALL {
            let hash = from << CURSOR_SHIFT;
            let within = from >> (64 - CURSOR_SHIFT) == 0;
            let Some(leaf) = self.leaf_of(hash).filter(|_| within) else {
                return 0;
            };
            let Some(leaf) = self.leaves.get(leaf as usize) else {
                return 0;
            };
            let keyed = leaf.items.iter().map(|item| (item.hash(hasher) >> CURSOR_SHIFT, item));
            let mut rest: Vec<_> = keyed.filter(|&(key, _)| key >= from).collect();
            let wanted = count - given;
            if rest.len() > wanted {
                rest.sort_unstable_by_key(|&(key, _)| key);
                let last = rest.get(wanted - 1).map_or(0, |&(key, _)| key);
                // Hashes that a cursor cannot tell apart go together.
                let cut = rest.partition_point(|&(key, _)| key <= last);
                let next = rest.get(cut).map(|&(key, _)| key);
                rest.truncate(cut);
                if let Some(next) = next {
                    rest.iter().for_each(|&(_, item)| each(item));
                    return next;
                }
            }
            rest.iter().for_each(|&(_, item)| each(item));
            given += rest.len();
            let covered = 1u64.checked_shl(64 - leaf.depth()).unwrap_or(0);
            match leaf.prefix.checked_add(covered) {
                Some(next) if covered != 0 => from = next >> CURSOR_SHIFT,
                _ => return 0,
            }
            if given >= count {
                break;
            }
        }
        from
    }

    /// An item by chance, each equally likely.
    pub(super) fn pick(&self, rng: &mut Rng) -> Option<Spot> {
        if self.is_empty() {
            return None;
        }
        let leaves = u32::try_from(self.leaves.len()).unwrap_or(u32::MAX);
        let width = u32::try_from(self.widest).unwrap_or(u32::MAX);
        for _ in 0..PICK_TRIES {
            // Uniform over places, so an item's chance does not depend on how full its leaf is.
            let spot = Spot { leaf: rng.below(leaves), at: rng.below(width) };
            if self.at(spot).is_some() {
                return Some(spot);
            }
        }
        let start = rng.below(leaves) as usize;
        let (before, after) = self.leaves.split_at_checked(start)?;
        let numbered = (start..).zip(after).chain((0..).zip(before));
        let (leaf, items) =
            numbered.map(|(n, leaf)| (n, leaf.items.len())).find(|&(_, len)| len > 0)?;
        let at = rng.below(u32::try_from(items).ok()?);
        Some(Spot { leaf: u32::try_from(leaf).ok()?, at })
    }

    /// The item that [`pick`](Self::pick) found.
    pub fn random(&self, rng: &mut Rng) -> Option<&T> {
        self.at(self.pick(rng)?)
    }

    /// Up to `count` different items by chance that pass `test`: work in proportion to `count` while that is less
    /// than a third of the table, else to the table.
    pub fn sample(
        &self,
        count: usize,
        rng: &mut Rng,
        test: impl Fn(&T) -> bool,
        mut each: impl FnMut(&T),
    ) {
        let mut left = count;
        if count < self.len() / 3 {
            let mut seen = view::HashSet::default();
            // Fails only where most items do not pass; the other way then finishes what is missing.
            for _ in 0..count.saturating_mul(4) {
                if left == 0 {
                    return;
                }
                let Some(spot) = self.pick(rng) else {
                    return;
                };
                if let Some(item) = self.at(spot).filter(|item| test(item))
                    && seen.insert((spot.leaf, spot.at))
                {
                    each(item);
                    left -= 1;
                }
            }
            let numbered = |leaf: u32| {
                let items = self.leaves.get(leaf as usize).map_or(&[][..], |leaf| &leaf.items);
                (0u32..).zip(items).map(move |(at, item)| ((leaf, at), item))
            };
            let leaves = 0..u32::try_from(self.leaves.len()).unwrap_or(u32::MAX);
            let rest = leaves.flat_map(numbered).filter(|(spot, _)| !seen.contains(spot));
            return choose(rest.map(|(_, item)| item).filter(|item| test(item)), left, rng, each);
        }
        choose(self.iter().filter(|item| test(item)), left, rng, each);
    }
}

/// Up to `count` of some items, each equally likely: a reservoir (Vitter's algorithm R).
pub(super) fn choose<I>(
    items: impl Iterator<Item = I>,
    count: usize,
    rng: &mut Rng,
    each: impl FnMut(I),
) {
    let mut kept = Vec::new();
    for (n, item) in items.enumerate() {
        if kept.len() < count {
            kept.push(item);
            continue;
        }
        let at = rng.below(u32::try_from(n + 1).unwrap_or(u32::MAX)) as usize;
        if let Some(slot) = kept.get_mut(at) {
            *slot = item;
        }
    }
    // The order must be by chance as well: clients take the first.
    for n in (1..kept.len()).rev() {
        kept.swap(n, rng.below(u32::try_from(n + 1).unwrap_or(u32::MAX)) as usize);
    }
    kept.into_iter().for_each(each);
}
