//! Whatever the bytes: an error, or a value that is sound; no panic, and no memory for what has not arrived.

use proptest::prelude::*;

use super::*;

/// Of a payload longer than this, fewer bytes are looked at.
const WHOLE_MAX: usize = 600;
/// So many.
const SOME: usize = 60;

fn step_of(bytes: &[u8]) -> usize {
    if bytes.len() <= WHOLE_MAX { 1 } else { bytes.len().div_ceil(SOME) }
}

fn body(case: &Recorded) -> (u8, &[u8]) {
    (case.payload[0], &case.payload[1..case.payload.len() - 10])
}

/// Reads a value, and if it is one, writes it and reads it again.
fn bear(kind: u8, bytes: &[u8]) -> bool {
    let with = With::new();
    let mut skipping = Cursor::new(bytes, 1);
    let skipped = skip::skip(&mut skipping, kind);
    let mut reading = Cursor::new(bytes, 1);
    let Ok(value) = load_whole(&mut reading, kind, with.cx()) else { return false };
    assert_eq!((skipped, skipping.at()), (Ok(()), reading.at()), "both end at the same place");
    if let Value::Object(object) = &value
        && object.is_gone()
    {
        return true;
    }
    let ours = payload_of(&value, with.cx());
    let again = restore(&ours, with.cx()).unwrap();
    assert_eq!(contents(&again), contents(&value));
    true
}

#[test]
fn values_that_end_too_early() {
    for case in recorded() {
        let (kind, bytes) = body(&case);
        for end in (0..bytes.len()).step_by(step_of(bytes)) {
            assert!(!bear(kind, &bytes[..end]), "{} up to {end}", case.name);
        }
    }
}

#[test]
fn values_with_a_bit_changed() {
    let mut borne = 0;
    for case in recorded() {
        let (kind, bytes) = body(&case);
        for at in (0..bytes.len()).step_by(step_of(bytes)) {
            let mut changed = bytes.to_vec();
            for bit in [1, 2, 0x10, 0x80] {
                changed[at] ^= bit;
                borne += u64::from(bear(kind, &changed));
                changed[at] ^= bit;
            }
        }
    }
    assert!(borne > 0, "a changed text is another text");
}

#[test]
fn lengths_that_are_lies() {
    let huge = [0x81, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xF0];
    let packed = [&[0xC3][..], &[3], &huge, &[0, 0, 0]].concat();
    for kind in 0..=40 {
        assert!(!bear(kind, &huge), "type {kind}");
        assert!(!bear(kind, &packed), "type {kind}");
        for bytes in
            [&[0x81; 9][..], &[0x80, 0xFF, 0xFF, 0xFF, 0xFF], &[0xC3], &[0xC4], &[0x82], &[]]
        {
            assert!(!bear(kind, bytes), "type {kind}");
        }
    }
    // A reader keeps what has arrived, and no more.
    let mut reader = Reader::new();
    reader.feed(b"REDIS0010\x00\x01k");
    reader.feed(&huge);
    reader.feed(&[0; 100]);
    assert!(reader.next().unwrap().is_none());
    assert!(reader.held_bytes() < 1000);
    reader.end();
    assert_eq!(reader.next().unwrap_err().what, "the file ends too early");
}

#[test]
fn files_with_a_byte_changed() {
    let small: Vec<u8> = {
        let mut writer = Writer::new(true);
        writer.header();
        writer.aux("ctime", b"1700000000");
        writer.database(0, 1, 1);
        let with = With::new();
        for case in recorded().iter().filter(|case| case.payload.len() < 200) {
            let value = restore(&case.payload, with.cx()).unwrap();
            writer.key(case.name.as_bytes(), view(&value), Attributes::default(), with.cx());
        }
        writer.eof();
        // No checksum, so that it stops nothing.
        writer.checksum(0);
        writer.out
    };
    assert!(read_file(&small, 64).is_ok());
    for at in 0..small.len() {
        for bit in [1, 0x40, 0xFF] {
            let mut changed = small.clone();
            changed[at] ^= bit;
            if let Err(bad) = read_file(&changed, 64) {
                assert!(bad.at <= small.len() as u64, "{bad}");
            }
        }
        assert!(read_file(&small[..at], 64).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_of_any_type(kind in 0u8..30, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        bear(kind, &bytes);
    }

    #[test]
    fn any_listpack_in_any_type(
        kind in prop::sample::select(vec![10u8, 11, 12, 13, 9, 16, 17, 20, 23]),
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut writer = Writer::new(false);
        let total = u32::try_from(bytes.len() + 7).unwrap();
        let mut pack = total.to_le_bytes().to_vec();
        pack.extend([0xFF, 0xFF]);
        pack.extend(&bytes);
        pack.push(0xFF);
        writer.len(pack.len());
        writer.bytes(&pack);
        bear(kind, &writer.out);
    }
}
