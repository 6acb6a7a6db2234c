//! The table against an ordered map, a recount of its memory, and its promises about scans and chance.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::object::Rng;

/// A key, a value as padding, and an expiry.
struct Item {
    key: Box<[u8]>,
    pad: Vec<u8>,
    expire: Option<u64>,
}

impl Keyed for Item {
    fn hash(&self, hasher: &Hasher) -> u64 {
        hasher.hash(&self.key)
    }

    fn has_key(&self, key: &[u8]) -> bool {
        *self.key == *key
    }

    fn heap_bytes(&self) -> usize {
        self.key.len() + self.pad.capacity()
    }

    fn expire_ms(&self) -> Option<u64> {
        self.expire
    }
}

fn item(key: u32, pad: usize, expire: Option<u64>) -> Item {
    Item { key: name(key).into(), pad: vec![1; pad], expire }
}

fn name(key: u32) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

impl<T: Keyed> SplitTable<T> {
    /// Recounts everything and checks each structural promise.
    pub(crate) fn check(&self, hasher: &Hasher) {
        let (mut len, mut inner) = (0, 0);
        let mut depths = vec![0; self.by_depth.len()];
        for (n, leaf) in self.leaves.iter().enumerate() {
            assert_eq!(leaf.tags.len(), leaf.items.len());
            assert!(leaf.items.len() <= self.widest);
            len += leaf.items.len();
            inner += leaf.vec_bytes() + leaf.items.iter().map(Keyed::heap_bytes).sum::<usize>();
            depths[leaf.depth() as usize] += 1;
            for item in &leaf.items {
                let hash = item.hash(hasher);
                assert_eq!(self.leaf_of(hash), Some(n as u32), "directory");
                assert!(leaf.find(hash, |other| std::ptr::eq(other, item)).is_some(), "tag");
                assert!(
                    item.expire_ms().is_none_or(|at| self.dues.get(n) <= at),
                    "a note too late"
                );
            }
        }
        let entries: usize =
            self.leaves.iter().map(|leaf| 1 << (self.depth() - leaf.depth())).sum();
        assert_eq!(self.directory.len(), entries);
        assert_eq!((self.len, self.inner_bytes), (len, inner));
        assert_eq!(self.by_depth, depths);
        let heap = inner
            + self.leaves.len() * size_of::<Leaf<T>>()
            + self.leaves.capacity() * 8
            + self.directory.capacity() * 4
            + self.by_depth.capacity() * 4
            + self.dues.heap_bytes();
        assert_eq!(self.heap_bytes(), heap);
        assert!(len > 0 || heap == 0, "an empty table holds nothing");
    }
}

fn filled(count: u32, hasher: &Hasher) -> SplitTable<Item> {
    let mut table = SplitTable::new();
    for key in 0..count {
        table.insert(hasher.hash(&name(key)), item(key, 3, None), hasher);
    }
    table
}

fn scan_all(table: &SplitTable<Item>, count: usize, hasher: &Hasher) -> Vec<Vec<u8>> {
    let (mut seen, mut cursor) = (Vec::new(), 0);
    loop {
        cursor = table.scan(cursor, count, hasher, |item| seen.push(item.key.to_vec()));
        if cursor == 0 {
            return seen;
        }
    }
}

#[test]
fn growth_moves_one_leaf_at_a_time_and_shrinks_back() {
    let hasher = Hasher::new(1);
    let mut table = SplitTable::new();
    let mut leaves = 1;
    for key in 0..50_000 {
        table.insert(hasher.hash(&name(key)), item(key, 0, None), &hasher);
        assert!(table.leaves.len() - leaves <= 2, "more than a leaf or two split");
        leaves = table.leaves.len();
    }
    table.check(&hasher);
    assert!(leaves > 400 && leaves < 1200, "{leaves} leaves");
    // Vectors, directory and leaves beside the items and their 16 bytes.
    let own: usize = table.iter().map(|item| item.heap_bytes() + size_of::<Item>()).sum();
    let spent = (table.heap_bytes() - own) / 50_000;
    assert!(spent <= 12, "{spent} bytes an item");
    for key in 0..50_000 {
        assert!(table.remove(hasher.hash(&name(key)), &name(key)).is_some());
        if key % 5000 == 4999 {
            table.check(&hasher);
            let left = 49_999 - key as usize;
            assert!(
                table.leaves.len() <= left / 16 + 1,
                "{} leaves for {left}",
                table.leaves.len()
            );
            assert!(table.directory.len() <= table.leaves.len().max(1) * 32);
        }
    }
    assert_eq!(table.heap_bytes(), 0);
}

#[test]
fn colliding_keys_stay_findable_and_bounded() {
    for mask in [0, 1, 0xFFFF, 0xF000_0000_0000_0000, 0xFFFF_0000_0000_FFFF] {
        let mut hasher = Hasher::new(1);
        hasher.mask = mask;
        let mut table = filled(3000, &hasher);
        table.check(&hasher);
        assert!(table.directory.len() <= 32 * (3000 / LEAF_MAX + 1));
        for key in 0..3000 {
            assert!(table.get(hasher.hash(&name(key)), &name(key)).is_some());
        }
        let mut seen = scan_all(&table, 10, &hasher);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3000);
        let mut rng = Rng::new(5);
        for _ in 0..1000 {
            assert!(table.random(&mut rng).is_some());
        }
        for key in 0..3000 {
            assert!(table.remove(hasher.hash(&name(key)), &name(key)).is_some());
        }
        table.check(&hasher);
    }
}

#[test]
fn a_scan_gives_each_item_that_stays_exactly_once() {
    let hasher = Hasher::new(9);
    for (count, churn) in [(1usize, 10u32), (10, 3), (10, 300), (1000, 3000)] {
        let mut table = filled(3000, &hasher);
        let mut rng = Rng::new(count as u64);
        let (mut seen, mut cursor) = (BTreeMap::<Vec<u8>, u32>::new(), 0);
        let mut steps = 0;
        loop {
            let mut given = 0;
            cursor = table.scan(cursor, count, &hasher, |item| {
                *seen.entry(item.key.to_vec()).or_default() += 1;
                given += 1;
            });
            assert!(given <= count.max(1), "{given} for {count}");
            steps += 1;
            if cursor == 0 {
                break;
            }
            // The first 1,000 stay; the others go and come, in waves that split and merge.
            for _ in 0..rng.below(churn) {
                let key = 1000 + rng.below(4000);
                let gone = table.remove(hasher.hash(&name(key)), &name(key));
                if steps % 50 < 25 && gone.is_none() {
                    table.insert(hasher.hash(&name(key)), item(key, 0, None), &hasher);
                }
            }
        }
        table.check(&hasher);
        for key in 0..1000 {
            assert_eq!(seen.get(&name(key)), Some(&1), "key {key} of a scan by {count}");
        }
    }
    let table = filled(3000, &hasher);
    for cursor in [1, 12345, 1 << 47, (1 << 48) - 1, 1 << 48, u64::MAX] {
        let next = table.scan(cursor, 1, &hasher, |_| {});
        assert!(next == 0 || next > cursor, "any number is a cursor");
    }
}

#[test]
fn every_item_is_picked_about_equally_often() {
    let hasher = Hasher::new(4);
    let mut table = filled(2000, &hasher);
    // Leaves of different fill: remove most of the lower half of the hash space.
    for key in 0..2000 {
        let hash = hasher.hash(&name(key));
        if hash >> 63 == 0 && key % 4 != 0 {
            table.remove(hash, &name(key));
        }
    }
    let mut counts: BTreeMap<Vec<u8>, u32> =
        table.iter().map(|item| (item.key.to_vec(), 0)).collect();
    let mut rng = Rng::new(11);
    let draws = 200 * table.len();
    for _ in 0..draws {
        *counts.get_mut(&*table.random(&mut rng).unwrap().key).unwrap() += 1;
    }
    // Chi-squared with about 1,250 degrees of freedom: mean n, deviation sqrt(2n).
    let n = counts.len() as f64;
    let chi: f64 = counts.values().map(|&c| (f64::from(c) - 200.0).powi(2) / 200.0).sum();
    assert!((chi - n).abs() < 6.0 * (2.0 * n).sqrt(), "chi squared {chi} for {n}");
}

#[test]
fn samples_are_distinct_and_fair() {
    let hasher = Hasher::new(4);
    let table = filled(300, &hasher);
    let mut rng = Rng::new(2);
    let even = |item: &Item| item.key.last().unwrap().is_multiple_of(2);
    for count in [0usize, 1, 50, 99, 100, 200, 299, 300, 1000] {
        let mut seen = BTreeSet::new();
        table.sample(count, &mut rng, |_| true, |item| assert!(seen.insert(item.key.to_vec())));
        assert_eq!(seen.len(), count.min(300));
        let mut passed = 0;
        table.sample(count, &mut rng, even, |item| {
            assert!(even(item));
            passed += 1;
        });
        assert_eq!(passed, count.min(150));
    }
    for count in [60usize, 150] {
        let mut hits = BTreeMap::<Vec<u8>, u32>::new();
        for _ in 0..1000 {
            table.sample(
                count,
                &mut rng,
                |_| true,
                |item| {
                    *hits.entry(item.key.to_vec()).or_default() += 1;
                },
            );
        }
        let expected = 1000.0 * count as f64 / 300.0;
        for (key, &times) in &hits {
            let off = (f64::from(times) - expected).abs();
            assert!(off < 6.0 * expected.sqrt(), "{key:?} {times} times of {expected}");
        }
        assert_eq!(hits.len(), 300);
    }
}

#[test]
fn due_items_go_in_bounded_steps() {
    let hasher = Hasher::new(6);
    let mut table = SplitTable::new();
    for key in 0..5000u32 {
        let expire = (key % 5 != 0).then(|| u64::from(1000 + key));
        table.insert(hasher.hash(&name(key)), item(key, 2, expire), &hasher);
    }
    table.check(&hasher);
    assert!(table.next_due_ms().is_some_and(|at| at <= 1001));
    assert_eq!(table.reap(1001, 1000, |_| {}), ReapStep::default(), "not due at its own time");
    assert_eq!(table.live_len(1003), 4999 - 1);
    let mut gone = BTreeSet::new();
    let mut steps = 0;
    loop {
        let before = table.len();
        let step = table.reap(4000, 100, |item| assert!(gone.insert(item.key.to_vec())));
        assert_eq!(before - table.len(), step.expired);
        assert!(step.expired <= 100 + LEAF_MAX, "a step of {}", step.expired);
        table.check(&hasher);
        steps += 1;
        if !step.more {
            break;
        }
    }
    assert!(steps > 20, "{steps} steps");
    assert_eq!(gone.len(), (0..3000).filter(|key| key % 5 != 0).count());
    assert!(table.next_due_ms().is_some_and(|at| (4000..=4001).contains(&at)));
    assert_eq!(table.live_len(4000), table.len());
    while table.reap(u64::MAX - 1, 1, |_| {}).more {}
    assert_eq!((table.len(), table.next_due_ms()), (1000, None));
    table.check(&hasher);
}

#[test]
fn a_dead_table_is_freed_in_steps() {
    let hasher = Hasher::new(6);
    let mut table = filled(5000, &hasher);
    let mut steps = 0;
    loop {
        let before = table.len();
        let more = table.reclaim(100);
        assert!(before - table.len() <= 100);
        let inner: usize = table
            .leaves
            .iter()
            .map(|leaf| leaf.vec_bytes() + leaf.items.iter().map(Keyed::heap_bytes).sum::<usize>())
            .sum();
        assert_eq!(table.inner_bytes, inner);
        steps += 1;
        if !more {
            break;
        }
    }
    assert!((50..200).contains(&steps), "{steps} steps");
    assert_eq!((table.len(), table.heap_bytes()), (0, 0));
}

#[derive(Debug, Clone)]
enum Op {
    Put { key: u32, pad: usize, expire: Option<u64> },
    Remove { key: u32 },
    RemoveMany { from: u32, count: u32 },
    Reap { now: u64, budget: usize },
    Pick,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u32..1500;
    prop_oneof![
        30 => (key.clone(), 0usize..40, prop::option::weighted(0.3, 0u64..1000))
            .prop_map(|(key, pad, expire)| Op::Put { key, pad, expire }),
        8 => key.clone().prop_map(|key| Op::Remove { key }),
        1 => (key, 1u32..400).prop_map(|(from, count)| Op::RemoveMany { from, count }),
        1 => (0u64..600, 1usize..500).prop_map(|(now, budget)| Op::Reap { now, budget }),
        2 => Just(Op::Pick),
    ]
}

type Model = BTreeMap<u32, (usize, Option<u64>)>;

fn apply(table: &mut SplitTable<Item>, model: &mut Model, rng: &mut Rng, hasher: &Hasher, op: Op) {
    match op {
        Op::Put { key, pad, expire } => {
            let hash = hasher.hash(&name(key));
            let changed = table.update(hash, &name(key), |old| {
                old.pad = vec![2; pad];
                old.expire = expire;
            });
            assert_eq!(changed.is_some(), model.insert(key, (pad, expire)).is_some());
            if changed.is_none() {
                table.insert(hash, item(key, pad, expire), hasher);
            }
        }
        Op::Remove { key } => {
            let gone = table.remove(hasher.hash(&name(key)), &name(key));
            assert_eq!(gone.map(|item| (item.pad.len(), item.expire)), model.remove(&key));
        }
        Op::RemoveMany { from, count } => {
            for key in from..from + count {
                apply(table, model, rng, hasher, Op::Remove { key });
            }
        }
        Op::Reap { now, budget } => {
            let step = table.reap(now, budget, |item| {
                let key = item.key.strip_prefix(b"key:").unwrap();
                let key = std::str::from_utf8(key).unwrap().parse().unwrap();
                let (_, expire) = model.remove(&key).expect("reaped twice");
                assert!(expire.unwrap() < now, "reaped early");
            });
            let due = model.values().filter(|(_, at)| at.is_some_and(|at| at < now)).count();
            assert!(step.more || due == 0);
            assert_eq!(table.live_len(now), model.len() - due);
        }
        Op::Pick => assert_eq!(table.random(rng).is_some(), !model.is_empty()),
    }
    assert_eq!(table.len(), model.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_a_map(
        ops in prop::collection::vec(op(), 1..3000),
        mask in prop_oneof![3 => Just(u64::MAX), 1 => Just(0xFFF0_0000_0000_003F), 1 => Just(1)],
    ) {
        let mut hasher = Hasher::new(8);
        hasher.mask = mask;
        let (mut table, mut model, mut rng) = (SplitTable::new(), Model::new(), Rng::new(1));
        for (n, op) in ops.into_iter().enumerate() {
            apply(&mut table, &mut model, &mut rng, &hasher, op);
            if n % 200 == 0 {
                table.check(&hasher);
            }
        }
        table.check(&hasher);
        let mut seen = scan_all(&table, 7, &hasher);
        seen.sort_unstable();
        let mut keys: Vec<_> = model.keys().map(|&key| name(key)).collect();
        keys.sort_unstable();
        prop_assert_eq!(&seen, &keys);
        prop_assert_eq!(table.iter().count(), keys.len());
        for (&key, &(pad, expire)) in &model {
            let found = table.get(hasher.hash(&name(key)), &name(key)).unwrap();
            prop_assert_eq!((found.pad.len(), found.expire), (pad, expire));
            prop_assert!(table.remove(hasher.hash(&name(key)), &name(key)).is_some());
        }
        prop_assert_eq!(table.heap_bytes(), 0);
    }
}
