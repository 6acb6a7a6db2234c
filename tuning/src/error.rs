//! What went wrong: every error says what was attempted, with what, why it failed and what to do.
//!
//! A setting that cannot be had is no error but a status with a reason; see `check`. Next: `tree`.

use std::fmt;

/// Result of the whole crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that says what was attempted, with what, why it failed and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    what: String,
}

impl Error {
    /// One that says this.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when something else failed.
pub trait During<T> {
    /// Puts `doing` in front.
    ///
    /// # Errors
    /// What it is called on, with `doing` in front.
    fn during(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(format!("{}: {error}", doing())))
    }
}
