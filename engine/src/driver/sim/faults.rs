//! What may go wrong in a world, how often, how large its queues are, and what did go wrong.

/// Probabilities between zero and one, and the sizes they work with. [`Faults::none`] is a perfect
/// world.
#[derive(Clone, Debug)]
pub struct Faults {
    /// An operation starts late, so others overtake it.
    pub delay: f64,
    /// By at most this much.
    pub delay_max_ns: u64,
    /// A multishot operation ends with an ordinary completion that does not say `more`.
    pub multishot_end: f64,
    /// A receive finds the pool empty although it is not.
    pub no_buffers: f64,
    /// The notification of a zero-copy send comes late.
    pub late_notification: f64,
    /// The completion queue is full: completions wait in the kernel for a while.
    pub overflow: f64,
    /// A cancel comes too late: its target completes first.
    pub cancel_loses: f64,
    /// A waiting turn returns without cause, as after a signal.
    pub spurious_wake: f64,
    /// A doorbell comes late.
    pub late_bell: f64,
    /// Events of a stretch of up to this length are delivered together, as to a shard that did
    /// not run meanwhile.
    pub batch_ns: u64,

    /// Sent bytes travel in small pieces.
    pub segment: f64,
    /// A piece is slower than others of its connection.
    pub jitter: f64,
    /// By at most this much.
    pub jitter_max_ns: u64,
    /// A receive takes less than is there.
    pub short_recv: f64,
    /// A send ends early.
    pub short_send: f64,
    /// The connection breaks while a piece travels.
    pub reset: f64,
    /// An accept fails (EMFILE) and ends its operation; the connection stays in the backlog.
    pub accept_error: f64,
    /// A connect is refused although somebody listens.
    pub refuse: f64,

    /// A read returns less than is there.
    pub short_read: f64,
    /// A write ends early.
    pub short_write: f64,
    /// A read fails with EIO.
    pub read_error: f64,
    /// A write fails with EIO.
    pub write_error: f64,
    /// A write that needs room finds none.
    pub no_space: f64,
    /// An fsync fails with EIO, and what it should have written is forgotten.
    pub fsync_error: f64,
    /// A file operation takes up to a thousand times longer.
    pub slow_io: f64,
    /// A range is not in the page cache.
    pub cold: f64,
    /// A sector or a directory change that was not made durable survives a crash anyway.
    pub survives: f64,

    /// Sizes and speeds.
    pub limits: Limits,
}

/// Sizes and speeds of a world.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes sent and not yet received, per direction of a connection.
    pub socket_buffer_bytes: usize,
    /// One way through the network.
    pub link_latency_ns: u64,
    /// One file operation.
    pub disk_latency_ns: u64,
    /// Bytes all files may take.
    pub disk_capacity_bytes: u64,
    /// Descriptors open at a time.
    pub descriptors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            socket_buffer_bytes: 128 * 1024,
            link_latency_ns: 10_000,
            disk_latency_ns: 30_000,
            disk_capacity_bytes: 1 << 40,
            descriptors: 1 << 20,
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl Faults {
    /// A world in which nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self {
            delay: 0.0,
            delay_max_ns: 200_000,
            multishot_end: 0.0,
            no_buffers: 0.0,
            late_notification: 0.0,
            overflow: 0.0,
            cancel_loses: 0.0,
            spurious_wake: 0.0,
            late_bell: 0.0,
            batch_ns: 0,
            segment: 0.0,
            jitter: 0.0,
            jitter_max_ns: 500_000,
            short_recv: 0.0,
            short_send: 0.0,
            reset: 0.0,
            accept_error: 0.0,
            refuse: 0.0,
            short_read: 0.0,
            short_write: 0.0,
            read_error: 0.0,
            write_error: 0.0,
            no_space: 0.0,
            fsync_error: 0.0,
            slow_io: 0.0,
            cold: 0.0,
            survives: 0.0,
            limits: Limits::default(),
        }
    }

    /// Everything a correct caller does not notice: delays, reordering, small pieces, short
    /// transfers, late notifications. No errors.
    #[must_use]
    pub fn rough() -> Self {
        Self {
            delay: 0.3,
            late_notification: 0.5,
            spurious_wake: 0.1,
            late_bell: 0.3,
            batch_ns: 20_000,
            segment: 0.5,
            jitter: 0.3,
            short_recv: 0.3,
            short_send: 0.2,
            short_read: 0.2,
            short_write: 0.2,
            slow_io: 0.05,
            cold: 0.3,
            ..Self::none()
        }
    }

    /// Also what a caller must recover from: ended multishots, exhausted pools, lost cancels,
    /// overflow, broken connections. The disk stays honest.
    #[must_use]
    pub fn hostile() -> Self {
        Self {
            multishot_end: 0.05,
            no_buffers: 0.05,
            overflow: 0.02,
            cancel_loses: 0.5,
            reset: 0.002,
            accept_error: 0.01,
            refuse: 0.02,
            survives: 0.5,
            ..Self::rough()
        }
    }

    /// Also disk errors: full disks, failed reads, writes and fsyncs.
    #[must_use]
    pub fn broken_disk() -> Self {
        Self {
            read_error: 0.01,
            write_error: 0.01,
            no_space: 0.01,
            fsync_error: 0.01,
            ..Self::hostile()
        }
    }
}

/// A bug planted on purpose, to prove that a simulation finds its kind. Never drawn by a seed.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The buffer of a send is freed when the send is submitted, as if its future had owned it.
    EarlyFree,
    /// No doorbell is heard.
    DropBells,
}

/// How often what happened, for tests that must not see the happy path only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldStats {
    /// Completions posted.
    pub completions: u64,
    /// Events delivered.
    pub events: u64,
    /// Operations that started late.
    pub delays: u64,
    /// Multishot operations ended early.
    pub multishot_ends: u64,
    /// Receives that found no buffer.
    pub no_buffers: u64,
    /// Completions put aside.
    pub overflows: u64,
    /// Cancels whose target completed first.
    pub lost_cancels: u64,
    /// Waits that ended without cause.
    pub spurious_wakes: u64,
    /// Receives and sends cut short.
    pub short_transfers: u64,
    /// Connections broken by the network.
    pub resets: u64,
    /// File operations cut short.
    pub short_files: u64,
    /// File operations failed.
    pub file_errors: u64,
    /// Failures ordered by `World::fail_completion` and `World::fail_call`.
    pub ordered_failures: u64,
}
