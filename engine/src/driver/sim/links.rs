//! Links between the machines of a world: connections both ends of which are its own.
//!
//! Next: `net` for connections, `kernel` for which shards a machine has.

use std::collections::BTreeMap;

use super::flight::Target;
use super::kernel::{Kernel, machine_of};
use super::net::SockId;

impl Kernel {
    /// The machines of sockets that have a descriptor.
    fn homes(&self) -> BTreeMap<SockId, usize> {
        let home = |target, shard| match target {
            Target::Sock(id) => Some((id, machine_of(shard))),
            Target::File(_) => None,
        };
        self.fds.values().filter_map(|of| home(of.target, of.shard)).collect()
    }

    /// One end of each connection between machines, and the other one.
    fn links(&self) -> Vec<(SockId, SockId)> {
        let homes = self.homes();
        let other = |(id, home): (&SockId, &usize)| {
            let peer = self.socks.get(id)?.peer?;
            // One that was not accepted yet has no descriptor; it is no client's either.
            let is_apart = homes.get(&peer).is_some_and(|other| other > home);
            is_apart.then_some((*id, peer))
        };
        homes.iter().filter_map(other).collect()
    }

    /// Breaks all connections between machines; how many.
    pub(super) fn cut_links(&mut self) -> usize {
        let links = self.links();
        self.trace(u64::from_le_bytes(*b"cut     ") ^ links.len() as u64);
        for (one, other) in &links {
            let first = if self.rng.net.chance(1, 2) { one } else { other };
            // The other end hears of it, and may read what had come before.
            self.break_connection(*first);
        }
        links.len()
    }

    /// Nothing gets from a machine to another one for so long.
    pub(super) fn part_machines(&mut self, for_ns: u64) {
        self.trace(u64::from_le_bytes(*b"part    ") ^ for_ns);
        let until_ns = self.now_ns + for_ns;
        self.parted_until_ns = self.parted_until_ns.max(until_ns);
        for (one, other) in self.links() {
            for id in [one, other] {
                if let Some(sock) = self.socks.get_mut(&id) {
                    // What is sent from now on comes then; what travels already has left.
                    sock.last_arrival_ns = sock.last_arrival_ns.max(until_ns);
                }
            }
        }
    }

    /// Whether a connection request cannot get from a socket to a listener of another machine.
    pub(super) fn is_parted(&self, from: SockId, listener: SockId) -> bool {
        if self.now_ns >= self.parted_until_ns {
            return false;
        }
        let homes = self.homes();
        matches!((homes.get(&from), homes.get(&listener)), (Some(one), Some(other)) if one != other)
    }
}
