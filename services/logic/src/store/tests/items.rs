//! Items: what they keep beside their value through every way a record changes, and what they cost.

use std::collections::BTreeMap;

use super::*;

/// An item of the model.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    data: Vec<u8>,
    marks: Marks,
    expire_at_ms: Option<u64>,
}

fn marks_of(rng: &mut Rng) -> Marks {
    let pick = |rng: &mut Rng, of: &[u64]| of[rng.below(of.len() as u32) as usize];
    Marks {
        flags: pick(rng, &[0, 0, 1, 300, 70_000, u64::from(u32::MAX)]) as u32,
        cas: pick(rng, &[0, 0, 1, 255, 70_000, u64::MAX]),
        stale: rng.below(4) == 0,
        won: rng.below(4) == 0,
        binary: rng.below(4) == 0,
        fetched: rng.below(2) == 0,
    }
}

fn value_of(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(5) {
        0 => rng.below(3),
        1 => 4070 + rng.below(40),
        2 => rng.below(20_000),
        _ => rng.below(200),
    };
    vec![b'a' + rng.below(26) as u8; len as usize]
}

fn expire_of(rng: &mut Rng) -> Expire {
    match rng.below(4) {
        0 => Expire::Clear,
        1 => Expire::Keep,
        2 => Expire::At(NOW + 1 + u64::from(rng.below(1_000_000))),
        // Longer than 48 bits.
        _ => Expire::At(1 << 50),
    }
}

fn after(expire: Expire, old: Option<u64>) -> Option<u64> {
    match expire {
        Expire::Keep => old,
        Expire::Clear => None,
        Expire::At(at) => Some(at),
    }
}

fn agrees(store: &mut Store, key: &[u8], model: Option<&Model>) {
    let hash = store.hash(key);
    let found = store.item(hash, key, false, NOW).map(|item| Model {
        data: item.data().to_vec(),
        marks: item.marks,
        expire_at_ms: item.expire_at_ms,
    });
    assert_eq!(found.as_ref(), model);
    let shared = store.item(hash, key, false, NOW).and_then(|item| item.shared());
    if let (Some(shared), Some(model)) = (shared, model) {
        assert_eq!(shared, model.data);
    }
}

#[test]
fn items_agree_with_a_model() {
    for policy in [Policy::NoEviction, Policy::AllKeysLfu, Policy::S3Fifo] {
        let mut store = store(policy, 0);
        let mut rng = Rng::new(11);
        let mut model: BTreeMap<Vec<u8>, Model> = BTreeMap::new();
        for round in 0..20_000_u32 {
            let key = vec![b'k'; 1 + rng.below(250) as usize / (1 + round as usize % 50)];
            let hash = store.hash(&key);
            match rng.below(7) {
                0..3 => {
                    let (data, marks, expire) =
                        (value_of(&mut rng), marks_of(&mut rng), expire_of(&mut rng));
                    let value = match rng.below(2) {
                        0 => NewValue::Copy(&data),
                        _ => NewValue::Shared(Bytes::from(data.clone())),
                    };
                    store.set_item(hash, &key, value, expire, marks, NOW).unwrap();
                    let old = model.get(&key).and_then(|old| old.expire_at_ms);
                    let expire_at_ms = after(expire, old);
                    model.insert(key.clone(), Model { data, marks, expire_at_ms });
                }
                3 => {
                    let marks = marks_of(&mut rng);
                    let there = store.mark_item(hash, &key, marks, NOW).unwrap();
                    assert_eq!(there, model.contains_key(&key));
                    if let Some(item) = model.get_mut(&key) {
                        item.marks = marks;
                    }
                }
                4 => {
                    let (db, expire) = (store.items_db(), expire_of(&mut rng));
                    store.set_expire(db, hash, &key, expire, NOW);
                    if let Some(item) = model.get_mut(&key) {
                        item.expire_at_ms = after(expire, item.expire_at_ms);
                    }
                }
                5 => {
                    store.item(hash, &key, true, NOW);
                    if let Some(item) = model.get_mut(&key) {
                        item.marks.fetched = true;
                    }
                }
                _ => {
                    let db = store.items_db();
                    let there = store.remove(db, hash, &key, NOW);
                    assert_eq!(there, model.remove(&key).is_some());
                }
            }
            agrees(&mut store, &key, model.get(&key));
            if round % 1000 == 0 {
                store.check();
            }
        }
        for (key, item) in &model {
            agrees(&mut store, key, Some(item));
        }
        store.check();
        assert_eq!(store.len(store.items_db()), model.len() as u64);
    }
}

#[test]
fn an_item_with_nothing_to_tell_takes_what_a_string_takes() {
    let cost = |marks: Marks| {
        let mut store = store(Policy::NoEviction, 0);
        let (key, value) = ([b'k'; 16], [b'v'; 64]);
        let hash = store.hash(&key);
        store.set_item(hash, &key, NewValue::Copy(&value), Expire::Clear, marks, NOW).unwrap();
        let db = store.items_db();
        store.memory_usage(db, hash, &key, NOW).unwrap()
    };
    let plain = cost(Marks::default());
    let mut strings = store(Policy::NoEviction, 0);
    strings.put(&[b'k'; 16], &[b'v'; 64], Expire::Clear, NOW);
    let hash = strings.hash(&[b'k'; 16]);
    assert_eq!(strings.memory_usage(0, hash, &[b'k'; 16], NOW), Some(plain));
    assert_eq!(plain, 96);
    assert_eq!(cost(Marks { fetched: true, ..Marks::default() }), plain);
    assert_eq!(cost(Marks { flags: 9, ..Marks::default() }), plain, "two bytes fit the slot");
    assert_eq!(cost(Marks { flags: u32::MAX, ..Marks::default() }), plain + 8);
    assert_eq!(cost(Marks { cas: 1_000_000, ..Marks::default() }), plain + 8);
}
