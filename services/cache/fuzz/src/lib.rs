//! What the fuzzers call. Each is a program of its own, of one line, in `fuzz_targets`.
//!
//! Next: `services/cache/src/fuzz` for the targets, README.md here for how to run them.

#![forbid(unsafe_code)]

pub use cache::fuzz::run;
