//! Network devices with their queues and interrupts, and disks.
//!
//! Devices that only stand for others (bonds, bridges, tunnels, loop, device mapper) are left out: what counts is set on those
//! below. Next: `knobs::net`, `knobs::block`.

use crate::cpus::CpuSet;
use crate::tree::{NETLINK, Tree};

/// A network device.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its driver; none for one end of a pair, as containers have it.
    pub driver: Option<String>,
    /// Receive queues.
    pub rx: usize,
    /// Transmit queues.
    pub tx: usize,
    /// Processors of its NUMA node that this process may use; all of those where it has none.
    pub local: CpuSet,
    /// Interrupts of its queues, in their order.
    pub irqs: Vec<Irq>,
    /// NAPI instances with settings of their own, by their numbers: none before Linux 6.13, or while the device is down.
    pub napis: Vec<u32>,
}

/// An interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irq {
    /// Its number.
    pub number: u32,
    /// What the driver calls it.
    pub name: String,
}

impl Irq {
    /// The number of its queue, if the driver says it: in `eth0-Tx-Rx-3`, `virtio1-input.3`, `mlx5_comp3@pci:0000:41:00.0`.
    #[must_use]
    pub fn queue(&self) -> Option<usize> {
        let name = self.name.split('@').next().unwrap_or_default();
        let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        name.get(digits..)?.parse().ok()
    }
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// What it is.
    pub medium: Medium,
}

/// What a disk is, as far as it matters for its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// NVMe.
    Nvme,
    /// Flash behind another protocol, or a virtual disk.
    Solid,
    /// With a head that moves.
    Rotating,
}

impl Nic {
    /// Those of the namespace.
    #[must_use]
    pub fn all(tree: &Tree, nodes: &[CpuSet], allowed: &CpuSet) -> Vec<Self> {
        let names = tree.list("/sys/class/net").into_iter();
        names.filter_map(|name| Self::find(tree, name, nodes, allowed)).collect()
    }

    fn find(tree: &Tree, name: String, nodes: &[CpuSet], allowed: &CpuSet) -> Option<Self> {
        let dir = format!("/sys/class/net/{name}");
        let is_physical = tree.exists(&format!("{dir}/device"));
        if !is_physical && !is_pair(tree, &name, &dir) {
            return None;
        }
        let uevent = tree.text(&format!("{dir}/device/uevent")).unwrap_or_default();
        let driver =
            uevent.lines().find_map(|line| line.strip_prefix("DRIVER=")).map(str::to_owned);
        let queues = tree.list(&format!("{dir}/queues"));
        let count = |kind: &str| queues.iter().filter(|queue| queue.starts_with(kind)).count();
        let node = tree.text(&format!("{dir}/device/numa_node"));
        let node = node.and_then(|node| node.trim().parse::<usize>().ok());
        let local = node.and_then(|node| nodes.get(node)).map(|node| node.and(allowed));
        let local = local.filter(|set| !set.is_empty()).unwrap_or_else(|| allowed.clone());
        Some(Self {
            rx: count("rx-"),
            tx: count("tx-"),
            irqs: if is_physical { irqs(tree, &name, &dir) } else { Vec::new() },
            napis: napis(tree, &name),
            driver: driver.or_else(|| is_physical.then(|| "unknown".to_owned())),
            local,
            name,
        })
    }

    /// For the head of reports.
    pub(crate) fn summary(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("one end of a pair");
        format!("{} ({driver}, {} rx, {} tx)", self.name, self.rx, self.tx)
    }
}

/// One end of a pair, as a container has it: by its kind, and where that cannot be asked for, no device of the bus, linked to another,
/// of no special type. Ends in two namespaces may have the same number, and then seem to be linked to themselves.
fn is_pair(tree: &Tree, name: &str, dir: &str) -> bool {
    if let Some(kind) = tree.text(&format!("{NETLINK}link/{name}/kind")) {
        return ["veth", "netkit"].contains(&kind.as_str());
    }
    let number = |name: &str| tree.number(&format!("{dir}/{name}"));
    let uevent = tree.text(&format!("{dir}/uevent")).unwrap_or_default();
    let has_type = uevent.lines().any(|line| line.starts_with("DEVTYPE="));
    number("iflink").is_some() && number("iflink") != number("ifindex") && !has_type
}

/// NAPI instances that can be set one by one.
fn napis(tree: &Tree, nic: &str) -> Vec<u32> {
    let dir = format!("{NETLINK}netdev/{nic}/napi");
    let ids = tree.list(&dir).into_iter().filter_map(|id| id.parse().ok());
    ids.filter(|id| tree.number(&format!("{dir}/{id}/defer-hard-irqs")).is_some()).collect()
}

/// The virtio device that a network device is: its interrupts belong to the bus around it, and have its name.
fn virtio(tree: &Tree, nic: &str) -> Option<String> {
    let dir = "/sys/bus/virtio/drivers/virtio_net";
    let mut devices = tree.list(dir).into_iter().filter(|name| name.starts_with("virtio"));
    devices.find(|device| tree.is_dir(&format!("{dir}/{device}/net/{nic}")))
}

/// Interrupts that carry packets: neither for management nor for events.
fn irqs(tree: &Tree, nic: &str, dir: &str) -> Vec<Irq> {
    const OTHERS: &[&str] =
        &["mgmnt", "mgmt", "async", "config", "control", "event", "pages", "cmd", "misc"];
    let msi = format!("{dir}/device/msi_irqs");
    let mut numbers = tree.list(&msi);
    numbers.retain(|number| tree.exists(&format!("{msi}/{number}")));
    let virtio = virtio(tree, nic);
    if numbers.is_empty() && virtio.is_some() {
        numbers = tree.list("/proc/irq");
    }
    let irq = |number: String| {
        let number: u32 = number.parse().ok()?;
        let entries = tree.list(&format!("/proc/irq/{number}")).into_iter();
        let name = entries
            .into_iter()
            .find(|entry| tree.is_dir(&format!("/proc/irq/{number}/{entry}")))?;
        let is_own = virtio.as_ref().is_none_or(|virtio| name.starts_with(&format!("{virtio}-")));
        let is_other = OTHERS.iter().any(|other| name.contains(other));
        (is_own && !is_other).then_some(Irq { number, name })
    };
    numbers.into_iter().filter_map(irq).collect()
}

impl Disk {
    /// All of them.
    #[must_use]
    pub fn all(tree: &Tree, is_vm: bool) -> Vec<Self> {
        let disk = |name: String| {
            let dir = format!("/sys/block/{name}");
            // Stacked and memory disks have no device.
            if !tree.exists(&format!("{dir}/device")) && !name.starts_with("nvme") {
                return None;
            }
            if ["sr", "fd", "st"].iter().any(|kind| name.starts_with(kind)) {
                return None;
            }
            // What a virtual disk says of itself is a default of whoever made it up.
            let is_virtual = is_vm || ["vd", "xvd"].iter().any(|kind| name.starts_with(kind));
            let says_so = tree.number(&format!("{dir}/queue/rotational")) == Some(1);
            let is_rotating = says_so && !is_virtual;
            let medium = match () {
                () if name.starts_with("nvme") => Medium::Nvme,
                () if is_rotating => Medium::Rotating,
                () => Medium::Solid,
            };
            Some(Self { name, medium })
        };
        tree.list("/sys/block").into_iter().filter_map(disk).collect()
    }

    /// For the head of reports.
    pub(crate) fn summary(&self) -> String {
        let medium = match self.medium {
            Medium::Nvme => "nvme",
            Medium::Solid => "solid",
            Medium::Rotating => "rotating",
        };
        format!("{} ({medium})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Dir;

    #[test]
    fn only_devices_that_carry_packets_themselves() {
        let dir = Dir::new("nics");
        for (path, text) in [
            ("lo/ifindex", "1"),
            ("lo/iflink", "1"),
            ("eth0/device/uevent", "DRIVER=ena\n"),
            ("eth0/device/numa_node", "1"),
            ("eth0/queues/rx-0/rps_cpus", "0"),
            ("eth0/queues/tx-0/xps_cpus", "0"),
            ("eth0/queues/tx-1/xps_cpus", "0"),
            ("eth0/device/msi_irqs/30", "msix"),
            ("eth0/device/msi_irqs/31", "msix"),
            ("veth0/ifindex", "5"),
            ("veth0/iflink", "6"),
            ("vlan5/ifindex", "7"),
            ("vlan5/iflink", "2"),
            ("vlan5/uevent", "DEVTYPE=vlan\n"),
            // The other end has the same number in its namespace.
            ("same0/ifindex", "2"),
            ("same0/iflink", "2"),
            ("tunnel0/ifindex", "8"),
            ("tunnel0/iflink", "2"),
        ] {
            dir.file(&format!("/sys/class/net/{path}"), text);
        }
        dir.file("/netlink/link/same0/kind", "veth");
        dir.file("/netlink/link/tunnel0/kind", "ipip");
        dir.file("/proc/irq/30/ena-mgmnt@pci/x", "");
        dir.file("/proc/irq/31/eth0-Tx-Rx-0/x", "");
        dir.file("/proc/irq/31/smp_affinity_list", "0-7");
        let tree = Tree::at(dir.path());
        let nodes = ["0-3", "4-7"].map(|list| CpuSet::from_list(list).expect("a list"));
        let nics = Nic::all(&tree, &nodes, &CpuSet::from_list("2-5").expect("a list"));
        assert_eq!(
            nics.iter().map(Nic::summary).collect::<Vec<_>>(),
            [
                "eth0 (ena, 1 rx, 2 tx)",
                "same0 (one end of a pair, 0 rx, 0 tx)",
                "veth0 (one end of a pair, 0 rx, 0 tx)"
            ]
        );
        assert_eq!(nics[0].local.to_string(), "4-5");
        assert_eq!(nics[0].irqs, [Irq { number: 31, name: "eth0-Tx-Rx-0".to_owned() }]);
    }

    #[test]
    fn queues_by_the_names_of_interrupts() {
        for (name, queue) in [
            ("eth0-Tx-Rx-12", Some(12)),
            ("virtio2-output.1", Some(1)),
            ("mlx5_comp7@pci:0000:41:00.0", Some(7)),
            ("enp3s0", Some(0)),
            ("ens", None),
        ] {
            assert_eq!(Irq { number: 1, name: name.to_owned() }.queue(), queue, "{name}");
        }
    }

    #[test]
    fn interrupts_of_a_virtio_device_by_its_name() {
        let dir = Dir::new("virtio");
        dir.file("/sys/class/net/eth0/device/uevent", "DRIVER=virtio_net\n");
        dir.file("/sys/bus/virtio/drivers/virtio_net/virtio2/net/eth0/x", "");
        dir.file("/sys/bus/virtio/drivers/virtio_net/virtio5/net/eth1/x", "");
        for (number, name) in
            [(30, "virtio2-config"), (31, "virtio2-input.0"), (32, "virtio5-input.0")]
        {
            dir.file(&format!("/proc/irq/{number}/{name}/x"), "");
        }
        let nics = Nic::all(&Tree::at(dir.path()), &[], &CpuSet::from_iter([0]));
        assert_eq!(nics[0].irqs, [Irq { number: 31, name: "virtio2-input.0".to_owned() }]);
    }

    #[test]
    fn disks_by_their_medium() {
        let dir = Dir::new("disks");
        for (path, text) in [
            ("sda/device/model", "x"),
            ("sda/queue/rotational", "1"),
            ("vda/device/vendor", "x"),
            ("vda/queue/rotational", "1"),
            ("nvme0n1/queue/rotational", "0"),
            ("loop0/queue/rotational", "0"),
            ("dm-0/queue/rotational", "0"),
            ("sr0/device/model", "x"),
        ] {
            dir.file(&format!("/sys/block/{path}"), text);
        }
        let names = |is_vm: bool| {
            let disks = Disk::all(&Tree::at(dir.path()), is_vm);
            disks.iter().map(Disk::summary).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["nvme0n1 (nvme)", "sda (rotating)", "vda (solid)"]);
        assert_eq!(names(true), ["nvme0n1 (nvme)", "sda (solid)", "vda (solid)"]);
    }
}
