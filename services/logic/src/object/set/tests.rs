//! Sets against ordered sets, and at the limits of each form.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    super::{Hasher, Limits, Rng},
    *,
};

type Model = BTreeSet<Vec<u8>>;

fn name(member: i64) -> Vec<u8> {
    if member % 5 == 0 {
        format!("member:{member}").into_bytes()
    } else {
        member.to_string().into_bytes()
    }
}

fn members(set: &Set) -> Model {
    let mut out = Model::new();
    for member in set {
        assert!(out.insert(member.to_vec()), "a member twice");
    }
    assert_eq!(out.len(), set.len());
    out
}

impl Set {
    fn check(&self, hasher: &Hasher) {
        let heap = match &self.repr {
            Repr::Ints(ints) => ints.heap_bytes(),
            Repr::Packed(packed) => packed.heap_bytes(),
            Repr::Table(table) => {
                table.check(hasher);
                size_of_val(&**table) + table.heap_bytes()
            }
        };
        assert_eq!(self.mem_bytes(), heap);
    }

    fn form(&self) -> &'static str {
        match self.repr {
            Repr::Ints(_) => "ints",
            Repr::Packed(_) => "packed",
            Repr::Table(_) => "table",
        }
    }
}

#[test]
fn forms_change_where_redis_changes_them() {
    // OBJECT ENCODING of redis-server 7.0.15 with its defaults; forms are ours.
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let mut set = Set::new();
    assert_eq!((set.encoding(), set.mem_bytes(), set.is_empty()), ("intset", 0, true));
    for n in 0..512i64 {
        assert!(set.insert(n.to_string().as_bytes(), cx));
    }
    assert!(!set.insert(b"5", cx) && !set.contains(b"05", cx) && set.contains(b"511", cx));
    assert_eq!((set.encoding(), set.len()), ("intset", 512));
    assert!(set.intset().is_some());
    assert!(set.insert(b"-1", cx));
    assert_eq!((set.encoding(), set.form(), set.len()), ("hashtable", "table", 513));
    set.check(&hasher);
    // Members beside the struct and at most some bytes each: integers have no allocation.
    assert!(set.mem_bytes() < 513 * 24, "{} bytes", set.mem_bytes());

    for (count, word, form) in [
        (0, 64, "packed"),
        (127, 64, "packed"),
        (128, 1, "table"),
        (0, 65, "table"),
        (300, 1, "table"),
    ] {
        let mut set = Set::new();
        for n in 0..count {
            set.insert(i64::from(n).to_string().as_bytes(), cx);
        }
        let word = vec![b'w'; word];
        assert!(set.insert(&word, cx) && !set.insert(&word, cx) && set.contains(&word, cx));
        assert_eq!((set.encoding(), set.form()), ("hashtable", form));
        assert_eq!(set.len(), usize::try_from(count).unwrap() + 1);
        set.check(&hasher);
        assert!(set.remove(&word, cx) && !set.remove(&word, cx));
        assert_eq!(set.encoding(), "hashtable", "never back");
    }
    let none = Limits { set_max_intset_entries: 0, ..Limits::default() };
    let mut set = Set::new();
    set.insert(b"1", Cx { limits: &none, ..cx });
    assert_eq!(set.encoding(), "hashtable");
}

#[test]
fn a_packed_set_becomes_a_table_at_its_limit() {
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let mut set = Set::new();
    for n in 0..128 {
        set.insert(format!("m{n}").as_bytes(), cx);
    }
    assert_eq!(set.form(), "packed");
    assert!(!set.insert(b"m0", cx));
    assert_eq!(set.form(), "packed", "an old member adds nothing");
    assert!(set.insert(b"m128", cx));
    assert_eq!((set.form(), set.len()), ("table", 129));
    assert_eq!(members(&set), (0..129).map(|n| format!("m{n}").into_bytes()).collect());
    set.check(&hasher);
}

#[test]
fn chance_is_fair_in_every_form() {
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let mut rng = Rng::new(3);
    for (count, prefix, form) in [(100, "", "ints"), (100, "m", "packed"), (600, "m", "table")] {
        let mut set = Set::new();
        for n in 0..count {
            set.insert(format!("{prefix}{n}").as_bytes(), cx);
        }
        assert_eq!(set.form(), form);
        let (mut drawn, mut sampled, mut popped) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let rounds = 20 * count;
        set.random_many(rounds * 10, &mut rng, |m| *drawn.entry(m.to_vec()).or_insert(0u32) += 1);
        for _ in 0..rounds {
            set.sample(10, &mut rng, |m| *sampled.entry(m.to_vec()).or_insert(0u32) += 1);
            let member = set.pop(&mut rng).unwrap();
            assert!(set.insert(&member, cx), "a popped member is gone");
            *popped.entry(member).or_insert(0u32) += 1;
        }
        for (hits, expected) in [(drawn, 200.0), (sampled, 200.0), (popped, 20.0)] {
            // Each within six deviations, and none missing.
            assert_eq!(hits.len(), count, "{form}");
            let worst = hits.values().map(|&n| (f64::from(n) - expected).abs()).fold(0.0, f64::max);
            assert!(worst < 6.0 * f64::sqrt(expected), "{form}: off by {worst} from {expected}");
        }
    }
    let mut empty = Set::new();
    assert!(empty.random(&mut rng).is_none() && empty.pop(&mut rng).is_none());
    empty.random_many(5, &mut rng, |_| unreachable!("nothing to draw"));
}

#[derive(Debug, Clone)]
enum Op {
    Insert(i64),
    InsertWide(i64),
    Remove(i64),
    Pop(usize),
    Survey(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0i64..900).prop_map(Op::Insert),
        1 => any::<i64>().prop_map(Op::InsertWide),
        8 => (0i64..900).prop_map(Op::Remove),
        1 => (1usize..30).prop_map(Op::Pop),
        1 => (1usize..400).prop_map(Op::Survey),
    ]
}

fn apply(set: &mut Set, model: &mut Model, rng: &mut Rng, cx: Cx<'_>, op: Op) {
    match op {
        Op::Insert(n) => assert_eq!(set.insert(&name(n), cx), model.insert(name(n))),
        Op::InsertWide(n) => {
            let text = n.to_string().into_bytes();
            assert_eq!(set.insert(&text, cx), model.insert(text));
        }
        Op::Remove(n) => {
            assert_eq!(set.contains(&name(n), cx), model.contains(&name(n)));
            assert_eq!(set.remove(&name(n), cx), model.remove(&name(n)));
        }
        Op::Pop(count) => {
            for _ in 0..count.min(model.len()) {
                assert!(model.remove(&set.pop(rng).unwrap()));
            }
        }
        Op::Survey(count) => {
            let (mut cursor, mut seen) = (0, Model::new());
            loop {
                cursor =
                    set.scan(cursor, count, cx, |member| assert!(seen.insert(member.to_vec())));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(&seen, model);
            let mut sampled = Model::new();
            set.sample(count, rng, |member| assert!(sampled.insert(member.to_vec())));
            assert!(sampled.is_subset(model) && sampled.len() == count.min(model.len()));
            assert!(set.random(rng).is_none_or(|member| model.contains(&member.to_vec())));
        }
    }
    assert_eq!(set.len(), model.len());
}

/// A set of a form that the numbers ask for.
fn built(numbers: &[i64], words: bool, cx: Cx<'_>) -> (Set, Model) {
    let (mut set, mut model) = (Set::new(), Model::new());
    for &n in numbers {
        let text = if words { name(n) } else { n.to_string().into_bytes() };
        set.insert(&text, cx);
        model.insert(text);
    }
    (set, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_set_is_a_set(
        ops in prop::collection::vec(op(), 1..1500),
        ints_first in prop::collection::vec(1i64..5, 0..4),
        limit in prop::sample::select(vec![0usize, 20, 512]),
        seed in any::<u64>(),
    ) {
        let limits = Limits { set_max_intset_entries: limit, ..Limits::default() };
        let hasher = Hasher::new(seed);
        let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
        let (mut set, mut model) = built(&ints_first, false, cx);
        let mut rng = Rng::new(seed);
        for (n, op) in ops.into_iter().enumerate() {
            apply(&mut set, &mut model, &mut rng, cx, op);
            if n % 100 == 0 {
                set.check(&hasher);
            }
        }
        set.check(&hasher);
        prop_assert_eq!(members(&set), model);
        while set.reclaim(100) {}
        prop_assert_eq!(set.mem_bytes(), 0);
    }

    #[test]
    fn algebra_is_that_of_sets(
        parts in prop::collection::vec(
            (prop::collection::vec(0i64..700, 0..700), any::<bool>()), 1..5),
        limit in 0usize..50,
    ) {
        let (hasher, limits) = (Hasher::new(2), Limits::default());
        let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
        let built: Vec<_> = parts.iter().map(|(numbers, words)| built(numbers, *words, cx)).collect();
        let sets: Vec<&Set> = built.iter().map(|(set, _)| set).collect();
        let (_, first) = built.first().unwrap();
        let others = built.iter().skip(1).map(|(_, model)| model);
        let mut common = first.clone();
        let (mut all, mut rest) = (first.clone(), first.clone());
        for other in others {
            common.retain(|member| other.contains(member));
            rest.retain(|member| !other.contains(member));
            all.extend(other.iter().cloned());
        }
        let mut out = Model::new();
        let given = intersect(&sets, usize::MAX, cx, |m| assert!(out.insert(m.to_vec())));
        prop_assert_eq!((given, &out), (common.len(), &common));
        let mut some = 0;
        let given = intersect(&sets, limit, cx, |_| some += 1);
        prop_assert_eq!((given, some), (limit.min(common.len()), given));
        prop_assert_eq!(members(&union(&sets, cx)), all);
        let mut out = Model::new();
        let (head, tail) = sets.split_first().unwrap();
        let given = difference(head, tail, cx, |m| assert!(out.insert(m.to_vec())));
        prop_assert_eq!((given, out), (rest.len(), rest));
        let same = sets.first().unwrap();
        prop_assert_eq!(difference(same, &[same], cx, |_| ()), 0);
        prop_assert_eq!(intersect(&[same, same], usize::MAX, cx, |_| ()), same.len());
        prop_assert_eq!(intersect(&[], usize::MAX, cx, |_| ()), 0);
    }
}
