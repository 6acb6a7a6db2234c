//! Random sequences of operations against an ordered map.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{collections::*, *};
use crate::object::{Cx, Object};

#[derive(Debug, Clone)]
enum Op {
    Set {
        key: u16,
        len: usize,
        expire: Expire,
        shared: bool,
    },
    Get {
        key: u16,
    },
    Remove {
        key: u16,
    },
    Expire {
        key: u16,
        expire: Expire,
    },
    Append {
        key: u16,
        len: usize,
    },
    Add {
        key: u16,
        kind: usize,
        count: u32,
    },
    Take {
        key: u16,
        count: usize,
        low: bool,
    },
    Move {
        from: u16,
        to: u16,
    },
    Copy {
        from: u16,
        to: u16,
    },
    Wait {
        ms: u64,
    },
    Sweep {
        budget: usize,
    },
    Scan,
    Random,
    Clear,
    Purge {
        budget: usize,
    },
    /// Moves records, whether that gains something or not.
    Compact {
        chunk: u32,
        budget: usize,
    },
    /// Begins a snapshot, or takes a part of it.
    Snap {
        keys: u64,
    },
}

fn expire() -> impl Strategy<Value = Expire> {
    prop_oneof![
        Just(Expire::Keep),
        Just(Expire::Clear),
        (0u64..5_000).prop_map(|ms| Expire::At(NOW + ms)),
        Just(Expire::At(NOW + 40 * 86_400_000)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u16..800;
    let len = prop_oneof![4 => Just(64usize), 8 => 0usize..200, 2 => 200usize..4096, 1 => 4096usize..9000];
    prop_oneof![
        30 => (key.clone(), len.clone(), expire(), any::<bool>())
            .prop_map(|(key, len, expire, shared)| Op::Set { key, len, expire, shared }),
        10 => key.clone().prop_map(|key| Op::Get { key }),
        8 => key.clone().prop_map(|key| Op::Remove { key }),
        6 => (key.clone(), expire()).prop_map(|(key, expire)| Op::Expire { key, expire }),
        4 => (key.clone(), len).prop_map(|(key, len)| Op::Append { key, len }),
        16 => (key.clone(), 0usize..5, prop_oneof![20 => 1u32..12, 3 => 12u32..200, 1 => 200u32..700])
            .prop_map(|(key, kind, count)| Op::Add { key, kind, count }),
        8 => (key.clone(), prop_oneof![1usize..20, Just(usize::MAX)], any::<bool>())
            .prop_map(|(key, count, low)| Op::Take { key, count, low }),
        3 => (key.clone(), key.clone()).prop_map(|(from, to)| Op::Move { from, to }),
        3 => (key.clone(), key).prop_map(|(from, to)| Op::Copy { from, to }),
        2 => (1u64..400).prop_map(|ms| Op::Wait { ms }),
        1 => (1usize..2000).prop_map(|budget| Op::Sweep { budget }),
        1 => Just(Op::Scan),
        1 => Just(Op::Random),
        1 => (0u8..8).prop_map(|n| if n == 0 { Op::Clear } else { Op::Scan }),
        1 => (1usize..300).prop_map(|budget| Op::Purge { budget }),
        6 => (1u64..60).prop_map(|keys| Op::Snap { keys }),
        6 => (0u32..4, 1usize..300).prop_map(|(chunk, budget)| Op::Compact { chunk, budget }),
    ]
}

fn name(key: u16) -> Vec<u8> {
    let mut out = format!("key:{key}").into_bytes();
    if key.is_multiple_of(50) {
        out.resize(100 * usize::from(key), b'x');
    }
    out
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Text(Vec<u8>),
    Elements(Kind, BTreeSet<u32>),
}

impl Content {
    const fn is_object(&self) -> bool {
        matches!(self, Self::Elements(..))
    }
}

#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, (Content, Option<u64>)>,
    /// The number of the last element added anywhere.
    serial: u32,
    now: u64,
    fill: u8,
    snapshot: Option<Taken>,
    snapshots: u32,
}

/// A snapshot: the keys at its moment, and what of its file there is.
struct Taken {
    keys: BTreeMap<Vec<u8>, (Content, Option<u64>)>,
    moment: u64,
    file: Vec<u8>,
}

impl Model {
    fn reap(&mut self) {
        let now = self.now;
        self.keys.retain(|_, (_, at)| at.is_none_or(|at| at >= now));
    }

    fn after(expire: Expire, old: Option<u64>) -> Option<u64> {
        match expire {
            Expire::Keep => old,
            Expire::Clear => None,
            Expire::At(at) => Some(at),
        }
    }

    fn apply(&mut self, store: &mut Store, op: Op) {
        self.reap();
        let now = self.now;
        match op {
            Op::Set { key, len, expire, shared } => self.set(store, key, len, expire, shared),
            Op::Get { key } => {
                let key = name(key);
                let hash = store.hash(&key);
                let _ = (store.touch_bucket(0, hash), store.touch_record(0, hash));
                let got = store.read(0, hash, &key, true, now);
                assert_eq!(got.is_some(), self.keys.contains_key(&key));
                let Some(((content, at), (entry, cx))) = self.keys.get(&key).zip(got) else {
                    return;
                };
                assert_eq!(entry.expire_at_ms, *at);
                match (entry.value, content) {
                    (Value::Object(object), Content::Elements(kind, elements)) => {
                        assert_holds(object, *kind, elements, cx);
                    }
                    (value, Content::Text(text)) => assert_eq!(value.as_slice(), text),
                    (_, content) => panic!("no collection for {content:?}"),
                }
            }
            Op::Remove { key } => {
                let key = name(key);
                let hash = store.hash(&key);
                assert_eq!(store.remove(0, hash, &key, now), self.keys.remove(&key).is_some());
            }
            Op::Expire { key, expire } => {
                let key = name(key);
                let hash = store.hash(&key);
                let known = self.keys.get_mut(&key);
                assert_eq!(store.set_expire(0, hash, &key, expire, now), known.is_some());
                if let Some((_, at)) = known {
                    *at = Self::after(expire, *at);
                }
            }
            Op::Append { key, len } => {
                let key = name(key);
                let hash = store.hash(&key);
                let add = |value: &mut Vec<u8>| value.resize(value.len() + len, 1);
                let done = store.modify(0, hash, &key, now, add).unwrap();
                let known = match self.keys.get_mut(&key) {
                    Some((Content::Text(text), _)) => Some(text),
                    _ => None,
                };
                assert_eq!(done.is_some(), known.is_some());
                if let Some(value) = known {
                    add(value);
                }
            }
            Op::Add { .. } | Op::Take { .. } | Op::Move { .. } | Op::Copy { .. } => {
                self.change(store, &op);
            }
            Op::Wait { ms } => self.now += ms,
            Op::Sweep { .. } | Op::Scan | Op::Random => self.survey(store, &op),
            Op::Clear => {
                store.clear(0);
                self.keys.clear();
            }
            Op::Snap { keys } => self.snap(store, keys),
            Op::Compact { chunk, budget } => {
                store.heap.arena.drain_next(chunk);
                store.compact_step(self.now, budget);
            }
            Op::Purge { budget } => {
                let _ = store.purge_step(budget);
            }
        }
    }

    /// Begins a snapshot, or takes a part; the last one is compared with the moment.
    fn snap(&mut self, store: &mut Store, keys: u64) {
        let Some(taken) = &mut self.snapshot else {
            store.begin_snapshot(keys.is_multiple_of(2), self.now);
            let (keys, moment) = (self.keys.clone(), self.now);
            self.snapshot = Some(Taken { keys, moment, file: Vec::new() });
            return;
        };
        let (part, more) = store.snapshot_part(keys, 10_000, self.now);
        taken.file.extend(part);
        if more {
            return;
        }
        let Some(mut taken) = self.snapshot.take() else { return };
        self.snapshots += 1;
        snapshot::each_key(&taken.file, |record| {
            assert_eq!(record.db, 0);
            let (content, at) = taken.keys.remove(&*record.key).expect("a key of the moment, once");
            assert_eq!(record.attributes.expire_at_ms, at);
            let cx = store.cx(taken.moment);
            match (record.load(cx).unwrap(), content) {
                (crate::rdb::Value::String(bytes), Content::Text(text)) => assert_eq!(bytes, text),
                (crate::rdb::Value::Object(object), Content::Elements(kind, elements)) => {
                    assert_holds(&object, kind, &elements, cx);
                }
                (_, content) => panic!("something else in place of {content:?}"),
            }
        });
        assert!(taken.keys.is_empty(), "{:?} are missing", taken.keys.keys());
    }

    fn set(&mut self, store: &mut Store, key: u16, len: usize, expire: Expire, shared: bool) {
        let now = self.now;
        let key = name(key);
        self.fill = self.fill.wrapping_add(1);
        let value = vec![self.fill; len];
        let hash = store.hash(&key);
        let new = if shared {
            NewValue::Shared(Bytes::from(value.clone()))
        } else {
            NewValue::Copy(&value)
        };
        let is_new = store.set(0, hash, &key, new, expire, Form::Plain, now).unwrap();
        let old = self.keys.get(&key).map(|(_, at)| *at);
        assert_eq!(is_new, old.is_none());
        self.keys.insert(key, (Content::Text(value), Self::after(expire, old.flatten())));
    }

    /// What is done to collections.
    fn change(&mut self, store: &mut Store, op: &Op) {
        match *op {
            Op::Add { key, kind, count } => self.add(store, &name(key), KINDS[kind], count),
            Op::Take { key, count, low } => self.take(store, &name(key), count, low),
            Op::Move { from, to } if from != to => {
                let (from, to) = (name(from), name(to));
                let (from_hash, to_hash) = (store.hash(&from), store.hash(&to));
                let taken = store.take_object(0, from_hash, &from, self.now);
                let known = self.keys.get(&from);
                assert_eq!(taken.is_some(), known.is_some_and(|(content, _)| content.is_object()));
                if let Some((object, at)) = taken {
                    let expire = at.map_or(Expire::Clear, Expire::At);
                    store.put_object(0, to_hash, &to, object, expire, self.now).unwrap();
                    let moved = self.keys.remove(&from).unwrap();
                    assert_eq!(moved.1, at);
                    self.keys.insert(to, moved);
                }
            }
            Op::Copy { from, to } => {
                let (from, to) = (name(from), name(to));
                let (from_hash, to_hash) = (store.hash(&from), store.hash(&to));
                let copy = store.peek_object(0, from_hash, &from, self.now);
                let copy = copy.and_then(|(entry, cx)| match entry.value {
                    Value::Object(object) => Some(object.copy(cx)),
                    _ => None,
                });
                if let Some(object) = copy {
                    store.put_object(0, to_hash, &to, object, Expire::Keep, self.now).unwrap();
                    let content = self.keys[&from].0.clone();
                    let at = self.keys.get(&to).and_then(|(_, at)| *at);
                    self.keys.insert(to, (content, at));
                }
            }
            _ => {}
        }
    }

    /// Adds elements to what collection there is, or puts a new one in place of nothing or a string.
    fn add(&mut self, store: &mut Store, key: &[u8], kind: Kind, count: u32) {
        let hash = store.hash(key);
        let numbers = self.serial + 1..=self.serial + count;
        self.serial += count;
        let fill =
            |object: &mut Object, cx: Cx<'_>| numbers.clone().for_each(|n| add(object, n, cx));
        let edited = store.edit(0, hash, key, self.now, |object, cx, _| fill(object, cx));
        match self.keys.get_mut(key) {
            Some((Content::Elements(_, elements), _)) => {
                assert!(edited.is_some());
                elements.extend(numbers);
            }
            known => {
                assert!(edited.is_none());
                let at = known.and_then(|(_, at)| *at);
                let object = store.make(self.now, |cx, _| {
                    let mut object = fresh(kind, cx);
                    fill(&mut object, cx);
                    object
                });
                store.put_object(0, hash, key, object, Expire::Keep, self.now).unwrap();
                let content = Content::Elements(kind, numbers.collect());
                self.keys.insert(key.to_vec(), (content, at));
            }
        }
    }

    /// Removes the lowest or highest elements; the key goes with the last one.
    fn take(&mut self, store: &mut Store, key: &[u8], count: usize, low: bool) {
        let Some((Content::Elements(kind, elements), _)) = self.keys.get_mut(key) else { return };
        let hash = store.hash(key);
        let pop = |_| if low { elements.pop_first() } else { elements.pop_last() };
        let gone: Vec<u32> = (0..count).map_while(pop).collect();
        let edited = store.edit(0, hash, key, self.now, |object, cx, _| {
            gone.iter().for_each(|n| remove(object, *n, cx));
        });
        assert!(edited.is_some());
        if elements.is_empty() && *kind != Kind::Stream {
            self.keys.remove(key);
        }
    }

    fn survey(&mut self, store: &mut Store, op: &Op) {
        let now = self.now;
        match op {
            Op::Sweep { budget } => {
                let mut named = 0;
                let step = store.expire_step(now, *budget, |db, key| {
                    named += 1;
                    assert!(db == 0 && !self.keys.contains_key(key), "expired early");
                });
                assert_eq!(step.expired, named);
            }
            Op::Scan => {
                let (mut seen, mut cursor) = (Vec::new(), 0);
                loop {
                    cursor = store.scan(0, cursor, 10, now, |key, _| seen.push(key.to_vec()));
                    if cursor == 0 {
                        break;
                    }
                }
                seen.sort_unstable();
                assert!(seen.iter().eq(self.keys.keys()), "a scan at rest gives each key once");
            }
            _ => {
                let key = store.random_key(0, now);
                assert_eq!(key.is_none(), self.keys.is_empty());
                assert!(key.is_none_or(|key| self.keys.contains_key(&key)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map(
        ops in prop::collection::vec(op(), 1..2500),
        policy in prop_oneof![Just(Policy::AllKeysLru), Just(Policy::AllKeysLfu), Just(Policy::S3Fifo)],
        bits in prop_oneof![3 => Just(u64::MAX), 1 => Just(0xFFF0_0000_0000_003F), 1 => Just(1)],
    ) {
        let mut store = Store::new(StoreConfig { policy, slot_stats: true, ..StoreConfig::default() });
        store.hasher.mask = bits;
        let mut model = Model { now: NOW, ..Model::default() };
        for (n, op) in ops.into_iter().enumerate() {
            model.apply(&mut store, op);
            if n % 500 == 0 {
                store.check();
            }
        }
        store.check();
        // At least one snapshot comes to its end.
        let snapshots = model.snapshots;
        while model.snapshots == snapshots {
            model.apply(&mut store, Op::Snap { keys: 100 });
        }
        while store.purge_step(100) {}
        // Everything due goes in the end, whatever was noted on the way.
        let later = NOW + 41 * 86_400_000;
        for day in 0..42 {
            store.expire_step(NOW + day * 86_400_000, usize::MAX, |_, _| {});
        }
        store.expire_step(later, usize::MAX, |_, _| {});
        model.now = later;
        model.reap();
        prop_assert_eq!(store.len(0), model.keys.len() as u64);
        prop_assert_eq!(store.expires_len(0), 0);
        for key in model.keys.keys() {
            let hash = store.hash(key);
            prop_assert!(store.remove(0, hash, key, later));
        }
        store.check();
        prop_assert_eq!(store.heap.arena.live_bytes(), 0);
        while store.purge_step(1000) {}
        store.check();
        prop_assert!(!store.has_garbage());
        prop_assert_eq!(store.heap.larges.payload_bytes(), 0);
        prop_assert!((0..=16383).all(|slot| store.slot_count(slot) == 0));
    }
}
