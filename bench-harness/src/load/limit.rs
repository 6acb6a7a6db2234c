//! Whether a trial speaks of the server or of the client that measured it.
//!
//! Why so strict: a client that falls behind its schedule, or whose core is full, measures itself, and
//! its figures look just like a server's. Invariants: a trial whose client was in doubt says so and says
//! why; missed arrivals are the server's as long as the client kept its schedule, because it found
//! [`super::generator::IN_FLIGHT_MAX`] requests of theirs unanswered. Next: `curve` and `find_max`
//! take no such trial for a pass.

use serde::{Deserialize, Serialize};

use super::ring;

/// Above this share of its core the client may be what limits the rate.
pub const CLIENT_BUSY_MAX: f64 = 0.90;
/// Below this share of its core a server in closed loop was not saturated.
pub const SERVER_BUSY_MIN: f64 = 0.90;
/// An open loop's schedule may lag this share of the reported p99.
pub const LAG_SHARE_MAX: f64 = 0.10;
/// A client that spins looks at its schedule in ticks, and may lag two of them whatever the p99: what
/// waits for a tick is part of its latency, and too little to make others wait.
const LAG_SPIN_NS: u64 = 2 * ring::TICK_NS;

/// Who set the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The server's core was full, or arrivals found too many requests waiting for it: rates compare.
    Server,
    /// The client's core was full or its schedule lagged: rates and latencies are the client's.
    Client,
    /// Neither: waiting for each other, or an offered rate both could keep.
    Neither,
}

/// What is known of a trial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    /// Open loop.
    pub open: bool,
    /// The client never sleeps.
    pub spins: bool,
    /// 99th percentile of the latency.
    pub p99_ns: u64,
    /// 99th percentile of the schedule's lag.
    pub lag_p99_ns: u64,
    /// Arrivals that found no room.
    pub missed: u64,
    /// Share of the client's core.
    pub client_busy: f64,
    /// Share of the server's core.
    pub server_busy: f64,
}

/// Who set the pace, and for the client and for missed arrivals why it is said.
#[must_use]
pub fn judge(signs: &Signs) -> (Limit, Option<String>) {
    let floor_ns = if signs.spins { LAG_SPIN_NS } else { 0 };
    let lag_max_ns = (LAG_SHARE_MAX * signs.p99_ns as f64).max(floor_ns as f64);
    if signs.open && signs.lag_p99_ns as f64 > lag_max_ns {
        let share = 100.0 * signs.lag_p99_ns as f64 / (signs.p99_ns as f64).max(1.0);
        let why = format!(
            "client-bound: the schedule's lag p99 of {} ns is {share:.0} % of the latency's p99 of {} ns",
            signs.lag_p99_ns, signs.p99_ns
        );
        return (Limit::Client, Some(why));
    }
    // In closed loop a client that spins is always busy; in open loop its waiting is not counted. A
    // full client counts even beside a full server.
    if (signs.open || !signs.spins) && signs.client_busy > CLIENT_BUSY_MAX {
        let why = format!("client-bound: its core was {:.0} % busy", signs.client_busy * 100.0);
        return (Limit::Client, Some(why));
    }
    if signs.missed > 0 {
        let why = format!("{} arrivals found no room: the server fell behind", signs.missed);
        return (Limit::Server, Some(why));
    }
    if signs.server_busy >= SERVER_BUSY_MIN {
        return (Limit::Server, None);
    }
    (Limit::Neither, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Signs = Signs {
        open: true,
        spins: false,
        p99_ns: 1_000_000,
        lag_p99_ns: 100_000,
        missed: 0,
        client_busy: 0.9,
        server_busy: 0.5,
    };

    #[test]
    fn at_the_bounds_a_client_is_trusted_and_beyond_them_not() {
        assert_eq!(judge(&QUIET), (Limit::Neither, None));
        let (limit, why) = judge(&Signs { lag_p99_ns: 101_000, ..QUIET });
        assert_eq!(limit, Limit::Client);
        assert!(why.is_some_and(|why| why.contains("lag") && why.contains("10 %")));
        let (limit, why) = judge(&Signs { client_busy: 0.91, server_busy: 1.0, ..QUIET });
        assert_eq!(limit, Limit::Client);
        assert!(why.is_some_and(|why| why.contains("91 % busy")));
    }

    #[test]
    fn only_a_client_that_spins_has_ticks_to_wait_for() {
        let fast = Signs { p99_ns: 100_000, lag_p99_ns: 40_000, ..QUIET };
        assert_eq!(judge(&fast).0, Limit::Client);
        assert_eq!(judge(&Signs { spins: true, ..fast }).0, Limit::Neither);
        assert_eq!(judge(&Signs { spins: true, lag_p99_ns: 40_001, ..fast }).0, Limit::Client);
    }

    #[test]
    fn a_closed_loop_has_no_schedule_and_may_spin() {
        let closed = Signs { open: false, lag_p99_ns: 900_000, client_busy: 1.0, ..QUIET };
        assert_eq!(judge(&closed).0, Limit::Client);
        assert_eq!(judge(&Signs { spins: true, ..closed }).0, Limit::Neither);
        assert_eq!(judge(&Signs { spins: true, server_busy: 0.9, ..closed }).0, Limit::Server);
    }

    #[test]
    fn missed_arrivals_are_the_servers_when_the_client_kept_up() {
        let (limit, why) = judge(&Signs { missed: 3, ..QUIET });
        assert_eq!(limit, Limit::Server);
        assert!(why.is_some_and(|why| why.starts_with("3 arrivals")));
        assert_eq!(judge(&Signs { missed: 3, client_busy: 1.0, ..QUIET }).0, Limit::Client);
    }
}
