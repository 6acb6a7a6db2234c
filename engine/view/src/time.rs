//! The two clocks a session may see, read once per turn by the host.

/// A reading of the monotonic and the wall clock, taken once per turn of the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Nanoseconds on the monotonic clock, from an arbitrary start.
    pub mono_ns: u64,
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
}

impl Instant {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.unix_us / 1_000
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        self.unix_us / 1_000_000
    }
}
