//! The figures of trials, what is made of them, and the watcher beside a load, without a server.

use std::collections::BTreeMap;

use super::*;
use crate::figures::Side;
use crate::rounds::Noise;

fn options() -> Options {
    Options {
        ours: "redis".to_owned(),
        events: Vec::new(),
        keys: 1_000,
        expiring: 1_000,
        connections: 5,
        rounds: 1,
        seconds: 2.0,
        server_cpu: 0,
        client_cpu: 0,
        transport: Transport::Ring,
        port: 28_900,
        seed: 1,
    }
}

/// A cell whose trials had these p99 and whose load was the limit or not.
fn cell(p99: &[f64], client_bound: bool) -> Cell {
    let trial = |&p99: &f64| {
        let bound = f64::from(u8::from(client_bound));
        BTreeMap::from([(P99.to_owned(), p99), (CLIENT_BOUND.to_owned(), bound)])
    };
    let mut cell = Cell {
        name: cell_name(&options(), Event::Snapshot),
        sides: vec![Side { name: "ours".to_owned(), trials: p99.iter().map(trial).collect() }],
        claims: Vec::new(),
        limits: Vec::new(),
        repeated: 0,
        disturbed: 0,
        noise: Noise::default(),
    };
    cell.limit(P99, false, BAR_P99_MS);
    cell
}

fn report(cells: Vec<Cell>) -> Report {
    Report { cells, ..Report::new("pauses", false) }
}

#[test]
fn the_median_is_judged_and_the_best_round_is_shown() {
    let met = cell(&[0.9, 3.0, 0.4], false);
    assert_eq!(verdict(&met), Some((0.4, 0.9, true)));
    assert_eq!(
        verdict(&cell(&[1.0], false)),
        Some((1.0, 1.0, false)),
        "the bar itself is not below it"
    );
    assert_eq!(verdict(&cell(&[], false)), None);
    let said = text(&report(vec![met, cell(&[1.5, 0.8, 2.0], true), cell(&[], false)]));
    assert!(
        said.contains("13 snapshot    p99 0.900 ms, best round 0.400, bar < 1: met\n"),
        "{said}"
    );
    assert!(said.contains("p99 1.500 ms, best round 0.800, bar < 1: MISSED; the load"), "{said}");
    assert!(said.contains("13 snapshot    not measured"), "{said}");
}

#[test]
fn a_missed_bar_ends_with_its_code_where_that_is_asked_for() {
    let (met, missed, bound) = (cell(&[0.5], false), cell(&[2.0], false), cell(&[2.0], true));
    assert_eq!(exit(&report(vec![met.clone()]), true), Exit::Ok);
    let both = report(vec![met, missed, bound.clone()]);
    assert_eq!(exit(&both, true), Exit::Regression);
    assert_eq!(exit(&both, false), Exit::Ok);
    assert_eq!(exit(&report(vec![bound]), true), Exit::ClientBound);
    let mut failed = both;
    failed.skipped.push("snapshot, ours: it did not begin".to_owned());
    assert_eq!(exit(&failed, false), Exit::Failed, "no figure is never a success");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |change: &dyn Fn(&mut Options), words: &str| {
        let mut options = options();
        change(&mut options);
        let error = options.check().expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    assert!(options().check().is_ok(), "at the shortest");
    refused(&|options| options.seconds = 1.9, "--seconds");
    refused(&|options| options.seconds = f64::NAN, "--seconds");
    refused(&|options| options.keys = 0, "--keys");
    refused(&|options| options.expiring = KEYS_MAX + 1, "--expiring");
    let keep = &mut |_: &Report| Ok(());
    let http = Options { ours: "nginx".to_owned(), ..options() };
    let error = run(&http, false, keep).expect_err("no RESP").to_string();
    assert!(error.contains("nginx does not speak resp"), "{error}");
}

#[test]
fn events_are_those_asked_for_in_the_order_of_the_table() {
    assert_eq!(options().events().len(), EVENTS.len());
    let two = Options { events: vec![Event::FullSync, Event::Quiet], ..options() };
    assert_eq!(two.events(), [Event::Quiet, Event::FullSync]);
}

#[test]
fn others_on_the_loads_core_are_what_is_not_its_own() {
    let before = Core { at_ns: 0, busy_ns: 100, own_ns: 10, replica_ns: Some(5) };
    let after = Core { at_ns: 1_000, busy_ns: 900, own_ns: 510, replica_ns: Some(205) };
    let mut figures = Figures::new();
    after.since(&before, &mut figures);
    assert_eq!(figures, Figures::from([("foreign_client_core", 0.3), ("replica_busy", 0.2)]));
    let mut alone = Figures::new();
    Core { replica_ns: None, ..after }.since(&before, &mut alone);
    assert_eq!(alone, Figures::from([("foreign_client_core", 0.3)]));
}

#[test]
fn the_watcher_ends_with_the_load_and_its_panic_is_an_error() {
    let watch = |ended: &AtomicBool| {
        while !ended.load(Ordering::Acquire) {
            clock::sleep_ns(MILLISECOND_NS);
        }
        Ok(2)
    };
    let (loaded, seen) = beside(|| Ok(1), watch);
    assert_eq!((loaded.expect("a load"), seen.expect("a watcher")), (1, 2));
    let (loaded, seen) = beside(|| Ok(1), |_| -> Result<()> { panic!("on purpose") });
    assert!(loaded.is_ok());
    assert!(seen.expect_err("it panicked").to_string().contains("panicked"));
}

#[test]
fn what_is_explained_names_every_event() {
    let text = explain();
    for Row { name, about, evidence, .. } in EVENTS {
        assert!(
            text.contains(&format!("  {name:<10} {about}")) && text.contains(evidence),
            "{text}"
        );
    }
}
