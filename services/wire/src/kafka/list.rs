//! A list of a message, read where it lies.
//!
//! Invariants: a [`List`] was walked to its end when its message was read, so that iterating over it cannot
//! fail; it holds a place, never the elements. Next: `client` for what is read so.

use super::{Malformed, Reader};

/// Reads one element of a list, in a version.
pub(super) type Element<'a, T> = fn(&mut Reader<'a>, i16) -> Result<T, Malformed>;

/// Elements that lie one after the other in a message; an iterator over them.
#[derive(Debug)]
pub struct List<'a, T> {
    reader: Reader<'a>,
    left: usize,
    version: i16,
    element: Element<'a, T>,
}

impl<'a, T> List<'a, T> {
    /// The list at the front, which is read to its end; null reads as one without elements.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        version: i16,
        compact: bool,
        element: Element<'a, T>,
    ) -> Result<Self, Malformed> {
        let left = reader.array_len(compact)?;
        let list = Self { reader: *reader, left, version, element };
        for _ in 0..left {
            element(reader, version)?;
        }
        Ok(list)
    }

    /// A list where the version has none.
    pub(super) const fn empty(element: Element<'a, T>) -> Self {
        Self { reader: Reader::new(&[]), left: 0, version: 0, element }
    }
}

// By hand, because the elements need not be copied for their place to be.
impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> Iterator for List<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        (self.element)(&mut self.reader, self.version).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for List<'_, T> {}
