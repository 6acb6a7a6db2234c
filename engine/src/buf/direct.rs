//! Page-aligned, zero-initialised buffers for O_DIRECT reads and writes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment that satisfies O_DIRECT on every block size in use.
const ALIGN_BYTES: usize = 4096;

/// A heap buffer aligned to 4 KiB whose length is a multiple of 4 KiB.
pub struct DirectBuf {
    start: NonNull<u8>,
    layout: Layout,
    registered: Option<u16>,
}

impl DirectBuf {
    /// A zeroed buffer of at least `len_bytes`, rounded up to whole pages (at least one).
    ///
    /// # Panics
    /// When `len_bytes` does not fit an allocation.
    #[must_use]
    pub fn zeroed(len_bytes: usize) -> Self {
        let len = len_bytes.max(1).next_multiple_of(ALIGN_BYTES);
        let layout = Layout::from_size_align(len, ALIGN_BYTES).expect("a size that fits isize");
        // SAFETY: the layout's size is not zero (at least one page).
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, layout, registered: None }
    }

    /// Index among the ring's registered buffers, when it is one.
    #[must_use]
    pub const fn registered(&self) -> Option<u16> {
        self.registered
    }

    pub(crate) const fn set_registered(&mut self, index: Option<u16>) {
        self.registered = index;
    }

    pub(crate) const fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Deref for DirectBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `layout.size()` initialised bytes owned by self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for DirectBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for DirectBuf {
    fn drop(&mut self) {
        // SAFETY: allocated by `zeroed` with this layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for DirectBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectBuf({} bytes)", self.layout.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_rounded_and_zero() {
        for len in [0, 1, 4096, 4097, 100_000] {
            let buf = DirectBuf::zeroed(len);
            assert_eq!(buf.as_ptr() as usize % ALIGN_BYTES, 0);
            assert_eq!(buf.len() % ALIGN_BYTES, 0);
            assert!(buf.len() >= len.max(1));
            assert!(buf.iter().all(|&byte| byte == 0));
        }
    }
}
