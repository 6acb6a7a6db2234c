//! What went wrong, and with which exit code it ends a command.

use std::fmt;

/// Result of the whole crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for makes no sense, or is not safe.
    Usage,
    /// This kernel, or this build, cannot do it.
    Unsupported,
    /// The kernel refused.
    Failed,
}

/// An error that says what was attempted, with what, why it failed and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    what: String,
}

impl Error {
    /// What was asked for makes no sense, or is not safe.
    pub fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, what: what.into() }
    }

    /// This kernel, or this build, cannot do it.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self { kind: Kind::Unsupported, what: what.into() }
    }

    /// The kernel refused, or a file could not be read.
    pub fn failed(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into() }
    }

    /// The same, with what it was done for in front.
    #[must_use]
    pub fn during(self, doing: &str) -> Self {
        Self { what: format!("{doing}: {}", self.what), ..self }
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
        self.map_err(|error| Error::failed(format!("{}: {error}", doing())))
    }
}
