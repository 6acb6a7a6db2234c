//! Sets of byte strings.
//!
//! Integers alone are kept sorted (`intset.rs`) up to a limit; other small sets are packed, and large ones are tables
//! whose integers cost no allocation. A set goes from one form to the next as it grows, for good. Redis 7.0 has no
//! packed sets, so [`encoding`](Set::encoding) calls them what they would be there.
//!
//! Invariants: no member is there twice; [`mem_bytes`](Set::mem_bytes) is the sum of all allocations.
//! Next: `algebra.rs` for intersections, unions and differences.

mod algebra;
mod member;

pub use algebra::{difference, intersect, union};
use member::Member;

use super::{
    Cx, Rng,
    intset::{IntSet, Ints},
    packed::{Digits, Entry, Iter, Packed, parse_int},
    scan::choose,
    table::{Items, SplitTable},
};

/// The most members of a packed set.
pub const PACKED_MAX_MEMBERS: usize = 128;
/// The longest member of a packed set, in bytes.
pub const PACKED_MAX_BYTES: usize = 64;

/// A set.
#[derive(Default)]
pub struct Set {
    repr: Repr,
}

enum Repr {
    Ints(IntSet),
    Packed(Packed),
    Table(Box<SplitTable<Member>>),
}

impl Default for Repr {
    fn default() -> Self {
        Self::Ints(IntSet::new())
    }
}

impl Set {
    /// An empty set, without an allocation.
    #[must_use]
    pub const fn new() -> Self {
        Self { repr: Repr::Ints(IntSet::new()) }
    }

    /// How many members.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Ints(ints) => ints.len(),
            Repr::Packed(packed) => packed.len(),
            Repr::Table(table) => table.len(),
        }
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `OBJECT ENCODING` says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.repr {
            Repr::Ints(_) => "intset",
            Repr::Packed(_) | Repr::Table(_) => "hashtable",
        }
    }

    /// Bytes of all allocations.
    #[must_use]
    pub fn mem_bytes(&self) -> usize {
        match &self.repr {
            Repr::Ints(ints) => ints.heap_bytes(),
            Repr::Packed(packed) => packed.heap_bytes(),
            Repr::Table(table) => size_of::<SplitTable<Member>>() + table.heap_bytes(),
        }
    }

    /// Frees about `budget` members of a set that is not used any more; whether any are left.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        if let Repr::Table(table) = &mut self.repr
            && table.reclaim(budget)
        {
            return true;
        }
        *self = Self::new();
        false
    }

    /// The integers, while there is nothing else: what a dump copies.
    #[must_use]
    pub fn intset(&self) -> Option<&IntSet> {
        if let Repr::Ints(ints) = &self.repr { Some(ints) } else { None }
    }

    /// A set of integers alone; one too large for that form becomes a table.
    #[must_use]
    pub fn from_ints(ints: IntSet, cx: Cx<'_>) -> Self {
        let is_large = ints.len() > cx.limits.set_max_intset_entries;
        let mut set = Self { repr: Repr::Ints(ints) };
        if is_large {
            set.make_table(cx);
        }
        set
    }

    /// Whether these bytes are a member.
    #[must_use]
    pub fn contains(&self, member: &[u8], cx: Cx<'_>) -> bool {
        match &self.repr {
            Repr::Ints(ints) => parse_int(member).is_some_and(|value| ints.contains(value)),
            Repr::Packed(packed) => packed.find(packed.first(), member, 1).is_some(),
            Repr::Table(table) => table.get(cx.hasher.hash(member), member).is_some(),
        }
    }

    /// The same for an entry.
    #[must_use]
    pub fn contains_entry(&self, member: Entry<'_>, cx: Cx<'_>) -> bool {
        match (&self.repr, member) {
            (Repr::Ints(ints), Entry::Int(value)) => ints.contains(value),
            (Repr::Packed(packed), _) => packed.find(packed.first(), member, 1).is_some(),
            _ => self.contains(member.text(&mut Digits::new()), cx),
        }
    }

    /// Adds a member; whether it is new.
    pub fn insert(&mut self, member: &[u8], cx: Cx<'_>) -> bool {
        match &mut self.repr {
            Repr::Ints(ints) => {
                if let Some(value) = parse_int(member) {
                    let is_new = ints.insert(value);
                    if ints.len() > cx.limits.set_max_intset_entries {
                        self.make_table(cx);
                    }
                    return is_new;
                }
                if ints.len() < PACKED_MAX_MEMBERS && member.len() <= PACKED_MAX_BYTES {
                    self.make_packed();
                } else {
                    self.make_table(cx);
                }
                self.insert(member, cx)
            }
            Repr::Packed(packed) => {
                if packed.find(packed.first(), member, 1).is_some() {
                    return false;
                }
                if packed.len() < PACKED_MAX_MEMBERS && member.len() <= PACKED_MAX_BYTES {
                    packed.push_back(member);
                    return true;
                }
                self.make_table(cx);
                self.insert(member, cx)
            }
            Repr::Table(table) => {
                let hash = cx.hasher.hash(member);
                let is_new = table.find(hash, member).is_none();
                if is_new {
                    table.insert(hash, Member::new(Entry::from(member)), cx.hasher);
                }
                is_new
            }
        }
    }

    /// Removes a member; whether it was there.
    pub fn remove(&mut self, member: &[u8], cx: Cx<'_>) -> bool {
        match &mut self.repr {
            Repr::Ints(ints) => parse_int(member).is_some_and(|value| ints.remove(value)),
            Repr::Packed(packed) => {
                packed.find(packed.first(), member, 1).is_some_and(|pos| packed.remove(pos, 1) > 0)
            }
            Repr::Table(table) => table.remove(cx.hasher.hash(member), member).is_some(),
        }
    }

    /// All members, in no order that means anything.
    #[must_use]
    pub fn iter(&self) -> Members<'_> {
        Members(match &self.repr {
            Repr::Ints(ints) => From::Ints(ints.iter()),
            Repr::Packed(packed) => From::Packed(packed.iter()),
            Repr::Table(table) => From::Table(table.iter()),
        })
    }

    /// One step over the members: calls `each` for about `count` of them and returns the next cursor, 0 at the end. A
    /// small set is given as a whole. Every member that is there from the first call to the last is given.
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        cx: Cx<'_>,
        mut each: impl FnMut(Entry<'_>),
    ) -> u64 {
        if let Repr::Table(table) = &self.repr {
            return table.scan(cursor, count, cx.hasher, |member| each(member.entry()));
        }
        self.iter().for_each(each);
        0
    }

    /// A member by chance.
    pub fn random(&self, rng: &mut Rng) -> Option<Entry<'_>> {
        let at = rng.below(u32::try_from(self.len()).unwrap_or(u32::MAX)) as usize;
        match &self.repr {
            Repr::Ints(ints) => ints.get(at).map(Entry::Int),
            Repr::Packed(packed) => packed.entry(at),
            Repr::Table(table) => table.random(rng).map(Member::entry),
        }
    }

    /// `count` members by chance, the same one perhaps several times (`SRANDMEMBER` with a negative count).
    pub fn random_many(&self, count: usize, rng: &mut Rng, mut each: impl FnMut(Entry<'_>)) {
        for _ in 0..count {
            let Some(member) = self.random(rng) else {
                return;
            };
            each(member);
        }
    }

    /// Up to `count` different members by chance; all of them when there are no more.
    pub fn sample(&self, count: usize, rng: &mut Rng, mut each: impl FnMut(Entry<'_>)) {
        if count >= self.len() {
            self.iter().for_each(each);
        } else if let Repr::Table(table) = &self.repr {
            table.sample(count, rng, |_| true, |member| each(member.entry()));
        } else {
            choose(self.iter(), count, rng, each);
        }
    }

    /// Removes a member by chance, handing it out.
    pub fn pop(&mut self, rng: &mut Rng) -> Option<Vec<u8>> {
        let len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        match &mut self.repr {
            Repr::Ints(ints) => {
                let value = ints.get(rng.below(len) as usize)?;
                ints.remove(value);
                Some(Entry::Int(value).to_vec())
            }
            Repr::Packed(packed) => {
                let pos = packed.at(rng.below(len) as usize)?;
                let member = packed.get(pos)?.to_vec();
                packed.remove(pos, 1);
                Some(member)
            }
            Repr::Table(table) => {
                let spot = table.pick(rng)?;
                table.remove_at(spot).map(|member| member.entry().to_vec())
            }
        }
    }

    fn make_packed(&mut self) {
        if let Repr::Ints(ints) = &self.repr {
            let entries: Vec<_> = ints.iter().map(Entry::Int).collect();
            let mut packed = Packed::new();
            packed.extend(&entries);
            self.repr = Repr::Packed(packed);
        }
    }

    fn make_table(&mut self, cx: Cx<'_>) {
        let mut table = SplitTable::new();
        for member in self.iter() {
            let hash = cx.hasher.hash(member.text(&mut Digits::new()));
            table.insert(hash, Member::new(member), cx.hasher);
        }
        self.repr = Repr::Table(Box::new(table));
    }
}

/// All members of a set.
pub struct Members<'a>(From<'a>);

enum From<'a> {
    Ints(Ints<'a>),
    Packed(Iter<'a>),
    Table(Items<'a, Member>),
}

impl<'a> Iterator for Members<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        match &mut self.0 {
            From::Ints(ints) => ints.next().map(Entry::Int),
            From::Packed(entries) => entries.next(),
            From::Table(items) => items.next().map(Member::entry),
        }
    }
}

impl<'a> IntoIterator for &'a Set {
    type Item = Entry<'a>;
    type IntoIter = Members<'a>;

    fn into_iter(self) -> Members<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
