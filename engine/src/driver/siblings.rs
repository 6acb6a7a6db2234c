//! What the shards of one process share: where their doorbells are, and which addresses are theirs.
//!
//! An address that several shards listen on (SO_REUSEPORT) takes further listeners from any process of the same user:
//! also while another still has it, be it a second copy started by mistake, or one that was killed and whose ring the
//! kernel is still taking down. Connections that such a listener gets are lost. So the first shard that wants an address
//! makes sure that nobody has it, before any of them shares it. Next: `control` for who listens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Result;

/// How long a listener waits for an address that is taken.
pub const FREED_NS: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Siblings {
    bells: Box<[AtomicI32]>,
    /// What came of each address that was wanted.
    claimed: Mutex<Vec<(SocketAddr, Result<()>)>>,
}

impl Siblings {
    /// For `shards` shards; each adds its bell when it starts.
    #[must_use]
    pub fn new(shards: usize) -> Arc<Self> {
        let bells = (0..shards).map(|_| AtomicI32::new(-1)).collect();
        Arc::new(Self { bells, claimed: Mutex::default() })
    }

    pub(super) fn set_bell(&self, shard: usize, fd: i32) {
        if let Some(bell) = self.bells.get(shard) {
            bell.store(fd, Ordering::Release);
        }
    }

    pub(super) fn bell(&self, shard: usize) -> Option<i32> {
        let fd = self.bells.get(shard)?.load(Ordering::Acquire);
        (fd >= 0).then_some(fd)
    }

    /// Makes an address one of this process, which `take` has to find free; once, while the other shards wait for what
    /// comes of it.
    pub(super) fn claim(&self, addr: SocketAddr, take: impl FnOnce() -> Result<()>) -> Result<()> {
        // A shard that panicked meanwhile takes the process with it.
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = claimed.iter().find(|(one, _)| *one == addr) {
            return *known;
        }
        let taken = take();
        claimed.push((addr, taken));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, ListenOptions, PeerName, Ring, Setup};

    fn ring() -> Driver {
        let setup = Setup { sq_entries: 8, cq_entries: 16, ..Setup::default() };
        let ring = Ring::start(&setup, 0, Siblings::new(1)).expect("a kernel with io_uring");
        Driver::Uring(Box::new(ring))
    }

    #[test]
    fn a_second_process_does_not_join_those_who_share_an_address_on_the_ring() {
        let shared = ListenOptions { shared: true, ..ListenOptions::default() };
        let (mut first, mut second) = (ring(), ring());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let fd = first.listen(any, &shared).expect("a free port");
        let PeerName::Tcp(addr) = first.names(fd).0 else { panic!("no address") };
        let sibling = first.listen(addr, &shared).expect("of the same process");
        let refused = second.listen(addr, &shared).expect_err("taken");
        assert_eq!(refused.errno().map(|errno| errno.0), Some(libc::EADDRINUSE));
        first.close_now(fd);
        first.close_now(sibling);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread that is no shard's")]
    fn who_listens_waits_until_the_address_is_free_on_the_ring() {
        let (mut first, mut second) = (ring(), ring());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let fd = first.listen(any, &ListenOptions::default()).expect("a free port");
        let PeerName::Tcp(addr) = first.names(fd).0 else { panic!("no address") };
        let taken = std::thread::scope(|scope| {
            // The other's socket is closed while this one waits.
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(100));
                super::super::uring::close(fd);
            });
            second.listen(addr, &ListenOptions::default())
        });
        second.close_now(taken.expect("free after a while"));
    }

    #[test]
    fn an_address_is_asked_for_once_whatever_comes_of_it() {
        use rustix::io::Errno;
        let siblings = Siblings::new(2);
        let [free, taken] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(siblings.claim(free, || Ok(())), Ok(()));
        assert_eq!(siblings.claim(free, || panic!("asked again")), Ok(()));
        assert_eq!(siblings.claim(taken, || Err(Errno::ADDRINUSE)), Err(Errno::ADDRINUSE));
        assert_eq!(siblings.claim(taken, || panic!("asked again")), Err(Errno::ADDRINUSE));
    }
}
