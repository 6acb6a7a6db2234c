//! A connection of a client of these runs: commands out, replies in.
//!
//! Next: `peer` and `admin` for who uses it.

use engine::driver::PeerName;
use engine::driver::sim::{ClientEnd, RecvState, World};
use wire::resp::{Reply, decode_reply, skip_reply};

use super::setup::Doors;
use crate::command::frame;

/// A connection.
pub(crate) struct Wire {
    end: ClientEnd,
    /// By which the world knows whether the server still has it.
    pub(crate) name: PeerName,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Wire {
    /// Connects to a shard, or to the address they share.
    pub(crate) fn connect(world: &World, doors: Doors, shard: Option<usize>) -> Self {
        let end = world.connect_client(doors.address(shard));
        Self { name: end.local_name(), end, out: Vec::new(), input: Vec::new() }
    }

    /// Puts a command behind the others.
    pub(crate) fn push(&mut self, words: &[Vec<u8>]) {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.out.extend_from_slice(&frame(&words));
    }

    /// Sends and receives what there is; whole replies, and whether the connection goes on.
    ///
    /// # Errors
    /// The bytes are no replies.
    pub(crate) fn pump(&mut self) -> Result<(Vec<Reply>, bool), String> {
        let sent = self.end.send(&self.out);
        self.out.drain(..sent);
        let goes_on = match self.end.recv(&mut self.input) {
            RecvState::Data(_) | RecvState::Empty => true,
            RecvState::Eof | RecvState::Reset | RecvState::Refused => false,
        };
        let broken = |_| String::from("bytes that are no reply");
        let mut replies = Vec::new();
        while !self.input.is_empty() && skip_reply(&self.input).map_err(broken)?.is_some() {
            let Some((reply, len)) = decode_reply(&self.input).map_err(broken)? else { break };
            self.input.drain(..len);
            replies.push(reply);
        }
        Ok((replies, goes_on))
    }
}
