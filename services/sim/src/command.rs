//! A command as a client sends it, with what its reply is checked against.

use std::rc::Rc;

use crate::op::Op;

/// Bytes of a command and its check.
#[derive(Clone, Debug)]
pub struct Command {
    /// The frame.
    pub frame: Vec<u8>,
    /// What its reply must be.
    pub check: Check,
}

/// What a reply must be.
#[derive(Clone, Debug)]
pub enum Check {
    /// As the client's private model says.
    Private {
        /// The operation.
        op: Op,
        /// The keys among its arguments.
        keys: Vec<usize>,
    },
    /// As the private database as a whole says, or the part of it that this shard owns.
    Database(Whole, Option<usize>),
    /// As all clients' commands on shared keys allow.
    Shared(Shared),
    /// OK.
    Ok,
    /// PONG.
    Pong,
    /// These bytes.
    Bulk(Rc<[u8]>),
    /// An error that begins like this.
    Error(&'static str),
    /// HELLO's greeting, in the protocol version asked for.
    Hello(u8),
    /// CLIENT ID.
    Id,
    /// CLIENT KILL of this connection, perhaps the own one.
    Kill(u64),
    /// CLUSTER SLOTS: the connection is redirected from now on.
    Slots,
    /// Some text.
    Text,
    /// OK, and then the end of the connection.
    Quit,
    /// An error that begins like this, and then the end of the connection.
    Fatal(&'static str),
}

/// Commands on a whole private database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// DBSIZE.
    Len,
    /// KEYS *.
    Keys,
    /// RANDOMKEY.
    Random,
    /// SCAN 0 with a large count: some of the keys.
    Scan,
    /// FLUSHDB.
    Flush,
}

/// Commands on keys all clients share.
#[derive(Clone, Debug)]
pub enum Shared {
    /// INCR of a counter.
    Incr(usize),
    /// GET of a counter.
    Count(usize),
    /// MSET of a whole group; the index of the write.
    Write(usize, usize),
    /// MSETNX of a whole group; the index of the write.
    WriteNew(usize, usize),
    /// DEL of a whole group of so many keys; the index of the write.
    Delete(usize, usize, usize),
    /// MGET of keys of a group.
    Read(usize),
    /// GET of one key of a group.
    ReadOne(usize),
    /// EXISTS of a whole group of so many keys.
    Exists(usize, usize),
    /// RENAMENX or RENAME between two places of the token; whether it is NX.
    Move(bool),
    /// EXISTS of all places of the token.
    TokenCount,
    /// MGET of all places of the token.
    TokenRead,
    /// FLUSHALL; the index of the flush.
    FlushAll(usize),
    /// RPUSH of these items.
    Push(Vec<u64>),
    /// A pop that waits.
    Pop,
    /// A move between queues that waits.
    Shift,
}

/// A multibulk frame.
#[must_use]
pub fn frame(args: &[&[u8]]) -> Vec<u8> {
    let len: usize = args.iter().map(|arg| arg.len() + 16).sum();
    let mut bytes = Vec::with_capacity(len + 16);
    bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

impl Command {
    /// A command of these words.
    #[must_use]
    pub fn new(args: &[&[u8]], check: Check) -> Self {
        Self { frame: frame(args), check }
    }

    /// The beginning of the frame, for people.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.frame)
    }
}

/// The beginning of a frame, for people.
#[must_use]
pub fn label(frame: &[u8]) -> String {
    let printable = |byte: &u8| match byte {
        b' '..=b'~' | b'\r' | b'\n' => char::from(*byte),
        _ => '.',
    };
    let head: String = frame.iter().take(90).map(printable).collect();
    let words = head.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
    words.collect::<Vec<_>>().join(" ")
}
