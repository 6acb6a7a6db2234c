//! Collections in the store: elements by number, so that a model is a set of numbers; and large ones that go.

use std::collections::BTreeSet;

use super::*;
use crate::object::{
    Cx, Hash, List, Object, Set, Stream, Zset,
    list::End,
    stream::{AddId, StreamId},
    zset::AddRules,
};

pub(super) const KINDS: [Kind; 5] = [Kind::Hash, Kind::Set, Kind::Zset, Kind::List, Kind::Stream];

/// An element's text: numbers for some, so that sets begin as sorted integers, and now and then a long one, so that
/// small forms end.
fn text(n: u32) -> Vec<u8> {
    match n % 128 {
        127 => format!("{n}").repeat(40).into_bytes(),
        0..100 => n.to_string().into_bytes(),
        _ => format!("element {n}").into_bytes(),
    }
}

/// An empty collection.
pub(super) fn fresh(kind: Kind, cx: Cx<'_>) -> Object {
    match kind {
        Kind::Hash => Hash::new().into(),
        Kind::Set => Set::new().into(),
        Kind::Zset => Zset::new().into(),
        Kind::List => List::new(cx.limits.list_max_listpack_size).into(),
        Kind::Stream => Box::new(Stream::new()).into(),
        Kind::String => panic!("a string is no collection"),
    }
}

/// Adds an element whose number is above all others'.
pub(super) fn add(object: &mut Object, n: u32, cx: Cx<'_>) {
    let name = text(n);
    match object {
        Object::Hash(hash) => assert!(hash.set(&name, b"value", Expire::Clear, cx)),
        Object::Set(set) => assert!(set.insert(&name, cx)),
        Object::Zset(zset) => {
            zset.add(&name, f64::from(n), AddRules::default(), cx).unwrap();
        }
        Object::List(list) => list.push(End::Back, &name),
        Object::Stream(stream) => {
            let id = AddId::Given(StreamId::new(u64::from(n), 1));
            stream.add(id, cx.now_ms, [(&b"f"[..], &name[..])], &cx.limits.stream()).unwrap();
            if n.is_multiple_of(50) {
                stream.create_group(b"group", StreamId::MIN, None);
            }
            // Some groups are read from, so that entries are pending.
            let _ = stream.read_new(b"group", b"consumer", 3, false, cx.now_ms, |_| {});
        }
    }
}

/// Removes an element; it was there.
pub(super) fn remove(object: &mut Object, n: u32, cx: Cx<'_>) {
    let name = text(n);
    let removed = match object {
        Object::Hash(hash) => hash.remove(&name, cx),
        Object::Set(set) => set.remove(&name, cx),
        Object::Zset(zset) => zset.remove(&name, cx).is_some(),
        Object::List(list) => list.remove(&name, 1) == 1,
        Object::Stream(stream) => {
            if n.is_multiple_of(40) {
                stream.destroy_group(b"group");
            }
            stream.delete(StreamId::new(u64::from(n), 1))
        }
    };
    assert!(removed, "an element that was there");
}

/// The collection has these elements: the number is compared, and some are looked up.
pub(super) fn assert_holds(object: &Object, kind: Kind, elements: &BTreeSet<u32>, cx: Cx<'_>) {
    assert_eq!((object.kind(), object.len()), (kind, elements.len()));
    for &n in elements.first().into_iter().chain(elements.last()) {
        let name = text(n);
        assert!(match object {
            Object::Hash(hash) => hash.contains(&name, cx),
            Object::Set(set) => set.contains(&name, cx),
            Object::Zset(zset) => zset.score(&name, cx) == Some(f64::from(n)),
            Object::List(list) => !list.positions(&name, 1, 1, 0).is_empty(),
            Object::Stream(stream) => stream.get(StreamId::new(u64::from(n), 1)).is_some(),
        });
    }
}

/// Stores a collection of so many elements.
fn fill(store: &mut Store, key: &[u8], kind: Kind, count: u32, expire: Expire) {
    let hash = store.hash(key);
    let object = store.make(NOW, |cx, _| {
        let mut object = fresh(kind, cx);
        (1..=count).for_each(|n| add(&mut object, n, cx));
        object
    });
    store.put_object(0, hash, key, object, expire, NOW).unwrap();
}

/// The ways a key goes.
type Removal = fn(&mut Store, &[u8]);

const REMOVALS: [(&str, Removal); 5] = [
    ("removed", |store, key| {
        let hash = store.hash(key);
        assert!(store.remove(0, hash, key, NOW));
    }),
    ("replaced", |store, key| {
        assert!(!store.put(key, b"value", Expire::Clear, NOW));
        let hash = store.hash(key);
        assert!(store.remove(0, hash, key, NOW));
    }),
    ("expired", |store, key| {
        assert_eq!(store.text_at(key, NOW + 60_000), None);
    }),
    ("swept", |store, _| {
        assert_eq!(store.expire_step(NOW + 60_000, usize::MAX, |_, _| {}).expired, 1);
    }),
    ("cleared", |store, _| store.clear(0)),
];

#[test]
fn a_large_collection_goes_in_bounded_steps() {
    const ELEMENTS: u32 = 5000;
    for kind in KINDS {
        for (how, removal) in REMOVALS {
            let mut store = store(Policy::NoEviction, 0);
            fill(&mut store, b"key", kind, ELEMENTS, Expire::At(NOW + 1000));
            store.check();
            let held = store.used_bytes();
            removal(&mut store, b"key");
            assert_eq!(store.len(0), 0, "{how}");
            store.check();
            // What is not freed yet is counted.
            assert!(store.used_bytes() * 10 > held * 9, "{kind:?} {how} at once");
            let (mut steps, mut before) = (0, store.used_bytes());
            while store.purge_step(100) {
                steps += 1;
                assert!(store.used_bytes() <= before, "{kind:?} {how}: freeing holds more");
                before = store.used_bytes();
                store.check();
            }
            // A stream's nodes hold a hundred entries, and a step of a list or a packed part is at least one node.
            let least = if matches!(kind, Kind::Stream | Kind::List) { 2 } else { 20 };
            assert!(steps >= least, "{kind:?} {how} in {steps} steps");
            assert!(store.used_bytes() < 40_000, "{kind:?} {how} leaves {}", store.used_bytes());
            store.check();
        }
    }
}

#[test]
fn a_group_that_was_destroyed_goes_in_bounded_steps() {
    let mut store = store(Policy::NoEviction, 0);
    fill(&mut store, b"key", Kind::Stream, 5000, Expire::Clear);
    let hash = store.hash(b"key");
    let group = store.edit(0, hash, b"key", NOW, |object, _, _| {
        let stream = object.as_stream_mut().unwrap();
        stream.read_new(b"group", b"consumer", 0, false, NOW, |_| {}).unwrap();
        let held = stream.mem_bytes();
        assert!(stream.destroy_group(b"group"));
        let garbage = stream.take_garbage().unwrap();
        // Beside the list of what is cut off, nothing is added.
        assert!(stream.mem_bytes() + garbage.mem_bytes() <= held + 512);
        garbage
    });
    store.check();
    store.discard_object(Box::new(group.unwrap()).into());
    store.check();
    let mut steps = 0;
    while store.purge_step(100) {
        steps += 1;
        store.check();
    }
    assert!(steps >= 20, "{steps} steps");
    assert_eq!(store.len(0), 1);
}

#[test]
fn the_limit_holds_with_collections() {
    for policy in [Policy::AllKeysLru, Policy::AllKeysLfu, Policy::AllKeysRandom, Policy::S3Fifo] {
        let limit = 1 << 20;
        let mut store = store(policy, limit);
        for n in 0..2000u32 {
            for _ in 0..10_000 {
                if let EvictResult::Fits { .. } = store.evict_step(NOW, 64, |_, _| {}) {
                    break;
                }
            }
            assert!(store.used_bytes() <= limit, "{policy:?}");
            let kind = KINDS[n as usize % KINDS.len()];
            fill(&mut store, format!("key:{n}").as_bytes(), kind, n % 150, Expire::Clear);
        }
        assert!(store.stats().evicted > 500, "{policy:?}");
        store.check();
    }
}
