//! SASL as a server: who a client is, by a password that it shows (`PLAIN`) or proves to know (`SCRAM`).
//!
//! Invariants: no input panics; a message above [`MESSAGE_MAX_BYTES`] is refused before it is looked at; what is
//! compared with a secret is compared in the same time whatever it is; a client whose name is not known
//! costs what another costs. Names and passwords are bytes in UTF-8 as they come, without SASLprep, as
//! Kafka takes them. Sources: RFC 4422, RFC 4616 (`PLAIN`), RFC 5802 and RFC 7677 (`SCRAM`). Next: [`scram`] for an
//! exchange, [`Verifier`] for what a server keeps of a password.

pub mod plain;
pub mod scram;
mod verifier;

pub use verifier::{Derivation, Digest, ITERATIONS_MAX, ITERATIONS_MIN, Verifier};

/// Longest message of a client that is looked at.
pub const MESSAGE_MAX_BYTES: usize = 4096;

/// A way to say who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password in clear.
    Plain,
    /// A proof that the password is known.
    Scram(Hash),
}

impl Mechanism {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Scram(Hash::Sha512), Self::Scram(Hash::Sha256), Self::Plain];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(hash) => hash.mechanism(),
        }
    }

    /// The one of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// The hash of a `SCRAM` mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// `SCRAM-SHA-256`.
    Sha256,
    /// `SCRAM-SHA-512`.
    Sha512,
}

impl Hash {
    /// Name of its mechanism.
    #[must_use]
    pub const fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }
}

/// Why a client is not who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The message is not what the mechanism has there.
    Malformed(&'static str),
    /// No such user, or not its password.
    Credentials,
}

/// Whether two byte sequences are equal, in a time that depends on their lengths alone.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0_u8, |bits, (a, b)| std::hint::black_box(bits | (a ^ b)));
    a.len() == b.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mechanisms_are_found_by_name() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::find(mechanism.name()), Some(mechanism));
        }
        for name in ["", "plain", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "GSSAPI"] {
            assert_eq!(Mechanism::find(name), None, "{name}");
        }
    }

    #[test]
    fn sequences_are_equal_only_to_themselves() {
        assert!(equal(b"", b"") && equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd") && !equal(b"abc", b"ab") && !equal(b"", b"a"));
        assert!(!equal(&[1, 0, 1], &[0, 0, 0]));
    }
}
