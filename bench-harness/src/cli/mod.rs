//! Arguments of subcommands that have a module of their own, and what each does with them.

pub(crate) mod benchmarks;
pub(crate) mod connections;
pub(crate) mod evict;
pub(crate) mod fanout;
pub(crate) mod files;
pub(crate) mod flamegraph;
pub(crate) mod gate;
pub(crate) mod load;
pub(crate) mod out;
pub(crate) mod pathology;
pub(crate) mod pauses;
pub(crate) mod peers;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod runtimes;
pub(crate) mod search;
pub(crate) mod server;
pub(crate) mod sweep;
