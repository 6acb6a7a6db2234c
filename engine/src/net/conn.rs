//! What the server keeps per connection, and the slab they live in.
//!
//! ```text
//! receiving:  Off -> Multi -> (Cancelling ->) Off     data in shared buffers
//!                 -> Small -> Off                     a little, from a connection of big frames
//!                 -> Into  -> Off                     the rest of one big frame
//!                 -> Starved -> Off                   the pool was empty; re-armed by the turn
//! closing:    Open -> Flushing -> Lingering -> Closed
//! ```
//! A slot is freed when no operation of the connection is in flight any more.

use bytes::BytesMut;
use view::Output;

use super::tls::Secure;
use crate::chunked::Chunked;
use crate::driver::{Fd, OpId};

/// How bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// No receive is in flight.
    Off,
    /// Multishot into the pool.
    Multi(OpId),
    /// Multishot that is being cancelled.
    Cancelling,
    /// One limited receive into the pool.
    Small(OpId),
    /// One receive into the connection's own buffer.
    Into(OpId),
    /// Waits for the pool.
    Starved,
}

/// How far the connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closing {
    Open,
    /// No more input is taken; pending output is sent.
    Flushing,
    /// Our side is shut down; input is discarded until the peer closes too.
    Lingering,
    /// Waits for operations to end.
    Closed,
}

pub(super) struct Conn<S> {
    pub(super) fd: Fd,
    pub(super) session: S,
    pub(super) receiving: Receiving,
    pub(super) closing: Closing,
    pub(super) sending: bool,
    /// The session waits for work of its own.
    pub(super) awaiting: bool,
    /// The peer will send no more.
    pub(super) eof: bool,
    /// The session was told that nobody will read what it awaits.
    pub(super) knows_gone: bool,
    /// On the list of connections to continue in the next turn.
    pub(super) queued: bool,
    /// Frames of ordinary size to see before going back to multishot.
    pub(super) big_frames: u8,
    pub(super) ops_in_flight: u8,
    /// Seconds, for the idle timeout.
    pub(super) active_s: u32,
    /// Replies that wait for the send in flight.
    pub(super) pending: Output,
    /// The start of a frame whose rest has not arrived, or bytes not looked at yet.
    pub(super) backlog: BytesMut,
    /// Length of the frame at the front of the backlog, when the session announced it.
    pub(super) want: usize,
    /// Bytes of the send in flight that went out with earlier ones.
    pub(super) sent_skip: usize,
    /// What stands between the socket and the session; none on a plain connection.
    pub(super) tls: Option<Box<Secure>>,
}

impl<S> Conn<S> {
    pub(super) fn new(fd: Fd, session: S, active_s: u32) -> Self {
        Self {
            fd,
            session,
            receiving: Receiving::Off,
            closing: Closing::Open,
            sending: false,
            awaiting: false,
            eof: false,
            knows_gone: false,
            queued: false,
            big_frames: 0,
            ops_in_flight: 0,
            active_s,
            pending: Output::default(),
            backlog: BytesMut::new(),
            want: 0,
            sent_skip: 0,
            tls: None,
        }
    }

    /// Whether nothing waits to be sent behind the send in flight.
    pub(super) fn has_sent_all(&self) -> bool {
        self.pending.is_empty() && self.tls.as_ref().is_none_or(|tls| !tls.owes())
    }
}

/// Names a connection of a server; stale ones name nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

const GENERATION_MASK: u32 = (1 << 20) - 1;

impl ConnId {
    /// The connection as a number below 2^52.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The inverse of [`ConnId::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 & GENERATION_MASK }
    }
}

/// Connections by index; freed slots are reused last-in-first-out.
pub(super) struct Conns<S> {
    slots: Chunked<(u32, Option<Conn<S>>)>,
    free: Vec<u32>,
}

impl<S> Default for Conns<S> {
    fn default() -> Self {
        Self { slots: Chunked::default(), free: Vec::new() }
    }
}

impl<S> Conns<S> {
    pub(super) fn reserve_id(&mut self) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.push((0, None));
            u32::try_from(index).expect("fewer than 2^32 connections")
        });
        ConnId { index, generation: self.slots[index as usize].0 }
    }

    pub(super) fn release_id(&mut self, id: ConnId) {
        self.free.push(id.index);
    }

    pub(super) fn put(&mut self, id: ConnId, conn: Conn<S>) {
        self.slots[id.index as usize].1 = Some(conn);
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn<S>> {
        let (generation, conn) = self.slots.get_mut(id.index as usize)?;
        if *generation == id.generation { conn.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn<S>> {
        let (generation, conn) = self.slots.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let conn = conn.take()?;
        *generation = (*generation + 1) & GENERATION_MASK;
        self.free.push(id.index);
        Some(conn)
    }

    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Ids of at most `max` live connections from slot `from` on, and where to go on.
    pub(super) fn page(&self, from: usize, max: usize) -> (Vec<ConnId>, Option<usize>) {
        let end = (from + max).min(self.slots.len());
        let ids = (from..end)
            .filter(|&index| self.slots[index].1.is_some())
            .map(|index| ConnId {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: self.slots[index].0,
            })
            .collect();
        (ids, (end < self.slots.len()).then_some(end))
    }
}
