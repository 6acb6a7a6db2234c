//! Redis hash slots: which of the 16,384 slots a key belongs to.
//!
//! Source: Redis cluster specification, "Hash tags" and appendix A (CRC16-CCITT, XMODEM variant:
//! polynomial 0x1021, initial value 0, no reflection). Four tables let four bytes be folded per
//! step, since the plain table form is a chain of dependent loads.

/// Number of hash slots.
pub const SLOTS: u16 = 16_384;

const TABLES: [[u16; 256]; 4] = tables();

#[expect(clippy::indexing_slicing, reason = "checked while compiling")]
const fn tables() -> [[u16; 256]; 4] {
    let mut out = [[0u16; 256]; 4];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        out[0][byte as usize] = crc;
        byte += 1;
    }
    let mut level = 1;
    while level < 4 {
        let mut byte = 0;
        while byte < 256 {
            let below = out[level - 1][byte];
            out[level][byte] = (below << 8) ^ out[0][(below >> 8) as usize];
            byte += 1;
        }
        level += 1;
    }
    out
}

#[inline]
fn at(level: usize, byte: u8) -> u16 {
    // The outer index is a literal at every call, the inner one cannot exceed 255: no check is left.
    TABLES.get(level).map_or(0, |table| table.get(usize::from(byte)).copied().unwrap_or(0))
}

/// CRC16 of `bytes` (XMODEM).
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    let (chunks, tail) = bytes.as_chunks::<4>();
    let mut crc = 0u16;
    for &[a, b, c, d] in chunks {
        let [high, low] = crc.to_be_bytes();
        crc = at(3, a ^ high) ^ at(2, b ^ low) ^ at(1, c) ^ at(0, d);
    }
    for &byte in tail {
        let [high, low] = crc.to_be_bytes();
        crc = u16::from_be_bytes([low, 0]) ^ at(0, high ^ byte);
    }
    crc
}

/// The hash slot of `key`: of the part between the first `{` and the first `}` after it when that
/// part is not empty, else of the whole key.
#[must_use]
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS - 1)
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else {
        return key;
    };
    let after = key.get(open + 1..).unwrap_or_default();
    match after.iter().position(|&b| b == b'}') {
        None | Some(0) => key,
        Some(close) => after.get(..close).unwrap_or(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        assert_eq!(crc16(b"A"), 0x58E5);
    }

    #[test]
    fn folding_four_bytes_equals_bit_by_bit() {
        let mut data = Vec::new();
        for n in 0..300u32 {
            let expected = data.iter().fold(0u16, |mut crc, &byte: &u8| {
                crc ^= u16::from(byte) << 8;
                for _ in 0..8 {
                    crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
                }
                crc
            });
            assert_eq!(crc16(&data), expected, "length {n}");
            data.push((n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]);
        }
    }

    #[test]
    fn slots_as_redis_server_reports_them() {
        // CLUSTER KEYSLOT answers of redis-server 7.0.15.
        assert_eq!(key_slot(b"foo"), 12182);
        assert_eq!(key_slot(b"bar"), 5061);
        assert_eq!(key_slot(b"somekey"), 11058);
        assert_eq!(key_slot(b"foo{hash_tag}"), 2515);
        assert_eq!(key_slot(b""), 0);
    }

    #[test]
    fn hash_tags() {
        assert_eq!(key_slot(b"foo{bar}"), key_slot(b"bar"));
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
        assert_eq!(hash_tag(b"foo}bar{"), b"foo}bar{");
    }
}
