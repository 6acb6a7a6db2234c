//! One connection of a client: bytes out in pieces, bytes in, and the replies that are owed.

use std::collections::VecDeque;

use engine::driver::PeerName;
use engine::driver::sim::{ClientEnd, RecvState};
use engine::rng::Rng;
use wire::resp::{Reply, decode_reply, skip_reply};

use crate::command::{Check, Command};
use crate::shared::Common;

/// A command whose reply is owed.
#[derive(Debug)]
pub struct Owed {
    /// What the reply must be.
    pub check: Check,
    /// Where its bytes lie in the stream.
    start: u64,
    end: u64,
    /// The step and the millisecond its first byte was sent in.
    pub sent: Option<(u64, u64)>,
    /// The beginning of its frame.
    pub head: Box<[u8]>,
}

/// How a connection's work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// QUIT behind the last command.
    Quit,
    /// Nonsense behind the last command.
    Nonsense,
    /// The end of our direction; all replies still come.
    HalfClose,
    /// Broken by us, whatever is under way.
    Reset,
    /// Closed by us, whatever is under way.
    Drop,
}

/// How a connection was found to have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In order.
    Eof,
    /// Broken.
    Reset,
    /// Nobody listened.
    Refused,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    end: ClientEnd,
    /// Our name, by which the world knows whether the server still has the connection.
    pub name: PeerName,
    /// The shard whose own port it came in by.
    pub shard: Option<usize>,
    /// The protocol version of replies from here on.
    pub version: u8,
    /// The database of the next command to be written.
    pub db: usize,
    /// Foreign keys are answered by MOVED from here on.
    pub redirected: bool,
    /// It asks to be redirected.
    pub wants_redirection: bool,
    /// Its id, once told.
    pub id: Option<u64>,
    /// Batches left on this connection.
    pub batches: u32,
    /// What comes after them.
    pub ending: Ending,
    /// The ending has begun.
    pub ended: bool,
    /// QUIT or nonsense was answered: the end must follow.
    pub over: bool,
    /// The server said that it takes no more clients.
    pub refused: bool,
    /// We broke it.
    pub broken_by_us: bool,
    /// Reads little at a time.
    pub slow: bool,
    out: Vec<u8>,
    out_at: usize,
    queued: u64,
    sent: u64,
    /// Replies owed, oldest first.
    pub owed: VecDeque<Owed>,
    input: Vec<u8>,
    answered: u64,
}

impl Connection {
    /// A connection that is being made.
    #[must_use]
    pub fn new(end: ClientEnd, shard: Option<usize>) -> Self {
        Self {
            name: end.local_name(),
            end,
            shard,
            version: 2,
            db: 0,
            redirected: false,
            wants_redirection: false,
            id: None,
            batches: 0,
            ending: Ending::Drop,
            ended: false,
            over: false,
            refused: false,
            broken_by_us: false,
            slow: false,
            out: Vec::new(),
            out_at: 0,
            queued: 0,
            sent: 0,
            owed: VecDeque::new(),
            input: Vec::new(),
            answered: 0,
        }
    }

    /// Puts a command behind the others.
    pub fn push(&mut self, command: Command) {
        let start = self.queued;
        self.queued += command.frame.len() as u64;
        let head = command.frame[..command.frame.len().min(96)].into();
        self.out.extend_from_slice(&command.frame);
        self.owed.push_back(Owed {
            check: command.check,
            start,
            end: self.queued,
            sent: None,
            head,
        });
    }

    /// Whether everything was sent.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        self.out_at == self.out.len()
    }

    /// Whether no reply has come yet.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.answered == 0
    }

    /// Whether bytes of a reply have come whose rest has not.
    #[must_use]
    pub const fn is_within_reply(&self) -> bool {
        !self.input.is_empty()
    }

    /// Sends some bytes; how many.
    pub fn write(&mut self, rng: &mut Rng, common: &mut Common, now_ms: u64) -> usize {
        let left = self.out.len() - self.out_at;
        if left == 0 || self.end.room() == 0 {
            return 0;
        }
        let most = match rng.below(12) {
            0 => rng.between(1, 3),
            1 | 2 => rng.between(1, 200),
            3 | 4 => rng.between(100, 5_000),
            _ => u64::MAX,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(left);
        let sent = self.end.send(&self.out[self.out_at..self.out_at + most]);
        if sent > 0 {
            common.step += 1;
            self.out_at += sent;
            self.sent += sent as u64;
            for owed in self.owed.iter_mut().filter(|owed| owed.sent.is_none()) {
                if owed.start < self.sent {
                    owed.sent = Some((common.step, now_ms));
                }
            }
            if self.out_at == self.out.len() {
                self.out.clear();
                self.out_at = 0;
            }
        }
        sent
    }

    /// Receives what is there, or some of it.
    pub fn read(&mut self, rng: &mut Rng, common: &mut Common) -> Result<usize, Found> {
        let before = self.input.len();
        let most = if self.slow { rng.between(1, 6_000) as usize } else { usize::MAX };
        match self.end.recv_at_most(&mut self.input, most) {
            RecvState::Data(len) => {
                common.fold(&self.input[before..]);
                common.step += 1;
                Ok(len)
            }
            RecvState::Empty => Ok(0),
            RecvState::Eof => Err(Found::Eof),
            RecvState::Reset => Err(Found::Reset),
            RecvState::Refused => Err(Found::Refused),
        }
    }

    /// The next whole reply, and its first byte.
    ///
    /// # Errors
    /// The bytes are no reply.
    pub fn next_reply(&mut self) -> Result<Option<(Reply, u8)>, String> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let broken = |_| String::from("bytes that are no reply");
        if skip_reply(&self.input).map_err(broken)?.is_none() {
            return Ok(None);
        }
        let Some((reply, len)) = decode_reply(&self.input).map_err(broken)? else {
            return Ok(None);
        };
        let first = self.input[0];
        self.input.drain(..len);
        self.answered += 1;
        Ok(Some((reply, first)))
    }

    /// Ends our direction.
    pub fn half_close(&mut self) {
        self.end.shutdown_write();
    }

    /// Breaks the connection.
    pub fn reset(&mut self) {
        self.end.reset();
    }

    /// Whether all bytes of a command were sent.
    #[must_use]
    pub const fn was_sent(&self, owed: &Owed) -> bool {
        owed.end <= self.sent
    }
}
