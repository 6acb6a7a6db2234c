//! A connection of a simulated client: requests out, whole answers in.
//!
//! Requests and answers are those of another implementation of the protocol. Invariant: an answer is a whole frame; what
//! was under way on a connection that was lost is lost with it. Next: `peer`, `member`.

use bytes::{Bytes, BytesMut};
use engine::driver::sim::{ClientEnd, RecvState, World};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Encodable, Request, StrBytes};

use super::Setup;

/// How soon a client looks again.
pub(super) const POLL_NS: u64 = 100_000;
/// How long it waits before it connects again.
const RECONNECT_NS: u64 = 5_000_000;
/// How long it waits for an answer.
pub(super) const ANSWER_NS: u64 = 40_000_000_000;

/// A connection and what is under way on it.
pub(super) struct Link {
    pub(super) end: Option<ClientEnd>,
    pub(super) shard: usize,
    shards: usize,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    next: i32,
    pub(super) wake_ns: u64,
    pub(super) heard_ns: u64,
}

pub(super) enum Heard {
    /// Frames, without their lengths.
    Frames(Vec<Vec<u8>>),
    /// It was lost.
    Lost,
}

impl Link {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            end: None,
            shard: 0,
            shards,
            outbox: Vec::new(),
            inbox: Vec::new(),
            next: 0,
            wake_ns: 0,
            heard_ns: 0,
        }
    }

    pub(super) fn connect(&mut self, world: &World) {
        self.outbox.clear();
        self.inbox.clear();
        self.heard_ns = world.now().mono_ns;
        self.end = Some(world.connect_client(Setup::address(self.shard)));
    }

    pub(super) fn lose(&mut self, now_ns: u64) {
        self.end = None;
        self.wake_ns = now_ns + RECONNECT_NS;
    }

    pub(super) fn next_shard(&mut self, now_ns: u64) {
        self.shard = (self.shard + 1) % self.shards;
        self.lose(now_ns);
    }

    pub(super) fn request<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.next += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str("sim")));
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes, 2).expect("a valid header");
        request.encode(&mut bytes, version).expect("a valid request");
        self.outbox.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        self.outbox.extend_from_slice(&bytes);
        self.next
    }

    /// Sends and receives what there is.
    pub(super) fn pump(&mut self, world: &World) -> Heard {
        let now_ns = world.now().mono_ns;
        self.wake_ns = now_ns + POLL_NS;
        let Some(end) = &mut self.end else { return Heard::Lost };
        let sent = end.send(&self.outbox);
        self.outbox.drain(..sent);
        match end.recv(&mut self.inbox) {
            RecvState::Data(_) => self.heard_ns = now_ns,
            RecvState::Empty => {}
            RecvState::Eof | RecvState::Reset | RecvState::Refused => return Heard::Lost,
        }
        let mut frames = Vec::new();
        while let Some((len, rest)) = self.inbox.split_first_chunk::<4>() {
            let len = i32::from_be_bytes(*len) as usize;
            let Some(frame) = rest.get(..len) else { break };
            frames.push(frame.to_vec());
            self.inbox.drain(..4 + len);
        }
        Heard::Frames(frames)
    }
}

/// A frame's number and body.
pub(super) fn open(frame: Vec<u8>) -> (i32, Bytes) {
    let number = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    (number, Bytes::from(frame).slice(5..))
}
