//! What the tests of all services share: server processes, and other people's clients run against them.
//!
//! Invariants: a [`Process`] is killed by its own pid and its directory removed when it is dropped, also when the
//! test panics; ports come from a range below the ephemeral ones; a client that is not installed prints
//! `skipped: reason`, and fails with `LIVE_CLIENTS_REQUIRED=1`; a script that hangs is killed. Next: each
//! service's `tests/common` for how its server is started, `tests/clients` for the scripts.

#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests drive real processes: they wait and read the environment"
)]

pub mod live;
mod process;
mod proxy;

pub use process::{Process, are_closed, free_ports, local};
pub use proxy::Proxy;
