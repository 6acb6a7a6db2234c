//! The clocks of other processes, changed where they are read.
//!
//! Next: `patch`, which does it; `code`, what is put there; `vdso`, where; `ptrace`, how; and `faults::clock`, the faults made of it.

pub(crate) mod code;
pub(crate) mod patch;
pub(crate) mod ptrace;
pub(crate) mod vdso;
mod visit;

pub use patch::Patch;
