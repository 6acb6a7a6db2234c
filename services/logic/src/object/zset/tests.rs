//! Sorted sets against a plain sorted vector, small and large, with and without colliding hashes.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::{
    combine::{Aggregate, Source, Weighted, diff, inter, inter_len, union},
    *,
};
use crate::object::Limits;

/// Two limits: those of Redis, and none for packed sets at all.
fn limits(entries: usize, value: usize) -> Limits {
    Limits {
        zset_max_listpack_entries: entries,
        zset_max_listpack_value: value,
        ..Limits::default()
    }
}

fn both() -> [Limits; 2] {
    [Limits::default(), limits(0, 64)]
}

type Model = Vec<(f64, Vec<u8>)>;

fn order(a: &(f64, Vec<u8>), b: &(f64, Vec<u8>)) -> std::cmp::Ordering {
    compare_scores(a.0, b.0).then_with(|| a.1.cmp(&b.1))
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(u32::try_from(bound.max(1)).expect("small")) as usize
}

fn score(rng: &mut Rng) -> f64 {
    match below(rng, 12) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => -0.0,
        3 => 1e300,
        4..7 => f64::from(rng.below(100)) / 7.0,
        _ => f64::from(rng.below(9)) - 4.0,
    }
}

fn member(rng: &mut Rng, most: usize) -> Vec<u8> {
    match below(rng, 3) {
        0 => below(rng, most).to_string().into_bytes(),
        1 => format!("m{}", below(rng, most)).into_bytes(),
        _ => vec![b'z'; below(rng, 70)],
    }
}

impl Zset {
    fn items(&self) -> Model {
        self.iter(0..usize::MAX).map(|item| (item.score, item.member.to_vec())).collect()
    }

    fn check(&self, model: &Model, cx: Cx<'_>) {
        assert_eq!(self.len(), model.len());
        assert_eq!(&self.items(), model);
        let mut back: Model =
            self.iter(0..usize::MAX).rev().map(|item| (item.score, item.member.to_vec())).collect();
        back.reverse();
        assert_eq!(&back, model);
        for (rank, (score, member)) in model.iter().enumerate() {
            assert_eq!(self.score(member, cx), Some(*score));
            assert_eq!(self.rank(member, false, cx), Some((rank, *score)));
            assert_eq!(self.rank(member, true, cx), Some((model.len() - 1 - rank, *score)));
        }
        if let Form::Sorted(sorted) = &self.form {
            sorted.tree.check();
            assert_eq!(sorted.table.len(), model.len());
            let table = sorted.table.heap_bytes();
            assert_eq!(self.mem_bytes(), size_of::<Sorted>() + sorted.tree.recount() + table);
        }
    }
}

fn add(set: &mut Zset, model: &mut Model, rng: &mut Rng, cx: Cx<'_>) {
    let (member, score) = (member(rng, 400), score(rng));
    let flag = |rng: &mut Rng| below(rng, 5) == 0;
    let rules =
        AddRules { nx: flag(rng), xx: flag(rng), gt: flag(rng), lt: flag(rng), incr: flag(rng) };
    let there = model.iter().position(|(_, held)| *held == member);
    let result = set.add(&member, score, rules, cx);
    let Some(at) = there else {
        if rules.xx {
            assert_eq!(result, Ok(Added::Refused));
        } else {
            assert_eq!(result, Ok(Added::New(score)));
            model.push((score, member));
            model.sort_by(order);
        }
        return;
    };
    let held = model[at].0;
    let new = if rules.incr { held + score } else { score };
    if rules.nx {
        assert_eq!(result, Ok(Added::Refused));
    } else if new.is_nan() {
        assert_eq!(result, Err(NotANumber));
    } else if (rules.gt && new <= held) || (rules.lt && new >= held) {
        assert_eq!(result, Ok(Added::Refused));
    } else if new == held {
        assert_eq!(result, Ok(Added::Same(new)));
    } else {
        assert_eq!(result, Ok(Added::Changed(new)));
        model[at].0 = new;
        model.sort_by(order);
    }
}

fn look(set: &Zset, model: &Model, rng: &mut Rng) {
    let (min, max) = (score(rng), score(rng));
    let ranks = set.by_score(ScoreBound::Inclusive(min), ScoreBound::Exclusive(max));
    let found: Model = set.iter(ranks).map(|item| (item.score, item.member.to_vec())).collect();
    let expected: Model =
        model.iter().filter(|(score, _)| *score >= min && *score < max).cloned().collect();
    assert_eq!(found, expected);
    let ranks = set.by_score(ScoreBound::Exclusive(min), ScoreBound::Inclusive(max));
    let expected = model.iter().filter(|(score, _)| *score > min && *score <= max).count();
    assert_eq!(ranks.len(), expected);
    let (start, stop) = (i64::from(rng.below(200)) - 100, i64::from(rng.below(200)) - 100);
    let mut reversed = model.clone();
    reversed.reverse();
    let span = span::clip(start, stop, model.len());
    let found: Model = set
        .iter(set.by_index(start, stop, true))
        .rev()
        .map(|item| (item.score, item.member.to_vec()))
        .collect();
    assert_eq!(found, reversed[span.clone()]);
    assert_eq!(set.by_index(start, stop, false), if span.is_empty() { 0..0 } else { span });
    let rank = below(rng, model.len() + 1);
    let at = set.at(rank).map(|item| (item.score, item.member.to_vec()));
    assert_eq!(at.as_ref(), model.get(rank));
}

fn take(set: &mut Zset, model: &mut Model, rng: &mut Rng, cx: Cx<'_>) {
    match below(rng, 4) {
        0 => {
            let member = member(rng, 400);
            let at = model.iter().position(|(_, held)| *held == member);
            assert_eq!(set.remove(&member, cx), at.map(|at| model.remove(at).0));
        }
        1 => {
            let start = below(rng, model.len() + 1);
            let end = (start + below(rng, 9)).min(model.len());
            assert_eq!(set.remove_ranks(start..end, cx), end - start);
            model.drain(start..end);
        }
        highest => {
            let count = below(rng, 4).min(model.len());
            let popped = set.pop(highest == 2, count, cx);
            let expected: Model = if highest == 2 {
                model.drain(model.len() - count..).rev().collect()
            } else {
                model.drain(..count).collect()
            };
            assert!(popped.into_iter().map(|(member, score)| (score, member)).eq(expected));
        }
    }
}

#[test]
fn a_set_is_a_sorted_vector() {
    for (seed, limits, mask) in [
        (1, limits(128, 64), u64::MAX),
        (2, limits(0, 64), u64::MAX),
        (3, limits(0, 64), 0x7000_0000_0000_0003),
        (4, limits(1000, 1000), u64::MAX),
    ] {
        let mut rng = Rng::new(seed);
        let mut hasher = Hasher::new(seed);
        hasher.mask = mask;
        let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
        let mut set = Zset::new();
        let mut model = Model::new();
        for round in 0..4_000 {
            match below(&mut rng, 8) {
                0..4 if round % 1_000 < 800 => add(&mut set, &mut model, &mut rng, cx),
                0..6 => look(&set, &model, &mut rng),
                _ => take(&mut set, &mut model, &mut rng, cx),
            }
            if round % 50 == 0 {
                set.check(&model, cx);
            }
        }
        set.check(&model, cx);
        while set.reclaim(16) {}
        assert_eq!((set.len(), set.mem_bytes()), (0, 0));
    }
}

#[test]
fn limits_are_where_redis_has_them() {
    let hasher = Hasher::new(0);
    let limits = Limits::default();
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let mut set = Zset::new();
    let add = |set: &mut Zset, member: &[u8]| {
        set.add(member, 1.0, AddRules::default(), cx).expect("a number");
    };
    for n in 0..128 {
        add(&mut set, format!("{n}").as_bytes());
        assert_eq!(set.encoding(), "listpack");
    }
    add(&mut set, b"0");
    assert_eq!(set.encoding(), "listpack", "it was there");
    add(&mut set, b"128");
    assert_eq!((set.encoding(), set.len()), ("skiplist", 129));
    for n in 0..129 {
        assert!(set.remove(format!("{n}").as_bytes(), cx).is_some());
        assert_eq!(set.encoding(), "skiplist", "it stays so");
    }
    assert!(set.is_empty());
    let mut set = Zset::new();
    add(&mut set, &[b'x'; 64]);
    assert_eq!(set.encoding(), "listpack");
    add(&mut set, &[b'x'; 65]);
    assert_eq!((set.encoding(), set.len()), ("skiplist", 2));
}

#[test]
fn nan_never_gets_in() {
    let hasher = Hasher::new(0);
    let incr = AddRules { incr: true, ..AddRules::default() };
    for limits in both() {
        let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
        let mut set = Zset::new();
        assert_eq!(set.add(b"a", f64::NAN, incr, cx), Err(NotANumber));
        assert_eq!(set.add(b"a", f64::INFINITY, incr, cx), Ok(Added::New(f64::INFINITY)));
        assert_eq!(set.add(b"a", f64::NEG_INFINITY, incr, cx), Err(NotANumber));
        assert_eq!(set.items(), [(f64::INFINITY, b"a".to_vec())]);
    }
}

#[test]
fn scores_survive_packing() {
    let hasher = Hasher::new(0);
    let limits = Limits::default();
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let mut rng = Rng::new(12);
    let special = [
        0.1,
        -0.5,
        1e17,
        1e300,
        -1e-300,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        9_007_199_254_740_993.0,
    ];
    let random = std::iter::repeat_with(|| f64::from_bits(rng.next())).take(500);
    for score in special.into_iter().chain(random).filter(|score| !score.is_nan()) {
        let mut set = Zset::new();
        set.add(b"m", score, AddRules::default(), cx).expect("a number");
        assert_eq!(set.score(b"m", cx), Some(score), "{score:e}");
    }
}

#[test]
fn bounds_are_read_as_redis_writes_them() {
    use ScoreBound::{Exclusive, Inclusive};
    for (text, expected) in [
        ("1.5", Some(Inclusive(1.5))),
        ("(1.5", Some(Exclusive(1.5))),
        ("-inf", Some(Inclusive(f64::NEG_INFINITY))),
        ("(+inf", Some(Exclusive(f64::INFINITY))),
        ("1e3", Some(Inclusive(1000.0))),
        ("nan", None),
        ("", None),
        ("(", None),
        ("1x", None),
        ("[1", None),
    ] {
        assert_eq!(ScoreBound::parse(text.as_bytes()), expected, "{text}");
    }
    for (text, expected) in [
        ("-", Some(LexBound::Least)),
        ("+", Some(LexBound::Most)),
        ("[a", Some(LexBound::Inclusive(b"a"))),
        ("(", Some(LexBound::Exclusive(b""))),
        ("a", None),
        ("", None),
        ("--", None),
    ] {
        assert_eq!(LexBound::parse(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn ranges_of_members() {
    let hasher = Hasher::new(0);
    for limits in both() {
        let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
        let mut set = Zset::new();
        for member in ["10", "a", "9", "b", "", "ab"] {
            set.add(member.as_bytes(), 0.0, AddRules::default(), cx).expect("a number");
        }
        let found = |min: &str, max: &str| {
            let bound = |text| LexBound::parse(text).expect("a bound");
            let ranks = set.by_lex(bound(min.as_bytes()), bound(max.as_bytes()));
            let texts: Vec<_> = set
                .iter(ranks)
                .map(|item| String::from_utf8(item.member.to_vec()).expect("text"))
                .collect();
            texts.join(" ")
        };
        assert_eq!(found("-", "+"), " 10 9 a ab b");
        assert_eq!(found("[9", "(b"), "9 a ab");
        assert_eq!(found("(9", "[b"), "a ab b");
        assert_eq!(found("(", "[1"), "");
        assert_eq!(found("[", "[10"), " 10");
        assert_eq!(found("+", "-"), "");
        assert_eq!(found("[b", "[a"), "");
    }
}

#[test]
fn a_limit_counts_from_where_the_range_is_read() {
    assert_eq!(limit(10..20, 0, -1, false), 10..20);
    assert_eq!(limit(10..20, 3, 2, false), 13..15);
    assert_eq!(limit(10..20, 3, 2, true), 15..17);
    assert_eq!(limit(10..20, 8, 9, false), 18..20);
    assert_eq!(limit(10..20, 8, 9, true), 10..12);
    assert!(limit(10..20, 10, 1, false).is_empty());
    assert!(limit(10..20, 99, -1, true).is_empty());
    assert!(limit(10..20, -1, -1, false).is_empty());
    assert!(limit(10..20, 0, 0, true).is_empty());
}

#[test]
fn a_scan_gives_what_stays_while_others_come_and_go() {
    let hasher = Hasher::new(5);
    let limits = Limits::default();
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let mut rng = Rng::new(5);
    let mut set = Zset::new();
    let name = |n: usize| format!("member:{n}").into_bytes();
    for n in 0..5_000 {
        set.add(&name(n), n as f64, AddRules::default(), cx).expect("a number");
    }
    let mut seen = view::HashSet::default();
    let mut cursor = 0;
    let mut next = 5_000;
    loop {
        cursor = set.scan(cursor, 50, cx, |item| {
            seen.insert(item.member.to_vec());
        });
        // Odd ones go and new ones come; even ones below 5,000 stay.
        for _ in 0..60 {
            set.remove(&name(below(&mut rng, 5_000) | 1), cx);
            set.add(&name(next), 0.5, AddRules::default(), cx).expect("a number");
            next += 1;
        }
        if cursor == 0 {
            break;
        }
    }
    assert!((0..5_000).step_by(2).all(|n| seen.contains(&name(n))));
    let mut small = Zset::new();
    small.add(b"a", 1.0, AddRules::default(), cx).expect("a number");
    let mut given = 0;
    assert_eq!(small.scan(0, 1, cx, |_| given += 1), 0);
    assert_eq!(given, 1);
}

#[test]
fn samples_are_different_members_or_not() {
    let hasher = Hasher::new(5);
    let mut rng = Rng::new(6);
    for limits in both() {
        let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
        let mut set = Zset::new();
        for n in 0..40_u32 {
            let member = n.to_string();
            set.add(member.as_bytes(), f64::from(n), AddRules::default(), cx).expect("a number");
        }
        let mut times = [0_u32; 40];
        for _ in 0..1_000 {
            let mut picked = Vec::new();
            set.sample(10, &mut rng, |item| picked.extend(item.member.as_int()));
            assert_eq!(picked.len(), 10);
            picked.iter().for_each(|&at| times[usize::try_from(at).expect("below 40")] += 1);
            picked.sort_unstable();
            picked.dedup();
            assert_eq!(picked.len(), 10, "all different");
        }
        assert!(times.iter().all(|&times| (150..350).contains(&times)), "{times:?}");
        let count = |count: i64, rng: &mut Rng| {
            let mut given = 0;
            set.sample(count, rng, |_| given += 1);
            given
        };
        assert_eq!(count(-100, &mut rng), 100);
        assert_eq!(count(100, &mut rng), 40);
        assert_eq!(count(0, &mut rng), 0);
    }
    Zset::new().sample(-3, &mut rng, |_| unreachable!("there is none"));
}

#[test]
fn sets_are_combined() {
    let hasher = Hasher::new(0);
    let limits = Limits::default();
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let made = |items: &[(&str, f64)]| {
        let mut set = Zset::new();
        for (member, score) in items {
            set.add(member.as_bytes(), *score, AddRules::default(), cx).expect("ok");
        }
        set
    };
    let inf = f64::INFINITY;
    let a = made(&[("a", 1.0), ("b", 2.0), ("c", 3.0), ("i", inf), ("o", 0.0)]);
    let b = made(&[("b", 10.0), ("c", -20.0), ("d", 4.0), ("i", -inf), ("o", 0.0), ("p", 0.0)]);
    let inputs = [Weighted { source: &a, weight: 2.0 }, Weighted { source: &b, weight: 1.0 }];
    let plain: [&dyn Source; 2] = [&a, &b];
    let text = |set: &Zset| {
        let items: Vec<_> = set
            .items()
            .iter()
            .map(|(score, member)| format!("{}:{score}", String::from_utf8_lossy(member)))
            .collect();
        items.join(" ")
    };
    let unite = |aggregate| text(&union(&inputs, aggregate, cx));
    assert_eq!(unite(Aggregate::Sum), "c:-14 i:0 o:0 p:0 a:2 d:4 b:14");
    assert_eq!(unite(Aggregate::Min), "i:-inf c:-20 o:0 p:0 a:2 b:4 d:4");
    assert_eq!(unite(Aggregate::Max), "o:0 p:0 a:2 d:4 c:6 b:10 i:inf");
    assert_eq!(text(&inter(&inputs, Aggregate::Sum, cx)), "c:-14 i:0 o:0 b:14");
    assert_eq!(text(&inter(&inputs, Aggregate::Max, cx)), "o:0 c:6 b:10 i:inf");
    assert_eq!(text(&diff(&plain, cx)), "a:1");
    assert_eq!(text(&diff(&plain[..1], cx)), text(&a));
    assert_eq!([0, 2, 9].map(|most| inter_len(&plain, most, cx)), [4, 2, 4]);
    // An infinite weight of zero is no number, and counts as 0.
    let weight = [Weighted { source: &b, weight: inf }];
    assert_eq!(text(&union(&weight, Aggregate::Sum, cx)), "c:-inf i:-inf o:0 p:0 b:inf d:inf");
    assert!(union(&[], Aggregate::Sum, cx).is_empty());
    assert!(inter(&[], Aggregate::Sum, cx).is_empty());
}

#[test]
fn plain_sets_are_inputs_with_scores_of_one() {
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let (mut plain, mut scored) = (crate::object::Set::new(), Zset::new());
    for member in [b"a", b"b"] {
        plain.insert(member, cx);
    }
    for (member, score) in [(b"b", 5.0), (b"c", 7.0)] {
        scored.add(member, score, AddRules::default(), cx).expect("a number");
    }
    let inputs = [
        Weighted { source: &plain as &dyn Source, weight: 2.0 },
        Weighted { source: &scored, weight: 1.0 },
    ];
    let of = |set: Zset| set.items();
    let item = |score: f64, member: &[u8]| (score, member.to_vec());
    let all = of(union(&inputs, Aggregate::Sum, cx));
    assert_eq!(all, [item(2.0, b"a"), item(7.0, b"b"), item(7.0, b"c")]);
    assert_eq!(of(inter(&inputs, Aggregate::Max, cx)), [item(5.0, b"b")]);
    assert_eq!(of(diff(&[&plain, &scored], cx)), [item(1.0, b"a")]);
    assert_eq!(inter_len(&[&plain, &scored], 0, cx), 1);
}
