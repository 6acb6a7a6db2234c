//! Nanoseconds per operation of the store, and bytes per key over key and value.
//!
//! `cargo run --release -p logic --example store_bench [keys…]`. Figures for a first look only:
//! one process, one thread, no peer beside it. `OPS=10000` makes it short enough for callgrind,
//! whose instruction counts do not depend on what else the machine does.
#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::{hint::black_box, time::Instant};

use logic::store::{Expire, Form, KeyHash, NewValue, Store, StoreConfig};

const VALUE: [u8; 64] = [b'v'; 64];
const NOW_MS: u64 = 1_800_000_000_000;
const BATCH: usize = 16;

fn key(n: u64) -> [u8; 16] {
    let mut out = *b"key:000000000000";
    let mut n = n;
    for digit in out.iter_mut().rev().take(12) {
        *digit = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
    }
    out
}

fn rss_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn fill(keys: u64) -> Store {
    let mut store = Store::new(StoreConfig { seed: 42, ..StoreConfig::default() });
    let rss = rss_kib();
    let start = Instant::now();
    // By powers of two of nanoseconds: the splits are the second hill.
    let mut slow = [0u64; 40];
    for n in 0..keys {
        let key = key(n);
        let one = Instant::now();
        let hash = store.hash(&key);
        let set =
            store.set(0, hash, &key, NewValue::Copy(&VALUE), Expire::Keep, Form::Plain, NOW_MS);
        assert_eq!(set, Ok(true));
        slow[one.elapsed().as_nanos().ilog2() as usize] += 1;
        if n + 1 == keys || (n + 1).is_multiple_of(250_000) {
            let over = |bytes: u64| bytes as f64 / (n + 1) as f64 - 80.0;
            println!(
                "  {:>9} keys, bytes each over key+value: used {:.1}, held {:.1}, rss {:.1}",
                n + 1,
                over(store.used_bytes()),
                over(store.held_bytes()),
                over(rss_kib().saturating_sub(rss) * 1024),
            );
        }
    }
    let ns = start.elapsed().as_nanos() as f64 / keys as f64;
    println!("  set new: {ns:.1} ns (two clock reads in it)");
    for (power, count) in slow.iter().enumerate().skip(12).filter(|(_, count)| **count != 0) {
        println!(
            "    {count:>6} sets took {:.0} us or more, below twice that",
            (1u64 << power) as f64 / 1000.0
        );
    }
    store
}

fn time(name: &str, rounds: u64, mut run: impl FnMut()) {
    let ops = std::env::var("OPS").ok().and_then(|ops| ops.parse().ok());
    let repeats = ops.unwrap_or(1u64 << 20) / rounds + 1;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..repeats {
            run();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (rounds * repeats) as f64);
    }
    println!("  {name}: {best:.1} ns");
}

/// Touches the buckets, then the records of 16 keys, then runs `each` on them.
fn batched(
    store: &mut Store,
    order: &[[u8; 16]],
    mut each: impl FnMut(&mut Store, KeyHash, &[u8; 16]),
) {
    for batch in order.as_chunks::<BATCH>().0 {
        let hashes: [KeyHash; BATCH] = std::array::from_fn(|n| store.hash(&batch[n]));
        let mut seen = 0u32;
        for &hash in &hashes {
            seen = seen.wrapping_add(store.touch_bucket(0, hash));
        }
        black_box(seen);
        for &hash in &hashes {
            seen = seen.wrapping_add(store.touch_record(0, hash));
        }
        black_box(seen);
        for (key, hash) in batch.iter().zip(hashes) {
            each(store, hash, key);
        }
    }
}

fn get(store: &mut Store, hash: KeyHash, key: &[u8; 16]) {
    let entry = store.get(0, hash, key, NOW_MS);
    black_box(entry.map(|entry| entry.value.as_slice().last().copied()));
}

fn set(store: &mut Store, hash: KeyHash, key: &[u8; 16]) {
    let set = store.set(0, hash, key, NewValue::Copy(&VALUE), Expire::Keep, Form::Plain, NOW_MS);
    black_box(set.is_ok());
}

fn lookups(store: &mut Store, keys: u64) {
    let mut state = 9;
    let order: Vec<[u8; 16]> =
        (0..keys.min(1 << 20)).map(|_| key(next(&mut state) % keys)).collect();
    let rounds = order.len() as u64;
    time("hash", rounds, || {
        for key in &order {
            black_box(store.hash(key));
        }
    });
    time("get hit", rounds, || {
        for key in &order {
            let hash = store.hash(key);
            get(store, hash, key);
        }
    });
    time("get hit, touched in batches of 16", rounds, || batched(store, &order, get));
    time("get miss", rounds, || {
        for key in &order {
            let mut other = *key;
            other[0] = b'x';
            let hash = store.hash(&other);
            get(store, hash, &other);
        }
    });
    time("set over", rounds, || {
        for key in &order {
            let hash = store.hash(key);
            set(store, hash, key);
        }
    });
    time("set over, touched in batches of 16", rounds, || batched(store, &order, set));
}

fn main() {
    let asked: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![100_000, 1_000_000] } else { asked };
    for keys in sizes {
        println!("{keys} keys of 16 B + 64 B");
        let mut store = fill(keys);
        lookups(&mut store, keys);
    }
}
