//! Splits, merges, scans across them, memory per key, and keys that collide.

use super::*;

fn key(n: u64) -> [u8; 16] {
    let mut out = *b"key:000000000000";
    out[4..].copy_from_slice(format!("{n:012}").as_bytes());
    out
}

#[test]
fn memory_per_key_at_every_phase_of_growth() {
    let mut store = store(Policy::NoEviction, 0);
    let mut loads = Vec::new();
    for n in 0..1_000_000u64 {
        store.put(&key(n), &[b'v'; 64], Expire::Clear, NOW);
        if n >= 299_999 && (n + 1) % 25_000 == 0 {
            let over = |bytes: u64| bytes as f64 / (n + 1) as f64 - 80.0;
            let (used, held) = (over(store.used_bytes()), over(store.held_bytes()));
            assert!(used <= 24.0 && held <= 24.0, "{used} used, {held} held at {}", n + 1);
            loads.push(store.tables[0].load());
        }
    }
    let mean = loads.iter().sum::<f64>() / loads.len() as f64;
    assert!(mean >= 0.65, "mean load {mean}");
    store.check();
}

#[test]
fn an_expiry_costs_six_bytes_and_no_index() {
    let mut store = store(Policy::NoEviction, 0);
    for n in 0..300_000u64 {
        store.put(&key(n), &[b'v'; 64], Expire::At(NOW + 1_000_000 + n), NOW);
    }
    let over = store.used_bytes() as f64 / 300_000.0 - 80.0;
    assert!(over <= 32.0, "{over} bytes over key and value");
    assert_eq!(store.expires_len(0), 300_000);
    let ttl = store.avg_ttl_ms(0, NOW);
    assert!((1_100_000..1_200_000).contains(&ttl), "mean ttl {ttl}");
}

#[test]
fn a_scan_meets_every_key_that_stays_once_across_growth_and_shrinking() {
    for (before, added, removed) in
        [(500u64, 20_000u64, 0u64), (20_000, 0, 19_000), (5_000, 5_000, 4_000)]
    {
        let mut store = store(Policy::NoEviction, 0);
        for n in 0..before {
            store.put(&key(n), b"v", Expire::Clear, NOW);
        }
        let stays = |n: u64| n < before && n >= removed;
        let (mut seen, mut cursor, mut calls) = (vec![0u32; (before + added) as usize], 0, 0u64);
        let (mut next_add, mut next_remove) = (before, 0);
        loop {
            let mut given = 0;
            cursor = store.scan(0, cursor, 10, NOW, |key, _| {
                let n: u64 = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
                seen[n as usize] += 1;
                given += 1;
            });
            assert!(given <= 10 + 60, "bounded work per call, got {given}");
            calls += 1;
            for _ in 0..30 {
                if next_add < before + added {
                    store.put(&key(next_add), b"v", Expire::Clear, NOW);
                    next_add += 1;
                }
                if next_remove < removed {
                    let name = key(next_remove);
                    let hash = store.hash(&name);
                    assert!(store.remove(0, hash, &name, NOW));
                    next_remove += 1;
                }
            }
            if cursor == 0 {
                break;
            }
            assert!(calls < 100_000, "a scan ends");
        }
        for n in 0..before {
            assert!(!stays(n) || seen[n as usize] == 1, "key {n} seen {} times", seen[n as usize]);
        }
        store.check();
    }
}

#[test]
fn any_cursor_is_taken() {
    let mut store = store(Policy::NoEviction, 0);
    for n in 0..5000 {
        store.put(&key(n), b"v", Expire::Clear, NOW);
    }
    for cursor in [u64::MAX, 1, 0x3F_FFFF_FFFF, 1 << 40, 0x1_8000_0001] {
        let mut cursor = store.scan(0, cursor, usize::MAX, NOW, |_, _| {});
        let mut calls = 0;
        while cursor != 0 {
            cursor = store.scan(0, cursor, 1000, NOW, |_, _| {});
            calls += 1;
            assert!(calls < 10_000);
        }
    }
}

#[test]
fn an_emptied_table_shrinks() {
    let mut store = store(Policy::NoEviction, 0);
    for n in 0..200_000 {
        store.put(&key(n), b"value", Expire::Clear, NOW);
    }
    let full = store.tables[0].segments.len();
    for n in 0..200_000 {
        let hash = store.hash(&key(n));
        assert!(store.remove(0, hash, &key(n), NOW));
        if n % 20_000 == 0 {
            store.check();
        }
    }
    store.check();
    assert!(store.tables[0].segments.len() * 20 < full, "segments merge");
    assert!(store.heap.arena.chunks_held() <= 2, "chunks go back");
    for n in 0..1000 {
        store.put(&key(n), b"again", Expire::Clear, NOW);
    }
    store.check();
}

#[test]
fn keys_of_one_kind_spread() {
    type Names = fn(u32) -> Vec<u8>;
    let kinds: [(&str, Names); 4] = [
        ("long common prefix", |n| format!("{}{n}", "tenant:session:".repeat(20)).into_bytes()),
        ("little-endian counters", |n| n.to_le_bytes().to_vec()),
        ("zero bytes", |n| vec![0; n as usize % 2000 + (n as usize / 2000) * 7001]),
        ("decimal", |n| n.to_string().into_bytes()),
    ];
    for (kind, names) in kinds {
        let count = if kind == "zero bytes" { 2000 } else { 50_000 };
        let mut store = store(Policy::NoEviction, 0);
        for n in 0..count {
            assert!(store.put(&names(n), b"", Expire::Clear, NOW), "{kind}");
        }
        let table = &store.tables[0];
        assert!(table.load() > 0.35, "{kind}: load {}", table.load());
        let stashed: usize = table.metas.iter().map(|meta| meta.stash.len()).sum();
        assert!(stashed * 50 < count as usize, "{kind}: {stashed} stashed");
        assert!(table.directory.len() <= table.segments.len() * 4, "{kind}: directory");
        store.check();
    }
}

#[test]
fn keys_that_collide_in_full_work_and_do_not_split_for_ever() {
    for mask in [0, 1 << 63, 0x3F] {
        let mut store = store(Policy::NoEviction, 0);
        store.hasher.mask = mask;
        for n in 0..4000 {
            store.put(&key(n), &n.to_le_bytes(), Expire::At(NOW + 100 + n), NOW);
        }
        let table = &store.tables[0];
        assert!(table.directory.len() <= 16 * 64, "{} entries", table.directory.len());
        assert!(table.segments.len() <= 64, "{} segments", table.segments.len());
        for n in (0..4000).step_by(37) {
            assert_eq!(store.text_at(&key(n), NOW), Some(n.to_le_bytes().to_vec()));
        }
        store.check();
        let step = store.expire_step(NOW + 1100 + 200, usize::MAX, |_, _| {});
        assert!(step.expired >= 1000, "{step:?}");
        let mut seen = 0;
        let mut cursor = 0;
        loop {
            cursor = store.scan(0, cursor, 100, NOW, |_, _| seen += 1);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, store.len(0));
        for n in 0..4000 {
            let hash = store.hash(&key(n));
            store.remove(0, hash, &key(n), NOW);
        }
        assert_eq!(store.len(0), 0);
        store.check();
    }
}

#[test]
fn random_keys_are_about_equally_likely() {
    let mut store = store(Policy::NoEviction, 0);
    assert_eq!(store.random_key(0, NOW), None);
    store.put(&key(0), b"", Expire::Clear, NOW);
    assert_eq!(store.random_key(0, NOW), Some(key(0).to_vec()));
    for n in 0..2000 {
        store.put(&key(n), b"", Expire::Clear, NOW);
    }
    let mut picks = vec![0u32; 2000];
    for _ in 0..200_000 {
        let name = store.random_key(0, NOW).unwrap();
        picks[std::str::from_utf8(&name[4..]).unwrap().parse::<usize>().unwrap()] += 1;
    }
    let never = picks.iter().filter(|&&n| n == 0).count();
    let most = picks.iter().max().unwrap();
    assert!(never == 0 && *most < 250, "{never} never, {most} at most, 100 expected");
}

#[test]
fn the_active_pass_keeps_its_budget_and_finishes() {
    let mut store = store(Policy::NoEviction, 0);
    for n in 0..50_000u64 {
        let expire = if n % 2 == 0 { Expire::At(NOW + n % 1000) } else { Expire::Clear };
        store.put(&key(n), b"v", expire, NOW);
    }
    let idle = store.expire_step(NOW, 100_000, |_, _| {});
    assert_eq!((idle.expired, idle.more), (0, false));
    let later = NOW + 2000;
    let (mut total, mut calls) = (0, 0);
    loop {
        let step = store.expire_step(later, 500, |_, _| {});
        assert!(step.expired <= 520, "{step:?}");
        assert!(step.expired == 0 || (1000..=2000).contains(&step.lag_ms), "{step:?}");
        total += step.expired;
        calls += 1;
        if !step.more {
            break;
        }
        assert!(calls < 10_000);
    }
    assert_eq!((total, store.len(0), store.expires_len(0)), (25_000, 25_000, 0));
    store.check();
}

#[test]
fn clearing_is_immediate_and_purging_is_bounded() {
    let mut store = store(Policy::NoEviction, 0);
    for n in 0..30_000 {
        store.put(&key(n), &[1; 100], Expire::Clear, NOW);
    }
    store.put(b"large", &[1; 100_000], Expire::Clear, NOW);
    let full = store.used_bytes();
    store.clear(0);
    assert_eq!((store.len(0), store.text_at(&key(1), NOW)), (0, None));
    assert!(store.put(&key(1), b"new", Expire::Clear, NOW));
    let mut last = store.used_bytes();
    assert!(last >= full, "memory is accounted until it is given back");
    while store.purge_step(1000) {
        let used = store.used_bytes();
        assert!(last > used && last - used < 3000 * 200 + 200_000);
        last = used;
        store.check();
    }
    assert_eq!(store.text_at(&key(1), NOW).as_deref(), Some(&b"new"[..]));
    assert!(store.used_bytes() < 100_000);
    store.check();
}
