//! Arguments of subcommands that have a module of their own, and what each does with them.

pub(crate) mod benchmarks;
pub(crate) mod files;
pub(crate) mod out;
pub(crate) mod report;
pub(crate) mod runtimes;
