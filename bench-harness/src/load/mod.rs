//! The load generator: what is asked ([`arena`]; by laws over [`keys`], [`draws`]), how that is said and replies are checked ([`protocol`]), when
//! requests leave ([`arrivals`]), who waits for what ([`generator`]) and what is recorded ([`tally`]), whose
//! figures they are ([`limit`]); and two ways to move the bytes ([`driven`] is what both move), the
//! engine's ring ([`ring`]) and blocking-free standard sockets for tests ([`plain`]).
//!
//! Why so: the generator must cost less than the server under test, so requests are encoded
//! before the run unless a law over keys forbids it, replies are compared in place, and nothing is allocated for a request.
//! Invariants: every reply is checked; a wrong one is counted, never taken for a fast one; the
//! generator does no I/O and reads no clock.

pub mod arena;
pub mod arrivals;
mod conn;
pub mod draws;
pub mod driven;
pub mod generator;
pub mod keys;
pub mod limit;
pub mod plain;
pub mod protocol;
pub mod ring;
pub mod tally;
pub mod trial;
pub mod zipf;

use std::net::SocketAddr;

use serde::Serialize;

pub use arrivals::Arrivals;
pub use keys::KeyDist;
pub use protocol::Protocol;

/// What is asked of a server.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    /// What is spoken.
    pub protocol: Protocol,
    /// Share of requests that are SET, from 0 to 1.
    pub set_share: f64,
    /// Share of drawn requests that are a GET which a SET of the same key follows once it is answered.
    pub rmw_share: f64,
    /// SETs are of new keys.
    pub inserts: bool,
    /// Distinct keys, all of which exist before the run.
    pub keys: u32,
    /// How requests fall on them.
    pub key_dist: KeyDist,
    /// Length of every value.
    pub value_len_bytes: usize,
    /// Connections in all.
    pub connections: usize,
    /// When requests leave.
    pub arrivals: Arrivals,
    /// Keys, connections and arrivals follow from it.
    pub seed: u64,
    /// What is requested over HTTP.
    pub http: protocol::Http,
}

impl Workload {
    /// GETs of 64 B over 50 connections in closed loop.
    #[must_use]
    pub const fn new(protocol: Protocol, pipeline: u32) -> Self {
        Self {
            protocol,
            set_share: 0.0,
            rmw_share: 0.0,
            inserts: false,
            keys: 100_000,
            key_dist: KeyDist::Uniform,
            value_len_bytes: 64,
            connections: 50,
            arrivals: Arrivals::Closed { pipeline },
            seed: 1,
            http: protocol::Http::new(),
        }
    }

    /// Whether requests are drawn as they leave; else they are encoded before the run.
    #[must_use]
    pub fn is_drawn(&self) -> bool {
        self.key_dist != KeyDist::Uniform || self.inserts || self.rmw_share > 0.0
    }

    /// Whether there are writes.
    #[must_use]
    pub fn has_sets(&self) -> bool {
        self.set_share > 0.0 || self.rmw_share > 0.0
    }
}

/// Where connections go: each to one address, all keys or only those of its slots.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address.
    pub addr: SocketAddr,
    /// Inclusive ranges of hash slots served there; empty for all keys.
    pub slots: Vec<(u16, u16)>,
}

impl Target {
    /// One address for every key.
    #[must_use]
    pub const fn all_keys(addr: SocketAddr) -> Self {
        Self { addr, slots: Vec::new() }
    }
}
