//! The books of a load: what was asked, what came back, and how long it took.
//!
//! Two times for each reply: *latency* from when the request was meant to leave, which is what a user
//! waits; *service* from when its bytes were handed to the transport, which is what a closed loop
//! sees. Where they part, requests waited for others. Invariants: histograms hold up to
//! [`LATENCY_MAX_NS`] with three digits, and what is longer counts as that. Next: `trial` makes figures
//! of them.

use hdrhistogram::Histogram;

use crate::clock::SECOND_NS;

/// Latencies are recorded up to this, with three digits.
pub const LATENCY_MAX_NS: u64 = 60 * SECOND_NS;

/// An empty histogram for nanoseconds.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    let mut histogram =
        Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are valid");
    histogram.auto(false);
    histogram
}

/// Latencies by what was asked, where requests are drawn as they leave.
#[derive(Clone, Debug)]
pub struct Kinds {
    /// GETs, those of pairs too.
    pub reads: Histogram<u64>,
    /// SETs, those of pairs too.
    pub writes: Histogram<u64>,
    /// Read-modify-writes: from when the read was due to the reply to the write.
    pub pairs: Histogram<u64>,
}

/// What happened since the last reset.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Replies, right ones and others.
    pub replies: u64,
    /// Replies that say the key is not there.
    pub misses: u64,
    /// Wrong replies.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<String>,
    /// Bytes received.
    pub received_bytes: u64,
    /// Open loop: arrivals, those missed included.
    pub offered: u64,
    /// Open loop: arrivals whose requests were handed to the transport.
    pub started: u64,
    /// Open loop: arrivals for which the connection had no room.
    pub missed: u64,
    /// Requests that waited for their reply when the books were closed.
    pub unanswered: u64,
    /// How long the oldest of them had waited.
    pub oldest_unanswered_ns: u64,
    /// From the intended time of a request to its reply.
    pub latency: Histogram<u64>,
    /// From the moment a request was handed to the transport to its reply.
    pub service: Histogram<u64>,
    /// Open loop: from the intended time to the moment the generator let the request in.
    pub lag: Histogram<u64>,
    /// `latency` by kind.
    pub kinds: Option<Box<Kinds>>,
}

impl Tally {
    pub(super) fn new(kinds: bool) -> Self {
        let kinds =
            kinds.then(|| Kinds { reads: histogram(), writes: histogram(), pairs: histogram() });
        Self {
            replies: 0,
            misses: 0,
            wrong: 0,
            first_wrong: None,
            received_bytes: 0,
            offered: 0,
            started: 0,
            missed: 0,
            unanswered: 0,
            oldest_unanswered_ns: 0,
            latency: histogram(),
            service: histogram(),
            lag: histogram(),
            kinds: kinds.map(Box::new),
        }
    }

    /// These books and those that follow them, as one.
    #[must_use]
    pub fn with(mut self, later: Self) -> Self {
        self.replies += later.replies;
        self.misses += later.misses;
        self.wrong += later.wrong;
        self.first_wrong = self.first_wrong.or(later.first_wrong);
        self.received_bytes += later.received_bytes;
        self.offered += later.offered;
        self.started += later.started;
        self.missed += later.missed;
        // A state at the end, not a sum.
        self.unanswered = later.unanswered;
        self.oldest_unanswered_ns = later.oldest_unanswered_ns;
        for (mine, theirs) in [
            (&mut self.latency, &later.latency),
            (&mut self.service, &later.service),
            (&mut self.lag, &later.lag),
        ] {
            mine.add(theirs).expect("all have the same bounds");
        }
        if let (Some(mine), Some(theirs)) = (&mut self.kinds, &later.kinds) {
            for (mine, theirs) in [
                (&mut mine.reads, &theirs.reads),
                (&mut mine.writes, &theirs.writes),
                (&mut mine.pairs, &theirs.pairs),
            ] {
                mine.add(theirs).expect("all have the same bounds");
            }
        }
        self
    }
}
