//! Signals, as something a ring can poll.
//!
//! Why: a signal may arrive in any thread at any instruction. The handlers here only set a flag and
//! write a byte to a socket; shard 0 polls its other end like any connection, and acts in its own
//! turn.
//!
//! SIGTERM and SIGINT ask to stop, SIGHUP to read the configuration again. SIGPIPE is ignored, so
//! that a peer that left is an error of the send that met it.
//!
//! Invariants: one instance per process; nothing here blocks; no signal is lost, several of a kind
//! may become one.
//!
//! Next: the launcher owns the [`Signals`] and drains the shards.

use crate::error::{Error, Kind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What arrived since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// SIGTERM: drain and stop.
    pub terminate: bool,
    /// SIGINT: the same, from a keyboard.
    pub interrupt: bool,
    /// SIGHUP: read the configuration again.
    pub hangup: bool,
}

impl Arrived {
    /// Whether the process was asked to stop.
    #[must_use]
    pub const fn stop(self) -> bool {
        self.terminate || self.interrupt
    }

    /// Whether anything arrived.
    #[must_use]
    pub const fn any(self) -> bool {
        self.stop() || self.hangup
    }
}

/// The process's handlers, and the end of the socket that becomes readable when one has run.
#[derive(Debug)]
pub struct Signals {
    reader: UnixStream,
    terminate: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
    registered: Vec<signal_hook::SigId>,
}

impl Signals {
    /// Installs the handlers. Call it once, before threads start.
    ///
    /// # Errors
    /// When the kernel refuses a socket or a handler.
    pub fn install() -> Result<Self, Error> {
        let failed = |source| Error::io("socketpair", source, "of the signal handlers");
        let (reader, writer) = UnixStream::pair().map_err(failed)?;
        reader.set_nonblocking(true).map_err(failed)?;
        let mut signals = Self {
            reader,
            terminate: Arc::default(),
            interrupt: Arc::default(),
            hangup: Arc::default(),
            registered: Vec::new(),
        };
        let kinds = [
            (SIGTERM, Arc::clone(&signals.terminate)),
            (SIGINT, Arc::clone(&signals.interrupt)),
            (SIGHUP, Arc::clone(&signals.hangup)),
        ];
        for (signal, flag) in kinds {
            // In this order: who reads the byte finds the flag. The library sends the byte without
            // waiting; a full socket is readable anyway.
            signals.keep(signal, signal_hook::flag::register(signal, flag))?;
            let end = writer.try_clone().map_err(failed)?;
            signals.keep(signal, signal_hook::low_level::pipe::register(signal, end))?;
        }
        if !ignores(SIGPIPE) {
            // The library cannot ignore a signal, but a handler that does next to nothing serves.
            signals.keep(SIGPIPE, signal_hook::flag::register(SIGPIPE, Arc::default()))?;
        }
        Ok(signals)
    }

    fn keep(
        &mut self,
        signal: i32,
        result: std::io::Result<signal_hook::SigId>,
    ) -> Result<(), Error> {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("signal");
        let id = result.map_err(|source| Error::io("sigaction", source, name))?;
        self.registered.push(id);
        Ok(())
    }

    /// What arrived since the last call. Call it when the descriptor is readable, then poll again;
    /// it never waits.
    ///
    /// # Errors
    /// When the socket fails, which is the end of all signals.
    pub fn take(&mut self) -> Result<Arrived, Error> {
        let mut bytes = [0; 64];
        // The bytes first: a signal after this leaves a byte for the next poll.
        loop {
            match (&self.reader).read(&mut bytes) {
                Ok(0) => {
                    return Err(Error::new("read", Kind::Closed, "the signal handlers' socket"));
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", error, "the signal handlers' socket")),
            }
        }
        Ok(Arrived {
            terminate: self.terminate.swap(false, Ordering::AcqRel),
            interrupt: self.interrupt.swap(false, Ordering::AcqRel),
            hangup: self.hangup.swap(false, Ordering::AcqRel),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// Asks this process to stop, as SIGTERM from outside would: for a service whose clients may ask for that.
pub fn ask_to_stop() {
    // Fails for a signal there is not; this one there is.
    let _ = signal_hook::low_level::raise(SIGTERM);
}

/// Whether the process ignores `signal`, as Rust's runtime arranges for SIGPIPE before `main`.
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use signal_hook::low_level::raise;

    fn readable(signals: &Signals, wait_ms: i64) -> bool {
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ms * 1_000_000 };
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    }

    // One test: handlers belong to the whole process.
    #[test]
    fn signals_make_the_descriptor_readable_and_are_told_apart() {
        let mut signals = Signals::install().unwrap();
        assert!(!readable(&signals, 0));
        assert_eq!(signals.take().unwrap(), Arrived::default());

        raise(SIGHUP).unwrap();
        assert!(readable(&signals, 900));
        let arrived = signals.take().unwrap();
        assert!(arrived.hangup && arrived.any() && !arrived.stop());
        assert!(!readable(&signals, 0), "drained");

        raise(SIGTERM).unwrap();
        raise(SIGTERM).unwrap();
        raise(SIGINT).unwrap();
        assert!(readable(&signals, 900));
        let arrived = signals.take().unwrap();
        assert!(arrived.terminate && arrived.interrupt && !arrived.hangup);
        assert_eq!(signals.take().unwrap(), Arrived::default(), "told once");

        // More signals than the socket holds: the handlers do not wait.
        for _ in 0..5_000 {
            raise(SIGHUP).unwrap();
        }
        assert!(signals.take().unwrap().hangup);
        assert!(!readable(&signals, 0));

        assert!(ignores(SIGPIPE), "the runtime does it");
        raise(SIGPIPE).unwrap();
    }
}
