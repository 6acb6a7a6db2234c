//! CRC-64 as Redis computes it: Jones' polynomial, bits reflected, nothing added before or after.
//!
//! Invariant: the checksum of two parts in a row follows from the parts' checksums and the second one's length
//! ([`combine`]), so that shards can sum up what they write each by itself.
//! Next: `file.rs` ends a file with it, `dump.rs` a payload.

/// Jones' polynomial 0xad93d23594c935a9, reflected.
const POLY: u64 = 0x95AC_9329_AC4B_C9B5;

/// `TABLES[n][byte]`: what a byte followed by `n` zero bytes adds.
static TABLES: [[u64; 256]; 8] = tables();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLY } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[n - 1][byte];
            tables[n][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

#[inline]
fn look(table: usize, byte: u8) -> u64 {
    TABLES.get(table).and_then(|table| table.get(usize::from(byte))).copied().unwrap_or(0)
}

/// The checksum of what `crc` is of, followed by `bytes`.
#[must_use]
pub fn update(mut crc: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mixed = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
        crc = mixed.iter().zip((0..8).rev()).fold(0, |sum, (&byte, n)| sum ^ look(n, byte));
    }
    for &byte in rest {
        let [low, ..] = crc.to_le_bytes();
        crc = (crc >> 8) ^ look(0, low ^ byte);
    }
    crc
}

/// The checksum of these bytes.
#[must_use]
pub fn of(bytes: &[u8]) -> u64 {
    update(0, bytes)
}

/// The checksum of one part followed by another, from the parts' checksums and the second one's length.
#[must_use]
pub fn combine(first: u64, second: u64, second_len: u64) -> u64 {
    // The effect of one zero bit, as a matrix of columns; squared, of 2, 4, 8 … bits.
    let mut zeros = [0u64; 64];
    for (n, column) in zeros.iter_mut().enumerate() {
        *column = if n == 0 { POLY } else { 1 << (n - 1) };
    }
    for _ in 0..3 {
        zeros = square(&zeros);
    }
    let (mut crc, mut left) = (first, second_len);
    while left > 0 {
        if left & 1 == 1 {
            crc = apply(&zeros, crc);
        }
        left >>= 1;
        if left > 0 {
            zeros = square(&zeros);
        }
    }
    crc ^ second
}

fn apply(matrix: &[u64; 64], mut vector: u64) -> u64 {
    let mut sum = 0;
    for column in matrix {
        if vector & 1 == 1 {
            sum ^= column;
        }
        vector >>= 1;
    }
    sum
}

fn square(matrix: &[u64; 64]) -> [u64; 64] {
    matrix.map(|column| apply(matrix, column))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values() {
        // The check value of the catalogue of CRCs, which Redis' own test has too.
        assert_eq!(of(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(of(b""), 0);
    }

    proptest! {
        #[test]
        fn parts_add_up(a in prop::collection::vec(any::<u8>(), 0..300), b in prop::collection::vec(any::<u8>(), 0..300)) {
            let whole = of(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(update(of(&a), &b), whole);
            prop_assert_eq!(combine(of(&a), of(&b), b.len() as u64), whole);
            let slow = b.iter().fold(of(&a), |crc, &byte| update(crc, &[byte]));
            prop_assert_eq!(slow, whole);
        }
    }
}
