//! What a session asks for, and what shards ask of each other.

use std::sync::Arc;

use engine::net::ConnId;
use kafka_protocol::messages::RequestKind;

use crate::catalog::Catalog;
use crate::control::{Change, Changed};
use crate::fetch::FetchJob;
use crate::users::Proof;

/// What a session awaits.
#[derive(Debug)]
pub enum Work {
    /// The shard's partitions are open.
    Load,
    /// All produce requests before are answered.
    Drain,
    /// Records, when there are enough or it is time.
    Fetch(Box<FetchJob>),
    /// Everything else.
    Call(Box<Call>),
    /// Whether a password is the right one.
    Prove(Box<Proof>),
    /// The moment at which a failed log-in is told.
    Deny(u64),
    /// The moment from which the connection is read again.
    Mute(u64),
}

/// A request off the hot path.
#[derive(Debug)]
pub struct Call {
    /// The connection it came on.
    pub conn: ConnId,
    /// Its number.
    pub key: i16,
    /// Its version.
    pub version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: String,
    /// The peer's address.
    pub peer: String,
    /// How long the client is left alone.
    pub throttle_ms: u32,
    /// Whether it came by TLS.
    pub tls: bool,
    /// What is asked.
    pub request: RequestKind,
}

/// What a session gets back.
#[derive(Debug)]
pub enum Done {
    /// Go on: there is nothing to answer, or the response is on its way.
    Ready,
    /// A response, to be sent.
    Reply(Vec<u8>),
    /// The response is on its way, and the connection is not read until this moment.
    Muted(u64),
    /// Whether the password is the right one.
    Proven(bool),
    /// The failed log-in is to be told.
    Denied,
}

/// What one shard asks another.
#[derive(Debug)]
pub enum Ask {
    /// Know this catalog from now on, and open what is yours in it.
    Catalog(Arc<Catalog>),
    /// Change the catalog; to the controller.
    Change(Box<Change>),
}

/// The answer.
#[derive(Debug)]
pub enum Answer {
    /// It is known.
    Known,
    /// What came of the change.
    Changed(Changed),
}
