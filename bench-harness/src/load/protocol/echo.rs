//! Messages of one length that come back byte for byte, over plain TCP: what the transport alone
//! costs, and whether a relay leaves bytes alone.
//!
//! Invariant: the length is known, so a wrong byte spoils its message and not those after it.

use super::{Asked, Verdict};
use crate::load::arena::Values;

/// The length of the message at the front of `bytes` when it is all there and right.
#[inline]
#[must_use]
pub fn whole(asked: Asked, values: &Values, bytes: &[u8]) -> Option<usize> {
    let message = bytes.get(..values.len_bytes())?;
    values.matches(asked.key, 0, message).then_some(message.len())
}

/// Checks one message after another.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    done: usize,
    wrong: Option<String>,
}

impl Decoder {
    /// Whether it stands between two messages.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.done == 0
    }

    /// Takes bytes of the message `asked`: how many, and the verdict at its end.
    pub fn feed(
        &mut self,
        asked: Asked,
        values: &Values,
        bytes: &[u8],
    ) -> (usize, Option<Verdict>) {
        let len = values.len_bytes();
        let part = &bytes[..bytes.len().min(len - self.done)];
        if self.wrong.is_none() && !values.matches(asked.key, self.done, part) {
            let at = self.done;
            self.wrong = Some(format!("another message, seen from byte {at} of {len}"));
        }
        self.done += part.len();
        if self.done < len {
            return (part.len(), None);
        }
        self.done = 0;
        (part.len(), Some(self.wrong.take().map_or(Verdict::Right, Verdict::Wrong)))
    }
}
