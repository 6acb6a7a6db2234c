//! Arguments of subcommands that have a module of their own, and what each does with them.

pub(crate) mod benchmarks;
pub(crate) mod out;
pub(crate) mod report;
//! Subcommands with arguments of their own: what each takes, and how it is handed to the library.

pub(crate) mod files;
pub(crate) mod runtimes;
