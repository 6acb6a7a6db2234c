//! The benchmark harness: our servers and their peers, side by side on the same core.
//!
//! A run is a list of cells ([`scenario::cells`]); each alternates fresh servers ([`compare`],
//! [`stats`]), puts a checked load on them ([`load`]) and reads their CPU clocks from outside
//! ([`process`], [`clock`]). [`curve`] and [`find_max`] look for the rates a server can keep, [`sweep`] goes through depths; [`pathology`]
//! are servers whose right figures are known. [`host`] runs our sessions on other runtimes, and [`runtimes`] compares
//! them; [`files`] is a load of file I/O, [`fanout`] one of messages to many; [`flamegraph`] shows where a server spends
//! its time; [`cost`] is what the load itself takes, [`connections`] what memory
//! a connection takes, [`pauses`] what latency is while a server does something else as well, and [`evict`] simulates policies of eviction. [`fingerprint`] says what machine it was, [`steady`] whether a trial had settled, and [`gate`] whether one
//! saved report is worse than another. Invariants: no figure without an interval; no wrong reply counted as a fast one; no `unsafe`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod broker;
pub mod clock;
pub mod compare;
pub mod connections;
pub mod cost;
pub mod curve;
pub mod evict;
pub mod exit;
pub mod fanout;
pub mod figures;
pub mod files;
pub mod find_max;
pub mod fingerprint;
pub mod flamegraph;
pub mod gate;
pub mod host;
pub mod load;
pub mod machine;
pub mod pathology;
pub mod pauses;
pub mod peers;
pub mod process;
pub mod report;
pub mod rng;
pub mod rounds;
pub mod runtimes;
pub mod scenario;
pub mod stats;
pub mod steady;
pub mod storage;
pub mod sweep;
pub mod units;
mod usage;
