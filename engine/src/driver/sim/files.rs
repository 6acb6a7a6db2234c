//! File operations and plain calls of the model.

use std::io::IoSlice;
use std::path::Path;

use crate::driver::{Errno, Fd, OpenOptions, PeerName};

use super::disk::{Inode, SECTOR_BYTES};
use super::flight::{FileId, Kind, OpKey, OpenFile, Target};
use super::kernel::Kernel;
use super::kernel::machine_of;
use super::streams::{chance, part, up_to};

/// Offsets, lengths and addresses of direct I/O are multiples of this.
const DIRECT_ALIGN_BYTES: u64 = 4096;
/// A slow operation takes up to this many times longer.
const SLOW_FACTOR: u64 = 1000;

impl Kernel {
    pub(super) fn attempt_file(&mut self, key: OpKey, kind: Kind, file: FileId, first: bool) {
        let offset = match kind {
            Kind::Read { offset } | Kind::Write { offset, .. } => offset,
            // The cache is filled by whole pages, whatever is asked for.
            Kind::Fsync | Kind::ReadAhead { .. } => 0,
            Kind::PollIn => return self.complete(key, i32::from(libc::POLLIN), false, None),
            Kind::PollOut => return self.complete(key, i32::from(libc::POLLOUT), false, None),
            Kind::Splice => return self.complete(key, -libc::EINVAL, false, None),
            _ => return self.complete(key, -libc::ENOTSOCK, false, None),
        };
        let len = self.op(key).map_or(0, |op| op.memory.len());
        let Some(open) = self.files.get(&file) else {
            // The machine stopped meanwhile.
            return self.complete(key, -libc::EIO, false, None);
        };
        if !first {
            return self.perform_file(key, kind, file);
        }
        let crooked = !offset.is_multiple_of(DIRECT_ALIGN_BYTES)
            || !(len as u64).is_multiple_of(DIRECT_ALIGN_BYTES);
        if open.direct && crooked {
            return self.complete(key, -libc::EINVAL, false, None);
        }
        if matches!(kind, Kind::Write { .. }) && !open.write {
            return self.complete(key, -libc::EBADF, false, None);
        }
        let mut latency = self.faults.limits.disk_latency_ns;
        if chance(&mut self.rng.disk, self.faults.slow_io) {
            latency += up_to(&mut self.rng.disk, latency * SLOW_FACTOR);
        }
        self.attempt_at(key, self.now_ns + latency);
    }

    fn perform_file(&mut self, key: OpKey, kind: Kind, file: FileId) {
        let result = match kind {
            Kind::Read { offset } => self.perform_read(key, file, offset),
            Kind::Write { offset, durable } => self.perform_write(key, file, offset, durable),
            Kind::ReadAhead { offset, len } => self.perform_read_ahead(file, offset, len),
            _ => self.perform_fsync(file),
        };
        let result = result.unwrap_or_else(|errno| {
            self.stats.file_errors += 1;
            -errno
        });
        self.complete(key, result, false, None);
    }

    /// Shortens a transfer; direct I/O by whole sectors.
    fn shorten_file(&mut self, len: usize, p: f64, direct: bool) -> usize {
        if !chance(&mut self.rng.disk, p) {
            return len;
        }
        let mut short = part(&mut self.rng.disk, len);
        if direct {
            short = short.next_multiple_of(SECTOR_BYTES).min(len);
        }
        self.stats.short_files += u64::from(short < len);
        short
    }

    fn perform_read(&mut self, key: OpKey, file: FileId, offset: u64) -> Result<i32, i32> {
        if self.fails_now() || chance(&mut self.rng.disk, self.faults.read_error) {
            return Err(libc::EIO);
        }
        let (inode, direct) = self.opened(file)?;
        let len = self.op(key).map_or(0, |op| op.memory.len());
        let bytes = self.disks[inode.disk()].read(inode, offset, len)?.to_vec();
        let len = self.shorten_file(bytes.len(), self.faults.short_read, direct);
        if len > 0 {
            self.fill(key, &bytes[..len]);
        }
        Ok(i32::try_from(len).unwrap_or(i32::MAX))
    }

    /// The cache is not modelled: what is asked for is there afterwards, as far as the file goes.
    fn perform_read_ahead(&mut self, file: FileId, offset: u64, len: usize) -> Result<i32, i32> {
        if self.fails_now() || chance(&mut self.rng.disk, self.faults.read_error) {
            return Err(libc::EIO);
        }
        let (inode, _) = self.opened(file)?;
        let len = self.disks[inode.disk()].read(inode, offset, len)?.len();
        let len = self.shorten_file(len, self.faults.short_read, false);
        Ok(i32::try_from(len).unwrap_or(i32::MAX))
    }

    fn opened(&self, file: FileId) -> Result<(Inode, bool), i32> {
        let open = self.files.get(&file).ok_or(libc::EIO)?;
        Ok((open.inode, open.direct))
    }

    fn perform_write(
        &mut self,
        key: OpKey,
        file: FileId,
        offset: u64,
        durable: bool,
    ) -> Result<i32, i32> {
        let (inode, direct) = self.opened(file)?;
        let len = self.op(key).map_or(0, |op| op.memory.len());
        if self.fails_now() || chance(&mut self.rng.disk, self.faults.write_error) {
            if chance(&mut self.rng.disk, 0.5) {
                self.write_unfinished(key, file, offset);
            }
            return Err(libc::EIO);
        }
        let room = self.admit_write(inode, offset, len, false)?;
        let len = self.shorten_file(room, self.faults.short_write, direct);
        let bytes = self.op(key).map_or_else(Vec::new, |op| op.memory.copy_out(0, len));
        self.disks[inode.disk()].write(inode, offset, &bytes)?;
        if durable {
            self.disks[inode.disk()].sync_range(inode, offset, len)?;
        }
        Ok(i32::try_from(len).unwrap_or(i32::MAX))
    }

    /// A write that will not be reported as done leaves a part behind.
    pub(super) fn write_unfinished(&mut self, key: OpKey, file: FileId, offset: u64) {
        let Ok((inode, _)) = self.opened(file) else { return };
        let Some(len) = self.op(key).map(|op| op.memory.len()) else { return };
        let len = part(&mut self.rng.crash, len);
        let bytes = self.op(key).map_or_else(Vec::new, |op| op.memory.copy_out(0, len));
        let room = self.disks[inode.disk()].room(inode, offset, bytes.len()).unwrap_or(0);
        // Refused for the same reasons as a whole write: then nothing is left.
        let _ = self.disks[inode.disk()].write(inode, offset, &bytes[..room]);
    }

    fn perform_fsync(&mut self, file: FileId) -> Result<i32, i32> {
        let (inode, _) = self.opened(file)?;
        if self.fails_now() || chance(&mut self.rng.disk, self.faults.fsync_error) {
            self.disks[inode.disk()].fail_sync(inode);
            return Err(libc::EIO);
        }
        self.disks[inode.disk()].sync(inode).map(|()| 0)
    }

    // Plain calls.

    /// Traces a call's result; fails it when that was ordered.
    pub(super) fn call<T>(
        &mut self,
        number: u64,
        errno: i32,
        perform: impl FnOnce(&mut Self) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let result = if self.call_fails_now() { Err(errno) } else { perform(self) };
        let failed = result.as_ref().err().copied().unwrap_or(0);
        self.trace(number << 56 | u64::from(failed.cast_unsigned()));
        result
    }

    pub(super) fn open(
        &mut self,
        shard: usize,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<Fd, i32> {
        let disk = &mut self.disks[machine_of(shard)];
        let inode = match disk.look_up(path) {
            Err(libc::ENOENT) if options.create => disk.create(path)?,
            found => found?,
        };
        match self.disks[inode.disk()].is_directory(inode) {
            true if options.write => return Err(libc::EISDIR),
            false if options.directory => return Err(libc::ENOTDIR),
            _ => {}
        }
        let id = FileId(self.serial());
        let (write, direct) = (options.write, options.direct);
        self.files.insert(id, OpenFile { inode, write, direct, refs: 0 });
        self.disks[inode.disk()].open(inode);
        let opened = self.new_fd(shard, Target::File(id));
        if opened.is_err() {
            self.files.remove(&id);
            self.disks[inode.disk()].close(inode);
        }
        opened
    }

    fn file(&self, fd: Fd) -> Result<&OpenFile, i32> {
        match self.target(fd)? {
            Target::File(id) => self.files.get(&id).ok_or(libc::EBADF),
            Target::Sock(_) => Err(libc::EINVAL),
        }
    }

    fn len_of(&self, inode: Inode) -> Result<u64, i32> {
        self.disks[inode.disk()].len(inode)
    }

    pub(super) fn file_len(&self, fd: Fd) -> Result<u64, i32> {
        self.len_of(self.file(fd)?.inode)
    }

    pub(super) fn truncate(&mut self, fd: Fd, len: u64) -> Result<(), i32> {
        let open = self.file(fd)?;
        if !open.write {
            return Err(libc::EINVAL);
        }
        let inode = open.inode;
        self.disks[inode.disk()].truncate(inode, len)
    }

    pub(super) fn unlink(&mut self, shard: usize, path: &Path) -> Result<(), i32> {
        match self.unix.remove(path) {
            Some(_) => Ok(()),
            None => self.disks[machine_of(shard)].unlink(path),
        }
    }

    pub(super) fn names(&self, fd: Fd) -> (PeerName, PeerName) {
        match self.target(fd).map(|target| match target {
            Target::Sock(id) => self.socks.get(&id),
            Target::File(_) => None,
        }) {
            Ok(Some(sock)) if sock.is_stream() && !sock.broken => {
                (sock.local.clone(), sock.peer_name.clone())
            }
            Ok(Some(sock)) => (sock.local.clone(), PeerName::Unknown),
            _ => (PeerName::Unknown, PeerName::Unknown),
        }
    }

    pub(super) fn sendfile(
        &mut self,
        to: Fd,
        file: Fd,
        offset: u64,
        len: usize,
    ) -> Result<usize, Errno> {
        let Target::Sock(to) = self.target(to).map_err(Errno)? else {
            return Err(Errno(libc::EINVAL));
        };
        let inode = self.file(file).map_err(Errno)?.inode;
        let there = self.disks[inode.disk()].read(inode, offset, len).map_err(Errno)?.len();
        if there == 0 {
            return Ok(0);
        }
        // At least one byte, so that a full socket is told from the end of the file.
        let len = there.min(self.room(to).max(1));
        let len = self.shorten_file(len, self.faults.short_send, false);
        let bytes = self.disks[inode.disk()].read(inode, offset, len).map_err(Errno)?.to_vec();
        let sent = self.send_now(to, &bytes);
        self.trace(sent.map_or_else(|errno| u64::from(errno.0.unsigned_abs()), |sent| sent as u64));
        sent
    }

    pub(super) fn cached_bytes(&mut self, fd: Fd, offset: u64, len: u64) -> Option<u64> {
        let end = self.len_of(self.file(fd).ok()?.inode).ok()?;
        let there = end.saturating_sub(offset).min(len);
        if chance(&mut self.rng.disk, self.faults.cold) {
            return Some(up_to(&mut self.rng.disk, there));
        }
        Some(there)
    }

    pub(super) fn read_now(&mut self, fd: Fd, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let open = self.file(fd).map_err(Errno)?;
        let (inode, direct) = (open.inode, open.direct);
        // Direct reads bypass the cache, so they would always wait.
        if direct || chance(&mut self.rng.disk, self.faults.cold) {
            return Err(Errno(libc::EAGAIN));
        }
        let there = self.disks[inode.disk()].read(inode, offset, buf.len()).map_err(Errno)?.len();
        let len = self.shorten_file(there, self.faults.short_read, false);
        buf[..len]
            .copy_from_slice(self.disks[inode.disk()].read(inode, offset, len).map_err(Errno)?);
        Ok(len)
    }

    pub(super) fn read_waiting(
        &mut self,
        fd: Fd,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        let read = self.read_from_disk(fd, buf, offset);
        self.trace(match read {
            Ok(len) => len as u64,
            Err(errno) => u64::from(errno.cast_unsigned()) << 32,
        });
        read.map_err(Errno)
    }

    fn read_from_disk(&mut self, fd: Fd, buf: &mut [u8], offset: u64) -> Result<usize, i32> {
        let inode = self.file(fd)?.inode;
        if chance(&mut self.rng.disk, self.faults.read_error) {
            return Err(libc::EIO);
        }
        let there = self.disks[inode.disk()].read(inode, offset, buf.len())?.len();
        let len = self.shorten_file(there, self.faults.short_read, false);
        buf[..len].copy_from_slice(self.disks[inode.disk()].read(inode, offset, len)?);
        Ok(len)
    }

    pub(super) fn write_now(
        &mut self,
        fd: Fd,
        parts: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<usize, Errno> {
        let written = self.write_parts(fd, parts, offset);
        self.trace(match written {
            Ok(len) => len as u64,
            Err(errno) => u64::from(errno.cast_unsigned()) << 32,
        });
        written.map_err(Errno)
    }

    fn write_parts(&mut self, fd: Fd, parts: &[IoSlice<'_>], offset: u64) -> Result<usize, i32> {
        let open = self.file(fd)?;
        let (inode, direct) = (open.inode, open.direct);
        if !open.write || direct {
            return Err(if direct { libc::EINVAL } else { libc::EBADF });
        }
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let fails = self.call_fails_now() || chance(&mut self.rng.disk, self.faults.write_error);
        let room = self.admit_write(inode, offset, bytes.len(), fails);
        let len = match room {
            Ok(room) => self.shorten_file(room, self.faults.short_write, direct),
            // What fails may have written a part.
            Err(libc::EIO) if chance(&mut self.rng.disk, 0.5) => {
                part(&mut self.rng.disk, self.disks[inode.disk()].room(inode, offset, bytes.len())?)
            }
            Err(errno) => return Err(errno),
        };
        self.disks[inode.disk()].write(inode, offset, &bytes[..len])?;
        room.map(|_| len)
    }

    /// How many of `len` bytes can be written.
    fn admit_write(
        &mut self,
        inode: Inode,
        offset: u64,
        len: usize,
        fails: bool,
    ) -> Result<usize, i32> {
        if fails {
            return Err(libc::EIO);
        }
        let room = self.disks[inode.disk()].room(inode, offset, len)?;
        let grows = offset + len as u64 > self.disks[inode.disk()].len(inode)?;
        if (room == 0 && len > 0) || (grows && chance(&mut self.rng.disk, self.faults.no_space)) {
            return Err(libc::ENOSPC);
        }
        Ok(room)
    }

    /// A machine stops and starts again: files go back to what is durable, open ones are gone.
    pub(super) fn crash_disk(&mut self, machine: usize) {
        let files: Vec<i32> = self
            .fds
            .iter()
            .filter(|(_, descriptor)| matches!(descriptor.target, Target::File(_)))
            .filter(|(_, descriptor)| machine_of(descriptor.shard) == machine)
            .map(|(fd, _)| *fd)
            .collect();
        for fd in files {
            // Listed above, so it is open.
            let _ = self.close(Fd(fd));
        }
        self.files.retain(|_, file| file.inode.disk() != machine);
        if let Some(disk) = self.disks.get_mut(machine) {
            disk.crash(&mut self.rng.crash, self.faults.survives);
        }
        self.trace(u64::from_le_bytes(*b"crash   "));
    }
}
