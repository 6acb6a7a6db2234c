//! States as bytes: a mark of the algorithm, and numbers of as many bytes as they need (LEB128).
//!
//! Invariant: only what [`encode`] has written is read back, or [`BadState`]. Next: `mod.rs`.

use super::{Algorithm, State};

/// The bytes are not a state of this algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadState;

impl std::fmt::Display for BadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a state of this rate limit")
    }
}

impl std::error::Error for BadState {}

/// No text in UTF-8 begins like this.
const fn mark(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::TokenBucket => 0xB1,
        Algorithm::LeakyBucket => 0xB2,
        Algorithm::FixedWindow => 0xB3,
        Algorithm::SlidingLog => 0xB4,
        Algorithm::SlidingCounter => 0xB5,
    }
}

pub(super) fn encode(algorithm: Algorithm, state: &impl State, out: &mut Vec<u8>) {
    out.push(mark(algorithm));
    state.encode(&mut Writer(out));
}

pub(super) fn decode<S: State>(algorithm: Algorithm, bytes: &[u8]) -> Result<S, BadState> {
    let (&first, rest) = bytes.split_first().ok_or(BadState)?;
    if first != mark(algorithm) {
        return Err(BadState);
    }
    let mut reader = Reader(rest);
    let state = S::decode(&mut reader).ok_or(BadState)?;
    if reader.is_empty() { Ok(state) } else { Err(BadState) }
}

/// Appends numbers.
pub(super) struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn wide(&mut self, mut value: u128) {
        loop {
            let low = value.to_le_bytes().first().copied().unwrap_or(0) & 0x7F;
            value >>= 7;
            if value == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    pub(super) fn number(&mut self, value: u64) {
        self.wide(value.into());
    }
}

/// Takes numbers.
pub(super) struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn wide(&mut self) -> Option<u128> {
        let mut value = 0_u128;
        for shift in (0..126).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u128::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number up to `most`.
    pub(super) fn up_to(&mut self, most: u64) -> Option<u64> {
        let value = u64::try_from(self.wide()?).ok()?;
        (value <= most).then_some(value)
    }
}
