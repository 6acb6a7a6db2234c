//! The store against a model, against a recount of its memory, and at its limits.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod collections;
mod eviction;
mod growth;
mod items;
mod model;
mod replica;
mod snapshot;

use bytes::Bytes;

use super::{
    large::Large,
    record::Head,
    table::{BUCKETS, Table, home_of},
    *,
};

/// Some time in 2027.
pub(super) const NOW: u64 = 1_800_000_000_000;

pub(super) fn store(policy: Policy, maxmemory_bytes: u64) -> Store {
    Store::new(StoreConfig { seed: 7, policy, maxmemory_bytes, ..StoreConfig::default() })
}

impl Store {
    /// `set` with its own hash.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], expire: Expire, now_ms: u64) -> bool {
        let hash = self.hash(key);
        self.set(0, hash, key, NewValue::Copy(value), expire, Form::Plain, now_ms).unwrap()
    }

    pub(super) fn text_at(&mut self, key: &[u8], now_ms: u64) -> Option<Vec<u8>> {
        let hash = self.hash(key);
        self.get(0, hash, key, now_ms).map(|entry| entry.value.as_slice().to_vec())
    }

    /// Walks everything and checks each count and each structural promise against it.
    pub(super) fn check(&self) {
        let mut slots = 0;
        let mut large_bytes = 0;
        let kept: Vec<_> =
            self.snapshot.iter().flat_map(|it| &it.kept).map(|kept| &kept.0).collect();
        let kept_none = kept.is_empty();
        for table in self.tables.iter().chain(&self.cleared).chain(kept) {
            assert_eq!(table.bytes, table.count_bytes(), "table bytes");
            let (records, expires) = self.check_table(table, &mut |head, at| {
                let cost = self.heap.cost(at, head);
                let slot = arena::Arena::class_bytes(self.heap.arena.slot_class(at)) as u64;
                slots += slot;
                let fixed = size_of::<Option<Large>>() as u64;
                large_bytes += if cost == slot { 0 } else { cost - slot - fixed };
            });
            assert_eq!(table.len, records, "keys");
            // Cleared tables are taken apart without this count.
            if self.cleared.is_empty() && kept_none {
                assert_eq!(table.expires, expires, "keys with an expiry");
            }
        }
        assert_eq!(self.heap.arena.live_bytes(), slots, "live slots");
        assert_eq!(self.heap.larges.payload_bytes(), large_bytes, "large parts");
        let (counted, waiting) = self.heap.garbage.recount();
        assert_eq!(counted, waiting, "collections that wait to be freed");
        assert!(self.held_bytes() >= self.used_bytes());
        if let Some(slots) = &self.slots {
            assert_eq!(slots.iter().map(|&n| u64::from(n)).sum::<u64>(), self.len(0));
        }
    }

    fn check_table(&self, table: &Table, each: &mut impl FnMut(&Head, arena::Ref)) -> (u64, u64) {
        let (mut keys, mut expires) = (0, 0);
        for (segment, meta) in (0u32..).zip(&table.metas) {
            let mut in_segment = 0;
            for bucket in 0..BUCKETS {
                let line = table.bucket(segment, bucket).unwrap();
                let noted = table.dues[segment as usize];
                assert!(line.due().is_none() || !noted.is_none(), "a note the segment lacks");
                for at in table.refs_of(segment, bucket) {
                    let head = self.heap.head(at).expect("a live record");
                    let (hash, expire_ms) = self.records(NOW).facts(at);
                    let near = [home_of(hash), (home_of(hash) + 1) % BUCKETS];
                    assert!(near.contains(&bucket), "a key far from home");
                    assert!(expire_ms == 0 || !line.due().is_none(), "an expiry not noted");
                    if !table.directory.is_empty() {
                        assert_eq!(table.segment_of(hash), Some(segment), "directory");
                        assert!(table.find_ref(hash, at).is_some(), "a key that cannot be found");
                    }
                    in_segment += 1;
                    expires += u64::from(expire_ms != 0);
                    each(&head, at);
                }
            }
            assert_eq!(meta.len, in_segment, "segment length");
            keys += u64::from(in_segment);
        }
        (keys, expires)
    }
}

#[test]
fn values_of_every_shape_come_back() {
    let mut store = store(Policy::NoEviction, 0);
    let keys = [0usize, 1, 16, 127, 128, 300, 4000, 4700, 20_000, 3_000_000];
    let values = [0usize, 1, 64, 127, 128, 300, 4000, 4095, 4096, 5000, 1_000_000];
    for round in 0..3u8 {
        for &key_len in &keys {
            for &value_len in &values {
                let mut key = vec![b'k'; key_len];
                key.extend_from_slice(format!("{key_len}:{}", value_len % 7).as_bytes());
                let value = vec![round; value_len];
                store.put(&key, &value, Expire::Keep, NOW);
                assert_eq!(store.text_at(&key, NOW).as_deref(), Some(&value[..]));
                let hash = store.hash(&key);
                for expire in [Expire::At(NOW + 9), Expire::Clear, Expire::At(NOW + 7)] {
                    assert!(store.set_expire(0, hash, &key, expire, NOW));
                    let entry = store.peek(0, hash, &key, NOW).unwrap();
                    let expected = if let Expire::At(at) = expire { Some(at) } else { None };
                    assert_eq!(entry.expire_at_ms, expected);
                    assert_eq!(entry.value.as_slice(), &value[..]);
                    assert_eq!(
                        matches!(entry.value, Value::Shared(_)),
                        value_len >= SHARED_MIN_BYTES || key_len + value_len > 4600,
                    );
                }
                let usage = store.memory_usage(0, hash, &key, NOW).unwrap();
                assert!(usage as usize >= key.len() + value_len);
            }
            store.check();
        }
    }
    let used = store.used_bytes();
    assert_eq!(store.expire_step(NOW + 1000, 1 << 20, |_, _| {}).expired as u64, {
        store.stats().expired
    });
    assert_eq!(store.len(0), 0);
    store.check();
    assert!(store.used_bytes() < 200_000 && used > 1_000_000);
}

#[test]
fn a_shared_value_is_kept_by_reference() {
    let mut store = store(Policy::NoEviction, 0);
    let value = Bytes::from(vec![9u8; 10_000]);
    let hash = store.hash(b"k");
    let new = NewValue::Shared(value.clone());
    store.set(0, hash, b"k", new, Expire::Clear, Form::Plain, NOW).unwrap();
    let Some(Value::Shared(held)) = store.get(0, hash, b"k", NOW).map(|entry| entry.value) else {
        panic!("a large value is shared");
    };
    assert_eq!(held.as_ptr(), value.as_ptr());
    let reply = held.clone();
    store.put(b"k", b"small", Expire::Clear, NOW);
    assert_eq!(reply, value, "a reply on its way keeps the old value");
    store.check();
}

#[test]
fn modify_edits_small_and_large_values() {
    let mut store = store(Policy::NoEviction, 0);
    let hash = store.hash(b"k");
    assert_eq!(store.modify(0, hash, b"k", NOW, |_| ()), Ok(None));
    store.put(b"k", b"ab", Expire::At(NOW + 500), NOW);
    let mut model = b"ab".to_vec();
    for round in 0..2000u32 {
        let piece = format!("{round},");
        model.extend_from_slice(piece.as_bytes());
        let len = store
            .modify(0, hash, b"k", NOW, |value| {
                value.extend_from_slice(piece.as_bytes());
                value.len()
            })
            .unwrap();
        assert_eq!(len, Some(model.len()));
    }
    let entry = store.get(0, hash, b"k", NOW).unwrap();
    assert_eq!(entry.value.as_slice(), model);
    assert_eq!(entry.form, Form::Raw);
    assert_eq!(entry.expire_at_ms, Some(NOW + 500));
    store.check();
    store.modify(0, hash, b"k", NOW, |value| value.truncate(3)).unwrap();
    assert_eq!(store.text_at(b"k", NOW).as_deref(), Some(&b"ab0"[..]));
    store.check();
    store.put(b"k", b"new", Expire::Clear, NOW);
    assert_ne!(store.peek(0, hash, b"k", NOW).unwrap().form, Form::Raw);
    store.check();
}

#[test]
fn a_key_expires_after_its_time_and_not_at_it() {
    let mut store = store(Policy::NoEviction, 0);
    store.put(b"k", b"v", Expire::At(NOW + 10), NOW);
    assert!(store.text_at(b"k", NOW + 10).is_some());
    assert!(store.text_at(b"k", NOW + 11).is_none());
    assert_eq!(store.len(0), 0);
    let stats = *store.stats();
    assert_eq!((stats.hits, stats.misses, stats.expired), (1, 1, 1));
    store.put(b"k", b"v", Expire::At(0), NOW);
    assert!(store.text_at(b"k", NOW).is_none(), "a time of 0 is past, not never");
    store.put(b"k", b"v", Expire::At(u64::MAX), NOW);
    assert!(store.text_at(b"k", NOW).is_some());
}

#[test]
fn a_full_store_refuses_and_stays_whole() {
    let mut store = store(Policy::NoEviction, 0);
    store.heap.arena.limit_chunks(1);
    let mut stored = 0;
    for n in 0..100_000u32 {
        let key = n.to_le_bytes();
        let hash = store.hash(&key);
        let value = NewValue::Copy(&[1; 100]);
        match store.set(0, hash, &key, value, Expire::Clear, Form::Plain, NOW) {
            Ok(new) => stored += u64::from(new),
            Err(Full) => break,
        }
    }
    assert!(stored > 5000);
    let key = 0u32.to_le_bytes();
    let hash = store.hash(&key);
    let long = [2; 1000];
    let refused = store.set(0, hash, &key, NewValue::Copy(&long), Expire::Clear, Form::Plain, NOW);
    assert_eq!(refused, Err(Full));
    assert_eq!(store.modify(0, hash, &key, NOW, |v| v.extend_from_slice(&long)), Err(Full));
    assert_eq!(store.text_at(&key, NOW), Some(vec![1; 100]), "nothing changed");
    assert_eq!(store.len(0), stored);
    assert!(store.remove(0, hash, &key, NOW));
    assert!(store.put(&key, &[3; 100], Expire::Clear, NOW));
    store.check();
}

#[test]
fn databases_are_apart_and_absent_ones_hold_nothing() {
    let mut store = store(Policy::NoEviction, 0);
    let empty = store.used_bytes();
    assert!(empty < 1024, "an empty store holds {empty} bytes");
    let hash = store.hash(b"k");
    for db in [0, 5] {
        let value = [u8::try_from(db).unwrap()];
        let set =
            store.set(db, hash, b"k", NewValue::Copy(&value), Expire::Clear, Form::Plain, NOW);
        assert_eq!(set, Ok(true));
    }
    assert_eq!(store.get(5, hash, b"k", NOW).unwrap().value.as_slice(), [5]);
    assert!(store.get(1, hash, b"k", NOW).is_none());
    let set = store.set(99, hash, b"k", NewValue::Copy(b""), Expire::Clear, Form::Plain, NOW);
    assert_eq!(set, Err(Full));
    assert!(store.get(99, hash, b"k", NOW).is_none() && !store.remove(99, hash, b"k", NOW));
    assert_eq!(store.scan(99, 0, 10, NOW, |_, _| panic!("no such database")), 0);
    store.clear(5);
    assert_eq!((store.len(0), store.len(5)), (1, 0));
    store.check();
}

/// Times beyond 48 bits take two bytes more, at the record's end: they are kept exactly through
/// every way a record changes, and give way to short ones and none.
#[test]
fn expiry_times_of_any_length_are_kept_exactly() {
    let times = [NOW + 1, (1 << 48) - 1, 1 << 48, (1 << 62) + 12_345, i64::MAX as u64];
    let values = [vec![], vec![7u8; 60], vec![8u8; 3000], vec![9u8; 5000]];
    let keys = [vec![b'k'; 3], vec![b'k'; 200], vec![b'k'; 9000]];
    for key in &keys {
        let mut store = store(Policy::NoEviction, 0);
        let hash = store.hash(key);
        for (from, to) in times.iter().flat_map(|a| times.iter().map(move |b| (*a, *b))) {
            for value in &values {
                store.put(key, value, Expire::At(from), NOW);
                for expire in [Expire::At(to), Expire::Clear, Expire::At(from)] {
                    assert!(store.set_expire(0, hash, key, expire, NOW));
                    let entry = store.peek(0, hash, key, NOW).unwrap();
                    let expected = if let Expire::At(at) = expire { Some(at) } else { None };
                    assert_eq!(entry.expire_at_ms, expected);
                    assert_eq!(entry.value.as_slice(), value);
                }
                let new = NewValue::Copy(b"123");
                store.set(0, hash, key, new, Expire::Keep, Form::Text, NOW).unwrap();
                store.modify(0, hash, key, NOW, |value| value.push(b'4')).unwrap();
                let entry = store.peek(0, hash, key, NOW).unwrap();
                assert_eq!(entry.expire_at_ms, Some(from));
                assert_eq!(entry.value.as_slice(), b"1234");
                store.check();
            }
        }
        store.put(key, b"v", Expire::At(u64::MAX), NOW);
        let entry = store.peek(0, hash, key, NOW).unwrap();
        assert_eq!(entry.expire_at_ms, Some(i64::MAX as u64));
    }
}

#[test]
fn a_value_remembers_how_it_came_to_be() {
    let mut store = store(Policy::NoEviction, 0);
    let hash = store.hash(b"k");
    for form in [Form::Text, Form::Raw, Form::Plain, Form::Raw, Form::Text, Form::Plain] {
        for value in [&b"12"[..], b"34", b"567"] {
            store.set(0, hash, b"k", NewValue::Copy(value), Expire::Keep, form, NOW).unwrap();
            assert_eq!(store.peek(0, hash, b"k", NOW).unwrap().form, form);
        }
        store.set_expire(0, hash, b"k", Expire::At(NOW + 9), NOW);
        assert_eq!(store.peek(0, hash, b"k", NOW).unwrap().form, form);
    }
}

#[test]
fn a_view_finds_what_is_there_and_changes_nothing() {
    let mut store = store(Policy::NoEviction, 0);
    store.put(b"k", b"v", Expire::At(NOW + 10), NOW);
    let hash = store.hash(b"k");
    let seen = |store: &Store, db, now_ms| {
        store.view(db, hash, b"k", now_ms).map(|entry| entry.value.as_slice().to_vec())
    };
    assert_eq!(seen(&store, 0, NOW), Some(b"v".to_vec()));
    assert_eq!(seen(&store, 1, NOW), None);
    assert_eq!(seen(&store, u16::MAX, NOW), None);
    assert_eq!(seen(&store, 0, NOW + 11), None, "it is due");
    assert_eq!(seen(&store, 0, NOW), Some(b"v".to_vec()), "and there for all that");
    assert_eq!((store.stats.hits, store.stats.misses, store.stats.expired), (0, 0, 0));
    assert_eq!(store.len(0), 1);
    store.check();
}

#[test]
fn a_forked_generator_goes_its_own_way() {
    let (mut rng, mut same) = (Rng::new(5), Rng::new(5));
    let mut fork = rng.fork();
    assert_ne!(fork.next(), rng.next());
    assert_eq!(same.fork().next(), Rng::new(5).fork().next());
}
