//! The limit holds under every policy, and each policy spares what it promises to.

use super::*;

const LIMIT: u64 = 2 << 20;

const ALL: [Policy; 8] = [
    Policy::AllKeysLru,
    Policy::VolatileLru,
    Policy::AllKeysLfu,
    Policy::VolatileLfu,
    Policy::AllKeysRandom,
    Policy::VolatileRandom,
    Policy::VolatileTtl,
    Policy::S3Fifo,
];

fn key(n: u64) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

/// Makes room as a write command does.
fn room(store: &mut Store, now_ms: u64) {
    for _ in 0..10_000 {
        match store.evict_step(now_ms, 64, |_, _| {}) {
            EvictResult::Fits { .. } => return,
            EvictResult::More { .. } => {}
            EvictResult::Stuck { .. } => panic!("nothing left to evict"),
        }
    }
    panic!("no room after many steps");
}

#[test]
fn the_limit_is_never_exceeded_by_more_than_one_write() {
    for policy in ALL {
        let mut store = store(policy, LIMIT);
        for n in 0..60_000u64 {
            room(&mut store, NOW + n);
            assert!(store.used_bytes() <= LIMIT, "{policy:?}");
            let len = (n % 13) as usize * 20 + if n % 500 == 0 { 9000 } else { 0 };
            store.put(&key(n % 40_000), &vec![1; len], Expire::At(NOW + 900_000 + n), NOW + n);
            // One record, one split of a segment, one step of the queues or of a free list.
            assert!(store.used_bytes() <= LIMIT + 9200 + 24_000, "{policy:?}");
        }
        assert!(store.stats().evicted > 5000, "{policy:?}");
        store.check();
    }
}

#[test]
fn every_evicted_key_is_named() {
    for policy in ALL {
        let mut store = store(policy, LIMIT);
        let (mut put, mut gone) = (0u64, 0u64);
        for n in 0..30_000 {
            put += u64::from(store.put(&key(n), &[1; 100], Expire::At(NOW + 900_000), NOW));
            let mut named = Vec::new();
            let _ = store.evict_step(NOW, 3, |db, key| {
                assert_eq!(db, 0);
                named.push(key.to_vec());
            });
            for key in named {
                assert_eq!(store.text_at(&key, NOW), None, "{policy:?}");
                gone += 1;
            }
        }
        assert_eq!(put - gone, store.len(0), "{policy:?}");
        assert_eq!(gone, store.stats().evicted);
    }
}

#[test]
fn without_candidates_the_write_is_refused() {
    let volatile = ALL.into_iter().filter(|policy| policy.is_volatile());
    for policy in volatile.chain([Policy::NoEviction]) {
        let mut store = store(policy, 100_000);
        for n in 0..2000 {
            store.put(&key(n), &[1; 100], Expire::Clear, NOW);
        }
        assert!(store.over_limit());
        let stuck = EvictResult::Stuck { evicted: 0 };
        assert_eq!(store.evict_step(NOW, 10, |_, _| {}), stuck, "{policy:?}");
        store.put(b"volatile", &[1; 100], Expire::At(NOW + 1000), NOW);
        let result = store.evict_step(NOW, 10, |_, key| assert_eq!(key, b"volatile"));
        let found = usize::from(policy != Policy::NoEviction);
        assert_eq!(result, EvictResult::Stuck { evicted: found }, "{policy:?}");
        assert_eq!(store.len(0), 2000 + 1 - found as u64);
        store.set_maxmemory(0);
        assert_eq!(store.evict_step(NOW, 10, |_, _| {}), EvictResult::Fits { evicted: 0 });
    }
}

/// Share of a hot set that is still there after a flood of keys used once.
fn hot_share(policy: Policy) -> f64 {
    let mut store = store(policy, LIMIT);
    let mut now = NOW;
    let expire = Expire::At(NOW + 900_000_000);
    for n in 0..2000 {
        store.put(&key(n), &[1; 100], expire, now);
    }
    for n in 0..60_000u64 {
        now += 10;
        room(&mut store, now);
        store.put(&key(1_000_000 + n), &[1; 100], expire, now);
        for turn in 0..2 {
            store.text_at(&key((n * 2 + turn) % 2000), now);
        }
    }
    let kept = (0..2000).filter(|&n| store.text_at(&key(n), now).is_some()).count();
    store.check();
    kept as f64 / 2000.0
}

#[test]
fn used_keys_outlive_a_flood() {
    for policy in [Policy::AllKeysLru, Policy::AllKeysLfu, Policy::VolatileLru, Policy::S3Fifo] {
        let share = hot_share(policy);
        assert!(share > 0.9, "{policy:?} kept {share}");
    }
    let share = hot_share(Policy::AllKeysRandom);
    assert!(share < 0.6, "random knows nothing, and kept {share}");
}

#[test]
fn volatile_ttl_takes_the_soonest() {
    let mut store = store(Policy::VolatileTtl, 0);
    for n in 0..10_000u64 {
        store.put(&key(n), &[1; 50], Expire::At(NOW + 100_000 + n * 100), NOW);
    }
    store.set_maxmemory(store.used_bytes() / 2);
    let mut ranks = 0;
    let mut count = 0;
    while let EvictResult::More { .. } = store.evict_step(NOW, 1, |_, key| {
        ranks += std::str::from_utf8(&key[4..]).unwrap().parse::<u64>().unwrap();
        count += 1;
    }) {
        if count == 1000 {
            break;
        }
    }
    assert!(ranks / count < 2000, "mean rank {} of 10,000", ranks / count);
}

#[test]
fn policies_change_at_run_time() {
    let mut store = store(Policy::NoEviction, LIMIT);
    let mut n = 0;
    while !store.over_limit() {
        store.put(&key(n), &[1; 100], Expire::At(NOW + 500_000), NOW);
        n += 1;
    }
    for policy in ALL.into_iter().cycle().take(24) {
        store.set_policy(policy);
        for _ in 0..1500 {
            n += 1;
            room(&mut store, NOW);
            store.put(&key(n), &[1; 100], Expire::At(NOW + 500_000), NOW);
        }
        assert!(store.used_bytes() <= LIMIT + 40_000, "{policy:?}");
        store.check();
    }
}

#[test]
fn queues_stay_bounded_when_keys_are_overwritten_and_never_evicted() {
    let mut store = store(Policy::S3Fifo, 0);
    for n in 0..200_000u64 {
        store.put(&key(n % 500), &vec![1; (n % 7) as usize * 60], Expire::Clear, NOW);
        if n % 3 == 0 {
            let name = key((n / 3) % 500);
            let hash = store.hash(&name);
            store.remove(0, hash, &name, NOW);
        }
    }
    assert!(store.evictor.bytes() < 64 * 1024, "{} bytes of queues", store.evictor.bytes());
    store.check();
}
