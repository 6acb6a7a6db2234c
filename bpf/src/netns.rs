//! Network namespaces by the names that `ip netns` gives them.

use std::fs::File;
use std::os::fd::AsFd as _;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{During as _, Error, Result};

/// Moves this thread into a namespace. Threads and processes that it starts from then on are in it too.
///
/// # Errors
/// There is none of that name, or this process may not.
pub fn enter(name: &str) -> Result<()> {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).map_err(|error| {
        Error::usage(format!("open network namespace {path}: {error}; `ip netns list` names them"))
    })?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .during(|| format!("enter network namespace {name}"))
}

/// Does something in a namespace, on a thread of its own; right here without one.
///
/// # Errors
/// As [`enter`].
pub fn within<T: Send>(name: Option<&str>, work: impl FnOnce() -> T + Send) -> Result<T> {
    let Some(name) = name else { return Ok(work()) };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter(name).map(|()| work()));
        thread.join().map_err(|_| {
            Error::failed(format!("work in network namespace {name}: the thread panicked"))
        })?
    })
}
