//! Programs attached to devices: by tcx where the kernel has it, by a clsact filter before.
//!
//! A tcx link goes with its last descriptor, and so with the process unless it is pinned. A clsact filter stays: it is
//! given to the undo journal by who attaches it. libbpf-rs has no call for tcx. Invariants: detached when dropped.
#![expect(unsafe_code, reason = "libbpf-rs has no call for tcx")]

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::ptr::NonNull;

use libbpf_rs::{
    AsRawLibbpf as _, Link, OpenObject, ProgramMut, TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder,
};

use crate::device::Device;
use crate::error::{During as _, Error, Result};
use crate::registry::Journal;
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
        // Kernels before 6.6 do not know the attach type.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            journal.will(Undo::Filter { netns: journal.netns(), dev: device.name.clone(), way })?;
            attach_clsact(program, device, way)
        }
        Err(error) => Err(Error::failed(format!("attach to {} ({way}): {error}", device.name))),
    }
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

fn hook(program: BorrowedFd<'_>, device: &Device, way: Way) -> TcHook {
    let mut builder = TcHookBuilder::new(program);
    builder.ifindex(device.index).priority(FILTER_PRIORITY).handle(1).replace(true);
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
) -> Result<Attached> {
    let mut hook = hook(program.as_fd(), device, way);
    hook.create().during(|| format!("make the clsact qdisc of {}", device.name))?;
    let hook = hook.attach().during(|| format!("attach a filter to {} ({way})", device.name))?;
    Ok(Attached::Clsact(hook))
}

/// Removes our filter from one direction of a device, if it is there.
///
/// # Errors
/// It is there, and the kernel refuses.
pub fn remove_filter(device: &Device, way: Way) -> Result<()> {
    // Which program it is does not matter for asking and removing.
    let stdin = std::io::stdin();
    let mut hook = hook(stdin.as_fd(), device, way);
    if hook.query().is_err() {
        return Ok(());
    }
    hook.detach().during(|| format!("remove our filter from {} ({way})", device.name))
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
