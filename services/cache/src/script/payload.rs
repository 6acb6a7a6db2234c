//! What FUNCTION DUMP gives and FUNCTION RESTORE takes: libraries in the form of an RDB file, with version and checksum.
//!
//! Strings are written as they are and read in all forms, compressed ones too. Invariant: a length is checked against
//! what there is before anything is taken or made.

/// Libraries by their code.
const FUNCTION: u8 = 245;
/// The form of release candidates, which nobody reads any more.
const FUNCTION_OLD: u8 = 246;
/// The version of the format.
const VERSION: u16 = 10;
/// Version and checksum.
const FOOTER_BYTES: usize = 10;
/// Most bytes a compressed string becomes.
const TEXT_MAX_BYTES: usize = 512 << 20;

/// The payload of these libraries.
pub(crate) fn write<'a>(codes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for code in codes {
        out.push(FUNCTION);
        let len = code.len();
        match (u16::try_from(len), u32::try_from(len)) {
            (Ok(len @ 0..64), _) => out.push(len as u8),
            (Ok(len @ 64..0x4000), _) => out.extend_from_slice(&(len | 0x4000).to_be_bytes()),
            (_, Ok(len)) => {
                out.push(0x80);
                out.extend_from_slice(&len.to_be_bytes());
            }
            _ => {
                out.push(0x81);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(code);
    }
    out.extend_from_slice(&VERSION.to_le_bytes());
    let sum = crc64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// The codes of a payload's libraries.
pub(super) fn read(payload: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    const BROKEN: &str = "DUMP payload version or checksum are wrong";
    let body = payload.len().checked_sub(FOOTER_BYTES).ok_or(BROKEN)?;
    let (body, footer) = payload.split_at_checked(body).ok_or(BROKEN)?;
    let (version, sum) = footer.split_at_checked(2).ok_or(BROKEN)?;
    let version = u16::from_le_bytes(version.try_into().map_err(|_| BROKEN)?);
    let sum = u64::from_le_bytes(sum.try_into().map_err(|_| BROKEN)?);
    let summed = payload.get(..body.len() + 2).unwrap_or_default();
    if version > VERSION || sum != crc64(summed) {
        return Err(BROKEN.into());
    }
    let mut reader = Reader(body);
    let mut codes = Vec::new();
    while !reader.0.is_empty() {
        match reader.byte() {
            Some(FUNCTION) => {}
            Some(FUNCTION_OLD) => return Err("Pre-release function format not supported.".into()),
            _ => return Err("given type is not a function".into()),
        }
        let code = reader.text().ok_or("Failed loading library data")?;
        codes.push(code);
    }
    Ok(codes)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A length, or the number of a special form.
    fn len(&mut self) -> Option<Result<usize, u8>> {
        let first = self.byte()?;
        let low = usize::from(first & 0x3f);
        let len = match first >> 6 {
            0 => low,
            1 => low << 8 | usize::from(self.byte()?),
            2 if first == 0x80 => u32::from_be_bytes(self.take(4)?.try_into().ok()?) as usize,
            2 if first == 0x81 => {
                usize::try_from(u64::from_be_bytes(self.take(8)?.try_into().ok()?)).ok()?
            }
            2 => return None,
            _ => return Some(Err(first & 0x3f)),
        };
        Some(Ok(len))
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let number = |bytes: &[u8]| {
            let mut all = [0; 4];
            all.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
            i32::from_le_bytes(all)
        };
        match self.len()? {
            Ok(len) => Some(self.take(len)?.to_vec()),
            Err(0) => Some((number(self.take(1)?) as i8).to_string().into_bytes()),
            Err(1) => Some((number(self.take(2)?) as i16).to_string().into_bytes()),
            Err(2) => Some(number(self.take(4)?).to_string().into_bytes()),
            Err(3) => {
                let (packed, len) = (self.len()?.ok()?, self.len()?.ok()?);
                decompress(self.take(packed)?, len)
            }
            Err(_) => None,
        }
    }
}

/// LZF: runs of literals, and copies of what was written before.
fn decompress(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > TEXT_MAX_BYTES {
        return None;
    }
    let mut reader = Reader(packed);
    let mut out = Vec::new();
    while !reader.0.is_empty() {
        let control = usize::from(reader.byte()?);
        if control < 32 {
            out.extend_from_slice(reader.take(control + 1)?);
        } else {
            let mut run = control >> 5;
            if run == 7 {
                run += usize::from(reader.byte()?);
            }
            let back = (control & 31) << 8 | usize::from(reader.byte()?);
            let first = out.len().checked_sub(back + 1)?;
            // What is copied may be part of what it makes.
            for from in first..first + run + 2 {
                let byte = *out.get(from)?;
                out.push(byte);
            }
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

/// The checksum of RDB files: CRC-64 with Jones' polynomial, bits reversed, from 0.
fn crc64(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
    let mut sum = 0_u64;
    for &byte in bytes {
        sum ^= u64::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_rdb_files() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn what_is_written_is_read() {
        let codes: Vec<Vec<u8>> =
            [0, 63, 64, 0x3fff, 0x4000].iter().map(|&len| vec![b'x'; len]).collect();
        let payload = write(codes.iter().map(Vec::as_slice));
        assert_eq!(read(&payload), Ok(codes));
        for at in 0..payload.len().min(200) {
            let mut broken = payload.clone();
            broken[at] ^= 1;
            assert!(read(&broken).is_err());
            assert!(read(&payload[..at]).is_err());
        }
    }

    #[test]
    fn compressed_text_is_read() {
        // "ab", then a copy of six bytes from two back.
        assert_eq!(decompress(&[1, b'a', b'b', 0x80, 1], 8), Some(b"abababab".to_vec()));
        assert_eq!(decompress(&[1, b'a', b'b', 0x80, 2], 8), None);
        assert_eq!(decompress(&[1, b'a'], 2), None);
        assert_eq!(decompress(&[0, b'a', 0xe0, 255, 0], 265), Some(vec![b'a'; 265]));
    }
}
