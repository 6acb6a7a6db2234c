//! How each kind of fault is made. Each module has a table of its kinds. Next: `packet`, `socket`, `delay`, `process`, `crash`, `clock`.

use crate::fault::Kind;

pub mod clock;
pub mod crash;
pub mod delay;
pub mod disk;
pub mod kill;
pub mod pace;
pub mod packet;
pub mod process;
pub mod queue;
pub mod rate;
pub mod refuse;
pub mod resource;
pub mod socket;
pub mod stress;
pub(crate) mod tally;
pub(crate) mod target;

/// The tables.
pub(crate) const TABLES: &[&[Kind]] = &[
    packet::KINDS,
    delay::KINDS,
    rate::KINDS,
    queue::KINDS,
    socket::KINDS,
    pace::KINDS,
    kill::KINDS,
    process::KINDS,
    crash::KINDS,
    refuse::KINDS,
    clock::KINDS,
    resource::KINDS,
    stress::KINDS,
    disk::KINDS,
];
