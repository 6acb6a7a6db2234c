//! Snapshots of one moment, while keys come, change and go. `model.rs` interleaves them with everything else.

use std::collections::BTreeMap;

use super::{
    collections::{KINDS, add, fresh},
    *,
};
use crate::rdb::{Attributes, Item, Reader, Record, Value as Loaded, Writer};

/// Reads the keys of a snapshot's parts.
pub(super) fn each_key(parts: &[u8], mut each: impl FnMut(&Record<'_>)) {
    let mut writer = Writer::new(false);
    writer.header();
    writer.out.extend(parts);
    writer.eof();
    writer.checksum(0);
    let mut reader = Reader::new();
    reader.feed(&writer.out);
    reader.end();
    while let Some(item) = reader.next().unwrap() {
        if let Item::Key(record) = item {
            each(&record);
        }
    }
}

/// A key's database and name.
type Name = (u64, Vec<u8>);

/// What stands beside each key, and its text or how many elements it has.
fn keys_of(parts: &[u8], store: &Store) -> BTreeMap<Name, (Attributes, Vec<u8>, usize)> {
    let mut keys = BTreeMap::new();
    each_key(parts, |record| {
        let (text, len) = match record.load(store.cx(NOW)).unwrap() {
            Loaded::String(bytes) => (bytes.to_vec(), 0),
            Loaded::Object(object) => (Vec::new(), object.len()),
        };
        let name = (record.db, record.key.to_vec());
        let before = keys.insert(name, (record.attributes, text, len));
        assert!(before.is_none(), "{:?} is there twice", record.key);
    });
    keys
}

fn rest(store: &mut Store, file: &mut Vec<u8>, now_ms: u64) {
    loop {
        let (part, more) = store.snapshot_part(50, 10_000, now_ms);
        file.extend(part);
        if !more {
            return;
        }
    }
}

fn fill(store: &mut Store, db: u16, keys: u32) {
    for n in 0..keys {
        let key = format!("key {n}").into_bytes();
        let hash = store.hash(&key);
        let value = format!("{db} {n}").into_bytes();
        let new = NewValue::Copy(&value);
        store.set(db, hash, &key, new, Expire::Clear, Form::Plain, NOW).unwrap();
    }
}

/// A collection of each kind, of several sizes, that expire one after the other.
fn collections(store: &mut Store, db: u16) {
    for (n, kind) in (1u32..).zip(KINDS) {
        let object = store.make(NOW, |cx, _| {
            let mut object = fresh(kind, cx);
            (0..n * 200).for_each(|n| add(&mut object, n, cx));
            object
        });
        let key = format!("collection {n}");
        let hash = store.hash(key.as_bytes());
        let expire = Expire::At(NOW + u64::from(n));
        store.put_object(db, hash, key.as_bytes(), object, expire, NOW).unwrap();
    }
}

/// The file is what was there, whatever is done meanwhile; each way is tried after no part, some and many.
#[test]
fn a_snapshot_shows_its_moment_through_whatever_empties_or_moves_databases() {
    type Way = (&'static str, fn(&mut Store));
    let ways: [Way; 7] = [
        ("nothing", |_| {}),
        ("clear", |store| (0..4).for_each(|db| store.clear(db))),
        ("clear and fill", |store| {
            store.clear(0);
            fill(store, 0, 5000);
            store.clear(0);
            fill(store, 0, 10);
        }),
        ("swap", |store| {
            store.swap(0, 1);
            fill(store, 0, 100);
            store.swap(1, 3);
            store.clear(0);
        }),
        ("grow", |store| fill(store, 1, 40_000)),
        ("shrink", |store| {
            for n in 0..3000 {
                let key = format!("key {n}").into_bytes();
                let hash = store.hash(&key);
                store.remove(0, hash, &key, NOW);
            }
        }),
        ("evict", |store| {
            store.set_policy(Policy::AllKeysRandom);
            store.set_maxmemory(store.used_bytes() / 2);
            store.evict_step(NOW, 2000, |_, _| {});
        }),
    ];
    for (name, way) in ways {
        for parts in [0, 3, 40] {
            let mut store = store(Policy::NoEviction, 0);
            let sizes = [(0, 3000), (1, 700), (3, 1)];
            sizes.iter().for_each(|&(db, keys)| fill(&mut store, db, keys));
            collections(&mut store, 3);
            store.put(b"due", b"v", Expire::At(NOW - 1), NOW - 10);
            store.begin_snapshot(true, NOW);
            let mut file = Vec::new();
            for _ in 0..parts {
                file.extend(store.snapshot_part(20, 10_000, NOW).0);
            }
            way(&mut store);
            store.expire_step(NOW + 5000, usize::MAX, |_, _| {});
            let _ = store.purge_step(1000);
            store.check();
            rest(&mut store, &mut file, NOW + 5000);
            store.check();
            let keys = keys_of(&file, &store);
            assert_eq!(keys.len(), 3701 + KINDS.len(), "{name} after {parts}");
            for (db, n) in sizes.iter().flat_map(|&(db, keys)| (0..keys).map(move |n| (db, n))) {
                let text = &keys[&(u64::from(db), format!("key {n}").into_bytes())].1;
                assert_eq!(*text, format!("{db} {n}").into_bytes(), "{name} after {parts}");
            }
            for n in 1..=KINDS.len() {
                let (attributes, _, len) = &keys[&(3, format!("collection {n}").into_bytes())];
                assert_eq!((attributes.expire_at_ms, *len), (Some(NOW + n as u64), n * 200));
            }
            while store.purge_step(1000) {}
            assert!(store.snapshot.is_none() && store.tables.iter().all(|it| it.unsaved.is_none()));
        }
    }
}

#[test]
fn writes_of_unsaved_keys_are_told_once_much_waits() {
    let mut store = store(Policy::NoEviction, 0);
    let value = vec![7; 4000];
    for n in 0..4000u32 {
        store.put(&n.to_le_bytes(), &value, Expire::Clear, NOW);
    }
    let hashes: Vec<_> = (0..4000u32).map(|n| store.hash(&n.to_le_bytes())).collect();
    assert!(!store.would_save(0, hashes[0]), "there is no snapshot");
    store.begin_snapshot(false, NOW);
    assert!(hashes.iter().all(|&hash| store.would_save(0, hash)));
    let mut written = 0u32;
    while !store.snapshot_is_full() {
        store.put(&written.to_le_bytes(), b"new", Expire::Clear, NOW);
        assert!(!store.would_save(0, hashes[written as usize]));
        written += 1;
    }
    assert!((100..1100).contains(&written), "{written} writes wrote 4 MiB");
    let (part, more) = store.snapshot_part(1, 1, NOW);
    assert!(more && !store.snapshot_is_full());
    let most = WAITING_MAX_BYTES + 40 * value.len();
    assert!((WAITING_MAX_BYTES..most).contains(&part.len()), "it is a group beyond at most");
    // A snapshot that is given up leaves nothing behind.
    store.clear(0);
    store.end_snapshot();
    assert!(!store.snapshot_is_full() && !store.would_save(0, hashes[3999]));
    while store.purge_step(1000) {}
    assert_eq!(store.heap.arena.live_bytes(), 0);
    store.check();
}

#[test]
fn what_is_known_of_uses_goes_along() {
    for (policy, idle_s, freq) in [
        (Policy::NoEviction, None, None),
        (Policy::AllKeysLru, Some(3000), None),
        (Policy::VolatileLfu, None, Some(77)),
        (Policy::S3Fifo, None, None),
    ] {
        let mut store = store(policy, 0);
        store.put(b"k", b"v", Expire::Clear, NOW);
        let hash = store.hash(b"k");
        let used = Attributes { idle_s: Some(3000), freq: Some(77), ..Attributes::default() };
        store.set_used(0, hash, b"k", used, NOW);
        store.begin_snapshot(false, NOW);
        let mut file = Vec::new();
        rest(&mut store, &mut file, NOW);
        let written = keys_of(&file, &store)[&(0, b"k".to_vec())].0;
        assert_eq!(written, Attributes { idle_s, freq, expire_at_ms: None }, "{policy:?}");
    }
    let mut store = store(Policy::AllKeysLru, 0);
    store.put(b"k", b"v", Expire::Clear, NOW);
    let hash = store.hash(b"k");
    let used = Attributes { idle_s: Some(u64::MAX), ..Attributes::default() };
    store.set_used(0, hash, b"k", used, NOW);
    // Half of the 24 days that the clock goes back.
    assert!(store.idle_s(0, hash, b"k", NOW).unwrap() > 11 * 86_400, "older than the clock");
    store.check();
}
