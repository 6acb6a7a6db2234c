//! Operations of a file system, by the names that users give them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident = $word:literal $(| $alias:literal)*,)*) => {
        /// An operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op { $($(#[$doc])* $op,)* }
        /// Their names.
        pub const WORDS: &[&str] = &[$($word,)*];
        const ALL: &[(&str, Op)] = &[$(($word, Op::$op), $(($alias, Op::$op),)*)*];
    };
}

ops! {
    /// Bytes of a file, also for a mapping.
    Read = "read",
    /// Bytes of a file, also of a mapping.
    Write = "write",
    /// Of a file: fsync, fdatasync.
    Fsync = "fsync" | "fdatasync",
    /// Of a directory.
    FsyncDir = "fsyncdir",
    /// At each close of a descriptor.
    Flush = "flush" | "close",
    /// Of a file that is there.
    Open = "open",
    /// Of one that is not.
    Create = "create",
    /// Of a directory's entries.
    Readdir = "readdir",
    Mkdir = "mkdir",
    Mknod = "mknod",
    Rmdir = "rmdir",
    Unlink = "unlink",
    Rename = "rename",
    Link = "link",
    Symlink = "symlink",
    Readlink = "readlink",
    /// Size, as in ftruncate.
    Truncate = "truncate",
    /// Owner, permissions and times.
    Setattr = "setattr" | "chmod" | "chown" | "utimens",
    Fallocate = "fallocate",
    Statfs = "statfs",
    /// Any of extended attributes.
    Xattr = "xattr" | "getxattr" | "setxattr" | "listxattr" | "removexattr",
    /// Of a file's attributes, as often as the kernel likes.
    Getattr = "getattr" | "stat",
    /// Of a name, as often as the kernel likes.
    Lookup = "lookup",
}

/// Some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ops(u32);

impl Ops {
    /// What a process asks for itself: all but those that the kernel asks as often as it likes.
    pub const ANY: Self = Self((1 << Op::Getattr as u32) - 1);

    /// These.
    #[must_use]
    pub fn of(ops: &[Op]) -> Self {
        Self(ops.iter().fold(0, |bits, op| bits | 1 << *op as u32))
    }

    /// Names with commas between.
    ///
    /// # Errors
    /// One is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let mut bits = 0;
        for word in text.split(',').map(str::trim) {
            if word == "any" {
                bits |= Self::ANY.0;
                continue;
            }
            let op = ALL.iter().find(|(name, _)| *name == word).map(|(_, op)| *op);
            let op = op.ok_or_else(|| {
                Error::usage(format!(
                    "op of {word:?}: any, or some of {} with commas between are wanted",
                    WORDS.join(" ")
                ))
            })?;
            bits |= 1 << op as u32;
        }
        Ok(Self(bits))
    }

    /// Whether it is one of them.
    #[must_use]
    pub const fn has(self, op: Op) -> bool {
        self.0 & 1 << op as u32 != 0
    }

    /// Whether all of them are among others.
    #[must_use]
    pub const fn are_among(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_others_refused() {
        let ops = Ops::parse("read, fdatasync").expect("both are known");
        assert!(ops.has(Op::Read) && ops.has(Op::Fsync) && !ops.has(Op::Write));
        assert!(ops.are_among(Ops::ANY) && !Ops::ANY.are_among(ops));
        let any = Ops::parse("any").expect("known");
        assert!(any.has(Op::Xattr) && !any.has(Op::Getattr) && !any.has(Op::Lookup));
        let error = Ops::parse("read,fly").expect_err("it does not").to_string();
        assert!(error.contains("fly") && error.contains("fsync"), "{error}");
    }
}
