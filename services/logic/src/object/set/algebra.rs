//! Intersections, unions and differences of sets of one shard.
//!
//! Next: `set.rs`.

use super::{
    super::{
        Cx,
        packed::{Digits, Entry},
    },
    Set,
};

/// Gives the members that all of the sets have to `each`, up to `limit` of them; how many. Work in proportion to the
/// smallest set.
pub fn intersect<'a>(
    sets: &[&'a Set],
    limit: usize,
    cx: Cx<'_>,
    mut each: impl FnMut(Entry<'a>),
) -> usize {
    let mut sets = sets.to_vec();
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else {
        return 0;
    };
    let mut given = 0;
    for member in smallest.iter() {
        if given >= limit {
            break;
        }
        // The same set twice needs no second look.
        let in_all = |set: &&Set| std::ptr::eq(*set, *smallest) || set.contains_entry(member, cx);
        if others.iter().all(in_all) {
            each(member);
            given += 1;
        }
    }
    given
}

/// The members that any of the sets has.
#[must_use]
pub fn union(sets: &[&Set], cx: Cx<'_>) -> Set {
    let mut all = Set::new();
    for set in sets {
        for member in set.iter() {
            all.insert(member.text(&mut Digits::new()), cx);
        }
    }
    all
}

/// Gives the members of `first` that none of the others has to `each`; how many.
pub fn difference<'a>(
    first: &'a Set,
    others: &[&Set],
    cx: Cx<'_>,
    mut each: impl FnMut(Entry<'a>),
) -> usize {
    // The largest is the likeliest to have a member.
    let mut others = others.to_vec();
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    let mut given = 0;
    if others.iter().any(|set| std::ptr::eq(*set, first)) {
        return given;
    }
    for member in first.iter() {
        if !others.iter().any(|set| set.contains_entry(member, cx)) {
            each(member);
            given += 1;
        }
    }
    given
}
