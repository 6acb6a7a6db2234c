//! Users as ACL LIST, GETUSER and SAVE show them.
//!
//! Which commands a selector allows is told as redis-server 7.0.15 does: the categories that fit best, one after the other,
//! then single commands until the bits are equal.

use super::{READ, Rules, Selector, User, WRITE};
use crate::command::row::{ACL_NAMES, Bits};

impl User {
    /// Its flags.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.on { "on" } else { "off" }];
        flags.extend(self.nopass.then_some("nopass"));
        flags.extend(self.sanitizes.map(|does| match does {
            true => "sanitize-payload",
            false => "skip-sanitize-payload",
        }));
        flags
    }

    /// Its rules, as ACL SETUSER takes them.
    pub(crate) fn describe(&self, rules: &Rules<'_>) -> Vec<u8> {
        let mut text = self.flags().join(" ").into_bytes();
        for password in &self.passwords {
            text.extend_from_slice(b" #");
            text.extend_from_slice(password);
        }
        text.push(b' ');
        self.root.describe(rules, &mut text);
        for selector in &self.others {
            text.extend_from_slice(b" (");
            selector.describe(rules, &mut text);
            text.push(b')');
        }
        text
    }
}

impl Selector {
    fn describe(&self, rules: &Rules<'_>, text: &mut Vec<u8>) {
        let keys = self.describe_keys();
        if !keys.is_empty() {
            text.extend_from_slice(&keys);
            text.push(b' ');
        }
        if !self.all_channels {
            text.extend_from_slice(b"resetchannels ");
        }
        let channels = self.describe_channels();
        if !channels.is_empty() {
            text.extend_from_slice(&channels);
            text.push(b' ');
        }
        text.extend_from_slice(self.describe_commands(rules).as_bytes());
    }

    pub(crate) fn describe_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let one = |key: &super::KeyPattern| {
            let sign: &[u8] = match key.rights {
                READ => b"%R~",
                WRITE => b"%W~",
                _ => b"~",
            };
            [sign, &*key.pattern].concat()
        };
        self.keys.iter().map(one).collect::<Vec<_>>().join(&b' ')
    }

    pub(crate) fn describe_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let all = self.channels.iter().map(|channel| [&b"&"[..], channel].concat());
        all.collect::<Vec<_>>().join(&b' ')
    }

    pub(crate) fn describe_commands(&self, rules: &Rules<'_>) -> String {
        let additive = !self.future;
        let (sign, inverse) = if additive { ("+", false) } else { ("-", true) };
        let mut words = vec![if additive { "-@all" } else { "+@all" }.to_owned()];
        // What the words so far make, and what of ours they leave to be told.
        let (mut told, mut rest) = (Self::default(), self.clone());
        rules.everything(&mut told, !additive);
        let mut applied: Bits = 0;
        while let Some(best) = rest.best_category(rules, additive, applied) {
            let name = ACL_NAMES.get(best).copied().unwrap_or_default();
            words.push(format!("{sign}@{name}"));
            // The categories are known.
            let _ = rules.category(&mut told, name.as_bytes(), additive);
            let _ = rules.category(&mut rest, name.as_bytes(), inverse);
            applied |= 1 << best;
        }
        for (id, row) in rules.commands.all() {
            let allowed = self.allows(id);
            if allowed != told.allows(id) {
                words.push(format!("{}{}", if allowed { '+' } else { '-' }, row.name));
            }
            if let Some(args) = self.first_args.get(&id).filter(|_| !allowed) {
                for arg in args {
                    words.push(format!("+{}|{}", row.name, String::from_utf8_lossy(arg)));
                }
            }
        }
        words.join(" ")
    }

    /// The category most of whose commands are as ours: the one with the fewest that are not.
    fn best_category(&self, rules: &Rules<'_>, additive: bool, applied: Bits) -> Option<usize> {
        let mut best: Option<(usize, usize, usize)> = None;
        for index in (0..ACL_NAMES.len()).filter(|index| applied >> index & 1 == 0) {
            let (mut on, mut off) = (0, 0);
            for (id, row) in rules.commands.all() {
                if row.acl >> index & 1 == 1 {
                    if self.allows(id) { on += 1 } else { off += 1 }
                }
            }
            let (different, same) = if additive { (off, on) } else { (on, off) };
            let better = |&(_, least, most): &(usize, usize, usize)| {
                different < least || (different == least && same > most)
            };
            if same > different && best.as_ref().is_none_or(better) {
                best = Some((index, different, same));
            }
        }
        best.map(|(index, ..)| index)
    }
}
