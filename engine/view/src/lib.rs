//! The vocabulary a protocol session needs, and nothing else: bytes in ([`Input`]), bytes out
//! ([`Output`]), the time ([`Instant`]) and what should happen next ([`Flow`]).
//!
//! Why a crate of its own: a [`Session`] written against these types names no runtime, so the same
//! code runs on the engine's ring, inside the simulation, and on foreign runtimes in the bench
//! harness.
//!
//! Invariants: no I/O, no clock, no thread, no `unsafe`; every allocation is one the caller asked
//! for. Next: `engine::net` hosts sessions; `cache::session` is the largest one.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod input;
mod output;
mod time;

pub use input::Input;
pub use output::{INLINE_MAX_BYTES, Mark, Output};
pub use time::Instant;

/// A hash map with a fixed seed: equal programs iterate in equal order. Not for keys an attacker
/// chooses without a bound on their number.
#[expect(clippy::disallowed_types, reason = "this is the replacement the lint names")]
pub type HashMap<K, V> = std::collections::HashMap<K, V, rapidhash::fast::SeedableState<'static>>;

/// The set beside [`HashMap`].
#[expect(clippy::disallowed_types, reason = "this is the replacement the lint names")]
pub type HashSet<K> = std::collections::HashSet<K, rapidhash::fast::SeedableState<'static>>;

/// What a session wants after a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow<W> {
    /// All complete frames were consumed: send the output, call again when bytes arrive.
    NeedInput,
    /// The batch bound was reached and complete frames may remain: send the output, give the other
    /// connections a turn, then call again.
    Flush,
    /// Perform `W`, then call [`Session::on_done`]. Until then no bytes are handed in.
    Await(W),
    /// Send the output, then close the connection.
    Close,
}

/// One connection's protocol state: synchronous, with exclusive use of its core's state for the
/// length of a batch, so mutations never interleave and nothing can be cancelled half-way.
pub trait Session {
    /// This core's slice of the service's state.
    type Shard;
    /// Work that needs the outside: another shard, a file, time.
    type Work;
    /// What comes back from performing a `Work`.
    type Done;

    /// Consumes complete frames from `input`, appends replies to `out`. Bounded work per call.
    fn on_bytes(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Output,
        shard: &mut Self::Shard,
        now: Instant,
    ) -> Flow<Self::Work>;

    /// Continues after the `Work` of the last [`Flow::Await`].
    fn on_done(
        &mut self,
        done: Self::Done,
        out: &mut Output,
        shard: &mut Self::Shard,
        now: Instant,
    ) -> Flow<Self::Work>;

    /// `bytes` will be handed to this session soon, after others': a chance to load the memory their
    /// first frame needs while that of others loads. Must not change what any session does.
    fn foresee(&self, _bytes: &[u8], _shard: &mut Self::Shard) {}

    /// The sessions of a group were all asked to [`Session::foresee`]; the first of them is next.
    fn foreseen(_shard: &mut Self::Shard) {}

    /// Whether answers to requests that were taken are still to come, pushed by the service: a connection to be
    /// closed waits for them.
    fn owes_answers(&self) -> bool {
        false
    }

    /// The peer has gone, or the connection is being closed, while the session awaits work: nobody will read what comes
    /// of it. Called once for each `Work`, before [`Session::on_done`], which follows all the same.
    fn on_gone(&mut self, _shard: &mut Self::Shard) {}

    /// The connection is gone; the last call on this session.
    fn on_close(&mut self, _shard: &mut Self::Shard) {}
}
