//! A directory whose files are served by a process of ours: what faults of disks are made of (FUSE, linux/fuse.h).
//!
//! A file system of our own is mounted over the directory, and hands each operation to what lies below it, which it has opened
//! before. What a fault does, it does there: it delays, fails, cuts or changes operations. Who opened a file before the mount is
//! not hit; who opens one after it is, whatever the call: read(2), io_uring or a mapping.
//!
//! Invariants: the server is a process of its own, and looks at the deadline at each operation. It ends the effect and detaches the mount
//! when it is told to, when its time is over, and when the pipe to its keeper closes. What is open then is served without effect
//! until it is closed; the server ends with it. Next: `rule`, `layer`, `server`, `mount`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::select::Share;

mod data;
mod glob;
mod host;
mod inner;
mod later;
mod layer;
mod mount;
mod nodes;
mod ops;
mod rule;
mod server;
mod unsynced;

pub use mount::{Mounted, all as mounts, detach, probe};
pub(crate) use mount::{is_ours, refuse_wide};
pub use ops::{Op, Ops, WORDS};
pub(crate) use rule::check;
pub(crate) use server::{Answer, COUNT, END, OUTLIVE};
pub use server::{Serving, serve, serving};

/// What a server is told on its first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Name of the fault, which is the source of the mount.
    pub id: String,
    /// The directory.
    pub dir: PathBuf,
    /// What happens to what is chosen.
    pub effect: Effect,
    /// Which operations.
    pub ops: Ops,
    /// Which files, by their path below the directory; none is all.
    pub name: Option<String>,
    /// How many of them.
    pub share: Share,
    /// Of CLOCK_MONOTONIC.
    pub since_ns: u64,
    /// Of CLOCK_MONOTONIC.
    pub deadline_ns: u64,
    /// Acts so many times at most; 0 for any number.
    pub max_hits: u64,
    /// Counts, and does nothing.
    pub shadow: bool,
}

/// With what bytes become wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// One bit of each byte is another.
    Flip,
    /// Zeros.
    Zero,
    /// Any bytes.
    Random,
}

/// What a file is said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Bytes.
    pub size: Option<u64>,
    /// Blocks of 512 bytes.
    pub blocks: Option<u64>,
    /// Permissions.
    pub perm: Option<u16>,
    /// Links.
    pub links: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// What happens to an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is done later.
    Delay {
        /// By so much.
        ns: u64,
        /// And by up to so much more or less.
        jitter_ns: u64,
    },
    /// It is not done, and fails.
    Error {
        /// With this.
        errno: i32,
    },
    /// Only a part of a read or write is done, and said to be.
    Short {
        /// Of the bytes that were asked for.
        percent: f64,
    },
    /// Only the first part of a write is done, and all is said to be.
    Torn {
        /// Of the bytes, rounded down to whole sectors.
        percent: f64,
    },
    /// Some bytes of a read or write are others.
    Corrupt {
        /// What they become.
        fill: Fill,
        /// Places in the operation.
        count: u32,
        /// Bytes of each.
        len: u32,
    },
    /// What was written and not synced is undone when the fault ends, or its writer is killed by a signal.
    Lose,
    /// It is said to be another.
    Attributes(Attributes),
}
