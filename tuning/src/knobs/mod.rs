//! The table of knobs, in the order in which they are checked and written.
//!
//! A new knob is one row here: it is then checked, applied, explained, exported and documented. Guides contradict each other on
//! some of them (huge pages, swapping); such rows say so, and want what none of them forbids. Next: each module.

mod block;
mod boot;
mod cpu;
mod irq;
mod limits;
mod memory;
mod napi;
mod net;
mod nic;
mod security;

use crate::knob::Knob;
use crate::knob::Profile::{self, Bench, Container, Io, Latency, Throughput};

/// All of them.
const EVERY: &[Profile] = &[Latency, Throughput, Io, Bench, Container];
/// Those for whom the network counts, on a host of their own or not.
const NETWORK: &[Profile] = &[Latency, Throughput, Bench, Container];
/// Those that tune a whole host for services.
const HOSTS: &[Profile] = &[Latency, Throughput, Io, Bench];

/// Groups of rows, with the names that the documentation has for them.
pub const GROUPS: &[(&str, &[Knob])] = &[
    ("Network stack", net::KNOBS),
    ("Network devices", nic::KNOBS),
    ("NAPI instances", napi::KNOBS),
    ("Interrupts", irq::KNOBS),
    ("Disks", block::KNOBS),
    ("Memory", memory::KNOBS),
    ("Processors", cpu::KNOBS),
    ("Limits", limits::KNOBS),
    ("Kernel command line", boot::KNOBS),
    ("Security: explained, never applied", security::KNOBS),
];

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Knob> {
    GROUPS.iter().flat_map(|(_, knobs)| knobs.iter())
}

/// The row of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Knob> {
    all().find(|knob| knob.name == name)
}

/// Rows that are named much like this.
#[must_use]
pub fn like(name: &str) -> Vec<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_like = |knob: &&Knob| !last.is_empty() && knob.name.contains(last);
    all().filter(is_like).map(|knob| knob.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knob::{How, Scope};

    #[test]
    fn every_row_says_what_why_and_after_whom() {
        let mut names = Vec::new();
        for knob in all() {
            assert!(!names.contains(&knob.name), "{} twice", knob.name);
            names.push(knob.name);
            for (text, least) in [(knob.what, 15), (knob.why, 25), (knob.source, 5), (knob.risk, 4)]
            {
                assert!(text.len() >= least, "{}: {text:?}", knob.name);
            }
        }
        assert!(names.len() >= 60, "only {}", names.len());
    }

    #[test]
    fn profiles_change_nothing_at_boot_and_lower_no_security() {
        for knob in all() {
            assert_eq!(knob.scope == Scope::Boot, knob.how == How::Boot, "{}", knob.name);
            if knob.how == How::Write {
                assert!(!knob.wants.is_empty(), "{} is written, and nobody wants it", knob.name);
                let inside = knob.desire(Container).is_some();
                assert!(!inside || knob.scope == Scope::Netns, "{}: neighbours", knob.name);
            }
            let in_one_only = |profile: &Profile| {
                knob.wants.iter().filter(|(profiles, _)| profiles.contains(profile)).count() <= 1
            };
            assert!(Profile::ALL.iter().all(in_one_only), "{}: a profile twice", knob.name);
        }
        assert!(security::KNOBS.iter().all(|knob| knob.how == How::Security));
    }

    #[test]
    fn names_are_found() {
        assert!(find("net.core.somaxconn").is_some());
        assert!(find("somaxconn").is_none());
        assert_eq!(like("somaxconn"), ["net.core.somaxconn"]);
    }
}
