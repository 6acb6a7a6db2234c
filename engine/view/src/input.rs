//! Bytes received on a connection, borrowed for one batch.

use bytes::Bytes;

/// The bytes a session may look at now. It consumes whole frames from the front; what it leaves is
/// presented again, with more behind it.
///
/// Two shapes behind one face: bytes lent from a receive buffer, or one refcounted allocation that
/// holds a large frame, of which [`Input::slice`] gives parts away without a copy.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    owner: Option<&'a Bytes>,
    consumed: usize,
    want: usize,
}

impl<'a> Input<'a> {
    /// Bytes lent for this call.
    #[must_use]
    pub const fn borrowed(bytes: &'a [u8]) -> Self {
        Self { bytes, owner: None, consumed: 0, want: 0 }
    }

    /// One refcounted allocation; slices of it are shared instead of copied.
    #[must_use]
    pub fn owned(bytes: &'a Bytes) -> Self {
        Self { bytes, owner: Some(bytes), consumed: 0, want: 0 }
    }

    /// What has not been consumed yet. Its lifetime is that of the underlying bytes, so frames
    /// parsed from it may be held across [`Input::consume`].
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.bytes.get(self.consumed..).unwrap_or_default()
    }

    /// Takes `len` bytes off the front. Consuming more than there is consumes everything.
    pub fn consume(&mut self, len: usize) {
        self.consumed = self.consumed.saturating_add(len).min(self.bytes.len());
    }

    /// How many bytes were consumed so far.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    /// Tells the host that the frame at the front is `frame_len_bytes` long in all, so that it can
    /// receive the rest of it straight into one allocation. Zero withdraws the wish.
    pub const fn want(&mut self, frame_len_bytes: usize) {
        self.want = frame_len_bytes;
    }

    /// What [`Input::want`] asked for, zero when nothing.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.want
    }

    /// `part`, which must lie within these bytes, as refcounted bytes: shared when the input owns
    /// one allocation and `part` is most of it (a small part would pin the rest), copied
    /// otherwise.
    #[must_use]
    pub fn slice(&self, part: &'a [u8]) -> Bytes {
        match self.owner {
            Some(owner) if part.len() > owner.len() / 2 => owner.slice_ref(part),
            _ => Bytes::copy_from_slice(part),
        }
    }

    /// Whether [`Input::slice`] shares instead of copying.
    #[must_use]
    pub const fn is_owned(&self) -> bool {
        self.owner.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consuming_moves_the_front_and_stops_at_the_end() {
        let mut input = Input::borrowed(b"abcdef");
        input.consume(2);
        assert_eq!(input.remaining(), b"cdef");
        input.consume(100);
        assert_eq!(input.remaining(), b"");
        assert_eq!(input.consumed(), 6);
    }

    #[test]
    fn owned_input_shares_and_borrowed_input_copies() {
        let owner = Bytes::from(vec![7_u8; 64]);
        let owned = Input::owned(&owner);
        let part = owned.slice(&owned.remaining()[8..60]);
        assert_eq!(part.as_ptr(), owner[8..].as_ptr());
        assert_ne!(owned.slice(&owned.remaining()[8..16]).as_ptr(), owner[8..].as_ptr());
        let borrowed = Input::borrowed(&owner);
        assert_ne!(borrowed.slice(&borrowed.remaining()[8..16]).as_ptr(), owner[8..].as_ptr());
    }
}
