//! Lists against a plain vector, at every limit of a node.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::*;
use crate::store::hash::Rng;

impl List {
    fn texts(&self) -> Vec<Vec<u8>> {
        self.iter().map(|entry| entry.to_vec()).collect()
    }

    fn check(&self, model: &[Vec<u8>]) {
        assert_eq!(self.len(), model.len());
        assert_eq!(self.texts(), model);
        assert!(self.iter().rev().map(|entry| entry.to_vec()).eq(model.iter().rev().cloned()));
        let held: usize = self.0.nodes.iter().map(Node::heap_bytes).sum();
        assert_eq!(
            self.mem_bytes(),
            size_of::<Nodes>() + held + self.0.nodes.capacity() * size_of::<Node>()
        );
        for node in &self.0.nodes {
            assert!(node.len() > 0, "no node is empty");
            match node {
                Node::Packed(packed) => {
                    assert!(packed.len() <= self.0.limit.entries);
                    // The limit leaves the count of four bytes aside for a single entry.
                    assert!(packed.used_bytes() <= self.0.limit.bytes + 4);
                }
                Node::Plain(value) => {
                    assert!(Entry::from(&**value).packed_len() > self.0.limit.bytes);
                }
            }
        }
        assert!(self.0.nodes.capacity() <= SHRINK_FROM.max(self.0.nodes.len() * 8));
    }
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.next() >> 33).expect("31 bits") % bound.max(1)
}

fn value(rng: &mut Rng, most: usize) -> Vec<u8> {
    match below(rng, 10) {
        0..4 => below(rng, 5).to_string().into_bytes(),
        4..7 => format!("v{}", below(rng, 6)).into_bytes(),
        7 => rng.next().cast_signed().to_string().into_bytes(),
        8 => vec![b'x'; below(rng, most)],
        _ => vec![b'y'; below(rng, 40)],
    }
}

fn index(rng: &mut Rng, len: usize) -> i64 {
    let at = i64::try_from(below(rng, len + 3)).expect("small");
    if below(rng, 2) == 0 { at } else { -at }
}

fn model_remove(model: &mut Vec<Vec<u8>>, value: &[u8], count: i64) -> usize {
    let matches: Vec<usize> = (0..model.len()).filter(|&at| model[at] == value).collect();
    let most = if count == 0 { usize::MAX } else { usize::try_from(count.abs()).expect("small") };
    let doomed: Vec<usize> = if count < 0 {
        matches.into_iter().rev().take(most).collect()
    } else {
        matches.into_iter().take(most).collect()
    };
    let mut at = 0;
    model.retain(|_| {
        at += 1;
        !doomed.contains(&(at - 1))
    });
    doomed.len()
}

fn look(list: &List, model: &[Vec<u8>], rng: &mut Rng) {
    let len = model.len();
    let (start, stop) = (index(rng, len), index(rng, len));
    let found: Vec<_> = list.range(start, stop).map(|entry| entry.to_vec()).collect();
    assert_eq!(found, model[span::clip(start, stop, len)]);
    let value = value(rng, 3);
    let rank = i64::try_from(below(rng, 4)).expect("small") + 1;
    let (count, maxlen) = (below(rng, 3), below(rng, 60));
    let most = if count == 0 { usize::MAX } else { count };
    let seen = if maxlen == 0 { len } else { maxlen.min(len) };
    let skip = usize::try_from(rank - 1).expect("small");
    let up = (0..seen).filter(|&at| model[at] == value).skip(skip).take(most);
    assert!(list.positions(&value, rank, count, maxlen).into_iter().eq(up));
    let down = (len - seen..len).rev().filter(|&at| model[at] == value);
    let down = down.skip(skip).take(most);
    assert!(list.positions(&value, -rank, count, maxlen).into_iter().eq(down));
}

fn step(list: &mut List, model: &mut Vec<Vec<u8>>, rng: &mut Rng, most: usize) {
    let len = model.len();
    match below(rng, 16) {
        0..3 => {
            let value = value(rng, most);
            list.push(End::Back, &value);
            model.push(value);
        }
        3..5 => {
            let value = value(rng, most);
            list.push(End::Front, &value);
            model.insert(0, value);
        }
        5 => assert_eq!(list.pop(End::Back), model.pop()),
        6 => {
            let first = (len > 0).then(|| model.remove(0));
            assert_eq!(list.pop(End::Front), first);
        }
        7 => {
            let (at, value) = (index(rng, len), value(rng, most));
            let there = span::index(at, len);
            assert_eq!(list.get(at).map(|e| e.to_vec()), there.map(|at| model[at].clone()));
            assert_eq!(list.set(at, &value), there.is_some());
            if let Some(at) = there {
                model[at] = value;
            }
        }
        8..11 => {
            let (pivot, value) = (value(rng, 3), value(rng, most));
            let side = if below(rng, 2) == 0 { Side::Before } else { Side::After };
            let there = model.iter().position(|value| *value == pivot);
            assert_eq!(list.insert(&pivot, side, &value), there.is_some());
            if let Some(at) = there {
                model.insert(at + usize::from(side == Side::After), value);
            }
        }
        11 => {
            let value = value(rng, 3);
            let count = index(rng, 3);
            let gone = list.remove(&value, count);
            assert_eq!(gone, model_remove(model, &value, count));
        }
        12 if below(rng, 20) == 0 => {
            let (start, stop) = (index(rng, len), index(rng, len));
            list.trim(start, stop);
            *model = model[span::clip(start, stop, len)].to_vec();
        }
        13 | 14 => look(list, model, rng),
        _ => {
            let moved = list.rotate(End::Back, End::Front);
            let last = model.pop();
            assert_eq!(moved, last);
            model.splice(0..0, last);
        }
    }
}

#[test]
fn a_list_is_a_vector() {
    for (seed, fill) in [(1, -2), (2, -1), (3, 1), (4, 2), (5, 7), (6, 128), (7, 0), (8, -5)] {
        let mut rng = Rng::new(seed);
        let mut list = List::new(fill);
        let mut model = Vec::new();
        let most = if seed % 2 == 0 { 9_000 } else { 300 };
        for round in 0..4_000 {
            step(&mut list, &mut model, &mut rng, most);
            if round % 7 == 0 {
                list.check(&model);
            }
        }
        list.check(&model);
        while list.reclaim(10) {}
        assert_eq!((list.len(), list.mem_bytes()), (0, size_of::<Nodes>()));
    }
}

#[test]
fn nodes_hold_what_the_limit_says() {
    let nodes = |fill: i32, values: usize, len: usize| {
        let mut list = List::new(fill);
        for _ in 0..values {
            list.push(End::Back, &vec![b'x'; len]);
        }
        list.0.nodes.len()
    };
    assert_eq!(nodes(3, 9, 10), 3);
    assert_eq!(nodes(3, 10, 10), 4);
    assert_eq!(nodes(0, 4, 10), 4, "no entries at all would be no node");
    // 103 bytes each with head and length.
    assert_eq!(nodes(-1, 39, 100), 1);
    assert_eq!(nodes(-1, 40, 100), 2);
    assert_eq!(nodes(-2, 79, 100), 1);
    assert_eq!(nodes(-2, 80, 100), 2);
    assert_eq!(nodes(1_000, 80, 100), 2, "bytes bound a node of entries, too");
    assert_eq!((nodes(-9, 636, 100), nodes(-5, 637, 100)), (1, 2));
}

#[test]
fn a_value_beyond_a_node_stands_alone() {
    for len in [8_180, 8_185, 8_186, 8_192, 100_000] {
        let long = vec![b'x'; len];
        let mut list = List::new(-2);
        for value in [&b"1"[..], &long, b"2", &long, b"3"] {
            list.push(End::Back, value);
        }
        let model: Vec<_> =
            [&b"1"[..], &long, b"2", &long, b"3"].iter().map(|value| value.to_vec()).collect();
        list.check(&model);
        assert_eq!(list.remove(&long, -1), 1);
        assert!(list.set(1, b"7"));
        assert!(list.set(0, &long));
        assert_eq!(list.texts(), [&long[..], b"7", b"2", b"3"]);
        assert!(list.set(0, b"0"));
        assert!(list.insert(b"7", Side::After, &long));
        assert_eq!(list.texts(), [&b"0"[..], b"7", &long, b"2", b"3"]);
        assert_eq!(list.pop(End::Back).as_deref(), Some(&b"3"[..]));
        assert_eq!(list.pop(End::Back).as_deref(), Some(&b"2"[..]));
        assert_eq!(list.pop(End::Back), Some(long));
    }
}

#[test]
fn removals_leave_few_nodes() {
    let mut list = List::new(-2);
    for n in 0..40_000_u32 {
        list.push(End::Back, if n % 16 == 0 { b"keep" } else { b"drop it" });
    }
    assert_eq!(list.remove(b"drop it", 0), 37_500);
    let model = vec![b"keep".to_vec(); 2_500];
    list.check(&model);
    assert!(list.0.nodes.len() <= 6, "{} nodes", list.0.nodes.len());
    list.trim(1, 0);
    assert_eq!(list.mem_bytes(), size_of::<Nodes>());
}

#[test]
fn the_length_of_a_range_is_how_many_values_it_gives() {
    let mut list = List::new(-2);
    for value in [b"a", b"b", b"c"] {
        list.push(End::Back, value);
    }
    for start in -5..5 {
        for stop in -5..5 {
            let given = list.range(start, stop).count();
            assert_eq!(list.range_len(start, stop), given, "{start} {stop}");
        }
    }
}
