//! Receiving and sending in the model.

use crate::driver::Errno;

use super::flight::{Event, Kind, OpKey, Target};
use super::kernel::Kernel;
use super::memory::{Memory, poison_buffer};
use super::net::{Found, Piece, SockId};
use super::streams::{chance, part, up_to};

/// Largest piece on the wire: what loopback carries at once.
const PIECE_MAX_BYTES: usize = 64 * 1024;
/// Largest piece when sent bytes are cut small.
const SMALL_PIECE_MAX_BYTES: usize = 1448;

/// How a receive takes from the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Take {
    /// At most so many bytes at a time; zero for as many as fit.
    pub(super) most: u32,
    pub(super) multi: bool,
}

impl Kernel {
    /// A receive into the shard's pool.
    pub(super) fn attempt_recv(&mut self, key: OpKey, id: SockId, take: Take, first: bool) {
        let mut first = first;
        loop {
            let Some(found) = self.socks.get(&id).map(super::net::Sock::found) else { return };
            // The kernel takes a buffer before it looks for bytes, on the first try also when
            // there are none (io_recv).
            if found != Found::Nothing || first {
                let front =
                    self.shards[key.shard].pool.as_ref().and_then(|pool| pool.model_front());
                if front.is_none() || chance(&mut self.rng.ring, self.faults.no_buffers) {
                    self.stats.no_buffers += 1;
                    self.complete(key, -libc::ENOBUFS, false, None);
                    return;
                }
            }
            first = false;
            match found {
                Found::Nothing => return self.park_reader(id, key),
                Found::End => return self.complete(key, 0, false, None),
                Found::Error(errno) => return self.fail_sock_op(key, id, errno),
                Found::Bytes(len) => {
                    if self.fails_now() {
                        self.break_connection(id);
                        return self.complete(key, -libc::ECONNRESET, false, None);
                    }
                    if !self.receive_to_pool(key, id, len, take) {
                        return;
                    }
                }
            }
        }
    }

    /// Reports a socket's error, which is reported once.
    fn fail_sock_op(&mut self, key: OpKey, id: SockId, errno: i32) {
        if let Some(sock) = self.socks.get_mut(&id) {
            sock.error = None;
        }
        self.complete(key, -errno, false, None);
    }

    /// Receives some of the `len` bytes that are there; whether the operation goes on.
    fn receive_to_pool(&mut self, key: OpKey, id: SockId, len: usize, take: Take) -> bool {
        let Some(pool) = self.shards[key.shard].pool.clone() else { return false };
        let Some((bid, start, room)) = pool.model_front() else { return false };
        let size = pool.config().buffer_len_bytes;
        if room == size {
            poison_buffer(start, size as usize);
        }
        let most = if take.most == 0 { room } else { room.min(take.most) };
        let len = self.shorten_recv(len.min(most as usize));
        let bytes = self.take_inbox(id, len);
        super::memory::Region::new(start, room as usize).fill(0, &bytes);
        let taken = u32::try_from(len).unwrap_or(u32::MAX);
        let keeps = pool.config().incremental && taken < room;
        if !keeps {
            pool.model_take_front();
        }
        let lease = pool.lend(bid, taken, keeps);
        let more = take.multi && self.goes_on(key);
        self.complete(key, taken.cast_signed(), more, Some(lease));
        more
    }

    fn shorten_recv(&mut self, len: usize) -> usize {
        if !chance(&mut self.rng.short, self.faults.short_recv) {
            return len;
        }
        let short = part(&mut self.rng.short, len);
        self.stats.short_transfers += u64::from(short < len);
        short
    }

    /// Takes received bytes; the sender may go on once there is room for a good part.
    pub(super) fn take_inbox(&mut self, id: SockId, len: usize) -> Vec<u8> {
        let Some(sock) = self.socks.get_mut(&id) else { return Vec::new() };
        let bytes: Vec<u8> = sock.inbox.drain(..len.min(sock.inbox.len())).collect();
        if let Some(peer) = sock.peer
            && self.room(peer) >= self.wake_room()
        {
            self.wake_writers(peer);
        }
        bytes
    }

    pub(super) fn attempt_recv_into(&mut self, key: OpKey, id: SockId) {
        let Some(found) = self.socks.get(&id).map(super::net::Sock::found) else { return };
        match found {
            Found::Nothing => self.park_reader(id, key),
            Found::End => self.complete(key, 0, false, None),
            Found::Error(errno) => self.fail_sock_op(key, id, errno),
            Found::Bytes(len) => {
                if self.fails_now() {
                    self.break_connection(id);
                    return self.complete(key, -libc::ECONNRESET, false, None);
                }
                let most = self.op(key).map_or(0, |op| op.memory.len());
                let len = self.shorten_recv(len.min(most));
                let bytes = self.take_inbox(id, len);
                self.fill(key, &bytes);
                self.complete(key, i32::try_from(len).unwrap_or(i32::MAX), false, None);
            }
        }
    }

    /// Writes to the memory of an operation, which nobody may have touched.
    pub(super) fn fill(&mut self, key: OpKey, bytes: &[u8]) {
        let Some(op) = self.op_ref(key) else { return };
        op.memory.verify(&|| self.describe(key));
        if let Memory::Into(region) = &op.memory {
            region.fill(0, bytes);
        }
    }

    pub(super) fn attempt_send(&mut self, key: OpKey, id: SockId) {
        loop {
            let Some(op) = self.op(key) else { return };
            let (done, total) = (op.done, op.memory.len());
            let Some(sock) = self.socks.get(&id) else { return };
            if let Some(errno) = sock.cannot_send() {
                if done > 0 {
                    return self.finish_send(key);
                }
                return self.fail_sock_op(key, id, errno);
            }
            if done == total {
                return self.finish_send(key);
            }
            let room = self.room(id);
            if room == 0 {
                return self.park_writer(id, key);
            }
            if done == 0 && self.fails_now() {
                self.break_connection(id);
                return self.complete(key, -libc::EPIPE, false, None);
            }
            let mut len = room.min(total - done);
            let short = chance(&mut self.rng.short, self.faults.short_send);
            if short {
                len = part(&mut self.rng.short, len);
                self.stats.short_transfers += u64::from(done + len < total);
            }
            let Some(op) = self.op(key) else { return };
            let bytes = op.memory.copy_out(done, len);
            op.done += len;
            self.transmit(id, bytes);
            if short {
                return self.finish_send(key);
            }
        }
    }

    /// Sends what fits, and is over.
    pub(super) fn attempt_send_now(&mut self, key: OpKey, id: SockId) {
        let Some(total) = self.op(key).map(|op| op.memory.len()) else { return };
        let Some(sock) = self.socks.get(&id) else { return };
        if let Some(errno) = sock.cannot_send() {
            return self.fail_sock_op(key, id, errno);
        }
        if self.fails_now() {
            self.break_connection(id);
            return self.complete(key, -libc::EPIPE, false, None);
        }
        let mut len = self.room(id).min(total);
        if len > 0 && chance(&mut self.rng.short, self.faults.short_send) {
            len = part(&mut self.rng.short, len);
            self.stats.short_transfers += u64::from(len < total);
        }
        let Some(op) = self.op(key) else { return };
        let bytes = op.memory.copy_out(0, len);
        self.transmit(id, bytes);
        if len == total {
            self.complete_quietly(key, i32::try_from(len).unwrap_or(i32::MAX));
        } else {
            self.complete(key, i32::try_from(len).unwrap_or(i32::MAX), false, None);
        }
    }

    /// Ends a send that moved some bytes, or had none to move.
    pub(super) fn finish_send(&mut self, key: OpKey) {
        let Some(op) = self.op(key) else { return };
        let result = i32::try_from(op.done).unwrap_or(i32::MAX);
        if op.kind != (Kind::Send { zero_copy: true }) {
            return self.complete(key, result, false, None);
        }
        // The buffer stays in use until the last byte has left; the connection does not.
        self.unpark(key);
        let Some(op) = self.op(key) else { return };
        op.notifying = true;
        let target = op.target.take();
        let mut at = self.now_ns;
        if let Some(Target::Sock(id)) = target {
            at = self.all_arrived_ns(id);
        }
        if chance(&mut self.rng.delay, self.faults.late_notification) {
            at += up_to(&mut self.rng.delay, self.faults.delay_max_ns);
        }
        if let Some(target) = target {
            self.release(target);
        }
        self.schedule(at, Event::Notify { key, result });
    }

    /// Puts bytes on the wire.
    pub(super) fn transmit(&mut self, from: SockId, bytes: Vec<u8>) {
        let Some(peer) = self.socks.get(&from).and_then(|sock| sock.peer) else {
            // Nobody is there: the answer to the first byte is a reset.
            return self.push_piece(from, Piece::Reset);
        };
        let small = chance(&mut self.rng.net, self.faults.segment);
        let most = if small { SMALL_PIECE_MAX_BYTES } else { PIECE_MAX_BYTES };
        let mut rest = bytes;
        while !rest.is_empty() {
            if chance(&mut self.rng.net, self.faults.reset) {
                self.stats.resets += 1;
                self.push_piece(peer, Piece::Reset);
                self.push_piece(from, Piece::Reset);
                return;
            }
            let len = if small { part(&mut self.rng.net, most) } else { most };
            let tail = rest.split_off(len.min(rest.len()));
            self.push_piece(peer, Piece::Bytes(rest));
            rest = tail;
        }
    }

    /// Sends from outside the ring: what fits, or an errno.
    pub(super) fn send_now(&mut self, id: SockId, bytes: &[u8]) -> Result<usize, Errno> {
        let sock = self.socks.get_mut(&id).ok_or(Errno(libc::EBADF))?;
        if let Some(errno) = sock.cannot_send() {
            sock.error = None;
            return Err(Errno(errno));
        }
        let len = self.room(id).min(bytes.len());
        if len == 0 && !bytes.is_empty() {
            return Err(Errno(libc::EAGAIN));
        }
        self.transmit(id, bytes[..len].to_vec());
        Ok(len)
    }
}
