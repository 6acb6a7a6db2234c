//! The rules of ACL SETUSER, one by one.
//!
//! Source: the Redis 7.0 manual on ACLs; errors are those of redis-server 7.0.15.

use super::{KeyPattern, READ, Selector, User, WRITE, hash};
use crate::command::{
    row::{ACL_NAMES, Bits},
    table::Index,
};
use crate::directive::split_words;

/// What rules are applied with.
pub(crate) struct Rules<'a> {
    /// The commands there are.
    pub(crate) commands: &'a Index,
    /// New users may use every channel.
    pub(crate) all_channels: bool,
}

/// Why a rule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Unknown,
    Syntax,
    KeysAfterAll,
    ChannelsAfterAll,
    NoSuchPassword,
    NotAHash,
    FirstArgOfSubcommand,
}

impl Wrong {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown command or category name in ACL",
            Self::Syntax => "Syntax error",
            Self::KeysAfterAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does \
                 not have any effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            Self::ChannelsAfterAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and \
                 does not have any effect. Try 'resetchannels' to start with an empty list of \
                 channels"
            }
            Self::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
            Self::NotAHash => {
                "The password hash must be exactly 64 characters and contain only lowercase \
                 hexadecimal characters"
            }
            Self::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        }
    }
}

/// Blanks and zero bytes may be in no name and no pattern.
pub(crate) fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b))
}

fn is_hash(text: &[u8]) -> bool {
    text.len() == 64 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Rules with the parts of each selector in parentheses put together; the index of a parenthesis that is not closed.
pub(crate) fn merge_selectors<'a>(
    rules: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Vec<u8>>, usize> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (index, rule) in rules.into_iter().enumerate() {
        if rule.first() == Some(&b'(') && rule.last() != Some(&b')') {
            open = Some((index, rule.to_vec()));
            continue;
        }
        match open.take() {
            None => merged.push(rule.to_vec()),
            Some((start, mut selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
                if rule.last() == Some(&b')') {
                    merged.push(selector);
                } else {
                    open = Some((start, selector));
                }
            }
        }
    }
    match open {
        None => Ok(merged),
        Some((start, _)) => Err(start),
    }
}

impl Rules<'_> {
    /// Changes a user by one rule.
    pub(crate) fn apply(&self, user: &mut User, rule: &[u8]) -> Result<(), Wrong> {
        let lower = rule.to_ascii_lowercase();
        match lower.as_slice() {
            b"" => {}
            b"on" => user.on = true,
            b"off" => user.on = false,
            b"skip-sanitize-payload" => user.sanitizes = Some(false),
            b"sanitize-payload" => user.sanitizes = Some(true),
            b"nopass" => {
                user.nopass = true;
                user.passwords.clear();
            }
            b"resetpass" => {
                user.nopass = false;
                user.passwords.clear();
            }
            b"clearselectors" => user.others.clear(),
            b"reset" => {
                *user = User::new(&user.name, self.all_channels);
                user.sanitizes = Some(true);
            }
            [b'>' | b'#' | b'<' | b'!', ..] => return password(user, rule),
            [b'(', .., b')'] => user.others.push(self.selector(rule)?),
            _ => return self.select(&mut user.root, rule),
        }
        Ok(())
    }

    fn selector(&self, rule: &[u8]) -> Result<Selector, Wrong> {
        let inner = rule.get(1..rule.len().saturating_sub(1)).unwrap_or_default();
        let words = split_words(&String::from_utf8_lossy(inner)).unwrap_or_default();
        let mut selector = Selector { all_channels: self.all_channels, ..Selector::default() };
        for word in words {
            self.select(&mut selector, word.as_bytes())?;
        }
        Ok(selector)
    }

    /// Changes a selector by one rule.
    fn select(&self, selector: &mut Selector, rule: &[u8]) -> Result<(), Wrong> {
        let lower = rule.to_ascii_lowercase();
        match lower.as_slice() {
            b"allkeys" | b"~*" => {
                selector.all_keys = true;
                selector.keys.clear();
            }
            b"resetkeys" => {
                selector.all_keys = false;
                selector.keys.clear();
            }
            b"allchannels" | b"&*" => {
                selector.all_channels = true;
                selector.channels.clear();
            }
            b"resetchannels" => {
                selector.all_channels = false;
                selector.channels.clear();
            }
            b"allcommands" | b"+@all" => self.everything(selector, true),
            b"nocommands" | b"-@all" => self.everything(selector, false),
            [b'~' | b'%', ..] => return keys(selector, rule),
            [b'&', ..] => return channels(selector, rule.get(1..).unwrap_or_default()),
            [sign @ (b'+' | b'-'), b'@', category @ ..] => {
                self.category(selector, category, *sign == b'+')?;
            }
            [b'+', ..] => return self.add(selector, rule.get(1..).unwrap_or_default()),
            [b'-', name @ ..] => {
                let id = self.commands.find_full(name).ok_or(Wrong::Unknown)?;
                self.change(selector, id, false);
            }
            _ => return Err(Wrong::Syntax),
        }
        Ok(())
    }

    /// All commands, or none.
    pub(super) fn everything(&self, selector: &mut Selector, on: bool) {
        selector.commands.clear();
        if on {
            self.commands.all().for_each(|(id, _)| selector.allow(id, true));
        }
        selector.all_commands = on;
        selector.future = on;
        selector.first_args.clear();
    }

    /// A command with its subcommands.
    fn change(&self, selector: &mut Selector, id: u16, on: bool) {
        selector.allow(id, on);
        selector.first_args.remove(&id);
        for sub in self.commands.subs(id) {
            selector.allow(sub, on);
        }
    }

    pub(super) fn category(
        &self,
        selector: &mut Selector,
        name: &[u8],
        on: bool,
    ) -> Result<(), Wrong> {
        let bits = category(name).ok_or(Wrong::Unknown)?;
        self.commands
            .all()
            .filter(|(_, row)| row.acl & bits != 0)
            .for_each(|(id, _)| self.change(selector, id, on));
        Ok(())
    }

    /// `+command`, `+command|subcommand` and `+command|first argument`.
    fn add(&self, selector: &mut Selector, name: &[u8]) -> Result<(), Wrong> {
        let Some(at) = name.iter().rposition(|&byte| byte == b'|') else {
            let id = self.commands.find(name).ok_or(Wrong::Unknown)?;
            self.change(selector, id, true);
            return Ok(());
        };
        let (command, sub) = (name.get(..at), name.get(at + 1..));
        let (command, sub) = (command.unwrap_or_default(), sub.unwrap_or_default());
        let id = self.commands.find_full(command).ok_or(Wrong::Unknown)?;
        if command.contains(&b'|') {
            return Err(Wrong::FirstArgOfSubcommand);
        }
        if sub.is_empty() {
            return Err(Wrong::Syntax);
        }
        if self.commands.row(id).subs.is_empty() {
            let args = selector.first_args.entry(id).or_default();
            if !args.iter().any(|known| known.eq_ignore_ascii_case(sub)) {
                args.push(sub.into());
            }
        } else {
            let sub = self.commands.find_sub(id, sub).ok_or(Wrong::Unknown)?;
            selector.allow(sub, true);
        }
        Ok(())
    }
}

/// The bit of a category.
pub(crate) fn category(name: &[u8]) -> Option<Bits> {
    let same = |known: &&str| known.as_bytes().eq_ignore_ascii_case(name);
    ACL_NAMES.iter().position(same).map(|bit| 1 << bit)
}

fn password(user: &mut User, rule: &[u8]) -> Result<(), Wrong> {
    let (sign, text) = rule.split_first().ok_or(Wrong::Syntax)?;
    let hashed: Box<[u8]> = match sign {
        b'#' | b'!' if !is_hash(text) => return Err(Wrong::NotAHash),
        b'#' | b'!' => text.into(),
        _ => hash(text),
    };
    let known = user.passwords.iter().position(|known| *known == hashed);
    match (sign, known) {
        (b'<' | b'!', Some(at)) => {
            user.passwords.remove(at);
        }
        (b'<' | b'!', None) => return Err(Wrong::NoSuchPassword),
        (_, known) => {
            if known.is_none() {
                user.passwords.push(hashed);
            }
            user.nopass = false;
        }
    }
    Ok(())
}

/// `~pattern`, `%R~pattern`, `%W~pattern`, `%RW~pattern`.
fn keys(selector: &mut Selector, rule: &[u8]) -> Result<(), Wrong> {
    if selector.all_keys {
        return Err(Wrong::KeysAfterAll);
    }
    let (mut rights, mut pattern) = (READ | WRITE, rule.get(1..).unwrap_or_default());
    if rule.first() == Some(&b'%') {
        rights = 0;
        // Without a tilde, the pattern is empty.
        while let Some((letter, rest)) = pattern.split_first() {
            pattern = rest;
            match letter.to_ascii_lowercase() {
                b'r' if rights & READ == 0 => rights |= READ,
                b'w' if rights & WRITE == 0 => rights |= WRITE,
                b'~' if rights != 0 => break,
                _ => return Err(Wrong::Syntax),
            }
        }
        if rights == 0 {
            return Err(Wrong::Syntax);
        }
    }
    if has_spaces(pattern) {
        return Err(Wrong::Syntax);
    }
    match selector.keys.iter_mut().find(|known| *known.pattern == *pattern) {
        Some(known) => known.rights |= rights,
        None => selector.keys.push(KeyPattern { rights, pattern: pattern.into() }),
    }
    Ok(())
}

fn channels(selector: &mut Selector, pattern: &[u8]) -> Result<(), Wrong> {
    if selector.all_channels {
        return Err(Wrong::ChannelsAfterAll);
    }
    if has_spaces(pattern) {
        return Err(Wrong::Syntax);
    }
    if !selector.channels.iter().any(|known| **known == *pattern) {
        selector.channels.push(pattern.into());
    }
    Ok(())
}
