//! Writing all keys in steps, while others come and go.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    collections::{KINDS, add, fresh},
    *,
};
use crate::rdb::{Attributes, Bad, Item, Reader, Value as Loaded, Writer};

/// Keys of a file's part with what stands beside them, each once.
fn keys_of(part: Vec<u8>, store: &Store) -> Result<BTreeMap<Vec<u8>, (Attributes, usize)>, Bad> {
    let mut writer = Writer::new(true);
    writer.header();
    writer.out.extend(part);
    writer.eof();
    writer.checksum(0);
    let (mut reader, mut keys) = (Reader::new(), BTreeMap::new());
    reader.feed(&writer.out);
    reader.end();
    while let Some(item) = reader.next()? {
        let Item::Key(record) = item else { continue };
        let len = match record.load(store.cx(NOW))? {
            Loaded::String(bytes) => bytes.len(),
            Loaded::Object(object) => object.len(),
        };
        let before = keys.insert(record.key.to_vec(), (record.attributes, len));
        assert!(before.is_none(), "{:?} is there twice", record.key);
    }
    Ok(keys)
}

#[test]
fn every_key_that_stays_is_written_once() {
    let mut store = store(Policy::NoEviction, 0);
    for n in 0..5000u32 {
        let expire = if n % 3 == 0 { Expire::At(NOW + 1 + u64::from(n)) } else { Expire::Clear };
        store.put(format!("key {n}").as_bytes(), &n.to_le_bytes(), expire, NOW);
    }
    for (n, kind) in (1u32..).zip(KINDS) {
        let object = store.make(NOW, |cx, _| {
            let mut object = fresh(kind, cx);
            (0..n).for_each(|n| add(&mut object, n, cx));
            object
        });
        let key = format!("collection {n}");
        let hash = store.hash(key.as_bytes());
        store.put_object(0, hash, key.as_bytes(), object, Expire::Clear, NOW).unwrap();
    }
    store.put(b"due", b"v", Expire::At(NOW - 1), NOW - 10);
    let (mut writer, mut cursor, mut steps) = (Writer::new(false), 0, 0u32);
    loop {
        (cursor, _) = store.save_step(0, cursor, 16, &mut writer, NOW);
        if cursor == 0 {
            break;
        }
        // The table splits meanwhile, and some keys go.
        for n in 0..16 {
            store.put(format!("late {steps} {n}").as_bytes(), b"v", Expire::Clear, NOW);
        }
        let gone = format!("key {}", steps * 7 % 1000);
        let hash = store.hash(gone.as_bytes());
        store.remove(0, hash, gone.as_bytes(), NOW);
        steps += 1;
    }
    assert!(steps > 100);
    let keys = keys_of(writer.out, &store).unwrap();
    let written: BTreeSet<&[u8]> = keys.keys().map(Vec::as_slice).collect();
    for n in 1000..5000u32 {
        let (attributes, len) = keys[format!("key {n}").as_bytes()];
        let expires = (n % 3 == 0).then(|| NOW + 1 + u64::from(n));
        assert_eq!((attributes.expire_at_ms, len), (expires, 4));
    }
    for n in 1..=KINDS.len() {
        assert_eq!(keys[format!("collection {n}").as_bytes()].1, n);
    }
    assert!(!written.contains(&b"due"[..]));
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
        let mut writer = Writer::new(false);
        store.save_step(0, 0, usize::MAX, &mut writer, NOW);
        let written = keys_of(writer.out, &store).unwrap()[&b"k"[..]].0;
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
