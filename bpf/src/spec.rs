//! A fault as it is asked for: by the command line, a scenario's file, or an experiment.
//!
//! Invariants: it has an end; it says where it acts, and narrowly unless the operator insists. Next: `fault`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::abi;
use crate::error::{Error, Result};
use crate::select::{Share, Target};
use crate::time::{monotonic_ns, ns};

/// How long a fault lasts when nothing is said.
pub const TTL_DEFAULT: Duration = Duration::from_secs(60);
/// And at most.
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Ports that are spared unless the operator insists: the way in, and that of metrics.
pub const SPARED: [u16; 2] = [22, 9901];

/// A fault, with all that it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of its kind, such as `net.loss`.
    pub fault: String,
    /// Where.
    #[serde(default)]
    pub target: Target,
    /// How much of it.
    #[serde(default)]
    pub share: Share,
    /// What the kind asks for beside, by the name of its parameter.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// It ends by itself after this.
    #[serde(default = "ttl_default", with = "crate::time::text")]
    pub ttl: Duration,
    /// Acts so many times at most; 0 for any number.
    #[serde(default)]
    pub max_hits: u64,
    /// Counts what it would do, and does nothing.
    #[serde(default)]
    pub shadow: bool,
    /// The operator insists: wide targets are allowed, and no port is spared.
    #[serde(default)]
    pub force: bool,
}

const fn ttl_default() -> Duration {
    TTL_DEFAULT
}

impl Spec {
    /// A fault of a kind, without a target.
    #[must_use]
    pub fn new(fault: &str) -> Self {
        Self {
            fault: fault.to_owned(),
            target: Target::default(),
            share: Share::default(),
            params: BTreeMap::new(),
            ttl: TTL_DEFAULT,
            max_hits: 0,
            shadow: false,
            force: false,
        }
    }

    /// Checks what does not depend on the kind.
    ///
    /// # Errors
    /// It lasts too long, or not at all.
    pub fn check(&self) -> Result<()> {
        if self.ttl.is_zero() || self.ttl > TTL_MAX {
            return Err(Error::usage(format!(
                "ttl of {}: more than 0 and at most {} is wanted",
                humantime::format_duration(self.ttl),
                humantime::format_duration(TTL_MAX)
            )));
        }
        Ok(())
    }

    /// Ports that are left alone.
    #[must_use]
    pub fn spared(&self) -> &'static [u16] {
        if self.force { &[] } else { &SPARED }
    }

    /// As programs are told, from now on.
    #[must_use]
    pub fn arm(&self) -> abi::Arm {
        let now = monotonic_ns();
        abi::Arm {
            deadline_ns: now + ns(self.ttl),
            since_ns: now,
            max_hits: self.max_hits,
            mode: if self.shadow { abi::MODE_SHADOW } else { abi::MODE_ARMED },
            unused: 0,
        }
    }
}
