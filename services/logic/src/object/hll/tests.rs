//! Sketches against bytes that redis-server 7.0.15 wrote for the same elements.

use super::*;
use crate::store::hash::Rng;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As PFADD of a missing key.
fn with(elements: &[&[u8]]) -> Vec<u8> {
    let mut value = create();
    invalidate(&mut value);
    add(&mut value, elements.iter().copied(), SPARSE_MAX_BYTES).expect("valid");
    value
}

fn with_numbers(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let mut value = create();
    for number in numbers {
        let element = format!("element:{number}");
        add(&mut value, [element.as_bytes()], SPARSE_MAX_BYTES).expect("valid");
    }
    value
}

#[test]
fn small_values_are_those_of_redis() {
    let hundred = [b'a'; 100];
    let many: [&[u8]; 6] = [&hundred, b"foo", b"bar", b"1234567", b"12345678", b"123456789"];
    // Elements, the bytes after PFADD, the cardinality, and the bytes that differ after PFCOUNT.
    let cases: [(&[&[u8]], &str, u64); 5] = [
        (&[], "807fff", 0),
        (&[b"a"], "8071a6844e57", 1),
        (&[b"a", b"b", b"c"], "8060f38050b1844bfb80425a", 3),
        (&[b""], "8057318468cc", 1),
        (&many, "8048b88453f99047978442c880413e8840fa8856ab", 6),
    ];
    for (elements, bytes, expected) in cases {
        let mut value = with(elements);
        assert_eq!(hex(&value), format!("48594c4c0100000000000000000000{bytes}"));
        assert_eq!(cached(&value), Ok(None));
        assert_eq!(count(&mut value), Ok(expected));
        let registers = bytes.get(2..).unwrap_or_default();
        assert_eq!(hex(&value), format!("48594c4c01000000{expected:02x}00000000000000{registers}"));
        assert_eq!(cached(&value), Ok(Some(expected)));
    }
}

#[test]
fn values_grow_as_those_of_redis() {
    // Elements, length, checksum, cardinality, checksum with the cardinality cached.
    for (elements, len, checksum, expected, with_cache) in [
        (10, 48, 0x7e5c_c6d8, 10, 0xf93a_673d),
        (100, 285, 0x19a9_bb09, 99, 0x50aa_00e1),
        (500, 1050, 0x579b_9ca1, 502, 0x142d_7dd8),
        (1000, 1897, 0xd6ce_5880, 997, 0x0c2a_7f48),
        (1500, 2722, 0x5ce6_ade5, 1500, 0xeeb8_a297),
        (2000, 12304, 0x3f57_3956, 2004, 0x02dd_e306),
        (5000, 12304, 0xc2cb_db79, 5005, 0xc44f_0411),
        (20_000, 12304, 0x30cd_8dee, 19_986, 0x3876_51d4),
        (200_000, 12304, 0x5f8d_a841, 198_321, 0xef83_71cb),
    ] {
        let mut value = with_numbers(0..elements);
        assert_eq!(value.len(), len, "{elements}");
        assert_eq!(crc32fast::hash(&value), checksum, "{elements}");
        assert_eq!(count(&mut value), Ok(expected));
        assert_eq!(crc32fast::hash(&value), with_cache, "{elements}");
    }
}

#[test]
fn unions_are_those_of_redis() {
    let (a, b, c) = (with_numbers(0..100), with_numbers(50..200), with_numbers(1000..6000));
    assert_eq!(count_union(&[&a, &b]), Ok(200));
    assert_eq!(count_union(&[&a, &b, &c]), Ok(5205));
    assert_eq!(count_union(&[]), Ok(0));
    for (sources, len, checksum, expected) in
        [([&a, &b], 505, 0xe696_ff53, 200), ([&a, &c], 12304, 0x27d0_c4e9, 5106)]
    {
        let sources = sources.map(Vec::as_slice);
        let mut merged = create();
        assert_eq!(merge(&mut merged, &sources, SPARSE_MAX_BYTES), Ok(()));
        assert_eq!((merged.len(), crc32fast::hash(&merged)), (len, checksum));
        assert_eq!(count(&mut merged), Ok(expected));
    }
    let mut none = create();
    assert_eq!(merge(&mut none, &[], SPARSE_MAX_BYTES), Ok(()));
    assert_eq!(hex(&none), "48594c4c0100000000000000000000807fff");
}

#[test]
fn sparse_and_dense_hold_the_same_registers() {
    let mut rng = Rng::new(4);
    let (mut sparse, mut dense) = (create(), create());
    for _ in 0..3_000 {
        let element = rng.next().to_le_bytes();
        let a = add(&mut sparse, [&element[..]], usize::MAX);
        let b = add(&mut dense, [&element[..]], 0);
        assert_eq!(a, b, "they change alike");
    }
    assert_eq!((sparse.get(4), dense.get(4)), (Some(&SPARSE), Some(&DENSE)));
    assert_eq!(union(&[&sparse]), union(&[&dense]));
    assert_eq!(count(&mut sparse), count(&mut dense));
    // As a string of runs it is minimal: no two neighbours could be one.
    let mut at = HEADER;
    while let Some(run) = run_at(&sparse, at) {
        at += run.bytes;
        if let Some(next) = run_at(&sparse, at) {
            assert!(run.value != next.value || run.registers + next.registers > VALUE_RUN_MAX);
        }
    }
    let before = sparse.clone();
    promote(&mut sparse).expect("valid");
    assert_eq!(union(&[&before]), union(&[&sparse]));
}

#[test]
fn a_register_beyond_32_makes_a_value_dense() {
    for value in [31, 32, 33, 51] {
        let mut bytes = create();
        assert_eq!(raise(&mut bytes, 16_383, value, SPARSE_MAX_BYTES), Ok(true));
        assert_eq!(raise(&mut bytes, 16_383, value, SPARSE_MAX_BYTES), Ok(false));
        assert_eq!(bytes.get(4) == Some(&DENSE), value > 32);
        assert_eq!(union(&[&bytes]).map(|all| all.last().copied()), Ok(Some(value)));
        assert_eq!(raise(&mut bytes, 0, 1, SPARSE_MAX_BYTES), Ok(true));
        assert_eq!(union(&[&bytes]).map(|all| all.iter().filter(|&&held| held > 0).count()), Ok(2));
    }
}

#[test]
fn what_is_no_sketch_is_refused() {
    let sketch = |tail: &[u8]| [b"HYLL".as_slice(), tail].concat();
    let stale =
        |runs: &[u8]| sketch(&[&[SPARSE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80], runs].concat());
    for bytes in [
        Vec::new(),
        b"HYLL".to_vec(),
        b"hyll\x01aaaaaaaaaaaaaaaa".to_vec(),
        sketch(&[2; 12]),
        sketch(&[0; 12]),
        vec![0; DENSE_BYTES],
        sketch(&[0; DENSE_BYTES - 3]),
        sketch(&[0; DENSE_BYTES - 5]),
    ] {
        let error = Err(HllError::NotHll);
        assert_eq!(check(&bytes), error);
        let mut value = bytes.clone();
        assert_eq!(count(&mut value), Err(HllError::NotHll));
        assert_eq!(add(&mut value, [&b"a"[..]], 3000), Err(HllError::NotHll));
        assert_eq!(merge(&mut create(), &[&bytes], 3000), error);
        assert_eq!(merge(&mut value, &[], 3000), error);
        assert_eq!(value, bytes);
    }
    for runs in
        [&[][..], &[0x7F], &[0x7F, 0xFE], &[0x7F, 0xFF, 0x00], &[0x80; 16_385], &[0x3F; 255]]
    {
        let bytes = stale(runs);
        assert_eq!(check(&bytes), Ok(()));
        let mut value = bytes.clone();
        assert_eq!(count(&mut value), Err(HllError::Corrupted));
        assert_eq!(count_union(&[&bytes]), Err(HllError::Corrupted));
        assert_eq!(merge(&mut create(), &[&bytes], 3000), Err(HllError::Corrupted));
        assert_eq!(value, bytes);
    }
    assert_eq!(add(&mut stale(&[]), [&b"a"[..]], 3000), Err(HllError::Corrupted));
    assert_eq!(add(&mut stale(&[0x7F]), [&b"a"[..]], 3000), Err(HllError::Corrupted));
    assert_eq!(HllError::Corrupted.to_string(), "INVALIDOBJ Corrupted HLL object detected");
}

#[test]
fn garbage_does_no_harm() {
    let mut rng = Rng::new(8);
    for _ in 0..2_000 {
        let mut bytes = with_numbers(0..1 + rng.below(60));
        for _ in 0..rng.below(4) {
            let at = rng.below(u32::try_from(bytes.len()).expect("short")) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.next().to_le_bytes()[0];
            }
        }
        bytes.truncate(bytes.len() - rng.below(2) as usize);
        let _ = (count(&mut bytes.clone()), count_union(&[&bytes]));
        let _ = add(&mut bytes, [&b"a"[..], b"b"], SPARSE_MAX_BYTES);
        let _ = merge(&mut bytes, &[], SPARSE_MAX_BYTES);
    }
}
