//! Ends TCP connections that are there, busy or idle, by the iterator in `progs/sockets.bpf.c`.
//!
//! Both sides learn of it: this host's next call fails with ECONNABORTED, and the peer is sent a reset. It is done once, when the
//! fault starts. Invariants: only connections of the network namespace that this thread is in are met; without the kernel's
//! function for it (Linux 6.5) nothing is.

use super::socket::{Action, Knows, Maps, told};
use crate::abi::{self, Counts};
use crate::error::{Error, Result};
use crate::fault::{Active, Kind, Place};
use crate::programs;
use crate::spec::Spec;

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[Kind {
    name: "tcp.kill",
    about: "connections that are there are ended, once; the sender of the target is this host's side",
    place: Place::Netns,
    shares: true,
    params: &[],
    start: |spec, _| Ok(Box::new(Killed::start(spec)?)),
}];

/// What became of them.
struct Killed(Counts);

/// Whether this kernel's functions have the one that ends a connection.
fn is_supported() -> bool {
    // libbpf finds it in the kernel's types; a build of them for every fault would cost more than asking for its symbol.
    std::fs::read_to_string("/proc/kallsyms").is_ok_and(|symbols| {
        symbols.lines().any(|line| line.split(' ').nth(2) == Some("bpf_sock_destroy"))
    })
}

/// Checks that the kernel can end connections.
///
/// # Errors
/// It cannot.
pub(crate) fn check() -> Result<()> {
    if is_supported() {
        return Ok(());
    }
    Err(Error::unsupported(
        "end connections: this kernel has no bpf_sock_destroy, which came with Linux 6.5",
    ))
}

impl Killed {
    fn start(spec: &Spec) -> Result<Self> {
        check()?;
        let told = abi::SocketFault { action: Action::Kill as u32, ..told(spec, Knows::BOTH)? };
        let object = programs::load("sockets")?;
        let mut maps = Maps::of(&object, spec, told)?;
        maps.arm(spec.arm())?;
        programs::iterate(&object, "socket")?;
        maps.counts().map(Self)
    }
}

impl Active for Killed {
    fn counts(&self) -> Result<Counts> {
        Ok(self.0)
    }

    fn disarm(&mut self) -> Result<()> {
        Ok(())
    }

    fn pin(&mut self, _: &std::path::Path) -> Result<()> {
        Ok(())
    }

    fn is_done(&self) -> bool {
        true
    }
}
