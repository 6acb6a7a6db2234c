//! What a server keeps of a password, from which the password cannot be had back.
//!
//! Written as RFC 5803 and PostgreSQL write it: `SCRAM-SHA-256$4096:salt$stored:server`, all three in base64. To make
//! one from a password takes thousands of hashes, one after the other: [`Derivation`] does them in
//! steps, for a caller that must not be busy for long. Sources: RFC 5802 section 3, RFC 5803. Next: `scram`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};

use super::{Hash, equal};

/// Fewest iterations of a verifier (RFC 7677).
pub const ITERATIONS_MIN: u32 = 4096;
/// Most iterations: a client does as many for each log-in, and so does the server for one in clear.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Longest salt.
const SALT_MAX_BYTES: usize = 128;
/// Length of the salt of a user that is not known, and of those made here.
const SALT_BYTES: usize = 16;

/// The output of a hash.
#[derive(Clone, Copy)]
pub struct Digest {
    bytes: [u8; 64],
    len: usize,
}

impl Digest {
    fn new(output: &[u8]) -> Self {
        let mut bytes = [0; 64];
        for (place, byte) in bytes.iter_mut().zip(output) {
            *place = *byte;
        }
        Self { bytes, len: output.len().min(64) }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn xor(mut self, other: &Self) -> Self {
        for (byte, other) in self.bytes.iter_mut().zip(other.bytes) {
            *byte ^= other;
        }
        self
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        equal(self.as_bytes(), other.as_bytes())
    }
}

impl Eq for Digest {}

/// Without its bytes, which belong in no log.
impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A keyed hash that was given its key.
#[derive(Clone, Debug)]
enum Keyed {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

impl Keyed {
    fn new(hash: Hash, key: &[u8]) -> Option<Self> {
        Some(match hash {
            Hash::Sha256 => Self::Sha256(Hmac::new_from_slice(key).ok()?),
            Hash::Sha512 => Self::Sha512(Hmac::new_from_slice(key).ok()?),
        })
    }

    fn of(&self, parts: &[&[u8]]) -> Digest {
        match self.clone() {
            Self::Sha256(mut mac) => {
                parts.iter().for_each(|part| mac.update(part));
                Digest::new(&mac.finalize().into_bytes())
            }
            Self::Sha512(mut mac) => {
                parts.iter().for_each(|part| mac.update(part));
                Digest::new(&mac.finalize().into_bytes())
            }
        }
    }
}

impl Hash {
    pub(super) const fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The hash of `parts` one after the other, keyed. Every length of a key is a valid one.
    #[must_use]
    pub fn keyed(self, key: &[u8], parts: &[&[u8]]) -> Digest {
        Keyed::new(self, key).map_or_else(|| Digest::new(&[]), |keyed| keyed.of(parts))
    }

    pub(super) fn of(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha256 => Digest::new(&Sha256::digest(bytes)),
            Self::Sha512 => Digest::new(&Sha512::digest(bytes)),
        }
    }
}

/// What a server keeps of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    pub(super) hash: Hash,
    pub(super) salt: Box<[u8]>,
    pub(super) iterations: u32,
    pub(super) stored_key: Digest,
    pub(super) server_key: Digest,
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$stored:server`.
    ///
    /// # Errors
    /// What is wrong with it. The text itself is secret and not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split('$');
        let (Some(name), Some(salting), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("it is not mechanism$iterations:salt$stored:server".into());
        };
        let hash = [Hash::Sha256, Hash::Sha512].into_iter().find(|hash| hash.mechanism() == name);
        let hash = hash.ok_or("the mechanism is not SCRAM-SHA-256 or SCRAM-SHA-512")?;
        let (iterations, salt) =
            salting.split_once(':').ok_or("there is no ':' before the salt")?;
        let (stored, server) = keys.split_once(':').ok_or("there is no ':' between the keys")?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|number| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(number))
            .ok_or_else(|| {
                format!("the iterations are not a number of {ITERATIONS_MIN} to {ITERATIONS_MAX}")
            })?;
        let salt = BASE64.decode(salt).map_err(|_| "the salt is not in base64")?;
        if salt.is_empty() || salt.len() > SALT_MAX_BYTES {
            return Err(format!("the salt does not have 1 to {SALT_MAX_BYTES} bytes"));
        }
        let key = |text: &str, name: &str| {
            let key =
                BASE64.decode(text).map_err(|_| format!("the {name} key is not in base64"))?;
            if key.len() == hash.len_bytes() {
                Ok(Digest::new(&key))
            } else {
                Err(format!("the {name} key does not have {} bytes", hash.len_bytes()))
            }
        };
        let (stored_key, server_key) = (key(stored, "stored")?, key(server, "server")?);
        Ok(Self { hash, salt: salt.into(), iterations, stored_key, server_key })
    }

    /// Which mechanism it is for.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// The verifier of a password: thousands of hashes at once, for the time before clients are served. The salt
    /// follows from `secret` and `user`.
    #[must_use]
    pub fn of_password(hash: Hash, password: &str, user: &str, secret: &[u8]) -> Self {
        let salt = salt_of(secret, user);
        let iterations = ITERATIONS_MIN;
        let mut derivation = Derivation::new(hash, password.as_bytes(), &salt, iterations);
        derivation.step(iterations);
        let (stored_key, server_key) = derivation.keys();
        Self { hash, salt, iterations, stored_key, server_key }
    }

    /// What stands for the verifier of a user that is not known: as if it had a password that nobody knows.
    /// Asked again, it is the same, so that a client cannot tell.
    #[must_use]
    pub fn of_nobody(hash: Hash, user: &str, secret: &[u8]) -> Self {
        Self {
            hash,
            salt: salt_of(secret, user),
            iterations: ITERATIONS_MIN,
            stored_key: hash.keyed(secret, &[b"stored", user.as_bytes()]),
            server_key: hash.keyed(secret, &[b"server", user.as_bytes()]),
        }
    }

    /// Begins to check a password that is shown in clear.
    #[must_use]
    pub fn derivation(&self, password: &[u8]) -> Derivation {
        Derivation::new(self.hash, password, &self.salt, self.iterations)
    }

    /// Whether a derivation that is done came from the password.
    #[must_use]
    pub fn accepts(&self, derivation: &Derivation) -> bool {
        derivation.left == 0 && derivation.keys().0 == self.stored_key
    }

    /// The text that [`Verifier::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "{}${}:{}${}:{}",
            self.hash.mechanism(),
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key.as_bytes()),
            BASE64.encode(self.server_key.as_bytes()),
        )
    }
}

fn salt_of(secret: &[u8], user: &str) -> Box<[u8]> {
    let salt = Hash::Sha256.keyed(secret, &[b"salt", user.as_bytes()]);
    salt.as_bytes().iter().copied().take(SALT_BYTES).collect()
}

/// A password on its way to a verifier: `Hi` of RFC 5802, which is PBKDF2 with one block, in steps.
#[derive(Clone, Debug)]
pub struct Derivation {
    hash: Hash,
    keyed: Option<Keyed>,
    last: Digest,
    output: Digest,
    left: u32,
}

impl Derivation {
    fn new(hash: Hash, password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let keyed = Keyed::new(hash, password);
        let first = keyed.as_ref().map(|keyed| keyed.of(&[salt, &1_u32.to_be_bytes()]));
        let first = first.unwrap_or_else(|| Digest::new(&[]));
        Self { hash, keyed, last: first, output: first, left: iterations.saturating_sub(1) }
    }

    /// Goes on for at most `iterations`; whether it is done.
    pub fn step(&mut self, iterations: u32) -> bool {
        let Some(keyed) = &self.keyed else { return true };
        let now = self.left.min(iterations);
        for _ in 0..now {
            self.last = keyed.of(&[self.last.as_bytes()]);
            self.output = self.output.xor(&self.last);
        }
        self.left -= now;
        self.left == 0
    }

    pub(super) fn client_key(&self) -> Digest {
        self.hash.keyed(self.output.as_bytes(), &[b"Client Key"])
    }

    /// The stored and the server key.
    fn keys(&self) -> (Digest, Digest) {
        let server_key = self.hash.keyed(self.output.as_bytes(), &[b"Server Key"]);
        (self.hash.of(self.client_key().as_bytes()), server_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677's user, its salt and its password, with keys that follow from them.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                          WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                          wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_accepts_its_password_alone_in_steps_of_any_length() {
        let verifier = Verifier::parse(PENCIL).expect("valid");
        assert_eq!(verifier.to_text(), PENCIL);
        for (password, fits) in [("pencil", true), ("pencils", false), ("", false)] {
            for step in [1000, 4095, 9999] {
                let mut derivation = verifier.derivation(password.as_bytes());
                assert!(!verifier.accepts(&derivation), "not done");
                while !derivation.step(step) {
                    assert!(!verifier.accepts(&derivation), "not done");
                }
                assert_eq!(verifier.accepts(&derivation), fits, "{password} {step}");
            }
        }
    }

    #[test]
    fn passwords_become_verifiers_that_depend_on_name_and_secret() {
        for hash in [Hash::Sha256, Hash::Sha512] {
            let made = Verifier::of_password(hash, "pw", "user", b"secret");
            assert_eq!(Verifier::parse(&made.to_text()), Ok(made.clone()));
            let mut derivation = made.derivation(b"pw");
            assert!(derivation.step(ITERATIONS_MAX) && made.accepts(&derivation));
            let nobody = Verifier::of_nobody(hash, "user", b"secret");
            assert_eq!((&nobody.salt, nobody.iterations), (&made.salt, made.iterations));
            assert!(!nobody.accepts(&derivation));
            assert_eq!(nobody, Verifier::of_nobody(hash, "user", b"secret"));
            assert_ne!(nobody.salt, Verifier::of_nobody(hash, "other", b"secret").salt);
            assert_ne!(nobody.salt, Verifier::of_nobody(hash, "user", b"another").salt);
        }
    }

    #[test]
    fn what_is_no_verifier_is_refused_without_repeating_it() {
        for (from, to, problem) in [
            ("SCRAM-SHA-256", "SCRAM-SHA-1", "the mechanism is not"),
            ("4096", "4095", "the iterations are not"),
            ("4096", "1000001", "the iterations are not"),
            ("4096", "x", "the iterations are not"),
            ("4096:", "4096", "there is no ':' before"),
            ("W22", "!", "the salt is not in base64"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "", "the salt does not have"),
            ("SCRAM-SHA-256", "SCRAM-SHA-512", "the stored key does not have 64"),
            ("qY=", "q", "the stored key is not in base64"),
            ("2dU=", "", "the server key does not have 32"),
            ("$WG5d", "WG5d", "it is not mechanism"),
            ("2dU=", "2dU=$", "it is not mechanism"),
            (":wfPL", "wfPL", "there is no ':' between"),
        ] {
            let error = Verifier::parse(&PENCIL.replace(from, to)).expect_err("not valid");
            assert!(error.starts_with(problem), "{from} {to}: {error}");
            assert!(!error.contains("G5d8o"), "{error}");
        }
        let long = PENCIL.replace("W22ZaJ0SNY7soEsUEjb6gQ==", &BASE64.encode([7; 129]));
        assert!(Verifier::parse(&long).is_err());
        let longest = PENCIL.replace("W22ZaJ0SNY7soEsUEjb6gQ==", &BASE64.encode([7; 128]));
        assert!(Verifier::parse(&longest).is_ok());
        assert!(!format!("{:?}", Verifier::parse(PENCIL)).contains("88"), "no secrets in logs");
    }
}
