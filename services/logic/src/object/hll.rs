//! HyperLogLog, byte for byte as redis-server 7.0.15 keeps it in a string (`hyperloglog.c`).
//!
//! A header of 16 bytes (`HYLL`, the encoding, three unused bytes, the cached cardinality) and
//! 16,384 registers: *dense*, six bits each, or *sparse*, runs of equal registers in one or two
//! bytes. A value starts sparse and becomes dense when a register exceeds 32 or the string a limit.
//! A register holds the longest run of zero bits seen among the hashes that fall to it. The
//! estimator is Ertl's (arXiv:1702.01284), as in Redis since 4.
//!
//! Invariants: what redis-server would write for the same calls is what is written here, the merging
//! of neighbouring runs included; bytes from outside are never trusted, and give an [`HllError`].
//! Next: [`add`], [`count`], [`merge`].

use std::fmt;

const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;
/// Hash bits that are looked at for a run of zeros.
const RUN_BITS: u32 = 64 - INDEX_BITS;
const HEADER: usize = 16;
/// Length of a dense value.
pub const DENSE_BYTES: usize = HEADER + REGISTERS * 6 / 8;
/// Default of `hll-sparse-max-bytes`.
pub const SPARSE_MAX_BYTES: usize = 3000;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// Bit of the cache's last byte that says it is stale.
const STALE: u8 = 0x80;
const HASH_SEED: u64 = 0xADC8_3B19;
const ALPHA_INF: f64 = 0.721_347_520_444_481_7;
/// The largest register, and the longest run, of a sparse value run.
const VALUE_MAX: u8 = 32;
const VALUE_RUN_MAX: usize = 4;
const ZERO_RUN_MAX: usize = 64;

/// Why a string is not taken for a HyperLogLog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HllError {
    /// The header or the length is not that of one.
    NotHll,
    /// The header is, the registers are not.
    Corrupted,
}

impl HllError {
    /// The error as Redis sends it.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::NotHll => "WRONGTYPE Key is not a valid HyperLogLog string value.",
            Self::Corrupted => "INVALIDOBJ Corrupted HLL object detected",
        }
    }
}

impl fmt::Display for HllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for HllError {}

/// A value without elements: sparse, one run of zeros, the cache valid.
#[must_use]
pub fn create() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + 2);
    out.extend_from_slice(b"HYLL");
    out.push(SPARSE);
    out.resize(HEADER, 0);
    push_zeros(&mut out, REGISTERS);
    out
}

/// Whether the header and the length are those of a HyperLogLog.
///
/// # Errors
///
/// [`HllError::NotHll`].
pub fn check(bytes: &[u8]) -> Result<(), HllError> {
    match bytes {
        [b'H', b'Y', b'L', b'L', encoding, ..] if bytes.len() >= HEADER => match *encoding {
            DENSE if bytes.len() == DENSE_BYTES => Ok(()),
            SPARSE => Ok(()),
            _ => Err(HllError::NotHll),
        },
        _ => Err(HllError::NotHll),
    }
}

/// Adds elements; whether a register changed. A new value is [`create`]d first, which counts as a
/// change, and is then to be [`invalidate`]d.
///
/// # Errors
///
/// [`HllError`]; elements before the one that met the corrupted run were added.
pub fn add<'a>(
    bytes: &mut Vec<u8>,
    elements: impl IntoIterator<Item = &'a [u8]>,
    sparse_max_bytes: usize,
) -> Result<bool, HllError> {
    check(bytes)?;
    let mut changed = false;
    for element in elements {
        let (index, run) = place(element);
        changed |= raise(bytes, index, run, sparse_max_bytes)?;
    }
    if changed {
        invalidate(bytes);
    }
    Ok(changed)
}

/// Marks the cached cardinality as stale.
pub fn invalidate(bytes: &mut [u8]) {
    if let Some(last) = bytes.get_mut(HEADER - 1) {
        *last |= STALE;
    }
}

/// The cached cardinality, unless it is stale.
///
/// # Errors
///
/// [`HllError::NotHll`].
pub fn cached(bytes: &[u8]) -> Result<Option<u64>, HllError> {
    check(bytes)?;
    let card = bytes.get(8..).and_then(|tail| tail.first_chunk::<8>()).ok_or(HllError::NotHll)?;
    let [.., last] = card;
    Ok((last & STALE == 0).then(|| u64::from_le_bytes(*card)))
}

/// The cardinality, from the registers when the cache is stale; the cache is then filled.
///
/// # Errors
///
/// [`HllError`].
pub fn count(bytes: &mut [u8]) -> Result<u64, HllError> {
    if let Some(card) = cached(bytes)? {
        return Ok(card);
    }
    let mut histogram = [0_u32; 64];
    runs(bytes, |run, value| {
        if let Some(slot) = histogram.get_mut(usize::from(value)) {
            *slot += u32::try_from(run.len()).unwrap_or(0);
        }
    })?;
    let card = estimate(&histogram);
    if let Some(place) = bytes.get_mut(8..).and_then(|tail| tail.first_chunk_mut::<8>()) {
        *place = card.to_le_bytes();
    }
    Ok(card)
}

/// The cardinality of the union; nothing is cached.
///
/// # Errors
///
/// [`HllError`] of the first value that has one.
pub fn count_union(values: &[&[u8]]) -> Result<u64, HllError> {
    let registers = union(values)?;
    let mut histogram = [0_u32; 64];
    for &value in &registers {
        if let Some(slot) = histogram.get_mut(usize::from(value)) {
            *slot += 1;
        }
    }
    Ok(estimate(&histogram))
}

/// Writes the union of `dest` and the sources to `dest`; dense as soon as one of them is.
///
/// # Errors
///
/// [`HllError`] of the first value that has one; `dest` is as it was.
pub fn merge(
    dest: &mut Vec<u8>,
    sources: &[&[u8]],
    sparse_max_bytes: usize,
) -> Result<(), HllError> {
    let mut all: Vec<&[u8]> = vec![dest.as_slice()];
    all.extend_from_slice(sources);
    let registers = union(&all)?;
    if all.iter().any(|value| value.get(4) == Some(&DENSE)) {
        promote(dest)?;
    }
    for (index, &value) in registers.iter().enumerate() {
        if value > 0 {
            raise(dest, index, value, sparse_max_bytes)?;
        }
    }
    invalidate(dest);
    Ok(())
}

/// MurmurHash64A (Appleby), little endian.
fn murmur64a(key: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xC6A4_A793_5BD1_E995;
    const R: u32 = 47;
    let mut hash = seed ^ (key.len() as u64).wrapping_mul(M);
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0_u64, |tail, &byte| tail << 8 | u64::from(byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> R)).wrapping_mul(M);
    hash ^ (hash >> R)
}

/// The register of an element, and the value it asks for: 1 to 51.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, HASH_SEED);
    let index = usize::from((hash & 0x3FFF) as u16);
    let run = (hash >> INDEX_BITS | 1 << RUN_BITS).trailing_zeros() + 1;
    (index, u8::try_from(run).unwrap_or(0))
}

/// Raises a register to a value, unless it is that high.
fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max_bytes: usize,
) -> Result<bool, HllError> {
    if bytes.get(4) == Some(&DENSE) {
        return Ok(raise_dense(bytes, index, value));
    }
    match raise_sparse(bytes, index, value, sparse_max_bytes)? {
        Sparse::Unchanged => Ok(false),
        Sparse::Changed => Ok(true),
        Sparse::TooLarge => {
            promote(bytes)?;
            Ok(raise_dense(bytes, index, value))
        }
    }
}

/// Registers are packed from the low bits of each byte on.
fn raise_dense(bytes: &mut [u8], index: usize, value: u8) -> bool {
    let registers = bytes.get_mut(HEADER..).unwrap_or_default();
    let (byte, shift) = (index * 6 / 8, index * 6 % 8);
    let low = registers.get(byte).copied().unwrap_or(0);
    // The last register does not reach into a byte after it.
    let high = registers.get(byte + 1).copied().unwrap_or(0);
    let pair = u16::from_le_bytes([low, high]);
    if u16::from(value) <= (pair >> shift) & 0x3F {
        return false;
    }
    let pair = (pair & !(0x3F << shift)) | u16::from(value & 0x3F) << shift;
    let [low, high] = pair.to_le_bytes();
    if let Some(place) = registers.get_mut(byte) {
        *place = low;
    }
    if let Some(place) = registers.get_mut(byte + 1) {
        *place = high;
    }
    true
}

/// One run of a sparse value.
#[derive(Clone, Copy)]
struct Run {
    /// 0 for zeros.
    value: u8,
    registers: usize,
    bytes: usize,
}

fn run_at(bytes: &[u8], at: usize) -> Option<Run> {
    let first = *bytes.get(at)?;
    Some(if first & 0x80 != 0 {
        let registers = usize::from(first & 3) + 1;
        Run { value: (first >> 2 & 0x1F) + 1, registers, bytes: 1 }
    } else if first & 0x40 != 0 {
        let registers = usize::from(u16::from_be_bytes([first & 0x3F, *bytes.get(at + 1)?])) + 1;
        Run { value: 0, registers, bytes: 2 }
    } else {
        Run { value: 0, registers: usize::from(first) + 1, bytes: 1 }
    })
}

fn push_zeros(out: &mut Vec<u8>, registers: usize) {
    let [high, low] = u16::try_from(registers - 1).unwrap_or(0).to_be_bytes();
    if registers > ZERO_RUN_MAX {
        out.extend_from_slice(&[high | 0x40, low]);
    } else {
        out.push(low);
    }
}

fn value_run(value: u8, registers: usize) -> u8 {
    0x80 | (value - 1) << 2 | u8::try_from(registers - 1).unwrap_or(0)
}

enum Sparse {
    Unchanged,
    Changed,
    /// The value or the string would be too large.
    TooLarge,
}

/// Splits the run that holds a register around it.
fn raise_sparse(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max_bytes: usize,
) -> Result<Sparse, HllError> {
    if value > VALUE_MAX {
        return Ok(Sparse::TooLarge);
    }
    let (mut at, mut first, mut before) = (HEADER, 0, HEADER);
    let run = loop {
        let run = run_at(bytes, at).ok_or(HllError::Corrupted)?;
        if index < first + run.registers {
            break run;
        }
        before = at;
        at += run.bytes;
        first += run.registers;
    };
    if run.value >= value {
        return Ok(Sparse::Unchanged);
    }
    let mut parts = Vec::with_capacity(5);
    let rest = |parts: &mut Vec<u8>, registers: usize| match (registers, run.value) {
        (0, _) => {}
        (_, 0) => push_zeros(parts, registers),
        (_, kept) => parts.push(value_run(kept, registers)),
    };
    rest(&mut parts, index - first);
    parts.push(value_run(value, 1));
    rest(&mut parts, first + run.registers - 1 - index);
    let grown = parts.len().saturating_sub(run.bytes);
    if grown > 0 && bytes.len() + grown > sparse_max_bytes {
        return Ok(Sparse::TooLarge);
    }
    bytes.splice(at..at + run.bytes, parts);
    join_runs(bytes, before);
    invalidate(bytes);
    Ok(Sparse::Changed)
}

/// Joins neighbouring runs of one value, in five steps from the run before the changed one on.
fn join_runs(bytes: &mut Vec<u8>, from: usize) {
    let mut at = from;
    for _ in 0..5 {
        let Some(run) = run_at(bytes, at) else { return };
        if run.value > 0
            && let Some(next) = run_at(bytes, at + 1)
            && next.value == run.value
            && run.registers + next.registers <= VALUE_RUN_MAX
        {
            if let Some(place) = bytes.get_mut(at + 1) {
                *place = value_run(run.value, run.registers + next.registers);
            }
            bytes.remove(at);
            continue;
        }
        at += run.bytes;
    }
}

/// Makes a sparse value dense; the cache is kept.
fn promote(bytes: &mut Vec<u8>) -> Result<(), HllError> {
    if bytes.get(4) == Some(&DENSE) {
        return Ok(());
    }
    let mut dense = vec![0; DENSE_BYTES];
    let header = bytes.get(..HEADER).ok_or(HllError::NotHll)?;
    dense.get_mut(..HEADER).unwrap_or_default().copy_from_slice(header);
    if let Some(encoding) = dense.get_mut(4) {
        *encoding = DENSE;
    }
    runs(bytes, |run, value| {
        if value > 0 {
            for index in run {
                raise_dense(&mut dense, index, value);
            }
        }
    })?;
    *bytes = dense;
    Ok(())
}

/// Calls `each` for runs of registers of one value; all 16,384 registers or an error.
fn runs(bytes: &[u8], mut each: impl FnMut(std::ops::Range<usize>, u8)) -> Result<(), HllError> {
    if bytes.get(4) == Some(&DENSE) {
        let groups = bytes.get(HEADER..).unwrap_or_default().as_chunks::<3>().0;
        // Three bytes are four registers.
        for (group, &[a, b, c]) in groups.iter().enumerate() {
            let word = u32::from_le_bytes([a, b, c, 0]);
            for at in 0..4 {
                let index = group * 4 + at;
                each(index..index + 1, (word >> (6 * at) & 0x3F) as u8);
            }
        }
        return Ok(());
    }
    let (mut at, mut index) = (HEADER, 0);
    while at < bytes.len() {
        let run = run_at(bytes, at).ok_or(HllError::Corrupted)?;
        if index + run.registers > REGISTERS {
            return Err(HllError::Corrupted);
        }
        each(index..index + run.registers, run.value);
        at += run.bytes;
        index += run.registers;
    }
    if index == REGISTERS { Ok(()) } else { Err(HllError::Corrupted) }
}

/// The highest of each register.
fn union(values: &[&[u8]]) -> Result<Vec<u8>, HllError> {
    let mut registers = vec![0_u8; REGISTERS];
    for bytes in values {
        check(bytes)?;
        runs(bytes, |run, value| {
            if value > 0 {
                let held = registers.get_mut(run).unwrap_or_default();
                held.iter_mut().for_each(|held| *held = value.max(*held));
            }
        })?;
    }
    Ok(registers)
}

/// Ertl's estimator, from how many registers have each value.
fn estimate(histogram: &[u32; 64]) -> u64 {
    let m = REGISTERS as f64;
    let at = |value: u32| f64::from(histogram.get(value as usize).copied().unwrap_or(0));
    let mut z = m * tau((m - at(RUN_BITS + 1)) / m);
    for value in (1..=RUN_BITS).rev() {
        z += at(value);
        z *= 0.5;
    }
    z += m * sigma(at(0) / m);
    let estimate = (ALPHA_INF * m * m / z).round();
    #[expect(clippy::cast_possible_truncation, reason = "a whole number, not negative")]
    let estimate = estimate as u64;
    estimate
}

fn sigma(x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests;
