//! May this user run this command with these arguments?
//!
//! Order and result are those of redis-server 7.0.15: the first selector that allows everything decides; when none does, the
//! error is the one of the selector that came furthest.

use super::{KeyPattern, READ, Selector, User, WRITE};
use crate::command::row::{NO_AUTH, Row};

/// What was not allowed: the weakest reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Denied {
    Command,
    /// The key at this argument.
    Key(usize),
    /// The channel at this argument.
    Channel(usize),
}

/// Checks a command of `argc` arguments, the name included.
pub(crate) fn may_run<'f>(
    user: &User,
    id: u16,
    row: &'static Row,
    argc: usize,
    arg: impl Fn(usize) -> &'f [u8],
) -> Result<(), Denied> {
    let mut worst = Denied::Command;
    for selector in user.selectors() {
        match selector.check(id, row, argc, &arg) {
            Ok(()) => return Ok(()),
            Err(denied) => worst = worst.max(denied),
        }
    }
    Err(worst)
}

/// Whether the user may run the command, and read any key besides.
pub(crate) fn may_read_all<'f>(
    user: &User,
    id: u16,
    row: &'static Row,
    argc: usize,
    arg: impl Fn(usize) -> &'f [u8],
) -> bool {
    let mut able = user.selectors().filter(|selector| selector.reads_all());
    able.any(|selector| selector.check(id, row, argc, &arg).is_ok())
}

/// Where the channels of a command are, and whether they are patterns.
fn channels_of(row: &Row, argc: usize) -> Option<(std::ops::Range<usize>, bool)> {
    match row.name {
        "publish" | "spublish" => Some((1..2.min(argc), false)),
        "subscribe" | "ssubscribe" => Some((1..argc, false)),
        "psubscribe" => Some((1..argc, true)),
        _ => None,
    }
}

/// The rights a key needs, from the words of its key specification.
fn rights(flags: &[&str]) -> u8 {
    let one = |flag: &&str| match *flag {
        "access" => READ,
        "insert" | "delete" | "update" => WRITE,
        _ => 0,
    };
    flags.iter().map(one).fold(0, |all, right| all | right)
}

impl Selector {
    fn check<'f>(
        &self,
        id: u16,
        row: &'static Row,
        argc: usize,
        arg: &impl Fn(usize) -> &'f [u8],
    ) -> Result<(), Denied> {
        if !self.all_commands && row.flags & NO_AUTH == 0 && !self.allows(id) {
            let first = arg(if row.name.contains('|') { 2 } else { 1 });
            let args = self.first_args.get(&id).map(Vec::as_slice).unwrap_or_default();
            if argc < 2 || !args.iter().any(|known| known.eq_ignore_ascii_case(first)) {
                return Err(Denied::Command);
            }
        }
        if !self.all_keys {
            for (at, flags) in row.keys_with_flags(argc, arg) {
                if !self.allows_key(arg(at), rights(flags)) {
                    return Err(Denied::Key(at));
                }
            }
        }
        if !self.all_channels
            && let Some((mut channels, is_pattern)) = channels_of(row, argc)
            && let Some(at) = channels.find(|&at| !self.allows_channel(arg(at), is_pattern))
        {
            return Err(Denied::Channel(at));
        }
        Ok(())
    }

    fn reads_all(&self) -> bool {
        let all = |known: &KeyPattern| known.rights & READ != 0 && *known.pattern == *b"*";
        self.all_keys || self.keys.iter().any(all)
    }

    fn allows_key(&self, key: &[u8], rights: u8) -> bool {
        self.keys.iter().any(|known| {
            known.rights & rights == rights && logic::glob::matches(&known.pattern, key, false)
        })
    }

    /// A pattern must be one of ours, letter by letter.
    fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.channels.iter().any(|known| {
            if is_pattern {
                **known == *channel
            } else {
                logic::glob::matches(known, channel, false)
            }
        })
    }
}
