//! Whether the daemon that moves interrupts runs, and which ones it leaves alone.
//!
//! What counts is the command line of the process that runs, not a configuration that it may never have read: a ban in the
//! wrong file is the usual reason why pinned interrupts do not stay. Next: `knobs::irq`.

use crate::tree::Tree;

/// Files that name its options on the usual distributions.
const CONFIGS: &[&str] =
    &["/etc/default/irqbalance", "/etc/sysconfig/irqbalance", "/etc/irqbalance.env"];

/// The daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irqbalance {
    /// Its process.
    pub pid: u32,
    /// Interrupts that it was told to leave alone.
    pub banned: Vec<u32>,
    /// Bans that a configuration names and the process does not have, with the file.
    pub not_in_force: Vec<(u32, &'static str)>,
}

impl Irqbalance {
    /// Looks for it among the processes.
    #[must_use]
    pub fn find(tree: &Tree) -> Option<Self> {
        let is_it = |pid: &u32| {
            tree.text(&format!("/proc/{pid}/comm")).is_some_and(|name| name == "irqbalance")
        };
        let mut pids = tree.list("/proc").into_iter().filter_map(|name| name.parse().ok());
        let pid = pids.find(is_it)?;
        let command = tree.text(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let banned = bans(command.split('\0'));
        let mut not_in_force = Vec::new();
        for file in CONFIGS {
            for line in tree.text(file).unwrap_or_default().lines() {
                let Some((_, value)) = line.split_once('=') else { continue };
                if line.trim_start().starts_with('#') {
                    continue;
                }
                let wanted = bans(value.trim_matches(['"', '\'']).split_whitespace());
                let missing = wanted.into_iter().filter(|irq| !banned.contains(irq));
                not_in_force.extend(missing.map(|irq| (irq, *file)));
            }
        }
        Some(Self { pid, banned, not_in_force })
    }

    /// Whether it would move this interrupt.
    #[must_use]
    pub fn moves(&self, irq: u32) -> bool {
        !self.banned.contains(&irq)
    }
}

/// The numbers after `-i`, `--banirq`, in one word or two.
fn bans<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let mut bans = Vec::new();
    let mut is_next = false;
    for word in words {
        let value = if is_next {
            Some(word)
        } else {
            word.strip_prefix("--banirq=").or_else(|| word.strip_prefix("-i"))
        };
        is_next = word == "-i" || word == "--banirq";
        bans.extend(value.and_then(|value| value.parse::<u32>().ok()));
    }
    bans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Dir;

    #[test]
    fn a_ban_that_the_process_does_not_have_is_found() {
        let dir = Dir::new("irqbalance");
        dir.file("/proc/7/comm", "irqbalance\n");
        dir.file(
            "/proc/7/cmdline",
            "/usr/sbin/irqbalance\0--foreground\0--banirq=40\0-i\x0041\0-i42\0",
        );
        dir.file("/proc/sys/a", "");
        dir.file(
            "/etc/default/irqbalance",
            "#OPTIONS=\"-i 9\"\nIRQBALANCE_ARGS=\"--banirq=40 --banirq=50\"\n",
        );
        let found = Irqbalance::find(&Tree::at(dir.path())).expect("it runs");
        assert_eq!((found.pid, &found.banned[..]), (7, &[40, 41, 42][..]));
        assert_eq!(found.not_in_force, [(50, "/etc/default/irqbalance")]);
        assert!(found.moves(50) && !found.moves(41));
    }

    #[test]
    fn without_the_process_a_configuration_means_nothing() {
        let dir = Dir::new("irqbalance");
        dir.file("/proc/7/comm", "sshd\n");
        dir.file("/etc/default/irqbalance", "OPTIONS=\"-i 9\"\n");
        assert_eq!(Irqbalance::find(&Tree::at(dir.path())), None);
    }
}
