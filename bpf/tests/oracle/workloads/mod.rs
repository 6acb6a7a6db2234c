//! What is run between the two hosts, and what is measured of it. Each measures the same without a fault, when it must be clean.

pub(crate) mod bulk;
mod bulk_line;
mod calls;
mod dns;
mod held;
mod opening;
mod tcp;
mod udp;
pub(crate) mod worker;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::lab::{Lab, SERVER, SERVER_TOO};

/// What was measured.
pub(crate) type Figures = BTreeMap<&'static str, f64>;
/// What the scenario's file tells the workload.
pub(crate) type With = BTreeMap<String, Value>;

/// Whom the client talks to: the one that scenarios match, or another, which must not notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

impl Peer {
    pub(crate) const MATCHED: Self = Self { address: SERVER, port: 9000 };

    /// Another port; with `others = "address"`, another address.
    pub(crate) fn other(with: &With) -> Self {
        match text(with, "others", "port") {
            "address" => Self { address: SERVER_TOO, ..Self::MATCHED },
            _ => Self { port: 9100, ..Self::MATCHED },
        }
    }

    /// Where a fault proxy is, for the faults that lead to one.
    pub(crate) const PROXY: Self = Self { port: 9001, ..Self::MATCHED };
    /// Used beside the first by the same process: faults that name a port leave it alone.
    pub(crate) const NEIGHBOUR: Self = Self { port: 9050, ..Self::MATCHED };
}

/// Something that two hosts do.
pub(crate) trait Workload {
    /// Runs it once.
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures;

    /// Runs it, and does something while its connections are there.
    fn around(&self, lab: &Lab, peer: Peer, with: &With, meanwhile: &mut dyn FnMut()) -> Figures {
        meanwhile();
        self.run(lab, peer, with)
    }

    /// Panics unless nothing was wrong.
    fn assert_clean(&self, figures: &Figures, when: &str);

    /// Longer than it takes, with whatever fault.
    fn ttl(&self) -> &'static str {
        "4s"
    }
}

/// The workload of that name.
pub(crate) fn find(name: &str) -> &'static dyn Workload {
    match name {
        "udp" => &udp::Udp,
        "tcp" => &tcp::Tcp,
        "dns" => &dns::Dns,
        "bulk_line" => &bulk_line::BulkLine,
        "calls" => &calls::Calls,
        "bulk" => &bulk::Bulk,
        "held" => &held::Held,
        "opening" => &opening::Opening,
        _ => panic!("no workload {name}"),
    }
}

/// A whole number that the scenario tells, or a default.
pub(crate) fn number(with: &With, name: &str, default: u64) -> u64 {
    with.get(name)
        .map_or(default, |value| value.as_u64().unwrap_or_else(|| panic!("{name} of {value}")))
}

/// A text that the scenario tells, or a default.
pub(crate) fn text<'a>(with: &'a With, name: &str, default: &'a str) -> &'a str {
    with.get(name)
        .map_or(default, |value| value.as_str().unwrap_or_else(|| panic!("{name} of {value}")))
}

/// What share of `all` are `some`, in percent.
pub(crate) fn percent(some: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { some as f64 * 100.0 / all as f64 }
}

/// The value below which so many of a thousand lie.
pub(crate) fn quantile(sorted: &[f64], per_mille: usize) -> f64 {
    sorted
        .get((sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Panics unless these figures are these values.
pub(crate) fn assert_figures(figures: &Figures, when: &str, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        assert_eq!(figures.get(name), Some(value), "{name} {when}: {figures:?}");
    }
}

/// What a client of that name does.
pub(crate) fn role(name: &str) -> crate::client::Role {
    match name {
        "calls" => calls::role,
        "bulk" => bulk::role,
        "held" => held::role,
        "opening" => opening::role,
        _ => panic!("no role {name}"),
    }
}
