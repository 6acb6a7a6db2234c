//! What would make a host faster and less safe: explained and reported, never applied and in no profile. Next: `check`.

use super::EVERY;
use crate::gains::Gain;
use crate::host::Host;
use crate::knob::Desire::Is;
use crate::knob::{How, Knob, Place};
use crate::tree::Tree;

const UNSAFE: Knob = Knob {
    how: How::Security,
    gain: Gain::Not(
        "never applied, so not measured either; figures of others stand where there are any",
    ),
    ..Knob::BASE
};

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "security.mitigations",
        place: Place::Derived("/sys/devices/system/cpu/vulnerabilities", mitigations),
        what: "what the kernel does against processors that speculate (Spectre and others): mitigations= on its command line",
        why: "a system call costs more: off, one JSON server did 28 % more (spectre_v2 15 to 20 %, pti 6 %, mds 6 %)",
        source: "kernel admin-guide/hw-vuln; talawah.io, 'Extreme HTTP Performance Tuning'",
        risk: "off: any code that runs here may read what is not its own. Only on a machine that runs nothing of others",
        ..UNSAFE
    },
    Knob {
        name: "kernel.io_uring_disabled",
        wants: &[(EVERY, Is("0"))],
        what: "who may use io_uring: 0 everybody, 1 privileged processes and the group of io_uring_group, 2 nobody",
        why: "an engine on io_uring does not start without; with 1, run it as a member of the group",
        source: "kernel admin-guide/sysctl/kernel.rst (Linux 6.6)",
        risk: "a large interface of the kernel with a history of holes is open to every process",
        cost: "io_uring is forbidden: run the service as a member of kernel.io_uring_group, or privileged",
        ..UNSAFE
    },
    Knob {
        name: "kernel.io_uring_group",
        what: "the group that may use io_uring while kernel.io_uring_disabled is 1; -1 for none",
        why: "the way to give it to one service only",
        source: "kernel admin-guide/sysctl/kernel.rst (Linux 6.6)",
        risk: "members of the group have the whole interface",
        ..UNSAFE
    },
    Knob {
        name: "kernel.perf_event_paranoid",
        what: "who may count and sample with perf: 2 own processes only, 1 and the kernel, 0 whole processors, -1 all",
        why: "instructions and cycles in benchmarks",
        source: "kernel admin-guide/perf-security.rst",
        risk: "lower: processes see what others and the kernel do. CAP_PERFMON for one program is better",
        ..UNSAFE
    },
    Knob {
        name: "kernel.randomize_va_space",
        what: "whether addresses differ at each start",
        why: "off, figures are alike twice; but they may be alike and wrong: better start the server for each block anew",
        source: "kernel admin-guide/sysctl/kernel.rst; Mytkowicz and others, 'Producing Wrong Data' (2009)",
        risk: "off: holes in programs are easier to use. setarch -R for one program is better",
        ..UNSAFE
    },
    Knob {
        name: "net.ipv4.tcp_syncookies",
        what: "whether a full queue of handshakes is answered with cookies instead of being dropped",
        why: "some guides turn it off to see overflows; a longer queue does the same",
        source: "kernel ip-sysctl.rst",
        risk: "off: a flood of SYN packets keeps everybody else out",
        ..UNSAFE
    },
];

fn mitigations(tree: &Tree, _: &Host) -> Option<String> {
    let dir = "/sys/devices/system/cpu/vulnerabilities";
    let states: Vec<String> =
        tree.list(dir).iter().filter_map(|name| tree.text(&format!("{dir}/{name}"))).collect();
    if states.is_empty() {
        return None;
    }
    let count = |start: &str| states.iter().filter(|state| state.starts_with(start)).count();
    let (mitigated, open) = (count("Mitigation"), count("Vulnerable"));
    Some(format!("{mitigated} mitigated, {open} open, {} not affected", count("Not affected")))
}
