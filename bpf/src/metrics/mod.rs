//! Packet metrics: probes in the network stack and in io_uring, and what they have counted.
//!
//! A [`Probe`] loads the programs of the groups that are asked for, and holds them: they go with it, and with its process,
//! however that ends. A [`Snapshot`] is what they counted from their start on. Invariants: each map and each list is
//! bounded; nothing is slowed down by a reader. Next: `flow`, `listen`, `drop`, `queue`, `uring` for the figures, `prometheus` for
//! their names, `progs/probe.h` for the other side.

pub mod abi;
pub mod cost;
pub mod drop;
pub mod flow;
pub mod histogram;
pub mod listen;
mod maps;
pub mod names;
pub mod pcap;
pub mod prometheus;
pub mod queue;
pub mod uring;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use libbpf_rs::{Link, Object, ProgramMut};
use serde::Serialize;
use zerocopy::IntoBytes as _;

use crate::error::{During as _, Error, Result};
use crate::{programs, time};
use names::Names;

/// What can be measured, each by programs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Connections.
    Tcp,
    /// Packets that were dropped, and why.
    Drops,
    /// Waiting for devices and for soft interrupts.
    Queues,
    /// Operations of io_uring.
    Uring,
    /// Queues of sockets that listen. It has no program at work: the sockets are looked at when a figure is wanted.
    Listen,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Drops, Self::Queues, Self::Uring, Self::Listen];

    /// What is measured when nothing else is asked for: a packet meets one program of these. Each meets five of
    /// [`Group::Queues`], whose calls alone cost more than what they do (BENCHMARKS.md, row p1).
    pub const DEFAULT: [Self; 4] = [Self::Tcp, Self::Drops, Self::Uring, Self::Listen];

    /// As users write it, and the object of its programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Drops => "drops",
            Self::Queues => "queues",
            Self::Uring => "uring",
            Self::Listen => "listen",
        }
    }

    /// Its programs, which have the names of their tracepoints.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &[
                "inet_sock_set_state",
                "tcp_probe",
                "tcp_retransmit_skb",
                "tcp_retransmit_synack",
                "tcp_receive_reset",
                "tcp_send_reset",
            ],
            Self::Drops => &["kfree_skb", "udp_fail_queue_rcv_skb", "sock_rcvqueue_full"],
            Self::Queues => &[
                "net_dev_start_xmit",
                "net_dev_queue",
                "softirq_entry",
                "softirq_raise",
                "napi_poll",
            ],
            // Ends before begins, so that no begin is left that had an end.
            Self::Uring => &[
                "io_uring_complete",
                "io_uring_submit_req",
                "io_uring_cqe_overflow",
                "io_uring_queue_async_work",
                "io_uring_fail_link",
            ],
            Self::Listen => &[],
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Group {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|group| group.name() == text).ok_or_else(|| {
            Error::usage(format!("metrics {text:?}: tcp, drops, queues, uring or listen is wanted"))
        })
    }
}

/// An object whose programs run. The links go first.
struct Running {
    links: Vec<Link>,
    object: Object,
}

/// Programs at work.
pub struct Probe {
    running: BTreeMap<Group, Running>,
    missing: Vec<&'static str>,
    sample_every: u32,
    started_ns: u64,
    names: Names,
}

/// What was counted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// How long the probes have run.
    pub seconds: f64,
    /// One event of so many was looked at, where that is said.
    pub sample_every: u32,
    /// Times that a program did not run, since it ran on that processor already.
    pub missed: u64,
    /// Connections, if they are measured.
    pub tcp: Option<flow::Tcp>,
    /// Drops.
    pub drops: Option<drop::Drops>,
    /// Queues.
    pub queues: Option<queue::Queues>,
    /// Operations.
    pub uring: Option<uring::Uring>,
    /// Sockets that listen.
    pub listen: Option<listen::Listen>,
}

impl Probe {
    /// Loads and starts what measures these groups.
    ///
    /// # Errors
    /// The kernel has none of the tracepoints of a group, or refuses programs.
    pub fn start(groups: &[Group], sample_every: u32) -> Result<Self> {
        let names = Names::read()?;
        let mut probe = Self {
            running: BTreeMap::new(),
            missing: Vec::new(),
            sample_every: sample_every.max(1),
            started_ns: 0,
            names,
        };
        for group in groups.iter().copied().collect::<BTreeSet<Group>>() {
            let running =
                if group == Group::Listen { listen::start()? } else { probe.start_group(group)? };
            probe.running.insert(group, running);
        }
        probe.started_ns = time::monotonic_ns();
        Ok(probe)
    }

    fn start_group(&mut self, group: Group) -> Result<Running> {
        let (wanted, missing): (Vec<_>, Vec<_>) = group
            .programs()
            .iter()
            .copied()
            .partition(|program| self.names.has_tracepoint(program));
        if wanted.is_empty() {
            return Err(Error::unsupported(format!(
                "measure {group}: this kernel has none of its tracepoints; leave it out with --only"
            )));
        }
        self.missing.extend(missing);
        let name = group.name();
        let mut object = programs::open(name)?;
        for mut program in object.progs_mut() {
            let is_wanted = wanted.iter().any(|wanted| program.name() == *wanted);
            program.set_autoload(is_wanted);
        }
        let config = abi::Config { sample_every: self.sample_every, unused: 0 };
        let mut map = object
            .maps_mut()
            .find(|map| map.name().to_string_lossy().ends_with(".rodata.config"))
            .ok_or_else(|| Error::failed(format!("tell {name} its sampling: it has no config")))?;
        map.set_initial_value(config.as_bytes()).during(|| format!("tell {name} its sampling"))?;
        let object = programs::load_opened(name, object)?;
        let links = wanted
            .iter()
            .map(|wanted| {
                programs::program(&object, wanted)?
                    .attach()
                    .during(|| format!("attach to tracepoint {wanted}"))
            })
            .collect::<Result<_>>()?;
        Ok(Running { links, object })
    }

    /// Tracepoints that this kernel lacks: what they would have counted stays 0.
    #[must_use]
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// How many programs are attached.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.running.values().map(|running| running.links.len()).sum()
    }

    /// The loaded programs.
    fn programs(&self) -> impl Iterator<Item = ProgramMut<'_>> {
        self.running
            .values()
            .flat_map(|running| running.object.progs_mut())
            .filter(|program| program.autoload())
    }

    fn object(&self, group: Group) -> Option<&Object> {
        self.running.get(&group).map(|running| &running.object)
    }

    /// What they have counted.
    ///
    /// # Errors
    /// The kernel does not let their maps be read.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let lived_ns = time::monotonic_ns().saturating_sub(self.started_ns);
        let tcp = self.object(Group::Tcp).map(|object| flow::read(object, &self.names));
        let drops = self.object(Group::Drops).map(|object| drop::read(object, &self.names));
        let queues = self.object(Group::Queues).map(queue::read);
        let uring = self.object(Group::Uring).map(|object| uring::read(object, &self.names));
        let listen = self.running.get(&Group::Listen).map(|running| listen::read(&running.links));
        let mut snapshot = Snapshot {
            #[expect(clippy::cast_precision_loss, reason = "to be read by people")]
            seconds: lived_ns as f64 / time::SECOND_NS as f64,
            sample_every: self.sample_every,
            missed: self
                .programs()
                .filter_map(|program| cost::info(&program))
                .map(|info| info.recursion_misses)
                .sum(),
            tcp: tcp.transpose()?,
            drops: drops.transpose()?,
            queues: queues.transpose()?,
            uring: uring.transpose()?,
            listen: listen.transpose()?,
        };
        if let Some(drops) = &mut snapshot.drops {
            self.names.resolve_sites(&mut drops.sites);
        }
        if let Some(tcp) = &mut snapshot.tcp {
            self.names.resolve_cgroups(&mut tcp.cgroups);
        }
        Ok(snapshot)
    }
}
