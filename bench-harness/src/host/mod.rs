//! Our sessions on other people's runtimes: the same `view::Session` code, unchanged, inside a
//! task for each connection, as those runtimes are used in practice.
//!
//! Why: that is how the engine is compared with what a user would pick instead. Invariants: the
//! session sees exactly what the engine would show it; a connection has a read buffer of its own
//! which grows only while a frame is incomplete, up to [`FRAME_MAX_BYTES`]; exclusive access to
//! the shard never spans an await. Next: `monoio`, `glommio`, `tokio` and `engine` (ours) for the loops,
//! `echo` and `cache` for what is hosted.

pub mod cache;
pub mod echo;
mod engine;
mod glommio;
mod monoio;
mod tokio;

use std::net::SocketAddr;

use anyhow::Result;
use view::{Flow, Input, Instant, Output, Session};

use crate::clock;

/// The longest frame a connection may build up.
pub const FRAME_MAX_BYTES: usize = 1 << 30;
/// Output buffers keep at most this capacity between batches.
const OUT_KEEP_BYTES: usize = 1 << 20;

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// monoio as shipped.
    Monoio,
    /// monoio with SINGLE_ISSUER and DEFER_TASKRUN through its ring builder.
    MonoioDefer,
    /// glommio as shipped.
    Glommio,
    /// tokio's current-thread runtime.
    Tokio,
    /// Our engine, hosting the sessions as it is done on the others.
    Engine,
}

/// What a foreign runtime needs to know of a service: how to make its state, and how to do the
/// work its sessions await.
pub trait Service: Send + 'static {
    /// Its sessions.
    type Session: Session + 'static;

    /// The state of the one shard.
    fn shard(&self, now: Instant) -> <Self::Session as Session>::Shard;

    /// A session for a new connection.
    fn open(
        &self,
        shard: &mut <Self::Session as Session>::Shard,
        peer: SocketAddr,
        now: Instant,
    ) -> Self::Session;

    /// Does `work` at once, on the one shard there is; `None` closes the connection, for work
    /// that a single foreign shard cannot do.
    fn perform(
        &self,
        work: <Self::Session as Session>::Work,
        shard: &mut <Self::Session as Session>::Shard,
        now: Instant,
    ) -> Option<<Self::Session as Session>::Done>;

    /// Periodic work between batches, called about every 100 ms.
    fn tick(&self, _shard: &mut <Self::Session as Session>::Shard, _now: Instant) {}
}

/// How to host.
#[derive(Clone, Copy, Debug)]
pub struct Hosting {
    /// Where to listen.
    pub addr: SocketAddr,
    /// Read buffer of each connection.
    pub read_buffer_bytes: usize,
}

/// Serves `service` on `runtime` until the process is ended.
///
/// # Errors
/// The runtime does not start, or the address is taken.
pub fn run<S: Service>(runtime: Runtime, service: S, hosting: Hosting) -> Result<()> {
    match runtime {
        Runtime::Monoio => monoio::run(service, hosting, false),
        Runtime::MonoioDefer => monoio::run(service, hosting, true),
        Runtime::Glommio => glommio::run(service, hosting),
        Runtime::Tokio => tokio::run(service, hosting),
        Runtime::Engine => engine::run(service, hosting),
    }
}

/// Reads both clocks at the price of one: the wall clock's offset is taken once.
#[derive(Clone, Copy, Debug)]
struct Clock {
    unix_minus_mono_us: u64,
}

impl Clock {
    fn new() -> Self {
        Self { unix_minus_mono_us: clock::unix_us().saturating_sub(clock::mono_ns() / 1_000) }
    }

    fn now(self) -> Instant {
        let mono_ns = clock::mono_ns();
        Instant { mono_ns, unix_us: mono_ns / 1_000 + self.unix_minus_mono_us }
    }
}

/// What a connection does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Send the output, then read.
    Read,
    /// Send the output, let others run, then call again without reading.
    Again,
    /// Send the output, then close.
    Close,
}

/// One connection's session with its output: the part that is the same on every runtime.
struct Connection<T: Session> {
    session: T,
    out: Output,
}

impl<T: Session> Connection<T> {
    fn new(session: T) -> Self {
        Self { session, out: Output::default() }
    }

    /// One batch over the received bytes: how many were consumed, how long the frame at the
    /// front will be (zero when unknown), and what to do next.
    fn batch<S: Service<Session = T>>(
        &mut self,
        service: &S,
        received: &[u8],
        shard: &mut T::Shard,
        now: Instant,
    ) -> (usize, usize, Next) {
        let mut input = Input::borrowed(received);
        let mut flow = self.session.on_bytes(&mut input, &mut self.out, shard, now);
        let next = loop {
            flow = match flow {
                Flow::NeedInput => break Next::Read,
                Flow::Flush => break Next::Again,
                Flow::Close => break Next::Close,
                Flow::Await(work) => match service.perform(work, shard, now) {
                    Some(done) => self.session.on_done(done, &mut self.out, shard, now),
                    None => break Next::Close,
                },
            };
            if matches!(flow, Flow::NeedInput) && input.consumed() < received.len() {
                // The batch was interrupted by the work: what follows it has not been looked at.
                break Next::Again;
            }
        };
        (input.consumed(), input.wanted(), next)
    }

    /// The output as one buffer, to be given back with [`Connection::recycle`].
    fn take_output(&mut self) -> Vec<u8> {
        if self.out.is_inline() {
            return std::mem::take(self.out.inline_mut());
        }
        let all = self.out.to_vec();
        self.out.clear();
        all
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() <= OUT_KEEP_BYTES {
            self.out = Output::with_buffer(buffer);
        }
    }
}

/// How much room a read needs: the rest of a frame of known length, else one buffer.
fn room(held: usize, wanted: usize, read_buffer_bytes: usize) -> Option<usize> {
    let room = wanted.saturating_sub(held).max(read_buffer_bytes - held.min(read_buffer_bytes));
    let room = if room == 0 { held.max(read_buffer_bytes) } else { room };
    (held + room <= FRAME_MAX_BYTES).then_some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_has_room_and_a_frame_has_a_limit() {
        assert_eq!(room(0, 0, 4096), Some(4096));
        assert_eq!(room(100, 0, 4096), Some(3996));
        assert_eq!(room(4096, 0, 4096), Some(4096));
        assert_eq!(room(100, 70_000, 4096), Some(69_900));
        assert_eq!(room(FRAME_MAX_BYTES, 0, 4096), None);
    }
}
