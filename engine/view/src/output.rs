//! Replies of one connection: inline bytes mixed with refcounted segments.

use std::borrow::Cow;

use bytes::Bytes;

/// Values of this size and above leave by reference; smaller ones are copied between their
/// neighbours, which costs less than an iovec entry (measured break-even on a ring: about 4 KiB).
pub const INLINE_MAX_BYTES: usize = 4096;

/// Bytes to send: one growing inline buffer, and large values by reference at their place in it.
#[derive(Debug, Default)]
pub struct Output {
    inline: Vec<u8>,
    segments: Vec<Segment>,
    segment_len_bytes: usize,
}

#[derive(Clone, Debug)]
struct Segment {
    /// The segment goes out after this many inline bytes.
    at: usize,
    bytes: Bytes,
}

/// A position in an [`Output`], for cutting it into replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    inline: usize,
    segments: usize,
}

impl Output {
    /// An empty output that reuses `buffer`'s capacity.
    #[must_use]
    pub fn with_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { inline: buffer, segments: Vec::new(), segment_len_bytes: 0 }
    }

    /// An output that holds a copy of `bytes`.
    #[must_use]
    pub fn with_text(bytes: &[u8]) -> Self {
        let mut out = Self::default();
        out.write(bytes);
        out
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) {
        self.inline.extend_from_slice(bytes);
    }

    /// The inline buffer, for encoders that append to a `Vec`. Only append.
    #[inline]
    pub const fn inline_mut(&mut self) -> &mut Vec<u8> {
        &mut self.inline
    }

    /// Appends `bytes`: by reference from [`INLINE_MAX_BYTES`] up, by copy below.
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.len() < INLINE_MAX_BYTES {
            self.inline.extend_from_slice(&bytes);
        } else {
            self.segment_len_bytes += bytes.len();
            self.segments.push(Segment { at: self.inline.len(), bytes });
        }
    }

    /// Bytes to send in all.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.inline.len() + self.segment_len_bytes
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.segments.is_empty()
    }

    /// Whether everything is in the inline buffer.
    #[must_use]
    pub const fn is_inline(&self) -> bool {
        self.segments.is_empty()
    }

    /// The inline bytes alone.
    #[must_use]
    pub fn inline(&self) -> &[u8] {
        &self.inline
    }

    /// Drops everything, keeps the inline capacity.
    pub fn clear(&mut self) {
        self.inline.clear();
        self.segments.clear();
        self.segment_len_bytes = 0;
    }

    /// The inline buffer, emptied, for reuse; segments are released.
    #[must_use]
    pub fn into_buffer(mut self) -> Vec<u8> {
        self.inline.clear();
        self.inline
    }

    /// What it keeps allocated, without the shared segments themselves.
    #[must_use]
    pub const fn allocated_bytes(&self) -> usize {
        self.inline.capacity() + self.segments.capacity() * size_of::<Segment>()
    }

    /// Where the output ends now.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark { inline: self.inline.len(), segments: self.segments.len() }
    }

    /// Takes back everything after `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        self.inline.truncate(mark.inline);
        for segment in self.segments.drain(mark.segments.min(self.segments.len())..) {
            self.segment_len_bytes -= segment.bytes.len();
        }
    }

    /// What was added after `mark`; copied when some of it is by reference.
    #[must_use]
    pub fn since(&self, mark: Mark) -> Cow<'_, [u8]> {
        if self.segments.len() <= mark.segments {
            return Cow::Borrowed(self.inline.get(mark.inline..).unwrap_or_default());
        }
        let mut part = Self::default();
        part.append_range(self, mark, self.mark());
        Cow::Owned(part.to_vec())
    }

    /// Appends what `other` holds between two of its marks.
    pub fn append_range(&mut self, other: &Self, from: Mark, to: Mark) {
        let mut at = from.inline;
        for segment in other.segments.get(from.segments..to.segments).unwrap_or_default() {
            self.write(other.inline.get(at..segment.at).unwrap_or_default());
            at = segment.at;
            self.push(segment.bytes.clone());
        }
        self.write(other.inline.get(at..to.inline).unwrap_or_default());
    }

    /// Appends all of `other`.
    pub fn append(&mut self, other: &Self) {
        self.append_range(other, Mark::default(), other.mark());
    }

    /// The runs to send in order, without the first `skip` bytes and without empty runs.
    pub fn pieces(&self, skip: usize) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        let mut skip = skip;
        self.segments
            .iter()
            .map(|segment| (segment.at, &segment.bytes[..]))
            .chain(std::iter::once((self.inline.len(), &[][..])))
            .flat_map(move |(end, shared)| {
                let inline = self.inline.get(at..end).unwrap_or_default();
                at = end;
                [inline, shared]
            })
            .filter_map(move |run| {
                let skipped = run.len().min(skip);
                skip -= skipped;
                run.get(skipped..).filter(|rest| !rest.is_empty())
            })
    }

    /// Copies everything into one vector; for tests and cold paths.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for run in self.pieces(0) {
            all.extend_from_slice(run);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> Output {
        let mut out = Output::default();
        out.write(b"head");
        out.push(Bytes::from(vec![b'x'; INLINE_MAX_BYTES]));
        out.write(b"mid");
        out.push(Bytes::from_static(b"small"));
        out.push(Bytes::from(vec![b'y'; INLINE_MAX_BYTES + 1]));
        out
    }

    #[test]
    fn pieces_cover_every_byte_from_every_offset() {
        let out = mixed();
        let all = out.to_vec();
        assert_eq!(all.len(), out.len());
        for skip in [0, 1, 4, 5, 4099, 4100, 4101, 4108, 4109, all.len() - 1, all.len()] {
            let rest: Vec<u8> = out.pieces(skip).flatten().copied().collect();
            assert_eq!(rest, all[skip..], "skip {skip}");
        }
    }

    #[test]
    fn truncating_to_a_mark_undoes_inline_bytes_and_segments() {
        let mut out = mixed();
        let (mark, before) = (out.mark(), out.to_vec());
        out.write(b"more");
        out.push(Bytes::from(vec![b'z'; 9000]));
        out.truncate(mark);
        assert_eq!(out.to_vec(), before);
        assert_eq!(out.len(), before.len());
    }

    #[test]
    fn ranges_between_marks_reassemble() {
        let mut source = Output::default();
        let mut marks = vec![source.mark()];
        for len in [1, 5000, 0, 4096, 10] {
            source.write(b"$");
            source.push(Bytes::from(vec![b'v'; len]));
            marks.push(source.mark());
        }
        let mut copy = Output::default();
        for pair in marks.windows(2) {
            copy.append_range(&source, pair[0], pair[1]);
        }
        assert_eq!(copy.to_vec(), source.to_vec());
        assert_eq!(copy.len(), source.len());
    }
}
