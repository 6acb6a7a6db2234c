//! The arguments of one command, as ranges of its frame.
//!
//! Invariant: ranges lie within the frame they were parsed from, or within `decoded` when the
//! command came as an inline line (whose quoting may change bytes). A foreign frame gives empty
//! arguments, never a panic.

/// Reusable storage for the arguments of one command.
#[derive(Debug, Default, Clone)]
pub struct Args {
    ranges: Vec<(u32, u32)>,
    decoded: Vec<u8>,
    inline: bool,
}

impl Args {
    /// An empty list; the first use allocates.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new(), decoded: Vec::new(), inline: false }
    }

    /// How many arguments there are, the command's name included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is not even a name: an empty line or an empty array, which Redis ignores.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Argument `index` of the command parsed from `frame`; empty when there is none.
    #[inline]
    #[must_use]
    pub fn get<'a>(&'a self, index: usize, frame: &'a [u8]) -> &'a [u8] {
        let source = if self.inline { self.decoded.as_slice() } else { frame };
        match self.ranges.get(index) {
            Some(&(start, end)) => source.get(start as usize..end as usize).unwrap_or_default(),
            None => &[],
        }
    }

    /// Argument `index` with the frame's own lifetime; `None` when the command came as an inline
    /// line, whose arguments are not part of the frame.
    #[must_use]
    pub fn in_frame<'f>(&self, index: usize, frame: &'f [u8]) -> Option<&'f [u8]> {
        if self.inline {
            return None;
        }
        let &(start, end) = self.ranges.get(index)?;
        frame.get(start as usize..end as usize)
    }

    /// Forgets the arguments, keeps the storage unless a huge command left it oversized.
    #[inline]
    pub fn clear(&mut self) {
        if self.ranges.capacity() > KEEP_RANGES {
            self.ranges = Vec::new();
        }
        self.ranges.clear();
        self.inline = false;
    }

    /// Adds an argument that lies at these offsets of the frame.
    #[inline]
    pub fn push(&mut self, start: u32, end: u32) {
        self.ranges.push((start, end));
    }

    pub(super) fn begin_inline(&mut self) -> &mut Vec<u8> {
        self.inline = true;
        self.decoded.clear();
        &mut self.decoded
    }

    /// Ends an inline argument that began at `start` of the decoded bytes.
    pub(super) fn push_decoded(&mut self, start: usize) {
        let end = u32::try_from(self.decoded.len()).unwrap_or(u32::MAX);
        self.ranges.push((u32::try_from(start).unwrap_or(u32::MAX), end));
    }

    pub(super) fn decoded_mut(&mut self) -> &mut Vec<u8> {
        &mut self.decoded
    }
}

/// Storage for this many arguments is kept between commands.
const KEEP_RANGES: usize = 4096;
