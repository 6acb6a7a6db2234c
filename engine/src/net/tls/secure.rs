//! What a connection keeps for TLS: input that waits for its turn, records that go first, and the reply being sealed.
//!
//! Invariants: what the channel has encoded leaves in that order; at most [`SEAL_MAX_BYTES`] are sealed at a time, so that
//! a huge reply is not in memory twice and does not hold up others; with [`INPUT_MAX_BYTES`] that wait no more is
//! received. Next: `host`.

use bytes::BytesMut;
use view::Output;

use super::{Channel, Refusal, Stage};

/// Plaintext sealed at a time: the records of one send.
pub(super) const SEAL_MAX_BYTES: usize = 128 << 10;
/// Input kept for a handshake that waits for its turn.
const INPUT_MAX_BYTES: usize = 32 << 10;
/// Records kept to go first: more than a handshake's certificates, which fit a message.
const ANSWER_MAX_BYTES: usize = 128 << 10;

/// TLS of one connection.
pub(in crate::net) struct Secure {
    channel: Box<dyn Channel>,
    stage: Stage,
    failed: bool,
    said_goodbye: bool,
    /// On the list of handshakes that wait for their turn.
    pub(super) waits: bool,
    input: BytesMut,
    /// Encoded already: goes before anything else.
    answer: Vec<u8>,
    /// The reply being sealed, and how much of it is.
    reply: Output,
    sealed: usize,
}

impl Secure {
    pub(super) fn new(channel: Box<dyn Channel>) -> Self {
        Self {
            channel,
            stage: Stage::Handshake,
            failed: false,
            said_goodbye: false,
            waits: false,
            input: BytesMut::new(),
            answer: Vec::new(),
            reply: Output::default(),
            sealed: 0,
        }
    }

    pub(super) const fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether something is to be sent beside what is pending, or may become so.
    pub(in crate::net) fn owes(&self) -> bool {
        self.waits || !self.answer.is_empty() || self.sealed < self.reply.len()
    }

    /// Whether so much input waits that no more is to be received.
    pub(in crate::net) fn is_full(&self) -> bool {
        self.input.len() >= INPUT_MAX_BYTES
    }

    /// Keeps input until its turn.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Appends what the records received say to `plain`: those in `bytes`, behind those that waited.
    pub(super) fn open(&mut self, bytes: &[u8], plain: &mut BytesMut) -> Result<(), Refusal> {
        let waited = std::mem::take(&mut self.input);
        if !waited.is_empty() {
            self.stage = self.channel.open(&waited, plain, &mut self.answer)?;
        }
        if self.stage != Stage::PeerClosed {
            self.stage = self.channel.open(bytes, plain, &mut self.answer)?;
        }
        if self.answer.len() > ANSWER_MAX_BYTES {
            return Err(Refusal(format!("{ANSWER_MAX_BYTES} bytes of answers were not read")));
        }
        Ok(())
    }

    /// Nothing is taken or sealed any more; what is encoded still goes out.
    pub(super) fn fail(&mut self) {
        self.failed = true;
        self.input = BytesMut::new();
        self.reply = Output::default();
        self.sealed = 0;
    }

    /// Appends the records to send next to `records`, taking the reply after the last from `pending`. Returns a reply that
    /// is sealed whole.
    pub(super) fn next(
        &mut self,
        pending: &mut Output,
        records: &mut Vec<u8>,
    ) -> Result<Option<Output>, Refusal> {
        records.append(&mut self.answer);
        if self.failed {
            *pending = Output::default();
            return Ok(None);
        }
        if self.stage == Stage::Handshake {
            return Ok(None);
        }
        if self.sealed >= self.reply.len() {
            self.reply = std::mem::take(pending);
            self.sealed = 0;
        }
        let mut room = SEAL_MAX_BYTES;
        for piece in self.reply.pieces(self.sealed) {
            let part = piece.get(..room).unwrap_or(piece);
            self.channel.seal(part, records)?;
            self.sealed += part.len();
            room -= part.len();
            if room == 0 {
                break;
            }
        }
        let whole = self.sealed >= self.reply.len();
        Ok(whole.then(|| {
            self.sealed = 0;
            std::mem::take(&mut self.reply)
        }))
    }

    /// Appends `plain` to `records` at once: the caller has the right to send, and sends them.
    pub(super) fn seal(&mut self, plain: &[u8], records: &mut Vec<u8>) -> Result<(), Refusal> {
        records.append(&mut self.answer);
        if self.failed {
            return Err(Refusal("the connection has failed".into()));
        }
        self.channel.seal(plain, records)
    }

    /// The record that says that nothing follows, once.
    pub(super) fn goodbye(&mut self, records: &mut Vec<u8>) -> bool {
        if self.stage == Stage::Handshake || self.failed || self.said_goodbye {
            return false;
        }
        self.said_goodbye = true;
        self.channel.close(records);
        !records.is_empty()
    }
}
