//! Bytes of files: read, written, cut and synced, with what a fault does to them.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, Mode, fallocate, fchmod, fstat};
use rustix::io::Errno;

use super::host::{Done, errno};
use super::inner::{Fate, Inner};
use super::nodes::Open;
use super::{Effect, Fill};

/// What a disk writes at once.
const SECTOR: usize = 512;
/// Of linux/sched.h: a process that is ending.
const PF_EXITING: u32 = 4;

/// A share of a number of bytes.
fn part(len: usize, percent: f64) -> usize {
    (len as f64 * percent / 100.0) as usize
}

/// Reads until there is no more.
fn read_full(file: &File, at: u64, len: usize) -> Done<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(errno(&error)),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Writes as much as there is room for.
fn write_full(file: &File, at: u64, bytes: &[u8]) -> Done<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, at + done as u64) {
            Ok(more) => done += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(errno(&error)),
        }
    }
    Ok(done)
}

/// The process of a thread.
fn process_of(thread: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    process.unwrap_or(thread)
}

/// Whether a thread is ending by a signal.
fn is_killed(thread: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Fields 9 and 52 of proc(5); the third is the first here.
    let field =
        |at: usize| fields.get(at - 3).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    field(9) & PF_EXITING != 0 && field(52) & 0x7f != 0
}

impl Inner {
    pub(super) fn loses(&self) -> bool {
        self.rule.order.effect == Effect::Lose
    }

    /// Makes some bytes others; whether there were any.
    fn spoil(&self, bytes: &mut [u8], fill: Fill, count: u32, len: u32) -> bool {
        let chance = &self.rule.chance;
        for _ in 0..count {
            let most = u64::try_from(bytes.len()).unwrap_or(0);
            let at = usize::try_from(chance.below(most)).unwrap_or(0);
            let spoiled =
                bytes.iter_mut().skip(at).take(usize::try_from(len).unwrap_or(usize::MAX));
            for byte in spoiled {
                *byte = match fill {
                    Fill::Flip => *byte ^ 1 << chance.below(8),
                    Fill::Zero => 0,
                    Fill::Random => chance.next().to_le_bytes()[0],
                };
            }
        }
        !bytes.is_empty() && count > 0 && len > 0
    }

    pub(super) fn read(&self, handle: u64, at: u64, len: usize, fate: Fate) -> Done<Vec<u8>> {
        fate.allows()?;
        let open = self.nodes.open(handle)?;
        let wanted = match fate {
            Fate::Part(percent) => part(len, percent).max(1).min(len),
            _ => len,
        };
        let mut bytes = read_full(&open.file, at, wanted)?;
        let is_hit = match fate {
            Fate::Part(_) => wanted < len && bytes.len() == wanted,
            Fate::Wrong { fill, count, len } => self.spoil(&mut bytes, fill, count, len),
            _ => false,
        };
        if is_hit {
            self.rule.acted();
        }
        Ok(bytes)
    }

    /// Where a write goes that the page cache made, which knows nothing of `O_APPEND`.
    fn unappending(&self, open: &Arc<Open>) -> Done<Arc<Open>> {
        let (_fd, name) = self.nodes.again(open.node)?;
        let file =
            File::options().read(true).write(true).open(name).map_err(|error| errno(&error))?;
        Ok(Arc::new(Open { file, node: open.node, is_synced: false, appends: false }))
    }

    pub(super) fn write(&self, write: &Write, bytes: &[u8], fate: Fate) -> Done<u32> {
        fate.allows()?;
        let mut open = self.nodes.open(write.handle)?;
        if write.is_cached && open.appends {
            open = self.unappending(&open)?;
        }
        if write.kills_suid {
            strip_suid(&open.file)?;
        }
        if matches!(fate, Fate::Lose) && !open.is_synced {
            let len = open.file.metadata().map_err(|error| errno(&error))?.len();
            let at = if open.appends { len } else { write.at };
            let writer = process_of(write.pid);
            self.unsynced.will_write(open.node, &open.file, at, bytes.len() as u64, writer)?;
        }
        let low = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        match fate {
            Fate::Part(percent) => {
                let len = part(bytes.len(), percent).max(1).min(bytes.len());
                let done = write_full(&open.file, write.at, bytes.get(..len).unwrap_or_default())?;
                if done < bytes.len() {
                    self.rule.acted();
                }
                Ok(low(done))
            }
            Fate::Torn(percent) => {
                let len = part(bytes.len(), percent) / SECTOR * SECTOR;
                write_full(&open.file, write.at, bytes.get(..len).unwrap_or_default())?;
                if len < bytes.len() {
                    self.rule.acted();
                }
                Ok(low(bytes.len()))
            }
            Fate::Wrong { fill, count, len } => {
                let mut bytes = bytes.to_vec();
                if self.spoil(&mut bytes, fill, count, len) {
                    self.rule.acted();
                }
                write_full(&open.file, write.at, &bytes).map(low)
            }
            _ => write_full(&open.file, write.at, bytes).map(low),
        }
    }

    pub(super) fn sync(&self, handle: u64, only_data: bool, fate: Fate) -> Done<()> {
        fate.allows()?;
        let open = self.nodes.open(handle)?;
        let log = self.unsynced.take(open.node);
        let done = if only_data { open.file.sync_data() } else { open.file.sync_all() };
        if let (Err(_), Some(log)) = (&done, log) {
            self.unsynced.put_back(open.node, log);
        }
        done.map_err(|error| errno(&error))
    }

    /// Sets the length of a file.
    pub(super) fn truncate(
        &self,
        node: u64,
        handle: Option<u64>,
        len: u64,
        pid: u32,
        fate: Fate,
    ) -> Done<()> {
        let open = handle.and_then(|handle| self.nodes.open(handle).ok());
        let open = match open {
            Some(open) => open,
            None => {
                let (_fd, name) = self.nodes.again(node)?;
                let file = File::options()
                    .read(true)
                    .write(true)
                    .open(name)
                    .map_err(|error| errno(&error))?;
                Arc::new(Open { file, node, is_synced: false, appends: false })
            }
        };
        if matches!(fate, Fate::Lose) {
            self.unsynced.will_write(node, &open.file, len, u64::MAX - len, process_of(pid))?;
        }
        strip_suid(&open.file)?;
        open.file.set_len(len).map_err(|error| errno(&error))
    }

    pub(super) fn allocate(
        &self,
        handle: u64,
        (at, len): (u64, u64),
        mode: i32,
        pid: u32,
        fate: Fate,
    ) -> Done<()> {
        fate.allows()?;
        let open = self.nodes.open(handle)?;
        if matches!(fate, Fate::Lose) {
            self.unsynced.will_write(open.node, &open.file, at, len, process_of(pid))?;
        }
        let mode = FallocateFlags::from_bits_retain(u32::try_from(mode).map_err(|_| Errno::INVAL)?);
        fallocate(open.file.as_fd(), mode, at, len)
    }

    /// A descriptor is closed: if that is because its process is killed, what that wrote is lost.
    pub(super) fn closed_by(&self, thread: u32) {
        if self.loses() && !self.rule.is_over() && is_killed(thread) {
            self.lose(Some(process_of(thread)));
        }
    }

    /// Loses what a process wrote, or all, and did not sync.
    pub(super) fn lose(&self, writer: Option<u32>) {
        for node in self.unsynced.files(writer) {
            let Ok((_fd, name)) = self.nodes.again(node) else { continue };
            // What cannot be undone stays, as if it had been synced.
            let lost = self.unsynced.lose(node, Path::new(&name)).unwrap_or(0);
            self.rule.tally.affected(lost);
        }
    }
}

/// A write, beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) handle: u64,
    pub(super) at: u64,
    pub(super) pid: u32,
    /// The page cache makes it.
    pub(super) is_cached: bool,
    pub(super) kills_suid: bool,
}

/// What the kernel does to a file that somebody else than root writes to.
fn strip_suid(file: &File) -> Done<()> {
    let mode = Mode::from_raw_mode(fstat(file)?.st_mode);
    if !mode.contains(Mode::SUID) && !mode.contains(Mode::SGID | Mode::XGRP) {
        return Ok(());
    }
    fchmod(file, mode.difference(Mode::SUID | Mode::SGID) & Mode::from_raw_mode(0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_not_killed() {
        let own = std::process::id();
        assert_eq!(process_of(own), own);
        assert!(!is_killed(own));
        assert_eq!((part(4096, 50.0), part(1, 50.0)), (2048, 0));
    }
}
