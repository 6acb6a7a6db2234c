//! What happens to a server while a load is on it, and how it is known that it did.
//!
//! Why so strict: a latency "during a snapshot" that was over before the first recorded request, or that never began, looks
//! like a very good one. So each event is watched from a second connection, with the clock, and [`judge`] compares what was
//! seen with the recorded time. Invariants: the load's thread waits for nobody; the watcher asks every [`LOOK_NS`], and
//! ends with the load. Next: `wire` for what is asked, the module above for trials.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::wire::{Client, SPAN_MS};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};

/// How long after recording has begun an event begins.
pub(super) const LEAD_NS: u64 = SECOND_NS / 2;
/// Between two looks at a server.
const LOOK_NS: u64 = 50 * MILLISECOND_NS;
/// The part of all recorded inserts that must have made a key.
const GROWN_MIN: f64 = 0.9;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing.
    Quiet,
    /// `BGSAVE`.
    Snapshot,
    /// Every request makes a key.
    Growth,
    /// Many keys expire within a second.
    Expiry,
    /// A second server becomes a replica.
    FullSync,
}

/// An event as it is listed.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub event: Event,
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    /// When it counts as having happened.
    pub evidence: &'static str,
}

/// All events, in the order in which they are measured.
pub const EVENTS: &[Row] = &[
    Row {
        event: Event::Quiet,
        name: "quiet",
        about: "nothing but the load",
        evidence: "nothing is to be seen",
    },
    Row {
        event: Event::Snapshot,
        name: "snapshot",
        about: "BGSAVE of all keys",
        evidence: "it began and ended well within the recorded time (INFO persistence)",
    },
    Row {
        event: Event::Growth,
        name: "growth",
        about: "every request of the load makes a key, so that the table grows",
        evidence: "DBSIZE grew by 90 % of the recorded requests at least",
    },
    Row {
        event: Event::Expiry,
        name: "expiry",
        about: "a million keys expire in one second's span",
        evidence: "all of them were removed within the recorded time (expired_keys of INFO stats)",
    },
    Row {
        event: Event::FullSync,
        name: "full-sync",
        about: "a second server, on the load's core at nice 19, becomes a replica",
        evidence: "the replica's link came up with all keys within the recorded time, or bytes of the data set had arrived by its end",
    },
];

const ALL: [Event; EVENTS.len()] =
    [Event::Quiet, Event::Snapshot, Event::Growth, Event::Expiry, Event::FullSync];

impl Event {
    /// How it is listed.
    #[must_use]
    pub fn row(self) -> &'static Row {
        // Each is in the table, which a test checks; the first is there for the compiler.
        EVENTS.iter().find(|row| row.event == self).unwrap_or(&EVENTS[0])
    }
}

impl ValueEnum for Event {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.row().name).help(self.row().about))
    }
}

/// Whom an event befalls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whom {
    /// The server under the load.
    pub addr: SocketAddr,
    /// The one that follows it, for [`Event::FullSync`].
    pub replica: Option<SocketAddr>,
    /// Keys that are to expire, and from when on, for [`Event::Expiry`].
    pub expiring: u32,
    pub expire_at_ms: u64,
    /// When the event is to begin, by the monotonic clock.
    pub begin_ns: u64,
}

/// What was seen of an event; times in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// When it began.
    pub began_us: Option<u64>,
    /// When it was first seen to be over.
    pub ended_us: Option<u64>,
    /// How much happened: keys that expired or were made, bytes that arrived.
    pub amount: u64,
    /// How much there was to happen.
    pub wanted: u64,
}

/// The recorded time, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded {
    pub from_us: u64,
    pub to_us: u64,
}

/// Makes the event happen when its time has come, and watches it until it is over or the load has ended.
pub(super) fn happen(event: Event, whom: &Whom, load_ended: &AtomicBool) -> Result<Seen> {
    let mut server = Client::connect(whom.addr)?;
    let mut seen = Seen::default();
    match event {
        Event::Quiet => Ok(seen),
        Event::Growth => {
            let before = server.keys()?;
            wait(load_ended, u64::MAX);
            seen.amount = server.keys()?.saturating_sub(before);
            Ok(seen)
        }
        Event::Snapshot => {
            wait(load_ended, whom.begin_ns);
            let began_us = clock::unix_us();
            server.ask(&["BGSAVE"])?;
            seen.began_us = Some(began_us);
            watch(load_ended, seen, &mut |_| saved(&mut server, began_us))
        }
        Event::Expiry => {
            let before = server.info("stats")?.number("expired_keys")?;
            seen.wanted = whom.expiring.into();
            seen.began_us = Some(whom.expire_at_ms * 1_000);
            wait(load_ended, whom.begin_ns);
            watch(load_ended, seen, &mut |seen| {
                let now = server.info("stats")?.number("expired_keys")?;
                seen.amount = now.saturating_sub(before);
                Ok(seen.amount >= seen.wanted)
            })
        }
        Event::FullSync => {
            let addr = whom.replica.context("no second server was started")?;
            seen.wanted = server.keys()?;
            let mut replica = Client::connect(addr)?;
            wait(load_ended, whom.begin_ns);
            seen.began_us = Some(clock::unix_us());
            replica.ask(&["REPLICAOF", "127.0.0.1", &whom.addr.port().to_string()])?;
            watch(load_ended, seen, &mut |seen| synced(&mut replica, seen))
        }
    }
}

/// Waits until then, or until the load has ended.
fn wait(load_ended: &AtomicBool, until_ns: u64) {
    loop {
        let left_ns = until_ns.saturating_sub(clock::mono_ns());
        if left_ns == 0 || load_ended.load(Ordering::Acquire) {
            return;
        }
        clock::sleep_ns(left_ns.min(LOOK_NS));
    }
}

/// Looks again and again until it is over, or the load has ended.
fn watch(
    load_ended: &AtomicBool,
    mut seen: Seen,
    look: &mut dyn FnMut(&mut Seen) -> Result<bool>,
) -> Result<Seen> {
    loop {
        // The look after the load's end comes too late to count as the end.
        let is_last = load_ended.load(Ordering::Acquire);
        let is_over = look(&mut seen)?;
        if is_over && !is_last {
            seen.ended_us = Some(clock::unix_us());
        }
        if is_over || is_last {
            return Ok(seen);
        }
        wait(load_ended, clock::mono_ns() + LOOK_NS);
    }
}

/// Whether the dump that began then is written.
fn saved(server: &mut Client, began_us: u64) -> Result<bool> {
    let info = server.info("persistence")?;
    let status = info.get("rdb_last_bgsave_status").unwrap_or("unknown");
    ensure!(status == "ok", "BGSAVE: rdb_last_bgsave_status is {status}");
    let is_new = info.number("rdb_last_save_time")? >= began_us / 1_000_000;
    Ok(is_new && !info.is_set("rdb_bgsave_in_progress"))
}

/// Whether the replica follows with all keys; how many bytes it has read of them until it does.
fn synced(replica: &mut Client, seen: &mut Seen) -> Result<bool> {
    let info = replica.info("replication")?;
    let read = info.get("master_sync_read_bytes").and_then(|text| text.parse().ok());
    seen.amount = seen.amount.max(read.unwrap_or(0));
    if info.get("master_link_status") != Some("up") {
        return Ok(false);
    }
    let (have, want) = (replica.keys()?, seen.wanted);
    ensure!(have >= want, "REPLICAOF: the link is up with {have} of {want} keys");
    Ok(true)
}

/// How long the event took within the recorded time, in seconds.
///
/// # Errors
/// It did not happen within that time; the text says what was seen.
pub(super) fn judge(event: Event, seen: &Seen, recorded: &Recorded, replies: u64) -> Result<f64> {
    let Recorded { from_us, to_us } = *recorded;
    let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
    match event {
        Event::Quiet => return Ok(0.0),
        Event::Growth => {
            let need = (replies as f64 * GROWN_MIN) as u64;
            let made = seen.amount;
            ensure!(
                replies > 0 && made >= need,
                "the table did not grow: {made} new keys from {replies} recorded inserts"
            );
            return Ok(seconds(from_us, to_us));
        }
        Event::Snapshot | Event::Expiry | Event::FullSync => {}
    }
    let name = event.row().name;
    let began_us = seen.began_us.with_context(|| format!("{name}: it did not begin"))?;
    ensure!(
        (from_us..to_us).contains(&began_us),
        "{name}: it began {:.3} s after recording had begun, which lasted {:.3} s",
        (began_us as f64 - from_us as f64) / 1e6,
        seconds(from_us, to_us)
    );
    let ended_us = seen.ended_us.filter(|&ended_us| ended_us <= to_us);
    let rest = format!("{:.1} s of recorded time", seconds(began_us, to_us));
    match (event, ended_us) {
        (Event::Expiry, Some(ended_us)) => {
            let span_us = SPAN_MS * 1_000;
            ensure!(
                ended_us >= began_us + span_us - 1_000,
                "expiry: keys were gone before their time"
            );
            Ok(seconds(began_us, ended_us))
        }
        (_, Some(ended_us)) => Ok(seconds(began_us, ended_us)),
        (Event::FullSync, None) if seen.amount > 0 => Ok(seconds(began_us, to_us)),
        (Event::Expiry, None) => bail!(
            "expiry: {} of {} keys were removed in {rest}: take a longer --seconds",
            seen.amount,
            seen.wanted
        ),
        (Event::FullSync, None) => bail!("full-sync: nothing of the data set arrived in {rest}"),
        (_, None) => bail!("{name}: it was not over after {rest}: take a longer --seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: Recorded = Recorded { from_us: 10_000_000, to_us: 16_000_000 };

    fn seen(began_us: u64, ended_us: Option<u64>) -> Seen {
        Seen { began_us: Some(began_us), ended_us, amount: 0, wanted: 0 }
    }

    fn refused(event: Event, seen: &Seen, words: &str) {
        let error = judge(event, seen, &RECORDED, 1_000).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn the_table_has_each_event_once_and_by_name() {
        assert_eq!(EVENTS.len(), ALL.len());
        for (row, event) in EVENTS.iter().zip(ALL) {
            assert_eq!(row.event, event);
            assert_eq!(event.row().name, row.name);
            assert_eq!(Event::from_str(row.name, false), Ok(event));
        }
        assert!(Event::from_str("earthquake", false).is_err());
    }

    #[test]
    fn a_snapshot_counts_when_it_is_within_the_recorded_time() {
        let event = Event::Snapshot;
        let took = judge(event, &seen(10_500_000, Some(12_000_000)), &RECORDED, 1).expect("within");
        assert!((took - 1.5).abs() < 1e-9);
        let whole = seen(RECORDED.from_us, Some(RECORDED.to_us));
        assert!(judge(event, &whole, &RECORDED, 1).is_ok(), "at the bounds");
        refused(event, &seen(9_999_999, Some(12_000_000)), "it began -0.000 s after");
        refused(event, &seen(16_000_000, None), "it began 6.000 s after");
        refused(event, &seen(10_500_000, Some(16_000_001)), "not over after 5.5 s");
        refused(event, &seen(10_500_000, None), "longer --seconds");
        refused(event, &Seen::default(), "it did not begin");
    }

    #[test]
    fn growth_counts_by_keys_that_were_made() {
        let grown = |amount| Seen { amount, ..Seen::default() };
        assert!(judge(Event::Growth, &grown(900), &RECORDED, 1_000).is_ok());
        refused(Event::Growth, &grown(899), "899 new keys from 1000");
        assert!(judge(Event::Growth, &grown(0), &RECORDED, 0).is_err(), "nothing was inserted");
        assert!(judge(Event::Quiet, &grown(0), &RECORDED, 0).is_ok());
    }

    #[test]
    fn expiry_counts_when_all_keys_went_and_not_before_their_time() {
        let gone = Seen { amount: 1_000, wanted: 1_000, ..seen(10_500_000, Some(12_000_000)) };
        assert!(judge(Event::Expiry, &gone, &RECORDED, 1).is_ok());
        let some = Seen { amount: 612, ended_us: None, ..gone };
        refused(Event::Expiry, &some, "612 of 1000 keys were removed in 5.5 s");
        let early = Seen { ended_us: Some(11_000_000), ..gone };
        refused(Event::Expiry, &early, "before their time");
    }

    #[test]
    fn a_sync_that_is_still_under_way_counts_when_bytes_have_arrived() {
        let event = Event::FullSync;
        let up = seen(10_500_000, Some(11_500_000));
        assert!((judge(event, &up, &RECORDED, 1).expect("up") - 1.0).abs() < 1e-9);
        let moved = Seen { amount: 1, ..seen(10_500_000, None) };
        assert!((judge(event, &moved, &RECORDED, 1).expect("moved") - 5.5).abs() < 1e-9);
        refused(event, &seen(10_500_000, None), "nothing of the data set arrived");
    }
}
