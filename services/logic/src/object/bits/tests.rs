//! Bits against goldens of redis-server 7.0.15 and against bits taken one by one.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::*;
use crate::store::hash::Rng;

const STRING: [u8; 8] = [0x00, 0xFF, 0x0F, 0xF0, 0x01, 0x80, 0x00, 0xAA];

#[test]
fn counts_of_ranges_are_those_of_redis() {
    for (start, end, expected) in [
        (0, -1, 22),
        (0, 0, 0),
        (1, 2, 12),
        (-2, -1, 4),
        (-1, -2, 0),
        (5, 3, 0),
        (0, 100, 22),
        (-100, 100, 22),
        (7, 8, 4),
        (8, 9, 0),
        (i64::MIN, i64::MAX, 22),
    ] {
        assert_eq!(count(&STRING, Some((start, end, Unit::Byte))), expected, "{start} {end}");
    }
    for (start, end, expected) in [
        (0, -1, 22),
        (8, 15, 8),
        (9, 14, 6),
        (5, 30, 16),
        (-9, -1, 4),
        (-5, -3, 1),
        (63, 63, 0),
        (64, 70, 0),
        (12, 10, 0),
    ] {
        assert_eq!(count(&STRING, Some((start, end, Unit::Bit))), expected, "{start} {end} BIT");
    }
    assert_eq!((count(&STRING, None), count(&[], None)), (22, 0));
    assert_eq!(count(&[], Some((0, -1, Unit::Bit))), 0);
}

#[test]
fn positions_are_those_of_redis() {
    let byte = |end| Some((end, Unit::Byte));
    let bit = |end| Some((end, Unit::Bit));
    // The start and the end, then the first one and the first zero; -1 is none.
    let in_string = [
        (0, None, 8, 0),
        (1, None, 8, 16),
        (2, None, 20, 16),
        (-1, None, 56, 57),
        (3, None, 24, 28),
        (0, byte(-1), 8, 0),
        (1, byte(1), 8, -1),
        (4, byte(2), -1, -1),
        (-1, byte(-3), -1, -1),
        (0, bit(-1), 8, 0),
        (9, bit(15), 9, -1),
        (17, bit(19), -1, 17),
        (20, bit(-20), 20, 28),
    ];
    let in_ones = [
        (0, None, 0, 24),
        (1, None, 8, 24),
        (-1, None, 16, 24),
        (3, None, -1, -1),
        (0, byte(-1), 0, -1),
        (17, bit(19), 17, -1),
        (20, bit(-20), -1, -1),
    ];
    let all = in_string.map(|case| (&STRING[..], case));
    let ones = in_ones.map(|case| (&[0xFF_u8; 3][..], case));
    for (bytes, (start, end, one, zero)) in all.into_iter().chain(ones) {
        let expected = |at: i64| u64::try_from(at).ok();
        assert_eq!(position(bytes, true, start, end), expected(one), "{start} {end:?}");
        assert_eq!(position(bytes, false, start, end), expected(zero), "{start} {end:?}");
    }
    for end in [None, byte(-1), bit(-1)] {
        assert_eq!(position(&[], true, 0, end), None);
        assert_eq!(position(&[], false, 0, end), None);
    }
}

#[test]
fn ranges_agree_with_bits_one_by_one() {
    let mut rng = Rng::new(9);
    for _ in 0..3_000 {
        let bytes: Vec<u8> = (0..rng.below(20))
            .map(|_| [0, 0xFF, rng.next().to_le_bytes()[0]][rng.below(3) as usize])
            .collect();
        let bits: Vec<bool> =
            (0..bytes.len() as u64 * 8).map(|offset| get_bit(&bytes, offset)).collect();
        let (from, to) = (rng.below(170) as usize, rng.below(170) as usize);
        let span = if from <= to { from.min(bits.len())..(to + 1).min(bits.len()) } else { 0..0 };
        let (start, end) = (i64::try_from(from).expect("small"), i64::try_from(to).expect("small"));
        let set = bits[span.clone()].iter().filter(|&&bit| bit).count();
        assert_eq!(count(&bytes, Some((start, end, Unit::Bit))), set as u64);
        for bit in [false, true] {
            let first = bits[span.clone()].iter().position(|&held| held == bit);
            let expected = first.map(|at| (at + span.start) as u64);
            assert_eq!(position(&bytes, bit, start, Some((end, Unit::Bit))), expected);
        }
    }
}

#[test]
fn strings_are_combined_to_the_longest() {
    let inputs: [&[u8]; 3] = [&[0b1100, 0xFF], &[0b1010, 0x0F, 0x55], &[0b1111]];
    assert_eq!(combine(BitOp::And, &inputs), [0b1000, 0, 0]);
    assert_eq!(combine(BitOp::Or, &inputs), [0b1111, 0xFF, 0x55]);
    assert_eq!(combine(BitOp::Xor, &inputs), [0b1001, 0xF0, 0x55]);
    assert_eq!(combine(BitOp::Not, &inputs), [0xF3, 0x00]);
    assert_eq!(combine(BitOp::And, &[&[], &[1]]), [0]);
    assert_eq!(combine(BitOp::Or, &[]), [0_u8; 0]);
    assert_eq!(combine(BitOp::Xor, &[&[7]]), [7]);
}

#[test]
fn single_bits_are_set_within_the_string_only() {
    let mut bytes = vec![0; 2];
    assert!(!set_bit(&mut bytes, 0, true));
    assert!(!set_bit(&mut bytes, 15, true));
    assert!(set_bit(&mut bytes, 15, true));
    assert!(!set_bit(&mut bytes, 16, true));
    assert_eq!(bytes, [0x80, 0x01]);
    assert!(set_bit(&mut bytes, 0, false));
    assert!(get_bit(&bytes, 15) && !get_bit(&bytes, 0) && !get_bit(&bytes, u64::MAX));
    assert_eq!([0, 1, 8, 9].map(bytes_for), [0, 1, 1, 2]);
}

#[test]
fn fields_are_those_of_redis() {
    use Overflow::{Fail, Saturate, Wrap};
    let field = |text: &str| Field::parse(text.as_bytes()).expect("a type");
    let mut bytes = vec![0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF];
    for (name, offset, expected) in [
        ("u8", 0, 1),
        ("i8", 60, -16),
        ("u63", 1, 0x0123_4567_89AB_CDEF),
        ("i64", 0, 0x0123_4567_89AB_CDEF),
        ("u4", 12, 3),
        ("i13", 5, 1165),
        ("i8", 200, 0),
    ] {
        assert_eq!(field(name).get(&bytes, offset), expected, "{name} {offset}");
    }
    let (set, add) = (Field::set, Field::increment);
    type Step<'a> = (Change, &'a str, u64, i64, Overflow, Option<i64>, &'a str);
    type Change = fn(Field, &mut [u8], u64, i64, Overflow) -> Option<i64>;
    // In turn, on the same string: what is returned, and the first bytes or all of them after it.
    let steps: [Step<'_>; 14] = [
        (set, "u8", 4, 255, Wrap, Some(18), "0ff3456789abcdef"),
        (set, "i5", 10, -7, Wrap, Some(-7), "0ff3456789abcdef"),
        (add, "u2", 100, 1, Wrap, Some(1), "0ff3456789abcdef0000000004"),
        (add, "u8", 0, 300, Saturate, Some(255), "fff3"),
        (add, "i8", 0, -300, Saturate, Some(-128), "80f3"),
        (add, "i8", 0, 1000, Fail, None, "80f3"),
        (add, "i64", 3, i64::MAX, Wrap, Some(-8_675_574_194_179_772_553), "90f3456789abcdeee0"),
        (set, "u8", 8, -1, Saturate, Some(243), "90ff45"),
        (set, "u8", 16, 257, Wrap, Some(69), "90ff01"),
        (set, "i4", 20, 8, Fail, None, "90ff01"),
        (set, "i4", 20, -100, Saturate, Some(1), "90ff08"),
        (add, "u63", 70, i64::MAX, Wrap, Some(2_147_483_647), "90ff086789abcdeee000000003fffffff8"),
        (add, "u63", 70, 1, Wrap, Some(2_147_483_648), "90ff086789abcdeee00000000400000000"),
        (add, "i1", 0, 1, Wrap, Some(0), "10ff"),
    ];
    for (change, name, offset, value, on, expected, after) in steps {
        let end = usize::try_from(bytes_for(offset + field(name).bits())).expect("small");
        bytes.resize(bytes.len().max(end), 0);
        assert_eq!(change(field(name), &mut bytes, offset, value, on), expected, "{name} {offset}");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hex.starts_with(after), "{name} {offset}: {hex}");
    }
}

#[test]
fn types_and_offsets_are_read_strictly() {
    for bad in
        ["", "u", "i", "u0", "i0", "u64", "i65", "U8", "8", "u08", "i-1", "u8 ", "i999999999999"]
    {
        assert_eq!(Field::parse(bad.as_bytes()), None, "{bad:?}");
    }
    let u5 = Field::parse(b"u5").expect("a type");
    assert_eq!(Field::parse(b"i64").map(Field::bits), Some(64));
    assert_eq!(Field::parse(b"u63").map(Field::bits), Some(63));
    assert_eq!(u5.parse_offset(b"7", 1), Some(7));
    assert_eq!(u5.parse_offset(b"8", 1), None);
    assert_eq!(u5.parse_offset(b"#3", 2), Some(15));
    assert_eq!(u5.parse_offset(b"#4", 2), None);
    for bad in
        ["", "#", "-1", "+1", "01", "1.0", "#-1", "18446744073709551616", "#9999999999999999999"]
    {
        assert_eq!(u5.parse_offset(bad.as_bytes(), u64::MAX), None, "{bad:?}");
    }
}
