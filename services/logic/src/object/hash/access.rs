//! Reading many fields of a hash: all, in steps, by chance. Due fields are left out everywhere.
//!
//! Next: `scan.rs` has the same for tables.

use super::{
    super::{
        Cx, Rng,
        packed::Entry,
        scan::choose,
        table::{Items, Keyed},
    },
    Field, Hash, Repr, is_live,
    small::Triples,
};

/// Tries before a field by chance is looked for among the live ones only.
const PICK_TRIES: usize = 64;

/// All fields with their values.
pub struct Fields<'a> {
    from: From<'a>,
    now_ms: u64,
}

enum From<'a> {
    Small(Option<Triples<'a>>),
    Table(Items<'a, Field>),
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Entry<'a>, Entry<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let now_ms = self.now_ms;
        match &mut self.from {
            From::Small(triples) => triples
                .as_mut()?
                .find(|&(_, _, expire)| is_live(expire, now_ms))
                .map(|(field, value, _)| (field, value)),
            From::Table(items) => items.find(|item| item_is_live(item, now_ms)).map(entries),
        }
    }
}

fn item_is_live(item: &Field, now_ms: u64) -> bool {
    is_live(item.expire_ms(), now_ms)
}

fn entries(item: &Field) -> (Entry<'_>, Entry<'_>) {
    (Entry::Str(item.field()), Entry::Str(item.value()))
}

impl Hash {
    /// All fields with their values; the order of a small hash is that of insertion.
    #[must_use]
    pub fn iter(&self, now_ms: u64) -> Fields<'_> {
        let from = match &self.repr {
            Repr::Table(table) => From::Table(table.iter()),
            _ => From::Small(self.small().map(|(packed, step)| Triples::new(packed, step))),
        };
        Fields { from, now_ms }
    }

    /// One step over the fields: calls `each` for about `count` of them and returns the next cursor, 0 at the end. A
    /// small hash is given as a whole. Every field that is there from the first call to the last is given.
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        cx: Cx<'_>,
        mut each: impl FnMut(Entry<'_>, Entry<'_>),
    ) -> u64 {
        if let Repr::Table(table) = &self.repr {
            return table.scan(cursor, count, cx.hasher, |item| {
                if item_is_live(item, cx.now_ms) {
                    let (field, value) = entries(item);
                    each(field, value);
                }
            });
        }
        self.iter(cx.now_ms).for_each(|(field, value)| each(field, value));
        0
    }

    /// A field by chance with its value.
    pub fn random(&self, rng: &mut Rng, now_ms: u64) -> Option<(Entry<'_>, Entry<'_>)> {
        if let Repr::Table(table) = &self.repr {
            for _ in 0..PICK_TRIES {
                let item = table.random(rng)?;
                if item_is_live(item, now_ms) {
                    return Some(entries(item));
                }
            }
        }
        // A small hash, or one nearly all of whose fields are due.
        let mut found = None;
        choose(self.iter(now_ms), 1, rng, |pair| found = Some(pair));
        found
    }

    /// `count` fields by chance, the same one perhaps several times (`HRANDFIELD` with a negative count).
    pub fn random_many(
        &self,
        count: usize,
        rng: &mut Rng,
        now_ms: u64,
        mut each: impl FnMut(Entry<'_>, Entry<'_>),
    ) {
        if self.small().is_some() {
            let pairs: Vec<_> = self.iter(now_ms).collect();
            let bound = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
            for _ in 0..count {
                let Some(&(field, value)) = pairs.get(rng.below(bound) as usize) else {
                    return;
                };
                each(field, value);
            }
            return;
        }
        for _ in 0..count {
            let Some((field, value)) = self.random(rng, now_ms) else {
                return;
            };
            each(field, value);
        }
    }

    /// Up to `count` different fields by chance; all of them when there are no more.
    pub fn sample(
        &self,
        count: usize,
        rng: &mut Rng,
        now_ms: u64,
        mut each: impl FnMut(Entry<'_>, Entry<'_>),
    ) {
        if count >= self.len() {
            return self.iter(now_ms).for_each(|(field, value)| each(field, value));
        }
        if let Repr::Table(table) = &self.repr {
            let live = |item: &Field| item_is_live(item, now_ms);
            return table.sample(count, rng, live, |item| {
                let (field, value) = entries(item);
                each(field, value);
            });
        }
        choose(self.iter(now_ms), count, rng, |(field, value)| each(field, value));
    }
}
