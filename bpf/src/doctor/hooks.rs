//! Hooks beside those of packets: of calls, of the kernel's own functions, and of queues that heed or delay.
//!
//! Invariants: as in `doctor`; what could be taken and have no effect is measured by its effect.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libbpf_rs::{Link, Object};

use super::{apart, loaded};
use crate::abi;
use crate::cgroup::{self, Cgroup};
use crate::device::Device;
use crate::error::{During as _, Error, Result};
use crate::faults::packet::Action;
use crate::netlink::{self, Netem};
use crate::select::{Target, Way};
use crate::time::monotonic_ns;
use crate::{link, programs};

/// Loads one program of an object.
fn only(name: &str, program: &str) -> Result<Object> {
    let mut object = programs::open(name)?;
    for mut one in object.progs_mut() {
        let is_wanted = one.name() == program;
        one.set_autoload(is_wanted);
    }
    programs::load_opened(name, object)
}

/// Attaches one program of an object to what its section says, and detaches it.
pub(super) fn trace(name: &str, program: &str) -> Result<String> {
    let object = only(name, program)?;
    programs::program(&object, program)?
        .attach()
        .map(|_: Link| String::new())
        .during(|| format!("attach {program}"))
}

/// Runs an iterator that is told nothing, over a network namespace without connections.
pub(super) fn iterator(name: &'static str, program: &'static str) -> Result<String> {
    apart(move || {
        let object = only(name, program)?;
        programs::iterate(&object, program).map(|()| String::new())
    })
}

/// A control group that nobody is in, removed when it is dropped.
struct Empty(PathBuf);

impl Empty {
    fn new() -> Result<Self> {
        let dir = cgroup::root()?.join(format!("chaos-doctor-{}", std::process::id()));
        fs::create_dir(&dir).during(|| format!("make control group {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Attaches one program of an object to an empty control group.
pub(super) fn group(name: &str, program: &str) -> Result<String> {
    let empty = Empty::new()?;
    let group = Cgroup::open(&empty.0.display().to_string())?;
    let object = only(name, program)?;
    programs::program(&object, program)?
        .attach_cgroup(group.dir.as_raw_fd())
        .map(|_: Link| String::new())
        .during(|| format!("attach {program} to a control group"))
}

/// Puts a band behind netem.
pub(super) fn netem() -> Result<String> {
    let netem = Netem { loss_ppm: 1, limit: 1, ..Netem::default() };
    apart(move || netlink::pass_netem(&Device::open("lo")?, &netem).map(|()| String::new()))
}

const DELAY: Duration = Duration::from_millis(20);
/// Longer than the slowest machine takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Delays a datagram by fq, and looks when it comes.
pub(super) fn edt() -> Result<String> {
    apart(|| {
        let device = Device::open("lo")?;
        netlink::up(&device)?;
        netlink::give(&device, "fq")?;
        netlink::check_fq(&device)?;
        let object = loaded(Way::Out)?;
        let now = monotonic_ns();
        let told = abi::Fault {
            arm: abi::Arm {
                deadline_ns: now.saturating_add(crate::time::ns(PATIENCE)),
                since_ns: now,
                mode: abi::MODE_ARMED,
                ..abi::Arm::default()
            },
            selector: Target::default().to_abi(&[]),
            action: Action::Later as u32,
            value: u32::try_from(DELAY.as_micros()).unwrap_or(u32::MAX),
            l2_len: device.l2_len,
            ..abi::Fault::default()
        };
        programs::write(&programs::map(&object, "fault")?, 0, &told)?;
        let program = programs::program(&object, "packet")?;
        let _attached = match link::attach_tcx(&program, &device) {
            Ok(link) => link::Attached::Tcx(link),
            Err(_) => link::attach_clsact(&program, &device, Way::Out, 1)?,
        };
        let took = datagram().during(|| "send a datagram over lo".to_owned())?;
        if took < DELAY {
            return Err(Error::unsupported(format!(
                "delay a datagram by fq: it came after {took:?}, and not {DELAY:?}"
            )));
        }
        Ok(String::new())
    })
}

/// How long a datagram takes over lo.
fn datagram() -> std::io::Result<Duration> {
    let to = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    to.set_read_timeout(Some(PATIENCE))?;
    let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let begin = Instant::now();
    from.send_to(b"datagram", to.local_addr()?)?;
    to.recv(&mut [0; 16])?;
    Ok(begin.elapsed())
}
