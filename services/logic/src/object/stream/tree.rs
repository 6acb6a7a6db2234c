//! An ordered map that splits and merges by pages and knows to the byte what it holds.
//!
//! A B+ tree of pages of at most about 2 KiB: an insertion or removal moves one page's items a
//! level, and items added in ascending order fill their pages. Iteration goes leaf by leaf and
//! finds the next one from above, so leaves have no links.
//!
//! Invariants: all leaves are of one depth and none but a root is empty; the key beside a child is
//! above everything before the child and not above anything in it, except the first child's key,
//! which bounds nothing; [`Tree::bytes`] equals the capacity of all pages and the heap of all keys.
//! What values hold elsewhere is counted by whoever owns the tree.

use std::{borrow::Borrow, slice};

use super::id::StreamId;

const PAGE_BYTES: usize = 2048;

/// Keys, some of which hold memory of their own.
pub(super) trait Key: Ord + Clone {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Key for StreamId {}
impl Key for u64 {}
impl Key for Box<[u8]> {
    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

/// A page; a child comes with a key that bounds it from below.
enum Page<K, V> {
    Leaf(Vec<(K, V)>),
    Inner(Vec<(K, Self)>),
}

/// The map.
pub(super) struct Tree<K, V> {
    root: Page<K, V>,
    len: usize,
    bytes: usize,
}

/// Items of a full page.
const fn page_len<T>() -> usize {
    let fit = PAGE_BYTES / size_of::<T>();
    if fit < 8 { 8 } else { fit }
}

fn bytes_of<T>(items: &Vec<T>) -> usize {
    items.capacity() * size_of::<T>()
}

/// Puts an item into a page that is not full.
fn put<T>(items: &mut Vec<T>, at: usize, item: T, bytes: &mut usize) {
    if items.len() == items.capacity() {
        let before = bytes_of(items);
        let more = items.len().clamp(1, page_len::<T>().saturating_sub(items.len()).max(1));
        items.reserve_exact(more);
        *bytes += bytes_of(items) - before;
    }
    items.insert(at, item);
}

fn take<T>(items: &mut Vec<T>, at: usize, bytes: &mut usize) -> T {
    let item = items.remove(at);
    if items.capacity() > 4 && items.len() * 4 <= items.capacity() {
        let before = bytes_of(items);
        items.shrink_to(items.len() * 2);
        *bytes -= before - bytes_of(items);
    }
    item
}

/// Puts an item into a page; a full page is split and its right half returned with its first key.
fn add<K: Key, T>(
    items: &mut Vec<(K, T)>,
    at: usize,
    item: (K, T),
    bytes: &mut usize,
) -> Option<(K, Vec<(K, T)>)> {
    let most = page_len::<(K, T)>();
    if items.len() < most {
        put(items, at, item, bytes);
        return None;
    }
    // What comes in ascending order leaves full pages behind.
    let mid = if at == items.len() { at } else { items.len() / 2 };
    let mut right = if mid == items.len() { Vec::new() } else { items.split_off(mid) };
    *bytes += bytes_of(&right);
    if at > mid || at == most {
        put(&mut right, at - mid, item, bytes);
    } else {
        put(items, at, item, bytes);
    }
    let key = right.first()?.0.clone();
    *bytes += key.heap_bytes();
    Some((key, right))
}

/// Moves all of `from` to the end of `items`.
fn absorb<T>(items: &mut Vec<T>, mut from: Vec<T>, bytes: &mut usize) {
    let before = bytes_of(items);
    items.reserve_exact(from.len());
    *bytes += bytes_of(items) - before;
    *bytes -= bytes_of(&from);
    items.append(&mut from);
}

/// The child that may hold a key.
fn child_of<K: Borrow<Q>, T, Q: Ord + ?Sized>(children: &[(K, T)], key: &Q) -> usize {
    children.partition_point(|child| child.0.borrow() <= key).saturating_sub(1)
}

impl<K: Key, V> Page<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Inner(children) => children.len(),
        }
    }

    fn most(&self) -> usize {
        match self {
            Self::Leaf(_) => page_len::<(K, V)>(),
            Self::Inner(_) => page_len::<(K, Self)>(),
        }
    }

    fn own_bytes(&self) -> usize {
        match self {
            Self::Leaf(items) => bytes_of(items),
            Self::Inner(children) => bytes_of(children),
        }
    }

    /// The value replaced, and the right half of a page that was split.
    fn insert(&mut self, key: K, value: V, bytes: &mut usize) -> (Option<V>, Option<(K, Self)>) {
        match self {
            Self::Leaf(items) => match items.binary_search_by(|item| item.0.cmp(&key)) {
                Ok(at) => {
                    let item = items.get_mut(at);
                    (item.map(|item| std::mem::replace(&mut item.1, value)), None)
                }
                Err(at) => {
                    *bytes += key.heap_bytes();
                    let right = add(items, at, (key, value), bytes);
                    (None, right.map(|(key, right)| (key, Self::Leaf(right))))
                }
            },
            Self::Inner(children) => {
                let at = child_of(children, &key);
                let Some((_, child)) = children.get_mut(at) else { return (None, None) };
                let (old, split) = child.insert(key, value, bytes);
                let right = split.and_then(|child| add(children, at + 1, child, bytes));
                (old, right.map(|(key, right)| (key, Self::Inner(right))))
            }
        }
    }

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q, bytes: &mut usize) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Leaf(items) => {
                let at = items.binary_search_by(|item| item.0.borrow().cmp(key)).ok()?;
                let (key, value) = take(items, at, bytes);
                *bytes -= key.heap_bytes();
                Some(value)
            }
            Self::Inner(children) => {
                let at = child_of(children, key);
                let value = children.get_mut(at)?.1.remove(key, bytes)?;
                settle(children, at, bytes);
                Some(value)
            }
        }
    }

    /// Empties the last leaf.
    fn take_leaf(&mut self, bytes: &mut usize) -> Vec<(K, V)> {
        match self {
            Self::Leaf(items) => {
                let items = std::mem::take(items);
                *bytes -= bytes_of(&items);
                *bytes -= items.iter().map(|item| item.0.heap_bytes()).sum::<usize>();
                items
            }
            Self::Inner(children) => {
                let leaf = children.last_mut().map(|child| child.1.take_leaf(bytes));
                if children.last().is_some_and(|child| child.1.len() == 0)
                    && let Some((key, child)) = children.pop()
                {
                    *bytes -= key.heap_bytes() + child.own_bytes();
                }
                leaf.unwrap_or_default()
            }
        }
    }
}

/// Removes a child that became empty, or joins a sparse one with a neighbour.
fn settle<K: Key, V>(children: &mut Vec<(K, Page<K, V>)>, at: usize, bytes: &mut usize) {
    let Some((_, child)) = children.get(at) else { return };
    let (len, most) = (child.len(), child.most());
    if len == 0 {
        let (key, child) = take(children, at, bytes);
        *bytes -= key.heap_bytes() + child.own_bytes();
        return;
    }
    if len * 4 > most {
        return;
    }
    let len_of = |at: usize| children.get(at).map(|child| child.1.len());
    let fits = |left: &usize| {
        let sum = len_of(*left).zip(len_of(*left + 1)).map(|(a, b)| a + b);
        sum.is_some_and(|sum| sum * 4 <= most * 3)
    };
    let Some(left) = at.checked_sub(1).into_iter().chain([at]).find(fits) else { return };
    let (key, right) = take(children, left + 1, bytes);
    match (children.get_mut(left).map(|child| &mut child.1), right) {
        (Some(Page::Leaf(items)), Page::Leaf(right)) => {
            *bytes -= key.heap_bytes();
            absorb(items, right, bytes);
        }
        (Some(Page::Inner(items)), Page::Inner(mut right)) => {
            // A first child's key bounds nothing; the parent's does.
            if let Some(first) = right.first_mut() {
                *bytes -= first.0.heap_bytes();
                first.0 = key;
            }
            absorb(items, right, bytes);
        }
        _ => unreachable!("the pages of a level are of one kind"),
    }
}

/// A leaf, and the bounds of what lies before and after it.
struct Found<'a, K, V> {
    items: &'a [(K, V)],
    lower: Option<&'a K>,
    next: Option<&'a K>,
}

impl<K: Key, V> Tree<K, V> {
    /// An empty one, which holds no memory.
    pub(super) const fn new() -> Self {
        Self { root: Page::Leaf(Vec::new()), len: 0, bytes: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of heap held, without what values hold.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (old, split) = self.root.insert(key, value, &mut self.bytes);
        if old.is_none() {
            self.len += 1;
        }
        if let Some((key, right)) = split {
            let left = std::mem::replace(&mut self.root, Page::Leaf(Vec::new()));
            self.bytes += key.heap_bytes();
            let children = vec![(key.clone(), left), (key, right)];
            self.bytes += bytes_of(&children);
            self.root = Page::Inner(children);
        }
        old
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let value = self.root.remove(key, &mut self.bytes)?;
        self.len -= 1;
        self.lower_root();
        Some(value)
    }

    /// A root of one child gives way to it.
    fn lower_root(&mut self) {
        while let Page::Inner(children) = &mut self.root
            && children.len() <= 1
        {
            self.bytes -= bytes_of(children);
            let child = children.pop();
            self.bytes -= child.as_ref().map_or(0, |child| child.0.heap_bytes());
            self.root = child.map_or(Page::Leaf(Vec::new()), |child| child.1);
        }
    }

    /// The last leaf, removed: for freeing a large map in steps.
    pub(super) fn take_leaf(&mut self) -> Option<Vec<(K, V)>> {
        let leaf = self.root.take_leaf(&mut self.bytes);
        self.len -= leaf.len();
        self.lower_root();
        (!leaf.is_empty()).then_some(leaf)
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q, below: bool) -> Found<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let (mut page, mut lower, mut next) = (&self.root, None, None);
        loop {
            let children = match page {
                Page::Leaf(items) => return Found { items, lower, next },
                Page::Inner(children) => children,
            };
            let before = children.partition_point(|child| {
                if below { child.0.borrow() < key } else { child.0.borrow() <= key }
            });
            let at = before.saturating_sub(1);
            let Some((bound, child)) = children.get(at) else {
                return Found { items: &[], lower: None, next: None };
            };
            if at > 0 {
                lower = Some(bound);
            }
            if let Some((bound, _)) = children.get(at + 1) {
                next = Some(bound);
            }
            page = child;
        }
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let items = self.find(key, false).items;
        let at = items.binary_search_by(|item| item.0.borrow().cmp(key)).ok()?;
        items.get(at).map(|item| &item.1)
    }

    pub(super) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let mut page = &mut self.root;
        loop {
            match page {
                Page::Leaf(items) => {
                    let at = items.binary_search_by(|item| item.0.borrow().cmp(key)).ok()?;
                    return items.get_mut(at).map(|item| &mut item.1);
                }
                Page::Inner(children) => {
                    let at = child_of(children, key);
                    page = &mut children.get_mut(at)?.1;
                }
            }
        }
    }

    pub(super) fn first(&self) -> Option<(&K, &V)> {
        let mut page = &self.root;
        while let Page::Inner(children) = page {
            page = &children.first()?.1;
        }
        let Page::Leaf(items) = page else { return None };
        items.first().map(|item| (&item.0, &item.1))
    }

    pub(super) fn last(&self) -> Option<(&K, &V)> {
        let mut page = &self.root;
        while let Page::Inner(children) = page {
            page = &children.last()?.1;
        }
        let Page::Leaf(items) = page else { return None };
        items.last().map(|item| (&item.0, &item.1))
    }

    pub(super) fn last_mut(&mut self) -> Option<(&K, &mut V)> {
        let mut page = &mut self.root;
        loop {
            match page {
                Page::Leaf(items) => return items.last_mut().map(|item| (&item.0, &mut item.1)),
                Page::Inner(children) => page = &mut children.last_mut()?.1,
            }
        }
    }

    /// Everything from a key on.
    pub(super) fn up_from<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let found = self.find(key, false);
        let at = found.items.partition_point(|item| item.0.borrow() < key);
        Iter { tree: self, items: tail(found.items, at), next: found.next }
    }

    /// As [`up_from`](Self::up_from), but begins one earlier when the key itself is missing and its
    /// predecessor lies in the same leaf, that is, at the last thing a split put before the key.
    pub(super) fn up_from_floor(&self, key: &K) -> Iter<'_, K, V> {
        let found = self.find(key, false);
        let at = found.items.partition_point(|item| item.0 <= *key).saturating_sub(1);
        Iter { tree: self, items: tail(found.items, at), next: found.next }
    }

    /// Everything from a key downwards.
    pub(super) fn down_from(&self, key: &K) -> Down<'_, K, V> {
        let found = self.find(key, false);
        let at = found.items.partition_point(|item| item.0 <= *key);
        let items = found.items.get(..at).unwrap_or_default().iter();
        Down { tree: self, items, lower: found.lower }
    }
}

fn tail<T>(items: &[T], at: usize) -> slice::Iter<'_, T> {
    items.get(at..).unwrap_or_default().iter()
}

/// Ascending.
pub(super) struct Iter<'a, K, V> {
    tree: &'a Tree<K, V>,
    items: slice::Iter<'a, (K, V)>,
    next: Option<&'a K>,
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { tree: self.tree, items: self.items.clone(), next: self.next }
    }
}

impl<'a, K: Key, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.items.next() {
                return Some((key, value));
            }
            let found = self.tree.find(self.next?, false);
            (self.items, self.next) = (found.items.iter(), found.next);
        }
    }
}

/// Descending.
pub(super) struct Down<'a, K, V> {
    tree: &'a Tree<K, V>,
    items: slice::Iter<'a, (K, V)>,
    lower: Option<&'a K>,
}

impl<'a, K: Key, V> Iterator for Down<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.items.next_back() {
                return Some((key, value));
            }
            let found = self.tree.find(self.lower?, true);
            (self.items, self.lower) = (found.items.iter(), found.lower);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::store::hash::Rng;

    impl<K: Key, V> Page<K, V> {
        /// Recounts bytes and items; checks the order and the bounds.
        fn check(&self, lower: Option<&K>, upper: Option<&K>, root: bool) -> (usize, usize, usize) {
            assert!(self.len() <= self.most());
            assert!(root || self.len() > 0, "an empty page");
            match self {
                Self::Leaf(items) => {
                    assert!(items.is_sorted_by(|a, b| a.0 < b.0));
                    for (key, _) in items {
                        assert!(lower.is_none_or(|lower| lower <= key), "a lower bound");
                        assert!(upper.is_none_or(|upper| key < upper), "an upper bound");
                    }
                    let keys = items.iter().map(|item| item.0.heap_bytes()).sum::<usize>();
                    (bytes_of(items) + keys, items.len(), 1)
                }
                Self::Inner(children) => {
                    let (mut bytes, mut len, mut depth) = (bytes_of(children), 0, None);
                    for (at, (key, child)) in children.iter().enumerate() {
                        let lower = if at == 0 { lower } else { Some(key) };
                        let upper = children.get(at + 1).map_or(upper, |next| Some(&next.0));
                        let (b, l, d) = child.check(lower, upper, false);
                        assert_eq!(*depth.get_or_insert(d), d, "depth");
                        bytes += b + key.heap_bytes();
                        len += l;
                    }
                    (bytes, len, depth.unwrap() + 1)
                }
            }
        }
    }

    impl<K: Key, V> Tree<K, V> {
        pub(in super::super) fn check(&self) -> usize {
            let (bytes, len, depth) = self.root.check(None, None, true);
            assert_eq!((self.bytes, self.len), (bytes, len), "bytes and length");
            depth
        }
    }

    fn drive<K: Key + std::fmt::Debug>(seed: u64, range: u64, make: impl Fn(u64) -> K) -> usize {
        let mut rng = Rng::new(seed);
        let (mut tree, mut model) = (Tree::new(), BTreeMap::new());
        let mut deepest = 0;
        for step in 0..40_000u64 {
            // Growth, then shrinking, then churn; mostly ascending for one seed in two.
            let key = make(if seed.is_multiple_of(2) && !step.is_multiple_of(4) {
                step
            } else {
                rng.next() % range
            });
            let grows = [8, 2, 5].get((step / 14_000) as usize).unwrap() > &(rng.next() % 10);
            if grows {
                assert_eq!(tree.insert(key.clone(), step), model.insert(key, step));
            } else {
                let near = model.range(&key..).next().or(model.iter().next());
                let key = near.map_or(key, |near| near.0.clone());
                assert_eq!(tree.remove(&key), model.remove(&key));
            }
            if step.is_multiple_of(512) {
                deepest = deepest.max(tree.check());
                let key = make(rng.next() % range);
                assert_eq!(tree.get(&key), model.get(&key));
                assert_eq!(tree.get_mut(&key), model.get_mut(&key));
                assert!(tree.up_from(&key).eq(model.range(&key..)));
                assert!(tree.down_from(&key).eq(model.range(..=&key).rev()));
                assert_eq!(tree.first(), model.first_key_value());
                assert_eq!(tree.last(), model.last_key_value());
            }
        }
        while let Some(leaf) = tree.take_leaf() {
            for (key, value) in leaf {
                assert_eq!(model.remove(&key), Some(value));
            }
            tree.check();
        }
        assert!(model.is_empty() && tree.is_empty());
        assert_eq!(tree.bytes(), 0, "an empty one holds nothing");
        deepest
    }

    #[test]
    fn it_is_an_ordered_map() {
        for seed in 1..5 {
            assert!(drive(seed, 30_000, |n| n) >= 2);
            assert!(drive(seed, 30_000, |n| StreamId::new(n / 7, n % 7)) >= 2);
            let name = |n: u64| format!("{n:x}-{}", "n".repeat((n % 40) as usize)).into_bytes();
            assert!(drive(seed, 30_000, |n| name(n).into_boxed_slice()) >= 3);
        }
    }

    #[test]
    fn ascending_keys_fill_their_pages_and_a_queue_stays_small() {
        let mut tree = Tree::new();
        for n in 0..200_000u64 {
            tree.insert(n, ());
        }
        assert!(tree.bytes() < 200_000 * 9, "{} bytes", tree.bytes());
        for n in 200_000..400_000u64 {
            tree.insert(n, ());
            tree.remove(&(n - 200_000));
        }
        tree.check();
        assert!(tree.bytes() < 200_000 * 9, "{} bytes", tree.bytes());
        for n in 200_000..399_990u64 {
            tree.remove(&n);
        }
        tree.check();
        assert!(tree.bytes() < 2 * PAGE_BYTES, "{} bytes", tree.bytes());
    }
}
