//! Users and what they may do, as Redis' ACLs have it.
//!
//! A [`User`] has passwords and selectors; a selector allows commands, keys and channels, and a command runs when one
//! selector allows all of it. Every shard holds the same users: a change is made on a copy, and the copy goes to all of them.
//! Invariants: there is always a user `default`; a user is never changed in place, so that a connection may keep the one it
//! has until [`Shard::generation`](crate::Shard) moves; only hashes of passwords are kept.
//! Next: `rules` for the rules of ACL SETUSER, `describe` for how users are shown, `check` for what happens before a command.

mod check;
mod describe;
mod log;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;

use sha2::{Digest, Sha256};

pub(crate) use check::{Denied, may_read_all, may_run};
pub(crate) use log::{Log, LogEntry, Reason};
pub(crate) use rules::{Rules, category, has_spaces, merge_selectors};

/// The name of the user that connections begin with.
pub(crate) const DEFAULT: &[u8] = b"default";
/// Most users.
pub(crate) const USERS_MAX: usize = 65_536;

/// Reading keys is allowed.
pub(crate) const READ: u8 = 1;
/// Writing them is.
pub(crate) const WRITE: u8 = 2;

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub(crate) name: Box<[u8]>,
    pub(crate) on: bool,
    pub(crate) nopass: bool,
    /// RESTORE checks what it gets from this user, where a rule says so.
    pub(crate) sanitizes: Option<bool>,
    /// SHA-256 in hexadecimal.
    pub(crate) passwords: Vec<Box<[u8]>>,
    /// What rules outside parentheses change.
    pub(crate) root: Selector,
    pub(crate) others: Vec<Selector>,
}

/// One set of permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) all_keys: bool,
    pub(crate) all_channels: bool,
    /// Every command, without a look at the bits.
    pub(crate) all_commands: bool,
    /// Commands that do not exist yet, too.
    pub(crate) future: bool,
    /// One bit per command id.
    commands: Vec<u64>,
    /// First arguments with which a command that is not allowed is allowed.
    first_args: BTreeMap<u16, Vec<Box<[u8]>>>,
    pub(crate) keys: Vec<KeyPattern>,
    pub(crate) channels: Vec<Box<[u8]>>,
}

/// Keys, and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyPattern {
    /// [`READ`], [`WRITE`] or both.
    pub(crate) rights: u8,
    pub(crate) pattern: Box<[u8]>,
}

impl Selector {
    pub(crate) fn allows(&self, id: u16) -> bool {
        let word = self.commands.get(usize::from(id / 64)).copied().unwrap_or(0);
        word >> (id % 64) & 1 == 1
    }

    fn allow(&mut self, id: u16, on: bool) {
        let (word, bit) = (usize::from(id / 64), 1 << (id % 64));
        if self.commands.len() <= word {
            self.commands.resize(word + 1, 0);
        }
        let Some(word) = self.commands.get_mut(word) else { return };
        if on {
            *word |= bit;
        } else {
            *word &= !bit;
            self.all_commands = false;
        }
    }

    const fn is_unrestricted(&self) -> bool {
        self.all_keys && self.all_channels && self.all_commands
    }
}

impl User {
    /// One who may do nothing yet.
    pub(crate) fn new(name: &[u8], all_channels: bool) -> Self {
        Self {
            name: name.into(),
            on: false,
            nopass: false,
            sanitizes: None,
            passwords: Vec::new(),
            root: Selector { all_channels, ..Selector::default() },
            others: Vec::new(),
        }
    }

    /// Whether nothing is forbidden.
    pub(crate) fn is_unrestricted(&self) -> bool {
        self.selectors().any(Selector::is_unrestricted)
    }

    pub(crate) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.others)
    }

    /// Whether `password` lets one in. Takes as long for any wrong one.
    fn accepts(&self, password: &[u8]) -> bool {
        let given = hash(password);
        let equal = |known: &[u8]| {
            let differences = known.iter().zip(&*given).fold(0, |sum, (a, b)| sum | (a ^ b));
            known.len() == given.len() && differences == 0
        };
        let found = self.passwords.iter().fold(false, |found, known| found | equal(known));
        self.on && (self.nopass || found)
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn hash(password: &[u8]) -> Box<[u8]> {
    let digest = Sha256::digest(password);
    let hex = |byte: &u8| format!("{byte:02x}").into_bytes();
    digest.as_slice().iter().flat_map(hex).collect()
}

/// All users of a shard.
#[derive(Debug)]
pub(crate) struct Acl {
    users: BTreeMap<Box<[u8]>, Rc<User>>,
    default: Rc<User>,
    pub(crate) log: Log,
}

impl Acl {
    /// The default user alone, with all permissions.
    pub(crate) fn new(rules: &Rules<'_>) -> Self {
        let default = Rc::new(Self::first_default(rules));
        let users = BTreeMap::from([(default.name.clone(), Rc::clone(&default))]);
        Self { users, default, log: Log::default() }
    }

    /// The default user of a fresh server.
    pub(crate) fn first_default(rules: &Rules<'_>) -> User {
        let mut user = User::new(DEFAULT, false);
        for rule in ["+@all", "~*", "&*", "on", "nopass"] {
            // These rules are right.
            let _ = rules.apply(&mut user, rule.as_bytes());
        }
        user
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Rc<User>> {
        self.users.get(name)
    }

    pub(crate) const fn default_user(&self) -> &Rc<User> {
        &self.default
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(|user| &**user)
    }

    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether one has to log in before anything else.
    pub(crate) fn must_log_in(&self) -> bool {
        !self.default.nopass || !self.default.on
    }

    /// The user of this name, if the password is theirs.
    pub(crate) fn log_in(&self, name: &[u8], password: &[u8]) -> Option<&Rc<User>> {
        self.users.get(name).filter(|user| user.accepts(password))
    }

    /// Adds or replaces users.
    pub(crate) fn put(&mut self, user: User) {
        let user = Rc::new(user);
        if *user.name == *DEFAULT {
            self.default = Rc::clone(&user);
        }
        self.users.insert(user.name.clone(), user);
    }

    /// Removes a user; whether there was one. The default user stays.
    pub(crate) fn remove(&mut self, name: &[u8]) -> bool {
        name != DEFAULT && self.users.remove(name).is_some()
    }

    /// These users and no others; a default user is among them or stays as it is. The names of those that are gone.
    pub(crate) fn replace(&mut self, users: Vec<User>) -> Vec<Box<[u8]>> {
        let before: Vec<Box<[u8]>> = self.users.keys().cloned().collect();
        self.users = BTreeMap::from([(self.default.name.clone(), Rc::clone(&self.default))]);
        users.into_iter().for_each(|user| self.put(user));
        before.into_iter().filter(|name| !self.users.contains_key(name)).collect()
    }
}
