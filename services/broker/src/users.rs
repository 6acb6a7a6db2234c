//! Who may log in: the users' file, and what the broker keeps of their passwords.
//!
//! ```toml
//! [users.alice]
//! scram = ["SCRAM-SHA-256$4096:salt$stored:server"]   # base64, as PostgreSQL stores it
//! [users.bob]
//! password = "in clear"
//! ```
//! Invariants: no password stays in memory as it is; whoever is not in the file costs what somebody in it costs; a
//! change of the file counts from the next start. Next: `wire::sasl` for the mechanisms, `guard` for a connection.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use engine::error::{Error, Kind};
use engine::rng::Seed;
use view::HashMap;
use wire::sasl::plain::Login;
use wire::sasl::{Derivation, Digest, Hash, Verifier};

/// Users in the file.
pub const USERS_MAX: usize = 10_000;
/// Longest file.
pub(crate) const FILE_MAX_BYTES: u64 = 16 << 20;

/// What the file says of a user.
#[derive(Debug, Default)]
struct User {
    /// Of the password, where the file has it in clear.
    fingerprint: Option<Digest>,
    sha256: Option<Verifier>,
    sha512: Option<Verifier>,
}

impl User {
    const fn verifier(&self, hash: Hash) -> Option<&Verifier> {
        match hash {
            Hash::Sha256 => self.sha256.as_ref(),
            Hash::Sha512 => self.sha512.as_ref(),
        }
    }
}

/// Everybody who may log in.
#[derive(Debug)]
pub struct Users {
    users: HashMap<String, User>,
    /// Known to nobody else; what must be unpredictable follows from it.
    secret: [u8; 32],
    /// A user's password has to be derived to be compared.
    derives: bool,
    /// Others than the owner can read the file.
    pub exposed: bool,
}

/// What is known of a password without further work.
#[derive(Debug)]
pub(crate) enum Checked {
    Right,
    Wrong,
    /// Thousands of hashes will tell.
    Unproven(Box<Proof>),
}

/// A password that is being compared.
#[derive(Debug)]
pub struct Proof {
    derivation: Derivation,
    verifier: Verifier,
}

impl Proof {
    /// Goes on for a while: once it is done, whether the password is the right one.
    pub(crate) fn step(&mut self, iterations: u32) -> Option<bool> {
        self.derivation.step(iterations).then(|| self.verifier.accepts(&self.derivation))
    }
}

impl Users {
    /// Reads the file at `path`, and hashes the passwords that are in clear, some milliseconds each.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub fn load(path: &Path, seed: Option<Seed>) -> Result<Self, Error> {
        let text = read(path)?;
        let mode = std::fs::metadata(path).map_err(|error| failed(path, error))?.mode();
        let mut users = Self::parse(&text, secret(seed)?).map_err(|problem| {
            Error::new("read", Kind::Invalid, format!("{}: {problem}", path.display()))
                .remedied("correct the file of --broker-users")
        })?;
        users.exposed = mode & 0o077 != 0;
        Ok(users)
    }

    fn parse(text: &str, secret: [u8; 32]) -> Result<Self, String> {
        let root: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // The text around an error may be a password.
            format!("no TOML: {}", error.message().replace('\n', ", "))
        })?;
        let mut users = HashMap::default();
        for (name, value) in &root {
            let table = value.as_table().filter(|_| name == "users");
            let table = table.ok_or_else(|| format!("'{name}' is not [users.NAME]"))?;
            if table.len() > USERS_MAX {
                return Err(format!("{} users, of {USERS_MAX} at most", table.len()));
            }
            for (name, value) in table {
                let user = user(name, value, &secret);
                users.insert(name.clone(), user.map_err(|why| format!("user '{name}': {why}"))?);
            }
        }
        if users.is_empty() {
            return Err("there is no [users.NAME], so that nobody could log in".into());
        }
        let derives = users.values().any(|user: &User| user.fingerprint.is_none());
        Ok(Self { users, secret, derives, exposed: false })
    }

    /// The verifier of a user, and what stands for it if there is none.
    pub(crate) fn verifier(&self, hash: Hash, user: &str) -> (Option<&Verifier>, Verifier) {
        let known = self.users.get(user).and_then(|user| user.verifier(hash));
        (known, Verifier::of_nobody(hash, user, &self.secret))
    }

    /// What a password is recognised by, once it was right.
    pub(crate) fn fingerprint(&self, login: &Login<'_>) -> Digest {
        let (user, password) = (login.user.as_bytes(), login.password.as_bytes());
        Hash::Sha256.keyed(&self.secret, &[b"password", user, &[0], password])
    }

    /// Compares a password in clear; `proven` is the fingerprint of one that was right before.
    pub(crate) fn check(&self, login: &Login<'_>, proven: Option<&Digest>) -> Checked {
        let found = self.users.get(login.user);
        let fingerprint = self.fingerprint(login);
        if let Some(right) = proven.or_else(|| found?.fingerprint.as_ref()) {
            return if *right == fingerprint { Checked::Right } else { Checked::Wrong };
        }
        let known = found.and_then(|user| user.sha256.as_ref().or(user.sha512.as_ref()));
        if known.is_none() && !self.derives {
            return Checked::Wrong;
        }
        let nobody = || Verifier::of_nobody(Hash::Sha256, login.user, &self.secret);
        let verifier = known.cloned().unwrap_or_else(nobody);
        let derivation = verifier.derivation(login.password.as_bytes());
        Checked::Unproven(Box::new(Proof { derivation, verifier }))
    }

    /// Something that nobody can foresee and that never comes again for other numbers.
    pub(crate) fn nonce(&self, shard: u64, number: u64) -> String {
        let parts = [&b"nonce"[..], &shard.to_le_bytes(), &number.to_le_bytes()];
        let digest = Hash::Sha256.keyed(&self.secret, &parts);
        digest.as_bytes().iter().take(18).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Reads a file before any shard runs.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let len = std::fs::metadata(path).map_err(|error| failed(path, error))?.len();
    if len > FILE_MAX_BYTES {
        let problem = format!("{}: longer than {FILE_MAX_BYTES} bytes", path.display());
        return Err(Error::new("read", Kind::Invalid, problem));
    }
    std::fs::read_to_string(path).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io("read", error, path.display().to_string())
}

fn secret(seed: Option<Seed>) -> Result<[u8; 32], Error> {
    let mut secret = [0; 32];
    let mut fixed = seed.map(|seed| seed.stream("broker.users", 0));
    for place in secret.chunks_exact_mut(8) {
        let number = match &mut fixed {
            Some(stream) => stream.next_u64(),
            None => Seed::from_os()?.0,
        };
        place.copy_from_slice(&number.to_le_bytes());
    }
    Ok(secret)
}

fn user(name: &str, value: &toml::Value, secret: &[u8; 32]) -> Result<User, String> {
    let table = value.as_table().ok_or("it is not a table")?;
    let mut user = User::default();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("password", toml::Value::String(password)) if !password.is_empty() => {
                let login = Login { user: name, password };
                let parts = [&b"password"[..], login.user.as_bytes(), &[0], password.as_bytes()];
                user.fingerprint = Some(Hash::Sha256.keyed(secret, &parts));
                let made = |hash| Some(Verifier::of_password(hash, password, name, secret));
                user.sha256 = user.sha256.or_else(|| made(Hash::Sha256));
                user.sha512 = user.sha512.or_else(|| made(Hash::Sha512));
            }
            ("scram", toml::Value::Array(list)) => {
                for text in list {
                    let text = text.as_str().ok_or("'scram' is not a list of strings")?;
                    let verifier = Verifier::parse(text)?;
                    match verifier.hash() {
                        Hash::Sha256 => user.sha256 = Some(verifier),
                        Hash::Sha512 => user.sha512 = Some(verifier),
                    }
                }
            }
            (key, _) => {
                return Err(format!("'{key}' is neither password = \"…\" nor scram = [\"…\"]"));
            }
        }
    }
    if user.sha256.is_none() && user.sha512.is_none() {
        return Err("neither a password nor a verifier".into());
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                          WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                          wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn users(text: &str) -> Result<Users, String> {
        Users::parse(text, [7; 32])
    }

    /// Whether a password is right, and whether that had to be derived.
    fn check(users: &Users, user: &str, password: &str) -> (bool, bool) {
        match users.check(&Login { user, password }, None) {
            Checked::Right => (true, false),
            Checked::Wrong => (false, false),
            Checked::Unproven(mut proof) => {
                assert_eq!(proof.step(4094), None);
                (proof.step(1).expect("done"), true)
            }
        }
    }

    #[test]
    fn passwords_are_compared_by_fingerprint_or_derived() {
        let mixed = format!("[users.a]\npassword = 'x'\n[users.user]\nscram = ['{PENCIL}']");
        let mixed = users(&mixed).expect("valid");
        assert_eq!(check(&mixed, "a", "x"), (true, false));
        assert_eq!(check(&mixed, "a", "y"), (false, false));
        assert_eq!(check(&mixed, "user", "pencil"), (true, true));
        assert_eq!(check(&mixed, "user", "pen"), (false, true));
        assert_eq!(check(&mixed, "nobody", "x"), (false, true), "costs what a user costs");
        let clear = users("[users.a]\npassword = 'x'").expect("valid");
        assert_eq!(check(&clear, "nobody", "x"), (false, false), "costs what a user costs");
        let login = Login { user: "user", password: "pencil" };
        let proven = mixed.fingerprint(&login);
        assert!(matches!(mixed.check(&login, Some(&proven)), Checked::Right));
        let wrong = Login { password: "pen", ..login };
        assert!(matches!(mixed.check(&wrong, Some(&proven)), Checked::Wrong));
    }

    #[test]
    fn passwords_in_clear_serve_every_mechanism_and_verifiers_their_own() {
        let text = format!("[users.a]\npassword = 'x'\n[users.user]\nscram = ['{PENCIL}']");
        let users = users(&text).expect("valid");
        let has = |hash, user| users.verifier(hash, user).0.is_some();
        assert!(has(Hash::Sha256, "a") && has(Hash::Sha512, "a") && has(Hash::Sha256, "user"));
        assert!(!has(Hash::Sha512, "user") && !has(Hash::Sha256, "nobody"));
        let (known, _) = users.verifier(Hash::Sha256, "user");
        assert_eq!(known.expect("known").to_text(), PENCIL);
    }

    #[test]
    fn what_is_no_users_file_is_refused_and_never_repeated() {
        for (text, problem) in [
            ("", "there is no [users.NAME]"),
            ("[users]", "there is no [users.NAME]"),
            ("[other.a]", "'other' is not [users.NAME]"),
            ("users = 1", "'users' is not [users.NAME]"),
            ("[users]\na = 'secret'", "user 'a': it is not a table"),
            ("[users.a]", "user 'a': neither a password nor a verifier"),
            ("[users.a]\npassword = ''", "user 'a': 'password' is neither"),
            ("[users.a]\npasword = 'secret'", "user 'a': 'pasword' is neither"),
            ("[users.a]\nscram = [1]", "user 'a': 'scram' is not a list"),
            ("[users.a]\nscram = ['secret']", "user 'a': it is not mechanism"),
            ("[users.a]\npassword = secret", "no TOML"),
        ] {
            let error = users(text).expect_err("not valid");
            assert!(error.starts_with(problem), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let many = |count: usize| {
            let list = (0..count).map(|n| format!("[users.u{n}]\nscram = ['{PENCIL}']\n"));
            users(&list.collect::<String>())
        };
        assert!(many(USERS_MAX).is_ok());
        assert!(many(USERS_MAX + 1).expect_err("too many").starts_with("10001 users"));
    }

    #[test]
    fn nonces_do_not_repeat() {
        let users = users("[users.a]\npassword = 'x'").expect("valid");
        let nonces = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(shard, n)| users.nonce(shard, n));
        for (at, nonce) in nonces.iter().enumerate() {
            assert_eq!(nonce.len(), 36);
            assert!(!nonces[..at].contains(nonce));
        }
    }
}
