//! Hashes against an ordered map, at the limits of each form, and with fields that expire.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    super::{Hasher, Limits, ReapStep, Rng},
    *,
};

const NOW: u64 = 1_800_000_000_000;

impl Hash {
    fn check(&self, hasher: &Hasher) {
        let mut fields = BTreeSet::new();
        match &self.repr {
            Repr::Table(table) => {
                table.check(hasher);
                assert!(table.iter().all(|item| fields.insert(item.field().to_vec())));
            }
            Repr::Packed(packed) => assert_eq!(packed.len() % PAIR, 0),
            Repr::Timed(timed) => {
                assert_eq!(timed.packed.len() % TRIPLE, 0);
                for (field, _, expire) in small::Triples::new(&timed.packed, TRIPLE) {
                    assert!(fields.insert(field.to_vec()), "a field twice");
                    assert!(expire.is_none_or(|at| timed.due_ms <= at), "a note too late");
                }
            }
        }
        let iterated: Vec<_> = self.iter(0).map(|(field, _)| field.to_vec()).collect();
        assert_eq!(iterated.len(), self.len());
        assert_eq!(iterated.iter().collect::<BTreeSet<_>>().len(), self.len());
        let heap = match &self.repr {
            Repr::Packed(packed) => packed.heap_bytes(),
            Repr::Timed(timed) => 32 + timed.packed.heap_bytes(),
            Repr::Table(table) => size_of_val(&**table) + table.heap_bytes(),
        };
        assert_eq!(self.mem_bytes(), heap);
    }
}

fn name(field: u32) -> Vec<u8> {
    // Integers, words, and some too long to be packed by default.
    match field % 4 {
        0 => field.to_string().into_bytes(),
        _ => format!("field:{field}").into_bytes(),
    }
}

#[test]
fn forms_change_where_redis_changes_them() {
    // OBJECT ENCODING of redis-server 7.0.15 with its defaults.
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: NOW };
    let mut hash = Hash::new();
    assert_eq!((hash.encoding(), hash.mem_bytes(), hash.is_empty()), ("listpack", 0, true));
    for n in 0..512 {
        assert!(hash.set(&name(n), b"1", Expire::Keep, cx));
    }
    assert_eq!((hash.encoding(), hash.len()), ("listpack", 512));
    assert!(!hash.set(&name(3), b"2", Expire::Keep, cx));
    assert_eq!(hash.encoding(), "listpack", "an old field adds nothing");
    assert!(hash.set(b"one more", b"", Expire::Keep, cx));
    assert_eq!((hash.encoding(), hash.len()), ("hashtable", 513));
    hash.check(&hasher);
    for n in 0..512 {
        assert!(hash.remove(&name(n), cx));
    }
    assert_eq!((hash.encoding(), hash.len()), ("hashtable", 1), "never back");
    for (field, value, encoding) in
        [(64, 64, "listpack"), (65, 1, "hashtable"), (1, 65, "hashtable")]
    {
        let mut hash = Hash::new();
        let (field, value) = (vec![b'f'; field], vec![b'v'; value]);
        hash.set(b"before", b"1", Expire::Keep, cx);
        hash.set(&field, &value, Expire::Keep, cx);
        assert_eq!(hash.encoding(), encoding);
        assert_eq!(hash.get(b"before", cx), Some(Entry::Int(1)));
        assert_eq!(hash.get(&field, cx).map(|value| value.to_vec()), Some(value));
        hash.check(&hasher);
    }
}

#[test]
fn counting_follows_redis() {
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: NOW };
    let small = Limits { hash_max_listpack_entries: 0, ..Limits::default() };
    for cx in [cx, Cx { limits: &small, ..cx }] {
        let mut hash = Hash::new();
        assert_eq!(hash.count(b"n", 5, cx), Ok(5));
        assert_eq!(hash.count(b"n", -7, cx), Ok(-2));
        assert_eq!(hash.count(b"n", i64::MIN, cx), Err(CountError::Overflow));
        assert_eq!(hash.count(b"n", i64::MAX, cx), Ok(i64::MAX - 2));
        assert_eq!(hash.count(b"n", 3, cx), Err(CountError::Overflow));
        for text in [&b"1.5"[..], b" 1", b"", b"01", b"abc", b"9223372036854775808"] {
            hash.set(b"s", text, Expire::Keep, cx);
            assert_eq!(hash.count(b"s", 1, cx), Err(CountError::NotInteger));
            assert!(hash.get(b"s", cx).unwrap().is(text));
        }
        assert_eq!(hash.value_len(b"n", cx), 19);
        assert_eq!(hash.value_len(b"none", cx), 0);
        assert!(!hash.set_new(b"n", b"x", cx) && hash.set_new(b"m", b"x", cx));
        assert_eq!(hash.take(b"m", cx), Some(b"x".to_vec()));
        assert_eq!(hash.take(b"m", cx), None);
        let refused = hash.update(b"s", cx, |old| {
            assert!(old.is_some());
            Err::<Vec<u8>, _>("no")
        });
        assert_eq!(refused, Err("no"));
        let double =
            |old: Option<Entry<'_>>| Ok::<_, ()>(old.map_or(vec![], |v| v.to_vec()).repeat(2));
        assert_eq!(hash.update(b"s", cx, double), Ok(()));
        assert_eq!(hash.get(b"s", cx), Some(Entry::Str(b"92233720368547758089223372036854775808")));
    }
}

#[test]
fn conditions_of_an_expiry() {
    use ExpireIf::{Always, Earlier, Later, None as IfNone, Some as IfSome};
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let large = Limits { hash_max_listpack_entries: 0, ..Limits::default() };
    for limits in [&limits, &large] {
        let cx = Cx { hasher: &hasher, limits, now_ms: NOW };
        let mut hash = Hash::new();
        hash.set(b"f", b"v", Expire::Keep, cx);
        hash.set(b"g", b"w", Expire::Keep, cx);
        assert_eq!(hash.next_due_ms(), None);
        let mut expire = |at: u64, condition| hash.expire_at(b"f", at, condition, cx);
        assert_eq!(expire(NOW + 50, IfSome), FieldExpire::Refused);
        assert_eq!(expire(NOW + 50, Later), FieldExpire::Refused, "never is later than any time");
        assert_eq!(expire(NOW + 50, Earlier), FieldExpire::Set);
        assert_eq!(expire(NOW + 60, IfNone), FieldExpire::Refused);
        assert_eq!(expire(NOW + 50, Later), FieldExpire::Refused);
        assert_eq!(expire(NOW + 50, Earlier), FieldExpire::Refused);
        assert_eq!(expire(NOW + 60, Later), FieldExpire::Set);
        assert_eq!(expire(NOW + 40, IfSome), FieldExpire::Set);
        assert_eq!(expire(NOW + 30, Always), FieldExpire::Set);
        assert_eq!(hash.encoding(), if limits == &large { "hashtable" } else { "listpackex" });
        assert_eq!(hash.ttl(b"f", cx), FieldTtl::At(NOW + 30));
        assert_eq!(hash.ttl(b"g", cx), FieldTtl::NoExpiry);
        assert_eq!(hash.ttl(b"h", cx), FieldTtl::NoField);
        assert_eq!(hash.expire_at(b"h", NOW + 1, Always, cx), FieldExpire::NoField);
        assert!(hash.next_due_ms().is_some_and(|at| at <= NOW + 30));
        assert_eq!(hash.persist(b"f", cx), FieldTtl::At(NOW + 30));
        assert_eq!(hash.persist(b"f", cx), FieldTtl::NoExpiry);
        assert_eq!(hash.persist(b"h", cx), FieldTtl::NoField);
        assert_eq!(hash.expire_at(b"f", u64::MAX, Always, cx), FieldExpire::Set);
        assert_eq!(hash.ttl(b"f", cx), FieldTtl::At(MAX_EXPIRE_MS));
        assert_eq!(hash.expire_at(b"f", NOW, IfNone, cx), FieldExpire::Refused);
        assert_eq!(hash.expire_at(b"f", NOW, Always, cx), FieldExpire::Deleted);
        assert_eq!((hash.ttl(b"f", cx), hash.len()), (FieldTtl::NoField, 1));
        hash.check(&hasher);
    }
}

#[test]
fn a_due_field_is_gone_before_it_is_removed() {
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let large = Limits { hash_max_listpack_entries: 0, ..Limits::default() };
    for limits in [&limits, &large] {
        let cx = Cx { hasher: &hasher, limits, now_ms: NOW };
        let mut hash = Hash::new();
        for field in [&b"a"[..], b"b", b"c", b"d"] {
            hash.set(field, b"1", Expire::At(NOW + 10), cx);
        }
        hash.set(b"e", b"1", Expire::Keep, cx);
        let on_time = Cx { now_ms: NOW + 10, ..cx };
        assert!(hash.contains(b"a", on_time) && hash.live_len(NOW + 10) == 5);
        let late = Cx { now_ms: NOW + 11, ..cx };
        assert_eq!((hash.get(b"a", late), hash.ttl(b"a", late)), (None, FieldTtl::NoField));
        assert_eq!((hash.len(), hash.live_len(NOW + 11)), (5, 1));
        assert!(!hash.remove(b"a", late) && hash.take(b"a", late).is_none());
        assert_eq!(hash.expire_at(b"a", NOW + 99, ExpireIf::Always, late), FieldExpire::NoField);
        assert_eq!(hash.iter(NOW + 11).count(), 1);
        let mut scanned = 0;
        assert_eq!(hash.scan(0, 100, late, |_, _| scanned += 1), 0);
        assert_eq!(scanned, 1);
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            assert_eq!(hash.random(&mut rng, NOW + 11).unwrap().0, Entry::Str(b"e"));
        }
        // A due field that is written again is a new one, and its expiry is not kept.
        assert_eq!(hash.count(b"a", 7, late), Ok(7));
        assert_eq!(hash.ttl(b"a", late), FieldTtl::NoExpiry);
        assert!(hash.set_new(b"b", b"2", late) && hash.set(b"c", b"2", Expire::Keep, late));
        hash.check(&hasher);
        let mut gone = Vec::new();
        let step = hash.reap(NOW + 11, 1, |field| gone.push(field.to_vec()));
        assert_eq!((step, gone), (ReapStep { expired: 1, more: false }, vec![b"d".to_vec()]));
        assert_eq!((hash.len(), hash.next_due_ms()), (4, None));
        // HSET takes an expiry away, HINCRBY does not.
        hash.set(b"e", b"5", Expire::At(NOW + 500), late);
        assert_eq!(hash.count(b"e", 1, late), Ok(6));
        assert_eq!(hash.ttl(b"e", late), FieldTtl::At(NOW + 500));
        hash.set(b"e", b"5", Expire::Clear, late);
        assert_eq!(hash.ttl(b"e", late), FieldTtl::NoExpiry);
        hash.check(&hasher);
    }
}

#[test]
fn an_expiry_costs_memory_only_where_used() {
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: NOW };
    let mut hash = Hash::new();
    for n in 0..20_000u32 {
        hash.set(&name(n), b"value", Expire::Keep, cx);
    }
    let before = hash.mem_bytes();
    hash.expire_at(&name(7), NOW + 1000, ExpireIf::Always, cx);
    let one = hash.mem_bytes() - before;
    assert!(one < 20_000 / 128 * 2 * 2 * 16, "{one} bytes for one expiry");
    for n in 0..20_000 {
        hash.expire_at(&name(n), NOW + u64::from(n) + 1, ExpireIf::Always, cx);
    }
    let each = (hash.mem_bytes() - before) / 20_000;
    assert!(each <= 6 + 1, "{each} bytes for each expiry");
    hash.check(&hasher);
}

#[derive(Debug, Clone)]
enum Op {
    Set { field: u32, value: Vec<u8>, expire: Expire },
    Remove { field: u32 },
    Count { field: u32, by: i64 },
    ExpireAt { field: u32, at: u64 },
    Persist { field: u32 },
    Wait { ms: u64 },
    Reap { budget: usize },
    Survey { count: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let field = 0u32..600;
    let value = prop_oneof![
        4 => any::<i16>().prop_map(|n| n.to_string().into_bytes()),
        4 => prop::collection::vec(any::<u8>(), 0..30),
    ];
    let expire = prop_oneof![
        3 => Just(Expire::Clear),
        3 => Just(Expire::Keep),
        1 => (1u64..2000).prop_map(Expire::At),
    ];
    prop_oneof![
        20 => (field.clone(), value, expire)
            .prop_map(|(field, value, expire)| Op::Set { field, value, expire }),
        6 => field.clone().prop_map(|field| Op::Remove { field }),
        3 => (field.clone(), -9i64..9).prop_map(|(field, by)| Op::Count { field, by }),
        3 => (field.clone(), 0u64..2000).prop_map(|(field, at)| Op::ExpireAt { field, at }),
        1 => field.prop_map(|field| Op::Persist { field }),
        2 => (1u64..100).prop_map(|ms| Op::Wait { ms }),
        1 => (1usize..200).prop_map(|budget| Op::Reap { budget }),
        1 => (1usize..300).prop_map(|count| Op::Survey { count }),
    ]
}

/// Fields with value and expiry, due ones included until they are reaped.
type Fields = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

struct Run {
    hash: Hash,
    model: Fields,
    rng: Rng,
    now: u64,
}

impl Run {
    fn live(&self, field: &[u8]) -> Option<&(Vec<u8>, Option<u64>)> {
        self.model.get(field).filter(|(_, at)| is_live(*at, self.now))
    }

    fn apply(&mut self, op: Op, cx: Cx<'_>) {
        match op {
            Op::Set { field, value, expire } => {
                let (field, old) = (name(field), self.live(&name(field)).cloned());
                let expire =
                    if let Expire::At(ms) = expire { Expire::At(self.now + ms) } else { expire };
                assert_eq!(self.hash.set(&field, &value, expire, cx), old.is_none());
                let expire = expiry_after(expire, old.and_then(|old| old.1));
                self.model.insert(field, (value, expire));
            }
            Op::Remove { field } => {
                let field = name(field);
                let live = self.live(&field).is_some();
                assert_eq!(self.hash.remove(&field, cx), live);
                if live {
                    self.model.remove(&field);
                }
            }
            Op::Count { field, by } => {
                let field = name(field);
                let old = self.live(&field).cloned();
                let text = old.as_ref().map_or("0".into(), |old| String::from_utf8_lossy(&old.0));
                let sum =
                    text.parse::<i64>().ok().filter(|n| n.to_string() == text).map(|n| n + by);
                assert_eq!(self.hash.count(&field, by, cx).ok(), sum);
                if let Some(sum) = sum {
                    self.model.insert(field, (sum.to_string().into(), old.and_then(|old| old.1)));
                }
            }
            Op::ExpireAt { field, at } => {
                let (field, at) = (name(field), self.now - 100 + at);
                let live = self.live(&field).is_some();
                let done = self.hash.expire_at(&field, at, ExpireIf::Always, cx);
                match done {
                    FieldExpire::NoField => assert!(!live),
                    FieldExpire::Set => {
                        assert!(live && at > self.now);
                        self.model.get_mut(&field).unwrap().1 = Some(at);
                    }
                    FieldExpire::Deleted => {
                        assert!(live && at <= self.now);
                        self.model.remove(&field);
                    }
                    FieldExpire::Refused => panic!("refused without a condition"),
                }
            }
            Op::Persist { field } => {
                let field = name(field);
                let expected = match self.live(&field) {
                    None => FieldTtl::NoField,
                    Some((_, None)) => FieldTtl::NoExpiry,
                    Some((_, Some(at))) => FieldTtl::At(*at),
                };
                assert_eq!(self.hash.ttl(&field, cx), expected);
                assert_eq!(self.hash.persist(&field, cx), expected);
                if let Some(known) =
                    self.model.get_mut(&field).filter(|_| expected != FieldTtl::NoField)
                {
                    known.1 = None;
                }
            }
            Op::Wait { ms } => self.now += ms,
            Op::Reap { budget } => self.reap(budget),
            Op::Survey { count } => self.survey(count, cx),
        }
        assert_eq!(self.hash.len(), self.model.len());
    }

    fn reap(&mut self, budget: usize) {
        let (now, model) = (self.now, &mut self.model);
        let step = self.hash.reap(now, budget, |field| {
            let (_, at) = model.remove(field).expect("reaped twice");
            assert!(!is_live(at, now), "reaped early");
        });
        let due = model.values().filter(|(_, at)| !is_live(*at, now)).count();
        assert!(step.more || due == 0);
        assert_eq!(self.hash.live_len(now), model.len() - due);
    }

    fn survey(&mut self, count: usize, cx: Cx<'_>) {
        let now = self.now;
        let live: Fields =
            self.model.clone().into_iter().filter(|(_, (_, at))| is_live(*at, now)).collect();
        let is = |field: &Entry<'_>, value: &Entry<'_>| {
            live.get(&field.to_vec()).is_some_and(|known| value.is(&known.0))
        };
        let (mut cursor, mut seen) = (0, BTreeSet::new());
        loop {
            cursor = self.hash.scan(cursor, count, cx, |field, value| {
                assert!(is(&field, &value) && seen.insert(field.to_vec()));
            });
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), live.len());
        let mut sampled = BTreeSet::new();
        self.hash.sample(count, &mut self.rng, now, |field, value| {
            assert!(is(&field, &value) && sampled.insert(field.to_vec()));
        });
        assert_eq!(sampled.len(), count.min(live.len()));
        let mut drawn = 0;
        self.hash.random_many(count, &mut self.rng, now, |field, value| {
            assert!(is(&field, &value));
            drawn += 1;
        });
        assert_eq!(drawn, if live.is_empty() { 0 } else { count });
        for (field, (value, _)) in &live {
            assert!(self.hash.get(field, cx).unwrap().is(value));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_hash_is_a_map(
        ops in prop::collection::vec(op(), 1..1500),
        entries in prop::sample::select(vec![0usize, 10, 512]),
        seed in any::<u64>(),
    ) {
        let limits = Limits { hash_max_listpack_entries: entries, ..Limits::default() };
        let hasher = Hasher::new(seed);
        let mut run = Run { hash: Hash::new(), model: Fields::new(), rng: Rng::new(seed), now: NOW };
        for (n, op) in ops.into_iter().enumerate() {
            let cx = Cx { hasher: &hasher, limits: &limits, now_ms: run.now };
            run.apply(op, cx);
            if n % 100 == 0 {
                run.hash.check(&hasher);
            }
        }
        run.hash.check(&hasher);
        let cx = Cx { hasher: &hasher, limits: &limits, now_ms: run.now };
        run.survey(7, cx);
        run.now += 10_000;
        run.reap(usize::MAX);
        prop_assert!(run.model.values().all(|(_, at)| at.is_none()));
        prop_assert_eq!(run.hash.next_due_ms(), None);
        while run.hash.reclaim(100) {}
        prop_assert_eq!(run.hash.mem_bytes(), 0);
    }
}
