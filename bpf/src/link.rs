//! Programs attached to devices: by tcx where the kernel has it, by a clsact filter before.
//!
//! A tcx link goes with its last descriptor, and so with the process unless it is pinned. A clsact filter stays: it is
//! given to the undo journal by who attaches it, and with it the clsact qdisc that it is in, if that was not there before.
//! libbpf-rs has no call for tcx. Invariants: detached when dropped; filters of several faults are beside each other, each
//! with a handle of its own; a qdisc in which somebody else has a filter stays.
#![expect(unsafe_code, reason = "libbpf-rs has no call for tcx")]

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::{
    AsRawLibbpf as _, Link, OpenObject, ProgramMut, TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder,
};

use crate::device::Device;
use crate::error::{During as _, Error, Result};
use crate::netlink;
use crate::registry::{self, Journal};
use crate::select::Way;
use crate::undo::Undo;

/// Priority of our filters, by which they are told from those of others.
pub const FILTER_PRIORITY: u32 = 0xC4A0;

/// A program that meets a device's packets.
#[derive(Debug)]
pub enum Attached {
    /// Goes with the process.
    Tcx(Link),
    /// A filter in the kernel, removed when dropped.
    Clsact(TcHook),
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Self::Clsact(hook) = self {
            let _ = hook.detach();
        }
    }
}

const fn attach_type(way: Way) -> libbpf_sys::bpf_attach_type {
    match way {
        Way::In => libbpf_sys::BPF_TCX_INGRESS,
        Way::Out => libbpf_sys::BPF_TCX_EGRESS,
    }
}

/// Says before a classifier is loaded which direction it will be attached to.
pub fn prepare(object: &mut OpenObject, program: &str, way: Way) {
    for one in object.progs_mut().filter(|one| one.name() == program) {
        // SAFETY: the program is of an object that `one` borrows, and is not loaded yet.
        unsafe {
            libbpf_sys::bpf_program__set_expected_attach_type(
                one.as_libbpf_object().as_ptr(),
                attach_type(way),
            )
        };
    }
}

/// Attaches a classifier, which was [prepared](prepare), to one direction of a device.
///
/// # Errors
/// The kernel has neither tcx nor clsact, or refuses.
pub fn attach(
    program: &ProgramMut<'_>,
    device: &Device,
    way: Way,
    journal: &mut Journal,
) -> Result<Attached> {
    match attach_tcx(program, device) {
        Ok(link) => Ok(Attached::Tcx(link)),
        Err(error) if is_no_tcx(&error) => attach_filter(program, device, way, journal),
        Err(error) => Err(Error::failed(format!("attach to {} ({way}): {error}", device.name))),
    }
}

/// Whether an error of [`attach_tcx`] says that the kernel, before 6.6, does not know the attach type.
pub(crate) fn is_no_tcx(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// Attaches a classifier by a clsact filter that the journal knows.
///
/// # Errors
/// The kernel has no clsact, or refuses.
pub(crate) fn attach_filter(
    program: &ProgramMut<'_>,
    device: &Device,
    way: Way,
    journal: &mut Journal,
) -> Result<Attached> {
    let (netns, dev) = (journal.netns(), device.name.clone());
    // Made by another fault of ours, it goes with the last of them.
    let makes = !netlink::has_clsact(device)?
        || registry::knows(
            |undo| matches!(undo, Undo::Filter { netns: its, dev: on, makes: true, .. } if *its == netns && *on == dev),
        );
    let handle = next_handle();
    journal.will(Undo::Filter { netns, dev, way, handle, makes })?;
    attach_clsact(program, device, way, handle)
}

/// A number that no filter of another process of ours has, nor another of this one.
fn next_handle() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Numbers of processes have 22 bits.
    std::process::id() << 8 | COUNT.fetch_add(1, Ordering::Relaxed) & 0xFF
}

/// Attaches a classifier, which was [prepared](prepare), by a link that goes with this process.
///
/// # Errors
/// The kernel has no tcx (`EINVAL`), or refuses.
pub(crate) fn attach_tcx(program: &ProgramMut<'_>, device: &Device) -> std::io::Result<Link> {
    let ptr = program.as_libbpf_object();
    // SAFETY: `ptr` is a program of an object that `program` borrows, and loaded; no options are given.
    let link = unsafe {
        libbpf_sys::bpf_program__attach_tcx(ptr.as_ptr(), device.index, std::ptr::null())
    };
    let link = NonNull::new(link).ok_or_else(std::io::Error::last_os_error)?;
    // SAFETY: libbpf has just made this link, and nobody else has it.
    Ok(unsafe { Link::from_ptr(link) })
}

fn hook(program: BorrowedFd<'_>, device: &Device, way: Way, handle: u32) -> TcHook {
    let mut builder = TcHookBuilder::new(program);
    builder.ifindex(device.index).priority(FILTER_PRIORITY).handle(handle);
    builder.hook(match way {
        Way::In => TC_INGRESS,
        Way::Out => TC_EGRESS,
    })
}

/// Attaches by a clsact filter, or not at all.
pub(crate) fn attach_clsact(
    program: &ProgramMut<'_>,
    device: &Device,
    way: Way,
    handle: u32,
) -> Result<Attached> {
    let mut hook = hook(program.as_fd(), device, way, handle);
    hook.create().during(|| format!("make the clsact qdisc of {}", device.name))?;
    let hook = hook.attach().during(|| format!("attach a filter to {} ({way})", device.name))?;
    Ok(Attached::Clsact(hook))
}

/// Removes our filter of that handle from one direction of a device, if it is there; and with `makes` the clsact qdisc, if
/// nobody has a filter in it any more.
///
/// # Errors
/// It is there, and the kernel refuses.
pub fn remove_filter(device: &Device, way: Way, handle: u32, makes: bool) -> Result<()> {
    // Which program it is does not matter for asking and removing.
    let stdin = std::io::stdin();
    let mut hook = hook(stdin.as_fd(), device, way, handle);
    if hook.query().is_ok() {
        hook.detach().during(|| format!("remove our filter from {} ({way})", device.name))?;
    }
    if makes { netlink::remove_clsact(device) } else { Ok(()) }
}

impl Attached {
    /// Makes it outlive this process, until the file is removed. Filters do so anyway.
    ///
    /// # Errors
    /// The path is not in a BPF file system, or taken.
    pub fn pin(&mut self, path: &Path) -> Result<()> {
        match self {
            Self::Tcx(link) => {
                link.pin(path).during(|| format!("pin a link at {}", path.display()))
            }
            Self::Clsact(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor, programs};

    #[test]
    fn a_clsact_qdisc_goes_with_its_last_filter() {
        if let Some(why) = doctor::why_not() {
            println!("skipped: {why}");
            return;
        }
        let looked = doctor::apart(|| {
            let device = Device::open("lo")?;
            let mut object = programs::open("tc")?;
            prepare(&mut object, "packet", Way::Out);
            let object = programs::load_opened("tc", object)?;
            let program = programs::program(&object, "packet")?;
            let attach = |way, handle| attach_clsact(&program, &device, way, handle);
            let first = attach(Way::Out, 1)?;
            let beside = attach(Way::Out, 2)?;
            let other = attach(Way::In, 1)?;
            drop(first);
            for (way, handle) in [(Way::Out, 1), (Way::In, 1)] {
                remove_filter(&device, way, handle, true)?;
                assert!(netlink::has_clsact(&device)?, "one is left");
            }
            // Removed by who finds the journal: dropping it then is no error.
            remove_filter(&device, Way::Out, 2, true)?;
            assert!(!netlink::has_clsact(&device)?);
            drop((beside, other));
            remove_filter(&device, Way::Out, 2, true)?;
            let stays = attach(Way::Out, 3)?;
            remove_filter(&device, Way::Out, 3, false)?;
            assert!(netlink::has_clsact(&device)?, "it was there before");
            drop(stays);
            Ok(())
        });
        looked.expect("root");
    }
}
