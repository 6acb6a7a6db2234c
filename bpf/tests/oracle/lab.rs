//! Two hosts on this machine: network namespaces with a link between them, and threads inside.
//!
//! Invariants: names carry this process's number, so that runs do not meet; all goes when it is dropped, also in a panic.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The host that faults are injected into, and sends.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
/// The other one.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 2);
/// A second address of the other one: another peer, for the faults that tell them apart.
pub(crate) const SERVER_TOO: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 3);
/// An address of nobody.
pub(crate) const SILENT: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 99);
/// The client's device.
pub(crate) const DEVICE: &str = "veth0";

/// Two hosts.
pub(crate) struct Lab {
    /// Name of the client's network namespace.
    pub(crate) client: String,
    /// Of the server's.
    pub(crate) server: String,
    /// Directory of a control group for processes that faults are injected into.
    pub(crate) cgroup: PathBuf,
}

/// Runs a command that has to succeed; what it printed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Lab {
    /// Makes both.
    pub(crate) fn new(number: u32) -> Self {
        let name = |role: &str| format!("chaos-{}-{number}-{role}", std::process::id());
        let cgroup = bpf::cgroup::root().expect("control groups").join(name("g"));
        std::fs::create_dir(&cgroup).expect("root");
        let lab = Self { client: name("c"), server: name("s"), cgroup };
        let (client, server) = (&lab.client, &lab.server);
        for host in [client, server] {
            run(&format!("ip netns add {host}"));
            // An address that is still being checked would look like a change later.
            run(&format!("ip netns exec {host} sysctl -qw net.ipv6.conf.default.accept_dad=0"));
            run(&format!("ip -n {host} link set lo up"));
        }
        run(&format!(
            "ip -n {client} link add {DEVICE} type veth peer name {DEVICE} netns {server}"
        ));
        run(&format!("ip -n {client} addr add {CLIENT}/24 dev {DEVICE}"));
        run(&format!("ip -n {server} addr add {SERVER}/24 dev {DEVICE}"));
        run(&format!("ip -n {server} addr add {SERVER_TOO}/24 dev {DEVICE}"));
        for host in [client, server] {
            run(&format!("ip -n {host} link set {DEVICE} up"));
        }
        lab.wait_up();
        // The default here is BBR, which does as it likes with a rate.
        for host in [client, server] {
            run(&format!("ip netns exec {host} sysctl -qw net.ipv4.tcp_congestion_control=reno"));
        }
        lab
    }

    /// A link that is still coming up would look like a change later.
    fn wait_up(&self) {
        for _ in 0..200 {
            let shown = [&self.client, &self.server]
                .map(|host| run(&format!("ip -br -n {host} addr show {DEVICE}")));
            if shown.iter().all(|shown| shown.contains(" UP ") && shown.contains("fe80:")) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{DEVICE} of {} does not come up", self.client);
    }

    /// Gives the client's device a queueing discipline, as somebody who set the host up might.
    pub(crate) fn queue(&self, qdisc: &str) {
        run(&format!("tc -n {} qdisc add dev {DEVICE} root {qdisc}", self.client));
    }

    /// Runs `work` on the client's host.
    pub(crate) fn on_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on(&self.client, work)
    }

    /// Runs `work` on the server's host.
    pub(crate) fn on_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on(&self.server, work)
    }

    /// What is there that a fault of packets might have left: devices, queueing disciplines and addresses of both hosts.
    pub(crate) fn furniture(&self) -> Vec<String> {
        let mut all = Vec::new();
        for host in [&self.client, &self.server] {
            // Whether a device is up is told late, and not looked at.
            let devices = run(&format!("ip -br -n {host} link show"));
            all.extend(
                devices.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned),
            );
            all.push(run(&format!("tc -n {host} qdisc show")));
            all.push(run(&format!("ip -n {host} -4 -o addr show")));
        }
        all
    }
}

/// Moves this thread, and what it starts from then on, to a host.
pub(crate) fn enter(host: &str) {
    let file = File::open(format!("/run/netns/{host}")).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
}

/// Runs `work` on a thread that is in a network namespace: sockets stay in the one that they were made in.
fn on<T: Send>(host: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(host);
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in [&self.client, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", host]).status();
        }
        // Its processes have ended, and may not be gone yet.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
