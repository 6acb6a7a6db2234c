//! Servers that misbehave in known ways: the harness' own test bed, and anybody's.
//!
//! Why: a load generator that hides a stall, or takes a wrong answer for a fast one, looks better than
//! one that does not. Here the right figures are known beforehand, so a generator can be wrong.
//! [`bed`] is the server without I/O or clock; [`serve`] puts it on sockets, [`simulate`] puts it and a
//! [`crate::load`] in virtual time, where the figures are exact and a run takes no time.
//! Invariants: both drive the same bed; nothing a client sends costs unbounded memory. It speaks GET and
//! SET of RESP; a GET returns the value the generator expects of that key, unless the mode says
//! otherwise; a SET is answered and forgotten. Next: [`Mode`].

pub mod bed;
pub mod serve;
pub mod simulate;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::units::parse_duration;

/// How it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, clap::Subcommand)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Answers at once: the control.
    Prompt,
    /// Nothing is answered for a while at the end of every period.
    Stall {
        /// Length of a period.
        #[arg(long = "every", value_parser = parse_duration, default_value = "500ms")]
        every_ns: u64,
        /// How much of it nothing is answered.
        #[arg(long = "for", value_parser = parse_duration, default_value = "100ms")]
        stall_ns: u64,
    },
    /// Most requests are fast and some are slow; each connection is served by itself.
    Bimodal {
        /// Service time of most.
        #[arg(long = "fast", value_parser = parse_duration, default_value = "1ms")]
        fast_ns: u64,
        /// Service time of the others.
        #[arg(long = "slow", value_parser = parse_duration, default_value = "20ms")]
        slow_ns: u64,
        /// Share of the others.
        #[arg(long, default_value_t = 0.1)]
        share: f64,
    },
    /// One server for all connections, first come first served, the same time for each request.
    Md1 {
        /// That time.
        #[arg(long = "service", value_parser = parse_duration, default_value = "1ms")]
        service_ns: u64,
    },
    /// Connections are accepted, and reset.
    Reset {
        /// Requests answered before that.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Replies leave byte by byte.
    Drain {
        /// Between two bytes.
        #[arg(long = "gap", value_parser = parse_duration, default_value = "1ms")]
        gap_ns: u64,
    },
    /// Some replies hold the value of another key.
    Wrong {
        /// Every which reply.
        #[arg(long, default_value_t = 100)]
        every: u64,
    },
    /// The first reply of each connection is late.
    Late {
        /// By how much.
        #[arg(long = "by", value_parser = parse_duration, default_value = "200ms")]
        late_ns: u64,
    },
    /// Two requests that arrive together are answered in the other order.
    Reorder,
    /// Mutant: sleeps before each reply.
    Sleep {
        /// How long.
        #[arg(long = "for", value_parser = parse_duration, default_value = "100us")]
        sleep_ns: u64,
    },
    /// Mutant: copies memory before each reply.
    Copy {
        /// How much, in KiB.
        #[arg(long, default_value_t = 64)]
        kib: usize,
    },
    /// Mutant: calls the kernel before each reply.
    Syscalls {
        /// How often (getppid).
        #[arg(long, default_value_t = 10)]
        count: u32,
    },
}

/// Memory a mutant copies for a reply, at most.
const COPY_MAX_KIB: usize = 64 << 10;
/// System calls a mutant makes for a reply, at most.
const SYSCALLS_MAX: u32 = 1_000_000;

impl Mode {
    /// A fixed stall of 100 ms in every 500 ms.
    pub const STALL: Self = Self::Stall { every_ns: SECOND_NS / 2, stall_ns: 100 * MILLISECOND_NS };

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// A figure is out of range.
    pub fn check(&self) -> Result<()> {
        match *self {
            Self::Stall { every_ns, stall_ns } if stall_ns == 0 || stall_ns >= every_ns => {
                bail!("a stall of {stall_ns} ns must be shorter than its period of {every_ns} ns")
            }
            Self::Bimodal { share, .. } if !(0.0..=1.0).contains(&share) => {
                bail!("the share of slow requests is from 0 to 1, not {share}")
            }
            Self::Md1 { service_ns: 0 } => bail!("a service time of 0 is no queue: use `prompt`"),
            Self::Wrong { every: 0 } => bail!("every 0th reply cannot be wrong: from 1 on"),
            Self::Copy { kib } if kib > COPY_MAX_KIB => {
                bail!("at most {COPY_MAX_KIB} KiB are copied for a reply, not {kib}")
            }
            Self::Syscalls { count } if count > SYSCALLS_MAX => {
                bail!("at most {SYSCALLS_MAX} calls are made for a reply, not {count}")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_without_sense_are_refused() {
        let senseless = [
            Mode::Stall { every_ns: 5, stall_ns: 5 },
            Mode::Stall { every_ns: 5, stall_ns: 0 },
            Mode::Bimodal { fast_ns: 1, slow_ns: 2, share: 1.1 },
            Mode::Md1 { service_ns: 0 },
            Mode::Wrong { every: 0 },
            Mode::Copy { kib: COPY_MAX_KIB + 1 },
            Mode::Syscalls { count: SYSCALLS_MAX + 1 },
        ];
        for mode in senseless {
            assert!(mode.check().is_err(), "{mode:?}");
        }
        for mode in [Mode::STALL, Mode::Prompt, Mode::Copy { kib: COPY_MAX_KIB }] {
            assert!(mode.check().is_ok(), "{mode:?}");
        }
    }
}
