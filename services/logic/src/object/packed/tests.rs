//! Packed sequences against listpack's bytes, at the bounds of each form, and against a plain vector.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

fn packed(items: &[&[u8]]) -> Packed {
    let mut out = Packed::new();
    for &item in items {
        out.push_back(item);
    }
    out
}

impl Packed {
    fn texts(&self) -> Vec<Vec<u8>> {
        self.iter().map(|entry| entry.to_vec()).collect()
    }

    /// Walks both ways and holds the counts against what was found.
    fn check(&self, model: &[Vec<u8>]) {
        assert_eq!(self.texts(), model);
        let mut backwards: Vec<_> = self.iter().rev().map(|entry| entry.to_vec()).collect();
        backwards.reverse();
        assert_eq!(backwards, model);
        assert_eq!(self.len(), model.len());
        assert_eq!(self.is_empty(), model.is_empty());
        let used: usize = model.iter().map(|text| Entry::from(text.as_slice()).packed_len()).sum();
        assert_eq!(self.used_bytes(), if model.is_empty() { 0 } else { HEADER + used });
        assert!(self.heap_bytes() >= self.used_bytes());
        assert!(self.heap_bytes() <= SHRINK_FROM.max(self.used_bytes() * 9 / 4 + 16));
    }
}

#[test]
fn bytes_are_those_of_a_listpack() {
    // Written by redis-server 7.0.15: RPUSH with list-max-listpack-size -2, then DUMP.
    let cases: [(&[u8], &[u8]); 14] = [
        (b"0", &[0, 1]),
        (b"127", &[0x7F, 1]),
        (b"128", &[0xC0, 0x80, 2]),
        (b"-1", &[0xDF, 0xFF, 2]),
        (b"4095", &[0xCF, 0xFF, 2]),
        (b"-4096", &[0xD0, 0, 2]),
        (b"4096", &[0xF1, 0, 0x10, 3]),
        (b"-32769", &[0xF2, 0xFF, 0x7F, 0xFF, 4]),
        (b"8388608", &[0xF3, 0, 0, 0x80, 0, 5]),
        (b"2147483648", &[0xF4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9]),
        (b"", &[0x80, 1]),
        (b"ab", &[0x82, b'a', b'b', 3]),
        (b"01", &[0x82, b'0', b'1', 3]),
        (b"-0", &[0x82, b'-', b'0', 3]),
    ];
    for (text, bytes) in cases {
        let one = packed(&[text]);
        assert_eq!(one.raw(), bytes, "{}", text.escape_ascii());
        assert_eq!(Packed::from_raw(bytes).as_ref(), Some(&one));
        assert_eq!(Packed::from_raw(&bytes[1..]).filter(|p| !p.is_empty()), None);
    }
    assert_eq!(Packed::from_raw(&[0x81, b'7', 2]), None, "an integer kept as text");
    assert_eq!(Packed::from_raw(&[0xFF]), None, "an end byte is no entry");
    assert_eq!(Packed::from_raw(&[0x83, b'a', 4]), None, "cut off");
    assert_eq!(Packed::from_raw(&[]), Some(Packed::new()));
}

#[test]
fn strings_at_the_bounds_of_each_length() {
    for len in [0usize, 1, 63, 64, 125, 126, 127, 128, 4095, 4096, 16_377, 16_378, 16_379, 70_000] {
        let text = vec![b'x'; len];
        let mut three = packed(&[b"a", &text, b"9"]);
        three.check(&[b"a".to_vec(), text.clone(), b"9".to_vec()]);
        assert_eq!(three.find(three.first(), text.as_slice(), 1), three.at(1));
        assert!(three.entry(1).unwrap().is(&text));
        assert_eq!(three.entry(1).unwrap().text_len(), len);
        assert_eq!(three.pop_back(), Some(b"9".to_vec()));
        assert_eq!(three.pop_back().as_ref(), Some(&text));
        three.check(&[b"a".to_vec()]);
    }
    // listpack's length behind takes a third byte one entry too early.
    assert_eq!((back_len(16_382), back_len(16_383), back_len(2_097_151)), (2, 3, 4));
    assert_eq!((back_len(127), back_len(128), back_len(268_435_455)), (1, 2, 5));
}

#[test]
fn integers_are_canonical_texts_only() {
    for text in ["0", "-1", "10", "9223372036854775807", "-9223372036854775808"] {
        let value = text.parse::<i64>().unwrap();
        assert_eq!(parse_int(text.as_bytes()), Some(value));
        assert_eq!(Digits::new().write(value), text.as_bytes());
        assert_eq!(Entry::Int(value).text_len(), text.len());
    }
    for text in [
        "",
        "-",
        "-0",
        "00",
        "01",
        "+1",
        " 1",
        "1 ",
        "1.0",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "99999999999999999999",
        "-99999999999999999999",
        "1a",
        "--1",
    ] {
        assert_eq!(parse_int(text.as_bytes()), None, "{text}");
        assert!(Entry::from(text.as_bytes()).is(text.as_bytes()));
    }
    assert!(!Entry::Int(1).is(b"01") && Entry::Int(1).is(b"1") && !Entry::Str(b"a").is(b"b"));
    for shift in 0..64 {
        for value in
            [1i64 << shift, (1i64 << shift).wrapping_sub(1), (1i64 << shift).wrapping_neg()]
        {
            let text = value.to_string();
            let one = packed(&[text.as_bytes()]);
            assert_eq!(one.entry(0), Some(Entry::Int(value)));
            one.check(&[text.into_bytes()]);
        }
    }
}

#[test]
fn find_with_a_step_sees_fields_only() {
    let map = packed(&[b"a", b"b", b"b", b"a", b"7", b"8"]);
    assert_eq!(map.find(map.first(), b"b", 2), map.at(2));
    assert_eq!(map.find(map.first(), b"b", 1), map.at(1));
    assert_eq!(map.find(map.at(1), b"a", 2), map.at(3));
    assert_eq!(map.find(map.first(), b"8", 2), None);
    assert_eq!(map.find(map.first(), 7, 2), map.at(4));
    assert_eq!(map.find(None, b"a", 1), None);
    let pairs: Vec<_> = map.pairs().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    assert_eq!(pairs[2], (b"7".to_vec(), b"8".to_vec()));
    assert_eq!(pairs.len(), 3);
    let rest: Vec<_> = map.iter_from(map.at(4).unwrap()).collect();
    assert_eq!(rest, [Entry::Int(7), Entry::Int(8)]);
}

#[test]
fn stale_positions_do_no_harm() {
    let mut list = packed(&[b"a long enough string", b"2", b"another string"]);
    let stale: Vec<_> = (0..3).map(|n| list.at(n).unwrap()).collect();
    list.remove_range(0, 2);
    for pos in stale {
        let mut copy = list.clone();
        let _ = (copy.get(pos), copy.next(pos), copy.prev(pos));
        copy.replace(pos, b"x");
        copy.remove(pos, 5);
        copy.insert(Some(pos), b"y");
    }
    let mut empty = Packed::new();
    assert_eq!((empty.first(), empty.last(), empty.at(0)), (None, None, None));
    assert_eq!((empty.pop_back(), empty.pop_front(), empty.remove_range(0, 1)), (None, None, 0));
    assert_eq!(empty.heap_bytes(), 0);
}

#[test]
fn an_emptied_sequence_holds_nothing() {
    let mut list = Packed::new();
    for n in 0..1000i64 {
        list.push_back(n);
    }
    assert_eq!(list.remove_range(1, 5000), 999);
    assert!(list.heap_bytes() <= SHRINK_FROM);
    assert_eq!(list.remove_range(0, 1), 1);
    assert_eq!(list.heap_bytes(), 0);
    assert_eq!(list, Packed::new());
}

#[derive(Debug, Clone)]
enum Op {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    Insert(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    PopBack,
    PopFront,
    SplitOff(usize, bool),
    Append(Vec<Vec<u8>>),
    Find(Vec<u8>, usize, usize),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        4 => (-200i64..200).prop_map(|n| n.to_string().into_bytes()),
        6 => prop::collection::vec(any::<u8>(), 0..70),
        1 => (100usize..5000).prop_map(|len| vec![b'y'; len]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0usize..200;
    prop_oneof![
        6 => text().prop_map(Op::PushBack),
        6 => text().prop_map(Op::PushFront),
        4 => (at.clone(), text()).prop_map(|(n, text)| Op::Insert(n, text)),
        4 => (at.clone(), text()).prop_map(|(n, text)| Op::Replace(n, text)),
        3 => (at.clone(), 0usize..6).prop_map(|(n, count)| Op::Remove(n, count)),
        1 => Just(Op::PopBack),
        1 => Just(Op::PopFront),
        1 => (at.clone(), any::<bool>()).prop_map(|(n, keep)| Op::SplitOff(n, keep)),
        1 => prop::collection::vec(text(), 0..5).prop_map(Op::Append),
        2 => (text(), at, 1usize..4).prop_map(|(text, from, step)| Op::Find(text, from, step)),
    ]
}

fn apply(list: &mut Packed, model: &mut Vec<Vec<u8>>, op: Op) {
    match op {
        Op::PushBack(text) => {
            list.push_back(text.as_slice());
            model.push(text);
        }
        Op::PushFront(text) => {
            list.push_front(text.as_slice());
            model.insert(0, text);
        }
        Op::Insert(n, text) => {
            list.insert(list.at(n), text.as_slice());
            model.insert(n.min(model.len()), text);
        }
        Op::Replace(n, text) => {
            let pos = list.at(n);
            assert_eq!(pos.is_some(), n < model.len());
            if let Some(pos) = pos {
                assert!(list.replace(pos, text.as_slice()));
                assert!(list.get(pos).unwrap().is(&text));
                model[n] = text;
            }
        }
        Op::Remove(n, count) => {
            let end = (n + count).min(model.len());
            assert_eq!(list.remove_range(n, count), end.saturating_sub(n));
            model.drain(n.min(end)..end);
        }
        Op::PopBack => assert_eq!(list.pop_back(), model.pop()),
        Op::PopFront => {
            let first = (!model.is_empty()).then(|| model.remove(0));
            assert_eq!(list.pop_front(), first);
        }
        Op::SplitOff(n, keep) => {
            let (tail, rest) = (list.split_off(n), model.split_off(n.min(model.len())));
            tail.check(&rest);
            if keep {
                list.append(&tail);
                model.extend(rest);
            }
        }
        Op::Append(texts) => {
            let entries: Vec<_> = texts.iter().map(|text| Entry::from(text.as_slice())).collect();
            list.extend(&entries);
            model.extend(texts);
        }
        Op::Find(text, from, step) => {
            let text = model.get(from + step).cloned().unwrap_or(text);
            let expected = (from..model.len()).step_by(step).find(|&n| model[n] == text);
            let found = list.find(list.at(from), text.as_slice(), step);
            assert_eq!(found, expected.and_then(|n| list.at(n)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_packed_sequence_is_a_vector(ops in prop::collection::vec(op(), 1..120)) {
        let (mut list, mut model) = (Packed::new(), Vec::new());
        for op in ops {
            apply(&mut list, &mut model, op);
            list.check(&model);
        }
        let again = Packed::from_raw(list.raw());
        prop_assert_eq!(again.as_ref(), Some(&list));
    }

    #[test]
    fn garbage_is_refused_or_whole(raw in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(list) = Packed::from_raw(&raw) {
            prop_assert_eq!(list.raw(), raw);
        }
    }
}
